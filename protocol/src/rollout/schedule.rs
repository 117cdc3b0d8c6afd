//! A rollout as people write it: `10@now,50@+1d,100@+3d`, and the durations in it.
//!
//! Times may be relative; they become the absolute ones of a [`Rollout`] when somebody signs it.

use std::fmt;
use std::str::FromStr;

use super::{Rollout, Stage};
use crate::limits::MAX_ROLLOUT_STAGES;
use crate::time::UtcTime;

/// Units of a duration, the largest first, in seconds.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// The longest duration that is read: ten years.
const MAX_DURATION_S: u64 = 10 * 366 * 86_400;
/// Characters of what is quoted back.
const QUOTED: usize = 40;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no duration; write 90s, 30m, 12h, 3d, 2w, or several together such as 1d12h, up to ten years")]
pub struct InvalidDuration(String);

/// Seconds of a duration such as `1d12h`.
pub fn parse_duration(text: &str) -> Result<u64, InvalidDuration> {
    let invalid = || InvalidDuration(text.chars().take(QUOTED).collect());
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit = rest[digits..].chars().next().ok_or_else(invalid)?;
        // Each unit once, the largest first: anything else is a slip of the finger.
        let (_, seconds) = units.by_ref().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let part = number.checked_mul(*seconds).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|total| *total <= MAX_DURATION_S).ok_or_else(invalid)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    if text.is_empty() { Err(invalid()) } else { Ok(total) }
}

/// A duration such that [`parse_duration`] gives the same again: `1d12h`.
pub fn duration_text(seconds: u64) -> String {
    let mut left = seconds;
    let mut text = String::new();
    for (unit, size) in UNITS {
        if left >= size {
            text += &(left / size).to_string();
            text.push(unit);
            left %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// When a stage begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// So many seconds after it is signed.
    After(u64),
    /// At this time.
    At(UtcTime),
}

/// A rollout whose times may still be relative. In JSON it is its text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule(Vec<(u8, When)>);

/// A text that is no rollout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// A stage that cannot be read.
    #[error(
        "'{0}' is no stage of a rollout; write PERCENT@WHEN: 10@now, 50@+1d (after a day), 100@2026-12-01T08:00:00Z; stages are parted by commas"
    )]
    Stage(String),
    /// A stage that begins before the one in front of it, or reaches fewer nodes.
    #[error("the stage {0} does not go on from the one before it: percentages and times only grow")]
    Order(String),
    /// More stages than a policy may have.
    #[error("{0} stages; at most {MAX_ROLLOUT_STAGES} are allowed")]
    TooMany(usize),
}

impl Schedule {
    /// Everybody, at once.
    pub fn full() -> Self {
        Self(vec![(100, When::After(0))])
    }

    /// The rollout, where it is signed at `now`.
    pub fn starting(&self, now: UtcTime) -> Result<Rollout, InvalidSchedule> {
        let at = |when: &When| match when {
            When::After(seconds) => now.plus_seconds(i64::try_from(*seconds).unwrap_or(i64::MAX)),
            When::At(time) => *time,
        };
        let stages: Vec<Stage> =
            self.0.iter().map(|(percent, when)| Stage { percent: *percent, at: at(when) }).collect();
        for (before, (stage, written)) in stages.iter().zip(stages.iter().zip(&self.0).skip(1)) {
            if stage.at < before.at || stage.percent < before.percent {
                return Err(InvalidSchedule::Order(text_of(*written)));
            }
        }
        let start = stages.first().map_or(now, |first| first.at);
        // That everybody may come at once needs no stages.
        let is_full = stages.iter().all(|stage| stage.percent == 100);
        Ok(Rollout { start, stages: if is_full { Vec::new() } else { stages } })
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let count = text.split(',').count();
        if count > MAX_ROLLOUT_STAGES {
            return Err(InvalidSchedule::TooMany(count));
        }
        let stages = text.split(',').map(|part| {
            let part = part.trim();
            let invalid = || InvalidSchedule::Stage(part.chars().take(QUOTED).collect());
            let (percent, when) = part.split_once('@').ok_or_else(invalid)?;
            let percent = percent.trim_end_matches('%');
            let is_number = !percent.is_empty() && percent.bytes().all(|byte| byte.is_ascii_digit());
            let percent = percent.parse().ok().filter(|percent| is_number && *percent <= 100).ok_or_else(invalid)?;
            let when = match (when, when.strip_prefix('+')) {
                ("now", _) => When::After(0),
                (_, Some(duration)) => When::After(parse_duration(duration).map_err(|_| invalid())?),
                (time, None) => When::At(time.parse().map_err(|_| invalid())?),
            };
            Ok((percent, when))
        });
        let schedule = Self(stages.collect::<Result<_, _>>()?);
        // What is wrong among relative times alone is wrong whenever it is signed.
        let relative = schedule.0.iter().all(|(_, when)| matches!(when, When::After(_)));
        if relative {
            schedule.starting(UtcTime::from_unix(0))?;
        }
        Ok(schedule)
    }
}

impl TryFrom<String> for Schedule {
    type Error = InvalidSchedule;

    fn try_from(text: String) -> Result<Self, InvalidSchedule> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

fn text_of((percent, when): (u8, When)) -> String {
    match when {
        When::After(0) => format!("{percent}@now"),
        When::After(seconds) => format!("{percent}@+{}", duration_text(seconds)),
        When::At(time) => format!("{percent}@{time}"),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages: Vec<String> = self.0.iter().map(|stage| text_of(*stage)).collect();
        f.write_str(&stages.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> UtcTime {
        UtcTime::from_unix(1_800_000_000 + seconds)
    }

    #[test]
    fn durations_are_read_in_the_usual_forms() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("1d12h", 129_600), ("2w", 1_209_600), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for bad in ["", "1", "h", "1h1h", "1m1h", "-1s", "1.5h", "1é", "99999999999999999999s", "1000w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_schedule_becomes_stages_from_the_time_of_signing() {
        let schedule: Schedule = "10@now,50%@+1d, 100@2027-01-18T08:00:00Z".parse().expect("a schedule");
        let rollout = schedule.starting(at(0)).expect("in order");
        let stages: Vec<(u8, UtcTime)> = rollout.stages.iter().map(|stage| (stage.percent, stage.at)).collect();
        assert_eq!(stages, [(10, at(0)), (50, at(86_400)), (100, at(3 * 86_400))]);
        assert_eq!(rollout.start, at(0));
    }

    #[test]
    fn everybody_at_once_has_no_stages() {
        let rollout = Schedule::full().starting(at(5)).expect("in order");
        assert_eq!(rollout, Rollout { start: at(5), stages: Vec::new() });
        assert!(rollout.is_full_at(at(5)) && !rollout.is_full_at(at(4)));
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_to_write() {
        for bad in ["", "10", "@now", "101@now", "+5@now", "10@then", "10@+", "10@now,,50@+1d", "10 @now"] {
            let error = bad.parse::<Schedule>().expect_err(bad);
            assert!(error.to_string().contains("PERCENT@WHEN"), "{bad}: {error}");
        }
        for bad in ["50@now,10@+1d", "10@+2d,50@+1d"] {
            assert!(matches!(bad.parse::<Schedule>(), Err(InvalidSchedule::Order(_))), "{bad}");
        }
        let past: Schedule = "10@now,50@2020-01-01T00:00:00Z".parse().expect("each stage is one");
        assert!(past.starting(at(0)).expect_err("goes back").to_string().contains("50@2020"));
        assert!(matches!(vec!["1@now"; 33].join(",").parse::<Schedule>(), Err(InvalidSchedule::TooMany(33))));
    }

    proptest! {
        #[test]
        fn durations_survive_their_text(seconds in 0..=MAX_DURATION_S) {
            prop_assert_eq!(parse_duration(&duration_text(seconds)), Ok(seconds));
        }

        #[test]
        fn schedules_survive_their_text(mut stages in prop::collection::vec((0..=100_u8, 0..1_000_000_u64), 1..8)) {
            stages.sort_unstable();
            let mut later = 0;
            let stages = stages.into_iter().map(|(percent, wait)| {
                later += wait;
                (percent, When::After(later))
            });
            let schedule = Schedule(stages.collect());
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule.clone()));
            prop_assert!(schedule.starting(at(0)).expect("in order").validate().is_ok());
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,30}", parts in "([0-9]{0,3}@(now|\\+[0-9]{0,3}[wdhmsé]?),?){0,4}") {
            for text in [text, parts] {
                let _ = parse_duration(&text);
                let _ = text.parse::<Schedule>();
            }
        }
    }
}
