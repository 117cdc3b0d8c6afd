//! Memory for blocks on their way between disk and network.
//!
//! Every session has one buffer of its own in each direction, so that none waits for another's slow
//! peer; more, up to the lane's limit, come from what all sessions share. The most that blocks take
//! is therefore `sessions x 2 + SHARED` buffers of [`MAX_BLOCK_BYTES`].

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use updraft_protocol::limits::MAX_BLOCK_BYTES;

/// Buffers that sessions share for reading and writing ahead: 32 MiB.
const SHARED: usize = 32;
/// Unused buffers kept for the next block instead of going back to the allocator: 4 MiB.
const KEPT: usize = 4;

/// Where buffers come from.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Semaphore>,
    unused: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { shared: Arc::new(Semaphore::new(SHARED)), unused: Mutex::new(Vec::new()) })
    }

    fn take(&self) -> Vec<u8> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < KEPT && bytes.capacity() <= 2 * MAX_BLOCK_BYTES as usize {
            unused.push(bytes);
        }
    }
}

/// One direction of one session.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pool: Arc<Pool>,
    own: Arc<Semaphore>,
    limit: Arc<Semaphore>,
}

impl Lane {
    /// A lane with at most `limit` buffers at a time, the first of them guaranteed.
    pub(super) fn new(pool: &Arc<Pool>, limit: usize) -> Self {
        Self { pool: Arc::clone(pool), own: Arc::new(Semaphore::new(1)), limit: Arc::new(Semaphore::new(limit)) }
    }

    /// Waits for a buffer. Its content is whatever the last user left.
    pub(super) async fn buffer(&self) -> Buffer {
        const OPEN: &str = "these semaphores are never closed";
        let limit = Arc::clone(&self.limit).acquire_owned().await.expect(OPEN);
        let (own, shared) = (Arc::clone(&self.own), Arc::clone(&self.pool.shared));
        let permit = tokio::select! {
            biased;
            permit = own.acquire_owned() => permit,
            permit = shared.acquire_owned() => permit,
        };
        let permits = [limit, permit.expect(OPEN)];
        Buffer { bytes: self.pool.take(), pool: Arc::clone(&self.pool), _permits: permits }
    }
}

/// A buffer; dropped, it is free for the next block.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Buffer {
    /// Makes room for, and shows, the first `length` bytes.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        &mut self.bytes[..length]
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_session_has_a_buffer_though_others_hold_all_shared_ones() {
        let pool = Pool::new();
        let greedy = Lane::new(&pool, 2 * SHARED);
        let held: Vec<Buffer> = (0..=SHARED).filter_map(|_| greedy.buffer().now_or_never()).collect();
        assert_eq!(held.len(), SHARED + 1);
        assert!(greedy.buffer().now_or_never().is_none());
        let modest = Lane::new(&pool, 2);
        let first = modest.buffer().now_or_never().expect("the first is guaranteed");
        assert!(modest.buffer().now_or_never().is_none());
        drop(first);
        assert!(modest.buffer().now_or_never().is_some());
    }

    #[test]
    fn a_lane_never_exceeds_its_limit() {
        let lane = Lane::new(&Pool::new(), 2);
        let held = (lane.buffer().now_or_never(), lane.buffer().now_or_never());
        assert!(held.0.is_some() && held.1.is_some());
        assert!(lane.buffer().now_or_never().is_none());
    }
}
