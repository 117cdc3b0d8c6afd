//! The client workflow of TUF section 5: fetch, let [`Trusted`] judge, keep what it took, step by step.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use updraft_protocol::limits::{MAX_ROOT_BYTES, MAX_ROOT_ROTATIONS, MAX_SNAPSHOT_BYTES, MAX_TIMESTAMP_BYTES};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{Change, Expiry, Resolution, RoleName, RoleRequest, TargetInfo, Trusted, TufError};

use super::fetch::{FetchError, Server};
use super::folder::{self, Folder};

/// Why metadata is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no trusted root yet, or it cannot be read.
    #[error("no trusted root in {file}: {error}; `init` puts one there")]
    NoRoot {
        /// Where it should be.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// The directory, or a file in it, cannot be used.
    #[error("{path}: {error}")]
    Folder {
        /// What.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// Metadata that is not valid.
    #[error(transparent)]
    Invalid(#[from] TufError),
    /// Metadata that did not arrive.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The snapshot lists no top-level targets.
    #[error("the snapshot does not list the role targets")]
    NoTargets,
    /// A role that is asked for again after it was loaded: the search would not end.
    #[error("the role {0} is needed again after it was loaded")]
    Circle(RoleName),
}

fn in_folder(path: &Path) -> impl Fn(io::Error) -> UpdateError {
    let path = path.display().to_string();
    move |error| UpdateError::Folder { path: path.clone(), error }
}

/// Trusts the root in the file `root` from now on (TUF 5.2): it must at least be signed by itself.
pub(super) fn init(metadata: &Path, root: &Path) -> Result<(), UpdateError> {
    let bytes = folder::read_bounded(root, MAX_ROOT_BYTES).map_err(in_folder(root))?;
    Trusted::from_trusted_root(&bytes)?;
    let folder = Folder::create(metadata).map_err(in_folder(metadata))?;
    folder.write(&RoleName::root(), &bytes).map_err(in_folder(metadata))
}

/// A client at work on one update.
#[derive(Debug)]
pub(super) struct Updater {
    folder: Folder,
    server: Server,
    trusted: Trusted,
    expiry: Expiry,
}

impl Updater {
    /// Starts from what is trusted on disk. Expiry does not matter yet: an old timestamp and an old
    /// snapshot protect from rollback however old they are. Files that do not verify are as good as
    /// none.
    pub(super) fn open(metadata: &Path, server: Server, now: UtcTime) -> Result<Self, UpdateError> {
        let folder = Folder::open(metadata).map_err(in_folder(metadata))?;
        let file = metadata.join("root.json");
        let root = folder::read_bounded(&file, MAX_ROOT_BYTES)
            .map_err(|error| UpdateError::NoRoot { file: file.display().to_string(), error })?;
        let mut trusted = Trusted::from_trusted_root(&root)?;
        if let Some(bytes) = folder.read(&RoleName::timestamp(), MAX_TIMESTAMP_BYTES) {
            let _ = trusted.update_timestamp(&bytes, Expiry::Deferred);
        }
        let mut updater = Self { folder, server, trusted, expiry: Expiry::Enforce(now) };
        updater.load_snapshot();
        Ok(updater)
    }

    /// Takes the snapshot on disk, which needs a timestamp, though it may be overtaken.
    fn load_snapshot(&mut self) {
        if let Some(bytes) = self.folder.read(&RoleName::snapshot(), MAX_SNAPSHOT_BYTES) {
            let _ = self.trusted.update_snapshot(&bytes, Expiry::Deferred);
        }
    }

    /// Whether file names carry a version or a hash (TUF 5.3.12).
    pub(super) fn consistent_snapshot(&self) -> bool {
        self.trusted.root().consistent_snapshot
    }

    /// Brings the top-level metadata up to date (TUF 5.3 to 5.6.6).
    pub(super) fn refresh(&mut self) -> Result<(), UpdateError> {
        self.update_root()?;
        self.update_timestamp()?;
        self.update_snapshot()?;
        let targets = self.trusted.missing_roles().into_iter().find(|request| request.role == RoleName::targets());
        if let Some(request) = targets {
            self.update_role(&request)?;
        }
        self.trusted.role(&RoleName::targets()).map(drop).ok_or(UpdateError::NoTargets)
    }

    /// TUF 5.3.
    fn update_root(&mut self) -> Result<(), UpdateError> {
        for _ in 0..MAX_ROOT_ROTATIONS {
            let Some(next) = self.trusted.root().version.checked_add(1) else {
                break;
            };
            let bytes = match self.server.file(&format!("{next}.root.json"), MAX_ROOT_BYTES) {
                Ok(bytes) => bytes,
                Err(FetchError::Absent(_)) => break,
                Err(error) => return Err(error.into()),
            };
            self.trusted.update_root(&bytes)?;
            // TUF 5.3.11, before the root is kept: a process that is killed in between finds the same
            // root again and loses nothing. In the other order it would keep versions that a thief pushed
            // forward.
            if self.trusted.timestamp().is_none() {
                self.remove(&RoleName::timestamp())?;
            }
            if self.trusted.snapshot().is_none() {
                self.remove(&RoleName::snapshot())?;
            }
            self.keep(&RoleName::root(), &bytes)?;
        }
        Ok(self.trusted.check_root(self.expiry)?)
    }

    /// TUF 5.4.
    fn update_timestamp(&mut self) -> Result<(), UpdateError> {
        let bytes = self.server.file("timestamp.json", MAX_TIMESTAMP_BYTES)?;
        match self.trusted.update_timestamp(&bytes, self.expiry)? {
            Change::New => self.keep(&RoleName::timestamp(), &bytes),
            Change::Same => Ok(()),
        }
    }

    /// TUF 5.5.
    fn update_snapshot(&mut self) -> Result<(), UpdateError> {
        if self.trusted.snapshot().is_none() {
            // There was no timestamp to check it by at the start.
            self.load_snapshot();
        }
        let Some(request) = self.trusted.missing_snapshot() else {
            return Ok(());
        };
        let bytes = self.server.file(&self.file_name(&request), request.max_length)?;
        match self.trusted.update_snapshot(&bytes, self.expiry)? {
            Change::New => self.keep(&request.role, &bytes),
            Change::Same => Ok(()),
        }
    }

    /// TUF 5.6, for the top-level role and for delegated ones alike: the file on disk where it is the
    /// one that is needed, signed as its delegator asks today, else the server's.
    fn update_role(&mut self, request: &RoleRequest) -> Result<(), UpdateError> {
        if let Some(bytes) = self.folder.read(&request.role, request.max_length)
            && self.trusted.update_targets(&request.role, &bytes, self.expiry).is_ok()
        {
            return Ok(());
        }
        let bytes = self.server.file(&self.file_name(request), request.max_length)?;
        let _ = self.trusted.update_targets(&request.role, &bytes, self.expiry)?;
        self.keep(&request.role, &bytes)
    }

    /// Looks a target up, loading the roles on the way (TUF 5.6.7).
    pub(super) fn target(&mut self, path: &str) -> Result<Option<TargetInfo>, UpdateError> {
        let mut loaded = BTreeSet::new();
        loop {
            match self.trusted.resolve(path) {
                Resolution::Found { target, .. } => return Ok(Some(target)),
                Resolution::NotFound => return Ok(None),
                Resolution::Needs(request) => {
                    self.update_role(&request)?;
                    if !loaded.insert(request.role.clone()) {
                        return Err(UpdateError::Circle(request.role));
                    }
                }
            }
        }
    }

    /// The name of a role's file on the server.
    fn file_name(&self, request: &RoleRequest) -> String {
        let stem = request.role.file_stem();
        if self.consistent_snapshot() { format!("{}.{stem}.json", request.version) } else { format!("{stem}.json") }
    }

    fn keep(&self, role: &RoleName, bytes: &[u8]) -> Result<(), UpdateError> {
        self.folder.write(role, bytes).map_err(|error| UpdateError::Folder { path: role.to_string(), error })
    }

    fn remove(&self, role: &RoleName) -> Result<(), UpdateError> {
        self.folder.remove(role).map_err(|error| UpdateError::Folder { path: role.to_string(), error })
    }
}
