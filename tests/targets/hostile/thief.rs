//! What a thief of the online keys (timestamp, snapshot, channels) can do, and what he cannot.

use std::collections::BTreeSet;

use updraft::control::views::StatusView;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::Channel;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::tuf::{RoleName, TopRole};
use updraft_tests::cluster::{has_installed, product};
use updraft_tests::forge::{Forge, Set, Work, noise};
use updraft_tests::lab::{Lab, Truth, Victim, head_version};
use updraft_tests::malicious::Peer;
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, is_unmoved, offer, recovers, repository, settled};

fn pointing_to(version: &str) -> ChannelPolicy {
    ChannelPolicy::pointing_to(version.parse().expect("a version"))
}

/// A repository whose channel is at 1.1.0, where the publisher permits 1.0.0 and 1.2.0 as well, and
/// 2.0.0 on beta only; `floor` is what targets metadata says.
fn choices(label: &str, floor: Option<&str>) -> (Forge, Set) {
    let mut forge = Forge::new(label, now());
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        forge.add(&Work::file(version, noise(&format!("{label} {version}"), 100_000)));
    }
    let mut beta = Work::file("2.0.0", noise("beta", 100_000));
    beta.release.channels = BTreeSet::from(["beta".parse().expect("a channel")]);
    forge.add(&beta);
    if let Some(floor) = floor {
        forge.edit(&RoleName::targets(), |targets| {
            targets.security_floor.insert(product(), floor.parse().expect("a version"));
        });
    }
    forge.point_to("1.1.0");
    let set = forge.sign();
    (forge, set)
}

/// The thief signs a policy for `stable`, and a node takes the head that carries it.
async fn dictates(victim: &Victim, thief: &mut Forge, policy: &ChannelPolicy) -> (Set, Peer) {
    thief.set_policy(&Channel::stable(), policy);
    let set = thief.sign();
    let peer = offer(victim, &set, set.head()).await;
    let taken = |status: &StatusView| head_version(status) == set.timestamp_version;
    victim.until("the thief's head", taken).await;
    tokio::time::sleep(MOMENT).await;
    (set, peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_of_the_online_keys_can_pause_and_choose_among_permitted_releases() {
    let lab = Lab::new();
    let (mut forge, set) = choices("can", None);
    let victim = settled(&lab, &forge, &set, "1.1.0").await;
    let mut truth = Truth::of(&[&set]);
    let mut thief = forge.online_thief();
    let paused = ChannelPolicy { paused: true, ..pointing_to("1.2.0") };
    let (signed, _peer) = dictates(&victim, &mut thief, &paused).await;
    truth.tolerate(&signed);
    is_unmoved(&victim, &signed, Some("1.1.0")).await;
    let reason = victim.subscription().await.reason.unwrap_or_default();
    assert!(reason.contains("paused"), "{reason}");
    for (policy, version) in [
        (pointing_to("1.2.0"), "1.2.0"),
        // Without a floor, the way down to what was once permitted is his choice too.
        (
            ChannelPolicy { allow_downgrade_to: Some("1.0.0".parse().expect("a version")), ..pointing_to("1.0.0") },
            "1.0.0",
        ),
    ] {
        let (signed, peer) = dictates(&victim, &mut thief, &policy).await;
        truth.tolerate(&signed);
        victim.until(version, |status| has_installed(status, version)).await;
        victim.is_unharmed(&truth, &[]).await;
        drop(peer);
    }
    forge.skip_to(&thief.sign());
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_of_the_online_keys_cannot_widen_channels_or_go_below_the_floor() {
    let lab = Lab::new();
    let (mut forge, set) = choices("cannot", Some("1.1.0"));
    let victim = settled(&lab, &forge, &set, "1.1.0").await;
    let mut truth = Truth::of(&[&set]);
    let mut thief = forge.online_thief();
    let down = "1.0.0".parse().expect("a version");
    for policy in [
        // Not permitted on this channel.
        pointing_to("2.0.0"),
        // Never published.
        pointing_to("9.9.9"),
        pointing_to("1.0.0"),
        ChannelPolicy { allow_downgrade_to: Some(down), ..pointing_to("1.0.0") },
    ] {
        let (signed, _peer) = dictates(&victim, &mut thief, &policy).await;
        truth.tolerate(&signed);
        is_unmoved(&victim, &signed, Some("1.1.0")).await;
    }
    // A yank takes back what is installed from nobody.
    let yank = ChannelPolicy { yanked: BTreeSet::from(["1.1.0".parse().expect("a version")]), ..pointing_to("1.0.0") };
    let (signed, _peer) = dictates(&victim, &mut thief, &yank).await;
    truth.tolerate(&signed);
    is_unmoved(&victim, &signed, Some("1.1.0")).await;
    forge.skip_to(&signed);
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_of_the_online_keys_can_freeze_only_while_other_keys_words_last() {
    let lab = Lab::new();
    let mut forge = Forge::new("frozen by a thief", now());
    let releases = RoleName::releases(&product());
    forge.add(&Work::file("1.0.0", noise("frozen 1.0.0", 100_000)));
    forge.add(&Work::file("1.1.0", noise("frozen 1.1.0", 100_000)));
    forge.point_to("1.0.0");
    // What the publisher signed lasts some seconds; no online key prolongs it.
    let expires = now().plus_seconds(12);
    forge.edit(&releases, |targets| targets.expires = expires);
    let set = forge.sign();
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    let mut thief = forge.online_thief();
    let fresh = thief.sign();
    truth.tolerate(&fresh);
    let keeper = offer(&victim, &fresh, fresh.head()).await;
    let status = victim.until("a fresh head", |status| head_version(status) == fresh.timestamp_version).await;
    assert!(status.repositories[0].head.as_ref().expect("a head").fresh);
    drop(keeper);
    while now() <= expires {
        tokio::time::sleep(MOMENT).await;
    }
    let (late, _peer) = dictates(&victim, &mut thief, &pointing_to("1.1.0")).await;
    truth.tolerate(&late);
    is_unmoved(&victim, &late, Some("1.0.0")).await;
    let reason = victim.subscription().await.reason.unwrap_or_default();
    assert!(reason.contains("releases-app metadata expired"), "{reason}");
    forge.edit(&releases, |targets| targets.expires = now().plus_days(365));
    forge.skip_to(&late);
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_of_the_online_keys_brings_in_no_bytes_and_no_product() {
    let lab = Lab::new();
    let (mut forge, set) = repository("no bytes");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    let malware = Work::file("2.0.0", noise("malware", RELEASE_BYTES));
    let swapped = Work::file("1.0.0", noise("swapped", RELEASE_BYTES));

    // In his own role: outside its paths.
    let mut thief = forge.online_thief();
    thief.add_at(&malware.release.path, &RoleName::channels(), &malware);
    thief.add_at(&swapped.release.path, &RoleName::channels(), &swapped);
    thief.add_at("releases/evil/1.0.0/any/app-2.0.0.bin", &RoleName::channels(), &malware);
    let (signed, peer) = dictates(&victim, &mut thief, &pointing_to("2.0.0")).await;
    truth.tolerate(&signed);
    is_unmoved(&victim, &signed, Some("1.0.0")).await;
    victim.is_unharmed(&truth, &[&malware, &swapped]).await;
    let releases = victim.get("/update").await.text();
    assert!(!releases.contains("evil"), "{releases}");
    drop(peer);
    forge.skip_to(&signed);

    // In the publisher's role, with a key that is not the publisher's: the set never becomes whole.
    for (work, version) in [(&malware, "2.0.0"), (&swapped, "1.0.0")] {
        let mut thief = forge.online_thief();
        thief.skip_to(&signed);
        thief.add(work);
        thief.point_to(version);
        let planted = thief.sign();
        for head in [planted.head(), planted.bare_head()] {
            let peer = offer(&victim, &planted, head).await;
            is_unmoved(&victim, &signed, Some("1.0.0")).await;
            drop(peer);
        }
        forge.skip_to(&planted);
    }
    victim.is_unharmed(&truth, &[&malware, &swapped]).await;
    // He pushed the versions of roles forward that he cannot sign: other online keys undo that.
    forge.rotate(&[TopRole::Timestamp, TopRole::Snapshot]);
    let lies = Set { works: [malware, swapped].map(|work| (work.digest(), work)).into(), ..Set::empty(set.repository) };
    recovers(&lab, &victim, &mut forge, &truth, &[&lies]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_heads_of_one_version_are_found_and_told() {
    let lab = Lab::new();
    let (mut forge, set) = repository("equivocation");
    let halves = [settled(&lab, &forge, &set, "1.0.0").await, settled(&lab, &forge, &set, "1.0.0").await];
    let mut truth = Truth::of(&[&set]);
    let thief = forge.online_thief();
    let (mut one, mut other) = (thief.clone(), thief);
    one.set_policy(&Channel::stable(), &ChannelPolicy { paused: true, ..pointing_to("1.0.0") });
    other.set_policy(&Channel::stable(), &pointing_to("1.0.0"));
    let shown = [one.sign(), other.sign()];
    for (half, set) in halves.iter().zip(&shown) {
        truth.tolerate(set);
        let teller = offer(half, set, set.head()).await;
        half.until("its half of the story", |status| head_version(status) == set.timestamp_version).await;
        assert!(!half.alarmed("validly signed").await);
        drop(teller);
    }
    // Somebody who met both tells each what the other was told.
    for (half, set) in halves.iter().zip(shown.iter().rev()) {
        let gossip = offer(half, set, set.head()).await;
        let started = std::time::Instant::now();
        while !half.alarmed("validly signed").await {
            assert!(started.elapsed() < updraft_tests::lab::CONVERGED, "{:#?}", half.events().await);
            gossip.gossip(set.head()).await;
            tokio::time::sleep(MOMENT).await;
        }
        assert!(!half.banned(&gossip.id).await, "whoever brings proof is not to blame");
        half.is_unharmed(&truth, &[]).await;
    }
    // Other keys end it: the thief's are worth nothing from then on.
    forge.skip_to(&shown[0]);
    forge.rotate(&[TopRole::Timestamp, TopRole::Snapshot]);
    let next = forge.publish("7.0.0", noise("after the theft", RELEASE_BYTES));
    truth.learn(&next);
    for half in &halves {
        lab.converges(half, &next, "7.0.0").await;
        half.is_unharmed(&truth, &[]).await;
    }
    let mut late = shown[0].clone();
    late.files.remove(&MetaFile::Root { version: 2 });
    let ghost = offer(&halves[0], &late, late.head()).await;
    is_unmoved(&halves[0], &next, Some("7.0.0")).await;
    drop(ghost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_chain_of_heads_is_told_by_the_first_honest_peer() {
    let lab = Lab::new();
    let (mut forge, set) = repository("chain");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    let mut thief = forge.online_thief();
    let (private, peer) = dictates(&victim, &mut thief, &pointing_to("1.0.0")).await;
    truth.tolerate(&private);
    drop(peer);
    // Meanwhile the seed signed the same version for everybody else, and one more that names it.
    truth.tolerate(&forge.sign());
    let public = forge.sign();
    truth.tolerate(&public);
    let honest = offer(&victim, &public, public.head()).await;
    victim.until("a session", |status| status.connected_peers > 0).await;
    let started = std::time::Instant::now();
    while !victim.alarmed("validly signed").await {
        assert!(started.elapsed() < updraft_tests::lab::CONVERGED, "{:#?}", victim.events().await);
        tokio::time::sleep(MOMENT).await;
    }
    assert!(!victim.banned(&honest.id).await);
    forge.skip_roles(&private);
    forge.rotate(&[TopRole::Timestamp, TopRole::Snapshot]);
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}
