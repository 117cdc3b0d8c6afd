//! The schema of the state database, as steps that only ever add.
//!
//! A self-update that rolls back leaves the previous version of the node with a file that the next
//! one has migrated, and it must read and write that file. So: a step may create a table or an
//! index, or add a column that is nullable or has a default. It never drops, renames, retypes or
//! tightens. Statements elsewhere name their columns and update rows in place (`ON CONFLICT DO
//! UPDATE`, never `REPLACE`), so that columns of a later version keep their values. Steps that were
//! ever released are never edited.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Step `n` takes a database from `user_version` `n` to `n + 1`.
pub(super) const STEPS: &[&str] = &[FIRST, MEMORY, INSTALLS, OUTCOMES];

const FIRST: &str = "
CREATE TABLE repositories (
    id TEXT NOT NULL PRIMARY KEY,
    ticket TEXT NOT NULL,
    added_at INTEGER NOT NULL
);

CREATE TABLE subscriptions (
    repository TEXT NOT NULL,
    product TEXT NOT NULL,
    directory TEXT NOT NULL DEFAULT '',
    channel TEXT NOT NULL,
    platform TEXT NOT NULL,
    mode TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    hold INTEGER NOT NULL DEFAULT 0,
    hold_reason TEXT,
    PRIMARY KEY (repository, product, directory)
);
CREATE UNIQUE INDEX subscriptions_directory ON subscriptions (directory) WHERE directory <> '';

CREATE TABLE installs (
    directory TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL,
    state TEXT NOT NULL,
    txn TEXT NOT NULL,
    from_version TEXT,
    from_artifact TEXT,
    to_version TEXT,
    to_artifact TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    updated_at INTEGER NOT NULL
);

CREATE TABLE installed (
    directory TEXT NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,
    artifact TEXT NOT NULL,
    release_dir TEXT NOT NULL,
    installed_at INTEGER NOT NULL,
    previous_version TEXT,
    previous_artifact TEXT,
    previous_release_dir TEXT
);

CREATE TABLE quarantine (
    directory TEXT NOT NULL,
    artifact TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (directory, artifact)
);

CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    repository TEXT NOT NULL,
    product TEXT,
    version TEXT,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
);

CREATE TABLE seen_targets (
    repository TEXT NOT NULL,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    PRIMARY KEY (repository, path)
);

CREATE TABLE floors (
    repository TEXT NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (repository, product)
);

CREATE TABLE facts (
    repository TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (repository, key)
);

CREATE TABLE known_peers (
    repository TEXT NOT NULL,
    peer TEXT NOT NULL,
    addresses TEXT NOT NULL DEFAULT '[]',
    last_connected_at INTEGER NOT NULL,
    PRIMARY KEY (repository, peer)
);
";

const MEMORY: &str = "
ALTER TABLE floors ADD COLUMN root_version INTEGER NOT NULL DEFAULT 0;

CREATE TABLE bans (
    repository TEXT NOT NULL,
    peer TEXT NOT NULL,
    reason TEXT NOT NULL,
    banned_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    offences INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (repository, peer)
);
";

const INSTALLS: &str = "
ALTER TABLE installs ADD COLUMN remaining_ms INTEGER;

CREATE TABLE holds (
    directory TEXT NOT NULL,
    product TEXT NOT NULL,
    version TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (directory, product, version)
);

CREATE TABLE kept_releases (
    directory TEXT NOT NULL,
    release_dir TEXT NOT NULL,
    version TEXT NOT NULL,
    artifact TEXT NOT NULL,
    installed_at INTEGER NOT NULL,
    PRIMARY KEY (directory, release_dir)
);
";

const OUTCOMES: &str = "
CREATE TABLE report_outbox (
    repository TEXT NOT NULL,
    number INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (repository, number)
);

CREATE TABLE fleet (
    repository TEXT NOT NULL,
    peer TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (repository, peer)
);
";

/// Takes the database through the steps that it has not had, each in a transaction of its own. A
/// database of a later version is left as it is.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    for (number, step) in steps.iter().enumerate() {
        let version = i64::try_from(number).unwrap_or(i64::MAX);
        let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
        // Read inside the transaction: another process may have been faster.
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found <= version {
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", version + 1)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_only_add() {
        let allowed = |statement: &str| {
            let adds_column = statement.starts_with("ALTER TABLE")
                && statement.contains("ADD COLUMN")
                && (statement.contains("DEFAULT") || !statement.contains("NOT NULL"));
            statement.starts_with("CREATE TABLE") || statement.starts_with("CREATE INDEX") || adds_column
        };
        for (number, step) in STEPS.iter().enumerate() {
            for statement in step.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
                // A new uniqueness rule would break what an earlier version writes.
                let first = number == 0 && statement.starts_with("CREATE UNIQUE INDEX");
                assert!(allowed(statement) || first, "step {number}: {statement}");
            }
        }
    }

    #[test]
    fn a_step_runs_once() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, STEPS).expect("migrated");
        migrate(&mut connection, STEPS).expect("nothing to do");
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
        assert_eq!(usize::try_from(version).expect("small"), STEPS.len());
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut connection = Connection::open_in_memory().expect("memory");
        let steps = ["CREATE TABLE one (a TEXT);", "CREATE TABLE two (a TEXT); CREATE TABLE one (a TEXT);"];
        assert!(migrate(&mut connection, &steps).is_err());
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
        assert_eq!(version, 1);
        assert!(connection.execute("INSERT INTO two VALUES ('x')", []).is_err());
    }
}
