//! The signed envelope `{"signatures": [...], "signed": {...}}` (TUF 4.2), still unverified.
//!
//! An envelope stays inside this module tree: it becomes metadata only through
//! [`super::verified::Verified`]. The signed part is kept as the very value that was canonicalised,
//! so that what was verified and what is parsed cannot differ.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Map, Value};

use crate::canonical;
use crate::digest::Digest;
use crate::key::KeyId;
use crate::limits::MAX_SIGNATURES;

use super::error::TufError;
use super::part::RoleName;

/// One signature as the envelope states it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Signature {
    pub(super) keyid: KeyId,
    /// Hexadecimal. Text that is not decodes to no signature at all, which verifies nothing.
    sig: String,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl Signature {
    pub(super) fn new(keyid: KeyId, bytes: &[u8]) -> Self {
        Self { keyid, sig: HEXLOWER.encode(bytes), other: BTreeMap::new() }
    }

    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        HEXLOWER_PERMISSIVE.decode(self.sig.as_bytes()).ok()
    }
}

/// A parsed envelope whose signatures nobody has checked yet.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    role: RoleName,
    bytes: Vec<u8>,
    signatures: Vec<Signature>,
    signed: Map<String, Value>,
    message: Vec<u8>,
}

impl Envelope {
    /// Parses an envelope of at most `limit` bytes that claims to be `role`.
    pub(super) fn parse(role: &RoleName, bytes: &[u8], limit: u64) -> Result<Self, TufError> {
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if found > limit {
            return Err(TufError::TooLarge { role: role.clone(), found, limit });
        }
        let malformed = |reason: String| TufError::Malformed { role: role.clone(), reason };
        let value = canonical::parse(bytes).map_err(|error| malformed(error.to_string()))?;
        let Value::Object(mut fields) = value else {
            return Err(malformed("the envelope is not an object".to_owned()));
        };
        let Some(Value::Object(signed)) = fields.remove("signed") else {
            return Err(malformed("the field 'signed' is missing or not an object".to_owned()));
        };
        let signatures = match fields.remove("signatures") {
            Some(Value::Array(items)) if items.len() <= MAX_SIGNATURES => items,
            Some(Value::Array(items)) => {
                return Err(malformed(format!("{} signatures; at most {MAX_SIGNATURES} are read", items.len())));
            }
            _ => {
                return Err(malformed("the field 'signatures' is missing or not an array".to_owned()));
            }
        };
        let signatures = signatures
            .into_iter()
            .map(serde_json::from_value)
            .collect::<Result<Vec<Signature>, _>>()
            .map_err(|error| malformed(format!("a signature: {error}")))?;
        // TUF 4.2.1: "The KEYID MUST be unique in the "signatures" array: multiple signatures with
        // the same keyid are not allowed."
        let distinct: BTreeSet<&KeyId> = signatures.iter().map(|signature| &signature.keyid).collect();
        if distinct.len() != signatures.len() {
            return Err(malformed("two signatures name one key id".to_owned()));
        }
        let signed = Value::Object(signed);
        let message = canonical::encode(&signed);
        let Value::Object(signed) = signed else {
            return Err(malformed("the field 'signed' is not an object".to_owned()));
        };
        Ok(Self { role: role.clone(), bytes: bytes.to_vec(), signatures, signed, message })
    }

    /// The role that the envelope was asked to be.
    pub(super) fn role(&self) -> &RoleName {
        &self.role
    }

    pub(super) fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The bytes that the signatures cover.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The digest of the bytes that the signatures cover.
    pub(super) fn signed_digest(&self) -> Digest {
        Digest::of(&self.message)
    }

    /// The exact bytes, and the value that was canonicalised.
    pub(super) fn into_parts(self) -> (Vec<u8>, Map<String, Value>) {
        (self.bytes, self.signed)
    }

    /// Whether the bytes are the one canonical encoding of an envelope of exactly these signatures
    /// over this signed part: nothing unknown, no white space, signatures sorted by key id.
    pub(super) fn is_canonical(&self) -> bool {
        self.bytes == encode(&self.signatures_plain(), &self.message)
    }

    fn signatures_plain(&self) -> Vec<Signature> {
        self.signatures
            .iter()
            .filter_map(|signature| Some(Signature::new(signature.keyid.clone(), &signature.bytes()?)))
            .collect()
    }
}

/// The canonical envelope of `signatures`, sorted by key id, over the signed part `message`, which
/// is canonical JSON already.
pub(super) fn encode(signatures: &[Signature], message: &[u8]) -> Vec<u8> {
    let mut sorted: Vec<&Signature> = signatures.iter().collect();
    sorted.sort_by(|a, b| a.keyid.cmp(&b.keyid));
    let listed: Vec<Value> = sorted
        .into_iter()
        .map(|signature| {
            let mut fields: Map<String, Value> = signature.other.clone().into_iter().collect();
            fields.insert("keyid".to_owned(), Value::from(signature.keyid.as_str()));
            fields.insert("sig".to_owned(), Value::from(signature.sig.as_str()));
            Value::Object(fields)
        })
        .collect();
    let mut out = b"{\"signatures\":".to_vec();
    out.extend_from_slice(&canonical::encode(&Value::Array(listed)));
    out.extend_from_slice(b",\"signed\":");
    out.extend_from_slice(message);
    out.push(b'}');
    out
}
