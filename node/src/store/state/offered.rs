//! Artifacts that are in the store on trial: somebody has offered a release, and it is not published
//! yet. Noted before the first byte is asked for, so that none outlives a crash unseen.

use rusqlite::params;
use updraft_protocol::digest::Digest;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, id};

/// Begins the key of a note among the single values.
const PREFIX: &str = "offered/";

impl StateDb {
    /// Notes that an artifact is here on trial.
    pub fn note_offered(&self, repository: &Digest, artifact: &Digest, now: UtcTime) -> Result<(), StateError> {
        self.put_fact(repository, &format!("{PREFIX}{artifact}"), &now.to_string())
    }

    /// Takes the note away: it was published, or removed.
    pub fn settle_offered(&self, repository: &Digest, artifact: &Digest) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM facts WHERE repository = ?1 AND key = ?2",
                params![id(repository), format!("{PREFIX}{artifact}")],
            )
        })?;
        Ok(())
    }

    /// Every artifact that is here on trial.
    pub fn offered(&self, repository: &Digest) -> Result<Vec<Digest>, StateError> {
        let keys: Vec<String> = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key FROM facts WHERE repository = ?1 AND key >= ?2 AND key < ?3")?;
            // '0' is what comes after '/'.
            let rows = statement.query_map(params![id(repository), PREFIX, "offered0"], |row| row.get(0))?;
            rows.collect()
        })?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(PREFIX)?.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_lasts_until_it_is_settled() {
        let directory = tempfile::tempdir().expect("a directory");
        let (repository, one, other) = (Digest::of(b"repository"), Digest::of(b"one"), Digest::of(b"other"));
        let now = UtcTime::from_unix(1_800_000_000);
        {
            let state = StateDb::open(&directory.path().join("state.db")).expect("opens");
            state.put_fact(&repository, "offered", "x").expect("written");
            state.put_fact(&repository, "offering", "x").expect("written");
            for artifact in [&one, &other, &one] {
                state.note_offered(&repository, artifact, now).expect("written");
            }
        }
        let state = StateDb::open(&directory.path().join("state.db")).expect("opens");
        let mut found = state.offered(&repository).expect("read");
        found.sort_unstable();
        let mut expected = vec![one, other];
        expected.sort_unstable();
        assert_eq!(found, expected);
        state.settle_offered(&repository, &one).expect("written");
        assert_eq!(state.offered(&repository).expect("read"), [other]);
        assert_eq!(state.offered(&Digest::of(b"another")).expect("read"), []);
    }
}
