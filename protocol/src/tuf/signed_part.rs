//! What every role shares: the sealed [`Role`] trait, and the reading and writing of a signed part.
//!
//! The argument that a role is read from can only be made inside this module tree, by the signature
//! check: there is no way from bytes to typed metadata around it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::canonical;
use crate::time::UtcTime;

/// The version of the specification that new metadata states.
const SPEC_VERSION: &str = "1.0.34";

/// Metadata of one of the four kinds. Sealed.
pub trait Role: SignedPart + Clone {
    /// The `_type` that the signed part states.
    const TYPE: &'static str;
    /// Bytes that are read at most.
    const MAX_BYTES: u64;

    /// The version, counted from 1.
    fn version(&self) -> u64;

    /// When the metadata stops being valid.
    fn expires(&self) -> UtcTime;
}

/// How a role becomes the value that is signed, and back. Not nameable outside, which seals [`Role`].
pub trait SignedPart: Sized {
    /// Reads the signed part; the caller has verified its signatures. Only this module tree can make
    /// the argument.
    fn from_signed(fields: Fields) -> Result<Self, String>;

    /// The signed part.
    fn to_signed(&self) -> Map<String, Value>;
}

/// The fields of a signed part, taken one by one; what remains is kept as unknown.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn of(signed: Map<String, Value>) -> Self {
        Self(signed)
    }

    /// Checks `_type` and `spec_version`, which every role has.
    pub(super) fn open(&mut self, kind: &str) -> Result<(), String> {
        let found: String = self.required("_type")?;
        if found != kind {
            return Err(format!("the type is '{}', not '{kind}'", found.escape_debug()));
        }
        let spec: String = self.required("spec_version")?;
        let parts: Vec<&str> = spec.split('.').collect();
        let numeric = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if !numeric || !(2..=3).contains(&parts.len()) || parts.first() != Some(&"1") {
            return Err(format!("the specification version '{}' is not 1.x", spec.escape_debug()));
        }
        Ok(())
    }

    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, String> {
        self.optional(name)?.ok_or_else(|| format!("the field '{name}' is missing"))
    }

    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => match serde_json::from_value(value) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(format!("the field '{name}': {error}")),
            },
        }
    }

    pub(super) fn version(&mut self) -> Result<u64, String> {
        match self.required("version")? {
            0 => Err("version 0; versions start at 1".to_owned()),
            version => Ok(version),
        }
    }

    pub(super) fn into_signed(self) -> Map<String, Value> {
        self.0
    }

    pub(super) fn rest(self) -> BTreeMap<String, Value> {
        self.0.into_iter().collect()
    }

    pub(super) fn close<T: Role>(role: &T, other: &BTreeMap<String, Value>) -> Self {
        let mut fields = Self(other.clone().into_iter().collect());
        fields.put("_type", &T::TYPE);
        fields.put("spec_version", &SPEC_VERSION);
        fields.put("version", &role.version());
        fields.put("expires", &role.expires());
        fields
    }

    pub(super) fn put<T: serde::Serialize>(&mut self, name: &str, value: &T) {
        self.0.insert(name.to_owned(), canonical::value_of(value));
    }
}
