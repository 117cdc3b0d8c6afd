//! How long a peer that could not be reached is left alone.
//!
//! A fleet that lost its seed tries again together unless chance pulls it apart; and a seed that comes
//! back must not meet all of it within one second.

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// First pause after a failed dial, doubled with every further one.
pub(super) const BACK_OFF_MS: u64 = 1_000;
/// Longest pause for a peer of the ticket, and for any peer while nobody is connected.
pub(super) const NEAR_BACK_OFF_MS: u64 = 8_000;
/// Longest pause for other peers, and for all once they were dialled in vain for minutes.
pub(super) const FAR_BACK_OFF_MS: u64 = 60_000;
/// Failed dials after which the longest pause for a near peer grows as well: some three minutes. A seed
/// that is away for a night is not missed the less for being asked less often, and its fleet is large.
const PATIENCE: u32 = 32;
/// Doublings after which the pause is beyond every bound above.
const MAX_DOUBLINGS: u32 = 10;

/// Milliseconds to wait after so many failures in a row, between half of the bound and all of it.
pub(super) fn back_off_ms(failures: u32, near: bool, rng: &mut SmallRng) -> u64 {
    let most_ms = if near && failures <= PATIENCE {
        NEAR_BACK_OFF_MS
    } else if near {
        NEAR_BACK_OFF_MS.saturating_mul(1 << (failures - PATIENCE).min(MAX_DOUBLINGS)).min(FAR_BACK_OFF_MS)
    } else {
        FAR_BACK_OFF_MS
    };
    let pause_ms = BACK_OFF_MS.saturating_mul(1 << failures.saturating_sub(1).min(MAX_DOUBLINGS)).min(most_ms);
    rng.random_range(pause_ms / 2..=pause_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn pauses_double_up_to_their_bound_and_are_never_the_same() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (failures, most_ms) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (5, 16_000), (7, 60_000)] {
            for _ in 0..100 {
                let pause_ms = back_off_ms(failures, false, &mut rng);
                assert!((most_ms / 2..=most_ms).contains(&pause_ms), "{pause_ms} after {failures}");
            }
        }
        assert!(back_off_ms(u32::MAX, false, &mut rng) <= FAR_BACK_OFF_MS);
        let pauses: std::collections::BTreeSet<u64> = (0..100).map(|_| back_off_ms(9, true, &mut rng)).collect();
        assert!(pauses.len() > 90, "{pauses:?}");
    }

    #[test]
    fn near_peers_are_tried_every_few_seconds_for_minutes_and_then_less() {
        let mut rng = SmallRng::seed_from_u64(2);
        let waited_ms: u64 = (1..=PATIENCE).map(|failures| back_off_ms(failures, true, &mut rng)).sum();
        assert!((120_000..=300_000).contains(&waited_ms), "{waited_ms}");
        assert!((1..=PATIENCE).all(|failures| back_off_ms(failures, true, &mut rng) <= NEAR_BACK_OFF_MS));
        assert!(back_off_ms(PATIENCE + 4, true, &mut rng) >= FAR_BACK_OFF_MS / 2);
        assert!(back_off_ms(u32::MAX, true, &mut rng) <= FAR_BACK_OFF_MS);
    }
}
