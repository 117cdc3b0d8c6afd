//! Who sent which bytes: what proves a lie where several neighbours had a part in a wrong piece.
//!
//! A piece that turns out wrong says that somebody lied and not who. Its leaf digests are kept with the names of
//! their senders until the piece is right: whoever sent a leaf that is not the signed one is known then, whatever
//! else was in the piece and however much of it came from others. Nobody is named without that comparison, but a
//! sender that brought all of a wrong piece.
//!
//! Pure bookkeeping beside `pieces`, under the same lock: a leaf has one writer at a time and is written once until
//! its piece is settled, so the sender noted here is that of the bytes that were hashed. It must never guess: a
//! leaf of unknown origin accuses nobody.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::PieceIndex;
use updraft_protocol::peer::PeerId;

use super::pieces::Settled;

/// Wrong pieces that are kept, the oldest going first: 56 bytes for each of at most 256 leaves, under 1 MiB in all.
const MAX_WRONG: usize = 64;

/// One leaf on disk: its digest, and who sent it where that is known.
type Sent = Option<(Digest, Option<PeerId>)>;

/// The senders of one artifact's unfinished and wrong pieces.
#[derive(Debug, Default)]
pub(super) struct Senders {
    open: HashMap<PieceIndex, Vec<Sent>>,
    /// Oldest first. One piece may be wrong several times.
    wrong: VecDeque<(PieceIndex, Vec<Sent>)>,
}

impl Senders {
    /// Leaves of a piece were written; `digests` are theirs, in order.
    pub(super) fn wrote(
        &mut self,
        piece: PieceIndex,
        runs: &[Range<usize>],
        digests: &[Digest],
        from: Option<&PeerId>,
    ) {
        let leaves = self.open.entry(piece).or_default();
        for (at, digest) in runs.iter().cloned().flatten().zip(digests) {
            if leaves.len() <= at {
                leaves.resize(at + 1, None);
            }
            leaves[at] = Some((*digest, from.cloned()));
        }
    }

    /// What the writing led to. Returns who is proven to have sent wrong bytes for the piece.
    pub(super) fn settled(&mut self, piece: PieceIndex, settled: &Settled) -> Vec<PeerId> {
        match settled {
            Settled::Stored => Vec::new(),
            Settled::Verified => self.compare(piece),
            Settled::Rejected => self.accuse(piece),
        }
    }

    /// A piece is wrong: the sender of all of it, or else nobody yet.
    fn accuse(&mut self, piece: PieceIndex) -> Vec<PeerId> {
        let Some(leaves) = self.open.remove(&piece) else { return Vec::new() };
        let senders: BTreeSet<Option<&PeerId>> =
            leaves.iter().map(|leaf| leaf.as_ref().and_then(|(_, from)| from.as_ref())).collect();
        if let [only] = senders.iter().collect::<Vec<_>>()[..] {
            return only.cloned().into_iter().collect();
        }
        if self.wrong.len() >= MAX_WRONG {
            self.wrong.pop_front();
        }
        self.wrong.push_back((piece, leaves));
        Vec::new()
    }

    /// A piece is right: whoever sent other leaves for it before.
    fn compare(&mut self, piece: PieceIndex) -> Vec<PeerId> {
        let right = self.open.remove(&piece).unwrap_or_default();
        let mut liars = BTreeSet::new();
        self.wrong.retain(|(of, leaves)| {
            if *of == piece {
                let both = leaves.iter().zip(&right).filter_map(|(sent, right)| sent.as_ref().zip(right.as_ref()));
                let wrong = both.filter(|((sent, _), (right, _))| sent != right);
                liars.extend(wrong.filter_map(|((_, from), _)| from.clone()));
            }
            *of != piece
        });
        liars.into_iter().collect()
    }

    /// What is on disk is lost, and written anew. What was sent before stays sent.
    pub(super) fn fall_back(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one run of leaves is one range")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use updraft_protocol::manifest::{Manifest, ManifestBuilder};

    fn manifest() -> Manifest {
        let mut builder = ManifestBuilder::new();
        builder.update(&vec![7; 17 << 20]);
        builder.finish().expect("not empty")
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes(&[n; 8]).expect("in bounds")
    }

    fn right(leaf: usize) -> Digest {
        Digest::of(&leaf.to_be_bytes())
    }

    /// These leaves of a piece are written by these peers, right or wrong; who is accused then.
    fn writes(senders: &mut Senders, piece: PieceIndex, leaves: &[(u8, bool)]) -> Vec<PeerId> {
        for (at, (n, is_right)) in leaves.iter().enumerate() {
            let digest = if *is_right { right(at) } else { Digest::of(b"a lie") };
            senders.wrote(piece, &[at..at + 1], &[digest], Some(&peer(*n)));
        }
        let whole = if leaves.iter().all(|(_, is_right)| *is_right) { Settled::Verified } else { Settled::Rejected };
        senders.settled(piece, &whole)
    }

    #[test]
    fn who_spoilt_a_part_of_a_piece_is_known_once_the_piece_is_right() {
        let (manifest, mut senders) = (manifest(), Senders::default());
        let piece = manifest.index(3).expect("a piece");
        assert_eq!(writes(&mut senders, piece, &[(1, true), (2, false), (3, true)]), []);
        assert_eq!(writes(&mut senders, piece, &[(1, true), (1, true), (1, true)]), [peer(2)]);
        assert!(senders.wrong.is_empty() && senders.open.is_empty(), "nothing is kept of a piece that is right");
    }

    #[test]
    fn who_sent_all_of_a_wrong_piece_is_known_at_once() {
        let (manifest, mut senders) = (manifest(), Senders::default());
        let piece = manifest.index(3).expect("a piece");
        assert_eq!(writes(&mut senders, piece, &[(2, true), (2, false)]), [peer(2)]);
        assert!(senders.wrong.is_empty());
    }

    #[test]
    fn a_piece_that_was_wrong_several_times_tells_of_all_who_spoilt_it() {
        let (manifest, mut senders) = (manifest(), Senders::default());
        let piece = manifest.index(0).expect("a piece");
        assert_eq!(writes(&mut senders, piece, &[(1, true), (2, false)]), []);
        assert_eq!(writes(&mut senders, piece, &[(3, false), (1, true)]), []);
        assert_eq!(writes(&mut senders, piece, &[(4, true), (1, true)]), [peer(2), peer(3)]);
    }

    #[test]
    fn bytes_of_unknown_origin_accuse_nobody() {
        let (manifest, mut senders) = (manifest(), Senders::default());
        let piece = manifest.index(0).expect("a piece");
        senders.wrote(piece, &[0..1], &[Digest::of(b"a lie")], None);
        senders.wrote(piece, &[1..2], &[right(1)], Some(&peer(1)));
        assert_eq!(senders.settled(piece, &Settled::Rejected), []);
        assert_eq!(writes(&mut senders, piece, &[(1, true), (1, true)]), []);
    }

    #[test]
    fn what_was_lost_before_its_piece_was_whole_accuses_nobody() {
        let (manifest, mut senders) = (manifest(), Senders::default());
        let piece = manifest.index(0).expect("a piece");
        senders.wrote(piece, &[0..1], &[Digest::of(b"a lie")], Some(&peer(2)));
        senders.fall_back();
        assert_eq!(writes(&mut senders, piece, &[(1, true), (1, true)]), []);
    }

    #[test]
    fn no_more_than_a_few_wrong_pieces_are_kept() {
        let (manifest, mut senders) = (manifest(), Senders::default());
        for piece in manifest.indices().take(MAX_WRONG + 9) {
            assert_eq!(writes(&mut senders, piece, &[(1, true), (2, false)]), []);
        }
        assert_eq!(senders.wrong.len(), MAX_WRONG);
        let last = manifest.index(u32::try_from(MAX_WRONG).expect("small")).expect("a piece");
        assert_eq!(writes(&mut senders, last, &[(1, true), (1, true)]), [peer(2)], "the newest stay");
    }

    proptest! {
        #[test]
        fn whoever_sent_nothing_wrong_is_never_accused_and_who_did_is_in_the_end(
            attempts in prop::collection::vec(prop::collection::vec((0_u8..6, any::<bool>()), 4), 0..8)
        ) {
            let (manifest, mut senders) = (manifest(), Senders::default());
            let piece = manifest.index(0).expect("a piece");
            let (mut accused, mut liars) = (BTreeSet::new(), BTreeSet::new());
            for attempt in attempts.into_iter().chain([vec![(9, true); 4]]) {
                liars.extend(attempt.iter().filter(|(_, is_right)| !is_right).map(|(n, _)| peer(*n)));
                accused.extend(writes(&mut senders, piece, &attempt));
                prop_assert!(accused.is_subset(&liars));
            }
            // Attempts before one that was right are settled with it, so nobody is left.
            prop_assert_eq!(accused, liars);
        }
    }
}
