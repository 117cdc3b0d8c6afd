//! Everything a node keeps on disk: artifacts by digest, small targets, trusted metadata, and the
//! state database beside them.
//!
//! ```text
//! <data>/lock                                      one node at a time
//! <data>/state.db                                  see `state`
//! <data>/metadata/<repository id>/...              exact signed bytes
//! <data>/artifacts/<sha256>/{manifest,data,have,lent}   see `artifact`
//! <data>/targets/<sha256>                          small verified files
//! <data>/tmp/                                      emptied at start-up
//! ```
//!
//! An artifact's directory is made complete in `tmp/` and renamed into place, and renamed back to
//! `tmp/` before it is deleted: at every instruction it is there as a whole or not at all. What
//! rotted nonetheless never keeps the node from starting; it becomes a [`StoreWarning`].
//!
//! The store blocks; callers bring their own threads. It trusts no file that it reads back, and
//! knows nothing of networks, signatures or releases.

mod artifact;

mod error;
mod files;
mod have;
mod load;
mod lock;
mod metadata;
mod migrations;
mod pieces;
mod senders;
pub mod state;
mod targets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tempfile::{NamedTempFile, TempDir};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;

pub use self::artifact::{Artifact, BlockOutcome, VerifyReport};

pub use self::error::{StoreError, StoreWarning};
pub use self::files::Allocation;
pub use self::metadata::MetadataDir;
pub use self::pieces::MAX_OPEN_PIECES;
pub use self::targets::MAX_TARGET_BYTES;

use self::artifact::lend;
use self::files::{ReadFiles, lock};
use self::have::Have;
use self::load::Loaded;
use self::lock::DirectoryLock;
use self::targets::Targets;
use crate::atomic;

/// What artifacts share with the store, and keep alive when they outlive it: above all the lock.
#[derive(Debug)]
struct Shared {
    readers: ReadFiles,
    allocation: Allocation,
    _lock: DirectoryLock,
}

#[derive(Debug, Default)]
struct Index {
    by_artifact: BTreeMap<Digest, Arc<Artifact>>,
    by_manifest: HashMap<Digest, Digest>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    shared: Arc<Shared>,
    targets: Targets,
    index: RwLock<Index>,
    /// Held while a directory under `artifacts` is made, replaced or removed.
    changes: Mutex<()>,
    warnings: Vec<StoreWarning>,
}

/// The store of one node. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What the store holds of one artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactInfo {
    /// The artifact.
    pub artifact: Digest,
    /// Its bytes.
    pub length: u64,
    /// Bytes of verified pieces.
    pub bytes_done: u64,
    /// Whether that is all of them.
    pub complete: bool,
    /// Pieces it has.
    pub piece_count: u32,
}

/// Makes a private directory, unless it is there.
fn create_dir(path: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| StoreError::io("create", path, 0, source))
}

/// Deletes everything inside `directory`.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Store {
    /// Opens the store in `data_dir`, making it if needed: takes its lock, clears what a crash left
    /// in `tmp` and beside state files, and loads the artifacts. Disk space is reserved.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(data_dir, Allocation::Reserve)
    }

    /// [`Store::open`] with a choice of how data files get their disk space.
    pub fn open_with(data_dir: &Path, allocation: Allocation) -> Result<Self, StoreError> {
        create_dir(data_dir)?;
        let shared =
            Arc::new(Shared { _lock: DirectoryLock::acquire(data_dir)?, readers: ReadFiles::default(), allocation });
        let (artifacts, targets, temporary) =
            (data_dir.join("artifacts"), data_dir.join("targets"), data_dir.join("tmp"));
        for directory in [&artifacts, &targets, &data_dir.join("metadata"), &temporary] {
            create_dir(directory)?;
        }
        empty(&temporary).map_err(|source| StoreError::io("empty", &temporary, 0, source))?;
        load::remove_leftovers(data_dir)?;
        let mut index = Index::default();
        let mut warnings = Vec::new();
        for loaded in load::artifacts(&artifacts, &temporary, &mut warnings)? {
            let Loaded { manifest, directory, have, recoverable, lent } = loaded;
            index.add(Arc::new(Artifact::new(manifest, directory, have, recoverable, lent, Arc::clone(&shared))));
        }
        let inner = Inner {
            root: data_dir.to_owned(),
            shared,
            targets: Targets { directory: targets },
            index: RwLock::new(index),
            changes: Mutex::new(()),
            warnings,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What [`Store::open`] found wrong and got out of the way.
    pub fn warnings(&self) -> &[StoreWarning] {
        &self.inner.warnings
    }

    /// Where the state database belongs: see [`state::StateDb::open`].
    pub fn state_path(&self) -> PathBuf {
        self.inner.root.join("state.db")
    }

    /// The artifact of `manifest`: the one there is, with the pieces it has, or a new empty one.
    ///
    /// A manifest that differs from the one held replaces it and its pieces, unless the artifact is
    /// complete: then the caller decides ([`StoreError::ManifestConflict`], [`Store::remove`]).
    /// Where the store lost track of pieces that may be on disk, see [`Artifact::is_recoverable`].
    pub fn begin(&self, manifest: &Manifest) -> Result<Arc<Artifact>, StoreError> {
        let _changes = lock(&self.inner.changes);
        if let Some(existing) = self.usable(manifest)? {
            return Ok(existing);
        }
        let home = self.home(manifest.artifact());
        let staged = self.staging()?;
        let data = staged.path().join("data");
        // Unlisted after its manifest rotted: its data may still be good.
        let adopted = self.get(manifest.artifact()).is_none()
            && fs::symlink_metadata(home.join("data"))
                .is_ok_and(|found| found.is_file() && found.len() == manifest.length())
            && matches!(lend::look(&home), Ok(lend::Lent::No));
        if adopted {
            atomic::rename(&home.join("data"), &data)
        } else {
            files::create_data(&data, manifest.length(), self.inner.shared.allocation)
        }
        .map_err(|source| StoreError::io("create", &data, manifest.length(), source))?;
        self.put_in_place(staged, manifest, Bitmap::empty(manifest.piece_count()), adopted)
    }

    /// Takes over `complete`, a finished file from [`Store::temp_file`] whose `manifest` the caller
    /// made from these very bytes. Replaces an incomplete artifact; keeps a complete one.
    pub fn import(&self, complete: NamedTempFile, manifest: &Manifest) -> Result<Arc<Artifact>, StoreError> {
        let failed = |source| StoreError::io("import", complete.path(), manifest.length(), source);
        let found = complete.as_file().metadata().map_err(failed)?.len();
        if found != manifest.length() {
            return Err(StoreError::Length { artifact: *manifest.artifact(), expected: manifest.length(), found });
        }
        complete.as_file().sync_all().map_err(failed)?;
        let _changes = lock(&self.inner.changes);
        if let Some(existing) = self.usable(manifest)?.filter(|existing| existing.is_complete()) {
            return Ok(existing);
        }
        let staged = self.staging()?;
        let data = staged.path().join("data");
        complete.persist(&data).map_err(|error| StoreError::io("import", &data, manifest.length(), error.error))?;
        self.put_in_place(staged, manifest, Bitmap::full(manifest.piece_count()), false)
    }

    /// A new file in `tmp`, on the file system of the artifacts, removed when dropped.
    pub fn temp_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.inner.root.join("tmp"))
    }

    /// A new directory in `tmp`, removed when dropped.
    pub fn temp_dir(&self) -> io::Result<TempDir> {
        TempDir::new_in(self.inner.root.join("tmp"))
    }

    /// The artifact with this digest, complete or not.
    pub fn get(&self, artifact: &Digest) -> Option<Arc<Artifact>> {
        self.read_index(|index| index.by_artifact.get(artifact).cloned())
    }

    /// All artifacts, by digest.
    pub fn list(&self) -> Vec<ArtifactInfo> {
        let artifacts: Vec<_> = self.read_index(|index| index.by_artifact.values().cloned().collect());
        let info = |artifact: Arc<Artifact>| {
            let (manifest, bytes_done) = (artifact.manifest(), artifact.bytes_done());
            ArtifactInfo {
                artifact: *manifest.artifact(),
                length: manifest.length(),
                bytes_done,
                complete: bytes_done == manifest.length(),
                piece_count: manifest.piece_count(),
            }
        };
        artifacts.into_iter().map(info).collect()
    }

    /// Removes an artifact and its data. Waits for reads and writes under way; handles kept longer
    /// get [`StoreError::Removed`]. `false` when there was none.
    pub fn remove(&self, artifact: &Digest) -> Result<bool, StoreError> {
        let _changes = lock(&self.inner.changes);
        match self.take_away(artifact)? {
            Some(junk) => {
                junk.close().map(|()| true).map_err(|source| StoreError::io("remove", &self.home(artifact), 0, source))
            }
            None => Ok(false),
        }
    }

    /// The encoded manifest with this digest.
    pub fn manifest_bytes(&self, manifest_sha256: &Digest) -> Option<Vec<u8>> {
        let artifact = self.read_index(|index| index.by_manifest.get(manifest_sha256).copied())?;
        self.get(&artifact).map(|artifact| artifact.manifest().encode())
    }

    /// Keeps a small verified file: its digest must be `sha256`, its bytes at most
    /// [`MAX_TARGET_BYTES`].
    pub fn put_target(&self, sha256: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.targets.put(sha256, bytes)
    }

    /// The small file with this digest. One that rotted is not there.
    pub fn target(&self, sha256: &Digest) -> Option<Vec<u8>> {
        self.inner.targets.get(sha256)
    }

    /// Digests of all small files, sorted: for the caller to remove those that nothing names now.
    pub fn targets(&self) -> Result<Vec<Digest>, StoreError> {
        self.inner.targets.list()
    }

    /// Removes a small file. `false` when there was none.
    pub fn remove_target(&self, sha256: &Digest) -> Result<bool, StoreError> {
        self.inner.targets.remove(sha256)
    }

    /// Removes the small files that are not `named`, but for the `spare` newest of them. Returns how many.
    pub fn prune_targets(&self, named: &BTreeSet<Digest>, spare: usize) -> Result<usize, StoreError> {
        self.inner.targets.prune(named, spare)
    }

    /// The trusted metadata of `repository`.
    pub fn metadata(&self, repository: &Digest) -> Result<MetadataDir, StoreError> {
        MetadataDir::open(self.inner.root.join("metadata").join(repository.to_string()))
    }

    /// Bytes that the file system of the store offers this process.
    pub fn available_bytes(&self) -> Result<u64, StoreError> {
        fs4::available_space(&self.inner.root).map_err(|source| StoreError::io("measure", &self.inner.root, 0, source))
    }

    fn read_index<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.inner.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_index(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.inner.index.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn home(&self, artifact: &Digest) -> PathBuf {
        self.inner.root.join("artifacts").join(artifact.to_string())
    }

    fn staging(&self) -> Result<TempDir, StoreError> {
        self.temp_dir()
            .map_err(|source| StoreError::io("create a directory in", &self.inner.root.join("tmp"), 0, source))
    }

    /// The artifact held under this very manifest. An error where it is complete under another.
    fn usable(&self, manifest: &Manifest) -> Result<Option<Arc<Artifact>>, StoreError> {
        match self.get(manifest.artifact()) {
            Some(existing) if existing.manifest() == manifest => Ok(Some(existing)),
            Some(existing) if existing.is_complete() => {
                Err(StoreError::ManifestConflict { artifact: *manifest.artifact() })
            }
            _ => Ok(None),
        }
    }

    /// Completes `staged`, which has the data, and makes it the artifact's directory.
    fn put_in_place(
        &self,
        staged: TempDir,
        manifest: &Manifest,
        pieces: Bitmap,
        recoverable: bool,
    ) -> Result<Arc<Artifact>, StoreError> {
        let home = self.home(manifest.artifact());
        let encoded = manifest.encode();
        let have = Have { manifest: Digest::of(&encoded), pieces: pieces.clone() }.encode();
        for (name, bytes) in [("manifest", &encoded), ("have", &have)] {
            let path = staged.path().join(name);
            atomic::write(&path, bytes, 0o600)
                .map_err(|source| StoreError::io("write", &path, bytes.len() as u64, source))?;
        }
        let replaced = self.take_away(manifest.artifact())?;
        atomic::rename(staged.path(), &home).map_err(|source| StoreError::io("create", &home, 0, source))?;
        // Nothing is left at its path.
        let _ = staged.keep();
        let artifact = Artifact::new(manifest.clone(), home, pieces, recoverable, None, Arc::clone(&self.inner.shared));
        let artifact = Arc::new(artifact);
        self.change_index(|index| index.add(Arc::clone(&artifact)));
        // What cannot be deleted now is deleted with all of `tmp` at the next start.
        drop(replaced);
        Ok(artifact)
    }

    /// Moves what there is of `artifact`, listed or not, into a directory of `tmp` to be deleted.
    fn take_away(&self, artifact: &Digest) -> Result<Option<TempDir>, StoreError> {
        let home = self.home(artifact);
        let junk = self.staging()?;
        let moved = || match atomic::rename(&home, &junk.path().join("removed")) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        let was_there = match self.get(artifact) {
            Some(listed) => listed.retire(moved).map(|_| true),
            None => moved(),
        }
        .map_err(|source| StoreError::io("remove", &home, 0, source))?;
        self.change_index(|index| index.remove(artifact));
        Ok(was_there.then_some(junk))
    }
}

impl Index {
    fn add(&mut self, artifact: Arc<Artifact>) {
        let digest = *artifact.manifest().artifact();
        self.by_manifest.insert(*artifact.manifest_digest(), digest);
        self.by_artifact.insert(digest, artifact);
    }

    fn remove(&mut self, artifact: &Digest) {
        if let Some(gone) = self.by_artifact.remove(artifact) {
            self.by_manifest.remove(gone.manifest_digest());
        }
    }
}

#[cfg(test)]
mod tests;
