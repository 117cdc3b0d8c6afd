//! Unpacking a verified artifact into a staging directory, in one pass that also compares the artifact
//! and what it holds with the signed metadata.
//!
//! Nothing is trusted before the end of that pass: on any error the staging directory holds a partial
//! tree, which the caller removes. On success the tree is complete and on stable storage. Modes are 0755
//! and 0644, owners are the caller's, times are those of unpacking.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::Path;

use updraft_protocol::digest::Digest;
use updraft_protocol::release::Format;

use super::entry::{EntryError, EntryProblem, RelPath};
use super::hashing::BesideHasher;
use super::inspect::bytes_to_read;
use super::source::{Artifact, Meter};
use super::staging::Staging;
use super::walk::{Limits, walk};
use super::{ArchiveError, ContentSummary, Progress};

/// What the signed metadata says about an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Digest of the artifact.
    pub artifact: Digest,
    /// Bytes of the artifact.
    pub length: u64,
    /// What it unpacks to.
    pub content: ContentSummary,
}

/// Unpacks `artifact` into `staging`, an empty directory that exists.
///
/// A single file ([`Format::File`]) is placed as an executable called `file_name`. Unpacking stops at
/// the first entry or byte beyond what `expected` declares. `progress` counts bytes of the artifact and
/// may break off, which is [`ArchiveError::Cancelled`].
pub fn unpack(
    artifact: &Path,
    format: Format,
    file_name: &str,
    expected: &Expected,
    staging: &Path,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(), ArchiveError> {
    let file_name = RelPath::parse(file_name.as_bytes())?;
    if !file_name.split().0.is_empty() {
        let entry = file_name.to_string();
        return Err(EntryError { entry, problem: EntryProblem::NotAName }.into());
    }
    let source = Artifact::open(artifact)?;
    // Cheaper than reading a terabyte to learn the same.
    require_equal("artifact's length", &expected.length, &source.length())?;
    let unpacked = unpack_from(&source, format, &file_name, expected, staging, progress);
    if matches!(unpacked, Ok(()) | Err(ArchiveError::Cancelled)) {
        return unpacked;
    }
    // What is wrong with bytes that somebody changes is not what is wrong with the artifact.
    source.require_unchanged().and(unpacked)
}

fn unpack_from(
    source: &Artifact,
    format: Format,
    file_name: &RelPath,
    expected: &Expected,
    staging: &Path,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(), ArchiveError> {
    let limits = Limits { content_bytes: Some(expected.content.length), entries: Some(expected.content.entries) };
    let mut tree = Staging::open(staging)?;
    let meter = Meter::new(bytes_to_read(source, format), progress);
    let (hasher, content) = walk(source, format, file_name, limits, BesideHasher::new(), &mut tree, meter)?;
    let digest = hasher.finish();
    require_equal("artifact's sha256", &expected.artifact, &digest)?;
    let found = content.summary(digest, source.length());
    require_equal("content's length", &expected.content.length, &found.length)?;
    require_equal("content's sha256", &expected.content.sha256, &found.sha256)?;
    require_equal("number of entries", &expected.content.entries, &found.entries)?;
    tree.finish()
}

fn require_equal<T: PartialEq + Display>(what: &'static str, expected: &T, found: &T) -> Result<(), ArchiveError> {
    if expected == found {
        return Ok(());
    }
    Err(ArchiveError::Mismatch { what, expected: expected.to_string(), found: found.to_string() })
}
