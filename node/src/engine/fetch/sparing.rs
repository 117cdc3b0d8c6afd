//! How a seed spends its uplink: every piece leaves it once before any leaves it twice.
//!
//! A seed does not say that it holds everything. It *offers*: each neighbour is told of a few pieces that
//! nobody else has, asks for them, and spreads them. Once every piece is out the neighbours are left to
//! each other; the seed repeats a piece only
//! - within a small allowance that is spent at once, where it shortens the end most,
//! - after as long again as the first copy took,
//! - for a neighbour that gets nothing from anybody else,
//! - or where nobody who is connected holds the piece.
//!
//! An egress budget caps all repeats but the last kind.
//!
//! All that is for the polite and for the others alike: who asks without saying that it wants anything is
//! from then on somebody who does, and what left whole for a neighbour is a repeat for it, whatever it was
//! told.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::manifest::{Manifest, PieceIndex};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::BlockRange;

use super::availability::Availability;
use super::departed::Departed;

/// Bytes under offer while the rate is unknown, and at least.
const MIN_OPEN_BYTES: u64 = 512 * 1024;
/// Milliseconds of the node's upload rate that are under offer at once.
const OPEN_MS: u64 = 300;
/// An offer that was not taken up for this long is made to somebody else as well.
const STALE_MS: u64 = 2_500;
/// A neighbour that gained no piece for this long gets nothing from anybody else.
const STARVED_MS: u64 = 1_500;
/// The same under a budget that is used up: nobody else can be reached from there.
const CUT_OFF_MS: u64 = 30_000;
/// Milliseconds between two searches for something to offer, once there was nothing.
const QUIET_MS: u64 = 25;
/// Repeats that are free: this part of an artifact.
const ALLOWANCE_PART: u64 = 16;
/// Bytes on the wire for each 100 of payload: headers of Ethernet, IP, TCP, TLS and the multiplexer.
const WIRE_PERCENT: u64 = 105;

/// One offer.
#[derive(Debug, Clone, Copy)]
struct Offer {
    /// When something last happened to it.
    since_ms: u64,
    /// Bytes of it that left.
    bytes: u64,
}

/// What one neighbour was offered.
#[derive(Debug)]
struct Offered {
    /// Ever offered in this session.
    told: Bitmap,
    /// Offered and not yet delivered.
    open: BTreeMap<u32, Offer>,
    /// Delivered and not yet announced.
    landing: BTreeMap<u32, u64>,
    /// When it last announced a piece, or began to want.
    gained_ms: u64,
    past: Past,
    /// Blocks that it is to get still.
    due: BTreeMap<BlockRange, Due>,
    /// It starved: it is served until it announces a piece that it did not get here.
    alone: bool,
    turn: u64,
}

/// Why a block is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It was offered, or nobody else has it.
    First,
    Repeat,
}

impl Due {
    /// Bytes of a block that are a repeat.
    fn repeated(self, block: BlockRange) -> u64 {
        if self == Self::Repeat { u64::from(block.length) } else { 0 }
    }
}

/// What is remembered of a neighbour as long as it is connected, whether it wants anything or not.
#[derive(Debug, Default)]
struct Past {
    left: Departed,
    /// It said that it holds everything: all that it asks for is a repeat.
    had_all: bool,
    /// Bytes that left again before that.
    again: u64,
}

impl Past {
    /// Bytes that left again.
    fn again(&self) -> u64 {
        let first = if self.had_all { self.left.first() } else { 0 };
        self.again + first + self.left.repeats()
    }

    /// It holds everything now, as it says: what it got piece by piece is of no interest any more.
    fn is_over(&mut self) {
        *self = Self { left: Departed::default(), had_all: true, again: self.again() };
    }
}

/// The offers of one object.
#[derive(Debug)]
pub(super) struct Sparing {
    /// Neighbours to whom each piece is under offer or on its way.
    open_of: Vec<u16>,
    /// Offers that are not delivered.
    open: u64,
    /// There was nothing to offer: not looked again before this time.
    quiet_until_ms: u64,
    /// Where to look first for pieces that never left, in random order.
    fresh: Vec<u32>,
    offered: BTreeMap<PeerId, Offered>,
    /// Neighbours that want nothing, to whom something left or was offered.
    resting: BTreeMap<PeerId, (Bitmap, Past)>,
    /// Bytes of repeats that are to leave still.
    due_repeats: u64,
    turns: u64,
    began_ms: Option<u64>,
    out_ms: Option<u64>,
}

/// What the node knows of its uplink, and the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uplink {
    pub(super) rate_bytes_per_second: u64,
    /// Hundredths of a copy that may leave.
    pub(super) budget_percent: Option<u32>,
    pub(super) now_ms: u64,
}

/// What is known around a piece.
pub(super) struct Surroundings<'a> {
    pub(super) manifest: &'a Manifest,
    /// Neighbours that hold each piece.
    pub(super) availability: &'a Availability,
    pub(super) departed: &'a Departed,
    pub(super) uplink: Uplink,
}

impl Offered {
    /// Whether as many bytes of a piece as it has left for this neighbour, or are about to.
    fn had(&self, manifest: &Manifest, index: PieceIndex) -> bool {
        let length = u64::from(manifest.length_of(index));
        let start = manifest.offset_of(index);
        let from = BlockRange { offset: start, length: 0 };
        let due = self.due.range(from..).take_while(|(block, _)| block.offset < start + length);
        let due: u64 = due.map(|(block, _)| u64::from(block.length)).sum();
        self.past.had_all || self.past.left.of(index) + due >= length
    }

    /// Bytes that left for it again, or are about to.
    fn again(&self) -> u64 {
        let due: u64 = self.due.iter().map(|(block, due)| due.repeated(*block)).sum();
        self.past.again() + due
    }
}

impl Sparing {
    pub(super) fn new(manifest: &Manifest, rng: &mut SmallRng) -> Self {
        let count = manifest.piece_count();
        let mut fresh: Vec<u32> = (0..count).collect();
        fresh.shuffle(rng);
        Self {
            open_of: vec![0; count as usize],
            open: 0,
            quiet_until_ms: 0,
            fresh,
            offered: BTreeMap::new(),
            resting: BTreeMap::new(),
            due_repeats: 0,
            turns: 0,
            began_ms: None,
            out_ms: None,
        }
    }

    /// What `peer` is told that this node has.
    pub(super) fn told(&self, peer: &PeerId, count: u32) -> Bitmap {
        let resting = || self.resting.get(peer).map(|(told, _)| told);
        let told = self.offered.get(peer).map(|offered| &offered.told).or_else(resting);
        told.cloned().unwrap_or_else(|| Bitmap::empty(count))
    }

    /// A neighbour wants the object (again). It was `told` of these pieces before.
    pub(super) fn wanted_by(&mut self, peer: &PeerId, told: &Bitmap, now_ms: u64) {
        if self.offered.contains_key(peer) {
            return;
        }
        let (told, past) = self.resting.remove(peer).unwrap_or_else(|| (told.clone(), Past::default()));
        self.turns += 1;
        let offered = Offered {
            told,
            open: BTreeMap::new(),
            landing: BTreeMap::new(),
            gained_ms: now_ms,
            past,
            due: BTreeMap::new(),
            alone: false,
            turn: self.turns,
        };
        self.offered.insert(peer.clone(), offered);
    }

    /// A neighbour is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        let _ = self.end(peer);
        self.resting.remove(peer);
    }

    /// A neighbour wants nothing any more, perhaps because it has everything.
    pub(super) fn rest(&mut self, peer: &PeerId, has_all: bool) {
        if let Some(Offered { told, mut past, .. }) = self.end(peer) {
            if has_all {
                past.is_over();
            }
            self.resting.insert(peer.clone(), (told, past));
        } else if has_all && let Some((_, past)) = self.resting.get_mut(peer) {
            past.is_over();
        }
    }

    /// Nothing is offered to a neighbour, and nothing due to it.
    fn end(&mut self, peer: &PeerId) -> Option<Offered> {
        let mut offered = self.offered.remove(peer)?;
        self.open -= offered.open.len() as u64;
        for (block, due) in std::mem::take(&mut offered.due) {
            self.due_repeats -= due.repeated(block);
        }
        for piece in
            std::mem::take(&mut offered.open).into_keys().chain(std::mem::take(&mut offered.landing).into_keys())
        {
            self.lost(piece);
        }
        Some(offered)
    }

    /// A block that a neighbour was to get is not due any more.
    pub(super) fn withdrawn(&mut self, peer: &PeerId, block: BlockRange) {
        if let Some(due) = self.offered.get_mut(peer).and_then(|offered| offered.due.remove(&block)) {
            self.due_repeats -= due.repeated(block);
        }
    }

    /// A piece is no longer on its way to somebody.
    fn closed(&mut self, piece: u32) {
        self.quiet_until_ms = 0;
        let slot = piece as usize;
        self.open_of[slot] -= 1;
    }

    /// A piece that was on its way to somebody did not arrive.
    fn lost(&mut self, piece: u32) {
        self.closed(piece);
        if self.open_of[piece as usize] == 0 {
            self.fresh.push(piece);
        }
    }

    /// A neighbour announced a piece.
    pub(super) fn gained(&mut self, peer: &PeerId, piece: u32, now_ms: u64) {
        let Some(offered) = self.offered.get_mut(peer) else { return };
        offered.gained_ms = now_ms;
        if !offered.told.get(piece) {
            offered.alone = false;
        }
        let open = offered.open.remove(&piece).is_some();
        let landing = offered.landing.remove(&piece).is_some();
        self.open -= u64::from(open);
        if open || landing {
            self.closed(piece);
        }
    }

    /// A block left for a neighbour.
    pub(super) fn sent(
        &mut self,
        peer: &PeerId,
        manifest: &Manifest,
        index: PieceIndex,
        block: BlockRange,
        now_ms: u64,
    ) {
        // Not every copy begins with an offer: who did not say that it wants the object may ask for it, too.
        self.began_ms.get_or_insert(now_ms);
        self.withdrawn(peer, block);
        let Some(offered) = self.offered.get_mut(peer) else { return };
        offered.past.left.add(manifest, index, block.length);
        let piece = index.get();
        if let Some(offer) = offered.open.get_mut(&piece) {
            offer.since_ms = now_ms;
            offer.bytes += u64::from(block.length);
            if offer.bytes >= u64::from(manifest.length_of(index)) {
                offered.open.remove(&piece);
                offered.landing.insert(piece, now_ms);
                self.open -= 1;
            }
        }
    }

    /// The first copy has left whole.
    pub(super) fn is_out(&mut self, now_ms: u64) {
        self.out_ms.get_or_insert(now_ms);
    }

    /// Whether a repeat is within the budget.
    fn within_budget(&self, around: &Surroundings<'_>) -> bool {
        let Some(percent) = around.uplink.budget_percent else { return true };
        let open = self.open * u64::from(around.manifest.piece_length());
        let spent = around.departed.first() + around.departed.repeats() + open + self.due_repeats;
        u128::from(spent) * u128::from(WIRE_PERCENT) < u128::from(around.manifest.length()) * u128::from(percent)
    }

    /// Whether `peer` may have a piece that others hold.
    fn may_repeat(&self, offered: &Offered, around: &Surroundings<'_>) -> bool {
        let starved_ms = around.uplink.now_ms.saturating_sub(offered.gained_ms);
        if !self.within_budget(around) {
            // Who got everything, and says nothing of it, got it.
            return starved_ms >= CUT_OFF_MS && offered.again() < around.manifest.length();
        }
        if offered.alone || starved_ms >= STARVED_MS {
            return true;
        }
        let (Some(began_ms), Some(out_ms)) = (self.began_ms, self.out_ms) else { return false };
        let open = self.open * u64::from(around.manifest.piece_length());
        around.departed.repeats() + open < around.manifest.length() / ALLOWANCE_PART
            || around.uplink.now_ms.saturating_sub(out_ms) >= out_ms.saturating_sub(began_ms)
    }

    /// Whether a request is served. Counts the block as due where it is.
    pub(super) fn grants(
        &mut self,
        peer: &PeerId,
        index: PieceIndex,
        block: BlockRange,
        around: &Surroundings<'_>,
    ) -> bool {
        let untold = Bitmap::empty(around.manifest.piece_count());
        self.wanted_by(peer, &untold, around.uplink.now_ms);
        let Some(offered) = self.offered.get(peer) else { return false };
        if offered.due.contains_key(&block) {
            return true;
        }
        let piece = index.get();
        let is_unique = || around.availability.all(piece) == 0 && self.open_of[piece as usize] == 0;
        let is_first = !offered.had(around.manifest, index) && (offered.told.get(piece) || is_unique());
        let due = if is_first {
            Due::First
        } else if self.may_repeat(offered, around) {
            Due::Repeat
        } else {
            return false;
        };
        self.due_repeats += due.repeated(block);
        if let Some(offered) = self.offered.get_mut(peer) {
            offered.due.insert(block, due);
        }
        true
    }

    /// The next offers: to whom, and of what. `have_of` says what a neighbour holds.
    pub(super) fn offers<'a>(
        &mut self,
        around: &Surroundings<'_>,
        have_of: impl Fn(&PeerId) -> Option<&'a Bitmap>,
        rng: &mut SmallRng,
    ) -> Vec<(PeerId, u32)> {
        let piece_length = u64::from(around.manifest.piece_length());
        let most = (around.uplink.rate_bytes_per_second * OPEN_MS / 1_000).max(MIN_OPEN_BYTES).max(4 * piece_length);
        let most = (most / piece_length).max(4);
        let mut made = Vec::new();
        if self.offered.is_empty()
            || self.open >= most
            || (self.fresh.is_empty() && around.uplink.now_ms < self.quiet_until_ms)
        {
            return made;
        }
        let each = (most / (self.offered.len() as u64)).max(2);
        let mut turns: Vec<(usize, u64, PeerId)> = self
            .offered
            .iter()
            .filter(|(_, offered)| (offered.open.len() as u64) < each)
            .map(|(peer, offered)| (offered.open.len(), offered.turn, peer.clone()))
            .collect();
        turns.sort_unstable();
        let mut turns: VecDeque<PeerId> = turns.into_iter().map(|(_, _, peer)| peer).collect();
        while self.open < most {
            let Some(peer) = turns.pop_front() else { break };
            let Some(have) = have_of(&peer) else { continue };
            let Some(piece) = self.choose(&peer, have, around, rng) else { continue };
            let Some(offered) = self.offered.get_mut(&peer) else { continue };
            self.turns += 1;
            offered.turn = self.turns;
            offered.told.set(piece);
            offered.open.insert(piece, Offer { since_ms: around.uplink.now_ms, bytes: 0 });
            let more = (offered.open.len() as u64) < each;
            self.open += 1;
            self.open_of[piece as usize] += 1;
            self.began_ms.get_or_insert(around.uplink.now_ms);
            made.push((peer.clone(), piece));
            if more {
                turns.push_back(peer);
            }
        }
        if self.open < most {
            self.quiet_until_ms = around.uplink.now_ms + QUIET_MS;
        }
        made
    }

    fn choose(&mut self, peer: &PeerId, have: &Bitmap, around: &Surroundings<'_>, rng: &mut SmallRng) -> Option<u32> {
        let untouched =
            |sparing: &Self, piece: u32| around.availability.all(piece) == 0 && sparing.open_of[piece as usize] == 0;
        while let Some(piece) = self.fresh.pop() {
            if !around.departed.has_begun(piece) && untouched(self, piece) {
                return Some(piece);
            }
        }
        let offered = self.offered.get(peer)?;
        let start = rng.random_range(0..around.manifest.piece_count().max(1));
        let full = Bitmap::full(around.manifest.piece_count());
        let repeats = self.may_repeat(offered, around);
        let mut best: Option<(u32, u32)> = None;
        for piece in full.without(have, start) {
            if offered.open.contains_key(&piece) || offered.landing.contains_key(&piece) {
                continue;
            }
            let copies = around.availability.all(piece) + u32::from(self.open_of[piece as usize]);
            if copies == 0 {
                return Some(piece);
            }
            if repeats && best.is_none_or(|(least, _)| copies < least) {
                best = Some((copies, piece));
            }
        }
        let (_, piece) = best?;
        if around.uplink.now_ms.saturating_sub(offered.gained_ms) >= STARVED_MS {
            self.offered.get_mut(peer)?.alone = true;
        }
        Some(piece)
    }

    /// Time passed: offers that nobody took up do not keep a piece from others.
    pub(super) fn tick(&mut self, now_ms: u64) {
        let mut stale = Vec::new();
        let old = |since_ms: u64| now_ms.saturating_sub(since_ms) >= STALE_MS;
        for offered in self.offered.values_mut() {
            let before = stale.len();
            stale.extend(offered.open.iter().filter(|(_, offer)| old(offer.since_ms)).map(|(piece, _)| *piece));
            self.open -= (stale.len() - before) as u64;
            stale.extend(offered.landing.iter().filter(|(_, since_ms)| old(**since_ms)).map(|(piece, _)| *piece));
            offered.open.retain(|_, offer| !old(offer.since_ms));
            offered.landing.retain(|_, since_ms| !old(*since_ms));
        }
        for piece in stale {
            self.lost(piece);
        }
    }

    /// Whether offers are made to nobody.
    pub(super) fn is_idle(&self) -> bool {
        self.offered.is_empty()
    }
}

#[cfg(test)]
mod tests;
