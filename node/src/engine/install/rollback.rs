//! The way back from a release that did not prove itself, or that an operator does not want.
//!
//! Going back waits for no gate. Where there is nothing to go back to (the first install failed), the
//! release stays where it is: `current` must not dangle, and a supervisor may bring it up yet. It is
//! quarantined all the same, is not called installed, and the next release takes its place.

use super::super::effect::{Effect, EventKind};
use super::journal::{Outcome, Way};
use super::{Goal, InstallState, Installed, MAX_PLACE_MS, Phase, RETRY_MS, Subscription, pause_ms};

/// Parts the name of an attempt from what its way back adds to it.
const BACK: &str = "-back-";

/// Names a start on the way back of the attempt `transaction`: an answer that an earlier start still owes
/// is not taken for this one's.
pub(super) fn name(transaction: &str, attempts: u32) -> String {
    let attempt = transaction.split_once(BACK).map_or(transaction, |(attempt, _)| attempt);
    format!("{attempt}{BACK}{attempts}")
}

impl Subscription {
    /// Leaves the release that is under way for the one that is installed.
    pub(super) fn go_back(&mut self, reason: &str, way: Way) -> Vec<Effect> {
        let Some(goal) = self.goal.take() else { return Vec::new() };
        match self.installed.clone().filter(|installed| installed.release_dir != goal.to.release_dir) {
            Some(back) => self.turn_back(goal, back, reason, way),
            None => self.stay(&goal, goal.to.clone(), reason),
        }
    }

    /// Leaves the release that `goal` leads to for `back`.
    pub(super) fn turn_back(&mut self, goal: Goal, back: Installed, reason: &str, way: Way) -> Vec<Effect> {
        let bad = goal.to;
        let text = format!("{} failed: {reason}; going back to {}", bad.version, back.version);
        // A person's word is no verdict about the release: a hold says what is not to come again.
        let verdict = (way == Way::Back).then(|| Outcome {
            kind: EventKind::InstallFailed,
            version: bad.version.clone(),
            text,
            installed: None,
            quarantine: Some((bad.artifact, reason.to_owned())),
        });
        self.goal =
            Some(Goal { left: Some(bad), way, why: Some(reason.to_owned()), ..Goal::new(goal.transaction, back) });
        self.setback = None;
        let mut effects = self.arm();
        let Some(verdict) = verdict else { return effects };
        effects.push(self.event(verdict.kind, &verdict.version, verdict.text.clone()));
        if let Some((artifact, reason)) = verdict.quarantine.clone() {
            self.quarantine.insert(artifact, reason);
        }
        // What failed is quarantined together with the first line of the way back.
        for effect in &mut effects {
            if let Effect::Journal(line) = effect {
                line.outcome = Some(verdict.clone());
            }
        }
        effects
    }

    /// Nothing to go back to.
    fn stay(&mut self, goal: &Goal, bad: Installed, reason: &str) -> Vec<Effect> {
        self.state = InstallState::Quarantined;
        self.quarantine.insert(bad.artifact, reason.to_owned());
        let product = &self.spec.product;
        let text = format!(
            "{} failed: {reason}; there is no release to go back to, so it stays in place and is not tried again by itself: `updraft install {product}` does",
            bad.version
        );
        let outcome = Outcome {
            kind: EventKind::InstallFailed,
            version: bad.version,
            text,
            installed: None,
            quarantine: Some((bad.artifact, reason.to_owned())),
        };
        self.end(goal, None, outcome)
    }

    /// The release that was to come back is not there any more.
    pub(super) fn lost(&mut self, reason: &str) -> Vec<Effect> {
        let Some(goal) = self.goal.take() else { return Vec::new() };
        let left = goal.left.clone();
        let stays = left.as_ref().map_or_else(|| "what runs".to_owned(), |left| left.version.to_string());
        // What failed its trial stays quarantined; what an operator did not want goes on.
        let from_trial = self.installed.as_ref().is_some_and(|installed| installed.release_dir == goal.to.release_dir);
        self.state = if from_trial { InstallState::Quarantined } else { self.rest() };
        let version = left.as_ref().map_or(&goal.to.version, |left| &left.version).clone();
        // What goes on because nothing else is there did not fail, and no seed is told that it did.
        let failed = from_trial && goal.way == Way::Back;
        let outcome = Outcome {
            kind: if failed { EventKind::InstallFailed } else { EventKind::Alarm },
            version,
            text: format!("cannot go back to {}: {reason}; {stays} stays in place", goal.to.version),
            installed: None,
            quarantine: None,
        };
        let mut effects = self.end(&goal, left, outcome);
        if !failed {
            // An alarm is written to the history by whoever hears it.
            for effect in &mut effects {
                if let Effect::Journal(line) = effect {
                    line.outcome = None;
                }
            }
        }
        effects
    }

    /// The release that is back could not be started: once more, until it was tried often enough.
    pub(super) fn back_not_started(&mut self, reason: &str, now_ms: u64) -> Vec<Effect> {
        let Some(goal) = &self.goal else { return Vec::new() };
        if goal.attempts >= self.trial.max_attempts {
            return self.settle(Some(reason));
        }
        let version = goal.to.version.clone();
        let pause_ms = pause_ms(self.set_back(), RETRY_MS, MAX_PLACE_MS);
        if let Some(goal) = &mut self.goal {
            goal.phase = Phase::Waiting { until_ms: Some(now_ms.saturating_add(pause_ms)), reason: reason.to_owned() };
        }
        let text = format!("{version} is back and could not be started: {reason}");
        self.reason = format!("{text}; next try in {} s", pause_ms.div_ceil(1_000));
        vec![self.event(EventKind::Alarm, &version, text)]
    }

    /// The release before is back. `trouble` is why it could not be started.
    pub(super) fn settle(&mut self, trouble: Option<&str>) -> Vec<Effect> {
        let Some(goal) = self.goal.take() else { return Vec::new() };
        let was_installed = self.installed.replace(goal.to.clone());
        // Back from a trial, what runs is what was installed all the time.
        if let Some(left) = was_installed.filter(|left| left.release_dir != goal.to.release_dir) {
            self.previous = Some(left);
        }
        self.state = InstallState::Quarantined;
        self.setback = None;
        let left = goal.left.as_ref().map(|left| format!(" from {}", left.version)).unwrap_or_default();
        let why = goal.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let mut text = format!("went back{left} to {}{why}", goal.to.version);
        let mut effects = Vec::new();
        if let Some(trouble) = trouble {
            text.push_str("; it could not be started: ");
            text.push_str(trouble);
            effects.push(self.event(EventKind::Alarm, &goal.to.version, text.clone()));
        }
        let outcome = Outcome {
            kind: EventKind::RolledBack,
            version: goal.to.version.clone(),
            text,
            installed: Some((goal.to.clone(), self.previous.clone())),
            quarantine: None,
        };
        let left = goal.left.clone();
        effects.extend(self.end(&goal, left, outcome));
        effects
    }
}
