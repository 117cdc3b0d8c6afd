//! How fast this node may send and receive: the caps, the hours in which others hold, and why.
//!
//! Somebody who asks why a transfer is slow must get one answer: which cap is in force now, what
//! set it, and until when. Pure: the time comes in, the hours of the place come in as data
//! ([`Zone`]). What keeps to a cap is the scheduler; what a cap never does is make a signature,
//! a head or a control message wait.

use std::collections::BTreeSet;

use updraft_protocol::time::UtcTime;

pub use self::lan::{is_lan, is_near};
pub use self::text::{InvalidRate, parse_rate, rate_text};
pub use self::window::{Days, InvalidDays, InvalidTimeOfDay, InvalidWindow, TimeOfDay, Window};
pub use self::zone::{InvalidOffset, Zone};

mod applied;
mod lan;
mod text;
mod window;
mod zone;

pub(crate) use self::applied::Applied;

/// Seconds of a day by the wall clock.
const DAY_S: i64 = 86_400;
/// Days within which a change is looked for. Windows repeat every week; in the week in which clocks
/// are set forward one may not occur at all, so that the next week is looked at too.
pub(in crate::engine) const LOOK_AHEAD_S: i64 = 15 * DAY_S;

/// What may pass in a second. None: no cap. 0: nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// Bytes to others.
    pub upload_bytes_per_second: Option<u64>,
    /// Bytes from others.
    pub download_bytes_per_second: Option<u64>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Caps {
    fn of(self, way: Way) -> Option<u64> {
        match way {
            Way::Up => self.upload_bytes_per_second,
            Way::Down => self.download_bytes_per_second,
        }
    }
}

/// What an operator said about rates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Caps that always hold.
    pub always: Caps,
    /// Hours in which lower ones hold. The lowest of all that hold at a time is in force.
    pub windows: Vec<Window>,
    /// By whose clock the windows open.
    pub zone: Zone,
    /// Peers of the local network are not held back, and what passes between them does not count.
    pub lan_exempt: bool,
}

/// The limit of one direction at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limit {
    /// The cap; none: no limit; 0: nothing passes.
    pub bytes_per_second: Option<u64>,
    /// What set it: `always`, `window 08:00-18:00 mon-fri`, or why there is none.
    pub why: String,
    /// When the answer will be another; none where it never will.
    pub until: Option<UtcTime>,
}

/// The limits at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InForce {
    /// To others.
    pub upload: Limit,
    /// From others.
    pub download: Limit,
}

/// What sets a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Nothing,
    Always,
    Window(usize),
}

type Answer = (Option<u64>, Cause);

impl Limits {
    /// The limits in force at `now`.
    pub fn in_force(&self, now: UtcTime) -> InForce {
        InForce { upload: self.limit(Way::Up, now), download: self.limit(Way::Down, now) }
    }

    /// Windows that lower no cap at any time, because a lower one always holds: most likely a mistake.
    pub fn idle_windows(&self) -> Vec<&Window> {
        let lowers = |window: &Window, way| match (window.caps.of(way), self.always.of(way)) {
            (Some(cap), Some(always)) => cap < always,
            (cap, None) => cap.is_some(),
            (None, Some(_)) => false,
        };
        self.windows.iter().filter(|window| !lowers(window, Way::Up) && !lowers(window, Way::Down)).collect()
    }

    fn limit(&self, way: Way, now: UtcTime) -> Limit {
        let (bytes_per_second, cause) = self.answer(way, now.unix());
        let why = match cause {
            Cause::Always => "always".to_owned(),
            Cause::Window(index) => self.windows[index].to_string(),
            Cause::Nothing if self.has_window(way) => "no window is open".to_owned(),
            Cause::Nothing => "no limit is set".to_owned(),
        };
        let until = self.next_change(way, now.unix()).map(UtcTime::from_unix);
        Limit { bytes_per_second, why, until }
    }

    fn has_window(&self, way: Way) -> bool {
        self.windows.iter().any(|window| window.caps.of(way).is_some())
    }

    /// The lowest cap that holds at `at`. Of equal ones the one that was named first.
    fn answer(&self, way: Way, at: i64) -> Answer {
        let local = self.zone.local(at);
        let always = self.always.of(way).map(|cap| (cap, Cause::Always));
        let open = self.windows.iter().enumerate().filter(|(_, window)| window.is_open(local));
        let windows = open.filter_map(|(index, window)| Some((window.caps.of(way)?, Cause::Window(index))));
        let lowest = always.into_iter().chain(windows).min_by_key(|(cap, _)| *cap);
        lowest.map_or((None, Cause::Nothing), |(cap, cause)| (Some(cap), cause))
    }

    fn next_change(&self, way: Way, now: i64) -> Option<i64> {
        let windows = self.windows.iter().filter(|window| window.caps.of(way).is_some());
        let minutes: BTreeSet<u16> = windows.flat_map(Window::boundaries).collect();
        let answer = self.answer(way, now);
        let mut at = now;
        while let Some(next) = next_boundary(&self.zone, &minutes, at).filter(|next| *next - now <= LOOK_AHEAD_S) {
            if self.answer(way, next) != answer {
                return Some(next);
            }
            at = next;
        }
        None
    }
}

/// The first time after `at` at which the wall clock of `zone` shows one of `minutes`, or is set.
pub(in crate::engine) fn next_boundary(zone: &Zone, minutes: &BTreeSet<u16>, at: i64) -> Option<i64> {
    let local = zone.local(at);
    let into_day = local.rem_euclid(DAY_S);
    let starts = minutes.iter().map(|minute| i64::from(*minute) * 60);
    let next = starts.map(|start| if start > into_day { start - into_day } else { start - into_day + DAY_S }).min();
    let set = zone.next_set(at);
    next.map(|wait| set.map_or(at + wait, |set| set.min(at + wait)))
}

#[cfg(test)]
mod tests;
