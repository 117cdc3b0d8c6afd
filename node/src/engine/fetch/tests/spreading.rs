//! What neighbours hear of pieces: of those that came, and of others that hold what is not served now.

use super::*;

fn peer(name: &str) -> PeerId {
    PeerId::from_bytes(Digest::of(name.as_bytes()).as_bytes()).expect("32 bytes")
}

/// Pieces that a neighbour is told of, by message.
fn told(outcome: &Outcome, to: &PeerId) -> Vec<Vec<u32>> {
    let told = outcome.effects.iter().filter_map(|effect| match effect {
        SwarmEffect::Control { peer, message: Control::Have { pieces, .. } } if peer == to => Some(pieces.clone()),
        _ => None,
    });
    told.collect()
}

#[test]
fn pieces_that_come_fast_are_told_of_together_and_soon() {
    let (mut fetch, asked) = asking();
    let (object, listener) = (*fetch.transfers.keys().next().expect("one"), peer("listener"));
    let count = fetch.transfers[&object].manifest.piece_count();
    let _ = fetch.connected(&listener, false);
    let have = Bitmap::empty(count).as_bytes().to_vec();
    let announce = Control::Announce { handle: 3, object, wants: true, have };
    let _ = fetch.control(&listener, announce, STARTED_MS);
    let mut messages = Vec::new();
    let start_ms = STARTED_MS + 1_000;
    for (block, now_ms) in asked.iter().take(10).zip(start_ms..) {
        let piece = fetch.transfers[&object].manifest.piece_at(block.offset).expect("it exists").get();
        let news = BlockOutcome::PieceVerified(piece);
        messages.extend(told(&fetch.block_arrived(&neighbour(), object, *block, news, now_ms), &listener));
    }
    assert!(messages.len() <= 2, "ten pieces in ten milliseconds: {messages:?}");
    messages.extend(told(&fetch.tick(start_ms + 300), &listener));
    let pieces: BTreeSet<u32> = messages.iter().flatten().copied().collect();
    assert_eq!((pieces.len(), messages.iter().flatten().count()), (10, 10), "each once");
}

/// A seed, and two neighbours that want what it holds. The first got a piece of it.
fn seed() -> (Fetch, ObjectId, Arc<Manifest>, u32) {
    let (object, manifest) = coarse(64);
    let count = manifest.piece_count();
    let mut fetch = Fetch::new(me(), true, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest.clone(), Bitmap::full(count)));
    let mut offered = Vec::new();
    for name in ["first", "second"] {
        let _ = fetch.connected(&peer(name), false);
        let have = Bitmap::empty(count).as_bytes().to_vec();
        let announce = Control::Announce { handle: 5, object, wants: true, have };
        offered.extend(told(&fetch.control(&peer(name), announce, 0), &peer("first")).concat());
    }
    let piece = *offered.first().expect("something is offered");
    let _ = fetch.control(&peer("first"), Control::Have { handle: 5, pieces: vec![piece] }, 10);
    (fetch, object, manifest, piece)
}

#[test]
fn a_neighbour_that_asks_for_what_another_holds_hears_of_it_and_when_to_ask_again() {
    let (mut fetch, _, manifest, piece) = seed();
    let index = manifest.index(piece).expect("it exists");
    let block = BlockRange::new(manifest.offset_of(index), 16_384).expect("a leaf");
    let outcome = fetch.control(&peer("second"), Control::Request { handle: 5, block }, 20);
    let answers: Vec<&Control> = outcome
        .effects
        .iter()
        .filter_map(|effect| match effect {
            SwarmEffect::Control { peer: to, message } if *to == peer("second") => Some(message),
            _ => None,
        })
        .collect();
    let handle = fetch.transfers.values().next().expect("one").handle;
    let busy = Control::Busy { handle, block, retry_after_ms: 1_000, ask: vec![peer("first")] };
    assert_eq!(answers, vec![&busy]);
    // The deadline: one that got nothing meanwhile is served.
    let outcome = fetch.control(&peer("second"), Control::Request { handle: 5, block }, 2_000);
    assert!(outcome.effects.iter().any(|effect| matches!(effect, SwarmEffect::SendBlock { .. })), "{outcome:?}");
}

#[test]
fn what_a_busy_neighbour_names_is_news_and_it_is_left_alone_for_as_long_as_it_says() {
    let (mut fetch, asked) = asking();
    let other = peer("other");
    for block in &asked {
        let ask = vec![other.clone()];
        let busy = Control::Busy { handle: 5, block: *block, retry_after_ms: 1_000, ask };
        let outcome = fetch.control(&neighbour(), busy, 200);
        assert!(outcome.news.contains(&News::Holders { peers: vec![other.clone()] }));
        assert!(requests(&outcome).is_empty());
    }
    assert!(requests(&fetch.tick(1_100)).is_empty());
    assert!(!requests(&fetch.tick(1_300)).is_empty());
}

#[test]
fn news_of_bytes_that_are_gone_does_not_keep_a_piece_for_ever() {
    let (object, manifest) = coarse(4);
    let count = manifest.piece_count();
    let mut have = Bitmap::full(count);
    have.clear(0);
    let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest, have));
    let _ = fetch.want(object, 0);
    let _ = fetch.connected(&neighbour(), false);
    let have = Bitmap::full(count).as_bytes().to_vec();
    let announce = Control::Announce { handle: 5, object, wants: false, have };
    let mut asked = requests(&fetch.control(&neighbour(), announce, STARTED_MS));
    // The store has none of what the first of these says: it was of an attempt that was wrong.
    let mut now_ms = STARTED_MS;
    while let Some(block) = asked.pop_first() {
        now_ms += 1;
        asked.extend(requests(&fetch.block_arrived(&neighbour(), object, block, BlockOutcome::Stored, now_ms)));
    }
    let mut again = BTreeSet::new();
    for step in 1..=8 {
        again.extend(requests(&fetch.tick(now_ms + step * 1_000)));
    }
    assert!(again.is_empty(), "the news of the last block may still come");
    for step in 9..=13 {
        again.extend(requests(&fetch.tick(now_ms + step * 1_000)));
    }
    assert!(!again.is_empty(), "nobody is asked for what the store lacks");
}
