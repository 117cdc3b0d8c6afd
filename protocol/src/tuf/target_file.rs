//! A target file on its way from any server: what it is called there, and whether the bytes are it.
//!
//! The check takes the bytes as they arrive, so that a target of any size is checked in the memory of
//! one read. It is also how hashes of whole files are checked: there is no second place.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256, Sha512};

use super::part::{Hashes, TargetInfo};

/// A hash algorithm that is checked, at work.
#[derive(Debug, Clone)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn of(algorithm: &str) -> Option<Self> {
        match algorithm {
            "sha256" => Some(Self::Sha256(Sha256::new())),
            "sha512" => Some(Self::Sha512(Sha512::new())),
            _ => None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => HEXLOWER.encode(&hasher.finalize()),
            Self::Sha512(hasher) => HEXLOWER.encode(&hasher.finalize()),
        }
    }
}

/// Checks bytes against every stated hash whose algorithm is known.
#[derive(Debug, Clone)]
pub(super) struct HashCheck {
    /// Algorithm, hash stated, hash so far.
    known: Vec<(String, String, Hasher)>,
}

impl HashCheck {
    pub(super) fn of(hashes: &Hashes) -> Self {
        let known = hashes
            .iter()
            .filter_map(|(algorithm, stated)| Some((algorithm.to_owned(), stated.to_owned(), Hasher::of(algorithm)?)));
        Self { known: known.collect() }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for (_, _, hasher) in &mut self.known {
            hasher.update(bytes);
        }
    }

    /// Fails with the algorithm that differs, or `sha256` where no algorithm was known.
    pub(super) fn finish(self) -> Result<(), String> {
        if self.known.is_empty() {
            return Err("sha256".to_owned());
        }
        for (algorithm, stated, hasher) in self.known {
            if hasher.finish() != stated {
                return Err(algorithm);
            }
        }
        Ok(())
    }
}

/// A target checked as its bytes arrive.
#[derive(Debug, Clone)]
pub struct TargetCheck {
    hashes: HashCheck,
    missing: u64,
    overrun: bool,
}

impl TargetCheck {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.overrun |= length > self.missing;
        self.missing = self.missing.saturating_sub(length);
        if !self.overrun {
            self.hashes.update(bytes);
        }
    }

    /// Whether the bytes so far are the whole target: its length and every stated hash that is known,
    /// one at least.
    #[must_use]
    pub fn is_it(self) -> bool {
        self.missing == 0 && !self.overrun && self.hashes.finish().is_ok()
    }
}

impl TargetInfo {
    /// A check of the bytes that claim to be this target.
    pub fn check(&self) -> TargetCheck {
        TargetCheck { hashes: HashCheck::of(&self.hashes), missing: self.length, overrun: false }
    }

    /// Where a repository keeps the target `path`, relative to its targets: with consistent snapshots
    /// `directory/HASH.name` (TUF 5.7.3, 6.2), by SHA-256 where that is stated and else by SHA-512.
    /// `None` when neither is stated in its form: such a target cannot be verified either.
    pub fn file_path(&self, path: &str, consistent_snapshot: bool) -> Option<String> {
        let of = |wanted: &str, digits: usize| {
            let stated = self.hashes.iter().find(|(algorithm, _)| *algorithm == wanted)?.1;
            let is_hash = stated.len() == digits && stated.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_hash.then_some(stated)
        };
        let hash = of("sha256", 64).or_else(|| of("sha512", 128))?;
        if !consistent_snapshot {
            return Some(path.to_owned());
        }
        Some(match path.rsplit_once('/') {
            Some((directory, name)) => format!("{directory}/{hash}.{name}"),
            None => format!("{hash}.{path}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sha256(bytes: &[u8]) -> String {
        HEXLOWER.encode(&Sha256::digest(bytes))
    }

    fn sha512(bytes: &[u8]) -> String {
        HEXLOWER.encode(&Sha512::digest(bytes))
    }

    fn target(length: u64, hashes: &serde_json::Value) -> TargetInfo {
        serde_json::from_value(json!({"length": length, "hashes": hashes})).expect("a target")
    }

    #[test]
    fn a_target_is_called_by_a_hash_that_is_checked() {
        let (short, long) = (sha256(b"x"), sha512(b"x"));
        let both = target(1, &json!({"sha256": short, "sha512": long}));
        let only = target(1, &json!({"sha512": long}));
        assert_eq!(both.file_path("a/b/c.zip", true), Some(format!("a/b/{short}.c.zip")));
        assert_eq!(only.file_path("a/b/c.zip", true), Some(format!("a/b/{long}.c.zip")));
        assert_eq!(only.file_path("c.zip", true), Some(format!("{long}.c.zip")));
        assert_eq!(both.file_path("a/c.zip", false).as_deref(), Some("a/c.zip"));
    }

    #[test]
    fn a_text_that_is_no_hash_names_no_file() {
        let long = sha512(b"x");
        for hashes in [
            json!({}),
            json!({"md5": "9dd4e461268c8034f5c8564e155c67a6"}),
            json!({"sha256": "../../../../../../etc/passwd"}),
            json!({"sha256": sha256(b"x").to_uppercase()}),
            json!({"sha256": long}),
        ] {
            assert_eq!(target(1, &hashes).file_path("a", true), None);
        }
    }

    #[test]
    fn sha512_alone_is_enough_and_both_must_hold() {
        let check = |hashes: serde_json::Value| {
            let mut check = target(1, &hashes).check();
            check.update(b"x");
            check.is_it()
        };
        assert!(check(json!({"sha512": sha512(b"x")})));
        assert!(check(json!({"sha256": sha256(b"x"), "sha512": sha512(b"x"), "blake3": "00"})));
        assert!(!check(json!({"sha256": sha256(b"x"), "sha512": sha512(b"y")})));
        assert!(!check(json!({"sha256": sha256(b"y"), "sha512": sha512(b"x")})));
        assert!(!check(json!({"blake3": "00"})));
        assert!(!check(json!({})));
    }

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_verdict_is_that_on_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..100), cuts in prop::collection::vec(0_usize..100, 0..5),
            change: Option<prop::sample::Index>, added in 0_usize..3,
        ) {
            let info = TargetInfo::of(&bytes);
            let mut received = bytes.clone();
            if let Some(index) = change.filter(|_| !bytes.is_empty()) {
                received[index.index(bytes.len())] ^= 1;
            }
            received.extend(std::iter::repeat_n(0, added));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(received.len())).collect();
            cuts.sort_unstable();
            let mut check = info.check();
            let mut start = 0;
            for end in cuts.into_iter().chain([received.len()]) {
                check.update(&received[start..end]);
                start = end;
            }
            prop_assert_eq!(check.is_it(), info.matches(&received));
            prop_assert_eq!(info.matches(&received), received == bytes);
        }
    }
}
