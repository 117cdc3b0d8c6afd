//! The way back to one client: the runtime puts, the connection takes, nobody waits for anybody.
//!
//! Putting never blocks and never grows: progress is replaced by newer progress, events beyond
//! [`MAX_QUEUED_EVENTS`] push the oldest out and are counted, and there is one end. A client that
//! stops reading costs the node one full queue, no more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::MAX_QUEUED_EVENTS;
use super::messages::{ErrorBody, ErrorCode, Event, Line, Progress, Response};

#[derive(Debug, Default)]
struct Outbox {
    progress: Option<Progress>,
    events: VecDeque<Event>,
    dropped: u64,
    end: Option<Result<Response, ErrorBody>>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    outbox: Mutex<Outbox>,
    wake: Notify,
    gone: CancellationToken,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Every change of the outbox is complete at each step, so a poisoned one is still sound.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Outbox)) {
        let mut outbox = self.outbox();
        if !outbox.ended {
            change(&mut outbox);
            drop(outbox);
            self.wake.notify_one();
        }
    }
}

/// The runtime's end.
#[derive(Debug)]
pub struct ReplySender {
    shared: Arc<Shared>,
}

/// The connection's end.
#[derive(Debug)]
pub struct ReplyReceiver {
    shared: Arc<Shared>,
}

/// A new way back.
pub fn channel() -> (ReplySender, ReplyReceiver) {
    let shared = Arc::new(Shared::default());
    (ReplySender { shared: Arc::clone(&shared) }, ReplyReceiver { shared })
}

impl ReplySender {
    /// Says how far the work is, in place of whatever progress was not sent yet.
    pub fn progress(&self, progress: Progress) {
        self.shared.change(|outbox| outbox.progress = Some(progress));
    }

    /// Queues an event; the oldest queued one is lost, and counted, where there are too many.
    pub fn event(&self, event: Event) {
        self.shared.change(|outbox| {
            if outbox.events.len() >= MAX_QUEUED_EVENTS {
                outbox.events.pop_front();
                outbox.dropped = outbox.dropped.saturating_add(1);
            }
            outbox.events.push_back(event);
        });
    }

    /// Ends the conversation. Only the first end counts; nothing is sent after it.
    pub fn finish(&self, end: Result<Response, ErrorBody>) {
        self.shared.change(|outbox| {
            outbox.end = Some(end);
            outbox.ended = true;
        });
    }

    /// Whether the client has gone away, so that the work is of no use any more.
    pub fn is_closed(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    /// Waits until the client has gone away.
    pub async fn closed(&self) {
        self.shared.gone.cancelled().await;
    }
}

impl Drop for ReplySender {
    fn drop(&mut self) {
        self.finish(Err(ErrorBody::new(ErrorCode::Error, "the node dropped the request before it was done")
            .with_hint("the node may be stopping; see its log, then try again")));
    }
}

impl ReplyReceiver {
    /// The next line for the client; `None` after the end.
    pub async fn next(&mut self) -> Option<Line<Response>> {
        loop {
            let woken = self.shared.wake.notified();
            {
                let mut outbox = self.shared.outbox();
                if outbox.dropped > 0 {
                    return Some(Line::Dropped(std::mem::take(&mut outbox.dropped)));
                }
                if let Some(event) = outbox.events.pop_front() {
                    return Some(Line::Event(event));
                }
                if let Some(progress) = outbox.progress.take() {
                    return Some(Line::Progress(progress));
                }
                if let Some(end) = outbox.end.take() {
                    return Some(end.map_or_else(Line::Error, Line::Result));
                }
                if outbox.ended {
                    return None;
                }
            }
            woken.await;
        }
    }
}

impl Drop for ReplyReceiver {
    fn drop(&mut self) {
        self.shared.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::messages::Phase;
    use updraft_protocol::time::UtcTime;

    fn event(seq: u64) -> Event {
        Event {
            seq,
            at: UtcTime::from_unix(0),
            kind: "test".to_owned(),
            product: None,
            version: None,
            peer: None,
            text: String::new(),
            fields: serde_json::Map::new(),
        }
    }

    #[tokio::test]
    async fn newer_progress_replaces_older() {
        let (sender, mut receiver) = channel();
        sender.progress(Progress::local(Phase::Packing, 1, None));
        sender.progress(Progress::local(Phase::Packing, 2, None));
        sender.finish(Ok(Response::Done {}));
        assert_eq!(receiver.next().await, Some(Line::Progress(Progress::local(Phase::Packing, 2, None))));
        assert_eq!(receiver.next().await, Some(Line::Result(Response::Done {})));
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn a_full_queue_loses_the_oldest_events_and_says_how_many() {
        let (sender, mut receiver) = channel();
        let surplus = 10;
        for seq in 0..MAX_QUEUED_EVENTS as u64 + surplus {
            sender.event(event(seq));
        }
        assert_eq!(receiver.next().await, Some(Line::Dropped(surplus)));
        assert_eq!(receiver.next().await, Some(Line::Event(event(surplus))));
    }

    #[tokio::test]
    async fn only_the_first_end_counts_and_nothing_follows_it() {
        let (sender, mut receiver) = channel();
        sender.finish(Ok(Response::Done {}));
        sender.finish(Err(ErrorBody::new(ErrorCode::Error, "late")));
        sender.event(event(1));
        drop(sender);
        assert_eq!(receiver.next().await, Some(Line::Result(Response::Done {})));
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn a_sender_dropped_unanswered_says_so() {
        let (sender, mut receiver) = channel();
        drop(sender);
        assert!(
            matches!(receiver.next().await, Some(Line::Error(body)) if body.message.contains("dropped the request"))
        );
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed() {
        let (sender, receiver) = channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        sender.closed().await;
    }
}
