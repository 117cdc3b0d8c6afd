//! Which addresses may be told to whom, and which of those told are worth keeping.
//!
//! A loopback address means another machine to whoever hears it, and a link-local one another
//! link. They are told to, and believed from, only those that are on loopback or that link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use updraft_protocol::limits::{MAX_ADDRESS_BYTES, MAX_PEER_ADDRESSES};

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// This machine.
    Machine,
    /// This link.
    Link,
    /// Farther.
    Network,
}

/// How far `address` reaches; nothing for one that cannot be dialled, such as `0.0.0.0`.
fn reach(address: &Multiaddr) -> Option<Reach> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => reach_v4(ip),
        Protocol::Ip6(ip) => reach_v6(ip),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            let machine = name.eq_ignore_ascii_case("localhost");
            Some(if machine { Reach::Machine } else { Reach::Network })
        }
        _ => None,
    }
}

fn reach_v4(ip: Ipv4Addr) -> Option<Reach> {
    if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
        None
    } else if ip.is_loopback() {
        Some(Reach::Machine)
    } else if ip.is_link_local() {
        Some(Reach::Link)
    } else {
        Some(Reach::Network)
    }
}

fn reach_v6(ip: Ipv6Addr) -> Option<Reach> {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        reach_v4(mapped)
    } else if ip.is_unspecified() || ip.is_multicast() {
        None
    } else if ip.is_loopback() {
        Some(Reach::Machine)
    } else if ip.is_unicast_link_local() {
        Some(Reach::Link)
    } else {
        Some(Reach::Network)
    }
}

/// Whether the remote end at `remote` is on this machine or link.
pub(super) fn is_local(remote: &Multiaddr) -> bool {
    reach(remote).is_some_and(|reach| reach < Reach::Network)
}

/// Whether `address` means to the one at `remote` what it means here.
pub(super) fn is_meaningful_to(address: &Multiaddr, remote: &Multiaddr) -> bool {
    match reach(address) {
        None => false,
        Some(Reach::Network) => true,
        Some(reach_here) => reach(remote).is_some_and(|remote| remote <= reach_here),
    }
}

/// The transport that an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// TCP.
    Tcp,
    /// QUIC version 1.
    Quic,
}

/// The transport of an address, where we speak it.
pub(super) fn via(address: &Multiaddr) -> Option<Via> {
    let mut parts = address.iter().skip(1);
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(_), None | Some(Protocol::P2p(_))) => Some(Via::Tcp),
        (Protocol::Udp(_), Some(Protocol::QuicV1)) => Some(Via::Quic),
        _ => None,
    }
}

/// Splits a trailing `/p2p/PEER` off.
pub(super) fn split_peer(mut address: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            (address, Some(peer))
        }
        _ => (address, None),
    }
}

/// The addresses that `peer` told about itself from `remote`, as far as they make sense here:
/// dialable, meaningful, its own, without the peer id, and no more than a peer may have.
pub(super) fn believable(peer: &PeerId, told: &[Multiaddr], remote: &Multiaddr) -> Vec<String> {
    believed(peer, told, remote).iter().map(ToString::to_string).collect()
}

/// As [`believable`], not in text form.
pub(super) fn believed(peer: &PeerId, told: &[Multiaddr], remote: &Multiaddr) -> Vec<Multiaddr> {
    let mut kept: Vec<Multiaddr> = Vec::new();
    for address in told {
        let (address, owner) = split_peer(address.clone());
        let own = owner.is_none_or(|owner| owner == *peer);
        if !own || via(&address).is_none() || !is_meaningful_to(&address, remote) {
            continue;
        }
        if address.to_string().len() <= MAX_ADDRESS_BYTES && !kept.contains(&address) {
            kept.push(address);
        }
        if kept.len() == MAX_PEER_ADDRESSES {
            break;
        }
    }
    let translated = translated(&kept, remote);
    kept.truncate(MAX_PEER_ADDRESSES - translated.len());
    kept.extend(translated);
    kept
}

/// The IP address at the head of an address.
fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Whether routers between networks leave this address alone.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// Where a peer may be found that knows only its private addresses: a machine in a cloud, a container, one
/// behind a forwarded port listens where its packets come from, and cannot know it.
///
/// Nobody is told what others observed of it: whoever is dialled sees for itself where the packets come
/// from, so that no number of liars can invent an address. Only the port is the peer's word, as always.
fn translated(told: &[Multiaddr], remote: &Multiaddr) -> Vec<Multiaddr> {
    let Some(seen) = ip(remote).filter(|_| reach(remote) == Some(Reach::Network)) else { return Vec::new() };
    if told.iter().any(|address| ip(address) == Some(seen)) {
        return Vec::new();
    }
    let hidden = told
        .iter()
        .filter(|address| ip(address).is_some_and(|inner| is_private(inner) && inner.is_ipv4() == seen.is_ipv4()));
    let mut found: Vec<Multiaddr> = Vec::new();
    for inner in hidden {
        let outer = std::iter::once(Protocol::from(seen)).chain(inner.iter().skip(1)).collect();
        if found.iter().all(|address| via(address) != via(&outer)) {
            found.push(outer);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a valid multiaddress")
    }

    #[test]
    fn loopback_addresses_are_told_on_loopback_only() {
        for local in ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1", "/dns4/localhost/tcp/1"]
        {
            assert!(is_meaningful_to(&address(local), &address("/ip4/127.0.0.9/tcp/7")), "{local}");
            assert!(!is_meaningful_to(&address(local), &address("/ip4/192.168.1.9/tcp/7")), "{local}");
            assert!(!is_meaningful_to(&address(local), &address("/ip6/fe80::1/tcp/7")), "{local}");
        }
    }

    #[test]
    fn link_local_addresses_are_told_on_the_link_only() {
        for local in ["/ip4/169.254.3.4/tcp/1", "/ip6/fe80::3/udp/1/quic-v1"] {
            assert!(is_meaningful_to(&address(local), &address("/ip6/fe80::1/tcp/7")), "{local}");
            assert!(!is_meaningful_to(&address(local), &address("/ip4/198.51.100.2/tcp/7")), "{local}");
        }
    }

    #[test]
    fn an_unspecified_address_means_nothing_to_anybody() {
        assert!(!is_meaningful_to(&address("/ip4/0.0.0.0/tcp/1"), &address("/ip4/127.0.0.1/tcp/7")));
        assert!(!is_meaningful_to(&address("/ip6/::/tcp/1"), &address("/ip4/127.0.0.1/tcp/7")));
    }

    #[test]
    fn transports_are_told_apart() {
        assert_eq!(via(&address("/ip4/1.2.3.4/tcp/5")), Some(Via::Tcp));
        assert_eq!(via(&address("/dns/example.org/udp/5/quic-v1")), Some(Via::Quic));
        assert_eq!(via(&address("/ip4/1.2.3.4/tcp/5/ws")), None);
        assert_eq!(via(&address("/ip4/1.2.3.4/udp/5")), None);
    }

    #[test]
    fn a_stranger_cannot_speak_for_others_or_without_end() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let remote = address("/ip4/198.51.100.2/tcp/7");
        let mut told = vec![
            address("/ip4/127.0.0.1/tcp/1"),
            address(&format!("/ip4/203.0.113.1/tcp/1/p2p/{other}")),
            address(&format!("/ip4/203.0.113.2/tcp/1/p2p/{peer}")),
            address("/ip4/203.0.113.2/tcp/1"),
        ];
        assert_eq!(believable(&peer, &told, &remote), ["/ip4/203.0.113.2/tcp/1"]);
        told.extend((1..100).map(|port| address(&format!("/ip4/203.0.113.2/tcp/{port}"))));
        assert_eq!(believable(&peer, &told, &remote).len(), MAX_PEER_ADDRESSES);
    }

    #[test]
    fn who_knows_only_its_private_addresses_is_looked_for_where_its_packets_come_from() {
        let peer = PeerId::random();
        let believed = |told: &[&str], remote| {
            let told: Vec<Multiaddr> = told.iter().map(|text| address(text)).collect();
            believable(&peer, &told, &address(remote))
        };
        let told = ["/ip4/10.0.0.5/tcp/4001", "/ip4/172.17.0.2/tcp/4002", "/ip4/10.0.0.5/udp/4001/quic-v1"];
        let outside = ["/ip4/198.51.100.2/tcp/4001", "/ip4/198.51.100.2/udp/4001/quic-v1"];
        assert_eq!(believed(&told, "/ip4/198.51.100.2/tcp/50000"), [&told[..], &outside].concat());
        let container = believed(&["/ip4/172.17.0.2/tcp/4001"], "/ip4/192.168.1.9/tcp/50000");
        assert_eq!(container, ["/ip4/172.17.0.2/tcp/4001", "/ip4/192.168.1.9/tcp/4001"]);
        let many: Vec<String> = (1..100).map(|port| format!("/ip4/10.0.0.5/tcp/{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let kept = believed(&many, "/ip4/198.51.100.2/tcp/50000");
        assert_eq!(
            (kept.len(), kept.last().map(String::as_str)),
            (MAX_PEER_ADDRESSES, Some("/ip4/198.51.100.2/tcp/1"))
        );
    }

    #[test]
    fn who_knows_where_it_is_reached_is_believed_to() {
        let peer = PeerId::random();
        for (told, remote) in [
            ("/ip4/192.168.1.9/tcp/4001", "/ip4/192.168.1.9/tcp/50000"),
            ("/ip4/203.0.113.7/tcp/4001", "/ip4/198.51.100.2/tcp/50000"),
            ("/dns4/seed.example.org/tcp/4001", "/ip4/198.51.100.2/tcp/50000"),
            ("/ip4/10.0.0.5/tcp/4001", "/ip6/2001:db8::2/tcp/50000"),
            ("/ip4/10.0.0.5/tcp/4001", "/ip4/127.0.0.1/tcp/50000"),
            ("/ip4/10.0.0.5/tcp/4001", "/ip4/169.254.1.1/tcp/50000"),
        ] {
            assert_eq!(believable(&peer, &[address(told)], &address(remote)), [told], "seen at {remote}");
        }
    }
}
