//! What a seed says that it holds: of a release that was pushed to it while it ran, and of one that is
//! damaged.

use super::*;

/// What a fetcher told `peer` that it holds.
fn told(outcome: &Outcome, peer: &PeerId, count: u32) -> Bitmap {
    let mut told = Bitmap::empty(count);
    for effect in &outcome.effects {
        match effect {
            SwarmEffect::Control { peer: to, message: Control::Announce { have, .. } } if to == peer => {
                told = Bitmap::from_bytes(have, count).expect("as long as it must be");
            }
            SwarmEffect::Control { peer: to, message: Control::Have { pieces, .. } } if to == peer => {
                for piece in pieces {
                    told.set(*piece);
                }
            }
            _ => {}
        }
    }
    told
}

/// What a neighbour that wants the object hears.
fn newcomer(fetch: &mut Fetch, object: ObjectId, count: u32, now_ms: u64) -> Outcome {
    let _ = fetch.connected(&neighbour(), false);
    let have = Bitmap::empty(count).as_bytes().to_vec();
    fetch.control(&neighbour(), Control::Announce { handle: 5, object, wants: true, have }, now_ms)
}

fn publisher() -> PeerId {
    PeerId::from_bytes(Digest::of(b"publisher").as_bytes()).expect("32 bytes")
}

/// A node to which a release was pushed whole, by one that is still there.
fn pushed_to(spares: bool) -> (Fetch, ObjectId, u32) {
    let (object, manifest) = coarse(64);
    let count = manifest.piece_count();
    let mut fetch = Fetch::new(me(), spares, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest.clone(), Bitmap::empty(count)));
    let _ = fetch.want(object, 0);
    let publisher = publisher();
    let _ = fetch.connected(&publisher, false);
    let have = Bitmap::full(count).as_bytes().to_vec();
    let _ = fetch.control(&publisher, Control::Announce { handle: 1, object, wants: false, have }, STARTED_MS);
    let mut news = Vec::new();
    for piece in 0..count {
        let index = manifest.index(piece).expect("it exists");
        let block = BlockRange::new(manifest.offset_of(index), manifest.length_of(index)).expect("a piece is a block");
        let kept = BlockOutcome::PieceVerified(piece);
        news.extend(fetch.block_arrived(&publisher, object, block, kept, STARTED_MS).news);
    }
    assert_eq!(news, [News::Complete(object)]);
    (fetch, object, count)
}

#[test]
fn a_release_that_was_pushed_to_a_seed_is_offered_piece_by_piece() {
    let (mut fetch, object, count) = pushed_to(true);
    let _ = fetch.disconnected(&publisher(), STARTED_MS);
    let outcome = newcomer(&mut fetch, object, count, 1_000);
    let offered = told(&outcome, &neighbour(), count).ones();
    assert!((1..count / 4).contains(&offered), "{offered} of {count} pieces were offered");
}

#[test]
fn a_peer_says_at_once_that_it_holds_all_of_a_release() {
    let (mut fetch, object, count) = pushed_to(false);
    let _ = fetch.disconnected(&publisher(), STARTED_MS);
    let outcome = newcomer(&mut fetch, object, count, 1_000);
    assert_eq!(told(&outcome, &neighbour(), count), Bitmap::full(count));
}

#[test]
fn a_publisher_that_stays_does_not_hold_up_what_it_pushed() {
    let (mut fetch, object, count) = pushed_to(true);
    fetch.pushed_by(&object, &publisher());
    // It says again what it has, and comes again.
    let full = Bitmap::full(count).as_bytes().to_vec();
    let announce = Control::Announce { handle: 1, object, wants: false, have: full };
    let _ = fetch.control(&publisher(), announce.clone(), STARTED_MS + 1);
    let _ = fetch.disconnected(&publisher(), STARTED_MS + 2);
    let _ = fetch.connected(&publisher(), false);
    let _ = fetch.control(&publisher(), announce, STARTED_MS + 3);
    let outcome = newcomer(&mut fetch, object, count, 1_000);
    let offered = told(&outcome, &neighbour(), count).ones();
    assert!((1..count / 4).contains(&offered), "{offered} of {count} pieces were offered at once");
}

#[test]
fn a_seed_does_not_offer_a_piece_that_is_damaged() {
    let (object, manifest) = coarse(64);
    let count = manifest.piece_count();
    let mut fetch = Fetch::new(me(), true, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest.clone(), Bitmap::full(count)));
    let mut have = Bitmap::full(count);
    have.clear(3);
    fetch.replace_have(&object, have.clone());
    let outcome = newcomer(&mut fetch, object, count, 1_000);
    let mut heard = told(&outcome, &neighbour(), count);
    for now_ms in (1_020..5_000).step_by(20) {
        let offers = told(&fetch.tick(now_ms), &neighbour(), count);
        for piece in offers.iter() {
            heard.set(piece);
        }
    }
    assert_eq!(heard, have);
    // Who asks all the same hears that it is not there, and nothing is sent.
    let damaged = manifest.index(3).expect("it exists");
    let block = BlockRange::new(manifest.offset_of(damaged), 16_384).expect("a leaf");
    let outcome = fetch.control(&neighbour(), Control::Request { handle: 5, block }, 5_000);
    let [SwarmEffect::Control { message: Control::Busy { retry_after_ms: 0, .. }, .. }] = &outcome.effects[..] else {
        panic!("{:?}", outcome.effects);
    };
}
