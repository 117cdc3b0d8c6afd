//! Brings up exactly one session per peer: one control stream and one data stream on one of the
//! connections to that peer, handed over together once both are open.
//!
//! Two nodes that dial each other at once end up with two connections, and each could pick another
//! one. So only one side ever picks: the one with the **smaller peer id** opens both streams, on
//! the connection of its choice, whoever dialled; the other side takes what it is given. What a
//! side does with connections that carry no session is in [`Links`], which is free of I/O.
//!
//! A connection never stays up without a purpose: one that carries no session within
//! [`OPEN_DEADLINE`] is closed, which is also the end of those who speak another protocol.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint, UpgradeInfo, upgrade};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::time::{Instant, Sleep, sleep_until};
use updraft_protocol::transfer::{CONTROL_PROTOCOL, DATA_PROTOCOL};

use super::links::{Action, Links};

/// Within this time of a connection's start a session runs on it, or it is closed.
pub(super) const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// The two open streams of a session.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) control: Stream,
    pub(super) data: Stream,
}

/// What happens to sessions.
#[derive(Debug)]
pub(super) enum Event {
    /// Both streams of a session are open. Replaces the peer's earlier session, if any.
    Ready { peer: PeerId, connection: ConnectionId, remote: Multiaddr, outbound: bool, lanes: Box<Lanes> },
    /// A connection is being closed because it carries no session.
    Closing { connection: ConnectionId, reason: String },
}

/// Opens sessions' streams.
#[derive(Debug)]
pub(super) struct Behaviour {
    local: PeerId,
    peers: HashMap<PeerId, Links>,
    queue: VecDeque<ToSwarm<Event, Command>>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(super) fn new(local: PeerId) -> Self {
        Self { local, peers: HashMap::new(), queue: VecDeque::new(), timer: None, waker: None }
    }

    /// The session on `connection` ended: that connection goes, another may take over.
    pub(super) fn session_ended(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(links) = self.peers.get_mut(&peer) {
            links.failed(connection, "its session ended".to_owned());
            self.settle(peer);
        }
    }

    /// Closes the connections to `peer`, except the one that says its last words.
    pub(super) fn close_others(&mut self, peer: PeerId, spared: Option<ConnectionId>) {
        if let Some(links) = self.peers.get_mut(&peer) {
            links.fail_others(spared, "this node ended the session");
            self.settle(peer);
        }
    }

    /// There is a connection to `peer` on which a session is about to come up.
    pub(super) fn is_opening(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|links| links.next_deadline().is_some())
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let chooser = self.local < peer;
        let remote = endpoint.get_remote_address().clone();
        let links = self.peers.entry(peer).or_insert_with(|| Links::new(chooser));
        links.add(connection, remote, endpoint.is_dialer(), Instant::now());
        self.settle(peer);
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(links) = self.peers.get_mut(&peer) {
            links.remove(connection);
            if links.is_empty() {
                self.peers.remove(&peer);
            } else {
                self.settle(peer);
            }
        }
    }

    /// Does what is due for `peer` now.
    fn settle(&mut self, peer: PeerId) {
        let Some(links) = self.peers.get_mut(&peer) else {
            return;
        };
        while let Some(action) = links.decide(Instant::now()) {
            match action {
                Action::Open(connection) => self.queue.push_back(ToSwarm::NotifyHandler {
                    peer_id: peer,
                    handler: NotifyHandler::One(connection),
                    event: Command::Open,
                }),
                Action::Close(connection, reason) => {
                    let connection_to_close = CloseConnection::One(connection);
                    self.queue.push_back(ToSwarm::GenerateEvent(Event::Closing { connection, reason }));
                    self.queue.push_back(ToSwarm::CloseConnection { peer_id: peer, connection: connection_to_close });
                }
            }
        }
        self.wake();
    }

    /// Waits for the next deadline of any peer; true when one has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(next) = self.peers.values().filter_map(Links::next_deadline).min() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(at, _)| *at != next) {
            self.timer = Some((next, Box::pin(sleep_until(next))));
        }
        self.timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready())
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.local < peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.local < peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.established(event.peer_id, event.connection_id, event.endpoint);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.closed(peer_id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        let Some(links) = self.peers.get_mut(&peer) else {
            return;
        };
        match event {
            Opened::Ready(lanes) => {
                let Some((remote, outbound)) = links.opened(connection, Instant::now()) else {
                    return;
                };
                let event = Event::Ready { peer, connection, remote, outbound, lanes };
                self.queue.push_back(ToSwarm::GenerateEvent(event));
            }
            Opened::Failed(reason) => links.failed(connection, reason),
        }
        self.settle(peer);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Poll::Ready(event);
            }
            if !self.poll_timer(cx) {
                break;
            }
            // The timer is made anew: time has moved past the deadlines that it stood for.
            self.timer = None;
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            for peer in peers {
                self.settle(peer);
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the behaviour tells a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    /// Open both streams of a session.
    Open,
}

/// What a connection tells the behaviour.
#[derive(Debug)]
pub(super) enum Opened {
    /// Both streams are open.
    Ready(Box<Lanes>),
    /// They cannot be opened.
    Failed(String),
}

/// The two streams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Control,
    Data,
}

impl Lane {
    fn protocol(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Self::Control => CONTROL_PROTOCOL,
            Self::Data => DATA_PROTOCOL,
        })
    }
}

/// Opens or accepts a session's streams on one connection.
#[derive(Debug)]
pub(super) struct Handler {
    /// We open the streams; those that the remote opens are dropped.
    chooser: bool,
    to_open: VecDeque<Lane>,
    control: Option<Stream>,
    data: Option<Stream>,
    /// Streams were handed over, or failed: a connection has one chance.
    done: bool,
    event: Option<Opened>,
}

impl Handler {
    fn new(chooser: bool) -> Self {
        Self { chooser, to_open: VecDeque::new(), control: None, data: None, done: false, event: None }
    }

    fn take(&mut self, lane: Lane, stream: Stream) {
        let slot = match lane {
            Lane::Control => &mut self.control,
            Lane::Data => &mut self.data,
        };
        if self.done || slot.is_some() {
            return; // Dropping a stream resets it.
        }
        *slot = Some(stream);
        match (self.control.take(), self.data.take()) {
            (Some(control), Some(data)) => {
                self.done = true;
                self.event = Some(Opened::Ready(Box::new(Lanes { control, data })));
            }
            (control, data) => (self.control, self.data) = (control, data),
        }
    }

    fn fail(&mut self, reason: String) {
        if !self.done {
            self.done = true;
            self.event = Some(Opened::Failed(reason));
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Opened;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(vec![Lane::Control, Lane::Data]), ())
    }

    /// The behaviour decides when a connection ends, not its idleness.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, Command::Open: Command) {
        self.to_open.extend([Lane::Control, Lane::Data]);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Lane, Opened>> {
        if let Some(event) = self.event.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(lane) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(Offer(vec![lane]), lane).with_timeout(OPEN_DEADLINE);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Lane>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (lane, stream), .. })
                if !self.chooser =>
            {
                self.take(lane, stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (lane, stream), .. }) => {
                self.take(lane, stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: lane }) => {
                let what = lane.protocol();
                self.fail(match error {
                    StreamUpgradeError::Timeout => {
                        format!("the peer did not answer to {what} in time")
                    }
                    StreamUpgradeError::NegotiationFailed => {
                        format!("the peer does not speak {what}")
                    }
                    StreamUpgradeError::Io(error) => format!("{what} cannot be opened: {error}"),
                    StreamUpgradeError::Apply(never) => match never {},
                });
            }
            _ => {}
        }
    }
}

/// The protocols of one stream's negotiation.
#[derive(Debug, Clone)]
pub(super) struct Offer(Vec<Lane>);

/// One of them, as it is negotiated.
#[derive(Debug, Clone)]
pub(super) struct Offered(Lane, StreamProtocol);

impl AsRef<str> for Offered {
    fn as_ref(&self) -> &str {
        self.1.as_ref()
    }
}

impl UpgradeInfo for Offer {
    type Info = Offered;
    type InfoIter = std::vec::IntoIter<Offered>;

    fn protocol_info(&self) -> Self::InfoIter {
        let offered: Vec<Offered> = self.0.iter().map(|lane| Offered(*lane, lane.protocol())).collect();
        offered.into_iter()
    }
}

impl upgrade::InboundUpgrade<Stream> for Offer {
    type Output = (Lane, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, offered: Offered) -> Self::Future {
        ready(Ok((offered.0, stream)))
    }
}

impl upgrade::OutboundUpgrade<Stream> for Offer {
    type Output = (Lane, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, offered: Offered) -> Self::Future {
        ready(Ok((offered.0, stream)))
    }
}
