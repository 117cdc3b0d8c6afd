//! The families of mutations. Each takes a valid repository and spoils, or merely bends, one thing.

use crate::node::{Node, Spelling};
use crate::repository::{Document, Level, NOW, Repository, Signing, Wrapping, stated_version, time};
use crate::rng::Rng;
use crate::signature::{SignatureEdit, any_value};

/// What kind of thing a mutation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// Any field of the signed part: dropped, renamed, repeated, of another type or value.
    Field,
    Signatures,
    Version,
    Expiry,
    /// Spellings and numbers that canonical JSON has no room for.
    Canonical,
    /// What is around the signed part, down to single bits.
    Envelope,
    /// What a snapshot or timestamp says about another file.
    Listing,
    /// How many keys must sign, and which.
    Threshold,
    /// The keys themselves.
    Keys,
    Delegation,
    Target,
    /// `_type`, `spec_version`, fields that nobody knows, and those that only Updraft knows.
    Header,
}

pub(crate) const FAMILIES: [Family; 12] = [
    Family::Field,
    Family::Signatures,
    Family::Version,
    Family::Expiry,
    Family::Canonical,
    Family::Envelope,
    Family::Listing,
    Family::Threshold,
    Family::Keys,
    Family::Delegation,
    Family::Target,
    Family::Header,
];

impl Family {
    /// Where a mutation of this family makes sense.
    pub(crate) fn levels(self) -> &'static [Level] {
        match self {
            Self::Listing => &[Level::Snapshot, Level::Timestamp],
            Self::Threshold | Self::Keys => &[Level::Root, Level::Root, Level::Targets, Level::Delegated],
            Self::Delegation => &[Level::Targets, Level::Targets, Level::Delegated],
            Self::Target => &[Level::Targets, Level::Delegated],
            _ => &crate::repository::LEVELS,
        }
    }

    pub(crate) fn apply(self, rng: &mut Rng, repository: &mut Repository, level: Level) {
        let mut paths = std::mem::take(&mut repository.paths);
        if self == Self::Keys && rng.chance(40) {
            shared_key(rng, repository, level);
            repository.paths = paths;
            return;
        }
        let first_root = rng.chance(50);
        if let Some(document) = choose(rng, repository, level, first_root) {
            let before = document.signed.canonical();
            match self {
                Self::Field => field(rng, document),
                Self::Signatures => document.signatures.push(SignatureEdit::any(rng)),
                Self::Version => version(rng, document),
                Self::Expiry => expiry(rng, document),
                Self::Canonical => canonical(rng, document),
                Self::Envelope => envelope(rng, document, level),
                Self::Listing => listing(rng, document),
                Self::Threshold => threshold(rng, document),
                Self::Keys => keys(rng, document),
                Self::Delegation => delegation(rng, document, &mut paths),
                Self::Target => target(rng, document, &mut paths),
                Self::Header => header(rng, document, level),
            }
            match rng.below(10) {
                0 => document.signing = Signing::Written,
                1 => document.signing = Signing::FirstOfEach,
                2 => document.signing = Signing::Kept(before),
                _ => {}
            }
        }
        repository.paths = paths;
    }
}

fn choose<'a>(
    rng: &mut Rng,
    repository: &'a mut Repository,
    level: Level,
    first_root: bool,
) -> Option<&'a mut Document> {
    match level {
        Level::Root if first_root => repository.roots.first_mut(),
        Level::Root => repository.roots.last_mut(),
        Level::Timestamp => Some(&mut repository.timestamp),
        Level::Snapshot => Some(&mut repository.snapshot),
        Level::Targets => repository.roles.get_mut("targets"),
        Level::Delegated => {
            let mut names: Vec<String> = repository.roles.keys().filter(|name| *name != "targets").cloned().collect();
            names.extend(names.is_empty().then(|| "targets".to_owned()));
            repository.roles.get_mut(&names[rng.below(names.len())])
        }
    }
}

fn field(rng: &mut Rng, document: &mut Document) {
    if rng.chance(30) {
        let place = document.signed.any_mut(rng);
        *place = match &*place {
            Node::Object(fields) if rng.chance(50) => {
                Node::List(fields.iter().map(|(_, value)| value.clone()).collect())
            }
            Node::List(items) if rng.chance(50) && !items.is_empty() => items[rng.below(items.len())].clone(),
            Node::Text(text) if rng.chance(50) => Node::Text(format!("{text}x")),
            Node::Literal(number) if rng.chance(30) => Node::Text(number.clone()),
            other if rng.chance(20) => Node::List(vec![other.clone()]),
            _ => any_value(rng),
        };
        return;
    }
    let fields = document.signed.any_object_mut(rng);
    if fields.is_empty() {
        return;
    }
    let index = rng.below(fields.len());
    match rng.below(8) {
        0 | 1 => {
            fields.remove(index);
        }
        2 | 3 => fields[index].1 = any_value(rng),
        4 => {
            let repeated = (fields[index].0.clone(), any_value(rng));
            let place = rng.below(fields.len() + 1);
            fields.insert(place, repeated);
        }
        5 => {
            let repeated = fields[index].clone();
            fields.push(repeated);
        }
        6 => {
            fields[index].0 = match &fields[index].0 {
                Node::Text(key) if rng.chance(50) => Node::Text(key.to_uppercase()),
                Node::Text(key) => Node::Text(format!("{key}{}", rng.pick(&["x", " ", "\u{0}", ".json", ""]))),
                _ => Node::from(""),
            };
        }
        _ => {
            let other = rng.below(fields.len());
            let value = fields[other].1.clone();
            fields[index].1 = value;
        }
    }
}

fn number(rng: &mut Rng, near: u64) -> Node {
    let texts = [
        "0",
        "1",
        "2",
        "18446744073709551615",
        "9223372036854775808",
        "9223372036854775807",
        "18446744073709551616",
        "-1",
        "-9223372036854775808",
        "-9223372036854775809",
        "1.0",
        "1.5",
        "1e0",
        "5e-1",
        "1E400",
        "01",
        "-0",
        "+1",
        "0x1",
        "\"1\"",
        "null",
        "true",
        "[]",
        "9007199254740993",
    ];
    match rng.below(3) {
        0 => Node::number(near.saturating_add(1)),
        1 => Node::number(near.saturating_sub(1)),
        _ => Node::literal(rng.pick(&texts)),
    }
}

fn version(rng: &mut Rng, document: &mut Document) {
    let stated = stated_version(&mut document.signed).unwrap_or(1);
    let value = number(rng, stated);
    document.signed.set("version", value);
    document.is_listed_anew = rng.chance(70);
}

fn expiry(rng: &mut Rng, document: &mut Document) {
    let offset = rng.pick(&[0, 0, 0, -1, 1, 60, -60, 86_400, -86_400, -NOW]);
    let text = time(offset);
    let bare = text.trim_end_matches('Z').to_owned();
    let value = match rng.below(36) {
        0 => Node::Text(format!("{bare}.5Z")),
        1 => Node::Text(format!("{bare}.000Z")),
        2 => Node::Text(format!("{bare}+00:00")),
        3 => Node::Text(format!("{bare}-00:00")),
        4 => Node::Text(format!("{bare}+01:00")),
        5 => Node::Text(text.to_lowercase()),
        6 => Node::Text(text.replace('T', " ")),
        7 => Node::Text(bare),
        8 => Node::Text(text.replace(":00Z", ":60Z")),
        9 => Node::Text(text.replace(":00Z", "Z")),
        10 => Node::from("9999-12-31T23:59:59Z"),
        11 => Node::from("9999-12-30T22:00:00Z"),
        12 => Node::from("10000-01-01T00:00:00Z"),
        13 => Node::from("+010000-01-01T00:00:00Z"),
        14 => Node::from("1969-12-31T23:59:59Z"),
        15 => Node::from("0000-01-01T00:00:00Z"),
        16 => Node::from("2030-01-01"),
        17 => Node::from("2030-W01-1T00:00:00Z"),
        18 => Node::from("2030-02-30T00:00:00Z"),
        19 => Node::from("2030-01-01T24:00:00Z"),
        20 => Node::from("20300101T000000Z"),
        21 => Node::Text(format!("{text}[UTC]")),
        22 => Node::Text(format!(" {text}")),
        23 => Node::Text(format!("{text}\n")),
        24 => Node::Text(text.replace('-', "\u{2010}")),
        25 => Node::Text(text.replace('2', "\u{ff12}")),
        26 => Node::number(1_900_000_000),
        27 => Node::from("-000001-01-01T00:00:00Z"),
        28 => Node::from("2030-06-30T23:59:60Z"),
        29 => any_value(rng),
        _ => Node::Text(text),
    };
    document.signed.set("expires", value);
}

fn canonical(rng: &mut Rng, document: &mut Document) {
    let nested = |depth: usize| Node::Literal(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    let depths = [1, 20, 28, 29, 30, 31, 32, 33, 60, 120, 126, 127, 128, 129, 200];
    let deep = nested(rng.pick(&depths));
    let fields = document.signed.any_object_mut(rng);
    let place = rng.below(fields.len() + 1);
    let extra = Node::from("x-extra");
    let literal = |text: &str| Node::literal(text);
    let added: Vec<(Node, Node)> = match rng.below(24) {
        0 => vec![(extra, deep)],
        1 => vec![(
            extra,
            literal(rng.pick(&[
                "1.5",
                "1.0",
                "1e2",
                "1e400",
                "-0",
                "-0.0",
                "0.0",
                "1E-5",
                "123456789012345678901234567890",
            ])),
        )],
        2 => vec![(
            extra,
            literal(rng.pick(&["18446744073709551615", "9223372036854775808", "-9223372036854775808", "-1"])),
        )],
        3 => vec![(
            extra,
            literal(rng.pick(&["\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud83d\\ude00\""])),
        )],
        4 => vec![(
            extra,
            literal(rng.pick(&[
                "\"\\u0000\"",
                "\"\\n\\t\\b\\f\\r\"",
                "\"\\/\"",
                "\"\\u002f\"",
                "\"\u{7f}\u{80}\u{2028}\u{ffff}\"",
            ])),
        )],
        5 => vec![(
            extra,
            literal(rng.pick(&[
                "\"a\nb\"",
                "\"\u{0}\"",
                "\"\\x41\"",
                "\"\\u12\"",
                "'a'",
                "NaN",
                "Infinity",
                "nul",
                "True",
                "01",
                "1.",
                ".5",
                "- 1",
                "/**/1",
            ])),
        )],
        6 => vec![(Node::from("\u{e9}"), Node::number(1)), (Node::from("e\u{301}"), Node::number(2))],
        7 => vec![(Node::from("\u{ff61}"), Node::number(1)), (Node::from("\u{1f600}"), Node::number(2))],
        8 => vec![(Node::from(""), Node::number(1))],
        9 => vec![(literal("\"\\u0078\""), Node::number(1)), (Node::from("x"), Node::number(1))],
        10 => vec![(Node::from("x"), Node::number(1)), (Node::from("X"), Node::number(1))],
        11 => vec![(literal("x"), Node::number(1))],
        12 => vec![(literal("1"), Node::number(1))],
        13 => vec![(literal("\"\\ud800\""), Node::number(1))],
        14 => vec![(literal("\"_\\u0074ype\""), Node::from("root"))],
        15 => vec![(literal("\"versio\\u006e\""), Node::number(9))],
        16 => vec![(Node::from("version"), Node::number(9))],
        17 => vec![(Node::from("expires"), Node::Text(time(86_400)))],
        18 => vec![(extra.clone(), Node::number(1)), (extra, Node::number(1))],
        19 => vec![(extra, Node::Text("\u{e9}e\u{301}\u{1f600}\u{0}\u{1f}\u{feff}\"\\".to_owned()))],
        20 => vec![(Node::from("a"), literal("1 ")), (Node::from("b"), literal("\t\n\r 1"))],
        21 => vec![(extra, literal("1,"))],
        22 => {
            fields.reverse();
            Vec::new()
        }
        _ => {
            document.wrapping.push(Wrapping::Spelled(rng.pick(&[Spelling::Spaced, Spelling::Escaped])));
            return;
        }
    };
    for (offset, field) in added.into_iter().enumerate() {
        let at = (place + offset).min(fields.len());
        fields.insert(at, field);
    }
}

fn envelope(rng: &mut Rng, document: &mut Document, level: Level) {
    let key = rng.pick(&["x-unknown", "signed", "signatures", "", "Signed"]);
    let odd =
        ["1.5", "1e400", "123456789012345678901234567890", "{\"a\":1,\"a\":2}", "[]", "null", "\"\\ud800\"", "-0"];
    let value = if rng.chance(50) { Node::literal(rng.pick(&odd)) } else { any_value(rng) };
    document.wrapping.push(match rng.below(22) {
        0 | 1 => Wrapping::Field(Node::from(key), value),
        2 | 3 => Wrapping::FieldFirst(Node::from(key), value),
        4 => Wrapping::FieldFirst(Node::from("signed"), document.signed.clone()),
        5 => Wrapping::Swapped,
        6 => Wrapping::Spelled(Spelling::Spaced),
        7 => Wrapping::Spelled(Spelling::Escaped),
        8 => Wrapping::Before(
            rng.pick(&[b"\xef\xbb\xbf".as_slice(), b" \n\t\r", b"\x0c", b"\0", b"//\n", b"[", b"\xc2\xa0"]).to_vec(),
        ),
        9 => {
            Wrapping::After(rng.pick(&[b"\n".as_slice(), b" \t\r\n", b"\0", b"x", b"{}", b",", b"}", b"\xff"]).to_vec())
        }
        10 => Wrapping::Truncated(rng.below(1 << 16)),
        11..=17 => Wrapping::BitFlipped(rng.below(1 << 20)),
        18 => Wrapping::Replaced(
            rng.pick(&[b"".as_slice(), b"{}", b"[]", b"null", b"\"\"", b"0", b"\xff\xfe{\0}\0"]).to_vec(),
        ),
        19 if level == Level::Timestamp => Wrapping::After(b" ".repeat(16 * 1024)),
        19 => Wrapping::Field(Node::from("x-deep"), Node::Literal(format!("{}{}", "[".repeat(40), "]".repeat(40)))),
        20 => Wrapping::Field(Node::from("x-deep"), Node::Literal(format!("{}{}", "[".repeat(30), "]".repeat(30)))),
        _ => Wrapping::Before(b" ".repeat(rng.below(64))),
    });
}

fn listing(rng: &mut Rng, document: &mut Document) {
    let Some(table) = document.signed.at(&["meta"]).and_then(Node::fields) else { return };
    if table.is_empty() {
        return;
    }
    let index = rng.below(table.len());
    match rng.below(10) {
        0 => {
            table.remove(index);
            return;
        }
        1 => {
            let name =
                rng.pick(&["x.json", "", "root.json", "timestamp.json", "../x.json", "x", "targets.JSON", ".json"]);
            let entry = if rng.chance(50) {
                any_value(rng)
            } else {
                Node::Object(vec![(Node::from("version"), number(rng, 1))])
            };
            table.push((Node::from(name), entry));
            return;
        }
        2 => {
            table[index].1 = any_value(rng);
            return;
        }
        _ => {}
    }
    let entry = &mut table[index].1;
    let length = match entry.at(&["length"]) {
        Some(Node::Literal(text)) => text.parse().unwrap_or(1),
        _ => 1000,
    };
    match rng.below(12) {
        0 => entry.remove("length"),
        1 => entry.remove("hashes"),
        2 => entry.set("length", number(rng, length)),
        3 => {
            let stated = stated_version(entry).unwrap_or(1);
            entry.set("version", number(rng, stated));
        }
        4 => entry.set("hashes", any_value(rng)),
        5 => entry.set("hashes", Node::literal("{}")),
        6 => entry.set("hashes", Node::literal("{\"md5\":\"00\"}")),
        7 => entry.set("x-unknown", any_value(rng)),
        8 => entry.set("length", Node::literal("null")),
        _ => {
            let Some(hashes) = entry.at(&["hashes"]).and_then(Node::fields) else { return };
            if hashes.is_empty() {
                return;
            }
            let index = rng.below(hashes.len());
            match (rng.below(6), &mut hashes[index]) {
                (0, (_, Node::Text(hash))) => hash.make_ascii_uppercase(),
                (1, (_, Node::Text(hash))) => {
                    hash.pop();
                }
                (2, (_, Node::Text(hash))) => hash.replace_range(0..1, if hash.starts_with('0') { "1" } else { "0" }),
                (3, (name, _)) => *name = Node::from(rng.pick(&["SHA256", "sha-256", "sha384", "", "blake2b-256"])),
                (4, (_, value)) => *value = any_value(rng),
                _ => hashes.push((Node::from(rng.pick(&["sha512", "sha256", "md5"])), Node::from("00"))),
            }
        }
    }
}

/// Every object of the signed part that names keys and a threshold.
fn quorums(document: &mut Document) -> Vec<&mut Node> {
    let signed = &mut document.signed;
    if signed.at(&["roles"]).is_some() {
        return match signed.at(&["roles"]) {
            Some(Node::Object(roles)) => roles.iter_mut().map(|(_, role)| role).collect(),
            _ => Vec::new(),
        };
    }
    match signed.at(&["delegations", "roles"]) {
        Some(Node::List(roles)) => roles.iter_mut().collect(),
        _ => Vec::new(),
    }
}

fn threshold(rng: &mut Rng, document: &mut Document) {
    let mut all = quorums(document);
    if all.is_empty() {
        return field(rng, document);
    }
    let index = rng.below(all.len());
    let role = all.swap_remove(index);
    if rng.chance(50) {
        let value = if rng.chance(50) { number(rng, 1) } else { Node::number(rng.pick(&[0, 1, 2, 3, 4, 1000])) };
        role.set("threshold", value);
        return;
    }
    let odd = any_value(rng);
    match role.at(&["keyids"]).and_then(Node::items) {
        None => role.set("keyids", odd),
        Some(keyids) => match rng.below(7) {
            0 => keyids.clear(),
            1 => {
                let again = keyids.first().cloned();
                keyids.extend(again);
            }
            2 => keyids.push(Node::from("unknown")),
            3 => keyids.push(odd),
            4 => keyids.reverse(),
            5 => {
                keyids.pop();
            }
            _ => role.set("keyids", odd),
        },
    }
}

fn keys(rng: &mut Rng, document: &mut Document) {
    let signed = &mut document.signed;
    let path: &[&str] = if signed.at(&["keys"]).is_some() { &["keys"] } else { &["delegations", "keys"] };
    let Some(table) = signed.at(path).and_then(Node::fields) else { return field(rng, document) };
    if table.is_empty() {
        return;
    }
    let index = rng.below(table.len());
    match rng.below(20) {
        0 => {
            table.remove(index);
        }
        1 => {
            table[index]
                .1
                .set("keytype", Node::from(rng.pick(&["rsa", "ecdsa", "Ed25519", "", "ecdsa-sha2-nistp256"])));
        }
        2 => table[index]
            .1
            .set("scheme", Node::from(rng.pick(&["rsassa-pss-sha256", "ed25519ph", "", "Ed25519", "ml-dsa-65/1"]))),
        3 => table[index].1.set("x-unknown", any_value(rng)),
        4 => table[index].1.set("keyval", any_value(rng)),
        5 => table[index].1 = any_value(rng),
        6 => table[index].0 = Node::Text("k".repeat(rng.pick(&[0, 1, 256, 257]))),
        7 => {
            let other = table[rng.below(table.len())].1.clone();
            table.push((Node::from("another-id"), other));
        }
        8 => {
            let unknown = Node::literal(r#"{"keytype":"future","scheme":"future","keyval":{"public":"x","y":{}}}"#);
            table.push((Node::from("future"), unknown));
        }
        9 => table.extend((0..rng.pick(&[10, 1030])).map(|number| {
            let unknown = Node::literal(r#"{"keytype":"f","scheme":"f","keyval":{"public":""}}"#);
            (Node::Text(format!("many-{number}")), unknown)
        })),
        _ => {
            let Some(Node::Text(public)) = table[index].1.at(&["keyval", "public"]) else { return };
            let other = match rng.below(9) {
                0 => public.to_uppercase(),
                1 => format!(" {public}\n"),
                2 => format!("0x{public}"),
                3 => public[..public.len().min(62)].to_owned(),
                4 => format!("{public}00"),
                5 => String::new(),
                6 => spki_pem(public),
                7 => "ff".repeat(32),
                _ => format!("01{}", "00".repeat(31)),
            };
            table[index].1.at(&["keyval"]).expect("seen").set("public", Node::Text(other));
        }
    }
}

/// An ed25519 key in the PEM form that TUF has for other keys.
fn spki_pem(hex: &str) -> String {
    let Ok(raw) = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()) else { return hex.to_owned() };
    let der = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(), &raw].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", data_encoding::BASE64.encode(&der))
}

/// One key under two names, or a key that everything is a signature of, where two or one are needed.
fn shared_key(rng: &mut Rng, repository: &mut Repository, level: Level) {
    let (kind, shape) = (repository.kind, repository.shape);
    let name = match level {
        Level::Root => rng.pick(&["timestamp", "snapshot", "targets"]),
        _ => "targets",
    };
    let signers = match name {
        "timestamp" => &mut repository.timestamp.signers,
        "snapshot" => &mut repository.snapshot.signers,
        _ => &mut repository.roles.get_mut("targets").expect("always there").signers,
    };
    let Some((keyid, key)) = signers.first().cloned() else { return };
    let root = repository.roots.last_mut().expect("there is a first root");
    if rng.chance(50) {
        let mut object = Node::from(kind.object(key));
        let spelled = rng.below(3);
        if spelled == 1 {
            object.set("x-owner", Node::from("other"));
        }
        if spelled == 2
            && let Some(Node::Text(public)) = object.at(&["keyval", "public"])
        {
            *public = public.to_uppercase();
        }
        if let Some(table) = root.signed.at(&["keys"]) {
            table.set("alias", object);
        }
        if let Some(role) = root.signed.at(&["roles", name]) {
            role.set("threshold", Node::number(rng.pick(&[1, 2, 2, 3])));
            if let Some(keyids) = role.at(&["keyids"]).and_then(Node::items) {
                keyids.push(Node::from("alias"));
            }
        }
        signers.push(("alias".to_owned(), key));
        if shape == crate::repository::Shape::Thresholds && rng.chance(50) {
            signers.truncate(1);
            signers.push(("alias".to_owned(), key));
        }
        return;
    }
    // The neutral element, and points of order 2, 4 and 8.
    let points = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    ];
    let public = (rng.pick(&points)).to_owned();
    if let Some(value) = root.signed.at(&["keys", &keyid, "keyval"]) {
        value.set("public", Node::Text(public));
    }
    let neutral = format!("01{}", "00".repeat(63));
    let document = match name {
        "timestamp" => &mut repository.timestamp,
        "snapshot" => &mut repository.snapshot,
        _ => repository.roles.get_mut("targets").expect("always there"),
    };
    document.signatures.push(SignatureEdit::Text(0, neutral));
}

const PATTERNS: [&str; 30] = [
    "**",
    "a**",
    "***",
    "[",
    "[]",
    "[!]",
    "[]]",
    "[!x]*",
    "[a-",
    "[z-a]",
    "{a,b}",
    "\\*",
    "a/*",
    "*",
    "*/*",
    "?",
    "",
    "/",
    "a/",
    "a//b",
    "a/[^x]",
    "[[:alpha:]]",
    ".*",
    "\u{e9}?",
    "[\u{e9}]",
    "a/**/b",
    "**/x",
    "*\u{0}",
    "[a-c]/?",
    "[!a]/?",
];

const PATHS: [&str; 22] = [
    "a",
    "a/x",
    "a/b/c",
    "a/b",
    "x",
    "",
    "/",
    "a/",
    ".hidden",
    "[",
    "]",
    "*",
    "a/*",
    "\u{e9}1",
    "\u{e9}",
    "e\u{301}1",
    "../a",
    "a//b",
    "^",
    "{a,b}",
    "\\a",
    "b/^",
];

fn delegation(rng: &mut Rng, document: &mut Document, paths: &mut Vec<String>) {
    paths.extend((0..3).map(|_| (rng.pick(&PATHS)).to_owned()));
    if document.signed.at(&["delegations"]).is_none() {
        let keys = rng.pick(&["{}", "null", "[]"]);
        let role = r#"{"name":"made","keyids":[],"threshold":1,"terminating":false,"paths":["*"]}"#;
        let roles = rng.pick(&["[]", "null", "{}", role]);
        let value = match rng.below(5) {
            0 => any_value(rng),
            1 => Node::Literal(format!("{{\"keys\":{keys}}}")),
            2 => Node::Literal(format!("{{\"roles\":{roles}}}")),
            3 => Node::Literal(format!("{{\"keys\":{{}},\"roles\":[{role}]}}")),
            _ => Node::Literal(format!("{{\"keys\":{keys},\"roles\":{roles}}}")),
        };
        document.signed.set("delegations", value);
        return;
    }
    if rng.chance(10) {
        let place = rng.pick(&["keys", "roles", "x-unknown", "succinct_roles"]);
        let value = any_value(rng);
        let delegations = document.signed.at(&["delegations"]).expect("seen");
        if rng.chance(50) {
            delegations.set(place, value);
        } else {
            delegations.remove(place);
        }
        return;
    }
    let Some(roles) = document.signed.at(&["delegations", "roles"]).and_then(Node::items) else { return };
    if roles.is_empty() {
        return;
    }
    let index = rng.below(roles.len());
    let names = ["root", "timestamp", "snapshot", "targets", "", "unlisted", "../x", "x.json", "TARGETS", "\u{0}"];
    match rng.below(20) {
        0 => roles.reverse(),
        1 => {
            roles.remove(index);
        }
        2 => {
            let again = roles[index].clone();
            roles.push(again);
        }
        3 | 4 => roles[index].set("name", Node::from(rng.pick(&names))),
        5 => roles[index].set("name", Node::Text("n".repeat(rng.pick(&[128, 129])))),
        6 => roles[index].remove("terminating"),
        7 => roles[index].set("terminating", any_value(rng)),
        8 => roles[index].set("terminating", Node::literal(rng.pick(&["true", "false"]))),
        9 => {
            roles[index].remove("paths");
            roles[index].remove("path_hash_prefixes");
        }
        10 => {
            roles[index].set("paths", Node::literal("[\"*\"]"));
            roles[index].set("path_hash_prefixes", Node::literal("[\"\"]"));
        }
        11 => {
            roles[index].set("paths", any_value(rng));
            roles[index].remove("path_hash_prefixes");
        }
        12 => {
            let prefixes = ["[\"\"]", "[\"A\",\"B\"]", "[\"0\",\"1\",\"2\"]", "[\"x\"]", "[]", "null", "[1]"];
            roles[index].remove("paths");
            roles[index].set("path_hash_prefixes", Node::literal(rng.pick(&prefixes)));
        }
        13 => {
            roles[index].remove("path_hash_prefixes");
            let long = "p".repeat(rng.pick(&[512, 513]));
            roles[index].set("paths", Node::List(vec![Node::Text(long)]));
        }
        _ => {
            roles[index].remove("path_hash_prefixes");
            let count = 1 + rng.below(2);
            let patterns = (0..count).map(|_| Node::from(rng.pick(&PATTERNS))).collect();
            roles[index].set("paths", Node::List(patterns));
        }
    }
}

fn target(rng: &mut Rng, document: &mut Document, paths: &mut Vec<String>) {
    let Some(table) = document.signed.at(&["targets"]).and_then(Node::fields) else { return };
    if table.is_empty() || rng.chance(30) {
        let path = if rng.chance(20) { "p".repeat(rng.pick(&[511, 512, 513])) } else { (rng.pick(&PATHS)).to_owned() };
        let value =
            if rng.chance(20) { any_value(rng) } else { Node::literal(r#"{"length":1,"hashes":{"sha256":"00"}}"#) };
        table.push((Node::Text(path.clone()), value));
        paths.push(path);
        return;
    }
    let index = rng.below(table.len());
    let info = &mut table[index].1;
    match rng.below(10) {
        0 => info.remove("length"),
        1 => info.remove("hashes"),
        2 | 3 => info.set("length", number(rng, 3)),
        4 => info.set("hashes", any_value(rng)),
        5 => info.set(
            "hashes",
            Node::literal(rng.pick(&["{}", "{\"sha256\":\"\"}", "{\"md5\":\"A\"}", "{\"\":\"\"}", "{\"sha256\":1}"])),
        ),
        6 => info.set("custom", any_value(rng)),
        7 => info.set("x-unknown", any_value(rng)),
        8 => *info = any_value(rng),
        _ => {
            table.remove(index);
        }
    }
}

fn header(rng: &mut Rng, document: &mut Document, level: Level) {
    let specs = [
        "1",
        "1.",
        "1.0",
        "1.0.0",
        "1.0.34",
        "1.99.99",
        "2.0.0",
        "0.9",
        "1.x",
        "1.0.0.0",
        "1.0.0-rc",
        "",
        "01.0",
        " 1.0",
        "v1.0",
        "1.0.\u{663}",
    ];
    match rng.below(8) {
        0 | 1 => document.signed.set("spec_version", Node::from(rng.pick(&specs))),
        2 => {
            let place = rng.pick(&["spec_version", "_type", "version", "expires"]);
            document.signed.remove(place);
        }
        3 => {
            let names = ["root", "timestamp", "snapshot", "targets", "Root", "", "mirrors"];
            document.signed.set("_type", Node::from(rng.pick(&names)));
        }
        4 => {
            let place = rng.pick(&["spec_version", "_type"]);
            document.signed.set(place, any_value(rng));
        }
        5 => document.signed.set("x-unknown", any_value(rng)),
        6 => match level {
            Level::Root => document.signed.set("consistent_snapshot", any_value(rng)),
            Level::Timestamp => {
                let place = rng.pick(&["signed_at", "prev_sha256"]);
                document.signed.set(place, any_value(rng));
            }
            Level::Targets | Level::Delegated => document.signed.set("updraft", any_value(rng)),
            Level::Snapshot => document.signed.set("signed_at", any_value(rng)),
        },
        _ => document.signed.set("x-\u{e9}", Node::literal(r#"{"b":[{}],"a":"\n"}"#)),
    }
}
