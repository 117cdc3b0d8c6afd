//! What the node knows to be signed: heads, roles, releases and channel policies.
//!
//! A newer head is verified as it arrives and becomes a *candidate*; the roles and channel files it
//! names are collected from any peer; when the set is whole it replaces the current one in one step.
//! Until then the node goes on with the set it has, so that a head whose files cannot be had never
//! takes the old releases away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::head::{self, Contradiction, Evidence, Ignored, Rejected, Verdict};
use updraft_protocol::limits::{MAX_EVIDENCE, MAX_ROOT_ROTATIONS};
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::Channel;
use updraft_protocol::ticket::Ticket;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{Expiry, RepositoryId, RoleName, Timestamp, TopRole, Trusted, TufError, Verified};

pub(crate) use self::sets::carry_roles;
use self::sets::{CHANNELS, channel_digests, load_set, save_set};
pub use self::view::CatalogView;
use self::view::encode_head;
use super::effect::{EventKind, GossipVerdict, Save};
use super::evidence::{EvidenceBook, Taken};
use super::memory::{Memory, tell_altered, tell_lowered};

mod sets;
mod view;

/// What a call changed.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Change {
    /// To be saved, in this order.
    pub(crate) save: Vec<Save>,
    /// Files to ask for, and who is likely to have them.
    pub(crate) wants: Vec<MetaFile>,
    /// A newer head passed verification.
    pub(crate) head_verified: Option<u64>,
    /// The current set was replaced.
    pub(crate) replaced: bool,
    /// The sender is to blame.
    pub(crate) blame: Option<Blame>,
    /// The sender is behind, and would be helped by what is known here.
    pub(crate) sender_is_behind: bool,
    /// The sender checks with a root of this version, which is newer than the one here.
    pub(crate) claimed_root: Option<u64>,
    /// Proof that a key is in wrong hands, not known before.
    pub(crate) contradictions: Vec<Contradiction>,
    /// Roles against which nothing is held any more.
    pub(crate) cleared: Vec<RoleName>,
    /// What memory found in a set that is in force now.
    pub(crate) notices: Vec<(EventKind, String)>,
}

/// What a sender did.
#[derive(Debug)]
pub(crate) struct Blame {
    /// What, for people.
    pub(crate) reason: String,
    /// Nobody honest would have sent it; else it may only be behind or confused.
    pub(crate) is_lie: bool,
}

impl From<String> for Blame {
    /// A fault, not a lie.
    fn from(reason: String) -> Self {
        Self { reason, is_lie: false }
    }
}

/// Whether nobody who judges heads as this node does would have sent a head that is rejected for this.
/// Metadata that does not hold together may have been signed so, and its sender may know less.
fn is_lie(reason: &Rejected) -> bool {
    match reason {
        Rejected::Encoding(_)
        | Rejected::NotCanonical { .. }
        | Rejected::Signatures { .. }
        | Rejected::InlineTarget { .. } => true,
        Rejected::Metadata(_) => false,
    }
}

/// Why a node cannot start from what it has on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The stored root chain does not verify.
    #[error(
        "the stored root metadata does not belong to repository {repository}: {reason}; remove the metadata directory to fetch it again"
    )]
    Root {
        /// The repository.
        repository: String,
        /// What failed.
        reason: String,
    },
}

/// What a joiner must meet.
#[derive(Debug, Clone, Default)]
struct Pin {
    root_version: u64,
    root_sha256: Option<Digest>,
    min_timestamp_version: u64,
}

/// All signed metadata of one repository.
#[derive(Debug)]
pub(crate) struct Catalog {
    repository: RepositoryId,
    pin: Pin,
    /// Roots only, until the pinned root is reached.
    joining: Option<Trusted>,
    current: Option<Arc<CatalogView>>,
    candidate: Option<Trusted>,
    /// The set before a new root that has not been followed by a whole set yet. What the root dropped
    /// with its old keys may be vouched for again, and then need not be fetched again.
    former: Option<Trusted>,
    /// Channel files, by digest.
    files: BTreeMap<Digest, Arc<Vec<u8>>>,
    head: Option<Vec<u8>>,
    evidence: EvidenceBook,
    /// Evidence that came before the root to check it with.
    unchecked: Vec<Evidence>,
    memory: Memory,
    /// The last root that took a targets key away.
    rotated_at: u64,
}

/// Takes the next root; returns whether it took a targets key away.
fn take_root(trusted: &mut Trusted, bytes: &[u8]) -> Result<bool, TufError> {
    let before = trusted.root().clone();
    trusted.update_root(bytes)?;
    Ok(before.is_rotated_by(trusted.root(), TopRole::Targets))
}

impl Catalog {
    /// A catalog of `repository`, from what `read` (metadata by file name) and `target` (channel
    /// files by digest) find on disk. Expired metadata loads: it stops installs, not the node.
    pub(crate) fn restore(
        repository: RepositoryId,
        ticket: Option<&Ticket>,
        read: &dyn Fn(&str) -> Option<Vec<u8>>,
        target: &dyn Fn(&Digest) -> Option<Vec<u8>>,
        memory: Memory,
        now: UtcTime,
    ) -> Result<(Self, Change), CatalogError> {
        let mut change = Change::default();
        let pin = ticket.map_or_else(Pin::default, |ticket| Pin {
            root_version: ticket.root_version,
            root_sha256: Some(ticket.root_sha256),
            min_timestamp_version: ticket.min_timestamp_version,
        });
        let mut catalog = Self {
            repository,
            pin,
            joining: None,
            current: None,
            candidate: None,
            former: None,
            files: BTreeMap::new(),
            head: None,
            evidence: EvidenceBook::default(),
            unchecked: Vec::new(),
            memory,
            rotated_at: 0,
        };
        let Some(first) = read("1.root.json") else { return Ok((catalog, change)) };
        let bad = |reason: String| CatalogError::Root { repository: repository.to_string(), reason };
        let mut trusted = Trusted::from_first_root(&first, &repository).map_err(|error| bad(error.to_string()))?;
        let mut before = None;
        for _ in 0..MAX_ROOT_ROTATIONS {
            let Some(bytes) = read(&format!("{}.root.json", trusted.root().version.saturating_add(1))) else { break };
            before = Some(trusted.clone());
            if take_root(&mut trusted, &bytes).map_err(|error| bad(error.to_string()))? {
                catalog.rotated_at = trusted.root().version;
            }
        }
        if !catalog.meets_pin(&trusted).map_err(bad)? {
            catalog.joining = Some(trusted);
            return Ok((catalog, change));
        }
        // Whatever is missing or damaged from here on is fetched again.
        load_set(&mut trusted, read);
        if trusted.timestamp().is_none()
            && let Some(mut before) = before
        {
            load_set(&mut before, read);
            catalog.former = before.snapshot().is_some().then_some(before);
        }
        let of_former = catalog.former.as_ref().map(channel_digests).unwrap_or_default();
        for sha256 in channel_digests(&trusted).into_iter().chain(of_former) {
            if let Some(bytes) = target(&sha256) {
                catalog.files.insert(sha256, Arc::new(bytes));
            }
        }
        catalog.evidence.restore(&trusted, read);
        catalog.install_view(&trusted, now, &mut change);
        Ok((catalog, change))
    }

    /// Whether the chain reached the root that the ticket pins; an error where it is another root.
    fn meets_pin(&self, trusted: &Trusted) -> Result<bool, String> {
        let root = trusted.root();
        if root.version < self.pin.root_version {
            return Ok(false);
        }
        if root.version == self.pin.root_version
            && self.pin.root_sha256.is_some_and(|pinned| pinned != root.signed_digest())
        {
            return Err(format!("root {} is not the one that the ticket pins", root.version));
        }
        Ok(true)
    }

    /// Puts a set in force: what it teaches is saved before the set itself is.
    fn install_view(&mut self, trusted: &Trusted, now: UtcTime, change: &mut Change) {
        for role in self.evidence.settle(trusted) {
            change.save.push(self.evidence.save(&role));
            change.cleared.push(role);
        }
        // Looking up a path costs: it is done once for both.
        let targets = trusted.all_targets();
        let mut view = CatalogView::of_targets(trusted, &targets, &self.files);
        view.contradictions = self.evidence.contradictions();
        let seen = self.memory.observe(trusted, &targets, self.rotated_at, now);
        let known = self.current.as_ref().map(|current| &current.altered);
        let new: Vec<&String> = seen.altered.iter().filter(|path| known.is_none_or(|k| !k.contains(*path))).collect();
        let altered = tell_altered(new.into_iter()).into_iter().map(|text| (EventKind::ReleaseAltered, text));
        change.notices.extend(altered);
        // Told when it begins to be so, not with every head.
        if trusted.role(&RoleName::targets()).map(|top| top.version) != self.targets_version() {
            let lowered = tell_lowered(&seen.lowered).into_iter().map(|text| (EventKind::FloorHeld, text));
            change.notices.extend(lowered);
        }
        if !seen.learned.is_empty() {
            change.save.push(Save::Memory(seen.learned));
        }
        self.memory.apply(&mut view, seen.altered);
        let of_former = self.former.as_ref().map(channel_digests).unwrap_or_default();
        let needed: BTreeSet<Digest> = channel_digests(&view.trusted).into_iter().chain(of_former).collect();
        self.files.retain(|sha256, _| needed.contains(sha256));
        self.head = encode_head(&view);
        self.current = Some(Arc::new(view));
        self.joining = None;
    }

    /// Puts a set in force in place of another.
    fn replace_view(&mut self, trusted: &Trusted, now: UtcTime, change: &mut Change) {
        self.install_view(trusted, now, change);
        for evidence in std::mem::take(&mut self.unchecked) {
            let _ = self.take_evidence(&evidence, change);
        }
        change.replaced = true;
    }

    /// Takes evidence, found here or brought by a peer. An error says why it proves nothing.
    pub(crate) fn take_evidence(&mut self, evidence: &Evidence, change: &mut Change) -> Result<(), String> {
        let Some(view) = &mut self.current else {
            if self.unchecked.len() < MAX_EVIDENCE {
                self.unchecked.push(evidence.clone());
            }
            return Ok(());
        };
        match self.evidence.take(evidence, &view.trusted) {
            Taken::New(contradiction) => {
                Arc::make_mut(view).contradictions = self.evidence.contradictions();
                change.save.push(self.evidence.save(&evidence.role));
                change.contradictions.push(contradiction);
                Ok(())
            }
            Taken::Known => Ok(()),
            Taken::Useless(error) => Err(error.to_string()),
        }
    }

    /// Digests of the channel files in memory: those of the set in force, and of one that is being collected.
    pub(crate) fn small_files(&self) -> impl Iterator<Item = &Digest> {
        self.files.keys()
    }

    /// Ids of the evidence that can be handed on.
    pub(crate) fn evidence_ids(&self) -> Vec<Digest> {
        self.evidence.ids()
    }

    /// A piece of evidence as bytes.
    pub(crate) fn evidence(&self, id: &Digest) -> Option<&Vec<u8>> {
        self.evidence.bytes(id)
    }

    /// Whether a piece of evidence is worth fetching: it was not looked at yet.
    pub(crate) fn wants_evidence(&self, id: &Digest) -> bool {
        self.evidence.wants(id) && self.unchecked.iter().all(|evidence| evidence.id() != *id)
    }

    /// The current set; `None` until the pinned root was reached.
    pub(crate) fn view(&self) -> Option<&Arc<CatalogView>> {
        self.current.as_ref()
    }

    fn targets_version(&self) -> Option<u64> {
        self.current.as_ref()?.trusted.role(&RoleName::targets()).map(|top| top.version)
    }

    /// What is remembered beyond the set in force.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// An operator vouches for the clock: the remembered time of signing is forgotten.
    pub(crate) fn trust_clock(&mut self) {
        self.memory.clock.remembered = None;
        if let Some(view) = &mut self.current {
            Arc::make_mut(view).clock.remembered = None;
        }
    }

    pub(crate) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The newest whole head, as gossiped.
    pub(crate) fn head(&self) -> Option<&Vec<u8>> {
        self.head.as_ref()
    }

    pub(crate) fn root_version(&self) -> u64 {
        let joining = self.joining.as_ref().map(|trusted| trusted.root().version);
        let current = self.current.as_ref().map(|view| view.trusted.root().version);
        current.or(joining).unwrap_or(0)
    }

    /// Version of the newest verified timestamp, whole or not.
    pub(crate) fn timestamp_version(&self) -> u64 {
        let candidate = self.candidate.as_ref().and_then(|trusted| trusted.timestamp()).map(|t| t.version);
        candidate.or_else(|| self.current.as_ref().map(|view| view.timestamp_version())).unwrap_or(0)
    }

    fn newest_timestamp(&self) -> Option<&Verified<Timestamp>> {
        let candidate = self.candidate.as_ref().and_then(|trusted| trusted.timestamp());
        candidate.or_else(|| self.current.as_ref()?.trusted.timestamp())
    }

    /// SHA-256 of the signed part of the newest verified timestamp.
    pub(crate) fn timestamp_sha256(&self) -> Option<Digest> {
        self.newest_timestamp().map(Verified::signed_digest)
    }

    /// Whether somebody who holds this timestamp was told another history than this node, and nothing is
    /// known against the timestamp key yet.
    pub(crate) fn tells_otherwise(&self, version: u64, sha256: &Digest) -> bool {
        let Some(mine) = self.newest_timestamp() else { return false };
        let stated = if mine.version == version { Some(mine.signed_digest()) } else { mine.ancestor(version) };
        let known = self.current.as_ref().is_some_and(|view| {
            view.contradictions.iter().any(|contradiction| contradiction.role == RoleName::timestamp())
        });
        !known && stated.is_some_and(|stated| stated != *sha256)
    }

    /// Files that are needed now.
    pub(crate) fn needs(&self) -> Vec<MetaFile> {
        let Some(view) = &self.current else {
            return vec![MetaFile::Root { version: self.root_version().saturating_add(1) }];
        };
        if let Some(candidate) = &self.candidate {
            return self.missing(candidate);
        }
        if view.trusted.snapshot().is_none() {
            return vec![MetaFile::Head];
        }
        self.missing(&view.trusted)
    }

    fn missing(&self, trusted: &Trusted) -> Vec<MetaFile> {
        let roles = trusted
            .missing_roles()
            .into_iter()
            .map(|request| MetaFile::Role { name: request.role.as_str().to_owned(), version: request.version });
        let files = trusted.targets_below(CHANNELS).into_iter().filter_map(|(path, target, _)| {
            Channel::from_path(path).ok()?;
            let sha256 = target.sha256()?;
            (!self.files.contains_key(&sha256)).then(|| MetaFile::Target { path: path.to_owned(), sha256 })
        });
        roles.chain(files).collect()
    }

    /// Judges a head, gossiped or asked for.
    pub(crate) fn judge(&mut self, payload: &[u8], now: UtcTime) -> (GossipVerdict, Change) {
        let mut change = Change::default();
        let Some(view) = &self.current else {
            change.wants = self.needs();
            return (GossipVerdict::Ignore, change);
        };
        let newest = self.candidate.as_ref().unwrap_or(&view.trusted);
        let verdict = match head::judge(payload, newest, now) {
            Verdict::Accept(accepted) => {
                let version = accepted.trusted.timestamp().map_or(0, |timestamp| timestamp.version);
                let pin_holds = accepted.trusted.timestamp_keys_since() <= self.pin.root_version;
                if pin_holds && version < self.pin.min_timestamp_version {
                    return (GossipVerdict::Ignore, change);
                }
                change.head_verified = Some(version);
                // An unsigned hint: a newer root may exist, and nobody is to blame if it does not.
                if accepted.root_version > self.root_version() {
                    change.wants.push(MetaFile::Root { version: self.root_version().saturating_add(1) });
                }
                for (_, bytes) in accepted.targets {
                    self.files.insert(Digest::of(&bytes), Arc::new(bytes));
                }
                self.candidate = Some(accepted.trusted);
                self.advance(now, &mut change);
                GossipVerdict::Accept
            }
            Verdict::Ignore(Ignored::NewerRoot { version }) => {
                change.claimed_root = Some(version);
                GossipVerdict::Ignore
            }
            Verdict::Ignore(Ignored::Older { .. } | Ignored::OlderRoot) => {
                change.sender_is_behind = true;
                GossipVerdict::Ignore
            }
            Verdict::Ignore(Ignored::Same | Ignored::Expired | Ignored::GoesBack(_)) => GossipVerdict::Ignore,
            Verdict::Reject(reason) => {
                let is_lie = is_lie(&reason);
                change.blame = Some(Blame { reason: format!("sent a head that is provably wrong: {reason}"), is_lie });
                GossipVerdict::Reject
            }
            Verdict::Equivocation(evidence) => {
                // Under a newer candidate's metadata the pair may not verify here any more; then it
                // has no weight.
                let _ = self.take_evidence(&evidence, &mut change);
                GossipVerdict::Ignore
            }
        };
        (verdict, change)
    }

    /// A file that was asked for. `Err` says why it is of no use: ask another peer.
    pub(crate) fn file(&mut self, file: &MetaFile, bytes: &[u8], now: UtcTime) -> Result<Change, Blame> {
        let mut change = Change::default();
        match file {
            MetaFile::Head => {
                let (verdict, judged) = self.judge(bytes, now);
                if verdict == GossipVerdict::Reject {
                    return Err(judged.blame.unwrap_or_else(|| "a rejected head".to_owned().into()));
                }
                change = judged;
            }
            MetaFile::Root { version } => self.root(*version, bytes, now, &mut change)?,
            MetaFile::Role { name, version } => {
                let role = name.parse::<RoleName>().map_err(|error| error.to_string())?;
                let current = || self.current.as_ref().map(|view| view.trusted.clone());
                let mut trusted =
                    self.candidate.clone().or_else(current).ok_or_else(|| "no set to complete".to_owned())?;
                // An expired role is no fault of the peer that handed it on: the set is completed with
                // it, and the freshness gate keeps anything from being installed.
                let _same_or_new =
                    trusted.update_targets(&role, bytes, Expiry::Deferred).map_err(|error| error.to_string())?;
                if trusted.role(&role).is_none_or(|role| role.version != *version) {
                    return Err(format!("{name} has another version than {version}").into());
                }
                self.candidate = Some(trusted);
                self.advance(now, &mut change);
            }
            MetaFile::Target { sha256, .. } => {
                if Digest::of(bytes) != *sha256 {
                    return Err("the file is not the one that was signed".to_owned().into());
                }
                self.files.insert(*sha256, Arc::new(bytes.to_vec()));
                if self.candidate.is_none() {
                    self.candidate = self.current.as_ref().map(|view| view.trusted.clone());
                }
                self.advance(now, &mut change);
            }
            MetaFile::Evidence { sha256 } => {
                if Digest::of(bytes) != *sha256 {
                    return Err("the evidence is not the piece that was asked for".to_owned().into());
                }
                let evidence = Evidence::decode(bytes).map_err(|error| error.to_string())?;
                // What proves nothing here may do so under the sender's root: no fault.
                let _ = self.take_evidence(&evidence, &mut change);
            }
            MetaFile::Manifest { .. } => return Err("manifests do not belong to the catalog".to_owned().into()),
            MetaFile::Offer(_) => return Err("an offer is not a file".to_owned().into()),
        }
        Ok(change)
    }

    fn root(&mut self, version: u64, bytes: &[u8], now: UtcTime, change: &mut Change) -> Result<(), String> {
        if version != self.root_version().saturating_add(1) {
            return Ok(());
        }
        let name = format!("{version}.root.json");
        let before = self.current.as_ref().map(|view| &view.trusted).or(self.joining.as_ref());
        let mut rotates = false;
        let trusted = match before {
            Some(before) => {
                let mut trusted = before.clone();
                rotates = take_root(&mut trusted, bytes).map_err(|error| error.to_string())?;
                trusted
            }
            None => Trusted::from_first_root(bytes, &self.repository).map_err(|error| error.to_string())?,
        };
        let arrived = self.meets_pin(&trusted)?;
        if rotates {
            self.rotated_at = version;
        }
        change.save.push(Save::Metadata { name, bytes: bytes.to_vec() });
        if arrived {
            // A new root re-verifies everything below it: a candidate under the old one is void.
            self.candidate = None;
            let current = self.current.as_ref().map(|view| view.trusted.clone());
            self.former = self.former.take().or(current);
            self.replace_view(&trusted, now, change);
            change.wants.push(MetaFile::Root { version: version.saturating_add(1) });
            change.wants.push(MetaFile::Head);
        } else {
            self.joining = Some(trusted);
            change.wants.push(MetaFile::Root { version: version.saturating_add(1) });
        }
        Ok(())
    }

    /// Makes the candidate current if it is whole; else asks for what it lacks.
    fn advance(&mut self, now: UtcTime, change: &mut Change) {
        let Some(candidate) = &mut self.candidate else { return };
        if let Some(view) = &self.current {
            carry_roles(candidate, &view.trusted);
        }
        if let Some(former) = &self.former {
            carry_roles(candidate, former);
        }
        let Some(candidate) = &self.candidate else { return };
        let missing = self.missing(candidate);
        if !missing.is_empty() {
            change.wants.extend(missing);
            return;
        }
        let Some(trusted) = self.candidate.take() else { return };
        for evidence in self.contradicted_roles(&trusted) {
            let _ = self.take_evidence(&evidence, change);
        }
        self.former = None;
        self.replace_view(&trusted, now, change);
        save_set(&trusted, &self.files, &mut change.save);
    }

    /// Roles of which `newer` brings the version that is held with another content: the snapshot may
    /// list anything, but a role's key signs each version once.
    fn contradicted_roles(&self, newer: &Trusted) -> Vec<Evidence> {
        let Some(view) = &self.current else { return Vec::new() };
        newer
            .loaded_roles()
            .filter_map(|name| Evidence::of_one_version(view.trusted.role(name)?, newer.role(name)?))
            .collect()
    }
}

/// The whole signed set on disk, for commands that work on a stopped node's directory.
pub fn load_view(
    repository: RepositoryId,
    ticket: Option<&Ticket>,
    read: &dyn Fn(&str) -> Option<Vec<u8>>,
    target: &dyn Fn(&Digest) -> Option<Vec<u8>>,
    memory: Memory,
    now: UtcTime,
) -> Result<Option<Arc<CatalogView>>, CatalogError> {
    Ok(Catalog::restore(repository, ticket, read, target, memory, now)?.0.current)
}
