//! The numbers of the HTTP face, taken from the engine now and then: a scrape never waits for it.

use super::{Runtime, traffic};
use crate::gateway::Metrics;

impl Runtime {
    pub(super) fn refresh_numbers(&self) {
        if self.config.http.is_none() && self.config.metrics.is_none() {
            return;
        }
        let now = self.now();
        let timestamp = self.engine.catalog().and_then(|view| view.trusted.timestamp());
        let metrics = Metrics {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: now.mono_ms,
            connected_peers: self.engine.connected_peers() as u64,
            traffic: traffic::metrics(&self.engine, &self.counters),
            bytes_stored: self.opened.store.list().iter().map(|info| info.bytes_done).sum(),
            head_version: timestamp.map(|timestamp| timestamp.version),
            head_age_seconds: self.engine.head_age_s(now),
            head_expires_in_seconds: timestamp.map(|timestamp| timestamp.expires.seconds_since(now.wall)),
            heads_accepted: self.events.heads_accepted,
            heads_rejected: self.events.heads_rejected,
            equivocations: self.engine.catalog().map_or(0, |view| view.contradictions.len() as u64),
            subscriptions_by_state: self.engine.subscriptions_by_state(),
            installs_committed: self.events.installs_committed,
            installs_rolled_back: self.events.installs_rolled_back,
            clock_trusted: self.engine.clock(now).is_trusted(),
            metadata_expired: self.engine.expired(now).is_some(),
            remembered_releases: self.engine.memory().targets.len() as u64,
            altered_releases: self.engine.catalog().map_or(0, |view| view.altered.len() as u64),
            alterations: self.events.releases_altered,
            banned_peers: self.engine.bans().count() as u64,
            rate_limited_heads: self.engine.rate_limited().heads,
            rate_limited_requests: self.engine.rate_limited().requests,
        };
        self.face.update_numbers(metrics, Vec::new());
    }
}
