use super::*;
use crate::tuf::fixture::{ARTIFACT, CHANNEL, POLICY, RELEASES, Repository, enforce, later, now, public, role};
use crate::tuf::{DelegatedRole, Delegations, FileMeta};

fn any(name: &str) -> DelegatedRole {
    DelegatedRole::new(role(name), &["*"])
}

/// A repository whose top-level role delegates to nobody yet.
fn bare() -> Repository {
    let mut repository = Repository::new();
    repository.targets("targets").delegations = None;
    repository.roles.retain(|name, _| *name == RoleName::targets());
    repository
}

fn found(trusted: &Trusted, path: &str) -> Option<RoleName> {
    match trusted.resolve(path) {
        Resolution::Found { role, .. } => Some(role),
        Resolution::Needs(_) | Resolution::NotFound => None,
    }
}

#[test]
fn a_path_leads_to_the_role_that_it_is_delegated_to() {
    let trusted = Repository::new().trusted();
    assert_eq!(found(&trusted, ARTIFACT), Some(role("releases-editor")));
    let Resolution::Found { target, .. } = trusted.resolve(CHANNEL) else { panic!("the channel is a target") };
    assert!(target.matches(POLICY));
    assert_eq!(trusted.resolve("releases/editor/9.9.9/any/editor.zip"), Resolution::NotFound);
}

#[test]
fn a_role_has_no_say_outside_its_delegation() {
    let mut repository = Repository::new();
    for outside in
        ["releases/viewer/1.0.0/any/viewer.zip", "channels/editor/beta.json", "releases/editor/1.0.0/any/a/b"]
    {
        repository.targets("releases-editor").targets.insert(outside.to_owned(), TargetInfo::of(b"evil"));
    }
    let trusted = repository.trusted();
    assert_eq!(found(&trusted, "releases/viewer/1.0.0/any/viewer.zip"), None);
    assert_eq!(found(&trusted, "channels/editor/beta.json"), None);
    assert_eq!(found(&trusted, "releases/editor/1.0.0/any/a/b"), None);
    let listed: Vec<(&str, RoleName)> = trusted.all_targets().into_iter().map(|(path, _, role)| (path, role)).collect();
    assert_eq!(listed, [(CHANNEL, role("channels")), (ARTIFACT, role("releases-editor"))]);
}

#[test]
fn the_online_role_cannot_introduce_a_release() {
    let mut repository = Repository::new();
    let evil = "releases/editor/6.6.6/any/editor.zip";
    repository.targets("channels").targets.insert(evil.to_owned(), TargetInfo::of(b"evil"));
    assert_eq!(repository.trusted().resolve(evil), Resolution::NotFound);
}

#[test]
fn the_first_delegation_in_preorder_wins() {
    let mut repository = bare();
    repository.delegate("targets", any("a"), 20, None);
    repository.delegate("targets", any("b"), 21, Some("x"));
    repository.delegate("a", any("c"), 22, Some("x"));
    let trusted = repository.trusted();
    assert_eq!(found(&trusted, "x"), Some(role("c")));
    assert_eq!(trusted.all_targets().len(), 1, "the target of b is shadowed");
}

#[test]
fn a_role_that_speaks_itself_comes_before_those_it_delegates_to() {
    let mut repository = bare();
    repository.delegate("targets", any("a"), 20, Some("x"));
    repository.delegate("a", any("b"), 21, Some("x"));
    assert_eq!(found(&repository.trusted(), "x"), Some(role("a")));
}

#[test]
fn a_terminating_delegation_ends_the_search_where_it_matches() {
    let mut repository = bare();
    repository.delegate("targets", DelegatedRole::new(role("a"), &["x*"]).terminating(), 20, None);
    repository.delegate("targets", any("b"), 21, Some("x1"));
    repository.targets("b").targets.insert("y1".to_owned(), TargetInfo::of(b"y"));
    let trusted = repository.trusted();
    assert_eq!(found(&trusted, "x1"), None);
    assert_eq!(found(&trusted, "y1"), Some(role("b")));
}

#[test]
fn a_terminating_delegation_below_also_ends_the_search_above() {
    let mut repository = bare();
    repository.delegate("targets", any("a"), 20, None);
    repository.delegate("targets", any("b"), 21, Some("x"));
    repository.delegate("a", any("c").terminating(), 22, None);
    assert_eq!(found(&repository.trusted(), "x"), None);
}

#[test]
fn roles_are_asked_for_one_at_a_time_and_only_where_they_may_speak() {
    let mut repository = bare();
    repository.delegate("targets", DelegatedRole::new(role("a"), &["a*"]), 20, None);
    repository.delegate("targets", any("b"), 21, Some("x"));
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    for expected in ["targets", "b"] {
        let Resolution::Needs(request) = trusted.resolve("x") else { panic!("{expected} is not loaded") };
        assert_eq!(request.role, role(expected));
        let _ = trusted.update_targets(&request.role, &files.roles[&request.role], enforce()).expect("a good role");
    }
    assert_eq!(found(&trusted, "x"), Some(role("b")));
    assert_eq!(trusted.missing_roles().len(), 1);
}

#[test]
fn missing_roles_come_parents_first() {
    let mut repository = bare();
    repository.delegate("targets", any("z"), 20, None);
    repository.delegate("targets", any("m"), 21, None);
    repository.delegate("z", any("a"), 22, None);
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    assert!(trusted.missing_roles().is_empty() && !trusted.is_complete());
    let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
    assert!(trusted.missing_snapshot().is_some() && !trusted.is_complete());
    let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
    let mut order = Vec::new();
    while let Some(request) = trusted.missing_roles().into_iter().next() {
        let _ = trusted.update_targets(&request.role, &files.roles[&request.role], enforce()).expect("a good role");
        order.push(request.role);
    }
    assert_eq!(order, [role("targets"), role("z"), role("m"), role("a")]);
    assert!(trusted.is_complete());
}

#[test]
fn a_delegated_role_that_the_snapshot_does_not_list_ends_the_search() {
    let mut repository = bare();
    repository.delegate("targets", any("a"), 20, None);
    repository.delegate("targets", any("b"), 21, Some("x"));
    repository.roles.remove(&role("a"));
    let trusted = repository.trusted();
    assert!(trusted.missing_roles().is_empty());
    assert_eq!(trusted.resolve("x"), Resolution::NotFound);
}

#[test]
fn one_delegators_word_does_not_vouch_for_another() {
    // Both delegate to "shared", each naming other keys. Its file is signed as b asks, so it may speak
    // about b's paths; about a's it may not.
    let mut repository = bare();
    repository.delegate("targets", DelegatedRole::new(role("a"), &["a*"]), 20, None);
    repository.delegate("targets", DelegatedRole::new(role("b"), &["b*"]), 21, None);
    repository.delegate("b", DelegatedRole::new(role("shared"), &["*"]), 22, Some("b1"));
    repository.delegate("a", DelegatedRole::new(role("shared"), &["*"]), 23, None);
    repository.targets("shared").targets.insert("a1".to_owned(), TargetInfo::of(b"evil"));
    let trusted = repository.trusted();
    assert_eq!(found(&trusted, "b1"), Some(role("shared")));
    assert_eq!(found(&trusted, "a1"), None);
}

#[test]
fn a_role_that_both_delegators_vouch_for_speaks_for_both() {
    let mut repository = bare();
    repository.delegate("targets", DelegatedRole::new(role("a"), &["a*"]), 20, None);
    repository.delegate("targets", DelegatedRole::new(role("b"), &["b*"]), 21, None);
    repository.delegate("b", DelegatedRole::new(role("shared"), &["*"]), 22, Some("b1"));
    repository.delegate("a", DelegatedRole::new(role("shared"), &["*"]), 22, None);
    repository.targets("shared").targets.insert("a1".to_owned(), TargetInfo::of(b"good"));
    let trusted = repository.trusted();
    assert_eq!((found(&trusted, "b1"), found(&trusted, "a1")), (Some(role("shared")), Some(role("shared"))));
}

#[test]
fn a_search_visits_a_bounded_number_of_roles() {
    let chain = |length: usize| {
        let mut repository = bare();
        let mut parent = "targets".to_owned();
        for index in 1..length {
            let child = format!("d{index}");
            repository.delegate(&parent, any(&child), 20, (index + 1 == length).then_some("x"));
            parent = child;
        }
        repository.trusted()
    };
    assert!(found(&chain(MAX_DELEGATIONS_VISITED), "x").is_some());
    assert!(found(&chain(MAX_DELEGATIONS_VISITED + 1), "x").is_none());
}

#[test]
fn hash_prefixes_share_out_paths() {
    let mut repository = bare();
    let hash = crate::digest::Digest::of(b"x").to_string();
    let by_prefix = |name: &str, prefix: &str| {
        let mut delegation = any(name);
        delegation.paths = None;
        delegation.path_hash_prefixes = Some(vec![prefix.to_owned()]);
        delegation
    };
    let other = if hash.starts_with('0') { "1" } else { "0" };
    repository.delegate("targets", by_prefix("a", other), 20, Some("x"));
    repository.delegate("targets", by_prefix("b", &hash[..2]), 21, Some("x"));
    assert_eq!(found(&repository.trusted(), "x"), Some(role("b")));
}

#[test]
fn nothing_is_found_without_a_snapshot_or_by_an_endless_path() {
    let repository = Repository::new();
    assert_eq!(repository.trusted_root().resolve(ARTIFACT), Resolution::NotFound);
    assert_eq!(repository.trusted().resolve(&"x".repeat(MAX_TARGET_PATH_BYTES + 1)), Resolution::NotFound);
}

#[test]
fn freshness_ends_with_the_first_top_level_role() {
    let mut repository = Repository::new();
    repository.timestamp.expires = now().plus_days(3);
    let trusted = repository.trusted();
    assert_eq!(trusted.freshness(now()), Freshness::Fresh { until: now().plus_days(3) });
    let expired = Freshness::Expired { role: role("timestamp"), since: now().plus_days(3) };
    assert_eq!(trusted.freshness(now().plus_days(3)), expired);
}

#[test]
fn a_withheld_snapshot_is_not_fresh() {
    let mut repository = Repository::new();
    let mut trusted = repository.trusted();
    repository.bump_snapshot();
    let _ = trusted.update_timestamp(&repository.files().timestamp, enforce()).expect("a good timestamp");
    assert_eq!(trusted.freshness(now()), Freshness::Incomplete { missing: role("snapshot") });
    assert_eq!(repository.trusted_root().freshness(now()), Freshness::Incomplete { missing: role("timestamp") });
}

#[test]
fn an_expired_delegate_stops_its_own_product_alone() {
    let mut repository = Repository::new();
    repository.targets("releases-editor").expires = now().plus_days(1);
    let trusted = repository.trusted();
    let then = now().plus_days(2);
    assert_eq!(trusted.freshness(then), Freshness::Fresh { until: later() });
    assert_eq!(trusted.role_freshness(&role("channels"), then), Freshness::Fresh { until: later() });
    let expired = Freshness::Expired { role: role("releases-editor"), since: now().plus_days(1) };
    assert_eq!(trusted.role_freshness(&role("releases-editor"), then), expired);
    assert_eq!(trusted.role_freshness(&role("other"), then), Freshness::Incomplete { missing: role("other") });
}

#[test]
fn a_role_lives_as_long_as_the_longest_chain_to_it() {
    let mut repository = bare();
    repository.delegate("targets", any("short"), 20, None);
    repository.delegate("targets", any("long"), 21, None);
    repository.delegate("short", any("leaf"), 22, Some("x"));
    repository.delegate("long", any("leaf"), 22, None);
    repository.targets("short").expires = now().plus_days(1);
    repository.targets("long").expires = now().plus_days(2);
    let trusted = repository.trusted();
    assert_eq!(trusted.role_freshness(&role("leaf"), now()), Freshness::Fresh { until: now().plus_days(2) });
}

#[test]
fn a_delegate_has_no_say_about_floors() {
    let mut repository = Repository::new();
    let editor: Product = "editor".parse().expect("a product");
    for (name, floor) in [
        ("targets", Version::new(1, 2, 0)),
        ("channels", Version::new(9, 0, 0)),
        ("releases-editor", Version::new(0, 1, 0)),
    ] {
        repository.targets(name).security_floor.insert(editor.clone(), floor);
    }
    assert_eq!(repository.trusted().security_floor(&editor), Some(Version::new(1, 2, 0)));
}

#[test]
fn a_request_never_asks_for_more_than_the_limit() {
    let huge = FileMeta { length: Some(u64::MAX), ..FileMeta::of(1, b"") };
    assert_eq!(RoleRequest::new(role("targets"), &huge, MAX_TARGETS_BYTES).max_length, MAX_TARGETS_BYTES);
    let small = FileMeta { length: Some(5), ..FileMeta::of(1, b"") };
    assert_eq!(RoleRequest::new(role("targets"), &small, MAX_TARGETS_BYTES).max_length, 5);
}

#[test]
fn replacing_a_delegation_keeps_its_priority() {
    let delegations = Delegations::default()
        .with_role(any("a"), 1, &[public(20)])
        .with_role(any("b"), 1, &[public(21)])
        .with_role(any("a").terminating(), 1, &[public(RELEASES)]);
    let order: Vec<&str> = delegations.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(order, ["a", "b"]);
    assert_eq!(delegations.keys.len(), 2);
}
