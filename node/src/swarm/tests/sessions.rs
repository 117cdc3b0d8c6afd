//! Connections and sessions: how they come up, and how they end.

use std::time::Duration;

use libp2p::{Swarm, swarm};
use tokio::sync::mpsc;
use updraft_protocol::digest::Digest;
use updraft_protocol::meta::{MetaFile, MetaRequest};
use updraft_protocol::transfer::Control;

use super::harness::{MemoryIo, Node, QUIC, TCP, config, identity, introduce, ordered, within};
use crate::engine::effect::SwarmEffect;
use crate::engine::input::{DiscoverySource, SwarmInput};
use crate::swarm::{SwarmError, spawn, transport};

async fn messages_pass(listen: &str) {
    let (mut one, mut other) = (Node::with_seed(1, listen).await, Node::with_seed(2, listen).await);
    introduce(&mut one, &mut other).await;
    let message = Control::Head { root_version: 3, timestamp_version: 4, timestamp_sha256: None };
    one.say(&other.peer, message.clone()).await;
    assert_eq!(other.control().await, message);
    other.say(&one.peer, message.clone()).await;
    assert_eq!(one.control().await, message);
    assert!(one.counters.control_out_bytes() > 0 && one.counters.control_in_bytes() > 0);
    one.handle.shutdown().await;
    assert!(!other.disconnected().await.is_empty());
    other.handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_both_ways_over_tcp() {
    messages_pass(TCP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_both_ways_over_quic() {
    messages_pass(QUIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_both_ways_over_ipv6() {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: no IPv6 loopback here: {error}");
        return;
    }
    messages_pass("/ip6/::1/tcp/0").await;
    messages_pass("/ip6/::1/udp/0/quic-v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_is_preferred_to_quic() {
    let mut dialler = Node::with_seed(1, TCP).await;
    let mut listener = Node::start(identity(2), &[QUIC, TCP]).await;
    dialler.dial(Some(&listener.peer), &listener.addresses).await;
    let connected = |input| match input {
        SwarmInput::Connected { address, outbound, .. } => Some((address, outbound)),
        _ => None,
    };
    let (address, outbound) = dialler.wait("a session", connected).await;
    assert!(address.contains("/tcp/") && outbound, "{address}");
    let (address, outbound) = listener.wait("a session", connected).await;
    assert!(address.contains("/tcp/") && !outbound, "{address}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_is_used_where_tcp_does_not_answer() {
    let mut dialler = Node::with_seed(1, TCP).await;
    let mut listener = Node::with_seed(2, QUIC).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
    let addresses = [format!("/ip4/127.0.0.1/tcp/{}", closed.port()), listener.addresses[0].clone()];
    dialler.dial(Some(&listener.peer), &addresses).await;
    assert_eq!(dialler.connected().await, listener.peer);
    assert_eq!(listener.connected().await, dialler.peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_tells_its_loopback_addresses_on_loopback() {
    let (one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    one.dial(None, &other.addresses).await;
    let (addresses, source) = other
        .wait("what identify tells", |input| match input {
            SwarmInput::Discovered { addresses, source, .. } => Some((addresses, source)),
            _ => None,
        })
        .await;
    assert_eq!((addresses, source), (one.addresses.clone(), DiscoverySource::Identify));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_dial_each_other_at_once_have_one_session() {
    for round in 0..20 {
        let (mut one, mut other) = (Node::with_seed(10 + round, TCP).await, Node::with_seed(50 + round, TCP).await);
        let dials = async {
            tokio::join!(one.dial(Some(&other.peer), &other.addresses), other.dial(Some(&one.peer), &one.addresses))
        };
        dials.await;
        one.connected().await;
        other.connected().await;
        one.greet(&other.peer).await;
        other.greet(&one.peer).await;
        assert!(matches!(one.control().await, Control::Hello(_)));
        assert!(matches!(other.control().await, Control::Hello(_)));
        for node in [&mut one, &mut other] {
            let later = node.inputs_within(Duration::from_millis(150)).await;
            let churn = |input: &&SwarmInput| {
                matches!(
                    input,
                    SwarmInput::Connected { .. } | SwarmInput::Disconnected { .. } | SwarmInput::DialFailed { .. }
                )
            };
            assert_eq!(later.iter().find(churn), None, "round {round}");
        }
        tokio::join!(one.handle.shutdown(), other.handle.shutdown());
    }
}

/// The same identity comes back while its old connection looks alive, as after a power cut.
async fn a_peer_returns(stays: crate::swarm::Identity, returns: crate::swarm::Identity) {
    let mut stays = Node::start(stays, &[TCP]).await;
    let mut before = Node::start(returns.clone(), &[TCP]).await;
    introduce(&mut before, &mut stays).await;
    let mut after = Node::start(returns, &[TCP]).await;
    after.dial(Some(&stays.peer), &stays.addresses).await;
    assert_eq!(after.connected().await, stays.peer);
    assert_eq!(stays.disconnected().await, "a newer connection took over");
    assert_eq!(stays.connected().await, after.peer);
    stays.greet(&after.peer).await;
    assert!(matches!(after.control().await, Control::Hello(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returning_peer_that_chooses_gets_its_session_back() {
    let (smaller, larger) = ordered(1);
    a_peer_returns(larger, smaller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returning_peer_that_does_not_choose_gets_its_session_back() {
    let (smaller, larger) = ordered(1);
    a_peer_returns(smaller, larger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_meant_for_an_earlier_session_is_not_sent_in_the_next() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    one.dial(None, &other.addresses).await;
    one.connected().await;
    other.connected().await;
    one.say(&other.peer, Control::Forget { handle: 1 }).await;
    one.greet(&other.peer).await;
    assert!(matches!(other.control().await, Control::Hello(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_arrives_before_the_session_ends() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut one, &mut other).await;
    let goodbye = Control::Goodbye { reason: "enough".to_owned() };
    one.say(&other.peer, goodbye.clone()).await;
    one.tell(SwarmEffect::Disconnect { peer: other.peer.clone() }).await;
    assert_eq!(other.control().await, goodbye);
    assert!(!other.disconnected().await.is_empty());
    assert_eq!(one.disconnected().await, "this node ended the session");
    introduce(&mut other, &mut one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_peer_stays_out_until_it_is_let_in() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut other, &mut one).await;
    one.tell(SwarmEffect::Ban { peer: other.peer.clone() }).await;
    assert_eq!(one.disconnected().await, "this node banned the peer");
    other.disconnected().await;
    other.dial(Some(&one.peer), &one.addresses).await;
    other.dial_failed().await;
    one.dial(Some(&other.peer), &other.addresses).await;
    let reason = one.dial_failed().await;
    assert!(reason.contains("block list"), "{reason}");
    one.tell(SwarmEffect::Unban { peer: other.peer.clone() }).await;
    introduce(&mut other, &mut one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_at_the_address_is_a_failed_dial() {
    let (mut one, other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    one.dial(Some(&identity(3).peer_id()), &other.addresses).await;
    let reason = one.dial_failed().await;
    assert!(reason.contains("another peer answers there"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_a_failed_dial() {
    let mut one = Node::with_seed(1, TCP).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
    let address = format!("/ip4/127.0.0.1/tcp/{}", closed.port());
    one.dial(None, std::slice::from_ref(&address)).await;
    let reason = one.dial_failed().await;
    assert!(reason.contains(&address) && reason.to_lowercase().contains("refused"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_libp2p_node_that_is_not_one_of_us_is_a_failed_dial() {
    let (smaller, larger) = ordered(1);
    let keypair = &larger.keypair;
    let transport = transport::build(keypair, &std::sync::Arc::default()).expect("the transports can be set up");
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut stock = Swarm::new(transport, swarm::dummy::Behaviour, keypair.public().to_peer_id(), settings);
    stock.listen_on(TCP.parse().expect("a multiaddress")).expect("loopback");
    let (sender, mut address) = mpsc::channel(1);
    let stock = tokio::spawn(async move {
        use futures::StreamExt as _;
        loop {
            if let swarm::SwarmEvent::NewListenAddr { address, .. } = stock.select_next_some().await {
                let _ = sender.send(address.to_string()).await;
            }
        }
    });
    let address = within("an address", address.recv()).await.expect("it listens");
    let mut node = Node::start(smaller, &[TCP]).await;
    node.dial(Some(&larger.peer_id()), &[address]).await;
    let reason = node.dial_failed().await;
    assert!(reason.contains("does not speak"), "{reason}");
    stock.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named_in_the_error() {
    let node = Node::with_seed(1, TCP).await;
    let (sender, _inputs) = mpsc::channel(8);
    let io = std::sync::Arc::new(MemoryIo::default());
    let error = spawn(&config(identity(2), &[&node.addresses[0]]), io, sender).expect_err("the port is taken");
    assert!(matches!(&error, SwarmError::Listen { address, .. } if *address == node.addresses[0]), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_none_is_named_in_the_error() {
    for address in ["127.0.0.1:4400", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/1/ws"] {
        let (sender, _inputs) = mpsc::channel(8);
        let io = std::sync::Arc::new(MemoryIo::default());
        let error = spawn(&config(identity(1), &[address]), io, sender).expect_err("not an address");
        assert!(matches!(&error, SwarmError::Address { address: named, .. } if named == address), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_taken_though_nobody_takes_inputs() {
    let mut node = Node::with_seed(1, TCP).await;
    let request = MetaRequest { repository: Digest::ZERO, file: MetaFile::Head };
    let peer = identity(9).peer_id();
    for request_id in 0..5000 {
        node.tell(SwarmEffect::MetaAsk { request_id, peer: peer.clone(), request: request.clone() }).await;
    }
    for expected in 0..5000 {
        let number = node
            .wait("an answer", |input| match input {
                SwarmInput::MetaAnswered { request_id, result: Err(_), .. } => Some(request_id),
                _ => None,
            })
            .await;
        assert_eq!(number, expected);
    }
}

/// A swarm that speaks with nobody: the multicast sockets of this process, by their port.
#[cfg(target_os = "linux")]
fn multicast_sockets() -> std::collections::BTreeSet<String> {
    const PORT: &str = ":14E9"; // 5353
    let mine: std::collections::BTreeSet<String> = std::fs::read_dir("/proc/self/fd")
        .expect("this is Linux")
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, inode) = (fields.get(1)?, fields.get(9)?);
            (local.ends_with(PORT) && mine.contains(*inode)).then(|| (*inode).to_owned())
        })
        .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn without_mdns_no_multicast_socket_is_opened() {
    let node = Node::with_seed(1, TCP).await;
    assert!(multicast_sockets().is_empty());
    node.handle.shutdown().await;
}
