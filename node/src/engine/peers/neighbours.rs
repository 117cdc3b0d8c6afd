//! How many sessions a node has, and with whom.
//!
//! The aim is a graph as good as a random one: a node dials a few peers that it picks by chance, is
//! dialled by about as many, and lets go of some when more come. So ten thousand can join through one
//! seed that never holds more than its share: it introduces a newcomer to others, and parts from those
//! that have been here long enough to have found them. Whoever is let go of and has too few neighbours
//! dials somebody else; whoever has enough stays away for some minutes.
//!
//! It must never let inbound sessions decide alone whom a node hears from: those that it dialled itself
//! are not let go of to make room, and a few are replaced over time, so that two halves of a fleet that
//! lost sight of each other find together again, and nobody stays surrounded.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::{IteratorRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use updraft_protocol::peer::PeerId;

use super::super::effect::SwarmEffect;
use super::back_off::NEAR_BACK_OFF_MS;
use super::{Known, Peers, Session};

/// Sessions that a node dials by itself. As many again come to it on average.
const DIALLED: usize = 6;
/// Sessions that a node has dialled itself however many dial it. Whoever takes every place by connecting
/// first must not cut a node off from everybody else.
const DIALLED_AT_LEAST: usize = 4;
/// With fewer sessions a node dials more, once it has waited for others to dial it.
const FEW: usize = 10;
/// With so many, [`DIALLED_AT_LEAST`] of its own will do.
const ENOUGH: usize = 12;
/// With more, a node lets go of some. Every session costs both ends memory, and each piece a message.
const MANY: usize = 16;
/// Of the sessions that a seed may have, the part above which it lets go of some: what is left is for
/// newcomers.
const SEED_SHARE: usize = 2;
/// With fewer a node dials even those that parted from it: it has no choice.
const LONELY: usize = 3;
/// Dials at once. Bounds half-open connections, and what one message of invented peers can cause.
const MAX_DIALS: usize = 8;
/// A dial without any answer is over after this.
const DIAL_DEADLINE_MS: u64 = 30_000;
/// Least and most milliseconds that a node with few neighbours waits to be dialled.
const SETTLE_MS: (u64, u64) = (1_000, 2_000);
/// Milliseconds for which a neighbour is not let go of: it came to find others, and needs time for that.
const VISIT_MS: u64 = 10_000;
/// The same while there is a crowd at the door: two dials and a round trip.
const SHORT_VISIT_MS: u64 = 500;
/// The same for one that has not said hello.
const MUTE_VISIT_MS: u64 = 2_000;
/// Least and most milliseconds for which two that parted leave each other alone.
const PARTED_MS: (u64, u64) = (180_000, 360_000);
/// The same for a node that has hardly anybody else.
const PARTED_LONELY_MS: u64 = 2_000;
/// Least and most milliseconds between two replacements of a neighbour.
const ROTATE_MS: (u64, u64) = (300_000, 900_000);
/// A replacement is from the ticket once in so many times, where none of its peers is a neighbour: halves
/// of a fleet that know nothing of each other meet there. More often, and a large fleet would besiege it.
const TICKET_TURN: u32 = 8;

/// What a session is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tie {
    /// Nothing at the moment.
    Idle,
    /// Blocks are under way; others could bring them.
    Busy,
    /// Something that would be lost with it.
    Bound,
}

/// What is known and planned about the number of neighbours.
#[derive(Debug)]
pub(super) struct Neighbourhood {
    /// With more sessions some are let go.
    many: usize,
    /// With more there is a crowd.
    most: usize,
    /// When a node with few neighbours dials more; `None` while it has enough.
    hungry_at_ms: Option<u64>,
    /// Nobody is due for a dial before this.
    look_at_ms: u64,
    /// When a neighbour is replaced next; 0 before the first look.
    rotate_at_ms: u64,
    /// Who comes in place of another.
    replacement: Option<PeerId>,
}

impl Default for Neighbourhood {
    fn default() -> Self {
        Self { many: MANY, most: MANY, hungry_at_ms: None, look_at_ms: 0, rotate_at_ms: 0, replacement: None }
    }
}

impl Neighbourhood {
    /// Something changed about whom to dial.
    pub(super) fn look_again(&mut self) {
        self.look_at_ms = 0;
    }
}

impl Known {
    /// From when on the peer may be dialled.
    fn due_ms(&self, lonely: bool) -> u64 {
        let parted_ms = match self.parted {
            Some((since_ms, _)) if lonely => since_ms + PARTED_LONELY_MS,
            Some((_, until_ms)) => until_ms,
            None => 0,
        };
        self.next_dial_ms.max(self.rest_until_ms).max(parted_ms)
    }
}

impl Peers {
    /// How many sessions this node may have, and whether it is the one that newcomers ask first.
    pub(crate) fn set_limits(&mut self, most: usize, is_seed: bool) {
        let most = most.max(1);
        let many = if is_seed { MANY.max(most / SEED_SHARE) } else { MANY };
        self.neighbourhood.most = most;
        self.neighbourhood.many = many.min(most);
    }

    /// A source of chance for use while parts of `self` are looked at.
    fn fork(&mut self) -> SmallRng {
        SmallRng::seed_from_u64(self.rng.random())
    }

    fn outbound(&self) -> usize {
        self.sessions.values().filter(|session| session.outbound).count()
    }

    /// How many peers to dial now.
    fn room(&mut self, now_ms: u64) -> usize {
        let dialing = self.dialing.len();
        let total = self.sessions.len() + dialing;
        let few = FEW.min(self.neighbourhood.most);
        let hungry = if total < few {
            let wait_ms = self.rng.random_range(SETTLE_MS.0..=SETTLE_MS.1);
            now_ms >= *self.neighbourhood.hungry_at_ms.get_or_insert(now_ms + wait_ms)
        } else {
            self.neighbourhood.hungry_at_ms = None;
            false
        };
        let own = if total < ENOUGH { DIALLED } else { DIALLED_AT_LEAST }.min(self.neighbourhood.most);
        let room = own.saturating_sub(self.outbound() + dialing);
        let room = if hungry { room.max(few - total) } else { room };
        room.min(MAX_DIALS.saturating_sub(dialing))
    }

    /// Whom to dial now. Called with every tick and after every message that names peers.
    pub(crate) fn dials(&mut self, now_ms: u64) -> Vec<SwarmEffect> {
        self.dialing.retain(|_, since_ms| now_ms.saturating_sub(*since_ms) <= DIAL_DEADLINE_MS);
        let mut effects = Vec::new();
        let room = self.room(now_ms);
        if room > 0 && now_ms >= self.neighbourhood.look_at_ms {
            for peer in self.pick(room, now_ms) {
                effects.extend(self.dial(peer, now_ms));
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

    fn dial(&mut self, peer: PeerId, now_ms: u64) -> Option<SwarmEffect> {
        let addresses = self.known.get(&peer)?.addresses.iter().cloned().collect();
        self.dialing.insert(peer.clone(), now_ms);
        Some(SwarmEffect::Dial { peer: Some(peer), addresses })
    }

    /// Peers that could be dialled, now or later.
    fn candidates(&self) -> impl Iterator<Item = (&PeerId, &Known)> {
        self.known.iter().filter(|(peer, known)| {
            !known.addresses.is_empty()
                && !self.sessions.contains_key(*peer)
                && !self.dialing.contains_key(*peer)
                && !self.banned.contains(*peer)
        })
    }

    /// Chooses among those that are due: the ticket's peers, then those that failed least; and the first
    /// peer that each neighbour told of before the second of any. Otherwise by chance, or all nodes of a
    /// fleet would dial the same few.
    fn pick(&mut self, room: usize, now_ms: u64) -> Vec<PeerId> {
        let mut rng = self.fork();
        let lonely = self.sessions.len() < LONELY;
        let mut due: Vec<(&PeerId, &Known)> = Vec::new();
        let mut next_ms = u64::MAX;
        for (peer, known) in self.candidates() {
            let due_ms = known.due_ms(lonely);
            if now_ms >= due_ms {
                due.push((peer, known));
            } else {
                next_ms = next_ms.min(due_ms);
            }
        }
        due.shuffle(&mut rng);
        let mut told: BTreeMap<Option<&PeerId>, usize> = BTreeMap::new();
        let mut order: Vec<(bool, u32, usize, &PeerId)> = due
            .into_iter()
            .map(|(peer, known)| {
                let turn = told.entry(known.told_by.as_ref()).or_default();
                *turn += usize::from(known.told_by.is_some());
                (!known.from_ticket, known.failures, *turn, peer)
            })
            .collect();
        order.sort_by_key(|(ticket, failures, turn, _)| (*ticket, *failures, *turn));
        let all = order.len() <= room;
        let picked = order.into_iter().take(room).map(|(.., peer)| peer.clone()).collect();
        if all {
            self.neighbourhood.look_at_ms = next_ms;
        }
        picked
    }

    /// Whom to part from now: there are more neighbours than needed, or one was replaced. Notes that they
    /// are left alone from now on. `tie` tells of sessions that would be missed.
    pub(crate) fn let_go(&mut self, now_ms: u64, tie: impl Fn(&PeerId) -> Tie) -> Vec<PeerId> {
        let mut leaving = self.let_go_of_surplus(now_ms, &tie);
        if leaving.is_empty() {
            leaving.extend(self.let_go_of_replaced(&tie));
        }
        for peer in &leaving {
            self.parted(peer, now_ms);
        }
        leaving
    }

    fn let_go_of_surplus(&mut self, now_ms: u64, tie: &impl Fn(&PeerId) -> Tie) -> Vec<PeerId> {
        let total = self.sessions.len();
        let surplus = total.saturating_sub(self.neighbourhood.many);
        if surplus == 0 {
            return Vec::new();
        }
        // With a crowd at the door, who comes next needs the place more than who has been here.
        let crowd = total > self.neighbourhood.most;
        let visit_ms = if crowd { SHORT_VISIT_MS } else { VISIT_MS };
        let mut order: Vec<(Tie, PeerId)> = self
            .sessions
            .iter()
            .filter(|(peer, session)| {
                let stayed_ms = now_ms.saturating_sub(session.since_ms);
                // Whoever does not even greet has no claim to a place that others wait for.
                let served = session.told_others || (crowd && stayed_ms >= MUTE_VISIT_MS);
                !session.outbound && served && stayed_ms >= visit_ms && !self.is_of_ticket(peer)
            })
            .map(|(peer, _)| (tie(peer), peer.clone()))
            .filter(|(tie, _)| *tie == Tie::Idle || (crowd && *tie == Tie::Busy))
            .collect();
        order.shuffle(&mut self.rng);
        order.sort_by_key(|(tie, _)| *tie);
        // Not all at once: each of them may have to look for another.
        let most = if crowd { total - self.neighbourhood.most } else { surplus.div_ceil(16) };
        order.into_iter().take(most).map(|(_, peer)| peer).collect()
    }

    /// The neighbour whose place was taken by a replacement that is here now.
    fn let_go_of_replaced(&mut self, tie: &impl Fn(&PeerId) -> Tie) -> Option<PeerId> {
        let replacement = self.neighbourhood.replacement.clone().filter(|peer| self.is_ready(peer))?;
        self.neighbourhood.replacement = None;
        if self.sessions.len() <= FEW {
            return None;
        }
        let mut rng = self.fork();
        let old = self.sessions.iter().filter(|(peer, session)| {
            session.outbound && **peer != replacement && tie(peer) == Tie::Idle && !self.is_of_ticket(peer)
        });
        old.map(|(peer, _)| peer).choose(&mut rng).cloned()
    }

    /// Two parted because one of them has enough neighbours.
    pub(crate) fn parted(&mut self, peer: &PeerId, now_ms: u64) {
        let until_ms = now_ms + self.rng.random_range(PARTED_MS.0..=PARTED_MS.1);
        if let Some(known) = self.known.get_mut(peer) {
            known.parted = Some((now_ms, until_ms));
        }
    }

    /// Dials of the ticket's peers, where none of them that is a seed is a neighbour and one is needed: what is to be
    /// published can be offered to nobody else. Anybody may call itself a seed. That keeps a node from looking for
    /// those that its operator told it of only where all of these said that they are none.
    pub(crate) fn seek_seed(&mut self, now_ms: u64) -> Vec<SwarmEffect> {
        let names_seed = self.known.values().any(|known| known.from_ticket && !known.is_no_seed);
        let is_seed = |(peer, session): (&PeerId, &Session)| {
            session.hello.as_ref().is_none_or(|hello| hello.seed) && (!names_seed || self.is_of_ticket(peer))
        };
        if self.sessions.iter().any(is_seed) {
            return Vec::new();
        }
        let is_due =
            |known: &Known| known.from_ticket && !(names_seed && known.is_no_seed) && now_ms >= known.due_ms(true);
        let due: Vec<PeerId> =
            self.candidates().filter(|(_, known)| is_due(known)).map(|(peer, _)| peer.clone()).collect();
        due.into_iter().filter_map(|peer| self.dial(peer, now_ms)).collect()
    }

    /// Every few minutes, a dial to somebody new in place of a neighbour that was dialled before.
    pub(crate) fn rotate(&mut self, now_ms: u64) -> Option<SwarmEffect> {
        let first = self.neighbourhood.rotate_at_ms == 0;
        if now_ms < self.neighbourhood.rotate_at_ms {
            return None;
        }
        self.neighbourhood.rotate_at_ms = now_ms + self.rng.random_range(ROTATE_MS.0..=ROTATE_MS.1);
        if first || self.sessions.len() < FEW {
            return None;
        }
        let mut rng = self.fork();
        let due = || self.candidates().filter(|(_, known)| known.failures == 0 && now_ms >= known.due_ms(false));
        let sees_ticket = self.sessions.keys().any(|peer| self.is_of_ticket(peer));
        let of_ticket = !sees_ticket && rng.random_ratio(1, TICKET_TURN);
        let turn = due().filter(|(_, known)| known.from_ticket == of_ticket).choose(&mut rng);
        let peer = turn.map(|(peer, _)| peer.clone())?;
        self.neighbourhood.replacement = Some(peer.clone());
        self.dial(peer, now_ms)
    }
}
