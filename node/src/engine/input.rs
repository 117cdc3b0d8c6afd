//! Everything that can happen to a node, as data.

use std::sync::Arc;

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};

use super::install::StepFailure;
use super::offers::OfferInput;

/// The time of an input, brought by the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, for what signed metadata states.
    pub wall: UtcTime,
    /// Monotonic milliseconds since some fixed instant, for deadlines and rates.
    pub mono_ms: u64,
}

/// What the network shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmInput {
    /// A local address accepts connections.
    Listening {
        /// Multiaddress, without the peer id.
        address: String,
    },
    /// A local address no longer accepts connections.
    ListenerClosed {
        /// Multiaddress.
        address: String,
        /// Why, for people.
        reason: String,
    },
    /// A session with a peer is up: control and data streams are open. Once per peer until
    /// [`SwarmInput::Disconnected`], however many connections there are.
    Connected {
        /// Who.
        peer: PeerId,
        /// The remote end's multiaddress.
        address: String,
        /// We dialled.
        outbound: bool,
    },
    /// The session with a peer ended.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// A dial that the engine asked for failed at every address.
    DialFailed {
        /// Who, where it was known.
        peer: Option<PeerId>,
        /// The addresses that were tried.
        addresses: Vec<String>,
        /// Why, for people.
        reason: String,
    },
    /// A peer was found, or told its own addresses.
    Discovered {
        /// Who.
        peer: PeerId,
        /// Dialable multiaddresses.
        addresses: Vec<String>,
        /// How it was found.
        source: DiscoverySource,
    },
    /// A control message arrived.
    Control {
        /// From whom.
        peer: PeerId,
        /// The message.
        message: Control,
    },
    /// A block that was asked for arrived and went to the store.
    BlockArrived {
        /// From whom.
        peer: PeerId,
        /// Of which object.
        object: ObjectId,
        /// Which bytes.
        block: BlockRange,
        /// What the store made of it.
        outcome: BlockOutcome,
    },
    /// The store has proof that a peer sent wrong bytes: they are not those of the piece as it was signed.
    Lied {
        /// Who.
        peer: PeerId,
        /// Of which object.
        object: ObjectId,
        /// Which piece.
        piece: u32,
    },
    /// A block arrived that nobody asked for (or not any more); it was read and dropped.
    BlockUnsolicited {
        /// From whom.
        peer: PeerId,
        /// Which bytes.
        block: BlockRange,
    },
    /// A block was handed to the network, whole.
    BlockSent {
        /// To whom.
        peer: PeerId,
        /// Of which object.
        object: ObjectId,
        /// Which bytes.
        block: BlockRange,
    },
    /// A block could not be read, so it was not sent.
    BlockUnreadable {
        /// For whom it was meant.
        peer: PeerId,
        /// Of which object.
        object: ObjectId,
        /// Which bytes.
        block: BlockRange,
        /// Why, for people.
        reason: String,
    },
    /// A gossiped head arrived; it is not forwarded until a verdict is given.
    Gossip {
        /// Identifies the message in [`super::effect::SwarmEffect::GossipVerdict`].
        message: Vec<u8>,
        /// The neighbour that handed it on.
        peer: PeerId,
        /// The head.
        payload: Vec<u8>,
    },
    /// A peer asks for a metadata file.
    MetaAsked {
        /// Identifies the stream in [`super::effect::SwarmEffect::MetaAnswer`].
        channel: u64,
        /// Who asks.
        peer: PeerId,
        /// What for.
        request: MetaRequest,
    },
    /// An answer to a metadata request of ours, or why there is none.
    MetaAnswered {
        /// The number that the request had.
        request_id: u64,
        /// Who answered.
        peer: PeerId,
        /// The answer; an error is for people.
        result: Result<MetaResponse, String>,
    },
}

/// How a peer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoverySource {
    /// Multicast DNS on a local link.
    Mdns,
    /// It told us itself over an authenticated connection.
    Identify,
    /// A lookup in Kademlia named it.
    Kad,
}

/// What the store made of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockOutcome {
    /// Written; its piece is not complete yet.
    Stored,
    /// Written, and its piece is now complete and verified.
    PieceVerified(u32),
    /// Its piece is complete and wrong; the piece's blocks were dropped.
    PieceRejected(u32),
    /// It was already there; nothing changed.
    Duplicate,
    /// The disk refused it.
    Failed(String),
}

/// Anything that can happen to a node.
#[derive(Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// News from the network shell.
    Swarm(SwarmInput),
    /// This seed published: a new head of its own, and every file that it names and is new.
    Published {
        /// The head.
        head: Vec<u8>,
        /// Files by name, as a peer would have answered.
        files: Vec<(MetaFile, Vec<u8>)>,
    },
    /// The store opened an artifact, or could not.
    ArtifactOpened {
        /// Its piece list.
        manifest: Arc<Manifest>,
        /// The pieces that are there and verified; an error is for people.
        result: Result<Bitmap, String>,
    },
    /// The store looked again at what it holds of an artifact that proved damaged.
    ArtifactChecked {
        /// The artifact.
        artifact: Digest,
        /// The pieces that are really there.
        have: Bitmap,
    },
    /// Something that an offer waited for.
    Offer(OfferInput),
    /// Unpacking ended.
    Staged {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// How it ended.
        result: Result<(), StepFailure>,
    },
    /// Swapping the link ended.
    Switched {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// How it ended.
        result: Result<(), StepFailure>,
    },
    /// The activation ended.
    Activated {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// How it ended.
        result: Result<(), StepFailure>,
        /// The end of what it said.
        output: String,
    },
    /// A health check ended.
    Checked {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// The number that the check had.
        number: u32,
        /// Whether it succeeded, or why not.
        result: Result<(), String>,
        /// The end of what it said.
        output: String,
    },
}
