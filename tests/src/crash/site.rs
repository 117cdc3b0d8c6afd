//! A peer at the point where it installs, as often as wanted: its directories are kept as they were, put
//! back, and whatever a crash leaves of them is looked at.
//!
//! The peer is offline from then on: it has the artifact and the signed metadata, as a machine does whose
//! cable was pulled. So a crash costs the start of one process and no more.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use semver::Version;
use updraft::control::client::{Client, Conversation};
use updraft::control::garbage::GcView;
use updraft::control::messages::Request;
use updraft::control::views::{StatusView, SubscriptionState};
use updraft::store::state::{InstallRow, InstalledRow, StateDb, StateError};
use updraft_protocol::digest::Digest;

use crate::cluster::tree;
use crate::process::{DEADLINE, Node, Program, differences, run_to_end, seed, write};

use super::scene::{ILL, LOOPING, MAX_ATTEMPTS, Scene, VERSIONS};
use super::trouble::Trouble;
use super::{KILL_AT, KILL_ON_TOUCH, RECORD, Recorded, STATE, TROUBLE, TROUBLE_AT, TROUBLE_IN, WATCH, state_files};

/// Names the file to which the starter adds a line for each start: the version that it was told.
pub const STARTS: &str = "CRASH_STARTS";

/// Pause between two looks at a node.
const PAUSE: Duration = Duration::from_millis(4);

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
    /// Make this trouble in this directory at this step.
    pub trouble: Option<(u64, Trouble, PathBuf)>,
}

/// How a node's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It was killed before it was done.
    Killed,
    /// It did what it was about to do, and was killed then.
    Done,
}

/// A peer that runs. It ends with the value.
#[derive(Debug)]
pub(super) struct Living {
    child: Child,
    log: PathBuf,
}

impl Living {
    /// What it has said.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it was killed.
    ///
    /// # Panics
    /// Where it ended by itself.
    fn is_dead(&mut self) -> bool {
        let Some(status) = self.child.try_wait().expect("a child of this process") else { return false };
        assert_eq!(status.signal(), Some(9), "the node ended by itself ({status}): {}", self.log());
        true
    }

    /// # Panics
    /// Where it ended.
    pub(super) fn require_alive(&mut self) {
        assert!(!self.is_dead(), "the node was killed: {}", self.log());
    }

    /// SIGKILL, unless it died in this very moment.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a crash left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The journal's state, or `none`.
    pub journal: String,
    /// The journal's attempt, with its way, and how many starts of its release were written down.
    pub attempts: (String, u32),
    /// The version that `current` leads to.
    pub current: Option<String>,
    /// The version that was left for good: its artifact is quarantined.
    pub quarantined: Option<String>,
    /// Versions that are held.
    pub held: Vec<String>,
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
    /// Counts restores: what a crash left running may still write its line, and not into the next one's.
    restores: AtomicU64,
}

/// Makes a small release that holds every kind of entry.
fn sources(root: &Path, version: &str) {
    // It takes the node with it, and nothing else: whoever became the parent meanwhile is left alone.
    let ending = if version == LOOPING {
        "case $(readlink /proc/$PPID/exe) in */crash-node) kill -9 $PPID;; esac\n"
    } else {
        ""
    };
    write(&root.join("start"), format!("echo $UPDRAFT_VERSION >> \"$CRASH_STARTS\"\n{ending}"));
    if version != ILL {
        write(&root.join("healthy"), "");
    }
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
            restores: AtomicU64::new(0),
        };
        fs::create_dir_all(home).expect("writable");
        let publish = |site: &mut Self, version: &str| {
            let source = scratch.join(format!("source-{version}"));
            sources(&source, version);
            publish(&seed, &source, version);
            site.trees.insert(version.to_owned(), tree(&source));
        };
        for (version, scene) in [(VERSIONS[0], Scene::First), (VERSIONS[1], Scene::Upgrade)] {
            publish(&mut site, version);
            site.come_to(scene);
            let done = site.live(scene, Death::WhenDone, &Extra::default(), false);
            assert_eq!(done, Life::Done, "the peer did not install {version}");
        }
        site.keep(Scene::Rollback);
        for (version, scene) in [(LOOPING, Scene::Looping), (ILL, Scene::Ill)] {
            publish(&mut site, version);
            site.restore(Scene::Rollback);
            site.come_to(scene);
        }
        // From here on it is offline: what is newest would take the place of what it is about to install.
        seed.terminate();
        self_kills(&site);
        site.keep(Scene::GivenUp);
        // Three trees, of which two are to stay.
        site.finish(Scene::Ill);
        site.keep(Scene::Collect);
        // What it left by hand is held, and waits for a word.
        site.finish(Scene::Return);
        site.keep(Scene::Unhold);
        site
    }

    /// Takes a peer to the point of unpacking, and keeps it so.
    fn come_to(&self, scene: Scene) {
        let touched = self.live(scene, Death::WhenDone, &Extra::default(), true);
        assert_eq!(touched, Life::Killed, "the peer did not get to the point of unpacking for {scene:?}");
        self.keep(scene);
    }

    /// Plays a scene to its end.
    fn finish(&self, scene: Scene) {
        self.restore(scene);
        assert_eq!(self.live(scene, Death::WhenDone, &Extra::default(), false), Life::Done, "{scene:?} has no end");
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
        let template = self.templates.join(scene.template());
        fs::create_dir_all(&self.templates).expect("writable");
        copy(&self.home, &template);
    }

    /// Puts everything back to where a scene begins.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn restore(&self, scene: Scene) {
        clear(&self.home);
        self.restores.fetch_add(1, Ordering::Relaxed);
        for part in ["peer", "apps"] {
            let from = self.templates.join(scene.template()).join(part);
            if from.exists() {
                // It may be there, as a mount.
                let to = self.home.join(part);
                fs::create_dir_all(&to).expect("writable");
                copy(&from.join("."), &to);
            }
        }
    }

    /// Where the starter of this scene writes its lines.
    fn starts(&self) -> PathBuf {
        // Beside the templates: where the peer's disk is full, its starter works all the same.
        self.templates.with_file_name(format!("starts-{}", self.restores.load(Ordering::Relaxed)))
    }

    /// How many steps a peer takes in a scene until the release is unpacked and in its place.
    ///
    /// # Panics
    /// Where none is unpacked.
    pub fn steps_until_unpacked(&self, scene: Scene) -> u64 {
        self.restore(scene);
        let record = self.home.join("record");
        self.run(scene, Death::WhenDone, &Extra { record: Some(record.clone()), ..Extra::default() });
        let text = fs::read_to_string(&record).expect("a record");
        let steps = text.lines().map(|line| serde_json::from_str::<Recorded>(line).expect("a step"));
        let unpacked = steps.enumerate().filter(|(_, step)| step.step == "sync_tree").last().expect("it unpacks");
        u64::try_from(unpacked.0).expect("few") + 1
    }

    /// How often a version was started since the scene began.
    pub fn begun(&self, version: &str) -> usize {
        let lines = fs::read_to_string(self.starts()).unwrap_or_default();
        lines.lines().filter(|line| *line == version).count()
    }

    fn command(&self, scene: Scene, death: Death, extra: &Extra, on_touch: bool) -> Command {
        write(&self.data_dir().join("updraft.toml"), scene.configuration(&self.install_dir()));
        // Whoever owns the place above runs the peer.
        let owner = fs::metadata(&self.home).expect("it was made");
        std::os::unix::fs::chown(self.data_dir(), Some(owner.uid()), Some(owner.gid())).expect("our own");
        let mut command = Command::new(self.program.0);
        command.arg("--data-dir").arg(self.data_dir());
        command.args(["peer", "--join", &self.ticket, "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.env(STARTS, self.starts());
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
        if let Some((step, trouble, directory)) = &extra.trouble {
            command.env(TROUBLE_AT, step.to_string()).env(TROUBLE, trouble.name()).env(TROUBLE_IN, directory);
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

    pub(super) fn start(&self, scene: Scene, death: Death, extra: &Extra, on_touch: bool) -> Living {
        let log = self.templates.with_file_name("log");
        let errors = fs::File::create(&log).expect("writable");
        let child = self
            .command(scene, death, extra, on_touch)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the program is there");
        Living { child, log }
    }

    fn live(&self, scene: Scene, death: Death, extra: &Extra, on_touch: bool) -> Life {
        let mut living = self.start(scene, death, extra, on_touch);
        let started = Instant::now();
        let mut asked = None;
        loop {
            if living.is_dead() {
                return Life::Killed;
            }
            if let Death::After(instant) = death
                && started.elapsed() >= instant
            {
                return Life::Killed;
            }
            let status = self.status();
            if let Some(status) = &status {
                self.check_report(status);
                if self.is_done(status, scene) {
                    return Life::Done;
                }
                self.ask_once(scene, status, &mut asked);
            }
            let waited = started.elapsed();
            assert!(waited < DEADLINE, "the node hangs: {status:#?}\n{}", living.log());
            let left = if let Death::After(instant) = death { instant.saturating_sub(waited) } else { PAUSE };
            std::thread::sleep(left.min(PAUSE));
        }
    }

    /// Whether a scene is over.
    pub(super) fn is_done(&self, status: &StatusView, scene: Scene) -> bool {
        let state = status.subscriptions.first().map(|subscription| subscription.state);
        let rests = state.is_some_and(|state| scene.ends_in(state)) && installed(status) == Some(scene.target());
        rests && (scene != Scene::Collect || self.collect_garbage())
    }

    /// Asks for what the scene is about, once it can be asked for.
    pub(super) fn ask_once(&self, scene: Scene, status: &StatusView, asked: &mut Option<Conversation>) {
        if let (None, Some((before, request))) = (&asked, scene.request())
            && installed(status) == Some(before)
        {
            *asked = self.ask(&request);
        }
    }

    pub(super) fn status(&self) -> Option<StatusView> {
        Client::connect(&self.data_dir()).ok()?.send(&Request::Status { explain: false }).ok()?.finish().ok()
    }

    fn ask(&self, request: &Request) -> Option<Conversation> {
        Client::connect(&self.data_dir()).ok()?.send(request).ok()
    }

    /// Whether what nothing needs was removed, and nothing else.
    fn collect_garbage(&self) -> bool {
        let asked = self.ask(&Request::Gc { dry_run: false });
        let Some(answer) = asked.and_then(|conversation| conversation.finish::<GcView>().ok()) else { return false };
        assert_eq!(answer.warnings, Vec::<String>::new());
        let trees = fs::read_dir(self.install_dir().join("releases")).map_or(0, Iterator::count);
        assert_eq!(trees, 2, "what is installed and what was before stay, and nothing else does");
        true
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
        if current.is_none() && !scene.begins_empty() {
            violations.push("`current` is missing".to_owned());
        }
        let current = name.as_deref().and_then(version_of);
        let mut found = Found {
            journal: "unreadable".to_owned(),
            attempts: (String::new(), 0),
            current,
            quarantined: None,
            held: Vec::new(),
            violations,
        };
        match self.read_state() {
            Ok(state) => self.judge(scene, &state, name.as_deref(), &mut found),
            Err(error) => found.violations.push(format!("the state database cannot be read: {error}")),
        }
        found
    }

    /// What the database says. Read from a copy, so that the node finds it as the crash left it.
    fn read_state(&self) -> Result<State, StateError> {
        let copy = tempfile::tempdir().expect("a temporary directory");
        for file in state_files(&self.state()) {
            if let (Some(name), true) = (file.file_name(), file.exists()) {
                fs::copy(&file, copy.path().join(name)).expect("readable");
            }
        }
        let (state, directory) = (StateDb::open(&copy.path().join("state.db"))?, self.install_dir());
        let product = "app".parse().expect("a product");
        Ok(State {
            line: state.install(&directory)?,
            installed: state.installed(&directory)?,
            quarantined: state.quarantined(Some(&directory))?.into_iter().map(|row| row.artifact).collect(),
            held: state.holds(&directory, &product)?.into_iter().filter_map(|(version, _)| version).collect(),
        })
    }

    /// Holds what the database says against the link, the starts and itself.
    fn judge(&self, scene: Scene, state: &State, current: Option<&str>, found: &mut Found) {
        let violations = &mut found.violations;
        found.held = state.held.iter().map(ToString::to_string).collect();
        let line = state.line.as_ref();
        found.journal = line.map_or_else(|| "none".to_owned(), |line| line.state.clone());
        let steps_aside = ["armed", "switched", "probation", "rolling_back"].contains(&found.journal.as_str());
        let installed = state.installed.as_ref().map(|row| row.release_dir.as_str());
        if installed.is_some() && installed != current && !steps_aside {
            violations.push(format!("the journal ({}) says {installed:?}, `current` says {current:?}", found.journal));
        }
        if let Some(row) =
            state.installed.as_ref().filter(|row| [ILL, LOOPING].contains(&&*row.release.version.to_string()))
        {
            violations.push(format!("{} never proved itself and is called installed", row.release.version));
        }
        let Some(line) = line else { return };
        found.attempts = (line.txn.clone(), line.attempts);
        let left = line.from.as_ref();
        if line.txn.starts_with("failure-")
            && let Some(left) = left
        {
            if state.quarantined.contains(&left.artifact) {
                found.quarantined = Some(left.version.to_string());
            } else {
                violations.push(format!("{} failed ({}) and is not quarantined", left.version, found.journal));
            }
        }
        if line.txn.starts_with("rollback-")
            && scene.holds().is_some()
            && let Some(left) = left.filter(|left| !state.held.contains(&left.version))
        {
            violations.push(format!("{} was left by hand ({}) and is not held", left.version, found.journal));
        }
        for bad in [ILL, LOOPING] {
            let begun = self.begun(bad);
            let is_its_line = line.to.as_ref().is_some_and(|to| to.version.to_string() == bad);
            let counted = if is_its_line { line.attempts } else { MAX_ATTEMPTS };
            if begun > usize::try_from(counted).unwrap_or(usize::MAX) {
                violations.push(format!("{bad} was started {begun} times, {counted} are written down"));
            }
        }
    }
}

/// What a crash left of the state database, as far as it is looked at.
#[derive(Debug)]
struct State {
    line: Option<InstallRow>,
    installed: Option<InstalledRow>,
    quarantined: Vec<Digest>,
    held: Vec<Version>,
}

fn installed(status: &StatusView) -> Option<&str> {
    status.subscriptions.first()?.installed.as_deref()
}

/// Lets a release take the node with it as often as it may.
fn self_kills(site: &Site) {
    site.restore(Scene::Looping);
    for life in 1..=MAX_ATTEMPTS {
        let ended = site.run(Scene::Looping, Death::WhenDone, &Extra::default());
        let log = || fs::read_to_string(site.templates.with_file_name("log")).unwrap_or_default();
        assert_eq!(ended, Life::Killed, "life {life}: {}", log());
    }
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
        match removed {
            // A mount in it stays, and is empty.
            Err(error) if error.kind() != std::io::ErrorKind::ResourceBusy => {
                panic!("{} cannot be removed: {error}", path.display())
            }
            _ => {}
        }
    }
}
