//! The task that owns libp2p: carries out effects, reports events, starts and ends sessions.
//!
//! **It never waits for the engine.** The runtime may be blocked while it hands effects over, and
//! would then not take inputs; if this task waited for room in the input channel, both would wait
//! for ever. So inputs that find no room go to `pending`, and while there are any, this task goes
//! on taking effects but no events of libp2p, which holds its connections back in turn. An effect
//! causes at most one input, and the runtime hands over the effects of one step before it takes
//! the next input; what `pending` holds is therefore bounded by one event and the effects of one
//! step. Sessions send their inputs themselves and wait for room there, each by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::gossipsub::IdentTopic;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use updraft_protocol::limits::MAX_HEAD_BYTES;
use updraft_protocol::peer;
use updraft_protocol::transfer::Control;

use super::addresses::{believed, split_peer};
use super::behaviour::{Behaviour, BehaviourEvent};
use super::dials::{Dials, Started};
use super::session::{self, Common, Handle, Origin};
use super::streams::Lanes;
use super::{gossip, meta, streams, translate};
use crate::engine::effect::{GossipVerdict, SwarmEffect};
use crate::engine::input::SwarmInput;

/// Sessions and connections have this long to end in good order.
const FAREWELL: Duration = Duration::from_secs(3);
/// Effects carried out before libp2p gets its turn.
const EFFECTS_AT_ONCE: usize = 64;
/// A timer that never matters.
const FAR: Duration = Duration::from_secs(3600);

/// A running session.
struct Active {
    handle: Arc<Handle>,
    connection: ConnectionId,
    /// The engine greeted the peer in this session. What came before was meant for an earlier one:
    /// handles do not carry over.
    greeted: bool,
}

/// A session's task ended.
struct Ended {
    peer: PeerId,
    connection: ConnectionId,
}

/// The state of the task.
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    common: Common,
    effects: mpsc::Receiver<SwarmEffect>,
    pending: VecDeque<SwarmInput>,
    sessions: HashMap<PeerId, Active>,
    tasks: JoinSet<Ended>,
    /// Remote addresses of open connections.
    remotes: HashMap<ConnectionId, Multiaddr>,
    dials: Dials,
    meta: meta::Book,
    topic: IdentTopic,
    stop: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        common: Common,
        effects: mpsc::Receiver<SwarmEffect>,
        topic: IdentTopic,
        stop: CancellationToken,
    ) -> Self {
        Self {
            swarm,
            common,
            effects,
            pending: VecDeque::new(),
            sessions: HashMap::new(),
            tasks: JoinSet::new(),
            remotes: HashMap::new(),
            dials: Dials::default(),
            meta: meta::Book::default(),
            topic,
            stop,
        }
    }

    /// Runs until it is stopped, or the runtime's ends of both channels are gone.
    pub(super) async fn run(mut self) {
        let inputs = self.common.inputs.clone();
        loop {
            let idle = self.pending.is_empty();
            let due = self.dials.next_deadline().unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                () = self.stop.cancelled() => break,
                room = inputs.reserve(), if !idle => match room {
                    Ok(room) => {
                        if let Some(input) = self.pending.pop_front() {
                            room.send(input);
                        }
                    }
                    Err(_) => break,
                },
                effect = self.effects.recv() => match effect {
                    Some(effect) => self.apply_all(effect),
                    None => break,
                },
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    match ended {
                        Ok(ended) => self.ended(&ended),
                        Err(error) => tracing::error!(%error, "a session's task failed"),
                    }
                }
                event = self.swarm.select_next_some(), if idle => self.on_event(event),
                () = sleep_until(due) => {
                    let dials = self.dials.due(Instant::now());
                    self.dial(dials);
                }
            }
        }
        Box::pin(self.farewell()).await;
    }

    /// Reports an input now if there is room, else as soon as there is.
    fn report(&mut self, input: SwarmInput) {
        if !self.pending.is_empty() {
            self.pending.push_back(input);
            return;
        }
        match self.common.inputs.try_send(input) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(input)) => self.pending.push_back(input),
        }
    }

    fn report_all(&mut self, inputs: impl IntoIterator<Item = SwarmInput>) {
        for input in inputs {
            self.report(input);
        }
    }

    // --- effects ---

    /// Carries out an effect and those that wait behind it: asking libp2p for news in between would
    /// cost more than most of them.
    fn apply_all(&mut self, first: SwarmEffect) {
        self.apply(first);
        for _ in 1..EFFECTS_AT_ONCE {
            let Ok(effect) = self.effects.try_recv() else { break };
            self.apply(effect);
        }
    }

    fn apply(&mut self, effect: SwarmEffect) {
        match effect {
            SwarmEffect::Dial { peer, addresses } => self.start_dial(peer.as_ref(), addresses),
            SwarmEffect::Disconnect { peer } => self.with_peer(&peer, |driver, peer| {
                driver.disconnect(peer, "this node ended the session");
            }),
            SwarmEffect::Ban { peer } => self.with_peer(&peer, |driver, peer| {
                driver.disconnect(peer, "this node banned the peer");
                driver.swarm.behaviour_mut().banned.block_peer(peer);
            }),
            SwarmEffect::Unban { peer } => self.with_peer(&peer, |driver, peer| {
                driver.swarm.behaviour_mut().banned.unblock_peer(peer);
            }),
            SwarmEffect::PublishHead { payload } => {
                gossip::publish(&mut self.swarm.behaviour_mut().gossip, &self.topic, payload);
            }
            SwarmEffect::GossipVerdict { message, peer, verdict } => self.with_peer(&peer, |driver, peer| {
                gossip::judge(&mut driver.swarm.behaviour_mut().gossip, &message, &peer, verdict);
            }),
            SwarmEffect::MetaAsk { request_id, peer, request } => self.with_peer(&peer, |driver, peer| {
                let requests = &mut driver.swarm.behaviour_mut().meta;
                let input = driver.meta.ask(requests, request_id, peer, request);
                driver.report_all(input);
            }),
            SwarmEffect::MetaAnswer { channel, response } => {
                self.meta.answer(&mut self.swarm.behaviour_mut().meta, channel, response);
            }
            SwarmEffect::Control { .. }
            | SwarmEffect::Request { .. }
            | SwarmEffect::Cancel { .. }
            | SwarmEffect::SendBlock { .. }
            | SwarmEffect::DropBlock { .. } => self.apply_to_session(effect),
        }
    }

    /// Does something to a peer, if its id is one of libp2p's.
    fn with_peer(&mut self, peer: &peer::PeerId, act: impl FnOnce(&mut Self, PeerId)) {
        if let Some(peer) = translate::peer_from_protocol(peer) {
            act(self, peer);
        } else {
            tracing::warn!(%peer, "not a libp2p peer id");
        }
    }

    /// The session of a peer, where there is one that the engine knows.
    fn greeted(&self, peer: &peer::PeerId) -> Option<&Handle> {
        let active = self.sessions.get(&translate::peer_from_protocol(peer)?)?;
        active.greeted.then_some(&*active.handle)
    }

    fn apply_to_session(&mut self, effect: SwarmEffect) {
        match effect {
            SwarmEffect::Control { peer, message } => {
                if matches!(message, Control::Hello(_)) {
                    self.with_peer(&peer, |driver, peer| {
                        if let Some(active) = driver.sessions.get_mut(&peer) {
                            active.greeted = true;
                        }
                    });
                }
                if let Some(session) = self.greeted(&peer) {
                    session.control(&message);
                }
            }
            SwarmEffect::Request { peer, handle, object, block } => {
                let Some(session) = self.greeted(&peer) else {
                    return;
                };
                if session.request(handle, object, block).is_err() {
                    tracing::warn!(%peer, "too many requests are open; one was not made");
                }
            }
            SwarmEffect::Cancel { peer, handle, block } => {
                if let Some(session) = self.greeted(&peer) {
                    session.cancel(handle, block);
                }
            }
            SwarmEffect::SendBlock { peer, handle, object, block } => {
                let Some(session) = self.greeted(&peer) else {
                    return;
                };
                if session.send_block(handle, object, block).is_err() {
                    let reason = "too many blocks wait to be sent".to_owned();
                    self.report(SwarmInput::BlockUnreadable { peer, object, block, reason });
                }
            }
            SwarmEffect::DropBlock { peer, handle, block } => {
                if let Some(session) = self.greeted(&peer) {
                    session.drop_block(handle, block);
                }
            }
            _ => {}
        }
    }

    fn start_dial(&mut self, peer: Option<&peer::PeerId>, addresses: Vec<String>) {
        let known = peer.map(|peer| (peer.clone(), translate::peer_from_protocol(peer)));
        let peer = match known {
            Some((peer, None)) => {
                let reason = "not a libp2p peer id".to_owned();
                self.report(SwarmInput::DialFailed { peer: Some(peer), addresses, reason });
                return;
            }
            Some((_, Some(peer))) => Some(peer),
            None => addresses.iter().find_map(|text| split_peer(text.parse().ok()?).1),
        };
        let is_here = |peer: PeerId| {
            let session = self.sessions.get(&peer).is_some_and(|active| !active.handle.is_over());
            session || self.swarm.behaviour().streams.is_opening(&peer)
        };
        if peer.is_some_and(is_here) {
            return; // `Connected` has been reported, or is about to be.
        }
        let started = self.dials.start(peer, addresses, Instant::now());
        self.proceed(started);
    }

    fn proceed(&mut self, started: Started) {
        self.dial(started.dials);
        self.report_all(started.input);
    }

    fn dial(&mut self, dials: Vec<DialOpts>) {
        for dial in dials {
            let connection = dial.connection_id();
            if let Err(error) = self.swarm.dial(dial) {
                let started = self.dials.failed(connection, translate::dial_errors(&error));
                self.proceed(started);
            }
        }
    }

    /// Ends a peer's session once the last words are said, and all its other connections now.
    fn disconnect(&mut self, peer: PeerId, reason: &str) {
        let active = self.sessions.get(&peer);
        if let Some(active) = active {
            active.handle.stop(reason);
        }
        let spared = active.map(|active| active.connection);
        self.swarm.behaviour_mut().streams.close_others(peer, spared);
    }

    // --- sessions ---

    fn start_session(&mut self, peer: PeerId, connection: ConnectionId, origin: Origin, lanes: Lanes) {
        let handle = Handle::new(translate::peer_to_protocol(&peer));
        let active = Active { handle: Arc::clone(&handle), connection, greeted: false };
        let mut origin = origin;
        if let Some(previous) = self.sessions.insert(peer, active) {
            previous.handle.stop("a newer connection took over");
            origin.previous = Some(previous.handle.done());
        }
        let common = self.common.clone();
        self.tasks.spawn(async move {
            Box::pin(session::run(common, handle, origin, lanes.control, lanes.data)).await;
            Ended { peer, connection }
        });
    }

    fn ended(&mut self, ended: &Ended) {
        self.swarm.behaviour_mut().streams.session_ended(ended.peer, ended.connection);
        if self.sessions.get(&ended.peer).is_some_and(|active| active.connection == ended.connection) {
            self.sessions.remove(&ended.peer);
        }
    }

    // --- events ---

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, .. } => {
                self.remotes.insert(connection_id, endpoint.get_remote_address().clone());
                self.dials.established(connection_id);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                self.remotes.remove(&connection_id);
                let cause = cause.map(|cause| format!("the connection closed: {}", translate::chain(&cause)));
                let started = self.dials.failed(connection_id, cause);
                self.proceed(started);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                let started = self.dials.failed(connection_id, translate::dial_errors(&error));
                self.proceed(started);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.report(SwarmInput::Listening { address: split_peer(address).0.to_string() });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listener_closed(address, "the address is gone");
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                let reason = reason.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
                for address in addresses {
                    self.listener_closed(address, &reason);
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener reports an error");
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(%error, %send_back_addr, "an incoming connection failed");
            }
            _ => {}
        }
    }

    fn listener_closed(&mut self, address: Multiaddr, reason: &str) {
        let address = split_peer(address).0.to_string();
        self.report(SwarmInput::ListenerClosed { address, reason: reason.to_owned() });
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(streams::Event::Ready { peer, connection, remote, outbound, lanes }) => {
                self.dials.reached(&peer, connection);
                let address = split_peer(remote).0.to_string();
                let origin = Origin { address, outbound, previous: None };
                self.start_session(peer, connection, origin, *lanes);
            }
            BehaviourEvent::Streams(streams::Event::Closing { connection, reason }) => {
                self.dials.explain(connection, reason);
            }
            BehaviourEvent::Meta(event) => {
                let input = self.meta.on_event(event);
                self.report_all(input);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                if message.data.len() > MAX_HEAD_BYTES {
                    let gossip = &mut self.swarm.behaviour_mut().gossip;
                    gossip::judge(gossip, &message_id.0, &propagation_source, GossipVerdict::Reject);
                } else {
                    self.report(translate::gossip(&propagation_source, message_id, message));
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                let remote = self.remotes.get(&connection_id);
                if let (Some(kad), Some(remote)) = (self.swarm.behaviour_mut().kad.as_mut(), remote) {
                    kad.identified(&peer_id, &info.protocols, &believed(&peer_id, &info.listen_addrs, remote));
                }
                let input = remote.and_then(|remote| translate::identified(&peer_id, &info, remote));
                self.report_all(input);
            }
            BehaviourEvent::Kad(found) => {
                let own = *self.swarm.local_peer_id();
                self.report_all(translate::found_by_kad(found, &own));
            }
            BehaviourEvent::Mdns(event) => {
                let own = *self.swarm.local_peer_id();
                self.report_all(translate::mdns(event, &own));
            }
            BehaviourEvent::Gossip(_) | BehaviourEvent::Identify(_) => {}
        }
    }

    // --- the end ---

    /// Ends all sessions, then all connections, within [`FAREWELL`].
    async fn farewell(mut self) {
        let deadline = Instant::now() + FAREWELL;
        self.effects.close();
        for active in self.sessions.values() {
            active.handle.stop("this node is stopping");
        }
        while !self.tasks.is_empty() {
            let step = timeout_at(deadline, async {
                tokio::select! {
                    _ = self.tasks.join_next() => {}
                    _ = self.swarm.select_next_some() => {}
                }
            });
            if step.await.is_err() {
                break;
            }
        }
        self.tasks.shutdown().await;
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let deadline = deadline.max(Instant::now() + FAREWELL / 3);
        while self.swarm.connected_peers().next().is_some() {
            if timeout_at(deadline, self.swarm.select_next_some()).await.is_err() {
                break;
            }
        }
    }
}
