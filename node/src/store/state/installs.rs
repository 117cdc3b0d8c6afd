//! The install journal, what is installed where, and what must not be installed again.
//!
//! The installer writes a row before and after each of its steps; after a crash the row is where
//! the node takes up its work. So a step and what it changes go into one transaction.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};
use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;
use updraft_protocol::time::UtcTime;

use super::history::{self, HistoryRow};
use super::{StateDb, StateError, directory_text, kept, parsed, parsed_option, text_of, time};

/// A release, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRef {
    /// Its version.
    pub version: Version,
    /// SHA-256 of its artifact.
    pub artifact: Digest,
}

/// Where the installation of a directory stands. One row for each directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallRow {
    /// The install directory: absolute, UTF-8.
    pub directory: PathBuf,
    /// What is installed there.
    pub product: Product,
    /// The install state in lower snake case: `idle`, `fetching`, `rolling_back`... Text, so that a
    /// state of a later version is seen and not lost.
    pub state: String,
    /// Names this attempt and its staging directory.
    pub txn: String,
    /// What was there before.
    pub from: Option<ReleaseRef>,
    /// What will be there.
    pub to: Option<ReleaseRef>,
    /// Starts of `to` that were tried.
    pub attempts: u32,
    /// Why the last step failed, or why it goes back.
    pub error: Option<String>,
    /// Milliseconds of probation that are left.
    pub remaining_ms: Option<u64>,
    /// When the row was written.
    pub updated_at: UtcTime,
}

/// What is installed in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRow {
    /// The install directory: absolute, UTF-8.
    pub directory: PathBuf,
    /// The release that runs.
    pub release: ReleaseRef,
    /// Its tree, relative to the directory.
    pub release_dir: String,
    /// When it was committed.
    pub installed_at: UtcTime,
    /// The release before it and its tree, kept for a rollback.
    pub previous: Option<(ReleaseRef, String)>,
}

/// An artifact that failed in a directory and is not installed there again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// The install directory.
    pub directory: PathBuf,
    /// The artifact.
    pub artifact: Digest,
    /// What it did.
    pub reason: String,
    /// When.
    pub at: UtcTime,
}

/// What changes together with a journal row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallChange {
    /// What is installed from now on; `None` leaves that as it was.
    pub installed: Option<InstalledRow>,
    /// What is not tried again.
    pub quarantine: Option<QuarantineRow>,
    /// What happened, for the history.
    pub happened: HistoryRow,
}

impl StateDb {
    /// Writes the journal row of a directory, and what happened if people should know, in one
    /// transaction.
    pub fn journal(&self, row: &InstallRow, happened: Option<&HistoryRow>) -> Result<(), StateError> {
        let directory = directory_text(&row.directory)?;
        self.write(|transaction| {
            put_install(transaction, directory, row)?;
            happened.map_or(Ok(()), |happened| history::append(transaction, happened).map(drop))
        })
    }

    /// Writes the journal row of a directory together with what changes, all or nothing.
    pub fn commit_install(&self, row: &InstallRow, change: &InstallChange) -> Result<(), StateError> {
        let directory = directory_text(&row.directory)?;
        self.write(|transaction| {
            if let Some(installed) = &change.installed {
                put_installed(transaction, directory, installed)?;
                kept::note(transaction, directory, installed)?;
            }
            if let Some(quarantine) = &change.quarantine {
                put_quarantine(transaction, directory, quarantine)?;
            }
            put_install(transaction, directory, row)?;
            history::append(transaction, &change.happened).map(drop)
        })
    }

    /// The journal row of `directory`.
    pub fn install(&self, directory: &Path) -> Result<Option<InstallRow>, StateError> {
        let directory = directory_text(directory)?;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT_INSTALLS} WHERE directory = ?1"))?;
            statement.query_row(params![directory], read_install).optional()
        })
    }

    /// All journal rows, by directory.
    pub fn installs(&self) -> Result<Vec<InstallRow>, StateError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT_INSTALLS} ORDER BY directory"))?;
            statement.query_map([], read_install)?.collect()
        })
    }

    /// What is installed in `directory`.
    pub fn installed(&self, directory: &Path) -> Result<Option<InstalledRow>, StateError> {
        let directory = directory_text(directory)?;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT_INSTALLED} WHERE directory = ?1"))?;
            statement.query_row(params![directory], read_installed).optional()
        })
    }

    /// What is installed, by directory.
    pub fn all_installed(&self) -> Result<Vec<InstalledRow>, StateError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT_INSTALLED} ORDER BY directory"))?;
            statement.query_map([], read_installed)?.collect()
        })
    }

    /// Forgets the journal row and the installed release of `directory`. `false` when there was
    /// neither.
    pub fn forget_install(&self, directory: &Path) -> Result<bool, StateError> {
        let directory = directory_text(directory)?;
        self.write(|transaction| {
            let rows = transaction.execute("DELETE FROM installs WHERE directory = ?1", params![directory])?;
            let releases = transaction.execute("DELETE FROM installed WHERE directory = ?1", params![directory])?;
            Ok(rows + releases > 0)
        })
    }

    /// Keeps an artifact from being installed in a directory again; the latest reason counts.
    pub fn quarantine(&self, row: &QuarantineRow) -> Result<(), StateError> {
        let directory = directory_text(&row.directory)?;
        self.write(|transaction| put_quarantine(transaction, directory, row))
    }

    /// What is quarantined in `directory`, or everywhere; latest first.
    pub fn quarantined(&self, directory: Option<&Path>) -> Result<Vec<QuarantineRow>, StateError> {
        let directory = directory.map(directory_text).transpose()?;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT directory, artifact, reason, at FROM quarantine
                 WHERE ?1 IS NULL OR directory = ?1 ORDER BY at DESC, directory, artifact",
            )?;
            let rows = statement.query_map(params![directory], |row| {
                Ok(QuarantineRow {
                    directory: super::path(row, "directory")?,
                    artifact: parsed(row, "artifact")?,
                    reason: row.get("reason")?,
                    at: time(row, "at")?,
                })
            })?;
            rows.collect()
        })
    }

    /// Lifts a quarantine. `false` when there was none.
    pub fn lift_quarantine(&self, directory: &Path, artifact: &Digest) -> Result<bool, StateError> {
        let directory = directory_text(directory)?;
        let lifted = self.write(|transaction| {
            let key = params![directory, artifact.to_string()];
            transaction.execute("DELETE FROM quarantine WHERE directory = ?1 AND artifact = ?2", key)
        })?;
        Ok(lifted > 0)
    }
}

const SELECT_INSTALLS: &str = "SELECT directory, product, state, txn, from_version, from_artifact,
    to_version, to_artifact, attempts, error, remaining_ms, updated_at FROM installs";

const SELECT_INSTALLED: &str = "SELECT directory, version, artifact, release_dir, installed_at,
    previous_version, previous_artifact, previous_release_dir FROM installed";

fn put_install(connection: &Connection, directory: &str, row: &InstallRow) -> rusqlite::Result<()> {
    let (from, to) = (row.from.as_ref(), row.to.as_ref());
    connection
        .prepare_cached(
            "INSERT INTO installs (directory, product, state, txn, from_version, from_artifact,
                 to_version, to_artifact, attempts, error, updated_at, remaining_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (directory) DO UPDATE SET product = excluded.product, state = excluded.state,
                 txn = excluded.txn, from_version = excluded.from_version,
                 from_artifact = excluded.from_artifact, to_version = excluded.to_version,
                 to_artifact = excluded.to_artifact, attempts = excluded.attempts,
                 error = excluded.error, updated_at = excluded.updated_at,
                 remaining_ms = excluded.remaining_ms",
        )?
        .execute(params![
            directory,
            row.product.as_str(),
            row.state,
            row.txn,
            text_of(from.map(|from| &from.version)),
            text_of(from.map(|from| &from.artifact)),
            text_of(to.map(|to| &to.version)),
            text_of(to.map(|to| &to.artifact)),
            row.attempts,
            row.error,
            row.updated_at.unix(),
            row.remaining_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        ])?;
    Ok(())
}

fn put_quarantine(connection: &Connection, directory: &str, row: &QuarantineRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO quarantine (directory, artifact, reason, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (directory, artifact) DO UPDATE SET reason = excluded.reason, at = excluded.at",
        )?
        .execute(params![directory, row.artifact.to_string(), row.reason, row.at.unix()])?;
    Ok(())
}

fn put_installed(connection: &Connection, directory: &str, row: &InstalledRow) -> rusqlite::Result<()> {
    let previous = row.previous.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO installed (directory, version, artifact, release_dir, installed_at,
                 previous_version, previous_artifact, previous_release_dir)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (directory) DO UPDATE SET version = excluded.version,
                 artifact = excluded.artifact, release_dir = excluded.release_dir,
                 installed_at = excluded.installed_at, previous_version = excluded.previous_version,
                 previous_artifact = excluded.previous_artifact,
                 previous_release_dir = excluded.previous_release_dir",
        )?
        .execute(params![
            directory,
            row.release.version.to_string(),
            row.release.artifact.to_string(),
            row.release_dir,
            row.installed_at.unix(),
            text_of(previous.map(|(release, _)| &release.version)),
            text_of(previous.map(|(release, _)| &release.artifact)),
            previous.map(|(_, directory)| directory),
        ])?;
    Ok(())
}

/// A release of two nullable columns: there when both are.
fn release(row: &Row<'_>, version: &str, artifact: &str) -> rusqlite::Result<Option<ReleaseRef>> {
    let both = parsed_option(row, version)?.zip(parsed_option(row, artifact)?);
    Ok(both.map(|(version, artifact)| ReleaseRef { version, artifact }))
}

fn read_install(row: &Row<'_>) -> rusqlite::Result<InstallRow> {
    Ok(InstallRow {
        directory: super::path(row, "directory")?,
        product: parsed(row, "product")?,
        state: row.get("state")?,
        txn: row.get("txn")?,
        from: release(row, "from_version", "from_artifact")?,
        to: release(row, "to_version", "to_artifact")?,
        attempts: row.get("attempts")?,
        error: row.get("error")?,
        remaining_ms: row.get::<_, Option<i64>>("remaining_ms")?.and_then(|ms| u64::try_from(ms).ok()),
        updated_at: time(row, "updated_at")?,
    })
}

fn read_installed(row: &Row<'_>) -> rusqlite::Result<InstalledRow> {
    let directory: Option<String> = row.get("previous_release_dir")?;
    Ok(InstalledRow {
        directory: super::path(row, "directory")?,
        release: ReleaseRef { version: parsed(row, "version")?, artifact: parsed(row, "artifact")? },
        release_dir: row.get("release_dir")?,
        installed_at: time(row, "installed_at")?,
        previous: release(row, "previous_version", "previous_artifact")?.zip(directory),
    })
}
