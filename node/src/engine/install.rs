//! The install state machine of one subscription.
//!
//! `Idle -> Fetching -> Verified -> Staged -> Armed -> Switched -> Probation -> Committed`, else
//! `RollingBack -> Quarantined`. Every step is journalled before it is begun and may be repeated, so that a
//! node killed at any instruction goes on from its journal and the link on disk.
//!
//! It must never say that a release is installed before its probation has ended, never follow two goals,
//! and never come to a state that needs a person to go on: whatever a shell answers, and whether or not a
//! command of the operator is ever answered, some deadline leads on to `Committed`, `Quarantined` or `Idle`.

mod hold;
mod journal;
mod operator;
mod probation;
mod recovery;
mod refusal;
mod rollback;
mod state;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::release::Release;

use self::probation::{Look, Probation, WATCHDOG_MS};
use super::effect::{Effect, Event, EventKind, InstallEffect, Subject};
use super::plan::Decision;

pub use self::hold::{Holds, MAX_HELD_VERSIONS};
pub use self::journal::{Installed, JournalEntry, Outcome, Recovered, Way};
pub use self::refusal::{Fault, Refusal, StepFailure};
pub use self::state::InstallState;
pub use self::trial::{Activation, Check, DEFAULT_MAX_ATTEMPTS, Health, Starter, Trial};

/// Milliseconds before a failed step is tried again, doubled with every failure.
const RETRY_MS: u64 = 15_000;
/// Longest pause between two tries.
const MAX_RETRY_MS: u64 = 3_600_000;
/// Milliseconds before a place that could not be written is looked at again, doubled with every look: it
/// costs little, and most of what fills a disk is gone soon.
const PLACE_MS: u64 = 2_000;
/// Longest pause between two looks at a place that could not be written: people make room and wait.
const MAX_PLACE_MS: u64 = 300_000;

/// Outputs of commands that are told of one attempt: a chatty check must not push everything else out of
/// the events that are remembered.
const MAX_SAID: u32 = 64;

/// What a subscription follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionSpec {
    /// The product.
    pub product: Product,
    /// Its channel.
    pub channel: Channel,
    /// Where it is installed; `None` holds and serves it without installing.
    pub directory: Option<String>,
}

/// What an attempt is about.
#[derive(Debug, Clone)]
struct Goal {
    transaction: String,
    to: Installed,
    /// What is left, going back.
    left: Option<Installed>,
    /// `None` when it is unpacked already.
    release: Option<Arc<Release>>,
    way: Way,
    attempts: u32,
    /// Why it goes back.
    why: Option<String>,
    /// What an earlier run of the node left of probation.
    left_ms: Option<u64>,
    /// What comes back runs already: this node is it.
    runs: bool,
    /// What its commands said last, and how often that was told.
    said: (String, u32),
    phase: Phase,
}

impl Goal {
    /// The beginning of an attempt that goes forward.
    fn new(transaction: String, to: Installed) -> Self {
        Self {
            transaction,
            to,
            left: None,
            release: None,
            way: Way::Forward,
            attempts: 0,
            why: None,
            left_ms: None,
            runs: false,
            said: (String::new(), 0),
            phase: Phase::Working,
        }
    }
}

/// What could not be done yet. It says nothing about any other release.
#[derive(Debug, Clone)]
struct Setback {
    artifact: Digest,
    /// How often, in a row.
    count: u32,
    /// When it may be begun anew, where it was dropped.
    until_ms: u64,
}

/// What an attempt waits for.
#[derive(Debug, Clone)]
enum Phase {
    /// Pieces, or the end of a step on disk.
    Working,
    /// The end of the activation.
    Starting { since_ms: u64 },
    /// The end of probation.
    Watched(Box<Probation>),
    /// The time of the next try, because this could not be done; none: now, because somebody asked.
    Waiting { until_ms: Option<u64>, reason: String },
}

/// How the last attempt ended: the number tells it from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Counts ends since the start.
    pub number: u64,
    /// `Installed`, `RolledBack` or `InstallFailed`; `Alarm` where what an operator wanted back is gone.
    pub kind: EventKind,
    /// In a sentence.
    pub text: String,
}

/// A place that cannot take a release now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage<'a> {
    /// For which artifact it was tried.
    pub artifact: &'a Digest,
    /// What is missing.
    pub reason: &'a str,
    /// Monotonic milliseconds of the next look; none where it is looked at now, because somebody asked.
    pub until_ms: Option<u64>,
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// What it follows.
    pub spec: SubscriptionSpec,
    /// Where it stands.
    pub state: InstallState,
    /// What is installed.
    pub installed: Option<Installed>,
    /// What was installed before.
    pub previous: Option<Installed>,
    /// Why it stands there, for people.
    pub reason: String,
    /// The planner's last word.
    pub decision: Option<Decision>,
    /// Artifacts that are not tried again by themselves, and what they did.
    pub quarantine: BTreeMap<Digest, String>,
    /// What an operator keeps from being installed.
    pub holds: Holds,
    /// How a release is started, and what proves that it works.
    pub trial: Trial,
    /// How the last attempt ended.
    pub ended: Option<End>,
    /// The artifact for which an operator does not wait for the rollout.
    pub(crate) hurry: Option<Digest>,
    goal: Option<Goal>,
    setback: Option<Setback>,
}

/// The name of a release's tree below `releases/`.
pub fn release_dir(release: &Release) -> String {
    format!("{}-{}", release.id.version, release.artifact.short())
}

fn pause_ms(failures: u32, first_ms: u64, most_ms: u64) -> u64 {
    first_ms.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most_ms)
}

impl Subscription {
    /// In a step past which the node must go on, or back, before anything else.
    pub fn is_busy(&self) -> bool {
        self.state.is_committed_to()
    }

    /// The release whose artifact this subscription needs now.
    pub(crate) fn wanted(&self) -> Option<&Arc<Release>> {
        self.goal.as_ref().and_then(|goal| goal.release.as_ref())
    }

    /// The artifact of the release that is being installed, held or gone back to.
    pub(crate) fn pursued(&self) -> Option<Digest> {
        self.goal.as_ref().map(|goal| goal.to.artifact)
    }

    /// Whether `artifact` is being unpacked now.
    pub(crate) fn is_unpacking(&self, artifact: &Digest) -> bool {
        let is_goal = |goal: &Goal| goal.to.artifact == *artifact && matches!(goal.phase, Phase::Working);
        self.spec.directory.is_some() && self.state == InstallState::Verified && self.goal.as_ref().is_some_and(is_goal)
    }

    /// What keeps a verified release from being unpacked.
    pub(crate) fn shortage(&self) -> Option<Shortage<'_>> {
        let goal = self.goal.as_ref().filter(|_| self.state == InstallState::Verified)?;
        match &goal.phase {
            Phase::Waiting { until_ms, reason } => {
                Some(Shortage { artifact: &goal.to.artifact, reason, until_ms: *until_ms })
            }
            Phase::Working | Phase::Starting { .. } | Phase::Watched(_) => None,
        }
    }

    /// Begins installing (or holding) `release`, unless that is under way; supersedes an older goal.
    pub(crate) fn pursue(&mut self, release: &Arc<Release>, transaction: String, now_ms: u64) -> Vec<Effect> {
        let same = self.goal.as_ref().is_some_and(|goal| goal.to.artifact == release.artifact);
        if same || self.is_busy() || self.is_put_off(&release.artifact, now_ms) {
            return Vec::new();
        }
        let mut effects = self.abandon();
        let to = Installed {
            version: release.id.version.clone(),
            artifact: release.artifact,
            release_dir: release_dir(release),
        };
        self.goal = Some(Goal { release: Some(release.clone()), ..Goal::new(transaction, to) });
        effects.extend(self.enter(InstallState::Fetching));
        effects.push(self.event(EventKind::FetchStarted, &release.id.version, format!("fetching {}", release.id)));
        effects
    }

    /// Whether `artifact` was dropped a moment ago, to be begun anew later.
    fn is_put_off(&self, artifact: &Digest, now_ms: u64) -> bool {
        self.setback.as_ref().is_some_and(|setback| setback.artifact == *artifact && now_ms < setback.until_ms)
    }

    /// Notes that what is under way could not be done, and says how often in a row.
    fn set_back(&mut self) -> u32 {
        let Some(artifact) = self.pursued() else { return 0 };
        let before = self.setback.as_ref().filter(|setback| setback.artifact == artifact);
        let count = before.map_or(0, |setback| setback.count).saturating_add(1);
        self.setback = Some(Setback { artifact, count, until_ms: 0 });
        count
    }

    /// Gives up a goal that is not needed any more. Past `Staged` it is carried through instead.
    pub(crate) fn abandon(&mut self) -> Vec<Effect> {
        if self.is_busy() {
            return Vec::new();
        }
        let Some(goal) = self.goal.take() else { return Vec::new() };
        self.state = self.rest();
        let Some(directory) = self.spec.directory.clone() else { return Vec::new() };
        vec![Effect::Install(InstallEffect::Discard { directory, transaction: goal.transaction })]
    }

    /// The state in which nothing is under way.
    fn rest(&self) -> InstallState {
        if self.installed.is_some() { InstallState::Committed } else { InstallState::Idle }
    }

    /// Every piece of `artifact` is verified.
    pub(crate) fn artifact_complete(&mut self, artifact: &Digest) -> Vec<Effect> {
        if self.state != InstallState::Fetching || self.pursued() != Some(*artifact) {
            return Vec::new();
        }
        let Some(stage) = self.stage() else {
            self.state = InstallState::Verified;
            "held and served".clone_into(&mut self.reason);
            return Vec::new();
        };
        let mut effects = self.enter(InstallState::Verified);
        effects.push(stage);
        effects
    }

    fn stage(&self) -> Option<Effect> {
        let goal = self.goal.as_ref()?;
        Some(Effect::Install(InstallEffect::Stage {
            directory: self.spec.directory.clone()?,
            transaction: goal.transaction.clone(),
            release_dir: goal.to.release_dir.clone(),
            release: goal.release.clone()?,
        }))
    }

    fn is_current(&self, transaction: &str) -> bool {
        self.goal.as_ref().is_some_and(|goal| goal.transaction == transaction)
    }

    /// Unpacking ended.
    pub(crate) fn staged(&mut self, transaction: &str, result: Result<(), StepFailure>, now_ms: u64) -> Vec<Effect> {
        if !self.is_current(transaction) || self.state != InstallState::Verified {
            return Vec::new();
        }
        match result {
            Ok(()) => {}
            Err(failure) if failure.fault == Fault::Release => return self.refuse(&failure.reason),
            Err(failure) if failure.fault == Fault::Place => return self.postpone(&failure.reason, now_ms),
            Err(failure) => return self.put_off(&failure.reason, now_ms),
        }
        let mut effects = self.enter(InstallState::Staged);
        if let Some(goal) = &self.goal {
            let text = format!("unpacked to releases/{}", goal.to.release_dir);
            effects.push(self.event(EventKind::Staged, &goal.to.version, text));
        }
        effects.extend(self.arm());
        effects
    }

    /// Decides the switch, forward or back.
    fn arm(&mut self) -> Vec<Effect> {
        let Some(goal) = &mut self.goal else { return Vec::new() };
        goal.attempts = goal.attempts.saturating_add(1);
        goal.phase = Phase::Working;
        if goal.way.is_back() {
            goal.transaction = rollback::name(&goal.transaction, goal.attempts);
        }
        let (transaction, release_dir) = (goal.transaction.clone(), goal.to.release_dir.clone());
        let state = if goal.way.is_back() { InstallState::RollingBack } else { InstallState::Armed };
        let Some(directory) = self.spec.directory.clone() else { return Vec::new() };
        let mut effects = self.enter(state);
        effects.push(Effect::Install(InstallEffect::Switch { directory, transaction, release_dir }));
        effects
    }

    /// The link was swapped, or could not be.
    pub(crate) fn switch_ended(
        &mut self,
        transaction: &str,
        result: Result<(), StepFailure>,
        now_ms: u64,
    ) -> Vec<Effect> {
        let waits = self.goal.as_ref().is_some_and(|goal| matches!(goal.phase, Phase::Working));
        if !self.is_current(transaction) || !waits {
            return Vec::new();
        }
        match (self.state, result) {
            (InstallState::Armed, Ok(())) => {
                let mut effects = self.enter(InstallState::Switched);
                effects.extend(self.start(now_ms));
                effects
            }
            (InstallState::RollingBack, Ok(())) => {
                let attempts = self.goal.as_ref().map_or(0, |goal| goal.attempts);
                if self.trial.is_exhausted(attempts) {
                    return self.settle(Some("it was tried too often"));
                }
                self.start(now_ms)
            }
            // Nothing points at what was staged: it is unpacked again once the place can be written.
            (InstallState::Armed, Err(failure)) => self.postpone(&failure.reason, now_ms),
            (InstallState::RollingBack, Err(failure)) if failure.fault == Fault::Release => self.lost(&failure.reason),
            (InstallState::RollingBack, Err(failure)) => self.wait(&failure.reason, now_ms),
            _ => Vec::new(),
        }
    }

    /// Starts what `current` points at now.
    fn start(&mut self, now_ms: u64) -> Vec<Effect> {
        let subject = self.subject();
        let Some(goal) = &mut self.goal else { return Vec::new() };
        if goal.runs {
            return self.started(now_ms);
        }
        let (Some(directory), Some(activation)) = (self.spec.directory.clone(), self.trial.activation.clone()) else {
            return self.started(now_ms);
        };
        goal.phase = Phase::Starting { since_ms: now_ms };
        // What is started anew proves itself anew.
        goal.left_ms = None;
        self.reason = format!("starting {}", goal.to.version);
        let transaction = goal.transaction.clone();
        subject
            .map(|subject| Effect::Install(InstallEffect::Activate { directory, transaction, activation, subject }))
            .into_iter()
            .collect()
    }

    fn subject(&self) -> Option<Subject> {
        let goal = self.goal.as_ref()?;
        let previous = if goal.way.is_back() { goal.left.as_ref() } else { self.installed.as_ref() };
        Some(Subject {
            product: self.spec.product.clone(),
            version: goal.to.version.clone(),
            previous: previous.map(|previous| previous.version.clone()),
        })
    }

    /// The activation ended, or was given up.
    pub(crate) fn activated(&mut self, transaction: &str, result: Result<(), StepFailure>, now_ms: u64) -> Vec<Effect> {
        let starting = self.goal.as_ref().is_some_and(|goal| matches!(goal.phase, Phase::Starting { .. }));
        if !self.is_current(transaction) || !starting {
            return Vec::new();
        }
        match (self.state, result) {
            (_, Ok(())) => self.started(now_ms),
            // It was not tried: its line could not be written.
            (_, Err(failure)) if failure.fault == Fault::Place => self.wait(&failure.reason, now_ms),
            (InstallState::Switched, Err(failure)) => self.go_back(&failure.reason, Way::Back),
            (_, Err(failure)) => self.back_not_started(&failure.reason, now_ms),
        }
    }

    /// What `current` points at was started, or needs no start.
    fn started(&mut self, now_ms: u64) -> Vec<Effect> {
        let Some(goal) = &mut self.goal else { return Vec::new() };
        if goal.way.is_back() {
            return self.settle(None);
        }
        let Some(health) = self.trial.health.clone() else { return self.commit() };
        goal.phase = Phase::Watched(Box::new(Probation::new(health, goal.left_ms, now_ms)));
        let mut effects = self.enter(InstallState::Probation);
        effects.extend(self.watch(now_ms));
        effects
    }

    /// A health check ended.
    pub(crate) fn checked(
        &mut self,
        transaction: &str,
        number: u32,
        result: Result<(), String>,
        now_ms: u64,
    ) -> Vec<Effect> {
        if !self.is_current(transaction) || self.state != InstallState::Probation {
            return Vec::new();
        }
        if let Some(Goal { phase: Phase::Watched(probation), to, .. }) = &mut self.goal {
            let last = result.as_ref().map_or_else(|reason| format!("; {reason}"), |()| String::new());
            probation.answered(number, result);
            let seconds = probation.remaining_ms().div_ceil(1_000);
            self.reason = format!("{} is on probation, {seconds} s of it are left{last}", to.version);
        }
        self.watch(now_ms)
    }

    /// Looks at a release on probation.
    fn watch(&mut self, now_ms: u64) -> Vec<Effect> {
        let subject = self.subject();
        let Some(Goal { phase: Phase::Watched(probation), transaction, .. }) = &mut self.goal else {
            return Vec::new();
        };
        match probation.look(now_ms) {
            Look::Passed => self.commit(),
            Look::Failed(reason) => self.go_back(&reason, Way::Back),
            Look::Check(number) => {
                let health = probation.health().clone();
                let (Some(directory), Some(subject)) = (self.spec.directory.clone(), subject) else {
                    return Vec::new();
                };
                let (transaction, check, timeout_ms) = (transaction.clone(), health.check, health.timeout_ms);
                let effect = InstallEffect::Check { directory, transaction, number, check, timeout_ms, subject };
                vec![Effect::Install(effect)]
            }
            Look::Wait if probation.is_journal_due() => vec![self.line(None)],
            Look::Wait => Vec::new(),
        }
    }

    /// Time passed: what was put off is tried, and what is silent for too long is given up.
    pub(crate) fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        let Some(goal) = &mut self.goal else { return Vec::new() };
        match &goal.phase {
            Phase::Working => Vec::new(),
            Phase::Watched(_) => self.watch(now_ms),
            Phase::Starting { since_ms } => {
                let timeout_ms = self.trial.activation.as_ref().map_or(0, |activation| activation.timeout_ms);
                if now_ms.saturating_sub(*since_ms) < timeout_ms.saturating_add(WATCHDOG_MS) {
                    return Vec::new();
                }
                let failure = StepFailure { reason: "its start did not end".to_owned(), fault: Fault::Moment };
                let transaction = goal.transaction.clone();
                self.activated(&transaction, Err(failure), now_ms)
            }
            Phase::Waiting { until_ms, .. } if until_ms.is_some_and(|until_ms| now_ms < until_ms) => Vec::new(),
            Phase::Waiting { .. } => {
                goal.phase = Phase::Working;
                match self.state {
                    InstallState::Verified => self.stage().into_iter().collect(),
                    InstallState::RollingBack => self.arm(),
                    // Its line is written again first.
                    state => {
                        let mut effects = self.enter(state);
                        effects.extend(self.start(now_ms));
                        effects
                    }
                }
            }
        }
    }

    /// The release proved itself, or needed no proof.
    fn commit(&mut self) -> Vec<Effect> {
        let Some(goal) = self.goal.take() else { return Vec::new() };
        let from = self.installed.replace(goal.to.clone()).filter(|from| from.release_dir != goal.to.release_dir);
        if from.is_some() {
            self.previous = from;
        }
        self.state = InstallState::Committed;
        self.setback = None;
        let over = self.previous.as_ref().map(|left| format!(" over {}", left.version)).unwrap_or_default();
        let text = format!("installed {}{over}", goal.to.version);
        let outcome = Outcome {
            kind: EventKind::Installed,
            version: goal.to.version.clone(),
            text,
            installed: Some((goal.to.clone(), self.previous.clone())),
            quarantine: None,
        };
        self.end(&goal, self.previous.clone(), outcome)
    }

    /// Writes down and tells how an attempt ended; `self` is as it is from now on.
    fn end(&mut self, goal: &Goal, from: Option<Installed>, outcome: Outcome) -> Vec<Effect> {
        self.reason.clone_from(&outcome.text);
        let number = self.ended.as_ref().map_or(0, |end| end.number) + 1;
        self.ended = Some(End { number, kind: outcome.kind, text: outcome.text.clone() });
        let event = self.event(outcome.kind, &outcome.version, outcome.text.clone());
        let Some(directory) = self.spec.directory.clone() else { return vec![event] };
        let line = JournalEntry {
            directory: directory.clone(),
            product: self.spec.product.clone(),
            state: self.state,
            transaction: goal.transaction.clone(),
            from,
            to: Some(goal.to.clone()),
            attempts: goal.attempts,
            way: goal.way,
            remaining_ms: None,
            reason: goal.why.clone(),
            outcome: Some(outcome),
        };
        vec![Effect::Journal(Box::new(line)), event, self.collect(directory)]
    }

    /// Has what nothing needs any more removed.
    fn collect(&self, directory: String) -> Effect {
        let keep = self.installed.iter().chain(&self.previous).map(|installed| installed.release_dir.clone()).collect();
        Effect::Install(InstallEffect::Collect { directory, keep })
    }

    /// The artifact itself is bad: it is not tried again, and there is nothing to wait for, least of all with
    /// the release that mends it.
    fn refuse(&mut self, reason: &str) -> Vec<Effect> {
        let Some(goal) = self.goal.take() else { return Vec::new() };
        self.state = InstallState::Quarantined;
        self.quarantine.insert(goal.to.artifact, reason.to_owned());
        let outcome = Outcome {
            kind: EventKind::InstallFailed,
            version: goal.to.version.clone(),
            text: format!("{} cannot be installed: {reason}", goal.to.version),
            installed: None,
            quarantine: Some((goal.to.artifact, reason.to_owned())),
        };
        let mut effects = self.end(&goal, self.installed.clone(), outcome);
        effects.extend(self.discard(goal.transaction));
        effects
    }

    fn discard(&self, transaction: String) -> Option<Effect> {
        let directory = self.spec.directory.clone()?;
        Some(Effect::Install(InstallEffect::Discard { directory, transaction }))
    }

    /// A step failed for a reason that may be over soon: the attempt is dropped, and begun anew later.
    fn put_off(&mut self, reason: &str, now_ms: u64) -> Vec<Effect> {
        let pause_ms = pause_ms(self.set_back(), RETRY_MS, MAX_RETRY_MS);
        if let Some(setback) = &mut self.setback {
            setback.until_ms = now_ms.saturating_add(pause_ms);
        }
        let Some(goal) = self.goal.take() else { return Vec::new() };
        self.state = self.rest();
        let text =
            format!("{} could not be installed: {reason}; next try in {} s", goal.to.version, pause_ms.div_ceil(1_000));
        self.reason.clone_from(&text);
        let mut effects = vec![self.event(EventKind::InstallPostponed, &goal.to.version, text)];
        effects.extend(self.discard(goal.transaction));
        effects
    }

    /// The place cannot take the release now: it stays verified, and the place is looked at again. A newer
    /// release takes over meanwhile.
    fn postpone(&mut self, reason: &str, now_ms: u64) -> Vec<Effect> {
        if self.stage().is_none() {
            // What a restart found armed is not unpacked again without the catalog's word.
            return self.put_off(reason, now_ms);
        }
        let mut effects = Vec::new();
        if self.state != InstallState::Verified {
            if let Some(goal) = &mut self.goal {
                // Nothing was started yet.
                goal.attempts = 0;
            }
            effects.extend(self.enter(InstallState::Verified));
        }
        effects.extend(self.wait(reason, now_ms));
        effects
    }

    /// Tries the same again later; people are told once.
    fn wait(&mut self, reason: &str, now_ms: u64) -> Vec<Effect> {
        let count = self.set_back();
        let pause_ms = pause_ms(count, PLACE_MS, MAX_PLACE_MS);
        let Some(goal) = &mut self.goal else { return Vec::new() };
        goal.phase = Phase::Waiting { until_ms: Some(now_ms.saturating_add(pause_ms)), reason: reason.to_owned() };
        if goal.way.is_back() {
            // The next try counts again, and this one was none.
            goal.attempts = goal.attempts.saturating_sub(1);
        }
        let version = goal.to.version.clone();
        let text = format!("{version} waits: {reason}");
        self.reason = format!("{text}; next look in {} s", pause_ms.div_ceil(1_000));
        if count > 1 {
            return Vec::new();
        }
        vec![self.event(EventKind::InstallPostponed, &version, text)]
    }

    /// Enters a state of the attempt that is under way, and writes it down.
    fn enter(&mut self, state: InstallState) -> Vec<Effect> {
        self.state = state;
        let Some(goal) = &self.goal else { return Vec::new() };
        let version = &goal.to.version;
        self.reason = match state {
            InstallState::Fetching => format!("fetching {version}"),
            InstallState::Verified => format!("unpacking {version}"),
            InstallState::Probation => format!("{version} is on probation"),
            InstallState::RollingBack => {
                let why = goal.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                format!("going back to {version}{why}")
            }
            _ => format!("switching to {version}"),
        };
        if self.spec.directory.is_none() {
            return Vec::new();
        }
        vec![self.line(None)]
    }

    /// The journal line of the attempt that is under way.
    fn line(&self, outcome: Option<Outcome>) -> Effect {
        let goal = self.goal.as_ref();
        let way = goal.map_or(Way::Forward, |goal| goal.way);
        let remaining_ms = match goal.map(|goal| &goal.phase) {
            Some(Phase::Watched(probation)) => Some(probation.remaining_ms()),
            _ => goal.and_then(|goal| goal.left_ms),
        };
        Effect::Journal(Box::new(JournalEntry {
            directory: self.spec.directory.clone().unwrap_or_default(),
            product: self.spec.product.clone(),
            state: self.state,
            transaction: goal.map(|goal| goal.transaction.clone()).unwrap_or_default(),
            from: if way.is_back() { goal.and_then(|goal| goal.left.clone()) } else { self.installed.clone() },
            to: goal.map(|goal| goal.to.clone()),
            attempts: goal.map_or(0, |goal| goal.attempts),
            way,
            remaining_ms,
            reason: goal.and_then(|goal| goal.why.clone()),
            outcome,
        }))
    }

    /// What a command of the operator said, for whoever looks at the events of this node; said again only
    /// when it changed. It never gets into what leaves the machine.
    pub(crate) fn said(&mut self, transaction: &str, who: &str, output: &str) -> Option<Effect> {
        let output = output.trim();
        let goal = self.goal.as_mut().filter(|goal| goal.transaction == transaction && !output.is_empty())?;
        let text = format!("{who} of {} said: {output}", goal.to.version);
        let (last, count) = &mut goal.said;
        if *last == text || *count >= MAX_SAID {
            return None;
        }
        last.clone_from(&text);
        *count += 1;
        let version = goal.to.version.clone();
        Some(self.event(EventKind::CommandOutput, &version, text))
    }

    fn event(&self, kind: EventKind, version: &Version, text: String) -> Effect {
        Effect::Event(Event {
            kind,
            product: Some(self.spec.product.clone()),
            version: Some(version.clone()),
            peer: None,
            text,
        })
    }
}
