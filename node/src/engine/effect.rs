//! Everything a node can decide to do, as data. Shells carry it out.

use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::names::Product;
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};

use super::bans::Ban;
use super::install::{Activation, Check, JournalEntry};
use super::memory::Learned;
use super::offers::OfferEffect;
use super::outcomes::OutcomeEffect;
use super::retention::RetentionEffect;

/// What the network shell is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmEffect {
    /// Dial a peer at these multiaddresses (concurrently). Answered by `Connected` or `DialFailed`.
    Dial {
        /// Who, where it is known; checked against the remote's key.
        peer: Option<PeerId>,
        /// Multiaddresses, with or without `/p2p/PEER`.
        addresses: Vec<String>,
    },
    /// End the session and close every connection with a peer.
    Disconnect {
        /// Who.
        peer: PeerId,
    },
    /// As `Disconnect`, and refuse the peer from now on.
    Ban {
        /// Who.
        peer: PeerId,
    },
    /// Let a banned peer back in.
    Unban {
        /// Who.
        peer: PeerId,
    },
    /// Send a control message other than `Request` and `Cancel`.
    Control {
        /// To whom.
        peer: PeerId,
        /// The message.
        message: Control,
    },
    /// Ask for a block, and accept it from that peer until it arrives or is cancelled.
    Request {
        /// From whom.
        peer: PeerId,
        /// Our handle in this session.
        handle: u32,
        /// What it stands for.
        object: ObjectId,
        /// Which bytes.
        block: BlockRange,
    },
    /// Withdraw a request.
    Cancel {
        /// From whom the block was wanted.
        peer: PeerId,
        /// Our handle in this session.
        handle: u32,
        /// Which bytes.
        block: BlockRange,
    },
    /// Read a block from the store and send it.
    SendBlock {
        /// To whom.
        peer: PeerId,
        /// The receiver's handle.
        handle: u32,
        /// What it stands for.
        object: ObjectId,
        /// Which bytes.
        block: BlockRange,
    },
    /// Drop a block that waits to be sent.
    DropBlock {
        /// To whom it would have gone.
        peer: PeerId,
        /// The receiver's handle.
        handle: u32,
        /// Which bytes.
        block: BlockRange,
    },
    /// Gossip a head of our own, or again.
    PublishHead {
        /// The head.
        payload: Vec<u8>,
    },
    /// Say whether a gossiped head is handed on.
    GossipVerdict {
        /// From [`super::input::SwarmInput::Gossip`].
        message: Vec<u8>,
        /// The neighbour that handed it to us.
        peer: PeerId,
        /// The verdict.
        verdict: GossipVerdict,
    },
    /// Ask a peer for a metadata file.
    MetaAsk {
        /// Our number for the request.
        request_id: u64,
        /// Whom.
        peer: PeerId,
        /// What for.
        request: MetaRequest,
    },
    /// Answer a peer's metadata request.
    MetaAnswer {
        /// From [`super::input::SwarmInput::MetaAsked`].
        channel: u64,
        /// The answer.
        response: MetaResponse,
    },
}

/// Whether a gossiped message is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GossipVerdict {
    /// Valid and new: forward it.
    Accept,
    /// Of no use here: drop it, blame nobody.
    Ignore,
    /// Provably wrong: drop it and lower the sender's score.
    Reject,
}

/// A file to be kept. Saved in the order given; a crash between any two does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Save {
    /// Metadata, by file name.
    Metadata {
        /// File name, for example `7.snapshot.json`.
        name: String,
        /// Exact bytes, as signed.
        bytes: Vec<u8>,
    },
    /// A small target.
    Target {
        /// Its digest, under which it is kept.
        sha256: Digest,
        /// Exact bytes.
        bytes: Vec<u8>,
    },
    /// What the set that follows teaches for good.
    Memory(Learned),
}

/// A version, or everything, is kept from being installed in a directory, or not any more. A person waits for
/// it, and it must not wait for what is being unpacked; but what follows from it does wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The subscription's directory.
    pub directory: String,
    /// Of which product.
    pub product: Product,
    /// Which version; everything where there is none.
    pub version: Option<Version>,
    /// Why; `None` lifts the hold, and without a version every hold.
    pub reason: Option<String>,
}

/// What the installer shell is told to do. Every step may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallEffect {
    /// Unpack into `staging/<transaction>` and rename it to `releases/<release_dir>`. Answered by
    /// `Staged`.
    Stage {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// What to unpack.
        release: Arc<Release>,
        /// Where to put it, below `releases/`.
        release_dir: String,
    },
    /// Point `current` at `releases/<release_dir>`. Answered by `Switched`.
    Switch {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// The new target of `current`, below `releases/`.
        release_dir: String,
    },
    /// Start what `current` points at. Answered by `Activated`.
    Activate {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// How.
        activation: Activation,
        /// What is started.
        subject: Subject,
    },
    /// Ask whether what `current` points at works. Answered by `Checked`.
    Check {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
        /// Tells the answer to this check from another's.
        number: u32,
        /// What is asked.
        check: Check,
        /// Milliseconds that it may take.
        timeout_ms: u64,
        /// What is checked.
        subject: Subject,
    },
    /// Remove what an attempt left in staging.
    Discard {
        /// The subscription's directory.
        directory: String,
        /// Names the attempt.
        transaction: String,
    },
    /// Remove releases other than these.
    Collect {
        /// The subscription's directory.
        directory: String,
        /// Names below `releases/` that stay.
        keep: Vec<String>,
    },
}

impl InstallEffect {
    /// The subscription's directory.
    pub fn directory(&self) -> &str {
        match self {
            Self::Stage { directory, .. }
            | Self::Switch { directory, .. }
            | Self::Activate { directory, .. }
            | Self::Check { directory, .. }
            | Self::Discard { directory, .. }
            | Self::Collect { directory, .. } => directory,
        }
    }
}

/// What a command of the operator is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The product.
    pub product: Product,
    /// The version that `current` points at.
    pub version: Version,
    /// The version before it.
    pub previous: Option<Version>,
}

/// What a node tells people: its log, `updraft events`, `updraft history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened, one word in snake case.
    pub kind: EventKind,
    /// The product it is about.
    pub product: Option<Product>,
    /// The version it is about.
    pub version: Option<Version>,
    /// The peer it is about.
    pub peer: Option<PeerId>,
    /// The sentence for people.
    pub text: String,
}

/// What kinds of things happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A session came up.
    PeerConnected,
    /// A session ended.
    PeerDisconnected,
    /// A peer sent something provably wrong.
    PeerBlamed,
    /// A newer head was verified.
    HeadVerified,
    /// A newer set of releases and policies is in force.
    CatalogUpdated,
    /// A release appeared in the catalog.
    ReleaseFound,
    /// A download began.
    FetchStarted,
    /// Every piece of an artifact is verified.
    FetchComplete,
    /// A download cannot go on.
    FetchStopped,
    /// A release was unpacked and made durable.
    Staged,
    /// A release is installed.
    Installed,
    /// The previous release is back.
    RolledBack,
    /// A release failed here for good: it is quarantined.
    InstallFailed,
    /// An install cannot go on now, and is tried again.
    InstallPostponed,
    /// An operator held a product or a version, or lifted that.
    HoldChanged,
    /// What a command of the operator said: an activation, or a health check that failed.
    CommandOutput,
    /// A release was published here.
    Published,
    /// Key holders changed who may sign, or renewed what they signed.
    KeysChanged,
    /// Proof was found that a key of the repository signed two contradicting files.
    Equivocation,
    /// The key that such proof was held against was replaced.
    EquivocationCleared,
    /// A release that was pushed to this seed is not published.
    PushRefused,
    /// Something an operator must look at.
    Alarm,
    /// A release is not what it was when it was signed first; it is refused.
    ReleaseAltered,
    /// Signed metadata lowers a security floor; the higher one holds.
    FloorHeld,
    /// The clock is wrong beyond doubt; nothing is installed or signed by it.
    ClockUntrusted,
    /// The clock is believed again.
    ClockTrusted,
    /// The metadata expired; nothing new is installed.
    MetadataExpired,
    /// The metadata is fresh again.
    MetadataFresh,
    /// A seed took over a newer head that its peers held.
    HeadAdopted,
    /// Peers claimed a newer head, and none of them delivered it.
    HeadWithheld,
    /// A seed signs without having reached any of the peers that it knew.
    PeersUnreachable,
    /// A peer that had been banned may come back.
    PeerUnbanned,
    /// Another limit on rates is in force: a window opened or closed.
    LimitChanged,
    /// The policy of a channel was changed here.
    ChannelChanged,
    /// Too many nodes reported failure: the seed paused a channel by itself.
    ChannelHalted,
}

impl EventKind {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerConnected => "peer_connected",
            Self::PeerDisconnected => "peer_disconnected",
            Self::PeerBlamed => "peer_blamed",
            Self::HeadVerified => "head_verified",
            Self::CatalogUpdated => "catalog_updated",
            Self::ReleaseFound => "release_found",
            Self::FetchStarted => "fetch_started",
            Self::FetchComplete => "fetch_complete",
            Self::FetchStopped => "fetch_stopped",
            Self::Staged => "staged",
            Self::Installed => "installed",
            Self::RolledBack => "rolled_back",
            Self::InstallFailed => "install_failed",
            Self::InstallPostponed => "install_postponed",
            Self::HoldChanged => "hold_changed",
            Self::CommandOutput => "command_output",
            Self::Published => "published",
            Self::KeysChanged => "keys_changed",
            Self::Equivocation => "equivocation",
            Self::EquivocationCleared => "equivocation_cleared",
            Self::PushRefused => "push_refused",
            Self::Alarm => "alarm",
            Self::ReleaseAltered => "release_altered",
            Self::FloorHeld => "floor_held",
            Self::ClockUntrusted => "clock_untrusted",
            Self::ClockTrusted => "clock_trusted",
            Self::MetadataExpired => "metadata_expired",
            Self::MetadataFresh => "metadata_fresh",
            Self::HeadAdopted => "head_adopted",
            Self::HeadWithheld => "head_withheld",
            Self::PeersUnreachable => "peers_unreachable",
            Self::PeerUnbanned => "peer_unbanned",
            Self::LimitChanged => "limit_changed",
            Self::ChannelChanged => "channel_changed",
            Self::ChannelHalted => "channel_halted",
        }
    }

    /// Whether `updraft history` keeps it.
    pub fn is_history(self) -> bool {
        matches!(
            self,
            Self::FetchComplete
                | Self::Installed
                | Self::RolledBack
                | Self::InstallFailed
                | Self::HoldChanged
                | Self::Published
                | Self::HeadAdopted
                | Self::EquivocationCleared
                | Self::KeysChanged
                | Self::ChannelChanged
        ) || self.is_alarm()
    }

    /// Whether an operator must look at it: shown as a warning, kept in the history.
    pub fn is_alarm(self) -> bool {
        matches!(
            self,
            Self::Alarm
                | Self::Equivocation
                | Self::ReleaseAltered
                | Self::FloorHeld
                | Self::ClockUntrusted
                | Self::MetadataExpired
                | Self::HeadWithheld
                | Self::ChannelHalted
        )
    }
}

/// Anything a node decides to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// For the network shell.
    Swarm(SwarmEffect),
    /// Keep these files, in order.
    Save(Vec<Save>),
    /// Open or create an artifact in the store. Answered by `ArtifactOpened`.
    OpenArtifact {
        /// Its piece list.
        manifest: Arc<Manifest>,
    },
    /// Answer a metadata request from the store.
    AnswerFromStore {
        /// From [`super::input::SwarmInput::MetaAsked`].
        channel: u64,
        /// What was asked for.
        file: MetaFile,
    },
    /// Write the install journal before anything that follows.
    Journal(Box<JournalEntry>),
    /// For the installer shell.
    Install(InstallEffect),
    /// To be remembered before what follows is begun.
    Hold(Hold),
    /// Hash what is held of an artifact: a block of it could not be read. Answered by `ArtifactChecked`.
    CheckArtifact {
        /// The artifact.
        artifact: Digest,
    },
    /// Remember where a peer was reached.
    RememberPeer {
        /// Who.
        peer: PeerId,
        /// Its dialable addresses.
        addresses: Vec<String>,
    },
    /// Remember a ban.
    RememberBan(Ban),
    /// Forget a ban.
    ForgetBan {
        /// Whose.
        peer: PeerId,
    },
    /// Remove what nothing needs any more, or remember what stays.
    Retention(RetentionEffect),
    /// For an offered release.
    Offer(OfferEffect),
    /// For reports of outcomes.
    Outcome(OutcomeEffect),
    /// The head grows old: sign it again (seed).
    Resign,
    /// Tell people.
    Event(Event),
}

impl From<SwarmEffect> for Effect {
    fn from(effect: SwarmEffect) -> Self {
        Self::Swarm(effect)
    }
}
