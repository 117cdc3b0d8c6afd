//! Limits and bytes in the words of the control socket and of the metrics.

use std::collections::BTreeMap;

use updraft_protocol::peer::PeerId;

use crate::control::traffic::{ArtifactView, Copies, LimitView, LimitsView, SourceRow, TransferView};
use crate::engine::Engine;
use crate::engine::fetch::TransferView as Transfer;
use crate::engine::input::Now;
use crate::engine::limits::Limit;
use crate::gateway::metrics::{ReleaseTraffic, Traffic};
use crate::swarm::Counters;

/// Artifacts that a status shows. Bounds what a node of very many releases answers.
const MAX_ARTIFACTS: usize = 32;
/// Senders that are shown of each.
const MAX_SOURCES: usize = 16;
/// Releases that metrics tell apart. Bounds the series that a node makes for whoever scrapes it.
const MAX_RELEASES: usize = 64;

fn limit(limit: &Limit) -> LimitView {
    LimitView { bytes_per_second: limit.bytes_per_second, why: limit.why.clone(), until: limit.until }
}

/// The limits in force.
pub(super) fn limits(engine: &Engine, now: Now) -> LimitsView {
    let (limits, in_force) = (engine.limits(), engine.limits_in_force());
    LimitsView {
        upload: limit(&in_force.upload),
        download: limit(&in_force.download),
        lan_exempt: limits.lan_exempt,
        time_zone: limits.zone.name().to_owned(),
        utc_offset_minutes: limits.zone.offset_s(now.wall.unix()) / 60,
        egress_budget_copies: engine.egress_budget_percent().map(Copies::from_percent),
    }
}

/// Bytes of a fetched artifact that did not have to be.
fn reused(transfer: &Transfer) -> u64 {
    let fetched = transfer.counts.from_seed + transfer.counts.from_peers;
    if transfer.active || fetched > 0 { transfer.bytes_done.saturating_sub(fetched) } else { 0 }
}

/// Bytes since the start, of all artifacts.
pub(super) fn totals(engine: &Engine, counters: &Counters) -> TransferView {
    let totals = engine.transfer_totals();
    let (control_in, control_out) = (counters.control_in_bytes(), counters.control_out_bytes());
    let blocks_in = counters.payload_in_bytes() + counters.unsolicited_in_bytes();
    let beside = |wire: u64, blocks: u64, control: u64| wire.saturating_sub(blocks).max(control);
    TransferView {
        bytes_in: totals.from_seed + totals.from_peers + totals.duplicate,
        bytes_out: totals.sent,
        bytes_duplicate: totals.duplicate,
        bytes_rejected: totals.rejected,
        bytes_from_seed: totals.from_seed,
        bytes_from_peers: totals.from_peers,
        bytes_reused: engine.transfers().iter().map(reused).sum(),
        bytes_unsolicited: counters.unsolicited_in_bytes(),
        bytes_out_first: totals.sent_first,
        bytes_control_in: control_in,
        bytes_control_out: control_out,
        // What QUIC carries is not on the wire as far as anybody counts: then control is what is known.
        bytes_overhead_in: beside(counters.tcp_in_bytes(), blocks_in, control_in),
        bytes_overhead_out: beside(counters.tcp_out_bytes(), counters.payload_out_bytes(), control_out),
        bytes_wire_in: counters.tcp_in_bytes(),
        bytes_wire_out: counters.tcp_out_bytes(),
    }
}

fn sources(all: BTreeMap<PeerId, u64>) -> Vec<SourceRow> {
    let mut rows: Vec<(PeerId, u64)> = all.into_iter().collect();
    rows.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    rows.truncate(MAX_SOURCES);
    rows.into_iter().map(|(peer, bytes)| SourceRow { peer_id: peer.to_string(), bytes }).collect()
}

fn artifact(engine: &Engine, transfer: &Transfer) -> ArtifactView {
    let (counts, size) = (transfer.counts, transfer.bytes_total);
    let release = engine.catalog().and_then(|view| view.release_of(&transfer.object.digest));
    let repeat = counts.sent.saturating_sub(counts.sent_first);
    ArtifactView {
        sha256: transfer.object.digest,
        product: release.map(|release| release.id.product.clone()),
        version: release.map(|release| release.id.version.to_string()),
        platform: release.map(|release| release.id.platform.clone()),
        size_bytes: size,
        bytes_done: transfer.bytes_done,
        active: transfer.active,
        rate_bytes_per_second: transfer.rate_bytes_per_second,
        bytes_from_seed: counts.from_seed,
        bytes_from_peers: counts.from_peers,
        bytes_reused: reused(transfer),
        bytes_duplicate: counts.duplicate,
        bytes_rejected: counts.rejected,
        bytes_sent: counts.sent,
        bytes_sent_first: counts.sent_first,
        bytes_sent_repeat: repeat,
        copies_sent: Copies::of(counts.sent, size),
        copies_sent_first: Copies::of(counts.sent_first, size),
        copies_sent_repeat: Copies::of(repeat, size),
        sources: sources(engine.sources(&transfer.object.digest)),
    }
}

/// Every artifact of which something was moved: those on their way first, then by how much.
pub(super) fn artifacts(engine: &Engine) -> Vec<ArtifactView> {
    let mut moved: Vec<Transfer> =
        engine.transfers().into_iter().filter(|transfer| transfer.active || !transfer.counts.is_empty()).collect();
    moved.sort_by_key(|transfer| {
        let counts = transfer.counts;
        std::cmp::Reverse((transfer.active, counts.from_seed + counts.from_peers + counts.duplicate + counts.sent))
    });
    moved.truncate(MAX_ARTIFACTS);
    moved.iter().map(|transfer| artifact(engine, transfer)).collect()
}

/// The same for metrics.
pub(super) fn metrics(engine: &Engine, counters: &Counters) -> Traffic {
    let (totals, in_force) = (totals(engine, counters), engine.limits_in_force());
    Traffic {
        bytes_in_from_seeds: totals.bytes_from_seed,
        bytes_in_from_peers: totals.bytes_from_peers,
        bytes_out: totals.bytes_out,
        bytes_out_first: totals.bytes_out_first,
        bytes_duplicate: totals.bytes_duplicate,
        bytes_rejected: totals.bytes_rejected,
        bytes_unsolicited: totals.bytes_unsolicited,
        bytes_reused: totals.bytes_reused,
        bytes_control: [totals.bytes_control_in, totals.bytes_control_out],
        bytes_overhead: [totals.bytes_overhead_in, totals.bytes_overhead_out],
        bytes_wire: [totals.bytes_wire_in, totals.bytes_wire_out],
        limits_bytes_per_second: [in_force.download.bytes_per_second, in_force.upload.bytes_per_second],
        releases: current_releases(engine),
    }
}

/// What was moved of the releases that channels point to now, artifacts for all platforms together.
fn current_releases(engine: &Engine) -> Vec<ReleaseTraffic> {
    let Some(view) = engine.catalog() else { return Vec::new() };
    let mut found: BTreeMap<(String, String), ReleaseTraffic> = BTreeMap::new();
    for release in &view.releases {
        let is_current = view.channels.iter().any(|((product, _), policy)| {
            *product == release.id.product && policy.version.as_ref() == Some(&release.id.version)
        });
        let Some(transfer) = engine.transfer(&release.artifact).filter(|_| is_current) else { continue };
        let key = (release.id.product.to_string(), release.id.version.to_string());
        if found.len() == MAX_RELEASES && !found.contains_key(&key) {
            continue;
        }
        let (product, version) = key.clone();
        let row = found.entry(key).or_insert_with(|| ReleaseTraffic { product, version, ..ReleaseTraffic::default() });
        row.size_bytes += transfer.bytes_total;
        row.bytes_from_seeds += transfer.counts.from_seed;
        row.bytes_from_peers += transfer.counts.from_peers;
        row.bytes_duplicate += transfer.counts.duplicate;
        row.bytes_rejected += transfer.counts.rejected;
        row.bytes_sent_first += transfer.counts.sent_first;
        row.bytes_sent_repeat += transfer.counts.sent.saturating_sub(transfer.counts.sent_first);
    }
    found.into_values().collect()
}
