//! The hours in which this machine may change: maintenance windows, by the clock of its place.
//!
//! Bytes may come in at any time; what waits for a window is the install. The nodes of a fleet with one
//! window do not begin in the same minute: each begins a while into it, always the same while for a node,
//! at most half of the window and at most an hour. Pure: the time and the node's id come in.

use std::collections::BTreeSet;

use updraft_protocol::digest::Hasher;
use updraft_protocol::time::UtcTime;

use super::limits::{LOOK_AHEAD_S, Window, Zone, next_boundary};

/// The farthest into a window that a node begins.
const MAX_JITTER_MINUTES: u16 = 60;

/// What an operator said about maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maintenance {
    /// Hours in which installs may begin; empty: at any time.
    pub windows: Vec<Window>,
    /// By whose clock.
    pub zone: Zone,
}

/// The windows of one node: those that were configured, each begun a while later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnWindows {
    configured: Vec<Window>,
    own: Vec<Window>,
    zone: Zone,
}

/// Whether installs may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowState {
    /// They may.
    pub open: bool,
    /// Why, for people.
    pub reason: String,
    /// When they may next, where they may not.
    pub opens_at: Option<UtcTime>,
}

fn jitter_minutes(node: &[u8], window: &Window) -> u16 {
    let length = window.length_minutes();
    if window.is_whole_day() {
        return 0;
    }
    let mut hasher = Hasher::new();
    hasher.update(b"updraft maintenance\n");
    hasher.update(window.to_string().as_bytes());
    hasher.update(node);
    let digest = hasher.finish();
    let random = u16::from_be_bytes([digest.as_bytes()[0], digest.as_bytes()[1]]);
    // The bound is small against 2^16: the remainder favours nobody noticeably.
    random % (length / 2).clamp(1, MAX_JITTER_MINUTES)
}

impl Maintenance {
    /// The windows of the node with this id.
    pub fn of_node(&self, node: &[u8]) -> OwnWindows {
        let own = self.windows.iter().map(|window| window.later_by(jitter_minutes(node, window)));
        OwnWindows { own: own.collect(), configured: self.windows.clone(), zone: self.zone.clone() }
    }
}

impl OwnWindows {
    /// Whether installs may begin at `now`.
    pub fn at(&self, now: UtcTime) -> WindowState {
        if self.own.is_empty() {
            let reason = "no maintenance windows are set".to_owned();
            return WindowState { open: true, reason, opens_at: None };
        }
        if let Some(index) = self.open_at(now.unix()) {
            let reason = format!("{} is open", self.configured[index]);
            return WindowState { open: true, reason, opens_at: None };
        }
        let windows: Vec<String> = self.own.iter().map(ToString::to_string).collect();
        let reason = format!("waits for maintenance: {} ({})", windows.join(", "), self.zone.name());
        WindowState { open: false, reason, opens_at: self.next_opening(now.unix()).map(UtcTime::from_unix) }
    }

    fn open_at(&self, at: i64) -> Option<usize> {
        let local = self.zone.local(at);
        self.own.iter().position(|window| window.is_open(local))
    }

    fn next_opening(&self, now: i64) -> Option<i64> {
        let minutes: BTreeSet<u16> = self.own.iter().flat_map(Window::boundaries).collect();
        let mut at = now;
        while let Some(next) = next_boundary(&self.zone, &minutes, at).filter(|next| *next - now <= LOOK_AHEAD_S) {
            if self.open_at(next).is_some() {
                return Some(next);
            }
            at = next;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(days: &str, from: &str, to: &str) -> Window {
        let time = |text: &str| text.parse().expect("a time");
        Window::open_hours(days.parse().expect("days"), time(from), time(to)).expect("a window")
    }

    fn own(windows: Vec<Window>, node: &[u8]) -> OwnWindows {
        Maintenance { windows, zone: Zone::default() }.of_node(node)
    }

    /// An hour of a day of the week of Monday, 2026-11-23, in UTC.
    fn at(day: i64, hour: i64, minute: i64) -> UtcTime {
        UtcTime::from_unix((20_780 + day) * 86_400 + hour * 3_600 + minute * 60)
    }

    #[test]
    fn without_windows_a_node_installs_at_any_time() {
        assert!(own(Vec::new(), b"node").at(at(0, 0, 0)).open);
    }

    #[test]
    fn outside_of_the_window_a_node_knows_when_its_turn_comes() {
        let windows = own(vec![window("sun", "02:00", "04:00")], b"node");
        let closed = windows.at(at(0, 12, 0));
        assert!(!closed.open);
        let opens_at = closed.opens_at.expect("in some days");
        assert!((at(6, 2, 0)..at(6, 3, 0)).contains(&opens_at), "{opens_at}");
        assert!(windows.at(opens_at).open);
        assert!(!windows.at(opens_at.plus_seconds(-1)).open);
        assert!(!windows.at(at(6, 4, 0)).open, "it ends for everybody at the same time");
    }

    #[test]
    fn a_window_over_midnight_may_begin_on_the_next_day_for_some() {
        for node in 0..50_u8 {
            let windows = own(vec![window("fri", "23:30", "06:00")], &[node]);
            let opens_at = windows.at(at(4, 12, 0)).opens_at.expect("tonight");
            assert!((at(4, 23, 30)..at(5, 0, 30)).contains(&opens_at), "{opens_at}");
            assert!(windows.at(at(5, 5, 59)).open && !windows.at(at(5, 6, 0)).open);
            assert!(!windows.at(at(3, 23, 59)).open);
        }
    }

    #[test]
    fn the_nodes_of_a_fleet_do_not_begin_together() {
        let begins = |node: u8| own(vec![window("daily", "02:00", "04:00")], &[node]).at(at(0, 12, 0)).opens_at;
        let different: BTreeSet<_> = (0..100).map(begins).collect();
        assert!(different.len() > 30, "{different:?}");
    }

    #[test]
    fn whole_days_have_no_pause_at_midnight() {
        let windows = own(vec![window("sat-sun", "00:00", "24:00")], b"node");
        assert!(windows.at(at(5, 0, 0)).open && windows.at(at(6, 0, 0)).open);
    }

    #[test]
    fn a_window_that_summer_time_skips_opens_a_week_later() {
        // Clocks go from 02:00 to 03:00 on this Sunday.
        let skipped = at(6, 2, 0).unix();
        let zone = Zone::new("there", 0, [(skipped, 3_600)]).expect("a zone");
        let windows = Maintenance { windows: vec![window("sun", "02:00", "03:00")], zone }.of_node(b"node");
        let opens_at = windows.at(at(5, 0, 0)).opens_at.expect("the week after");
        assert!(opens_at >= at(13, 1, 0), "{opens_at}");
    }

    proptest! {
        #[test]
        fn a_node_only_begins_inside_the_window_and_when_it_was_told(
            days in 1..128_u8, from in 0..1_440_u16, length in 1..1_440_u16, node in any::<[u8; 8]>(), now in 0..1_209_600_i64,
        ) {
            let to = (from + length) % 1_440;
            let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60).parse().expect("a time");
            let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let days: Vec<&str> = (0..7).filter(|day| days & (1 << day) != 0).map(|day| names[day]).collect();
            let days = days.join(",").parse().expect("days");
            let configured = Window::open_hours(days, time(from), time(to)).expect("a window");
            let windows = own(vec![configured.clone()], &node);
            let now = at(0, 0, 0).plus_seconds(now);
            let state = windows.at(now);
            if state.open {
                prop_assert!(configured.is_open(now.unix()));
            } else {
                let opens_at = state.opens_at.expect("every week");
                prop_assert!(opens_at > now && windows.at(opens_at).open);
                prop_assert!(!windows.at(opens_at.plus_seconds(-1)).open);
            }
        }
    }
}
