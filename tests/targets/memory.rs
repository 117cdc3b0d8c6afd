//! What a node remembers, and what it lets nobody do: one engine on a disk that is a map, a publisher
//! that signs whatever a thief of its keys would.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use proptest::prelude::*;
use semver::Version;
use updraft::engine::bans::Ban;
use updraft::engine::catalog::CatalogView;
use updraft::engine::clock::{AHEAD_S, ClockState, build_date};
use updraft::engine::effect::{Effect, EventKind, GossipVerdict, Save, SwarmEffect};
use updraft::engine::input::{Input, Now, SwarmInput};
use updraft::engine::install::{Recovered, SubscriptionSpec};
use updraft::engine::memory::{Learned, Memory};
use updraft::engine::plan::{Decision, Facts, GateName, Verdict, plan};
use updraft::engine::watch::Signing;
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft::store::state::StateDb;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::Head;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::names::{Channel, Platform, Product, ReleaseId};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};
use updraft_protocol::rollout::{ChannelPolicy, Rollout, Stage};
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{Control, Hello};
use updraft_protocol::tuf::RoleName;
use updraft_tests::holder::{Forged, Holder};
use updraft_tests::repository::TestRepository;

fn at(seconds: i64) -> UtcTime {
    build_date().plus_days(100).plus_seconds(seconds)
}

fn app() -> Product {
    "app".parse().expect("a name")
}

fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[n; 8]).expect("in bounds")
}

fn release_of(product: &Product, number: &str, salt: &str, channels: &[&str]) -> Release {
    let id = ReleaseId { product: product.clone(), version: version(number), platform: Platform::any() };
    let file_name = format!("{product}-{number}.bin").parse().expect("a file name");
    let artifact = Digest::of(format!("{number} {salt}").as_bytes());
    Release {
        path: id.path(&file_name),
        file_name,
        artifact,
        length: 1_000,
        format: Format::File,
        content: Content { sha256: artifact, length: 1_000, entries: 1 },
        manifest: ManifestRef { sha256: Digest::of(salt.as_bytes()), length: 100 },
        channels: channels.iter().map(|channel| channel.parse().expect("a name")).collect(),
        min_from: None,
        notes: Notes::None,
        critical: false,
        id,
    }
}

fn release(number: &str, salt: &str) -> Release {
    release_of(&app(), number, salt, &["stable"])
}

/// A publisher whose product has these releases, the last one on `stable`.
fn publisher(numbers: &[&str]) -> (TestRepository, Holder) {
    let repository = TestRepository::new(at(0));
    let mut forge = Holder::of(&repository);
    add(&mut forge, numbers);
    (repository, forge)
}

fn add(forge: &mut Holder, numbers: &[&str]) {
    for number in numbers {
        put(forge, &release(number, "first"));
    }
    if let Some(last) = numbers.last() {
        forge.set_channel(&app(), &Channel::stable(), &ChannelPolicy::pointing_to(version(last)), at(0));
    }
}

fn put(forge: &mut Holder, release: &Release) {
    forge.change(&RoleName::releases(&release.id.product), at(0), |role| {
        role.targets.insert(release.path.clone(), release.to_target());
    });
}

fn set_floor(forge: &mut Holder, floor: Option<&str>) {
    forge.change(&RoleName::targets(), at(0), |role| {
        role.security_floor = floor.map(|floor| (app(), version(floor))).into_iter().collect();
    });
}

/// One engine and its disk.
struct Machine {
    engine: Engine,
    repository: TestRepository,
    files: BTreeMap<String, Vec<u8>>,
    targets: BTreeMap<Digest, Vec<u8>>,
    memory: Memory,
    bans: Vec<Ban>,
    now: Now,
    effects: Vec<Effect>,
    is_seed: bool,
}

impl Machine {
    fn new(repository: TestRepository) -> Self {
        let mut files = BTreeMap::new();
        for (file, bytes) in &repository.files {
            match file {
                MetaFile::Root { version } => files.insert(format!("{version}.root.json"), bytes.clone()),
                MetaFile::Role { name, version } => files.insert(format!("{version}.{name}.json"), bytes.clone()),
                _ => None,
            };
        }
        let trusted = &repository.signed.trusted;
        files.insert("timestamp.json".to_owned(), trusted.timestamp().expect("whole").bytes().to_vec());
        files.insert("1.snapshot.json".to_owned(), trusted.snapshot().expect("whole").bytes().to_vec());
        let now = Now { wall: at(0), mono_ms: 0 };
        let disk = (files, BTreeMap::new());
        let (engine, effects) = restore(&repository, &disk, Memory::default(), Vec::new(), now, false);
        let (files, targets) = disk;
        let (memory, bans) = (Memory::default(), Vec::new());
        let mut machine =
            Self { engine, repository, files, targets, memory, bans, now, effects: Vec::new(), is_seed: false };
        machine.keep(effects);
        machine
    }

    fn restart(&mut self) {
        let disk = (std::mem::take(&mut self.files), std::mem::take(&mut self.targets));
        let (memory, bans) = (self.memory.clone(), self.bans.clone());
        let (engine, effects) = restore(&self.repository, &disk, memory, bans, self.now, self.is_seed);
        (self.files, self.targets) = disk;
        self.engine = engine;
        self.effects.clear();
        self.keep(effects);
    }

    fn keep(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            match effect {
                Effect::Save(saves) => {
                    for save in saves {
                        match save {
                            Save::Metadata { name, bytes } => drop(self.files.insert(name.clone(), bytes.clone())),
                            Save::Target { sha256, bytes } => drop(self.targets.insert(*sha256, bytes.clone())),
                            Save::Memory(learned) => {
                                for (path, entry) in &learned.targets {
                                    self.memory.targets.entry(path.clone()).or_insert(*entry);
                                }
                                self.memory.floors.extend(learned.floors.iter().cloned());
                                self.memory.clock.remembered = learned.signed_at.or(self.memory.clock.remembered);
                            }
                        }
                    }
                }
                Effect::RememberBan(ban) => self.bans.push(ban.clone()),
                Effect::ForgetBan { peer } => self.bans.retain(|ban| ban.peer != *peer),
                _ => {}
            }
        }
        self.effects.extend(effects);
    }

    fn input(&mut self, input: Input) {
        let effects = self.engine.handle(input, self.now);
        self.keep(effects);
    }

    fn swarm(&mut self, input: SwarmInput) {
        self.input(Input::Swarm(input));
    }

    fn take(&mut self, forged: Forged) {
        let version = forged.trusted.timestamp().map(|timestamp| timestamp.version);
        self.input(Input::Published { head: forged.head, files: forged.files });
        assert_eq!(self.view().trusted.timestamp().map(|timestamp| timestamp.version), version, "{:?}", self.events());
    }

    /// Time passes, by the wall clock too.
    fn tick_at(&mut self, wall: UtcTime) {
        self.now = Now { wall, mono_ms: self.now.mono_ms + 2_000 };
        self.input(Input::Tick);
    }

    fn view(&self) -> &CatalogView {
        self.engine.catalog().expect("a set is in force")
    }

    fn decision(&self) -> &Decision {
        self.engine.subscriptions()[0].decision.as_ref().expect("it was planned")
    }

    fn events(&self) -> Vec<(EventKind, &str)> {
        let told = self.effects.iter().filter_map(|effect| match effect {
            Effect::Event(event) => Some((event.kind, event.text.as_str())),
            _ => None,
        });
        told.collect()
    }

    fn told(&self, kind: EventKind) -> usize {
        self.events().iter().filter(|(told, _)| *told == kind).count()
    }

    fn connect(&mut self, n: u8) {
        self.swarm(SwarmInput::Connected { peer: peer(n), address: "/ip4/192.0.2.1/tcp/1".to_owned(), outbound: true });
        let hello = Hello {
            repository: self.repository.id.0.as_bytes().to_vec(),
            root_version: 1,
            timestamp_version: 1,
            ..Hello::default()
        };
        self.swarm(SwarmInput::Control { peer: peer(n), message: Control::Hello(hello) });
    }

    fn sent(&self, is: impl Fn(&SwarmEffect) -> bool) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::Swarm(effect) if is(effect))).count()
    }
}

type Disk = (BTreeMap<String, Vec<u8>>, BTreeMap<Digest, Vec<u8>>);

fn restore(
    repository: &TestRepository,
    disk: &Disk,
    memory: Memory,
    bans: Vec<Ban>,
    now: Now,
    is_seed: bool,
) -> (Engine, Vec<Effect>) {
    let config = EngineConfig {
        me: peer(100),
        repository: repository.id,
        ticket: (!is_seed).then(|| repository.ticket(Vec::new())),
        is_seed,
        platform: Platform::any(),
        agent: "test".to_owned(),
        random_seed: 1,
        adopt_wait_ms: 10_000,
        limits: updraft::engine::limits::Limits::default(),
        egress_budget_percent: None,
    };
    let directory = Some("/virtual".to_owned());
    let spec = SubscriptionSpec { product: app(), channel: Channel::stable(), directory };
    let found = Restored {
        metadata: &MetadataReader(&|name| disk.0.get(name).cloned()),
        target: &TargetReader(&|sha256| disk.1.get(sha256).cloned()),
        artifacts: Vec::new(),
        subscriptions: vec![(spec, Recovered::default())],
        peers: Vec::new(),
        memory,
        bans,
    };
    Engine::restore(config, found, now).expect("a good repository")
}

// ---- immutable releases -------------------------------------------------------------------------

#[test]
fn a_release_that_changes_is_refused_and_the_rest_of_the_set_stays_in_force() {
    let (repository, mut forge) = publisher(&["1.0.0", "1.1.0"]);
    let mut machine = Machine::new(repository);
    machine.take(forge.sign(at(0), at(0)));
    assert_eq!(machine.decision().verdict, Verdict::Install);
    // Only the piece list differs: the artifact's hash is the same.
    let first = release("1.1.0", "first");
    let changed = Release { manifest: ManifestRef { sha256: Digest::ZERO, length: 100 }, ..first.clone() };
    put(&mut forge, &changed);
    machine.take(forge.sign(at(1), at(1)));
    let view = machine.view();
    assert_eq!(view.altered, BTreeSet::from([first.path.clone()]));
    assert_eq!(view.releases.iter().map(|r| r.id.version.clone()).collect::<Vec<_>>(), [version("1.0.0")]);
    assert!(view.release_of(&first.artifact).is_none());
    assert!(view.refused.iter().any(|refused| refused.contains("immutable")), "{:?}", view.refused);
    assert_eq!(machine.decision().verdict, Verdict::Nothing);
    assert!(machine.engine.subscriptions()[0].state == updraft::engine::install::InstallState::Idle);
    assert_eq!(machine.told(EventKind::ReleaseAltered), 1);
    machine.take(forge.sign(at(2), at(2)));
    assert_eq!(machine.told(EventKind::ReleaseAltered), 1, "an alarm is told once, not with every head");
}

#[test]
fn a_release_that_was_taken_away_and_comes_back_different_is_refused_after_a_restart_too() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.take(forge.sign(at(0), at(0)));
    let path = release("1.0.0", "first").path;
    let retire = |role: &mut updraft_protocol::tuf::Targets| drop(role.targets.remove(&path));
    forge.change(&RoleName::releases(&app()), at(0), retire);
    machine.take(forge.sign(at(1), at(1)));
    assert!(machine.view().releases.is_empty() && machine.view().altered.is_empty());
    machine.restart();
    put(&mut forge, &release("1.0.0", "second"));
    machine.take(forge.sign(at(2), at(2)));
    assert_eq!(machine.told(EventKind::ReleaseAltered), 1);
    assert!(machine.view().releases.is_empty());
    machine.restart();
    assert!(machine.view().releases.is_empty(), "what is on disk is judged by the same memory");
    put(&mut forge, &release("1.0.0", "first"));
    machine.take(forge.sign(at(3), at(3)));
    assert_eq!(machine.view().releases.len(), 1, "the release that it always was");
    assert!(machine.view().altered.is_empty());
}

#[test]
fn memory_is_on_disk_before_the_set_that_taught_it() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.effects.clear();
    machine.take(forge.sign(at(0), at(0)));
    let saves: Vec<&Save> = machine
        .effects
        .iter()
        .filter_map(|effect| if let Effect::Save(saves) = effect { Some(saves) } else { None })
        .flatten()
        .collect();
    let memory = saves.iter().position(|save| matches!(save, Save::Memory(_))).expect("something was learned");
    let timestamp = saves
        .iter()
        .position(|save| matches!(save, Save::Metadata { name, .. } if name == "timestamp.json"))
        .expect("the set was saved");
    assert!(memory < timestamp, "{saves:?}");
    machine.effects.clear();
    machine.take(forge.sign(at(0), at(0)));
    let again = machine.effects.iter().any(
        |effect| matches!(effect, Effect::Save(saves) if saves.iter().any(|save| matches!(save, Save::Memory(_)))),
    );
    assert!(!again, "what is known is not written again");
}

#[test]
fn another_products_publisher_cannot_say_first_what_a_release_is() {
    let (repository, mut forge) = publisher(&[]);
    let mut machine = Machine::new(repository);
    let honest = release("1.0.0", "first");
    // The channels role speaks of channels only; what it says of releases leads nowhere.
    forge.change(&RoleName::channels(), at(0), |role| {
        role.targets.insert(honest.path.clone(), release("1.0.0", "stolen").to_target());
    });
    machine.take(forge.sign(at(0), at(0)));
    add(&mut forge, &["1.0.0"]);
    machine.take(forge.sign(at(1), at(1)));
    assert_eq!(machine.view().releases.len(), 1);
    assert_eq!(machine.told(EventKind::ReleaseAltered), 0);
}

// ---- floors -------------------------------------------------------------------------------------

#[test]
fn a_floor_holds_though_later_metadata_lowers_or_drops_it() {
    let (repository, mut forge) = publisher(&["1.0.0", "1.1.0"]);
    let mut machine = Machine::new(repository);
    set_floor(&mut forge, Some("1.1.0"));
    machine.take(forge.sign(at(0), at(0)));
    for (second, floor) in [(1, Some("1.0.0")), (2, None)] {
        set_floor(&mut forge, floor);
        let back = ChannelPolicy {
            allow_downgrade_to: Some(version("1.0.0")),
            ..ChannelPolicy::pointing_to(version("1.0.0"))
        };
        forge.set_channel(&app(), &Channel::stable(), &back, at(0));
        machine.take(forge.sign(at(second), at(second)));
        machine.restart();
        assert_eq!(machine.decision().blocked_by().map(|gate| gate.name), Some(GateName::Floor), "{floor:?}");
    }
    machine.effects.clear();
    machine.take(forge.sign(at(3), at(3)));
    assert_eq!(machine.told(EventKind::FloorHeld), 0, "told once, when the targets role changes");
    set_floor(&mut forge, Some("0.1.0"));
    machine.take(forge.sign(at(4), at(4)));
    assert_eq!(machine.told(EventKind::FloorHeld), 1);
}

#[test]
fn only_a_root_that_replaces_the_targets_key_lowers_a_floor() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    set_floor(&mut forge, Some("20.0.0"));
    machine.take(forge.sign(at(0), at(0)));
    assert_eq!(machine.decision().verdict, Verdict::Blocked);
    set_floor(&mut forge, Some("1.0.0"));
    forge.rotate_targets_key(at(1));
    machine.take(forge.sign(at(1), at(1)));
    assert_eq!(machine.view().floors.get(&app()), Some(&version("1.0.0")));
    assert_eq!(machine.decision().verdict, Verdict::Install);
    machine.restart();
    assert_eq!(machine.decision().verdict, Verdict::Install);
}

// ---- clocks and age -----------------------------------------------------------------------------

fn gate(machine: &Machine, name: GateName) -> (bool, String) {
    let gate = machine.decision().gates.iter().find(|gate| gate.name == name).expect("the gate was asked");
    (gate.open, gate.reason.clone())
}

#[test]
fn a_clock_that_jumps_back_stops_installs_until_it_is_put_right_and_says_so_once() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.take(forge.sign(at(0), at(0)));
    machine.restart();
    for _ in 0..3 {
        machine.tick_at(at(-3_600));
    }
    let (open, reason) = gate(&machine, GateName::Clock);
    assert!(!open && reason.contains("metadata signed at"), "{reason}");
    assert_eq!(machine.told(EventKind::ClockUntrusted), 1);
    machine.restart();
    assert!(!gate(&machine, GateName::Clock).0, "it survives a restart");
    machine.tick_at(at(10));
    assert!(gate(&machine, GateName::Clock).0);
    assert_eq!(machine.told(EventKind::ClockTrusted), 1);
    assert_eq!(machine.decision().verdict, Verdict::Install);
}

#[test]
fn a_node_with_a_reset_clock_goes_on_taking_metadata() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.tick_at(UtcTime::from_unix(0));
    machine.take(forge.sign(at(0), at(0)));
    assert_eq!(machine.engine.clock(machine.now), ClockState::BeforeBuild);
    assert!(!gate(&machine, GateName::Clock).0);
    machine.tick_at(at(5));
    assert_eq!(machine.decision().verdict, Verdict::Install);
}

#[test]
fn a_wrong_clock_stops_installs_and_not_downloads() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.tick_at(UtcTime::from_unix(0));
    machine.take(forge.sign(at(0), at(0)));
    machine.connect(1);
    machine.tick_at(UtcTime::from_unix(2));
    let manifest = release("1.0.0", "first").manifest.sha256;
    let asked = |e: &SwarmEffect| matches!(e, SwarmEffect::MetaAsk { request, .. } if request.file == MetaFile::Manifest { sha256: manifest });
    assert!(machine.sent(asked) > 0, "{:?}", machine.effects);
    assert_eq!(machine.decision().verdict, Verdict::Blocked);
}

#[test]
fn a_head_from_the_far_future_stops_the_fleet_only_while_it_is_the_newest() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.take(forge.sign(at(0), at(0).plus_days(36_500)));
    assert!(!gate(&machine, GateName::Clock).0);
    machine.restart();
    machine.take(forge.sign(at(10), at(10)));
    assert_eq!(machine.decision().verdict, Verdict::Install);
    // As far ahead as is believed: over after a day.
    machine.take(forge.sign(at(20), at(20 + AHEAD_S)));
    assert!(!gate(&machine, GateName::Clock).0);
    machine.take(forge.sign(at(30), at(30)));
    machine.tick_at(at(20 + AHEAD_S));
    assert_eq!(machine.decision().verdict, Verdict::Install);
}

#[test]
fn a_seed_with_a_wrong_clock_does_not_sign_until_an_operator_vouches_for_it() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.is_seed = true;
    machine.take(forge.sign(at(0), at(0)));
    machine.restart();
    machine.now.mono_ms += 120_000;
    machine.tick_at(at(-7 * 3_600));
    assert!(matches!(machine.engine.signing(machine.now), Signing::Refused(reason) if reason.contains("clock")));
    assert!(!machine.effects.iter().any(|effect| matches!(effect, Effect::Resign)));
    let _effects = machine.engine.trust_clock(machine.now).expect("later than the build date");
    machine.take(forge.sign(at(-7 * 3_600), at(-7 * 3_600)));
    assert_eq!(machine.engine.signing(machine.now), Signing::Ready);
    machine.tick_at(UtcTime::from_unix(0));
    assert!(machine.engine.trust_clock(machine.now).is_err(), "nobody can vouch for 1970");
}

#[test]
fn expiry_is_told_once_and_stops_installs_but_takes_nothing_away() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    machine.take(forge.sign(at(0), at(0)));
    for day in [15, 16, 17] {
        machine.tick_at(at(0).plus_days(day));
    }
    assert_eq!(machine.told(EventKind::MetadataExpired), 1);
    assert!(!gate(&machine, GateName::Freshness).0);
    assert_eq!(machine.view().releases.len(), 1);
    let now = at(0).plus_days(17);
    machine.take(forge.sign(now, now));
    machine.tick_at(now);
    assert_eq!(machine.told(EventKind::MetadataFresh), 1);
    assert_eq!(machine.decision().verdict, Verdict::Install);
}

#[test]
fn while_a_rollout_is_under_way_a_head_is_believed_for_a_day_and_else_until_it_expires() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    let stages = vec![Stage { percent: 99, at: at(0) }];
    let rolling =
        ChannelPolicy { rollout: Rollout { start: at(0), stages }, ..ChannelPolicy::pointing_to(version("1.0.0")) };
    forge.set_channel(&app(), &Channel::stable(), &rolling, at(0));
    machine.take(forge.sign(at(0), at(0)));
    machine.tick_at(at(86_400));
    assert!(gate(&machine, GateName::Freshness).0);
    machine.tick_at(at(86_401));
    assert!(!gate(&machine, GateName::Freshness).0, "a pause may be hidden");
    forge.set_channel(&app(), &Channel::stable(), &ChannelPolicy::pointing_to(version("1.0.0")), at(0));
    machine.take(forge.sign(at(86_401), at(86_401)));
    machine.tick_at(at(86_401).plus_days(13));
    assert!(gate(&machine, GateName::Freshness).0);
    let short = ChannelPolicy { max_head_age_s: Some(60), ..ChannelPolicy::pointing_to(version("1.0.0")) };
    forge.set_channel(&app(), &Channel::stable(), &short, machine.now.wall);
    let signed_at = machine.now.wall;
    machine.take(forge.sign(signed_at, signed_at));
    machine.tick_at(signed_at.plus_seconds(61));
    assert!(!gate(&machine, GateName::Freshness).0);
}

// ---- neighbours ---------------------------------------------------------------------------------

#[test]
fn a_forged_head_bans_its_sender_for_good_reason_across_restarts() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    let mut head = Head::decode(&forge.sign(at(0), at(0)).head).expect("a head");
    machine.connect(1);
    let sig = head.timestamp.windows(7).position(|bytes| bytes == b"\"sig\":\"").expect("it is signed") + 7;
    head.timestamp[sig] = if head.timestamp[sig] == b'0' { b'1' } else { b'0' };
    machine.swarm(SwarmInput::Gossip { message: vec![1], peer: peer(1), payload: head.encode() });
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Ban { peer: banned } if *banned == peer(1))), 1);
    assert_eq!(machine.bans.len(), 1);
    machine.restart();
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Ban { .. })), 1, "imposed again at start");
    machine.connect(1);
    assert_eq!(machine.engine.connected_peers(), 0);
    machine.swarm(SwarmInput::Discovered {
        peer: peer(1),
        addresses: vec!["/ip4/192.0.2.1/tcp/1".to_owned()],
        source: updraft::engine::input::DiscoverySource::Mdns,
    });
    machine.tick_at(at(10));
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Dial { .. })), 0, "never dialled");
    let effects = machine.engine.unban(&peer(1)).expect("it was banned");
    machine.keep(effects);
    assert!(machine.bans.is_empty());
    machine.connect(1);
    assert_eq!(machine.engine.connected_peers(), 1);
}

#[test]
fn a_ban_ends_by_itself_after_a_week() {
    let (repository, _) = publisher(&[]);
    let mut machine = Machine::new(repository);
    machine.connect(1);
    machine.swarm(SwarmInput::Gossip { message: vec![1], peer: peer(1), payload: b"junk".to_vec() });
    machine.tick_at(at(0).plus_days(6));
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Unban { .. })), 0);
    machine.tick_at(at(0).plus_days(7));
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Unban { .. })), 1);
    assert_eq!(machine.told(EventKind::PeerUnbanned), 1);
}

#[test]
fn faults_end_a_session_and_ban_nobody() {
    let (repository, _) = publisher(&[]);
    let mut machine = Machine::new(repository);
    machine.swarm(SwarmInput::Connected { peer: peer(1), address: "/ip4/192.0.2.1/tcp/1".to_owned(), outbound: true });
    for _ in 0..8 {
        machine.swarm(SwarmInput::Control { peer: peer(1), message: Control::Peers(Vec::new()) });
    }
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Disconnect { .. })), 1);
    assert_eq!(machine.sent(|effect| matches!(effect, SwarmEffect::Ban { .. })), 0);
    assert!(machine.bans.is_empty());
}

#[test]
fn heads_beyond_a_neighbours_rate_are_passed_over_without_blame_and_asked_for_instead() {
    let (repository, mut forge) = publisher(&["1.0.0"]);
    let mut machine = Machine::new(repository);
    let old = forge.sign(at(0), at(0));
    let replay = old.head.clone();
    machine.take(old);
    let newest = forge.sign(at(1), at(1));
    machine.take(newest);
    machine.connect(1);
    machine.effects.clear();
    for n in 0..40_u8 {
        machine.swarm(SwarmInput::Gossip { message: vec![n], peer: peer(1), payload: replay.clone() });
    }
    let verdicts =
        |verdict| machine.sent(|e| matches!(e, SwarmEffect::GossipVerdict { verdict: given, .. } if *given == verdict));
    assert_eq!((verdicts(GossipVerdict::Ignore), verdicts(GossipVerdict::Reject)), (40, 0));
    assert_eq!(machine.engine.rate_limited().heads, 8);
    assert_eq!(machine.told(EventKind::PeerBlamed), 0);
    let asked = |e: &SwarmEffect| matches!(e, SwarmEffect::MetaAsk { request, .. } if request.file == MetaFile::Head);
    assert!(machine.sent(asked) > 0, "a head that was passed over may be the newest");
}

#[test]
fn requests_beyond_a_neighbours_rate_are_refused_with_a_reason() {
    let (repository, _) = publisher(&[]);
    let mut machine = Machine::new(repository);
    machine.connect(1);
    machine.effects.clear();
    let request = MetaRequest { repository: machine.repository.id.0, file: MetaFile::Head };
    for channel in 0..1_100 {
        machine.swarm(SwarmInput::MetaAsked { channel, peer: peer(1), request: request.clone() });
    }
    let refused = |e: &SwarmEffect| matches!(e, SwarmEffect::MetaAnswer { response: MetaResponse::Refused { reason }, .. } if reason.contains("too many"));
    assert_eq!(machine.sent(refused), 1_100 - 1_024);
    machine.now.mono_ms += 60_000;
    machine.effects.clear();
    machine.swarm(SwarmInput::MetaAsked { channel: 9_999, peer: peer(1), request });
    assert_eq!(machine.sent(refused), 0);
}

// ---- a thief of the online keys -----------------------------------------------------------------

fn thief_view() -> CatalogView {
    let (_, mut forge) = publisher(&[]);
    for (number, channels) in
        [("1.0.0", &["stable"][..]), ("1.1.0", &["stable", "beta"]), ("1.2.0", &["beta"]), ("1.3.0", &["stable"])]
    {
        put(&mut forge, &release_of(&app(), number, "first", channels));
    }
    set_floor(&mut forge, Some("1.1.0"));
    let signed = forge.sign(at(0), at(0));
    CatalogView::new(&signed.trusted, &BTreeMap::new())
}

prop_compose! {
    fn any_version()(minor in 0..5_u64, patch in 0..2_u64, pre in any::<bool>()) -> Version {
        let text = format!("1.{minor}.{patch}{}", if pre { "-rc.1" } else { "" });
        text.parse().expect("a version")
    }
}

prop_compose! {
    fn any_policy()(
        version in prop::option::of(any_version()),
        paused in prop::bool::weighted(0.2),
        yanked in prop::collection::btree_set(any_version(), 0..3),
        allow_downgrade_to in prop::option::of(any_version()),
        max_head_age_s in prop::option::of(0..100_000_u64),
        percent in prop::option::of(0..=100_u8),
    ) -> ChannelPolicy {
        let stages = percent.map(|percent| Stage { percent, at: at(-10) }).into_iter().collect();
        let rollout = Rollout { start: at(-20), stages };
        ChannelPolicy { version, rollout, paused, yanked, allow_downgrade_to, max_head_age_s, ..ChannelPolicy::default() }
    }
}

fn decide(view: &CatalogView, policy: &ChannelPolicy, channel: &Channel, installed: Option<&Version>) -> Decision {
    let mut view = view.clone();
    // As it would arrive: signed, fetched and parsed.
    let Ok(policy) = ChannelPolicy::parse(&policy.encode()) else { panic!("a thief signs what parses") };
    view.channels.insert((app(), channel.clone()), policy.into());
    let (product, platform) = (app(), Platform::any());
    let facts = Facts {
        product: &product,
        channel,
        platform: &platform,
        installed,
        node_id: Some(b"node"),
        quarantine: None,
        hurry: None,
        holds: None,
        disk: None,
        window: None,
    };
    plan(&view, &facts, at(5))
}

proptest! {
    #[test]
    fn no_policy_that_a_thief_signs_installs_what_the_publisher_did_not_permit(
        policy in any_policy(),
        is_beta in any::<bool>(),
        installed in prop::option::of(any_version()),
        remembered in prop::option::of(any_version()),
    ) {
        let mut view = thief_view();
        if let Some(remembered) = remembered {
            let signed = view.floors[&app()].clone();
            view.floors.insert(app(), remembered.max(signed));
        }
        let channel: Channel = if is_beta { "beta" } else { "stable" }.parse().expect("a name");
        let decision = decide(&view, &policy, &channel, installed.as_ref());
        if decision.verdict != Verdict::Install {
            return Ok(());
        }
        let release = decision.offered.expect("an install is of something");
        let wanted = &release.id.version;
        prop_assert!(*wanted >= view.floors[&app()], "below the floor");
        prop_assert!(release.channels.contains(&channel), "on a channel that it does not list");
        let signed = view.trusted.all_targets();
        let entry = signed.iter().find(|(path, ..)| *path == release.path).expect("unsigned");
        prop_assert_eq!(entry.1.sha256(), Some(release.artifact));
        prop_assert!(!policy.yanked.contains(wanted) && !policy.paused);
        if installed.as_ref().is_some_and(|installed| installed > wanted) {
            prop_assert_eq!(policy.allow_downgrade_to.as_ref(), Some(wanted));
        }
    }

    #[test]
    fn a_yank_never_causes_an_install(policy in any_policy(), yanked in any_version(), installed in prop::option::of(any_version())) {
        let view = thief_view();
        let before = decide(&view, &policy, &Channel::stable(), installed.as_ref());
        let mut with = policy.clone();
        with.yanked.insert(yanked);
        let after = decide(&view, &with, &Channel::stable(), installed.as_ref());
        if after.verdict == Verdict::Install {
            prop_assert_eq!(before.verdict, Verdict::Install);
            prop_assert_eq!(before.offered, after.offered);
        }
    }
}

// ---- cost ---------------------------------------------------------------------------------------

#[test]
#[ignore = "a measurement: cargo test --release --test memory -- --ignored --nocapture"]
fn a_hundred_thousand_releases() {
    let repository = TestRepository::new(at(0));
    let mut forge = Holder::of(&repository);
    for number in 0..20 {
        forge.add_product(&format!("product-{number}").parse().expect("a name"), at(0), |product, role| {
            for patch in 0..5_000 {
                let release = release_of(product, &format!("1.0.{patch}"), "first", &["stable"]);
                role.targets.insert(release.path.clone(), release.to_target());
            }
        });
    }
    let signed = forge.sign(at(0), at(0));
    let mut machine = Machine::new(repository);
    let mut timed = |what: &str, act: &mut dyn FnMut(&mut Machine)| {
        let started = Instant::now();
        act(&mut machine);
        updraft_tests::process::say(&format!("{what}: {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    };
    timed("first set of 100,000 releases", &mut |machine| machine.take(signed.clone()));
    timed("the next head", &mut |machine| machine.take(forge.sign(at(1), at(1))));
    timed("a review", &mut |machine| machine.tick_at(at(10)));
    timed("a restart", &mut Machine::restart);
    timed("of it: looking up every path", &mut |machine| drop(machine.view().trusted.all_targets()));
    timed("of it: looking up and comparing with what is remembered", &mut |machine| {
        let targets = machine.view().trusted.all_targets();
        assert!(targets.iter().all(|(path, target, _)| machine.memory.permits(path, target)));
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let database = StateDb::open(&path).expect("opened");
    let id = Digest::of(b"repository");
    timed("writing what was learned", &mut |machine| {
        let targets = machine.memory.targets.iter().map(|(path, entry)| (path.clone(), *entry)).collect();
        database.learn(&id, &Learned { targets, ..Learned::default() }, at(0)).expect("kept");
    });
    timed("reading what is remembered", &mut |_| {
        assert_eq!(database.memory(&id).expect("read").targets.len(), 100_000);
    });
    let bytes = std::fs::metadata(&path).expect("there").len() >> 20;
    updraft_tests::process::say(&format!("the state database: {bytes} MiB"));
    assert_eq!(machine.memory.targets.len(), 100_000);
}
