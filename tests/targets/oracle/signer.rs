//! The keys of the generated repositories, by number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};
use updraft_protocol::digest::Digest;
use updraft_protocol::key::SigningKey;

/// Keys there are; no repository uses more.
const KEYS: u8 = 48;

/// Signatures that are remembered at most.
const MAX_REMEMBERED: usize = 1 << 14;

/// What the keys of a repository are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Ed25519,
}

/// Every kind that both verifiers check signatures of.
pub(crate) const KINDS: [KeyKind; 1] = [KeyKind::Ed25519];

fn ed25519(key: u8) -> &'static (SigningKey, Value) {
    static KEYRING: OnceLock<Vec<(SigningKey, Value)>> = OnceLock::new();
    let keyring = KEYRING.get_or_init(|| {
        let key = |seed| {
            let key = SigningKey::from_seed([seed + 1; 32]);
            let public = key.public().public().to_owned();
            (key, json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}}))
        };
        (0..KEYS).map(key).collect()
    });
    &keyring[usize::from(key % KEYS)]
}

thread_local! {
    /// Most documents of most cases are those of other cases.
    static SIGNED: RefCell<BTreeMap<(u8, Digest), Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

impl KeyKind {
    /// The key as a key table holds it.
    pub(crate) fn object(self, key: u8) -> Value {
        match self {
            Self::Ed25519 => ed25519(key).1.clone(),
        }
    }

    pub(crate) fn sign(self, key: u8, message: &[u8]) -> Vec<u8> {
        SIGNED.with_borrow_mut(|signed| {
            if signed.len() >= MAX_REMEMBERED {
                signed.clear();
            }
            let made = || match self {
                Self::Ed25519 => ed25519(key).0.sign(message),
            };
            signed.entry((key, Digest::of(message))).or_insert_with(made).clone()
        })
    }
}
