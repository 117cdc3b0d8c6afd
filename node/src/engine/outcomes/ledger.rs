//! What a seed knows of the nodes of its fleet: since when, what they run, how their last install ended.
//!
//! Everything here is the nodes' own word, and identities cost nothing. So the table is bounded, nodes that
//! have been known for long never give way to newcomers, and only so many newcomers a day get a voice in
//! whether a rollout goes on. Times are the seed's own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use updraft_protocol::names::{Channel, Product};
use updraft_protocol::outcome::{Outcome, Report};
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;

use super::record::{Attempt, NodeRecord};

/// Nodes that are remembered. Bounds memory and disk: some 500 bytes each.
pub const MAX_NODES: usize = 16_384;
/// Products of one node that are remembered, each on each of its channels.
const MAX_PRODUCTS: usize = 16;
/// Seconds after which a node that was not seen gives way to a newcomer.
const FORGOTTEN_S: i64 = 90 * 86_400;
/// Seconds for which a newcomer that came last stays, while others come.
const FRESH_S: i64 = 3_600;
/// Newcomers that get a voice in a day, however small the fleet is.
const MIN_VOICES_A_DAY: usize = 16;
/// And one for so many that have one.
const VOICES_SHARE: usize = 10;
const DAY_S: i64 = 86_400;
/// Seconds between two notes on disk that a node was seen.
const SEEN_S: i64 = 300;

/// What is to be written down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) kept: Vec<(PeerId, NodeRecord)>,
    pub(crate) forgotten: Vec<PeerId>,
}

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    nodes: BTreeMap<PeerId, NodeRecord>,
    most: Option<usize>,
    /// Nodes that have a voice.
    voices: usize,
    /// When the voices of the last day were given, oldest first.
    given: VecDeque<UtcTime>,
    dirty: BTreeSet<PeerId>,
    forgotten: BTreeSet<PeerId>,
}

impl Ledger {
    fn most(&self) -> usize {
        self.most.unwrap_or(MAX_NODES)
    }

    pub(crate) fn restore(&mut self, nodes: Vec<(PeerId, NodeRecord)>) {
        let mut nodes = nodes;
        nodes.sort_by_key(|(_, node)| node.first_seen);
        nodes.truncate(self.most());
        let mut given: Vec<UtcTime> = nodes.iter().filter_map(|(_, node)| node.voice_since).collect();
        given.sort_unstable();
        self.voices = given.len();
        self.given = given.into();
        // What was heard since the start is newer.
        for (peer, node) in nodes {
            self.nodes.entry(peer).and_modify(|heard| heard.join(&node)).or_insert(node);
        }
    }

    /// A node that is known is here still.
    pub(crate) fn is_here(&mut self, peer: &PeerId, now: UtcTime) {
        if self.nodes.contains_key(peer) {
            let _room = self.seen(peer, now);
        }
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<PeerId, NodeRecord> {
        &self.nodes
    }

    /// A node is here; false where there is no room for it.
    pub(crate) fn seen(&mut self, peer: &PeerId, now: UtcTime) -> bool {
        if !self.nodes.contains_key(peer) && !self.make_room(now) {
            return false;
        }
        let voice = self.may_have_a_voice(peer, now);
        let is_new = !self.nodes.contains_key(peer);
        let node = self.nodes.entry(peer.clone()).or_insert_with(|| NodeRecord::new(now));
        if is_new || voice || now.seconds_since(node.last_seen) >= SEEN_S {
            self.dirty.insert(peer.clone());
        }
        node.last_seen = node.last_seen.max(now);
        if voice {
            node.voice_since = Some(now);
            self.voices += 1;
            self.given.push_back(now);
        }
        true
    }

    /// Whether a node that has none gets a voice today.
    fn may_have_a_voice(&mut self, peer: &PeerId, now: UtcTime) -> bool {
        if self.nodes.get(peer).is_some_and(|node| node.voice_since.is_some()) {
            return false;
        }
        while self.given.front().is_some_and(|since| now.seconds_since(*since) >= DAY_S) {
            self.given.pop_front();
        }
        let today = self.given.len();
        today < MIN_VOICES_A_DAY.max(self.voices.saturating_sub(today) / VOICES_SHARE)
    }

    /// Room for a newcomer: in place of a node that is gone for good, else of the one that came last.
    fn make_room(&mut self, now: UtcTime) -> bool {
        if self.nodes.len() < self.most() {
            return true;
        }
        let unseen = |node: &NodeRecord| now.seconds_since(node.last_seen);
        let gone = self.nodes.iter().filter(|(_, node)| unseen(node) >= FORGOTTEN_S);
        let gone = gone.min_by_key(|(_, node)| node.last_seen).map(|(peer, _)| peer.clone());
        let youngest = || {
            let (peer, node) = self.nodes.iter().max_by_key(|(_, node)| node.first_seen)?;
            (now.seconds_since(node.first_seen) < FRESH_S).then(|| peer.clone())
        };
        let Some(peer) = gone.or_else(youngest) else { return false };
        let had_voice = self.nodes.remove(&peer).is_some_and(|node| node.voice_since.is_some());
        self.voices = self.voices.saturating_sub(usize::from(had_voice));
        self.dirty.remove(&peer);
        self.forgotten.insert(peer);
        true
    }

    /// A node's word; false where there is no place for it. Whoever is not in the table is not heard.
    pub(crate) fn take(&mut self, peer: &PeerId, report: &Report, now: UtcTime) -> bool {
        let Some(node) = self.nodes.get_mut(peer) else { return false };
        let followed = (report.product.clone(), report.channel.clone());
        if !node.products.contains_key(&followed) && node.products.len() >= MAX_PRODUCTS {
            return false;
        }
        let record = node.products.entry(followed).or_default();
        let before = record.clone();
        if matches!(report.outcome, Outcome::Runs | Outcome::Installed) {
            record.runs = Some(report.version.clone());
        }
        let is_news = record.last.as_ref().is_none_or(|last| last.number < report.number);
        if report.outcome != Outcome::Runs && is_news {
            record.last = Some(Attempt {
                number: report.number,
                version: report.version.clone(),
                artifact: report.artifact,
                outcome: report.outcome,
                at: now,
                text: report.text.clone(),
            });
        }
        if *record != before {
            self.dirty.insert(peer.clone());
        }
        node.last_seen = node.last_seen.max(now);
        true
    }

    /// A node has gone that named what it follows: what it did not name it does not run any more. How its last
    /// install there ended stays.
    pub(crate) fn left(&mut self, peer: &PeerId, named: &BTreeSet<(Product, Channel)>) {
        let Some(node) = self.nodes.get_mut(peer).filter(|_| !named.is_empty()) else { return };
        for (followed, record) in &mut node.products {
            if record.runs.is_some() && !named.contains(followed) {
                record.runs = None;
                self.dirty.insert(peer.clone());
            }
        }
    }

    /// What has changed since the last time, at most `most` nodes of it.
    pub(crate) fn take_changes(&mut self, most: usize) -> Written {
        let peers: Vec<PeerId> = self.dirty.iter().take(most).cloned().collect();
        let mut written = Written { kept: Vec::new(), forgotten: Vec::new() };
        for peer in peers {
            self.dirty.remove(&peer);
            written.kept.extend(self.nodes.get(&peer).map(|node| (peer, node.clone())));
        }
        // Who came back since is not forgotten.
        let gone = std::mem::take(&mut self.forgotten);
        written.forgotten.extend(gone.into_iter().filter(|peer| !self.nodes.contains_key(peer)));
        written
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::ProductRecord;
    use super::*;
    use proptest::prelude::*;
    use semver::Version;
    use updraft_protocol::digest::Digest;

    fn peer(number: u32) -> PeerId {
        PeerId::from_bytes(&number.to_be_bytes()).expect("a valid length")
    }

    fn at(seconds: i64) -> UtcTime {
        UtcTime::from_unix(1_800_000_000 + seconds)
    }

    fn report(number: u64, outcome: Outcome) -> Report {
        Report {
            number,
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: Version::new(1, number, 0),
            artifact: Digest::ZERO,
            outcome,
            at: at(0),
            text: format!("report {number}"),
            signature: Vec::new(),
        }
    }

    fn record(ledger: &Ledger, number: u32) -> &ProductRecord {
        ledger.nodes[&peer(number)].products.values().next().expect("a product")
    }

    #[test]
    fn the_last_word_of_a_node_counts_in_whatever_order_its_words_come() {
        let mut ledger = Ledger::default();
        assert!(ledger.seen(&peer(1), at(0)));
        ledger.take(&peer(1), &report(3, Outcome::Installed), at(1));
        ledger.take(&peer(1), &report(2, Outcome::Began), at(2));
        let last = record(&ledger, 1).last.clone().expect("an attempt");
        assert_eq!((last.number, last.outcome, last.at), (3, Outcome::Installed, at(1)));
        assert_eq!(record(&ledger, 1).runs, Some(Version::new(1, 3, 0)));
        ledger.take(&peer(1), &report(0, Outcome::Runs), at(3));
        assert_eq!(record(&ledger, 1).runs, Some(Version::new(1, 0, 0)));
        assert_eq!(record(&ledger, 1).last.clone().expect("an attempt").number, 3, "no outcome");
    }

    #[test]
    fn who_follows_two_channels_has_two_records_and_who_moves_runs_only_the_new() {
        let mut ledger = Ledger::default();
        assert!(ledger.seen(&peer(1), at(0)));
        let beta: Channel = "beta".parse().expect("a name");
        ledger.take(&peer(1), &report(1, Outcome::Installed), at(1));
        ledger.take(&peer(1), &Report { channel: beta.clone(), ..report(2, Outcome::Failed) }, at(2));
        let product = report(0, Outcome::Runs).product;
        let key = |channel: &Channel| (product.clone(), channel.clone());
        let last = |ledger: &Ledger, channel: &Channel| {
            ledger.nodes[&peer(1)].products[&key(channel)].last.as_ref().map(|last| last.outcome)
        };
        assert_eq!(last(&ledger, &Channel::stable()), Some(Outcome::Installed), "not replaced by the other's");
        assert_eq!(last(&ledger, &beta), Some(Outcome::Failed));
        ledger.left(&peer(1), &BTreeSet::new());
        assert!(ledger.nodes[&peer(1)].products[&key(&Channel::stable())].runs.is_some(), "it named nothing at all");
        ledger.left(&peer(1), &BTreeSet::from([key(&beta)]));
        assert_eq!(ledger.nodes[&peer(1)].products[&key(&Channel::stable())].runs, None);
        assert_eq!(last(&ledger, &Channel::stable()), Some(Outcome::Installed), "that was so");
    }

    #[test]
    fn whoever_is_not_in_the_table_is_not_heard() {
        let mut ledger = Ledger::default();
        ledger.take(&peer(1), &report(1, Outcome::Failed), at(0));
        assert!(ledger.nodes.is_empty() && ledger.take_changes(10) == Written::default());
    }

    #[test]
    fn what_changed_is_written_once() {
        let mut ledger = Ledger::default();
        for number in 0..3 {
            assert!(ledger.seen(&peer(number), at(0)));
        }
        assert_eq!(ledger.take_changes(2).kept.len(), 2);
        assert_eq!(ledger.take_changes(2).kept.len(), 1);
        assert!(ledger.seen(&peer(0), at(1)));
        assert_eq!(ledger.take_changes(2), Written::default(), "that it is still here is no news");
        assert!(ledger.seen(&peer(0), at(SEEN_S + 1)));
        assert_eq!(ledger.take_changes(2).kept.len(), 1);
    }

    #[test]
    fn a_crowd_of_newcomers_never_displaces_nodes_that_are_known() {
        let mut ledger = Ledger { most: Some(10), ..Ledger::default() };
        for number in 0..8 {
            assert!(ledger.seen(&peer(number), at(0)));
        }
        for number in 100..1_000 {
            let _room = ledger.seen(&peer(number), at(7_200 + i64::from(number)));
            assert!(ledger.nodes.len() <= 10);
        }
        assert!((0..8).all(|number| ledger.nodes.contains_key(&peer(number))));
        assert!(ledger.take_changes(100).forgotten.len() > 500, "what was written of the others goes");
        assert!(ledger.seen(&peer(5), at(9_000)));
        let long_after = at(FORGOTTEN_S + 8_000);
        assert!(ledger.seen(&peer(2_000), long_after), "nodes that are gone for good make room");
        assert!(ledger.nodes.contains_key(&peer(5)));
    }

    #[test]
    fn a_fleet_is_remembered_up_to_its_limit_and_by_who_came_first() {
        let mut ledger = Ledger::default();
        let most = u32::try_from(MAX_NODES).expect("small");
        assert_eq!(most, 16_384, "what `updraft fleet` and the documentation say");
        for number in 0..most {
            assert!(ledger.seen(&peer(number), at(0)), "there is room for node {number}");
        }
        let (late, later) = (peer(most), peer(most + 1));
        assert!(!ledger.seen(&late, at(FRESH_S)), "everybody is known for an hour: nobody gives way");
        ledger.take(&late, &report(1, Outcome::Failed), at(FRESH_S));
        assert_eq!(ledger.nodes.len(), MAX_NODES);
        assert!(!ledger.nodes.contains_key(&late));
        assert!(ledger.seen(&late, at(FORGOTTEN_S)), "one that was not seen for so long gives way");
        assert!(ledger.seen(&later, at(FORGOTTEN_S)));
        assert_eq!(ledger.nodes.len(), MAX_NODES);
        let written = ledger.take_changes(usize::MAX);
        assert_eq!((written.kept.len(), written.forgotten.len()), (MAX_NODES, 2));

        let rows = (0..most + 100).map(|number| {
            let seen = at(i64::from(number));
            let new = NodeRecord { first_seen: seen, last_seen: seen, voice_since: None, products: BTreeMap::new() };
            (peer(number), new)
        });
        let mut restored = Ledger::default();
        restored.restore(rows.rev().collect());
        assert_eq!(restored.nodes.len(), MAX_NODES);
        assert!(restored.nodes.contains_key(&peer(0)) && !restored.nodes.contains_key(&peer(most)));
    }

    #[test]
    fn a_node_has_few_products() {
        let mut ledger = Ledger::default();
        assert!(ledger.seen(&peer(1), at(0)));
        for number in 0..100 {
            let product = format!("app-{number}").parse().expect("a name");
            ledger.take(&peer(1), &Report { product, ..report(number, Outcome::Runs) }, at(0));
        }
        assert_eq!(ledger.nodes[&peer(1)].products.len(), MAX_PRODUCTS);
    }

    proptest! {
        #[test]
        fn voices_are_given_slowly(arrivals in prop::collection::vec(0..3_600_i64, 1..400)) {
            let mut ledger = Ledger::default();
            let mut now = at(0);
            for (number, wait) in (0..).zip(arrivals) {
                now = now.plus_seconds(wait);
                let _room = ledger.seen(&peer(number), now);
                let voices: Vec<UtcTime> = ledger.nodes.values().filter_map(|node| node.voice_since).collect();
                let today = voices.iter().filter(|since| now.seconds_since(**since) < DAY_S).count();
                let before = voices.len() - today;
                prop_assert!(today <= MIN_VOICES_A_DAY.max(before / VOICES_SHARE + 1));
            }
        }
    }
}
