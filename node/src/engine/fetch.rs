//! The state of pieces and peers: who is asked for what, when, and who is served.
//!
//! Pure: blocks never pass through here, only the news that one arrived and what the store made of
//! it. Per-object state is `transfer::Transfer`; this module routes between sessions and objects
//! and keeps the numbers that both ends use for objects (handles).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::{MAX_HAVE_PIECES, MAX_QUEUED_REQUESTS, MAX_SESSION_ARTIFACTS};
use updraft_protocol::manifest::Manifest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};

use self::holder::Holder;
use self::paced::{Paced, Waiting};
use self::transfer::{Blame, Transfer};
use super::effect::SwarmEffect;
use super::input::BlockOutcome;
use super::limits::Caps;

mod holder;
mod paced;
mod progress;
pub(crate) mod rate;
mod transfer;

pub use self::transfer::ByteCounts;

/// Milliseconds after which a peer without upload slots may ask again.
const BUSY_MS: u32 = 500;
/// Milliseconds for which a neighbour that does not have a block it announced is not asked.
const ABSENT_MS: u64 = 5_000;
/// Peers named in a busy answer.
const MAX_ASK: usize = 4;

/// What the fetcher found out that others care about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// Every piece of a wanted object is verified.
    Complete(ObjectId),
    /// A neighbour sent a wrong piece, provably.
    Poisoned { peer: PeerId, object: ObjectId, piece: u32 },
    /// A neighbour broke the protocol.
    Misbehaved { peer: PeerId, what: &'static str },
    /// The disk refused a block; fetching stopped.
    Stopped { object: ObjectId, reason: String },
}

/// Where a transfer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferView {
    /// The object.
    pub object: ObjectId,
    /// Verified bytes.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Bytes by source and fate.
    pub counts: ByteCounts,
    /// Bytes per second, now.
    pub rate_bytes_per_second: u64,
    /// Neighbours that hold at least one piece.
    pub holders: usize,
    /// Still fetching.
    pub active: bool,
    /// Why fetching stopped, where it did.
    pub stopped: Option<String>,
}

/// One session, as the fetcher sees it.
#[derive(Debug, Default)]
struct Link {
    seed: bool,
    /// The neighbour's handles.
    theirs: BTreeMap<u32, ObjectId>,
    /// Objects that we told it about.
    announced: BTreeSet<ObjectId>,
    /// Blocks queued for it, by its handle.
    uploads: BTreeSet<(u32, BlockRange)>,
    /// Caps do not hold for it.
    lan_exempt: bool,
    bytes_in: u64,
    bytes_out: u64,
    duplicate: u64,
    unsolicited: u64,
    rate_in: rate::Rate,
    rate_out: rate::Rate,
}

/// One session's figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkView {
    /// Block bytes received.
    pub bytes_in: u64,
    /// Block bytes sent.
    pub bytes_out: u64,
    /// Of those received, bytes that were there already.
    pub bytes_duplicate: u64,
    /// Bytes received beyond those: nobody wanted them any more.
    pub bytes_unsolicited: u64,
    /// Bytes per second received.
    pub rate_in_bytes_per_second: u64,
    /// Bytes per second sent.
    pub rate_out_bytes_per_second: u64,
    /// Objects that it holds: pieces held and in all.
    pub objects: Vec<(ObjectId, u32, u32)>,
}

/// All transfers of a node.
#[derive(Debug)]
pub(crate) struct Fetch {
    transfers: BTreeMap<ObjectId, Transfer>,
    links: BTreeMap<PeerId, Link>,
    /// What was moved of objects that are no longer here.
    gone: ByteCounts,
    paced: Paced,
    budget_percent: Option<u32>,
    /// The number that the next object gets, if it is free.
    next_handle: u32,
    rng: SmallRng,
}

/// What a call decided: effects for the network and news for the engine.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Outcome {
    pub(crate) effects: Vec<SwarmEffect>,
    pub(crate) news: Vec<News>,
}

impl Fetch {
    pub(crate) fn new(rng: SmallRng) -> Self {
        Self {
            transfers: BTreeMap::new(),
            links: BTreeMap::new(),
            gone: ByteCounts::default(),
            paced: Paced::default(),
            budget_percent: None,
            next_handle: 0,
            rng,
        }
    }

    /// The caps that hold from now on.
    pub(crate) fn set_caps(&mut self, upload_bytes_per_second: Option<u64>, download_bytes_per_second: Option<u64>) {
        self.paced.caps = Caps { upload_bytes_per_second, download_bytes_per_second };
    }

    /// Whether caps hold for a neighbour.
    pub(crate) fn set_lan(&mut self, peer: &PeerId, exempt: bool) {
        if let Some(link) = self.links.get_mut(peer) {
            link.lan_exempt = exempt;
        }
    }

    /// How much of each object may leave this node, in percent of one copy.
    pub(crate) fn set_budget(&mut self, percent: Option<u32>) {
        self.budget_percent = percent;
    }

    /// See [`Fetch::set_budget`].
    pub(crate) fn budget_percent(&self) -> Option<u32> {
        self.budget_percent
    }

    /// Useful bytes of an object by who sent them.
    pub(crate) fn sources(&self, object: &ObjectId) -> BTreeMap<PeerId, u64> {
        self.transfers.get(object).map(|transfer| transfer.sources.clone()).unwrap_or_default()
    }

    /// A block of a neighbour was dropped: nobody wanted it any more.
    pub(crate) fn unsolicited(&mut self, peer: &PeerId, block: BlockRange) {
        if let Some(link) = self.links.get_mut(peer) {
            link.unsolicited += u64::from(block.length);
        }
    }

    /// An object of which the store holds `have`. Objects beyond the session limit are refused.
    pub(crate) fn add(&mut self, object: ObjectId, manifest: Arc<Manifest>, have: Bitmap) -> bool {
        if self.transfers.contains_key(&object) {
            return true;
        }
        let used: BTreeSet<u32> = self.transfers.values().map(|transfer| transfer.handle).collect();
        // A number that was given up is used again as late as possible: blocks may still be under way.
        let numbers = (0..MAX_SESSION_ARTIFACTS).map(|step| (self.next_handle + step) % MAX_SESSION_ARTIFACTS);
        let Some(handle) = numbers.into_iter().find(|handle| !used.contains(handle)) else {
            return false;
        };
        self.next_handle = (handle + 1) % MAX_SESSION_ARTIFACTS;
        self.transfers.insert(object, Transfer::new(object, manifest, handle, have));
        true
    }

    pub(crate) fn contains(&self, object: &ObjectId) -> bool {
        self.transfers.contains_key(object)
    }

    /// What is held of an object shrank; neighbours are told anew.
    pub(crate) fn replace_have(&mut self, object: &ObjectId, have: Bitmap) {
        if let Some(transfer) = self.transfers.get_mut(object).filter(|t| t.have.count() == have.count()) {
            transfer.have = have;
        }
        for link in self.links.values_mut() {
            link.announced.remove(object);
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.transfers.values().any(Transfer::is_active)
    }

    pub(crate) fn is_complete(&self, object: &ObjectId) -> bool {
        self.transfers.get(object).is_some_and(|transfer| transfer.have.is_full())
    }

    /// Starts (or goes on) fetching an object that was added.
    pub(crate) fn want(&mut self, object: ObjectId, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(transfer) = self.transfers.get_mut(&object) else { return outcome };
        transfer.stopped = None;
        if transfer.have.is_full() {
            outcome.news.push(News::Complete(object));
            return outcome;
        }
        if transfer.wanted {
            return outcome;
        }
        transfer.wanted = true;
        for (peer, link) in &mut self.links {
            link.announced.insert(object);
            outcome.effects.push(announcement(peer, transfer));
        }
        self.fill_all(now_ms, &mut outcome);
        outcome
    }

    /// Stops fetching an object; what is held stays and is served.
    pub(crate) fn unwant(&mut self, object: &ObjectId) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(transfer) = self.transfers.get_mut(object) {
            transfer.wanted = false;
            cancel_all(transfer, &mut outcome);
        }
        outcome
    }

    /// The store no longer has an object: nothing of it is asked for or served any more.
    pub(crate) fn remove(&mut self, object: &ObjectId) -> Outcome {
        let mut outcome = self.unwant(object);
        let Some(transfer) = self.transfers.remove(object) else { return outcome };
        self.gone = self.gone.plus(transfer.bytes);
        for Waiting { peer, handle, block, .. } in self.paced.forget(|waiting| waiting.object == *object) {
            if let Some(link) = self.links.get_mut(&peer) {
                link.uploads.remove(&(handle, block));
            }
        }
        for (peer, link) in &mut self.links {
            if link.announced.remove(object) {
                let message = Control::Forget { handle: transfer.handle };
                outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
            }
        }
        outcome
    }

    /// A session is up and both sides said hello.
    pub(crate) fn connected(&mut self, peer: &PeerId, seed: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let link = self.links.entry(peer.clone()).or_default();
        link.seed = seed;
        for transfer in self.transfers.values().filter(|transfer| transfer.is_active()) {
            link.announced.insert(transfer.object);
            outcome.effects.push(announcement(peer, transfer));
        }
        outcome
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        self.links.remove(peer);
        self.paced.forget(|waiting| waiting.peer == *peer);
        for transfer in self.transfers.values_mut() {
            transfer.forget(peer);
        }
        self.fill_all(now_ms, &mut outcome);
        outcome
    }

    /// A transfer message of a neighbour.
    pub(crate) fn control(&mut self, peer: &PeerId, message: Control, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.links.contains_key(peer) {
            return outcome;
        }
        match message {
            Control::Announce { handle, object, wants, have } => {
                self.heard_announce(peer, handle, object, wants, &have, &mut outcome);
                self.fill(peer, now_ms, &mut outcome);
            }
            Control::Have { handle, pieces } => {
                self.heard_have(peer, handle, &pieces, &mut outcome);
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
                self.heard_request(peer, handle, block, &mut outcome);
                self.send_waiting(now_ms, &mut outcome);
            }
            Control::Cancel { handle, block } => {
                if let Some(link) = self.links.get_mut(peer)
                    && link.uploads.remove(&(handle, block))
                    && self.paced.forget(|w| w.peer == *peer && w.handle == handle && w.block == block).is_empty()
                {
                    outcome.effects.push(SwarmEffect::DropBlock { peer: peer.clone(), handle, block });
                }
            }
            Control::Busy { handle, block, retry_after_ms, .. } => {
                let object = self.links.get(peer).and_then(|link| link.theirs.get(&handle)).copied();
                if let Some(transfer) = object.and_then(|object| self.transfers.get_mut(&object)) {
                    let rest_ms = if retry_after_ms == 0 { ABSENT_MS } else { u64::from(retry_after_ms.min(60_000)) };
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
            | Control::Goodbye { .. }
            | Control::Unknown => {}
        }
        outcome
    }

    fn heard_announce(
        &mut self,
        peer: &PeerId,
        handle: u32,
        object: ObjectId,
        wants: bool,
        have: &[u8],
        outcome: &mut Outcome,
    ) {
        let Some(link) = self.links.get_mut(peer) else { return };
        link.theirs.insert(handle, object);
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        let Some(have) = Bitmap::from_bytes(have, transfer.manifest.piece_count()) else {
            outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "announced a bitmap of the wrong length" });
            return;
        };
        // A neighbour heard of for the first time knows nothing of us, or only what we held long ago.
        let first = !transfer.holders.contains_key(peer);
        transfer.announce(peer, have, wants);
        if link.announced.insert(object) || first {
            outcome.effects.push(announcement(peer, transfer));
        }
    }

    fn heard_have(&mut self, peer: &PeerId, handle: u32, pieces: &[u32], outcome: &mut Outcome) {
        let Some(link) = self.links.get(peer) else { return };
        let Some(object) = link.theirs.get(&handle) else {
            outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "used a handle that it never announced" });
            return;
        };
        let Some(transfer) = self.transfers.get_mut(object) else { return };
        for piece in pieces {
            if transfer.manifest.index(*piece).is_none() {
                outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "has a piece that does not exist" });
                return;
            }
            transfer.heard_have(peer, *piece);
        }
    }

    fn heard_request(&mut self, peer: &PeerId, handle: u32, block: BlockRange, outcome: &mut Outcome) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let Some(object) = link.theirs.get(&handle).copied() else {
            outcome.news.push(News::Misbehaved { peer: peer.clone(), what: "used a handle that it never announced" });
            return;
        };
        let transfer = self.transfers.get(&object);
        let piece = transfer.and_then(|transfer| {
            let piece = transfer.manifest.piece_at(block.offset)?;
            let end = transfer.manifest.offset_of(piece) + u64::from(transfer.manifest.length_of(piece));
            (block.end() <= end && transfer.have.get(piece.get())).then_some(piece)
        });
        let full = link.uploads.len() >= MAX_QUEUED_REQUESTS;
        if piece.is_some() && !full {
            if link.uploads.insert((handle, block)) {
                self.paced.wait(Waiting { peer: peer.clone(), handle, object, block });
            }
            return;
        }
        let ask = match (transfer, piece) {
            (Some(transfer), Some(piece)) => {
                let mut ask = transfer.holders_of(piece.get(), MAX_ASK + 1);
                ask.retain(|other| other != peer);
                ask.truncate(MAX_ASK);
                ask
            }
            _ => Vec::new(),
        };
        let retry_after_ms = if piece.is_some() { BUSY_MS } else { 0 };
        // The answer names our own handle; an object that was never announced has none to name.
        if let Some(transfer) = transfer {
            let message = Control::Busy { handle: transfer.handle, block, retry_after_ms, ask };
            outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
    }

    /// A block arrived and went to the store.
    pub(crate) fn block_arrived(
        &mut self,
        peer: &PeerId,
        object: ObjectId,
        block: BlockRange,
        block_outcome: BlockOutcome,
        now_ms: u64,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut seed = false;
        if let Some(link) = self.links.get_mut(peer) {
            seed = link.seed;
            link.bytes_in += u64::from(block.length);
            link.rate_in.add(u64::from(block.length), now_ms);
            if block_outcome == BlockOutcome::Duplicate {
                link.duplicate += u64::from(block.length);
            }
        }
        let Some(transfer) = self.transfers.get_mut(&object) else { return outcome };
        match block_outcome {
            BlockOutcome::Duplicate => transfer.duplicate(peer, block, now_ms),
            BlockOutcome::Failed(reason) => {
                transfer.refused(peer, block, 0);
                transfer.stopped = Some(reason.clone());
                cancel_all(transfer, &mut outcome);
                outcome.news.push(News::Stopped { object, reason });
            }
            kept @ (BlockOutcome::Stored | BlockOutcome::PieceVerified(_) | BlockOutcome::PieceRejected(_)) => {
                for other in transfer.stored(peer, block, seed, now_ms) {
                    let handle = transfer.handle;
                    outcome.effects.push(SwarmEffect::Cancel { peer: other, handle, block });
                }
                match kept {
                    BlockOutcome::PieceVerified(piece) => self.piece_verified(object, piece, &mut outcome),
                    BlockOutcome::PieceRejected(piece) => self.piece_rejected(object, piece, &mut outcome),
                    _ => {}
                }
            }
        }
        self.fill(peer, now_ms, &mut outcome);
        outcome
    }

    fn piece_verified(&mut self, object: ObjectId, piece: u32, outcome: &mut Outcome) {
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        transfer.verified(piece);
        for (peer, holder) in &transfer.holders {
            if holder.wants && !holder.have.get(piece) {
                push_have(outcome, peer, transfer.handle, piece);
            }
        }
        if transfer.have.is_full() {
            transfer.wanted = false;
            cancel_all(transfer, outcome);
            outcome.news.push(News::Complete(object));
        }
    }

    fn piece_rejected(&mut self, object: ObjectId, piece: u32, outcome: &mut Outcome) {
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        if let Blame::Proven(peer) = transfer.rejected(piece) {
            outcome.news.push(News::Poisoned { peer, object, piece });
        }
    }

    /// A block that we sent is on its way.
    pub(crate) fn block_sent(&mut self, peer: &PeerId, object: ObjectId, block: BlockRange, now_ms: u64) {
        if let Some(transfer) = self.transfers.get_mut(&object) {
            transfer.sent(block);
        }
        if let Some(link) = self.links.get_mut(peer) {
            link.bytes_out += u64::from(block.length);
            link.rate_out.add(u64::from(block.length), now_ms);
        }
        self.upload_over(peer, object, block);
    }

    /// A block that we were to send could not be read.
    pub(crate) fn block_unreadable(&mut self, peer: &PeerId, object: ObjectId, block: BlockRange) -> Outcome {
        let mut outcome = Outcome::default();
        self.upload_over(peer, object, block);
        if let Some(transfer) = self.transfers.get(&object) {
            let message = Control::Busy { handle: transfer.handle, block, retry_after_ms: 0, ask: Vec::new() };
            outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
        outcome
    }

    fn upload_over(&mut self, peer: &PeerId, object: ObjectId, block: BlockRange) {
        if let Some(link) = self.links.get_mut(peer) {
            let handles: Vec<u32> =
                link.theirs.iter().filter(|(_, theirs)| **theirs == object).map(|(handle, _)| *handle).collect();
            for handle in handles {
                link.uploads.remove(&(handle, block));
            }
        }
    }

    /// Time passed: late blocks go to others, idle neighbours get work.
    pub(crate) fn tick(&mut self, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        for link in self.links.values_mut() {
            link.rate_in.settle(now_ms);
            link.rate_out.settle(now_ms);
        }
        for transfer in self.transfers.values_mut() {
            for holder in transfer.holders.values_mut().filter(|holder| holder.outstanding.is_empty()) {
                holder.rate.resume(now_ms);
            }
            for (peer, block) in transfer.take_late(now_ms) {
                outcome.effects.push(SwarmEffect::Cancel { peer, handle: transfer.handle, block });
            }
        }
        self.send_waiting(now_ms, &mut outcome);
        self.fill_all(now_ms, &mut outcome);
        outcome
    }

    /// Sends what the caps let through.
    fn send_waiting(&mut self, now_ms: u64, outcome: &mut Outcome) {
        let links = &self.links;
        let is_exempt = |peer: &PeerId| links.get(peer).is_some_and(|link| link.lan_exempt);
        while let Some(Waiting { peer, handle, object, block }) = self.paced.next(is_exempt, now_ms) {
            outcome.effects.push(SwarmEffect::SendBlock { peer, handle, object, block });
        }
    }

    fn fill_all(&mut self, now_ms: u64, outcome: &mut Outcome) {
        if self.is_active() {
            let peers: Vec<PeerId> = self.links.keys().cloned().collect();
            for peer in peers {
                self.fill(&peer, now_ms, outcome);
            }
        }
    }

    fn fill(&mut self, peer: &PeerId, now_ms: u64, outcome: &mut Outcome) {
        let exempt = self.links.get(peer).is_some_and(|link| link.lan_exempt);
        for transfer in self.transfers.values_mut().filter(|transfer| transfer.is_active()) {
            while exempt || self.paced.may_ask(transfer.manifest.piece_length(), now_ms) {
                let Some(block) = transfer.next_request(peer, now_ms, &mut self.rng) else { break };
                if !exempt {
                    self.paced.asked(block, now_ms);
                }
                outcome.effects.push(SwarmEffect::Request {
                    peer: peer.clone(),
                    handle: transfer.handle,
                    object: transfer.object,
                    block,
                });
            }
        }
    }

    /// Where one transfer stands.
    pub(crate) fn view(&self, object: &ObjectId) -> Option<TransferView> {
        self.transfers.get(object).map(|transfer| TransferView {
            object: transfer.object,
            bytes_done: transfer.bytes_done(),
            bytes_total: transfer.manifest.length(),
            counts: transfer.bytes,
            rate_bytes_per_second: transfer.rate_bytes_per_second(),
            holders: transfer.holders.values().filter(|holder| holder.have.ones() > 0).count(),
            active: transfer.is_active(),
            stopped: transfer.stopped.clone(),
        })
    }

    /// All objects, and where they stand.
    pub(crate) fn views(&self) -> Vec<TransferView> {
        self.transfers.keys().filter_map(|object| self.view(object)).collect()
    }

    /// Bytes of all transfers together, those of objects that are gone included.
    pub(crate) fn totals(&self) -> ByteCounts {
        self.transfers.values().fold(self.gone, |sum, transfer| sum.plus(transfer.bytes))
    }

    /// One session's figures.
    pub(crate) fn link_view(&self, peer: &PeerId) -> LinkView {
        let Some(link) = self.links.get(peer) else { return LinkView::default() };
        LinkView {
            bytes_in: link.bytes_in,
            bytes_out: link.bytes_out,
            bytes_duplicate: link.duplicate,
            bytes_unsolicited: link.unsolicited,
            rate_in_bytes_per_second: link.rate_in.bytes_per_second(),
            rate_out_bytes_per_second: link.rate_out.bytes_per_second(),
            objects: self
                .transfers
                .values()
                .filter_map(|transfer| {
                    let holder: &Holder = transfer.holders.get(peer)?;
                    Some((transfer.object, holder.have.ones(), holder.have.count()))
                })
                .collect(),
        }
    }
}

fn announcement(peer: &PeerId, transfer: &Transfer) -> SwarmEffect {
    SwarmEffect::Control {
        peer: peer.clone(),
        message: Control::Announce {
            handle: transfer.handle,
            object: transfer.object,
            wants: transfer.is_active(),
            have: transfer.have.as_bytes().to_vec(),
        },
    }
}

/// Adds a piece to the `Have` that is already on its way to `peer` in this outcome, or starts one.
fn push_have(outcome: &mut Outcome, peer: &PeerId, our_handle: u32, piece: u32) {
    for effect in &mut outcome.effects {
        if let SwarmEffect::Control { peer: to, message: Control::Have { handle, pieces } } = effect
            && to == peer
            && *handle == our_handle
            && pieces.len() < MAX_HAVE_PIECES
        {
            pieces.push(piece);
            return;
        }
    }
    outcome.effects.push(SwarmEffect::Control {
        peer: peer.clone(),
        message: Control::Have { handle: our_handle, pieces: vec![piece] },
    });
}

fn cancel_all(transfer: &mut Transfer, outcome: &mut Outcome) {
    let handle = transfer.handle;
    for (peer, block) in transfer.stop() {
        outcome.effects.push(SwarmEffect::Cancel { peer, handle, block });
    }
}

#[cfg(test)]
mod tests;
