//! A ceremony: metadata on its way between the holders of the keys that must sign it.
//!
//! One file carries everything that a machine without a network needs to understand and sign a
//! change: the roots that the change builds on, the signed metadata that it replaces, and the drafts
//! with the signatures they have so far. Nothing in the file is believed for being there. The roots
//! must be a chain, each base must be signed as the last root (or a delegation below it) says, each
//! draft must be the next version of its base, and every signature must be valid and by a key that may
//! give it; a file that differs in one byte from its one encoding is refused. What the file cannot
//! prove is that its first root is the repository's: a key holder compares the repository id.
//!
//! A change of keys often takes several drafts: whoever hands a role to other keys must have its
//! metadata signed by them too, or nobody would accept it any more. They travel in one file and are
//! applied together.
//!
//! Drafts are not verified metadata, so no typed draft ever leaves this module: what a person needs
//! to see of them comes out as [`CeremonyChange`]s, and what is finished as bytes that verified.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::{Digest, Hasher};
use crate::key::{KeyId, SigningKey};
use crate::limits::{
    MAX_CEREMONY_BYTES, MAX_CEREMONY_CHAIN_BYTES, MAX_ROOT_BYTES, MAX_ROOT_ROTATIONS, MAX_TARGETS_BYTES,
};
use crate::time::UtcTime;

use super::envelope::{Envelope, Signature};
use super::error::TufError;
use super::part::RoleName;
use super::role::{Root, Targets, TopRole};
use super::sign::{cosign, seal, sign_role};
use super::signed_part::{Fields, SignedPart as _};
use super::signers::Signers;
use super::threshold::Authority;
use super::trusted::{RepositoryId, Trusted};
use super::verified::Verified;

mod changes;
mod file;

pub use changes::CeremonyChange;

/// Drafts of one ceremony. Bounds the signature checks that one file causes.
const MAX_DRAFTS: usize = 256;

/// Why a ceremony file is refused, or cannot be made or finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CeremonyError {
    /// More bytes than a ceremony may have.
    #[error("a ceremony file has at most {MAX_CEREMONY_BYTES} bytes; this one has {found}")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Not a ceremony file.
    #[error("this is not a ceremony file: {0}")]
    Malformed(String),
    /// The roots or the metadata that the change builds on do not verify.
    #[error("the ceremony file was altered or mixed up: what it builds on does not verify ({0})")]
    Base(TufError),
    /// A draft that cannot be the next version of its base.
    #[error("the draft of {role} cannot be signed: {reason}")]
    Draft {
        /// The role.
        role: RoleName,
        /// What is wrong with it.
        reason: String,
    },
    /// A signature that is not valid, or by a key that may not sign.
    #[error("the ceremony file was altered or mixed up: the signature of {keyid} on {role} is not valid")]
    BadSignature {
        /// The role.
        role: RoleName,
        /// The key id that it claims.
        keyid: KeyId,
    },
    /// Two files of different ceremonies.
    #[error("these are files of different ceremonies: they do not sign the same bytes")]
    Different,
    /// The change would leave a role that nobody could sign.
    #[error("{role} would need {threshold} signatures and have {usable} key(s): nobody could ever sign it again")]
    LockedOut {
        /// The role.
        role: RoleName,
        /// Signatures needed.
        threshold: u64,
        /// Keys that this version can verify with.
        usable: usize,
    },
    /// Nothing would change.
    #[error("nothing changes: there is nothing to sign")]
    Nothing,
    /// Signatures are missing.
    #[error(
        "{role} lacks signatures: {} of {} that {by} {by_version} asks for; not signed by: {}",
        signed, threshold, missing.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", ")
    )]
    Incomplete {
        /// The role.
        role: RoleName,
        /// Whose word it is.
        by: RoleName,
        /// Of which version.
        by_version: u64,
        /// Signatures that are there.
        signed: usize,
        /// Signatures needed.
        threshold: u64,
        /// Keys that may still sign.
        missing: Vec<KeyId>,
    },
    /// Everything seems signed and still does not verify.
    #[error("the signed metadata does not verify: {0}")]
    Verify(TufError),
}

/// What is to be changed: the parts as they shall be. Versions are set by the ceremony.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// The next root.
    pub root: Option<Root>,
    /// The next metadata of targets roles, top-level or delegated.
    pub roles: BTreeMap<RoleName, Targets>,
}

/// Signatures that one role needs by the word of one delegator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The role to be signed.
    pub role: RoleName,
    /// Who says which keys may sign it: `root` or `targets`.
    pub by: RoleName,
    /// Of which version; a root is signed as the old one and the new one ask.
    pub by_version: u64,
    /// Signatures needed.
    pub threshold: u64,
    /// Keys that have signed.
    pub signed: Vec<KeyId>,
    /// Keys that have not, and may.
    pub missing: Vec<KeyId>,
}

impl Quorum {
    /// Whether enough keys have signed.
    pub fn is_reached(&self) -> bool {
        u64::try_from(self.signed.len()).is_ok_and(|signed| signed >= self.threshold)
    }
}

/// A draft's content. Unverified: it never leaves this module.
#[derive(Debug, Clone)]
enum Content {
    Root(Box<Root>),
    Targets(Targets),
}

#[derive(Debug, Clone)]
struct Draft {
    role: RoleName,
    envelope: Envelope,
    content: Content,
}

/// A change on its way to being signed.
#[derive(Clone)]
pub struct Ceremony {
    roots: Vec<Vec<u8>>,
    chain: Trusted,
    bases: BTreeMap<RoleName, Verified<Targets>>,
    /// Delegators before those they delegate to.
    drafts: Vec<Draft>,
}

/// The order in which drafts are checked, shown and applied.
fn rank(role: &RoleName) -> u8 {
    match role.as_str() {
        "root" => 0,
        "targets" => 1,
        _ => 2,
    }
}

fn verify_chain(roots: &[Vec<u8>]) -> Result<Trusted, CeremonyError> {
    let Some((first, rest)) = roots.split_first() else {
        return Err(CeremonyError::Malformed("it holds no root".to_owned()));
    };
    let mut chain = match RepositoryId::of_first_root(first) {
        Ok(repository) => Trusted::from_first_root(first, &repository),
        Err(TufError::Version { .. }) => Trusted::from_trusted_root(first),
        Err(error) => Err(error),
    }
    .map_err(CeremonyError::Base)?;
    for root in rest {
        chain.update_root(root).map_err(CeremonyError::Base)?;
    }
    Ok(chain)
}

impl Draft {
    fn parse(role: RoleName, bytes: &[u8]) -> Result<Self, CeremonyError> {
        let refused = |reason: String| CeremonyError::Draft { role: role.clone(), reason };
        let limit = if role == RoleName::root() { MAX_ROOT_BYTES } else { MAX_TARGETS_BYTES };
        let envelope = Envelope::parse(&role, bytes, limit).map_err(|error| refused(error.to_string()))?;
        let (_, signed) = envelope.clone().into_parts();
        let content = match TopRole::of(&role) {
            Some(TopRole::Root) => Content::Root(Box::new(Root::from_signed(Fields::of(signed)).map_err(refused)?)),
            Some(TopRole::Targets) | None => {
                Content::Targets(Targets::from_signed(Fields::of(signed)).map_err(refused)?)
            }
            Some(TopRole::Timestamp | TopRole::Snapshot) => {
                return Err(refused("the seed signs it by itself".to_owned()));
            }
        };
        Ok(Self { role, envelope, content })
    }

    fn version(&self) -> u64 {
        match &self.content {
            Content::Root(root) => root.version,
            Content::Targets(targets) => targets.version,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        seal(self.envelope.message(), self.envelope.signatures().to_vec(), &[])
    }
}

impl Ceremony {
    /// A ceremony that changes what `trusted` holds into `edits`. `roots` is the whole chain of exact
    /// root files, oldest first. Roles that the change hands to other keys are drafted along with it,
    /// unchanged but for their version and `expires`, unless `signs_itself` says that the seed does.
    pub fn new(
        trusted: &Trusted,
        roots: Vec<Vec<u8>>,
        edits: Edits,
        expires: UtcTime,
        signs_itself: &dyn Fn(&RoleName) -> bool,
    ) -> Result<Self, CeremonyError> {
        let mut roles = edits.roles;
        let mut root = edits.root;
        if let Some(root) = &mut root {
            root.version = trusted.root().version.saturating_add(1);
        }
        add_companions(trusted, root.as_ref(), &mut roles, expires, signs_itself);
        let mut bases = Vec::new();
        if !roles.is_empty()
            && let Some(targets) = trusted.role(&RoleName::targets())
        {
            bases.push((RoleName::targets(), targets.bytes().to_vec()));
        }
        let mut drafts: Vec<(RoleName, Vec<u8>)> = Vec::new();
        drafts.extend(root.map(|root| (RoleName::root(), sign_role(&root, &[]))));
        for (role, mut targets) in roles {
            let base = trusted.role(&role);
            targets.version = base.map_or(1, |base| base.version.saturating_add(1));
            if let Some(base) = base.filter(|_| role != RoleName::targets()) {
                bases.push((role.clone(), base.bytes().to_vec()));
            }
            drafts.push((role, sign_role(&targets, &[])));
        }
        let total: usize = roots.iter().map(Vec::len).sum();
        let roots =
            if total > MAX_CEREMONY_CHAIN_BYTES { roots.into_iter().next_back().into_iter().collect() } else { roots };
        Self::assemble(roots, bases, drafts)
    }

    /// Every check of a ceremony is here, whether it was just made or came from a file.
    fn assemble(
        roots: Vec<Vec<u8>>,
        bases: Vec<(RoleName, Vec<u8>)>,
        drafts: Vec<(RoleName, Vec<u8>)>,
    ) -> Result<Self, CeremonyError> {
        if roots.len() > MAX_ROOT_ROTATIONS as usize + 1 || drafts.len() > MAX_DRAFTS || bases.len() > MAX_DRAFTS + 1 {
            return Err(CeremonyError::Malformed("it holds far too many parts".to_owned()));
        }
        if drafts.is_empty() {
            return Err(CeremonyError::Nothing);
        }
        let chain = verify_chain(&roots)?;
        let mut ceremony = Self { roots, chain, bases: BTreeMap::new(), drafts: Vec::new() };
        ceremony.take_bases(bases)?;
        let mut parsed: Vec<Draft> =
            drafts.into_iter().map(|(role, bytes)| Draft::parse(role, &bytes)).collect::<Result<_, _>>()?;
        parsed.sort_by(|a, b| (rank(&a.role), &a.role).cmp(&(rank(&b.role), &b.role)));
        ceremony.drafts = parsed;
        for draft in &ceremony.drafts {
            ceremony.check_version(draft)?;
            check_not_locked_out(draft)?;
            ceremony.check_signatures(draft)?;
        }
        Ok(ceremony)
    }

    fn take_bases(&mut self, bases: Vec<(RoleName, Vec<u8>)>) -> Result<(), CeremonyError> {
        let mut bases: BTreeMap<RoleName, Vec<u8>> = bases.into_iter().collect();
        let check = |role: &RoleName, bytes: &[u8], authority: &Authority<'_>| {
            let envelope = Envelope::parse(role, bytes, MAX_TARGETS_BYTES)?;
            Verified::<Targets>::check(envelope, authority)
        };
        let targets = RoleName::targets();
        if let Some(bytes) = bases.remove(&targets) {
            let verified = check(&targets, &bytes, &self.chain.root().authority(TopRole::Targets));
            self.bases.insert(targets.clone(), verified.map_err(CeremonyError::Base)?);
        }
        for (role, bytes) in bases {
            let top = self.bases.get(&targets).and_then(|targets| targets.delegations.as_ref());
            let authority = top.and_then(|delegations| delegations.authority(&role));
            let authority =
                authority.ok_or_else(|| CeremonyError::Base(TufError::NotDelegated { role: role.clone() }))?;
            let verified = check(&role, &bytes, &authority).map_err(CeremonyError::Base)?;
            self.bases.insert(role, verified);
        }
        Ok(())
    }

    fn check_version(&self, draft: &Draft) -> Result<(), CeremonyError> {
        let base = match draft.content {
            Content::Root(_) => Some(self.chain.root().version),
            Content::Targets(_) => self.bases.get(&draft.role).map(|base| base.version),
        };
        let expected = base.map_or(Some(1), |base| base.checked_add(1));
        if expected == Some(draft.version()) {
            return Ok(());
        }
        let base = base.map_or_else(|| "no version".to_owned(), |base| format!("version {base}"));
        let reason = format!("version {} does not follow {base}", draft.version());
        Err(CeremonyError::Draft { role: draft.role.clone(), reason })
    }

    /// Refuses every signature that is not valid by a key that may sign, and any second way of writing
    /// one: they would only get in the way later.
    fn check_signatures(&self, draft: &Draft) -> Result<(), CeremonyError> {
        let authorised = self.signers(draft)?;
        for signature in draft.envelope.signatures() {
            let bad = || CeremonyError::BadSignature { role: draft.role.clone(), keyid: signature.keyid.clone() };
            let bytes = signature.bytes().ok_or_else(bad)?;
            let mut keys = authorised.iter().flat_map(|(_, _, signers)| &signers.keys);
            let valid =
                keys.any(|(keyid, key)| *keyid == signature.keyid && key.verify(draft.envelope.message(), &bytes));
            if !valid || *signature != Signature::new(signature.keyid.clone(), &bytes) {
                return Err(bad());
            }
        }
        Ok(())
    }

    fn root_after(&self) -> &Root {
        let drafted = self.drafts.iter().find_map(|draft| match &draft.content {
            Content::Root(root) => Some(&**root),
            Content::Targets(_) => None,
        });
        drafted.unwrap_or_else(|| self.chain.root())
    }

    fn targets_after(&self) -> Option<&Targets> {
        let drafted = self.drafts.iter().find_map(|draft| match &draft.content {
            Content::Targets(targets) if draft.role == RoleName::targets() => Some(targets),
            _ => None,
        });
        drafted.or_else(|| self.bases.get(&RoleName::targets()).map(|base| &**base))
    }

    /// Who must sign a draft, by whose word.
    fn signers(&self, draft: &Draft) -> Result<Vec<(RoleName, u64, Signers)>, CeremonyError> {
        let old = self.chain.root();
        match (&draft.content, TopRole::of(&draft.role)) {
            (Content::Root(new), _) => {
                let mut signers = vec![(RoleName::root(), old.version, old.signers(TopRole::Root))];
                let by_new = new.signers(TopRole::Root);
                if signers.iter().all(|(_, _, by_old)| *by_old != by_new) {
                    signers.push((RoleName::root(), new.version, by_new));
                }
                Ok(signers)
            }
            (Content::Targets(_), Some(top)) => {
                let root = self.root_after();
                Ok(vec![(RoleName::root(), root.version, root.signers(top))])
            }
            (Content::Targets(_), None) => {
                let targets = self.targets_after();
                let signers = targets.and_then(|targets| targets.delegations.as_ref()?.signers(&draft.role));
                let (Some(targets), Some(signers)) = (targets, signers) else {
                    let reason = "the top-level targets role does not delegate to it".to_owned();
                    return Err(CeremonyError::Draft { role: draft.role.clone(), reason });
                };
                Ok(vec![(RoleName::targets(), targets.version, signers)])
            }
        }
    }

    /// The repository, by its first root; `None` where the file holds only the end of a very long chain.
    pub fn repository(&self) -> Option<RepositoryId> {
        self.chain.repository()
    }

    /// The root that the change builds on.
    pub fn base_root(&self) -> &Verified<Root> {
        self.chain.root()
    }

    /// The signed metadata that a drafted role replaces; `None` for its first version.
    pub fn base(&self, role: &RoleName) -> Option<&Verified<Targets>> {
        self.bases.get(role)
    }

    /// The drafted roles and their versions, delegators first.
    pub fn roles(&self) -> Vec<(RoleName, u64)> {
        self.drafts.iter().map(|draft| (draft.role.clone(), draft.version())).collect()
    }

    /// What people compare before they sign: a digest of the bytes that the signatures cover.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for draft in &self.drafts {
            hasher.update(draft.envelope.signed_digest().as_bytes());
        }
        hasher.finish()
    }

    /// Everything that the change changes.
    pub fn changes(&self) -> Vec<CeremonyChange> {
        let mut found = Vec::new();
        for draft in &self.drafts {
            match &draft.content {
                Content::Root(root) => changes::of_root(self.chain.root(), root, &mut found),
                Content::Targets(targets) => {
                    changes::of_targets(
                        &draft.role,
                        self.bases.get(&draft.role).map(|base| &**base),
                        targets,
                        &mut found,
                    );
                }
            }
        }
        found
    }

    /// Who has signed and who has not.
    pub fn quorums(&self) -> Vec<Quorum> {
        let mut quorums = Vec::new();
        for draft in &self.drafts {
            for (by, by_version, signers) in self.signers(draft).unwrap_or_default() {
                // Only valid signatures are in the file: that was checked when it was read.
                let has_signed = |keyid: &KeyId| draft.envelope.signatures().iter().any(|s| s.keyid == *keyid);
                let (signed, missing) = signers.keys.into_iter().map(|(keyid, _)| keyid).partition(has_signed);
                let (role, threshold) = (draft.role.clone(), signers.threshold);
                quorums.push(Quorum { role, by, by_version, threshold, signed, missing });
            }
        }
        quorums
    }

    /// Every key that may sign some draft.
    pub fn authorised(&self) -> Signers {
        let mut keys = BTreeMap::new();
        for draft in &self.drafts {
            for (_, _, signers) in self.signers(draft).unwrap_or_default() {
                keys.extend(signers.keys);
            }
        }
        Signers { threshold: 1, keys: keys.into_iter().collect() }
    }

    /// Signs every draft that `keys` may sign. Signing again changes nothing. Returns which signatures
    /// are new.
    pub fn sign(&mut self, keys: &[&SigningKey]) -> Result<Vec<(RoleName, KeyId)>, CeremonyError> {
        let mut added = Vec::new();
        let mut drafts = Vec::new();
        for draft in &self.drafts {
            let authorised = self.signers(draft)?;
            let fitting: Vec<&SigningKey> = keys
                .iter()
                .filter(|key| authorised.iter().any(|(_, _, signers)| signers.lists(&key.public().id())))
                .copied()
                .collect();
            let known = |keyid: &KeyId| draft.envelope.signatures().iter().any(|s| s.keyid == *keyid);
            let new = fitting.iter().map(|key| key.public().id()).filter(|keyid| !known(keyid));
            added.extend(new.map(|keyid| (draft.role.clone(), keyid)));
            let bytes = match &draft.content {
                Content::Root(_) => cosign::<Root>(&draft.role, &draft.bytes(), &fitting),
                Content::Targets(_) => cosign::<Targets>(&draft.role, &draft.bytes(), &fitting),
            };
            drafts.push(Draft::parse(draft.role.clone(), &bytes.map_err(CeremonyError::Verify)?)?);
        }
        self.drafts = drafts;
        Ok(added)
    }

    /// Takes the signatures of another copy of the same ceremony.
    pub fn merge(&mut self, other: &Self) -> Result<(), CeremonyError> {
        let bases = |ceremony: &Self| -> Vec<Digest> { ceremony.bases.values().map(Verified::signed_digest).collect() };
        let same_base = self.chain.root().signed_digest() == other.chain.root().signed_digest();
        if !same_base || bases(self) != bases(other) || self.digest() != other.digest() || self.roles() != other.roles()
        {
            return Err(CeremonyError::Different);
        }
        for (mine, theirs) in self.drafts.iter_mut().zip(&other.drafts) {
            let mut signatures = mine.envelope.signatures().to_vec();
            for signature in theirs.envelope.signatures() {
                if !signatures.iter().any(|known| known.keyid == signature.keyid) {
                    signatures.push(signature.clone());
                }
            }
            let bytes = seal(mine.envelope.message(), signatures, &[]);
            *mine = Draft::parse(mine.role.clone(), &bytes)?;
        }
        Ok(())
    }

    /// The signed metadata, verified by the same checks that every node makes.
    pub fn finish(&self) -> Result<Finished, CeremonyError> {
        if let Some(quorum) = self.quorums().into_iter().find(|quorum| !quorum.is_reached()) {
            return Err(CeremonyError::Incomplete {
                role: quorum.role,
                by: quorum.by,
                by_version: quorum.by_version,
                signed: quorum.signed.len(),
                threshold: quorum.threshold,
                missing: quorum.missing,
            });
        }
        let mut chain = self.chain.clone();
        let mut finished = Finished { root: None, roles: Vec::new() };
        let mut top = self.bases.get(&RoleName::targets()).cloned();
        for draft in &self.drafts {
            let bytes = draft.bytes();
            if let Content::Root(root) = &draft.content {
                chain.update_root(&bytes).map_err(CeremonyError::Verify)?;
                finished.root = Some((root.version, bytes));
                continue;
            }
            let envelope = Envelope::parse(&draft.role, &bytes, MAX_TARGETS_BYTES).map_err(CeremonyError::Verify)?;
            let is_top = draft.role == RoleName::targets();
            let verified = {
                let delegations = top.as_ref().and_then(|targets| targets.delegations.as_ref());
                let authority = if is_top {
                    Some(chain.root().authority(TopRole::Targets))
                } else {
                    delegations.and_then(|delegations| delegations.authority(&draft.role))
                };
                let undelegated = || CeremonyError::Verify(TufError::NotDelegated { role: draft.role.clone() });
                Verified::<Targets>::check(envelope, &authority.ok_or_else(undelegated)?)
            };
            let verified = verified.map_err(CeremonyError::Verify)?;
            if is_top {
                top = Some(verified.clone());
            }
            finished.roles.push(verified);
        }
        Ok(finished)
    }

    /// Whether everything that is drafted is what `trusted` holds already.
    pub fn is_in_force(&self, trusted: &Trusted) -> bool {
        self.drafts.iter().all(|draft| {
            let digest = draft.envelope.signed_digest();
            match &draft.content {
                Content::Root(_) => trusted.root().signed_digest() == digest,
                Content::Targets(_) => trusted.role(&draft.role).is_some_and(|role| role.signed_digest() == digest),
            }
        })
    }

    /// A drafted role that no longer fits `trusted`: it was changed since the draft was made, or others
    /// may sign it now. What else was changed meanwhile does no harm.
    pub fn outdated(&self, trusted: &Trusted) -> Option<RoleName> {
        let is_drafted = |role: &RoleName| self.drafts.iter().any(|draft| draft.role == *role);
        let is_outdated = |draft: &&Draft| {
            let digest = |metadata: Option<&Verified<Targets>>| metadata.map(Verified::signed_digest);
            let Content::Targets(_) = &draft.content else {
                return self.chain.root().signed_digest() != trusted.root().signed_digest();
            };
            if digest(self.bases.get(&draft.role)) != digest(trusted.role(&draft.role)) {
                return true;
            }
            let delegator = if draft.role == RoleName::targets() { RoleName::root() } else { RoleName::targets() };
            let then = self.signers(draft).ok().and_then(|signers| signers.into_iter().next());
            !is_drafted(&delegator) && then.map(|(_, _, signers)| signers) != trusted.signers(&draft.role)
        };
        self.drafts.iter().find(is_outdated).map(|draft| draft.role.clone())
    }
}

/// What a ceremony made.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The next root: its version and its exact bytes.
    pub root: Option<(u64, Vec<u8>)>,
    /// The next targets roles, delegators first.
    pub roles: Vec<Verified<Targets>>,
}

impl fmt::Debug for Ceremony {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ceremony({:?} after {:?})", self.roles(), self.chain.root())
    }
}

/// Drafts what the change would otherwise leave unsigned: roles whose metadata in force does not carry
/// the signatures that the new root or the new delegations ask for.
fn add_companions(
    trusted: &Trusted,
    root: Option<&Root>,
    roles: &mut BTreeMap<RoleName, Targets>,
    expires: UtcTime,
    signs_itself: &dyn Fn(&RoleName) -> bool,
) {
    let again = |current: &Verified<Targets>| Targets { expires, ..Targets::clone(current) };
    let top = RoleName::targets();
    let Some(current) = trusted.role(&top) else { return };
    if let Some(root) = root
        && !roles.contains_key(&top)
        && !current.is_vouched_by(&root.authority(TopRole::Targets))
    {
        roles.insert(top.clone(), again(current));
    }
    let Some(delegations) = roles.get(&top).map_or(current.delegations.as_ref(), |next| next.delegations.as_ref())
    else {
        return;
    };
    let mut companions = Vec::new();
    for name in delegations.roles.iter().map(|role| &role.name) {
        let (Some(metadata), Some(authority)) = (trusted.role(name), delegations.authority(name)) else { continue };
        if !roles.contains_key(name) && !signs_itself(name) && !metadata.is_vouched_by(&authority) {
            companions.push((name.clone(), again(metadata)));
        }
    }
    roles.extend(companions);
}

/// A role whose threshold its usable keys cannot reach would be lost for ever.
fn check_not_locked_out(draft: &Draft) -> Result<(), CeremonyError> {
    let check = |role: RoleName, signers: &Signers| {
        let usable = signers.keys.iter().filter(|(_, key)| key.is_usable()).count();
        if u64::try_from(usable).is_ok_and(|usable| usable >= signers.threshold) {
            return Ok(());
        }
        Err(CeremonyError::LockedOut { role, threshold: signers.threshold, usable })
    };
    match &draft.content {
        Content::Root(root) => [TopRole::Root, TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp]
            .into_iter()
            .try_for_each(|top| check(top.name(), &root.signers(top))),
        Content::Targets(targets) => {
            let delegated = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
            let signers = |role| targets.delegations.as_ref().and_then(|delegations| delegations.signers(role));
            delegated
                .filter_map(|role| Some((role.name.clone(), signers(&role.name)?)))
                .try_for_each(|(role, signers)| check(role, &signers))
        }
    }
}

#[cfg(test)]
mod tests;
