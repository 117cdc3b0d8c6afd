//! One session with one peer: four loops over two streams, in one task.
//!
//! The task reports [`SwarmInput::Connected`] before anything else and
//! [`SwarmInput::Disconnected`] after everything else, and starts only when the peer's earlier
//! session has reported its end. Control and data, reading and writing, make progress
//! independently: bulk never holds up a message, and what a peer does not read stops only what is
//! meant for that peer.
//!
//! Memory of one session: 64 KiB for the frame being read, [`outbox::MAX_BYTES`] of waiting control
//! frames, [`MAX_QUEUED_REQUESTS`] entries in each of three tables, and its part of the one budget
//! for blocks (see [`super::buffers`]), at most [`MOST_IN_BYTES`] and [`MOST_OUT_BYTES`]. Below this
//! lie the multiplexer's windows (256 KiB a stream, growing with bandwidth x delay as the stream is
//! *read*), which this task keeps empty unless the store or the engine falls behind.

mod control;
mod download;
mod outbox;
mod storing;
mod upload;
mod wanted;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use updraft_protocol::limits::{MAX_BLOCK_BYTES, MAX_QUEUED_REQUESTS};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};

use self::outbox::Outbox;
use self::storing::Storing;
use self::wanted::Wanted;
use super::BlockIo;
use super::buffers::{Lane, Pool, Way};
use super::counters::Counters;
use crate::engine::input::SwarmInput;

/// Bytes of blocks that one session receives and stores at once.
const MOST_IN_BYTES: usize = 4 * MAX_BLOCK_BYTES as usize;
/// Bytes of blocks that one session reads and sends at once.
const MOST_OUT_BYTES: usize = 2 * MAX_BLOCK_BYTES as usize;
/// A read or write that makes no progress for this long ends the session.
const STALL: Duration = Duration::from_secs(60);
/// A block takes no longer than this, be its peer as slow as it may: it holds memory that others may
/// wait for. A slow peer is asked for small blocks.
const BLOCK_DEADLINE: Duration = Duration::from_secs(120);
/// A silent control stream gets an empty frame after this time. It shows that the peer's program runs, which
/// its system, asked once a minute ([`super::transport`]), cannot tell. Each one wakes yamux at both ends,
/// which then measures the round trip: some ten packets.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// A sign of life is answered after so long a silence. Bounds how often a peer can have us speak, and ends
/// the answers to answers.
const LEAST_SILENCE: Duration = Duration::from_secs(30);
/// The empty frame.
const SIGN_OF_LIFE: [u8; 4] = 0u32.to_be_bytes();
/// A peer that was silent for this long, on both streams, is gone: two signs of life are missing. Blocks that
/// it owes are asked of others long before.
const SILENCE: Duration = Duration::from_secs(750);
/// What is queued at the end of a session, a goodbye say, gets this long to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all sessions of a node share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) io: Arc<dyn BlockIo>,
    /// How many calls of `io` run at once.
    pub(super) io_slots: Arc<Semaphore>,
    pub(super) pool: Arc<Pool>,
    pub(super) counters: Arc<Counters>,
    pub(super) inputs: mpsc::Sender<SwarmInput>,
}

/// A block to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upload {
    handle: u32,
    object: ObjectId,
    block: BlockRange,
}

/// More than a bounded queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The side of a session that the driver holds. Nothing here waits.
#[derive(Debug)]
pub(super) struct Handle {
    peer: PeerId,
    outbox: Outbox,
    wanted: Mutex<Wanted>,
    uploads: Mutex<VecDeque<Upload>>,
    uploads_changed: Notify,
    started: Instant,
    /// When the peer was last heard, in milliseconds after `started`.
    heard_ms: AtomicU64,
    /// When the peer was last told something, likewise.
    said_ms: AtomicU64,
    stop: CancellationToken,
    reason: OnceLock<String>,
    done: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    pub(super) fn new(peer: PeerId) -> Arc<Self> {
        Arc::new(Self {
            peer,
            outbox: Outbox::default(),
            wanted: Mutex::default(),
            uploads: Mutex::default(),
            uploads_changed: Notify::new(),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            said_ms: AtomicU64::new(0),
            stop: CancellationToken::new(),
            reason: OnceLock::new(),
            done: CancellationToken::new(),
        })
    }

    /// Ends the session; the first reason counts. What is queued to be said is still said.
    pub(super) fn stop(&self, reason: impl Into<String>) {
        let _ = self.reason.set(reason.into());
        self.stop.cancel();
    }

    /// Queues a message. A peer that does not read its messages loses the session.
    pub(super) fn control(&self, message: &Control) {
        if self.outbox.push(message.to_frame()).is_err() {
            self.stop("the peer does not read its control messages");
        }
    }

    /// Asks for a block and expects it from now on.
    pub(super) fn request(&self, handle: u32, object: ObjectId, block: BlockRange) -> Result<(), Full> {
        lock(&self.wanted).insert(handle, block, object)?;
        self.control(&Control::Request { handle, block });
        Ok(())
    }

    /// Withdraws a request. The block may be under way; it is dropped then.
    pub(super) fn cancel(&self, handle: u32, block: BlockRange) {
        lock(&self.wanted).cancel(handle, block);
        self.control(&Control::Cancel { handle, block });
    }

    /// Queues a block to be read and sent.
    pub(super) fn send_block(&self, handle: u32, object: ObjectId, block: BlockRange) -> Result<(), Full> {
        let mut uploads = lock(&self.uploads);
        if uploads.len() >= MAX_QUEUED_REQUESTS {
            return Err(Full);
        }
        uploads.push_back(Upload { handle, object, block });
        self.uploads_changed.notify_one();
        Ok(())
    }

    /// Takes a block out of the queue, if it is still there.
    pub(super) fn drop_block(&self, handle: u32, block: BlockRange) {
        lock(&self.uploads).retain(|upload| upload.handle != handle || upload.block != block);
    }

    /// The session ends, or has ended. Set before the engine is told.
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The session has reported its end.
    pub(super) fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn heard(&self) {
        self.heard_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    fn said(&self) {
        self.said_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Answers a sign of life, unless something was said a moment ago: then both ends' next ones are due
    /// together, and a peer that waits less long than this node hears from it in time.
    fn answer_sign_of_life(&self) {
        let silent_ms = self.elapsed_ms().saturating_sub(self.said_ms.load(Ordering::Relaxed));
        if Duration::from_millis(silent_ms) < LEAST_SILENCE {
            return;
        }
        // Now, not when it is written: a peer that sends many at once gets one answer.
        self.said();
        if self.outbox.push(SIGN_OF_LIFE.to_vec()).is_err() {
            self.stop("the peer does not read its control messages");
        }
    }

    /// When the peer will have been silent for too long.
    fn silent_at(&self) -> Instant {
        self.started + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)) + SILENCE
    }
}

/// How a session came to be.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) address: String,
    pub(super) outbound: bool,
    /// The peer's earlier session, that has yet to report its end.
    pub(super) previous: Option<CancellationToken>,
}

/// Why a session ended by itself: for people.
type Reason = String;

/// Runs a session to its end. Returns early only when the runtime is gone.
pub(super) async fn run<S>(common: Common, handle: Arc<Handle>, origin: Origin, control: S, data: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let done = handle.done.clone().drop_guard();
    if let Some(previous) = origin.previous {
        previous.cancelled().await;
    }
    let peer = handle.peer.clone();
    let Origin { address, outbound, .. } = origin;
    if common.inputs.send(SwarmInput::Connected { peer: peer.clone(), address, outbound }).await.is_ok() {
        let reason = converse(&common, &handle, control, data).await;
        handle.stop("");
        let _ = common.inputs.send(SwarmInput::Disconnected { peer, reason }).await;
    }
    drop(done);
}

async fn converse<S>(common: &Common, handle: &Arc<Handle>, control: S, data: S) -> Reason
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (control_in, control_out) = control.split();
    let (data_in, data_out) = data.split();
    let down = Lane::new(&common.pool, Way::In, MOST_IN_BYTES);
    let up = Lane::new(&common.pool, Way::Out, MOST_OUT_BYTES);
    let storing = Storing::new(common, handle);
    let reason = {
        let mut hear = Box::pin(control::receive(common, handle, control_in));
        let mut say = pin!(control::send(common, handle, control_out));
        let take = Box::pin(download::run(common, handle, &down, &storing, data_in));
        let give = Box::pin(upload::run(common, handle, &up, data_out));
        let reason = tokio::select! {
            reason = &mut hear => reason,
            reason = lost(&mut say, take, give) => {
                // The other stream may have failed because the peer left: hear why.
                let _ = timeout(LAST_WORDS, hear).await;
                reason
            }
            () = handle.stop.cancelled() => {
                handle.outbox.close();
                let _ = timeout(LAST_WORDS, say).await;
                String::new()
            }
        };
        // A reason given by us explains an error that it caused.
        handle.reason.get().cloned().unwrap_or(reason)
    };
    storing.finish().await;
    reason
}

/// The first of three loops to end.
async fn lost(
    say: impl Future<Output = Reason>,
    take: impl Future<Output = Reason>,
    give: impl Future<Output = Reason>,
) -> Reason {
    tokio::select! {
        reason = say => reason,
        reason = take => reason,
        reason = give => reason,
    }
}

/// Waits for an I/O step, but not for longer than [`STALL`].
async fn progress<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STALL, step).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no progress for 60 s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session says to a sign of life.
    async fn answers(handle: &Handle) -> Vec<u8> {
        handle.answer_sign_of_life();
        let mut said = Vec::new();
        let _ = timeout(Duration::from_millis(10), handle.outbox.batch(&mut said)).await;
        said
    }

    #[tokio::test]
    async fn a_sign_of_life_is_answered_but_an_answer_is_not() {
        let peer = PeerId::from_bytes(&[1; 8]).expect("in bounds");
        let mut handle = Arc::into_inner(Handle::new(peer)).expect("nobody else has it");
        handle.started = Instant::now().checked_sub(LEAST_SILENCE).expect("the system has run for longer");
        assert_eq!(answers(&handle).await, SIGN_OF_LIFE);
        assert!(answers(&handle).await.is_empty());
    }
}
