//! The state database: what a node must remember besides signed bytes and artifacts.
//!
//! `SQLite` in WAL mode with full syncs: a row that was written is there after a power cut. One file
//! for all repositories; rows carry the repository's id. Everything blocks. The schema and its rule
//! that an older node can use a newer file are in `migrations`.
//!
//! One file for each topic adds its methods to [`StateDb`]; each method is one transaction.

mod bans;
mod facts;
mod history;
mod holds;
mod installs;
mod kept;
mod memory;
mod offered;
mod outcomes;
mod peers;
mod pins;
mod subscriptions;
mod trouble;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior};
use updraft_protocol::digest::Digest;
use updraft_protocol::time::UtcTime;

pub use self::facts::RepositoryRow;
pub use self::history::{HISTORY_ROWS, HistoryEntry, HistoryRow};
pub use self::installs::{InstallChange, InstallRow, InstalledRow, QuarantineRow, ReleaseRef};
pub use self::peers::{KNOWN_PEERS, KnownPeer};
pub use self::subscriptions::{Mode, Subscription};

use super::files::lock;
use super::migrations;
use crate::atomic::steps::{self, Step};

/// How long a statement waits for another process (`updraft doctor`, a backup) to let go.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the state database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be opened as this database.
    #[error("cannot open the state database '{}': {source}; restore it from a backup, or move it away to start without history", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What `SQLite` or the system said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A statement failed.
    #[error("the state database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A path that the database cannot hold.
    #[error("'{}' cannot be stored: a directory must be absolute and valid UTF-8", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// Another subscription installs there.
    #[error("'{}' already belongs to a subscription to {product}; choose another directory or unsubscribe that one", .directory.display())]
    DirectoryTaken {
        /// The directory.
        directory: PathBuf,
        /// Its product.
        product: String,
    },
}

/// The state database. Clones share one connection.
#[derive(Clone)]
pub struct StateDb {
    connection: Arc<Mutex<Connection>>,
}

impl fmt::Debug for StateDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDb").finish_non_exhaustive()
    }
}

impl StateDb {
    /// Opens the database at `path`, making it if needed. A file that a later version of the node
    /// has migrated opens too.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::open_with(path, migrations::STEPS)
    }

    fn open_with(path: &Path, steps: &[&str]) -> Result<Self, StateError> {
        let failed = |source: Box<dyn Error + Send + Sync>| StateError::Open { path: path.to_owned(), source };
        create_private(path).map_err(|error| failed(error.into()))?;
        let connection = connect(path, steps).map_err(|error| failed(error.into()))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Runs `read` on the connection.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StateError> {
        Ok(read(&lock(&self.connection))?)
    }

    /// Runs `change` in a transaction that is committed when it succeeds.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StateError> {
        let mut connection = lock(&self.connection);
        // Immediate: a transaction that reads first and writes later cannot find the file busy.
        let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate)?;
        let done = change(&transaction)?;
        transaction.commit()?;
        // Told under the lock: the files hold this transaction and none after it.
        steps::tell(|| Step::Committed);
        Ok(done)
    }
}

/// `SQLite` gives the files beside the database the mode of the database.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn connect(path: &Path, steps: &[&str]) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    migrations::migrate(&mut connection, steps)?;
    Ok(connection)
}

/// The text of a directory; only absolute UTF-8 paths have one.
fn directory_text(directory: &Path) -> Result<&str, StateError> {
    let text = directory.to_str().filter(|_| directory.is_absolute());
    text.ok_or_else(|| StateError::Path { path: directory.to_owned() })
}

fn column_error(row: &Row<'_>, column: &str, error: impl Error + Send + Sync + 'static) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or_default();
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
}

/// The value of a text column.
fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| column_error(row, column, error))
}

/// The value of a text column that may be null.
fn parsed_option<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| column_error(row, column, error))).transpose()
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<UtcTime> {
    row.get(column).map(UtcTime::from_unix)
}

fn path(row: &Row<'_>, column: &str) -> rusqlite::Result<PathBuf> {
    row.get::<_, String>(column).map(PathBuf::from)
}

fn text_of<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

/// Rows are kept by the hexadecimal text of their repository's id.
fn id(repository: &Digest) -> String {
    repository.to_string()
}

#[cfg(test)]
mod tests;
