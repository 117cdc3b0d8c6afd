//! Keeping to the caps: what may leave or be asked for now.

use updraft_protocol::limits::MAX_BLOCK_BYTES;
use updraft_protocol::transfer::BlockRange;

use crate::engine::bucket::{Rate, TokenBucket};
use crate::engine::limits::Caps;

/// The caps and what was moved lately.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) caps: Caps,
    upload: Option<TokenBucket>,
    download: Option<TokenBucket>,
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
    /// Whether so many bytes may leave now. Counts them where they may.
    pub(super) fn may_leave(&mut self, bytes: u64, now_ms: u64) -> bool {
        bucket(&mut self.upload, self.caps.upload_bytes_per_second, now_ms)
            .is_none_or(|bucket| bucket.take(bytes, now_ms))
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
