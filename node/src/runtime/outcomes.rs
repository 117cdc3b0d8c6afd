//! Reports and the fleet's ledger: what is kept of them, what is shown of them, and the pause that a seed
//! signs by itself.

use std::collections::BTreeMap;

use semver::Version;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::outcome::Outcome;
use updraft_protocol::peer::PeerId;
use updraft_protocol::rollout::ChannelPolicy;

use super::Runtime;
use super::open::Opened;
use super::worker::Job;
use crate::config::Role;
use crate::control::channels::{ChannelRequest, OutcomeCounts};
use crate::control::fleet::{FleetNode, FleetProduct, FleetView, MAX_LISTED_NODES, PausedRow, VersionRow};
use crate::control::messages::{ErrorBody, ErrorCode, Response};
use crate::control::views::Schema;
use crate::engine::Engine;
use crate::engine::effect::{Effect, Event, EventKind};
use crate::engine::input::Now;
use crate::engine::outcomes::OutcomeEffect;
use crate::engine::outcomes::ledger::{MAX_NODES, NodeRecord};
use crate::engine::policy::Change;
use crate::store::state::StateError;

/// The fact that is the number of the last report.
const LAST_REPORT: &str = "last_report";

/// A channel to pause, and why.
#[derive(Debug)]
pub(super) struct Halt {
    product: Product,
    channel: Channel,
    reason: String,
}

/// Something to write down.
#[derive(Debug)]
pub(super) struct OutcomeJob(OutcomeEffect);

/// Writes it down.
pub(super) fn work(opened: &Opened, job: OutcomeJob) -> Result<(), StateError> {
    let (state, repository) = (&opened.state, &opened.repository.0);
    match job.0 {
        OutcomeEffect::KeepReport(report) => {
            // First, so that a number is never given twice.
            state.put_fact(repository, LAST_REPORT, &report.number.to_string())?;
            state.put_report(repository, &report)
        }
        OutcomeEffect::DropReports { numbers } => state.remove_reports(repository, &numbers),
        OutcomeEffect::Nodes { kept, forgotten } => state.put_nodes(repository, &kept, &forgotten),
        OutcomeEffect::Halt { .. } => Ok(()),
    }
}

/// Gives the engine what an earlier run left; returns what follows.
pub(super) fn restore(
    engine: &mut Engine,
    opened: &Opened,
    is_seed: bool,
    now: Now,
) -> Result<Vec<Effect>, StateError> {
    let (state, repository) = (&opened.state, &opened.repository.0);
    let nodes = if is_seed { state.nodes(repository)? } else { Vec::new() };
    let last = state.fact(repository, LAST_REPORT)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(engine.remember_outcomes(state.reports(repository)?, last, nodes, now))
}

impl Runtime {
    pub(super) async fn outcome_effect(&mut self, effect: OutcomeEffect) {
        match effect {
            OutcomeEffect::Halt { product, channel, reason } => {
                self.halts.push_back(Halt { product, channel, reason });
            }
            other => self.file_job(Job::Outcome(OutcomeJob(other))).await,
        }
    }

    /// Signs a pause that nobody asked for. The engine has heard of everything that was signed before.
    pub(super) async fn halt(&mut self, halt: Halt) {
        let Halt { product, channel, reason } = halt;
        let change = Change::Pause { reason: Some(reason.clone()) };
        let request = ChannelRequest { product: product.clone(), channel: channel.clone(), change, dry_run: false };
        if let Err(body) = self.try_change(request, Some(EventKind::ChannelHalted)).await {
            let text = format!("{product}:{channel} should be paused ({reason}) and cannot be: {}", body.message);
            self.tell(Event { kind: EventKind::Alarm, product: Some(product), version: None, peer: None, text }).await;
        }
    }

    /// What nodes said of the release that a channel points to; none at a peer, which nobody tells.
    pub(super) fn outcome_counts(&self, product: &Product, policy: &ChannelPolicy, now: Now) -> Option<OutcomeCounts> {
        if self.config.role != Role::Seed {
            return None;
        }
        let tally = self.engine.tally(product, policy, now.wall);
        Some(OutcomeCounts {
            installed: tally.installed,
            failed: tally.failed,
            pending: tally.pending,
            votes: tally.votes,
            votes_failed: tally.votes_failed,
        })
    }

    /// Channels that are paused, as warnings.
    pub(super) fn pauses(&self) -> Vec<String> {
        let text = |row: PausedRow| {
            let why = row.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!(
                "{}:{} is paused{why}; nobody installs from it before `updraft channel resume`",
                row.product, row.channel
            )
        };
        paused(&self.engine).into_iter().map(text).collect()
    }

    /// The fleet.
    pub(super) fn fleet(&self, limit: u32) -> Result<Response, ErrorBody> {
        if self.config.role != Role::Seed {
            let body = ErrorBody::new(ErrorCode::Error, "this node is a peer; nodes report to the seed");
            return Err(body.with_hint("run this at the seed, or with its --data-dir"));
        }
        let fleet = self.engine.fleet();
        let mut order: Vec<(&PeerId, &NodeRecord)> = fleet.iter().collect();
        let fails = |node: &NodeRecord| {
            node.products.values().any(|record| record.last.as_ref().is_some_and(|last| last.outcome.is_failure()))
        };
        order.sort_by_key(|(_, node)| (!fails(node), std::cmp::Reverse(node.last_seen)));
        let limit = usize::try_from(limit.min(MAX_LISTED_NODES)).unwrap_or(usize::MAX);
        let sessions = self.engine.ready_peers();
        let shown = order.into_iter().take(limit).map(|(peer, node)| FleetNode {
            peer_id: peer.to_string(),
            connected: sessions.contains(peer),
            first_seen: node.first_seen,
            last_seen: node.last_seen,
            voice_since: node.voice_since,
            products: products(node),
        });
        Ok(Response::Fleet(FleetView {
            schema: Schema,
            nodes_known: fleet.len() as u64,
            nodes_limit: MAX_NODES as u64,
            versions: versions(fleet),
            paused: paused(&self.engine),
            nodes: shown.collect(),
        }))
    }
}

fn paused(engine: &Engine) -> Vec<PausedRow> {
    let Some(view) = engine.catalog() else { return Vec::new() };
    let paused = view.channels.iter().filter(|(_, policy)| policy.paused);
    let row = |((product, channel), policy): (&(_, _), &std::sync::Arc<ChannelPolicy>)| PausedRow {
        product: Product::clone(product),
        channel: Channel::clone(channel),
        reason: policy.pause_reason.clone(),
    };
    paused.map(row).collect()
}

fn products(node: &NodeRecord) -> Vec<FleetProduct> {
    let rows = node.products.iter().map(|(product, record)| {
        let last = record.last.as_ref();
        FleetProduct {
            product: product.clone(),
            channel: record.channel.clone(),
            runs: record.runs.as_ref().map(ToString::to_string),
            state: last.map(|last| last.outcome.as_str().to_owned()),
            version: last.map(|last| last.version.to_string()),
            at: last.map(|last| last.at),
            text: last.map(|last| last.text.clone()).filter(|text| !text.is_empty()),
        }
    });
    rows.collect()
}

fn versions(fleet: &BTreeMap<PeerId, NodeRecord>) -> Vec<VersionRow> {
    let mut counts: BTreeMap<(&Product, std::cmp::Reverse<&Version>), (u64, u64, u64)> = BTreeMap::new();
    for (product, record) in fleet.values().flat_map(|node| &node.products) {
        if let Some(runs) = &record.runs {
            counts.entry((product, std::cmp::Reverse(runs))).or_default().0 += 1;
        }
        if let Some(last) = &record.last {
            let count = counts.entry((product, std::cmp::Reverse(&last.version))).or_default();
            count.1 += u64::from(last.outcome == Outcome::Began);
            count.2 += u64::from(last.outcome.is_failure());
        }
    }
    let row = |((product, version), (running, pending, failed)): ((&Product, std::cmp::Reverse<&Version>), _)| {
        VersionRow { product: product.clone(), version: version.0.to_string(), running, pending, failed }
    };
    counts.into_iter().map(row).collect()
}
