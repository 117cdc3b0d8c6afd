//! Releases that a real systemd starts: units that are restarted by its own jobs, units that crash, and a
//! node that is in the unit which it restarts. Skipped, with the reason, where no systemd can be had.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use updraft::control::fleet::FleetView;
use updraft::control::messages::Request;
use updraft::control::views::{StatusView, SubscriptionState, SubscriptionView};
use updraft_tests::cluster::has_installed;
use updraft_tests::itself::{self, Own, ask, program_of, stripped, until_status};
use updraft_tests::machine::Machine;
use updraft_tests::process::{Node, Program, say, seed, until, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// The service that is installed in most of these tests.
const APP: &str = "app.service";
/// The node, where it runs as a unit.
const NODE: &str = "node.service";
/// A service that stays up.
const STAYS: &str = "exec sleep 600";

/// A seed on this machine, and what a peer on the other one needs.
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

    fn data(&self) -> PathBuf {
        self.path("peer")
    }

    fn directory(&self) -> PathBuf {
        self.path("apps").join("app")
    }

    /// A machine with the node as a unit, and these units. None where there can be none.
    fn boot(&self, keys: &str, start: &str, units: &[(&str, String)]) -> Option<Machine> {
        let text = format!(
            "ticket = \"{}\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n[[subscriptions]]\nproduct = \"app\"\ndirectory = \"{}\"\n{keys}\n",
            self.ticket,
            self.directory().display()
        );
        write(&self.data().join("updraft.toml"), text);
        let start_path = self.path("start");
        script(&start_path, start);
        let node = format!(
            "[Service]\nType=notify\nExecStart={}\nEnvironment=HOME={data} UPDRAFT_DATA_DIR={data}\nRestart=on-failure\nRestartSec=100ms\nTimeoutStopSec=20s\nStandardOutput=append:{log}\nStandardError=append:{log}\n",
            start_path.display(),
            data = self.data().display(),
            log = self.path("log").display()
        );
        let mut all = vec![(NODE, node)];
        all.extend(units.iter().cloned());
        let machine = match Machine::boot(&self.path("machine"), &all) {
            Ok(machine) => machine,
            Err(reason) => {
                say(&format!("skipped: {reason}"));
                return None;
            }
        };
        machine.systemctl(["start", NODE]).succeeded();
        Some(machine)
    }

    /// A unit of the product, with these lines in `[Service]`.
    fn app(&self, lines: &str) -> (&'static str, String) {
        let service = self.directory().join("current/service");
        let log = self.path("starts");
        let output = format!("StandardOutput=append:{}\nStandardError=inherit", log.display());
        (APP, format!("[Service]\nExecStart={}\n{output}\n{lines}\n", service.display()))
    }

    /// Publishes a service that says its version, and does that.
    fn publish(&self, version: &str, does: &str) {
        let tree = self.path("tree");
        script(&tree.join("service"), &format!("echo {version}\n{does}"));
        let path = tree.to_str().expect("a plain name");
        self.seed.run(["publish", path, "--product", "app", "--version", version, "--level", "1"]).succeeded();
    }

    /// The versions that were started, in order, each once for a row of starts.
    fn started(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("starts")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.dedup();
        lines
    }

    fn until(&self, what: &str, holds: impl Fn(&StatusView) -> bool) -> StatusView {
        until_status(&self.data(), what, holds)
    }

    fn until_installed(&self, version: &str) {
        self.until(version, |status| has_installed(status, version));
    }

    /// Waits for the way back from `bad` to `good`; says why it was taken.
    fn until_back_at(&self, good: &str, bad: &str) -> String {
        let status = self.until("the way back", |status| {
            let reason = subscription(status).reason.as_deref().unwrap_or_default();
            is_in(status, SubscriptionState::Quarantined) && reason.contains(bad)
        });
        assert_eq!(subscription(&status).installed.as_deref(), Some(good));
        subscription(&status).reason.clone().expect("it says why")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("---- the node\n{}---- started: {:?}", self.log(), self.started()));
        }
    }
}

fn script(path: &Path, text: &str) {
    write(path, format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

fn subscription(status: &StatusView) -> &SubscriptionView {
    status.subscriptions.first().expect("the peer has one subscription")
}

fn is_in(status: &StatusView, state: SubscriptionState) -> bool {
    subscription(status).state == state
}

/// What runs the program as it is.
fn plain() -> String {
    format!("exec {} peer", PROGRAM.0)
}

const TRIAL: &str =
    "restart = \"app\"\nhealth = { unit = \"app\", interval = \"200ms\", probation = \"1500ms\", timeout = \"10s\" }";

#[test]
fn a_unit_is_restarted_by_a_job_of_systemd_and_proves_itself_by_staying_active() {
    let site = Site::new();
    let Some(machine) = site.boot(TRIAL, &plain(), &[site.app("Restart=on-failure")]) else { return };
    site.publish("1.0.0", STAYS);
    site.until_installed("1.0.0");
    let first = machine.property(APP, "InvocationID");
    // A crash of long ago is not held against the next release.
    machine.systemctl(["kill", "--signal=KILL", APP]).succeeded();
    machine.until(APP, "NRestarts", "1");
    site.publish("1.1.0", STAYS);
    site.until_installed("1.1.0");
    assert_eq!(site.started(), ["1.0.0", "1.1.0"]);
    assert_ne!(machine.property(APP, "InvocationID"), first);
    assert_eq!(machine.property(APP, "ActiveState"), "active");
    let node = machine.property(NODE, "NRestarts");
    assert_eq!(node, "0", "the node has nothing to do with it");
}

#[test]
fn units_that_crash_go_back_and_run_again() {
    let site = Site::new();
    let unit = site.app("Restart=always\nRestartSec=50ms");
    let Some(machine) = site.boot(TRIAL, &plain(), &[unit]) else { return };
    site.publish("1.0.0", STAYS);
    site.until_installed("1.0.0");

    // It ends at once, until systemd has had enough of it.
    site.publish("1.1.0", "exit 1");
    let reason = site.until_back_at("1.0.0", "1.1.0");
    assert!(reason.contains("app.service"), "{reason}");
    machine.until(APP, "ActiveState", "active");
    assert_eq!(machine.property(APP, "NRestarts"), "0", "it was started anew");

    // It crashes now and then, and looks well in between.
    site.publish("1.2.0", "sleep 0.5; exit 1");
    let reason = site.until_back_at("1.0.0", "1.2.0");
    assert!(reason.contains("systemd restarted it") || reason.contains("app.service is"), "{reason}");
    machine.until(APP, "ActiveState", "active");
    assert_eq!(site.started(), ["1.0.0", "1.1.0", "1.0.0", "1.2.0", "1.0.0"]);

    let fleet = until("word of it", || {
        let fleet: FleetView = ask(&site.seed.data_dir, &Request::Fleet { limit: 10 })?;
        let row = fleet.versions.iter().find(|row| row.version == "1.2.0")?;
        (row.failed == 1).then_some(fleet)
    });
    assert_eq!(fleet.nodes[0].products[0].runs.as_deref(), Some("1.0.0"));

    site.publish("1.3.0", STAYS);
    site.until_installed("1.3.0");
}

#[test]
fn a_unit_that_systemd_has_given_up_starts_again_with_the_release_before() {
    let site = Site::new();
    let unit = site.app("Restart=always\nRestartSec=20ms\n[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=600s");
    let keys =
        "restart = \"app\"\nhealth = { unit = \"app\", interval = \"1s\", probation = \"6s\", timeout = \"10s\" }";
    let Some(machine) = site.boot(keys, &plain(), &[unit]) else { return };
    site.publish("1.0.0", STAYS);
    site.until_installed("1.0.0");
    site.publish("1.1.0", "exit 1");
    let reason = site.until_back_at("1.0.0", "1.1.0");
    assert!(reason.contains("app.service is failed"), "{reason}");
    machine.until(APP, "ActiveState", "active");
    assert_eq!(site.started(), ["1.0.0", "1.1.0", "1.0.0"]);
}

#[test]
fn a_node_in_the_unit_that_it_restarts_comes_back_as_the_next_one() {
    let site = Site::new();
    let program = stripped(PROGRAM, site.scratch.path());
    let publish = |version: &str, own: Own<'_>| {
        itself::publish(&site.seed, &program, &site.path("tree"), version, own, &[]);
    };
    // The packaged program installs the first release, and launches it from then on.
    let directory = site.directory();
    let start = format!(
        "cd /\nif [ -x {dir}/current/bin/updraft ]; then\n  exec {program} launch --dir {dir} --program bin/updraft --settle-ms 300 --tries 2 -- peer\nfi\nexec {program} peer",
        dir = directory.display(),
        program = PROGRAM.0
    );
    let keys = "restart = \"node\"\nmax_attempts = 1\nhealth = { unit = \"node\", interval = \"200ms\", probation = \"1500ms\", timeout = \"10s\" }";
    let Some(machine) = site.boot(keys, &start, &[]) else { return };
    let runs = || -> Vec<String> {
        let all = machine.processes(NODE).into_iter().filter_map(program_of);
        let inside = all.filter_map(|path| Some(path.strip_prefix(directory.join("releases")).ok()?.to_owned()));
        inside.map(|path| path.display().to_string().split('-').next().unwrap_or_default().to_owned()).collect()
    };
    publish("1.0.0", Own::Program);
    site.until_installed("1.0.0");
    assert_eq!(runs(), ["1.0.0"]);
    let before = machine.property(NODE, "InvocationID");
    publish("1.1.0", Own::Program);
    site.until_installed("1.1.0");
    assert_eq!(runs(), ["1.1.0"]);
    assert_ne!(machine.property(NODE, "InvocationID"), before, "systemd started it");
    assert_eq!(machine.property(NODE, "NRestarts"), "0", "by a job, not because it failed");

    publish("1.2.0", Own::Script("exit 3"));
    let reason = site.until_back_at("1.1.0", "1.2.0");
    assert!(reason.contains("put back while the node did not run"), "{reason}");
    machine.until(NODE, "ActiveState", "active");
    assert_eq!(runs(), ["1.1.0"]);
    publish("1.3.0", Own::Program);
    site.until_installed("1.3.0");
    assert_eq!(runs(), ["1.3.0"]);
}

#[test]
fn a_node_that_is_stopped_in_the_middle_of_an_activation_goes_on_with_it() {
    let site = Site::new();
    let gate = site.path("gate");
    // Each start waits for its gate.
    let wait = format!("ExecStartPre=/bin/sh -c 'while ! test -e {}; do sleep 0.05; done'", gate.display());
    let Some(machine) = site.boot(TRIAL, &plain(), &[site.app(&wait)]) else { return };
    write(&gate, "open");
    site.publish("1.0.0", STAYS);
    site.until_installed("1.0.0");

    fs::remove_file(&gate).expect("our own file");
    site.publish("1.1.0", STAYS);
    machine.until(APP, "ActiveState", "activating");
    site.until("the start", |status| is_in(status, SubscriptionState::Switched));
    machine.systemctl(["stop", NODE]).succeeded();
    assert_eq!(machine.property(NODE, "Result"), "success", "it stopped in good order");
    assert!(machine.processes(NODE).is_empty(), "nothing of it is left");
    machine.systemctl(["start", NODE]).succeeded();
    site.until("the start, once more", |status| is_in(status, SubscriptionState::Switched));
    write(&gate, "open");
    site.until_installed("1.1.0");
    let history = PROGRAM.json(&site.data(), ["history", "app"]);
    let entries = history["entries"].as_array().expect("the contract says so");
    let blames = |entry: &&serde_json::Value| entry["kind"] == "install_failed" || entry["kind"] == "rolled_back";
    assert_eq!(entries.iter().find(blames), None, "it was not the release's fault");
}
