//! Who is connected, who is known, and whom to dial next.
//!
//! Addresses are hints: what a peer is worth is decided by what it proves over its session.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::{MAX_EXCHANGED_PEERS, MAX_PEER_ADDRESSES};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{Control, Hello, PeerRecord};

use super::bucket::{HEADS, REQUESTS, TokenBucket};
use super::effect::SwarmEffect;

/// Sessions that a node tries to have. Enough for rarest-first to see the swarm; few enough that a
/// large fleet is no full mesh.
const WANTED_SESSIONS: usize = 12;
/// Sessions that a node has dialled itself before it leaves the choice of neighbours to those who dial
/// it. Whoever takes every place by connecting first must not cut a node off from everybody else.
const WANTED_OUTBOUND: usize = 4;
/// Peers remembered. Bounds what peer exchange can fill.
const MAX_KNOWN: usize = 1_024;
/// Peers never reached that one neighbour may have told of. Bounds its share of the memory above, so
/// that inventing peers crowds out nobody else's word.
const MAX_HEARSAY: usize = 64;
/// Dials at once.
const MAX_DIALS: usize = 8;
/// First pause after a failed dial, doubled with every further one.
const BACK_OFF_MS: u64 = 1_000;
/// Longest pause for a peer of the ticket, and for any peer while nobody is connected.
const NEAR_BACK_OFF_MS: u64 = 8_000;
/// Longest pause for other peers.
const FAR_BACK_OFF_MS: u64 = 60_000;
/// A dial without any answer is over after this.
const DIAL_DEADLINE_MS: u64 = 30_000;
/// Milliseconds between two peer exchange messages to one neighbour.
const EXCHANGE_MS: u64 = 30_000;
/// A session without a hello is ended after this.
const HELLO_DEADLINE_MS: u64 = 10_000;
/// Neighbours told at once of a newcomer.
const MAX_TOLD: usize = 8;
/// Failed dials after which a peer that nobody vouches for is forgotten.
/// Milliseconds between two times that a peer is told that it is behind.
const HELP_MS: u64 = 5_000;
/// Milliseconds between two requests for a root to a peer that claims to have it.
const ROOT_CLAIM_MS: u64 = 10_000;
const MAX_FAILURES: u32 = 12;

/// One live session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The remote end's multiaddress.
    pub address: String,
    /// We dialled.
    pub outbound: bool,
    /// When it came up.
    pub since_ms: u64,
    /// What the peer said of itself; `None` until it did.
    pub hello: Option<Hello>,
    /// Provable faults so far.
    pub faults: u32,
    exchanged_ms: u64,
    /// When it was told last that it is behind.
    helped_ms: Option<u64>,
    /// The root it was asked for last because it claimed to have it, and when.
    root_asked: Option<(u64, u64)>,
    /// Gossiped heads that are still looked at.
    pub(crate) heads: TokenBucket,
    /// Metadata requests that are still answered.
    pub(crate) requests: TokenBucket,
}

#[derive(Debug, Default)]
struct Known {
    addresses: BTreeSet<String>,
    failures: u32,
    next_dial_ms: u64,
    dialing_since_ms: Option<u64>,
    /// Not dialled before: it made too many faults.
    rest_until_ms: u64,
    from_ticket: bool,
    /// Who told of it; `None` once it was reached, or where it was found in another way.
    told_by: Option<PeerId>,
}

/// All peers that a node knows of.
#[derive(Debug)]
pub(crate) struct Peers {
    me: PeerId,
    repository: Digest,
    sessions: BTreeMap<PeerId, Session>,
    known: BTreeMap<PeerId, Known>,
    /// Ticket addresses without a peer id.
    anonymous: Vec<(String, u64, u32)>,
    banned: BTreeSet<PeerId>,
    rng: SmallRng,
}

/// Where an address can be reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Host,
    Link,
    Wide,
}

fn scope(address: &str) -> Scope {
    let ip = address.trim_start_matches("/ip4/").trim_start_matches("/ip6/");
    if ip.starts_with("127.") || ip.starts_with("::1/") {
        Scope::Host
    } else if ip.starts_with("169.254.") || ip.starts_with("fe80:") {
        Scope::Link
    } else {
        Scope::Wide
    }
}

/// The peer id at the end of a multiaddress.
pub fn peer_of(address: &str) -> Option<PeerId> {
    address.rsplit_once("/p2p/").and_then(|(_, id)| id.parse().ok())
}

fn back_off_ms(failures: u32, most_ms: u64, rng: &mut SmallRng) -> u64 {
    let pause_ms = BACK_OFF_MS.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(most_ms);
    rng.random_range(pause_ms / 2..=pause_ms)
}

impl Peers {
    pub(crate) fn new(me: PeerId, repository: Digest, rng: SmallRng) -> Self {
        Self {
            me,
            repository,
            sessions: BTreeMap::new(),
            known: BTreeMap::new(),
            anonymous: Vec::new(),
            banned: BTreeSet::new(),
            rng,
        }
    }

    /// Addresses of the ticket: dialled whenever there is nobody to talk to.
    pub(crate) fn add_ticket_addresses(&mut self, addresses: &[String]) {
        for address in addresses {
            match peer_of(address) {
                Some(peer) if peer == self.me => {}
                Some(peer) => {
                    let known = self.known.entry(peer).or_default();
                    known.from_ticket = true;
                    known.addresses.insert(address.clone());
                }
                None => self.anonymous.push((address.clone(), 0, 0)),
            }
        }
    }

    /// A neighbour told of a peer.
    pub(crate) fn heard_of(&mut self, from: &PeerId, peer: &PeerId, addresses: &[String]) {
        let is_new = !self.known.contains_key(peer);
        let told = || self.known.values().filter(|known| known.told_by.as_ref() == Some(from)).count();
        if is_new && told() >= MAX_HEARSAY {
            return;
        }
        self.discovered(peer, addresses);
        if let Some(known) = self.known.get_mut(peer).filter(|_| is_new) {
            known.told_by = Some(from.clone());
        }
    }

    /// Makes room for one more peer, at the cost of the one that was dialled in vain most often.
    fn make_room(&mut self) -> bool {
        if self.known.len() < MAX_KNOWN {
            return true;
        }
        let worst = self
            .known
            .iter()
            .filter(|(peer, known)| known.failures > 0 && !known.from_ticket && !self.sessions.contains_key(*peer))
            .max_by_key(|(_, known)| known.failures)
            .map(|(peer, _)| peer.clone());
        worst.is_some_and(|worst| self.known.remove(&worst).is_some())
    }

    /// Peers found by any means.
    pub(crate) fn discovered(&mut self, peer: &PeerId, addresses: &[String]) {
        if *peer == self.me || self.banned.contains(peer) {
            return;
        }
        if !self.known.contains_key(peer) && !self.make_room() {
            return;
        }
        let known = self.known.entry(peer.clone()).or_default();
        for address in addresses {
            if known.addresses.len() < MAX_PEER_ADDRESSES && known.addresses.insert(address.clone()) {
                known.next_dial_ms = 0;
            }
        }
    }

    pub(crate) fn connected(&mut self, peer: &PeerId, address: String, outbound: bool, now_ms: u64) {
        let known = self.known.entry(peer.clone()).or_default();
        known.failures = 0;
        known.dialing_since_ms = None;
        known.told_by = None;
        if outbound && known.addresses.len() < MAX_PEER_ADDRESSES {
            known.addresses.insert(address.clone());
        }
        let session = Session {
            address,
            outbound,
            since_ms: now_ms,
            hello: None,
            faults: 0,
            exchanged_ms: now_ms,
            helped_ms: None,
            root_asked: None,
            heads: TokenBucket::full(HEADS, now_ms),
            requests: TokenBucket::full(REQUESTS, now_ms),
        };
        self.sessions.insert(peer.clone(), session);
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId, now_ms: u64) {
        self.sessions.remove(peer);
        if let Some(known) = self.known.get_mut(peer) {
            known.dialing_since_ms = None;
            known.next_dial_ms = now_ms + self.rng.random_range(0..=BACK_OFF_MS);
        }
    }

    pub(crate) fn dial_failed(&mut self, peer: Option<&PeerId>, addresses: &[String], now_ms: u64) {
        let lonely = self.sessions.is_empty();
        if let Some(peer) = peer {
            let Some(known) = self.known.get_mut(peer) else { return };
            known.dialing_since_ms = None;
            known.failures = known.failures.saturating_add(1);
            let most_ms = if known.from_ticket || lonely { NEAR_BACK_OFF_MS } else { FAR_BACK_OFF_MS };
            known.next_dial_ms = now_ms + back_off_ms(known.failures, most_ms, &mut self.rng);
            if known.failures > MAX_FAILURES && !known.from_ticket && !lonely {
                self.known.remove(peer);
            }
            return;
        }
        for (_, next_dial_ms, failures) in self.anonymous.iter_mut().filter(|(address, ..)| addresses.contains(address))
        {
            *failures = failures.saturating_add(1);
            *next_dial_ms = now_ms + back_off_ms(*failures, NEAR_BACK_OFF_MS, &mut self.rng);
        }
    }

    /// Takes a peer's hello. `Err` is the reason to part.
    pub(crate) fn hello(&mut self, peer: &PeerId, hello: Hello) -> Result<(), String> {
        if hello.repository != self.repository.as_bytes() {
            if let Some(known) = self.known.get_mut(peer) {
                known.addresses.clear();
            }
            return Err("it belongs to another repository".to_owned());
        }
        let Some(session) = self.sessions.get_mut(peer) else { return Err("there is no session".to_owned()) };
        if session.hello.is_some() {
            return Err("it said hello twice".to_owned());
        }
        session.hello = Some(hello);
        Ok(())
    }

    /// The peer now has this head.
    pub(crate) fn heard_head(&mut self, peer: &PeerId, root_version: u64, timestamp_version: u64) {
        if let Some(hello) = self.sessions.get_mut(peer).and_then(|session| session.hello.as_mut()) {
            hello.root_version = hello.root_version.max(root_version);
            hello.timestamp_version = hello.timestamp_version.max(timestamp_version);
        }
    }

    /// Whether the peer said that it checks with root `version` or a newer one.
    pub(crate) fn claims_root(&self, peer: &PeerId, version: u64) -> bool {
        let hello = self.sessions.get(peer).and_then(|session| session.hello.as_ref());
        hello.is_some_and(|hello| hello.root_version >= version)
    }

    /// Whether a peer that is behind is to be told so (again). Notes that it is.
    pub(crate) fn may_be_helped(&mut self, peer: &PeerId, now_ms: u64) -> bool {
        let Some(session) = self.sessions.get_mut(peer).filter(|session| session.hello.is_some()) else { return false };
        let due = session.helped_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= HELP_MS);
        if due {
            session.helped_ms = Some(now_ms);
        }
        due
    }

    /// Whether a peer that claims root `version` is to be asked for it (again). Notes that it is. A
    /// claim costs its sender nothing, so it must not cost us a request each time.
    pub(crate) fn may_be_asked_for_root(&mut self, peer: &PeerId, version: u64, now_ms: u64) -> bool {
        let Some(session) = self.sessions.get_mut(peer) else { return false };
        let asked = session.root_asked.filter(|(asked, _)| *asked == version);
        let due = asked.is_none_or(|(_, at_ms)| now_ms.saturating_sub(at_ms) >= ROOT_CLAIM_MS);
        if due {
            session.root_asked = Some((version, now_ms));
        }
        due
    }

    pub(crate) fn ban(&mut self, peer: &PeerId) {
        // What the ticket says of it is kept: it is dialled again once the ban is over.
        if self.known.get(peer).is_some_and(|known| !known.from_ticket) {
            self.known.remove(peer);
        }
        self.banned.insert(peer.clone());
    }

    pub(crate) fn unban(&mut self, peer: &PeerId) {
        self.banned.remove(peer);
    }

    pub(crate) fn is_banned(&self, peer: &PeerId) -> bool {
        self.banned.contains(peer)
    }

    /// Whether a dial to this peer failed and none has succeeded since, or it is not dialled at all.
    pub(crate) fn has_failed(&self, peer: &PeerId) -> bool {
        self.known.get(peer).is_none_or(|known| known.failures > 0)
    }

    /// The session, to be counted in.
    pub(crate) fn session_mut(&mut self, peer: &PeerId) -> Option<&mut Session> {
        self.sessions.get_mut(peer)
    }

    /// A session ended for its faults: the peer is not dialled for a while.
    pub(crate) fn rest(&mut self, peer: &PeerId, now_ms: u64) {
        if let Some(known) = self.known.get_mut(peer) {
            known.rest_until_ms = now_ms + FAR_BACK_OFF_MS;
        }
    }

    /// Counts a fault; true once the peer has used up its credit.
    pub(crate) fn fault(&mut self, peer: &PeerId, most: u32) -> bool {
        self.sessions.get_mut(peer).is_some_and(|session| {
            session.faults += 1;
            session.faults >= most
        })
    }

    pub(crate) fn sessions(&self) -> &BTreeMap<PeerId, Session> {
        &self.sessions
    }

    /// Peers whose hello was accepted.
    pub(crate) fn ready(&self) -> Vec<PeerId> {
        self.sessions.iter().filter(|(_, session)| session.hello.is_some()).map(|(peer, _)| peer.clone()).collect()
    }

    pub(crate) fn is_ready(&self, peer: &PeerId) -> bool {
        self.sessions.get(peer).is_some_and(|session| session.hello.is_some())
    }

    /// Whether the ticket names it.
    pub(crate) fn is_of_ticket(&self, peer: &PeerId) -> bool {
        self.known.get(peer).is_some_and(|known| known.from_ticket)
    }

    /// Dialable addresses of a peer.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<String> {
        self.known.get(peer).map(|known| known.addresses.iter().cloned().collect()).unwrap_or_default()
    }

    /// Whom to dial now.
    pub(crate) fn dials(&mut self, now_ms: u64) -> Vec<SwarmEffect> {
        for known in self.known.values_mut() {
            if known.dialing_since_ms.is_some_and(|since| now_ms.saturating_sub(since) > DIAL_DEADLINE_MS) {
                known.dialing_since_ms = None;
            }
        }
        let dialing = self.known.values().filter(|known| known.dialing_since_ms.is_some()).count();
        let outbound = self.sessions.values().filter(|session| session.outbound).count();
        let room = WANTED_SESSIONS
            .saturating_sub(self.sessions.len() + dialing)
            .max(WANTED_OUTBOUND.saturating_sub(outbound + dialing))
            .min(MAX_DIALS.saturating_sub(dialing));
        let due: Vec<&PeerId> = self
            .known
            .iter()
            .filter(|(peer, known)| {
                !self.sessions.contains_key(*peer)
                    && known.dialing_since_ms.is_none()
                    && !known.addresses.is_empty()
                    && now_ms >= known.next_dial_ms.max(known.rest_until_ms)
                    && !self.banned.contains(*peer)
            })
            .map(|(peer, _)| peer)
            .collect();
        // The first peer that each neighbour told of comes before the second of any.
        let mut told: BTreeMap<Option<&PeerId>, usize> = BTreeMap::new();
        let mut due: Vec<(bool, u32, usize, &PeerId)> = due
            .into_iter()
            .map(|peer| {
                let known = &self.known[peer];
                let turn = told.entry(known.told_by.as_ref()).or_default();
                *turn += usize::from(known.told_by.is_some());
                (!known.from_ticket, known.failures, *turn, peer)
            })
            .collect();
        due.sort_unstable();
        let due: Vec<PeerId> = due.into_iter().take(room).map(|(.., peer)| peer.clone()).collect();
        let mut effects = Vec::new();
        for peer in due {
            if let Some(known) = self.known.get_mut(&peer) {
                known.dialing_since_ms = Some(now_ms);
                let addresses = known.addresses.iter().cloned().collect();
                effects.push(SwarmEffect::Dial { peer: Some(peer), addresses });
            }
        }
        if self.sessions.is_empty() {
            for (address, next_dial_ms, _) in self.anonymous.iter_mut().filter(|(_, next, _)| now_ms >= *next) {
                *next_dial_ms = now_ms + NEAR_BACK_OFF_MS;
                effects.push(SwarmEffect::Dial { peer: None, addresses: vec![address.clone()] });
            }
        }
        effects
    }

    /// Sessions that never said hello.
    pub(crate) fn speechless(&self, now_ms: u64) -> Vec<PeerId> {
        self.sessions
            .iter()
            .filter(|(_, session)| {
                session.hello.is_none() && now_ms.saturating_sub(session.since_ms) > HELLO_DEADLINE_MS
            })
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// What `to` may be told of `about`: never an address that means another machine there.
    fn record(&self, about: &PeerId, to: &Session) -> Option<PeerRecord> {
        let reach = scope(&to.address);
        let known = self.known.get(about)?;
        let addresses: Vec<String> = known
            .addresses
            .iter()
            .filter(|address| match scope(address) {
                Scope::Wide => true,
                narrow => narrow == reach,
            })
            .cloned()
            .collect();
        (!addresses.is_empty()).then(|| PeerRecord { peer: about.clone(), addresses })
    }

    /// Introduces a peer that is ready now: it learns of the others, some of them learn of it.
    pub(crate) fn introduce(&mut self, newcomer: &PeerId) -> Vec<SwarmEffect> {
        let Some(session) = self.sessions.get(newcomer) else { return Vec::new() };
        let others: Vec<PeerId> = self.ready().into_iter().filter(|peer| peer != newcomer).collect();
        let records: Vec<PeerRecord> =
            others.iter().filter_map(|peer| self.record(peer, session)).take(MAX_EXCHANGED_PEERS).collect();
        let mut effects = Vec::new();
        if !records.is_empty() {
            effects.push(SwarmEffect::Control { peer: newcomer.clone(), message: Control::Peers(records) });
        }
        let start = if others.is_empty() { 0 } else { self.rng.random_range(0..others.len()) };
        for other in others.iter().cycle().skip(start).take(others.len().min(MAX_TOLD)) {
            if let Some(record) = self.sessions.get(other).and_then(|to| self.record(newcomer, to)) {
                effects.push(SwarmEffect::Control { peer: other.clone(), message: Control::Peers(vec![record]) });
            }
        }
        effects
    }

    /// Peer exchange that is due.
    pub(crate) fn exchange(&mut self, now_ms: u64) -> Vec<SwarmEffect> {
        let due: Vec<PeerId> = self
            .ready()
            .into_iter()
            .filter(|peer| now_ms.saturating_sub(self.sessions[peer].exchanged_ms) > EXCHANGE_MS)
            .collect();
        let mut effects = Vec::new();
        for peer in due {
            let records: Vec<PeerRecord> = self
                .ready()
                .iter()
                .filter(|other| **other != peer)
                .filter_map(|other| self.record(other, &self.sessions[&peer]))
                .take(MAX_EXCHANGED_PEERS)
                .collect();
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.exchanged_ms = now_ms;
            }
            // A small, settled neighbourhood has nothing new to tell.
            if !records.is_empty() && records.len() + 1 < WANTED_SESSIONS {
                effects.push(SwarmEffect::Control { peer, message: Control::Peers(records) });
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes(&[n; 8]).expect("in bounds")
    }

    fn peers() -> Peers {
        Peers::new(peer(0), Digest::of(b"repository"), SmallRng::seed_from_u64(1))
    }

    fn ready(peers: &mut Peers, n: u8, address: &str) {
        peers.connected(&peer(n), address.to_owned(), true, 0);
        let hello = Hello { repository: Digest::of(b"repository").as_bytes().to_vec(), ..Hello::default() };
        peers.hello(&peer(n), hello).expect("the right repository");
    }

    #[test]
    fn a_dead_ticket_address_is_tried_again_within_seconds_and_never_twice_at_once() {
        let mut peers = peers();
        let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1));
        peers.add_ticket_addresses(&[address]);
        for round in 0..20_u64 {
            let now_ms = round * NEAR_BACK_OFF_MS;
            assert_eq!(peers.dials(now_ms).len(), 1, "round {round}");
            assert_eq!(peers.dials(now_ms).len(), 0, "already dialling");
            peers.dial_failed(Some(&peer(1)), &[], now_ms);
        }
    }

    #[test]
    fn loopback_addresses_are_told_to_neighbours_on_this_host_only() {
        let mut peers = peers();
        ready(&mut peers, 1, "/ip4/127.0.0.1/tcp/10");
        ready(&mut peers, 2, "/ip4/127.0.0.1/tcp/20");
        ready(&mut peers, 3, "/ip4/192.0.2.7/tcp/30");
        let told: Vec<PeerId> = peers
            .introduce(&peer(1))
            .into_iter()
            .filter_map(|effect| match effect {
                SwarmEffect::Control { peer: to, message: Control::Peers(records) } => {
                    records.iter().any(|record| record.peer == peer(1)).then_some(to)
                }
                _ => None,
            })
            .collect();
        assert_eq!(told, [peer(2)]);
    }

    #[test]
    fn a_peer_of_another_repository_is_parted_from() {
        let mut peers = peers();
        peers.connected(&peer(1), "/ip4/192.0.2.1/tcp/1".to_owned(), true, 0);
        let hello = Hello { repository: vec![9; 32], ..Hello::default() };
        assert!(peers.hello(&peer(1), hello).is_err());
        assert!(!peers.is_ready(&peer(1)));
    }

    #[test]
    fn a_claimed_root_is_asked_for_once_in_a_while_and_remembered() {
        let mut peers = peers();
        ready(&mut peers, 1, "/ip4/10.0.0.1/tcp/1");
        peers.heard_head(&peer(1), 5, 0);
        assert!(peers.claims_root(&peer(1), 5) && !peers.claims_root(&peer(1), 6));
        assert!(peers.may_be_asked_for_root(&peer(1), 2, 0));
        assert!(!peers.may_be_asked_for_root(&peer(1), 2, ROOT_CLAIM_MS - 1));
        assert!(peers.may_be_asked_for_root(&peer(1), 3, 1), "the next root of a chain is not delayed");
        assert!(peers.may_be_asked_for_root(&peer(1), 3, ROOT_CLAIM_MS + 1));
        assert!(!peers.may_be_asked_for_root(&peer(2), 2, 0), "there is no session");
    }

    #[test]
    fn a_peer_that_is_behind_is_told_so_once_in_a_while() {
        let mut peers = peers();
        ready(&mut peers, 1, "/ip4/10.0.0.1/tcp/1");
        assert!(peers.may_be_helped(&peer(1), 0));
        assert!(!peers.may_be_helped(&peer(1), HELP_MS - 1));
        assert!(peers.may_be_helped(&peer(1), HELP_MS));
    }

    #[test]
    fn a_full_neighbourhood_dials_nobody() {
        let mut peers = peers();
        for n in 1..=12 {
            ready(&mut peers, n, &format!("/ip4/192.0.2.{n}/tcp/1"));
        }
        peers.discovered(&peer(99), &["/ip4/192.0.2.99/tcp/1".to_owned()]);
        assert!(peers.dials(0).is_empty());
    }

    #[test]
    fn those_who_connect_first_do_not_decide_whom_a_node_dials() {
        let mut peers = peers();
        for n in 1..=40 {
            peers.connected(&peer(n), format!("/ip4/192.0.2.{n}/tcp/1"), false, 0);
        }
        peers.discovered(&peer(99), &["/ip4/192.0.2.99/tcp/1".to_owned()]);
        assert_eq!(peers.dials(0).len(), 1);
    }

    #[test]
    fn a_neighbour_that_invents_peers_crowds_out_nobody_elses_word() {
        let mut peers = peers();
        let address = ["/ip4/192.0.2.99/tcp/1".to_owned()];
        for number in 0..10_000_u32 {
            let invented = PeerId::from_bytes(&[&[0_u8][..], &number.to_be_bytes()].concat()).expect("in bounds");
            peers.heard_of(&peer(1), &invented, &address);
        }
        assert!(peers.known.len() <= MAX_HEARSAY);
        peers.heard_of(&peer(2), &peer(77), &address);
        let dialled: Vec<Option<PeerId>> = peers
            .dials(0)
            .into_iter()
            .filter_map(|effect| match effect {
                SwarmEffect::Dial { peer, .. } => Some(peer),
                _ => None,
            })
            .collect();
        assert!(dialled.contains(&Some(peer(77))), "{dialled:?}");
    }
}
