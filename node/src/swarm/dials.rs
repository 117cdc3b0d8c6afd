//! Dials in progress: what the engine asked for, until a session is up or every address failed.
//!
//! TCP goes first, because a byte over QUIC costs several times the CPU. QUIC addresses are tried
//! when TCP failed, or has not answered within [`TCP_LEAD`].

use std::collections::HashSet;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;
use updraft_protocol::limits::{MAX_ADDRESS_BYTES, MAX_PEER_ADDRESSES};

use super::addresses::{Via, split_peer, via};
use super::translate;
use crate::engine::input::SwarmInput;

/// How long TCP has before QUIC is tried too.
const TCP_LEAD: Duration = Duration::from_millis(1500);
/// Dials in progress. The engine starts far fewer; this bounds the table whatever it does.
const MAX_ATTEMPTS: usize = 256;

/// One `Dial` of the engine's.
#[derive(Debug)]
struct Attempt {
    peer: Option<PeerId>,
    /// As the engine gave them.
    addresses: Vec<String>,
    /// QUIC addresses, and when they get their turn at the latest.
    later: Vec<Multiaddr>,
    later_at: Instant,
    /// Dials that have no outcome yet.
    pending: HashSet<ConnectionId>,
    /// Connections that have no session yet.
    established: HashSet<ConnectionId>,
    errors: Vec<String>,
}

/// What to do about a `Dial`.
#[derive(Debug, Default)]
pub(super) struct Started {
    /// To be handed to libp2p, each with its own connection id.
    pub(super) dials: Vec<DialOpts>,
    /// What to report at once.
    pub(super) input: Option<SwarmInput>,
}

/// All dials in progress.
#[derive(Debug, Default)]
pub(super) struct Dials {
    attempts: Vec<Attempt>,
}

/// Dials from a port of its own. With the listening port, two nodes that dial each other would meet
/// in a TCP simultaneous open, in which both take the dialler's part and the handshake fails.
fn options(peer: Option<PeerId>, addresses: Vec<Multiaddr>) -> Vec<DialOpts> {
    match peer {
        Some(_) if addresses.is_empty() => Vec::new(),
        Some(peer) => {
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses);
            vec![options.allocate_new_port().build()]
        }
        None => addresses
            .into_iter()
            .map(|address| DialOpts::unknown_peer_id().address(address).allocate_new_port().build())
            .collect(),
    }
}

/// An address as it is dialled, and the peer it names.
fn parse(text: &str) -> Result<(Multiaddr, Option<PeerId>, Via), String> {
    if text.len() > MAX_ADDRESS_BYTES {
        return Err(format!("an address of {} bytes; the most is {MAX_ADDRESS_BYTES}", text.len()));
    }
    let address: Multiaddr = text.parse().map_err(|error| format!("{text}: not a multiaddress: {error}"))?;
    let (address, peer) = split_peer(address);
    let via = via(&address).ok_or_else(|| format!("{text}: neither TCP nor QUIC"))?;
    Ok((address, peer, via))
}

impl Dials {
    /// A dial to this peer is under way.
    fn is_dialling(&self, peer: &PeerId) -> bool {
        self.attempts.iter().any(|attempt| attempt.peer.as_ref() == Some(peer))
    }

    /// Starts a dial, unless one to the same peer is under way: its outcome answers for both.
    pub(super) fn start(&mut self, peer: Option<PeerId>, addresses: Vec<String>, now: Instant) -> Started {
        let (mut peer, mut first, mut later, mut errors) = (peer, Vec::new(), Vec::new(), Vec::new());
        for text in addresses.iter().take(MAX_PEER_ADDRESSES) {
            match parse(text) {
                Ok((_, Some(named), _)) if *peer.get_or_insert(named) != named => {
                    errors.push(format!("{text}: names another peer"));
                }
                Ok((address, _, Via::Tcp)) => first.push(address),
                Ok((address, _, Via::Quic)) => later.push(address),
                Err(error) => errors.push(error),
            }
        }
        if peer.as_ref().is_some_and(|peer| self.is_dialling(peer)) {
            return Started::default();
        }
        if self.attempts.len() >= MAX_ATTEMPTS {
            errors.push("too many dials are under way".to_owned());
            (first, later) = (Vec::new(), Vec::new());
        }
        if first.is_empty() {
            first = std::mem::take(&mut later);
        }
        let dials = options(peer, first);
        let pending = dials.iter().map(DialOpts::connection_id).collect();
        let established = HashSet::new();
        let attempt = Attempt { peer, addresses, later, later_at: now + TCP_LEAD, pending, established, errors };
        if dials.is_empty() {
            return Started { dials, input: Some(attempt.into_failure()) };
        }
        self.attempts.push(attempt);
        Started { dials, input: None }
    }

    /// QUIC's turn, where TCP has not answered. Empty when it is nobody's.
    pub(super) fn due(&mut self, now: Instant) -> Vec<DialOpts> {
        let mut dials = Vec::new();
        for attempt in &mut self.attempts {
            if attempt.later_at <= now && attempt.established.is_empty() {
                dials.append(&mut attempt.start_later());
            }
        }
        dials
    }

    /// When to call [`Self::due`].
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = |attempt: &&Attempt| !attempt.later.is_empty() && attempt.established.is_empty();
        self.attempts.iter().filter(waits).map(|attempt| attempt.later_at).min()
    }

    /// A connection is up.
    pub(super) fn established(&mut self, connection: ConnectionId) {
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.pending.contains(&connection)) {
            attempt.pending.remove(&connection);
            attempt.established.insert(connection);
        }
    }

    /// A session with a peer is up, by this dial or another way: nothing is left to report.
    pub(super) fn reached(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.attempts
            .retain(|attempt| attempt.peer.as_ref() != Some(peer) && !attempt.established.contains(&connection));
    }

    /// Why a connection is about to close.
    pub(super) fn explain(&mut self, connection: ConnectionId, reason: String) {
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.established.contains(&connection)) {
            attempt.errors.push(reason);
        }
    }

    /// A dial failed, or its connection closed before there was a session.
    pub(super) fn failed(&mut self, connection: ConnectionId, errors: impl IntoIterator<Item = String>) -> Started {
        let concerned =
            |attempt: &Attempt| attempt.pending.contains(&connection) || attempt.established.contains(&connection);
        let Some(at) = self.attempts.iter().position(concerned) else {
            return Started::default();
        };
        let attempt = &mut self.attempts[at];
        attempt.pending.remove(&connection);
        attempt.established.remove(&connection);
        attempt.errors.extend(errors);
        if !attempt.pending.is_empty() || !attempt.established.is_empty() {
            return Started::default();
        }
        let dials = attempt.start_later();
        if dials.is_empty() {
            return Started { dials, input: Some(self.attempts.swap_remove(at).into_failure()) };
        }
        Started { dials, input: None }
    }
}

impl Attempt {
    fn start_later(&mut self) -> Vec<DialOpts> {
        let dials = options(self.peer, std::mem::take(&mut self.later));
        self.pending.extend(dials.iter().map(DialOpts::connection_id));
        dials
    }

    fn into_failure(self) -> SwarmInput {
        let reason = if self.errors.is_empty() { "there is no address".to_owned() } else { self.errors.join("; ") };
        let peer = self.peer.as_ref().map(translate::peer_to_protocol);
        SwarmInput::DialFailed { peer, addresses: self.addresses, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| (*address).to_owned()).collect()
    }

    #[test]
    fn quic_waits_for_tcp() {
        let (mut dials, now, peer) = (Dials::default(), Instant::now(), PeerId::random());
        let addresses = texts(&["/ip4/192.0.2.1/udp/1/quic-v1", "/ip4/192.0.2.1/tcp/1"]);
        let started = dials.start(Some(peer), addresses, now);
        assert_eq!(started.dials.len(), 1);
        assert_eq!(dials.next_deadline(), Some(now + TCP_LEAD));
        assert_eq!(dials.due(now).len(), 0);
        assert_eq!(dials.due(now + TCP_LEAD).len(), 1);
        assert_eq!(dials.next_deadline(), None);
    }

    #[test]
    fn quic_follows_a_failure_of_tcp_and_only_then_the_dial_has_failed() {
        let (mut dials, now, peer) = (Dials::default(), Instant::now(), PeerId::random());
        let addresses = texts(&["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"]);
        let first = dials.start(Some(peer), addresses.clone(), now).dials[0].connection_id();
        let second = dials.failed(first, ["refused".to_owned()]);
        assert!(second.input.is_none());
        let last = dials.failed(second.dials[0].connection_id(), ["timed out".to_owned()]);
        let expected = SwarmInput::DialFailed {
            peer: Some(translate::peer_to_protocol(&peer)),
            addresses,
            reason: "refused; timed out".to_owned(),
        };
        assert_eq!(last.input, Some(expected));
    }

    #[test]
    fn a_peer_being_dialled_is_not_dialled_again() {
        let (mut dials, now, peer) = (Dials::default(), Instant::now(), PeerId::random());
        assert_eq!(dials.start(Some(peer), texts(&["/ip4/192.0.2.1/tcp/1"]), now).dials.len(), 1);
        let named = format!("/ip4/192.0.2.2/tcp/1/p2p/{peer}");
        let again = dials.start(None, vec![named], now);
        assert!(again.dials.is_empty() && again.input.is_none());
    }

    #[test]
    fn what_cannot_be_dialled_is_explained() {
        let mut dials = Dials::default();
        let addresses = texts(&["nonsense", "/ip4/192.0.2.1/udp/1"]);
        let started = dials.start(None, addresses, Instant::now());
        let Some(SwarmInput::DialFailed { reason, .. }) = started.input else { panic!("it fails at once") };
        assert!(reason.contains("nonsense: not a multiaddress") && reason.contains("neither TCP nor QUIC"), "{reason}");
    }

    #[test]
    fn a_connection_without_a_session_is_a_failed_dial() {
        let (mut dials, now) = (Dials::default(), Instant::now());
        let connection = dials.start(None, texts(&["/ip4/192.0.2.1/tcp/1"]), now).dials[0].connection_id();
        dials.established(connection);
        dials.explain(connection, "not one of us".to_owned());
        let started = dials.failed(connection, []);
        assert!(matches!(started.input, Some(SwarmInput::DialFailed { reason, .. }) if reason == "not one of us"));
    }

    #[test]
    fn a_session_ends_the_dial_without_a_report() {
        let (mut dials, now, peer) = (Dials::default(), Instant::now(), PeerId::random());
        let connection = dials.start(Some(peer), texts(&["/ip4/192.0.2.1/tcp/1"]), now).dials[0].connection_id();
        dials.established(connection);
        dials.reached(&peer, connection);
        assert!(dials.failed(connection, []).input.is_none());
        assert!(!dials.is_dialling(&peer));
    }
}
