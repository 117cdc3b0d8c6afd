//! Positional file access, room on disk, and a bounded set of open files.
//!
//! This is the seam to the operating system: nothing else in the store knows which one it is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open files kept for reading: what is served at one time are the newest few releases, and opening another
/// costs microseconds. Bounds descriptors on a mirror that holds thousands of artifacts.
const MAX_OPEN_FILES: usize = 8;

/// Locks `mutex`. A thread that panicked inside left consistent state behind: every critical
/// section of the store changes its fields together at its end.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether data files get their blocks on disk before the first byte arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// Reserve the whole length: a full disk shows at the start, not at the last piece. File
    /// systems that cannot reserve get a sparse file after a look at the free space.
    #[default]
    Reserve,
    /// Reserve nothing: blocks are taken as pieces arrive.
    Sparse,
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a new private file of `length` bytes at `path`.
pub(super) fn create_data(path: &Path, length: u64, allocation: Allocation) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    if allocation == Allocation::Reserve {
        reserve(&file, path, length)?;
    }
    // Where the file system could not reserve, or has a granularity of its own.
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    file.sync_all()
}

fn reserve(file: &File, path: &Path, length: u64) -> io::Result<()> {
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    // Asked first, because some file systems fill the disk before they notice.
    if fs4::available_space(path.parent().unwrap_or(path)).is_ok_and(|available| available < length) {
        return Err(full());
    }
    loop {
        match fs4::FileExt::allocate(file, length) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => {
                return Ok(());
            }
            other => return other,
        }
    }
}

/// The bytes of the file at `path`, `None` when there is none. Reads at most `limit` bytes: a longer
/// file is the error `FileTooLarge`.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// Files open for reading, the most recently used of them, by a number of their owner.
#[derive(Debug, Default)]
pub(super) struct ReadFiles {
    /// Least recently used first.
    open: Mutex<Vec<(u64, Arc<File>)>>,
}

impl ReadFiles {
    /// The file of `owner`, opened at `path` unless it still is.
    pub(super) fn get(&self, owner: u64, path: &Path) -> io::Result<Arc<File>> {
        let mut open = lock(&self.open);
        if let Some(at) = open.iter().rposition(|(id, _)| *id == owner) {
            let entry = open.remove(at);
            let file = Arc::clone(&entry.1);
            open.push(entry);
            return Ok(file);
        }
        let file = Arc::new(File::open(path)?);
        if open.len() >= MAX_OPEN_FILES {
            open.remove(0);
        }
        open.push((owner, Arc::clone(&file)));
        Ok(file)
    }

    /// Closes the file of `owner`.
    pub(super) fn close(&self, owner: u64) {
        lock(&self.open).retain(|(id, _)| *id != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_bounded_and_still_all_readable() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = ReadFiles::default();
        for round in 0..2 {
            for owner in 0..200u64 {
                let path = directory.path().join(owner.to_string());
                if round == 0 {
                    std::fs::write(&path, [u8::try_from(owner).expect("small")]).expect("written");
                }
                let mut byte = [0];
                read_exact_at(&files.get(owner, &path).expect("opened"), &mut byte, 0).expect("read");
                assert_eq!(u64::from(byte[0]), owner);
            }
        }
        assert_eq!(lock(&files.open).len(), MAX_OPEN_FILES);
    }

    #[test]
    fn an_absurd_length_is_a_full_disk() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("data");
        let error = create_data(&path, 1 << 60, Allocation::Reserve).expect_err("no disk is that large");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, [7; 10]).expect("written");
        assert_eq!(read_bounded(&path, 10).expect("read"), Some(vec![7; 10]));
        assert_eq!(read_bounded(&path, 9).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_bounded(&directory.path().join("none"), 9).expect("no file"), None);
    }
}
