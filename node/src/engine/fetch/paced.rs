//! Keeping to the caps: what may leave or be asked for now, and what waits.
//!
//! A block that may not leave yet waits here and not in the network shell, where it would hold
//! memory. Neighbours that caps do not hold for pass everybody else.

use std::collections::VecDeque;

use updraft_protocol::limits::MAX_BLOCK_BYTES;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId};

use crate::engine::bucket::{Rate, TokenBucket};
use crate::engine::limits::Caps;

/// A granted request whose block has not left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) peer: PeerId,
    pub(super) handle: u32,
    pub(super) object: ObjectId,
    pub(super) block: BlockRange,
}

/// The caps and what waits because of them.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) caps: Caps,
    upload: Option<TokenBucket>,
    download: Option<TokenBucket>,
    /// In the order of the requests. Bounded by the sessions' own bounds on requests.
    waiting: VecDeque<Waiting>,
}

/// The bucket of a cap as it is now; none where there is no cap.
fn bucket(slot: &mut Option<TokenBucket>, cap: Option<u64>, now_ms: u64) -> Option<&mut TokenBucket> {
    let Some(cap) = cap else {
        *slot = None;
        return None;
    };
    let bucket = slot.get_or_insert_with(|| TokenBucket::full(Rate::bytes(cap), now_ms));
    bucket.set_rate(Rate::bytes(cap), now_ms);
    Some(bucket)
}

impl Paced {
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// Nothing of that kind is to be sent any more. Returns what was waiting of it.
    pub(super) fn forget(&mut self, gone: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let (gone, kept): (Vec<Waiting>, Vec<Waiting>) = self.waiting.drain(..).partition(gone);
        self.waiting = kept.into();
        gone
    }

    /// The next block that may leave now.
    pub(super) fn next(&mut self, is_exempt: impl Fn(&PeerId) -> bool, now_ms: u64) -> Option<Waiting> {
        if let Some(at) = self.waiting.iter().position(|waiting| is_exempt(&waiting.peer)) {
            return self.waiting.remove(at);
        }
        let first = self.waiting.front()?;
        let bytes = u64::from(first.block.length);
        let may = bucket(&mut self.upload, self.caps.upload_bytes_per_second, now_ms)
            .is_none_or(|bucket| bucket.take(bytes, now_ms));
        if may { self.waiting.pop_front() } else { None }
    }

    /// Whether another block may be asked for now, in pieces of that length.
    pub(super) fn may_ask(&mut self, piece_length: u32, now_ms: u64) -> bool {
        let most = u64::from(piece_length.min(MAX_BLOCK_BYTES));
        bucket(&mut self.download, self.caps.download_bytes_per_second, now_ms)
            .is_none_or(|bucket| bucket.next_ms(most).is_some_and(|next_ms| next_ms <= now_ms))
    }

    /// A block was asked for.
    pub(super) fn asked(&mut self, block: BlockRange, now_ms: u64) {
        if let Some(bucket) = bucket(&mut self.download, self.caps.download_bytes_per_second, now_ms) {
            // There was room for it: a block lies in one piece.
            let _ = bucket.take(u64::from(block.length), now_ms);
        }
    }
}
