//! The answer at any time, and that it holds exactly until it says.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn caps(upload: Option<u64>, download: Option<u64>) -> Caps {
    Caps { upload_bytes_per_second: upload, download_bytes_per_second: download }
}

fn window(days: &str, from: &str, to: &str, caps: Caps) -> Window {
    let time = |text: &str| text.parse().expect("a time");
    Window::new(days.parse().expect("days"), time(from), time(to), caps).expect("valid")
}

fn time(text: &str) -> UtcTime {
    text.parse().expect("a time")
}

/// Berlin around the last Sunday of March 2026, when its clocks go from 02:00 to 03:00.
fn berlin() -> Zone {
    let sets = [("2026-03-29T01:00:00Z", 7_200), ("2026-10-25T01:00:00Z", 3_600)];
    Zone::new("Europe/Berlin", 3_600, sets.map(|(at, offset)| (time(at).unix(), offset))).expect("valid")
}

fn upload(limits: &Limits, now: &str) -> (Option<u64>, String, Option<String>) {
    let limit = limits.in_force(time(now)).upload;
    (limit.bytes_per_second, limit.why, limit.until.map(|until| until.to_string()))
}

fn expected(rate: Option<u64>, why: &str, until: Option<&str>) -> (Option<u64>, String, Option<String>) {
    (rate, why.to_owned(), until.map(str::to_owned))
}

#[test]
fn without_any_limit_there_is_none_for_ever() {
    assert_eq!(upload(&Limits::default(), "2026-11-22T12:00:00Z"), expected(None, "no limit is set", None));
}

#[test]
fn a_cap_alone_holds_always() {
    let limits = Limits { always: caps(Some(MIB), None), ..Limits::default() };
    assert_eq!(upload(&limits, "2026-11-22T12:00:00Z"), expected(Some(MIB), "always", None));
    assert_eq!(limits.in_force(time("2026-11-22T12:00:00Z")).download.bytes_per_second, None);
}

#[test]
fn office_hours_say_when_they_end_and_when_they_begin_again() {
    let limits = Limits {
        windows: vec![window("mon-fri", "08:00", "18:00", caps(Some(MIB), None))],
        zone: berlin(),
        ..Limits::default()
    };
    // A Friday in summer: two hours ahead of UTC.
    assert_eq!(
        upload(&limits, "2026-06-05T12:00:00Z"),
        expected(Some(MIB), "window 08:00-18:00 mon-fri", Some("2026-06-05T16:00:00Z"))
    );
    assert_eq!(
        upload(&limits, "2026-06-05T16:00:00Z"),
        expected(None, "no window is open", Some("2026-06-08T06:00:00Z"))
    );
    // What limits uploads only says nothing of downloads.
    assert_eq!(limits.in_force(time("2026-06-05T12:00:00Z")).download.why, "no limit is set");
}

#[test]
fn the_lowest_cap_wins_and_zero_is_the_lowest() {
    let limits = Limits {
        always: caps(Some(4 * MIB), None),
        windows: vec![
            window("daily", "08:00", "18:00", caps(Some(MIB), None)),
            window("daily", "12:00", "13:00", caps(Some(0), None)),
            window("daily", "00:00", "24:00", caps(Some(8 * MIB), None)),
        ],
        ..Limits::default()
    };
    for (now, rate, why, until) in [
        ("2026-11-22T07:00:00Z", 4 * MIB, "always", "2026-11-22T08:00:00Z"),
        ("2026-11-22T08:00:00Z", MIB, "window 08:00-18:00 daily", "2026-11-22T12:00:00Z"),
        ("2026-11-22T12:30:00Z", 0, "window 12:00-13:00 daily", "2026-11-22T13:00:00Z"),
        ("2026-11-22T17:59:59Z", MIB, "window 08:00-18:00 daily", "2026-11-22T18:00:00Z"),
        ("2026-11-22T18:00:00Z", 4 * MIB, "always", "2026-11-23T08:00:00Z"),
    ] {
        assert_eq!(upload(&limits, now), expected(Some(rate), why, Some(until)), "{now}");
    }
    let idle: Vec<String> = limits.idle_windows().into_iter().map(ToString::to_string).collect();
    assert_eq!(idle, ["window 00:00-24:00 daily"]);
}

#[test]
fn windows_that_meet_are_told_apart_by_their_names() {
    let limits = Limits {
        windows: vec![
            window("daily", "22:00", "00:00", caps(Some(MIB), None)),
            window("daily", "00:00", "06:00", caps(Some(MIB), None)),
        ],
        ..Limits::default()
    };
    assert_eq!(
        upload(&limits, "2026-11-22T23:00:00Z"),
        expected(Some(MIB), "window 22:00-00:00 daily", Some("2026-11-23T00:00:00Z"))
    );
}

#[test]
fn a_window_in_the_hour_that_is_skipped_waits_for_the_next_week() {
    let limits = Limits {
        windows: vec![window("sun", "02:00", "03:00", caps(Some(MIB), None))],
        zone: berlin(),
        ..Limits::default()
    };
    assert_eq!(
        upload(&limits, "2026-03-28T12:00:00Z"),
        expected(None, "no window is open", Some("2026-04-05T00:00:00Z"))
    );
}

#[test]
fn a_window_in_the_hour_that_comes_twice_is_open_twice() {
    let limits = Limits {
        windows: vec![window("sun", "02:00", "02:30", caps(Some(MIB), None))],
        zone: berlin(),
        ..Limits::default()
    };
    for (now, open, until) in [
        ("2026-10-25T00:10:00Z", true, "2026-10-25T00:30:00Z"),
        ("2026-10-25T00:40:00Z", false, "2026-10-25T01:00:00Z"),
        ("2026-10-25T01:00:00Z", true, "2026-10-25T01:30:00Z"),
    ] {
        let (rate, _, found) = upload(&limits, now);
        assert_eq!((rate.is_some(), found.as_deref()), (open, Some(until)), "{now}");
    }
}

fn any_cap() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), Just(Some(0)), (1..4_u64).prop_map(Some)]
}

fn any_window() -> impl Strategy<Value = Window> {
    let days = prop::sample::select(vec!["daily", "mon-fri", "sat-sun", "sun", "mon", "sat-mon", "tue,thu"]);
    (days, 0..24_u8, 0..60_u8, 0..25_u8, any_cap(), any_cap()).prop_filter_map(
        "valid",
        |(days, from, minute, to, up, down)| {
            let from = format!("{from:02}:{minute:02}").parse().expect("a time");
            let to = format!("{to:02}:00").parse().expect("a time");
            Window::new(days.parse().expect("days"), from, to, caps(up, down)).ok()
        },
    )
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let zone = prop_oneof![
        Just(Zone::default()),
        Just(berlin()),
        (-50_000..50_000_i32).prop_map(|offset| Zone::new("odd", offset, []).expect("valid")),
    ];
    (any_cap(), any_cap(), prop::collection::vec(any_window(), 0..4), zone)
        .prop_map(|(up, down, windows, zone)| Limits { always: caps(up, down), windows, zone, lan_exempt: false })
}

/// Around both times in 2026 at which Berlin's clocks are set, and far from them.
fn any_start() -> impl Strategy<Value = i64> {
    let around = |text: &str| {
        let at = time(text).unix();
        at - 9 * DAY_S..at + 2 * DAY_S
    };
    prop_oneof![around("2026-03-29T01:00:00Z"), around("2026-10-25T01:00:00Z"), around("2026-07-01T00:00:00Z")]
}

proptest! {
    /// A clock that walks by the minute sees another answer exactly when it was told to.
    #[test]
    fn an_answer_holds_until_it_says_and_not_a_second_longer(limits in any_limits(), start in any_start()) {
        for way in [Way::Up, Way::Down] {
            let answer = limits.answer(way, start);
            let until = limits.next_change(way, start);
            let end = until.unwrap_or(start + LOOK_AHEAD_S);
            prop_assert!(end > start);
            let first_minute = start.div_euclid(60) * 60 + 60;
            for at in (first_minute..end).step_by(60).chain([end - 1]) {
                prop_assert_eq!(limits.answer(way, at), answer, "it changed at {}, before {:?}", at, until);
            }
            if let Some(until) = until {
                prop_assert_ne!(limits.answer(way, until), answer);
            }
        }
    }

    #[test]
    fn what_is_in_force_is_never_more_than_any_cap_that_holds(limits in any_limits(), start in any_start()) {
        let rate = limits.answer(Way::Up, start).0;
        let local = limits.zone.local(start);
        let open = limits.windows.iter().filter(|window| window.is_open(local));
        let caps: Vec<u64> = open.filter_map(|window| window.caps.of(Way::Up)).chain(limits.always.of(Way::Up)).collect();
        prop_assert_eq!(rate, caps.iter().copied().min());
    }
}
