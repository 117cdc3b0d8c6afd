//! Small verified files kept by their digest: channel policies, release notes.
//!
//! A file is checked against its name when it is written and again when it is read, so that what
//! comes out is what went in.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use updraft_protocol::digest::Digest;

use super::error::StoreError;
use super::files;
use crate::atomic;

/// Bytes of one small target. Bounds memory while one is read; anything larger is an artifact.
pub const MAX_TARGET_BYTES: u64 = 1024 * 1024;

/// The directory of small targets.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) directory: PathBuf,
}

impl Targets {
    fn path(&self, sha256: &Digest) -> PathBuf {
        self.directory.join(sha256.to_string())
    }

    pub(super) fn put(&self, sha256: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(sha256);
        let found = Digest::of(bytes);
        if found != *sha256 {
            return Err(StoreError::Digest { expected: *sha256, found });
        }
        let length = bytes.len() as u64;
        if length > MAX_TARGET_BYTES {
            return Err(StoreError::TooLarge { path, found: length, limit: MAX_TARGET_BYTES });
        }
        if self.get(sha256).is_some() {
            return Ok(());
        }
        atomic::write(&path, bytes, 0o600).map_err(|source| StoreError::io("write", &path, length, source))
    }

    pub(super) fn get(&self, sha256: &Digest) -> Option<Vec<u8>> {
        let bytes = files::read_bounded(&self.path(sha256), MAX_TARGET_BYTES).ok().flatten()?;
        (Digest::of(&bytes) == *sha256).then_some(bytes)
    }

    pub(super) fn remove(&self, sha256: &Digest) -> Result<bool, StoreError> {
        let path = self.path(sha256);
        atomic::remove(&path).map_err(|source| StoreError::io("remove", &path, 0, source))
    }

    pub(super) fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let failed = |source| StoreError::io("list", &self.directory, 0, source);
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            digests.extend(name.to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        digests.sort_unstable();
        Ok(digests)
    }

    pub(super) fn prune(&self, named: &BTreeSet<Digest>, spare: usize) -> Result<usize, StoreError> {
        let mut others: Vec<_> = self
            .list()?
            .into_iter()
            .filter(|digest| !named.contains(digest))
            .map(|digest| (fs::metadata(self.path(&digest)).and_then(|found| found.modified()).ok(), digest))
            .collect();
        // The newest first; what has no time of its own goes before all that has one.
        others.sort_unstable_by(|one, other| other.cmp(one));
        let mut removed = 0;
        for (_, digest) in others.iter().skip(spare) {
            removed += usize::from(self.remove(digest)?);
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_that_the_digest_names_go_in_and_come_out() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let targets = Targets { directory: directory.path().to_owned() };
        let digest = Digest::of(b"policy");
        assert!(matches!(targets.put(&digest, b"other"), Err(StoreError::Digest { .. })));
        assert_eq!(targets.get(&digest), None);
        targets.put(&digest, b"policy").expect("stored");
        assert_eq!(targets.get(&digest).as_deref(), Some(b"policy".as_slice()));
        assert_eq!(targets.list().expect("listed"), [digest]);

        fs::write(targets.path(&digest), b"rotten").expect("written");
        assert_eq!(targets.get(&digest), None);
        targets.put(&digest, b"policy").expect("mended");
        assert_eq!(targets.get(&digest).as_deref(), Some(b"policy".as_slice()));
        assert!(targets.remove(&digest).expect("removed"));
        assert!(!targets.remove(&digest).expect("nothing left"));
    }

    #[test]
    fn pruning_spares_what_is_named_and_the_newest_of_the_rest() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let targets = Targets { directory: directory.path().to_owned() };
        let digests: Vec<Digest> = (0..10_u8)
            .map(|number| {
                let digest = Digest::of(&[number]);
                targets.put(&digest, &[number]).expect("stored");
                let file = fs::File::options().write(true).open(targets.path(&digest)).expect("there");
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + u64::from(number));
                file.set_modified(time).expect("a time");
                digest
            })
            .collect();
        let named = BTreeSet::from([digests[0], digests[1]]);
        assert_eq!(targets.prune(&named, 3).expect("pruned"), 5);
        let mut left: Vec<Digest> = [0, 1, 7, 8, 9].into_iter().map(|number: usize| digests[number]).collect();
        left.sort_unstable();
        assert_eq!(targets.list().expect("listed"), left);
        assert_eq!(targets.prune(&named, 3).expect("pruned"), 0);
    }

    #[test]
    fn an_artifact_is_no_small_target() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let targets = Targets { directory: directory.path().to_owned() };
        let bytes = vec![0; usize::try_from(MAX_TARGET_BYTES).expect("small") + 1];
        assert!(matches!(targets.put(&Digest::of(&bytes), &bytes), Err(StoreError::TooLarge { .. })));
    }
}
