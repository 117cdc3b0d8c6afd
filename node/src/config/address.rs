//! Addresses as people write them: multiaddresses, and `ADDRESS:PORT` or `off`.
//!
//! The network shell knows what multiaddresses really are; this knows the few forms that a node
//! uses, so that a typing error is found when it is read and not when a dial fails.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use updraft_protocol::limits::MAX_ADDRESS_BYTES;
use updraft_protocol::peer::PeerId;

/// A text that is no address for its purpose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not a multiaddress.
    #[error("'{text}' is not an address such as /ip4/192.0.2.1/tcp/4880 or /ip6/::/udp/4880/quic-v1: {reason}")]
    Multiaddress {
        /// The text, shortened.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Neither a socket address nor `off`.
    #[error("'{text}' is neither ADDRESS:PORT (such as 127.0.0.1:8888 or [::1]:8888) nor 'off'")]
    Switch {
        /// The text, shortened.
        text: String,
    },
}

/// Checks a multiaddress to listen on: an IP address and a port, which may be 0 (any).
pub fn check_listen(text: &str) -> Result<String, InvalidAddress> {
    let parts = Parts::parse(text).map_err(|reason| bad(text, reason))?;
    let problem = match parts {
        Parts { named: true, .. } => Some("a name cannot be listened on; write an IP address"),
        Parts { with_peer: true, .. } => Some("/p2p/... does not belong to an address to listen on"),
        _ => None,
    };
    problem.map_or_else(|| Ok(text.to_owned()), |reason| Err(bad(text, reason)))
}

/// Checks a multiaddress that others are to dial: a name or an IP address, a port, perhaps a peer.
pub fn check_dialable(text: &str) -> Result<String, InvalidAddress> {
    let parts = Parts::parse(text).map_err(|reason| bad(text, reason))?;
    let problem = match parts {
        Parts { port: 0, .. } => Some("others cannot dial port 0"),
        Parts { unspecified: true, .. } => Some("others cannot dial an unspecified address"),
        _ => None,
    };
    problem.map_or_else(|| Ok(text.to_owned()), |reason| Err(bad(text, reason)))
}

/// Parses `ADDRESS:PORT`, or `off` as `None`.
pub fn parse_switch(text: &str) -> Result<Option<SocketAddr>, InvalidAddress> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| InvalidAddress::Switch { text: shorten(text) })
}

fn bad(text: &str, reason: &'static str) -> InvalidAddress {
    InvalidAddress::Multiaddress { text: shorten(text), reason }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

struct Parts {
    named: bool,
    unspecified: bool,
    port: u16,
    with_peer: bool,
}

impl Parts {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_ADDRESS_BYTES {
            return Err("it is too long");
        }
        let mut parts = text.strip_prefix('/').ok_or("it must start with '/'")?.split('/');
        let mut next = || parts.next().unwrap_or_default();
        let (kind, host) = (next(), next());
        let (named, unspecified) = match kind {
            "ip4" => (false, host.parse::<Ipv4Addr>().map_err(|_| "that is no IPv4 address")?.is_unspecified()),
            "ip6" => (false, host.parse::<Ipv6Addr>().map_err(|_| "that is no IPv6 address")?.is_unspecified()),
            "dns" | "dns4" | "dns6" if is_host_name(host) => (true, false),
            "dns" | "dns4" | "dns6" => return Err("that is no host name"),
            _ => return Err("it must start with /ip4/, /ip6/, /dns/, /dns4/ or /dns6/"),
        };
        let transport = next();
        let port = next().parse().map_err(|_| "after the host comes /tcp/PORT or /udp/PORT/quic-v1")?;
        match transport {
            "tcp" => {}
            "udp" if next() == "quic-v1" => {}
            "udp" => return Err("/udp/PORT must be followed by /quic-v1"),
            _ => return Err("after the host comes /tcp/PORT or /udp/PORT/quic-v1"),
        }
        let with_peer = match next() {
            "" => false,
            "p2p" => next().parse::<PeerId>().map(|_| true).map_err(|_| "that is no peer id")?,
            _ => return Err("only /p2p/PEER may follow the port"),
        };
        if parts.next().is_some() || text.ends_with('/') {
            return Err("there is something after its end");
        }
        Ok(Self { named, unspecified, port, with_peer })
    }
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn the_forms_that_a_node_uses_are_accepted() {
        for good in ["/ip4/0.0.0.0/tcp/4880", "/ip6/::/udp/4880/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
            assert_eq!(check_listen(good).as_deref(), Ok(good));
        }
        let with_peer = format!("/dns4/updates.example.org/tcp/4880/p2p/{PEER}");
        for good in ["/ip4/192.0.2.1/tcp/4880", "/dns/seed/udp/4880/quic-v1", &with_peer] {
            assert_eq!(check_dialable(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn typing_errors_are_found() {
        for bad in [
            "",
            "/",
            "ip4/1.2.3.4/tcp/1",
            "/ip4/1.2.3/tcp/1",
            "/ip4/1.2.3.4",
            "/ip4/1.2.3.4/tcp",
            "/ip4/1.2.3.4/tcp/x",
            "/ip4/1.2.3.4/tcp/65536",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/udp/1/quic",
            "/ip6/1.2.3.4/tcp/1",
            "/ip4/1.2.3.4/tcp/1/",
            "/ip4/1.2.3.4/tcp/1/p2p",
            "/ip4/1.2.3.4/tcp/1/p2p/0",
            "/ip4/1.2.3.4/tcp/1/ws",
            "/dns//tcp/1",
            "/dns/a..b/tcp/1",
            "1.2.3.4:4880",
        ] {
            assert!(check_dialable(bad).is_err(), "{bad}");
            assert!(check_listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_must_suit_its_purpose() {
        assert!(check_listen("/dns/example.org/tcp/1").is_err());
        assert!(check_listen(&format!("/ip4/0.0.0.0/tcp/1/p2p/{PEER}")).is_err());
        assert!(check_dialable("/ip4/0.0.0.0/tcp/1").is_err());
        assert!(check_dialable("/ip4/192.0.2.1/tcp/0").is_err());
    }

    #[test]
    fn a_switch_is_an_address_or_off() {
        assert_eq!(parse_switch("off"), Ok(None));
        assert_eq!(parse_switch("[::1]:80"), Ok(Some("[::1]:80".parse().expect("an address"))));
        for bad in ["", "on", "OFF", "8888", ":8888", "localhost:8888"] {
            assert!(parse_switch(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(/(ip4|ip6|dns|tcp|udp|p2p|quic-v1|[ -~é]{0,6})){0,9}/?") {
            let _ = check_listen(&text);
            let _ = check_dialable(&text);
            let _ = parse_switch(&text);
        }
    }
}
