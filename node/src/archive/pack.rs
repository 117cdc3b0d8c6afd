//! Packing a directory into the canonical tar.zst: the same tree at the same level gives the same bytes,
//! whoever packs it, wherever and whenever (with the same version of zstd, which the lock file pins).
//!
//! Canonical means: entries sorted byte by byte by path, no entry for the root; owner 0:0 without names;
//! one fixed time; modes 0755 for directories and executables, 0644 for other files; hard links as
//! separate files; extended attributes left out. zstd is always fed through its multi-threaded path,
//! whose output depends on the level and not on the number of workers, with a content checksum.
//!
//! A tree that is written to meanwhile is never packed half old and half new: it is an error.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use updraft_protocol::digest::{Digest, Hasher};
use updraft_protocol::manifest::ManifestBuilder;
use zstd::stream::write::Encoder;

use super::entry::Object;
use super::scan::{Plan, Planned};
use super::source::{BLOCK_BYTES, read_some};
use super::tarball::TarWriter;
use super::{ArchiveError, ContentSummary, Packed, Progress};

/// The quickest level.
pub const MIN_LEVEL: i32 = 1;

/// The slowest level. Above it, zstd's window would demand over 8 MiB of memory from every node.
pub const MAX_LEVEL: i32 = 19;

/// The level where nobody asks for another.
pub const DEFAULT_LEVEL: i32 = 9;

/// Workers of the compressor. Bounds its memory: each takes up to about 100 MiB at the slowest level.
const MAX_WORKERS: u32 = 4;

/// Bytes of file data between two reports of progress.
const REPORT_BYTES: u64 = 1024 * 1024;

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// zstd level, [`MIN_LEVEL`] to [`MAX_LEVEL`].
    pub level: i32,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { level: DEFAULT_LEVEL }
    }
}

/// Packs the tree at `dir` into `out`. `progress` counts bytes of files.
///
/// `out` holds a whole artifact only when this returned without error.
pub fn pack(
    dir: &Path,
    out: &mut impl Write,
    options: &PackOptions,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Packed, ArchiveError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    pack_with(dir, out, *options, u32::try_from(cores).unwrap_or(MAX_WORKERS).min(MAX_WORKERS), progress)
}

/// [`pack`] with a number of workers, which must be at least 1 and has no influence on the bytes.
pub(super) fn pack_with(
    dir: &Path,
    out: &mut impl Write,
    options: PackOptions,
    workers: u32,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Packed, ArchiveError> {
    if !(MIN_LEVEL..=MAX_LEVEL).contains(&options.level) {
        return Err(ArchiveError::Level(options.level));
    }
    let plan = Plan::scan(dir)?;
    let artifact = Artifact { out, manifest: ManifestBuilder::new() };
    let content = Content::new(artifact, options.level, workers).map_err(ArchiveError::Output)?;
    let mut packing = Packing {
        plan: &plan,
        tar: TarWriter::new(BufWriter::with_capacity(BLOCK_BYTES, content)),
        block: vec![0; BLOCK_BYTES],
        now: Progress { bytes_total: plan.bytes, ..Progress::default() },
        reported_bytes: 0,
        progress,
    };
    for planned in &plan.entries {
        packing.entry(planned)?;
    }
    let Packing { tar, now, progress, .. } = packing;
    let content = tar.finish().map_err(ArchiveError::Output)?;
    let content = content.into_inner().map_err(|error| ArchiveError::Output(error.into_error()))?;
    let (manifest, sha256, length) = content.finish().map_err(ArchiveError::Output)?;
    plan.require_unchanged()?;
    progress(&now);
    Ok(Packed { manifest: manifest.finish()?, content: ContentSummary { sha256, length, entries: now.entries_done } })
}

struct Packing<'a, W: Write> {
    plan: &'a Plan,
    tar: TarWriter<BufWriter<Content<'a, W>>>,
    block: Vec<u8>,
    now: Progress,
    reported_bytes: u64,
    progress: &'a mut dyn FnMut(&Progress),
}

impl<W: Write> Packing<'_, W> {
    fn entry(&mut self, planned: &Planned) -> Result<(), ArchiveError> {
        if let Object::File { size, .. } = planned.entry.object {
            // Opened before its header is written, so that a file that cannot be read says so first.
            let file = self.plan.open(planned)?;
            self.tar.header(&planned.entry).map_err(ArchiveError::Output)?;
            self.data(planned, &file, size)?;
            self.tar.pad(size).map_err(ArchiveError::Output)?;
        } else {
            self.tar.header(&planned.entry).map_err(ArchiveError::Output)?;
        }
        self.now.entries_done += 1;
        Ok(())
    }

    fn data(&mut self, planned: &Planned, mut file: &File, size: u64) -> Result<(), ArchiveError> {
        let path = &planned.entry.path;
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.block.len());
            let read = read_some(&mut file, &mut self.block[..most]);
            let read = read.map_err(|error| self.plan.error("read", path, error))?;
            if read == 0 {
                return Err(self.plan.changed(path));
            }
            self.tar.data(&self.block[..read]).map_err(ArchiveError::Output)?;
            let read = u64::try_from(read).expect("a block is small");
            left -= read;
            self.advance(read);
        }
        self.plan.require_same(planned, file)
    }

    fn advance(&mut self, bytes: u64) {
        self.now.bytes_done = self.now.bytes_done.saturating_add(bytes);
        if self.now.bytes_done - self.reported_bytes >= REPORT_BYTES {
            self.reported_bytes = self.now.bytes_done;
            (self.progress)(&self.now);
        }
    }
}

/// The uncompressed tar stream, hashed on its way into the compressor.
struct Content<'a, W: Write> {
    hasher: Hasher,
    length: u64,
    encoder: Encoder<'static, Artifact<'a, W>>,
}

impl<'a, W: Write> Content<'a, W> {
    fn new(artifact: Artifact<'a, W>, level: i32, workers: u32) -> io::Result<Self> {
        let mut encoder = Encoder::new(artifact, level)?;
        encoder.include_checksum(true)?;
        encoder.multithread(workers.max(1))?;
        Ok(Self { hasher: Hasher::new(), length: 0, encoder })
    }

    fn finish(self) -> io::Result<(ManifestBuilder, Digest, u64)> {
        let artifact = self.encoder.finish()?;
        artifact.out.flush()?;
        Ok((artifact.manifest, self.hasher.finish(), self.length))
    }
}

impl<W: Write> Write for Content<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All or an error: how much the compressor takes at once must not decide what is hashed.
        self.encoder.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += u64::try_from(bytes.len()).expect("a block is small");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush would end a zstd block, and change the bytes.
        Ok(())
    }
}

/// The compressed stream, cut into pieces on its way out.
struct Artifact<'a, W> {
    out: &'a mut W,
    manifest: ManifestBuilder,
}

impl<W: Write> Write for Artifact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.manifest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
