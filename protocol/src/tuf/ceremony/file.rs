//! The one encoding of a ceremony file: canonical JSON, in which signed metadata is carried as text, byte
//! for byte.

use std::collections::BTreeMap;

use crate::canonical;
use crate::limits::MAX_CEREMONY_BYTES;

use super::super::part::RoleName;
use super::{Ceremony, CeremonyError};

/// What the file says that it is.
const KIND: &str = "updraft-ceremony";
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    schema: u64,
    roots: Vec<String>,
    bases: BTreeMap<RoleName, String>,
    drafts: BTreeMap<RoleName, String>,
}

impl Ceremony {
    /// Reads a ceremony file and checks everything that can be checked without its repository.
    pub fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_CEREMONY_BYTES) {
            return Err(CeremonyError::TooLarge { found: bytes.len() });
        }
        let malformed = |reason: String| CeremonyError::Malformed(reason);
        let value = canonical::parse(bytes).map_err(|error| malformed(error.to_string()))?;
        let wire: Wire = serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
        if wire.kind != KIND || wire.schema != 1 {
            return Err(malformed("it is of another kind, or of a newer version of updraft".to_owned()));
        }
        let bytes_of = |(role, text): (RoleName, String)| (role, text.into_bytes());
        let ceremony = Self::assemble(
            wire.roots.into_iter().map(String::into_bytes).collect(),
            wire.bases.into_iter().map(bytes_of).collect(),
            wire.drafts.into_iter().map(bytes_of).collect(),
        )?;
        if ceremony.encode() == bytes {
            Ok(ceremony)
        } else {
            Err(malformed("it is not written in its one encoding".to_owned()))
        }
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        // Metadata is JSON, and JSON is text: all of it was parsed as such.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let wire = Wire {
            kind: KIND.to_owned(),
            schema: 1,
            roots: self.roots.iter().map(|root| text(root)).collect(),
            bases: self.bases.iter().map(|(role, base)| (role.clone(), text(base.bytes()))).collect(),
            drafts: self.drafts.iter().map(|draft| (draft.role.clone(), text(&draft.bytes()))).collect(),
        };
        let mut bytes = canonical::escape_controls(canonical::encode(&canonical::value_of(&wire)));
        bytes.push(b'\n');
        bytes
    }
}
