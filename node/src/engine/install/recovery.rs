//! Going on after a start: the journal says what was begun, the link says how far it came.
//!
//! Every start of the node in the middle of a trial counts as an attempt, written down before anything is
//! started: a release that takes the node or the machine with it is given up too.

use super::super::effect::{Effect, InstallEffect};
use super::journal::{JournalEntry, Recovered, Way};
use super::trial::Starter;
use super::{Goal, InstallState, Installed, Phase, Subscription, SubscriptionSpec};

/// Why a release is left that somebody else left already.
const PUT_BACK: &str = "`current` was put back while the node did not run";

impl Subscription {
    /// A subscription as a node finds it at start.
    pub(crate) fn restore(spec: SubscriptionSpec, found: Recovered, now_ms: u64) -> (Self, Vec<Effect>) {
        let mut subscription = Self {
            spec,
            state: InstallState::Idle,
            installed: found.installed,
            previous: found.previous,
            reason: String::new(),
            decision: None,
            quarantine: found.quarantine,
            holds: found.holds,
            trial: found.trial,
            ended: None,
            left: None,
            hurry: None,
            goal: None,
            failures: 0,
            retry_at_ms: 0,
        };
        subscription.state = subscription.rest();
        let Some(journal) = found.journal else { return (subscription, Vec::new()) };
        let effects = match (journal.state, journal.to.clone()) {
            (InstallState::Armed | InstallState::Switched | InstallState::Probation, Some(to)) => {
                subscription.resume(journal, to, found.current.as_deref(), found.runs, now_ms)
            }
            (InstallState::RollingBack, Some(to)) => {
                let way = if journal.way.is_back() { journal.way } else { Way::BackByOperator };
                let runs = found.runs && found.current.as_deref() == Some(&to.release_dir);
                subscription.goal = Some(Goal { way, runs, ..goal(journal, to) });
                // Swapping the link once more does no harm.
                subscription.arm()
            }
            (state @ (InstallState::Quarantined | InstallState::Committed | InstallState::Idle), _) => {
                if state == InstallState::Quarantined {
                    subscription.state = state;
                }
                let current = found.current.as_deref();
                subscription.put_back(current, journal.transaction, found.runs)
            }
            // Before Armed nothing points at what was staged: it is made again from the verified artifact.
            _ => {
                let transaction = journal.transaction;
                let directory = subscription.spec.directory.clone();
                let discard = |directory| Effect::Install(InstallEffect::Discard { directory, transaction });
                directory.map(discard).into_iter().collect()
            }
        };
        (subscription, effects)
    }

    /// A release that had proved itself by what was asked of it, and that a launcher or a person went back
    /// from all the same: what is told of it follows the link.
    fn put_back(&mut self, current: Option<&str>, transaction: String, runs: bool) -> Vec<Effect> {
        let is_current = |installed: &Installed| current == Some(&installed.release_dir);
        let Some(left) = self.installed.clone().filter(|installed| !is_current(installed)) else { return Vec::new() };
        let Some(back) = self.previous.take_if(|previous| is_current(previous)) else { return Vec::new() };
        self.installed = Some(back);
        self.goal = Some(Goal {
            transaction,
            to: left,
            left: None,
            release: None,
            way: Way::Forward,
            attempts: 0,
            why: None,
            left_ms: None,
            runs: false,
            phase: Phase::Working,
        });
        let effects = self.go_back(PUT_BACK, Way::Back);
        if let Some(goal) = &mut self.goal {
            goal.runs = runs;
        }
        effects
    }

    fn resume(
        &mut self,
        journal: JournalEntry,
        to: Installed,
        current: Option<&str>,
        runs: bool,
        now_ms: u64,
    ) -> Vec<Effect> {
        let was = journal.state;
        let is_switched = current == Some(&to.release_dir);
        let is_back = self.installed.as_ref().is_some_and(|installed| current == Some(&installed.release_dir));
        let goal = self.goal.insert(goal(journal, to));
        self.state = was;
        // The start that was counted before the link was swapped is this very one.
        let is_the_start = runs && is_switched && was != InstallState::Probation;
        let attempts = goal.attempts.saturating_add(u32::from(!is_the_start));
        if was != InstallState::Armed && !is_switched && is_back {
            // A launcher counted its failed starts, or a person had enough of it.
            let effects = self.go_back(PUT_BACK, Way::Back);
            if let Some(goal) = &mut self.goal {
                goal.runs = runs;
            }
            return effects;
        }
        if self.trial.is_exhausted(attempts) {
            let reason = format!("it was started {} times and did not prove itself", goal.attempts);
            return self.go_back(&reason, Way::Back);
        }
        if !is_switched {
            return self.arm();
        }
        goal.attempts = attempts;
        if is_the_start {
            // The next line says that it was made: one that comes after it counts again.
            self.state = InstallState::Switched;
            return self.started(now_ms);
        }
        let mut effects = self.enter(InstallState::Switched);
        let is_unit = matches!(self.trial.activation.as_ref().map(|a| &a.starter), Some(Starter::Unit(_)));
        // systemd keeps a unit up by itself.
        let runs = runs || (is_unit && was == InstallState::Probation);
        effects.extend(if runs { self.started(now_ms) } else { self.start(now_ms) });
        effects
    }
}

fn goal(journal: JournalEntry, to: Installed) -> Goal {
    Goal {
        transaction: journal.transaction,
        to,
        left: journal.from,
        release: None,
        way: journal.way,
        attempts: journal.attempts,
        why: journal.reason,
        left_ms: journal.remaining_ms,
        runs: false,
        phase: Phase::Working,
    }
}
