//! The only place that counts signatures.
//!
//! A signature counts when its key id is listed for the role, the key table has that key, this
//! version can verify with it, and it is valid over the signed part. Each *key* counts once: not
//! each signature, not each key id, not each way of writing one key.

use std::collections::BTreeSet;

use crate::key::{KeyId, PublicKey};

use super::envelope::{self, Envelope, Signature};
use super::error::TufError;
use super::part::Keys;

/// Who may sign a role: some of the keys of one key table, and how many of them must.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'a> {
    /// The key table of the delegator.
    pub(super) keys: &'a Keys,
    /// The key ids that the delegator lists for the role.
    pub(super) keyids: &'a [KeyId],
    /// Signatures needed.
    pub(super) threshold: u64,
}

impl<'a> Authority<'a> {
    /// The keys that may sign, each once, in the order of their key ids.
    pub(super) fn members(&self) -> Vec<(&'a KeyId, &'a PublicKey)> {
        let mut members: Vec<(&KeyId, &PublicKey)> = Vec::new();
        for keyid in self.keyids.iter().collect::<BTreeSet<_>>() {
            if let Some(key) = self.keys.get(keyid)
                && !members.iter().any(|(_, known)| known.is_same_key(key))
            {
                members.push((keyid, key));
            }
        }
        members
    }

    /// Whether every key that may sign under `self` may also sign under `newer`.
    pub(super) fn is_kept_by(&self, newer: &Authority<'_>) -> bool {
        let kept = newer.members();
        self.members().iter().all(|(_, key)| kept.iter().any(|(_, other)| other.is_same_key(key)))
    }
}

/// Checks that the envelope carries valid signatures by at least `threshold` distinct keys.
pub(super) fn check(envelope: &Envelope, authority: &Authority<'_>) -> Result<(), TufError> {
    let mut counted: Vec<&PublicKey> = Vec::new();
    for signature in envelope.signatures() {
        if !authority.keyids.contains(&signature.keyid) {
            continue;
        }
        let Some(key) = authority.keys.get(&signature.keyid) else {
            continue;
        };
        if counted.iter().any(|seen| seen.is_same_key(key)) {
            continue;
        }
        if signature.bytes().is_some_and(|bytes| key.verify(envelope.message(), &bytes)) {
            counted.push(key);
        }
    }
    // A threshold of 0 would let unsigned metadata through; it is refused when a role is parsed, and
    // here again because this is the check that everything rests on.
    let reached = u64::try_from(counted.len()).is_ok_and(|valid| valid >= authority.threshold);
    if authority.threshold >= 1 && reached {
        Ok(())
    } else {
        Err(TufError::Signatures {
            role: envelope.role().clone(),
            valid: counted.len(),
            threshold: authority.threshold,
        })
    }
}

/// Checks that the envelope reaches the threshold with nothing to spare: exactly `threshold` many
/// signatures, every one of them by a distinct key of the role and valid, under the first of the ids
/// that the key has. (Under another id it would be a second encoding of what its signer signed once.)
pub(super) fn check_exact(envelope: &Envelope, authority: &Authority<'_>) -> Result<(), TufError> {
    let members = authority.members();
    let is_member = |signature: &Signature| members.iter().any(|(keyid, _)| **keyid == signature.keyid);
    let found = envelope.signatures().len();
    if u64::try_from(found).is_ok_and(|found| found == authority.threshold)
        && envelope.signatures().iter().all(is_member)
    {
        return check(envelope, authority);
    }
    Err(TufError::Signatures { role: envelope.role().clone(), valid: 0, threshold: authority.threshold })
}

/// Whether every signature of an envelope, valid ones all, is in the one form of its scheme. (An ECDSA
/// signature has two, and anybody can turn one into the other.)
pub(super) fn is_exact(envelope: &Envelope, authority: &Authority<'_>) -> bool {
    envelope.signatures().iter().all(|signature| {
        let key = authority.keys.get(&signature.keyid);
        key.zip(signature.bytes()).is_some_and(|(key, bytes)| key.exact_signature(&bytes) == Some(bytes))
    })
}

/// The canonical envelope with the first `threshold` many of the signatures that count, in the order
/// of their key ids, each in the one form of its scheme. `None` when too few count.
pub(super) fn exact_form(envelope: &Envelope, authority: &Authority<'_>) -> Option<Vec<u8>> {
    let needed = usize::try_from(authority.threshold).ok()?;
    let mut signatures: Vec<Signature> = Vec::new();
    for (keyid, key) in authority.members() {
        let by_this_key = envelope.signatures().iter().filter(|signature| {
            authority.keyids.contains(&signature.keyid)
                && authority.keys.get(&signature.keyid).is_some_and(|other| other.is_same_key(key))
        });
        let found = by_this_key.filter_map(Signature::bytes).find(|bytes| key.verify(envelope.message(), bytes));
        if let Some(exact) = found.and_then(|bytes| key.exact_signature(&bytes))
            && signatures.len() < needed
        {
            signatures.push(Signature::new(keyid.clone(), &exact));
        }
    }
    (signatures.len() == needed).then(|| envelope::encode(&signatures, envelope.message()))
}

#[cfg(test)]
mod tests;
