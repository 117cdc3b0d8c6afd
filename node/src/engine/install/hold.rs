//! What an operator keeps from being installed.
//!
//! A quarantine is the machine's own judgement about one artifact; a hold is a person's word about a
//! product or a version, and only a person takes it back.

use std::collections::BTreeMap;

use semver::Version;

/// Versions that may be held at a time in one directory. Bounds memory and the table.
pub const MAX_HELD_VERSIONS: usize = 64;

/// The holds on one subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    /// Nothing is installed at all, and why.
    pub everything: Option<String>,
    /// Versions that are not installed, and why.
    pub versions: BTreeMap<Version, String>,
}

impl Holds {
    /// Why `version` is not to be installed.
    pub fn of(&self, version: &Version) -> Option<String> {
        if let Some(reason) = &self.everything {
            return Some(format!("every update is held: {reason}"));
        }
        self.versions.get(version).map(|reason| format!("{version} is held: {reason}"))
    }

    /// Holds `version`, or everything. False where nothing changed.
    pub fn add(&mut self, version: Option<&Version>, reason: &str) -> bool {
        let reason = reason.to_owned();
        match version {
            Some(version) => self.versions.insert(version.clone(), reason.clone()).as_ref() != Some(&reason),
            None => self.everything.replace(reason.clone()).as_ref() != Some(&reason),
        }
    }

    /// Lifts the hold on `version`, or all of them. False where there was none.
    pub fn lift(&mut self, version: Option<&Version>) -> bool {
        if let Some(version) = version {
            return self.versions.remove(version).is_some();
        }
        let any = !self.is_empty();
        *self = Self::default();
        any
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.everything.is_none() && self.versions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_version_leaves_the_others_free() {
        let mut holds = Holds::default();
        assert!(holds.add(Some(&Version::new(1, 1, 0)), "it was slow"));
        assert!(!holds.add(Some(&Version::new(1, 1, 0)), "it was slow"), "nothing changed");
        assert_eq!(holds.of(&Version::new(1, 1, 0)).as_deref(), Some("1.1.0 is held: it was slow"));
        assert_eq!(holds.of(&Version::new(1, 2, 0)), None);
        assert!(holds.lift(Some(&Version::new(1, 1, 0))));
        assert!(!holds.lift(Some(&Version::new(1, 1, 0))));
    }

    #[test]
    fn lifting_everything_lifts_versions_too() {
        let mut holds = Holds::default();
        holds.add(None, "fair week");
        holds.add(Some(&Version::new(1, 1, 0)), "it was slow");
        assert_eq!(holds.of(&Version::new(2, 0, 0)).as_deref(), Some("every update is held: fair week"));
        assert!(holds.lift(None));
        assert!(holds.is_empty());
        assert!(!holds.lift(None));
    }
}
