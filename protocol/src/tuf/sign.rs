//! Building signed metadata: the publisher's side.
//!
//! Always writes the canonical envelope, signatures sorted by key id, so that what a seed signs is
//! what a head may carry. It must never sign what it did not encode itself.

use serde_json::Value;

use crate::canonical;
use crate::digest::Digest;
use crate::key::SigningKey;

use super::envelope::{self, Envelope, Signature};
use super::error::TufError;
use super::part::RoleName;
use super::signed_part::Role;

/// Signs `role` with `keys`: the exact bytes of its metadata file.
///
/// A head may carry only envelopes of exactly threshold many signatures: sign timestamp and snapshot
/// with as many keys as the threshold asks for, not with all.
pub fn sign_role<T: Role>(role: &T, keys: &[&SigningKey]) -> Vec<u8> {
    let message = canonical::encode(&Value::Object(role.to_signed()));
    seal(&message, Vec::new(), keys)
}

/// SHA-256 of the canonical signed part of `role`: what `prev_sha256` and a repository id are.
pub fn signed_digest<T: Role>(role: &T) -> Digest {
    Digest::of(&canonical::encode(&Value::Object(role.to_signed())))
}

/// Adds the signatures of `keys` to metadata that others have signed already: a ceremony whose keys
/// are not in one place. Signatures of the same keys are replaced. Nothing is verified.
pub fn cosign<T: Role>(role: &RoleName, bytes: &[u8], keys: &[&SigningKey]) -> Result<Vec<u8>, TufError> {
    let envelope = Envelope::parse(role, bytes, T::MAX_BYTES)?;
    let signatures = envelope.signatures().to_vec();
    Ok(seal(envelope.message(), signatures, keys))
}

fn seal(message: &[u8], mut signatures: Vec<Signature>, keys: &[&SigningKey]) -> Vec<u8> {
    for key in keys {
        let keyid = key.public().id();
        signatures.retain(|known| known.keyid != keyid);
        signatures.push(Signature::new(keyid, &key.sign(message)));
    }
    envelope::encode(&signatures, message)
}
