//! The machine under any order of results, crashes and time, and its turns one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, ReleaseId};
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};

use super::super::effect::{Effect, EventKind, InstallEffect};
use super::*;

const DIRECTORY: &str = "/opt/app";

fn release(minor: u64) -> Arc<Release> {
    let path = format!("releases/app/1.{minor}.0/any/app.tar.zst");
    let (id, file_name) = ReleaseId::from_path(&path).expect("a release path");
    let digest = |what: &str| Digest::of(format!("{what} {minor}").as_bytes());
    Arc::new(Release {
        id,
        file_name,
        path,
        artifact: digest("artifact"),
        length: 8,
        format: Format::TarZst,
        content: Content { sha256: digest("content"), length: 100, entries: 3 },
        manifest: ManifestRef { sha256: digest("manifest"), length: 64 },
        channels: [Channel::stable()].into(),
        min_from: None,
        notes: Notes::None,
        critical: false,
    })
}

fn spec() -> SubscriptionSpec {
    SubscriptionSpec {
        product: "app".parse().expect("a name"),
        channel: Channel::stable(),
        directory: Some(DIRECTORY.to_owned()),
    }
}

fn trial() -> Trial {
    let health = Health {
        check: Check::Http("http://127.0.0.1:1/".to_owned()),
        interval_ms: 1_000,
        timeout_ms: 500,
        successes: 2,
        failures: 2,
        probation_ms: 10_000,
    };
    let starter = Starter::Command(vec!["/bin/start".to_owned()]);
    Trial { activation: Some(Activation { starter, timeout_ms: 5_000 }), health: Some(health), max_attempts: 3 }
}

/// Something that a shell is busy with.
#[derive(Debug, Clone)]
enum Open {
    Stage(String),
    Switch(String, String),
    /// With the time at which it was asked.
    Activate(String, u64),
    Check(String, u32),
}

/// How a shell answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
    Place,
    Moment,
}

/// A disk, a planner that always wants the newest release, and shells that answer when they are told to.
struct World {
    subscription: Subscription,
    trial: Trial,
    newest: u64,
    now_ms: u64,
    open: Vec<Open>,
    current: Option<String>,
    journal: Option<JournalEntry>,
    installed: Option<Installed>,
    previous: Option<Installed>,
    quarantine: BTreeMap<Digest, String>,
    /// Time that passed in probation since a transaction entered it, as far as anybody watched.
    watched_ms: u64,
    /// Starts of each transaction on its way forward.
    starts: BTreeMap<String, u32>,
    ends: Vec<EventKind>,
    last_check: Option<bool>,
    transactions: u64,
    restarts: u32,
}

impl World {
    fn new(trial: Trial) -> Self {
        let found = Recovered { trial: trial.clone(), ..Recovered::default() };
        let (subscription, effects) = Subscription::restore(spec(), found, 0);
        assert!(effects.is_empty());
        Self {
            subscription,
            trial,
            newest: 0,
            now_ms: 0,
            open: Vec::new(),
            current: None,
            journal: None,
            installed: None,
            previous: None,
            quarantine: BTreeMap::new(),
            watched_ms: 0,
            starts: BTreeMap::new(),
            ends: Vec::new(),
            last_check: None,
            transactions: 0,
            restarts: 0,
        }
    }

    /// Carries out effects, the first `most` of them: a crash swallows the others.
    fn carry_out(&mut self, effects: Vec<Effect>, most: usize) {
        for effect in effects.into_iter().take(most) {
            match effect {
                Effect::Journal(line) => self.write(*line),
                Effect::Install(InstallEffect::Stage { transaction, .. }) => self.open.push(Open::Stage(transaction)),
                Effect::Install(InstallEffect::Switch { transaction, release_dir, .. }) => {
                    self.open.push(Open::Switch(transaction, release_dir));
                }
                Effect::Install(InstallEffect::Activate { transaction, .. }) => {
                    if self.subscription.state == InstallState::Switched {
                        *self.starts.entry(transaction.clone()).or_default() += 1;
                    }
                    self.open.push(Open::Activate(transaction, self.now_ms));
                }
                Effect::Install(InstallEffect::Check { transaction, number, .. }) => {
                    self.open.push(Open::Check(transaction, number));
                }
                Effect::Event(event) => self.ends.push(event.kind),
                _ => {}
            }
        }
    }

    fn write(&mut self, line: JournalEntry) {
        let anew = self.journal.as_ref().is_none_or(|old| old.transaction != line.transaction);
        if anew {
            self.watched_ms = 0;
        }
        if let Some(outcome) = &line.outcome {
            if outcome.kind == EventKind::Installed && self.trial.health.is_some() {
                assert!(self.watched_ms >= 10_000, "a success was reported {} ms into probation", self.watched_ms);
                assert_eq!(self.last_check, Some(true), "a success was reported without a healthy check");
            }
            if let Some((installed, previous)) = &outcome.installed {
                assert_eq!(self.current.as_ref(), Some(&installed.release_dir), "what is installed does not run");
                self.installed = Some(installed.clone());
                self.previous = previous.clone();
            }
            if let Some((artifact, reason)) = &outcome.quarantine {
                self.quarantine.insert(*artifact, reason.clone());
            }
        }
        self.journal = Some(line);
    }

    /// What the planner does once a second.
    fn plan(&mut self) {
        let wanted = release(self.newest);
        let has = self.subscription.installed.as_ref().is_some_and(|installed| installed.version >= wanted.id.version);
        let barred = self.subscription.quarantine.contains_key(&wanted.artifact)
            || self.subscription.holds.of(&wanted.id.version).is_some();
        let effects = if self.newest == 0 || has || barred {
            self.subscription.abandon()
        } else {
            self.transactions += 1;
            self.subscription.pursue(&wanted, format!("t{}", self.transactions), self.now_ms)
        };
        self.carry_out(effects, usize::MAX);
        let effects = self.subscription.artifact_complete(&wanted.artifact);
        self.carry_out(effects, usize::MAX);
    }

    fn answer(&mut self, index: usize, answer: Answer, most: usize) {
        if self.open.is_empty() {
            return;
        }
        let open = self.open.remove(index % self.open.len());
        let failure = |fault| Err(StepFailure { reason: "it broke".to_owned(), fault });
        let result = match answer {
            Answer::Good => Ok(()),
            Answer::Bad => failure(Fault::Release),
            Answer::Place => failure(Fault::Place),
            Answer::Moment => failure(Fault::Moment),
        };
        let effects = match open {
            Open::Stage(transaction) => self.subscription.staged(&transaction, result, self.now_ms),
            Open::Switch(transaction, release_dir) => {
                // A tree that was unpacked is there.
                let result = if answer == Answer::Bad { failure(Fault::Place) } else { result };
                if result.is_ok() {
                    self.current = Some(release_dir);
                }
                self.subscription.switch_ended(&transaction, result, self.now_ms)
            }
            Open::Activate(transaction, _) => {
                if answer == Answer::Place
                    && let Some(count) = self.starts.get_mut(&transaction)
                {
                    // Its line could not be written, so it was not started.
                    *count = count.saturating_sub(1);
                }
                self.subscription.activated(&transaction, result, self.now_ms)
            }
            Open::Check(transaction, number) => {
                self.last_check = Some(answer == Answer::Good);
                let result = result.map_err(|failure| failure.reason);
                self.subscription.checked(&transaction, number, result, self.now_ms)
            }
        };
        self.carry_out(effects, most);
        if most < usize::MAX {
            self.restart();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        if self.subscription.state == InstallState::Probation {
            self.watched_ms += ms.min(5_000);
        }
        // A shell ends what it runs at its deadline; that its answer gets lost is the machine's to see.
        let given_up_ms = self.now_ms.saturating_sub(5_000 + WATCHDOG_MS);
        self.open.retain(|open| !matches!(open, Open::Activate(_, asked_ms) if *asked_ms <= given_up_ms));
        let effects = self.subscription.tick(self.now_ms);
        self.carry_out(effects, usize::MAX);
    }

    /// Kills the node and starts it again: what shells were busy with is over, done or not.
    fn restart(&mut self) {
        self.restarts += 1;
        for open in std::mem::take(&mut self.open) {
            if let Open::Switch(_, release_dir) = open
                && self.restarts.is_multiple_of(2)
            {
                self.current = Some(release_dir);
            }
        }
        self.last_check = None;
        // Monotonic time starts anew.
        self.now_ms = 0;
        let found = Recovered {
            journal: self.journal.clone().map(|line| JournalEntry { outcome: None, ..line }),
            installed: self.installed.clone(),
            previous: self.previous.clone(),
            current: self.current.clone(),
            quarantine: self.quarantine.clone(),
            holds: self.subscription.holds.clone(),
            trial: self.trial.clone(),
            runs: false,
        };
        let (subscription, effects) = Subscription::restore(spec(), found, self.now_ms);
        self.subscription = subscription;
        self.carry_out(effects, usize::MAX);
    }

    fn check(&self) {
        let working = self.open.iter().filter(|open| !matches!(open, Open::Stage(_) | Open::Check(..))).count();
        assert!(working <= 1, "two goals at once: {:?}", self.open);
        for (transaction, count) in &self.starts {
            assert!(*count <= self.trial.max_attempts, "{transaction} was started {count} times");
        }
        if let Some(installed) = self.installed.as_ref().filter(|_| !self.subscription.is_busy()) {
            let runs = self.current.as_ref() == Some(&installed.release_dir);
            let armed = self.subscription.state == InstallState::Verified;
            assert!(
                runs || armed,
                "{:?} runs, {installed:?} is installed, {:?}",
                self.current,
                self.subscription.state
            );
        }
    }

    /// Lets everything come to rest, with shells that answer so.
    fn settle(&mut self, answer: Answer) {
        for _ in 0..2_000 {
            self.plan();
            while let Some(open) = self.open.first() {
                // A link that can never be swapped is waited for, for ever.
                let answer = if matches!(open, Open::Switch(..)) { Answer::Good } else { answer };
                self.answer(0, answer, usize::MAX);
            }
            self.pass(1_000);
            self.plan();
            let rests = matches!(
                self.subscription.state,
                InstallState::Idle | InstallState::Committed | InstallState::Quarantined
            );
            let waits = self.subscription.goal.is_some() || self.subscription.retry_at_ms > self.now_ms;
            if rests && !waits && self.open.is_empty() {
                return;
            }
        }
        panic!("it never comes to rest: {:#?}", self.subscription);
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Publish,
    Plan,
    Answer(usize, Answer),
    CrashIn(usize, Answer, usize),
    Pass(u64),
    Restart,
    RollBack,
    Retry,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let answer = || prop_oneof![6 => Just(Answer::Good), 2 => Just(Answer::Bad), 1 => Just(Answer::Place), 1 => Just(Answer::Moment)];
    let time = prop_oneof![6 => 1_u64..2_000, 1 => Just(20_000), 1 => Just(u64::MAX / 1_000_000)];
    let turn = prop_oneof![
        1 => Just(Turn::Publish),
        4 => Just(Turn::Plan),
        12 => (0_usize..4, answer()).prop_map(|(index, answer)| Turn::Answer(index, answer)),
        2 => (0_usize..4, answer(), 0_usize..4).prop_map(|(index, answer, most)| Turn::CrashIn(index, answer, most)),
        8 => time.prop_map(Turn::Pass),
        1 => Just(Turn::Restart),
        1 => Just(Turn::RollBack),
        1 => Just(Turn::Retry),
    ];
    proptest::collection::vec(turn, 0..120)
}

fn play(world: &mut World, turns: Vec<Turn>) {
    for turn in turns {
        match turn {
            Turn::Publish => world.newest += 1,
            Turn::Plan => world.plan(),
            Turn::Answer(index, answer) => world.answer(index, answer, usize::MAX),
            Turn::CrashIn(index, answer, most) => world.answer(index, answer, most),
            Turn::Pass(ms) => world.pass(ms),
            Turn::Restart => world.restart(),
            Turn::RollBack => {
                world.transactions += 1;
                let name = format!("t{}", world.transactions);
                if let Ok(effects) = world.subscription.roll_back(None, &[], true, name) {
                    world.carry_out(effects, usize::MAX);
                }
            }
            Turn::Retry => {
                let effects = world.subscription.retry(false);
                world.quarantine.clear();
                world.carry_out(effects, usize::MAX);
            }
        }
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_it_comes_to_rest_and_never_reports_a_success_too_early(turns in turns(), good in any::<bool>()) {
        let mut world = World::new(trial());
        play(&mut world, turns);
        world.settle(if good { Answer::Good } else { Answer::Bad });
        world.check();
        if good {
            // Once nothing breaks any more, the next release is installed without anybody's help.
            world.newest += 1;
            world.settle(Answer::Good);
            prop_assert_eq!(world.subscription.state, InstallState::Committed);
            let newest = world.newest;
            let installed = world.installed.map(|installed| installed.version);
            prop_assert_eq!(installed, Some(Version::new(1, newest, 0)));
        }
    }

    #[test]
    fn an_install_without_a_trial_is_never_taken_back_by_itself(turns in turns()) {
        let mut world = World::new(Trial::default());
        let by_hand = turns.iter().any(|turn| matches!(turn, Turn::RollBack));
        play(&mut world, turns);
        world.settle(Answer::Good);
        prop_assert!(by_hand || !world.ends.contains(&EventKind::RolledBack));
    }
}

/// A world in which 1.1.0 is installed and 1.2.0 is offered.
fn with_one_installed() -> World {
    let mut world = World::new(trial());
    world.newest = 1;
    world.settle(Answer::Good);
    assert_eq!(world.subscription.state, InstallState::Committed);
    world.newest = 2;
    world
}

/// Answers well until the subscription is in `state`.
fn reach(world: &mut World, state: InstallState) {
    for _ in 0..20 {
        if world.subscription.state == state {
            return;
        }
        world.plan();
        world.answer(0, Answer::Good, usize::MAX);
    }
    panic!("{state:?} is not reached: {:?}", world.subscription);
}

#[test]
fn a_release_that_does_not_start_goes_and_is_quarantined_by_its_hash() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Switched);
    world.answer(0, Answer::Bad, usize::MAX);
    assert_eq!(world.subscription.state, InstallState::RollingBack);
    assert!(world.quarantine.contains_key(&release(2).artifact), "it is on disk before anything is switched back");
    world.answer(0, Answer::Good, usize::MAX);
    assert!(matches!(world.open[..], [Open::Activate(..)]), "the old release is started again");
    world.answer(0, Answer::Good, usize::MAX);
    assert_eq!(world.subscription.state, InstallState::Quarantined);
    assert_eq!(world.installed.as_ref().map(|installed| installed.version.clone()), Some(Version::new(1, 1, 0)));
    assert!(world.ends.ends_with(&[EventKind::InstallFailed, EventKind::RolledBack]), "{:?}", world.ends);
    world.settle(Answer::Good);
    assert_eq!(world.subscription.state, InstallState::Quarantined, "it is not tried again by itself");
}

#[test]
fn a_first_install_that_fails_stays_in_place_and_is_not_called_installed() {
    let mut world = World::new(trial());
    world.newest = 1;
    reach(&mut world, InstallState::Switched);
    world.answer(0, Answer::Bad, usize::MAX);
    assert_eq!((world.subscription.state, &world.installed), (InstallState::Quarantined, &None));
    assert!(world.current.is_some(), "current does not dangle");
    assert!(world.subscription.reason.contains("no release to go back to"), "{}", world.subscription.reason);
    world.restart();
    assert_eq!(world.subscription.state, InstallState::Quarantined);
    world.newest = 2;
    world.settle(Answer::Good);
    assert_eq!(world.subscription.state, InstallState::Committed, "the next release takes its place");
}

#[test]
fn a_release_that_takes_the_node_with_it_is_given_up() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Probation);
    for _ in 0..2 {
        world.restart();
        reach(&mut world, InstallState::Probation);
    }
    world.restart();
    assert_eq!(world.subscription.state, InstallState::RollingBack);
    assert!(world.subscription.reason.contains("started 3 times"), "{}", world.subscription.reason);
}

#[test]
fn a_newer_release_waits_for_the_end_of_probation_and_takes_over_before_it() {
    let mut world = with_one_installed();
    world.plan();
    assert_eq!(world.subscription.pursued(), Some(release(2).artifact));
    world.newest = 3;
    world.plan();
    assert_eq!(world.subscription.pursued(), Some(release(3).artifact), "nothing was switched yet");
    reach(&mut world, InstallState::Probation);
    world.newest = 4;
    world.plan();
    assert_eq!(world.subscription.pursued(), Some(release(3).artifact), "what is on probation ends first");
    world.settle(Answer::Good);
    assert_eq!(world.installed.map(|installed| installed.version), Some(Version::new(1, 4, 0)));
}

#[test]
fn a_place_without_room_is_looked_at_again_and_a_newer_release_takes_over_there() {
    let mut world = with_one_installed();
    world.plan();
    world.answer(0, Answer::Place, usize::MAX);
    let shortage = world.subscription.shortage().expect("it says so");
    assert_eq!((shortage.artifact, shortage.reason), (&release(2).artifact, "it broke"));
    let until_ms = shortage.until_ms;
    assert_eq!(world.subscription.state, InstallState::Verified);
    world.pass(1_000);
    assert!(world.open.is_empty(), "it is no busy loop");
    world.pass(until_ms - world.now_ms);
    assert!(matches!(world.open[..], [Open::Stage(_)]));
    world.answer(0, Answer::Place, usize::MAX);
    let told = world.ends.iter().filter(|kind| **kind == EventKind::InstallPostponed).count();
    assert_eq!(told, 1, "people are told once");
    world.newest = 3;
    world.settle(Answer::Good);
    assert_eq!(world.installed.map(|installed| installed.version), Some(Version::new(1, 3, 0)));
}

#[test]
fn an_operator_goes_back_to_any_kept_release_and_what_is_left_is_held() {
    let mut world = with_one_installed();
    world.settle(Answer::Good);
    world.newest = 3;
    world.settle(Answer::Good);
    let kept = |minor: u64| Installed {
        version: Version::new(1, minor, 0),
        artifact: release(minor).artifact,
        release_dir: release_dir(&release(minor)),
    };
    let refused = |refusal: Result<Vec<Effect>, Refusal>| refusal.map(drop).expect_err("refused").to_string();
    let back = |world: &mut World, minor| {
        world.subscription.roll_back(Some(&Version::new(1, minor, 0)), &[kept(1)], true, "back".to_owned())
    };
    assert!(refused(back(&mut world, 3)).contains("is what runs here"));
    assert!(refused(back(&mut world, 9)).ends_with("these are: 1.1.0, 1.2.0"));
    let effects = back(&mut world, 1).expect("it is kept");
    world.carry_out(effects, usize::MAX);
    world.settle(Answer::Good);
    assert_eq!(world.current, Some(kept(1).release_dir));
    assert_eq!(world.previous, Some(kept(3)));
    assert_eq!(world.subscription.state, InstallState::Quarantined);
    assert!(world.subscription.holds.of(&Version::new(1, 3, 0)).is_some());
    assert!(world.quarantine.is_empty(), "a person's word is no verdict about the artifact");
}

#[test]
fn an_operator_ends_a_probation() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Probation);
    let effects = world.subscription.roll_back(None, &[], true, "back".to_owned()).expect("on probation");
    world.open.clear();
    world.carry_out(effects, usize::MAX);
    assert_eq!(world.subscription.state, InstallState::RollingBack);
    world.settle(Answer::Good);
    assert_eq!(world.installed.map(|installed| installed.version), Some(Version::new(1, 1, 0)));
    assert!(world.subscription.holds.of(&Version::new(1, 2, 0)).is_some());
}

#[test]
fn a_node_in_the_unit_that_it_restarts_takes_its_own_start_for_the_restart() {
    let mut world = with_one_installed();
    world.trial.activation =
        Some(Activation { starter: Starter::Unit("updraft.service".to_owned()), timeout_ms: 5_000 });
    world.restart();
    reach(&mut world, InstallState::Switched);
    let found = Recovered {
        journal: world.journal.clone(),
        installed: world.installed.clone(),
        current: world.current.clone(),
        trial: world.trial.clone(),
        runs: true,
        ..Recovered::default()
    };
    let (subscription, _) = Subscription::restore(spec(), found, 0);
    assert_eq!(subscription.state, InstallState::Probation);
}

/// What a node that is what the subscription starts finds when it was started.
fn found_by_itself(world: &World) -> Recovered {
    Recovered {
        journal: world.journal.clone().map(|line| JournalEntry { outcome: None, ..line }),
        installed: world.installed.clone(),
        previous: world.previous.clone(),
        current: world.current.clone(),
        trial: world.trial.clone(),
        runs: true,
        ..Recovered::default()
    }
}

/// A world in which the node is what is installed, and may be started once for each release.
fn with_itself_installed() -> World {
    let mut world = with_one_installed();
    world.trial.activation = Some(Activation { starter: Starter::Node, timeout_ms: 5_000 });
    world.trial.max_attempts = 1;
    world.restart();
    world
}

#[test]
fn the_start_of_a_node_that_is_what_it_installs_is_counted_once() {
    let mut world = with_itself_installed();
    reach(&mut world, InstallState::Switched);
    let (subscription, effects) = Subscription::restore(spec(), found_by_itself(&world), 0);
    assert_eq!(subscription.state, InstallState::Probation, "{subscription:?}");
    world.open.clear();
    world.subscription = subscription;
    world.carry_out(effects, usize::MAX);
    // The next one is one too many.
    let (subscription, _) = Subscription::restore(spec(), found_by_itself(&world), 0);
    assert_eq!(subscription.state, InstallState::RollingBack, "{subscription:?}");
}

#[test]
fn a_node_that_was_put_back_needs_no_start() {
    let mut world = with_itself_installed();
    reach(&mut world, InstallState::Switched);
    world.open.clear();
    world.current = world.installed.as_ref().map(|installed| installed.release_dir.clone());
    let (subscription, effects) = Subscription::restore(spec(), found_by_itself(&world), 0);
    world.subscription = subscription;
    world.carry_out(effects, usize::MAX);
    let (subscription, effects) = Subscription::restore(spec(), found_by_itself(&world), 0);
    world.subscription = subscription;
    world.open.clear();
    world.carry_out(effects, usize::MAX);
    world.answer(0, Answer::Good, usize::MAX);
    assert_eq!(world.subscription.state, InstallState::Quarantined, "{:?}", world.subscription);
    let text = world.subscription.ended.as_ref().map(|end| end.text.clone()).expect("it ended");
    assert!(text.contains("was put back") && !text.contains("could not be started"), "{text}");
    assert_eq!(world.subscription.left.as_ref().map(|left| left.artifact), Some(release(2).artifact));
}

#[test]
fn a_link_that_was_put_back_while_the_node_was_down_is_a_verdict() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Probation);
    world.current = world.installed.as_ref().map(|installed| installed.release_dir.clone());
    world.restart();
    assert_eq!(world.subscription.state, InstallState::RollingBack);
    world.settle(Answer::Good);
    assert!(is_at(&world, 1), "it is not switched to again");
    assert!(world.quarantine.contains_key(&release(2).artifact));
}

#[test]
fn what_a_launcher_went_back_from_after_its_probation_is_not_called_installed() {
    let mut world = with_one_installed();
    world.newest = 2;
    world.plan();
    world.settle(Answer::Good);
    assert!(is_at(&world, 2));
    world.current = world.previous.as_ref().map(|previous| previous.release_dir.clone());
    world.restart();
    world.settle(Answer::Good);
    assert!(is_at(&world, 1), "{:?}", world.subscription);
    assert!(world.quarantine.contains_key(&release(2).artifact));
    assert_eq!(world.ends.last(), Some(&EventKind::RolledBack));
}

fn is_at(world: &World, minor: u64) -> bool {
    world.installed.as_ref().is_some_and(|installed| installed.version == Version::new(1, minor, 0))
}
