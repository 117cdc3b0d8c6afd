//! What goes in comes out.

use super::*;
use proptest::prelude::*;

fn round_trip(tree: &Tree) -> Tree {
    let source = temporary();
    make(source.path(), tree);
    let (bytes, packed) = pack_bytes(source.path(), 1).expect("packed");
    let bench = Bench::new(&bytes);
    assert_eq!(bench.inspect(Format::TarZst).expect("publishable"), packed);
    bench.unpack(Format::TarZst, &expected(&packed)).expect("unpacked");
    read(&bench.staging())
}

#[test]
fn a_nasty_tree_survives() {
    let tree = nasty_tree();
    assert_eq!(round_trip(&tree), with_directories(tree));
}

#[test]
fn every_tar_format_holds_the_same_content() {
    let tree = nasty_tree();
    let source = temporary();
    make(source.path(), &tree);
    let (bytes, packed) = pack_bytes(source.path(), 1).expect("packed");
    let content = zstd::decode_all(&bytes[..]).expect("zstd");
    for format in TARS {
        let bench = Bench::new(&compress(format, &content));
        let inspected = bench.inspect(format).expect("publishable");
        assert_eq!(inspected.content, packed.content, "{format:?}");
        bench.unpack(format, &expected(&inspected)).expect("unpacked");
        assert_eq!(read(&bench.staging()), with_directories(tree.clone()), "{format:?}");
    }
}

#[test]
fn another_tar_reader_sees_the_same_names() {
    let tree = nasty_tree();
    let source = temporary();
    make(source.path(), &tree);
    let (bytes, packed) = pack_bytes(source.path(), 1).expect("packed");
    let content = zstd::decode_all(&bytes[..]).expect("zstd");
    assert_eq!(packed.content.sha256, Digest::of(&content));
    let mut archive = ::tar::Archive::new(&content[..]);
    let names: Vec<PathBuf> = archive
        .entries()
        .expect("entries")
        .map(|entry| path(entry.expect("an entry").path_bytes().strip_suffix(b"/").unwrap_or(&[])))
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    let directories: Vec<PathBuf> =
        with_directories(tree).into_iter().filter(|(_, node)| *node == Node::Directory).map(|(path, _)| path).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, directories);
}

#[test]
fn a_zip_unpacks_with_modes_and_links() {
    let bytes = zip_of(&[
        ("bin/", 0o40_755, b""),
        ("bin/tool", 0o100_755, b"program"),
        ("share/deep/data", 0o100_644, &vec![9; 70_000]),
        ("bin/alias", 0o120_777, b"tool"),
    ]);
    let bench = Bench::new(&bytes);
    let packed = bench.inspect(Format::Zip).expect("publishable");
    assert_eq!(packed.content.sha256, Digest::of(&bytes));
    assert_eq!(packed.content.entries, 4);
    bench.unpack(Format::Zip, &expected(&packed)).expect("unpacked");
    let tree = Tree::from([
        (path(b"bin/tool"), program(*b"program")),
        (path(b"share/deep/data"), plain(vec![9; 70_000])),
        (path(b"bin/alias"), Node::Link("tool".into())),
    ]);
    assert_eq!(read(&bench.staging()), with_directories(tree));
}

#[test]
fn a_single_file_becomes_an_executable_of_the_given_name() {
    let bench = Bench::new(b"\x7fELF and so on");
    let packed = bench.inspect(Format::File).expect("publishable");
    assert_eq!(packed.content, ContentSummary { sha256: Digest::of(b"\x7fELF and so on"), length: 14, entries: 1 });
    bench.unpack(Format::File, &expected(&packed)).expect("unpacked");
    assert_eq!(read(&bench.staging()), Tree::from([(path(b"tool"), program(*b"\x7fELF and so on"))]));
}

#[test]
fn a_foreign_tar_with_a_root_entry_and_dot_slash_names_unpacks() {
    let mut tar = RawTar::default();
    tar.entry(b'5', b"./", 0o700, b"").entry(b'5', b"./a/", 0o2775, b"").file(b"./a/f", b"x");
    let bench = Bench::new(&tar.end());
    let packed = bench.inspect(Format::Tar).expect("publishable");
    assert_eq!(packed.content.entries, 3);
    bench.unpack(Format::Tar, &expected(&packed)).expect("unpacked");
    assert_eq!(read(&bench.staging()), with_directories(Tree::from([(path(b"a/f"), plain(*b"x"))])));
}

#[test]
fn pax_names_targets_and_sizes_override_the_header() {
    let mut tar = RawTar::default();
    let long = format!("{}/name", "p".repeat(200));
    let records = [pax("path", long.as_bytes()), pax("size", b"5"), pax("mtime", b"1.5")].concat();
    tar.extension(b'g', &pax("comment", b"made by a tool")).extension(b'x', &records);
    tar.header(b'0', b"short", 0o644, 0, b"").data(b"12345");
    tar.extension(b'x', &pax("linkpath", long.as_bytes())).entry(b'2', b"link", 0o777, b"short");
    let bench = Bench::new(&tar.end());
    let packed = bench.inspect(Format::Tar).expect("publishable");
    bench.unpack(Format::Tar, &expected(&packed)).expect("unpacked");
    let tree = Tree::from([(path(long.as_bytes()), plain(*b"12345")), (path(b"link"), Node::Link(long.into()))]);
    assert_eq!(read(&bench.staging()), with_directories(tree));
}

#[test]
fn a_hard_link_shares_its_file() {
    use std::os::unix::fs::MetadataExt as _;
    let mut tar = RawTar::default();
    tar.header(b'0', b"bin/git", 0o755, 3, b"").data(b"git").entry(b'1', b"libexec/git-add", 0o755, b"bin/git");
    let bench = Bench::new(&tar.end());
    let packed = bench.inspect(Format::Tar).expect("publishable");
    bench.unpack(Format::Tar, &expected(&packed)).expect("unpacked");
    let inode = |name: &str| fs::metadata(bench.staging().join(name)).expect("a file").ino();
    assert_eq!(inode("bin/git"), inode("libexec/git-add"));
    assert_eq!(fs::read(bench.staging().join("libexec/git-add")).expect("bytes"), b"git");
}

#[test]
fn gzip_members_zstd_frames_and_xz_streams_may_follow_one_another() {
    let mut tar = RawTar::default();
    let bytes = tar.file(b"a", &[1; 5000]).file(b"b", &[2; 5000]).end();
    let (first, second) = bytes.split_at(3000);
    for format in [Format::TarGz, Format::TarXz, Format::TarZst] {
        let joined = [compress(format, first), compress(format, second)].concat();
        let bench = Bench::new(&joined);
        let packed = bench.inspect(format).expect("publishable");
        assert_eq!(packed.content.sha256, Digest::of(&bytes), "{format:?}");
        assert_eq!(*packed.manifest.artifact(), Digest::of(&joined), "{format:?}");
        bench.unpack(format, &expected(&packed)).expect("unpacked");
    }
}

#[test]
fn zeros_after_the_end_of_a_tar_belong_to_the_content() {
    let mut tar = RawTar::default();
    let bytes = [tar.file(b"a", b"x").end(), vec![0; 10_240]].concat();
    let packed = Bench::new(&compress(Format::TarGz, &bytes)).inspect(Format::TarGz).expect("publishable");
    assert_eq!(packed.content.sha256, Digest::of(&bytes));
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        1 => Just(Node::Directory),
        4 => (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|(executable, bytes)| Node::File { executable, bytes }),
        1 => proptest::collection::vec(1_u8..=255, 1..300).prop_map(|target| Node::Link(path(&target))),
    ]
}

/// Lower case only, for names that collide are refused.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-c]{1,2}".prop_map(String::into_bytes),
        1 => "[a-z0-9 @'\"\\\\-]{1,30}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(0x80_u8..=255, 1..20),
        1 => (90_usize..=255).prop_map(|length| vec![b'l'; length]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_survives(entries in proptest::collection::vec((proptest::collection::vec(name(), 1..5), node()), 1..20)) {
        let mut tree = Tree::new();
        for (components, node) in entries {
            let path = path(&components.join(&b'/'));
            let below_other = path.ancestors().skip(1).any(|parent| tree.get(parent).is_some_and(|node| *node != Node::Directory));
            let above_other = tree.keys().any(|other| other.starts_with(&path));
            if !below_other && !above_other {
                tree.insert(path, node);
            }
        }
        prop_assert_eq!(round_trip(&tree), with_directories(tree));
    }
}
