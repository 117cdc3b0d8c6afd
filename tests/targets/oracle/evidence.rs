//! What a classifier may look at: the case, the first difference, and the files that it is about.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::case::{Case, Round};
use crate::verdict::{Difference, Verdict};

pub(crate) struct Evidence<'a> {
    pub(crate) case: &'a Case,
    pub(crate) difference: &'a Difference,
    pub(crate) ours: &'a [Verdict],
    pub(crate) theirs: &'a [Verdict],
}

/// One role's keys as a delegator lists them.
pub(crate) struct Quorum {
    pub(crate) role: String,
    pub(crate) threshold: Value,
    /// Key ids, each with its key where the table has it.
    pub(crate) keys: Vec<(String, Value)>,
}

impl Evidence<'_> {
    pub(crate) fn round(&self) -> &Round {
        &self.case.rounds[self.difference.round]
    }

    /// The root that both trust at the end of the round, or that the difference is about.
    fn root(&self) -> &[u8] {
        let (mine, other) =
            (&self.ours[self.difference.round].trusted.root, &self.theirs[self.difference.round].trusted.root);
        match (mine, other) {
            (Some((_, bytes)), _) if mine == other => bytes,
            _ => self.round().roots.get(&self.difference.version).unwrap_or(&self.case.root),
        }
    }

    /// The file that is judged differently.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.difference.role.as_str() {
            "root" => self.root(),
            role => self.round().files.get(role).map(Vec::as_slice).unwrap_or_default(),
        }
    }

    /// The same as a lenient reader takes it: the last of two equal keys. `null` where it is no JSON.
    pub(crate) fn file(&self) -> Value {
        lenient(self.bytes())
    }

    pub(crate) fn signed(&self) -> Value {
        self.file()["signed"].clone()
    }

    /// Whether we refuse the file for a reason with this text and they do not refuse it.
    pub(crate) fn we_refuse_for(&self, part: &str) -> bool {
        self.difference.ours.is_refused_for(part) && !self.difference.theirs.is_refused_for("")
    }

    /// Whether they refuse the file for a reason with this text and we do not refuse it.
    pub(crate) fn they_refuse_for(&self, part: &str) -> bool {
        self.difference.theirs.is_refused_for(part) && !self.difference.ours.is_refused_for("")
    }

    /// What the timestamp or the snapshot says about the file.
    pub(crate) fn listing(&self) -> Value {
        let (by, name) = match self.difference.role.as_str() {
            "snapshot" => ("timestamp", "snapshot.json".to_owned()),
            role => ("snapshot", format!("{role}.json")),
        };
        lenient(self.round().files.get(by).map(Vec::as_slice).unwrap_or_default())["signed"]["meta"][name].clone()
    }

    /// What the trusted snapshot may say about a role: it is one of those served so far that have its
    /// version, and not always the last.
    pub(crate) fn trusted_listings(&self, role: &str) -> Vec<Value> {
        let trusted = self.theirs[self.difference.round].trusted.snapshot.as_ref().map(|(version, ..)| *version);
        let served = self.case.rounds[..=self.difference.round].iter().filter_map(|round| round.files.get("snapshot"));
        let snapshots = served.map(|bytes| lenient(bytes));
        let of_its_version = snapshots.filter(|snapshot| snapshot["signed"]["version"].as_u64() == trusted);
        of_its_version.map(|snapshot| snapshot["signed"]["meta"][format!("{role}.json")].clone()).collect()
    }

    /// The files of a role that were served in rounds before.
    pub(crate) fn served_before(&self, role: &str) -> Vec<&Vec<u8>> {
        self.case.rounds[..self.difference.round].iter().filter_map(|round| round.files.get(role)).collect()
    }

    /// Everybody who says who may sign the file; for a lookup without a file, every delegation.
    pub(crate) fn quorums(&self) -> Vec<Quorum> {
        let role = self.difference.role.as_str();
        let mut all = in_root(&lenient(self.root()));
        if role == "root" {
            // The root before has a say too.
            let before = self.difference.version.checked_sub(1).and_then(|version| self.round().roots.get(&version));
            all.extend(in_root(&lenient(before.unwrap_or(&self.case.root))));
        }
        let delegated = self.round().files.values().flat_map(|bytes| in_delegations(&lenient(bytes)));
        all.extend(delegated);
        let is_asked = |quorum: &Quorum| quorum.role == role || (role.is_empty() && !is_top(&quorum.role));
        all.retain(is_asked);
        all
    }

    /// Every delegation in the files of the round.
    pub(crate) fn delegations(&self) -> Vec<Value> {
        let roles = |bytes: &Vec<u8>| lenient(bytes)["signed"]["delegations"]["roles"].as_array().cloned();
        self.round().files.values().filter_map(roles).flatten().collect()
    }
}

fn is_top(role: &str) -> bool {
    matches!(role, "root" | "timestamp" | "snapshot" | "targets")
}

pub(crate) fn lenient(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

fn quorum(name: &str, listed: &Value, table: &Value) -> Quorum {
    let ids: BTreeSet<&str> = listed["keyids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let keys = ids.into_iter().filter_map(|id| Some((id.to_owned(), table.get(id)?.clone()))).collect();
    Quorum { role: name.to_owned(), threshold: listed["threshold"].clone(), keys }
}

pub(crate) fn in_root(root: &Value) -> Vec<Quorum> {
    let signed = &root["signed"];
    let roles = signed["roles"].as_object().into_iter().flatten();
    roles.map(|(name, listed)| quorum(name, listed, &signed["keys"])).collect()
}

pub(crate) fn in_delegations(targets: &Value) -> Vec<Quorum> {
    let delegations = &targets["signed"]["delegations"];
    let roles = delegations["roles"].as_array().into_iter().flatten();
    roles.filter_map(|listed| Some(quorum(listed["name"].as_str()?, listed, &delegations["keys"]))).collect()
}

/// What a strict reader would see in JSON that a lenient one swallows.
#[derive(Debug, Default)]
pub(crate) struct Oddities {
    pub(crate) repeated_keys: usize,
    pub(crate) depth: usize,
    pub(crate) floats: usize,
}

impl Oddities {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        // What is found before the reader gives up counts.
        let _ = Look { found: &mut found, depth: 0 }.deserialize(&mut reader);
        found
    }
}

struct Look<'a> {
    found: &'a mut Oddities,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.found.floats += 1;
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        self.found.depth = self.found.depth.max(depth);
        while items.next_element_seed(Look { found: &mut *self.found, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        self.found.depth = self.found.depth.max(depth);
        let mut keys = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !keys.insert(key) {
                self.found.repeated_keys += 1;
            }
            entries.next_value_seed(Look { found: &mut *self.found, depth })?;
        }
        Ok(())
    }
}
