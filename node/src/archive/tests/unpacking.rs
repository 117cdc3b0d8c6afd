//! Unpacking holds an artifact to what the signed metadata declares.

use updraft_protocol::transfer::BlockRange;

use super::*;
use crate::engine::install::Fault;
use crate::store::{Artifact, Store};

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
    assert!(matches!(error, ArchiveError::ContentTooLong { declared: 1_048_576, .. }), "{error}");
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

/// A tar that was fetched whole into `store`, and its release; with enough entries for a report in between.
fn fetched(store: &Store, scratch: &Path) -> (std::sync::Arc<Artifact>, Release) {
    let mut tar = RawTar::default();
    for number in 0..100 {
        tar.file(format!("{number}").as_bytes(), &vec![7; 20_000]);
    }
    let bytes = tar.end();
    let path = scratch.join("artifact.tar");
    fs::write(&path, &bytes).expect("writable");
    let packed = inspect(&path, Format::Tar, &mut |_| ()).expect("publishable");
    let manifest = &packed.manifest;
    let artifact = store.begin(manifest).expect("room on the disk");
    for piece in manifest.indices() {
        let block = BlockRange::new(manifest.offset_of(piece), manifest.length_of(piece)).expect("a valid block");
        let (start, end) = (block.offset, block.end());
        let part = usize::try_from(start).expect("small")..usize::try_from(end).expect("small");
        let _ = artifact.write_block(block, &bytes[part]).expect("written");
    }
    let release = Release { content: packed.content, ..signed(Format::Tar, &bytes) };
    (artifact, release)
}

/// How a staging ends in the middle of which `meddle` is called once.
fn stage_while(
    artifact: &Artifact,
    release: &Release,
    root: &Path,
    meddle: impl Fn(),
) -> crate::installer::InstallError {
    let met = std::cell::Cell::new(false);
    let mut go_on = |_, _| {
        if !met.replace(true) {
            meddle();
        }
        ControlFlow::Continue(())
    };
    let refused = InstallDir::new(root).stage("1", release, artifact.path(), "1.0.0-0", &mut go_on);
    assert!(met.get(), "nothing happened in between");
    refused.expect_err("it was not whole all the time")
}

#[test]
fn a_file_that_is_delivered_or_touched_while_it_is_unpacked_is_no_bad_release() {
    let scratch = temporary();
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, release) = fetched(&store, scratch.path());
    let (root, output) = (scratch.path().join("app"), scratch.path().join("output"));
    let lend = || assert!(artifact.lend(&output).expect("lent"));
    let touch = || {
        let file = fs::File::open(&output).expect("there");
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(9)).expect("ours");
    };
    for meddle in
        [&lend as &dyn Fn(), &|| fs::rename(&output, scratch.path().join("moved")).expect("ours"), &lend, &touch]
    {
        let failure = stage_while(&artifact, &release, &root, meddle).into_failure();
        assert_eq!(failure.fault, Fault::Moment, "{}", failure.reason);
    }
    let mut go_on = |_, _| ControlFlow::Continue(());
    InstallDir::new(&root)
        .stage("1", &release, artifact.path(), "1.0.0-0", &mut go_on)
        .expect("left alone, it is good");
}

#[test]
fn wrong_bytes_of_a_file_that_is_changed_meanwhile_are_no_bad_release() {
    let scratch = temporary();
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, release) = fetched(&store, scratch.path());
    let garbage = || fs::write(artifact.path(), vec![b'?'; 2_100_000]).expect("ours");
    let failure = stage_while(&artifact, &release, &scratch.path().join("app"), garbage).into_failure();
    assert_eq!(failure.fault, Fault::Moment, "{}", failure.reason);
}
