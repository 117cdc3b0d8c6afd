//! Names that appear in paths, on the wire and on disk: product, channel, platform, release.
//!
//! One rule serves every system a node may run on: `[a-z0-9._-]`, 1-64 bytes, starting with a
//! letter or digit, not ending in a dot, and no name that Windows reserves.

use std::fmt;
use std::str::FromStr;

use semver::Version;

use crate::limits::{MAX_FILE_NAME_BYTES, MAX_NAME_BYTES, MAX_VERSION_BYTES};

/// Why a text is not a usable name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing, or too much.
    #[error("{what} '{text}' has {found} bytes; 1 to {limit} are allowed")]
    Length {
        /// What was being named.
        what: &'static str,
        /// The text, shortened.
        text: String,
        /// Its bytes.
        found: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// A character outside the allowed set.
    #[error("{what} '{text}' has the character {character:?}; only {allowed} are allowed")]
    Character {
        /// What was being named.
        what: &'static str,
        /// The text.
        text: String,
        /// The first character that is not allowed.
        character: char,
        /// The allowed set, for people.
        allowed: &'static str,
    },
    /// A first or last character that some system treats specially.
    #[error("{what} '{text}' must start with a letter or digit and must not end with a dot")]
    Edge {
        /// What was being named.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// A device name on Windows.
    #[error("{what} '{text}' is a device name on Windows; choose another")]
    Reserved {
        /// What was being named.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Not a semantic version.
    #[error("version '{text}' is not a semantic version (MAJOR.MINOR.PATCH, for example 1.4.0): {reason}")]
    Version {
        /// The text, shortened.
        text: String,
        /// What semver said.
        reason: String,
    },
    /// Not a release path.
    #[error("'{text}' is not a release path (releases/PRODUCT/VERSION/PLATFORM/NAME)")]
    ReleasePath {
        /// The text, shortened.
        text: String,
    },
    /// Not a channel path.
    #[error("'{text}' is not a channel path (channels/PRODUCT/CHANNEL.json)")]
    ChannelPath {
        /// The text, shortened.
        text: String,
    },
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether Windows opens a device instead of a file of this name, whatever the extension.
pub fn is_windows_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_lowercase();
    match stem.as_str() {
        "con" | "prn" | "aux" | "nul" | "conin$" | "conout$" => true,
        _ => stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt")).is_some_and(|rest| {
            matches!(rest, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
        }),
    }
}

fn check(
    what: &'static str,
    text: &str,
    limit: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > limit {
        return Err(InvalidName::Length { what, text: shorten(text), found: text.len(), limit });
    }
    if let Some(character) = text.chars().find(|c| !is_allowed(*c)) {
        return Err(InvalidName::Character { what, text: shorten(text), character, allowed });
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || text.ends_with('.') {
        return Err(InvalidName::Edge { what, text: text.to_owned() });
    }
    if is_windows_reserved(text) {
        return Err(InvalidName::Reserved { what, text: text.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($what, text, MAX_NAME_BYTES, "a-z 0-9 . _ -", |c| {
                    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
                })?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What is shipped: `editor`, `kiosk-app`.
    Product,
    "product"
);
name!(
    /// A line of releases that subscribers follow: `stable`, `beta`.
    Channel,
    "channel"
);
name!(
    /// What a release runs on: `linux-x86_64`, or `any`.
    Platform,
    "platform"
);

impl Channel {
    /// The channel that is meant where none is named.
    pub fn stable() -> Self {
        Self("stable".to_owned())
    }

    /// The target path of this channel's policy for `product`.
    pub fn path(&self, product: &Product) -> String {
        format!("channels/{product}/{self}.json")
    }

    /// Parses a channel policy's target path.
    pub fn from_path(path: &str) -> Result<(Product, Self), InvalidName> {
        let bad = || InvalidName::ChannelPath { text: shorten(path) };
        let rest = path.strip_prefix("channels/").and_then(|p| p.strip_suffix(".json")).ok_or_else(bad)?;
        let (product, channel) = rest.split_once('/').ok_or_else(bad)?;
        Ok((product.parse()?, channel.parse()?))
    }
}

impl Platform {
    /// The platform of releases that run everywhere.
    pub fn any() -> Self {
        Self("any".to_owned())
    }

    /// Whether a release for `self` runs on a node of platform `node`.
    pub fn serves(&self, node: &Self) -> bool {
        self.0 == "any" || self == node
    }
}

/// The file name of an artifact: `[A-Za-z0-9._+-]`, 1-160 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check("file name", text, MAX_FILE_NAME_BYTES, "A-Z a-z 0-9 . _ + -", |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-')
        })?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for FileName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses a semantic version within its byte limit.
pub fn parse_version(text: &str) -> Result<Version, InvalidName> {
    if text.len() > MAX_VERSION_BYTES {
        return Err(InvalidName::Length {
            what: "version",
            text: shorten(text),
            found: text.len(),
            limit: MAX_VERSION_BYTES,
        });
    }
    Version::parse(text).map_err(|error| InvalidName::Version { text: shorten(text), reason: error.to_string() })
}

/// One build of one version of one product.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReleaseId {
    /// What is shipped.
    pub product: Product,
    /// Its version.
    pub version: Version,
    /// What this build runs on.
    pub platform: Platform,
}

impl ReleaseId {
    /// The target path of this release's artifact.
    pub fn path(&self, name: &FileName) -> String {
        format!("releases/{}/{}/{}/{name}", self.product, self.version, self.platform)
    }

    /// Parses a release's target path; refuses any text that [`ReleaseId::path`] would not make.
    pub fn from_path(path: &str) -> Result<(Self, FileName), InvalidName> {
        let bad = || InvalidName::ReleasePath { text: shorten(path) };
        let rest = path.strip_prefix("releases/").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or_else(bad);
        let (product, version, platform, name) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(bad());
        }
        let id = Self { product: product.parse()?, version: parse_version(version)?, platform: platform.parse()? };
        Ok((id, name.parse()?))
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.product, self.version, self.platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_some_system_misreads_are_refused() {
        for bad in [
            "", ".", "..", "-x", ".hidden", "end.", "Upper", "sp ace", "a/b", "nul", "nul.txt", "com1", "lpt9.log",
            "ü", "a\0b",
        ] {
            assert!(bad.parse::<Product>().is_err(), "{bad}");
        }
        assert!("x".repeat(65).parse::<Product>().is_err());
        for good in ["a", "kiosk-app", "linux-x86_64", "9p", "console", "com10", &"x".repeat(64)] {
            assert!(good.parse::<Product>().is_ok(), "{good}");
        }
    }

    #[test]
    fn a_release_path_has_exactly_one_form() {
        let path = "releases/editor/1.2.3-rc.1+b7/linux-x86_64/editor-1.2.3.tar.zst";
        let (id, name) = ReleaseId::from_path(path).expect("a valid path");
        assert_eq!(id.path(&name), path);
        for bad in [
            "releases/editor/1.2.3/any",
            "releases/editor/1.2.3/any/a/b",
            "releases/editor/1.2/any/a",
            "releases/editor/01.2.3/any/a",
            "releases/../1.2.3/any/a",
            "releases/editor/1.2.3/any/..",
            "targets/editor/1.2.3/any/a",
            "releases//1.2.3/any/a",
        ] {
            assert!(ReleaseId::from_path(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,200}") {
            let _ = ReleaseId::from_path(&text);
            let _ = ReleaseId::from_path(&format!("releases/{text}"));
            let _ = Channel::from_path(&format!("channels/{text}.json"));
            let _ = text.parse::<FileName>();
        }
    }
}
