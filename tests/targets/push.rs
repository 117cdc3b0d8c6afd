//! Releases that are signed on another machine than the seed: real processes, real keys, and whatever
//! goes wrong on the way.
//!
//! The seed has the online keys and no other; each build machine has the publisher's key and no other.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use updraft_tests::cluster::{has_installed, tree};
use updraft_tests::process::{Ended, Node, Program, Running, differences, installing_peer, until, write};
use updraft_tests::relay::Relay;

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// What is pushed while something dies: small enough for a slow machine, and many pieces.
const LARGE_BYTES: usize = 24 << 20;

/// A seed without offline keys, and the publisher's key elsewhere.
struct Bed {
    scratch: TempDir,
    seed: Node,
    key: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let data_dir = scratch.path().join("seed");
        PROGRAM.run(&data_dir, ["init", "--product", "app"]).succeeded();
        let key = scratch.path().join("publisher").join("app.pem");
        fs::create_dir(scratch.path().join("publisher")).expect("writable");
        fs::rename(data_dir.join("keys/releases-app.pem"), &key).expect("init makes a key for each product");
        for offline in ["root", "targets"] {
            fs::remove_file(data_dir.join(format!("keys/{offline}.pem"))).expect("init makes it");
        }
        let seed = Node::start(PROGRAM, &data_dir, ["seed", "--http", "127.0.0.1:0"]);
        Self { scratch, seed, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A tree to publish, of `bytes` bytes that do not compress.
    fn source(&self, name: &str, bytes: usize) -> PathBuf {
        let source = self.path(name);
        let mut state = bytes as u64 ^ 0x9e37_79b9_7f4a_7c15;
        let content: Vec<u8> = (0..bytes)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        write(&source.join("bin/app"), content);
        write(&source.join("NAME"), name);
        source
    }

    fn arguments(&self, source: &Path, version: &str, ticket: &str, more: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["publish", text(source), "--product", "app", "--version", version, "--level", "1"]
                .map(str::to_owned)
                .into();
        arguments.extend(["--join", ticket, "--key", text(&self.key)].map(str::to_owned));
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        arguments
    }

    fn push(&self, machine: &str, source: &Path, version: &str, more: &[&str]) -> Ended {
        let ticket = self.seed.ticket(&[]);
        PROGRAM.run(&self.path(machine), self.arguments(source, version, &ticket, more))
    }

    fn begin_push(&self, machine: &str, source: &Path, version: &str, ticket: &str, more: &[&str]) -> Running {
        PROGRAM.spawn(&self.path(machine), self.arguments(source, version, ticket, more))
    }

    /// A way to the seed that can be made slow.
    fn slow_way(&self, bytes_per_second: u64) -> (Relay, String) {
        let status = self.seed.status();
        let port = status.listen.iter().find_map(|address| address.split('/').nth(4)?.parse().ok());
        let relay = Relay::start(([127, 0, 0, 1], port.expect("it listens on TCP")).into());
        relay.limit_upload(bytes_per_second);
        let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", relay.address.port(), status.peer_id);
        let ticket = self.seed.ticket(&[address]);
        (relay, ticket)
    }

    /// Bytes of blocks that the seed has received since it started.
    fn received(&self) -> u64 {
        self.seed.status().transfer.bytes_in
    }

    fn versions(&self) -> Vec<String> {
        let mut versions: Vec<String> =
            self.seed.releases().releases.into_iter().map(|release| release.version).collect();
        versions.sort_unstable();
        versions
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary directory has a plain name")
}

#[test]
fn a_release_signed_elsewhere_is_published_by_a_seed_that_has_online_keys_only() {
    let bed = Bed::new();
    let (peer, directory) = installing_peer(PROGRAM, bed.scratch.path(), "peer", &bed.seed.ticket(&[]));
    for (number, version) in ["1.0.0", "1.1.0"].into_iter().enumerate() {
        let source = bed.source(version, 3_000_000 + number);
        let ended = bed.push("ci", &source, version, &["--json"]).succeeded();
        let answer = ended.json();
        assert_eq!(answer["version"], version);
        assert_eq!(answer["channel"], "stable");
        assert_eq!(answer["dry_run"], false);
        assert!(answer["timestamp_version"].as_u64() > Some(1), "{answer}");
        for phase in ["packing", "signing", "offering"] {
            assert!(ended.stderr.contains(phase), "{ended:#?}");
        }
        peer.until(version, |status| has_installed(status, version));
        let wrong = differences(&tree(&source), &tree(&directory.join("current")));
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
    let warnings = bed.seed.status().warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("offline keys")), "{warnings:?}");
    // The machine that pushed keeps nothing of what is out.
    let kept = fs::read_dir(bed.path("ci").join("artifacts")).expect("a store").count();
    assert_eq!(kept, 0);
    // Saying it twice does no harm; saying something else under the same version does nothing.
    let again = bed.push("ci", &bed.path("1.1.0"), "1.1.0", &[]).succeeded();
    assert!(again.stderr.contains("published before"), "{again:#?}");
    bed.push("ci", &bed.path("1.0.0"), "1.1.0", &[]).failed(1, "immutable");
    bed.push("ci", &bed.source("old", 1_000), "0.9.0", &[]).failed(1, "move it back");
}

#[test]
fn who_has_no_key_is_told_what_to_do() {
    let bed = Bed::new();
    let source = bed.source("1.0.0", 1_000);
    let arguments = ["publish", text(&source), "--product", "app", "--version", "1.0.0", "--channel", "beta"];
    let ended = bed.seed.run(arguments).failed(1, "releases-app");
    let command = "updraft publish PATH --product app --version 1.0.0 --channel beta --join TICKET --key FILE";
    assert!(ended.stderr.contains(command), "{ended:#?}");
    // A key that is not the publisher's: the error names the one that is needed.
    let other = bed.path("other");
    PROGRAM.run(&other, ["init", "--product", "app"]).succeeded();
    let ticket = bed.seed.ticket(&[]);
    let mut arguments = bed.arguments(&source, "1.0.0", &ticket, &[]);
    let key = arguments.iter().position(|argument| argument == "--key").expect("it was put there");
    arguments[key + 1] = text(&other.join("keys/releases-app.pem")).to_owned();
    let public = fs::read_to_string(bed.seed.data_dir.join("keys/releases-app.pub"));
    let ended = PROGRAM.run(&bed.path("ci"), arguments).failed(1, "releases-app cannot be signed here");
    assert!(public.is_ok() && ended.stderr.contains("--key FILE"), "{ended:#?}");
    // A product that nobody has added.
    let ticket = bed.seed.ticket(&[]);
    let arguments = bed.arguments(&source, "1.0.0", &ticket, &[]);
    let arguments = arguments.iter().map(|argument| if argument == "app" { "tool" } else { argument });
    PROGRAM.run(&bed.path("ci"), arguments).failed(1, "add-product");
    assert!(bed.versions().is_empty());
}

#[test]
fn a_push_goes_on_where_a_killed_one_stopped() {
    let bed = Bed::new();
    bed.push("ci", &bed.source("first", 1_000), "0.1.0", &[]).succeeded();
    let source = bed.source("1.0.0", LARGE_BYTES);
    let before = bed.received();
    let (_relay, slow) = bed.slow_way(LARGE_BYTES as u64 / 6);
    let mut pushing = bed.begin_push("ci", &source, "1.0.0", &slow, &[]);
    until("the middle of the upload", || {
        assert!(pushing.ended().is_none(), "{}", pushing.stderr());
        (bed.received() - before > LARGE_BYTES as u64 / 3).then_some(())
    });
    pushing.kill();
    assert_eq!(bed.versions(), ["0.1.0"], "nothing is half published");
    bed.push("ci", &source, "1.0.0", &[]).succeeded();
    assert_eq!(bed.versions(), ["0.1.0", "1.0.0"]);
    let received = bed.received() - before;
    assert!(received < LARGE_BYTES as u64 * 5 / 4, "{received} bytes came in all: it began anew");
}

#[test]
fn an_encrypted_publishers_key_opens_with_its_passphrase() {
    let bed = Bed::new();
    let (ticket, secret) = (bed.seed.ticket(&[]), bed.path("passphrase"));
    std::fs::write(&secret, "correct horse\n").expect("writable");
    let directory = bed.key.parent().expect("it is in a directory");
    let label = bed.key.file_stem().and_then(|stem| stem.to_str()).expect("a label");
    let lock = ["key", "passphrase", label, "--keys", text(directory), "--new-passphrase-file", text(&secret)];
    PROGRAM.run(&bed.path("ci"), lock).succeeded();
    let source = bed.source("1.0.0", 1_000);
    let push = bed.arguments(&source, "1.0.0", &ticket, &[]);
    assert_ne!(PROGRAM.run(&bed.path("ci"), &push).code, Some(0), "nobody can be asked");
    let push = bed.arguments(&source, "1.0.0", &ticket, &["--passphrase-file", text(&secret)]);
    PROGRAM.run(&bed.path("ci"), &push).succeeded();
    assert_eq!(bed.versions(), ["1.0.0"]);
}

#[test]
fn a_killed_seed_keeps_the_old_set_and_takes_the_same_push_again() {
    let mut bed = Bed::new();
    // From another machine: one that has met the seed would go round the slow way.
    bed.push("elsewhere", &bed.source("first", 1_000), "0.1.0", &[]).succeeded();
    let source = bed.source("1.0.0", LARGE_BYTES);
    let before = bed.received();
    let (_relay, slow) = bed.slow_way(LARGE_BYTES as u64 / 6);
    let mut pushing = bed.begin_push("ci", &source, "1.0.0", &slow, &[]);
    until("the middle of the upload", || {
        assert!(pushing.ended().is_none(), "{}", pushing.stderr());
        (bed.received() - before > LARGE_BYTES as u64 / 2).then_some(())
    });
    until("a word about the upload", || pushing.stderr().contains("uploading").then_some(()));
    bed.seed.kill();
    bed.seed.start_again();
    assert_eq!(bed.versions(), ["0.1.0"], "the old set is in force");
    assert_eq!(pushing.terminate().code(), Some(1), "{}", pushing.stderr());
    assert!(pushing.stderr().contains("run the same command again"), "{}", pushing.stderr());
    bed.push("ci", &source, "1.0.0", &[]).succeeded();
    assert_eq!(bed.versions(), ["0.1.0", "1.0.0"]);
    assert!(bed.received() < LARGE_BYTES as u64, "pieces from before the crash are used");
}

#[test]
fn two_machines_that_push_at_once_both_succeed() {
    let bed = Bed::new();
    let (one, other) = (bed.source("one", 4_000_000), bed.source("other", 4_000_001));
    let ticket = bed.seed.ticket(&[]);
    let mut pushes = [
        bed.begin_push("ci-1", &one, "1.0.0", &ticket, &[]),
        bed.begin_push("ci-2", &other, "2.0.0", &ticket, &["--channel", "beta"]),
    ];
    for push in &mut pushes {
        let status = push.wait("a push");
        assert!(status.success(), "{}", push.stderr());
    }
    assert_eq!(bed.versions(), ["1.0.0", "2.0.0"]);
}

#[test]
fn a_role_is_renewed_without_a_release() {
    let bed = Bed::new();
    let ticket = bed.seed.ticket(&[]);
    let arguments = ["publish", "--renew", "--product", "app", "--join", &ticket, "--key", text(&bed.key)];
    // Expiry is stated in seconds: what is signed within the same one would not expire later.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let answer = PROGRAM.json(&bed.path("ci"), arguments);
    assert_eq!(answer["role"], "releases-app");
    assert_eq!(answer["version"], 2);
    assert!(bed.versions().is_empty());
}

#[test]
fn a_seed_that_is_not_there_is_said_to_be_not_there() {
    let mut bed = Bed::new();
    let ticket = bed.seed.ticket(&[]);
    bed.seed.kill();
    let source = bed.source("1.0.0", 1_000);
    let ended = PROGRAM.run(&bed.path("ci"), bed.arguments(&source, "1.0.0", &ticket, &["--timeout", "2"]));
    ended.failed(1, "did not end within 2 s");
    assert!(seed_is_untouched(&bed));
}

fn seed_is_untouched(bed: &Bed) -> bool {
    !bed.path("ci").join("keys").exists()
}
