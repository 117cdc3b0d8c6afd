//! Memory for blocks on their way between disk and network: one budget for the whole node, whatever
//! the number of its peers.
//!
//! A quarter is reserved for blocks that arrive and a quarter for blocks that leave, for the first
//! buffer of each session; what a session holds beyond that comes from the other half. So receiving
//! never waits for sending, nor the other way round, and who reads ahead for a fast peer leaves room
//! for others. Nobody asks for a buffer that is to be of use only together with another one, and a
//! peer has limited time for each block ([`super::session`]): whatever is taken comes back.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use updraft_protocol::limits::{LEAF_BYTES, MAX_BLOCK_BYTES};

/// What all block buffers of a node take together: 64 MiB.
pub(super) const BUDGET_BYTES: usize = 64 * 1024 * 1024;
/// What the budget is counted in: one leaf, the smallest block but the last of an object.
const UNIT_BYTES: usize = LEAF_BYTES as usize;
/// Of each direction alone: 16 MiB.
const RESERVED_UNITS: usize = BUDGET_BYTES / UNIT_BYTES / 4;
/// Of whoever comes first: 32 MiB.
const SHARED_UNITS: usize = BUDGET_BYTES / UNIT_BYTES - 2 * RESERVED_UNITS;
/// Unused buffers kept for the next block instead of going back to the allocator.
const KEPT: usize = 8;
/// Smaller ones are not worth keeping.
const KEPT_BYTES: usize = 128 * 1024;
/// What a buffer may hold beyond the blocks: their headers.
const HEADROOM_BYTES: usize = 4 * 1024;

/// Which way blocks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From a peer to the store.
    In,
    /// From the store to a peer.
    Out,
}

/// Where buffers come from.
#[derive(Debug)]
pub(super) struct Pool {
    reserved_in: Arc<Semaphore>,
    reserved_out: Arc<Semaphore>,
    shared: Arc<Semaphore>,
    unused: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            reserved_in: Arc::new(Semaphore::new(RESERVED_UNITS)),
            reserved_out: Arc::new(Semaphore::new(RESERVED_UNITS)),
            shared: Arc::new(Semaphore::new(SHARED_UNITS)),
            unused: Mutex::new(Vec::new()),
        })
    }

    /// A buffer for so many bytes, and not for many more: memory is what is counted.
    fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes >= KEPT_BYTES {
            let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = |kept: &Vec<u8>| kept.capacity() >= bytes && kept.capacity() <= 2 * bytes;
            if let Some(at) = unused.iter().position(fits) {
                return unused.swap_remove(at);
            }
        }
        Vec::with_capacity(bytes + HEADROOM_BYTES)
    }

    fn give_back(&self, bytes: Vec<u8>) {
        if (KEPT_BYTES..=MAX_BLOCK_BYTES as usize + 2 * HEADROOM_BYTES).contains(&bytes.capacity()) {
            let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
            if unused.len() >= KEPT {
                unused.remove(0);
            }
            unused.push(bytes);
        }
    }
}

/// One direction of one session.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pool: Arc<Pool>,
    way: Way,
    first: Arc<Semaphore>,
    limit: Arc<Semaphore>,
}

impl Lane {
    /// A lane that holds at most `most_bytes` at a time, and always one block where the reserve has
    /// room.
    pub(super) fn new(pool: &Arc<Pool>, way: Way, most_bytes: usize) -> Self {
        Self {
            pool: Arc::clone(pool),
            way,
            first: Arc::new(Semaphore::new(1)),
            limit: Arc::new(Semaphore::new(most_bytes / UNIT_BYTES)),
        }
    }

    /// Waits for a buffer with room for blocks of `bytes` together, at most [`MAX_BLOCK_BYTES`]. Its
    /// content is whatever the last user left.
    pub(super) async fn buffer(&self, bytes: usize) -> Buffer {
        const OPEN: &str = "these semaphores are never closed";
        let bytes = bytes.min(MAX_BLOCK_BYTES as usize);
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).expect("a block has few leaves");
        let limit = Arc::clone(&self.limit).acquire_many_owned(units).await.expect(OPEN);
        let reserved = match self.way {
            Way::In => &self.pool.reserved_in,
            Way::Out => &self.pool.reserved_out,
        };
        let of_reserve = async {
            let first = Arc::clone(&self.first).acquire_owned().await.expect(OPEN);
            (Arc::clone(reserved).acquire_many_owned(units).await.expect(OPEN), Some(first))
        };
        let of_shared = async { (Arc::clone(&self.pool.shared).acquire_many_owned(units).await.expect(OPEN), None) };
        let (room, first) = tokio::select! {
            biased;
            taken = of_reserve => taken,
            taken = of_shared => taken,
        };
        let bytes = bytes.div_ceil(UNIT_BYTES) * UNIT_BYTES;
        Buffer {
            bytes: self.pool.take(bytes),
            pool: Arc::clone(&self.pool),
            granted: bytes,
            _permits: (limit, room, first),
        }
    }
}

/// A buffer; dropped, it is free for the next block.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
    granted: usize,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Buffer {
    /// Makes room for, and shows, the first `length` bytes.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        &mut self.bytes[..length]
    }

    /// Bytes of blocks that it may hold.
    pub(super) fn granted(&self) -> usize {
        self.granted
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

    const BLOCK: usize = MAX_BLOCK_BYTES as usize;
    const MANY: usize = 1024 * BLOCK;

    /// Takes buffers until one would have to wait.
    fn drain(lane: &Lane, bytes: usize) -> Vec<Buffer> {
        std::iter::from_fn(|| lane.buffer(bytes).now_or_never()).collect()
    }

    fn total(held: &[Buffer]) -> usize {
        held.iter().map(Buffer::granted).sum()
    }

    #[test]
    fn all_sessions_together_stay_within_the_budget() {
        let pool = Pool::new();
        let lanes: Vec<Lane> =
            (0..300).flat_map(|_| [Way::In, Way::Out].map(|way| Lane::new(&pool, way, 4 * BLOCK))).collect();
        let held: Vec<Buffer> = lanes.iter().flat_map(|lane| drain(lane, BLOCK)).collect();
        assert_eq!(total(&held), BUDGET_BYTES);
        let allocated: usize = held.iter().map(|buffer| buffer.bytes.capacity()).sum();
        assert!(allocated <= BUDGET_BYTES + held.len() * HEADROOM_BYTES);
        drop(held);
        assert_eq!(drain(&lanes[0], BLOCK).len(), 4);
    }

    #[test]
    fn a_session_has_room_though_others_hold_all_that_is_shared() {
        let pool = Pool::new();
        let greedy = Lane::new(&pool, Way::In, MANY);
        let held = drain(&greedy, BLOCK);
        assert_eq!(total(&held), SHARED_UNITS * UNIT_BYTES + BLOCK);
        let modest = Lane::new(&pool, Way::In, MANY);
        let first = modest.buffer(BLOCK).now_or_never().expect("its first is reserved");
        assert!(modest.buffer(BLOCK).now_or_never().is_none());
        drop(first);
        assert!(modest.buffer(BLOCK).now_or_never().is_some());
    }

    #[test]
    fn sending_goes_on_though_all_that_may_be_received_waits() {
        let pool = Pool::new();
        let lanes: Vec<Lane> = (0..300).map(|_| Lane::new(&pool, Way::In, MANY)).collect();
        let held: Vec<Buffer> = lanes.iter().flat_map(|lane| drain(lane, BLOCK)).collect();
        assert_eq!(total(&held), BUDGET_BYTES - RESERVED_UNITS * UNIT_BYTES);
        assert!(Lane::new(&pool, Way::Out, MANY).buffer(BLOCK).now_or_never().is_some());
    }

    #[test]
    fn small_blocks_take_little_of_the_budget() {
        let pool = Pool::new();
        let lanes: Vec<Lane> = (0..1024).map(|_| Lane::new(&pool, Way::Out, MANY)).collect();
        let held: Vec<Buffer> = lanes.iter().filter_map(|lane| lane.buffer(UNIT_BYTES).now_or_never()).collect();
        assert_eq!(held.len(), 1024);
    }

    #[test]
    fn a_lane_never_exceeds_its_limit() {
        let lane = Lane::new(&Pool::new(), Way::In, 2 * BLOCK);
        assert_eq!(drain(&lane, BLOCK).len(), 2);
        assert_eq!(drain(&lane, UNIT_BYTES).len(), 2 * BLOCK / UNIT_BYTES);
    }

    #[tokio::test]
    async fn who_waits_gets_what_others_give_back() {
        let pool = Pool::new();
        let greedy = Lane::new(&pool, Way::In, MANY);
        let mut held = drain(&greedy, BLOCK);
        let other = Lane::new(&pool, Way::In, MANY);
        let first = other.buffer(BLOCK).await;
        let second = other.buffer(BLOCK);
        futures::pin_mut!(second);
        assert!(second.as_mut().now_or_never().is_none());
        held.pop();
        assert!(second.now_or_never().is_some());
        drop(first);
    }
}
