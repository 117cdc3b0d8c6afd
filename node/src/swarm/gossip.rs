//! How heads spread: one topic per repository, forwarded only after the engine's verdict.
//!
//! Payloads are signed metadata, so that messages carry neither author nor signature of their own;
//! a message's id is the digest of its payload, the same at every node. The peer score knows one
//! offence, a head that the engine rejected. Everything else that gossipsub can score (delivery
//! rates, many peers behind one address, slowness) would punish small fleets, fleets behind one NAT
//! and fleets that have nothing to say for weeks.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAcceptance, MessageAuthenticity,
    MessageId, PeerScoreParams, PeerScoreThresholds, PublishError, TopicHash, TopicScoreParams, ValidationMode,
    WhitelistSubscriptionFilter, score_parameter_decay,
};
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_HEAD_BYTES;

use crate::engine::effect::GossipVerdict;

/// Bytes of one gossipsub frame: a head and what surrounds it, or a batch of control messages.
const MAX_FRAME_BYTES: usize = 2 * MAX_HEAD_BYTES;
/// A head seen is not taken again for this long; then a repetition spreads once more.
const DUPLICATE_CACHE: Duration = Duration::from_secs(600);
/// Rejected heads are forgiven after about this time.
const FORGIVENESS: Duration = Duration::from_secs(600);
/// What the first rejected head costs; the third (9 times as much) silences the peer.
const REJECTION_WEIGHT: f64 = -10.0;

/// Gossip about one repository: other topics do not even cost memory.
pub(super) type Gossipsub = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// The topic on which the heads of a repository travel.
pub(super) fn topic(repository: &Digest) -> IdentTopic {
    IdentTopic::new(format!("/updraft/1/{repository}/head"))
}

/// The id of a message, the same wherever it is seen.
fn message_id(message: &Message) -> MessageId {
    MessageId::new(Digest::of(&message.data).as_bytes())
}

/// Gossip, subscribed to the topic of `repository`.
pub(super) fn behaviour(repository: &Digest) -> Result<Gossipsub, String> {
    let topic = topic(repository);
    let config = ConfigBuilder::default()
        .heartbeat_interval(Duration::from_secs(1))
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(MAX_FRAME_BYTES)
        .duplicate_cache_time(DUPLICATE_CACHE)
        .flood_publish(true)
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut gossipsub = Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .map_err(ToOwned::to_owned)?;
    gossipsub.with_peer_score(score(topic.hash()), thresholds())?;
    gossipsub.subscribe(&topic).map_err(|error| error.to_string())?;
    Ok(gossipsub)
}

/// A score that falls with the square of the number of rejected heads, and for no other reason.
fn score(topic: TopicHash) -> PeerScoreParams {
    let rejections_only = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: REJECTION_WEIGHT,
        invalid_message_deliveries_decay: score_parameter_decay(FORGIVENESS),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: [(topic, rejections_only)].into(),
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        retain_score: FORGIVENESS,
        ..PeerScoreParams::default()
    }
}

/// One rejected head: no more gossip with that peer for a while. Three: it is not heard at all.
fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -5.0,
        publish_threshold: -50.0,
        graylist_threshold: -80.0,
        accept_px_threshold: 0.0,
        opportunistic_graft_threshold: 0.0,
    }
}

/// Gossips a head of our own. Nobody there, or said a moment ago, is no failure: every new session
/// exchanges heads, and the engine repeats itself.
pub(super) fn publish(gossipsub: &mut Gossipsub, topic: &IdentTopic, payload: Vec<u8>) {
    match gossipsub.publish(topic.hash(), payload) {
        Ok(_) | Err(PublishError::Duplicate | PublishError::NoPeersSubscribedToTopic) => {}
        Err(error) => tracing::warn!(%error, "a head was not gossiped"),
    }
}

/// Carries out the engine's verdict. A message that was forgotten meanwhile is not forwarded.
pub(super) fn judge(gossipsub: &mut Gossipsub, message: &[u8], source: &PeerId, verdict: GossipVerdict) {
    let acceptance = match verdict {
        GossipVerdict::Accept => MessageAcceptance::Accept,
        GossipVerdict::Ignore => MessageAcceptance::Ignore,
        GossipVerdict::Reject => MessageAcceptance::Reject,
    };
    let known = gossipsub.report_message_validation_result(&MessageId::new(message), source, acceptance);
    if !known {
        tracing::debug!(%source, "a verdict came after the message was forgotten");
    }
}
