//! A store as models of nodes have it: no bytes, only who sent which leaf of a piece and whether that was right.
//! It proves lies as the real one does: by all of a wrong piece, or by a part of it once the piece is right.

use std::collections::{BTreeMap, BTreeSet};

use updraft::engine::input::BlockOutcome;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::LEAF_BYTES;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::transfer::BlockRange;

/// What became of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<S> {
    /// What the store made of it.
    pub outcome: BlockOutcome,
    /// Who is proven by it to have sent wrong bytes.
    pub liars: BTreeSet<S>,
    /// Who spoilt the piece that it made whole.
    pub spoilers: BTreeSet<S>,
}

/// The unfinished pieces of one artifact at one node, sent by `S`.
#[derive(Debug, Clone)]
pub struct PieceStore<S> {
    leaves: BTreeMap<u32, BTreeMap<u64, (S, bool)>>,
    wrong: BTreeMap<u32, BTreeSet<S>>,
}

impl<S> Default for PieceStore<S> {
    fn default() -> Self {
        Self { leaves: BTreeMap::new(), wrong: BTreeMap::new() }
    }
}

impl<S: Ord + Clone> PieceStore<S> {
    /// Whether somebody other than `sender` has a part in an unfinished piece.
    pub fn has_part_of_others(&self, piece: u32, sender: &S) -> bool {
        self.leaves.get(&piece).is_some_and(|leaves| leaves.values().any(|(other, _)| other != sender))
    }

    /// Stores a block that `from` sent. `have` are the pieces that are verified.
    ///
    /// # Panics
    /// Where the block lies outside of the artifact.
    pub fn write(
        &mut self,
        manifest: &Manifest,
        have: &mut Bitmap,
        block: BlockRange,
        from: &S,
        is_right: bool,
    ) -> Kept<S> {
        let kept = |outcome| Kept { outcome, liars: BTreeSet::new(), spoilers: BTreeSet::new() };
        let piece = manifest.piece_at(block.offset).expect("a block of the artifact");
        let number = piece.get();
        if have.get(number) {
            return kept(BlockOutcome::Duplicate);
        }
        let leaves = self.leaves.entry(number).or_default();
        let step = u64::from(LEAF_BYTES);
        let before = leaves.len();
        for leaf in block.offset / step..block.end().div_ceil(step) {
            leaves.entry(leaf).or_insert_with(|| (from.clone(), is_right));
        }
        if leaves.len() == before {
            return kept(BlockOutcome::Duplicate);
        }
        if leaves.len() < manifest.length_of(piece).div_ceil(LEAF_BYTES) as usize {
            return kept(BlockOutcome::Stored);
        }
        let leaves = self.leaves.remove(&number).unwrap_or_default();
        let spoilers: BTreeSet<S> =
            leaves.values().filter(|(_, is_right)| !is_right).map(|(sender, _)| sender.clone()).collect();
        if spoilers.is_empty() {
            have.set(number);
            let liars = self.wrong.remove(&number).unwrap_or_default();
            return Kept { outcome: BlockOutcome::PieceVerified(number), liars, spoilers };
        }
        let senders: BTreeSet<&S> = leaves.values().map(|(sender, _)| sender).collect();
        let liars = if senders.len() == 1 { spoilers.clone() } else { BTreeSet::new() };
        if liars.is_empty() {
            self.wrong.entry(number).or_default().extend(spoilers.iter().cloned());
        }
        Kept { outcome: BlockOutcome::PieceRejected(number), liars, spoilers }
    }

    /// How many pieces are begun and not whole.
    pub fn unfinished(&self) -> usize {
        self.leaves.len()
    }

    /// The node died: what was not verified is gone.
    pub fn lose(&mut self) {
        *self = Self::default();
    }
}
