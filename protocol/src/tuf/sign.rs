//! Building signed metadata: the publisher's side.
//!
//! Always writes the canonical envelope, signatures sorted by key id, so that what a seed signs is
//! what a head may carry. Where a text has control characters (line ends in notes, keys in PEM) they
//! are escaped in the file, which must be JSON, and not in what is signed, which must be canonical. It must never sign what it did not encode itself.

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

/// The canonical envelope of `signatures` and those of `keys` over `message`.
pub(super) fn seal(message: &[u8], mut signatures: Vec<Signature>, keys: &[&SigningKey]) -> Vec<u8> {
    for key in keys {
        let keyid = key.public().id();
        signatures.retain(|known| known.keyid != keyid);
        signatures.push(Signature::new(keyid, &key.sign(message)));
    }
    canonical::escape_controls(envelope::encode(&signatures, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::parse;
    use crate::time::UtcTime;
    use crate::tuf::{TargetInfo, Targets};

    #[test]
    fn a_text_of_several_lines_is_signed_as_it_is_and_written_as_json() {
        let key = SigningKey::from_seed([7; 32]);
        let mut targets = Targets::new(1, UtcTime::from_unix(2_000_000_000));
        let mut target = TargetInfo::of(b"x");
        target.custom = Some(serde_json::json!({"notes": "one\n\ttwo\u{7f}"}));
        targets.targets.insert("a".to_owned(), target);
        let file = sign_role(&targets, &[&key]);
        let value = parse(&file).expect("strict JSON");
        let message = canonical::encode(&value["signed"]);
        let signature = value["signatures"][0]["sig"].as_str().expect("a text");
        let signature = data_encoding::HEXLOWER.decode(signature.as_bytes()).expect("hexadecimal");
        assert!(message.contains(&b'\n'), "the canonical form keeps the line end");
        assert!(key.public().verify(&message, &signature));
    }
}
