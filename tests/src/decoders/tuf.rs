//! The four roles of signed metadata, past the signature check: the input is a signed part, which the
//! body signs with the right keys and offers to a node as the next file of its role.

use updraft::engine::catalog::CatalogView;
use updraft_protocol::digest::Digest;
use updraft_protocol::tuf::{
    Change, Expiry, FileMeta, Resolution, RoleName, Root, Snapshot, Targets, Timestamp, TopRole, Trusted, TufError,
    sign_role,
};

use super::repository::{
    CHANNELS, RELEASES, ROOT, SNAPSHOT, STRANGER, TARGETS, TIMESTAMP, enforce, fixture, is_signed_by, key, now, role,
    sealed, version_in,
};

/// What a node trusts, as far as a step may change it.
fn state(node: &Trusted) -> Vec<(RoleName, Digest)> {
    let mut all = vec![(RoleName::root(), node.root().signed_digest())];
    all.extend(node.timestamp().map(|timestamp| (RoleName::timestamp(), Digest::of(timestamp.bytes()))));
    all.extend(node.snapshot().map(|snapshot| (RoleName::snapshot(), Digest::of(snapshot.bytes()))));
    all.extend(
        node.loaded_roles()
            .filter_map(|name| node.role(name).map(|targets| (name.clone(), Digest::of(targets.bytes())))),
    );
    all
}

/// A step that refuses leaves all as it was.
fn step<T>(node: &mut Trusted, step: impl FnOnce(&mut Trusted) -> Result<T, TufError>) -> Option<T> {
    let before = state(node);
    let result = step(node);
    if result.is_err() {
        assert_eq!(state(node), before, "a refusal changed what is trusted");
    }
    result.ok()
}

/// A root is taken only as version 2, signed by the keys before and its own; what is still trusted
/// then is signed by keys that it names.
pub fn root(part: &[u8]) -> bool {
    let fixture = fixture();
    let name = RoleName::root();
    let mut node = fixture.node.clone();
    assert!(step(&mut node, |node| node.update_root(part)).is_none(), "a root without signatures");
    let Some(forged) = sealed::<Root>(&name, part, &[STRANGER]) else { return false };
    assert!(step(&mut node, |node| node.update_root(&forged)).is_none(), "a root by a stranger");

    let file = sealed::<Root>(&name, part, &[ROOT, STRANGER]).expect("it was sealed before");
    if let Ok(alone) = Trusted::from_trusted_root(&file) {
        assert!(is_signed_by(&file, ROOT) || is_signed_by(&file, STRANGER));
        assert_eq!(alone.root().bytes(), file);
    }
    if step(&mut node, |node| node.update_root(&file)).is_none() {
        return false;
    }
    let taken = node.root().clone();
    assert_eq!(taken.version, 2);
    assert!(
        [TopRole::Root, TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets]
            .into_iter()
            .all(|role| taken.role(role).threshold > 0)
    );
    let again = sign_role(&*taken, &[key(ROOT), key(STRANGER)]);
    let again = Trusted::from_trusted_root(&again).expect("what was read can be signed");
    assert_eq!(**again.root(), *taken, "a root that does not survive its encoding");

    if let Some(timestamp) = node.timestamp().cloned() {
        let kept = node.clone().update_timestamp(timestamp.bytes(), Expiry::Deferred);
        assert!(matches!(kept, Ok(Change::Same)), "a timestamp that the new root does not vouch for");
    }
    for loaded in node.loaded_roles() {
        assert!(
            node.timestamp().is_none()
                || node.snapshot().is_none()
                || node.snapshot().is_some_and(|s| s.role(loaded).is_some())
        );
    }
    read_everything(&node);
    // The keys that the new root names may have signed the same files again.
    let mut next = node.clone();
    let timestamp = sealed_again::<Timestamp>(&fixture.timestamp, &[TIMESTAMP, ROOT, STRANGER]);
    if step(&mut next, |next| next.update_timestamp(&timestamp, enforce())).is_some() {
        let expires = next.root().expires;
        assert!(expires > now(), "an expired root let a timestamp through");
    }
    true
}

fn sealed_again<T: updraft_protocol::tuf::Role>(metadata: &T, seeds: &[u8]) -> Vec<u8> {
    sign_role(metadata, &seeds.iter().map(|seed| key(*seed)).collect::<Vec<_>>())
}

/// A timestamp is taken only if it is signed, current, and goes back neither itself nor in the
/// snapshot that it names.
pub fn timestamp(part: &[u8]) -> bool {
    let fixture = fixture();
    let name = RoleName::timestamp();
    let mut node = fixture.node.clone();
    assert!(step(&mut node, |node| node.update_timestamp(part, enforce())).is_none(), "without signatures");
    let Some(forged) = sealed::<Timestamp>(&name, part, &[STRANGER, SNAPSHOT]) else { return false };
    assert!(step(&mut node, |node| node.update_timestamp(&forged, enforce())).is_none(), "by others' keys");

    let file = sealed::<Timestamp>(&name, part, &[TIMESTAMP]).expect("it was sealed before");
    let change = step(&mut node, |node| node.update_timestamp(&file, enforce()));
    match change {
        Some(Change::New) => {
            let taken = node.timestamp().expect("just taken");
            assert_eq!(taken.bytes(), file);
            assert!(taken.version > fixture.timestamp.version);
            assert!(taken.snapshot.version >= fixture.timestamp.snapshot.version);
            assert!(taken.expires > now());
            let again = sign_role(&**taken, &[key(TIMESTAMP)]);
            let mut other = fixture.new_node.clone();
            let _ = other.update_timestamp(&again, enforce()).expect("what was read can be signed");
            assert_eq!(other.timestamp().map(|t| (**t).clone()), Some((**taken).clone()));
        }
        Some(Change::Same) => assert_eq!(version_in(part), fixture.timestamp.version),
        None => {}
    }
    read_everything(&node);
    // A node's own file at its start, where expiry is not looked at.
    let mut starting = fixture.new_node.clone();
    let _ = step(&mut starting, |node| node.update_timestamp(&file, Expiry::Deferred));
    change == Some(Change::New)
}

/// A snapshot is taken only if the timestamp names exactly it, and takes nothing back that the one
/// before listed.
pub fn snapshot(part: &[u8]) -> bool {
    let fixture = fixture();
    let name = RoleName::snapshot();
    let Some(file) = sealed::<Snapshot>(&name, part, &[SNAPSHOT]) else { return false };
    let version = version_in(part);
    let timestamp = updraft_protocol::tuf::Timestamp {
        version: fixture.timestamp.version + 1,
        snapshot: FileMeta::of(version, &file),
        ..fixture.timestamp.clone()
    };
    let timestamp = sign_role(&timestamp, &[key(TIMESTAMP)]);
    let mut accepted = Vec::new();
    for start in [&fixture.node, &fixture.new_node] {
        let mut node = start.clone();
        if step(&mut node, |node| node.update_timestamp(&timestamp, enforce())).is_none() {
            assert!(version < fixture.snapshot.version, "a timestamp of ours");
            accepted.push(false);
            continue;
        }
        let altered = [&file[..], b" "].concat();
        assert!(step(&mut node, |node| node.update_snapshot(&altered, enforce())).is_none(), "not the one named");
        let change = step(&mut node, |node| node.update_snapshot(&file, enforce()));
        accepted.push(change.is_some());
        if change.is_none() {
            continue;
        }
        let taken = node.snapshot().expect("just taken");
        assert_eq!(taken.version, version);
        assert!(taken.expires > now());
        if let Some(before) = start.snapshot() {
            for (listed, meta) in &before.meta {
                assert!(taken.meta.get(listed).is_some_and(|new| new.version >= meta.version), "{listed} went back");
            }
        }
        let again = sign_role(&**taken, &[key(SNAPSHOT)]);
        let mut starting = fixture.new_node.clone();
        let _ = starting.update_timestamp(&timestamp, enforce()).expect("a good timestamp");
        let _ = starting.update_snapshot(&again, Expiry::Deferred).expect("what was read can be signed");
        assert_eq!(starting.snapshot().map(|s| (**s).clone()), Some((**taken).clone()));
        load_known_roles(&mut node);
        read_everything(&node);
    }
    assert!(!accepted[0] || accepted[1], "a node that knows more took what a new one refused");
    if !accepted[1] {
        return false;
    }
    // What others signed is refused however it is named.
    let forged = sealed::<Snapshot>(&name, part, &[TIMESTAMP, STRANGER]).expect("it was sealed before");
    let mut node = fixture.new_node.clone();
    let named = Timestamp::new(1, now().plus_days(1), FileMeta::of(version, &forged));
    if step(&mut node, |node| node.update_timestamp(&sign_role(&named, &[key(TIMESTAMP)]), enforce())).is_some() {
        assert!(step(&mut node, |node| node.update_snapshot(&forged, enforce())).is_none(), "by others' keys");
    }
    accepted[0]
}

/// Targets metadata, as the top-level role and as a delegated one: what it says is found only where
/// its delegators let it speak.
pub fn targets(part: &[u8]) -> bool {
    let fixture = fixture();
    let top = RoleName::targets();
    let version = version_in(part);
    let Some(file) = sealed::<Targets>(&top, part, &[TARGETS]) else { return false };
    if version == 0 {
        return false;
    }
    let mut roles = vec![(top.clone(), version, &file[..])];
    let known = super::repository::ROLE_VERSION;
    roles.extend(fixture.delegated.iter().map(|(name, bytes)| (name.clone(), known, &bytes[..])));
    let mut node = fixture.node_with(&roles);
    let accepted = step(&mut node, |node| node.update_targets(&top, &file, enforce())).is_some();
    if accepted {
        let taken = node.role(&top).expect("just taken").clone();
        assert_eq!(taken.version, version);
        assert!(taken.expires > now());
        let again = sign_role(&*taken, &[key(TARGETS)]);
        let mut other = fixture.node_with(&[(top.clone(), version, &again)]);
        let _ = other.update_targets(&top, &again, enforce()).expect("what was read can be signed");
        assert_eq!(other.role(&top).map(|t| (**t).clone()), Some((*taken).clone()));
        load_known_roles(&mut node);
        read_everything(&node);
    }

    if accepted {
        let forged = sealed::<Targets>(&top, part, &[CHANNELS, STRANGER]).expect("it was sealed before");
        let mut node = fixture.node_with(&[(top.clone(), version, &forged)]);
        assert!(step(&mut node, |node| node.update_targets(&top, &forged, enforce())).is_none(), "by others' keys");
    }

    let name = role("releases-editor");
    let file = sealed::<Targets>(&name, part, &[RELEASES]).expect("it was sealed before");
    let targets = &fixture.targets_file;
    let mut node = fixture.node_with(&[(top.clone(), known, targets), (name.clone(), version, &file)]);
    assert!(step(&mut node, |node| node.update_targets(&name, &file, enforce())).is_none(), "before its delegator");
    let _ = node.update_targets(&top, targets, enforce()).expect("good targets");
    if step(&mut node, |node| node.update_targets(&name, &file, enforce())).is_some() {
        read_everything(&node);
    }
    accepted
}

/// Loads what is missing, as far as the fixture has it.
fn load_known_roles(node: &mut Trusted) {
    let fixture = fixture();
    for _ in 0..4 {
        for request in node.missing_roles() {
            let bytes = if request.role == RoleName::targets() {
                Some(&fixture.targets_file)
            } else {
                fixture.delegated.get(&request.role)
            };
            if let Some(bytes) = bytes {
                let _ = step(node, |node| node.update_targets(&request.role, bytes, enforce()));
            }
        }
    }
}

/// Asks a node everything that it can be asked about what it trusts.
fn read_everything(node: &Trusted) {
    let _ = (node.missing_snapshot(), node.missing_roles(), node.is_complete(), node.freshness(now()));
    for (path, info, by) in node.all_targets() {
        match node.resolve(path) {
            Resolution::Found { role, target } => assert_eq!((&role, &target), (&by, info)),
            other => panic!("a listed target resolves to {other:?}"),
        }
        let delegated = node
            .loaded_roles()
            .filter_map(|name| node.role(name)?.delegations.as_ref()?.role(&by))
            .any(|delegation| delegation.covers(path));
        assert!(by == RoleName::targets() || delegated, "{by} speaks about {path}, which nobody gave to it");
    }
    for path in [super::repository::CHANNEL_PATH, super::repository::RELEASE_PATH, "top.txt", ""] {
        let _ = node.resolve(path);
    }
    for name in node.loaded_roles() {
        let _ = node.role_freshness(name, now());
    }
    let view = CatalogView::new(node, &std::collections::BTreeMap::new());
    assert!(view.releases.iter().all(|release| release.check_limits().is_ok()));
}
