//! The parts that roles are made of: role names, key lists, hashes, descriptions of files.
//!
//! Parts may be read from JSON by themselves; a whole role may not (see [`super::Role`]).

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::Value;

use crate::canonical;
use crate::digest::Digest;
use crate::key::{KeyId, PublicKey};
use crate::limits::{MAX_KEYS, MAX_ROLE_NAME_BYTES};
use crate::names::Product;

use super::error::TufError;
use super::target_file::HashCheck;

/// A key table: what each key id stands for.
pub type Keys = BTreeMap<KeyId, PublicKey>;

/// A text that cannot name a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role name has {found} bytes; 1 to {MAX_ROLE_NAME_BYTES} are allowed")]
pub struct InvalidRoleName {
    /// Bytes found.
    pub found: usize,
}

/// The name of a role: one of the four top-level roles, or a delegated targets role.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleName(String);

impl RoleName {
    /// `root`.
    pub fn root() -> Self {
        Self("root".to_owned())
    }

    /// `timestamp`.
    pub fn timestamp() -> Self {
        Self("timestamp".to_owned())
    }

    /// `snapshot`.
    pub fn snapshot() -> Self {
        Self("snapshot".to_owned())
    }

    /// `targets`, the top-level targets role.
    pub fn targets() -> Self {
        Self("targets".to_owned())
    }

    /// `channels`, the online role that says which release each channel points to.
    pub fn channels() -> Self {
        Self("channels".to_owned())
    }

    /// `releases-PRODUCT`, the role that the publisher of `product` signs releases with.
    pub fn releases(product: &Product) -> Self {
        Self(format!("releases-{product}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the four top-level roles, which nobody may delegate to.
    pub fn is_top_level(&self) -> bool {
        matches!(self.as_str(), "root" | "timestamp" | "snapshot" | "targets")
    }

    /// The name as the stem of a file name: every byte but `A-Z a-z 0-9 - . _ ~` percent-encoded.
    pub fn file_stem(&self) -> String {
        let mut stem = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                stem.push(char::from(byte));
            } else {
                write!(stem, "%{byte:02X}").expect("writing to a String cannot fail");
            }
        }
        stem
    }
}

impl FromStr for RoleName {
    type Err = InvalidRoleName;

    fn from_str(text: &str) -> Result<Self, InvalidRoleName> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for RoleName {
    type Error = InvalidRoleName;

    fn try_from(text: String) -> Result<Self, InvalidRoleName> {
        if text.is_empty() || text.len() > MAX_ROLE_NAME_BYTES {
            return Err(InvalidRoleName { found: text.len() });
        }
        Ok(Self(text))
    }
}

impl From<RoleName> for String {
    fn from(name: RoleName) -> Self {
        name.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name comes from metadata: line breaks and escape sequences must not reach a terminal.
        write!(f, "{}", self.0.escape_debug())
    }
}

impl fmt::Debug for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The keys of one top-level role: which may sign, and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RoleKeys {
    /// Key ids in the key table beside.
    pub keyids: Vec<KeyId>,
    /// Signatures by distinct keys that are needed; at least 1.
    pub threshold: u64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl RoleKeys {
    /// A role of these keys.
    pub fn new(keyids: Vec<KeyId>, threshold: u64) -> Self {
        Self { keyids, threshold, other: BTreeMap::new() }
    }
}

pub(super) fn check_threshold(threshold: u64) -> Result<(), String> {
    if threshold == 0 { Err("a threshold of 0 would need no signature".to_owned()) } else { Ok(()) }
}

pub(super) fn check_keys(keys: &Keys) -> Result<(), String> {
    if keys.len() > MAX_KEYS {
        return Err(format!("{} keys; at most {MAX_KEYS} are read", keys.len()));
    }
    Ok(())
}

/// Hashes of one file, by algorithm. SHA-256 and SHA-512 are checked; others are kept.
#[derive(Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Hashes(BTreeMap<String, String>);

impl Hashes {
    /// The SHA-256 alone.
    pub fn of_sha256(digest: Digest) -> Self {
        Self(BTreeMap::from([("sha256".to_owned(), digest.to_string())]))
    }

    /// No hash stated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every stated hash: its algorithm, and its text as signed. Whoever makes a file name of the
    /// text (TUF's consistent snapshots) must check first that it is hexadecimal.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(algorithm, hash)| (algorithm.as_str(), hash.as_str()))
    }

    /// The SHA-256, when one is stated.
    pub fn sha256(&self) -> Option<Digest> {
        self.0.get("sha256")?.parse().ok()
    }

    /// Checks `bytes` against every stated hash whose algorithm is known, of which there must be one
    /// at least. Fails with the algorithm that differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let mut check = HashCheck::of(self);
        check.update(bytes);
        check.finish()
    }
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

/// What a timestamp or snapshot says about another metadata file (TUF 4.4 `METAFILES`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileMeta {
    /// Its version; at least 1.
    pub version: u64,
    /// Its bytes, when stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its hashes, when stated.
    #[serde(default, skip_serializing_if = "Hashes::is_empty", deserialize_with = "stated_hashes")]
    pub hashes: Hashes,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// TUF 4.4: "a dictionary that specifies one or more hashes". None at all is said by leaving the field
/// out: an empty one would switch the check off where its reader expects one.
fn stated_hashes<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Hashes, D::Error> {
    let hashes = <Hashes as serde::Deserialize>::deserialize(reader)?;
    if hashes.is_empty() { Err(serde::de::Error::custom("the field 'hashes' states no hash")) } else { Ok(hashes) }
}

impl FileMeta {
    /// Describes the file of these exact bytes at `version`, length and SHA-256 included.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        Self {
            version,
            length: u64::try_from(bytes.len()).ok(),
            hashes: Hashes::of_sha256(Digest::of(bytes)),
            other: BTreeMap::new(),
        }
    }

    /// The SHA-256, when one is stated.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.sha256()
    }

    /// Bytes to read at most: the stated length, never above `limit`.
    pub fn max_length(&self, limit: u64) -> u64 {
        self.length.map_or(limit, |length| length.min(limit))
    }

    /// Whether a hash is stated and `bytes` have it.
    pub fn pins(&self, bytes: &[u8]) -> bool {
        self.hashes.check(bytes).is_ok()
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if self.version == 0 { Err("version 0; versions start at 1".to_owned()) } else { Ok(()) }
    }

    /// TUF 5.5.2 and 5.6.2: the hashes and the length, as far as they are stated.
    pub(super) fn check(&self, role: &RoleName, bytes: &[u8]) -> Result<(), TufError> {
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Some(expected) = self.length
            && expected != found
        {
            return Err(TufError::Length { role: role.clone(), expected, found });
        }
        if self.hashes.is_empty() {
            return Ok(());
        }
        self.hashes.check(bytes).map_err(|algorithm| TufError::Hash { role: role.clone(), algorithm })
    }
}

/// What a targets role says about one target (TUF 4.5 `TARGETS`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TargetInfo {
    /// Its bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// What the application says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl TargetInfo {
    /// A target of this length and SHA-256.
    pub fn new(length: u64, sha256: Digest) -> Self {
        Self { length, hashes: Hashes::of_sha256(sha256), custom: None, other: BTreeMap::new() }
    }

    /// The target of these exact bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::new(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Digest::of(bytes))
    }

    /// The SHA-256, when one is stated.
    pub fn sha256(&self) -> Option<Digest> {
        self.hashes.sha256()
    }

    /// SHA-256 of the whole entry in canonical form: hashes, length, custom and what is not known here.
    pub fn entry_digest(&self) -> Digest {
        Digest::of(&canonical::encode(&canonical::value_of(self)))
    }

    /// Whether `bytes` are this target: length and every stated hash that is known, one at least.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut check = self.check();
        check.update(bytes);
        check.is_it()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use sha2::{Digest as _, Sha512};

    use super::*;

    fn role(text: &str) -> RoleName {
        text.parse().expect("a role name")
    }

    #[test]
    fn a_role_name_becomes_a_file_name_as_other_clients_quote_it() {
        assert_eq!(role("releases-editor").file_stem(), "releases-editor");
        assert_eq!(role("../a b/ü~?").file_stem(), "..%2Fa%20b%2F%C3%BC~%3F");
        assert_eq!(role("100%").file_stem(), "100%25");
    }

    #[test]
    fn role_names_are_bounded() {
        assert!("".parse::<RoleName>().is_err());
        assert!("r".repeat(MAX_ROLE_NAME_BYTES).parse::<RoleName>().is_ok());
        assert!("r".repeat(MAX_ROLE_NAME_BYTES + 1).parse::<RoleName>().is_err());
    }

    #[test]
    fn a_role_name_cannot_write_to_the_terminal() {
        assert_eq!(role("a\u{1b}[2J\n").to_string(), "a\\u{1b}[2J\\n");
    }

    #[test]
    fn every_known_hash_must_hold_and_one_must_be_known() {
        let hashes = |text: &str| serde_json::from_str::<Hashes>(text).expect("hashes");
        let sha256 = Digest::of(b"x");
        let sha512 = HEXLOWER.encode(&Sha512::digest(b"x"));
        assert_eq!(hashes(&format!(r#"{{"sha256":"{sha256}","sha512":"{sha512}","md5":"0"}}"#)).check(b"x"), Ok(()));
        assert_eq!(hashes(&format!(r#"{{"sha512":"{sha512}"}}"#)).check(b"x"), Ok(()));
        assert_eq!(hashes(&format!(r#"{{"sha256":"{sha256}","sha512":"00"}}"#)).check(b"x"), Err("sha512".to_owned()));
        assert!(hashes(r#"{"md5":"9dd4e461268c8034f5c8564e155c67a6"}"#).check(b"x").is_err());
    }

    #[test]
    fn hashes_of_a_metadata_file_may_be_left_out_but_not_be_empty() {
        let meta = |text: &str| serde_json::from_str::<FileMeta>(text);
        assert!(meta(r#"{"version":1}"#).is_ok_and(|meta| meta.hashes.is_empty()));
        assert!(meta(r#"{"version":1,"hashes":{"md5":"0"}}"#).is_ok());
        assert!(meta(r#"{"version":1,"hashes":{}}"#).is_err());
    }

    #[test]
    fn a_target_is_its_length_and_hashes() {
        let target = TargetInfo::of(b"artifact");
        assert!(target.matches(b"artifact"));
        assert!(!target.matches(b"artifacT"));
        assert!(!TargetInfo { length: 7, ..target }.matches(b"artifact"));
    }
}
