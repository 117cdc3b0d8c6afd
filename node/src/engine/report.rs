//! What the engine shows of itself: plain values for the control socket, the metrics and the HTTP
//! face. Reading never changes a decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::RepositoryId;

use super::catalog::CatalogView;
use super::fetch::{ByteCounts, LinkView, TransferView};
use super::input::Now;
use super::install::{InstallState, Subscription};
use super::limits::{InForce, Limits};
use super::peers::Session;
use super::plan::{Facts, Verdict, plan};
use super::supply::{Stage, object};
use super::{Engine, RateLimited};

/// One connected peer.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// The session.
    pub session: Session,
    /// Dialable addresses.
    pub addresses: Vec<String>,
    /// Bytes and objects.
    pub link: LinkView,
    /// Limits on rates do not hold for it.
    pub lan_exempt: bool,
}

impl Engine {
    /// The repository.
    pub fn repository(&self) -> RepositoryId {
        self.catalog.repository()
    }

    /// What this node runs on.
    pub fn platform(&self) -> &Platform {
        &self.config.platform
    }

    /// The signed set in force.
    pub fn catalog(&self) -> Option<&Arc<CatalogView>> {
        self.catalog.view()
    }

    /// The newest root's version; 0 while there is none.
    pub fn root_version(&self) -> u64 {
        self.catalog.root_version()
    }

    /// The head as gossiped.
    pub fn head(&self) -> Option<&Vec<u8>> {
        self.catalog.head()
    }

    /// All subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// All live sessions.
    pub fn peer_views(&self) -> Vec<PeerView> {
        self.peers
            .sessions()
            .iter()
            .map(|(peer, session)| PeerView {
                peer: peer.clone(),
                session: session.clone(),
                addresses: self.peers.addresses(peer),
                link: self.fetch.link_view(peer),
                lan_exempt: self.limits.exempts(&session.address),
            })
            .collect()
    }

    /// How many subscriptions are in each state.
    pub fn subscriptions_by_state(&self) -> Vec<(&'static str, u64)> {
        InstallState::ALL
            .into_iter()
            .map(|state| {
                let count = self.subscriptions.iter().filter(|subscription| subscription.state == state).count();
                (state.as_str(), count as u64)
            })
            .collect()
    }

    /// What neighbours asked too much of.
    pub fn rate_limited(&self) -> RateLimited {
        self.limited
    }

    /// Whether any download is under way.
    pub fn is_fetching(&self) -> bool {
        self.fetch.is_active()
    }

    /// Whether anything moves, so that the engine should hear of time often.
    pub fn is_busy(&self) -> bool {
        self.fetch.is_busy()
    }

    /// Live sessions whose hello was accepted.
    pub fn connected_peers(&self) -> usize {
        self.peers.ready().len()
    }

    /// Who has a session whose hello was accepted.
    pub fn ready_peers(&self) -> std::collections::BTreeSet<PeerId> {
        self.peers.ready().into_iter().collect()
    }

    /// Where an artifact's transfer stands; `None` where the store does not know it.
    pub fn transfer(&self, artifact: &Digest) -> Option<TransferView> {
        self.fetch.view(&object(artifact))
    }

    /// Bytes of all transfers together.
    pub fn transfer_totals(&self) -> ByteCounts {
        self.fetch.totals()
    }

    /// All transfers since the start whose artifacts are still here.
    pub fn transfers(&self) -> Vec<TransferView> {
        self.fetch.views()
    }

    /// Useful bytes of an artifact by who sent them.
    pub fn sources(&self, artifact: &Digest) -> BTreeMap<PeerId, u64> {
        self.fetch.sources(&object(artifact))
    }

    /// What was said about rates.
    pub fn limits(&self) -> &Limits {
        self.limits.limits()
    }

    /// The limits on rates that hold now.
    pub fn limits_in_force(&self) -> &InForce {
        self.limits.in_force()
    }

    /// Percent of one copy of each artifact that may leave this node.
    pub fn egress_budget_percent(&self) -> Option<u32> {
        self.fetch.budget_percent()
    }

    /// Whether every piece of an artifact is here and verified.
    pub fn holds(&self, artifact: &Digest) -> bool {
        self.fetch.is_complete(&object(artifact))
    }

    /// Why a wanted artifact is not on its way, in words; `None` while it is, or is not wanted.
    pub fn waiting_for(&self, artifact: &Digest) -> Option<String> {
        let supply = self.supplies.get(artifact)?;
        let peers = self.connected_peers();
        match &supply.stage {
            _ if peers == 0 => Some("no peer is connected".to_owned()),
            Stage::NeedManifest => Some(format!("asking {peers} peers for the piece list")),
            Stage::Opening => Some("making room in the store".to_owned()),
            Stage::Refused { reason, retry_at_ms: _ } => Some(format!("it cannot be stored: {reason}")),
            Stage::Fetching => {
                let view = self.transfer(artifact)?;
                if let Some(reason) = view.stopped {
                    return Some(format!("it cannot be stored: {reason}"));
                }
                if view.holders == 0 {
                    return Some(format!("none of {peers} connected peers has a piece of it yet"));
                }
                self.download_pause()
            }
            Stage::Complete => None,
        }
    }

    /// Which release a caller of `GET /update` may have now: the same gates as for a subscriber.
    pub fn offer(view: &CatalogView, caller: &Caller<'_>, now: UtcTime) -> Option<Arc<Release>> {
        let facts = Facts {
            product: caller.product,
            channel: caller.channel,
            platform: caller.platform,
            installed: caller.version,
            node_id: caller.id.map(str::as_bytes),
            quarantine: None,
            hurry: None,
            holds: None,
            disk: None,
            window: None,
        };
        let decision = plan(view, &facts, now);
        decision.offered.filter(|_| decision.verdict == Verdict::Install)
    }

    /// Seconds since the head was signed.
    pub fn head_age_s(&self, now: Now) -> Option<i64> {
        let signed_at = self.catalog.view()?.trusted.timestamp()?.signed_at?;
        Some(now.wall.seconds_since(signed_at))
    }
}

/// Somebody who asks for an update over HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The product.
    pub product: &'a Product,
    /// The channel followed.
    pub channel: &'a Channel,
    /// What the caller runs on.
    pub platform: &'a Platform,
    /// What it has.
    pub version: Option<&'a semver::Version>,
    /// Places it in a rollout.
    pub id: Option<&'a str>,
}
