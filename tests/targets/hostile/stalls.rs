//! Holders that stop in the middle, drip, or never begin: they lose their blocks, and as long as one honest
//! holder can be reached the transfer ends.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, Hello, ObjectId};
use updraft_tests::forge::Set;
use updraft_tests::lab::{Lab, Truth, Victim};
use updraft_tests::malicious::{Behaviour, Peer, Serve, object};
use updraft_tests::relay::Relay;

use super::attack::{Paced, Server, repository, repository_of};

/// Enough for a transfer to be caught in the middle.
const BYTES: usize = 8 << 20;
/// The link of an honest holder: fast enough for any deadline here, slow enough to be overtaken.
const MODEST: u64 = 2 << 20;

/// Serves some blocks, then none.
struct Fades {
    blocks: u32,
}

impl Behaviour for Fades {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        if self.blocks == 0 {
            return Serve::Never;
        }
        self.blocks -= 1;
        Serve::Honest
    }
}

/// One block in so many milliseconds, however many are asked for.
struct Drips {
    every: Duration,
    free_at: Instant,
}

impl Drips {
    fn every(milliseconds: u64) -> Self {
        Self { every: Duration::from_millis(milliseconds), free_at: Instant::now() }
    }
}

impl Behaviour for Drips {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        // Later blocks queue behind earlier ones, as on a thin link.
        let now = Instant::now();
        self.free_at = self.free_at.max(now) + self.every;
        Serve::Later(self.free_at - now)
    }
}

/// Never says hello.
struct Mute;

impl Behaviour for Mute {
    fn hello(&mut self, _: Hello) -> Option<Hello> {
        None
    }
}

fn addresses(peers: &[&Peer]) -> Vec<String> {
    peers.iter().map(|peer| peer.address.clone()).collect()
}

/// Slowness is no lie, and costs nobody else any bytes: less than `most_twice` came for nothing.
async fn ends_well(victim: &Victim, set: &Set, slow: &[&Peer], most_twice: u64) {
    victim.reaches(set, "1.0.0").await;
    for peer in slow {
        assert!(!victim.banned(&peer.id).await, "slowness is no lie");
    }
    let transfer = victim.status().await.transfer;
    assert_eq!(transfer.bytes_rejected, 0);
    assert!(transfer.bytes_duplicate <= most_twice, "{} bytes came twice", transfer.bytes_duplicate);
    victim.is_unharmed(&Truth::of(&[set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_silent_in_the_middle_loses_its_blocks() {
    let lab = Lab::new();
    let (forge, set) = repository_of("fades", BYTES);
    let fading = Peer::start(&set, Fades { blocks: 12 }).await;
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    let victim = lab.victim(&forge.ticket(&addresses(&[&fading, &honest]))).await;
    ends_well(&victim, &set, &[&fading, &honest], 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_in_a_second_holds_nobody_up() {
    let lab = Lab::new();
    let (forge, set) = repository_of("drips", BYTES);
    let dripping = Peer::start(&set, Drips::every(1_000)).await;
    let victim = lab.victim(&forge.ticket(&addresses(&[&dripping]))).await;
    dripping.wait("some blocks", |log| (log.served >= 2).then_some(())).await;
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    honest.connect(&victim.address).await;
    ends_well(&victim, &set, &[&dripping, &honest], 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_busy_for_ever_holds_nobody_up() {
    for retry_after_ms in [1, 500, u32::MAX] {
        let lab = Lab::new();
        let (forge, set) = repository("busy");
        let busy = Peer::start(&set, Server(Serve::Busy(retry_after_ms))).await;
        let victim = lab.victim(&forge.ticket(&addresses(&[&busy]))).await;
        busy.wait("requests", |log| (log.requested > 0).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = busy.log().requested;
        assert!(asked < 5_000, "a busy neighbour was asked {asked} times in half a second");
        lab.converges(&victim, &set, "1.0.0").await;
        assert!(!victim.banned(&busy.id).await, "business is no lie");
        victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
        victim.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_dialled_and_never_greets_costs_a_joiner_little() {
    let lab = Lab::new();
    let (forge, set) = repository("mute");
    let (first, second) = (Peer::start(&set, Mute).await, Peer::start(&set, Mute).await);
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    let victim = lab.victim(&forge.ticket(&addresses(&[&first, &second, &honest]))).await;
    victim.reaches(&set, "1.0.0").await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_where_nothing_ever_answers_cost_a_joiner_little() {
    let lab = Lab::new();
    let (forge, set) = repository("black holes");
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    let ghosts = [Peer::start(&set, Mute).await, Peer::start(&set, Mute).await, Peer::start(&set, Mute).await];
    // Connections come to stand in the backlog: the system accepts them, and nobody ever reads.
    let holes: Vec<TcpListener> =
        ghosts.iter().map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port")).collect();
    let mut addresses: Vec<String> = holes
        .iter()
        .zip(&ghosts)
        .map(|(hole, ghost)| {
            format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", hole.local_addr().expect("bound").port(), ghost.id)
        })
        .collect();
    addresses.push(honest.address.clone());
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

fn behind(relay: &Relay, node: &Victim) -> String {
    format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", relay.address.port(), node.id)
}

fn socket(address: &str) -> SocketAddr {
    let port = address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a TCP address");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A real seed behind a link that becomes this slow as soon as some of the release has passed, and an
/// honest holder that comes then.
async fn a_link_becomes(label: &str, bytes_per_second: u64) {
    let lab = Lab::new();
    let (forge, set) = repository_of(label, BYTES);
    let seed = lab.seed(&set).await;
    let relay = Relay::start(socket(&seed.address));
    relay.limit(MODEST);
    let victim = lab.victim(&forge.ticket(&[behind(&relay, &seed)])).await;
    let begun = |view: &updraft::control::views::StatusView| {
        view.subscriptions[0].progress.as_ref().is_some_and(|progress| progress.bytes_done > 0)
    };
    victim.until("the first pieces", begun).await;
    relay.limit(bytes_per_second);
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    honest.connect(&victim.address).await;
    // What was on its way on the slow link when others took over came for nothing.
    ends_well(&victim, &set, &[&honest], 2 << 20).await;
    assert!(!victim.banned(&seed.id).await, "a slow link is no lie");
    let transfer = victim.status().await.transfer;
    let bytes = u64::try_from(BYTES).expect("small");
    assert!(transfer.bytes_in <= bytes + (2 << 20), "{} bytes came for {bytes}", transfer.bytes_in);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_in_a_second_in_the_middle_of_a_block_holds_nobody_up() {
    a_link_becomes("a byte a second", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_almost_dead_holds_nobody_up() {
    a_link_becomes("almost dead", 4 << 10).await;
}

/// Says again and again that it has everything, nothing, or that it never spoke of it.
async fn flap(peer: &Peer, to: &PeerId, set: &Set, rounds: u32) {
    let work = set.works.values().next().expect("a release");
    let pieces = work.manifest.piece_count();
    let object = object(&work.digest());
    let (full, empty) = (Bitmap::full(pieces), Bitmap::empty(pieces));
    for round in 0..rounds {
        let have = if round % 2 == 0 { &empty } else { &full }.as_bytes().to_vec();
        peer.say(to, Control::Announce { handle: 0, object, wants: false, have }).await;
        for piece in 0..pieces.min(32) {
            peer.say(to, Control::Have { handle: 0, pieces: vec![piece] }).await;
        }
        if round % 3 == 0 {
            peer.say(to, Control::Forget { handle: 0 }).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_and_has_not_in_turns_holds_nobody_up() {
    let lab = Lab::new();
    let (forge, set) = repository_of("flaps", BYTES);
    let flapping = Peer::start(&set, Server(Serve::Never)).await;
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    let victim = lab.victim(&forge.ticket(&addresses(&[&flapping, &honest]))).await;
    flapping.wait("a session", |log| log.greeted.contains_key(&victim.id).then_some(())).await;
    let ((), ()) = tokio::join!(flap(&flapping, &victim.id, &set, 100), victim.reaches(&set, "1.0.0"));
    assert!(!victim.banned(&honest.id).await);
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_honest_holder_is_enough_whoever_else_there_is() {
    let lab = Lab::new();
    let (forge, set) = repository_of("menagerie", BYTES);
    let silent = Peer::start(&set, Server(Serve::Never)).await;
    let busy = Peer::start(&set, Server(Serve::Busy(100))).await;
    let boasting = Peer::start(&set, Server(Serve::Busy(0))).await;
    let dripping = Peer::start(&set, Drips::every(1_000)).await;
    let fading = Peer::start(&set, Fades { blocks: 3 }).await;
    let mute = Peer::start(&set, Mute).await;
    let rotten = Peer::start(&set, Server(Serve::Rotten)).await;
    let honest = Peer::start(&set, Paced::honest(MODEST)).await;
    let all = [&silent, &busy, &boasting, &dripping, &fading, &mute, &rotten, &honest];
    let victim = lab.victim(&forge.ticket(&addresses(&all))).await;
    victim.reaches(&set, "1.0.0").await;
    for peer in [&silent, &busy, &boasting, &dripping, &fading, &honest] {
        assert!(!victim.banned(&peer.id).await, "who does not lie is not banned");
    }
    let transfer = victim.status().await.transfer;
    let bytes = u64::try_from(BYTES).expect("small");
    assert!(transfer.bytes_in <= bytes + bytes / 2, "{} bytes came for {bytes}", transfer.bytes_in);
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}
