//! The seed's side of offers: who has offered what, and how far each is.
//!
//! ```text
//! heard ─▶ Checking ─▶ Admitting ─▶ Fetching ─▶ Signing ─▶ published
//!              └────────────┴───────────┴──────────┴─▶ refused, or given up
//! ```
//!
//! Until its role is verified an offer is a stranger's word, and costs one bounded file and a place
//! that it loses within seconds. A verified one may take disk space, and holds its role's place for
//! as long as it moves. Nothing is published here: a crash at any moment leaves the old set in force,
//! and the same offer made again goes on with the pieces that the store has kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::offer::{Offer, OfferAnswer, OfferStage};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::tuf::RoleName;

use super::rule::{self, Judged, OfferError};
use crate::engine::catalog::CatalogView;
use crate::engine::input::Now;

/// Offers under way at once, one a peer. Bounds memory and the files asked for.
pub(super) const MAX_PENDING: usize = 8;
/// Milliseconds between two different offers of one peer.
const NEW_OFFER_MS: u64 = 1_000;
/// A role that was asked for is here within this, or the offer loses its place.
const ROLE_MS: u64 = 20_000;
/// An offer that was not repeated for so long gives way to another.
const SILENT_MS: u64 = 15_000;
/// An offer whose artifact does not grow for so long is given up.
const STALL_MS: u64 = 120_000;
/// An artifact that nobody offers any more is kept for so long, for a retry.
const KEEP_MS: u64 = 600_000;
/// Artifacts kept for a retry. Bounds the disk space of pushes that were given up.
const MAX_LEFTOVERS: usize = 8;
/// Refusals remembered, so that repeating an offer costs nothing.
const MAX_REFUSALS: usize = 64;
/// Milliseconds for which a refusal is remembered: what was wrong here may have been put right.
const REFUSAL_MS: u64 = 30_000;
/// Milliseconds after which to ask again where there was no place.
const RETRY_MS: u32 = 2_000;

/// How far an offer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The role was asked for.
    Checking { request_id: u64 },
    /// The role is good; whether there is room is being found out.
    Admitting,
    /// The artifact is on its way.
    Fetching,
    /// The set that names it is being signed.
    Signing,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    peer: PeerId,
    offer: Offer,
    stage: Stage,
    began_ms: u64,
    /// When it was last repeated.
    heard_ms: u64,
    /// When its artifact last grew, and to what.
    moved_ms: u64,
    bytes: u64,
    /// Exact bytes of the role, once it is verified.
    file: Vec<u8>,
    release: Option<Arc<Release>>,
}

impl Pending {
    fn is_verified(&self) -> bool {
        !matches!(self.stage, Stage::Checking { .. })
    }

    fn is_silent(&self, now: Now) -> bool {
        // Repetitions may queue behind the artifact itself on a slow way.
        now.mono_ms.saturating_sub(self.heard_ms.max(self.moved_ms)) > SILENT_MS
    }

    fn artifact(&self) -> Option<&Digest> {
        self.release.as_ref().map(|release| &release.artifact)
    }
}

/// What must be done for an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the peer for the role.
    AskRole { request_id: u64, peer: PeerId, file: MetaFile },
    /// Find out whether there is room and whether this node can sign.
    Admit { number: u64, artifact: Option<Digest>, length: u64 },
    /// The artifact is wanted; the peer is asked for its manifest first.
    Fetch { release: Arc<Release>, peer: PeerId },
    /// Sign the set that names it.
    Sign { number: u64, peer: PeerId, offer: Offer, file: Vec<u8> },
    /// Nobody offers the artifact any more.
    Discard { artifact: Digest },
    /// The artifact belongs to the signed set.
    Settle { artifact: Digest },
    /// The peer did what no honest node does.
    Fault { peer: PeerId, what: String },
    /// The operator may want to know.
    Refused { peer: PeerId, text: String },
}

/// How signing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// The set is signed, kept and in force.
    Done,
    /// Another version of the role came first.
    Overtaken,
    /// It cannot be signed, and why.
    Failed(String),
}

/// Every offer that this seed hears of.
#[derive(Debug, Default)]
pub(super) struct Taking {
    pending: Vec<Pending>,
    next_number: u64,
    /// When each peer last offered something new.
    new_at_ms: BTreeMap<PeerId, u64>,
    refusals: VecDeque<(PeerId, Offer, String, u64)>,
    /// Artifacts of offers that were given up, and when they go.
    leftovers: BTreeMap<Digest, u64>,
}

/// How many verified bytes of an artifact are here, and whether it is whole.
pub(super) type Progress<'a> = &'a dyn Fn(&Digest) -> (u64, bool);

impl Taking {
    /// Artifacts that were being fetched for an offer when the node stopped.
    pub(super) fn restore(&mut self, artifacts: Vec<Digest>, now: Now) {
        self.leftovers.extend(artifacts.into_iter().map(|artifact| (artifact, now.mono_ms + KEEP_MS)));
    }

    /// Releases whose artifacts are wanted here before any channel names them.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.pending
            .iter()
            .filter(|pending| pending.stage == Stage::Fetching)
            .filter_map(|pending| pending.release.as_ref())
    }

    /// Whether some offer needs what the store has of an artifact.
    pub(super) fn needs(&self, artifact: &Digest) -> bool {
        self.pending.iter().any(|pending| pending.artifact() == Some(artifact))
    }

    /// Who offers an artifact.
    pub(super) fn publishers(&self, artifact: &Digest) -> Vec<PeerId> {
        let offered = self.pending.iter().filter(|pending| pending.artifact() == Some(artifact));
        offered.map(|pending| pending.peer.clone()).collect()
    }

    /// Whether what the store has of an artifact stays for an offer, under way or given up lately.
    pub(super) fn keeps(&self, artifact: &Digest) -> bool {
        self.needs(artifact) || self.leftovers.contains_key(artifact)
    }

    /// Whether an offer of this peer is being looked at.
    pub(super) fn concerns(&self, peer: &PeerId) -> bool {
        self.pending.iter().any(|pending| pending.peer == *peer)
    }

    /// A peer offers something, for the first time or again.
    pub(super) fn heard(
        &mut self,
        peer: &PeerId,
        offer: Offer,
        view: &CatalogView,
        progress: Progress<'_>,
        request_id: u64,
        now: Now,
    ) -> (OfferAnswer, Vec<Step>) {
        let current = rule::current_version(view, &offer.role);
        if current >= offer.version {
            return (in_force(&offer, current, view), Vec::new());
        }
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.peer == *peer && pending.offer == offer) {
            pending.heard_ms = now.mono_ms;
            return (taken(pending, progress), Vec::new());
        }
        self.refusals.retain(|(.., at_ms)| now.mono_ms.saturating_sub(*at_ms) < REFUSAL_MS);
        if let Some((.., reason, _)) = self.refusals.iter().find(|(who, what, ..)| who == peer && *what == offer) {
            return (OfferAnswer::refused(reason), Vec::new());
        }
        let last_ms = self.new_at_ms.insert(peer.clone(), now.mono_ms);
        if last_ms.is_some_and(|last_ms| now.mono_ms.saturating_sub(last_ms) < NEW_OFFER_MS) {
            return (OfferAnswer::busy("offers come too fast", RETRY_MS), Vec::new());
        }
        if let Err(error) = rule::check(&offer, view) {
            let reason = error.to_string();
            self.remember(peer, &offer, &reason, now);
            return (OfferAnswer::refused(&reason), Vec::new());
        }
        let mut steps = Vec::new();
        if let Some(reason) = self.make_place(peer, &offer, now, &mut steps) {
            return (OfferAnswer::busy(&reason, RETRY_MS), steps);
        }
        let file = MetaFile::Role { name: offer.role.as_str().to_owned(), version: offer.version };
        steps.push(Step::AskRole { request_id, peer: peer.clone(), file });
        self.next_number += 1;
        let pending = Pending {
            number: self.next_number,
            peer: peer.clone(),
            offer,
            stage: Stage::Checking { request_id },
            began_ms: now.mono_ms,
            heard_ms: now.mono_ms,
            moved_ms: now.mono_ms,
            bytes: 0,
            file: Vec::new(),
            release: None,
        };
        let answer = taken(&pending, progress);
        self.pending.push(pending);
        (answer, steps)
    }

    /// Makes place for an offer; says why not, where there is none.
    fn make_place(&mut self, peer: &PeerId, offer: &Offer, now: Now, steps: &mut Vec<Step>) -> Option<String> {
        if let Some(other) = self.rival(peer, offer, now) {
            return Some(format!(
                "another push of {} {} is under way and goes first",
                other.offer.role, other.offer.version
            ));
        }
        // One offer a peer: the newer one is what it means now.
        if let Some(index) = self.pending.iter().position(|pending| pending.peer == *peer) {
            if self.pending[index].stage == Stage::Signing {
                return Some("the offer before it is being signed".to_owned());
            }
            self.give_up(index, now, steps);
        }
        if self.pending.len() >= MAX_PENDING {
            let quietest = (0..self.pending.len()).min_by_key(|index| self.pending[*index].heard_ms);
            match quietest.filter(|index| self.pending[*index].is_silent(now)) {
                Some(index) => self.give_up(index, now, steps),
                None => return Some(format!("{MAX_PENDING} offers are under way already")),
            }
        }
        None
    }

    /// A verified offer of another file for the same role, whose owner is still there.
    fn rival(&self, peer: &PeerId, offer: &Offer, now: Now) -> Option<&Pending> {
        self.pending.iter().find(|other| {
            other.peer != *peer
                && other.is_verified()
                && other.offer.role == offer.role
                && other.offer.version == offer.version
                && other.offer.sha256 != offer.sha256
                && (other.stage == Stage::Signing || !other.is_silent(now))
        })
    }

    /// The role that was asked for, or why it did not come.
    pub(super) fn role_arrived(
        &mut self,
        request_id: u64,
        peer: &PeerId,
        file: Result<Vec<u8>, String>,
        view: &CatalogView,
        now: Now,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(index) = self
            .pending
            .iter()
            .position(|pending| pending.stage == Stage::Checking { request_id } && pending.peer == *peer)
        else {
            return steps;
        };
        // Whoever offers and cannot deliver yet offers again.
        let Ok(bytes) = file else {
            self.pending.remove(index);
            return steps;
        };
        match rule::judge(&self.pending[index].offer, &bytes, view, now.wall) {
            Ok(judged) => self.verified(index, bytes, judged, now, &mut steps),
            Err(error) => {
                if error.is_fault() {
                    let what = format!("offered a role that is no good: {error}");
                    steps.push(Step::Fault { peer: peer.clone(), what });
                }
                self.refuse(index, &error, now, &mut steps);
            }
        }
        steps
    }

    fn verified(&mut self, index: usize, bytes: Vec<u8>, judged: Judged, now: Now, steps: &mut Vec<Step>) {
        let (peer, offer) = (self.pending[index].peer.clone(), self.pending[index].offer.clone());
        if self.rival(&peer, &offer, now).is_some() {
            // The other was verified first. This one is made again.
            self.pending.remove(index);
            return;
        }
        let number = self.pending[index].number;
        let length = judged.release.as_ref().map_or(0, |release| release.length);
        let pending = &mut self.pending[index];
        pending.stage = Stage::Admitting;
        pending.file = bytes;
        pending.moved_ms = now.mono_ms;
        pending.release = judged.release;
        let artifact = pending.artifact().copied();
        if let Some(artifact) = &artifact {
            self.leftovers.remove(artifact);
        }
        // Silent offers of another file give way now, not before.
        let gives_way = |other: &Pending| {
            other.number != number
                && other.is_verified()
                && other.offer.role == offer.role
                && other.offer.sha256 != offer.sha256
        };
        while let Some(silent) = self.pending.iter().position(gives_way) {
            self.give_up(silent, now, steps);
        }
        steps.push(Step::Admit { number, artifact, length });
    }

    /// Whether there is room for an offer.
    pub(super) fn admitted(
        &mut self,
        number: u64,
        result: Result<(), String>,
        progress: Progress<'_>,
        now: Now,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(index) =
            self.pending.iter().position(|pending| pending.number == number && pending.stage == Stage::Admitting)
        else {
            return steps;
        };
        if let Err(reason) = result {
            self.refuse(index, &reason, now, &mut steps);
            return steps;
        }
        let pending = &mut self.pending[index];
        pending.moved_ms = now.mono_ms;
        match &pending.release {
            Some(release) if !progress(&release.artifact).1 => {
                pending.stage = Stage::Fetching;
                steps.push(Step::Fetch { release: release.clone(), peer: pending.peer.clone() });
            }
            _ => sign(pending, &mut steps),
        }
        steps
    }

    /// An artifact is whole and verified.
    pub(super) fn complete(&mut self, artifact: &Digest) -> Vec<Step> {
        let mut steps = Vec::new();
        // One signature is enough: whoever else offers the same file finds it published.
        let waiting = self
            .pending
            .iter_mut()
            .filter(|pending| pending.stage == Stage::Fetching)
            .find(|pending| pending.artifact() == Some(artifact));
        if let Some(pending) = waiting {
            sign(pending, &mut steps);
        }
        steps
    }

    /// The store refused an artifact.
    pub(super) fn failed(&mut self, artifact: &Digest, reason: &str, now: Now) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(index) = self
            .pending
            .iter()
            .position(|pending| pending.stage == Stage::Fetching && pending.artifact() == Some(artifact))
        {
            let reason = format!("the seed cannot store the artifact: {reason}");
            self.refuse(index, &reason, now, &mut steps);
        }
        steps
    }

    /// The set was signed and kept, or could not be.
    pub(super) fn signed(&mut self, number: u64, outcome: Signing, now: Now) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(index) = self.pending.iter().position(|pending| pending.number == number) else { return steps };
        match outcome {
            Signing::Done => {}
            Signing::Overtaken => {
                self.give_up(index, now, &mut steps);
                return steps;
            }
            Signing::Failed(reason) => {
                self.refuse(index, &reason, now, &mut steps);
                return steps;
            }
        }
        let done = self.pending.remove(index);
        // What was to come next for this role does not come next any more; its owner signs again.
        while let Some(index) = self.pending.iter().position(|pending| pending.offer.role == done.offer.role) {
            self.give_up(index, now, &mut steps);
        }
        if let Some(artifact) = done.artifact() {
            self.leftovers.remove(artifact);
            steps.push(Step::Settle { artifact: *artifact });
        }
        steps
    }

    /// A peer is gone. Its offer waits for it, unless another comes.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.pending.retain(|pending| pending.peer != *peer || pending.is_verified());
    }

    /// Time passed.
    pub(super) fn tick(&mut self, progress: Progress<'_>, now: Now) -> Vec<Step> {
        let mut steps = Vec::new();
        for pending in &mut self.pending {
            let bytes = pending.artifact().map_or(0, |artifact| progress(artifact).0);
            if bytes != pending.bytes {
                (pending.bytes, pending.moved_ms) = (bytes, now.mono_ms);
            }
        }
        // Older entries do not hold anybody back.
        self.new_at_ms.retain(|_, at_ms| now.mono_ms.saturating_sub(*at_ms) < NEW_OFFER_MS);
        let overdue = |pending: &Pending| match pending.stage {
            Stage::Checking { .. } => now.mono_ms.saturating_sub(pending.began_ms) > ROLE_MS,
            Stage::Admitting | Stage::Fetching => now.mono_ms.saturating_sub(pending.moved_ms) > STALL_MS,
            Stage::Signing => false,
        };
        while let Some(index) = self.pending.iter().position(overdue) {
            let pending = &self.pending[index];
            if pending.is_verified() && !pending.is_silent(now) {
                let reason = format!("nothing arrived for {} s", STALL_MS / 1_000);
                let (peer, offer) = (pending.peer.clone(), pending.offer.clone());
                steps.push(refused(pending, &reason));
                self.remember(&peer, &offer, &reason, now);
            }
            self.give_up(index, now, &mut steps);
        }
        let gone: Vec<Digest> = self
            .leftovers
            .iter()
            .filter(|(_, until_ms)| now.mono_ms >= **until_ms)
            .map(|(artifact, _)| *artifact)
            .collect();
        for artifact in gone {
            self.leftovers.remove(&artifact);
            steps.push(Step::Discard { artifact });
        }
        steps
    }

    /// Ends an offer; its artifact is kept for a while, in case that it is offered again.
    fn give_up(&mut self, index: usize, now: Now, steps: &mut Vec<Step>) {
        let pending = self.pending.remove(index);
        let Some(artifact) = pending.artifact().copied().filter(|artifact| !self.needs(artifact)) else { return };
        if pending.is_verified() {
            self.leftovers.insert(artifact, now.mono_ms + KEEP_MS);
        }
        while self.leftovers.len() > MAX_LEFTOVERS {
            let oldest = self.leftovers.iter().min_by_key(|(_, until_ms)| **until_ms).map(|(artifact, _)| *artifact);
            let Some(oldest) = oldest else { return };
            self.leftovers.remove(&oldest);
            steps.push(Step::Discard { artifact: oldest });
        }
    }

    /// Ends an offer for good; its artifact goes at once.
    fn refuse(&mut self, index: usize, reason: &dyn std::fmt::Display, now: Now, steps: &mut Vec<Step>) {
        let pending = self.pending.remove(index);
        self.remember(&pending.peer, &pending.offer, &reason.to_string(), now);
        steps.push(refused(&pending, reason));
        if let Some(artifact) = pending.artifact().filter(|artifact| !self.needs(artifact)) {
            steps.push(Step::Discard { artifact: *artifact });
        }
    }

    fn remember(&mut self, peer: &PeerId, offer: &Offer, reason: &str, now: Now) {
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.pop_front();
        }
        let reason = updraft_protocol::offer::reason(reason);
        self.refusals.push_back((peer.clone(), offer.clone(), reason, now.mono_ms));
    }
}

fn refused(pending: &Pending, reason: &dyn std::fmt::Display) -> Step {
    let offer = &pending.offer;
    let text = format!("a push of {} {} was refused: {reason}", offer.role, offer.version);
    Step::Refused { peer: pending.peer.clone(), text }
}

fn sign(pending: &mut Pending, steps: &mut Vec<Step>) {
    pending.stage = Stage::Signing;
    steps.push(Step::Sign {
        number: pending.number,
        peer: pending.peer.clone(),
        offer: pending.offer.clone(),
        file: pending.file.clone(),
    });
}

/// The answer to an offer of a version that is in force already.
fn in_force(offer: &Offer, current: u64, view: &CatalogView) -> OfferAnswer {
    let same = |role: &RoleName| {
        let held = view.trusted.role(role)?;
        (held.version == offer.version && Digest::of(held.bytes()) == offer.sha256).then_some(())
    };
    match same(&offer.role) {
        Some(()) => OfferAnswer::Published { timestamp_version: view.timestamp_version() },
        None => OfferAnswer::Overtaken { version: current },
    }
}

fn taken(pending: &Pending, progress: Progress<'_>) -> OfferAnswer {
    let bytes_total = pending.release.as_ref().map_or(0, |release| release.length);
    let bytes_done = pending.artifact().map_or(0, |artifact| progress(artifact).0);
    let stage = match pending.stage {
        Stage::Checking { .. } | Stage::Admitting => OfferStage::Checking,
        Stage::Fetching => OfferStage::Fetching,
        Stage::Signing => OfferStage::Signing,
    };
    OfferAnswer::Taken { stage, bytes_done, bytes_total }
}

impl From<OfferError> for OfferAnswer {
    fn from(error: OfferError) -> Self {
        Self::refused(&error.to_string())
    }
}
