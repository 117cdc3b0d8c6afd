//! Reports that no seed has acknowledged yet, and, at a seed, what it knows of the nodes of its fleet.

use rusqlite::params;
use updraft_protocol::digest::Digest;
use updraft_protocol::outcome::Report;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::Control;

use super::{StateDb, StateError, id};
use crate::engine::outcomes::ledger::MAX_NODES;
use crate::engine::outcomes::record::NodeRecord;

/// Bytes of the length in front of a message.
const FRAME_HEADER: usize = 4;

/// The fact that says which numbers were used.
const LAST_NUMBER: &str = "last_report_number";

impl StateDb {
    /// Keeps a report until it is acknowledged.
    pub fn put_report(&self, repository: &Digest, report: &Report) -> Result<(), StateError> {
        let Ok(number) = i64::try_from(report.number) else { return Ok(()) };
        // As it travels: one encoding, with its bounds.
        let body = Control::Report(Box::new(report.clone())).to_frame().split_off(FRAME_HEADER);
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO report_outbox (repository, number, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (repository, number) DO UPDATE SET body = excluded.body",
                params![id(repository), number, body],
            )?;
            transaction.execute(
                "INSERT INTO facts (repository, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (repository, key) DO UPDATE
                 SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
                params![id(repository), LAST_NUMBER, number.to_string()],
            )
        })?;
        Ok(())
    }

    /// The highest number that a report had, acknowledged or not; 0 where there was none.
    pub fn last_report_number(&self, repository: &Digest) -> Result<u64, StateError> {
        Ok(self.fact(repository, LAST_NUMBER)?.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Forgets reports.
    pub fn remove_reports(&self, repository: &Digest, numbers: &[u64]) -> Result<(), StateError> {
        self.write(|transaction| {
            for number in numbers.iter().filter_map(|number| i64::try_from(*number).ok()) {
                transaction.execute(
                    "DELETE FROM report_outbox WHERE repository = ?1 AND number = ?2",
                    params![id(repository), number],
                )?;
            }
            Ok(())
        })
    }

    /// Every report that is kept. What this version cannot read is of no use and left out.
    pub fn reports(&self, repository: &Digest) -> Result<Vec<Report>, StateError> {
        let bodies: Vec<Vec<u8>> = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT body FROM report_outbox WHERE repository = ?1 ORDER BY number")?;
            let rows = statement.query_map(params![id(repository)], |row| row.get(0))?;
            rows.collect()
        })?;
        let reports = bodies.iter().filter_map(|body| match Control::decode(body) {
            Ok(Control::Report(report)) => Some(*report),
            _ => None,
        });
        Ok(reports.collect())
    }

    /// Keeps what is known of nodes, and forgets others.
    pub fn put_nodes(
        &self,
        repository: &Digest,
        kept: &[(PeerId, NodeRecord)],
        forgotten: &[PeerId],
    ) -> Result<(), StateError> {
        self.write(|transaction| {
            for (peer, node) in kept {
                let record = serde_json::to_string(node).expect("a record is plain data with text for keys");
                transaction.execute(
                    "INSERT INTO fleet (repository, peer, first_seen, last_seen, record) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (repository, peer) DO UPDATE
                     SET first_seen = excluded.first_seen, last_seen = excluded.last_seen, record = excluded.record",
                    params![id(repository), peer.to_string(), node.first_seen.unix(), node.last_seen.unix(), record],
                )?;
            }
            for peer in forgotten {
                transaction.execute(
                    "DELETE FROM fleet WHERE repository = ?1 AND peer = ?2",
                    params![id(repository), peer.to_string()],
                )?;
            }
            Ok(())
        })
    }

    /// Every node that is known, those known for longest. What this version cannot read is left out.
    pub fn nodes(&self, repository: &Digest) -> Result<Vec<(PeerId, NodeRecord)>, StateError> {
        let most = i64::try_from(MAX_NODES).unwrap_or(i64::MAX);
        let rows: Vec<(String, String)> = self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT peer, record FROM fleet WHERE repository = ?1 ORDER BY first_seen LIMIT ?2")?;
            let rows = statement.query_map(params![id(repository), most], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let nodes =
            rows.iter().filter_map(|(peer, record)| Some((peer.parse().ok()?, serde_json::from_str(record).ok()?)));
        Ok(nodes.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use semver::Version;
    use updraft_protocol::outcome::Outcome;
    use updraft_protocol::time::UtcTime;

    use super::*;
    use crate::engine::outcomes::record::{Attempt, ProductRecord};

    fn report(number: u64) -> Report {
        Report {
            number,
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: Version::new(1, 0, 0),
            artifact: Digest::of(b"artifact"),
            outcome: Outcome::Failed,
            at: UtcTime::from_unix(1_800_000_000),
            text: "why".to_owned(),
            signature: Vec::new(),
        }
    }

    fn node(first_seen: i64) -> NodeRecord {
        let at = UtcTime::from_unix(first_seen);
        let last = Attempt {
            number: 1,
            version: Version::new(1, 0, 0),
            artifact: Digest::of(b"artifact"),
            outcome: Outcome::RolledBack,
            at,
            text: "why".to_owned(),
        };
        let followed = ("app".parse().expect("a name"), "stable".parse().expect("a name"));
        let record = ProductRecord { runs: Some(Version::new(0, 9, 0)), last: Some(last) };
        let products = BTreeMap::from([(followed, record)]);
        NodeRecord { first_seen: at, last_seen: at, voice_since: Some(at), products }
    }

    #[test]
    fn reports_last_until_they_are_acknowledged() {
        let directory = tempfile::tempdir().expect("a directory");
        let (repository, other) = (Digest::of(b"repository"), Digest::of(b"other"));
        {
            let state = StateDb::open(&directory.path().join("state.db")).expect("opens");
            for number in [3, 1, 2, 1] {
                state.put_report(&repository, &report(number)).expect("written");
            }
            state.remove_reports(&repository, &[2, 9]).expect("written");
        }
        let state = StateDb::open(&directory.path().join("state.db")).expect("opens");
        assert_eq!(state.reports(&repository).expect("read"), [report(1), report(3)]);
        assert_eq!(state.reports(&other).expect("read"), []);
        state.remove_reports(&repository, &[1, 3]).expect("written");
        assert_eq!(state.last_report_number(&repository).expect("read"), 3, "though all are acknowledged");
        assert_eq!(state.last_report_number(&other).expect("read"), 0);
    }

    #[test]
    fn nodes_last_until_they_are_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = Digest::of(b"repository");
        let peer = |number: u8| PeerId::from_bytes(&[number; 4]).expect("a valid length");
        {
            let state = StateDb::open(&directory.path().join("state.db")).expect("opens");
            let nodes = [(peer(1), node(30)), (peer(2), node(10)), (peer(3), node(20))];
            state.put_nodes(&repository, &nodes, &[]).expect("written");
            state.put_nodes(&repository, &[(peer(1), node(5))], &[peer(3)]).expect("written");
        }
        let state = StateDb::open(&directory.path().join("state.db")).expect("opens");
        assert_eq!(state.nodes(&repository).expect("read"), [(peer(1), node(5)), (peer(2), node(10))]);
        assert_eq!(state.nodes(&Digest::of(b"other")).expect("read"), []);
    }
}
