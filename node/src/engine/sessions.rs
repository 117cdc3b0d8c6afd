//! What arrives from the network, one input at a time: sessions, control messages, blocks.

use updraft_protocol::meta::MetaFile;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{Control, Hello};

use super::effect::{Effect, EventKind, SwarmEffect};
use super::fetch::{News, Outcome};
use super::input::{DiscoverySource, Now, SwarmInput};
use super::{Engine, MAX_FAULTS};

impl Engine {
    pub(super) fn swarm(&mut self, input: SwarmInput, now: Now) {
        match input {
            // A block that was cancelled may already be on its way; the shell bounds how many.
            SwarmInput::Listening { .. } | SwarmInput::ListenerClosed { .. } | SwarmInput::BlockUnsolicited { .. } => {}
            SwarmInput::Connected { peer, address, outbound } => self.connected(&peer, address, outbound, now),
            SwarmInput::Disconnected { peer, reason } => {
                self.peers.disconnected(&peer, now.mono_ms);
                self.wants.disconnected(&peer);
                self.offers_disconnected(&peer);
                let outcome = self.fetch.disconnected(&peer, now.mono_ms);
                self.absorb(outcome, now);
                self.tell(EventKind::PeerDisconnected, Some(&peer), reason);
            }
            SwarmInput::DialFailed { peer, addresses, .. } => {
                self.peers.dial_failed(peer.as_ref(), &addresses, now.mono_ms);
            }
            SwarmInput::Discovered { peer, addresses, source } => {
                self.peers.discovered(&peer, &addresses);
                if source == DiscoverySource::Identify && self.peers.is_ready(&peer) {
                    self.introduce(&peer);
                }
            }
            SwarmInput::Control { peer, message } => self.control(&peer, message, now),
            SwarmInput::BlockArrived { peer, object, block, outcome } => {
                let outcome = self.fetch.block_arrived(&peer, object, block, outcome, now.mono_ms);
                self.absorb(outcome, now);
            }
            SwarmInput::BlockSent { peer, object, block } => {
                self.fetch.block_sent(&peer, object, block, now.mono_ms);
            }
            SwarmInput::BlockUnreadable { peer, object, block, reason } => {
                let outcome = self.fetch.block_unreadable(&peer, object, block);
                self.absorb(outcome, now);
                self.tell(EventKind::Alarm, None, format!("a stored block cannot be read: {reason}"));
            }
            SwarmInput::Gossip { message, peer, payload } => {
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
            seed: self.config.is_seed,
            credential: None,
        })
    }

    pub(super) fn connected(&mut self, peer: &PeerId, address: String, outbound: bool, now: Now) {
        self.tell(EventKind::PeerConnected, Some(peer), format!("connected at {address}"));
        self.peers.connected(peer, address, outbound, now.mono_ms);
        let message = self.hello();
        self.push(SwarmEffect::Control { peer: peer.clone(), message });
    }

    pub(super) fn control(&mut self, peer: &PeerId, message: Control, now: Now) {
        match message {
            Control::Hello(hello) => {
                let (root_version, timestamp_version, seed) = (hello.root_version, hello.timestamp_version, hello.seed);
                if let Err(reason) = self.peers.hello(peer, hello) {
                    let message = Control::Goodbye { reason: reason.clone() };
                    self.push(SwarmEffect::Control { peer: peer.clone(), message });
                    self.push(SwarmEffect::Disconnect { peer: peer.clone() });
                    return;
                }
                self.introduce(peer);
                self.heard_head(peer, root_version, timestamp_version);
                let outcome = self.fetch.connected(peer, seed);
                self.absorb(outcome, now);
            }
            _ if !self.peers.is_ready(peer) => self.fault(peer, "spoke before its hello"),
            Control::Head { root_version, timestamp_version } => {
                self.heard_head(peer, root_version, timestamp_version);
            }
            Control::Peers(records) => {
                for record in records {
                    self.peers.discovered(&record.peer, &record.addresses);
                }
                for effect in self.peers.dials(now.mono_ms) {
                    self.push(effect);
                }
            }
            Control::Goodbye { .. } => self.push(SwarmEffect::Disconnect { peer: peer.clone() }),
            Control::Unknown => {}
            message => {
                let outcome = self.fetch.control(peer, message, now.mono_ms);
                self.absorb(outcome, now);
            }
        }
    }

    /// Makes a peer known to others and to the next start. Its hello and its addresses arrive in
    /// either order, so this is done at both.
    pub(super) fn introduce(&mut self, peer: &PeerId) {
        for effect in self.peers.introduce(peer) {
            self.push(effect);
        }
        let addresses = self.peers.addresses(peer);
        if !addresses.is_empty() {
            self.push(Effect::RememberPeer { peer: peer.clone(), addresses });
        }
    }

    pub(super) fn heard_head(&mut self, peer: &PeerId, root_version: u64, timestamp_version: u64) {
        self.peers.heard_head(peer, root_version, timestamp_version);
        if root_version > self.catalog.root_version() {
            self.wants.add(MetaFile::Root { version: self.catalog.root_version() + 1 }, Some(peer));
        }
        if timestamp_version > self.catalog.timestamp_version() && self.catalog.view().is_some() {
            self.wants.add(MetaFile::Head, Some(peer));
        }
    }

    pub(super) fn fault(&mut self, peer: &PeerId, what: &str) {
        if self.peers.fault(peer, MAX_FAULTS) {
            self.ban(peer, what);
        }
    }

    pub(super) fn ban(&mut self, peer: &PeerId, why: &str) {
        self.peers.ban(peer);
        self.push(SwarmEffect::Ban { peer: peer.clone() });
        self.tell(EventKind::PeerBlamed, Some(peer), format!("banned: it {why}"));
    }

    pub(super) fn absorb(&mut self, outcome: Outcome, now: Now) {
        self.effects.extend(outcome.effects.into_iter().map(Effect::Swarm));
        for news in outcome.news {
            match news {
                News::Complete(object) => self.artifact_complete(&object.digest, now),
                News::Poisoned { peer, piece, .. } => {
                    self.ban(&peer, &format!("sent piece {piece}, which is not what was signed"));
                }
                News::Misbehaved { peer, what } => self.fault(&peer, what),
                News::Stopped { object, reason } => {
                    self.offered_artifact_failed(&object.digest, &reason, now);
                    self.supplies.refused(&object.digest, reason.clone(), now.mono_ms);
                    self.tell(EventKind::FetchStopped, None, format!("{}: {reason}", object.digest.short()));
                }
            }
        }
    }
}
