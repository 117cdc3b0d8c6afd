//! Looking at a node's directory without its lock: what commands need that only read, whether or not
//! the node runs.
//!
//! Metadata files are replaced atomically and the timestamp last, so that a reader finds one whole
//! set, the old or the new. Nothing here writes.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::limits::{MAX_CHANNEL_FILE_BYTES, MAX_ROOT_BYTES, MAX_ROOT_ROTATIONS, MAX_TARGETS_BYTES};
use updraft_protocol::tuf::RepositoryId;

use super::open::{OpenError, wall_clock};
use crate::engine::catalog::{CatalogView, load_view};
use crate::engine::memory::Memory;

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// There is no repository, or what is stored of it does not verify.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A repository as a node's directory holds it.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The repository.
    pub repository: RepositoryId,
    /// The exact files of the root chain, oldest first.
    pub roots: Vec<Vec<u8>>,
    /// The signed set.
    pub view: Arc<CatalogView>,
}

fn read_bounded(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(most.saturating_add(1)).read_to_end(&mut bytes).ok()?;
    u64::try_from(bytes.len()).is_ok_and(|length| length <= most).then_some(bytes)
}

/// The repository that the directory of a node holds; `None` where it belongs to none.
pub fn look(data_dir: &Path) -> Result<Option<Inspected>, InspectError> {
    let metadata = data_dir.join("metadata");
    let entries = match fs::read_dir(&metadata) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| InspectError::Io { path: metadata.clone(), source })?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<Digest>().ok());
    let Some(repository) = names.map(RepositoryId).min() else { return Ok(None) };
    let directory = metadata.join(repository.to_string());
    let read = |name: &str| {
        let most = if name.ends_with(".root.json") { MAX_ROOT_BYTES } else { MAX_TARGETS_BYTES };
        read_bounded(&directory.join(name), most)
    };
    let target =
        |sha256: &Digest| read_bounded(&data_dir.join("targets").join(sha256.to_string()), MAX_CHANNEL_FILE_BYTES);
    let view =
        load_view(repository, None, &read, &target, Memory::default(), wall_clock()).map_err(OpenError::Catalog)?;
    let Some(view) = view else { return Ok(None) };
    let last = view.trusted.root().version.min(u64::from(MAX_ROOT_ROTATIONS) + 1);
    let roots = (1..=last).map_while(|version| read(&format!("{version}.root.json"))).collect();
    Ok(Some(Inspected { repository, roots, view }))
}

/// As [`look`], for whoever cannot do without.
pub fn repository(data_dir: &Path) -> Result<Inspected, InspectError> {
    look(data_dir)?.ok_or_else(|| InspectError::Open(OpenError::NoRepository(data_dir.to_owned())))
}
