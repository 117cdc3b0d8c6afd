//! No network takes every place: how many of the connections that come in may come from one of them.
//!
//! A fleet behind one address is a single network to this node, and must find in; so must a stranger
//! while that fleet, or an attacker with one machine, keeps all the places that it can get. So one
//! network has at most three quarters of them, both of connections that are being set up and of those
//! that are there. The totals are libp2p's connection limits; inbound and outbound connections are
//! counted apart, so that neither starves the other.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Bits of an IPv6 address that name one network: a site can have all addresses below.
const V6_PREFIX_BITS: u32 = 64;

/// Where a connection comes from: an IPv4 address, the prefix of an IPv6 address.
type Network = IpAddr;

/// The network of a remote end; nothing where the address has no IP address in it.
fn network(remote: &Multiaddr) -> Option<Network> {
    match remote.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(match ip.to_ipv4_mapped() {
            Some(mapped) => mapped.into(),
            None => IpAddr::V6((ip.to_bits() >> V6_PREFIX_BITS << V6_PREFIX_BITS).into()),
        }),
        _ => None,
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{network} has {share} connections here already, as many as one network may have; come back later")]
pub(super) struct Crowded {
    network: Network,
    share: usize,
}

/// Connections by the network that they come from.
#[derive(Debug)]
struct Places {
    /// Of one network.
    share: usize,
    taken: HashMap<ConnectionId, Network>,
    counts: HashMap<Network, usize>,
}

impl Places {
    /// Of `total` places, which others bound, a network has three quarters.
    fn new(total: u32) -> Self {
        let share = usize::try_from(total - total / 4).unwrap_or(usize::MAX);
        Self { share, taken: HashMap::new(), counts: HashMap::new() }
    }

    fn take(&mut self, connection: ConnectionId, remote: &Multiaddr) -> Result<(), Crowded> {
        let Some(network) = network(remote) else { return Ok(()) };
        let count = self.counts.entry(network).or_default();
        if *count >= self.share {
            return Err(Crowded { network, share: self.share });
        }
        *count += 1;
        self.taken.insert(connection, network);
        Ok(())
    }

    fn give_back(&mut self, connection: ConnectionId) {
        let Some(network) = self.taken.remove(&connection) else { return };
        if let Some(count) = self.counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }
}

/// Refuses connections of networks that have too many.
#[derive(Debug)]
pub(super) struct Behaviour {
    /// Peers that are always let in.
    favoured: HashSet<PeerId>,
    half_open: Places,
    open: Places,
}

impl Behaviour {
    /// `half_open` and `open` are the most inbound connections that there may be.
    pub(super) fn new(half_open: u32, open: u32, favoured: HashSet<PeerId>) -> Self {
        Self { favoured, half_open: Places::new(half_open), open: Places::new(open) }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.half_open.take(connection, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.half_open.give_back(connection);
        if !self.favoured.contains(&peer) {
            self.open.take(connection, remote).map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.half_open.give_back(connection_id);
                self.open.give_back(connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a valid multiaddress")
    }

    #[test]
    fn one_network_leaves_a_quarter_of_the_places_to_others() {
        let (mut places, fleet) = (Places::new(40), address("/ip4/198.51.100.1/tcp/1"));
        for number in 0..30 {
            assert_eq!(places.take(id(number), &fleet), Ok(()), "{number}");
        }
        assert!(places.take(id(30), &fleet).is_err());
        assert_eq!(places.take(id(31), &address("/ip4/198.51.100.2/tcp/1")), Ok(()), "a neighbour of theirs");
        places.give_back(id(7));
        assert_eq!(places.take(id(30), &fleet), Ok(()));
        for number in 0..40 {
            places.give_back(id(number));
        }
        assert!(places.counts.is_empty() && places.taken.is_empty());
    }

    #[test]
    fn addresses_of_one_site_are_one_network() {
        let same = |one: &str, other: &str| network(&address(one)) == network(&address(other));
        assert!(same("/ip6/2001:db8:1:2::1/tcp/1", "/ip6/2001:db8:1:2:ffff::9/udp/1/quic-v1"));
        assert!(!same("/ip6/2001:db8:1:2::1/tcp/1", "/ip6/2001:db8:1:3::1/tcp/1"));
        assert!(same("/ip6/::ffff:192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2"));
        assert_eq!(network(&address("/dns/example.org/tcp/1")), None);
    }

    #[test]
    fn places_are_given_back_when_a_handshake_fails_and_favoured_peers_need_none() {
        let (favoured, local) = (PeerId::random(), address("/ip4/192.0.2.9/tcp/1"));
        let mut behaviour = Behaviour::new(4, 4, HashSet::from([favoured]));
        let remote = address("/ip4/198.51.100.1/tcp/1");
        for number in 0..3 {
            assert!(behaviour.handle_pending_inbound_connection(id(number), &local, &remote).is_ok());
        }
        assert!(behaviour.handle_pending_inbound_connection(id(3), &local, &remote).is_err());
        for number in 0..3 {
            let peer = PeerId::random();
            assert!(behaviour.handle_established_inbound_connection(id(number), peer, &local, &remote).is_ok());
        }
        assert!(behaviour.handle_pending_inbound_connection(id(4), &local, &remote).is_ok(), "handshakes are over");
        let stranger = PeerId::random();
        assert!(behaviour.handle_established_inbound_connection(id(4), stranger, &local, &remote).is_err());
        assert!(behaviour.handle_established_inbound_connection(id(5), favoured, &local, &remote).is_ok());
    }
}
