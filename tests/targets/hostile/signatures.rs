//! Compromise below the threshold, malleable signatures, ambiguous JSON, key ids twice, replay of
//! another repository.

use data_encoding::HEXLOWER;
use serde_json::Value;
use updraft_protocol::canonical;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::Head;
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::transfer::{Control, Hello};
use updraft_protocol::tuf::{RoleName, Timestamp, TopRole};
use updraft_tests::forge::{Forge, Set, also_signed_by, noise};
use updraft_tests::lab::{Lab, Truth, Victim};
use updraft_tests::malicious::{Behaviour, Honest, Peer};
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, is_blamed, is_unmoved, offer, recovers, repository, settled};

/// The order of ed25519's group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The other way to write the same ed25519 signature: s + L.
fn malleated(signature: &str) -> String {
    let mut bytes = HEXLOWER.decode(signature.as_bytes()).expect("hexadecimal");
    let mut carry = 0_u16;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    HEXLOWER.encode(&bytes)
}

/// An envelope whose signatures were edited; written canonically again.
fn edited(bytes: &[u8], edit: impl FnOnce(&mut Vec<Value>)) -> Vec<u8> {
    let mut envelope = canonical::parse(bytes).expect("JSON");
    edit(envelope["signatures"].as_array_mut().expect("a list"));
    canonical::encode(&envelope)
}

fn with_timestamp(set: &Set, timestamp: Vec<u8>) -> Vec<u8> {
    Head { timestamp, ..Head::decode(&set.head()).expect("a head") }.encode()
}

fn signature(bytes: &[u8]) -> String {
    let envelope = canonical::parse(bytes).expect("JSON");
    envelope["signatures"][0]["sig"].as_str().expect("a text").to_owned()
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).expect("text").replacen(from, to, 1).into_bytes()
}

/// Offers each wrong head by somebody new; each is rejected and blamed on who sent it, and the honest
/// head that all of them imitate is taken afterwards from somebody else.
async fn every_one_is_rejected(lab: &Lab, victim: &Victim, known: &Set, next: &Set, wrong: Vec<(&str, Vec<u8>)>) {
    for (what, head) in wrong {
        assert_ne!(head, next.head(), "{what} changes nothing");
        let liar = offer(victim, next, head).await;
        is_blamed(victim, &liar).await;
        is_unmoved(victim, known, Some("1.0.0")).await;
    }
    victim.is_unharmed(&Truth::of(&[known]), &[]).await;
    lab.converges(victim, next, "1.1.0").await;
    victim.is_unharmed(&Truth::of(&[known, next]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_whose_signatures_are_written_in_another_way_is_rejected() {
    let lab = Lab::new();
    let (mut forge, set) = repository("malleable");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let next = forge.publish("1.1.0", noise("malleable 1.1.0", RELEASE_BYTES));
    let good = signature(&next.timestamp);
    let stranger = Forge::new("stranger", now()).signers(&RoleName::timestamp());
    let surplus = also_signed_by::<Timestamp>(&RoleName::timestamp(), &next.timestamp, &stranger);
    let twice = edited(&next.timestamp, |signatures| signatures.push(signatures[0].clone()));
    let named_twice = edited(&next.timestamp, |signatures| {
        let mut second = signatures[0].clone();
        second["keyid"] = Value::from("ff".repeat(32));
        signatures.push(second);
    });
    let wrong = vec![
        ("s + L", with_timestamp(&next, replaced(&next.timestamp, &good, &malleated(&good)))),
        ("upper case", with_timestamp(&next, replaced(&next.timestamp, &good, &good.to_uppercase()))),
        ("a surplus signature of a stranger", with_timestamp(&next, surplus)),
        ("a signature twice", with_timestamp(&next, twice)),
        ("one signature under two key ids", with_timestamp(&next, named_twice)),
        ("no signature", with_timestamp(&next, edited(&next.timestamp, Vec::clear))),
        ("white space", with_timestamp(&next, [&next.timestamp[..], b"\n"].concat())),
    ];
    every_one_is_rejected(&lab, &victim, &set, &next, wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_says_two_things_is_rejected() {
    let lab = Lab::new();
    let (mut forge, set) = repository("ambiguous");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let next = forge.publish("1.1.0", noise("ambiguous 1.1.0", RELEASE_BYTES));
    let field = format!("\"version\":{}}}", next.timestamp_version);
    let twice = |before: &str| replaced(&next.timestamp, &field, &format!("{before}{field}"));
    let signed = String::from_utf8(next.timestamp.clone()).expect("text");
    let (head, body) = signed.split_once("\"signed\":").expect("an envelope");
    let wrong = vec![
        ("a version twice", with_timestamp(&next, twice("\"version\":99,"))),
        ("the same version twice", with_timestamp(&next, twice(&format!("\"version\":{},", next.timestamp_version)))),
        ("two signed parts", with_timestamp(&next, format!("{head}\"signed\":{{}},\"signed\":{body}").into_bytes())),
        ("an escaped name twice", with_timestamp(&next, twice("\"\\u0076ersion\":99,"))),
        ("a fraction", with_timestamp(&next, replaced(&next.timestamp, &field, "\"version\":2.0}"))),
        ("another number", with_timestamp(&next, replaced(&next.timestamp, &field, "\"version\":99}"))),
    ];
    every_one_is_rejected(&lab, &victim, &set, &next, wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stolen_key_of_two_needed_signs_nothing() {
    let lab = Lab::new();
    let shape =
        [(TopRole::Root, 3, 2), (TopRole::Targets, 3, 2), (TopRole::Timestamp, 3, 2), (TopRole::Snapshot, 3, 2)];
    let mut forge = Forge::with_thresholds("threshold", now(), &shape);
    let set = forge.publish("1.0.0", noise("threshold", RELEASE_BYTES));
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let truth = Truth::of(&[&set]);
    let malware = noise("malware", RELEASE_BYTES);
    let mut lies = Vec::new();
    for role in [RoleName::timestamp(), RoleName::snapshot(), RoleName::targets()] {
        // Everything else is signed as it should be: only this role lacks a signature. The top-level
        // targets role is what it takes to bring in a publisher of one's own.
        let mut thief = forge.clone();
        thief.keep_keys(&role, 1);
        thief.edit(&RoleName::targets(), |_| {});
        let forged = thief.publish("9.9.9", malware.clone());
        let _thief = offer(&victim, &forged, forged.head()).await;
        is_unmoved(&victim, &set, Some("1.0.0")).await;
        lies.push(forged);
    }
    // One key of the root hands every role to somebody else.
    let mut thief = forge.thief(&[RoleName::root()]);
    thief.keep_keys(&RoleName::root(), 1);
    thief.rotate(&[TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets]);
    thief.edit(&RoleName::targets(), |_| {});
    let forged = thief.publish("9.9.9", malware.clone());
    let _thief = offer(&victim, &forged, forged.head()).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    assert_eq!(victim.status().await.repositories[0].root_version, 1);
    lies.push(forged);
    // The same signature under the id of a second key is one signature.
    let mut thief = forge.clone();
    let second = forge.signers(&RoleName::timestamp())[1].public().id();
    thief.keep_keys(&RoleName::timestamp(), 1);
    let forged = thief.publish("9.9.9", malware);
    let doubled = edited(&forged.timestamp, |signatures| {
        let mut copy = signatures[0].clone();
        copy["keyid"] = Value::from(second.as_str());
        signatures.push(copy);
        signatures.sort_by_key(|signature| signature["keyid"].to_string());
    });
    let liar = offer(&victim, &forged, with_timestamp(&forged, doubled)).await;
    is_blamed(&victim, &liar).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    recovers(&lab, &victim, &mut forge, &truth, &lies.iter().collect::<Vec<_>>()).await;
}

/// Claims to belong to another repository.
struct Foreigner(Digest);

impl Behaviour for Foreigner {
    fn hello(&mut self, honest: Hello) -> Option<Hello> {
        Some(Hello { repository: self.0.as_bytes().to_vec(), ..honest })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_repository_signed_says_nothing_here() {
    let lab = Lab::new();
    let (mut forge, set) = repository("here");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let truth = Truth::of(&[&set]);
    let mut elsewhere = Forge::new("elsewhere", now());
    for version in ["1.0.0", "5.0.0", "9.9.9"] {
        elsewhere.publish(version, noise(version, RELEASE_BYTES));
    }
    let mut foreign = elsewhere.sign();
    foreign.repository = set.repository;
    let liar = offer(&victim, &foreign, foreign.head()).await;
    is_blamed(&victim, &liar).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;

    // Whoever says that it belongs elsewhere is parted from.
    let foreigner = Peer::start(&set, Foreigner(elsewhere.id.0)).await;
    let dial = updraft::engine::effect::SwarmEffect::Dial {
        peer: Some(victim.id.clone()),
        addresses: vec![victim.address.clone()],
    };
    foreigner.tell(dial).await;
    foreigner.wait("the end of the session", |log| (!log.left.is_empty()).then_some(())).await;
    // And questions about another repository are refused.
    let auditor = Peer::start(&set, Honest).await;
    let to = auditor.connect(&victim.address).await;
    let answer = auditor.ask_about(&to, elsewhere.id.0, MetaFile::Head).await;
    assert!(matches!(answer, Ok(MetaResponse::Refused { .. })), "{answer:?}");
    auditor.say(&to, Control::Head { root_version: 1, timestamp_version: 1, timestamp_sha256: None }).await;
    tokio::time::sleep(MOMENT).await;
    recovers(&lab, &victim, &mut forge, &truth, &[&foreign]).await;
}
