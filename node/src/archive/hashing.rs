//! Hashing beside the work whose bytes are hashed: unpacking is then as quick as its slowest part, not as
//! all of them one after the other.
//!
//! What is small is hashed at once. Beyond that a thread of its own takes copies of the bytes, a few
//! blocks behind at most: memory does not grow with what is hashed. The thread ends with its hasher.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{Builder, JoinHandle};

use updraft_protocol::digest::{Digest, Hasher};

use super::source::{BLOCK_BYTES, Tap};

/// Bytes up to which starting a thread costs more than it saves.
const SMALL_BYTES: usize = 1024 * 1024;

/// Blocks that may wait to be hashed.
const WAITING_BLOCKS: usize = 8;

/// Hashes bytes in order, on a thread of its own once there are many.
#[derive(Debug)]
pub(super) enum BesideHasher {
    Here { hasher: Hasher, until_thread: Option<usize> },
    Beside(Helper),
}

/// A thread that hashes.
#[derive(Debug)]
pub(super) struct Helper {
    blocks: SyncSender<Vec<u8>>,
    /// Blocks that were hashed, to be filled again.
    emptied: Receiver<Vec<u8>>,
    filling: Vec<u8>,
    thread: JoinHandle<Hasher>,
}

impl BesideHasher {
    pub(super) fn new() -> Self {
        Self::Here { hasher: Hasher::new(), until_thread: Some(SMALL_BYTES) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Beside(helper) => helper.update(bytes),
            Self::Here { hasher, until_thread } => {
                hasher.update(bytes);
                let Some(left) = until_thread else { return };
                *left = left.saturating_sub(bytes.len());
                if *left == 0 {
                    // Where no thread is to be had, this one goes on and asks no more.
                    *until_thread = None;
                    if let Some(helper) = Helper::start(hasher.clone()) {
                        *self = Self::Beside(helper);
                    }
                }
            }
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Here { hasher, .. } => hasher.finish(),
            Self::Beside(helper) => helper.finish(),
        }
    }
}

impl Tap for BesideHasher {
    fn see(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

impl Helper {
    /// Goes on with what `hasher` has seen. `None` where the system has no thread to give.
    fn start(mut hasher: Hasher) -> Option<Self> {
        let (blocks, waiting) = mpsc::sync_channel::<Vec<u8>>(WAITING_BLOCKS);
        let (empty, emptied) = mpsc::sync_channel(WAITING_BLOCKS + 1);
        let work = move || {
            for mut block in waiting {
                hasher.update(&block);
                block.clear();
                // There is room for every block there is; nobody takes them any more only at the end.
                let _ = empty.try_send(block);
            }
            hasher
        };
        let thread = Builder::new().name("hashing".to_owned()).spawn(work).ok()?;
        Some(Self { blocks, emptied, filling: Vec::with_capacity(BLOCK_BYTES), thread })
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == BLOCK_BYTES {
                let empty = self.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK_BYTES));
                self.hand_over(empty);
            }
        }
    }

    fn hand_over(&mut self, next: Vec<u8>) {
        let full = std::mem::replace(&mut self.filling, next);
        self.blocks.send(full).expect("the thread takes blocks for as long as there is somebody to send them");
    }

    fn finish(mut self) -> Digest {
        self.hand_over(Vec::new());
        drop(self.blocks);
        self.thread.join().expect("hashing does not panic").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_where_it_is_made() {
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        for length in [0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, SMALL_BYTES + BLOCK_BYTES, bytes.len()] {
            for step in [7_777, BLOCK_BYTES, 3 * BLOCK_BYTES + 1] {
                let mut hasher = BesideHasher::new();
                for part in bytes[..length].chunks(step) {
                    hasher.update(part);
                }
                assert_eq!(hasher.finish(), Digest::of(&bytes[..length]), "{length} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_hasher_that_is_dropped_ends_its_thread() {
        let mut hasher = BesideHasher::new();
        hasher.update(&vec![1; 3 * SMALL_BYTES]);
        let BesideHasher::Beside(helper) = hasher else { panic!("no thread was started") };
        let Helper { blocks, thread, .. } = helper;
        drop(blocks);
        thread.join().expect("it ends");
    }
}
