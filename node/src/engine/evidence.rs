//! Proof against the repository's own keys: kept, acted on, handed on, and dropped once the key is
//! replaced.
//!
//! One piece a role is enough: it says that the role's key is in wrong hands (or that a seed was
//! restored from a backup and signed anew), and a second would say the same. What a role's evidence
//! puts in doubt is everything for the roles that all releases hang on, one product for the role of
//! its publisher.

use std::collections::{BTreeMap, BTreeSet};

use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Contradiction, Evidence, EvidenceError};
use updraft_protocol::limits::MAX_EVIDENCE;
use updraft_protocol::names::Product;
use updraft_protocol::tuf::{RoleName, Trusted};

use super::effect::Save;

/// Ids of useless evidence that are remembered, so that nobody makes this node fetch it for ever.
const MAX_USELESS: usize = 64;

#[derive(Debug, Clone)]
struct Held {
    id: Digest,
    /// `None` where it is too large to be handed on.
    bytes: Option<Vec<u8>>,
    contradiction: Contradiction,
}

/// All evidence that holds under the metadata in force.
#[derive(Debug, Default)]
pub(super) struct EvidenceBook {
    held: BTreeMap<RoleName, Held>,
    useless: BTreeSet<Digest>,
}

/// What became of a piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It holds, and nothing was known against that role.
    New(Contradiction),
    /// Something is known against that role already.
    Known,
    /// It proves nothing here.
    Useless(EvidenceError),
}

fn file_name(role: &RoleName) -> String {
    format!("evidence.{}.bin", role.file_stem())
}

/// The roles that evidence may be about.
fn roles(trusted: &Trusted) -> BTreeSet<RoleName> {
    [RoleName::timestamp(), RoleName::snapshot()].into_iter().chain(trusted.loaded_roles().cloned()).collect()
}

impl EvidenceBook {
    /// Evidence that was kept, as far as it still holds.
    pub(super) fn restore(&mut self, trusted: &Trusted, read: &dyn Fn(&str) -> Option<Vec<u8>>) {
        for role in roles(trusted) {
            let kept = read(&file_name(&role)).and_then(|bytes| Evidence::decode(&bytes).ok());
            if let Some(evidence) = kept {
                self.take(&evidence, trusted);
            }
        }
    }

    /// Takes evidence from wherever it came.
    pub(super) fn take(&mut self, evidence: &Evidence, trusted: &Trusted) -> Taken {
        if self.held.contains_key(&evidence.role) {
            return Taken::Known;
        }
        let id = evidence.id();
        match evidence.verify(trusted) {
            Ok(contradiction) => {
                let bytes = evidence.fits().then(|| evidence.encode());
                let held = Held { id, bytes, contradiction: contradiction.clone() };
                self.held.insert(evidence.role.clone(), held);
                Taken::New(contradiction)
            }
            Err(error) => {
                if self.useless.len() < MAX_USELESS {
                    self.useless.insert(id);
                }
                Taken::Useless(error)
            }
        }
    }

    /// Drops what no longer holds, because the role's key was replaced. Returns the roles cleared.
    pub(super) fn settle(&mut self, trusted: &Trusted) -> Vec<RoleName> {
        // Under another root, what was useless may hold.
        self.useless.clear();
        let lapsed = |held: &Held| {
            // What is too large to keep as bytes is dropped with the first new set; the fork that it
            // showed is found again at the next honest peer.
            let evidence = held.bytes.as_ref().and_then(|bytes| Evidence::decode(bytes).ok());
            evidence.is_none_or(|evidence| evidence.verify(trusted).is_err())
        };
        let cleared: Vec<RoleName> =
            self.held.iter().filter(|(_, held)| lapsed(held)).map(|(role, _)| role.clone()).collect();
        for role in &cleared {
            self.held.remove(role);
        }
        cleared
    }

    /// What to write so that the evidence about `role`, or that there is none any more, is remembered.
    pub(super) fn save(&self, role: &RoleName) -> Save {
        let bytes = self.held.get(role).and_then(|held| held.bytes.clone()).unwrap_or_default();
        Save::Metadata { name: file_name(role), bytes }
    }

    /// The ids of all that can be handed on.
    pub(super) fn ids(&self) -> Vec<Digest> {
        let shareable = self.held.values().filter(|held| held.bytes.is_some());
        shareable.map(|held| held.id).take(MAX_EVIDENCE).collect()
    }

    /// The bytes of a piece of evidence.
    pub(super) fn bytes(&self, id: &Digest) -> Option<&Vec<u8>> {
        self.held.values().find(|held| held.id == *id)?.bytes.as_ref()
    }

    /// Whether there is any use in fetching this piece.
    pub(super) fn wants(&self, id: &Digest) -> bool {
        !self.useless.contains(id) && self.held.values().all(|held| held.id != *id)
    }

    /// What is known, by role.
    pub(super) fn contradictions(&self) -> Vec<Contradiction> {
        self.held.values().map(|held| held.contradiction.clone()).collect()
    }
}

/// What people are told.
pub fn alarm(contradiction: &Contradiction) -> String {
    let role = &contradiction.role;
    format!(
        "{contradiction}: the {role} key is stolen, or a seed was restored from a backup and signed anew; nothing is installed until the {role} key is replaced"
    )
}

/// Whether what is known against a role puts releases of `product` in doubt.
pub(super) fn concerns(contradiction: &Contradiction, product: &Product) -> bool {
    let publishers = contradiction.role.as_str().starts_with("releases-");
    !publishers || contradiction.role == RoleName::releases(product)
}
