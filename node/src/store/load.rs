//! Reads the artifacts back at start-up, and mends or sets aside what a crash or a bad disk left.
//!
//! The order of repairs matters: claims are withdrawn on disk before the data file gets its length
//! back, so that a crash in between never leaves a claim without its bytes.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_MANIFEST_BYTES;
use updraft_protocol::manifest::Manifest;

use super::artifact::lend::{self, Lent, Stamp};
use super::error::{StoreError, StoreWarning};
use super::files;
use super::have::{Have, MAX_HAVE_BYTES};
use crate::atomic;
use updraft_protocol::bitmap::Bitmap;

/// An artifact found on disk.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    pub(super) directory: PathBuf,
    pub(super) have: Bitmap,
    /// The data file may hold pieces that `have` does not name.
    pub(super) recoverable: bool,
    /// The data file has another name, and looked like this when its bytes were known to be right.
    pub(super) lent: Option<Stamp>,
}

/// Removes temporary files that a crash left beside state files in `data_dir`.
pub(super) fn remove_leftovers(data_dir: &Path) -> Result<(), StoreError> {
    let sweep = |directory: &Path| {
        let swept = atomic::remove_leftovers(directory).map(|_| ());
        swept.map_err(|source| StoreError::io("clean", directory, 0, source))
    };
    sweep(data_dir)?;
    sweep(&data_dir.join("targets"))?;
    for parent in [data_dir.join("metadata"), data_dir.join("artifacts")] {
        sweep(&parent)?;
        for directory in directories(&parent)? {
            sweep(&directory)?;
        }
    }
    Ok(())
}

fn directories(parent: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::io("list", parent, 0, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Loads every artifact under `directory`; junk goes through `temporary`.
pub(super) fn artifacts(
    directory: &Path,
    temporary: &Path,
    warnings: &mut Vec<StoreWarning>,
) -> Result<Vec<Loaded>, StoreError> {
    let failed = |source| StoreError::io("list", directory, 0, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
        match digest.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            Some(artifact) => found.extend(load(entry.path(), &artifact, temporary, warnings)?),
            None => warnings.push(StoreWarning::Foreign { path: entry.path() }),
        }
    }
    Ok(found)
}

fn load(
    directory: PathBuf,
    artifact: &Digest,
    temporary: &Path,
    warnings: &mut Vec<StoreWarning>,
) -> Result<Option<Loaded>, StoreError> {
    let bytes = match files::read_bounded(&directory.join("manifest"), MAX_MANIFEST_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            discard(&directory, temporary)?;
            warnings.push(StoreWarning::Junk { directory });
            return Ok(None);
        }
        Err(error) => {
            warnings
                .push(StoreWarning::Manifest { directory, reason: format!("its manifest cannot be read ({error})") });
            return Ok(None);
        }
    };
    let digest = Digest::of(&bytes);
    let have = read_have(&directory);
    let reason = match Manifest::decode(&bytes, &digest) {
        Ok(manifest) if manifest.artifact() != artifact => "its manifest is that of another artifact".to_owned(),
        // The bitmap carries a digest of its own: where the two disagree, the manifest rotted.
        Ok(_) if have.as_ref().is_ok_and(|have| have.manifest != digest) => "its manifest has changed".to_owned(),
        Ok(manifest) => return Ok(reconcile(manifest, directory, have, warnings)),
        Err(error) => error.to_string(),
    };
    warnings.push(StoreWarning::Manifest { directory, reason });
    Ok(None)
}

fn read_have(directory: &Path) -> Result<Have, String> {
    let bytes = files::read_bounded(&directory.join("have"), MAX_HAVE_BYTES).map_err(|error| error.to_string())?;
    Have::decode(&bytes.ok_or("it is missing")?).map_err(str::to_owned)
}

/// What may be claimed of an artifact with a good manifest.
fn reconcile(
    manifest: Manifest,
    directory: PathBuf,
    have: Result<Have, String>,
    warnings: &mut Vec<StoreWarning>,
) -> Option<Loaded> {
    let count = manifest.piece_count();
    let have = have.and_then(|have| match have.pieces {
        pieces if pieces.count() == count => Ok(pieces),
        _ => Err("it has another number of pieces".to_owned()),
    });
    let (have, mut recoverable) = have.map_or_else(
        |reason| {
            warnings.push(StoreWarning::Have { file: directory.join("have"), reason });
            (Bitmap::empty(count), true)
        },
        |pieces| (pieces, false),
    );
    let data = directory.join("data");
    let found = fs::metadata(&data).map_or(0, |metadata| metadata.len());
    let looks = lend::look(&directory);
    if found == manifest.length() {
        return Some(match looks {
            Ok(Lent::No) => Loaded { manifest, directory, have, recoverable, lent: None },
            Ok(Lent::Unchanged(stamp)) => Loaded { manifest, directory, have, recoverable, lent: Some(stamp) },
            Ok(Lent::Changed(stamp)) => {
                warnings.push(StoreWarning::Changed { file: data });
                Loaded { manifest, directory, have: Bitmap::empty(count), recoverable: true, lent: Some(stamp) }
            }
            Err(error) => {
                warnings.push(StoreWarning::Manifest { directory, reason: format!("it cannot be read ({error})") });
                return None;
            }
        });
    }
    warnings.push(StoreWarning::Data { file: data.clone(), expected: manifest.length(), found });
    recoverable = found > 0;
    // What somebody else may read is not written to.
    let left = if matches!(looks, Ok(Lent::No)) { Ok(()) } else { lend::leave(&directory) };
    if let Err(error) = left.and_then(|()| start_over(&manifest, &directory, &data)) {
        warnings
            .push(StoreWarning::Manifest { directory, reason: format!("its data file cannot be mended ({error})") });
        return None;
    }
    Some(Loaded { manifest, directory, have: Bitmap::empty(count), recoverable, lent: None })
}

fn start_over(manifest: &Manifest, directory: &Path, data: &Path) -> io::Result<()> {
    let pieces = Bitmap::empty(manifest.piece_count());
    let have = Have { manifest: Digest::of(&manifest.encode()), pieces };
    atomic::write(&directory.join("have"), &have.encode(), 0o600)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(data)?;
    file.set_len(manifest.length())?;
    file.sync_all()
}

fn discard(directory: &Path, temporary: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("remove", directory, 0, source);
    let place = tempfile::TempDir::new_in(temporary).map_err(failed)?;
    atomic::rename(directory, &place.path().join("removed")).map_err(failed)?;
    place.close().map_err(failed)
}
