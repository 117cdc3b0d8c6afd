//! A second name for an artifact's data file, outside the store: what an operator asked for is there
//! at once and takes no room.
//!
//! Whoever has the file by that name may change it. What it must never do: let the store claim bytes
//! that were changed so, or write to a file that somebody else reads. The store notes how the file
//! looked when it was lent ([`Stamp`], in the file `lent`) and compares that after every read and at
//! start-up. A file that looks otherwise, or has a wrong piece, is never trusted again: the store lets
//! go of it, and moves those pieces to a file of its own that are right when they are written there.
//! So no claim ever rests on a look at a file that may change the next moment.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::LEAF_BYTES;
use updraft_protocol::manifest::{PieceIndex, leaf_digest};

use super::super::error::StoreError;
use super::super::files::{self, lock};
use super::super::pieces::{Leaves, Settled};
use super::{Artifact, Saved, VerifyReport};
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
    /// Of a note that cannot be read. No artifact is empty, so no data file looks like this.
    const UNREADABLE: Self = Self { modified: Duration::ZERO, length: 0 };

    /// Fails where `file` looks otherwise: what was read from it means nothing.
    pub(super) fn require(self, file: &File) -> io::Result<()> {
        if Self::of(&file.metadata()?)? == self {
            return Ok(());
        }
        Err(io::Error::other("the file was changed through the name that it was given outside the store"))
    }

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
    /// It looked like this, and was changed since, or nobody can tell.
    Changed(Stamp),
}

/// A file that was let go of; none where it was gone already.
#[derive(Debug)]
pub(super) struct Left(Option<File>);

fn note_in(directory: &Path) -> PathBuf {
    directory.join("lent")
}

/// Looks at the data file in an artifact's directory.
pub(in crate::store) fn look(directory: &Path) -> io::Result<Lent> {
    // A byte more than there may be: a longer file is none of ours.
    let Some(bytes) = files::read_bounded(&note_in(directory), STAMP_BYTES as u64 + 1)? else { return Ok(Lent::No) };
    let found = Stamp::of(&fs::metadata(directory.join("data"))?)?;
    let noted = Stamp::decode(&bytes).unwrap_or(Stamp::UNREADABLE);
    Ok(if noted == found { Lent::Unchanged(found) } else { Lent::Changed(noted) })
}

/// Leaves a lent data file to whoever has it; the artifact in `directory` is without one.
pub(in crate::store) fn leave(directory: &Path) -> io::Result<()> {
    atomic::remove(&directory.join("data"))?;
    atomic::remove(&note_in(directory)).map(drop)
}

impl Artifact {
    /// Gives the complete data file a second name. `path` appears whole, replacing a file of that name;
    /// `false` where it cannot be had this way (it is on another file system, for example) and must be
    /// copied. Only for an artifact that [`Artifact::is_proven`]. [`StoreError::Changed`] where somebody
    /// changed it by a name that it has already: [`Artifact::verify`] tells what is left.
    pub fn lend(&self, path: &Path) -> Result<bool, StoreError> {
        let _alive = self.alive()?;
        // No checkpoint, no verification and so no new writer meanwhile.
        let saved = lock(&self.saved);
        let mut lent = self.lent_for_change();
        if !saved.pieces.is_full() || !self.is_complete() {
            return Ok(false);
        }
        let failed = |source| StoreError::io("lend", &self.data, 0, source);
        let stamp = fs::metadata(&self.data).and_then(|found| Stamp::of(&found)).map_err(failed)?;
        let was_lent = lent.is_some();
        match *lent {
            Some(known) if known != stamp => return Err(StoreError::Changed { path: self.data.clone() }),
            Some(_) => {}
            None => {
                // The note comes first: there must be no moment at which a changed file goes unnoticed.
                atomic::write(&note_in(&self.directory), &stamp.encode(), 0o600).map_err(failed)?;
                *lent = Some(stamp);
            }
        }
        if atomic::replace_by_link(&self.data, path).is_ok() {
            // A courtesy that keeps everybody but root from writing to it by mistake; the note is the guard.
            let _ = forbid_writing(&self.data);
            return Ok(true);
        }
        // It may have failed after the other name was there: then the note stays.
        if !was_lent && names_of(&self.data) == Some(1) {
            atomic::remove(&note_in(&self.directory)).map_err(failed)?;
            *lent = None;
        }
        Ok(false)
    }

    /// When the data file was last written to; for whoever reads it by its path, and must stop where that
    /// changes. [`StoreError::Changed`] where somebody did write to it by another name.
    pub fn modified(&self) -> Result<SystemTime, StoreError> {
        let lent = self.lent();
        let failed = |source| StoreError::io("look at", &self.data, 0, source);
        let found = fs::metadata(&self.data).map_err(failed)?;
        match *lent {
            Some(stamp) if Stamp::of(&found).map_err(failed)? != stamp => {
                Err(StoreError::Changed { path: self.data.clone() })
            }
            _ => found.modified().map_err(failed),
        }
    }

    /// Whether the data file has another name, and how it looked; for as long as the answer is kept.
    pub(super) fn lent(&self) -> RwLockReadGuard<'_, Option<Stamp>> {
        self.lent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lent_for_change(&self) -> RwLockWriteGuard<'_, Option<Stamp>> {
        self.lent.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the data file has another name, and so is not written to.
    pub(super) fn is_lent(&self) -> bool {
        self.lent().is_some()
    }

    /// Whether a lent file no longer looks as it did.
    pub(super) fn lent_was_changed(&self) -> Result<bool, StoreError> {
        let Some(stamp) = *self.lent() else { return Ok(false) };
        match fs::metadata(&self.data).and_then(|found| Stamp::of(&found)) {
            Ok(found) => Ok(found != stamp),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(source) => Err(StoreError::io("look at", &self.data, 0, source)),
        }
    }

    /// Lets go of a lent file and moves what is right of it to the store's own.
    pub(super) fn reclaim(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, StoreError> {
        let before = self.have();
        let mut report = VerifyReport::default();
        // Where somebody else was quicker, the pieces are his to move.
        if let Some(Left(source)) = self.let_go()? {
            let (mut done, mut buffer) = (0, Vec::new());
            for piece in self.manifest.indices() {
                // For each piece anew, so that a removal does not wait for the whole pass.
                let _alive = self.alive()?;
                self.take_over(piece, source.as_ref(), &mut buffer)?;
                report.checked += 1;
                done += u64::from(self.manifest.length_of(piece));
                progress(done, self.manifest.length());
            }
            self.checkpoint()?;
        }
        let after = self.have();
        report.cleared = before.iter().filter(|piece| !after.get(*piece)).collect();
        report.recovered = after.iter().filter(|piece| !before.get(*piece)).collect();
        Ok(report)
    }

    /// Leaves a lent file to whoever has it, and begins one of the store's own that claims nothing. `None`
    /// where it is not lent.
    pub(super) fn let_go(&self) -> Result<Option<Left>, StoreError> {
        let _alive = self.alive()?;
        let mut saved = lock(&self.saved);
        let mut lent = self.lent_for_change();
        if lent.is_none() {
            return Ok(None);
        }
        // Claims go first, in memory and on disk; the note goes last. A note too many costs a look, one too
        // few would cost the truth.
        let nothing = Bitmap::empty(self.manifest.piece_count());
        {
            let mut state = lock(&self.state);
            // What is being claimed this moment was read from the old file.
            state.losses += 1;
            state.unsaved_bytes = 0;
            state.pieces.fall_back(&self.manifest, &nothing);
        }
        self.settled.notify_all();
        self.recoverable.store(true, Ordering::Relaxed);
        self.proven.store(true, Ordering::Relaxed);
        *saved = Saved { pieces: nothing.clone(), claims_more: true };
        self.write_have(&nothing)?;
        saved.claims_more = false;
        let failed = |source| StoreError::io("begin anew", &self.data, self.manifest.length(), source);
        let source = self.begin_anew().map_err(failed)?;
        atomic::remove(&note_in(&self.directory)).map_err(failed)?;
        self.shared.readers.close(self.id);
        *lent = None;
        self.recoverable.store(false, Ordering::Relaxed);
        Ok(Some(Left(source)))
    }

    /// Puts a new file in the place of the data file, which it returns.
    fn begin_anew(&self) -> io::Result<Option<File>> {
        let mut old = match File::open(&self.data) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let fresh = self.directory.join(format!("{}data", atomic::TEMP_PREFIX));
        let create = || {
            atomic::remove(&fresh)?;
            files::create_data(&fresh, self.manifest.length(), self.shared.allocation).inspect_err(|_| {
                // What is left of it would be removed at the next try or start.
                let _ = atomic::remove(&fresh);
            })
        };
        match create() {
            // Nobody else has it any more: better to fetch it again than to have no room for it.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && names_of(&self.data) == Some(1) => {
                old = None;
                atomic::remove(&self.data)?;
                create()?;
            }
            created => created?,
        }
        atomic::rename(&fresh, &self.data)?;
        Ok(old)
    }

    /// Writes `piece` of `source` to the data file, if it is right; leaves it alone while somebody else
    /// writes it.
    fn take_over(&self, piece: PieceIndex, source: Option<&File>, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let in_piece = self.leaves_in(piece);
        let Some(writing) = self.claim(&Leaves { piece, in_piece, range: 0..in_piece })? else {
            return Ok(());
        };
        let offset = self.manifest.offset_of(piece);
        buffer.resize(self.manifest.length_of(piece) as usize, 0);
        let is_right = source.is_some_and(|source| files::read_exact_at(source, buffer, offset).is_ok())
            && self.manifest.verify_piece(piece, buffer);
        if writing.runs.first() != Some(&(0..in_piece)) || !is_right {
            return Ok(());
        }
        self.writer()
            .and_then(|file| files::write_all_at(&file, buffer, offset))
            .map_err(|source| StoreError::io("write", &self.data, buffer.len() as u64, source))?;
        let digests: Vec<Digest> = buffer.chunks(LEAF_BYTES as usize).map(leaf_digest).collect();
        if self.settle(writing, &digests, None)?.0 == Settled::Verified {
            self.checkpoint_if_due()?;
        }
        Ok(())
    }
}

/// How many names a file has; `None` where that cannot be told.
fn names_of(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    return fs::metadata(path).ok().map(|found| std::os::unix::fs::MetadataExt::nlink(&found));
    #[cfg(not(unix))]
    return fs::metadata(path).ok().and(None);
}

fn forbid_writing(path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    #[cfg(unix)]
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    #[cfg(not(unix))]
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions)
}
