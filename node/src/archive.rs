//! Trees and archives: packing a directory, inspecting an artifact as it was built, unpacking one.
//!
//! One walk over an archive (`walk`) and one rule for entries ([`entry`]) serve inspection and
//! unpacking alike, so that publishing refuses what installing would refuse. Everything here streams:
//! memory is bounded by the number of names, never by the size of files.
//!
//! This module must never follow a symbolic link inside a tree, write outside the directory it was
//! given, or report success for bytes that are not those that were expected.

mod beneath;
mod durable;
pub mod entry;
mod guard;
mod hashing;
mod inspect;
mod pack;
mod scan;
mod source;
mod staging;
mod tarball;
mod unpack;
mod walk;
mod zipped;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use updraft_protocol::manifest::{Manifest, ManifestError};
use updraft_protocol::release::Format;

pub use self::durable::sync_tree;
pub use self::entry::{Admitted, EntryError, EntryProblem, Kind, Object, RelPath};
pub use self::guard::EntryGuard;
pub use self::inspect::inspect;
pub use self::pack::{DEFAULT_LEVEL, MAX_LEVEL, MIN_LEVEL, PackOptions, pack};
pub use self::unpack::{Expected, unpack};
pub use updraft_protocol::release::Content as ContentSummary;

/// How far a pass over a tree or an artifact has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done: of files while packing, of the artifact otherwise.
    pub bytes_done: u64,
    /// Bytes there are to do. A zip artifact is read twice and counts twice.
    pub bytes_total: u64,
    /// Entries done.
    pub entries_done: u64,
}

/// What publishing needs to know about an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digest, length and pieces of the artifact.
    pub manifest: Manifest,
    /// What it unpacks to: digest and length of the uncompressed tar stream, every byte of it, or of
    /// the artifact itself for zip and single files; and the number of entries (1 for a single file).
    pub content: ContentSummary,
}

/// Why a tree cannot be packed, or an artifact not be published or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system refused.
    #[error("cannot {action} `{}`: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The packed bytes could not be compressed or written.
    #[error("cannot write the packed artifact: {0}")]
    Output(io::Error),
    /// An entry is refused.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The tree or the artifact is being written to.
    #[error("`{}` changed while it was read; stop what writes to it, then try again", .0.display())]
    Changed(PathBuf),
    /// A directory with nothing to pack.
    #[error("`{}` is an empty directory; there is nothing to publish", .0.display())]
    EmptyDirectory(PathBuf),
    /// An artifact of zero bytes.
    #[error("`{}` is an empty file; there is nothing to publish", .0.display())]
    EmptyFile(PathBuf),
    /// Not a regular file.
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// An archive without entries.
    #[error("`{}` is an archive without entries; there is nothing to install", .0.display())]
    NoEntries(PathBuf),
    /// A compression level out of range.
    #[error("compression level {0} is not between {MIN_LEVEL} and {MAX_LEVEL}")]
    Level(i32),
    /// The archive ends too early.
    #[error("`{}` is cut short: it ends inside the archive; build or copy it again", .0.display())]
    Truncated(PathBuf),
    /// The archive is not what its format asks for.
    #[error("`{}` is not a sound archive: {detail}", path.display())]
    Corrupt {
        /// The artifact.
        path: PathBuf,
        /// What is wrong, in words.
        detail: String,
    },
    /// The archive asks for something that is not supported.
    #[error("`{}` cannot be used: {detail}", path.display())]
    Unsupported {
        /// The artifact.
        path: PathBuf,
        /// What it asks for.
        detail: String,
    },
    /// More unpacked bytes than the signed metadata declares: unpacking stopped there.
    #[error("the artifact unpacks to more than the {declared} bytes its signed metadata declares{}", stopped_in(entry.as_deref()))]
    ContentTooLong {
        /// Bytes in signed metadata.
        declared: u64,
        /// The entry in which they ended; none where that is between entries.
        entry: Option<String>,
    },
    /// More entries than the signed metadata declares: unpacking stopped there.
    #[error(
        "the artifact has more than the {declared} entries its signed metadata declares: entry `{entry}` is one more"
    )]
    TooManyEntries {
        /// Entries in signed metadata.
        declared: u64,
        /// The first that was not declared.
        entry: String,
    },
    /// A zip archive that unpacks to suspiciously much.
    #[error("`{}` unpacks to more than {limit} bytes with entry `{entry}`, which is beyond what a zip of its size may; publish it as tar.zst", path.display())]
    Expansion {
        /// The entry that is too much.
        entry: String,
        /// The artifact.
        path: PathBuf,
        /// Bytes at which unpacking stopped.
        limit: u64,
    },
    /// The artifact, or what it unpacks to, is not what the signed metadata says.
    #[error("the {what} is {found}, the signed metadata says {expected}")]
    Mismatch {
        /// Which of the declared values.
        what: &'static str,
        /// Its value in signed metadata.
        expected: String,
        /// The value found.
        found: String,
    },
    /// The staging directory holds something already.
    #[error("staging directory `{}` is not empty; remove what is in it", .0.display())]
    StagingNotEmpty(PathBuf),
    /// The pieces could not be listed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

fn stopped_in(entry: Option<&str>) -> String {
    entry.map_or_else(String::new, |entry| format!("; that ends in entry `{entry}`"))
}

impl ArchiveError {
    /// The same error about `path`, where what failed was a private copy of it.
    #[must_use]
    pub fn about(self, path: &Path) -> Self {
        let path = path.to_owned();
        match self {
            Self::Io { action, cause, .. } => Self::Io { action, path, cause },
            Self::Changed(_) => Self::Changed(path),
            Self::EmptyFile(_) => Self::EmptyFile(path),
            Self::NotAFile(_) => Self::NotAFile(path),
            Self::NoEntries(_) => Self::NoEntries(path),
            Self::Truncated(_) => Self::Truncated(path),
            Self::Corrupt { detail, .. } => Self::Corrupt { path, detail },
            Self::Unsupported { detail, .. } => Self::Unsupported { path, detail },
            Self::Expansion { limit, entry, .. } => Self::Expansion { path, limit, entry },
            other => other,
        }
    }

    fn io(action: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.into(), cause: cause.into() }
    }
}

/// The format that a file name claims; a single file where it claims none. Archives that are meant
/// to stay files (`.whl`, `.jar`, `.deb`) are single files.
pub fn detect(path: &Path) -> Format {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.map_or(Format::File, |name| Format::from_file_name(&name))
}
