use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::canonical;
use crate::tuf::fixture::{
    CHANNELS, Files, RELEASES, ROOT, Repository, SNAPSHOT, TARGETS, TIMESTAMP, enforce, key, later,
    now, public, role, sign,
};
use crate::tuf::{DelegatedRole, Delegations, Hashes, TargetInfo, sign_role};

/// Signs `signed` as it is, whatever it says.
fn sign_value(signed: &Value, seed: u8) -> Vec<u8> {
    let message = canonical::encode(signed);
    let signature = data_encoding::HEXLOWER.encode(&key(seed).sign(&message));
    canonical::encode(
        &json!({"signatures": [{"keyid": public(seed).id(), "sig": signature}], "signed": signed}),
    )
}

/// Changes the signed part of metadata and signs it again.
fn resign(bytes: &[u8], seed: u8, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = canonical::parse(bytes).expect("JSON");
    edit(&mut value["signed"]);
    sign_value(&value["signed"], seed)
}

fn loaded_snapshot(repository: &Repository) -> (Trusted, Files) {
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    assert_eq!(
        trusted.update_timestamp(&files.timestamp, enforce()),
        Ok(Change::New)
    );
    assert_eq!(
        trusted.update_snapshot(&files.snapshot, enforce()),
        Ok(Change::New)
    );
    (trusted, files)
}

// ---- root

#[test]
fn the_first_root_must_be_the_one_that_the_id_names() {
    let repository = Repository::new();
    let root = repository.files().root;
    let trusted = Trusted::from_first_root(&root, &repository.id()).expect("the first root");
    assert_eq!(trusted.repository(), Some(repository.id()));
    let other = RepositoryId(Digest::of(b"another repository"));
    assert_eq!(
        Trusted::from_first_root(&root, &other).err(),
        Some(TufError::WrongRepository)
    );
}

#[test]
fn the_first_root_must_be_version_1() {
    let mut repository = Repository::new();
    repository.root.version = 2;
    let root = repository.files().root;
    assert!(matches!(
        RepositoryId::of_first_root(&root),
        Err(TufError::Version {
            expected: 1,
            found: 2,
            ..
        })
    ));
    assert!(Trusted::from_trusted_root(&root).is_ok());
}

#[test]
fn a_root_that_its_own_keys_did_not_sign_is_refused() {
    let mut repository = Repository::new();
    repository.root_signers = vec![TARGETS];
    let found = Trusted::from_trusted_root(&repository.files().root).err();
    assert!(found.is_some_and(|error| error.is_signatures()));
}

#[test]
fn the_id_does_not_depend_on_the_signatures() {
    let mut repository = Repository::new();
    let id = repository.id();
    repository.root_signers = vec![ROOT, TARGETS];
    assert_eq!(repository.id(), id);
}

#[test]
fn the_next_root_needs_the_old_keys_and_the_new() {
    let repository = Repository::new();
    let mut next = repository
        .root
        .clone()
        .with_role(TopRole::Root, 1, &[public(11)]);
    next.version = 2;
    for (signers, accepted) in [
        (&[ROOT, 11][..], true),
        (&[ROOT], false),
        (&[11], false),
        (&[], false),
    ] {
        let mut trusted = repository.trusted_root();
        let found = trusted.update_root(&sign(&next, signers));
        assert_eq!(found.is_ok(), accepted, "{signers:?}");
        assert_eq!(trusted.root().version, if accepted { 2 } else { 1 });
    }
}

#[test]
fn only_the_very_next_root_is_taken() {
    let repository = Repository::new();
    for version in [1, 3, u64::MAX] {
        let next = Root {
            version,
            ..repository.root.clone()
        };
        let found = repository.trusted_root().update_root(&sign(&next, &[ROOT]));
        assert_eq!(
            found,
            Err(TufError::Version {
                role: role("root"),
                expected: 2,
                found: version
            })
        );
    }
}

#[test]
fn an_expired_root_is_passed_on_the_way_but_stops_a_timestamp() {
    let repository = Repository::new();
    let expired = |version| Root {
        version,
        expires: now(),
        ..repository.root.clone()
    };
    let mut trusted = repository.trusted_root();
    assert_eq!(trusted.update_root(&sign(&expired(2), &[ROOT])), Ok(()));
    let stopped = trusted.update_timestamp(&repository.files().timestamp, enforce());
    assert_eq!(
        stopped,
        Err(TufError::Expired {
            role: role("root"),
            since: now()
        })
    );
    let last = Root {
        version: 3,
        ..repository.root.clone()
    };
    assert_eq!(trusted.update_root(&sign(&last, &[ROOT])), Ok(()));
    assert_eq!(
        trusted.update_timestamp(&repository.files().timestamp, enforce()),
        Ok(Change::New)
    );
}

#[test]
fn rotating_an_online_key_forgets_what_it_pushed_forward() {
    let mut repository = Repository::new();
    repository.timestamp.version = u64::MAX;
    let mut trusted = repository.trusted();
    repository.root = repository
        .root
        .with_role(TopRole::Timestamp, 1, &[public(12)]);
    repository.root.version = 2;
    repository.timestamp.version = 1;
    repository.timestamp_signers = vec![12];
    let files = repository.files();
    assert_eq!(trusted.update_root(&files.root), Ok(()));
    assert!(trusted.timestamp().is_none() && trusted.snapshot().is_none());
    assert_eq!(
        trusted.update_timestamp(&files.timestamp, enforce()),
        Ok(Change::New)
    );
}

#[test]
fn rotating_the_snapshot_key_lets_targets_versions_recover() {
    let mut repository = Repository::new();
    repository.targets("targets").version = 1_000_000;
    let mut trusted = repository.trusted();
    repository.root = repository
        .root
        .with_role(TopRole::Snapshot, 1, &[public(13)]);
    repository.root.version = 2;
    repository.snapshot_signers = vec![13];
    repository.targets("targets").version = 1;
    repository.bump_snapshot();
    let files = repository.files();
    assert_eq!(trusted.update_root(&files.root), Ok(()));
    files.load(&mut trusted);
    assert_eq!(
        trusted
            .role(&role("targets"))
            .map(|targets| targets.version),
        Some(1)
    );
}

#[test]
fn a_root_that_rotates_no_online_key_keeps_everything() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root =
        repository
            .root
            .with_role(TopRole::Timestamp, 1, &[public(TIMESTAMP), public(12)]);
    repository.root.version = 2;
    assert_eq!(trusted.update_root(&repository.files().root), Ok(()));
    assert!(trusted.is_complete());
}

#[test]
fn a_raised_threshold_drops_what_no_longer_reaches_it() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root =
        repository
            .root
            .with_role(TopRole::Timestamp, 2, &[public(TIMESTAMP), public(12)]);
    repository.root.version = 2;
    assert_eq!(trusted.update_root(&repository.files().root), Ok(()));
    assert!(trusted.timestamp().is_none() && trusted.snapshot().is_some());
}

#[test]
fn rotating_the_targets_key_drops_the_roles_it_vouched_for() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root = repository
        .root
        .with_role(TopRole::Targets, 1, &[public(14)]);
    repository.root.version = 2;
    assert_eq!(trusted.update_root(&repository.files().root), Ok(()));
    assert!(trusted.role(&role("targets")).is_none() && trusted.role(&role("channels")).is_none());
}

#[test]
fn a_refused_step_leaves_everything_as_it_was() {
    let repository = Repository::new();
    let mut trusted = repository.trusted();
    assert!(trusted.update_root(b"{}").is_err());
    assert!(trusted.update_timestamp(b"{}", enforce()).is_err());
    assert!(trusted.update_snapshot(b"{}", enforce()).is_err());
    assert!(
        trusted
            .update_targets(&role("targets"), b"{}", enforce())
            .is_err()
    );
    assert!(trusted.is_complete());
}

// ---- timestamp

#[test]
fn a_replayed_timestamp_is_refused() {
    let mut repository = Repository::new();
    let old = repository.files().timestamp;
    repository.bump_timestamp();
    let mut trusted = repository.trusted();
    let found = trusted.update_timestamp(&old, enforce());
    assert_eq!(
        found,
        Err(TufError::Rollback {
            role: role("timestamp"),
            trusted: 2,
            found: 1
        })
    );
}

#[test]
fn a_timestamp_of_the_same_version_changes_nothing() {
    let repository = Repository::new();
    let mut trusted = repository.trusted();
    let before = trusted
        .timestamp()
        .map(|timestamp| timestamp.bytes().to_vec());
    let other = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
        signed["meta"]["snapshot.json"]["version"] = json!(100)
    });
    assert_eq!(
        trusted.update_timestamp(&other, enforce()),
        Ok(Change::Same)
    );
    assert_eq!(
        trusted
            .timestamp()
            .map(|timestamp| timestamp.bytes().to_vec()),
        before
    );
}

#[test]
fn a_timestamp_that_names_an_older_snapshot_is_refused() {
    let mut repository = Repository::new();
    repository.bump_snapshot();
    let mut trusted = repository.trusted();
    repository.timestamp.version = 3;
    repository.snapshot.version = 1;
    let found = trusted.update_timestamp(&repository.files().timestamp, enforce());
    assert_eq!(
        found,
        Err(TufError::Rollback {
            role: role("snapshot"),
            trusted: 2,
            found: 1
        })
    );
}

#[test]
fn an_expired_timestamp_is_refused_at_the_very_second() {
    let repository = Repository::new();
    let timestamp = repository.files().timestamp;
    let at = |time| {
        repository
            .trusted_root()
            .update_timestamp(&timestamp, Expiry::Enforce(time))
    };
    assert_eq!(at(later().plus_seconds(-1)), Ok(Change::New));
    assert_eq!(
        at(later()),
        Err(TufError::Expired {
            role: role("timestamp"),
            since: later()
        })
    );
}

#[test]
fn offering_the_trusted_timestamp_again_does_not_revive_it() {
    let repository = Repository::new();
    let mut trusted = repository.trusted();
    let found = trusted.update_timestamp(&repository.files().timestamp, Expiry::Enforce(later()));
    assert_eq!(
        found,
        Err(TufError::Expired {
            role: role("timestamp"),
            since: later()
        })
    );
}

#[test]
fn a_timestamp_signed_by_another_role_is_refused() {
    let mut repository = Repository::new();
    repository.timestamp_signers = vec![SNAPSHOT, TARGETS, ROOT];
    let found = repository
        .trusted_root()
        .update_timestamp(&repository.files().timestamp, enforce());
    assert_eq!(
        found,
        Err(TufError::Signatures {
            role: role("timestamp"),
            valid: 0,
            threshold: 1
        })
    );
}

#[test]
fn metadata_of_another_type_is_refused_though_well_signed() {
    let repository = Repository::new();
    let disguised = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
        signed["_type"] = json!("snapshot")
    });
    let found = repository
        .trusted_root()
        .update_timestamp(&disguised, enforce());
    assert!(
        matches!(found, Err(TufError::Malformed { .. })),
        "{found:?}"
    );
}

#[test]
fn metadata_of_another_major_version_of_the_specification_is_refused() {
    let repository = Repository::new();
    for (version, accepted) in [
        ("1.0.0", true),
        ("1.99", true),
        ("2.0.0", false),
        ("1", false),
        ("1.x", false),
        ("01.0", false),
        ("1.0.0.0", false),
    ] {
        let bytes = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
            signed["spec_version"] = json!(version)
        });
        assert_eq!(
            repository
                .trusted_root()
                .update_timestamp(&bytes, enforce())
                .is_ok(),
            accepted,
            "{version}"
        );
    }
}

#[test]
fn malformed_fields_are_refused_though_well_signed() {
    let repository = Repository::new();
    for (field, value) in [
        ("version", json!(0)),
        ("version", json!(-1)),
        ("version", json!("1")),
        ("expires", json!("tomorrow")),
        ("expires", Value::Null),
        ("meta", json!({})),
        ("meta", json!({"snapshot.json": {"version": 0}})),
        (
            "meta",
            json!({"snapshot.json": {"version": 1, "length": -1}}),
        ),
        ("signed_at", json!(5)),
        ("prev_sha256", json!("ab")),
    ] {
        let bytes = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
            signed[field] = value.clone()
        });
        let found = repository
            .trusted_root()
            .update_timestamp(&bytes, enforce());
        assert!(
            matches!(found, Err(TufError::Malformed { .. })),
            "{field} {value}: {found:?}"
        );
    }
}

#[test]
fn a_duplicate_key_is_refused_before_anyone_asks_which_value_was_signed() {
    let repository = Repository::new();
    let text = String::from_utf8(repository.files().timestamp).expect("text");
    let doubled = text.replacen("\"version\":1}", "\"version\":1,\"version\":1}", 1);
    assert_ne!(doubled, text);
    let found = repository
        .trusted_root()
        .update_timestamp(doubled.as_bytes(), enforce());
    assert!(
        matches!(found, Err(TufError::Malformed { reason, .. }) if reason.contains("appears twice"))
    );
}

#[test]
fn the_fields_of_updraft_survive_signing() {
    let mut repository = Repository::new();
    repository.timestamp.signed_at = Some(now());
    repository.timestamp.prev_sha256 = Some(Digest::of(b"before"));
    repository
        .timestamp
        .other
        .insert("future".to_owned(), json!([1]));
    let floor = semver::Version::new(1, 2, 0);
    let editor: crate::names::Product = "editor".parse().expect("a product");
    repository
        .targets("targets")
        .security_floor
        .insert(editor.clone(), floor.clone());
    let trusted = repository.trusted();
    let timestamp = trusted.timestamp().expect("a timestamp");
    assert_eq!(
        (timestamp.signed_at, timestamp.prev_sha256),
        (Some(now()), Some(Digest::of(b"before")))
    );
    assert_eq!(timestamp.other.get("future"), Some(&json!([1])));
    assert_eq!(trusted.security_floor(&editor), Some(floor));
    assert_eq!(
        sign_role(&**timestamp, &[&key(TIMESTAMP)]),
        timestamp.bytes()
    );
}

#[test]
fn an_oversized_file_is_refused_unread() {
    let mut trusted = Repository::new().trusted();
    let huge = vec![b' '; usize::try_from(MAX_TIMESTAMP_BYTES).expect("small") + 1];
    assert!(matches!(
        trusted.update_timestamp(&huge, enforce()),
        Err(TufError::TooLarge { .. })
    ));
}

#[test]
fn exact_bytes_are_kept() {
    let repository = Repository::new();
    let spaced = [&repository.files().timestamp[..], b" \n"].concat();
    let mut trusted = repository.trusted_root();
    assert_eq!(
        trusted.update_timestamp(&spaced, enforce()),
        Ok(Change::New)
    );
    assert_eq!(trusted.timestamp().map(Verified::bytes), Some(&spaced[..]));
}

// ---- snapshot

#[test]
fn a_snapshot_needs_a_timestamp() {
    let repository = Repository::new();
    let found = repository
        .trusted_root()
        .update_snapshot(&repository.files().snapshot, enforce());
    assert_eq!(
        found,
        Err(TufError::OutOfOrder {
            role: role("snapshot"),
            needs: role("timestamp")
        })
    );
}

#[test]
fn a_snapshot_must_have_the_hash_and_length_that_the_timestamp_states() {
    let repository = Repository::new();
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let longer = [&files.snapshot[..], b" "].concat();
    assert!(matches!(
        trusted.update_snapshot(&longer, enforce()),
        Err(TufError::Length { .. })
    ));
    let mut other = files.snapshot.clone();
    let digit = other
        .iter()
        .position(|byte| *byte == b'a')
        .expect("a hexadecimal digit");
    other[digit] = b'b';
    assert!(matches!(
        trusted.update_snapshot(&other, enforce()),
        Err(TufError::Hash { .. })
    ));
}

/// A timestamp that states only the version of the snapshot.
fn unpinned(repository: &Repository, version: u64) -> Vec<u8> {
    let meta = FileMeta {
        length: None,
        hashes: Hashes::default(),
        ..FileMeta::of(version, b"")
    };
    sign(
        &Timestamp {
            snapshot: meta,
            ..repository.timestamp.clone()
        },
        &[TIMESTAMP],
    )
}

#[test]
fn a_snapshot_must_have_the_version_that_the_timestamp_states() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&unpinned(&repository, 1), enforce())
        .expect("a good timestamp");
    repository.snapshot.version = 2;
    let found = trusted.update_snapshot(&repository.files().snapshot, enforce());
    assert_eq!(
        found,
        Err(TufError::Version {
            role: role("snapshot"),
            expected: 1,
            found: 2
        })
    );
}

#[test]
fn a_snapshot_signed_by_another_role_is_refused() {
    let mut repository = Repository::new();
    repository.snapshot_signers = vec![TIMESTAMP];
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    assert!(
        trusted
            .update_snapshot(&files.snapshot, enforce())
            .is_err_and(|error| error.is_signatures())
    );
}

#[test]
fn a_snapshot_that_takes_a_role_back_is_refused() {
    let mut repository = Repository::new();
    repository.bump("releases-editor");
    let mut trusted = repository.trusted();
    repository.targets("releases-editor").version = 1;
    repository.bump_snapshot();
    let files = repository.files();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, enforce());
    assert_eq!(
        found,
        Err(TufError::Rollback {
            role: role("releases-editor"),
            trusted: 2,
            found: 1
        })
    );
}

#[test]
fn a_snapshot_that_drops_a_role_is_refused() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.roles.remove(&role("releases-editor"));
    repository.bump_snapshot();
    let files = repository.files();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, enforce());
    assert_eq!(
        found,
        Err(TufError::Removed {
            role: role("releases-editor")
        })
    );
}

#[test]
fn an_expired_snapshot_is_refused() {
    let mut repository = Repository::new();
    repository.snapshot.expires = now();
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, enforce());
    assert_eq!(
        found,
        Err(TufError::Expired {
            role: role("snapshot"),
            since: now()
        })
    );
}

#[test]
fn a_snapshot_under_an_expired_timestamp_is_refused() {
    let repository = Repository::new();
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&files.timestamp, Expiry::Deferred)
        .expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, Expiry::Enforce(later()));
    assert_eq!(
        found,
        Err(TufError::Expired {
            role: role("timestamp"),
            since: later()
        })
    );
}

#[test]
fn an_overtaken_snapshot_from_disk_still_protects_from_rollback() {
    let mut repository = Repository::new();
    repository.bump("releases-editor");
    let old = repository.files();
    repository.bump_snapshot();
    let newer = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&newer.timestamp, Expiry::Deferred)
        .expect("the newest timestamp");
    assert_eq!(
        trusted.update_snapshot(&old.snapshot, Expiry::Deferred),
        Ok(Change::New)
    );
    assert_eq!(
        trusted.missing_snapshot().map(|request| request.version),
        Some(3)
    );

    repository.targets("releases-editor").version = 1;
    repository.timestamp.version += 1;
    let attack = repository.files();
    let _ = trusted
        .update_timestamp(&attack.timestamp, enforce())
        .expect("a newer timestamp");
    let found = trusted.update_snapshot(&attack.snapshot, enforce());
    assert_eq!(
        found,
        Err(TufError::Rollback {
            role: role("releases-editor"),
            trusted: 2,
            found: 1
        })
    );
}

#[test]
fn the_trusted_snapshot_again_is_the_same() {
    let repository = Repository::new();
    assert_eq!(
        repository
            .trusted()
            .update_snapshot(&repository.files().snapshot, enforce()),
        Ok(Change::Same)
    );
}

#[test]
fn a_new_snapshot_drops_the_roles_that_changed_and_keeps_the_others() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.bump("releases-editor");
    let files = repository.files();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let _ = trusted
        .update_snapshot(&files.snapshot, enforce())
        .expect("a good snapshot");
    let missing: Vec<(RoleName, u64)> = trusted
        .missing_roles()
        .into_iter()
        .map(|request| (request.role, request.version))
        .collect();
    assert_eq!(missing, [(role("releases-editor"), 2)]);
    assert!(trusted.role(&role("channels")).is_some());
    files.load_roles(&mut trusted);
    assert!(trusted.is_complete());
}

// ---- targets

#[test]
fn a_role_needs_a_current_snapshot() {
    let mut repository = Repository::new();
    let targets = repository.files().roles[&role("targets")].clone();
    let mut trusted = repository.trusted_root();
    let found = trusted.update_targets(&role("targets"), &targets, enforce());
    assert_eq!(
        found,
        Err(TufError::OutOfOrder {
            role: role("targets"),
            needs: role("timestamp")
        })
    );
    let (mut trusted, _) = loaded_snapshot(&repository);
    repository.bump_snapshot();
    let _ = trusted
        .update_timestamp(&repository.files().timestamp, enforce())
        .expect("a good timestamp");
    let found = trusted.update_targets(&role("targets"), &targets, enforce());
    assert_eq!(
        found,
        Err(TufError::OutOfOrder {
            role: role("targets"),
            needs: role("snapshot")
        })
    );
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_refused() {
    let repository = Repository::new();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("other"), &files.roles[&role("targets")], enforce());
    assert_eq!(
        found,
        Err(TufError::NotListed {
            role: role("other")
        })
    );
}

#[test]
fn a_role_that_nobody_delegates_to_is_refused() {
    let repository = Repository::new();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(
        &role("channels"),
        &files.roles[&role("channels")],
        enforce(),
    );
    assert_eq!(
        found,
        Err(TufError::NotDelegated {
            role: role("channels")
        })
    );
}

#[test]
fn a_role_must_be_the_file_that_the_snapshot_lists() {
    let repository = Repository::new();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let mut other = files.roles[&role("targets")].clone();
    other.push(b' ');
    assert!(matches!(
        trusted.update_targets(&role("targets"), &other, enforce()),
        Err(TufError::Length { .. })
    ));
    other.pop();
    let digit = other
        .iter()
        .position(|byte| *byte == b'a')
        .expect("a letter");
    other[digit] = b'b';
    assert!(matches!(
        trusted.update_targets(&role("targets"), &other, enforce()),
        Err(TufError::Hash { .. })
    ));
}

/// Loads a repository whose snapshot lists `targets` at `version` without hashes.
fn unpinned_targets(repository: &Repository, version: u64) -> (Trusted, Files) {
    let meta = FileMeta {
        length: None,
        hashes: Hashes::default(),
        ..FileMeta::of(version, b"")
    };
    let snapshot = repository
        .snapshot
        .clone()
        .with_role(&role("targets"), meta);
    let files = repository.files_of(&snapshot, repository.files().roles);
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let _ = trusted
        .update_snapshot(&files.snapshot, enforce())
        .expect("a good snapshot");
    (trusted, files)
}

#[test]
fn a_role_must_be_the_version_that_the_snapshot_lists() {
    let (mut trusted, files) = unpinned_targets(&Repository::new(), 7);
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert_eq!(
        found,
        Err(TufError::Version {
            role: role("targets"),
            expected: 7,
            found: 1
        })
    );
}

#[test]
fn hashes_of_no_known_algorithm_confirm_nothing() {
    let repository = Repository::new();
    let hashes: Hashes =
        serde_json::from_value(json!({"md5": "d41d8cd98f00b204e9800998ecf8427e"})).expect("hashes");
    let snapshot = repository.snapshot.clone().with_role(
        &role("targets"),
        FileMeta {
            length: None,
            hashes,
            ..FileMeta::of(1, b"")
        },
    );
    let files = repository.files_of(&snapshot, repository.files().roles);
    let mut trusted = repository.trusted_root();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let _ = trusted
        .update_snapshot(&files.snapshot, enforce())
        .expect("a good snapshot");
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert!(matches!(found, Err(TufError::Hash { .. })));
}

#[test]
fn a_delegated_role_signed_by_another_delegates_key_is_refused() {
    let mut repository = Repository::new();
    repository
        .roles
        .get_mut(&role("releases-editor"))
        .expect("the role")
        .1 = vec![CHANNELS, TARGETS];
    let (mut trusted, files) = loaded_snapshot(&repository);
    let _ = trusted
        .update_targets(&role("targets"), &files.roles[&role("targets")], enforce())
        .expect("good targets");
    let found = trusted.update_targets(
        &role("releases-editor"),
        &files.roles[&role("releases-editor")],
        enforce(),
    );
    assert!(found.is_err_and(|error| error.is_signatures()));
}

#[test]
fn an_expired_role_is_refused() {
    let mut repository = Repository::new();
    repository.targets("targets").expires = now();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert_eq!(
        found,
        Err(TufError::Expired {
            role: role("targets"),
            since: now()
        })
    );
    let found = trusted.update_targets(
        &role("targets"),
        &files.roles[&role("targets")],
        Expiry::Deferred,
    );
    assert_eq!(found, Ok(Change::New));
}

#[test]
fn a_delegation_to_a_top_level_role_is_refused() {
    let mut repository = Repository::new();
    let delegation = DelegatedRole::new(role("snapshot"), &["*"]);
    repository.targets("targets").delegations =
        Some(Delegations::default().with_role(delegation, 1, &[public(9)]));
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert!(matches!(found, Err(TufError::Malformed { .. })));
}

#[test]
fn a_role_falls_with_the_delegation_to_it() {
    let mut repository = Repository::new();
    repository.delegate(
        "releases-editor",
        DelegatedRole::new(role("nightly"), &["releases/editor/*/*/*"]),
        20,
        None,
    );
    let mut trusted = repository.trusted();
    // The delegator's key to it changes; its own file and everything below it stay as they are.
    let delegations = repository
        .targets("targets")
        .delegations
        .take()
        .expect("delegations");
    let delegation = DelegatedRole::new(role("releases-editor"), &["releases/editor/*/*/*"]);
    repository.targets("targets").delegations =
        Some(delegations.with_role(delegation, 1, &[public(21)]));
    repository.bump("targets");
    let files = repository.files();
    let _ = trusted
        .update_timestamp(&files.timestamp, enforce())
        .expect("a good timestamp");
    let _ = trusted
        .update_snapshot(&files.snapshot, enforce())
        .expect("a good snapshot");
    let _ = trusted
        .update_targets(&role("targets"), &files.roles[&role("targets")], enforce())
        .expect("good targets");
    assert!(
        trusted.role(&role("releases-editor")).is_none()
            && trusted.role(&role("nightly")).is_none()
    );
    let found = trusted.update_targets(
        &role("releases-editor"),
        &files.roles[&role("releases-editor")],
        enforce(),
    );
    assert!(found.is_err_and(|error| error.is_signatures()));
}

#[test]
fn delegations_in_a_circle_end() {
    let mut repository = Repository::new();
    repository.delegate(
        "releases-editor",
        DelegatedRole::new(role("a"), &["*"]),
        20,
        None,
    );
    repository.delegate(
        "a",
        DelegatedRole::new(role("releases-editor"), &["*"]),
        RELEASES,
        None,
    );
    repository.delegate("a", DelegatedRole::new(role("a"), &["*"]), 20, None);
    let trusted = repository.trusted();
    assert_eq!(trusted.resolve("nowhere"), Resolution::NotFound);
}

#[test]
fn a_set_of_floors_that_is_no_version_is_refused() {
    let repository = Repository::new();
    let (_, files) = loaded_snapshot(&repository);
    let bytes = resign(&files.roles[&role("targets")], TARGETS, |signed| {
        signed["updraft"] = json!({"security_floor": {"editor": "1"}})
    });
    let (mut trusted, _) = unpinned_targets(&repository, 1);
    let found = trusted.update_targets(&role("targets"), &bytes, enforce());
    assert!(matches!(found, Err(TufError::Malformed { .. })));
}

#[test]
fn a_node_restarts_from_its_own_files_after_they_expired() {
    let repository = Repository::new();
    let files = repository.files();
    let mut trusted =
        Trusted::from_first_root(&files.root, &repository.id()).expect("the first root");
    let _ = trusted
        .update_timestamp(&files.timestamp, Expiry::Deferred)
        .expect("the stored timestamp");
    let _ = trusted
        .update_snapshot(&files.snapshot, Expiry::Deferred)
        .expect("the stored snapshot");
    for name in ["targets", "channels", "releases-editor"] {
        let _ = trusted
            .update_targets(&role(name), &files.roles[&role(name)], Expiry::Deferred)
            .expect("a stored role");
    }
    assert!(trusted.is_complete());
    assert_eq!(
        trusted.freshness(later()),
        Freshness::Expired {
            role: role("snapshot"),
            since: later()
        }
    );
}

#[test]
fn a_clone_is_unaffected_by_the_original() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    let before = trusted.clone();
    repository.targets("releases-editor").targets.insert(
        "releases/editor/2.0.0/any/x".to_owned(),
        TargetInfo::of(b"x"),
    );
    repository.bump("releases-editor");
    repository.files().load(&mut trusted);
    assert_eq!(
        before
            .role(&role("releases-editor"))
            .map(|targets| targets.version),
        Some(1)
    );
    assert_eq!(
        trusted
            .role(&role("releases-editor"))
            .map(|targets| targets.version),
        Some(2)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_file_is_never_taken_for_new_and_never_panics(which in 0..4_usize, position: prop::sample::Index, byte: u8) {
        let mut repository = Repository::new();
        let mut trusted = repository.trusted();
        repository.root.version = 2;
        repository.bump("targets");
        let files = repository.files();
        let mutate = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let position = position.index(bytes.len());
            let changed = bytes[position] != byte;
            bytes[position] = byte;
            (bytes, changed)
        };
        let (before, changed, outcome) = match which {
            0 => {
                let (bytes, changed) = mutate(&files.root);
                (1, changed, trusted.update_root(&bytes).map(|()| trusted.root().signed_digest()))
            }
            1 => {
                let (bytes, changed) = mutate(&files.timestamp);
                (2, changed, trusted.update_timestamp(&bytes, enforce()).map(|_| trusted.timestamp().expect("one").signed_digest()))
            }
            2 => {
                let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
                let (bytes, changed) = mutate(&files.snapshot);
                (3, changed, trusted.update_snapshot(&bytes, enforce()).map(|_| trusted.snapshot().expect("one").signed_digest()))
            }
            _ => {
                let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
                let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
                let (bytes, changed) = mutate(&files.roles[&role("targets")]);
                (4, changed, trusted.update_targets(&role("targets"), &bytes, enforce()).map(|_| trusted.role(&role("targets")).expect("one").signed_digest()))
            }
        };
        // Whatever a change outside the signed part (white space, the case of a digit) leaves valid
        // must carry the same signed part.
        if let Ok(digest) = outcome {
            let signed = |bytes: &[u8]| Envelope::parse(&role("any"), bytes, u64::MAX).expect("an envelope").signed_digest();
            let expected = match before { 1 => signed(&files.root), 2 => signed(&files.timestamp), 3 => signed(&files.snapshot), _ => signed(&files.roles[&role("targets")]) };
            prop_assert_eq!(digest, expected);
            // Files pinned by hash bear no change at all.
            prop_assert!(before < 3 || !changed);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut trusted = Repository::new().trusted();
        prop_assert!(trusted.update_root(&bytes).is_err());
        prop_assert!(trusted.update_timestamp(&bytes, enforce()).is_err());
        prop_assert!(trusted.update_snapshot(&bytes, enforce()).is_err());
        prop_assert!(trusted.update_targets(&role("targets"), &bytes, enforce()).is_err());
        prop_assert!(Trusted::from_trusted_root(&bytes).is_err());
    }
}
