//! Somebody else writes into the staging directory while it is filled. Whatever is planted there, nothing
//! is written, linked or made outside.

use super::*;

/// Entries after which progress is reported first, and something is planted.
const BEFORE: usize = 64;

/// A tar with enough entries in `early/` to be interrupted, and then what `late` adds.
fn interrupted(late: impl FnOnce(&mut RawTar)) -> (Bench, Packed) {
    let mut tar = RawTar::default();
    for number in 0..BEFORE {
        tar.file(format!("early/{number}").as_bytes(), b"x");
    }
    late(&mut tar);
    let bench = Bench::new(&tar.end());
    let packed = bench.inspect(Format::Tar).expect("publishable");
    (bench, packed)
}

/// Unpacks, with `plant` called once in the middle on the staging directory and one outside of it. What the
/// outside held after that and holds at the end must be the same.
fn unpack_while((bench, packed): &(Bench, Packed), plant: impl Fn(&Path, &Path)) -> Result<(), ArchiveError> {
    let outside = temporary();
    fs::write(outside.path().join("precious"), b"precious").expect("a file");
    let planted = std::cell::RefCell::new(None);
    let mut report = |now: &Progress| {
        if now.entries_done >= 64 && planted.borrow().is_none() {
            plant(&bench.staging(), outside.path());
            *planted.borrow_mut() = Some(read(outside.path()));
        }
        ControlFlow::Continue(())
    };
    let result = unpack(&bench.artifact(), Format::Tar, "tool", &expected(packed), &bench.staging(), &mut report);
    let before = planted.take().expect("something was planted");
    assert_eq!(read(outside.path()), before, "something was written outside");
    result
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_entered() {
    let sample = interrupted(|tar| {
        tar.file(b"late/evil", b"x");
    });
    let refused = unpack_while(&sample, |staging, outside| symlink(outside, staging.join("late")).expect("a link"));
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("staging/late"), "{refused}");
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_written_through() {
    let sample = interrupted(|tar| {
        tar.file(b"late", b"overwritten");
    });
    let refused = unpack_while(&sample, |staging, outside| {
        symlink(outside.join("precious"), staging.join("late")).expect("a link");
    });
    assert!(refused.expect_err("refused").to_string().contains("staging/late"));
}

#[test]
fn a_dangling_link_makes_no_file_where_it_points() {
    let sample = interrupted(|tar| {
        tar.file(b"late", b"x");
    });
    let refused =
        unpack_while(&sample, |staging, outside| symlink(outside.join("new"), staging.join("late")).expect("a link"));
    assert!(refused.expect_err("refused").to_string().contains("staging/late"));
}

#[test]
fn a_directory_in_use_that_is_exchanged_for_a_link_is_not_written_to() {
    let sample = interrupted(|tar| {
        tar.file(b"early/evil", b"x");
    });
    let refused = unpack_while(&sample, |staging, outside| {
        fs::rename(staging.join("early"), staging.join("aside")).expect("moved");
        symlink(outside, staging.join("early")).expect("a link");
    });
    assert!(refused.expect_err("refused").to_string().contains("staging/early/evil"));
}

#[test]
fn a_directory_in_use_that_is_moved_out_is_not_written_to() {
    let sample = interrupted(|tar| {
        tar.file(b"early/evil", b"x");
    });
    let moved_to = std::cell::RefCell::new(PathBuf::new());
    let refused = unpack_while(&sample, |staging, outside| {
        *moved_to.borrow_mut() = outside.join("moved");
        if fs::rename(staging.join("early"), outside.join("moved")).is_err() {
            // Another file system: inside is as good.
            fs::rename(staging.join("early"), staging.join("moved")).expect("moved");
            *moved_to.borrow_mut() = staging.join("moved");
        }
        assert!(moved_to.borrow().join("0").exists());
    });
    refused.expect_err("refused");
    assert!(!moved_to.borrow().join("evil").exists(), "written into a directory that is not below staging");
}

#[test]
fn no_directory_is_made_in_one_that_was_moved_out() {
    let sample = interrupted(|tar| {
        tar.file(b"early/new/deep/evil", b"x");
    });
    let moved = std::cell::Cell::new(false);
    let refused = unpack_while(&sample, |staging, outside| {
        moved.set(fs::rename(staging.join("early"), outside.join("moved")).is_ok());
    });
    assert!(refused.is_err() || !moved.get());
    assert!(moved.get(), "the temporary directories lie on two file systems");
}

#[test]
fn a_link_is_made_through_no_planted_one() {
    let sample = interrupted(|tar| {
        tar.entry(b'2', b"early/link", 0o777, b"anything");
    });
    let refused = unpack_while(&sample, |staging, outside| {
        fs::rename(staging.join("early"), staging.join("aside")).expect("moved");
        symlink(outside, staging.join("early")).expect("a link");
    });
    assert!(refused.expect_err("refused").to_string().contains("staging/early"));
}

#[test]
fn a_hard_link_reaches_nothing_through_a_planted_one() {
    let sample = interrupted(|tar| {
        tar.entry(b'1', b"late", 0o644, b"early/0");
    });
    let refused = unpack_while(&sample, |staging, outside| {
        fs::rename(staging.join("early"), staging.join("aside")).expect("moved");
        fs::write(outside.join("moved"), b"").expect("a file");
        symlink(outside, staging.join("early")).expect("a link");
    });
    assert!(refused.expect_err("refused").to_string().contains("early/0"));
}
