use serde_json::{Value, json};

use super::*;
use crate::canonical;
use crate::limits::{MAX_SIGNATURES, MAX_TIMESTAMP_BYTES};
use crate::tuf::fixture::{Repository, key, public, role, sign};
use crate::tuf::{TopRole, cosign};

mod schemes;

fn keys(seeds: &[u8]) -> Keys {
    seeds.iter().map(|seed| (public(*seed).id(), public(*seed))).collect()
}

fn ids(seeds: &[u8]) -> Vec<KeyId> {
    seeds.iter().map(|seed| public(*seed).id()).collect()
}

/// A timestamp signed by `seeds`, with its JSON changed afterwards.
fn envelope(seeds: &[u8], edit: impl FnOnce(&mut Value)) -> Result<Envelope, TufError> {
    let mut value = canonical::parse(&sign(&Repository::new().timestamp, seeds)).expect("JSON");
    edit(&mut value);
    Envelope::parse(&role("timestamp"), &canonical::encode(&value), MAX_TIMESTAMP_BYTES)
}

fn signed(seeds: &[u8]) -> Envelope {
    envelope(seeds, |_| ()).expect("an envelope")
}

fn outcome(envelope: &Envelope, keys: &Keys, keyids: &[KeyId], threshold: u64) -> Result<(), usize> {
    match check(envelope, &Authority { keys, keyids, threshold }) {
        Ok(()) => Ok(()),
        Err(TufError::Signatures { valid, .. }) => Err(valid),
        Err(other) => unreachable!("only signatures are counted, not {other}"),
    }
}

#[test]
fn a_threshold_of_distinct_keys_is_enough() {
    let (table, members) = (keys(&[1, 2, 3]), ids(&[1, 2, 3]));
    assert_eq!(outcome(&signed(&[1, 3]), &table, &members, 2), Ok(()));
    assert_eq!(outcome(&signed(&[1, 2, 3]), &table, &members, 2), Ok(()));
    assert_eq!(outcome(&signed(&[1]), &table, &members, 2), Err(1));
    assert_eq!(outcome(&signed(&[]), &table, &members, 1), Err(0));
}

#[test]
fn a_threshold_of_zero_is_never_reached() {
    assert_eq!(outcome(&signed(&[]), &keys(&[1]), &ids(&[1]), 0), Err(0));
    assert_eq!(outcome(&signed(&[1]), &keys(&[1]), &ids(&[1]), 0), Err(1));
}

#[test]
fn a_key_outside_the_role_does_not_count() {
    assert_eq!(outcome(&signed(&[1, 2]), &keys(&[1, 2]), &ids(&[1]), 2), Err(1));
}

#[test]
fn a_key_id_without_a_key_does_not_count() {
    assert_eq!(outcome(&signed(&[1, 2]), &keys(&[1]), &ids(&[1, 2]), 2), Err(1));
}

#[test]
fn a_signature_over_something_else_does_not_count() {
    let altered = envelope(&[1, 2], |value| value["signed"]["version"] = json!(9)).expect("an envelope");
    assert_eq!(outcome(&altered, &keys(&[1, 2]), &ids(&[1, 2]), 1), Err(0));
}

#[test]
fn a_signature_under_another_keys_id_does_not_count() {
    let swapped = envelope(&[1], |value| {
        value["signatures"][0]["keyid"] = json!(public(2).id());
    })
    .expect("an envelope");
    assert_eq!(outcome(&swapped, &keys(&[1, 2]), &ids(&[1, 2]), 1), Err(0));
}

#[test]
fn text_that_is_no_signature_does_not_count_and_does_not_spoil_the_others() {
    for text in ["", "zz", "00", "0"] {
        let broken = envelope(&[1, 2], |value| value["signatures"][0]["sig"] = json!(text)).expect("an envelope");
        assert_eq!(outcome(&broken, &keys(&[1, 2]), &ids(&[1, 2]), 1), Ok(()), "{text}");
        assert_eq!(outcome(&broken, &keys(&[1, 2]), &ids(&[1, 2]), 2), Err(1), "{text}");
    }
}

#[test]
fn one_key_id_signing_twice_is_refused() {
    let twice = envelope(&[1], |value| {
        let first = value["signatures"][0].clone();
        value["signatures"].as_array_mut().expect("signatures").push(first);
    });
    assert!(matches!(twice, Err(TufError::Malformed { .. })));
}

#[test]
fn one_key_under_two_key_ids_counts_once() {
    let alias: KeyId = "alias".parse().expect("a key id");
    let mut table = keys(&[1]);
    table.insert(alias.clone(), public(1));
    let members = [ids(&[1]), vec![alias.clone()]].concat();
    let twice = envelope(&[1], |value| {
        let mut second = value["signatures"][0].clone();
        second["keyid"] = json!(alias);
        value["signatures"].as_array_mut().expect("signatures").push(second);
    })
    .expect("an envelope");
    assert_eq!(outcome(&twice, &table, &members, 2), Err(1));
    assert_eq!(outcome(&twice, &table, &members, 1), Ok(()));
}

#[test]
fn a_key_id_listed_twice_counts_once() {
    assert_eq!(outcome(&signed(&[1]), &keys(&[1]), &ids(&[1, 1]), 2), Err(1));
}

#[test]
fn too_many_signatures_are_refused_before_any_is_checked() {
    let many = envelope(&[1], |value| {
        let list =
            (0..=MAX_SIGNATURES).map(|index| json!({"keyid": format!("k{index}"), "sig": ""})).collect::<Vec<_>>();
        value["signatures"] = Value::from(list);
    });
    assert!(matches!(many, Err(TufError::Malformed { .. })));
}

#[test]
fn unknown_fields_of_an_envelope_are_tolerated() {
    let extended = envelope(&[1], |value| {
        value["comment"] = json!("x");
        value["signatures"][0]["hint"] = json!(1);
    })
    .expect("an envelope");
    assert_eq!(outcome(&extended, &keys(&[1]), &ids(&[1]), 1), Ok(()));
    assert!(!extended.is_canonical());
}

#[test]
fn an_unknown_field_of_the_signed_part_is_covered_by_the_signature() {
    let extended = envelope(&[1], |value| value["signed"]["extra"] = json!(true)).expect("an envelope");
    assert_eq!(outcome(&extended, &keys(&[1]), &ids(&[1]), 1), Err(0));
}

#[test]
fn an_exact_envelope_has_no_signature_to_spare() {
    let (table, members) = (keys(&[1, 2, 3]), ids(&[1, 2, 3]));
    let authority = Authority { keys: &table, keyids: &members, threshold: 2 };
    assert_eq!(check_exact(&signed(&[1, 3]), &authority), Ok(()));
    assert!(check_exact(&signed(&[1, 2, 3]), &authority).is_err());
    assert!(check_exact(&signed(&[1, 9]), &authority).is_err());
    assert!(check_exact(&signed(&[1]), &authority).is_err());
}

#[test]
fn surplus_and_unknown_signatures_are_trimmed_to_the_exact_form() {
    let (table, members) = (keys(&[1, 2, 3]), ids(&[1, 2, 3]));
    let authority = Authority { keys: &table, keyids: &members, threshold: 2 };
    let bytes = exact_form(&signed(&[9, 3, 2, 1]), &authority).expect("enough signatures");
    let trimmed = Envelope::parse(&role("timestamp"), &bytes, MAX_TIMESTAMP_BYTES).expect("an envelope");
    assert!(trimmed.is_canonical() && check_exact(&trimmed, &authority).is_ok());
    assert_eq!(exact_form(&signed(&[1, 9]), &authority), None);
}

#[test]
fn the_holders_of_two_keys_can_sign_one_after_the_other() {
    let first = sign(&Repository::new().root, &[1]);
    let both = cosign::<crate::tuf::Root>(&role("root"), &first, &[&key(2)]).expect("an envelope");
    assert_eq!(both, sign(&Repository::new().root, &[2, 1]));
}

#[test]
fn adding_a_key_keeps_a_role_and_removing_one_does_not() {
    let root = |seeds: &[u8]| {
        let keys: Vec<_> = seeds.iter().map(|seed| public(*seed)).collect();
        Repository::new().root.with_role(TopRole::Timestamp, 1, &keys)
    };
    let kept = |old: &[u8], new: &[u8]| {
        root(old).authority(TopRole::Timestamp).is_kept_by(&root(new).authority(TopRole::Timestamp))
    };
    assert!(kept(&[1], &[1]) && kept(&[1], &[1, 2]));
    assert!(!kept(&[1], &[2]) && !kept(&[1, 2], &[2]));
}
