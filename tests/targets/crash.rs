//! The crash campaign: real nodes that install, killed at every step they take and at any instant,
//! and on disks that lose power. They install with and without a trial: releases that are healthy, that are ill,
//! and that take the node with them; they go back by themselves and by an operator's word.
//!
//! After each crash `current` leads to a complete release whose every byte was signed, what the journal
//! calls installed is installed, and the node goes on by itself to where it was going. An ordinary run
//! kills some 520 times in the middle of something; `UPDRAFT_CRASH_KILLS=10000 cargo test -p updraft-tests --test crash -- --nocapture`
//! kills as often as it says. `UPDRAFT_CRASH_SEED` repeats the choices of a run that failed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use updraft_protocol::digest::Digest;
use updraft_tests::cluster::tree;
use updraft_tests::crash::campaign::{Story, Tally, sweep};
use updraft_tests::crash::power::{Disk, Left};
use updraft_tests::crash::scene::{Scene, VERSIONS};
use updraft_tests::crash::site::{Death, Extra, Life, Site};
use updraft_tests::crash::{Recorded, state_files};
use updraft_tests::process::{Program, differences, say};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_crash-node"));

/// Kills of an ordinary run.
const KILLS: u64 = 520;

/// Of so many, one is at an instant that no step marks.
const ONE_AT_ANY_INSTANT: u64 = 3;

/// Crashes in a row, before the node is left to end what it began.
const MOST_IN_A_ROW: u64 = 12;

/// Trees that are looked at for each recorded step, in memory.
const LOSSES_PER_STEP: usize = 40;

/// Trees after a power loss on which a real node is started.
const NODES_AFTER_LOSS: usize = 24;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

fn kills_asked() -> u64 {
    number("UPDRAFT_CRASH_KILLS", KILLS)
}

fn random_seed() -> u64 {
    number("UPDRAFT_CRASH_SEED", 0x0075_7064_7261_6674)
}

/// Dies over and over, each time going on from what the last crash left.
fn wander(site: &Site, steps: &BTreeMap<Scene, u64>, kills: u64, rng: &mut SmallRng, tally: &Tally) {
    while tally.kills() < kills {
        let scene = Scene::ALL[rng.random_range(0..Scene::ALL.len())];
        let longest_us = if scene.has_trial() { 800_000 } else { 400_000 };
        let mut story = Story::begin(site, scene, tally);
        for _ in 0..rng.random_range(1..=MOST_IN_A_ROW) {
            let death = if rng.random_range(0..ONE_AT_ANY_INSTANT) == 0 {
                Death::After(Duration::from_micros(rng.random_range(0..longest_us)))
            } else {
                Death::AtStep(rng.random_range(1..=steps[&scene]))
            };
            if story.crash(death) == Life::Done {
                break;
            }
        }
        story.end();
    }
}

/// The scenes of each of those that kill at the same time.
fn shares() -> [Vec<Scene>; 3] {
    [
        vec![Scene::First, Scene::Rollback, Scene::Return],
        vec![Scene::Upgrade, Scene::Collect, Scene::Unhold],
        vec![Scene::Trial, Scene::Ill, Scene::Looping, Scene::GivenUp],
    ]
}

#[test]
fn a_node_killed_anywhere_goes_on_and_current_is_always_whole() {
    let started = Instant::now();
    let kills = kills_asked();
    let tally = Tally::default();
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let prepare = |worker: usize| {
        let own = scratch.path().join(worker.to_string());
        Site::prepare(PROGRAM, &own, &own.join("home"))
    };
    let steps = std::thread::scope(|scope| {
        let workers: Vec<_> = shares()
            .into_iter()
            .enumerate()
            .map(|(worker, scenes)| {
                let tally = &tally;
                scope.spawn(move || {
                    let site = prepare(worker);
                    let steps: Vec<_> = scenes.into_iter().map(|scene| (scene, sweep(&site, scene, tally))).collect();
                    (site, steps)
                })
            })
            .collect();
        let swept: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        let steps: BTreeMap<Scene, u64> = swept.iter().flat_map(|(_, steps)| steps.iter().copied()).collect();
        for (worker, (site, _)) in swept.into_iter().enumerate() {
            let (tally, steps) = (&tally, steps.clone());
            let mut rng = SmallRng::seed_from_u64(random_seed() + worker as u64);
            scope.spawn(move || wander(&site, &steps, kills, &mut rng, tally));
        }
        steps
    });
    let (deaths, violations) = (tally.deaths(), tally.violations());
    say(&format!(
        "{} kills ({} of them right after a step, of {steps:?}), {} recoveries, {} violations, in {:.0} s; the journal stood at {deaths:?}",
        tally.kills(),
        tally.at_steps(),
        tally.recoveries(),
        violations.len(),
        started.elapsed().as_secs_f64()
    ));
    assert_eq!(violations, Vec::<String>::new());
    for (scene, state) in [
        (Scene::First, "verified"),
        (Scene::First, "armed"),
        (Scene::Upgrade, "verified"),
        (Scene::Upgrade, "armed"),
        (Scene::Upgrade, "switched"),
        (Scene::Upgrade, "committed"),
        (Scene::Rollback, "rolling_back"),
        (Scene::Trial, "armed"),
        (Scene::Trial, "switched"),
        (Scene::Trial, "probation"),
        (Scene::Ill, "switched"),
        (Scene::Ill, "probation"),
        (Scene::Ill, "rolling_back"),
        (Scene::Ill, "quarantined"),
        (Scene::Looping, "switched"),
        (Scene::Looping, "rolling_back"),
        (Scene::GivenUp, "rolling_back"),
        (Scene::Return, "rolling_back"),
        (Scene::Unhold, "probation"),
    ] {
        assert!(deaths.contains_key(&(scene, state.to_owned())), "no node died in {scene:?} at {state}: {deaths:?}");
    }
}

/// Everything below `root`, as a disk model takes it.
fn load(root: &Path) -> BTreeMap<PathBuf, Left> {
    tree(root)
        .into_keys()
        .map(|path| {
            let full = root.join(&path);
            let left = if full.is_symlink() {
                Left::Link(fs::read_link(&full).expect("a link"))
            } else if full.is_dir() {
                Left::Directory
            } else {
                Left::File(fs::read(&full).expect("readable"))
            };
            (path, left)
        })
        .collect()
}

/// Makes what is left of a disk in `root`.
fn store(root: &Path, left: &BTreeMap<PathBuf, Left>, modes: &BTreeMap<PathBuf, String>) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(root).expect("writable");
    for (path, left) in left {
        let full = root.join(path);
        match left {
            Left::Directory => fs::create_dir_all(&full).expect("writable"),
            Left::Link(target) => std::os::unix::fs::symlink(target, &full).expect("writable"),
            Left::File(bytes) => {
                fs::write(&full, bytes).expect("writable");
                // Releases are `releases/NAME/...`; modes are those of the entry.
                let inside: PathBuf = path.components().skip(2).collect();
                let executable = modes.get(&inside).is_some_and(|what| what.starts_with("file x"));
                let mode = if executable { 0o755 } else { 0o644 };
                fs::set_permissions(&full, fs::Permissions::from_mode(mode)).expect("writable");
            }
        }
    }
}

/// What [`tree`] would say of `prefix` in what is left, without modes: those are set before the bytes are
/// synced.
fn describe(left: &BTreeMap<PathBuf, Left>, prefix: &Path) -> BTreeMap<PathBuf, String> {
    left.iter()
        .filter_map(|(path, left)| {
            let relative = path.strip_prefix(prefix).ok().filter(|relative| !relative.as_os_str().is_empty())?;
            let what = match left {
                Left::Directory => "directory".to_owned(),
                Left::Link(target) => format!("link {}", target.display()),
                Left::File(bytes) => format!("file {}", Digest::of(bytes)),
            };
            Some((relative.to_owned(), what))
        })
        .collect()
}

fn without_modes(tree: &BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    tree.iter()
        .map(|(path, what)| (path.clone(), what.replacen("file x ", "file ", 1).replacen("file - ", "file ", 1)))
        .collect()
}

/// What is wrong with what is left after a power loss.
fn judge(site: &Site, scene: Scene, left: &BTreeMap<PathBuf, Left>, installed: Option<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let link = match left.get(Path::new("current")) {
        Some(Left::Link(target)) => Some(target.clone()),
        Some(other) => {
            wrong.push(format!("`current` is {other:?}"));
            None
        }
        None => None,
    };
    if link.is_none() && scene != Scene::First {
        wrong.push("`current` is missing".to_owned());
    }
    let releases = left.keys().filter(|path| path.starts_with("releases") && path.components().count() == 2);
    for release in releases {
        let version = release.file_name().and_then(|name| name.to_str()?.rsplit_once('-').map(|(version, _)| version));
        let Some(version) = version.filter(|version| VERSIONS.contains(version)) else {
            wrong.push(format!("{} is no release", release.display()));
            continue;
        };
        let differs = differences(&without_modes(site.expected(version)), &describe(left, release));
        if !differs.is_empty() {
            wrong.push(format!("{} is not what was signed: {differs:?}", release.display()));
        }
    }
    if let Some(link) = &link
        && left.get(link.as_path()) != Some(&Left::Directory)
    {
        wrong.push(format!("`current` leads to {}, which is not there", link.display()));
    }
    if let Some(installed) = installed {
        let expected = Path::new("releases").join(installed);
        if link.as_ref() != Some(&expected) {
            wrong.push(format!("{installed} was reported as installed, `current` says {link:?}"));
        }
    }
    wrong
}

/// What the database said was installed after a recorded transaction, if nothing was under way.
fn reported(site: &Site, state: &Path) -> Option<String> {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for name in ["state.db", "state.db-wal"] {
        if state.join(name).exists() {
            fs::copy(state.join(name), copy.path().join(name)).expect("readable");
        }
    }
    let database = updraft::store::state::StateDb::open(&copy.path().join("state.db")).expect("a database");
    let settled = ["idle", "fetching", "verified", "staged", "committed", "quarantined"];
    let row = database.install(&site.install_dir()).expect("readable");
    let installed = database.installed(&site.install_dir()).expect("readable");
    installed.filter(|_| row.is_none_or(|row| settled.contains(&row.state.as_str()))).map(|row| row.release_dir)
}

#[test]
fn a_power_cut_loses_nothing_that_was_reported() {
    let started = Instant::now();
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let site = Site::prepare(PROGRAM, scratch.path(), &scratch.path().join("home"));
    let mut rng = SmallRng::seed_from_u64(random_seed());
    let tally = Tally::default();
    let (mut trees, mut nodes, mut violations, mut without_syncs) = (0_u64, 0_u64, Vec::new(), 0_u64);
    for scene in Scene::PLAIN {
        let record = scratch.path().join(format!("steps-{scene:?}"));
        site.restore(scene);
        let before = load(&site.install_dir());
        let mut state = scratch.path().join(format!("before-{scene:?}"));
        fs::create_dir_all(&state).expect("writable");
        for file in state_files(&site.state()).iter().filter(|file| file.exists()) {
            fs::copy(file, state.join(file.file_name().expect("a file"))).expect("readable");
        }
        let extra = Extra { record: Some(record.clone()), ..Extra::default() };
        assert_eq!(site.run(scene, Death::WhenDone, &extra), Life::Done);
        let text = fs::read_to_string(&record).expect("a record");
        let steps: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).expect("a step")).collect();
        // The disk ends above the install directory, whose own name may be lost too.
        let mount = site.install_dir();
        let mut disk = Disk::holding(&mount, &before);
        // The same disk, had nobody ever synced.
        let mut careless = disk.clone();
        let mut installed = reported(&site, &state);
        for (at, step) in steps.iter().enumerate() {
            disk.take(step);
            if !step.step.starts_with("sync_") {
                careless.take(step);
            }
            if step.step == "committed" {
                state = record.with_extension(format!("state-{}", at + 1));
                installed = reported(&site, &state);
            }
            for _ in 0..LOSSES_PER_STEP {
                trees += 1;
                let lost = careless.after_power_loss(&mut rng);
                without_syncs += u64::from(!judge(&site, scene, &lost, installed.as_deref()).is_empty());
                let left = disk.after_power_loss(&mut rng);
                let wrong = judge(&site, scene, &left, installed.as_deref());
                let name = format!("{scene:?}, power lost after step {} ({})", at + 1, step.step);
                violations.extend(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
            }
        }
        // The model agrees with the disk, or it proves nothing.
        let (told, found) = (describe(&disk.as_seen(), Path::new("")), describe(&load(&mount), Path::new("")));
        let untold = differences(&found, &told);
        assert!(untold.is_empty(), "a step of {scene:?} was not told, or was told wrongly: {untold:#?}");
        for _ in 0..NODES_AFTER_LOSS / Scene::PLAIN.len() {
            let at = rng.random_range(0..steps.len());
            let mut disk = Disk::holding(&mount, &before);
            steps[..=at].iter().for_each(|step| disk.take(step));
            site.restore(scene);
            fs::remove_dir_all(&mount).or_else(ignore_missing).expect("removable");
            store(&mount, &disk.after_power_loss(&mut rng), site.expected(scene.target()));
            let last = steps[..=at].iter().rposition(|step| step.step == "committed");
            if let Some(last) = last {
                let kept = record.with_extension(format!("state-{}", last + 1));
                for (file, name) in state_files(&site.state()).iter().zip(["state.db", "state.db-wal"]) {
                    fs::remove_file(file).or_else(ignore_missing).expect("removable");
                    if kept.join(name).exists() {
                        fs::copy(kept.join(name), file).expect("writable");
                    }
                }
            }
            nodes += 1;
            Story::go_on(&site, scene, &tally, &format!("power lost after step {}", at + 1)).end();
        }
    }
    violations.extend(tally.violations());
    let (seconds, wrong) = (started.elapsed().as_secs_f64(), violations.len());
    say(&format!(
        "{trees} power cuts, {nodes} nodes started after one, {wrong} violations ({without_syncs} if nobody synced), in {seconds:.0} s"
    ));
    assert!(without_syncs > trees / 50, "a disk without syncs loses next to nothing: this test looks at nothing");
    violations.truncate(20);
    assert_eq!(violations, Vec::<String>::new());
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
