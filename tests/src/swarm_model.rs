//! Schedulers in virtual time: the very code that decides in a node what is asked of whom and who is
//! served next, with links and stores that are models.
//!
//! Everything follows from one seed, so a run can be replayed. What must always hold is checked at every
//! step, in `invariants`; what was wasted is counted in [`Waste`]. The model of a link is in `links`, who is connected to whom in
//! `sessions`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use updraft::engine::effect::SwarmEffect;
use updraft::engine::fetch::{Fetch, News, Outcome};
use updraft::engine::input::BlockOutcome;
use updraft::engine::limits::is_near;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId, ObjectKind};

use self::invariants::Watch;
use self::links::{Part, Uplink};
use crate::piece_store::{Kept, PieceStore};

mod invariants;
mod links;
mod sessions;

/// Microseconds between two ticks of a node that has something to do.
const TICK_US: u64 = 20_000;
/// The same for an idle node.
const IDLE_TICK_US: u64 = 100_000;
/// Microseconds from a block's last byte to the news of it.
const STORE_US: u64 = 2_000;

/// What a node is like.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Bytes per second that it sends at most.
    pub upload: u64,
    /// Bytes per second that it receives at most, where that is less than what others can send.
    pub download: Option<u64>,
    /// Where it is.
    pub site: u8,
    /// What it sends is wrong.
    pub rotten: bool,
    /// It sends wrong bytes, and only where others have a part in the piece already: it knows that.
    pub spoils: bool,
    /// It answers nothing.
    pub silent: bool,
}

impl Host {
    /// A host with this upload rate.
    pub fn new(upload: u64) -> Self {
        Self { upload, download: None, site: 0, rotten: false, spoils: false, silent: false }
    }
}

/// Everything that is not a host.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Bytes of the artifact.
    pub length: u64,
    /// One-way delay in microseconds.
    pub latency_us: u64,
    /// Lost parts in a million.
    pub loss_ppm: u32,
    /// Bytes per second between two sites, each way.
    pub between_sites: Option<u64>,
    /// Sessions that a peer wants; it takes twice as many.
    pub neighbours: usize,
    /// Sessions that the seed holds at most.
    pub seed_sessions: usize,
    /// Hundredths of a copy that may leave the seed.
    pub budget_percent: Option<u32>,
    /// Seed of every random choice.
    pub random_seed: u64,
}

/// Bytes that were of no use, over all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waste {
    /// Received twice.
    pub duplicate: u64,
    /// Arrived after their request was withdrawn.
    pub late: u64,
    /// Of pieces that were wrong.
    pub rejected: u64,
    /// Requested while another request for the same bytes was open.
    pub doubly_asked: u64,
}

/// What travels.
#[derive(Debug)]
enum Event {
    Tick,
    Join,
    Control { from: usize, message: Control },
    Connected { with: usize },
    Block { from: usize, handle: u32, block: BlockRange },
    Stored { from: usize, block: BlockRange, outcome: BlockOutcome },
    Lied { liar: usize },
    Sent { to: usize, block: BlockRange },
    UplinkFree,
}

/// One node and what surrounds it.
#[derive(Debug)]
struct Node {
    id: PeerId,
    fetch: Fetch,
    host: Host,
    online: bool,
    sessions: BTreeSet<usize>,
    have: Bitmap,
    pieces: PieceStore<usize>,
    /// Pieces that each other node spoilt here.
    spoilt: BTreeMap<usize, u32>,
    /// Open requests: from whom, which bytes.
    asked: BTreeSet<(usize, BlockRange)>,
    uplink: Uplink,
    downlink_free_us: u64,
    sent_bytes: u64,
    arrived_us: u64,
    first_asked_us: Option<u64>,
    done_us: Option<u64>,
    /// It is online and has nothing left to get, or never will.
    counted: bool,
    bans: BTreeSet<usize>,
    watch: Watch,
}

/// A swarm.
#[derive(Debug)]
pub struct SwarmModel {
    world: World,
    object: ObjectId,
    manifest: Arc<Manifest>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<(usize, Event)>>,
    free: Vec<usize>,
    sequence: u64,
    site_free_us: [u64; 2],
    rng: SmallRng,
    now_us: u64,
    partition: Option<usize>,
    done: usize,
    /// Bytes that were of no use.
    pub waste: Waste,
    /// Control messages, all nodes together.
    pub messages: u64,
    /// Bytes of control messages, all nodes together.
    pub message_bytes: u64,
    /// Blocks that arrived and were asked for.
    pub blocks: u64,
}

fn id(index: usize) -> PeerId {
    let index = u32::try_from(index).expect("few nodes");
    let mixed = index.wrapping_mul(0x9e37_79b9).rotate_left(13);
    PeerId::from_bytes(&[mixed.to_be_bytes(), index.to_be_bytes()].concat()).expect("eight bytes")
}

fn index(peer: &PeerId) -> usize {
    let bytes: [u8; 4] = peer.as_bytes()[4..].try_into().expect("eight bytes");
    u32::from_be_bytes(bytes) as usize
}

fn manifest_of(length: u64) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new();
    let zeros = vec![0; 1 << 20];
    let mut left = usize::try_from(length).expect("fits memory");
    while left > 0 {
        let part = left.min(zeros.len());
        builder.update(&zeros[..part]);
        left -= part;
    }
    Arc::new(builder.finish().expect("not empty"))
}

impl SwarmModel {
    /// A swarm of nothing but its seed, which is node 0.
    pub fn new(world: World, seed: Host) -> Self {
        let manifest = manifest_of(world.length);
        let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
        let mut model = Self {
            rng: SmallRng::seed_from_u64(world.random_seed),
            world,
            object,
            manifest,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            site_free_us: [0; 2],
            now_us: 0,
            partition: None,
            done: 0,
            waste: Waste::default(),
            messages: 0,
            message_bytes: 0,
            blocks: 0,
        };
        model.add(seed, 0, true, true);
        model
    }

    /// A peer that joins after `after_us`. Returns its number.
    pub fn join(&mut self, host: Host, after_us: u64) -> usize {
        self.add(host, after_us, false, false)
    }

    /// A further node that holds everything, and spares its uplink as seeds do.
    pub fn second_seed(&mut self, host: Host) -> usize {
        self.add(host, 0, true, true)
    }

    /// A peer that holds everything already, and says so.
    pub fn keeper(&mut self, host: Host) -> usize {
        self.add(host, 0, true, false)
    }

    fn add(&mut self, host: Host, after_us: u64, is_full: bool, is_seed: bool) -> usize {
        let number = self.nodes.len();
        let count = self.manifest.piece_count();
        let have = if is_full { Bitmap::full(count) } else { Bitmap::empty(count) };
        let mut fetch = Fetch::new(id(number), is_seed, SmallRng::seed_from_u64(self.rng.random()));
        if is_seed {
            fetch.set_budget(self.world.budget_percent);
        }
        assert!(fetch.add(self.object, self.manifest.clone(), have.clone()), "there is room for one object");
        self.nodes.push(Node {
            id: id(number),
            fetch,
            host,
            online: false,
            sessions: BTreeSet::new(),
            watch: Watch::new(&have),
            have,
            pieces: PieceStore::default(),
            spoilt: BTreeMap::new(),
            asked: BTreeSet::new(),
            uplink: Uplink::default(),
            downlink_free_us: 0,
            sent_bytes: 0,
            arrived_us: self.now_us + after_us,
            first_asked_us: None,
            done_us: is_full.then_some(0),
            counted: is_full || host.rotten || host.spoils || host.silent,
            bans: BTreeSet::new(),
        });
        self.done += usize::from(self.nodes[number].counted);
        self.schedule(after_us, number, Event::Join);
        number
    }

    // ---- what tests look at ----------------------------------------------------------------------

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// When a node had everything.
    pub fn done_us(&self, node: usize) -> Option<u64> {
        self.nodes[node].done_us
    }

    /// When a node asked for a block first.
    pub fn first_asked_us(&self, node: usize) -> Option<u64> {
        self.nodes[node].first_asked_us
    }

    /// When a node joins.
    pub fn arrived_us(&self, node: usize) -> u64 {
        self.nodes[node].arrived_us
    }

    /// Whether everybody has everything.
    pub fn all_done(&self) -> bool {
        self.done == self.nodes.len()
    }

    /// Copies of the artifact that left a node.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn copies(&self, node: usize) -> f64 {
        self.nodes[node].sent_bytes as f64 / self.world.length as f64
    }

    /// Bytes that left a node.
    pub fn sent_bytes(&self, node: usize) -> u64 {
        self.nodes[node].sent_bytes
    }

    /// The part of the artifact that a node has.
    pub fn progress(&self, node: usize) -> f64 {
        f64::from(self.nodes[node].have.ones()) / f64::from(self.manifest.piece_count())
    }

    /// Those whom a node banned.
    pub fn bans(&self, node: usize) -> &BTreeSet<usize> {
        &self.nodes[node].bans
    }

    /// Pieces that others spoilt at a node.
    pub fn spoilt(&self, node: usize) -> &BTreeMap<usize, u32> {
        &self.nodes[node].spoilt
    }

    /// Bytes of the artifact.
    pub fn length(&self) -> u64 {
        self.world.length
    }

    /// Pieces of the artifact.
    pub fn pieces(&self) -> u32 {
        self.manifest.piece_count()
    }

    // ---- what tests do ---------------------------------------------------------------------------

    /// Runs until `done` holds, at most `limit_us` longer. Returns whether it did.
    pub fn run_until(&mut self, limit_us: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end_us = self.now_us + limit_us;
        let mut look_us = self.now_us;
        while let Some(Reverse((at_us, _, _))) = self.queue.peek() {
            if *at_us > end_us {
                self.now_us = end_us;
                break;
            }
            let Some(Reverse((at_us, _, slot))) = self.queue.pop() else { break };
            self.now_us = at_us;
            self.free.push(slot);
            let Some((node, event)) = self.events[slot].take() else { continue };
            self.happen(node, event);
            if self.now_us >= look_us {
                look_us = self.now_us + 5_000;
                if done(self) {
                    return true;
                }
            }
        }
        done(self)
    }

    // ---- mechanics -------------------------------------------------------------------------------

    fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    fn schedule(&mut self, after_us: u64, node: usize, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some((node, event));
        self.sequence += 1;
        self.queue.push(Reverse((self.now_us + after_us, self.sequence, slot)));
    }

    fn happen(&mut self, node: usize, event: Event) {
        if !self.nodes[node].online && !matches!(event, Event::Join) {
            return;
        }
        let now_ms = self.now_ms();
        match event {
            Event::Join => {
                self.nodes[node].online = true;
                let jitter_us = self.rng.random_range(0..TICK_US);
                self.schedule(jitter_us, node, Event::Tick);
                let object = self.object;
                let outcome = self.nodes[node].fetch.want(object, now_ms);
                self.carry_out(node, outcome);
                self.find_neighbours(node);
            }
            Event::Tick => {
                let pause_us = if self.nodes[node].fetch.is_busy() { TICK_US } else { IDLE_TICK_US };
                self.schedule(pause_us, node, Event::Tick);
                let outcome = self.nodes[node].fetch.tick(now_ms);
                self.carry_out(node, outcome);
                if self.nodes[node].sessions.len() < self.world.neighbours && self.rng.random_range(0..10) == 0 {
                    self.find_neighbours(node);
                }
            }
            Event::Connected { with } => {
                if self.nodes[node].sessions.contains(&with) {
                    let peer = self.nodes[with].id.clone();
                    let outcome = self.nodes[node].fetch.connected(&peer, with == 0);
                    let (here, there) = (self.address(node), self.address(with));
                    let is_near = is_near(&format!("/ip4/{there}/tcp/4880"), &BTreeSet::from([here]));
                    self.nodes[node].fetch.set_near(&peer, is_near);
                    self.carry_out(node, outcome);
                }
            }
            Event::Control { from, message } => {
                if self.nodes[node].sessions.contains(&from) && !self.nodes[node].host.silent {
                    let peer = self.nodes[from].id.clone();
                    let outcome = self.nodes[node].fetch.control(&peer, message, now_ms);
                    self.carry_out(node, outcome);
                }
            }
            Event::Block { from, handle, block } => self.block_arrives(node, from, handle, block),
            Event::Stored { from, block, outcome } => {
                self.nodes[node].watch.hungry_since_us = None;
                if let BlockOutcome::PieceRejected(piece) = &outcome {
                    self.nodes[node].watch.begun.clear(*piece);
                }
                let (peer, object) = (self.nodes[from].id.clone(), self.object);
                let outcome = self.nodes[node].fetch.block_arrived(&peer, object, block, outcome, now_ms);
                self.carry_out(node, outcome);
            }
            Event::Lied { liar } => {
                self.nodes[node].bans.insert(liar);
                if self.nodes[node].sessions.contains(&liar) {
                    self.part(node, liar);
                    self.part(liar, node);
                }
            }
            Event::Sent { to, block } => {
                self.check_budget(node, block);
                let (peer, object) = (self.nodes[to].id.clone(), self.object);
                let outcome = self.nodes[node].fetch.block_sent(&peer, object, block, now_ms);
                self.carry_out(node, outcome);
            }
            Event::UplinkFree => {
                self.nodes[node].uplink.busy = false;
                self.transmit(node);
            }
        }
        self.check(node);
    }

    fn carry_out(&mut self, node: usize, outcome: Outcome) {
        for effect in outcome.effects {
            match effect {
                SwarmEffect::Control { peer, message } => self.say(node, index(&peer), message),
                SwarmEffect::Request { peer, handle, block, .. } => {
                    let to = index(&peer);
                    self.nodes[node].first_asked_us.get_or_insert(self.now_us);
                    self.check_request(node, block);
                    assert!(self.nodes[node].asked.insert((to, block)), "the same is asked twice of one neighbour");
                    self.say(node, to, Control::Request { handle, block });
                }
                SwarmEffect::Cancel { peer, handle, block } => {
                    self.nodes[node].asked.remove(&(index(&peer), block));
                    self.say(node, index(&peer), Control::Cancel { handle, block });
                }
                SwarmEffect::SendBlock { peer, handle, block, .. } => {
                    let to = index(&peer);
                    if self.nodes[node].sessions.contains(&to) {
                        let left = u64::from(block.length);
                        let uplink = &mut self.nodes[node].uplink;
                        let socket = uplink.sockets.entry(to).or_default();
                        if socket.is_empty() {
                            uplink.turns.push_back(to);
                        }
                        socket.push_back(Part { to, handle, block, left, reported: false });
                        self.report_taken(node, to, 0);
                        self.transmit(node);
                    }
                }
                SwarmEffect::DropBlock { .. } => {}
                other => panic!("the scheduler does not decide this: {other:?}"),
            }
        }
        for news in outcome.news {
            match news {
                News::Complete(_) => {
                    self.nodes[node].done_us.get_or_insert(self.now_us);
                    self.done += usize::from(!std::mem::replace(&mut self.nodes[node].counted, true));
                }
                News::Misbehaved { peer, what } => panic!("an honest node is blamed: {peer} {what}"),
                News::Stopped { reason, .. } => panic!("the store never refuses: {reason}"),
                News::Holders { .. } => {}
            }
        }
    }

    fn say(&mut self, node: usize, to: usize, message: Control) {
        if self.nodes[node].sessions.contains(&to) {
            self.messages += 1;
            self.message_bytes += message.to_frame().len() as u64;
            let latency_us = self.world.latency_us;
            self.schedule(latency_us, to, Event::Control { from: node, message });
        }
    }

    fn block_arrives(&mut self, node: usize, from: usize, _handle: u32, block: BlockRange) {
        if !self.nodes[node].asked.remove(&(from, block)) {
            self.waste.late += u64::from(block.length);
            return;
        }
        self.blocks += 1;
        let Some(piece) = self.manifest.piece_at(block.offset) else { return };
        let host = self.nodes[from].host;
        let here = &mut self.nodes[node];
        let is_wrong = host.rotten || (host.spoils && here.pieces.has_part_of_others(piece.get(), &from));
        let Kept { outcome, liars, spoilers } =
            here.pieces.write(&self.manifest, &mut here.have, block, &from, !is_wrong);
        for spoiler in spoilers {
            *here.spoilt.entry(spoiler).or_default() += 1;
        }
        match outcome {
            BlockOutcome::Duplicate => self.waste.duplicate += u64::from(block.length),
            BlockOutcome::PieceRejected(_) => self.waste.rejected += u64::from(self.manifest.length_of(piece)),
            _ => {}
        }
        self.schedule(STORE_US, node, Event::Stored { from, block, outcome });
        for liar in liars {
            self.schedule(STORE_US, node, Event::Lied { liar });
        }
    }
}
