//! Artifacts that an operator asked for by name: they stay in the store for a while, across restarts.

use rusqlite::params;
use updraft_protocol::digest::Digest;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, id};

/// Begins the key of a pin among the single values.
const PREFIX: &str = "pinned/";

impl StateDb {
    /// Notes that an artifact stays until then.
    pub fn put_pin(&self, repository: &Digest, artifact: &Digest, until: UtcTime) -> Result<(), StateError> {
        self.put_fact(repository, &format!("{PREFIX}{artifact}"), &until.to_string())
    }

    /// Takes the note away.
    pub fn remove_pin(&self, repository: &Digest, artifact: &Digest) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM facts WHERE repository = ?1 AND key = ?2",
                params![id(repository), format!("{PREFIX}{artifact}")],
            )
        })?;
        Ok(())
    }

    /// Every artifact that stays, and until when. A note that cannot be read holds nothing.
    pub fn pins(&self, repository: &Digest) -> Result<Vec<(Digest, UtcTime)>, StateError> {
        let rows: Vec<(String, String)> = self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, value FROM facts WHERE repository = ?1 AND key >= ?2 AND key < ?3")?;
            // '0' is what comes after '/'.
            let rows = statement
                .query_map(params![id(repository), PREFIX, "pinned0"], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let parsed =
            |(key, until): &(String, String)| Some((key.strip_prefix(PREFIX)?.parse().ok()?, until.parse().ok()?));
        Ok(rows.iter().filter_map(parsed).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_outlives_a_restart_and_ends_when_it_is_taken_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.db");
        let (repository, artifact) = (Digest::of(b"repository"), Digest::of(b"artifact"));
        let (first, later) = (UtcTime::from_unix(1_800_000_000), UtcTime::from_unix(1_800_000_100));
        {
            let state = StateDb::open(&path).expect("opens");
            state.put_pin(&repository, &artifact, first).expect("written");
            state.put_pin(&repository, &artifact, later).expect("written again");
            state.put_fact(&repository, "pinned/nonsense", "x").expect("written");
        }
        let state = StateDb::open(&path).expect("opens");
        assert_eq!(state.pins(&repository).expect("read"), [(artifact, later)]);
        assert_eq!(state.pins(&Digest::of(b"another")).expect("read"), []);
        state.remove_pin(&repository, &artifact).expect("written");
        assert_eq!(state.pins(&repository).expect("read"), []);
    }
}
