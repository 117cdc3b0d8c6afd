//! Going on after a start: the journal says what was begun, the link says how far it came.
//!
//! Every start of the node in the middle of a trial counts as an attempt, written down before anything is
//! started: a release that takes the node or the machine with it is given up too. Where the node itself is
//! what is started, its first start after the switch is the one that was counted when that was decided.

use super::super::effect::Effect;
use super::journal::{JournalEntry, Recovered, Way};
use super::trial::Starter;
use super::{Goal, InstallState, Installed, Subscription, SubscriptionSpec};

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
            hurry: None,
            goal: None,
            setback: None,
        };
        subscription.state = subscription.rest();
        let Some(journal) = found.journal else { return (subscription, Vec::new()) };
        let link = Link { current: found.current, stands: found.stands, runs: found.runs };
        let effects = match (journal.state, journal.to.clone()) {
            (InstallState::Armed | InstallState::Switched | InstallState::Probation, Some(to)) => {
                subscription.resume(journal, to, link, now_ms)
            }
            (InstallState::RollingBack, Some(to)) => {
                let way = if journal.way.is_back() { journal.way } else { Way::BackByOperator };
                let runs = link.runs && link.is_at(&to);
                let mut goal = Goal { way, runs, ..goal(journal, to) };
                if runs {
                    // This start is the one that the line counts.
                    goal.attempts = goal.attempts.saturating_sub(1);
                }
                subscription.goal = Some(goal);
                // Swapping the link once more does no harm.
                subscription.arm()
            }
            _ => subscription.rest_again(journal, link),
        };
        (subscription, effects)
    }

    /// Nothing was switched when the node stopped: what `current` points at is what is installed, or
    /// somebody put it back.
    fn rest_again(&mut self, journal: JournalEntry, link: Link) -> Vec<Effect> {
        let mut effects = Vec::new();
        match journal.state {
            InstallState::Quarantined => self.state = InstallState::Quarantined,
            InstallState::Committed | InstallState::Idle => {}
            // Before Armed nothing points at what was staged: it is made again from the verified artifact.
            _ => effects.extend(self.discard(journal.transaction.clone())),
        }
        let Some(installed) = self.installed.clone() else { return effects };
        if link.is_at(&installed) {
            // The node may have been killed between the last line and what follows it.
            if journal.state == InstallState::Committed {
                effects.extend(self.spec.directory.clone().map(|directory| self.collect(directory)));
            }
            return effects;
        }
        if let Some(stands) = link.stands {
            // What ran here did not stay up, whatever it had proved before.
            effects.extend(self.put_back(Goal::new(journal.transaction, installed), stands, link.runs));
        }
        effects
    }

    /// While the node was down, a launcher that counted failed starts put `current` back to `stands`, or a
    /// person had enough of what ran.
    fn put_back(&mut self, attempt: Goal, stands: Installed, runs: bool) -> Vec<Effect> {
        let reason = "`current` was put back while the node did not run";
        let effects = self.turn_back(attempt, stands, reason, Way::Back);
        if let Some(goal) = &mut self.goal {
            goal.runs = runs;
        }
        effects
    }

    fn resume(&mut self, journal: JournalEntry, to: Installed, link: Link, now_ms: u64) -> Vec<Effect> {
        let was = journal.state;
        let is_switched = link.is_at(&to);
        let installed = self.installed.clone().filter(|installed| link.is_at(installed));
        let mut goal = goal(journal, to);
        if was != InstallState::Armed
            && !is_switched
            && let Some(stands) = installed.or(link.stands)
        {
            return self.put_back(goal, stands, link.runs);
        }
        self.state = was;
        // Where starting the release is starting this node, the first start after the switch is the one that
        // was counted when the switch was decided.
        let is_counted = link.runs && is_switched && was != InstallState::Probation;
        let attempts = goal.attempts.saturating_add(u32::from(!is_counted));
        if self.trial.is_exhausted(attempts) {
            let reason = format!("it was started {} times and did not prove itself", goal.attempts);
            self.goal = Some(goal);
            return self.go_back(&reason, Way::Back);
        }
        if !is_switched {
            self.goal = Some(goal);
            return self.arm();
        }
        goal.attempts = attempts;
        if link.runs {
            goal.left_ms = None;
        }
        self.goal = Some(goal);
        let is_unit = matches!(self.trial.activation.as_ref().map(|a| &a.starter), Some(Starter::Unit(_)));
        // systemd keeps a unit up by itself.
        let runs = link.runs || (is_unit && was == InstallState::Probation);
        let mut effects = Vec::new();
        if is_counted {
            // The next line is another state's, so that the next start counts.
            self.state = InstallState::Switched;
        } else {
            effects.extend(self.enter(InstallState::Switched));
        }
        effects.extend(if runs { self.started(now_ms) } else { self.start(now_ms) });
        effects
    }
}

/// What a node finds at `current`.
struct Link {
    current: Option<String>,
    stands: Option<Installed>,
    runs: bool,
}

impl Link {
    fn is_at(&self, release: &Installed) -> bool {
        self.current.as_deref() == Some(&release.release_dir)
    }
}

fn goal(journal: JournalEntry, to: Installed) -> Goal {
    Goal {
        left: journal.from,
        way: journal.way,
        attempts: journal.attempts,
        why: journal.reason,
        left_ms: journal.remaining_ms,
        ..Goal::new(journal.transaction, to)
    }
}
