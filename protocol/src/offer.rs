//! An offer: a publisher's machine has signed the next version of its product's role, and asks the
//! node that holds the online keys to publish it.
//!
//! An offer carries no file. The seed fetches the role, the manifest and the artifact from whoever
//! offers, as it would from anybody, and believes only what is signed. The one unsigned wish is the
//! channel, and the release's own signed list bounds that. An offer is repeated until it is published
//! or refused: the answer says how far it is, and the repetition that somebody still wants it.

use prost::Message;

use crate::digest::Digest;
use crate::limits::{MAX_REASON_BYTES, MAX_TARGET_PATH_BYTES};
use crate::meta::MetaError;
use crate::names::Channel;
use crate::tuf::RoleName;

/// A next version of a product's role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offer {
    /// The delegated role: `releases-PRODUCT`.
    pub role: RoleName,
    /// The version of the offered file: one more than the version in force.
    pub version: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Bytes of the file.
    pub length: u64,
    /// The release that is new in it; `None` where it only expires later.
    pub release: Option<OfferedRelease>,
}

/// The release that is new in an offered role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfferedRelease {
    /// Its target path.
    pub path: String,
    /// The channel that is to point to it.
    pub channel: Channel,
}

/// Where an offer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferAnswer {
    /// It is worked on. Whoever offers asks again.
    Taken {
        /// What is being done.
        stage: OfferStage,
        /// Bytes of the artifact that have arrived and are verified.
        bytes_done: u64,
        /// Bytes of the artifact.
        bytes_total: u64,
    },
    /// It is part of the signed set with this timestamp, or of an earlier one.
    Published {
        /// Version of the timestamp.
        timestamp_version: u64,
    },
    /// Not now: the same offer may be taken later.
    Busy {
        /// Why, for people.
        reason: String,
        /// Milliseconds after which to ask again.
        retry_after_ms: u32,
    },
    /// The role has this version already, and it is another: sign on top of it.
    Overtaken {
        /// The version in force.
        version: u64,
    },
    /// It will not be published.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// What the seed does with an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferStage {
    /// Fetching and checking the role.
    Checking,
    /// Fetching the artifact.
    Fetching,
    /// Signing the set that names it.
    Signing,
    /// Something that a newer seed does.
    Other,
}

/// A reason cut to what an answer may carry, at a character.
pub fn reason(text: &str) -> String {
    let mut end = text.len().min(MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The messages as they travel.
pub(crate) mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Offer {
        #[prost(string, tag = "1")]
        pub(super) role: String,
        #[prost(uint64, tag = "2")]
        pub(super) version: u64,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) sha256: Vec<u8>,
        #[prost(uint64, tag = "4")]
        pub(super) length: u64,
        #[prost(message, optional, tag = "5")]
        pub(super) release: Option<Release>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Release {
        #[prost(string, tag = "1")]
        pub(super) path: String,
        #[prost(string, tag = "2")]
        pub(super) channel: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct OfferAnswer {
        #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5")]
        pub(super) answer: Option<Answer>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Answer {
        #[prost(message, tag = "1")]
        Taken(Taken),
        #[prost(uint64, tag = "2")]
        Published(u64),
        #[prost(message, tag = "3")]
        Busy(Busy),
        #[prost(uint64, tag = "4")]
        Overtaken(u64),
        #[prost(string, tag = "5")]
        Refused(String),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Taken {
        #[prost(uint32, tag = "1")]
        pub(super) stage: u32,
        #[prost(uint64, tag = "2")]
        pub(super) bytes_done: u64,
        #[prost(uint64, tag = "3")]
        pub(super) bytes_total: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Busy {
        #[prost(string, tag = "1")]
        pub(super) reason: String,
        #[prost(uint32, tag = "2")]
        pub(super) retry_after_ms: u32,
    }
}

fn bounded(text: String, limit: usize) -> Result<String, MetaError> {
    if text.len() > limit {
        return Err(MetaError::TooLong { found: text.len() as u64, limit: limit as u64 });
    }
    Ok(text)
}

impl Offer {
    pub(crate) fn to_wire(&self) -> wire::Offer {
        wire::Offer {
            role: self.role.as_str().to_owned(),
            version: self.version,
            sha256: self.sha256.as_bytes().to_vec(),
            length: self.length,
            release: self
                .release
                .as_ref()
                .map(|release| wire::Release { path: release.path.clone(), channel: release.channel.to_string() }),
        }
    }

    pub(crate) fn from_wire(offer: wire::Offer) -> Result<Self, MetaError> {
        let release = match offer.release {
            Some(release) => Some(OfferedRelease {
                path: bounded(release.path, MAX_TARGET_PATH_BYTES)?,
                channel: release.channel.parse().map_err(|_| MetaError::Invalid("it names no channel"))?,
            }),
            None => None,
        };
        Ok(Self {
            role: offer.role.parse().map_err(|_| MetaError::Invalid("it names no role"))?,
            version: offer.version,
            sha256: Digest::try_from(offer.sha256.as_slice())
                .map_err(|_| MetaError::Invalid("a digest is not 32 bytes"))?,
            length: offer.length,
            release,
        })
    }
}

impl OfferStage {
    fn number(self) -> u32 {
        match self {
            Self::Checking => 0,
            Self::Fetching => 1,
            Self::Signing => 2,
            Self::Other => u32::MAX,
        }
    }

    fn of(number: u32) -> Self {
        match number {
            0 => Self::Checking,
            1 => Self::Fetching,
            2 => Self::Signing,
            _ => Self::Other,
        }
    }
}

impl OfferAnswer {
    /// A refusal for this reason, cut to what an answer may carry.
    pub fn refused(why: &str) -> Self {
        Self::Refused { reason: reason(why) }
    }

    /// "Not now", for this reason.
    pub fn busy(why: &str, retry_after_ms: u32) -> Self {
        Self::Busy { reason: reason(why), retry_after_ms }
    }

    pub(crate) fn to_wire(&self) -> wire::OfferAnswer {
        let answer = match self {
            Self::Taken { stage, bytes_done, bytes_total } => wire::Answer::Taken(wire::Taken {
                stage: stage.number(),
                bytes_done: *bytes_done,
                bytes_total: *bytes_total,
            }),
            Self::Published { timestamp_version } => wire::Answer::Published(*timestamp_version),
            Self::Busy { reason, retry_after_ms } => {
                wire::Answer::Busy(wire::Busy { reason: reason.clone(), retry_after_ms: *retry_after_ms })
            }
            Self::Overtaken { version } => wire::Answer::Overtaken(*version),
            Self::Refused { reason } => wire::Answer::Refused(reason.clone()),
        };
        wire::OfferAnswer { answer: Some(answer) }
    }

    pub(crate) fn from_wire(answer: wire::OfferAnswer) -> Result<Self, MetaError> {
        Ok(match answer.answer.ok_or(MetaError::Invalid("the answer to an offer is of no known kind"))? {
            wire::Answer::Taken(taken) => Self::Taken {
                stage: OfferStage::of(taken.stage),
                bytes_done: taken.bytes_done,
                bytes_total: taken.bytes_total,
            },
            wire::Answer::Published(timestamp_version) => Self::Published { timestamp_version },
            wire::Answer::Busy(busy) => {
                Self::Busy { reason: bounded(busy.reason, MAX_REASON_BYTES)?, retry_after_ms: busy.retry_after_ms }
            }
            wire::Answer::Overtaken(version) => Self::Overtaken { version },
            wire::Answer::Refused(reason) => Self::Refused { reason: bounded(reason, MAX_REASON_BYTES)? },
        })
    }

    /// Bytes of the answer as it travels.
    pub(crate) fn encoded_len(&self) -> usize {
        self.to_wire().encoded_len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::limits::{MAX_META_REQUEST_BYTES, MAX_NAME_BYTES, MAX_ROLE_NAME_BYTES};
    use crate::meta::{MetaFile, MetaRequest, MetaResponse};
    use proptest::prelude::*;

    pub(crate) fn offer() -> impl Strategy<Value = Offer> {
        let release = proptest::option::of(("[a-z/.-]{1,80}", "[a-z]{1,20}"));
        ("releases-[a-z]{1,40}", any::<u64>(), any::<[u8; 32]>(), any::<u64>(), release).prop_map(
            |(role, version, sha256, length, release)| Offer {
                role: role.parse().expect("a role name"),
                version,
                sha256: sha256.into(),
                length,
                release: release.map(|(path, channel)| OfferedRelease {
                    path,
                    channel: format!("c{channel}").parse().expect("a name"),
                }),
            },
        )
    }

    pub(crate) fn answer() -> impl Strategy<Value = OfferAnswer> {
        let stages =
            [OfferStage::Checking, OfferStage::Fetching, OfferStage::Signing, OfferStage::Other].map(Just).to_vec();
        prop_oneof![
            (proptest::strategy::Union::new(stages), any::<u64>(), any::<u64>())
                .prop_map(|(stage, bytes_done, bytes_total)| OfferAnswer::Taken { stage, bytes_done, bytes_total }),
            any::<u64>().prop_map(|timestamp_version| OfferAnswer::Published { timestamp_version }),
            ("\\PC{0,40}", any::<u32>())
                .prop_map(|(reason, retry_after_ms)| OfferAnswer::Busy { reason, retry_after_ms }),
            any::<u64>().prop_map(|version| OfferAnswer::Overtaken { version }),
            "\\PC{0,40}".prop_map(|reason| OfferAnswer::Refused { reason }),
        ]
    }

    #[test]
    fn the_longest_offer_fits_a_request() {
        let offer = Offer {
            role: "r".repeat(MAX_ROLE_NAME_BYTES).parse().expect("a role name"),
            version: u64::MAX,
            sha256: Digest::ZERO,
            length: u64::MAX,
            release: Some(OfferedRelease {
                path: "p".repeat(MAX_TARGET_PATH_BYTES),
                channel: "c".repeat(MAX_NAME_BYTES).parse().expect("a name"),
            }),
        };
        let request = MetaRequest { repository: Digest::ZERO, file: MetaFile::Offer(offer) };
        assert!(request.encode().len() as u64 <= MAX_META_REQUEST_BYTES);
        assert_eq!(MetaRequest::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character_and_fits_the_answer() {
        let refused = OfferAnswer::refused(&"ä".repeat(MAX_REASON_BYTES));
        let response = MetaResponse::Offer(refused.clone());
        assert_eq!(MetaResponse::decode(&response.encode()), Ok(response.clone()));
        let request = MetaRequest {
            repository: Digest::ZERO,
            file: MetaFile::Offer(Offer {
                role: RoleName::targets(),
                version: 1,
                sha256: Digest::ZERO,
                length: 1,
                release: None,
            }),
        };
        assert!(response.encode().len() as u64 <= request.max_response_bytes());
        let OfferAnswer::Refused { reason } = refused else { panic!("a refusal") };
        assert_eq!(reason.len(), MAX_REASON_BYTES);
    }

    #[test]
    fn texts_over_their_limits_are_refused() {
        let long = MetaResponse::Offer(OfferAnswer::Refused { reason: "x".repeat(MAX_REASON_BYTES + 1) });
        assert!(matches!(MetaResponse::decode(&long.encode()), Err(MetaError::TooLong { .. })));
        let busy = OfferAnswer::Busy { reason: "x".repeat(MAX_REASON_BYTES + 1), retry_after_ms: 1 };
        let long = MetaResponse::Offer(busy);
        assert!(matches!(MetaResponse::decode(&long.encode()), Err(MetaError::TooLong { .. })));
        let mut offer = wire::Offer { role: "releases-app".to_owned(), sha256: vec![0; 32], ..wire::Offer::default() };
        assert!(Offer::from_wire(offer.clone()).is_ok());
        offer.release = Some(wire::Release { path: "p".repeat(MAX_TARGET_PATH_BYTES + 1), channel: "a".to_owned() });
        assert!(matches!(Offer::from_wire(offer.clone()), Err(MetaError::TooLong { .. })));
        offer.release = Some(wire::Release { path: "p".to_owned(), channel: "../etc".to_owned() });
        assert!(matches!(Offer::from_wire(offer), Err(MetaError::Invalid(_))));
    }

    #[test]
    fn a_stage_that_is_not_known_is_not_an_error() {
        let taken = wire::Taken { stage: 17, bytes_done: 0, bytes_total: 0 };
        let answer = wire::OfferAnswer { answer: Some(wire::Answer::Taken(taken)) };
        let expected = OfferAnswer::Taken { stage: OfferStage::Other, bytes_done: 0, bytes_total: 0 };
        assert_eq!(OfferAnswer::from_wire(answer), Ok(expected));
    }
}
