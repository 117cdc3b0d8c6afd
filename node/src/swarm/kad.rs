//! Kademlia, for fleets too large for peer exchange alone: only to find peers, off unless configured.
//!
//! It speaks a protocol named after the repository, so that it is never part of another network. It
//! keeps routing tables and nothing else: no records and no providers, its own or others'. Whom it
//! finds it reports like any other hearsay; the engine decides whom to dial.
//!
//! Every connection here carries a session, and left alone the servers of such a network connect to all
//! others. So a lookup has at most [`MAX_DIALS`] connections of its own at a time, those that stay
//! included; the engine ends those that are more than it needs.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{
    Behaviour as Inner, BucketInserts, Caching, Config, Event as InnerEvent, Mode, PeerInfo, QueryId, QueryResult,
    StoreInserts,
};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::time::{Instant, Sleep, sleep_until};
use updraft_protocol::digest::Digest;

use super::addresses::{is_local, split_peer, via};

/// Connections that lookups have of their own. Bounds what Kademlia adds to a node's sessions.
const MAX_DIALS: usize = 3;
/// The first lookup comes this long after the first peer that speaks the protocol was met.
const FIRST_LOOKUP: Duration = Duration::from_secs(2);
/// Then one about every ten minutes, a quarter more or less, so that a fleet does not look in step.
const LOOKUP: Duration = Duration::from_secs(600);
/// A lookup is given up after this.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of one message: 20 peers with their addresses.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Peers that one lookup may report. Bounds what a liar's answer makes of itself.
const MAX_FOUND: usize = 20;

/// A node's part in Kademlia.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kad {
    /// None: nothing is spoken, nothing kept.
    #[default]
    Off,
    /// It looks others up and answers nobody.
    Client,
    /// It answers as well.
    Server,
}

/// A peer that a lookup found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
}

/// Kademlia, held to its bounds.
#[allow(missing_debug_implementations, reason = "libp2p's Kademlia has none, and nothing prints this")]
pub(super) struct Behaviour {
    inner: Inner<MemoryStore>,
    protocol: StreamProtocol,
    /// Every address of ours is on this machine: then so are those of others.
    all_local: bool,
    dialled: HashSet<ConnectionId>,
    refused: VecDeque<PeerId>,
    /// When the next lookup is due.
    lookup: Option<Pin<Box<Sleep>>>,
    /// The lookup in progress.
    current: Option<QueryId>,
}

/// The protocol's name in the network of `repository`.
fn protocol(repository: &Digest) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/updraft/kad/1/{repository}")).expect("it begins with a slash")
}

fn config(protocol: StreamProtocol) -> Config {
    let mut config = Config::new(protocol);
    config
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(None)
        .set_caching(Caching::Disabled)
        .set_query_timeout(LOOKUP_DEADLINE)
        .set_max_packet_size(MAX_MESSAGE_BYTES);
    config
}

impl Behaviour {
    /// Nothing where it is off.
    pub(super) fn new(kad: Kad, me: PeerId, repository: &Digest, listen: &[Multiaddr]) -> Option<Self> {
        let mode = match kad {
            Kad::Off => return None,
            Kad::Client => Mode::Client,
            Kad::Server => Mode::Server,
        };
        let nothing =
            MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 0, max_provided_keys: 0 };
        let protocol = protocol(repository);
        let mut inner = Inner::with_config(me, MemoryStore::with_config(me, nothing), config(protocol.clone()));
        inner.set_mode(Some(mode));
        let all_local = !listen.is_empty() && listen.iter().all(is_local);
        Some(Self {
            inner,
            protocol,
            all_local,
            dialled: HashSet::new(),
            refused: VecDeque::new(),
            lookup: None,
            current: None,
        })
    }

    /// A peer told over an authenticated connection what it speaks and where it is. Whoever does not
    /// answer lookups is of no use here; an address that means another machine elsewhere is not kept,
    /// for tables are told to everybody.
    pub(super) fn identified(&mut self, peer: &PeerId, protocols: &[StreamProtocol], addresses: &[Multiaddr]) {
        if !protocols.contains(&self.protocol) {
            return;
        }
        let told: Vec<&Multiaddr> = addresses.iter().filter(|address| self.may_be_told(address)).collect();
        for address in told {
            self.inner.add_address(peer, split_peer(address.clone()).0);
        }
        if self.lookup.is_none() {
            self.lookup = Some(Box::pin(sleep_until(Instant::now() + FIRST_LOOKUP)));
        }
    }

    fn may_be_told(&self, address: &Multiaddr) -> bool {
        via(address).is_some() && (self.all_local || !is_local(address))
    }

    fn look_up(&mut self, cx: &mut Context<'_>) {
        let Some(lookup) = &mut self.lookup else { return };
        while lookup.as_mut().poll(cx).is_ready() {
            let target = PeerId::random();
            // A random peer id is as good a source of chance as any.
            let jitter = f64::from(target.to_bytes().last().copied().unwrap_or(0)) / 512.0;
            lookup.set(sleep_until(Instant::now() + LOOKUP.mul_f64(0.75 + jitter)));
            self.current = Some(self.inner.get_closest_peers(target));
        }
    }

    /// libp2p's Kademlia looks through its whole table each time that it learns of a peer, which cannot be
    /// switched off and made joining cost a node five times the bytes. Only lookups of ours go on.
    fn end_other_lookups(&mut self) {
        let current = self.current;
        for mut query in self.inner.iter_queries_mut().filter(|query| Some(query.id()) != current) {
            query.finish();
        }
    }

    /// Lets a lookup have a connection, or tells it that it has none.
    fn dial(&mut self, wanted: &DialOpts) -> Option<DialOpts> {
        let peer = wanted.get_peer_id()?;
        if self.dialled.len() >= MAX_DIALS {
            self.refused.push_back(peer);
            return None;
        }
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(Vec::new())
            .extend_addresses_through_behaviour()
            .allocate_new_port()
            .build();
        self.dialled.insert(dial.connection_id());
        Some(dial)
    }
}

/// The peers of a lookup's answer.
fn found(event: InnerEvent) -> Vec<Found> {
    let peers: Vec<PeerInfo> = match event {
        InnerEvent::OutboundQueryProgressed { result: QueryResult::GetClosestPeers(result), .. } => match result {
            Ok(found) => found.peers,
            Err(libp2p::kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        },
        _ => Vec::new(),
    };
    peers.into_iter().take(MAX_FOUND).map(|info| Found { peer: info.peer_id, addresses: info.addrs }).collect()
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<Inner<MemoryStore>>;
    type ToSwarm = Vec<Found>;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, remote, role, port)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // What the engine dials is its own choice of addresses.
        if !self.dialled.contains(&connection) {
            return Ok(Vec::new());
        }
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionClosed(closed) => {
                self.dialled.remove(&closed.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                self.dialled.remove(&failure.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Vec<Found>, THandlerInEvent<Self>>> {
        self.look_up(cx);
        loop {
            while let Some(peer) = self.refused.pop_front() {
                let connection_id = ConnectionId::new_unchecked(usize::MAX);
                let failure = DialFailure { peer_id: Some(peer), error: &DialError::Aborted, connection_id };
                self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
            }
            self.end_other_lookups();
            match self.inner.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ToSwarm::Dial { opts }) => {
                    if let Some(opts) = self.dial(&opts) {
                        return Poll::Ready(ToSwarm::Dial { opts });
                    }
                }
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    let mut found = found(event);
                    for peer in &mut found {
                        peer.addresses.retain(|address| self.may_be_told(address));
                    }
                    if !found.is_empty() {
                        return Poll::Ready(ToSwarm::GenerateEvent(found));
                    }
                }
                // Only what a peer told over its own connection is believed of it: tables are not filled
                // through the address book of the swarm.
                Poll::Ready(other) => return Poll::Ready(other.map_out(|_| Vec::new())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a valid multiaddress")
    }

    fn server(listen: &str) -> Behaviour {
        let listen = [address(listen)];
        Behaviour::new(Kad::Server, PeerId::random(), &Digest::of(b"a"), &listen).expect("it is on")
    }

    fn table(behaviour: &mut Behaviour) -> usize {
        behaviour.inner.kbuckets().map(|bucket| bucket.num_entries()).sum()
    }

    #[test]
    fn off_is_nothing_at_all() {
        assert!(Behaviour::new(Kad::Off, PeerId::random(), &Digest::of(b"a"), &[]).is_none());
    }

    #[test]
    fn every_repository_has_a_network_of_its_own() {
        assert_ne!(protocol(&Digest::of(b"a")), protocol(&Digest::of(b"b")));
        assert!(protocol(&Digest::of(b"a")).as_ref().starts_with("/updraft/kad/1/"));
    }

    #[tokio::test]
    async fn tables_hold_peers_that_answer_at_addresses_that_mean_the_same_everywhere() {
        let mut behaviour = server("/ip4/0.0.0.0/tcp/4880");
        let spoken = [protocol(&Digest::of(b"a"))];
        let wide = address("/ip4/203.0.113.1/tcp/1");
        behaviour.identified(&PeerId::random(), &[protocol(&Digest::of(b"b"))], std::slice::from_ref(&wide));
        behaviour.identified(&PeerId::random(), &spoken, &[address("/ip4/127.0.0.1/tcp/1")]);
        behaviour.identified(&PeerId::random(), &spoken, &[address("/ip6/fe80::1/tcp/1")]);
        assert_eq!(table(&mut behaviour), 0);
        behaviour.identified(&PeerId::random(), &spoken, &[wide]);
        assert_eq!(table(&mut behaviour), 1);
        let mut here = server("/ip4/127.0.0.1/tcp/4880");
        here.identified(&PeerId::random(), &spoken, &[address("/ip4/127.0.0.1/tcp/1")]);
        assert_eq!(table(&mut here), 1, "all of it is on this machine");
    }

    #[tokio::test]
    async fn lookups_have_few_connections_of_their_own() {
        let mut behaviour = server("/ip4/0.0.0.0/tcp/4880");
        let wanted = || DialOpts::peer_id(PeerId::random()).build();
        let dials: Vec<DialOpts> = (0..20).filter_map(|_| behaviour.dial(&wanted())).collect();
        assert_eq!((dials.len(), behaviour.refused.len()), (MAX_DIALS, 20 - MAX_DIALS));
        let failure = DialFailure {
            peer_id: dials[0].get_peer_id(),
            error: &DialError::Aborted,
            connection_id: dials[0].connection_id(),
        };
        behaviour.on_swarm_event(FromSwarm::DialFailure(failure));
        assert!(behaviour.dial(&wanted()).is_some(), "a place is free again");
    }
}
