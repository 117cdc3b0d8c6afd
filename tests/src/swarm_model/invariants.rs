//! What always holds, looked at after every step of a node and at every request and every block that leaves.

use std::collections::BTreeMap;

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::MAX_QUEUED_REQUESTS;
use updraft_protocol::transfer::BlockRange;

use super::SwarmModel;

/// Blocks that one node may ask two neighbours for at once, when nothing is left to begin.
const MAX_DOUBLY_ASKED: usize = 4;
/// A node to which a neighbour could send what it lacks gets something within this time. A seed whose budget
/// is used up lets one that it takes for cut off wait for 30 s.
const MAX_HUNGER_US: u64 = 60_000_000;
/// Microseconds between two looks at whether a node hungers.
const LOOK_US: u64 = 1_000_000;
/// A neighbour that sends less is no help.
const LEAST_UPLOAD: u64 = 64 * 1024;
/// Bytes by which repeats may exceed a budget: what was granted when there was room, and left later.
const BUDGET_SLACK: u64 = 2 << 20;
/// Bytes on the wire for each 100 of payload, as a seed reckons them.
const WIRE_PERCENT: u64 = 105;

/// What is known of one node beside what it knows itself.
#[derive(Debug)]
pub(super) struct Watch {
    /// Pieces that it holds or has asked for something of.
    pub(super) begun: Bitmap,
    /// Since when it gets nothing, though it could.
    pub(super) hungry_since_us: Option<u64>,
    look_at_us: u64,
    /// Bytes that left, by piece.
    left: BTreeMap<u32, u64>,
    first: u64,
    repeats: u64,
}

impl Watch {
    pub(super) fn new(have: &Bitmap) -> Self {
        Self { begun: have.clone(), hungry_since_us: None, look_at_us: 0, left: BTreeMap::new(), first: 0, repeats: 0 }
    }
}

impl SwarmModel {
    /// Of a node that just did something.
    pub(super) fn check(&mut self, node: usize) {
        let open = self.nodes[node].asked.len();
        let sessions = self.nodes[node].sessions.len();
        assert!(open <= (sessions * MAX_QUEUED_REQUESTS).max(1), "{open} requests are open with {sessions} sessions");
        for (to, socket) in &self.nodes[node].uplink.sockets {
            assert!(socket.len() <= MAX_QUEUED_REQUESTS, "{} blocks are queued for {to}", socket.len());
        }
        let begun = self.nodes[node].pieces.unfinished();
        assert!(begun <= self.manifest.piece_count() as usize, "{begun} pieces are unfinished");
        self.check_hunger(node);
    }

    /// Progress is possible while every piece exists among those who are connected.
    fn check_hunger(&mut self, node: usize) {
        let now_us = self.now_us;
        if now_us < self.nodes[node].watch.look_at_us {
            return;
        }
        let here = &self.nodes[node];
        let eats = here.online && here.done_us.is_none() && !here.host.silent && !here.host.rotten && !here.host.spoils;
        let helps = |other: &usize| {
            let there = &self.nodes[*other];
            let sends = there.online
                && !there.host.silent
                && !there.host.rotten
                && !there.host.spoils
                && there.host.upload >= LEAST_UPLOAD;
            sends && there.have.without(&here.have, 0).next().is_some()
        };
        let is_hungry = eats && here.sessions.iter().any(helps);
        let watch = &mut self.nodes[node].watch;
        watch.look_at_us = now_us + LOOK_US;
        if !is_hungry {
            watch.hungry_since_us = None;
            return;
        }
        let since_us = *watch.hungry_since_us.get_or_insert(now_us);
        assert!(now_us - since_us < MAX_HUNGER_US, "{node} gets nothing since {since_us} us, though it could");
    }

    /// A node asks for a block: for one that is on its way already only in the endgame.
    pub(super) fn check_request(&mut self, node: usize, block: BlockRange) {
        let here = &mut self.nodes[node];
        let overlaps = |other: &BlockRange| other.offset < block.end() && block.offset < other.end();
        let is_doubly = here.asked.iter().any(|(_, other)| overlaps(other));
        if let Some(piece) = self.manifest.piece_at(block.offset) {
            here.watch.begun.set(piece.get());
        }
        if !is_doubly {
            return;
        }
        self.waste.doubly_asked += u64::from(block.length);
        assert!(here.watch.begun.is_full(), "{node} asks twice for {block:?} with pieces left to begin");
        let mut times: BTreeMap<BlockRange, usize> = BTreeMap::from([(block, 1)]);
        for (_, other) in &here.asked {
            *times.entry(*other).or_default() += 1;
        }
        let doubly = times.values().filter(|times| **times > 1).count();
        assert!(doubly <= MAX_DOUBLY_ASKED, "{node} has asked for {doubly} blocks twice");
        assert!(times.values().all(|times| *times <= 2), "{node} asks three neighbours for {block:?}");
    }

    /// A block leaves the seed: a repeat only within the budget.
    pub(super) fn check_budget(&mut self, node: usize, block: BlockRange) {
        let Some(piece) = self.manifest.piece_at(block.offset) else { return };
        let length = u64::from(self.manifest.length_of(piece));
        let watch = &mut self.nodes[node].watch;
        let left = watch.left.entry(piece.get()).or_default();
        let bytes = u64::from(block.length);
        let first = bytes.min(length - (*left).min(length));
        *left += bytes;
        watch.first += first;
        watch.repeats += bytes - first;
        if let Some(percent) = self.world.budget_percent.filter(|_| node == 0 && first < bytes) {
            let spent = (watch.first + watch.repeats) * WIRE_PERCENT / 100;
            let budget = self.world.length * u64::from(percent) / 100;
            assert!(spent <= budget + BUDGET_SLACK, "{} bytes of repeats are beyond the budget", watch.repeats);
        }
    }
}
