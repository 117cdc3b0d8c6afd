//! Placing checked entries in the staging directory.
//!
//! Every name is created relative to the descriptor of its directory, which [`beneath`] opens for it, and
//! which leaves the staging directory through nothing. So a tree stays inside even where
//! the guard had a hole or somebody else writes there at the same time: what exists already is an error,
//! never overwritten, and links are created after everything else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{Admitted, Object, RelPath};
use super::source::{BLOCK_BYTES, read_some};
use super::walk::{Sink, SinkError};
use super::{ArchiveError, beneath};
use crate::atomic::steps::{Step, tell};

/// The mode of directories and executables.
const OPEN_MODE: Mode = Mode::from_raw_mode(0o755);

/// The mode of other files.
const DATA_MODE: Mode = Mode::from_raw_mode(0o644);

/// A staging directory being filled.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    root: OwnedFd,
    /// Names of the directories from the root down to the one used last, which were made: entries come in
    /// runs. Only names: an open directory may have been moved out.
    made: Vec<Box<[u8]>>,
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
        Ok(Self { path: path.into(), root, made: Vec::new(), links: Vec::new(), block, placed: 0 })
    }

    /// Creates the symbolic links, and returns once the whole tree is on stable storage.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        for (path, target) in std::mem::take(&mut self.links) {
            self.directory(path.split().0)?;
            let target = OsStr::from_bytes(&target);
            let made = fs::symlinkat(target, self.parent(&path)?, path.split().1);
            made.map_err(|errno| self.error("create link", &path, errno))?;
            tell(|| Step::Symlink { path: self.full(path.as_bytes()), target: target.into() });
        }
        fs::fchmod(&self.root, OPEN_MODE).map_err(|errno| ArchiveError::io("set the mode of", &self.path, errno))?;
        super::durable::sync_tree(&self.root, self.placed)
            .map_err(|error| ArchiveError::io("write to stable storage", &self.path, error))?;
        tell(|| Step::SyncTree(self.path.clone()));
        Ok(())
    }

    /// Makes the directory at `path` if it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<(), ArchiveError> {
        let wanted: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let shared = self.made.iter().zip(&wanted).take_while(|(made, name)| ***made == ***name).count();
        self.made.truncate(shared);
        // The names and the slashes between them.
        let mut end = wanted[..shared].iter().map(|name| name.len() + 1).sum::<usize>().saturating_sub(1);
        for (at, name) in wanted.iter().enumerate().skip(shared) {
            let parent = &path[..end];
            end += name.len() + usize::from(at > 0);
            self.make_directory(parent, &path[..end], name)
                .map_err(|errno| self.path_error("create directory", path, errno))?;
            self.made.push((*name).into());
        }
        Ok(())
    }

    fn file(&mut self, path: &RelPath, executable: bool, data: &mut dyn Read) -> Result<(), SinkError> {
        self.directory(path.split().0)?;
        let mode = if executable { OPEN_MODE } else { DATA_MODE };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let created = beneath::open(self.root.as_fd(), path.as_bytes(), flags, mode);
        let mut file = File::from(created.map_err(|errno| self.error("create", path, errno))?);
        tell(|| Step::CreateFile(self.full(path.as_bytes())));
        // The umask took bits away; the mode of an installed file does not depend on it.
        fs::fchmod(&file, mode).map_err(|errno| self.error("set the mode of", path, errno))?;
        loop {
            let read = read_some(data, &mut self.block).map_err(SinkError::Data)?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(&self.block[..read]).map_err(|error| self.error("write", path, error))?;
            tell(|| Step::Append { path: self.full(path.as_bytes()), bytes: &self.block[..read] });
        }
    }

    fn hard_link(&mut self, path: &RelPath, target: &RelPath) -> Result<(), ArchiveError> {
        self.directory(path.split().0)?;
        let (from, to) = (self.parent(target)?, self.parent(path)?);
        let linked = fs::linkat(from, target.split().1, to, path.split().1, AtFlags::empty());
        linked.map_err(|errno| self.error("create hard link", path, errno))?;
        tell(|| Step::HardLink { from: self.full(target.as_bytes()), to: self.full(path.as_bytes()) });
        Ok(())
    }

    /// The directory that `path` lies in, which exists.
    fn parent(&self, path: &RelPath) -> Result<OwnedFd, ArchiveError> {
        self.find(path.split().0).map_err(|errno| self.error("open the directory of", path, errno))
    }

    /// The directory at `path`, as it is found from the root now: one that somebody moved out is not found.
    fn find(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        if path.is_empty() {
            return fs::openat(&self.root, ".", flags | OFlags::CLOEXEC, Mode::empty());
        }
        beneath::open(self.root.as_fd(), path, flags, Mode::empty())
    }

    /// Makes the directory called `name` at `path`, in `parent`, unless it is there.
    fn make_directory(&self, parent: &[u8], path: &[u8], name: &[u8]) -> Result<(), Errno> {
        let made = match fs::mkdirat(self.find(parent)?, name, OPEN_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = beneath::open(self.root.as_fd(), path, flags, Mode::empty())?;
        if made {
            tell(|| Step::MakeDir(self.full(path)));
            fs::fchmod(&directory, OPEN_MODE)?;
        }
        Ok(())
    }

    /// The path of an entry, for people and for [`Step`]s only.
    fn full(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn error(&self, action: &'static str, path: &RelPath, cause: impl Into<io::Error>) -> ArchiveError {
        self.path_error(action, path.as_bytes(), cause)
    }

    fn path_error(&self, action: &'static str, path: &[u8], cause: impl Into<io::Error>) -> ArchiveError {
        ArchiveError::io(action, self.full(path), cause)
    }
}

impl Sink for Staging {
    fn take(&mut self, entry: Admitted, data: &mut dyn Read) -> Result<(), SinkError> {
        self.placed += 1;
        match entry.object {
            Object::Directory => self.directory(entry.path.as_bytes())?,
            Object::File { executable, .. } => self.file(&entry.path, executable, data)?,
            Object::Symlink { target } => self.links.push((entry.path, target)),
            Object::HardLink { target } => self.hard_link(&entry.path, &target)?,
        }
        Ok(())
    }
}
