//! What happened, for people: a bounded log of installs, rollbacks, refusals, publications.

use rusqlite::{Connection, Row, params};
use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, id, parsed, parsed_option, text_of, time};

/// Entries that are kept. Bounds what years of updates, or a peer that is refused every second, do
/// to the disk.
pub const HISTORY_ROWS: u32 = 10_000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// When.
    pub at: UtcTime,
    /// In which repository.
    pub repository: Digest,
    /// To which product, if to one.
    pub product: Option<Product>,
    /// To which version of it.
    pub version: Option<Version>,
    /// What: `installed`, `rolled_back`, `refused`, `fetched`, `published`...
    pub kind: String,
    /// The rest, for people.
    pub detail: String,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its number; later entries have higher ones.
    pub id: i64,
    /// What happened.
    pub row: HistoryRow,
}

impl StateDb {
    /// Appends to the log and drops what is beyond [`HISTORY_ROWS`]. Returns the entry's number.
    pub fn append_history(&self, row: &HistoryRow) -> Result<i64, StateError> {
        self.write(|transaction| append(transaction, row))
    }

    /// The last `limit` entries, of one product if named, latest first.
    pub fn history(&self, limit: u32, product: Option<&Product>) -> Result<Vec<HistoryEntry>, StateError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, at, repository, product, version, kind, detail FROM history
                 WHERE ?1 IS NULL OR product = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            statement.query_map(params![product.map(Product::as_str), limit], read_row)?.collect()
        })
    }
}

/// Appends within the transaction that `connection` is in.
pub(super) fn append(connection: &Connection, row: &HistoryRow) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO history (at, repository, product, version, kind, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            row.at.unix(),
            id(&row.repository),
            text_of(row.product.as_ref()),
            text_of(row.version.as_ref()),
            row.kind,
            row.detail,
        ])?;
    let latest = connection.last_insert_rowid();
    connection
        .prepare_cached("DELETE FROM history WHERE id <= ?1")?
        .execute(params![latest - i64::from(HISTORY_ROWS)])?;
    Ok(latest)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    Ok(HistoryEntry {
        id: row.get("id")?,
        row: HistoryRow {
            at: time(row, "at")?,
            repository: parsed(row, "repository")?,
            product: parsed_option(row, "product")?,
            version: parsed_option(row, "version")?,
            kind: row.get("kind")?,
            detail: row.get("detail")?,
        },
    })
}
