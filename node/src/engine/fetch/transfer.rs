//! One object on its way: who has which pieces, which block is asked from whom next.
//!
//! Rarest piece first with random ties; a piece that was begun is finished first; every block is
//! asked for once, and twice only in the endgame, when nothing is left that nobody was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId};

use super::holder::Holder;
use super::progress::PieceProgress;

/// Neighbours that one block may be asked from at once, in the endgame.
const MAX_ASKED: u8 = 2;
/// Blocks that may be asked for twice at once. Bounds what an endgame can waste.
const MAX_DUPLICATES: usize = 8;
/// Candidates that one pick looks at. Bounds the work of a pick in an artifact of many pieces.
const MAX_CANDIDATES: u32 = 4_096;
/// Senders that are told apart in one artifact's account. Bounds what a neighbour that comes under new
/// names can fill.
const MAX_SOURCES: usize = 256;
/// Milliseconds for which a neighbour whose blocks are late is not asked.
const REST_MS: u64 = 2_000;

/// Where bytes came from and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Useful bytes from seeds.
    pub from_seed: u64,
    /// Useful bytes from peers.
    pub from_peers: u64,
    /// Bytes that were there already.
    pub duplicate: u64,
    /// Bytes of pieces that were wrong.
    pub rejected: u64,
    /// Bytes sent to others.
    pub sent: u64,
    /// Of those, bytes of pieces that left this node for the first time.
    pub sent_first: u64,
}

impl ByteCounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            from_seed: self.from_seed + other.from_seed,
            from_peers: self.from_peers + other.from_peers,
            duplicate: self.duplicate + other.duplicate,
            rejected: self.rejected + other.rejected,
            sent: self.sent + other.sent,
            sent_first: self.sent_first + other.sent_first,
        }
    }

    /// Nothing was moved.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a wrong piece says about its senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blame {
    /// One neighbour sent all of it.
    Proven(PeerId),
    /// Several did; the piece is fetched again from one.
    Suspects,
}

/// One object: held, wanted, or both in part.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) object: ObjectId,
    pub(super) manifest: Arc<Manifest>,
    /// Our number for the object in every session.
    pub(super) handle: u32,
    pub(super) have: Bitmap,
    pub(super) wanted: bool,
    pub(super) holders: BTreeMap<PeerId, Holder>,
    pub(super) bytes: ByteCounts,
    /// Useful bytes by who sent them.
    pub(super) sources: BTreeMap<PeerId, u64>,
    /// Bytes of each piece that have left this node.
    left: BTreeMap<u32, u32>,
    /// Why nothing is asked for, where the disk refused.
    pub(super) stopped: Option<String>,
    availability: Vec<u32>,
    progress: BTreeMap<u32, PieceProgress>,
    suspect_pieces: BTreeSet<u32>,
    duplicates: BTreeSet<(PeerId, BlockRange)>,
}

impl Transfer {
    pub(super) fn new(object: ObjectId, manifest: Arc<Manifest>, handle: u32, have: Bitmap) -> Self {
        let pieces = manifest.piece_count() as usize;
        Self {
            object,
            manifest,
            handle,
            have,
            wanted: false,
            holders: BTreeMap::new(),
            bytes: ByteCounts::default(),
            sources: BTreeMap::new(),
            left: BTreeMap::new(),
            stopped: None,
            availability: vec![0; pieces],
            progress: BTreeMap::new(),
            suspect_pieces: BTreeSet::new(),
            duplicates: BTreeSet::new(),
        }
    }

    /// Still fetching.
    pub(super) fn is_active(&self) -> bool {
        self.wanted && !self.have.is_full() && self.stopped.is_none()
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

    /// Takes over what a neighbour says it has; replaces what it said before.
    pub(super) fn announce(&mut self, peer: &PeerId, have: Bitmap, wants: bool) {
        if let Some(holder) = self.holders.get_mut(peer) {
            for piece in holder.have.iter() {
                self.availability[piece as usize] -= 1;
            }
            holder.have = have;
            holder.wants = wants;
        } else {
            self.holders.insert(peer.clone(), Holder::new(have, wants));
        }
        let holder = &self.holders[peer];
        for piece in holder.have.iter() {
            self.availability[piece as usize] += 1;
        }
    }

    /// A neighbour has one more piece.
    pub(super) fn heard_have(&mut self, peer: &PeerId, piece: u32) {
        if let Some(holder) = self.holders.get_mut(peer)
            && holder.have.set(piece)
        {
            self.availability[piece as usize] += 1;
            if holder.have.is_full() {
                holder.wants = false;
            }
        }
    }

    /// A neighbour is gone, or has nothing of this any more: what it was asked for is free again, and
    /// returned.
    pub(super) fn forget(&mut self, peer: &PeerId) -> Vec<BlockRange> {
        let Some(holder) = self.holders.remove(peer) else { return Vec::new() };
        for piece in holder.have.iter() {
            self.availability[piece as usize] -= 1;
        }
        let open: Vec<BlockRange> = holder.outstanding.keys().copied().collect();
        for block in &open {
            self.release(peer, *block);
        }
        for progress in self.progress.values_mut().filter(|p| p.sole_source.as_ref() == Some(peer)) {
            progress.sole_source = None;
        }
        open
    }

    fn release(&mut self, peer: &PeerId, block: BlockRange) {
        self.duplicates.remove(&(peer.clone(), block));
        if let Some(piece) = self.manifest.piece_at(block.offset)
            && let Some(progress) = self.progress.get_mut(&piece.get())
        {
            progress.mark_released(block);
            // A source that does not deliver must not be the only one: it would hold the piece for ever.
            if progress.sole_source.as_ref() == Some(peer) {
                progress.sole_source = None;
            }
        }
    }

    /// The next block to ask `peer` for, marked as asked; `None` where it has nothing for us or
    /// enough to do.
    pub(super) fn next_request(&mut self, peer: &PeerId, now_ms: u64, rng: &mut SmallRng) -> Option<BlockRange> {
        if !self.is_active() {
            return None;
        }
        let holder = self.holders.get(peer).filter(|holder| holder.has_room(now_ms))?;
        let leaves = holder.block_leaves();
        let block = self
            .pick_begun(peer, leaves)
            .or_else(|| self.pick_rarest(peer, rng).and_then(|piece| self.begin(piece, leaves)))
            .or_else(|| self.pick_endgame(peer))?;
        let piece = self.manifest.piece_at(block.offset)?;
        let suspect = self.suspect_pieces.contains(&piece.get());
        let progress = self.progress.get_mut(&piece.get())?;
        if suspect && progress.sole_source.is_none() {
            progress.sole_source = Some(peer.clone());
        }
        progress.mark_asked(block);
        self.holders.get_mut(peer)?.ask(block, now_ms);
        Some(block)
    }

    fn usable(&self, peer: &PeerId, piece: u32) -> bool {
        self.holders.get(peer).is_some_and(|holder| holder.have.get(piece))
            && self.progress.get(&piece).is_none_or(|p| p.sole_source.as_ref().is_none_or(|sole| sole == peer))
    }

    fn pick_begun(&self, peer: &PeerId, leaves: usize) -> Option<BlockRange> {
        self.progress
            .iter()
            .filter(|(piece, progress)| progress.has_missing() && self.usable(peer, **piece))
            .max_by_key(|(_, progress)| progress.stored())
            .and_then(|(_, progress)| progress.next_missing(leaves))
    }

    fn pick_rarest(&self, peer: &PeerId, rng: &mut SmallRng) -> Option<u32> {
        let holder = self.holders.get(peer)?;
        let count = self.manifest.piece_count();
        let start = rng.random_range(0..count);
        let mut best: Option<(u32, u32)> = None;
        let mut ties = 0_u32;
        let mut seen = 0;
        for step in 0..count {
            let piece = (start + step) % count;
            if self.have.get(piece) || !holder.have.get(piece) || self.progress.contains_key(&piece) {
                continue;
            }
            let availability = self.availability[piece as usize];
            match best {
                Some((least, _)) if availability > least => {}
                Some((least, _)) if availability == least => {
                    ties += 1;
                    if rng.random_range(0..=ties) == 0 {
                        best = Some((availability, piece));
                    }
                }
                _ => {
                    ties = 0;
                    best = Some((availability, piece));
                }
            }
            seen += 1;
            if seen == MAX_CANDIDATES {
                break;
            }
        }
        best.map(|(_, piece)| piece)
    }

    fn begin(&mut self, piece: u32, leaves: usize) -> Option<BlockRange> {
        let index = self.manifest.index(piece)?;
        let progress = PieceProgress::new(&self.manifest, index);
        let block = progress.next_missing(leaves);
        self.progress.insert(piece, progress);
        block
    }

    /// A block that a slower neighbour was asked for, oldest first.
    fn pick_endgame(&mut self, peer: &PeerId) -> Option<BlockRange> {
        if self.duplicates.len() >= MAX_DUPLICATES || self.progress.values().any(PieceProgress::has_missing) {
            return None;
        }
        let everything_begun = self.have.ones() as usize + self.progress.len() >= self.manifest.piece_count() as usize;
        if !everything_begun {
            return None;
        }
        let mine = self.holders.get(peer)?.rate.bytes_per_second();
        let block = self
            .holders
            .iter()
            .filter(|(other, holder)| *other != peer && holder.rate.bytes_per_second() <= mine)
            .flat_map(|(_, holder)| holder.outstanding.iter())
            .filter(|(block, _)| {
                let Some(piece) = self.manifest.piece_at(block.offset) else { return false };
                self.usable(peer, piece.get())
                    && self
                        .progress
                        .get(&piece.get())
                        .is_some_and(|p| p.asked(**block).is_some_and(|asked| asked < MAX_ASKED))
            })
            .min_by_key(|(_, asked_ms)| **asked_ms)
            .map(|(block, _)| *block)?;
        self.duplicates.insert((peer.clone(), block));
        Some(block)
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
        if let Some(piece) = self.manifest.piece_at(block.offset)
            && let Some(progress) = self.progress.get_mut(&piece.get())
        {
            progress.mark_stored(block, peer);
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

    /// A block left this node.
    pub(super) fn sent(&mut self, block: BlockRange) {
        self.bytes.sent += u64::from(block.length);
        if let Some(piece) = self.manifest.piece_at(block.offset) {
            let left = self.left.entry(piece.get()).or_default();
            let first = block.length.min(self.manifest.length_of(piece).saturating_sub(*left));
            *left += first;
            self.bytes.sent_first += u64::from(first);
        }
    }

    /// A block arrived that was there already.
    pub(super) fn duplicate(&mut self, peer: &PeerId, block: BlockRange, now_ms: u64) {
        self.arrived(peer, block, now_ms);
        self.bytes.duplicate += u64::from(block.length);
    }

    fn arrived(&mut self, peer: &PeerId, block: BlockRange, now_ms: u64) {
        self.duplicates.remove(&(peer.clone(), block));
        if let Some(holder) = self.holders.get_mut(peer) {
            holder.settle(block);
            holder.arrived(block, now_ms);
        }
    }

    /// A piece is complete and right.
    pub(super) fn verified(&mut self, piece: u32) {
        self.have.set(piece);
        self.progress.remove(&piece);
        self.suspect_pieces.remove(&piece);
    }

    /// A piece is complete and wrong: it is fetched again, and if its bytes came from one neighbour
    /// that neighbour lied.
    pub(super) fn rejected(&mut self, piece: u32) -> Blame {
        let progress = self.progress.remove(&piece);
        if let Some(index) = self.manifest.index(piece) {
            self.bytes.rejected += u64::from(self.manifest.length_of(index));
        }
        let contributors = progress.map(|p| p.contributors).unwrap_or_default();
        if let [only] = contributors.iter().collect::<Vec<_>>()[..] {
            return Blame::Proven(only.clone());
        }
        self.suspect_pieces.insert(piece);
        Blame::Suspects
    }

    /// The request for `block` is over without its bytes; false where there was none.
    pub(super) fn refused(&mut self, peer: &PeerId, block: BlockRange, rest_until_ms: u64) -> bool {
        let Some(holder) = self.holders.get_mut(peer) else { return false };
        holder.rest_until_ms = holder.rest_until_ms.max(rest_until_ms);
        let asked = holder.settle(block);
        if asked {
            self.release(peer, block);
        }
        asked
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
            self.refused(peer, *block, 0);
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
