//! Versions on the control socket: text, within the byte limit of names.

/// A version.
pub(super) mod required {
    use semver::Version;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use updraft_protocol::names::parse_version;

    pub(in crate::control) fn serialize<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(version)
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        parse_version(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A version, or nothing.
pub(super) mod optional {
    use semver::Version;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use updraft_protocol::names::parse_version;

    #[allow(clippy::ref_option, reason = "the signature that serde's `with` asks for")]
    pub(in crate::control) fn serialize<S: Serializer>(
        version: &Option<Version>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match version {
            Some(version) => serializer.collect_str(version),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Version>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| parse_version(&text).map_err(D::Error::custom))
            .transpose()
    }
}
