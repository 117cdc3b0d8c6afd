//! What a node tells a seed of its installs: one small signed record for each that began or ended.
//!
//! A report is the node's own word about itself. The signature makes it its word wherever it is kept, and
//! keeps anybody from speaking for another; that the word is true nothing can prove.

use semver::Version;

use crate::canonical;
use crate::digest::Digest;
use crate::key::{PublicKey, SigningKey};
use crate::limits::MAX_OUTCOME_TEXT_BYTES;
use crate::names::{Channel, Product};
use crate::peer::PeerId;
use crate::time::UtcTime;

/// Bytes of a report's signature; an ed25519 signature has 64.
pub const MAX_SIGNATURE_BYTES: usize = 64;

/// How far an install came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is unpacked and is about to be switched to.
    Began,
    /// It is installed.
    Installed,
    /// It could not be installed.
    Failed,
    /// It was installed and left again for the release before it.
    RolledBack,
    /// No outcome: this is what runs.
    Runs,
}

impl Outcome {
    const ALL: [(u32, Self); 5] =
        [(1, Self::Began), (2, Self::Installed), (3, Self::Failed), (4, Self::RolledBack), (5, Self::Runs)];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        Self::ALL.iter().find(|(_, outcome)| *outcome == self).map_or(0, |(number, _)| *number)
    }

    /// The outcome of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == number).map(|(_, outcome)| *outcome)
    }

    /// The word in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Installed => "installed",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Runs => "runs",
        }
    }

    /// Whether the release did not do.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::RolledBack)
    }
}

/// A node's word on an install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Grows with every report of a node; 0 where nobody is to acknowledge it.
    pub number: u64,
    /// Of which product.
    pub product: Product,
    /// The channel that it follows.
    pub channel: Channel,
    /// The release.
    pub version: Version,
    /// Its artifact.
    pub artifact: Digest,
    /// How far it came.
    pub outcome: Outcome,
    /// When, by the node's clock.
    pub at: UtcTime,
    /// The node's words, at most [`MAX_OUTCOME_TEXT_BYTES`].
    pub text: String,
    /// By the node's key, over everything else and the repository; empty until it is signed.
    pub signature: Vec<u8>,
}

/// The beginning of `text` that fits a report.
pub fn fitting(text: &str) -> String {
    let end = (0..=MAX_OUTCOME_TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

impl Report {
    fn signed_bytes(&self, repository: &Digest) -> Vec<u8> {
        let fields = serde_json::json!({
            "type": "updraft outcome",
            "repository": repository.to_string(),
            "number": self.number.to_string(),
            "product": self.product.as_str(),
            "channel": self.channel.as_str(),
            "version": self.version.to_string(),
            "artifact": self.artifact.to_string(),
            "outcome": self.outcome.as_str(),
            "at": self.at.to_string(),
            "text": self.text,
        });
        canonical::encode(&fields)
    }

    /// The same, signed by the node's key.
    #[must_use]
    pub fn sign(mut self, repository: &Digest, key: &SigningKey) -> Self {
        self.signature = key.sign(&self.signed_bytes(repository));
        self
    }

    /// Whether it is the word of `peer`, to this repository.
    pub fn is_by(&self, peer: &PeerId, repository: &Digest) -> bool {
        let key = peer.ed25519().map(PublicKey::ed25519);
        key.is_some_and(|key| key.verify(&self.signed_bytes(repository), &self.signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report() -> Report {
        Report {
            number: 7,
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: Version::new(1, 2, 3),
            artifact: Digest::of(b"artifact"),
            outcome: Outcome::Failed,
            at: UtcTime::from_unix(1_800_000_000),
            text: "the service did not start".to_owned(),
            signature: Vec::new(),
        }
    }

    fn peer(key: &SigningKey) -> PeerId {
        let public = data_encoding::HEXLOWER.decode(key.public().public().as_bytes()).expect("hexadecimal");
        PeerId::from_bytes(&[&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], &public].concat()).expect("a valid length")
    }

    #[test]
    fn a_report_is_the_word_of_the_node_that_signed_it_and_of_no_other() {
        let (repository, key) = (Digest::of(b"repository"), SigningKey::from_seed([1; 32]));
        let other = SigningKey::from_seed([2; 32]);
        let signed = report().sign(&repository, &key);
        assert!(signed.is_by(&peer(&key), &repository));
        assert!(!signed.is_by(&peer(&other), &repository));
        assert!(!signed.is_by(&peer(&key), &Digest::of(b"another")));
        assert!(!report().is_by(&peer(&key), &repository), "unsigned");
        let altered = Report { outcome: Outcome::Installed, ..signed };
        assert!(!altered.is_by(&peer(&key), &repository));
    }

    #[test]
    fn every_outcome_has_its_number() {
        for (number, outcome) in Outcome::ALL {
            assert_eq!((outcome.number(), Outcome::from_number(number)), (number, Some(outcome)));
        }
        assert_eq!(Outcome::from_number(0), None);
    }

    proptest! {
        #[test]
        fn words_are_cut_between_characters(text in ".{0,400}") {
            let cut = fitting(&text);
            prop_assert!(cut.len() <= MAX_OUTCOME_TEXT_BYTES && text.starts_with(&cut));
            prop_assert!(cut == text || cut.len() + 4 > MAX_OUTCOME_TEXT_BYTES);
        }
    }
}
