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
    /// A step that is not taken, since the journal line before it could not be written.
    Refused(Box<Open>),
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
    /// Starts whose answers are late.
    late: Vec<Open>,
    /// The journal cannot be written.
    is_full: bool,
    /// What is written to it once it can.
    unwritten: Vec<JournalEntry>,
    current: Option<String>,
    journal: Option<JournalEntry>,
    installed: Option<Installed>,
    previous: Option<Installed>,
    quarantine: BTreeMap<Digest, String>,
    /// Time that passed in probation since a transaction entered it, as far as anybody watched.
    watched_ms: u64,
    /// The node is what is installed: to start a release is to start the node from `current`.
    is_own: bool,
    /// Starts of each transaction on its way forward.
    starts: BTreeMap<String, u32>,
    /// What was installed once, and is there still.
    proved: Vec<Installed>,
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
            late: Vec::new(),
            is_full: false,
            unwritten: Vec::new(),
            current: None,
            journal: None,
            installed: None,
            previous: None,
            quarantine: BTreeMap::new(),
            watched_ms: 0,
            is_own: false,
            starts: BTreeMap::new(),
            proved: Vec::new(),
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
                Effect::Journal(line) => {
                    self.is_said(&line);
                    self.unwritten.push(*line);
                    self.make_room(!self.is_full);
                }
                Effect::Install(InstallEffect::Stage { transaction, .. }) => self.ask(Open::Stage(transaction)),
                Effect::Install(InstallEffect::Switch { transaction, release_dir, .. }) => {
                    self.ask(Open::Switch(transaction, release_dir));
                }
                Effect::Install(InstallEffect::Activate { transaction, .. }) => {
                    let is_counted = self.subscription.state == InstallState::Switched && !self.is_own;
                    if is_counted && self.unwritten.is_empty() {
                        *self.starts.entry(transaction.clone()).or_default() += 1;
                    }
                    self.ask(Open::Activate(transaction, self.now_ms));
                }
                Effect::Install(InstallEffect::Check { transaction, number, .. }) => {
                    self.open.push(Open::Check(transaction, number));
                }
                Effect::Event(event) => self.ends.push(event.kind),
                _ => {}
            }
        }
    }

    /// Nothing is done whose line is not written.
    fn ask(&mut self, open: Open) {
        self.open.push(if self.unwritten.is_empty() { open } else { Open::Refused(Box::new(open)) });
    }

    /// Whether the journal can be written from now on; what could not be is written first.
    fn make_room(&mut self, there_is_room: bool) {
        self.is_full = !there_is_room;
        if there_is_room {
            for line in std::mem::take(&mut self.unwritten) {
                self.write(line);
            }
        }
    }

    /// Looks at what is claimed, when it is claimed.
    fn is_said(&mut self, line: &JournalEntry) {
        let last = self.unwritten.last().or(self.journal.as_ref());
        if last.is_none_or(|last| last.transaction != line.transaction) {
            self.watched_ms = 0;
        }
        let Some(outcome) = &line.outcome else { return };
        if outcome.kind == EventKind::Installed && self.trial.health.is_some() {
            assert!(self.watched_ms >= 10_000, "a success was reported {} ms into probation", self.watched_ms);
            assert_eq!(self.last_check, Some(true), "a success was reported without a healthy check");
        }
        if outcome.kind == EventKind::RolledBack {
            let starts = self.open.iter().find(|open| matches!(open, Open::Activate(..)));
            assert!(starts.is_none(), "{starts:?} was not waited for");
        }
        if let Some((installed, _)) = &outcome.installed {
            assert_eq!(self.current.as_ref(), Some(&installed.release_dir), "what is installed does not run");
        }
    }

    fn write(&mut self, line: JournalEntry) {
        if let Some(outcome) = &line.outcome {
            if let Some((installed, previous)) = &outcome.installed {
                self.installed = Some(installed.clone());
                self.previous = previous.clone();
                self.proved.retain(|release| release != installed);
                self.proved.push(installed.clone());
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
        self.deliver(open, answer, most);
    }

    /// The answer to a command is late, or lost.
    fn delay(&mut self, index: usize) {
        let is_command =
            |(at, open): (usize, &Open)| matches!(open, Open::Activate(..) | Open::Check(..)).then_some(at);
        let commands: Vec<usize> = self.open.iter().enumerate().filter_map(is_command).collect();
        if !commands.is_empty() {
            let at = commands[index % commands.len()];
            let open = self.open.remove(at);
            if matches!(open, Open::Activate(..)) {
                self.late.push(open);
            }
        }
    }

    fn deliver(&mut self, open: Open, answer: Answer, most: usize) {
        let (open, answer, was_begun) = match open {
            Open::Refused(open) => (*open, Answer::Place, false),
            open => (open, answer, true),
        };
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
            // What is asked to end itself gives no answer.
            Open::Activate(..) if self.is_own && answer == Answer::Good => return self.restart(),
            Open::Activate(transaction, _) => {
                if answer == Answer::Place
                    && was_begun
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
            Open::Refused(_) => Vec::new(),
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

    /// A launcher counted failed starts of what runs, and starts an older release.
    fn put_back(&mut self) {
        if let Some(older) = self.proved.iter().rev().find(|older| self.current.as_ref() != Some(&older.release_dir)) {
            self.open.clear();
            self.current = Some(older.release_dir.clone());
        }
        self.restart();
    }

    /// Kills the node and starts it again: what shells were busy with is over, done or not.
    fn restart(&mut self) {
        self.restarts += 1;
        self.late.clear();
        // A start that no line could be written about is counted by nobody here: that is a launcher's to do.
        let was_noted = self.unwritten.is_empty();
        self.unwritten.clear();
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
            stands: self.proved.iter().find(|release| self.current.as_ref() == Some(&release.release_dir)).cloned(),
            current: self.current.clone(),
            quarantine: self.quarantine.clone(),
            holds: self.subscription.holds.clone(),
            trial: self.trial.clone(),
            runs: self.is_own && self.current.is_some(),
        };
        let on_trial = found.journal.as_ref().filter(|line| !line.way.is_back() && line.state.is_committed_to());
        let starts = on_trial.filter(|line| line.to.as_ref().map(|to| &to.release_dir) == found.current.as_ref());
        if let Some(line) = starts.filter(|_| found.runs && was_noted) {
            *self.starts.entry(line.transaction.clone()).or_default() += 1;
        }
        let (subscription, effects) = Subscription::restore(spec(), found, self.now_ms);
        self.subscription = subscription;
        self.carry_out(effects, usize::MAX);
    }

    fn check(&self) {
        let is_start = |open: &&Open| matches!(open, Open::Switch(..) | Open::Activate(..));
        let working = self.open.iter().filter(is_start).count();
        assert!(working <= 1, "two goals at once: {:?}", self.open);
        // A node that is the release itself must be started once more to see that it was started too often.
        let most = self.trial.max_attempts + u32::from(self.is_own);
        for (transaction, count) in &self.starts {
            assert!(*count <= most, "{transaction} was started {count} times");
        }
        let is_known = self.unwritten.is_empty() && !self.subscription.is_busy();
        if let Some(installed) = self.installed.as_ref().filter(|_| is_known) {
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
        self.make_room(true);
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
            let waits = self.subscription.goal.is_some()
                || self.subscription.setback.as_ref().is_some_and(|setback| setback.until_ms > self.now_ms);
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
    /// The journal can be written from now on, or cannot.
    Room(bool),
    /// An answer is late.
    Delay(usize),
    /// It comes.
    Late(usize, Answer),
    Restart,
    PutBack,
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
        2 => any::<bool>().prop_map(Turn::Room),
        2 => (0_usize..4).prop_map(Turn::Delay),
        2 => (0_usize..4, answer()).prop_map(|(index, answer)| Turn::Late(index, answer)),
        1 => Just(Turn::Restart),
        1 => Just(Turn::PutBack),
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
            Turn::Room(there_is_room) => world.make_room(there_is_room),
            Turn::Delay(index) => world.delay(index),
            Turn::Late(index, answer) if !world.late.is_empty() => {
                let open = world.late.remove(index % world.late.len());
                // What is answered late was begun.
                world.deliver(open, if answer == Answer::Place { Answer::Moment } else { answer }, usize::MAX);
            }
            Turn::Late(..) => {}
            Turn::Restart => world.restart(),
            Turn::PutBack => world.put_back(),
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
    fn whatever_happens_it_comes_to_rest_and_never_reports_a_success_too_early(
        turns in turns(),
        good in any::<bool>(),
        is_own in any::<bool>(),
    ) {
        let mut world = if is_own { own_world(3) } else { World::new(trial()) };
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
        let by_itself = |turn: &Turn| !matches!(turn, Turn::RollBack | Turn::PutBack);
        play(&mut world, turns.into_iter().filter(by_itself).collect());
        world.settle(Answer::Good);
        prop_assert!(!world.ends.contains(&EventKind::RolledBack), "{:?}", world.ends);
    }
}

/// A world in which the node is what is installed.
fn own_world(max_attempts: u32) -> World {
    let activation = Some(Activation { starter: Starter::Node, timeout_ms: 5_000 });
    let mut world = World::new(Trial { activation, max_attempts, ..trial() });
    world.is_own = true;
    world
}

/// A world in which 1.1.0 is installed and 1.2.0 is offered.
fn with_one_installed() -> World {
    first_installed(World::new(trial()))
}

fn first_installed(mut world: World) -> World {
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
fn an_answer_that_a_start_still_owes_is_not_taken_for_the_next_ones() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Switched);
    let mut late = Vec::new();
    for _ in 0..3 {
        let Some(Open::Activate(transaction, _)) = world.open.first().cloned() else { panic!("{:?}", world.open) };
        assert!(!late.contains(&transaction), "{transaction} was used before");
        late.push(transaction);
        world.pass(5_000 + WATCHDOG_MS);
        for transaction in &late {
            assert!(world.subscription.activated(transaction, Ok(()), world.now_ms).is_empty());
        }
        assert_eq!(world.subscription.state, InstallState::RollingBack);
        // The next try of what comes back, and its switch.
        world.pass(MAX_PLACE_MS);
        world.answer(0, Answer::Good, usize::MAX);
    }
    world.settle(Answer::Good);
    assert!(is_at(&world, 1));
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
fn what_is_started_anew_in_its_probation_proves_itself_anew() {
    let left_ms = |world: &World| match world.subscription.goal.as_ref().map(|goal| &goal.phase) {
        Some(Phase::Watched(probation)) => probation.remaining_ms(),
        phase => panic!("it is not on probation: {phase:?}"),
    };
    let is_unit = Starter::Unit("app.service".to_owned());
    for (starter, is_own, after_ms) in
        [(None, false, 10_000), (Some(Starter::Node), true, 10_000), (Some(is_unit), false, 5_000)]
    {
        let mut world = if is_own { first_installed(own_world(3)) } else { with_one_installed() };
        if let (Some(activation), Some(starter)) = (&mut world.trial.activation, starter) {
            activation.starter = starter;
            world.restart();
        }
        reach(&mut world, InstallState::Probation);
        while left_ms(&world) > 5_000 {
            world.pass(1_000);
            world.answer(0, Answer::Good, usize::MAX);
        }
        world.restart();
        reach(&mut world, InstallState::Probation);
        assert_eq!(left_ms(&world), after_ms, "{:?}", world.trial.activation);
    }
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
    let until_ms = shortage.until_ms.expect("nobody asked");
    assert_eq!(world.subscription.state, InstallState::Verified);
    assert!(until_ms <= world.now_ms + 5_000, "what filled the disk may be gone soon");
    world.pass(1_000);
    assert!(world.open.is_empty(), "it is no busy loop");
    world.pass(until_ms - world.now_ms);
    assert!(matches!(world.open[..], [Open::Stage(_)]));
    world.answer(0, Answer::Place, usize::MAX);
    let told = world.ends.iter().filter(|kind| **kind == EventKind::InstallPostponed).count();
    assert_eq!(told, 1, "people are told once");
    let _ = world.subscription.retry(false);
    assert_eq!(world.subscription.shortage().map(|shortage| shortage.until_ms), Some(None), "it is looked at now");
    world.newest = 3;
    world.settle(Answer::Good);
    assert_eq!(world.installed.map(|installed| installed.version), Some(Version::new(1, 3, 0)));
}

#[test]
fn what_was_put_off_holds_no_newer_release_back() {
    let mut world = with_one_installed();
    world.plan();
    world.answer(0, Answer::Moment, usize::MAX);
    assert_eq!(world.subscription.pursued(), None);
    world.open.clear();
    world.plan();
    assert_eq!(world.subscription.pursued(), None, "it is not begun anew at once");
    world.newest = 3;
    world.plan();
    assert_eq!(world.subscription.pursued(), Some(release(3).artifact));
}

#[test]
fn people_are_told_of_the_first_shortage_of_every_release() {
    let mut world = with_one_installed();
    for newest in 2..5 {
        world.newest = newest;
        world.plan();
        world.answer(0, Answer::Place, usize::MAX);
    }
    let told = world.ends.iter().filter(|kind| **kind == EventKind::InstallPostponed).count();
    assert_eq!(told, 3);
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
fn what_an_operator_wants_back_and_is_gone_is_no_failure_of_what_runs() {
    let mut world = with_one_installed();
    world.settle(Answer::Good);
    let runs = world.installed.clone();
    let effects = world.subscription.roll_back(None, &[], true, "back".to_owned()).expect("one was before");
    world.carry_out(effects, usize::MAX);
    world.ends.clear();
    let gone = StepFailure { reason: "it is no complete release".to_owned(), fault: Fault::Release };
    let transaction = world.subscription.goal.as_ref().map(|goal| goal.transaction.clone()).expect("on the way back");
    let effects = world.subscription.switch_ended(&transaction, Err(gone), world.now_ms);
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::Journal(line) => Some((line.state, line.outcome.is_none())),
        _ => None,
    });
    assert_eq!(lines.collect::<Vec<_>>(), [(InstallState::Committed, true)]);
    world.carry_out(effects, usize::MAX);
    assert_eq!(world.ends, [EventKind::Alarm], "no seed counts it as a failure");
    assert_eq!((world.subscription.state, &world.installed), (InstallState::Committed, &runs));
    assert!(world.subscription.reason.contains("1.2.0 stays in place"), "{}", world.subscription.reason);
    assert!(world.quarantine.is_empty());
}

/// A world whose operator ended the probation of 1.2.0.
fn with_a_probation_ended(hold: bool) -> World {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Probation);
    let effects = world.subscription.roll_back(None, &[], hold, "back".to_owned()).expect("on probation");
    world.open.clear();
    world.ends.clear();
    world.carry_out(effects, usize::MAX);
    assert_eq!(world.subscription.state, InstallState::RollingBack);
    world
}

#[test]
fn an_operator_ends_a_probation() {
    let mut world = with_a_probation_ended(true);
    world.settle(Answer::Good);
    assert!(is_at(&world, 1));
    assert!(world.subscription.holds.of(&Version::new(1, 2, 0)).is_some());
    assert!(world.quarantine.is_empty(), "a person's word is no verdict about the artifact");
    assert_eq!(world.ends, [EventKind::HoldChanged, EventKind::RolledBack]);
    let effects = world.subscription.unhold(Some(&Version::new(1, 2, 0)));
    world.carry_out(effects, usize::MAX);
    world.settle(Answer::Good);
    assert!(is_at(&world, 2), "once nobody holds it, it is installed");
}

#[test]
fn a_release_that_an_operator_left_without_a_hold_may_come_again() {
    let mut world = with_a_probation_ended(false);
    world.answer(0, Answer::Good, usize::MAX);
    world.answer(0, Answer::Good, usize::MAX);
    assert!(is_at(&world, 1));
    assert_eq!(world.ends, [EventKind::RolledBack]);
    world.settle(Answer::Good);
    assert!(is_at(&world, 2));
}

#[test]
fn what_cannot_be_gone_back_to_is_refused_with_what_to_do() {
    let refusal = |world: &mut World, minor: Option<u64>| {
        let to = minor.map(|minor| Version::new(1, minor, 0));
        let refused = world.subscription.roll_back(to.as_ref(), &[], true, "back".to_owned());
        refused.map(drop).expect_err("refused").to_string()
    };
    let mut world = with_one_installed();
    assert!(refusal(&mut world, None).contains("status --explain"));
    reach(&mut world, InstallState::Probation);
    let text = refusal(&mut world, Some(0));
    assert!(text.contains("goes back to 1.1.0 only") && text.contains("leave --to out"), "{text}");
    assert!(refusal(&mut world, Some(2)).contains("is what runs here"));
    assert!(world.subscription.holds.is_empty(), "nothing is held by a request that was refused");
}

#[test]
fn what_a_check_says_again_and_again_is_told_once() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Probation);
    let transaction = world.subscription.goal.as_ref().map(|goal| goal.transaction.clone()).expect("on probation");
    let mut said = |output: &str| world.subscription.said(&transaction, "the health check", output).is_some();
    assert_eq!([said("no database\n"), said("no database"), said(" "), said("no network")], [true, false, false, true]);
    let told = (0..1_000).filter(|number| said(&format!("{number} ms"))).count();
    assert!(told < 100, "what changes every time leaves room for other events: {told}");
    assert!(world.subscription.said("another", "the activation", "late").is_none(), "it is not about this release");
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

#[test]
fn a_way_back_that_another_version_of_the_node_began_is_gone_on_with() {
    let mut world = with_one_installed();
    reach(&mut world, InstallState::Switched);
    world.answer(0, Answer::Bad, usize::MAX);
    // An older node reads no word before the name of the attempt, and knows but one way back.
    let line = world.journal.as_mut().expect("written");
    line.way = Way::Forward;
    line.transaction = format!("failure-{}", line.transaction);
    world.restart();
    assert_eq!(world.subscription.state, InstallState::RollingBack);
    world.settle(Answer::Good);
    assert!(is_at(&world, 1));
    assert!(world.quarantine.contains_key(&release(2).artifact), "what it had written of the release holds");
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
fn what_a_commit_left_is_removed_though_the_node_was_killed_right_after_it() {
    let mut world = with_one_installed();
    world.settle(Answer::Good);
    let found = Recovered {
        journal: world.journal.clone().map(|line| JournalEntry { outcome: None, ..line }),
        installed: world.installed.clone(),
        previous: world.previous.clone(),
        current: world.current.clone(),
        ..Recovered::default()
    };
    let (_, effects) = Subscription::restore(spec(), found, 0);
    let kept = effects.iter().find_map(|effect| match effect {
        Effect::Install(InstallEffect::Collect { keep, .. }) => Some(keep.len()),
        _ => None,
    });
    assert_eq!(kept, Some(2), "{effects:?}");
}

#[test]
fn a_node_that_installs_itself_may_be_given_a_single_start() {
    let mut world = first_installed(own_world(1));
    world.settle(Answer::Good);
    assert!(is_at(&world, 2), "the start that makes it the node is the one that was counted: {:?}", world.subscription);
    world.newest = 3;
    reach(&mut world, InstallState::Probation);
    world.restart();
    assert_eq!(world.subscription.state, InstallState::RollingBack, "a second start is one too many");
    world.settle(Answer::Good);
    assert!(is_at(&world, 2));
    assert!(!world.ends.contains(&EventKind::Alarm), "the way back went well: {:?}", world.ends);
}

#[test]
fn a_release_that_was_committed_and_did_not_stay_up_is_given_up_when_its_launcher_put_another_there() {
    let mut world = first_installed(own_world(3));
    world.settle(Answer::Good);
    assert!(is_at(&world, 2));
    world.ends.clear();
    world.put_back();
    world.settle(Answer::Good);
    assert!(is_at(&world, 1), "what runs is what it says");
    assert!(world.quarantine.contains_key(&release(2).artifact));
    assert_eq!(world.previous.as_ref().map(|previous| previous.artifact), Some(release(2).artifact));
    assert_eq!(world.ends, [EventKind::InstallFailed, EventKind::RolledBack]);
    world.newest = 3;
    world.settle(Answer::Good);
    assert!(is_at(&world, 3), "the release that mends it is installed");
}

#[test]
fn a_release_that_did_not_stay_up_is_given_up_though_a_newer_one_was_on_its_way() {
    for state in [InstallState::Fetching, InstallState::Verified] {
        let mut world = first_installed(own_world(3));
        world.settle(Answer::Good);
        world.newest = 3;
        world.transactions += 1;
        let effects = world.subscription.pursue(&release(3), "newer".to_owned(), world.now_ms);
        world.carry_out(effects, usize::MAX);
        if state == InstallState::Verified {
            let effects = world.subscription.artifact_complete(&release(3).artifact);
            world.carry_out(effects, usize::MAX);
        }
        assert_eq!(world.subscription.state, state);
        world.put_back();
        assert_eq!(world.subscription.state, InstallState::RollingBack);
        assert!(world.quarantine.contains_key(&release(2).artifact));
        world.settle(Answer::Good);
        assert!(is_at(&world, 3));
    }
}

#[test]
fn a_release_on_trial_goes_back_to_what_its_launcher_put_there() {
    let mut world = first_installed(own_world(3));
    world.settle(Answer::Good);
    world.newest = 3;
    reach(&mut world, InstallState::Probation);
    world.current = world.previous.as_ref().map(|previous| previous.release_dir.clone());
    world.restart();
    world.settle(Answer::Good);
    assert!(is_at(&world, 1), "1.2 was never seen to stay up, so it is not started again");
    assert!(world.quarantine.contains_key(&release(3).artifact));
}

fn is_at(world: &World, minor: u64) -> bool {
    world.installed.as_ref().is_some_and(|installed| installed.version == Version::new(1, minor, 0))
}
