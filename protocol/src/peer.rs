//! Peer ids as every layer but the network shell sees them: opaque bytes with a base58 text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of the longest peer id: a multihash over 64 bytes would hold a key type nobody uses.
pub const MAX_PEER_ID_BYTES: usize = 64;

/// What a peer id begins with that is an ed25519 key: the identity multihash of a protobuf of type 1.
const ED25519_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A node's identity on the network: a libp2p peer id in binary form. Whatever goes to or comes from a peer
/// carries a copy, so that copies cost nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<[u8]>);

/// Bytes or text that cannot be a peer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a peer id (base58 text such as 12D3KooW..., 2 to 64 bytes)")]
pub struct InvalidPeerId;

impl PeerId {
    /// From the binary form. Only its length is checked: the network shell knows the rest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidPeerId> {
        if (2..=MAX_PEER_ID_BYTES).contains(&bytes.len()) { Ok(Self(bytes.into())) } else { Err(InvalidPeerId) }
    }

    /// The binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The ed25519 public key in it: the ids of Updraft's nodes are such keys, not hashes of them.
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        self.0.strip_prefix(&ED25519_PREFIX)?.try_into().ok()
    }

    /// The last eight characters, for tables that people read.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len().saturating_sub(8)..].to_owned()
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(text: &str) -> Result<Self, InvalidPeerId> {
        if text.len() > 2 * MAX_PEER_ID_BYTES {
            return Err(InvalidPeerId);
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| InvalidPeerId)?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(&self.0).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_survives_its_text() {
        let peer = PeerId::from_bytes(&[0, 36, 8, 1, 18, 32, 7]).expect("a valid length");
        assert_eq!(peer.to_string().parse(), Ok(peer));
    }

    #[test]
    fn the_key_in_a_peer_id_is_found_and_nothing_else_is_taken_for_one() {
        let bytes = [&ED25519_PREFIX[..], &[7; 32]].concat();
        assert_eq!(PeerId::from_bytes(&bytes).expect("a valid length").ed25519(), Some([7; 32]));
        for bad in [&bytes[..37], &[&bytes[..], &[0]].concat(), &[0x12, 0x20, 1, 2]] {
            assert_eq!(PeerId::from_bytes(bad).expect("a valid length").ed25519(), None);
        }
    }

    #[test]
    fn texts_out_of_bounds_are_refused() {
        assert!("".parse::<PeerId>().is_err());
        assert!("0OIl".parse::<PeerId>().is_err());
        assert!("1".repeat(200).parse::<PeerId>().is_err());
    }
}
