//! The repositories that this node trusts, and single values about them.

use rusqlite::{OptionalExtension, params};
use updraft_protocol::digest::Digest;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, id, parsed, time};

/// A repository that this node follows or owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRow {
    /// SHA-256 of root version 1's signed part.
    pub id: Digest,
    /// The ticket that it was joined with.
    pub ticket: String,
    /// When it was joined first.
    pub added_at: UtcTime,
}

impl StateDb {
    /// Adds a repository, or replaces the ticket of one that is known.
    pub fn put_repository(&self, row: &RepositoryRow) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO repositories (id, ticket, added_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET ticket = excluded.ticket",
                params![id(&row.id), row.ticket, row.added_at.unix()],
            )
        })?;
        Ok(())
    }

    /// The repository with this id.
    pub fn repository(&self, repository: &Digest) -> Result<Option<RepositoryRow>, StateError> {
        Ok(self.repositories()?.into_iter().find(|row| row.id == *repository))
    }

    /// All repositories, in the order in which they were added.
    pub fn repositories(&self) -> Result<Vec<RepositoryRow>, StateError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT id, ticket, added_at FROM repositories ORDER BY added_at, id")?;
            let rows = statement.query_map([], |row| {
                Ok(RepositoryRow {
                    id: parsed(row, "id")?,
                    ticket: row.get("ticket")?,
                    added_at: time(row, "added_at")?,
                })
            })?;
            rows.collect()
        })
    }

    /// Sets a single value.
    pub fn put_fact(&self, repository: &Digest, key: &str, value: &str) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO facts (repository, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (repository, key) DO UPDATE SET value = excluded.value",
                params![id(repository), key, value],
            )
        })?;
        Ok(())
    }

    /// A single value.
    pub fn fact(&self, repository: &Digest, key: &str) -> Result<Option<String>, StateError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT value FROM facts WHERE repository = ?1 AND key = ?2")?
                .query_row(params![id(repository), key], |row| row.get(0))
                .optional()
        })
    }
}
