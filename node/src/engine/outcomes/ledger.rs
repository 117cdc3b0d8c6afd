//! What a seed knows of the nodes of its fleet: since when, what they run, how their last install ended.
//!
//! Everything here is the nodes' own word, and identities cost nothing. So the table is bounded, nodes that have
//! a voice in whether a rollout goes on never give way to newcomers, and only so many newcomers a day get one.
//! Times are the seed's own.

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
/// Seconds after which a node that never reported anything and is not here gives way to one that is.
const IDLE_S: i64 = 3_600;
/// Seconds after which a node without a voice does, whatever it reported.
const VOICELESS_S: i64 = DAY_S;
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
    /// When each node was last seen, as far as that is written down.
    noted: BTreeMap<PeerId, UtcTime>,
    /// The latest time that was heard of.
    latest: Option<UtcTime>,
}

impl Ledger {
    fn most(&self) -> usize {
        self.most.unwrap_or(MAX_NODES)
    }

    pub(crate) fn restore(&mut self, nodes: Vec<(PeerId, NodeRecord)>, now: UtcTime) {
        let mut nodes = nodes;
        nodes.sort_by_key(|(_, node)| node.first_seen);
        nodes.truncate(self.most());
        let mut given: Vec<UtcTime> = nodes.iter().filter_map(|(_, node)| node.voice_since).collect();
        given.sort_unstable();
        self.voices = given.len();
        self.given = given.into();
        // What was heard since the start is newer.
        for (peer, node) in nodes {
            self.noted.insert(peer.clone(), node.last_seen);
            self.nodes.entry(peer).and_modify(|heard| heard.join(&node)).or_insert(node);
        }
        self.forget_the_future(now);
        self.latest = Some(now);
    }

    /// The clock was wrong once and is right now: nothing was heard in times that are still to come. Voices of
    /// such times would never count, nor ever be a day old and make room for the next.
    fn forget_the_future(&mut self, now: UtcTime) {
        for (peer, node) in &mut self.nodes {
            let heard = node.products.values_mut().filter_map(|record| record.last.as_mut()).map(|last| &mut last.at);
            let times = [&mut node.first_seen, &mut node.last_seen].into_iter().chain(&mut node.voice_since);
            for time in times.chain(heard).filter(|time| **time > now) {
                *time = now;
                self.dirty.insert(peer.clone());
            }
        }
        for since in self.given.iter_mut().filter(|since| **since > now) {
            *since = now;
        }
    }

    /// Who is here still. Voices that are free today go to those of them that follow a product and have none,
    /// to who came first first: that costs an inventor of nodes a session each, and time.
    pub(crate) fn look(&mut self, here: &[PeerId], now: UtcTime) {
        if self.latest.replace(now).is_some_and(|latest| now < latest) {
            self.forget_the_future(now);
        }
        let mut waiting = Vec::new();
        for peer in here.iter().filter(|peer| self.nodes.contains_key(*peer)).collect::<Vec<_>>() {
            self.seen(peer, now);
            let node = &self.nodes[peer];
            if node.voice_since.is_none() && !node.products.is_empty() {
                waiting.push((node.first_seen, peer));
            }
        }
        waiting.sort_unstable();
        let free = self.free_voices(now);
        for (_, peer) in waiting.into_iter().take(free) {
            if let Some(node) = self.nodes.get_mut(peer) {
                node.voice_since = Some(now);
                self.voices += 1;
                self.given.push_back(now);
                self.dirty.insert(peer.clone());
            }
        }
    }

    /// How many voices may be given now.
    fn free_voices(&mut self, now: UtcTime) -> usize {
        while self.given.front().is_some_and(|since| now.seconds_since(*since) >= DAY_S) {
            self.given.pop_front();
        }
        let today = self.given.len();
        MIN_VOICES_A_DAY.max(self.voices.saturating_sub(today) / VOICES_SHARE).saturating_sub(today)
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<PeerId, NodeRecord> {
        &self.nodes
    }

    /// A node is here; false where there is no room for it.
    pub(crate) fn seen(&mut self, peer: &PeerId, now: UtcTime) -> bool {
        if !self.nodes.contains_key(peer) && !self.make_room(now) {
            return false;
        }
        let node = self.nodes.entry(peer.clone()).or_insert_with(|| NodeRecord::new(now));
        node.last_seen = node.last_seen.max(now);
        if self.noted.get(peer).is_none_or(|noted| node.last_seen.seconds_since(*noted) >= SEEN_S) {
            self.dirty.insert(peer.clone());
        }
        true
    }

    /// Room for a newcomer: in place of a node that is gone for good, of one that was never more than a name, of
    /// one that has no voice and is away, else of the one that came last. Who is here counts more than who was.
    fn make_room(&mut self, now: UtcTime) -> bool {
        if self.nodes.len() < self.most() {
            return true;
        }
        let away_s = |node: &NodeRecord| now.seconds_since(node.last_seen);
        let is_gone = |node: &NodeRecord| away_s(node) >= FORGOTTEN_S;
        let is_idle =
            |node: &NodeRecord| node.products.is_empty() && node.voice_since.is_none() && away_s(node) >= IDLE_S;
        let is_voiceless = |node: &NodeRecord| node.voice_since.is_none() && away_s(node) >= VOICELESS_S;
        let kinds: [&dyn Fn(&NodeRecord) -> bool; 3] = [&is_gone, &is_idle, &is_voiceless];
        let away_longest = |kind: &dyn Fn(&NodeRecord) -> bool| {
            let those = self.nodes.iter().filter(|(_, node)| kind(node));
            those.min_by_key(|(_, node)| node.last_seen).map(|(peer, _)| peer.clone())
        };
        let youngest = || {
            let voiceless = self.nodes.iter().filter(|(_, node)| node.voice_since.is_none());
            let (peer, node) = voiceless.max_by_key(|(_, node)| node.first_seen)?;
            (now.seconds_since(node.first_seen) < FRESH_S).then(|| peer.clone())
        };
        let Some(peer) = kinds.into_iter().find_map(away_longest).or_else(youngest) else { return false };
        let had_voice = self.nodes.remove(&peer).is_some_and(|node| node.voice_since.is_some());
        self.voices = self.voices.saturating_sub(usize::from(had_voice));
        self.dirty.remove(&peer);
        self.noted.remove(&peer);
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
        let is_news = record.last.as_ref().is_none_or(|last| last.number < report.number);
        match report.outcome {
            Outcome::Runs => {
                record.runs = Some(report.version.clone());
                // What it runs it has installed. The word of that end was lost on its way.
                let began = record.last.as_mut().filter(|last| last.outcome == Outcome::Began);
                if let Some(began) = began.filter(|began| began.artifact == report.artifact) {
                    (began.outcome, began.at, began.text) = (Outcome::Installed, now, String::new());
                }
            }
            Outcome::Installed if is_news => record.runs = Some(report.version.clone()),
            _ => {}
        }
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
        true
    }

    /// A node runs a release of this product that is not known here.
    pub(crate) fn runs_another(&mut self, peer: &PeerId, followed: &(Product, Channel)) -> bool {
        let Some(node) = self.nodes.get_mut(peer) else { return false };
        if !node.products.contains_key(followed) && node.products.len() >= MAX_PRODUCTS {
            return false;
        }
        let is_new = !node.products.contains_key(followed);
        let record = node.products.entry(followed.clone()).or_default();
        if record.runs.take().is_some() || is_new {
            self.dirty.insert(peer.clone());
        }
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
            if let Some(node) = self.nodes.get(&peer) {
                self.noted.insert(peer.clone(), node.last_seen);
                written.kept.push((peer, node.clone()));
            }
        }
        // Who came back since is not forgotten.
        let gone = std::mem::take(&mut self.forgotten);
        written.forgotten.extend(gone.into_iter().filter(|peer| !self.nodes.contains_key(peer)));
        written
    }

    /// Everything that is not written yet, down to when each node was last seen.
    pub(crate) fn take_all(&mut self) -> Written {
        let seen = self.nodes.iter().filter(|(peer, node)| self.noted.get(*peer) != Some(&node.last_seen));
        self.dirty.extend(seen.map(|(peer, _)| peer.clone()));
        self.take_changes(MAX_NODES)
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
    fn the_end_of_an_install_that_was_lost_on_its_way_is_seen_in_what_runs() {
        let mut ledger = Ledger::default();
        assert!(ledger.seen(&peer(1), at(0)));
        ledger.take(&peer(1), &report(3, Outcome::Began), at(1));
        let runs = |artifact| Report { artifact, ..report(0, Outcome::Runs) };
        ledger.take(&peer(1), &runs(Digest::of(b"what it had before")), at(2));
        assert_eq!(record(&ledger, 1).last.as_ref().map(|last| last.outcome), Some(Outcome::Began));
        ledger.take(&peer(1), &runs(Digest::ZERO), at(3));
        let last = record(&ledger, 1).last.clone().expect("an attempt");
        assert_eq!((last.outcome, last.number, last.at), (Outcome::Installed, 3, at(3)));
        ledger.take(&peer(1), &report(4, Outcome::RolledBack), at(4));
        ledger.take(&peer(1), &runs(Digest::ZERO), at(5));
        assert_eq!(record(&ledger, 1).last.clone().expect("an attempt").outcome, Outcome::RolledBack, "it ended");
    }

    #[test]
    fn an_old_word_does_not_change_what_a_node_runs() {
        let mut ledger = Ledger::default();
        assert!(ledger.seen(&peer(1), at(0)));
        ledger.take(&peer(1), &report(3, Outcome::Installed), at(1));
        ledger.take(&peer(1), &report(0, Outcome::Runs), at(2));
        ledger.take(&peer(1), &report(3, Outcome::Installed), at(3));
        assert_eq!(record(&ledger, 1).runs, Some(Version::new(1, 0, 0)), "it came again, and is no news");
        assert!(ledger.runs_another(&peer(1), &(report(0, Outcome::Runs).product, Channel::stable())));
        assert_eq!(record(&ledger, 1).runs, None, "something that is not known here");
    }

    #[test]
    fn what_changed_is_written_once() {
        let mut ledger = Ledger::default();
        for number in 0..3 {
            assert!(ledger.seen(&peer(number), at(0)));
        }
        assert_eq!(ledger.take_changes(2).kept.len(), 2);
        assert_eq!(ledger.take_changes(2).kept.len(), 1);
        let here: Vec<PeerId> = vec![peer(0)];
        for seconds in (0..SEEN_S).step_by(2) {
            ledger.look(&here, at(seconds));
        }
        assert_eq!(ledger.take_changes(2), Written::default(), "that it is still here is no news");
        ledger.look(&here, at(SEEN_S));
        let written = ledger.take_changes(2).kept;
        assert_eq!(written.iter().map(|(_, node)| node.last_seen).collect::<Vec<_>>(), [at(SEEN_S)]);
    }

    #[test]
    fn at_the_end_everything_is_written() {
        let mut ledger = Ledger::default();
        for number in 0..3 {
            assert!(ledger.seen(&peer(number), at(0)));
        }
        let _written = ledger.take_changes(10);
        ledger.look(&[peer(1)], at(10));
        let written = ledger.take_all().kept;
        assert_eq!(
            written.iter().map(|(peer, node)| (peer.clone(), node.last_seen)).collect::<Vec<_>>(),
            [(peer(1), at(10))]
        );
        assert_eq!(ledger.take_all(), Written::default());
    }

    /// A node that follows a product, and a look at it.
    fn follows(ledger: &mut Ledger, number: u32, now: UtcTime) {
        assert!(ledger.seen(&peer(number), now));
        ledger.take(&peer(number), &report(0, Outcome::Runs), now);
        ledger.look(&[peer(number)], now);
    }

    #[test]
    fn a_crowd_of_newcomers_never_displaces_nodes_that_have_a_voice() {
        let mut ledger = Ledger { most: Some(10), ..Ledger::default() };
        for number in 0..8 {
            follows(&mut ledger, number, at(0));
        }
        for number in 100..1_000 {
            let _room = ledger.seen(&peer(number), at(7_200 + i64::from(number)));
            assert!(ledger.nodes.len() <= 10);
        }
        assert!((0..8).all(|number| ledger.nodes.contains_key(&peer(number))));
        assert!(ledger.take_changes(100).forgotten.len() > 500, "what was written of the others goes");
        assert!(ledger.seen(&peer(5), at(9_000)));
        let long_after = at(FORGOTTEN_S + 8_000);
        for number in 2_000..2_010 {
            assert!(ledger.seen(&peer(number), long_after), "nodes that are gone for good make room");
        }
        assert!(ledger.nodes.contains_key(&peer(5)));
    }

    #[test]
    fn a_fleet_is_remembered_up_to_its_limit_and_by_who_came_first() {
        let mut ledger = Ledger::default();
        let most = u32::try_from(MAX_NODES).expect("small");
        assert_eq!(most, 16_384, "what `updraft fleet` and the documentation say");
        for number in 0..most {
            assert!(ledger.seen(&peer(number), at(0)), "there is room for node {number}");
            ledger.take(&peer(number), &report(1, Outcome::Installed), at(0));
        }
        let (late, later) = (peer(most), peer(most + 1));
        assert!(!ledger.seen(&late, at(VOICELESS_S - 1)), "who reported something is remembered: nobody gives way");
        ledger.take(&late, &report(1, Outcome::Failed), at(VOICELESS_S - 1));
        assert_eq!(ledger.nodes.len(), MAX_NODES);
        assert!(!ledger.nodes.contains_key(&late));
        assert!(ledger.seen(&late, at(FORGOTTEN_S)), "one that was not seen for so long gives way");
        assert!(ledger.seen(&later, at(FORGOTTEN_S)));
        assert_eq!(ledger.nodes.len(), MAX_NODES);
        let written = ledger.take_all();
        assert_eq!((written.kept.len(), written.forgotten.len()), (MAX_NODES, 2));

        let rows = (0..most + 100).map(|number| {
            let seen = at(i64::from(number));
            let new = NodeRecord { first_seen: seen, last_seen: seen, voice_since: None, products: BTreeMap::new() };
            (peer(number), new)
        });
        let mut restored = Ledger::default();
        restored.restore(rows.rev().collect(), at(i64::from(most + 100)));
        assert_eq!(restored.nodes.len(), MAX_NODES);
        assert!(restored.nodes.contains_key(&peer(0)) && !restored.nodes.contains_key(&peer(most)));
    }

    #[test]
    fn a_table_full_of_invented_nodes_has_room_for_who_is_here() {
        let mut ledger = Ledger { most: Some(10), ..Ledger::default() };
        for number in 0..10 {
            assert!(ledger.seen(&peer(number), at(0)));
        }
        assert!(ledger.seen(&peer(100), at(IDLE_S)), "names that came once and said nothing");
        assert!(ledger.nodes.len() == 10 && ledger.nodes.contains_key(&peer(100)));
        // Names that reported something, and even of those the ones without a voice only.
        let mut ledger = Ledger { most: Some(20), ..Ledger::default() };
        for number in 0..20 {
            follows(&mut ledger, number, at(0));
        }
        assert!(!ledger.seen(&peer(100), at(VOICELESS_S - 1)), "they may come back");
        assert!(ledger.seen(&peer(100), at(VOICELESS_S)));
        assert!((0..16).all(|number| ledger.nodes.contains_key(&peer(number))), "who has a voice stays");
    }

    #[test]
    fn voices_go_to_who_follows_a_product_and_came_first() {
        let mut ledger = Ledger::default();
        let (honest, mirror) = (peer(0xff_ff), peer(0));
        assert!(ledger.seen(&mirror, at(0)), "its id comes first, it came first, and it installs nothing");
        assert!(ledger.seen(&honest, at(1)));
        ledger.take(&honest, &report(0, Outcome::Runs), at(1));
        let mut here = vec![mirror.clone(), honest.clone()];
        for number in 1..100 {
            assert!(ledger.seen(&peer(number), at(2)));
            ledger.take(&peer(number), &report(0, Outcome::Runs), at(2));
            here.push(peer(number));
        }
        ledger.look(&here, at(3));
        assert_eq!(ledger.nodes[&honest].voice_since, Some(at(3)));
        assert_eq!(ledger.nodes[&mirror].voice_since, None);
        let voices = |ledger: &Ledger| ledger.nodes.values().filter(|node| node.voice_since.is_some()).count();
        assert_eq!(voices(&ledger), MIN_VOICES_A_DAY);
        ledger.look(&here[..2], at(3 + DAY_S));
        assert_eq!(voices(&ledger), MIN_VOICES_A_DAY, "whoever is away gets none");
        ledger.look(&here, at(3 + DAY_S));
        assert_eq!(voices(&ledger), 2 * MIN_VOICES_A_DAY);
    }

    #[test]
    fn a_clock_that_was_in_the_future_once_leaves_no_voices_there() {
        let mut ledger = Ledger::default();
        for number in 0..16 {
            follows(&mut ledger, number, at(1_000_000));
        }
        ledger.look(&[], at(10));
        let voices: Vec<Option<UtcTime>> = ledger.nodes.values().map(|node| node.voice_since).collect();
        assert_eq!(voices, vec![Some(at(10)); 16]);
        let mut restored = Ledger::default();
        restored.restore(ledger.take_all().kept, at(5));
        assert!(restored.nodes.values().all(|node| node.voice_since == Some(at(5)) && node.last_seen == at(5)));
        follows(&mut restored, 99, at(5 + DAY_S));
        assert_eq!(restored.nodes[&peer(99)].voice_since, Some(at(5 + DAY_S)), "the next day gives the next voices");
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
                follows(&mut ledger, number, now);
                let voices: Vec<UtcTime> = ledger.nodes.values().filter_map(|node| node.voice_since).collect();
                let today = voices.iter().filter(|since| now.seconds_since(**since) < DAY_S).count();
                let before = voices.len() - today;
                prop_assert!(today <= MIN_VOICES_A_DAY.max(before / VOICES_SHARE + 1));
            }
        }
    }
}
