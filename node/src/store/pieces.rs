//! Which bytes of an artifact are verified, which are on the way, and which a writer may write now.
//!
//! Pure bookkeeping, no I/O. The rule that it keeps: a leaf is written by at most one writer at a
//! time and never again once its digest is known, so the digests that a piece is verified by are
//! those of the bytes on disk. Without it, a late wrong copy of a block could overwrite a right one
//! between its hashing and the verification of its piece: a false "have".

use std::collections::HashMap;
use std::ops::Range;

use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::{Manifest, PieceIndex};

use updraft_protocol::bitmap::Bitmap;

/// Pieces of one artifact that may be unfinished at a time. Bounds leaf digests in memory: at most
/// 256 leaves of 33 bytes each for every one of them, 35 MB in all.
pub const MAX_OPEN_PIECES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    /// Not on disk.
    Absent,
    /// A writer is at it.
    Writing,
    /// On disk, with this digest, unless its piece turns out to be wrong.
    Written(Digest),
}

/// Some leaves of one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaves {
    /// The piece.
    pub(super) piece: PieceIndex,
    /// Leaves in the whole piece.
    pub(super) in_piece: usize,
    /// Which of them.
    pub(super) range: Range<usize>,
}

/// Whether a writer may write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Yes: these runs of leaves, and nobody else will until they are settled.
    Granted(Vec<Range<usize>>),
    /// Another writer is at some of these leaves: ask again when one has settled.
    Wait,
    /// All these leaves are there.
    Duplicate,
    /// Too many pieces are unfinished.
    Full,
}

/// What a settled write led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The piece still lacks leaves.
    Stored,
    /// The piece is whole and right.
    Verified,
    /// The piece is whole and wrong; its leaves are forgotten.
    Rejected,
}

/// The state of an artifact's pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    have: Bitmap,
    bytes_done: u64,
    open: HashMap<PieceIndex, Vec<Leaf>>,
    most_open: usize,
}

fn bytes_of(have: &Bitmap, manifest: &Manifest) -> u64 {
    have.iter().filter_map(|index| manifest.index(index)).map(|piece| u64::from(manifest.length_of(piece))).sum()
}

impl Pieces {
    /// Starts with the verified pieces `have`.
    pub(super) fn new(have: Bitmap, manifest: &Manifest) -> Self {
        let bytes_done = bytes_of(&have, manifest);
        Self { have, bytes_done, open: HashMap::new(), most_open: MAX_OPEN_PIECES }
    }

    pub(super) fn have(&self) -> &Bitmap {
        &self.have
    }

    /// Bytes of verified pieces.
    pub(super) fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    /// Asks to write `leaves`.
    pub(super) fn claim(&mut self, leaves: &Leaves) -> Claim {
        if self.have.get(leaves.piece.get()) {
            return Claim::Duplicate;
        }
        if !self.open.contains_key(&leaves.piece) && self.open.len() >= self.most_open {
            return Claim::Full;
        }
        let slots = self.open.entry(leaves.piece).or_insert_with(|| vec![Leaf::Absent; leaves.in_piece]);
        let wanted = &mut slots[leaves.range.clone()];
        if wanted.contains(&Leaf::Writing) {
            return Claim::Wait;
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (at, slot) in leaves.range.clone().zip(wanted) {
            if *slot != Leaf::Absent {
                continue;
            }
            *slot = Leaf::Writing;
            match runs.last_mut() {
                Some(run) if run.end == at => run.end = at + 1,
                _ => runs.push(at..at + 1),
            }
        }
        if runs.is_empty() { Claim::Duplicate } else { Claim::Granted(runs) }
    }

    /// Gives up claimed leaves that were not written.
    pub(super) fn release(&mut self, piece: PieceIndex, runs: &[Range<usize>]) {
        if let Some(slots) = self.open.get_mut(&piece) {
            for run in runs {
                slots[run.clone()].fill(Leaf::Absent);
            }
            if slots.iter().all(|slot| *slot == Leaf::Absent) {
                self.open.remove(&piece);
            }
        }
    }

    /// Claimed leaves are on disk; `digests` are theirs, in order.
    pub(super) fn settle(
        &mut self,
        manifest: &Manifest,
        piece: PieceIndex,
        runs: &[Range<usize>],
        digests: &[Digest],
    ) -> Settled {
        let Some(slots) = self.open.get_mut(&piece) else {
            return Settled::Stored;
        };
        for (at, digest) in runs.iter().cloned().flatten().zip(digests) {
            slots[at] = Leaf::Written(*digest);
        }
        let written = |slot: &Leaf| match slot {
            Leaf::Written(digest) => Some(*digest),
            Leaf::Absent | Leaf::Writing => None,
        };
        let Some(whole) = slots.iter().map(written).collect::<Option<Vec<Digest>>>() else {
            return Settled::Stored;
        };
        self.open.remove(&piece);
        if !manifest.verify_leaves(piece, &whole) {
            return Settled::Rejected;
        }
        if self.have.set(piece.get()) {
            self.bytes_done += u64::from(manifest.length_of(piece));
        }
        Settled::Verified
    }

    /// A verified piece turned out not to be on disk.
    pub(super) fn clear(&mut self, manifest: &Manifest, piece: PieceIndex) {
        if self.have.clear(piece.get()) {
            self.bytes_done -= u64::from(manifest.length_of(piece));
        }
    }

    /// Forgets the leaves of an unfinished piece; those being written stay claimed.
    pub(super) fn abandon(&mut self, piece: PieceIndex) {
        if let Some(slots) = self.open.get_mut(&piece) {
            forget_written(slots);
            if slots.iter().all(|slot| *slot == Leaf::Absent) {
                self.open.remove(&piece);
            }
        }
    }

    /// Forgets everything but `saved`: the disk lost what was written since.
    pub(super) fn fall_back(&mut self, manifest: &Manifest, saved: &Bitmap) {
        self.open.retain(|_, slots| {
            forget_written(slots);
            slots.contains(&Leaf::Writing)
        });
        self.have = saved.clone();
        self.bytes_done = bytes_of(saved, manifest);
    }
}

fn forget_written(slots: &mut [Leaf]) {
    for slot in slots {
        if matches!(slot, Leaf::Written(_)) {
            *slot = Leaf::Absent;
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one run of leaves is one range")]
mod tests {
    use super::*;
    use updraft_protocol::manifest::{ManifestBuilder, leaf_digest};

    /// 17 MiB: pieces of 32 KiB, two leaves each.
    fn manifest() -> (Manifest, Vec<u8>) {
        let bytes: Vec<u8> =
            (0..17u32 << 20).map(|at| u8::try_from((at / 1000 + at) % 251).expect("below 256")).collect();
        let mut builder = ManifestBuilder::new();
        builder.update(&bytes);
        (builder.finish().expect("not empty"), bytes)
    }

    fn leaves(piece: PieceIndex, range: Range<usize>) -> Leaves {
        Leaves { piece, in_piece: 2, range }
    }

    #[test]
    fn a_leaf_has_one_writer_and_is_written_once() {
        let (manifest, bytes) = manifest();
        let piece = manifest.index(3).expect("a piece");
        let digest = |leaf: usize| leaf_digest(&bytes[(3 * 2 + leaf) << 14..][..1 << 14]);
        let mut pieces = Pieces::new(Bitmap::empty(manifest.piece_count()), &manifest);

        assert_eq!(pieces.claim(&leaves(piece, 0..1)), Claim::Granted(vec![0..1]));
        assert_eq!(pieces.claim(&leaves(piece, 0..2)), Claim::Wait);
        assert_eq!(pieces.settle(&manifest, piece, &[0..1], &[digest(0)]), Settled::Stored);
        assert_eq!(pieces.claim(&leaves(piece, 0..1)), Claim::Duplicate);
        assert_eq!(pieces.claim(&leaves(piece, 0..2)), Claim::Granted(vec![1..2]));
        assert_eq!(pieces.settle(&manifest, piece, &[1..2], &[digest(1)]), Settled::Verified);
        assert_eq!(pieces.claim(&leaves(piece, 0..2)), Claim::Duplicate);
        assert_eq!(pieces.bytes_done(), 32 * 1024);
    }

    #[test]
    fn a_wrong_piece_is_forgotten_whole() {
        let (manifest, _) = manifest();
        let piece = manifest.index(0).expect("a piece");
        let mut pieces = Pieces::new(Bitmap::empty(manifest.piece_count()), &manifest);
        assert_eq!(pieces.claim(&leaves(piece, 0..2)), Claim::Granted(vec![0..2]));
        assert_eq!(pieces.settle(&manifest, piece, &[0..2], &[Digest::ZERO; 2]), Settled::Rejected);
        assert_eq!(pieces.claim(&leaves(piece, 0..2)), Claim::Granted(vec![0..2]));
        assert_eq!(pieces.have().ones(), 0);
    }

    #[test]
    fn a_failed_write_leaves_room_for_the_next() {
        let (manifest, _) = manifest();
        let piece = manifest.index(0).expect("a piece");
        let mut pieces = Pieces::new(Bitmap::empty(manifest.piece_count()), &manifest);
        assert_eq!(pieces.claim(&leaves(piece, 1..2)), Claim::Granted(vec![1..2]));
        pieces.release(piece, &[1..2]);
        assert!(pieces.open.is_empty());
        assert_eq!(pieces.claim(&leaves(piece, 0..2)), Claim::Granted(vec![0..2]));
    }

    #[test]
    fn falling_back_keeps_a_writer_alone_at_its_leaves() {
        let (manifest, _) = manifest();
        let (one, two) = (manifest.index(1).expect("a piece"), manifest.index(2).expect("a piece"));
        let mut saved = Bitmap::empty(manifest.piece_count());
        saved.set(9);
        let mut pieces = Pieces::new(Bitmap::full(manifest.piece_count()), &manifest);
        pieces.clear(&manifest, one);
        pieces.clear(&manifest, two);
        pieces.claim(&leaves(one, 0..1));
        pieces.settle(&manifest, one, &[0..1], &[Digest::ZERO]);
        pieces.claim(&leaves(two, 0..1));
        pieces.fall_back(&manifest, &saved);
        assert_eq!(pieces.have(), &saved);
        assert_eq!(pieces.bytes_done(), 32 * 1024);
        assert_eq!(pieces.claim(&leaves(one, 0..2)), Claim::Granted(vec![0..2]));
        assert_eq!(pieces.claim(&leaves(two, 0..1)), Claim::Wait);
    }

    #[test]
    fn unfinished_pieces_are_bounded() {
        let (manifest, _) = manifest();
        let mut pieces = Pieces::new(Bitmap::empty(manifest.piece_count()), &manifest);
        pieces.most_open = 3;
        let indices: Vec<PieceIndex> = manifest.indices().take(4).collect();
        for index in &indices[..3] {
            pieces.claim(&leaves(*index, 0..1));
            pieces.settle(&manifest, *index, &[0..1], &[Digest::ZERO]);
        }
        assert_eq!(pieces.claim(&leaves(indices[3], 0..1)), Claim::Full);
        pieces.abandon(indices[0]);
        assert_eq!(pieces.claim(&leaves(indices[3], 0..1)), Claim::Granted(vec![0..1]));
    }
}
