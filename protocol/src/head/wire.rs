//! The head's encoding.

use std::collections::BTreeSet;

use prost::Message as _;

use crate::limits::{MAX_HEAD_BYTES, MAX_HEAD_INLINES, MAX_TARGET_PATH_BYTES};
use crate::tuf::{RoleName, Trusted};

/// Why bytes are not a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// More bytes than a head may have.
    #[error("the head has {found} bytes; at most {MAX_HEAD_BYTES} are read")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Not the encoding of a head.
    #[error("the head is malformed: {0}")]
    Malformed(String),
    /// Decodable, but not the one way to write this head.
    #[error("the head is not written in its one encoding")]
    NotExact,
}

/// The newest timestamp and snapshot, exact bytes, and files that belong to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The version of the root that the sender checks with. A hint: nothing signs it.
    pub root_version: u64,
    /// The timestamp, a canonical envelope.
    pub timestamp: Vec<u8>,
    /// The snapshot, a canonical envelope.
    pub snapshot: Vec<u8>,
    /// Files that spare receivers a request.
    pub inlines: Vec<Inline>,
}

/// A file inside a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inline {
    /// A targets role, top-level or delegated.
    Role {
        /// The role.
        name: RoleName,
        /// Its version.
        version: u64,
        /// Its exact bytes.
        bytes: Vec<u8>,
    },
    /// A small target: a channel policy.
    Target {
        /// Its target path.
        path: String,
        /// Its exact bytes.
        bytes: Vec<u8>,
    },
}

// Field numbers are fixed by published heads. A head is exact, so a new field needs a new topic.
#[derive(Clone, PartialEq, prost::Message)]
struct WireHead {
    #[prost(uint64, tag = "1")]
    root_version: u64,
    #[prost(bytes = "vec", tag = "2")]
    timestamp: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    snapshot: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    inlines: Vec<WireInline>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireInline {
    #[prost(oneof = "WireFile", tags = "1, 2")]
    file: Option<WireFile>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireFile {
    #[prost(message, tag = "1")]
    Role(WireRole),
    #[prost(message, tag = "2")]
    Target(WireTarget),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRole {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(bytes = "vec", tag = "3")]
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireTarget {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bytes = "vec", tag = "2")]
    bytes: Vec<u8>,
}

impl Inline {
    fn to_wire(&self) -> WireInline {
        let file = match self {
            Self::Role { name, version, bytes } => {
                WireFile::Role(WireRole { name: name.as_str().to_owned(), version: *version, bytes: bytes.clone() })
            }
            Self::Target { path, bytes } => WireFile::Target(WireTarget { path: path.clone(), bytes: bytes.clone() }),
        };
        WireInline { file: Some(file) }
    }

    fn from_wire(wire: WireInline) -> Result<Self, HeadError> {
        match wire.file {
            Some(WireFile::Role(WireRole { name, version, bytes })) => {
                let name = RoleName::try_from(name).map_err(|error| HeadError::Malformed(error.to_string()))?;
                Ok(Self::Role { name, version, bytes })
            }
            Some(WireFile::Target(WireTarget { path, .. }))
                if path.is_empty() || path.len() > MAX_TARGET_PATH_BYTES =>
            {
                Err(HeadError::Malformed(format!("a target path of {} bytes", path.len())))
            }
            Some(WireFile::Target(WireTarget { path, bytes })) => Ok(Self::Target { path, bytes }),
            None => Err(HeadError::Malformed("a file of no known kind".to_owned())),
        }
    }

    /// What two files of one head must not share.
    fn key(&self) -> (bool, &str) {
        match self {
            Self::Role { name, .. } => (true, name.as_str()),
            Self::Target { path, .. } => (false, path),
        }
    }
}

impl Head {
    /// The head's one encoding.
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    fn to_wire(&self) -> WireHead {
        WireHead {
            root_version: self.root_version,
            timestamp: self.timestamp.clone(),
            snapshot: self.snapshot.clone(),
            inlines: self.inlines.iter().map(Inline::to_wire).collect(),
        }
    }

    /// Decodes a head that is exactly one encoding of itself. Nothing in it is verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(HeadError::TooLarge { found: bytes.len() });
        }
        let wire = WireHead::decode(bytes).map_err(|error| HeadError::Malformed(error.to_string()))?;
        if wire.inlines.len() > MAX_HEAD_INLINES {
            return Err(HeadError::Malformed(format!(
                "{} files; at most {MAX_HEAD_INLINES} are read",
                wire.inlines.len()
            )));
        }
        if wire.encode_to_vec() != bytes {
            return Err(HeadError::NotExact);
        }
        let head = Self {
            root_version: wire.root_version,
            timestamp: wire.timestamp,
            snapshot: wire.snapshot,
            inlines: wire.inlines.into_iter().map(Inline::from_wire).collect::<Result<_, _>>()?,
        };
        let distinct: BTreeSet<(bool, &str)> = head.inlines.iter().map(Inline::key).collect();
        if distinct.len() != head.inlines.len() {
            return Err(HeadError::Malformed("two files of one name".to_owned()));
        }
        Ok(head)
    }

    /// The head of what is trusted here, with as many of `inlines`, offered in order of priority, as
    /// fit into [`MAX_HEAD_BYTES`].
    ///
    /// `None` while there is no head to offer: the snapshot that the timestamp names is not loaded,
    /// one of them is not signed in the exact form that a head carries, or they alone are too large.
    /// A file that receivers would refuse (a role that the snapshot does not pin by hash, or a file of
    /// a name already taken) is left out.
    pub fn from_trusted(trusted: &Trusted, inlines: impl IntoIterator<Item = Inline>) -> Option<Self> {
        let snapshot = trusted.snapshot().filter(|_| trusted.missing_snapshot().is_none())?;
        let (timestamp_form, snapshot_form) = trusted.gossip_form()?;
        if snapshot_form != snapshot.bytes() {
            return None;
        }
        let mut head = Self {
            root_version: trusted.root().version,
            timestamp: timestamp_form,
            snapshot: snapshot_form,
            inlines: Vec::new(),
        };
        let mut length = head.to_wire().encoded_len();
        if length > MAX_HEAD_BYTES {
            return None;
        }
        for inline in inlines {
            if head.inlines.len() >= MAX_HEAD_INLINES {
                break;
            }
            let pinned = match &inline {
                Inline::Role { name, version, bytes } => {
                    snapshot.role(name).is_some_and(|meta| meta.version == *version && meta.pins(bytes))
                }
                Inline::Target { path, .. } => !path.is_empty() && path.len() <= MAX_TARGET_PATH_BYTES,
            };
            let taken = head.inlines.iter().any(|known| known.key() == inline.key());
            let wire = inline.to_wire().encoded_len();
            let added = 1 + prost::length_delimiter_len(wire) + wire;
            if pinned && !taken && length + added <= MAX_HEAD_BYTES {
                length += added;
                head.inlines.push(inline);
            }
        }
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_inline() -> impl Strategy<Value = Inline> {
        prop_oneof![
            ("[a-z-]{1,20}", any::<u64>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
                |(name, version, bytes)| { Inline::Role { name: name.parse().expect("a role name"), version, bytes } }
            ),
            ("[a-z/]{1,20}", prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(path, bytes)| Inline::Target { path, bytes }),
        ]
    }

    prop_compose! {
        fn any_head()(root_version: u64, timestamp: Vec<u8>, snapshot: Vec<u8>, inlines in prop::collection::vec(any_inline(), 0..6)) -> Head {
            let mut head = Head { root_version, timestamp, snapshot, inlines: Vec::new() };
            for inline in inlines {
                if !head.inlines.iter().any(|known| known.key() == inline.key()) {
                    head.inlines.push(inline);
                }
            }
            head
        }
    }

    fn head() -> Head {
        let role = Inline::Role { name: RoleName::targets(), version: 3, bytes: b"{}".to_vec() };
        let target = Inline::Target { path: "channels/editor/stable.json".to_owned(), bytes: b"{}".to_vec() };
        Head { root_version: 1, timestamp: b"{}".to_vec(), snapshot: b"{}".to_vec(), inlines: vec![role, target] }
    }

    #[test]
    fn a_head_has_the_published_encoding() {
        let expected = [
            &b"\x08\x01\x12\x02{}\x1a\x02{}"[..],
            b"\x22\x11\x0a\x0f\x0a\x07targets\x10\x03\x1a\x02{}",
            b"\x22\x23\x12\x21\x0a\x1bchannels/editor/stable.json\x12\x02{}",
        ]
        .concat();
        assert_eq!(head().encode(), expected);
    }

    #[test]
    fn two_files_of_one_name_are_refused() {
        let mut twice = head();
        twice.inlines.push(Inline::Role { name: RoleName::targets(), version: 4, bytes: Vec::new() });
        assert!(matches!(Head::decode(&twice.encode()), Err(HeadError::Malformed(_))));
    }

    #[test]
    fn a_head_with_anything_to_spare_is_not_exact() {
        let bytes = head().encode();
        let unknown_field = [&bytes[..], b"\x28\x01"].concat();
        let field_twice = [&bytes[..], b"\x08\x01"].concat();
        let padded_number = [b"\x08\x81\x00", &bytes[2..]].concat();
        let default_written = [&b"\x08\x00"[..], &Head { root_version: 0, ..head() }.encode()].concat();
        for other in [unknown_field, field_twice, padded_number, default_written] {
            assert_eq!(Head::decode(&other), Err(HeadError::NotExact));
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let large = Head { timestamp: vec![b'x'; MAX_HEAD_BYTES], ..head() }.encode();
        assert_eq!(Head::decode(&large), Err(HeadError::TooLarge { found: large.len() }));
        let target = |index: usize| Inline::Target { path: format!("p{index}"), bytes: Vec::new() };
        let many = Head { inlines: (0..=MAX_HEAD_INLINES).map(target).collect(), ..head() };
        assert!(matches!(Head::decode(&many.encode()), Err(HeadError::Malformed(_))));
        let nameless = Head { inlines: vec![Inline::Target { path: String::new(), bytes: Vec::new() }], ..head() };
        assert!(matches!(Head::decode(&nameless.encode()), Err(HeadError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn a_head_survives_its_encoding(head in any_head()) {
            prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_exact(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(head) = Head::decode(&bytes) {
                prop_assert_eq!(head.encode(), bytes);
            }
        }

        #[test]
        fn a_mutated_head_is_refused_or_exact(head in any_head(), position: prop::sample::Index, byte: u8) {
            let mut bytes = head.encode();
            if bytes.is_empty() { return Ok(()); }
            let position = position.index(bytes.len());
            bytes[position] = byte;
            if let Ok(head) = Head::decode(&bytes) {
                prop_assert_eq!(head.encode(), bytes);
            }
        }
    }
}
