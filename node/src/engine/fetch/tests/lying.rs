//! A piece that turns out wrong: what becomes of requests for it.

use super::*;

/// A fetcher that lacks one piece of eight blocks, and two neighbours that were each asked for some.
struct Wrong {
    fetch: Fetch,
    object: ObjectId,
    peers: [PeerId; 2],
    asked: [BTreeSet<BlockRange>; 2],
}

fn asked_of(outcome: &Outcome, peer: &PeerId) -> BTreeSet<BlockRange> {
    let asked = outcome.effects.iter().filter_map(|effect| match effect {
        SwarmEffect::Request { peer: of, block, .. } if of == peer => Some(*block),
        _ => None,
    });
    asked.collect()
}

fn cancelled(outcome: &Outcome, peer: &PeerId) -> BTreeSet<BlockRange> {
    let cancelled = outcome.effects.iter().filter_map(|effect| match effect {
        SwarmEffect::Cancel { peer: of, block, .. } if of == peer => Some(*block),
        _ => None,
    });
    cancelled.collect()
}

impl Wrong {
    fn new() -> Self {
        let (object, manifest) = coarse(4);
        let count = manifest.piece_count();
        let mut have = Bitmap::full(count);
        have.clear(0);
        let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(1));
        assert!(fetch.add(object, manifest, have));
        let _ = fetch.want(object, 0);
        let peers = [neighbour(), PeerId::from_bytes(Digest::of(b"other").as_bytes()).expect("32 bytes")];
        let asked = peers.each_ref().map(|peer| {
            let _ = fetch.connected(peer, false);
            let have = Bitmap::full(count).as_bytes().to_vec();
            let announce = Control::Announce { handle: 5, object, wants: false, have };
            asked_of(&fetch.control(peer, announce, STARTED_MS), peer)
        });
        assert!(asked.iter().all(|asked| asked.len() == 4), "{asked:?}");
        Self { fetch, object, peers, asked }
    }

    fn arrives(&mut self, peer: usize, block: BlockRange, outcome: BlockOutcome) -> Outcome {
        self.fetch.block_arrived(&self.peers[peer], self.object, block, outcome, STARTED_MS + 1)
    }

    /// The last block of the first neighbour makes the piece whole, and wrong. News of it comes before that of
    /// the last one of the second.
    fn rejected(&mut self) -> Outcome {
        let [first, second] = self.asked.clone();
        for block in first.iter().skip(1) {
            let _ = self.arrives(0, *block, BlockOutcome::Stored);
        }
        for block in second.iter().skip(1) {
            let _ = self.arrives(1, *block, BlockOutcome::Stored);
        }
        let last = *first.first().expect("four");
        self.arrives(0, last, BlockOutcome::PieceRejected(0))
    }

    /// The piece again, as the first neighbour is asked for it. All of it is stored but the last block.
    fn again(&mut self, mut open: BTreeSet<BlockRange>) -> (BTreeSet<BlockRange>, BlockRange) {
        let mut all = open.clone();
        loop {
            let block = open.pop_first().expect("something is asked for while the piece is not whole");
            if all.iter().map(|block| block.length).sum::<u32>() == 512 * 1024 && open.is_empty() {
                return (all, block);
            }
            let more = self.arrives(0, block, BlockOutcome::Stored);
            open.extend(asked_of(&more, &self.peers[0]));
            all.extend(open.iter().copied());
        }
    }
}

#[test]
fn open_requests_in_a_wrong_piece_are_cancelled() {
    let mut wrong = Wrong::new();
    let outcome = wrong.rejected();
    let open = BTreeSet::from([*wrong.asked[1].first().expect("four")]);
    assert_eq!(cancelled(&outcome, &wrong.peers[1]), open);
    assert_eq!(outcome.news, [], "it may have been either of them");
}

#[test]
fn late_news_of_a_wrong_piece_count_for_nobody() {
    let mut wrong = Wrong::new();
    let outcome = wrong.rejected();
    let late = *wrong.asked[1].first().expect("four");
    let asked = asked_of(&outcome, &wrong.peers[0]);
    let after = wrong.arrives(1, late, BlockOutcome::Stored);
    assert_eq!(requests(&after), BTreeSet::new(), "who brought a part of it is not asked while news may come");
    let (all, _) = wrong.again(asked);
    let span = |block: &BlockRange| block.offset..block.end();
    let bytes: u64 = all.iter().map(|block| span(block).end - span(block).start).sum();
    assert_eq!(bytes, 512 * 1024, "all of the piece is asked for again, and once");
    assert!(all.iter().any(|block| span(block).contains(&late.offset)), "what came late is gone, too");
}
