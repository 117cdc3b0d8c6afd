use super::*;

#[test]
fn a_replayed_timestamp_is_refused() {
    let mut repository = Repository::new();
    let old = repository.files().timestamp;
    repository.bump_timestamp();
    let mut trusted = repository.trusted();
    let found = trusted.update_timestamp(&old, enforce());
    assert_eq!(found, Err(TufError::Rollback { role: role("timestamp"), trusted: 2, found: 1 }));
}

#[test]
fn a_timestamp_of_the_same_version_changes_nothing() {
    let repository = Repository::new();
    let mut trusted = repository.trusted();
    let before = trusted.timestamp().map(|timestamp| timestamp.bytes().to_vec());
    let other = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
        signed["meta"]["snapshot.json"]["version"] = json!(100);
    });
    assert_eq!(trusted.update_timestamp(&other, enforce()), Ok(Change::Same));
    assert_eq!(trusted.timestamp().map(|timestamp| timestamp.bytes().to_vec()), before);
}

#[test]
fn a_timestamp_that_names_an_older_snapshot_is_refused() {
    let mut repository = Repository::new();
    repository.bump_snapshot();
    let mut trusted = repository.trusted();
    repository.timestamp.version = 3;
    repository.snapshot.version = 1;
    let found = trusted.update_timestamp(&repository.files().timestamp, enforce());
    assert_eq!(found, Err(TufError::Rollback { role: role("snapshot"), trusted: 2, found: 1 }));
}

#[test]
fn an_expired_timestamp_is_refused_at_the_very_second() {
    let repository = Repository::new();
    let timestamp = repository.files().timestamp;
    let at = |time| repository.trusted_root().update_timestamp(&timestamp, Expiry::Enforce(time));
    assert_eq!(at(later().plus_seconds(-1)), Ok(Change::New));
    assert_eq!(at(later()), Err(TufError::Expired { role: role("timestamp"), since: later() }));
}

#[test]
fn offering_the_trusted_timestamp_again_does_not_revive_it() {
    let repository = Repository::new();
    let mut trusted = repository.trusted();
    let found = trusted.update_timestamp(&repository.files().timestamp, Expiry::Enforce(later()));
    assert_eq!(found, Err(TufError::Expired { role: role("timestamp"), since: later() }));
}

#[test]
fn a_timestamp_signed_by_another_role_is_refused() {
    let mut repository = Repository::new();
    repository.timestamp_signers = vec![SNAPSHOT, TARGETS, ROOT];
    let found = repository.trusted_root().update_timestamp(&repository.files().timestamp, enforce());
    assert_eq!(found, Err(TufError::Signatures { role: role("timestamp"), valid: 0, threshold: 1 }));
}

#[test]
fn metadata_of_another_type_is_refused_though_well_signed() {
    let repository = Repository::new();
    let disguised = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
        signed["_type"] = json!("snapshot");
    });
    let found = repository.trusted_root().update_timestamp(&disguised, enforce());
    assert!(matches!(found, Err(TufError::Malformed { .. })), "{found:?}");
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
            signed["spec_version"] = json!(version);
        });
        assert_eq!(repository.trusted_root().update_timestamp(&bytes, enforce()).is_ok(), accepted, "{version}");
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
        ("meta", json!({"snapshot.json": {"version": 1, "length": -1}})),
        ("meta", json!({"snapshot.json": {"version": 1, "hashes": {}}})),
        ("meta", json!([{"version": 1}])),
        ("signed_at", json!(5)),
        ("prev_sha256", json!("ab")),
    ] {
        let bytes = resign(&repository.files().timestamp, TIMESTAMP, |signed| {
            signed[field] = value.clone();
        });
        let found = repository.trusted_root().update_timestamp(&bytes, enforce());
        assert!(matches!(found, Err(TufError::Malformed { .. })), "{field} {value}: {found:?}");
    }
}

#[test]
fn a_duplicate_key_is_refused_before_anyone_asks_which_value_was_signed() {
    let repository = Repository::new();
    let text = String::from_utf8(repository.files().timestamp).expect("text");
    let doubled = text.replacen("\"version\":1}", "\"version\":1,\"version\":1}", 1);
    assert_ne!(doubled, text);
    let found = repository.trusted_root().update_timestamp(doubled.as_bytes(), enforce());
    assert!(matches!(found, Err(TufError::Malformed { reason, .. }) if reason.contains("appears twice")));
}

#[test]
fn the_fields_of_updraft_survive_signing() {
    let mut repository = Repository::new();
    repository.timestamp.signed_at = Some(now());
    repository.timestamp.prev_sha256 = Some(Digest::of(b"before"));
    repository.timestamp.other.insert("future".to_owned(), json!([1]));
    let floor = semver::Version::new(1, 2, 0);
    let editor: crate::names::Product = "editor".parse().expect("a product");
    repository.targets("targets").security_floor.insert(editor.clone(), floor.clone());
    let trusted = repository.trusted();
    let timestamp = trusted.timestamp().expect("a timestamp");
    assert_eq!((timestamp.signed_at, timestamp.prev_sha256), (Some(now()), Some(Digest::of(b"before"))));
    assert_eq!(timestamp.other.get("future"), Some(&json!([1])));
    assert_eq!(trusted.security_floor(&editor), Some(floor));
    assert_eq!(sign_role(&**timestamp, &[&key(TIMESTAMP)]), timestamp.bytes());
}

#[test]
fn an_oversized_file_is_refused_unread() {
    let mut trusted = Repository::new().trusted();
    let huge = vec![b' '; usize::try_from(MAX_TIMESTAMP_BYTES).expect("small") + 1];
    assert!(matches!(trusted.update_timestamp(&huge, enforce()), Err(TufError::TooLarge { .. })));
}

#[test]
fn exact_bytes_are_kept() {
    let repository = Repository::new();
    let spaced = [&repository.files().timestamp[..], b" \n"].concat();
    let mut trusted = repository.trusted_root();
    assert_eq!(trusted.update_timestamp(&spaced, enforce()), Ok(Change::New));
    assert_eq!(trusted.timestamp().map(Verified::bytes), Some(&spaced[..]));
}
