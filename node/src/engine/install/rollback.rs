//! The way back from a release that did not prove itself, or that an operator does not want.
//!
//! Going back waits for no gate. Where there is nothing to go back to (the first install failed), the
//! release stays where it is: `current` must not dangle, and a supervisor may bring it up yet. It is
//! quarantined all the same, is not called installed, and the next release takes its place.

use super::super::effect::{Effect, EventKind};
use super::journal::{Outcome, Way};
use super::{Goal, InstallState, Installed, MAX_PLACE_MS, Phase, Subscription, pause_ms};

impl Subscription {
    /// Leaves the release that is under way for the one that is installed.
    pub(super) fn go_back(&mut self, reason: &str, way: Way) -> Vec<Effect> {
        let Some(mut goal) = self.goal.take() else { return Vec::new() };
        let bad = goal.to.clone();
        let Some(back) = self.installed.clone().filter(|installed| installed.release_dir != bad.release_dir) else {
            return self.stay(&goal, bad, reason);
        };
        self.left = Some(bad.clone());
        self.quarantine.insert(bad.artifact, reason.to_owned());
        let text = format!("{} failed: {reason}; going back to {}", bad.version, back.version);
        let outcome = Outcome {
            kind: EventKind::InstallFailed,
            version: bad.version.clone(),
            text: text.clone(),
            installed: None,
            quarantine: Some((bad.artifact, reason.to_owned())),
        };
        let event = self.event(EventKind::InstallFailed, &bad.version, text);
        goal = Goal {
            to: back,
            left: Some(bad),
            release: None,
            way,
            attempts: 0,
            why: Some(reason.to_owned()),
            left_ms: None,
            runs: false,
            phase: Phase::Working,
            transaction: goal.transaction,
        };
        self.goal = Some(goal);
        self.failures = 0;
        let mut effects = self.arm();
        // What failed is quarantined together with the first line of the way back.
        for effect in &mut effects {
            if let Effect::Journal(line) = effect {
                line.outcome = Some(outcome.clone());
            }
        }
        effects.push(event);
        effects
    }

    /// Nothing to go back to.
    fn stay(&mut self, goal: &Goal, bad: Installed, reason: &str) -> Vec<Effect> {
        self.state = InstallState::Quarantined;
        self.left = Some(bad.clone());
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
        self.left.clone_from(&left);
        let stays = left.as_ref().map_or_else(|| "what runs".to_owned(), |left| left.version.to_string());
        // What failed its trial stays quarantined; what an operator did not want goes on.
        let from_trial = self.installed.as_ref().is_some_and(|installed| installed.release_dir == goal.to.release_dir);
        self.state = if from_trial { InstallState::Quarantined } else { self.rest() };
        let version = left.as_ref().map_or(&goal.to.version, |left| &left.version).clone();
        let outcome = Outcome {
            kind: EventKind::InstallFailed,
            version,
            text: format!("cannot go back to {}: {reason}; {stays} stays in place", goal.to.version),
            installed: None,
            quarantine: None,
        };
        self.end(&goal, left, outcome)
    }

    /// The release that is back could not be started: once more, until it was tried often enough.
    pub(super) fn back_not_started(&mut self, reason: &str, now_ms: u64) -> Vec<Effect> {
        let Some(goal) = &mut self.goal else { return Vec::new() };
        if goal.attempts >= self.trial.max_attempts {
            return self.settle(Some(reason));
        }
        self.failures = self.failures.saturating_add(1);
        let pause_ms = pause_ms(self.failures, MAX_PLACE_MS);
        goal.phase = Phase::Waiting { until_ms: now_ms.saturating_add(pause_ms), reason: reason.to_owned() };
        let version = goal.to.version.clone();
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
        (self.failures, self.retry_at_ms) = (0, 0);
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
        self.left.clone_from(&left);
        effects.extend(self.end(&goal, left, outcome));
        effects
    }
}
