//! Peers that this node was connected to: where to dial first after a restart.

use rusqlite::{Row, params};
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_PEER_ADDRESSES;
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, column_error, id, parsed, time};

/// Peers kept for each repository. Bounds what a stream of invented peers does to the disk.
pub const KNOWN_PEERS: u32 = 512;

/// A peer and where it was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// The peer.
    pub peer: PeerId,
    /// Multiaddresses in text form, at most 16 are kept.
    pub addresses: Vec<String>,
    /// When it was last connected.
    pub last_connected_at: UtcTime,
}

impl StateDb {
    /// Adds or replaces peers of `repository`, then drops those that were connected longest ago
    /// until [`KNOWN_PEERS`] are left.
    pub fn remember_peers(&self, repository: &Digest, peers: &[KnownPeer]) -> Result<(), StateError> {
        let repository = id(repository);
        self.write(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO known_peers (repository, peer, addresses, last_connected_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (repository, peer) DO UPDATE SET
                     addresses = excluded.addresses, last_connected_at = excluded.last_connected_at",
            )?;
            for peer in peers {
                let addresses = &peer.addresses[..peer.addresses.len().min(MAX_PEER_ADDRESSES)];
                let addresses = serde_json::to_string(addresses).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                statement.execute(params![repository, peer.peer.to_string(), addresses, peer.last_connected_at.unix()])?;
            }
            transaction.execute(
                "DELETE FROM known_peers WHERE repository = ?1 AND peer NOT IN
                     (SELECT peer FROM known_peers WHERE repository = ?1 ORDER BY last_connected_at DESC, peer LIMIT ?2)",
                params![repository, KNOWN_PEERS],
            )
        })?;
        Ok(())
    }

    /// The known peers of `repository`, the one connected last first.
    pub fn known_peers(&self, repository: &Digest) -> Result<Vec<KnownPeer>, StateError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT peer, addresses, last_connected_at FROM known_peers
                 WHERE repository = ?1 ORDER BY last_connected_at DESC, peer",
            )?;
            statement.query_map(params![id(repository)], read_row)?.collect()
        })
    }

    /// Forgets a peer: it lied, or left for good. `false` when it was not known.
    pub fn forget_peer(&self, repository: &Digest, peer: &PeerId) -> Result<bool, StateError> {
        let key = (id(repository), peer.to_string());
        let forgotten = self.write(|transaction| {
            transaction.execute("DELETE FROM known_peers WHERE repository = ?1 AND peer = ?2", key)
        })?;
        Ok(forgotten > 0)
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<KnownPeer> {
    let addresses: String = row.get("addresses")?;
    Ok(KnownPeer {
        peer: parsed(row, "peer")?,
        addresses: serde_json::from_str(&addresses).map_err(|error| column_error(row, "addresses", error))?,
        last_connected_at: time(row, "last_connected_at")?,
    })
}
