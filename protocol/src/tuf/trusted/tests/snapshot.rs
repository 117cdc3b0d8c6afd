use super::*;

#[test]
fn a_snapshot_needs_a_timestamp() {
    let repository = Repository::new();
    let found = repository.trusted_root().update_snapshot(&repository.files().snapshot, enforce());
    assert_eq!(found, Err(TufError::OutOfOrder { role: role("snapshot"), needs: role("timestamp") }));
}

#[test]
fn a_snapshot_must_have_the_hash_and_length_that_the_timestamp_states() {
    let repository = Repository::new();
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let longer = [&files.snapshot[..], b" "].concat();
    assert!(matches!(trusted.update_snapshot(&longer, enforce()), Err(TufError::Length { .. })));
    let mut other = files.snapshot.clone();
    let digit = other.iter().position(|byte| *byte == b'a').expect("a hexadecimal digit");
    other[digit] = b'b';
    assert!(matches!(trusted.update_snapshot(&other, enforce()), Err(TufError::Hash { .. })));
}

/// A timestamp that states only the version of the snapshot.
fn unpinned(repository: &Repository, version: u64) -> Vec<u8> {
    let meta = FileMeta { length: None, hashes: Hashes::default(), ..FileMeta::of(version, b"") };
    sign(&Timestamp { snapshot: meta, ..repository.timestamp.clone() }, &[TIMESTAMP])
}

#[test]
fn a_snapshot_must_have_the_version_that_the_timestamp_states() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&unpinned(&repository, 1), enforce()).expect("a good timestamp");
    repository.snapshot.version = 2;
    let found = trusted.update_snapshot(&repository.files().snapshot, enforce());
    assert_eq!(found, Err(TufError::Version { role: role("snapshot"), expected: 1, found: 2 }));
}

#[test]
fn a_snapshot_signed_by_another_role_is_refused() {
    let mut repository = Repository::new();
    repository.snapshot_signers = vec![TIMESTAMP];
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    assert!(trusted.update_snapshot(&files.snapshot, enforce()).is_err_and(|error| error.is_signatures()));
}

#[test]
fn a_snapshot_that_takes_a_role_back_is_refused() {
    let mut repository = Repository::new();
    repository.bump("releases-editor");
    let mut trusted = repository.trusted();
    repository.targets("releases-editor").version = 1;
    repository.bump_snapshot();
    let files = repository.files();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, enforce());
    assert_eq!(found, Err(TufError::Rollback { role: role("releases-editor"), trusted: 2, found: 1 }));
}

#[test]
fn a_snapshot_that_drops_a_role_is_refused() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.roles.remove(&role("releases-editor"));
    repository.bump_snapshot();
    let files = repository.files();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, enforce());
    assert_eq!(found, Err(TufError::Removed { role: role("releases-editor") }));
}

#[test]
fn an_expired_snapshot_is_refused() {
    let mut repository = Repository::new();
    repository.snapshot.expires = now();
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, enforce());
    assert_eq!(found, Err(TufError::Expired { role: role("snapshot"), since: now() }));
}

#[test]
fn a_snapshot_under_an_expired_timestamp_is_refused() {
    let repository = Repository::new();
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, Expiry::Deferred).expect("a good timestamp");
    let found = trusted.update_snapshot(&files.snapshot, Expiry::Enforce(later()));
    assert_eq!(found, Err(TufError::Expired { role: role("timestamp"), since: later() }));
}

#[test]
fn an_overtaken_snapshot_from_disk_still_protects_from_rollback() {
    let mut repository = Repository::new();
    repository.bump("releases-editor");
    let old = repository.files();
    repository.bump_snapshot();
    let newer = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&newer.timestamp, Expiry::Deferred).expect("the newest timestamp");
    assert_eq!(trusted.update_snapshot(&old.snapshot, Expiry::Deferred), Ok(Change::New));
    assert_eq!(trusted.missing_snapshot().map(|request| request.version), Some(3));

    repository.targets("releases-editor").version = 1;
    repository.timestamp.version += 1;
    let attack = repository.files();
    let _ = trusted.update_timestamp(&attack.timestamp, enforce()).expect("a newer timestamp");
    let found = trusted.update_snapshot(&attack.snapshot, enforce());
    assert_eq!(found, Err(TufError::Rollback { role: role("releases-editor"), trusted: 2, found: 1 }));
}

#[test]
fn the_trusted_snapshot_again_is_the_same() {
    let repository = Repository::new();
    assert_eq!(repository.trusted().update_snapshot(&repository.files().snapshot, enforce()), Ok(Change::Same));
}

#[test]
fn a_new_snapshot_drops_the_roles_that_changed_and_keeps_the_others() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.bump("releases-editor");
    let files = repository.files();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    let missing: Vec<(RoleName, u64)> =
        trusted.missing_roles().into_iter().map(|request| (request.role, request.version)).collect();
    assert_eq!(missing, [(role("releases-editor"), 2)]);
    assert!(trusted.role(&role("channels")).is_some());
    files.load_roles(&mut trusted);
    assert!(trusted.is_complete());
}

/// What a timestamp or snapshot that states these hash algorithms says about a file.
fn meta_with(version: u64, bytes: &[u8], algorithms: &[&str]) -> FileMeta {
    let hash = |algorithm: &str| match algorithm {
        "sha512" => data_encoding::HEXLOWER.encode(&<sha2::Sha512 as sha2::Digest>::digest(bytes)),
        _ => Digest::of(bytes).to_string(),
    };
    let hashes: BTreeMap<&str, String> = algorithms.iter().map(|algorithm| (*algorithm, hash(algorithm))).collect();
    FileMeta { hashes: serde_json::from_value(json!(hashes)).expect("hashes"), ..FileMeta::of(version, bytes) }
}

#[test]
fn metadata_may_be_pinned_by_sha512_alone_or_by_both() {
    let repository = Repository::new();
    for algorithms in [&["sha512"][..], &["sha256", "sha512"]] {
        let roles = repository.files().roles;
        let snapshot = roles.iter().fold(repository.snapshot.clone(), |snapshot, (name, bytes)| {
            snapshot.with_role(name, meta_with(1, bytes, algorithms))
        });
        let files = repository.files_of(&snapshot, roles);
        let stamp = |meta| sign(&Timestamp { snapshot: meta, ..repository.timestamp.clone() }, &[TIMESTAMP]);

        let mut trusted = repository.trusted_root();
        let timestamp = stamp(meta_with(1, &files.snapshot, algorithms));
        assert_eq!(trusted.update_timestamp(&timestamp, enforce()), Ok(Change::New));
        assert_eq!(trusted.update_snapshot(&files.snapshot, enforce()), Ok(Change::New));
        for name in ["targets", "channels", "releases-editor"] {
            let found = trusted.update_targets(&role(name), &files.roles[&role(name)], enforce());
            assert_eq!(found, Ok(Change::New), "{name} {algorithms:?}");
        }
        assert!(trusted.is_complete() && trusted.missing_snapshot().is_none());

        let mut other = repository.trusted_root();
        let mut wrong = meta_with(1, &files.snapshot, algorithms);
        let text = serde_json::to_string(&wrong.hashes).expect("JSON");
        let (start, last) = text.split_at(text.len() - 3);
        let text = format!("{start}{}{}", if last.starts_with('0') { '1' } else { '0' }, &last[1..]);
        wrong.hashes = serde_json::from_str(&text).expect("hashes");
        assert_eq!(other.update_timestamp(&stamp(wrong), enforce()), Ok(Change::New));
        let algorithm = (*algorithms.last().expect("one")).to_owned();
        let found = other.update_snapshot(&files.snapshot, enforce());
        assert_eq!(found, Err(TufError::Hash { role: role("snapshot"), algorithm }));
    }
}
