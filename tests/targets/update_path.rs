//! The whole path of an update with real processes and a real release, while things break.
//!
//! The publisher's machine dies in the middle of a distribution, a peer is killed while it fetches,
//! and another was off all the time. In the end every peer runs exactly what was published.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use updraft::control::views::{LocalCopy, StatusView, SubscriptionView, TransferProgress};
use updraft_tests::cluster::{has_installed, tree};
use updraft_tests::process::{Node, Program, differences, installing_peer, say, seed, until};
use updraft_tests::relay::Relay;
use updraft_tests::software::{MIN_BYTES, Software};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// The path as a whole, the making of the release excluded.
const OVERALL_DEADLINE: Duration = Duration::from_secs(180);

/// Seconds that the seed needs for one copy of the second release: time enough to hit its middle.
const SECONDS_PER_COPY: u64 = 3;

/// What a `kill -9` may cost: pieces that were verified since progress was last saved.
const LOST_BY_KILL_BYTES: u64 = 8 << 20;

/// Peers that install, by name and install directory.
struct Peers(Vec<(Node, PathBuf)>);

impl Peers {
    fn node(&mut self, name: &str) -> &mut Node {
        let found = self.0.iter_mut().find(|(node, _)| node.name == name);
        &mut found.unwrap_or_else(|| panic!("no peer {name}")).0
    }

    fn assert_all_run(&self, version: &str, source: &Path) {
        let expected = tree(source);
        for (node, directory) in self.0.iter().filter(|(node, _)| node.runs()) {
            node.until(&format!("the installation of {version}"), |status| has_installed(status, version));
            let wrong = differences(&expected, &tree(&directory.join("current")));
            assert!(wrong.is_empty(), "{} runs something else than what was published: {wrong:#?}", node.name);
        }
    }
}

fn publish(seed: &Node, source: &Path, version: &str) -> u64 {
    let path = source.to_str().expect("a temporary directory has a plain name");
    let answer = seed.json(["publish", path, "--product", "app", "--version", version, "--level", "3"]);
    answer["size_bytes"].as_u64().expect("the contract says so")
}

fn subscription(status: &StatusView) -> &SubscriptionView {
    status.subscriptions.first().expect("every peer here has one subscription")
}

fn progress(status: &StatusView, version: &str) -> Option<TransferProgress> {
    let subscription = subscription(status);
    subscription.progress.filter(|_| subscription.offered.as_deref() == Some(version))
}

fn holds(node: &Node, version: &str) -> bool {
    node.releases().releases.iter().any(|release| release.version == version && release.local == LocalCopy::Complete)
}

fn is_held(status: &StatusView, version: &str) -> bool {
    subscription(status).installed.as_deref() == Some(version)
}

/// The address of a node behind a relay.
fn relayed(node: &Node) -> (Relay, String) {
    let status = node.status();
    let port = status.listen.iter().find_map(|address| address.split('/').nth(4)?.parse().ok());
    let relay = Relay::start(([127, 0, 0, 1], port.expect("it listens on TCP")).into());
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", relay.address.port(), status.peer_id);
    (relay, address)
}

#[test]
fn a_real_release_reaches_every_peer_though_the_seed_dies_and_peers_fail() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let source = scratch.path().join("source");
    let software = Software::make(&source, Path::new(env!("CARGO_TARGET_TMPDIR")));
    assert!(software.bytes >= MIN_BYTES);

    let started = Instant::now();
    let mut seed = seed(PROGRAM, scratch.path());
    let (link, address) = relayed(&seed);
    let ticket = seed.ticket(&[address]);
    let names = ["steady", "other", "killed", "off"];
    let peers = names.map(|name| installing_peer(PROGRAM, scratch.path(), name, &ticket));
    let mut peers = Peers(peers.into());
    let mirror = Node::start(PROGRAM, &scratch.path().join("mirror"), ["peer", "--join", &ticket, "--mirror", "app"]);

    let size = publish(&seed, &source, "1.0.0");
    peers.assert_all_run("1.0.0", &source);
    mirror.until("1.0.0 at the mirror", |status| is_held(status, "1.0.0"));
    say(&format!("1.0.0: {} MiB packed, everywhere after {:.1} s", size >> 20, started.elapsed().as_secs_f64()));

    peers.node("off").terminate();
    software.update();
    link.limit(size / SECONDS_PER_COPY);
    let size = publish(&seed, &source, "1.1.0");

    let killed = peers.node("killed");
    let before = until("the middle of the download", || {
        progress(&killed.status(), "1.1.0").filter(|now| now.bytes_done >= size / 2)
    });
    killed.kill();
    assert!(before.bytes_done < size, "it was killed after its download, not in the middle of it");

    // The seed may go once all bytes have left it, wherever they are. One complete copy among the peers is
    // proof of that, and the earliest moment at which there is proof: with fewer bytes outside, the
    // rest would be lost with the seed and nobody could finish. The killed peer still lacks half.
    until("a first complete copy among the peers", || {
        let steady = peers.0.iter().filter(|(node, _)| node.runs()).any(|(node, _)| holds(node, "1.1.0"));
        (steady || holds(&mirror, "1.1.0")).then_some(())
    });
    let uploaded = seed.status().transfer.bytes_out;
    seed.kill();
    let complete = peers.0.iter().filter(|(node, _)| node.runs() && holds(node, "1.1.0")).count();
    say(&format!("the seed died after {uploaded} bytes; {complete} of the running installing peers were complete"));

    let killed = peers.node("killed");
    killed.start_again();
    killed.until("the installation after a kill", |status| has_installed(status, "1.1.0"));
    let after = progress(&killed.status(), "1.1.0").expect("its transfer is remembered");
    assert!(after.bytes_reused > 0, "it began anew: {after:?}");
    assert!(
        after.bytes_reused + LOST_BY_KILL_BYTES >= before.bytes_done,
        "it had {} verified bytes when it was killed and lost more than it may: {after:?}",
        before.bytes_done
    );
    assert_eq!(after.bytes_from_seed, 0, "the seed is dead");
    assert_eq!(after.bytes_reused + after.bytes_from_peers, size, "nothing was fetched twice: {after:?}");

    mirror.until("1.1.0 at the mirror", |status| is_held(status, "1.1.0"));
    peers.node("off").start_again();
    peers.assert_all_run("1.1.0", &source);
    let took = started.elapsed();
    say(&format!("1.1.0: {} MiB packed, everywhere after {:.1} s", size >> 20, took.as_secs_f64()));
    assert!(took < OVERALL_DEADLINE, "it took {took:?}");
}
