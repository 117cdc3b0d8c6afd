//! A node in the middle of a download, an honest neighbour, and one that says whatever the input says.
//!
//! The engine is the real one; its store and its network are models, and time passes only as the input
//! wants. The hostile neighbour sends control messages, heads and answers as bytes that the real decoders
//! read, and blocks that are right or wrong; once banned it comes back under another name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use updraft::engine::effect::{Effect, EventKind, GossipVerdict, SwarmEffect};
use updraft::engine::input::{BlockOutcome, DiscoverySource, Input, Now, SwarmInput};
use updraft::engine::install::{Recovered, SubscriptionSpec};
use updraft::engine::memory::Memory;
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::LEAF_BYTES;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::names::{Channel, Platform};
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId, ObjectKind};

use crate::piece_store::{Kept, PieceStore};
use crate::repository::TestRepository;
use crate::virtual_network::disk;

const START_UNIX: i64 = 1_790_000_000;

/// Bytes of the artifact: above 16 MiB a piece has two leaves, so that two neighbours can spoil one.
const ARTIFACT_BYTES: usize = (16 << 20) + 50_000;

/// Pieces that are missing at the start.
const MISSING_PIECES: u32 = 20;

/// Effects of one input. A neighbour that causes more with one message owns the node.
const MAX_EFFECTS: usize = 4_096;

/// Names that the hostile neighbour can take in one run.
const MAX_NAMES: u8 = 12;

/// Virtual time in which the node must be done once nobody disturbs it any more.
const FINISH_MS: u64 = 300_000;

/// The repository before and after its newest release.
struct World {
    repository: TestRepository,
    newest: TestRepository,
    manifest: Arc<Manifest>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let wall = UtcTime::from_unix(START_UNIX);
        let publish = |versions: &[&str]| {
            let mut repository = TestRepository::new(wall);
            let mut last = None;
            for version in versions {
                last = Some(repository.publish(version, &vec![7; ARTIFACT_BYTES], wall));
            }
            (repository, last.expect("one version at least"))
        };
        let (repository, manifest) = publish(&["1.0.0"]);
        let (newest, _) = publish(&["1.0.0", "1.0.1"]);
        World { repository, newest, manifest }
    })
}

fn honest() -> PeerId {
    peer(b"honest")
}

fn hostile(name: u8) -> PeerId {
    peer(&[b'h', name])
}

fn peer(name: &[u8]) -> PeerId {
    PeerId::from_bytes(Digest::of(name).as_bytes()).expect("32 bytes")
}

/// What a node sends to others is readable; it asks and serves within the artifact; it forwards only what
/// is signed and new; no neighbour gets an honest one banned, nor keeps the download from its end.
pub fn session(bytes: &[u8]) -> bool {
    let mut run = Run::new();
    for (kind, payload) in Steps(bytes) {
        run.step(kind, payload);
    }
    run.finish();
    run.heard
}

/// Steps of an input: a kind, a length in two bytes, that many bytes or as many as there are.
struct Steps<'a>(&'a [u8]);

impl<'a> Iterator for Steps<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([kind, high, low], rest) = self.0.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        self.0 = rest;
        Some((*kind, payload))
    }
}

/// A block that the node asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    of: PeerId,
    handle: u32,
    object: ObjectId,
    block: BlockRange,
}

struct Run {
    engine: Engine,
    now_ms: u64,
    /// The name that the hostile neighbour has now; `None` while it is away.
    name: Option<PeerId>,
    names: u8,
    honest_is_connected: bool,
    /// The node said what it wants, and the honest neighbour has not said yet what it has.
    honest_is_asked: bool,
    asked: Vec<Asked>,
    questions: Vec<(u64, PeerId, MetaRequest)>,
    have: Bitmap,
    /// Leaves of pieces that are not whole, and whether each is rotten.
    pieces: PieceStore<PeerId>,
    sending: Vec<(PeerId, ObjectId, BlockRange)>,
    /// Whether the node took any message of the hostile neighbour.
    heard: bool,
}

impl Run {
    fn new() -> Self {
        let world = world();
        let files = disk(&world.repository);
        let targets: BTreeMap<Digest, &Vec<u8>> =
            world.repository.files.values().map(|bytes| (Digest::of(bytes), bytes)).collect();
        let count = world.manifest.piece_count();
        let mut have = Bitmap::full(count);
        for piece in 0..MISSING_PIECES {
            have.clear(piece * 7 % count);
        }
        let config = EngineConfig {
            me: peer(b"me"),
            repository: world.repository.id,
            ticket: Some(world.repository.ticket(Vec::new())),
            is_seed: false,
            platform: Platform::any(),
            agent: "fuzzed".to_owned(),
            random_seed: 7,
            adopt_wait_ms: 0,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        let spec = SubscriptionSpec {
            product: "app".parse().expect("a name"),
            channel: Channel::stable(),
            directory: Some("/virtual".to_owned()),
        };
        let found = Restored {
            metadata: &MetadataReader(&|name| files.get(name).cloned()),
            target: &TargetReader(&|sha256| targets.get(sha256).map(|bytes| (*bytes).clone())),
            artifacts: Vec::new(),
            subscriptions: vec![(spec, Recovered::default())],
            peers: Vec::new(),
            memory: Memory::default(),
            bans: Vec::new(),
        };
        let now = Now { wall: UtcTime::from_unix(START_UNIX), mono_ms: 0 };
        let (engine, effects) = Engine::restore(config, found, now).expect("a good repository");
        let mut run = Self {
            engine,
            now_ms: 0,
            name: None,
            names: 0,
            honest_is_connected: false,
            honest_is_asked: false,
            asked: Vec::new(),
            questions: Vec::new(),
            have,
            pieces: PieceStore::default(),
            sending: Vec::new(),
            heard: false,
        };
        run.carry_out(effects);
        run.meet_honest();
        // Until the download is under way.
        for _ in 0..20 {
            run.answer_honestly();
            run.pass(100);
        }
        assert!(!run.asked.is_empty(), "the download does not begin");
        run.meet_hostile();
        run
    }

    fn now(&self) -> Now {
        let seconds = i64::try_from(self.now_ms / 1_000).expect("not that long");
        Now { wall: UtcTime::from_unix(START_UNIX + seconds), mono_ms: self.now_ms }
    }

    fn input(&mut self, input: Input) {
        let effects = self.engine.handle(input, self.now());
        self.carry_out(effects);
    }

    fn swarm(&mut self, input: SwarmInput) {
        self.input(Input::Swarm(input));
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        self.input(Input::Tick);
    }

    fn connect(&mut self, peer: &PeerId) {
        let address = "/ip4/192.0.2.9/tcp/4880".to_owned();
        self.swarm(SwarmInput::Connected { peer: peer.clone(), address: address.clone(), outbound: false });
        let source = DiscoverySource::Identify;
        self.swarm(SwarmInput::Discovered { peer: peer.clone(), addresses: vec![address], source });
    }

    fn say(&mut self, peer: &PeerId, message: Control) {
        self.swarm(SwarmInput::Control { peer: peer.clone(), message });
    }

    fn meet_honest(&mut self) {
        self.honest_is_connected = true;
        let peer = honest();
        self.connect(&peer);
        self.say(&peer, hello(1, 2));
    }

    fn meet_hostile(&mut self) {
        if self.name.is_none() && self.names < MAX_NAMES {
            let peer = hostile(self.names);
            self.names += 1;
            self.name = Some(peer.clone());
            self.connect(&peer);
        }
    }

    fn part(&mut self, peer: &PeerId) {
        let was_connected = if *peer == honest() {
            std::mem::take(&mut self.honest_is_connected)
        } else if self.name.as_ref() == Some(peer) {
            self.name.take().is_some()
        } else {
            false
        };
        if was_connected {
            self.asked.retain(|asked| asked.of != *peer);
            self.questions.retain(|(_, of, _)| of != peer);
            self.sending.retain(|(to, ..)| to != peer);
            self.swarm(SwarmInput::Disconnected { peer: peer.clone(), reason: "gone".to_owned() });
        }
    }

    /// One thing that the input wants to happen.
    fn step(&mut self, kind: u8, payload: &[u8]) {
        let number = payload.iter().take(2).fold(0_usize, |sum, byte| sum * 256 + usize::from(*byte));
        match (kind % 12, self.name.clone()) {
            (0 | 1, Some(peer)) => {
                if let Ok(message) = Control::decode(payload) {
                    self.heard = true;
                    self.say(&peer, message);
                }
            }
            (2, Some(peer)) => {
                let payload = payload.to_vec();
                self.swarm(SwarmInput::Gossip { message: payload.clone(), peer, payload });
            }
            (3, Some(peer)) => {
                if let Ok(request) = MetaRequest::decode(payload) {
                    self.swarm(SwarmInput::MetaAsked { channel: 1, peer, request });
                }
            }
            (4, Some(peer)) => {
                if let Some(at) = self.questions.iter().position(|(_, of, _)| *of == peer) {
                    let (request_id, peer, _) = self.questions.remove(at);
                    let result = MetaResponse::decode(payload).map_err(|error| error.to_string());
                    self.swarm(SwarmInput::MetaAnswered { request_id, peer, result });
                }
            }
            (5, Some(peer)) => self.block_from(&peer, number, number % 3 == 0),
            (6, _) => self.pass(1 + number as u64 % 20_000),
            (7, Some(peer)) => self.part(&peer),
            (8, _) => self.block_from(&honest(), number, false),
            (9, _) => self.answer_honestly(),
            (10, Some(peer)) => {
                let addresses = str::from_utf8(payload).map(|text| text.lines().map(str::to_owned).collect());
                let source = DiscoverySource::Identify;
                self.swarm(SwarmInput::Discovered { peer, addresses: addresses.unwrap_or_default(), source });
            }
            (11, _) if !self.sending.is_empty() => {
                let (peer, object, block) = self.sending.remove(number % self.sending.len());
                self.swarm(SwarmInput::BlockSent { peer, object, block });
            }
            // What needs the hostile neighbour brings it, as far as it has names left.
            (_, None) => self.meet_hostile(),
            _ => {}
        }
    }

    /// A block that was asked of `peer` arrives; rotten or not.
    fn block_from(&mut self, peer: &PeerId, number: usize, rotten: bool) {
        let pending: Vec<usize> =
            self.asked.iter().enumerate().filter(|(_, asked)| asked.of == *peer).map(|(at, _)| at).collect();
        if pending.is_empty() {
            return;
        }
        let Asked { of, object, block, .. } = self.asked.remove(pending[number % pending.len()]);
        let Kept { outcome, liars, .. } = self.pieces.write(&world().manifest, &mut self.have, block, &of, !rotten);
        let piece = match outcome {
            BlockOutcome::PieceVerified(piece) | BlockOutcome::PieceRejected(piece) => Some(piece),
            _ => None,
        };
        self.swarm(SwarmInput::BlockArrived { peer: of, object, block, outcome });
        for (peer, piece) in liars.into_iter().zip(piece.into_iter().cycle()) {
            self.swarm(SwarmInput::Lied { peer, object, piece });
        }
    }

    /// The honest neighbour answers everything that it was asked for.
    fn answer_honestly(&mut self) {
        let peer = honest();
        if std::mem::take(&mut self.honest_is_asked) && self.honest_is_connected {
            self.say(&peer, announce());
        }
        while let Some(at) = self.questions.iter().position(|(_, of, _)| *of == peer) {
            let (request_id, peer, request) = self.questions.remove(at);
            let repository = &world().repository;
            let file = match &request.file {
                MetaFile::Head => Some(repository.signed.head.clone()),
                file => repository.files.get(file).cloned(),
            };
            let result = Ok(file.map_or(MetaResponse::NotFound, MetaResponse::File));
            self.swarm(SwarmInput::MetaAnswered { request_id, peer, result });
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        assert!(effects.len() <= MAX_EFFECTS, "{} effects of one input", effects.len());
        for effect in effects {
            match effect {
                Effect::Swarm(effect) => self.network(effect),
                Effect::OpenArtifact { manifest } => {
                    assert_eq!(manifest, world().manifest, "another artifact");
                    self.input(Input::ArtifactOpened { manifest, result: Ok(self.have.clone()) });
                }
                Effect::Event(event) => {
                    let blamed = event.kind == EventKind::PeerBlamed && event.peer == Some(honest());
                    assert!(!blamed, "an honest neighbour is blamed: {}", event.text);
                }
                _ => {}
            }
        }
    }

    fn network(&mut self, effect: SwarmEffect) {
        let manifest = &world().manifest;
        match effect {
            SwarmEffect::Control { peer, message } => {
                self.honest_is_asked |= peer == honest() && matches!(message, Control::Announce { wants: true, .. });
                let frame = message.to_frame();
                assert_eq!(Control::decode(&frame[4..]), Ok(message), "a message that nobody can read");
            }
            SwarmEffect::Request { peer, handle, object, block } => {
                assert_eq!(object.digest, *manifest.artifact());
                let piece = manifest.piece_at(block.offset).expect("within the artifact");
                assert_eq!(manifest.piece_at(block.end() - 1), Some(piece), "a block of two pieces");
                let message = Control::Request { handle, block };
                assert_eq!(Control::decode(&message.to_frame()[4..]), Ok(message), "a request that nobody can read");
                let asked = Asked { of: peer, handle, object, block };
                assert!(!self.asked.contains(&asked), "asked twice at once");
                self.asked.push(asked);
            }
            SwarmEffect::Cancel { peer, handle, block } => {
                self.asked.retain(|asked| asked.of != peer || asked.handle != handle || asked.block != block);
            }
            SwarmEffect::SendBlock { peer, object, block, .. } => {
                assert_eq!(object.digest, *manifest.artifact());
                let pieces: BTreeSet<_> = [block.offset, block.end() - 1].map(|at| manifest.piece_at(at)).into();
                for piece in pieces {
                    let piece = piece.expect("within the artifact");
                    assert!(self.have.get(piece.get()), "serves what it does not have");
                }
                self.sending.push((peer, object, block));
            }
            SwarmEffect::GossipVerdict { message, verdict: GossipVerdict::Accept, .. } => {
                assert_eq!(message, world().newest.signed.head, "forwards a head that nobody signed");
            }
            SwarmEffect::MetaAsk { request_id, peer, request } => {
                assert_eq!(MetaRequest::decode(&request.encode()).as_ref(), Ok(&request));
                self.questions.push((request_id, peer, request));
            }
            SwarmEffect::MetaAnswer { response, .. } => {
                assert_eq!(MetaResponse::decode(&response.encode()), Ok(response));
            }
            SwarmEffect::Ban { peer } => {
                assert_ne!(peer, honest(), "an honest neighbour is banned");
                self.part(&peer);
            }
            SwarmEffect::Disconnect { peer } => self.part(&peer),
            _ => {}
        }
    }

    /// The hostile neighbour falls silent, the honest one is there: the download ends.
    fn finish(&mut self) {
        let end_ms = self.now_ms + FINISH_MS;
        while !self.have.is_full() {
            assert!(self.now_ms < end_ms, "{} of {} pieces after all that time", self.have.ones(), self.have.count());
            if !self.honest_is_connected {
                self.meet_honest();
            }
            self.answer_honestly();
            while self.asked.iter().any(|asked| asked.of == honest()) {
                self.block_from(&honest(), 0, false);
            }
            self.pass(500);
        }
    }
}

fn hello(root_version: u64, timestamp_version: u64) -> Control {
    Control::Hello(Hello {
        repository: world().repository.id.digest().as_bytes().to_vec(),
        agent: "a neighbour".to_owned(),
        features: Vec::new(),
        root_version,
        timestamp_version,
        timestamp_sha256: None,
        seed: false,
        credential: None,
    })
}

fn announce() -> Control {
    let manifest = &world().manifest;
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
    let have = Bitmap::full(manifest.piece_count()).as_bytes().to_vec();
    Control::Announce { handle: 0, object, wants: false, have }
}

/// Sessions to start from.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let step = |kind: u8, payload: &[u8]| {
        let length = u16::try_from(payload.len()).expect("a short step");
        [&[kind][..], &length.to_be_bytes(), payload].concat()
    };
    let say = |message: Control| step(0, &message.to_frame()[4..]);
    let block = BlockRange::new(32 * 1024 * 100, LEAF_BYTES).expect("a good block");
    let wants = match announce() {
        Control::Announce { handle, object, .. } => {
            Control::Announce { handle, object, wants: true, have: vec![0; 65] }
        }
        other => other,
    };
    let request = |file| MetaRequest { repository: world().repository.id.0, file }.encode();
    let friendly = [say(hello(1, 2)), say(announce()), step(5, &[1]), step(6, &[1, 0]), step(5, &[0, 2]), step(9, &[])];
    let rotten = [say(hello(1, 2)), say(announce()), step(5, &[0]), step(5, &[0]), step(5, &[3]), step(6, &[9, 9])];
    let greedy = [
        say(hello(1, 2)),
        say(wants),
        say(Control::Request { handle: 0, block }),
        say(Control::Cancel { handle: 0, block }),
        step(11, &[0]),
        say(Control::Forget { handle: 0 }),
    ];
    let chatty = [
        say(hello(9, 99)),
        step(2, &world().newest.signed.head),
        step(3, &request(MetaFile::Head)),
        step(3, &request(MetaFile::Root { version: 1 })),
        step(4, &MetaResponse::File(b"{}".to_vec()).encode()),
        say(Control::Head { root_version: 2, timestamp_version: 100, timestamp_sha256: None }),
        step(10, b"/ip4/192.0.2.3/tcp/1\n/dns/x/tcp/2"),
        say(Control::Goodbye { reason: "bye".to_owned() }),
        step(7, &[]),
    ];
    let busy = [
        say(hello(1, 2)),
        say(announce()),
        say(Control::Have { handle: 0, pieces: vec![0, 7, 600] }),
        say(Control::Busy { handle: 0, block, retry_after_ms: 100, ask: vec![honest()] }),
        step(8, &[0]),
    ];
    vec![friendly.concat(), rotten.concat(), greedy.concat(), chatty.concat(), busy.concat()]
}
