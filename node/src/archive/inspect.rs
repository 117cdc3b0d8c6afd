//! Inspecting an artifact as it was built, before it is published: one pass that checks every entry by
//! the rule that installing applies, and yields what the signed metadata will declare.
//!
//! Nothing is written. Every byte is decompressed, so that an archive that could not be unpacked
//! is never published.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use updraft_protocol::manifest::ManifestBuilder;
use updraft_protocol::release::Format;

use super::entry::{Admitted, RelPath};
use super::source::{Artifact, Meter};
use super::walk::{Limits, Sink, SinkError, walk};
use super::{ArchiveError, Packed, Progress};

/// Checks the artifact at `path`. `progress` counts bytes of the file, twice for zip.
pub fn inspect(path: &Path, format: Format, progress: &mut dyn FnMut(&Progress)) -> Result<Packed, ArchiveError> {
    let artifact = Artifact::open(path)?;
    let file_name = single_name(path)?;
    let mut report = |now: &Progress| {
        progress(now);
        ControlFlow::Continue(())
    };
    let meter = Meter::new(bytes_to_read(&artifact, format), &mut report);
    let (manifest, content) =
        walk(&artifact, format, &file_name, Limits::default(), ManifestBuilder::new(), &mut Discard, meter)?;
    let manifest = manifest.finish()?;
    let content = content.summary(*manifest.artifact(), manifest.length());
    Ok(Packed { manifest, content })
}

/// Bytes that a walk over the artifact reads: a zip is hashed first and read by entries then.
pub(super) fn bytes_to_read(artifact: &Artifact, format: Format) -> u64 {
    match format {
        Format::Zip => artifact.length().saturating_mul(2),
        Format::TarZst | Format::TarGz | Format::TarXz | Format::Tar | Format::File => artifact.length(),
    }
}

fn single_name(path: &Path) -> Result<RelPath, ArchiveError> {
    let name = path.file_name().ok_or_else(|| ArchiveError::NotAFile(path.into()))?;
    Ok(RelPath::parse(name.as_encoded_bytes())?)
}

/// Reads data to its end and keeps nothing.
struct Discard;

impl Sink for Discard {
    fn take(&mut self, _entry: Admitted, data: &mut dyn Read) -> Result<(), SinkError> {
        io::copy(data, &mut io::sink()).map(drop).map_err(SinkError::Data)
    }
}
