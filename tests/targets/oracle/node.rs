//! JSON as somebody wrote it: keys may repeat, numbers and texts may be spelled in any way, or wrongly.

use std::fmt::Write as _;

use serde_json::Value;
use updraft_protocol::canonical;

use crate::rng::Rng;

/// One JSON value, still in the spelling that it will be written in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// Written as it is: `null`, `1e3`, `"\ud800"`, or no JSON at all.
    Literal(String),
    Text(String),
    List(Vec<Node>),
    /// In this order; keys are texts or literals, and may repeat.
    Object(Vec<(Node, Node)>),
}

/// How a value is spelled where JSON leaves the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    Compact,
    Spaced,
    /// Every character outside `a-z` of a text as `\uXXXX`.
    Escaped,
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(fields) => {
                Self::Object(fields.into_iter().map(|(key, value)| (Self::Text(key), value.into())).collect())
            }
            plain => Self::Literal(plain.to_string()),
        }
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Node {
    pub(crate) fn literal(text: &str) -> Self {
        Self::Literal(text.to_owned())
    }

    pub(crate) fn number(number: u64) -> Self {
        Self::Literal(number.to_string())
    }

    pub(crate) fn write(&self, spelling: Spelling) -> Vec<u8> {
        let mut out = String::new();
        self.write_to(spelling, &mut out);
        out.into_bytes()
    }

    fn write_to(&self, spelling: Spelling, out: &mut String) {
        let gap = if spelling == Spelling::Spaced { "\n\t " } else { "" };
        match self {
            Self::Literal(text) => out.push_str(text),
            Self::Text(text) => write_text(text, spelling, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(gap);
                    item.write_to(spelling, out);
                }
                out.push_str(gap);
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(gap);
                    key.write_to(spelling, out);
                    out.push_str(gap);
                    out.push(':');
                    out.push_str(gap);
                    value.write_to(spelling, out);
                }
                out.push_str(gap);
                out.push('}');
            }
        }
    }

    /// The canonical form of what a lenient reader takes this for, the last of two equal keys; the
    /// written form where no reader gets through.
    pub(crate) fn canonical(&self) -> Vec<u8> {
        let written = self.write(Spelling::Compact);
        serde_json::from_slice::<Value>(&written).map_or(written, |value| canonical::encode(&value))
    }

    /// The same with the first of two equal keys.
    pub(crate) fn first_of_each(&self) -> Self {
        match self {
            Self::List(items) => Self::List(items.iter().map(Self::first_of_each).collect()),
            Self::Object(fields) => {
                let mut kept: Vec<(Self, Self)> = Vec::new();
                for (key, value) in fields {
                    if !kept.iter().any(|(known, _)| known == key) {
                        kept.push((key.clone(), value.first_of_each()));
                    }
                }
                Self::Object(kept)
            }
            plain => plain.clone(),
        }
    }

    pub(crate) fn fields(&mut self) -> Option<&mut Vec<(Self, Self)>> {
        match self {
            Self::Object(fields) => Some(fields),
            _ => None,
        }
    }

    pub(crate) fn items(&mut self) -> Option<&mut Vec<Self>> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value at a path of keys.
    pub(crate) fn at(&mut self, path: &[&str]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self);
        };
        let wanted = Self::from(*first);
        self.fields()?.iter_mut().find(|(key, _)| *key == wanted)?.1.at(rest)
    }

    /// Sets a field of an object; of anything else, nothing.
    pub(crate) fn set(&mut self, key: &str, value: Self) {
        let Some(fields) = self.fields() else { return };
        match fields.iter_mut().find(|(known, _)| *known == Self::from(key)) {
            Some((_, place)) => *place = value,
            None => fields.push((Self::from(key), value)),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(fields) = self.fields() {
            fields.retain(|(known, _)| *known != Self::from(key));
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Literal(_) | Self::Text(_) => 1,
            Self::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Self::Object(fields) => 1 + fields.iter().map(|(_, value)| value.count()).sum::<usize>(),
        }
    }

    fn nth(&mut self, mut index: usize) -> &mut Self {
        if index == 0 {
            return self;
        }
        index -= 1;
        let children: Vec<&mut Self> = match self {
            Self::Literal(_) | Self::Text(_) => Vec::new(),
            Self::List(items) => items.iter_mut().collect(),
            Self::Object(fields) => fields.iter_mut().map(|(_, value)| value).collect(),
        };
        for child in children {
            let size = child.count();
            if index < size {
                return child.nth(index);
            }
            index -= size;
        }
        unreachable!("the index is below the count")
    }

    /// Any value inside, this one included.
    pub(crate) fn any_mut(&mut self, rng: &mut Rng) -> &mut Self {
        let count = self.count();
        self.nth(rng.below(count))
    }

    /// Any object inside with at least one field.
    pub(crate) fn any_object_mut(&mut self, rng: &mut Rng) -> &mut Vec<(Self, Self)> {
        for _ in 0..16 {
            let index = rng.below(self.count());
            if matches!(self.nth(index), Self::Object(fields) if !fields.is_empty()) {
                return self.nth(index).fields().expect("seen to be an object");
            }
        }
        if self.fields().is_none() {
            *self = Self::Object(Vec::new());
        }
        self.fields().expect("made an object")
    }
}

fn write_text(text: &str, spelling: Spelling, out: &mut String) {
    if spelling == Spelling::Escaped {
        out.push('"');
        for unit in text.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii_lowercase() => out.push(char::from(byte)),
                _ => write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail"),
            }
        }
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}
