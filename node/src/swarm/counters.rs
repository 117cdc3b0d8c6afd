//! What went over the network, in numbers that only grow.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};

/// Bytes moved since the node started. Shared by every session and connection.
#[derive(Debug, Default)]
pub struct Counters {
    tcp_in: AtomicU64,
    tcp_out: AtomicU64,
    payload_in: AtomicU64,
    payload_out: AtomicU64,
    control_in: AtomicU64,
    control_out: AtomicU64,
    unsolicited_in: AtomicU64,
}

impl Counters {
    /// Bytes read from TCP sockets, encryption and multiplexing included. QUIC is not counted.
    pub fn tcp_in_bytes(&self) -> u64 {
        self.tcp_in.load(Ordering::Relaxed)
    }

    /// Bytes written to TCP sockets, encryption and multiplexing included. QUIC is not counted.
    pub fn tcp_out_bytes(&self) -> u64 {
        self.tcp_out.load(Ordering::Relaxed)
    }

    /// Bytes of blocks that were asked for and arrived whole.
    pub fn payload_in_bytes(&self) -> u64 {
        self.payload_in.load(Ordering::Relaxed)
    }

    /// Bytes of blocks handed to the network.
    pub fn payload_out_bytes(&self) -> u64 {
        self.payload_out.load(Ordering::Relaxed)
    }

    /// Bytes of control frames read.
    pub fn control_in_bytes(&self) -> u64 {
        self.control_in.load(Ordering::Relaxed)
    }

    /// Bytes of control frames written.
    pub fn control_out_bytes(&self) -> u64 {
        self.control_out.load(Ordering::Relaxed)
    }

    /// Bytes of blocks that were read and dropped because nobody wanted them (any more).
    pub fn unsolicited_in_bytes(&self) -> u64 {
        self.unsolicited_in.load(Ordering::Relaxed)
    }

    pub(super) fn add_payload_in(&self, bytes: u64) {
        self.payload_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_payload_out(&self, bytes: u64) {
        self.payload_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_control_in(&self, bytes: u64) {
        self.control_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_control_out(&self, bytes: u64) {
        self.control_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_unsolicited_in(&self, bytes: u64) {
        self.unsolicited_in.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A byte stream that reports what passes through it.
#[derive(Debug)]
pub(super) struct Counted<S> {
    inner: S,
    counters: Arc<Counters>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

/// Adds what an I/O call moved. A length always fits: the widest pointer here has 64 bits.
fn add(counter: &AtomicU64, result: &Poll<io::Result<usize>>) {
    if let Poll::Ready(Ok(bytes)) = result {
        counter.fetch_add(u64::try_from(*bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        add(&self.counters.tcp_in, &result);
        result
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_read_vectored(cx, buffers);
        add(&self.counters.tcp_in, &result);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buffer);
        add(&self.counters.tcp_out, &result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, buffers);
        add(&self.counters.tcp_out, &result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
