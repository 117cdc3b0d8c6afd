//! The flags that seeds and peers share, and that `config show` previews.

use std::net::SocketAddr;

use clap::Args;
use updraft_protocol::names::Platform;

use super::{CommandError, GlobalArgs, absolute};
use crate::config::address::{InvalidAddress, check_dialable, check_listen, parse_switch};
use crate::config::{Kad, Overrides};

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
}

/// An address, or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub Option<SocketAddr>);

impl Switch {
    fn parse(text: &str) -> Result<Self, InvalidAddress> {
        parse_switch(text).map(Self)
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
            ..Overrides::default()
        })
    }
}
