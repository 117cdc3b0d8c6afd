//! Which of the connections to one peer carries the session, and which are closed: pure rules over
//! what is known, driven by [`super::streams`].
//!
//! Both sides run these rules. The *chooser* (the side with the smaller peer id) opens a session on
//! the oldest connection that has none, and may move it; the other side follows. Surplus
//! connections go: each side closes those that it dialled itself as soon as it has a session on
//! another one. From this the chooser learns about a peer that came back after a crash or with
//! another address, while the old connection looks alive: such a peer does *not* close the
//! connection that it just dialled, so after [`SURPLUS_GRACE`] the chooser moves the session there.

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::streams::OPEN_DEADLINE;

/// How long the dialler of a surplus connection has to close it, before the lack of that tells that
/// it knows of no other session.
pub(super) const SURPLUS_GRACE: Duration = Duration::from_secs(3);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Open a session's streams on a connection.
    Open(ConnectionId),
    /// Close a connection, and why.
    Close(ConnectionId, String),
}

/// Next: `Idle` -> `Opening` (chooser) -> `Session`; any -> `Doomed`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Idle,
    Opening,
    Session,
    /// It is to be closed, for this reason.
    Failed(String),
    /// It is being closed.
    Doomed,
}

#[derive(Debug, Clone)]
struct Link {
    connection: ConnectionId,
    remote: Multiaddr,
    outbound: bool,
    phase: Phase,
    /// The phase is left before this, or the connection goes.
    deadline: Instant,
}

/// The connections to one peer, oldest first. The limits on connections keep it short.
#[derive(Debug)]
pub(super) struct Links {
    chooser: bool,
    links: Vec<Link>,
}

impl Links {
    pub(super) fn new(chooser: bool) -> Self {
        Self { chooser, links: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// A connection is up.
    pub(super) fn add(&mut self, connection: ConnectionId, remote: Multiaddr, outbound: bool, now: Instant) {
        let wait = if self.chooser && self.has_session() { SURPLUS_GRACE } else { OPEN_DEADLINE };
        self.links.push(Link { connection, remote, outbound, phase: Phase::Idle, deadline: now + wait });
    }

    /// A connection is gone.
    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.links.retain(|link| link.connection != connection);
    }

    /// Both streams are open on a connection: the session is there now, and nowhere else. Tells the
    /// remote's address and whether we dialled; nothing if the connection is on its way out.
    pub(super) fn opened(&mut self, connection: ConnectionId, now: Instant) -> Option<(Multiaddr, bool)> {
        let at = self.links.iter().position(|link| link.connection == connection)?;
        if matches!(self.links[at].phase, Phase::Doomed | Phase::Failed(_)) {
            return None;
        }
        for link in &mut self.links {
            match link.phase {
                Phase::Session => {
                    link.phase = Phase::Failed("a newer connection took over".to_owned());
                }
                Phase::Idle if self.chooser => link.deadline = now + SURPLUS_GRACE,
                _ => {}
            }
        }
        let link = &mut self.links[at];
        link.phase = Phase::Session;
        Some((link.remote.clone(), link.outbound))
    }

    /// All connections but one are to be closed.
    pub(super) fn fail_others(&mut self, spared: Option<ConnectionId>, reason: &str) {
        let others = self.links.iter_mut().filter(|link| Some(link.connection) != spared);
        for link in others.filter(|link| link.phase != Phase::Doomed) {
            link.phase = Phase::Failed(reason.to_owned());
        }
    }

    /// The streams of a connection could not be opened, or are no more.
    pub(super) fn failed(&mut self, connection: ConnectionId, reason: String) {
        let link = self.links.iter_mut().find(|link| link.connection == connection);
        if let Some(link) = link.filter(|link| link.phase != Phase::Doomed) {
            link.phase = Phase::Failed(reason);
        }
    }

    fn has_session(&self) -> bool {
        self.links.iter().any(|link| link.phase == Phase::Session)
    }

    fn is_opening(&self) -> bool {
        self.links.iter().any(|link| link.phase == Phase::Opening)
    }

    /// The next thing to do; called until there is none.
    pub(super) fn decide(&mut self, now: Instant) -> Option<Action> {
        let (chooser, session, opening) = (self.chooser, self.has_session(), self.is_opening());
        self.links.iter_mut().find_map(|link| {
            let close = match &link.phase {
                Phase::Failed(reason) => Some(reason.clone()),
                Phase::Idle if session && link.outbound => Some("there is a session on another connection".to_owned()),
                Phase::Idle if chooser && !opening && (!session || now >= link.deadline) => None,
                Phase::Idle | Phase::Opening if now >= link.deadline => {
                    Some("the peer opened no session: it may not be an Updraft node".to_owned())
                }
                Phase::Idle | Phase::Opening | Phase::Session | Phase::Doomed => return None,
            };
            if let Some(reason) = close {
                link.phase = Phase::Doomed;
                return Some(Action::Close(link.connection, reason));
            }
            link.phase = Phase::Opening;
            link.deadline = now + OPEN_DEADLINE;
            Some(Action::Open(link.connection))
        })
    }

    /// When to ask again though nothing happened.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = |link: &&Link| matches!(link.phase, Phase::Idle | Phase::Opening);
        self.links.iter().filter(waits).map(|link| link.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn remote() -> Multiaddr {
        "/ip4/198.51.100.7/tcp/1".parse().expect("a valid multiaddress")
    }

    fn links(chooser: bool, now: Instant, outbound: &[bool]) -> Links {
        let mut links = Links::new(chooser);
        for (number, outbound) in outbound.iter().enumerate() {
            links.add(id(number), remote(), *outbound, now);
        }
        links
    }

    fn closes(action: Option<&Action>, number: usize) -> bool {
        matches!(action, Some(Action::Close(connection, _)) if *connection == id(number))
    }

    #[test]
    fn only_the_chooser_opens_and_only_once() {
        let now = Instant::now();
        let mut chooser = links(true, now, &[false, true]);
        assert_eq!(chooser.decide(now), Some(Action::Open(id(0))));
        assert_eq!(chooser.decide(now), None);
        assert_eq!(links(false, now, &[false, true]).decide(now), None);
    }

    #[test]
    fn a_side_closes_the_surplus_that_it_dialled() {
        let now = Instant::now();
        for chooser in [true, false] {
            let mut links = links(chooser, now, &[false, true]);
            assert!(links.opened(id(0), now).is_some());
            assert!(closes(links.decide(now).as_ref(), 1));
            assert_eq!(links.decide(now), None);
        }
    }

    #[test]
    fn a_peer_that_keeps_a_new_connection_gets_the_session_there() {
        let now = Instant::now();
        let mut links = links(true, now, &[false]);
        assert!(links.opened(id(0), now).is_some());
        links.add(id(1), remote(), false, now);
        assert_eq!(links.decide(now), None);
        let later = now + SURPLUS_GRACE;
        assert_eq!(links.next_deadline(), Some(later));
        assert_eq!(links.decide(later), Some(Action::Open(id(1))));
        assert!(links.opened(id(1), later).is_some());
        assert!(closes(links.decide(later).as_ref(), 0));
    }

    #[test]
    fn the_other_side_follows_the_chooser_to_a_new_connection() {
        let now = Instant::now();
        let mut links = links(false, now, &[true]);
        assert!(links.opened(id(0), now).is_some());
        links.add(id(1), remote(), false, now);
        assert_eq!(links.decide(now), None);
        assert!(links.opened(id(1), now).is_some());
        assert!(closes(links.decide(now).as_ref(), 0));
    }

    #[test]
    fn a_session_comes_up_on_the_connection_that_is_left() {
        let now = Instant::now();
        let mut links = links(true, now, &[false, false]);
        assert_eq!(links.decide(now), Some(Action::Open(id(0))));
        assert!(links.opened(id(0), now).is_some());
        links.remove(id(0));
        assert_eq!(links.decide(now), Some(Action::Open(id(1))));
    }

    #[test]
    fn a_connection_without_a_session_is_closed_at_the_deadline() {
        let now = Instant::now();
        for chooser in [true, false] {
            let mut links = links(chooser, now, &[true]);
            while links.decide(now).is_some() {}
            let deadline = links.next_deadline().expect("it waits for a session");
            assert!(closes(links.decide(deadline).as_ref(), 0));
            assert_eq!(links.decide(deadline), None);
            assert_eq!(links.next_deadline(), None);
        }
    }

    #[test]
    fn a_refused_stream_closes_its_connection() {
        let now = Instant::now();
        let mut links = links(true, now, &[true]);
        assert_eq!(links.decide(now), Some(Action::Open(id(0))));
        links.failed(id(0), "no".to_owned());
        assert_eq!(links.decide(now), Some(Action::Close(id(0), "no".to_owned())));
    }
}
