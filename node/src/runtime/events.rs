//! What happened lately, and who wants to know.

use std::collections::VecDeque;

use updraft_protocol::time::UtcTime;

use crate::control::messages;
use crate::control::reply::ReplySender;
use crate::engine::effect::{Event, EventKind};

/// Events that are remembered for those who ask later.
const REMEMBERED: usize = 1_000;
/// Sequence numbers start at the time of start in seconds times this: later starts count on higher.
const PER_SECOND: u64 = 1_000;

/// The last events and the followers.
#[derive(Debug)]
pub(super) struct Events {
    recent: VecDeque<messages::Event>,
    followers: Vec<ReplySender>,
    next: u64,
    pub(super) installs_committed: u64,
    pub(super) installs_rolled_back: u64,
    pub(super) heads_accepted: u64,
    pub(super) heads_rejected: u64,
    pub(super) releases_altered: u64,
}

impl Events {
    pub(super) fn new(now: UtcTime) -> Self {
        Self {
            recent: VecDeque::new(),
            followers: Vec::new(),
            next: u64::try_from(now.unix()).unwrap_or(0) * PER_SECOND,
            installs_committed: 0,
            installs_rolled_back: 0,
            heads_accepted: 0,
            heads_rejected: 0,
            releases_altered: 0,
        }
    }

    pub(super) fn add(&mut self, event: &Event, now: UtcTime) -> messages::Event {
        match event.kind {
            EventKind::Installed => self.installs_committed += 1,
            EventKind::RolledBack => self.installs_rolled_back += 1,
            EventKind::HeadVerified => self.heads_accepted += 1,
            EventKind::ReleaseAltered => self.releases_altered += 1,
            _ => {}
        }
        self.next += 1;
        let shown = messages::Event {
            seq: self.next,
            at: now,
            kind: event.kind.as_str().to_owned(),
            product: event.product.clone(),
            version: event.version.as_ref().map(ToString::to_string),
            peer: event.peer.as_ref().map(ToString::to_string),
            text: event.text.clone(),
            fields: serde_json::Map::new(),
        };
        self.followers.retain(|follower| !follower.is_closed());
        for follower in &self.followers {
            follower.event(shown.clone());
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(shown.clone());
        shown
    }

    /// Sends what is remembered after `since`; goes on with what comes where `follow` says so, else
    /// gives the client back to be told the end.
    pub(super) fn replay(&mut self, reply: ReplySender, follow: bool, since: Option<u64>) -> Option<ReplySender> {
        for event in self.recent.iter().filter(|event| since.is_none_or(|since| event.seq > since)) {
            reply.event(event.clone());
        }
        if follow {
            self.followers.push(reply);
            return None;
        }
        Some(reply)
    }
}
