//! What a node knows of peers and whom it dials, in one node and (`fleet`) in whole fleets.

mod fleet;

use super::back_off::NEAR_BACK_OFF_MS;
use super::*;
use crate::engine::effect::SwarmEffect;
use rand::SeedableRng as _;
use updraft_protocol::transfer::Control;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[n; 8]).expect("in bounds")
}

fn peers() -> Peers {
    Peers::new(peer(0), Digest::of(b"repository"), SmallRng::seed_from_u64(1))
}

fn ready(peers: &mut Peers, n: u8, address: &str) {
    peers.connected(&peer(n), address.to_owned(), true, 0);
    let hello = Hello { repository: Digest::of(b"repository").as_bytes().to_vec(), ..Hello::default() };
    peers.hello(&peer(n), hello).expect("the right repository");
}

#[test]
fn a_dead_ticket_address_is_tried_again_within_seconds_and_never_twice_at_once() {
    let mut peers = peers();
    let address = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1));
    peers.add_ticket_addresses(&[address]);
    for round in 0..20_u64 {
        let now_ms = round * NEAR_BACK_OFF_MS;
        assert_eq!(peers.dials(now_ms).len(), 1, "round {round}");
        assert_eq!(peers.dials(now_ms).len(), 0, "already dialling");
        peers.dial_failed(Some(&peer(1)), &[], now_ms);
    }
}

#[test]
fn loopback_addresses_are_told_to_neighbours_on_this_host_only() {
    let mut peers = peers();
    ready(&mut peers, 1, "/ip4/127.0.0.1/tcp/10");
    ready(&mut peers, 2, "/ip4/127.0.0.1/tcp/20");
    ready(&mut peers, 3, "/ip4/192.0.2.7/tcp/30");
    let told: Vec<PeerId> = peers
        .introduce(&peer(1), 0)
        .into_iter()
        .filter_map(|effect| match effect {
            SwarmEffect::Control { peer: to, message: Control::Peers(records) } => {
                records.iter().any(|record| record.peer == peer(1)).then_some(to)
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [peer(2)]);
}

#[test]
fn a_peer_of_another_repository_is_parted_from() {
    let mut peers = peers();
    peers.connected(&peer(1), "/ip4/192.0.2.1/tcp/1".to_owned(), true, 0);
    let hello = Hello { repository: vec![9; 32], ..Hello::default() };
    assert!(peers.hello(&peer(1), hello).is_err());
    assert!(!peers.is_ready(&peer(1)));
}

#[test]
fn a_claimed_root_is_asked_for_once_in_a_while_and_remembered() {
    let mut peers = peers();
    ready(&mut peers, 1, "/ip4/10.0.0.1/tcp/1");
    peers.heard_head(&peer(1), 5, 0);
    assert!(peers.claims_root(&peer(1), 5) && !peers.claims_root(&peer(1), 6));
    assert!(peers.may_be_asked_for_root(&peer(1), 2, 0));
    assert!(!peers.may_be_asked_for_root(&peer(1), 2, ROOT_CLAIM_MS - 1));
    assert!(peers.may_be_asked_for_root(&peer(1), 3, 1), "the next root of a chain is not delayed");
    assert!(peers.may_be_asked_for_root(&peer(1), 3, ROOT_CLAIM_MS + 1));
    assert!(!peers.may_be_asked_for_root(&peer(2), 2, 0), "there is no session");
}

#[test]
fn a_peer_that_is_behind_is_told_so_once_in_a_while() {
    let mut peers = peers();
    ready(&mut peers, 1, "/ip4/10.0.0.1/tcp/1");
    assert!(peers.may_be_helped(&peer(1), 0));
    assert!(!peers.may_be_helped(&peer(1), HELP_MS - 1));
    assert!(peers.may_be_helped(&peer(1), HELP_MS));
}

#[test]
fn a_full_neighbourhood_dials_nobody() {
    let mut peers = peers();
    for n in 1..=12 {
        ready(&mut peers, n, &format!("/ip4/192.0.2.{n}/tcp/1"));
    }
    peers.discovered(&peer(99), &["/ip4/192.0.2.99/tcp/1".to_owned()]);
    assert!(peers.dials(0).is_empty());
}

#[test]
fn those_who_connect_first_do_not_decide_whom_a_node_dials() {
    let mut peers = peers();
    for n in 1..=40 {
        peers.connected(&peer(n), format!("/ip4/192.0.2.{n}/tcp/1"), false, 0);
    }
    peers.discovered(&peer(99), &["/ip4/192.0.2.99/tcp/1".to_owned()]);
    assert_eq!(peers.dials(0).len(), 1);
}

#[test]
fn a_neighbour_that_invents_peers_crowds_out_nobody_elses_word() {
    let mut peers = peers();
    ready(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
    ready(&mut peers, 2, "/ip4/192.0.2.2/tcp/1");
    let address = ["/ip4/192.0.2.99/tcp/1".to_owned()];
    for number in 0..10_000_u32 {
        let invented = PeerId::from_bytes(&[&[0_u8][..], &number.to_be_bytes()].concat()).expect("in bounds");
        peers.heard_of(&peer(1), &invented, &address, false, 0);
    }
    assert!(peers.known.len() <= MAX_HEARSAY + 2);
    peers.heard_of(&peer(2), &peer(77), &address, false, 0);
    let dialled: Vec<Option<PeerId>> = peers
        .dials(0)
        .into_iter()
        .filter_map(|effect| match effect {
            SwarmEffect::Dial { peer, .. } => Some(peer),
            _ => None,
        })
        .collect();
    assert!(dialled.contains(&Some(peer(77))), "{dialled:?}");
}
