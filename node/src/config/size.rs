//! A number of bytes as people write it, or none.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Units by name, in bytes.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Characters of a wrong size that an error repeats.
const SHOWN_CHARS: usize = 40;

/// What is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no size; write a whole number with its unit, such as 20GiB or 500MB, or 'off'")]
pub struct InvalidSize(String);

/// A size in bytes; none for `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SizeLimit(pub Option<u64>);

impl FromStr for SizeLimit {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize(text.chars().take(SHOWN_CHARS).collect());
        let trimmed = text.trim();
        if trimmed == "off" {
            return Ok(Self(None));
        }
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let bytes = number.checked_mul(*unit).filter(|bytes| *bytes > 0).ok_or_else(invalid)?;
        Ok(Self(Some(bytes)))
    }
}

impl TryFrom<String> for SizeLimit {
    type Error = InvalidSize;

    fn try_from(text: String) -> Result<Self, InvalidSize> {
        text.parse()
    }
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else { return f.write_str("off") };
        // The largest unit that says it exactly.
        let fits = |(_, unit): &&(&str, u64)| bytes % unit == 0;
        let (name, unit) = UNITS.iter().filter(fits).max_by_key(|(_, unit)| *unit).unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", bytes / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("20GiB", 20 << 30), ("500MB", 500_000_000), (" 7 B ", 7), ("1kB", 1_000)] {
            assert_eq!(text.parse(), Ok(SizeLimit(Some(bytes))), "{text}");
        }
        assert_eq!("off".parse(), Ok(SizeLimit(None)));
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for limit in [None, Some(1), Some(1_500), Some(20 << 30), Some(500_000_000), Some(u64::MAX)] {
            let limit = SizeLimit(limit);
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        assert_eq!(SizeLimit(Some(20 << 30)).to_string(), "20GiB");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "5", "0GiB", "-1GiB", "1.5GiB", "5Gib", "5GiB/s", "18446744073709551615TiB", "99999999999999999999B"]
        {
            let refused = text.parse::<SizeLimit>().expect_err(text).to_string();
            assert!(refused.contains("such as 20GiB"), "{refused}");
        }
    }
}
