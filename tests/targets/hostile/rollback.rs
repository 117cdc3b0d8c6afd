//! Rollback of releases and of metadata, fast-forward, mix-and-match.

use updraft_protocol::head::{Head, Inline};
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::names::Channel;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::tuf::{RoleName, TopRole};
use updraft_tests::forge::{Forge, Set, Twist, noise};
use updraft_tests::lab::{Lab, Truth, head_version};
use updraft_tests::malicious::{Answer, Behaviour, Honest, Peer};
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, is_blamed, is_unmoved, offer, offer_as, recovers, repository, settled};

/// Three releases of one repository, and every set on the way.
fn history(label: &str) -> (Forge, Vec<Set>) {
    let mut forge = Forge::new(label, now());
    let sets = ["1.0.0", "1.1.0", "1.2.0"]
        .map(|version| forge.publish(version, noise(&format!("{label} {version}"), RELEASE_BYTES)));
    (forge, sets.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_metadata_is_ignored_also_after_a_restart_and_its_bearer_is_not_blamed() {
    let lab = Lab::new();
    let (mut forge, sets) = history("older");
    let victim = settled(&lab, &forge, &sets[2], "1.2.0").await;
    let truth = Truth::of(&sets.iter().collect::<Vec<_>>());
    for old in &sets[..2] {
        let stale = offer(&victim, old, old.head()).await;
        is_unmoved(&victim, &sets[2], Some("1.2.0")).await;
        assert_eq!(victim.faults_of(&stale.id).await, Some(0), "a stale peer does nothing wrong");
    }
    let (data_dir, stale) = (victim.data_dir.clone(), Peer::start(&sets[0], Honest).await);
    victim.stop().await;
    let victim = lab.victim_in(data_dir, Some(&forge.ticket(std::slice::from_ref(&stale.address))), |_| {}).await;
    victim.until("a session", |status| status.connected_peers > 0).await;
    tokio::time::sleep(MOMENT).await;
    is_unmoved(&victim, &sets[2], Some("1.2.0")).await;
    assert!(!victim.banned(&stale.id).await);
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_takes_no_head_older_than_its_ticket() {
    let lab = Lab::new();
    let (forge, sets) = history("ticket");
    let stale = Peer::start(&sets[0], Honest).await;
    let mut ticket = forge.ticket(std::slice::from_ref(&stale.address));
    ticket.min_timestamp_version = sets[2].timestamp_version;
    let victim = lab.victim(&ticket).await;
    stale.wait("a question for a head", |log| log.asked.iter().any(|(_, f)| *f == MetaFile::Head).then_some(())).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(head_version(&victim.status().await), 0);
    let truth = Truth::of(&sets.iter().collect::<Vec<_>>());
    victim.is_unharmed(&truth, &[]).await;
    assert!(!victim.banned(&stale.id).await);
    lab.converges(&victim, &sets[2], "1.2.0").await;
    victim.is_unharmed(&truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_timestamps_cannot_take_targets_or_snapshot_back() {
    let lab = Lab::new();
    let (mut forge, first) = repository("taken back");
    // The thief of timestamp and snapshot starts over from the first release: its roles are older.
    let restarted = forge.clone();
    let second = forge.publish("1.1.0", noise("taken back 1.1.0", RELEASE_BYTES));
    let newest = forge.publish("1.2.0", noise("taken back 1.2.0", RELEASE_BYTES));
    let victim = settled(&lab, &forge, &newest, "1.2.0").await;
    let truth = Truth::of(&[&first, &second, &newest]);
    let mut thief = restarted.thief(&[RoleName::timestamp(), RoleName::snapshot()]);
    let mut backwards = thief.clone();
    let twist =
        Twist { timestamp_version: Some(50), snapshot_version: Some(50), without_chain: true, ..Twist::default() };
    let old_roles = thief.sign_twisted(twist);
    let twist =
        Twist { timestamp_version: Some(51), snapshot_version: Some(1), without_chain: true, ..Twist::default() };
    let old_snapshot = backwards.sign_twisted(twist);
    for set in [&old_roles, &old_snapshot] {
        for head in [set.head(), set.bare_head()] {
            let _thief = offer(&victim, set, head).await;
            is_unmoved(&victim, &newest, Some("1.2.0")).await;
        }
    }
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

/// Answers questions for the next root with this one.
struct WrongRoot(Vec<u8>);

impl Behaviour for WrongRoot {
    fn meta(&mut self, file: &MetaFile, honest: MetaResponse) -> Answer {
        match file {
            MetaFile::Root { version: 2.. } => Answer::Now(MetaResponse::File(self.0.clone())),
            _ => Answer::Now(honest),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_the_next_one_signed_by_the_one_before_or_none() {
    let lab = Lab::new();
    let (mut forge, set) = repository("roots");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let truth = Truth::of(&[&set]);
    let mut strangers = forge.thief(&[]);
    strangers.rotate(&[TopRole::Root, TopRole::Timestamp, TopRole::Targets]);
    let forged = strangers.sign();
    let mut later = forge.clone();
    later.next_root(|root| root);
    later.next_root(|root| root);
    let skipped = later.sign();
    let first = set.files[&MetaFile::Root { version: 1 }].clone();
    let wrong = [
        ("the first again", first),
        ("signed by strangers", forged.files[&MetaFile::Root { version: 2 }].clone()),
        ("one too far", skipped.files[&MetaFile::Root { version: 3 }].clone()),
        ("no root at all", set.timestamp.clone()),
    ];
    for (what, root) in wrong {
        let mut claims = set.clone();
        claims.root_version = 2;
        let liar = offer_as(&victim, &claims, set.head(), WrongRoot(root)).await;
        is_blamed(&victim, &liar).await;
        assert_eq!(victim.status().await.repositories[0].root_version, 1, "{what}");
    }
    // The root that the honest publisher makes next is taken all the same.
    forge.next_root(|root| root);
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
    assert_eq!(victim.status().await.repositories[0].root_version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_pushed_to_the_end_is_undone_by_rotating_the_key() {
    let lab = Lab::new();
    let (mut forge, set) = repository("fast-forward");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    let end = u64::try_from(i64::MAX).expect("positive");
    let mut thief = forge.online_thief();
    thief.point_to("1.0.0");
    let twist = Twist { timestamp_version: Some(end), snapshot_version: Some(end), ..Twist::default() };
    let pushed = thief.sign_twisted(twist);
    truth.tolerate(&pushed);
    let _thief = offer(&victim, &pushed, pushed.head()).await;
    victim.until("the pushed head", |status| head_version(status) == end).await;
    victim.is_unharmed(&truth, &[]).await;
    // Now nothing that the seed signs is newer; a root with other keys starts over.
    let stuck = forge.clone().publish("1.1.0", noise("stuck", RELEASE_BYTES));
    let seed = offer(&victim, &stuck, stuck.head()).await;
    is_unmoved(&victim, &pushed, Some("1.0.0")).await;
    drop(seed);
    forge.skip_roles(&pushed);
    forge.rotate(&[TopRole::Timestamp, TopRole::Snapshot]);
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_several_sets_make_none() {
    let lab = Lab::new();
    let (mut forge, mut sets) = history("mix and match");
    sets.push(forge.publish("1.3.0", noise("mix and match 1.3.0", RELEASE_BYTES)));
    let victim = settled(&lab, &forge, &sets[0], "1.0.0").await;
    let truth = Truth::of(&sets.iter().collect::<Vec<_>>());
    let parts = |set: &Set| Head { inlines: Vec::new(), ..set.parts() };
    let with = |timestamp: &Set, snapshot: &Set, inlines: &Set| Head {
        timestamp: timestamp.timestamp.clone(),
        snapshot: snapshot.snapshot.clone(),
        inlines: inlines.parts().inlines.into_iter().filter(|i| matches!(i, Inline::Role { .. })).collect(),
        ..parts(timestamp)
    };
    let mixed =
        [with(&sets[3], &sets[2], &sets[2]), with(&sets[2], &sets[3], &sets[3]), with(&sets[3], &sets[3], &sets[1])];
    for head in mixed {
        let mut encoded = head.clone();
        while encoded.encode().len() > updraft_protocol::limits::MAX_HEAD_BYTES {
            encoded.inlines.pop();
        }
        let liar = offer(&victim, &sets[3], encoded.encode()).await;
        is_blamed(&victim, &liar).await;
        is_unmoved(&victim, &sets[0], Some("1.0.0")).await;
    }
    victim.is_unharmed(&truth, &[]).await;

    // A right head, and older roles in answer to every question for those that it names.
    let liar = offer_as(&victim, &sets[3], sets[3].bare_head(), OldRoles(sets[1].clone())).await;
    liar.wait("a question for a role", |log| {
        log.asked.iter().any(|(_, file)| matches!(file, MetaFile::Role { .. })).then_some(())
    })
    .await;
    tokio::time::sleep(MOMENT).await;
    is_unmoved(&victim, &sets[0], Some("1.0.0")).await;
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

/// Answers with the roles of another set.
struct OldRoles(Set);

impl Behaviour for OldRoles {
    fn meta(&mut self, file: &MetaFile, honest: MetaResponse) -> Answer {
        let MetaFile::Role { name, .. } = file else { return Answer::Now(honest) };
        let old = self.0.files.iter().find(|(known, _)| matches!(known, MetaFile::Role { name: n, .. } if n == name));
        Answer::Now(old.map_or(MetaResponse::NotFound, |(_, bytes)| MetaResponse::File(bytes.clone())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_below_the_security_floor_is_installed() {
    let lab = Lab::new();
    let (mut forge, sets) = history("floor");
    let victim = settled(&lab, &forge, &sets[2], "1.2.0").await;
    let product = updraft_tests::cluster::product();
    forge.edit(&RoleName::targets(), |targets| {
        targets.security_floor.insert(product.clone(), "1.1.0".parse().expect("a version"));
    });
    let floored = forge.sign();
    let mut truth = Truth::of(&[&sets[0], &sets[1], &sets[2], &floored]);
    // Even where the channel allows the way down.
    let mut policy = ChannelPolicy::pointing_to("1.0.0".parse().expect("a version"));
    policy.allow_downgrade_to = policy.version.clone();
    forge.set_policy(&Channel::stable(), &policy);
    let down = forge.sign();
    truth.tolerate(&down);
    let _teller = offer(&victim, &down, down.head()).await;
    victim.until("the new head", |status| head_version(status) == down.timestamp_version).await;
    tokio::time::sleep(MOMENT).await;
    is_unmoved(&victim, &down, Some("1.2.0")).await;
    let reason = victim.subscription().await.reason.unwrap_or_default();
    assert!(reason.contains("security floor is 1.1.0"), "{reason}");
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}
