//! What left this node of one object, and what of it left twice.

use updraft_protocol::manifest::{Manifest, PieceIndex};

/// Bytes of payload that were sent.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// Bytes of each piece that left once; empty until something left.
    once: Vec<u32>,
    /// Pieces of which every byte left.
    whole: u32,
    first: u64,
    repeats: u64,
}

impl Departed {
    pub(super) fn add(&mut self, manifest: &Manifest, piece: PieceIndex, bytes: u32) {
        self.once.resize(manifest.piece_count() as usize, 0);
        let Some(once) = self.once.get_mut(piece.slot()) else { return };
        let rest = manifest.length_of(piece).saturating_sub(*once);
        let first = bytes.min(rest);
        *once += first;
        self.whole += u32::from(first > 0 && first == rest);
        self.first += u64::from(first);
        self.repeats += u64::from(bytes - first);
    }

    /// Whether anything of a piece left.
    pub(super) fn has_begun(&self, piece: u32) -> bool {
        self.once.get(piece as usize).is_some_and(|once| *once > 0)
    }

    /// Bytes of a piece that left once.
    pub(super) fn of(&self, piece: PieceIndex) -> u64 {
        self.once.get(piece.slot()).copied().map_or(0, u64::from)
    }

    /// Pieces that left whole.
    pub(super) fn whole(&self) -> u32 {
        self.whole
    }

    /// Bytes of the first copy.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Bytes beyond it.
    pub(super) fn repeats(&self) -> u64 {
        self.repeats
    }
}
