//! Reads of a trickle in handfuls.
//!
//! In a swarm every connection carries a little, one packet at a time, and waking a connection costs more
//! than the packet is worth: its multiplexer and every protocol on it are asked what they want. So after a
//! read that emptied the socket the next one waits a few milliseconds, as network cards do with their
//! interrupts. A connection that is fast, or has hardly begun, never waits.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a trickle gathers. It adds to the delay of messages, and it is less than the queues of any
/// link that carries only a trickle.
const REST: Duration = Duration::from_millis(5);
/// Bytes that come within a rest from which on the stream is fast.
const FAST_BYTES: usize = 32 * 1024;
/// Reads of a fast stream before it is looked at again.
const FAST_READS: u32 = 16;
/// Bytes of a new connection that are read without any rest: its handshakes and first words.
const FIRST_BYTES: usize = 64 * 1024;

/// A byte stream whose small reads are gathered.
#[derive(Debug)]
pub(super) struct Moderated<S> {
    inner: S,
    /// Bytes of the beginning that are still to come.
    first: usize,
    /// Bytes since the last rest.
    gathered: usize,
    /// Reads for which the stream counts as fast.
    fast: u32,
    timer: Option<Pin<Box<Sleep>>>,
    resting: bool,
}

impl<S> Moderated<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, first: FIRST_BYTES, gathered: 0, fast: 0, timer: None, resting: false }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.resting {
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(cx));
            }
            self.resting = false;
        }
        Poll::Ready(())
    }

    /// `bytes` were read where there was `room` for so many.
    fn after_read(&mut self, bytes: usize, room: usize) {
        self.first = self.first.saturating_sub(bytes);
        self.gathered = self.gathered.saturating_add(bytes);
        if self.gathered >= FAST_BYTES {
            self.gathered = 0;
            self.fast = FAST_READS;
        }
        // A full buffer says that there is more, and nothing at all that the stream has ended.
        if bytes == 0 || bytes >= room || self.first > 0 {
            return;
        }
        if self.fast > 0 {
            self.fast -= 1;
            return;
        }
        self.gathered = 0;
        let end = Instant::now() + REST;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(end),
            None => self.timer = Some(Box::pin(sleep_until(end))),
        }
        self.resting = true;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moderated<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx));
        let bytes = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        self.after_read(bytes, buffer.len());
        Poll::Ready(Ok(bytes))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx));
        let room = buffers.iter().map(|buffer| buffer.len()).sum();
        let bytes = ready!(Pin::new(&mut self.inner).poll_read_vectored(cx, buffers))?;
        self.after_read(bytes, room);
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moderated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// A stream past its beginning, and its other end.
    async fn settled() -> (Moderated<impl AsyncRead + Unpin>, impl AsyncWrite + Unpin) {
        let (here, there) = tokio::io::duplex(4 * FIRST_BYTES);
        let (mut here, mut there) = (Moderated::new(here.compat()), there.compat());
        there.write_all(&[0; FIRST_BYTES]).await.expect("there is room");
        here.read_exact(&mut [0; FIRST_BYTES]).await.expect("it was written");
        here.fast = 0;
        (here, there)
    }

    #[tokio::test]
    async fn a_trickle_is_read_in_handfuls() {
        let (mut here, mut there) = settled().await;
        let mut buffer = [0; 1024];
        there.write_all(&[1; 10]).await.expect("there is room");
        assert!(!here.resting, "the first of it waits for nothing");
        let start = Instant::now();
        assert_eq!(here.read(&mut buffer).await.expect("read"), 10);
        for _ in 0..5 {
            there.write_all(&[1; 10]).await.expect("there is room");
        }
        assert_eq!(here.read(&mut buffer).await.expect("read"), 50);
        assert!(start.elapsed() >= REST);
    }

    #[tokio::test]
    async fn a_fast_stream_never_rests() {
        let (mut here, mut there) = settled().await;
        let mut buffer = vec![0; 2 * FAST_BYTES];
        for _ in 0..100 {
            there.write_all(&[1; FAST_BYTES]).await.expect("there is room");
            assert_eq!(here.read(&mut buffer).await.expect("read"), FAST_BYTES);
            assert!(!here.resting);
        }
    }

    #[tokio::test]
    async fn the_end_is_not_lost_in_a_rest() {
        let (mut here, mut there) = settled().await;
        let mut buffer = [0; 1024];
        there.write_all(&[1; 10]).await.expect("there is room");
        assert_eq!(here.read(&mut buffer).await.expect("read"), 10);
        drop(there);
        let end = timeout(Duration::from_secs(1), here.read(&mut buffer)).await.expect("in time");
        assert_eq!(end.expect("read"), 0);
    }
}
