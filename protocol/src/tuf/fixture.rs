//! A whole repository for tests: one product, `editor`, with one release and one channel.
//!
//! Tests change the plain structs and call [`Repository::files`], which signs everything and makes the
//! snapshot and the timestamp name exactly what was signed.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::key::{PublicKey, SigningKey};
use crate::time::UtcTime;

use super::{
    Change, DelegatedRole, Delegations, Expiry, FileMeta, RepositoryId, RoleName, Root, Snapshot, TargetInfo, Targets,
    Timestamp, TopRole, Trusted, sign_role,
};

pub(crate) mod p256;

/// The time of the tests.
pub(crate) fn now() -> UtcTime {
    UtcTime::from_unix(1_800_000_000)
}

/// When the fixture's metadata expires.
pub(crate) fn later() -> UtcTime {
    now().plus_days(14)
}

pub(crate) fn enforce() -> Expiry {
    Expiry::Enforce(now())
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub(crate) fn public(seed: u8) -> PublicKey {
    key(seed).public()
}

pub(crate) fn role(name: &str) -> RoleName {
    name.parse().expect("a role name")
}

/// Seeds of the keys that each role starts with.
pub(crate) const ROOT: u8 = 1;
pub(crate) const TIMESTAMP: u8 = 2;
pub(crate) const SNAPSHOT: u8 = 3;
pub(crate) const TARGETS: u8 = 4;
pub(crate) const CHANNELS: u8 = 5;
pub(crate) const RELEASES: u8 = 6;

pub(crate) const ARTIFACT: &str = "releases/editor/1.0.0/any/editor.zip";
pub(crate) const CHANNEL: &str = "channels/editor/stable.json";
pub(crate) const POLICY: &[u8] = br#"{"schema":1,"version":"1.0.0"}"#;

/// The repository as its owner edits it.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(crate) root: Root,
    pub(crate) timestamp: Timestamp,
    pub(crate) snapshot: Snapshot,
    /// The targets roles, each with the seeds of the keys that sign it.
    pub(crate) roles: BTreeMap<RoleName, (Targets, Vec<u8>)>,
    pub(crate) root_signers: Vec<u8>,
    pub(crate) timestamp_signers: Vec<u8>,
    pub(crate) snapshot_signers: Vec<u8>,
}

/// The repository as its clients fetch it.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) root: Vec<u8>,
    pub(crate) timestamp: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
    pub(crate) roles: BTreeMap<RoleName, Vec<u8>>,
}

pub(crate) fn sign<T: super::Role>(role: &T, seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<SigningKey> = seeds.iter().map(|seed| key(*seed)).collect();
    sign_role(role, &keys.iter().collect::<Vec<_>>())
}

impl Repository {
    pub(crate) fn new() -> Self {
        let root = Root::new(1, now().plus_days(365))
            .with_role(TopRole::Root, 1, &[public(ROOT)])
            .with_role(TopRole::Timestamp, 1, &[public(TIMESTAMP)])
            .with_role(TopRole::Snapshot, 1, &[public(SNAPSHOT)])
            .with_role(TopRole::Targets, 1, &[public(TARGETS)]);

        let mut releases = Targets::new(1, later());
        releases.targets.insert(ARTIFACT.to_owned(), TargetInfo::of(b"artifact"));
        let mut channels = Targets::new(1, later());
        channels.targets.insert(CHANNEL.to_owned(), TargetInfo::of(POLICY));
        let mut targets = Targets::new(1, later());
        targets.delegations = Some(
            Delegations::default()
                .with_role(
                    DelegatedRole::new(role("channels"), &["channels/*/*"]).terminating(),
                    1,
                    &[public(CHANNELS)],
                )
                .with_role(
                    DelegatedRole::new(role("releases-editor"), &["releases/editor/*/*/*"]),
                    1,
                    &[public(RELEASES)],
                ),
        );
        Self {
            root,
            timestamp: Timestamp::new(1, later(), FileMeta::of(1, b"")),
            snapshot: Snapshot::new(1, later()),
            roles: BTreeMap::from([
                (role("targets"), (targets, vec![TARGETS])),
                (role("channels"), (channels, vec![CHANNELS])),
                (role("releases-editor"), (releases, vec![RELEASES])),
            ]),
            root_signers: vec![ROOT],
            timestamp_signers: vec![TIMESTAMP],
            snapshot_signers: vec![SNAPSHOT],
        }
    }

    pub(crate) fn targets(&mut self, name: &str) -> &mut Targets {
        &mut self.roles.get_mut(&role(name)).expect("a role of the repository").0
    }

    /// Delegates from `parent` to `child`, a new role with one target, signed by `seed`.
    pub(crate) fn delegate(&mut self, parent: &str, delegation: DelegatedRole, seed: u8, target: Option<&str>) {
        let mut child = Targets::new(1, later());
        child.targets.extend(target.map(|path| (path.to_owned(), TargetInfo::of(delegation.name.as_str().as_bytes()))));
        let name = delegation.name.clone();
        let delegations = self.targets(parent).delegations.take().unwrap_or_default();
        self.targets(parent).delegations = Some(delegations.with_role(delegation, 1, &[public(seed)]));
        self.roles.entry(name).or_insert((child, vec![seed]));
    }

    /// The next version of a targets role and of all above it.
    pub(crate) fn bump(&mut self, name: &str) {
        self.targets(name).version += 1;
        self.bump_snapshot();
    }

    pub(crate) fn bump_snapshot(&mut self) {
        self.snapshot.version += 1;
        self.bump_timestamp();
    }

    pub(crate) fn bump_timestamp(&mut self) {
        self.timestamp.version += 1;
    }

    /// Signs everything as it stands.
    pub(crate) fn files(&self) -> Files {
        let roles: BTreeMap<RoleName, Vec<u8>> =
            self.roles.iter().map(|(name, (targets, seeds))| (name.clone(), sign(targets, seeds))).collect();
        let mut snapshot = self.snapshot.clone();
        for (name, bytes) in &roles {
            let version = self.roles[name].0.version;
            snapshot = snapshot.with_role(name, FileMeta::of(version, bytes));
        }
        self.files_of(&snapshot, roles)
    }

    /// Signs everything around a snapshot that may not fit the roles.
    pub(crate) fn files_of(&self, snapshot: &Snapshot, roles: BTreeMap<RoleName, Vec<u8>>) -> Files {
        let bytes = sign(snapshot, &self.snapshot_signers);
        let timestamp = Timestamp { snapshot: FileMeta::of(snapshot.version, &bytes), ..self.timestamp.clone() };
        Files {
            root: sign(&self.root, &self.root_signers),
            timestamp: sign(&timestamp, &self.timestamp_signers),
            snapshot: bytes,
            roles,
        }
    }

    pub(crate) fn id(&self) -> RepositoryId {
        RepositoryId::of_first_root(&self.files().root).expect("the first root")
    }

    /// A node that has loaded everything.
    pub(crate) fn trusted(&self) -> Trusted {
        let mut trusted = self.trusted_root();
        self.files().load(&mut trusted);
        trusted
    }

    /// A node that has only the root.
    pub(crate) fn trusted_root(&self) -> Trusted {
        Trusted::from_trusted_root(&self.files().root).expect("the root is self-signed")
    }
}

impl Files {
    /// Loads timestamp, snapshot and every role, as a client does that finds nothing wrong.
    pub(crate) fn load(&self, trusted: &mut Trusted) {
        let _ = trusted.update_timestamp(&self.timestamp, enforce()).expect("a good timestamp");
        let _ = trusted.update_snapshot(&self.snapshot, enforce()).expect("a good snapshot");
        self.load_roles(trusted);
        assert!(trusted.is_complete());
    }

    /// Loads what [`Trusted::missing_roles`] asks for, until it asks for nothing.
    pub(crate) fn load_roles(&self, trusted: &mut Trusted) {
        loop {
            let missing = trusted.missing_roles();
            if missing.is_empty() {
                break;
            }
            for request in missing {
                let bytes = &self.roles[&request.role];
                assert_eq!(request.sha256, Some(Digest::of(bytes)));
                let change = trusted.update_targets(&request.role, bytes, enforce()).expect("a good role");
                assert_eq!(change, Change::New);
            }
        }
    }
}
