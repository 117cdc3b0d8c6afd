use proptest::prelude::*;

use super::*;
use crate::canonical;
use crate::digest::Digest;
use crate::limits::MAX_HEAD_BYTES;
use crate::tuf::fixture::{
    ARTIFACT, CHANNEL, Files, POLICY, Repository, SNAPSHOT, TIMESTAMP, later, now, p256, public, role, sign,
};
use crate::tuf::{FileMeta, Hashes, Root, TargetInfo, TopRole};

fn head_of(files: &Files, inlines: Vec<Inline>) -> Head {
    Head { root_version: 1, timestamp: files.timestamp.clone(), snapshot: files.snapshot.clone(), inlines }
}

fn head(repository: &Repository) -> Head {
    head_of(&repository.files(), Vec::new())
}

fn inline_role(files: &Files, name: &str, version: u64) -> Inline {
    Inline::Role { name: role(name), version, bytes: files.roles[&role(name)].clone() }
}

fn inline_target(path: &str, bytes: &[u8]) -> Inline {
    Inline::Target { path: path.to_owned(), bytes: bytes.to_vec() }
}

fn verdict(head: &Head, trusted: &Trusted) -> Verdict {
    judge(&head.encode(), trusted, now())
}

fn accepted(head: &Head, trusted: &Trusted) -> Accepted {
    match verdict(head, trusted) {
        Verdict::Accept(accepted) => *accepted,
        other => panic!("not accepted: {other:?}"),
    }
}

fn ignored(head: &Head, trusted: &Trusted) -> Ignored {
    match verdict(head, trusted) {
        Verdict::Ignore(why) => why,
        other => panic!("not ignored: {other:?}"),
    }
}

fn rejected(head: &Head, trusted: &Trusted) -> Rejected {
    match verdict(head, trusted) {
        Verdict::Reject(why) => why,
        other => panic!("not rejected: {other:?}"),
    }
}

fn evidence(head: &Head, trusted: &Trusted) -> Evidence {
    match verdict(head, trusted) {
        Verdict::Equivocation(evidence) => *evidence,
        other => panic!("no equivocation: {other:?}"),
    }
}

/// The same envelope with its JSON changed and written canonically again.
fn edited(bytes: &[u8], edit: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut value = canonical::parse(bytes).expect("JSON");
    edit(&mut value);
    canonical::encode(&value)
}

// ---- accept

#[test]
fn a_newer_head_is_accepted() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump("releases-editor");
    let accepted = accepted(&head(&repository), &trusted);
    assert_eq!(accepted.trusted.timestamp().map(|timestamp| timestamp.version), Some(2));
    assert_eq!(accepted.trusted.missing_roles().len(), 1);
    assert_eq!(accepted.root_version, 1);
    assert_eq!(trusted.timestamp().map(|timestamp| timestamp.version), Some(1), "judging changes nothing");
}

#[test]
fn a_new_node_accepts_its_first_head() {
    let repository = Repository::new();
    let accepted = accepted(&head(&repository), &repository.trusted_root());
    assert_eq!(accepted.trusted.missing_roles().len(), 1);
}

#[test]
fn a_new_timestamp_over_the_same_snapshot_is_accepted() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_timestamp();
    assert!(accepted(&head(&repository), &trusted).trusted.is_complete());
}

#[test]
fn one_message_can_carry_a_whole_release() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    let policy = br#"{"schema":1,"version":"1.1.0"}"#;
    repository.targets("channels").targets.insert(CHANNEL.to_owned(), TargetInfo::of(policy));
    repository.bump("channels");
    repository
        .targets("releases-editor")
        .targets
        .insert("releases/editor/1.1.0/any/x.zip".to_owned(), TargetInfo::of(b"x"));
    repository.targets("releases-editor").version = 2;
    let files = repository.files();
    let inlines = vec![
        inline_target(CHANNEL, policy),
        inline_role(&files, "channels", 2),
        inline_role(&files, "releases-editor", 2),
    ];
    let accepted = accepted(&head_of(&files, inlines), &trusted);
    assert!(accepted.trusted.is_complete());
    assert_eq!(accepted.targets, [(CHANNEL.to_owned(), policy.to_vec())]);
}

#[test]
fn inline_roles_apply_parents_first_whatever_their_order() {
    let repository = Repository::new();
    let files = repository.files();
    let inlines = ["releases-editor", "channels", "targets"].map(|name| inline_role(&files, name, 1)).to_vec();
    assert!(accepted(&head_of(&files, inlines), &repository.trusted_root()).trusted.is_complete());
}

#[test]
fn inlines_that_cannot_be_judged_yet_are_left_out() {
    let repository = Repository::new();
    let files = repository.files();
    let inlines = vec![inline_role(&files, "channels", 1), inline_target(CHANNEL, POLICY)];
    let accepted = accepted(&head_of(&files, inlines), &repository.trusted_root());
    assert!(accepted.targets.is_empty() && accepted.trusted.role(&role("channels")).is_none());
}

#[test]
fn a_known_timestamp_brings_the_snapshot_that_was_missing() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.bump_snapshot();
    let _ = trusted.update_timestamp(&repository.files().timestamp, Expiry::Enforce(now())).expect("a good timestamp");
    assert!(accepted(&head(&repository), &trusted).trusted.missing_snapshot().is_none());
}

// ---- ignore

#[test]
fn the_head_that_is_trusted_already_is_ignored() {
    let repository = Repository::new();
    assert_eq!(ignored(&head(&repository), &repository.trusted()), Ignored::Same);
}

#[test]
fn an_older_head_is_ignored() {
    let mut repository = Repository::new();
    let old = head(&repository);
    repository.bump_timestamp();
    assert_eq!(ignored(&old, &repository.trusted()), Ignored::Older { timestamp_version: 1 });
}

#[test]
fn an_expired_head_is_ignored() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_snapshot();
    let payload = head(&repository).encode();
    let verdict = judge(&payload, &trusted, later());
    assert!(matches!(verdict, Verdict::Ignore(Ignored::Expired)), "{verdict:?}");
}

#[test]
fn a_bad_signature_from_an_older_root_is_ignored() {
    let mut repository = Repository::new();
    repository.timestamp_signers = vec![30];
    repository.bump_timestamp();
    let head = Head { root_version: 0, ..head(&repository) };
    assert_eq!(ignored(&head, &Repository::new().trusted()), Ignored::OlderRoot);
}

#[test]
fn a_bad_signature_from_a_newer_root_asks_for_roots() {
    let mut repository = Repository::new();
    repository.timestamp_signers = vec![30];
    repository.bump_timestamp();
    let head = Head { root_version: 2, ..head(&repository) };
    assert_eq!(ignored(&head, &Repository::new().trusted()), Ignored::NewerRoot { version: 2 });
}

#[test]
fn a_head_under_a_new_threshold_asks_for_roots() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.timestamp_signers = vec![TIMESTAMP, 30];
    repository.bump_timestamp();
    let head = Head { root_version: 2, ..head(&repository) };
    assert_eq!(ignored(&head, &trusted), Ignored::NewerRoot { version: 2 });
}

#[test]
fn an_inline_role_signed_under_a_newer_root_asks_for_roots() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.roles.get_mut(&role("targets")).expect("targets").1 = vec![31];
    repository.bump("targets");
    let files = repository.files();
    let newer = Head { root_version: 2, ..head_of(&files, vec![inline_role(&files, "targets", 2)]) };
    assert_eq!(ignored(&newer, &trusted), Ignored::NewerRoot { version: 2 });
    let same = Head { root_version: 1, ..newer };
    assert_eq!(rejected(&same, &trusted), Rejected::Signatures { role: role("targets") });
}

#[test]
fn a_stated_root_version_does_not_spoil_a_verified_head() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_timestamp();
    for root_version in [0, 1, 999] {
        let head = Head { root_version, ..head(&repository) };
        assert_eq!(accepted(&head, &trusted).root_version, root_version);
    }
}

#[test]
fn a_head_that_takes_a_role_back_is_ignored() {
    let mut repository = Repository::new();
    repository.bump("releases-editor");
    let trusted = repository.trusted();
    repository.targets("releases-editor").version = 1;
    repository.bump_snapshot();
    let why = ignored(&head(&repository), &trusted);
    assert!(matches!(why, Ignored::GoesBack(TufError::Rollback { .. })), "{why:?}");
}

#[test]
fn a_newer_timestamp_over_an_older_snapshot_is_ignored() {
    let mut repository = Repository::new();
    repository.bump_snapshot();
    let trusted = repository.trusted();
    repository.snapshot.version = 1;
    repository.bump_timestamp();
    let why = ignored(&head(&repository), &trusted);
    assert!(matches!(why, Ignored::GoesBack(TufError::Rollback { .. })), "{why:?}");
}

// ---- reject

#[test]
fn a_bad_signature_under_the_same_root_is_rejected() {
    let mut repository = Repository::new();
    repository.timestamp_signers = vec![30];
    repository.bump_timestamp();
    let trusted = Repository::new().trusted();
    assert_eq!(rejected(&head(&repository), &trusted), Rejected::Signatures { role: role("timestamp") });
    repository.timestamp_signers = vec![TIMESTAMP];
    repository.snapshot_signers = vec![30];
    repository.bump_snapshot();
    assert_eq!(rejected(&head(&repository), &trusted), Rejected::Signatures { role: role("snapshot") });
}

#[test]
fn surplus_signatures_and_unknown_key_ids_are_rejected() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_timestamp();
    for signers in [vec![TIMESTAMP, 30], vec![TIMESTAMP, SNAPSHOT], vec![]] {
        repository.timestamp_signers = signers;
        assert_eq!(rejected(&head(&repository), &trusted), Rejected::Signatures { role: role("timestamp") });
    }
}

#[test]
fn an_envelope_in_any_other_form_is_rejected() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_timestamp();
    let good = head(&repository);
    let text = String::from_utf8(good.timestamp.clone()).expect("text");
    let upper = edited(&good.timestamp, |value| {
        let signature = value["signatures"][0]["sig"].as_str().expect("text").to_uppercase();
        value["signatures"][0]["sig"] = signature.into();
    });
    for other in [
        format!("{text} ").into_bytes(),
        text.replacen(':', ": ", 1).into_bytes(),
        text.replacen("timestamp", "\\u0074imestamp", 1).into_bytes(),
        edited(&good.timestamp, |value| value["comment"] = 1.into()),
        edited(&good.timestamp, |value| {
            value["signatures"][0]["hint"] = 1.into();
        }),
        upper,
    ] {
        let head = Head { timestamp: other, ..good.clone() };
        assert_eq!(rejected(&head, &trusted), Rejected::NotCanonical { role: role("timestamp") });
    }
}

/// A repository whose timestamp key is on P-256, known under `ids`.
fn p256_repository(ids: &[&str]) -> Repository {
    let mut repository = Repository::new();
    repository.root = repository.root.with_role(TopRole::Timestamp, 1, &[]);
    for id in ids {
        let id: crate::key::KeyId = id.parse().expect("a key id");
        repository.root.roles.timestamp.keyids.push(id.clone());
        repository.root.keys.insert(id, p256::public("\n"));
    }
    repository
}

/// A head of it, with the timestamp signed under `id`: in the form that a head may have, and in the
/// other that anybody can make of it.
fn p256_heads(repository: &Repository, id: &str) -> (Head, Head) {
    let id = id.parse().expect("a key id");
    let good = head(repository);
    let timestamp = crate::tuf::Timestamp { snapshot: FileMeta::of(1, &good.snapshot), ..repository.timestamp.clone() };
    let (low, high) = p256::sign(&timestamp, &[id]);
    (Head { timestamp: low, ..good.clone() }, Head { timestamp: high, ..good })
}

#[test]
fn the_other_form_of_an_ecdsa_signature_is_no_second_encoding_of_a_head() {
    let repository = p256_repository(&["k"]);
    let (low, high) = p256_heads(&repository, "k");
    let mut trusted = repository.trusted_root();
    assert_eq!(rejected(&high, &trusted), Rejected::NotCanonical { role: role("timestamp") });
    accepted(&low, &trusted);
    // TUF itself takes it (the seed's HSM may make either), and what a node offers of it is the low form.
    let _ = trusted.update_timestamp(&high.timestamp, Expiry::Enforce(now())).expect("a good timestamp");
    let _ = trusted.update_snapshot(&high.snapshot, Expiry::Enforce(now())).expect("a good snapshot");
    assert_eq!(Head::from_trusted(&trusted, []).map(|head| head.timestamp), Some(low.timestamp));
}

#[test]
fn another_id_of_the_same_key_is_no_second_encoding_of_a_head() {
    let repository = p256_repository(&["a", "b"]);
    let trusted = repository.trusted_root();
    accepted(&p256_heads(&repository, "a").0, &trusted);
    let (other, _) = p256_heads(&repository, "b");
    assert_eq!(rejected(&other, &trusted), Rejected::Signatures { role: role("timestamp") });
    // A sender with an older root may know the key under the other id alone.
    let older = Head { root_version: 0, ..other.clone() };
    assert_eq!(ignored(&older, &trusted), Ignored::OlderRoot);
    let mut own = repository.trusted_root();
    let _ = own.update_timestamp(&other.timestamp, Expiry::Enforce(now())).expect("TUF takes either");
    let _ = own.update_snapshot(&other.snapshot, Expiry::Enforce(now())).expect("a good snapshot");
    accepted(&Head::from_trusted(&own, []).expect("a head"), &trusted);
}

#[test]
fn junk_around_a_known_head_is_rejected_too() {
    let repository = Repository::new();
    let trusted = repository.trusted();
    let junk = Head { snapshot: b"junk".to_vec(), ..head(&repository) };
    assert!(matches!(rejected(&junk, &trusted), Rejected::Metadata(_)));
    let spaced = Head { timestamp: [&repository.files().timestamp[..], b" "].concat(), ..head(&repository) };
    assert!(matches!(rejected(&spaced, &trusted), Rejected::NotCanonical { .. }));
}

#[test]
fn signatures_out_of_order_are_rejected() {
    let mut repository = Repository::new();
    repository.root = repository.root.with_role(TopRole::Timestamp, 2, &[public(TIMESTAMP), public(30)]);
    repository.timestamp_signers = vec![TIMESTAMP, 30];
    let trusted = repository.trusted_root();
    let good = head(&repository);
    let swapped = edited(&good.timestamp, |value| {
        value["signatures"].as_array_mut().expect("signatures").reverse();
    });
    let head = Head { timestamp: swapped, ..good.clone() };
    assert_eq!(rejected(&head, &trusted), Rejected::NotCanonical { role: role("timestamp") });
    accepted(&good, &trusted);
}

#[test]
fn a_snapshot_from_another_head_is_rejected() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    let old = repository.files().snapshot;
    repository.bump_snapshot();
    let mixed = Head { snapshot: old, ..head(&repository) };
    assert!(matches!(rejected(&mixed, &trusted), Rejected::Metadata(_)));
}

#[test]
fn an_inline_role_that_is_not_what_the_snapshot_lists_is_rejected() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    let old = repository.files();
    repository.bump("channels");
    let files = repository.files();
    let unlisted = Inline::Role { name: role("other"), version: 1, bytes: Vec::new() };
    let stale = Inline::Role { name: role("channels"), version: 2, bytes: old.roles[&role("channels")].clone() };
    for inline in [unlisted, stale, inline_role(&files, "channels", 1)] {
        let why = rejected(&head_of(&files, vec![inline]), &trusted);
        assert!(matches!(why, Rejected::Metadata(_)), "{why:?}");
    }
}

#[test]
fn an_inline_role_that_no_hash_pins_is_rejected() {
    let repository = Repository::new();
    let meta = FileMeta { length: None, hashes: Hashes::default(), ..FileMeta::of(1, b"") };
    let snapshot = repository.snapshot.clone().with_role(&role("targets"), meta);
    let files = repository.files_of(&snapshot, repository.files().roles);
    let head = head_of(&files, vec![inline_role(&files, "targets", 1)]);
    assert!(matches!(rejected(&head, &repository.trusted_root()), Rejected::Metadata(TufError::Hash { .. })));
}

#[test]
fn an_inline_target_that_is_not_what_is_signed_is_rejected() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_timestamp();
    for (path, bytes) in [(CHANNEL, &b"junk"[..]), ("channels/editor/none.json", b""), (ARTIFACT, b"evil")] {
        let head = head_of(&repository.files(), vec![inline_target(path, bytes)]);
        assert_eq!(rejected(&head, &trusted), Rejected::InlineTarget { path: path.to_owned() });
    }
}

#[test]
fn a_head_of_another_repository_is_rejected() {
    let mut other = Repository::new();
    other.root =
        other.root.with_role(TopRole::Timestamp, 1, &[public(40)]).with_role(TopRole::Snapshot, 1, &[public(41)]);
    other.timestamp_signers = vec![40];
    other.snapshot_signers = vec![41];
    other.bump_snapshot();
    assert!(matches!(rejected(&head(&other), &Repository::new().trusted()), Rejected::Signatures { .. }));
}

#[test]
fn bytes_that_are_no_head_are_rejected() {
    let verdict = judge(b"junk", &Repository::new().trusted(), now());
    assert!(matches!(verdict, Verdict::Reject(Rejected::Encoding(_))), "{verdict:?}");
}

// ---- equivocation

#[test]
fn two_timestamps_of_one_version_are_evidence() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.timestamp.signed_at = Some(now());
    let found = evidence(&head(&repository), &trusted);
    assert_eq!(found.role, role("timestamp"));
    assert!(found.verify(&trusted).is_ok());
    assert!(found.verify(&repository.trusted_root()).is_ok());
}

#[test]
fn two_snapshots_of_one_version_are_evidence() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.snapshot.expires = later().plus_days(1);
    repository.bump_timestamp();
    let found = evidence(&head(&repository), &trusted);
    assert_eq!((found.role.clone(), found.verify(&trusted).is_ok()), (role("snapshot"), true));
}

#[test]
fn a_successor_of_another_timestamp_is_evidence() {
    let mut repository = Repository::new();
    let trusted = repository.trusted();
    repository.bump_timestamp();
    repository.timestamp.prev_sha256 = trusted.timestamp().map(Verified::signed_digest);
    accepted(&head(&repository), &trusted);
    repository.timestamp.prev_sha256 = Some(Digest::of(b"what others were shown"));
    let found = evidence(&head(&repository), &trusted);
    assert_eq!((found.role.clone(), found.verify(&trusted).is_ok()), (role("timestamp"), true));
    repository.bump_timestamp();
    accepted(&head(&repository), &trusted);
}

#[test]
fn a_victim_of_a_split_view_finds_the_fork_at_the_first_honest_head() {
    let mut repository = Repository::new();
    let mut victim = repository.trusted();
    // The thief shows the victim a second version of its own; the others see the honest history.
    let before = repository.trusted();
    let honest = before.timestamp().expect("loaded");
    let mut forked = repository.clone();
    forked.bump_timestamp();
    forked.timestamp = forked.timestamp.following(honest);
    forked.timestamp.signed_at = Some(now());
    victim = accepted(&head(&forked), &victim).trusted;

    let mut others = before.clone();
    for _ in 0..4 {
        repository.bump_timestamp();
        repository.timestamp = repository.timestamp.clone().following(others.timestamp().expect("loaded"));
        others = accepted(&head(&repository), &others).trusted;
        let found = evidence(&head(&repository), &victim);
        assert_eq!((found.role.clone(), found.verify(&others).is_ok()), (role("timestamp"), true));
    }
    // And the other way round: what the victim offers shows the fork to those who are ahead.
    let found = evidence(&head(&forked), &others);
    assert_eq!(found.role, role("timestamp"));
}

#[test]
fn an_older_head_of_the_same_history_is_no_evidence() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    let first = head(&repository);
    for _ in 0..20 {
        repository.bump_timestamp();
        repository.timestamp = repository.timestamp.clone().following(trusted.timestamp().expect("loaded"));
        trusted = accepted(&head(&repository), &trusted).trusted;
        assert!(repository.timestamp.ancestors.len() <= crate::limits::MAX_ANCESTORS);
        assert_eq!(ignored(&first, &trusted), Ignored::Older { timestamp_version: 1 });
    }
}

#[test]
fn another_signature_over_the_same_part_is_no_equivocation() {
    let mut repository = Repository::new();
    repository.root = repository.root.with_role(TopRole::Timestamp, 1, &[public(TIMESTAMP), public(30)]);
    let trusted = repository.trusted();
    repository.timestamp_signers = vec![30];
    assert_eq!(ignored(&head(&repository), &trusted), Ignored::Same);
}

// ---- from_trusted

#[test]
fn what_a_node_offers_is_accepted_by_another() {
    let repository = Repository::new();
    let files = repository.files();
    let inlines =
        vec![inline_role(&files, "targets", 1), inline_role(&files, "channels", 1), inline_target(CHANNEL, POLICY)];
    let head = Head::from_trusted(&repository.trusted(), inlines.clone()).expect("a head");
    assert_eq!(head.inlines, inlines);
    assert_eq!(accepted(&head, &repository.trusted_root()).targets.len(), 1);
}

#[test]
fn a_node_without_a_current_snapshot_offers_nothing() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    assert!(Head::from_trusted(&repository.trusted_root(), []).is_none());
    repository.bump_snapshot();
    let _ = trusted.update_timestamp(&repository.files().timestamp, Expiry::Enforce(now())).expect("a good timestamp");
    assert!(Head::from_trusted(&trusted, []).is_none());
}

#[test]
fn surplus_signatures_are_left_out_of_what_a_node_offers() {
    let mut repository = Repository::new();
    repository.root = repository.root.with_role(TopRole::Timestamp, 1, &[public(TIMESTAMP), public(30)]);
    repository.timestamp_signers = vec![TIMESTAMP, 30, 31];
    let head = Head::from_trusted(&repository.trusted(), []).expect("a head");
    accepted(&head, &repository.trusted_root());
}

#[test]
fn a_snapshot_that_cannot_be_offered_exactly_is_not_offered() {
    let mut repository = Repository::new();
    repository.snapshot_signers = vec![SNAPSHOT, 30];
    assert!(Head::from_trusted(&repository.trusted(), []).is_none());
}

#[test]
fn inlines_fill_a_head_up_to_its_limit_in_order_of_priority() {
    let repository = Repository::new();
    let files = repository.files();
    let trusted = repository.trusted();
    let large = inline_target("large", &vec![0; MAX_HEAD_BYTES]);
    let stale = Inline::Role { name: role("channels"), version: 1, bytes: b"other".to_vec() };
    let good = inline_target(CHANNEL, POLICY);
    let head = Head::from_trusted(&trusted, [large, stale, good.clone(), good.clone()]).expect("a head");
    assert_eq!(head.inlines, [good]);

    let empty = Head::from_trusted(&trusted, []).expect("a head").encode().len();
    for size in (MAX_HEAD_BYTES - empty - 40)..(MAX_HEAD_BYTES - empty + 10) {
        let head = Head::from_trusted(&trusted, [inline_target("fill", &vec![0; size])]).expect("a head");
        assert!(head.encode().len() <= MAX_HEAD_BYTES, "{size}");
        assert!(Head::decode(&head.encode()).is_ok());
    }
    let many = (0..1000).map(|_| inline_role(&files, "targets", 1));
    assert_eq!(Head::from_trusted(&trusted, many).expect("a head").inlines.len(), 1);
}

#[test]
fn a_root_that_rotates_the_timestamp_key_makes_the_next_head_readable() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root = Root { version: 2, ..repository.root.with_role(TopRole::Timestamp, 1, &[public(30)]) };
    repository.timestamp_signers = vec![30];
    repository.bump_timestamp();
    let head = Head { root_version: 2, ..head(&repository) };
    assert_eq!(ignored(&head, &trusted), Ignored::NewerRoot { version: 2 });
    assert_eq!(trusted.update_root(&sign(&repository.root, &[1])), Ok(()));
    accepted(&head, &trusted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_altered_copy_of_a_head_is_accepted_unless_only_the_hint_changed(position: prop::sample::Index, byte: u8) {
        let mut repository = Repository::new();
        let trusted = repository.trusted();
        repository.bump("channels");
        let files = repository.files();
        let good = head_of(&files, vec![inline_role(&files, "channels", 2), inline_target(CHANNEL, POLICY)]);
        let mut payload = good.encode();
        let position = position.index(payload.len());
        payload[position] = byte;
        if let Verdict::Accept(_) = judge(&payload, &trusted, now()) {
            let found = Head::decode(&payload).expect("an accepted head");
            prop_assert_eq!(Head { root_version: 1, ..found }, good);
        }
    }

    #[test]
    fn arbitrary_bytes_are_rejected(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let verdict = judge(&payload, &Repository::new().trusted(), now());
        prop_assert!(matches!(verdict, Verdict::Reject(_)));
    }
}
