//! The installer shell: directories, links and nothing else. It is told what to do by the engine
//! and decides nothing.
//!
//! Layout of a subscription's directory:
//!
//! ```text
//! <dir>/releases/<version>-<hash8>/   one complete, verified tree a kept release
//! <dir>/current -> releases/<version>-<hash8>
//! <dir>/staging/<transaction>/        an unpacking in progress, on the same file system
//! ```
//!
//! Every step may be repeated, and each leaves `current` resolving to a complete tree whatever
//! happens in the middle of it.

pub mod collect;
mod http;
pub mod in_use;
mod process;
mod systemd;
mod trial;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use updraft_protocol::release::Release;

use crate::archive::{self, ArchiveError, Expected};
use crate::atomic;
use crate::engine::install::{Fault, StepFailure};

pub use process::Ended;
pub use trial::{activate, check, is_started};

/// Free bytes that must remain after unpacking.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes that an entry may cost beside its content.
const ENTRY_BYTES: u64 = 4096;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is not enough room.
    #[error(
        "{path} has room for {available} bytes and {available_entries} files; {needed} bytes and {needed_entries} files are needed; make room there"
    )]
    NoRoom {
        /// The subscription's directory.
        path: PathBuf,
        /// Free bytes.
        available: u64,
        /// Free inodes.
        available_entries: u64,
        /// Bytes needed.
        needed: u64,
        /// Inodes needed.
        needed_entries: u64,
    },
    /// Something that is not ours is in the way.
    #[error("{path} exists and was not made by updraft; move it away")]
    InTheWay {
        /// What is in the way.
        path: PathBuf,
    },
    /// The release that `current` should point at is not there.
    #[error("{path} is not a complete release")]
    NotARelease {
        /// The missing tree.
        path: PathBuf,
    },
    /// What must be renamed into each other lies on two file systems.
    #[error("{path} lies on another file system than {other}; keep the whole install directory on one")]
    Apart {
        /// One directory.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// The tree that would be replaced is run from, by a process that outlived its release.
    #[error("process {pid} runs from {path}, which would be replaced; end it")]
    InUse {
        /// The tree.
        path: PathBuf,
        /// One of the processes.
        pid: u32,
    },
    /// The artifact cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl InstallError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The failure as the engine takes it.
    pub fn into_failure(self) -> StepFailure {
        let fault = match &self {
            // A file that somebody touched while it was read says nothing of the release.
            Self::Archive(ArchiveError::Cancelled | ArchiveError::Changed(_)) => Fault::Moment,
            Self::Archive(ArchiveError::Io { .. } | ArchiveError::Output(_))
            | Self::Io { .. }
            | Self::NoRoom { .. }
            | Self::InTheWay { .. }
            | Self::InUse { .. }
            | Self::Apart { .. } => Fault::Place,
            Self::Archive(_) | Self::NotARelease { .. } => Fault::Release,
        };
        let advice = self.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        StepFailure { reason: format!("{self}{advice}"), fault }
    }

    /// What to do where the system refused: its own words only say that it did.
    fn advice(&self) -> Option<&'static str> {
        let (Self::Io { source, .. } | Self::Archive(ArchiveError::Io { cause: source, .. })) = self else {
            return None;
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room there"),
            io::ErrorKind::ReadOnlyFilesystem => Some("mount it writable; `dmesg` says whether the disk fails"),
            io::ErrorKind::PermissionDenied => Some("let the user that the node runs as write there"),
            _ => None,
        }
    }
}

/// One subscription's directory.
#[derive(Debug, Clone)]
pub struct InstallDir {
    root: PathBuf,
}

impl InstallDir {
    /// The directory at `root`, which need not exist yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    fn staging(&self, transaction: &str) -> PathBuf {
        self.root.join("staging").join(transaction)
    }

    /// The link that programs are started through.
    pub fn current_link(&self) -> PathBuf {
        self.root.join("current")
    }

    /// The name below `releases/` that `current` points at, however it was made to.
    pub fn current(&self) -> Option<String> {
        self.current_as_switched().or_else(|| {
            let target = fs::canonicalize(self.current_link()).ok()?;
            let is_tree = target.parent() == Some(&fs::canonicalize(self.releases()).ok()?) && target.is_dir();
            is_tree.then(|| target.file_name()?.to_str().map(str::to_owned)).flatten()
        })
    }

    fn current_as_switched(&self) -> Option<String> {
        let target = fs::read_link(self.current_link()).ok()?;
        let mut parts = target.components();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Component::Normal(releases)), Some(Component::Normal(name)), None) if releases == "releases" => {
                name.to_str().map(str::to_owned)
            }
            _ => None,
        }
    }

    fn prepare(&self) -> Result<(), InstallError> {
        let all = [self.root.clone(), self.releases(), self.root.join("staging")];
        let mut device = None;
        for directory in &all {
            atomic::make_dirs(directory).map_err(InstallError::io("create", directory))?;
            // A file system that was mounted read-only, or went so, says it here.
            rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
                .map_err(io::Error::from)
                .map_err(InstallError::io("write in", directory))?;
            let found = fs::metadata(directory).map_err(InstallError::io("look at", directory))?.dev();
            if *device.get_or_insert(found) != found {
                return Err(InstallError::Apart { path: directory.clone(), other: self.root.clone() });
            }
        }
        match fs::symlink_metadata(self.current_link()) {
            Ok(found) if !found.file_type().is_symlink() => Err(InstallError::InTheWay { path: self.current_link() }),
            _ => Ok(()),
        }
    }

    fn check_room(&self, release: &Release) -> Result<(), InstallError> {
        let found = rustix::fs::statvfs(&self.root)
            .map_err(io::Error::from)
            .map_err(InstallError::io("look at", &self.root))?;
        let available = found.f_bavail.saturating_mul(found.f_frsize);
        let entries = release.content.entries;
        let needed =
            release.content.length.saturating_add(entries.saturating_mul(ENTRY_BYTES)).saturating_add(RESERVE_BYTES);
        // File systems that make inodes as needed report none at all.
        let short_of_inodes = found.f_files > 0 && found.f_favail < entries;
        if available < needed || short_of_inodes {
            return Err(InstallError::NoRoom {
                path: self.root.clone(),
                available,
                available_entries: found.f_favail,
                needed,
                needed_entries: entries,
            });
        }
        Ok(())
    }

    /// Whether nothing runs from the tree of this name, if it is there: what runs is not replaced under itself.
    fn check_unused(&self, release_dir: &str) -> Result<(), InstallError> {
        if !self.has(release_dir) {
            return Ok(());
        }
        let path = self.releases().join(release_dir);
        let used =
            in_use::in_use(&self.releases(), &self.current_link()).map_err(InstallError::io("see who uses", &path))?;
        match used.get(release_dir) {
            Some(&pid) => Err(InstallError::InUse { path, pid }),
            None => Ok(()),
        }
    }

    /// Unpacks `artifact` and makes it `releases/<release_dir>`, verified and durable. `go_on` is
    /// asked now and then whether to go on.
    pub fn stage(
        &self,
        transaction: &str,
        release: &Release,
        artifact: &Path,
        release_dir: &str,
        go_on: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), InstallError> {
        self.prepare()?;
        let target = self.releases().join(release_dir);
        if self.current().as_deref() == Some(release_dir) && target.is_dir() {
            return Ok(());
        }
        self.check_unused(release_dir)?;
        self.discard(transaction)?;
        self.check_room(release)?;
        let staging = self.staging(transaction);
        atomic::make_dir(&staging).map_err(InstallError::io("create", &staging))?;
        let expected = Expected { artifact: release.artifact, length: release.length, content: release.content };
        let mut report = |progress: &archive::Progress| go_on(progress.bytes_done, progress.bytes_total);
        archive::unpack(artifact, release.format, release.file_name.as_str(), &expected, &staging, &mut report)
            .inspect_err(|_| {
                // What was unpacked so far is of no use to anybody; the error that matters is the first.
                let _ = self.discard(transaction);
            })?;
        self.retire(release_dir)?;
        atomic::rename(&staging, &target).map_err(InstallError::io("rename to", &target))
    }

    /// Points `current` at `releases/<release_dir>`. An error says that it does not.
    pub fn switch(&self, release_dir: &str) -> Result<(), InstallError> {
        self.point_at(release_dir).or_else(|error| self.unless_there(release_dir, error))
    }

    fn point_at(&self, release_dir: &str) -> Result<(), InstallError> {
        self.prepare()?;
        let target = self.releases().join(release_dir);
        if !target.is_dir() {
            return Err(InstallError::NotARelease { path: target });
        }
        let relative = Path::new("releases").join(release_dir);
        let link = self.current_link();
        atomic::replace_symlink(&link, &relative).map_err(InstallError::io("switch", &link))
    }

    /// The link may have moved before the error came. Then it is the new release that runs, and whoever
    /// decides what follows must know; that the link survives a power cut is tried once more.
    fn unless_there(&self, release_dir: &str, error: InstallError) -> Result<(), InstallError> {
        if self.current().as_deref() != Some(release_dir) || !self.has(release_dir) {
            return Err(error);
        }
        if let Err(cause) = atomic::sync_dir(&self.root) {
            tracing::warn!(%error, %cause, "the link was switched, and might not survive a power cut");
        }
        Ok(())
    }

    /// Removes what an attempt left in staging.
    pub fn discard(&self, transaction: &str) -> Result<(), InstallError> {
        Self::remove_tree(&self.staging(transaction))
    }

    /// Whether the tree of this name is there, which means that it is whole.
    pub fn has(&self, release_dir: &str) -> bool {
        self.releases().join(release_dir).is_dir()
    }

    fn remove_tree(path: &Path) -> Result<(), InstallError> {
        atomic::remove_tree(path).map_err(InstallError::io("remove", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(names: &[&str]) -> (tempfile::TempDir, InstallDir) {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let directory = InstallDir::new(scratch.path());
        for name in names {
            fs::create_dir_all(scratch.path().join("releases").join(name)).expect("writable");
        }
        (scratch, directory)
    }

    #[test]
    fn current_follows_the_switch_and_is_never_missing() {
        let (scratch, directory) = installed(&["1.0.0-aa", "1.1.0-bb"]);
        assert_eq!(directory.current(), None);
        directory.switch("1.0.0-aa").expect("it exists");
        assert_eq!(directory.current().as_deref(), Some("1.0.0-aa"));
        directory.switch("1.1.0-bb").expect("it exists");
        directory.switch("1.1.0-bb").expect("a step may be repeated");
        assert_eq!(directory.current().as_deref(), Some("1.1.0-bb"));
        assert!(scratch.path().join("current").is_dir());
    }

    #[test]
    fn a_release_that_is_not_there_is_not_switched_to() {
        let (_scratch, directory) = installed(&["1.0.0-aa"]);
        directory.switch("1.0.0-aa").expect("it exists");
        assert!(matches!(directory.switch("2.0.0-cc"), Err(InstallError::NotARelease { .. })));
        assert_eq!(directory.current().as_deref(), Some("1.0.0-aa"));
    }

    #[test]
    fn a_switch_that_failed_after_the_link_had_moved_is_one_that_was_made() {
        let (scratch, directory) = installed(&["1.0.0-aa", "1.1.0-bb"]);
        directory.switch("1.1.0-bb").expect("it exists");
        let error = || InstallError::io("switch", scratch.path())(io::Error::other("the disk"));
        assert!(directory.unless_there("1.1.0-bb", error()).is_ok());
        assert!(directory.unless_there("1.0.0-aa", error()).is_err());
        fs::remove_dir(scratch.path().join("releases/1.1.0-bb")).expect("it was made above");
        assert!(directory.unless_there("1.1.0-bb", error()).is_err(), "a link to nothing is no release");
    }

    #[test]
    fn a_refusal_of_the_system_says_what_to_do() {
        let refused = |errno: rustix::io::Errno| {
            let error = ArchiveError::Io { action: "write", path: "/opt/app".into(), cause: errno.into() };
            InstallError::Archive(error).into_failure()
        };
        let full = refused(rustix::io::Errno::NOSPC);
        assert_eq!(full.fault, Fault::Place);
        assert!(full.reason.contains("/opt/app") && full.reason.ends_with("; make room there"), "{}", full.reason);
        assert!(refused(rustix::io::Errno::ROFS).reason.contains("mount it writable"));
        assert!(refused(rustix::io::Errno::ACCESS).reason.contains("the user that the node runs as"));
    }

    #[test]
    fn a_tree_that_a_process_runs_from_is_not_unpacked_again() {
        let (scratch, directory) = installed(&["1.0.0-aa"]);
        assert!(directory.check_unused("1.0.0-aa").is_ok());
        assert!(directory.check_unused("2.0.0-cc").is_ok(), "it is not there");
        if !cfg!(target_os = "linux") {
            return;
        }
        let mut sleep = std::process::Command::new("sleep");
        let mut child = sleep.arg("600").current_dir(scratch.path().join("releases/1.0.0-aa")).spawn().expect("sleep");
        let failure = directory.check_unused("1.0.0-aa").map_err(InstallError::into_failure);
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        let failure = failure.expect_err("it is used");
        assert_eq!(failure.fault, Fault::Place);
        assert!(failure.reason.contains(&format!("process {}", child.id())), "{}", failure.reason);
        assert!(directory.check_unused("1.0.0-aa").is_ok());
    }

    #[test]
    fn a_directory_in_the_place_of_the_link_is_left_alone() {
        let (scratch, directory) = installed(&["1-a"]);
        fs::create_dir(scratch.path().join("current")).expect("writable");
        assert!(matches!(directory.switch("1-a"), Err(InstallError::InTheWay { .. })));
    }
}
