//! Snapshots of the JSON contract: a test fails here where a name, a unit or an order changes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform};
use updraft_protocol::time::UtcTime;

use super::channels::{ChannelChangeView, ChannelRow, ChannelsView, OutcomeCounts};
use super::fleet::{FleetNode, FleetProduct, FleetView, PausedRow, VersionRow};
use super::results::{FetchView, HoldRow, HoldView, InstallView, PublishView, RenewView, TicketView};
use super::traffic::{ArtifactView, Copies, LimitView, LimitsView, SourceRow, TransferView};
use super::views::{
    BanRow, ClockView, EquivocationView, FloorView, GateVerdict, GateView, HeadView, HistoryRow, HistoryView,
    LocalCopy, MemoryView, Mode, PeerObject, PeerRow, PeersView, ReleaseRow, ReleasesView, RepositoryView, Schema,
    SigningState, SigningView, StatusView, SubscriptionState, SubscriptionView, TransferProgress,
};
use crate::config::Role;

fn digest() -> Digest {
    Digest::from([0xab; 32])
}

fn time(seconds: i64) -> UtcTime {
    UtcTime::from_unix(1_795_357_860).plus_seconds(seconds)
}

/// Checks that `view` is written as `expected`, and read back from it.
fn check<V: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(view: &V, expected: &str) {
    let expected = expected.replace("<D>", &digest().to_string());
    let written = serde_json::to_string_pretty(view).expect("serializable");
    assert_eq!(written, expected.trim());
    assert_eq!(&serde_json::from_str::<V>(&expected).expect("decodes"), view);
}

pub(crate) fn sample_equivocation() -> EquivocationView {
    EquivocationView {
        role: "timestamp".to_owned(),
        versions: [7, 7],
        sha256: [digest(), digest()],
        text: "two different timestamp files of version 7 are validly signed".to_owned(),
    }
}

#[test]
fn the_contract_of_an_equivocation() {
    check(
        &sample_equivocation(),
        r#"
{
  "role": "timestamp",
  "versions": [
    7,
    7
  ],
  "sha256": [
    "<D>",
    "<D>"
  ],
  "text": "two different timestamp files of version 7 are validly signed"
}
"#,
    );
}

fn sample_transfer() -> TransferView {
    TransferView {
        bytes_in: 50,
        bytes_out: 6,
        bytes_duplicate: 1,
        bytes_from_seed: 10,
        bytes_from_peers: 40,
        bytes_unsolicited: 2,
        bytes_out_first: 4,
        bytes_control_in: 7,
        bytes_control_out: 8,
        bytes_overhead_in: 9,
        bytes_overhead_out: 10,
        bytes_wire_in: 61,
        bytes_wire_out: 16,
        ..TransferView::default()
    }
}

fn sample_limits() -> LimitsView {
    LimitsView {
        upload: LimitView {
            bytes_per_second: Some(1 << 20),
            why: "window 08:00-18:00 mon-fri".to_owned(),
            until: Some(time(3_600)),
        },
        download: LimitView { bytes_per_second: None, why: "no limit is set".to_owned(), until: None },
        lan_exempt: true,
        time_zone: "+01:00".to_owned(),
        utc_offset_minutes: 60,
        egress_budget_copies: Some(Copies::from_percent(120)),
    }
}

fn sample_artifact() -> ArtifactView {
    ArtifactView {
        sha256: digest(),
        product: "editor".parse().ok(),
        version: Some("1.1.0".to_owned()),
        platform: "linux-x86_64".parse().ok(),
        size_bytes: 200,
        bytes_done: 50,
        active: true,
        rate_bytes_per_second: 5,
        bytes_from_seed: 10,
        bytes_from_peers: 40,
        bytes_reused: 0,
        bytes_duplicate: 1,
        bytes_rejected: 0,
        bytes_sent: 6,
        bytes_sent_first: 4,
        bytes_sent_repeat: 2,
        copies_sent: Copies::of(6, 200),
        copies_sent_first: Copies::of(4, 200),
        copies_sent_repeat: Copies::of(2, 200),
        sources: vec![SourceRow { peer_id: "12D3KooWother".to_owned(), bytes: 40 }],
    }
}

/// A status with something in every field but one that would be an alarm; the command line's tests show it too.
pub(crate) fn sample_status() -> StatusView {
    StatusView {
        schema: Schema,
        role: Role::Peer,
        peer_id: "12D3KooWexample".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_ms: 61_000,
        listen: vec!["/ip4/127.0.0.1/tcp/4880".to_owned()],
        http: None,
        connected_peers: 3,
        repositories: vec![RepositoryView {
            id: digest(),
            fingerprint: "0123-4567-89ab-cdef".to_owned(),
            root_version: 1,
            head: Some(HeadView {
                timestamp_version: 7,
                signed_at: time(-60),
                expires_at: time(14 * 86_400 - 60),
                fresh: true,
                age_ms: 60_000,
            }),
            equivocations: Vec::new(),
            memory: MemoryView {
                remembered_releases: 12,
                altered_releases: Vec::new(),
                floors: vec![FloorView {
                    product: "editor".parse().expect("a name"),
                    version: "0.9.0".to_owned(),
                    signed: None,
                }],
            },
        }],
        subscriptions: vec![SubscriptionView {
            product: "editor".parse().expect("a name"),
            channel: Channel::stable(),
            platform: "linux-x86_64".parse().expect("a name"),
            directory: Some("/opt/editor".into()),
            mode: Mode::Install,
            installed: Some("1.0.0".to_owned()),
            offered: Some("1.1.0".to_owned()),
            state: SubscriptionState::Fetching,
            reason: None,
            progress: Some(TransferProgress {
                bytes_done: 50,
                bytes_total: 200,
                bytes_from_seed: 10,
                bytes_from_peers: 40,
                bytes_reused: 0,
                rate_bytes_per_second: 5,
            }),
            gates: None,
        }],
        transfer: sample_transfer(),
        warnings: vec!["the private keys of the repository are still on this machine".to_owned()],
        clock: Some(ClockView { trusted: true, now: time(0), not_before: time(-60), reason: None }),
        signing: Some(SigningView {
            state: SigningState::Waiting,
            reason: Some("hearing from the peers before signing: 1 of 2 known ones have answered".to_owned()),
        }),
        limits: sample_limits(),
        artifacts: vec![sample_artifact()],
    }
}

/// What [`sample_status`] is in JSON.
const STATUS: &str = r#"
{
  "schema": 1,
  "role": "peer",
  "peer_id": "12D3KooWexample",
  "version": "0.1.0",
  "uptime_ms": 61000,
  "listen": [
    "/ip4/127.0.0.1/tcp/4880"
  ],
  "http": null,
  "connected_peers": 3,
  "repositories": [
    {
      "id": "<D>",
      "fingerprint": "0123-4567-89ab-cdef",
      "root_version": 1,
      "head": {
        "timestamp_version": 7,
        "signed_at": "2026-11-22T14:30:00Z",
        "expires_at": "2026-12-06T14:30:00Z",
        "fresh": true,
        "age_ms": 60000
      },
      "equivocations": [],
      "memory": {
        "remembered_releases": 12,
        "altered_releases": [],
        "floors": [
          {
            "product": "editor",
            "version": "0.9.0",
            "signed": null
          }
        ]
      }
    }
  ],
  "subscriptions": [
    {
      "product": "editor",
      "channel": "stable",
      "platform": "linux-x86_64",
      "directory": "/opt/editor",
      "mode": "install",
      "installed": "1.0.0",
      "offered": "1.1.0",
      "state": "fetching",
      "reason": null,
      "progress": {
        "bytes_done": 50,
        "bytes_total": 200,
        "bytes_from_seed": 10,
        "bytes_from_peers": 40,
        "bytes_reused": 0,
        "rate_bytes_per_second": 5
      }
    }
  ],
  "transfer": {
    "bytes_in": 50,
    "bytes_out": 6,
    "bytes_duplicate": 1,
    "bytes_rejected": 0,
    "bytes_from_seed": 10,
    "bytes_from_peers": 40,
    "bytes_reused": 0,
    "bytes_unsolicited": 2,
    "bytes_out_first": 4,
    "bytes_control_in": 7,
    "bytes_control_out": 8,
    "bytes_overhead_in": 9,
    "bytes_overhead_out": 10,
    "bytes_wire_in": 61,
    "bytes_wire_out": 16
  },
  "warnings": [
    "the private keys of the repository are still on this machine"
  ],
  "clock": {
    "trusted": true,
    "now": "2026-11-22T14:31:00Z",
    "not_before": "2026-11-22T14:30:00Z",
    "reason": null
  },
  "signing": {
    "state": "waiting",
    "reason": "hearing from the peers before signing: 1 of 2 known ones have answered"
  },
  "limits": {
    "upload": {
      "bytes_per_second": 1048576,
      "why": "window 08:00-18:00 mon-fri",
      "until": "2026-11-22T15:31:00Z"
    },
    "download": {
      "bytes_per_second": null,
      "why": "no limit is set",
      "until": null
    },
    "lan_exempt": true,
    "time_zone": "+01:00",
    "utc_offset_minutes": 60,
    "egress_budget_copies": 1.2
  },
  "artifacts": [
    {
      "sha256": "<D>",
      "product": "editor",
      "version": "1.1.0",
      "platform": "linux-x86_64",
      "size_bytes": 200,
      "bytes_done": 50,
      "active": true,
      "rate_bytes_per_second": 5,
      "bytes_from_seed": 10,
      "bytes_from_peers": 40,
      "bytes_reused": 0,
      "bytes_duplicate": 1,
      "bytes_rejected": 0,
      "bytes_sent": 6,
      "bytes_sent_first": 4,
      "bytes_sent_repeat": 2,
      "copies_sent": 0.03,
      "copies_sent_first": 0.02,
      "copies_sent_repeat": 0.01,
      "sources": [
        {
          "peer_id": "12D3KooWother",
          "bytes": 40
        }
      ]
    }
  ]
}"#;

#[test]
fn status() {
    check(&sample_status(), STATUS);
}

#[test]
fn gates_appear_with_explain() {
    let gates = vec![GateView {
        gate: "rollout".to_owned(),
        verdict: GateVerdict::Waiting,
        reason: "bucket 83 of 100, the rollout is at 25".to_owned(),
        opens_at: Some(time(3600)),
    }];
    check(
        &gates,
        r#"
[
  {
    "gate": "rollout",
    "verdict": "waiting",
    "reason": "bucket 83 of 100, the rollout is at 25",
    "opens_at": "2026-11-22T15:31:00Z"
  }
]"#,
    );
}

#[test]
fn every_state_is_its_install_state_in_snake_case() {
    use SubscriptionState as S;
    let states = [
        (S::Idle, "idle"),
        (S::Fetching, "fetching"),
        (S::Verified, "verified"),
        (S::Staged, "staged"),
        (S::Armed, "armed"),
        (S::Switched, "switched"),
        (S::Probation, "probation"),
        (S::Committed, "committed"),
        (S::RollingBack, "rolling_back"),
        (S::Quarantined, "quarantined"),
    ];
    for (state, word) in states {
        assert_eq!(serde_json::to_string(&state).expect("serializable"), format!("\"{word}\""));
        assert_eq!(state.as_str(), word);
    }
}

#[test]
fn peers() {
    let view = PeersView {
        schema: Schema,
        peers: vec![PeerRow {
            peer_id: "12D3KooWother".to_owned(),
            addresses: vec!["/ip4/192.0.2.7/tcp/4880".to_owned()],
            outbound: true,
            seed: true,
            agent: "updraft/0.1.0".to_owned(),
            connected_ms: 1500,
            rate_in_bytes_per_second: 10,
            rate_out_bytes_per_second: 20,
            bytes_in: 30,
            bytes_out: 40,
            bytes_duplicate: 3,
            bytes_unsolicited: 4,
            lan_exempt: true,
            objects: vec![PeerObject { artifact: digest(), pieces_have: 3, pieces_total: 128 }],
            score: -2,
        }],
        banned: vec![BanRow {
            peer_id: "12D3KooWliar".to_owned(),
            reason: "sent piece 3, which is not what was signed".to_owned(),
            banned_at: time(0),
            until: time(7 * 86_400),
            offences: 1,
        }],
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "peers": [
    {
      "peer_id": "12D3KooWother",
      "addresses": [
        "/ip4/192.0.2.7/tcp/4880"
      ],
      "outbound": true,
      "seed": true,
      "agent": "updraft/0.1.0",
      "connected_ms": 1500,
      "rate_in_bytes_per_second": 10,
      "rate_out_bytes_per_second": 20,
      "bytes_in": 30,
      "bytes_out": 40,
      "bytes_duplicate": 3,
      "bytes_unsolicited": 4,
      "lan_exempt": true,
      "objects": [
        {
          "artifact": "<D>",
          "pieces_have": 3,
          "pieces_total": 128
        }
      ],
      "score": -2
    }
  ],
  "banned": [
    {
      "peer_id": "12D3KooWliar",
      "reason": "sent piece 3, which is not what was signed",
      "banned_at": "2026-11-22T14:31:00Z",
      "until": "2026-11-29T14:31:00Z",
      "offences": 1
    }
  ]
}"#,
    );
}

#[test]
fn releases() {
    let view = ReleasesView {
        schema: Schema,
        releases: vec![ReleaseRow {
            product: "editor".parse().expect("a name"),
            version: "1.1.0".to_owned(),
            platform: Platform::any(),
            channels: vec![Channel::stable()],
            size_bytes: 100,
            content_bytes: 400,
            format: "tar.zst".to_owned(),
            sha256: digest(),
            rollout_percent: 100,
            critical: false,
            local: LocalCopy::Partial,
            bytes_local: 25,
            bytes_sent: 105,
            copies_sent: Copies::of(105, 100),
            notes: None,
        }],
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "releases": [
    {
      "product": "editor",
      "version": "1.1.0",
      "platform": "any",
      "channels": [
        "stable"
      ],
      "size_bytes": 100,
      "content_bytes": 400,
      "format": "tar.zst",
      "sha256": "<D>",
      "rollout_percent": 100,
      "critical": false,
      "local": "partial",
      "bytes_local": 25,
      "bytes_sent": 105,
      "copies_sent": 1.05,
      "notes": null
    }
  ]
}"#,
    );
}

fn sample_channel() -> ChannelRow {
    use updraft_protocol::rollout::{Halt, Stage};
    ChannelRow {
        product: "editor".parse().expect("a name"),
        channel: Channel::stable(),
        version: Some("1.1.0".to_owned()),
        since: Some(time(0)),
        paused: true,
        pause_reason: Some("2 of 5 nodes failed".to_owned()),
        rollout_percent: 10,
        rollout_start: time(0),
        rollout_stages: vec![Stage { percent: 10, at: time(0) }],
        yanked: vec!["1.0.1".to_owned()],
        allow_downgrade_to: None,
        max_head_age_s: Some(3_600),
        halt: Some(Halt { failures_percent: 20, min_reports: 5, silence_s: None }),
        floor: Some("1.0.0".to_owned()),
        outcomes: Some(OutcomeCounts { installed: 3, failed: 2, pending: 1, votes: 5, votes_failed: 2 }),
    }
}

const CHANNEL: &str = r#"{
  "product": "editor",
  "channel": "stable",
  "version": "1.1.0",
  "since": "2026-11-22T14:31:00Z",
  "paused": true,
  "pause_reason": "2 of 5 nodes failed",
  "rollout_percent": 10,
  "rollout_start": "2026-11-22T14:31:00Z",
  "rollout_stages": [
    {
      "percent": 10,
      "at": "2026-11-22T14:31:00Z"
    }
  ],
  "yanked": [
    "1.0.1"
  ],
  "allow_downgrade_to": null,
  "max_head_age_s": 3600,
  "halt": {
    "failures_percent": 20,
    "min_reports": 5
  },
  "floor": "1.0.0",
  "outcomes": {
    "installed": 3,
    "failed": 2,
    "pending": 1,
    "votes": 5,
    "votes_failed": 2
  }
}"#;

#[test]
fn channels() {
    check(&sample_channel(), CHANNEL);
    let compact = |text: &str| text.split_whitespace().collect::<String>();
    let view = ChannelsView { schema: Schema, channels: vec![sample_channel()] };
    let written = serde_json::to_string(&view).expect("serializable");
    assert_eq!(compact(&written), compact(&format!(r#"{{"schema":1,"channels":[{CHANNEL}]}}"#)));
    let change = ChannelChangeView {
        schema: Schema,
        channel: sample_channel(),
        changes: vec!["paused".to_owned()],
        warnings: Vec::new(),
        dry_run: false,
        timestamp_version: Some(8),
    };
    let expected = format!(
        r#"{{"schema":1,"channel":{CHANNEL},"changes":["paused"],"warnings":[],"dry_run":false,"timestamp_version":8}}"#
    );
    assert_eq!(compact(&serde_json::to_string(&change).expect("serializable")), compact(&expected));
}

#[test]
fn channel_changes_are_asked_for_in_these_words() {
    use super::channels::ChannelRequest;
    use super::messages::Request;
    use crate::engine::policy::{Change, Setting, Settings};

    let version = || "1.1.0".parse().expect("a version");
    let settings = Settings {
        release: Some(version()),
        rollout: Some("10@now,100@+1d".parse().expect("a schedule")),
        allow_downgrade: Some(Setting::Off),
        floor: None,
        halt_percent: Some(Setting::To(20)),
        halt_min_reports: Some(5),
        halt_silence_s: Some(Setting::To(3_600)),
        max_head_age_s: None,
    };
    let set = r#"{"set":{"release":"1.1.0","rollout":"10@now,100@+1d","allow_downgrade":"off","floor":null,"halt_percent":{"to":20},"halt_min_reports":5,"halt_silence_s":{"to":3600},"max_head_age_s":null}}"#;
    let cases = [
        (Change::Set(settings), set),
        (Change::Promote { version: version(), rollout: None }, r#"{"promote":{"version":"1.1.0","rollout":null}}"#),
        (Change::Pause { reason: Some("why".to_owned()) }, r#"{"pause":{"reason":"why"}}"#),
        (Change::Resume {}, r#"{"resume":{}}"#),
        (Change::Yank { version: version(), undo: true }, r#"{"yank":{"version":"1.1.0","undo":true}}"#),
    ];
    for (change, expected) in cases {
        let product = "editor".parse().expect("a name");
        let request = ChannelRequest { product, channel: Channel::stable(), change, dry_run: false };
        let written = serde_json::to_string(&request).expect("serializable");
        let expected = format!(r#"{{"product":"editor","channel":"stable","change":{expected},"dry_run":false}}"#);
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_str::<ChannelRequest>(&written).expect("decodes"), request);
        let asked = Request::ChangeChannel(Box::new(request));
        let written = serde_json::to_string(&asked).expect("serializable");
        assert_eq!(serde_json::from_str::<Request>(&written).expect("decodes"), asked, "{written}");
    }
}

#[test]
fn fleet() {
    let product = || "editor".parse().expect("a name");
    check(
        &FleetView {
            schema: Schema,
            nodes_known: 7,
            nodes_limit: 16_384,
            versions: vec![VersionRow {
                product: product(),
                version: "1.1.0".to_owned(),
                running: 4,
                pending: 1,
                failed: 2,
            }],
            paused: vec![PausedRow { product: product(), channel: Channel::stable(), reason: None }],
            nodes: vec![FleetNode {
                peer_id: "12D3KooWexample".to_owned(),
                connected: true,
                first_seen: time(0),
                last_seen: time(60),
                voice_since: None,
                products: vec![FleetProduct {
                    product: product(),
                    channel: Channel::stable(),
                    runs: Some("1.0.0".to_owned()),
                    state: Some("rolled_back".to_owned()),
                    version: Some("1.1.0".to_owned()),
                    at: Some(time(60)),
                    text: Some("the health check failed".to_owned()),
                }],
            }],
        },
        r#"
{
  "schema": 1,
  "nodes_known": 7,
  "nodes_limit": 16384,
  "versions": [
    {
      "product": "editor",
      "version": "1.1.0",
      "running": 4,
      "pending": 1,
      "failed": 2
    }
  ],
  "paused": [
    {
      "product": "editor",
      "channel": "stable",
      "reason": null
    }
  ],
  "nodes": [
    {
      "peer_id": "12D3KooWexample",
      "connected": true,
      "first_seen": "2026-11-22T14:31:00Z",
      "last_seen": "2026-11-22T14:32:00Z",
      "voice_since": null,
      "products": [
        {
          "product": "editor",
          "channel": "stable",
          "runs": "1.0.0",
          "state": "rolled_back",
          "version": "1.1.0",
          "at": "2026-11-22T14:32:00Z",
          "text": "the health check failed"
        }
      ]
    }
  ]
}"#,
    );
}

#[test]
fn history() {
    let view = HistoryView {
        schema: Schema,
        entries: vec![HistoryRow {
            at: time(0),
            kind: "installed".to_owned(),
            product: Some("editor".parse().expect("a name")),
            version: Some("1.1.0".to_owned()),
            text: "installed 1.1.0 over 1.0.0".to_owned(),
        }],
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "entries": [
    {
      "at": "2026-11-22T14:31:00Z",
      "kind": "installed",
      "product": "editor",
      "version": "1.1.0",
      "text": "installed 1.1.0 over 1.0.0"
    }
  ]
}"#,
    );
}

#[test]
fn fetch() {
    let view = FetchView {
        schema: Schema,
        product: "editor".parse().expect("a name"),
        version: "1.1.0".to_owned(),
        platform: Platform::any(),
        path: "/tmp/editor.tar.zst".into(),
        sha256: digest(),
        size_bytes: 100,
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "product": "editor",
  "version": "1.1.0",
  "platform": "any",
  "path": "/tmp/editor.tar.zst",
  "sha256": "<D>",
  "size_bytes": 100
}"#,
    );
}

#[test]
fn install() {
    let view = InstallView {
        schema: Schema,
        product: "editor".parse().expect("a name"),
        directory: "/opt/editor".into(),
        from: Some("1.0.0".to_owned()),
        to: "1.1.0".to_owned(),
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "product": "editor",
  "directory": "/opt/editor",
  "from": "1.0.0",
  "to": "1.1.0"
}"#,
    );
}

#[test]
fn hold() {
    let row = |version: Option<&str>, reason: &str| HoldRow {
        directory: "/opt/editor".into(),
        version: version.map(str::to_owned),
        reason: reason.to_owned(),
    };
    let view = HoldView {
        schema: Schema,
        product: "editor".parse().expect("a name"),
        held: vec![row(None, "fair week"), row(Some("1.1.0"), "it was slow")],
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "product": "editor",
  "held": [
    {
      "directory": "/opt/editor",
      "version": null,
      "reason": "fair week"
    },
    {
      "directory": "/opt/editor",
      "version": "1.1.0",
      "reason": "it was slow"
    }
  ]
}"#,
    );
}

#[test]
fn ticket() {
    let view = TicketView {
        schema: Schema,
        ticket: "updraft1:abc".to_owned(),
        fingerprint: "0123-4567-89ab-cdef".to_owned(),
        repository: digest(),
        addresses: vec!["/ip4/192.0.2.1/tcp/4880/p2p/12D3KooWexample".to_owned()],
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "ticket": "updraft1:abc",
  "fingerprint": "0123-4567-89ab-cdef",
  "repository": "<D>",
  "addresses": [
    "/ip4/192.0.2.1/tcp/4880/p2p/12D3KooWexample"
  ]
}"#,
    );
}

#[test]
fn publish() {
    let view = PublishView {
        schema: Schema,
        product: "editor".parse().expect("a name"),
        version: "1.1.0".to_owned(),
        platform: Platform::any(),
        channel: Channel::stable(),
        target: "releases/editor/1.1.0/any/editor-1.1.0.tar.zst".to_owned(),
        format: "tar.zst".to_owned(),
        sha256: digest(),
        size_bytes: 100,
        content_bytes: 400,
        entries: 12,
        pieces: 128,
        timestamp_version: Some(8),
        dry_run: false,
        warnings: vec![],
    };
    check(
        &view,
        r#"
{
  "schema": 1,
  "product": "editor",
  "version": "1.1.0",
  "platform": "any",
  "channel": "stable",
  "target": "releases/editor/1.1.0/any/editor-1.1.0.tar.zst",
  "format": "tar.zst",
  "sha256": "<D>",
  "size_bytes": 100,
  "content_bytes": 400,
  "entries": 12,
  "pieces": 128,
  "timestamp_version": 8,
  "dry_run": false,
  "warnings": []
}"#,
    );
}

#[test]
fn another_schema_is_refused_with_a_reason() {
    let error = serde_json::from_str::<PeersView>(r#"{"schema":2,"peers":[]}"#).expect_err("unknown contract");
    assert!(error.to_string().contains("schema 2"), "{error}");
}

#[test]
fn renew() {
    check(
        &RenewView {
            schema: Schema,
            product: "editor".parse().expect("a name"),
            role: "releases-editor".to_owned(),
            version: 4,
            expires_at: time(365 * 86_400),
            timestamp_version: 9,
        },
        r#"
{
  "schema": 1,
  "product": "editor",
  "role": "releases-editor",
  "version": 4,
  "expires_at": "2027-11-22T14:31:00Z",
  "timestamp_version": 9
}"#,
    );
}
