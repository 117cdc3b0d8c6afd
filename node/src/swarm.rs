//! The network shell: owns libp2p, carries out [`SwarmEffect`]s, reports [`SwarmInput`]s.
//!
//! It decides nothing about updates: whom to connect, what to ask for and what to forward are the
//! engine's decisions. It must never hold more in memory than it says, never let one peer's
//! slowness touch another, and never wait for the engine while the engine waits for it
//! (`driver.rs`). libp2p appears below this module and nowhere else.
//!
//! | file | is about |
//! |---|---|
//! | `transport.rs` | TCP and QUIC, names |
//! | `read_ahead.rs`, `security.rs`, `tls.rs`, `gather.rs`, `windows.rs`, `muxer.rs` | TLS or Noise, then yamux, over TCP |
//! | `behaviour.rs` | what runs on the connections, limits |
//! | `streams.rs`, `links.rs` | one session per peer, on which connection |
//! | `session.rs`, `session/` | control messages and blocks of one peer |
//! | `gossip.rs`, `meta.rs` | heads; metadata requests |
//! | `admission.rs` | which connections are let in |
//! | `kad.rs` | Kademlia, where it is switched on |
//! | `dials.rs`, `addresses.rs`, `identify.rs` | reaching peers, and what is told about addresses |
//! | `driver.rs`, `translate.rs` | the task that ties them together |

mod addresses;
mod admission;
mod behaviour;
mod buffers;
mod counters;
mod dials;
mod driver;
mod gather;
mod gossip;
mod identify;
mod kad;
mod links;
mod meta;
mod muxer;
mod read_ahead;
mod security;
mod session;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod translate;
mod transport;
mod windows;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, identity, swarm};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use updraft_protocol::digest::Digest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId};

pub use self::counters::Counters;
pub use self::kad::Kad;
use crate::engine::effect::SwarmEffect;
use crate::engine::input::{BlockOutcome, SwarmInput};

/// Effects that may wait for the shell.
const EFFECTS: usize = 256;
/// Calls of [`BlockIo`] that run at once, at most; no more than the machine has cores, for each of them
/// hashes or copies and more would only contend.
const IO_SLOTS: usize = 8;
/// Addresses of one peer that are dialled at once.
const DIAL_CONCURRENCY: NonZeroU8 = NonZeroU8::new(8).expect("not zero");
/// Streams of one connection that the remote may have under negotiation.
const MAX_NEGOTIATING: usize = 64;
/// Longer than any deadline of ours: [`streams`] decides when a connection ends.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// A node's key on the network. Its debug form shows the peer id only.
#[derive(Clone)]
pub struct Identity {
    keypair: identity::Keypair,
}

impl Identity {
    /// The identity of an ed25519 secret key.
    ///
    /// # Panics
    ///
    /// Never: any 32 bytes are an ed25519 secret key.
    pub fn from_ed25519_seed(mut seed: [u8; 32]) -> Self {
        let keypair = identity::Keypair::ed25519_from_bytes(&mut seed);
        Self { keypair: keypair.expect("any 32 bytes are an ed25519 secret key") }
    }

    /// The id that others know this node by.
    pub fn peer_id(&self) -> PeerId {
        translate::peer_to_protocol(&self.keypair.public().to_peer_id())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

/// How a node appears on the network.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Its key.
    pub identity: Identity,
    /// The repository whose heads are gossiped.
    pub repository: Digest,
    /// Multiaddresses to listen on, TCP (`/ip6/::/tcp/4880`) or QUIC (`/ip6/::/udp/4880/quic-v1`).
    pub listen: Vec<String>,
    /// Multiaddresses at which others reach the node, told to everybody.
    pub external: Vec<String>,
    /// Find and be found on local links by multicast DNS. Off means that no socket is opened.
    pub mdns: bool,
    /// Software and version, told to everybody.
    pub agent: String,
    /// The node's part in Kademlia.
    pub kad: Kad,
    /// Peers that are always let in: those that the ticket names.
    pub favoured: Vec<PeerId>,
    /// Peers that the node wants at most; a few connections more are let in.
    pub max_peers: usize,
}

/// Where blocks are read from and written to. Calls block; they are made on the blocking pool, a
/// bounded number at a time.
pub trait BlockIo: Send + Sync + 'static {
    /// **Appends** the block's bytes, exactly `block.length` of them, to `buffer`, and leaves what is
    /// in it alone. An error is for people.
    fn read(&self, object: &ObjectId, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), String>;

    /// Stores a block that `from` was asked for. `bytes` has the block's length; nothing else is known
    /// about them.
    fn write(&self, from: &PeerId, object: &ObjectId, block: BlockRange, bytes: &[u8]) -> Written;
}

/// What became of a block, and what it brought to light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What the store made of it.
    pub outcome: BlockOutcome,
    /// Who is proven by it to have sent wrong bytes for its piece, now or before.
    pub liars: Vec<PeerId>,
}

impl From<BlockOutcome> for Written {
    fn from(outcome: BlockOutcome) -> Self {
        Self { outcome, liars: Vec::new() }
    }
}

/// Why the network shell does not start.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// Called outside a tokio runtime.
    #[error("the network was started outside of the asynchronous runtime")]
    NoRuntime,
    /// A configured address makes no sense.
    #[error("the address {address} cannot be used: {reason}; give a multiaddress such as /ip4/0.0.0.0/tcp/4880")]
    Address {
        /// As configured.
        address: String,
        /// Why.
        reason: String,
    },
    /// The system refuses to listen on an address.
    #[error("cannot listen on {address}: {source}; is another node running, or the address not of this machine?")]
    Listen {
        /// As configured.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The transports cannot be set up.
    #[error("the network cannot be set up: {0}")]
    Transport(String),
    /// Gossip cannot be set up.
    #[error("gossip cannot be set up: {0}")]
    Gossip(String),
    /// Multicast DNS cannot be set up.
    #[error("discovery on local links cannot be set up: {0}; switch mdns off to do without")]
    Mdns(String),
}

/// Starts the network shell in the current tokio runtime. It runs until [`SwarmHandle::shutdown`],
/// or until both the handle and every sender of effects are gone.
pub fn spawn(
    config: &SwarmConfig,
    io: Arc<dyn BlockIo>,
    inputs: mpsc::Sender<SwarmInput>,
) -> Result<SwarmHandle, SwarmError> {
    runtime::Handle::try_current().map_err(|_| SwarmError::NoRuntime)?;
    let counters = Arc::new(Counters::default());
    let keypair = &config.identity.keypair;
    let transport = transport::build(keypair, &counters).map_err(SwarmError::Transport)?;
    let behaviour = behaviour::Behaviour::new(config, keypair)?;
    let settings = swarm::Config::with_tokio_executor()
        .with_dial_concurrency_factor(DIAL_CONCURRENCY)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
        .with_idle_connection_timeout(IDLE_CONNECTION);
    let mut swarm = Swarm::new(transport, behaviour, keypair.public().to_peer_id(), settings);
    listen(&mut swarm, &config.listen)?;
    for text in &config.external {
        swarm.add_external_address(parse(text)?);
    }

    let (effects, receiver) = mpsc::channel(EFFECTS);
    let common = session::Common {
        io,
        io_slots: Arc::new(Semaphore::new(io_slots())),
        pool: buffers::Pool::new(),
        counters: Arc::clone(&counters),
        inputs,
    };
    let stop = CancellationToken::new();
    let topic = gossip::topic(&config.repository);
    let driver = driver::Driver::new(swarm, common, receiver, topic, stop.clone());
    let task = tokio::spawn(Box::pin(driver.run()));
    Ok(SwarmHandle { effects, counters, stop, task })
}

fn io_slots() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, IO_SLOTS)
}

fn parse(text: &str) -> Result<Multiaddr, SwarmError> {
    let invalid = |reason: String| SwarmError::Address { address: text.to_owned(), reason };
    let address: Multiaddr = text.parse().map_err(|error| invalid(format!("{error}")))?;
    let (address, _) = addresses::split_peer(address);
    addresses::via(&address).map(|_| address).ok_or_else(|| invalid("neither TCP nor QUIC".to_owned()))
}

/// Listens on every address. One of an address family that this machine lacks is left out, as long
/// as another remains.
fn listen(swarm: &mut Swarm<behaviour::Behaviour>, addresses: &[String]) -> Result<(), SwarmError> {
    for text in addresses {
        is_free(&parse(text)?).map_err(|source| SwarmError::Listen { address: text.clone(), source })?;
    }
    let (mut listeners, mut unavailable) = (0, None);
    for text in addresses {
        let source = match swarm.listen_on(parse(text)?) {
            Ok(_) => {
                listeners += 1;
                continue;
            }
            Err(TransportError::MultiaddrNotSupported(_)) => {
                let reason = "no transport for it".to_owned();
                return Err(SwarmError::Address { address: text.clone(), reason });
            }
            Err(TransportError::Other(error)) => error,
        };
        let absent = matches!(source.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
            || source.to_string().contains("not supported");
        let error = SwarmError::Listen { address: text.clone(), source };
        if !absent {
            return Err(error);
        }
        tracing::warn!(%error, "an address is left out");
        unavailable = Some(error);
    }
    match unavailable {
        Some(error) if listeners == 0 => Err(error),
        _ => Ok(()),
    }
}

/// Finds out whether a TCP port is taken. libp2p listens with `SO_REUSEPORT`, so that two nodes of
/// one user could listen on the same port, and each would get half of the other's connections.
fn is_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        // The wildcard would include IPv4, where another program may rightfully be.
        Some(Protocol::Ip6(ip)) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => match TcpListener::bind((ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A running network shell.
#[derive(Debug)]
pub struct SwarmHandle {
    effects: mpsc::Sender<SwarmEffect>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl SwarmHandle {
    /// Where effects go. Bounded: a send waits while the shell is behind, and never for an input to
    /// be taken.
    pub fn effects(&self) -> mpsc::Sender<SwarmEffect> {
        self.effects.clone()
    }

    /// Bytes moved so far.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Says what is queued to be said, closes every connection and waits for the end, which comes
    /// within a few seconds. Inputs should still be taken meanwhile: sessions report their end.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the network task failed");
        }
    }
}
