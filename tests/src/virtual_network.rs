//! Many engines in virtual time.
//!
//! Every node is the engine that a real node runs; the network, the store and the installer around
//! it are models: links with an upload rate and a latency, stores that remember which blocks came.
//! Everything follows from one seed, so a run can be replayed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use updraft::engine::effect::{Effect, Event, EventKind, GossipVerdict, InstallEffect, Save, SwarmEffect};
use updraft::engine::input::{BlockOutcome, Input, Now, SwarmInput};
use updraft::engine::install::{Recovered, SubscriptionSpec};
use updraft::engine::memory::Memory;
use updraft::engine::retention::RetentionEffect;
use updraft::engine::watch::Signing;
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft::publisher::draft::Draft;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::names::{Channel, Platform};
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{BlockRange, ObjectId};
use updraft_protocol::tuf::RepositoryId;

use crate::piece_store::{Kept, PieceStore};
use crate::repository::{TestKeys, TestRepository};

/// The wall clock at virtual time zero.
const START_UNIX: i64 = 1_800_000_000;
/// Milliseconds between two ticks of a node.
const TICK_MS: u64 = 100;

/// Rates and delays of every link.
#[derive(Debug, Clone, Copy)]
pub struct LinkModel {
    /// One-way delay.
    pub latency_ms: u64,
    /// Upload of the seed.
    pub seed_upload_bytes_per_second: u64,
    /// Upload of every peer.
    pub peer_upload_bytes_per_second: u64,
}

/// A store that knows which bytes are there, not what they are.
#[derive(Debug)]
struct StoreModel {
    manifest: Arc<Manifest>,
    have: Bitmap,
    pieces: PieceStore<PeerId>,
}

/// One node and what surrounds it.
#[derive(Debug)]
struct Node {
    id: PeerId,
    engine: Engine,
    address: String,
    sessions: BTreeSet<PeerId>,
    files: BTreeMap<MetaFile, Vec<u8>>,
    seen_gossip: BTreeSet<Digest>,
    artifacts: BTreeMap<Digest, StoreModel>,
    expected: BTreeSet<(PeerId, u32, BlockRange)>,
    dropped: BTreeSet<(PeerId, u32, BlockRange)>,
    upload_free_us: u64,
    upload_bytes_per_second: u64,
    bytes_sent: u64,
    online: bool,
    /// Everything sends rotten bytes from here.
    rotten: bool,
    events: Vec<(u64, Event)>,
}

#[derive(Debug)]
enum Arrival {
    Tick,
    Input(Box<Input>),
    Block { from: PeerId, handle: u32, object: ObjectId, block: BlockRange, rotten: bool },
}

/// Engines, links and the queue of what happens next.
#[derive(Debug)]
pub struct VirtualNetwork {
    nodes: Vec<Node>,
    by_id: BTreeMap<PeerId, usize>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    arrivals: BTreeMap<u64, (usize, Arrival)>,
    next_arrival: u64,
    next_channel: u64,
    channels: BTreeMap<u64, (usize, u64, usize)>,
    links: LinkModel,
    rng: SmallRng,
    now_us: u64,
}

/// What a seed has on disk at one time.
#[derive(Debug, Clone)]
pub struct Backup {
    repository: RepositoryId,
    metadata: BTreeMap<String, Vec<u8>>,
    targets: BTreeMap<Digest, Vec<u8>>,
    files: BTreeMap<MetaFile, Vec<u8>>,
}

impl Backup {
    /// What the owner of `repository` has on disk now.
    pub fn of(repository: &TestRepository) -> Self {
        Self {
            repository: repository.id,
            metadata: disk(repository),
            targets: repository.files.values().map(|bytes| (Digest::of(bytes), bytes.clone())).collect(),
            files: repository.files.clone(),
        }
    }
}

fn peer_id(index: usize) -> PeerId {
    let digest = Digest::of(format!("node {index}").as_bytes());
    PeerId::from_bytes(digest.as_bytes()).expect("32 bytes")
}

fn address(index: usize) -> String {
    format!("/ip4/192.0.2.1/tcp/{index}/p2p/{}", peer_id(index))
}

impl VirtualNetwork {
    /// A network without nodes.
    pub fn new(links: LinkModel, random_seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            queue: BinaryHeap::new(),
            arrivals: BTreeMap::new(),
            next_arrival: 0,
            next_channel: 0,
            channels: BTreeMap::new(),
            links,
            rng: SmallRng::seed_from_u64(random_seed),
            now_us: 0,
        }
    }

    /// The time, as engines are told it.
    pub fn now(&self) -> Now {
        Now {
            wall: UtcTime::from_unix(START_UNIX + i64::try_from(self.now_us / 1_000_000).expect("not that long")),
            mono_ms: self.now_us / 1_000,
        }
    }

    /// The wall clock now.
    pub fn wall(&self) -> UtcTime {
        self.now().wall
    }

    /// Virtual milliseconds since the start.
    pub fn elapsed_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Adds a node that joins by the address of node 0 (which is the seed). Returns its number.
    ///
    /// # Panics
    /// Where the engine refuses its own repository.
    pub fn add(&mut self, repository: &TestRepository, subscribes: bool) -> usize {
        let index = self.nodes.len();
        let is_seed = index == 0;
        let id = peer_id(index);
        let files = if is_seed { repository.files.clone() } else { BTreeMap::new() };
        let on_disk: BTreeMap<String, Vec<u8>> = if is_seed { disk(repository) } else { BTreeMap::new() };
        let by_digest: BTreeMap<Digest, Vec<u8>> = files.values().map(|b| (Digest::of(b), b.clone())).collect();
        let spec = SubscriptionSpec {
            product: "app".parse().expect("a name"),
            channel: Channel::stable(),
            directory: Some(format!("/virtual/{index}")),
        };
        let config = EngineConfig {
            me: id.clone(),
            repository: repository.id,
            ticket: (!is_seed).then(|| repository.ticket(vec![address(0)])),
            is_seed,
            platform: Platform::any(),
            agent: "virtual".to_owned(),
            random_seed: self.rng.random(),
            adopt_wait_ms: 10_000,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        let found = Restored {
            metadata: &MetadataReader(&|name| on_disk.get(name).cloned()),
            target: &TargetReader(&|sha256| by_digest.get(sha256).cloned()),
            artifacts: Vec::new(),
            subscriptions: if subscribes { vec![(spec, Recovered::default())] } else { Vec::new() },
            peers: Vec::new(),
            memory: Memory::default(),
            bans: Vec::new(),
        };
        let now = self.now();
        let (engine, effects) = Engine::restore(config, found, now).expect("a good repository");
        let rate =
            if is_seed { self.links.seed_upload_bytes_per_second } else { self.links.peer_upload_bytes_per_second };
        self.nodes.push(Node {
            id: id.clone(),
            engine,
            address: address(index),
            sessions: BTreeSet::new(),
            files,
            seen_gossip: BTreeSet::new(),
            artifacts: BTreeMap::new(),
            expected: BTreeSet::new(),
            dropped: BTreeSet::new(),
            upload_free_us: 0,
            upload_bytes_per_second: rate,
            bytes_sent: 0,
            online: true,
            rotten: false,
            events: Vec::new(),
        });
        self.by_id.insert(id, index);
        let jitter_us = self.rng.random_range(0..TICK_MS * 1_000);
        self.schedule(jitter_us, index, Arrival::Tick);
        self.carry_out(index, effects);
        index
    }

    /// The seed's engine, started again on its own from what `saved` kept and the repository's files:
    /// not part of the network.
    ///
    /// # Panics
    /// Where the engine refuses its own repository.
    pub fn restart_alone(
        &self,
        repository: &TestRepository,
        saved: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> (Engine, Vec<Effect>) {
        let on_disk = disk(repository);
        let by_digest: BTreeMap<Digest, Vec<u8>> =
            repository.files.values().map(|bytes| (Digest::of(bytes), bytes.clone())).collect();
        let config = EngineConfig {
            me: self.nodes[0].id.clone(),
            repository: repository.id,
            ticket: None,
            is_seed: true,
            platform: Platform::any(),
            agent: "virtual".to_owned(),
            random_seed: 0,
            adopt_wait_ms: 10_000,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        let found = Restored {
            metadata: &MetadataReader(&|name| saved(name).or_else(|| on_disk.get(name).cloned())),
            target: &TargetReader(&|sha256| by_digest.get(sha256).cloned()),
            artifacts: Vec::new(),
            subscriptions: Vec::new(),
            peers: Vec::new(),
            memory: Memory::default(),
            bans: Vec::new(),
        };
        Engine::restore(config, found, self.now()).expect("a good repository")
    }

    /// The seed's machine is replaced by one on which an old backup was restored; it still knows where the
    /// other nodes were.
    ///
    /// # Panics
    /// Where the engine refuses the backup.
    pub fn restore_seed(&mut self, backup: &Backup) {
        self.disconnect(0);
        let config = EngineConfig {
            me: self.nodes[0].id.clone(),
            repository: backup.repository,
            ticket: None,
            is_seed: true,
            platform: Platform::any(),
            agent: "virtual".to_owned(),
            random_seed: self.rng.random(),
            adopt_wait_ms: 10_000,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        let known = self.nodes.iter().skip(1).map(|node| (node.id.clone(), vec![node.address.clone()]));
        let found = Restored {
            metadata: &MetadataReader(&|name| backup.metadata.get(name).cloned()),
            target: &TargetReader(&|sha256| backup.targets.get(sha256).cloned()),
            artifacts: Vec::new(),
            subscriptions: Vec::new(),
            peers: known.collect(),
            memory: Memory::default(),
            bans: Vec::new(),
        };
        let (engine, effects) = Engine::restore(config, found, self.now()).expect("a good backup");
        self.nodes[0].engine = engine;
        self.nodes[0].files = backup.files.clone();
        self.nodes[0].online = true;
        self.carry_out(0, effects);
    }

    /// The seed signs the set that it has once more, as it does every few hours.
    ///
    /// # Panics
    /// Where signing in memory fails, which would be a bug.
    pub fn sign_again(&mut self) {
        let view = self.nodes[0].engine.catalog().expect("a seed has a set").clone();
        let mut draft = Draft::of(&view, self.wall());
        draft.renew(&|_| true);
        let signed = draft.sign(&TestKeys::default()).expect("keys are in memory");
        self.nodes[0].files.extend(signed.files.iter().cloned());
        self.input(0, Input::Published { head: signed.head, files: signed.files });
    }

    /// Whether the seed may sign now.
    pub fn may_sign(&self) -> bool {
        self.nodes[0].engine.signing(self.now()) == Signing::Ready
    }

    /// The seed publishes `bytes` as `version`.
    pub fn publish(&mut self, repository: &mut TestRepository, version: &str, bytes: &[u8]) {
        let manifest = repository.publish(version, bytes, self.wall());
        let count = manifest.piece_count();
        let seed = &mut self.nodes[0];
        seed.files = repository.files.clone();
        seed.artifacts.insert(
            *manifest.artifact(),
            StoreModel { manifest: manifest.clone(), have: Bitmap::full(count), pieces: PieceStore::default() },
        );
        seed.engine.add_artifact(&manifest, Bitmap::full(count));
        self.tell(0, repository);
    }

    /// A node learns the newest set of a repository, as if it had signed it.
    pub fn tell(&mut self, index: usize, repository: &TestRepository) {
        self.nodes[index].files.extend(repository.files.clone());
        let (head, files) = (repository.signed.head.clone(), repository.signed.files.clone());
        self.input(index, Input::Published { head, files });
    }

    /// Cuts a node off: its sessions end, nothing reaches it.
    pub fn disconnect(&mut self, index: usize) {
        self.nodes[index].online = false;
        for peer in std::mem::take(&mut self.nodes[index].sessions) {
            let other = self.by_id[&peer];
            let me = self.nodes[index].id.clone();
            self.end_session(other, &me);
            self.input(index, gone(peer));
        }
    }

    /// Undoes [`VirtualNetwork::disconnect`].
    pub fn reconnect(&mut self, index: usize) {
        self.nodes[index].online = true;
    }

    /// From now on every block that a node sends is wrong.
    pub fn rot(&mut self, index: usize) {
        self.nodes[index].rotten = true;
    }

    /// Whether a node has installed `version`.
    pub fn has_installed(&self, index: usize, version: &str) -> bool {
        self.nodes[index]
            .engine
            .subscriptions()
            .iter()
            .any(|subscription| subscription.installed.as_ref().is_some_and(|i| i.version.to_string() == version))
    }

    /// Version of a node's whole head.
    pub fn head_version(&self, index: usize) -> u64 {
        self.nodes[index].engine.catalog().map_or(0, |view| view.timestamp_version())
    }

    /// Block bytes that a node sent.
    pub fn bytes_sent(&self, index: usize) -> u64 {
        self.nodes[index].bytes_sent
    }

    /// A node's engine.
    pub fn engine(&self, index: usize) -> &Engine {
        &self.nodes[index].engine
    }

    /// What a node told, with virtual milliseconds.
    pub fn events(&self, index: usize) -> &[(u64, Event)] {
        &self.nodes[index].events
    }

    /// Whether a node told of an event of this kind.
    pub fn told(&self, index: usize, kind: EventKind) -> bool {
        self.nodes[index].events.iter().any(|(_, event)| event.kind == kind)
    }

    /// Runs until `done` holds, at most `limit_ms` longer. Returns whether it did.
    pub fn run_until(&mut self, limit_ms: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end_us = self.now_us + limit_ms * 1_000;
        let mut check_us = self.now_us;
        while let Some(Reverse((at_us, number))) = self.queue.pop() {
            if at_us > end_us {
                self.queue.push(Reverse((at_us, number)));
                break;
            }
            self.now_us = at_us;
            let Some((index, arrival)) = self.arrivals.remove(&number) else { continue };
            self.arrive(index, arrival);
            if self.now_us >= check_us {
                check_us = self.now_us + 10_000;
                if done(self) {
                    return true;
                }
            }
        }
        done(self)
    }

    fn schedule(&mut self, at_us: u64, index: usize, arrival: Arrival) {
        self.next_arrival += 1;
        self.queue.push(Reverse((at_us, self.next_arrival)));
        self.arrivals.insert(self.next_arrival, (index, arrival));
    }

    fn later(&mut self, index: usize, input: SwarmInput) {
        let at_us = self.now_us + self.links.latency_ms * 1_000;
        self.schedule(at_us, index, Arrival::Input(Box::new(Input::Swarm(input))));
    }

    fn soon(&mut self, index: usize, input: Input) {
        self.schedule(self.now_us, index, Arrival::Input(Box::new(input)));
    }

    fn input(&mut self, index: usize, input: Input) {
        let now = self.now();
        let effects = self.nodes[index].engine.handle(input, now);
        self.carry_out(index, effects);
    }

    fn arrive(&mut self, index: usize, arrival: Arrival) {
        match arrival {
            Arrival::Tick => {
                self.schedule(self.now_us + TICK_MS * 1_000, index, Arrival::Tick);
                self.input(index, Input::Tick);
            }
            Arrival::Input(input) => self.input(index, *input),
            Arrival::Block { from, handle, object, block, rotten } => {
                self.block_arrives(index, from, handle, object, block, rotten);
            }
        }
    }

    fn block_arrives(
        &mut self,
        index: usize,
        from: PeerId,
        handle: u32,
        object: ObjectId,
        block: BlockRange,
        rotten: bool,
    ) {
        let node = &mut self.nodes[index];
        if !node.online || !node.expected.remove(&(from.clone(), handle, block)) {
            return;
        }
        let Some(store) = node.artifacts.get_mut(&object.digest) else { return };
        let Kept { outcome, liars, .. } = store.pieces.write(&store.manifest, &mut store.have, block, &from, !rotten);
        let piece = match outcome {
            BlockOutcome::PieceVerified(piece) | BlockOutcome::PieceRejected(piece) => Some(piece),
            _ => None,
        };
        self.input(index, Input::Swarm(SwarmInput::BlockArrived { peer: from, object, block, outcome }));
        for (peer, piece) in liars.into_iter().zip(piece.into_iter().cycle()) {
            self.input(index, Input::Swarm(SwarmInput::Lied { peer, object, piece }));
        }
    }

    fn end_session(&mut self, index: usize, peer: &PeerId) {
        if self.nodes[index].sessions.remove(peer) {
            self.nodes[index].expected.retain(|(from, ..)| from != peer);
            self.input(index, gone(peer.clone()));
        }
    }

    fn carry_out(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Swarm(effect) => self.swarm(index, effect),
                Effect::OpenArtifact { manifest } => self.open(index, &manifest),
                Effect::AnswerFromStore { channel, file } => {
                    let response =
                        self.nodes[index].files.get(&file).cloned().map_or(MetaResponse::NotFound, MetaResponse::File);
                    self.swarm(index, SwarmEffect::MetaAnswer { channel, response });
                }
                Effect::Save(saves) => self.save(index, saves),
                Effect::Install(effect) => self.install(index, effect),
                Effect::Event(event) => {
                    let at_ms = self.elapsed_ms();
                    self.nodes[index].events.push((at_ms, event));
                }
                Effect::Retention(RetentionEffect::Remove { artifacts }) => {
                    self.nodes[index].artifacts.retain(|artifact, _| !artifacts.contains(artifact));
                }
                Effect::Journal(_)
                | Effect::Hold(_)
                | Effect::Retention(_)
                | Effect::CheckArtifact { .. }
                | Effect::RememberPeer { .. }
                | Effect::RememberBan(_)
                | Effect::ForgetBan { .. }
                | Effect::Offer(_)
                | Effect::Outcome(_)
                | Effect::Resign => {}
            }
        }
    }

    fn save(&mut self, index: usize, saves: Vec<Save>) {
        for save in saves {
            let Save::Metadata { name, bytes } = save else { continue };
            let Some((version, stem)) = name.trim_end_matches(".json").split_once('.') else { continue };
            let Ok(version) = version.parse() else { continue };
            let file = match stem {
                "root" => MetaFile::Root { version },
                name => MetaFile::Role { name: name.to_owned(), version },
            };
            self.nodes[index].files.insert(file, bytes);
        }
    }

    fn open(&mut self, index: usize, manifest: &Arc<Manifest>) {
        let encoded = manifest.encode();
        let node = &mut self.nodes[index];
        node.files.insert(MetaFile::Manifest { sha256: Digest::of(&encoded) }, encoded);
        let store = node.artifacts.entry(*manifest.artifact()).or_insert_with(|| StoreModel {
            manifest: manifest.clone(),
            have: Bitmap::empty(manifest.piece_count()),
            pieces: PieceStore::default(),
        });
        let have = store.have.clone();
        self.soon(index, Input::ArtifactOpened { manifest: manifest.clone(), result: Ok(have) });
    }

    fn install(&mut self, index: usize, effect: InstallEffect) {
        match effect {
            InstallEffect::Stage { directory, transaction, .. } => {
                self.soon(index, Input::Staged { directory, transaction, result: Ok(()) });
            }
            InstallEffect::Switch { directory, transaction, .. } => {
                self.soon(index, Input::Switched { directory, transaction, result: Ok(()) });
            }
            InstallEffect::Activate { directory, transaction, .. } => {
                let output = String::new();
                self.soon(index, Input::Activated { directory, transaction, result: Ok(()), output });
            }
            InstallEffect::Check { directory, transaction, number, .. } => {
                let output = String::new();
                self.soon(index, Input::Checked { directory, transaction, number, result: Ok(()), output });
            }
            InstallEffect::Discard { .. } | InstallEffect::Collect { .. } => {}
        }
    }

    fn swarm(&mut self, index: usize, effect: SwarmEffect) {
        match effect {
            SwarmEffect::Dial { peer, addresses } => self.dial(index, peer, addresses),
            SwarmEffect::Disconnect { peer } | SwarmEffect::Ban { peer } => {
                let me = self.nodes[index].id.clone();
                self.end_session(index, &peer);
                if let Some(other) = self.by_id.get(&peer).copied() {
                    self.end_session(other, &me);
                }
            }
            SwarmEffect::Unban { .. } => {}
            SwarmEffect::Control { peer, message } => {
                self.tell_peer(index, &peer, |me| SwarmInput::Control { peer: me, message });
            }
            SwarmEffect::Request { peer, handle, block, .. } => {
                self.nodes[index].expected.insert((peer.clone(), handle, block));
                let message = updraft_protocol::transfer::Control::Request { handle, block };
                self.tell_peer(index, &peer, |me| SwarmInput::Control { peer: me, message });
            }
            SwarmEffect::Cancel { peer, handle, block } => {
                self.nodes[index].expected.remove(&(peer.clone(), handle, block));
                let message = updraft_protocol::transfer::Control::Cancel { handle, block };
                self.tell_peer(index, &peer, |me| SwarmInput::Control { peer: me, message });
            }
            SwarmEffect::SendBlock { peer, handle, object, block } => {
                self.send_block(index, peer, handle, object, block);
            }
            SwarmEffect::DropBlock { peer, handle, block } => {
                self.nodes[index].dropped.insert((peer, handle, block));
            }
            SwarmEffect::PublishHead { payload } => {
                self.nodes[index].seen_gossip.insert(Digest::of(&payload));
                self.gossip(index, &payload, None);
            }
            SwarmEffect::GossipVerdict { message, peer, verdict } => {
                if verdict == GossipVerdict::Accept {
                    self.gossip(index, &message, Some(&peer));
                }
            }
            SwarmEffect::MetaAsk { request_id, peer, request } => {
                let Some(other) = self.by_id.get(&peer).copied().filter(|_| self.nodes[index].sessions.contains(&peer))
                else {
                    let result = Err("not connected".to_owned());
                    self.soon(index, Input::Swarm(SwarmInput::MetaAnswered { request_id, peer, result }));
                    return;
                };
                self.next_channel += 1;
                let channel = self.next_channel;
                self.channels.insert(channel, (index, request_id, other));
                let me = self.nodes[index].id.clone();
                self.later(other, SwarmInput::MetaAsked { channel, peer: me, request });
            }
            SwarmEffect::MetaAnswer { channel, response } => {
                if let Some((asker, request_id, other)) = self.channels.remove(&channel) {
                    let peer = self.nodes[other].id.clone();
                    self.later(asker, SwarmInput::MetaAnswered { request_id, peer, result: Ok(response) });
                }
            }
        }
    }

    fn tell_peer(&mut self, index: usize, peer: &PeerId, input: impl FnOnce(PeerId) -> SwarmInput) {
        if self.nodes[index].sessions.contains(peer) {
            let (me, other) = (self.nodes[index].id.clone(), self.by_id[peer]);
            self.later(other, input(me));
        }
    }

    fn dial(&mut self, index: usize, peer: Option<PeerId>, addresses: Vec<String>) {
        let target = peer.as_ref().and_then(|peer| self.by_id.get(peer)).copied();
        let reachable = target.is_some_and(|other| self.nodes[other].online) && self.nodes[index].online;
        let (Some(other), true) = (target, reachable) else {
            let reason = "unreachable".to_owned();
            self.later(index, SwarmInput::DialFailed { peer, addresses, reason });
            return;
        };
        let (me, them) = (self.nodes[index].id.clone(), self.nodes[other].id.clone());
        if !self.nodes[index].sessions.insert(them.clone()) {
            return;
        }
        self.nodes[other].sessions.insert(me.clone());
        let (my_address, their_address) = (self.nodes[index].address.clone(), self.nodes[other].address.clone());
        self.later(index, SwarmInput::Connected { peer: them.clone(), address: their_address.clone(), outbound: true });
        self.later(other, SwarmInput::Connected { peer: me.clone(), address: my_address.clone(), outbound: false });
        let source = updraft::engine::input::DiscoverySource::Identify;
        self.later(other, SwarmInput::Discovered { peer: me, addresses: vec![my_address], source });
        self.later(index, SwarmInput::Discovered { peer: them, addresses: vec![their_address], source });
    }

    fn gossip(&mut self, index: usize, payload: &[u8], from: Option<&PeerId>) {
        let message = Digest::of(payload);
        for peer in self.nodes[index].sessions.clone() {
            let other = self.by_id[&peer];
            if Some(&peer) != from && self.nodes[other].seen_gossip.insert(message) {
                let me = self.nodes[index].id.clone();
                self.later(
                    other,
                    SwarmInput::Gossip { message: payload.to_vec(), peer: me, payload: payload.to_vec() },
                );
            }
        }
    }

    /// Blocks leave one after another at the node's upload rate.
    fn send_block(&mut self, index: usize, peer: PeerId, handle: u32, object: ObjectId, block: BlockRange) {
        let Some(other) = self.by_id.get(&peer).copied() else { return };
        let node = &mut self.nodes[index];
        if node.dropped.remove(&(peer.clone(), handle, block)) || !node.sessions.contains(&peer) {
            return;
        }
        let start_us = node.upload_free_us.max(self.now_us);
        let end_us = start_us + u64::from(block.length) * 1_000_000 / node.upload_bytes_per_second.max(1);
        node.upload_free_us = end_us;
        node.bytes_sent += u64::from(block.length);
        let (from, rotten) = (node.id.clone(), node.rotten);
        let arrival = Arrival::Block { from, handle, object, block, rotten };
        let latency_us = self.links.latency_ms * 1_000;
        self.schedule(end_us + latency_us, other, arrival);
        let sent = SwarmInput::BlockSent { peer, object, block };
        self.schedule(end_us, index, Arrival::Input(Box::new(Input::Swarm(sent))));
    }
}

fn gone(peer: PeerId) -> Input {
    Input::Swarm(SwarmInput::Disconnected { peer, reason: "unreachable".to_owned() })
}

/// The files that a seed has on disk.
pub(crate) fn disk(repository: &TestRepository) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (file, bytes) in &repository.files {
        match file {
            MetaFile::Root { version } => files.insert(format!("{version}.root.json"), bytes.clone()),
            MetaFile::Role { name, version } => files.insert(format!("{version}.{name}.json"), bytes.clone()),
            _ => None,
        };
    }
    let trusted = &repository.signed.trusted;
    if let (Some(timestamp), Some(snapshot)) = (trusted.timestamp(), trusted.snapshot()) {
        files.insert("timestamp.json".to_owned(), timestamp.bytes().to_vec());
        files.insert(format!("{}.snapshot.json", snapshot.version), snapshot.bytes().to_vec());
    }
    files
}
