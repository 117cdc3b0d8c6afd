//! The `Range` header (RFC 9110, section 14): one range of bytes, or the whole.
//!
//! Several ranges in one request are legal to ignore, and are: nobody who downloads needs them, and
//! answering them has a history of amplification.

use std::ops::Range;

/// What a `Range` header asks of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: another unit, several ranges, or nonsense (RFC 9110: ignored).
    Whole,
    /// These bytes; never empty, never beyond the end.
    Part(Range<u64>),
    /// Bytes that are not there: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a body of `length` bytes.
pub fn parse(header: &str, length: u64) -> Wanted {
    let Some((first, last)) = single(header) else {
        return Wanted::Whole;
    };
    let range = match (first, last) {
        (Some(first), Some(last)) if first > last => return Wanted::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(length),
        (Some(first), None) => first..length,
        (None, Some(suffix)) => length.saturating_sub(suffix)..length,
        (None, None) => return Wanted::Whole,
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Unsatisfiable }
}

/// The two numbers of `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-SUFFIX`.
fn single(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, spec) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim_matches([' ', '\t']).split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(first) && digits(last)).then(|| (number(first), number(last)))
}

/// The value of digits; nothing for none. A number beyond 64 bits is beyond every body.
fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms_of_a_range_are_read() {
        assert_eq!(parse("bytes=0-0", 10), Wanted::Part(0..1));
        assert_eq!(parse("bytes=2-5", 10), Wanted::Part(2..6));
        assert_eq!(parse("bytes=7-", 10), Wanted::Part(7..10));
        assert_eq!(parse("bytes=-3", 10), Wanted::Part(7..10));
        assert_eq!(parse("Bytes= 2-5 ", 10), Wanted::Part(2..6));
    }

    #[test]
    fn a_range_is_cut_at_the_end() {
        assert_eq!(parse("bytes=5-99999999999999999999999", 10), Wanted::Part(5..10));
        assert_eq!(parse("bytes=-99", 10), Wanted::Part(0..10));
    }

    #[test]
    fn bytes_that_are_not_there_are_unsatisfiable() {
        for header in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(parse(header, 10), Wanted::Unsatisfiable, "{header}");
        }
        assert_eq!(parse("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(parse("bytes=-1", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_no_single_range_means_the_whole() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1 - 2",
        ] {
            assert_eq!(parse(header, 10), Wanted::Whole, "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_end(header in "(bytes=)?[0-9,a -]{0,24}", length in any::<u64>()) {
            if let Wanted::Part(range) = parse(&header, length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }

        #[test]
        fn no_header_makes_the_parser_panic(header in ".{0,60}", length in any::<u64>()) {
            let _ = parse(&header, length);
        }
    }
}
