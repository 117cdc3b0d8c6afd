//! The client workflow of TUF section 5, without input or output.
//!
//! [`Trusted`] is what a node believes at one moment. Each `update_*` step takes the bytes of one
//! file, checks them in the order of the specification and either changes the state or refuses with
//! the state as it was. It never fetches: [`Trusted::missing_snapshot`] and
//! [`Trusted::missing_roles`] say what to fetch next.
//!
//! A role that several others delegate to is believed only on the word of those whose keys its file
//! is signed with: one file, but a separate voucher from each delegator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::digest::Digest;
use crate::limits::{MAX_ROOT_BYTES, MAX_SNAPSHOT_BYTES, MAX_TARGETS_BYTES, MAX_TIMESTAMP_BYTES};
use crate::time::UtcTime;

use super::envelope::Envelope;
use super::error::TufError;
use super::part::RoleName;
use super::role::{Root, Snapshot, Targets, Timestamp, TopRole};
use super::signed_part::Role;
use super::threshold::Authority;
use super::verified::Verified;

/// The name of a repository: SHA-256 of the canonical signed part of its first root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RepositoryId(pub Digest);

impl RepositoryId {
    /// The id of the repository that starts with this root, which must be version 1 and signed by a
    /// threshold of its own keys.
    pub fn of_first_root(bytes: &[u8]) -> Result<Self, TufError> {
        first_root(bytes).map(|root| Self(root.signed_digest()))
    }

    /// The digest that the id is.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl From<Digest> for RepositoryId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl std::str::FromStr for RepositoryId {
    type Err = crate::digest::InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// Whether a step checks expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Metadata from outside: refuse what has expired at this time.
    Enforce(UtcTime),
    /// A node's own files at start: expired metadata still protects from rollback, and a snapshot
    /// that the timestamp has overtaken is kept for that alone.
    Deferred,
}

/// Whether a step changed what is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// New metadata is trusted now.
    New,
    /// It was trusted already.
    Same,
}

/// A loaded targets role, and on whose word.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) metadata: Verified<Targets>,
    /// The delegators whose keys the file is signed with, each by the digest of the delegating
    /// metadata as it was when that was checked.
    pub(super) vouchers: BTreeMap<RoleName, Digest>,
    /// The snapshot that lists exactly this file.
    listed_by: Digest,
}

/// What is trusted at one moment. Cheap to clone: try a step on a clone, keep it if it helped.
#[derive(Debug, Clone)]
pub struct Trusted {
    repository: Option<RepositoryId>,
    /// The root that brought the timestamp keys of now.
    timestamp_keys_since: u64,
    pub(super) root: Verified<Root>,
    pub(super) timestamp: Option<Verified<Timestamp>>,
    pub(super) snapshot: Option<Verified<Snapshot>>,
    pub(super) roles: Arc<BTreeMap<RoleName, Loaded>>,
}

fn first_root(bytes: &[u8]) -> Result<Verified<Root>, TufError> {
    let role = RoleName::root();
    let root = Verified::self_signed(&Envelope::parse(&role, bytes, MAX_ROOT_BYTES)?)?;
    if root.version != 1 {
        return Err(TufError::Version { role, expected: 1, found: root.version });
    }
    Ok(root)
}

/// The only place where expiry is checked on the way in.
pub(super) fn check_expiry<T: Role>(metadata: &Verified<T>, expiry: Expiry) -> Result<(), TufError> {
    match expiry {
        Expiry::Enforce(now) if metadata.expires() <= now => {
            Err(TufError::Expired { role: metadata.role_name().clone(), since: metadata.expires() })
        }
        Expiry::Enforce(_) | Expiry::Deferred => Ok(()),
    }
}

/// The only place where versions are compared with what is trusted already.
fn check_rollback(role: &RoleName, trusted: u64, found: u64) -> Result<(), TufError> {
    if found < trusted {
        return Err(TufError::Rollback { role: role.clone(), trusted, found });
    }
    Ok(())
}

pub(super) fn check_version(role: &RoleName, expected: u64, found: u64) -> Result<(), TufError> {
    if found != expected {
        return Err(TufError::Version { role: role.clone(), expected, found });
    }
    Ok(())
}

impl Trusted {
    /// Starts from the first root of `repository`.
    pub fn from_first_root(bytes: &[u8], repository: &RepositoryId) -> Result<Self, TufError> {
        let root = first_root(bytes)?;
        if root.signed_digest() != repository.0 {
            return Err(TufError::WrongRepository);
        }
        Ok(Self { repository: Some(*repository), ..Self::of_root(root) })
    }

    /// Starts from any root that the caller trusts, as plain TUF clients do (TUF 5.2).
    pub fn from_trusted_root(bytes: &[u8]) -> Result<Self, TufError> {
        let envelope = Envelope::parse(&RoleName::root(), bytes, MAX_ROOT_BYTES)?;
        Verified::self_signed(&envelope).map(Self::of_root)
    }

    fn of_root(root: Verified<Root>) -> Self {
        let timestamp_keys_since = root.version;
        Self { repository: None, timestamp_keys_since, root, timestamp: None, snapshot: None, roles: Arc::default() }
    }

    /// The repository, when trust started from its first root.
    pub fn repository(&self) -> Option<RepositoryId> {
        self.repository
    }

    /// The newest root.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The version of the root since which the timestamp keys of now hold, as far back as trust
    /// started. Timestamp versions of an earlier root say nothing about those of now.
    pub fn timestamp_keys_since(&self) -> u64 {
        self.timestamp_keys_since
    }

    /// The newest timestamp.
    pub fn timestamp(&self) -> Option<&Verified<Timestamp>> {
        self.timestamp.as_ref()
    }

    /// The newest snapshot loaded. [`Trusted::missing_snapshot`] tells whether a newer one is named.
    pub fn snapshot(&self) -> Option<&Verified<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// A loaded targets role, top-level or delegated.
    pub fn role(&self, role: &RoleName) -> Option<&Verified<Targets>> {
        self.roles.get(role).map(|loaded| &loaded.metadata)
    }

    /// Takes the next root: exactly version N+1, signed by the old keys and the new (TUF 5.3.4-5.3.7).
    ///
    /// Expiry is not checked here: old roots of a chain have expired, and the last one is checked
    /// before a timestamp is taken.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        let role = RoleName::root();
        let new = self.root.successor(&Envelope::parse(&role, bytes, MAX_ROOT_BYTES)?)?;
        // TUF 5.3.5: "The version number of the new root metadata (version N+1) MUST be exactly the
        // version in the trusted root metadata (version N) incremented by one, that is precisely N+1."
        // The largest version has no successor.
        let next = self.root.version.checked_add(1);
        check_version(&role, next.unwrap_or(0), new.version)?;

        // TUF 5.3.11: "If the timestamp and / or snapshot keys have been rotated, then delete the
        // trusted timestamp and snapshot metadata files." Versions that a thief pushed forward must
        // not outlive the thief's key. A key that is only added rotates nothing: dropping the state
        // then would let the old key, still good, replay an old timestamp.
        let rotated = |top: TopRole| self.root.is_rotated_by(&new, top);
        if rotated(TopRole::Timestamp) {
            self.timestamp_keys_since = new.version;
        }
        if rotated(TopRole::Timestamp) || rotated(TopRole::Snapshot) {
            self.timestamp = None;
            self.snapshot = None;
        }
        self.timestamp = self.timestamp.take().filter(|old| old.is_vouched_by(&new.authority(TopRole::Timestamp)));
        self.snapshot = self.snapshot.take().filter(|old| old.is_vouched_by(&new.authority(TopRole::Snapshot)));
        self.root = new;
        self.settle_roles();
        Ok(())
    }

    /// Checks that the trusted root, the last of its chain, has not expired (TUF 5.3.10).
    /// [`Trusted::update_timestamp`] checks it too; a client that asks before it fetches spares a request.
    pub fn check_root(&self, expiry: Expiry) -> Result<(), TufError> {
        check_expiry(&self.root, expiry)
    }

    /// Takes a timestamp (TUF 5.4).
    pub fn update_timestamp(&mut self, bytes: &[u8], expiry: Expiry) -> Result<Change, TufError> {
        self.check_root(expiry)?;
        let role = RoleName::timestamp();
        let envelope = Envelope::parse(&role, bytes, MAX_TIMESTAMP_BYTES)?;
        let new = Verified::<Timestamp>::check(envelope, &self.root.authority(TopRole::Timestamp))?;
        if let Some(old) = &self.timestamp {
            // TUF 5.4.3.1: "... the version number of the trusted timestamp metadata file MUST be
            // less than or equal to the version number of the new timestamp metadata file ... In
            // case they are equal, discard the new timestamp metadata".
            check_rollback(&role, old.version, new.version)?;
            if old.version == new.version {
                check_expiry(old, expiry)?;
                return Ok(Change::Same);
            }
            // TUF 5.4.3.2: the same for the snapshot version that it names.
            check_rollback(&RoleName::snapshot(), old.snapshot.version, new.snapshot.version)?;
        }
        check_expiry(&new, expiry)?;
        self.timestamp = Some(new);
        Ok(Change::New)
    }

    /// Takes the snapshot that the timestamp names (TUF 5.5).
    pub fn update_snapshot(&mut self, bytes: &[u8], expiry: Expiry) -> Result<Change, TufError> {
        let role = RoleName::snapshot();
        let Some(timestamp) = &self.timestamp else {
            return Err(TufError::OutOfOrder { role, needs: RoleName::timestamp() });
        };
        check_expiry(timestamp, expiry)?;
        let meta = &timestamp.snapshot;
        if matches!(expiry, Expiry::Enforce(_)) {
            meta.check(&role, bytes)?;
        }
        let envelope = Envelope::parse(&role, bytes, MAX_SNAPSHOT_BYTES)?;
        let new = Verified::<Snapshot>::check(envelope, &self.root.authority(TopRole::Snapshot))?;
        if matches!(expiry, Expiry::Enforce(_)) {
            check_version(&role, meta.version, new.version)?;
        }
        if let Some(old) = &self.snapshot {
            check_snapshot_rollback(old, &new)?;
        }
        check_expiry(&new, expiry)?;
        if self.snapshot.as_ref() == Some(&new) {
            return Ok(Change::Same);
        }
        self.snapshot = Some(new);
        self.settle_roles();
        Ok(Change::New)
    }

    /// Takes a targets role that the snapshot lists, top-level or delegated (TUF 5.6).
    pub fn update_targets(&mut self, role: &RoleName, bytes: &[u8], expiry: Expiry) -> Result<Change, TufError> {
        let out_of_order = |needs| TufError::OutOfOrder { role: role.clone(), needs };
        let timestamp = self.timestamp.as_ref().ok_or_else(|| out_of_order(RoleName::timestamp()))?;
        let snapshot = self.snapshot.as_ref().ok_or_else(|| out_of_order(RoleName::snapshot()))?;
        check_expiry(timestamp, expiry)?;
        check_expiry(snapshot, expiry)?;
        if matches!(expiry, Expiry::Enforce(_)) && self.missing_snapshot().is_some() {
            return Err(out_of_order(RoleName::snapshot()));
        }
        let meta = snapshot.role(role).ok_or_else(|| TufError::NotListed { role: role.clone() })?;
        meta.check(role, bytes)?;
        if let Some(loaded) = self.roles.get(role)
            && loaded.metadata.bytes() == bytes
        {
            check_expiry(&loaded.metadata, expiry)?;
            return Ok(Change::Same);
        }
        let envelope = Envelope::parse(role, bytes, MAX_TARGETS_BYTES)?;
        let mut refusal = TufError::NotDelegated { role: role.clone() };
        let mut accepted = None;
        for (delegator, digest, authority) in self.delegators(role) {
            match Verified::<Targets>::check(envelope.clone(), &authority) {
                Ok(metadata) => {
                    accepted = Some((metadata, BTreeMap::from([(delegator, digest)])));
                    break;
                }
                Err(error) => refusal = error,
            }
        }
        let Some((metadata, vouchers)) = accepted else {
            return Err(refusal);
        };
        // TUF 5.6.4: "The version number of the new targets metadata file MUST match the version
        // number listed in the snapshot metadata."
        check_version(role, meta.version, metadata.version)?;
        check_expiry(&metadata, expiry)?;
        let loaded = Loaded { metadata, vouchers, listed_by: snapshot.signed_digest() };
        Arc::make_mut(&mut self.roles).insert(role.clone(), loaded);
        self.settle_roles();
        Ok(Change::New)
    }

    /// Every trusted delegator of `role`, with the digest of its metadata and whom it lets sign.
    pub(super) fn delegators(&self, role: &RoleName) -> Vec<(RoleName, Digest, Authority<'_>)> {
        if *role == RoleName::targets() {
            return vec![(RoleName::root(), self.root.signed_digest(), self.root.authority(TopRole::Targets))];
        }
        self.roles
            .iter()
            .filter_map(|(name, loaded)| {
                let authority = loaded.metadata.delegations.as_ref()?.authority(role)?;
                Some((name.clone(), loaded.metadata.signed_digest(), authority))
            })
            .collect()
    }

    /// Keeps the loaded roles that the snapshot lists and that a chain of delegations from the root
    /// vouches for, and drops the others. Signatures are checked again only where the delegating
    /// metadata changed.
    fn settle_roles(&mut self) {
        let old = std::mem::take(&mut self.roles);
        let mut kept: BTreeMap<RoleName, Loaded> = BTreeMap::new();
        let mut edges = VecDeque::from([(RoleName::root(), RoleName::targets())]);
        while let Some((delegator, role)) = edges.pop_front() {
            let Some(listed_by) = old.get(&role).and_then(|loaded| self.listing(&role, loaded)) else {
                continue;
            };
            let Some(loaded) = old.get(&role) else {
                continue;
            };
            let authority = match kept.get(&delegator) {
                Some(above) => above
                    .metadata
                    .delegations
                    .as_ref()
                    .and_then(|delegations| delegations.authority(&role))
                    .map(|authority| (above.metadata.signed_digest(), authority)),
                None => Some((self.root.signed_digest(), self.root.authority(TopRole::Targets))),
            };
            let Some((digest, authority)) = authority else {
                continue;
            };
            let known = loaded.vouchers.get(&delegator) == Some(&digest);
            if !known && !loaded.metadata.is_vouched_by(&authority) {
                continue;
            }
            if let Some(already) = kept.get_mut(&role) {
                already.vouchers.insert(delegator, digest);
                continue;
            }
            let below = loaded.metadata.delegations.iter().flat_map(|delegations| &delegations.roles);
            edges.extend(below.map(|child| (role.clone(), child.name.clone())));
            let vouchers = BTreeMap::from([(delegator, digest)]);
            kept.insert(role, Loaded { metadata: loaded.metadata.clone(), vouchers, listed_by });
        }
        self.roles = Arc::new(kept);
    }

    /// The digest of the trusted snapshot if it lists exactly the file of `loaded`. While no snapshot
    /// is trusted, roles wait for the next one to confirm them.
    fn listing(&self, role: &RoleName, loaded: &Loaded) -> Option<Digest> {
        let Some(snapshot) = &self.snapshot else {
            return Some(loaded.listed_by);
        };
        if snapshot.signed_digest() == loaded.listed_by {
            return Some(loaded.listed_by);
        }
        let meta = snapshot.role(role)?;
        let same = meta.version == loaded.metadata.version && meta.check(role, loaded.metadata.bytes()).is_ok();
        same.then(|| snapshot.signed_digest())
    }
}

/// TUF 5.5.5: "The version number of the targets metadata file(s) listed in the trusted snapshot
/// metadata file MUST be less than or equal to the version in the new snapshot metadata file ...
/// any targets metadata filename that was listed in the trusted snapshot metadata file, if any, MUST
/// continue to be listed in the new snapshot metadata file."
fn check_snapshot_rollback(old: &Snapshot, new: &Snapshot) -> Result<(), TufError> {
    check_rollback(&RoleName::snapshot(), old.version, new.version)?;
    for (file, old_meta) in &old.meta {
        let name = file.strip_suffix(".json").unwrap_or(file);
        let role = name.parse().unwrap_or_else(|_| RoleName::snapshot());
        match new.meta.get(file) {
            Some(new_meta) => check_rollback(&role, old_meta.version, new_meta.version)?,
            None => return Err(TufError::Removed { role }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
