//! What a line of the install journal tells the seed.
//!
//! The line, and not what people are told, says which release an outcome is about: the words name what runs
//! from now on, the vote is about what was tried. It must never be held against the release that came back.

use updraft_protocol::names::Product;
use updraft_protocol::outcome::Outcome;

use super::super::effect::EventKind;
use super::super::install::{InstallState, Installed, JournalEntry};

/// Something to report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// The subscription's directory: there may be several of one product.
    pub(super) directory: String,
    pub(super) product: Product,
    pub(super) outcome: Outcome,
    /// The release that was tried.
    pub(super) release: Installed,
    pub(super) text: String,
}

/// What a line tells; most tell nothing. One that does not say which release failed tells nothing either:
/// better no vote than one against another release.
pub(super) fn told(line: &JournalEntry) -> Option<Told> {
    let (outcome, release, text) = match &line.outcome {
        None if line.state == InstallState::Staged => {
            let to = line.to.as_ref()?;
            (Outcome::Began, to, format!("unpacked to releases/{}", to.release_dir))
        }
        None => return None,
        Some(end) => {
            let (outcome, release) = match end.kind {
                EventKind::Installed => (Outcome::Installed, &line.to),
                EventKind::InstallFailed if line.way.is_back() => (Outcome::Failed, &line.from),
                EventKind::InstallFailed => (Outcome::Failed, &line.to),
                EventKind::RolledBack => (Outcome::RolledBack, &line.from),
                _ => return None,
            };
            (outcome, release.as_ref()?, end.text.clone())
        }
    };
    Some(Told {
        directory: line.directory.clone(),
        product: line.product.clone(),
        outcome,
        release: release.clone(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use semver::Version;
    use updraft_protocol::digest::Digest;

    use super::super::super::install::{self, Way};
    use super::*;

    fn release(minor: u64) -> Installed {
        let version = Version::new(1, minor, 0);
        let artifact = Digest::of(version.to_string().as_bytes());
        Installed { release_dir: format!("{version}-x"), version, artifact }
    }

    /// A line of an attempt from 1.0.0 to 1.1.0, or of the way back.
    fn line(state: InstallState, way: Way, kind: Option<EventKind>) -> JournalEntry {
        let (from, to) = if way.is_back() { (release(1), release(0)) } else { (release(0), release(1)) };
        let outcome = kind.map(|kind| install::Outcome {
            kind,
            version: release(0).version,
            text: "words".to_owned(),
            installed: None,
            quarantine: None,
        });
        JournalEntry {
            directory: "/opt/app".to_owned(),
            product: "app".parse().expect("a name"),
            state,
            transaction: "t1".to_owned(),
            from: Some(from),
            to: Some(to),
            attempts: 1,
            way,
            remaining_ms: None,
            reason: None,
            outcome,
        }
    }

    #[test]
    fn every_outcome_is_about_the_release_that_was_tried() {
        let end = |state, way, kind| told(&line(state, way, Some(kind))).map(|told| (told.outcome, told.release));
        let cases = [
            (InstallState::Committed, Way::Forward, EventKind::Installed, Outcome::Installed),
            (InstallState::Quarantined, Way::Forward, EventKind::InstallFailed, Outcome::Failed),
            (InstallState::RollingBack, Way::Back, EventKind::InstallFailed, Outcome::Failed),
            (InstallState::Quarantined, Way::Back, EventKind::RolledBack, Outcome::RolledBack),
            (InstallState::Quarantined, Way::BackByOperator, EventKind::RolledBack, Outcome::RolledBack),
        ];
        for (state, way, kind, outcome) in cases {
            assert_eq!(end(state, way, kind), Some((outcome, release(1))), "{state:?} {way:?}");
        }
    }

    #[test]
    fn a_beginning_is_told_once_and_steps_are_not() {
        let began = told(&line(InstallState::Staged, Way::Forward, None)).expect("told");
        assert_eq!((began.outcome, began.release), (Outcome::Began, release(1)));
        for state in [InstallState::Armed, InstallState::Switched, InstallState::Probation, InstallState::RollingBack] {
            assert_eq!(told(&line(state, Way::Forward, None)), None, "{state:?}");
        }
    }

    #[test]
    fn where_nobody_knows_what_was_left_nothing_is_held_against_what_came_back() {
        let lost = line(InstallState::Quarantined, Way::Back, Some(EventKind::RolledBack));
        assert_eq!(told(&JournalEntry { from: None, ..lost }), None);
    }
}
