//! Disks that take no more, file systems that turn read-only and directories that may not be written any
//! more, each in the middle of an install, of a trial, of the way back: the peer says what is wrong and what
//! to do, waits, and goes on by itself once that is seen to. Nobody starts it again, and nothing that it knew
//! is lost. Small disks are tmpfs: without the right to mount, the tests say `skipped` and pass.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use updraft::control::views::{StatusView, SubscriptionState};
use updraft_tests::cluster::has_installed;
use updraft_tests::crash::campaign::{Story, Tally};
use updraft_tests::crash::scene::Scene;
use updraft_tests::crash::site::Site;
use updraft_tests::crash::trouble::{Seen, SmallDisk, Trouble, fill};
use updraft_tests::forge::noise;
use updraft_tests::process::{Node, Program, say, seed, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_crash-node"));

/// More than the installer asks for, so that it begins.
const DISK_MIB: u64 = 40;

/// Of the steps, an ordinary run takes so many a scene; all of them where more kills are asked for.
const STEPS_OF_A_SCENE: u64 = 7;

/// Every how many steps there is trouble.
fn stride(steps: u64) -> u64 {
    let all = std::env::var_os("UPDRAFT_CRASH_KILLS").is_some();
    if all { 1 } else { steps.div_ceil(STEPS_OF_A_SCENE).max(1) }
}

/// Plays scenes with a trouble at one step after another, and returns what was seen.
fn play(site: &Site, scenes: &[Scene], trouble: Trouble, directory: &Path, tally: &Tally) -> Vec<Seen> {
    let mut all = Vec::new();
    for scene in scenes {
        let first = if scene.has_trial() && scene.unpacks() { site.steps_until_unpacked(*scene) } else { 1 };
        // How many there are is found out on the way; the scenes are about as long as each other.
        let stride = stride(if scene.unpacks() && !scene.has_trial() { 56 } else { 14 });
        for step in (first..).step_by(usize::try_from(stride).expect("small")) {
            let seen = site.play_with_trouble(*scene, step, trouble, directory);
            Story::go_on(site, *scene, tally, &format!("{trouble:?} after step {step}")).ended();
            if !seen.made {
                break;
            }
            all.push(seen);
        }
    }
    all
}

/// All of it went on without a violation, and somebody who looked knew why it waited.
fn judge(all: &[Seen], tally: &Tally, least: usize, words: &[&str]) {
    let waited: Vec<&Seen> = all.iter().filter(|seen| seen.waited).collect();
    let knew = |seen: &&&Seen| seen.said.iter().any(|text| words.iter().any(|word| text.contains(word)));
    let told = waited.iter().filter(knew).count();
    say(&format!(
        "{} troubles, {} of which a peer waited for, {told} of these said so; {} violations",
        all.len(),
        waited.len(),
        tally.violations().len()
    ));
    assert_eq!(tally.violations(), Vec::<String>::new());
    assert!(all.len() >= least && told >= least / 2, "only {} troubles, {told} told: {all:#?}", all.len());
}

#[test]
fn a_disk_that_fills_at_any_step_is_waited_for_without_a_restart() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let tally = Tally::default();
    let shares =
        [vec![Scene::Upgrade, Scene::Return], vec![Scene::First, Scene::Unhold], vec![Scene::Ill, Scene::Trial]];
    let all: Vec<Seen> = std::thread::scope(|scope| {
        let workers: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(worker, scenes)| {
                let (own, tally) = (scratch.path().join(worker.to_string()), &tally);
                scope.spawn(move || {
                    let home = own.join("small");
                    let disk = SmallDisk::mount(&home, DISK_MIB)?;
                    let site = Site::prepare(PROGRAM, &own, &home);
                    Some(play(&site, scenes, Trouble::Full, disk.path(), tally))
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("no panic")).flatten().collect()
    });
    if !all.is_empty() {
        judge(&all, &tally, 20, &["room"]);
    }
}

#[test]
fn a_file_system_that_turns_read_only_is_waited_for_without_a_restart() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let home = scratch.path().join("home");
    // The peer's own directory is elsewhere, so that this one can be turned over.
    let Some(disk) = SmallDisk::mount(&home.join("apps"), DISK_MIB) else { return };
    let site = Site::prepare(PROGRAM, scratch.path(), &home);
    let tally = Tally::default();
    let all = play(&site, &[Scene::Upgrade, Scene::Ill, Scene::Return], Trouble::ReadOnly, disk.path(), &tally);
    judge(&all, &tally, 4, &["ead-only"]);
}

/// The id of a user, and a group, without rights.
const NOBODY: u32 = 65_534;

/// The program as a user who may not do everything: `root` is never refused. `None` where nobody else can be
/// had.
fn as_nobody(scratch: &Path) -> Option<Program> {
    let own = scratch.join("crash-node");
    if fs::hard_link(PROGRAM.0, &own).is_err() {
        fs::copy(PROGRAM.0, &own).expect("a copy of the program");
    }
    if !rustix::process::geteuid().is_root() {
        return Some(PROGRAM);
    }
    let start = scratch.join("as-nobody");
    let drop = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --");
    write(&start, format!("#!/bin/sh\nexec {drop} {} \"$@\"\n", own.display()));
    for directory in [scratch, &start] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).expect("our own");
    }
    let tried = std::process::Command::new(&start).arg("--version").output();
    if !tried.as_ref().is_ok_and(|ended| ended.status.success()) {
        say(&format!("skipped: nobody else can be had: {tried:?}"));
        return None;
    }
    Some(Program(Box::leak(start.to_str().expect("a plain name").to_owned().into_boxed_str())))
}

#[test]
fn a_directory_that_may_not_be_written_any_more_is_waited_for_without_a_restart() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let Some(program) = as_nobody(scratch.path()) else { return };
    let home = scratch.path().join("home");
    fs::create_dir_all(&home).expect("writable");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    }
    let site = Site::prepare(program, scratch.path(), &home);
    let tally = Tally::default();
    let directory = site.install_dir();
    let all = play(&site, &[Scene::Upgrade, Scene::Ill, Scene::Return], Trouble::Forbidden, &directory, &tally);
    judge(&all, &tally, 8, &["the user that the node runs as"]);
}

/// A peer whose directories are on a disk of their own, of which so many KiB are free from now on.
struct Tight {
    disk: SmallDisk,
    peer: Node,
    free_kib: u64,
}

impl Tight {
    fn new(scratch: &Path, ticket: &str, free_kib: u64) -> Option<Self> {
        let own = scratch.join(format!("{free_kib}-kib"));
        let disk = SmallDisk::mount(&own, 2 * DISK_MIB)?;
        let subscription = format!("app={}", Self::install_dir(&own).display());
        let arguments = ["peer", "--join", ticket, "--subscribe", &subscription];
        let peer = Node::start(PROGRAM, &own.join("peer"), arguments);
        peer.until("the catalog", |status| !status.subscriptions.is_empty());
        Some(Self { disk, peer, free_kib })
    }

    fn install_dir(own: &Path) -> PathBuf {
        own.join("apps/app")
    }

    fn fill(&self) {
        let found = rustix::fs::statvfs(self.disk.path()).expect("it is mounted");
        let free = found.f_bavail * found.f_frsize;
        fill(&self.disk.path().join("filler"), free.saturating_sub(self.free_kib << 10));
    }
}

/// What a peer says of its trouble; `None` while it says nothing of the kind.
fn complaint(status: &StatusView) -> Option<String> {
    let subscription = status.subscriptions.first()?;
    let waits = subscription.state != SubscriptionState::Committed;
    let mut texts = subscription.reason.iter().chain(&status.warnings).filter(|_| waits);
    texts.find(|text| text.contains("room") || text.contains("free some space")).cloned()
}

#[test]
fn a_peer_goes_on_by_itself_however_much_of_its_disk_was_missing() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut seed = seed(PROGRAM, scratch.path());
    let ticket = seed.ticket(&[]);
    // From nothing at all to a little less than the installer asks for.
    let levels = [0, 64, 1_024, 3_000, 8_000, 20_000];
    let tight: Option<Vec<Tight>> =
        levels.into_iter().map(|free_kib| Tight::new(scratch.path(), &ticket, free_kib)).collect();
    let Some(mut tight) = tight else { return };
    tight.iter().for_each(Tight::fill);
    let source = scratch.path().join("source");
    for number in 0..40 {
        write(&source.join(format!("part-{number}")), noise(&format!("part {number}"), 100_000));
    }
    seed.json(["publish", source.to_str().expect("a plain name"), "--product", "app", "--version", "1.0.0"]);
    for one in &tight {
        let status = one.peer.until("a complaint", |status| complaint(status).is_some());
        let said = complaint(&status).unwrap_or_default();
        say(&format!("{} KiB free: {said}", one.free_kib));
        let install_dir = Tight::install_dir(one.disk.path());
        assert!(!install_dir.join("current").exists(), "nothing is installed");
        let trees = fs::read_dir(install_dir.join("releases")).map_or(0, Iterator::count);
        assert_eq!(trees, 0, "nothing is half installed");
    }
    for one in &tight {
        fs::remove_file(one.disk.path().join("filler")).expect("removable");
    }
    for one in &mut tight {
        one.peer.until("1.0.0", |status| has_installed(status, "1.0.0"));
        let current = Tight::install_dir(one.disk.path()).join("current");
        let expected = updraft_tests::cluster::tree(&source);
        let wrong = updraft_tests::process::differences(&expected, &updraft_tests::cluster::tree(&current));
        assert!(wrong.is_empty(), "{} KiB: {wrong:?}", one.free_kib);
        // What it could not write down then is on disk now: the seed hears of it, and a restart finds it.
        one.peer.kill();
        one.peer.start_again();
        one.peer.until("1.0.0 after a restart", |status| has_installed(status, "1.0.0"));
    }
    seed.terminate();
}
