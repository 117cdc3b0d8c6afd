//! A node that is what it installs: the real program, replaced by the next one under a launcher that stands
//! outside of it, and put back by it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use updraft::control::fleet::{FleetProduct, FleetView};
use updraft::control::messages::Request;
use updraft::control::views::{StatusView, SubscriptionState, SubscriptionView};
use updraft_tests::cluster::has_installed;
use updraft_tests::itself::{Own, ask, children_of, program_of, publish, stripped, until_status};
use updraft_tests::process::{Node, Program, Running, say, seed, until, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// A seed, and a peer that follows the program that it is itself.
struct Site {
    scratch: TempDir,
    seed: Node,
    program: PathBuf,
    launcher: Option<Running>,
    flags: Vec<&'static str>,
}

impl Site {
    /// With 1.0.0 installed, and started by a launcher with these flags.
    fn new(probation: &str, flags: &[&'static str]) -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let seed = seed(PROGRAM, scratch.path());
        let program = stripped(PROGRAM, scratch.path());
        let mut site = Self { scratch, seed, program, launcher: None, flags: flags.to_vec() };
        let (data, directory) = (site.data(), site.directory());
        let healthy = format!("test -e good && bin/updraft --data-dir {} status >/dev/null", data.display());
        let text = format!(
            "listen = [\"/ip4/127.0.0.1/tcp/0\"]\n[[subscriptions]]\nproduct = \"app\"\ndirectory = \"{}\"\nrestart = \"self\"\nhealth = {{ command = [\"sh\", \"-c\", \"{healthy}\"], interval = \"200ms\", timeout = \"10s\", probation = \"{probation}\" }}\n",
            directory.display()
        );
        write(&data.join("updraft.toml"), text);
        site.publish("1.0.0", Own::Program, &["good"]);
        // Any copy of the program installs the first release, and makes way for it.
        let ticket = site.seed.ticket(&[]);
        let status = PROGRAM.spawn(&data, ["peer", "--join", &ticket]).wait("the node that is to be replaced");
        assert!(status.success(), "{status}");
        site.launch();
        site.until("1.0.0", |status| has_installed(status, "1.0.0"));
        site
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("peer")
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("apps/app")
    }

    fn publish(&self, version: &str, own: Own<'_>, files: &[&str]) {
        publish(&self.seed, &self.program, &self.scratch.path().join("tree"), version, own, files);
    }

    fn launch(&mut self) {
        assert!(self.launcher.is_none(), "it runs already");
        let directory = self.directory();
        let directory = directory.to_str().expect("a plain name");
        let mut arguments = vec!["launch", "--dir", directory, "--program", "bin/updraft"];
        arguments.extend(&self.flags);
        arguments.extend(["--", "peer"]);
        self.launcher = Some(PROGRAM.spawn(&self.data(), arguments));
    }

    fn launcher(&self) -> &Running {
        self.launcher.as_ref().expect("the launcher runs")
    }

    /// The node, as the kernel sees it: its process, and the release that it runs.
    fn node(&self) -> Option<(u32, String)> {
        let releases = self.directory().join("releases").canonicalize().ok()?;
        children_of(self.launcher().pid()).into_iter().find_map(|pid| {
            let program = program_of(pid)?;
            let release = program.strip_prefix(&releases).ok()?.components().next()?;
            Some((pid, release.as_os_str().to_str()?.split('-').next()?.to_owned()))
        })
    }

    fn runs(&self, version: &str) -> bool {
        self.node().is_some_and(|(_, runs)| runs == version)
    }

    /// What `current` points at, by its version.
    fn current(&self) -> String {
        fs::read_to_string(self.directory().join("current/version")).expect("current resolves")
    }

    fn until(&self, what: &str, holds: impl Fn(&StatusView) -> bool) -> StatusView {
        until_status(&self.data(), what, holds)
    }

    /// Kills the launcher, and sees its node gone with it.
    fn kill_launcher(&mut self) {
        let node = self.node();
        drop(self.launcher.take());
        let Some((pid, _)) = node else { return };
        until("the end of the node", || program_of(pid).is_none().then_some(()));
    }

    /// What the seed has heard of the peer's last install.
    fn until_told(&self, version: &str, state: &str) -> FleetProduct {
        until(&format!("word of {version}: {state}"), || {
            let fleet: FleetView = ask(&self.seed.data_dir, &Request::Fleet { limit: 10 })?;
            let product = fleet.nodes.first()?.products.first()?.clone();
            let told = product.version.as_deref() == Some(version) && product.state.as_deref() == Some(state);
            told.then_some(product)
        })
    }

    /// 1.0.0 runs again, and everybody knows that `bad` was no good.
    fn is_back_from(&self, bad: &str) -> String {
        let status = self.until("the way back", |status| {
            let reason = subscription(status).reason.as_deref().unwrap_or_default();
            is_in(status, SubscriptionState::Quarantined) && reason.contains(bad) && self.runs("1.0.0")
        });
        assert_eq!(subscription(&status).installed.as_deref(), Some("1.0.0"));
        assert_eq!(self.current(), "1.0.0");
        let told = self.until_told(bad, "rolled_back");
        assert_eq!(told.runs.as_deref(), Some("1.0.0"), "{told:?}");
        told.text.expect("it says why")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.launcher.as_ref().map(Running::stderr).unwrap_or_default();
            say(&format!("---- the launcher and its nodes\n{log}"));
        }
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    // One that has just ended by itself is as good.
    let _ = kill_process(pid, Signal::KILL);
}

fn subscription(status: &StatusView) -> &SubscriptionView {
    status.subscriptions.first().expect("the peer has one subscription")
}

fn is_in(status: &StatusView, state: SubscriptionState) -> bool {
    subscription(status).state == state
}

const GOOD: &[&str] = &["good"];

#[test]
fn a_node_is_replaced_by_the_release_that_it_installed_and_tells_the_seed() {
    let mut site = Site::new("4s", &["--settle-ms", "300"]);
    let (before, runs) = site.node().expect("it runs");
    assert_eq!(runs, "1.0.0");
    let started_by = site.launcher().pid();
    site.publish("1.1.0", Own::Program, GOOD);
    let status = site.until("probation", |status| is_in(status, SubscriptionState::Probation));
    assert_eq!(subscription(&status).installed.as_deref(), Some("1.0.0"), "it has not proved itself");
    let (after, runs) = site.node().expect("it runs");
    assert_eq!(runs, "1.1.0", "who is on probation is who answers");
    assert_ne!(before, after);
    site.until("1.1.0", |status| has_installed(status, "1.1.0"));
    assert_eq!(site.node(), Some((after, "1.1.0".to_owned())), "nothing is started twice");
    let told = site.until_told("1.1.0", "installed");
    assert_eq!(told.runs.as_deref(), Some("1.1.0"));
    assert_eq!(site.launcher().pid(), started_by);

    let mut launcher = site.launcher.take().expect("it runs");
    assert!(launcher.terminate().success(), "it ends as its node does: {}", launcher.stderr());
    assert!(program_of(after).is_none(), "the node ends with it");
}

#[test]
fn programs_that_do_not_start_give_way_are_reported_and_the_next_one_is_installed() {
    let flags = ["--settle-ms", "300", "--tries", "2", "--ready-ms", "6000"];
    let site = Site::new("1s", &flags);
    let broken = [("1.1.0", "exit 3"), ("1.2.0", "exit 0"), ("1.3.0", "exec sleep 600")];
    for (version, script) in broken {
        site.publish(version, Own::Script(script), GOOD);
        let words = site.is_back_from(version);
        assert!(words.contains("put back while the node did not run"), "{words}");
    }
    let log = site.launcher().stderr();
    assert_eq!(log.matches("did not start 2 times; going back to 1.0.0").count(), 3, "{log}");
    assert!(log.contains("exit status: 3") && log.contains("did not say within 6 s that it runs"), "{log}");

    site.publish("1.4.0", Own::Program, GOOD);
    site.until("the release that mends it", |status| has_installed(status, "1.4.0"));
    assert!(site.runs("1.4.0"));
    site.until_told("1.4.0", "installed");
    // What the releases before wrote down is there.
    let history = PROGRAM.json(&site.data(), ["history", "app"]);
    let entries = history["entries"].as_array().expect("the contract says so");
    let count = |kind: &str| entries.iter().filter(|entry| entry["kind"] == kind).count();
    assert_eq!((count("installed"), count("rolled_back")), (2, 3), "{history:#}");
}

#[test]
fn a_program_that_runs_and_is_never_healthy_goes_back_by_itself() {
    let site = Site::new("1s", &["--settle-ms", "300"]);
    site.publish("1.1.0", Own::Program, &[]);
    let words = site.is_back_from("1.1.0");
    assert!(words.contains("not healthy within 1 s"), "{words}");
    let log = site.launcher().stderr();
    assert!(!log.contains("did not start"), "no start of it failed: {log}");
    site.publish("1.2.0", Own::Program, GOOD);
    site.until("the release that mends it", |status| has_installed(status, "1.2.0"));
    assert!(site.runs("1.2.0"));
}

#[test]
fn a_launcher_and_a_node_that_are_killed_at_any_moment_end_in_a_good_state() {
    let mut site = Site::new("2s", &["--settle-ms", "300", "--tries", "3"]);
    let arrives = |site: &Site, version: &str| {
        site.until(version, |status| has_installed(status, version));
        assert!(site.runs(version), "{:?}", site.node());
        assert_eq!(site.current(), version);
    };

    // At the switch: the node that made it may still be there.
    site.publish("1.1.0", Own::Program, GOOD);
    until("the switch", || (site.current() == "1.1.0").then_some(()));
    site.kill_launcher();
    site.launch();
    arrives(&site, "1.1.0");

    // Between the end of the old one and the start of the new one.
    site.publish("1.2.0", Own::Program, GOOD);
    until("the gap", || {
        let is_over = site.node().is_none_or(|(_, runs)| runs == "1.2.0");
        (site.current() == "1.2.0" && is_over).then_some(())
    });
    site.kill_launcher();
    site.launch();
    arrives(&site, "1.2.0");

    // In probation, first the node alone, then both.
    site.publish("1.3.0", Own::Program, GOOD);
    // On a busy machine it may be over before it is seen.
    let is_on_trial =
        |status: &StatusView| is_in(status, SubscriptionState::Probation) || has_installed(status, "1.3.0");
    site.until("probation", is_on_trial);
    let (killed, _) = until("a node", || site.node());
    kill(killed);
    until("another node", || site.node().filter(|(pid, _)| *pid != killed));
    site.until("probation, after a kill", is_on_trial);
    site.kill_launcher();
    site.launch();
    arrives(&site, "1.3.0");

    // Between the failed starts of one that is no good: they stay counted.
    site.publish("1.4.0", Own::Script("exit 3"), GOOD);
    until("a failed start", || site.launcher().stderr().contains("exit status: 3").then_some(()));
    site.kill_launcher();
    site.launch();
    site.until("the way back", |status| {
        is_in(status, SubscriptionState::Quarantined) && subscription(status).installed.as_deref() == Some("1.3.0")
    });
    assert!(site.runs("1.3.0"));
    let failed = site.launcher().stderr().matches("exit status: 3").count();
    assert!(failed < 3, "counted across launchers: {failed}");
    site.publish("1.5.0", Own::Program, GOOD);
    arrives(&site, "1.5.0");
    until_no_litter(&site.directory());
}

#[test]
fn a_kill_at_any_instant_of_an_update_costs_no_update() {
    let mut site = Site::new("500ms", &["--settle-ms", "300", "--tries", "3"]);
    for version in ["1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
        let (wait_ms, both) = (rand::random::<u64>() % 3_000, rand::random::<bool>());
        say(&format!("{version}: a kill of {} after {wait_ms} ms", if both { "both" } else { "the node" }));
        site.publish(version, Own::Program, GOOD);
        std::thread::sleep(Duration::from_millis(wait_ms));
        if both {
            site.kill_launcher();
            site.launch();
        } else if let Some((pid, _)) = site.node() {
            kill(pid);
        }
        site.until(version, |status| has_installed(status, version));
        until("the release as a process", || site.runs(version).then_some(()));
        assert_eq!(site.current(), version);
    }
}

/// An install directory of two releases that are scripts: 1.0.0 stays up, and 1.1.0 does this.
struct Scripts {
    scratch: TempDir,
}

impl Scripts {
    fn new(does: &str) -> Self {
        let scripts = Self { scratch: tempfile::tempdir().expect("a temporary directory") };
        for (name, does) in [("1.0.0-aa", "exec sleep 600"), ("1.1.0-bb", does)] {
            let program = scripts.root().join("releases").join(name).join("updraft");
            write(&program, format!("#!/bin/sh\n{does}\n"));
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        scripts
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("app")
    }

    fn point(&self, name: &str) {
        let next = self.root().join("next");
        symlink(Path::new("releases").join(name), &next).expect("writable");
        fs::rename(&next, self.root().join("current")).expect("writable");
    }

    fn until_back(&self) {
        let current = || fs::read_link(self.root().join("current")).expect("a link");
        until("the way back", || (current() == Path::new("releases/1.0.0-aa")).then_some(()));
    }

    fn launch(&self, ready_ms: &str) -> Running {
        let root = self.root();
        let root = root.to_str().expect("a plain name");
        let flags = ["launch", "--dir", root, "--settle-ms", "4000", "--ready-ms", ready_ms, "--tries", "2", "--", "x"];
        PROGRAM.spawn(&self.scratch.path().join("data"), flags)
    }
}

/// The program that a launcher has started.
fn until_started(launcher: &Running) -> u32 {
    // Before it is that program it is the launcher's own.
    let own = fs::canonicalize(PROGRAM.0).expect("it exists");
    let is_another = |pid: &u32| program_of(*pid).is_some_and(|program| program != own);
    until("the program", || children_of(launcher.pid()).into_iter().find(is_another))
}

#[test]
fn starts_are_counted_where_nothing_can_be_written_down() {
    let scripts = Scripts::new("exit 1");
    scripts.point("1.0.0-aa");
    // No file takes the place of a directory.
    fs::create_dir_all(scripts.root().join("launch.json/in the way")).expect("writable");
    let launcher = scripts.launch("0");
    // Twice: before the first start, and when it has settled.
    let warnings = || launcher.stderr().matches("are counted until this launcher ends").count();
    until("a first good start", || (warnings() >= 2).then_some(()));
    scripts.point("1.1.0-bb");
    kill(until_started(&launcher));
    scripts.until_back();
}

#[test]
fn a_program_that_hangs_is_not_forgiven_because_somebody_lost_patience_with_its_launcher() {
    let scripts = Scripts::new("exec sleep 600");
    scripts.point("1.1.0-bb");
    write(&scripts.root().join("launch.json"), r#"{"good":"1.0.0-aa"}"#);
    for _ in 0..2 {
        let mut launcher = scripts.launch("600000");
        until_started(&launcher);
        // As systemd does at the end of TimeoutStartSec.
        launcher.terminate();
    }
    let _launcher = scripts.launch("600000");
    scripts.until_back();
}

/// Nothing of the switches and kills stays in the install directory: it is tidied after each install.
fn until_no_litter(directory: &Path) {
    until("a tidy directory", || {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let staged = fs::read_dir(directory.join("staging")).expect("readable").count();
        (names == ["current", "launch.json", "releases", "staging"] && staged == 0).then_some(())
    });
}
