//! Pieces that turned out wrong, and those who had a part in them, until each piece is right.
//!
//! Who lied is for the store to find out: it compares what was sent with what is right, once it has that. Here it
//! is seen to that it has that soon, and that few pieces are spoilt meanwhile:
//! - a wrong piece is asked for before others are begun, of one neighbour alone, and of those who had no part in it
//!   first; whoever does not deliver lets somebody else have a try;
//! - a neighbour that had a part in several is asked for whole pieces only. The next lie is its own, and an
//!   honest one that had bad luck loses next to nothing.
//!
//! None of this is blame, and none of it may keep a piece from being asked for where somebody has it.

use std::collections::{BTreeMap, BTreeSet};

use updraft_protocol::peer::PeerId;

/// Wrong pieces from which on those who had a part in them are asked for whole ones only.
const WATCHED: usize = 2;
/// Senders that are remembered for one piece. Bounds what a neighbour that comes under new names can fill.
const MAX_SENDERS: usize = 64;

/// One wrong piece.
#[derive(Debug, Default)]
struct Suspicion {
    /// Who had a part in it.
    senders: BTreeSet<PeerId>,
    /// Who was to deliver all of it and did not.
    idle: BTreeSet<PeerId>,
}

/// How suitable a neighbour is to be asked for a wrong piece again, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Suitability {
    Uninvolved,
    Involved,
    /// It had its chance.
    Idle,
}

/// All wrong pieces of one object that are not right yet.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pieces: BTreeMap<u32, Suspicion>,
    /// In how many of them each neighbour had a part.
    parts: BTreeMap<PeerId, usize>,
}

impl Suspects {
    /// A piece is wrong, and these had a part in it.
    pub(super) fn rejected(&mut self, piece: u32, senders: impl IntoIterator<Item = PeerId>) {
        let suspicion = self.pieces.entry(piece).or_default();
        for sender in senders {
            if suspicion.senders.len() < MAX_SENDERS && suspicion.senders.insert(sender.clone()) {
                *self.parts.entry(sender).or_default() += 1;
            }
        }
    }

    /// A piece is right: it tells nothing of anybody any more.
    pub(super) fn verified(&mut self, piece: u32) {
        for sender in self.pieces.remove(&piece).map(|suspicion| suspicion.senders).unwrap_or_default() {
            if let Some(parts) = self.parts.get_mut(&sender) {
                *parts -= 1;
                if *parts == 0 {
                    self.parts.remove(&sender);
                }
            }
        }
    }

    /// A neighbour that alone was asked for a piece does not deliver it.
    pub(super) fn let_down(&mut self, piece: u32, peer: &PeerId) {
        if let Some(suspicion) = self.pieces.get_mut(&piece)
            && suspicion.idle.len() < MAX_SENDERS
        {
            suspicion.idle.insert(peer.clone());
        }
    }

    /// Whether a piece was wrong.
    pub(super) fn contains(&self, piece: u32) -> bool {
        self.pieces.contains_key(&piece)
    }

    /// The wrong pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = u32> {
        self.pieces.keys().copied()
    }

    /// Whether a neighbour is to be asked for whole pieces only.
    pub(super) fn is_watched(&self, peer: &PeerId) -> bool {
        self.parts.get(peer).is_some_and(|parts| *parts >= WATCHED)
    }

    /// How suitable a neighbour is to be asked for a piece.
    pub(super) fn suitability(&self, piece: u32, peer: &PeerId) -> Suitability {
        match self.pieces.get(&piece) {
            Some(suspicion) if suspicion.idle.contains(peer) => Suitability::Idle,
            Some(suspicion) if suspicion.senders.contains(peer) => Suitability::Involved,
            _ => Suitability::Uninvolved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes(&[n; 8]).expect("in bounds")
    }

    #[test]
    fn who_had_a_part_in_two_wrong_pieces_is_watched_until_one_of_them_is_right() {
        let mut suspects = Suspects::default();
        suspects.rejected(3, [peer(1), peer(2)]);
        suspects.rejected(3, [peer(1)]);
        assert!(!suspects.is_watched(&peer(1)), "it is one piece");
        suspects.rejected(4, [peer(1), peer(3)]);
        assert!(suspects.is_watched(&peer(1)) && !suspects.is_watched(&peer(2)));
        suspects.verified(3);
        assert!(!suspects.is_watched(&peer(1)));
        suspects.verified(4);
        assert!(suspects.parts.is_empty());
    }

    #[test]
    fn who_had_no_part_is_asked_first_and_who_did_not_deliver_last() {
        let mut suspects = Suspects::default();
        suspects.rejected(3, [peer(1), peer(2)]);
        suspects.let_down(3, &peer(1));
        let order = [peer(3), peer(2), peer(1)].map(|peer| suspects.suitability(3, &peer));
        assert!(order.is_sorted() && order[0] != order[1] && order[1] != order[2], "{order:?}");
        assert_eq!(suspects.suitability(4, &peer(1)), Suitability::Uninvolved);
    }

    #[test]
    fn what_is_remembered_of_a_piece_is_bounded() {
        let mut suspects = Suspects::default();
        for n in 0..=255 {
            suspects.rejected(3, [peer(n)]);
            suspects.let_down(3, &peer(n));
        }
        assert_eq!((suspects.pieces[&3].senders.len(), suspects.pieces[&3].idle.len()), (MAX_SENDERS, MAX_SENDERS));
        suspects.verified(3);
        assert!(suspects.parts.is_empty());
    }
}
