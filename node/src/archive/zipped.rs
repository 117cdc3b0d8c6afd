//! Zip archives. What two readers could understand differently is refused: equal names, entries that
//! share data, a local header that disagrees with its central one.
//!
//! A zip artifact is its own content, so no signed number bounds what it unpacks to. Instead the sum of
//! its entries is bounded by [`expansion_limit`], for publishing and installing alike: deflate reaches
//! 1032:1 on zeros, and entries may share data, so a small zip can claim any size at all.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, System, ZipArchive, ZipReadOptions};

use super::ArchiveError;
use super::entry::{Kind, MAX_TARGET_BYTES, shown};
use super::source::Meter;
use super::walk::Reading;

/// Unpacked bytes per byte of a zip. Real ones stay under 20; bounds decompression bombs.
const MAX_EXPANSION: u64 = 200;

/// Unpacked bytes that any zip may reach, so that small ones with much repetition pass.
const FREE_EXPANSION_BYTES: u64 = 16 * 1024 * 1024;

/// Unpacked bytes that no zip may exceed: the largest artifact there is (1 TiB).
const MAX_UNPACKED_BYTES: u64 = 1 << 40;

/// Bytes of the central directory. Bounds the index that is built of it, about nine times its size at
/// worst; room for some 600,000 entries.
const MAX_DIRECTORY_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes read at a time. Small, for each entry begins with a read somewhere else.
const READ_BYTES: usize = 32 * 1024;

const TYPE_MASK: u32 = 0o170_000;

/// Bytes that a zip of `length` bytes may unpack to.
pub(super) fn expansion_limit(length: u64) -> u64 {
    length.saturating_mul(MAX_EXPANSION).saturating_add(FREE_EXPANSION_BYTES).min(MAX_UNPACKED_BYTES)
}

/// Hands every entry of a zip artifact to the reading's guard and sink.
pub(super) fn read(reading: &mut Reading<'_, '_>) -> Result<(), ArchiveError> {
    let artifact = reading.artifact;
    let budget = Cell::new(MAX_DIRECTORY_BYTES);
    let source = Positioned { file: artifact.file(), position: 0, budget: &budget, meter: reading.meter };
    let mut archive =
        ZipArchive::new(BufReader::with_capacity(READ_BYTES, source)).map_err(|error| fail(reading, error))?;
    budget.set(u64::MAX);
    if archive.has_duplicate_names() {
        return Err(corrupt(reading, "two of its entries have the same name"));
    }
    if archive.has_overlapping_entries().map_err(|error| fail(reading, error))? {
        return Err(corrupt(reading, "two of its entries share data"));
    }
    let limit = expansion_limit(artifact.length());
    let mut unpacked = 0_u64;
    for index in 0..archive.len() {
        let options = ZipReadOptions::new().enforce_header_consistency(true);
        let mut file = archive.by_index_with_options(index, options).map_err(|error| fail(reading, error))?;
        let size = file.size();
        unpacked = unpacked.saturating_add(size);
        if unpacked > limit {
            let entry = shown(file.name_raw());
            return Err(ArchiveError::Expansion { path: artifact.path().into(), limit, entry });
        }
        one(reading, &mut file, size)?;
    }
    Ok(())
}

fn one<R: Read>(reading: &mut Reading<'_, '_>, file: &mut ZipFile<'_, R>, size: u64) -> Result<(), ArchiveError> {
    let name = file.name_raw().to_vec();
    if file.encrypted() {
        return Err(unsupported(reading, &name, "is encrypted"));
    }
    if !matches!(file.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(unsupported(reading, &name, "is compressed by something other than deflate"));
    }
    let mode = mode_of(file);
    let kind = kind_of(mode, &name);
    if kind == Kind::Symlink {
        // One byte more than is allowed, so that the guard sees what is too long.
        let most = u64::try_from(MAX_TARGET_BYTES).expect("a small constant") + 1;
        let mut target = Vec::new();
        file.take(most).read_to_end(&mut target).map_err(|error| reading.corrupt(error))?;
        return reading.entry((&name, kind, mode, 0, Some(&target)), &mut io::empty());
    }
    let mut data = Exact { inner: file, left: size };
    reading.entry((&name, kind, mode & 0o7777, size, None), &mut data)?;
    data.finish().map_err(|error| reading.corrupt(error))
}

/// The Unix mode with its special bits, which the `zip` crate hides.
fn mode_of<R: Read>(file: &ZipFile<'_, R>) -> u32 {
    let special = if file.system() == System::Dos { 0 } else { (file.external_attributes() >> 16) & 0o7000 };
    file.unix_mode().unwrap_or(0o644) | special
}

fn kind_of(mode: u32, name: &[u8]) -> Kind {
    match mode & TYPE_MASK {
        0o120_000 => Kind::Symlink,
        0o040_000 => Kind::Directory,
        0 | 0o100_000 if name.ends_with(b"/") => Kind::Directory,
        0 | 0o100_000 => Kind::File,
        0o010_000 => Kind::Unsupported("a fifo"),
        0o020_000 => Kind::Unsupported("a character device"),
        0o060_000 => Kind::Unsupported("a block device"),
        0o140_000 => Kind::Unsupported("a socket"),
        _ => Kind::Unsupported("of a type unknown to Unix"),
    }
}

fn unsupported(reading: &Reading<'_, '_>, name: &[u8], what: &str) -> ArchiveError {
    ArchiveError::Unsupported {
        path: reading.artifact.path().into(),
        detail: format!("its entry `{}` {what}; build it with deflate and no password", shown(name)),
    }
}

fn fail(reading: &Reading<'_, '_>, error: ZipError) -> ArchiveError {
    match error {
        ZipError::Io(error) => reading.corrupt(error),
        error => corrupt(reading, error.to_string()),
    }
}

fn corrupt(reading: &Reading<'_, '_>, detail: impl Into<String>) -> ArchiveError {
    ArchiveError::Corrupt { path: reading.artifact.path().into(), detail: detail.into() }
}

/// Yields exactly as many bytes as the entry declares; more or fewer is corrupt.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Exact<R> {
    /// Reads what the sink did not, and past it, which is where the checksum is compared.
    fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(())
    }
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let count = u64::try_from(read).map_err(io::Error::other)?;
        self.left = self.left.checked_sub(count).ok_or_else(|| bad("an entry is longer than it declares"))?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(bad("an entry is shorter than it declares"));
        }
        Ok(read)
    }
}

fn bad(detail: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

/// Reads the artifact's file, within a budget of bytes.
struct Positioned<'a, 'm> {
    file: &'a File,
    position: u64,
    budget: &'a Cell<u64>,
    meter: &'a RefCell<Meter<'m>>,
}

impl Read for Positioned<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        let count = u64::try_from(read).map_err(io::Error::other)?;
        self.position = self.position.saturating_add(count);
        let left = self.budget.get().checked_sub(count);
        self.budget.set(left.ok_or_else(|| bad("its directory is over 64 MiB; publish it as tar.zst"))?);
        self.meter.borrow_mut().bytes(read)?;
        Ok(read)
    }
}

impl Seek for Positioned<'_, '_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.file.metadata()?.len().checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| bad("an offset lies outside the archive"))?;
        Ok(self.position)
    }
}
