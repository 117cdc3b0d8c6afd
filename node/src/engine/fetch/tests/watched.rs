//! Neighbours that had a part in wrong pieces: what they are still asked for.

use std::collections::BTreeMap;

use super::*;

/// A fetcher and neighbours that hold everything. What arrives is taken in turn, whole pieces are judged by the test.
struct Bed {
    fetch: Fetch,
    object: ObjectId,
    manifest: Arc<Manifest>,
    open: VecDeque<(PeerId, BlockRange)>,
    /// Who brought how much of each piece that is not whole.
    parts: BTreeMap<u32, BTreeMap<PeerId, u32>>,
    complete: bool,
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[n; 8]).expect("in bounds")
}

impl Bed {
    fn new(pieces: u8, neighbours: u8) -> Self {
        let (object, manifest) = coarse(pieces);
        let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(3));
        assert!(fetch.add(object, manifest.clone(), Bitmap::empty(manifest.piece_count())));
        let _ = fetch.want(object, 0);
        let mut bed = Self { fetch, object, manifest, open: VecDeque::new(), parts: BTreeMap::new(), complete: false };
        for n in 1..=neighbours {
            bed.meets(n);
        }
        bed
    }

    fn meets(&mut self, n: u8) {
        let _ = self.fetch.connected(&peer(n), false);
        let have = Bitmap::full(self.manifest.piece_count()).as_bytes().to_vec();
        let announce = Control::Announce { handle: 5, object: self.object, wants: false, have };
        let outcome = self.fetch.control(&peer(n), announce, STARTED_MS);
        self.absorb(outcome);
    }

    fn absorb(&mut self, outcome: Outcome) {
        for effect in outcome.effects {
            match effect {
                SwarmEffect::Request { peer, block, .. } => self.open.push_back((peer, block)),
                SwarmEffect::Cancel { peer, block, .. } => self.open.retain(|open| *open != (peer.clone(), block)),
                _ => {}
            }
        }
        self.complete |= outcome.news.contains(&News::Complete(self.object));
    }

    fn piece(&self, block: BlockRange) -> u32 {
        self.manifest.piece_at(block.offset).expect("inside").get()
    }

    /// The next block arrives. Returns the piece that it makes whole and who brought it; `is_right` says what becomes of it.
    fn arrives(&mut self, is_right: bool) -> Option<(u32, BTreeSet<PeerId>)> {
        let (from, block) = self.open.pop_front().expect("something is asked for");
        let piece = self.piece(block);
        let parts = self.parts.entry(piece).or_default();
        *parts.entry(from.clone()).or_default() += block.length;
        let is_whole = parts.values().sum::<u32>() == 1 << 19;
        let outcome = match (is_whole, is_right) {
            (false, _) => BlockOutcome::Stored,
            (true, true) => BlockOutcome::PieceVerified(piece),
            (true, false) => BlockOutcome::PieceRejected(piece),
        };
        let senders =
            is_whole.then(|| self.parts.remove(&piece).unwrap_or_default().into_keys().collect::<BTreeSet<_>>());
        let outcome = self.fetch.block_arrived(&from, self.object, block, outcome, STARTED_MS + 1);
        self.absorb(outcome);
        senders.map(|senders| (piece, senders))
    }

    /// Takes what arrives until a piece is whole.
    fn next_piece(&mut self, is_right: bool) -> (u32, BTreeSet<PeerId>) {
        loop {
            if let Some(whole) = self.arrives(is_right) {
                return whole;
            }
        }
    }
}

#[test]
fn who_had_a_part_in_wrong_pieces_is_asked_for_whole_ones_until_they_are_right() {
    let mut bed = Bed::new(16, 2);
    let both = BTreeSet::from([peer(1), peer(2)]);
    let (first, senders) = bed.next_piece(false);
    assert_eq!(senders, both);
    // The piece is asked of one of them alone; others are still mixed.
    let mut wrong = vec![first];
    while wrong.len() < 2 {
        let (piece, senders) = bed.next_piece(false);
        if senders == both {
            wrong.push(piece);
        }
    }
    // What was begun before may be of both. What is begun from now on is of one.
    let begun: BTreeSet<u32> =
        bed.parts.keys().copied().chain(bed.open.iter().map(|(_, block)| bed.piece(*block))).collect();
    let mut alone = 0;
    while wrong.iter().any(|piece| bed.parts.contains_key(piece) || !bed.fetch.transfers[&bed.object].have.get(*piece))
    {
        let (piece, senders) = bed.next_piece(true);
        assert!(senders.len() == 1 || begun.contains(&piece), "piece {piece} is of several again");
        alone += u32::from(senders.len() == 1);
    }
    assert!(alone >= 2);
    while !bed.complete {
        bed.next_piece(true);
    }
}

#[test]
fn a_wrong_piece_is_asked_of_one_who_had_no_part_in_it() {
    let mut bed = Bed::new(16, 4);
    let (wrong, senders) = bed.next_piece(false);
    assert!(senders.len() < 4, "somebody had no part in it");
    let asked = loop {
        let asked = bed.open.iter().find(|(_, block)| bed.piece(*block) == wrong).map(|(of, _)| of.clone());
        match asked {
            Some(peer) => break peer,
            None => _ = bed.arrives(true),
        }
    };
    assert!(!senders.contains(&asked));
    assert!(bed.parts.len() + bed.open.len() > 1, "others are not waited for");
}

#[test]
fn neighbours_that_are_all_watched_still_bring_everything() {
    let mut bed = Bed::new(16, 3);
    // Everything is wrong once.
    let mut spoilt = BTreeSet::new();
    for _ in 0..400 {
        if bed.complete {
            return;
        }
        let Some(next) = bed.open.front().map(|(_, block)| bed.piece(*block)) else { break };
        let is_right = spoilt.contains(&next);
        if let Some((piece, _)) = bed.arrives(is_right) {
            spoilt.insert(piece);
        }
    }
    assert!(bed.complete, "{} requests are open", bed.open.len());
}
