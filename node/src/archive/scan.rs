//! Listing the tree that is to be packed, before any of it is read.
//!
//! The list is what makes a pack trustworthy: every entry passes the guard before the first byte is
//! compressed, and each carries a [`Stamp`], so that a tree that changed between the listing and the
//! last byte is found out: files, links and directories are all looked at again at the end
//! ([`Plan::require_unchanged`]), and an entry that was added or removed changes its directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::ArchiveError;
use super::entry::{Admitted, Kind, MAX_DEPTH, MAX_ENTRIES, RelPath};
use super::guard::EntryGuard;
use super::source::Stamp;

/// An entry to pack.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) entry: Admitted,
    pub(super) stamp: Stamp,
}

/// A tree to pack, in the order of packing.
#[derive(Debug)]
pub(super) struct Plan {
    path: PathBuf,
    root: OwnedFd,
    root_stamp: Stamp,
    /// Sorted by path, byte by byte: a directory comes before what it holds.
    pub(super) entries: Vec<Planned>,
    /// Bytes of all files.
    pub(super) bytes: u64,
}

/// What was seen of an entry, not yet checked.
struct Listed {
    path: Vec<u8>,
    stamp: Stamp,
    target: Option<Vec<u8>>,
}

impl Plan {
    /// Lists the tree at `path`. Symbolic links inside it are not followed.
    pub(super) fn scan(path: &Path) -> Result<Self, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            fs::open(path, flags, Mode::empty()).map_err(|errno| ArchiveError::io("open directory", path, errno))?;
        let stat = fs::fstat(&root).map_err(|errno| ArchiveError::io("inspect", path, errno))?;
        let mut listed = Vec::new();
        Lister { root: path, listed: &mut listed }.list(root.as_fd(), &mut Vec::new(), 0)?;
        if listed.is_empty() {
            return Err(ArchiveError::EmptyDirectory(path.into()));
        }
        listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut guard = EntryGuard::new();
        let mut bytes = 0_u64;
        let mut entries = Vec::with_capacity(listed.len());
        for Listed { path, stamp, target } in listed {
            let kind = kind_of(stamp.file_type());
            let size = if kind == Kind::File { stamp.size() } else { 0 };
            let entry = guard.admit(&path, kind, stamp.mode() & 0o7777, size, target.as_deref())?;
            bytes = bytes.saturating_add(size);
            entries.push(Planned { entry, stamp });
        }
        Ok(Self { path: path.into(), root, root_stamp: Stamp::of(&stat), entries, bytes })
    }

    /// Opens a planned file, and makes sure that it is the one that was listed.
    pub(super) fn open(&self, planned: &Planned) -> Result<File, ArchiveError> {
        let path = planned.entry.path.as_path();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(&self.root, path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                return Err(self.changed(&planned.entry.path));
            }
            Err(errno) => return Err(self.error("open", &planned.entry.path, errno)),
        };
        self.require_same(planned, &file)?;
        Ok(file)
    }

    /// Fails where `file` is no longer as it was listed.
    pub(super) fn require_same(&self, planned: &Planned, file: &File) -> Result<(), ArchiveError> {
        let stat = fs::fstat(file).map_err(|errno| self.error("inspect", &planned.entry.path, errno))?;
        if Stamp::of(&stat) == planned.stamp { Ok(()) } else { Err(self.changed(&planned.entry.path)) }
    }

    /// Looks at every entry again, and at the root.
    pub(super) fn require_unchanged(&self) -> Result<(), ArchiveError> {
        for planned in &self.entries {
            let path = &planned.entry.path;
            match fs::statat(&self.root, path.as_path(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if Stamp::of(&stat) == planned.stamp => {}
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Err(self.changed(path)),
                Err(errno) => return Err(self.error("inspect", path, errno)),
            }
        }
        let stat = fs::fstat(&self.root).map_err(|errno| ArchiveError::io("inspect", &self.path, errno))?;
        if Stamp::of(&stat) == self.root_stamp { Ok(()) } else { Err(ArchiveError::Changed(self.path.clone())) }
    }

    pub(super) fn changed(&self, path: &RelPath) -> ArchiveError {
        ArchiveError::Changed(self.path.join(path.as_path()))
    }

    pub(super) fn error(&self, action: &'static str, path: &RelPath, cause: impl Into<io::Error>) -> ArchiveError {
        ArchiveError::io(action, self.path.join(path.as_path()), cause)
    }
}

struct Lister<'a> {
    root: &'a Path,
    listed: &'a mut Vec<Listed>,
}

impl Lister<'_> {
    /// Lists `directory`, whose path is `prefix`, and all below it.
    fn list(&mut self, directory: BorrowedFd<'_>, prefix: &mut Vec<u8>, depth: usize) -> Result<(), ArchiveError> {
        // The guard refuses what lies too deep or is too much, by name; here it is only not gone into.
        let too_much = |listed: &[Listed]| u64::try_from(listed.len()).unwrap_or(u64::MAX) > MAX_ENTRIES;
        let entries = Dir::read_from(directory).map_err(|errno| self.error("list", prefix, errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| self.error("list", prefix, errno))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || too_much(self.listed) {
                continue;
            }
            let length = prefix.len();
            if length > 0 {
                prefix.push(b'/');
            }
            prefix.extend_from_slice(name);
            self.one(directory, name, prefix, depth)?;
            prefix.truncate(length);
        }
        Ok(())
    }

    fn one(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error("inspect", path, errno))?;
        let stamp = Stamp::of(&stat);
        let target = match stamp.file_type() {
            FileType::Symlink => {
                let target = fs::readlinkat(directory, name, Vec::new());
                Some(target.map_err(|errno| self.error("read link", path, errno))?.into_bytes())
            }
            _ => None,
        };
        self.listed.push(Listed { path: path.clone(), stamp, target });
        if stamp.file_type() == FileType::Directory && depth < MAX_DEPTH {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = fs::openat(directory, name, flags, Mode::empty())
                .map_err(|errno| self.error("open directory", path, errno))?;
            self.list(inner.as_fd(), path, depth + 1)?;
        }
        Ok(())
    }

    fn error(&self, action: &'static str, path: &[u8], cause: impl Into<io::Error>) -> ArchiveError {
        ArchiveError::io(action, self.root.join(OsStr::from_bytes(path)), cause)
    }
}

fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Unsupported("a fifo"),
        FileType::Socket => Kind::Unsupported("a socket"),
        FileType::CharacterDevice => Kind::Unsupported("a character device"),
        FileType::BlockDevice => Kind::Unsupported("a block device"),
        FileType::Unknown => Kind::Unsupported("of a type unknown to Unix"),
    }
}
