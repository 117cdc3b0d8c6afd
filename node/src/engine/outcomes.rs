//! How installs end, from the nodes to the seed: reports out, the fleet's ledger in, and a pause where a
//! release fails.
//!
//! Reporting is never part of an install: it reads what the install writes into its journal, and an install
//! that nobody hears of is as good as any. Reports go over the session with a seed that the ticket names; a node
//! that has none goes and finds it, some time later, so that a fleet does not come all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt as _;
use semver::Version;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::outcome::{Outcome, Report, fitting};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::Control;

use self::attention::Attention;
use self::halt::{Builds, Question, Tally};
use self::ledger::Ledger;
use self::outbox::Outbox;
use self::record::NodeRecord;
use self::told::{Told, told};
use super::Engine;
use super::bucket::{Rate, TokenBucket};
use super::effect::{Effect, SwarmEffect};
use super::input::Now;
use super::watch::Signing;

mod attention;
pub mod halt;
pub mod ledger;
mod outbox;
pub mod record;
mod told;

/// Reports of one neighbour that are looked at: each costs a check of a signature.
const REPORTS: Rate = Rate { per_second: 1, burst: 96 };
/// Milliseconds, at least and at most, until a node with something to report looks for its seed.
const SEEK_MS: (u64, u64) = (2_000, 60_000);
/// Milliseconds between two looks at what became of the releases, and two writings of the ledger.
const LOOK_MS: u64 = 2_000;
/// Nodes that are written at once.
const WRITE_NODES: usize = 512;
/// What a node says that it runs, in one go: one for each of its subscriptions up to here.
const MAX_RUNS: usize = 16;
/// Milliseconds until a pause that did not come true is tried again, doubled each time: a locked key is told of
/// when it is news, and not every minute for ever.
const HALT_AGAIN_MS: u64 = 60_000;
/// Longest such pause.
const MAX_HALT_AGAIN_MS: u64 = 6 * 3_600_000;

/// What the runtime does about reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutcomeEffect {
    /// Keep a report until it is acknowledged.
    KeepReport(Report),
    /// Forget these reports.
    DropReports {
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// Keep what is known of nodes.
    Nodes {
        /// New or changed.
        kept: Vec<(PeerId, NodeRecord)>,
        /// Not remembered any more.
        forgotten: Vec<PeerId>,
    },
    /// Sign a pause.
    Halt {
        /// Of which product.
        product: Product,
        /// Of which channel.
        channel: Channel,
        /// While it points to this version: another has not failed.
        version: Version,
        /// Why, for everybody to read.
        reason: String,
        /// What one of the nodes said, for whoever runs the seed.
        words: Option<String>,
    },
}

/// A node that is here.
#[derive(Debug)]
struct Meeting {
    rate: TokenBucket,
    /// What it said that it has: as much as the ledger keeps of a node.
    named: BTreeSet<(Product, Channel)>,
}

/// What is under way about outcomes.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    outbox: Outbox,
    seek_at_ms: Option<u64>,
    ledger: Ledger,
    attention: Attention,
    meetings: BTreeMap<PeerId, Meeting>,
    look_at_ms: u64,
    halts_asked: BTreeMap<(Product, Channel), HaltAsked>,
    /// What is to be reported and has no number yet.
    untold: Vec<Told>,
}

/// A pause that was asked for and is not in force yet.
#[derive(Debug, Clone, Copy)]
struct HaltAsked {
    again_ms: u64,
    times: u32,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Reports that no seed has acknowledged.
    pub reports: Vec<Report>,
    /// The highest number that a report had.
    pub last_number: u64,
    /// The fleet.
    pub nodes: Vec<(PeerId, NodeRecord)>,
}

impl Engine {
    /// Takes up what an earlier run left.
    pub fn remember_outcomes(&mut self, before: Remembered, now: Now) {
        self.outcomes.outbox.restore(before.reports, before.last_number);
        self.outcomes.ledger.restore(before.nodes, now.wall);
        if !self.outcomes.outbox.is_empty() {
            self.outcomes.seek_at_ms = Some(SEEK_MS.0);
        }
    }

    /// What is known of the nodes of the fleet; nothing at a peer.
    pub fn fleet(&self) -> &BTreeMap<PeerId, NodeRecord> {
        self.outcomes.ledger.nodes()
    }

    /// What became of the release that a channel points to, as the nodes say.
    pub fn tally(&self, followed: &(Product, Channel), policy: &ChannelPolicy, now: UtcTime) -> Tally {
        let target = self.catalog.view().zip(policy.version.as_ref());
        let builds = target.map(|(view, version)| Builds::of(view, followed, version)).unwrap_or_default();
        let listening_since = self.outcomes.attention.since();
        let question = Question { followed, policy, builds: &builds, listening_since };
        halt::count(question, self.outcomes.ledger.nodes(), now)
    }

    // ---- a node -----------------------------------------------------------------------------

    /// Notes what the effects at hand tell of installs. Numbers come with [`Engine::report_outcomes`]: a node that
    /// starts does not know yet which it has used.
    pub(super) fn note_outcomes(&mut self) {
        let lines = self.effects.iter().filter_map(|effect| match effect {
            Effect::Journal(line) => told(line),
            _ => None,
        });
        self.outcomes.untold.extend(lines);
    }

    /// Reports what was noted, and what the effects at hand tell of installs.
    pub(super) fn report_outcomes(&mut self, now: Now) {
        self.note_outcomes();
        for told in std::mem::take(&mut self.outcomes.untold) {
            let found = self.subscriptions.iter().find(|s| s.spec.directory.as_deref() == Some(&told.directory));
            let Some(channel) = found.map(|subscription| subscription.spec.channel.clone()) else { continue };
            let report = Report {
                number: self.outcomes.outbox.next_number(now.wall),
                product: told.product,
                channel,
                version: told.release.version,
                artifact: told.release.artifact,
                outcome: told.outcome,
                at: now.wall,
                text: fitting(&told.text),
                signature: Vec::new(),
            };
            self.add_report(report, now);
            if told.outcome == Outcome::RolledBack
                && let Some(seed) = self.confidant()
            {
                self.tell_what_runs(&seed, now);
            }
        }
    }

    fn add_report(&mut self, report: Report, now: Now) {
        if self.config.is_seed {
            let me = self.config.me.clone();
            if self.outcomes.ledger.seen(&me, now.wall) {
                self.outcomes.ledger.take(&me, &report, now.wall);
            }
            return;
        }
        self.push(Effect::Outcome(OutcomeEffect::KeepReport(report.clone())));
        let numbers = self.outcomes.outbox.add(report);
        if !numbers.is_empty() {
            self.push(Effect::Outcome(OutcomeEffect::DropReports { numbers }));
        }
        let wait_ms = self.rng.random_range(SEEK_MS.0..=SEEK_MS.1);
        self.outcomes.seek_at_ms.get_or_insert(now.mono_ms + wait_ms);
        self.send_reports(now);
    }

    /// The seed that is told: one that the ticket names, so that nobody else learns who runs what by
    /// calling himself a seed.
    fn confidant(&self) -> Option<PeerId> {
        let mut sessions = self.peers.sessions().iter();
        let is_seed = |hello: &updraft_protocol::transfer::Hello| hello.seed;
        let found = sessions
            .find(|(peer, session)| session.hello.as_ref().is_some_and(is_seed) && self.peers.is_of_ticket(peer));
        found.map(|(peer, _)| peer.clone())
    }

    fn send_reports(&mut self, now: Now) {
        let Some(peer) = self.confidant().filter(|_| !self.outcomes.outbox.is_empty()) else { return };
        for report in self.outcomes.outbox.due(now.mono_ms) {
            self.push(SwarmEffect::Control { peer: peer.clone(), message: Control::Report(Box::new(report)) });
        }
    }

    /// A session is ready: a seed is told what runs here, and a node is noted at a seed.
    pub(super) fn outcomes_connected(&mut self, peer: &PeerId, now: Now) {
        if self.config.is_seed {
            let meeting = Meeting { rate: TokenBucket::full(REPORTS, now.mono_ms), named: BTreeSet::new() };
            self.outcomes.meetings.insert(peer.clone(), meeting);
            let _has_room = self.outcomes.ledger.seen(peer, now.wall);
        }
        if self.confidant().as_ref() == Some(peer) {
            // What runs is the last word.
            self.send_reports(now);
            self.tell_what_runs(peer, now);
        }
    }

    fn tell_what_runs(&mut self, seed: &PeerId, now: Now) {
        let runs: Vec<Report> = self
            .subscriptions
            .iter()
            .filter_map(|subscription| {
                let installed = subscription.installed.as_ref()?;
                Some(Report {
                    number: 0,
                    product: subscription.spec.product.clone(),
                    channel: subscription.spec.channel.clone(),
                    version: installed.version.clone(),
                    artifact: installed.artifact,
                    outcome: Outcome::Runs,
                    at: now.wall,
                    text: String::new(),
                    signature: Vec::new(),
                })
            })
            .take(MAX_RUNS)
            .collect();
        for report in runs {
            self.push(SwarmEffect::Control { peer: seed.clone(), message: Control::Report(Box::new(report)) });
        }
    }

    pub(super) fn outcomes_disconnected(&mut self, peer: &PeerId) {
        if let Some(meeting) = self.outcomes.meetings.remove(peer) {
            self.outcomes.ledger.left(peer, &meeting.named);
        }
        if self.peers.is_of_ticket(peer) {
            self.outcomes.outbox.session_ended();
        }
    }

    /// A seed has kept reports.
    pub(super) fn reported(&mut self, peer: &PeerId, numbers: &[u64]) {
        if !self.peers.is_of_ticket(peer) {
            return;
        }
        let numbers = self.outcomes.outbox.acknowledged(numbers);
        if !numbers.is_empty() {
            self.push(Effect::Outcome(OutcomeEffect::DropReports { numbers }));
        }
        if self.outcomes.outbox.is_empty() {
            self.outcomes.seek_at_ms = None;
        }
    }

    /// Whether a seed is looked for because of reports.
    pub(super) fn outcomes_need_seed(&self, now: Now) -> bool {
        self.outcomes.seek_at_ms.is_some_and(|at_ms| now.mono_ms >= at_ms)
    }

    // ---- the seed ---------------------------------------------------------------------------

    /// A neighbour's word on its installs.
    pub(super) fn heard_report(&mut self, peer: &PeerId, report: &Report, now: Now) {
        if !self.config.is_seed {
            return;
        }
        // What is beyond the rate is not acknowledged, and comes again.
        let Some(meeting) = self.outcomes.meetings.get_mut(peer) else { return };
        if !meeting.rate.take(1, now.mono_ms) {
            return;
        }
        if !report.is_by(peer, &self.config.repository.0) {
            self.fault(peer, "sent a report that it did not sign", now);
            return;
        }
        if self.is_known(report) && !self.take_report(peer, report, now) {
            // There is no room for it now: it comes again.
            return;
        }
        if report.number > 0 {
            let message = Control::Reported { numbers: vec![report.number] };
            self.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
    }

    /// Whether what it speaks of exists here: names cost nothing. What is not known to exist need not come again.
    fn is_known(&self, report: &Report) -> bool {
        let followed = (report.product.clone(), report.channel.clone());
        self.catalog.view().is_some_and(|view| view.channels.contains_key(&followed))
            && (self.is_release(report) || report.outcome == Outcome::Runs)
    }

    fn is_release(&self, report: &Report) -> bool {
        let is_it = |release: &Arc<Release>| {
            release.artifact == report.artifact
                && release.id.product == report.product
                && release.id.version == report.version
        };
        self.catalog.view().is_some_and(|view| view.releases.iter().any(is_it))
    }

    /// Keeps a node's word; false where there is no room for it.
    fn take_report(&mut self, peer: &PeerId, report: &Report, now: Now) -> bool {
        let followed = (report.product.clone(), report.channel.clone());
        let is_release = self.is_release(report);
        let ledger = &mut self.outcomes.ledger;
        let taken = ledger.seen(peer, now.wall)
            && if is_release { ledger.take(peer, report, now.wall) } else { ledger.runs_another(peer, &followed) };
        if taken
            && matches!(report.outcome, Outcome::Runs | Outcome::Installed)
            && let Some(meeting) = self.outcomes.meetings.get_mut(peer)
        {
            meeting.named.insert(followed);
        }
        taken
    }

    /// Sends again what was not acknowledged; at a seed, looks at what became of the releases.
    pub(super) fn outcomes_tick(&mut self, now: Now) {
        if now.mono_ms < self.outcomes.look_at_ms {
            return;
        }
        self.outcomes.look_at_ms = now.mono_ms + LOOK_MS;
        self.send_reports(now);
        if !self.config.is_seed {
            return;
        }
        let mut here = self.peers.ready();
        self.outcomes.attention.look(!here.is_empty(), now);
        here.push(self.config.me.clone());
        self.outcomes.ledger.look(&here, now.wall);
        let written = self.outcomes.ledger.take_changes(WRITE_NODES);
        if !written.kept.is_empty() || !written.forgotten.is_empty() {
            let effect = OutcomeEffect::Nodes { kept: written.kept, forgotten: written.forgotten };
            self.push(Effect::Outcome(effect));
        }
        self.halt_what_fails(now);
    }

    /// Everything about the fleet that is not written yet: the node stops.
    pub fn settle_outcomes(&mut self) -> Vec<Effect> {
        let written = self.outcomes.ledger.take_all();
        if written.kept.is_empty() && written.forgotten.is_empty() {
            return Vec::new();
        }
        vec![Effect::Outcome(OutcomeEffect::Nodes { kept: written.kept, forgotten: written.forgotten })]
    }

    fn halt_what_fails(&mut self, now: Now) {
        let Some(view) = self.catalog.view().cloned() else { return };
        if self.signing(now) != Signing::Ready {
            return;
        }
        for (key, policy) in &view.channels {
            if policy.halt.is_none() || policy.paused {
                self.outcomes.halts_asked.remove(key);
                continue;
            }
            let tally = self.tally(key, policy, now.wall);
            let (Some(reason), Some(version)) = (halt::judge(policy, &tally), &policy.version) else {
                self.outcomes.halts_asked.remove(key);
                continue;
            };
            let asked = self.outcomes.halts_asked.get(key).copied();
            if asked.is_some_and(|asked| now.mono_ms < asked.again_ms) {
                continue;
            }
            let times = asked.map_or(0, |asked| asked.times);
            let pause_ms = HALT_AGAIN_MS.saturating_mul(1 << times.min(16)).min(MAX_HALT_AGAIN_MS);
            let again_ms = now.mono_ms.saturating_add(pause_ms);
            let asked = HaltAsked { again_ms, times: times.saturating_add(1) };
            self.outcomes.halts_asked.insert(key.clone(), asked);
            let ((product, channel), version, words) = (key.clone(), version.clone(), tally.last_words);
            self.push(Effect::Outcome(OutcomeEffect::Halt { product, channel, version, reason, words }));
        }
    }
}
