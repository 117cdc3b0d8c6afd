//! Blocks that have arrived, on their way into the store.
//!
//! They are hashed and written on the blocking pool, several small ones in one go: going there and
//! back costs as much as a small block does. A go is limited, so that other sessions get theirs, and
//! only so many run at once over all sessions.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tokio_util::task::TaskTracker;
use updraft_protocol::limits::MAX_BLOCK_BYTES;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId};

use super::{Common, Handle, lock};
use crate::engine::input::{BlockOutcome, SwarmInput};
use crate::swarm::buffers::Buffer;
use crate::swarm::{BlockIo, Written};

/// Bytes stored in one go, unless a single block is longer.
const GO_BYTES: usize = MAX_BLOCK_BYTES as usize;
/// Goes of one session at a time: a single fast peer may use two cores.
const MOST_WORKERS: usize = 2;

/// A block that was received whole.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) object: ObjectId,
    pub(super) block: BlockRange,
    pub(super) buffer: Buffer,
}

/// A block that was stored, or not.
struct Done {
    arrived: Arrived,
    written: Written,
}

#[derive(Debug, Default)]
struct Queue {
    blocks: VecDeque<Arrived>,
    bytes: usize,
    workers: usize,
}

impl Queue {
    /// What one go stores: as many blocks as fit, at least one.
    fn take_go(&mut self) -> Vec<Arrived> {
        let (mut go, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.blocks.front() {
            let length = next.block.length as usize;
            if !go.is_empty() && bytes + length > GO_BYTES {
                break;
            }
            bytes += length;
            go.extend(self.blocks.pop_front());
        }
        self.bytes -= bytes;
        go
    }
}

/// The blocks of a session that are being stored. Bounded by the buffers that they are in.
pub(super) struct Storing {
    common: Common,
    handle: Arc<Handle>,
    queue: Arc<Mutex<Queue>>,
    workers: TaskTracker,
}

impl Storing {
    pub(super) fn new(common: &Common, handle: &Arc<Handle>) -> Self {
        let (common, handle) = (common.clone(), Arc::clone(handle));
        Self { common, handle, queue: Arc::default(), workers: TaskTracker::new() }
    }

    /// Has a block stored and reported.
    pub(super) fn push(&self, arrived: Arrived) {
        let mut queue = lock(&self.queue);
        queue.bytes += arrived.block.length as usize;
        queue.blocks.push_back(arrived);
        if queue.workers < MOST_WORKERS && queue.bytes > queue.workers * GO_BYTES {
            queue.workers += 1;
            let (common, handle, queue) = (self.common.clone(), Arc::clone(&self.handle), Arc::clone(&self.queue));
            self.workers.spawn(work(common, handle, queue));
        }
    }

    /// Waits until all are stored and reported.
    pub(super) async fn finish(&self) {
        self.workers.close();
        self.workers.wait().await;
    }
}

/// Stores what is in the queue until it is empty.
async fn work(common: Common, handle: Arc<Handle>, queue: Arc<Mutex<Queue>>) {
    loop {
        {
            let mut queue = lock(&queue);
            if queue.blocks.is_empty() {
                queue.workers -= 1;
                return;
            }
        }
        let slot = Arc::clone(&common.io_slots).acquire_owned().await;
        // Taken now: more may have arrived meanwhile.
        let go = lock(&queue).take_go();
        let (io, from) = (Arc::clone(&common.io), handle.peer.clone());
        let stored = tokio::task::spawn_blocking(move || {
            let done: Vec<Done> = go.into_iter().map(|arrived| store(&*io, &from, arrived)).collect();
            drop(slot);
            done
        });
        // It does not panic, and is not cancelled while the runtime lives.
        for Done { arrived, written } in stored.await.unwrap_or_default() {
            let Arrived { object, block, buffer } = arrived;
            let Written { outcome, liars } = written;
            let piece = match outcome {
                BlockOutcome::PieceVerified(piece) | BlockOutcome::PieceRejected(piece) => Some(piece),
                BlockOutcome::Stored | BlockOutcome::Duplicate | BlockOutcome::Failed(_) => None,
            };
            let _ = common
                .inputs
                .send(SwarmInput::BlockArrived { peer: handle.peer.clone(), object, block, outcome })
                .await;
            for (peer, piece) in liars.into_iter().zip(piece.into_iter().cycle()) {
                let _ = common.inputs.send(SwarmInput::Lied { peer, object, piece }).await;
            }
            drop(buffer);
        }
    }
}

fn store(io: &dyn BlockIo, from: &PeerId, arrived: Arrived) -> Done {
    let bytes = &arrived.buffer[..arrived.block.length as usize];
    let written = catch_unwind(AssertUnwindSafe(|| io.write(from, &arrived.object, arrived.block, bytes)));
    let failed = || BlockOutcome::Failed("the store failed; its log says why".to_owned()).into();
    Done { arrived, written: written.unwrap_or_else(|_| failed()) }
}
