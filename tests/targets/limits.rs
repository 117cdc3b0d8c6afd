//! Limits on rates with real processes: what is said holds, and whoever asks is told which and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tempfile::TempDir;
use updraft::control::views::StatusView;
use updraft_tests::http;
use updraft_tests::process::{Node, Program, until, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// Bytes of what is published: at [`CAP`] it takes some seconds.
const SIZE: usize = 4 << 20;
/// The limit, 1 MiB/s.
const CAP: u64 = 1 << 20;
/// What a limit of 1 MiB/s lets through at once.
const BURST: u64 = 1 << 20;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A file that no compression makes smaller.
fn noise(scratch: &Path) -> PathBuf {
    let path = scratch.join("noise.bin");
    let mut bytes = vec![0; SIZE];
    SmallRng::seed_from_u64(7).fill_bytes(&mut bytes);
    write(&path, bytes);
    path
}

/// A seed of the product `app`, with these lines in its configuration file and these flags.
fn seed(scratch: &Path, file: &str, flags: &[&str]) -> Node {
    let data_dir = scratch.join("seed");
    PROGRAM.run(&data_dir, ["init", "--product", "app"]).succeeded();
    write(&data_dir.join("updraft.toml"), file);
    Node::start(PROGRAM, &data_dir, ["seed", "--http", "127.0.0.1:0"].iter().chain(flags))
}

fn mirror(scratch: &Path, seed: &Node, flags: &[&str]) -> Node {
    let ticket = seed.ticket(&[]);
    let arguments = ["peer", "--join", &ticket, "--mirror", "app"];
    Node::start(PROGRAM, &scratch.join("mirror"), arguments.iter().chain(flags))
}

fn publish(seed: &Node, path: &Path) {
    let path = path.to_str().expect("a plain name");
    seed.run(["publish", path, "--product", "app", "--version", "1.0.0"]).succeeded();
}

fn is_held(status: &StatusView) -> bool {
    status.subscriptions[0].installed.as_deref() == Some("1.0.0")
}

/// Publishes, and watches what `moved` by `limited` until the mirror holds everything.
fn watch(seed: &Node, mirror: &Node, path: &Path, limited: &Node, moved: impl Fn(&StatusView) -> u64) {
    let started = Instant::now();
    publish(seed, path);
    until("the release at the mirror", || {
        let bytes = moved(&limited.status());
        // Measured after the bytes were counted: what was moved by then may only be less.
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).expect("not that long");
        let most = BURST + CAP * elapsed_ms / 1_000;
        assert!(bytes <= most, "{bytes} bytes after {elapsed_ms} ms, where at most {most} may pass");
        is_held(&mirror.status()).then_some(())
    });
    let least = Duration::from_secs((SIZE as u64 - BURST) / CAP);
    assert!(started.elapsed() >= least, "it took {:?}, and cannot take less than {least:?}", started.elapsed());
}

#[test]
fn a_limited_seed_stays_under_its_limit_and_says_which_and_why() {
    let scratch = scratch();
    let seed = seed(scratch.path(), "upload_limit = \"1MiB/s\"\negress_budget = 1.5\n", &[]);
    let mirror = mirror(scratch.path(), &seed, &[]);
    watch(&seed, &mirror, &noise(scratch.path()), &seed, |status| status.transfer.bytes_out);

    let status = seed.json(["status"]);
    let upload = serde_json::json!({ "bytes_per_second": CAP, "why": "always", "until": null });
    assert_eq!(status["limits"]["upload"], upload, "{status}");
    assert_eq!(status["limits"]["download"]["bytes_per_second"], Value::Null, "{status}");
    assert_eq!(status["limits"]["egress_budget_copies"], 1.5, "{status}");
    let sent = &status["artifacts"][0];
    assert_eq!((&sent["product"], &sent["version"]), (&Value::from("app"), &Value::from("1.0.0")));
    assert_eq!(sent["bytes_sent_first"], SIZE, "every byte left once: {sent}");

    let (seed_id, mirror_id) = (seed.status().peer_id, mirror.status().peer_id);
    let received = &mirror.json(["status"])["artifacts"][0];
    assert_eq!(received["sources"][0], serde_json::json!({ "peer_id": seed_id, "bytes": SIZE }));
    assert!(mirror.status().transfer.bytes_overhead_in > 0);

    let numbers = until("numbers of the release", || {
        let numbers = http::get(&seed.http(), "/metrics", &[]).text();
        let line =
            format!("updraft_release_sent_bytes_total{{product=\"app\",version=\"1.0.0\",copy=\"first\"}} {SIZE}");
        numbers.lines().any(|found| found == line).then_some(numbers)
    });
    assert!(numbers.contains("updraft_limit_bytes_per_second{direction=\"upload\"} 1048576"), "{numbers}");
    assert!(!numbers.contains(&mirror_id) && !numbers.contains(&seed_id), "a peer is no label: {numbers}");
}

#[test]
fn a_limited_peer_stays_under_its_limit() {
    let scratch = scratch();
    let seed = seed(scratch.path(), "", &[]);
    let mirror = mirror(scratch.path(), &seed, &["--download-limit", "1MiB/s"]);
    watch(&seed, &mirror, &noise(scratch.path()), &mirror, |status| status.transfer.bytes_in);
    assert_eq!(mirror.json(["status"])["limits"]["download"]["bytes_per_second"], CAP);
}

#[test]
fn a_paused_peer_fetches_nothing_and_says_so() {
    let scratch = scratch();
    let seed = seed(scratch.path(), "", &[]);
    let mirror = mirror(scratch.path(), &seed, &["--download-limit", "0"]);
    publish(&seed, &noise(scratch.path()));
    let status = mirror.until("the reason", |status| {
        status.subscriptions[0].reason.as_deref().is_some_and(|reason| reason.contains("downloads are paused (always)"))
    });
    assert_eq!(status.transfer.bytes_in, 0, "{status:#?}");
    let doctor = mirror.json(["doctor"]).to_string();
    assert!(doctor.contains("the node receives nothing: always"), "{doctor}");
}

#[test]
fn a_pause_by_the_hour_does_not_hold_for_local_peers_where_it_is_so_chosen() {
    let scratch = scratch();
    let file = "lan_exempt = true\n\n[[limit_windows]]\nfrom = \"00:00\"\nto = \"24:00\"\nupload = \"0\"\n";
    let seed = seed(scratch.path(), file, &[]);
    let mirror = mirror(scratch.path(), &seed, &[]);
    publish(&seed, &noise(scratch.path()));
    mirror.until("the release at the mirror", is_held);
    let upload = serde_json::json!({ "bytes_per_second": 0, "why": "window 00:00-24:00 daily", "until": null });
    assert_eq!(seed.json(["status"])["limits"]["upload"], upload);
    assert_eq!(seed.json(["peers"])["peers"][0]["lan_exempt"], true);
    let shown = seed.run(["status"]).succeeded().stdout;
    assert!(shown.contains("upload paused (window 00:00-24:00 daily)"), "{shown}");
}

#[test]
fn status_tells_until_when_a_window_holds() {
    let scratch = scratch();
    let half = |from: &str, to: &str, rate: &str| {
        format!("\n[[limit_windows]]\nfrom = \"{from}\"\nto = \"{to}\"\nupload = \"{rate}\"\n")
    };
    let halves = half("00:00", "12:00", "1MiB/s") + &half("12:00", "24:00", "2MiB/s");
    let seed = seed(scratch.path(), &format!("limit_time_zone = \"UTC\"\n{halves}"), &[]);
    let upload = &seed.json(["status"])["limits"]["upload"];
    let (why, until) = (upload["why"].as_str().expect("text"), upload["until"].as_str().expect("a time"));
    let expected = match upload["bytes_per_second"].as_u64().expect("a limit") {
        CAP => ("window 00:00-12:00 daily", "T12:00:00Z"),
        _ => ("window 12:00-24:00 daily", "T00:00:00Z"),
    };
    assert_eq!((why, &until[10..]), expected);
}

#[test]
fn limits_that_make_no_sense_are_refused_before_anything_starts() {
    let scratch = scratch();
    for (flags, part) in [
        (["seed", "--upload-limit", "fast"], "write it as 5MiB/s"),
        (["seed", "--upload-limit", "500"], "has no unit"),
        (["seed", "--download-limit", "1B/s"], "0 pauses"),
        (["seed", "--egress-budget", "0.5"], "1 to 10000"),
    ] {
        PROGRAM.run(scratch.path(), flags).failed(2, part);
    }
    write(
        &scratch.path().join("updraft.toml"),
        "[[limit_windows]]\nfrom = \"08:00\"\nto = \"08:00\"\nupload = \"0\"\n",
    );
    PROGRAM.run(scratch.path(), ["config", "check"]).failed(2, "updraft.toml:1: a window from 08:00 to 08:00");
    fs::remove_file(scratch.path().join("updraft.toml")).expect("it was written");
}
