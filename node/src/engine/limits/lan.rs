//! Whether a peer is on the local network, judged by the address of its session.
//!
//! Local is what is never paid for: this machine, its links, private networks (RFC 1918, RFC 4193),
//! and addresses next to one that this node listens on. A name says nothing about where a peer is,
//! and a relayed session passes through somebody else: both are not local.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;

/// Own addresses that are remembered. Bounds what interfaces that come and go may leave behind.
pub(super) const MAX_OWN: usize = 64;

/// The IP address that a multiaddress begins with.
pub(super) fn ip_of(address: &str) -> Option<IpAddr> {
    let mut parts = address.strip_prefix('/')?.split('/');
    let ip = match (parts.next()?, parts.next()?) {
        ("ip4", host) => IpAddr::V4(host.parse().ok()?),
        ("ip6", host) => IpAddr::V6(host.parse().ok()?),
        ("ip6zone", _) => match (parts.next()?, parts.next()?) {
            ("ip6", host) => IpAddr::V6(host.parse().ok()?),
            _ => return None,
        },
        _ => return None,
    };
    Some(ip.to_canonical())
}

/// Whether the remote end at the multiaddress `address` is on the local network of a node that
/// listens on `own`.
pub fn is_lan(address: &str, own: &BTreeSet<IpAddr>) -> bool {
    if address.contains("/p2p-circuit") {
        return false;
    }
    match ip_of(address) {
        Some(IpAddr::V4(ip)) => is_local_v4(ip) || own.iter().any(|own| is_next_to_v4(*own, ip)),
        Some(IpAddr::V6(ip)) => is_local_v6(ip) || own.iter().any(|own| is_next_to_v6(*own, ip)),
        None => false,
    }
}

/// Whether the remote end at the multiaddress `address` is at the site of a node that listens on `own`: on
/// the same machine, link or subnet, or in what one site has of a large private network. All of a
/// private network may span the world, so that it makes nobody near.
pub fn is_near(address: &str, own: &BTreeSet<IpAddr>) -> bool {
    if address.contains("/p2p-circuit") {
        return false;
    }
    match ip_of(address) {
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local() || own.iter().any(|own| is_site_v4(*own, ip)),
        Some(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unicast_link_local() || own.iter().any(|own| is_site_v6(*own, ip))
        }
        None => false,
    }
}

/// A site rarely has more than two bytes' worth of the large private networks; in 192.168.0.0/16
/// every third byte may be another site.
fn is_site_v4(own: IpAddr, ip: Ipv4Addr) -> bool {
    let large = |ip: Ipv4Addr| ip.is_private() && ip.octets()[0] != 192;
    is_next_to_v4(own, ip) || matches!(own, IpAddr::V4(own) if large(ip) && own.octets()[..2] == ip.octets()[..2])
}

/// The first 48 bits of a unique local address are one site (RFC 4193 3.2).
fn is_site_v6(own: IpAddr, ip: Ipv6Addr) -> bool {
    is_next_to_v6(own, ip)
        || matches!(own, IpAddr::V6(own) if ip.is_unique_local() && own.octets()[..6] == ip.octets()[..6])
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_private() || ip.is_link_local()
}

fn is_local_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

/// The first three bytes: nobody tells how large an IPv4 subnet is, and smaller ones are rare.
fn is_next_to_v4(own: IpAddr, ip: Ipv4Addr) -> bool {
    matches!(own, IpAddr::V4(own) if own.octets()[..3] == ip.octets()[..3])
}

/// An IPv6 subnet has 64 bits (RFC 4291 2.5.1).
fn is_next_to_v6(own: IpAddr, ip: Ipv6Addr) -> bool {
    matches!(own, IpAddr::V6(own) if own.octets()[..8] == ip.octets()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn private_and_link_local_networks_are_local_and_the_internet_is_not() {
        for (address, local) in [
            ("/ip4/127.0.0.1/tcp/4880", true),
            ("/ip4/10.1.2.3/tcp/4880", true),
            ("/ip4/172.31.0.1/udp/4880/quic-v1", true),
            ("/ip4/172.32.0.1/tcp/4880", false),
            ("/ip4/192.168.7.7/tcp/4880/p2p/12D3KooW", true),
            ("/ip4/169.254.1.1/tcp/1", true),
            ("/ip4/100.64.0.1/tcp/1", false),
            ("/ip4/198.51.100.7/tcp/1", false),
            ("/ip6/::1/tcp/1", true),
            ("/ip6/fe80::1/tcp/1", true),
            ("/ip6zone/eth0/ip6/fe80::1/tcp/1", true),
            ("/ip6/fd12:3456::1/tcp/1", true),
            ("/ip6/2001:db8::1/tcp/1", false),
            ("/ip6/::ffff:192.168.0.1/tcp/1", true),
            ("/ip6/::ffff:198.51.100.7/tcp/1", false),
            ("/dns4/seed.local/tcp/1", false),
            ("/ip4/10.0.0.1/tcp/1/p2p/12D3KooW/p2p-circuit", false),
        ] {
            assert_eq!(is_lan(address, &own(&[])), local, "{address}");
        }
    }

    #[test]
    fn neighbours_of_an_own_address_are_local() {
        let own = own(&["198.51.100.1", "2001:db8:1:2::1"]);
        assert!(is_lan("/ip4/198.51.100.200/tcp/1", &own));
        assert!(!is_lan("/ip4/198.51.101.1/tcp/1", &own));
        assert!(is_lan("/ip6/2001:db8:1:2:ffff::1/tcp/1", &own));
        assert!(!is_lan("/ip6/2001:db8:1:3::1/tcp/1", &own));
    }

    #[test]
    fn the_same_site_is_near_and_the_rest_of_a_private_network_is_not() {
        let own = own(&["10.1.2.3", "192.168.1.1", "198.51.100.1", "2001:db8:1:2::1", "fd12:3456:789a:1::1"]);
        for (address, near) in [
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip4/10.1.2.200/udp/1/quic-v1", true),
            ("/ip4/10.1.3.1/tcp/1", true),
            ("/ip4/10.2.2.3/tcp/1", false),
            ("/ip4/192.168.1.2/tcp/1", true),
            ("/ip4/192.168.0.1/tcp/1", false),
            ("/ip4/169.254.1.1/tcp/1", true),
            ("/ip4/198.51.100.7/tcp/1", true),
            ("/ip4/198.51.101.7/tcp/1", false),
            ("/ip6/fe80::1/tcp/1", true),
            ("/ip6/2001:db8:1:2:ffff::1/tcp/1", true),
            ("/ip6/2001:db8:1:3::1/tcp/1", false),
            ("/ip6/fd12:3456:789a:2::1/tcp/1", true),
            ("/ip6/fd12:3456:789b:1::1/tcp/1", false),
            ("/dns4/host.local/tcp/1", false),
            ("/ip4/10.1.2.4/tcp/1/p2p/12D3KooW/p2p-circuit", false),
        ] {
            assert_eq!(is_near(address, &own), near, "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_address_makes_it_panic(address in "(/(ip4|ip6|ip6zone|dns|tcp)?(/[0-9a-f.:]{0,12})?){0,4}|.{0,40}") {
            let _ = is_lan(&address, &BTreeSet::new());
            let _ = is_near(&address, &BTreeSet::new());
        }
    }
}
