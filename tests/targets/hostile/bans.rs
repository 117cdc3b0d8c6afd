//! What a ban costs whom: a liar is banned once for what it did at once, and one that is too careful to be
//! proven a liar costs no more than it spoils.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use updraft::control::messages::{Request, Response};
use updraft::control::views::BanRow;
use updraft_protocol::transfer::{BlockRange, ObjectId};
use updraft_tests::cluster::ask;
use updraft_tests::lab::{Lab, Truth, Victim};
use updraft_tests::malicious::{Behaviour, Honest, Peer, Serve};

use super::attack::{MOMENT, Paced, Server, repository_of};

/// Many pieces of one leaf each: several are under way at once.
const BYTES: usize = 8 << 20;
/// The least that makes pieces of four leaves, and a bit.
const MIXED_BYTES: usize = 34 << 20;
const PIECE_BYTES: u64 = 64 << 10;
/// So slow that blocks are smaller than pieces, and pieces have several sources.
const SLOW: u64 = 2_000_000;

async fn banned(victim: &Victim) -> Vec<BanRow> {
    match ask(&victim.node, Request::Peers {}).await {
        Ok(Response::Peers(view)) => view.banned,
        other => panic!("not a list of peers: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_wrong_pieces_that_were_under_way_at_once_are_one_offence() {
    let lab = Lab::new();
    let (forge, set) = repository_of("under way", BYTES);
    // Whatever is asked for in this time arrives together.
    let liar = Peer::start(&set, Server(Serve::RottenLater(MOMENT))).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&liar.address))).await;
    victim.bans(&liar.id).await;
    assert!(liar.log().requested >= 2, "only one piece was asked for");
    let honest = Peer::start(&set, Honest).await;
    honest.connect(&victim.address).await;
    victim.reaches(&set, "1.0.0").await;
    let bans = banned(&victim).await;
    let [ban] = &bans[..] else { panic!("one is banned: {bans:?}") };
    assert_eq!(ban.offences, 1, "{ban:?}");
    assert_eq!(ban.until, ban.banned_at.plus_days(7), "the first ban is for a week");
    let blamed = victim.events().await.into_iter().filter(|event| event.kind == "peer_blamed").count();
    assert_eq!(blamed, 1, "it was told of more than once");
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Lies in one block of many, and only in one that is not a whole piece: somebody else may be blamed for it.
struct Careful {
    paced: Paced,
    parts: u64,
    lies: Arc<AtomicU64>,
}

/// One lie in so many parts of pieces.
const RARELY: u64 = 10;

impl Behaviour for Careful {
    fn block(&mut self, _: &ObjectId, block: BlockRange) -> Serve {
        let pause = self.paced.pause(block);
        self.parts += u64::from(u64::from(block.length) < PIECE_BYTES);
        if self.parts < RARELY {
            return Serve::Later(pause);
        }
        self.parts = 0;
        self.lies.fetch_add(1, Ordering::Relaxed);
        Serve::RottenLater(pause)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lies_rarely_and_is_never_alone_with_a_lie_costs_a_piece_for_each() {
    let lab = Lab::new();
    let (forge, set) = repository_of("careful", MIXED_BYTES);
    let lies = Arc::new(AtomicU64::new(0));
    let careful = Careful { paced: Paced::honest(SLOW), parts: 0, lies: Arc::clone(&lies) };
    let mut honest = Vec::new();
    for _ in 0..2 {
        honest.push(Peer::start(&set, Paced::honest(SLOW)).await);
    }
    let careful = Peer::start(&set, careful).await;
    let addresses: Vec<String> = honest.iter().chain([&careful]).map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    for peer in &honest {
        assert!(!victim.banned(&peer.id).await, "an honest holder was banned");
    }
    let (lies, rejected) = (lies.load(Ordering::Relaxed), victim.status().await.transfer.bytes_rejected);
    assert!(rejected > 0, "none of {lies} lies did any harm");
    // A wrong piece has a lie of its own in it: it comes again from one source, which either lies alone and
    // is banned, or does not lie.
    assert!(rejected <= lies * PIECE_BYTES, "{lies} lies cost {rejected} bytes");
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}
