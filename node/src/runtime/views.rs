//! The engine's state in the words of the control socket.

use updraft_protocol::digest::Digest;
use updraft_protocol::head::Contradiction;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::release::Notes;
use updraft_protocol::tuf::Freshness;

use super::trust;
use crate::control::messages::{Phase, Progress};
use crate::control::traffic::Copies;
use crate::control::views::{
    EquivocationView, GateVerdict, GateView, HeadView, LocalCopy, Mode, PeerObject, PeerRow, PeersView, ReleaseRow,
    ReleasesView, RepositoryView, Schema, SubscriptionState, SubscriptionView, TransferProgress,
};
use crate::engine::Engine;
use crate::engine::evidence::alarm;
use crate::engine::fetch::TransferView;
use crate::engine::input::Now;
use crate::engine::install::{InstallState, Subscription};
use crate::engine::plan::{Gate, Verdict};

fn state(state: InstallState) -> SubscriptionState {
    match state {
        InstallState::Idle => SubscriptionState::Idle,
        InstallState::Fetching => SubscriptionState::Fetching,
        InstallState::Verified => SubscriptionState::Verified,
        InstallState::Staged => SubscriptionState::Staged,
        InstallState::Armed => SubscriptionState::Armed,
        InstallState::Switched => SubscriptionState::Switched,
        InstallState::Probation => SubscriptionState::Probation,
        InstallState::Committed => SubscriptionState::Committed,
        InstallState::RollingBack => SubscriptionState::RollingBack,
        InstallState::Quarantined => SubscriptionState::Quarantined,
    }
}

fn gate(gate: &Gate) -> GateView {
    GateView {
        gate: gate.name.as_str().to_owned(),
        verdict: match (gate.open, gate.opens_at) {
            (true, _) => GateVerdict::Open,
            (false, Some(_)) => GateVerdict::Waiting,
            (false, None) => GateVerdict::Closed,
        },
        reason: gate.reason.clone(),
        opens_at: gate.opens_at,
    }
}

fn progress(view: &TransferView) -> TransferProgress {
    let counted = view.counts.from_seed + view.counts.from_peers;
    TransferProgress {
        bytes_done: view.bytes_done,
        bytes_total: view.bytes_total,
        bytes_from_seed: view.counts.from_seed,
        bytes_from_peers: view.counts.from_peers,
        bytes_reused: view.bytes_done.saturating_sub(counted),
        rate_bytes_per_second: view.rate_bytes_per_second,
    }
}

/// Progress of an artifact for somebody who waits for it.
pub(super) fn fetching(engine: &Engine, artifact: &Digest) -> Progress {
    let waiting = engine.waiting_for(artifact);
    let Some(view) = engine.transfer(artifact) else {
        return Progress { text: waiting, ..Progress::local(Phase::Waiting, 0, None) };
    };
    let shown = progress(&view);
    Progress {
        phase: if waiting.is_some() { Phase::Waiting } else { Phase::Fetching },
        text: waiting,
        bytes_done: shown.bytes_done,
        bytes_total: Some(shown.bytes_total),
        bytes_from_seed: shown.bytes_from_seed,
        bytes_from_peers: shown.bytes_from_peers,
        bytes_reused: shown.bytes_reused,
        rate_bytes_per_second: shown.rate_bytes_per_second,
    }
}

/// Why a subscription stands where it does, in a sentence.
pub(super) fn reason(engine: &Engine, subscription: &Subscription) -> Option<String> {
    if engine.catalog().is_none() {
        let peers = engine.connected_peers();
        return Some(if peers == 0 {
            "no peer is connected: is the seed reachable at the ticket's addresses?".to_owned()
        } else {
            "fetching the repository's metadata".to_owned()
        });
    }
    if let Some(release) = subscription.wanted()
        && subscription.state == InstallState::Fetching
        && let Some(waiting) = engine.waiting_for(&release.artifact)
    {
        return Some(waiting);
    }
    let decision = subscription.decision.as_ref();
    let waits = matches!(subscription.state, InstallState::Idle | InstallState::Committed | InstallState::Quarantined);
    let blocked = decision.filter(|decision| matches!(decision.verdict, Verdict::Blocked | Verdict::Nothing));
    if let Some(gate) = blocked.and_then(|decision| decision.blocked_by()).filter(|_| waits) {
        return Some(match gate.opens_at {
            Some(time) => format!("{}; opens at {time}", gate.reason),
            None => gate.reason.clone(),
        });
    }
    Some(subscription.reason.clone()).filter(|reason| !reason.is_empty())
}

/// One subscription.
pub(super) fn subscription(engine: &Engine, subscription: &Subscription, explain: bool) -> SubscriptionView {
    let spec = &subscription.spec;
    let decision = subscription.decision.as_ref();
    let offered = decision.and_then(|decision| decision.offered.as_ref());
    let wanted = subscription.wanted().or(offered);
    let transfer = wanted.and_then(|release| engine.transfer(&release.artifact));
    let installed = match &spec.directory {
        Some(_) => subscription.installed.as_ref().map(|installed| installed.version.to_string()),
        None => offered.filter(|release| engine.holds(&release.artifact)).map(|release| release.id.version.to_string()),
    };
    SubscriptionView {
        product: spec.product.clone(),
        channel: spec.channel.clone(),
        platform: engine.platform().clone(),
        directory: spec.directory.as_ref().map(Into::into),
        mode: if spec.directory.is_some() { Mode::Install } else { Mode::Mirror },
        installed,
        offered: offered.map(|release| release.id.version.to_string()),
        state: state(subscription.state),
        reason: reason(engine, subscription),
        progress: transfer.as_ref().map(progress),
        gates: decision.filter(|_| explain).map(|decision| decision.gates.iter().map(gate).collect()),
    }
}

/// The repository.
pub(super) fn repository(engine: &Engine, fingerprint: String, now: Now) -> RepositoryView {
    let view = engine.catalog();
    let head = view.and_then(|view| {
        let timestamp = view.trusted.timestamp()?;
        let signed_at = timestamp.signed_at?;
        Some(HeadView {
            timestamp_version: timestamp.version,
            signed_at,
            expires_at: timestamp.expires,
            fresh: matches!(view.trusted.freshness(now.wall), Freshness::Fresh { .. })
                && engine.clock(now).is_trusted(),
            age_ms: u64::try_from(now.wall.seconds_since(signed_at)).unwrap_or(0).saturating_mul(1_000),
        })
    });
    let equivocations = view.map(|view| view.contradictions.iter().map(equivocation).collect()).unwrap_or_default();
    RepositoryView {
        id: engine.repository().0,
        fingerprint,
        root_version: engine.root_version(),
        head,
        equivocations,
        memory: trust::memory(engine),
    }
}

fn equivocation(found: &Contradiction) -> EquivocationView {
    EquivocationView {
        role: found.role.to_string(),
        versions: found.versions.into(),
        sha256: found.digests.into(),
        text: alarm(found),
    }
}

/// Who is connected.
pub(super) fn peers(engine: &Engine, now: Now) -> PeersView {
    let rows = engine.peer_views().into_iter().map(|view| {
        let mut addresses = vec![view.session.address.clone()];
        addresses.extend(view.addresses.into_iter().filter(|address| *address != view.session.address));
        let hello = view.session.hello.as_ref();
        PeerRow {
            peer_id: view.peer.to_string(),
            addresses,
            outbound: view.session.outbound,
            seed: hello.is_some_and(|hello| hello.seed),
            agent: hello.map(|hello| hello.agent.clone()).unwrap_or_default(),
            connected_ms: now.mono_ms.saturating_sub(view.session.since_ms),
            rate_in_bytes_per_second: view.link.rate_in_bytes_per_second,
            rate_out_bytes_per_second: view.link.rate_out_bytes_per_second,
            bytes_in: view.link.bytes_in,
            bytes_out: view.link.bytes_out,
            bytes_duplicate: view.link.bytes_duplicate,
            bytes_unsolicited: view.link.bytes_unsolicited,
            lan_exempt: view.lan_exempt,
            objects: view
                .link
                .objects
                .iter()
                .map(|(object, have, total)| PeerObject {
                    artifact: object.digest,
                    pieces_have: *have,
                    pieces_total: *total,
                })
                .collect(),
            score: -i64::from(view.session.faults),
        }
    });
    PeersView { schema: Schema, peers: rows.collect(), banned: trust::banned(engine) }
}

/// The releases that are known.
pub(super) fn releases(engine: &Engine, product: Option<&Product>, now: Now) -> ReleasesView {
    let Some(view) = engine.catalog() else { return ReleasesView { schema: Schema, releases: Vec::new() } };
    let mut rows: Vec<ReleaseRow> = view
        .releases
        .iter()
        .filter(|release| product.is_none_or(|product| release.id.product == *product))
        .map(|release| {
            let pointing: Vec<(&Channel, u8)> = view
                .channels
                .iter()
                .filter(|((of, _), policy)| {
                    *of == release.id.product && policy.version.as_ref() == Some(&release.id.version)
                })
                .map(|((_, channel), policy)| (channel, policy.rollout.percent_at(now.wall)))
                .collect();
            let transfer = engine.transfer(&release.artifact);
            let bytes_local = transfer.as_ref().map_or(0, |transfer| transfer.bytes_done);
            let bytes_sent = transfer.as_ref().map_or(0, |transfer| transfer.counts.sent);
            ReleaseRow {
                product: release.id.product.clone(),
                version: release.id.version.to_string(),
                platform: release.id.platform.clone(),
                channels: pointing.iter().map(|(channel, _)| (*channel).clone()).collect(),
                size_bytes: release.length,
                content_bytes: release.content.length,
                format: release.format.as_str().to_owned(),
                sha256: release.artifact,
                rollout_percent: pointing.iter().map(|(_, percent)| *percent).max().unwrap_or(0),
                critical: release.critical,
                local: match bytes_local {
                    0 => LocalCopy::Absent,
                    bytes if bytes == release.length => LocalCopy::Complete,
                    _ => LocalCopy::Partial,
                },
                bytes_local,
                bytes_sent,
                copies_sent: Copies::of(bytes_sent, release.length),
                notes: match &release.notes {
                    Notes::Text(text) => Some(text.clone()),
                    Notes::File { .. } | Notes::None => None,
                },
            }
        })
        .collect();
    // By product, newest first.
    rows.reverse();
    rows.sort_by(|a, b| a.product.cmp(&b.product));
    ReleasesView { schema: Schema, releases: rows }
}
