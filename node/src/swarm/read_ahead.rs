//! What the system has received is taken in one go.
//!
//! The encryption layer asks for at most one record at a time, 4 KiB of it to begin with. On a fast
//! link that is a system call for every few KiB. Here each call takes all that is there, into a
//! buffer that grows with the link: a slow or idle connection keeps [`LEAST_BYTES`], a fast one
//! [`MOST_BYTES`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite, ready};

/// The buffer of a connection that moves little.
const LEAST_BYTES: usize = 4 * 1024;
/// The buffer of a fast one. Bounds what reading ahead costs for each connection.
const MOST_BYTES: usize = 256 * 1024;
/// Reads in a row that needed less than a quarter of the buffer, after which it is halved.
const SMALL_READS: u32 = 16;

/// A byte stream that is read ahead of who asks.
#[derive(Debug)]
pub(super) struct ReadAhead<S> {
    inner: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    small_reads: u32,
}

impl<S> ReadAhead<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, buffer: Vec::new(), start: 0, end: 0, small_reads: 0 }
    }

    /// Adapts the buffer, which is empty, to what the last read brought.
    fn adapt(&mut self) {
        let size = self.buffer.len();
        if self.end == size {
            self.small_reads = 0;
            if size < MOST_BYTES {
                self.buffer = vec![0; (2 * size).clamp(LEAST_BYTES, MOST_BYTES)];
            }
        } else if self.end < size / 4 && size > LEAST_BYTES {
            self.small_reads += 1;
            if self.small_reads >= SMALL_READS {
                self.small_reads = 0;
                self.buffer = vec![0; size / 2];
            }
        } else {
            self.small_reads = 0;
        }
        (self.start, self.end) = (0, 0);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.start == this.end {
            this.adapt();
            this.end = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.buffer))?;
        }
        let taken = out.len().min(this.end - this.start);
        out[..taken].copy_from_slice(&this.buffer[this.start..this.start + taken]);
        this.start += taken;
        Poll::Ready(Ok(taken))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
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
    use futures::AsyncReadExt as _;

    use super::*;

    /// An endless stream of counted bytes that offers so many at a time.
    #[derive(Debug)]
    struct Source {
        offered: usize,
        next: u8,
        reads: usize,
    }

    impl AsyncRead for Source {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
            let taken = out.len().min(self.offered);
            for byte in &mut out[..taken] {
                *byte = self.next;
                self.next = self.next.wrapping_add(1);
            }
            self.reads += 1;
            Poll::Ready(Ok(taken))
        }
    }

    fn ahead(offered: usize) -> ReadAhead<Source> {
        ReadAhead::new(Source { offered, next: 0, reads: 0 })
    }

    async fn read(stream: &mut ReadAhead<Source>, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        for part in out.chunks_mut(4096) {
            stream.read_exact(part).await.expect("it never ends");
        }
        out
    }

    #[tokio::test]
    async fn a_fast_stream_is_read_in_few_calls_and_in_order() {
        let mut stream = ahead(usize::MAX);
        let bytes = read(&mut stream, 8 << 20).await;
        assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 256));
        assert_eq!(stream.buffer.len(), MOST_BYTES);
        assert!(stream.inner.reads < 50, "{} reads", stream.inner.reads);
    }

    #[tokio::test]
    async fn a_stream_that_becomes_slow_gives_its_buffer_back() {
        let mut stream = ahead(usize::MAX);
        read(&mut stream, 8 << 20).await;
        stream.inner.offered = 100;
        read(&mut stream, MOST_BYTES + 100 * 200).await;
        assert_eq!(stream.buffer.len(), LEAST_BYTES);
    }

    #[tokio::test]
    async fn an_end_is_passed_on() {
        let mut stream = ahead(0);
        let read = stream.read(&mut [0; 10]).await.expect("no error");
        assert_eq!(read, 0);
    }
}
