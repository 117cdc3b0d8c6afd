//! What a neighbour says: what it holds and wants, what it asks for and what it refuses.

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};

use super::report::{News, Outcome};
use super::uploads::{Queued, Upload, Withdrawn};
use super::{Fetch, announcement};
use crate::engine::effect::SwarmEffect;

/// Milliseconds after which a peer without upload slots may ask again.
const BUSY_MS: u32 = 500;
/// Milliseconds for which a neighbour that does not have a block it announced is not asked.
const ABSENT_MS: u64 = 5_000;
/// Milliseconds after which a peer may ask again for a piece that others hold.
const SPARED_MS: u32 = 1_000;
/// Peers named in a busy answer.
const MAX_ASK: usize = 4;

impl Fetch {
    /// A transfer message of a neighbour.
    pub fn control(&mut self, peer: &PeerId, message: Control, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.links.contains_key(peer) {
            return outcome;
        }
        match message {
            Control::Announce { handle, object, wants, have } => {
                if let Some(link) = self.links.get_mut(peer) {
                    link.theirs.insert(handle, object);
                }
                self.heard_announce(peer, object, wants, &have, now_ms, &mut outcome);
                self.fill(peer, now_ms, &mut outcome);
            }
            Control::Have { handle, pieces } => {
                self.heard_have(peer, handle, &pieces, now_ms, &mut outcome);
                self.fill(peer, now_ms, &mut outcome);
            }
            Control::Forget { handle } => {
                if let Some(object) = self.links.get_mut(peer).and_then(|link| link.theirs.remove(&handle))
                    && let Some(transfer) = self.transfers.get_mut(&object)
                {
                    // The shell would expect them for the rest of the session, and it counts.
                    for block in transfer.forget(peer) {
                        let (peer, handle) = (peer.clone(), transfer.handle);
                        outcome.effects.push(SwarmEffect::Cancel { peer, handle, block });
                    }
                }
            }
            Control::Request { handle, block } => {
                self.heard_request(peer, handle, block, now_ms, &mut outcome);
                self.serve(now_ms, &mut outcome);
            }
            Control::Cancel { handle, block } => {
                let object = self.links.get(peer).and_then(|link| link.theirs.get(&handle));
                if let Some(transfer) = object.and_then(|object| self.transfers.get_mut(object)) {
                    transfer.withdrawn(peer, block);
                }
                if self.uploads.withdraw(peer, handle, block) == Withdrawn::Sending {
                    outcome.effects.push(SwarmEffect::DropBlock { peer: peer.clone(), handle, block });
                }
                self.serve(now_ms, &mut outcome);
            }
            Control::Busy { handle, block, retry_after_ms, ask } => {
                if !ask.is_empty() {
                    outcome.news.push(News::Holders { peers: ask });
                }
                let object = self.links.get(peer).and_then(|link| link.theirs.get(&handle)).copied();
                if let Some(transfer) = object.and_then(|object| self.transfers.get_mut(&object)) {
                    let rest_ms = if retry_after_ms == 0 { ABSENT_MS } else { u64::from(retry_after_ms.min(60_000)) };
                    let rest_ms = rest_ms.max(transfer.least_rest_ms(peer));
                    // As above: what was refused is not to be expected any more.
                    if transfer.refused(peer, block, now_ms + rest_ms) {
                        let (peer, handle) = (peer.clone(), transfer.handle);
                        outcome.effects.push(SwarmEffect::Cancel { peer, handle, block });
                    }
                }
                self.fill_all(now_ms, &mut outcome);
            }
            Control::Hello(_)
            | Control::Peers(_)
            | Control::Head { .. }
            | Control::Evidence { .. }
            | Control::Report(_)
            | Control::Reported { .. }
            | Control::Goodbye { .. }
            | Control::Unknown => {}
        }
        outcome
    }

    fn heard_announce(
        &mut self,
        peer: &PeerId,
        object: ObjectId,
        wants: bool,
        have: &[u8],
        now_ms: u64,
        outcome: &mut Outcome,
    ) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        let Some(have) = Bitmap::from_bytes(have, transfer.manifest.piece_count()) else {
            outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "announced a bitmap of the wrong length" });
            return;
        };
        // A neighbour heard of for the first time knows nothing of us, or only what we held long ago.
        let first = !transfer.holders.contains_key(peer);
        transfer.announce(peer, link.standing, have, wants, now_ms);
        transfer.look_around(now_ms);
        if link.announced.insert(object) || first {
            outcome.effects.push(announcement(peer, transfer));
        }
        self.offer(&object, now_ms, outcome);
    }

    fn heard_have(&mut self, peer: &PeerId, handle: u32, pieces: &[u32], now_ms: u64, outcome: &mut Outcome) {
        let Some(link) = self.links.get(peer) else { return };
        let Some(object) = link.theirs.get(&handle).copied() else {
            outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "used a handle that it never announced" });
            return;
        };
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        for piece in pieces {
            if transfer.manifest.index(*piece).is_none() {
                outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "has a piece that does not exist" });
                return;
            }
            transfer.heard_have(peer, *piece, now_ms);
        }
        self.offer(&object, now_ms, outcome);
    }

    fn heard_request(&mut self, peer: &PeerId, handle: u32, block: BlockRange, now_ms: u64, outcome: &mut Outcome) {
        let uplink = self.uplink(now_ms);
        let Some(link) = self.links.get(peer) else { return };
        let Some(object) = link.theirs.get(&handle).copied() else {
            outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "used a handle that it never announced" });
            return;
        };
        let mut transfer = self.transfers.get_mut(&object);
        let piece = transfer.as_deref().and_then(|transfer| {
            let piece = transfer.manifest.piece_at(block.offset)?;
            let end = transfer.manifest.offset_of(piece) + u64::from(transfer.manifest.length_of(piece));
            (block.end() <= end && transfer.have.get(piece.get())).then_some(piece)
        });
        let mut spared = false;
        if let (Some(transfer), Some(piece)) = (&mut transfer, piece) {
            spared = !transfer.grants(peer, piece, block, uplink);
            if !spared {
                if self.uploads.push(peer, Upload { handle, object, block }) != Queued::Full {
                    return;
                }
                transfer.withdrawn(peer, block);
            }
        }
        let ask = match (&transfer, piece) {
            (Some(transfer), Some(piece)) => {
                let mut ask = transfer.holders_of(piece.get(), MAX_ASK + 1);
                ask.retain(|other| other != peer);
                ask.truncate(MAX_ASK);
                ask
            }
            _ => Vec::new(),
        };
        let retry_after_ms = match piece {
            Some(_) if spared => SPARED_MS,
            Some(_) => BUSY_MS,
            None => 0,
        };
        // The answer names our own handle; an object that was never announced has none to name.
        if let Some(transfer) = transfer {
            let message = Control::Busy { handle: transfer.handle, block, retry_after_ms, ask };
            outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
    }
}
