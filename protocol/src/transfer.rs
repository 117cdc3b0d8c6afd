//! Swarm wire messages of `/updraft/transfer/1`, their framing and bounds.
//!
//! A session is one control stream in each connected pair and one data stream each way. Control
//! messages are frames: a big-endian `u32` length and that many bytes of protobuf. Data streams
//! carry blocks: a fixed header ([`BlockHeader`]) and the block's bytes, nothing else, so that bulk
//! needs no parsing and never holds up a control message.
//!
//! Each side numbers the artifacts that it speaks of with *handles* of its own. `Announce` binds a
//! handle; every later message names the handle of its sender. What a side does not know (a
//! message, a field) it ignores: new features are offered in `Hello`.

mod wire;

use prost::Message;

use crate::digest::Digest;
use crate::limits::{
    LEAF_BYTES, MAX_ADDRESS_BYTES, MAX_BLOCK_BYTES, MAX_CONTROL_FRAME_BYTES, MAX_EVIDENCE, MAX_EXCHANGED_PEERS,
    MAX_HAVE_PIECES, MAX_OUTCOME_TEXT_BYTES, MAX_OUTCOMES, MAX_PEER_ADDRESSES, MAX_PIECES, MAX_SESSION_ARTIFACTS,
};
use crate::names::parse_version;
use crate::outcome::{MAX_SIGNATURE_BYTES, Outcome, Report};
use crate::peer::PeerId;
use crate::time::UtcTime;

/// Protocol id of the control stream.
pub const CONTROL_PROTOCOL: &str = "/updraft/transfer/1/control";
/// Protocol id of the data streams.
pub const DATA_PROTOCOL: &str = "/updraft/transfer/1/data";

/// Why received bytes are not a control message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// A frame over the limit, announced before any of it was buffered.
    #[error("a control frame of {0} bytes; the most is {MAX_CONTROL_FRAME_BYTES}")]
    FrameTooLong(u32),
    /// Not the message encoding.
    #[error("a control message cannot be decoded: {0}")]
    Encoding(String),
    /// Decodes, and breaks a bound.
    #[error("a control message is invalid: {0}")]
    Invalid(&'static str),
}

/// What a neighbour speaks of: the artifact as published, or the content it unpacks to. A node that
/// patched holds the content of a release and not its artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// The published file, byte for byte.
    Artifact,
    /// The canonical content of a release (reserved for patches).
    Content,
}

/// A thing that can be moved, by kind and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Which kind of bytes.
    pub kind: ObjectKind,
    /// Their SHA-256.
    pub digest: Digest,
}

/// A block: part of one piece of one object, in whole leaves (the last may be short).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRange {
    /// Offset in the object, a multiple of 16 KiB.
    pub offset: u64,
    /// Bytes, at most 1 MiB.
    pub length: u32,
}

/// A peer and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who.
    pub peer: PeerId,
    /// Multiaddresses in text form.
    pub addresses: Vec<String>,
}

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// First message of each side.
    Hello(Hello),
    /// Binds `handle` to an object and says what the sender holds of it. Sent again to replace.
    Announce {
        /// The sender's number for the object.
        handle: u32,
        /// The object.
        object: ObjectId,
        /// Whether the sender still wants pieces.
        wants: bool,
        /// Verified pieces held: bit `i % 8`, from the most significant, of byte `i / 8`.
        have: Vec<u8>,
    },
    /// More verified pieces.
    Have {
        /// The sender's handle.
        handle: u32,
        /// Piece indices.
        pieces: Vec<u32>,
    },
    /// The sender no longer holds or wants the object; its handle is free.
    Forget {
        /// The sender's handle.
        handle: u32,
    },
    /// Asks for a block.
    Request {
        /// The sender's handle.
        handle: u32,
        /// Which bytes.
        block: BlockRange,
    },
    /// The sender no longer wants a block that it asked for.
    Cancel {
        /// The sender's handle.
        handle: u32,
        /// Which bytes.
        block: BlockRange,
    },
    /// Answer to a request that will not be served now.
    Busy {
        /// The sender's handle.
        handle: u32,
        /// Which bytes.
        block: BlockRange,
        /// Ask again after this time. Zero: the sender does not have the block.
        retry_after_ms: u32,
        /// Peers that hold the piece.
        ask: Vec<PeerId>,
    },
    /// Peers that the sender knows.
    Peers(Vec<PeerRecord>),
    /// The sender's head changed: a hint to ask for it where gossip lost it.
    Head {
        /// Root version.
        root_version: u64,
        /// Timestamp version.
        timestamp_version: u64,
        /// SHA-256 of the timestamp's signed part.
        timestamp_sha256: Option<Digest>,
    },
    /// Evidence that the sender holds, by the digests of its bytes: it may be asked for.
    Evidence {
        /// At most [`MAX_EVIDENCE`].
        sha256: Vec<Digest>,
    },
    /// How an install of the sender's ended, for a seed.
    Report(Box<Report>),
    /// The seed has kept these reports; they need not be sent again.
    Reported {
        /// At most [`MAX_OUTCOMES`] of their numbers.
        numbers: Vec<u64>,
    },
    /// The sender ends the session.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
    /// A message of a later version.
    Unknown,
}

/// First message of each side of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Repository id: sessions belong to exactly one.
    pub repository: Vec<u8>,
    /// Software and version, for people.
    pub agent: String,
    /// Feature names; unknown ones are ignored.
    pub features: Vec<String>,
    /// The sender's root version.
    pub root_version: u64,
    /// The sender's timestamp version; 0 when it has none.
    pub timestamp_version: u64,
    /// SHA-256 of the timestamp's signed part: two nodes that were told different things under one
    /// version number notice it here.
    pub timestamp_sha256: Option<Digest>,
    /// The sender owns the repository.
    pub seed: bool,
    /// Reserved: membership credential.
    pub credential: Option<Vec<u8>>,
}

/// Bytes of texts for people, and of feature names.
const MAX_TEXT_BYTES: usize = 256;
const MAX_FEATURES: usize = 32;
const MAX_CREDENTIAL_BYTES: usize = 4096;
const MAX_ASK: usize = 8;

fn valid(holds: bool, what: &'static str) -> Result<(), TransferError> {
    if holds { Ok(()) } else { Err(TransferError::Invalid(what)) }
}

impl BlockRange {
    /// A block inside the bounds that every object shares. The object's own length and pieces are
    /// checked by who knows its manifest.
    pub fn new(offset: u64, length: u32) -> Result<Self, TransferError> {
        valid(offset.is_multiple_of(u64::from(LEAF_BYTES)), "a block starts inside a leaf")?;
        valid(length > 0 && length <= MAX_BLOCK_BYTES, "a block's length is out of bounds")?;
        valid(offset.checked_add(u64::from(length)).is_some(), "a block's end overflows")?;
        Ok(Self { offset, length })
    }

    /// Offset of the first byte after the block.
    pub fn end(self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

impl From<wire::Kind> for wire::Control {
    fn from(kind: wire::Kind) -> Self {
        Self { kind: Some(kind) }
    }
}

impl Control {
    /// The message as a frame: length and body.
    pub fn to_frame(&self) -> Vec<u8> {
        let message = self.to_wire();
        let length = message.encoded_len();
        let mut frame = Vec::with_capacity(4 + length);
        frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        message.encode(&mut frame).expect("a vector grows as needed");
        frame
    }

    fn to_wire(&self) -> wire::Control {
        let block = |handle: &u32, block: &BlockRange| wire::Block {
            handle: *handle,
            offset: block.offset,
            length: block.length,
        };
        match self {
            Self::Hello(hello) => wire::Kind::Hello(wire::Hello {
                repository: hello.repository.clone(),
                agent: hello.agent.clone(),
                features: hello.features.clone(),
                root_version: hello.root_version,
                timestamp_version: hello.timestamp_version,
                seed: hello.seed,
                credential: hello.credential.clone(),
                timestamp_sha256: hello.timestamp_sha256.map(|digest| digest.as_bytes().to_vec()),
            })
            .into(),
            Self::Announce { handle, object, wants, have } => wire::Kind::Announce(wire::Announce {
                handle: *handle,
                kind: match object.kind {
                    ObjectKind::Artifact => 0,
                    ObjectKind::Content => 1,
                },
                digest: object.digest.as_bytes().to_vec(),
                wants: *wants,
                have: have.clone(),
            })
            .into(),
            Self::Have { handle, pieces } => {
                wire::Kind::Have(wire::Have { handle: *handle, pieces: pieces.clone() }).into()
            }
            Self::Forget { handle } => wire::Kind::Forget(wire::Forget { handle: *handle }).into(),
            Self::Request { handle, block: range } => wire::Kind::Request(block(handle, range)).into(),
            Self::Cancel { handle, block: range } => wire::Kind::Cancel(block(handle, range)).into(),
            Self::Busy { handle, block, retry_after_ms, ask } => wire::Kind::Busy(wire::Busy {
                handle: *handle,
                offset: block.offset,
                length: block.length,
                retry_after_ms: *retry_after_ms,
                ask: ask.iter().map(|peer| peer.as_bytes().to_vec()).collect(),
            })
            .into(),
            Self::Peers(peers) => wire::Kind::Peers(wire::Peers {
                peers: peers
                    .iter()
                    .map(|record| wire::Peer {
                        peer: record.peer.as_bytes().to_vec(),
                        addresses: record.addresses.clone(),
                    })
                    .collect(),
            })
            .into(),
            Self::Head { root_version, timestamp_version, timestamp_sha256 } => wire::Kind::Head(wire::Head {
                root_version: *root_version,
                timestamp_version: *timestamp_version,
                timestamp_sha256: timestamp_sha256.map(|digest| digest.as_bytes().to_vec()),
            })
            .into(),
            Self::Evidence { sha256 } => wire::Kind::Evidence(wire::Evidence {
                sha256: sha256.iter().map(|digest| digest.as_bytes().to_vec()).collect(),
            })
            .into(),
            Self::Report(report) => wire::Kind::Report(wire::Report {
                number: report.number,
                product: report.product.to_string(),
                channel: report.channel.to_string(),
                version: report.version.to_string(),
                artifact: report.artifact.as_bytes().to_vec(),
                outcome: report.outcome.number(),
                at: report.at.unix(),
                text: report.text.clone(),
                signature: report.signature.clone(),
            })
            .into(),
            Self::Reported { numbers } => wire::Kind::Reported(wire::Reported { numbers: numbers.clone() }).into(),
            Self::Goodbye { reason } => wire::Kind::Goodbye(wire::Goodbye { reason: reason.clone() }).into(),
            Self::Unknown => wire::Control { kind: None },
        }
    }

    /// The body length that a frame header announces, checked before any of it is buffered.
    pub fn frame_length(header: [u8; 4]) -> Result<usize, TransferError> {
        let length = u32::from_be_bytes(header);
        if length > MAX_CONTROL_FRAME_BYTES {
            return Err(TransferError::FrameTooLong(length));
        }
        usize::try_from(length).map_err(|_| TransferError::FrameTooLong(length))
    }

    /// Decodes the body of a frame.
    pub fn decode(body: &[u8]) -> Result<Self, TransferError> {
        let message = wire::Control::decode(body).map_err(|error| TransferError::Encoding(error.to_string()))?;
        let Some(kind) = message.kind else {
            return Ok(Self::Unknown);
        };
        let handle = |handle: u32| valid(handle < MAX_SESSION_ARTIFACTS, "a handle is out of bounds").map(|()| handle);
        Ok(match kind {
            wire::Kind::Hello(hello) => Self::Hello(decode_hello(hello)?),
            wire::Kind::Announce(announce) => {
                let kind = match announce.kind {
                    0 => ObjectKind::Artifact,
                    1 => ObjectKind::Content,
                    _ => return Ok(Self::Unknown),
                };
                let digest = Digest::try_from(announce.digest.as_slice())
                    .map_err(|_| TransferError::Invalid("an object's digest is not 32 bytes"))?;
                valid(announce.have.len() <= MAX_PIECES as usize / 8, "a bitmap is too long")?;
                Self::Announce {
                    handle: handle(announce.handle)?,
                    object: ObjectId { kind, digest },
                    wants: announce.wants,
                    have: announce.have,
                }
            }
            wire::Kind::Have(have) => {
                valid(have.pieces.len() <= MAX_HAVE_PIECES, "too many pieces in one have")?;
                Self::Have { handle: handle(have.handle)?, pieces: have.pieces }
            }
            wire::Kind::Forget(forget) => Self::Forget { handle: handle(forget.handle)? },
            wire::Kind::Request(block) => {
                Self::Request { handle: handle(block.handle)?, block: BlockRange::new(block.offset, block.length)? }
            }
            wire::Kind::Cancel(block) => {
                Self::Cancel { handle: handle(block.handle)?, block: BlockRange::new(block.offset, block.length)? }
            }
            wire::Kind::Busy(busy) => {
                valid(busy.ask.len() <= MAX_ASK, "too many peers to ask")?;
                Self::Busy {
                    handle: handle(busy.handle)?,
                    block: BlockRange::new(busy.offset, busy.length)?,
                    retry_after_ms: busy.retry_after_ms,
                    ask: busy.ask.iter().map(|peer| peer_id(peer)).collect::<Result<_, _>>()?,
                }
            }
            wire::Kind::Peers(peers) => Self::Peers(decode_peers(peers)?),
            wire::Kind::Head(head) => Self::Head {
                root_version: head.root_version,
                timestamp_version: head.timestamp_version,
                timestamp_sha256: optional_digest(head.timestamp_sha256.as_deref())?,
            },
            wire::Kind::Evidence(evidence) => {
                valid(evidence.sha256.len() <= MAX_EVIDENCE, "too much evidence in one message")?;
                let digest = |bytes: &Vec<u8>| {
                    Digest::try_from(bytes.as_slice())
                        .map_err(|_| TransferError::Invalid("a digest of evidence is not 32 bytes"))
                };
                Self::Evidence { sha256: evidence.sha256.iter().map(digest).collect::<Result<_, _>>()? }
            }
            wire::Kind::Report(report) => {
                // An outcome that a later version tells of means nothing here.
                let Some(outcome) = Outcome::from_number(report.outcome) else { return Ok(Self::Unknown) };
                Self::Report(Box::new(decode_report(report, outcome)?))
            }
            wire::Kind::Reported(reported) => {
                valid(reported.numbers.len() <= MAX_OUTCOMES, "too many reports in one message")?;
                Self::Reported { numbers: reported.numbers }
            }
            wire::Kind::Goodbye(goodbye) => {
                valid(goodbye.reason.len() <= MAX_TEXT_BYTES, "a reason is too long")?;
                Self::Goodbye { reason: goodbye.reason }
            }
        })
    }
}

fn decode_hello(hello: wire::Hello) -> Result<Hello, TransferError> {
    valid(hello.repository.len() == 32, "a repository id is not 32 bytes")?;
    valid(hello.agent.len() <= MAX_TEXT_BYTES, "an agent is too long")?;
    valid(hello.features.len() <= MAX_FEATURES, "too many features")?;
    valid(hello.features.iter().all(|feature| feature.len() <= MAX_TEXT_BYTES), "a feature is too long")?;
    valid(
        hello.credential.as_ref().is_none_or(|credential| credential.len() <= MAX_CREDENTIAL_BYTES),
        "a credential is too long",
    )?;
    Ok(Hello {
        repository: hello.repository,
        agent: hello.agent,
        features: hello.features,
        root_version: hello.root_version,
        timestamp_version: hello.timestamp_version,
        timestamp_sha256: optional_digest(hello.timestamp_sha256.as_deref())?,
        seed: hello.seed,
        credential: hello.credential,
    })
}

fn decode_report(report: wire::Report, outcome: Outcome) -> Result<Report, TransferError> {
    let name = |_| TransferError::Invalid("a report names no product or channel");
    valid(report.text.len() <= MAX_OUTCOME_TEXT_BYTES, "a report says too much")?;
    valid(report.signature.len() <= MAX_SIGNATURE_BYTES, "a report's signature is too long")?;
    Ok(Report {
        number: report.number,
        product: report.product.parse().map_err(name)?,
        channel: report.channel.parse().map_err(name)?,
        version: parse_version(&report.version).map_err(|_| TransferError::Invalid("a report names no version"))?,
        artifact: Digest::try_from(report.artifact.as_slice())
            .map_err(|_| TransferError::Invalid("a report's artifact is not 32 bytes"))?,
        outcome,
        at: UtcTime::from_unix(report.at),
        text: report.text,
        signature: report.signature,
    })
}

fn optional_digest(bytes: Option<&[u8]>) -> Result<Option<Digest>, TransferError> {
    bytes.map(Digest::try_from).transpose().map_err(|_| TransferError::Invalid("a timestamp's digest is not 32 bytes"))
}

fn peer_id(bytes: &[u8]) -> Result<PeerId, TransferError> {
    PeerId::from_bytes(bytes).map_err(|_| TransferError::Invalid("a peer id's length is out of bounds"))
}

fn decode_peers(peers: wire::Peers) -> Result<Vec<PeerRecord>, TransferError> {
    valid(peers.peers.len() <= MAX_EXCHANGED_PEERS, "too many peers")?;
    peers
        .peers
        .into_iter()
        .map(|record| {
            valid(record.addresses.len() <= MAX_PEER_ADDRESSES, "too many addresses")?;
            valid(record.addresses.iter().all(|address| address.len() <= MAX_ADDRESS_BYTES), "an address is too long")?;
            Ok(PeerRecord { peer: peer_id(&record.peer)?, addresses: record.addresses })
        })
        .collect()
}

/// Precedes every block on a data stream: 16 bytes, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The handle that the *receiver* used in its request.
    pub handle: u32,
    /// Which bytes follow.
    pub block: BlockRange,
}

impl BlockHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 16;

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.handle.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.block.offset.to_be_bytes());
        bytes[12..].copy_from_slice(&self.block.length.to_be_bytes());
        bytes
    }

    /// Decodes a header and checks its bounds, before any of the block is buffered.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, TransferError> {
        let (handle, rest) = bytes.split_first_chunk::<4>().expect("16 bytes");
        let (offset, length) = rest.split_first_chunk::<8>().expect("12 bytes");
        let length = length.first_chunk::<4>().expect("4 bytes");
        let handle = u32::from_be_bytes(*handle);
        valid(handle < MAX_SESSION_ARTIFACTS, "a handle is out of bounds")?;
        let block = BlockRange::new(u64::from_be_bytes(*offset), u32::from_be_bytes(*length))?;
        Ok(Self { handle, block })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = BlockRange> {
        (0u64..1 << 30, 1..=MAX_BLOCK_BYTES)
            .prop_map(|(leaf, length)| BlockRange { offset: leaf * u64::from(LEAF_BYTES), length })
    }

    fn control() -> impl Strategy<Value = Control> {
        let handle = 0..MAX_SESSION_ARTIFACTS;
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
        let peer = || {
            proptest::collection::vec(any::<u8>(), 2..60)
                .prop_map(|bytes| PeerId::from_bytes(&bytes).expect("in bounds"))
        };
        prop_oneof![
            ("[a-z/0-9.]{0,40}", any::<u64>(), any::<u64>(), any::<bool>(), proptest::option::of(bytes(40))).prop_map(
                |(agent, root_version, timestamp_version, seed, credential)| Control::Hello(Hello {
                    repository: vec![7; 32],
                    features: vec![agent.clone()],
                    agent,
                    root_version,
                    timestamp_version,
                    timestamp_sha256: Some(Digest::of(&[1])),
                    seed,
                    credential,
                })
            ),
            (handle.clone(), any::<[u8; 32]>(), any::<bool>(), bytes(200)).prop_map(|(handle, digest, wants, have)| {
                let object = ObjectId { kind: ObjectKind::Artifact, digest: digest.into() };
                Control::Announce { handle, object, wants, have }
            }),
            (handle.clone(), proptest::collection::vec(any::<u32>(), 0..50))
                .prop_map(|(handle, pieces)| Control::Have { handle, pieces }),
            (handle.clone(), block()).prop_map(|(handle, block)| Control::Request { handle, block }),
            (handle.clone(), block()).prop_map(|(handle, block)| Control::Cancel { handle, block }),
            (handle, block(), any::<u32>(), proptest::collection::vec(peer(), 0..8))
                .prop_map(|(handle, block, retry_after_ms, ask)| Control::Busy { handle, block, retry_after_ms, ask }),
            (any::<u64>(), any::<u64>(), any::<Option<[u8; 32]>>()).prop_map(
                |(root_version, timestamp_version, sha256)| {
                    Control::Head { root_version, timestamp_version, timestamp_sha256: sha256.map(Digest::from) }
                }
            ),
            (any::<u64>(), any::<[u8; 32]>(), 1..=5_u32, 0..1_i64 << 33, ".{0,60}", bytes(64)).prop_map(
                |(number, artifact, outcome, at, text, signature)| Control::Report(Box::new(Report {
                    number,
                    product: "app".parse().expect("a name"),
                    channel: "beta".parse().expect("a name"),
                    version: semver::Version::new(1, number, 0),
                    artifact: artifact.into(),
                    outcome: Outcome::from_number(outcome).expect("known"),
                    at: UtcTime::from_unix(at),
                    text,
                    signature,
                }))
            ),
            proptest::collection::vec(any::<u64>(), 0..MAX_OUTCOMES).prop_map(|numbers| Control::Reported { numbers }),
            proptest::collection::vec(any::<[u8; 32]>(), 0..8)
                .prop_map(|ids| Control::Evidence { sha256: ids.into_iter().map(Digest::from).collect() }),
            proptest::collection::vec((peer(), proptest::collection::vec("[a-z/0-9]{0,60}", 0..4)), 0..10).prop_map(
                |peers| Control::Peers(
                    peers.into_iter().map(|(peer, addresses)| PeerRecord { peer, addresses }).collect()
                )
            ),
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_its_frame(message in control()) {
            let frame = message.to_frame();
            let (header, body) = frame.split_first_chunk::<4>().expect("has a header");
            prop_assert_eq!(Control::frame_length(*header), Ok(body.len()));
            prop_assert_eq!(Control::decode(body), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), header in any::<[u8; 16]>()) {
            let _ = Control::decode(&bytes);
            let _ = BlockHeader::decode(&header);
        }

        #[test]
        fn every_block_header_survives_its_bytes(handle in 0..MAX_SESSION_ARTIFACTS, block in block()) {
            let header = BlockHeader { handle, block };
            prop_assert_eq!(BlockHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_header() {
        let header = (MAX_CONTROL_FRAME_BYTES + 1).to_be_bytes();
        assert_eq!(Control::frame_length(header), Err(TransferError::FrameTooLong(MAX_CONTROL_FRAME_BYTES + 1)));
    }

    #[test]
    fn a_message_of_a_later_version_is_ignored_not_refused() {
        // Field 99, length-delimited, two bytes.
        assert_eq!(Control::decode(&[0x9a, 0x06, 0x02, 1, 2]), Ok(Control::Unknown));
    }

    #[test]
    fn a_report_of_an_outcome_of_a_later_version_is_ignored_and_one_out_of_bounds_refused() {
        let report = |change: &dyn Fn(&mut wire::Report)| {
            let mut report = wire::Report {
                number: 1,
                product: "app".to_owned(),
                channel: "stable".to_owned(),
                version: "1.0.0".to_owned(),
                artifact: vec![1; 32],
                outcome: 1,
                ..wire::Report::default()
            };
            change(&mut report);
            Control::decode(&wire::Control::from(wire::Kind::Report(report)).encode_to_vec())
        };
        assert!(matches!(report(&|_| ()), Ok(Control::Report(_))));
        assert_eq!(report(&|report| report.outcome = 99), Ok(Control::Unknown));
        assert!(report(&|report| report.text = "x".repeat(MAX_OUTCOME_TEXT_BYTES + 1)).is_err());
        assert!(report(&|report| report.signature = vec![0; MAX_SIGNATURE_BYTES + 1]).is_err());
        assert!(report(&|report| report.product = "../etc".to_owned()).is_err());
        assert!(report(&|report| report.version = "one".to_owned()).is_err());
        assert!(report(&|report| report.artifact.clear()).is_err());
        let numbers = vec![0; MAX_OUTCOMES + 1];
        let many = wire::Control::from(wire::Kind::Reported(wire::Reported { numbers })).encode_to_vec();
        assert!(Control::decode(&many).is_err());
    }

    #[test]
    fn blocks_out_of_bounds_are_refused() {
        assert!(BlockRange::new(1, 16).is_err());
        assert!(BlockRange::new(0, 0).is_err());
        assert!(BlockRange::new(0, MAX_BLOCK_BYTES + 1).is_err());
        assert!(BlockRange::new(u64::MAX - 16_383, 16_384).is_err());
    }
}
