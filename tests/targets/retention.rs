//! What stays in a store and what goes: one engine over a disk that is a map, with every release that its
//! repository ever had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use updraft::engine::effect::{Effect, EventKind, SwarmEffect};
use updraft::engine::input::{Input, Now, SwarmInput};
use updraft::engine::install::{Installed, Recovered, SubscriptionSpec};
use updraft::engine::memory::Memory;
use updraft::engine::retention::{Need, RetentionEffect};
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_SESSION_ARTIFACTS;
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, Platform};
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId, ObjectKind};
use updraft_tests::repository::TestRepository;

const VERSIONS: [&str; 5] = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"];
/// More than the time between two looks.
const LOOK_MS: u64 = 6_000;

fn start() -> UtcTime {
    UtcTime::from_unix(1_790_000_000)
}

fn neighbour() -> PeerId {
    PeerId::from_bytes(&[3; 8]).expect("in bounds")
}

fn object(artifact: Digest) -> ObjectId {
    ObjectId { kind: ObjectKind::Artifact, digest: artifact }
}

/// A repository whose `stable` is at the last of [`VERSIONS`].
struct Published {
    repository: TestRepository,
    manifests: BTreeMap<&'static str, Arc<Manifest>>,
    /// Versions of whose pieces the store lost track.
    lost: Vec<&'static str>,
}

impl Published {
    fn new() -> Self {
        let mut repository = TestRepository::new(start());
        let manifests = VERSIONS
            .into_iter()
            .map(|version| (version, repository.publish(version, version.as_bytes(), start())))
            .collect();
        Self { repository, manifests, lost: Vec::new() }
    }

    fn artifact(&self, version: &str) -> Digest {
        *self.manifests[version].artifact()
    }

    fn held(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.manifests.iter().filter(|(version, _)| !self.lost.contains(version)).map(|(_, manifest)| manifest)
    }

    fn installed(&self, version: &str) -> Installed {
        Installed {
            version: version.parse().expect("a version"),
            artifact: self.artifact(version),
            release_dir: version.to_owned(),
        }
    }

    fn versions(&self, artifacts: &BTreeSet<Digest>) -> Vec<&'static str> {
        VERSIONS.into_iter().filter(|version| artifacts.contains(&self.artifact(version))).collect()
    }

    /// A node that has been given every release, `more`, and these subscriptions.
    fn node(&self, role: Role, memory: Memory, more: &[Arc<Manifest>]) -> Machine {
        let file = |name: &str| {
            let found = self.repository.files.iter().find(|(file, _)| match file {
                MetaFile::Root { version } => name == format!("{version}.root.json"),
                MetaFile::Role { name: role, version } => name == format!("{version}.{role}.json"),
                _ => false,
            });
            let trusted = &self.repository.signed.trusted;
            let snapshot = trusted.snapshot().expect("whole");
            match name {
                "timestamp.json" => Some(trusted.timestamp().expect("whole").bytes().to_vec()),
                name if name == format!("{}.snapshot.json", snapshot.version) => Some(snapshot.bytes().to_vec()),
                _ => found.map(|(_, bytes)| bytes.clone()),
            }
        };
        let target =
            |sha256: &Digest| self.repository.files.values().find(|bytes| Digest::of(bytes) == *sha256).cloned();
        let is_seed = matches!(role, Role::Seed);
        let spec = |directory: Option<&str>| SubscriptionSpec {
            product: "app".parse().expect("a name"),
            channel: Channel::stable(),
            directory: directory.map(str::to_owned),
        };
        let subscriptions = match role {
            Role::Seed => Vec::new(),
            Role::Mirror => vec![(spec(None), Recovered::default())],
            Role::Installs { current, previous } => {
                let recovered = Recovered {
                    installed: Some(self.installed(current)),
                    previous: previous.map(|version| self.installed(version)),
                    current: Some(current.to_owned()),
                    ..Recovered::default()
                };
                vec![(spec(Some("/opt/app")), recovered)]
            }
        };
        let whole = |manifest: &Arc<Manifest>| (manifest.clone(), Some(Bitmap::full(manifest.piece_count())));
        let lost = self.lost.iter().map(|version| (self.manifests[version].clone(), None));
        let found = Restored {
            metadata: &MetadataReader(&file),
            target: &TargetReader(&target),
            artifacts: self.held().chain(more).map(whole).chain(lost).collect(),
            subscriptions,
            peers: Vec::new(),
            memory,
            bans: Vec::new(),
        };
        let config = EngineConfig {
            me: PeerId::from_bytes(&[1; 8]).expect("in bounds"),
            repository: self.repository.id,
            ticket: (!is_seed).then(|| self.repository.ticket(Vec::new())),
            is_seed,
            platform: Platform::any(),
            agent: String::new(),
            random_seed: 7,
            adopt_wait_ms: 0,
            limits: updraft::engine::limits::Limits::default(),
            egress_budget_percent: None,
        };
        let now = Now { wall: start(), mono_ms: 0 };
        let (engine, effects) = Engine::restore(config, found, now).expect("a good repository");
        Machine { engine, now, effects }
    }
}

#[derive(Clone, Copy)]
enum Role {
    Seed,
    Mirror,
    Installs { current: &'static str, previous: Option<&'static str> },
}

struct Machine {
    engine: Engine,
    now: Now,
    effects: Vec<Effect>,
}

impl Machine {
    fn input(&mut self, input: Input) {
        self.effects.extend(self.engine.handle(input, self.now));
    }

    /// Time passes until the next look.
    fn look(&mut self) {
        self.now.mono_ms += LOOK_MS;
        self.input(Input::Tick);
    }

    /// Everything that was removed by the second look from now.
    fn removed(&mut self) -> BTreeSet<Digest> {
        self.look();
        self.look();
        let removed = self.effects.iter().filter_map(|effect| match effect {
            Effect::Retention(RetentionEffect::Remove { artifacts }) => Some(artifacts.clone()),
            _ => None,
        });
        removed.flatten().collect()
    }

    fn said(&self, is: impl Fn(&Control) -> bool) -> usize {
        let said = self
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Swarm(SwarmEffect::Control { message, .. }) if is(message)));
        said.count()
    }

    fn alarms(&self) -> usize {
        let is_alarm = |effect: &&Effect| matches!(effect, Effect::Event(event) if event.kind == EventKind::Alarm);
        self.effects.iter().filter(is_alarm).count()
    }
}

#[test]
fn pieces_that_the_store_lost_track_of_are_looked_for_once_and_then_served() {
    let mut published = Published::new();
    published.lost = vec!["1.3.0", "1.4.0"];
    let opened = |node: &Machine| -> Vec<Digest> {
        let opened = node.effects.iter().filter_map(|effect| match effect {
            Effect::OpenArtifact { manifest } => Some(*manifest.artifact()),
            _ => None,
        });
        opened.collect()
    };
    for role in [Role::Seed, Role::Mirror] {
        let mut node = published.node(role, Memory::default(), &[]);
        let removed = node.removed();
        let asked = opened(&node);
        assert_eq!(asked.len(), 2, "each is opened once, wanted or not, however long that takes");
        for version in ["1.3.0", "1.4.0"] {
            let artifact = published.artifact(version);
            assert!(asked.contains(&artifact) && !removed.contains(&artifact) && !node.engine.holds(&artifact));
            let manifest = published.manifests[version].clone();
            let result = Ok(Bitmap::full(manifest.piece_count()));
            node.input(Input::ArtifactOpened { manifest, result });
            assert!(node.engine.holds(&artifact), "{version}");
        }
    }
}

#[test]
fn where_a_release_is_installed_what_runs_and_what_ran_before_stay() {
    let published = Published::new();
    let role = Role::Installs { current: "1.4.0", previous: Some("1.1.0") };
    let mut node = published.node(role, Memory::default(), &[]);
    assert_eq!(published.versions(&node.removed()), ["1.0.0", "1.2.0", "1.3.0"]);
    for (version, stays) in [("1.4.0", true), ("1.1.0", true), ("1.3.0", false)] {
        assert_eq!(node.engine.holds(&published.artifact(version)), stays, "{version}");
    }
}

#[test]
fn what_the_channel_is_at_stays_before_it_is_installed() {
    let published = Published::new();
    let mut memory = Memory::default();
    // Nothing is installed by a clock that is behind what was signed.
    memory.clock.remembered = Some(start().plus_days(30));
    let mut node = published.node(Role::Installs { current: "1.2.0", previous: None }, memory, &[]);
    let removed = node.removed();
    assert!(!removed.contains(&published.artifact("1.4.0")) && !removed.contains(&published.artifact("1.2.0")));
}

#[test]
fn a_mirror_keeps_the_current_release_and_the_newest_others() {
    let published = Published::new();
    let mut node = published.node(Role::Mirror, Memory::default(), &[]);
    assert_eq!(published.versions(&node.removed()), ["1.0.0", "1.1.0", "1.2.0"]);
    let mut node = published.node(Role::Mirror, Memory::default(), &[]);
    node.engine.keep_releases(4);
    assert_eq!(published.versions(&node.removed()), ["1.0.0"]);
}

#[test]
fn a_seed_keeps_every_listed_release_and_nothing_else() {
    let published = Published::new();
    let mut builder = ManifestBuilder::new();
    builder.update(b"packed, and never signed");
    let stray = Arc::new(builder.finish().expect("not empty"));
    let mut node = published.node(Role::Seed, Memory::default(), std::slice::from_ref(&stray));
    assert_eq!(node.removed(), BTreeSet::from([*stray.artifact()]));
}

#[test]
fn what_was_packed_here_waits_for_its_signature() {
    let published = Published::new();
    let mut builder = ManifestBuilder::new();
    builder.update(b"packed, and not signed yet");
    let packed = Arc::new(builder.finish().expect("not empty"));
    let mut node = published.node(Role::Seed, Memory::default(), &[]);
    node.look();
    assert!(node.engine.add_artifact(&packed, Bitmap::full(packed.piece_count())));
    assert_eq!(node.removed(), BTreeSet::new());
    node.now.mono_ms += 600_000;
    assert_eq!(node.removed(), BTreeSet::from([*packed.artifact()]), "nobody signed it after all");
}

#[test]
fn an_artifact_goes_at_the_second_look_that_finds_it_of_no_use() {
    let published = Published::new();
    let role = Role::Installs { current: "1.4.0", previous: Some("1.3.0") };
    let mut node = published.node(role, Memory::default(), &[]);
    node.look();
    assert_eq!(node.engine.unneeded().len(), 3);
    assert!(node.engine.holds(&published.artifact("1.0.0")));
    let release = node.engine.catalog().expect("a set").release_of(&published.artifact("1.0.0")).cloned();
    let effects = node.engine.request(&release.expect("listed"), node.now);
    node.effects.extend(effects);
    assert_eq!(published.versions(&node.removed()), ["1.1.0", "1.2.0"]);
}

#[test]
fn what_an_operator_asked_for_stays_a_week_across_restarts() {
    let published = Published::new();
    let role = || Role::Installs { current: "1.4.0", previous: Some("1.3.0") };
    let mut node = published.node(role(), Memory::default(), &[]);
    let artifact = published.artifact("1.0.0");
    let release = node.engine.catalog().expect("a set").release_of(&artifact).cloned().expect("listed");
    let effects = node.engine.request(&release, node.now);
    let pins: Vec<(Digest, UtcTime)> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Retention(RetentionEffect::Pin { artifact, until }) => Some((*artifact, *until)),
            _ => None,
        })
        .collect();
    assert_eq!(pins, [(artifact, start().plus_days(7))]);

    let mut node = published.node(role(), Memory::default(), &[]);
    node.engine.remember_pins(pins);
    assert_eq!(published.versions(&node.removed()), ["1.1.0", "1.2.0"]);
    node.now.wall = start().plus_days(8);
    assert!(node.removed().contains(&artifact));
    let unpin = Effect::Retention(RetentionEffect::Unpin { artifact });
    assert!(node.effects.iter().any(|effect| format!("{effect:?}") == format!("{unpin:?}")));
}

#[test]
fn nothing_goes_while_a_key_is_known_to_be_misused() {
    let published = Published::new();
    let mut memory = Memory::default();
    let path = published.repository.view().releases[0].path.clone();
    memory.targets.insert(path, Digest::of(b"what was signed at first"));
    for role in [Role::Seed, Role::Mirror, Role::Installs { current: "1.4.0", previous: None }] {
        let mut node = published.node(role, memory.clone(), &[]);
        assert_eq!(node.removed(), BTreeSet::new());
    }
}

#[test]
fn a_mirror_over_its_limit_keeps_fewer_old_releases_but_always_the_one_before() {
    let published = Published::new();
    // Each artifact is 5 bytes.
    for (limit, gone) in [
        (None, vec!["1.0.0"]),
        (Some(20), vec!["1.0.0"]),
        (Some(19), vec!["1.0.0", "1.1.0"]),
        (Some(14), vec!["1.0.0", "1.1.0", "1.2.0"]),
        (Some(1), vec!["1.0.0", "1.1.0", "1.2.0"]),
    ] {
        let mut node = published.node(Role::Mirror, Memory::default(), &[]);
        node.engine.keep_releases(4);
        node.engine.limit_cache(limit);
        assert_eq!(published.versions(&node.removed()), gone, "{limit:?}");
    }
}

#[test]
fn a_limit_costs_neither_a_seed_nor_who_installs_anything_that_is_needed() {
    let published = Published::new();
    let mut seed = published.node(Role::Seed, Memory::default(), &[]);
    seed.engine.limit_cache(Some(1));
    assert_eq!(seed.removed(), BTreeSet::new());
    let role = Role::Installs { current: "1.4.0", previous: Some("1.3.0") };
    let mut peer = published.node(role, Memory::default(), &[]);
    peer.engine.limit_cache(Some(1));
    assert_eq!(published.versions(&peer.removed()), ["1.0.0", "1.1.0", "1.2.0"]);
}

#[test]
fn everything_that_is_here_has_a_reason_or_goes() {
    let published = Published::new();
    let role = Role::Installs { current: "1.4.0", previous: Some("1.2.0") };
    let node = published.node(role, Memory::default(), &[]);
    let mut why: Vec<_> = node.engine.inventory().into_iter().map(|held| (held.artifact, held.need)).collect();
    why.sort_by_key(|(artifact, _)| VERSIONS.iter().position(|version| published.artifact(version) == *artifact));
    let why: Vec<_> = why.into_iter().map(|(_, need)| need).collect();
    assert_eq!(why, [None, None, Some(Need::Previous), None, Some(Need::Installed)]);
}

#[test]
fn collecting_by_hand_does_not_wait_and_tells_what_goes() {
    let published = Published::new();
    let role = Role::Installs { current: "1.4.0", previous: Some("1.3.0") };
    let mut node = published.node(role, Memory::default(), &[]);
    let found = node.engine.unneeded();
    let (gone, effects) = node.engine.collect_now();
    assert_eq!(found, gone);
    assert_eq!(gone.iter().map(|gone| gone.length).collect::<Vec<_>>(), [5, 5, 5]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Retention(RetentionEffect::Remove { .. }))));
    assert_eq!(node.engine.unneeded(), []);
}

#[test]
fn neighbours_are_told_and_late_questions_are_no_alarm() {
    let published = Published::new();
    let role = Role::Installs { current: "1.4.0", previous: Some("1.3.0") };
    let mut node = published.node(role, Memory::default(), &[]);
    let address = "/ip4/192.0.2.1/tcp/1".to_owned();
    node.input(Input::Swarm(SwarmInput::Connected { peer: neighbour(), address, outbound: false }));
    let hello = Hello { repository: published.repository.id.0.as_bytes().to_vec(), ..Hello::default() };
    let say = |message| Input::Swarm(SwarmInput::Control { peer: neighbour(), message });
    node.input(say(Control::Hello(hello)));
    let (object, block) = (object(published.artifact("1.0.0")), BlockRange { offset: 0, length: 5 });
    node.input(say(Control::Announce { handle: 9, object, wants: true, have: vec![0] }));
    node.input(say(Control::Request { handle: 9, block }));
    let sends = |node: &Machine| {
        node.effects.iter().filter(|effect| matches!(effect, Effect::Swarm(SwarmEffect::SendBlock { .. }))).count()
    };
    assert_eq!(sends(&node), 1);
    assert!(node.removed().contains(&object.digest));
    assert_eq!(node.said(|message| matches!(message, Control::Forget { .. })), 1);
    // What was still to be sent cannot be read any more, and what is asked for now is not here.
    let reason = "it is not in the store".to_owned();
    node.input(Input::Swarm(SwarmInput::BlockUnreadable { peer: neighbour(), object, block, reason }));
    node.input(say(Control::Request { handle: 9, block }));
    assert_eq!((sends(&node), node.alarms()), (1, 0));
}

#[test]
fn bytes_of_removed_artifacts_still_count() {
    let published = Published::new();
    let role = Role::Installs { current: "1.4.0", previous: Some("1.3.0") };
    let mut node = published.node(role, Memory::default(), &[]);
    let (object, block) = (object(published.artifact("1.0.0")), BlockRange { offset: 0, length: 5 });
    node.input(Input::Swarm(SwarmInput::BlockSent { peer: neighbour(), object, block }));
    assert_eq!(node.engine.transfer_totals().sent, 5);
    assert!(node.removed().contains(&object.digest));
    assert_eq!(node.engine.transfer_totals().sent, 5);
}

#[test]
fn a_seed_that_holds_more_than_it_can_speak_of_speaks_of_what_the_channels_are_at() {
    let published = Published::new();
    let stray = |number: u32| {
        let mut builder = ManifestBuilder::new();
        builder.update(&number.to_be_bytes());
        Arc::new(builder.finish().expect("not empty"))
    };
    // More than enough: some are left out, in the order of their digests.
    let strays: Vec<_> = (0..MAX_SESSION_ARTIFACTS).map(stray).collect();
    let mut node = published.node(Role::Seed, Memory::default(), &strays);
    assert!(node.engine.holds(&published.artifact("1.4.0")));
    assert_eq!(node.alarms(), 1, "somebody is told");
    for number in 0..10 {
        let packed = stray(MAX_SESSION_ARTIFACTS + number);
        assert!(node.engine.add_artifact(&packed, Bitmap::full(packed.piece_count())));
        assert!(node.engine.holds(packed.artifact()));
    }
    assert!(node.engine.holds(&published.artifact("1.4.0")));
}
