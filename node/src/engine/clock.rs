//! Whether the wall clock can be believed.
//!
//! Signed metadata says when it was signed. A clock below that, or below the day on which this
//! program was released, is wrong beyond doubt. Such a clock stops what depends on the time, which is
//! installing and (at a seed) signing, and nothing else: a node goes on fetching and serving, and is
//! cleared by a clock that was put right, without a restart.
//!
//! The rule must not turn against the node: whoever holds the timestamp key may state any time, and a
//! seed whose own clock ran ahead states a wrong one. So a time is remembered only while it is near
//! this node's own clock; a head that was signed further ahead contradicts the clock for as long as it
//! is in force, and leaves no trace.

use updraft_protocol::time::UtcTime;

/// A day that is certainly past: the release of this version, seconds since 1970 (2026-11-22). A
/// constant that is raised at each release, and not the clock of the machine that builds: two builds of
/// one source are the same bytes.
pub const BUILD_DATE_UNIX: i64 = 1_795_305_600;

/// Seconds by which a clock may be behind a signature. Machines that are set by the network differ by
/// less than a second, ones that are set by hand or drift for months by minutes.
pub const SKEW_S: i64 = 300;

/// Seconds by which a signature may be ahead of the clock and still be remembered: more than any mistake
/// of time zones (14 h), and the longest for which a wrong time outlives the head that stated it.
pub const AHEAD_S: i64 = 86_400;

/// What the clock is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// The latest time of signing that was verified and near this clock; survives restarts.
    pub remembered: Option<UtcTime>,
    /// When the head in force was signed.
    pub head: Option<UtcTime>,
}

/// Whether the clock can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// Nothing speaks against it.
    Trusted,
    /// It is below the day on which this program was released.
    BeforeBuild,
    /// It is below a time at which verified metadata was signed.
    BeforeSigned {
        /// That time.
        signed_at: UtcTime,
    },
    /// The head in force was signed more than a day ahead of it: one of the two is wrong.
    Contradicted {
        /// When the head says that it was signed.
        signed_at: UtcTime,
    },
}

/// The day on which this program was released.
pub fn build_date() -> UtcTime {
    UtcTime::from_unix(BUILD_DATE_UNIX)
}

impl Clock {
    /// Judges the clock that says `now`.
    pub fn judge(&self, now: UtcTime) -> ClockState {
        let latest_possible = now.plus_seconds(SKEW_S);
        if latest_possible < build_date() {
            return ClockState::BeforeBuild;
        }
        if let Some(signed_at) = self.remembered.filter(|signed_at| latest_possible < *signed_at) {
            return ClockState::BeforeSigned { signed_at };
        }
        match self.head.filter(|signed_at| latest_possible < *signed_at) {
            Some(signed_at) if signed_at <= now.plus_seconds(AHEAD_S) => ClockState::BeforeSigned { signed_at },
            Some(signed_at) => ClockState::Contradicted { signed_at },
            None => ClockState::Trusted,
        }
    }

    /// The time below which the clock is not believed.
    pub fn floor(&self) -> UtcTime {
        self.remembered.map_or(build_date(), |signed_at| signed_at.max(build_date()))
    }

    /// Takes note of when a head that is now in force was signed. True where the memory changed.
    pub(crate) fn observe(&mut self, signed_at: Option<UtcTime>, now: UtcTime) -> bool {
        self.head = signed_at;
        let Some(signed_at) = signed_at else { return false };
        let near = signed_at <= now.plus_seconds(AHEAD_S) && now.plus_seconds(SKEW_S) >= build_date();
        let later = self.remembered.is_none_or(|remembered| signed_at > remembered);
        if near && later {
            self.remembered = Some(signed_at);
        }
        near && later
    }
}

impl ClockState {
    /// Whether what depends on the time may be done.
    pub fn is_trusted(self) -> bool {
        self == Self::Trusted
    }

    /// Whether a seed may state this clock's time under a signature. A head from the far future does
    /// not keep it from that: a seed whose clock once ran ahead must be able to sign a sane time again.
    pub fn may_sign(self) -> bool {
        matches!(self, Self::Trusted | Self::Contradicted { .. })
    }

    /// Why the clock that says `now` is not believed, for people.
    pub fn reason(self, now: UtcTime) -> String {
        match self {
            Self::Trusted => "the clock agrees with the signed metadata".to_owned(),
            Self::BeforeBuild => {
                format!("the clock says {now}, but this program was released on {}; set the clock", build_date())
            }
            Self::BeforeSigned { signed_at } => {
                format!("the clock says {now}, but metadata signed at {signed_at} was verified; set the clock")
            }
            Self::Contradicted { signed_at } => format!(
                "the clock says {now}, but the head in force was signed at {signed_at}: either this clock is behind, or the seed's was ahead"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> UtcTime {
        build_date().plus_seconds(1_000_000 + seconds)
    }

    fn after(signed_at: UtcTime, now: UtcTime) -> Clock {
        let mut clock = Clock::default();
        let _remembered = clock.observe(Some(signed_at), now);
        clock
    }

    #[test]
    fn a_clock_below_the_build_date_is_not_believed() {
        let clock = Clock::default();
        assert_eq!(clock.judge(UtcTime::from_unix(0)), ClockState::BeforeBuild);
        assert_eq!(clock.judge(build_date().plus_seconds(-SKEW_S - 1)), ClockState::BeforeBuild);
        assert!(clock.judge(build_date()).is_trusted());
    }

    #[test]
    fn a_clock_below_the_last_signature_is_not_believed_until_it_is_put_right() {
        let clock = after(at(0), at(10));
        assert!(clock.judge(at(-SKEW_S)).is_trusted(), "a little skew is no lie");
        assert_eq!(clock.judge(at(-SKEW_S - 1)), ClockState::BeforeSigned { signed_at: at(0) });
        assert!(clock.judge(at(1)).is_trusted());
    }

    #[test]
    fn a_signature_from_the_far_future_leaves_no_trace_once_another_head_is_in_force() {
        let mut clock = after(at(0), at(0));
        let future = at(0).plus_days(3_650);
        assert!(!clock.observe(Some(future), at(10)));
        assert_eq!(clock.judge(at(10)), ClockState::Contradicted { signed_at: future });
        assert!(clock.judge(at(10)).may_sign(), "the seed that stated it can put it right");
        assert!(clock.observe(Some(at(20)), at(20)));
        assert!(clock.judge(at(20)).is_trusted());
    }

    #[test]
    fn a_clock_that_is_hours_behind_is_caught_and_remembered() {
        let clock = after(at(0), at(-14 * 3_600));
        assert_eq!(clock.judge(at(-14 * 3_600)), ClockState::BeforeSigned { signed_at: at(0) });
        assert!(!clock.judge(at(-14 * 3_600)).may_sign());
    }

    #[test]
    fn a_clock_that_was_reset_remembers_nothing_of_what_it_sees() {
        let clock = after(at(0), UtcTime::from_unix(0));
        assert_eq!(clock.remembered, None);
        assert_eq!(clock.judge(UtcTime::from_unix(0)), ClockState::BeforeBuild);
    }

    proptest! {
        #[test]
        fn a_right_clock_is_stopped_by_what_was_remembered_for_a_day_at_most(
            signatures in prop::collection::vec(-400_000_000..400_000_000_i64, 0..8),
        ) {
            // Whatever times were stated while the clock was right, what is remembered of them has passed a
            // day later.
            let mut clock = Clock::default();
            for signed_at in signatures {
                let _remembered = clock.observe(Some(at(signed_at)), at(0));
            }
            let _remembered = clock.observe(Some(at(AHEAD_S)), at(AHEAD_S));
            prop_assert!(clock.judge(at(AHEAD_S)).is_trusted());
        }

        #[test]
        fn a_clock_above_every_signature_is_trusted(signatures in prop::collection::vec(0..1_000_000_i64, 0..8)) {
            let mut clock = Clock::default();
            for signed_at in signatures {
                let _remembered = clock.observe(Some(at(signed_at)), at(signed_at));
            }
            prop_assert!(clock.judge(at(1_000_000)).is_trusted());
        }
    }
}
