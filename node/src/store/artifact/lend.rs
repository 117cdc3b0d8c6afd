//! A second name for an artifact's data file, outside the store: what an operator asked for is there
//! at once and takes no room.
//!
//! Whoever has the file by that name may change it. What it must never do: let the store claim bytes
//! that were changed so, or write to a file that somebody else reads. The store notes how the file
//! looked when it was lent ([`Stamp`], in the file `lent`), compares that after every read and at
//! start-up, and makes a file of its own again before it writes.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::error::StoreError;
use super::super::files::{self, lock};
use super::Artifact;
use crate::atomic;

const MAGIC: &[u8; 8] = b"updlent1";
/// Magic, seconds and nanoseconds of the last change, length.
const STAMP_BYTES: usize = 8 + 8 + 4 + 8;

/// How a data file looked when its bytes were known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Stamp {
    /// Since the Unix epoch.
    modified: Duration,
    length: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        let modified = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self { modified, length: metadata.len() })
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STAMP_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.modified.as_secs().to_be_bytes());
        bytes.extend_from_slice(&self.modified.subsec_nanos().to_be_bytes());
        bytes.extend_from_slice(&self.length.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (seconds, rest) = rest.split_first_chunk::<8>()?;
        let (nanos, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let nanos = u32::from_be_bytes(*nanos);
        (rest.is_empty() && nanos < 1_000_000_000).then(|| Self {
            modified: Duration::new(u64::from_be_bytes(*seconds), nanos),
            length: u64::from_be_bytes(*length),
        })
    }
}

/// What is known at start-up of a data file that may have been lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Lent {
    /// It has no other name.
    No,
    /// It looks as it did.
    Unchanged(Stamp),
    /// It was changed since, or nobody can tell: it looks like this now.
    Changed(Stamp),
}

fn note_in(directory: &Path) -> PathBuf {
    directory.join("lent")
}

/// Looks at the data file in an artifact's directory.
pub(in crate::store) fn look(directory: &Path) -> io::Result<Lent> {
    // A byte more than there may be: a longer file is none of ours.
    let Some(bytes) = files::read_bounded(&note_in(directory), STAMP_BYTES as u64 + 1)? else { return Ok(Lent::No) };
    let found = Stamp::of(&fs::metadata(directory.join("data"))?)?;
    Ok(if Stamp::decode(&bytes) == Some(found) { Lent::Unchanged(found) } else { Lent::Changed(found) })
}

/// Leaves a lent data file to whoever has it; the artifact in `directory` is without one.
pub(in crate::store) fn leave(directory: &Path) -> io::Result<()> {
    atomic::remove(&directory.join("data"))?;
    atomic::remove(&note_in(directory)).map(drop)
}

impl Artifact {
    /// Gives the complete data file a second name. `path` appears whole, replacing a file of that name;
    /// `false` where it cannot be had this way (it is on another file system, for example) and must be
    /// copied. Only for an artifact that [`Artifact::is_proven`].
    pub fn lend(&self, path: &Path) -> Result<bool, StoreError> {
        let _alive = self.alive()?;
        // No checkpoint, no verification and so no new writer meanwhile.
        let saved = lock(&self.saved);
        if !saved.pieces.is_full() || !self.is_complete() {
            return Ok(false);
        }
        let failed = |source| StoreError::io("lend", &self.data, 0, source);
        let stamp = fs::metadata(&self.data).and_then(|found| Stamp::of(&found)).map_err(failed)?;
        let mut lent = lock(&self.lent);
        match *lent {
            Some(known) if known != stamp => Err(failed(changed())),
            Some(_) => Ok(atomic::replace_by_link(&self.data, path).is_ok()),
            None => {
                // The note comes first: there must be no moment at which a changed file goes unnoticed.
                atomic::write(&note_in(&self.directory), &stamp.encode(), 0o600).map_err(failed)?;
                // Writing to it by mistake is refused to everybody but root.
                let mut permissions = fs::metadata(&self.data).map_err(failed)?.permissions();
                #[cfg(unix)]
                std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
                #[cfg(not(unix))]
                permissions.set_readonly(true);
                fs::set_permissions(&self.data, permissions).map_err(failed)?;
                *lent = Some(stamp);
                let linked = atomic::replace_by_link(&self.data, path).is_ok();
                if !linked {
                    *lent = None;
                    atomic::remove(&note_in(&self.directory)).map_err(failed)?;
                }
                Ok(linked)
            }
        }
    }

    /// Whether the data file has another name, and so is not written to.
    pub(super) fn is_lent(&self) -> bool {
        lock(&self.lent).is_some()
    }

    /// Fails where a lent file was changed since: what was read from it means nothing.
    pub(super) fn check_lent(&self, file: &File) -> io::Result<()> {
        match *lock(&self.lent) {
            Some(stamp) if Stamp::of(&file.metadata()?)? != stamp => Err(changed()),
            _ => Ok(()),
        }
    }

    /// How a lent file looks now; to be noted once its bytes were hashed.
    pub(super) fn look_at_lent(&self) -> io::Result<Option<Stamp>> {
        let mut lent = lock(&self.lent);
        if lent.is_some() {
            *lent = Some(Stamp::of(&fs::metadata(&self.data)?)?);
        }
        Ok(*lent)
    }

    /// Notes how the file looked when its bytes began to be hashed.
    pub(super) fn note_lent(&self, stamp: Option<Stamp>) -> io::Result<()> {
        match stamp.filter(|_| self.is_lent()) {
            Some(stamp) => atomic::write(&note_in(&self.directory), &stamp.encode(), 0o600),
            None => Ok(()),
        }
    }

    /// Makes the data file this artifact's own again, by a copy.
    pub(super) fn take_back(&self) -> io::Result<()> {
        let mut lent = lock(&self.lent);
        if lent.is_none() {
            return Ok(());
        }
        let copy = tempfile::Builder::new().prefix(atomic::TEMP_PREFIX).tempfile_in(&self.directory)?;
        io::copy(&mut File::open(&self.data)?, &mut copy.as_file())?;
        copy.as_file().set_len(self.manifest.length())?;
        copy.as_file().sync_all()?;
        copy.persist(&self.data).map_err(|error| error.error)?;
        // The note goes last: a note too many costs a look, one too few would cost the truth.
        atomic::sync_dir(&self.directory)?;
        atomic::remove(&note_in(&self.directory))?;
        self.shared.readers.close(self.id);
        *lent = None;
        Ok(())
    }
}

fn changed() -> io::Error {
    io::Error::other("the file was changed through the name that it was given outside the store")
}
