//! Keys decoded so far that they verify, and so that one key in two texts compares as one.
//!
//! Every scheme is one pair of key type and signature scheme of TUF 4.2, verified as the specification
//! names it and in no other way: the scheme stands in the key, never in the signature, so nobody who
//! cannot sign chooses how a signature is checked.

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};

use super::spki::{self, POINT_BYTES, RsaNumbers};
use super::{Scheme, low_s};

/// A key that this version can verify with.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum VerifyingKey {
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
    P256(Box<[u8; POINT_BYTES]>),
    Rsa(Box<RsaNumbers>),
}

impl VerifyingKey {
    /// The key that `public` states, for the pairs of key type and scheme that are known.
    pub(super) fn read(keytype: &str, scheme: &Scheme, public: &str) -> Option<Self> {
        match (scheme, keytype) {
            (Scheme::Ed25519, "ed25519") => ed25519(public),
            // Until 2023 the specification gave the key type the name of the scheme.
            (Scheme::EcdsaSha2Nistp256, "ecdsa" | "ecdsa-sha2-nistp256") => {
                spki::p256(public).map(|point| Self::P256(Box::new(point)))
            }
            (Scheme::RsassaPssSha256, "rsa") => spki::rsa(public).map(|numbers| Self::Rsa(Box::new(numbers))),
            _ => None,
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // Strict: keys of small order and signatures with a second encoding are refused (RFC
            // 8032, 5.1.7).
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            // DER, and only in its shortest form; r and s below the order of the curve.
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point[..]).verify(message, signature).is_ok()
            }
            // RFC 8017, 9.1: MGF1 with SHA-256, and a salt as long as the hash.
            Self::Rsa(numbers) => {
                let RsaNumbers { modulus, exponent } = &**numbers;
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PSS_2048_8192_SHA256, message, signature).is_ok()
            }
        }
    }

    /// The one form among those that anybody can give a valid signature.
    pub(super) fn exact_signature(&self, signature: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::P256(_) => low_s::of(signature),
            // Ed25519: the strict check leaves one form. RSA: a signature is one number below the
            // modulus, in as many bytes as the modulus has (RFC 8017, 8.1.2). Its signer can make another
            // with another salt, as the holder of any key can sign the same again; nobody else can.
            Self::Ed25519(_) | Self::Rsa(_) => Some(signature.to_vec()),
        }
    }
}

fn ed25519(text: &str) -> Option<VerifyingKey> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice()).ok()?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok()?;
    Some(VerifyingKey::Ed25519(Box::new(key)))
}
