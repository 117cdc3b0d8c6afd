//! Small artifacts that unpack to much, or claim to. Each is stopped where the signed metadata ends, or
//! where a format has no such number where its own bound ends; the disk never holds more than that.

use super::*;

const BOMB_BYTES: usize = 48 << 20;

/// Bytes that the metadata of a bomb declares.
const DECLARED_BYTES: u64 = 1 << 20;

fn stopped(format: Format, artifact: &[u8]) -> ArchiveError {
    let bench = Bench::new(artifact);
    let mut expected = anything(artifact);
    expected.content.length = DECLARED_BYTES;
    let error = bench.unpack(format, &expected).expect_err("refused");
    let written: u64 = read(&bench.staging())
        .values()
        .map(|node| match node {
            Node::File { bytes, .. } => u64::try_from(bytes.len()).expect("fits"),
            Node::Directory | Node::Link(_) => 0,
        })
        .sum();
    assert!(written <= DECLARED_BYTES, "{format:?}: {written} bytes were written");
    let mut release = signed(format, artifact);
    release.content.length = DECLARED_BYTES;
    assert_eq!(install_refusal(&release, &bench.artifact()), error.to_string());
    error
}

#[test]
fn a_compressed_bomb_is_unpacked_no_further_than_declared() {
    let mut tar = RawTar::default();
    let bytes = tar.file(b"bomb", &vec![0; BOMB_BYTES]).end();
    for format in TARS {
        let error = stopped(format, &compress(format, &bytes));
        let ArchiveError::ContentTooLong { declared: DECLARED_BYTES, entry: Some(entry) } = &error else {
            panic!("{format:?}: {error}")
        };
        assert_eq!(entry, "bomb");
        assert!(error.to_string().ends_with("; that ends in entry `bomb`"), "{error}");
    }
}

#[test]
fn a_bomb_of_many_frames_is_stopped_just_as_early() {
    let mut tar = RawTar::default();
    let head = compress(Format::TarZst, &tar.header(b'0', b"bomb", 0o644, 1 << 40, b"").0);
    let zeros = compress(Format::TarZst, &vec![0; 1 << 20]);
    let bomb = [head, zeros.repeat(4_000)].concat();
    let error = stopped(Format::TarZst, &bomb);
    assert!(matches!(error, ArchiveError::ContentTooLong { .. }), "{error}");
}

#[test]
fn a_million_entries_stop_at_the_first_that_was_not_declared() {
    let mut tar = RawTar::default();
    for number in 0..1_000 {
        tar.file(format!("d{}/{number}", number % 7).as_bytes(), b"");
    }
    // A thousand times the same members, of which the second round is never reached.
    let first = compress(Format::TarZst, &tar.0);
    let million = first.repeat(1_000);
    let bench = Bench::new(&million);
    let mut expected = anything(&million);
    expected.content.entries = 100;
    let error = bench.unpack(Format::TarZst, &expected).expect_err("refused");
    assert!(error.to_string().ends_with("entry `d2/100` is one more"), "{error}");
    assert!(matches!(error, ArchiveError::TooManyEntries { declared: 100, .. }), "{error}");
    let files = read(&bench.staging()).values().filter(|node| matches!(node, Node::File { .. })).count();
    assert_eq!(files, 100);
    let mut release = signed(Format::TarZst, &million);
    release.content.entries = 100;
    assert_eq!(install_refusal(&release, &bench.artifact()), error.to_string());
}

#[test]
fn a_zip_of_zips_is_one_file_more_and_nothing_deeper() {
    let inner = zip_of(&[("deep", 0o100_644, &vec![0; 1 << 20])]);
    let outer = zip_of(&[("inner.zip", 0o100_644, &inner)]);
    let bench = Bench::new(&outer);
    let packed = bench.inspect(Format::Zip).expect("an archive in an archive is a file");
    bench.unpack(Format::Zip, &expected(&packed)).expect("unpacked");
    assert_eq!(read(&bench.staging()), Tree::from([(path(b"inner.zip"), plain(inner))]));
}

#[test]
fn a_zip_bomb_leaves_nothing() {
    let refused = refusal(Format::Zip, &zip_of(&[("zeros", 0o100_644, &vec![0; BOMB_BYTES])]));
    assert!(refused.contains("beyond what a zip of its size may"), "{refused}");
    assert!(refused.contains("with entry `zeros`"), "{refused}");
}
