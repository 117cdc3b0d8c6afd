//! Peers that lied provably: refused and never dialled until their time is over.

use rusqlite::{Row, params};
use updraft_protocol::digest::Digest;
use updraft_protocol::peer::PeerId;

use super::{StateDb, StateError, id, parsed, time};
use crate::engine::bans::{Ban, MAX_BANS};

impl StateDb {
    /// Adds a ban or replaces that of the same peer, then drops those that end first until
    /// [`MAX_BANS`] are left.
    pub fn put_ban(&self, repository: &Digest, ban: &Ban) -> Result<(), StateError> {
        let repository = id(repository);
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO bans (repository, peer, reason, banned_at, ends_at, offences) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (repository, peer) DO UPDATE SET reason = excluded.reason, banned_at = excluded.banned_at,
                     ends_at = excluded.ends_at, offences = excluded.offences",
                params![
                    repository,
                    ban.peer.to_string(),
                    ban.reason,
                    ban.banned_at.unix(),
                    ban.ends_at.unix(),
                    ban.offences
                ],
            )?;
            transaction.execute(
                "DELETE FROM bans WHERE repository = ?1 AND peer NOT IN
                     (SELECT peer FROM bans WHERE repository = ?1 ORDER BY ends_at DESC, peer LIMIT ?2)",
                params![repository, i64::try_from(MAX_BANS).unwrap_or(i64::MAX)],
            )
        })?;
        Ok(())
    }

    /// Forgets a ban and the offences behind it.
    pub fn remove_ban(&self, repository: &Digest, peer: &PeerId) -> Result<(), StateError> {
        let key = (id(repository), peer.to_string());
        self.write(|transaction| transaction.execute("DELETE FROM bans WHERE repository = ?1 AND peer = ?2", key))?;
        Ok(())
    }

    /// All bans, also those that are over: they make the next one longer.
    pub fn bans(&self, repository: &Digest) -> Result<Vec<Ban>, StateError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT peer, reason, banned_at, ends_at, offences FROM bans WHERE repository = ?1 ORDER BY ends_at, peer",
            )?;
            statement.query_map(params![id(repository)], read_row)?.collect()
        })
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Ban> {
    Ok(Ban {
        peer: parsed(row, "peer")?,
        reason: row.get("reason")?,
        banned_at: time(row, "banned_at")?,
        ends_at: time(row, "ends_at")?,
        offences: row.get("offences")?,
    })
}
