//! Who is served next: the queue of blocks that neighbours asked for.
//!
//! A block goes to the network only when little of what went before is still on its way there, so that
//! the order in which blocks leave is decided here, as late as possible. Neighbours take turns by bytes.
//! One that does not take what it is sent holds up nobody else: what is stuck on its way to it does not
//! count against the others for long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use updraft_protocol::limits::MAX_QUEUED_REQUESTS;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId};

use super::rate::Rate;

/// Bytes on their way to the network while the rate is unknown, and at least.
const MIN_SENDING_BYTES: u64 = 256 * 1024;
/// Bytes on their way to the network at most.
const MAX_SENDING_BYTES: u64 = 16 * 1024 * 1024;
/// Milliseconds of the node's rate that are on their way to the network.
const SENDING_MS: u64 = 50;
/// A block that the network did not take for this long is stuck.
const STUCK_MS: u64 = 300;
/// Bytes that one neighbour gets before the next has its turn.
const TURN_BYTES: u64 = 128 * 1024;

/// A block that a neighbour asked for, by its own handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Upload {
    pub(super) handle: u32,
    pub(super) object: ObjectId,
    pub(super) block: BlockRange,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Upload>,
    /// Handed to the network and not reported yet, with the time.
    sending: BTreeMap<Upload, u64>,
    sending_bytes: u64,
    /// Bytes that it had in this turn.
    used_bytes: u64,
    /// When its turn comes: by the bytes that it had, so that a block longer than a turn costs the turns that
    /// it is worth.
    turn: u64,
}

impl Queue {
    fn len(&self) -> usize {
        self.waiting.len() + self.sending.len()
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    New,
    Already,
    Full,
}

/// What became of a request that was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawn {
    Unknown,
    Waiting,
    Sending,
}

/// All neighbours' queues.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    queues: BTreeMap<PeerId, Queue>,
    /// Neighbours for whom something waits, by turn.
    ready: BTreeSet<(u64, PeerId)>,
    /// The latest turn that came.
    clock: u64,
    sending: usize,
    rate: Rate,
}

impl Uploads {
    /// Queues a block.
    pub(super) fn push(&mut self, peer: &PeerId, upload: Upload) -> Queued {
        let queue = self.queues.entry(peer.clone()).or_default();
        if queue.sending.contains_key(&upload) || queue.waiting.contains(&upload) {
            return Queued::Already;
        }
        if queue.len() >= MAX_QUEUED_REQUESTS {
            return Queued::Full;
        }
        queue.waiting.push_back(upload);
        if queue.waiting.len() == 1 {
            // Who was idle gets the next turn, not all the turns that it missed; and not before it has paid for
            // what it had.
            queue.turn = queue.turn.max(self.clock + 1);
            self.ready.insert((queue.turn, peer.clone()));
        }
        Queued::New
    }

    /// A neighbour no longer wants a block.
    pub(super) fn withdraw(&mut self, peer: &PeerId, handle: u32, block: BlockRange) -> Withdrawn {
        let Some(queue) = self.queues.get_mut(peer) else { return Withdrawn::Unknown };
        let is_it = |upload: &Upload| upload.handle == handle && upload.block == block;
        if let Some(at) = queue.waiting.iter().position(is_it) {
            queue.waiting.remove(at);
            if queue.waiting.is_empty() {
                self.ready.remove(&(queue.turn, peer.clone()));
            }
            return Withdrawn::Waiting;
        }
        let sending = queue.sending.keys().find(|upload| is_it(upload)).copied();
        match sending {
            Some(upload) => {
                self.over(peer, &upload);
                Withdrawn::Sending
            }
            None => Withdrawn::Unknown,
        }
    }

    /// The network is done with a block: false where it was not sending it.
    fn over(&mut self, peer: &PeerId, upload: &Upload) -> bool {
        let Some(queue) = self.queues.get_mut(peer) else { return false };
        let was = queue.sending.remove(upload).is_some();
        if was {
            queue.sending_bytes -= u64::from(upload.block.length);
            self.sending -= 1;
        }
        was
    }

    /// The network took a block, or could not have it.
    pub(super) fn ended(&mut self, peer: &PeerId, object: ObjectId, block: BlockRange, sent: bool, now_ms: u64) {
        let of = |upload: &&Upload| upload.object == object && upload.block == block;
        let upload = self.queues.get(peer).and_then(|queue| queue.sending.keys().find(of)).copied();
        if let Some(upload) = upload {
            self.over(peer, &upload);
        }
        if sent {
            self.rate.add(u64::from(block.length), now_ms);
        }
    }

    /// A neighbour is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if let Some(queue) = self.queues.remove(peer) {
            self.ready.remove(&(queue.turn, peer.clone()));
            self.sending -= queue.sending.len();
        }
    }

    /// An object is gone: nothing of it is sent any more.
    pub(super) fn forget_object(&mut self, object: &ObjectId) {
        for (peer, queue) in &mut self.queues {
            queue.waiting.retain(|upload| upload.object != *object);
            if queue.waiting.is_empty() {
                self.ready.remove(&(queue.turn, peer.clone()));
            }
        }
    }

    /// Whether blocks wait for a neighbour or are on their way to it.
    pub(super) fn has_any(&self, peer: &PeerId) -> bool {
        self.queues.get(peer).is_some_and(|queue| queue.len() > 0)
    }

    /// Whether no blocks wait or are on their way.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.sending == 0
    }

    /// Bytes per second that leave.
    pub(super) fn rate_bytes_per_second(&self) -> u64 {
        self.rate.bytes_per_second()
    }

    pub(super) fn settle(&mut self, now_ms: u64) {
        self.rate.settle(now_ms);
    }

    /// Bytes on their way to the network, apart from what is stuck.
    fn sending_bytes(&self, now_ms: u64) -> u64 {
        if self.sending == 0 {
            return 0;
        }
        let fresh = |queue: &Queue| -> u64 {
            let moving = queue.sending.iter().filter(|(_, since_ms)| now_ms.saturating_sub(**since_ms) < STUCK_MS);
            moving.map(|(upload, _)| u64::from(upload.block.length)).sum()
        };
        self.queues.values().map(fresh).sum()
    }

    /// Takes the next block to hand to the network, where there is room. `may_leave` is asked whether the
    /// limits let so many bytes go to that neighbour now.
    pub(super) fn next(
        &mut self,
        now_ms: u64,
        mut may_leave: impl FnMut(&PeerId, u64) -> bool,
    ) -> Option<(PeerId, Upload)> {
        if self.ready.is_empty() {
            return None;
        }
        let room = (self.rate.bytes_per_second() * SENDING_MS / 1_000).clamp(MIN_SENDING_BYTES, MAX_SENDING_BYTES);
        if self.sending_bytes(now_ms) >= room {
            return None;
        }
        let most_of_one = (room / 2).max(MIN_SENDING_BYTES);
        let (turn, peer) = self.ready.iter().find(|(_, peer)| {
            let Some(queue) = self.queues.get(peer) else { return false };
            let length = queue.waiting.front().map_or(0, |upload| u64::from(upload.block.length));
            (queue.sending_bytes == 0 || queue.sending_bytes + length <= most_of_one) && may_leave(peer, length)
        })?;
        let (turn, peer) = (*turn, peer.clone());
        let queue = self.queues.get_mut(&peer)?;
        let upload = queue.waiting.pop_front()?;
        let length = u64::from(upload.block.length);
        queue.sending.insert(upload, now_ms);
        queue.sending_bytes += length;
        self.sending += 1;
        queue.used_bytes += length;
        self.clock = self.clock.max(turn);
        if queue.waiting.is_empty() || queue.used_bytes >= TURN_BYTES {
            self.ready.remove(&(turn, peer.clone()));
            queue.turn += std::mem::take(&mut queue.used_bytes);
            if !queue.waiting.is_empty() {
                self.ready.insert((queue.turn, peer.clone()));
            }
        }
        Some((peer, upload))
    }
}

#[cfg(test)]
mod tests;
