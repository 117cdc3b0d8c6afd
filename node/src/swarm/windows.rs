//! What all connections of a node together may be sent before it reads.
//!
//! A connection's streams start with small windows that grow on a fast, long link. How far they may
//! grow is a share of one budget: without it every connection could make us keep tens of megabytes
//! as soon as the disk falls behind, and the number of connections is for others to choose. Early
//! connections get more than late ones, and nobody gets more than a long fat link needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all connections may be granted beyond the windows that streams start with.
const BUDGET_BYTES: usize = 128 * 1024 * 1024;
/// The part of what is left that a new connection gets; the first gets 16 MiB, 1 Gbit/s at 130 ms.
const PART: usize = 8;

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Windows(Arc<AtomicUsize>);

/// A connection's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl Default for Windows {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(BUDGET_BYTES)))
    }
}

impl Windows {
    pub(super) fn share(&self) -> Share {
        let take = |left: usize| Some(left - left / PART);
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        Share { left: Arc::clone(&self.0), bytes: left / PART }
    }
}

impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_budget_and_come_back() {
        let windows = Windows::default();
        let shares: Vec<Share> = (0..1_000).map(|_| windows.share()).collect();
        assert!(shares.iter().map(Share::bytes).sum::<usize>() <= BUDGET_BYTES);
        assert_eq!(shares[0].bytes(), 16 << 20);
        assert!(shares[11].bytes() > 3 << 20, "a usual number of neighbours has room to grow");
        drop(shares);
        assert_eq!(windows.share().bytes(), 16 << 20);
    }
}
