//! The model of a link: every node sends through one uplink of a fixed rate, on which its sessions take
//! turns in 16 KiB parts, as TCP flows do; a session takes 256 KiB from the scheduler before it pushes
//! back. What was sent arrives after the latency, through the receiver's downlink where that is capped,
//! and through the link between two sites where it crosses one. Loss is delay: a lost part holds up its
//! session for three latencies. Control messages have the latency only. Headers cost nothing, so times
//! compare to the fluid bound.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt as _;
use updraft_protocol::transfer::BlockRange;

use super::{Event, SwarmModel};

/// Bytes of one turn on an uplink.
const PART_BYTES: u64 = 16 * 1024;
/// Bytes that a session takes before it pushes back.
const SOCKET_BYTES: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct Part {
    pub(super) to: usize,
    pub(super) handle: u32,
    pub(super) block: BlockRange,
    pub(super) left: u64,
    /// The scheduler was told that the network has it.
    pub(super) reported: bool,
}

/// The uplink of a node: what its sessions have to send.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    /// Blocks taken from the scheduler, by receiver.
    pub(super) sockets: BTreeMap<usize, VecDeque<Part>>,
    pub(super) turns: VecDeque<usize>,
    pub(super) busy: bool,
}

impl SwarmModel {
    /// The uplink takes the next part.
    pub(super) fn transmit(&mut self, node: usize) {
        let uplink = &mut self.nodes[node].uplink;
        if uplink.busy {
            return;
        }
        let Some((to, part, taken)) = (loop {
            let Some(to) = uplink.turns.pop_front() else { break None };
            let Some(socket) = uplink.sockets.get_mut(&to) else { continue };
            let Some(part) = socket.front_mut() else { continue };
            let taken = part.left.min(PART_BYTES);
            part.left -= taken;
            let whole = (part.left == 0).then(|| socket.pop_front()).flatten();
            if !socket.is_empty() {
                uplink.turns.push_back(to);
            }
            break Some((to, whole, taken));
        }) else {
            return;
        };
        uplink.busy = true;
        let host = self.nodes[node].host;
        let takes_us = taken * 1_000_000 / host.upload.max(1);
        self.nodes[node].sent_bytes += taken;
        self.schedule(takes_us, node, Event::UplinkFree);
        self.report_taken(node, to, takes_us);
        let Some(part) = part else { return };
        let mut after_us = takes_us + self.world.latency_us;
        let bytes = u64::from(part.block.length);
        let there = self.nodes[to].host;
        if let Some(rate) = self.world.between_sites.filter(|_| host.site != there.site) {
            let free_us = &mut self.site_free_us[usize::from(host.site > there.site)];
            *free_us = (*free_us).max(self.now_us + after_us) + bytes * 1_000_000 / rate;
            after_us = *free_us - self.now_us;
        }
        if self.world.loss_ppm > 0 {
            for _ in 0..bytes.div_ceil(PART_BYTES) {
                if self.rng.random_range(0..1_000_000) < self.world.loss_ppm {
                    after_us += 3 * self.world.latency_us;
                }
            }
        }
        if let Some(rate) = there.download {
            let free_us = &mut self.nodes[to].downlink_free_us;
            *free_us = (*free_us).max(self.now_us + after_us) + bytes * 1_000_000 / rate.max(1);
            after_us = *free_us - self.now_us;
        }
        let Part { to, handle, block, .. } = part;
        self.schedule(after_us, to, Event::Block { from: node, handle, block });
    }

    /// Tells the scheduler of the blocks that now fit into the socket.
    pub(super) fn report_taken(&mut self, node: usize, to: usize, after_us: u64) {
        let Some(socket) = self.nodes[node].uplink.sockets.get_mut(&to) else { return };
        let mut before = 0;
        let mut taken = Vec::new();
        for part in socket.iter_mut() {
            if before >= SOCKET_BYTES {
                break;
            }
            before += part.left;
            if !part.reported {
                part.reported = true;
                taken.push(part.block);
            }
        }
        for block in taken {
            self.schedule(after_us, node, Event::Sent { to, block });
        }
    }
}
