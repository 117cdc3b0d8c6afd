//! Rates as people write them, in configuration files and on the command line: `5MiB/s`, `40Mbit/s`.

/// Units of a rate: name, bytes a second as a fraction. Bits are what lines are sold in.
const UNITS: [(&str, u64, u64); 11] = [
    ("B", 1, 1),
    ("KiB", 1 << 10, 1),
    ("MiB", 1 << 20, 1),
    ("GiB", 1 << 30, 1),
    ("kB", 1_000, 1),
    ("KB", 1_000, 1),
    ("MB", 1_000_000, 1),
    ("GB", 1_000_000_000, 1),
    ("kbit", 1_000, 8),
    ("Mbit", 1_000_000, 8),
    ("Gbit", 1_000_000_000, 8),
];
/// The least that is a rate: one leaf of the hash tree a second. Below that blocks would be late
/// before they are whole.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;
/// The most that is a rate. Bounds every sum that it is a part of.
const MAX_BYTES_PER_SECOND: u64 = 1 << 40;
/// Digits after the point. Bounds the multiplication.
const MAX_DECIMALS: usize = 3;

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// It is nothing of the kind.
    #[error("'{0}' is no rate; write it as 5MiB/s, 500kB/s or 40Mbit/s, 'off' for no limit, 0 for nothing at all")]
    Form(String),
    /// A number alone: of what?
    #[error("'{0}' has no unit; write it as {0}KiB/s, {0}MiB/s or {0}Mbit/s")]
    NoUnit(String),
    /// Too little.
    #[error("'{0}' is less than 16KiB/s, the least that moves anything; 0 pauses")]
    TooLow(String),
    /// Too much.
    #[error("'{0}' is more than 1024GiB/s; 'off' means no limit")]
    TooHigh(String),
}

/// Bytes a second; none for `off`.
pub fn parse_rate(text: &str) -> Result<Option<u64>, InvalidRate> {
    let shown = || text.chars().take(40).collect::<String>();
    let trimmed = text.trim();
    if trimmed == "off" {
        return Ok(None);
    }
    let rate = trimmed.strip_suffix("/s").or_else(|| trimmed.strip_suffix("ps")).unwrap_or(trimmed);
    let split = rate.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rate.len());
    let (number, unit) = (&rate[..split], rate[split..].trim_start());
    let thousandths = thousandths(number).ok_or_else(|| InvalidRate::Form(shown()))?;
    if thousandths == 0 {
        let known = unit.is_empty() || UNITS.iter().any(|(name, ..)| *name == unit);
        return if known { Ok(Some(0)) } else { Err(InvalidRate::Form(shown())) };
    }
    if unit.is_empty() {
        return Err(InvalidRate::NoUnit(shown()));
    }
    let (_, bytes, parts) = UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(|| InvalidRate::Form(shown()))?;
    let rate = u128::from(thousandths) * u128::from(*bytes) / u128::from(*parts) / 1_000;
    match u64::try_from(rate) {
        Ok(rate) if rate < MIN_BYTES_PER_SECOND => Err(InvalidRate::TooLow(shown())),
        Ok(rate) if rate <= MAX_BYTES_PER_SECOND => Ok(Some(rate)),
        _ => Err(InvalidRate::TooHigh(shown())),
    }
}

/// `1.5` as 1500.
fn thousandths(number: &str) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > MAX_DECIMALS || !digits(whole) || !digits(decimals) {
        return None;
    }
    if number.contains('.') && decimals.is_empty() {
        return None;
    }
    // Longer numbers are beyond every bound: they are refused as such.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX / 1_000_000).min(u64::MAX / 1_000_000);
    Some(whole * 1_000 + format!("{decimals:0<3}").parse::<u64>().ok()?)
}

/// A rate such that [`parse_rate`] gives the same again: the largest binary unit without a fraction.
pub fn rate_text(bytes_per_second: Option<u64>) -> String {
    let Some(rate) = bytes_per_second else { return "off".to_owned() };
    if rate == 0 {
        return "0".to_owned();
    }
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = units.into_iter().find(|(_, bits)| rate % (1 << bits) == 0);
    fits.map_or_else(|| format!("{rate}B/s"), |(unit, bits)| format!("{}{unit}/s", rate >> bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read_in_bytes_and_in_bits() {
        for (text, rate) in [
            ("off", None),
            ("0", Some(0)),
            ("0KiB/s", Some(0)),
            ("5MiB/s", Some(5 << 20)),
            ("5 MiB/s", Some(5 << 20)),
            ("5MiB", Some(5 << 20)),
            ("1.5MiB/s", Some(3 << 19)),
            ("500kB/s", Some(500_000)),
            ("40Mbit/s", Some(5_000_000)),
            ("40Mbitps", Some(5_000_000)),
            ("1Gbit/s", Some(125_000_000)),
            ("16KiB/s", Some(16_384)),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_to_write() {
        for (text, part) in [
            ("500", "write it as 500KiB/s"),
            ("fast", "is no rate"),
            ("", "is no rate"),
            ("-5MiB/s", "is no rate"),
            ("5 miles/s", "is no rate"),
            ("5mb/s", "is no rate"),
            ("1.MiB/s", "is no rate"),
            ("1.2345MiB/s", "is no rate"),
            ("1..5MiB/s", "is no rate"),
            ("0parsecs", "is no rate"),
            ("100B/s", "0 pauses"),
            ("99999999999999999999999GiB/s", "'off' means no limit"),
        ] {
            let error = parse_rate(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_rate_survives_its_text(rate in prop_oneof![
            Just(None), Just(Some(0)), (MIN_BYTES_PER_SECOND..=MAX_BYTES_PER_SECOND).prop_map(Some),
            (16..2_000_000_u64).prop_map(|kib| Some(kib << 10)),
        ]) {
            prop_assert_eq!(parse_rate(&rate_text(rate)), Ok(rate));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9]{0,30}[.]?[0-9]{0,6} ?(.{0,6}|MiB/s)") {
            let _ = parse_rate(&text);
        }
    }
}
