//! Tests of the archive module as a whole, and what they share.

mod arbitrary;
mod bombs;
mod hostile;
mod oddities;
mod packing;
mod planted;
mod round_trip;
mod unpacking;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Platform, ReleaseId};
use updraft_protocol::release::{Format, ManifestRef, Notes, Release};

use super::*;
use crate::installer::InstallDir;

/// The formats that hold a tar stream.
const TARS: [Format; 4] = [Format::Tar, Format::TarGz, Format::TarXz, Format::TarZst];

/// What a tree holds, by path.
type Tree = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File { executable: bool, bytes: Vec<u8> },
    Link(PathBuf),
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn plain(bytes: impl Into<Vec<u8>>) -> Node {
    Node::File { executable: false, bytes: bytes.into() }
}

fn program(bytes: impl Into<Vec<u8>>) -> Node {
    Node::File { executable: true, bytes: bytes.into() }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// Makes `nodes` below `root`, in their order.
fn make<'a>(root: &Path, nodes: impl IntoIterator<Item = (&'a PathBuf, &'a Node)>) {
    for (path, node) in nodes {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("parents");
        match node {
            Node::Directory => fs::create_dir_all(&path).expect("a directory"),
            Node::Link(target) => symlink(target, &path).expect("a link"),
            Node::File { executable, bytes } => {
                fs::write(&path, bytes).expect("a file");
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
            }
        }
    }
}

/// Reads a tree, and checks that its modes are the normalised ones.
fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    read_below(root, Path::new(""), &mut tree);
    tree
}

fn read_below(root: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        let metadata = entry.metadata().expect("metadata");
        let mode = metadata.permissions().mode() & 0o7777;
        let node = if metadata.is_symlink() {
            Node::Link(fs::read_link(entry.path()).expect("a target"))
        } else if metadata.is_dir() {
            assert_eq!(mode, 0o755, "{}", path.display());
            read_below(root, &path, tree);
            Node::Directory
        } else {
            assert!(mode == 0o755 || mode == 0o644, "{} {mode:o}", path.display());
            Node::File { executable: mode == 0o755, bytes: fs::read(entry.path()).expect("bytes") }
        };
        tree.insert(path, node);
    }
}

/// A tree with everything that real ones have and naive code trips over.
fn nasty_tree() -> Tree {
    let long_name = "n".repeat(255);
    let deep = vec!["deeper"; 60].join("/");
    [
        (path(b"bin/run"), program(*b"#!/bin/sh\nexit 0\n")),
        (path(b"bin-data"), plain(*b"sorts between bin and bin/run")),
        (path(b"lib/libx.so.1"), program(vec![7; 300_000])),
        (path(b"lib/libx.so"), Node::Link("libx.so.1".into())),
        (path(b"etc/absolute"), Node::Link("/etc/hostname".into())),
        (path(b"etc/dangling"), Node::Link("../../no/such/thing".into())),
        (path(b"etc/long target"), Node::Link(vec!["x"; 900].join("/").into())),
        (path(b"empty file"), plain(*b"")),
        (path(b"empty dir"), Node::Directory),
        (path(b"one block"), plain(vec![1; 512])),
        (path(b"@scope/it's \"odd\" \\ name"), plain(*b"odd")),
        (path(b"line\nend"), plain(*b"newline")),
        (path("\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}/\u{96ea}".as_bytes()), plain(*b"unicode")),
        (path(b"latin1-\xe9\xff"), plain(*b"not utf-8")),
        (path(b".hidden/.x"), plain(*b"hidden")),
        (path(long_name.as_bytes()), plain(*b"255 bytes")),
        (path(&[b'e'; 99]), plain(*b"99 bytes: fits")),
        (path(&[b'f'; 100]), plain(*b"100 bytes: does not, with its NUL")),
        (path(format!("{deep}/leaf").as_bytes()), plain(*b"over 255 bytes of path")),
    ]
    .into()
}

/// Adds the directories that paths imply, so that trees compare equal.
fn with_directories(mut tree: Tree) -> Tree {
    let parents: Vec<PathBuf> = tree
        .keys()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|parent| !parent.as_os_str().is_empty())
        .map(Path::to_path_buf)
        .collect();
    for parent in parents {
        tree.entry(parent).or_insert(Node::Directory);
    }
    tree
}

fn pack_bytes(root: &Path, level: i32) -> Result<(Vec<u8>, Packed), ArchiveError> {
    let mut bytes = Vec::new();
    let packed = pack(root, &mut bytes, &PackOptions { level }, &mut |_| ())?;
    Ok((bytes, packed))
}

/// An artifact on disk beside an empty staging directory.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new(artifact: &[u8]) -> Self {
        let directory = temporary();
        fs::write(directory.path().join("artifact"), artifact).expect("the artifact");
        fs::create_dir(directory.path().join("staging")).expect("staging");
        Self { directory }
    }

    fn artifact(&self) -> PathBuf {
        self.directory.path().join("artifact")
    }

    fn staging(&self) -> PathBuf {
        self.directory.path().join("staging")
    }

    fn inspect(&self, format: Format) -> Result<Packed, ArchiveError> {
        inspect(&self.artifact(), format, &mut |_| ())
    }

    fn unpack(&self, format: Format, expected: &Expected) -> Result<(), ArchiveError> {
        let mut go_on = |_: &Progress| ControlFlow::Continue(());
        unpack(&self.artifact(), format, "tool", expected, &self.staging(), &mut go_on)
    }

    /// Nothing appeared beside the artifact and the staging directory.
    fn assert_contained(&self) {
        let mut names: Vec<_> = fs::read_dir(self.directory.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["artifact", "staging"]);
    }
}

fn expected(packed: &Packed) -> Expected {
    Expected { artifact: *packed.manifest.artifact(), length: packed.manifest.length(), content: packed.content }
}

/// Signed metadata that declares the artifact truly, and allows any content.
fn anything(artifact: &[u8]) -> Expected {
    Expected {
        artifact: Digest::of(artifact),
        length: u64::try_from(artifact.len()).expect("fits"),
        content: ContentSummary { sha256: Digest::ZERO, length: u64::MAX, entries: u64::MAX },
    }
}

/// A release that a thief of signing keys might sign: its artifact as it is, and room for much content.
fn signed(format: Format, artifact: &[u8]) -> Release {
    let expected = anything(artifact);
    let file_name = "artifact".parse().expect("a file name");
    let id = ReleaseId {
        product: "app".parse().expect("a product"),
        version: "1.0.0".parse().expect("a version"),
        platform: Platform::any(),
    };
    Release {
        path: id.path(&file_name),
        file_name,
        artifact: expected.artifact,
        length: expected.length,
        format,
        content: ContentSummary { sha256: Digest::ZERO, length: 256 << 20, entries: 10_000 },
        manifest: ManifestRef { sha256: Digest::ZERO, length: 1 },
        channels: std::collections::BTreeSet::new(),
        min_from: None,
        notes: Notes::None,
        critical: false,
        id,
    }
}

/// What the installer answers to `release`, having left nothing in staging and nothing in releases.
fn install_refusal(release: &Release, artifact: &Path) -> String {
    let scratch = temporary();
    let root = scratch.path().join("app");
    let mut go_on = |_, _| ControlFlow::Continue(());
    let staged = InstallDir::new(&root).stage("1", release, artifact, "1.0.0-0", &mut go_on);
    let refused = staged.expect_err("refused by the installer").to_string();
    for directory in ["staging", "releases"] {
        let left: Vec<_> = fs::read_dir(root.join(directory)).expect("readable").collect();
        assert!(left.is_empty(), "{directory} holds {left:?}");
    }
    assert_eq!(fs::read_dir(scratch.path()).expect("readable").count(), 1, "something got out");
    refused
}

/// Publishing and installing both refuse `artifact`, in the same words; nothing got out, and the
/// installer left nothing behind.
fn refusal(format: Format, artifact: &[u8]) -> String {
    let bench = Bench::new(artifact);
    let published = bench.inspect(format).expect_err("refused at publish").to_string();
    let installed = bench.unpack(format, &anything(artifact)).expect_err("refused at install").to_string();
    assert_eq!(published, installed, "publish and install disagree");
    bench.assert_contained();
    assert_eq!(published, install_refusal(&signed(format, artifact), &bench.artifact()));
    published
}

fn compress(format: Format, bytes: &[u8]) -> Vec<u8> {
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
        _ => bytes.to_vec(),
    }
}

/// Writes tar streams that no decent tool would.
#[derive(Default)]
struct RawTar(Vec<u8>);

impl RawTar {
    fn header(&mut self, kind: u8, path: &[u8], mode: u32, size: u64, link: &[u8]) -> &mut Self {
        let mut header = ::tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.as_old_mut().linkflag = [kind];
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn data(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn entry(&mut self, kind: u8, path: &[u8], mode: u32, link: &[u8]) -> &mut Self {
        self.header(kind, path, mode, 0, link)
    }

    fn file(&mut self, path: &[u8], bytes: &[u8]) -> &mut Self {
        self.header(b'0', path, 0o644, u64::try_from(bytes.len()).expect("fits"), b"").data(bytes)
    }

    fn extension(&mut self, kind: u8, bytes: &[u8]) -> &mut Self {
        self.header(kind, b"extension", 0o644, u64::try_from(bytes.len()).expect("fits"), b"").data(bytes)
    }

    fn end(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

/// One pax record.
fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// A zip of entries `(name, mode with type, bytes)`.
fn zip_of(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, mode, bytes) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(mode & 0o7777);
        if mode & 0o170_000 == 0o120_000 {
            zip.add_symlink(*name, str::from_utf8(bytes).expect("a target"), options).expect("a link");
        } else if name.ends_with('/') {
            zip.add_directory(*name, options).expect("a directory");
        } else {
            zip.start_file(*name, options).expect("a file");
            zip.write_all(bytes).expect("memory");
        }
    }
    zip.finish().expect("memory").into_inner()
}

#[test]
fn the_format_is_told_by_the_file_name() {
    for (name, format) in [
        ("app-1.tar.zst", Format::TarZst),
        ("app.TGZ", Format::TarGz),
        ("app.tar.xz", Format::TarXz),
        ("app.tar", Format::Tar),
        ("app.zip", Format::Zip),
        ("app", Format::File),
        ("app.whl", Format::File),
        (".tar", Format::File),
        ("dir.zip/app", Format::File),
    ] {
        assert_eq!(detect(Path::new(name)), format, "{name}");
    }
}
