//! Placing checked entries in the staging directory.
//!
//! Every name is created relative to the open descriptor of its directory, and a directory is opened
//! without following links, one component at a time. So nothing leaves the staging directory
//! even where the guard had a hole or someone else wrote there: what exists already is an error, never
//! overwritten, and links are created after everything else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::ArchiveError;
use super::entry::{Admitted, Object, RelPath};
use super::source::{BLOCK_BYTES, read_some};
use super::walk::{Sink, SinkError};

/// The mode of directories and executables.
const OPEN_MODE: Mode = Mode::from_raw_mode(0o755);

/// The mode of other files.
const DATA_MODE: Mode = Mode::from_raw_mode(0o644);

/// A staging directory being filled.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    root: OwnedFd,
    /// The directories from the root down to the one used last: entries come in runs.
    open: Vec<(Box<[u8]>, OwnedFd)>,
    links: Vec<(RelPath, Box<[u8]>)>,
    block: Vec<u8>,
    placed: u64,
}

impl Staging {
    /// Opens the directory at `path`, which must be empty.
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty())
            .map_err(|errno| ArchiveError::io("open staging directory", path, errno))?;
        for entry in Dir::read_from(&root).map_err(|errno| ArchiveError::io("list", path, errno))? {
            let entry = entry.map_err(|errno| ArchiveError::io("list", path, errno))?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                return Err(ArchiveError::StagingNotEmpty(path.into()));
            }
        }
        let block = vec![0; BLOCK_BYTES];
        Ok(Self { path: path.into(), root, open: Vec::new(), links: Vec::new(), block, placed: 0 })
    }

    /// Creates the symbolic links, and returns once the whole tree is on stable storage.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        for (path, target) in std::mem::take(&mut self.links) {
            let (directory, name) = path.split();
            let target = OsStr::from_bytes(&target);
            let made = fs::symlinkat(target, self.directory(directory)?, name);
            made.map_err(|errno| self.error("create link", &path, errno))?;
        }
        self.open.clear();
        super::durable::sync_tree(&self.root, self.placed)
            .map_err(|error| ArchiveError::io("write to stable storage", &self.path, error))
    }

    /// The directory at `path`, made if it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, ArchiveError> {
        let wanted: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let shared = self.open.iter().zip(&wanted).take_while(|((open, _), name)| **open == ***name).count();
        self.open.truncate(shared);
        for name in &wanted[shared..] {
            let parent = self.open.last().map_or(self.root.as_fd(), |(_, descriptor)| descriptor.as_fd());
            let descriptor =
                open_directory(parent, name).map_err(|errno| self.path_error("create directory", path, errno))?;
            self.open.push(((*name).into(), descriptor));
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |(_, descriptor)| descriptor.as_fd()))
    }

    fn file(&mut self, path: &RelPath, executable: bool, data: &mut dyn Read) -> Result<(), SinkError> {
        let (directory, name) = path.split();
        let mode = if executable { OPEN_MODE } else { DATA_MODE };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = fs::openat(self.directory(directory)?, name, flags, mode);
        let mut file = File::from(created.map_err(|errno| self.error("create", path, errno))?);
        // The umask took bits away; the mode of an installed file does not depend on it.
        fs::fchmod(&file, mode).map_err(|errno| self.error("set the mode of", path, errno))?;
        loop {
            let read = read_some(data, &mut self.block).map_err(SinkError::Data)?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(&self.block[..read]).map_err(|error| self.error("write", path, error))?;
        }
    }

    fn hard_link(&mut self, path: &RelPath, target: &RelPath) -> Result<(), ArchiveError> {
        let (target_directory, target_name) = target.split();
        let from = self.directory(target_directory)?.try_clone_to_owned();
        let from = from.map_err(|error| self.error("open the directory of", target, error))?;
        let (directory, name) = path.split();
        let linked = fs::linkat(from, target_name, self.directory(directory)?, name, AtFlags::empty());
        linked.map_err(|errno| self.error("create hard link", path, errno))
    }

    fn error(&self, action: &'static str, path: &RelPath, cause: impl Into<io::Error>) -> ArchiveError {
        self.path_error(action, path.as_bytes(), cause)
    }

    fn path_error(&self, action: &'static str, path: &[u8], cause: impl Into<io::Error>) -> ArchiveError {
        ArchiveError::io(action, self.path.join(OsStr::from_bytes(path)), cause)
    }
}

impl Sink for Staging {
    fn take(&mut self, entry: Admitted, data: &mut dyn Read) -> Result<(), SinkError> {
        self.placed += 1;
        match entry.object {
            Object::Directory => {
                self.directory(entry.path.as_bytes())?;
            }
            Object::File { executable, .. } => self.file(&entry.path, executable, data)?,
            Object::Symlink { target } => self.links.push((entry.path, target)),
            Object::HardLink { target } => self.hard_link(&entry.path, &target)?,
        }
        Ok(())
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let made = match fs::mkdirat(parent, name, OPEN_MODE) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = fs::openat(parent, name, flags, Mode::empty())?;
    if made {
        fs::fchmod(&descriptor, OPEN_MODE)?;
    }
    Ok(descriptor)
}
