//! Tests of how a seed spends its uplink.

use rand::SeedableRng as _;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::ManifestBuilder;

use std::sync::LazyLock;

use super::*;

/// Pieces of the object; each is a leaf of 16 KiB.
const PIECES: u32 = 128;
const PIECE: u64 = 16 * 1024;

/// A seed, and what surrounds it.
struct Seed {
    manifest: Manifest,
    sparing: Sparing,
    departed: Departed,
    availability: Availability,
    holders: BTreeMap<PeerId, Bitmap>,
    budget_percent: Option<u32>,
    now_ms: u64,
    rng: SmallRng,
}

fn peer(name: &str) -> PeerId {
    PeerId::from_bytes(Digest::of(name.as_bytes()).as_bytes()).expect("32 bytes")
}

/// Its digests take a while.
static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
    let mut builder = ManifestBuilder::new();
    builder.update(&vec![7; usize::try_from(u64::from(PIECES) * PIECE).expect("2 MiB")]);
    builder.finish().expect("not empty")
});

impl Seed {
    fn new(budget_percent: Option<u32>) -> Self {
        let manifest = MANIFEST.clone();
        assert_eq!((manifest.piece_count(), u64::from(manifest.piece_length())), (PIECES, PIECE));
        let mut rng = SmallRng::seed_from_u64(1);
        Self {
            sparing: Sparing::new(&manifest, &mut rng),
            manifest,
            departed: Departed::default(),
            availability: Availability::new(PIECES),
            holders: BTreeMap::new(),
            budget_percent,
            now_ms: 0,
            rng,
        }
    }

    /// A neighbour begins to want the object.
    fn wants(&mut self, peer: &PeerId) {
        self.holders.entry(peer.clone()).or_insert_with(|| Bitmap::empty(PIECES));
        self.sparing.wanted_by(peer, &Bitmap::empty(PIECES), self.now_ms);
    }

    /// A neighbour asks for a piece, and gets it where it is served.
    fn asks(&mut self, peer: &PeerId, piece: u32) -> bool {
        let Self { manifest, availability, departed, budget_percent, now_ms, .. } = self;
        let uplink = Uplink { rate_bytes_per_second: 1 << 20, budget_percent: *budget_percent, now_ms: *now_ms };
        let around = Surroundings { manifest, availability, departed, uplink };
        let index = manifest.index(piece).expect("it exists");
        let block = BlockRange::new(manifest.offset_of(index), manifest.length_of(index)).expect("a leaf");
        let served = self.sparing.grants(peer, index, block, &around);
        if served {
            self.departed.add(&self.manifest, index, block.length);
            self.sparing.sent(peer, &self.manifest, index, block, self.now_ms);
            if self.departed.whole() == PIECES {
                self.sparing.is_out(self.now_ms);
            }
        }
        served
    }

    /// Pieces that are offered now, and to whom.
    fn offers(&mut self) -> Vec<(PeerId, u32)> {
        let Self { manifest, availability, departed, budget_percent, now_ms, sparing, holders, rng } = self;
        let uplink = Uplink { rate_bytes_per_second: 1 << 20, budget_percent: *budget_percent, now_ms: *now_ms };
        let around = Surroundings { manifest, availability, departed, uplink };
        sparing.offers(&around, |peer| holders.get(peer), rng)
    }

    /// A neighbour announces a piece.
    fn gains(&mut self, peer: &PeerId, piece: u32) {
        if self.holders.get_mut(peer).is_some_and(|have| have.set(piece)) {
            self.availability.gain(piece, false);
            self.sparing.gained(peer, piece, self.now_ms);
        }
    }
}

#[test]
fn a_copy_that_left_before_anything_was_offered_is_no_riddle() {
    let mut seed = Seed::new(None);
    let [first, second] = ["first", "second"].map(peer);
    // The first never said that it wants the object.
    for piece in 0..PIECES {
        seed.now_ms += 1;
        assert!(seed.asks(&first, piece));
    }
    // Both do now, and the first has it all: a second copy is a repeat.
    seed.now_ms += 1_000;
    for peer in [&first, &second] {
        seed.wants(peer);
    }
    assert!(!seed.offers().is_empty());
    for piece in 0..PIECES - 1 {
        seed.gains(&first, piece);
    }
    assert!(seed.asks(&second, 0), "the first copy took 128 ms, and is out for a second");
}

/// Pieces that a neighbour gets that asks for each of them again and again, for a minute.
fn drawn(seed: &mut Seed, greedy: &PeerId) -> u32 {
    let mut drawn = 0;
    for _ in 0..600 {
        seed.now_ms += 100;
        seed.sparing.tick(seed.now_ms);
        seed.offers();
        drawn += (0..PIECES).map(|piece| u32::from(seed.asks(greedy, piece))).sum::<u32>();
    }
    drawn
}

#[test]
fn one_that_says_nothing_draws_no_more_than_the_budget_and_what_one_that_is_cut_off_gets() {
    let greedy = peer("greedy");
    // It says that it wants nothing; that it wants all; that it has all.
    for announced in [None, Some(0), Some(PIECES)] {
        let mut seed = Seed::new(Some(120));
        if let Some(pieces) = announced {
            seed.wants(&greedy);
            for piece in 0..pieces {
                seed.gains(&greedy, piece);
            }
            if pieces == PIECES {
                seed.sparing.rest(&greedy, true);
            }
        }
        let drawn = drawn(&mut seed, &greedy);
        assert!(drawn <= 2 * PIECES + PIECES / 5, "{drawn} pieces of {PIECES}: {announced:?}");
    }
}

#[test]
fn what_left_for_a_neighbour_is_remembered_while_it_wants_nothing() {
    let greedy = peer("greedy");
    for has_all in [false, true] {
        let mut seed = Seed::new(Some(100));
        seed.wants(&greedy);
        let mut drawn = 0;
        for _ in 0..10 {
            drawn += (0..PIECES).map(|piece| u32::from(seed.asks(&greedy, piece))).sum::<u32>();
            seed.sparing.rest(&greedy, has_all);
            seed.now_ms += 1_000;
        }
        assert_eq!(drawn, PIECES, "{has_all}");
        seed.sparing.forget(&greedy);
        assert!(seed.asks(&greedy, 0), "who was gone may have lost it, and nobody else has it");
    }
}

#[test]
fn the_only_neighbour_that_lost_a_piece_gets_it_again_budget_or_not() {
    let only = peer("only");
    for budget_percent in [None, Some(100)] {
        let mut seed = Seed::new(budget_percent);
        seed.wants(&only);
        assert!((0..PIECES).all(|piece| seed.asks(&only, piece)));
        seed.now_ms += CUT_OFF_MS;
        assert!(seed.asks(&only, 7), "{budget_percent:?}");
        // It had everything, and lost all of it.
        seed.sparing.rest(&only, true);
        seed.wants(&only);
        seed.now_ms += CUT_OFF_MS;
        assert!(seed.asks(&only, 7), "{budget_percent:?}");
    }
}

#[test]
fn requests_in_the_queue_count_against_the_budget() {
    let mut seed = Seed::new(Some(200));
    let [first, second] = ["first", "second"].map(peer);
    for peer in [&first, &second] {
        seed.wants(peer);
    }
    for piece in 0..PIECES {
        assert!(seed.asks(&first, piece));
        seed.gains(&first, piece);
    }
    let now_ms = 2 * STARVED_MS;
    let mut granted = 0;
    for piece in 0..PIECES {
        let index = seed.manifest.index(piece).expect("it exists");
        let block = BlockRange::new(seed.manifest.offset_of(index), seed.manifest.length_of(index)).expect("a leaf");
        let Seed { manifest, availability, departed, sparing, .. } = &mut seed;
        let uplink = Uplink { rate_bytes_per_second: 1 << 20, budget_percent: Some(200), now_ms };
        let around = Surroundings { manifest, availability, departed, uplink };
        granted += u32::from(sparing.grants(&second, index, block, &around));
    }
    // Headers are of the budget.
    assert!((PIECES * 85 / 100..PIECES * 95 / 100).contains(&granted), "{granted} of {PIECES}");
    seed.sparing.forget(&second);
    assert_eq!(seed.sparing.due_repeats, 0);
}

#[test]
fn each_piece_is_offered_to_one_neighbour_first() {
    let mut seed = Seed::new(None);
    for name in ["one", "two", "three"] {
        seed.wants(&peer(name));
    }
    let offers = seed.offers();
    let pieces: std::collections::BTreeSet<u32> = offers.iter().map(|(_, piece)| *piece).collect();
    assert_eq!(pieces.len(), offers.len(), "a piece was offered twice");
    for name in ["one", "two", "three"] {
        assert!(offers.iter().any(|(to, _)| *to == peer(name)), "{name} got no offer");
    }
    let (to, piece) = offers.first().cloned().expect("there is one");
    let other = ["one", "two", "three"].map(peer).into_iter().find(|other| *other != to).expect("another");
    assert!(seed.asks(&to, piece));
    seed.gains(&to, piece);
    assert!(!seed.asks(&other, piece), "it may ask the one that has it");
}

#[test]
fn an_offer_that_nobody_takes_up_is_made_to_somebody_else() {
    let mut seed = Seed::new(None);
    let [idle, busy] = ["idle", "busy"].map(peer);
    seed.wants(&idle);
    let first = seed.offers();
    assert!(!first.is_empty());
    seed.wants(&busy);
    seed.now_ms = STALE_MS;
    seed.sparing.tick(seed.now_ms);
    let mut again = std::collections::BTreeSet::new();
    for _ in 0..200 {
        seed.now_ms += QUIET_MS;
        for (to, piece) in seed.offers().into_iter().filter(|(to, _)| *to == busy) {
            assert!(seed.asks(&to, piece));
            seed.gains(&to, piece);
            again.insert(piece);
        }
    }
    assert!(first.iter().all(|(_, piece)| again.contains(piece)), "{first:?}");
}
