//! Tests of who is served next.

use updraft_protocol::digest::Digest;
use updraft_protocol::transfer::ObjectKind;

use super::*;

const LEAF: u32 = 16 * 1024;

fn peer(name: &str) -> PeerId {
    PeerId::from_bytes(Digest::of(name.as_bytes()).as_bytes()).expect("32 bytes")
}

fn upload(at: u64, leaves: u32) -> Upload {
    let object = ObjectId { kind: ObjectKind::Artifact, digest: Digest::of(b"object") };
    let block = BlockRange::new(at * u64::from(LEAF), leaves * LEAF).expect("in bounds");
    Upload { handle: 1, object, block }
}

/// So many blocks, each of so many leaves.
fn asks(uploads: &mut Uploads, peer: &PeerId, blocks: u64, leaves: u32) {
    for number in 0..blocks {
        assert_eq!(uploads.push(peer, upload(number * u64::from(leaves), leaves)), Queued::New);
    }
}

/// One block of a leaf.
fn asks_at(uploads: &mut Uploads, peer: &PeerId, number: u64) {
    assert_eq!(uploads.push(peer, upload(number, 1)), Queued::New);
}

/// Serves one block, which the network takes at once.
fn serve(uploads: &mut Uploads, now_ms: u64) -> Option<(PeerId, u64)> {
    let (peer, upload) = uploads.next(now_ms, |_, _| true)?;
    uploads.ended(&peer, upload.object, upload.block, true, now_ms);
    Some((peer, u64::from(upload.block.length)))
}

#[test]
fn neighbours_get_as_many_bytes_whatever_they_ask_for_at_once() {
    let mut uploads = Uploads::default();
    let peers = ["small", "larger", "a turn", "eight turns"].map(peer);
    for (peer, (blocks, leaves)) in peers.iter().zip([(512, 1), (128, 4), (64, 8), (8, 64)]) {
        asks(&mut uploads, peer, blocks, leaves);
    }
    let mut bytes = BTreeMap::new();
    for now_ms in 0.. {
        let Some((peer, length)) = serve(&mut uploads, now_ms) else { break };
        *bytes.entry(peer).or_insert(0) += length;
        let of = |peer: &PeerId| bytes.get(peer).copied().unwrap_or(0);
        let (least, most) = (peers.iter().map(of).min(), peers.iter().map(of).max());
        let (least, most) = (least.expect("four"), most.expect("four"));
        assert!(most - least <= TURN_BYTES + (1 << 20), "{least} and {most}");
    }
    assert_eq!(bytes.values().copied().collect::<Vec<u64>>(), [8 << 20; 4]);
    assert!(uploads.is_idle());
}

#[test]
fn who_comes_late_waits_for_a_turn_and_not_for_all_that_was_asked_before() {
    let mut uploads = Uploads::default();
    let [early, late] = ["early", "late"].map(peer);
    asks(&mut uploads, &early, 512, 1);
    for now_ms in 0..100 {
        assert_eq!(serve(&mut uploads, now_ms).map(|(peer, _)| peer), Some(early.clone()));
    }
    asks(&mut uploads, &late, 8, 1);
    let served: Vec<PeerId> = (100..116).filter_map(|now_ms| serve(&mut uploads, now_ms)).map(|(p, _)| p).collect();
    let of_late = served.iter().filter(|peer| **peer == late).count();
    assert_eq!(of_late, 8, "a turn is eight leaves");
    // The turns that it missed it does not make up for.
    assert!(served.contains(&early));
}

#[test]
fn who_asks_for_one_block_at_a_time_gets_no_more_than_who_asks_for_many() {
    let mut uploads = Uploads::default();
    let [patient, eager] = ["patient", "eager"].map(peer);
    asks(&mut uploads, &patient, 512, 1);
    let mut of_eager = 0;
    for number in 0..100 {
        if !uploads.has_any(&eager) {
            asks_at(&mut uploads, &eager, number);
        }
        let (peer, length) = serve(&mut uploads, number).expect("somebody asks");
        of_eager += if peer == eager { length } else { 0 };
    }
    assert!(of_eager <= 50 * u64::from(LEAF) + TURN_BYTES, "{of_eager} of {}", 100 * LEAF);
}

#[test]
fn a_neighbour_that_takes_nothing_holds_up_nobody() {
    let mut uploads = Uploads::default();
    let [stuck, other] = ["stuck", "other"].map(peer);
    asks(&mut uploads, &stuck, 512, 1);
    asks(&mut uploads, &other, 64, 1);
    let mut stuck_bytes = 0;
    let mut served = 0;
    for now_ms in 0..4 * STUCK_MS {
        while let Some((peer, upload)) = uploads.next(now_ms, |_, _| true) {
            if peer == other {
                served += 1;
                uploads.ended(&peer, upload.object, upload.block, true, now_ms);
            } else {
                stuck_bytes += u64::from(upload.block.length);
            }
        }
    }
    assert_eq!(served, 64);
    assert!(stuck_bytes <= MAX_SENDING_BYTES / 2, "{stuck_bytes} bytes are on their way to one that takes nothing");
}

#[test]
fn one_neighbour_gets_no_more_than_half_of_what_is_on_its_way() {
    let mut uploads = Uploads::default();
    let [one, other] = ["one", "other"].map(peer);
    asks(&mut uploads, &one, 64, 4);
    let alone = std::iter::from_fn(|| uploads.next(0, |_, _| true)).count();
    asks(&mut uploads, &other, 64, 4);
    let both = alone + std::iter::from_fn(|| uploads.next(0, |_, _| true)).count();
    assert_eq!(u64::try_from(alone).expect("few") * 4 * u64::from(LEAF), MIN_SENDING_BYTES);
    assert_eq!(both, alone, "and all together no more than that while nothing is known of the uplink");
}

#[test]
fn a_queue_is_bounded_and_the_same_block_is_in_it_once() {
    let mut uploads = Uploads::default();
    let greedy = peer("greedy");
    let most = u64::try_from(MAX_QUEUED_REQUESTS).expect("a few");
    asks(&mut uploads, &greedy, most, 1);
    assert_eq!(uploads.push(&greedy, upload(0, 1)), Queued::Already);
    assert_eq!(uploads.push(&greedy, upload(most, 1)), Queued::Full);
    // What is on its way counts as well.
    let _ = uploads.next(0, |_, _| true).expect("there is room");
    assert_eq!(uploads.push(&greedy, upload(most, 1)), Queued::Full);
    assert_eq!(uploads.push(&peer("other"), upload(most, 1)), Queued::New);
}

#[test]
fn what_was_withdrawn_does_not_leave() {
    let mut uploads = Uploads::default();
    let fickle = peer("fickle");
    asks(&mut uploads, &fickle, 3, 1);
    let (_, first) = uploads.next(0, |_, _| true).expect("there is room");
    assert_eq!(uploads.withdraw(&fickle, 1, first.block), Withdrawn::Sending);
    assert_eq!(uploads.withdraw(&fickle, 1, upload(1, 1).block), Withdrawn::Waiting);
    assert_eq!(uploads.withdraw(&fickle, 1, upload(1, 1).block), Withdrawn::Unknown);
    assert_eq!(uploads.next(0, |_, _| true).map(|(_, upload)| upload), Some(upload(2, 1)));
    assert!(uploads.next(0, |_, _| true).is_none());
}

#[test]
fn a_neighbour_that_a_limit_holds_back_does_not_hold_back_others() {
    let mut uploads = Uploads::default();
    let [held, free] = ["held", "free"].map(peer);
    asks(&mut uploads, &held, 4, 1);
    asks(&mut uploads, &free, 4, 1);
    let mut served = 0;
    while let Some((peer, _)) = uploads.next(0, |peer, _| *peer == free) {
        assert_eq!(peer, free);
        served += 1;
    }
    assert_eq!(served, 4);
}

#[test]
fn who_is_gone_leaves_nothing_behind() {
    let mut uploads = Uploads::default();
    let [gone, other] = ["gone", "other"].map(peer);
    for peer in [&gone, &other] {
        asks(&mut uploads, peer, 2, 1);
    }
    let _ = uploads.next(0, |_, _| true);
    uploads.forget(&gone);
    uploads.forget_object(&upload(0, 1).object);
    assert!(!uploads.has_any(&gone));
    assert!(uploads.next(0, |_, _| true).is_none());
}
