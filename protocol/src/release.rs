//! What a signed target says about a release.
//!
//! A release is a TUF target whose `custom.updraft` describes it. The description and the target
//! path say the same things twice, and they must agree: a release signed for one product, version or
//! platform must not pass for another. What a node does not understand it may ignore, unless the
//! release says that it must not (`critical_fields`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use semver::Version;
use serde_json::Value;

use crate::canonical;
use crate::digest::Digest;
use crate::limits::{
    MAX_ARTIFACT_BYTES, MAX_CHANNELS, MAX_CONTENT_BYTES, MAX_CONTENT_ENTRIES, MAX_CRITICAL_FIELDS,
    MAX_INLINE_NOTES_BYTES, MAX_MANIFEST_BYTES,
};
use crate::names::{Channel, FileName, InvalidName, ReleaseId, parse_version};
use crate::tuf::TargetInfo;

/// The version of `custom.updraft` that this version of Updraft writes and reads.
const SCHEMA: u64 = 1;

/// Bytes of a notes file that is not inline. Bounds what showing release notes may fetch.
const MAX_NOTES_FILE_BYTES: u64 = 1024 * 1024;

/// Why a target is not a release that this node can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The path is not a release path.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The description is missing or has the wrong shape.
    #[error("the release's description is malformed: {0}")]
    Malformed(String),
    /// Described in a form that this version does not know.
    #[error(
        "the release is described by schema {0}; this version of updraft reads schema {SCHEMA}. Update updraft first"
    )]
    Schema(u64),
    /// The description contradicts the path.
    #[error("the release's {field} is '{stated}', but its path says '{path}'")]
    Contradiction {
        /// The component that differs.
        field: &'static str,
        /// What the description says.
        stated: String,
        /// What the path says.
        path: String,
    },
    /// A field that the publisher declared critical and this version does not know.
    #[error("the release needs '{0}', which this version of updraft does not know. Update updraft first")]
    Critical(String),
    /// A number or list beyond its limit.
    #[error("the release's {what} is {found}; at most {limit} is allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The size found.
        found: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The target states no SHA-256.
    #[error("the release states no sha256")]
    NoDigest,
}

/// How an artifact is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Format {
    /// A tar archive, zstd.
    #[serde(rename = "tar.zst")]
    TarZst,
    /// A tar archive, gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A tar archive, xz.
    #[serde(rename = "tar.xz")]
    TarXz,
    /// A tar archive.
    #[serde(rename = "tar")]
    Tar,
    /// A zip archive.
    #[serde(rename = "zip")]
    Zip,
    /// One file, installed as it is.
    #[serde(rename = "file")]
    File,
}

impl Format {
    /// The format's name in metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TarZst => "tar.zst",
            Self::TarGz => "tar.gz",
            Self::TarXz => "tar.xz",
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::File => "file",
        }
    }

    /// The format that a file name suggests; a name that suggests none is a plain file.
    pub fn from_file_name(name: &str) -> Self {
        const SUFFIXES: [(&str, Format); 8] = [
            (".tar.zst", Format::TarZst),
            (".tzst", Format::TarZst),
            (".tar.gz", Format::TarGz),
            (".tgz", Format::TarGz),
            (".tar.xz", Format::TarXz),
            (".txz", Format::TarXz),
            (".tar", Format::Tar),
            (".zip", Format::Zip),
        ];
        let name = name.to_ascii_lowercase();
        SUFFIXES
            .iter()
            .find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(suffix))
            .map_or(Self::File, |(_, format)| *format)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The unpacked content of an artifact, as one canonical stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Content {
    /// SHA-256 of the stream.
    pub sha256: Digest,
    /// Its bytes.
    pub length: u64,
    /// Files, directories and links in it.
    pub entries: u64,
}

/// The manifest that lists the artifact's pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ManifestRef {
    /// SHA-256 of the manifest.
    pub sha256: Digest,
    /// Its bytes.
    pub length: u64,
}

/// What the publisher says about a release to people.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Notes {
    /// A short text.
    Text(String),
    /// A longer text, in a file of its own.
    File {
        /// SHA-256 of the file.
        sha256: Digest,
        /// Its bytes.
        length: u64,
    },
    /// Nothing.
    #[default]
    None,
}

impl Notes {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// One build of one version of one product, as its publisher signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Product, version and platform.
    pub id: ReleaseId,
    /// The artifact's file name.
    pub file_name: FileName,
    /// The target path.
    pub path: String,
    /// SHA-256 of the artifact.
    pub artifact: Digest,
    /// Bytes of the artifact.
    pub length: u64,
    /// How the artifact is packed.
    pub format: Format,
    /// What it unpacks to.
    pub content: Content,
    /// Where its pieces are listed.
    pub manifest: ManifestRef,
    /// The channels that may point to it. A channel not listed here must not.
    pub channels: BTreeSet<Channel>,
    /// The lowest installed version that can go to this one in one step.
    pub min_from: Option<Version>,
    /// What it says to people.
    pub notes: Notes,
    /// Whether it is urgent: wanted sooner than an ordinary update.
    pub critical: bool,
}

/// `custom.updraft`, field by field.
#[derive(serde::Serialize, serde::Deserialize)]
struct Description {
    schema: u64,
    product: String,
    version: String,
    platform: String,
    format: Format,
    content: Content,
    manifest: ManifestRef,
    channels: BTreeSet<Channel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_from: Option<String>,
    #[serde(default, skip_serializing_if = "Notes::is_none")]
    notes: Notes,
    #[serde(default, skip_serializing_if = "is_false")]
    critical: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    critical_fields: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The fields that `critical_fields` may name without making this version refuse.
const KNOWN_FIELDS: [&str; 12] = [
    "schema",
    "product",
    "version",
    "platform",
    "format",
    "content",
    "manifest",
    "channels",
    "min_from",
    "notes",
    "critical",
    "critical_fields",
];

/// What decides whether the rest can be read at all, read before the rest.
#[derive(serde::Deserialize)]
struct Preamble {
    schema: u64,
    #[serde(default)]
    critical_fields: Vec<String>,
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), ReleaseError> {
    if found > limit { Err(ReleaseError::TooLarge { what, found, limit }) } else { Ok(()) }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn agree(field: &'static str, stated: &str, path: &str) -> Result<(), ReleaseError> {
    if stated == path {
        return Ok(());
    }
    let stated = stated.chars().take(80).flat_map(char::escape_debug).collect();
    Err(ReleaseError::Contradiction { field, stated, path: path.to_owned() })
}

impl Release {
    /// Reads the release that `target`, from verified metadata, is at `path`.
    pub fn from_target(path: &str, target: &TargetInfo) -> Result<Self, ReleaseError> {
        let (id, file_name) = ReleaseId::from_path(path)?;
        let value = target
            .custom
            .as_ref()
            .and_then(|custom| custom.get("updraft"))
            .filter(|value| value.is_object())
            .ok_or_else(|| ReleaseError::Malformed("the object custom.updraft is missing".to_owned()))?;
        let description = read_description(value)?;

        agree("product", &description.product, id.product.as_str())?;
        agree("version", &description.version, &id.version.to_string())?;
        agree("platform", &description.platform, id.platform.as_str())?;
        let release = Self {
            artifact: target.sha256().ok_or(ReleaseError::NoDigest)?,
            length: target.length,
            format: description.format,
            content: description.content,
            manifest: description.manifest,
            channels: description.channels,
            min_from: description.min_from.as_deref().map(parse_version).transpose()?,
            notes: description.notes,
            critical: description.critical,
            path: path.to_owned(),
            id,
            file_name,
        };
        release.check_limits()?;
        Ok(release)
    }

    /// Checks every number and list against its limit: what a publisher asks before signing, and a
    /// node before believing.
    pub fn check_limits(&self) -> Result<(), ReleaseError> {
        within("artifact length", self.length, MAX_ARTIFACT_BYTES)?;
        within("content length", self.content.length, MAX_CONTENT_BYTES)?;
        within("number of entries", self.content.entries, MAX_CONTENT_ENTRIES)?;
        within("manifest length", self.manifest.length, MAX_MANIFEST_BYTES)?;
        within("number of channels", count(self.channels.len()), count(MAX_CHANNELS))?;
        match &self.notes {
            Notes::None => Ok(()),
            Notes::Text(text) => within("notes", count(text.len()), count(MAX_INLINE_NOTES_BYTES)),
            Notes::File { length, .. } => within("notes file", *length, MAX_NOTES_FILE_BYTES),
        }
    }

    /// The target that describes this release, to be signed.
    pub fn to_target(&self) -> TargetInfo {
        let description = Description {
            schema: SCHEMA,
            product: self.id.product.to_string(),
            version: self.id.version.to_string(),
            platform: self.id.platform.to_string(),
            format: self.format,
            content: self.content,
            manifest: self.manifest,
            channels: self.channels.clone(),
            min_from: self.min_from.as_ref().map(Version::to_string),
            notes: self.notes.clone(),
            critical: self.critical,
            critical_fields: Vec::new(),
        };
        let custom = BTreeMap::from([("updraft".to_owned(), canonical::value_of(&description))]);
        let mut target = TargetInfo::new(self.length, self.artifact);
        target.custom = Some(Value::Object(custom.into_iter().collect()));
        target
    }
}

fn read_description(value: &Value) -> Result<Description, ReleaseError> {
    let malformed = |error: serde_json::Error| ReleaseError::Malformed(error.to_string());
    let preamble: Preamble = serde::Deserialize::deserialize(value).map_err(malformed)?;
    if preamble.schema != SCHEMA {
        return Err(ReleaseError::Schema(preamble.schema));
    }
    within("number of critical fields", count(preamble.critical_fields.len()), count(MAX_CRITICAL_FIELDS))?;
    let unknown = |field: &&String| !KNOWN_FIELDS.contains(&field.as_str());
    if let Some(field) = preamble.critical_fields.iter().find(unknown) {
        return Err(ReleaseError::Critical(field.chars().take(80).flat_map(char::escape_debug).collect()));
    }
    serde::Deserialize::deserialize(value).map_err(malformed)
}

/// Whether neither version comes before the other: they are equal or differ in build metadata only.
/// Two such releases of one product would leave open which is the newer, so a publisher refuses
/// the second.
pub fn same_precedence(a: &Version, b: &Version) -> bool {
    a.cmp_precedence(b).is_eq()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "releases/editor/1.2.3-rc.1+b7/linux-x86_64/editor.tar.zst";

    fn release() -> Release {
        let (id, file_name) = ReleaseId::from_path(PATH).expect("a release path");
        Release {
            id,
            file_name,
            path: PATH.to_owned(),
            artifact: Digest::of(b"artifact"),
            length: 8,
            format: Format::TarZst,
            content: Content { sha256: Digest::of(b"content"), length: 100, entries: 3 },
            manifest: ManifestRef { sha256: Digest::of(b"manifest"), length: 64 },
            channels: ["stable", "beta"].iter().map(|name| name.parse().expect("a channel")).collect(),
            min_from: Some(Version::new(1, 0, 0)),
            notes: Notes::Text("Faster.".to_owned()),
            critical: true,
        }
    }

    /// The target of `release()` with `custom.updraft` changed.
    fn edited(edit: impl FnOnce(&mut serde_json::Map<String, Value>)) -> TargetInfo {
        let mut target = release().to_target();
        let updraft = target.custom.as_mut().and_then(|custom| custom.get_mut("updraft"));
        edit(updraft.and_then(Value::as_object_mut).expect("a description"));
        target
    }

    fn with(field: &str, value: impl Into<Value>) -> Result<Release, ReleaseError> {
        Release::from_target(PATH, &edited(|fields| _ = fields.insert(field.to_owned(), value.into())))
    }

    #[test]
    fn a_release_survives_its_target() {
        assert_eq!(Release::from_target(PATH, &release().to_target()), Ok(release()));
        let plain = Release { min_from: None, notes: Notes::None, critical: false, ..release() };
        assert_eq!(Release::from_target(PATH, &plain.to_target()), Ok(plain));
        let notes = Notes::File { sha256: Digest::of(b"notes"), length: 5000 };
        let long = Release { notes, ..release() };
        assert_eq!(Release::from_target(PATH, &long.to_target()), Ok(long));
    }

    #[test]
    fn a_description_that_contradicts_the_path_is_refused() {
        for (field, value) in
            [("product", "viewer"), ("version", "1.2.3-rc.1"), ("version", "1.2.3-rc.1+B7"), ("platform", "any")]
        {
            let found = with(field, value);
            assert!(
                matches!(found, Err(ReleaseError::Contradiction { field: named, .. }) if named == field),
                "{found:?}"
            );
        }
        let elsewhere = PATH.replace("linux-x86_64", "linux-aarch64");
        assert!(Release::from_target(&elsewhere, &release().to_target()).is_err());
    }

    #[test]
    fn an_unknown_field_is_ignored_unless_it_is_critical() {
        assert_eq!(with("sandbox", "strict"), Ok(release()));
        let critical = edited(|fields| {
            _ = fields.insert("critical_fields".to_owned(), vec!["channels", "sandbox"].into());
        });
        assert_eq!(Release::from_target(PATH, &critical), Err(ReleaseError::Critical("sandbox".to_owned())));
        assert_eq!(with("critical_fields", vec!["min_from"]), Ok(release()));
    }

    #[test]
    fn another_schema_is_refused_before_its_fields_are_read() {
        let other = edited(|fields| {
            fields.insert("schema".to_owned(), 2.into());
            fields.insert("content".to_owned(), "moved".into());
        });
        assert_eq!(Release::from_target(PATH, &other), Err(ReleaseError::Schema(2)));
    }

    #[test]
    fn every_number_and_list_has_a_limit() {
        let too_large = |found: Result<Release, ReleaseError>| matches!(found, Err(ReleaseError::TooLarge { .. }));
        let channels: Vec<String> = (0..=MAX_CHANNELS).map(|index| format!("c{index}")).collect();
        let fields: Vec<&str> = vec!["notes"; MAX_CRITICAL_FIELDS + 1];
        let sized = |length: u64, entries: u64| serde_json::json!({"sha256": Digest::ZERO, "length": length, "entries": entries});
        assert!(too_large(with("channels", channels)));
        assert!(too_large(with("critical_fields", fields)));
        assert!(too_large(with("notes", "n".repeat(MAX_INLINE_NOTES_BYTES + 1))));
        assert!(too_large(with("notes", serde_json::json!({"sha256": Digest::ZERO, "length": u64::MAX}))));
        assert!(too_large(with("content", sized(u64::MAX, 1))));
        assert!(too_large(with("content", sized(1, u64::MAX))));
        assert!(too_large(with("manifest", serde_json::json!({"sha256": Digest::ZERO, "length": u64::MAX}))));
        assert!(too_large(Release::from_target(PATH, &TargetInfo { length: u64::MAX, ..release().to_target() })));
        assert!(with("min_from", format!("1.0.0-{}", "a".repeat(200))).is_err());
    }

    #[test]
    fn a_target_without_description_or_digest_is_no_release() {
        assert!(Release::from_target(PATH, &TargetInfo::of(b"x")).is_err());
        let mut target = release().to_target();
        target.hashes = crate::tuf::Hashes::default();
        assert_eq!(Release::from_target(PATH, &target), Err(ReleaseError::NoDigest));
        assert!(Release::from_target("channels/editor/stable.json", &release().to_target()).is_err());
    }

    #[test]
    fn the_file_name_suggests_the_format() {
        for (name, format) in [
            ("a.tar.zst", Format::TarZst),
            ("a.TGZ", Format::TarGz),
            ("a.tar.xz", Format::TarXz),
            ("a.tar", Format::Tar),
            ("a.zip", Format::Zip),
            ("a.AppImage", Format::File),
            (".zip", Format::File),
            ("a.gz", Format::File),
        ] {
            assert_eq!(Format::from_file_name(name), format, "{name}");
        }
        for format in [Format::TarZst, Format::TarGz, Format::TarXz, Format::Tar, Format::Zip, Format::File] {
            assert_eq!(serde_json::to_value(format).expect("JSON"), format.as_str());
        }
    }

    #[test]
    fn build_metadata_does_not_make_a_version_newer() {
        let version = |text| Version::parse(text).expect("a version");
        assert!(same_precedence(&version("1.0.0+a"), &version("1.0.0+b")));
        assert!(same_precedence(&version("1.0.0"), &version("1.0.0")));
        assert!(!same_precedence(&version("1.0.0"), &version("1.0.0-rc.1")));
    }

    proptest! {
        #[test]
        fn a_mutated_description_never_panics(
            field in prop::sample::select(KNOWN_FIELDS.to_vec()),
            value in prop_oneof![
                Just(Value::Null),
                any::<u64>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                ".{0,40}".prop_map(Value::from),
                prop::collection::vec(".{0,8}", 0..4).prop_map(Value::from),
                Just(serde_json::json!({"sha256": "x", "length": -1})),
            ],
            path in prop_oneof![Just(PATH.to_owned()), ".{0,60}"],
            remove: bool,
        ) {
            let target = edited(|fields| {
                if remove { fields.remove(field); } else { fields.insert(field.to_owned(), value); }
            });
            if let Ok(release) = Release::from_target(&path, &target) {
                prop_assert_eq!(Release::from_target(&path, &release.to_target()), Ok(release));
            }
        }
    }
}
