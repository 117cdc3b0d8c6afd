//! Trusted metadata of one repository: exact signed bytes in files, replaced atomically.
//!
//! The store takes and gives bytes; whether they may be trusted is decided when they are read, from
//! the pinned root on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use updraft_protocol::names::is_windows_reserved;

use super::error::StoreError;
use super::files;
use crate::atomic;

/// Bytes of a metadata file name: what file systems take.
const MAX_FILE_NAME_BYTES: usize = 255;

/// The directory of one repository's metadata.
#[derive(Debug, Clone)]
pub struct MetadataDir {
    directory: PathBuf,
}

fn is_name(name: &str) -> bool {
    (1..=MAX_FILE_NAME_BYTES).contains(&name.len())
        && !name.starts_with('.')
        && !name.ends_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte))
        && !is_windows_reserved(name)
}

impl MetadataDir {
    pub(super) fn open(directory: PathBuf) -> Result<Self, StoreError> {
        super::create_dir(&directory)?;
        Ok(Self { directory })
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The path of the file `name`: `3.root.json`, `timestamp.json`, `role%2Fname.json`.
    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        if is_name(name) {
            Ok(self.directory.join(name))
        } else {
            Err(StoreError::Name { name: name.chars().take(80).collect() })
        }
    }

    /// Replaces the file `name` by `bytes`, durably and atomically.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.file(name)?;
        atomic::write(&path, bytes, 0o600).map_err(|source| StoreError::io("write", &path, bytes.len() as u64, source))
    }

    /// The bytes of the file `name`, `None` when there is none. A file over `max_bytes` is
    /// [`StoreError::TooLarge`] and is not read in full.
    pub fn get(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.file(name)?;
        files::read_bounded(&path, max_bytes).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => {
                let found = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                StoreError::TooLarge { path, found, limit: max_bytes }
            }
            _ => StoreError::io("read", &path, 0, source),
        })
    }

    /// Removes the file `name`, durably. `false` when there was none.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.file(name)?;
        atomic::remove(&path).map_err(|source| StoreError::io("remove", &path, 0, source))
    }

    /// Names of all files, sorted.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        let failed = |source| StoreError::io("list", &self.directory, 0, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().filter(|name| is_name(name)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> (tempfile::TempDir, MetadataDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let metadata = MetadataDir::open(directory.path().join("metadata")).expect("opened");
        (directory, metadata)
    }

    #[test]
    fn files_come_back_as_they_were_put() {
        let (_directory, metadata) = metadata();
        for name in ["timestamp.json", "3.root.json", "role%2Fname.json"] {
            metadata.put(name, b"first").expect("put");
            metadata.put(name, name.as_bytes()).expect("replaced");
            assert_eq!(metadata.get(name, 100).expect("read").as_deref(), Some(name.as_bytes()));
        }
        assert_eq!(metadata.list().expect("listed"), ["3.root.json", "role%2Fname.json", "timestamp.json"]);
        assert!(metadata.remove("3.root.json").expect("removed"));
        assert_eq!(metadata.get("3.root.json", 100).expect("read"), None);
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        let (_directory, metadata) = metadata();
        let long = "x".repeat(256);
        for name in
            ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".updraft-tmp-1", "a\0", "nul.json", "ü", &long]
        {
            assert!(matches!(metadata.put(name, b"x"), Err(StoreError::Name { .. })), "{name}");
            assert!(metadata.get(name, 1).is_err(), "{name}");
            assert!(metadata.remove(name).is_err(), "{name}");
        }
        metadata.put(&"x".repeat(255), b"x").expect("the longest name can be put");
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let (_directory, metadata) = metadata();
        metadata.put("snapshot.json", &[7; 11]).expect("put");
        let error = metadata.get("snapshot.json", 10).expect_err("too large");
        assert!(matches!(error, StoreError::TooLarge { found: 11, limit: 10, .. }));
    }
}
