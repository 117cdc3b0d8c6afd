//! By whose clock the hours are counted: the wall clock of a place, as data.
//!
//! The engine has neither a clock nor a time zone database. Whoever configures it looks up how far
//! the place is from UTC, and when its clocks are set; from then on that is a list of numbers.

use std::fmt;

/// Times at which clocks of a place are set. Bounds what a zone costs: twice a year for a century.
const MAX_SETS: usize = 256;
/// The farthest that a wall clock may be from UTC.
const MAX_OFFSET_S: i32 = 26 * 3_600;

/// How far the wall clock of a place is from UTC, now and later.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    first_offset_s: i32,
    /// From when on (seconds since 1970) which offset holds, in order.
    sets: Vec<(i64, i32)>,
}

/// An offset that no wall clock has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no place is {0} seconds from UTC")]
pub struct InvalidOffset(i32);

impl Zone {
    /// A place whose clocks are `first_offset_s` seconds ahead of UTC and are set as `sets` says:
    /// (seconds since 1970, seconds ahead of UTC from then on). What is beyond the bound is left out.
    pub fn new(
        name: impl Into<String>,
        first_offset_s: i32,
        sets: impl IntoIterator<Item = (i64, i32)>,
    ) -> Result<Self, InvalidOffset> {
        let mut sets: Vec<(i64, i32)> = sets.into_iter().take(MAX_SETS).collect();
        sets.sort_unstable();
        let offsets = sets.iter().map(|(_, offset)| *offset).chain([first_offset_s]);
        if let Some(bad) = offsets.into_iter().find(|offset| !(-MAX_OFFSET_S..=MAX_OFFSET_S).contains(offset)) {
            return Err(InvalidOffset(bad));
        }
        Ok(Self { name: name.into(), first_offset_s, sets })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Seconds that the wall clock is ahead of UTC at `at` (seconds since 1970).
    pub fn offset_s(&self, at: i64) -> i32 {
        let before = self.sets.partition_point(|(from, _)| *from <= at);
        before.checked_sub(1).map_or(self.first_offset_s, |index| self.sets[index].1)
    }

    /// What the wall clock shows at `at`, in seconds since its own 1970.
    pub(in crate::engine) fn local(&self, at: i64) -> i64 {
        at.saturating_add(i64::from(self.offset_s(at)))
    }

    /// When the clock is set next after `at`.
    pub(super) fn next_set(&self, at: i64) -> Option<i64> {
        self.sets.get(self.sets.partition_point(|(from, _)| *from <= at)).map(|(from, _)| *from)
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), first_offset_s: 0, sets: Vec::new() }
    }
}

/// A century of settings helps nobody who reads a log.
impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({}, {} s, set {} times)", self.name, self.first_offset_s, self.sets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_the_one_set_last() {
        let zone = Zone::new("there", 3_600, [(2_000, 3_600), (1_000, 7_200)]).expect("valid");
        for (at, offset, next) in
            [(999, 3_600, Some(1_000)), (1_000, 7_200, Some(2_000)), (1_999, 7_200, Some(2_000)), (2_000, 3_600, None)]
        {
            assert_eq!((zone.offset_s(at), zone.next_set(at)), (offset, next), "{at}");
        }
        assert_eq!(zone.local(1_000), 8_200);
    }

    #[test]
    fn an_offset_that_no_place_has_is_refused() {
        assert_eq!(Zone::new("mars", 0, [(0, 90 * 3_600)]), Err(InvalidOffset(90 * 3_600)));
    }
}
