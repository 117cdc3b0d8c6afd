//! Request and answer of `/updraft/meta/1`: heads, metadata files, manifests and evidence from any peer,
//! and offers of new releases to the seed ([`crate::offer`]).
//!
//! One request and one answer a stream, each a big-endian `u32` length and that many bytes of
//! protobuf. Every answer is bounded by what was asked ([`MetaRequest::max_response_bytes`]) before
//! it is read, and is worth nothing until it is verified.

use prost::Message;

use crate::digest::Digest;
use crate::limits::{
    MAX_CHANNEL_FILE_BYTES, MAX_EVIDENCE_BYTES, MAX_HEAD_BYTES, MAX_MANIFEST_BYTES, MAX_META_REQUEST_BYTES,
    MAX_META_RESPONSE_BYTES, MAX_REASON_BYTES, MAX_ROLE_NAME_BYTES, MAX_ROOT_BYTES, MAX_TARGET_PATH_BYTES,
    MAX_TARGETS_BYTES,
};
use crate::offer::{self, Offer, OfferAnswer};

/// Protocol id.
pub const META_PROTOCOL: &str = "/updraft/meta/1";

/// Bytes that an answer's own fields take beside the file in it.
const OVERHEAD_BYTES: u64 = 64;

/// Why received bytes are not a request or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Over the limit, announced before any of it was buffered.
    #[error("a message of {found} bytes; the most here is {limit}")]
    TooLong {
        /// Announced bytes.
        found: u64,
        /// Most bytes.
        limit: u64,
    },
    /// Not the message encoding.
    #[error("a metadata message cannot be decoded: {0}")]
    Encoding(String),
    /// Decodes, and breaks a bound.
    #[error("a metadata message is invalid: {0}")]
    Invalid(&'static str),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetaFile {
    /// The newest head, as gossiped.
    Head,
    /// A root by version.
    Root {
        /// Its version.
        version: u64,
    },
    /// A targets role by name and version.
    Role {
        /// Role name.
        name: String,
        /// Its version.
        version: u64,
    },
    /// A small target (a channel policy, notes) by path and digest.
    Target {
        /// Target path.
        path: String,
        /// Its SHA-256.
        sha256: Digest,
    },
    /// The manifest of an artifact, by the manifest's own digest.
    Manifest {
        /// SHA-256 of the manifest's bytes.
        sha256: Digest,
    },
    /// Evidence that a key signed two contradicting files ([`crate::head::Evidence`]).
    Evidence {
        /// SHA-256 of its bytes.
        sha256: Digest,
    },
    /// No file: that the other side take and publish one which the asker holds.
    Offer(Offer),
}

/// A request for one file of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRequest {
    /// Repository id.
    pub repository: Digest,
    /// What is asked for.
    pub file: MetaFile,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaResponse {
    /// The file's exact bytes.
    File(Vec<u8>),
    /// This peer does not have it. Proves nothing about others.
    NotFound,
    /// This peer will not answer.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Where an offer stands.
    Offer(OfferAnswer),
}

mod wire {
    use crate::offer;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) repository: Vec<u8>,
        #[prost(oneof = "File", tags = "2, 3, 4, 5, 6, 7, 8")]
        pub(super) file: Option<File>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum File {
        #[prost(message, tag = "2")]
        Head(Empty),
        #[prost(uint64, tag = "3")]
        Root(u64),
        #[prost(message, tag = "4")]
        Role(Role),
        #[prost(message, tag = "5")]
        Target(Target),
        #[prost(bytes = "vec", tag = "6")]
        Manifest(Vec<u8>),
        #[prost(message, tag = "7")]
        Offer(offer::wire::Offer),
        #[prost(bytes = "vec", tag = "8")]
        Evidence(Vec<u8>),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Empty {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Role {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(uint64, tag = "2")]
        pub(super) version: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Target {
        #[prost(string, tag = "1")]
        pub(super) path: String,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) sha256: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Response {
        #[prost(oneof = "Answer", tags = "1, 2, 3, 4")]
        pub(super) answer: Option<Answer>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Answer {
        #[prost(bytes = "vec", tag = "1")]
        File(Vec<u8>),
        #[prost(message, tag = "2")]
        NotFound(Empty),
        #[prost(string, tag = "3")]
        Refused(String),
        #[prost(message, tag = "4")]
        Offer(offer::wire::OfferAnswer),
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, MetaError> {
    Digest::try_from(bytes).map_err(|_| MetaError::Invalid("a digest is not 32 bytes"))
}

fn within(length: usize, limit: u64) -> Result<(), MetaError> {
    let found = length as u64;
    if found > limit { Err(MetaError::TooLong { found, limit }) } else { Ok(()) }
}

impl MetaRequest {
    /// The request as bytes, without its length.
    pub fn encode(&self) -> Vec<u8> {
        let file = match &self.file {
            MetaFile::Head => wire::File::Head(wire::Empty {}),
            MetaFile::Root { version } => wire::File::Root(*version),
            MetaFile::Role { name, version } => wire::File::Role(wire::Role { name: name.clone(), version: *version }),
            MetaFile::Target { path, sha256 } => {
                wire::File::Target(wire::Target { path: path.clone(), sha256: sha256.as_bytes().to_vec() })
            }
            MetaFile::Manifest { sha256 } => wire::File::Manifest(sha256.as_bytes().to_vec()),
            MetaFile::Evidence { sha256 } => wire::File::Evidence(sha256.as_bytes().to_vec()),
            MetaFile::Offer(offer) => wire::File::Offer(offer.to_wire()),
        };
        wire::Request { repository: self.repository.as_bytes().to_vec(), file: Some(file) }.encode_to_vec()
    }

    /// Decodes a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        within(bytes.len(), MAX_META_REQUEST_BYTES)?;
        let request = wire::Request::decode(bytes).map_err(|error| MetaError::Encoding(error.to_string()))?;
        let file = match request.file.ok_or(MetaError::Invalid("it asks for nothing that is known here"))? {
            wire::File::Head(wire::Empty {}) => MetaFile::Head,
            wire::File::Root(version) => MetaFile::Root { version },
            wire::File::Role(role) => {
                within(role.name.len(), MAX_ROLE_NAME_BYTES as u64)?;
                MetaFile::Role { name: role.name, version: role.version }
            }
            wire::File::Target(target) => {
                within(target.path.len(), MAX_TARGET_PATH_BYTES as u64)?;
                MetaFile::Target { path: target.path, sha256: digest(&target.sha256)? }
            }
            wire::File::Manifest(sha256) => MetaFile::Manifest { sha256: digest(&sha256)? },
            wire::File::Evidence(sha256) => MetaFile::Evidence { sha256: digest(&sha256)? },
            wire::File::Offer(offer) => MetaFile::Offer(Offer::from_wire(offer)?),
        };
        Ok(Self { repository: digest(&request.repository)?, file })
    }

    /// Most bytes that an honest answer to this request can have.
    pub fn max_response_bytes(&self) -> u64 {
        OVERHEAD_BYTES
            + match &self.file {
                MetaFile::Head => MAX_HEAD_BYTES as u64,
                MetaFile::Root { .. } => MAX_ROOT_BYTES,
                MetaFile::Role { .. } => MAX_TARGETS_BYTES,
                MetaFile::Target { .. } => MAX_CHANNEL_FILE_BYTES,
                MetaFile::Manifest { .. } => MAX_MANIFEST_BYTES,
                MetaFile::Evidence { .. } => MAX_EVIDENCE_BYTES as u64,
                MetaFile::Offer(_) => MAX_REASON_BYTES as u64,
            }
    }
}

impl MetaResponse {
    /// The answer as bytes, without its length.
    pub fn encode(&self) -> Vec<u8> {
        let answer = match self {
            Self::File(bytes) => wire::Answer::File(bytes.clone()),
            Self::NotFound => wire::Answer::NotFound(wire::Empty {}),
            Self::Refused { reason } => wire::Answer::Refused(offer::reason(reason)),
            Self::Offer(answer) => wire::Answer::Offer(answer.to_wire()),
        };
        wire::Response { answer: Some(answer) }.encode_to_vec()
    }

    /// Decodes an answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        within(bytes.len(), MAX_META_RESPONSE_BYTES)?;
        let response = wire::Response::decode(bytes).map_err(|error| MetaError::Encoding(error.to_string()))?;
        Ok(match response.answer.ok_or(MetaError::Invalid("the answer is of no known kind"))? {
            wire::Answer::File(bytes) => Self::File(bytes),
            wire::Answer::NotFound(wire::Empty {}) => Self::NotFound,
            wire::Answer::Refused(reason) => {
                within(reason.len(), MAX_REASON_BYTES as u64)?;
                Self::Refused { reason }
            }
            wire::Answer::Offer(answer) => Self::Offer(OfferAnswer::from_wire(answer)?),
        })
    }

    /// Bytes of the file or text in it: what sending it costs.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::File(bytes) => bytes.len(),
            Self::NotFound => 0,
            Self::Refused { reason } => reason.len(),
            Self::Offer(answer) => answer.encoded_len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file() -> impl Strategy<Value = MetaFile> {
        let digest = || any::<[u8; 32]>().prop_map(Digest::from);
        prop_oneof![
            Just(MetaFile::Head),
            any::<u64>().prop_map(|version| MetaFile::Root { version }),
            ("[a-z-]{1,40}", any::<u64>()).prop_map(|(name, version)| MetaFile::Role { name, version }),
            ("[a-z/.-]{1,80}", digest()).prop_map(|(path, sha256)| MetaFile::Target { path, sha256 }),
            digest().prop_map(|sha256| MetaFile::Manifest { sha256 }),
            digest().prop_map(|sha256| MetaFile::Evidence { sha256 }),
            crate::offer::tests::offer().prop_map(MetaFile::Offer),
        ]
    }

    proptest! {
        #[test]
        fn every_request_survives_its_bytes(file in file(), repository in any::<[u8; 32]>()) {
            let request = MetaRequest { repository: repository.into(), file };
            prop_assert_eq!(MetaRequest::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn every_answer_survives_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let answer = MetaResponse::File(bytes);
            prop_assert_eq!(MetaResponse::decode(&answer.encode()), Ok(answer));
        }

        #[test]
        fn every_answer_to_an_offer_survives_its_bytes(answer in crate::offer::tests::answer()) {
            let answer = MetaResponse::Offer(answer);
            prop_assert_eq!(MetaResponse::decode(&answer.encode()), Ok(answer));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = MetaRequest::decode(&bytes);
            let _ = MetaResponse::decode(&bytes);
        }
    }

    #[test]
    fn names_over_their_limit_are_refused() {
        let file = MetaFile::Role { name: "r".repeat(MAX_ROLE_NAME_BYTES + 1), version: 1 };
        let request = MetaRequest { repository: Digest::ZERO, file };
        assert!(matches!(MetaRequest::decode(&request.encode()), Err(MetaError::TooLong { .. })));
    }
}
