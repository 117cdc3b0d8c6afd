//! What attacks have in common.

use std::time::{Duration, Instant};

use updraft_protocol::meta::MetaFile;
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};
use updraft_tests::forge::{Forge, Set, noise};
use updraft_tests::lab::{CONVERGED, Lab, Truth, Victim, head_version};
use updraft_tests::malicious::{Behaviour, Honest, Peer, Serve};
use updraft_tests::now;

/// Bytes of a release that is more than one piece and more than one block.
pub(crate) const RELEASE_BYTES: usize = 1 << 20;

/// Time for gossip to know its neighbours, and for a node to judge what it was sent.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

/// Serves every block in the same way.
pub(crate) struct Server(pub(crate) Serve);

impl Behaviour for Server {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        self.0
    }
}

/// A repository with one release, 1.0.0.
pub(crate) fn repository(label: &str) -> (Forge, Set) {
    let mut forge = Forge::new(label, now());
    let set = forge.publish("1.0.0", noise(label, RELEASE_BYTES));
    (forge, set)
}

/// A repository with one release, 1.0.0, of so many bytes.
pub(crate) fn repository_of(label: &str, bytes: usize) -> (Forge, Set) {
    let mut forge = Forge::new(label, now());
    let set = forge.publish("1.0.0", noise(label, bytes));
    (forge, set)
}

/// Serves as fast as a link of this rate, and lies about what it is told to lie about.
pub(crate) struct Paced {
    bytes_per_second: u64,
    is_rotten: fn(BlockRange) -> bool,
    free_at: Instant,
}

impl Paced {
    /// An honest holder behind such a link.
    pub(crate) fn honest(bytes_per_second: u64) -> Self {
        Self::lying(bytes_per_second, |_| false)
    }

    /// One whose blocks are rotten where `is_rotten` says so.
    pub(crate) fn lying(bytes_per_second: u64, is_rotten: fn(BlockRange) -> bool) -> Self {
        Self { bytes_per_second, is_rotten, free_at: Instant::now() }
    }

    /// When a block has left that is asked for now.
    pub(crate) fn pause(&mut self, block: BlockRange) -> Duration {
        let now = Instant::now();
        let takes = Duration::from_micros(u64::from(block.length) * 1_000_000 / self.bytes_per_second);
        self.free_at = self.free_at.max(now) + takes;
        self.free_at - now
    }
}

impl Behaviour for Paced {
    fn block(&mut self, _: &ObjectId, block: BlockRange) -> Serve {
        let pause = self.pause(block);
        if (self.is_rotten)(block) { Serve::RottenLater(pause) } else { Serve::Later(pause) }
    }
}

/// A node that runs the newest release of `set`, `version`, and knows nobody any more.
pub(crate) async fn settled(lab: &Lab, forge: &Forge, set: &Set, version: &str) -> Victim {
    let seed = lab.seed(set).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&seed.address))).await;
    victim.reaches(set, version).await;
    seed.stop().await;
    victim
}

/// Somebody connects to a node and offers `head` by every way there is: by gossip, in its greeting, by
/// telling of a newer one again, and in answer to every question. All files of `set` come with it.
pub(crate) async fn offer(victim: &Victim, set: &Set, head: Vec<u8>) -> Peer {
    offer_as(victim, set, head, Honest).await
}

/// The same, with a behaviour.
pub(crate) async fn offer_as(victim: &Victim, set: &Set, head: Vec<u8>, behaviour: impl Behaviour) -> Peer {
    let peer = Peer::start(set, behaviour).await;
    peer.shelve_file(MetaFile::Head, head.clone());
    let to = peer.connect(&victim.address).await;
    tokio::time::sleep(MOMENT).await;
    peer.gossip(head).await;
    let (root_version, timestamp_version) = (set.root_version, set.timestamp_version);
    let message = Control::Head { root_version, timestamp_version, timestamp_sha256: None };
    peer.say(&to, message).await;
    tokio::time::sleep(MOMENT).await;
    peer
}

/// Waits until a node counts a fault of a peer, or has parted from it.
pub(crate) async fn is_blamed(victim: &Victim, peer: &Peer) {
    let started = Instant::now();
    while victim.faults_of(&peer.id).await == Some(0) {
        assert!(started.elapsed() < CONVERGED, "nobody is blamed: {:#?}", victim.events().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A node still runs what it ran, by the head that it had.
pub(crate) async fn is_unmoved(victim: &Victim, set: &Set, version: Option<&str>) {
    let status = victim.status().await;
    assert_eq!(head_version(&status), set.timestamp_version, "{status:#?}");
    assert_eq!(status.subscriptions[0].installed.as_deref(), version, "{status:#?}");
}

/// A node has withstood: it is unharmed, and it finds to the next honest release as soon as it can.
pub(crate) async fn recovers(lab: &Lab, victim: &Victim, forge: &mut Forge, truth: &Truth, lies: &[&Set]) {
    let next = forge.publish("7.0.0", noise("the next honest release", RELEASE_BYTES));
    let mut truth = truth.clone();
    truth.learn(&next);
    let known: Vec<_> = truth.artifacts();
    let lies: Vec<_> =
        lies.iter().flat_map(|set| set.works.values()).filter(|w| !known.contains(&w.digest())).collect();
    victim.is_unharmed(&truth, &lies).await;
    lab.converges(victim, &next, "7.0.0").await;
    victim.is_unharmed(&truth, &lies).await;
}
