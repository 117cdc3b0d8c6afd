//! What a node remembers so that signed metadata cannot be bent over time: the repositories it
//! trusts, every target it ever saw, version floors, and single values such as the last verified
//! time.

use rusqlite::{OptionalExtension, Transaction, params};
use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;
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

/// What the node knew of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Seen {
    /// The path was not known; now it is.
    New,
    /// The path was known with this digest.
    Same,
    /// The path was known with another digest, and still is: releases are immutable, somebody
    /// changed one.
    Changed {
        /// The digest seen first.
        was: Digest,
    },
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

    /// Remembers that the target `path` has the digest `sha256`; the first digest stays for good.
    pub fn remember_target(
        &self,
        repository: &Digest,
        path: &str,
        sha256: &Digest,
        now: UtcTime,
    ) -> Result<Seen, StateError> {
        self.write(|transaction| remember(transaction, repository, path, sha256, now))
    }

    /// [`StateDb::remember_target`] for many targets in one transaction; answers in their order.
    pub fn remember_targets(
        &self,
        repository: &Digest,
        targets: &[(&str, Digest)],
        now: UtcTime,
    ) -> Result<Vec<Seen>, StateError> {
        self.write(|transaction| {
            targets.iter().map(|(path, sha256)| remember(transaction, repository, path, sha256, now)).collect()
        })
    }

    /// Raises the floor of `product` to `version`, or leaves it where it is higher. Returns the
    /// floor that holds.
    pub fn raise_floor(
        &self,
        repository: &Digest,
        product: &Product,
        version: &Version,
    ) -> Result<Version, StateError> {
        self.write(|transaction| {
            if let Some(floor) = floor(transaction, repository, product)?.filter(|floor| floor >= version) {
                return Ok(floor);
            }
            transaction.execute(
                "INSERT INTO floors (repository, product, version) VALUES (?1, ?2, ?3)
                 ON CONFLICT (repository, product) DO UPDATE SET version = excluded.version",
                params![id(repository), product.as_str(), version.to_string()],
            )?;
            Ok(version.clone())
        })
    }

    /// The lowest version of `product` that may be installed.
    pub fn floor(&self, repository: &Digest, product: &Product) -> Result<Option<Version>, StateError> {
        self.read(|connection| floor(connection, repository, product))
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

fn remember(
    transaction: &Transaction<'_>,
    repository: &Digest,
    path: &str,
    sha256: &Digest,
    now: UtcTime,
) -> rusqlite::Result<Seen> {
    let known: Option<Digest> = transaction
        .prepare_cached("SELECT sha256 FROM seen_targets WHERE repository = ?1 AND path = ?2")?
        .query_row(params![id(repository), path], |row| parsed(row, "sha256"))
        .optional()?;
    match known {
        Some(was) if was == *sha256 => Ok(Seen::Same),
        Some(was) => Ok(Seen::Changed { was }),
        None => {
            transaction
                .prepare_cached(
                    "INSERT INTO seen_targets (repository, path, sha256, first_seen) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![id(repository), path, sha256.to_string(), now.unix()])?;
            Ok(Seen::New)
        }
    }
}

fn floor(
    connection: &rusqlite::Connection,
    repository: &Digest,
    product: &Product,
) -> rusqlite::Result<Option<Version>> {
    connection
        .prepare_cached("SELECT version FROM floors WHERE repository = ?1 AND product = ?2")?
        .query_row(params![id(repository), product.as_str()], |row| parsed(row, "version"))
        .optional()
}
