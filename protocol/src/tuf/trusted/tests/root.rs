use super::*;

#[test]
fn the_first_root_must_be_the_one_that_the_id_names() {
    let repository = Repository::new();
    let root = repository.files().root;
    let trusted = Trusted::from_first_root(&root, &repository.id()).expect("the first root");
    assert_eq!(trusted.repository(), Some(repository.id()));
    let other = RepositoryId(Digest::of(b"another repository"));
    assert_eq!(Trusted::from_first_root(&root, &other).err(), Some(TufError::WrongRepository));
}

#[test]
fn the_first_root_must_be_version_1() {
    let mut repository = Repository::new();
    repository.root.version = 2;
    let root = repository.files().root;
    assert!(matches!(RepositoryId::of_first_root(&root), Err(TufError::Version { expected: 1, found: 2, .. })));
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
    let mut next = repository.root.clone().with_role(TopRole::Root, 1, &[public(11)]);
    next.version = 2;
    for (signers, accepted) in [(&[ROOT, 11][..], true), (&[ROOT], false), (&[11], false), (&[], false)] {
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
        let next = Root { version, ..repository.root.clone() };
        let found = repository.trusted_root().update_root(&sign(&next, &[ROOT]));
        assert_eq!(found, Err(TufError::Version { role: role("root"), expected: 2, found: version }));
    }
}

#[test]
fn an_expired_root_is_passed_on_the_way_but_stops_a_timestamp() {
    let repository = Repository::new();
    let expired = |version| Root { version, expires: now(), ..repository.root.clone() };
    let mut trusted = repository.trusted_root();
    assert_eq!(trusted.update_root(&sign(&expired(2), &[ROOT])), Ok(()));
    let stopped = trusted.update_timestamp(&repository.files().timestamp, enforce());
    assert_eq!(stopped, Err(TufError::Expired { role: role("root"), since: now() }));
    let last = Root { version: 3, ..repository.root.clone() };
    assert_eq!(trusted.update_root(&sign(&last, &[ROOT])), Ok(()));
    assert_eq!(trusted.update_timestamp(&repository.files().timestamp, enforce()), Ok(Change::New));
}

#[test]
fn rotating_an_online_key_forgets_what_it_pushed_forward() {
    let mut repository = Repository::new();
    repository.timestamp.version = u64::MAX;
    let mut trusted = repository.trusted();
    repository.root = repository.root.with_role(TopRole::Timestamp, 1, &[public(12)]);
    repository.root.version = 2;
    repository.timestamp.version = 1;
    repository.timestamp_signers = vec![12];
    let files = repository.files();
    assert_eq!(trusted.update_root(&files.root), Ok(()));
    assert!(trusted.timestamp().is_none() && trusted.snapshot().is_none());
    assert_eq!(trusted.update_timestamp(&files.timestamp, enforce()), Ok(Change::New));
}

#[test]
fn rotating_the_snapshot_key_lets_targets_versions_recover() {
    let mut repository = Repository::new();
    repository.targets("targets").version = 1_000_000;
    let mut trusted = repository.trusted();
    repository.root = repository.root.with_role(TopRole::Snapshot, 1, &[public(13)]);
    repository.root.version = 2;
    repository.snapshot_signers = vec![13];
    repository.targets("targets").version = 1;
    repository.bump_snapshot();
    let files = repository.files();
    assert_eq!(trusted.update_root(&files.root), Ok(()));
    files.load(&mut trusted);
    assert_eq!(trusted.role(&role("targets")).map(|targets| targets.version), Some(1));
}

#[test]
fn a_root_that_rotates_no_online_key_keeps_everything() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root = repository.root.with_role(TopRole::Timestamp, 1, &[public(TIMESTAMP), public(12)]);
    repository.root.version = 2;
    assert_eq!(trusted.update_root(&repository.files().root), Ok(()));
    assert!(trusted.is_complete());
}

#[test]
fn a_raised_threshold_drops_what_no_longer_reaches_it() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root = repository.root.with_role(TopRole::Timestamp, 2, &[public(TIMESTAMP), public(12)]);
    repository.root.version = 2;
    assert_eq!(trusted.update_root(&repository.files().root), Ok(()));
    assert!(trusted.timestamp().is_none() && trusted.snapshot().is_some());
}

#[test]
fn rotating_the_targets_key_drops_the_roles_it_vouched_for() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.root = repository.root.with_role(TopRole::Targets, 1, &[public(14)]);
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
    assert!(trusted.update_targets(&role("targets"), b"{}", enforce()).is_err());
    assert!(trusted.is_complete());
}

#[test]
fn the_largest_version_has_no_successor() {
    let mut repository = Repository::new();
    repository.root.version = u64::MAX;
    let mut trusted = repository.trusted_root();
    for version in [u64::MAX, 1] {
        let next = Root { version, ..repository.root.clone() };
        assert!(matches!(trusted.update_root(&sign(&next, &[ROOT])), Err(TufError::Version { .. })), "{version}");
    }
}

#[test]
fn a_root_says_itself_whether_it_has_expired() {
    let trusted = Repository::new().trusted_root();
    assert_eq!(trusted.check_root(enforce()), Ok(()));
    let since = trusted.root().expires;
    assert_eq!(trusted.check_root(Expiry::Enforce(since)), Err(TufError::Expired { role: role("root"), since }));
    assert_eq!(trusted.check_root(Expiry::Deferred), Ok(()));
}
