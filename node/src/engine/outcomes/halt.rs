//! Whether what nodes reported of a release is bad enough to pause its channel.
//!
//! One vote a node, and only of nodes that had a voice before the channel pointed to the release and whose
//! turn in the rollout has come: whoever invents nodes once a release is out has no votes, and cannot choose
//! ids that come first for a release before he knows it. Silence after a beginning is a failure in the end: a
//! machine that a release destroyed says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::outcome::Outcome;
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::rollout::{ChannelPolicy, Opens, bucket};
use updraft_protocol::time::UtcTime;

use super::super::catalog::CatalogView;
use super::record::{Attempt, NodeRecord};

/// What became of a release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Nodes that run it.
    pub installed: u64,
    /// Nodes for which it failed.
    pub failed: u64,
    /// Nodes that began and have not ended.
    pub pending: u64,
    /// Nodes with a vote that ended or fell silent.
    pub votes: u64,
    /// Of those: for which it failed, or that fell silent.
    pub votes_failed: u64,
    /// The words of one for which it failed.
    pub last_words: Option<String>,
}

/// The artifacts whose installs tell how a release fares: its own builds, and those of the releases that nodes
/// step over to get there. A stone that breaks machines is as bad as its target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Builds {
    /// Of the release itself.
    pub own: BTreeSet<Digest>,
    /// Of the way there, each with the builds of the release that it leads to: the turn of one of them is its own.
    pub stones: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Builds {
    /// Of the release that a channel points to.
    pub fn of(view: &CatalogView, (product, channel): &(Product, Channel), target: &Version) -> Self {
        let offered = |release: &&Arc<Release>| release.id.product == *product && release.channels.contains(channel);
        let targets: Vec<&Arc<Release>> =
            view.releases.iter().filter(offered).filter(|release| release.id.version == *target).collect();
        let own: BTreeSet<Digest> = targets.iter().map(|release| release.artifact).collect();
        let mut stones = BTreeMap::new();
        for stone in view.releases.iter().filter(offered).filter(|release| release.id.version < *target) {
            let leads_to = |target: &&&Arc<Release>| {
                let platforms = [&stone.id.platform, &target.id.platform];
                target.min_from.is_some() && (platforms[0] == platforms[1] || platforms.contains(&&Platform::any()))
            };
            let builds: BTreeSet<Digest> = targets.iter().filter(leads_to).map(|target| target.artifact).collect();
            if !builds.is_empty() && !own.contains(&stone.artifact) {
                stones.insert(stone.artifact, builds);
            }
        }
        Self { own, stones }
    }

    /// Whether the turn has come that a word on this artifact is about; none: it tells nothing of the release.
    fn turn_of(&self, artifact: &Digest, has_come: impl Fn(&Digest) -> bool) -> Option<bool> {
        if self.own.contains(artifact) {
            return Some(has_come(artifact));
        }
        self.stones.get(artifact).map(|targets| targets.iter().any(has_come))
    }
}

/// What is asked about: the release that a channel points to.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The product and the channel.
    pub followed: &'a (Product, Channel),
    /// The channel's policy.
    pub policy: &'a ChannelPolicy,
    /// The artifacts whose installs tell how the release fares.
    pub builds: &'a Builds,
    /// Since when somebody has listened; none: nobody does, and silence says nothing.
    pub listening_since: Option<UtcTime>,
}

/// Counts what nodes said of the release (of all its builds) since the channel points to it. Whoever follows
/// another channel, or ended before, speaks of something else.
pub fn count<'a>(
    question: Question<'_>,
    nodes: impl IntoIterator<Item = (&'a PeerId, &'a NodeRecord)>,
    now: UtcTime,
) -> Tally {
    let Question { followed, policy, builds, listening_since } = question;
    let mut tally = Tally::default();
    for (peer, node) in nodes {
        let Some(last) = node.products.get(followed).and_then(|record| record.last.as_ref()) else { continue };
        let has_come =
            |artifact: &Digest| policy.rollout.opens_at(bucket(artifact, peer.as_bytes()), now) == Opens::Now;
        let Some(turn) = builds.turn_of(&last.artifact, has_come) else { continue };
        if policy.since.is_some_and(|since| last.at < since) {
            continue;
        }
        match last.outcome {
            Outcome::Installed => tally.installed += u64::from(builds.own.contains(&last.artifact)),
            Outcome::Failed | Outcome::RolledBack => tally.failed += 1,
            Outcome::Began => tally.pending += 1,
            Outcome::Runs => {}
        }
        let Some(failed) = verdict(policy, last, listening_since, now).filter(|_| turn && has_vote(node, policy, last))
        else {
            continue;
        };
        tally.votes += 1;
        if failed {
            tally.votes_failed += 1;
            if last.outcome.is_failure() && !last.text.is_empty() {
                tally.last_words = Some(last.text.clone());
            }
        }
    }
    tally
}

/// Whether the release failed there; none while that is open. Silence lasts from when it could have been broken.
fn verdict(policy: &ChannelPolicy, last: &Attempt, listening_since: Option<UtcTime>, now: UtcTime) -> Option<bool> {
    match last.outcome {
        Outcome::Installed => Some(false),
        Outcome::Failed | Outcome::RolledBack => Some(true),
        Outcome::Began => {
            let silence_s = i64::try_from(policy.halt?.silence_s?).unwrap_or(i64::MAX);
            let since = listening_since?.max(last.at);
            (now.seconds_since(since) >= silence_s).then_some(true)
        }
        Outcome::Runs => None,
    }
}

fn has_vote(node: &NodeRecord, policy: &ChannelPolicy, last: &Attempt) -> bool {
    let Some(since) = policy.since else { return false };
    let was_known = node.voice_since.is_some_and(|voice| voice < since);
    was_known && policy.resumed_at.is_none_or(|resumed_at| last.at > resumed_at)
}

/// Why the channel is to pause; none: it goes on. Counts, and nobody's words: everybody is to read it, and what
/// nodes say is said to their seed only.
pub fn judge(policy: &ChannelPolicy, tally: &Tally) -> Option<String> {
    let halt = policy.halt.filter(|_| !policy.paused)?;
    let version = policy.version.as_ref()?;
    if !halt.is_passed(tally.votes_failed, tally.votes) {
        return None;
    }
    Some(format!(
        "paused by itself: {version} failed on {} of {} nodes (or they fell silent), and {} % are too many",
        tally.votes_failed, tally.votes, halt.failures_percent
    ))
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::super::record::ProductRecord;
    use super::*;
    use proptest::prelude::*;
    use updraft_protocol::outcome::Report;
    use updraft_protocol::rollout::{Halt, Rollout, Stage};

    fn at(seconds: i64) -> UtcTime {
        UtcTime::from_unix(1_800_000_000 + seconds)
    }

    fn app() -> (Product, Channel) {
        ("app".parse().expect("a name"), Channel::stable())
    }

    fn artifact() -> Digest {
        Digest::of(b"artifact")
    }

    fn peer(number: u32) -> PeerId {
        PeerId::from_bytes(&number.to_be_bytes()).expect("a valid length")
    }

    fn policy() -> ChannelPolicy {
        ChannelPolicy {
            since: Some(at(0)),
            halt: Some(Halt { failures_percent: 20, min_reports: 5, silence_s: Some(600) }),
            ..ChannelPolicy::pointing_to(Version::new(1, 1, 0))
        }
    }

    fn node(known: i64, outcome: Outcome, heard: i64) -> NodeRecord {
        let attempt = Attempt {
            number: 1,
            version: Version::new(1, 1, 0),
            artifact: artifact(),
            outcome,
            at: at(heard),
            text: "it broke".to_owned(),
        };
        let record = ProductRecord { runs: None, last: Some(attempt) };
        NodeRecord {
            first_seen: at(known),
            last_seen: at(heard),
            voice_since: Some(at(known)),
            products: BTreeMap::from([(app(), record)]),
        }
    }

    /// One build, and a stone on the way to it.
    fn builds() -> Builds {
        let stones = BTreeMap::from([(stone(), BTreeSet::from([artifact()]))]);
        Builds { own: BTreeSet::from([artifact()]), stones }
    }

    fn stone() -> Digest {
        Digest::of(b"a stone")
    }

    fn report() -> Report {
        Report {
            number: 1,
            product: app().0,
            channel: app().1,
            version: Version::new(1, 1, 0),
            artifact: artifact(),
            outcome: Outcome::Installed,
            at: at(0),
            text: String::new(),
            signature: Vec::new(),
        }
    }

    fn tally(policy: &ChannelPolicy, nodes: &[NodeRecord], now: i64) -> Tally {
        let named: Vec<(PeerId, &NodeRecord)> = (0..).map(peer).zip(nodes).collect();
        let nodes = named.iter().map(|(peer, node)| (peer, *node));
        let builds = builds();
        let question = Question { followed: &app(), policy, builds: &builds, listening_since: Some(at(0)) };
        count(question, nodes, at(now))
    }

    fn halts(policy: &ChannelPolicy, nodes: &[NodeRecord], now: i64) -> bool {
        judge(policy, &tally(policy, nodes, now)).is_some()
    }

    #[test]
    fn failures_beyond_the_threshold_halt_and_everybody_reads_counts_and_no_words() {
        let mut nodes = vec![node(-10, Outcome::Installed, 5); 8];
        nodes.push(node(-10, Outcome::RolledBack, 5));
        assert!(!halts(&policy(), &nodes, 10), "1 of 9");
        nodes.push(node(-10, Outcome::Failed, 5));
        let tally = tally(&policy(), &nodes, 10);
        let reason = judge(&policy(), &tally).expect("2 of 10");
        assert!(reason.contains("2 of 10 nodes") && !reason.contains("it broke"), "{reason}");
        assert_eq!(tally.last_words.as_deref(), Some("it broke"), "for the seed's own events");
        assert!(!halts(&ChannelPolicy { halt: None, ..policy() }, &nodes, 10));
        assert!(!halts(&ChannelPolicy { paused: true, ..policy() }, &nodes, 10), "there is nothing left to halt");
        assert!(!halts(&ChannelPolicy { since: Some(at(-20)), ..policy() }, &nodes, 10), "nobody was known before");
    }

    #[test]
    fn a_minimum_must_have_ended() {
        assert!(!halts(&policy(), &vec![node(-10, Outcome::Failed, 5); 4], 10));
        assert!(halts(&policy(), &vec![node(-10, Outcome::Failed, 5); 5], 10));
    }

    #[test]
    fn silence_is_a_failure_in_the_end() {
        let silent = vec![node(-10, Outcome::Began, 5); 5];
        assert!(!halts(&policy(), &silent, 604));
        assert!(halts(&policy(), &silent, 605));
        let halt = Halt { silence_s: None, ..policy().halt.expect("set") };
        assert!(!halts(&ChannelPolicy { halt: Some(halt), ..policy() }, &silent, 100_000));
    }

    #[test]
    fn nobody_is_silent_while_nobody_listens() {
        let began = vec![node(-10, Outcome::Began, 5); 5];
        let named: Vec<(PeerId, &NodeRecord)> = (0..).map(peer).zip(&began).collect();
        let (followed, policy, builds) = (app(), policy(), builds());
        let votes = |listening_since, now| {
            let question = Question { followed: &followed, policy: &policy, builds: &builds, listening_since };
            count(question, named.iter().map(|(peer, node)| (peer, *node)), at(now)).votes
        };
        assert_eq!(votes(None, 100_000), 0, "there is no session at all");
        assert_eq!(votes(Some(at(3_600)), 4_199), 0, "the seed was away for an hour, and came back just now");
        assert_eq!(votes(Some(at(3_600)), 4_200), 5);
    }

    #[test]
    fn what_was_reported_before_the_pause_ended_is_forgiven() {
        let failed = vec![node(-10, Outcome::Failed, 5); 5];
        let resumed = ChannelPolicy { resumed_at: Some(at(20)), ..policy() };
        assert!(!halts(&resumed, &failed, 30));
        assert!(halts(&resumed, &vec![node(-10, Outcome::Failed, 21); 5], 30));
    }

    #[test]
    fn what_a_node_ended_with_before_the_channel_pointed_there_is_no_vote() {
        let tried_on_beta = vec![node(-10, Outcome::Failed, -1); 5];
        assert_eq!(tally(&policy(), &tried_on_beta, 10), Tally::default());
        assert!(halts(&policy(), &vec![node(-10, Outcome::Failed, 0); 5], 10), "from that second on it is");
    }

    #[test]
    fn who_follows_another_channel_has_no_vote_and_dilutes_none() {
        let mut nodes = vec![node(-10, Outcome::Installed, 5); 50];
        for node in &mut nodes {
            let others = std::mem::take(&mut node.products);
            let beta: Channel = "beta".parse().expect("a name");
            node.products =
                others.into_iter().map(|((product, _), record)| ((product, beta.clone()), record)).collect();
        }
        nodes.extend(vec![node(-10, Outcome::Failed, 5); 10]);
        let tally = tally(&policy(), &nodes, 10);
        assert_eq!((tally.installed, tally.votes, tally.votes_failed), (0, 10, 10));
    }

    fn on_the_stone(outcome: Outcome) -> NodeRecord {
        let mut node = node(-10, outcome, 5);
        if let Some(last) = node.products.get_mut(&app()).and_then(|record| record.last.as_mut()) {
            last.artifact = stone();
        }
        node
    }

    #[test]
    fn a_stepping_stone_that_breaks_machines_halts_the_way_to_its_target() {
        let failed = vec![on_the_stone(Outcome::Failed); 5];
        assert!(halts(&policy(), &failed, 10));
        let stepped = tally(&policy(), &vec![on_the_stone(Outcome::Installed); 5], 10);
        assert_eq!((stepped.installed, stepped.votes, stepped.votes_failed), (0, 5, 0), "they do not run the release");
        let nobody_yet = vec![Stage { percent: 0, at: at(0) }];
        let staged = ChannelPolicy { rollout: Rollout { start: at(0), stages: nobody_yet }, ..policy() };
        assert_eq!(tally(&staged, &failed, 10).votes, 0, "whose turn for the target has not come has no vote");
    }

    #[test]
    fn only_the_builds_of_the_release_count() {
        let mut others = vec![node(-10, Outcome::Failed, 5); 5];
        for node in &mut others {
            if let Some(last) = node.products.get_mut(&app()).and_then(|record| record.last.as_mut()) {
                last.artifact = Digest::of(b"another");
            }
        }
        assert_eq!(tally(&policy(), &others, 10), Tally::default());
    }

    #[test]
    fn nodes_whose_turn_has_not_come_have_no_vote() {
        let stages = vec![Stage { percent: 10, at: at(0) }];
        let in_stages = ChannelPolicy { rollout: Rollout { start: at(0), stages }, ..policy() };
        let nodes = vec![node(-10, Outcome::Failed, 5); 1_000];
        let counted = tally(&in_stages, &nodes, 10);
        assert_eq!(counted.failed, 1_000, "all of them are shown");
        assert!((50..150).contains(&counted.votes), "{counted:?}");
    }

    proptest! {
        /// Whatever nodes that came after the release say, the channel goes on as without them.
        #[test]
        fn invented_nodes_change_nothing(
            honest in prop::collection::vec(any::<bool>(), 0..30),
            invented in prop::collection::vec((0..1_000_i64, 0..3_u8), 0..300),
        ) {
            let outcome = |kind| [Outcome::Failed, Outcome::Began, Outcome::RolledBack][usize::from(kind)];
            let mut nodes: Vec<NodeRecord> = honest
                .iter()
                .map(|works| node(-10, if *works { Outcome::Installed } else { Outcome::Failed }, 5))
                .collect();
            let without = halts(&policy(), &nodes, 5_000);
            nodes.extend(invented.into_iter().map(|(known, kind)| node(known, outcome(kind), known + 1)));
            prop_assert_eq!(halts(&policy(), &nodes, 5_000), without);
        }

        /// However often one node reports, it has one vote.
        #[test]
        fn a_node_that_reports_a_thousand_times_counts_once(others in 0..20_u32, failing in 1..1_000_u64) {
            let mut ledger = Ledger::default();
            let report = |number, outcome| Report { number, outcome, ..report() };
            for number in 0..=others {
                let _room = ledger.seen(&peer(number), at(-10));
                ledger.take(&peer(number), &report(0, Outcome::Runs), at(-10));
                ledger.look(&[peer(number)], at(-10));
                ledger.take(&peer(number), &report(1, Outcome::Installed), at(1));
            }
            for number in 2..2 + failing {
                ledger.take(&peer(0), &report(number, Outcome::Failed), at(2));
            }
            let builds = builds();
            let question =
                Question { followed: &app(), policy: &policy(), builds: &builds, listening_since: Some(at(0)) };
            let tally = count(question, ledger.nodes(), at(3));
            prop_assert_eq!((tally.votes_failed, tally.failed), (1, 1));
            // Sixteen newcomers a day have a voice.
            prop_assert_eq!(tally.votes, u64::from(others + 1).min(16));
        }

        /// Those who were invented before the release, on one day, have no more votes than the day gives.
        #[test]
        fn nodes_invented_beforehand_have_few_votes(invented in 1..500_u32) {
            let mut ledger = Ledger::default();
            let runs = Report { outcome: Outcome::Runs, number: 0, ..report() };
            for number in 0..invented {
                let _room = ledger.seen(&peer(number), at(-100));
                ledger.take(&peer(number), &runs, at(-100));
            }
            let here: Vec<PeerId> = ledger.nodes().keys().cloned().collect();
            ledger.look(&here, at(-100));
            let voices = ledger.nodes().values().filter(|node| node.voice_since.is_some()).count();
            prop_assert!(voices <= 16);
        }
    }
}
