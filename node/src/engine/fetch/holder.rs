//! What one neighbour has of one object, what we asked it for, and how fast it answers.

use std::collections::BTreeMap;

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::{LEAF_BYTES, MAX_BLOCK_BYTES};
use updraft_protocol::transfer::BlockRange;

use super::rate::Rate;

/// Bytes in flight to a neighbour of unknown speed.
const FIRST_WINDOW_BYTES: u64 = 512 * 1024;
/// Fewest bytes in flight: one block must always fit, and two hide a round trip.
const MIN_WINDOW_BYTES: u64 = 128 * 1024;
/// Most bytes in flight to one neighbour: 1 Gbit/s at 60 ms.
const MAX_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Milliseconds of a neighbour's rate that are kept in flight.
const WINDOW_MS: u64 = 400;
/// Milliseconds that one block should take.
const BLOCK_MS: u64 = 25;
/// A block is late after this and [`LATE_FACTOR`] times what the queue before it should take.
const LATE_MS: u64 = 4_000;
const LATE_FACTOR: u64 = 4;

/// One neighbour's part in one transfer.
#[derive(Debug)]
pub(super) struct Holder {
    /// Verified pieces that it holds.
    pub(super) have: Bitmap,
    /// It still wants pieces of this object.
    pub(super) wants: bool,
    /// Blocks that it was asked for, and when.
    pub(super) outstanding: BTreeMap<BlockRange, u64>,
    outstanding_bytes: u64,
    pub(super) rate: Rate,
    /// Not asked before this time: it said busy, or let a block become late.
    pub(super) rest_until_ms: u64,
    last_arrival_ms: u64,
}

impl Holder {
    pub(super) fn new(have: Bitmap, wants: bool) -> Self {
        Self {
            have,
            wants,
            outstanding: BTreeMap::new(),
            outstanding_bytes: 0,
            rate: Rate::default(),
            rest_until_ms: 0,
            last_arrival_ms: 0,
        }
    }

    fn window_bytes(&self) -> u64 {
        match self.rate.bytes_per_second() {
            0 => FIRST_WINDOW_BYTES,
            rate => (rate / 1_000 * WINDOW_MS).clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES),
        }
    }

    /// Whether another block may be asked for now.
    pub(super) fn has_room(&self, now_ms: u64) -> bool {
        now_ms >= self.rest_until_ms && self.outstanding_bytes < self.window_bytes()
    }

    /// Leaves that the next request should cover.
    pub(super) fn block_leaves(&self) -> usize {
        let bytes = match self.rate.bytes_per_second() {
            0 => 4 * u64::from(LEAF_BYTES),
            rate => (rate / 1_000 * BLOCK_MS).clamp(u64::from(LEAF_BYTES), u64::from(MAX_BLOCK_BYTES)),
        };
        let leaves = bytes / u64::from(LEAF_BYTES);
        usize::try_from(leaves).unwrap_or(1).max(1)
    }

    pub(super) fn ask(&mut self, block: BlockRange, now_ms: u64) {
        if self.outstanding.is_empty() {
            self.rate.resume(now_ms);
            self.last_arrival_ms = now_ms;
        }
        self.outstanding.insert(block, now_ms);
        self.outstanding_bytes += u64::from(block.length);
    }

    /// The request for `block` is over; false where there was none.
    pub(super) fn settle(&mut self, block: BlockRange) -> bool {
        let asked = self.outstanding.remove(&block).is_some();
        if asked {
            self.outstanding_bytes -= u64::from(block.length);
        }
        asked
    }

    pub(super) fn arrived(&mut self, block: BlockRange, now_ms: u64) {
        self.rate.add(u64::from(block.length), now_ms);
        self.last_arrival_ms = now_ms;
    }

    /// Blocks that should long have arrived, by this neighbour's own rate.
    pub(super) fn late(&self, now_ms: u64) -> Vec<BlockRange> {
        if self.outstanding.is_empty() {
            return Vec::new();
        }
        let expected_ms = self.outstanding_bytes.saturating_mul(1_000) / self.rate.bytes_per_second().max(16 * 1024);
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
