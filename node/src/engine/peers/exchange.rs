//! Who is told of whom.
//!
//! Only peers that were reached are told of, so that nobody spreads what a stranger invented; and never
//! an address that means another machine there. What is told is chosen by chance from all that are
//! known, not from those that came last: a fleet that joins in a row must not become one.

use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::{IteratorRandom as _, SliceRandom as _};
use updraft_protocol::limits::MAX_EXCHANGED_PEERS;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{Control, PeerRecord};

use super::super::effect::SwarmEffect;
use super::{Known, Peers, Session, reach};

/// Peers that one who dialled us is told of: a newcomer finds its neighbours among them.
const TOLD_TO_NEWCOMER: usize = 24;
/// Peers that one whom we dialled is told of: it was here before us.
const TOLD_TO_OTHERS: usize = 6;
/// Neighbours told of a newcomer, so that whoever came first is dialled and dials as well.
const MAX_TOLD: usize = 4;
/// Least and most milliseconds between two peer exchange messages, to one neighbour each. Of an idle
/// node's traffic this is some ten bytes a second.
const EXCHANGE_MS: (u64, u64) = (60_000, 120_000);
/// A peer that was not here for this long is not told of any more.
const FRESH_MS: u64 = 1_800_000;

const _: () = assert!(TOLD_TO_NEWCOMER <= MAX_EXCHANGED_PEERS);

/// At most so many, by chance.
fn some<T>(mut from: Vec<T>, most: usize, rng: &mut SmallRng) -> Vec<T> {
    // The chosen end up at the end.
    let _ = from.partial_shuffle(rng, most);
    from.split_off(from.len().saturating_sub(most))
}

impl Peers {
    /// What `to` may be told of `about`: never an address that means another machine there.
    fn record(about: &PeerId, known: &Known, to: &Session) -> Option<PeerRecord> {
        let shared = known.addresses.iter().filter(|address| reach::is_shared_with(address, &to.address));
        let addresses: Vec<String> = shared.cloned().collect();
        (!addresses.is_empty()).then(|| PeerRecord { peer: about.clone(), addresses })
    }

    /// Peers for `to` to know, half of them neighbours of ours: those are there for certain.
    fn records(&mut self, to: &PeerId, most: usize, now_ms: u64) -> Vec<PeerRecord> {
        let Some(session) = self.sessions.get(to) else { return Vec::new() };
        let is_here = |peer: &PeerId| self.sessions.get(peer).is_some_and(|session| session.hello.is_some());
        let tellable = || {
            self.known.iter().filter(|(peer, known)| {
                let fresh = known.seen_ms.is_some_and(|seen_ms| now_ms.saturating_sub(seen_ms) <= FRESH_MS);
                *peer != to && known.failures == 0 && !self.banned.contains(*peer) && (fresh || is_here(peer))
            })
        };
        let (here, away): (Vec<_>, Vec<_>) = tellable().partition(|(peer, _)| is_here(peer));
        let (here, away) = (some(here, most, &mut self.rng), some(away, most, &mut self.rng));
        let from_here = here.len().min(most.saturating_sub(away.len()).max(most / 2));
        let chosen = here.into_iter().take(from_here).chain(away).take(most);
        chosen.filter_map(|(peer, known)| Self::record(peer, known, session)).collect()
    }

    /// Introduces a peer that is ready now: it learns of others, some of them learn of it. Its hello and
    /// its addresses arrive in either order, so this is called at both and does what is left to do.
    pub(crate) fn introduce(&mut self, newcomer: &PeerId, now_ms: u64) -> Vec<SwarmEffect> {
        let Some(session) = self.sessions.get(newcomer) else { return Vec::new() };
        let (outbound, told_others, introduced) = (session.outbound, session.told_others, session.introduced);
        let mut effects = Vec::new();
        if !told_others {
            let most = if outbound { TOLD_TO_OTHERS } else { TOLD_TO_NEWCOMER };
            let records = self.records(newcomer, most, now_ms);
            if !records.is_empty() {
                effects.push(SwarmEffect::Control { peer: newcomer.clone(), message: Control::Peers(records) });
            }
        }
        let has_addresses = self.known.get(newcomer).is_some_and(|known| !known.addresses.is_empty());
        if !introduced && has_addresses {
            let others = self.sessions.iter().filter(|(peer, session)| *peer != newcomer && session.hello.is_some());
            let others = some(others.collect(), MAX_TOLD, &mut self.rng);
            for (other, session) in others {
                let known = self.known.get(newcomer);
                if let Some(record) = known.and_then(|known| Self::record(newcomer, known, session)) {
                    effects.push(SwarmEffect::Control { peer: other.clone(), message: Control::Peers(vec![record]) });
                }
            }
        }
        if let Some(session) = self.sessions.get_mut(newcomer) {
            session.told_others = true;
            session.introduced |= has_addresses;
        }
        effects
    }

    /// Peer exchange that is due: one neighbour, chosen by chance, learns of a few others.
    pub(crate) fn exchange(&mut self, now_ms: u64) -> Option<SwarmEffect> {
        if now_ms < self.exchange_at_ms {
            return None;
        }
        let first = self.exchange_at_ms == 0;
        self.exchange_at_ms = now_ms + self.rng.random_range(EXCHANGE_MS.0..=EXCHANGE_MS.1);
        if first {
            return None;
        }
        let peer = self.ready().into_iter().choose(&mut self.rng)?;
        let records = self.records(&peer, TOLD_TO_OTHERS, now_ms);
        (!records.is_empty()).then_some(SwarmEffect::Control { peer, message: Control::Peers(records) })
    }
}
