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
    scribble_at(path, b"?", 0);
}

#[cfg(unix)]
fn scribble_at(path: &Path, bytes: &[u8], offset: u64) {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    // Times of files are kept to a few milliseconds.
    std::thread::sleep(Duration::from_millis(20));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let file = OpenOptions::new().write(true).open(path).expect("writable");
    file.write_all_at(bytes, offset).expect("written");
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

#[cfg(unix)]
fn assert_claims_are_true(artifact: &Artifact, bytes: &[u8]) {
    let on_disk = std::fs::read(artifact.path()).expect("readable");
    for piece in artifact.have().iter().filter_map(|index| artifact.manifest.index(index)) {
        let start = usize::try_from(artifact.manifest.offset_of(piece)).expect("small");
        let range = start..start + artifact.manifest.length_of(piece) as usize;
        assert!(on_disk[range.clone()] == bytes[range], "piece {} is claimed and wrong", piece.get());
    }
}

/// A store whose only artifact was lent and, while the node was down, changed from its first to its last byte.
#[cfg(unix)]
fn all_changed(scratch: &Path) -> (std::path::PathBuf, updraft_protocol::digest::Digest, Vec<u8>) {
    let (home, output) = (scratch.join("store"), scratch.join("output"));
    let store = Store::open(&home).expect("opened");
    let (artifact, bytes) = fetched(&store);
    assert!(artifact.lend(&output).expect("lent"));
    scribble_at(&output, &vec![b'?'; bytes.len()], 0);
    (home, *artifact.manifest().artifact(), bytes)
}

#[cfg(unix)]
#[test]
fn a_lent_file_that_was_changed_everywhere_is_claimed_at_no_later_start() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (home, digest, bytes) = all_changed(scratch.path());
    for _ in 0..2 {
        let store = Store::open(&home).expect("opened");
        let artifact = store.get(&digest).expect("there");
        artifact.recover(&mut |_, _| {}).expect("readable");
        assert_eq!(artifact.have().ones(), 0);
    }
    let store = Store::open(&home).expect("opened");
    let artifact = store.get(&digest).expect("there");
    fill(&artifact, &bytes);
    assert_claims_are_true(&artifact, &bytes);
    assert!(artifact.is_complete());
}

#[cfg(unix)]
#[test]
fn a_kill_after_the_first_block_that_follows_a_changed_file_brings_no_claim_back() {
    for with_recovery in [true, false] {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (home, digest, bytes) = all_changed(scratch.path());
        // Dropped without a checkpoint, as a kill does.
        let store = Store::open(&home).expect("opened");
        let artifact = store.get(&digest).expect("there");
        if with_recovery {
            artifact.recover(&mut |_, _| {}).expect("readable");
        }
        let block = BlockRange::new(0, 16 * 1024).expect("a valid block");
        let _ = artifact.write_block(block, &bytes[..16 * 1024]).expect("written");
        drop((artifact, store));
        let store = Store::open(&home).expect("opened");
        let artifact = store.get(&digest).expect("there");
        assert_claims_are_true(&artifact, &bytes);
        assert!(std::fs::read(scratch.path().join("output")).expect("there").iter().all(|byte| *byte == b'?'));
    }
}

#[cfg(unix)]
#[test]
fn a_bitmap_that_is_not_believed_does_not_outlive_the_look_at_its_pieces() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let home = scratch.path().join("store");
    let digest = {
        let store = Store::open(&home).expect("opened");
        *fetched(&store).0.manifest().artifact()
    };
    let store = Store::open(&home).expect("opened");
    let known = store.get(&digest).expect("there");
    let full = known.have();
    let doubted = Artifact::new(
        known.manifest.clone(),
        known.directory.clone(),
        Bitmap::empty(full.count()),
        true,
        None,
        Arc::clone(&known.shared),
    );
    doubted.checkpoint().expect("saved");
    let have = Have::decode(&std::fs::read(known.directory.join("have")).expect("there")).expect("whole");
    assert_eq!(have.pieces.ones(), 0);
}

#[cfg(unix)]
#[test]
fn nothing_wrong_is_served_while_a_changed_file_is_checked() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, bytes) = fetched(&store);
    let output = scratch.path().join("output");
    assert!(artifact.lend(&output).expect("lent"));
    scribble(&output);
    let mut looks = 0;
    let report = artifact.verify(&mut |_, _| {
        looks += 1;
        assert!(read(&artifact).is_err(), "the changed block was served");
        assert_claims_are_true(&artifact, &bytes);
    });
    assert_eq!(report.expect("readable").cleared, [0]);
    assert_eq!(looks, artifact.manifest().piece_count());
    assert_eq!(artifact.have().iter_missing().collect::<Vec<_>>(), [0], "what is right was taken over");
}

#[cfg(unix)]
#[test]
fn a_file_that_is_changed_again_while_it_is_taken_over_leaves_no_wrong_claim() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let home = scratch.path().join("store");
    let output = scratch.path().join("output");
    let (digest, bytes) = {
        let store = Store::open(&home).expect("opened");
        let (artifact, bytes) = fetched(&store);
        assert!(artifact.lend(&output).expect("lent"));
        scribble(&output);
        let mut again = false;
        let report = artifact.verify(&mut |_, _| {
            if !std::mem::replace(&mut again, true) {
                // Both ahead of where it is and behind.
                scribble_at(&output, b"?", 2 * MIB);
                scribble_at(&output, b"?", 1);
            }
        });
        assert!(report.expect("readable").cleared.contains(&0));
        assert!(!artifact.have().is_full());
        assert_claims_are_true(&artifact, &bytes);
        fill(&artifact, &bytes);
        // Whatever happens to the file that was lent is nobody's concern any more.
        scribble_at(&output, b"?", MIB);
        assert_eq!(read(&artifact).expect("served"), bytes[..16 * 1024]);
        (*artifact.manifest().artifact(), bytes)
    };
    let store = Store::open(&home).expect("opened");
    assert!(store.warnings().is_empty(), "{:?}", store.warnings());
    let artifact = store.get(&digest).expect("there");
    assert!(artifact.is_complete());
    assert_claims_are_true(&artifact, &bytes);
}

#[cfg(unix)]
#[test]
fn a_lent_file_is_never_written_to() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, _) = fetched(&store);
    assert!(artifact.lend(&scratch.path().join("output")).expect("lent"));
    assert!(artifact.writer().expect_err("it is lent").to_string().contains("another name"));
}

#[cfg(unix)]
#[test]
fn a_rotten_piece_of_a_lent_file_moves_the_right_ones_to_a_file_of_the_store() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, bytes) = fetched(&store);
    let output = scratch.path().join("output");
    assert!(artifact.lend(&output).expect("lent"));
    // A disk that rots tells nobody.
    let before = std::fs::metadata(&output).and_then(|found| found.modified()).expect("there");
    scribble(&output);
    OpenOptions::new().write(true).open(&output).and_then(|file| file.set_modified(before)).expect("ours");
    assert!(!artifact.lent_was_changed().expect("there"));
    assert_eq!(artifact.verify(&mut |_, _| {}).expect("readable").cleared, [0]);
    fill(&artifact, &bytes);
    assert_claims_are_true(&artifact, &bytes);
    assert_eq!(std::fs::read(&output).expect("there")[0], b'?');
}

#[cfg(unix)]
#[test]
fn metrics_do_not_wait_while_a_file_is_taken_over() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, _) = fetched(&store);
    let output = scratch.path().join("output");
    assert!(artifact.lend(&output).expect("lent"));
    scribble(&output);
    let mut looks = 0;
    artifact
        .verify(&mut |_, _| {
            // On another thread: this one might hold the lock that is in question.
            let (store, (listed, answer)) = (store.clone(), mpsc::sync_channel(1));
            std::thread::spawn(move || listed.send(store.list().len()));
            assert_eq!(answer.recv_timeout(Duration::from_secs(30)), Ok(1), "listing waits for the copy");
            looks += 1;
        })
        .expect("readable");
    assert!(looks > 1);
}

#[cfg(unix)]
#[test]
fn a_lend_that_fails_leaves_the_file_as_it_was() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, _) = fetched(&store);
    assert!(!artifact.lend(Path::new("/proc/self/output")).expect("no harm done"));
    let mode = std::fs::metadata(artifact.path()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a node that is not root could never mend it");
    assert!(!artifact.is_lent() && !artifact.directory.join("lent").exists());
}

#[cfg(unix)]
#[test]
fn a_lend_that_failed_and_left_another_name_stays_guarded() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, _) = fetched(&store);
    let name = scratch.path().join("name");
    std::fs::hard_link(artifact.path(), &name).expect("the same file system");
    assert!(!artifact.lend(Path::new("/proc/self/output")).expect("no harm done"));
    scribble(&name);
    assert!(read(&artifact).expect_err("changed").to_string().contains("was changed"));
}

#[cfg(unix)]
#[test]
fn a_store_without_its_lent_file_begins_anew() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&scratch.path().join("store")).expect("opened");
    let (artifact, bytes) = fetched(&store);
    assert!(artifact.lend(&scratch.path().join("output")).expect("lent"));
    // As after a full disk, where the room of a file that nobody else had was given up first.
    std::fs::remove_file(artifact.path()).expect("removed");
    let report = artifact.verify(&mut |_, _| {}).expect("there is room");
    assert_eq!(report.cleared.len(), artifact.manifest().piece_count() as usize);
    fill(&artifact, &bytes);
    assert_claims_are_true(&artifact, &bytes);
    assert!(artifact.is_complete());
}
