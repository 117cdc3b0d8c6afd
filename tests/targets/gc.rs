//! `updraft gc` against a running node: a release that a process still runs from stays, and goes once the
//! process has ended.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use updraft_tests::cluster::has_installed;
use updraft_tests::process::{Node, Program, installing_peer, seed, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// A program that is started from a release, and killed at the end.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn publish(seed: &Node, scratch: &Path, version: &str) {
    let source = scratch.join(format!("source-{version}"));
    write(&source.join("VERSION"), version);
    fs::create_dir_all(source.join("bin")).expect("writable");
    fs::copy("/bin/sleep", source.join("bin/wait")).expect("a program");
    let path = source.to_str().expect("a temporary directory has a plain name");
    seed.json(["publish", path, "--product", "app", "--version", version]);
}

fn row(view: &serde_json::Value, version: &str) -> Option<(bool, Option<u64>, String)> {
    let trees = view["trees"].as_array().expect("the contract says so");
    let tree = trees.iter().find(|tree| tree["name"].as_str().is_some_and(|name| name.starts_with(version)))?;
    let reason = tree["reason"].as_str().expect("the contract says so").to_owned();
    Some((tree["goes"].as_bool().expect("the contract says so"), tree["pid"].as_u64(), reason))
}

#[test]
fn a_release_that_runs_is_spared_by_itself_and_by_hand_until_it_ends() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let seed = seed(PROGRAM, scratch.path());
    let (peer, directory) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    publish(&seed, scratch.path(), "1.0.0");
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    let running = Command::new(directory.join("current/bin/wait")).arg("600").spawn().expect("it starts");
    let running = Started(running);
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        publish(&seed, scratch.path(), version);
        peer.until(version, |status| has_installed(status, version));
    }

    let look = || peer.json(["gc", "--dry-run"]);
    let view = look();
    assert_eq!(view["dry_run"], true);
    let (goes, pid, reason) = row(&view, "1.0.0").expect("it is still there");
    assert_eq!((goes, pid), (false, Some(u64::from(running.0.id()))), "{reason}");
    assert_eq!(row(&view, "1.2.0").map(|(goes, ..)| goes), Some(false), "the release to go back to");
    assert_eq!(row(&view, "1.3.0").map(|(goes, ..)| goes), Some(false), "the release that is installed");
    peer.json(["gc"]);
    assert!(row(&look(), "1.0.0").is_some(), "it runs, and was removed by hand");

    drop(running);
    let (goes, ..) = row(&look(), "1.0.0").expect("looking removes nothing");
    assert!(goes);
    let ended = peer.run(["gc"]).succeeded();
    assert!(ended.stdout.contains("gone"), "{ended:#?}");
    assert!(ended.stderr.contains("freed"), "{ended:#?}");
    let view = look();
    assert_eq!(row(&view, "1.0.0"), None);
    let left: Vec<_> = fs::read_dir(directory.join("releases")).expect("readable").flatten().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let again = peer.run(["gc"]).succeeded();
    assert!(again.stderr.contains("nothing to remove"), "{again:#?}");
}

#[test]
fn gc_needs_a_running_node() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    PROGRAM.run(&scratch.path().join("nobody"), ["gc"]).failed(8, "no node answers");
}
