//! How far an address reaches, from its text alone: who may be told of it, and from whom it is believed.
//!
//! A loopback address means another machine to whoever hears it, and a link-local one another link.
//! Told by a stranger, they would make this node knock at its own doors.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address can be reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// From the same machine.
    Machine,
    /// From the same link.
    Link,
    /// From farther away.
    Wide,
}

/// How far a multiaddress reaches.
pub(super) fn reach(address: &str) -> Reach {
    let mut parts = address.split('/').skip(1);
    let (Some(kind), Some(host)) = (parts.next(), parts.next()) else { return Reach::Wide };
    match (kind, host.parse()) {
        (_, Ok(IpAddr::V4(ip))) => reach_v4(ip),
        (_, Ok(IpAddr::V6(ip))) => reach_v6(ip),
        ("dns" | "dns4" | "dns6", Err(_)) if host.eq_ignore_ascii_case("localhost") => Reach::Machine,
        _ => Reach::Wide,
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    if ip.is_loopback() || ip.is_unspecified() {
        Reach::Machine
    } else if ip.is_link_local() {
        Reach::Link
    } else {
        Reach::Wide
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        reach_v4(mapped)
    } else if ip.is_loopback() || ip.is_unspecified() {
        Reach::Machine
    } else if ip.is_unicast_link_local() {
        Reach::Link
    } else {
        Reach::Wide
    }
}

/// Whether `address` means the same to the one whose end of the connection is `remote` as it does here.
pub(super) fn is_shared_with(address: &str, remote: &str) -> bool {
    match reach(address) {
        Reach::Wide => true,
        narrow => reach(remote) <= narrow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_known_in_every_spelling() {
        for address in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.9.9.9/udp/1/quic-v1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/::/tcp/1",
            "/ip6/0:0:0:0:0:0:0:1/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/dns4/LocalHost/tcp/1",
        ] {
            assert_eq!(reach(address), Reach::Machine, "{address}");
        }
        for address in ["/ip4/169.254.1.2/tcp/1", "/ip6/fe80::1/tcp/1", "/ip6/febf::1/tcp/1"] {
            assert_eq!(reach(address), Reach::Link, "{address}");
        }
        for address in ["/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/tcp/1", "/dns/example.org/tcp/1", "", "nonsense"] {
            assert_eq!(reach(address), Reach::Wide, "{address}");
        }
    }

    #[test]
    fn narrow_addresses_stay_with_those_as_near() {
        let (machine, link, wide) = ("/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/192.0.2.1/tcp/1");
        assert!(is_shared_with(machine, machine) && !is_shared_with(machine, link) && !is_shared_with(machine, wide));
        assert!(is_shared_with(link, machine) && is_shared_with(link, link) && !is_shared_with(link, wide));
        assert!(is_shared_with(wide, machine) && is_shared_with(wide, link) && is_shared_with(wide, wide));
    }
}
