//! The program as scripts and operators meet it: arguments in; exit codes, files and JSON out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tempfile::TempDir;
use updraft_tests::cluster::has_installed;
use updraft_tests::http::get;
use updraft_tests::process::{Ended, Node, Program, installing_peer, seed, until, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

const OK: i32 = 0;
const ERROR: i32 = 1;
const USAGE: i32 = 2;
const NOTHING_TO_DO: i32 = 3;
const VERIFICATION_FAILED: i32 = 5;
const BLOCKED_BY_POLICY: i32 = 6;
const NODE_UNREACHABLE: i32 = 8;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// A stopped seed's directory with the product `app`.
fn repository(scratch: &Path) -> PathBuf {
    let data_dir = scratch.join("seed");
    PROGRAM.run(&data_dir, ["init", "--product", "app"]).succeeded();
    data_dir
}

fn publish(data_dir: &Path, path: &Path, version: &str, more: &[&str]) -> Ended {
    let arguments = ["publish", plain(path), "--product", "app", "--version", version];
    PROGRAM.run(data_dir, arguments.iter().chain(more))
}

/// A small tree to publish.
fn tree(scratch: &Path) -> PathBuf {
    let tree = scratch.join("tree");
    write(&tree.join("bin/app"), "#!/bin/sh\n");
    write(&tree.join("share/data"), "data".repeat(10_000));
    tree
}

/// How far the repository of a stopped or running seed is.
fn versions(data_dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let metadata = fs::read_dir(data_dir.join("metadata")).expect("readable").flatten();
    for entry in metadata.flat_map(|repository| fs::read_dir(repository.path()).expect("readable").flatten()) {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    names
}

fn count(path: &Path) -> usize {
    fs::read_dir(path).expect("readable").count()
}

// ---- what makes no sense --------------------------------------------------------------------

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let scratch = scratch();
    for arguments in [
        &["explode"][..],
        &[],
        &["publish"],
        &["publish", "/etc/passwd", "--product", "app"],
        &["publish", "/etc/passwd", "--product", "App", "--version", "1.0.0"],
        &["publish", "/etc/passwd", "--product", "app", "--version", "v1"],
        &["publish", "/etc/passwd", "--product", "app", "--version", "1.0.0", "--level", "99"],
        &["publish", "/nonexistent/thing", "--product", "app", "--version", "1.0.0"],
        &["publish", "/etc/passwd", "--product", "app", "--version", "1.0.0", "--min-from", "1.0.0"],
        &["init", "--product", "../up"],
        &["init", "--product", "app", "--product", "app"],
        &["seed", "--listen", "127.0.0.1:80"],
        &["seed", "--http", "nowhere"],
        &["peer", "--join", "updraft1:zzz"],
        &["peer", "--join", "/nonexistent/ticket"],
        &["peer", "--subscribe", "app"],
        &["peer", "--done-file", "/tmp/done"],
        &["history", "-n", "0"],
        &["completions", "tcsh"],
        &["status", "--color", "mauve"],
    ] {
        let ended = PROGRAM.run(scratch.path(), arguments);
        assert_eq!(ended.code, Some(USAGE), "{ended:#?}");
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{ended:#?}");
    }
    assert_eq!(count(scratch.path()), 0, "a command that makes no sense leaves nothing behind");
}

#[test]
fn help_and_version_are_answers() {
    let scratch = scratch();
    assert!(PROGRAM.run(scratch.path(), ["--version"]).succeeded().stdout.starts_with("updraft 0."));
    let help = PROGRAM.run(scratch.path(), ["--help"]).succeeded().stdout;
    for command in [
        "demo",
        "init",
        "seed",
        "peer",
        "ticket",
        "publish",
        "releases",
        "status",
        "peers",
        "fetch",
        "install",
        "rollback",
        "hold",
        "unhold",
        "history",
        "events",
        "key",
        "root",
        "targets",
        "doctor",
        "config",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in the help");
        assert!(!PROGRAM.run(scratch.path(), [command, "--help"]).succeeded().stdout.is_empty());
    }
}

#[test]
fn without_a_node_commands_say_which_one_they_looked_for() {
    let scratch = scratch();
    let data_dir = scratch.path().join("nobody");
    for arguments in [
        &["status"][..],
        &["peers"],
        &["releases"],
        &["history"],
        &["events"],
        &["fetch", "app"],
        &["install", "app"],
        &["rollback", "app", "--yes"],
        &["hold", "app"],
        &["unhold", "app"],
    ] {
        let ended = PROGRAM.run(&data_dir, arguments).failed(NODE_UNREACHABLE, "nobody");
        assert!(ended.stderr.contains("--data-dir"), "what to do next is missing: {ended:#?}");
    }
    assert!(!data_dir.exists(), "looking leaves nothing behind");
}

// ---- a repository ---------------------------------------------------------------------------

#[test]
fn private_keys_are_their_owners_alone() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    PROGRAM.run(&data_dir, ["ticket"]).succeeded();
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o7777;
    let mut keys: Vec<PathBuf> =
        fs::read_dir(data_dir.join("keys")).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    keys.retain(|key| key.extension().is_some_and(|extension| extension == "pem"));
    assert_eq!(keys.len(), 6, "one key for each role: {keys:?}");
    keys.push(data_dir.join("node.key"));
    for key in keys {
        assert_eq!(mode(&key), 0o600, "{}", key.display());
    }
    for directory in [data_dir.clone(), data_dir.join("keys")] {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
    }
}

#[test]
fn a_repository_is_made_once() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let before = versions(&data_dir);
    let key = fs::read(data_dir.join("keys/root.pem")).expect("readable");
    PROGRAM.run(&data_dir, ["init"]).failed(ERROR, "already belongs to repository");
    PROGRAM.run(&data_dir, ["init", "--product", "other"]).failed(ERROR, "already belongs to repository");
    assert_eq!(versions(&data_dir), before);
    assert!(fs::read(data_dir.join("keys/root.pem")).expect("readable") == key);
}

#[test]
fn a_ticket_names_the_same_addresses_whether_or_not_the_seed_runs() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let arguments = ["ticket", "--address", "/ip4/192.0.2.1/tcp/4880", "--address", "/dns4/example.org/tcp/1"];
    let stopped = PROGRAM.json(&data_dir, arguments);
    let running = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]).json(arguments);
    assert_eq!(stopped, running);
    let addresses = running["addresses"].as_array().expect("a list");
    assert!(addresses.len() == 2 && addresses.iter().all(|a| a.as_str().is_some_and(|a| a.contains("/p2p/"))));
}

#[test]
fn a_second_node_on_one_directory_is_told_who_is_first() {
    let scratch = scratch();
    let mut first = seed(PROGRAM, scratch.path());
    let pid = format!("process {}", first.process().pid());
    for arguments in [&["seed", "--http", "off", "--listen", "/ip4/127.0.0.1/tcp/0"][..], &["init"]] {
        PROGRAM.run(&first.data_dir, arguments).failed(ERROR, &pid);
    }
    assert!(!first.status().listen.is_empty(), "the first goes on");
}

#[test]
fn a_node_in_a_very_deep_directory_is_reached() {
    let scratch = scratch();
    let deep = scratch.path().join("d".repeat(120)).join("e".repeat(200));
    let data_dir = repository(&deep);
    let node = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]);
    assert_eq!(node.json(["status"])["role"], "seed");
    publish(&data_dir, &tree(scratch.path()), "1.0.0", &[]).succeeded();
}

#[test]
fn a_node_that_is_told_to_terminate_ends_well_and_starts_again_as_the_same() {
    let scratch = scratch();
    let mut node = seed(PROGRAM, scratch.path());
    let before = node.status().peer_id;
    node.terminate();
    PROGRAM.run(&node.data_dir, ["status"]).failed(NODE_UNREACHABLE, "control.sock");
    node.start_again();
    assert_eq!(node.status().peer_id, before);
    node.kill();
    node.start_again();
    assert_eq!(node.status().peer_id, before);
}

// ---- publish --------------------------------------------------------------------------------

#[test]
fn a_release_is_published_through_the_running_seed_and_into_a_stopped_one() {
    let scratch = scratch();
    let (data_dir, tree) = (repository(scratch.path()), tree(scratch.path()));
    let offline = publish(&data_dir, &tree, "1.0.0", &["--json"]).succeeded().json();
    let mut node = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]);
    let again = publish(&data_dir, &tree, "1.0.1", &["--json"]).succeeded().json();
    assert_eq!(offline["sha256"], again["sha256"], "the same tree makes the same bytes");
    node.terminate();
    publish(&data_dir, &tree, "1.0.2", &[]).succeeded();
    node.start_again();
    let releases = node.json(["releases", "app"]);
    let known: Vec<&Value> = releases["releases"].as_array().expect("a list").iter().map(|r| &r["version"]).collect();
    assert_eq!(known, ["1.0.2", "1.0.1", "1.0.0"]);
}

#[test]
fn what_cannot_be_published_is_refused_and_leaves_the_repository_as_it_was() {
    let scratch = scratch();
    let (data_dir, good) = (repository(scratch.path()), tree(scratch.path()));
    publish(&data_dir, &good, "1.0.0", &[]).succeeded();
    let place = |name: &str| scratch.path().join(name);
    fs::create_dir(place("empty")).expect("writable");
    write(&place("nothing"), "");
    write(&place("cut.tar.gz"), "this is no archive");
    write(&place("fifo/file"), "x");
    mknodat(CWD, place("fifo/queue"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a fifo");
    write(&place("socket/file"), "x");
    let _listener = UnixListener::bind(place("socket/socket")).expect("a socket");
    write(&place("setuid/tool"), "x");
    fs::set_permissions(place("setuid/tool"), fs::Permissions::from_mode(0o4755)).expect("writable");
    write(&place("case/README"), "x");
    write(&place("case/readme"), "x");
    mknodat(CWD, place("pipe"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a fifo");
    let cases: [(PathBuf, &str, &str); 10] = [
        (good.clone(), "1.0.0", "immutable"),
        (good, "1.0.0+again", "immutable"),
        (place("empty"), "1.1.0", "empty directory"),
        (place("nothing"), "1.1.0", "empty file"),
        (place("cut.tar.gz"), "1.1.0", "cut.tar.gz"),
        (place("pipe"), "1.1.0", "not a regular file"),
        (place("fifo"), "1.1.0", "a fifo"),
        (place("socket"), "1.1.0", "a socket"),
        (place("setuid"), "1.1.0", "chmod"),
        (place("case"), "1.1.0", "only by case"),
    ];
    let (before, artifacts) = (versions(&data_dir), count(&data_dir.join("artifacts")));
    for round in ["stopped", "running"] {
        let node = (round == "running").then(|| Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]));
        for (path, version, part) in &cases {
            publish(&data_dir, path, version, &[]).failed(ERROR, part);
        }
        assert_eq!(versions(&data_dir), before, "{round}");
        drop(node);
    }
    assert_eq!(count(&data_dir.join("artifacts")), artifacts, "what was packed in vain is gone");
    assert_eq!(count(&data_dir.join("tmp")), 0, "nothing half done stays");
}

/// Appends to a file again and again while `work` runs.
fn while_written<T>(file: &Path, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(file).expect("writable");
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, b"more").expect("writable");
            }
        });
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_published() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let log = scratch.path().join("tree/log");
    write(&log, vec![b'x'; 8 << 20]);
    let before = versions(&data_dir);
    for path in [&log, &scratch.path().join("tree")] {
        // The writer may be kept waiting for as long as one reading takes, which then is sound; not every time.
        let ended = while_written(&log, || {
            until("a refusal", || {
                Some(publish(&data_dir, path, "1.0.0", &["--dry-run"])).filter(|ended| ended.code != Some(OK))
            })
        });
        ended.failed(ERROR, "changed while it was read");
    }
    assert_eq!(versions(&data_dir), before);
    publish(&data_dir, &log, "1.0.0", &[]).succeeded();
}

#[test]
fn a_dry_run_signs_nothing_and_says_what_would_be() {
    let scratch = scratch();
    let (data_dir, tree) = (repository(scratch.path()), tree(scratch.path()));
    let before = versions(&data_dir);
    let would = publish(&data_dir, &tree, "1.0.0", &["--dry-run", "--json"]).succeeded().json();
    assert_eq!((&would["dry_run"], &would["timestamp_version"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(versions(&data_dir), before);
    let did = publish(&data_dir, &tree, "1.0.0", &["--json"]).succeeded().json();
    assert_eq!(would["sha256"], did["sha256"]);
}

#[test]
fn only_a_seed_publishes() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let (mut peer, _) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    let tree = tree(scratch.path());
    publish(&peer.data_dir, &tree, "1.0.0", &[]).failed(ERROR, "seed");
    peer.terminate();
    publish(&peer.data_dir, &tree, "1.0.0", &[]).failed(ERROR, "init");
}

// ---- inspecting -----------------------------------------------------------------------------

#[test]
fn every_inspecting_command_answers_in_schema_1() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let (peer, _) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    publish(&seed.data_dir, &tree(scratch.path()), "1.0.0", &["--notes", plain(&notes(scratch.path()))]).succeeded();
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    for node in [&seed, &peer] {
        for arguments in [
            &["status"][..],
            &["status", "--explain"],
            &["peers"],
            &["releases"],
            &["releases", "app"],
            &["history"],
            &["history", "app", "-n", "1"],
            &["ticket"],
            &["config", "show"],
            &["config", "check"],
            &["fetch", "app"],
            &["fetch", "app@1.0.0"],
        ] {
            node.json(arguments);
            let human = node.run(arguments).succeeded();
            assert!(!human.stdout.is_empty() && !human.stdout.starts_with('{'), "{human:#?}");
        }
    }
    let status = peer.json(["status"]);
    for key in ["role", "peer_id", "listen", "connected_peers", "transfer", "warnings"] {
        assert!(!status[key].is_null(), "{key} is missing: {status}");
    }
    assert_eq!(status["subscriptions"][0]["installed"], "1.0.0");
    assert_eq!(status["subscriptions"][0]["state"], "committed");
    assert_eq!(peer.json(["releases"])["releases"][0]["notes"], "what is new\n");
    let kinds = seed.json(["history"])["entries"].to_string();
    assert!(kinds.contains("published"), "{kinds}");
    let kinds = peer.json(["history"])["entries"].to_string();
    assert!(kinds.contains("installed"), "{kinds}");
}

fn notes(scratch: &Path) -> PathBuf {
    let notes = scratch.join("notes");
    write(&notes, "what is new\n");
    notes
}

#[test]
fn a_follower_of_events_sees_a_publication_as_it_happens() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let mut follower = PROGRAM.spawn(&seed.data_dir, ["events", "-f", "--json"]);
    publish(&seed.data_dir, &tree(scratch.path()), "1.0.0", &[]).succeeded();
    let event = until("the event", || {
        let lines = follower.stdout();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.into_iter().find(|event| event["kind"] == "published")
    });
    assert_eq!((&event["product"], &event["version"]), (&Value::from("app"), &Value::from("1.0.0")));
    assert!(follower.ended().is_none(), "it goes on following");
    let again = seed.run(["events", "--json"]).succeeded().stdout;
    assert!(again.lines().any(|line| line.contains("\"published\"")), "it is remembered: {again}");
}

#[test]
fn a_misspelt_key_of_the_configuration_is_named_with_the_right_one() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    PROGRAM.run(&data_dir, ["config", "check"]).succeeded();
    write(&data_dir.join("updraft.toml"), "max_peers = 8\nlisen = []\n");
    let ended = PROGRAM.run(&data_dir, ["config", "check"]).failed(USAGE, "did you mean 'listen'");
    assert!(ended.stderr.contains("updraft.toml") && ended.stderr.contains('2'), "{ended:#?}");
    PROGRAM.run(&data_dir, ["config", "show"]).failed(USAGE, "lisen");
    PROGRAM.run(&data_dir, ["seed"]).failed(USAGE, "lisen");
    write(&data_dir.join("updraft.toml"), "max_peers = 8\n");
    assert_eq!(PROGRAM.json(&data_dir, ["config", "check"])["valid"], true);
    let shown = PROGRAM.json(&data_dir, ["config", "show"])["values"].to_string();
    assert!(shown.contains(r#"{"key":"max_peers","source":"file","value":8}"#), "{shown}");
}

#[test]
fn completions_and_the_manual_cover_every_command() {
    let scratch = scratch();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = PROGRAM.run(scratch.path(), ["completions", shell]).succeeded().stdout;
        assert!(script.contains("rollback") && script.contains("explain"), "{shell}");
    }
    assert!(PROGRAM.run(scratch.path(), ["man"]).succeeded().stdout.contains(".TH updraft"));
    let pages = scratch.path().join("man");
    PROGRAM.run(scratch.path(), ["man", "--dir", plain(&pages)]).succeeded();
    for page in ["updraft.1", "updraft-publish.1", "updraft-config-check.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
}

// ---- fetch, install, rollback ---------------------------------------------------------------

#[test]
fn an_artifact_is_fetched_into_a_file_without_being_installed() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let file = scratch.path().join("app.bin");
    write(&file, "artifact".repeat(100_000));
    publish(&seed.data_dir, &file, "1.0.0", &[]).succeeded();
    let data_dir = scratch.path().join("peer");
    let peer = Node::start(PROGRAM, &data_dir, ["peer", "--join", &seed.ticket(&[])]);
    let output = scratch.path().join("fetched");
    peer.until("the head", |status| status.repositories.iter().any(|repository| repository.head.is_some()));
    let answer = peer.json(["fetch", "app", "--output", plain(&output)]);
    assert_eq!(answer["path"], plain(&output));
    assert!(fs::read(&output).expect("written") == fs::read(&file).expect("readable"));
    let ended = peer.run(["fetch", "app@9.9.9"]).failed(ERROR, "9.9.9");
    assert!(ended.stderr.contains("updraft releases"), "{ended:#?}");
    peer.run(["fetch", "app", "--output", "/nonexistent/directory/file"]).failed(ERROR, "/nonexistent");
}

#[test]
fn an_artifact_that_rotted_on_the_disk_is_not_handed_out() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let file = scratch.path().join("app.bin");
    write(&file, "artifact".repeat(100_000));
    publish(&seed.data_dir, &file, "1.0.0", &[]).succeeded();
    let held = seed.json(["fetch", "app"]);
    let held = Path::new(held["path"].as_str().expect("a path"));
    let mut bytes = fs::read(held).expect("readable");
    bytes[400_000] ^= 1;
    fs::write(held, bytes).expect("writable");
    let output = scratch.path().join("fetched");
    seed.run(["fetch", "app", "--output", plain(&output)]).failed(VERIFICATION_FAILED, "damaged");
    assert!(!output.exists());
}

/// Changes a byte in the middle of a file, in place, as root or the owner can.
fn scribble(path: &Path) {
    // Times of files are kept to a few milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("ours");
    let file = fs::OpenOptions::new().write(true).open(path).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, b"?", 400_000).expect("written");
}

#[test]
fn a_fetched_file_that_was_changed_in_place_is_fetched_again_and_served_to_nobody() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let file = scratch.path().join("app.bin");
    write(&file, "artifact".repeat(100_000));
    let good = fs::read(&file).expect("readable");
    publish(&seed.data_dir, &file, "1.0.0", &[]).succeeded();
    let arguments = ["peer", "--http", "127.0.0.1:0", "--join", &seed.ticket(&[])];
    let peer = Node::start(PROGRAM, &scratch.path().join("peer"), arguments);
    peer.until("the head", |status| status.repositories.iter().any(|repository| repository.head.is_some()));
    let fetch = |name: &str| {
        let output = scratch.path().join(name);
        peer.json(["fetch", "app", "--output", plain(&output)]);
        assert!(fs::read(&output).expect("written") == good, "{name}");
        output
    };
    let first = fetch("first");
    let offer = get(&peer.http(), "/update?product=app&version=0.0.1", &[]).json();
    let url = offer["url"].as_str().expect("the contract says so");
    let served = || get(&peer.http(), url, &[]);
    assert!(served().body == good);

    scribble(&first);
    let answer = served();
    assert_eq!(answer.status, 404, "wrong bytes were served: {}", answer.body == good);
    let second = fetch("second");
    assert!(served().body == good, "it has a file of its own by now");
    // Nobody read in between: the delivery itself finds it out.
    scribble(&second);
    fetch("third");
    for changed in [first, second] {
        assert_eq!(fs::read(&changed).expect("left alone")[400_000], b'?', "{}", changed.display());
    }
}

#[test]
fn a_peer_that_was_told_to_fetch_says_when_it_is_done_and_goes_on_serving() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let file = scratch.path().join("app.bin");
    write(&file, "artifact".repeat(500_000));
    publish(&data_dir, &file, "1.0.0", &[]).succeeded();
    let mut seed = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]);
    let ticket = scratch.path().join("ticket");
    write(&ticket, format!("{}\n", seed.ticket(&[])));
    let fetching = |name: &str, ticket: &str| {
        let (out, done) = (scratch.path().join(format!("{name}.out")), scratch.path().join(format!("{name}.done")));
        let wish = format!("app={}", out.display());
        let arguments = ["peer", "--join", ticket, "--fetch", &wish, "--done-file", plain(&done)];
        let node = Node::start(PROGRAM, &scratch.path().join(name), arguments);
        until("the done file", || done.exists().then_some(()));
        assert!(fs::read(out).expect("written") == fs::read(&file).expect("readable"), "{name}");
        node
    };
    let first = fetching("first", plain(&ticket));
    seed.terminate();
    let second = fetching("second", &first.ticket(&[]));
    assert!(first.status().transfer.bytes_out > 0, "the second had it from the first");
    drop(second);
}

#[test]
fn installing_what_is_installed_is_nothing_to_do() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let (peer, _) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    publish(&seed.data_dir, &tree(scratch.path()), "1.0.0", &[]).succeeded();
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    peer.run(["install", "app"]).failed(NOTHING_TO_DO, "up to date");
    peer.run(["install", "app@7.0.0"]).failed(ERROR, "7.0.0");
    peer.run(["install", "other"]).failed(ERROR, "other");
    peer.run(["rollback", "app", "--yes"]).failed(ERROR, "app");
}

#[test]
fn a_release_that_policy_keeps_away_is_blocked_with_the_reason() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let (peer, _) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    let tree = tree(scratch.path());
    publish(&seed.data_dir, &tree, "1.0.0", &[]).succeeded();
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    write(&tree.join("share/new"), "new");
    publish(&seed.data_dir, &tree, "3.0.0", &["--min-from", "2.0.0"]).succeeded();
    peer.until("the offer", |status| status.subscriptions[0].offered.as_deref() == Some("3.0.0"));
    peer.run(["install", "app"]).failed(BLOCKED_BY_POLICY, "2.0.0");
    peer.run(["install", "app", "--now"]).failed(BLOCKED_BY_POLICY, "2.0.0");
    let gates = peer.json(["status", "--explain"])["subscriptions"][0]["gates"].to_string();
    assert!(gates.contains(r#""gate":"min_from""#) && gates.contains(r#""verdict":"closed""#), "{gates}");
    assert!(has_installed(&peer.status(), "1.0.0"));
}

#[test]
fn a_rollback_needs_a_yes_and_an_install_takes_it_back() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let (peer, directory) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    let tree = tree(scratch.path());
    for version in ["1.0.0", "1.1.0"] {
        write(&tree.join("bin/app"), version);
        publish(&seed.data_dir, &tree, version, &[]).succeeded();
        peer.until(version, |status| has_installed(status, version));
    }
    let runs = || fs::read_to_string(directory.join("current/bin/app")).expect("readable");
    peer.run(["rollback", "app"]).failed(USAGE, "--yes");
    assert_eq!(runs(), "1.1.0");
    let answer = peer.json(["rollback", "app", "--yes"]);
    assert_eq!((&answer["from"], &answer["to"]), (&Value::from("1.1.0"), &Value::from("1.0.0")));
    assert_eq!(runs(), "1.0.0");
    assert_eq!(peer.json(["status"])["subscriptions"][0]["state"], "quarantined");
    assert_eq!(peer.json(["install", "app"])["to"], "1.1.0");
    assert_eq!(runs(), "1.1.0");
}

// ---- demo -----------------------------------------------------------------------------------

#[test]
fn the_demo_runs_to_its_end_by_itself() {
    let scratch = scratch();
    let ended = PROGRAM.run(scratch.path(), ["demo", "--exit"]);
    assert_eq!(ended.code, Some(OK), "{ended:#?}");
    assert!(ended.stdout.contains("1.1.0"), "{ended:#?}");
}
