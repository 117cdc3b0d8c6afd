//! Blocks: asked for, sent, stored, cancelled.

use std::sync::PoisonError;

use updraft_protocol::digest::Digest;
use updraft_protocol::transfer::{Control, ObjectId, ObjectKind};

use super::harness::{Node, OBJECT, QUIC, TCP, block, introduce};
use crate::engine::effect::SwarmEffect;
use crate::engine::input::{BlockOutcome, SwarmInput};

/// Asks for blocks, sends what is asked for, until all have arrived. At most `depth` are under way.
pub(super) async fn fetch(from: &mut Node, to: &mut Node, blocks: u64, depth: u64) {
    let (mut asked, mut arrived) = (0, 0);
    let source = from.peer.clone();
    let ask = async |node: &Node, peer, number| {
        node.tell(SwarmEffect::Request { peer, handle: 7, object: OBJECT, block: block(number) }).await;
    };
    while asked < depth.min(blocks) {
        ask(to, source.clone(), asked).await;
        asked += 1;
    }
    let serve = async |node: &mut Node| {
        let (peer, handle, block) = node
            .wait("a request", |input| match input {
                SwarmInput::Control { peer, message: Control::Request { handle, block } } => {
                    Some((peer, handle, block))
                }
                _ => None,
            })
            .await;
        node.tell(SwarmEffect::SendBlock { peer, handle, object: OBJECT, block }).await;
    };
    let receive = async {
        while arrived < blocks {
            let outcome = to
                .wait("a block", |input| match input {
                    SwarmInput::BlockArrived { outcome, .. } => Some(outcome),
                    SwarmInput::Disconnected { reason, .. } => panic!("{reason}"),
                    _ => None,
                })
                .await;
            assert_eq!(outcome, BlockOutcome::Stored);
            arrived += 1;
            if asked < blocks {
                ask(to, source.clone(), asked).await;
                asked += 1;
            }
        }
    };
    let send = async {
        for _ in 0..blocks {
            serve(from).await;
        }
    };
    tokio::join!(receive, send);
}

async fn blocks_arrive_whole(listen: &str) {
    const BLOCKS: u64 = 64;
    let (mut from, mut to) = (Node::with_seed(1, listen).await, Node::with_seed(2, listen).await);
    introduce(&mut to, &mut from).await;
    fetch(&mut from, &mut to, BLOCKS, 8).await;
    let written = to.io.written.lock().unwrap_or_else(PoisonError::into_inner).len();
    assert_eq!(written, 64);
    assert_eq!(to.counters.payload_in_bytes(), BLOCKS << 20);
    assert_eq!(from.counters.payload_out_bytes(), BLOCKS << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_arrive_whole_over_tcp() {
    blocks_arrive_whole(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_arrive_whole_over_quic() {
    blocks_arrive_whole(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_nobody_asked_for_is_dropped() {
    let (mut from, mut to) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut to, &mut from).await;
    from.tell(SwarmEffect::SendBlock { peer: to.peer.clone(), handle: 7, object: OBJECT, block: block(3) }).await;
    let dropped = to
        .wait("a dropped block", |input| match input {
            SwarmInput::BlockUnsolicited { block, .. } => Some(block),
            SwarmInput::BlockArrived { .. } => panic!("it was stored"),
            _ => None,
        })
        .await;
    assert_eq!(dropped, block(3));
    assert!(to.io.written.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_floods_with_unsolicited_blocks_loses_its_session() {
    let (mut from, mut to) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut to, &mut from).await;
    for number in 0..70 {
        from.tell(SwarmEffect::SendBlock { peer: to.peer.clone(), handle: 7, object: OBJECT, block: block(number) })
            .await;
    }
    assert_eq!(to.disconnected().await, "the peer sends blocks that nobody asked for");
    assert_eq!(to.counters.unsolicited_in_bytes(), 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_block_is_dropped_and_not_held_against_the_peer() {
    let (mut from, mut to) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut to, &mut from).await;
    // More than would end the session, had nobody asked for it.
    for number in 0..70 {
        to.tell(SwarmEffect::Request { peer: from.peer.clone(), handle: 7, object: OBJECT, block: block(number) })
            .await;
        to.tell(SwarmEffect::Cancel { peer: from.peer.clone(), handle: 7, block: block(number) }).await;
    }
    for number in 0..70 {
        from.tell(SwarmEffect::SendBlock { peer: to.peer.clone(), handle: 7, object: OBJECT, block: block(number) })
            .await;
    }
    for number in 0..70 {
        let dropped = to
            .wait("a dropped block", |input| match input {
                SwarmInput::BlockUnsolicited { block, .. } => Some(block),
                SwarmInput::Disconnected { reason, .. } => panic!("{reason}"),
                _ => None,
            })
            .await;
        assert_eq!(dropped, block(number));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_read_is_reported_and_the_next_is_sent() {
    let (mut from, mut to) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut to, &mut from).await;
    let missing = ObjectId { kind: ObjectKind::Artifact, digest: Digest::of(b"missing") };
    to.tell(SwarmEffect::Request { peer: from.peer.clone(), handle: 7, object: OBJECT, block: block(1) }).await;
    from.tell(SwarmEffect::SendBlock { peer: to.peer.clone(), handle: 8, object: missing, block: block(0) }).await;
    from.tell(SwarmEffect::SendBlock { peer: to.peer.clone(), handle: 7, object: OBJECT, block: block(1) }).await;
    let reason = from
        .wait("the report", |input| match input {
            SwarmInput::BlockUnreadable { object, reason, .. } => (object == missing).then_some(reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, "no such object");
    to.wait("the block", |input| matches!(input, SwarmInput::BlockArrived { .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_dropped_from_the_queue_is_not_sent() {
    let (mut from, mut to) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut to, &mut from).await;
    for number in 0..100 {
        from.tell(SwarmEffect::SendBlock {
            peer: to.peer.clone(),
            handle: 7,
            object: OBJECT,
            block: block(number % 50),
        })
        .await;
    }
    for number in 0..50 {
        from.tell(SwarmEffect::DropBlock { peer: to.peer.clone(), handle: 7, block: block(number) }).await;
    }
    from.tell(SwarmEffect::SendBlock { peer: to.peer.clone(), handle: 7, object: OBJECT, block: block(999) }).await;
    let mut before = 0;
    from.wait("the last block", |input| match input {
        SwarmInput::BlockSent { block: sent, .. } => {
            before += 1;
            (sent == block(999)).then_some(())
        }
        _ => None,
    })
    .await;
    assert!(before < 50, "{before} blocks were sent though they were dropped");
}
