//! Opening a data directory: the lock, the store, the state database, and which repository it is of.
//! Running nodes and commands on a stopped node's directory start here alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::limits::{MAX_ROOT_BYTES, MAX_TARGETS_BYTES};
use updraft_protocol::names::Product;
use updraft_protocol::ticket::{Ticket, TicketError};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::RepositoryId;

use crate::engine::catalog::{CatalogError, CatalogView, load_view};
use crate::engine::effect::Save;
use crate::publisher::keys::Keys;
use crate::publisher::{self, PENDING_PREFIX, PublishError};
use crate::store::MetadataDir;
use crate::store::state::{RepositoryRow, StateDb, StateError};
use crate::store::{Store, StoreError};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state database refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The ticket is not one.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The stored metadata does not verify.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A repository could not be made.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A node joins by a ticket, and there is none.
    #[error("{} belongs to no repository yet; join one (updraft peer --join TICKET) or make one (updraft init)", .0.display())]
    NoRepository(PathBuf),
    /// There is a repository already.
    #[error("{} already belongs to repository {repository}; use another --data-dir", .path.display())]
    HasRepository {
        /// The data directory.
        path: PathBuf,
        /// Its repository.
        repository: String,
    },
    /// The owner of a repository runs as its seed.
    #[error("{} holds a repository of its own: run `updraft seed` there, and the peer with another --data-dir", .0.display())]
    IsASeed(PathBuf),
    /// Only the owner of a repository can do that.
    #[error("{} is a peer's directory: it holds no keys to sign with; run this where `updraft init` was run", .0.display())]
    NotASeed(PathBuf),
}

/// An open data directory. The lock is held as long as this lives.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Artifacts, small targets, metadata files.
    pub store: Store,
    /// What must survive restarts and is no file.
    pub state: StateDb,
    /// Private keys, on a seed.
    pub keys: Keys,
    /// The repository.
    pub repository: RepositoryId,
    /// The ticket it was joined by; `None` where it was made.
    pub ticket: Option<Ticket>,
    /// The repository's metadata files.
    pub metadata: MetadataDir,
}

/// The wall clock, as signed metadata states time.
pub fn wall_clock() -> UtcTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UtcTime::from_unix(since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0))
}

impl Opened {
    /// Opens the directory of a node; `ticket` joins it where it belongs to no repository yet.
    pub fn open(data_dir: &Path, ticket: Option<&str>) -> Result<Self, OpenError> {
        let ticket: Option<Ticket> = ticket.map(str::parse).transpose()?;
        let store = Store::open(data_dir)?;
        for warning in store.warnings() {
            tracing::warn!("{warning}");
        }
        let state = StateDb::open(&store.state_path())?;
        let known = state.repositories()?.into_iter().next();
        let (repository, ticket) = match (known, ticket) {
            (Some(row), Some(ticket)) if row.id != ticket.repository.0 => {
                return Err(OpenError::HasRepository { path: data_dir.to_owned(), repository: row.id.to_string() });
            }
            // A repository that was made here is not joined: a ticket to it changes nothing.
            (Some(row), _) if row.ticket.is_empty() => (RepositoryId(row.id), None),
            (Some(row), None) => (RepositoryId(row.id), Some(row.ticket.parse()?)),
            (_, Some(ticket)) => {
                let row = RepositoryRow { id: ticket.repository.0, ticket: ticket.to_string(), added_at: wall_clock() };
                state.put_repository(&row)?;
                (ticket.repository, Some(ticket))
            }
            (None, None) => return Err(OpenError::NoRepository(data_dir.to_owned())),
        };
        let metadata = store.metadata(&repository.0)?;
        super::ceremony::settle_pending(&metadata)?;
        Ok(Self { store, state, keys: Keys::new(data_dir), repository, ticket, metadata })
    }

    /// Opens the directory of a stopped node; one that does not exist is not made.
    pub fn open_existing(data_dir: &Path) -> Result<Self, OpenError> {
        if !data_dir.is_dir() {
            return Err(OpenError::NoRepository(data_dir.to_owned()));
        }
        Self::open(data_dir, None)
    }

    /// Makes a new repository in a directory that has none.
    pub fn create(data_dir: &Path, products: &[Product]) -> Result<Self, OpenError> {
        let store = Store::open(data_dir)?;
        let state = StateDb::open(&store.state_path())?;
        if let Some(row) = state.repositories()?.first() {
            return Err(OpenError::HasRepository { path: data_dir.to_owned(), repository: row.id.to_string() });
        }
        let keys = Keys::new(data_dir);
        let made = publisher::create(&keys, products, wall_clock())?;
        let metadata = store.metadata(&made.id.0)?;
        metadata.put("1.root.json", &made.root)?;
        let opened = Self { store, state, keys, repository: made.id, ticket: None, metadata };
        opened.save(&publisher::in_order(&made.signed))?;
        // The row is written last: a directory without it is one in which nothing was made yet.
        let row = RepositoryRow { id: made.id.0, ticket: String::new(), added_at: wall_clock() };
        opened.state.put_repository(&row)?;
        Ok(opened)
    }

    /// A metadata file, bounded.
    pub fn read_metadata(&self, name: &str) -> Option<Vec<u8>> {
        let most = if name.ends_with(".root.json") { MAX_ROOT_BYTES } else { MAX_TARGETS_BYTES };
        self.metadata.get(name, most).unwrap_or_else(|error| {
            tracing::warn!(%error, name, "a metadata file cannot be read; it is fetched again");
            None
        })
    }

    /// A small target.
    pub fn read_target(&self, sha256: &Digest) -> Option<Vec<u8>> {
        self.store.target(sha256)
    }

    /// The signed set on disk; `None` before the first.
    pub fn view(&self) -> Result<Option<Arc<CatalogView>>, OpenError> {
        let read = |name: &str| self.read_metadata(name);
        let target = |sha256: &Digest| self.read_target(sha256);
        let memory = self.state.memory(&self.repository.0)?;
        Ok(load_view(self.repository, self.ticket.as_ref(), &read, &target, memory, wall_clock())?)
    }

    /// The signed set of a repository that is owned here.
    pub fn own_view(&self, data_dir: &Path) -> Result<Arc<CatalogView>, OpenError> {
        if self.ticket.is_some() {
            return Err(OpenError::NotASeed(data_dir.to_owned()));
        }
        self.view()?.ok_or_else(|| OpenError::NoRepository(data_dir.to_owned()))
    }

    /// Keeps files and what they teach, in order.
    pub fn save(&self, saves: &[Save]) -> Result<(), OpenError> {
        for save in saves {
            match save {
                Save::Metadata { name, bytes } => self.metadata.put(name, bytes)?,
                Save::Target { sha256, bytes } => self.store.put_target(sha256, bytes)?,
                Save::Memory(learned) => self.state.learn(&self.repository.0, learned, wall_clock())?,
            }
        }
        let is_pending = |save: &Save| matches!(save, Save::Metadata { name, .. } if name.starts_with(PENDING_PREFIX));
        if saves.iter().any(is_pending) {
            super::ceremony::settle_pending(&self.metadata)?;
        }
        Ok(())
    }

    /// A ticket to this repository with these addresses.
    pub fn ticket_for(&self, view: &CatalogView, addresses: Vec<String>) -> Ticket {
        Ticket {
            repository: self.repository,
            root_version: view.trusted.root().version,
            root_sha256: view.trusted.root().signed_digest(),
            min_timestamp_version: view.timestamp_version(),
            addresses,
            grant: None,
        }
    }
}
