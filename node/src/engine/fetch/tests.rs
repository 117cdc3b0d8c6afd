//! Tests of the fetcher as a whole: what it asks its neighbours for, and takes back.

use std::collections::VecDeque;

use rand::SeedableRng as _;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::ManifestBuilder;
use updraft_protocol::transfer::ObjectKind;

use super::*;

mod lying;
mod near;
mod pushed;
mod spreading;

/// A node that began to want something at 0 asks for it by now.
const STARTED_MS: u64 = 100;

fn neighbour() -> PeerId {
    PeerId::from_bytes(Digest::of(b"neighbour").as_bytes()).expect("32 bytes")
}

fn me() -> PeerId {
    PeerId::from_bytes(Digest::of(b"me").as_bytes()).expect("32 bytes")
}

/// A manifest of so many pieces of 512 KiB, of bytes that nobody looks at.
fn coarse(pieces: u8) -> (ObjectId, Arc<Manifest>) {
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).expect("seven bits"));
        bytes
    };
    let digests: Vec<u8> = (0..pieces).flat_map(|piece| [piece; 32]).collect();
    let mut bytes = [vec![0x08, 1, 0x12, 32], vec![7; 32], vec![0x18], varint(u64::from(pieces) << 19)].concat();
    bytes.extend([vec![0x20], varint(1 << 19), vec![0x2a], varint(digests.len() as u64), digests].concat());
    let manifest = Manifest::decode(&bytes, &Digest::of(&bytes)).expect("well made");
    (ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() }, Arc::new(manifest))
}

fn requests(outcome: &Outcome) -> BTreeSet<BlockRange> {
    let asked = outcome.effects.iter().filter_map(|effect| match effect {
        SwarmEffect::Request { block, .. } => Some(*block),
        _ => None,
    });
    asked.collect()
}

fn withdrawn(outcome: &Outcome) -> BTreeSet<BlockRange> {
    let cancelled = outcome.effects.iter().filter_map(|effect| match effect {
        SwarmEffect::Cancel { block, .. } => Some(*block),
        _ => None,
    });
    cancelled.collect()
}

/// A fetcher that has asked one neighbour, which holds everything, for some blocks.
fn asking() -> (Fetch, BTreeSet<BlockRange>) {
    let mut builder = ManifestBuilder::new();
    builder.update(&vec![7; 4 << 20]);
    let manifest = Arc::new(builder.finish().expect("not empty"));
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
    let count = manifest.piece_count();
    let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest, Bitmap::empty(count)));
    let _ = fetch.want(object, 0);
    let _ = fetch.connected(&neighbour(), false);
    let have = Bitmap::full(count).as_bytes().to_vec();
    let announce = Control::Announce { handle: 5, object, wants: false, have };
    let asked = requests(&fetch.control(&neighbour(), announce, STARTED_MS));
    assert!(asked.len() > 1);
    (fetch, asked)
}

#[test]
fn a_request_that_is_refused_is_withdrawn_from_the_network() {
    let (mut fetch, asked) = asking();
    let block = *asked.first().expect("not empty");
    let busy = Control::Busy { handle: 5, block, retry_after_ms: 500, ask: Vec::new() };
    assert_eq!(withdrawn(&fetch.control(&neighbour(), busy.clone(), 0)), BTreeSet::from([block]));
    assert_eq!(withdrawn(&fetch.control(&neighbour(), busy, 0)), BTreeSet::new(), "it was withdrawn already");
}

#[test]
fn all_requests_are_withdrawn_from_a_neighbour_that_forgets_the_object() {
    let (mut fetch, asked) = asking();
    assert_eq!(withdrawn(&fetch.control(&neighbour(), Control::Forget { handle: 5 }, 0)), asked);
}

#[test]
fn a_suspect_that_does_not_deliver_does_not_hold_the_piece_for_ever() {
    let mut builder = ManifestBuilder::new();
    builder.update(&vec![7; (16 << 20) + 1]);
    let manifest = Arc::new(builder.finish().expect("not empty"));
    assert_eq!(manifest.leaves_per_piece(), 2);
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
    let count = manifest.piece_count();
    let mut have = Bitmap::full(count);
    have.clear(0);
    let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest, have));
    let _ = fetch.want(object, 0);
    let peers = [neighbour(), PeerId::from_bytes(Digest::of(b"other").as_bytes()).expect("32 bytes")];
    for peer in &peers {
        let _ = fetch.connected(peer, false);
        let have = Bitmap::full(count).as_bytes().to_vec();
        let _ = fetch.control(peer, Control::Announce { handle: 5, object, wants: false, have }, STARTED_MS);
    }
    // Each brings a half of the piece, and it is wrong: now one of them alone is asked for it.
    let leaf = |index: u64| BlockRange::new(index * 16_384, 16_384).expect("a leaf");
    let _ = fetch.block_arrived(&peers[0], object, leaf(0), BlockOutcome::Stored, STARTED_MS);
    let asked_of = |outcome: Outcome| -> BTreeSet<PeerId> {
        let asked = outcome.effects.into_iter().filter_map(|effect| match effect {
            SwarmEffect::Request { peer, .. } => Some(peer),
            _ => None,
        });
        asked.collect()
    };
    let mut sources =
        asked_of(fetch.block_arrived(&peers[1], object, leaf(1), BlockOutcome::PieceRejected(0), STARTED_MS));
    assert_eq!(sources.len(), 1);
    for second in 1..120 {
        sources.extend(asked_of(fetch.tick(second * 1_000)));
    }
    assert_eq!(sources, BTreeSet::from(peers));
}

/// Bytes that leave by `outcome` and by what follows from it over a network that takes everything.
fn bytes_leaving(fetch: &mut Fetch, outcome: Outcome, now_ms: u64) -> u64 {
    let mut effects = VecDeque::from(outcome.effects);
    let mut bytes = 0;
    while let Some(effect) = effects.pop_front() {
        if let SwarmEffect::SendBlock { peer, object, block, .. } = effect {
            bytes += u64::from(block.length);
            effects.extend(fetch.block_sent(&peer, object, block, now_ms).effects);
        }
    }
    bytes
}

/// A fetcher that holds 4 MiB, of which a neighbour has asked for everything at once; what left.
fn asked_for_all(upload_bytes_per_second: Option<u64>, exempt: bool) -> (Fetch, u64) {
    let mut builder = ManifestBuilder::new();
    builder.update(&vec![7; 4 << 20]);
    let manifest = Arc::new(builder.finish().expect("not empty"));
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
    let count = manifest.piece_count();
    let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest.clone(), Bitmap::full(count)));
    fetch.set_caps(upload_bytes_per_second, None);
    let _ = fetch.connected(&neighbour(), false);
    fetch.set_lan(&neighbour(), exempt);
    let have = Bitmap::empty(count).as_bytes().to_vec();
    let _ = fetch.control(&neighbour(), Control::Announce { handle: 5, object, wants: true, have }, 0);
    let mut left = 0;
    for index in 0..count {
        let piece = manifest.index(index).expect("it exists");
        let block = BlockRange::new(manifest.offset_of(piece), manifest.length_of(piece)).expect("a piece is a block");
        let outcome = fetch.control(&neighbour(), Control::Request { handle: 5, block }, 0);
        left += bytes_leaving(&mut fetch, outcome, 0);
    }
    (fetch, left)
}

#[test]
fn an_upload_cap_lets_the_rate_and_one_burst_out_and_all_in_the_end() {
    const CAP: u64 = 1 << 20;
    let (mut fetch, mut left) = asked_for_all(Some(CAP), false);
    for now_ms in (0..10_000).step_by(100) {
        let outcome = fetch.tick(now_ms);
        left += bytes_leaving(&mut fetch, outcome, now_ms);
        assert!(left <= CAP + CAP * now_ms / 1_000, "{left} bytes at {now_ms} ms");
    }
    assert_eq!(left, 4 << 20);
}

#[test]
fn a_pause_lets_nothing_out_but_to_neighbours_it_does_not_hold_for() {
    let (mut fetch, left) = asked_for_all(Some(0), false);
    let outcome = fetch.tick(60_000);
    assert_eq!(left + bytes_leaving(&mut fetch, outcome, 60_000), 0);
    fetch.set_caps(None, None);
    let outcome = fetch.tick(60_100);
    assert_eq!(bytes_leaving(&mut fetch, outcome, 60_100), 4 << 20);
    assert_eq!(asked_for_all(Some(0), true).1, 4 << 20);
}

#[test]
fn what_leaves_a_second_time_is_a_repeat() {
    let (mut fetch, left) = asked_for_all(None, false);
    assert_eq!(left, 4 << 20);
    let object = *fetch.transfers.keys().next().expect("one");
    let block = BlockRange::new(0, 16 * 1024).expect("a leaf");
    for _ in 0..3 {
        let outcome = fetch.control(&neighbour(), Control::Request { handle: 5, block }, 0);
        assert_eq!(bytes_leaving(&mut fetch, outcome, 0), 16 * 1024);
    }
    let totals = fetch.totals();
    assert_eq!((totals.sent, totals.sent_first), ((4 << 20) + 3 * 16 * 1024, 4 << 20));
    let _ = fetch.remove(&object);
    assert_eq!(fetch.totals(), totals, "counters never go back");
}
