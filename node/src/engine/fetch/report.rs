//! What the fetcher tells the engine: effects, news, and where transfers and sessions stand.

use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::ObjectId;

use super::counts::ByteCounts;
use crate::engine::effect::SwarmEffect;

/// What a call decided: effects for the network and news for the engine.
#[derive(Debug, Default)]
#[must_use]
pub struct Outcome {
    /// For the network.
    pub effects: Vec<SwarmEffect>,
    /// For the engine.
    pub news: Vec<News>,
}

/// What the fetcher found out that others care about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Every piece of a wanted object is verified.
    Complete(ObjectId),
    /// A neighbour broke the protocol.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// How, for people.
        what: &'static str,
    },
    /// The disk refused a block; fetching stopped.
    Stopped {
        /// What was fetched.
        object: ObjectId,
        /// Why, for people.
        reason: String,
    },
    /// A busy neighbour names others that hold what is wanted.
    Holders {
        /// They.
        peers: Vec<PeerId>,
    },
}

/// Where a transfer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferView {
    /// The object.
    pub object: ObjectId,
    /// Verified bytes.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes by source and fate.
    pub counts: ByteCounts,
    /// Bytes per second, now.
    pub rate_bytes_per_second: u64,
    /// Neighbours that hold at least one piece.
    pub holders: usize,
    /// Still fetching.
    pub active: bool,
    /// Why fetching stopped, where it did.
    pub stopped: Option<String>,
}

/// One session's figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkView {
    /// Block bytes received.
    pub bytes_in: u64,
    /// Block bytes sent.
    pub bytes_out: u64,
    /// Of those received, bytes that were there already.
    pub bytes_duplicate: u64,
    /// Bytes received beyond those: nobody wanted them any more.
    pub bytes_unsolicited: u64,
    /// Bytes per second received.
    pub rate_in_bytes_per_second: u64,
    /// Bytes per second sent.
    pub rate_out_bytes_per_second: u64,
    /// Objects that it holds: pieces held and in all.
    pub objects: Vec<(ObjectId, u32, u32)>,
}
