//! One piece on its way: which of its leaves were asked for, from whom, and which are stored.

use std::collections::BTreeSet;
use std::ops::Range;

use updraft_protocol::limits::LEAF_BYTES;
use updraft_protocol::manifest::{Manifest, PieceIndex};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::BlockRange;

/// State of one leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Missing,
    /// Asked for, from this many neighbours.
    Asked(u8),
    Stored,
}

/// A piece that is being fetched.
#[derive(Debug, Clone)]
pub(super) struct PieceProgress {
    offset: u64,
    length: u32,
    leaves: Vec<Leaf>,
    /// Everyone whose bytes are in the piece, as far as news of them came: the suspects if it turns out wrong.
    pub(super) contributors: BTreeSet<PeerId>,
    /// Only this neighbour may be asked: the piece was wrong once, or the neighbour had a part in others that were.
    pub(super) sole_source: Option<PeerId>,
}

impl PieceProgress {
    pub(super) fn new(manifest: &Manifest, piece: PieceIndex) -> Self {
        let length = manifest.length_of(piece);
        Self {
            offset: manifest.offset_of(piece),
            length,
            leaves: vec![Leaf::Missing; length.div_ceil(LEAF_BYTES) as usize],
            contributors: BTreeSet::new(),
            sole_source: None,
        }
    }

    fn span(&self, block: BlockRange) -> Range<usize> {
        let first = block.offset.saturating_sub(self.offset) / u64::from(LEAF_BYTES);
        let first = usize::try_from(first).unwrap_or(usize::MAX).min(self.leaves.len());
        let count = block.length.div_ceil(LEAF_BYTES) as usize;
        first..first.saturating_add(count).min(self.leaves.len())
    }

    fn block(&self, leaves: Range<usize>) -> BlockRange {
        let start = u64::try_from(leaves.start).expect("leaves fit u64") * u64::from(LEAF_BYTES);
        let end =
            (u64::try_from(leaves.end).expect("leaves fit u64") * u64::from(LEAF_BYTES)).min(u64::from(self.length));
        BlockRange {
            offset: self.offset + start,
            length: u32::try_from(end - start).expect("a block lies inside a piece"),
        }
    }

    fn run(&self, most: usize, fits: impl Fn(Leaf) -> bool) -> Option<BlockRange> {
        let start = self.leaves.iter().position(|leaf| fits(*leaf))?;
        let count = self.leaves[start..].iter().take(most).take_while(|leaf| fits(**leaf)).count();
        Some(self.block(start..start + count))
    }

    /// The next block that nobody was asked for, of at most `most` leaves.
    pub(super) fn next_missing(&self, most: usize) -> Option<BlockRange> {
        self.run(most.max(1), |leaf| leaf == Leaf::Missing)
    }

    /// Whether some leaf was not asked for yet.
    pub(super) fn has_missing(&self) -> bool {
        self.leaves.contains(&Leaf::Missing)
    }

    /// Whether nobody was asked for any of it, or everybody who was is out of it again.
    pub(super) fn is_untouched(&self) -> bool {
        self.contributors.is_empty() && self.leaves.iter().all(|leaf| *leaf == Leaf::Missing)
    }

    /// Leaves that are stored.
    pub(super) fn stored(&self) -> usize {
        self.leaves.iter().filter(|leaf| **leaf == Leaf::Stored).count()
    }

    /// How many neighbours were asked for the most asked leaf of `block`; `None` where all is stored.
    pub(super) fn asked(&self, block: BlockRange) -> Option<u8> {
        self.leaves[self.span(block)]
            .iter()
            .filter_map(|leaf| match leaf {
                Leaf::Missing => Some(0),
                Leaf::Asked(count) => Some(*count),
                Leaf::Stored => None,
            })
            .max()
    }

    pub(super) fn mark_asked(&mut self, block: BlockRange) {
        let span = self.span(block);
        for leaf in &mut self.leaves[span] {
            *leaf = match *leaf {
                Leaf::Missing => Leaf::Asked(1),
                Leaf::Asked(count) => Leaf::Asked(count.saturating_add(1)),
                Leaf::Stored => Leaf::Stored,
            };
        }
    }

    /// A request for `block` is over without its bytes.
    pub(super) fn mark_released(&mut self, block: BlockRange) {
        let span = self.span(block);
        for leaf in &mut self.leaves[span] {
            *leaf = match *leaf {
                Leaf::Asked(0 | 1) | Leaf::Missing => Leaf::Missing,
                Leaf::Asked(count) => Leaf::Asked(count - 1),
                Leaf::Stored => Leaf::Stored,
            };
        }
    }

    pub(super) fn mark_stored(&mut self, block: BlockRange, from: &PeerId) {
        let span = self.span(block);
        for leaf in &mut self.leaves[span] {
            *leaf = Leaf::Stored;
        }
        self.contributors.insert(from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_protocol::manifest::ManifestBuilder;

    #[test]
    fn a_released_block_is_offered_again_and_a_stored_one_is_not() {
        let mut builder = ManifestBuilder::new();
        builder.update(&vec![1; 40 << 20]);
        let manifest = builder.finish().expect("not empty");
        let piece = manifest.index(3).expect("exists");
        let peer = PeerId::from_bytes(&[1, 2, 3]).expect("in bounds");
        let mut progress = PieceProgress::new(&manifest, piece);
        let first = progress.next_missing(2).expect("nothing asked yet");
        assert_eq!((first.offset, first.length), (manifest.offset_of(piece), 2 * LEAF_BYTES));
        progress.mark_asked(first);
        let second = progress.next_missing(100).expect("the rest");
        assert_eq!(second.offset, first.end());
        progress.mark_asked(second);
        assert!(!progress.has_missing());
        progress.mark_released(first);
        assert_eq!(progress.next_missing(2), Some(first));
        progress.mark_asked(first);
        progress.mark_stored(first, &peer);
        progress.mark_released(first);
        assert!(!progress.has_missing());
        assert_eq!(progress.asked(first), None);
    }
}
