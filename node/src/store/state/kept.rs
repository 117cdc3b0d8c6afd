//! The releases that were installed in a directory and proved themselves there: what an operator may go
//! back to, as long as the tree is there.

use std::path::Path;

use rusqlite::{Connection, params};

use super::installs::{InstalledRow, ReleaseRef};
use super::{StateDb, StateError, directory_text, parsed};

/// Rows for each directory; beyond it the oldest goes. Bounds the table.
const MAX_ROWS: u32 = 1_000;

/// Notes that what `row` names is installed.
pub(super) fn note(connection: &Connection, directory: &str, row: &InstalledRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO kept_releases (directory, release_dir, version, artifact, installed_at)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (directory, release_dir) DO UPDATE SET installed_at = excluded.installed_at",
        )?
        .execute(params![
            directory,
            row.release_dir,
            row.release.version.to_string(),
            row.release.artifact.to_string(),
            row.installed_at.unix(),
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM kept_releases WHERE directory = ?1 AND release_dir NOT IN
                 (SELECT release_dir FROM kept_releases WHERE directory = ?1 ORDER BY installed_at DESC LIMIT ?2)",
        )?
        .execute(params![directory, MAX_ROWS])?;
    Ok(())
}

impl StateDb {
    /// What was installed in `directory` and committed, with the names below `releases/`; latest first.
    /// Whether the tree is still there, the disk knows.
    pub fn kept_releases(&self, directory: &Path) -> Result<Vec<(ReleaseRef, String)>, StateError> {
        let directory = directory_text(directory)?;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT release_dir, version, artifact FROM kept_releases WHERE directory = ?1
                 ORDER BY installed_at DESC, release_dir",
            )?;
            let rows = statement.query_map(params![directory], |row| {
                let release = ReleaseRef { version: parsed(row, "version")?, artifact: parsed(row, "artifact")? };
                Ok((release, row.get("release_dir")?))
            })?;
            rows.collect()
        })
    }
}
