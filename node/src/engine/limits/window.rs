//! Hours of the week in which caps hold, as people write them: `mon-fri`, `08:00` to `18:00`.

use std::fmt;
use std::str::FromStr;

use super::{Caps, DAY_S};

/// Days as they are written, Monday first.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// 1970-01-01 was a Thursday.
const FIRST_WEEKDAY: i64 = 3;
/// Every day of the week.
const ALL: u8 = 0b111_1111;
/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// Days of the week; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

/// A text that names no days.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no days; write 'daily', or days such as 'mon-fri' or 'mon,wed,sat-sun'")]
pub struct InvalidDays(String);

impl Days {
    /// Every day.
    pub const DAILY: Self = Self(ALL);

    /// The same days, each a day later.
    fn tomorrow(self) -> Self {
        Self(((self.0 << 1) | (self.0 >> 6)) & ALL)
    }

    fn has(self, day: usize) -> bool {
        self.0 & (1 << (day % 7)) != 0
    }
}

impl FromStr for Days {
    type Err = InvalidDays;

    fn from_str(text: &str) -> Result<Self, InvalidDays> {
        let invalid = || InvalidDays(text.chars().take(40).collect());
        let day = |name: &str| NAMES.iter().position(|known| *known == name.trim()).ok_or_else(invalid);
        if text.trim() == "daily" {
            return Ok(Self::DAILY);
        }
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            // 'sat-mon' goes over the end of the week.
            let count = (last + 7 - first) % 7;
            for step in 0..=count {
                days |= 1 << ((first + step) % 7);
            }
        }
        Ok(Self(days))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::DAILY {
            return f.write_str("daily");
        }
        let mut separator = "";
        let mut day = 0;
        while day < 7 {
            let run = (day..7).take_while(|day| self.has(*day)).count();
            match run {
                0 => {}
                1 => write!(f, "{separator}{}", NAMES[day])?,
                run => write!(f, "{separator}{}-{}", NAMES[day], NAMES[day + run - 1])?,
            }
            if run > 0 {
                separator = ",";
            }
            day += run + 1;
        }
        Ok(())
    }
}

/// A time of the day in minutes, 00:00 to 24:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

/// A text that is no time of the day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no time of the day; write it as 08:00, from 00:00 to 24:00")]
pub struct InvalidTimeOfDay(String);

impl FromStr for TimeOfDay {
    type Err = InvalidTimeOfDay;

    fn from_str(text: &str) -> Result<Self, InvalidTimeOfDay> {
        let invalid = || InvalidTimeOfDay(text.chars().take(40).collect());
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let (hours, minutes) = text.split_once(':').filter(|(h, m)| digits(h) && digits(m)).ok_or_else(invalid)?;
        let (hours, minutes): (u16, u16) =
            (hours.parse().map_err(|_| invalid())?, minutes.parse().map_err(|_| invalid())?);
        let all = hours * 60 + minutes;
        if minutes < 60 && all <= DAY_MINUTES { Ok(Self(all)) } else { Err(invalid()) }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Hours in which caps hold. Those that end before they begin go on over midnight, and belong to
/// the day on which they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    days: Days,
    from: TimeOfDay,
    to: TimeOfDay,
    /// What holds while it is open.
    pub caps: Caps,
}

/// Hours that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// It ends as it begins.
    #[error("a window from {0} to {0} is never open; for a whole day write from = \"00:00\", to = \"24:00\"")]
    Empty(TimeOfDay),
    /// It begins at the end of a day.
    #[error("a window cannot begin at 24:00; write 00:00 and the next day")]
    BeginsAtTheEnd,
    /// It caps nothing.
    #[error("the window {0} limits nothing; give it upload, download or both")]
    LimitsNothing(String),
}

impl Window {
    /// The hours from `from` to `to`, `to` not included, that begin on `days`.
    pub fn new(days: Days, from: TimeOfDay, to: TimeOfDay, caps: Caps) -> Result<Self, InvalidWindow> {
        let window = Self { caps, ..Self::open_hours(days, from, to)? };
        if caps == Caps::default() {
            return Err(InvalidWindow::LimitsNothing(window.hours()));
        }
        Ok(window)
    }

    /// Hours in which something may be done, and no caps.
    pub fn open_hours(days: Days, from: TimeOfDay, to: TimeOfDay) -> Result<Self, InvalidWindow> {
        if from == to {
            return Err(InvalidWindow::Empty(from));
        }
        if from.0 == DAY_MINUTES {
            return Err(InvalidWindow::BeginsAtTheEnd);
        }
        Ok(Self { days, from, to, caps: Caps::default() })
    }

    /// From 00:00 to 24:00.
    pub(in crate::engine) fn is_whole_day(&self) -> bool {
        self.from.0 == 0 && self.to.0 == DAY_MINUTES
    }

    /// Minutes for which it is open.
    pub(in crate::engine) fn length_minutes(&self) -> u16 {
        (self.to.0 + DAY_MINUTES - self.from.0) % DAY_MINUTES
    }

    /// The same, begun so many minutes later: fewer than it is long.
    pub(in crate::engine) fn later_by(&self, minutes: u16) -> Self {
        let from = self.from.0 + minutes;
        if from < DAY_MINUTES {
            return Self { from: TimeOfDay(from), ..self.clone() };
        }
        Self { from: TimeOfDay(from - DAY_MINUTES), days: self.days.tomorrow(), ..self.clone() }
    }

    /// The days on which it begins.
    pub fn days(&self) -> Days {
        self.days
    }

    /// When it begins.
    pub fn from(&self) -> TimeOfDay {
        self.from
    }

    /// When it ends.
    pub fn to(&self) -> TimeOfDay {
        self.to
    }

    fn hours(&self) -> String {
        format!("{}-{} {}", self.from, self.to, self.days)
    }

    /// Minutes of the day at which it may open or close.
    pub(in crate::engine) fn boundaries(&self) -> [u16; 2] {
        [self.from.0, self.to.0 % DAY_MINUTES]
    }

    /// Whether it is open at `local` seconds of the wall clock since 1970.
    pub(in crate::engine) fn is_open(&self, local: i64) -> bool {
        let weekday = (local.div_euclid(DAY_S) + FIRST_WEEKDAY).rem_euclid(7);
        let today = usize::try_from(weekday).unwrap_or(0);
        let minute = local.rem_euclid(DAY_S) / 60;
        let (from, to) = (i64::from(self.from.0), i64::from(self.to.0));
        if from < to {
            return self.days.has(today) && (from..to).contains(&minute);
        }
        (self.days.has(today) && minute >= from) || (self.days.has(today + 6) && minute < to)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window {}", self.hours())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPS: Caps = Caps { upload_bytes_per_second: Some(1), download_bytes_per_second: None };

    fn window(days: &str, from: &str, to: &str) -> Result<Window, InvalidWindow> {
        let time = |text: &str| text.parse().expect("a time");
        Window::new(days.parse().expect("days"), time(from), time(to), CAPS)
    }

    /// Seconds of the wall clock at an hour of a day of the week of Monday, 2026-11-23.
    fn at(day: i64, hour: i64, minute: i64) -> i64 {
        20_780 * DAY_S + day * DAY_S + hour * 3_600 + minute * 60
    }

    #[test]
    fn days_are_read_in_the_usual_forms_and_shown_in_one() {
        for (text, shown) in [
            ("daily", "daily"),
            ("mon-sun", "daily"),
            ("mon-fri", "mon-fri"),
            ("fri,mon,tue,wed,thu", "mon-fri"),
            ("sat-mon", "mon,sat-sun"),
            ("sun", "sun"),
            ("mon, wed", "mon,wed"),
        ] {
            assert_eq!(text.parse::<Days>().expect(text).to_string(), shown);
        }
        for bad in ["", "monday", "Mon", "mon-", "mon;tue", "8-18"] {
            assert!(bad.parse::<Days>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_hours_and_minutes_of_one_day() {
        for text in ["00:00", "08:05", "23:59", "24:00"] {
            assert_eq!(text.parse::<TimeOfDay>().expect(text).to_string(), text);
        }
        for bad in ["8:00", "08:60", "24:01", "25:00", "08", "+8:00", "08:00:00", ""] {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
        }
    }

    #[test]
    fn office_hours_are_open_on_working_days_only() {
        let window = window("mon-fri", "08:00", "18:00").expect("valid");
        assert_eq!(window.to_string(), "window 08:00-18:00 mon-fri");
        for (time, open) in [
            (at(0, 7, 59), false),
            (at(0, 8, 0), true),
            (at(4, 17, 59), true),
            (at(4, 18, 0), false),
            (at(5, 12, 0), false),
            (at(6, 12, 0), false),
        ] {
            assert_eq!(window.is_open(time), open, "{time}");
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let friday = window("fri", "22:00", "06:00").expect("valid");
        for (time, open) in [
            (at(4, 5, 0), false),
            (at(4, 21, 59), false),
            (at(4, 22, 0), true),
            (at(5, 5, 59), true),
            (at(5, 6, 0), false),
            (at(5, 23, 0), false),
        ] {
            assert_eq!(friday.is_open(time), open, "{time}");
        }
        let sunday = window("sun", "22:00", "06:00").expect("valid");
        assert!(sunday.is_open(at(0, 1, 0)), "the night from Sunday to Monday");
    }

    #[test]
    fn a_whole_day_ends_at_midnight() {
        let window = window("sat", "00:00", "24:00").expect("valid");
        assert!(window.is_open(at(5, 0, 0)) && window.is_open(at(5, 23, 59)));
        assert!(!window.is_open(at(4, 23, 59)) && !window.is_open(at(6, 0, 0)));
    }

    #[test]
    fn windows_that_make_no_sense_are_refused_with_what_to_write() {
        assert!(window("daily", "08:00", "08:00").expect_err("empty").to_string().contains("\"24:00\""));
        assert_eq!(window("daily", "24:00", "08:00"), Err(InvalidWindow::BeginsAtTheEnd));
        let [from, to] = ["08:00", "09:00"].map(|text| text.parse().expect("a time"));
        let refused = Window::new(Days::DAILY, from, to, Caps::default()).expect_err("limits nothing");
        assert!(refused.to_string().contains("08:00-09:00 daily limits nothing"), "{refused}");
    }

    proptest! {
        #[test]
        fn days_survive_their_text(bits in 1..=ALL) {
            let days = Days(bits);
            prop_assert_eq!(days.to_string().parse(), Ok(days));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,12}") {
            let _ = text.parse::<Days>();
            let _ = text.parse::<TimeOfDay>();
        }
    }
}
