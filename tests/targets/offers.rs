//! What a hostile machine can offer to a seed: the seed's engine, driven input by input, and a peer
//! that holds a publisher's key or none and does with it what no honest node would do.
//!
//! Whatever is offered, the old set stays in force, the place is free again, and the honest push that
//! comes next goes through.

use std::collections::BTreeMap;
use std::sync::Arc;

use updraft::engine::effect::{Effect, EventKind, SwarmEffect};
use updraft::engine::input::{Input, Now, SwarmInput};
use updraft::engine::memory::Memory;
use updraft::engine::offers::{OfferEffect, OfferInput, Offered, Signing};
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft::publisher::pushed;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::key::SigningKey;
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::names::{Channel, Platform, Product, ReleaseId};
use updraft_protocol::offer::{Offer, OfferAnswer, OfferStage, OfferedRelease};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{Control, Hello, ObjectId, ObjectKind};
use updraft_protocol::tuf::{RoleName, TargetInfo, Targets, sign_role};
use updraft_tests::repository::{TestKeys, TestRepository};

fn product() -> Product {
    "app".parse().expect("a valid name")
}

fn role() -> RoleName {
    RoleName::releases(&product())
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[n; 8]).expect("in bounds")
}

fn start() -> UtcTime {
    UtcTime::from_unix(1_790_000_000)
}

/// A release of these bytes, and its pieces.
fn release(path_product: &str, version: &str, bytes: &[u8]) -> (Release, Arc<Manifest>) {
    let mut builder = ManifestBuilder::new();
    builder.update(bytes);
    let manifest = builder.finish().expect("not empty");
    let encoded = manifest.encode();
    let id = ReleaseId {
        product: path_product.parse().expect("a name"),
        version: version.parse().expect("a version"),
        platform: Platform::any(),
    };
    let file_name = "app.bin".parse().expect("a file name");
    let release = Release {
        path: id.path(&file_name),
        file_name,
        artifact: *manifest.artifact(),
        length: manifest.length(),
        format: Format::File,
        content: Content { sha256: *manifest.artifact(), length: manifest.length(), entries: 1 },
        manifest: ManifestRef { sha256: Digest::of(&encoded), length: encoded.len() as u64 },
        channels: [Channel::stable()].into(),
        min_from: None,
        notes: Notes::None,
        critical: false,
        id,
    };
    (release, Arc::new(manifest))
}

/// A seed with one release, `1.0.0`, and what its shells would have done.
struct Seed {
    engine: Engine,
    repository: Digest,
    now_ms: u64,
    next_channel: u64,
    /// Requests of the seed that wait for an answer.
    asked: Vec<(u64, PeerId, MetaFile)>,
    answers: BTreeMap<u64, OfferAnswer>,
    discarded: Vec<Digest>,
    told: Vec<String>,
    parted: Vec<PeerId>,
    /// Whether there is room for artifacts.
    room: Result<(), String>,
    /// Messages to peers, and peers that were dialled.
    said: Vec<(PeerId, Control)>,
    dialled: Vec<PeerId>,
}

impl Seed {
    fn new() -> Self {
        let mut seed = Self::engine(|_, _| {});
        for n in 1..=20 {
            seed.connect(n);
        }
        seed
    }

    /// A node with that release, changed as its test needs it, that knows nobody yet.
    fn engine(change: impl FnOnce(&mut EngineConfig, &TestRepository)) -> Self {
        let mut repository = TestRepository::new(start());
        let manifest = repository.publish("1.0.0", b"the first", start());
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (file, bytes) in &repository.files {
            match file {
                MetaFile::Root { version } => files.insert(format!("{version}.root.json"), bytes.clone()),
                MetaFile::Role { name, version } => files.insert(format!("{version}.{name}.json"), bytes.clone()),
                _ => None,
            };
        }
        let trusted = &repository.signed.trusted;
        let (timestamp, snapshot) = (trusted.timestamp().expect("signed"), trusted.snapshot().expect("signed"));
        files.insert("timestamp.json".to_owned(), timestamp.bytes().to_vec());
        files.insert(format!("{}.snapshot.json", snapshot.version), snapshot.bytes().to_vec());
        let targets: BTreeMap<Digest, Vec<u8>> =
            repository.files.values().map(|bytes| (Digest::of(bytes), bytes.clone())).collect();
        let mut config = EngineConfig {
            me: peer(200),
            repository: repository.id,
            ticket: None,
            is_seed: true,
            platform: Platform::any(),
            agent: "seed".to_owned(),
            random_seed: 1,
            adopt_wait_ms: 0,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        change(&mut config, &repository);
        let found = Restored {
            metadata: &MetadataReader(&|name| files.get(name).cloned()),
            target: &TargetReader(&|sha256| targets.get(sha256).cloned()),
            artifacts: vec![(manifest.clone(), Some(Bitmap::full(manifest.piece_count())))],
            subscriptions: Vec::new(),
            peers: Vec::new(),
            memory: Memory::default(),
            bans: Vec::new(),
        };
        let now = Now { wall: start(), mono_ms: 0 };
        let (engine, _) = Engine::restore(config, found, now).expect("a good repository");
        Self {
            engine,
            repository: repository.id.0,
            now_ms: 0,
            next_channel: 0,
            asked: Vec::new(),
            answers: BTreeMap::new(),
            discarded: Vec::new(),
            told: Vec::new(),
            parted: Vec::new(),
            room: Ok(()),
            said: Vec::new(),
            dialled: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: start().plus_seconds(i64::try_from(self.now_ms / 1_000).expect("not that long")),
            mono_ms: self.now_ms,
        }
    }

    fn connect(&mut self, n: u8) {
        self.connect_as(n, false, false);
    }

    fn connect_as(&mut self, n: u8, outbound: bool, seed: bool) {
        let address = format!("/ip4/192.0.2.{n}/tcp/1");
        self.swarm(SwarmInput::Connected { peer: peer(n), address, outbound });
        let hello = Hello { repository: self.repository.as_bytes().to_vec(), seed, ..Hello::default() };
        self.swarm(SwarmInput::Control { peer: peer(n), message: Control::Hello(hello) });
    }

    fn swarm(&mut self, input: SwarmInput) {
        self.input(Input::Swarm(input));
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        let effects = self.engine.handle(input, now);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Swarm(SwarmEffect::MetaAsk { request_id, peer, request }) => {
                self.asked.push((request_id, peer, request.file));
            }
            Effect::Swarm(SwarmEffect::MetaAnswer { channel, response: MetaResponse::Offer(answer) }) => {
                self.answers.insert(channel, answer);
            }
            Effect::Swarm(SwarmEffect::Disconnect { peer }) => self.parted.push(peer),
            Effect::Swarm(SwarmEffect::Control { peer, message }) => self.said.push((peer, message)),
            Effect::Swarm(SwarmEffect::Dial { peer, .. }) => self.dialled.extend(peer),
            Effect::Event(event) if event.kind == EventKind::PushRefused => self.told.push(event.text),
            Effect::OpenArtifact { manifest } => {
                let result = Ok(Bitmap::empty(manifest.piece_count()));
                self.input(Input::ArtifactOpened { manifest, result });
            }
            Effect::Offer(OfferEffect::Admit { number, .. }) => {
                let result = self.room.clone();
                self.input(Input::Offer(OfferInput::Admitted { number, result }));
            }
            Effect::Offer(OfferEffect::Sign { number, offer, file, .. }) => self.sign(number, &offer, &file),
            Effect::Offer(OfferEffect::Discard { artifact }) => self.discarded.push(artifact),
            _ => {}
        }
    }

    fn sign(&mut self, number: u64, offer: &Offer, file: &[u8]) {
        let view = self.engine.catalog().cloned().expect("a seed has a set");
        let outcome = match pushed::take(offer, file, &view, &TestKeys::default(), self.now().wall) {
            Ok((signed, _)) => {
                self.input(Input::Published { head: signed.head, files: signed.files });
                Signing::Done
            }
            Err(error) => Signing::Failed(error.to_string()),
        };
        self.input(Input::Offer(OfferInput::Signed { number, outcome }));
    }

    /// A peer makes an offer; what it is answered.
    fn offer(&mut self, n: u8, offer: &Offer) -> OfferAnswer {
        self.next_channel += 1;
        let channel = self.next_channel;
        let request = MetaRequest { repository: self.repository, file: MetaFile::Offer(offer.clone()) };
        self.swarm(SwarmInput::MetaAsked { channel, peer: peer(n), request });
        self.answers.remove(&channel).expect("every offer is answered at once")
    }

    /// A peer answers what the seed asks it for: this file, or nothing.
    fn deliver(&mut self, n: u8, file: impl Fn(&MetaFile) -> Option<Vec<u8>>) {
        let (due, others) = std::mem::take(&mut self.asked).into_iter().partition(|(_, asked, _)| *asked == peer(n));
        self.asked = others;
        let due: Vec<(u64, PeerId, MetaFile)> = due;
        for (request_id, peer, asked) in due {
            let response = file(&asked).map_or(MetaResponse::NotFound, MetaResponse::File);
            self.swarm(SwarmInput::MetaAnswered { request_id, peer, result: Ok(response) });
        }
    }

    /// The whole of an artifact arrives.
    fn artifact_arrives(&mut self, n: u8, manifest: &Manifest) {
        use updraft::engine::input::BlockOutcome;
        use updraft_protocol::transfer::BlockRange;
        let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
        for piece in 0..manifest.piece_count() {
            let index = manifest.index(piece).expect("a piece");
            let block = BlockRange { offset: manifest.offset_of(index), length: manifest.length_of(index) };
            let outcome = BlockOutcome::PieceVerified(piece);
            self.swarm(SwarmInput::BlockArrived { peer: peer(n), object, block, outcome });
        }
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 1_000 {
            self.now_ms += 1_000;
            self.input(Input::Tick);
        }
    }

    fn versions(&self) -> Vec<String> {
        let view = self.engine.catalog().expect("a seed has a set");
        view.releases.iter().map(|release| release.id.version.to_string()).collect()
    }

    /// The next version of the role, changed and signed by whoever.
    fn forge(&self, wish: Option<&Release>, key: &SigningKey, change: impl FnOnce(&mut Targets)) -> Offered {
        let view = self.engine.catalog().expect("a seed has a set");
        let mut next = Targets::clone(view.trusted.role(&role()).expect("the product has its role"));
        next.version += 1;
        next.expires = self.now().wall.plus_days(365);
        if let Some(release) = wish {
            next.targets.insert(release.path.clone(), release.to_target());
        }
        change(&mut next);
        let file = sign_role(&next, &[key]);
        let release = wish.map(|release| OfferedRelease { path: release.path.clone(), channel: Channel::stable() });
        let offer = Offer {
            role: role(),
            version: next.version,
            sha256: Digest::of(&file),
            length: file.len() as u64,
            release,
        };
        Offered { offer, file, release: wish.cloned().map(Arc::new) }
    }

    /// An honest push from a machine goes through.
    fn takes_an_honest_push(&mut self, n: u8, version: &str) {
        let (release, manifest) = release("app", version, version.as_bytes());
        let offered = self.forge(Some(&release), &key(), |_| {});
        let answer = self.offer(n, &offered.offer);
        assert!(matches!(answer, OfferAnswer::Taken { stage: OfferStage::Checking, .. }), "{answer:?}");
        self.deliver(n, |file| matches!(file, MetaFile::Role { .. }).then(|| offered.file.clone()));
        self.deliver(n, |file| matches!(file, MetaFile::Manifest { .. }).then(|| manifest.encode()));
        let answer = self.offer(n, &offered.offer);
        assert!(matches!(answer, OfferAnswer::Taken { stage: OfferStage::Fetching, .. }), "{answer:?}");
        assert!(!self.versions().contains(&version.to_owned()), "nothing before its artifact is here");
        self.artifact_arrives(n, &manifest);
        assert!(self.versions().contains(&version.to_owned()));
        assert!(matches!(self.offer(n, &offered.offer), OfferAnswer::Published { .. }));
    }

    /// Offers and delivers a role; the refusal.
    fn refuses(&mut self, n: u8, offered: &Offered) -> String {
        if let OfferAnswer::Refused { reason } = self.offer(n, &offered.offer) {
            return reason;
        }
        self.deliver(n, |_| Some(offered.file.clone()));
        match self.offer(n, &offered.offer) {
            OfferAnswer::Refused { reason } => reason,
            other => panic!("it was not refused: {other:?}"),
        }
    }
}

fn key() -> SigningKey {
    TestKeys::default().key(&role())
}

/// Refused for this reason; the old set is in force and an honest push from another machine goes through.
fn is_refused(reason: &str, offered: impl FnOnce(&Seed) -> Offered) {
    let mut seed = Seed::new();
    let offered = offered(&seed);
    let found = seed.refuses(1, &offered);
    assert!(found.contains(reason), "'{reason}' is not in '{found}'");
    assert_eq!(seed.versions(), ["1.0.0"]);
    seed.wait(2_000);
    seed.takes_an_honest_push(2, "3.0.0");
    assert_eq!(seed.versions(), ["1.0.0", "3.0.0"]);
}

#[test]
fn an_honest_push_is_published_once_its_artifact_is_here() {
    let mut seed = Seed::new();
    seed.takes_an_honest_push(1, "1.1.0");
    seed.wait(2_000);
    seed.takes_an_honest_push(1, "1.2.0");
    assert_eq!(seed.versions(), ["1.0.0", "1.1.0", "1.2.0"]);
}

#[test]
fn a_forged_signature_is_refused() {
    is_refused("valid signatures", |seed| {
        seed.forge(Some(&release("app", "2.0.0", b"evil").0), &SigningKey::from_seed([66; 32]), |_| {})
    });
}

#[test]
fn whoever_goes_on_forging_is_parted_from() {
    let mut seed = Seed::new();
    for round in 0..8_u8 {
        let (release, _) = release("app", &format!("2.0.{round}"), b"evil");
        let forged = seed.forge(Some(&release), &SigningKey::from_seed([66; 32]), |_| {});
        seed.refuses(1, &forged);
        seed.wait(2_000);
    }
    assert_eq!(seed.parted, [peer(1)]);
}

#[test]
fn a_changed_release_is_refused() {
    is_refused("would be changed", |seed| {
        seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |next| {
            for (path, target) in next.targets.iter_mut().filter(|(path, _)| path.contains("/1.0.0/")) {
                let (mut other, _) = release("app", "1.0.0", b"other bytes");
                other.path.clone_from(path);
                *target = other.to_target();
            }
        })
    });
}

#[test]
fn a_removed_release_is_refused() {
    is_refused("would be removed", |seed| {
        seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |next| {
            next.targets.retain(|path, _| !path.contains("/1.0.0/"));
        })
    });
}

#[test]
fn another_products_release_is_refused() {
    is_refused("is not a release of app", |seed| seed.forge(Some(&release("tool", "2.0.0", b"two").0), &key(), |_| {}));
    // Not named in the offer, and put into the file all the same.
    is_refused("not what was offered", |seed| {
        seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |next| {
            let (other, _) = release("tool", "2.0.0", b"two");
            next.targets.insert(other.path.clone(), other.to_target());
        })
    });
}

#[test]
fn a_channel_that_the_publisher_did_not_permit_is_refused() {
    is_refused("not signed for channel 'beta'", |seed| {
        let mut offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |_| {});
        if let Some(release) = &mut offered.offer.release {
            release.channel = "beta".parse().expect("a name");
        }
        offered
    });
}

#[test]
fn a_skipped_version_is_refused() {
    is_refused("comes next", |seed| {
        let mut offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |next| next.version += 1);
        offered.offer.version += 1;
        offered
    });
    // The offer says one version and the file another.
    is_refused("version", |seed| {
        let mut offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |next| next.version += 1);
        offered.offer.version -= 1;
        offered
    });
}

#[test]
fn an_endless_role_is_refused_before_and_after_it_comes() {
    is_refused("bytes; with one more release", |seed| {
        let mut offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |_| {});
        offered.offer.length = u64::MAX;
        offered
    });
    is_refused("not the one that was offered", |seed| {
        let mut offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |_| {});
        offered.file.resize(1 << 20, b' ');
        offered
    });
}

#[test]
fn a_delegation_inside_the_role_is_refused() {
    is_refused("delegations", |seed| {
        seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |next| {
            let role =
                updraft_protocol::tuf::DelegatedRole::new("sub".parse().expect("a name"), &["releases/app/*/*/*"]);
            let delegations = updraft_protocol::tuf::Delegations::default().with_role(role, 1, &[key().public()]);
            next.delegations = Some(delegations);
        })
    });
}

#[test]
fn a_target_that_is_no_release_is_refused() {
    is_refused("description", |seed| {
        let (two, _) = release("app", "2.0.0", b"two");
        seed.forge(Some(&two), &key(), |next| {
            next.targets.insert(two.path.clone(), TargetInfo::of(b"two"));
        })
    });
}

#[test]
fn other_roles_are_not_taken_from_anybody() {
    let mut seed = Seed::new();
    for (number, name) in (1..).zip(["targets", "channels", "snapshot", "releases-", "releases-../x", "releases-tool"])
    {
        let offer = Offer {
            role: name.parse().expect("a role name"),
            version: 100,
            sha256: Digest::ZERO,
            length: 100,
            release: None,
        };
        assert!(matches!(seed.offer(number, &offer), OfferAnswer::Refused { .. }), "{name}");
        assert!(seed.asked.is_empty(), "{name}: nothing is asked for");
    }
}

#[test]
fn a_role_that_never_comes_loses_its_place() {
    let mut seed = Seed::new();
    let (two, _) = release("app", "2.0.0", b"two");
    let offered = seed.forge(Some(&two), &key(), |_| {});
    // As many liars as there are places, and one more.
    for n in 1..=8 {
        let mut offer = offered.offer.clone();
        offer.sha256 = Digest::of(&[n]);
        assert!(matches!(seed.offer(n, &offer), OfferAnswer::Taken { .. }));
    }
    assert!(matches!(seed.offer(9, &offered.offer), OfferAnswer::Busy { .. }), "the places are bounded");
    seed.wait(22_000);
    seed.takes_an_honest_push(10, "2.0.0");
}

#[test]
fn an_artifact_that_never_comes_is_given_up_and_removed() {
    let mut seed = Seed::new();
    let (two, manifest) = release("app", "2.0.0", b"two");
    let offered = seed.forge(Some(&two), &key(), |_| {});
    seed.offer(1, &offered.offer);
    seed.deliver(1, |_| Some(offered.file.clone()));
    seed.deliver(1, |_| Some(manifest.encode()));
    // It says again and again that it is there, and sends nothing.
    for _ in 0..10 {
        assert!(matches!(seed.offer(1, &offered.offer), OfferAnswer::Taken { .. }));
        seed.wait(10_000);
    }
    let other = seed.forge(Some(&release("app", "3.0.0", b"three").0), &key(), |_| {});
    assert!(matches!(seed.offer(2, &other.offer), OfferAnswer::Busy { .. }), "one verified push a role");
    for _ in 0..3 {
        seed.offer(1, &offered.offer);
        seed.wait(10_000);
    }
    let OfferAnswer::Refused { reason } = seed.offer(1, &offered.offer) else { panic!("still there") };
    assert!(reason.contains("nothing arrived"), "{reason}");
    seed.takes_an_honest_push(3, "4.0.0");
    assert!(seed.discarded.is_empty(), "it is kept for a retry");
    seed.wait(600_000);
    assert_eq!(seed.discarded, [two.artifact]);
}

#[test]
fn whoever_falls_silent_gives_way_to_another() {
    let mut seed = Seed::new();
    let (two, manifest) = release("app", "2.0.0", b"two");
    let offered = seed.forge(Some(&two), &key(), |_| {});
    seed.offer(1, &offered.offer);
    seed.deliver(1, |_| Some(offered.file.clone()));
    seed.deliver(1, |_| Some(manifest.encode()));
    seed.swarm(SwarmInput::Disconnected { peer: peer(1), reason: "gone".to_owned() });
    seed.wait(16_000);
    seed.takes_an_honest_push(2, "3.0.0");
}

#[test]
fn the_same_file_offered_by_two_machines_is_published_once() {
    let mut seed = Seed::new();
    let (two, manifest) = release("app", "2.0.0", b"two");
    let offered = seed.forge(Some(&two), &key(), |_| {});
    for n in [1, 2] {
        seed.offer(n, &offered.offer);
        seed.deliver(n, |_| Some(offered.file.clone()));
    }
    for n in [1, 2] {
        seed.deliver(n, |_| Some(manifest.encode()));
    }
    seed.artifact_arrives(2, &manifest);
    assert_eq!(seed.versions(), ["1.0.0", "2.0.0"]);
    for n in [1, 2] {
        assert!(matches!(seed.offer(n, &offered.offer), OfferAnswer::Published { .. }));
    }
    seed.wait(700_000);
    assert!(seed.discarded.is_empty(), "what is published is never discarded");
}

#[test]
fn a_full_disk_refuses_with_its_reason() {
    let mut seed = Seed::new();
    seed.room = Err("the seed has 3 bytes left".to_owned());
    let offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |_| {});
    assert!(seed.refuses(1, &offered).contains("3 bytes left"));
    assert!(seed.told.iter().any(|text| text.contains("3 bytes left")), "{:?}", seed.told);
    seed.room = Ok(());
    seed.wait(2_000);
    seed.takes_an_honest_push(2, "2.1.0");
}

#[test]
fn the_loser_of_a_race_is_told_which_version_exists() {
    let mut seed = Seed::new();
    let loser = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |_| {});
    seed.takes_an_honest_push(1, "1.5.0");
    assert_eq!(seed.offer(2, &loser.offer), OfferAnswer::Overtaken { version: loser.offer.version });
}

#[test]
fn offers_of_one_peer_are_slowed_down() {
    let mut seed = Seed::new();
    let offered = seed.forge(Some(&release("app", "2.0.0", b"two").0), &key(), |_| {});
    let mut asked = 0;
    for n in 0..100_u8 {
        let mut offer = offered.offer.clone();
        offer.sha256 = Digest::of(&[n]);
        let _ = seed.offer(1, &offer);
        asked += std::mem::take(&mut seed.asked).len();
    }
    assert_eq!(asked, 1, "one file a second at most");
}

#[test]
fn a_peer_takes_no_offers() {
    let seed = Seed::new();
    let offered = seed.forge(None, &key(), |_| {});
    let repository = TestRepository::new(start());
    let config = EngineConfig {
        me: peer(201),
        repository: repository.id,
        ticket: Some(repository.ticket(Vec::new())),
        is_seed: false,
        platform: Platform::any(),
        agent: "peer".to_owned(),
        random_seed: 1,
        adopt_wait_ms: 0,
        limits: updraft::engine::limits::Limits::default(),
        egress_budget_percent: None,
    };
    let found = Restored {
        metadata: &MetadataReader(&|_| None),
        target: &TargetReader(&|_| None),
        artifacts: Vec::new(),
        subscriptions: Vec::new(),
        peers: Vec::new(),
        memory: Memory::default(),
        bans: Vec::new(),
    };
    let now = Now { wall: start(), mono_ms: 0 };
    let (engine, _) = Engine::restore(config, found, now).expect("a good repository");
    let mut node = Seed { engine, repository: repository.id.0, ..seed };
    node.connect(1);
    let OfferAnswer::Refused { reason } = node.offer(1, &offered.offer) else { panic!("it was not refused") };
    assert!(reason.contains("online keys"), "{reason}");
}

/// What a peer says that it holds of an artifact, all or nothing, and whether it wants it.
fn announce(artifact: &Manifest, holds: bool) -> Control {
    let count = artifact.piece_count();
    let have = if holds { Bitmap::full(count) } else { Bitmap::empty(count) };
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *artifact.artifact() };
    Control::Announce { handle: 7, object, wants: !holds, have: have.as_bytes().to_vec() }
}

#[test]
fn a_pushed_release_is_offered_at_once_though_its_publisher_stays() {
    let mut seed = Seed::new();
    let bytes: Vec<u8> = (0_u32..1 << 20).map(|at| (at % 251) as u8).collect();
    let (release, manifest) = release("app", "2.0.0", &bytes);
    let offered = seed.forge(Some(&release), &key(), |_| {});
    seed.offer(1, &offered.offer);
    seed.deliver(1, |file| matches!(file, MetaFile::Role { .. }).then(|| offered.file.clone()));
    seed.deliver(1, |file| matches!(file, MetaFile::Manifest { .. }).then(|| manifest.encode()));
    seed.swarm(SwarmInput::Control { peer: peer(1), message: announce(&manifest, true) });
    seed.artifact_arrives(1, &manifest);
    assert!(seed.versions().contains(&"2.0.0".to_owned()));
    seed.said.clear();
    seed.swarm(SwarmInput::Control { peer: peer(2), message: announce(&manifest, false) });
    let offers = seed.said.iter().filter_map(|(to, message)| match message {
        Control::Have { pieces, .. } if *to == peer(2) => Some(pieces.len()),
        _ => None,
    });
    assert!(offers.sum::<usize>() > 0, "{:?}", seed.said);
}

#[test]
fn strangers_that_call_themselves_seeds_do_not_keep_a_publisher_from_the_seed_of_its_ticket() {
    let named = peer(99);
    let mut publisher = Seed::engine(|config, repository| {
        config.is_seed = false;
        config.ticket = Some(repository.ticket(vec![format!("/ip4/192.0.2.99/tcp/1/p2p/{named}")]));
    });
    publisher.wait(1_000);
    assert_eq!(std::mem::take(&mut publisher.dialled), std::slice::from_ref(&named));
    let failed = |peer: &PeerId| SwarmInput::DialFailed {
        peer: Some(peer.clone()),
        addresses: Vec::new(),
        reason: "nobody is there".to_owned(),
    };
    publisher.swarm(failed(&named));
    for n in 1..=13 {
        publisher.connect_as(n, true, true);
    }
    publisher.wait(60_000);
    assert!(publisher.dialled.is_empty(), "it has neighbours enough, and needs no seed");
    let offered = publisher.forge(None, &key(), |_| {});
    let now = publisher.now();
    for effect in publisher.engine.begin_offering(offered, now) {
        publisher.carry_out(effect);
    }
    for round in 1..=3 {
        publisher.wait(20_000);
        assert_eq!(std::mem::take(&mut publisher.dialled), std::slice::from_ref(&named), "in round {round}");
        publisher.swarm(failed(&named));
    }
    publisher.wait(1_000);
    publisher.connect_as(99, true, true);
    publisher.dialled.clear();
    publisher.wait(60_000);
    assert!(publisher.dialled.is_empty(), "it is there");
}
