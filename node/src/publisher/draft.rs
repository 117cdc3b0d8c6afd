//! The next version of a repository's metadata: changed in memory, then signed as one consistent set.
//!
//! Pure: the current verified set, the keys and the time come in, signed files come out.

use std::collections::BTreeMap;

use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Head, Inline};
use updraft_protocol::key::{PublicKey, SigningKey};
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::release::Release;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{
    DelegatedRole, Delegations, Expiry, FileMeta, Finished, RepositoryId, Role, RoleName, Root, Signers, Snapshot,
    TargetInfo, Targets, Timestamp, TopRole, Trusted, TufError, Verified, sign_role,
};

use super::keys::is_online;
use crate::engine::catalog::{CatalogView, carry_roles};
use crate::engine::offers::rule;

const DAY_S: i64 = 86_400;

/// Days that a new root is valid.
pub const ROOT_DAYS: i64 = 365;
/// Days that new metadata of an offline targets role is valid.
pub const TARGETS_DAYS: i64 = 365;
const CHANNELS_DAYS: i64 = 30;
const SNAPSHOT_DAYS: i64 = 14;
/// The channels role is signed again when less than this is left of it.
const CHANNELS_RENEW_DAYS: i64 = 20;
/// Offline roles whose keys are here nevertheless are signed again when less than a third is left.
const OFFLINE_RENEW_DAYS: i64 = TARGETS_DAYS / 3;

/// Why a change cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The version exists, or one that differs in build metadata only.
    #[error(
        "{product} {wanted} for {platform} cannot be published: {existing} exists, and releases are immutable; choose a higher version"
    )]
    Exists {
        /// The product.
        product: Product,
        /// What was to be published.
        wanted: String,
        /// What exists.
        existing: String,
        /// The platform.
        platform: String,
    },
    /// The limits of signed metadata would be broken.
    #[error("the release breaks a limit: {0}")]
    Limit(String),
    /// A key is missing.
    #[error(transparent)]
    Keys(#[from] super::keys::KeysError),
    /// What was just signed does not verify: the keys on this machine are not those of the repository.
    #[error("what was signed does not verify ({0}): the keys on this machine are not this repository's")]
    WrongKeys(TufError),
    /// What is in force has expired, and what would replace it is not signed here.
    #[error(
        "{0}; until it is signed anew nothing that builds on it can be: `updraft root draft --renew --output FILE` (for the root), `updraft targets draft --role ROLE --renew --output FILE`"
    )]
    Expired(TufError),
    /// The repository is not whole.
    #[error("the repository lacks its {0} metadata; it must be whole before anything is added")]
    Incomplete(RoleName),
    /// A thief of the role's key pushed its version to the end.
    #[error(
        "the {0} metadata has reached the last version that there is: somebody else signed it; replace its key by a new root (updraft key rotate {0}), after which versions start anew"
    )]
    Exhausted(RoleName),
    /// The head would not fit a gossip message.
    #[error("the signed head does not fit a gossip message; retire old products")]
    HeadTooLarge,
}

/// Where signing keys come from.
pub trait KeySource {
    /// Private keys of `role` that `authorised` lists, exactly as many as must sign it: a head may carry
    /// no signature too many.
    fn signers(&self, role: &RoleName, authorised: &Signers) -> Result<Vec<SigningKey>, super::keys::KeysError>;
}

/// Signs `metadata` with the keys that may sign `role`.
fn sign<T: Role>(
    role: &RoleName,
    metadata: &T,
    authorised: &Signers,
    keys: &dyn KeySource,
) -> Result<Vec<u8>, DraftError> {
    let keys = keys.signers(role, authorised)?;
    Ok(sign_role(metadata, &keys.iter().collect::<Vec<_>>()))
}

/// A signed, consistent set: every file that is new.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The head to gossip.
    pub head: Vec<u8>,
    /// New files, as a peer would ask for them.
    pub files: Vec<(MetaFile, Vec<u8>)>,
    /// The set, verified like anybody else's.
    pub trusted: Trusted,
}

/// Makes root 1 for a new repository whose top-level roles have one key each.
pub fn first_root(
    public: &dyn Fn(TopRole) -> PublicKey,
    keys: &dyn KeySource,
    now: UtcTime,
) -> Result<Vec<u8>, DraftError> {
    let mut root = Root::new(1, now.plus_days(ROOT_DAYS));
    for top in [TopRole::Root, TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp] {
        root = root.with_role(top, 1, &[public(top)]);
    }
    sign(&RoleName::root(), &root, &root.signers(TopRole::Root), keys)
}

/// Why what was just signed, or what it builds on, does not verify.
fn does_not_verify(error: TufError) -> DraftError {
    match error {
        TufError::Expired { .. } => DraftError::Expired(error),
        _ => DraftError::WrongKeys(error),
    }
}

/// The delegation of a product's releases, without its keys.
pub fn releases_delegation(product: &Product) -> DelegatedRole {
    let paths = [format!("releases/{product}/*/*/*"), format!("patches/{product}/*/*")];
    DelegatedRole::new(RoleName::releases(product), &[&paths[0], &paths[1]])
}

/// No repository signs so often: versions beyond this were pushed forward by somebody who had the key.
const PUSHED_FORWARD: u64 = 1 << 40;

/// The version after `before`, which is `before` where there is none. Versions go on across a change of
/// keys, unless a thief of the old one pushed them out of reach.
fn next_version(before: u64, starts_anew: bool) -> u64 {
    if starts_anew && before >= PUSHED_FORWARD { 1 } else { before.saturating_add(1) }
}

/// Metadata that is being changed.
#[derive(Debug)]
pub struct Draft {
    /// What is in force. Versions and contents go on from here, whatever a new root drops.
    before: Trusted,
    /// The same under the new root, where there is one.
    trusted: Trusted,
    /// The new root.
    root: Option<(u64, Vec<u8>)>,
    /// Roles that were signed elsewhere.
    adopted: BTreeMap<RoleName, Verified<Targets>>,
    /// Changed roles.
    changed: BTreeMap<RoleName, Targets>,
    /// Every channel file, changed or not, by path.
    channel_files: BTreeMap<String, Vec<u8>>,
    now: UtcTime,
}

impl Draft {
    /// A draft of a repository that has a root and nothing else.
    pub fn first(
        root: &[u8],
        repository: &RepositoryId,
        channels_key: &PublicKey,
        now: UtcTime,
    ) -> Result<Self, DraftError> {
        let trusted = Trusted::from_first_root(root, repository).map_err(DraftError::WrongKeys)?;
        let mut draft = Self::on(&trusted, now);
        let channels = DelegatedRole::new(RoleName::channels(), &["channels/*/*"]).terminating();
        let targets = draft.edit(&RoleName::targets(), TARGETS_DAYS);
        targets.delegations = Some(Delegations::default().with_role(channels, 1, std::slice::from_ref(channels_key)));
        draft.edit(&RoleName::channels(), CHANNELS_DAYS);
        Ok(draft)
    }

    fn on(trusted: &Trusted, now: UtcTime) -> Self {
        Self {
            before: trusted.clone(),
            trusted: trusted.clone(),
            root: None,
            adopted: BTreeMap::new(),
            changed: BTreeMap::new(),
            channel_files: BTreeMap::new(),
            now,
        }
    }

    /// A draft that starts from the set in force.
    pub fn of(view: &CatalogView, now: UtcTime) -> Self {
        let files = view.channel_files.iter().map(|(path, bytes)| (path.clone(), bytes.to_vec()));
        Self { channel_files: files.collect(), ..Self::on(&view.trusted, now) }
    }

    /// Takes what key holders signed elsewhere, and signs again what the seed signs by itself and what
    /// changed hands with it.
    pub fn adopt(&mut self, finished: Finished) -> Result<(), DraftError> {
        if let Some((version, bytes)) = finished.root {
            self.trusted.update_root(&bytes).map_err(DraftError::WrongKeys)?;
            self.root = Some((version, bytes));
        }
        self.adopted.extend(finished.roles.into_iter().map(|role| (role.role_name().clone(), role)));
        let top = RoleName::targets();
        let Some(delegations) = self.adopted.get(&top).and_then(|targets| targets.delegations.clone()) else {
            return Ok(());
        };
        for name in delegations.roles.iter().map(|role| &role.name).filter(|name| is_online(name)) {
            if self.before.role(name).is_some_and(|metadata| !delegations.vouch_for(metadata)) {
                self.edit(name, CHANNELS_DAYS);
            }
        }
        Ok(())
    }

    /// Whether a new root took the timestamp and the snapshot away, so that versions may start anew.
    fn starts_anew(&self) -> bool {
        self.root.is_some() && self.trusted.timestamp().is_none()
    }

    fn edit(&mut self, role: &RoleName, days: i64) -> &mut Targets {
        let expires = self.now.plus_days(days);
        let starts_anew = self.starts_anew();
        let current = self.before.role(role);
        // A product that was given up and comes back goes on where the snapshot still lists it.
        let listed = self.before.snapshot().and_then(|snapshot| snapshot.role(role)).map_or(0, |meta| meta.version);
        self.changed.entry(role.clone()).or_insert_with(|| match current {
            Some(current) => {
                let mut next = Targets::clone(current);
                next.version = next_version(next.version, starts_anew);
                next.expires = expires;
                next
            }
            None => Targets::new(listed + 1, expires),
        })
    }

    /// Whether a product has its releases role.
    pub fn has_product(&self, product: &Product) -> bool {
        self.signers(&RoleName::releases(product)).is_ok()
    }

    /// Delegates a product's releases to `key`.
    pub fn add_product(&mut self, product: &Product, key: &PublicKey) {
        let delegated = releases_delegation(product);
        let role = delegated.name.clone();
        let targets = self.edit(&RoleName::targets(), TARGETS_DAYS);
        let delegations = targets.delegations.take().unwrap_or_default();
        targets.delegations = Some(delegations.with_role(delegated, 1, std::slice::from_ref(key)));
        self.edit(&role, TARGETS_DAYS);
    }

    /// Checks that `release` may be added: nothing of the same precedence exists.
    pub fn check_new(view: &CatalogView, release: &Release) -> Result<(), DraftError> {
        release.check_limits().map_err(|error| DraftError::Limit(error.to_string()))?;
        let id = &release.id;
        match rule::existing(view, id) {
            Some(existing) => Err(DraftError::Exists {
                product: id.product.clone(),
                wanted: id.version.to_string(),
                existing: existing.id.version.to_string(),
                platform: id.platform.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Adds a release to its product's role.
    pub fn add_release(&mut self, release: &Release) {
        let role = RoleName::releases(&release.id.product);
        self.edit(&role, TARGETS_DAYS).targets.insert(release.path.clone(), release.to_target());
    }

    /// Raises a product's security floor.
    pub fn raise_floor(&mut self, product: &Product, floor: &semver::Version) {
        self.edit(&RoleName::targets(), TARGETS_DAYS).security_floor.insert(product.clone(), floor.clone());
    }

    /// Takes the next version of a role that somebody else has signed, byte for byte.
    pub fn take(&mut self, role: &Verified<Targets>) {
        self.adopted.insert(role.role_name().clone(), role.clone());
    }

    /// Sets a channel's policy.
    pub fn set_channel(&mut self, product: &Product, channel: &Channel, policy: &ChannelPolicy) {
        let (path, bytes) = (channel.path(product), policy.encode());
        self.edit(&RoleName::channels(), CHANNELS_DAYS).targets.insert(path.clone(), TargetInfo::of(&bytes));
        self.channel_files.insert(path, bytes);
    }

    /// Renews what is growing old, as far as `can_sign` says that it can be signed here; the timestamp
    /// and the snapshot are signed anew always.
    pub fn renew(&mut self, can_sign: &dyn Fn(&Signers) -> bool) {
        for role in self.before.signed_roles().into_iter().filter(|role| TopRole::of(role) != Some(TopRole::Root)) {
            let Some(current) = self.before.role(&role) else { continue };
            let left_s = current.expires.seconds_since(self.now);
            let (days, renew_days) = if is_online(&role) {
                (CHANNELS_DAYS, CHANNELS_RENEW_DAYS)
            } else {
                (TARGETS_DAYS, OFFLINE_RENEW_DAYS)
            };
            let due = left_s < renew_days * DAY_S;
            if due && (is_online(&role) || self.signers(&role).is_ok_and(|signers| can_sign(&signers))) {
                self.edit(&role, days);
            }
        }
    }

    /// Signs the next root, unchanged but for its time, where the one in force grows old and `can_sign`.
    pub fn renew_root(&mut self, keys: &dyn KeySource, can_sign: &dyn Fn(&Signers) -> bool) -> Result<(), DraftError> {
        let current = self.before.root();
        let signers = current.signers(TopRole::Root);
        if current.expires.seconds_since(self.now) >= OFFLINE_RENEW_DAYS * DAY_S || !can_sign(&signers) {
            return Ok(());
        }
        let mut next = Root::clone(current);
        next.version += 1;
        next.expires = self.now.plus_days(ROOT_DAYS);
        let bytes = sign(&RoleName::root(), &next, &signers, keys)?;
        self.trusted.update_root(&bytes).map_err(DraftError::WrongKeys)?;
        self.root = Some((next.version, bytes));
        Ok(())
    }

    /// Who may sign `role` once this draft is in force.
    pub fn signers(&self, role: &RoleName) -> Result<Signers, DraftError> {
        let top = RoleName::targets();
        let adopted = self.adopted.get(&top).map(|targets| &**targets);
        if let Some(top) = TopRole::of(role) {
            return Ok(self.trusted.root().signers(top));
        }
        let targets = self.changed.get(&top).or(adopted).or(self.before.role(&top).map(|targets| &**targets));
        let signers = targets.and_then(|targets| targets.delegations.as_ref()?.signers(role));
        signers.ok_or_else(|| DraftError::WrongKeys(TufError::NotDelegated { role: role.clone() }))
    }

    /// Signs everything that changed, and verifies the result as a stranger would.
    pub fn sign(self, keys: &dyn KeySource) -> Result<Signed, DraftError> {
        let mut files = Vec::new();
        let expires = self.now.plus_days(SNAPSHOT_DAYS);
        let mut snapshot = match self.before.snapshot() {
            Some(current) => {
                let mut next = Snapshot::clone(current);
                next.version = next_version(next.version, self.starts_anew());
                if next.version == current.version {
                    return Err(DraftError::Exhausted(RoleName::snapshot()));
                }
                next.expires = expires;
                next
            }
            None => Snapshot::new(1, expires),
        };
        files.extend(self.root.iter().map(|(version, bytes)| (MetaFile::Root { version: *version }, bytes.clone())));
        for (role, metadata) in &self.adopted {
            snapshot = snapshot.with_role(role, FileMeta::of(metadata.version, metadata.bytes()));
            let file = MetaFile::Role { name: role.as_str().to_owned(), version: metadata.version };
            files.push((file, metadata.bytes().to_vec()));
        }
        for (role, targets) in &self.changed {
            if self.before.role(role).is_some_and(|before| before.version == targets.version) {
                return Err(DraftError::Exhausted(role.clone()));
            }
            let bytes = sign(role, targets, &self.signers(role)?, keys)?;
            snapshot = snapshot.with_role(role, FileMeta::of(targets.version, &bytes));
            let file = MetaFile::Role { name: role.as_str().to_owned(), version: targets.version };
            files.push((file, bytes));
        }
        let role = RoleName::snapshot();
        let snapshot_bytes = sign(&role, &snapshot, &self.signers(&role)?, keys)?;
        let listed = FileMeta::of(snapshot.version, &snapshot_bytes);
        let mut timestamp = match self.before.timestamp() {
            Some(before) => match next_version(before.version, self.starts_anew()) {
                version if version == before.version => return Err(DraftError::Exhausted(RoleName::timestamp())),
                version if version < before.version => Timestamp::new(version, expires, listed),
                version => Timestamp::new(version, expires, listed).following(before),
            },
            None => Timestamp::new(1, expires, listed),
        };
        timestamp.signed_at = Some(self.now);
        let role = RoleName::timestamp();
        let timestamp_bytes = sign(&role, &timestamp, &self.signers(&role)?, keys)?;
        self.assemble(&timestamp_bytes, &snapshot_bytes, files)
    }

    fn assemble(
        self,
        timestamp: &[u8],
        snapshot: &[u8],
        mut files: Vec<(MetaFile, Vec<u8>)>,
    ) -> Result<Signed, DraftError> {
        let enforce = Expiry::Enforce(self.now);
        let before = self.before;
        let mut trusted = self.trusted;
        let _new = trusted.update_timestamp(timestamp, enforce).map_err(does_not_verify)?;
        let _new = trusted.update_snapshot(snapshot, enforce).map_err(does_not_verify)?;
        // Delegators come before those they delegate to, however deep.
        carry_roles(&mut trusted, &before);
        while let Some(request) = trusted.missing_roles().into_iter().next() {
            let wanted = MetaFile::Role { name: request.role.as_str().to_owned(), version: request.version };
            let bytes = files
                .iter()
                .find(|(file, _)| *file == wanted)
                .map(|(_, bytes)| bytes)
                .ok_or_else(|| DraftError::Incomplete(request.role.clone()))?;
            let _new = trusted.update_targets(&request.role, bytes, enforce).map_err(does_not_verify)?;
            carry_roles(&mut trusted, &before);
        }
        for (path, bytes) in &self.channel_files {
            let file = MetaFile::Target { path: path.clone(), sha256: Digest::of(bytes) };
            files.push((file, bytes.clone()));
        }
        let inlines = inlines(&files);
        let head = Head::from_trusted(&trusted, inlines).ok_or(DraftError::HeadTooLarge)?.encode();
        Ok(Signed { head, files, trusted })
    }
}

/// What the head carries along, most wanted first: policy, then the roles that changed.
fn inlines(files: &[(MetaFile, Vec<u8>)]) -> Vec<Inline> {
    let mut inlines: Vec<Inline> = files
        .iter()
        .filter_map(|(file, bytes)| match file {
            MetaFile::Role { name, version } => {
                let name = name.parse().ok()?;
                Some(Inline::Role { name, version: *version, bytes: bytes.clone() })
            }
            MetaFile::Target { path, .. } => Some(Inline::Target { path: path.clone(), bytes: bytes.clone() }),
            MetaFile::Head
            | MetaFile::Root { .. }
            | MetaFile::Manifest { .. }
            | MetaFile::Evidence { .. }
            | MetaFile::Offer(_) => None,
        })
        .collect();
    inlines.sort_by_key(|inline| match inline {
        Inline::Role { name, .. } if *name == RoleName::channels() => 0,
        Inline::Role { .. } => 1,
        Inline::Target { .. } => 2,
    });
    inlines
}
