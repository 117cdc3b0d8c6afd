//! What a node does on its connections, as one libp2p behaviour.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, allow_block_list, identify as libp2p_identify, identity, mdns};

use super::{SwarmConfig, SwarmError, admission, gossip, identify, kad, meta, parse, streams, translate};

/// Connections of our own beyond `max_peers`: those that are about to be replaced.
const RESERVE: u32 = 16;
/// Connections of others beyond `max_peers`: newcomers, who stay for a moment to hear of others. With half
/// a second each, some two hundred find their way into a fleet in one second.
const VISITORS: u32 = 128;
/// Connections to one peer: the session's, one that takes over, and one dialled at the same time.
const MAX_PER_PEER: u32 = 3;
/// Connections of others that are being set up. Bounds handshakes in progress, each of which holds some
/// kilobytes for up to ten seconds.
const MAX_PENDING_IN: u32 = 256;
/// Connections of our own that are being set up.
const MAX_PENDING_OUT: u32 = 128;
/// Neighbours ask each other about themselves this often. Where one listens seldom changes, and each time costs
/// a kilobyte and a half.
const IDENTIFY: Duration = Duration::from_secs(1_800);
/// The protocol version told to others, for people.
const PROTOCOL_VERSION: &str = "updraft/1";

/// All behaviours. Those that refuse connections come first.
#[derive(NetworkBehaviour)]
#[allow(missing_debug_implementations, reason = "libp2p's behaviours have none, and nothing prints this")]
pub(super) struct Behaviour {
    pub(super) banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    admission: admission::Behaviour,
    limits: connection_limits::Behaviour,
    pub(super) streams: streams::Behaviour,
    pub(super) meta: meta::Requests,
    pub(super) gossip: gossip::Gossipsub,
    identify: identify::Behaviour,
    pub(super) kad: Toggle<kad::Behaviour>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(config: &SwarmConfig, keypair: &identity::Keypair) -> Result<Self, SwarmError> {
        let peer = keypair.public().to_peer_id();
        let most = u32::try_from(config.max_peers).unwrap_or(u32::MAX);
        let most_in = most.saturating_add(VISITORS);
        let favoured: HashSet<PeerId> = config.favoured.iter().filter_map(translate::peer_from_protocol).collect();
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING_IN))
            .with_max_pending_outgoing(Some(MAX_PENDING_OUT))
            .with_max_established_incoming(Some(most_in))
            .with_max_established_outgoing(Some(most.saturating_add(RESERVE)))
            .with_max_established_per_peer(Some(MAX_PER_PEER));
        let about = libp2p_identify::Config::new(PROTOCOL_VERSION.to_owned(), keypair.public())
            .with_agent_version(config.agent.clone())
            .with_cache_size(0)
            .with_interval(IDENTIFY);
        let mdns = if config.mdns {
            let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), peer);
            Some(behaviour.map_err(|error| SwarmError::Mdns(error.to_string()))?)
        } else {
            None
        };
        let mut limits = connection_limits::Behaviour::new(limits);
        for peer in &favoured {
            limits.bypass_peer_id(peer);
        }
        let listen =
            config.listen.iter().chain(&config.external).map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            banned: allow_block_list::Behaviour::default(),
            admission: admission::Behaviour::new(MAX_PENDING_IN, most_in, favoured),
            limits,
            streams: streams::Behaviour::new(peer),
            meta: meta::behaviour(),
            gossip: gossip::behaviour(&config.repository).map_err(SwarmError::Gossip)?,
            identify: identify::Behaviour::new(about),
            kad: kad::Behaviour::new(config.kad, peer, &config.repository, &listen).into(),
            mdns: mdns.into(),
        })
    }
}
