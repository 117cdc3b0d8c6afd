//! The vector files: one pinned case for each class of disagreement.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::case::Case;
use crate::classes::Class;
use crate::verdict::{Difference, Say};

/// The directory of the vectors.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/oracle"))
}

/// A vector file as it is read.
pub(crate) struct Vector {
    pub(crate) text: String,
    pub(crate) case: Case,
}

impl Vector {
    pub(crate) fn read(class: &Class) -> Result<Self, String> {
        let path = directory().join(format!("{}.json", class.name));
        let broken = |reason: String| format!("{}: {reason}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| broken(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let case = Case::from_json(&value["case"]).ok_or_else(|| broken("no case".to_owned()))?;
        Ok(Self { text, case })
    }
}

/// A vector file as it is written: everything in it but the case follows from the class and the verdicts.
pub(crate) fn text(class: &Class, case: &Case, difference: &Difference) -> String {
    let say = |say: &Say| match say {
        Say::Accepted(_) | Say::Nothing => json!({"verdict": say.word()}),
        Say::Refused(reason) => json!({"verdict": say.word(), "reason": reason}),
    };
    let value = json!({
        "class": class.name,
        "right": class.right.word(),
        "source": class.source,
        "why": class.why,
        "difference": {
            "round": difference.round,
            "role": difference.role,
            "path": difference.path,
            "ours": say(&difference.ours),
            "theirs": say(&difference.theirs),
        },
        "case": case.to_json(),
    });
    let mut text = serde_json::to_string_pretty(&value).expect("text keys");
    text.push('\n');
    text
}
