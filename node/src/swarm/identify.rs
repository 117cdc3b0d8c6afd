//! libp2p identify, twice: one instance for remotes on this machine or link, one for all others,
//! of which only the first ever learns our loopback and link-local addresses.
//!
//! libp2p's identify tells every listening address to everybody and cannot choose by connection.

use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identify::{Behaviour as Inner, Config, Event};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::addresses::is_local;

type InnerHandler = THandler<Inner>;

/// Identify that keeps local addresses local.
#[allow(missing_debug_implementations, reason = "libp2p's identify has none, and nothing prints this")]
pub(super) struct Behaviour {
    near: Inner,
    far: Inner,
}

impl Behaviour {
    /// The configuration must not push address updates: a push goes to *any* connection of a peer,
    /// and a peer may have one of each kind.
    pub(super) fn new(config: Config) -> Self {
        let config = config.with_push_listen_addr_updates(false);
        Self { near: Inner::new(config.clone()), far: Inner::new(config) }
    }
}

/// Wraps an event of one instance for the handlers of that instance.
fn wrap<I, O>(event: ToSwarm<Event, I>, side: impl Fn(I) -> O) -> ToSwarm<Event, O> {
    event.map_in(side)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Either<InnerHandler, InnerHandler>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_local(remote) {
            self.near.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
        } else {
            self.far.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Right)
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_local(remote) {
            self.near.handle_established_outbound_connection(connection, peer, remote, role, port).map(Either::Left)
        } else {
            self.far.handle_established_outbound_connection(connection, peer, remote, role, port).map(Either::Right)
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // Each instance hears of its own connections only: it notifies the handler of every
        // connection it knows, and the other kind of handler would not understand it.
        match &event {
            FromSwarm::ConnectionEstablished(established) => {
                let near = is_local(established.endpoint.get_remote_address());
                return if near {
                    self.near.on_swarm_event(event);
                } else {
                    self.far.on_swarm_event(event);
                };
            }
            FromSwarm::ConnectionClosed(closed) => {
                let near = is_local(closed.endpoint.get_remote_address());
                return if near {
                    self.near.on_swarm_event(event);
                } else {
                    self.far.on_swarm_event(event);
                };
            }
            _ => {}
        }
        self.near.on_swarm_event(event);
        let local = match &event {
            FromSwarm::NewListenAddr(new) => is_local(new.addr),
            FromSwarm::ExpiredListenAddr(expired) => is_local(expired.addr),
            _ => false,
        };
        if !local {
            self.far.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.near.on_connection_handler_event(peer, connection, event),
            Either::Right(event) => self.far.on_connection_handler_event(peer, connection, event),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Poll::Ready(event) = self.near.poll(cx) {
            return Poll::Ready(wrap(event, Either::Left));
        }
        self.far.poll(cx).map(|event| wrap(event, Either::Right))
    }
}
