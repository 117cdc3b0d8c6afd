//! Channels on the control socket: what their policies say, and what changes of them come to.

use serde::{Deserialize, Serialize};
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::rollout::{Halt, Stage};
use updraft_protocol::time::UtcTime;

use super::views::Schema;
use crate::engine::policy::Change;

/// A change of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRequest {
    /// Of which product.
    pub product: Product,
    /// Which channel.
    pub channel: Channel,
    /// What is to change.
    pub change: Change,
    /// Say what it would come to, and sign nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// `updraft channel show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelsView {
    /// The contract.
    pub schema: Schema,
    /// By product and name.
    pub channels: Vec<ChannelRow>,
}

/// A channel and its policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Of which product.
    pub product: Product,
    /// Its name.
    pub channel: Channel,
    /// The version that it points to.
    pub version: Option<String>,
    /// Since when it does, where that was signed.
    pub since: Option<UtcTime>,
    /// Nobody is to install.
    pub paused: bool,
    /// Why, where somebody said so.
    pub pause_reason: Option<String>,
    /// The share of nodes that may install now, pauses aside.
    pub rollout_percent: u8,
    /// Nobody installs before.
    pub rollout_start: UtcTime,
    /// How the share grows; empty: everybody from the start.
    pub rollout_stages: Vec<Stage>,
    /// Versions that nobody is to install any more.
    pub yanked: Vec<String>,
    /// How far nodes may go back.
    pub allow_downgrade_to: Option<String>,
    /// Seconds after which a head is too old to install by; none: the default.
    pub max_head_age_s: Option<u64>,
    /// When it pauses by itself; none: never.
    pub halt: Option<Halt>,
    /// The product's security floor.
    pub floor: Option<String>,
    /// What nodes have reported of the release; only at a running seed.
    #[serde(default)]
    pub outcomes: Option<OutcomeCounts>,
}

/// What nodes have reported of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutcomeCounts {
    /// Nodes that run it.
    pub installed: u64,
    /// Nodes for which it failed, or that went back.
    pub failed: u64,
    /// Nodes that began and have not ended.
    pub pending: u64,
    /// Nodes whose word counts towards a halt and that ended or fell silent.
    pub votes: u64,
    /// Of those: for which it failed, or that fell silent.
    pub votes_failed: u64,
}

/// `updraft channel set`, `promote`, `pause`, `resume` and `yank`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelChangeView {
    /// The contract.
    pub schema: Schema,
    /// The channel as it is from now on.
    pub channel: ChannelRow,
    /// What is different, in sentences.
    pub changes: Vec<String>,
    /// What the operator should know, in sentences.
    pub warnings: Vec<String>,
    /// Nothing was signed.
    pub dry_run: bool,
    /// The head that announces it; none for a dry run.
    pub timestamp_version: Option<u64>,
}
