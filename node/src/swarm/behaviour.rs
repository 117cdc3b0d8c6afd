//! What a node does on its connections, as one libp2p behaviour.

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{allow_block_list, identify as libp2p_identify, identity, mdns};

use super::{SwarmConfig, SwarmError, gossip, identify, meta, streams};

/// Connections of our own beyond `max_peers`: those that are about to be replaced.
const RESERVE: u32 = 16;
/// Connections of others beyond `max_peers`: newcomers, who stay for a moment to hear of others. With half
/// a second each, some two hundred find their way into a fleet in one second.
const VISITORS: u32 = 128;
/// Connections to one peer: the session's, one that takes over, and one dialled at the same time.
const MAX_PER_PEER: u32 = 3;
/// Connections that are being set up, each way. Bounds handshakes in progress.
const MAX_PENDING: u32 = 128;
/// The protocol version told to others, for people.
const PROTOCOL_VERSION: &str = "updraft/1";

/// All behaviours. Those that refuse connections come first.
#[derive(NetworkBehaviour)]
#[allow(missing_debug_implementations, reason = "libp2p's behaviours have none, and nothing prints this")]
pub(super) struct Behaviour {
    pub(super) banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    limits: connection_limits::Behaviour,
    pub(super) streams: streams::Behaviour,
    pub(super) meta: meta::Requests,
    pub(super) gossip: gossip::Gossipsub,
    identify: identify::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(config: &SwarmConfig, keypair: &identity::Keypair) -> Result<Self, SwarmError> {
        let peer = keypair.public().to_peer_id();
        let most = u32::try_from(config.max_peers).unwrap_or(u32::MAX);
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING))
            .with_max_pending_outgoing(Some(MAX_PENDING))
            .with_max_established_incoming(Some(most.saturating_add(VISITORS)))
            .with_max_established_outgoing(Some(most.saturating_add(RESERVE)))
            .with_max_established_per_peer(Some(MAX_PER_PEER));
        let about = libp2p_identify::Config::new(PROTOCOL_VERSION.to_owned(), keypair.public())
            .with_agent_version(config.agent.clone())
            .with_cache_size(0);
        let mdns = if config.mdns {
            let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), peer);
            Some(behaviour.map_err(|error| SwarmError::Mdns(error.to_string()))?)
        } else {
            None
        };
        Ok(Self {
            banned: allow_block_list::Behaviour::default(),
            limits: connection_limits::Behaviour::new(limits),
            streams: streams::Behaviour::new(peer),
            meta: meta::behaviour(),
            gossip: gossip::behaviour(&config.repository).map_err(SwarmError::Gossip)?,
            identify: identify::Behaviour::new(about),
            mdns: mdns.into(),
        })
    }
}
