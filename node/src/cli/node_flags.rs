//! The flags that seeds and peers share, and that `config show` previews.

use std::net::SocketAddr;

use clap::Args;
use updraft_protocol::names::Platform;

use super::{CommandError, GlobalArgs, absolute};
use crate::config::address::{InvalidAddress, check_dialable, check_listen, parse_switch};
use crate::config::limits::{InvalidLimit, parse_budget};
use crate::config::size::SizeLimit;
use crate::config::{Kad, Overrides};
use crate::engine::limits::{InvalidRate, parse_rate};

/// What a node is told by flags, whatever its role.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeFlags {
    /// Accept peers on this multiaddress; repeatable [default: TCP and QUIC on port 4880, IPv4 and IPv6]
    #[arg(long, value_name = "MULTIADDR", value_parser = check_listen)]
    pub listen: Vec<String>,
    /// Others reach this node under this multiaddress; repeatable
    #[arg(long, value_name = "MULTIADDR", value_parser = check_dialable)]
    pub external: Vec<String>,
    /// The HTTP face, or 'off' [default: 127.0.0.1:8888 on a seed, off on a peer]
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = Switch::parse)]
    pub http: Option<Switch>,
    /// Metrics on an address of their own, or 'off' [default: at the HTTP face]
    #[arg(long, value_name = "ADDR:PORT|off", value_parser = Switch::parse)]
    pub metrics: Option<Switch>,
    /// Look for peers on the local network by multicast DNS
    #[arg(long)]
    pub mdns: bool,
    /// Look for peers by Kademlia, for fleets of thousands: 'off', 'client' or 'server' [default: off]
    #[arg(long, value_name = "off|client|server")]
    pub kad: Option<Kad>,
    /// What this node runs on [default: what this program was built for]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
    /// Connections with peers at most, a few in reserve not counted [default: 64]
    #[arg(long, value_name = "N")]
    pub max_peers: Option<usize>,
    /// Releases to keep in an install directory, the running one included [default: 2]
    #[arg(long, value_name = "N")]
    pub keep_releases: Option<u32>,
    /// Bytes of artifacts beyond which a mirror keeps fewer old releases, such as 20GiB [default: off]
    #[arg(long, value_name = "SIZE|off")]
    pub cache_limit: Option<SizeLimit>,
    /// Send to peers no faster than this, such as 5MiB/s or 40Mbit/s; 0 pauses [default: off]
    #[arg(long, value_name = "RATE|off", value_parser = RateLimit::parse)]
    pub upload_limit: Option<RateLimit>,
    /// Receive from peers no faster than this; 0 pauses [default: off]
    #[arg(long, value_name = "RATE|off", value_parser = RateLimit::parse)]
    pub download_limit: Option<RateLimit>,
    /// The limits do not hold for peers of the local network
    #[arg(long)]
    pub lan_exempt: bool,
    /// Copies of each artifact that may leave this node, such as 1.2; the last reachable copy of a piece
    /// is given in any case [default: off]
    #[arg(long, value_name = "COPIES|off", value_parser = EgressBudget::parse)]
    pub egress_budget: Option<EgressBudget>,
}

/// An address, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub Option<SocketAddr>);

impl Switch {
    fn parse(text: &str) -> Result<Self, InvalidAddress> {
        parse_switch(text).map(Self)
    }
}

/// Bytes a second, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit(pub Option<u64>);

impl RateLimit {
    fn parse(text: &str) -> Result<Self, InvalidRate> {
        parse_rate(text).map(Self)
    }
}

/// Percent of one copy, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressBudget(pub Option<u32>);

impl EgressBudget {
    fn parse(text: &str) -> Result<Self, InvalidLimit> {
        parse_budget(text).map(Self)
    }
}

impl NodeFlags {
    /// What these flags override.
    pub fn overrides(self, global: &GlobalArgs) -> Result<Overrides, CommandError> {
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        Ok(Overrides {
            data_dir: global.data_dir.as_deref().map(absolute).transpose()?,
            listen: some(self.listen),
            external: some(self.external),
            http: self.http.map(|switch| switch.0),
            metrics: self.metrics.map(|switch| switch.0),
            mdns: self.mdns.then_some(true),
            kad: self.kad,
            platform: self.platform,
            max_peers: self.max_peers,
            keep_releases: self.keep_releases,
            cache_limit_bytes: self.cache_limit.map(|limit| limit.0),
            upload_limit: self.upload_limit.map(|limit| limit.0),
            download_limit: self.download_limit.map(|limit| limit.0),
            lan_exempt: self.lan_exempt.then_some(true),
            egress_budget_percent: self.egress_budget.map(|budget| budget.0),
            ..Overrides::default()
        })
    }
}
