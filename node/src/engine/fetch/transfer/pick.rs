//! Which block is asked of a neighbour next, and from whom it is taken.
//!
//! A piece that was begun is finished first, then the rarest is begun, with random ties. Where nothing is
//! left for a fast neighbour it takes over what a slow one was asked for.

use rand::RngExt as _;
use rand::rngs::SmallRng;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::BlockRange;

use super::Transfer;
use crate::engine::fetch::holder::Holder;
use crate::engine::fetch::progress::PieceProgress;

/// Neighbours that one block may be asked from at once, in the endgame.
const MAX_ASKED: u8 = 2;
/// Blocks that may be asked for twice at once. Bounds what an endgame can waste.
const MAX_DUPLICATES: usize = 4;
/// Candidates that one pick looks at. Bounds the work of a pick in an artifact of many pieces.
const MAX_CANDIDATES: usize = 4_096;
/// A block is taken from a neighbour that would need this many times as long for it, and more by
/// [`STEAL_MS`]: what was asked for may have left already, and would come in vain.
const STEAL_FACTOR: u64 = 3;
const STEAL_MS: u64 = 4_000;
/// Milliseconds for which a neighbour that lost a block is not asked: it has enough to do.
const ROBBED_MS: u64 = 500;
/// The same once nothing is left to begin.
const END_FACTOR: u64 = 2;
const END_MS: u64 = 150;

/// What is asked of a neighbour next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine::fetch) struct Ask {
    pub(in crate::engine::fetch) block: BlockRange,
    /// Who was asked for it before and is not any more.
    pub(in crate::engine::fetch) instead_of: Option<PeerId>,
}

impl Transfer {
    /// The next block to ask `peer` for, marked as asked; `None` where it has nothing for us or
    /// enough to do.
    pub(in crate::engine::fetch) fn next_request(
        &mut self,
        peer: &PeerId,
        now_ms: u64,
        rng: &mut SmallRng,
    ) -> Option<Ask> {
        if !self.is_active() {
            return None;
        }
        let holder = self.holders.get(peer).filter(|holder| holder.have.ones() > 0)?;
        let standing = holder.standing;
        let is_besieged = holder.have.is_full() && now_ms < self.asks_from_ms;
        let has_room = holder.has_room(self.locality.is_careful(standing), now_ms);
        if is_besieged || !has_room || !self.locality.asks(standing) {
            return None;
        }
        let leaves = holder.block_leaves();
        let watched = self.suspects.is_watched(peer);
        let block = self
            .pick_begun(peer, leaves)
            .or_else(|| {
                self.pick_wrong(peer).or_else(|| self.pick_rarest(peer, rng)).and_then(|p| self.begin(p, leaves))
            })
            .or_else(|| if watched { self.pick_abandoned(peer, leaves, now_ms) } else { None });
        let (block, instead_of) = match block {
            Some(block) => (block, None),
            None => self.take_over(peer, now_ms)?,
        };
        if let Some(other) = &instead_of {
            if let Some(holder) = self.holders.get_mut(other) {
                holder.settle(block);
                holder.rest_until_ms = holder.rest_until_ms.max(now_ms + ROBBED_MS);
            }
            self.release(other, block);
        }
        let piece = self.manifest.piece_at(block.offset)?;
        let suspect = self.suspects.contains(piece.get());
        let progress = self.progress.get_mut(&piece.get())?;
        if (suspect || (watched && progress.is_untouched())) && progress.sole_source.is_none() {
            progress.sole_source = Some(peer.clone());
        }
        progress.mark_asked(block);
        if !progress.has_missing() {
            self.missing.remove(&piece.get());
        }
        self.holders.get_mut(peer)?.ask(block, now_ms);
        self.locality.asked(standing, self.availability.near(piece.get()), now_ms);
        Some(Ask { block, instead_of })
    }

    /// Whether a neighbour may be asked for a piece, as far as it is about the two of them.
    fn is_source(&self, peer: &PeerId, holder: &Holder, piece: u32) -> bool {
        holder.have.get(piece)
            && self.locality.asks(holder.standing)
            && self.locality.asks_for(holder.standing, self.availability.near(piece))
            && !self.outdated.contains_key(&(peer.clone(), piece))
    }

    fn usable(&self, peer: &PeerId, piece: u32) -> bool {
        let is_source = |peer, holder| self.is_source(peer, holder, piece);
        if !self.holders.get(peer).is_some_and(|holder| is_source(peer, holder)) {
            return false;
        }
        let progress = self.progress.get(&piece);
        if let Some(sole) = progress.and_then(|progress| progress.sole_source.as_ref()) {
            return sole == peer;
        }
        if self.suspects.contains(piece) {
            return self.is_best_for(peer, piece);
        }
        !self.suspects.is_watched(peer) || progress.is_none_or(PieceProgress::is_untouched)
    }

    /// Whether nobody is more suitable to be asked for a piece that was wrong.
    fn is_best_for(&self, peer: &PeerId, piece: u32) -> bool {
        let suitability = self.suspects.suitability(piece, peer);
        let is_better = |other: &PeerId| self.suspects.suitability(piece, other) < suitability;
        !self.holders.iter().any(|(other, holder)| is_better(other) && self.is_source(other, holder, piece))
    }

    /// A piece that was wrong and is to be begun again: what it tells of its senders is wanted soon.
    fn pick_wrong(&self, peer: &PeerId) -> Option<u32> {
        self.suspects.pieces().find(|piece| !self.taken.get(*piece) && self.usable(peer, *piece))
    }

    /// Something of a piece that others had a part in, for a neighbour that is asked for whole ones only: where
    /// nobody else can bring it now.
    fn pick_abandoned(&self, peer: &PeerId, leaves: usize, now_ms: u64) -> Option<BlockRange> {
        let holder = self.holders.get(peer)?;
        let is_abandoned = |piece: u32, progress: &PieceProgress| {
            let can_bring = |other: &PeerId, holder: &Holder| {
                !self.suspects.is_watched(other)
                    && now_ms >= holder.rest_until_ms
                    && self.is_source(other, holder, piece)
            };
            progress.sole_source.is_none() && !self.holders.iter().any(|(other, holder)| can_bring(other, holder))
        };
        self.missing
            .iter()
            .filter(|piece| self.is_source(peer, holder, **piece))
            .filter_map(|piece| Some((*piece, self.progress.get(piece)?)))
            .find(|(piece, progress)| is_abandoned(*piece, progress))
            .and_then(|(_, progress)| progress.next_missing(leaves))
    }

    fn pick_begun(&self, peer: &PeerId, leaves: usize) -> Option<BlockRange> {
        self.missing
            .iter()
            .filter(|piece| self.usable(peer, **piece))
            .filter_map(|piece| self.progress.get(piece))
            .max_by_key(|progress| progress.stored())
            .and_then(|progress| progress.next_missing(leaves))
    }

    fn pick_rarest(&self, peer: &PeerId, rng: &mut SmallRng) -> Option<u32> {
        let holder = self.holders.get(peer)?;
        let start = rng.random_range(0..self.manifest.piece_count());
        let mut best: Option<(u32, u32)> = None;
        let mut ties = 0_u32;
        let candidates = holder.have.without(&self.taken, start).filter(|piece| self.usable(peer, *piece));
        for piece in candidates.take(MAX_CANDIDATES) {
            let availability = self.availability.all(piece);
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
        }
        best.map(|(_, piece)| piece)
    }

    fn begin(&mut self, piece: u32, leaves: usize) -> Option<BlockRange> {
        let index = self.manifest.index(piece)?;
        let progress = PieceProgress::new(&self.manifest, index);
        let block = progress.next_missing(leaves);
        self.progress.insert(piece, progress);
        self.taken.set(piece);
        self.missing.insert(piece);
        block
    }

    /// A block that another neighbour was asked for and that `peer` can have here much sooner. The last
    /// in the other's queue is taken from it; the only one may be under way, and is asked for twice.
    fn take_over(&mut self, peer: &PeerId, now_ms: u64) -> Option<(BlockRange, Option<PeerId>)> {
        let mine = self.holders.get(peer)?;
        let is_end = self.taken.is_full();
        let (factor, margin_ms) = if is_end { (END_FACTOR, END_MS) } else { (STEAL_FACTOR, STEAL_MS) };
        let mut best: Option<(u64, BlockRange, PeerId, bool)> = None;
        for (other, holder) in self.holders.iter().filter(|(other, _)| *other != peer) {
            let is_only = holder.outstanding.len() == 1;
            if is_only && (!is_end || self.duplicates.len() >= MAX_DUPLICATES) {
                continue;
            }
            let theirs_ms = holder.eta_ms(0, now_ms);
            if best.as_ref().is_some_and(|(most_ms, ..)| *most_ms >= theirs_ms) {
                continue;
            }
            let fits = |block: &BlockRange| {
                mine.eta_ms(u64::from(block.length), now_ms) * factor + margin_ms < theirs_ms
                    && self.manifest.piece_at(block.offset).is_some_and(|piece| {
                        self.usable(peer, piece.get())
                            && self
                                .progress
                                .get(&piece.get())
                                .is_some_and(|progress| progress.asked(*block).is_some_and(|asked| asked < MAX_ASKED))
                    })
            };
            let last =
                holder.outstanding.iter().filter(|(block, _)| fits(block)).max_by_key(|(_, asked_ms)| **asked_ms);
            if let Some((block, _)) = last {
                best = Some((theirs_ms, *block, other.clone(), is_only));
            }
        }
        let (_, block, other, is_only) = best?;
        if !is_only {
            return Some((block, Some(other)));
        }
        self.duplicates.insert((peer.clone(), block));
        Some((block, None))
    }
}

#[cfg(test)]
mod tests;
