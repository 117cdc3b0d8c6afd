//! What a draft changes, in words. Nothing that differs may go unmentioned: what has no words of its
//! own is reported as such, so that nobody signs what he was not shown.

use std::fmt;

use semver::Version;

use crate::key::{KeyId, PublicKey};
use crate::names::Product;
use crate::time::UtcTime;

use super::super::delegation::{DelegatedRole, Delegations};
use super::super::part::RoleName;
use super::super::role::{Root, RootRoles, Targets, TopRole};

/// One thing that a ceremony changes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum CeremonyChange {
    /// The role is signed anew, as this version, until then.
    Renewed {
        /// The role.
        role: RoleName,
        /// The new version.
        version: u64,
        /// When the signed version expires; none where there is none.
        expired_at: Option<UtcTime>,
        /// When the new one will.
        expires_at: UtcTime,
    },
    /// A key may sign the role from now on.
    KeyAdded {
        /// The role.
        role: RoleName,
        /// The key.
        key_id: KeyId,
        /// Its scheme.
        scheme: String,
    },
    /// A key may no longer sign the role.
    KeyRemoved {
        /// The role.
        role: RoleName,
        /// The key.
        key_id: KeyId,
    },
    /// The role needs another number of signatures.
    Threshold {
        /// The role.
        role: RoleName,
        /// Signatures before.
        from: u64,
        /// Signatures from now on.
        to: u64,
    },
    /// A new role may speak.
    Delegated {
        /// The role.
        role: RoleName,
        /// About which target paths.
        paths: Vec<String>,
    },
    /// A role may no longer speak: what it said disappears.
    Undelegated {
        /// The role.
        role: RoleName,
    },
    /// A role may speak about other paths, in another order, or ends the search.
    DelegationAltered {
        /// The role.
        role: RoleName,
        /// About which target paths from now on.
        paths: Vec<String>,
    },
    /// The lowest version that may be installed.
    SecurityFloor {
        /// Of which product.
        product: Product,
        /// Before.
        from: Option<String>,
        /// From now on.
        to: Option<String>,
    },
    /// A target appears.
    TargetAdded {
        /// Whose.
        role: RoleName,
        /// Its path.
        path: String,
    },
    /// A target disappears.
    TargetRemoved {
        /// Whose.
        role: RoleName,
        /// Its path.
        path: String,
    },
    /// A target is another.
    TargetAltered {
        /// Whose.
        role: RoleName,
        /// Its path.
        path: String,
    },
    /// Something else differs, that this version has no words for.
    Other {
        /// The role.
        role: RoleName,
        /// Where.
        what: String,
    },
}

impl fmt::Display for CeremonyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renewed { role, version, expires_at, expired_at } => {
                write!(f, "{role} becomes version {version}, valid until {expires_at}")?;
                expired_at.map_or(Ok(()), |before| write!(f, " (was {before})"))
            }
            Self::KeyAdded { role, key_id, scheme } => write!(f, "{role}: the {scheme} key {key_id} may sign"),
            Self::KeyRemoved { role, key_id } => write!(f, "{role}: the key {key_id} may no longer sign"),
            Self::Threshold { role, from, to } => write!(f, "{role}: {to} signature(s) are needed instead of {from}"),
            Self::Delegated { role, paths } => write!(f, "{role} is new and may speak about {}", Shown(paths)),
            Self::Undelegated { role } => write!(f, "{role} may no longer speak: everything it signed disappears"),
            Self::DelegationAltered { role, paths } => {
                write!(f, "{role} may speak in another place or about other paths: {}", Shown(paths))
            }
            Self::SecurityFloor { product, from, to } => {
                let text = |floor: &Option<String>| floor.clone().unwrap_or_else(|| "none".to_owned());
                write!(
                    f,
                    "{product}: the lowest version that may be installed is {} instead of {}",
                    text(to),
                    text(from)
                )
            }
            Self::TargetAdded { role, path } => write!(f, "{role}: {} appears", path.escape_debug()),
            Self::TargetRemoved { role, path } => write!(f, "{role}: {} disappears", path.escape_debug()),
            Self::TargetAltered { role, path } => write!(f, "{role}: {} CHANGES", path.escape_debug()),
            Self::Other { role, what } => {
                write!(f, "{role}: {what} differs, in a way that this version cannot explain")
            }
        }
    }
}

struct Shown<'a>(&'a [String]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(|path| path.escape_debug().to_string()).collect();
        f.write_str(&shown.join(", "))
    }
}

/// A role's keys as one table says.
type Listed<'a> = Vec<(&'a KeyId, Option<&'a PublicKey>)>;

fn keys_and_threshold(
    role: &RoleName,
    (old, from): (&Listed<'_>, u64),
    (new, to): (&Listed<'_>, u64),
    found: &mut Vec<CeremonyChange>,
) {
    for (key_id, key) in new.iter().filter(|entry| !old.contains(entry)) {
        let scheme = key.map_or("unknown", |key| key.scheme().as_str()).to_owned();
        found.push(CeremonyChange::KeyAdded { role: role.clone(), key_id: (*key_id).clone(), scheme });
    }
    for (key_id, _) in old.iter().filter(|entry| !new.contains(entry)) {
        found.push(CeremonyChange::KeyRemoved { role: role.clone(), key_id: (*key_id).clone() });
    }
    if from != to {
        found.push(CeremonyChange::Threshold { role: role.clone(), from, to });
    }
}

pub(super) fn of_root(old: &Root, new: &Root, found: &mut Vec<CeremonyChange>) {
    found.push(CeremonyChange::Renewed {
        role: RoleName::root(),
        version: new.version,
        expired_at: Some(old.expires),
        expires_at: new.expires,
    });
    for top in [TopRole::Root, TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp] {
        let (a, b) = (old.role(top), new.role(top));
        let before: Listed<'_> = a.keyids.iter().map(|keyid| (keyid, old.keys.get(keyid))).collect();
        let after: Listed<'_> = b.keyids.iter().map(|keyid| (keyid, new.keys.get(keyid))).collect();
        keys_and_threshold(&top.name(), (&before, a.threshold), (&after, b.threshold), found);
    }
    let mut other = |differs: bool, what: &str| {
        if differs {
            found.push(CeremonyChange::Other { role: RoleName::root(), what: what.to_owned() });
        }
    };
    other(old.consistent_snapshot != new.consistent_snapshot, "consistent_snapshot");
    other(old.other != new.other, "an unknown field");
    let roles = |roles: &RootRoles| {
        let of = [&roles.root, &roles.timestamp, &roles.snapshot, &roles.targets];
        (of.map(|role| role.other.clone()), roles.other.clone())
    };
    other(roles(&old.roles) != roles(&new.roles), "an unknown field of a role");
    let listed = |root: &Root, keyid: &KeyId| {
        [TopRole::Root, TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp]
            .iter()
            .any(|top| root.role(*top).keyids.contains(keyid))
    };
    let idle = |root: &Root| -> Vec<(KeyId, PublicKey)> {
        let idle = root.keys.iter().filter(|(keyid, _)| !listed(root, keyid));
        idle.map(|(keyid, key)| (keyid.clone(), key.clone())).collect()
    };
    other(idle(old) != idle(new), "a key that no role uses");
}

pub(super) fn of_targets(role: &RoleName, old: Option<&Targets>, new: &Targets, found: &mut Vec<CeremonyChange>) {
    let nothing = Targets::new(1, new.expires);
    found.push(CeremonyChange::Renewed {
        role: role.clone(),
        version: new.version,
        expired_at: old.map(|old| old.expires),
        expires_at: new.expires,
    });
    let old = old.unwrap_or(&nothing);
    for (path, target) in &new.targets {
        match old.targets.get(path) {
            None => found.push(CeremonyChange::TargetAdded { role: role.clone(), path: path.clone() }),
            Some(before) if before != target => {
                found.push(CeremonyChange::TargetAltered { role: role.clone(), path: path.clone() });
            }
            Some(_) => {}
        }
    }
    let gone = old.targets.keys().filter(|path| !new.targets.contains_key(*path));
    found.extend(gone.map(|path| CeremonyChange::TargetRemoved { role: role.clone(), path: path.clone() }));
    floors(old, new, found);
    let empty = Delegations::default();
    delegations(role, old.delegations.as_ref().unwrap_or(&empty), new.delegations.as_ref().unwrap_or(&empty), found);
    if old.other != new.other {
        found.push(CeremonyChange::Other { role: role.clone(), what: "an unknown field".to_owned() });
    }
}

fn floors(old: &Targets, new: &Targets, found: &mut Vec<CeremonyChange>) {
    let mut products: Vec<&Product> = old.security_floor.keys().chain(new.security_floor.keys()).collect();
    products.sort();
    products.dedup();
    for product in products {
        let floor = |targets: &Targets| targets.security_floor.get(product).map(Version::to_string);
        let (from, to) = (floor(old), floor(new));
        if from != to {
            found.push(CeremonyChange::SecurityFloor { product: product.clone(), from, to });
        }
    }
}

fn delegations(by: &RoleName, old: &Delegations, new: &Delegations, found: &mut Vec<CeremonyChange>) {
    fn listed<'a>(table: &'a Delegations, role: &'a DelegatedRole) -> Listed<'a> {
        role.keyids.iter().map(|keyid| (keyid, table.keys.get(keyid))).collect()
    }
    let paths = |role: &DelegatedRole| {
        let prefixes = role.path_hash_prefixes.iter().flatten().map(|prefix| format!("hashes {prefix}..."));
        role.paths.iter().flatten().cloned().chain(prefixes).collect::<Vec<String>>()
    };
    for role in &new.roles {
        let name = role.name.clone();
        let after = listed(new, role);
        let Some(before) = old.role(&role.name) else {
            found.push(CeremonyChange::Delegated { role: name.clone(), paths: paths(role) });
            keys_and_threshold(&name, (&Vec::new(), 1), (&after, role.threshold), found);
            continue;
        };
        keys_and_threshold(&name, (&listed(old, before), before.threshold), (&after, role.threshold), found);
        let rest = |role: &DelegatedRole| DelegatedRole { keyids: Vec::new(), threshold: 1, ..role.clone() };
        if rest(before) != rest(role) {
            found.push(CeremonyChange::DelegationAltered { role: name, paths: paths(role) });
        }
    }
    let gone = old.roles.iter().filter(|role| new.role(&role.name).is_none());
    found.extend(gone.map(|role| CeremonyChange::Undelegated { role: role.name.clone() }));
    let order = |table: &Delegations, other: &Delegations| -> Vec<RoleName> {
        table.roles.iter().map(|role| role.name.clone()).filter(|name| other.role(name).is_some()).collect()
    };
    let mut other = |differs: bool, what: &str| {
        if differs {
            found.push(CeremonyChange::Other { role: by.clone(), what: what.to_owned() });
        }
    };
    other(order(old, new) != order(new, old), "the order of the delegations");
    other(old.other != new.other, "an unknown field of the delegations");
    let idle = |table: &Delegations| -> Vec<(KeyId, PublicKey)> {
        let listed = |keyid: &KeyId| table.roles.iter().any(|role| role.keyids.contains(keyid));
        table.keys.iter().filter(|(keyid, _)| !listed(keyid)).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    other(idle(old) != idle(new), "a key that no delegation uses");
}
