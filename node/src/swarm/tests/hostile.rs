//! Peers that break the rules of a session.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use libp2p::swarm::SwarmEvent;
use tokio::task::JoinHandle;
use updraft_protocol::limits::MAX_CONTROL_FRAME_BYTES;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockHeader, Control};

use super::harness::{Node, OBJECT, TCP, block, identity, raw_swarm, within};
use crate::engine::effect::SwarmEffect;
use crate::engine::input::SwarmInput;
use crate::swarm::streams;

/// A peer that holds its session's streams in its hands.
struct Hostile {
    peer: PeerId,
    control: Stream,
    data: Stream,
    runs: JoinHandle<()>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.runs.abort();
    }
}

async fn hostile(node: &mut Node) -> Hostile {
    let identity = identity(666);
    let mut swarm = raw_swarm(&identity);
    let address: libp2p::Multiaddr = node.addresses[0].parse().expect("a multiaddress");
    swarm.dial(address).expect("it can be dialled");
    let streams::Lanes { control, data } = within("a session", async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(streams::Event::Ready { lanes, .. }) = event {
                break *lanes;
            }
        }
    })
    .await;
    let runs = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    assert_eq!(node.connected().await, identity.peer_id());
    node.greet(&identity.peer_id()).await;
    Hostile { peer: identity.peer_id(), control, data, runs }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_frame_over_the_limit_ends_the_session() {
    let mut node = Node::with_seed(1, TCP).await;
    let mut hostile = hostile(&mut node).await;
    hostile.control.write_all(&(MAX_CONTROL_FRAME_BYTES + 1).to_be_bytes()).await.expect("written");
    hostile.control.flush().await.expect("flushed");
    let reason = node.disconnected().await;
    assert!(reason.contains("a control frame of 65537 bytes"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_control_frame_ends_the_session() {
    let mut node = Node::with_seed(1, TCP).await;
    let mut hostile = hostile(&mut node).await;
    hostile.control.write_all(&[0, 0, 0, 3, 0xff, 0xff, 0xff]).await.expect("written");
    hostile.control.flush().await.expect("flushed");
    let reason = node.disconnected().await;
    assert!(reason.contains("cannot be decoded"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_header_out_of_bounds_ends_the_session() {
    let mut node = Node::with_seed(1, TCP).await;
    let mut hostile = hostile(&mut node).await;
    hostile.data.write_all(&[0xff; BlockHeader::BYTES]).await.expect("written");
    hostile.data.flush().await.expect("flushed");
    let reason = node.disconnected().await;
    assert!(reason.contains("out of bounds"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_and_messages_of_later_versions_do_no_harm() {
    let mut node = Node::with_seed(1, TCP).await;
    let mut hostile = hostile(&mut node).await;
    hostile.control.write_all(&[0, 0, 0, 0, 0, 0, 0, 5, 0x9a, 0x06, 0x02, 1, 2]).await.expect("written");
    hostile.control.flush().await.expect("flushed");
    assert_eq!(node.control().await, Control::Unknown);
    let mut greeting = [0; 4];
    within("the greeting", hostile.control.read_exact(&mut greeting)).await.expect("the session is up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_no_blocks_costs_no_more_than_two() {
    let mut node = Node::with_seed(1, TCP).await;
    let hostile = hostile(&mut node).await;
    for number in 0..600 {
        let peer = hostile.peer.clone();
        node.tell(SwarmEffect::SendBlock { peer, handle: 1, object: OBJECT, block: block(number) }).await;
    }
    let inputs = node.inputs_within(Duration::from_secs(2)).await;
    let sent = inputs.iter().filter(|input| matches!(input, SwarmInput::BlockSent { .. })).count();
    let refused = inputs.iter().filter(|input| matches!(input, SwarmInput::BlockUnreadable { .. })).count();
    let read = node.io.reads.load(Ordering::Relaxed);
    assert!(read <= sent + 2, "{read} blocks were read, {sent} sent");
    assert!(sent <= 4, "{sent} blocks fit into buffers on the way");
    assert!((600 - 512 - 8..=600 - 512).contains(&refused), "{refused} blocks were refused");
    drop(hostile);
    node.disconnected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_no_messages_loses_its_session() {
    let mut node = Node::with_seed(1, TCP).await;
    let hostile = hostile(&mut node).await;
    for _ in 0..400 {
        let have = vec![0xff; 30_000];
        node.say(&hostile.peer, Control::Announce { handle: 1, object: OBJECT, wants: false, have }).await;
    }
    assert_eq!(node.disconnected().await, "the peer does not read its control messages");
}
