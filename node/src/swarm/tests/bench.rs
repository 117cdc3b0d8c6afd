//! How fast blocks move, and at what cost: run by hand, in a release build, on a quiet machine.
//!
//! `cargo test --release -p updraft --lib -- --ignored --nocapture bench`
//!
//! Machines differ, and so do minutes on one machine: variants take turns, and what counts is the
//! ratio to the first of them.

use std::fs;
use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerExt as _};
use libp2p::core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use libp2p::identity::Keypair;
use libp2p::noise;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId};

use super::harness::{MIB, OBJECT, QUIC, TCP, block, config, identity};
use crate::engine::effect::SwarmEffect;
use crate::engine::input::{BlockOutcome, SwarmInput};
use crate::swarm::read_ahead::ReadAhead;
use crate::swarm::{BlockIo, SwarmHandle, Written, muxer, spawn, tls};

/// Reads zeros, writes nowhere.
#[derive(Debug, Default)]
struct Null {
    bytes: AtomicU64,
}

impl BlockIo for Null {
    fn read(&self, _: &ObjectId, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), String> {
        buffer.resize(buffer.len() + block.length as usize, 0);
        Ok(())
    }

    fn write(&self, _: &PeerId, _: &ObjectId, _: BlockRange, bytes: &[u8]) -> Written {
        self.bytes.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
        BlockOutcome::Stored.into()
    }
}

/// User and system time of this process, in clock ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
}

fn greeting() -> Control {
    Control::Hello(Hello { repository: vec![0; 32], ..Hello::default() })
}

struct End {
    handle: SwarmHandle,
    inputs: mpsc::Receiver<SwarmInput>,
}

impl End {
    fn start(seed: u16, listen: &str) -> Self {
        let (sender, inputs) = mpsc::channel(1024);
        let handle = spawn(&config(identity(seed), &[listen]), Arc::new(Null::default()), sender).expect("loopback");
        Self { handle, inputs }
    }

    async fn tell(&self, effect: SwarmEffect) {
        self.handle.effects().send(effect).await.expect("the shell runs");
    }
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
struct Cost {
    bytes: u64,
    micros: u128,
    ticks: u64,
}

impl Cost {
    fn since(start: Instant, cpu: u64, bytes: u64) -> Self {
        Self { bytes, micros: start.elapsed().as_micros().max(1), ticks: cpu_ticks() - cpu }
    }

    fn megabytes_per_second(self) -> u128 {
        u128::from(self.bytes) / self.micros
    }

    /// CPU milliseconds for a gigabyte, both ends.
    fn cpu_ms_per_gigabyte(self) -> u128 {
        u128::from(self.ticks) * 10_000_000_000 / u128::from(self.bytes)
    }
}

/// One way to move bytes.
struct Variant {
    name: &'static str,
    costs: Vec<Cost>,
}

fn median(mut values: Vec<u128>) -> u128 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Prints the medians of all variants, and how they compare with the first.
fn print(variants: &[Variant]) {
    let medians = |variant: &Variant| {
        let of = |value: fn(Cost) -> u128| median(variant.costs.iter().copied().map(value).collect());
        (of(Cost::megabytes_per_second), of(Cost::cpu_ms_per_gigabyte))
    };
    let (base_rate, base_cpu) = medians(&variants[0]);
    for variant in variants {
        let (rate, cpu) = medians(variant);
        let hundredths = |value: u128, base: u128| (value * 100 / base.max(1) / 100, value * 100 / base.max(1) % 100);
        let ((rate_x, rate_h), (cpu_x, cpu_h)) = (hundredths(rate, base_rate), hundredths(cpu, base_cpu));
        let _ = writeln!(
            std::io::stderr(),
            "{:<24} {rate:>5} MB/s ({rate_x}.{rate_h:02}x)  {}.{:03} CPU s/GB ({cpu_x}.{cpu_h:02}x)",
            variant.name,
            cpu / 1000,
            cpu % 1000,
        );
    }
}

/// Moves blocks of 1 MiB from one whole network shell to another.
async fn through_shells(listen: &str, blocks: u64, depth: u64) -> Cost {
    let (mut from, mut to) = (End::start(1, listen), End::start(2, listen));
    let Some(SwarmInput::Listening { address }) = from.inputs.recv().await else { panic!("it listens") };
    to.tell(SwarmEffect::Dial { peer: None, addresses: vec![address] }).await;
    let serve = tokio::spawn(async move {
        while let Some(input) = from.inputs.recv().await {
            match input {
                SwarmInput::Connected { peer, .. } => {
                    from.tell(SwarmEffect::Control { peer, message: greeting() }).await;
                }
                SwarmInput::Control { peer, message: Control::Request { handle, block } } => {
                    from.tell(SwarmEffect::SendBlock { peer, handle, object: OBJECT, block }).await;
                }
                _ => {}
            }
        }
    });
    let (mut asked, mut arrived) = (0, 0);
    let (mut start, mut cpu) = (Instant::now(), 0);
    while arrived < blocks {
        match to.inputs.recv().await.expect("the shell runs") {
            SwarmInput::Connected { peer, .. } => {
                to.tell(SwarmEffect::Control { peer: peer.clone(), message: greeting() }).await;
                (start, cpu) = (Instant::now(), cpu_ticks());
                while asked < depth {
                    let peer = peer.clone();
                    to.tell(SwarmEffect::Request { peer, handle: 0, object: OBJECT, block: block(asked) }).await;
                    asked += 1;
                }
            }
            SwarmInput::BlockArrived { peer, .. } => {
                arrived += 1;
                if asked < blocks {
                    to.tell(SwarmEffect::Request { peer, handle: 0, object: OBJECT, block: block(asked) }).await;
                    asked += 1;
                }
            }
            SwarmInput::Disconnected { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
    let cost = Cost::since(start, cpu, blocks * u64::from(MIB));
    serve.abort();
    cost
}

type Socket = ReadAhead<Compat<TcpStream>>;

async fn sockets() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.expect("it listens"), far.expect("it was dialled").0);
    for socket in [&near, &far] {
        socket.set_nodelay(true).expect("a TCP socket");
    }
    (ReadAhead::new(near.compat()), ReadAhead::new(far.compat()))
}

/// Moves so many MiB over two ends of one secured connection, through one stream.
async fn over_streams<S>(near: S, far: S, frame_bytes: usize, mebibytes: u64) -> Cost
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let config = || muxer::Config::new(4).with_frames(frame_bytes);
    let mut near = config().upgrade_outbound(near, "/yamux/1.0.0").await.expect("never fails");
    let mut far = config().upgrade_inbound(far, "/yamux/1.0.0").await.expect("never fails");
    let (start, cpu) = (Instant::now(), cpu_ticks());
    let mut out = poll_fn(|cx| near.poll_outbound_unpin(cx)).await.expect("it is open");
    let drive = tokio::spawn(poll_fn(move |cx| Pin::new(&mut near).poll(cx).map(drop)));
    let send = tokio::spawn(async move {
        let bytes = vec![7; MIB as usize];
        for _ in 0..mebibytes {
            out.write_all(&bytes).await.expect("it is open");
        }
        out
    });
    let mut incoming = poll_fn(|cx| far.poll_inbound_unpin(cx)).await.expect("it is open");
    let drive_far = tokio::spawn(poll_fn(move |cx| Pin::new(&mut far).poll(cx).map(drop)));
    let mut bytes = vec![0; MIB as usize];
    for _ in 0..mebibytes {
        incoming.read_exact(&mut bytes).await.expect("it is open");
    }
    let cost = Cost::since(start, cpu, mebibytes * u64::from(MIB));
    let _ = send.await;
    drive.abort();
    drive_far.abort();
    cost
}

async fn over_tls(aes_first: bool, frame_bytes: usize, mebibytes: u64) -> Cost {
    let config = || {
        let (certificate, key) = libp2p::tls::certificate::generate(&Keypair::generate_ed25519()).expect("randomness");
        let provider = tls::provider(aes_first);
        let key = provider.key_provider.load_private_key(key).expect("it was just made");
        let own = rustls::sign::CertifiedKey::new(vec![certificate], key);
        tls::Config::with_certificates(provider, own).expect("TLS can be set up")
    };
    let (near, far) = sockets().await;
    let (near, far) =
        tokio::join!(config().upgrade_outbound(near, tls::PROTOCOL), config().upgrade_inbound(far, tls::PROTOCOL));
    over_streams(near.expect("it is ours").1, far.expect("it is ours").1, frame_bytes, mebibytes).await
}

async fn over_noise(frame_bytes: usize, mebibytes: u64) -> Cost {
    let config = || noise::Config::new(&Keypair::generate_ed25519()).expect("randomness");
    let (near, far) = sockets().await;
    let (near, far) = tokio::join!(config().upgrade_outbound(near, "/noise"), config().upgrade_inbound(far, "/noise"));
    over_streams(near.expect("it is ours").1, far.expect("it is ours").1, frame_bytes, mebibytes).await
}

/// One way to move bytes, each time it is called.
type Run = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Cost>>>>;

fn variant<F>(name: &'static str, run: impl Fn() -> F + 'static) -> (Variant, Run)
where
    F: Future<Output = Cost> + 'static,
{
    (Variant { name, costs: Vec::new() }, Box::new(move || Box::pin(run())))
}

/// Runs all variants three times, in turns.
async fn compare(mut variants: Vec<(Variant, Run)>) {
    for _ in 0..3 {
        for (variant, run) in &mut variants {
            variant.costs.push(run().await);
        }
    }
    let variants: Vec<Variant> = variants.into_iter().map(|(variant, _)| variant).collect();
    print(&variants);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn encryption_and_frames_over_loopback() {
    const KIB: usize = 1024;
    compare(vec![
        variant("TLS AES, 64 KiB frames", || over_tls(true, 64 * KIB, 1024)),
        variant("TLS AES, 16 KiB frames", || over_tls(true, 16 * KIB, 1024)),
        variant("TLS AES, 256 KiB frames", || over_tls(true, 256 * KIB, 1024)),
        variant("TLS ChaCha20, 64 KiB", || over_tls(false, 64 * KIB, 1024)),
        variant("Noise, 64 KiB frames", || over_noise(64 * KIB, 512)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn throughput_over_loopback() {
    compare(vec![
        variant("session over TCP", || through_shells(TCP, 1024, 8)),
        variant("session over TCP, deep", || through_shells(TCP, 1024, 32)),
        variant("session over QUIC", || through_shells(QUIC, 512, 8)),
    ])
    .await;
}
