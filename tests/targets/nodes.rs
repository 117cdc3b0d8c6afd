//! Real nodes in one process, over loopback: the path of an update from publish to report.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use updraft::control::messages::{ErrorCode, Request, Response};
use updraft::control::views::{HeadView, SubscriptionState};
use updraft_tests::cluster::{Cluster, ask, has_installed, product, status, tree, until};

/// A small tree of every kind of entry, in place of what was there; `salt` makes its content differ.
fn make_tree(root: &Path, salt: &str) {
    if root.exists() {
        fs::remove_dir_all(root).expect("writable");
    }
    fs::create_dir_all(root.join("bin")).expect("writable");
    fs::create_dir_all(root.join("share/empty dir")).expect("writable");
    fs::write(root.join("bin/app"), format!("#!/bin/sh\necho {salt}\n")).expect("writable");
    fs::set_permissions(root.join("bin/app"), fs::Permissions::from_mode(0o755)).expect("writable");
    fs::write(root.join("share/data.bin"), salt.repeat(200_000)).expect("writable");
    fs::write(root.join("share/empty"), "").expect("writable");
    fs::write(root.join("share/ünïcode \"name\""), salt).expect("writable");
    symlink("app", root.join("bin/alias")).expect("writable");
    symlink("/nonexistent/absolute", root.join("share/dangling")).expect("writable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_tree_is_installed_by_every_peer_and_then_updated() {
    let cluster = Cluster::start(3).await;
    let source = cluster.scratch().join("source");
    for version in ["1.0.0", "1.1.0"] {
        make_tree(&source, version);
        cluster.publish(&source, version).await.expect("published");
        for peer in &cluster.peers {
            until(&peer.node, version, |status| has_installed(status, version)).await;
            assert_eq!(tree(&peer.install_dir.join("current")), tree(&source));
        }
    }
    let releases = fs::read_dir(cluster.peers[0].install_dir.join("releases")).expect("readable").count();
    assert_eq!(releases, 2, "the running release and the previous one are kept");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_brings_the_previous_release_back_and_holds_the_bad_one() {
    let cluster = Cluster::start(1).await;
    let (source, peer) = (cluster.scratch().join("source"), &cluster.peers[0]);
    for version in ["1.0.0", "1.1.0"] {
        make_tree(&source, version);
        cluster.publish(&source, version).await.expect("published");
        until(&peer.node, version, |status| has_installed(status, version)).await;
    }
    let answer = ask(&peer.node, Request::Rollback { product: product(), to: None, hold: true }).await;
    assert!(matches!(answer, Ok(Response::Install(view)) if view.to == "1.0.0"));
    let text = fs::read_to_string(peer.install_dir.join("current/bin/app")).expect("readable");
    assert!(text.contains("1.0.0"));
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let now = status(&peer.node).await;
    assert_eq!(now.subscriptions[0].installed.as_deref(), Some("1.0.0"), "it came back by itself: {now:#?}");
    assert_eq!(now.subscriptions[0].state, SubscriptionState::Quarantined);
    make_tree(&source, "1.2.0");
    cluster.publish(&source, "1.2.0").await.expect("published");
    until(&peer.node, "the next release", |status| has_installed(status, "1.2.0")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_off_is_current_after_its_start_even_without_the_seed() {
    let mut cluster = Cluster::start(2).await;
    let source = cluster.scratch().join("source");
    make_tree(&source, "1.0.0");
    cluster.publish(&source, "1.0.0").await.expect("published");
    for peer in &cluster.peers {
        until(&peer.node, "1.0.0", |status| has_installed(status, "1.0.0")).await;
    }
    let off = cluster.peers.remove(0);
    off.node.stop();
    off.node.stopped().await;
    make_tree(&source, "1.1.0");
    cluster.publish(&source, "1.1.0").await.expect("published");
    until(&cluster.peers[0].node, "1.1.0", |status| has_installed(status, "1.1.0")).await;
    cluster.stop_seed().await;
    cluster.start_peer_in(off.data_dir).await;
    let back = &cluster.peers[1];
    until(&back.node, "1.1.0 from a peer", |status| has_installed(status, "1.1.0")).await;
    assert_eq!(tree(&back.install_dir.join("current")), tree(&source));
    cluster.stop().await;
}

/// The seed's head, whenever it is looked at: only its age changes by itself.
async fn signed_head(cluster: &Cluster) -> Option<HeadView> {
    let head = status(cluster.seed()).await.repositories[0].head.clone();
    head.map(|head| HeadView { age_ms: 0, ..head })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_lost_track_of_its_pieces_looks_for_them_on_its_disk() {
    let mut cluster = Cluster::start(0).await;
    let source = cluster.scratch().join("source");
    make_tree(&source, "1.0.0");
    cluster.publish(&source, "1.0.0").await.expect("published");
    let data_dir = cluster.seed.as_ref().expect("the seed runs").data_dir.clone();
    cluster.stop_seed().await;
    let artifacts: Vec<_> = fs::read_dir(data_dir.join("artifacts")).expect("readable").collect();
    assert_eq!(artifacts.len(), 1);
    let have = artifacts[0].as_ref().expect("readable").path().join("have");
    fs::write(&have, b"rotten").expect("writable");
    cluster.start_seed_in(data_dir).await;
    // Nobody else has it: what the peer installs came off that disk.
    cluster.add_peer().await;
    until(&cluster.peers[0].node, "1.0.0", |status| has_installed(status, "1.0.0")).await;
    assert_eq!(tree(&cluster.peers[0].install_dir.join("current")), tree(&source));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_is_refused_and_leaves_nothing_behind() {
    let cluster = Cluster::start(0).await;
    let source = cluster.scratch().join("source");
    make_tree(&source, "1.0.0");
    cluster.publish(&source, "1.0.0").await.expect("published");
    let before = signed_head(&cluster).await;
    let empty = cluster.scratch().join("empty");
    fs::create_dir_all(&empty).expect("writable");
    for (path, version, expected) in [
        (&source, "1.0.0", "immutable"),
        (&source, "1.0.0+rebuilt", "immutable"),
        (&empty, "1.1.0", "empty directory"),
        (&cluster.scratch().join("missing"), "1.1.0", "cannot read"),
    ] {
        let refused = cluster.publish(path, version).await.expect_err("refused");
        assert_eq!(refused.code, ErrorCode::Error);
        assert!(refused.message.contains(expected), "{}", refused.message);
    }
    assert_eq!(signed_head(&cluster).await, before);
    cluster.stop().await;
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let copy = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy_all(&path, &copy);
        } else if path.is_file() {
            fs::copy(&path, &copy).expect("writable");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_restored_from_a_backup_publishes_on_from_its_peers_head() {
    let mut cluster = Cluster::start(2).await;
    let source = cluster.scratch().join("source");
    make_tree(&source, "1.0.0");
    cluster.publish(&source, "1.0.0").await.expect("published");
    for peer in &cluster.peers {
        until(&peer.node, "1.0.0", |status| has_installed(status, "1.0.0")).await;
    }
    let data_dir = cluster.seed.as_ref().expect("the seed runs").data_dir.clone();
    let backup = cluster.scratch().join("backup");
    cluster.stop_seed().await;
    copy_all(&data_dir, &backup);

    cluster.start_seed_in(data_dir.clone()).await;
    make_tree(&source, "1.1.0");
    cluster.publish(&source, "1.1.0").await.expect("published");
    for peer in &cluster.peers {
        until(&peer.node, "1.1.0", |status| has_installed(status, "1.1.0")).await;
    }
    let newest = head(cluster.seed()).await;
    cluster.stop_seed().await;
    fs::remove_dir_all(&data_dir).expect("removable");
    copy_all(&backup, &data_dir);

    cluster.start_seed_in(data_dir).await;
    make_tree(&source, "1.2.0");
    // At once: nothing waits for the seed to have heard of anybody but the seed itself.
    cluster.publish(&source, "1.2.0").await.expect("published");
    assert_eq!(head(cluster.seed()).await, newest + 1);
    for peer in &cluster.peers {
        until(&peer.node, "1.2.0", |status| has_installed(status, "1.2.0")).await;
        assert_eq!(head(&peer.node).await, newest + 1);
    }
    for node in cluster.peers.iter().map(|peer| &peer.node).chain([cluster.seed()]) {
        let Ok(Response::History(history)) = ask(node, Request::History { product: None, limit: 100 }).await else {
            panic!("no history");
        };
        assert!(history.entries.iter().all(|entry| entry.kind != "alarm"), "a fork was seen: {history:#?}");
    }
    let Ok(Response::History(history)) = ask(cluster.seed(), Request::History { product: None, limit: 100 }).await
    else {
        panic!("no history");
    };
    assert!(history.entries.iter().any(|entry| entry.kind == "head_adopted"), "{history:#?}");
    cluster.stop().await;
}

async fn head(node: &updraft::runtime::RunningNode) -> u64 {
    status(node).await.repositories[0].head.as_ref().map_or(0, |head| head.timestamp_version)
}
