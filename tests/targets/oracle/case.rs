//! One question to both verifiers: a root to start from, and what a mirror serves in each round.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use updraft_protocol::tuf::RoleName;

/// Everything that a verdict depends on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    /// The root that the client starts with.
    pub(crate) root: Vec<u8>,
    pub(crate) rounds: Vec<Round>,
}

/// One update: what the mirror serves, at which time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Round {
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// Newer roots by the version that they are served for.
    pub(crate) roots: BTreeMap<u64, Vec<u8>>,
    /// `timestamp`, `snapshot` and the targets roles, by name; served for whatever version is asked for.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Target paths to look up.
    pub(crate) paths: Vec<String>,
}

impl Round {
    /// What the mirror answers to a request for this metadata file.
    pub(crate) fn serve(&self, file: &str) -> Option<&[u8]> {
        let stem = file.strip_suffix(".json")?;
        let role = |wanted: &str| {
            let is_wanted = |name: &str| name.parse::<RoleName>().is_ok_and(|name| name.file_stem() == wanted);
            self.files.iter().find(|(name, _)| is_wanted(name)).map(|(_, bytes)| bytes.as_slice())
        };
        match stem.split_once('.') {
            Some((version, "root")) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.roots.get(&version.parse().ok()?).map(Vec::as_slice)
            }
            Some((version, name)) if version.bytes().all(|byte| byte.is_ascii_digit()) => role(name),
            _ => role(stem),
        }
    }
}

/// Bytes in a vector file: text where they are text, else hexadecimal.
fn to_value(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes)
        .map_or_else(|_| json!({"hex": data_encoding::HEXLOWER.encode(bytes)}), |text| Value::String(text.to_owned()))
}

fn to_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        other => data_encoding::HEXLOWER.decode(other.get("hex")?.as_str()?.as_bytes()).ok(),
    }
}

impl Case {
    pub(crate) fn to_json(&self) -> Value {
        let rounds = self.rounds.iter().map(|round| {
            let roots: Map<String, Value> =
                round.roots.iter().map(|(version, bytes)| (version.to_string(), to_value(bytes))).collect();
            let files: Map<String, Value> =
                round.files.iter().map(|(name, bytes)| (name.clone(), to_value(bytes))).collect();
            json!({"now": round.now, "roots": roots, "files": files, "paths": round.paths})
        });
        json!({"root": to_value(&self.root), "rounds": rounds.collect::<Vec<_>>()})
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let round = |round: &Value| {
            let roots = round["roots"].as_object()?.iter();
            let files = round["files"].as_object()?.iter();
            let paths = round["paths"].as_array()?.iter();
            Some(Round {
                now: round["now"].as_i64()?,
                roots: roots
                    .map(|(version, bytes)| Some((version.parse().ok()?, to_bytes(bytes)?)))
                    .collect::<Option<_>>()?,
                files: files.map(|(name, bytes)| Some((name.clone(), to_bytes(bytes)?))).collect::<Option<_>>()?,
                paths: paths.map(|path| path.as_str().map(str::to_owned)).collect::<Option<_>>()?,
            })
        };
        Some(Self {
            root: to_bytes(&value["root"])?,
            rounds: value["rounds"].as_array()?.iter().map(round).collect::<Option<_>>()?,
        })
    }
}
