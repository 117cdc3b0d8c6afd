//! Swarms worth a look, of any size, and how close they come to the bound.
//!
//! The bound is the fluid one: the seed has to send every byte once, the slowest has to receive it all,
//! and all uplinks together have to send it to everybody: T* = max(F/us, F/dmin, N F/(us + sum u)).

use std::fmt;

use crate::swarm_model::{Host, SwarmModel, Waste, World};

/// Bytes per second of 100 Mbit/s.
pub const FAST: u64 = 12_500_000;
/// Virtual time after which a run has failed, in bounds.
const PATIENCE: u64 = 40;

/// What is special about a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// All at once.
    FlashCrowd,
    /// Evenly over the time of the bound.
    Staggered,
    /// One in five sends and receives at a fifth of the rate.
    SlowFifth,
    /// Half of the peers are behind a link that carries what one of them could send.
    TwoSites,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::FlashCrowd, Self::Staggered, Self::SlowFifth, Self::TwoSites];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FlashCrowd => "flash crowd",
            Self::Staggered => "staggered arrivals",
            Self::SlowFifth => "20 % slow links",
            Self::TwoSites => "two sites, thin link",
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Everybody has everything.
    pub complete: bool,
    /// Microseconds from the first arrival to the last peer's end.
    pub took_us: u64,
    /// The bound, in microseconds.
    pub bound_us: u64,
    /// Copies that left the seed.
    pub seed_copies: f64,
    /// Bytes that were of no use, as a part of those that were.
    pub waste: f64,
    /// Control bytes, as a part of those that were of use.
    pub control: f64,
}

impl Report {
    /// Time in bounds.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn ratio(&self) -> f64 {
        self.took_us as f64 / self.bound_us as f64
    }
}

/// A world in which nothing is special.
pub fn plain(length: u64, random_seed: u64) -> World {
    World {
        length,
        latency_us: 1_000,
        loss_ppm: 0,
        between_sites: None,
        neighbours: 12,
        seed_sessions: 64,
        budget_percent: None,
        random_seed,
    }
}

/// The bound for peers that send `uploads` bytes per second.
pub fn bound_us(length: u64, seed: u64, uploads: &[u64], slowest_download: Option<u64>) -> u64 {
    let micros =
        |bytes: u128, rate: u64| u64::try_from(bytes * 1_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX);
    let all: u64 = uploads.iter().sum();
    let seed_us = micros(u128::from(length), seed);
    let sum_us = micros(u128::from(length) * uploads.len() as u128, seed + all);
    let slow_us = slowest_download.map_or(0, |rate| micros(u128::from(length), rate));
    seed_us.max(sum_us).max(slow_us)
}

/// Runs `scenario` with so many peers, each as fast as the seed.
pub fn run(scenario: Scenario, peers: usize, length: u64, random_seed: u64) -> Report {
    let mut world = plain(length, random_seed);
    let mut hosts = vec![Host::new(FAST); peers];
    let mut bound = bound_us(length, FAST, &vec![FAST; peers], None);
    let mut spread_us = 100_000;
    match scenario {
        Scenario::FlashCrowd => {}
        Scenario::Staggered => {
            spread_us = bound;
            // The last to come needs the time in which all the others could send it everything.
            bound += bound_us(length, FAST * peers as u64, &[], None);
        }
        Scenario::SlowFifth => {
            for host in hosts.iter_mut().step_by(5) {
                *host = Host { download: Some(FAST / 5), ..Host::new(FAST / 5) };
            }
            let uploads: Vec<u64> = hosts.iter().map(|host| host.upload).collect();
            bound = bound_us(length, FAST, &uploads, Some(FAST / 5));
        }
        Scenario::TwoSites => {
            world.between_sites = Some(FAST);
            for host in hosts.iter_mut().skip(peers / 2) {
                host.site = 1;
            }
        }
    }
    let mut model = SwarmModel::new(world, Host::new(FAST));
    for (number, host) in hosts.into_iter().enumerate() {
        model.join(host, spread_us * number as u64 / peers as u64);
    }
    finish(&mut model, peers, bound)
}

/// Runs a swarm of peers 1 to `peers` to its end.
#[expect(clippy::cast_precision_loss, reason = "ratios for people")]
pub fn finish(model: &mut SwarmModel, peers: usize, bound_us: u64) -> Report {
    let complete = model.run_until(PATIENCE * bound_us, SwarmModel::all_done);
    let useful = (1..=peers).map(|peer| model.progress(peer)).sum::<f64>() * model.length() as f64;
    let Waste { duplicate, late, rejected, .. } = model.waste;
    assert!(duplicate as f64 <= useful * 0.01, "{duplicate} bytes were received twice");
    Report {
        complete,
        took_us: (1..=peers).filter_map(|peer| model.done_us(peer)).max().unwrap_or(0),
        bound_us,
        seed_copies: model.copies(0),
        waste: (duplicate + late + rejected) as f64 / useful,
        control: model.message_bytes as f64 / useful,
    }
}
