//! Roles that speak about what was never delegated to them.

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::tuf::{DelegatedRole, Delegations, RoleName, TargetInfo, TopRole};
use updraft_tests::cluster::product;
use updraft_tests::forge::{Forge, Work, noise};
use updraft_tests::lab::{Lab, Truth, head_version};
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, is_unmoved, offer, recovers, repository, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_of_one_product_says_nothing_about_others_or_about_channels() {
    let lab = Lab::new();
    let mut forge = Forge::new("outside", now());
    // A second product, whose publisher turns on the first.
    let other: updraft_protocol::names::Product = "other".parse().expect("a product");
    let role = RoleName::releases(&other);
    let key = Forge::new("outside", now()).signers(&RoleName::channels())[0].public();
    forge.edit(&RoleName::targets(), |targets| {
        let delegated = DelegatedRole::new(role.clone(), &["releases/other/*/*/*"]);
        let delegations = targets.delegations.take().unwrap_or_default();
        targets.delegations = Some(delegations.with_role(delegated, 1, std::slice::from_ref(&key)));
    });
    forge.borrow_keys(&RoleName::channels(), &role);
    forge.edit(&role, |_| {});
    let set = forge.publish("1.0.0", noise("outside", RELEASE_BYTES));
    let victim = settled(&lab, &forge, &set, "1.0.0").await;

    let malware = Work::file("2.0.0", noise("malware", RELEASE_BYTES));
    let policy = ChannelPolicy::pointing_to("2.0.0".parse().expect("a version")).encode();
    let mut evil = forge.clone();
    evil.add_at(&malware.release.path, &role, &malware);
    evil.edit(&role, |targets| {
        targets.targets.insert("channels/app/stable.json".to_owned(), TargetInfo::of(&policy));
        targets.targets.insert("channels/app/beta.json".to_owned(), TargetInfo::of(&policy));
        targets.security_floor.insert(product(), "99.0.0".parse().expect("a version"));
        // Nor may it hand on what it does not have.
        let below = DelegatedRole::new("below".parse().expect("a role"), &["releases/app/*/*/*", "channels/*/*"]);
        targets.delegations = Some(Delegations::default().with_role(below, 1, std::slice::from_ref(&key)));
    });
    evil.point_to("2.0.0");
    let mut planted = evil.sign();
    let file = MetaFile::Target { path: "channels/app/stable.json".to_owned(), sha256: Digest::of(&policy) };
    planted.files.insert(file, policy);
    let mut truth = Truth::of(&[&set]);
    truth.tolerate(&planted);
    let _teller = offer(&victim, &planted, planted.head()).await;
    victim.until("the new head", |status| head_version(status) == planted.timestamp_version).await;
    tokio::time::sleep(MOMENT).await;
    is_unmoved(&victim, &planted, Some("1.0.0")).await;
    let reason = victim.subscription().await.reason.unwrap_or_default();
    assert!(!reason.contains("99.0.0"), "{reason}");
    victim.is_unharmed(&truth, &[&malware]).await;
    // The honest publisher goes on from there.
    forge.skip_to(&planted);
    recovers(&lab, &victim, &mut forge, &truth, &[&planted]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_nobody_delegates_to_is_not_heard() {
    let lab = Lab::new();
    let (mut forge, set) = repository("undelegated");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    let mut thief = forge.online_thief();
    let malware = Work::file("2.0.0", noise("malware", RELEASE_BYTES));
    // The thief's snapshot lists a role of his own; no delegation names it.
    let role: RoleName = "releases-evil".parse().expect("a role");
    thief.borrow_keys(&RoleName::channels(), &role);
    thief.add_at(&malware.release.path, &role, &malware);
    thief.point_to("2.0.0");
    let planted = thief.sign();
    truth.tolerate(&planted);
    let _thief = offer(&victim, &planted, planted.head()).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(victim.subscription().await.installed.as_deref(), Some("1.0.0"));
    victim.is_unharmed(&truth, &[&malware]).await;
    // A role that a snapshot listed must stay listed: only other keys get rid of the thief's.
    forge.skip_to(&planted);
    forge.rotate(&[TopRole::Timestamp, TopRole::Snapshot]);
    recovers(&lab, &victim, &mut forge, &truth, &[&planted]).await;
}
