//! Arbitrary software, mixed pieces, lying holders and mirrors, wrong software.

use std::time::Duration;

use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};
use updraft_tests::forge::{Forge, Work, noise};
use updraft_tests::lab::{Lab, Truth};
use updraft_tests::malicious::{Answer, Behaviour, Peer, Serve};
use updraft_tests::now;

/// Bytes of a release that is more than one piece and more than one block.
const RELEASE_BYTES: usize = 1 << 20;

/// Serves every block in the same wrong way.
struct Server(Serve);

impl Behaviour for Server {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        self.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_of_rotten_pieces_is_banned_and_the_honest_one_serves() {
    let lab = Lab::new();
    let mut forge = Forge::new("rotten", now());
    let set = forge.publish("1.0.0", noise("rotten", RELEASE_BYTES));
    let liar = Peer::start(&set, Server(Serve::Rotten)).await;
    let victim = lab.victim(&forge.ticket(&[liar.address.clone()])).await;
    victim.bans(&liar.id).await;
    let truth = Truth::of(&[&set]);
    victim.is_unharmed(&truth, &[]).await;
    assert!(victim.subscription().await.installed.is_none());
    lab.converges(&victim, &set, "1.0.0").await;
    victim.is_unharmed(&truth, &[]).await;
}
