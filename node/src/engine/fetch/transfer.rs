//! One object on its way: who has which pieces, what is asked of whom, and what came of it.
//!
//! Every block is asked for once. Where a neighbour could have it much sooner than the one that was asked,
//! the block is taken from that one, and where it may be under way already both are asked and the loser
//! is told. Which block is next is decided in `pick`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::manifest::{Manifest, PieceIndex};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId};

pub(super) use self::pick::Ask;
use self::stuck::Stuck;
use super::availability::Availability;
use super::counts::ByteCounts;
use super::departed::Departed;
use super::holder::Holder;
use super::locality::{Locality, PATIENCE_MS, Standing, rank};
use super::progress::PieceProgress;
use super::sparing::{Sparing, Surroundings, Uplink};
use super::suspects::Suspects;

mod pick;
mod stuck;

/// Pieces that neighbours are told of at once, where they come fast.
const TELL_PIECES: u64 = 8;
/// Bounds of the time for which they are gathered.
const MIN_TELL_MS: u64 = 20;
const MAX_TELL_MS: u64 = 200;
/// Senders that are told apart in one artifact's account. Bounds what a neighbour that comes under new
/// names can fill.
const MAX_SOURCES: usize = 256;
/// Those who pushed one artifact that are remembered.
const MAX_PUBLISHERS: usize = 16;
/// A node begins to ask those who hold everything within so many milliseconds. News of a release reaches a fleet
/// at once, and all would ask the few that have it in the same moment. A seed that offers piece by piece has
/// said whom it expects.
const START_JITTER_MS: u64 = 50;
/// Milliseconds within which the news of a stored block is here.
const NEWS_MS: u64 = 2_000;
/// Milliseconds for which a neighbour whose blocks are late is not asked.
const REST_MS: u64 = 2_000;

/// One object: held, wanted, or both in part.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) object: ObjectId,
    pub(super) manifest: Arc<Manifest>,
    /// Our number for the object in every session.
    pub(super) handle: u32,
    pub(super) have: Bitmap,
    pub(super) wanted: bool,
    /// Who holds everything is asked for nothing before this time.
    asks_from_ms: u64,
    pub(super) holders: BTreeMap<PeerId, Holder>,
    /// Who pushed the object here. They hold all of it and are gone soon: what they have is nowhere yet.
    publishers: BTreeSet<PeerId>,
    pub(super) bytes: ByteCounts,
    departed: Departed,
    /// Why nothing is asked for, where the disk refused.
    pub(super) stopped: Option<String>,
    /// How this node spends its uplink on the object, where it is careful.
    pub(super) sparing: Option<Sparing>,
    /// Useful bytes by who sent them.
    pub(super) sources: BTreeMap<PeerId, u64>,
    availability: Availability,
    locality: Locality,
    progress: BTreeMap<u32, PieceProgress>,
    /// Pieces that are held or begun.
    taken: Bitmap,
    /// Pieces of which some block was asked of nobody.
    missing: BTreeSet<u32>,
    suspects: Suspects,
    duplicates: BTreeSet<(PeerId, BlockRange)>,
    /// Who was asked for blocks of a piece that was dropped since, and until when news of them may come:
    /// it is about bytes that are gone. They are not asked for that piece meanwhile.
    outdated: BTreeMap<(PeerId, u32), u64>,
    stuck: Stuck,
}

impl Transfer {
    pub(super) fn new(me: &PeerId, object: ObjectId, manifest: Arc<Manifest>, handle: u32, have: Bitmap) -> Self {
        let pieces = manifest.piece_count();
        let piece_length = manifest.piece_length();
        Self {
            object,
            manifest,
            handle,
            taken: have.clone(),
            have,
            wanted: false,
            asks_from_ms: 0,
            sparing: None,
            sources: BTreeMap::new(),
            missing: BTreeSet::new(),
            holders: BTreeMap::new(),
            publishers: BTreeSet::new(),
            bytes: ByteCounts::default(),
            departed: Departed::default(),
            stopped: None,
            availability: Availability::new(pieces),
            locality: Locality::new(rank(&object, me), piece_length),
            progress: BTreeMap::new(),
            suspects: Suspects::default(),
            duplicates: BTreeSet::new(),
            outdated: BTreeMap::new(),
            stuck: Stuck::default(),
        }
    }

    /// Still fetching.
    pub(super) fn is_active(&self) -> bool {
        self.wanted && !self.have.is_full() && self.stopped.is_none()
    }

    /// It is fetched from now on, or very soon.
    pub(super) fn want(&mut self, now_ms: u64, rng: &mut SmallRng) {
        self.wanted = true;
        self.asks_from_ms = now_ms + rng.random_range(0..=START_JITTER_MS);
    }

    /// Bytes of verified pieces.
    pub(super) fn bytes_done(&self) -> u64 {
        if self.have.is_full() {
            return self.manifest.length();
        }
        let full = u64::from(self.have.ones()) * u64::from(self.manifest.piece_length());
        let last = self.manifest.index(self.manifest.piece_count() - 1);
        match last {
            Some(last) if self.have.get(last.get()) => {
                full - u64::from(self.manifest.piece_length()) + u64::from(self.manifest.length_of(last))
            }
            _ => full,
        }
    }

    /// What is held is this now.
    pub(super) fn replace_have(&mut self, have: Bitmap) {
        self.taken = have.clone();
        for piece in self.progress.keys() {
            self.taken.set(*piece);
        }
        if !have.is_full() {
            // What is damaged here must not be offered.
            self.sparing = None;
        }
        self.have = have;
    }

    /// Takes over what a neighbour says it has; replaces what it said before.
    pub(super) fn announce(&mut self, peer: &PeerId, standing: Standing, have: Bitmap, wants: bool, now_ms: u64) {
        let spreads = !self.publishers.contains(peer);
        if let Some(holder) = self.holders.get_mut(peer) {
            if spreads {
                self.availability.remove(&holder.have, holder.supplies_site());
            }
            holder.standing = standing;
            holder.have = have;
            holder.wants = wants;
        } else {
            let rank = rank(&self.object, peer);
            self.holders.insert(peer.clone(), Holder::new(standing, rank, have, wants));
        }
        let holder = &self.holders[peer];
        if spreads {
            self.availability.add(&holder.have, holder.supplies_site());
        }
        if let Some(sparing) = &mut self.sparing {
            if wants && !holder.have.is_full() {
                sparing.wanted_by(peer, &Bitmap::empty(self.manifest.piece_count()), now_ms);
            } else {
                sparing.rest(peer, holder.have.is_full());
            }
        }
    }

    /// A neighbour is near, or is not.
    pub(super) fn set_near(&mut self, peer: &PeerId, is_near: bool) {
        let spreads = !self.publishers.contains(peer);
        if let Some(holder) = self.holders.get_mut(peer) {
            weigh(&mut self.availability, holder, spreads, |holder| holder.standing.is_near = is_near);
        }
    }

    /// Looks at where its neighbours are again.
    pub(super) fn look_around(&mut self, now_ms: u64) {
        self.locality.look(&self.holders, &self.have, now_ms);
    }

    /// A neighbour has one more piece.
    pub(super) fn heard_have(&mut self, peer: &PeerId, piece: u32, now_ms: u64) {
        if let Some(holder) = self.holders.get_mut(peer)
            && holder.have.set(piece)
        {
            if !self.publishers.contains(peer) {
                self.availability.gain(piece, holder.supplies_site());
            }
            if let Some(sparing) = &mut self.sparing {
                sparing.gained(peer, piece, now_ms);
            }
            if holder.have.is_full() {
                holder.wants = false;
                if let Some(sparing) = &mut self.sparing {
                    sparing.rest(peer, true);
                }
            }
        }
    }

    /// What `peer` is told that this node has.
    pub(super) fn told(&self, peer: &PeerId) -> Bitmap {
        match &self.sparing {
            Some(sparing) => sparing.told(peer, self.manifest.piece_count()),
            None => self.have.clone(),
        }
    }

    /// A neighbour pushed the object here. It is not one of those to whom it spreads: were its copy counted, there
    /// would be nothing to offer that nobody else has, and all would wait for a machine that most cannot reach.
    pub(super) fn pushed_by(&mut self, peer: &PeerId) {
        if self.publishers.len() < MAX_PUBLISHERS
            && self.publishers.insert(peer.clone())
            && let Some(holder) = self.holders.get(peer)
        {
            self.availability.remove(&holder.have, holder.supplies_site());
        }
    }

    /// From now on the object is offered piece by piece, to those who do not know that all of it is here.
    pub(super) fn spare(&mut self, now_ms: u64, rng: &mut SmallRng) {
        if self.sparing.is_some() || !self.have.is_full() {
            return;
        }
        let mut sparing = Sparing::new(&self.manifest, rng);
        for (peer, _) in self.holders.iter().filter(|(_, holder)| holder.wants) {
            sparing.wanted_by(peer, &self.have, now_ms);
        }
        self.sparing = Some(sparing);
    }

    /// Pieces to offer now, and to whom.
    pub(super) fn offers(&mut self, uplink: Uplink, rng: &mut SmallRng) -> Vec<(PeerId, u32)> {
        let Self { sparing, manifest, availability, departed, holders, .. } = self;
        let Some(sparing) = sparing else { return Vec::new() };
        let around = Surroundings { manifest, availability, departed, uplink };
        sparing.offers(&around, |peer| holders.get(peer).map(|holder| &holder.have), rng)
    }

    /// Whether a request of `peer` for a block of a piece is served now.
    pub(super) fn grants(&mut self, peer: &PeerId, piece: PieceIndex, block: BlockRange, uplink: Uplink) -> bool {
        let Self { manifest, departed, availability, sparing, .. } = self;
        let around = Surroundings { manifest, availability, departed, uplink };
        sparing.as_mut().is_none_or(|sparing| sparing.grants(peer, piece, block, &around))
    }

    /// A block that `peer` asked for does not leave.
    pub(super) fn withdrawn(&mut self, peer: &PeerId, block: BlockRange) {
        if let Some(sparing) = &mut self.sparing {
            sparing.withdrawn(peer, block);
        }
    }

    /// A block left for `peer`.
    pub(super) fn sent(&mut self, peer: &PeerId, block: BlockRange, now_ms: u64) {
        self.bytes.sent += u64::from(block.length);
        let Some(piece) = self.manifest.piece_at(block.offset) else { return };
        self.departed.add(&self.manifest, piece, block.length);
        self.bytes.sent_first = self.departed.first();
        if let Some(sparing) = &mut self.sparing {
            sparing.sent(peer, &self.manifest, piece, block, now_ms);
            if self.departed.whole() == self.manifest.piece_count() {
                sparing.is_out(now_ms);
            }
        }
    }

    /// A neighbour is gone, or has nothing of this any more: what it was asked for is free again, and
    /// returned.
    pub(super) fn forget(&mut self, peer: &PeerId) -> Vec<BlockRange> {
        if let Some(sparing) = &mut self.sparing {
            sparing.forget(peer);
        }
        let Some(holder) = self.holders.remove(peer) else { return Vec::new() };
        if !self.publishers.contains(peer) {
            self.availability.remove(&holder.have, holder.supplies_site());
        }
        let open: Vec<BlockRange> = holder.outstanding.keys().copied().collect();
        for block in &open {
            self.release(peer, *block);
        }
        for progress in self.progress.values_mut().filter(|p| p.sole_source.as_ref() == Some(peer)) {
            progress.sole_source = None;
        }
        self.outdated.retain(|(other, _), _| other != peer);
        open
    }

    fn release(&mut self, peer: &PeerId, block: BlockRange) {
        self.duplicates.remove(&(peer.clone(), block));
        if let Some(piece) = self.manifest.piece_at(block.offset)
            && let Some(progress) = self.progress.get_mut(&piece.get())
        {
            progress.mark_released(block);
            if progress.has_missing() {
                self.missing.insert(piece.get());
            }
            // A source that does not deliver must not be the only one: it would hold the piece for ever.
            if progress.sole_source.as_ref() == Some(peer) {
                progress.sole_source = None;
                self.suspects.let_down(piece.get(), peer);
            }
        }
    }

    /// A block arrived and was stored. Returns the neighbours whose request for it is now moot.
    pub(super) fn stored(&mut self, peer: &PeerId, block: BlockRange, from_seed: bool, now_ms: u64) -> Vec<PeerId> {
        self.arrived(peer, block, now_ms);
        if from_seed {
            self.bytes.from_seed += u64::from(block.length);
        } else {
            self.bytes.from_peers += u64::from(block.length);
        }
        if self.sources.len() < MAX_SOURCES || self.sources.contains_key(peer) {
            *self.sources.entry(peer.clone()).or_default() += u64::from(block.length);
        }
        let piece = self.manifest.piece_at(block.offset);
        if piece.is_some_and(|piece| self.outdated.contains_key(&(peer.clone(), piece.get()))) {
            return Vec::new();
        }
        if let Some(piece) = piece
            && let Some(progress) = self.progress.get_mut(&piece.get())
        {
            progress.mark_stored(block, peer);
            if !progress.has_missing() {
                self.missing.remove(&piece.get());
            }
        }
        let moot: Vec<PeerId> = self
            .holders
            .iter()
            .filter(|(_, holder)| holder.outstanding.contains_key(&block))
            .map(|(other, _)| other.clone())
            .collect();
        for other in &moot {
            if let Some(holder) = self.holders.get_mut(other) {
                holder.settle(block);
            }
            self.duplicates.remove(&(other.clone(), block));
        }
        moot
    }

    /// A block arrived that was there already.
    pub(super) fn duplicate(&mut self, peer: &PeerId, block: BlockRange, now_ms: u64) {
        self.arrived(peer, block, now_ms);
        self.bytes.duplicate += u64::from(block.length);
    }

    fn arrived(&mut self, peer: &PeerId, block: BlockRange, now_ms: u64) {
        self.duplicates.remove(&(peer.clone(), block));
        if let Some(holder) = self.holders.get_mut(peer) {
            let spreads = !self.publishers.contains(peer);
            weigh(&mut self.availability, holder, spreads, |holder| holder.arrived(block, now_ms));
            holder.settle(block);
        }
    }

    /// A piece is complete and right.
    pub(super) fn verified(&mut self, piece: u32, now_ms: u64) {
        let is_near = |peer: &PeerId| self.holders.get(peer).is_some_and(|holder| holder.standing.is_near);
        let from_near = self.progress.get(&piece).is_some_and(|progress| progress.contributors.iter().all(is_near));
        self.locality.gained(from_near, now_ms);
        self.have.set(piece);
        self.taken.set(piece);
        self.missing.remove(&piece);
        self.progress.remove(&piece);
        self.suspects.verified(piece);
    }

    /// Neighbours are to hear of a piece: those that lack it, and those that offer piece by piece, which
    /// watch how far their pieces get.
    pub(super) fn tell(&mut self, piece: u32) {
        for holder in self.holders.values_mut() {
            if !holder.have.is_full() && (!holder.wants || !holder.have.get(piece)) {
                holder.untold.push(piece);
            }
        }
    }

    /// Milliseconds between two times that a neighbour is told of new pieces: the time that some pieces
    /// take. Each message wakes its receiver, and costs it more than the pieces are worth.
    fn tell_ms(&self) -> u64 {
        let bytes = TELL_PIECES * u64::from(self.manifest.piece_length());
        (bytes * 1_000 / self.rate_bytes_per_second().max(1)).clamp(MIN_TELL_MS, MAX_TELL_MS)
    }

    /// What neighbours are to hear now.
    pub(super) fn take_untold(&mut self, now_ms: u64) -> Vec<(PeerId, Vec<u32>)> {
        let at_once = self.have.is_full();
        let tell_ms = self.tell_ms();
        let mut due = Vec::new();
        for (peer, holder) in &mut self.holders {
            if !holder.untold.is_empty() && (at_once || now_ms.saturating_sub(holder.told_ms) >= tell_ms) {
                holder.told_ms = now_ms;
                due.push((peer.clone(), std::mem::take(&mut holder.untold)));
            }
        }
        due
    }

    /// Whether pieces are offered to somebody.
    pub(super) fn is_offering(&self) -> bool {
        self.sparing.as_ref().is_some_and(|sparing| !sparing.is_idle())
    }

    /// Time passed.
    pub(super) fn tick(&mut self, now_ms: u64) {
        for (peer, holder) in &mut self.holders {
            if holder.outstanding.is_empty() {
                holder.rate.resume(now_ms);
            } else {
                holder.rate.settle(now_ms);
            }
            let spreads = !self.publishers.contains(peer);
            weigh(&mut self.availability, holder, spreads, |holder| holder.look(PATIENCE_MS, now_ms));
        }
        self.look_around(now_ms);
        self.outdated.retain(|_, until_ms| now_ms < *until_ms);
        self.free_stuck(now_ms);
        if let Some(sparing) = &mut self.sparing {
            sparing.tick(now_ms);
        }
    }

    /// A piece is complete and wrong: it is fetched again. Returns what to cancel.
    pub(super) fn rejected(&mut self, piece: u32, now_ms: u64) -> Vec<(PeerId, BlockRange)> {
        let progress = self.progress.remove(&piece);
        self.missing.remove(&piece);
        if !self.have.get(piece) {
            self.taken.clear(piece);
        }
        if let Some(index) = self.manifest.index(piece) {
            self.bytes.rejected += u64::from(self.manifest.length_of(index));
        }
        // News of blocks comes in another order than the store wrote them: what is not accounted for yet may
        // be somebody else's.
        let open = self.open_in(piece);
        for (peer, block) in &open {
            if let Some(holder) = self.holders.get_mut(peer) {
                holder.settle(*block);
            }
            self.duplicates.remove(&(peer.clone(), *block));
            self.outdated.insert((peer.clone(), piece), now_ms + NEWS_MS);
        }
        let known = progress.map(|progress| progress.contributors).unwrap_or_default();
        self.suspects.rejected(piece, known.into_iter().chain(open.iter().map(|(peer, _)| peer.clone())));
        open
    }

    /// Open requests for blocks of a piece.
    fn open_in(&self, piece: u32) -> Vec<(PeerId, BlockRange)> {
        let is_here = |block: &&BlockRange| self.manifest.piece_at(block.offset).is_some_and(|at| at.get() == piece);
        let of = |(peer, holder): (&PeerId, &Holder)| -> Vec<(PeerId, BlockRange)> {
            holder.outstanding.keys().filter(is_here).map(|block| (peer.clone(), *block)).collect()
        };
        self.holders.iter().flat_map(of).collect()
    }

    /// The request for `block` is over without its bytes; false where there was none.
    pub(super) fn refused(&mut self, peer: &PeerId, block: BlockRange, rest_until_ms: u64) -> bool {
        let Some(holder) = self.holders.get_mut(peer) else { return false };
        holder.rest_until_ms = holder.rest_until_ms.max(rest_until_ms);
        let asked = holder.refused(block);
        if asked {
            self.release(peer, block);
        }
        asked
    }

    /// Milliseconds, at least, for which a neighbour is not asked that refuses something: whoever is asked for
    /// whole pieces only does not get the next one at once.
    pub(super) fn least_rest_ms(&self, peer: &PeerId) -> u64 {
        if self.suspects.is_watched(peer) { REST_MS } else { 0 }
    }

    /// Takes late blocks from their neighbours; returns what to cancel.
    pub(super) fn take_late(&mut self, now_ms: u64) -> Vec<(PeerId, BlockRange)> {
        if !self.is_active() {
            return Vec::new();
        }
        let late: Vec<(PeerId, BlockRange)> = self
            .holders
            .iter()
            .flat_map(|(peer, holder)| holder.late(now_ms).into_iter().map(|block| (peer.clone(), block)))
            .collect();
        for (peer, block) in &late {
            self.refused(peer, *block, now_ms + REST_MS);
        }
        late
    }

    /// Stops asking; returns what to cancel.
    pub(super) fn stop(&mut self) -> Vec<(PeerId, BlockRange)> {
        let open: Vec<(PeerId, BlockRange)> = self
            .holders
            .iter()
            .flat_map(|(peer, holder)| holder.outstanding.keys().map(|block| (peer.clone(), *block)))
            .collect();
        for (peer, block) in &open {
            // Nobody is to blame that it does not come.
            if let Some(holder) = self.holders.get_mut(peer) {
                holder.settle(*block);
            }
            self.release(peer, *block);
        }
        open
    }

    /// Neighbours that hold `piece`, for a "busy, ask X".
    pub(super) fn holders_of(&self, piece: u32, most: usize) -> Vec<PeerId> {
        self.holders
            .iter()
            .filter(|(_, holder)| holder.have.get(piece))
            .take(most)
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// Bytes per second from all neighbours together.
    pub(super) fn rate_bytes_per_second(&self) -> u64 {
        self.holders.values().map(|holder| holder.rate.bytes_per_second()).sum()
    }
}

/// Changes a neighbour in a way that may change whether it supplies this node's site. One that does not
/// spread what it holds is not counted.
fn weigh(availability: &mut Availability, holder: &mut Holder, spreads: bool, change: impl FnOnce(&mut Holder)) {
    let before = holder.supplies_site();
    change(holder);
    if spreads && holder.supplies_site() != before {
        availability.remove(&holder.have, before);
        availability.add(&holder.have, !before);
    }
}
