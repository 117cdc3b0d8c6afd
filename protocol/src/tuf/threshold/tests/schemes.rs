//! Keys and signatures of other schemes than ed25519, counted.

use super::*;
use crate::tuf::fixture::p256;
use crate::tuf::{Root, Trusted};

fn id(text: &str) -> KeyId {
    text.parse().expect("a key id")
}

fn timestamp(bytes: &[u8]) -> Envelope {
    Envelope::parse(&role("timestamp"), bytes, MAX_TIMESTAMP_BYTES).expect("an envelope")
}

#[test]
fn an_ecdsa_signature_counts_in_either_form() {
    let (low, high) = p256::sign(&Repository::new().timestamp, &[id("k")]);
    let table = Keys::from([(id("k"), p256::public("\n"))]);
    assert_ne!(low, high);
    for file in [&low, &high] {
        assert_eq!(outcome(&timestamp(file), &table, &[id("k")], 1), Ok(()));
    }
}

#[test]
fn one_ecdsa_key_in_two_texts_under_two_ids_counts_once() {
    let table = Keys::from([(id("a"), p256::public("\n")), (id("b"), p256::public("\r\n"))]);
    let members = [id("a"), id("b")];
    let (low, high) = p256::sign(&Repository::new().timestamp, &members);
    // Also with both forms of the signature, one under each id.
    let mut mixed = canonical::parse(&low).expect("JSON");
    mixed["signatures"][1] = canonical::parse(&high).expect("JSON")["signatures"][1].clone();
    for file in [low, canonical::encode(&mixed)] {
        assert_eq!(outcome(&timestamp(&file), &table, &members, 2), Err(1));
        assert_eq!(outcome(&timestamp(&file), &table, &members, 1), Ok(()));
    }
}

#[test]
fn keys_of_two_schemes_reach_a_threshold_together() {
    let mut table = keys(&[1]);
    table.insert(id("k"), p256::public("\n"));
    let members = [ids(&[1]), vec![id("k")]].concat();
    let (low, _) = p256::sign(&Repository::new().timestamp, &[id("k")]);
    let mut both = canonical::parse(&low).expect("JSON");
    let other = canonical::parse(&sign(&Repository::new().timestamp, &[1])).expect("JSON");
    both["signatures"].as_array_mut().expect("signatures").push(other["signatures"][0].clone());
    assert_eq!(outcome(&timestamp(&canonical::encode(&both)), &table, &members, 2), Ok(()));
}

#[test]
fn an_exact_envelope_has_the_small_form_of_an_ecdsa_signature() {
    let table = Keys::from([(id("k"), p256::public("\n"))]);
    let authority = Authority { keys: &table, keyids: &[id("k")], threshold: 1 };
    let (low, high) = p256::sign(&Repository::new().timestamp, &[id("k")]);
    assert!(is_exact(&timestamp(&low), &authority));
    assert!(!is_exact(&timestamp(&high), &authority));
    assert_eq!(check_exact(&timestamp(&high), &authority), Ok(()), "it is a valid signature");
    assert_eq!(exact_form(&timestamp(&high), &authority), Some(low.clone()));
    assert_eq!(exact_form(&timestamp(&low), &authority), Some(low));
}

#[test]
fn the_exact_form_names_a_key_by_the_first_of_its_ids() {
    let table = Keys::from([(id("a"), p256::public("\n")), (id("b"), p256::public("\r\n"))]);
    let members = [id("b"), id("a")];
    let authority = Authority { keys: &table, keyids: &members, threshold: 1 };
    let (under_b, _) = p256::sign(&Repository::new().timestamp, &[id("b")]);
    assert!(check_exact(&timestamp(&under_b), &authority).is_err());
    let exact = exact_form(&timestamp(&under_b), &authority).expect("one signature counts");
    assert_eq!(timestamp(&exact).signatures()[0].keyid, id("a"));
    assert_eq!(check_exact(&timestamp(&exact), &authority), Ok(()));
}

#[test]
fn a_key_id_that_is_no_hash_of_its_key_is_a_name_like_another() {
    // Sigstore's root 11 has such a key; other clients read it, and ids decide nothing here.
    let root: Root = Repository::new().root.with_role(TopRole::Root, 1, &[]);
    let mut root = root;
    root.roles.root.keyids = vec![id("not a hash")];
    root.keys.insert(id("not a hash"), p256::public("\n"));
    let (file, _) = p256::sign(&root, &[id("not a hash")]);
    // The PEM text has line ends, which the canonical form leaves raw and a JSON file escapes.
    let file = canonical::escape_controls(file);
    assert!(Trusted::from_trusted_root(&file).is_ok());
}
