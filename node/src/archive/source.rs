//! Reading an artifact file: every byte is counted, shown to a [`Tap`] (a hasher) and reported as
//! progress, and a file that changes meanwhile is found out.
//!
//! Decoders sit between this and the code that reads entries, and they pass errors through as
//! [`io::Error`]. [`Stop`] is what travels inside one when reading ends for a reason of ours.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use updraft_protocol::manifest::ManifestBuilder;

use super::hashing::BesideHasher;
use super::{ArchiveError, Progress};

/// Bytes read at a time.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 1024 * 1024;

/// Entries between two reports of progress.
const REPORT_ENTRIES: u64 = 64;

/// Reports progress, not too often, and learns whether to go on.
pub(super) struct Meter<'a> {
    report: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    now: Progress,
    reported: Progress,
}

impl<'a> Meter<'a> {
    pub(super) fn new(bytes_total: u64, report: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Self {
        let now = Progress { bytes_total, ..Progress::default() };
        Self { report, now, reported: now }
    }

    pub(super) fn bytes(&mut self, bytes: usize) -> Result<(), Stop> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.now.bytes_done = self.now.bytes_done.saturating_add(bytes).min(self.now.bytes_total);
        if self.now.bytes_done - self.reported.bytes_done < REPORT_BYTES { Ok(()) } else { self.say() }
    }

    pub(super) fn entry(&mut self) -> Result<(), Stop> {
        self.now.entries_done += 1;
        if self.now.entries_done - self.reported.entries_done < REPORT_ENTRIES { Ok(()) } else { self.say() }
    }

    /// Reports the present state, however little has happened.
    pub(super) fn say(&mut self) -> Result<(), Stop> {
        self.reported = self.now;
        match (self.report)(&self.now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Cancelled),
        }
    }

    /// Reports that all is done.
    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        self.now.bytes_done = self.now.bytes_total;
        self.say()
    }
}

/// Why reading stops early, carried through decoders inside an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("over {declared} bytes")]
    ContentTooLong { declared: u64 },
}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> Self {
        Self::other(stop)
    }
}

impl From<Stop> for ArchiveError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => Self::Cancelled,
            Stop::ContentTooLong { declared } => Self::ContentTooLong { declared, entry: None },
        }
    }
}

/// What an error while decoding `path` means: a stop of ours, the disk, an early end, or bad data.
pub(super) fn decode_error(path: &Path, error: io::Error) -> ArchiveError {
    if let Some(stop) = error.get_ref().and_then(|inner| inner.downcast_ref::<Stop>()) {
        return (*stop).into();
    }
    if error.raw_os_error().is_some() {
        return ArchiveError::io("read", path, error);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ArchiveError::Truncated(path.into());
    }
    ArchiveError::Corrupt { path: path.into(), detail: error.to_string() }
}

/// Sees the bytes of an artifact in order.
pub(super) trait Tap {
    fn see(&mut self, bytes: &[u8]);
}

impl Tap for ManifestBuilder {
    fn see(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }
}

const NS_PER_SECOND: i128 = 1_000_000_000;

/// What tells whether a file is still the one that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    mode: u32,
    size: i64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: stat.st_mode,
            size: stat.st_size,
            // The parts' types differ between machines; every one of them fits.
            modified_ns: i128::from(stat.st_mtime) * NS_PER_SECOND + i128::from(stat.st_mtime_nsec),
            changed_ns: i128::from(stat.st_ctime) * NS_PER_SECOND + i128::from(stat.st_ctime_nsec),
        }
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) fn mode(&self) -> u32 {
        self.mode
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or(0)
    }
}

/// An artifact file, opened for one reader.
#[derive(Debug)]
pub(super) struct Artifact {
    path: PathBuf,
    file: File,
    stamp: Stamp,
}

impl Artifact {
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        // Opening a fifo would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = fs::open(path, flags, Mode::empty()).map_err(|errno| ArchiveError::io("open", path, errno))?;
        let stat = fs::fstat(&file).map_err(|errno| ArchiveError::io("inspect", path, errno))?;
        let (file, stamp) = (File::from(file), Stamp::of(&stat));
        if stamp.file_type() != FileType::RegularFile {
            return Err(ArchiveError::NotAFile(path.into()));
        }
        if stamp.size() == 0 {
            return Err(ArchiveError::EmptyFile(path.into()));
        }
        Ok(Self { path: path.into(), file, stamp })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn length(&self) -> u64 {
        self.stamp.size()
    }

    /// Fails where the file is no longer what it was when it was opened.
    pub(super) fn require_unchanged(&self) -> Result<(), ArchiveError> {
        match fs::fstat(&self.file) {
            Ok(stat) if Stamp::of(&stat) == self.stamp => Ok(()),
            Ok(_) => Err(ArchiveError::Changed(self.path.clone())),
            Err(errno) => Err(ArchiveError::io("inspect", &self.path, errno)),
        }
    }
}

/// The bytes of an artifact, from first to last.
pub(super) struct Tapped<'a, 'm, T> {
    file: &'a File,
    tap: &'a mut T,
    meter: &'a RefCell<Meter<'m>>,
}

impl<'a, 'm, T: Tap> Tapped<'a, 'm, T> {
    pub(super) fn new(artifact: &'a Artifact, tap: &'a mut T, meter: &'a RefCell<Meter<'m>>) -> Self {
        Self { file: artifact.file(), tap, meter }
    }

    /// Reads what is left, for its digest.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        while read_some(self, &mut block)? > 0 {}
        Ok(())
    }
}

impl<T: Tap> Read for Tapped<'_, '_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.tap.see(&buffer[..read]);
        self.meter.borrow_mut().bytes(read)?;
        Ok(read)
    }
}

/// Unpacked bytes: hashed, counted, and cut off where there are more than were declared.
pub(super) struct Content<R> {
    inner: R,
    hasher: BesideHasher,
    length: u64,
    limit: Option<u64>,
}

impl<R: Read> Content<R> {
    pub(super) fn new(inner: R, limit: Option<u64>) -> Self {
        Self { inner, hasher: BesideHasher::new(), length: 0, limit }
    }

    pub(super) fn finish(self) -> (updraft_protocol::digest::Digest, u64) {
        (self.hasher.finish(), self.length)
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.length = self.length.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if let Some(declared) = self.limit.filter(|limit| self.length > *limit) {
            return Err(Stop::ContentTooLong { declared }.into());
        }
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// One read that is not disturbed by signals.
pub(super) fn read_some(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
