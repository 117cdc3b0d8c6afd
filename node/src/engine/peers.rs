//! Who is connected, who is known, and whom to dial next.
//!
//! Addresses are hints: what a peer is worth is decided by what it proves over its session.
//!
//! | file | is about |
//! |---|---|
//! | `peers/neighbours.rs` | how many sessions there are: whom to dial, whom to let go, rotation |
//! | `peers/exchange.rs` | who is told of whom |
//! | `peers/reach.rs` | which addresses mean the same to two peers |
//! | `peers/back_off.rs` | pauses after failed dials |

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom as _;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_PEER_ADDRESSES;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::Hello;

use self::back_off::{BACK_OFF_MS, FAR_BACK_OFF_MS, back_off_ms};
use self::neighbours::Neighbourhood;
pub(crate) use self::neighbours::Tie;
use super::bucket::{HEADS, REQUESTS, TokenBucket};

mod back_off;
mod exchange;
mod neighbours;
mod reach;
#[cfg(test)]
mod tests;

/// Peers remembered. Bounds what peer exchange and visitors can fill.
const MAX_KNOWN: usize = 1_024;
/// Peers never reached that one neighbour may have told of. Bounds its share of the memory above, so
/// that inventing peers crowds out nobody else's word.
const MAX_HEARSAY: usize = 64;
/// A session without a hello is ended after this.
const HELLO_DEADLINE_MS: u64 = 10_000;
/// Milliseconds between two times that a peer is told that it is behind.
const HELP_MS: u64 = 5_000;
/// Milliseconds between two requests for a root to a peer that claims to have it.
const ROOT_CLAIM_MS: u64 = 10_000;
/// Failed dials after which a peer that nobody vouches for is forgotten.
const MAX_FAILURES: u32 = 12;
/// Least and most milliseconds before a peer that is named by itself is dialled: it is a newcomer, told
/// of us as well and in greater need, so that it dials first and the two do not meet half way.
const NEWCOMER_MS: (u64, u64) = (300, 800);

/// A node that has known the teller for less than this is a newcomer itself.
const YOUNG_MS: u64 = 2_000;

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
    /// It was told of others.
    told_others: bool,
    /// Others were told of it.
    introduced: bool,
    /// The addresses that were written down for the next start.
    remembered: Vec<String>,
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
    /// Not dialled before: it made too many faults.
    rest_until_ms: u64,
    /// When a session with it ended because one side had enough neighbours, and until when it is let be.
    parted: Option<(u64, u64)>,
    from_ticket: bool,
    /// It said that it is not the seed when it was here last.
    is_no_seed: bool,
    /// When there was a session with it last.
    seen_ms: Option<u64>,
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
    /// Dials without an outcome yet, and since when.
    dialing: BTreeMap<PeerId, u64>,
    /// Ticket addresses without a peer id.
    anonymous: Vec<(String, u64, u32)>,
    banned: BTreeSet<PeerId>,
    neighbourhood: Neighbourhood,
    /// When a neighbour is told of a few others next; 0 before the first look.
    exchange_at_ms: u64,
    rng: SmallRng,
}

/// The peer id at the end of a multiaddress.
pub fn peer_of(address: &str) -> Option<PeerId> {
    address.rsplit_once("/p2p/").and_then(|(_, id)| id.parse().ok())
}

impl Peers {
    pub(crate) fn new(me: PeerId, repository: Digest, rng: SmallRng) -> Self {
        Self {
            me,
            repository,
            sessions: BTreeMap::new(),
            known: BTreeMap::new(),
            dialing: BTreeMap::new(),
            anonymous: Vec::new(),
            banned: BTreeSet::new(),
            neighbourhood: Neighbourhood::default(),
            exchange_at_ms: 0,
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

    /// A neighbour told of a peer, of it `alone` where it has just come. What it says of peers that were reached counts only once they are
    /// not found any more where they were.
    pub(crate) fn heard_of(&mut self, from: &PeerId, peer: &PeerId, addresses: &[String], alone: bool, now_ms: u64) {
        let Some(remote) = self.sessions.get(from).map(|session| session.address.clone()) else { return };
        let known = self.known.get(peer);
        let is_new = known.is_none();
        if known.is_some_and(|known| known.told_by.is_none() && known.failures == 0) {
            return;
        }
        let told = || self.known.values().filter(|known| known.told_by.as_ref() == Some(from)).count();
        if is_new && told() >= MAX_HEARSAY {
            return;
        }
        let addresses: Vec<String> =
            addresses.iter().filter(|address| reach::is_shared_with(address, &remote)).cloned().collect();
        if addresses.is_empty() {
            return;
        }
        self.discovered(peer, &addresses);
        // Of two that came at the same time, one goes ahead.
        let is_young =
            self.sessions.get(from).is_some_and(|session| now_ms.saturating_sub(session.since_ms) < YOUNG_MS);
        let waits = alone && !(is_young && self.me < *peer);
        if let Some(known) = self.known.get_mut(peer).filter(|_| is_new) {
            known.told_by = Some(from.clone());
            if waits {
                known.next_dial_ms = now_ms + self.rng.random_range(NEWCOMER_MS.0..=NEWCOMER_MS.1);
            }
        }
    }

    /// Makes room for one more peer: at the cost of the one that was dialled in vain most often, or, for a
    /// peer that is here in person, of any that is only remembered.
    fn make_room(&mut self, in_person: bool) -> bool {
        if self.known.len() < MAX_KNOWN {
            return true;
        }
        let absent = || {
            let away = |peer: &PeerId| !self.sessions.contains_key(peer) && !self.dialing.contains_key(peer);
            self.known.iter().filter(move |(peer, known)| !known.from_ticket && away(peer))
        };
        let mut worst = absent().max_by_key(|(_, known)| known.failures).filter(|(_, known)| known.failures > 0);
        if worst.is_none() && in_person {
            let hearsay = absent().filter(|(_, known)| known.seen_ms.is_none()).choose(&mut self.rng);
            worst = hearsay.or_else(|| absent().choose(&mut self.rng));
        }
        let worst = worst.map(|(peer, _)| peer.clone());
        worst.is_some_and(|worst| self.known.remove(&worst).is_some())
    }

    /// Peers found by any means.
    pub(crate) fn discovered(&mut self, peer: &PeerId, addresses: &[String]) {
        if *peer == self.me || self.banned.contains(peer) {
            return;
        }
        if !self.known.contains_key(peer) && !self.make_room(false) {
            return;
        }
        let known = self.known.entry(peer.clone()).or_default();
        for address in addresses {
            if known.addresses.len() < MAX_PEER_ADDRESSES && known.addresses.insert(address.clone()) {
                known.next_dial_ms = 0;
            }
        }
        self.neighbourhood.look_again();
    }

    /// A neighbour told its own addresses: they replace what others said of it.
    pub(crate) fn identified(&mut self, peer: &PeerId, addresses: &[String]) {
        let dialled = self.sessions.get(peer).filter(|session| session.outbound).map(|session| session.address.clone());
        if let Some(known) = self.known.get_mut(peer).filter(|known| !known.from_ticket) {
            known.addresses = dialled.into_iter().collect();
        }
        self.discovered(peer, addresses);
    }

    pub(crate) fn connected(&mut self, peer: &PeerId, address: String, outbound: bool, now_ms: u64) {
        self.dialing.remove(peer);
        // Where there is no room at all, the session alone knows of it.
        if self.known.contains_key(peer) || self.make_room(true) {
            let known = self.known.entry(peer.clone()).or_default();
            known.failures = 0;
            known.told_by = None;
            known.parted = None;
            known.seen_ms = Some(now_ms);
            if outbound && known.addresses.len() < MAX_PEER_ADDRESSES {
                known.addresses.insert(address.clone());
            }
        }
        let session = Session {
            address,
            outbound,
            since_ms: now_ms,
            hello: None,
            faults: 0,
            told_others: false,
            introduced: false,
            remembered: Vec::new(),
            helped_ms: None,
            root_asked: None,
            heads: TokenBucket::full(HEADS, now_ms),
            requests: TokenBucket::full(REQUESTS, now_ms),
        };
        self.sessions.insert(peer.clone(), session);
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId, now_ms: u64) {
        self.dialing.remove(peer);
        let was_here = self.sessions.remove(peer).is_some();
        if let Some(known) = self.known.get_mut(peer) {
            known.next_dial_ms = now_ms + self.rng.random_range(0..=BACK_OFF_MS);
            if was_here {
                known.seen_ms = Some(now_ms);
            }
        }
        self.neighbourhood.look_again();
    }

    pub(crate) fn dial_failed(&mut self, peer: Option<&PeerId>, addresses: &[String], now_ms: u64) {
        let lonely = self.sessions.is_empty();
        if let Some(peer) = peer {
            self.dialing.remove(peer);
            self.neighbourhood.look_again();
            let Some(known) = self.known.get_mut(peer) else { return };
            known.failures = known.failures.saturating_add(1);
            let near = known.from_ticket || lonely;
            known.next_dial_ms = now_ms + back_off_ms(known.failures, near, &mut self.rng);
            if known.failures > MAX_FAILURES && !known.from_ticket && !lonely {
                self.known.remove(peer);
            }
            return;
        }
        for (_, next_dial_ms, failures) in self.anonymous.iter_mut().filter(|(address, ..)| addresses.contains(address))
        {
            *failures = failures.saturating_add(1);
            *next_dial_ms = now_ms + back_off_ms(*failures, true, &mut self.rng);
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
        if let Some(known) = self.known.get_mut(peer) {
            known.is_no_seed = !hello.seed;
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

    /// What is to be written down about a neighbour, where that is new: each time costs a disk a write, and a
    /// fleet that joins at once would wait for them.
    pub(crate) fn write_down(&mut self, peer: &PeerId) -> Option<Vec<String>> {
        let addresses = self.addresses(peer);
        let session = self.sessions.get_mut(peer).filter(|session| session.remembered != addresses)?;
        session.remembered.clone_from(&addresses);
        (!addresses.is_empty()).then_some(addresses)
    }

    /// These hold what is wanted: they are dialled without waiting, where they are known.
    pub(crate) fn prefer(&mut self, peers: &[PeerId]) {
        for peer in peers {
            if let Some(known) = self.known.get_mut(peer).filter(|known| known.failures == 0) {
                known.next_dial_ms = 0;
                self.neighbourhood.look_again();
            }
        }
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
}
