//! Who may sign a role, for whoever looks for the private keys.
//!
//! A verifier never asks this: it counts signatures, in one place. A signer has to know beforehand
//! which keys to bring and how many of them are enough.

use crate::key::{KeyId, PublicKey};

use super::delegation::Delegations;
use super::part::RoleName;
use super::role::{Root, TopRole};
use super::threshold::Authority;
use super::trusted::Trusted;

/// The keys of one role, each once, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    /// Signatures by distinct keys that are needed.
    pub threshold: u64,
    /// The keys that may sign, in the order of their key ids.
    pub keys: Vec<(KeyId, PublicKey)>,
}

impl Signers {
    fn of(authority: &Authority<'_>) -> Self {
        let keys = authority.members().into_iter().map(|(keyid, key)| (keyid.clone(), key.clone())).collect();
        Self { threshold: authority.threshold, keys }
    }

    /// Whether the key of this id may sign.
    pub fn lists(&self, keyid: &KeyId) -> bool {
        self.keys.iter().any(|(known, _)| known == keyid)
    }
}

impl Root {
    /// Who may sign `role`.
    pub fn signers(&self, role: TopRole) -> Signers {
        Signers::of(&self.authority(role))
    }
}

impl Delegations {
    /// Who may sign `role`; `None` where nothing is delegated to it.
    pub fn signers(&self, role: &RoleName) -> Option<Signers> {
        Some(Signers::of(&self.authority(role)?))
    }
}

impl TopRole {
    /// The role of this name; `None` for delegated ones.
    pub fn of(name: &RoleName) -> Option<Self> {
        [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets].into_iter().find(|role| role.name() == *name)
    }
}

impl Trusted {
    /// Who may sign `role` by the metadata in force; for a delegated role, by the word of the top-level
    /// targets role. `None` where it does not delegate to it.
    pub fn signers(&self, role: &RoleName) -> Option<Signers> {
        match TopRole::of(role) {
            Some(top) => Some(self.root().signers(top)),
            None => self.role(&RoleName::targets())?.delegations.as_ref()?.signers(role),
        }
    }

    /// Every role that has keys: the top-level ones, then those that the top-level targets role
    /// delegates to, in its order.
    pub fn signed_roles(&self) -> Vec<RoleName> {
        let mut roles: Vec<RoleName> =
            [TopRole::Root, TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp].map(TopRole::name).into();
        if let Some(targets) = self.role(&RoleName::targets()) {
            let delegated = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
            roles.extend(delegated.map(|role| role.name.clone()));
        }
        roles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::fixture;

    #[test]
    fn signers_are_those_that_the_metadata_in_force_lists() {
        let root =
            Root::new(1, fixture::later()).with_role(TopRole::Root, 2, &[fixture::public(1), fixture::public(2)]);
        let signers = root.signers(TopRole::Root);
        assert_eq!(signers.threshold, 2);
        assert!(signers.lists(&fixture::public(1).id()) && signers.lists(&fixture::public(2).id()));
        assert!(!signers.lists(&fixture::public(3).id()));
    }

    #[test]
    fn one_key_under_two_ids_is_one_signer() {
        let key = fixture::public(1);
        let mut value = serde_json::to_value(&key).expect("JSON");
        value["owner"] = "ops".into();
        let same: PublicKey = serde_json::from_value(value).expect("a key");
        let root = Root::new(1, fixture::later()).with_role(TopRole::Root, 1, &[key, same]);
        assert_eq!(root.roles.root.keyids.len(), 2);
        assert_eq!(root.signers(TopRole::Root).keys.len(), 1);
    }
}
