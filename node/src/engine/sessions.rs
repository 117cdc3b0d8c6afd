//! What arrives from the network, one input at a time: sessions, control messages, blocks.

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{Control, Hello};

use super::catalog::Blame;
use super::effect::{Effect, EventKind, GossipVerdict, SwarmEffect};
use super::fetch::{News, Outcome};
use super::input::{DiscoverySource, Now, SwarmInput};
use super::peers::Tie;
use super::{Engine, MAX_FAULTS};

/// What a peer says it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) root_version: u64,
    pub(super) timestamp_version: u64,
    pub(super) timestamp_sha256: Option<Digest>,
}

impl Heard {
    fn of(hello: &Hello) -> Self {
        Self {
            root_version: hello.root_version,
            timestamp_version: hello.timestamp_version,
            timestamp_sha256: hello.timestamp_sha256,
        }
    }
}

impl Engine {
    pub(super) fn swarm(&mut self, input: SwarmInput, now: Now) {
        match input {
            SwarmInput::ListenerClosed { .. } => {}
            // A block that was cancelled may already be on its way; the shell bounds how many.
            SwarmInput::BlockUnsolicited { peer, block } => self.fetch.unsolicited(&peer, block),
            SwarmInput::Listening { address } => self.limits.listening(&address),
            SwarmInput::Connected { peer, address, outbound } => self.connected(&peer, address, outbound, now),
            SwarmInput::Disconnected { peer, reason } => {
                self.peers.disconnected(&peer, now.mono_ms);
                self.wants.disconnected(&peer);
                self.offers_disconnected(&peer);
                self.outcomes_disconnected(&peer);
                let outcome = self.fetch.disconnected(&peer, now.mono_ms);
                self.absorb(outcome, now);
                self.tell(EventKind::PeerDisconnected, Some(&peer), reason);
            }
            SwarmInput::DialFailed { peer, addresses, .. } => {
                self.peers.dial_failed(peer.as_ref(), &addresses, now.mono_ms);
            }
            SwarmInput::Discovered { peer, addresses, source } => {
                if source == DiscoverySource::Identify {
                    self.peers.identified(&peer, &addresses);
                } else {
                    self.peers.discovered(&peer, &addresses);
                }
                if source == DiscoverySource::Identify && self.peers.is_ready(&peer) {
                    self.introduce(&peer, now);
                }
            }
            SwarmInput::Control { peer, message } => self.control(&peer, message, now),
            SwarmInput::BlockArrived { peer, object, block, outcome } => {
                let outcome = self.fetch.block_arrived(&peer, object, block, outcome, now.mono_ms);
                self.absorb(outcome, now);
            }
            SwarmInput::Lied { peer, piece, .. } => {
                self.ban(&peer, &format!("sent piece {piece}, or a part of it, which is not what was signed"), now);
            }
            SwarmInput::BlockSent { peer, object, block } => {
                let outcome = self.fetch.block_sent(&peer, object, block, now.mono_ms);
                self.absorb(outcome, now);
            }
            SwarmInput::BlockUnreadable { peer, object, block, reason } => {
                let outcome = self.fetch.block_unreadable(&peer, object, block, now.mono_ms);
                self.absorb(outcome, now);
                // What was removed while it waited to be sent is no sign of a bad disk.
                if self.fetch.contains(&object) {
                    self.check_artifact(object.digest, &reason, now);
                }
            }
            SwarmInput::Gossip { message, peer, payload } => {
                if !self.hears_head(&peer, &payload, now) {
                    self.push(SwarmEffect::GossipVerdict { message, peer, verdict: GossipVerdict::Ignore });
                    return;
                }
                let (verdict, change) = self.catalog.judge(&payload, now.wall);
                self.push(SwarmEffect::GossipVerdict { message, peer: peer.clone(), verdict });
                self.catalog_changed(change, Some(&peer), false, now);
            }
            SwarmInput::MetaAsked { channel, peer, request } => self.meta_asked(channel, &peer, request, now),
            SwarmInput::MetaAnswered { request_id, peer, result } => {
                self.meta_answered(request_id, &peer, result, now);
            }
        }
    }

    pub(super) fn hello(&self) -> Control {
        Control::Hello(Hello {
            repository: self.config.repository.0.as_bytes().to_vec(),
            agent: self.config.agent.clone(),
            features: Vec::new(),
            root_version: self.catalog.root_version(),
            timestamp_version: self.catalog.timestamp_version(),
            timestamp_sha256: self.catalog.timestamp_sha256(),
            seed: self.config.is_seed,
            credential: None,
        })
    }

    pub(super) fn connected(&mut self, peer: &PeerId, address: String, outbound: bool, now: Now) {
        if self.peers.is_banned(peer) {
            self.push(SwarmEffect::Disconnect { peer: peer.clone() });
            return;
        }
        self.tell(EventKind::PeerConnected, Some(peer), format!("connected at {address}"));
        self.peers.connected(peer, address, outbound, now.mono_ms);
        let message = self.hello();
        self.push(SwarmEffect::Control { peer: peer.clone(), message });
    }

    pub(super) fn control(&mut self, peer: &PeerId, message: Control, now: Now) {
        match message {
            Control::Hello(hello) => {
                let seed = hello.seed;
                let heard = Heard::of(&hello);
                if let Err(reason) = self.peers.hello(peer, hello) {
                    let message = Control::Goodbye { reason: reason.clone() };
                    self.push(SwarmEffect::Control { peer: peer.clone(), message });
                    self.push(SwarmEffect::Disconnect { peer: peer.clone() });
                    return;
                }
                self.introduce(peer, now);
                self.heard_head(peer, heard, now);
                self.spread_evidence(Some(peer));
                let outcome = self.fetch.connected(peer, seed);
                self.place(peer);
                self.absorb(outcome, now);
                self.outcomes_connected(peer, now);
            }
            _ if !self.peers.is_ready(peer) => self.fault(peer, "spoke before its hello", now),
            Control::Head { root_version, timestamp_version, timestamp_sha256 } => {
                self.heard_head(peer, Heard { root_version, timestamp_version, timestamp_sha256 }, now);
            }
            Control::Evidence { sha256 } => self.heard_evidence(peer, sha256),
            Control::Report(report) => self.heard_report(peer, &report, now),
            Control::Reported { numbers } => self.reported(peer, &numbers),
            Control::Peers(records) => {
                let alone = records.len() == 1;
                for record in records {
                    self.peers.heard_of(peer, &record.peer, &record.addresses, alone, now.mono_ms);
                }
                for effect in self.peers.dials(now.mono_ms) {
                    self.push(effect);
                }
            }
            Control::Goodbye { .. } => {
                self.peers.parted(peer, now.mono_ms);
                self.push(SwarmEffect::Disconnect { peer: peer.clone() });
            }
            Control::Unknown => {}
            message => {
                let outcome = self.fetch.control(peer, message, now.mono_ms);
                self.absorb(outcome, now);
            }
        }
    }

    /// Makes a peer known to others and to the next start. Its hello and its addresses arrive in
    /// either order, so this is done at both.
    pub(super) fn introduce(&mut self, peer: &PeerId, now: Now) {
        for effect in self.peers.introduce(peer, now.mono_ms) {
            self.push(effect);
        }
        if let Some(addresses) = self.peers.write_down(peer) {
            self.push(Effect::RememberPeer { peer: peer.clone(), addresses });
        }
    }

    /// Parts from neighbours that this node can spare, and looks for one in place of another.
    pub(super) fn tend_neighbours(&mut self, now: Now) {
        let (fetch, offers) = (&self.fetch, &self.offers);
        let tie = |peer: &PeerId| match () {
            () if offers.concerns(peer) => Tie::Bound,
            () if fetch.carries(peer) => Tie::Busy,
            () => Tie::Idle,
        };
        for peer in self.peers.let_go(now.mono_ms, tie) {
            let message = Control::Goodbye { reason: "this node has enough neighbours".to_owned() };
            self.push(SwarmEffect::Control { peer: peer.clone(), message });
            self.push(SwarmEffect::Disconnect { peer });
        }
        if let Some(dial) = self.peers.rotate(now.mono_ms) {
            self.push(dial);
        }
        if self.offers.is_offering() || self.outcomes_need_seed(now) {
            for dial in self.peers.seek_seed(now.mono_ms) {
                self.push(dial);
            }
        }
    }

    /// A peer has this root and this head, as it says.
    pub(super) fn heard_head(&mut self, peer: &PeerId, heard: Heard, now: Now) {
        self.peers.heard_head(peer, heard.root_version, heard.timestamp_version);
        let next = self.catalog.root_version().saturating_add(1);
        if heard.root_version >= next && self.peers.may_be_asked_for_root(peer, next, now.mono_ms) {
            self.wants.add(MetaFile::Root { version: next }, Some(peer));
        }
        let newer = heard.timestamp_version > self.catalog.timestamp_version();
        let other = heard.timestamp_sha256.is_some_and(|sha256| {
            heard.root_version == self.catalog.root_version()
                && self.catalog.tells_otherwise(heard.timestamp_version, &sha256)
        });
        if (newer || other) && self.catalog.view().is_some() {
            self.wants.add(MetaFile::Head, Some(peer));
        }
    }

    /// Whether a gossiped head is looked at: what costs a check of signatures is bounded by neighbour. A
    /// head that is passed over may be the newest, and no copy of it will come again: it is asked for.
    fn hears_head(&mut self, peer: &PeerId, payload: &[u8], now: Now) -> bool {
        if self.catalog.head().is_some_and(|head| head == payload) {
            return true;
        }
        let Some(session) = self.peers.session_mut(peer) else { return true };
        if session.heads.take(1, now.mono_ms) {
            return true;
        }
        self.limited.heads += 1;
        if self.catalog.view().is_some() {
            self.wants.add(MetaFile::Head, None);
        }
        false
    }

    pub(super) fn blame(&mut self, peer: &PeerId, blame: &Blame, now: Now) {
        if blame.is_lie {
            self.ban(peer, &blame.reason, now);
        } else {
            self.fault(peer, &blame.reason, now);
        }
    }

    /// Counts what may be bad luck. A session with too much of it ends; the peer may come again.
    pub(super) fn fault(&mut self, peer: &PeerId, what: &str, now: Now) {
        if self.peers.fault(peer, MAX_FAULTS) {
            self.peers.rest(peer, now.mono_ms);
            self.push(SwarmEffect::Disconnect { peer: peer.clone() });
            self.tell(
                EventKind::PeerBlamed,
                Some(peer),
                format!("parted from after {MAX_FAULTS} faults; at last it {what}"),
            );
        }
    }

    pub(super) fn absorb(&mut self, outcome: Outcome, now: Now) {
        self.effects.extend(outcome.effects.into_iter().map(Effect::Swarm));
        for news in outcome.news {
            match news {
                News::Complete(object) => self.artifact_complete(&object.digest, now),
                News::Holders { peers } => {
                    self.peers.prefer(&peers);
                    for effect in self.peers.dials(now.mono_ms) {
                        self.push(effect);
                    }
                }
                News::Misbehaved { peer, what } => self.fault(&peer, what, now),
                News::Stopped { object, reason } => {
                    self.offered_artifact_failed(&object.digest, &reason, now);
                    self.supplies.refused(&object.digest, reason.clone(), now.mono_ms);
                    self.tell(EventKind::FetchStopped, None, format!("{}: {reason}", object.digest.short()));
                }
            }
        }
    }
}
