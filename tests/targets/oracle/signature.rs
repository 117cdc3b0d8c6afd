//! What is done to the signatures of a document after it was signed.

use serde_json::json;

use crate::node::Node;
use crate::rng::Rng;
use crate::signer::KeyKind;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SignatureEdit {
    Drop(usize),
    DropAll,
    /// The same signature again.
    Repeat(usize),
    /// Another text under the same key id, before or after the right one.
    Rival {
        index: usize,
        text: String,
        first: bool,
    },
    /// An unknown key id twice.
    RepeatUnknown(String),
    BitFlip(usize, usize),
    /// By this key, under the key id of another.
    Forge(usize, u8),
    /// By a key that this role has not, under its own key id.
    Foreign(String, u8),
    UpperCase(usize),
    UpperCaseKeyId(usize),
    Junk(usize),
    Text(usize, String),
    Value(usize, Node),
    KeyId(usize, Node),
    Field(usize, Node, Node),
    /// `["KEYID", "SIG"]` in place of an object.
    AsList(usize),
    Insert(Node),
    Reverse,
    /// ed25519: `s` and the order of the group, the same signature to a careless verifier.
    Malleate(usize),
    Replace(Node),
}

fn signature(items: &mut [Node], index: usize) -> Option<&mut Node> {
    let count = items.len().max(1);
    items.get_mut(index % count)
}

fn text_of<'a>(signature: &'a mut Node, field: &str) -> Option<&'a mut String> {
    match signature.at(&[field])? {
        Node::Text(text) => Some(text),
        _ => None,
    }
}

/// Little-endian: 2^252 + 27742317777372353535851937790883648493.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn malleated(hex: &str) -> Option<String> {
    let mut bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    let mut carry = 0_u16;
    for (byte, order) in bytes.get_mut(32..64)?.iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    Some(data_encoding::HEXLOWER.encode(&bytes))
}

impl SignatureEdit {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let index = rng.below(3);
        let junk = "ab".repeat(64);
        match rng.below(28) {
            0 => Self::Drop(index),
            1 => Self::DropAll,
            2 => Self::Repeat(index),
            3 | 4 => {
                let text = rng.pick(&["", "00", &junk, "zz"]).to_string();
                Self::Rival { index, text, first: rng.chance(50) }
            }
            5 => Self::RepeatUnknown("unknown".to_owned()),
            6 | 7 => Self::BitFlip(index, rng.below(512)),
            8 => Self::Forge(index, 40),
            9 => Self::Foreign("foreign".to_owned(), 41),
            10 => Self::UpperCase(index),
            11 => Self::UpperCaseKeyId(index),
            12 => Self::Junk(rng.pick(&[1, 3, 62, 63, 64, 70])),
            13 | 14 => {
                let texts = ["", "0", "0x00", "zz", " ", "\u{e9}", "00\n", &junk];
                Self::Text(index, (rng.pick(&texts)).to_owned())
            }
            15 | 16 => Self::Value(index, any_value(rng)),
            17 => Self::KeyId(index, any_value(rng)),
            18 => Self::KeyId(index, Node::Text("k".repeat(rng.pick(&[255, 256, 257, 1000])))),
            19 => Self::Field(index, Node::from("x-unknown"), any_value(rng)),
            20 => Self::Field(index, Node::from("sig"), Node::from("00")),
            21 => Self::Field(index, Node::from("keyid"), Node::from("other")),
            22 => Self::AsList(index),
            23 => Self::Insert(any_value(rng)),
            24 => Self::Insert(json!({"keyid": "unknown", "sig": ""}).into()),
            25 => Self::Reverse,
            26 => Self::Malleate(index),
            _ => Self::Replace(any_value(rng)),
        }
    }

    pub(crate) fn apply(&self, signatures: &mut Node, kind: KeyKind, message: &[u8]) {
        if let Self::Replace(value) = self {
            *signatures = value.clone();
            return;
        }
        let Some(items) = signatures.items() else { return };
        let listed = |keyid: &str, bytes: &[u8]| -> Node {
            json!({"keyid": keyid, "sig": data_encoding::HEXLOWER.encode(bytes)}).into()
        };
        match self {
            Self::Drop(index) if !items.is_empty() => {
                items.remove(index % items.len());
            }
            Self::DropAll => items.clear(),
            Self::Repeat(index) => {
                let repeated = signature(items, *index).cloned();
                items.extend(repeated);
            }
            Self::Rival { index, text, first } => {
                if let Some(mut rival) = signature(items, *index).cloned() {
                    rival.set("sig", Node::from(text.as_str()));
                    let place = if *first { 0 } else { items.len() };
                    items.insert(place, rival);
                }
            }
            Self::RepeatUnknown(keyid) => items.extend([listed(keyid, b"x"), listed(keyid, b"y")]),
            Self::BitFlip(index, bit) => {
                if let Some(text) = signature(items, *index).and_then(|found| text_of(found, "sig"))
                    && let Ok(mut bytes) = data_encoding::HEXLOWER.decode(text.as_bytes())
                    && let count = bytes.len().max(1) * 8
                    && let Some(byte) = bytes.get_mut((bit % count) / 8)
                {
                    *byte ^= 1 << (bit % 8);
                    *text = data_encoding::HEXLOWER.encode(&bytes);
                }
            }
            Self::Forge(index, key) => {
                if let Some(text) = signature(items, *index).and_then(|found| text_of(found, "sig")) {
                    *text = data_encoding::HEXLOWER.encode(&kind.sign(*key, message));
                }
            }
            Self::Foreign(keyid, key) => items.push(listed(keyid, &kind.sign(*key, message))),
            Self::UpperCase(index) => {
                if let Some(text) = signature(items, *index).and_then(|found| text_of(found, "sig")) {
                    text.make_ascii_uppercase();
                }
            }
            Self::UpperCaseKeyId(index) => {
                if let Some(text) = signature(items, *index).and_then(|found| text_of(found, "keyid")) {
                    text.make_ascii_uppercase();
                }
            }
            Self::Junk(count) => items.extend((0..*count).map(|index| listed(&format!("junk-{index}"), b"junk"))),
            Self::Text(index, text) => {
                if let Some(found) = signature(items, *index) {
                    found.set("sig", Node::from(text.as_str()));
                }
            }
            Self::Value(index, value) => {
                if let Some(found) = signature(items, *index) {
                    found.set("sig", value.clone());
                }
            }
            Self::KeyId(index, value) => {
                if let Some(found) = signature(items, *index) {
                    found.set("keyid", value.clone());
                }
            }
            Self::Field(index, key, value) => {
                if let Some(fields) = signature(items, *index).and_then(Node::fields) {
                    fields.push((key.clone(), value.clone()));
                }
            }
            Self::AsList(index) => {
                if let Some(found) = signature(items, *index)
                    && let Node::Object(fields) = found
                {
                    *found = Node::List(fields.iter().map(|(_, value)| value.clone()).collect());
                }
            }
            Self::Insert(value) => items.push(value.clone()),
            Self::Reverse => items.reverse(),
            Self::Malleate(index) => {
                if let Some(text) = signature(items, *index).and_then(|found| text_of(found, "sig"))
                    && let Some(other) = malleated(text)
                {
                    *text = other;
                }
            }
            Self::Drop(_) | Self::Replace(_) => {}
        }
    }
}

/// A value of any type, most of them wrong wherever they are put.
pub(crate) fn any_value(rng: &mut Rng) -> Node {
    let literals = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "-1",
        "1.0",
        "1.5",
        "1e2",
        "-0",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775808",
        "[]",
        "{}",
        "[1]",
        "[[]]",
        "{\"a\":1}",
        "\"\"",
        "\"1\"",
        "\"x\"",
        "[\"x\"]",
        "\"\\ud83d\\ude00\"",
    ];
    Node::literal(rng.pick(&literals))
}
