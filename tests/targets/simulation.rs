//! Fleets in virtual time: the engine of a real node, links and stores that are models.

use std::collections::{BTreeMap, BTreeSet};

use updraft::engine::effect::{Effect, EventKind, Save};
use updraft::engine::input::{Input, Now};
use updraft::engine::memory::Memory;
use updraft::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use updraft_protocol::names::Platform;
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;
use updraft_tests::repository::TestRepository;
use updraft_tests::virtual_network::{Backup, LinkModel, VirtualNetwork};

const LINKS: LinkModel =
    LinkModel { latency_ms: 5, seed_upload_bytes_per_second: 12_500_000, peer_upload_bytes_per_second: 12_500_000 };

fn artifact(mebibytes: usize, salt: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32.wrapping_add(u32::from(salt));
    let mut bytes = Vec::with_capacity(mebibytes << 20);
    while bytes.len() < mebibytes << 20 {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes
}

fn fleet(peers: usize, random_seed: u64) -> (VirtualNetwork, TestRepository) {
    let mut network = VirtualNetwork::new(LINKS, random_seed);
    let repository = TestRepository::new(network.wall());
    for _ in 0..=peers {
        network.add(&repository, true);
    }
    (network, repository)
}

fn all_installed(network: &VirtualNetwork, peers: std::ops::RangeInclusive<usize>, version: &str) -> bool {
    peers.clone().all(|peer| network.has_installed(peer, version))
}

#[test]
fn a_release_reaches_every_peer_and_most_bytes_come_from_peers() {
    let (mut network, mut repository) = fleet(8, 1);
    assert!(network.run_until(5_000, |n| (1..=8).all(|peer| n.head_version(peer) == 1)), "peers never joined");
    network.publish(&mut repository, "1.0.0", &artifact(16, 1));
    let start_ms = network.elapsed_ms();
    let done = network.run_until(60_000, |n| all_installed(n, 1..=8, "1.0.0"));
    assert!(done, "not installed everywhere: {:?}", network.events(1));
    let bound_ms = (16 << 20) * 1_000 / 12_500_000;
    let took_ms = network.elapsed_ms() - start_ms;
    assert!(took_ms < bound_ms * 4, "{took_ms} ms, the bound is {bound_ms} ms");
    let copies_percent = network.bytes_sent(0) * 100 / (16 << 20);
    assert!(copies_percent < 400, "{copies_percent} % of the artifact left the seed");
}

#[test]
fn a_peer_that_was_cut_off_is_current_seconds_after_it_is_back() {
    let (mut network, mut repository) = fleet(3, 2);
    assert!(network.run_until(5_000, |n| (1..=3).all(|peer| n.head_version(peer) == 1)));
    network.disconnect(3);
    network.publish(&mut repository, "1.0.0", &artifact(1, 1));
    assert!(network.run_until(20_000, |n| all_installed(n, 1..=2, "1.0.0")));
    assert!(!network.has_installed(3, "1.0.0"));
    network.run_until(60_000, |_| false);
    network.reconnect(3);
    assert!(network.run_until(12_000, |n| n.has_installed(3, "1.0.0")), "{:?}", network.events(3));
}

#[test]
fn peers_go_on_updating_each_other_without_the_seed() {
    let (mut network, mut repository) = fleet(4, 3);
    assert!(network.run_until(5_000, |n| (1..=4).all(|peer| n.head_version(peer) == 1)));
    network.disconnect(4);
    network.publish(&mut repository, "1.0.0", &artifact(2, 1));
    assert!(network.run_until(20_000, |n| all_installed(n, 1..=3, "1.0.0")));
    network.disconnect(0);
    network.reconnect(4);
    assert!(network.run_until(30_000, |n| n.has_installed(4, "1.0.0")), "{:?}", network.events(4));
}

#[test]
fn a_liar_is_banned_and_everybody_finishes() {
    let (mut network, mut repository) = fleet(4, 4);
    assert!(network.run_until(5_000, |n| (1..=4).all(|peer| n.head_version(peer) == 1)));
    network.rot(2);
    network.publish(&mut repository, "1.0.0", &artifact(8, 1));
    assert!(network.run_until(60_000, |n| all_installed(n, 1..=4, "1.0.0")));
    let blamed = [1, 3, 4].into_iter().filter(|peer| network.told(*peer, EventKind::PeerBlamed)).count();
    assert!(blamed > 0, "nobody noticed");
}

#[test]
fn updates_follow_one_another_and_the_last_one_wins() {
    let (mut network, mut repository) = fleet(3, 5);
    assert!(network.run_until(5_000, |n| (1..=3).all(|peer| n.head_version(peer) == 1)));
    for (patch, salt) in (0..5).zip(1..) {
        network.publish(&mut repository, &format!("1.0.{patch}"), &artifact(4, salt));
        network.run_until(300, |_| false);
    }
    assert!(network.run_until(60_000, |n| all_installed(n, 1..=3, "1.0.4")), "{:?}", network.events(1));
}

#[test]
fn one_seed_of_randomness_makes_one_run() {
    let run = || {
        let (mut network, mut repository) = fleet(5, 77);
        network.run_until(3_000, |_| false);
        network.publish(&mut repository, "1.0.0", &artifact(4, 1));
        network.run_until(30_000, |n| all_installed(n, 1..=5, "1.0.0"));
        (network.elapsed_ms(), (0..=5).map(|node| network.bytes_sent(node)).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_split_view_is_found_spreads_stops_installs_and_ends_with_a_new_key() {
    let (mut network, mut repository) = fleet(5, 11);
    assert!(network.run_until(5_000, |n| (1..=5).all(|peer| n.head_version(peer) == 1)));
    // Whoever has the timestamp key shows a node that is cut off another head 2 than the others.
    network.disconnect(5);
    let mut fork = repository.clone();
    fork.resign(network.wall().plus_seconds(1));
    network.tell(5, &fork);
    network.publish(&mut repository, "1.0.0", &artifact(1, 1));
    assert!(network.run_until(20_000, |n| all_installed(n, 1..=4, "1.0.0")));
    assert_eq!((network.head_version(5), network.head_version(1)), (2, 2));

    network.reconnect(5);
    let warned = |n: &VirtualNetwork| (0..=5).all(|node| n.told(node, EventKind::Equivocation));
    assert!(network.run_until(20_000, warned), "{:?}", network.events(1));
    for node in 0..=5 {
        let found = &network.engine(node).catalog().expect("joined").contradictions;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].versions, (2, 2));
    }

    network.publish(&mut repository, "1.1.0", &artifact(1, 2));
    network.run_until(60_000, |_| false);
    assert!((1..=5).all(|peer| !network.has_installed(peer, "1.1.0")), "installed in spite of the proof");

    repository.rotate_timestamp_key(network.wall());
    network.tell(0, &repository);
    let done = network.run_until(60_000, |n| all_installed(n, 1..=5, "1.1.0"));
    assert!(done, "{:?}", network.events(5));
    for node in 0..=5 {
        assert!(network.engine(node).catalog().expect("joined").contradictions.is_empty());
        assert!(network.told(node, EventKind::EquivocationCleared));
    }
}

#[test]
fn a_node_that_joins_later_hears_of_the_proof() {
    let (mut network, mut repository) = fleet(2, 12);
    assert!(network.run_until(5_000, |n| (1..=2).all(|peer| n.head_version(peer) == 1)));
    network.disconnect(2);
    let mut fork = repository.clone();
    fork.resign(network.wall().plus_seconds(1));
    network.tell(2, &fork);
    network.publish(&mut repository, "1.0.0", &artifact(1, 1));
    assert!(network.run_until(20_000, |n| n.has_installed(1, "1.0.0")));
    network.reconnect(2);
    assert!(network.run_until(20_000, |n| n.told(1, EventKind::Equivocation)));
    let late = network.add(&repository, true);
    assert!(network.run_until(20_000, |n| n.told(late, EventKind::Equivocation)), "{:?}", network.events(late));
    network.run_until(20_000, |_| false);
    assert!(!network.has_installed(late, "1.0.0"));
}

#[test]
fn a_node_with_an_old_root_is_brought_forward_by_its_neighbours() {
    let (mut network, mut repository) = fleet(3, 13);
    assert!(network.run_until(5_000, |n| (1..=3).all(|peer| n.head_version(peer) == 1)));
    network.disconnect(3);
    for _ in 0..3 {
        repository.rotate_timestamp_key(network.wall());
        network.tell(0, &repository);
    }
    assert!(network.run_until(20_000, |n| (1..=2).all(|peer| n.engine(peer).root_version() == 4)));
    network.disconnect(0);
    network.reconnect(3);
    assert!(network.run_until(20_000, |n| n.engine(3).root_version() == 4), "{:?}", network.events(3));
    assert!((1..=3).all(|node| !network.told(node, EventKind::PeerBlamed)));
}

#[test]
fn a_seed_says_so_when_somebody_else_signs_with_its_keys() {
    let (mut network, mut repository) = fleet(2, 15);
    assert!(network.run_until(5_000, |n| (1..=2).all(|peer| n.head_version(peer) == 1)));
    network.publish(&mut repository, "1.0.0", &artifact(1, 1));
    assert!(network.run_until(20_000, |n| all_installed(n, 1..=2, "1.0.0")));
    assert!(!network.told(0, EventKind::Alarm), "its own heads are no news");
    repository.resign(network.wall().plus_seconds(1));
    network.tell(2, &repository);
    assert!(network.run_until(20_000, |n| n.head_version(0) == 3));
    assert!(network.told(0, EventKind::Alarm), "{:?}", network.events(0));
}

#[test]
fn proof_against_a_key_survives_a_restart() {
    let mut network = VirtualNetwork::new(LINKS, 14);
    let repository = TestRepository::new(network.wall());
    network.add(&repository, true);
    let mut saved = BTreeMap::new();
    let start = |saved: &BTreeMap<String, Vec<u8>>| network.restart_alone(&repository, |name| saved.get(name).cloned());
    let (mut engine, _) = start(&saved);
    let mut fork = repository.clone();
    fork.resign(network.wall().plus_seconds(1));
    let mut other = repository.clone();
    other.resign(network.wall().plus_seconds(2));
    for told in [&fork, &other] {
        let input = Input::Published { head: told.signed.head.clone(), files: told.signed.files.clone() };
        for effect in engine.handle(input, network.now()) {
            if let Effect::Save(saves) = effect {
                saved.extend(saves.into_iter().filter_map(|save| match save {
                    Save::Metadata { name, bytes } => Some((name, bytes)),
                    Save::Target { .. } | Save::Memory(_) => None,
                }));
            }
        }
    }
    assert_eq!(engine.catalog().expect("owned").contradictions.len(), 1);
    let (again, _) = start(&saved);
    assert_eq!(again.catalog().expect("owned").contradictions, engine.catalog().expect("owned").contradictions);
}

#[test]
fn a_seed_restored_from_a_backup_takes_over_its_peers_head_and_never_forks() {
    let (mut network, mut repository) = fleet(4, 6);
    assert!(network.run_until(5_000, |n| (1..=4).all(|peer| n.head_version(peer) == 1)));
    let backup = Backup::of(&repository);
    for (version, salt) in [("1.0.0", 1), ("1.1.0", 2)] {
        network.publish(&mut repository, version, &artifact(1, salt));
        assert!(network.run_until(30_000, |n| all_installed(n, 1..=4, version)));
    }
    network.restore_seed(&backup);
    assert_eq!(network.head_version(0), 1, "the backup is old");
    assert!(!network.may_sign());
    assert!(network.run_until(9_000, VirtualNetwork::may_sign), "{:?}", network.events(0));
    assert_eq!(network.head_version(0), 3, "it adopted the head before it might sign");
    assert!(network.told(0, EventKind::HeadAdopted));
    network.sign_again();
    assert!(network.run_until(30_000, |n| (0..=4).all(|node| n.head_version(node) == 4)));
    let forks = (0..=4).filter(|node| network.told(*node, EventKind::Equivocation)).count();
    assert_eq!(forks, 0, "{:?}", network.events(1));
}

/// Seconds after its last signature at which a seed asks to sign again.
fn signs_again_after_s(random_seed: u64) -> i64 {
    let signed_at = UtcTime::from_unix(1_800_000_000);
    let repository = TestRepository::new(signed_at);
    let mut metadata = BTreeMap::from([("1.root.json".to_owned(), repository.root.clone())]);
    for save in updraft::publisher::in_order(&repository.signed) {
        if let Save::Metadata { name, bytes } = save {
            metadata.insert(name, bytes);
        }
    }
    let config = EngineConfig {
        me: PeerId::from_bytes(&[1; 38]).expect("as long as a peer id"),
        repository: repository.id,
        ticket: None,
        is_seed: true,
        platform: Platform::any(),
        agent: "virtual".to_owned(),
        random_seed,
        adopt_wait_ms: 0,
        limits: updraft::engine::limits::Limits::default(),
        egress_budget_percent: None,
    };
    let found = Restored {
        metadata: &MetadataReader(&|name| metadata.get(name).cloned()),
        target: &TargetReader(&|_| None),
        artifacts: Vec::new(),
        subscriptions: Vec::new(),
        peers: Vec::new(),
        memory: Memory::default(),
        bans: Vec::new(),
    };
    let start = Now { wall: signed_at, mono_ms: 0 };
    let (mut engine, _) = Engine::restore(config, found, start).expect("a good repository");
    let asks = |after_s: &i64| {
        let mono_ms = u64::try_from(*after_s).expect("later") * 1_000;
        let effects = engine.handle(Input::Tick, Now { wall: signed_at.plus_seconds(*after_s), mono_ms });
        effects.iter().any(|effect| matches!(effect, Effect::Resign))
    };
    (60..12 * 3_600).step_by(60).find(asks).expect("a seed signs again")
}

#[test]
fn seeds_sign_again_after_six_hours_a_tenth_more_or_less_and_not_together() {
    let waits: Vec<i64> = (0..12).map(signs_again_after_s).collect();
    for wait_s in &waits {
        assert!((19_440..=23_760 + 60).contains(wait_s), "{wait_s}");
    }
    let distinct: BTreeSet<&i64> = waits.iter().collect();
    assert!(distinct.len() > 6, "{waits:?}");
}
