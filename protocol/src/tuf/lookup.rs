//! Questions to what is trusted: which target a path names, what is missing, how fresh it is.
//!
//! A path is looked up as TUF 5.6.7 says: preorder, depth first, delegations in their order, each
//! role once, ended by a terminating delegation. Nothing here changes the state.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use semver::Version;

use crate::digest::Digest;
use crate::limits::{MAX_DELEGATIONS_VISITED, MAX_SNAPSHOT_BYTES, MAX_TARGET_PATH_BYTES, MAX_TARGETS_BYTES};
use crate::names::Product;
use crate::time::UtcTime;

use super::part::{FileMeta, RoleName, TargetInfo};
use super::trusted::Trusted;

/// One role file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRequest {
    /// The role.
    pub role: RoleName,
    /// The version that the snapshot (for the snapshot: the timestamp) lists.
    pub version: u64,
    /// Bytes to read at most.
    pub max_length: u64,
    /// The SHA-256 of the file, where it is stated.
    pub sha256: Option<Digest>,
}

impl RoleRequest {
    fn new(role: RoleName, meta: &FileMeta, limit: u64) -> Self {
        Self { role, version: meta.version, max_length: meta.max_length(limit), sha256: meta.sha256() }
    }
}

/// Where a target path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// To this target.
    Found {
        /// The role that says so.
        role: RoleName,
        /// What it says.
        target: TargetInfo,
    },
    /// Nobody can say before this role is loaded.
    Needs(RoleRequest),
    /// Nowhere.
    NotFound,
}

/// Whether what is trusted may still be acted upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// Until this time, at which the first of root, timestamp, snapshot and targets expires.
    Fresh {
        /// The first time at which it no longer is.
        until: UtcTime,
    },
    /// A top-level role has expired.
    Expired {
        /// The role that expired first.
        role: RoleName,
        /// When.
        since: UtcTime,
    },
    /// A top-level role is not loaded, or the snapshot is not the one that the timestamp names: a
    /// newer state exists that somebody may be withholding.
    Incomplete {
        /// The role to load.
        missing: RoleName,
    },
}

impl Trusted {
    /// The snapshot to fetch: `Some` while a timestamp is trusted and the snapshot it names is not
    /// loaded.
    pub fn missing_snapshot(&self) -> Option<RoleRequest> {
        let meta = &self.timestamp.as_ref()?.snapshot;
        let role = RoleName::snapshot();
        let current = self
            .snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.version == meta.version && meta.check(&role, snapshot.bytes()).is_ok());
        (!current).then(|| RoleRequest::new(role, meta, MAX_SNAPSHOT_BYTES))
    }

    /// Every targets role to fetch, parents first: those that the snapshot lists, that a loaded role
    /// delegates to and that are not loaded themselves. More may appear as these are loaded; empty
    /// after [`Trusted::missing_snapshot`] is `None` means complete.
    pub fn missing_roles(&self) -> Vec<RoleRequest> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        let mut missing = Vec::new();
        let mut seen = BTreeSet::from([RoleName::targets()]);
        let mut queue = VecDeque::from([RoleName::targets()]);
        while let Some(role) = queue.pop_front() {
            let Some(loaded) = self.roles.get(&role) else {
                if let Some(meta) = snapshot.role(&role) {
                    missing.push(RoleRequest::new(role, meta, MAX_TARGETS_BYTES));
                }
                continue;
            };
            for child in loaded.metadata.delegations.iter().flat_map(|delegations| &delegations.roles) {
                if seen.insert(child.name.clone()) {
                    queue.push_back(child.name.clone());
                }
            }
        }
        missing
    }

    /// Whether everything that the timestamp and the snapshot name is loaded.
    pub fn is_complete(&self) -> bool {
        self.timestamp.is_some()
            && self.missing_snapshot().is_none()
            && self.roles.contains_key(&RoleName::targets())
            && self.missing_roles().is_empty()
    }

    /// Looks up a target path in preorder (TUF 5.6.7).
    ///
    /// A role on the way that the snapshot does not list, or that is not signed as its delegator
    /// asks, ends the search: what it would have said is unknown, and nobody below may speak for it.
    pub fn resolve(&self, path: &str) -> Resolution {
        match self.find(path) {
            Lookup::Found(role, target) => Resolution::Found { role: role.clone(), target: target.clone() },
            Lookup::Needs(request) => Resolution::Needs(request),
            Lookup::NotFound => Resolution::NotFound,
        }
    }

    fn find(&self, path: &str) -> Lookup<'_> {
        let Some(snapshot) = &self.snapshot else {
            return Lookup::NotFound;
        };
        if path.len() > MAX_TARGET_PATH_BYTES {
            return Lookup::NotFound;
        }
        let (root, targets) = (RoleName::root(), RoleName::targets());
        let mut visited: BTreeSet<&RoleName> = BTreeSet::new();
        let mut stack: Vec<(&RoleName, &RoleName)> = vec![(&root, &targets)];
        while let Some((delegator, role)) = stack.pop() {
            if visited.contains(role) {
                continue;
            }
            if visited.len() >= MAX_DELEGATIONS_VISITED {
                return Lookup::NotFound;
            }
            let Some(meta) = snapshot.role(role) else {
                return Lookup::NotFound;
            };
            let Some((name, loaded)) = self.roles.get_key_value(role) else {
                return Lookup::Needs(RoleRequest::new(role.clone(), meta, MAX_TARGETS_BYTES));
            };
            if !loaded.vouchers.contains_key(delegator) {
                return Lookup::NotFound;
            }
            if let Some(target) = loaded.metadata.targets.get(path) {
                return Lookup::Found(name, target);
            }
            visited.insert(name);
            let mut below = Vec::new();
            for child in loaded.metadata.delegations.iter().flat_map(|delegations| &delegations.roles) {
                if child.covers(path) {
                    below.push((name, &child.name));
                    if child.terminating {
                        stack.clear();
                        break;
                    }
                }
            }
            stack.extend(below.into_iter().rev());
        }
        Lookup::NotFound
    }

    /// Every target of the loaded roles that [`Trusted::resolve`] finds by its path: inside its
    /// role's delegation and not shadowed by a role before it. Ordered by role, then path.
    pub fn all_targets(&self) -> Vec<(&str, &TargetInfo, RoleName)> {
        self.targets_below("")
    }

    /// [`Trusted::all_targets`], of them those whose path begins with `prefix`. Only these are looked up.
    pub fn targets_below(&self, prefix: &str) -> Vec<(&str, &TargetInfo, RoleName)> {
        let mut all = Vec::new();
        for (role, loaded) in self.roles.iter() {
            let from = loaded.metadata.targets.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            for path in from.map(|(path, _)| path).take_while(|path| path.starts_with(prefix)) {
                if let Lookup::Found(by, target) = self.find(path)
                    && by == role
                {
                    all.push((path.as_str(), target, role.clone()));
                }
            }
        }
        all
    }

    /// The targets roles that are loaded, the top-level one among them.
    pub fn loaded_roles(&self) -> impl Iterator<Item = &RoleName> {
        self.roles.keys()
    }

    /// Whether what is trusted may be acted upon at `now`. Judges the four top-level roles; see
    /// [`Trusted::role_freshness`] for a delegated one.
    pub fn freshness(&self, now: UtcTime) -> Freshness {
        let missing = |missing| Freshness::Incomplete { missing };
        let Some(timestamp) = &self.timestamp else {
            return missing(RoleName::timestamp());
        };
        let current = self.snapshot.as_ref().filter(|_| self.missing_snapshot().is_none());
        let Some(snapshot) = current else {
            return missing(RoleName::snapshot());
        };
        let Some(targets) = self.role(&RoleName::targets()) else {
            return missing(RoleName::targets());
        };
        let first = [
            (timestamp.expires, RoleName::timestamp()),
            (snapshot.expires, RoleName::snapshot()),
            (targets.expires, RoleName::targets()),
        ]
        .into_iter()
        .fold((self.root.expires, RoleName::root()), Ord::min);
        fresh_until(first, now)
    }

    /// The same for `role`: also expired when the role itself, or every chain of delegations to it,
    /// has expired.
    pub fn role_freshness(&self, role: &RoleName, now: UtcTime) -> Freshness {
        let top = self.freshness(now);
        let Freshness::Fresh { until } = top else {
            return top;
        };
        match self.role_expiry(role) {
            None => Freshness::Incomplete { missing: role.clone() },
            Some((own, by)) if own < until => fresh_until((own, by), now),
            Some(_) => top,
        }
    }

    /// The first expiry on the chain of delegations to `role` that lasts longest, and whose it is.
    fn role_expiry(&self, role: &RoleName) -> Option<(UtcTime, RoleName)> {
        // Widest path: settle roles in the order of how long a chain to them lasts.
        let targets = RoleName::targets();
        let mut settled: BTreeSet<RoleName> = BTreeSet::new();
        let mut open = BTreeSet::from([(self.role(&targets)?.expires, targets.clone(), targets)]);
        while let Some((expires, by, name)) = open.pop_last() {
            if name == *role {
                return Some((expires, by));
            }
            if !settled.insert(name.clone()) {
                continue;
            }
            for (child, loaded) in self.roles.iter() {
                if loaded.vouchers.contains_key(&name) {
                    let own = (loaded.metadata.expires, child.clone());
                    let (expires, by) = own.min((expires, by.clone()));
                    open.insert((expires, by, child.clone()));
                }
            }
        }
        None
    }

    /// The lowest version of `product` that may be installed: the top-level targets role's word.
    pub fn security_floor(&self, product: &Product) -> Option<Version> {
        self.role(&RoleName::targets())?.security_floor.get(product).cloned()
    }
}

enum Lookup<'a> {
    Found(&'a RoleName, &'a TargetInfo),
    Needs(RoleRequest),
    NotFound,
}

fn fresh_until((until, role): (UtcTime, RoleName), now: UtcTime) -> Freshness {
    if until <= now { Freshness::Expired { role, since: until } } else { Freshness::Fresh { until } }
}

#[cfg(test)]
mod tests;
