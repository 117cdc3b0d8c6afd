use proptest::prelude::*;
use semver::Version;

use super::*;
use crate::key::PublicKey;
use crate::tuf::fixture::{key, later, now, public, role};
use crate::tuf::{DelegatedRole, Delegations, Expiry, FileMeta, Snapshot, TargetInfo, Timestamp};

const ROOT: [u8; 3] = [1, 2, 3];
const TIMESTAMP: u8 = 10;
const SNAPSHOT: u8 = 11;
const TARGETS: u8 = 12;
const RELEASES: u8 = 13;
const CHANNELS: u8 = 14;

fn publics(seeds: &[u8]) -> Vec<PublicKey> {
    seeds.iter().map(|seed| public(*seed)).collect()
}

fn first_root() -> Root {
    Root::new(1, later())
        .with_role(TopRole::Root, 2, &publics(&ROOT))
        .with_role(TopRole::Targets, 1, &publics(&[TARGETS]))
        .with_role(TopRole::Snapshot, 1, &publics(&[SNAPSHOT]))
        .with_role(TopRole::Timestamp, 1, &publics(&[TIMESTAMP]))
}

/// A repository with a 2-of-3 root, a product and its channels.
fn repository() -> (Vec<Vec<u8>>, Trusted) {
    let root = sign_role(&first_root(), &[&key(1), &key(2)]);
    let id = RepositoryId::of_first_root(&root).expect("a first root");
    let mut trusted = Trusted::from_first_root(&root, &id).expect("its own");
    let delegations = Delegations::default()
        .with_role(DelegatedRole::new(role("channels"), &["channels/*/*"]).terminating(), 1, &publics(&[CHANNELS]))
        .with_role(DelegatedRole::new(role("releases-app"), &["releases/app/*/*/*"]), 1, &publics(&[RELEASES]));
    let targets = Targets { delegations: Some(delegations), ..Targets::new(1, later()) };
    let mut releases = Targets::new(1, later());
    releases.targets.insert("releases/app/1.0.0/any/a".to_owned(), TargetInfo::of(b"a"));
    let files = [
        ("targets", sign_role(&targets, &[&key(TARGETS)])),
        ("releases-app", sign_role(&releases, &[&key(RELEASES)])),
        ("channels", sign_role(&Targets::new(1, later()), &[&key(CHANNELS)])),
    ];
    let mut snapshot = Snapshot::new(1, later());
    for (name, bytes) in &files {
        snapshot = snapshot.with_role(&role(name), FileMeta::of(1, bytes));
    }
    let snapshot = sign_role(&snapshot, &[&key(SNAPSHOT)]);
    let timestamp = sign_role(&Timestamp::new(1, later(), FileMeta::of(1, &snapshot)), &[&key(TIMESTAMP)]);
    let enforce = Expiry::Enforce(now());
    let _ = trusted.update_timestamp(&timestamp, enforce).expect("fresh");
    let _ = trusted.update_snapshot(&snapshot, enforce).expect("fresh");
    for (name, bytes) in &files {
        let _ = trusted.update_targets(&role(name), bytes, enforce).expect("fresh");
    }
    (vec![root], trusted)
}

fn is_online(role: &RoleName) -> bool {
    role.as_str() == "channels"
}

fn ceremony(edits: Edits) -> Result<Ceremony, CeremonyError> {
    let (roots, trusted) = repository();
    Ceremony::new(&trusted, roots, edits, later(), &is_online)
}

fn root_edit(change: impl FnOnce(Root) -> Root) -> Edits {
    Edits { root: Some(change(first_root())), ..Edits::default() }
}

fn new_timestamp_key() -> Ceremony {
    ceremony(root_edit(|root| root.with_role(TopRole::Timestamp, 1, &publics(&[20])))).expect("a draft")
}

fn targets_edit(change: impl FnOnce(&mut Targets)) -> Edits {
    let (_, trusted) = repository();
    let mut targets = Targets::clone(trusted.role(&RoleName::targets()).expect("loaded"));
    change(&mut targets);
    Edits { roles: BTreeMap::from([(RoleName::targets(), targets)]), ..Edits::default() }
}

fn words(ceremony: &Ceremony) -> String {
    ceremony.changes().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn two_of_three_holders_sign_copies_of_one_file() {
    let draft = new_timestamp_key();
    assert!(matches!(draft.finish(), Err(CeremonyError::Incomplete { signed: 0, threshold: 2, .. })));
    let file = draft.encode();
    let mut alice = Ceremony::parse(&file).expect("as written");
    let mut bob = Ceremony::parse(&file).expect("as written");
    assert_eq!(alice.sign(&[&key(1)]).expect("hers").len(), 1);
    assert_eq!(bob.sign(&[&key(3), &key(99)]).expect("his").len(), 1, "a key that may not sign does not");
    assert!(alice.finish().is_err());
    alice.merge(&Ceremony::parse(&bob.encode()).expect("signed")).expect("the same ceremony");
    let finished = alice.finish().expect("two of three");
    let (roots, mut trusted) = repository();
    trusted.update_root(&finished.root.expect("a root").1).expect("the successor");
    assert_eq!(trusted.root().signers(TopRole::Timestamp).keys[0].1, public(20));
    assert_eq!(roots.len(), 1);
}

#[test]
fn signing_again_changes_nothing() {
    let mut draft = new_timestamp_key();
    draft.sign(&[&key(1)]).expect("signed");
    let once = draft.encode();
    assert_eq!(draft.sign(&[&key(1)]).expect("signed"), []);
    assert_eq!(draft.encode(), once);
}

#[test]
fn a_new_root_key_must_be_accepted_by_the_old_and_the_new() {
    let edit = root_edit(|root| root.with_role(TopRole::Root, 2, &publics(&[3, 30, 31])));
    let mut draft = ceremony(edit).expect("a draft");
    assert_eq!(draft.quorums().len(), 2);
    draft.sign(&[&key(30), &key(31)]).expect("the new ones");
    assert!(matches!(draft.finish(), Err(CeremonyError::Incomplete { by_version: 1, signed: 0, .. })));
    draft.sign(&[&key(1), &key(2)]).expect("the old ones");
    draft.finish().expect("both thresholds");
}

#[test]
fn a_role_that_gets_other_keys_is_signed_by_them_in_the_same_ceremony() {
    let edit = root_edit(|root| root.with_role(TopRole::Targets, 1, &publics(&[40])));
    let mut draft = ceremony(edit).expect("a draft");
    assert_eq!(draft.roles(), [(RoleName::root(), 2), (RoleName::targets(), 2)]);
    draft.sign(&[&key(1), &key(2)]).expect("root holders");
    assert!(matches!(draft.finish(), Err(CeremonyError::Incomplete { role, .. }) if role == RoleName::targets()));
    draft.sign(&[&key(TARGETS)]).expect("the key that is replaced has no say");
    assert!(draft.finish().is_err());
    draft.sign(&[&key(40)]).expect("the new key");
    assert_eq!(draft.finish().expect("whole").roles.len(), 1);

    let edit = targets_edit(|targets| {
        let publisher = DelegatedRole::new(role("releases-app"), &["releases/app/*/*/*"]);
        targets.delegations = targets.delegations.take().map(|all| all.with_role(publisher, 1, &publics(&[41])));
    });
    let draft = ceremony(edit).expect("a draft");
    assert_eq!(draft.roles(), [(RoleName::targets(), 2), (role("releases-app"), 2)]);
}

#[test]
fn what_the_seed_signs_by_itself_is_not_drafted() {
    let edit = targets_edit(|targets| {
        let channels = DelegatedRole::new(role("channels"), &["channels/*/*"]).terminating();
        targets.delegations = targets.delegations.take().map(|all| all.with_role(channels, 1, &publics(&[42])));
    });
    assert_eq!(ceremony(edit).expect("a draft").roles(), [(RoleName::targets(), 2)]);
}

#[test]
fn every_change_is_told() {
    let text = words(&new_timestamp_key());
    assert!(text.contains("root becomes version 2"), "{text}");
    assert!(text.contains(&format!("timestamp: the ed25519 key {} may sign", public(20).id())), "{text}");
    assert!(text.contains(&format!("timestamp: the key {} may no longer sign", public(TIMESTAMP).id())), "{text}");
    assert_eq!(text.lines().count(), 3);
    let edit = targets_edit(|targets| {
        targets.security_floor.insert("app".parse().expect("a name"), Version::new(1, 2, 0));
        let other = DelegatedRole::new(role("releases-b"), &["releases/b/*/*/*"]);
        targets.delegations = targets.delegations.take().map(|all| all.with_role(other, 1, &publics(&[50])));
        targets.other.insert("surprise".to_owned(), true.into());
    });
    let text = words(&ceremony(edit).expect("a draft"));
    for part in ["app: the lowest version", "1.2.0 instead of none", "releases-b is new", "cannot explain"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let edit = root_edit(|mut root| {
        root.consistent_snapshot = false;
        root.keys.insert("idle".parse().expect("an id"), public(60));
        root
    });
    let text = words(&ceremony(edit).expect("a draft"));
    assert!(text.contains("consistent_snapshot") && text.contains("a key that no role uses"), "{text}");
}

#[test]
fn a_change_that_locks_everybody_out_is_refused() {
    let edit = root_edit(|root| root.with_role(TopRole::Timestamp, 2, &publics(&[20])));
    assert!(matches!(ceremony(edit), Err(CeremonyError::LockedOut { threshold: 2, usable: 1, .. })));
    assert_eq!(ceremony(Edits::default()).expect_err("nothing"), CeremonyError::Nothing);
}

#[test]
fn files_of_different_ceremonies_do_not_merge() {
    let other = ceremony(root_edit(|root| root.with_role(TopRole::Timestamp, 1, &publics(&[21])))).expect("a draft");
    assert_eq!(new_timestamp_key().merge(&other), Err(CeremonyError::Different));
}

#[test]
fn a_draft_that_was_altered_after_a_signature_is_refused() {
    let mut draft = new_timestamp_key();
    draft.sign(&[&key(1)]).expect("signed");
    let file = String::from_utf8(draft.encode()).expect("text");
    let thief = file
        .replace(public(20).public(), public(66).public())
        .replace(public(20).id().as_str(), public(66).id().as_str());
    assert_ne!(thief, file);
    assert!(matches!(Ceremony::parse(thief.as_bytes()), Err(CeremonyError::BadSignature { .. })));
}

#[test]
fn a_base_that_nobody_signed_is_refused() {
    let file = String::from_utf8(new_timestamp_key().encode()).expect("text");
    // Drafts come first in the file, the roots that they build on after them.
    let (drafts, roots) = file.split_at(file.find("\"roots\"").expect("there"));
    let forged = format!("{drafts}{}", roots.replacen("\\\"threshold\\\":2", "\\\"threshold\\\":1", 1));
    assert_ne!(forged, file);
    let error = Ceremony::parse(forged.as_bytes()).expect_err("altered");
    assert!(matches!(error, CeremonyError::Base(_) | CeremonyError::Malformed(_)), "{error}");
}

#[test]
fn one_ceremony_has_one_encoding() {
    let file = new_timestamp_key().encode();
    Ceremony::parse(&file).expect("as written");
    let mut spaced = file.clone();
    spaced.push(b' ');
    assert!(matches!(Ceremony::parse(&spaced), Err(CeremonyError::Malformed(_))));
    let unknown = String::from_utf8(file).expect("text").replacen('{', "{\"a\":1,", 1);
    assert!(matches!(Ceremony::parse(unknown.as_bytes()), Err(CeremonyError::Malformed(_))));
    assert!(matches!(
        Ceremony::parse(&vec![b' '; usize::try_from(MAX_CEREMONY_BYTES).expect("small") + 1]),
        Err(CeremonyError::TooLarge { .. })
    ));
}

#[test]
fn a_draft_outlives_changes_that_do_not_concern_it() {
    let (roots, trusted) = repository();
    let renewal = |trusted: &Trusted, edits: Edits| {
        Ceremony::new(trusted, roots.clone(), edits, later(), &is_online).expect("a draft")
    };
    let targets = renewal(&trusted, targets_edit(|_| ()));
    let mut renewed = trusted.clone();
    let mut root = renewal(&trusted, root_edit(|root| root));
    root.sign(&[&key(1), &key(2)]).expect("signed");
    renewed.update_root(&root.finish().expect("whole").root.expect("a root").1).expect("the successor");
    assert_eq!(targets.outdated(&renewed), None);
    let mut rotated = trusted.clone();
    let mut root = renewal(&trusted, root_edit(|root| root.with_role(TopRole::Targets, 1, &publics(&[TARGETS, 40]))));
    root.sign(&[&key(1), &key(2)]).expect("signed");
    rotated.update_root(&root.finish().expect("whole").root.expect("a root").1).expect("the successor");
    assert_eq!(targets.outdated(&rotated), Some(RoleName::targets()), "others may sign it now");
}

#[test]
fn a_ceremony_names_its_repository() {
    let (_, trusted) = repository();
    assert_eq!(new_timestamp_key().repository(), trusted.repository());
    assert_eq!(new_timestamp_key().outdated(&trusted), None);
    assert!(!new_timestamp_key().is_in_force(&trusted));
    let (mut later, mut draft) = (trusted.clone(), new_timestamp_key());
    draft.sign(&[&key(1), &key(2)]).expect("signed");
    later.update_root(&draft.finish().expect("whole").root.expect("a root").1).expect("the successor");
    assert!(draft.is_in_force(&later));
    assert_eq!(draft.outdated(&later), Some(RoleName::root()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_file_is_refused_or_is_itself(position: prop::sample::Index, byte: u8) {
        let mut draft = new_timestamp_key();
        draft.sign(&[&key(1)]).expect("signed");
        let mut file = draft.encode();
        let position = position.index(file.len());
        let same = file[position] == byte;
        file[position] = byte;
        // What is left to a vandal without keys is to take signatures away, never to change what is signed.
        if let Ok(parsed) = Ceremony::parse(&file) {
            prop_assert!(same, "a changed byte at {} was taken", position);
            prop_assert_eq!(parsed.encode(), file);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Ceremony::parse(&bytes);
    }

    #[test]
    fn signatures_in_any_order_make_the_same_file(order in Just(vec![1_u8, 2, 3]).prop_shuffle(), split in 0_usize..3) {
        let mut one = new_timestamp_key();
        one.sign(&[&key(1), &key(2), &key(3)]).expect("all");
        let (first, second) = order.split_at(split);
        let (mut a, mut b) = (new_timestamp_key(), new_timestamp_key());
        for seed in first { a.sign(&[&key(*seed)]).expect("signed"); }
        for seed in second { b.sign(&[&key(*seed)]).expect("signed"); }
        a.merge(&b).expect("the same ceremony");
        prop_assert_eq!(a.encode(), one.encode());
    }
}
