//! How often one neighbour may make this node work: a token bucket, in virtual time.
//!
//! A signature costs a neighbour nothing to replay and this node a tenth of a millisecond to check. What
//! is beyond the rate is not done, and blames nobody: an honest neighbour may have much to say at once.

/// What a bucket holds and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens of a full bucket: what may come at once.
    pub(crate) burst: u32,
    /// Milliseconds until another token is there.
    pub(crate) refill_ms: u64,
}

/// Gossiped heads of one neighbour that are verified: a repository's busiest minute, and its rest.
pub(crate) const HEADS: Rate = Rate { burst: 32, refill_ms: 500 };

/// Metadata files that one neighbour may ask for: all of a large repository at once, then 64 a second.
pub(crate) const REQUESTS: Rate = Rate { burst: 1_024, refill_ms: 15 };

/// Tokens that are left to one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    tokens: u32,
    filled_ms: u64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(rate: Rate, now_ms: u64) -> Self {
        Self { tokens: rate.burst, filled_ms: now_ms }
    }

    /// Takes a token; false where there is none.
    pub(crate) fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        let due = now_ms.saturating_sub(self.filled_ms) / rate.refill_ms;
        if due > 0 {
            self.tokens = self.tokens.saturating_add(u32::try_from(due).unwrap_or(u32::MAX)).min(rate.burst);
            self.filled_ms = self.filled_ms.saturating_add(due.saturating_mul(rate.refill_ms));
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { burst: 3, refill_ms: 10 };

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut bucket = Bucket::full(RATE, 100);
        let taken: Vec<bool> = [100, 100, 100, 100, 109, 110, 111, 120].map(|now_ms| bucket.take(RATE, now_ms)).into();
        assert_eq!(taken, [true, true, true, false, false, true, false, true]);
    }

    proptest! {
        #[test]
        fn no_schedule_gets_more_than_the_burst_and_the_rate(mut times in prop::collection::vec(0..10_000_u64, 0..400)) {
            times.sort_unstable();
            let mut bucket = Bucket::full(RATE, 0);
            let taken = times.iter().filter(|now_ms| bucket.take(RATE, **now_ms)).count() as u64;
            let last = times.last().copied().unwrap_or(0);
            prop_assert!(taken <= u64::from(RATE.burst) + last / RATE.refill_ms);
        }
    }
}
