//! Pieces that wait for nothing: begun, nothing of them is missing, and nothing on its way.
//!
//! That is so for a moment while the news of the last block comes. It is so for ever where news of a block
//! was about bytes that are gone: the store dropped them with a piece that was wrong, and writes another
//! attempt now. Nothing else would look at such a piece again.

use std::collections::{BTreeMap, BTreeSet};

use super::Transfer;

/// A piece that waited for nothing for so long is begun again.
const STUCK_MS: u64 = 10_000;
/// Milliseconds between two looks.
const LOOK_MS: u64 = 1_000;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    look_at_ms: u64,
    since_ms: BTreeMap<u32, u64>,
}

impl Transfer {
    /// Begins pieces again that wait for nothing. The store drops what it has of them already.
    pub(super) fn free_stuck(&mut self, now_ms: u64) {
        if !self.is_active() || now_ms < self.stuck.look_at_ms {
            return;
        }
        self.stuck.look_at_ms = now_ms + LOOK_MS;
        let mut waiting: BTreeSet<u32> =
            self.progress.keys().filter(|piece| !self.missing.contains(piece)).copied().collect();
        for block in self.holders.values().flat_map(|holder| holder.outstanding.keys()) {
            if let Some(piece) = self.manifest.piece_at(block.offset) {
                waiting.remove(&piece.get());
            }
        }
        self.stuck.since_ms.retain(|piece, _| waiting.contains(piece));
        for piece in waiting {
            let since_ms = *self.stuck.since_ms.entry(piece).or_insert(now_ms);
            if now_ms.saturating_sub(since_ms) >= STUCK_MS {
                self.stuck.since_ms.remove(&piece);
                self.progress.remove(&piece);
                if !self.have.get(piece) {
                    self.taken.clear(piece);
                }
            }
        }
    }
}
