//! Archives, through the real inspection and the real unpacking, into a directory in memory.
//!
//! What must hold: publishing refuses exactly what installing refuses; nothing appears outside the
//! staging directory; what appears in it is bounded by what was declared; a tree that was unpacked can be
//! packed, and comes out of that pack as it went in.

use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use updraft::archive::{ArchiveError, ContentSummary, Expected, MIN_LEVEL, PackOptions, Packed, inspect, pack, unpack};
use updraft_protocol::digest::Digest;
use updraft_protocol::release::Format;

/// Unpacked bytes above which a body looks no further: larger trees only cost time.
const MAX_TREE_BYTES: u64 = 8 * 1024 * 1024;

/// Unpacked bytes and entries of trees that are also packed again.
const SMALL_TREE: (u64, u64) = (256 * 1024, 24);

/// Unpacked bytes that any zip may reach, and per byte of the zip.
const ZIP_EXPANSION: (u64, u64) = (16 * 1024 * 1024, 200);

const RECORD_BYTES: usize = 512;

/// A tar stream. Where the first byte is odd, the checksums of the headers are set right first, as any
/// attacker would.
pub fn tar(bytes: &[u8]) -> bool {
    let Some((mode, stream)) = bytes.split_first() else { return false };
    if mode % 2 == 0 { survive(Format::Tar, stream) } else { survive(Format::Tar, &with_checksums(stream)) }
}

/// A compressed tar stream: gzip, xz or zstd as it is, or a tar stream that is compressed first.
pub fn compressed_tar(bytes: &[u8]) -> bool {
    let Some((mode, stream)) = bytes.split_first() else { return false };
    let format = [Format::TarGz, Format::TarXz, Format::TarZst][usize::from(mode % 3)];
    if mode / 3 % 2 == 0 {
        survive(format, stream)
    } else {
        survive(format, &compress(format, &with_checksums(stream)))
    }
}

/// A zip archive.
pub fn zip(bytes: &[u8]) -> bool {
    survive(Format::Zip, bytes)
}

pub(super) fn compress(format: Format, bytes: &[u8]) -> Vec<u8> {
    match format {
        Format::TarGz => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Format::TarXz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Format::TarZst => zstd::encode_all(bytes, 1).expect("memory"),
        Format::Tar | Format::Zip | Format::File => bytes.to_vec(),
    }
}

/// The stream with every header's checksum set right, as far as sizes lead from one to the next.
pub(super) fn with_checksums(stream: &[u8]) -> Vec<u8> {
    let mut mended = stream.to_vec();
    let mut at = 0;
    while let Some(header) = mended.get_mut(at..at + RECORD_BYTES) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = str::from_utf8(&header[124..136]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at = at.saturating_add(RECORD_BYTES).saturating_add(size.min(stream.len()).next_multiple_of(RECORD_BYTES));
    }
    mended
}

/// An artifact beside an empty staging directory, and a file that nothing may touch.
struct Bench(TempDir);

impl Bench {
    fn new(artifact: &[u8]) -> Self {
        // Memory where there is some: unpacking waits for stable storage.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let bench = Self(directory.expect("a temporary directory"));
        fs::write(bench.at("artifact"), artifact).expect("the artifact");
        fs::create_dir(bench.at("staging")).expect("staging");
        fs::create_dir(bench.at("witness")).expect("a directory");
        fs::write(bench.at("witness/file"), b"untouched").expect("a file");
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn inspect(&self, format: Format) -> Result<Packed, ArchiveError> {
        inspect(&self.at("artifact"), format, &mut |_| ())
    }

    fn unpack(&self, format: Format, expected: &Expected) -> Result<(), ArchiveError> {
        let mut go_on = |_: &_| ControlFlow::Continue(());
        unpack(&self.at("artifact"), format, "tool", expected, &self.at("staging"), &mut go_on)
    }

    fn assert_contained(&self) {
        assert_eq!(names(self.0.path()), ["artifact", "staging", "witness"], "something was created outside");
        assert_eq!(names(&self.at("witness")), ["file"], "something was created outside");
        let witness = self.at("witness/file");
        assert_eq!(fs::read(&witness).expect("readable"), b"untouched", "something was written outside");
        assert_eq!(
            fs::metadata(&witness).expect("there").permissions().mode() & 0o111,
            0,
            "a mode was changed outside"
        );
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What lies in a staging directory.
#[derive(Debug, Default)]
struct Tree {
    bytes: u64,
    files: u64,
}

impl Tree {
    fn of(directory: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(directory);
        tree
    }

    fn add(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                assert_eq!(mode, 0o755);
                self.add(&entry.path());
            } else if metadata.is_file() {
                assert!(mode == 0o755 || mode == 0o644, "mode {mode:o}");
                self.bytes += metadata.len();
                self.files += 1;
            } else {
                assert!(metadata.is_symlink(), "neither file, directory nor link");
                self.files += 1;
            }
        }
    }
}

fn survive(format: Format, bytes: &[u8]) -> bool {
    let bench = Bench::new(bytes);
    let limit = if format == Format::Zip {
        ZIP_EXPANSION.0 + ZIP_EXPANSION.1 * u64::try_from(bytes.len()).expect("a small input")
    } else {
        MAX_TREE_BYTES
    };
    let any = Expected {
        artifact: Digest::of(bytes),
        length: u64::try_from(bytes.len()).expect("a small input"),
        content: ContentSummary { sha256: Digest::ZERO, length: MAX_TREE_BYTES, entries: 10_000 },
    };
    let published = bench.inspect(format);
    if let Ok(packed) = &published
        && packed.content.length <= MAX_TREE_BYTES
        && packed.content.entries <= any.content.entries
    {
        let truth = Expected {
            artifact: *packed.manifest.artifact(),
            length: packed.manifest.length(),
            content: packed.content,
        };
        assert_eq!((truth.artifact, truth.length), (any.artifact, any.length));
        bench.unpack(format, &truth).expect("what may be published can be installed");
        let tree = Tree::of(&bench.at("staging"));
        assert!(tree.files <= packed.content.entries);
        let hard_links_share = tree.files * packed.content.length.min(limit);
        assert!(tree.bytes <= limit.max(hard_links_share), "{tree:?} from {:?}", packed.content);
        if packed.content.length <= SMALL_TREE.0 && packed.content.entries <= SMALL_TREE.1 && tree.bytes <= SMALL_TREE.0
        {
            packs_alike(&bench);
        }
    } else {
        // Whatever is wrong with it, no metadata makes it install; what it leaves is bounded.
        bench.unpack(format, &any).expect_err("what may not be published is not installed");
        let tree = Tree::of(&bench.at("staging"));
        let hard_links_share = tree.files * MAX_TREE_BYTES;
        assert!(tree.bytes <= limit.max(hard_links_share), "{tree:?}");
    }
    bench.assert_contained();
    published.is_ok()
}

/// The unpacked tree packs, unpacks, and packs to the same bytes.
fn packs_alike(bench: &Bench) {
    let options = PackOptions { level: MIN_LEVEL };
    let mut first = Vec::new();
    let packed =
        pack(&bench.at("staging"), &mut first, &options, &mut |_| ()).expect("an installed tree can be packed");
    let again = Bench::new(&first);
    assert_eq!(again.inspect(Format::TarZst).expect("a pack of ours"), packed);
    let expected =
        Expected { artifact: *packed.manifest.artifact(), length: packed.manifest.length(), content: packed.content };
    again.unpack(Format::TarZst, &expected).expect("a pack of ours");
    let mut second = Vec::new();
    pack(&again.at("staging"), &mut second, &options, &mut |_| ()).expect("a tree of ours");
    assert_eq!(first, second, "one tree, two packs");
}
