//! Reports and the fleet's ledger: what is kept of them, what is shown of them, and the pause that a seed
//! signs by itself.

use std::cmp::Reverse;
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
use crate::control::MAX_REPLY_BYTES;
use crate::control::channels::{ChannelRequest, OutcomeCounts};
use crate::control::fleet::{FleetNode, FleetProduct, FleetView, MAX_LISTED_NODES, PausedRow, VersionRow};
use crate::control::messages::{ErrorBody, ErrorCode, Response};
use crate::control::views::Schema;
use crate::engine::Engine;
use crate::engine::effect::{Event, EventKind};
use crate::engine::input::Now;
use crate::engine::outcomes::ledger::MAX_NODES;
use crate::engine::outcomes::record::NodeRecord;
use crate::engine::outcomes::{OutcomeEffect, Remembered};
use crate::engine::policy::Change;
use crate::store::state::StateError;

/// Versions of a product that one answer has rows for.
const MAX_VERSIONS: usize = 64;
/// What the row of all older versions says.
const OLDER: &str = "older";
/// Bytes of nodes that one answer lists: half of what a client reads.
const MAX_LISTED_BYTES: usize = MAX_REPLY_BYTES / 2;

/// A channel to pause, and why.
#[derive(Debug)]
pub(super) struct Halt {
    product: Product,
    channel: Channel,
    /// The version that failed.
    version: Version,
    reason: String,
    words: Option<String>,
}

/// Something to write down.
#[derive(Debug)]
pub(super) struct OutcomeJob(OutcomeEffect);

/// Writes it down.
pub(super) fn work(opened: &Opened, job: &OutcomeJob) -> Result<(), StateError> {
    let (state, repository) = (&opened.state, &opened.repository.0);
    match &job.0 {
        OutcomeEffect::KeepReport(report) => state.put_report(repository, report),
        OutcomeEffect::DropReports { numbers } => state.remove_reports(repository, numbers),
        OutcomeEffect::Nodes { kept, forgotten } => state.put_nodes(repository, kept, forgotten),
        OutcomeEffect::Halt { .. } => Ok(()),
    }
}

/// Gives the engine what an earlier run left.
pub(super) fn restore(engine: &mut Engine, opened: &Opened, is_seed: bool, now: Now) -> Result<(), StateError> {
    let repository = &opened.repository.0;
    let before = Remembered {
        reports: opened.state.reports(repository)?,
        last_number: opened.state.last_report_number(repository)?,
        nodes: if is_seed { opened.state.nodes(repository)? } else { Vec::new() },
    };
    engine.remember_outcomes(before, now);
    Ok(())
}

/// How a change that is nobody's wish is told of here.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) kind: EventKind,
    /// What one of the nodes said: for whoever runs this seed, and in nothing that is signed.
    pub(super) words: Option<String>,
}

/// Whether a halt of `version` still means what the channel does.
fn may_halt(policy: &ChannelPolicy, version: &Version) -> bool {
    policy.version.as_ref() == Some(version) && !policy.paused
}

impl Runtime {
    pub(super) async fn outcome_effect(&mut self, effect: OutcomeEffect) {
        match effect {
            OutcomeEffect::Halt { product, channel, version, reason, words } => {
                self.halts.push_back(Halt { product, channel, version, reason, words });
            }
            other => self.file_job(Job::Outcome(OutcomeJob(other))).await,
        }
    }

    /// Signs a pause that nobody asked for. The engine has heard of everything that was signed before: where the
    /// channel points elsewhere meanwhile, or somebody paused it, nothing is left to do.
    pub(super) async fn halt(&mut self, halt: Halt) {
        let Halt { product, channel, version, reason, words } = halt;
        let policy = self.engine.catalog().and_then(|view| view.channels.get(&(product.clone(), channel.clone())));
        if !policy.is_some_and(|policy| may_halt(policy, &version)) {
            return;
        }
        let change = Change::Pause { reason: Some(reason.clone()) };
        let request = ChannelRequest { product: product.clone(), channel: channel.clone(), change, dry_run: false };
        let told = Told { kind: EventKind::ChannelHalted, words };
        if let Err(body) = self.try_change(request, Some(told)).await {
            let text = format!("{product}:{channel} should be paused ({reason}) and cannot be: {}", body.message);
            self.tell(Event { kind: EventKind::Alarm, product: Some(product), version: None, peer: None, text }).await;
        }
    }

    /// What nodes said of the release that a channel points to; none at a peer, which nobody tells.
    pub(super) fn outcome_counts(
        &self,
        followed: &(Product, Channel),
        policy: &ChannelPolicy,
        now: Now,
    ) -> Option<OutcomeCounts> {
        if self.config.role != Role::Seed {
            return None;
        }
        let tally = self.engine.tally(followed, policy, now.wall);
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

    /// The fleet, as much of it as one answer holds.
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
        order.sort_by_key(|(_, node)| (!fails(node), Reverse(node.last_seen)));
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
        let mut bytes = 0;
        let shown = shown.take_while(|node| {
            bytes += serde_json::to_vec(node).map_or(0, |text| text.len());
            bytes <= MAX_LISTED_BYTES
        });
        Ok(Response::Fleet(FleetView {
            schema: Schema,
            nodes_known: fleet.len() as u64,
            nodes_limit: MAX_NODES as u64,
            versions: versions(fleet, MAX_VERSIONS),
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
    let rows = node.products.iter().map(|((product, channel), record)| {
        let last = record.last.as_ref();
        FleetProduct {
            product: product.clone(),
            channel: channel.clone(),
            runs: record.runs.as_ref().map(ToString::to_string),
            state: last.map(|last| last.outcome.as_str().to_owned()),
            version: last.map(|last| last.version.to_string()),
            at: last.map(|last| last.at),
            text: last.map(|last| last.text.clone()).filter(|text| !text.is_empty()),
        }
    });
    rows.collect()
}

/// Nodes by version, the newest first. Of each product and channel a table has its bounds, but nodes run what the
/// catalog has had at any time: what is older than the newest `most` versions shares a row.
fn versions(fleet: &BTreeMap<PeerId, NodeRecord>, most: usize) -> Vec<VersionRow> {
    let mut counts: BTreeMap<(&Product, Reverse<&Version>), [u64; 3]> = BTreeMap::new();
    for ((product, _), record) in fleet.values().flat_map(|node| &node.products) {
        if let Some(runs) = &record.runs {
            counts.entry((product, Reverse(runs))).or_default()[0] += 1;
        }
        if let Some(last) = &record.last {
            let count = counts.entry((product, Reverse(&last.version))).or_default();
            count[1] += u64::from(last.outcome == Outcome::Began);
            count[2] += u64::from(last.outcome.is_failure());
        }
    }
    let mut rows: Vec<VersionRow> = Vec::new();
    let mut of_product = 0;
    for ((product, Reverse(version)), [running, pending, failed]) in counts {
        of_product = if rows.last().is_some_and(|row| row.product == *product) { of_product + 1 } else { 1 };
        if let Some(older) = rows.last_mut().filter(|_| of_product > most + 1) {
            older.running += running;
            older.pending += pending;
            older.failed += failed;
        } else {
            let version = if of_product > most { OLDER.to_owned() } else { version.to_string() };
            rows.push(VersionRow { product: product.clone(), version, running, pending, failed });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use updraft_protocol::time::UtcTime;

    use super::*;
    use crate::engine::outcomes::record::ProductRecord;

    #[test]
    fn a_fleet_that_runs_everything_has_few_rows() {
        let app: (Product, Channel) = ("app".parse().expect("a name"), Channel::stable());
        let tool: (Product, Channel) = ("tool".parse().expect("a name"), Channel::stable());
        let node = |minor: u32| {
            let runs = |minor: u32| ProductRecord { runs: Some(Version::new(1, minor.into(), 0)), last: None };
            let at = UtcTime::from_unix(1_800_000_000);
            let products = BTreeMap::from([(app.clone(), runs(minor)), (tool.clone(), runs(0))]);
            NodeRecord { first_seen: at, last_seen: at, voice_since: None, products }
        };
        let peer = |number: u32| PeerId::from_bytes(&number.to_be_bytes()).expect("a valid length");
        let fleet = (0..100).map(|number| (peer(number), node(number))).collect();
        let rows = versions(&fleet, 2);
        let shown: Vec<(&str, &str, u64)> =
            rows.iter().map(|row| (row.product.as_str(), row.version.as_str(), row.running)).collect();
        let expected = [("app", "1.99.0", 1), ("app", "1.98.0", 1), ("app", OLDER, 98), ("tool", "1.0.0", 100)];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_halt_is_dropped_where_the_channel_went_on_or_somebody_paused_it() {
        let (failed, next) = (Version::new(1, 1, 0), Version::new(1, 2, 0));
        let policy = ChannelPolicy::pointing_to(failed.clone());
        assert!(may_halt(&policy, &failed));
        assert!(!may_halt(&ChannelPolicy::pointing_to(next), &failed));
        assert!(!may_halt(&ChannelPolicy { paused: true, ..policy }, &failed), "the operator's reason stays");
    }
}
