//! Freezes: what is withheld is noticed, told, and stops installs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use updraft::control::views::{GateVerdict, StatusView};
use updraft_protocol::names::Channel;
use updraft_protocol::rollout::{ChannelPolicy, Rollout, Stage};
use updraft_protocol::transfer::{BlockRange, ObjectId};
use updraft_tests::forge::{Twist, Work, noise};
use updraft_tests::lab::{Lab, Truth, head_version};
use updraft_tests::malicious::{Behaviour, Serve};
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, is_unmoved, offer, offer_as, recovers, repository, settled};

/// Keeps its pieces back until it is told otherwise.
struct Withholding(Arc<AtomicBool>);

impl Behaviour for Withholding {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        if self.0.load(Ordering::Relaxed) { Serve::Honest } else { Serve::Busy(100) }
    }
}

fn freshness_is_closed(status: &StatusView) -> bool {
    let gates = status.subscriptions[0].gates.iter().flatten();
    gates.filter(|gate| gate.gate == "freshness").any(|gate| gate.verdict == GateVerdict::Closed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_ends_installs_at_expiry_and_is_told_everywhere() {
    let lab = Lab::new();
    let (mut forge, set) = repository("freeze");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    // The last head that the attacker lets through, and a release that he delays until it has expired.
    let work = Work::file("1.1.0", noise("freeze 1.1.0", RELEASE_BYTES));
    forge.add(&work);
    forge.point_to("1.1.0");
    let expires = now().plus_seconds(4);
    let frozen = forge.sign_twisted(Twist { expires: Some(expires), ..Twist::default() });
    let truth = Truth::of(&[&set, &frozen]);
    let lets_through = Arc::new(AtomicBool::new(false));
    let _freezer = offer_as(&victim, &frozen, frozen.head(), Withholding(lets_through.clone())).await;
    victim.until("the head", |status| head_version(status) == frozen.timestamp_version).await;
    let status = victim.until("expiry", |status| !status.repositories[0].head.as_ref().expect("a head").fresh).await;
    assert!(now() >= expires);
    assert!(status.warnings.iter().any(|warning| warning.contains("expired")), "{status:#?}");
    lets_through.store(true, Ordering::Relaxed);
    victim.until("the gate", freshness_is_closed).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    is_unmoved(&victim, &frozen, Some("1.0.0")).await;
    let status = victim.status().await;
    assert!(status.repositories[0].head.as_ref().expect("a head").age_ms >= 4_000, "{status:#?}");
    let reason = victim.subscription().await.reason.unwrap_or_default();
    assert!(reason.contains("expired"), "{reason}");
    let health = victim.get("/healthz").await;
    assert!(health.status != 200 && health.text().contains("expired"), "{health:?}");
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_has_expired_is_not_taken_and_its_bearer_not_blamed() {
    let lab = Lab::new();
    let (mut forge, set) = repository("expired");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let twist = Twist { expires: Some(now().plus_seconds(-60)), ..Twist::default() };
    let late = forge.sign_twisted(twist);
    let bearer = offer(&victim, &late, late.head()).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    assert_eq!(victim.faults_of(&bearer.id).await, Some(0));
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_too_old_for_its_channel_may_hide_a_pause_and_installs_nothing() {
    let lab = Lab::new();
    let (mut forge, set) = repository("hidden pause");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let version = Some("1.1.0".parse().expect("a version"));
    let limited = ChannelPolicy { version: version.clone(), max_head_age_s: Some(60), ..ChannelPolicy::default() };
    let stages = vec![Stage { percent: 99, at: now().plus_days(-2) }];
    let rollout = Rollout { start: now().plus_days(-2), stages };
    let rolling = ChannelPolicy { version, rollout, ..ChannelPolicy::default() };
    forge.add(&Work::file("1.1.0", noise("hidden pause 1.1.0", RELEASE_BYTES)));
    let mut truth = Truth::of(&[&set]);
    for (policy, age_s) in [(limited, 3_600), (rolling, 25 * 3_600)] {
        forge.set_policy(&Channel::stable(), &policy);
        let old = forge.sign_twisted(Twist { signed_at: Some(now().plus_seconds(-age_s)), ..Twist::default() });
        truth.learn(&old);
        let _replayer = offer(&victim, &old, old.head()).await;
        victim.until("the head", |status| head_version(status) == old.timestamp_version).await;
        let status = victim.until("a closed gate", freshness_is_closed).await;
        let gates = status.subscriptions[0].gates.as_ref().expect("asked for");
        assert!(gates.iter().any(|gate| gate.reason.contains("a pause may be hidden")), "{gates:#?}");
        tokio::time::sleep(MOMENT).await;
        is_unmoved(&victim, &old, Some("1.0.0")).await;
    }
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}
