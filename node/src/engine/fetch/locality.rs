//! Near neighbours first: what a site needs crosses the link to the world about once.
//!
//! Near is what is at the site of this node; the engine says who is. A node that
//! has no near neighbours, and one that has no others, knows no difference. Otherwise
//! - a piece that a near neighbour holds is not asked for from afar,
//! - and what nobody near holds is fetched from afar by the one that ranks first among its near
//!   neighbours. The others wait for it to pass the piece on. A seed is the exception: what it offers it
//!   offers to this node alone.
//!
//! None of this may hold anybody up. A node that got nothing from near neighbours for a while asks afar
//! itself; one that got nothing at all, or gets far less from near neighbours than from one that is far,
//! asks afar for what they hold, too. So a near neighbour that lies, dawdles or is slow costs a pause.

use std::collections::BTreeMap;

use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::ObjectId;

use super::holder::Holder;

/// A node waits this long for near neighbours to bring a piece, and up to as long again by its rank, so
/// that not all of a site lose patience at once.
const PATIENCE_MS: u64 = 1_500;
/// Near neighbours are not waited for where one that is far is so many times as fast as all of them.
const FAR_FASTER: u64 = 4;

/// What a neighbour is, whatever it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// It is at the site of this node.
    pub(super) is_near: bool,
    /// It owns the repository.
    pub(super) is_seed: bool,
}

/// The order in which nodes of one site fetch an object from afar: another for each object, and the same
/// for all who look.
pub(super) fn rank(object: &ObjectId, peer: &PeerId) -> u64 {
    let bytes = object.digest.as_bytes().iter().chain(peer.as_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What a node makes of where its neighbours are.
#[derive(Debug)]
pub(super) struct Locality {
    /// Where this node stands among its neighbours.
    rank: u64,
    /// Some neighbours are near and others are not.
    is_mixed: bool,
    /// This node fetches from afar what nobody near holds.
    crosses: bool,
    /// What near neighbours hold is asked of them alone.
    prefers_near: bool,
    /// When a piece came from near neighbours alone, or there were first some of both kinds.
    near_ms: u64,
    /// When a piece came, from wherever, or as above.
    any_ms: u64,
}

impl Locality {
    pub(super) fn new(rank: u64) -> Self {
        Self { rank, is_mixed: false, crosses: true, prefers_near: false, near_ms: 0, any_ms: 0 }
    }

    /// Looks around again.
    pub(super) fn look(&mut self, holders: &BTreeMap<PeerId, Holder>, now_ms: u64) {
        let near = || holders.values().filter(|holder| holder.standing.is_near);
        let far = || holders.values().filter(|holder| !holder.standing.is_near);
        if near().next().is_none() || far().next().is_none() {
            self.is_mixed = false;
            return;
        }
        if !self.is_mixed {
            self.is_mixed = true;
            self.near_ms = now_ms;
            self.any_ms = now_ms;
        }
        let patience_ms = PATIENCE_MS + self.rank % PATIENCE_MS;
        let waited = |since_ms: u64| now_ms.saturating_sub(since_ms) >= patience_ms;
        let near_rate: u64 = near().map(|holder| holder.rate.bytes_per_second()).sum();
        let far_rate = far().map(|holder| holder.rate.bytes_per_second()).max().unwrap_or(0);
        let untried = near().any(|holder| holder.have.ones() > 0 && holder.rate.bytes_per_second() == 0);
        let is_slow = near_rate > 0 && !untried && near_rate.saturating_mul(FAR_FASTER) < far_rate;
        self.prefers_near = !is_slow && !waited(self.any_ms);
        let is_first = near().filter(|holder| holder.wants).all(|holder| self.rank <= holder.rank);
        self.crosses = is_first || !self.prefers_near || waited(self.near_ms);
    }

    /// A piece is here, from near neighbours alone or not.
    pub(super) fn gained(&mut self, from_near: bool, now_ms: u64) {
        self.any_ms = now_ms;
        if from_near {
            self.near_ms = now_ms;
        }
    }

    /// Whether a neighbour is asked for anything at all.
    pub(super) fn asks(&self, standing: Standing) -> bool {
        !self.is_mixed || standing.is_near || standing.is_seed || self.crosses
    }

    /// Whether a neighbour is asked for a piece that so many near neighbours hold.
    pub(super) fn asks_for(&self, standing: Standing, near: u32) -> bool {
        !self.is_mixed || standing.is_near || near == 0 || !self.prefers_near
    }

    /// Whether what is in flight to a neighbour of unknown speed is kept small: it may be behind a thin link,
    /// and others of this site ask there, too.
    pub(super) fn is_careful(&self, standing: Standing) -> bool {
        self.is_mixed && !standing.is_near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use updraft_protocol::bitmap::Bitmap;

    const NEAR: Standing = Standing { is_near: true, is_seed: false };
    const FAR: Standing = Standing { is_near: false, is_seed: false };
    const SEED: Standing = Standing { is_near: false, is_seed: true };

    /// Neighbours of these kinds and ranks, all of which want the object.
    fn around(neighbours: &[(Standing, u64)]) -> BTreeMap<PeerId, Holder> {
        let holders = neighbours.iter().zip(1_u8..).map(|((standing, rank), number)| {
            let peer = PeerId::from_bytes(&[number, number, number]).expect("in bounds");
            (peer, Holder::new(*standing, *rank, Bitmap::empty(8), true))
        });
        holders.collect()
    }

    /// A node of this rank that has looked around at 0.
    fn node(rank: u64, holders: &BTreeMap<PeerId, Holder>) -> Locality {
        let mut locality = Locality::new(rank);
        locality.look(holders, 0);
        locality
    }

    #[test]
    fn where_all_are_near_or_all_are_far_nobody_is_preferred() {
        for standing in [NEAR, FAR] {
            let locality = node(9, &around(&[(standing, 1), (standing, 2)]));
            assert!(locality.asks(standing) && locality.asks_for(standing, 2));
        }
    }

    #[test]
    fn one_of_a_site_asks_afar_and_the_others_ask_it() {
        let holders = around(&[(NEAR, 5), (FAR, 0)]);
        assert!(node(1, &holders).asks(FAR));
        let second = node(9, &holders);
        assert!(!second.asks(FAR) && second.asks(NEAR));
        assert!(second.asks(SEED), "what a seed offers it offers to nobody else");
    }

    #[test]
    fn what_is_near_is_not_asked_for_from_afar() {
        let first = node(1, &around(&[(NEAR, 5), (FAR, 0)]));
        assert!(!first.asks_for(FAR, 1) && !first.asks_for(SEED, 1));
        assert!(first.asks_for(FAR, 0) && first.asks_for(NEAR, 1));
    }

    #[test]
    fn a_node_to_which_nobody_near_brings_anything_asks_afar() {
        let holders = around(&[(NEAR, 5), (FAR, 0)]);
        let mut second = node(9, &holders);
        // What comes from afar is no sign that the near neighbours do their part.
        second.gained(false, 2 * PATIENCE_MS - 1);
        second.look(&holders, 2 * PATIENCE_MS);
        assert!(second.asks(FAR) && !second.asks_for(FAR, 1));
        second.gained(true, 2 * PATIENCE_MS);
        second.look(&holders, 2 * PATIENCE_MS + 1);
        assert!(!second.asks(FAR));
    }

    #[test]
    fn a_near_neighbour_that_claims_everything_and_sends_nothing_holds_up_nobody() {
        let mut holders = around(&[(NEAR, 5), (FAR, 0)]);
        for holder in holders.values_mut() {
            holder.have = Bitmap::full(8);
        }
        let mut first = node(1, &holders);
        first.look(&holders, 2 * PATIENCE_MS);
        assert!(first.asks(FAR) && first.asks_for(FAR, 1));
    }

    #[test]
    fn a_near_neighbour_that_is_far_slower_than_a_far_one_is_not_waited_for() {
        let mut holders = around(&[(NEAR, 5), (FAR, 0)]);
        for (holder, rate) in holders.values_mut().zip([10, 100]) {
            for step in 0..50 {
                holder.rate.add(rate * 1_000, step * 20);
            }
        }
        let mut second = node(9, &holders);
        second.gained(true, 1_000);
        second.look(&holders, 1_000);
        assert!(second.asks(FAR) && second.asks_for(FAR, 1));
    }
}
