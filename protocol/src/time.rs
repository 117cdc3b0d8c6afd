//! Wall-clock time as signed metadata states it. The caller brings `now`.

use std::fmt;
use std::str::FromStr;

/// A point in time, whole seconds, UTC. Shown and parsed as RFC 3339 with a `Z`, no fraction
/// (TUF 4.2.1): `2026-11-22T14:31:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UtcTime(i64);

/// A text that is not a UTC time in TUF's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a UTC time of the form 2026-11-22T14:31:00Z")]
pub struct InvalidTime;

/// The last second of the year 9999, the largest that the text form can state.
const MAX_SECONDS: i64 = 253_402_300_799;

impl UtcTime {
    /// From seconds since 1970, clamped to the years 1970-9999 that the text form can state.
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.clamp(0, MAX_SECONDS))
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// This time and `seconds` more (or less), clamped like [`UtcTime::from_unix`].
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self::from_unix(self.0.saturating_add(seconds))
    }

    /// This time and `days` of 86,400 seconds more.
    #[must_use]
    pub fn plus_days(self, days: i64) -> Self {
        self.plus_seconds(days.saturating_mul(86_400))
    }

    /// Seconds from `earlier` to this time; negative when `earlier` is later.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl FromStr for UtcTime {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let shape = b"dddd-dd-ddTdd:dd:ddZ";
        let fits = text.len() == shape.len()
            && text.bytes().zip(shape).all(|(byte, kind)| match kind {
                b'd' => byte.is_ascii_digit(),
                _ => byte == *kind,
            });
        if !fits || &text[17..19] == "60" {
            return Err(InvalidTime);
        }
        let stamp: jiff::Timestamp = text.parse().map_err(|_| InvalidTime)?;
        let seconds = stamp.as_second();
        if (0..=MAX_SECONDS).contains(&seconds) { Ok(Self(seconds)) } else { Err(InvalidTime) }
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = jiff::Timestamp::from_second(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{}", stamp.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl fmt::Debug for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for UtcTime {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<UtcTime> for String {
    fn from(time: UtcTime) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_tufs_form_parses() {
        assert_eq!("1970-01-01T00:00:00Z".parse(), Ok(UtcTime(0)));
        assert_eq!("2030-02-28T23:59:59Z".parse::<UtcTime>().map(UtcTime::unix), Ok(1_898_553_599));
        for bad in [
            "",
            "2030-02-28",
            "2030-02-28T23:59:59",
            "2030-02-28T23:59:59.5Z",
            "2030-02-28T23:59:59+00:00",
            "2030-02-28 23:59:59Z",
            "2030-02-29T00:00:00Z",
            "2030-02-28T23:59:60Z",
            "1969-12-31T23:59:59Z",
            "２030-02-28T23:59:59Z",
        ] {
            assert_eq!(bad.parse::<UtcTime>(), Err(InvalidTime), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_survives_its_text(seconds in 0..=MAX_SECONDS) {
            let time = UtcTime::from_unix(seconds);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
