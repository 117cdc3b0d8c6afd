//! Trusted metadata on disk: `ROLE.json` each, byte for byte as received, replaced atomically.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use updraft::atomic;
use updraft_protocol::tuf::RoleName;

/// A directory of trusted metadata. One process at a time.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens the directory and removes what a killed process left behind.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        atomic::remove_leftovers(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Creates the directory where there is none.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// The role's file. No name leads elsewhere: what could is percent-encoded.
    fn path(&self, role: &RoleName) -> PathBuf {
        self.0.join(format!("{}.json", role.file_stem()))
    }

    /// The role's file, if there is one of at most `limit` bytes.
    pub(super) fn read(&self, role: &RoleName, limit: u64) -> Option<Vec<u8>> {
        read_bounded(&self.path(role), limit).ok()
    }

    pub(super) fn write(&self, role: &RoleName, bytes: &[u8]) -> io::Result<()> {
        atomic::write(&self.path(role), bytes, 0o644)
    }

    pub(super) fn remove(&self, role: &RoleName) -> io::Result<()> {
        atomic::remove(&self.path(role)).map(drop)
    }
}

/// A whole file of at most `limit` bytes.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> RoleName {
        name.parse().expect("a role name")
    }

    #[test]
    fn no_role_name_leaves_the_directory() {
        let folder = Folder(PathBuf::from("/m"));
        for name in ["..", ".", "/", "/etc/passwd", "../../x", "a/../../x", "a\\b", "\0", "root"] {
            let path = folder.path(&role(name));
            assert_eq!(path.parent(), Some(Path::new("/m")), "{name:?}: {}", path.display());
            assert!(path.file_name().is_some_and(|file| file.len() > ".json".len()), "{name:?}");
        }
    }

    #[test]
    fn distinct_roles_have_distinct_files() {
        let folder = Folder(PathBuf::from("/m"));
        assert_ne!(folder.path(&role("a/b")), folder.path(&role("a%2Fb")));
        assert_ne!(folder.path(&role("root")), folder.path(&role("/root")));
    }

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = Folder::create(&directory.path().join("a/b")).expect("created");
        assert_eq!(folder.read(&role("x"), 10), None);
        folder.write(&role("x"), b"0123456789").expect("written");
        assert_eq!(folder.read(&role("x"), 10).as_deref(), Some(&b"0123456789"[..]));
        assert_eq!(folder.read(&role("x"), 9), None);
        folder.remove(&role("x")).expect("removed");
        folder.remove(&role("x")).expect("removed already");
        assert_eq!(folder.read(&role("x"), 10), None);
    }
}
