//! Endless data, floods of messages, streams of garbage, neighbours that take every place.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use updraft::engine::effect::SwarmEffect;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::{MAX_HEAD_BYTES, MAX_SESSION_ARTIFACTS};
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, Control, Hello, PeerRecord};
use updraft_tests::forge::{Set, noise};
use updraft_tests::lab::{Lab, Truth, peak_bytes};
use updraft_tests::malicious::{Answer, Behaviour, Honest, Peer, object};
use updraft_tests::process::{Program, installing_peer};

use super::attack::{MOMENT, is_unmoved, recovers, repository, settled};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));
/// The most memory that a node may ever take under any of these attacks. A quiet node takes 30 MiB.
const MAX_PEAK_BYTES: u64 = 256 << 20;

/// Answers every question with far more than was asked for.
struct Endless;

impl Behaviour for Endless {
    fn meta(&mut self, file: &MetaFile, honest: MetaResponse) -> Answer {
        let bytes = match file {
            MetaFile::Root { version: 1 } => return Answer::Now(honest),
            MetaFile::Head => 40 << 20,
            MetaFile::Manifest { .. } => 60 << 20,
            _ => 50 << 20,
        };
        Answer::Now(MetaResponse::File(vec![b'{'; bytes]))
    }
}

/// An address that nobody has, of a peer that there is not.
fn nobody(number: u32) -> PeerRecord {
    let id = Digest::of(&number.to_be_bytes());
    let bytes = [&[0x12, 0x20][..], id.as_bytes()].concat();
    PeerRecord {
        peer: PeerId::from_bytes(&bytes).expect("a multihash"),
        addresses: (0..16).map(|port| format!("/ip4/127.0.0.1/tcp/{}", port + 1)).collect(),
    }
}

/// Every kind of message, as many as there is patience for.
async fn flood(peer: &Peer, to: &PeerId, set: &Set) {
    for number in 0..MAX_SESSION_ARTIFACTS {
        let digest = Digest::of(&number.to_be_bytes());
        let have = vec![0xff; 1_024];
        peer.say(to, Control::Announce { handle: number, object: object(&digest), wants: true, have }).await;
    }
    for number in 0..200 {
        let records = (0..64).map(|index| nobody(number * 64 + index)).collect();
        peer.say(to, Control::Peers(records)).await;
        peer.say(to, Control::Head { root_version: u64::MAX, timestamp_version: u64::MAX - u64::from(number) }).await;
        let block = BlockRange { offset: u64::from(number) << 20, length: 1 << 20 };
        peer.say(to, Control::Cancel { handle: number, block }).await;
        peer.say(to, Control::Busy { handle: number, block, retry_after_ms: u32::MAX, ask: Vec::new() }).await;
    }
    // A node accepts a mebibyte at a time, none of which it asked for.
    if let Some(work) = set.works.values().next() {
        for number in 0..64 {
            let block = BlockRange { offset: number << 20, length: 1 << 20 };
            let object = object(&work.digest());
            peer.tell(SwarmEffect::SendBlock { peer: to.clone(), handle: 0, object, block }).await;
        }
    }
    for number in 0..100_u32 {
        let payload = noise(&format!("junk {number}"), 2 * MAX_HEAD_BYTES - 500);
        peer.gossip(payload).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_answers_messages_and_blocks_cost_a_node_little_memory() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let lab = Lab::new();
    let (forge, set) = repository("endless");
    let endless = Peer::start(&set, Endless).await;
    let flooder = Peer::start(&set, Endless).await;
    let ticket = forge.ticket(&[endless.address.clone(), flooder.address.clone()]).to_string();
    let path = scratch.path().to_owned();
    let (mut node, install_dir) =
        tokio::task::spawn_blocking(move || installing_peer(PROGRAM, &path, "victim", &ticket))
            .await
            .expect("it starts");
    let id = node.status().peer_id;
    let id: PeerId = id.parse().expect("a peer id");
    flooder.wait("a session", |log| log.greeted.contains_key(&id).then_some(())).await;
    flood(&flooder, &id, &set).await;
    endless.wait("questions", |log| (log.asked.len() >= 2).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = node.status();
    assert!(status.subscriptions[0].installed.is_none());
    let seed = lab.seed(&set).await;
    let address = status.listen[0].clone();
    let messenger = Peer::start(&Set::empty(set.repository), Honest).await;
    let to = messenger.connect(&with_id(&address, &status.peer_id)).await;
    let record = PeerRecord { peer: seed.id.clone(), addresses: vec![seed.address.clone()] };
    messenger.say(&to, Control::Peers(vec![record])).await;
    let node = tokio::task::spawn_blocking(move || {
        node.until("the release", |status| updraft_tests::cluster::has_installed(status, "1.0.0"));
        node.process();
        node
    });
    let mut node = node.await.expect("installed");
    let peak = peak_bytes(node.process().pid());
    assert!(peak < MAX_PEAK_BYTES, "it took {} MiB", peak >> 20);
    let installed = install_dir.join("current/app-1.0.0.bin");
    let work = set.works.values().next().expect("a release");
    assert_eq!(Digest::of(&std::fs::read(installed).expect("installed")), work.digest());
}

fn with_id(address: &str, id: &str) -> String {
    if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{id}") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_longer_than_the_question_allows_are_cut_off_and_others_asked() {
    let lab = Lab::new();
    let (forge, set) = repository("too long");
    let endless = Peer::start(&set, Endless).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&endless.address))).await;
    endless.wait("a question", |log| log.asked.iter().any(|(_, file)| *file == MetaFile::Head).then_some(())).await;
    tokio::time::sleep(MOMENT).await;
    let truth = Truth::of(&[&set]);
    victim.is_unharmed(&truth, &[]).await;
    lab.converges(&victim, &set, "1.0.0").await;
    victim.is_unharmed(&truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_every_message_leaves_a_node_at_work() {
    let lab = Lab::new();
    let (mut forge, set) = repository("flood");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let flooder = Peer::start(&set, Honest).await;
    let to = flooder.connect(&victim.address).await;
    flood(&flooder, &to, &set).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_rules_of_a_session_again_and_again_is_banned() {
    let lab = Lab::new();
    let (mut forge, set) = repository("rules");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let breaker = Peer::start(&set, Honest).await;
    let to = breaker.connect(&victim.address).await;
    for piece in 0..20 {
        breaker.say(&to, Control::Have { handle: 4_000, pieces: vec![piece] }).await;
    }
    victim.bans(&breaker.id).await;
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[]).await;
}

fn socket(address: &str) -> SocketAddr {
    let port = address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a TCP address");
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_half_open_connections_keep_nobody_out() {
    let lab = Lab::new();
    let (mut forge, set) = repository("garbage");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let address = socket(&victim.address);
    let garbage = tokio::task::spawn_blocking(move || {
        let mut open = Vec::new();
        for number in 0..40_u32 {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
            // Half of them say nothing at all; the others begin well, or not, and never end.
            let _ = match number % 4 {
                0 => stream.write_all(&noise("garbage", 1 << 16)),
                1 => stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n"),
                _ => Ok(()),
            };
            open.push(stream);
        }
        open
    });
    let open = garbage.await.expect("connected");
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[]).await;
    drop(open);
}

/// Never says hello.
struct Speechless;

impl Behaviour for Speechless {
    fn hello(&mut self, _: Hello) -> Option<Hello> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_says_hello_is_parted_from() {
    let lab = Lab::new();
    let (mut forge, set) = repository("speechless");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mute = Peer::start(&set, Speechless).await;
    let dial = SwarmEffect::Dial { peer: Some(victim.id.clone()), addresses: vec![victim.address.clone()] };
    let started = Instant::now();
    mute.tell(dial).await;
    mute.wait("the end of the session", |log| (!log.left.is_empty()).then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(15));
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_take_every_place_keep_no_honest_one_out() {
    let lab = Lab::new();
    let (mut forge, set) = repository("eclipse");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut crowd = Vec::new();
    for _ in 0..16 {
        let member = Peer::start(&set, Honest).await;
        member.connect(&victim.address).await;
        crowd.push(member);
    }
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[]).await;
}
