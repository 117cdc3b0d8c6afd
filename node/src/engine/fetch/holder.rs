//! What one neighbour has of one object, what we asked it for, and how fast it answers.

use std::collections::BTreeMap;

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::{LEAF_BYTES, MAX_BLOCK_BYTES};
use updraft_protocol::transfer::BlockRange;

use super::locality::Standing;
use super::rate::Rate;

/// Bytes in flight to a neighbour of unknown speed.
const FIRST_WINDOW_BYTES: u64 = 256 * 1024;
/// The same where it may be behind a thin link that others use.
const CAREFUL_WINDOW_BYTES: u64 = 64 * 1024;
/// Fewest bytes in flight: one block must always fit, and two hide a round trip.
const MIN_WINDOW_BYTES: u64 = 32 * 1024;
/// Most bytes in flight to one neighbour: 1 Gbit/s at 130 ms.
const MAX_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Milliseconds of a neighbour's rate that are kept in flight beyond its delay. What is in flight is
/// committed: a short queue lets a piece be asked for where it turns up first.
const WINDOW_MS: u64 = 60;
/// A neighbour's delay while none was measured.
const FIRST_DELAY_MS: u64 = 50;
/// The most delay that counts: more than this is the neighbour's queue, not the way to it.
const MAX_DELAY_MS: u64 = 400;
/// Milliseconds that one block should take.
const BLOCK_MS: u64 = 25;
/// A block is late after this and [`LATE_FACTOR`] times what the queue before it should take.
const LATE_MS: u64 = 3_000;
const LATE_FACTOR: u64 = 4;
/// The slowest that a neighbour is thought to be, in bytes per second.
const LEAST_RATE: u64 = 16 * 1024;

/// One neighbour's part in one transfer.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) standing: Standing,
    /// Its place in the order in which a site fetches from afar.
    pub(super) rank: u64,
    /// Verified pieces that it holds, or offers.
    pub(super) have: Bitmap,
    /// It still wants pieces of this object.
    pub(super) wants: bool,
    /// Blocks that it was asked for, and when.
    pub(super) outstanding: BTreeMap<BlockRange, u64>,
    outstanding_bytes: u64,
    pub(super) rate: Rate,
    /// The shortest time from a request to its block.
    delay_ms: Option<u64>,
    /// Not asked before this time: it said busy, or let a block become late.
    pub(super) rest_until_ms: u64,
    last_arrival_ms: u64,
    /// Since when a block is awaited from it. What it refuses, or lets become late, is awaited still.
    awaited_since_ms: Option<u64>,
    /// It was asked and brought nothing for a while, and has brought nothing since.
    is_mute: bool,
    /// Bytes per second of the block that came last, by itself. All that is known of a neighbour that is
    /// asked for a block now and then.
    block_rate: u64,
    /// Pieces of ours that it was not told of yet.
    pub(super) untold: Vec<u32>,
    /// When it was told last.
    pub(super) told_ms: u64,
}

impl Holder {
    pub(super) fn new(standing: Standing, rank: u64, have: Bitmap, wants: bool) -> Self {
        Self {
            standing,
            rank,
            have,
            wants,
            outstanding: BTreeMap::new(),
            outstanding_bytes: 0,
            rate: Rate::default(),
            delay_ms: None,
            rest_until_ms: 0,
            last_arrival_ms: 0,
            awaited_since_ms: None,
            is_mute: false,
            block_rate: 0,
            untold: Vec::new(),
            told_ms: 0,
        }
    }

    fn delay_ms(&self) -> u64 {
        self.delay_ms.unwrap_or(FIRST_DELAY_MS).min(MAX_DELAY_MS)
    }

    fn window_bytes(&self, is_careful: bool) -> u64 {
        match self.rate.bytes_per_second() {
            0 if is_careful => CAREFUL_WINDOW_BYTES,
            0 => FIRST_WINDOW_BYTES,
            rate => (rate * (self.delay_ms() + WINDOW_MS) / 1_000).clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES),
        }
    }

    /// Whether another block may be asked for now.
    pub(super) fn has_room(&self, is_careful: bool, now_ms: u64) -> bool {
        now_ms >= self.rest_until_ms && self.outstanding_bytes < self.window_bytes(is_careful)
    }

    /// Leaves that the next request should cover.
    pub(super) fn block_leaves(&self) -> usize {
        let bytes = match self.rate.bytes_per_second() {
            0 => 4 * u64::from(LEAF_BYTES),
            rate => (rate * BLOCK_MS / 1_000).clamp(2 * u64::from(LEAF_BYTES), u64::from(MAX_BLOCK_BYTES)),
        };
        let leaves = bytes / u64::from(LEAF_BYTES);
        usize::try_from(leaves).unwrap_or(1).max(1)
    }

    pub(super) fn ask(&mut self, block: BlockRange, now_ms: u64) {
        if self.outstanding.is_empty() {
            self.rate.resume(now_ms);
            self.last_arrival_ms = now_ms;
        }
        self.awaited_since_ms.get_or_insert(now_ms);
        self.outstanding.insert(block, now_ms);
        self.outstanding_bytes += u64::from(block.length);
    }

    /// The request for `block` is over; false where there was none.
    pub(super) fn settle(&mut self, block: BlockRange) -> bool {
        let asked = self.refused(block);
        if self.outstanding.is_empty() {
            self.awaited_since_ms = None;
        }
        asked
    }

    /// The same where it did not bring the block, and should have.
    pub(super) fn refused(&mut self, block: BlockRange) -> bool {
        let asked = self.outstanding.remove(&block).is_some();
        if asked {
            self.outstanding_bytes -= u64::from(block.length);
        }
        asked
    }

    /// A block came; call this before [`Holder::settle`].
    pub(super) fn arrived(&mut self, block: BlockRange, now_ms: u64) {
        if let Some(asked_ms) = self.outstanding.get(&block) {
            let took_ms = now_ms.saturating_sub(*asked_ms);
            self.delay_ms = Some(self.delay_ms.map_or(took_ms, |least_ms| least_ms.min(took_ms)));
            self.block_rate = u64::from(block.length) * 1_000 / took_ms.max(1);
        }
        self.is_mute = false;
        self.awaited_since_ms = Some(now_ms);
        self.rate.add(u64::from(block.length), now_ms);
        self.last_arrival_ms = now_ms;
    }

    /// Bytes per second that it brings, as far as that is known: 0 where nothing is.
    pub(super) fn pace(&self) -> u64 {
        match self.rate.bytes_per_second() {
            0 => self.block_rate,
            rate => rate,
        }
    }

    /// Time passed: a neighbour from which a block was awaited for so long, in vain, brings nothing.
    pub(super) fn look(&mut self, patience_ms: u64, now_ms: u64) {
        self.is_mute |= self.awaited_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= patience_ms);
    }

    /// Whether it was asked after a pause, or brought something, since then.
    pub(super) fn was_heard_since(&self, since_ms: u64) -> bool {
        self.last_arrival_ms > since_ms
    }

    /// Whether what it holds is to be had at this node's site. Of one that brings nothing it is not.
    pub(super) fn supplies_site(&self) -> bool {
        self.standing.is_near && !self.is_mute
    }

    /// Milliseconds until everything that it was asked for should be here, and `more` bytes. Of a
    /// neighbour from which nothing came yet it is thought that it needs as long again as it took so far.
    pub(super) fn eta_ms(&self, more: u64, now_ms: u64) -> u64 {
        let bytes = self.outstanding_bytes.saturating_add(more);
        match self.rate.bytes_per_second() {
            0 if self.outstanding.is_empty() => FIRST_DELAY_MS,
            0 => now_ms.saturating_sub(self.last_arrival_ms).max(FIRST_DELAY_MS),
            rate => self.delay_ms() + bytes.saturating_mul(1_000) / rate.max(LEAST_RATE),
        }
    }

    /// Blocks that should long have arrived, by this neighbour's own rate.
    pub(super) fn late(&self, now_ms: u64) -> Vec<BlockRange> {
        if self.outstanding.is_empty() {
            return Vec::new();
        }
        let expected_ms = self.outstanding_bytes.saturating_mul(1_000) / self.rate.bytes_per_second().max(LEAST_RATE);
        let patience_ms = LATE_MS + LATE_FACTOR * expected_ms.min(15_000);
        if now_ms.saturating_sub(self.last_arrival_ms) < LATE_MS {
            return Vec::new();
        }
        self.outstanding
            .iter()
            .filter(|(_, asked_ms)| now_ms.saturating_sub(**asked_ms) > patience_ms)
            .map(|(block, _)| *block)
            .collect()
    }
}

#[cfg(test)]
mod tests;
