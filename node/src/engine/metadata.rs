//! Heads and metadata files: asked for, answered, judged and taken over.

use std::collections::BTreeSet;

use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::peer::PeerId;

use super::effect::{self, Effect, EventKind, SwarmEffect};
use super::input::Now;
use super::supply::Stage;
use super::{ANNOUNCE_MS, Engine, catalog};

impl Engine {
    pub(super) fn meta_asked(&mut self, channel: u64, peer: &PeerId, request: MetaRequest) {
        let foreign = request.repository != self.config.repository.0;
        if foreign || !self.peers.sessions().contains_key(peer) {
            let reason = "this node does not serve that repository to you".to_owned();
            self.push(SwarmEffect::MetaAnswer { channel, response: MetaResponse::Refused { reason } });
            return;
        }
        if request.file == MetaFile::Head {
            let response = self.catalog.head().cloned().map_or(MetaResponse::NotFound, MetaResponse::File);
            self.push(SwarmEffect::MetaAnswer { channel, response });
        } else {
            self.push(Effect::AnswerFromStore { channel, file: request.file });
        }
    }

    pub(super) fn meta_answered(
        &mut self,
        request_id: u64,
        peer: &PeerId,
        result: Result<MetaResponse, String>,
        now: Now,
    ) {
        let Some(file) = self.wants.answered(request_id, peer) else { return };
        let bytes = match result {
            Ok(MetaResponse::File(bytes)) => bytes,
            // Nobody is obliged to know a next root or a newer head.
            Ok(MetaResponse::NotFound | MetaResponse::Refused { .. }) => {
                let optional = matches!(file, MetaFile::Root { .. } | MetaFile::Head) && self.catalog.view().is_some();
                // What a joiner lacks it goes on asking for, and of others.
                if optional && !self.catalog.needs().contains(&file) {
                    self.wants.give_up(&file, peer);
                }
                return;
            }
            // That a request failed says nothing about the file: it is asked for again.
            Err(_) => return,
        };
        if let Err(reason) = self.take_file(&file, &bytes, Some(peer), now) {
            self.fault(peer, &format!("answered with a wrong file: {reason}"));
        }
    }

    pub(super) fn take_file(
        &mut self,
        file: &MetaFile,
        bytes: &[u8],
        peer: Option<&PeerId>,
        now: Now,
    ) -> Result<(), String> {
        if let MetaFile::Manifest { sha256 } = file {
            let manifest = self.supplies.manifest_arrived(sha256, bytes)?;
            self.wants.remove(file);
            self.supplies.set_stage(manifest.artifact(), Stage::Opening);
            self.push(Effect::OpenArtifact { manifest });
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
        for alarm in change.alarms {
            self.tell(EventKind::Alarm, peer, alarm);
        }
        if let (Some(reason), Some(peer)) = (change.blame, peer) {
            self.fault(peer, &reason);
        }
        if let Some(version) = change.head_verified {
            self.tell(EventKind::HeadVerified, peer, format!("head {version} verified"));
            self.resign_asked_ms = None;
        }
        if change.replaced {
            let needs: BTreeSet<MetaFile> = self.catalog.needs().into_iter().collect();
            self.wants.retain(|file| match file {
                MetaFile::Role { .. } | MetaFile::Target { .. } => needs.contains(file),
                MetaFile::Head | MetaFile::Root { .. } | MetaFile::Manifest { .. } => true,
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
            if let Err(reason) = self.take_file(file, bytes, None, now) {
                self.tell(EventKind::Alarm, None, format!("the root that was just made does not verify: {reason}"));
            }
        }
        let (verdict, change) = self.catalog.judge(head, now.wall);
        self.catalog_changed(change, None, false, now);
        for (file, bytes) in
            files.iter().filter(|(file, _)| matches!(file, MetaFile::Role { .. } | MetaFile::Target { .. }))
        {
            // Files that the head carried inline are there already; a second copy changes nothing.
            if self.catalog.needs().contains(file)
                && let Err(reason) = self.take_file(file, bytes, None, now)
            {
                self.tell(EventKind::Alarm, None, format!("a file that was just signed does not verify: {reason}"));
            }
        }
        if verdict == effect::GossipVerdict::Accept
            && let Some(payload) = self.catalog.head().cloned()
        {
            self.push(SwarmEffect::PublishHead { payload });
            self.announce_at_ms = now.mono_ms + ANNOUNCE_MS;
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
