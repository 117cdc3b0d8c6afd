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
