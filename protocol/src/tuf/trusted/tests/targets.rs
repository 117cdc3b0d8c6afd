use super::*;

#[test]
fn a_role_needs_a_current_snapshot() {
    let mut repository = Repository::new();
    let targets = repository.files().roles[&role("targets")].clone();
    let mut trusted = repository.trusted_root();
    let found = trusted.update_targets(&role("targets"), &targets, enforce());
    assert_eq!(found, Err(TufError::OutOfOrder { role: role("targets"), needs: role("timestamp") }));
    let (mut trusted, _) = loaded_snapshot(&repository);
    repository.bump_snapshot();
    let _ = trusted.update_timestamp(&repository.files().timestamp, enforce()).expect("a good timestamp");
    let found = trusted.update_targets(&role("targets"), &targets, enforce());
    assert_eq!(found, Err(TufError::OutOfOrder { role: role("targets"), needs: role("snapshot") }));
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_refused() {
    let repository = Repository::new();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("other"), &files.roles[&role("targets")], enforce());
    assert_eq!(found, Err(TufError::NotListed { role: role("other") }));
}

#[test]
fn a_role_that_nobody_delegates_to_is_refused() {
    let repository = Repository::new();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("channels"), &files.roles[&role("channels")], enforce());
    assert_eq!(found, Err(TufError::NotDelegated { role: role("channels") }));
}

#[test]
fn a_role_must_be_the_file_that_the_snapshot_lists() {
    let repository = Repository::new();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let mut other = files.roles[&role("targets")].clone();
    other.push(b' ');
    assert!(matches!(trusted.update_targets(&role("targets"), &other, enforce()), Err(TufError::Length { .. })));
    other.pop();
    let digit = other.iter().position(|byte| *byte == b'a').expect("a letter");
    other[digit] = b'b';
    assert!(matches!(trusted.update_targets(&role("targets"), &other, enforce()), Err(TufError::Hash { .. })));
}

/// Loads a repository whose snapshot lists `targets` at `version` without hashes.
fn unpinned_targets(repository: &Repository, version: u64) -> (Trusted, Files) {
    let meta = FileMeta { length: None, hashes: Hashes::default(), ..FileMeta::of(version, b"") };
    let snapshot = repository.snapshot.clone().with_role(&role("targets"), meta);
    let files = repository.files_of(&snapshot, repository.files().roles);
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    (trusted, files)
}

#[test]
fn a_role_must_be_the_version_that_the_snapshot_lists() {
    let (mut trusted, files) = unpinned_targets(&Repository::new(), 7);
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert_eq!(found, Err(TufError::Version { role: role("targets"), expected: 7, found: 1 }));
}

#[test]
fn hashes_of_no_known_algorithm_confirm_nothing() {
    let repository = Repository::new();
    let hashes: Hashes = serde_json::from_value(json!({"md5": "d41d8cd98f00b204e9800998ecf8427e"})).expect("hashes");
    let snapshot = repository
        .snapshot
        .clone()
        .with_role(&role("targets"), FileMeta { length: None, hashes, ..FileMeta::of(1, b"") });
    let files = repository.files_of(&snapshot, repository.files().roles);
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert!(matches!(found, Err(TufError::Hash { .. })));
}

#[test]
fn a_delegated_role_signed_by_another_delegates_key_is_refused() {
    let mut repository = Repository::new();
    repository.roles.get_mut(&role("releases-editor")).expect("the role").1 = vec![CHANNELS, TARGETS];
    let (mut trusted, files) = loaded_snapshot(&repository);
    let _ = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce()).expect("good targets");
    let found = trusted.update_targets(&role("releases-editor"), &files.roles[&role("releases-editor")], enforce());
    assert!(found.is_err_and(|error| error.is_signatures()));
}

#[test]
fn an_expired_role_is_refused() {
    let mut repository = Repository::new();
    repository.targets("targets").expires = now();
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert_eq!(found, Err(TufError::Expired { role: role("targets"), since: now() }));
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], Expiry::Deferred);
    assert_eq!(found, Ok(Change::New));
}

#[test]
fn a_delegation_to_a_top_level_role_is_refused() {
    let mut repository = Repository::new();
    let delegation = DelegatedRole::new(role("snapshot"), &["*"]);
    repository.targets("targets").delegations = Some(Delegations::default().with_role(delegation, 1, &[public(9)]));
    let (mut trusted, files) = loaded_snapshot(&repository);
    let found = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce());
    assert!(matches!(found, Err(TufError::Malformed { .. })));
}

#[test]
fn a_role_falls_with_the_delegation_to_it() {
    let mut repository = Repository::new();
    repository.delegate("releases-editor", DelegatedRole::new(role("nightly"), &["releases/editor/*/*/*"]), 20, None);
    let mut trusted = repository.trusted();
    // The delegator's key to it changes; its own file and everything below it stay as they are.
    let delegations = repository.targets("targets").delegations.take().expect("delegations");
    let delegation = DelegatedRole::new(role("releases-editor"), &["releases/editor/*/*/*"]);
    repository.targets("targets").delegations = Some(delegations.with_role(delegation, 1, &[public(21)]));
    repository.bump("targets");
    let files = repository.files();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    let _ = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce()).expect("good targets");
    assert!(trusted.role(&role("releases-editor")).is_none() && trusted.role(&role("nightly")).is_none());
    let found = trusted.update_targets(&role("releases-editor"), &files.roles[&role("releases-editor")], enforce());
    assert!(found.is_err_and(|error| error.is_signatures()));
}

#[test]
fn delegations_in_a_circle_end() {
    let mut repository = Repository::new();
    repository.delegate("releases-editor", DelegatedRole::new(role("a"), &["*"]), 20, None);
    repository.delegate("a", DelegatedRole::new(role("releases-editor"), &["*"]), RELEASES, None);
    repository.delegate("a", DelegatedRole::new(role("a"), &["*"]), 20, None);
    let trusted = repository.trusted();
    assert_eq!(trusted.resolve("nowhere"), Resolution::NotFound);
}

#[test]
fn a_set_of_floors_that_is_no_version_is_refused() {
    let repository = Repository::new();
    let (_, files) = loaded_snapshot(&repository);
    for fields in [json!({"security_floor": {"editor": "1"}}), json!([{"editor": "1.0.0"}])] {
        let bytes = resign(&files.roles[&role("targets")], TARGETS, |signed| signed["updraft"] = fields.clone());
        let (mut trusted, _) = unpinned_targets(&repository, 1);
        let found = trusted.update_targets(&role("targets"), &bytes, enforce());
        assert!(matches!(found, Err(TufError::Malformed { .. })), "{fields}");
    }
}

#[test]
fn a_node_restarts_from_its_own_files_after_they_expired() {
    let repository = Repository::new();
    let files = repository.files();
    let mut trusted = Trusted::from_first_root(&files.root, &repository.id()).expect("the first root");
    let _ = trusted.update_timestamp(&files.timestamp, Expiry::Deferred).expect("the stored timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, Expiry::Deferred).expect("the stored snapshot");
    for name in ["targets", "channels", "releases-editor"] {
        let _ =
            trusted.update_targets(&role(name), &files.roles[&role(name)], Expiry::Deferred).expect("a stored role");
    }
    assert!(trusted.is_complete());
    assert_eq!(trusted.freshness(later()), Freshness::Expired { role: role("snapshot"), since: later() });
}

#[test]
fn a_clone_is_unaffected_by_the_original() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    let before = trusted.clone();
    repository
        .targets("releases-editor")
        .targets
        .insert("releases/editor/2.0.0/any/x".to_owned(), TargetInfo::of(b"x"));
    repository.bump("releases-editor");
    repository.files().load(&mut trusted);
    assert_eq!(before.role(&role("releases-editor")).map(|targets| targets.version), Some(1));
    assert_eq!(trusted.role(&role("releases-editor")).map(|targets| targets.version), Some(2));
}

#[test]
fn unknown_fields_of_every_level_survive_a_new_signature() {
    let repository = Repository::new();
    let files = repository.files();
    let targets = resign(&files.roles[&role("targets")], TARGETS, |signed| {
        signed["future"] = json!({"a": [1, null]});
        signed["updraft"] = json!({"security_floor": {"editor": "1.0.0"}, "future": {"b": 2}});
        signed["delegations"]["future"] = json!(1);
        signed["delegations"]["roles"][0]["future"] = json!("x");
        let keys = signed["delegations"]["keys"].as_object_mut().expect("keys");
        let key = keys.values_mut().next().expect("a key");
        key["future"] = json!(true);
        key["keyval"]["future"] = json!(-1);
    });
    let (mut trusted, _) = unpinned_targets(&repository, 1);
    assert_eq!(trusted.update_targets(&role("targets"), &targets, enforce()), Ok(Change::New));
    let read = trusted.role(&role("targets")).expect("the role");
    assert_eq!(sign_role(&**read, &[&key(TARGETS)]), targets);

    // The same where the only field of Updraft's is one that this version does not know.
    let newer = resign(&targets, TARGETS, |signed| signed["updraft"] = json!({"future": 1}));
    let (mut trusted, _) = unpinned_targets(&repository, 1);
    assert_eq!(trusted.update_targets(&role("targets"), &newer, enforce()), Ok(Change::New));
    assert_eq!(sign_role(&**trusted.role(&role("targets")).expect("the role"), &[&key(TARGETS)]), newer);

    let root = resign(&files.root, ROOT, |signed| {
        signed["future"] = json!([]);
        signed["roles"]["future"] = json!({"keyids": [], "threshold": 1});
        signed["roles"]["timestamp"]["future"] = json!(2);
    });
    let trusted = Trusted::from_trusted_root(&root).expect("a root");
    assert_eq!(sign_role(&**trusted.root(), &[&key(ROOT)]), root);
}

#[test]
fn a_cached_file_is_checked_against_what_its_delegator_asks_for_now() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    let delegations = repository.targets("targets").delegations.take().expect("delegations");
    let delegation = DelegatedRole::new(role("releases-editor"), &["releases/editor/*/*/*"]);
    repository.targets("targets").delegations =
        Some(delegations.with_role(delegation, 2, &[public(RELEASES), public(21)]));
    repository.bump("targets");
    let files = repository.files();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    let _ = trusted.update_targets(&role("targets"), &files.roles[&role("targets")], enforce()).expect("good targets");
    // Neither file has changed since it was trusted, and the snapshot pins both.
    let again = |trusted: &mut Trusted, name| trusted.update_targets(&role(name), &files.roles[&role(name)], enforce());
    assert_eq!(again(&mut trusted, "channels"), Ok(Change::New));
    let found = again(&mut trusted, "releases-editor");
    assert_eq!(found, Err(TufError::Signatures { role: role("releases-editor"), valid: 1, threshold: 2 }));
}
