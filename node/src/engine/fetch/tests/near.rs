//! Neighbours at this node's site that are no help.

use std::sync::LazyLock;

use super::*;

/// 256 pieces of a leaf, whose digests take a while.
static MANIFEST: LazyLock<Arc<Manifest>> = LazyLock::new(|| {
    let mut builder = ManifestBuilder::new();
    builder.update(&vec![7; 4 << 20]);
    Arc::new(builder.finish().expect("not empty"))
});

/// What a near neighbour that claims everything does with requests.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Near {
    Silent,
    Busy,
    /// It answers one request in each so many milliseconds.
    Drips(u64),
}

/// Milliseconds until a node has 4 MiB that a far neighbour sends at 5 MB/s, beside one that is near.
fn took_ms(near: Near, far_is_seed: bool) -> u64 {
    let manifest = Arc::clone(&MANIFEST);
    assert_eq!(manifest.leaves_per_piece(), 1);
    let object = ObjectId { kind: ObjectKind::Artifact, digest: *manifest.artifact() };
    let count = manifest.piece_count();
    let mut fetch = Fetch::new(me(), false, SmallRng::seed_from_u64(1));
    assert!(fetch.add(object, manifest.clone(), Bitmap::empty(count)));
    let mut effects = VecDeque::from(fetch.want(object, 0).effects);
    let peers = ["near", "far"].map(|name| PeerId::from_bytes(Digest::of(name.as_bytes()).as_bytes()).expect("id"));
    for (peer, is_near) in peers.iter().zip([true, false]) {
        effects.extend(fetch.connected(peer, far_is_seed && !is_near).effects);
        fetch.set_near(peer, is_near);
        let have = Bitmap::full(count).as_bytes().to_vec();
        effects.extend(fetch.control(peer, Control::Announce { handle: 5, object, wants: false, have }, 0).effects);
    }
    let mut open: [VecDeque<BlockRange>; 2] = Default::default();
    let mut dripped_ms = 0;
    for now_ms in (0..120_000).step_by(20) {
        effects.extend(fetch.tick(now_ms).effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                SwarmEffect::Request { peer, block, .. } if peer == peers[0] && near == Near::Busy => {
                    let busy = Control::Busy { handle: 5, block, retry_after_ms: 500, ask: Vec::new() };
                    effects.extend(fetch.control(&peer, busy, now_ms).effects);
                }
                SwarmEffect::Request { peer, block, .. } => {
                    open[usize::from(peer == peers[1])].push_back(block);
                }
                SwarmEffect::Cancel { peer, block, .. } => {
                    open[usize::from(peer == peers[1])].retain(|other| *other != block);
                }
                _ => {}
            }
        }
        let drips = matches!(near, Near::Drips(pause_ms) if now_ms - dripped_ms >= pause_ms);
        for (side, most) in [usize::from(drips), 6].into_iter().enumerate() {
            for _ in 0..most {
                let Some(block) = open[side].pop_front() else { break };
                dripped_ms = if side == 0 { now_ms } else { dripped_ms };
                let piece = manifest.piece_at(block.offset).expect("it exists").get();
                let is_here = fetch.transfers[&object].have.get(piece);
                let done = if is_here { BlockOutcome::Duplicate } else { BlockOutcome::PieceVerified(piece) };
                effects.extend(fetch.block_arrived(&peers[side], object, block, done, now_ms).effects);
            }
        }
        if fetch.is_complete(&object) {
            return now_ms;
        }
    }
    panic!("it never ends: {near:?}");
}

#[test]
fn one_that_claims_everything_and_brings_nothing_costs_a_pause() {
    for near in [Near::Silent, Near::Busy] {
        for far_is_seed in [false, true] {
            let took_ms = took_ms(near, far_is_seed);
            assert!(took_ms < 6_000, "{near:?}, seed {far_is_seed}: {took_ms} ms");
        }
    }
}

#[test]
fn one_that_claims_everything_and_drips_costs_a_pause() {
    for pause_ms in [300, 1_000, 1_490, 1_600] {
        for far_is_seed in [false, true] {
            let took_ms = took_ms(Near::Drips(pause_ms), far_is_seed);
            assert!(took_ms < 7_000, "a block in {pause_ms} ms, seed {far_is_seed}: {took_ms} ms");
        }
    }
}
