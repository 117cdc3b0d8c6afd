//! Installs that prove themselves, or go back: real nodes, real commands as starters and health checks.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use updraft::control::views::{GateVerdict, GateView, StatusView, SubscriptionState, SubscriptionView};
use updraft_tests::cluster::has_installed;
use updraft_tests::process::{Node, Program, say, seed, until, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

const OK: i32 = 0;
const ERROR: i32 = 1;
const NOTHING_TO_DO: i32 = 3;
const BLOCKED_BY_POLICY: i32 = 6;
const ROLLED_BACK: i32 = 7;

/// A seed, and a place for a peer that installs `app`.
struct Site {
    scratch: TempDir,
    seed: Node,
    ticket: String,
}

impl Site {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let seed = seed(PROGRAM, scratch.path());
        let ticket = seed.ticket(&[]);
        Self { scratch, seed, ticket }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn install_dir(&self) -> PathBuf {
        self.path("apps").join("app")
    }

    /// A peer whose subscription says this beside product and directory.
    fn peer(&self, program: Program, general: &str, keys: &str) -> Node {
        let directory = self.install_dir();
        let text = format!(
            "{general}\n[[subscriptions]]\nproduct = \"app\"\ndirectory = \"{}\"\n{keys}\n",
            directory.display()
        );
        write(&self.path("peer/updraft.toml"), text);
        Node::start(program, &self.path("peer"), ["peer", "--join", &self.ticket])
    }

    /// Publishes a tree of these files, and one that names the version.
    fn publish(&self, version: &str, files: &[(&str, &str)]) {
        let tree = self.path(&format!("tree-{version}"));
        write(&tree.join("version"), version);
        for (name, content) in files {
            write(&tree.join(name), content);
        }
        let path = tree.to_str().expect("a plain name");
        self.seed.json(["publish", path, "--product", "app", "--version", version, "--level", "1"]);
    }

    /// Which version runs.
    fn runs(&self) -> String {
        fs::read_to_string(self.install_dir().join("current/version")).expect("current resolves")
    }

    /// What the starter noted.
    fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A starter that notes what it is told.
    fn starter(&self) -> String {
        let log = self.path("starts");
        format!(
            r#"activate = ["sh", "-c", "echo $UPDRAFT_PRODUCT ${{UPDRAFT_PREVIOUS_VERSION:-none}} $UPDRAFT_VERSION $(cat version) >> {}"]"#,
            log.display()
        )
    }
}

const GOOD: &[(&str, &str)] = &[("good", "yes")];
const BAD: &[(&str, &str)] = &[];

fn subscription(status: &StatusView) -> &SubscriptionView {
    status.subscriptions.first().expect("the peer has one subscription")
}

fn is_in(status: &StatusView, state: SubscriptionState) -> bool {
    subscription(status).state == state
}

fn is_back(status: &StatusView, version: &str) -> bool {
    is_in(status, SubscriptionState::Quarantined) && subscription(status).installed.as_deref() == Some(version)
}

fn gate<'a>(status: &'a StatusView, name: &str) -> Option<&'a GateView> {
    subscription(status).gates.iter().flatten().find(|gate| gate.gate == name && gate.verdict != GateVerdict::Open)
}

fn kinds(node: &Node) -> Vec<String> {
    let history = node.json(["history", "app"]);
    let entries = history["entries"].as_array().expect("the contract says so");
    entries.iter().rev().map(|entry| entry["kind"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_release_that_fails_its_health_check_goes_and_the_one_before_runs_again() {
    let site = Site::new();
    let health = r#"health = { command = ["sh", "-c", "test -e good || { echo all is lost; exit 9; }"], interval = "100ms", probation = "1s" }"#;
    let peer = site.peer(PROGRAM, "", &format!("{}\n{health}", site.starter()));
    site.publish("1.0.0", GOOD);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    site.publish("1.1.0", BAD);
    let status = peer.until("the way back", |status| is_back(status, "1.0.0"));
    assert_eq!(site.runs(), "1.0.0");
    assert_eq!(site.starts(), ["app none 1.0.0 1.0.0", "app 1.0.0 1.1.0 1.1.0", "app 1.1.0 1.0.0 1.0.0"]);
    let reason = &gate(&status, "quarantine").expect("the gate is closed").reason;
    assert!(reason.contains("not healthy within 1 s") && reason.contains("status 9"), "{reason}");
    // The last line of the journal follows what the node says of itself.
    let way_back = ["install_failed".to_owned(), "rolled_back".to_owned()];
    until("the end in the history", || kinds(&peer).ends_with(&way_back).then_some(()));
    let events = peer.run(["events", "--json"]).succeeded().stdout;
    assert!(events.contains("all is lost"), "what the check said is in the events: {events}");

    peer.run(["install", "app"]).failed(ROLLED_BACK, "went back from 1.1.0 to 1.0.0");
    assert_eq!(site.runs(), "1.0.0");
    site.publish("1.2.0", GOOD);
    peer.until("the release that mends it", |status| has_installed(status, "1.2.0"));
    assert_eq!(site.runs(), "1.2.0");
}

#[test]
fn a_success_is_not_reported_before_probation_ended_and_a_node_killed_in_it_goes_on_or_gives_up() {
    let site = Site::new();
    let health = r#"health = { command = ["test", "-e", "good"], interval = "100ms", probation = "4s" }"#;
    let mut peer = site.peer(PROGRAM, "", &format!("{}\nmax_attempts = 2\n{health}", site.starter()));
    site.publish("1.0.0", GOOD);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));

    site.publish("1.1.0", GOOD);
    let status = peer.until("probation", |status| is_in(status, SubscriptionState::Probation));
    assert_eq!(subscription(&status).installed.as_deref(), Some("1.0.0"), "it has not proved itself");
    assert_eq!(site.runs(), "1.1.0");
    peer.kill();
    peer.start_again();
    peer.until("1.1.0 after a kill in its probation", |status| has_installed(status, "1.1.0"));
    assert_eq!(site.starts().iter().filter(|line| line.starts_with("app 1.0.0 1.1.0")).count(), 2);

    site.publish("1.2.0", GOOD);
    for _ in 0..2 {
        peer.until("probation", |status| is_in(status, SubscriptionState::Probation));
        peer.kill();
        peer.start_again();
    }
    let status = peer.until("the way back", |status| is_back(status, "1.1.0"));
    assert_eq!(site.runs(), "1.1.0");
    let reason = &gate(&status, "quarantine").expect("the gate is closed").reason;
    assert!(reason.contains("started 2 times"), "{reason}");
}

/// An HTTP server that is as healthy as what `current` says.
fn health_server(current: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/health", listener.local_addr().expect("bound"));
    // It ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 1024];
            // Whatever is asked, and whether or not it is asked whole.
            let _ = stream.read(&mut request);
            let status = if current.join("good").exists() { "200 OK" } else { "500 Oh no" };
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    url
}

#[test]
fn a_first_install_that_fails_stays_and_a_start_that_hangs_is_ended() {
    let site = Site::new();
    let url = health_server(site.install_dir().join("current"));
    let keys = format!(
        "activate = [\"sh\", \"start\"]\nactivate_timeout = \"1s\"\nhealth = {{ http = \"{url}\", interval = \"100ms\", probation = \"500ms\" }}"
    );
    let peer = site.peer(PROGRAM, "", &keys);
    site.publish("1.0.0", &[("start", "exit 0")]);
    let status = peer.until("the end of the first try", |status| is_in(status, SubscriptionState::Quarantined));
    assert_eq!(subscription(&status).installed, None, "it never worked");
    assert_eq!(site.runs(), "1.0.0", "current does not dangle");
    assert!(gate(&status, "quarantine").expect("closed").reason.contains("answered 500"));
    peer.run(["install", "app"]).failed(ERROR, "no release to go back to");

    site.publish("1.1.0", &[("start", "exit 0"), ("good", "yes")]);
    peer.until("1.1.0", |status| has_installed(status, "1.1.0"));
    site.publish("1.2.0", &[("start", "echo waiting; sleep 600"), ("good", "yes")]);
    let status = peer.until("the way back", |status| is_back(status, "1.1.0"));
    assert!(gate(&status, "quarantine").expect("closed").reason.contains("did not end within 1 s"));
    assert_eq!(site.runs(), "1.1.0");
    let events = peer.run(["events", "--json"]).succeeded().stdout;
    assert!(
        events.contains("the activation of 1.2.0 said: waiting"),
        "what the starter said is in the events: {events}"
    );
}

/// The program with a `systemctl` of our own before the machine's.
fn with_systemctl(site: &Site) -> Program {
    let bin = site.path("bin");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\ncase \"$1\" in\nshow) if test -e good; then echo ActiveState=active; else echo ActiveState=failed; fi; if test -e crashes; then echo NRestarts=2; else echo NRestarts=0; fi;;\nesac\n",
        log = site.path("starts").display()
    );
    write(&bin.join("systemctl"), script);
    let start = format!("#!/bin/sh\nexport PATH={}:$PATH\nexec {} \"$@\"\n", bin.display(), PROGRAM.0);
    write(&bin.join("updraft"), start);
    for name in ["systemctl", "updraft"] {
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("our own file");
    }
    let path = bin.join("updraft").to_str().expect("a plain name").to_owned();
    Program(Box::leak(path.into_boxed_str()))
}

#[test]
fn a_unit_is_restarted_by_systemd_and_must_stay_active() {
    let site = Site::new();
    let program = with_systemctl(&site);
    let keys = "restart = \"app\"\nhealth = { unit = \"app\", interval = \"100ms\", probation = \"500ms\" }";
    let peer = site.peer(program, "", keys);
    site.publish("1.0.0", GOOD);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    site.publish("1.1.0", BAD);
    let status = peer.until("the way back", |status| is_back(status, "1.0.0"));
    assert!(gate(&status, "quarantine").expect("closed").reason.contains("app.service is failed"));
    let asked = site.starts();
    let restarts = asked.iter().filter(|line| *line == "restart -- app.service").count();
    assert_eq!(restarts, 3, "1.0.0, 1.1.0 and 1.0.0 again: {asked:?}");
    assert_eq!(asked[0], "reset-failed -- app.service", "a unit that crashed too often starts all the same");

    site.publish("1.2.0", &[("good", "yes"), ("crashes", "yes")]);
    let crashed = |status: &StatusView| gate(status, "quarantine").is_some_and(|gate| gate.reason.contains("crashed"));
    let status = peer.until("the way back", |status| is_back(status, "1.0.0") && crashed(status));
    let reason = &gate(&status, "quarantine").expect("closed").reason;
    assert!(reason.contains("systemd restarted it 2 times"), "active is not enough: {reason}");
}

#[test]
fn an_operator_ends_a_probation_and_only_a_hold_keeps_the_release_away() {
    let site = Site::new();
    let health = r#"health = { command = ["test", "-e", "good"], interval = "100ms", probation = "5s" }"#;
    let peer = site.peer(PROGRAM, "", &format!("{}\n{health}", site.starter()));
    site.publish("1.0.0", GOOD);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    site.publish("1.1.0", GOOD);
    let on_probation = |status: &StatusView| is_in(status, SubscriptionState::Probation);
    peer.until("probation", on_probation);
    peer.run(["rollback", "app", "--yes", "--to", "0.9.0"]).failed(ERROR, "goes back to 1.0.0 only");
    peer.run(["rollback", "app", "--yes"]).succeeded();
    assert_eq!(site.runs(), "1.0.0");
    let status = peer.until("the gate", |status| gate(status, "hold").is_some());
    assert!(gate(&status, "quarantine").is_none(), "a person's word is no verdict: {status:#?}");
    assert!(!kinds(&peer).contains(&"install_failed".to_owned()), "{:?}", kinds(&peer));
    peer.run(["unhold", "app", "--version", "1.1.0"]).succeeded();

    peer.until("probation, once nobody holds it", on_probation);
    peer.run(["rollback", "app", "--yes", "--no-hold"]).succeeded();
    peer.until("1.1.0, which nobody held", |status| has_installed(status, "1.1.0"));
    assert_eq!(kinds(&peer).iter().filter(|kind| *kind == "rolled_back").count(), 2, "{:?}", kinds(&peer));
}

#[test]
fn a_version_that_is_held_is_passed_over() {
    let site = Site::new();
    let peer = site.peer(PROGRAM, "", "");
    site.publish("1.0.0", GOOD);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    peer.run(["hold", "app", "--version", "1.1.0", "--reason", "it was slow"]).succeeded();
    site.publish("1.1.0", GOOD);
    let status = peer.until("the gate", |status| gate(status, "hold").is_some());
    assert!(gate(&status, "hold").expect("closed").reason.contains("1.1.0 is held: it was slow"), "{status:#?}");
    assert_eq!(site.runs(), "1.0.0");
    site.publish("1.2.0", GOOD);
    peer.until("1.2.0", |status| has_installed(status, "1.2.0"));
    peer.run(["unhold", "app", "--version", "1.2.0"]).failed(NOTHING_TO_DO, "not held");
    peer.run(["unhold", "app", "--version", "1.1.0"]).succeeded();
}

#[test]
fn what_is_being_unpacked_gives_way_to_a_hold_and_to_a_newer_release() {
    let site = Site::new();
    let peer = site.peer(PROGRAM, "", "");
    site.publish("1.0.0", GOOD);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
    // Enough of them that somebody can say something while they are unpacked.
    let names: Vec<String> = (0..800).map(|number| format!("many/{}/{number}", number % 20)).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let unpacks = |version: &'static str| {
        move |status: &StatusView| {
            let state = subscription(status).state;
            state == SubscriptionState::Verified || has_installed(status, version)
        }
    };
    site.publish("1.1.0", &many);
    peer.until("the unpacking of 1.1.0", unpacks("1.1.0"));
    peer.run(["hold", "app"]).succeeded();
    let rests = |status: &StatusView| is_in(status, SubscriptionState::Committed);
    peer.until("the hold", rests);
    let runs = site.runs();
    let installed = peer.until("the hold", rests).subscriptions[0].installed.clone();
    assert_eq!(installed.as_ref(), Some(&runs), "what is installed is what runs");

    site.publish("1.2.0", &many);
    peer.run(["unhold", "app"]).succeeded();
    peer.until("the unpacking of 1.2.0", |status| {
        subscription(status).offered.as_deref() == Some("1.2.0") && unpacks("1.2.0")(status)
    });
    site.publish("1.3.0", GOOD);
    peer.until("1.3.0", |status| has_installed(status, "1.3.0"));
    assert_eq!(site.runs(), "1.3.0");
    until("an empty staging", || {
        let staged = fs::read_dir(site.install_dir().join("staging")).map_or(0, Iterator::count);
        (staged == 0).then_some(())
    });
    assert!(!kinds(&peer).contains(&"install_failed".to_owned()), "{:?}", kinds(&peer));
}

#[test]
fn an_operator_goes_back_holds_and_lifts() {
    let site = Site::new();
    let peer = site.peer(PROGRAM, "keep_releases = 3", "");
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        site.publish(version, GOOD);
        peer.until(version, |status| has_installed(status, version));
    }
    peer.run(["rollback", "app", "--yes", "--to", "1.2.0"]).failed(NOTHING_TO_DO, "what runs here");
    peer.run(["rollback", "app", "--yes", "--to", "0.9.0"]).failed(ERROR, "these are: 1.0.0, 1.1.0");
    let answer = peer.json(["rollback", "app", "--yes", "--to", "1.0.0"]);
    assert_eq!((answer["from"].as_str(), answer["to"].as_str()), (Some("1.2.0"), Some("1.0.0")));
    assert_eq!(site.runs(), "1.0.0");
    let status = peer.until("the gate", |status| gate(status, "hold").is_some());
    assert!(gate(&status, "hold").expect("closed").reason.contains("1.2.0 is held"), "{status:#?}");

    let held = peer.json(["hold", "app", "--reason", "fair week"]);
    assert_eq!(held["held"].as_array().map(Vec::len), Some(2), "{held}");
    peer.run(["hold", "app", "--reason", "fair week"]).failed(NOTHING_TO_DO, "held already");
    peer.run(["hold", "other"]).failed(ERROR, "other");
    site.publish("1.3.0", GOOD);
    peer.until("the gate", |status| {
        subscription(status).offered.as_deref() == Some("1.3.0") && gate(status, "hold").is_some()
    });
    peer.run(["install", "app"]).failed(BLOCKED_BY_POLICY, "fair week");

    let mut peer = peer;
    peer.terminate();
    peer.start_again();
    let status = peer.until("the catalog", |status| subscription(status).offered.is_some());
    assert!(gate(&status, "hold").is_some(), "a hold survives a restart: {status:#?}");
    assert_eq!(site.runs(), "1.0.0");
    assert_eq!(peer.run(["unhold", "app"]).code, Some(OK));
    peer.run(["unhold", "app"]).failed(NOTHING_TO_DO, "not held");
    peer.until("1.3.0", |status| has_installed(status, "1.3.0"));
}

/// A small file system that ends with the value.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("writable");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        mount.is_ok_and(|ended| ended.status.success()).then(|| Self(path.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let ended = Command::new("mount").args(["-o", &options]).arg(&self.0).output().expect("it was mounted by this");
        assert!(ended.status.success(), "{ended:?}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a node may still look at it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_and_a_read_only_disk_are_a_closed_gate_that_opens_by_itself() {
    let site = Site::new();
    let Some(small) = Small::mount(&site.path("apps"), "size=4m,nr_inodes=1000") else {
        say("skipped: this user may not mount a file system");
        return;
    };
    let peer = site.peer(PROGRAM, "", "");
    site.publish("1.0.0", GOOD);
    let status = peer.until("the gate", |status| gate(status, "disk").is_some());
    let closed = gate(&status, "disk").expect("closed");
    assert!(closed.reason.contains("bytes and"), "{}", closed.reason);
    assert!(closed.opens_at.is_some(), "it says when it is looked at again");
    assert_eq!(subscription(&status).state, SubscriptionState::Verified);
    let staged = || fs::read_dir(site.install_dir().join("staging")).map_or(0, Iterator::count);
    assert_eq!(staged(), 0, "nothing is left in staging");
    small.remount("size=64m");
    peer.run(["install", "app"]);
    peer.until("1.0.0", |status| has_installed(status, "1.0.0"));

    small.remount("ro");
    site.publish("1.1.0", GOOD);
    let status = peer.until("the gate", |status| gate(status, "disk").is_some());
    assert!(gate(&status, "disk").expect("closed").reason.contains("ead-only"), "{status:#?}");
    assert_eq!(site.runs(), "1.0.0");
    small.remount("rw");
    until("1.1.0", || {
        // An operator who has made room does not wait.
        peer.run(["install", "app"]);
        has_installed(&peer.status(), "1.1.0").then_some(())
    });
    assert_eq!(kinds(&peer).iter().filter(|kind| *kind == "install_failed").count(), 0, "no release was at fault");

    small.remount("ro");
    let back = ["rollback", "app", "--yes"];
    let mut rollback = PROGRAM.spawn(&site.path("peer"), back);
    until("what it waits for", || rollback.stderr().contains("ead-only").then_some(()));
    assert_eq!(site.runs(), "1.1.0");
    small.remount("rw");
    assert!(rollback.wait("the way back").success(), "{}", rollback.stderr());
    assert_eq!(site.runs(), "1.0.0");
}

#[test]
fn a_launcher_goes_back_from_a_program_that_does_not_stay_up() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = scratch.path().join("node");
    let log = scratch.path().join("log");
    let release = |name: &str, script: &str| {
        let program = root.join("releases").join(name).join("updraft");
        write(&program, format!("#!/bin/sh\necho {name} $1 $$ >> {}\n{script}\n", log.display()));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    };
    release("1-a", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    release("2-b", "exit 1");
    let point = |name: &str| {
        let next = root.join("next");
        std::os::unix::fs::symlink(Path::new("releases").join(name), &next).expect("writable");
        fs::rename(&next, root.join("current")).expect("writable");
    };
    point("1-a");
    let dir = root.to_str().expect("a plain name");
    let arguments = ["launch", "--dir", dir, "--settle-ms", "4000", "--ready-ms", "0", "--tries", "2", "--", "peer"];
    let mut launcher = PROGRAM.spawn(&scratch.path().join("data"), arguments);
    let lines = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let memory = || fs::read_to_string(root.join("launch.json")).unwrap_or_default();
    until("a first good start", || memory().contains(r#""good":"1-a""#).then_some(()));
    point("2-b");
    let pid = lines()[0].split(' ').nth(2).and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL).expect("it runs");
    until("the way back", || (lines().len() == 4).then_some(()));
    let names: Vec<String> = lines().iter().map(|line| line[..8].to_owned()).collect();
    assert_eq!(names, ["1-a peer", "2-b peer", "2-b peer", "1-a peer"]);
    assert_eq!(fs::read_link(root.join("current")).expect("a link"), Path::new("releases/1-a"));
    assert!(launcher.terminate().success(), "it ends as its program does");
}
