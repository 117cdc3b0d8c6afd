use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use updraft_protocol::manifest::ManifestBuilder;

use super::*;
use crate::store::Store;

const MIB: u64 = 1 << 20;

#[test]
fn whoever_outruns_a_checkpoint_on_a_slow_disk_waits_for_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path()).expect("opened");
    let bytes = vec![7; 32 * usize::try_from(MIB).expect("small")];
    let mut builder = ManifestBuilder::new();
    builder.update(&bytes);
    let manifest = builder.finish().expect("not empty");
    let artifact = store.begin(&manifest).expect("room on the disk");

    let slow = lock(&artifact.saved);
    let (writer, (done, ended)) = (Arc::clone(&artifact), mpsc::sync_channel(1));
    let writing = std::thread::spawn(move || {
        for piece in writer.manifest.indices() {
            let length = writer.manifest.length_of(piece);
            let block = BlockRange::new(writer.manifest.offset_of(piece), length).expect("a valid block");
            let _ = writer.write_block(block, &bytes[..length as usize]).expect("written");
        }
        let _ = done.send(());
    });
    assert!(ended.recv_timeout(Duration::from_millis(500)).is_err(), "nothing held it back");
    let unsaved = lock(&artifact.state).unsaved_bytes;
    assert!((2 * MIB..=3 * MIB).contains(&unsaved), "{unsaved} bytes wait to be saved");
    drop(slow);
    ended.recv_timeout(Duration::from_secs(30)).expect("it goes on");
    writing.join().expect("no panic");
    assert_eq!(lock(&artifact.state).unsaved_bytes, 0);
    assert!(lock(&artifact.saved).pieces.is_full());
}

/// An artifact of a few pieces, fetched whole by this process.
fn fetched(store: &Store) -> (Arc<Artifact>, Vec<u8>) {
    let bytes: Vec<u8> = (0..3 * MIB).map(|at| u8::try_from(at % 251).expect("below 256")).collect();
    let mut builder = ManifestBuilder::new();
    builder.update(&bytes);
    let artifact = store.begin(&builder.finish().expect("not empty")).expect("room on the disk");
    fill(&artifact, &bytes);
    assert!(artifact.is_complete());
    (artifact, bytes)
}

fn fill(artifact: &Artifact, bytes: &[u8]) {
    let missing: Vec<_> = artifact.have().iter_missing().collect();
    for piece in missing.into_iter().filter_map(|index| artifact.manifest.index(index)) {
        let (offset, length) = (artifact.manifest.offset_of(piece), artifact.manifest.length_of(piece));
        let at = usize::try_from(offset).expect("small");
        let block = BlockRange::new(offset, length).expect("a valid block");
        let _ = artifact.write_block(block, &bytes[at..at + length as usize]).expect("written");
    }
}

fn read(artifact: &Artifact) -> Result<Vec<u8>, StoreError> {
    let mut buffer = Vec::new();
    artifact.read_block(BlockRange::new(0, 16 * 1024).expect("a valid block"), &mut buffer).map(|()| buffer)
}

/// Changes the first byte through another name, as root or the owner can.
#[cfg(unix)]
fn scribble(path: &Path) {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    // Times of files are kept to a few milliseconds.
    std::thread::sleep(Duration::from_millis(20));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let file = OpenOptions::new().write(true).open(path).expect("writable");
    file.write_all_at(b"?", 0).expect("written");
}

#[cfg(unix)]
#[test]
fn a_fetched_file_is_there_at_once_and_takes_no_room() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&directory.path().join("store")).expect("opened");
    let (artifact, bytes) = fetched(&store);
    let output = directory.path().join("output");
    assert!(artifact.is_proven());
    for _ in 0..2 {
        assert!(artifact.lend(&output).expect("lent"));
    }
    assert_eq!(std::fs::read(&output).expect("there"), bytes);
    let (inside, outside) = (std::fs::metadata(artifact.path()), std::fs::metadata(&output));
    assert_eq!(inside.expect("there").ino(), outside.expect("there").ino());
    assert_eq!(read(&artifact).expect("still served"), bytes[..16 * 1024]);
    assert!(!artifact.lend(Path::new("/proc/self/output")).expect("no harm done"), "nothing can be linked there");
}

#[cfg(unix)]
#[test]
fn what_was_changed_through_its_other_name_is_not_served_and_is_fetched_into_a_file_of_its_own() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&directory.path().join("store")).expect("opened");
    let (artifact, bytes) = fetched(&store);
    let output = directory.path().join("output");
    assert!(artifact.lend(&output).expect("lent"));
    scribble(&output);

    assert!(read(&artifact).expect_err("changed").to_string().contains("was changed"));
    assert!(artifact.lend(&directory.path().join("again")).is_err());
    let report = artifact.verify(&mut |_, _| {}).expect("readable");
    assert_eq!(report.cleared, [0]);
    fill(&artifact, &bytes);
    assert!(artifact.is_complete());
    assert_eq!(read(&artifact).expect("served again"), bytes[..16 * 1024]);
    assert_eq!(std::fs::read(&output).expect("there")[0], b'?', "what an operator changed is his");
    assert_eq!(std::fs::read(artifact.path()).expect("there"), bytes);
}

#[cfg(unix)]
#[test]
fn what_was_changed_while_the_node_was_down_is_checked_before_it_is_claimed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path().join("store");
    let output = directory.path().join("output");
    let (digest, bytes) = {
        let store = Store::open(&home).expect("opened");
        let (artifact, bytes) = fetched(&store);
        assert!(artifact.lend(&output).expect("lent"));
        (*artifact.manifest().artifact(), bytes)
    };
    {
        let store = Store::open(&home).expect("opened");
        assert!(store.warnings().is_empty());
        assert!(store.get(&digest).expect("there").is_complete(), "nobody touched it");
    }
    scribble(&output);
    {
        let store = Store::open(&home).expect("opened");
        let artifact = store.get(&digest).expect("there");
        assert!(artifact.have().ones() == 0 && artifact.is_recoverable());
        artifact.recover(&mut |_, _| {}).expect("readable");
        assert!(!artifact.have().get(0) && artifact.have().get(1));
    }
    {
        let store = Store::open(&home).expect("opened");
        let artifact = store.get(&digest).expect("there");
        assert!(artifact.have().get(1), "what was hashed counts");
        fill(&artifact, &bytes);
        assert_eq!(std::fs::read(&output).expect("there")[0], b'?');
    }
    std::fs::write(&output, b"short").expect("writable");
    let store = Store::open(&home).expect("opened");
    assert!(store.get(&digest).expect("there").is_complete(), "it has a file of its own by now");
}

#[cfg(unix)]
#[test]
fn a_lent_file_that_was_cut_is_left_to_whoever_cut_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path().join("store");
    let output = directory.path().join("output");
    let digest = {
        let store = Store::open(&home).expect("opened");
        let (artifact, _) = fetched(&store);
        assert!(artifact.lend(&output).expect("lent"));
        *artifact.manifest().artifact()
    };
    scribble(&output);
    OpenOptions::new().write(true).open(&output).expect("writable").set_len(10).expect("cut");
    let store = Store::open(&home).expect("opened");
    assert_eq!(store.get(&digest).expect("there").have().ones(), 0);
    assert_eq!(std::fs::metadata(&output).expect("there").len(), 10);
}
