//! A small signed repository around the part that a body mutates, with keys that are the same in every run.
//!
//! A decoder behind a signature check is reached only by bytes that are validly signed. So the bodies
//! sign what they are given with these keys, as a thief of them would, and put it in its place.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;
use updraft_protocol::canonical;
use updraft_protocol::digest::Digest;
use updraft_protocol::key::{PublicKey, SigningKey};
use updraft_protocol::names::{Channel, Platform, Product, ReleaseId};
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{
    DelegatedRole, Delegations, Expiry, FileMeta, Role, RoleName, Root, Snapshot, TargetInfo, Targets, Timestamp,
    TopRole, Trusted, cosign, sign_role,
};

/// Version of the timestamp and the snapshot that are trusted already.
pub(super) const HEAD_VERSION: u64 = 5;

/// Version of the targets roles that are trusted already.
pub(super) const ROLE_VERSION: u64 = 3;

/// Seeds of the keys that the root and the delegations name.
pub(super) const ROOT: u8 = 1;
pub(super) const TIMESTAMP: u8 = 2;
pub(super) const SNAPSHOT: u8 = 3;
pub(super) const TARGETS: u8 = 4;
pub(super) const CHANNELS: u8 = 5;
pub(super) const RELEASES: u8 = 6;
/// A key that nothing names, unless a mutation does.
pub(super) const STRANGER: u8 = 9;

pub(super) const CHANNEL_PATH: &str = "channels/editor/stable.json";
pub(super) const RELEASE_PATH: &str = "releases/editor/1.2.3/linux-x86_64/editor.tar.zst";

pub(super) fn now() -> UtcTime {
    UtcTime::from_unix(1_800_000_000)
}

pub(super) fn enforce() -> Expiry {
    Expiry::Enforce(now())
}

/// The key of a seed below 10, made once.
pub(super) fn key(seed: u8) -> &'static SigningKey {
    static KEYS: [OnceLock<SigningKey>; 10] = [const { OnceLock::new() }; 10];
    KEYS[usize::from(seed)].get_or_init(|| SigningKey::from_seed([seed; 32]))
}

fn public(seed: u8) -> PublicKey {
    key(seed).public()
}

pub(super) fn role(name: &str) -> RoleName {
    name.parse().expect("a role name")
}

/// The repository, and what is trusted of it.
#[derive(Debug)]
pub(super) struct Fixture {
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Snapshot,
    pub(super) targets: Targets,
    /// The top-level targets role, signed.
    pub(super) targets_file: Vec<u8>,
    /// The delegated roles, signed.
    pub(super) delegated: BTreeMap<RoleName, Vec<u8>>,
    /// Channel policy by path.
    pub(super) policy: Vec<u8>,
    /// A node that has only the root.
    pub(super) new_node: Trusted,
    /// A node that has everything.
    pub(super) node: Trusted,
}

/// The one fixture.
pub(super) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(Fixture::new)
}

pub(super) fn release() -> Release {
    let product: Product = "editor".parse().expect("a name");
    let platform: Platform = "linux-x86_64".parse().expect("a name");
    Release {
        id: ReleaseId { product, version: semver::Version::new(1, 2, 3), platform },
        file_name: "editor.tar.zst".parse().expect("a file name"),
        path: RELEASE_PATH.to_owned(),
        artifact: Digest::of(b"artifact"),
        length: 8,
        format: Format::TarZst,
        content: Content { sha256: Digest::of(b"content"), length: 2048, entries: 3 },
        manifest: ManifestRef { sha256: Digest::of(b"manifest"), length: 90 },
        channels: [Channel::stable(), "beta".parse().expect("a name")].into(),
        min_from: Some(semver::Version::new(1, 0, 0)),
        notes: Notes::Text("What is new.\nAll of it.".to_owned()),
        critical: true,
    }
}

/// The top-level targets role as it is, at `version`.
fn top_targets() -> Targets {
    let mut targets = Targets::new(ROLE_VERSION, now().plus_days(365));
    targets.targets.insert("top.txt".to_owned(), TargetInfo::of(b"top"));
    targets.security_floor.insert("editor".parse().expect("a name"), semver::Version::new(1, 1, 0));
    let hashed = DelegatedRole {
        paths: None,
        path_hash_prefixes: Some(vec!["0".to_owned(), "a1".to_owned()]),
        ..DelegatedRole::new(role("hashed"), &[])
    };
    targets.delegations = Some(
        Delegations::default()
            .with_role(DelegatedRole::new(role("channels"), &["channels/*/*"]).terminating(), 1, &[public(CHANNELS)])
            .with_role(DelegatedRole::new(role("releases-editor"), &["releases/editor/*/*/*"]), 1, &[public(RELEASES)])
            .with_role(hashed, 1, &[public(RELEASES)]),
    );
    targets
}

impl Fixture {
    fn new() -> Self {
        let root = Root::new(1, now().plus_days(365))
            .with_role(TopRole::Root, 1, &[public(ROOT)])
            .with_role(TopRole::Timestamp, 1, &[public(TIMESTAMP)])
            .with_role(TopRole::Snapshot, 1, &[public(SNAPSHOT)])
            .with_role(TopRole::Targets, 1, &[public(TARGETS)]);
        let policy = ChannelPolicy::pointing_to(semver::Version::new(1, 2, 3)).encode();
        let targets = top_targets();
        let mut channels = Targets::new(ROLE_VERSION, now().plus_days(30));
        channels.targets.insert(CHANNEL_PATH.to_owned(), TargetInfo::of(&policy));
        let mut releases = Targets::new(ROLE_VERSION, now().plus_days(365));
        releases.targets.insert(RELEASE_PATH.to_owned(), release().to_target());
        let delegated: BTreeMap<RoleName, Vec<u8>> = [
            (role("channels"), sign_role(&channels, &[key(CHANNELS)])),
            (role("releases-editor"), sign_role(&releases, &[key(RELEASES)])),
        ]
        .into();
        let targets_bytes = sign_role(&targets, &[key(TARGETS)]);
        let mut snapshot = Snapshot::new(HEAD_VERSION, now().plus_days(14))
            .with_role(&RoleName::targets(), FileMeta::of(ROLE_VERSION, &targets_bytes));
        for (name, bytes) in &delegated {
            snapshot = snapshot.with_role(name, FileMeta::of(ROLE_VERSION, bytes));
        }
        let snapshot_bytes = sign_role(&snapshot, &[key(SNAPSHOT)]);
        let mut timestamp =
            Timestamp::new(HEAD_VERSION, now().plus_days(14), FileMeta::of(HEAD_VERSION, &snapshot_bytes));
        timestamp.signed_at = Some(now().plus_seconds(-60));
        timestamp.prev_sha256 = Some(Digest::of(b"the timestamp before"));

        let root_bytes = sign_role(&root, &[key(ROOT)]);
        let new_node = Trusted::from_trusted_root(&root_bytes).expect("a good root");
        let mut node = new_node.clone();
        let timestamp_bytes = sign_role(&timestamp, &[key(TIMESTAMP)]);
        let _ = node.update_timestamp(&timestamp_bytes, enforce()).expect("a good timestamp");
        let _ = node.update_snapshot(&snapshot_bytes, enforce()).expect("a good snapshot");
        let _ = node.update_targets(&RoleName::targets(), &targets_bytes, enforce()).expect("good targets");
        for (name, bytes) in &delegated {
            let _ = node.update_targets(name, bytes, enforce()).expect("a good role");
        }
        assert!(node.is_complete());
        Self { root, timestamp, snapshot, targets, targets_file: targets_bytes, delegated, policy, new_node, node }
    }

    /// Loads timestamp and snapshot around targets roles of these bytes and versions into a new node.
    pub(super) fn node_with(&self, roles: &[(RoleName, u64, &[u8])]) -> Trusted {
        let mut snapshot = Snapshot::new(1, now().plus_days(14));
        for (name, version, bytes) in roles {
            snapshot = snapshot.with_role(name, FileMeta::of(*version, bytes));
        }
        let snapshot = sign_role(&snapshot, &[key(SNAPSHOT)]);
        let timestamp = Timestamp::new(1, now().plus_days(14), FileMeta::of(1, &snapshot));
        let mut node = self.new_node.clone();
        let _ = node.update_timestamp(&sign_role(&timestamp, &[key(TIMESTAMP)]), enforce()).expect("a good timestamp");
        let _ = node.update_snapshot(&snapshot, enforce()).expect("a good snapshot");
        node
    }
}

/// The signed part of a role as JSON: what a body takes.
pub(super) fn part_of<T: Role>(role: &T) -> Vec<u8> {
    let file = sign_role(role, &[]);
    let value = canonical::parse(&file).expect("just signed");
    serde_json::to_vec(&value["signed"]).expect("a value is JSON")
}

/// An envelope around a signed part of any kind, signed by these keys; none where it is no JSON object.
pub(super) fn sealed<T: Role>(name: &RoleName, part: &[u8], seeds: &[u8]) -> Option<Vec<u8>> {
    let keys: Vec<&SigningKey> = seeds.iter().map(|seed| key(*seed)).collect();
    let envelope = [b"{\"signatures\":[],\"signed\":", part, b"}"].concat();
    cosign::<T>(name, &envelope, &keys).ok()
}

/// Whether the envelope carries a signature of this key over its signed part, found without the code
/// that decides it.
pub(super) fn is_signed_by(envelope: &[u8], seed: u8) -> bool {
    let Ok(value) = canonical::parse(envelope) else { return false };
    let key = public(seed);
    let message = canonical::encode(&value["signed"]);
    let signatures = value["signatures"].as_array().map(Vec::as_slice).unwrap_or_default();
    signatures.iter().any(|signature| {
        signature["keyid"].as_str() == Some(key.id().as_str())
            && signature["sig"]
                .as_str()
                .and_then(|text| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok())
                .is_some_and(|bytes| key.verify(&message, &bytes))
    })
}

/// The number in `part.version`, 1 where there is none.
pub(super) fn version_in(part: &[u8]) -> u64 {
    let value = canonical::parse(part).unwrap_or(Value::Null);
    value["version"].as_u64().unwrap_or(1)
}
