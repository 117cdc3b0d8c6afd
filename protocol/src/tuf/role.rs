//! The four roles of TUF 4.3-4.6 as typed metadata.
//!
//! The structs are plain so that a publisher can build and change them. Reading one from bytes is
//! not possible from outside: [`Role`] is sealed, and only the signature check calls it.

use std::collections::BTreeMap;

use semver::Version;
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::key::{KeyId, PublicKey};
use crate::limits::{
    MAX_ANCESTORS, MAX_ROOT_BYTES, MAX_SNAPSHOT_BYTES, MAX_TARGET_PATH_BYTES, MAX_TARGETS_BYTES, MAX_TIMESTAMP_BYTES,
};
use crate::names::{Product, parse_version};
use crate::time::UtcTime;

use super::delegation::Delegations;
use super::part::{FileMeta, Keys, RoleKeys, RoleName, TargetInfo, check_keys, check_threshold};
use super::signed_part::{Fields, Role, SignedPart};
use super::threshold::Authority;
use super::verified::Verified;

/// The roles whose keys the root names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopRole {
    /// Which keys speak for which role.
    Root,
    /// Which snapshot is the newest.
    Timestamp,
    /// Which versions of the targets roles belong together.
    Snapshot,
    /// What may be installed, and who else may say so.
    Targets,
}

impl TopRole {
    /// The role's name.
    pub fn name(self) -> RoleName {
        match self {
            Self::Root => RoleName::root(),
            Self::Timestamp => RoleName::timestamp(),
            Self::Snapshot => RoleName::snapshot(),
            Self::Targets => RoleName::targets(),
        }
    }
}

/// Root metadata (TUF 4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The version, counted from 1.
    pub version: u64,
    /// When it stops being valid.
    pub expires: UtcTime,
    /// Whether file names carry a version or hash prefix.
    pub consistent_snapshot: bool,
    /// The key table.
    pub keys: Keys,
    /// Who may sign which top-level role.
    pub roles: RootRoles,
    /// Fields that this version does not know.
    pub other: BTreeMap<String, Value>,
}

/// Who may sign which top-level role.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RootRoles {
    /// Who may sign the root.
    pub root: RoleKeys,
    /// Who may sign the timestamp.
    pub timestamp: RoleKeys,
    /// Who may sign the snapshot.
    pub snapshot: RoleKeys,
    /// Who may sign the top-level targets.
    pub targets: RoleKeys,
    /// Roles that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Root {
    /// A root without keys: give each role its own with [`Root::with_role`].
    pub fn new(version: u64, expires: UtcTime) -> Self {
        let nobody = || RoleKeys::new(Vec::new(), 1);
        Self {
            version,
            expires,
            consistent_snapshot: true,
            keys: Keys::new(),
            roles: RootRoles {
                root: nobody(),
                timestamp: nobody(),
                snapshot: nobody(),
                targets: nobody(),
                other: BTreeMap::new(),
            },
            other: BTreeMap::new(),
        }
    }

    /// Gives `role` these keys, any `threshold` of which may sign it, in place of those it had. Keys
    /// that no role uses any more leave the key table.
    #[must_use]
    pub fn with_role(mut self, role: TopRole, threshold: u64, keys: &[PublicKey]) -> Self {
        let keyids: Vec<KeyId> = keys.iter().map(PublicKey::id).collect();
        self.keys.extend(keyids.iter().cloned().zip(keys.iter().cloned()));
        let place = match role {
            TopRole::Root => &mut self.roles.root,
            TopRole::Timestamp => &mut self.roles.timestamp,
            TopRole::Snapshot => &mut self.roles.snapshot,
            TopRole::Targets => &mut self.roles.targets,
        };
        place.keyids = keyids;
        place.threshold = threshold;
        let roles = &self.roles;
        self.keys.retain(|keyid, _| {
            [&roles.root, &roles.timestamp, &roles.snapshot, &roles.targets]
                .iter()
                .any(|role| role.keyids.contains(keyid))
        });
        self
    }

    /// Who may sign `role`.
    pub fn role(&self, role: TopRole) -> &RoleKeys {
        match role {
            TopRole::Root => &self.roles.root,
            TopRole::Timestamp => &self.roles.timestamp,
            TopRole::Snapshot => &self.roles.snapshot,
            TopRole::Targets => &self.roles.targets,
        }
    }

    /// Whether `newer` takes away a key that this root names for `role`.
    pub fn is_rotated_by(&self, newer: &Self, role: TopRole) -> bool {
        !self.authority(role).is_kept_by(&newer.authority(role))
    }

    pub(super) fn authority(&self, role: TopRole) -> Authority<'_> {
        let role = self.role(role);
        Authority { keys: &self.keys, keyids: &role.keyids, threshold: role.threshold }
    }
}

impl Role for Root {
    const TYPE: &'static str = "root";
    const MAX_BYTES: u64 = MAX_ROOT_BYTES;

    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> UtcTime {
        self.expires
    }
}

impl SignedPart for Root {
    fn from_signed(mut fields: Fields) -> Result<Self, String> {
        fields.open(Self::TYPE)?;
        let root = Self {
            version: fields.version()?,
            expires: fields.required("expires")?,
            consistent_snapshot: fields.optional("consistent_snapshot")?.unwrap_or(false),
            keys: fields.required("keys")?,
            roles: fields.required("roles")?,
            other: fields.rest(),
        };
        check_keys(&root.keys)?;
        for role in [TopRole::Root, TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets] {
            check_threshold(root.role(role).threshold)?;
        }
        Ok(root)
    }

    fn to_signed(&self) -> Map<String, Value> {
        let mut fields = Fields::close(self, &self.other);
        fields.put("consistent_snapshot", &self.consistent_snapshot);
        fields.put("keys", &self.keys);
        fields.put("roles", &self.roles);
        fields.into_signed()
    }
}

/// Timestamp metadata (TUF 4.6), and three signed fields of Updraft's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// The version, counted from 1.
    pub version: u64,
    /// When it stops being valid.
    pub expires: UtcTime,
    /// The newest snapshot.
    pub snapshot: FileMeta,
    /// When it was signed, by the seed's clock.
    pub signed_at: Option<UtcTime>,
    /// SHA-256 of the canonical signed part of the timestamp before this one.
    pub prev_sha256: Option<Digest>,
    /// The same of the timestamps before that one, newest first: a node that missed some still finds
    /// out whether it was shown the same history.
    pub ancestors: Vec<Digest>,
    /// Fields that this version does not know.
    pub other: BTreeMap<String, Value>,
}

impl Timestamp {
    /// A timestamp that names `snapshot` as the newest.
    pub fn new(version: u64, expires: UtcTime, snapshot: FileMeta) -> Self {
        Self {
            version,
            expires,
            snapshot,
            signed_at: None,
            prev_sha256: None,
            ancestors: Vec::new(),
            other: BTreeMap::new(),
        }
    }

    /// States that this timestamp follows `before`, and what `before` followed.
    #[must_use]
    pub fn following(mut self, before: &Verified<Self>) -> Self {
        self.prev_sha256 = Some(before.signed_digest());
        let known = before.prev_sha256.into_iter().chain(before.ancestors.iter().copied());
        self.ancestors = known.take(MAX_ANCESTORS).collect();
        self
    }

    /// The digest of the signed part that this timestamp states for the earlier `version`, if it
    /// reaches back that far.
    pub fn ancestor(&self, version: u64) -> Option<Digest> {
        match self.version.checked_sub(version)? {
            0 => None,
            1 => self.prev_sha256,
            back => self.ancestors.get(usize::try_from(back - 2).ok()?).copied(),
        }
    }

    /// Whether two validly signed timestamps cannot both be honest: one version with two contents, or
    /// a history of the one in which the other does not occur.
    pub fn contradicts(one: &Verified<Self>, other: &Verified<Self>) -> bool {
        let (older, newer) = if one.version <= other.version { (one, other) } else { (other, one) };
        if older.version == newer.version {
            return older.signed_digest() != newer.signed_digest();
        }
        newer.ancestor(older.version).is_some_and(|stated| stated != older.signed_digest())
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct TimestampFiles {
    #[serde(rename = "snapshot.json")]
    snapshot: FileMeta,
    /// Not read. A flattened field is also what keeps an array from passing for an object.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl Role for Timestamp {
    const TYPE: &'static str = "timestamp";
    const MAX_BYTES: u64 = MAX_TIMESTAMP_BYTES;

    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> UtcTime {
        self.expires
    }
}

impl SignedPart for Timestamp {
    fn from_signed(mut fields: Fields) -> Result<Self, String> {
        fields.open(Self::TYPE)?;
        let timestamp = Self {
            version: fields.version()?,
            expires: fields.required("expires")?,
            snapshot: fields.required::<TimestampFiles>("meta")?.snapshot,
            signed_at: fields.optional("signed_at")?,
            prev_sha256: fields.optional("prev_sha256")?,
            ancestors: fields.optional::<Vec<Digest>>("ancestors")?.unwrap_or_default(),
            other: fields.rest(),
        };
        timestamp.snapshot.validate()?;
        Ok(timestamp)
    }

    fn to_signed(&self) -> Map<String, Value> {
        let mut fields = Fields::close(self, &self.other);
        fields.put("meta", &TimestampFiles { snapshot: self.snapshot.clone(), other: BTreeMap::new() });
        if let Some(signed_at) = &self.signed_at {
            fields.put("signed_at", signed_at);
        }
        if let Some(digest) = &self.prev_sha256 {
            fields.put("prev_sha256", digest);
        }
        if !self.ancestors.is_empty() {
            fields.put("ancestors", &self.ancestors);
        }
        fields.into_signed()
    }
}

/// Snapshot metadata (TUF 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The version, counted from 1.
    pub version: u64,
    /// When it stops being valid.
    pub expires: UtcTime,
    /// The targets roles that belong together, by `ROLE.json` (the role name itself, unquoted).
    pub meta: BTreeMap<String, FileMeta>,
    /// Fields that this version does not know.
    pub other: BTreeMap<String, Value>,
}

impl Snapshot {
    /// A snapshot that lists no role yet: add them with [`Snapshot::with_role`].
    pub fn new(version: u64, expires: UtcTime) -> Self {
        Self { version, expires, meta: BTreeMap::new(), other: BTreeMap::new() }
    }

    /// Lists `role`.
    #[must_use]
    pub fn with_role(mut self, role: &RoleName, meta: FileMeta) -> Self {
        self.meta.insert(format!("{}.json", role.as_str()), meta);
        self
    }

    /// What the snapshot says about `role`.
    pub fn role(&self, role: &RoleName) -> Option<&FileMeta> {
        self.meta.get(&format!("{}.json", role.as_str()))
    }
}

impl Role for Snapshot {
    const TYPE: &'static str = "snapshot";
    const MAX_BYTES: u64 = MAX_SNAPSHOT_BYTES;

    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> UtcTime {
        self.expires
    }
}

impl SignedPart for Snapshot {
    fn from_signed(mut fields: Fields) -> Result<Self, String> {
        fields.open(Self::TYPE)?;
        let snapshot = Self {
            version: fields.version()?,
            expires: fields.required("expires")?,
            meta: fields.required("meta")?,
            other: fields.rest(),
        };
        snapshot.meta.values().try_for_each(FileMeta::validate)?;
        Ok(snapshot)
    }

    fn to_signed(&self) -> Map<String, Value> {
        let mut fields = Fields::close(self, &self.other);
        fields.put("meta", &self.meta);
        fields.into_signed()
    }
}

/// Targets metadata (TUF 4.5), top-level or delegated, and the security floors of Updraft's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// The version, counted from 1.
    pub version: u64,
    /// When it stops being valid.
    pub expires: UtcTime,
    /// What this role says about each target path.
    pub targets: BTreeMap<String, TargetInfo>,
    /// Who else may speak, about which paths.
    pub delegations: Option<Delegations>,
    /// The lowest version of each product that may be installed. Only the top-level role's count.
    pub security_floor: BTreeMap<Product, Version>,
    /// Fields that this version does not know.
    pub other: BTreeMap<String, Value>,
}

impl Targets {
    /// A role that says nothing yet.
    pub fn new(version: u64, expires: UtcTime) -> Self {
        Self {
            version,
            expires,
            targets: BTreeMap::new(),
            delegations: None,
            security_floor: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }
}

/// The signed field `updraft` of a targets role.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct UpdraftFields {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    security_floor: BTreeMap<Product, String>,
    /// Fields that this version does not know; [`Targets::other`] keeps them under the same name. A
    /// flattened field is also what keeps an array from passing for an object.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

const UPDRAFT: &str = "updraft";

impl Role for Targets {
    const TYPE: &'static str = "targets";
    const MAX_BYTES: u64 = MAX_TARGETS_BYTES;

    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> UtcTime {
        self.expires
    }
}

impl SignedPart for Targets {
    fn from_signed(mut fields: Fields) -> Result<Self, String> {
        fields.open(Self::TYPE)?;
        let updraft = fields.optional::<UpdraftFields>(UPDRAFT)?.unwrap_or_default();
        let security_floor = updraft
            .security_floor
            .into_iter()
            .map(|(product, version)| Ok((product, parse_version(&version).map_err(|error| error.to_string())?)))
            .collect::<Result<_, String>>()?;
        let mut targets = Self {
            version: fields.version()?,
            expires: fields.required("expires")?,
            targets: fields.required("targets")?,
            delegations: fields.optional("delegations")?,
            security_floor,
            other: fields.rest(),
        };
        if !updraft.other.is_empty() {
            targets.other.insert(UPDRAFT.to_owned(), updraft.other.into_iter().collect());
        }
        if let Some(path) = targets.targets.keys().find(|path| path.len() > MAX_TARGET_PATH_BYTES) {
            return Err(format!("a target path of {} bytes; at most {MAX_TARGET_PATH_BYTES} are read", path.len()));
        }
        targets.delegations.as_ref().map_or(Ok(()), Delegations::validate)?;
        Ok(targets)
    }

    fn to_signed(&self) -> Map<String, Value> {
        let mut fields = Fields::close(self, &self.other);
        fields.put("targets", &self.targets);
        if let Some(delegations) = &self.delegations {
            fields.put("delegations", delegations);
        }
        if !self.security_floor.is_empty() {
            let security_floor =
                self.security_floor.iter().map(|(product, version)| (product.clone(), version.to_string())).collect();
            let other = self.other.get(UPDRAFT).and_then(Value::as_object).cloned().unwrap_or_default();
            fields.put(UPDRAFT, &UpdraftFields { security_floor, other: other.into_iter().collect() });
        }
        fields.into_signed()
    }
}
