//! The install state machine of one subscription.
//!
//! `Idle -> Fetching -> Verified -> Staged -> Armed -> Switched -> Committed`, else `Quarantined`;
//! `Probation` and `RollingBack` have their places for activation and health checks. Every step is
//! journalled before it is begun and may be repeated, so that a node killed at any instruction goes
//! on from its journal and the link on disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::release::Release;

use super::effect::{Effect, Event, EventKind, InstallEffect};
use super::plan::Decision;

/// Milliseconds before a failed install is tried again, doubled with every failure.
const RETRY_MS: u64 = 15_000;
/// Longest pause between two tries.
const MAX_RETRY_MS: u64 = 3_600_000;

/// Where an install stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallState {
    /// Nothing to do, or a gate is closed. Next: `Fetching`.
    Idle,
    /// The artifact is on its way. Next: `Verified`.
    Fetching,
    /// Every piece is verified. A mirror stays here. Next: `Staged`.
    Verified,
    /// Unpacked, verified whole, durable. Next: `Armed`.
    Staged,
    /// The switch is decided and journalled. Next: `Switched`.
    Armed,
    /// `current` points at the new release. Next: `Committed`, or `Probation` where a check is set.
    Switched,
    /// The new release must prove its health. Next: `Committed`, `RollingBack`.
    Probation,
    /// Installed. Next: `Fetching` of a newer release.
    Committed,
    /// Going back to the previous release. Next: `Quarantined`.
    RollingBack,
    /// The previous release is back, and the one that was left is not tried again by itself.
    Quarantined,
}

impl InstallState {
    pub(crate) const ALL: [Self; 10] = [
        Self::Idle,
        Self::Fetching,
        Self::Verified,
        Self::Staged,
        Self::Armed,
        Self::Switched,
        Self::Probation,
        Self::Committed,
        Self::RollingBack,
        Self::Quarantined,
    ];

    /// The name in JSON and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fetching => "fetching",
            Self::Verified => "verified",
            Self::Staged => "staged",
            Self::Armed => "armed",
            Self::Switched => "switched",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::RollingBack => "rolling_back",
            Self::Quarantined => "quarantined",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// A release that is on disk, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its version.
    pub version: Version,
    /// Its artifact.
    pub artifact: Digest,
    /// Its name below `releases/`.
    pub release_dir: String,
}

/// One line of the install journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// The subscription's directory.
    pub directory: String,
    /// Its product.
    pub product: Product,
    /// The state that is being entered.
    pub state: InstallState,
    /// Names the attempt.
    pub transaction: String,
    /// What is (was) installed.
    pub from: Option<Installed>,
    /// What is being installed.
    pub to: Option<Installed>,
    /// Tries of this transaction's switch so far.
    pub attempts: u32,
    /// Going back, not forward.
    pub is_rollback: bool,
    /// The attempt ended well: `to` is installed now, and `from` is what was before.
    pub completes: bool,
}

/// What a node finds about a directory when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last journal line.
    pub journal: Option<JournalEntry>,
    /// What was committed last.
    pub installed: Option<Installed>,
    /// What was committed before that.
    pub previous: Option<Installed>,
    /// What `current` points at, below `releases/`.
    pub current: Option<String>,
    /// Artifacts that are not tried again by themselves.
    pub quarantine: BTreeSet<Digest>,
}

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
    /// `None` when going back: the release is unpacked already.
    release: Option<Arc<Release>>,
    attempts: u32,
}

/// Why an install step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// The sentence for people.
    pub reason: String,
    /// The artifact itself is at fault: trying again cannot help.
    pub artifact_is_bad: bool,
}

/// Why an operator's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing here has that product.
    #[error("this node does not install {0}; subscriptions are listed by `updraft status`")]
    NotSubscribed(String),
    /// There is nothing to go back to.
    #[error("{product} has no previous release here to go back to")]
    NoPrevious {
        /// The product.
        product: Product,
    },
    /// The wanted version is not kept.
    #[error("{product} {wanted} is not kept here; {kept} is the previous release")]
    NotKept {
        /// The product.
        product: Product,
        /// What was asked for.
        wanted: Version,
        /// What is kept.
        kept: Version,
    },
    /// A step is under way that must end first.
    #[error("{product} is being installed right now ({state}); try again in a moment", state = .state.as_str())]
    Busy {
        /// The product.
        product: Product,
        /// Where it stands.
        state: InstallState,
    },
    /// The channel offers something else.
    #[error(
        "the channel offers {offered} of {product}, not {wanted}; `updraft fetch` gets any release without installing it"
    )]
    NotOffered {
        /// The product.
        product: Product,
        /// What was asked for.
        wanted: Version,
        /// What is offered.
        offered: String,
    },
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
    /// Artifacts that are not tried again by themselves.
    pub quarantine: BTreeSet<Digest>,
    /// The artifact for which an operator does not wait for the rollout.
    pub(crate) hurry: Option<Digest>,
    goal: Option<Goal>,
    failures: u32,
    retry_at_ms: u64,
}

/// The name of a release's tree below `releases/`.
pub fn release_dir(release: &Release) -> String {
    format!("{}-{}", release.id.version, release.artifact.short())
}

impl Subscription {
    /// A subscription as a node finds it at start.
    pub(crate) fn restore(spec: SubscriptionSpec, found: Recovered) -> (Self, Vec<Effect>) {
        let mut subscription = Self {
            spec,
            state: InstallState::Idle,
            installed: found.installed,
            previous: found.previous,
            reason: String::new(),
            decision: None,
            quarantine: found.quarantine,
            hurry: None,
            goal: None,
            failures: 0,
            retry_at_ms: 0,
        };
        let mut effects = Vec::new();
        if subscription.installed.is_some() {
            subscription.state = InstallState::Committed;
        }
        let Some(journal) = found.journal else { return (subscription, effects) };
        match (journal.state, journal.to) {
            (InstallState::Armed | InstallState::Switched | InstallState::RollingBack, Some(to)) => {
                subscription.goal = Some(Goal {
                    transaction: journal.transaction,
                    release: None,
                    attempts: journal.attempts,
                    to: to.clone(),
                });
                subscription.state = journal.state;
                if found.current.as_deref() == Some(&to.release_dir) {
                    effects.extend(subscription.switched(journal.is_rollback));
                } else {
                    effects.extend(subscription.arm(journal.is_rollback));
                }
            }
            (InstallState::Quarantined, _) => subscription.state = InstallState::Quarantined,
            (InstallState::Committed | InstallState::Idle, _) => {}
            // Before Armed nothing points at what was staged: it is made again from the verified artifact.
            _ => {
                if let Some(directory) = subscription.spec.directory.clone() {
                    let transaction = journal.transaction;
                    effects.push(Effect::Install(InstallEffect::Discard { directory, transaction }));
                }
            }
        }
        (subscription, effects)
    }

    /// In a step past which the node must go on, or back, before anything else.
    pub fn is_busy(&self) -> bool {
        self.is_committed_to_step()
    }

    fn is_committed_to_step(&self) -> bool {
        matches!(
            self.state,
            InstallState::Staged
                | InstallState::Armed
                | InstallState::Switched
                | InstallState::Probation
                | InstallState::RollingBack
        )
    }

    /// The release whose artifact this subscription needs now.
    pub(crate) fn wanted(&self) -> Option<&Arc<Release>> {
        self.goal.as_ref().and_then(|goal| goal.release.as_ref())
    }

    /// The artifact of the release that is being installed, held or gone back to.
    pub(crate) fn pursued(&self) -> Option<Digest> {
        self.goal.as_ref().map(|goal| goal.to.artifact)
    }

    /// Begins installing (or holding) `release`, unless that is under way; supersedes an older goal.
    pub(crate) fn pursue(&mut self, release: &Arc<Release>, transaction: String, now_ms: u64) -> Vec<Effect> {
        let same = self.goal.as_ref().is_some_and(|goal| goal.to.artifact == release.artifact);
        if same || self.is_committed_to_step() || now_ms < self.retry_at_ms {
            return Vec::new();
        }
        let mut effects = self.abandon();
        self.goal = Some(Goal {
            transaction,
            to: Installed {
                version: release.id.version.clone(),
                artifact: release.artifact,
                release_dir: release_dir(release),
            },
            release: Some(release.clone()),
            attempts: 0,
        });
        effects.extend(self.enter(InstallState::Fetching, false));
        effects.push(self.event(EventKind::FetchStarted, &release.id.version, format!("fetching {}", release.id)));
        effects
    }

    /// Gives up a goal that is not needed any more. Past `Staged` it is carried through instead.
    pub(crate) fn abandon(&mut self) -> Vec<Effect> {
        if self.is_committed_to_step() {
            return Vec::new();
        }
        let Some(goal) = self.goal.take() else { return Vec::new() };
        self.state = if self.installed.is_some() { InstallState::Committed } else { InstallState::Idle };
        let Some(directory) = self.spec.directory.clone() else { return Vec::new() };
        vec![Effect::Install(InstallEffect::Discard { directory, transaction: goal.transaction })]
    }

    /// Every piece of `artifact` is verified.
    pub(crate) fn artifact_complete(&mut self, artifact: &Digest) -> Vec<Effect> {
        let Some(goal) = self.goal.as_ref().filter(|goal| goal.to.artifact == *artifact) else { return Vec::new() };
        if self.state != InstallState::Fetching {
            return Vec::new();
        }
        let (Some(directory), Some(release)) = (self.spec.directory.clone(), goal.release.clone()) else {
            self.state = InstallState::Verified;
            "held and served".clone_into(&mut self.reason);
            return Vec::new();
        };
        let stage = InstallEffect::Stage {
            directory,
            transaction: goal.transaction.clone(),
            release_dir: goal.to.release_dir.clone(),
            release,
        };
        let mut effects = self.enter(InstallState::Verified, false);
        effects.push(Effect::Install(stage));
        effects
    }

    /// Unpacking ended.
    pub(crate) fn staged(&mut self, transaction: &str, result: Result<(), StepFailure>, now_ms: u64) -> Vec<Effect> {
        let current = self.goal.as_ref().is_some_and(|goal| goal.transaction == transaction);
        if !current || self.state != InstallState::Verified {
            return Vec::new();
        }
        if let Err(failure) = result {
            return self.failed(&failure, now_ms);
        }
        let mut effects = self.enter(InstallState::Staged, false);
        if let Some(goal) = &self.goal {
            let text = format!("unpacked to releases/{}", goal.to.release_dir);
            effects.push(self.event(EventKind::Staged, &goal.to.version.clone(), text));
        }
        effects.extend(self.arm(false));
        effects
    }

    fn arm(&mut self, is_rollback: bool) -> Vec<Effect> {
        let Some(goal) = &mut self.goal else { return Vec::new() };
        goal.attempts += 1;
        let Some(directory) = self.spec.directory.clone() else { return Vec::new() };
        let switch = InstallEffect::Switch {
            directory,
            transaction: goal.transaction.clone(),
            release_dir: goal.to.release_dir.clone(),
        };
        let state = if is_rollback { InstallState::RollingBack } else { InstallState::Armed };
        let mut effects = self.enter(state, is_rollback);
        effects.push(Effect::Install(switch));
        effects
    }

    /// The link was swapped, or could not be.
    pub(crate) fn switch_ended(
        &mut self,
        transaction: &str,
        result: Result<(), StepFailure>,
        now_ms: u64,
    ) -> Vec<Effect> {
        if self.goal.as_ref().is_none_or(|goal| goal.transaction != transaction) {
            return Vec::new();
        }
        let is_rollback = self.state == InstallState::RollingBack;
        match (self.state, result) {
            (InstallState::Armed | InstallState::RollingBack, Ok(())) => self.switched(is_rollback),
            (InstallState::Armed | InstallState::RollingBack, Err(failure)) => self.failed(&failure, now_ms),
            _ => Vec::new(),
        }
    }

    fn switched(&mut self, is_rollback: bool) -> Vec<Effect> {
        let mut effects = self.enter(InstallState::Switched, is_rollback);
        let Some(goal) = self.goal.take() else { return effects };
        let from = self.installed.replace(goal.to.clone()).filter(|from| from.release_dir != goal.to.release_dir);
        if let Some(from) = from {
            if is_rollback {
                self.quarantine.insert(from.artifact);
            }
            self.previous = Some(from);
        }
        self.failures = 0;
        self.retry_at_ms = 0;
        let left = self.previous.as_ref().map(|previous| previous.version.to_string());
        let (state, kind, text) = if is_rollback {
            let left = left.unwrap_or_default();
            (InstallState::Quarantined, EventKind::RolledBack, format!("went back from {left} to {}", goal.to.version))
        } else {
            let over = left.map(|left| format!(" over {left}")).unwrap_or_default();
            (InstallState::Committed, EventKind::Installed, format!("installed {}{over}", goal.to.version))
        };
        self.state = state;
        self.reason.clone_from(&text);
        effects.push(Effect::Journal(JournalEntry {
            directory: self.spec.directory.clone().unwrap_or_default(),
            product: self.spec.product.clone(),
            state,
            transaction: goal.transaction,
            from: self.previous.clone(),
            to: self.installed.clone(),
            attempts: goal.attempts,
            is_rollback,
            completes: true,
        }));
        effects.push(self.event(kind, &goal.to.version, text));
        if let Some(directory) = self.spec.directory.clone() {
            let keep =
                self.installed.iter().chain(&self.previous).map(|installed| installed.release_dir.clone()).collect();
            effects.push(Effect::Install(InstallEffect::Collect { directory, keep }));
        }
        effects
    }

    fn failed(&mut self, failure: &StepFailure, now_ms: u64) -> Vec<Effect> {
        // A bad artifact is quarantined and not tried again: there is nothing to wait for, least of all
        // with the release that mends it.
        self.failures += u32::from(!failure.artifact_is_bad);
        let pause_ms = RETRY_MS.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(MAX_RETRY_MS);
        if !failure.artifact_is_bad {
            self.retry_at_ms = now_ms + pause_ms;
        }
        let Some(goal) = self.goal.take() else { return Vec::new() };
        self.state = if self.installed.is_some() { InstallState::Committed } else { InstallState::Idle };
        self.reason = if failure.artifact_is_bad {
            self.quarantine.insert(goal.to.artifact);
            self.state = InstallState::Quarantined;
            format!("{} cannot be installed: {}", goal.to.version, failure.reason)
        } else {
            format!(
                "{} could not be installed: {}; next try in {} s",
                goal.to.version,
                failure.reason,
                pause_ms / 1_000
            )
        };
        let mut effects = vec![self.event(EventKind::InstallFailed, &goal.to.version, self.reason.clone())];
        if let Some(directory) = self.spec.directory.clone() {
            effects.push(Effect::Journal(JournalEntry {
                directory: directory.clone(),
                product: self.spec.product.clone(),
                state: self.state,
                transaction: goal.transaction.clone(),
                from: self.installed.clone(),
                to: Some(goal.to),
                attempts: goal.attempts,
                is_rollback: false,
                completes: false,
            }));
            effects.push(Effect::Install(InstallEffect::Discard { directory, transaction: goal.transaction }));
        }
        effects
    }

    /// An operator asks for the previous release.
    pub(crate) fn roll_back(&mut self, to: Option<&Version>, transaction: String) -> Result<Vec<Effect>, Refusal> {
        let product = self.spec.product.clone();
        if self.is_committed_to_step() {
            return Err(Refusal::Busy { product, state: self.state });
        }
        let Some(previous) = self.previous.clone() else { return Err(Refusal::NoPrevious { product }) };
        if let Some(wanted) = to.filter(|wanted| **wanted != previous.version) {
            return Err(Refusal::NotKept { product, wanted: wanted.clone(), kept: previous.version });
        }
        let mut effects = self.abandon();
        self.goal = Some(Goal { transaction, to: previous, release: None, attempts: 0 });
        effects.extend(self.arm(true));
        Ok(effects)
    }

    /// An operator asks to try again now, quarantine or not.
    pub(crate) fn retry(&mut self, hurry: bool) {
        self.quarantine.clear();
        let offered = self.decision.as_ref().and_then(|decision| decision.offered.as_ref());
        self.hurry = offered.filter(|_| hurry).map(|release| release.artifact);
        self.retry_at_ms = 0;
        self.failures = 0;
    }

    fn enter(&mut self, state: InstallState, is_rollback: bool) -> Vec<Effect> {
        self.state = state;
        let (Some(directory), Some(goal)) = (self.spec.directory.clone(), &self.goal) else { return Vec::new() };
        self.reason = match state {
            InstallState::Fetching => format!("fetching {}", goal.to.version),
            InstallState::Verified => format!("unpacking {}", goal.to.version),
            _ => format!("switching to {}", goal.to.version),
        };
        vec![Effect::Journal(JournalEntry {
            directory,
            product: self.spec.product.clone(),
            state,
            transaction: goal.transaction.clone(),
            from: self.installed.clone(),
            to: Some(goal.to.clone()),
            attempts: goal.attempts,
            is_rollback,
            completes: false,
        })]
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
