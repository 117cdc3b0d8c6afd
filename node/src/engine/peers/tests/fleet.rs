//! Fleets of `Peers` in virtual time: only who knows whom, and who is connected to whom.
//!
//! A dial takes three round trips, a seed's processor one millisecond for each handshake, and a node
//! that has all the sessions it may have turns newcomers away.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use updraft_protocol::digest::Digest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{Control, Hello};

use super::super::{Peers, Tie, peer_of};
use crate::engine::effect::SwarmEffect;

/// One-way delay of every link.
const LATENCY_MS: u64 = 20;
const TICK_MS: u64 = 100;
/// Sessions that a node may have, and those that it lets in on top while there is a crowd.
const MOST: usize = 64;
const VISITORS: usize = 128;
/// Processor time of one handshake.
const HANDSHAKE_US: u64 = 1_000;

#[derive(Debug)]
enum Happening {
    Tick,
    /// A dial of `from` arrives, its handshake still to be done.
    Knock {
        from: usize,
    },
    Failed {
        peer: PeerId,
    },
    Up {
        with: usize,
        outbound: bool,
    },
    Identified {
        with: usize,
    },
    Said {
        from: usize,
        message: Control,
    },
    Down {
        with: usize,
    },
}

struct Node {
    peers: Peers,
    online: bool,
    links: BTreeSet<usize>,
    busy_until_us: u64,
    /// The most sessions that it had at once.
    most_links: usize,
}

struct Fleet {
    nodes: Vec<Node>,
    ids: BTreeMap<PeerId, usize>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, (usize, Happening)>,
    count: u64,
    now_us: u64,
    /// When each dial of node 0 arrived there, and whose it was.
    knocks: Vec<(u64, usize)>,
    messages: u64,
    /// No dial gets from a number below to one above, or back.
    split_at: Option<usize>,
    rng: SmallRng,
}

fn id(index: usize) -> PeerId {
    PeerId::from_bytes(&Digest::of(&index.to_be_bytes()).as_bytes()[..16]).expect("in bounds")
}

fn address(index: usize) -> String {
    format!("/ip4/10.{}.{}.{}/tcp/4880", index >> 16, index >> 8 & 255, index & 255)
}

fn repository() -> Digest {
    Digest::of(b"repository")
}

impl Fleet {
    /// A seed (number 0) and `count` peers that know only it and join within `spread_ms`.
    fn joining(count: usize, spread_ms: u64, random_seed: u64) -> Self {
        let mut fleet = Self {
            nodes: Vec::new(),
            ids: BTreeMap::new(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            count: 0,
            now_us: 0,
            knocks: Vec::new(),
            messages: 0,
            split_at: None,
            rng: SmallRng::seed_from_u64(random_seed),
        };
        for index in 0..=count {
            let mut peers = Peers::new(id(index), repository(), SmallRng::seed_from_u64(fleet.rng.random()));
            peers.set_limits(MOST, index == 0);
            if index > 0 {
                peers.add_ticket_addresses(&[format!("{}/p2p/{}", address(0), id(0))]);
            }
            fleet.ids.insert(id(index), index);
            let links = BTreeSet::new();
            fleet.nodes.push(Node { peers, online: true, links, busy_until_us: 0, most_links: 0 });
            let at_us = if index == 0 { 0 } else { fleet.rng.random_range(0..=spread_ms * 1_000) };
            fleet.schedule(at_us, index, Happening::Tick);
        }
        fleet
    }

    fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    fn schedule(&mut self, at_us: u64, index: usize, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((at_us, self.count)));
        self.happenings.insert(self.count, (index, happening));
    }

    fn later(&mut self, index: usize, trips: u64, happening: Happening) {
        self.schedule(self.now_us + trips * LATENCY_MS * 1_000, index, happening);
    }

    fn run_until(&mut self, end_ms: u64) {
        while let Some(Reverse((at_us, number))) = self.queue.peek().copied() {
            if at_us > end_ms * 1_000 {
                break;
            }
            self.queue.pop();
            self.now_us = at_us;
            if let Some((index, happening)) = self.happenings.remove(&number) {
                self.happen(index, happening);
            }
        }
        self.now_us = end_ms * 1_000;
    }

    fn happen(&mut self, index: usize, happening: Happening) {
        let now_ms = self.now_ms();
        match happening {
            Happening::Tick => {
                self.schedule(self.now_us + TICK_MS * 1_000, index, Happening::Tick);
                if !self.nodes[index].online {
                    return;
                }
                let peers = &mut self.nodes[index].peers;
                let mut effects = peers.dials(now_ms);
                for peer in peers.let_go(now_ms, |_| Tie::Idle) {
                    let message = Control::Goodbye { reason: String::new() };
                    effects.push(SwarmEffect::Control { peer: peer.clone(), message });
                    effects.push(SwarmEffect::Disconnect { peer });
                }
                effects.extend(peers.rotate(now_ms));
                effects.extend(peers.exchange(now_ms));
                self.carry_out(index, effects);
            }
            Happening::Knock { from } => self.knock(index, from),
            Happening::Failed { peer } => self.nodes[index].peers.dial_failed(Some(&peer), &[], now_ms),
            Happening::Up { with, outbound } => {
                if !self.nodes[index].links.contains(&with) {
                    return;
                }
                self.nodes[index].peers.connected(&id(with), address(with), outbound, now_ms);
                let hello = Hello { repository: repository().as_bytes().to_vec(), ..Hello::default() };
                self.later(with, 1, Happening::Said { from: index, message: Control::Hello(hello) });
                self.later(with, 2, Happening::Identified { with: index });
            }
            Happening::Identified { with } => {
                let peers = &mut self.nodes[index].peers;
                if peers.sessions().contains_key(&id(with)) {
                    peers.identified(&id(with), &[address(with)]);
                    if peers.is_ready(&id(with)) {
                        let effects = peers.introduce(&id(with), now_ms);
                        self.carry_out(index, effects);
                    }
                }
            }
            Happening::Said { from, message } => self.hear(index, from, message),
            Happening::Down { with } => {
                self.nodes[index].links.remove(&with);
                self.nodes[index].peers.disconnected(&id(with), now_ms);
            }
        }
    }

    fn knock(&mut self, index: usize, from: usize) {
        if index == 0 {
            self.knocks.push((self.now_ms(), from));
        }
        let node = &self.nodes[index];
        let is_cut = self.split_at.is_some_and(|at| (index < at) != (from < at));
        if is_cut || !node.online || !self.nodes[from].online || node.links.len() >= MOST + VISITORS {
            self.later(from, 1, Happening::Failed { peer: id(index) });
            return;
        }
        if node.links.contains(&from) {
            return;
        }
        let start_us = node.busy_until_us.max(self.now_us);
        let done_us = start_us + HANDSHAKE_US;
        let node = &mut self.nodes[index];
        node.busy_until_us = done_us;
        node.links.insert(from);
        node.most_links = node.most_links.max(node.links.len());
        self.nodes[from].links.insert(index);
        let handshake_us = 3 * LATENCY_MS * 1_000;
        self.schedule(done_us + handshake_us, index, Happening::Up { with: from, outbound: false });
        self.schedule(done_us + handshake_us, from, Happening::Up { with: index, outbound: true });
    }

    fn hear(&mut self, index: usize, from: usize, message: Control) {
        let now_ms = self.now_ms();
        let peer = id(from);
        if !self.nodes[index].links.contains(&from) {
            return;
        }
        let peers = &mut self.nodes[index].peers;
        let effects = match message {
            Control::Hello(hello) => {
                peers.hello(&peer, hello).expect("one hello, of one repository");
                peers.introduce(&peer, now_ms)
            }
            Control::Peers(records) => {
                let alone = records.len() == 1;
                for record in records {
                    peers.heard_of(&peer, &record.peer, &record.addresses, alone, now_ms);
                }
                peers.dials(now_ms)
            }
            Control::Goodbye { .. } => {
                peers.parted(&peer, now_ms);
                vec![SwarmEffect::Disconnect { peer }]
            }
            _ => Vec::new(),
        };
        self.carry_out(index, effects);
    }

    fn carry_out(&mut self, index: usize, effects: Vec<SwarmEffect>) {
        for effect in effects {
            match effect {
                SwarmEffect::Dial { peer, addresses } => {
                    let named = addresses.iter().find_map(|address| peer_of(address));
                    if let Some(other) = peer.or(named).and_then(|peer| self.ids.get(&peer).copied()) {
                        self.later(other, 1, Happening::Knock { from: index });
                    }
                }
                SwarmEffect::Control { peer, message } => {
                    self.messages += 1;
                    let other = self.ids[&peer];
                    self.later(other, 1, Happening::Said { from: index, message });
                }
                SwarmEffect::Disconnect { peer } => {
                    let other = self.ids[&peer];
                    self.part(index, other);
                }
                _ => {}
            }
        }
    }

    fn part(&mut self, one: usize, other: usize) {
        if self.nodes[one].links.remove(&other) {
            self.later(one, 0, Happening::Down { with: other });
            self.later(other, 1, Happening::Down { with: one });
        }
    }

    fn stop(&mut self, index: usize) {
        self.nodes[index].online = false;
        for other in self.nodes[index].links.clone() {
            self.part(index, other);
        }
    }

    /// Sessions that both ends agree on, of nodes other than the seed.
    fn graph(&self) -> Vec<BTreeSet<usize>> {
        let ready = |node: usize, other: usize| self.nodes[node].peers.is_ready(&id(other));
        (0..self.nodes.len())
            .map(|node| {
                let links = self.nodes[node].links.iter().copied();
                links.filter(|other| node > 0 && *other > 0 && ready(node, *other) && ready(*other, node)).collect()
            })
            .collect()
    }

    /// Sessions of each peer, fewest first; that with the seed counts.
    fn degrees(&self) -> Vec<usize> {
        let mut degrees: Vec<usize> = self.nodes[1..].iter().map(|node| node.peers.ready().len()).collect();
        degrees.sort_unstable();
        degrees
    }
}

/// How many hops the farthest peer is from `start`, and how many peers are reached at all.
fn spread(graph: &[BTreeSet<usize>], start: usize) -> (usize, usize) {
    let mut distance = BTreeMap::from([(start, 0)]);
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let next = distance[&node] + 1;
        for other in &graph[node] {
            distance.entry(*other).or_insert_with(|| {
                queue.push_back(*other);
                next
            });
        }
    }
    (distance.values().copied().max().unwrap_or(0), distance.len())
}

/// One line of the table in the report.
fn shape(fleet: &Fleet) -> String {
    let (degrees, graph) = (fleet.degrees(), fleet.graph());
    let (hops, reached) = spread(&graph, 1);
    let sum: usize = degrees.iter().sum();
    let count = degrees.len();
    format!(
        "t={:>6} ms  sessions min {} p5 {} median {} p95 {} max {} mean {:.1}  seed {} (most {})  without the seed: {} of {} in {} hops  dials to seed {}  messages {}",
        fleet.now_ms(),
        degrees[0],
        degrees[count / 20],
        degrees[count / 2],
        degrees[count * 19 / 20],
        degrees[count - 1],
        f64::from(u32::try_from(sum).expect("few")) / f64::from(u32::try_from(count).expect("few")),
        fleet.nodes[0].links.len(),
        fleet.nodes[0].most_links,
        reached,
        count,
        hops,
        fleet.knocks.len(),
        fleet.messages,
    )
}

/// Sessions between two sets of peers.
fn between(graph: &[BTreeSet<usize>], one: std::ops::Range<usize>, other: &std::ops::Range<usize>) -> usize {
    one.map(|node| graph[node].iter().filter(|peer| other.contains(*peer)).count()).sum()
}

#[test]
fn a_fleet_that_knows_only_the_seed_is_a_random_graph_within_seconds() {
    let mut fleet = Fleet::joining(32, 0, 1);
    fleet.run_until(1_500);
    assert!(fleet.degrees()[0] >= 5, "{}", shape(&fleet));
    assert_eq!(spread(&fleet.graph(), 1).1, 32, "without the seed: {}", shape(&fleet));
    fleet.run_until(30_000);
    let (degrees, (hops, _)) = (fleet.degrees(), spread(&fleet.graph(), 1));
    assert!(degrees[0] >= 10 && degrees[31] <= 16 && hops <= 3, "{}", shape(&fleet));
    let dials = fleet.knocks.len();
    fleet.run_until(240_000);
    assert_eq!(fleet.knocks.len(), dials, "a settled fleet leaves its seed in peace");
}

#[test]
fn a_crowd_joins_through_one_seed_that_keeps_its_share_of_sessions() {
    let mut fleet = Fleet::joining(300, 0, 2);
    fleet.run_until(5_000);
    let (_, reached) = spread(&fleet.graph(), 1);
    assert!(reached >= 290, "{}", shape(&fleet));
    fleet.run_until(40_000);
    let (hops, reached) = spread(&fleet.graph(), 1);
    assert!(reached == 300 && hops <= 5, "{}", shape(&fleet));
    let degrees = fleet.degrees();
    assert!(degrees[0] >= 9 && degrees[299] <= 17, "{}", shape(&fleet));
    assert!(fleet.nodes[0].most_links <= MOST + VISITORS && fleet.nodes[0].links.len() <= MOST / 2 + 1);
}

#[test]
fn peers_that_join_one_after_another_are_no_chain() {
    let mut fleet = Fleet::joining(300, 60_000, 3);
    fleet.run_until(90_000);
    let (hops, reached) = spread(&fleet.graph(), 1);
    assert!(reached == 300 && hops <= 5, "{}", shape(&fleet));
}

#[test]
fn a_seed_that_comes_back_is_not_dialled_by_everybody_at_once() {
    let mut fleet = Fleet::joining(1_000, 10_000, 4);
    fleet.stop(0);
    fleet.run_until(120_000);
    fleet.nodes[0].online = true;
    fleet.knocks.clear();
    fleet.run_until(130_000);
    let mut first = BTreeMap::<usize, u64>::new();
    for (at_ms, from) in &fleet.knocks {
        first.entry(*from).or_insert(*at_ms);
    }
    let mut per_second = BTreeMap::<u64, usize>::new();
    for at_ms in first.values() {
        *per_second.entry(at_ms / 1_000).or_default() += 1;
    }
    assert_eq!(first.len(), 1_000, "all are back within seconds");
    assert!(per_second.values().all(|dials| *dials <= 250), "{per_second:?}");
}

#[test]
fn two_halves_that_lost_each_other_find_together_again() {
    let mut fleet = Fleet::joining(60, 0, 5);
    fleet.run_until(30_000);
    let (one, other) = (1..31, 31..61);
    fleet.split_at = Some(31);
    fleet.stop(0);
    for node in one.clone() {
        for peer in fleet.nodes[node].links.clone().into_iter().filter(|peer| other.contains(peer)) {
            fleet.part(node, peer);
        }
    }
    fleet.run_until(600_000);
    assert_eq!(between(&fleet.graph(), one.clone(), &other), 0);
    let (_, reached) = spread(&fleet.graph(), 1);
    assert_eq!(reached, 30, "each half is whole: {}", shape(&fleet));
    fleet.split_at = None;
    fleet.run_until(900_000);
    assert!(between(&fleet.graph(), one.clone(), &other) > 0, "{}", shape(&fleet));
    fleet.run_until(3_600_000);
    assert!(between(&fleet.graph(), one, &other) > 30, "{}", shape(&fleet));
}

#[test]
fn neighbours_change_over_hours_and_the_graph_stays_whole() {
    let mut fleet = Fleet::joining(40, 0, 6);
    fleet.run_until(60_000);
    let before = fleet.graph();
    fleet.run_until(2 * 3_600_000);
    let after = fleet.graph();
    let kept: usize = (1..=40).map(|node| before[node].intersection(&after[node]).count()).sum();
    let all: usize = before.iter().map(BTreeSet::len).sum();
    assert!(kept * 2 < all, "{kept} of {all} sessions are the same");
    let degrees = fleet.degrees();
    assert!(degrees[0] >= 9 && degrees[39] <= 17, "{}", shape(&fleet));
    assert_eq!(spread(&after, 1).1, 40);
}

#[test]
#[ignore = "prints the table of the report"]
#[allow(clippy::print_stderr, reason = "a table for people")]
fn table() {
    for (count, spread_ms) in [(8, 100), (32, 500), (32, 0), (200, 0), (1_000, 0), (10_000, 0), (1_000, 60_000)] {
        let mut fleet = Fleet::joining(count, spread_ms, 1);
        eprintln!("{count} peers within {spread_ms} ms");
        for at_ms in [500, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000] {
            fleet.run_until(at_ms);
            eprintln!("  {}", shape(&fleet));
        }
    }
}
