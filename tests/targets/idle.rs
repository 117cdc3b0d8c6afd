//! What a swarm costs beside its releases: one that has nothing to do, and one that many join at once, with
//! and without Kademlia. Whole nodes in one process, on loopback. They are measurements, run by name:
//!
//! ```text
//! unshare --map-root-user --net sh -c 'ip link set lo up; \
//!     cargo test --release -p updraft --test idle -- --ignored --nocapture --test-threads 1'
//! ```
//!
//! Bytes are counted in two ways. What nodes wrote to their TCP connections, encryption and framing included,
//! they count themselves. What that became on the wire, with the headers of TCP and IP and with packets that
//! only acknowledge, the system counts for the loopback interface: exactly these nodes' packets in a network
//! namespace of their own, as above, and an upper bound elsewhere. To each packet come [`ETHERNET_BYTES`].
//!
//! `UPDRAFT_IDLE_NODES` (32), `UPDRAFT_IDLE_SECONDS` (900) and `UPDRAFT_JOIN_NODES` (`10,20,50,100`) choose
//! others. A window shorter than the time between two signs of life shows too little.

#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

use std::fs;
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use updraft::config::Kad;
use updraft::control::views::SubscriptionState;
use updraft::runtime::descriptors;
use updraft_tests::cluster::{Cluster, TestNode, status, until};
use updraft_tests::forge::noise;
use updraft_tests::lab::head_version;

/// What the program uses.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Bytes of an Ethernet header, which a packet on loopback lacks.
const ETHERNET_BYTES: u64 = 14;
/// What an idle node may send a second, every header counted.
const MAX_IDLE_BYTES_PER_SECOND: u64 = 200;
/// The time for a swarm to come to rest: visitors have left, everybody has found neighbours.
const SETTLE: Duration = Duration::from_secs(60);
/// Neighbours with which a node is content.
const CONTENT: u64 = 10;
/// What joining costs is counted for this long.
const JOINING: Duration = Duration::from_secs(40);

/// What the network moved by now.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    /// Written to connections.
    written: u64,
    /// On the loopback interface: bytes with the headers of IP, and packets.
    wire: u64,
    packets: u64,
    /// Control messages of sessions.
    messages: u64,
}

impl Traffic {
    async fn of(cluster: &Cluster) -> Self {
        let (wire, packets) = loopback();
        let mut traffic = Self { wire, packets, ..Self::default() };
        for node in nodes(cluster) {
            traffic.written += status(&node.node).await.transfer.bytes_wire_out;
            traffic.messages += node.node.messages().control_out();
        }
        traffic
    }

    fn since(self, before: Self) -> Self {
        Self {
            written: self.written - before.written,
            wire: self.wire - before.wire,
            packets: self.packets - before.packets,
            messages: self.messages - before.messages,
        }
    }

    /// Every header counted.
    fn framed(self) -> u64 {
        self.wire + self.packets * ETHERNET_BYTES
    }
}

/// Bytes and packets that the loopback interface has carried; none where the system does not tell.
fn loopback() -> (u64, u64) {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap_or_default();
    let mut fields = line.split_whitespace().map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

fn nodes(cluster: &Cluster) -> impl Iterator<Item = &TestNode> {
    cluster.peers.iter().chain(&cluster.seed)
}

async fn sessions(cluster: &Cluster) -> Vec<u64> {
    let mut sessions = Vec::new();
    for node in nodes(cluster) {
        sessions.push(status(&node.node).await.connected_peers);
    }
    sessions.sort_unstable();
    sessions
}

fn runtime(nodes: usize) -> tokio::runtime::Runtime {
    descriptors::raise_limit().expect("up to the maximum it may be raised");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(nodes * 8 + 64)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[test]
#[ignore = "a measurement of a quarter of an hour, run by name"]
fn a_swarm_that_has_nothing_to_do() {
    measure_idle("TCP", "/ip4/127.0.0.1/tcp/0");
}

#[test]
#[ignore = "a measurement of a quarter of an hour, run by name"]
fn a_swarm_that_has_nothing_to_do_over_quic_alone() {
    measure_idle("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1");
}

/// What nodes cost each other that listen at `listen` and have nothing to do.
fn measure_idle(transport: &str, listen: &str) {
    let count = usize::try_from(number("UPDRAFT_IDLE_NODES", 32)).expect("a few");
    let window = Duration::from_secs(number("UPDRAFT_IDLE_SECONDS", 900));
    runtime(count).block_on(async {
        let listen = || vec![listen.to_owned()];
        let mut cluster = Cluster::start_seed(|config| config.listen = listen()).await;
        cluster.add_mirrors(count.saturating_sub(1), |config| config.listen = listen()).await;
        let source = cluster.scratch().join("release.bin");
        fs::write(&source, noise("idle", 100_000)).expect("writable");
        cluster.publish(&source, "1.0.0").await.expect("published");
        for peer in &cluster.peers {
            until(&peer.node, "the release", |status| {
                status.subscriptions.iter().all(|one| one.state == SubscriptionState::Verified)
            })
            .await;
        }
        tokio::time::sleep(SETTLE).await;
        let (before, clock) = (Traffic::of(&cluster).await, Instant::now());
        tokio::time::sleep(window).await;
        let traffic = Traffic::of(&cluster).await.since(before);
        let node_seconds = clock.elapsed().as_secs() * u64::try_from(count).expect("a few");
        let rate = |bytes: u64| bytes / node_seconds.max(1);
        let sessions = sessions(&cluster).await;
        let seconds = window.as_secs();
        println!(
            "{count} nodes over {transport} that have nothing to do, for {seconds} s; bytes sent a second and node"
        );
        println!("  sessions of a node            median {}, most {}", sessions[count / 2], sessions[count - 1]);
        println!("  written to connections        {:>6}", rate(traffic.written));
        println!("  with headers of IP and above  {:>6}", rate(traffic.wire));
        println!("  with those of Ethernet, too   {:>6}", rate(traffic.framed()));
        println!("  packets in a hundred seconds  {:>6}", rate(100 * traffic.packets));
        println!("  control messages in an hour   {:>6}", rate(3_600 * traffic.messages));
        cluster.stop().await;
        assert!(rate(traffic.framed()) < MAX_IDLE_BYTES_PER_SECOND, "that is too much");
    });
}

/// What it takes until everybody has found neighbours.
#[derive(Debug)]
struct Joined {
    /// Until half of them, and all of them, were content.
    half: Duration,
    all: Option<Duration>,
    head: Duration,
    traffic: Traffic,
    sessions: Vec<u64>,
}

/// All join at once, through the seed.
async fn join(count: usize, kad: Kad) -> Joined {
    let mut cluster = Cluster::start_seed(|config| config.kad = kad).await;
    let head = head_version(&status(cluster.seed()).await);
    let (before, clock) = (Traffic::of(&cluster).await, Instant::now());
    cluster.add_mirrors(count, |config| config.kad = kad).await;
    let content = CONTENT.min(u64::try_from(count).expect("a few"));
    let (mut half, mut all, mut told) = (None, None, None);
    while clock.elapsed() < JOINING {
        if all.is_none() || told.is_none() {
            let (mut satisfied, mut informed) = (0, 0);
            for peer in &cluster.peers {
                let status = status(&peer.node).await;
                satisfied += usize::from(status.connected_peers >= content);
                informed += usize::from(head_version(&status) >= head);
            }
            if 2 * satisfied >= count {
                half.get_or_insert_with(|| clock.elapsed());
            }
            if satisfied == count {
                all.get_or_insert_with(|| clock.elapsed());
            }
            if informed == count {
                told.get_or_insert_with(|| clock.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let traffic = Traffic::of(&cluster).await.since(before);
    let sessions = sessions(&cluster).await;
    cluster.stop().await;
    let (half, head) = (half.unwrap_or(JOINING), told.unwrap_or(JOINING));
    Joined { half, all, head, traffic, sessions }
}

#[test]
#[ignore = "a measurement of ten minutes, run by name"]
fn joining_with_and_without_kademlia() {
    let sizes = std::env::var("UPDRAFT_JOIN_NODES").unwrap_or_else(|_| "10,20,50,100".to_owned());
    println!("all join at once through one seed; neighbours: {CONTENT} each; what was sent in {JOINING:?}");
    println!(
        "{:>6} {:>7} {:>10} {:>10} {:>10} {:>12} {:>10} {:>9} {:>20}",
        "nodes", "kad", "half s", "all s", "head s", "KiB a node", "packets", "messages", "sessions min/med/max"
    );
    for count in sizes.split(',').filter_map(|size| size.trim().parse::<usize>().ok()).filter(|count| *count > 0) {
        for kad in [Kad::Off, Kad::Client, Kad::Server] {
            let joined = runtime(count + 1).block_on(join(count, kad));
            let nodes = u64::try_from(count + 1).expect("a few");
            let Joined { half, all, head, traffic, sessions } = joined;
            println!(
                "{count:>6} {:>7} {:>10.1} {:>10} {:>10.1} {:>12} {:>10} {:>9} {:>20}",
                format!("{kad:?}").to_lowercase(),
                half.as_secs_f64(),
                all.map_or_else(|| "never".to_owned(), |all| format!("{:.1}", all.as_secs_f64())),
                head.as_secs_f64(),
                (traffic.framed() / nodes) >> 10,
                traffic.packets / nodes,
                traffic.messages / nodes,
                format!("{}/{}/{}", sessions[0], sessions[sessions.len() / 2], sessions[sessions.len() - 1]),
            );
        }
    }
}
