//! Many releases, one after the other, in one process: a seed and two peers that install each of them.
//! What a release costs in memory, descriptors, disk and time must not depend on how many came before.
//!
//! The run of two hundred prints its numbers:
//! `cargo test --release -p updraft --test soak -- --ignored --nocapture`.

#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use updraft_tests::cluster::{Cluster, DEADLINE, TestNode, has_installed, until};
use updraft_tests::forge::noise;
use updraft_tests::lab::{open_descriptors, resident_bytes};

/// Bytes of each release: a leak of one artifact a release would dwarf everything else.
const RELEASE_BYTES: usize = 4 << 20;
/// Releases after which caches and pools have their size.
const WARM: usize = 10;
/// Releases over which a figure is taken: memory that is free to the allocator comes and goes.
const WINDOW: usize = 8;
/// Bytes of memory that one more release may cost the three nodes together, for good: its signed entry,
/// its manifest at the seed, and what is remembered of it. A leaked artifact would cost sixteen times that.
const MAX_GROWTH_BYTES: usize = RELEASE_BYTES / 16;
/// Descriptors that may come beyond those of the warm process: connections and blocking reads vary.
const MAX_MORE_DESCRIPTORS: usize = 12;

/// The process after one release.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident_bytes: usize,
    descriptors: usize,
    took: Duration,
}

/// Directories below `artifacts` of a node.
fn artifacts(node: &TestNode) -> usize {
    entries(&node.data_dir.join("artifacts"))
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

async fn releases(cluster: &Cluster, count: usize) -> Vec<Sample> {
    let source = cluster.scratch().join("source");
    fs::create_dir(&source).expect("writable");
    let mut samples = Vec::new();
    for number in 1..=count {
        let version = format!("1.{number}.0");
        fs::write(source.join("data"), noise(&version, RELEASE_BYTES)).expect("writable");
        let started = Instant::now();
        cluster.publish(&source, &version).await.expect("published");
        for peer in &cluster.peers {
            until(&peer.node, &version, |status| has_installed(status, &version)).await;
        }
        let took = started.elapsed();
        let resident_bytes = usize::try_from(resident_bytes()).expect("it fits");
        samples.push(Sample { resident_bytes, descriptors: open_descriptors(), took });
    }
    samples
}

/// The least memory in use over some releases: what is beyond it was given back.
fn floor(samples: &[Sample]) -> usize {
    samples.iter().map(|sample| sample.resident_bytes).min().expect("some releases")
}

fn median(samples: &[Sample]) -> Duration {
    let mut times: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Memory and descriptors are those of the warm process.
fn are_flat(samples: &[Sample]) {
    let (warm, end) = (&samples[WARM..WARM + WINDOW], &samples[samples.len() - WINDOW..]);
    let growth = floor(end).saturating_sub(floor(warm));
    let releases = samples.len() - WARM - WINDOW;
    assert!(
        growth <= MAX_GROWTH_BYTES * releases,
        "{releases} releases cost {} KiB of memory each: {:?} MiB",
        growth / releases / 1024,
        samples.iter().map(|sample| sample.resident_bytes >> 20).collect::<Vec<_>>()
    );
    let most = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).max().expect("some releases");
    assert!(
        most(end) <= most(warm) + MAX_MORE_DESCRIPTORS,
        "{} descriptors are open, {} were after {WARM} releases",
        most(end),
        most(warm)
    );
}

/// Peers hold the release that runs and the one before, the seed everything that is listed; nothing else
/// has stayed on any disk.
async fn disks_are_tidy(cluster: &Cluster, count: usize) {
    // What is being removed is in tmp until the last of it is gone.
    let is_settled = |peer: &TestNode| artifacts(peer) <= 2 && entries(&peer.data_dir.join("tmp")) == 0;
    let started = Instant::now();
    while !cluster.peers.iter().all(is_settled) {
        let held: Vec<usize> = cluster.peers.iter().map(artifacts).collect();
        assert!(started.elapsed() < DEADLINE, "old artifacts, or parts of them, stay: {held:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seed = cluster.seed.as_ref().expect("the seed runs");
    assert_eq!(artifacts(seed), count, "the seed serves every release that is listed");
    for node in cluster.peers.iter().chain([seed]) {
        assert!(entries(&node.data_dir.join("tmp")) == 0, "something is left in tmp");
        let targets = entries(&node.data_dir.join("targets"));
        assert!(targets <= 40, "{targets} channel files are kept");
        let repository = fs::read_dir(node.data_dir.join("metadata")).expect("readable").flatten().next();
        let metadata = entries(&repository.expect("one repository").path());
        assert!(metadata <= 100, "{metadata} metadata files are kept");
    }
    for peer in &cluster.peers {
        assert_eq!(entries(&peer.install_dir.join("releases")), 2);
        assert_eq!(entries(&peer.install_dir.join("staging")), 0);
    }
}

/// Runs a test of this program in a process of its own whose allocator has one arena. With one for each
/// thread, memory in use follows what every thread ever needed at once, which says nothing about what the
/// nodes keep. Returns whether this is that process already.
fn is_alone(test: &str) -> bool {
    const MARK: &str = "UPDRAFT_SOAK_CHILD";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test is a program");
    let child = Command::new(program)
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(MARK, "1")
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_TRIM_THRESHOLD_", "131072")
        .status()
        .expect("it starts");
    assert!(child.success(), "{test} failed in a process of its own");
    false
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn a_release_costs_no_more_for_those_that_came_before() {
    const COUNT: usize = 40;
    if !is_alone("a_release_costs_no_more_for_those_that_came_before") {
        return;
    }
    runtime().block_on(async {
        let cluster = Cluster::start(2).await;
        let samples = releases(&cluster, COUNT).await;
        are_flat(&samples);
        disks_are_tidy(&cluster, COUNT).await;
        cluster.stop().await;
    });
}

#[test]
#[ignore = "two hundred releases, run by name"]
fn two_hundred_releases() {
    const COUNT: usize = 200;
    if !is_alone("two_hundred_releases") {
        return;
    }
    runtime().block_on(async {
        let cluster = Cluster::start(2).await;
        let samples = releases(&cluster, COUNT).await;
        print(&samples);
        are_flat(&samples);
        disks_are_tidy(&cluster, COUNT).await;
        cluster.stop().await;
    });
}

fn print(samples: &[Sample]) {
    println!("releases of {} MiB, a seed and two peers in one process", RELEASE_BYTES >> 20);
    println!("{:>8} {:>9} {:>12} {:>24}", "release", "RSS MiB", "descriptors", "seconds (median of 10)");
    for number in [1, 10, 50, 100, 150, 200] {
        let sample = samples[number - 1];
        let took = median(&samples[number.saturating_sub(10)..number]).as_secs_f64();
        println!("{number:>8} {:>9} {:>12} {took:>24.3}", sample.resident_bytes >> 20, sample.descriptors);
    }
    let (warm, end) = (floor(&samples[WARM..WARM + WINDOW]), floor(&samples[samples.len() - WINDOW..]));
    let releases = samples.len() - WARM - WINDOW;
    println!("memory for good: {} KiB a release", end.saturating_sub(warm) / releases / 1024);
    let (first, last) = (median(&samples[WARM..WARM + 20]), median(&samples[samples.len() - 20..]));
    println!("speed: {first:?} a release at first, {last:?} at last");
}
