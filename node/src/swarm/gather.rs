//! Small writes to a connection leave together.
//!
//! yamux writes a header of 12 bytes and then what it stands for, and flushes each frame. Written as
//! they come, every one of those becomes a TLS record, a system call, a packet and a wake-up at the
//! other end. Here bytes gather while yamux is at work, and leave when it has nothing more to say
//! ([`Settler::settle`]) or when [`MOST_BYTES`] are there. Nothing waits for a timer.
//!
//! It must never keep bytes once the connection's task has gone to rest: they leave then, or the
//! task is woken when there is room.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite, ready};

/// Bytes that gather before they leave. Bounds what a connection keeps of what yamux gave it.
const MOST_BYTES: usize = 128 * 1024;
/// Capacity that an idle connection keeps.
const IDLE_BYTES: usize = 4 * 1024;

#[derive(Debug)]
struct Gather<S> {
    socket: S,
    waiting: Vec<u8>,
    /// Bytes of `waiting` that left already.
    left: usize,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Hands everything that waits to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left < self.waiting.len() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.waiting[self.left..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.left += written;
        }
        let was_small = self.waiting.len() <= IDLE_BYTES;
        self.waiting.clear();
        self.left = 0;
        if was_small {
            self.waiting.shrink_to(IDLE_BYTES);
        }
        Poll::Ready(Ok(()))
    }
}

/// A connection whose writes gather: yamux's end of it. It closes when yamux lets go of it.
#[derive(Debug)]
pub(super) struct Gathered<S>(Arc<Mutex<Gather<S>>>);

/// The muxer's end.
#[derive(Debug)]
pub(super) struct Settler<S>(Weak<Mutex<Gather<S>>>);

/// One task uses both ends; the lock is never contended.
fn lock<S>(shared: &Mutex<Gather<S>>) -> MutexGuard<'_, Gather<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Gathered<S> {
    pub(super) fn new(socket: S) -> Self {
        Self(Arc::new(Mutex::new(Gather { socket, waiting: Vec::new(), left: 0 })))
    }

    pub(super) fn settler(&self) -> Settler<S> {
        Settler(Arc::downgrade(&self.0))
    }

    fn lock(&self) -> MutexGuard<'_, Gather<S>> {
        lock(&self.0)
    }
}

impl<S: AsyncWrite + Unpin> Settler<S> {
    /// Sends what has gathered, as far as the socket takes it; the task is woken for the rest. Does
    /// nothing where yamux has let go of the connection.
    pub(super) fn settle(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let mut gather = lock(&shared);
        match gather.poll_drain(cx)? {
            Poll::Ready(()) => match Pin::new(&mut gather.socket).poll_flush(cx) {
                Poll::Ready(flushed) => flushed,
                Poll::Pending => Ok(()),
            },
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let mut gather = self.lock();
        if gather.waiting.len() >= MOST_BYTES {
            ready!(gather.poll_drain(cx))?;
        }
        let taken = buffer.len().min(MOST_BYTES - gather.waiting.len());
        gather.waiting.extend_from_slice(&buffer[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Does nothing: who writes goes on at once, and the muxer settles after that.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gather = self.lock();
        ready!(gather.poll_drain(cx))?;
        Pin::new(&mut gather.socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// Counts writes; takes a limited number of bytes until it is emptied.
    #[derive(Debug, Default)]
    struct Socket {
        writes: usize,
        bytes: Vec<u8>,
        room: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            let taken = buffer.len().min(self.room);
            self.room -= taken;
            self.writes += 1;
            self.bytes.extend_from_slice(&buffer[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn settle<S: AsyncWrite + Unpin>(gathered: &Gathered<S>) {
        poll_fn(|cx| Poll::Ready(gathered.settler().settle(cx))).await.expect("the socket works");
    }

    #[tokio::test]
    async fn frames_written_in_one_go_leave_in_one_write() {
        let mut gathered = Gathered::new(Socket { room: 1 << 20, ..Socket::default() });
        for _ in 0..10 {
            gathered.write_all(b"a header").await.expect("there is room");
            gathered.write_all(&[7; 100]).await.expect("there is room");
            gathered.flush().await.expect("nothing happens");
        }
        assert_eq!(gathered.lock().socket.writes, 0);
        settle(&gathered).await;
        let socket = &gathered.lock().socket;
        assert_eq!((socket.writes, socket.bytes.len()), (1, 1080));
    }

    #[tokio::test]
    async fn what_gathers_is_bounded_and_nothing_is_lost_or_swapped() {
        let mut gathered = Gathered::new(Socket::default());
        let sent: Vec<u8> = (0..3 * MOST_BYTES).map(|at| u8::try_from(at % 251).expect("below 256")).collect();
        let mut at = 0;
        let mut turns = 0;
        while at < sent.len() {
            let taken = poll_fn(|cx| Poll::Ready(Pin::new(&mut gathered).poll_write(cx, &sent[at..]))).await;
            match taken {
                Poll::Ready(taken) => at += taken.expect("the socket works"),
                Poll::Pending => gathered.lock().socket.room = 40_000,
            }
            assert!(gathered.lock().waiting.len() <= MOST_BYTES);
            turns += 1;
            assert!(turns < 1_000);
        }
        gathered.lock().socket.room = usize::MAX;
        gathered.close().await.expect("the socket works");
        assert_eq!(gathered.lock().socket.bytes, sent);
    }

    #[tokio::test]
    async fn an_idle_connection_gives_its_memory_back() {
        let mut gathered = Gathered::new(Socket { room: usize::MAX, ..Socket::default() });
        gathered.write_all(&vec![0; MOST_BYTES]).await.expect("there is room");
        settle(&gathered).await;
        gathered.write_all(b"a sign of life").await.expect("there is room");
        settle(&gathered).await;
        assert!(gathered.lock().waiting.capacity() <= IDLE_BYTES);
    }

    #[tokio::test]
    async fn the_socket_closes_when_yamux_lets_go_of_it() {
        let (near, mut far) = tokio::io::duplex(16);
        let gathered = Gathered::new(near.compat());
        let settler = gathered.settler();
        drop(gathered);
        poll_fn(|cx| Poll::Ready(settler.settle(cx))).await.expect("nothing is left to do");
        let read = tokio::io::AsyncReadExt::read(&mut far, &mut [0; 16]).await.expect("an end");
        assert_eq!(read, 0);
    }

    #[tokio::test]
    async fn reading_passes_through() {
        let mut gathered = Gathered::new(futures::io::Cursor::new(b"bytes".to_vec()));
        let mut read = Vec::new();
        gathered.read_to_end(&mut read).await.expect("there is an end");
        assert_eq!(read, b"bytes");
    }
}
