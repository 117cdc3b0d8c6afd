//! What a seed remembers of one node, and the form in which that is kept.
//!
//! Earlier versions of Updraft knew one channel of a product. They read what is kept by this one: further
//! channels have a place of their own, which they leave alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use semver::Version;
use serde::{Deserialize, Serialize};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::outcome::Outcome;
use updraft_protocol::time::UtcTime;

/// How an install of a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The report's number.
    pub number: u64,
    /// Of which release.
    pub version: Version,
    /// Its artifact.
    pub artifact: Digest,
    /// How far it came.
    pub outcome: Outcome,
    /// When that was heard.
    pub at: UtcTime,
    /// The node's words.
    pub text: String,
}

/// What is known of a product that a node follows on a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProductRecord {
    /// What it runs.
    pub runs: Option<Version>,
    /// Its last install.
    pub last: Option<Attempt>,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct NodeRecord {
    /// When it came first.
    pub first_seen: UtcTime,
    /// When it was here last.
    pub last_seen: UtcTime,
    /// Since when its word counts; none: not yet.
    pub voice_since: Option<UtcTime>,
    /// What it has, by product and channel.
    pub products: BTreeMap<(Product, Channel), ProductRecord>,
}

impl NodeRecord {
    /// A node that is here for the first time.
    pub(super) fn new(now: UtcTime) -> Self {
        Self { first_seen: now, last_seen: now, voice_since: None, products: BTreeMap::new() }
    }

    /// Adds what was known before to what is known now.
    pub(super) fn join(&mut self, before: &Self) {
        self.first_seen = before.first_seen;
        self.voice_since = before.voice_since.or(self.voice_since);
        for (followed, record) in &before.products {
            self.products.entry(followed.clone()).or_insert_with(|| record.clone());
        }
    }
}

/// A node as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    first_seen: UtcTime,
    last_seen: UtcTime,
    voice_since: Option<UtcTime>,
    products: BTreeMap<Product, KeptProduct>,
    /// Further channels of products that are among those above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<(Product, KeptProduct)>,
}

#[derive(Clone, Serialize, Deserialize)]
struct KeptProduct {
    channel: Channel,
    runs: Option<Version>,
    last: Option<Attempt>,
}

impl From<Kept> for NodeRecord {
    fn from(kept: Kept) -> Self {
        let all = kept.products.into_iter().chain(kept.others);
        let products =
            all.map(|(product, kept)| ((product, kept.channel), ProductRecord { runs: kept.runs, last: kept.last }));
        Self {
            first_seen: kept.first_seen,
            last_seen: kept.last_seen,
            voice_since: kept.voice_since,
            products: products.collect(),
        }
    }
}

impl From<NodeRecord> for Kept {
    fn from(node: NodeRecord) -> Self {
        let (mut products, mut others) = (BTreeMap::new(), Vec::new());
        for ((product, channel), record) in node.products {
            let kept = KeptProduct { channel, runs: record.runs, last: record.last };
            match products.entry(product) {
                Entry::Vacant(free) => {
                    free.insert(kept);
                }
                Entry::Occupied(taken) => others.push((taken.key().clone(), kept)),
            }
        }
        Self { first_seen: node.first_seen, last_seen: node.last_seen, voice_since: node.voice_since, products, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(product: &str, channel: &str) -> (Product, Channel) {
        (product.parse().expect("a name"), channel.parse().expect("a name"))
    }

    #[test]
    fn a_node_is_kept_with_every_channel_that_it_follows() {
        let runs = |minor| ProductRecord { runs: Some(Version::new(1, minor, 0)), last: None };
        let products = BTreeMap::from([
            (followed("app", "beta"), runs(2)),
            (followed("app", "stable"), runs(1)),
            (followed("tool", "stable"), runs(0)),
        ]);
        let node = NodeRecord { products, ..NodeRecord::new(UtcTime::from_unix(1_800_000_000)) };
        let kept = serde_json::to_string(&node).expect("plain data");
        assert_eq!(serde_json::from_str::<NodeRecord>(&kept).expect("readable"), node);
    }

    #[test]
    fn what_an_earlier_version_kept_is_read() {
        let kept = r#"{"first_seen":"2027-01-15T08:00:00Z","last_seen":"2027-01-15T09:00:00Z","voice_since":null,
            "products":{"app":{"channel":"beta","runs":"1.2.0","last":null}}}"#;
        let node: NodeRecord = serde_json::from_str(kept).expect("readable");
        assert_eq!(node.products[&followed("app", "beta")].runs, Some(Version::new(1, 2, 0)));
    }
}
