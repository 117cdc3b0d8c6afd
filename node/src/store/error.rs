//! What can go wrong in the store, and what it found wrong and mended at start-up.

use std::io;
use std::path::{Path, PathBuf};

use updraft_protocol::digest::Digest;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another node works in this data directory.
    #[error("the data directory '{}' is in use by {}; stop that node or choose another --data-dir", .path.display(), owner(*.pid))]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The first node's process id, where it could be read.
        pid: Option<u32>,
    },
    /// The file system has no room.
    #[error("the disk of '{}' is full: {needed} bytes are needed, {available} are available; free some space", .path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that the file system offers this process.
        available: u64,
    },
    /// The file system refused.
    #[error("cannot {action} '{}': {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk lost writes: pieces since the last checkpoint were forgotten and must be fetched again.
    #[error("the disk failed while '{}' was saved ({source}); its latest pieces are fetched again; check the disk", .path.display())]
    LostWrites {
        /// The data file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A lent data file was changed by its name outside the store.
    #[error("'{}' was changed through the name that it was given outside the store; it is checked, and fetched again where it is wrong", .path.display())]
    Changed {
        /// The data file.
        path: PathBuf,
    },
    /// A complete artifact is held under another manifest.
    #[error(
        "artifact {artifact} is held complete under another manifest; remove it from the store to accept the new one"
    )]
    ManifestConflict {
        /// The artifact.
        artifact: Digest,
    },
    /// A finished file is not as long as its manifest says.
    #[error("the file for artifact {artifact} has {found} bytes, its manifest says {expected}; build both again")]
    Length {
        /// The artifact.
        artifact: Digest,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A block that this artifact does not have.
    #[error("artifact {artifact} has no block of {length} bytes at {offset}: {reason}")]
    Block {
        /// The artifact.
        artifact: Digest,
        /// Offset of the block.
        offset: u64,
        /// Bytes of the block.
        length: u64,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A read of bytes that were not verified.
    #[error("piece {piece} of artifact {artifact} is not held")]
    NotHeld {
        /// The artifact.
        artifact: Digest,
        /// The piece.
        piece: u32,
    },
    /// The artifact was removed or replaced while this handle was kept.
    #[error("artifact {artifact} was removed from the store")]
    Removed {
        /// The artifact.
        artifact: Digest,
    },
    /// More pieces are in progress than the store keeps leaf digests for.
    #[error("artifact {artifact} has {limit} unfinished pieces; finish or abandon some before starting others")]
    TooManyOpenPieces {
        /// The artifact.
        artifact: Digest,
        /// The most unfinished pieces.
        limit: usize,
    },
    /// Bytes that are not those that their digest names.
    #[error("these bytes have the digest {found}, not {expected}")]
    Digest {
        /// Digest asked for.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// More bytes than the place is for.
    #[error("'{}' has {found} bytes; the most here is {limit}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// Most bytes allowed.
        limit: u64,
    },
    /// Not a name for a metadata file.
    #[error("'{name}' is not a metadata file name ([A-Za-z0-9._%+-], at most 255 bytes, not starting with a dot)")]
    Name {
        /// The name, shortened.
        name: String,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StoreError {
    /// An I/O error at `path`; a full disk becomes [`StoreError::DiskFull`] with `needed` bytes.
    pub(crate) fn io(action: &'static str, path: &Path, needed: u64, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let directory = path.parent().filter(|parent| parent.is_dir()).unwrap_or(path);
            let available = fs4::available_space(directory).unwrap_or(0);
            return Self::DiskFull { path: path.to_owned(), needed, available };
        }
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// Something that the store found wrong at start-up and got out of the way. The node runs on;
/// people should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreWarning {
    /// The manifest cannot be used. The artifact is left alone, unlisted, until it is begun again.
    #[error("'{}' is set aside: {reason}; it is taken up again when its manifest has been fetched", .directory.display())]
    Manifest {
        /// The artifact's directory.
        directory: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The bitmap cannot be used: no piece counts as held.
    #[error("'{}' cannot be used ({reason}); the pieces of this artifact are checked or fetched again", .file.display())]
    Have {
        /// The bitmap file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data file was changed through another name that it has: no piece counts as held.
    #[error("'{}' was changed through its name outside the store; its pieces are checked again", .file.display())]
    Changed {
        /// The data file.
        file: PathBuf,
    },
    /// The data file has another length than its manifest says: no piece counts as held.
    #[error("'{}' has {found} bytes instead of {expected}; its pieces are checked or fetched again", .file.display())]
    Data {
        /// The data file.
        file: PathBuf,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes found; 0 where there was no file.
        found: u64,
    },
    /// A directory without a manifest, removed.
    #[error("'{}' had no manifest and was removed", .directory.display())]
    Junk {
        /// The directory.
        directory: PathBuf,
    },
    /// A name that the store does not make, left alone.
    #[error("'{}' is not the store's and is ignored", .path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
}
