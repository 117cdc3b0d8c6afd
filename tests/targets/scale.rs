//! Many whole nodes in one process, each with its own network stack, store and database, on loopback: a
//! seed publishes one release and every node ends up with it, verified.
//!
//! The run of two hundred nodes prints its numbers:
//! `cargo test --release -p updraft --test scale -- --ignored --nocapture`; `UPDRAFT_SCALE_NODES`,
//! `UPDRAFT_SCALE_MIB` and `UPDRAFT_SCALE_PLACES` (peers that the seed lets in) choose others.

#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

use std::fs;
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use updraft::control::messages::Response;
use updraft::control::views::{StatusView, SubscriptionState};
use updraft::runtime::descriptors;
use updraft_protocol::digest::Digest;
use updraft_tests::cluster::{Cluster, TestNode, status};
use updraft_tests::forge::noise;
use updraft_tests::lab::{head_version, open_descriptors, peak_bytes, resident_bytes};

/// What the program uses: the system's allocator keeps what many threads have freed.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Pause between two rounds of looking at every node, for each of them: looking costs the nodes time.
const PAUSE: Duration = Duration::from_millis(10);
/// Threads that nodes keep for their disks: each has two of its own and lends some to its sessions.
const THREADS_PER_NODE: usize = 8;

/// What a run took.
#[derive(Debug)]
struct Report {
    nodes: usize,
    bytes: u64,
    pieces: u64,
    started: Duration,
    heads: Duration,
    first: Duration,
    last: Duration,
    idle_bytes: u64,
    end_bytes: u64,
    peak_bytes: u64,
    descriptors: usize,
    /// Control messages that each peer sent while the release spread, fewest first.
    control: Vec<u64>,
    /// Blocks that each peer took, fewest first.
    blocks: Vec<u64>,
    /// Control messages of each peer in ten quiet seconds before, fewest first.
    quiet: Vec<u64>,
    seed_out_bytes: u64,
    duplicate_bytes: u64,
    /// Bytes that came after they were cancelled.
    unsolicited_bytes: u64,
    rejected_bytes: u64,
}

/// A runtime whose threads suffice for the disks of so many nodes.
fn runtime(nodes: usize) -> tokio::runtime::Runtime {
    descriptors::raise_limit().expect("up to the maximum it may be raised");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(nodes * THREADS_PER_NODE + 64)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Waits until the status of every peer is as it should be; returns when it was at the first and at the last.
async fn all(
    peers: &[TestNode],
    what: &str,
    deadline: Duration,
    is_there: impl Fn(&StatusView) -> bool,
) -> (Duration, Duration) {
    let started = Instant::now();
    let mut missing: Vec<&TestNode> = peers.iter().collect();
    let mut first = None;
    loop {
        let mut still = Vec::new();
        for node in missing {
            if !is_there(&status(&node.node).await) {
                still.push(node);
            }
        }
        if still.len() < peers.len() {
            first.get_or_insert_with(|| started.elapsed());
        }
        if still.is_empty() {
            return (first.unwrap_or_default(), started.elapsed());
        }
        if started.elapsed() > deadline {
            let last = status(&still[0].node).await;
            panic!("{what}: {} of {} nodes are still without: {last:#?}", still.len(), peers.len());
        }
        missing = still;
        tokio::time::sleep(PAUSE * u32::try_from(peers.len()).unwrap_or(u32::MAX)).await;
    }
}

fn holds(status: &StatusView) -> bool {
    status.subscriptions.iter().all(|one| one.state == SubscriptionState::Verified)
}

fn control(nodes: &[TestNode]) -> Vec<u64> {
    nodes.iter().map(|node| node.node.messages().control_out()).collect()
}

/// What each node sent since `before`, fewest first.
fn since(nodes: &[TestNode], before: &[u64]) -> Vec<u64> {
    let mut sent: Vec<u64> = control(nodes).iter().zip(before).map(|(now, before)| now - before).collect();
    sent.sort_unstable();
    sent
}

/// `places` is how many peers the seed lets in.
async fn run(nodes: usize, places: usize, bytes: usize, quiet: Duration, deadline: Duration) -> Report {
    let began = Instant::now();
    let mut cluster = Cluster::start_seed(|config| config.max_peers = places).await;
    cluster.add_mirrors(nodes, |_| {}).await;
    let head = head_version(&status(cluster.seed()).await);
    all(&cluster.peers, "the first head", deadline, |status| head_version(status) >= head).await;
    let started = began.elapsed();
    let before = control(&cluster.peers);
    tokio::time::sleep(quiet).await;
    let quiet = since(&cluster.peers, &before);
    let idle_bytes = resident_bytes();

    let source = cluster.scratch().join("release.bin");
    let content = noise("scale", bytes);
    fs::write(&source, &content).expect("writable");
    let before = control(&cluster.peers);
    let clock = Instant::now();
    let Ok(Response::Publish(published)) = cluster.publish(&source, "1.0.0").await else {
        panic!("it was not published");
    };
    let head = published.timestamp_version.expect("it was signed");
    let heads = async {
        all(&cluster.peers, "the head of the release", deadline, |status| head_version(status) >= head).await;
        clock.elapsed()
    };
    let (heads, (first, last)) = tokio::join!(heads, all(&cluster.peers, "the release", deadline, holds));
    let control = since(&cluster.peers, &before);
    let descriptors = open_descriptors();
    let end_bytes = resident_bytes();

    let artifact = published.sha256;
    let (mut blocks, mut duplicate_bytes, mut unsolicited_bytes, mut rejected_bytes) = (Vec::new(), 0, 0, 0);
    for peer in &cluster.peers {
        let file = peer.data_dir.join("artifacts").join(artifact.to_string()).join("data");
        assert_eq!(Digest::of(&fs::read(&file).expect("it is there")), artifact, "{}", file.display());
        let transfer = status(&peer.node).await.transfer;
        duplicate_bytes += transfer.bytes_duplicate;
        unsolicited_bytes += transfer.bytes_unsolicited;
        rejected_bytes += transfer.bytes_rejected;
        blocks.push(peer.node.messages().blocks_in());
    }
    blocks.sort_unstable();
    let report = Report {
        nodes,
        bytes: published.size_bytes,
        pieces: u64::from(published.pieces),
        started,
        heads,
        first,
        last,
        idle_bytes,
        end_bytes,
        peak_bytes: peak_bytes(std::process::id()),
        descriptors,
        control,
        blocks,
        quiet,
        seed_out_bytes: status(cluster.seed()).await.transfer.bytes_out,
        duplicate_bytes,
        unsolicited_bytes,
        rejected_bytes,
    };
    cluster.stop().await;
    report
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn print(&self) {
        let nodes = u64::try_from(self.nodes).expect("few");
        let spread = |counts: &[u64]| {
            let (middle, last) = (counts[counts.len() / 2], counts[counts.len() - 1]);
            format!("median {middle}, most {last}")
        };
        let per_node = |bytes: u64| format!("{} MiB, {} KiB a node", bytes >> 20, (bytes >> 10) / nodes);
        println!(
            "{nodes} nodes and a seed in one process, one release of {} MiB in {} pieces",
            self.bytes >> 20,
            self.pieces
        );
        println!("  all started and with a head     {:>8.1} s", self.started.as_secs_f64());
        println!("  publish to the last head        {:>8.1} s", self.heads.as_secs_f64());
        println!(
            "  the first whole, the last       {:>8.1} s, {:.1} s",
            self.first.as_secs_f64(),
            self.last.as_secs_f64()
        );
        println!("  memory before                   {}", per_node(self.idle_bytes));
        println!("  memory at the end, most ever    {}; {} MiB", per_node(self.end_bytes), self.peak_bytes >> 20);
        println!("  descriptors                     {}", self.descriptors);
        println!("  control messages while quiet    {}", spread(&self.quiet));
        println!("  control messages for a release  {}", spread(&self.control));
        println!("  blocks                          {}", spread(&self.blocks));
        println!("  copies out of the seed          {:.2}", self.seed_out_bytes as f64 / self.bytes as f64);
        let share = |bytes: u64| 100.0 * bytes as f64 / (nodes * self.bytes) as f64;
        let (twice, late) = (share(self.duplicate_bytes), share(self.unsolicited_bytes));
        println!("  bytes twice, too late, wrong    {twice:.2} %, {late:.2} %, {}", self.rejected_bytes);
    }
}

#[test]
fn every_node_of_a_crowd_gets_the_release_and_says_little() {
    const NODES: usize = 16;
    let report = runtime(NODES).block_on(run(NODES, 64, 4 << 20, Duration::from_secs(2), Duration::from_secs(90)));
    assert_eq!(report.rejected_bytes, 0, "nobody lies here");
    // A piece is told of once to each neighbour at most, and asked for in no more blocks than it has leaves.
    let leaves = report.bytes / (16 << 10);
    let neighbours = u64::try_from(NODES).expect("few");
    let most = report.pieces * neighbours + 4 * leaves + 50 * neighbours;
    let loudest = report.control.last().copied().unwrap_or_default();
    assert!(loudest <= most, "a node sent {loudest} control messages for one release; {most} are enough");
    let quietest = report.quiet.last().copied().unwrap_or_default();
    assert!(quietest <= 4 * neighbours, "a node sent {quietest} messages while nothing happened");
}

#[test]
#[ignore = "a measurement of two hundred nodes, run by name"]
fn two_hundred_nodes() {
    let number = |name: &str, otherwise: usize| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    };
    let (nodes, mebibytes) = (number("UPDRAFT_SCALE_NODES", 200), number("UPDRAFT_SCALE_MIB", 16));
    let quiet = Duration::from_secs(10);
    let places = number("UPDRAFT_SCALE_PLACES", nodes + 8);
    let report = runtime(nodes).block_on(run(nodes, places, mebibytes << 20, quiet, Duration::from_secs(900)));
    report.print();
    assert_eq!(report.rejected_bytes, 0, "nobody lies here");
}
