//! One release's probation: time that is credited, checks that are asked for, and the verdict.
//!
//! It passes when the time is over and the last checks in a row succeeded, the last of them begun after
//! the end of that time. It fails when the release was never healthy in that time, or fell ill. One that
//! goes on after a restart of the node has all of its time again to become healthy in: the machine may have
//! been started anew, and the release with it. Time is what passed while somebody watched: a clock that is
//! set, a machine that slept and a node that was down count for nothing, and a result is never credited
//! without its check.

use super::trial::Health;

/// Milliseconds that one look may credit: what passed beyond it, nobody watched.
const MAX_STEP_MS: u64 = 5_000;
/// Milliseconds after its deadline at which a check that is not answered counts as failed.
pub(super) const WATCHDOG_MS: u64 = 15_000;
/// Milliseconds of watching between two journal lines: so much is watched again after a crash.
const JOURNAL_MS: u64 = 5_000;

/// What a look at a probation comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing to do now.
    Wait,
    /// Ask the check of this number.
    Check(u32),
    /// The release proved itself.
    Passed,
    /// It did not, and why.
    Failed(String),
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at_ms: u64,
    after_the_end: bool,
}

/// A probation that is under way.
#[derive(Debug, Clone)]
pub(super) struct Probation {
    health: Health,
    remaining_ms: u64,
    /// Time that is left to become healthy in.
    patience_ms: u64,
    overtime_ms: u64,
    seen_ms: u64,
    journalled_ms: u64,
    number: u32,
    asked: Option<Asked>,
    next_ms: u64,
    successes: u32,
    failures: u32,
    was_healthy: bool,
    confirmed: bool,
    last_failure: Option<String>,
}

impl Probation {
    /// Begins, or goes on with what an earlier run of the node left.
    pub(super) fn new(health: Health, left_ms: Option<u64>, now_ms: u64) -> Self {
        // Whatever is left, it is enough for the release to become healthy again in.
        let row_ms = health.interval_ms.saturating_mul(u64::from(health.successes)).saturating_add(health.timeout_ms);
        let remaining_ms = left_ms.map_or(health.probation_ms, |left| left.max(row_ms).min(health.probation_ms));
        Self {
            patience_ms: health.probation_ms,
            health,
            remaining_ms,
            overtime_ms: 0,
            seen_ms: now_ms,
            journalled_ms: remaining_ms,
            number: 0,
            asked: None,
            next_ms: now_ms,
            successes: 0,
            failures: 0,
            was_healthy: false,
            confirmed: false,
            last_failure: None,
        }
    }

    pub(super) fn remaining_ms(&self) -> u64 {
        self.remaining_ms
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Whether what is left should be journalled again; then it is taken as journalled.
    pub(super) fn is_journal_due(&mut self) -> bool {
        let due = self.journalled_ms.saturating_sub(self.remaining_ms) >= JOURNAL_MS;
        if due {
            self.journalled_ms = self.remaining_ms;
        }
        due
    }

    /// The check of this number was answered.
    pub(super) fn answered(&mut self, number: u32, result: Result<(), String>) {
        let Some(asked) = self.asked.filter(|_| number == self.number) else { return };
        self.asked = None;
        match result {
            Ok(()) => {
                self.successes += 1;
                self.failures = 0;
                self.confirmed |= asked.after_the_end;
                self.was_healthy |= self.successes >= self.health.successes;
            }
            Err(reason) => {
                self.successes = 0;
                self.failures += 1;
                self.confirmed = false;
                self.last_failure = Some(reason);
            }
        }
    }

    /// Lets time pass and says what follows.
    pub(super) fn look(&mut self, now_ms: u64) -> Look {
        let step_ms = now_ms.saturating_sub(self.seen_ms).min(MAX_STEP_MS);
        self.seen_ms = self.seen_ms.max(now_ms);
        if self.was_healthy {
            self.overtime_ms = self.overtime_ms.saturating_add(step_ms.saturating_sub(self.remaining_ms));
        }
        self.patience_ms = self.patience_ms.saturating_sub(step_ms);
        self.remaining_ms = self.remaining_ms.saturating_sub(step_ms);
        if let Some(asked) = self.asked {
            let patience_ms = self.health.timeout_ms.saturating_add(WATCHDOG_MS);
            if now_ms.saturating_sub(asked.at_ms) < patience_ms {
                return Look::Wait;
            }
            self.answered(self.number, Err("the health check did not end".to_owned()));
        }
        if let Some(verdict) = self.verdict() {
            return verdict;
        }
        let after_the_end = self.remaining_ms == 0;
        // The last word is asked for at once.
        let at_once = after_the_end && self.failures == 0 && !self.confirmed;
        if now_ms < self.next_ms && !at_once {
            return Look::Wait;
        }
        self.number = self.number.wrapping_add(1);
        self.asked = Some(Asked { at_ms: now_ms, after_the_end });
        self.next_ms = now_ms.saturating_add(self.health.interval_ms);
        Look::Check(self.number)
    }

    fn verdict(&self) -> Option<Look> {
        let why = || self.last_failure.clone().unwrap_or_else(|| "no health check succeeded".to_owned());
        if self.was_healthy && self.failures >= self.health.failures {
            return Some(Look::Failed(why()));
        }
        if self.remaining_ms > 0 {
            return None;
        }
        if !self.was_healthy && self.patience_ms > 0 {
            return None;
        }
        if !self.was_healthy {
            let seconds = self.health.probation_ms.div_ceil(1_000);
            return Some(Look::Failed(format!("it was not healthy within {seconds} s: {}", why())));
        }
        if self.confirmed && self.successes >= self.health.successes {
            return Some(Look::Passed);
        }
        let rows = u64::from(self.health.successes) + u64::from(self.health.failures);
        let round_ms = self.health.interval_ms.saturating_add(self.health.timeout_ms).saturating_add(WATCHDOG_MS);
        (self.overtime_ms > rows.saturating_mul(round_ms))
            .then(|| Look::Failed(format!("its health kept changing: {}", why())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::install::trial::Check;

    fn health() -> Health {
        Health {
            check: Check::Unit("app.service".to_owned()),
            interval_ms: 1_000,
            timeout_ms: 500,
            successes: 2,
            failures: 2,
            probation_ms: 10_000,
        }
    }

    /// Runs a probation in steps of 100 ms; `check` says how each check ends, by its time.
    fn run(mut probation: Probation, from_ms: u64, check: impl Fn(u64) -> Result<(), String>) -> (u64, Look) {
        let mut now_ms = from_ms;
        loop {
            match probation.look(now_ms) {
                Look::Wait => {}
                Look::Check(number) => probation.answered(number, check(now_ms)),
                end => return (now_ms - from_ms, end),
            }
            now_ms += 100;
            assert!(now_ms < from_ms + 1_000_000, "it never ends");
        }
    }

    fn ill() -> Result<(), String> {
        Err("it answered 500".to_owned())
    }

    #[test]
    fn a_healthy_release_passes_when_its_time_is_over_and_not_before() {
        let (took_ms, end) = run(Probation::new(health(), None, 7), 7, |_| Ok(()));
        assert_eq!(end, Look::Passed);
        assert!((10_000..10_300).contains(&took_ms), "{took_ms}");
    }

    #[test]
    fn a_release_may_take_its_time_to_start() {
        let (_, end) = run(Probation::new(health(), None, 0), 0, |now| if now < 6_000 { ill() } else { Ok(()) });
        assert_eq!(end, Look::Passed);
    }

    #[test]
    fn a_release_that_never_gets_healthy_fails_at_the_end() {
        let (took_ms, end) = run(Probation::new(health(), None, 0), 0, |_| ill());
        assert_eq!(end, Look::Failed("it was not healthy within 10 s: it answered 500".to_owned()));
        assert!(took_ms <= 10_200, "{took_ms}");
    }

    #[test]
    fn a_release_that_falls_ill_fails_at_once_and_a_hiccup_is_forgiven() {
        let (took_ms, end) = run(Probation::new(health(), None, 0), 0, |now| if now < 4_000 { Ok(()) } else { ill() });
        assert_eq!(end, Look::Failed("it answered 500".to_owned()));
        assert!(took_ms < 6_000, "{took_ms}");
        let hiccup = |now| if (4_000..5_000).contains(&now) { ill() } else { Ok(()) };
        assert_eq!(run(Probation::new(health(), None, 0), 0, hiccup).1, Look::Passed);
    }

    #[test]
    fn a_release_whose_health_keeps_changing_does_not_stay_on_probation_for_ever() {
        let flapping = |now: u64| if now < 3_000 || (now / 1_000).is_multiple_of(2) { Ok(()) } else { ill() };
        let (took_ms, end) = run(Probation::new(health(), None, 0), 0, flapping);
        assert!(matches!(end, Look::Failed(_)), "{end:?}");
        assert!(took_ms < 200_000, "{took_ms}");
    }

    #[test]
    fn a_jump_of_the_clock_is_no_time_that_anybody_watched() {
        let mut probation = Probation::new(health(), None, 0);
        assert_eq!(probation.look(0), Look::Check(1));
        probation.answered(1, Ok(()));
        assert_eq!(probation.look(1_000_000_000), Look::Check(2));
        probation.answered(2, Ok(()));
        assert_eq!(probation.look(1_000_000_000), Look::Wait);
        assert_eq!(probation.remaining_ms(), 5_000);
        // Backwards it waits no longer than it would have.
        assert_eq!(probation.look(0), Look::Wait);
        assert_eq!(probation.remaining_ms(), 5_000);
    }

    #[test]
    fn what_is_left_after_a_restart_is_enough_to_become_healthy_in() {
        let probation = Probation::new(health(), Some(1), 0);
        assert_eq!(probation.remaining_ms(), 2_500);
        assert_eq!(run(probation, 0, |_| Ok(())).1, Look::Passed);
        assert_eq!(Probation::new(health(), Some(u64::MAX), 0).remaining_ms(), 10_000);
    }

    #[test]
    fn what_goes_on_after_a_restart_has_its_time_to_become_healthy_in() {
        let left = || Probation::new(health(), Some(1_000), 0);
        let (took_ms, end) = run(left(), 0, |now| if now < 7_000 { ill() } else { Ok(()) });
        assert_eq!(end, Look::Passed);
        assert!((8_000..9_500).contains(&took_ms), "{took_ms}");
        let (took_ms, end) = run(left(), 0, |_| ill());
        assert_eq!(end, Look::Failed("it was not healthy within 10 s: it answered 500".to_owned()));
        assert!((10_000..10_200).contains(&took_ms), "{took_ms}");
    }

    #[test]
    fn a_check_that_is_never_answered_counts_as_failed() {
        let mut probation = Probation::new(health(), None, 0);
        let mut asked = 0;
        for now_ms in (0..400_000).step_by(100) {
            match probation.look(now_ms) {
                Look::Wait => {}
                Look::Check(_) => asked += 1,
                end => {
                    assert!(matches!(end, Look::Failed(_)), "{end:?}");
                    assert!(asked > 0);
                    return;
                }
            }
        }
        panic!("it never ends");
    }
}
