//! Tests of what is kept in flight to a neighbour, and of what its silence means.

use super::*;

const LEAF: u64 = 16 * 1024;

fn block(leaf: u64, leaves: u64) -> BlockRange {
    BlockRange::new(leaf * LEAF, u32::try_from(leaves * LEAF).expect("small")).expect("it is in bounds")
}

fn holder() -> Holder {
    Holder::new(Standing::default(), 0, Bitmap::full(8), false)
}

/// A neighbour that answered each request after `delay_ms`, one leaf in each `pause_ms`, for two seconds.
fn steady(delay_ms: u64, pause_ms: u64) -> (Holder, u64) {
    let mut holder = holder();
    let mut now_ms = 0;
    // One request is always open, so that no silence is its own fault.
    holder.ask(block(1_000_000, 1), 0);
    for leaf in 0..2_000 / pause_ms {
        holder.ask(block(leaf, 1), now_ms.max(delay_ms) - delay_ms);
        now_ms += pause_ms;
        holder.arrived(block(leaf, 1), now_ms.max(delay_ms));
        holder.settle(block(leaf, 1));
    }
    (holder, now_ms)
}

/// Bytes that may be in flight to it at once, in leaves.
fn in_flight(holder: &mut Holder, is_careful: bool, now_ms: u64) -> u64 {
    let first = 2_000_000;
    let asked = (first..).take_while(|leaf| {
        let has_room = holder.has_room(is_careful, now_ms);
        if has_room {
            holder.ask(block(*leaf, 1), now_ms);
        }
        has_room
    });
    u64::try_from(asked.count()).expect("few")
}

#[test]
fn little_is_in_flight_to_a_neighbour_of_unknown_speed_and_less_behind_a_thin_link() {
    assert_eq!(in_flight(&mut holder(), false, 0) * LEAF, FIRST_WINDOW_BYTES);
    assert_eq!(in_flight(&mut holder(), true, 0) * LEAF, CAREFUL_WINDOW_BYTES);
}

#[test]
fn what_is_in_flight_follows_rate_and_delay() {
    // A leaf in 10 ms is 1.6 MB/s; in flight is that for the delay and a little longer.
    for delay_ms in [10, 200] {
        let (mut holder, now_ms) = steady(delay_ms, 10);
        let expected = (delay_ms + WINDOW_MS) / 10;
        // One is open still.
        let leaves = 1 + in_flight(&mut holder, false, now_ms);
        assert!(leaves.abs_diff(expected) <= expected / 4 + 1, "{leaves} and not {expected} at {delay_ms} ms");
    }
}

#[test]
fn a_slow_neighbour_is_still_asked_for_two_blocks_at_once() {
    let (mut holder, now_ms) = steady(500, 500);
    assert_eq!(1 + in_flight(&mut holder, false, now_ms), 2);
}

#[test]
fn a_queue_at_the_neighbour_is_no_delay_that_counts() {
    let (mut holder, now_ms) = steady(5_000, 10);
    let leaves = 1 + in_flight(&mut holder, false, now_ms);
    assert!(leaves <= (MAX_DELAY_MS + WINDOW_MS) / 10 + 2, "{leaves}");
}

#[test]
fn blocks_grow_with_the_rate() {
    assert_eq!(holder().block_leaves(), 4);
    let (slow, _) = steady(10, 500);
    assert_eq!(slow.block_leaves(), 2);
    let (fast, _) = steady(10, 1);
    // 16 MB/s for 25 ms are 25 leaves.
    assert!((20..=26).contains(&fast.block_leaves()), "{}", fast.block_leaves());
}

#[test]
fn a_neighbour_that_said_busy_rests() {
    let mut holder = holder();
    holder.rest_until_ms = 500;
    assert!(!holder.has_room(false, 499) && holder.has_room(false, 500));
}

#[test]
fn a_block_is_late_by_the_neighbours_own_rate() {
    let (mut fast, now_ms) = steady(10, 10);
    fast.ask(block(500, 1), now_ms);
    assert!(fast.late(now_ms + LATE_MS - 1).is_empty());
    assert!(fast.late(now_ms + LATE_MS + 1_000).contains(&block(500, 1)));
    // A leaf in two seconds, and four are asked for: nine seconds are no surprise.
    let (mut slow, now_ms) = steady(500, 500);
    slow.settle(block(1_000_000, 1));
    for leaf in 500..516 {
        slow.ask(block(leaf, 1), now_ms);
    }
    assert!(slow.late(now_ms + 9_000).is_empty());
    assert_eq!(slow.late(now_ms + 120_000).len(), 16);
}

#[test]
fn a_near_neighbour_is_mute_from_its_silence_until_its_next_block() {
    let mut holder = Holder { standing: Standing { is_near: true, is_seed: false }, ..holder() };
    holder.look(1_500, 60_000);
    assert!(holder.supplies_site(), "nobody asked it");
    holder.ask(block(0, 1), 60_000);
    holder.ask(block(1, 1), 60_000);
    holder.look(1_500, 61_499);
    assert!(holder.supplies_site());
    holder.look(1_500, 61_500);
    assert!(!holder.supplies_site());
    // That somebody else brought what it was asked for is no merit of its.
    holder.settle(block(0, 1));
    holder.settle(block(1, 1));
    holder.look(1_500, 70_000);
    assert!(!holder.supplies_site());
    holder.ask(block(2, 1), 70_000);
    holder.arrived(block(2, 1), 70_001);
    holder.settle(block(2, 1));
    holder.look(1_500, 90_000);
    assert!(holder.supplies_site());
}

#[test]
fn a_near_neighbour_that_refuses_again_and_again_is_mute_too() {
    let mut holder = Holder { standing: Standing { is_near: true, is_seed: false }, ..holder() };
    for step in 0..4 {
        assert!(holder.supplies_site());
        holder.ask(block(step, 1), step * 500);
        assert!(holder.refused(block(step, 1)));
        holder.look(1_500, step * 500);
    }
    assert!(!holder.supplies_site());
}
