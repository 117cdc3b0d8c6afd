//! How installs end, from the nodes to the seed: reports out, the fleet's ledger in, and a pause where a
//! release fails.
//!
//! Reporting is never part of an install: it listens to what the engine tells people, and an install that
//! nobody hears of is as good as any. Reports go over the session with a seed that the ticket names; a node
//! that has none goes and finds it, some time later, so that a fleet does not come all at once.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::outcome::{Outcome, Report, fitting};
use updraft_protocol::peer::PeerId;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;
use updraft_protocol::transfer::Control;

use self::halt::Tally;
use self::ledger::{Ledger, NodeRecord};
use self::outbox::Outbox;
use super::Engine;
use super::bucket::{Rate, TokenBucket};
use super::effect::{Effect, EventKind, SwarmEffect};
use super::input::Now;
use super::install::Installed;
use super::watch::Signing;

pub mod halt;
pub mod ledger;
mod outbox;

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
/// Milliseconds until a pause that did not come true is tried again.
const HALT_AGAIN_MS: u64 = 60_000;

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
        /// Why, for everybody to read.
        reason: String,
    },
}

/// What is under way about outcomes.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    outbox: Outbox,
    /// How installs ended that are not reported yet: the numbers that were given are not known.
    noted: Vec<(Outcome, Product, Version, String)>,
    seek_at_ms: Option<u64>,
    ledger: Ledger,
    rates: BTreeMap<PeerId, TokenBucket>,
    look_at_ms: u64,
    halts_asked_ms: BTreeMap<(Product, Channel), u64>,
}

impl Engine {
    /// Takes up what an earlier run left: its reports and the number of the last of them, and nodes. Returns
    /// what follows from it: how installs ended that this start itself ended is reported now.
    #[must_use]
    pub fn remember_outcomes(
        &mut self,
        reports: Vec<Report>,
        last_number: u64,
        nodes: Vec<(PeerId, NodeRecord)>,
        now: Now,
    ) -> Vec<Effect> {
        self.outcomes.outbox.restore(reports, last_number);
        self.outcomes.ledger.restore(nodes);
        if !self.outcomes.outbox.is_empty() {
            self.outcomes.seek_at_ms = Some(SEEK_MS.0);
        }
        self.report_outcomes(now);
        std::mem::take(&mut self.effects)
    }

    /// What is known of the nodes of the fleet; nothing at a peer.
    pub fn fleet(&self) -> &BTreeMap<PeerId, NodeRecord> {
        self.outcomes.ledger.nodes()
    }

    /// What became of the release that a channel points to, as the nodes say.
    pub fn tally(&self, product: &Product, policy: &ChannelPolicy, now: UtcTime) -> Tally {
        halt::count(product, policy, &self.builds(product, policy), self.outcomes.ledger.nodes(), now)
    }

    fn builds(&self, product: &Product, policy: &ChannelPolicy) -> BTreeSet<Digest> {
        let Some(view) = self.catalog.view() else { return BTreeSet::new() };
        let of = |release: &&std::sync::Arc<updraft_protocol::release::Release>| {
            release.id.product == *product && Some(&release.id.version) == policy.version.as_ref()
        };
        view.releases.iter().filter(of).map(|release| release.artifact).collect()
    }

    // ---- a node -----------------------------------------------------------------------------

    /// Takes note of what the effects at hand tell of installs.
    pub(super) fn note_outcomes(&mut self) {
        let told = self.effects.iter().filter_map(|effect| match effect {
            Effect::Event(event) => {
                let outcome = match event.kind {
                    EventKind::Staged => Outcome::Began,
                    EventKind::Installed => Outcome::Installed,
                    EventKind::InstallFailed => Outcome::Failed,
                    EventKind::RolledBack => Outcome::RolledBack,
                    _ => return None,
                };
                Some((outcome, event.product.clone()?, event.version.clone()?, event.text.clone()))
            }
            _ => None,
        });
        self.outcomes.noted.extend(told);
    }

    /// Reports what the effects at hand tell of installs, and what was taken note of before.
    pub(super) fn report_outcomes(&mut self, now: Now) {
        self.note_outcomes();
        for (outcome, product, version, text) in std::mem::take(&mut self.outcomes.noted) {
            let Some((channel, version, artifact)) = self.release_of_event(outcome, &product, version) else {
                continue;
            };
            let number = self.outcomes.outbox.next_number(now.wall);
            let text = fitting(&text);
            let report = Report {
                number,
                product,
                channel,
                version,
                artifact,
                outcome,
                at: now.wall,
                text,
                signature: Vec::new(),
            };
            self.add_report(report, now);
            if outcome == Outcome::RolledBack
                && let Some(seed) = self.confidant()
            {
                self.tell_what_runs(&seed, now);
            }
        }
    }

    /// The release that an event is about. One that went back names the release that runs again.
    fn release_of_event(
        &self,
        outcome: Outcome,
        product: &Product,
        version: Version,
    ) -> Option<(Channel, Version, Digest)> {
        let of_product = || self.subscriptions.iter().filter(|s| s.spec.product == *product);
        let has = |installed: &Option<Installed>| installed.as_ref().is_some_and(|it| it.version == version);
        let subscription = match outcome {
            Outcome::RolledBack => of_product().find(|s| has(&s.installed) && s.left.is_some())?,
            _ => of_product().find(|s| has(&s.installed)).or_else(|| of_product().next())?,
        };
        let channel = subscription.spec.channel.clone();
        let is_it = |it: &&Installed| it.version == version;
        let known = match outcome {
            Outcome::RolledBack => subscription.left.as_ref(),
            Outcome::Failed => subscription.left.as_ref().filter(is_it),
            _ => subscription.installed.as_ref().filter(is_it),
        };
        if let Some(known) = known {
            return Some((channel, known.version.clone(), known.artifact));
        }
        let release = self.catalog.view()?.release(product, &version, &self.config.platform)?;
        Some((channel, version, release.artifact))
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
            self.outcomes.rates.insert(peer.clone(), TokenBucket::full(REPORTS, now.mono_ms));
            let _has_room = self.outcomes.ledger.seen(peer, now.wall);
        }
        if self.confidant().as_ref() == Some(peer) {
            self.tell_what_runs(peer, now);
            self.send_reports(now);
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
        self.outcomes.rates.remove(peer);
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
        let taken = self.outcomes.rates.get_mut(peer).is_some_and(|rate| rate.take(1, now.mono_ms));
        if !taken {
            return;
        }
        if !report.is_by(peer, &self.config.repository.0) {
            self.fault(peer, "sent a report that it did not sign", now);
            return;
        }
        // Only of what there is: names cost nothing.
        let known = self.catalog.view().is_some_and(|view| view.products().contains(&report.product));
        if known && self.outcomes.ledger.seen(peer, now.wall) {
            self.outcomes.ledger.take(peer, report, now.wall);
        }
        if report.number > 0 {
            let message = Control::Reported { numbers: vec![report.number] };
            self.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
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
        for peer in self.peers.ready() {
            self.outcomes.ledger.is_here(&peer, now.wall);
        }
        let written = self.outcomes.ledger.take_changes(WRITE_NODES);
        if !written.kept.is_empty() || !written.forgotten.is_empty() {
            let effect = OutcomeEffect::Nodes { kept: written.kept, forgotten: written.forgotten };
            self.push(Effect::Outcome(effect));
        }
        self.halt_what_fails(now);
    }

    /// Everything about the fleet that is not written yet: the node stops.
    pub fn settle_outcomes(&mut self) -> Vec<Effect> {
        let written = self.outcomes.ledger.take_changes(ledger::MAX_NODES);
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
        for ((product, channel), policy) in &view.channels {
            let key = (product.clone(), channel.clone());
            if policy.halt.is_none() || policy.paused {
                self.outcomes.halts_asked_ms.remove(&key);
                continue;
            }
            let asked_ms = self.outcomes.halts_asked_ms.get(&key);
            if asked_ms.is_some_and(|asked_ms| now.mono_ms.saturating_sub(*asked_ms) < HALT_AGAIN_MS) {
                continue;
            }
            if let Some(reason) = halt::judge(policy, &self.tally(product, policy, now.wall)) {
                self.outcomes.halts_asked_ms.insert(key, now.mono_ms);
                let (product, channel) = (product.clone(), channel.clone());
                self.push(Effect::Outcome(OutcomeEffect::Halt { product, channel, reason }));
            }
        }
    }
}
