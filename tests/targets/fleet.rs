//! Measurements of whole nodes in one process. They print and judge nothing: run them by name,
//! `cargo test --release -p updraft --test fleet -- --ignored --nocapture`.

#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

use std::fs;
use std::time::{Duration, Instant};

use updraft::control::Call;
use updraft::control::messages::{Line, Request};
use updraft::control::reply;
use updraft_tests::cluster::{Cluster, status};

const NODES: usize = 20;

/// When a node first told of a verified head after `start`.
async fn head_verified(cluster: &Cluster, index: usize) -> tokio::task::JoinHandle<Instant> {
    let (sender, mut receiver) = reply::channel();
    let request = Request::Events { follow: true, since: Some(u64::MAX) };
    cluster.peers[index].node.calls().send(Call { request, reply: sender }).await.expect("the node runs");
    tokio::spawn(async move {
        while let Some(line) = receiver.next().await {
            if let Line::Event(event) = line
                && event.kind == "head_verified"
            {
                return Instant::now();
            }
        }
        panic!("the node stopped");
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of twenty nodes, run by name"]
async fn from_publish_to_head_verified_on_twenty_nodes() {
    let cluster = Cluster::start(NODES).await;
    for peer in &cluster.peers {
        while status(&peer.node).await.repositories[0].head.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // The gossip mesh needs a few heartbeats.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let source = cluster.scratch().join("source");
    fs::create_dir(&source).expect("writable");
    for round in 0..5 {
        fs::write(source.join("file"), format!("round {round}")).expect("writable");
        let mut watchers = Vec::new();
        for index in 0..NODES {
            watchers.push(head_verified(&cluster, index).await);
        }
        let start = Instant::now();
        cluster.publish(&source, &format!("1.0.{round}")).await.expect("published");
        let published = start.elapsed();
        let mut times = Vec::new();
        for watcher in watchers {
            times.push(watcher.await.expect("a time").duration_since(start));
        }
        times.sort();
        println!(
            "round {round}: publish answered after {published:?}; head verified: median {:?}, last of {NODES} {:?}",
            times[NODES / 2],
            times[NODES - 1]
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.stop().await;
}
