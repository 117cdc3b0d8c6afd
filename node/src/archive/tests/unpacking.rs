//! Unpacking holds an artifact to what the signed metadata declares.

use super::*;

fn sample() -> (Bench, Packed) {
    let mut tar = RawTar::default();
    let bench = Bench::new(&compress(Format::TarGz, &tar.file(b"a", &[1; 9000]).file(b"b", b"x").end()));
    let packed = bench.inspect(Format::TarGz).expect("publishable");
    (bench, packed)
}

fn refused(change: impl FnOnce(&mut Expected)) -> String {
    let (bench, packed) = sample();
    let mut expected = expected(&packed);
    change(&mut expected);
    bench.unpack(Format::TarGz, &expected).expect_err("refused").to_string()
}

#[test]
fn every_declared_value_is_compared() {
    assert!(refused(|expected| expected.artifact = Digest::ZERO).starts_with("the artifact's sha256 is"));
    assert!(refused(|expected| expected.length += 1).starts_with("the artifact's length is"));
    assert!(refused(|expected| expected.content.sha256 = Digest::ZERO).starts_with("the content's sha256 is"));
    assert!(refused(|expected| expected.content.length += 1).starts_with("the content's length is"));
    assert!(refused(|expected| expected.content.entries += 1).starts_with("the number of entries is"));
}

#[test]
fn more_content_than_declared_stops_the_unpacking() {
    assert!(refused(|expected| expected.content.length -= 1).contains("unpacks to more than"));
    assert!(refused(|expected| expected.content.entries = 1).contains("has more than the 1 entries"));
}

#[test]
fn a_bomb_is_not_unpacked_beyond_what_was_declared() {
    let mut tar = RawTar::default();
    let bytes = compress(Format::TarGz, &tar.file(b"bomb", &vec![0; 64 << 20]).end());
    let bench = Bench::new(&bytes);
    let mut expected = anything(&bytes);
    expected.content.length = 1 << 20;
    let error = bench.unpack(Format::TarGz, &expected).expect_err("refused");
    assert!(matches!(error, ArchiveError::ContentTooLong { declared: 1_048_576 }), "{error}");
    let unpacked = fs::metadata(bench.staging().join("bomb")).expect("the partial file").len();
    assert!(unpacked <= 1 << 20, "{unpacked}");
}

#[test]
fn a_staging_directory_in_use_is_refused() {
    let (bench, packed) = sample();
    fs::write(bench.staging().join("left over"), b"x").expect("a file");
    let error = bench.unpack(Format::TarGz, &expected(&packed)).expect_err("refused");
    assert!(matches!(error, ArchiveError::StagingNotEmpty(_)), "{error}");
}

#[test]
fn a_staging_directory_that_is_a_link_is_refused() {
    let (bench, packed) = sample();
    let elsewhere = temporary();
    fs::remove_dir(bench.staging()).expect("removed");
    symlink(elsewhere.path(), bench.staging()).expect("a link");
    bench.unpack(Format::TarGz, &expected(&packed)).expect_err("refused");
    assert_eq!(read(elsewhere.path()), Tree::new());
}

#[test]
fn unpacking_can_be_cancelled() {
    let mut tar = RawTar::default();
    let tar = tar.file(b"a", &[1; 9000]).end();
    let zip = zip_of(&[("a", 0o100_644, b"x")]);
    for (format, artifact) in [(Format::Tar, tar), (Format::Zip, zip), (Format::File, vec![1; 5 << 20])] {
        let bench = Bench::new(&artifact);
        let packed = bench.inspect(format).expect("publishable");
        let mut stop = |_: &Progress| ControlFlow::Break(());
        let result = unpack(&bench.artifact(), format, "tool", &expected(&packed), &bench.staging(), &mut stop);
        assert!(matches!(result, Err(ArchiveError::Cancelled)), "{format:?} {result:?}");
    }
}

#[test]
fn progress_ends_with_everything_done() {
    let (bench, packed) = sample();
    let mut last = Progress::default();
    let mut report = |now: &Progress| {
        last = *now;
        ControlFlow::Continue(())
    };
    unpack(&bench.artifact(), Format::TarGz, "tool", &expected(&packed), &bench.staging(), &mut report)
        .expect("unpacked");
    assert_eq!(
        last,
        Progress { bytes_done: packed.manifest.length(), bytes_total: packed.manifest.length(), entries_done: 2 }
    );
}

#[test]
fn the_name_of_a_single_file_is_no_path() {
    let bench = Bench::new(b"tool");
    let packed = bench.inspect(Format::File).expect("publishable");
    for name in ["../tool", "/tool", "a/tool", "..", ".", ""] {
        let mut go_on = |_: &Progress| ControlFlow::Continue(());
        let result = unpack(&bench.artifact(), Format::File, name, &expected(&packed), &bench.staging(), &mut go_on);
        assert!(matches!(result, Err(ArchiveError::Entry(_))), "{name:?} {result:?}");
    }
    assert_eq!(read(&bench.staging()), Tree::new());
}

#[test]
fn an_artifact_that_changes_while_it_is_inspected_is_noticed() {
    let bench = Bench::new(&vec![1; 4 << 20]);
    let artifact = bench.artifact();
    let mut meddle = |_: &Progress| {
        let mut file = fs::OpenOptions::new().append(true).open(&artifact).expect("the artifact");
        file.write_all(b"more").expect("written");
    };
    let error = inspect(&bench.artifact(), Format::File, &mut meddle).expect_err("noticed");
    assert!(matches!(error, ArchiveError::Changed(_)), "{error}");
}

#[test]
fn a_directory_or_device_is_no_artifact() {
    for path in [temporary().path(), Path::new("/dev/null")] {
        let error = inspect(path, Format::File, &mut |_| ()).expect_err("refused");
        assert!(matches!(error, ArchiveError::NotAFile(_) | ArchiveError::Io { .. }), "{error}");
    }
}
