//! What signed metadata taught this node for good, in the tables `seen_targets`, `floors` and `facts`.
//!
//! Rows are added and raised, never taken back by metadata. `seen_targets.sha256` is that of the whole
//! signed entry, not of the artifact alone: a manifest or a channel that changes is a change too.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, id, parsed};
use crate::engine::clock::Clock;
use crate::engine::memory::{Floor, Learned, Memory};

/// The fact under which the latest believable time of signing is kept.
const SIGNED_AT: &str = "signed_at";

impl StateDb {
    /// Everything that is remembered of `repository`.
    pub fn memory(&self, repository: &Digest) -> Result<Memory, StateError> {
        self.read(|connection| {
            let repository = id(repository);
            let mut statement = connection
                .prepare_cached("SELECT path, sha256 FROM seen_targets WHERE repository = ?1 ORDER BY path")?;
            let targets = statement
                .query_map(params![repository], |row| Ok((row.get("path")?, parsed(row, "sha256")?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut statement =
                connection.prepare_cached("SELECT product, version, root_version FROM floors WHERE repository = ?1")?;
            let floors = statement
                .query_map(params![repository], |row| {
                    let root_version = u64::try_from(row.get::<_, i64>("root_version")?).unwrap_or(0);
                    Ok((parsed(row, "product")?, Floor { version: parsed(row, "version")?, root_version }))
                })?
                .collect::<rusqlite::Result<BTreeMap<Product, Floor>>>()?;
            let remembered = connection
                .prepare_cached("SELECT value FROM facts WHERE repository = ?1 AND key = ?2")?
                .query_row(params![repository, SIGNED_AT], |row| parsed::<UtcTime>(row, "value"))
                .optional()?;
            Ok(Memory { targets, floors, clock: Clock { remembered, head: None } })
        })
    }

    /// Keeps what a verified set taught, in one transaction. A target that is known stays as it is.
    pub fn learn(&self, repository: &Digest, learned: &Learned, now: UtcTime) -> Result<(), StateError> {
        self.write(|transaction| {
            let repository = id(repository);
            let mut statement = transaction.prepare_cached(
                "INSERT INTO seen_targets (repository, path, sha256, first_seen) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (repository, path) DO NOTHING",
            )?;
            for (path, entry) in &learned.targets {
                statement.execute(params![repository, path, entry.to_string(), now.unix()])?;
            }
            let mut statement = transaction.prepare_cached(
                "INSERT INTO floors (repository, product, version, root_version) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (repository, product) DO UPDATE SET
                     version = excluded.version, root_version = excluded.root_version",
            )?;
            for (product, floor) in &learned.floors {
                let root_version = i64::try_from(floor.root_version).unwrap_or(i64::MAX);
                statement.execute(params![repository, product.as_str(), floor.version.to_string(), root_version])?;
            }
            if let Some(signed_at) = learned.signed_at {
                transaction.execute(
                    "INSERT INTO facts (repository, key, value) VALUES (?1, ?2, ?3)
                     ON CONFLICT (repository, key) DO UPDATE SET value = excluded.value",
                    params![repository, SIGNED_AT, signed_at.to_string()],
                )?;
            }
            Ok(())
        })
    }

    /// Forgets the latest time of signing: an operator vouches for the clock.
    pub fn forget_signed_at(&self, repository: &Digest) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction
                .execute("DELETE FROM facts WHERE repository = ?1 AND key = ?2", params![id(repository), SIGNED_AT])
        })?;
        Ok(())
    }
}
