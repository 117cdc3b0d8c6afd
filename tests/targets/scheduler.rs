//! Swarms in virtual time: the scheduler of a real node, links that are models. Every figure here follows
//! from one number, so nothing depends on the machine.
//!
//! The table of `docs/performance.md`: `cargo test --release -p updraft --test scheduler -- --ignored
//! --nocapture table`, with `UPDRAFT_TABLE_PEERS=10,100,1000,10000` for its whole length.

use updraft_tests::swarm_model::{Host, SwarmModel};
use updraft_tests::swarm_scenarios::{FAST, Report, Scenario, bound_us, finish, plain, run};

const MIB: u64 = 1 << 20;
/// Bytes per second of a megabit per second.
const MBIT: u64 = 125_000;
/// Pieces, at most, that one neighbour spoils at a node before it is found out.
const MOST_SPOILT: u32 = 12;

/// A crowd of `peers` that send at `peer_rate`, around a seed that sends at `seed_rate`.
fn crowd(peers: usize, length: u64, seed_rate: u64, peer_rate: u64, budget_percent: Option<u32>) -> (SwarmModel, u64) {
    let mut world = plain(length, 1);
    world.budget_percent = budget_percent;
    let mut model = SwarmModel::new(world, Host::new(seed_rate));
    for number in 0..peers as u64 {
        model.join(Host::new(peer_rate), 100_000 * number / peers as u64);
    }
    (model, bound_us(length, seed_rate, &vec![peer_rate; peers], None))
}

/// A number from the environment, for longer runs.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn assert_good(report: &Report, ratio: f64, copies: f64) {
    assert!(report.complete, "{report:?}");
    assert!(report.ratio() <= ratio, "{:.3} bounds: {report:?}", report.ratio());
    assert!(report.seed_copies <= copies, "{report:?}");
    assert!(report.waste < 0.01, "{report:?}");
    assert!(report.control < 0.01, "{report:?}");
}

#[test]
fn small_swarms_come_close_to_the_bound_with_little_more_than_one_copy() {
    for (peers, length, rate) in [(8, 64 * MIB, 100 * MBIT), (16, 64 * MIB, 50 * MBIT), (32, 32 * MIB, 20 * MBIT)] {
        let (mut model, bound) = crowd(peers, length, rate, rate, None);
        let report = finish(&mut model, peers, bound);
        assert_good(&report, 1.12, 1.07);
    }
}

#[test]
fn a_hundred_peers_come_close_to_the_bound() {
    assert_good(&run(Scenario::FlashCrowd, 100, 64 * MIB, 1), 1.2, 1.07);
}

#[test]
fn latency_costs_little() {
    let (peers, length) = (8, 64 * MIB);
    let mut world = plain(length, 3);
    world.latency_us = 20_000;
    world.loss_ppm = 1_000;
    let mut model = SwarmModel::new(world, Host::new(FAST));
    for _ in 0..peers {
        model.join(Host::new(FAST), 0);
    }
    let report = finish(&mut model, peers, bound_us(length, FAST, &vec![FAST; peers], None));
    assert_good(&report, 1.15, 1.07);
}

#[test]
fn a_budget_caps_what_leaves_a_fast_seed_and_peers_do_the_rest() {
    let (peers, length) = (16, 64 * MIB);
    let (mut model, _) = crowd(peers, length, 250 * MBIT, 50 * MBIT, Some(120));
    // With 1.2 copies from the seed the peers have to send the others.
    let bound = length * (peers as u64 * 10 - 12) * 100_000 / (peers as u64 * 50 * MBIT);
    let report = finish(&mut model, peers, bound);
    assert_good(&report, 1.1, 1.2);
}

#[test]
fn without_a_budget_a_fast_seed_helps_in_the_end() {
    let (mut model, bound) = crowd(16, 64 * MIB, 250 * MBIT, 50 * MBIT, None);
    let report = finish(&mut model, 16, bound);
    assert!(report.complete && report.ratio() < 1.2, "{report:?}");
}

#[test]
fn a_lone_peer_gets_all_from_the_seed_budget_or_not() {
    for budget in [None, Some(100)] {
        let (mut model, bound) = crowd(1, 16 * MIB, FAST, FAST, budget);
        assert_good(&finish(&mut model, 1, bound), 1.2, 1.001);
    }
}

#[test]
fn peers_that_only_reach_the_seed_are_served_though_others_have_it_all() {
    let length = 16 * MIB;
    let mut world = plain(length, 5);
    world.neighbours = 0;
    let mut model = SwarmModel::new(world, Host::new(FAST));
    for _ in 0..3 {
        model.join(Host::new(FAST), 0);
    }
    let report = finish(&mut model, 3, 3 * length * 1_000_000 / FAST);
    assert!(report.complete, "{report:?}");
    assert!((2.99..3.1).contains(&report.seed_copies), "{report:?}");
}

#[test]
fn a_swarm_whose_seed_dies_after_one_copy_finishes() {
    let (mut model, bound) = crowd(8, 64 * MIB, FAST, FAST, None);
    assert!(model.run_until(10 * bound, |model| model.copies(0) >= 1.005));
    model.kill(0);
    let report = finish(&mut model, 8, bound);
    assert!(report.complete, "{report:?}");
}

#[test]
fn peers_that_die_and_come_back_hold_up_nobody() {
    let (mut model, bound) = crowd(16, 32 * MIB, FAST, FAST, None);
    assert!(model.run_until(10 * bound, |model| model.progress(16) >= 0.4));
    for peer in 1..=5 {
        model.kill(peer);
    }
    model.run_until(1_000_000, |_| false);
    for peer in 1..=5 {
        model.revive(peer);
    }
    let report = finish(&mut model, 16, bound);
    assert!(report.complete && report.seed_copies < 1.5, "{report:?}");
}

#[test]
fn a_swarm_that_was_divided_finishes_once_it_is_whole() {
    let (mut model, bound) = crowd(16, 32 * MIB, FAST, FAST, None);
    assert!(model.run_until(10 * bound, |model| model.progress(16) >= 0.3));
    model.divide(9);
    model.run_until(10_000_000, |_| false);
    assert!((9..=16).any(|peer| model.done_us(peer).is_none()), "the other half was cut off");
    model.unite();
    let report = finish(&mut model, 16, bound);
    assert!(report.complete, "{report:?}");
}

#[test]
fn a_lying_seed_is_found_out_and_nobody_else_is_blamed() {
    let (peers, length) = (8, 16 * MIB);
    let mut model = SwarmModel::new(plain(length, 7), Host::new(FAST));
    let liar = model.second_seed(Host { rotten: true, ..Host::new(FAST) });
    for _ in 0..peers {
        model.join(Host::new(FAST), 0);
    }
    assert!(model.run_until(60_000_000, SwarmModel::all_done));
    for peer in 2..2 + peers {
        assert!(model.bans(peer).iter().all(|banned| *banned == liar), "an honest peer was blamed");
    }
    assert!((2..2 + peers).any(|peer| model.bans(peer).contains(&liar)), "nobody noticed");
}

/// A crowd of eight, numbered as returned, and four more, of which two hold everything from the start. `spoils` says
/// whether these spoil what others have sent a part of: they know that, and are never alone with a lie.
fn with_strangers(spoils: bool, random_seed: u64) -> (SwarmModel, Vec<usize>, Vec<usize>) {
    let (length, rate) = (34 * MIB, 20 * MBIT);
    let mut model = SwarmModel::new(plain(length, random_seed), Host::new(rate));
    let stranger = Host { spoils, ..Host::new(rate) };
    let mut strangers: Vec<usize> = (0..2).map(|_| model.keeper(stranger)).collect();
    let crowd = (0..8).map(|_| model.join(Host::new(rate), 0)).collect();
    strangers.extend((0..2).map(|_| model.join(stranger, 0)));
    (model, crowd, strangers)
}

#[test]
fn whoever_spoils_what_others_sent_is_banned_after_a_few_pieces_and_nobody_else_is() {
    for random_seed in 1..=3 {
        let (mut model, honest, liars) = with_strangers(true, random_seed);
        assert!(model.run_until(60_000_000, SwarmModel::all_done), "with {random_seed}");
        for peer in &honest {
            assert!(model.bans(*peer).iter().all(|banned| liars.contains(banned)), "an honest peer was blamed");
            for (liar, pieces) in model.spoilt(*peer) {
                assert!(model.bans(*peer).contains(liar), "{liar} spoilt {pieces} pieces at {peer} and stays");
                assert!(*pieces <= MOST_SPOILT, "{liar} spoilt {pieces} pieces at {peer}");
            }
        }
        let spoilt: u32 = honest.iter().flat_map(|peer| model.spoilt(*peer).values()).sum();
        assert!(spoilt > 0, "nothing was spoilt");
        assert!(model.waste.rejected < honest.len() as u64 * model.length() / 20, "{:?}", model.waste);
    }
}

#[test]
fn honest_neighbours_of_spoilers_lose_little_speed() {
    let took_us = |spoils| {
        let (mut model, honest, _) = with_strangers(spoils, 4);
        assert!(model.run_until(60_000_000, SwarmModel::all_done));
        honest.iter().filter_map(|peer| model.done_us(*peer)).max().expect("all are done")
    };
    let (spoilt, honest) = (took_us(true), took_us(false));
    // What the four could have brought is missing, a third of all uplinks; hardly anything else is.
    assert!(spoilt * 4 <= honest * 5, "{spoilt} us with spoilers, {honest} us with as many honest ones");
}

#[test]
fn a_few_honest_ones_among_liars_of_all_kinds_finish() {
    let (length, rate) = (34 * MIB, 20 * MBIT);
    let honest = Host::new(rate);
    let (rotten, spoils, silent) =
        (Host { rotten: true, ..honest }, Host { spoils: true, ..honest }, Host { silent: true, ..honest });
    for random_seed in 1..=number("UPDRAFT_LIARS_RUNS", 3) {
        let mut world = plain(length, random_seed);
        world.neighbours = 6;
        let mut model = SwarmModel::new(world, honest);
        let liars: Vec<usize> = [rotten, spoils, spoils, silent].map(|host| model.keeper(host)).into();
        let crowd: Vec<usize> = (0..5).map(|_| model.join(honest, 0)).collect();
        model.join(spoils, 500_000);
        assert!(model.run_until(120_000_000, SwarmModel::all_done), "with {random_seed}");
        for peer in crowd {
            let banned = model.bans(peer);
            assert!(banned.iter().all(|banned| liars.contains(banned) || *banned == 10), "{peer}: {banned:?}");
        }
    }
}

#[test]
fn neighbours_that_never_answer_lose_their_blocks() {
    let (peers, length) = (8, 16 * MIB);
    let mut model = SwarmModel::new(plain(length, 9), Host::new(FAST));
    for number in 0..peers {
        model.join(Host { silent: number % 4 == 0, ..Host::new(FAST) }, 0);
    }
    assert!(
        model.run_until(30_000_000, SwarmModel::all_done),
        "{:?}",
        (1..=peers).map(|p| model.progress(p)).collect::<Vec<_>>()
    );
}

#[test]
fn one_number_makes_one_run() {
    let figures = || {
        let report = run(Scenario::SlowFifth, 20, 8 * MIB, 11);
        (report.took_us, report.seed_copies.to_bits(), report.waste.to_bits())
    };
    assert_eq!(figures(), figures());
}

#[test]
fn every_scenario_ends_and_wastes_little() {
    for scenario in Scenario::ALL {
        let report = run(scenario, 30, 16 * MIB, 13);
        assert!(report.complete, "{scenario}: {report:?}");
        assert!(report.waste < 0.02, "{scenario}: {report:?}");
    }
}

#[test]
fn a_site_behind_a_thin_link_gets_each_piece_across_about_once() {
    let report = run(Scenario::TwoSites, 100, 64 * MIB, 1);
    assert_good(&report, 2.0, 1.1);
}

/// A site of eight behind a fast link to a seed and eight more, and two at the site that claim everything.
fn beside(claims: Host) -> Report {
    let (peers, length) = (16, 16 * MIB);
    let mut world = plain(length, 17);
    world.neighbours = 2 * peers;
    let mut model = SwarmModel::new(world, Host::new(FAST));
    for number in 0..peers {
        model.join(Host { site: u8::from(number >= peers / 2), ..Host::new(FAST) }, 0);
    }
    for _ in 0..2 {
        model.keeper(Host { site: 1, ..claims });
    }
    finish(&mut model, peers, bound_us(length, FAST, &vec![FAST; peers], None))
}

#[test]
fn near_neighbours_that_claim_everything_and_send_nothing_cost_a_pause() {
    for upload in [0, 8 * 1024] {
        let report = beside(Host::new(upload));
        assert!(report.complete && report.took_us < 8_000_000, "{upload} bytes per second: {report:?}");
    }
}

#[test]
fn a_slow_host_at_a_site_does_not_hold_it_to_its_pace() {
    let (peers, length) = (8, 16 * MIB);
    for slow in 1..=peers / 2 {
        let mut world = plain(length, 19);
        world.neighbours = 2 * peers;
        // The others at its site hold no session with the seed.
        world.seed_sessions = 0;
        let mut model = SwarmModel::new(world, Host::new(FAST));
        for number in 1..=peers / 2 {
            let host = Host { site: 1, ..Host::new(FAST) };
            let thin = Host { upload: MBIT, download: Some(MBIT), ..host };
            model.join(if number == slow { thin } else { host }, 0);
        }
        for _ in 0..peers / 2 {
            model.keeper(Host::new(FAST));
        }
        let others = |model: &SwarmModel| (1..=peers / 2).all(|n| n == slow || model.done_us(n).is_some());
        assert!(model.run_until(40_000_000, others), "{slow} is slow, and the others wait for it");
    }
}

#[test]
fn a_crowd_does_not_ask_the_one_that_holds_everything_in_one_moment() {
    let peers = 20;
    let mut world = plain(16 * MIB, 15);
    // Everybody is connected to everybody but the seed.
    world.seed_sessions = 0;
    world.neighbours = 2 * peers;
    let mut model = SwarmModel::new(world, Host::new(FAST));
    model.keeper(Host::new(FAST));
    for _ in 0..peers {
        model.join(Host::new(FAST), 0);
    }
    assert!(model.run_until(30_000_000, SwarmModel::all_done));
    let first: Vec<u64> = (2..2 + peers).filter_map(|peer| model.first_asked_us(peer)).collect();
    let (soonest, latest) = (first.iter().min().expect("somebody asked"), first.iter().max().expect("as above"));
    assert!(latest - soonest > 25_000, "all asked within {} us", latest - soonest);
    assert!(*latest < 100_000, "somebody began to ask after {latest} us");
}

#[test]
#[ignore = "a table for people; minutes to an hour, by its sizes"]
#[allow(clippy::print_stdout, reason = "it is a table")]
fn table() {
    let sizes = std::env::var("UPDRAFT_TABLE_PEERS").unwrap_or_else(|_| "10,100,1000".to_owned());
    println!("| scenario | peers | time / T* | copies out of the seed | wasted bytes | control bytes |");
    println!("|---|---|---|---|---|---|");
    for peers in sizes.split(',').map(|size| size.trim().parse().expect("a number of peers")) {
        for scenario in Scenario::ALL {
            let report = run(scenario, peers, 64 * MIB, 1);
            assert!(report.complete, "{scenario} with {peers} peers: {report:?}");
            let (waste, control) = (report.waste * 100.0, report.control * 100.0);
            let copies = report.seed_copies;
            println!("| {scenario} | {peers} | {:.2} | {copies:.2} | {waste:.2} % | {control:.2} % |", report.ratio());
        }
    }
}
