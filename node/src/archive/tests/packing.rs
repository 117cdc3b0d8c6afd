//! Packing: one tree, one artifact; and what is never packed.

use super::*;
use crate::archive::pack::pack_with;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

/// Bytes that compress a little, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&(state & 0x0F0F_FF0F_0F0F_FF0F).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn refused(root: &Path) -> String {
    pack_bytes(root, 1).expect_err("refused").to_string()
}

#[test]
fn neither_creation_order_nor_times_nor_odd_modes_change_the_artifact() {
    let tree = nasty_tree();
    let (one, other) = (temporary(), temporary());
    make(one.path(), &tree);
    make(other.path(), tree.iter().rev());
    let data = other.path().join("one block");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::set_permissions(other.path().join("bin/run"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_001);
    fs::File::open(&data).expect("a file").set_modified(long_ago).expect("a time");
    assert_eq!(pack_bytes(one.path(), 3).expect("packed"), pack_bytes(other.path(), 3).expect("packed"));
}

#[test]
fn the_number_of_workers_does_not_change_the_artifact() {
    let tree = temporary();
    fs::write(tree.path().join("large"), noise(20_000_000)).expect("a file");
    let pack = |workers| {
        let mut bytes = Vec::new();
        pack_with(tree.path(), &mut bytes, PackOptions { level: 1 }, workers, &mut |_| ()).expect("packed");
        Digest::of(&bytes)
    };
    let one = pack(1);
    assert_eq!(one, pack(2));
    assert_eq!(one, pack(4));
}

#[test]
fn the_tar_stream_of_a_known_tree_never_changes() {
    let source = temporary();
    make(source.path(), &nasty_tree());
    let (_, packed) = pack_bytes(source.path(), 1).expect("packed");
    assert_eq!(packed.content.sha256.to_string(), "dd5158c77d5f99213ab13c89596bef90567aafba4cd3eae8aaa5db0f5838a907");
}

#[test]
fn entries_are_sorted_byte_by_byte_by_path() {
    let source = temporary();
    make(source.path(), &nasty_tree());
    let (bytes, _) = pack_bytes(source.path(), 1).expect("packed");
    let content = zstd::decode_all(&bytes[..]).expect("zstd");
    let mut archive = ::tar::Archive::new(&content[..]);
    let names: Vec<Vec<u8>> = archive
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry").path_bytes().to_vec())
        .map(|name| name.strip_suffix(b"/").map(<[u8]>::to_vec).unwrap_or(name))
        .collect();
    assert!(names.is_sorted());
    assert!(names.contains(&b"bin-data".to_vec()));
}

#[test]
fn the_manifest_and_the_content_describe_the_bytes_written() {
    let source = temporary();
    make(source.path(), &nasty_tree());
    let (bytes, packed) = pack_bytes(source.path(), 1).expect("packed");
    let content = zstd::decode_all(&bytes[..]).expect("zstd");
    assert_eq!(*packed.manifest.artifact(), Digest::of(&bytes));
    assert_eq!(packed.manifest.length(), u64::try_from(bytes.len()).expect("fits"));
    assert_eq!(packed.content.sha256, Digest::of(&content));
    assert_eq!(packed.content.length, u64::try_from(content.len()).expect("fits"));
    assert_eq!(packed.content.entries, u64::try_from(with_directories(nasty_tree()).len()).expect("fits"));
}

#[test]
fn an_empty_directory_is_refused() {
    assert!(refused(temporary().path()).ends_with("is an empty directory; there is nothing to publish"));
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let missing = temporary().path().join("missing");
    assert!(refused(&missing).contains("missing"));
}

#[test]
fn a_level_out_of_range_is_refused() {
    for level in [i32::MIN, 0, 20, 22] {
        assert!(matches!(pack_bytes(temporary().path(), level), Err(ArchiveError::Level(_))), "{level}");
    }
}

#[test]
fn special_files_are_refused_by_name() {
    let tree = temporary();
    let socket = UnixListener::bind(tree.path().join("control")).expect("a socket");
    assert!(refused(tree.path()).starts_with("entry `control` is a socket"));
    drop(socket);

    let tree = temporary();
    let directory = fs::File::open(tree.path()).expect("a directory");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(&directory, "pipe", rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
    assert!(refused(tree.path()).starts_with("entry `pipe` is a fifo"));
}

#[test]
fn a_setuid_file_is_refused_by_name() {
    let tree = temporary();
    make(tree.path(), &Tree::from([(path(b"bin/su"), program(*b"x"))]));
    fs::set_permissions(tree.path().join("bin/su"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    assert!(refused(tree.path()).starts_with("entry `bin/su` has mode 4755"));
}

#[test]
fn names_that_differ_only_by_case_are_refused() {
    let tree = temporary();
    make(tree.path(), &Tree::from([(path(b"README"), plain(*b"")), (path(b"readme"), plain(*b""))]));
    assert!(refused(tree.path()).starts_with("entry `readme` differs from `README` only by case"));
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let tree = temporary();
    let deep: PathBuf = vec!["d"; 130].iter().collect();
    fs::create_dir_all(tree.path().join(deep)).expect("directories");
    assert!(refused(tree.path()).ends_with("is over 128 directories deep"));
}

#[test]
fn a_link_to_a_directory_is_packed_as_a_link() {
    let outside = temporary();
    fs::write(outside.path().join("secret"), b"x").expect("a file");
    let tree = temporary();
    symlink(outside.path(), tree.path().join("link")).expect("a link");
    let (_, packed) = pack_bytes(tree.path(), 1).expect("packed");
    assert_eq!(packed.content.entries, 1);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    // Root reads everything.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let tree = temporary();
    make(tree.path(), &Tree::from([(path(b"etc/key"), plain(*b"x"))]));
    fs::set_permissions(tree.path().join("etc/key"), fs::Permissions::from_mode(0o000)).expect("a mode");
    assert!(refused(tree.path()).contains("etc/key"));
}

/// Packs a tree of two large files, and meddles once the first is being read.
fn meddled(meddle: impl Fn(&Path)) -> ArchiveError {
    let tree = temporary();
    make(tree.path(), &Tree::from([(path(b"d/1"), plain(noise(3 << 20))), (path(b"d/2"), plain(noise(3 << 20)))]));
    let mut meddle = Some(meddle);
    let mut progress = |_: &Progress| {
        if let Some(meddle) = meddle.take() {
            meddle(tree.path());
        }
    };
    pack(tree.path(), &mut io::sink(), &PackOptions { level: 1 }, &mut progress).expect_err("noticed")
}

fn changed_path(error: &ArchiveError) -> &str {
    match error {
        ArchiveError::Changed(path) => path.file_name().and_then(|name| name.to_str()).expect("a name"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_noticed() {
    let error = meddled(|tree| fs::write(tree.join("d/1"), noise(4 << 20)).expect("written"));
    assert_eq!(changed_path(&error), "1");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_noticed() {
    let error = meddled(|tree| fs::write(tree.join("d/1"), b"short").expect("written"));
    assert_eq!(changed_path(&error), "1");
}

#[test]
fn a_file_that_vanishes_before_its_turn_is_noticed() {
    let error = meddled(|tree| fs::remove_file(tree.join("d/2")).expect("removed"));
    assert_eq!(changed_path(&error), "2");
}

#[test]
fn a_file_that_turns_into_a_link_is_noticed() {
    let error = meddled(|tree| {
        fs::remove_file(tree.join("d/2")).expect("removed");
        symlink("/etc/hostname", tree.join("d/2")).expect("a link");
    });
    assert_eq!(changed_path(&error), "2");
}

#[test]
fn a_file_that_appears_after_the_listing_is_noticed() {
    let error = meddled(|tree| fs::write(tree.join("d/new"), b"x").expect("written"));
    assert_eq!(changed_path(&error), "d");
}

#[test]
fn progress_ends_with_everything_done() {
    let tree = temporary();
    make(tree.path(), &nasty_tree());
    let mut last = Progress::default();
    pack(tree.path(), &mut io::sink(), &PackOptions::default(), &mut |now| last = *now).expect("packed");
    assert_eq!(last.bytes_done, last.bytes_total);
    assert!(last.bytes_total > 300_000 && last.entries_done > 19);
}

#[test]
fn a_full_disk_is_reported() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let tree = temporary();
    make(tree.path(), &nasty_tree());
    let error = pack(tree.path(), &mut Full, &PackOptions::default(), &mut |_| ()).expect_err("full");
    assert!(matches!(error, ArchiveError::Output(_)), "{error}");
}
