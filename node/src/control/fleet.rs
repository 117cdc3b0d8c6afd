//! The fleet on the control socket: nodes by version and state, as they said themselves.

use serde::{Deserialize, Serialize};
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::time::UtcTime;

use super::views::Schema;

/// Nodes that one answer lists.
pub const MAX_LISTED_NODES: u32 = 4_096;

/// `updraft fleet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    /// The contract.
    pub schema: Schema,
    /// Nodes that are remembered.
    pub nodes_known: u64,
    /// Nodes that may be.
    pub nodes_limit: u64,
    /// How many nodes run what, by product, the newest version first.
    pub versions: Vec<VersionRow>,
    /// Channels that are paused, and why.
    pub paused: Vec<PausedRow>,
    /// Nodes and what they have: those that failed first, then those seen last.
    pub nodes: Vec<FleetNode>,
}

/// A version in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Of which product.
    pub product: Product,
    /// Which; `older` for all those together that have no row of their own.
    pub version: String,
    /// Nodes that run it.
    pub running: u64,
    /// Nodes that began to install it and have not ended.
    pub pending: u64,
    /// Nodes for which it failed, or that went back from it.
    pub failed: u64,
}

/// A paused channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedRow {
    /// Of which product.
    pub product: Product,
    /// Which.
    pub channel: Channel,
    /// Why, where somebody said so.
    pub reason: Option<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetNode {
    /// Its identity.
    pub peer_id: String,
    /// It has a session with this seed now.
    pub connected: bool,
    /// When it came first.
    pub first_seen: UtcTime,
    /// When it was here last.
    pub last_seen: UtcTime,
    /// Since when its word counts towards a halt; none: not yet.
    pub voice_since: Option<UtcTime>,
    /// What it has.
    pub products: Vec<FleetProduct>,
}

/// A product on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetProduct {
    /// Which.
    pub product: Product,
    /// The channel that it follows.
    pub channel: Channel,
    /// What it runs.
    pub runs: Option<String>,
    /// `began`, `installed`, `failed` or `rolled_back`: its last install.
    pub state: Option<String>,
    /// Of which version.
    pub version: Option<String>,
    /// When that was heard.
    pub at: Option<UtcTime>,
    /// The node's words.
    pub text: Option<String>,
}
