//! When a channel stops by itself: the signed threshold. What is counted, and who counts, is the
//! seed's business; what is enough is the operator's, and therefore part of the policy.

use super::PolicyError;

/// The shortest silence that may count: an install takes its time, and so does a probation.
pub const MIN_SILENCE_S: u64 = 60;
/// The longest: beyond it nobody waits for a halt.
pub const MAX_SILENCE_S: u64 = 30 * 86_400;

/// When failures are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Halt {
    /// Percent of the nodes that ended (or fell silent) for which the release failed, 1 to 100.
    pub failures_percent: u8,
    /// Nodes that must have ended before anything is concluded, at least 1.
    pub min_reports: u32,
    /// Seconds after which a node that began and said nothing counts as failed; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_s: Option<u64>,
}

impl Halt {
    pub(super) fn validate(&self) -> Result<(), PolicyError> {
        if !(1..=100).contains(&self.failures_percent) {
            return Err(PolicyError::Halt("failures_percent must be 1 to 100"));
        }
        if self.min_reports == 0 {
            return Err(PolicyError::Halt("min_reports must be at least 1"));
        }
        if self.silence_s.is_some_and(|silence_s| !(MIN_SILENCE_S..=MAX_SILENCE_S).contains(&silence_s)) {
            return Err(PolicyError::Halt("silence_s must be 60 (a minute) to 2592000 (30 days)"));
        }
        Ok(())
    }

    /// Whether `failed` of `ended` nodes are too many.
    pub fn is_passed(&self, failed: u64, ended: u64) -> bool {
        ended >= u64::from(self.min_reports)
            && failed > 0
            && failed.saturating_mul(100) >= ended.saturating_mul(u64::from(self.failures_percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HALT: Halt = Halt { failures_percent: 20, min_reports: 5, silence_s: None };

    #[test]
    fn a_threshold_needs_its_sample() {
        assert!(!HALT.is_passed(4, 4), "four are too few to tell");
        assert!(HALT.is_passed(1, 5) && !HALT.is_passed(1, 6));
        assert!(!Halt { min_reports: 1, ..HALT }.is_passed(0, 0));
    }

    #[test]
    fn a_threshold_that_makes_no_sense_is_refused() {
        for bad in [
            Halt { failures_percent: 0, ..HALT },
            Halt { failures_percent: 101, ..HALT },
            Halt { min_reports: 0, ..HALT },
            Halt { silence_s: Some(1), ..HALT },
            Halt { silence_s: Some(u64::MAX), ..HALT },
        ] {
            assert!(matches!(bad.validate(), Err(PolicyError::Halt(_))), "{bad:?}");
        }
        assert_eq!(Halt { silence_s: Some(3_600), ..HALT }.validate(), Ok(()));
    }

    proptest! {
        #[test]
        fn more_failures_never_open_again(percent in 1..=100_u8, ended in 0..1_000_u64, failed in 0..1_000_u64) {
            let halt = Halt { failures_percent: percent, ..HALT };
            let failed = failed.min(ended);
            prop_assert!(!halt.is_passed(failed, ended) || halt.is_passed((failed + 1).min(ended), ended));
        }
    }
}
