//! Since when a seed has been able to hear its nodes.
//!
//! Silence is held against a release only as far as somebody listened: a seed that was stopped, asleep, or cut off
//! from everybody has missed the ends of installs, which wait in the outboxes of their nodes.

use updraft_protocol::time::UtcTime;

use super::super::input::Now;

/// Milliseconds between two looks beyond which this process, or the machine, stood still in between; and by
/// which its two clocks may differ before one of them was set.
const MAX_GAP_MS: u64 = 60_000;

/// Whether somebody listens.
#[derive(Debug, Default)]
pub(super) struct Attention {
    since: Option<UtcTime>,
    last: Option<Now>,
}

impl Attention {
    /// A look at whether there is anybody to listen to.
    pub(super) fn look(&mut self, has_sessions: bool, now: Now) {
        let went_on = self.last.is_some_and(|last| {
            let passed_ms = now.mono_ms.saturating_sub(last.mono_ms);
            let by_wall_ms = now.wall.seconds_since(last.wall).saturating_mul(1_000);
            let by_mono_ms = i64::try_from(passed_ms).unwrap_or(i64::MAX);
            passed_ms <= MAX_GAP_MS && by_wall_ms.abs_diff(by_mono_ms) <= MAX_GAP_MS
        });
        self.last = Some(now);
        self.since = match self.since.filter(|_| went_on) {
            _ if !has_sessions => None,
            Some(since) => Some(since),
            None => Some(now.wall),
        };
    }

    /// Since when somebody has listened without a break; none: nobody does.
    pub(super) fn since(&self) -> Option<UtcTime> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall_s: i64, mono_s: u64) -> Now {
        Now { wall: UtcTime::from_unix(1_800_000_000 + wall_s), mono_ms: mono_s * 1_000 }
    }

    fn listening(looks: &[(bool, i64, u64)]) -> Option<i64> {
        let mut attention = Attention::default();
        for (has_sessions, wall_s, mono_s) in looks {
            attention.look(*has_sessions, now(*wall_s, *mono_s));
        }
        attention.since().map(|since| since.unix() - 1_800_000_000)
    }

    #[test]
    fn a_seed_listens_from_its_first_session_on() {
        assert_eq!(listening(&[(false, 0, 0), (false, 2, 2)]), None);
        assert_eq!(listening(&[(false, 0, 0), (true, 2, 2), (true, 4, 4), (true, 6, 6)]), Some(2));
    }

    #[test]
    fn a_seed_that_was_cut_off_begins_anew() {
        assert_eq!(listening(&[(true, 0, 0), (false, 2, 2), (true, 4, 4), (true, 6, 6)]), Some(4));
    }

    #[test]
    fn a_machine_that_slept_and_a_process_that_stood_still_heard_nothing() {
        assert_eq!(listening(&[(true, 0, 0), (true, 3_600, 2), (true, 3_602, 4)]), Some(3_600));
        assert_eq!(listening(&[(true, 0, 0), (true, 3_600, 3_600), (true, 3_602, 3_602)]), Some(3_600));
    }

    #[test]
    fn a_clock_that_is_set_makes_nobody_silent() {
        assert_eq!(listening(&[(true, 0, 0), (true, 86_400, 2)]), Some(86_400));
        assert_eq!(listening(&[(true, 86_400, 0), (true, 0, 2)]), Some(0));
        assert_eq!(listening(&[(true, 0, 0), (true, 1, 2)]), Some(0), "a second is nothing");
    }
}
