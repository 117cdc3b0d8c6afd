//! Tests of how a seed spends its uplink.

use rand::SeedableRng as _;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::ManifestBuilder;

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

impl Seed {
    fn new(budget_percent: Option<u32>) -> Self {
        let mut builder = ManifestBuilder::new();
        builder.update(&vec![7; usize::try_from(u64::from(PIECES) * PIECE).expect("2 MiB")]);
        let manifest = builder.finish().expect("not empty");
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
        let served = self.sparing.serves(peer, piece, &around);
        if served {
            let index = self.manifest.index(piece).expect("it exists");
            self.departed.add(&self.manifest, index, u32::try_from(PIECE).expect("16 KiB"));
            self.sparing.sent(peer, piece, PIECE, PIECE, self.now_ms);
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
