//! How often, or how much at a time: a token bucket, in virtual time.
//!
//! One for everything that has a rate: what a neighbour may make this node do (a signature costs a
//! neighbour nothing to replay and this node a tenth of a millisecond to check), and how many bytes may
//! pass. What is beyond the rate is not done now, and blames nobody: an honest neighbour may have much to
//! say at once. Never more passes than the burst and the rate times the time; nothing of the rate is lost
//! to rounding, however often anybody looks.

use updraft_protocol::limits::MAX_BLOCK_BYTES;

/// Thousandths of a token: what one token a second comes to in a millisecond.
const PARTS: u64 = 1_000;

/// What a bucket holds and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens that come every second.
    pub(crate) per_second: u64,
    /// Tokens of a full bucket: what may pass at once.
    pub(crate) burst: u64,
}

impl Rate {
    /// So many bytes a second. A block passes whole or not at all, so that the burst is at least the
    /// largest block; beyond that it is what passes in a fifth of a second. Of nothing, nothing passes.
    pub(crate) fn bytes(per_second: u64) -> Self {
        let burst = if per_second == 0 { 0 } else { (per_second / 5).max(u64::from(MAX_BLOCK_BYTES)) };
        Self { per_second, burst }
    }
}

/// Gossiped heads of one neighbour that are verified: a repository's busiest minute, and its rest.
pub(crate) const HEADS: Rate = Rate { per_second: 2, burst: 32 };

/// Metadata files that one neighbour may ask for: all of a large repository at once, then 64 a second.
pub(crate) const REQUESTS: Rate = Rate { per_second: 64, burst: 1_024 };

/// Tokens that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    rate: Rate,
    /// In thousandths, so that a millisecond at one token a second counts.
    parts: u64,
    filled_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(rate: Rate, now_ms: u64) -> Self {
        Self { rate, parts: rate.burst.saturating_mul(PARTS), filled_ms: now_ms }
    }

    /// Takes `count` tokens; false, and takes none, where there are fewer.
    pub(crate) fn take(&mut self, count: u64, now_ms: u64) -> bool {
        self.fill(now_ms);
        let left = count.checked_mul(PARTS).and_then(|parts| self.parts.checked_sub(parts));
        if let Some(left) = left {
            self.parts = left;
        }
        left.is_some()
    }

    /// The first millisecond at which [`Self::take`] gives `count` tokens, as far as is known now; `None`
    /// where it never will: more than a full bucket, or a bucket that is not filled any more.
    pub(crate) fn next_ms(&self, count: u64) -> Option<u64> {
        let missing = count.checked_mul(PARTS)?.saturating_sub(self.parts);
        if missing == 0 {
            return Some(self.filled_ms);
        }
        if count > self.rate.burst || self.rate.per_second == 0 {
            return None;
        }
        Some(self.filled_ms.saturating_add(missing.div_ceil(self.rate.per_second)))
    }

    /// Goes on with another rate. What is in the bucket stays, as far as the new one holds it.
    pub(crate) fn set_rate(&mut self, rate: Rate, now_ms: u64) {
        self.fill(now_ms);
        self.rate = rate;
        self.parts = self.parts.min(rate.burst.saturating_mul(PARTS));
    }

    fn fill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        let come = elapsed_ms.saturating_mul(self.rate.per_second);
        self.parts = self.parts.saturating_add(come).min(self.rate.burst.saturating_mul(PARTS));
        self.filled_ms = self.filled_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 100, burst: 3 };

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut bucket = TokenBucket::full(RATE, 100);
        let taken: Vec<bool> = [100, 100, 100, 100, 109, 110, 111, 120].map(|now_ms| bucket.take(1, now_ms)).into();
        assert_eq!(taken, [true, true, true, false, false, true, false, true]);
    }

    #[test]
    fn nothing_of_the_rate_is_lost_to_looking_often() {
        // 333 tokens a second are a third of one in each millisecond.
        let mut bucket = TokenBucket::full(Rate { per_second: 333, burst: 10 }, 0);
        assert!(bucket.take(10, 0));
        let taken = (1..=30_000).filter(|now_ms| bucket.take(1, *now_ms)).count();
        assert_eq!(taken, 9_990);
    }

    #[test]
    fn a_rate_of_nothing_lets_the_burst_through_and_then_nothing() {
        let mut bucket = TokenBucket::full(Rate { per_second: 0, burst: 1 }, 0);
        assert!(bucket.take(1, 0));
        assert!(!bucket.take(1, u64::MAX));
        assert_eq!(bucket.next_ms(1), None);
    }

    #[test]
    fn another_rate_keeps_what_was_saved_but_no_more_than_it_holds() {
        let mut bucket = TokenBucket::full(Rate { per_second: 1, burst: 1_000 }, 0);
        bucket.set_rate(Rate { per_second: 10, burst: 20 }, 0);
        assert!(!bucket.take(21, 0));
        assert!(bucket.take(20, 0));
        assert_eq!(bucket.next_ms(1), Some(100));
    }

    #[test]
    fn a_cap_in_bytes_lets_every_block_through_in_time() {
        for per_second in [1, 16 * 1024, 1 << 20, 1 << 40] {
            let rate = Rate::bytes(per_second);
            assert!(TokenBucket::full(rate, 0).next_ms(u64::from(MAX_BLOCK_BYTES)).is_some(), "{per_second}");
        }
        assert!(!TokenBucket::full(Rate::bytes(0), 0).take(1, 0), "paused is paused");
    }

    proptest! {
        #[test]
        fn no_schedule_gets_more_than_the_burst_and_the_rate(
            per_second in 0..5_000_000_u64,
            burst in 1..2_000_000_u64,
            mut asks in prop::collection::vec((0..100_000_u64, 0..1_500_000_u64), 0..400),
        ) {
            asks.sort_unstable();
            let mut bucket = TokenBucket::full(Rate { per_second, burst }, 0);
            let mut passed = 0;
            for (now_ms, count) in asks {
                if bucket.take(count, now_ms) {
                    passed += count;
                }
                prop_assert!(passed <= burst + per_second * now_ms / 1_000);
            }
        }

        #[test]
        fn the_next_time_is_right_and_the_earliest(
            per_second in 1..5_000_000_u64,
            burst in 1..2_000_000_u64,
            before in 0..2_000_000_u64,
            count in 1..2_500_000_u64,
        ) {
            let mut bucket = TokenBucket::full(Rate { per_second, burst }, 7);
            bucket.take(before, 7);
            match bucket.next_ms(count) {
                None => prop_assert!(count > burst),
                Some(next_ms) => {
                    let mut same = bucket;
                    let early = same.take(count, next_ms.saturating_sub(1).max(7));
                    prop_assert_eq!(early, next_ms == 7);
                    prop_assert!(bucket.take(count, next_ms));
                }
            }
        }

        #[test]
        fn no_number_makes_it_overflow(per_second: u64, burst: u64, asks in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
            let mut bucket = TokenBucket::full(Rate { per_second, burst }, 0);
            for (now_ms, count) in asks {
                let _ = bucket.take(count, now_ms);
                let _ = bucket.next_ms(count);
                bucket.set_rate(Rate { per_second: count, burst: now_ms }, now_ms);
            }
        }
    }
}
