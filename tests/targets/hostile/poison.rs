//! Wrong blocks among right ones: who sent them is found out, and nobody else is blamed.

use std::collections::BTreeMap;

use updraft_protocol::transfer::{BlockRange, ObjectId};
use updraft_tests::forge::Set;
use updraft_tests::lab::{Lab, Truth, Victim};
use updraft_tests::malicious::{Behaviour, Honest, Peer, Serve};

use super::attack::{Paced, repository_of};

/// The least that makes pieces of four leaves, and a bit: slow holders are asked for two or three at a time.
const MIXED_BYTES: usize = 34 << 20;
const PIECE_BYTES: u64 = 64 << 10;
/// So slow that blocks are smaller than pieces, and pieces have several sources.
const SLOW: u64 = 2_000_000;
/// Where pieces are single leaves.
const BYTES: usize = 8 << 20;

/// Whether a block is the end of a piece, and not all of it.
fn last_leaf(block: BlockRange) -> bool {
    u64::from(block.length) < PIECE_BYTES && block.end().is_multiple_of(PIECE_BYTES)
}

/// Lies where others have sent the rest of the piece; after some blocks, should that never happen,
/// wherever it can.
struct Subtle {
    paced: Paced,
    patience: u32,
}

impl Subtle {
    fn new() -> Self {
        Self { paced: Paced::honest(SLOW), patience: 200 }
    }
}

impl Behaviour for Subtle {
    fn block(&mut self, _: &ObjectId, block: BlockRange) -> Serve {
        self.patience = self.patience.saturating_sub(1);
        let pause = self.paced.pause(block);
        if last_leaf(block) || self.patience == 0 { Serve::RottenLater(pause) } else { Serve::Later(pause) }
    }
}

fn piece_bytes(set: &Set) -> u64 {
    u64::from(set.works.values().next().expect("a release").manifest.piece_length())
}

async fn holders(set: &Set, count: usize) -> Vec<Peer> {
    let mut holders = Vec::new();
    for _ in 0..count {
        holders.push(Peer::start(set, Paced::honest(SLOW)).await);
    }
    holders
}

/// Nobody of these was blamed for anything.
async fn are_not_blamed(victim: &Victim, honest: &[Peer]) {
    for peer in honest {
        assert!(!victim.banned(&peer.id).await, "an honest holder was banned");
        assert!(victim.faults_of(&peer.id).await.is_none_or(|faults| faults == 0), "an honest holder was blamed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_among_the_sources_of_a_piece_is_found_and_no_honest_one_is_blamed() {
    let lab = Lab::new();
    let (forge, set) = repository_of("mixed sources", MIXED_BYTES);
    assert_eq!(piece_bytes(&set), PIECE_BYTES);
    let honest = holders(&set, 2).await;
    let liar = Peer::start(&set, Subtle::new()).await;
    let addresses: Vec<String> = honest.iter().chain([&liar]).map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    assert!(victim.banned(&liar.id).await, "the liar was not found out");
    are_not_blamed(&victim, &honest).await;
    let transfer = victim.status().await.transfer;
    assert!(transfer.bytes_rejected > 0, "nothing was wrong");
    // Each piece costs one more fetch at most, and the liar is gone long before it has spoilt them all.
    let bytes = u64::try_from(MIXED_BYTES).expect("small");
    assert!(transfer.bytes_rejected <= bytes / 2, "{} bytes were wasted", transfer.bytes_rejected);
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_liars_that_spoil_little_each_are_all_found() {
    let lab = Lab::new();
    let (forge, set) = repository_of("several liars", MIXED_BYTES);
    assert_eq!(piece_bytes(&set), PIECE_BYTES);
    let honest = holders(&set, 1).await;
    let mut liars = Vec::new();
    for _ in 0..3 {
        liars.push(Peer::start(&set, Subtle::new()).await);
    }
    let addresses: Vec<String> = honest.iter().chain(&liars).map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    for liar in &liars {
        assert!(victim.banned(&liar.id).await, "a liar was not found out");
    }
    are_not_blamed(&victim, &honest).await;
    let bytes = u64::try_from(MIXED_BYTES).expect("small");
    let transfer = victim.status().await.transfer;
    assert!(transfer.bytes_rejected <= bytes / 2, "{} bytes were wasted", transfer.bytes_rejected);
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Tells the truth until it is trusted with much, then lies about everything.
struct Turncoat {
    honest_blocks: u32,
}

impl Behaviour for Turncoat {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        if self.honest_blocks == 0 {
            return Serve::Rotten;
        }
        self.honest_blocks -= 1;
        Serve::Honest
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_honest_for_long_and_lies_then_is_banned_like_anybody() {
    let lab = Lab::new();
    let (forge, set) = repository_of("turncoat", BYTES);
    let turncoat = Peer::start(&set, Turncoat { honest_blocks: 16 }).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&turncoat.address))).await;
    victim.bans(&turncoat.id).await;
    let honest = Peer::start(&set, Honest).await;
    honest.connect(&victim.address).await;
    victim.reaches(&set, "1.0.0").await;
    are_not_blamed(&victim, std::slice::from_ref(&honest)).await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_right_before_its_sender_lied_is_not_fetched_again() {
    let lab = Lab::new();
    let (forge, set) = repository_of("kept", BYTES);
    let turncoat = Peer::start(&set, Turncoat { honest_blocks: 48 }).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&turncoat.address))).await;
    victim.bans(&turncoat.id).await;
    let progress = victim.subscription().await.progress.expect("it is fetching");
    assert!(progress.bytes_done > 0, "the right pieces were lost with the wrong ones");
    let honest = Peer::start(&set, Honest).await;
    honest.connect(&victim.address).await;
    victim.reaches(&set, "1.0.0").await;
    let transfer = victim.status().await.transfer;
    let bytes = u64::try_from(BYTES).expect("small");
    let useful = transfer.bytes_in - transfer.bytes_rejected - transfer.bytes_duplicate;
    assert!(useful <= bytes + bytes / 8, "{useful} bytes were taken for {bytes}");
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Pieces, at most, that one liar spoils before it is found out. Those count that were under way by then.
const MOST_SPOILT: u64 = 32;

/// Whoever spoilt anything at a node is banned there, and spoilt little.
async fn assert_is_found_out(victim: &Victim, liar: &Peer) {
    let rejected = victim.status().await.transfer.bytes_rejected;
    assert!(rejected == 0 || victim.banned(&liar.id).await, "{rejected} bytes were spoilt, and nobody was banned");
    assert!(rejected <= MOST_SPOILT * PIECE_BYTES, "{rejected} bytes were wasted");
}

/// Lies in the last leaf of a piece, unless it was asked for all of it before: alone it tells the truth.
struct NeverAlone {
    paced: Paced,
    served: BTreeMap<u64, u64>,
}

impl Behaviour for NeverAlone {
    fn block(&mut self, _: &ObjectId, block: BlockRange) -> Serve {
        let pause = self.paced.pause(block);
        let served = self.served.entry(block.offset / PIECE_BYTES).or_default();
        *served += u64::from(block.length);
        let is_alone = *served >= PIECE_BYTES;
        if last_leaf(block) && !is_alone { Serve::RottenLater(pause) } else { Serve::Later(pause) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_never_alone_with_a_lie_is_banned_all_the_same() {
    let lab = Lab::new();
    let (forge, set) = repository_of("never alone", MIXED_BYTES);
    assert_eq!(piece_bytes(&set), PIECE_BYTES);
    let honest = holders(&set, 2).await;
    let liar = Peer::start(&set, NeverAlone { paced: Paced::honest(SLOW), served: BTreeMap::new() }).await;
    let addresses: Vec<String> = honest.iter().chain([&liar]).map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    are_not_blamed(&victim, &honest).await;
    assert_is_found_out(&victim, &liar).await;
    assert!(victim.status().await.transfer.bytes_rejected > 0, "nothing was spoilt");
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Spoils one leaf of each piece, and is too busy for all the others: no piece ever has it for its only source.
struct Stealthy(Paced);

impl Behaviour for Stealthy {
    fn block(&mut self, object: &ObjectId, block: BlockRange) -> Serve {
        let is_alone = u64::from(block.length) < PIECE_BYTES;
        if is_alone && last_leaf(block) { self.0.block(object, block) } else { Serve::Busy(20) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_spoils_single_blocks_and_serves_no_others_cannot_go_on_for_ever() {
    let lab = Lab::new();
    let (forge, set) = repository_of("stealthy", MIXED_BYTES);
    assert_eq!(piece_bytes(&set), PIECE_BYTES);
    let honest = holders(&set, 2).await;
    let stealthy = Peer::start(&set, Stealthy(Paced::lying(SLOW, |_| true))).await;
    let addresses: Vec<String> = honest.iter().chain([&stealthy]).map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    are_not_blamed(&victim, &honest).await;
    assert_is_found_out(&victim, &stealthy).await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}
