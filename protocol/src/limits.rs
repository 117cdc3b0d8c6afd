//! Every bound on input from outside, its unit, and the attack or failure that it bounds.
//!
//! A bound is checked before the bytes it bounds are buffered.

/// Bytes of one `root.json`. Bounds memory while a hostile mirror answers a root request.
pub const MAX_ROOT_BYTES: u64 = 512 * 1024;

/// Bytes of one `timestamp.json`. Bounds memory for the one file whose length nothing signed tells.
pub const MAX_TIMESTAMP_BYTES: u64 = 16 * 1024;

/// Bytes of one `snapshot.json` where the timestamp states no length.
pub const MAX_SNAPSHOT_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes of one targets role (top level or delegated) where the snapshot states no length.
pub const MAX_TARGETS_BYTES: u64 = 5 * 1024 * 1024;

/// Roots that one update walks. Bounds the work a mirror causes by serving an endless root chain.
pub const MAX_ROOT_ROTATIONS: u32 = 256;

/// Delegated roles visited while one target path is resolved. Bounds delegation graphs made to blow up.
pub const MAX_DELEGATIONS_VISITED: usize = 64;

/// Nesting of JSON values. Bounds the stack while a hostile document is parsed.
pub const MAX_JSON_DEPTH: usize = 32;

/// Signatures in one envelope. Bounds signature checks caused by one document.
pub const MAX_SIGNATURES: usize = 64;

/// Keys named by one root or one set of delegations. Bounds the memory of key tables.
pub const MAX_KEYS: usize = 1024;

/// Bytes of a public key's text that are decoded: an RSA key of 8192 bits in PEM has some 1,500. Bounds
/// the work that a key table of huge texts causes; a longer one is kept and verifies nothing.
pub const MAX_PUBLIC_KEY_BYTES: usize = 4096;

/// Bytes of a target path. Bounds path matching and what a path costs in tables.
pub const MAX_TARGET_PATH_BYTES: usize = 512;

/// Bytes of a role name. Bounds file names made from it.
pub const MAX_ROLE_NAME_BYTES: usize = 128;

/// Bytes of a product, channel or platform name.
pub const MAX_NAME_BYTES: usize = 64;

/// Bytes of a semantic version, build metadata included.
pub const MAX_VERSION_BYTES: usize = 128;

/// Bytes of an artifact's file name. File systems stop at 255, and a hash prefix is added.
pub const MAX_FILE_NAME_BYTES: usize = 160;

/// Bytes of release notes carried inside signed metadata.
pub const MAX_INLINE_NOTES_BYTES: usize = 1024;

/// Channels that one release may be permitted on.
pub const MAX_CHANNELS: usize = 32;

/// Bytes of one channel policy file.
pub const MAX_CHANNEL_FILE_BYTES: u64 = 16 * 1024;

/// Versions that one channel policy may list as yanked.
pub const MAX_YANKED: usize = 256;

/// Stages of one rollout.
pub const MAX_ROLLOUT_STAGES: usize = 32;

/// Bytes of one gossiped head. gossipsub's own frame bound is 64 KiB.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Files carried inside one head.
pub const MAX_HEAD_INLINES: usize = 64;

/// Earlier timestamps that a timestamp names besides the one before it. With one re-signing in six
/// hours, four days of history in about a kilobyte.
pub const MAX_ANCESTORS: usize = 15;

/// Bytes of a node's words on how an install ended. Bounds what a stranger makes a seed keep and show.
pub const MAX_OUTCOME_TEXT_BYTES: usize = 256;

/// Reports of outcomes that one message acknowledges, and that a node keeps until they are.
pub const MAX_OUTCOMES: usize = 64;

/// Bytes of one piece of evidence: two files that contradict each other.
pub const MAX_EVIDENCE_BYTES: usize = 256 * 1024;

/// Pieces of evidence that a node keeps and that one message may name: one a role is enough.
pub const MAX_EVIDENCE: usize = 8;

/// Bytes of a leaf of the hash tree (BEP 52).
pub const LEAF_BYTES: u32 = 16 * 1024;

/// Bytes of the largest piece.
pub const MAX_PIECE_BYTES: u32 = 4 * 1024 * 1024;

/// Pieces of one artifact: 1 TiB in pieces of 4 MiB. Bounds bitmaps and manifests.
pub const MAX_PIECES: u32 = 1 << 18;

/// Bytes of one manifest: its pieces at 32 bytes each and a small header.
pub const MAX_MANIFEST_BYTES: u64 = MAX_PIECES as u64 * 32 + 256;

/// Bytes of the largest block one request may ask for.
pub const MAX_BLOCK_BYTES: u32 = 1024 * 1024;

/// Bytes of one control frame: the bitmap of the largest artifact, and room.
pub const MAX_CONTROL_FRAME_BYTES: u32 = 64 * 1024;

/// Pieces that one `Have` may name.
pub const MAX_HAVE_PIECES: usize = 4096;

/// Artifacts that one neighbour may talk about in one session. Bounds per-session tables.
pub const MAX_SESSION_ARTIFACTS: u32 = 4096;

/// Requests that one neighbour may have outstanding at us. Bounds upload queues.
pub const MAX_QUEUED_REQUESTS: usize = 512;

/// Peers named in one peer exchange message.
pub const MAX_EXCHANGED_PEERS: usize = 64;

/// Addresses of one peer, in a ticket or a peer exchange message.
pub const MAX_PEER_ADDRESSES: usize = 16;

/// Bytes of one address in text form.
pub const MAX_ADDRESS_BYTES: usize = 256;

/// Bytes of one metadata request.
pub const MAX_META_REQUEST_BYTES: u64 = 2 * 1024;

/// Bytes of one metadata answer: the largest file that may be asked for, and room.
pub const MAX_META_RESPONSE_BYTES: u64 = MAX_MANIFEST_BYTES + 1024;

/// Bytes of a reason that travels in an answer. Bounds what a stranger can make us show.
pub const MAX_REASON_BYTES: usize = 512;

/// Characters of a join ticket.
pub const MAX_TICKET_CHARS: usize = 8 * 1024;

/// Bytes of a key id. The specification leaves key ids opaque; this bounds key tables and messages.
pub const MAX_KEY_ID_BYTES: usize = 256;

/// Bytes of the largest artifact: every piece full.
pub const MAX_ARTIFACT_BYTES: u64 = MAX_PIECES as u64 * MAX_PIECE_BYTES as u64;

/// Bytes of a release's unpacked content. Bounds what a decompression bomb may claim.
pub const MAX_CONTENT_BYTES: u64 = 1 << 44;

/// Files, directories and links of one release. Bounds the inodes an unpacked release takes.
pub const MAX_CONTENT_ENTRIES: u64 = 2_000_000;

/// Names that one release may list as critical. Bounds comparisons and messages.
pub const MAX_CRITICAL_FIELDS: usize = 32;

/// Bytes of one ceremony file: the largest targets role twice, escaped, and a chain of roots. Bounds
/// what a key holder's machine reads of a file that somebody sent.
pub const MAX_CEREMONY_BYTES: u64 = 24 * 1024 * 1024;

/// Bytes of the root chain that a ceremony file carries along whole; of a longer one only the end.
pub const MAX_CEREMONY_CHAIN_BYTES: usize = 1024 * 1024;
