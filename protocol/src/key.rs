//! Public keys as TUF metadata states them, and the private keys that sign it.
//!
//! A key that this version cannot use (an unknown scheme, a broken value) is kept as it was signed
//! and simply never verifies anything: metadata that also serves newer clients stays readable. A
//! private key never appears in debug output and is wiped when dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::canonical;
use crate::digest::Digest;
use crate::limits::MAX_KEY_ID_BYTES;

use verifying::VerifyingKey;

mod low_s;
mod spki;
mod verifying;

/// Why a text is not a usable key or key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key id of no bytes or too many.
    #[error("a key id has {found} bytes; 1 to {MAX_KEY_ID_BYTES} are allowed")]
    KeyIdLength {
        /// Bytes found.
        found: usize,
    },
    /// Not a PKCS#8 PEM file of an ed25519 key. The reason never quotes key material.
    #[error("not an unencrypted ed25519 private key in PKCS#8 PEM form: {reason}")]
    PrivateKey {
        /// What the decoder said.
        reason: String,
    },
    /// A private key that could not be written as PKCS#8 PEM.
    #[error("cannot write the private key as PKCS#8 PEM: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },
}

/// The name of a key inside one key table. Opaque to a verifier: the specification does not let
/// clients rely on it being a hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The key id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() || text.len() > MAX_KEY_ID_BYTES {
            return Err(KeyError::KeyIdLength { found: text.len() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A signature scheme that metadata may name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `ed25519`: signed and verified.
    Ed25519,
    /// `ecdsa-sha2-nistp256`: verified.
    EcdsaSha2Nistp256,
    /// `rsassa-pss-sha256`: verified.
    RsassaPssSha256,
    /// Any other text: kept, never verified.
    Unknown(String),
}

impl Scheme {
    fn of(text: &str) -> Self {
        match text {
            "ed25519" => Self::Ed25519,
            "ecdsa-sha2-nistp256" => Self::EcdsaSha2Nistp256,
            "rsassa-pss-sha256" => Self::RsassaPssSha256,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// The scheme's name in metadata.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaSha2Nistp256 => "ecdsa-sha2-nistp256",
            Self::RsassaPssSha256 => "rsassa-pss-sha256",
            Self::Unknown(other) => other,
        }
    }
}

/// A public key as a key table holds it: TUF 4.2 `KEY`, unknown fields kept.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "KeyObject", into = "KeyObject")]
pub struct PublicKey {
    object: KeyObject,
    scheme: Scheme,
    usable: Option<VerifyingKey>,
}

#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct KeyObject {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct KeyValue {
    public: String,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

impl From<KeyObject> for PublicKey {
    fn from(object: KeyObject) -> Self {
        let scheme = Scheme::of(&object.scheme);
        let usable = VerifyingKey::read(&object.keytype, &scheme, &object.keyval.public);
        Self { object, scheme, usable }
    }
}

impl From<PublicKey> for KeyObject {
    fn from(key: PublicKey) -> Self {
        key.object
    }
}

impl PublicKey {
    /// The ed25519 public key of these 32 bytes. Bytes that are no curve point make a key that
    /// verifies nothing.
    pub fn ed25519(bytes: [u8; 32]) -> Self {
        Self::from(KeyObject {
            keytype: "ed25519".to_owned(),
            scheme: "ed25519".to_owned(),
            keyval: KeyValue { public: HEXLOWER.encode(&bytes), other: BTreeMap::new() },
            other: BTreeMap::new(),
        })
    }

    /// The key id that signers use: SHA-256 of the canonical JSON of the key object.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&canonical::encode(&self.object.to_value())).to_string())
    }

    /// The scheme that the key states.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The public value as metadata states it: hexadecimal for ed25519, PEM for the others.
    pub fn public(&self) -> &str {
        &self.object.keyval.public
    }

    /// Whether this version can verify with this key at all.
    pub fn is_usable(&self) -> bool {
        self.usable.is_some()
    }

    /// Whether `signature` is this key's over `message`. False for a key that is not usable.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.usable.as_ref().is_some_and(|key| key.verify(message, signature))
    }

    /// The one form of a signature that [`PublicKey::verify`] takes: of several that anybody can turn
    /// into one another without the key, always the same. What must have one encoding carries this one
    /// alone. `None` for what is no signature, and for a key that is not usable.
    pub fn exact_signature(&self, signature: &[u8]) -> Option<Vec<u8>> {
        self.usable.as_ref()?.exact_signature(signature)
    }

    /// Whether both objects name one key, however their text or their key ids differ. Two names of
    /// one key must not count twice.
    pub fn is_same_key(&self, other: &Self) -> bool {
        match (&self.usable, &other.usable) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.scheme == other.scheme && self.object.keyval.public == other.object.keyval.public,
        }
    }
}

impl KeyObject {
    fn to_value(&self) -> Value {
        let mut keyval: serde_json::Map<String, Value> = self.keyval.other.clone().into_iter().collect();
        keyval.insert("public".to_owned(), Value::from(self.keyval.public.as_str()));
        let mut object: serde_json::Map<String, Value> = self.other.clone().into_iter().collect();
        object.insert("keytype".to_owned(), Value::from(self.keytype.as_str()));
        object.insert("scheme".to_owned(), Value::from(self.scheme.as_str()));
        object.insert("keyval".to_owned(), Value::Object(keyval));
        Value::Object(object)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.scheme.as_str(), self.object.keyval.public)
    }
}

/// An ed25519 private key. Wiped when dropped; never shown.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a 32-byte seed (RFC 8032's private key). The caller draws the seed at random.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Reads a PKCS#8 PEM file (`-----BEGIN PRIVATE KEY-----`), with or without its public key.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|error| KeyError::PrivateKey { reason: error.to_string() })
    }

    /// The key as a PKCS#8 PEM file, version 1 (without the public key), which every tool reads.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        KeypairBytes { secret_key: self.0.to_bytes(), public_key: None }
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| KeyError::Encode { reason: error.to_string() })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::ed25519(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`: 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8032, 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32])
    }

    fn from_json(text: &str) -> PublicKey {
        serde_json::from_str(text).expect("a key object")
    }

    #[test]
    fn the_first_vector_of_rfc_8032_holds() {
        let seed = HEXLOWER.decode(SEED.as_bytes()).expect("hexadecimal");
        let key = SigningKey::from_seed(seed.try_into().expect("32 bytes"));
        assert_eq!(key.public().public(), PUBLIC);
        assert_eq!(HEXLOWER.encode(&key.sign(b"")), SIGNATURE);
        assert!(key.public().verify(b"", &key.sign(b"")));
        assert!(!key.public().verify(b"x", &key.sign(b"")));
    }

    #[test]
    fn the_key_id_is_the_one_other_tuf_tools_compute() {
        let object = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{PUBLIC}"}},"scheme":"ed25519"}}"#);
        assert_eq!(from_json(&object).id().as_str(), Digest::of(object.as_bytes()).to_string());
    }

    #[test]
    fn a_private_key_survives_its_pem_file() {
        let pem = key(7).to_pkcs8_pem().expect("a PEM file");
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let back = SigningKey::from_pkcs8_pem(&pem).expect("the same key");
        assert_eq!(back.public(), key(7).public());
    }

    #[test]
    fn a_broken_pem_file_is_refused_without_quoting_it() {
        let pem = key(7).to_pkcs8_pem().expect("a PEM file");
        let broken = pem.replace("PRIVATE KEY", "PUBLIC KEY");
        let error = SigningKey::from_pkcs8_pem(&broken).expect_err("the wrong label");
        let secret = pem.lines().nth(1).expect("the body");
        assert!(!error.to_string().contains(secret));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let shown = format!("{:?}", key(0x41));
        assert!(
            !shown.contains(&"41".repeat(16)) && !shown.contains("AAAAAAAA") && !shown.contains("65, 65"),
            "{shown}"
        );
    }

    #[test]
    fn unknown_fields_stay_and_change_the_key_id() {
        let plain = key(1).public();
        let extended = from_json(&format!(
            r#"{{"keytype":"ed25519","keyval":{{"public":"{}","hint":1}},"scheme":"ed25519","owner":"ops"}}"#,
            plain.public()
        ));
        assert_ne!(plain.id(), extended.id());
        assert!(plain.is_same_key(&extended));
        let text = serde_json::to_string(&extended).expect("JSON");
        assert!(text.contains("\"hint\":1") && text.contains("\"owner\":\"ops\""), "{text}");
    }

    #[test]
    fn the_same_key_in_upper_case_is_the_same_key() {
        let plain = key(1).public();
        let shouted = from_json(&format!(
            r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#,
            plain.public().to_uppercase()
        ));
        assert!(plain.is_same_key(&shouted));
    }

    #[test]
    fn a_key_of_another_type_or_scheme_is_kept_and_verifies_nothing() {
        let signature = key(1).sign(b"m");
        for (keytype, scheme) in [
            ("ecdsa", "ecdsa-sha2-nistp256"),
            ("rsa", "rsassa-pss-sha256"),
            ("x", "dilithium"),
            ("rsa", "ed25519"),
            ("ed25519", "rsassa-pss-sha256"),
        ] {
            let other = from_json(&format!(
                r#"{{"keytype":"{keytype}","keyval":{{"public":"{}"}},"scheme":"{scheme}"}}"#,
                key(1).public().public()
            ));
            assert_eq!(other.scheme().as_str(), scheme);
            assert!(!other.is_usable() && !other.verify(b"m", &signature), "{scheme}");
            assert_eq!(other.exact_signature(&signature), None, "{scheme}");
        }
    }

    /// `tests/vectors/signatures.json`, made with another library (OpenSSL, through pyca/cryptography).
    struct Vector {
        name: String,
        key: PublicKey,
        signature: Vec<u8>,
        usable: bool,
        valid: bool,
    }

    fn vectors() -> (String, Vec<Vector>) {
        let file: Value = serde_json::from_str(include_str!("../tests/vectors/signatures.json")).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let vector = |value: &Value| Vector {
            name: text(&value["name"]),
            key: serde_json::from_value(serde_json::json!({
                "keytype": value["keytype"], "scheme": value["scheme"], "keyval": {"public": value["public"]},
            }))
            .expect("a key object"),
            signature: HEXLOWER.decode(text(&value["signature"]).as_bytes()).expect("hexadecimal"),
            usable: value["usable"] == true,
            valid: value["valid"] == true,
        };
        let vectors: Vec<Vector> = file["vectors"].as_array().expect("vectors").iter().map(vector).collect();
        assert!(vectors.len() > 40, "only {} vectors were read", vectors.len());
        (text(&file["message"]), vectors)
    }

    fn named<'v>(vectors: &'v [Vector], name: &str) -> &'v Vector {
        vectors.iter().find(|vector| vector.name == name).unwrap_or_else(|| panic!("no vector '{name}'"))
    }

    #[test]
    fn every_vector_is_judged_as_it_says() {
        let (message, vectors) = vectors();
        for Vector { name, key, signature, usable, valid } in &vectors {
            assert_eq!(key.is_usable(), *usable, "{name}");
            assert_eq!(key.verify(message.as_bytes(), signature), *valid, "{name}");
            assert!(!key.verify(b"something else", signature), "{name}");
        }
    }

    #[test]
    fn one_key_in_several_texts_is_one_key() {
        let (_, vectors) = vectors();
        let plain = &named(&vectors, "P-256, low s").key;
        for name in [
            "P-256 under the historical key type",
            "P-256, one long line without a final line end",
            "P-256, CRLF line ends",
        ] {
            let other = &named(&vectors, name).key;
            assert!(plain.is_same_key(other) && plain.id() != other.id(), "{name}");
        }
        assert!(!plain.is_same_key(&named(&vectors, "RSA 2048").key));
        assert!(!plain.is_same_key(&named(&vectors, "P-256, a point off the curve").key));
    }

    #[test]
    fn both_signatures_that_anybody_can_make_of_one_have_one_form() {
        let (message, vectors) = vectors();
        let low = named(&vectors, "P-256, low s");
        let high = named(&vectors, "P-256, high s: the same signature as TUF sees it");
        assert_ne!(low.signature, high.signature);
        assert_eq!(low.key.exact_signature(&low.signature), Some(low.signature.clone()));
        assert_eq!(low.key.exact_signature(&high.signature), Some(low.signature.clone()));
        assert!(low.key.verify(message.as_bytes(), &low.signature));
    }

    #[test]
    fn signatures_of_the_other_schemes_have_one_form_already() {
        let (_, vectors) = vectors();
        let rsa = named(&vectors, "RSA 2048");
        assert_eq!(rsa.key.exact_signature(&rsa.signature), Some(rsa.signature.clone()));
        assert_eq!(key(1).public().exact_signature(&key(1).sign(b"m")), Some(key(1).sign(b"m")));
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral element with R = neutral element and s = 0 satisfies the cofactored equation
        // for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey::ed25519(neutral).verify(b"anything", &signature));
    }

    #[test]
    fn key_ids_are_bounded() {
        assert!("".parse::<KeyId>().is_err());
        assert!("k".repeat(MAX_KEY_ID_BYTES + 1).parse::<KeyId>().is_err());
        assert!("any text at all".parse::<KeyId>().is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_signatures_and_keys_never_panic(bytes in any::<[u8; 32]>(), signature in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PublicKey::ed25519(bytes).verify(b"m", &signature);
        }

        #[test]
        fn arbitrary_pem_never_panics(text in "(-----BEGIN PRIVATE KEY-----\n)?[A-Za-z0-9+/=\n]{0,120}(-----END PRIVATE KEY-----\n)?") {
            let _ = SigningKey::from_pkcs8_pem(&text);
        }
    }
}
