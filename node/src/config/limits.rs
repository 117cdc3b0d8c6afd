//! Limits as they are configured: rates, hours, by whose clock, and how many copies may leave.
//!
//! ```toml
//! upload_limit = "5MiB/s"
//! limit_time_zone = "Europe/Berlin"
//!
//! [[limit_windows]]
//! days = "mon-fri"
//! from = "08:00"
//! to = "18:00"
//! upload = "1MiB/s"
//! ```

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use crate::engine::limits::{
    Caps, Days, InvalidDays, InvalidOffset, InvalidRate, InvalidTimeOfDay, InvalidWindow, TimeOfDay, Window, Zone,
    parse_rate,
};

/// The time zone that holds where none is named: this machine's.
pub const LOCAL: &str = "local";
/// From when on the settings of a zone's clocks are looked up: 2026-01-01.
const ZONE_FROM: i64 = 1_767_225_600;
/// Settings of clocks that are looked up: a century of summers.
const ZONE_SETS: usize = 200;
/// Characters of a zone's name. Bounds what becomes a path in the system's time zone database.
const MAX_ZONE_CHARS: usize = 64;
/// The smallest budget: each piece may leave once.
const MIN_BUDGET_PERCENT: u32 = 100;
/// The largest budget that is one.
const MAX_BUDGET_PERCENT: u32 = 1_000_000;

/// Why a limit makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// A rate.
    #[error(transparent)]
    Rate(#[from] InvalidRate),
    /// Days of a window.
    #[error(transparent)]
    Days(#[from] InvalidDays),
    /// Hours of a window.
    #[error(transparent)]
    Time(#[from] InvalidTimeOfDay),
    /// A window as a whole.
    #[error(transparent)]
    Window(#[from] InvalidWindow),
    /// A zone that this machine does not know.
    #[error(
        "'{0}' is no time zone that this machine knows; write 'local', 'UTC', an offset such as '+01:00', or a name such as 'Europe/Berlin' (its tzdata must be installed)"
    )]
    Zone(String),
    /// A zone whose clocks are set to what no clock shows.
    #[error("the time zone database of this machine is damaged: {0}")]
    Offset(#[from] InvalidOffset),
    /// A budget.
    #[error(
        "'{0}' is no egress budget; write the copies of each artifact that may leave, 1 to 10000, such as 1.2, or 'off'"
    )]
    Budget(String),
}

/// A rate or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct RateText(pub(super) Option<u64>);

impl TryFrom<String> for RateText {
    type Error = InvalidRate;

    fn try_from(text: String) -> Result<Self, InvalidRate> {
        parse_rate(&text).map(Self)
    }
}

/// A time zone's name; it is known here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ZoneText(pub(super) String);

impl TryFrom<String> for ZoneText {
    type Error = InvalidLimit;

    fn try_from(text: String) -> Result<Self, InvalidLimit> {
        look_up(&text).map(|_| Self(text))
    }
}

/// One `[[limit_windows]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WindowTable")]
pub(super) struct FileWindow(pub(super) Window);

/// The same, not yet looked at as a whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    days: Option<String>,
    from: String,
    to: String,
    upload: Option<RateText>,
    download: Option<RateText>,
}

impl TryFrom<WindowTable> for FileWindow {
    type Error = InvalidLimit;

    fn try_from(table: WindowTable) -> Result<Self, InvalidLimit> {
        let days: Days = table.days.map_or(Ok(Days::DAILY), |days| days.parse())?;
        let (from, to): (TimeOfDay, TimeOfDay) = (table.from.parse()?, table.to.parse()?);
        let caps = Caps {
            upload_bytes_per_second: table.upload.and_then(|rate| rate.0),
            download_bytes_per_second: table.download.and_then(|rate| rate.0),
        };
        Ok(Self(Window::new(days, from, to, caps)?))
    }
}

/// One `[[maintenance_windows]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "HoursTable")]
pub(super) struct FileHours(pub(super) Window);

/// The same, not yet looked at as a whole.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursTable {
    days: Option<String>,
    from: String,
    to: String,
}

impl TryFrom<HoursTable> for FileHours {
    type Error = InvalidLimit;

    fn try_from(table: HoursTable) -> Result<Self, InvalidLimit> {
        let days: Days = table.days.map_or(Ok(Days::DAILY), |days| days.parse())?;
        Ok(Self(Window::open_hours(days, table.from.parse()?, table.to.parse()?)?))
    }
}

/// Copies of each artifact that may leave, in percent of one; none for `off`.
pub fn parse_budget(text: &str) -> Result<Option<u32>, InvalidLimit> {
    let invalid = || InvalidLimit::Budget(text.chars().take(40).collect());
    if text == "off" {
        return Ok(None);
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
        return Err(invalid());
    }
    let whole: u32 = whole.parse().map_err(|_| invalid())?;
    let hundredths: u32 = format!("{decimals:0<2}").parse().map_err(|_| invalid())?;
    let percent = whole.checked_mul(100).and_then(|percent| percent.checked_add(hundredths)).ok_or_else(invalid)?;
    if (MIN_BUDGET_PERCENT..=MAX_BUDGET_PERCENT).contains(&percent) { Ok(Some(percent)) } else { Err(invalid()) }
}

/// A budget such that [`parse_budget`] gives the same again: `1.2`.
pub fn budget_text(percent: Option<u32>) -> String {
    percent.map_or_else(
        || "off".to_owned(),
        |percent| {
            let text = format!("{}.{:02}", percent / 100, percent % 100);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        },
    )
}

/// `1.2`, `2` or `"off"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget(pub(super) Option<u32>);

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Budget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of copies, such as 1.2, or \"off\"")
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Budget, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Budget, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Budget, E> {
                parse_budget(text).map(Budget).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader).map_err(D::Error::custom)
    }
}

/// What the clocks of the place of that name show, now and later.
pub(super) fn look_up(name: &str) -> Result<Zone, InvalidLimit> {
    let unknown = || InvalidLimit::Zone(name.chars().take(MAX_ZONE_CHARS).collect());
    if name.is_empty() || name.len() > MAX_ZONE_CHARS {
        return Err(unknown());
    }
    if let Some(offset_s) = fixed(name) {
        return Ok(Zone::new(name, offset_s, [])?);
    }
    let zone = match name {
        "UTC" => TimeZone::UTC,
        // A machine that does not say where it is shows UTC.
        LOCAL => TimeZone::try_system().unwrap_or(TimeZone::UTC),
        name => TimeZone::get(name).map_err(|_| unknown())?,
    };
    let from = Timestamp::from_second(ZONE_FROM).map_err(|_| unknown())?;
    let sets = zone.following(from).take(ZONE_SETS);
    let sets: Vec<(i64, i32)> = sets.map(|set| (set.timestamp().as_second(), set.offset().seconds())).collect();
    Ok(Zone::new(name, zone.to_offset(from).seconds(), sets)?)
}

/// `+01:00` or `-03:30` in seconds.
fn fixed(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, most: i32| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| digits && *number <= most)
    };
    Some(sign * (number(hours, 15)? * 3_600 + number(minutes, 59)? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_and_names_are_zones() {
        assert_eq!(look_up("UTC"), Ok(Zone::default()));
        for (name, offset_s) in [("+01:00", 3_600), ("-03:30", -12_600), ("+00:00", 0)] {
            let zone = look_up(name).expect(name);
            assert_eq!((zone.name(), zone.offset_s(ZONE_FROM)), (name, offset_s));
        }
        assert_eq!(look_up(LOCAL).expect("always known").name(), LOCAL);
    }

    #[test]
    fn what_is_no_zone_is_refused_with_what_to_write() {
        for bad in ["", "Mars/Olympus", "+1", "+25:00", "+01:60", "../../etc/passwd", "/etc/passwd", "+ 1:00"] {
            let error = look_up(bad).expect_err(bad).to_string();
            assert!(error.contains("Europe/Berlin"), "{bad}: {error}");
        }
    }

    /// A machine without a time zone database has nothing to be asked.
    #[test]
    fn a_place_has_its_summer_time() {
        let Ok(zone) = look_up("Europe/Berlin") else { return };
        let offset_h =
            |time: &str| zone.offset_s(time.parse::<updraft_protocol::time::UtcTime>().expect("a time").unix()) / 3_600;
        assert_eq!(["2026-01-15T00:00:00Z", "2026-07-15T00:00:00Z", "2040-07-15T00:00:00Z"].map(offset_h), [1, 2, 2]);
    }

    #[test]
    fn budgets_are_copies_and_at_least_one() {
        for (text, percent) in
            [("off", None), ("1", Some(100)), ("1.2", Some(120)), ("1.05", Some(105)), ("10000", Some(1_000_000))]
        {
            assert_eq!(parse_budget(text), Ok(percent), "{text}");
            assert_eq!(budget_text(percent), text);
        }
        for bad in ["", "0", "0.99", "-1", "1.234", "1.", ".5", "10000.01", "99999999999", "two", "1e3", "NaN"] {
            assert!(parse_budget(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,70}") {
            let _ = parse_budget(&text);
            let _ = look_up(&text);
        }

        #[test]
        fn every_budget_survives_its_text(percent in MIN_BUDGET_PERCENT..=MAX_BUDGET_PERCENT) {
            prop_assert_eq!(parse_budget(&budget_text(Some(percent))), Ok(Some(percent)));
        }
    }
}
