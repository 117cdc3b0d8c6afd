//! What travels over the control socket: requests, and the lines that answer them.
//!
//! Names and units here are a contract with every script that reads `--json`: snake case, bytes and
//! milliseconds as integers with the unit in the name, times in RFC 3339 UTC. A request with a field
//! that this node does not know is refused: acting on half of what was asked for is worse than not
//! acting. Replies may grow fields; readers ignore those they do not know.

use std::path::PathBuf;

use semver::Version;
use serde::{Deserialize, Serialize};
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::rollout::Schedule;
use updraft_protocol::time::UtcTime;

use super::channels::{ChannelChangeView, ChannelRequest, ChannelsView};
pub use super::error::{ErrorBody, ErrorCode};
use super::fleet::FleetView;
use super::garbage::GcView;
use super::results::{ApplyView, FetchView, HoldView, InstallView, PublishView, RenewView, TicketView};
use super::version_text;
use super::views::{HistoryView, PeersView, ReleasesView, StatusView};

/// What a client asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the node is doing. Answered by [`Response::Status`].
    Status {
        /// Include every gate of every subscription.
        #[serde(default)]
        explain: bool,
    },
    /// Who is connected. Answered by [`Response::Peers`].
    Peers {},
    /// The releases that the node knows. Answered by [`Response::Releases`].
    Releases {
        /// Only this product's.
        #[serde(default)]
        product: Option<Product>,
    },
    /// Get and verify an artifact without installing it. Progress, then [`Response::Fetch`].
    Fetch {
        /// Of which product.
        product: Product,
        /// Which version; the newest that is offered where absent.
        #[serde(default, with = "version_text::optional")]
        version: Option<Version>,
        /// An absolute path that the node writes the artifact to; it stays in the store either way.
        #[serde(default)]
        output: Option<PathBuf>,
    },
    /// Install what is offered. Progress, then [`Response::Install`].
    Install {
        /// Which product.
        product: Product,
        /// Which version; what the channel offers where absent.
        #[serde(default, with = "version_text::optional")]
        version: Option<Version>,
        /// Do not wait for the rollout. Signatures, floors, pauses, yanks and a hold on the product hold all
        /// the same; asking to install lifts a quarantine, and a hold on that very version, with or without
        /// this.
        #[serde(default)]
        now: bool,
    },
    /// Go back to a release that is kept. Progress, then [`Response::Install`].
    Rollback {
        /// Which product.
        product: Product,
        /// To which version; the previous one where absent.
        #[serde(default, with = "version_text::optional")]
        to: Option<Version>,
        /// Keep what is left from being installed again.
        #[serde(default = "yes")]
        hold: bool,
    },
    /// Keep a version, or every update, from being installed. Answered by [`Response::Hold`].
    Hold {
        /// Of which product.
        product: Product,
        /// Which version; every update where absent.
        #[serde(default, with = "version_text::optional")]
        version: Option<Version>,
        /// Why, at most [`MAX_REASON_BYTES`].
        reason: String,
    },
    /// Lift the hold on a version, or every hold. Answered by [`Response::Hold`].
    Unhold {
        /// On which product.
        product: Product,
        /// On which version; every hold where absent.
        #[serde(default, with = "version_text::optional")]
        version: Option<Version>,
    },
    /// What was installed when. Answered by [`Response::History`].
    History {
        /// Only this product's.
        #[serde(default)]
        product: Option<Product>,
        /// At most so many entries, the newest.
        limit: u32,
    },
    /// What happens. Events, then [`Response::Done`]; endless with `follow`.
    Events {
        /// Go on with events as they happen.
        #[serde(default)]
        follow: bool,
        /// Start after this sequence number; with those that the node still remembers where absent.
        #[serde(default)]
        since: Option<u64>,
    },
    /// The join ticket. Answered by [`Response::Ticket`].
    Ticket {
        /// Multiaddresses to put into it; the node's own where empty.
        #[serde(default)]
        addresses: Vec<String>,
    },
    /// Let a banned peer back in. Answered by [`Response::Done`].
    Unban {
        /// Its identity.
        peer: String,
    },
    /// The clock of this machine is right, whatever was signed: forget the latest time of signing.
    /// Answered by [`Response::Done`].
    TrustClock {},
    /// Remove what nothing needs. Answered by [`Response::Gc`].
    Gc {
        /// Only tell what would go.
        #[serde(default)]
        dry_run: bool,
    },
    /// Publish a release (seeds only). Progress, then [`Response::Publish`].
    Publish(PublishRequest),
    /// What the policies of channels say. Answered by [`Response::Channels`].
    Channels {
        /// Only this product's.
        #[serde(default)]
        product: Option<Product>,
        /// Only this one.
        #[serde(default)]
        channel: Option<Channel>,
    },
    /// Change the policy of a channel (seeds only). Answered by [`Response::ChannelChange`].
    ChangeChannel(Box<ChannelRequest>),
    /// Nodes by version and state, as they reported (seeds only). Answered by [`Response::Fleet`].
    Fleet {
        /// At most so many nodes, those that failed first.
        limit: u32,
    },
    /// Put what key holders signed into force (seeds only). Answered by [`Response::Apply`].
    Apply {
        /// Absolute path of the ceremony file, as the node sees it.
        path: PathBuf,
    },
    /// Sign a release here and have the seed publish it (peers that have the publisher's key). Progress,
    /// then [`Response::Publish`] or [`Response::Renew`].
    Push(PushRequest),
}

/// Bytes of an operator's reason. Bounds what every status repeats.
pub const MAX_REASON_BYTES: usize = 512;

fn yes() -> bool {
    true
}

impl Request {
    /// Whether the node reports progress or events before it ends.
    pub fn streams(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. }
                | Self::Install { .. }
                | Self::Rollback { .. }
                | Self::Events { .. }
                | Self::Publish(_)
                | Self::Push(_)
        )
    }
}

/// A release to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Absolute path of the directory to pack or the file to take as it is, as the node sees it.
    pub path: PathBuf,
    /// What is shipped.
    pub product: Product,
    /// Its version.
    #[serde(with = "version_text::required")]
    pub version: Version,
    /// The channel that will point to it.
    pub channel: Channel,
    /// Channels that it may be promoted to later: what is signed now never changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_on: Vec<Channel>,
    /// Who may have it when; everybody at once where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Schedule>,
    /// What it runs on.
    pub platform: Platform,
    /// The oldest version that may update straight to it.
    #[serde(default, with = "version_text::optional")]
    pub min_from: Option<Version>,
    /// Release notes, at most [`super::MAX_NOTES_BYTES`].
    #[serde(default)]
    pub notes: Option<String>,
    /// Do not wait for maintenance windows.
    #[serde(default)]
    pub critical: bool,
    /// Check and pack, but sign and announce nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// zstd level for a packed directory, 1 to 19.
    pub level: i32,
}

/// A release to sign here and to have published by the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// Whose role is signed.
    pub product: Product,
    /// The release that is new; `None` only lets the role expire later.
    #[serde(default)]
    pub publish: Option<PublishRequest>,
    /// Absolute path of the publisher's key, or of a directory of keys, as the node sees it.
    pub keys: PathBuf,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<R> {
    /// How far the work is; only the newest matters.
    Progress(Progress),
    /// Something happened.
    Event(Event),
    /// So many events were lost because this client reads too slowly.
    Dropped(u64),
    /// Nothing to say, but the node is alive.
    Heartbeat {},
    /// The end: what was asked for.
    Result(R),
    /// The end: why not.
    Error(ErrorBody),
}

/// The end of a conversation that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusView>),
    /// To [`Request::Peers`].
    Peers(PeersView),
    /// To [`Request::Releases`].
    Releases(ReleasesView),
    /// To [`Request::Fetch`].
    Fetch(FetchView),
    /// To [`Request::Install`] and [`Request::Rollback`].
    Install(InstallView),
    /// To [`Request::Hold`] and [`Request::Unhold`].
    Hold(HoldView),
    /// To [`Request::History`].
    History(HistoryView),
    /// To [`Request::Ticket`].
    Ticket(TicketView),
    /// To [`Request::Publish`], and to [`Request::Push`] with a release.
    Publish(PublishView),
    /// To [`Request::Push`] without a release.
    Renew(RenewView),
    /// To [`Request::Apply`].
    Apply(ApplyView),
    /// To [`Request::Gc`].
    Gc(GcView),
    /// To [`Request::Channels`].
    Channels(ChannelsView),
    /// To [`Request::ChangeChannel`].
    ChannelChange(Box<ChannelChangeView>),
    /// To [`Request::Fleet`].
    Fleet(FleetView),
    /// To [`Request::Events`], [`Request::Unban`] and [`Request::TrustClock`].
    Done {},
}

/// How far long work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// What it waits for or works on, for people.
    pub text: Option<String>,
    /// Bytes of this phase that are done.
    pub bytes_done: u64,
    /// Bytes of this phase, where they are known.
    pub bytes_total: Option<u64>,
    /// Bytes that came from seeds.
    pub bytes_from_seed: u64,
    /// Bytes that came from peers.
    pub bytes_from_peers: u64,
    /// Bytes that were here already.
    pub bytes_reused: u64,
    /// The recent rate.
    pub rate_bytes_per_second: u64,
}

impl Progress {
    /// Work that moves no bytes over the network.
    pub fn local(phase: Phase, bytes_done: u64, bytes_total: Option<u64>) -> Self {
        Self {
            phase,
            text: None,
            bytes_done,
            bytes_total,
            bytes_from_seed: 0,
            bytes_from_peers: 0,
            bytes_reused: 0,
            rate_bytes_per_second: 0,
        }
    }
}

/// The kinds of long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for peers, metadata or a gate.
    Waiting,
    /// Reading or packing what is to be published.
    Packing,
    /// Hashing pieces.
    Hashing,
    /// Signing metadata.
    Signing,
    /// Telling the peers.
    Announcing,
    /// Getting pieces.
    Fetching,
    /// Checking what was got.
    Verifying,
    /// Unpacking into staging.
    Staging,
    /// Switching, and watching the new release.
    Switching,
    /// Writing the output file.
    Writing,
    /// Reaching the seed.
    Connecting,
    /// Asking the seed to take a release.
    Offering,
    /// Sending the artifact to the seed.
    Uploading,
    /// Anything that a newer node does.
    #[serde(other)]
    Other,
}

impl Phase {
    /// The phase as a word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Packing => "packing",
            Self::Hashing => "hashing",
            Self::Signing => "signing",
            Self::Announcing => "announcing",
            Self::Fetching => "fetching",
            Self::Verifying => "verifying",
            Self::Staging => "staging",
            Self::Switching => "switching",
            Self::Writing => "writing",
            Self::Connecting => "connecting",
            Self::Offering => "offering",
            Self::Uploading => "uploading",
            Self::Other => "working",
        }
    }
}

/// Something that happened on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one for each event of a node, across restarts.
    pub seq: u64,
    /// When.
    pub at: UtcTime,
    /// What, in snake case: `head_verified`, `install_committed`.
    pub kind: String,
    /// About which product.
    pub product: Option<Product>,
    /// About which version.
    pub version: Option<String>,
    /// About which peer.
    pub peer: Option<String>,
    /// The event in one sentence, for people.
    pub text: String,
    /// Whatever else the kind has to say.
    #[serde(default)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<R: Serialize>(line: &Line<R>) -> String {
        serde_json::to_string(line).expect("serializable")
    }

    #[test]
    fn requests_have_the_documented_form() {
        let request = Request::Fetch {
            product: "editor".parse().expect("a name"),
            version: Some(Version::new(1, 2, 3)),
            output: None,
        };
        let text = r#"{"fetch":{"product":"editor","version":"1.2.3","output":null}}"#;
        assert_eq!(serde_json::to_string(&request).expect("serializable"), text);
        assert_eq!(serde_json::from_str::<Request>(text).expect("decodes"), request);
        let short: Request =
            serde_json::from_str(r#"{"fetch":{"product":"editor"}}"#).expect("optional fields may be absent");
        assert!(matches!(short, Request::Fetch { version: None, output: None, .. }));
        assert_eq!(serde_json::to_string(&Request::Peers {}).expect("serializable"), r#"{"peers":{}}"#);
    }

    #[test]
    fn a_request_with_an_unknown_field_is_refused() {
        for text in [
            r#"{"status":{"explain":true,"deep":true}}"#,
            r#"{"peers":{"x":1}}"#,
            r#"{"publish":{"path":"/a","product":"a","version":"1.0.0","channel":"stable","platform":"any","level":9,"force":true}}"#,
            r#"{"explode":{}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_versions_are_checked_while_decoding() {
        for text in [
            r#"{"releases":{"product":"../etc"}}"#,
            r#"{"rollback":{"product":"editor","to":"1.0"}}"#,
            r#"{"history":{"product":"editor","limit":-1}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reply_lines_have_the_documented_form() {
        let progress = Progress { bytes_from_peers: 3, ..Progress::local(Phase::Fetching, 5, Some(10)) };
        assert_eq!(
            line::<Response>(&Line::Progress(progress)),
            r#"{"progress":{"phase":"fetching","text":null,"bytes_done":5,"bytes_total":10,"bytes_from_seed":0,"bytes_from_peers":3,"bytes_reused":0,"rate_bytes_per_second":0}}"#
        );
        let error = ErrorBody::new(ErrorCode::BlockedByPolicy, "no").with_hint("wait");
        assert_eq!(
            line::<Response>(&Line::Error(error)),
            r#"{"error":{"code":"blocked_by_policy","message":"no","hint":"wait"}}"#
        );
        assert_eq!(line::<Response>(&Line::Dropped(7)), r#"{"dropped":7}"#);
        assert_eq!(line::<Response>(&Line::Heartbeat {}), r#"{"heartbeat":{}}"#);
        assert_eq!(line(&Line::Result(Response::Done {})), r#"{"result":{}}"#);
    }

    #[test]
    fn an_event_has_the_documented_form() {
        let event = Event {
            seq: 12,
            at: UtcTime::from_unix(1_795_357_860),
            kind: "install_committed".to_owned(),
            product: Some("editor".parse().expect("a name")),
            version: Some("1.1.0".to_owned()),
            peer: None,
            text: "editor 1.1.0 runs".to_owned(),
            fields: serde_json::Map::new(),
        };
        let text = r#"{"seq":12,"at":"2026-11-22T14:31:00Z","kind":"install_committed","product":"editor","version":"1.1.0","peer":null,"text":"editor 1.1.0 runs","fields":{}}"#;
        assert_eq!(serde_json::to_string(&event).expect("serializable"), text);
        assert_eq!(serde_json::from_str::<Event>(text).expect("decodes"), event);
    }

    #[test]
    fn kinds_that_a_newer_node_invents_do_not_break_an_older_client() {
        assert_eq!(serde_json::from_str::<ErrorCode>("\"on_fire\"").expect("decodes"), ErrorCode::Error);
        assert_eq!(serde_json::from_str::<Phase>("\"patching\"").expect("decodes"), Phase::Other);
    }
}
