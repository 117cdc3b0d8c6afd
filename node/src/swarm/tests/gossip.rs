//! Heads: forwarded after a verdict, and only then.

use std::time::Duration;

use updraft_protocol::peer::PeerId;

use super::harness::{Node, TCP, introduce};
use crate::engine::effect::{GossipVerdict, SwarmEffect};
use crate::engine::input::SwarmInput;

/// Three nodes in a line; the outer ones know only the middle one.
async fn line() -> [Node; 3] {
    let mut nodes = [Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await, Node::with_seed(3, TCP).await];
    let [left, middle, right] = &mut nodes;
    introduce(left, middle).await;
    introduce(right, middle).await;
    // Subscriptions travel with the connection; meshes form at the first heartbeats.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    nodes
}

async fn heard(node: &mut Node) -> (Vec<u8>, PeerId, Vec<u8>) {
    node.wait("a head", |input| match input {
        SwarmInput::Gossip { message, peer, payload } => Some((message, peer, payload)),
        _ => None,
    })
    .await
}

async fn hears_nothing(node: &mut Node, time: Duration) {
    let inputs = node.inputs_within(time).await;
    let head = |input: &&SwarmInput| matches!(input, SwarmInput::Gossip { .. });
    assert_eq!(inputs.iter().find(head), None);
}

async fn verdict(node: &Node, message: Vec<u8>, peer: PeerId, verdict: GossipVerdict) {
    node.tell(SwarmEffect::GossipVerdict { message, peer, verdict }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_head_is_forwarded_as_it_came() {
    let [left, mut middle, mut right] = line().await;
    left.tell(SwarmEffect::PublishHead { payload: b"a head".to_vec() }).await;
    let (message, peer, payload) = heard(&mut middle).await;
    assert_eq!((&peer, payload.as_slice()), (&left.peer, b"a head".as_slice()));
    hears_nothing(&mut right, Duration::from_millis(300)).await;
    verdict(&middle, message, peer, GossipVerdict::Accept).await;
    let (_, peer, payload) = heard(&mut right).await;
    assert_eq!((peer, payload.as_slice()), (middle.peer, b"a head".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_head_ends_here() {
    let [left, mut middle, mut right] = line().await;
    left.tell(SwarmEffect::PublishHead { payload: b"an old head".to_vec() }).await;
    let (message, peer, _) = heard(&mut middle).await;
    verdict(&middle, message, peer, GossipVerdict::Ignore).await;
    hears_nothing(&mut right, Duration::from_secs(2)).await;
    // The sender is not blamed: its next head is heard.
    left.tell(SwarmEffect::PublishHead { payload: b"a new head".to_vec() }).await;
    assert_eq!(heard(&mut middle).await.2, b"a new head");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_heads_are_rejected_is_no_longer_heard() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut one, &mut other).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for number in 0..3u8 {
        one.tell(SwarmEffect::PublishHead { payload: vec![number; 10] }).await;
        let (message, peer, _) = heard(&mut other).await;
        verdict(&other, message, peer, GossipVerdict::Reject).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    one.tell(SwarmEffect::PublishHead { payload: b"more".to_vec() }).await;
    hears_nothing(&mut other, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_to_nobody_or_again_is_no_failure() {
    let mut one = Node::with_seed(1, TCP).await;
    one.tell(SwarmEffect::PublishHead { payload: b"a head".to_vec() }).await;
    let mut other = Node::with_seed(2, TCP).await;
    introduce(&mut one, &mut other).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        one.tell(SwarmEffect::PublishHead { payload: b"a head".to_vec() }).await;
    }
    assert_eq!(heard(&mut other).await.2, b"a head");
    hears_nothing(&mut other, Duration::from_millis(500)).await;
}
