//! Who is there, where, and connected to whom.

use core::net::{IpAddr, Ipv4Addr};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use updraft::engine::fetch::Fetch;
use updraft_protocol::peer::PeerId;

use super::invariants::Watch;
use super::links::Uplink;
use super::{Event, SwarmModel, id};

impl SwarmModel {
    /// A node dies: nothing that is not yet sent leaves it.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].online = false;
        self.nodes[node].uplink = Uplink::default();
        for other in std::mem::take(&mut self.nodes[node].sessions) {
            self.part(other, node);
        }
        let now_ms = self.now_ms();
        let others: Vec<PeerId> = (0..self.nodes.len()).filter(|other| *other != node).map(id).collect();
        for other in others {
            let _ = self.nodes[node].fetch.disconnected(&other, now_ms);
        }
        self.nodes[node].asked.clear();
        self.nodes[node].pieces.lose();
    }

    /// A node that died starts again with the pieces that it has.
    pub fn revive(&mut self, node: usize) {
        let mut fetch = Fetch::new(id(node), node == 0, SmallRng::seed_from_u64(self.rng.random()));
        assert!(fetch.add(self.object, self.manifest.clone(), self.nodes[node].have.clone()), "there is room");
        self.nodes[node].fetch = fetch;
        self.nodes[node].watch = Watch::new(&self.nodes[node].have);
        self.schedule(0, node, Event::Join);
    }

    /// Nothing passes any more between nodes below `border` and the others.
    pub fn divide(&mut self, border: usize) {
        self.partition = Some(border);
        for one in 0..border {
            for other in self.nodes[one].sessions.clone().into_iter().filter(|other| *other >= border) {
                self.part(one, other);
                self.part(other, one);
            }
        }
    }

    /// The two halves see each other again.
    pub fn unite(&mut self) {
        self.partition = None;
        for node in 0..self.nodes.len() {
            if self.nodes[node].online {
                self.find_neighbours(node);
            }
        }
    }

    /// Where a node is, as others see it: in 10.0.0.0/16 or in 10.1.0.0/16, 250 to a subnet.
    pub(super) fn address(&self, node: usize) -> IpAddr {
        let byte = |number: usize| u8::try_from(number).expect("at most 62,500 nodes");
        Ipv4Addr::new(10, self.nodes[node].host.site, byte(node / 250), byte(1 + node % 250)).into()
    }

    fn connected(&self, one: usize, other: usize) -> bool {
        let together = self.partition.is_none_or(|border| (one < border) == (other < border));
        let banned = self.nodes[one].bans.contains(&other) || self.nodes[other].bans.contains(&one);
        self.nodes[other].online && self.nodes[one].online && together && !banned
    }

    /// A node dials the seed while that has room, and some of those who are there.
    pub(super) fn find_neighbours(&mut self, node: usize) {
        if node != 0 && self.nodes[0].sessions.len() < self.world.seed_sessions {
            self.connect(node, 0);
        }
        let nodes = self.nodes.len();
        if node == 0 {
            for other in 1..nodes {
                if self.nodes[0].sessions.len() < self.world.seed_sessions {
                    self.connect(0, other);
                }
            }
            return;
        }
        for _ in 0..4 * self.world.neighbours {
            if self.nodes[node].sessions.len() >= self.world.neighbours || nodes < 3 {
                break;
            }
            let other = self.rng.random_range(1..nodes);
            if other != node && self.nodes[other].sessions.len() < 2 * self.world.neighbours {
                self.connect(node, other);
            }
        }
    }

    pub(super) fn connect(&mut self, one: usize, other: usize) -> bool {
        if !self.connected(one, other) || !self.nodes[one].sessions.insert(other) {
            return false;
        }
        self.nodes[other].sessions.insert(one);
        let latency_us = self.world.latency_us;
        self.schedule(2 * latency_us, one, Event::Connected { with: other });
        self.schedule(2 * latency_us, other, Event::Connected { with: one });
        true
    }

    pub(super) fn part(&mut self, node: usize, from: usize) {
        self.nodes[node].sessions.remove(&from);
        self.nodes[node].asked.retain(|(peer, _)| *peer != from);
        self.nodes[node].uplink.sockets.remove(&from);
        let (peer, now_ms) = (self.nodes[from].id.clone(), self.now_ms());
        let outcome = self.nodes[node].fetch.disconnected(&peer, now_ms);
        self.carry_out(node, outcome);
    }
}
