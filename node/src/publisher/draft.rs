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
    DelegatedRole, Delegations, Expiry, FileMeta, RepositoryId, Role, RoleName, Root, Signers, Snapshot, TargetInfo,
    Targets, Timestamp, TopRole, Trusted, TufError, Verified, sign_role,
};

use crate::engine::catalog::{CatalogView, carry_roles};
use crate::engine::offers::rule;

const ROOT_DAYS: i64 = 365;
pub(super) const TARGETS_DAYS: i64 = 365;
const CHANNELS_DAYS: i64 = 30;
const SNAPSHOT_DAYS: i64 = 14;
/// The channels role is signed again when less than this is left of it.
const CHANNELS_RENEW_DAYS: i64 = 20;

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
    /// The repository is not whole.
    #[error("the repository lacks its {0} metadata; it must be whole before anything is added")]
    Incomplete(RoleName),
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

/// Metadata that is being changed.
#[derive(Debug)]
pub struct Draft {
    trusted: Trusted,
    /// Changed roles.
    changed: BTreeMap<RoleName, Targets>,
    /// Roles that were signed elsewhere, as they are.
    taken: BTreeMap<RoleName, Verified<Targets>>,
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
        let mut draft =
            Self { trusted, changed: BTreeMap::new(), taken: BTreeMap::new(), channel_files: BTreeMap::new(), now };
        let channels = DelegatedRole::new(RoleName::channels(), &["channels/*/*"]).terminating();
        let targets = draft.edit(&RoleName::targets(), TARGETS_DAYS);
        targets.delegations = Some(Delegations::default().with_role(channels, 1, std::slice::from_ref(channels_key)));
        draft.edit(&RoleName::channels(), CHANNELS_DAYS);
        Ok(draft)
    }

    /// A draft that starts from the set in force.
    pub fn of(view: &CatalogView, now: UtcTime) -> Self {
        Self {
            trusted: view.trusted.clone(),
            changed: BTreeMap::new(),
            taken: BTreeMap::new(),
            channel_files: view.channel_files.iter().map(|(path, bytes)| (path.clone(), bytes.to_vec())).collect(),
            now,
        }
    }

    fn edit(&mut self, role: &RoleName, days: i64) -> &mut Targets {
        let expires = self.now.plus_days(days);
        let current = self.trusted.role(role);
        self.changed.entry(role.clone()).or_insert_with(|| match current {
            Some(current) => {
                let mut next = Targets::clone(current);
                next.version += 1;
                next.expires = expires;
                next
            }
            None => Targets::new(1, expires),
        })
    }

    /// Whether a product has its releases role.
    pub fn has_product(&self, product: &Product) -> bool {
        let role = RoleName::releases(product);
        self.changed.contains_key(&role) || self.trusted.role(&role).is_some()
    }

    /// Delegates a product's releases to `key`.
    pub fn add_product(&mut self, product: &Product, key: &PublicKey) {
        let paths = [format!("releases/{product}/*/*/*"), format!("patches/{product}/*/*")];
        let role = RoleName::releases(product);
        let delegated = DelegatedRole::new(role.clone(), &[&paths[0], &paths[1]]);
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

    /// Takes the next version of a role that somebody else has signed, byte for byte.
    pub fn take(&mut self, role: &Verified<Targets>) {
        self.taken.insert(role.role_name().clone(), role.clone());
    }

    /// Sets a channel's policy.
    pub fn set_channel(&mut self, product: &Product, channel: &Channel, policy: &ChannelPolicy) {
        let (path, bytes) = (channel.path(product), policy.encode());
        self.edit(&RoleName::channels(), CHANNELS_DAYS).targets.insert(path.clone(), TargetInfo::of(&bytes));
        self.channel_files.insert(path, bytes);
    }

    /// Renews what the online keys keep fresh: the timestamp and snapshot always, the channels role
    /// when it is growing old.
    pub fn renew(&mut self) {
        let role = RoleName::channels();
        let left_s = self.trusted.role(&role).map(|channels| channels.expires.seconds_since(self.now));
        if left_s.is_some_and(|left_s| left_s < CHANNELS_RENEW_DAYS * 86_400) {
            self.edit(&role, CHANNELS_DAYS);
        }
    }

    /// Who may sign `role` once this draft is in force.
    pub fn signers(&self, role: &RoleName) -> Result<Signers, DraftError> {
        let changed = self.changed.get(&RoleName::targets()).filter(|_| !role.is_top_level());
        let signers = match changed {
            Some(targets) => targets.delegations.as_ref().and_then(|delegations| delegations.signers(role)),
            None => self.trusted.signers(role),
        };
        signers.ok_or_else(|| DraftError::WrongKeys(TufError::NotDelegated { role: role.clone() }))
    }

    /// Signs everything that changed, and verifies the result as a stranger would.
    pub fn sign(self, keys: &dyn KeySource) -> Result<Signed, DraftError> {
        let mut files = Vec::new();
        let expires = self.now.plus_days(SNAPSHOT_DAYS);
        let mut snapshot = match self.trusted.snapshot() {
            Some(current) => {
                let mut next = Snapshot::clone(current);
                next.version += 1;
                next.expires = expires;
                next
            }
            None => Snapshot::new(1, expires),
        };
        for (role, targets) in &self.changed {
            let bytes = sign(role, targets, &self.signers(role)?, keys)?;
            snapshot = snapshot.with_role(role, FileMeta::of(targets.version, &bytes));
            let file = MetaFile::Role { name: role.as_str().to_owned(), version: targets.version };
            files.push((file, bytes));
        }
        for (role, targets) in &self.taken {
            snapshot = snapshot.with_role(role, FileMeta::of(targets.version, targets.bytes()));
            let file = MetaFile::Role { name: role.as_str().to_owned(), version: targets.version };
            files.push((file, targets.bytes().to_vec()));
        }
        let role = RoleName::snapshot();
        let snapshot_bytes = sign(&role, &snapshot, &self.signers(&role)?, keys)?;
        let before = self.trusted.timestamp();
        let mut timestamp = Timestamp::new(
            before.map_or(1, |timestamp| timestamp.version + 1),
            expires,
            FileMeta::of(snapshot.version, &snapshot_bytes),
        );
        timestamp.signed_at = Some(self.now);
        timestamp.prev_sha256 = before.map(Verified::signed_digest);
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
        let before = self.trusted.clone();
        let mut trusted = self.trusted;
        let _new = trusted.update_timestamp(timestamp, enforce).map_err(DraftError::WrongKeys)?;
        let _new = trusted.update_snapshot(snapshot, enforce).map_err(DraftError::WrongKeys)?;
        // Delegators come before those they delegate to, however deep.
        carry_roles(&mut trusted, &before);
        while let Some(request) = trusted.missing_roles().into_iter().next() {
            let wanted = MetaFile::Role { name: request.role.as_str().to_owned(), version: request.version };
            let bytes = files
                .iter()
                .find(|(file, _)| *file == wanted)
                .map(|(_, bytes)| bytes)
                .ok_or_else(|| DraftError::Incomplete(request.role.clone()))?;
            let _new = trusted.update_targets(&request.role, bytes, enforce).map_err(DraftError::WrongKeys)?;
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
            MetaFile::Head | MetaFile::Root { .. } | MetaFile::Manifest { .. } | MetaFile::Offer(_) => None,
        })
        .collect();
    inlines.sort_by_key(|inline| match inline {
        Inline::Role { name, .. } if *name == RoleName::channels() => 0,
        Inline::Role { .. } => 1,
        Inline::Target { .. } => 2,
    });
    inlines
}
