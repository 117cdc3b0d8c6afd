//! Rollouts with real nodes: a channel that is changed at the seed, outcomes that nodes report, a release
//! that fails and is halted, and hours outside of which nothing is installed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use updraft::config::{NodeConfig, Subscription};
use updraft::control::channels::{ChannelChangeView, ChannelRequest, ChannelRow};
use updraft::control::fleet::{FleetView, VersionRow};
use updraft::control::messages::{ErrorBody, ErrorCode, Request, Response};
use updraft::engine::install::{Check, Health, Trial};
use updraft::engine::plan::GateName;
use updraft::engine::policy::{Change, Setting, Settings};
use updraft::runtime::RunningNode;
use updraft_protocol::names::Channel;
use updraft_tests::cluster::{Cluster, DEADLINE, ask, has_installed, product, status, subscription, until};
use updraft_tests::process::{self, Program, installing_peer, seed, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// Longer than a second: the times of a policy are whole seconds.
const A_SECOND: Duration = Duration::from_millis(1_100);

/// Longer than what passes between two looks of a seed at what became of its releases.
const A_LOOK: Duration = Duration::from_millis(2_500);

fn make_tree(root: &Path, salt: &str) {
    write(&root.join("bin/app"), salt.repeat(1_000));
}

async fn publish(cluster: &Cluster, version: &str) {
    let source = cluster.scratch().join(version);
    make_tree(&source, version);
    cluster.publish(&source, version).await.expect("published");
}

async fn change(node: &RunningNode, change: Change) -> Result<ChannelChangeView, ErrorBody> {
    let request = ChannelRequest { product: product(), channel: Channel::stable(), change, dry_run: false };
    match ask(node, Request::ChangeChannel(Box::new(request))).await? {
        Response::ChannelChange(view) => Ok(*view),
        other => panic!("no change of a channel: {other:?}"),
    }
}

async fn channel(node: &RunningNode) -> ChannelRow {
    let asked = Request::Channels { product: Some(product()), channel: Some(Channel::stable()) };
    match ask(node, asked).await {
        Ok(Response::Channels(view)) => view.channels.into_iter().next().expect("the channel"),
        other => panic!("no channels: {other:?}"),
    }
}

async fn fleet(node: &RunningNode) -> FleetView {
    match ask(node, Request::Fleet { limit: 100 }).await {
        Ok(Response::Fleet(view)) => view,
        other => panic!("no fleet: {other:?}"),
    }
}

/// Waits until the fleet is as wanted.
async fn until_fleet(node: &RunningNode, what: &str, holds: impl Fn(&FleetView) -> bool) -> FleetView {
    let started = std::time::Instant::now();
    loop {
        let view = fleet(node).await;
        if holds(&view) {
            return view;
        }
        assert!(started.elapsed() < DEADLINE, "{what} did not happen: {view:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn row<'a>(view: &'a FleetView, version: &str) -> Option<&'a VersionRow> {
    view.versions.iter().find(|row| row.version == version)
}

/// How many nodes have a voice in whether a rollout goes on.
fn voices(view: &FleetView) -> usize {
    view.nodes.iter().filter(|node| node.voice_since.is_some()).count()
}

fn run_by(view: &FleetView, version: &str, nodes: u64) -> bool {
    row(view, version).is_some_and(|row| row.running == nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_is_halted_by_the_seed_itself() {
    let cluster = Cluster::start(3).await;
    publish(&cluster, "1.0.0").await;
    for peer in &cluster.peers {
        until(&peer.node, "1.0.0", |status| has_installed(status, "1.0.0")).await;
    }
    let seed = cluster.seed();
    until_fleet(seed, "every node is known", |view| run_by(view, "1.0.0", 3) && voices(view) == 3).await;
    // Who was known before the release has a voice about it.
    tokio::time::sleep(A_SECOND).await;
    let settings = Settings { halt_percent: Some(Setting::To(50)), halt_min_reports: Some(3), ..Settings::default() };
    change(seed, Change::Set(settings)).await.expect("granted");
    publish(&cluster, "1.1.0").await;
    for peer in &cluster.peers {
        until(&peer.node, "1.1.0", |status| has_installed(status, "1.1.0")).await;
    }
    until_fleet(seed, "three installs are reported", |view| run_by(view, "1.1.0", 3)).await;
    let counts = channel(seed).await.outcomes.expect("the seed knows");
    assert_eq!((counts.installed, counts.votes, counts.votes_failed), (3, 3, 0));
    tokio::time::sleep(A_LOOK).await;
    assert!(!channel(seed).await.paused, "nothing failed");
    for peer in &cluster.peers[..2] {
        let answer = ask(&peer.node, Request::Rollback { product: product(), to: None, hold: true }).await;
        assert!(matches!(answer, Ok(Response::Install(view)) if view.to == "1.0.0"));
    }
    let view = until_fleet(seed, "the halt", |view| !view.paused.is_empty()).await;
    let reason = view.paused[0].reason.clone().expect("it says why");
    assert!(reason.contains("2 of 3 nodes"), "{reason}");
    let failed = row(&view, "1.1.0").expect("it is known");
    assert_eq!((failed.running, failed.failed), (1, 2), "{view:#?}");
    assert!(view.nodes[0].products[0].text.as_deref().is_some_and(|words| words.contains("1.1.0")), "{view:#?}");
    let shown = channel(seed).await;
    assert!(shown.paused && shown.pause_reason.as_deref() == Some(reason.as_str()));
    assert!(status(seed).await.warnings.iter().any(|warning| warning.contains("2 of 3 nodes")));
    let started = std::time::Instant::now();
    loop {
        let Ok(Response::History(history)) = ask(seed, Request::History { product: None, limit: 100 }).await else {
            panic!("no history");
        };
        if history.entries.iter().any(|entry| entry.kind == "channel_halted") {
            break;
        }
        // It is written when the pause is in force already.
        assert!(started.elapsed() < DEADLINE, "{history:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // The release that mends it goes out when somebody says so.
    publish(&cluster, "1.2.0").await;
    let waiting = until(&cluster.peers[0].node, "1.2.0 is offered", |status| {
        status.subscriptions[0].offered.as_deref() == Some("1.2.0")
    });
    let gates = waiting.await.subscriptions[0].gates.clone().expect("asked for");
    assert!(gates.iter().any(|gate| gate.gate == "pause" && gate.reason.contains("2 of 3 nodes")), "{gates:#?}");
    change(seed, Change::Resume {}).await.expect("granted");
    for peer in &cluster.peers {
        until(&peer.node, "1.2.0", |status| has_installed(status, "1.2.0")).await;
    }
    until_fleet(seed, "everybody runs it", |view| run_by(view, "1.2.0", 3) && view.paused.is_empty()).await;
    cluster.stop().await;
}

/// Says of every release that it is well, unless it has a file `broken`.
fn health_check(config: &mut NodeConfig) {
    let directory = config.data_dir.join("app");
    let is_broken = format!("test ! -e '{}'", directory.join("current/broken").display());
    let health = Health {
        check: Check::Command(vec!["/bin/sh".to_owned(), "-c".to_owned(), is_broken]),
        interval_ms: 50,
        timeout_ms: 30_000,
        successes: 1,
        failures: 1,
        probation_ms: 200,
    };
    let trial = Trial { health: Some(health), ..Trial::default() };
    config.subscriptions = vec![Subscription { trial, ..subscription(Some(directory)) }];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_its_health_check_is_halted_and_named() {
    let mut cluster = Cluster::start(0).await;
    cluster.add_mirrors(3, health_check).await;
    // So that there is something to go back to, and something before that.
    for version in ["0.9.0", "1.0.0"] {
        publish(&cluster, version).await;
        for peer in &cluster.peers {
            until(&peer.node, version, |status| has_installed(status, version)).await;
        }
    }
    let seed = cluster.seed();
    until_fleet(seed, "every node has a voice", |view| run_by(view, "1.0.0", 3) && voices(view) == 3).await;
    tokio::time::sleep(A_SECOND).await;
    let settings = Settings { halt_percent: Some(Setting::To(50)), halt_min_reports: Some(3), ..Settings::default() };
    change(seed, Change::Set(settings)).await.expect("granted");
    let source = cluster.scratch().join("1.1.0");
    make_tree(&source, "1.1.0");
    write(&source.join("broken"), "it never gets healthy");
    cluster.publish(&source, "1.1.0").await.expect("published");
    let view = until_fleet(seed, "the halt", |view| !view.paused.is_empty() && run_by(view, "1.0.0", 3)).await;
    let reason = view.paused[0].reason.clone().expect("it says why");
    assert!(reason.contains("1.1.0 failed on 3 of 3 nodes"), "{reason}");
    let failed: Vec<(&str, u64)> = view.versions.iter().map(|row| (row.version.as_str(), row.failed)).collect();
    assert_eq!(failed, [("1.1.0", 3), ("1.0.0", 0)], "{view:#?}");
    for peer in &cluster.peers {
        until(&peer.node, "it is back", |status| status.subscriptions[0].installed.as_deref() == Some("1.0.0")).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_arrive_though_the_seed_was_away_and_the_fleet_survives_its_restart() {
    let mut cluster = Cluster::start(2).await;
    for version in ["1.0.0", "1.1.0"] {
        publish(&cluster, version).await;
        for peer in &cluster.peers {
            until(&peer.node, version, |status| has_installed(status, version)).await;
        }
    }
    let known = |view: &FleetView| run_by(view, "1.1.0", 2) && voices(view) == 2;
    let before = until_fleet(cluster.seed(), "both run it", known).await;
    let data_dir = cluster.seed.as_ref().expect("the seed runs").data_dir.clone();
    cluster.stop_seed().await;
    let answer = ask(&cluster.peers[0].node, Request::Rollback { product: product(), to: None, hold: true }).await;
    assert!(matches!(answer, Ok(Response::Install(view)) if view.to == "1.0.0"));
    cluster.start_seed_in(data_dir).await;
    let after = until_fleet(cluster.seed(), "the rollback is reported", |view| {
        row(view, "1.1.0").is_some_and(|row| row.failed == 1) && run_by(view, "1.0.0", 1)
    })
    .await;
    for node in &before.nodes {
        let again = after.nodes.iter().find(|again| again.peer_id == node.peer_id).expect("it is remembered");
        assert_eq!((again.first_seen, again.voice_since), (node.first_seen, node.voice_since));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_when_the_operator_says_so() {
    let cluster = Cluster::start(2).await;
    publish(&cluster, "1.0.0").await;
    for peer in &cluster.peers {
        until(&peer.node, "1.0.0", |status| has_installed(status, "1.0.0")).await;
    }
    let (seed, source) = (cluster.seed(), cluster.scratch().join("1.1.0"));
    make_tree(&source, "1.1.0");
    let staged = updraft::control::messages::PublishRequest {
        path: source,
        product: product(),
        version: "1.1.0".parse().expect("a version"),
        channel: Channel::stable(),
        also_on: vec!["beta".parse().expect("a name")],
        rollout: Some("0@now,100@+1d".parse().expect("a schedule")),
        platform: updraft_protocol::names::Platform::any(),
        min_from: None,
        notes: None,
        critical: false,
        dry_run: false,
        level: 3,
    };
    ask(seed, Request::Publish(staged)).await.expect("published");
    for peer in &cluster.peers {
        let waiting =
            until(&peer.node, "it is offered", |status| status.subscriptions[0].offered.as_deref() == Some("1.1.0"));
        let gates = waiting.await.subscriptions[0].gates.clone().expect("asked for");
        let rollout = gates.iter().find(|gate| gate.gate == "rollout").expect("every gate is shown");
        assert!(rollout.opens_at.is_some() && rollout.reason.contains("at 0 %"), "{rollout:?}");
    }
    let refused = change(&cluster.peers[0].node, Change::Resume {}).await.expect_err("a peer has no say");
    assert!(refused.message.contains("only a seed"), "{refused:?}");
    let refused = change(seed, Change::Resume {}).await.expect_err("it is not paused");
    assert_eq!(refused.code, ErrorCode::NothingToDo);
    let rollout = Some("100@now".parse().expect("a schedule"));
    change(seed, Change::Set(Settings { rollout, ..Settings::default() })).await.expect("granted");
    for peer in &cluster.peers {
        until(&peer.node, "1.1.0", |status| has_installed(status, "1.1.0")).await;
    }
    cluster.stop().await;
}

/// A day of the week on which it is not.
fn another_day() -> &'static str {
    let days =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() / 86_400;
    // 1970-01-01 was a Thursday; three days from now it is neither today nor tomorrow, wherever this runs.
    ["thu", "fri", "sat", "sun", "mon", "tue", "wed"][usize::try_from((days + 3) % 7).expect("small")]
}

#[test]
fn outside_of_maintenance_only_an_operator_in_a_hurry_installs() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let seed = seed(PROGRAM, scratch.path());
    let hours = format!(
        "maintenance_time_zone = \"UTC\"\n\n[[maintenance_windows]]\ndays = \"{}\"\nfrom = \"02:00\"\nto = \"04:00\"\n",
        another_day()
    );
    write(&scratch.path().join("peer/updraft.toml"), hours);
    let (peer, directory) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    let source = scratch.path().join("source");
    make_tree(&source, "1.0.0");
    let publish = ["publish", source.to_str().expect("plain"), "--product", "app", "--version", "1.0.0"];
    seed.run(publish).succeeded();
    let waiting = peer.until("the artifact is here and waits", |status| {
        status.subscriptions[0].progress.is_some_and(|progress| progress.bytes_done == progress.bytes_total)
    });
    assert!(waiting.subscriptions[0].installed.is_none());
    let explained = peer.json(["status", "--explain"]);
    let gates = explained["subscriptions"][0]["gates"].as_array().cloned().expect("gates");
    let window = gates.iter().find(|gate| gate["gate"] == "window").expect("every gate is shown");
    assert_eq!(window["verdict"], "waiting", "{window}");
    assert!(window["opens_at"].is_string(), "{window}");
    peer.run(["install", "app"]).failed(6, "waits for maintenance");
    peer.run(["install", "app", "--now"]).succeeded();
    assert!(directory.join("current/bin/app").exists());
    let text = peer.run(["status", "--explain"]).succeeded().stdout;
    for gate in GateName::ALL {
        assert!(text.lines().any(|line| line.trim_start().starts_with(gate.as_str())), "{gate:?}: {text}");
    }
    peer.run(["fleet"]).failed(1, "nodes report to the seed");
    process::until("the seed shows what runs", || {
        let shown = seed.run(["fleet"]).succeeded().stdout;
        let row = shown.lines().find(|line| line.starts_with("app ")).unwrap_or_default();
        (row.split_whitespace().collect::<Vec<_>>() == ["app", "1.0.0", "1", "0", "0"]).then_some(())
    });
}

#[test]
fn every_channel_command_works_at_a_running_seed() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let seed = seed(PROGRAM, scratch.path());
    for version in ["1.0.0", "1.1.0"] {
        let source = scratch.path().join(version);
        make_tree(&source, version);
        let source = source.to_str().expect("plain");
        let arguments = ["publish", source, "--product", "app", "--version", version, "--channel", "beta"];
        seed.run([&arguments[..], &["--also-on", "stable"]].concat()).succeeded();
    }
    let show = || seed.json(["channel", "show", "app:stable"])["channels"][0].clone();
    let done = seed.run(["channel", "promote", "app", "1.0.0", "--rollout", "10@now,100@+1d"]).succeeded();
    assert!(done.stdout.contains("tells everybody") && !done.stderr.contains("no seed runs"), "{done:#?}");
    assert_eq!((&show()["version"], &show()["rollout_percent"]), (&"1.0.0".into(), &10.into()));
    seed.run(["channel", "set", "app", "--release", "1.1.0", "--halt-threshold", "20"]).succeeded();
    assert_eq!((&show()["version"], &show()["halt"]["failures_percent"]), (&"1.1.0".into(), &20.into()));
    assert_eq!(show()["outcomes"]["installed"], 0, "a running seed knows");
    seed.run(["channel", "pause", "app", "--reason", "look first"]).succeeded();
    assert_eq!(show()["pause_reason"], "look first");
    seed.run(["channel", "resume", "app"]).succeeded();
    assert_eq!(show()["paused"], false);
    seed.run(["channel", "resume", "app"]).failed(3, "not paused");
    seed.run(["channel", "yank", "app", "1.0.0"]).succeeded();
    assert_eq!(show()["yanked"][0], "1.0.0");
    seed.run(["channel", "yank", "app", "1.0.0", "--undo"]).succeeded();
    assert_eq!(show()["yanked"].as_array().map(Vec::len), Some(0));
}

#[test]
fn channels_are_changed_in_the_directory_of_a_stopped_seed_too() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data_dir = scratch.path().join("seed");
    let run = |arguments: &[&str]| PROGRAM.run(&data_dir, arguments);
    run(&["init", "--product", "app"]).succeeded();
    for version in ["1.0.0", "1.1.0"] {
        let source = scratch.path().join(version);
        make_tree(&source, version);
        let source = source.to_str().expect("plain");
        run(&["publish", source, "--product", "app", "--version", version, "--channel", "beta", "--also-on", "stable"])
            .succeeded();
    }
    let only_beta = scratch.path().join("1.2.0");
    make_tree(&only_beta, "1.2.0");
    let only_beta = only_beta.to_str().expect("plain");
    run(&["publish", only_beta, "--product", "app", "--version", "1.2.0", "--channel", "beta"]).succeeded();
    run(&["channel", "promote", "app", "1.2.0"]).failed(1, "--also-on stable");
    let tried = run(&["channel", "promote", "app", "1.1.0", "--rollout", "10@now,100@+1d", "--dry-run"]).succeeded();
    assert!(tried.stdout.contains("nothing was signed"), "{tried:#?}");
    run(&["channel", "show", "app:stable"]).failed(1, "no channel app:stable");
    run(&["channel", "promote", "app", "1.1.0", "--rollout", "10@now,100@+1d"]).succeeded();
    run(&["channel", "pause", "app", "--reason", "wait for monday"]).succeeded();
    run(&["channel", "pause", "app"]).failed(3, "paused already");
    run(&["channel", "set", "app", "--halt-threshold", "20", "--halt-silence", "2h", "--max-head-age", "2d"])
        .succeeded();
    run(&["channel", "set", "app"]).failed(2, "nothing is to be set");
    run(&["channel", "set", "app", "--rollout", "50@now,10@+1d"]).failed(2, "does not go on");
    run(&["channel", "yank", "app:beta", "1.0.0"]).succeeded();
    let answer = PROGRAM.json(&data_dir, ["channel", "show"]);
    let [beta, stable] = answer["channels"].as_array().expect("channels").as_slice() else {
        panic!("two channels: {answer}");
    };
    assert_eq!((&beta["version"], &beta["yanked"][0]), (&"1.2.0".into(), &"1.0.0".into()));
    assert_eq!((&stable["version"], &stable["rollout_percent"]), (&"1.1.0".into(), &10.into()));
    assert_eq!((&stable["paused"], &stable["pause_reason"]), (&true.into(), &"wait for monday".into()));
    assert_eq!((&stable["halt"]["failures_percent"], &stable["halt"]["silence_s"]), (&20.into(), &7_200.into()));
    assert_eq!(stable["max_head_age_s"], 172_800);
    let shown = run(&["channel", "show", "app:stable"]).succeeded().stdout;
    assert!(shown.contains("paused: wait for monday") && shown.contains("at 20 % of at least 5 nodes"), "{shown}");
    run(&["channel", "set", "app", "--floor", "1.1.0"]).succeeded();
    fs::remove_file(data_dir.join("keys/targets.pem")).expect("init makes it");
    run(&["channel", "set", "app:beta", "--floor", "1.2.0"]).failed(1, "targets key");
}

#[test]
fn a_build_for_another_platform_joins_the_rollout_that_is_under_way() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data_dir = scratch.path().join("seed");
    let run = |arguments: &[&str]| PROGRAM.run(&data_dir, arguments);
    run(&["init", "--product", "app"]).succeeded();
    let publish = |platform: &str, more: &[&str]| {
        let source = scratch.path().join(platform);
        make_tree(&source, platform);
        let source = source.to_str().expect("plain");
        let arguments = ["publish", source, "--product", "app", "--version", "2.0.0", "--platform", platform];
        run(&[&arguments[..], more].concat()).succeeded();
        PROGRAM.json(&data_dir, ["channel", "show", "app"])["channels"][0].clone()
    };
    let first = publish("linux-x86_64", &["--rollout", "1@now,100@+7d"]);
    assert_eq!(first["rollout_percent"], 1, "{first}");
    assert_eq!(publish("linux-aarch64", &[]), first, "nothing changed for those who wait");
    assert_eq!(publish("linux-riscv64", &["--rollout", "5@now,100@+7d"])["rollout_percent"], 5, "unless it is said");
}
