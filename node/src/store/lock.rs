//! The lock on a data directory: one node at a time.
//!
//! The kernel's lock on the open file counts, not the file's existence, so that a killed node
//! leaves nothing to clean up. The file is written in place, unlike all other state: replacing it
//! would give a second node an unlocked file of the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::error::StoreError;

/// Bytes of the lock file that are read for a process id.
const MAX_PID_BYTES: u64 = 16;

/// Holds the lock until dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory` for this process.
    pub(super) fn acquire(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("lock");
        let failed = |source| StoreError::io("lock", &path, MAX_PID_BYTES, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: directory.to_owned(), pid: read_pid(&mut file).ok().flatten() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> io::Result<Option<u32>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(MAX_PID_BYTES).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_refused_and_told_the_pid_of_the_first() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = DirectoryLock::acquire(directory.path()).expect("nobody holds it");
        let error = DirectoryLock::acquire(directory.path()).expect_err("held");
        assert!(matches!(&error, StoreError::Locked { pid: Some(pid), .. } if *pid == std::process::id()));
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        DirectoryLock::acquire(directory.path()).expect("free again");
    }

    #[test]
    fn a_lock_file_left_by_a_killed_node_holds_nobody_up() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("lock"), "4294967295 and more than a pid\n").expect("written");
        let _held = DirectoryLock::acquire(directory.path()).expect("no process holds it");
        let text = std::fs::read_to_string(directory.path().join("lock")).expect("readable");
        assert_eq!(text, format!("{}\n", std::process::id()));
    }
}
