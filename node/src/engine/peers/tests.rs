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

fn visits(peers: &mut Peers, n: u8, now_ms: u64) {
    peers.connected(&peer(n), format!("/ip4/192.0.2.{n}/tcp/1"), false, now_ms);
    let hello = Hello { repository: Digest::of(b"repository").as_bytes().to_vec(), ..Hello::default() };
    peers.hello(&peer(n), hello).expect("the right repository");
    let _ = peers.introduce(&peer(n), now_ms);
}

#[test]
fn visitors_without_end_do_not_fill_the_memory() {
    let mut peers = peers();
    peers.add_ticket_addresses(&[format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1))]);
    for number in 0..3_000_u32 {
        let visitor = PeerId::from_bytes(&[&[0_u8][..], &number.to_be_bytes()].concat()).expect("in bounds");
        peers.connected(&visitor, "/ip4/192.0.2.99/tcp/1".to_owned(), false, 0);
        peers.identified(&visitor, &["/ip4/192.0.2.99/tcp/1".to_owned()]);
        peers.disconnected(&visitor, 1);
    }
    assert!(peers.known.len() <= MAX_KNOWN);
    assert!(peers.is_of_ticket(&peer(1)), "the ticket is never forgotten");
}

#[test]
fn a_stranger_cannot_make_a_node_dial_its_own_machine() {
    let mut peers = peers();
    ready(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
    ready(&mut peers, 2, "/ip4/127.0.0.1/tcp/1");
    let mut dialled = |from: u8, about: u8, addresses: &[&str]| {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        peers.heard_of(&peer(from), &peer(about), &addresses, false, 0);
        peers.dials(0)
    };
    assert_eq!(dialled(1, 50, &["/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/22", "/ip4/169.254.1.1/tcp/80"]), []);
    let wide = "/ip4/192.0.2.51/tcp/1".to_owned();
    let only_wide = SwarmEffect::Dial { peer: Some(peer(51)), addresses: vec![wide.clone()] };
    assert_eq!(dialled(1, 51, &["/ip4/127.0.0.1/tcp/22", &wide]), [only_wide]);
    assert_eq!(dialled(2, 52, &["/ip4/127.0.0.1/tcp/22"]).len(), 1, "a neighbour on this machine may");
    assert_eq!(dialled(99, 53, &[&wide]), [], "who has no session says nothing");
}

#[test]
fn what_others_say_does_not_replace_where_a_peer_was_reached() {
    let mut peers = peers();
    ready(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
    ready(&mut peers, 2, "/ip4/192.0.2.2/tcp/1");
    let rumour = ["/ip4/203.0.113.66/tcp/1".to_owned()];
    peers.heard_of(&peer(1), &peer(2), &rumour, false, 0);
    assert_eq!(peers.addresses(&peer(2)), ["/ip4/192.0.2.2/tcp/1"]);
    peers.disconnected(&peer(2), 0);
    peers.dial_failed(Some(&peer(2)), &[], 0);
    peers.heard_of(&peer(1), &peer(2), &rumour, false, 0);
    assert_eq!(peers.addresses(&peer(2)).len(), 2, "it may have moved");
}

#[test]
fn a_node_with_many_neighbours_lets_go_of_visitors_it_does_not_need() {
    let mut peers = peers();
    peers.set_limits(64, false);
    ready(&mut peers, 200, "/ip4/192.0.2.200/tcp/1");
    for n in 1..=40 {
        visits(&mut peers, n, 0);
    }
    assert_eq!(peers.let_go(1_000, |_| Tie::Idle), [], "they have just come");
    assert_eq!(peers.let_go(20_000, |_| Tie::Busy), [], "they are at work");
    let mut left = 41;
    for step in 0..100 {
        let leaving = peers.let_go(20_000 + step * 100, |who| if *who == peer(7) { Tie::Bound } else { Tie::Idle });
        assert!(!leaving.contains(&peer(7)) && !leaving.contains(&peer(200)), "{leaving:?}");
        left -= leaving.len();
        for gone in leaving {
            peers.disconnected(&gone, 20_000 + step * 100);
        }
    }
    assert_eq!(left, 16);
    assert_eq!(peers.dials(60_000), [], "who was let go of is left alone");
}

#[test]
fn in_a_crowd_newcomers_go_before_those_that_are_at_work_or_silent() {
    let mut peers = peers();
    peers.set_limits(32, true);
    for n in 1..=40 {
        visits(&mut peers, n, 0);
    }
    for n in 101..=104 {
        peers.connected(&peer(n), format!("/ip4/192.0.2.{n}/tcp/1"), false, 0);
    }
    assert_eq!(peers.let_go(400, |_| Tie::Busy), []);
    let leaving = peers.let_go(600, |who| if *who <= peer(20) { Tie::Idle } else { Tie::Busy });
    assert_eq!(leaving.len(), 12, "down to what a node may have");
    assert!(leaving.iter().all(|who| *who <= peer(20)), "the idle ones first: {leaving:?}");
    let silent = peers.let_go(2_500, |who| if *who > peer(100) { Tie::Idle } else { Tie::Bound });
    assert_eq!(silent.len(), 4, "{silent:?}");
}

#[test]
fn who_has_something_to_publish_dials_the_seed_though_they_parted() {
    let mut peers = peers();
    peers.add_ticket_addresses(&[format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1))]);
    for n in 2..=14 {
        ready(&mut peers, n, &format!("/ip4/192.0.2.{n}/tcp/1"));
    }
    ready(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
    peers.parted(&peer(1), 10_000);
    peers.disconnected(&peer(1), 10_000);
    assert_eq!(peers.dials(20_000), []);
    assert_eq!(peers.seek_seed(10_500), [], "not at once");
    assert_eq!(peers.seek_seed(13_000).len(), 1);
    assert_eq!(peers.seek_seed(13_000), [], "already dialling");
}

fn greets(peers: &mut Peers, n: u8, seed: bool) {
    peers.connected(&peer(n), format!("/ip4/192.0.2.{n}/tcp/1"), true, 0);
    let hello = Hello { repository: Digest::of(b"repository").as_bytes().to_vec(), seed, ..Hello::default() };
    peers.hello(&peer(n), hello).expect("the right repository");
}

/// Whom a node dials that needs a seed.
fn sought(peers: &mut Peers, now_ms: u64) -> Vec<PeerId> {
    let dials = peers.seek_seed(now_ms).into_iter().filter_map(|effect| match effect {
        SwarmEffect::Dial { peer, .. } => peer,
        _ => None,
    });
    dials.collect()
}

#[test]
fn a_stranger_that_calls_itself_the_seed_keeps_nobody_from_the_seed_of_the_ticket() {
    let mut peers = peers();
    peers.add_ticket_addresses(&[format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1))]);
    for n in 2..=14 {
        greets(&mut peers, n, true);
    }
    assert_eq!(sought(&mut peers, 1_000), [peer(1)]);
    peers.dial_failed(Some(&peer(1)), &[], 2_000);
    assert_eq!(sought(&mut peers, 2_100), [], "not at once");
    assert_eq!(sought(&mut peers, 2_000 + NEAR_BACK_OFF_MS), [peer(1)], "for as long as it takes");
    greets(&mut peers, 1, true);
    assert_eq!(sought(&mut peers, 60_000), [], "it is here");
}

#[test]
fn where_the_ticket_names_no_seed_any_neighbour_that_is_one_will_do() {
    let mut peers = peers();
    peers.add_ticket_addresses(&[format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1))]);
    greets(&mut peers, 1, false);
    peers.disconnected(&peer(1), 0);
    assert_eq!(sought(&mut peers, 10_000), [peer(1)], "it may know the seed");
    peers.dial_failed(Some(&peer(1)), &[], 11_000);
    greets(&mut peers, 2, true);
    assert_eq!(sought(&mut peers, 60_000), []);
}

#[test]
fn a_neighbour_is_written_down_once_in_a_session_and_again_where_it_is_found_elsewhere() {
    let mut peers = peers();
    assert_eq!(peers.write_down(&peer(1)), None, "there is no session");
    ready(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
    let first = vec!["/ip4/192.0.2.1/tcp/1".to_owned()];
    assert_eq!(peers.write_down(&peer(1)), Some(first.clone()));
    peers.identified(&peer(1), &first);
    assert_eq!(peers.write_down(&peer(1)), None);
    peers.identified(&peer(1), &["/ip4/192.0.2.1/tcp/2".to_owned()]);
    assert_eq!(peers.write_down(&peer(1)).map(|addresses| addresses.len()), Some(2));
    peers.disconnected(&peer(1), 0);
    ready(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
    assert!(peers.write_down(&peer(1)).is_some(), "it was here again");
}
