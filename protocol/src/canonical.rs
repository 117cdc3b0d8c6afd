//! Canonical JSON (OLPC form): the exact bytes that signatures cover.
//!
//! TUF signs the canonical encoding of a JSON value, so two readers that disagree about what a text
//! means, or about how a value is written, disagree about what was signed. Reading is therefore
//! strict (a duplicate key is refused, not resolved) and writing normalises nothing: two different
//! strings never encode alike. It must never accept a number that is not a 64-bit integer.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::limits::MAX_JSON_DEPTH;

/// Why bytes are not the JSON that signed metadata is made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Broken syntax, a duplicate key, a number that is not a 64-bit integer, or nesting too deep.
    #[error("not strict JSON: {0}")]
    Strict(String),
}

/// Parses exactly one strict JSON value. The caller bounds the length of `bytes`.
///
/// Refused beside broken syntax: duplicate keys, numbers that are not 64-bit integers, nesting
/// deeper than [`MAX_JSON_DEPTH`], anything after the value.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let refuse = |error: serde_json::Error| JsonError::Strict(error.to_string());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(refuse)?;
    reader.end().map_err(refuse)?;
    Ok(value)
}

/// Encodes `value` canonically: keys sorted by code point, no white space, only `\` and `"` escaped.
///
/// Every value that [`parse`] yields has exactly one encoding. A float, which [`parse`] never
/// yields, is written as Rust shows it.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(value, &mut out);
    out
}

/// Canonical bytes as JSON that any parser reads: the canonical form leaves control characters inside
/// texts as they are, JSON wants them escaped. Without control characters both forms are one.
pub(crate) fn escape_controls(canonical: Vec<u8>) -> Vec<u8> {
    if !canonical.iter().any(u8::is_ascii_control) {
        return canonical;
    }
    // Nothing outside a text is a control character: the canonical form has no white space.
    let mut json = Vec::with_capacity(canonical.len() + 16);
    for byte in canonical {
        if byte.is_ascii_control() {
            json.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            json.push(byte);
        }
    }
    json
}

/// The value of a type of this crate, whose map keys are texts and whose numbers are integers.
pub(crate) fn value_of<T: serde::Serialize>(data: &T) -> Value {
    serde_json::to_value(data).expect("text keys and integers are all that JSON needs")
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            // Sorted here, because the map keeps insertion order as soon as any crate of the build
            // asks serde_json for that. UTF-8 bytes sort as code points do.
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write_value(item, out);
            }
            out.push(b'}');
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'\\' | b'"') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Builds a [`Value`] while refusing what two readers could understand differently.
#[derive(Clone, Copy)]
struct Strict {
    /// Arrays and objects around the value being read.
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_JSON_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_JSON_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON whose numbers are 64-bit integers")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format_args!("the key {shown:?} appears twice")));
            }
            let value = entries.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recode(text: &str) -> Option<String> {
        let value = parse(text.as_bytes()).ok()?;
        Some(String::from_utf8(encode(&value)).expect("canonical JSON of text is text"))
    }

    #[test]
    fn each_value_has_the_published_encoding() {
        let vectors = include_str!("../tests/vectors/canonical.txt");
        let mut checked = 0;
        for line in vectors.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (input, expected) = line.split_once(" => ").expect("a vector is INPUT => OUTPUT");
            let found = recode(input);
            assert_eq!(found.as_deref(), (expected != "refused").then_some(expected), "{input}");
            checked += 1;
        }
        assert!(checked > 20, "only {checked} vectors were read");
    }

    #[test]
    fn control_characters_are_written_raw_and_not_normalised() {
        let value = Value::String("a\nb\u{0}\u{7f}e\u{301}\u{e9}".to_owned());
        assert_eq!(encode(&value), "\"a\nb\u{0}\u{7f}e\u{301}\u{e9}\"".as_bytes());
    }

    #[test]
    fn distinct_keys_that_normalise_alike_stay_distinct() {
        let value = parse("{\"\u{e9}\":1,\"e\u{301}\":2}".as_bytes()).expect("two distinct keys");
        assert_eq!(encode(&value), "{\"e\u{301}\":2,\"\u{e9}\":1}".as_bytes());
    }

    #[test]
    fn nesting_stops_at_the_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_JSON_DEPTH).as_bytes()).is_ok());
        assert!(parse(nested(MAX_JSON_DEPTH + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn a_refusal_names_the_duplicate_key() {
        let error = parse(br#"{"a":{"version":1,"version":2}}"#).expect_err("a duplicate key");
        assert!(error.to_string().contains("\"version\" appears twice"), "{error}");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse(b"\"\xed\xa0\x80\"").is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[^\u{0}-\u{1f}]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[^\u{0}-\u{1f}]{0,6}", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_survives_its_encoding(value in any_value()) {
            prop_assert_eq!(parse(&encode(&value)), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn arbitrary_json_like_text_never_panics(text in r#"[\[\]{}",:0-9eE.+\-a\\u ntf]{0,64}"#) {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(parse(&encode(&value)), Ok(value));
            }
        }
    }
}
