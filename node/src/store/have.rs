//! The file `have`: which pieces of an artifact are on disk, by the last checkpoint.
//!
//! Layout: magic, SHA-256 of the manifest it belongs to, piece count (big-endian `u32`), bitmap,
//! SHA-256 of everything before. A file that is not exactly this says nothing: a bit is never taken
//! from bytes that may have rotted or belong to another manifest.

use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_PIECES;

use updraft_protocol::bitmap::Bitmap;

const MAGIC: &[u8; 8] = b"updhave1";
const HEADER_BYTES: usize = MAGIC.len() + 32 + 4;
const DIGEST_BYTES: usize = 32;

/// Bytes of the longest `have` file. Bounds what is read from a file that is something else.
pub(super) const MAX_HAVE_BYTES: u64 = (HEADER_BYTES + DIGEST_BYTES) as u64 + (MAX_PIECES / 8) as u64;

/// A decoded `have` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Have {
    /// Digest of the manifest whose pieces these are.
    pub(super) manifest: Digest,
    /// The pieces.
    pub(super) pieces: Bitmap,
}

impl Have {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + DIGEST_BYTES + self.pieces.as_bytes().len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.manifest.as_bytes());
        bytes.extend_from_slice(&self.pieces.count().to_be_bytes());
        bytes.extend_from_slice(self.pieces.as_bytes());
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Decodes a file; the reason where it is none.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or("it is truncated")?;
        if Digest::of(body) != Digest::from(*digest) {
            return Err("its digest does not match");
        }
        let rest = body.strip_prefix(MAGIC).ok_or("it is not a bitmap of this version")?;
        let (manifest, rest) = rest.split_first_chunk::<32>().ok_or("it is truncated")?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or("it is truncated")?;
        let pieces =
            Bitmap::from_bytes(rest, u32::from_be_bytes(*count)).ok_or("its bitmap does not fit its piece count")?;
        Ok(Self { manifest: Digest::from(*manifest), pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let digest = Digest::of(&body);
        body.extend_from_slice(digest.as_bytes());
        body
    }

    #[test]
    fn the_longest_file_is_within_the_limit() {
        let have = Have { manifest: Digest::ZERO, pieces: Bitmap::full(MAX_PIECES) };
        assert_eq!(have.encode().len() as u64, MAX_HAVE_BYTES);
    }

    proptest! {
        #[test]
        fn every_bitmap_survives_its_file(count in 0u32..200, set in proptest::collection::vec(0u32..200, 0..50)) {
            let mut pieces = Bitmap::empty(count);
            for index in set {
                pieces.set(index);
            }
            let have = Have { manifest: Digest::of(b"manifest"), pieces };
            prop_assert_eq!(Have::decode(&have.encode()), Ok(have));
        }

        #[test]
        fn one_wrong_bit_and_the_file_says_nothing(position in 0usize..1000, bit in 0u8..8) {
            let mut bytes = Have { manifest: Digest::of(b"manifest"), pieces: Bitmap::full(100) }.encode();
            let at = position % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Have::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Have::decode(&bytes);
            let _ = Have::decode(&sealed(bytes.clone()));
            let _ = Have::decode(&sealed([MAGIC.as_slice(), &bytes].concat()));
        }
    }
}
