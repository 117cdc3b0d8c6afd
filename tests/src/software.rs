//! A real software release to publish: what Debian ships, else what came with the Rust toolchain.
//!
//! The packages are fetched once and cached outside the source tree. Where they cannot be had (no
//! Debian, no network), a part of the toolchain that built these tests takes their place: it is
//! certainly there, and it is software too. Either way the tree gets every kind of entry that an
//! update must carry, so that what the tests claim does not depend on what a package happens to hold.
//! `UPDRAFT_TEST_SOFTWARE=toolchain` takes the toolchain without asking for packages.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::process::{run_to_end, say, write};

/// Bytes that a release has at least.
pub const MIN_BYTES: u64 = 50 << 20;

/// Bytes after which no more is taken from one part of a source, whose size may be anything.
const PART_BYTES: u64 = 32 << 20;

/// The packages are one part, and small enough to be taken whole.
const PACKAGES_BYTES: u64 = 192 << 20;

/// Files larger than this are left out: the compiler itself is one of 150 MB.
const MAX_FILE_BYTES: u64 = 40 << 20;

/// Files after which no more are taken from one part.
const PART_FILES: usize = 6_000;

/// Debian packages of about 80 MB: a C program with many commands and links, a tree of many small
/// files, an interpreter with its modules.
const PACKAGES: [&str; 4] = ["git", "vim-runtime", "perl-base", "bash"];

/// Name of the cached packages; it changes with what is in them.
const CACHED: &str = "debian-1";

/// Where the release came from and what is in it.
#[derive(Debug, Clone)]
pub struct Software {
    /// The tree.
    pub root: PathBuf,
    /// Where it came from.
    pub source: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files.
    pub files: usize,
    /// Bytes and files at which the part that is being taken has given enough.
    enough: (u64, usize),
    taken: BTreeSet<Vec<u8>>,
    /// Files in the order in which they were taken, relative to the root.
    paths: Vec<PathBuf>,
}

impl Software {
    /// Makes version 1.0.0 in `root`, which must not exist. Packages are cached in `cache`.
    ///
    /// # Panics
    /// Where the disk refuses, or neither source holds enough.
    pub fn make(root: &Path, cache: &Path) -> Self {
        let started = Instant::now();
        fs::create_dir_all(root).expect("writable");
        let empty = Self {
            root: root.to_owned(),
            source: String::new(),
            bytes: 0,
            files: 0,
            enough: (0, 0),
            taken: BTreeSet::new(),
            paths: Vec::new(),
        };
        let mut software = match debian(cache) {
            Ok(packages) => Self { source: format!("Debian packages {}", PACKAGES.join(", ")), ..empty }
                .of(&[packages], PACKAGES_BYTES),
            Err(reason) => {
                say(&format!("no Debian packages ({reason}); taking a part of the Rust toolchain instead"));
                let parts = toolchain();
                Self { source: "the Rust toolchain".to_owned(), ..empty }.of(&parts, PART_BYTES)
            }
        };
        assert!(software.bytes >= MIN_BYTES, "only {} bytes of software in {}", software.bytes, software.source);
        software.add_oddities();
        let took = started.elapsed().as_secs_f64();
        let (files, mib, source) = (software.files, software.bytes >> 20, &software.source);
        say(&format!("software: {files} files, {mib} MiB, from {source}, in {took:.1} s"));
        software
    }

    fn of(mut self, parts: &[PathBuf], bytes: u64) -> Self {
        for part in parts {
            self.enough = (self.bytes + bytes, self.files + PART_FILES);
            let name = part.file_name().unwrap_or(OsStr::new("part"));
            let into = if parts.len() == 1 { PathBuf::new() } else { PathBuf::from(name) };
            self.take(part, &into);
        }
        self
    }

    /// Copies a tree, deterministically, as a publisher would have it: no two names that differ in
    /// case only, no setuid bits.
    fn take(&mut self, from: &Path, into: &Path) {
        let Ok(entries) = fs::read_dir(from) else { return };
        let mut names: Vec<OsString> = entries.filter_map(|entry| entry.ok().map(|entry| entry.file_name())).collect();
        names.sort();
        fs::create_dir_all(self.root.join(into)).expect("writable");
        for name in names {
            if self.bytes >= self.enough.0 || self.files >= self.enough.1 {
                return;
            }
            let (source, relative) = (from.join(&name), into.join(&name));
            let Ok(metadata) = fs::symlink_metadata(&source) else { continue };
            let folded = relative.as_os_str().to_string_lossy().to_lowercase().into_bytes();
            if !self.taken.insert(folded) {
                continue;
            }
            let target = self.root.join(&relative);
            if metadata.is_dir() {
                self.take(&source, &relative);
            } else if metadata.is_symlink() {
                symlink(fs::read_link(&source).expect("a link"), target).expect("writable");
            } else if metadata.is_file() && metadata.len() <= MAX_FILE_BYTES && fs::copy(&source, &target).is_ok() {
                let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                set_mode(&target, mode);
                self.bytes += metadata.len();
                self.files += 1;
                self.paths.push(relative);
            }
        }
    }

    /// Every kind of entry that an update must carry, whatever the source holds.
    fn add_oddities(&mut self) {
        let odd = self.root.join("odd ones");
        for name in [
            OsString::from("space and  two spaces "),
            OsString::from("ünïcode — 日本語 🦀"),
            OsString::from("quote\" 'and' \\backslash"),
            OsString::from("line\nend\ttab"),
            OsString::from("-rf *"),
            OsString::from_vec(vec![b'l', b'a', b't', b'i', b'n', 0xe9, 0xff]),
            OsString::from("n".repeat(255)),
        ] {
            write(&odd.join(&name), name.as_bytes());
        }
        let deep = (0..40).fold(odd.join("deep"), |path, level| path.join(format!("directory number {level}")));
        write(&deep.join("leaf"), "deep down\n");
        write(&odd.join("empty"), "");
        write(&odd.join("empty executable"), "");
        set_mode(&odd.join("empty executable"), 0o755);
        write(&odd.join("run"), "#!/bin/sh\necho 1.0.0\n");
        set_mode(&odd.join("run"), 0o755);
        fs::hard_link(odd.join("run"), odd.join("run as well")).expect("writable");
        fs::create_dir_all(odd.join("empty directory/another")).expect("writable");
        for (target, name) in [
            ("run", "relative link"),
            ("../odd ones/deep", "link to a directory"),
            ("/bin/sh", "absolute link"),
            ("/nonexistent/absolute", "dangling absolute link"),
            ("nowhere/to/be found", "dangling link"),
            ("current", "link to change"),
            ("loop", "loop"),
        ] {
            symlink(target, odd.join(name)).expect("writable");
        }
        self.files += 13;
    }

    /// Turns the tree into the next version: files changed, removed and added, a link that points
    /// elsewhere, an execute bit that moved, a file that became a directory and one that became a link.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn update(&self) {
        let odd = self.root.join("odd ones");
        for (index, path) in self.paths.iter().enumerate() {
            let path = self.root.join(path);
            if index % 50 == 7 {
                fs::remove_file(path).expect("writable");
            } else if index % 10 == 3 {
                let mut file = fs::OpenOptions::new().append(true).open(path).expect("writable");
                file.write_all(b"\n# changed in 1.1.0\n").expect("writable");
            } else if index % 100 == 15 {
                set_mode(&path, 0o755);
            }
        }
        fs::remove_dir_all(odd.join("deep/directory number 0/directory number 1")).expect("writable");
        fs::remove_file(odd.join("empty executable")).expect("writable");
        write(&odd.join("run"), "#!/bin/sh\necho 1.1.0\n");
        for name in ["link to change", "relative link", "space and  two spaces ", "empty"] {
            fs::remove_file(odd.join(name)).expect("writable");
        }
        symlink("elsewhere", odd.join("link to change")).expect("writable");
        write(&odd.join("relative link"), "it was a link\n");
        symlink("run", odd.join("space and  two spaces ")).expect("writable");
        write(&odd.join("empty/now a directory"), "it was an empty file\n");
        write(&odd.join("new/in 1.1.0"), vec![b'n'; 3 << 20]);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("writable");
}

/// The unpacked packages; fetched where they are not cached yet.
fn debian(cache: &Path) -> Result<PathBuf, String> {
    if std::env::var_os("UPDRAFT_TEST_SOFTWARE").is_some_and(|source| source == "toolchain") {
        return Err("told so by UPDRAFT_TEST_SOFTWARE".to_owned());
    }
    let cached = cache.join(CACHED);
    if cached.is_dir() {
        return Ok(cached);
    }
    let failed = |error: std::io::Error| format!("{}: {error}", cache.display());
    fs::create_dir_all(cache).map_err(failed)?;
    let work = tempfile::tempdir_in(cache).map_err(failed)?;
    // Patience ends long before that of whoever waits for the tests.
    let mut download = Command::new("timeout");
    download.args(["60", "apt-get", "download", "-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10"]);
    run(download.args(PACKAGES).current_dir(work.path()), "apt-get download")?;
    let tree = work.path().join("tree");
    for entry in fs::read_dir(work.path()).map_err(failed)? {
        let package = entry.map_err(failed)?.path();
        if package.extension() == Some(OsStr::new("deb")) {
            run(Command::new("timeout").args(["60", "dpkg-deb", "-x"]).arg(&package).arg(&tree), "dpkg-deb -x")?;
        }
    }
    match fs::rename(&tree, &cached) {
        // Another test was faster.
        Err(_) if cached.is_dir() => Ok(cached),
        Err(error) => Err(failed(error)),
        Ok(()) => Ok(cached),
    }
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    if let Err(error) = Command::new(command.get_program()).arg("--version").output() {
        return Err(format!("{what}: {error}"));
    }
    let ended = run_to_end(command, what);
    if ended.code == Some(0) {
        return Ok(());
    }
    Err(format!("{what}: {}", ended.stderr.lines().next_back().unwrap_or("it failed")))
}

/// The parts of the toolchain to copy from, and the sources of crates in case they are small.
fn toolchain() -> Vec<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let ended = run_to_end(Command::new(rustc).args(["--print", "sysroot"]), "rustc").succeeded();
    let sysroot = PathBuf::from(ended.stdout.trim());
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let own = ["bin", "lib/rustlib", "share/doc", "share/man"].map(|part| sysroot.join(part));
    let sources = home.map(|home| home.join("registry/src"));
    own.into_iter().chain(sources).filter(|part| part.is_dir()).collect()
}
