//! A scriptable peer on the real network stack: the swarm shell itself, without a node's engine.
//!
//! By default it is honest and simple: it greets, serves the files and artifacts of the sets on its
//! shelf, and keeps a log of what it is told. A [`Behaviour`] overrides one thing at a time, which is
//! how each attack is written. It can do anything but forge signatures; what it may sign with stolen
//! keys is made by [`crate::forge`].
//!
//! The same peer is the auditor of the nodes under test: it asks them for everything they would serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use updraft::engine::effect::{GossipVerdict, SwarmEffect};
use updraft::engine::input::{BlockOutcome, SwarmInput};
use updraft::swarm::{self, BlockIo, Identity, SwarmConfig, SwarmHandle, Written};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId, ObjectKind};

use crate::forge::Set;

/// The longest that one exchange with a node may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at the log.
const PAUSE: Duration = Duration::from_millis(5);
/// Entries of one kind that the log keeps: an attack may provoke any number.
const LOGGED: usize = 4_096;

/// How a question is answered.
#[derive(Debug)]
pub enum Answer {
    /// At once.
    Now(MetaResponse),
    /// After a while.
    Later(Duration, MetaResponse),
    /// Not at all.
    Never,
}

/// How a block is served.
#[derive(Debug, Clone, Copy)]
pub enum Serve {
    /// As it is.
    Honest,
    /// With every byte flipped.
    Rotten,
    /// With bytes of another artifact on the shelf, as far as they go.
    Of(Digest),
    /// After a while, as it is.
    Later(Duration),
    /// After a while, with every byte flipped.
    RottenLater(Duration),
    /// Not at all.
    Never,
    /// "Busy": not now, or not here where the time is zero.
    Busy(u32),
}

/// What a peer does. Everything has an honest default.
pub trait Behaviour: Send + 'static {
    /// What it says first; `None` says nothing.
    fn hello(&mut self, honest: Hello) -> Option<Hello> {
        Some(honest)
    }

    /// What it says it holds: to a neighbour that greeted it, and to one that spoke of an artifact.
    fn announce(&mut self, honest: Vec<Control>) -> Vec<Control> {
        honest
    }

    /// How it answers a question.
    fn meta(&mut self, _file: &MetaFile, honest: MetaResponse) -> Answer {
        Answer::Now(honest)
    }

    /// How it serves a block.
    fn block(&mut self, _object: &ObjectId, _block: BlockRange) -> Serve {
        Serve::Honest
    }

    /// Whether it forwards a head, and what else it does about it.
    fn gossip(&mut self, _payload: &[u8]) -> (GossipVerdict, Vec<SwarmEffect>) {
        (GossipVerdict::Accept, Vec::new())
    }

    /// What it does about any other message, beside what an honest peer does.
    fn control(&mut self, _peer: &PeerId, _message: &Control) -> Vec<SwarmEffect> {
        Vec::new()
    }
}

/// A peer that does nothing wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Honest;

impl Behaviour for Honest {}

/// What a peer has to offer.
#[derive(Debug)]
struct Shelf {
    repository: Digest,
    root_version: u64,
    timestamp_version: u64,
    head: Option<Vec<u8>>,
    files: BTreeMap<MetaFile, Vec<u8>>,
    artifacts: BTreeMap<Digest, (Arc<Vec<u8>>, Arc<Manifest>)>,
    /// Handles are the positions in this list.
    handles: Vec<Digest>,
    seed: bool,
}

impl Shelf {
    fn new(repository: Digest) -> Self {
        Self {
            repository,
            root_version: 0,
            timestamp_version: 0,
            head: None,
            files: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            handles: Vec::new(),
            seed: false,
        }
    }

    fn put(&mut self, set: &Set) {
        self.repository = set.repository;
        self.root_version = set.root_version;
        self.timestamp_version = set.timestamp_version;
        self.head = (!set.timestamp.is_empty()).then(|| set.head());
        self.files.extend(set.files.iter().map(|(file, bytes)| (file.clone(), bytes.clone())));
        for work in set.works.values() {
            self.add_artifact(work.bytes.clone(), work.manifest.clone());
        }
    }

    fn add_artifact(&mut self, bytes: Arc<Vec<u8>>, manifest: Arc<Manifest>) {
        let digest = *manifest.artifact();
        if !self.handles.contains(&digest) {
            self.handles.push(digest);
        }
        self.artifacts.insert(digest, (bytes, manifest));
    }

    fn hello(&self) -> Hello {
        Hello {
            repository: self.repository.as_bytes().to_vec(),
            agent: "updraft/0.1.0".to_owned(),
            root_version: self.root_version,
            timestamp_version: self.timestamp_version,
            seed: self.seed,
            ..Hello::default()
        }
    }

    fn announcements(&self) -> Vec<Control> {
        self.handles
            .iter()
            .zip(0..)
            .filter_map(|(digest, handle)| {
                let (_, manifest) = self.artifacts.get(digest)?;
                let have = Bitmap::full(manifest.piece_count()).as_bytes().to_vec();
                Some(Control::Announce { handle, object: object(digest), wants: false, have })
            })
            .collect()
    }

    fn answer(&self, file: &MetaFile) -> MetaResponse {
        let found = match file {
            MetaFile::Head => self.head.clone(),
            other => self.files.get(other).cloned(),
        };
        found.map_or(MetaResponse::NotFound, MetaResponse::File)
    }
}

/// The object that an artifact's digest names.
pub fn object(digest: &Digest) -> ObjectId {
    ObjectId { kind: ObjectKind::Artifact, digest: *digest }
}

/// What a peer saw.
#[derive(Debug, Default)]
pub struct Log {
    /// Peers with a session that said hello.
    pub greeted: BTreeMap<PeerId, Hello>,
    /// Whoever ever greeted it, even if it was thrown out at once.
    pub met: BTreeSet<PeerId>,
    /// Who left, and why.
    pub left: Vec<(PeerId, String)>,
    /// Heads that came by gossip, in order: their digests, and from whom.
    pub gossip: Vec<(Digest, PeerId)>,
    /// When each head came first.
    pub heard: BTreeMap<Digest, Instant>,
    /// Questions, in order.
    pub asked: Vec<(PeerId, MetaFile)>,
    /// Blocks that were asked for.
    pub requested: u64,
    /// Blocks that were sent whole.
    pub served: u64,
    /// What neighbours announced: their handle, and what they hold.
    pub announced: BTreeMap<(PeerId, Digest), (u32, Vec<u8>)>,
    /// Failed dials.
    pub dial_failures: Vec<String>,
    answers: BTreeMap<u64, Result<MetaResponse, String>>,
    blocks: BTreeMap<(Digest, BlockRange), Vec<u8>>,
    refused: BTreeSet<BlockRange>,
    connected: BTreeSet<PeerId>,
}

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() < LOGGED {
        list.push(item);
    }
}

#[derive(Debug)]
struct Shared {
    shelf: Mutex<Shelf>,
    log: Mutex<Log>,
    /// Blocks that are to be read as something else.
    instead: Mutex<BTreeMap<(Digest, BlockRange), Serve>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlockIo for Shared {
    fn read(&self, object: &ObjectId, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), String> {
        let instead = lock(&self.instead).remove(&(object.digest, block));
        let stock = lock(&self.shelf);
        let source = match instead {
            Some(Serve::Of(other)) => other,
            _ => object.digest,
        };
        let length = usize::try_from(block.length).map_err(|error| error.to_string())?;
        let start = usize::try_from(block.offset).map_err(|error| error.to_string())?;
        let bytes = stock.artifacts.get(&source).map_or(&[][..], |(bytes, _)| bytes.as_slice());
        let flip = if matches!(instead, Some(Serve::Rotten)) { 0xff } else { 0 };
        buffer.extend((start..start + length).map(|at| bytes.get(at).copied().unwrap_or(0x5a) ^ flip));
        Ok(())
    }

    fn write(&self, _: &PeerId, object: &ObjectId, block: BlockRange, bytes: &[u8]) -> Written {
        lock(&self.log).blocks.insert((object.digest, block), bytes.to_vec());
        BlockOutcome::Stored.into()
    }
}

/// A running scripted peer.
#[derive(Debug)]
pub struct Peer {
    /// Its identity.
    pub id: PeerId,
    /// Where it listens, with its peer id.
    pub address: String,
    effects: mpsc::Sender<SwarmEffect>,
    shared: Arc<Shared>,
    next_request: AtomicU64,
    task: JoinHandle<()>,
    handle: Option<SwarmHandle>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(handle) = self.handle.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            // Its sessions end as those of any peer that goes away.
            tokio::spawn(handle.shutdown());
        }
    }
}

impl Peer {
    /// Starts a peer that has `set` on its shelf.
    ///
    /// # Panics
    /// Where loopback cannot be had.
    pub async fn start(set: &Set, behaviour: impl Behaviour) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("scripted peer {number} of {}", std::process::id());
        Self::start_as(Identity::from_ed25519_seed(*Digest::of(name.as_bytes()).as_bytes()), set, behaviour).await
    }

    /// The same with an identity of one's choice.
    ///
    /// # Panics
    /// Where loopback cannot be had.
    pub async fn start_as(identity: Identity, set: &Set, behaviour: impl Behaviour) -> Self {
        let shelf = Mutex::new(Shelf::new(set.repository));
        let shared = Arc::new(Shared { shelf, log: Mutex::default(), instead: Mutex::default() });
        lock(&shared.shelf).put(set);
        let id = identity.peer_id();
        let config = SwarmConfig {
            identity,
            repository: set.repository,
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            external: Vec::new(),
            mdns: false,
            kad: swarm::Kad::Off,
            favoured: Vec::new(),
            agent: "updraft/0.1.0".to_owned(),
            max_peers: 256,
        };
        let (sender, mut inputs) = mpsc::channel(1_024);
        let handle = swarm::spawn(&config, shared.clone(), sender).expect("loopback is available");
        let effects = handle.effects();
        let address = loop {
            match inputs.recv().await {
                Some(SwarmInput::Listening { address }) => break format!("{address}/p2p/{id}"),
                Some(_) => {}
                None => panic!("the network stopped"),
            }
        };
        let actor = Actor { effects: effects.clone(), shared: shared.clone(), behaviour: Box::new(behaviour) };
        let task = tokio::spawn(actor.run(inputs));
        Self { id, address, effects, shared, next_request: AtomicU64::new(1), task, handle: Some(handle) }
    }

    /// Says that it owns the repository, from the next hello on.
    pub fn claim_to_be_seed(&self) {
        lock(&self.shared.shelf).seed = true;
    }

    /// What it saw so far.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.shared.log)
    }

    /// Has something done by the network shell.
    pub async fn tell(&self, effect: SwarmEffect) {
        // A network that has stopped takes no effects, and nobody then waits for one.
        let _ = self.effects.send(effect).await;
    }

    /// Sends a message to a neighbour.
    pub async fn say(&self, peer: &PeerId, message: Control) {
        self.tell(SwarmEffect::Control { peer: peer.clone(), message }).await;
    }

    /// Gossips any bytes.
    pub async fn gossip(&self, payload: Vec<u8>) {
        self.tell(SwarmEffect::PublishHead { payload }).await;
    }

    /// Puts a newer set on the shelf; tells nobody.
    pub fn shelve(&self, set: &Set) {
        lock(&self.shared.shelf).put(set);
    }

    /// Changes the file that it answers with, whatever is right.
    pub fn shelve_file(&self, file: MetaFile, bytes: Vec<u8>) {
        let mut stock = lock(&self.shared.shelf);
        if file == MetaFile::Head {
            stock.head = Some(bytes);
        } else {
            stock.files.insert(file, bytes);
        }
    }

    /// Publishes a newer set as a seed would: on the shelf, by gossip, and to every neighbour.
    pub async fn publish(&self, set: &Set) {
        self.shelve(set);
        self.gossip(set.head()).await;
        let (root_version, timestamp_version) = (set.root_version, set.timestamp_version);
        let message = Control::Head { root_version, timestamp_version, timestamp_sha256: None };
        let (neighbours, announcements) = {
            let neighbours: Vec<PeerId> = self.log().greeted.keys().cloned().collect();
            (neighbours, lock(&self.shared.shelf).announcements())
        };
        for peer in neighbours {
            self.say(&peer, message.clone()).await;
            for announcement in &announcements {
                self.say(&peer, announcement.clone()).await;
            }
        }
    }

    /// Connects to a node and waits for its hello.
    ///
    /// # Panics
    /// Where it does not come.
    pub async fn connect(&self, address: &str) -> PeerId {
        let peer = updraft::engine::peers::peer_of(address).expect("an address with a peer id");
        self.tell(SwarmEffect::Dial { peer: Some(peer.clone()), addresses: vec![address.to_owned()] }).await;
        let what = format!("a hello of {address}");
        self.wait(&what, |log| log.met.contains(&peer).then_some(())).await;
        peer
    }

    /// Whether there is a session with a node that greeted.
    pub fn is_connected_to(&self, peer: &PeerId) -> bool {
        self.log().greeted.contains_key(peer)
    }

    /// Waits until `look` finds something in the log.
    ///
    /// # Panics
    /// Where it does not find it in time.
    pub async fn wait<T>(&self, what: &str, look: impl Fn(&Log) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look(&self.log()) {
                return found;
            }
            let failures = self.log().dial_failures.clone();
            assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; failed dials: {failures:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a node for a file.
    pub async fn ask(&self, peer: &PeerId, file: MetaFile) -> Result<MetaResponse, String> {
        let repository = lock(&self.shared.shelf).repository;
        self.ask_about(peer, repository, file).await
    }

    /// Asks a node for a file of any repository.
    pub async fn ask_about(&self, peer: &PeerId, repository: Digest, file: MetaFile) -> Result<MetaResponse, String> {
        let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let what = format!("an answer about {file:?}");
        let request = MetaRequest { repository, file };
        self.tell(SwarmEffect::MetaAsk { request_id, peer: peer.clone(), request }).await;
        self.wait(&what, |log| log.answers.get(&request_id).cloned()).await
    }

    /// What a node says it holds of an artifact, and the bytes of every piece that it claims. `None`
    /// where it does not speak of the artifact within a moment.
    pub async fn take(&self, peer: &PeerId, manifest: &Manifest) -> Option<BTreeMap<u32, Vec<u8>>> {
        let digest = *manifest.artifact();
        // A number that no announcement of the shelf uses.
        let handle = u32::from_be_bytes([0, 0, 0x0f, digest.as_bytes()[0]]);
        let have = Bitmap::empty(manifest.piece_count()).as_bytes().to_vec();
        self.say(peer, Control::Announce { handle, object: object(&digest), wants: true, have }).await;
        // Messages keep their order: a node that answers the question has seen the announcement.
        let _ = self.ask(peer, MetaFile::Head).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let announced = self.log().announced.get(&(peer.clone(), digest)).cloned();
        let (_, bits) = announced?;
        let bits = Bitmap::from_bytes(&bits, manifest.piece_count()).expect("a bitmap that fits the artifact");
        let mut pieces = BTreeMap::new();
        for piece in bits.iter() {
            let index = manifest.index(piece).expect("a piece of the artifact");
            let bytes = self.take_piece(peer, handle, manifest, index).await;
            pieces.insert(piece, bytes);
        }
        Some(pieces)
    }

    async fn take_piece(
        &self,
        peer: &PeerId,
        handle: u32,
        manifest: &Manifest,
        index: updraft_protocol::manifest::PieceIndex,
    ) -> Vec<u8> {
        let block = BlockRange { offset: manifest.offset_of(index), length: manifest.length_of(index) };
        let digest = *manifest.artifact();
        self.tell(SwarmEffect::Request { peer: peer.clone(), handle, object: object(&digest), block }).await;
        self.wait("a piece that was announced", |log| {
            assert!(!log.refused.contains(&block), "a piece that was announced is not served");
            log.blocks.get(&(digest, block)).cloned()
        })
        .await
    }

    /// Goes away as a peer does that is switched off.
    pub async fn stop(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
    }
}

struct Actor {
    effects: mpsc::Sender<SwarmEffect>,
    shared: Arc<Shared>,
    behaviour: Box<dyn Behaviour>,
}

impl Actor {
    async fn run(mut self, mut inputs: mpsc::Receiver<SwarmInput>) {
        while let Some(input) = inputs.recv().await {
            for effect in self.react(input) {
                if self.effects.send(effect).await.is_err() {
                    return;
                }
            }
        }
    }

    fn react(&mut self, input: SwarmInput) -> Vec<SwarmEffect> {
        match input {
            SwarmInput::Connected { peer, .. } => {
                lock(&self.shared.log).connected.insert(peer.clone());
                let hello = lock(&self.shared.shelf).hello();
                let said = self.behaviour.hello(hello);
                said.map(|hello| SwarmEffect::Control { peer, message: Control::Hello(hello) }).into_iter().collect()
            }
            SwarmInput::Disconnected { peer, reason } => {
                let mut log = lock(&self.shared.log);
                log.connected.remove(&peer);
                log.greeted.remove(&peer);
                log.announced.retain(|(from, _), _| *from != peer);
                push(&mut log.left, (peer, reason));
                Vec::new()
            }
            SwarmInput::DialFailed { reason, .. } => {
                push(&mut lock(&self.shared.log).dial_failures, reason);
                Vec::new()
            }
            SwarmInput::Control { peer, message } => self.control(&peer, message),
            SwarmInput::Gossip { message, peer, payload } => {
                {
                    let mut log = lock(&self.shared.log);
                    let digest = Digest::of(&payload);
                    log.heard.entry(digest).or_insert_with(Instant::now);
                    push(&mut log.gossip, (digest, peer.clone()));
                }
                let (verdict, mut effects) = self.behaviour.gossip(&payload);
                effects.push(SwarmEffect::GossipVerdict { message, peer, verdict });
                effects
            }
            SwarmInput::MetaAsked { channel, peer, request } => {
                push(&mut lock(&self.shared.log).asked, (peer, request.file.clone()));
                let honest = lock(&self.shared.shelf).answer(&request.file);
                match self.behaviour.meta(&request.file, honest) {
                    Answer::Now(response) => vec![SwarmEffect::MetaAnswer { channel, response }],
                    Answer::Later(pause, response) => {
                        self.later(pause, SwarmEffect::MetaAnswer { channel, response });
                        Vec::new()
                    }
                    Answer::Never => Vec::new(),
                }
            }
            SwarmInput::BlockSent { .. } => {
                lock(&self.shared.log).served += 1;
                Vec::new()
            }
            SwarmInput::MetaAnswered { request_id, result, .. } => {
                lock(&self.shared.log).answers.insert(request_id, result);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn later(&self, pause: Duration, effect: SwarmEffect) {
        let effects = self.effects.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = effects.send(effect).await;
        });
    }

    fn control(&mut self, peer: &PeerId, message: Control) -> Vec<SwarmEffect> {
        let mut effects = self.behaviour.control(peer, &message);
        let say = |message| SwarmEffect::Control { peer: peer.clone(), message };
        match message {
            Control::Hello(hello) => {
                let mut log = lock(&self.shared.log);
                log.met.insert(peer.clone());
                log.greeted.insert(peer.clone(), hello);
                drop(log);
                let announcements = lock(&self.shared.shelf).announcements();
                effects.extend(self.behaviour.announce(announcements).into_iter().map(say));
            }
            Control::Announce { handle, object, wants, have } => {
                lock(&self.shared.log).announced.insert((peer.clone(), object.digest), (handle, have));
                let mut announcements = lock(&self.shared.shelf).announcements();
                announcements.retain(|own| matches!(own, Control::Announce { object: own, .. } if *own == object));
                // Whoever speaks of an artifact for the first time has forgotten what was said before.
                if wants && !announcements.is_empty() {
                    effects.extend(self.behaviour.announce(announcements).into_iter().map(say));
                }
            }
            Control::Busy { block, .. } => _ = lock(&self.shared.log).refused.insert(block),
            // A request names the handle of its sender, which it bound by announcing the object.
            Control::Request { handle, block } => effects.extend(self.requested(peer, handle, block)),
            _ => {}
        }
        effects
    }

    fn requested(&mut self, peer: &PeerId, handle: u32, block: BlockRange) -> Option<SwarmEffect> {
        let object = {
            let mut log = lock(&self.shared.log);
            log.requested += 1;
            let found = log.announced.iter().find(|((from, _), (theirs, _))| from == peer && *theirs == handle);
            found.map(|((_, digest), _)| object(digest))?
        };
        let send = SwarmEffect::SendBlock { peer: peer.clone(), handle, object, block };
        match self.behaviour.block(&object, block) {
            Serve::Honest => Some(send),
            serve @ (Serve::Rotten | Serve::Of(_)) => {
                lock(&self.shared.instead).insert((object.digest, block), serve);
                Some(send)
            }
            Serve::Later(pause) => {
                self.later(pause, send);
                None
            }
            Serve::RottenLater(pause) => {
                lock(&self.shared.instead).insert((object.digest, block), Serve::Rotten);
                self.later(pause, send);
                None
            }
            Serve::Never => None,
            Serve::Busy(retry_after_ms) => {
                let position = lock(&self.shared.shelf).handles.iter().position(|known| *known == object.digest);
                let handle = u32::try_from(position.unwrap_or(0)).unwrap_or(0);
                let message = Control::Busy { handle, block, retry_after_ms, ask: Vec::new() };
                Some(SwarmEffect::Control { peer: peer.clone(), message })
            }
        }
    }
}
