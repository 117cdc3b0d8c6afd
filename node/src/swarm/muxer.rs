//! Many streams over one TCP connection (`/yamux/1.0.0`), in large frames.
//!
//! The stock wrapper fixes frames at 16 KiB, each flushed by itself, and grants a remote windows of
//! up to 1 GiB. Here frames are large enough for their cost to vanish beside their bytes, and the
//! windows are bounded. On the wire it is the same protocol.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use updraft_protocol::transfer::BlockHeader;
use yamux::{Connection, ConnectionError, Mode, Stream};

use super::gather::{Gathered, Settler};
use super::windows::{Share, Windows};

/// The largest piece of a stream sent at once: other streams wait for so long, and yamux queues ten
/// for each stream. 256 KiB cost no less CPU. A block of 64 KiB and its header fit.
const FRAME_BYTES: usize = 64 * 1024 + BlockHeader::BYTES;
/// What yamux grants every stream from the start.
const FIRST_WINDOW_BYTES: usize = 256 * 1024;

/// The upgrade from a secured connection to streams.
#[derive(Debug, Clone)]
pub(super) struct Config {
    max_streams: usize,
    frame_bytes: usize,
    windows: Windows,
}

impl Config {
    /// With at most so many streams open at once on each connection.
    pub(super) fn new(max_streams: usize) -> Self {
        Self { max_streams, frame_bytes: FRAME_BYTES, windows: Windows::default() }
    }

    /// With other frames than the default, for measurements.
    #[cfg(test)]
    pub(super) fn with_frames(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    fn over<C: AsyncRead + AsyncWrite + Unpin>(self, socket: C, mode: Mode) -> Muxer<C> {
        let socket = Gathered::new(socket);
        let share = self.windows.share();
        let mut config = yamux::Config::default();
        // The window is only ever checked against the streams, so that their number comes first.
        config
            .set_max_num_streams(self.max_streams)
            .set_max_connection_receive_window(Some(self.max_streams * FIRST_WINDOW_BYTES + share.bytes()))
            .set_split_send_size(self.frame_bytes);
        let settler = socket.settler();
        let connection = Connection::new(socket, config, mode);
        Muxer { connection, settler, arrived: VecDeque::new(), taker: None, _share: share }
    }
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(self.over(socket, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Config {
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        ready(Ok(self.over(socket, Mode::Client)))
    }
}

/// A connection and the streams on it.
#[derive(Debug)]
pub(super) struct Muxer<C> {
    connection: Connection<Gathered<C>>,
    /// Sends what `connection` has written.
    settler: Settler<C>,
    /// Streams that the remote opened and nobody has taken. yamux moves bytes only while it is asked
    /// for new streams, whether we want one or not. It counts a stream until we drop it, even one
    /// that the remote has reset, and ends a connection with too many: that bounds this queue.
    arrived: VecDeque<Stream>,
    taker: Option<Waker>,
    /// How far its windows may grow.
    _share: Share,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let arrival = self.connection.poll_next_inbound(cx);
        // yamux has written all that its streams had for it.
        let settled = self.settler.settle(cx);
        match arrival {
            Poll::Ready(Some(arrival)) => Poll::Ready(arrival),
            Poll::Ready(None) => Poll::Ready(Err(ConnectionError::Closed)),
            Poll::Pending => match settled {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(ConnectionError::Io(error))),
            },
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.arrived.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let arrival = self.poll_arrival(cx);
        if arrival.is_pending() {
            self.taker = Some(cx.waker().clone());
        }
        arrival
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.poll_arrival(cx))?;
        self.arrived.push_back(stream);
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
        // There may be more; others get their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::AsyncWriteExt as _;
    use tokio::io::duplex;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    /// Lets a connection do what it can now: whether it lives on.
    async fn turn<C: AsyncRead + AsyncWrite + Unpin>(muxer: &mut Muxer<C>) -> bool {
        let lives = poll_fn(|cx| Poll::Ready(Pin::new(&mut *muxer).poll(cx).is_pending())).await;
        tokio::task::yield_now().await;
        lives
    }

    #[tokio::test]
    async fn a_remote_that_resets_streams_before_they_are_taken_cannot_pile_them_up() {
        let (near, far) = duplex(64 * 1024);
        let mut own = Config::new(4).over(near.compat(), Mode::Server);
        let mut remote = Config::new(4).over(far.compat(), Mode::Client);
        for opened in 1..=5 {
            let stream = poll_fn(|cx| Pin::new(&mut remote).poll_outbound(cx)).await;
            let mut stream = stream.expect("the remote has no stream open");
            stream.write_all(b"!").await.expect("the first window is free");
            drop(stream);
            let mut lives = true;
            for _ in 0..8 {
                turn(&mut remote).await;
                lives = lives && turn(&mut own).await;
            }
            assert_eq!((own.arrived.len(), lives), (opened.min(4), opened <= 4));
        }
    }
}
