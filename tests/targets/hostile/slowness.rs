//! Slow retrieval: holders that trickle, stall or keep one waiting.

use std::time::{Duration, Instant};

use updraft::control::views::SubscriptionState;
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::transfer::{Control, Hello};
use updraft_tests::forge::noise;
use updraft_tests::lab::{Lab, Truth};
use updraft_tests::malicious::{Answer, Behaviour, Honest, Peer, Serve};

use super::attack::{RELEASE_BYTES, Server, repository, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickling_holder_loses_its_blocks_to_an_honest_one() {
    let lab = Lab::new();
    let (forge, set) = repository("trickle");
    let trickler = Peer::start(&set, Server(Serve::Later(Duration::from_secs(30)))).await;
    trickler.claim_to_be_seed();
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&trickler.address))).await;
    trickler.wait("requests", |log| (log.requested > 0).then_some(())).await;
    let started = Instant::now();
    lab.converges(&victim, &set, "1.0.0").await;
    assert!(started.elapsed() < Duration::from_secs(15), "it waited for the slow one: {:?}", started.elapsed());
    assert!(!victim.banned(&trickler.id).await, "slowness is no lie");
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_are_only_slow_holders_the_transfer_finishes_slowly() {
    let lab = Lab::new();
    let (forge, set) = repository("only slow");
    let slow = Peer::start(&set, Server(Serve::Later(Duration::from_millis(700)))).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&slow.address))).await;
    victim.reaches(&set, "1.0.0").await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_holder_is_waited_for_in_vain_and_visibly() {
    let lab = Lab::new();
    let (forge, set) = repository("silent");
    let silent = Peer::start(&set, Server(Serve::Never)).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&silent.address))).await;
    silent.wait("requests", |log| (log.requested > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = victim.subscription().await;
    assert_eq!(waiting.state, SubscriptionState::Fetching);
    let progress = waiting.progress.expect("it shows how far it is");
    assert_eq!((progress.bytes_done, progress.rate_bytes_per_second), (0, 0));
    lab.converges(&victim, &set, "1.0.0").await;
    assert!(!victim.banned(&silent.id).await, "silence is no lie");
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Answers no question, or each of them late.
struct Reluctant(Option<Duration>);

impl Behaviour for Reluctant {
    fn meta(&mut self, _: &MetaFile, honest: MetaResponse) -> Answer {
        self.0.map_or(Answer::Never, |pause| Answer::Later(pause, honest))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_answer_no_question_delay_a_joiner_by_seconds_only() {
    let lab = Lab::new();
    let (forge, set) = repository("no answers");
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(Peer::start(&set, Reluctant(None)).await);
    }
    let addresses: Vec<String> = silent.iter().map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    silent[0].wait("a question", |log| (!log.asked.is_empty()).then_some(())).await;
    lab.converges(&victim, &set, "1.0.0").await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Says that it has nothing, whatever it is asked for after the root.
struct Destitute;

impl Behaviour for Destitute {
    fn hello(&mut self, honest: Hello) -> Option<Hello> {
        Some(Hello { timestamp_version: 0, ..honest })
    }

    fn meta(&mut self, file: &MetaFile, honest: MetaResponse) -> Answer {
        Answer::Now(if matches!(file, MetaFile::Root { .. }) { honest } else { MetaResponse::NotFound })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_that_have_nothing_do_not_end_a_joiners_questions() {
    let lab = Lab::new();
    let (forge, set) = repository("nothing");
    let mut crowd = Vec::new();
    for _ in 0..4 {
        crowd.push(Peer::start(&set, Destitute).await);
    }
    // The one who has the head does not speak of it: it must be asked as well.
    let modest = Peer::start(&set, Modest).await;
    let addresses: Vec<String> = crowd.iter().chain([&modest]).map(|peer| peer.address.clone()).collect();
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Has everything and says of no head that it has it.
struct Modest;

impl Behaviour for Modest {
    fn hello(&mut self, honest: Hello) -> Option<Hello> {
        Some(Hello { timestamp_version: 0, ..honest })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_answer_is_late_a_joiner_still_joins() {
    let lab = Lab::new();
    let (forge, set) = repository("late answers");
    let late = Peer::start(&set, Reluctant(Some(Duration::from_secs(2)))).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&late.address))).await;
    victim.reaches(&set, "1.0.0").await;
    assert!(!victim.banned(&late.id).await);
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

/// Boasts of the newest head of all, and takes its time to say that it has none.
struct Boaster;

impl Behaviour for Boaster {
    fn hello(&mut self, honest: Hello) -> Option<Hello> {
        Some(Hello { timestamp_version: 9_999, ..honest })
    }

    fn meta(&mut self, file: &MetaFile, honest: MetaResponse) -> Answer {
        match file {
            MetaFile::Head => Answer::Later(Duration::from_millis(1_500), MetaResponse::NotFound),
            _ => Answer::Now(honest),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_boasts_of_a_head_and_has_none_hides_nobody_elses() {
    let lab = Lab::new();
    let (mut forge, set) = repository("boast");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let honest = Peer::start(&set, Honest).await;
    let to = honest.connect(&victim.address).await;
    let boaster = Peer::start(&set, Boaster).await;
    boaster.connect(&victim.address).await;
    boaster.wait("a question", |log| log.asked.iter().any(|(_, file)| *file == MetaFile::Head).then_some(())).await;
    // The honest word comes while the boaster is still being waited for, and not by gossip.
    let next = forge.publish("1.1.0", noise("boast 1.1.0", RELEASE_BYTES));
    honest.shelve(&next);
    let message = Control::Head {
        root_version: next.root_version,
        timestamp_version: next.timestamp_version,
        timestamp_sha256: None,
    };
    honest.say(&to, message).await;
    victim.reaches(&next, "1.1.0").await;
    assert!(!victim.banned(&honest.id).await);
    victim.is_unharmed(&Truth::of(&[&set, &next]), &[]).await;
}
