//! What an operator may ask of an install: to go back, to hold, to try again.

use semver::Version;

use super::super::effect::{Effect, EventKind, Hold};
use super::journal::{Installed, Way};
use super::refusal::Refusal;
use super::{Goal, InstallState, MAX_HELD_VERSIONS, Phase, Subscription};

impl Subscription {
    /// Goes back to the previous release, or to any of `kept`. What is left is held, unless `hold` says no.
    pub(crate) fn roll_back(
        &mut self,
        to: Option<&Version>,
        kept: &[Installed],
        hold: bool,
        transaction: String,
    ) -> Result<Vec<Effect>, Refusal> {
        let product = self.spec.product.clone();
        // What is just being started is not pulled away under its starter: that ends soon, by its deadline.
        let is_starting = self.goal.as_ref().is_some_and(|goal| matches!(goal.phase, Phase::Starting { .. }));
        if matches!(self.state, InstallState::Switched | InstallState::Probation) && !is_starting {
            return self.roll_back_trial(to, hold);
        }
        if self.is_busy() {
            return Err(Refusal::Busy { product, state: self.state });
        }
        let installed = self.installed.as_ref();
        if let (Some(installed), Some(wanted)) = (installed, to)
            && installed.version == *wanted
        {
            return Err(Refusal::RunsAlready { product, version: wanted.clone() });
        }
        let others = self.previous.iter().chain(kept).filter(|other| installed != Some(*other));
        let target = match to {
            None => self.previous.clone(),
            Some(wanted) => others.clone().find(|other| other.version == *wanted).cloned(),
        };
        let Some(target) = target else {
            let Some(wanted) = to else { return Err(Refusal::NoPrevious { product }) };
            let mut kept: Vec<Version> = others.map(|other| other.version.clone()).collect();
            kept.sort();
            kept.dedup();
            return Err(Refusal::NotKept { product, wanted: wanted.clone(), kept });
        };
        let left = self.installed.clone();
        let mut effects = match left.as_ref().filter(|_| hold) {
            Some(left) => self.hold(Some(&left.version.clone()), "an operator went back from it")?,
            None => Vec::new(),
        };
        effects.extend(self.abandon());
        self.goal = Some(Goal { left, way: Way::BackByOperator, ..Goal::new(transaction, target) });
        self.setback = None;
        effects.extend(self.arm());
        Ok(effects)
    }

    /// Ends a trial before its time.
    fn roll_back_trial(&mut self, to: Option<&Version>, hold: bool) -> Result<Vec<Effect>, Refusal> {
        let product = self.spec.product.clone();
        let Some(installed) = self.installed.clone() else { return Err(Refusal::NoPrevious { product }) };
        let left = self.goal.as_ref().map(|goal| goal.to.version.clone());
        if let Some(wanted) = to.filter(|wanted| **wanted != installed.version).cloned() {
            return Err(if Some(&wanted) == left.as_ref() {
                Refusal::RunsAlready { product, version: wanted }
            } else {
                Refusal::OnTrial { product, wanted, installed: installed.version }
            });
        }
        let mut effects = match left.as_ref().filter(|_| hold) {
            Some(left) => self.hold(Some(left), "an operator went back from it")?,
            None => Vec::new(),
        };
        effects.extend(self.go_back("an operator asked for it", Way::BackByOperator));
        Ok(effects)
    }

    /// Keeps `version`, or everything, from being installed. No effects where that holds already.
    pub(crate) fn hold(&mut self, version: Option<&Version>, reason: &str) -> Result<Vec<Effect>, Refusal> {
        let count = self.holds.versions.len();
        if count >= MAX_HELD_VERSIONS && version.is_some_and(|version| !self.holds.versions.contains_key(version)) {
            return Err(Refusal::TooManyHolds { product: self.spec.product.clone(), count });
        }
        if !self.holds.add(version, reason) {
            return Ok(Vec::new());
        }
        let what = version.map_or_else(|| "every update".to_owned(), ToString::to_string);
        Ok(self.held(version.cloned(), Some(reason.to_owned()), format!("{what} is held: {reason}")))
    }

    /// Lifts the hold on `version`, or every hold. No effects where there was none.
    pub(crate) fn unhold(&mut self, version: Option<&Version>) -> Vec<Effect> {
        if !self.holds.lift(version) {
            return Vec::new();
        }
        let what =
            version.map_or_else(|| "nothing is held any more".to_owned(), |v| format!("{v} is not held any more"));
        self.held(version.cloned(), None, what)
    }

    fn held(&self, version: Option<Version>, reason: Option<String>, text: String) -> Vec<Effect> {
        let Some(directory) = self.spec.directory.clone() else { return Vec::new() };
        let mut event = self.event(EventKind::HoldChanged, &Version::new(0, 0, 0), text);
        if let Effect::Event(event) = &mut event {
            event.version.clone_from(&version);
        }
        let product = self.spec.product.clone();
        vec![Effect::Hold(Hold { directory, product, version, reason }), event]
    }

    /// An operator asks to try the offered release again now: what only the machine, or a hold on that very
    /// version, keeps from it is lifted.
    pub(crate) fn retry(&mut self, hurry: bool) -> Vec<Effect> {
        self.quarantine.clear();
        let offered = self.decision.as_ref().and_then(|decision| decision.offered.clone());
        self.hurry = offered.as_ref().filter(|_| hurry).map(|release| release.artifact);
        self.setback = None;
        if let Some(Goal { phase: Phase::Waiting { until_ms, .. }, .. }) = &mut self.goal {
            *until_ms = None;
        }
        match offered {
            Some(release) if self.spec.directory.is_some() => self.unhold(Some(&release.id.version)),
            _ => Vec::new(),
        }
    }
}
