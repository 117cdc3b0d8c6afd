//! Whatever the holders of keys can sign, wise or not: for tests of what stolen keys can and cannot do.
//!
//! The publisher refuses to sign what makes no sense. A thief does not ask the publisher.

use std::collections::BTreeMap;

use updraft_protocol::digest::Digest;
use updraft_protocol::head::Head;
use updraft_protocol::key::SigningKey;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{
    DelegatedRole, Expiry, FileMeta, RoleName, Root, Snapshot, TargetInfo, Targets, Timestamp, TopRole, Trusted,
    sign_role,
};

use crate::repository::{TestKeys, TestRepository};

/// A signed set as a seed would hand it to its engine.
#[derive(Debug, Clone)]
pub struct Forged {
    /// The head.
    pub head: Vec<u8>,
    /// Every role and channel file, and new roots.
    pub files: Vec<(MetaFile, Vec<u8>)>,
    /// The set, verified.
    pub trusted: Trusted,
}

/// A repository in the hands of whoever has its keys.
#[derive(Debug, Clone)]
pub struct Holder {
    trusted: Trusted,
    roles: BTreeMap<RoleName, Targets>,
    bytes: BTreeMap<RoleName, Vec<u8>>,
    channels: BTreeMap<String, Vec<u8>>,
    /// Seeds of keys that replaced the first ones.
    keys: BTreeMap<RoleName, [u8; 32]>,
    roots: Vec<(MetaFile, Vec<u8>)>,
    snapshot: Snapshot,
    timestamp: Timestamp,
    previous: Digest,
}

fn key(role: &RoleName) -> SigningKey {
    TestKeys::default().key(role)
}

impl Holder {
    /// Takes over a repository as it stands.
    ///
    /// # Panics
    /// Where the repository is not whole.
    pub fn of(repository: &TestRepository) -> Self {
        let trusted = repository.signed.trusted.clone();
        let names: Vec<RoleName> = trusted.loaded_roles().cloned().collect();
        let role = |name: &RoleName| trusted.role(name).expect("loaded");
        let timestamp = trusted.timestamp().expect("whole");
        Self {
            roles: names.iter().map(|name| (name.clone(), Targets::clone(role(name)))).collect(),
            bytes: names.iter().map(|name| (name.clone(), role(name).bytes().to_vec())).collect(),
            channels: repository.view().channel_files.iter().map(|(path, b)| (path.clone(), b.to_vec())).collect(),
            keys: BTreeMap::new(),
            roots: Vec::new(),
            snapshot: Snapshot::clone(trusted.snapshot().expect("whole")),
            timestamp: Timestamp::clone(timestamp),
            previous: timestamp.signed_digest(),
            trusted,
        }
    }

    fn signing_key(&self, role: &RoleName) -> SigningKey {
        self.keys.get(role).map_or_else(|| key(role), |seed| SigningKey::from_seed(*seed))
    }

    /// Replaces the key of the targets role by a new root.
    ///
    /// # Panics
    /// Where the new root does not verify, which would be a bug.
    pub fn rotate_targets_key(&mut self, now: UtcTime) {
        let seed = [9; 32];
        let new = SigningKey::from_seed(seed);
        let mut root: Root = Root::clone(self.trusted.root());
        root.version += 1;
        root.expires = now.plus_days(365);
        let root = root.with_role(TopRole::Targets, 1, &[new.public()]);
        let bytes = sign_role(&root, &[&key(&RoleName::root())]);
        self.trusted.update_root(&bytes).expect("signed by the root key");
        self.roots.push((MetaFile::Root { version: root.version }, bytes));
        self.keys.insert(RoleName::targets(), seed);
        self.change(&RoleName::targets(), now, |_| {});
    }

    /// Changes a role and signs it again.
    ///
    /// # Panics
    /// Where there is no such role.
    pub fn change(&mut self, name: &RoleName, now: UtcTime, change: impl FnOnce(&mut Targets)) {
        let signer = self.signing_key(name);
        let role = self.roles.get_mut(name).expect("a role of the repository");
        change(role);
        role.version += 1;
        role.expires = now.plus_days(365);
        let bytes = sign_role(role, &[&signer]);
        self.snapshot = self.snapshot.clone().with_role(name, FileMeta::of(role.version, &bytes));
        self.bytes.insert(name.clone(), bytes);
    }

    /// Adds a product with its own role, filled by `fill`.
    ///
    /// # Panics
    /// Where there is no targets role.
    pub fn add_product(&mut self, product: &Product, now: UtcTime, fill: impl FnOnce(&Product, &mut Targets)) {
        let name = RoleName::releases(product);
        let path = format!("releases/{product}/*/*/*");
        let public = key(&name).public();
        self.change(&RoleName::targets(), now, |targets| {
            let delegations = targets.delegations.take().unwrap_or_default();
            let role = DelegatedRole::new(name.clone(), &[&path]);
            targets.delegations = Some(delegations.with_role(role, 1, &[public]));
        });
        self.roles.insert(name.clone(), Targets::new(0, now));
        self.change(&name, now, |role| fill(product, role));
    }

    /// Points a channel somewhere.
    ///
    /// # Panics
    /// Where there is no channels role.
    pub fn set_channel(&mut self, product: &Product, channel: &Channel, policy: &ChannelPolicy, now: UtcTime) {
        let (path, bytes) = (channel.path(product), policy.encode());
        let target = TargetInfo::of(&bytes);
        self.channels.insert(path.clone(), bytes);
        self.change(&RoleName::channels(), now, |role| {
            role.targets.insert(path, target);
        });
    }

    /// Signs everything as one set that claims to be signed at `signed_at`.
    ///
    /// # Panics
    /// Where the set does not verify, which would be a bug of the test.
    pub fn sign(&mut self, now: UtcTime, signed_at: UtcTime) -> Forged {
        let expires = now.plus_days(14);
        self.snapshot.version += 1;
        self.snapshot.expires = expires;
        let snapshot = sign_role(&self.snapshot, &[&key(&RoleName::snapshot())]);
        let version = self.timestamp.version + 1;
        self.timestamp = Timestamp::new(version, expires, FileMeta::of(self.snapshot.version, &snapshot));
        self.timestamp.signed_at = Some(signed_at);
        self.timestamp.prev_sha256 = Some(self.previous);
        let timestamp = sign_role(&self.timestamp, &[&key(&RoleName::timestamp())]);
        let _new = self.trusted.update_timestamp(&timestamp, Expiry::Deferred).expect("a newer timestamp");
        let _new = self.trusted.update_snapshot(&snapshot, Expiry::Deferred).expect("its snapshot");
        self.previous = self.trusted.timestamp().expect("just taken").signed_digest();
        while let Some(request) = self.trusted.missing_roles().into_iter().next() {
            let bytes = &self.bytes[&request.role];
            let _new = self.trusted.update_targets(&request.role, bytes, Expiry::Deferred).expect("just signed");
        }
        let roles = self.bytes.iter().map(|(name, bytes)| {
            let version = self.roles[name].version;
            (MetaFile::Role { name: name.as_str().to_owned(), version }, bytes.clone())
        });
        let channels = self
            .channels
            .iter()
            .map(|(path, bytes)| (MetaFile::Target { path: path.clone(), sha256: Digest::of(bytes) }, bytes.clone()));
        let head = Head::from_trusted(&self.trusted, Vec::new()).expect("a head fits").encode();
        let files = self.roots.iter().cloned().chain(roles).chain(channels).collect();
        Forged { head, files, trusted: self.trusted.clone() }
    }
}
