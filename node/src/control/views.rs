//! What inspecting commands answer: the JSON contract, and the source of every table.
//!
//! Each view is one object that starts with `"schema": 1`. Keys are always there; what is not known
//! is `null`. A change of a name or a unit here is a change of contract: it raises the schema.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::time::UtcTime;

use super::traffic::{ArtifactView, Copies, LimitsView, TransferView};
use crate::config::Role;

/// The version of the contract: always the number 1, and no other number decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schema;

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(D::Error::custom(format!(
                "the node answers in schema {other}, this updraft reads schema 1; use the version that the node runs"
            ))),
        }
    }
}

/// `updraft status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The contract.
    pub schema: Schema,
    /// Seed or peer.
    pub role: Role,
    /// The node's identity on the network.
    pub peer_id: String,
    /// The version of the node's program.
    pub version: String,
    /// Milliseconds since the node started.
    pub uptime_ms: u64,
    /// Multiaddresses that accept connections.
    pub listen: Vec<String>,
    /// The HTTP face, `ADDRESS:PORT`, where it is on.
    pub http: Option<String>,
    /// Peers with a session.
    pub connected_peers: u64,
    /// One today.
    pub repositories: Vec<RepositoryView>,
    /// What this node follows.
    pub subscriptions: Vec<SubscriptionView>,
    /// Bytes since the node started.
    pub transfer: TransferView,
    /// What someone should look at, in sentences.
    pub warnings: Vec<String>,
    /// Whether the clock can be believed.
    #[serde(default)]
    pub clock: Option<ClockView>,
    /// Whether a seed may sign; none at a peer.
    #[serde(default)]
    pub signing: Option<SigningView>,
    /// The limits on rates that hold now, and why.
    #[serde(default)]
    pub limits: LimitsView,
    /// What was moved of each artifact since the node started: those on their way first, then those of
    /// which most was; at most 32.
    #[serde(default)]
    pub artifacts: Vec<ArtifactView>,
}

/// The wall clock, as far as signed metadata can judge it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockView {
    /// Nothing speaks against it. Else nothing is installed, and a seed may not sign.
    pub trusted: bool,
    /// What it says.
    pub now: UtcTime,
    /// It cannot be earlier than this.
    pub not_before: UtcTime,
    /// Why it is not trusted, in a sentence.
    pub reason: Option<String>,
}

/// Whether a seed may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningView {
    /// It may.
    pub state: SigningState,
    /// What it waits for, or what has to be done, in a sentence.
    pub reason: Option<String>,
}

/// Whether a seed may sign, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningState {
    /// It may.
    Ready,
    /// It hears what its peers hold first.
    Waiting,
    /// Its clock is wrong.
    Refused,
}

/// What a node remembers beyond the metadata in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemoryView {
    /// Releases whose signed entry is known for good.
    pub remembered_releases: u64,
    /// Target paths of releases that are not what they were, and are refused; the first 100.
    pub altered_releases: Vec<String>,
    /// The security floors that hold.
    pub floors: Vec<FloorView>,
}

/// A product's security floor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorView {
    /// The product.
    pub product: Product,
    /// Nothing below is installed.
    pub version: String,
    /// What the metadata in force says, where it says less or nothing.
    pub signed: Option<String>,
}

/// A repository that the node trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryView {
    /// SHA-256 of root version 1's signed part.
    pub id: Digest,
    /// What people compare at both ends.
    pub fingerprint: String,
    /// The newest verified root.
    pub root_version: u64,
    /// The newest verified head; none before the first.
    pub head: Option<HeadView>,
    /// Proof that keys of the repository are in wrong hands; nothing is installed until they are
    /// replaced. Empty in good times.
    #[serde(default)]
    pub equivocations: Vec<EquivocationView>,
    /// What is remembered of it for good.
    #[serde(default)]
    pub memory: MemoryView,
}

/// Two files of one role, both validly signed, that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EquivocationView {
    /// The role whose key signed both.
    pub role: String,
    /// The versions of the two files, equal or not.
    pub versions: [u64; 2],
    /// SHA-256 of their signed parts.
    pub sha256: [Digest; 2],
    /// What that means, in a sentence.
    pub text: String,
}

/// A verified head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadView {
    /// Counts up with every signature of the seed.
    pub timestamp_version: u64,
    /// When the seed signed it.
    pub signed_at: UtcTime,
    /// When it stops permitting installs.
    pub expires_at: UtcTime,
    /// Not expired by a clock that can be trusted.
    pub fresh: bool,
    /// Milliseconds since it was signed.
    pub age_ms: u64,
}

/// Where a subscription stands in the course of an install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Nothing is under way.
    Idle,
    /// Pieces are coming in.
    Fetching,
    /// The artifact is here and verified.
    Verified,
    /// It is unpacked and on the disk.
    Staged,
    /// The switch is journalled.
    Armed,
    /// `current` points to it.
    Switched,
    /// It runs and is being watched.
    Probation,
    /// It runs.
    Committed,
    /// It failed; the previous release is being put back.
    RollingBack,
    /// It failed and will not be tried again.
    Quarantined,
}

impl SubscriptionState {
    /// The state as in the JSON contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fetching => "fetching",
            Self::Verified => "verified",
            Self::Staged => "staged",
            Self::Armed => "armed",
            Self::Switched => "switched",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::RollingBack => "rolling_back",
            Self::Quarantined => "quarantined",
        }
    }
}

/// What a subscription does with releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Install them here.
    Install,
    /// Hold and serve them.
    Mirror,
}

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionView {
    /// Which product.
    pub product: Product,
    /// Which of its channels.
    pub channel: Channel,
    /// What the node runs on.
    pub platform: Platform,
    /// The install directory; none for a mirror.
    pub directory: Option<PathBuf>,
    /// Install or mirror.
    pub mode: Mode,
    /// The version that runs (or, for a mirror, is held whole).
    pub installed: Option<String>,
    /// The version that the channel points to for this node.
    pub offered: Option<String>,
    /// Where the install stands.
    pub state: SubscriptionState,
    /// Why it stands there, in a sentence.
    pub reason: Option<String>,
    /// How far the transfer is, while there is one.
    pub progress: Option<TransferProgress>,
    /// Every gate's verdict, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<Vec<GateView>>,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransferProgress {
    /// Verified bytes.
    pub bytes_done: u64,
    /// Bytes of the artifact.
    pub bytes_total: u64,
    /// Verified bytes that seeds sent.
    pub bytes_from_seed: u64,
    /// Verified bytes that peers sent.
    pub bytes_from_peers: u64,
    /// Bytes that were here already.
    pub bytes_reused: u64,
    /// The recent rate.
    pub rate_bytes_per_second: u64,
}

/// What one policy gate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// Which gate: `rollout`, `window`, `disk`.
    pub gate: String,
    /// Its verdict.
    pub verdict: GateVerdict,
    /// Why, in a sentence.
    pub reason: String,
    /// When it may open, where that is known.
    pub opens_at: Option<UtcTime>,
}

/// A gate's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    /// It lets the release through.
    Open,
    /// Not yet: time will open it.
    Waiting,
    /// No: someone has to change something.
    Closed,
}

/// `updraft peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersView {
    /// The contract.
    pub schema: Schema,
    /// Everyone with a session.
    pub peers: Vec<PeerRow>,
    /// Everyone who lied provably and is refused; the ban that ends first comes first.
    #[serde(default)]
    pub banned: Vec<BanRow>,
}

/// A banned peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// Its identity.
    pub peer_id: String,
    /// What it did, in a sentence without its subject.
    pub reason: String,
    /// When.
    pub banned_at: UtcTime,
    /// When it may come back.
    pub until: UtcTime,
    /// How often it was banned, this time included.
    pub offences: u32,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its identity.
    pub peer_id: String,
    /// Where it is connected from or to, then where it says it listens.
    pub addresses: Vec<String>,
    /// We dialled.
    pub outbound: bool,
    /// It owns the repository.
    pub seed: bool,
    /// What it says it runs.
    pub agent: String,
    /// Milliseconds since the session began.
    pub connected_ms: u64,
    /// The recent rate from it.
    pub rate_in_bytes_per_second: u64,
    /// The recent rate to it.
    pub rate_out_bytes_per_second: u64,
    /// Block bytes from it in this session.
    pub bytes_in: u64,
    /// Block bytes to it in this session.
    pub bytes_out: u64,
    /// Of those from it: bytes that were here already.
    #[serde(default)]
    pub bytes_duplicate: u64,
    /// Bytes from it beyond those: they came after they were cancelled.
    #[serde(default)]
    pub bytes_unsolicited: u64,
    /// It is of the local network, and limits on rates do not hold for it.
    #[serde(default)]
    pub lan_exempt: bool,
    /// What it holds of what we know.
    pub objects: Vec<PeerObject>,
    /// How it behaves: 0 is neutral, below it is distrusted.
    pub score: i64,
}

/// What a peer holds of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerObject {
    /// SHA-256 of the artifact.
    pub artifact: Digest,
    /// Pieces that it has.
    pub pieces_have: u32,
    /// Pieces that there are.
    pub pieces_total: u32,
}

/// `updraft releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasesView {
    /// The contract.
    pub schema: Schema,
    /// By product, then newest first.
    pub releases: Vec<ReleaseRow>,
}

/// A release that the node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// Of which product.
    pub product: Product,
    /// Which version.
    pub version: String,
    /// For which platform.
    pub platform: Platform,
    /// The channels that point to it now.
    pub channels: Vec<Channel>,
    /// Bytes of the artifact.
    pub size_bytes: u64,
    /// Bytes of what it unpacks to.
    pub content_bytes: u64,
    /// `tar.zst`, `zip`, `file`...
    pub format: String,
    /// SHA-256 of the artifact.
    pub sha256: Digest,
    /// The share of nodes that may have it now; the largest of its channels.
    pub rollout_percent: u8,
    /// It does not wait for maintenance windows.
    pub critical: bool,
    /// What of it is here.
    pub local: LocalCopy,
    /// Verified bytes of it that are here.
    pub bytes_local: u64,
    /// Bytes of it that left this node since it started.
    #[serde(default)]
    pub bytes_sent: u64,
    /// The same in copies of the artifact.
    #[serde(default)]
    pub copies_sent: Copies,
    /// Its notes, where they are here.
    pub notes: Option<String>,
}

/// What of an artifact is on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalCopy {
    /// All of it.
    Complete,
    /// Some pieces.
    Partial,
    /// Nothing.
    Absent,
}

impl LocalCopy {
    /// The word in the JSON contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Absent => "absent",
        }
    }
}

/// `updraft history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// The contract.
    pub schema: Schema,
    /// Newest first.
    pub entries: Vec<HistoryRow>,
}

/// Something that happened and is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// When.
    pub at: UtcTime,
    /// What, in a word: `installed`, `rolled_back`, `published`, `alarm`, `release_altered`...
    pub kind: String,
    /// Which product.
    pub product: Option<Product>,
    /// Which version.
    pub version: Option<String>,
    /// The whole in one sentence, for people.
    pub text: String,
}
