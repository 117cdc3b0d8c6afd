//! The piece list of an artifact.
//!
//! The hash tree is that of BitTorrent v2 (BEP 52): SHA-256 over leaves of 16 KiB, a last leaf
//! hashed at its own length, missing leaves taken as zero digests. A manifest carries the piece
//! layer of that tree, so its [`Manifest::root`] equals a BitTorrent v2 `pieces root`, and blocks
//! inside a piece are whole leaves that many cores can hash side by side.
//!
//! A manifest decoded from the wire is trusted only after its own digest met the one in signed
//! targets metadata; [`Manifest::decode`] takes that digest so that there is no other way.

use prost::Message;

use crate::digest::{Digest, Hasher};
use crate::limits::{LEAF_BYTES, MAX_MANIFEST_BYTES, MAX_PIECE_BYTES, MAX_PIECES};

/// Pieces an artifact is cut into where its length and the piece bounds allow: at most this many,
/// and so at least half as many.
const WANTED_PIECES: u64 = 1024;

/// Why bytes are not a usable manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not those that the signed metadata names.
    #[error("the manifest's digest is {found}, the signed metadata says {expected}")]
    Digest {
        /// Digest in signed metadata.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// Not the manifest encoding.
    #[error("the manifest cannot be decoded: {0}")]
    Encoding(String),
    /// Decodes, and contradicts itself.
    #[error("the manifest is invalid: {0}")]
    Invalid(&'static str),
    /// Nothing to distribute.
    #[error("the artifact is empty; there is nothing to distribute")]
    Empty,
    /// Larger than any artifact may be.
    #[error("the artifact has {length} bytes; the most is {limit} (1 TiB)")]
    TooLong {
        /// Bytes of the artifact.
        length: u64,
        /// Most bytes of an artifact.
        limit: u64,
    },
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Wire {
    /// Version of this encoding: 1.
    #[prost(uint32, tag = "1")]
    schema: u32,
    #[prost(bytes = "vec", tag = "2")]
    artifact: Vec<u8>,
    #[prost(uint64, tag = "3")]
    length: u64,
    #[prost(uint32, tag = "4")]
    piece_length: u32,
    /// Digests of all pieces, 32 bytes each, in order.
    #[prost(bytes = "vec", tag = "5")]
    pieces: Vec<u8>,
}

/// The index of a piece that exists in the manifest that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The index as a number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The index for slices.
    pub fn slot(self) -> usize {
        usize::try_from(self.0).expect("u32 fits usize on every supported target")
    }
}

/// The piece list of one artifact. Always consistent: built by [`ManifestBuilder`] or checked by
/// [`Manifest::decode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    artifact: Digest,
    length: u64,
    piece_length: u32,
    pieces: Vec<Digest>,
}

/// Bytes of one piece for an artifact of `length` bytes: the smallest power of two, from 16 KiB to
/// 4 MiB, that cuts it into at most 1,024 pieces.
pub fn piece_length_for(length: u64) -> u32 {
    let mut piece = LEAF_BYTES;
    while piece < MAX_PIECE_BYTES && length.div_ceil(u64::from(piece)) > WANTED_PIECES {
        piece *= 2;
    }
    piece
}

/// The digest of one leaf: at most 16 KiB of an artifact.
pub fn leaf_digest(leaf: &[u8]) -> Digest {
    Digest::of(leaf)
}

/// The root of the hash tree over `leaves`, padded with zero digests to `width` (a power of two).
pub fn subtree_root(leaves: &[Digest], width: usize) -> Digest {
    debug_assert!(width.is_power_of_two() && leaves.len() <= width);
    let mut layer = leaves.to_vec();
    let mut padding = Digest::ZERO;
    let mut remaining = width;
    while remaining > 1 {
        layer = layer.chunks(2).map(|pair| Digest::of_pair(&pair[0], pair.get(1).unwrap_or(&padding))).collect();
        padding = Digest::of_pair(&padding, &padding);
        remaining /= 2;
    }
    layer.first().copied().unwrap_or(padding)
}

impl Manifest {
    /// Decodes `bytes` whose digest must be `expected` (from signed metadata).
    pub fn decode(bytes: &[u8], expected: &Digest) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::Invalid("longer than any manifest"));
        }
        let found = Digest::of(bytes);
        if found != *expected {
            return Err(ManifestError::Digest { expected: *expected, found });
        }
        let wire = Wire::decode(bytes).map_err(|error| ManifestError::Encoding(error.to_string()))?;
        if wire.schema != 1 {
            return Err(ManifestError::Invalid("unknown schema; update this node"));
        }
        let artifact = Digest::try_from(wire.artifact.as_slice())
            .map_err(|_| ManifestError::Invalid("the artifact digest is not 32 bytes"))?;
        let (digests, rest) = wire.pieces.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(ManifestError::Invalid("piece digests are not 32 bytes each"));
        }
        let manifest = Self {
            artifact,
            length: wire.length,
            piece_length: wire.piece_length,
            pieces: digests.iter().copied().map(Digest::from).collect(),
        };
        manifest.check()?;
        // A node keeps the manifest, not its bytes, and serves the encoding of what it keeps.
        if manifest.encode() != bytes {
            return Err(ManifestError::Invalid("it is not in its one encoding"));
        }
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.length == 0 {
            return Err(ManifestError::Empty);
        }
        if !self.piece_length.is_power_of_two() || !(LEAF_BYTES..=MAX_PIECE_BYTES).contains(&self.piece_length) {
            return Err(ManifestError::Invalid("the piece length is not a power of two from 16 KiB to 4 MiB"));
        }
        let count = self.length.div_ceil(u64::from(self.piece_length));
        if count > u64::from(MAX_PIECES) {
            return Err(ManifestError::Invalid("too many pieces"));
        }
        if count != self.pieces.len() as u64 {
            return Err(ManifestError::Invalid("the number of pieces does not fit the length"));
        }
        if count == 1 && self.piece_length != LEAF_BYTES {
            return Err(ManifestError::Invalid("a single piece longer than one leaf has two possible roots"));
        }
        Ok(())
    }

    /// The one encoding of this manifest.
    pub fn encode(&self) -> Vec<u8> {
        Wire {
            schema: 1,
            artifact: self.artifact.as_bytes().to_vec(),
            length: self.length,
            piece_length: self.piece_length,
            pieces: self.pieces.iter().flat_map(|digest| *digest.as_bytes()).collect(),
        }
        .encode_to_vec()
    }

    /// SHA-256 of the whole artifact.
    pub fn artifact(&self) -> &Digest {
        &self.artifact
    }

    /// Bytes of the artifact.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces.
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.pieces.len()).expect("checked against MAX_PIECES")
    }

    /// All piece indices in order.
    pub fn indices(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count()).map(PieceIndex)
    }

    /// `index` if this artifact has such a piece.
    pub fn index(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count()).then_some(PieceIndex(index))
    }

    /// The piece that holds the byte at `offset`, if the artifact has that byte.
    pub fn piece_at(&self, offset: u64) -> Option<PieceIndex> {
        let index = u32::try_from(offset / u64::from(self.piece_length)).ok()?;
        if offset < self.length { self.index(index) } else { None }
    }

    /// Offset of the first byte of `piece`.
    pub fn offset_of(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Bytes of `piece`.
    pub fn length_of(&self, piece: PieceIndex) -> u32 {
        let rest = self.length - self.offset_of(piece);
        u32::try_from(rest).map_or(self.piece_length, |rest| rest.min(self.piece_length))
    }

    /// Leaves in a full piece.
    pub fn leaves_per_piece(&self) -> usize {
        (self.piece_length / LEAF_BYTES) as usize
    }

    /// The signed digest of `piece`.
    pub fn digest_of(&self, piece: PieceIndex) -> &Digest {
        &self.pieces[piece.slot()]
    }

    /// Whether `leaves`, the leaf digests of `piece` in order, are those that were signed.
    pub fn verify_leaves(&self, piece: PieceIndex, leaves: &[Digest]) -> bool {
        leaves.len() == self.length_of(piece).div_ceil(LEAF_BYTES) as usize
            && subtree_root(leaves, self.leaves_per_piece()) == *self.digest_of(piece)
    }

    /// Whether `bytes` is exactly `piece`.
    pub fn verify_piece(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        if bytes.len() != self.length_of(piece) as usize {
            return false;
        }
        let leaves: Vec<Digest> = bytes.chunks(LEAF_BYTES as usize).map(leaf_digest).collect();
        self.verify_leaves(piece, &leaves)
    }

    /// The `pieces root` of BEP 52.
    pub fn root(&self) -> Digest {
        let per_piece = self.leaves_per_piece();
        let padding = subtree_root(&[], per_piece);
        let mut layer = self.pieces.clone();
        layer.resize(layer.len().next_power_of_two(), padding);
        let width = layer.len();
        subtree_root(&layer, width)
    }
}

/// Cuts a stream of unknown length into pieces. Memory stays bounded: leaves are folded into larger
/// subtrees as soon as the length makes larger pieces certain.
#[derive(Debug)]
pub struct ManifestBuilder {
    whole: Hasher,
    leaf: Hasher,
    leaf_bytes: u32,
    length: u64,
    /// Subtree roots of `granularity` bytes each.
    layer: Vec<Digest>,
    granularity: u32,
    /// Subtrees of smaller width that wait for their siblings: `(bytes, root)`.
    carry: Vec<(u32, Digest)>,
}

impl Default for ManifestBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestBuilder {
    /// A builder that has seen nothing.
    pub fn new() -> Self {
        Self {
            whole: Hasher::new(),
            leaf: Hasher::new(),
            leaf_bytes: 0,
            length: 0,
            layer: Vec::new(),
            granularity: LEAF_BYTES,
            carry: Vec::new(),
        }
    }

    /// Appends `bytes` of the artifact.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = (LEAF_BYTES - self.leaf_bytes) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.leaf.update(now);
            self.leaf_bytes += u32::try_from(now.len()).expect("at most one leaf");
            if self.leaf_bytes == LEAF_BYTES {
                self.end_leaf();
            }
            bytes = later;
        }
    }

    fn end_leaf(&mut self) {
        let digest = std::mem::take(&mut self.leaf).finish();
        self.leaf_bytes = 0;
        self.push(LEAF_BYTES, digest);
        let most = usize::try_from(WANTED_PIECES).expect("a small constant") * 2;
        while self.layer.len() >= most && self.granularity < MAX_PIECE_BYTES {
            self.layer = self.layer.chunks(2).map(|pair| Digest::of_pair(&pair[0], &pair[1])).collect();
            self.granularity *= 2;
        }
    }

    /// Adds a subtree root of `bytes` width, merging equal neighbours until it reaches the layer.
    fn push(&mut self, mut bytes: u32, mut digest: Digest) {
        while bytes < self.granularity {
            match self.carry.last() {
                Some((width, left)) if *width == bytes => {
                    digest = Digest::of_pair(left, &digest);
                    bytes *= 2;
                    self.carry.pop();
                }
                _ => {
                    self.carry.push((bytes, digest));
                    return;
                }
            }
        }
        self.layer.push(digest);
    }

    /// The manifest of everything appended.
    pub fn finish(mut self) -> Result<Manifest, ManifestError> {
        let limit = u64::from(MAX_PIECES) * u64::from(MAX_PIECE_BYTES);
        if self.length == 0 {
            return Err(ManifestError::Empty);
        }
        if self.length > limit {
            return Err(ManifestError::TooLong { length: self.length, limit });
        }
        let piece_length = piece_length_for(self.length);
        if self.leaf_bytes > 0 {
            self.end_leaf();
        }
        let mut zero = (LEAF_BYTES, Digest::ZERO);
        while let Some((width, _)) = self.carry.last().copied() {
            while zero.0 < width {
                zero = (zero.0 * 2, Digest::of_pair(&zero.1, &zero.1));
            }
            self.push(width, zero.1);
        }
        while zero.0 < self.granularity {
            zero = (zero.0 * 2, Digest::of_pair(&zero.1, &zero.1));
        }
        while self.granularity < piece_length {
            self.layer =
                self.layer.chunks(2).map(|pair| Digest::of_pair(&pair[0], pair.get(1).unwrap_or(&zero.1))).collect();
            zero = (zero.0 * 2, Digest::of_pair(&zero.1, &zero.1));
            self.granularity *= 2;
        }
        // It may be kept for as long as the release is.
        self.layer.shrink_to_fit();
        let manifest =
            Manifest { artifact: self.whole.finish(), length: self.length, piece_length, pieces: self.layer };
        manifest.check()?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from((i * 31 + i / 251) % 256).expect("below 256")).collect()
    }

    fn build(bytes: &[u8], step: usize) -> Manifest {
        let mut builder = ManifestBuilder::new();
        for part in bytes.chunks(step.max(1)) {
            builder.update(part);
        }
        builder.finish().expect("not empty")
    }

    #[test]
    fn piece_lengths_follow_the_artifact() {
        assert_eq!(piece_length_for(1), 16 * 1024);
        assert_eq!(piece_length_for(16 << 20), 16 * 1024);
        assert_eq!(piece_length_for((16 << 20) + 1), 32 * 1024);
        assert_eq!(piece_length_for(64 << 20), 64 * 1024);
        assert_eq!(piece_length_for(4 << 30), 4 << 20);
        assert_eq!(piece_length_for(1 << 40), 4 << 20);
    }

    #[test]
    fn the_streamed_manifest_is_the_one_computed_piece_by_piece() {
        // 33 MiB and an odd tail: granularity grows twice while streaming.
        let bytes = pattern((33 << 20) + 12_345);
        let manifest = build(&bytes, 1 << 20);
        assert_eq!(manifest.piece_length(), 64 * 1024);
        for index in manifest.indices() {
            let start = usize::try_from(manifest.offset_of(index)).expect("small");
            let end = start + manifest.length_of(index) as usize;
            assert!(manifest.verify_piece(index, &bytes[start..end]), "piece {}", index.get());
        }
    }

    #[test]
    fn a_changed_byte_fails_its_piece_only() {
        let mut bytes = pattern(100_000);
        let manifest = build(&bytes, 4096);
        bytes[20_000] ^= 1;
        let verdicts: Vec<bool> = manifest
            .indices()
            .map(|index| {
                let start = usize::try_from(manifest.offset_of(index)).expect("small");
                manifest.verify_piece(index, &bytes[start..start + manifest.length_of(index) as usize])
            })
            .collect();
        assert_eq!(verdicts, [true, false, true, true, true, true, true]);
    }

    #[test]
    fn a_manifest_with_another_digest_is_refused() {
        let bytes = build(&pattern(50_000), 1000).encode();
        assert!(matches!(Manifest::decode(&bytes, &Digest::ZERO), Err(ManifestError::Digest { .. })));
    }

    #[test]
    fn contradictory_manifests_are_refused() {
        let good = build(&pattern(50_000), 1000);
        for broken in [
            Manifest { length: 0, ..good.clone() },
            Manifest { length: 5, ..good.clone() },
            Manifest { length: u64::MAX, ..good.clone() },
            Manifest { piece_length: 0, ..good.clone() },
            Manifest { piece_length: 24 * 1024, ..good.clone() },
            Manifest { piece_length: 64 * 1024, ..good.clone() },
            Manifest { piece_length: 64 * 1024, pieces: good.pieces[..1].to_vec(), ..good.clone() },
        ] {
            let bytes = broken.encode();
            assert!(Manifest::decode(&bytes, &Digest::of(&bytes)).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn an_empty_artifact_has_no_manifest() {
        assert_eq!(ManifestBuilder::new().finish(), Err(ManifestError::Empty));
    }

    proptest! {
        #[test]
        fn every_manifest_survives_its_encoding(length in 1usize..200_000, step in 1usize..70_000) {
            let manifest = build(&pattern(length), step);
            let bytes = manifest.encode();
            prop_assert_eq!(Manifest::decode(&bytes, &Digest::of(&bytes)), Ok(manifest));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Manifest::decode(&bytes, &Digest::of(&bytes));
        }
    }
}
