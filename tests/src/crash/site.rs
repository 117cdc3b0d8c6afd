//! A peer at the point where it installs, as often as wanted: its directories are kept as they were, put
//! back, and whatever a crash leaves of them is looked at.
//!
//! The peer is offline from then on: it has the artifact and the signed metadata, as a machine does whose
//! cable was pulled. So a crash costs the start of one process and no more.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use updraft::control::client::Client;
use updraft::control::messages::Request;
use updraft::control::views::{StatusView, SubscriptionState};
use updraft::store::state::StateDb;

use crate::cluster::tree;
use crate::process::{DEADLINE, Node, Program, differences, run_to_end, seed, write};

use super::{FILL_AT, FILL_IN, KILL_AT, KILL_ON_TOUCH, RECORD, STATE, WATCH, state_files};

/// The two releases.
pub const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];

/// Pause between two looks at a node.
const PAUSE: Duration = Duration::from_millis(4);

/// Where a peer stands when a crash is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// The first release is about to be unpacked.
    First,
    /// The second one is, over the first.
    Upgrade,
    /// An operator goes back from the second to the first.
    Rollback,
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::First, Self::Upgrade, Self::Rollback];

    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
        }
    }

    /// The version that runs in the end.
    pub fn target(self) -> &'static str {
        match self {
            Self::First | Self::Rollback => VERSIONS[0],
            Self::Upgrade => VERSIONS[1],
        }
    }
}

/// When a node dies.
#[derive(Debug, Clone, Copy)]
pub enum Death {
    /// Once it took so many steps.
    AtStep(u64),
    /// So long after it was started, whatever it does.
    After(Duration),
    /// Once it has done what it was about to do.
    WhenDone,
}

/// What else is asked of a node while it runs.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Write every step to this file.
    pub record: Option<PathBuf>,
    /// Fill the disk of this directory at this step.
    pub fill: Option<(u64, PathBuf)>,
    /// Give up waiting after so long, without blame.
    pub patience: Option<Duration>,
}

/// How a node's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It was killed before it was done.
    Killed,
    /// It did what it was about to do, and was killed then.
    Done,
    /// It was not done when patience ended; why it waits, in its words.
    Waiting(String),
}

/// What a crash left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The journal's state, or `none`.
    pub journal: String,
    /// The version that `current` leads to.
    pub current: Option<String>,
    /// Everything that must never be.
    pub violations: Vec<String>,
}

/// The directories of one peer.
#[derive(Debug)]
pub struct Site {
    program: Program,
    home: PathBuf,
    templates: PathBuf,
    ticket: String,
    trees: BTreeMap<String, BTreeMap<PathBuf, String>>,
}

/// Makes a small release that holds every kind of entry.
fn sources(root: &Path, version: &str) {
    for (name, size) in [("bin/tool", 40_000), ("lib/part/one", 9_000), ("lib/part/two", 1), ("share/empty", 0)] {
        write(&root.join(name), crate::forge::noise(&format!("{version} {name}"), size));
    }
    for number in 0..8 {
        write(&root.join(format!("share/many/{number}")), format!("{version} {number}"));
    }
    write(&root.join("VERSION"), version);
    fs::hard_link(root.join("bin/tool"), root.join("bin/tool-again")).expect("writable");
    std::os::unix::fs::symlink("tool", root.join("bin/alias")).expect("writable");
    std::os::unix::fs::symlink("/nowhere/at/all", root.join("lib/dangling")).expect("writable");
    fs::create_dir_all(root.join("var/empty")).expect("writable");
}

impl Site {
    /// Takes a peer to each scene, below `scratch`. `home` will hold its directories whenever it runs.
    ///
    /// # Panics
    /// Where that does not work.
    pub fn prepare(program: Program, scratch: &Path, home: &Path) -> Self {
        let mut seed = seed(program, scratch);
        let ticket = seed.ticket(&[]);
        let mut site = Self {
            program,
            home: home.to_owned(),
            templates: scratch.join("templates"),
            ticket,
            trees: BTreeMap::new(),
        };
        fs::create_dir_all(home).expect("writable");
        for (version, scene) in VERSIONS.into_iter().zip([Scene::First, Scene::Upgrade]) {
            let source = scratch.join(format!("source-{version}"));
            sources(&source, version);
            publish(&seed, &source, version);
            site.trees.insert(version.to_owned(), tree(&source));
            let touched = site.live(scene, Death::WhenDone, &Extra::default(), true);
            assert_eq!(touched, Life::Killed, "the peer did not get to the point of unpacking {version}");
            site.keep(scene);
            let done = site.live(scene, Death::WhenDone, &Extra::default(), false);
            assert_eq!(done, Life::Done, "the peer did not install {version}");
        }
        site.keep(Scene::Rollback);
        seed.terminate();
        site
    }

    /// The node's own directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.join("peer")
    }

    /// Where it installs.
    pub fn install_dir(&self) -> PathBuf {
        self.home.join("apps/app")
    }

    /// Its state database.
    pub fn state(&self) -> PathBuf {
        self.data_dir().join("state.db")
    }

    /// What a version holds, as [`tree`] describes it.
    ///
    /// # Panics
    /// Where there is no such version.
    pub fn expected(&self, version: &str) -> &BTreeMap<PathBuf, String> {
        self.trees.get(version).expect("one of the two")
    }

    fn keep(&self, scene: Scene) {
        let template = self.templates.join(scene.name());
        fs::create_dir_all(&self.templates).expect("writable");
        copy(&self.home, &template);
    }

    /// Puts everything back to where a scene begins.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn restore(&self, scene: Scene) {
        clear(&self.home);
        for part in ["peer", "apps"] {
            let from = self.templates.join(scene.name()).join(part);
            if from.exists() {
                copy(&from, &self.home.join(part));
            }
        }
    }

    fn command(&self, death: Death, extra: &Extra, on_touch: bool) -> Command {
        let mut command = Command::new(self.program.0);
        command.arg("--data-dir").arg(self.data_dir());
        command.args(["peer", "--join", &self.ticket, "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.arg("--subscribe").arg(format!("app={}", self.install_dir().display()));
        command.env("HOME", &self.home).env("NO_COLOR", "1").env(WATCH, self.install_dir()).env(STATE, self.state());
        if let Death::AtStep(step) = death {
            command.env(KILL_AT, step.to_string());
        }
        if on_touch {
            command.env(KILL_ON_TOUCH, "1");
        }
        if let Some(record) = &extra.record {
            command.env(RECORD, record);
        }
        if let Some((step, directory)) = &extra.fill {
            command.env(FILL_AT, step.to_string()).env(FILL_IN, directory);
        }
        command
    }

    /// Starts the peer and lets it live until it dies, is done, or patience ends.
    ///
    /// # Panics
    /// Where it ends by itself, hangs, or reports what is not so.
    pub fn run(&self, scene: Scene, death: Death, extra: &Extra) -> Life {
        self.live(scene, death, extra, false)
    }

    fn live(&self, scene: Scene, death: Death, extra: &Extra, on_touch: bool) -> Life {
        let log = self.home.join("log");
        let errors = fs::File::create(&log).expect("writable");
        let mut child = self
            .command(death, extra, on_touch)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the program is there");
        let started = Instant::now();
        let mut rollback = None;
        let life = loop {
            if let Some(status) = child.try_wait().expect("a child of this process") {
                let text = || fs::read_to_string(&log).unwrap_or_default();
                assert_eq!(status.signal(), Some(9), "the node ended by itself ({status}): {}", text());
                return Life::Killed;
            }
            if let Death::After(instant) = death
                && started.elapsed() >= instant
            {
                break Life::Killed;
            }
            let status = self.status();
            if let Some(status) = &status {
                self.check_report(status);
                if is_done(status, scene) {
                    break Life::Done;
                }
                if scene == Scene::Rollback && rollback.is_none() && installed(status) == Some(VERSIONS[1]) {
                    rollback = self.ask_for_rollback();
                }
            }
            let waited = started.elapsed();
            if extra.patience.is_some_and(|patience| waited >= patience) {
                break Life::Waiting(
                    status.and_then(|status| status.subscriptions.first()?.reason.clone()).unwrap_or_default(),
                );
            }
            assert!(waited < DEADLINE, "the node hangs: {status:#?}\n{}", fs::read_to_string(&log).unwrap_or_default());
            let left = if let Death::After(instant) = death { instant.saturating_sub(waited) } else { PAUSE };
            std::thread::sleep(left.min(PAUSE));
        };
        // It may have died at its step in this very moment.
        let _ = child.kill();
        let _ = child.wait();
        life
    }

    fn status(&self) -> Option<StatusView> {
        Client::connect(&self.data_dir()).ok()?.send(&Request::Status { explain: false }).ok()?.finish().ok()
    }

    fn ask_for_rollback(&self) -> Option<updraft::control::client::Conversation> {
        // By name: one that goes on by itself may be back at the first by now, and would go forth again.
        let to = Some(VERSIONS[0].parse().expect("a version"));
        let request = Request::Rollback { product: "app".parse().expect("a product"), to, hold: true };
        Client::connect(&self.data_dir()).ok()?.send(&request).ok()
    }

    /// What a running node says is installed must be so at that moment.
    fn check_report(&self, status: &StatusView) {
        let Some(subscription) = status.subscriptions.first() else { return };
        if let Some(version) = installed(status)
            && subscription.state == SubscriptionState::Committed
        {
            let wrong = differences(self.expected(version), &tree(&self.install_dir().join("current")));
            // A node that goes on to another version meanwhile is asked again.
            let again = self.status();
            let still = again.as_ref().is_none_or(|again| again.subscriptions == status.subscriptions);
            assert!(wrong.is_empty() || !still, "the node reports {version}, and {wrong:#?}");
        }
    }

    /// Looks at what a crash left.
    pub fn inspect(&self, scene: Scene) -> Found {
        let mut violations = Vec::new();
        let root = self.install_dir();
        let current = match fs::read_link(root.join("current")) {
            Ok(target) => Some(target),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                violations.push(format!("`current` is no link: {error}"));
                None
            }
        };
        let version_of = |name: &str| name.rsplit_once('-').map(|(version, _)| version.to_owned());
        for entry in fs::read_dir(root.join("releases")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match version_of(&name).and_then(|version| self.trees.get(&version)) {
                Some(expected) => {
                    let wrong = differences(expected, &tree(&entry.path()));
                    if !wrong.is_empty() {
                        violations.push(format!("releases/{name} is not what was signed: {wrong:?}"));
                    }
                }
                None => violations.push(format!("releases/{name} is no release")),
            }
        }
        let name = current.as_ref().and_then(|target| target.strip_prefix("releases").ok()).map(PathBuf::from);
        let name = name.map(|name| name.to_string_lossy().into_owned());
        if current.is_some() && !root.join("current").is_dir() {
            violations.push(format!("`current` leads nowhere: {current:?}"));
        }
        if current.is_none() && scene != Scene::First {
            violations.push("`current` is missing".to_owned());
        }
        let (journal, installed) = self.journal(&mut violations);
        let steps_aside = ["armed", "switched", "probation", "rolling_back"].contains(&journal.as_str());
        if installed.is_some() && installed != name && !steps_aside {
            violations.push(format!("the journal ({journal}) says {installed:?}, `current` says {name:?}"));
        }
        Found { journal, current: name.as_deref().and_then(version_of), violations }
    }

    /// The journal's state, and the tree that is installed by it. Read from a copy, so that the node finds
    /// its database as the crash left it.
    fn journal(&self, violations: &mut Vec<String>) -> (String, Option<String>) {
        let copy = tempfile::tempdir().expect("a temporary directory");
        for file in state_files(&self.state()) {
            if let (Some(name), true) = (file.file_name(), file.exists()) {
                fs::copy(&file, copy.path().join(name)).expect("readable");
            }
        }
        let found = StateDb::open(&copy.path().join("state.db"))
            .and_then(|state| Ok((state.install(&self.install_dir())?, state.installed(&self.install_dir())?)));
        match found {
            Ok((install, installed)) => {
                let journal = install.map_or_else(|| "none".to_owned(), |row| row.state);
                (journal, installed.map(|row| row.release_dir))
            }
            Err(error) => {
                violations.push(format!("the state database cannot be read: {error}"));
                ("unreadable".to_owned(), None)
            }
        }
    }
}

fn installed(status: &StatusView) -> Option<&str> {
    status.subscriptions.first()?.installed.as_deref()
}

fn is_done(status: &StatusView, scene: Scene) -> bool {
    let Some(subscription) = status.subscriptions.first() else { return false };
    let settled = match scene {
        Scene::First | Scene::Upgrade => subscription.state == SubscriptionState::Committed,
        Scene::Rollback => {
            matches!(subscription.state, SubscriptionState::Committed | SubscriptionState::Quarantined)
        }
    };
    settled && installed(status) == Some(scene.target())
}

fn publish(seed: &Node, source: &Path, version: &str) {
    let path = source.to_str().expect("a temporary directory has a plain name");
    seed.json(["publish", path, "--product", "app", "--version", version]);
}

fn copy(from: &Path, to: &Path) {
    run_to_end(Command::new("cp").arg("-a").arg(from).arg(to), "cp").succeeded();
}

/// Empties a directory, which may be a mount.
fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed =
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap_or_else(|error| panic!("{} cannot be removed: {error}", path.display()));
    }
}
