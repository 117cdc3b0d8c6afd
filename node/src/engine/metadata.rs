//! Heads and metadata files: asked for, answered, judged and taken over.

use std::collections::BTreeSet;

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::Control;

use super::bans::is_wrong_file;
use super::catalog::Blame;
use super::effect::{self, Effect, EventKind, SwarmEffect};
use super::input::Now;
use super::sessions::Heard;
use super::{ANNOUNCE_MS, Engine, catalog, evidence};

impl Engine {
    pub(super) fn meta_asked(&mut self, channel: u64, peer: &PeerId, request: MetaRequest, now: Now) {
        let foreign = request.repository != self.config.repository.0;
        if foreign || !self.peers.sessions().contains_key(peer) {
            let reason = "this node does not serve that repository to you".to_owned();
            self.push(SwarmEffect::MetaAnswer { channel, response: MetaResponse::Refused { reason } });
            return;
        }
        let granted = self.peers.session_mut(peer).is_some_and(|session| session.requests.take(1, now.mono_ms));
        if !granted {
            self.limited.requests += 1;
            let reason = "too many requests; ask others, or again in a moment".to_owned();
            self.push(SwarmEffect::MetaAnswer { channel, response: MetaResponse::Refused { reason } });
            return;
        }
        if let Some(file) = self.offered_role(peer, &request.file) {
            self.push(SwarmEffect::MetaAnswer { channel, response: MetaResponse::File(file) });
            return;
        }
        let known = match request.file {
            MetaFile::Head => self.catalog.head(),
            MetaFile::Evidence { sha256 } => self.catalog.evidence(&sha256),
            MetaFile::Offer(offer) => return self.offer_heard(channel, peer, offer, now),
            file => return self.push(Effect::AnswerFromStore { channel, file }),
        };
        let response = known.cloned().map_or(MetaResponse::NotFound, MetaResponse::File);
        self.push(SwarmEffect::MetaAnswer { channel, response });
    }

    pub(super) fn meta_answered(
        &mut self,
        request_id: u64,
        peer: &PeerId,
        result: Result<MetaResponse, String>,
        now: Now,
    ) {
        if self.offer_answered(request_id, peer, &result, now) {
            return;
        }
        let Some(file) = self.wants.answered(request_id, peer) else { return };
        let bytes = match result {
            Ok(MetaResponse::File(bytes)) => bytes,
            // Nobody is obliged to know a next root or a newer head, but for who said so.
            Ok(answer) => {
                let optional = matches!(file, MetaFile::Root { .. } | MetaFile::Head | MetaFile::Evidence { .. });
                // What a joiner lacks it goes on asking for, and of others.
                if optional && self.catalog.view().is_some() && !self.catalog.needs().contains(&file) {
                    self.wants.give_up(&file, peer);
                }
                if let MetaFile::Root { version } = file
                    && answer == MetaResponse::NotFound
                    && self.peers.claims_root(peer, version)
                {
                    self.fault(peer, &format!("claims to check with root {version} and does not have it"), now);
                }
                return;
            }
            // That a request failed says nothing about the file: it is asked for again.
            Err(_) => return,
        };
        let is_wrong = is_wrong_file(&file, &bytes);
        if let Err(blame) = self.take_file(&file, &bytes, Some(peer), now) {
            let reason = format!("answered with a wrong file: {}", blame.reason);
            self.blame(peer, &Blame { reason, is_lie: blame.is_lie || is_wrong }, now);
        }
    }

    pub(super) fn take_file(
        &mut self,
        file: &MetaFile,
        bytes: &[u8],
        peer: Option<&PeerId>,
        now: Now,
    ) -> Result<(), Blame> {
        if let MetaFile::Manifest { sha256 } = file {
            let manifest = self.supplies.manifest_arrived(sha256, bytes)?;
            self.wants.remove(file);
            self.open(&manifest);
            return Ok(());
        }
        let change = self.catalog.file(file, bytes, now.wall)?;
        self.wants.remove(file);
        self.catalog_changed(change, peer, *file == MetaFile::Head, now);
        Ok(())
    }

    pub(super) fn catalog_changed(&mut self, change: catalog::Change, peer: Option<&PeerId>, regossip: bool, now: Now) {
        if !change.save.is_empty() {
            self.push(Effect::Save(change.save));
        }
        for file in change.wants {
            self.wants.add(file, peer);
        }
        for contradiction in &change.contradictions {
            self.tell(EventKind::Equivocation, peer, evidence::alarm(contradiction));
        }
        for role in &change.cleared {
            let text = format!("the {role} key was replaced: what was signed twice with the old one no longer matters");
            self.tell(EventKind::EquivocationCleared, peer, text);
        }
        if !change.contradictions.is_empty() {
            self.spread_evidence(None);
            self.review(now);
        }
        if let Some(peer) = peer {
            if change.sender_is_behind {
                self.help(peer, now);
            }
            if let Some(version) = change.claimed_root {
                let heard = Heard { root_version: version, timestamp_version: 0, timestamp_sha256: None };
                self.heard_head(peer, heard, now);
            }
        }
        for (kind, text) in change.notices {
            self.tell(kind, None, text);
        }
        if let (Some(blame), Some(peer)) = (change.blame, peer) {
            self.blame(peer, &blame, now);
        }
        if let Some(version) = change.head_verified {
            self.tell(EventKind::HeadVerified, peer, format!("head {version} verified"));
            if peer.is_some() && self.config.is_seed && self.adoption.is_done() {
                let text = format!(
                    "head {version} is validly signed and was not signed here: another seed runs with these keys, or somebody stole them; replace the online keys (updraft key rotate) unless this seed was just restored from a backup"
                );
                self.tell(EventKind::Alarm, peer, text);
            }
            self.resign_asked_ms = None;
        }
        if change.replaced {
            let needs: BTreeSet<MetaFile> = self.catalog.needs().into_iter().collect();
            self.wants.retain(|file| match file {
                MetaFile::Role { .. } | MetaFile::Target { .. } => needs.contains(file),
                MetaFile::Head
                | MetaFile::Root { .. }
                | MetaFile::Manifest { .. }
                | MetaFile::Evidence { .. }
                | MetaFile::Offer(_) => true,
            });
            let version = self.catalog.timestamp_version();
            if version > 0 {
                self.tell(EventKind::CatalogUpdated, peer, format!("catalog of head {version} in force"));
            }
            // A head that came by asking was missed by gossip here, and perhaps by neighbours too.
            if let Some(payload) = self.catalog.head().cloned().filter(|_| regossip) {
                self.push(SwarmEffect::PublishHead { payload });
            }
            self.review(now);
        }
    }

    pub(super) fn published(&mut self, head: &[u8], files: &[(MetaFile, Vec<u8>)], now: Now) {
        for (file, bytes) in files.iter().filter(|(file, _)| matches!(file, MetaFile::Root { .. })) {
            if let Err(blame) = self.take_file(file, bytes, None, now) {
                let text = format!("the root that was just made does not verify: {}", blame.reason);
                self.tell(EventKind::Alarm, None, text);
            }
        }
        let (verdict, change) = self.catalog.judge(head, now.wall);
        self.catalog_changed(change, None, false, now);
        // Files that the head carried inline are there already. What else is needed shows as delegators
        // arrive, so that no order of `files` is asked for.
        let mut taken = BTreeSet::new();
        loop {
            let needs = self.catalog.needs();
            let next = files.iter().find(|(file, _)| needs.contains(file) && !taken.contains(file));
            let Some((file, bytes)) = next else { break };
            taken.insert(file.clone());
            if let Err(blame) = self.take_file(file, bytes, None, now) {
                let text = format!("a file that was just signed does not verify: {}", blame.reason);
                self.tell(EventKind::Alarm, None, text);
            }
        }
        if verdict == effect::GossipVerdict::Accept
            && let Some(payload) = self.catalog.head().cloned()
        {
            self.push(SwarmEffect::PublishHead { payload });
            self.announce_at_ms = now.mono_ms + ANNOUNCE_MS;
        }
    }

    /// Tells a neighbour that is behind what there is: it fetches what it lacks. Once in a while: a
    /// neighbour that goes on sending old heads is not worth more.
    fn help(&mut self, peer: &PeerId, now: Now) {
        if self.peers.may_be_helped(peer, now.mono_ms) {
            let message = self.head_hint();
            self.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
    }

    /// What this node has, for a neighbour that may lack it.
    pub(super) fn head_hint(&self) -> Control {
        Control::Head {
            root_version: self.catalog.root_version(),
            timestamp_version: self.catalog.timestamp_version(),
            timestamp_sha256: self.catalog.timestamp_sha256(),
        }
    }

    /// Tells neighbours, or one, what evidence there is. They fetch what they lack, check it, and tell
    /// theirs.
    pub(super) fn spread_evidence(&mut self, to: Option<&PeerId>) {
        let sha256 = self.catalog.evidence_ids();
        if sha256.is_empty() {
            return;
        }
        let to = to.map_or_else(|| self.peers.ready(), |peer| vec![peer.clone()]);
        for peer in to {
            let message = Control::Evidence { sha256: sha256.clone() };
            self.push(SwarmEffect::Control { peer, message });
        }
    }

    /// A neighbour holds this evidence.
    pub(super) fn heard_evidence(&mut self, peer: &PeerId, ids: Vec<Digest>) {
        for sha256 in ids {
            if self.catalog.wants_evidence(&sha256) {
                self.wants.add(MetaFile::Evidence { sha256 }, Some(peer));
            }
        }
    }

    /// Sends the requests for wanted files that are due.
    pub(super) fn ask(&mut self, now: Now) {
        if self.wants.is_empty() {
            return;
        }
        let ready = self.peers.ready();
        for ask in self.wants.asks(&ready, now.mono_ms) {
            let request = MetaRequest { repository: self.config.repository.0, file: ask.file };
            self.push(SwarmEffect::MetaAsk { request_id: ask.request_id, peer: ask.peer, request });
        }
    }
}
