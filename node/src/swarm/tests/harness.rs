//! Nodes for tests: a network shell, the inputs it reports, and blocks in memory.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::{Swarm, swarm};
use tokio::sync::mpsc;
use tokio::time::timeout;
use updraft_protocol::digest::Digest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId, ObjectKind};

use crate::engine::effect::SwarmEffect;
use crate::engine::input::{BlockOutcome, SwarmInput};
use crate::swarm::{BlockIo, Counters, Identity, Kad, SwarmConfig, SwarmHandle, Written, spawn, streams, transport};

pub(super) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(super) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(super) const MIB: u32 = 1024 * 1024;
pub(super) const OBJECT: ObjectId = ObjectId { kind: ObjectKind::Artifact, digest: Digest::ZERO };
/// Within this time everything that a test waits for has happened.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// The block with a number, of 1 MiB.
pub(super) fn block(number: u64) -> BlockRange {
    BlockRange { offset: number * u64::from(MIB), length: MIB }
}

/// The bytes that [`MemoryIo`] holds at a range: cheap, and different everywhere.
fn content(block: BlockRange, out: &mut Vec<u8>) {
    let words = u64::from(block.length).div_ceil(8);
    let end = out.len() + block.length as usize;
    for word in 0..words {
        let mixed = (block.offset / 8 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        out.extend_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
    }
    out.truncate(end);
}

/// An object of unlimited length, of which blocks are written and compared.
#[derive(Debug, Default)]
pub(super) struct MemoryIo {
    pub(super) reads: AtomicUsize,
    pub(super) written: Mutex<BTreeSet<u64>>,
}

impl BlockIo for MemoryIo {
    fn read(&self, object: &ObjectId, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), String> {
        if *object != OBJECT {
            return Err("no such object".to_owned());
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        content(block, buffer);
        Ok(())
    }

    fn write(&self, _: &PeerId, _: &ObjectId, block: BlockRange, bytes: &[u8]) -> Written {
        let mut expected = Vec::new();
        content(block, &mut expected);
        if bytes != expected {
            return BlockOutcome::Failed("other bytes".to_owned()).into();
        }
        let new = self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(block.offset);
        if new { BlockOutcome::Stored } else { BlockOutcome::Duplicate }.into()
    }
}

/// A node under test.
pub(super) struct Node {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<String>,
    pub(super) io: Arc<MemoryIo>,
    pub(super) counters: Arc<Counters>,
    pub(super) inputs: mpsc::Receiver<SwarmInput>,
    effects: mpsc::Sender<SwarmEffect>,
    pub(super) handle: SwarmHandle,
}

/// The identity with a number.
pub(super) fn identity(seed: u16) -> Identity {
    Identity::from_ed25519_seed(*Digest::of(&seed.to_be_bytes()).as_bytes())
}

/// Two identities, the one with the smaller peer id, which chooses connections, first.
pub(super) fn ordered(seed: u16) -> (Identity, Identity) {
    let (one, other) = (identity(seed), identity(seed + 1000));
    if one.peer_id() < other.peer_id() { (one, other) } else { (other, one) }
}

pub(super) fn config(identity: Identity, listen: &[&str]) -> SwarmConfig {
    SwarmConfig {
        identity,
        repository: Digest::of(b"a repository"),
        listen: listen.iter().map(|address| (*address).to_owned()).collect(),
        external: Vec::new(),
        mdns: false,
        kad: Kad::Off,
        favoured: Vec::new(),
        agent: "test/0".to_owned(),
        max_peers: 32,
    }
}

impl Node {
    pub(super) async fn start(identity: Identity, listen: &[&str]) -> Self {
        let (sender, inputs) = mpsc::channel(1024);
        let io = Arc::new(MemoryIo::default());
        let peer = identity.peer_id();
        let handle = spawn(&config(identity, listen), io.clone(), sender).expect("loopback is available");
        let (effects, counters) = (handle.effects(), handle.counters());
        let mut node = Self { peer, addresses: Vec::new(), io, counters, inputs, effects, handle };
        while node.addresses.len() < listen.len() {
            let address = node.wait("an address", |input| match input {
                SwarmInput::Listening { address } => Some(address),
                _ => None,
            });
            let address = address.await;
            node.addresses.push(address);
        }
        node
    }

    pub(super) async fn with_seed(seed: u16, listen: &str) -> Self {
        Self::start(identity(seed), &[listen]).await
    }

    pub(super) async fn tell(&self, effect: SwarmEffect) {
        within("the shell takes an effect", self.effects.send(effect)).await.expect("the shell runs");
    }

    /// The first input that `pick` takes; others are lost.
    pub(super) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(SwarmInput) -> Option<T>) -> T {
        within(what, async {
            loop {
                let input = self.inputs.recv().await.expect("the shell runs");
                if let Some(picked) = pick(input) {
                    return picked;
                }
            }
        })
        .await
    }

    /// The inputs that come within a time.
    pub(super) async fn inputs_within(&mut self, time: Duration) -> Vec<SwarmInput> {
        let mut inputs = Vec::new();
        let _ = timeout(time, async {
            while let Some(input) = self.inputs.recv().await {
                inputs.push(input);
            }
        })
        .await;
        inputs
    }

    pub(super) async fn dial(&self, peer: Option<&PeerId>, addresses: &[String]) {
        self.tell(SwarmEffect::Dial { peer: peer.cloned(), addresses: addresses.to_vec() }).await;
    }

    pub(super) async fn connected(&mut self) -> PeerId {
        self.wait("a session", |input| match input {
            SwarmInput::Connected { peer, .. } => Some(peer),
            _ => None,
        })
        .await
    }

    pub(super) async fn disconnected(&mut self) -> String {
        self.wait("the end of a session", |input| match input {
            SwarmInput::Disconnected { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }

    pub(super) async fn dial_failed(&mut self) -> String {
        self.wait("a failed dial", |input| match input {
            SwarmInput::DialFailed { reason, .. } => Some(reason),
            SwarmInput::Connected { .. } => panic!("connected"),
            _ => None,
        })
        .await
    }

    pub(super) async fn say(&self, peer: &PeerId, message: Control) {
        self.tell(SwarmEffect::Control { peer: peer.clone(), message }).await;
    }

    pub(super) async fn control(&mut self) -> Control {
        self.wait("a message", |input| match input {
            SwarmInput::Control { message, .. } => Some(message),
            _ => None,
        })
        .await
    }

    pub(super) async fn greet(&self, peer: &PeerId) {
        let repository = Digest::of(b"a repository").as_bytes().to_vec();
        self.say(peer, Control::Hello(Hello { repository, ..Hello::default() })).await;
    }
}

/// Brings up a session between two nodes, greetings included.
pub(super) async fn introduce(dialler: &mut Node, listener: &mut Node) {
    dialler.dial(Some(&listener.peer), &listener.addresses).await;
    assert_eq!(dialler.connected().await, listener.peer);
    assert_eq!(listener.connected().await, dialler.peer);
    dialler.greet(&listener.peer).await;
    listener.greet(&dialler.peer).await;
    assert!(matches!(dialler.control().await, Control::Hello(_)));
    assert!(matches!(listener.control().await, Control::Hello(_)));
}

/// A libp2p node that opens sessions and leaves the rest to the test.
pub(super) fn raw_swarm(identity: &Identity) -> Swarm<streams::Behaviour> {
    let keypair = &identity.keypair;
    let transport = transport::build(keypair, &Arc::default()).expect("the transports can be set up");
    let peer = keypair.public().to_peer_id();
    Swarm::new(transport, streams::Behaviour::new(peer), peer, swarm::Config::with_tokio_executor())
}
