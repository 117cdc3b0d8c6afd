//! Control frames that wait to be written: a queue bounded in frames and in bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Full;

/// Bytes that may wait: the bitmaps of all objects that a session may speak of, when each is of
/// usual size. Bounds what a peer that does not read costs.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Frames that may wait.
const MAX_FRAMES: usize = 8192;
/// Bytes handed to the stream at once.
const BATCH_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

/// The queue of one session.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Outbox {
    /// Appends a frame.
    pub(super) fn push(&self, frame: Vec<u8>) -> Result<(), Full> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return Ok(()); // The session is over; nobody misses the frame.
        }
        if queue.frames.len() >= MAX_FRAMES || queue.bytes + frame.len() > MAX_BYTES {
            return Err(Full);
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        self.changed.notify_one();
        Ok(())
    }

    /// Lets [`Self::batch`] end once what waits is taken.
    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_one();
    }

    /// Waits for frames and moves some into `batch`, which it clears first; false at the end.
    pub(super) async fn batch(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        loop {
            let changed = self.changed.notified();
            {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                while batch.len() < BATCH_BYTES {
                    let Some(frame) = queue.frames.pop_front() else {
                        break;
                    };
                    queue.bytes -= frame.len();
                    batch.extend_from_slice(&frame);
                }
                if !batch.is_empty() || queue.closed {
                    return !batch.is_empty();
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_leave_in_order_and_the_queue_is_bounded() {
        let outbox = Outbox::default();
        let mut pushed = 0;
        while outbox.push(vec![u8::try_from(pushed % 251).expect("below 256"); 1024]).is_ok() {
            pushed += 1;
        }
        assert_eq!(pushed, MAX_BYTES / 1024);
        outbox.close();
        let (mut all, mut batch) = (Vec::new(), Vec::new());
        while outbox.batch(&mut batch).await {
            assert!(batch.len() <= BATCH_BYTES + 1024);
            all.extend_from_slice(&batch);
        }
        assert_eq!(all.len(), pushed * 1024);
        assert!(all.chunks(1024).enumerate().all(|(at, frame)| usize::from(frame[0]) == at % 251));
    }
}
