//! Signed repositories made role by role, right or wrong in any way that signatures allow.
//!
//! A [`Forge`] holds the plain roles of one repository and keys for them, and signs whatever it is
//! told: an honest publisher's next set as well as what somebody makes with keys that he stole
//! ([`Forge::thief`]). It decides nothing: whether a [`Set`] is to be believed is for the node under
//! test. All keys come from a label, so that every run signs the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

use updraft::archive;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Head, Inline};
use updraft_protocol::key::{PublicKey, SigningKey};
use updraft_protocol::limits::MAX_HEAD_BYTES;
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, Platform, Product, ReleaseId};
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::ticket::Ticket;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{
    DelegatedRole, Delegations, FileMeta, RepositoryId, RoleName, Root, Snapshot, TargetInfo, Targets, Timestamp,
    TopRole, cosign, sign_role, signed_digest,
};

use crate::cluster::product;

/// The four roles whose keys the root names.
const TOP: [TopRole; 4] = [TopRole::Root, TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets];

/// An artifact and everything that is signed about it.
#[derive(Debug, Clone)]
pub struct Work {
    /// Its bytes.
    pub bytes: Arc<Vec<u8>>,
    /// Its pieces.
    pub manifest: Arc<Manifest>,
    /// The release.
    pub release: Release,
}

impl Work {
    /// A release of one file on `stable`, for every platform.
    ///
    /// # Panics
    /// On a version that is no version.
    pub fn file(version: &str, bytes: Vec<u8>) -> Self {
        Self::of(&product(), version, Format::File, &format!("app-{version}.bin"), bytes)
    }

    /// A release of any format; what it unpacks to is measured where it can be unpacked.
    ///
    /// # Panics
    /// On names that are none, and where the disk refuses.
    pub fn of(product: &Product, version: &str, format: Format, file_name: &str, bytes: Vec<u8>) -> Self {
        let mut builder = ManifestBuilder::new();
        builder.update(&bytes);
        let manifest = builder.finish().expect("not empty");
        let encoded = manifest.encode();
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes).and_then(|()| file.flush()).expect("writable");
        // A hostile archive cannot be measured; whoever signs it claims what he likes.
        let content = archive::inspect(file.path(), format, &mut |_| {})
            .map_or(Content { sha256: *manifest.artifact(), length: manifest.length(), entries: 1 }, |packed| {
                packed.content
            });
        let id = ReleaseId {
            product: product.clone(),
            version: version.parse().expect("a version"),
            platform: Platform::any(),
        };
        let file_name = file_name.parse().expect("a file name");
        let release = Release {
            path: id.path(&file_name),
            file_name,
            artifact: *manifest.artifact(),
            length: manifest.length(),
            format,
            content,
            manifest: ManifestRef { sha256: Digest::of(&encoded), length: encoded.len() as u64 },
            channels: BTreeSet::from([Channel::stable()]),
            min_from: None,
            notes: Notes::None,
            critical: false,
            id,
        };
        Self { bytes: Arc::new(bytes), manifest: Arc::new(manifest), release }
    }

    /// The artifact's digest.
    pub fn digest(&self) -> Digest {
        *self.manifest.artifact()
    }
}

/// Bytes that no compression shrinks and no two seeds share.
pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Digest::of(seed.as_bytes());
    while bytes.len() < length {
        bytes.extend_from_slice(block.as_bytes());
        block = Digest::of(block.as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// One consistent signed set and everything that it names.
#[derive(Debug, Clone)]
pub struct Set {
    /// The repository that it claims to be of.
    pub repository: Digest,
    /// Version of the newest root.
    pub root_version: u64,
    /// Version of the timestamp.
    pub timestamp_version: u64,
    /// The timestamp.
    pub timestamp: Vec<u8>,
    /// The snapshot.
    pub snapshot: Vec<u8>,
    /// Roots, roles, channel policies and manifests.
    pub files: BTreeMap<MetaFile, Vec<u8>>,
    /// Artifacts.
    pub works: BTreeMap<Digest, Work>,
}

impl Set {
    /// Nothing at all, of this repository.
    pub fn empty(repository: Digest) -> Self {
        Self {
            repository,
            root_version: 1,
            timestamp_version: 0,
            timestamp: Vec::new(),
            snapshot: Vec::new(),
            files: BTreeMap::new(),
            works: BTreeMap::new(),
        }
    }

    /// The head as the publisher would gossip it: policy first, then whatever fits.
    pub fn head(&self) -> Vec<u8> {
        self.head_of(|_| true)
    }

    /// The head without any file inside.
    pub fn bare_head(&self) -> Vec<u8> {
        self.head_of(|_| false)
    }

    fn head_of(&self, keep: impl Fn(&Inline) -> bool) -> Vec<u8> {
        let mut head = self.parts();
        for inline in std::mem::take(&mut head.inlines).into_iter().filter(keep) {
            head.inlines.push(inline);
            if head.encode().len() > MAX_HEAD_BYTES {
                head.inlines.pop();
            }
        }
        head.encode()
    }

    /// The head with every file, to be altered.
    pub fn parts(&self) -> Head {
        let mut inlines: Vec<Inline> = self
            .files
            .iter()
            .filter_map(|(file, bytes)| match file {
                MetaFile::Role { name, version } => Some(Inline::Role {
                    name: name.parse().expect("a role name"),
                    version: *version,
                    bytes: bytes.clone(),
                }),
                MetaFile::Target { path, .. } => Some(Inline::Target { path: path.clone(), bytes: bytes.clone() }),
                _ => None,
            })
            .collect();
        inlines.sort_by_key(|inline| match inline {
            Inline::Role { name, .. } if *name == RoleName::channels() => 0,
            Inline::Target { .. } => 1,
            Inline::Role { .. } => 2,
        });
        Head {
            root_version: self.root_version,
            timestamp: self.timestamp.clone(),
            snapshot: self.snapshot.clone(),
            inlines,
        }
    }
}

#[derive(Debug, Clone)]
struct Role {
    targets: Targets,
    bytes: Vec<u8>,
}

/// How the next set is to differ from an honest one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Twist {
    /// The timestamp's version, where it is not the next.
    pub timestamp_version: Option<u64>,
    /// The snapshot's version, where it is not the next.
    pub snapshot_version: Option<u64>,
    /// When timestamp and snapshot expire, where not in two weeks.
    pub expires: Option<UtcTime>,
    /// When it claims to have been signed, where not now.
    pub signed_at: Option<UtcTime>,
    /// Without the digest of the timestamp before it.
    pub without_chain: bool,
}

/// The roles of a repository and keys to sign them with.
#[derive(Debug, Clone)]
pub struct Forge {
    /// Which repository: SHA-256 of its first root's signed part.
    pub id: RepositoryId,
    now: UtcTime,
    /// Seeds of the keys that sign each role.
    keys: BTreeMap<RoleName, Vec<[u8; 32]>>,
    root: Root,
    roots: Vec<Vec<u8>>,
    roles: BTreeMap<RoleName, Role>,
    changed: BTreeSet<RoleName>,
    policies: BTreeMap<String, Vec<u8>>,
    works: BTreeMap<Digest, Work>,
    snapshot: Option<Snapshot>,
    timestamp: Option<Timestamp>,
    /// The timestamp before the next one is another's: its digest is not known here.
    forked: bool,
}

fn seed(label: &str, role: &RoleName, number: usize) -> [u8; 32] {
    *Digest::of(format!("{label}/{role}/{number}").as_bytes()).as_bytes()
}

impl Forge {
    /// A repository with the product `app`, one key a role, nothing released.
    pub fn new(label: &str, now: UtcTime) -> Self {
        Self::with_thresholds(label, now, &[])
    }

    /// The same with more keys: for each named role so many, of which so many must sign.
    ///
    /// # Panics
    /// Where its own root does not verify, which would be a bug.
    pub fn with_thresholds(label: &str, now: UtcTime, shape: &[(TopRole, usize, u64)]) -> Self {
        let mut keys = BTreeMap::new();
        let mut root = Root::new(1, now.plus_days(365));
        for top in TOP {
            let (count, threshold) = shape
                .iter()
                .find(|(role, ..)| *role == top)
                .map_or((1, 1), |(_, count, threshold)| (*count, *threshold));
            let seeds: Vec<[u8; 32]> = (0..count).map(|number| seed(label, &top.name(), number)).collect();
            root = root.with_role(top, threshold, &publics(&seeds));
            keys.insert(top.name(), seeds);
        }
        let releases = RoleName::releases(&product());
        for role in [RoleName::channels(), releases.clone()] {
            keys.insert(role.clone(), vec![seed(label, &role, 0)]);
        }
        let first = sign_role(&root, &signers(&keys[&RoleName::root()], u64::MAX).iter().collect::<Vec<_>>());
        let id = RepositoryId::of_first_root(&first).expect("just signed");
        let mut forge = Self {
            id,
            now,
            root,
            roots: vec![first],
            roles: BTreeMap::new(),
            changed: BTreeSet::new(),
            policies: BTreeMap::new(),
            works: BTreeMap::new(),
            snapshot: None,
            timestamp: None,
            forked: false,
            keys,
        };
        let channels = DelegatedRole::new(RoleName::channels(), &["channels/*/*"]).terminating();
        let delegated = DelegatedRole::new(releases.clone(), &["releases/app/*/*/*", "patches/app/*/*"]);
        let delegations = Delegations::default()
            .with_role(channels, 1, &publics(&forge.keys[&RoleName::channels()]))
            .with_role(delegated, 1, &publics(&forge.keys[&releases]));
        forge.edit(&RoleName::targets(), |targets| targets.delegations = Some(delegations));
        forge.edit(&RoleName::channels(), |_| {});
        forge.edit(&releases, |_| {});
        forge
    }

    /// What somebody can sign who has the keys of `stolen` and of no other role. Where he signs
    /// something else, it is with keys of his own. What was signed already stays as it is.
    #[must_use]
    pub fn thief(&self, stolen: &[RoleName]) -> Self {
        let mut thief = self.clone();
        for (role, seeds) in thief.keys.iter_mut().filter(|(role, _)| !stolen.contains(role)) {
            *seeds = vec![seed("thief", role, 0)];
        }
        thief
    }

    /// The thief of everything that the seed keeps online.
    #[must_use]
    pub fn online_thief(&self) -> Self {
        self.thief(&[RoleName::timestamp(), RoleName::snapshot(), RoleName::channels()])
    }

    /// Signs `role` with only the first so many of its keys from now on.
    pub fn keep_keys(&mut self, role: &RoleName, count: usize) {
        if let Some(seeds) = self.keys.get_mut(role) {
            seeds.truncate(count);
        }
    }

    /// Signs `role` with the keys of another from now on.
    pub fn borrow_keys(&mut self, from: &RoleName, role: &RoleName) {
        let seeds = self.keys.get(from).cloned().unwrap_or_default();
        self.keys.insert(role.clone(), seeds);
    }

    /// Goes on after `set`, which somebody else signed with the same keys: the next versions are higher
    /// than all of its.
    pub fn skip_to(&mut self, set: &Set) {
        let version = set.timestamp_version;
        self.skip_roles(set);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.version = snapshot.version.max(version_of(&set.snapshot));
        }
        if let Some(timestamp) = &mut self.timestamp {
            timestamp.version = version;
        }
        self.forked = true;
    }

    /// The same for the targets roles alone: no version of theirs is signed a second time.
    pub fn skip_roles(&mut self, set: &Set) {
        for known in self.roles.keys().cloned().collect::<Vec<_>>() {
            let highest = set.files.keys().filter_map(|file| match file {
                MetaFile::Role { name, version } if name == known.as_str() => Some(*version),
                _ => None,
            });
            let highest = highest.max().unwrap_or(0);
            if let Some(role) = self.roles.get_mut(&known).filter(|role| role.targets.version < highest) {
                role.targets.version = highest;
                self.edit(&known, |_| {});
            }
        }
    }

    /// The keys of a role.
    pub fn signers(&self, role: &RoleName) -> Vec<SigningKey> {
        signers(self.keys.get(role).map_or(&[], Vec::as_slice), u64::MAX)
    }

    /// Time passes for whoever signs.
    pub fn at(&mut self, now: UtcTime) {
        self.now = now;
    }

    /// Changes a targets role, or begins one.
    pub fn edit(&mut self, role: &RoleName, edit: impl FnOnce(&mut Targets)) {
        let expires = self.now.plus_days(365);
        let entry = self
            .roles
            .entry(role.clone())
            .or_insert_with(|| Role { targets: Targets::new(0, expires), bytes: Vec::new() });
        if self.changed.insert(role.clone()) {
            entry.targets.version += 1;
        }
        edit(&mut entry.targets);
    }

    /// Adds a release to its product's role, without pointing anything to it.
    pub fn add(&mut self, work: &Work) {
        let release = &work.release;
        self.add_at(&release.path, &RoleName::releases(&release.id.product), work);
    }

    /// Adds a release at any path of any role.
    pub fn add_at(&mut self, path: &str, role: &RoleName, work: &Work) {
        self.edit(role, |targets| _ = targets.targets.insert(path.to_owned(), work.release.to_target()));
        self.works.insert(work.digest(), work.clone());
    }

    /// Sets a channel's policy.
    pub fn set_policy(&mut self, channel: &Channel, policy: &ChannelPolicy) {
        self.set_policy_bytes(&channel.path(&product()), policy.encode());
    }

    /// Signs any bytes at any path as the role of channels.
    pub fn set_policy_bytes(&mut self, path: &str, bytes: Vec<u8>) {
        self.edit(&RoleName::channels(), |targets| {
            targets.targets.insert(path.to_owned(), TargetInfo::of(&bytes));
        });
        self.policies.insert(path.to_owned(), bytes);
    }

    /// Points `stable` to a version.
    ///
    /// # Panics
    /// On a version that is no version.
    pub fn point_to(&mut self, version: &str) {
        self.set_policy(&Channel::stable(), &ChannelPolicy::pointing_to(version.parse().expect("a version")));
    }

    /// Releases one file as `version` on `stable`, and signs.
    pub fn publish(&mut self, version: &str, bytes: Vec<u8>) -> Set {
        self.publish_work(&Work::file(version, bytes))
    }

    /// Releases a work on `stable`, and signs.
    pub fn publish_work(&mut self, work: &Work) -> Set {
        self.add(work);
        self.point_to(&work.release.id.version.to_string());
        self.sign()
    }

    /// Signs what changed, a snapshot and a timestamp.
    pub fn sign(&mut self) -> Set {
        self.sign_twisted(Twist::default())
    }

    /// The same, not quite honestly.
    pub fn sign_twisted(&mut self, twist: Twist) -> Set {
        for name in std::mem::take(&mut self.changed) {
            let threshold = self.threshold(&name);
            let keys = signers(self.keys.get(&name).map_or(&[], Vec::as_slice), threshold);
            if let Some(role) = self.roles.get_mut(&name) {
                role.bytes = sign_role(&role.targets, &keys.iter().collect::<Vec<_>>());
            }
        }
        let expires = twist.expires.unwrap_or(self.now.plus_days(14));
        let next = |version: Option<u64>| version.map_or(1, |version| version + 1);
        let version = twist.snapshot_version.unwrap_or(next(self.snapshot.as_ref().map(|known| known.version)));
        let mut snapshot = Snapshot::new(version, expires);
        for (name, role) in &self.roles {
            snapshot = snapshot.with_role(name, FileMeta::of(role.targets.version, &role.bytes));
        }
        let snapshot_bytes = self.signed(TopRole::Snapshot, &snapshot);
        let version = twist.timestamp_version.unwrap_or(next(self.timestamp.as_ref().map(|known| known.version)));
        let mut timestamp = Timestamp::new(version, expires, FileMeta::of(snapshot.version, &snapshot_bytes));
        timestamp.signed_at = Some(twist.signed_at.unwrap_or(self.now));
        timestamp.prev_sha256 =
            self.timestamp.as_ref().filter(|_| !twist.without_chain && !self.forked).map(signed_digest);
        self.forked = false;
        let timestamp_bytes = self.signed(TopRole::Timestamp, &timestamp);
        (self.snapshot, self.timestamp) = (Some(snapshot), Some(timestamp));
        self.set(timestamp_bytes, snapshot_bytes)
    }

    fn threshold(&self, role: &RoleName) -> u64 {
        let top = TOP.into_iter().find(|top| top.name() == *role);
        top.map_or(1, |top| self.root.role(top).threshold)
    }

    fn signed<T: updraft_protocol::tuf::Role>(&self, top: TopRole, role: &T) -> Vec<u8> {
        let keys = signers(&self.keys[&top.name()], self.threshold(&top.name()));
        sign_role(role, &keys.iter().collect::<Vec<_>>())
    }

    fn set(&self, timestamp: Vec<u8>, snapshot: Vec<u8>) -> Set {
        let mut files = BTreeMap::new();
        for (version, bytes) in (1..).zip(&self.roots) {
            files.insert(MetaFile::Root { version }, bytes.clone());
        }
        for (name, role) in &self.roles {
            let file = MetaFile::Role { name: name.as_str().to_owned(), version: role.targets.version };
            files.insert(file, role.bytes.clone());
        }
        for (path, bytes) in &self.policies {
            files.insert(MetaFile::Target { path: path.clone(), sha256: Digest::of(bytes) }, bytes.clone());
        }
        for work in self.works.values() {
            files.insert(MetaFile::Manifest { sha256: work.release.manifest.sha256 }, work.manifest.encode());
        }
        Set {
            repository: self.id.0,
            root_version: self.root.version,
            timestamp_version: self.timestamp.as_ref().map_or(0, |timestamp| timestamp.version),
            timestamp,
            snapshot,
            files,
            works: self.works.clone(),
        }
    }

    /// The next root: `change` it; it is signed by the keys of before and, where they differ, of now.
    pub fn next_root(&mut self, change: impl FnOnce(Root) -> Root) {
        let before = self.signers(&RoleName::root());
        let mut root = self.root.clone();
        root.version += 1;
        self.root = change(root);
        let bytes = sign_role(&self.root, &before.iter().collect::<Vec<_>>());
        self.roots.push(bytes);
    }

    /// A root that gives these roles new keys.
    pub fn rotate(&mut self, roles: &[TopRole]) {
        let label = format!("rotated {}", self.root.version);
        for top in roles {
            self.keys.insert(top.name(), vec![seed(&label, &top.name(), 0)]);
        }
        let given: Vec<(TopRole, Vec<PublicKey>)> =
            roles.iter().map(|top| (*top, publics(&self.keys[&top.name()]))).collect();
        self.next_root(|root| given.iter().fold(root, |root, (top, keys)| root.with_role(*top, 1, keys)));
    }

    /// A ticket for it.
    pub fn ticket(&self, addresses: &[String]) -> Ticket {
        Ticket {
            repository: self.id,
            root_version: 1,
            root_sha256: self.id.0,
            min_timestamp_version: 1,
            addresses: addresses.to_vec(),
            grant: None,
        }
    }
}

/// The version that signed metadata states.
///
/// # Panics
/// On bytes that are no metadata.
pub fn version_of(bytes: &[u8]) -> u64 {
    let envelope: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
    envelope["signed"]["version"].as_u64().expect("a version")
}

fn signers(seeds: &[[u8; 32]], most: u64) -> Vec<SigningKey> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    seeds.iter().take(most).map(|seed| SigningKey::from_seed(*seed)).collect()
}

fn publics(seeds: &[[u8; 32]]) -> Vec<PublicKey> {
    signers(seeds, u64::MAX).iter().map(SigningKey::public).collect()
}

/// Adds the signatures of `keys` to a signed timestamp, snapshot or role.
///
/// # Panics
/// On bytes that are no envelope.
pub fn also_signed_by<T: updraft_protocol::tuf::Role>(role: &RoleName, bytes: &[u8], keys: &[SigningKey]) -> Vec<u8> {
    cosign::<T>(role, bytes, &keys.iter().collect::<Vec<_>>()).expect("an envelope")
}
