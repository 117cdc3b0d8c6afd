//! How fast bytes come from one neighbour, as a smoothed rate in bytes per second.

/// Milliseconds over which bytes are gathered before they count.
const SAMPLE_MS: u64 = 200;
/// Milliseconds after which old samples weigh less than half.
const HALF_LIFE_MS: u64 = 1_000;

/// A smoothed rate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate {
    bytes_per_second: u64,
    pending_bytes: u64,
    since_ms: Option<u64>,
}

impl Rate {
    /// Counts `bytes` at `now_ms`.
    pub(crate) fn add(&mut self, bytes: u64, now_ms: u64) {
        self.settle(now_ms);
        self.pending_bytes += bytes;
    }

    /// Folds gathered bytes into the rate where enough time has passed.
    pub(crate) fn settle(&mut self, now_ms: u64) {
        let Some(since) = self.since_ms else {
            self.since_ms = Some(now_ms);
            return;
        };
        let elapsed_ms = now_ms.saturating_sub(since);
        if elapsed_ms < SAMPLE_MS {
            return;
        }
        let sample = self.pending_bytes.saturating_mul(1_000) / elapsed_ms;
        let weight = elapsed_ms.min(HALF_LIFE_MS);
        self.bytes_per_second = if self.bytes_per_second == 0 {
            sample
        } else {
            let old = u128::from(self.bytes_per_second) * u128::from(HALF_LIFE_MS);
            let new = u128::from(sample) * u128::from(weight);
            u64::try_from((old + new) / u128::from(HALF_LIFE_MS + weight)).unwrap_or(u64::MAX)
        };
        self.pending_bytes = 0;
        self.since_ms = Some(now_ms);
    }

    /// Starts counting anew: the silence until now says nothing about the neighbour.
    pub(crate) fn resume(&mut self, now_ms: u64) {
        self.pending_bytes = 0;
        self.since_ms = Some(now_ms);
    }

    /// The rate, or 0 while nothing is known.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_measured_at_its_rate() {
        let mut rate = Rate::default();
        for step in 0..100 {
            rate.add(10_000, step * 10);
        }
        let measured = rate.bytes_per_second();
        assert!((900_000..1_100_000).contains(&measured), "{measured}");
    }

    #[test]
    fn silence_lets_the_rate_decay() {
        let mut rate = Rate::default();
        for step in 0..100 {
            rate.add(10_000, step * 10);
        }
        let before = rate.bytes_per_second();
        for step in 0..10 {
            rate.settle(2_000 + step * 500);
        }
        assert!(rate.bytes_per_second() < before / 4);
    }
}
