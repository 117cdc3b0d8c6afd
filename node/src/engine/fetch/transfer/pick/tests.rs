//! Tests of which block is asked of whom next.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use rand::SeedableRng as _;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::transfer::{ObjectId, ObjectKind};

use super::*;
use crate::engine::fetch::locality::Standing;

/// When the transfer under test asks whomever it likes.
const STARTED_MS: u64 = 1_000;

fn peer(name: &str) -> PeerId {
    PeerId::from_bytes(Digest::of(name.as_bytes()).as_bytes()).expect("32 bytes")
}

fn manifest(bytes: usize) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new();
    builder.update(&vec![7; bytes]);
    Arc::new(builder.finish().expect("not empty"))
}

/// 256 pieces of a leaf, whose digests take a while.
static LEAVES: LazyLock<Arc<Manifest>> = LazyLock::new(|| manifest(4 << 20));

/// A transfer of which nothing is here.
fn transfer(manifest: &Arc<Manifest>) -> Transfer {
    let manifest = Arc::clone(manifest);
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
    let have = Bitmap::empty(manifest.piece_count());
    let mut transfer = Transfer::new(&peer("me"), object, manifest, 0, have);
    transfer.want(0, &mut rng(0));
    transfer
}

fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

/// A neighbour that holds everything but these pieces comes.
fn comes(transfer: &mut Transfer, name: &str, lacks: &[u32]) -> PeerId {
    let mut have = Bitmap::full(transfer.manifest.piece_count());
    for piece in lacks {
        have.clear(*piece);
    }
    transfer.announce(&peer(name), Standing::default(), have, false, 0);
    peer(name)
}

/// It sends 1 MB/s, as far as anybody knows.
fn is_fast(transfer: &mut Transfer, peer: &PeerId) {
    let holder = transfer.holders.get_mut(peer).expect("it is there");
    for step in 0..50 {
        holder.rate.add(20_000, step * 20);
    }
}

/// Asks a neighbour for as much as it may be asked for.
fn ask_all(transfer: &mut Transfer, peer: &PeerId, now_ms: u64) -> Vec<Ask> {
    let mut rng = rng(1);
    std::iter::from_fn(|| transfer.next_request(peer, now_ms, &mut rng)).collect()
}

fn piece_of(transfer: &Transfer, ask: &Ask) -> u32 {
    transfer.manifest.piece_at(ask.block.offset).expect("it exists").get()
}

#[test]
fn the_rarest_pieces_are_asked_for_first() {
    for seed in 0..20 {
        let mut transfer = transfer(&LEAVES);
        let all = comes(&mut transfer, "all", &[]);
        comes(&mut transfer, "most", &[7, 100, 200]);
        comes(&mut transfer, "many", &[7, 100, 201]);
        let mut rng = rng(seed);
        let mut next = || {
            let ask = transfer.next_request(&all, STARTED_MS, &mut rng).expect("there is something");
            piece_of(&transfer, &ask)
        };
        assert_eq!(BTreeSet::from([next(), next()]), BTreeSet::from([7, 100]));
        assert_eq!(BTreeSet::from([next(), next()]), BTreeSet::from([200, 201]));
    }
}

#[test]
fn ties_are_broken_at_random_and_evenly() {
    let mut first = [0_u32; 4];
    for seed in 0..400 {
        let mut transfer = transfer(&LEAVES);
        let all = comes(&mut transfer, "all", &[]);
        comes(&mut transfer, "most", &[0, 1, 100, 255]);
        let ask = transfer.next_request(&all, STARTED_MS, &mut rng(seed)).expect("there is something");
        let piece = piece_of(&transfer, &ask);
        let at = [0, 1, 100, 255].iter().position(|rare| *rare == piece).expect("a rare one");
        first[at] += 1;
    }
    assert!(first.iter().all(|count| (60..140).contains(count)), "{first:?}");
}

#[test]
fn a_piece_that_was_begun_is_finished_first() {
    let mut transfer = transfer(&manifest((16 << 20) + 1));
    assert_eq!(transfer.manifest.leaves_per_piece(), 2);
    let [one, other] = ["one", "other"].map(|name| comes(&mut transfer, name, &[]));
    let mut rng = rng(3);
    // One that brings a leaf at a time asks for a half of a piece.
    let index = transfer.pick_rarest(&one, &mut rng).expect("there are many");
    let half = transfer.begin(index, 1).expect("it is missing");
    transfer.progress.get_mut(&index).expect("begun").mark_asked(half);
    let ask = transfer.next_request(&other, STARTED_MS, &mut rng).expect("the other half");
    assert_eq!(piece_of(&transfer, &ask), index);
    assert_eq!((ask.block.offset, ask.instead_of), (half.end(), None));
}

#[test]
fn no_block_is_asked_for_twice_while_there_is_something_to_begin() {
    let mut transfer = transfer(&LEAVES);
    let peers = ["one", "two", "three"].map(|name| comes(&mut transfer, name, &[]));
    let mut asked = BTreeSet::new();
    for (step, peer) in peers.iter().enumerate() {
        for ask in ask_all(&mut transfer, peer, STARTED_MS + 2 * step as u64) {
            assert_eq!(ask.instead_of, None);
            assert!(asked.insert(ask.block), "{:?} is asked for twice", ask.block);
        }
    }
    assert!(asked.len() > 20 && asked.len() < 256);
}

/// A transfer of 256 blocks of which all but these, the first, are here; each was asked of one neighbour that is slow.
fn nearly_done(slow: u32) -> (Transfer, Vec<PeerId>) {
    let mut transfer = transfer(&LEAVES);
    let mut have = Bitmap::full(256);
    for piece in 0..slow {
        have.clear(piece);
    }
    transfer.replace_have(have);
    let mut peers = Vec::new();
    for piece in 0..slow {
        let others: Vec<u32> = (0..256).filter(|other| *other != piece).collect();
        let peer = comes(&mut transfer, &format!("slow {piece}"), &others);
        assert_eq!(ask_all(&mut transfer, &peer, STARTED_MS).len(), 1);
        peers.push(peer);
    }
    (transfer, peers)
}

#[test]
fn an_endgame_asks_for_few_blocks_twice_and_takes_back_what_came_from_another() {
    let (mut transfer, slow) = nearly_done(8);
    let fast = comes(&mut transfer, "fast", &[]);
    is_fast(&mut transfer, &fast);
    let now_ms = STARTED_MS + 5_000;
    let twice = ask_all(&mut transfer, &fast, now_ms);
    assert_eq!(twice.len(), MAX_DUPLICATES);
    assert!(twice.iter().all(|ask| ask.instead_of.is_none()), "both are asked: it may be under way");
    // The first comes: the slow one need not send it, and one more may be asked for.
    let block = twice[0].block;
    let loser = slow[piece_of(&transfer, &twice[0]) as usize].clone();
    assert_eq!(transfer.stored(&fast, block, false, now_ms + 10), vec![loser.clone()]);
    assert!(transfer.holders[&loser].outstanding.is_empty());
    assert_eq!(ask_all(&mut transfer, &fast, now_ms + 10).len(), 1);
    // No third is asked for what two were asked for.
    let third = comes(&mut transfer, "third", &[]);
    is_fast(&mut transfer, &third);
    assert!(ask_all(&mut transfer, &third, now_ms + 20).is_empty());
}

#[test]
fn the_loser_of_an_endgame_may_win_it() {
    let (mut transfer, slow) = nearly_done(1);
    let fast = comes(&mut transfer, "fast", &[]);
    is_fast(&mut transfer, &fast);
    let twice = ask_all(&mut transfer, &fast, STARTED_MS + 5_000);
    assert_eq!(twice.len(), 1);
    assert_eq!(transfer.stored(&slow[0], twice[0].block, false, STARTED_MS + 5_010), vec![fast]);
}

#[test]
fn a_slow_neighbour_loses_the_last_of_its_queue_though_a_slower_one_has_a_single_block() {
    let mut transfer = transfer(&LEAVES);
    // The fast one holds what the slow ones were asked for, and one piece that nobody may begin for it remains.
    let single = comes(&mut transfer, "single", &(1..256).collect::<Vec<_>>());
    assert_eq!(ask_all(&mut transfer, &single, STARTED_MS).len(), 1);
    let queue = comes(&mut transfer, "queue", &(5..256).collect::<Vec<_>>());
    assert_eq!(ask_all(&mut transfer, &queue, STARTED_MS + 100).len(), 4);
    let fast = comes(&mut transfer, "fast", &(5..256).collect::<Vec<_>>());
    is_fast(&mut transfer, &fast);
    let ask = transfer.next_request(&fast, STARTED_MS + 60_000, &mut rng(1)).expect("there is something to take");
    assert_eq!(ask.instead_of, Some(queue));
}
