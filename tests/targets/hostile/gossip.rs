//! Junk that races every head.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Head, Inline};
use updraft_protocol::limits::MAX_HEAD_BYTES;
use updraft_protocol::tuf::RoleName;
use updraft_tests::forge::{Forge, Set, noise};
use updraft_tests::lab::{Lab, Truth, Victim, head_version};
use updraft_tests::malicious::{Honest, Peer};
use updraft_tests::now;

use super::attack::{MOMENT, is_unmoved, repository, settled};

/// Publications that are raced.
const ROUNDS: u32 = 6;
/// Real nodes that listen.
const NODES: usize = 4;
/// Within this time every node knows a new head, whatever is thrown at it.
const QUICKLY: Duration = Duration::from_secs(3);

/// Copies of a head with something wrong in each: none may stand in for it, spread or be kept.
fn junk(set: &Set) -> Vec<Vec<u8>> {
    let honest = set.head();
    let parts = Head::decode(&honest).expect("a head");
    let inline = |bytes: &[u8]| Inline::Target { path: "channels/app/stable.json".to_owned(), bytes: bytes.to_vec() };
    let mut renamed = parts.clone();
    renamed.inlines.retain(|file| matches!(file, Inline::Role { .. }));
    let mut other_policy = renamed.clone();
    other_policy.inlines.push(inline(b"{}"));
    let mut unknown_role = Head { inlines: Vec::new(), ..parts.clone() };
    let name: RoleName = "nobody".parse().expect("a role name");
    unknown_role.inlines.push(Inline::Role { name, version: 1, bytes: b"{}".to_vec() });
    let mut unknown_target = renamed.clone();
    unknown_target.inlines.push(Inline::Target { path: "releases/app/9.9.9/any/x".to_owned(), bytes: vec![7; 100] });
    let mut altered_role = parts.clone();
    for file in &mut altered_role.inlines {
        if let Inline::Role { bytes, .. } = file {
            bytes.push(b' ');
        }
    }
    let mut unsigned = parts.clone();
    unsigned.timestamp =
        String::from_utf8(parts.timestamp.clone()).expect("text").replace("\"sig\":\"", "\"sig\":\"00").into_bytes();
    let mut cut = parts.clone();
    cut.snapshot.truncate(40);
    let mut junk = vec![
        [&honest[..], b"\x28\x01"].concat(),
        [&honest[..], b"\x08\x01"].concat(),
        honest[..honest.len() - 1].to_vec(),
        vec![0xff; MAX_HEAD_BYTES],
        vec![0; 2 * MAX_HEAD_BYTES - 200],
        b"junk".to_vec(),
    ];
    junk.extend([other_policy, unknown_role, unknown_target, altered_role, unsigned, cut].map(|head| head.encode()));
    junk
}

/// Real nodes that know each other and the publisher.
async fn fleet(lab: &Lab, forge: &Forge, publisher: &Peer) -> Vec<Victim> {
    let mut nodes: Vec<Victim> = Vec::new();
    for _ in 0..NODES {
        let addresses: Vec<String> =
            nodes.iter().map(|node| node.address.clone()).chain([publisher.address.clone()]).collect();
        nodes.push(lab.victim(&forge.ticket(&addresses)).await);
    }
    for node in &nodes {
        node.until("the neighbours", |status| status.connected_peers >= 2).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_copies_that_come_first_shadow_no_head_and_spread_nowhere() {
    let lab = Lab::new();
    let mut forge = Forge::new("shadows", now());
    let mut set = forge.publish("1.0.0", noise("1.0.0", 40_000));
    let mut truth = Truth::of(&[&set]);
    let publisher = Peer::start(&set, Honest).await;
    let nodes = fleet(&lab, &forge, &publisher).await;
    for node in &nodes {
        node.reaches(&set, "1.0.0").await;
    }
    // It hears from the last node only, and that hears from the others: what arrives was forwarded.
    let listener = Peer::start(&set, Honest).await;
    listener.connect(&nodes[NODES - 1].address).await;
    let mut all_junk: BTreeSet<Digest> = BTreeSet::new();
    let mut slowest = Duration::ZERO;
    for round in 1..=ROUNDS {
        let version = format!("1.{round}.0");
        set = forge.publish(&version, noise(&version, 40_000));
        truth.learn(&set);
        // The attacker knows the head before anybody else, has a fresh name each time, is connected to
        // everybody, and fires first. The publisher speaks to one node only.
        let attacker = Peer::start(&set, Honest).await;
        for node in &nodes {
            attacker.connect(&node.address).await;
        }
        tokio::time::sleep(MOMENT).await;
        for payload in junk(&set) {
            all_junk.insert(Digest::of(&payload));
            attacker.gossip(payload).await;
        }
        let started = Instant::now();
        publisher.shelve(&set);
        publisher.gossip(set.head()).await;
        for node in &nodes {
            node.until("the head", |status| head_version(status) == set.timestamp_version).await;
        }
        slowest = slowest.max(started.elapsed());
        for payload in junk(&set) {
            attacker.gossip(payload).await;
        }
    }
    assert!(slowest < QUICKLY, "a head took {slowest:?}");
    let version = format!("1.{ROUNDS}.0");
    for node in &nodes {
        node.reaches(&set, &version).await;
        node.is_unharmed(&truth, &[]).await;
        assert!(!node.banned(&publisher.id).await && !node.banned(&listener.id).await);
    }
    let spread: Vec<Digest> =
        listener.log().gossip.iter().map(|(digest, _)| *digest).filter(|digest| all_junk.contains(digest)).collect();
    assert_eq!(spread, [], "junk was forwarded");
    let rejected = heads_rejected(&nodes[0]).await;
    assert!(rejected > 0, "nothing was rejected: the attack reached nobody");
}

/// Heads that a node rejected, as its metrics say.
async fn heads_rejected(node: &Victim) -> u64 {
    // The numbers are a second old at most.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let text = node.get("/metrics").await.text();
    let line = text.lines().find(|line| line.contains("heads") && line.contains("\"rejected\"")).expect("a metric");
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_of_junk_is_no_longer_heard_by_gossip() {
    let lab = Lab::new();
    let (mut forge, set) = repository("silenced");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let sender = Peer::start(&set, Honest).await;
    sender.connect(&victim.address).await;
    tokio::time::sleep(2 * MOMENT).await;
    for number in 0..50_u8 {
        sender.gossip(vec![number; 100]).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let faults = victim.faults_of(&sender.id).await;
    assert!(faults.is_none_or(|faults| (1..=10).contains(&faults)), "{faults:?} of 50 were judged");
    // A head that is right, from a peer that is not heard, comes another way.
    let next = forge.publish("1.1.0", noise("silenced 1.1.0", 40_000));
    sender.gossip(next.head()).await;
    tokio::time::sleep(MOMENT).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    lab.converges(&victim, &next, "1.1.0").await;
    victim.is_unharmed(&Truth::of(&[&set, &next]), &[]).await;
}
