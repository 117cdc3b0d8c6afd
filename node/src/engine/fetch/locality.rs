//! Near neighbours first: what a site needs crosses the link to the world about once.
//!
//! Near is what is at the site of this node; the engine says who is. A node that
//! has no near neighbours, and one that has no others, knows no difference. Otherwise
//! - a piece that a near neighbour holds is not asked for from afar,
//! - and what nobody near holds is fetched from afar by the one that ranks first among its near
//!   neighbours. The others wait for it to pass the piece on. A seed is the exception: what it offers it
//!   offers to this node alone.
//!
//! None of this may hold anybody up.
//! - A node that got nothing from near neighbours for a while asks afar itself.
//! - One that got nothing at all asks afar for what they hold, too.
//! - What a near neighbour holds that was asked and brings nothing is not at this site, until it brings
//!   something.
//! - Where near neighbours that have something are far slower than one that is far they are not
//!   waited for. How fast those are is found out by a block now and then, where the end is not near.
//!
//! So a near neighbour that lies, dawdles or is slow costs a pause.

use std::collections::BTreeMap;

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::ObjectId;

use super::holder::Holder;

/// A node waits this long for near neighbours to bring a piece, and up to as long again by its rank, so
/// that not all of a site lose patience at once.
pub(super) const PATIENCE_MS: u64 = 1_500;
/// Near neighbours are not waited for where one that is far is so many times as fast as all of them.
const FAR_FASTER: u64 = 4;
/// Where it takes longer than this to the end, a block is asked for afar to see how fast that is: what is
/// lost by waiting is more than what crosses the link in vain.
const LONG_MS: u64 = 30_000;
/// The most patience between two such blocks, which doubles each time.
const MAX_PROBE_GAP_MS: u64 = 30_000;

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
    piece_length: u32,
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
    /// When there were first some of both kinds, and pieces that came since.
    mixed_ms: u64,
    gained: u64,
    probe: Probe,
}

/// A block that is asked for afar, whatever else holds.
#[derive(Debug, Default)]
struct Probe {
    /// It may be asked for now.
    is_due: bool,
    /// When that may be so again, and how long after that.
    at_ms: u64,
    gap_ms: u64,
}

impl Locality {
    pub(super) fn new(rank: u64, piece_length: u32) -> Self {
        Self {
            rank,
            piece_length,
            is_mixed: false,
            crosses: true,
            prefers_near: false,
            near_ms: 0,
            any_ms: 0,
            mixed_ms: 0,
            gained: 0,
            probe: Probe::default(),
        }
    }

    /// Looks around again, with these pieces.
    pub(super) fn look(&mut self, holders: &BTreeMap<PeerId, Holder>, have: &Bitmap, now_ms: u64) {
        let far = || holders.values().filter(|holder| !holder.standing.is_near);
        if holders.values().all(|holder| !holder.standing.is_near) || far().next().is_none() {
            self.is_mixed = false;
            return;
        }
        let patience_ms = PATIENCE_MS + self.rank % PATIENCE_MS;
        if !self.is_mixed {
            self.is_mixed = true;
            self.near_ms = now_ms;
            self.any_ms = now_ms;
            self.mixed_ms = now_ms;
            self.gained = 0;
            self.probe = Probe { is_due: false, at_ms: now_ms + patience_ms, gap_ms: patience_ms };
        }
        let waited = |since_ms: u64| now_ms.saturating_sub(since_ms) >= patience_ms;
        let is_slow = Self::is_slow(holders, have, now_ms) || self.is_held_up(holders, have, now_ms);
        self.prefers_near = !is_slow && !waited(self.any_ms);
        let near = holders.values().filter(|holder| holder.supplies_site());
        let is_first = near.filter(|holder| holder.wants).all(|holder| self.rank <= holder.rank);
        self.crosses = is_first || !self.prefers_near || waited(self.near_ms);
        self.probe.is_due = self.prefers_near && now_ms >= self.probe.at_ms && self.is_far_from_the_end(have, now_ms);
    }

    /// Whether near neighbours that have something for this node, or had it a moment ago, bring far less
    /// than one that is far.
    fn is_slow(holders: &BTreeMap<PeerId, Holder>, have: &Bitmap, now_ms: u64) -> bool {
        let far = holders.values().filter(|holder| !holder.standing.is_near);
        let far_rate = far.map(Holder::pace).max().unwrap_or(0);
        let mut near_rate = 0_u64;
        for holder in holders.values().filter(|holder| holder.supplies_site()) {
            let is_of_use = || !holder.outstanding.is_empty() || holder.have.without(have, 0).next().is_some();
            match holder.pace() {
                // Nobody knows yet.
                0 if is_of_use() => return false,
                0 => {}
                rate if holder.was_heard_since(now_ms.saturating_sub(PATIENCE_MS)) || is_of_use() => {
                    near_rate = near_rate.saturating_add(rate);
                }
                _ => {}
            }
        }
        near_rate > 0 && near_rate.saturating_mul(FAR_FASTER) < far_rate
    }

    /// Whether a far neighbour alone would bring far more than all that came until now, and the end is far. Near
    /// neighbours that are fast may have to wait for one that is not, as this node does.
    fn is_held_up(&self, holders: &BTreeMap<PeerId, Holder>, have: &Bitmap, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.mixed_ms);
        let came = self.gained.max(1).saturating_mul(u64::from(self.piece_length)).saturating_mul(1_000);
        let far = holders.values().filter(|holder| !holder.standing.is_near);
        let far_rate = far.map(Holder::pace).max().unwrap_or(0);
        elapsed_ms >= PATIENCE_MS
            && self.is_far_from_the_end(have, now_ms)
            && (came / elapsed_ms).saturating_mul(FAR_FASTER) < far_rate
    }

    /// Whether it takes long until everything is here, as things went so far.
    fn is_far_from_the_end(&self, have: &Bitmap, now_ms: u64) -> bool {
        let left = u64::from(have.count() - have.ones());
        left * now_ms.saturating_sub(self.mixed_ms) > LONG_MS * self.gained.max(1)
    }

    /// A piece is here, from near neighbours alone or not.
    pub(super) fn gained(&mut self, from_near: bool, now_ms: u64) {
        self.any_ms = now_ms;
        self.gained += 1;
        if from_near {
            self.near_ms = now_ms;
        }
    }

    /// Whether a neighbour is asked for anything at all.
    pub(super) fn asks(&self, standing: Standing) -> bool {
        self.probe.is_due || self.may_ask(standing)
    }

    fn may_ask(&self, standing: Standing) -> bool {
        !self.is_mixed || standing.is_near || standing.is_seed || self.crosses
    }

    /// Whether a neighbour is asked for a piece that so many near neighbours hold.
    pub(super) fn asks_for(&self, standing: Standing, near: u32) -> bool {
        self.probe.is_due || self.may_ask_for(standing, near)
    }

    fn may_ask_for(&self, standing: Standing, near: u32) -> bool {
        !self.is_mixed || standing.is_near || near == 0 || !self.prefers_near
    }

    /// A neighbour was asked for a block of a piece that so many near neighbours hold.
    pub(super) fn asked(&mut self, standing: Standing, near: u32, now_ms: u64) {
        if self.probe.is_due && !(self.may_ask(standing) && self.may_ask_for(standing, near)) {
            self.probe.is_due = false;
            self.probe.gap_ms = (self.probe.gap_ms * 2).min(MAX_PROBE_GAP_MS);
            self.probe.at_ms = now_ms + self.probe.gap_ms;
        }
    }

    /// Whether what is in flight to a neighbour of unknown speed is kept small: it may be behind a thin link,
    /// and others of this site ask there, too.
    pub(super) fn is_careful(&self, standing: Standing) -> bool {
        self.is_mixed && !standing.is_near
    }
}

#[cfg(test)]
mod tests {
    use updraft_protocol::transfer::BlockRange;

    use super::*;

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
        let mut locality = Locality::new(rank, 16 * 1024);
        locality.look(holders, &Bitmap::empty(8), 0);
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
        second.look(&holders, &Bitmap::empty(8), 2 * PATIENCE_MS);
        assert!(second.asks(FAR) && !second.asks_for(FAR, 1));
        second.gained(true, 2 * PATIENCE_MS);
        second.look(&holders, &Bitmap::empty(8), 2 * PATIENCE_MS + 1);
        assert!(!second.asks(FAR));
    }

    /// The same neighbours, which hold everything and bring so many bytes in a millisecond.
    fn that_bring(bytes: [u64; 2]) -> BTreeMap<PeerId, Holder> {
        let mut holders = around(&[(NEAR, 5), (FAR, 0)]);
        for (holder, bytes) in holders.values_mut().zip(bytes) {
            holder.have = Bitmap::full(8);
            for step in 0..50 {
                holder.rate.add(bytes * 20, step * 20);
            }
        }
        holders
    }

    #[test]
    fn a_near_neighbour_that_claims_everything_and_sends_nothing_holds_up_nobody() {
        let mut holders = that_bring([0, 0]);
        let near = holders.values_mut().next().expect("the near one");
        near.ask(BlockRange::new(0, 16_384).expect("a leaf"), 0);
        near.look(PATIENCE_MS, PATIENCE_MS);
        assert!(!near.supplies_site());
        // It does not rank first: what the near one would fetch it fetches itself.
        let mut second = node(9, &holders);
        for now_ms in PATIENCE_MS..10 * PATIENCE_MS {
            second.gained(false, now_ms);
            second.look(&holders, &Bitmap::empty(8), now_ms);
            assert!(second.asks(FAR), "at {now_ms} ms");
        }
    }

    #[test]
    fn a_near_neighbour_that_is_far_slower_than_a_far_one_is_not_waited_for() {
        let holders = that_bring([10, 100]);
        let mut second = node(9, &holders);
        second.gained(true, 1_000);
        second.look(&holders, &Bitmap::empty(8), 1_000);
        assert!(second.asks(FAR) && second.asks_for(FAR, 1));
    }

    #[test]
    fn a_near_neighbour_that_has_nothing_of_use_does_not_make_up_for_a_slow_one() {
        let mut have = Bitmap::empty(8);
        have.set(0);
        for pace in [0, 1_000] {
            let mut holders = that_bring([10, 100]);
            let idle = PeerId::from_bytes(&[9, 9, 9]).expect("in bounds");
            let mut other = Holder::new(NEAR, 7, have.clone(), true);
            for step in 0..50 {
                other.rate.add(pace * 20, step * 20);
            }
            holders.insert(idle, other);
            let mut second = node(9, &holders);
            let now_ms = PATIENCE_MS + 1;
            second.gained(true, now_ms);
            second.look(&holders, &have, now_ms);
            assert!(second.asks_for(FAR, 1), "what the idle one has is here already");
            second.look(&holders, &Bitmap::empty(8), now_ms);
            assert!(!second.asks_for(FAR, 1), "it may be had from the idle one");
        }
    }

    #[test]
    fn where_the_end_is_far_a_block_is_asked_for_afar_now_and_then() {
        let have = Bitmap::empty(8_000);
        let holders = that_bring([100, 0]);
        let mut second = node(9, &holders);
        let mut probes = Vec::new();
        for now_ms in (0..60_000).step_by(20) {
            if now_ms % 200 == 0 {
                second.gained(true, now_ms);
            }
            second.look(&holders, &have, now_ms);
            if second.asks_for(FAR, 1) {
                assert!(second.asks(FAR));
                probes.push(now_ms);
                second.asked(FAR, 1, now_ms);
                assert!(!second.asks_for(FAR, 1) && !second.asks(FAR), "once is enough");
            }
        }
        assert!((4..7).contains(&probes.len()), "{probes:?}");
        // Eight pieces are here in two seconds: nothing is to be found out.
        let mut soon = node(9, &holders);
        soon.gained(true, 2 * PATIENCE_MS);
        soon.look(&holders, &Bitmap::empty(8), 2 * PATIENCE_MS);
        assert!(!soon.asks_for(FAR, 1));
    }
}
