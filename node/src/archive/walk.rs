//! One walk over an artifact, whatever its format: every entry is checked by the guard and handed to
//! a [`Sink`]. Inspection and unpacking differ only in the sink.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use updraft_protocol::digest::Digest;
use updraft_protocol::release::Format;

use super::entry::{Admitted, Kind, RelPath, shown};
use super::guard::EntryGuard;
use super::source::{Artifact, BLOCK_BYTES, Content, Meter, Tap, Tapped, decode_error};
use super::tarball::TarReader;
use super::{ArchiveError, ContentSummary, zipped};

/// Memory that decoding xz may take, in bytes: enough for `xz -9` (65 MiB) with room, and a bound on
/// what a header can demand of a small machine.
const XZ_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Largest zstd window as a power of two, in bytes: 128 MiB, what `zstd --ultra -22` and `--long` ask for.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Takes entries as they come. `data` yields exactly the bytes of a file; what is not read is skipped.
pub(super) trait Sink {
    fn take(&mut self, entry: Admitted, data: &mut dyn Read) -> Result<(), SinkError>;
}

/// Why a sink failed: on its own side, or on reading what it was given.
#[derive(Debug)]
pub(super) enum SinkError {
    Own(ArchiveError),
    Data(io::Error),
}

impl From<ArchiveError> for SinkError {
    fn from(error: ArchiveError) -> Self {
        Self::Own(error)
    }
}

/// What the signed metadata allows; nothing is known yet while publishing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) content_bytes: Option<u64>,
    pub(super) entries: Option<u64>,
}

/// Walks `artifact` from its first to its last byte, showing all of them to `tap`.
///
/// `file_name` names the only entry of a single file. The summary's digest and length are those of
/// the uncompressed stream; for zip and single files they are the artifact's own, which the
/// caller takes from the tap.
pub(super) fn walk<T: Tap>(
    artifact: &Artifact,
    format: Format,
    file_name: &RelPath,
    limits: Limits,
    mut tap: T,
    sink: &mut dyn Sink,
    meter: Meter<'_>,
) -> Result<(T, ContentOf), ArchiveError> {
    let meter = RefCell::new(meter);
    let mut reading = Reading { artifact, limits, guard: EntryGuard::new(), sink, meter: &meter };
    let stream = match format {
        Format::Zip => {
            Tapped::new(artifact, &mut tap, &meter).drain().map_err(|error| decode_error(artifact.path(), error))?;
            artifact.require_unchanged()?;
            zipped::read(&mut reading)?;
            None
        }
        Format::File => {
            reading.single_file(Tapped::new(artifact, &mut tap, &meter), file_name)?;
            None
        }
        Format::Tar | Format::TarGz | Format::TarXz | Format::TarZst => {
            Some(reading.compressed_tar(Tapped::new(artifact, &mut tap, &meter), format)?)
        }
    };
    let guard = reading.guard;
    if guard.is_empty() {
        return Err(ArchiveError::NoEntries(artifact.path().into()));
    }
    artifact.require_unchanged()?;
    meter.borrow_mut().finish()?;
    Ok((tap, ContentOf { stream, entries: guard.entries() }))
}

/// What a walk learned about the content.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContentOf {
    /// Digest and length of the uncompressed stream; none where the content is the artifact itself.
    stream: Option<(Digest, u64)>,
    entries: u64,
}

impl ContentOf {
    /// The summary of the content of an artifact with this digest and length.
    pub(super) fn summary(self, artifact: Digest, length: u64) -> ContentSummary {
        let (sha256, length) = self.stream.unwrap_or((artifact, length));
        ContentSummary { sha256, length, entries: self.entries }
    }
}

/// The state of one walk.
pub(super) struct Reading<'a, 'm> {
    pub(super) artifact: &'a Artifact,
    pub(super) meter: &'a RefCell<Meter<'m>>,
    limits: Limits,
    guard: EntryGuard,
    sink: &'a mut dyn Sink,
}

impl Reading<'_, '_> {
    /// Checks one entry and hands it on.
    pub(super) fn entry(
        &mut self,
        (path, kind, mode, size, link): (&[u8], Kind, u32, u64, Option<&[u8]>),
        data: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        let admitted = self.guard.admit(path, kind, mode, size, link)?;
        if let Some(declared) = self.limits.entries.filter(|declared| self.guard.entries() > *declared) {
            return Err(ArchiveError::TooManyEntries { declared, entry: shown(path) });
        }
        self.sink.take(admitted, data).map_err(|error| match error {
            SinkError::Own(error) => error,
            SinkError::Data(error) => match self.corrupt(error) {
                ArchiveError::ContentTooLong { declared, .. } => {
                    ArchiveError::ContentTooLong { declared, entry: Some(shown(path)) }
                }
                error => error,
            },
        })?;
        self.meter.borrow_mut().entry().map_err(ArchiveError::from)
    }

    pub(super) fn corrupt(&self, error: io::Error) -> ArchiveError {
        decode_error(self.artifact.path(), error)
    }

    fn single_file<T: Tap>(&mut self, mut source: Tapped<'_, '_, T>, file_name: &RelPath) -> Result<(), ArchiveError> {
        let size = self.artifact.length();
        let mut data = source.by_ref().take(size);
        self.entry((file_name.as_bytes(), Kind::File, 0o755, size, None), &mut data)?;
        source.drain().map_err(|error| self.corrupt(error))
    }

    fn compressed_tar<T: Tap>(
        &mut self,
        mut source: Tapped<'_, '_, T>,
        format: Format,
    ) -> Result<(Digest, u64), ArchiveError> {
        let summary = {
            let input = BufReader::with_capacity(BLOCK_BYTES, &mut source);
            let decoder = decoder(input, format).map_err(|error| self.corrupt(error))?;
            let mut content = Content::new(decoder, self.limits.content_bytes);
            self.tar(BufReader::with_capacity(BLOCK_BYTES, &mut content))?;
            content.finish()
        };
        // Bytes that the decoder did not want still belong to the artifact's digest.
        source.drain().map_err(|error| self.corrupt(error))?;
        Ok(summary)
    }

    fn tar(&mut self, content: impl Read) -> Result<(), ArchiveError> {
        let mut tar = TarReader::new(content);
        while let Some(member) = tar.next().map_err(|error| self.corrupt(error))? {
            let description = (&member.path[..], member.kind, member.mode, member.size, member.link.as_deref());
            self.entry(description, &mut tar)?;
        }
        tar.finish().map_err(|error| self.corrupt(error))
    }
}

/// The uncompressed stream, to the end of the last of however many members or frames there are.
fn decoder<'r>(input: impl BufRead + 'r, format: Format) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match format {
        Format::TarGz => Box::new(MultiGzDecoder::new(input)),
        Format::TarXz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED).map_err(io::Error::other)?;
            Box::new(XzDecoder::new_stream(input, stream))
        }
        Format::TarZst => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Format::Tar | Format::Zip | Format::File => Box::new(input),
    })
}
