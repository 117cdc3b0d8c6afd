//! The state of pieces and peers: who is asked for what, when, and who is served.
//!
//! Pure: blocks never pass through here, only the news that one arrived and what the store made of
//! it. Per-object state is in `transfer`, the order in which blocks leave in `uploads`, what a seed offers
//! to whom in `sparing`, what neighbours say in `heard`; this module routes between sessions and objects
//! and keeps the numbers that both ends use for objects (handles).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::{MAX_HAVE_PIECES, MAX_SESSION_ARTIFACTS};
use updraft_protocol::manifest::Manifest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};

use self::holder::Holder;
use self::locality::Standing;
use self::paced::Paced;
use self::sparing::Uplink;
use self::transfer::{Ask, Transfer};
use self::uploads::{Upload, Uploads};
use super::effect::SwarmEffect;
use super::input::BlockOutcome;
use super::limits::Caps;

mod availability;
mod counts;
mod departed;
mod heard;
mod holder;
mod locality;
mod paced;
mod progress;
pub(crate) mod rate;
mod report;
mod sparing;
mod suspects;
mod transfer;
mod uploads;

pub use self::counts::ByteCounts;
pub use self::report::{LinkView, News, Outcome, TransferView};

/// One session, as the fetcher sees it.
#[derive(Debug, Default)]
struct Link {
    standing: Standing,
    /// The neighbour's handles.
    theirs: BTreeMap<u32, ObjectId>,
    /// Objects that we told it about.
    announced: BTreeSet<ObjectId>,
    /// Caps do not hold for it.
    lan_exempt: bool,
    bytes_in: u64,
    bytes_out: u64,
    duplicate: u64,
    unsolicited: u64,
    rate_in: rate::Rate,
    rate_out: rate::Rate,
}

/// All transfers of a node.
#[derive(Debug)]
pub struct Fetch {
    me: PeerId,
    /// This node is careful with its uplink: it offers what it holds piece by piece.
    spares: bool,
    budget_percent: Option<u32>,
    transfers: BTreeMap<ObjectId, Transfer>,
    links: BTreeMap<PeerId, Link>,
    uploads: Uploads,
    /// What was moved of objects that are no longer here.
    gone: ByteCounts,
    paced: Paced,
    /// The number that the next object gets, if it is free.
    next_handle: u32,
    rng: SmallRng,
}

impl Fetch {
    /// No transfers of the node `me`. A seed `spares` its uplink.
    pub fn new(me: PeerId, spares: bool, rng: SmallRng) -> Self {
        Self {
            me,
            spares,
            budget_percent: None,
            transfers: BTreeMap::new(),
            links: BTreeMap::new(),
            uploads: Uploads::default(),
            gone: ByteCounts::default(),
            paced: Paced::default(),
            next_handle: 0,
            rng,
        }
    }

    /// The caps that hold from now on.
    pub fn set_caps(&mut self, upload_bytes_per_second: Option<u64>, download_bytes_per_second: Option<u64>) {
        self.paced.caps = Caps { upload_bytes_per_second, download_bytes_per_second };
    }

    /// Whether caps hold for a neighbour.
    pub fn set_lan(&mut self, peer: &PeerId, exempt: bool) {
        if let Some(link) = self.links.get_mut(peer) {
            link.lan_exempt = exempt;
        }
    }

    /// Whether a neighbour is at the site of this node.
    pub fn set_near(&mut self, peer: &PeerId, is_near: bool) {
        if let Some(link) = self.links.get_mut(peer)
            && link.standing.is_near != is_near
        {
            link.standing.is_near = is_near;
            for transfer in self.transfers.values_mut() {
                transfer.set_near(peer, is_near);
            }
        }
    }

    /// Hundredths of a copy that may leave this node for each object; only the last reachable copy of a
    /// piece is served beyond that.
    pub fn set_budget(&mut self, percent: Option<u32>) {
        self.budget_percent = percent;
    }

    /// See [`Fetch::set_budget`].
    pub fn budget_percent(&self) -> Option<u32> {
        self.budget_percent
    }

    /// Useful bytes of an object by who sent them.
    pub fn sources(&self, object: &ObjectId) -> BTreeMap<PeerId, u64> {
        self.transfers.get(object).map(|transfer| transfer.sources.clone()).unwrap_or_default()
    }

    fn uplink(&self, now_ms: u64) -> Uplink {
        Uplink {
            rate_bytes_per_second: self.uploads.rate_bytes_per_second(),
            budget_percent: self.budget_percent,
            now_ms,
        }
    }

    /// A block of a neighbour was dropped: nobody wanted it any more.
    pub fn unsolicited(&mut self, peer: &PeerId, block: BlockRange) {
        if let Some(link) = self.links.get_mut(peer) {
            link.unsolicited += u64::from(block.length);
        }
    }

    /// An object of which the store holds `have`. Objects beyond the session limit are refused.
    pub fn add(&mut self, object: ObjectId, manifest: Arc<Manifest>, have: Bitmap) -> bool {
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
        let mut transfer = Transfer::new(&self.me, object, manifest, handle, have);
        if self.spares {
            // Nobody knows of it yet: the time does not matter.
            transfer.spare(0, &mut self.rng);
        }
        self.transfers.insert(object, transfer);
        true
    }

    /// Whether the object was added.
    pub fn contains(&self, object: &ObjectId) -> bool {
        self.transfers.contains_key(object)
    }

    /// What is held of an object shrank; neighbours are told anew.
    pub fn replace_have(&mut self, object: &ObjectId, have: Bitmap) {
        if let Some(transfer) = self.transfers.get_mut(object).filter(|t| t.have.count() == have.count()) {
            transfer.replace_have(have);
        }
        for link in self.links.values_mut() {
            link.announced.remove(object);
        }
    }

    /// A neighbour pushed an object here, so that others get it from here.
    pub fn pushed_by(&mut self, object: &ObjectId, peer: &PeerId) {
        if let Some(transfer) = self.transfers.get_mut(object) {
            transfer.pushed_by(peer);
        }
    }

    /// Whether anything is fetched.
    pub fn is_active(&self) -> bool {
        self.transfers.values().any(Transfer::is_active)
    }

    /// Whether every piece of the object is held.
    pub fn is_complete(&self, object: &ObjectId) -> bool {
        self.transfers.get(object).is_some_and(|transfer| transfer.have.is_full())
    }

    /// Starts (or goes on) fetching an object that was added.
    pub fn want(&mut self, object: ObjectId, now_ms: u64) -> Outcome {
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
        transfer.want(now_ms, &mut self.rng);
        for (peer, link) in &mut self.links {
            link.announced.insert(object);
            outcome.effects.push(announcement(peer, transfer));
        }
        self.fill_all(now_ms, &mut outcome);
        outcome
    }

    /// Stops fetching an object; what is held stays and is served.
    pub fn unwant(&mut self, object: &ObjectId) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(transfer) = self.transfers.get_mut(object) {
            transfer.wanted = false;
            cancel_all(transfer, &mut outcome);
        }
        outcome
    }

    /// The store no longer has an object: nothing of it is asked for or served any more.
    pub fn remove(&mut self, object: &ObjectId) -> Outcome {
        let mut outcome = self.unwant(object);
        let Some(transfer) = self.transfers.remove(object) else { return outcome };
        self.uploads.forget_object(object);
        self.gone = self.gone.plus(transfer.bytes);
        for (peer, link) in &mut self.links {
            if link.announced.remove(object) {
                let message = Control::Forget { handle: transfer.handle };
                outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
            }
        }
        outcome
    }

    /// A session is up and both sides said hello.
    pub fn connected(&mut self, peer: &PeerId, seed: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let link = self.links.entry(peer.clone()).or_default();
        link.standing.is_seed = seed;
        for transfer in self.transfers.values().filter(|transfer| transfer.is_active()) {
            link.announced.insert(transfer.object);
            outcome.effects.push(announcement(peer, transfer));
        }
        outcome
    }

    /// A session ended.
    pub fn disconnected(&mut self, peer: &PeerId, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        self.links.remove(peer);
        self.uploads.forget(peer);
        for transfer in self.transfers.values_mut() {
            transfer.forget(peer);
        }
        self.offer_all(now_ms, &mut outcome);
        self.serve(now_ms, &mut outcome);
        self.fill_all(now_ms, &mut outcome);
        outcome
    }

    /// A block arrived and went to the store.
    pub fn block_arrived(
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
            seed = link.standing.is_seed;
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
                    BlockOutcome::PieceVerified(piece) => self.piece_verified(object, piece, now_ms, &mut outcome),
                    BlockOutcome::PieceRejected(piece) => self.piece_rejected(object, piece, now_ms, &mut outcome),
                    _ => {}
                }
            }
        }
        if let Some(transfer) = self.transfers.get_mut(&object) {
            for (peer, pieces) in transfer.take_untold(now_ms) {
                push_have(&mut outcome, &peer, transfer.handle, &pieces);
            }
        }
        self.fill(peer, now_ms, &mut outcome);
        outcome
    }

    fn piece_verified(&mut self, object: ObjectId, piece: u32, now_ms: u64, outcome: &mut Outcome) {
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        transfer.verified(piece, now_ms);
        transfer.tell(piece);
        if transfer.have.is_full() {
            transfer.wanted = false;
            cancel_all(transfer, outcome);
            if self.spares {
                transfer.spare(now_ms, &mut self.rng);
            }
            outcome.news.push(News::Complete(object));
        }
    }

    fn piece_rejected(&mut self, object: ObjectId, piece: u32, now_ms: u64, outcome: &mut Outcome) {
        let Some(transfer) = self.transfers.get_mut(&object) else { return };
        for (peer, block) in transfer.rejected(piece, now_ms) {
            outcome.effects.push(SwarmEffect::Cancel { peer, handle: transfer.handle, block });
        }
    }

    /// A block that we sent is on its way.
    pub fn block_sent(&mut self, peer: &PeerId, object: ObjectId, block: BlockRange, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(transfer) = self.transfers.get_mut(&object) {
            transfer.sent(peer, block, now_ms);
        }
        if let Some(link) = self.links.get_mut(peer) {
            link.bytes_out += u64::from(block.length);
            link.rate_out.add(u64::from(block.length), now_ms);
        }
        self.uploads.ended(peer, object, block, true, now_ms);
        self.offer(&object, now_ms, &mut outcome);
        self.serve(now_ms, &mut outcome);
        outcome
    }

    /// A block that we were to send could not be read.
    pub fn block_unreadable(&mut self, peer: &PeerId, object: ObjectId, block: BlockRange, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        self.uploads.ended(peer, object, block, false, now_ms);
        self.serve(now_ms, &mut outcome);
        if let Some(transfer) = self.transfers.get_mut(&object) {
            transfer.withdrawn(peer, block);
            let message = Control::Busy { handle: transfer.handle, block, retry_after_ms: 0, ask: Vec::new() };
            outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
        }
        outcome
    }

    /// Hands queued blocks to the network while there is room.
    fn serve(&mut self, now_ms: u64, outcome: &mut Outcome) {
        let Self { uploads, links, paced, .. } = self;
        let mut may_leave = |peer: &PeerId, bytes: u64| {
            links.get(peer).is_some_and(|link| link.lan_exempt) || paced.may_leave(bytes, now_ms)
        };
        while let Some((peer, upload)) = uploads.next(now_ms, &mut may_leave) {
            let Upload { handle, object, block } = upload;
            outcome.effects.push(SwarmEffect::SendBlock { peer, handle, object, block });
        }
    }

    /// Offers pieces of an object to neighbours.
    fn offer(&mut self, object: &ObjectId, now_ms: u64, outcome: &mut Outcome) {
        let uplink = self.uplink(now_ms);
        let Some(transfer) = self.transfers.get_mut(object) else { return };
        let handle = transfer.handle;
        let mut offers = transfer.offers(uplink, &mut self.rng);
        offers.sort_unstable();
        for offered in offers.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((peer, _)) = offered.first() else { continue };
            let pieces: Vec<u32> = offered.iter().map(|(_, piece)| *piece).collect();
            push_have(outcome, peer, handle, &pieces);
        }
    }

    fn offer_all(&mut self, now_ms: u64, outcome: &mut Outcome) {
        if self.spares {
            let objects: Vec<ObjectId> =
                self.transfers.values().filter(|t| t.is_offering()).map(|t| t.object).collect();
            for object in objects {
                self.offer(&object, now_ms, outcome);
            }
        }
    }

    /// Time passed: late blocks go to others, idle neighbours get work.
    pub fn tick(&mut self, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        for link in self.links.values_mut() {
            link.rate_in.settle(now_ms);
            link.rate_out.settle(now_ms);
        }
        self.uploads.settle(now_ms);
        for transfer in self.transfers.values_mut() {
            transfer.tick(now_ms);
            for (peer, pieces) in transfer.take_untold(now_ms) {
                push_have(&mut outcome, &peer, transfer.handle, &pieces);
            }
            for (peer, block) in transfer.take_late(now_ms) {
                outcome.effects.push(SwarmEffect::Cancel { peer, handle: transfer.handle, block });
            }
        }
        self.offer_all(now_ms, &mut outcome);
        self.serve(now_ms, &mut outcome);
        self.fill_all(now_ms, &mut outcome);
        outcome
    }

    /// Whether anything moves, so that the time matters.
    pub fn is_busy(&self) -> bool {
        self.is_active() || !self.uploads.is_idle() || self.transfers.values().any(Transfer::is_offering)
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
                let Some(Ask { block, instead_of }) = transfer.next_request(peer, now_ms, &mut self.rng) else { break };
                if !exempt {
                    self.paced.asked(block, now_ms);
                }
                if let Some(other) = instead_of {
                    outcome.effects.push(SwarmEffect::Cancel { peer: other, handle: transfer.handle, block });
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
    pub fn view(&self, object: &ObjectId) -> Option<TransferView> {
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
    pub fn views(&self) -> Vec<TransferView> {
        self.transfers.keys().filter_map(|object| self.view(object)).collect()
    }

    /// Bytes of all transfers together, those of objects that are gone included.
    pub fn totals(&self) -> ByteCounts {
        self.transfers.values().fold(self.gone, |sum, transfer| sum.plus(transfer.bytes))
    }

    /// Whether blocks are under way to or from a neighbour.
    pub(crate) fn carries(&self, peer: &PeerId) -> bool {
        let asked = |transfer: &Transfer| transfer.holders.get(peer).is_some_and(|h| !h.outstanding.is_empty());
        self.uploads.has_any(peer) || self.transfers.values().any(asked)
    }

    /// One session's figures.
    pub fn link_view(&self, peer: &PeerId) -> LinkView {
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
            have: transfer.told(peer).as_bytes().to_vec(),
        },
    }
}

/// Tells a neighbour of pieces.
fn push_have(outcome: &mut Outcome, peer: &PeerId, handle: u32, pieces: &[u32]) {
    for pieces in pieces.chunks(MAX_HAVE_PIECES) {
        let message = Control::Have { handle, pieces: pieces.to_vec() };
        outcome.effects.push(SwarmEffect::Control { peer: peer.clone(), message });
    }
}

fn cancel_all(transfer: &mut Transfer, outcome: &mut Outcome) {
    let handle = transfer.handle;
    for (peer, block) in transfer.stop() {
        outcome.effects.push(SwarmEffect::Cancel { peer, handle, block });
    }
}

#[cfg(test)]
mod tests;
