//! libp2p's words in the engine's: pure functions.

use std::collections::BTreeMap;
use std::error::Error;

use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, gossipsub, identify, mdns};
use updraft_protocol::peer;

use super::addresses::{believable, split_peer};
use super::kad::Found;
use crate::engine::input::{DiscoverySource, SwarmInput};

/// Bytes of a reason for people. Errors nest, and some repeat what the remote said.
const MAX_REASON_BYTES: usize = 512;

/// libp2p's peer id as every other layer knows it.
pub(super) fn peer_to_protocol(peer: &PeerId) -> peer::PeerId {
    peer::PeerId::from_bytes(&peer.to_bytes()).expect("libp2p's peer ids are multihashes of at most 64 bytes")
}

/// The peer id as libp2p knows it; nothing if it is not one.
pub(super) fn peer_from_protocol(peer: &peer::PeerId) -> Option<PeerId> {
    PeerId::from_bytes(peer.as_bytes()).ok()
}

/// Peers found on the local link, each with its addresses.
pub(super) fn found_by_mdns(found: Vec<(PeerId, Multiaddr)>, own: &PeerId) -> Vec<SwarmInput> {
    let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for (peer, address) in found {
        if peer != *own {
            peers.entry(peer).or_default().push(address);
        }
    }
    peers
        .into_iter()
        .filter_map(|(peer, told)| {
            // Whoever answers multicast is on the link, wherever its addresses lead.
            let remote: Multiaddr = told.first().map(|address| split_peer(address.clone()).0)?;
            discovered(&peer, &told, &remote, DiscoverySource::Mdns)
        })
        .collect()
}

/// What a peer told about itself over an authenticated connection from `remote`.
pub(super) fn identified(peer: &PeerId, info: &identify::Info, remote: &Multiaddr) -> Option<SwarmInput> {
    discovered(peer, &info.listen_addrs, remote, DiscoverySource::Identify)
}

/// Peers that a lookup named, at addresses that Kademlia here may speak of.
pub(super) fn found_by_kad(found: Vec<Found>, own: &PeerId) -> Vec<SwarmInput> {
    found
        .into_iter()
        .filter(|found| found.peer != *own)
        .filter_map(|found| {
            let remote = split_peer(found.addresses.first()?.clone()).0;
            discovered(&found.peer, &found.addresses, &remote, DiscoverySource::Kad)
        })
        .collect()
}

fn discovered(peer: &PeerId, told: &[Multiaddr], remote: &Multiaddr, source: DiscoverySource) -> Option<SwarmInput> {
    let addresses = believable(peer, told, remote);
    let peer = peer_to_protocol(peer);
    (!addresses.is_empty()).then_some(SwarmInput::Discovered { peer, addresses, source })
}

/// A gossiped head.
pub(super) fn gossip(source: &PeerId, id: gossipsub::MessageId, message: gossipsub::Message) -> SwarmInput {
    SwarmInput::Gossip { message: id.0, peer: peer_to_protocol(source), payload: message.data }
}

/// Peers and addresses in an mDNS event; expiry is no news, since sessions tell who is there.
pub(super) fn mdns(event: mdns::Event, own: &PeerId) -> Vec<SwarmInput> {
    match event {
        mdns::Event::Discovered(found) => found_by_mdns(found, own),
        mdns::Event::Expired(_) => Vec::new(),
    }
}

/// Why a dial failed, one text per address where it is known.
pub(super) fn dial_errors(error: &DialError) -> Vec<String> {
    match error {
        DialError::Transport(errors) => {
            errors.iter().map(|(address, error)| shorten(format!("{}: {}", bare(address), chain(error)))).collect()
        }
        DialError::WrongPeerId { obtained, address } => {
            vec![format!("{}: another peer answers there: {obtained}", bare(address))]
        }
        DialError::LocalPeerId { address } => {
            vec![format!("{}: that is this node itself", bare(address))]
        }
        DialError::Denied { cause } => vec![shorten(chain(cause))],
        other => vec![shorten(chain(other))],
    }
}

/// An address without the peer id that libp2p appends.
fn bare(address: &Multiaddr) -> Multiaddr {
    split_peer(address.clone()).0
}

/// An error and its causes, without repetitions: some errors print their cause themselves.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn shorten(mut text: String) -> String {
    if text.len() > MAX_REASON_BYTES {
        let end = (0..=MAX_REASON_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_survives_the_way_there_and_back() {
        let peer = PeerId::random();
        assert_eq!(peer_from_protocol(&peer_to_protocol(&peer)), Some(peer));
        let other = peer::PeerId::from_bytes(&[1, 2, 3]).expect("a valid length");
        assert_eq!(peer_from_protocol(&other), None);
    }

    #[test]
    fn what_mdns_found_is_grouped_by_peer_and_without_ourselves() {
        let (own, other) = (PeerId::random(), PeerId::random());
        let address = |text: &str, peer: &PeerId| format!("{text}/p2p/{peer}").parse().expect("a valid multiaddress");
        let found = vec![
            (other, address("/ip4/192.168.1.4/tcp/1", &other)),
            (own, address("/ip4/192.168.1.5/tcp/1", &own)),
            (other, address("/ip4/192.168.1.4/udp/1/quic-v1", &other)),
        ];
        let expected = SwarmInput::Discovered {
            peer: peer_to_protocol(&other),
            addresses: vec!["/ip4/192.168.1.4/tcp/1".to_owned(), "/ip4/192.168.1.4/udp/1/quic-v1".to_owned()],
            source: DiscoverySource::Mdns,
        };
        assert_eq!(found_by_mdns(found, &own), [expected]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = shorten("ä".repeat(MAX_REASON_BYTES));
        assert!(text.len() <= MAX_REASON_BYTES + 3 && text.ends_with("..."));
    }
}
