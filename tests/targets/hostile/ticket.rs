//! Tickets that were altered on the way.

use std::time::Duration;

use updraft::config::Role;
use updraft::runtime::start;
use updraft_protocol::digest::Digest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::tuf::RepositoryId;
use updraft_tests::cluster::config;
use updraft_tests::forge::{Forge, noise};
use updraft_tests::lab::{Lab, Truth, head_version};
use updraft_tests::malicious::{Honest, Peer};
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, is_blamed, repository};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_addresses_lead_to_an_impostor_and_alter_no_trust() {
    let lab = Lab::new();
    let (forge, set) = repository("real");
    let evil = Forge::new("impostor", now()).publish("9.9.9", noise("malware", RELEASE_BYTES));
    // A real seed of another repository, and one that lies about which it has.
    let impostor = lab.seed(&evil).await;
    let mut disguised = evil.clone();
    disguised.repository = set.repository;
    let liar = Peer::start(&disguised, Honest).await;
    let victim = lab.victim(&forge.ticket(&[impostor.address.clone(), liar.address.clone()])).await;
    liar.wait("a question for the root", |log| {
        log.asked.iter().any(|(_, file)| matches!(file, MetaFile::Root { .. })).then_some(())
    })
    .await;
    is_blamed(&victim, &liar).await;
    let truth = Truth::of(&[&set]);
    let lies: Vec<_> = evil.works.values().collect();
    assert_eq!(victim.status().await.repositories[0].root_version, 0);
    victim.is_unharmed(&truth, &lies).await;
    lab.converges(&victim, &set, "1.0.0").await;
    victim.is_unharmed(&truth, &lies).await;
    assert!(victim.events().await.iter().all(|event| !event.text.contains("9.9.9")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_hash_trusts_nobody() {
    let lab = Lab::new();
    let (forge, set) = repository("pinned");
    let seed = lab.seed(&set).await;
    let mut other_root = forge.ticket(std::slice::from_ref(&seed.address));
    other_root.root_sha256 = Digest::of(b"another root");
    let mut later_root = other_root.clone();
    later_root.root_version = 2;
    let mut other_repository = forge.ticket(std::slice::from_ref(&seed.address));
    other_repository.repository = RepositoryId(Digest::of(b"another repository"));
    for (what, ticket) in [("root", other_root), ("later root", later_root), ("repository", other_repository)] {
        let victim = lab.victim(&ticket).await;
        tokio::time::sleep(2 * MOMENT).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = victim.status().await;
        assert_eq!(head_version(&status), 0, "another {what}: {status:#?}");
        assert!(status.subscriptions[0].installed.is_none());
        assert_ne!(ticket.fingerprint(), forge.ticket(&[]).fingerprint(), "people who compare see it");
        let mut truth = Truth::of(&[&set]);
        truth.is_of(ticket.repository.0);
        victim.is_unharmed(&truth, &[]).await;
        victim.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_was_damaged_is_refused_at_once() {
    let lab = Lab::new();
    let (forge, _) = repository("damaged");
    let text = forge.ticket(&["/ip4/127.0.0.1/tcp/1".to_owned()]).to_string();
    let middle = text.len() / 2;
    let swapped = if &text[middle..=middle] == "a" { "b" } else { "a" };
    let flipped = format!("{}{swapped}{}", &text[..middle], &text[middle + 1..]);
    for (index, damaged) in
        [flipped, text[..text.len() - 3].to_owned(), format!("{text}aa"), text.replace("updraft1", "updraft2")]
            .into_iter()
            .enumerate()
    {
        let config = config(&lab.path().join(index.to_string()), Role::Peer, Some(damaged));
        let refused = start(config).await.expect_err("refused").to_string();
        assert!(refused.contains("ticket"), "{refused}");
    }
}
