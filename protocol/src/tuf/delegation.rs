//! Delegations: who else may speak, about which target paths (TUF 4.5 `DELEGATIONS`).
//!
//! Matching never crosses `/`: a role trusted for `releases/a/*` must not speak about
//! `releases/a/b/c`. A pattern is matched without recursion, so that none can exhaust the stack.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::digest::Digest;
use crate::key::{KeyId, PublicKey};
use crate::limits::MAX_TARGET_PATH_BYTES;

use super::part::{Keys, RoleName, check_keys, check_threshold};
use super::threshold::Authority;

/// The delegations of one targets role, in order of priority.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Delegations {
    /// The key table.
    pub keys: Keys,
    /// Who may speak, the first that matches first.
    #[serde(default)]
    pub roles: Vec<DelegatedRole>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One delegation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DelegatedRole {
    /// The role that may speak.
    pub name: RoleName,
    /// Its keys, in the key table beside.
    pub keyids: Vec<KeyId>,
    /// Signatures by distinct keys that are needed; at least 1.
    pub threshold: u64,
    /// Whether the search for a matching path ends here, found or not.
    pub terminating: bool,
    /// Path patterns; `*` and `?` stand for characters other than `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// First hexadecimal digits of the SHA-256 of a path, in place of patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl DelegatedRole {
    /// A delegation by path patterns, not terminating, whose keys [`Delegations::with_role`] sets.
    pub fn new(name: RoleName, paths: &[&str]) -> Self {
        Self {
            name,
            keyids: Vec::new(),
            threshold: 1,
            terminating: false,
            paths: Some(paths.iter().map(|&path| path.to_owned()).collect()),
            path_hash_prefixes: None,
            other: BTreeMap::new(),
        }
    }

    /// The same delegation, terminating.
    #[must_use]
    pub fn terminating(mut self) -> Self {
        self.terminating = true;
        self
    }

    /// Whether this role may speak about `path`.
    pub fn covers(&self, path: &str) -> bool {
        if let Some(patterns) = &self.paths {
            return patterns.iter().any(|pattern| path_matches(pattern, path));
        }
        if let Some(prefixes) = &self.path_hash_prefixes {
            let hash = Digest::of(path.as_bytes()).to_string();
            return prefixes.iter().any(|prefix| hash.starts_with(prefix));
        }
        false
    }

    fn validate(&self) -> Result<(), String> {
        let name = &self.name;
        check_threshold(self.threshold)?;
        if name.is_top_level() {
            return Err(format!("a delegation to the top-level role {name}"));
        }
        if self.paths.is_some() == self.path_hash_prefixes.is_some() {
            return Err(format!("the delegation to {name} must state paths or path hash prefixes, not both"));
        }
        let too_long = |pattern: &String| pattern.len() > MAX_TARGET_PATH_BYTES;
        if self.paths.as_ref().is_some_and(|patterns| patterns.iter().any(too_long)) {
            return Err(format!("the delegation to {name} has a pattern of more than {MAX_TARGET_PATH_BYTES} bytes"));
        }
        Ok(())
    }
}

impl Delegations {
    /// Delegates to `role`, any `threshold` of `keys` signing it, at the lowest priority; a delegation
    /// to a role of the same name is replaced in its place.
    #[must_use]
    pub fn with_role(mut self, mut role: DelegatedRole, threshold: u64, keys: &[PublicKey]) -> Self {
        role.keyids = keys.iter().map(PublicKey::id).collect();
        role.threshold = threshold;
        self.keys.extend(role.keyids.iter().cloned().zip(keys.iter().cloned()));
        match self.roles.iter_mut().find(|known| known.name == role.name) {
            Some(known) => *known = role,
            None => self.roles.push(role),
        }
        let roles = &self.roles;
        self.keys.retain(|keyid, _| roles.iter().any(|role| role.keyids.contains(keyid)));
        self
    }

    /// The delegation to `name`.
    pub fn role(&self, name: &RoleName) -> Option<&DelegatedRole> {
        self.roles.iter().find(|role| role.name == *name)
    }

    pub(super) fn authority(&self, name: &RoleName) -> Option<Authority<'_>> {
        let role = self.role(name)?;
        Some(Authority { keys: &self.keys, keyids: &role.keyids, threshold: role.threshold })
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        check_keys(&self.keys)?;
        self.roles.iter().try_for_each(DelegatedRole::validate)?;
        let distinct: BTreeSet<&RoleName> = self.roles.iter().map(|role| &role.name).collect();
        if distinct.len() == self.roles.len() { Ok(()) } else { Err("two delegations to one role".to_owned()) }
    }
}

/// TUF 4.5 `PATHPATTERN`: shell-style, segment by segment, so that no wildcard crosses a `/`.
fn path_matches(pattern: &str, path: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut segments = path.split('/');
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
            _ => return false,
        }
    }
}

/// Matches one segment. On a mismatch the last `*` takes one more character: an earlier `*` never
/// needs another try, so the time is at most the product of both lengths.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = segment.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => match class_matches(&pattern[p + 1..], text[t]) {
                Some((true, length)) => Some(p + 1 + length),
                Some((false, _)) => None,
                // Without its closing bracket, a bracket stands for itself.
                None => (text[t] == '[').then_some(p + 1),
            },
            Some(literal) => (*literal == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after_star, taken))) => {
                p = after_star;
                t = taken + 1;
                retry = Some((after_star, taken + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

/// Matches one character against the class that starts after its `[`: whether it is in it, and the
/// characters of the class up to and including its `]`. `None` when no `]` closes it.
fn class_matches(class: &[char], character: char) -> Option<(bool, usize)> {
    let negated = class.first() == Some(&'!');
    let start = usize::from(negated);
    // A bracket that would close an empty class is a member of it.
    let end = start + 1 + class.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let members = &class[start..end];
    let mut found = false;
    let mut index = 0;
    while let Some(&low) = members.get(index) {
        if members.get(index + 1) == Some(&'-')
            && let Some(&high) = members.get(index + 2)
        {
            found |= (low..=high).contains(&character);
            index += 3;
        } else {
            found |= low == character;
            index += 1;
        }
    }
    Some((found != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_stay_inside_their_segment() {
        for (pattern, path, expected) in [
            ("releases/editor/*/*/*", "releases/editor/1.2.3/any/a.zip", true),
            ("releases/editor/*/*/*", "releases/editor/1.2.3/any/a/b.zip", false),
            ("releases/editor/*/*/*", "releases/editor/1.2.3/a.zip", false),
            ("releases/editor/*/*/*", "releases/other/1.2.3/any/a.zip", false),
            ("*", "a", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a*c*e", "abcdce", true),
            ("a*c*e", "abcdc", false),
            ("**", "a", true),
            ("**", "a/b", false),
            ("*.json", "x.json", true),
            ("*.json", ".json", true),
            ("a/*", "a", false),
            ("a/*", "a/", true),
            ("/a", "a", false),
            ("", "", true),
            ("a", "A", false),
            ("*ab", "aab", true),
            ("?", "é", true),
        ] {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn classes_match_as_the_shell_does() {
        for (pattern, path, expected) in [
            ("[abc]", "b", true),
            ("[abc]", "d", false),
            ("[!abc]", "d", true),
            ("[!abc]", "a", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[", "[", true),
            ("[a", "[a", true),
            ("[]", "[]", true),
            ("[a-]", "-", true),
            ("*[0-9]", "v7", true),
            ("*[0-9]", "v", false),
            ("a[/]b", "a/b", false),
        ] {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_quickly() {
        let pattern = "*a".repeat(MAX_TARGET_PATH_BYTES / 2);
        assert!(!path_matches(&pattern, &format!("{}b", "a".repeat(MAX_TARGET_PATH_BYTES - 1))));
    }

    #[test]
    fn a_hash_prefix_covers_the_paths_whose_hash_starts_so() {
        let path = "releases/editor/1.0.0/any/a.zip";
        let hash = Digest::of(path.as_bytes()).to_string();
        let mut role = DelegatedRole::new("bin".parse().expect("a role name"), &[]);
        role.paths = None;
        role.path_hash_prefixes = Some(vec![hash[..3].to_owned()]);
        assert!(role.covers(path));
        role.path_hash_prefixes = Some(vec![hash[1..4].to_owned(), String::from("zz")]);
        assert_eq!(role.covers(path), hash.starts_with(&hash[1..4]));
    }

    fn delegations(edit: impl FnOnce(&mut DelegatedRole)) -> Delegations {
        let mut role = DelegatedRole::new("a".parse().expect("a role name"), &["*"]);
        edit(&mut role);
        Delegations { roles: vec![role], ..Delegations::default() }
    }

    #[test]
    fn ambiguous_delegations_are_refused() {
        assert_eq!(delegations(|_| ()).validate(), Ok(()));
        assert!(delegations(|role| role.paths = None).validate().is_err());
        assert!(delegations(|role| role.path_hash_prefixes = Some(Vec::new())).validate().is_err());
        assert!(delegations(|role| role.threshold = 0).validate().is_err());
        assert!(delegations(|role| role.paths = Some(vec!["a".repeat(MAX_TARGET_PATH_BYTES + 1)])).validate().is_err());
        for name in ["root", "timestamp", "snapshot", "targets"] {
            let found = delegations(|role| role.name = name.parse().expect("a role name")).validate();
            assert!(found.is_err(), "{name}");
        }
        let mut twice = delegations(|_| ());
        twice.roles.push(twice.roles[0].clone());
        assert!(twice.validate().is_err());
    }

    proptest! {
        #[test]
        fn a_path_without_wildcards_matches_itself_alone(path in "[a-z/.]{0,20}", other in "[a-z/.]{0,20}") {
            prop_assert_eq!(path_matches(&path, &other), path == other);
        }

        #[test]
        fn matching_never_changes_the_number_of_segments(pattern in "[a*?/\\[\\]!-]{0,16}", path in "[ab/]{0,16}") {
            if path_matches(&pattern, &path) {
                prop_assert_eq!(pattern.matches('/').count(), path.matches('/').count());
            }
        }

        #[test]
        fn arbitrary_patterns_never_panic(pattern in ".{0,40}", path in ".{0,40}") {
            let _ = path_matches(&pattern, &path);
        }
    }
}
