//! Which releases of a directory stay, and how the others go.
//!
//! A tree that goes is first moved out of `releases/` and only then taken apart: whatever instant a crash
//! picks, what stands in `releases/` is whole. Never removed is what `current` points at, what the caller
//! names, and what a process runs from.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use super::in_use::in_use;
use super::{InstallDir, InstallError};
use crate::atomic;

/// Begins the names below `staging/` of trees on their way out. No transaction is named like this.
const LEAVING: &str = "leaving-";

/// Why a tree stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stays {
    /// `current` points at it.
    Current,
    /// It is installed, was so before, or is being installed.
    Kept,
    /// One of the newest of the others, of which some are kept.
    Spare,
    /// A process of this id runs from it.
    Running(u32),
    /// Nobody can tell whether a process runs from it.
    Unknown(String),
}

/// A tree below `releases/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its name.
    pub name: String,
    /// Why it stays; `None` where it goes.
    pub stays: Option<Stays>,
}

impl InstallDir {
    /// Every tree below `releases/`, newest first, and which of them go: all but those named in `keep`, the
    /// one that `current` points at, those in use, and the newest of the others while `at_least` are not
    /// reached.
    pub fn survey(&self, keep: &[String], at_least: u32) -> Result<Vec<Tree>, InstallError> {
        let current = self.current();
        let names = self.by_age()?;
        let kept = |name: &String| {
            if current.as_ref() == Some(name) {
                return Some(Stays::Current);
            }
            keep.contains(name).then_some(Stays::Kept)
        };
        let certain = names.iter().filter(|name| kept(name).is_some()).count();
        let mut room = usize::try_from(at_least).unwrap_or(usize::MAX).saturating_sub(certain);
        let mut trees: Vec<Tree> = Vec::with_capacity(names.len());
        for name in names {
            let stays = kept(&name).or_else(|| {
                room = room.checked_sub(1)?;
                Some(Stays::Spare)
            });
            trees.push(Tree { name, stays });
        }
        if trees.iter().any(|tree| tree.stays.is_none()) {
            spare(&mut trees, &in_use(&self.releases(), &self.current_link()));
        }
        Ok(trees)
    }

    /// Removes what [`InstallDir::survey`] says goes, and every attempt. What cannot be removed keeps nothing
    /// else: the error is the first of several. Nothing may be unpacking in this directory meanwhile.
    pub fn collect(&self, keep: &[String], at_least: u32) -> Result<(), InstallError> {
        let mut outcome = Ok(());
        for tree in self.survey(keep, at_least)?.into_iter().filter(|tree| tree.stays.is_none()) {
            outcome = outcome.and(self.retire(&tree.name));
        }
        for name in directories(&self.root.join("staging"))? {
            outcome = outcome.and(Self::remove_tree(&self.staging(&name)));
        }
        outcome.and(self.remove_cut_short())
    }

    /// Removes the links of switches that were cut short. Files of that kind are not this program's: a
    /// launcher keeps its memory here, and may be writing it now.
    fn remove_cut_short(&self) -> Result<(), InstallError> {
        let links = named(&self.root, fs::FileType::is_symlink)?;
        for name in links.iter().filter(|name| atomic::is_temp_name(OsStr::new(name))) {
            let path = self.root.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(InstallError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes `releases/<name>`, which is whole there until it is gone from there.
    pub(super) fn retire(&self, name: &str) -> Result<(), InstallError> {
        let tree = self.releases().join(name);
        let leaving = self.staging(&format!("{LEAVING}{name}"));
        let staging = self.root.join("staging");
        atomic::make_dirs(&staging).map_err(InstallError::io("create", &staging))?;
        Self::remove_tree(&leaving)?;
        match atomic::rename(&tree, &leaving) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(InstallError::io("move out", &tree)(error)),
            Ok(()) => Self::remove_tree(&leaving),
        }
    }

    /// Bytes of the files of `releases/<name>`. What cannot be read counts nothing.
    pub fn tree_bytes(&self, name: &str) -> u64 {
        let mut bytes = 0_u64;
        let mut open = vec![self.releases().join(name)];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                    Ok(metadata) => bytes = bytes.saturating_add(metadata.len()),
                    Err(_) => {}
                }
            }
        }
        bytes
    }

    /// The names of the trees below `releases/`, in no order. What is no directory was put there by somebody
    /// else, and is his.
    pub fn names(&self) -> Result<Vec<String>, InstallError> {
        directories(&self.releases())
    }

    /// The names below `releases/`, newest first.
    fn by_age(&self) -> Result<Vec<String>, InstallError> {
        let directory = self.releases();
        let mut aged: Vec<_> = self
            .names()?
            .into_iter()
            .filter_map(|name| Some((fs::symlink_metadata(directory.join(&name)).ok()?.modified().ok()?, name)))
            .collect();
        aged.sort();
        Ok(aged.into_iter().rev().map(|(_, name)| name).collect())
    }
}

/// Keeps those that would go and are in use, or may be.
fn spare(trees: &mut [Tree], used: &io::Result<BTreeMap<String, u32>>) {
    for tree in trees.iter_mut().filter(|tree| tree.stays.is_none()) {
        tree.stays = match used {
            Ok(used) => used.get(&tree.name).copied().map(Stays::Running),
            Err(error) => Some(Stays::Unknown(error.to_string())),
        };
    }
}

/// The names of the directories in a directory, which need not exist. Names that are no text are nobody's here.
fn directories(directory: &Path) -> Result<Vec<String>, InstallError> {
    named(directory, fs::FileType::is_dir)
}

/// The entries of a directory of a kind; none where it is missing.
fn named(directory: &Path, is_kind: fn(&fs::FileType) -> bool) -> Result<Vec<String>, InstallError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(InstallError::io("read", directory)(error)),
    };
    let name =
        |entry: fs::DirEntry| Ok(is_kind(&entry.file_type()?).then(|| entry.file_name().into_string().ok()).flatten());
    let names: io::Result<Vec<Option<String>>> = entries.map(|entry| entry.and_then(name)).collect();
    Ok(names.map_err(InstallError::io("read", directory))?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn installed(names: &[&str]) -> (tempfile::TempDir, InstallDir) {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let directory = InstallDir::new(scratch.path());
        for name in names {
            let tree = scratch.path().join("releases").join(name);
            fs::create_dir_all(&tree).expect("writable");
            fs::write(tree.join("file"), b"seven b").expect("writable");
        }
        (scratch, directory)
    }

    fn all(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("readable");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("readable").file_name().into_string().expect("text");
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    fn left(directory: &InstallDir) -> Vec<String> {
        all(&directory.releases())
    }

    #[test]
    fn collecting_removes_the_links_of_switches_and_no_file_that_a_launcher_writes() {
        let (scratch, directory) = installed(&["1-a"]);
        directory.switch("1-a").expect("it exists");
        let (link, file) = (scratch.path().join(".updraft-tmp-1-1"), scratch.path().join(".updraft-tmp-2-1"));
        symlink("releases/1-a", &link).expect("writable");
        fs::write(&file, b"{}").expect("writable");
        directory.collect(&[], 1).expect("removable");
        assert!(fs::symlink_metadata(&link).is_err() && file.exists());
        assert_eq!(directory.current().as_deref(), Some("1-a"));
    }

    #[test]
    fn collecting_spares_what_is_kept_and_what_is_current() {
        let (_scratch, directory) = installed(&["1-a", "2-b", "3-c", "4-d"]);
        directory.switch("2-b").expect("it exists");
        directory.collect(&["4-d".to_owned()], 2).expect("removable");
        assert_eq!(left(&directory), ["2-b", "4-d"]);
    }

    #[test]
    fn the_newest_of_the_others_stay_while_there_are_too_few() {
        let (_scratch, directory) = installed(&["1-a", "2-b", "3-c"]);
        directory.switch("1-a").expect("it exists");
        let survey = directory.survey(&[], 2).expect("readable");
        assert_eq!(survey.iter().filter(|tree| tree.stays == Some(Stays::Spare)).count(), 1);
        assert_eq!(survey.iter().filter(|tree| tree.stays.is_none()).count(), 1);
        directory.collect(&[], 1).expect("removable");
        assert_eq!(left(&directory), ["1-a"]);
    }

    #[test]
    fn a_release_that_runs_is_spared_until_it_ends() {
        let (scratch, directory) = installed(&["1-a", "2-b"]);
        directory.switch("2-b").expect("it exists");
        let program = scratch.path().join("releases/1-a/sleep");
        fs::copy("/bin/sleep", &program).expect("a program");
        let mut child = Command::new(&program).arg("60").spawn().expect("it starts");
        directory.collect(&[], 1).expect("nothing to remove");
        let survey = directory.survey(&[], 1).expect("readable");
        let old = survey.iter().find(|tree| tree.name == "1-a").expect("still there");
        let stays = old.stays.clone();
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert_eq!(stays, Some(Stays::Running(child.id())));
        directory.collect(&[], 1).expect("removable");
        assert_eq!(left(&directory), ["2-b"]);
    }

    #[test]
    fn staging_and_leftover_links_go_too() {
        let (scratch, directory) = installed(&["1-a"]);
        directory.switch("1-a").expect("it exists");
        fs::create_dir_all(scratch.path().join("staging/7/deep")).expect("writable");
        symlink("releases/9", scratch.path().join(".updraft-tmp-1-1")).expect("writable");
        directory.collect(&[], 2).expect("removable");
        assert_eq!(all(scratch.path()), ["current", "releases", "staging"]);
        assert_eq!(fs::read_dir(scratch.path().join("staging")).expect("readable").count(), 0);
    }

    #[test]
    fn one_tree_that_cannot_go_keeps_no_other() {
        let (scratch, directory) = installed(&["1-a", "2-b", "3-c"]);
        directory.switch("3-c").expect("it exists");
        fs::create_dir_all(scratch.path().join("staging/7")).expect("writable");
        // Where the first has to pass through.
        fs::write(scratch.path().join("staging/leaving-2-b"), b"in the way").expect("writable");
        fs::write(scratch.path().join("releases/README"), b"an operator's").expect("writable");
        let error = directory.collect(&[], 1).expect_err("somebody is told").to_string();
        assert!(error.contains("leaving-2-b"), "{error}");
        assert_eq!(left(&directory), ["2-b", "3-c", "README"]);
        assert!(!scratch.path().join("staging/7").exists());
    }

    #[test]
    fn a_tree_of_which_nobody_knows_stays() {
        let mut trees = vec![
            Tree { name: "1-a".to_owned(), stays: None },
            Tree { name: "2-b".to_owned(), stays: Some(Stays::Current) },
        ];
        spare(&mut trees, &Err(io::Error::other("no /proc")));
        let kept: Vec<_> = trees.into_iter().filter_map(|tree| tree.stays).collect();
        assert_eq!(kept, [Stays::Unknown("no /proc".to_owned()), Stays::Current]);
    }

    #[test]
    fn current_by_its_whole_path_is_current() {
        let (scratch, directory) = installed(&["1-a", "2-b"]);
        let target = scratch.path().join("releases/1-a");
        symlink(&target, directory.current_link()).expect("writable");
        assert_eq!(directory.current().as_deref(), Some("1-a"));
        directory.collect(&["2-b".to_owned()], 1).expect("removable");
        assert_eq!(left(&directory), ["1-a", "2-b"]);
        for elsewhere in ["/", "releases", "releases/1-a/file", "releases/none/../..", "/nonexistent/releases/1-a"] {
            fs::remove_file(directory.current_link()).expect("writable");
            symlink(elsewhere, directory.current_link()).expect("writable");
            assert_eq!(directory.current(), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_tree_is_measured_by_its_files() {
        let (_scratch, directory) = installed(&["1-a"]);
        assert_eq!(directory.tree_bytes("1-a"), 7);
        assert_eq!(directory.tree_bytes("none"), 0);
    }
}
