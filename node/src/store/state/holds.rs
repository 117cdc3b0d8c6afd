//! What operators keep from being installed, by install directory.
//!
//! A hold on everything is the row without a version.

use std::path::Path;

use rusqlite::params;
use semver::Version;
use updraft_protocol::names::Product;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, directory_text};

impl StateDb {
    /// Holds `version` of `product` in a directory, or every version; the latest reason counts.
    pub fn put_hold(
        &self,
        directory: &Path,
        product: &Product,
        version: Option<&Version>,
        reason: &str,
        at: UtcTime,
    ) -> Result<(), StateError> {
        let directory = directory_text(directory)?;
        let version = version.map(ToString::to_string).unwrap_or_default();
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO holds (directory, product, version, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (directory, product, version) DO UPDATE SET reason = excluded.reason, at = excluded.at",
                params![directory, product.as_str(), version, reason, at.unix()],
            )
        })?;
        Ok(())
    }

    /// Lifts the hold on `version`, or every hold on `product` in a directory.
    pub fn lift_hold(&self, directory: &Path, product: &Product, version: Option<&Version>) -> Result<(), StateError> {
        let directory = directory_text(directory)?;
        let version = version.map(ToString::to_string);
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM holds WHERE directory = ?1 AND product = ?2 AND (?3 IS NULL OR version = ?3)",
                params![directory, product.as_str(), version],
            )
        })?;
        Ok(())
    }

    /// The holds on `product` in a directory: a version, or none for every version, and why. What names no
    /// version is left out.
    pub fn holds(&self, directory: &Path, product: &Product) -> Result<Vec<(Option<Version>, String)>, StateError> {
        let directory = directory_text(directory)?;
        let rows: Vec<(String, String)> = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT version, reason FROM holds WHERE directory = ?1 AND product = ?2 ORDER BY version",
            )?;
            statement.query_map(params![directory, product.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let parsed = |(version, reason): (String, String)| match version.as_str() {
            "" => Some((None, reason)),
            text => Some((Some(text.parse().ok()?), reason)),
        };
        Ok(rows.into_iter().filter_map(parsed).collect())
    }
}
