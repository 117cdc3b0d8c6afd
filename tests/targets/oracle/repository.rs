//! Valid repositories of several shapes, still as documents that can be edited before they are signed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use updraft_protocol::canonical;
use updraft_protocol::time::UtcTime;

use crate::node::{Node, Spelling};
use crate::signature::SignatureEdit;
use crate::signer::KeyKind;

/// The time of the first round.
pub(crate) const NOW: i64 = 1_800_000_000;

const DAY: i64 = 86_400;

/// What is special about a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// One key for each role, nothing delegated.
    Plain,
    /// The same without length and hashes of metadata, and without consistent snapshots.
    Lean,
    /// m of n keys for every role.
    Thresholds,
    /// Two rotations of the root behind the root that the client starts with.
    Chain,
    /// Delegations in a tree, some terminating.
    Tree,
    /// Delegations by hash prefix.
    Bins,
    /// Delegations in a circle, and a role with two delegators.
    Circle,
    /// SHA-512, fields that nobody knows, key ids that are no hashes, names beyond ASCII.
    Odd,
}

pub(crate) const SHAPES: [Shape; 8] =
    [Shape::Plain, Shape::Lean, Shape::Thresholds, Shape::Chain, Shape::Tree, Shape::Bins, Shape::Circle, Shape::Odd];

/// What a document's signatures cover.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Signing {
    /// The canonical form, as a lenient reader understands the document.
    Canonical,
    /// The bytes as written.
    Written,
    /// The canonical form of the first of each repeated key.
    FirstOfEach,
    /// These bytes: what the document was before.
    Kept(Vec<u8>),
}

/// What is done to the finished file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wrapping {
    Field(Node, Node),
    FieldFirst(Node, Node),
    Swapped,
    Spelled(Spelling),
    Before(Vec<u8>),
    After(Vec<u8>),
    Truncated(usize),
    BitFlipped(usize),
    Replaced(Vec<u8>),
}

/// One metadata file before it is signed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    pub(crate) signed: Node,
    /// Key ids, and the keys that sign under them.
    pub(crate) signers: Vec<(String, u8)>,
    pub(crate) signing: Signing,
    pub(crate) signatures: Vec<SignatureEdit>,
    pub(crate) wrapping: Vec<Wrapping>,
    /// Whether whoever lists this file lists the version that it now states.
    pub(crate) is_listed_anew: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Repository {
    pub(crate) kind: KeyKind,
    pub(crate) shape: Shape,
    /// The first is the one that the client starts with.
    pub(crate) roots: Vec<Document>,
    pub(crate) timestamp: Document,
    pub(crate) snapshot: Document,
    /// The targets roles; `targets` is the top-level one.
    pub(crate) roles: BTreeMap<String, Document>,
    pub(crate) paths: Vec<String>,
}

/// The files of a repository, by the role or the version of the root.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Published {
    pub(crate) root: Vec<u8>,
    pub(crate) roots: BTreeMap<u64, Vec<u8>>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// A role's keys, and how many of them must sign.
type Quorum<'a> = (u64, &'a [u8]);

struct Delegation<'a> {
    from: &'a str,
    name: &'a str,
    covers: (&'a str, &'a [&'a str]),
    terminating: bool,
    quorum: Quorum<'a>,
    targets: &'a [&'a str],
}

pub(crate) fn time(offset: i64) -> String {
    UtcTime::from_unix(NOW.saturating_add(offset)).to_string()
}

impl Shape {
    /// The key id of a key: a hash, as most signers choose, or any text.
    pub(crate) fn key_id(self, kind: KeyKind, key: u8) -> String {
        match self {
            Self::Odd => format!("Schlüssel {key}"),
            _ => data_encoding::HEXLOWER.encode(&Sha256::digest(canonical::encode(&kind.object(key)))),
        }
    }

    fn quorums(self) -> [(&'static str, Quorum<'static>); 4] {
        match self {
            Self::Thresholds => [
                ("root", (2, &[0, 1, 2])),
                ("timestamp", (1, &[3, 4])),
                ("snapshot", (2, &[5, 6])),
                ("targets", (2, &[7, 8, 9])),
            ],
            _ => [("root", (1, &[0])), ("timestamp", (1, &[3])), ("snapshot", (1, &[5])), ("targets", (1, &[7]))],
        }
    }

    fn delegations(self) -> Vec<Delegation<'static>> {
        let role = |from, name, paths, terminating, quorum, targets| Delegation {
            from,
            name,
            covers: ("paths", paths),
            terminating,
            quorum,
            targets,
        };
        let bin = |name, prefixes, key, targets| Delegation {
            from: "targets",
            name,
            covers: ("path_hash_prefixes", prefixes),
            terminating: true,
            quorum: (1, key),
            targets,
        };
        match self {
            Self::Tree => vec![
                role("targets", "a", &["a/*", "a/*/*"], false, (1, &[20]), &["a/1", "b/outside"]),
                role("targets", "b", &["a/2", "b/?"], true, (2, &[21, 22]), &["a/2", "b/x"]),
                role("targets", "shadowed", &["b/?", "z*"], false, (1, &[23]), &["b/x", "b/y", "z1"]),
                role("a", "a-deep", &["a/deep/*"], false, (1, &[24]), &["a/deep/1", "a/1"]),
            ],
            Self::Bins => vec![
                bin("bin-low", &["0", "1", "2", "3", "4", "5", "6", "7"], &[20], &["a", "b", "c", "d"]),
                bin("bin-high", &["8", "9", "a", "b", "c", "d", "e", "f"], &[21], &["a", "b", "c", "d"]),
            ],
            Self::Circle => vec![
                role("targets", "left", &["*", "*/*"], false, (1, &[20]), &["left"]),
                role("targets", "right", &["*"], false, (1, &[21]), &["right"]),
                role("left", "both", &["s*"], false, (1, &[22]), &["shared"]),
                role("right", "both", &["s*"], false, (1, &[23, 22]), &["shared"]),
                role("both", "left", &["*"], false, (1, &[20]), &["left"]),
            ],
            Self::Odd => vec![role("targets", "Ü/..? b", &["é*", "*"], false, (1, &[20]), &["é1", "ascii"])],
            _ => Vec::new(),
        }
    }
}

fn document(signed: Value, signers: Vec<(String, u8)>) -> Document {
    Document {
        signed: signed.into(),
        signers,
        signing: Signing::Canonical,
        signatures: Vec::new(),
        wrapping: Vec::new(),
        is_listed_anew: true,
    }
}

fn target(path: &str, is_odd: bool) -> Value {
    let mut hashes = json!({"sha256": data_encoding::HEXLOWER.encode(&Sha256::digest(path))});
    let mut info = json!({"length": path.len()});
    if is_odd {
        hashes["sha512"] = data_encoding::HEXLOWER.encode(&Sha512::digest(path)).into();
        hashes["blake2b-256"] = "00".into();
        info["custom"] = json!({"note": "line\nbreak \u{e9} e\u{301}", "list": [1, -2, null, true]});
        info["x-unknown"] = json!({"a": []});
    }
    info["hashes"] = hashes;
    info
}

impl Repository {
    pub(crate) fn new(shape: Shape, kind: KeyKind) -> Self {
        let is_odd = shape == Shape::Odd;
        let signers = |(threshold, keys): Quorum<'_>| -> Vec<(String, u8)> {
            let count = usize::try_from(threshold).expect("small");
            keys.iter().take(count).map(|key| (shape.key_id(kind, *key), *key)).collect()
        };
        let entry = |(threshold, keys): Quorum<'_>| {
            let keyids: Vec<String> = keys.iter().map(|key| shape.key_id(kind, *key)).collect();
            json!({"keyids": keyids, "threshold": threshold})
        };
        let quorums = shape.quorums();
        let quorum = |name: &str| quorums.iter().find(|(role, _)| *role == name).expect("one of four").1;
        let keys = |all: &[u8]| -> Map<String, Value> {
            all.iter().map(|key| (shape.key_id(kind, *key), kind.object(*key))).collect()
        };
        let all: Vec<u8> = quorums.iter().flat_map(|(_, (_, keys))| keys.iter().copied()).collect();
        let roles: Map<String, Value> = quorums.iter().map(|(name, keys)| ((*name).to_owned(), entry(*keys))).collect();
        let mut root = json!({
            "_type": "root", "spec_version": "1.0.31", "version": 1, "expires": time(365 * DAY),
            "consistent_snapshot": shape != Shape::Lean, "keys": keys(&all), "roles": roles,
        });
        let mut timestamp = json!({
            "_type": "timestamp", "spec_version": "1.0.31", "version": 5, "expires": time(DAY),
            "meta": {"snapshot.json": {"version": 4}},
        });
        let mut snapshot = json!({
            "_type": "snapshot", "spec_version": "1.0.31", "version": 4, "expires": time(7 * DAY), "meta": {},
        });
        if is_odd {
            for signed in [&mut root, &mut timestamp, &mut snapshot] {
                signed["x-unknown"] =
                    json!({"\u{e9}": 1, "e\u{301}": 2, "\u{ff61}": "\u{1f600}", "\u{1f600}": "\\ \" \t"});
            }
        }

        let mut roles: BTreeMap<String, Document> = BTreeMap::new();
        let targets_of = |paths: &[&str]| -> Map<String, Value> {
            paths.iter().map(|path| ((*path).to_owned(), target(path, is_odd))).collect()
        };
        let targets = |version: u64, paths: &[&str]| {
            json!({
                "_type": "targets", "spec_version": "1.0.31", "version": version, "expires": time(30 * DAY),
                "targets": targets_of(paths),
            })
        };
        roles.insert("targets".to_owned(), document(targets(3, &["top", "dir/top"]), signers(quorum("targets"))));
        let mut paths: Vec<String> = ["top", "dir/top", "nothing", "a/nothing"].map(str::to_owned).to_vec();
        for delegation in shape.delegations() {
            let made = document(targets(2, delegation.targets), signers(delegation.quorum));
            roles.entry(delegation.name.to_owned()).or_insert(made);
            paths.extend(delegation.targets.iter().map(|path| (*path).to_owned()));
            let parent = &mut roles.get_mut(delegation.from).expect("parents first").signed;
            if parent.at(&["delegations"]).is_none() {
                parent.set("delegations", json!({"keys": {}, "roles": []}).into());
            }
            let mut listed = entry(delegation.quorum);
            listed["name"] = delegation.name.into();
            listed["terminating"] = delegation.terminating.into();
            listed[delegation.covers.0] = json!(delegation.covers.1);
            let table = parent.at(&["delegations", "keys"]).expect("just made");
            for (id, key) in keys(delegation.quorum.1) {
                table.set(&id, key.into());
            }
            parent.at(&["delegations", "roles"]).and_then(Node::items).expect("just made").push(listed.into());
        }
        for name in roles.keys() {
            let version = if name == "targets" { 3 } else { 2 };
            snapshot["meta"][format!("{name}.json")] = json!({"version": version});
        }
        paths.sort();
        paths.dedup();
        let mut repository = Self {
            kind,
            shape,
            roots: vec![document(root, signers(quorum("root")))],
            timestamp: document(timestamp, signers(quorum("timestamp"))),
            snapshot: document(snapshot, signers(quorum("snapshot"))),
            roles,
            paths,
        };
        if shape == Shape::Chain {
            repository.rotate("root", &[0], &[1]);
            repository.rotate("timestamp", &[3], &[4]);
        }
        repository
    }

    /// Adds a root in which `new` keys stand for `old` ones of `role`, signed as both roots ask.
    pub(crate) fn rotate(&mut self, role: &str, old: &[u8], new: &[u8]) {
        let (shape, kind) = (self.shape, self.kind);
        let id = |key: u8| shape.key_id(kind, key);
        let mut next = self.roots.last().expect("there is a first root").clone();
        let version = u64::try_from(self.roots.len()).unwrap_or(u64::MAX) + 1;
        next.signed.set("version", Node::number(version));
        for key in new {
            if let Some(table) = next.signed.at(&["keys"]) {
                table.set(&id(*key), kind.object(*key).into());
            }
        }
        if let Some(Node::List(keyids)) = next.signed.at(&["roles", role, "keyids"]) {
            keyids.retain(|listed| !old.iter().any(|key| *listed == Node::Text(id(*key))));
            keyids.extend(new.iter().map(|key| Node::Text(id(*key))));
        }
        let signers = match role {
            "root" => &mut next.signers,
            "timestamp" => &mut self.timestamp.signers,
            "snapshot" => &mut self.snapshot.signers,
            _ => &mut self.roles.get_mut("targets").expect("always there").signers,
        };
        if role != "root" {
            signers.retain(|(_, key)| !old.contains(key));
        }
        signers.extend(new.iter().map(|key| (id(*key), *key)));
        self.roots.push(next);
    }

    /// The next publication: every file but the root a version up, and one target more.
    pub(crate) fn advance(&mut self, by: u64) {
        let mut documents = vec![&mut self.timestamp, &mut self.snapshot];
        documents.extend(self.roles.values_mut());
        for document in documents {
            let version = stated_version(&mut document.signed).unwrap_or(1);
            document.signed.set("version", Node::number(version.saturating_add(by)));
        }
        let targets = self.roles.get_mut("targets").expect("always there");
        if let Some(table) = targets.signed.at(&["targets"]) {
            table.set("newer", target("newer", false).into());
        }
        self.paths.push("newer".to_owned());
    }

    /// Signs everything: targets roles, then the snapshot that lists them, then the timestamp that
    /// lists it. Each is edited just before it is signed, so that the edit meets what lists the rest.
    pub(crate) fn publish(&mut self, mut edit: impl FnMut(&mut Self, Level)) -> Published {
        let mut files = BTreeMap::new();
        edit(self, Level::Delegated);
        edit(self, Level::Targets);
        for (name, document) in &mut self.roles {
            let bytes = document.render(self.kind);
            let version = stated_version(&mut document.signed).filter(|_| document.is_listed_anew);
            if let Some(entry) = self.snapshot.signed.at(&["meta", &format!("{name}.json")]) {
                pin(entry, self.shape, version, &bytes);
            }
            files.insert(name.clone(), bytes);
        }
        edit(self, Level::Snapshot);
        let bytes = self.snapshot.render(self.kind);
        let version = stated_version(&mut self.snapshot.signed).filter(|_| self.snapshot.is_listed_anew);
        if let Some(entry) = self.timestamp.signed.at(&["meta", "snapshot.json"]) {
            pin(entry, self.shape, version, &bytes);
        }
        files.insert("snapshot".to_owned(), bytes);
        edit(self, Level::Timestamp);
        files.insert("timestamp".to_owned(), self.timestamp.render(self.kind));
        edit(self, Level::Root);
        let first = stated_version(&mut self.roots[0].signed).unwrap_or(1);
        let rendered: Vec<Vec<u8>> = self.roots.iter().map(|root| root.render(self.kind)).collect();
        let mut versions = (0_u64..).map(|index| first.saturating_add(index)).zip(rendered);
        let (_, root) = versions.next().expect("there is a first root");
        Published { root, roots: versions.collect(), files }
    }
}

/// What an edit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Delegated,
    Targets,
    Snapshot,
    Timestamp,
    Root,
}

pub(crate) const LEVELS: [Level; 5] =
    [Level::Delegated, Level::Targets, Level::Snapshot, Level::Timestamp, Level::Root];

pub(crate) fn stated_version(signed: &mut Node) -> Option<u64> {
    match signed.at(&["version"])? {
        Node::Literal(text) => text.parse().ok(),
        _ => None,
    }
}

fn pin(entry: &mut Node, shape: Shape, version: Option<u64>, bytes: &[u8]) {
    if let Some(version) = version {
        entry.set("version", Node::number(version));
    }
    if shape == Shape::Lean {
        return;
    }
    entry.set("length", Node::literal(&bytes.len().to_string()));
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
    let sha512 = || data_encoding::HEXLOWER.encode(&Sha512::digest(bytes));
    let hashes = match shape {
        Shape::Odd => json!({"sha512": sha512(), "md5": "0"}),
        Shape::Tree => json!({"sha256": sha256, "sha512": sha512()}),
        _ => json!({"sha256": sha256}),
    };
    entry.set("hashes", hashes.into());
}

impl Document {
    fn render(&self, kind: KeyKind) -> Vec<u8> {
        let message = match &self.signing {
            Signing::Canonical => self.signed.canonical(),
            Signing::Written => self.signed.write(Spelling::Compact),
            Signing::FirstOfEach => self.signed.first_of_each().canonical(),
            Signing::Kept(message) => message.clone(),
        };
        let listed = self.signers.iter().map(|(keyid, key)| {
            let signature = data_encoding::HEXLOWER.encode(&kind.sign(*key, &message));
            Node::from(json!({"keyid": keyid, "sig": signature}))
        });
        let mut signatures = Node::List(listed.collect());
        for edit in &self.signatures {
            edit.apply(&mut signatures, kind, &message);
        }
        let mut fields = vec![(Node::from("signatures"), signatures), (Node::from("signed"), self.signed.clone())];
        let mut spelling = Spelling::Compact;
        for wrapping in &self.wrapping {
            match wrapping {
                Wrapping::Field(key, value) => fields.push((key.clone(), value.clone())),
                Wrapping::FieldFirst(key, value) => fields.insert(0, (key.clone(), value.clone())),
                Wrapping::Swapped => fields.reverse(),
                Wrapping::Spelled(chosen) => spelling = *chosen,
                _ => {}
            }
        }
        let mut bytes = Node::Object(fields).write(spelling);
        for wrapping in &self.wrapping {
            match wrapping {
                Wrapping::Before(more) => bytes = [more.as_slice(), &bytes].concat(),
                Wrapping::After(more) => bytes.extend_from_slice(more),
                Wrapping::Truncated(at) => bytes.truncate(at % bytes.len().max(1)),
                Wrapping::BitFlipped(at) => {
                    let count = bytes.len().max(1) * 8;
                    if let Some(byte) = bytes.get_mut((at % count) / 8) {
                        *byte ^= 1 << (at % 8);
                    }
                }
                Wrapping::Replaced(other) => bytes.clone_from(other),
                _ => {}
            }
        }
        bytes
    }
}
