//! The seam between what must survive a crash and the tests that crash it.
//!
//! Whoever changes install directories or the journal tells each step here once it is done. Nobody
//! listens in a node; the crash campaign does: it kills the process after a step of its choice, or
//! writes the steps down and plays a prefix of them back as a disk that lost power would have kept it.
//! A step that is not told is one that the campaign cannot take apart, so new ones are told too.

use std::path::PathBuf;
use std::sync::OnceLock;

/// A change that was made, or made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// A directory was made.
    MakeDir(PathBuf),
    /// An empty file was made.
    CreateFile(PathBuf),
    /// Bytes were added to the end of a file.
    Append {
        /// The file.
        path: PathBuf,
        /// What was added.
        bytes: &'a [u8],
    },
    /// A symbolic link was made.
    Symlink {
        /// The link.
        path: PathBuf,
        /// Its text.
        target: PathBuf,
    },
    /// A file got another name.
    HardLink {
        /// The name that it had.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// An entry was moved, replacing what had the new name.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// A file's bytes are durable.
    SyncFile(PathBuf),
    /// A directory's entries are durable.
    SyncDir(PathBuf),
    /// Everything at and below a directory is durable.
    SyncTree(PathBuf),
    /// A file or link was removed.
    RemoveFile(PathBuf),
    /// A directory was removed with all that was in it.
    RemoveTree(PathBuf),
    /// A transaction of the state database is durable.
    Committed,
}

impl Step<'_> {
    /// The kind of step, one word in snake case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MakeDir(_) => "make_dir",
            Self::CreateFile(_) => "create_file",
            Self::Append { .. } => "append",
            Self::Symlink { .. } => "symlink",
            Self::HardLink { .. } => "hard_link",
            Self::Rename { .. } => "rename",
            Self::SyncFile(_) => "sync_file",
            Self::SyncDir(_) => "sync_dir",
            Self::SyncTree(_) => "sync_tree",
            Self::RemoveFile(_) => "remove_file",
            Self::RemoveTree(_) => "remove_tree",
            Self::Committed => "committed",
        }
    }
}

type Listener = Box<dyn Fn(&Step<'_>) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has `listener` told of every step of this process, on the thread that took it. Once a process:
/// `false` when somebody listens already.
pub fn listen(listener: impl Fn(&Step<'_>) + Send + Sync + 'static) -> bool {
    LISTENER.set(Box::new(listener)).is_ok()
}

/// A step was taken. Without a listener this costs one load.
pub(crate) fn tell<'a>(step: impl FnOnce() -> Step<'a>) {
    if let Some(listener) = LISTENER.get() {
        listener(&step());
    }
}
