//! Nodes against libp2p as it comes: its encryption, its multiplexer, its frame sizes.

use std::time::Duration;

use futures::{AsyncReadExt as _, StreamExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, noise, swarm, tcp, tls, yamux};
use tokio::sync::oneshot;
use updraft_protocol::transfer::BlockHeader;

use super::harness::{MIB, Node, OBJECT, TCP, block, identity, within};
use crate::engine::effect::SwarmEffect;
use crate::swarm::Identity;
use crate::swarm::streams::{self, Lanes};

type Transport = Boxed<(libp2p::PeerId, StreamMuxerBox)>;

fn with_noise(keypair: &Keypair) -> Transport {
    let noise = noise::Config::new(keypair).expect("Noise can be set up");
    let tcp = tcp::tokio::Transport::new(tcp::Config::new()).upgrade(Version::V1);
    tcp.authenticate(noise).multiplex(yamux::Config::default()).boxed()
}

fn with_tls(keypair: &Keypair) -> Transport {
    let tls = tls::Config::new(keypair).expect("TLS can be set up");
    let tcp = tcp::tokio::Transport::new(tcp::Config::new()).upgrade(Version::V1);
    tcp.authenticate(tls).multiplex(yamux::Config::default()).boxed()
}

/// A stock node that opens sessions: ours on its side of nothing below them.
fn stock(identity: &Identity, transport: Transport) -> Swarm<streams::Behaviour> {
    let peer = identity.keypair.public().to_peer_id();
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    Swarm::new(transport, streams::Behaviour::new(peer), peer, settings)
}

async fn session(swarm: &mut Swarm<streams::Behaviour>) -> Lanes {
    loop {
        if let SwarmEvent::Behaviour(streams::Event::Ready { lanes, .. }) = swarm.select_next_some().await {
            return *lanes;
        }
    }
}

/// A block goes over the session and arrives whole.
async fn fetches_a_block(node: &mut Node, identity: &Identity, mut lanes: Lanes) {
    let peer = identity.peer_id();
    assert_eq!(node.connected().await, peer);
    node.greet(&peer).await;
    node.tell(SwarmEffect::SendBlock { peer, handle: 1, object: OBJECT, block: block(0) }).await;
    let mut bytes = vec![0; BlockHeader::BYTES + MIB as usize];
    within("a block", lanes.data.read_exact(&mut bytes)).await.expect("it arrives whole");
    assert!(bytes[BlockHeader::BYTES..].iter().any(|byte| *byte != 0));
}

async fn dials_ours(transport: fn(&Keypair) -> Transport) {
    let (mut node, identity) = (Node::with_seed(1, TCP).await, identity(2));
    let mut swarm = stock(&identity, transport(&identity.keypair));
    swarm.dial(node.addresses[0].parse::<libp2p::Multiaddr>().expect("a multiaddress")).expect("it can be dialled");
    let lanes = within("a session", session(&mut swarm)).await;
    let runs = tokio::spawn(async move { while swarm.next().await.is_some() {} });
    fetches_a_block(&mut node, &identity, lanes).await;
    runs.abort();
}

async fn is_dialled_by_ours(transport: fn(&Keypair) -> Transport) {
    let (mut node, identity) = (Node::with_seed(1, TCP).await, identity(2));
    let mut swarm = stock(&identity, transport(&identity.keypair));
    swarm.listen_on(TCP.parse().expect("a multiaddress")).expect("loopback");
    let address = within("an address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.to_string();
            }
        }
    })
    .await;
    let (sender, ready) = oneshot::channel();
    let runs = tokio::spawn(async move {
        let _ = sender.send(session(&mut swarm).await);
        while swarm.next().await.is_some() {}
    });
    node.dial(Some(&identity.peer_id()), &[address]).await;
    let lanes = within("a session", ready).await.expect("the stock node runs");
    fetches_a_block(&mut node, &identity, lanes).await;
    runs.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_speaks_only_noise_dials_ours() {
    dials_ours(with_noise).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_dials_a_node_that_speaks_only_noise() {
    is_dialled_by_ours(with_noise).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_speaks_stock_tls_dials_ours() {
    dials_ours(with_tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_dials_a_node_that_speaks_stock_tls() {
    is_dialled_by_ours(with_tls).await;
}
