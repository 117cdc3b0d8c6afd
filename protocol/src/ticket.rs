//! The string that lets a peer join: the trust anchor and where to look first.
//!
//! `updraft1:` and base32 (RFC 4648 alphabet in lower case, no padding) of a protobuf message and a
//! checksum of four bytes. The checksum catches typing errors, not forgers: a ticket travels by a
//! trusted way, and both ends can compare its [`Ticket::fingerprint`]. Altered addresses cannot
//! alter what a joiner trusts; an altered hash can.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use prost::Message;

use crate::digest::Digest;
use crate::limits::{MAX_ADDRESS_BYTES, MAX_PEER_ADDRESSES, MAX_TICKET_CHARS};
use crate::tuf::RepositoryId;

const PREFIX: &str = "updraft1:";
const CHECKSUM_BYTES: usize = 4;
/// Bytes of a membership grant: room for a certificate and a signature.
const MAX_GRANT_BYTES: usize = 2048;

/// Why a text is not a usable ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Some other text.
    #[error("not a join ticket: it must start with '{PREFIX}' (print one at the seed: updraft ticket)")]
    Prefix,
    /// A character was lost or changed on the way.
    #[error("the join ticket is damaged ({0}); copy it again, whole and on one line")]
    Damaged(&'static str),
    /// The ticket names something out of bounds.
    #[error("the join ticket is invalid: {0}")]
    Invalid(&'static str),
}

/// What a joiner needs to know of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// SHA-256 of the signed part of root version 1.
    pub repository: RepositoryId,
    /// Version of the root that was current when the ticket was made.
    pub root_version: u64,
    /// SHA-256 of that root's signed part.
    pub root_sha256: Digest,
    /// Version of the timestamp then: nothing older is believed.
    pub min_timestamp_version: u64,
    /// Where to look first: multiaddresses ending in `/p2p/PEER`.
    pub addresses: Vec<String>,
    /// Reserved: a membership grant, opaque to this version.
    pub grant: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    repository: Vec<u8>,
    #[prost(uint64, tag = "2")]
    root_version: u64,
    #[prost(bytes = "vec", tag = "3")]
    root_sha256: Vec<u8>,
    #[prost(uint64, tag = "4")]
    min_timestamp_version: u64,
    #[prost(string, repeated, tag = "5")]
    addresses: Vec<String>,
    #[prost(bytes = "vec", optional, tag = "6")]
    grant: Option<Vec<u8>>,
}

impl Ticket {
    /// Sixteen hexadecimal digits over everything that trust depends on, for people to compare.
    pub fn fingerprint(&self) -> String {
        let mut bytes = self.repository.digest().as_bytes().to_vec();
        bytes.extend_from_slice(&self.root_version.to_be_bytes());
        bytes.extend_from_slice(self.root_sha256.as_bytes());
        let hex = HEXLOWER.encode(&Digest::of(&bytes).as_bytes()[..8]);
        [&hex[..4], &hex[4..8], &hex[8..12], &hex[12..]].join("-")
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Wire {
            repository: self.repository.digest().as_bytes().to_vec(),
            root_version: self.root_version,
            root_sha256: self.root_sha256.as_bytes().to_vec(),
            min_timestamp_version: self.min_timestamp_version,
            addresses: self.addresses.clone(),
            grant: self.grant.clone(),
        }
        .encode_to_vec();
        let checksum = Digest::of(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TICKET_CHARS {
            return Err(TicketError::Invalid("it is too long"));
        }
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Damaged("a character does not belong there"))?;
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TicketError::Damaged("it is too short"))?;
        let (bytes, checksum) = bytes.split_at(split);
        if Digest::of(bytes).as_bytes()[..CHECKSUM_BYTES] != *checksum {
            return Err(TicketError::Damaged("its checksum does not match"));
        }
        let wire = Wire::decode(bytes).map_err(|_| TicketError::Invalid("it cannot be decoded"))?;
        if wire.addresses.len() > MAX_PEER_ADDRESSES
            || wire.addresses.iter().any(|address| address.len() > MAX_ADDRESS_BYTES)
        {
            return Err(TicketError::Invalid("too many addresses, or one that is too long"));
        }
        if wire.grant.as_ref().is_some_and(|grant| grant.len() > MAX_GRANT_BYTES) {
            return Err(TicketError::Invalid("its grant is too long"));
        }
        if wire.root_version == 0 {
            return Err(TicketError::Invalid("root versions start at 1"));
        }
        let digest =
            |bytes: &[u8]| Digest::try_from(bytes).map_err(|_| TicketError::Invalid("a digest is not 32 bytes"));
        Ok(Self {
            repository: RepositoryId::from(digest(&wire.repository)?),
            root_version: wire.root_version,
            root_sha256: digest(&wire.root_sha256)?,
            min_timestamp_version: wire.min_timestamp_version,
            addresses: wire.addresses,
            grant: wire.grant,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Ticket {
        Ticket {
            repository: RepositoryId::from(Digest::of(b"root 1")),
            root_version: 3,
            root_sha256: Digest::of(b"root 3"),
            min_timestamp_version: 77,
            addresses: vec!["/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW".to_owned()],
            grant: None,
        }
    }

    #[test]
    fn one_changed_character_is_noticed() {
        let text = sample().to_string();
        for position in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] = if bytes[position] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).expect("ascii");
            assert!(changed.parse::<Ticket>().is_err(), "position {position}");
        }
    }

    #[test]
    fn a_ticket_parses_in_capitals_and_with_line_ends() {
        let text = sample().to_string();
        let (_, body) = text.split_once(':').expect("has a prefix");
        let loud = format!("  updraft1:{}\n", body.to_ascii_uppercase());
        assert_eq!(loud.parse(), Ok(sample()));
    }

    #[test]
    fn altered_addresses_leave_the_fingerprint_alone() {
        let elsewhere = Ticket { addresses: vec!["/ip4/203.0.113.9/tcp/1".to_owned()], ..sample() };
        assert_eq!(elsewhere.fingerprint(), sample().fingerprint());
        let impostor = Ticket { root_sha256: Digest::of(b"other"), ..sample() };
        assert_ne!(impostor.fingerprint(), sample().fingerprint());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = text.parse::<Ticket>();
            let mut body = bytes;
            let checksum = Digest::of(&body);
            body.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
            let _ = format!("{PREFIX}{}", BASE32_NOPAD.encode(&body)).parse::<Ticket>();
        }

        #[test]
        fn every_ticket_survives_its_text(root_version in 1u64.., timestamp in any::<u64>(), grant in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64))) {
            let ticket = Ticket { root_version, min_timestamp_version: timestamp, grant, ..sample() };
            prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
        }
    }
}
