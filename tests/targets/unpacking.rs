//! What installing costs beside what it must cost: from a whole artifact to a switched link, against
//! `tar --zstd -x && sync` on the same disk in the same run. Only the file system at hand is synced: what others
//! wrote elsewhere is nobody's cost here.
//!
//! And what memory it takes, of the installer alone and of a peer that fetches meanwhile.
//!
//! `cargo test --release -p updraft-tests --test unpacking -- --ignored --nocapture` measures, prints and
//! judges. `UPDRAFT_BENCH_DIR` names the disk, otherwise that of the temporary files.

use std::fs;
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use updraft::archive::{PackOptions, Packed, pack};
use updraft::installer::InstallDir;
use updraft::store::state::{InstallRow, StateDb};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Platform, ReleaseId};
use updraft_protocol::release::{Format, ManifestRef, Notes, Release};
use updraft_tests::cluster::has_installed;
use updraft_tests::forge::noise;
use updraft_tests::process::{Program, installing_peer, run_to_end, say, seed, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_crash-node"));

/// How long a peer does nothing before that is measured.
const IDLE: Duration = Duration::from_secs(2);

/// Files of the large tree.
const FILES: usize = 10_000;

/// Bytes of the large tree.
const BYTES: usize = 500_000_000;

/// Rounds, each of both contenders one after the other.
const ROUNDS: usize = 5;

/// What installing may take of what `tar` takes.
const MOST: f64 = 1.5;

/// Bytes of memory that unpacking may take beyond what the process has anyway.
const MEMORY_BYTES: u64 = 64 << 20;

/// A tree as software is: a few large files, many small ones, half of it compressible.
fn grow(root: &Path, files: usize, bytes: usize) {
    let noise = noise("software", 8 << 20);
    // Every hundredth file is large; together those are half.
    let large = bytes / 2 / (files / 100).max(1);
    let small = bytes / 2 / (files - files / 100).max(1);
    for number in 0..files {
        let size = if number % 100 == 0 { large } else { small / 2 + (number * 7_919) % small.max(1) };
        let mut content = Vec::with_capacity(size + 64);
        let mut at = (number * 104_729) % (noise.len() / 2);
        while content.len() < size {
            content.extend_from_slice(&noise[at..at + 32]);
            content.extend_from_slice(b"what compresses, as much software");
            at = (at + 32) % (noise.len() - 32);
        }
        content.truncate(size);
        write(&root.join(format!("part-{}/dir-{}/file-{number}", number % 13, number % 301)), &content);
    }
}

struct Bench {
    directory: PathBuf,
    artifact: PathBuf,
    release: Release,
    state: StateDb,
}

impl Bench {
    fn new(directory: &Path, files: usize, bytes: usize) -> Self {
        let (tree, artifact) = (directory.join("tree"), directory.join("artifact.tar.zst"));
        grow(&tree, files, bytes);
        let mut output = BufWriter::new(fs::File::create(&artifact).expect("writable"));
        let packed = pack(&tree, &mut output, &PackOptions { level: 3 }, &mut |_| ()).expect("packed");
        drop(output);
        fs::remove_dir_all(&tree).expect("removable");
        let state = StateDb::open(&directory.join("state.db")).expect("opens");
        Self { directory: directory.to_owned(), artifact, release: release(&packed), state }
    }

    /// `tar`, and all of it on the disk.
    fn tar(&self) -> Duration {
        let into = self.directory.join("tar");
        fs::create_dir(&into).expect("writable");
        self.sync();
        let started = Instant::now();
        let mut tar = Command::new("tar");
        tar.args(["--zstd", "-xf"]).arg(&self.artifact).arg("-C").arg(&into);
        run_to_end(&mut tar, "tar").succeeded();
        self.sync();
        let took = started.elapsed();
        fs::remove_dir_all(&into).expect("removable");
        took
    }

    /// What the installer does, with the journal's lines in between.
    fn install(&self) -> Duration {
        let into = self.directory.join("install");
        self.sync();
        let started = Instant::now();
        let install_dir = InstallDir::new(&into);
        let mut go_on = |_, _| ControlFlow::Continue(());
        self.journal("verified");
        install_dir.stage("1", &self.release, &self.artifact, "1.0.0-0", &mut go_on).expect("staged");
        self.journal("staged");
        self.journal("armed");
        install_dir.switch("1.0.0-0").expect("switched");
        self.journal("switched");
        let took = started.elapsed();
        fs::remove_dir_all(&into).expect("removable");
        took
    }

    /// What was written is on the disk.
    fn sync(&self) {
        run_to_end(Command::new("sync").arg("-f").arg(&self.directory), "sync").succeeded();
    }

    fn journal(&self, state: &str) {
        let row = InstallRow {
            directory: self.directory.clone(),
            product: self.release.id.product.clone(),
            state: state.to_owned(),
            txn: "1".to_owned(),
            from: None,
            to: None,
            attempts: 0,
            remaining_ms: None,
            error: None,
            updated_at: updraft_tests::now(),
        };
        self.state.journal(&row, None).expect("written");
    }
}

fn release(packed: &Packed) -> Release {
    let file_name = "app.tar.zst".parse().expect("a file name");
    let id = ReleaseId {
        product: "app".parse().expect("a name"),
        version: "1.0.0".parse().expect("a version"),
        platform: Platform::any(),
    };
    Release {
        path: id.path(&file_name),
        file_name,
        artifact: *packed.manifest.artifact(),
        length: packed.manifest.length(),
        format: Format::TarZst,
        content: packed.content,
        manifest: ManifestRef { sha256: Digest::ZERO, length: 1 },
        channels: std::collections::BTreeSet::new(),
        min_from: None,
        notes: Notes::None,
        critical: false,
        id,
    }
}

/// Seconds of processor time that this process and those it waited for have taken.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The name before may hold anything; times are in hundredths of a second.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 = after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / 100.0
}

/// The least, the median and the most, in seconds.
fn spread(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    [times[0], times[times.len() / 2], times[times.len() - 1]].map(|time| time.as_secs_f64())
}

/// A value of the `status` of a process, in bytes.
fn memory(process: &str, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with(key)).expect("a line of it");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// The most memory that `work` took beyond what there was.
fn peak_of(work: impl FnOnce()) -> u64 {
    // Sets the mark of the most memory to what there is now.
    fs::write("/proc/self/clear_refs", "5").expect("Linux lets a process do this to itself");
    let before = memory("self", "VmRSS:");
    work();
    memory("self", "VmHWM:").saturating_sub(before)
}

fn disk() -> tempfile::TempDir {
    match std::env::var_os("UPDRAFT_BENCH_DIR") {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    }
    .expect("a temporary directory")
}

#[test]
#[ignore = "a measurement: run it in release, on a machine that does nothing else"]
fn installing_takes_little_more_than_tar_and_sync() {
    let scratch = disk();
    let bench = Bench::new(scratch.path(), FILES, BYTES);
    let (mut tar, mut install) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let before = processor_seconds();
        tar.push(bench.tar());
        let between = processor_seconds();
        install.push(bench.install());
        let (tar_work, install_work) = (between - before, processor_seconds() - between);
        let (tar, install) = (tar[round - 1].as_secs_f64(), install[round - 1].as_secs_f64());
        say(&format!(
            "round {round}: tar and sync {tar:.2} s, install {install:.2} s (processor: {tar_work:.1} s, {install_work:.1} s, removal included)"
        ));
    }
    let (tar, install) = (spread(tar), spread(install));
    let ratio = install[1] / tar[1];
    say(&format!(
        "{FILES} files, {} MB (artifact {} MB), least, median and most of {ROUNDS}: tar and sync {tar:.2?} s, install {install:.2?} s, ratio {ratio:.2}",
        bench.release.content.length / 1_000_000,
        bench.release.length / 1_000_000
    ));
    assert!(ratio <= MOST, "installing takes {ratio:.2} times as long as tar and sync");
}

#[test]
fn memory_does_not_grow_with_the_artifact() {
    let peaks: Vec<u64> = [(400, 8_000_000), (400, 80_000_000)]
        .into_iter()
        .map(|(files, bytes)| {
            let scratch = disk();
            let bench = Bench::new(scratch.path(), files, bytes);
            peak_of(|| {
                bench.install();
            })
        })
        .collect();
    say(&format!("memory to install 8 MB: {} KiB, 80 MB: {} KiB", peaks[0] >> 10, peaks[1] >> 10));
    assert!(peaks.iter().all(|peak| *peak < MEMORY_BYTES), "{peaks:?}");
}

/// What a peer that has nothing to do takes, and how much more it took at most while it fetched and installed
/// this many bytes that nothing compresses.
fn peer_peaks(bytes: usize) -> (u64, u64) {
    let scratch = disk();
    let source = scratch.path().join("source");
    let content = noise("software", 8 << 20);
    for number in 0..bytes.div_ceil(5_000_000) {
        // Each of its own bytes: no piece is another's.
        let mut file = noise(&format!("file {number}"), 64);
        file.extend(
            content
                .iter()
                .cycle()
                .skip(number * 61_357)
                .take(5_000_000 - 64)
                .map(|byte| byte ^ number.to_le_bytes()[0]),
        );
        write(&source.join(format!("part-{number}")), file);
    }
    let seed = seed(PROGRAM, scratch.path());
    let (mut peer, _) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    peer.until("the catalog", |status| !status.subscriptions.is_empty());
    let process = peer.process().pid().to_string();
    std::thread::sleep(IDLE);
    fs::write(format!("/proc/{process}/clear_refs"), "5").expect("Linux lets a user do this to his processes");
    let idle = memory(&process, "VmRSS:");
    let path = source.to_str().expect("a temporary directory has a plain name");
    seed.json(["publish", path, "--product", "app", "--version", "1.0.0"]);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    let anonymous = memory(&process, "RssAnon:");
    say(&format!(
        "{} MB: idle {} KiB, at most {} KiB, in the end {} KiB ({} KiB of these anonymous)",
        bytes / 1_000_000,
        idle >> 10,
        memory(&process, "VmHWM:") >> 10,
        memory(&process, "VmRSS:") >> 10,
        anonymous >> 10
    ));
    (idle, memory(&process, "VmHWM:").saturating_sub(idle))
}

#[test]
#[ignore = "a measurement: half a gigabyte goes from a seed to a peer"]
fn the_memory_of_a_peer_does_not_grow_with_the_artifact() {
    let (small, large) = (peer_peaks(50_000_000), peer_peaks(500_000_000));
    say(&format!("above idle: {} KiB for 50 MB, {} KiB for 500 MB", small.1 >> 10, large.1 >> 10));
    assert!(small.1 < MEMORY_BYTES && large.1 < MEMORY_BYTES, "{small:?} {large:?}");
}
