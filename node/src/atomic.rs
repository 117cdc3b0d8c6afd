//! The only way that a state file is replaced: a temporary file in the same directory, written,
//! fsynced, renamed over the old one, and the directory fsynced.
//!
//! A reader sees the old bytes or the new ones, after a `kill -9` and after a power cut too. What a
//! crash may leave behind is a temporary file whose name starts with [`TEMP_PREFIX`];
//! [`remove_leftovers`] clears those at start-up. Nothing else in the node may write a state file
//! in place.

pub mod steps;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use self::steps::{Step, tell};

/// How the name of every temporary file and link begins. No state file may be named like this.
pub const TEMP_PREFIX: &str = ".updraft-tmp-";

/// Names that one call may find taken before it gives up. Taken names are leftovers of a process
/// that had the same id; more of them than this means that somebody makes them on purpose.
const MAX_NAME_ATTEMPTS: u32 = 1024;

static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// Whether `name` is that of a temporary file made here.
pub fn is_temp_name(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())
}

/// A temporary path that is removed unless it was renamed away.
struct Leftover(Option<PathBuf>);

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Failing here leaves a file that the next start-up removes.
            let _ = fs::remove_file(path);
        }
    }
}

fn parent_of(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{}' has no parent directory", path.display())))
        }
    }
}

/// Calls `create` with unused temporary paths in `directory` until it no longer finds them taken.
fn with_temp_name<T>(directory: &Path, create: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, Leftover)> {
    for _ in 0..MAX_NAME_ATTEMPTS {
        let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{TEMP_PREFIX}{}-{number}", std::process::id()));
        match create(&path) {
            Ok(made) => return Ok((made, Leftover(Some(path)))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("'{}' is full of files named {TEMP_PREFIX}*; remove them", directory.display()),
    ))
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)
}

fn put_in_place(mut temp: Leftover, path: &Path) -> io::Result<()> {
    if let Some(from) = temp.0.as_ref() {
        fs::rename(from, path)?;
        tell(|| Step::Rename { from: from.clone(), to: path.into() });
        temp.0 = None;
    }
    sync_dir(parent_of(path)?)
}

/// Replaces the file at `path` by `bytes`, readable by whom `mode` says (`0o600`, `0o644`; the
/// process's umask still applies). After `Ok` the new bytes survive a power cut.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (mut file, temp) = with_temp_name(parent_of(path)?, |name| create_new(name, mode))?;
    let name = || temp.0.clone().unwrap_or_default();
    tell(|| Step::CreateFile(name()));
    file.write_all(bytes)?;
    tell(|| Step::Append { path: name(), bytes });
    file.sync_all()?;
    tell(|| Step::SyncFile(name()));
    drop(file);
    put_in_place(temp, path)
}

/// Makes `link` a symbolic link to `target`, replacing a file or link that has this name. At every
/// moment `link` leads to the old target or the new one.
#[cfg(unix)]
pub fn replace_symlink(link: &Path, target: &Path) -> io::Result<()> {
    let ((), temp) = with_temp_name(parent_of(link)?, |name| std::os::unix::fs::symlink(target, name))?;
    tell(|| Step::Symlink { path: temp.0.clone().unwrap_or_default(), target: target.into() });
    put_in_place(temp, link)
}

/// Makes `path` another name of the file `existing` (same file system), replacing a file that has this
/// name.
///
/// The directory is somebody else's, whom nothing else tidies up after: a temporary name is used only where
/// there is a file to replace, and those that a crash left of this very file are removed then.
pub fn replace_by_link(existing: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(existing, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => {
            linked?;
            tell(|| Step::HardLink { from: existing.into(), to: path.into() });
            return sync_dir(parent_of(path)?);
        }
    }
    remove_names_of(existing, parent_of(path)?)?;
    let ((), temp) = with_temp_name(parent_of(path)?, |name| fs::hard_link(existing, name))?;
    let name = temp.0.clone();
    tell(|| Step::HardLink { from: existing.into(), to: name.clone().unwrap_or_default() });
    put_in_place(temp, path)?;
    // Where `path` was a name of this very file, renaming does nothing.
    name.map_or(Ok(()), |name| match fs::remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Removes temporary names of the file `existing` that a crash left in `directory`.
#[cfg(unix)]
fn remove_names_of(existing: &Path, directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let wanted = fs::metadata(existing)?;
    let Ok(entries) = fs::read_dir(directory) else {
        // A directory that may be written to and not listed: whoever set it up so has to look himself.
        return Ok(());
    };
    for entry in entries.filter_map(Result::ok).filter(|entry| is_temp_name(&entry.file_name())) {
        let is_same = |found: fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        if fs::symlink_metadata(entry.path()).is_ok_and(is_same) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn remove_names_of(_existing: &Path, _directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes the entries of `directory` (renames, new names, removals) survive a power cut.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    if cfg!(windows) {
        // Windows opens no directory for writing; its file systems journal renames themselves.
        return Ok(());
    }
    File::open(directory)?.sync_all()?;
    tell(|| Step::SyncDir(directory.into()));
    Ok(())
}

/// Makes the directory at `path` and those above it where they are missing. After `Ok` they survive a
/// power cut, as do names that others put into the directories above.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => {}
        // Whoever made it may have been killed before that was durable.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            return match sync_dir(parent_of(path)?) {
                // It lies where others rule, and was there before.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(parent_of(path)?)?;
            match fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    tell(|| Step::MakeDir(path.into()));
    sync_dir(parent_of(path)?)
}

/// Makes an empty directory that need not survive a power cut.
pub fn make_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    tell(|| Step::MakeDir(path.into()));
    Ok(())
}

/// Removes a directory and all that is in it, following no link. What a crash leaves of it is a part of a
/// tree: nothing that is meant to be whole is removed under the name that says so. That it is gone is
/// durable some time later.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    tell(|| Step::RemoveTree(path.into()));
    Ok(())
}

/// Moves `from` to `to` (same file system) and makes both directories' entries durable.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    tell(|| Step::Rename { from: from.into(), to: to.into() });
    let (source, target) = (parent_of(from)?, parent_of(to)?);
    sync_dir(target)?;
    if source == target { Ok(()) } else { sync_dir(source) }
}

/// Removes the file at `path` and makes that durable. `false` when there was none.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {
            tell(|| Step::RemoveFile(path.into()));
            sync_dir(parent_of(path)?).map(|()| true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes temporary files that a crash left in `directory`; returns their names. Only for
/// directories that no other process writes.
pub fn remove_leftovers(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_temp_name(&entry.file_name()) && !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
            removed.push(entry.file_name());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).expect("a readable directory");
        entries.map(|entry| entry.expect("a readable entry").file_name()).collect()
    }

    #[test]
    fn a_reader_sees_the_old_bytes_or_the_new_ones() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        let (old, new) = (vec![1u8; 100_000], vec![2u8; 150_000]);
        write(&path, &old, 0o600).expect("written");
        let done = AtomicBool::new(false);
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    write(&path, &new, 0o600).expect("written");
                    write(&path, &old, 0o600).expect("written");
                }
                done.store(true, Ordering::SeqCst);
            });
            start.wait();
            while !done.load(Ordering::SeqCst) {
                let seen = fs::read(&path).expect("always there");
                assert!(seen == old || seen == new, "{} bytes, mixed", seen.len());
            }
        });
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn a_write_that_cannot_be_put_in_place_leaves_the_old_and_no_litter() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("inside"), b"old").expect("written");
        assert!(write(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read(path.join("inside")).expect("still there"), b"old");
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn a_leftover_of_a_crash_is_neither_used_nor_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let next = NEXT_NAME.load(Ordering::Relaxed);
        for number in next..next + 40 {
            fs::write(directory.path().join(format!("{TEMP_PREFIX}{}-{number}", std::process::id())), b"half")
                .expect("written");
        }
        write(&directory.path().join("state"), b"whole", 0o600).expect("written");
        let removed = remove_leftovers(directory.path()).expect("removed");
        assert_eq!(removed.len(), 40);
        assert_eq!(names(directory.path()), ["state"]);
        assert_eq!(fs::read(directory.path().join("state")).expect("there"), b"whole");
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_is_that_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("secret");
        write(&path, b"x", 0o600).expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_without_ever_being_absent() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let link = directory.path().join("current");
        replace_symlink(&link, Path::new("releases/1")).expect("made");
        replace_symlink(&link, Path::new("releases/2")).expect("replaced");
        assert_eq!(fs::read_link(&link).expect("a link"), Path::new("releases/2"));
        assert_eq!(names(directory.path()), ["current"]);
    }

    #[test]
    fn a_file_gets_another_name_again_and_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, name) = (directory.path().join("data"), directory.path().join("name"));
        fs::write(&data, b"bytes").expect("written");
        fs::write(&name, b"something else").expect("written");
        for _ in 0..2 {
            replace_by_link(&data, &name).expect("linked");
            assert_eq!(fs::read(&name).expect("there"), b"bytes");
        }
        assert_eq!(names(directory.path()).len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_a_crash_left_of_a_file_goes_with_the_next_and_nobody_elses() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, name) = (directory.path().join("data"), directory.path().join("name"));
        fs::write(&data, b"bytes").expect("written");
        fs::hard_link(&data, directory.path().join(".updraft-tmp-1-1")).expect("linked");
        fs::write(directory.path().join(".updraft-tmp-1-2"), b"of another node").expect("written");
        fs::write(&name, b"something else").expect("written");
        replace_by_link(&data, &name).expect("linked");
        let mut left = names(directory.path());
        left.sort();
        assert_eq!(left, [".updraft-tmp-1-2", "data", "name"]);
    }

    #[test]
    fn directories_are_made_with_those_above_and_may_be_there_already() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let deep = directory.path().join("a/b/c");
        make_dirs(&deep).expect("made");
        make_dirs(&deep).expect("there already");
        assert!(deep.is_dir());
        fs::write(directory.path().join("file"), b"x").expect("written");
        assert!(make_dirs(&directory.path().join("file/below")).is_err());
        assert!(make_dirs(&directory.path().join("file")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_tree_is_removed_without_following_its_links() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        make_dirs(&tree.join("deep")).expect("made");
        fs::write(&outside, b"stays").expect("written");
        std::os::unix::fs::symlink(&outside, tree.join("deep/link")).expect("a link");
        remove_tree(&tree).expect("removed");
        remove_tree(&tree).expect("gone already");
        assert_eq!(names(directory.path()), ["outside"]);
    }

    #[test]
    fn removing_says_whether_there_was_something() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state");
        write(&path, b"x", 0o644).expect("written");
        assert!(remove(&path).expect("removed"));
        assert!(!remove(&path).expect("nothing to remove"));
    }
}
