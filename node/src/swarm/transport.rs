//! The one place that says which transports, encryption and multiplexing a node speaks.
//!
//! TCP carries bulk: TLS (or Noise, with those that speak no TLS), then yamux.
//! QUIC is for reachability. It costs more CPU per byte, so that the dialler tries it only when TCP
//! did not answer ([`super::dials`]). No relays, ever: bulk does not belong there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport, Transport};
use libp2p::core::upgrade::Version;
use libp2p::{PeerId, dns, identity, quic, tcp};
use socket2::TcpKeepalive;

use super::counters::{Counted, Counters};
use super::read_ahead::ReadAhead;
use super::{muxer, security};

/// From the first packet to a multiplexed connection. Bounds half-open connections.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(15);
/// Streams that one connection may have open at once: a session's two, 64 metadata requests each
/// way, gossip's and identify's. Bounds the windows a remote can make us keep.
const MAX_STREAMS: usize = 256;
/// Bytes in flight that one QUIC stream is granted: 100 ms at 1 Gbit/s.
const QUIC_STREAM_WINDOW_BYTES: u32 = 12 * 1024 * 1024;
/// Bytes in flight that one QUIC connection is granted.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// A QUIC connection on which nothing is said says so after this long: routers forget the way of a datagram after
/// 30 s, many of them. A neighbour with a shorter patience than [`QUIC_PATIENCE`] asks oftener itself.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A QUIC connection on which nothing arrived for this long is lost. Two signs of life may be lost before.
const QUIC_PATIENCE: Duration = Duration::from_secs(60);
const _: () = assert!(QUIC_KEEP_ALIVE.as_secs() < 30 && QUIC_PATIENCE.as_secs() >= 3 * QUIC_KEEP_ALIVE.as_secs());

/// The system asks a connection's other end for a sign of life after a silence of this length. That costs two
/// empty packets and wakes no program; it keeps routers from forgetting the connection, too.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// How long it waits for an answer before it asks again.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// Questions without an answer after which the connection is lost.
const PROBES: u32 = 4;
/// A connection on which nothing that was sent has arrived for this long is lost: as long as all the questions
/// above take. Left alone, the system goes on for a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Makes the system notice that the other end is gone.
fn watch(socket: &tokio::net::TcpStream) {
    let socket = socket2::SockRef::from(socket);
    let keep_alive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let watched = socket.set_tcp_keepalive(&keep_alive);
    #[cfg(target_os = "linux")]
    let watched = watched.and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
    if let Err(error) = watched {
        tracing::debug!(%error, "the system does not watch a connection; a peer that vanishes is noticed later");
    }
}

/// The transports of a node, ready to be dialled and listened on.
pub(super) fn build(
    keypair: &identity::Keypair,
    counters: &Arc<Counters>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, String> {
    let security = security::Config::new(keypair).map_err(|error| error.to_string())?;

    let counters = Arc::clone(counters);
    let over_tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .map(move |stream, _| {
            watch(&stream.0);
            ReadAhead::new(Counted::new(stream, Arc::clone(&counters)))
        })
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(muxer::Config::new(MAX_STREAMS))
        .timeout(HANDSHAKE_DEADLINE)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));

    let over_quic = quic::tokio::Transport::new(quic_config(keypair))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));

    let both = OrTransport::new(over_tcp, over_quic).map(|either, _| match either {
        Either::Left(connection) | Either::Right(connection) => connection,
    });
    with_dns(both)
}

fn quic_config(keypair: &identity::Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = HANDSHAKE_DEADLINE;
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_idle_timeout = u32::try_from(QUIC_PATIENCE.as_millis()).unwrap_or(u32::MAX);
    config.max_concurrent_stream_limit = u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX);
    config.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
    config.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
    config
}

/// Adds name resolution by the system's configuration.
fn with_dns<T>(inner: T) -> Result<Boxed<(PeerId, StreamMuxerBox)>, String>
where
    T: Transport<Output = (PeerId, StreamMuxerBox)> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    dns::tokio::Transport::system(inner)
        .map(Transport::boxed)
        .map_err(|error: io::Error| format!("the system's name resolution cannot be set up: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_watches_a_connection_on_which_nothing_is_said() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stream = tokio::net::TcpStream::connect(address).await.expect("somebody listens");
        watch(&stream);
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().expect("it is open"));
        assert_eq!(socket.tcp_keepalive_time().expect("it is open"), PROBE_AFTER);
        assert_eq!(socket.tcp_keepalive_retries().expect("it is open"), PROBES);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("it is open"), Some(UNACKNOWLEDGED));
    }
}
