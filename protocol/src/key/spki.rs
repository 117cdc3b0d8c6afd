//! Public keys in PEM, as TUF writes ECDSA and RSA keys: `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
//!
//! The text around the DER bytes may be wrapped and ended in any way; the bytes may not. What comes
//! out is the key itself, so that two texts of one key compare as one key. Anything else that other
//! libraries read under "PEM" (PKCS #1, certificates, bare hexadecimal points, text before the block)
//! is refused: two readers that disagree about a key disagree about who may sign.

use data_encoding::BASE64;
use ed25519_dalek::pkcs8::ObjectIdentifier;
use ed25519_dalek::pkcs8::spki::SubjectPublicKeyInfoRef;
use ed25519_dalek::pkcs8::spki::der::asn1::UintRef;
use ed25519_dalek::pkcs8::spki::der::{self, Decode as _, Reader as _, SliceReader};

use crate::limits::MAX_PUBLIC_KEY_BYTES;

/// RFC 5480, 2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480, 2.1.1.1: the curve P-256, also called prime256v1.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 3279, 2.3.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Bytes of an uncompressed point on P-256: a 4, and two coordinates.
pub(super) const POINT_BYTES: usize = 65;

/// Bits of the smallest RSA modulus that may sign (TUF 4.2: "All RSA keys MUST be at least 2048 bits").
const MIN_MODULUS_BITS: usize = 2048;
/// Bits of the largest one. Bounds what one signature costs to check.
const MAX_MODULUS_BITS: usize = 8192;
/// Bits of the largest public exponent. Bounds the same.
const MAX_EXPONENT_BITS: usize = 33;

/// The modulus and the exponent of an RSA key, big-endian without leading zeros.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RsaNumbers {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
}

/// The point of a P-256 key, uncompressed. Whether it lies on the curve is checked with each signature.
pub(super) fn p256(pem: &str) -> Option<[u8; POINT_BYTES]> {
    let der = unwrap_pem(pem)?;
    let info = SubjectPublicKeyInfoRef::from_der(&der).ok()?;
    info.algorithm.assert_oids(EC_PUBLIC_KEY, SECP256R1).ok()?;
    let point: [u8; POINT_BYTES] = info.subject_public_key.as_bytes()?.try_into().ok()?;
    // SEC 1, 2.3.3. A compressed point would be a second text of the same key.
    (point[0] == 4).then_some(point)
}

/// The numbers of an RSA key of 2048 to 8192 bits.
pub(super) fn rsa(pem: &str) -> Option<RsaNumbers> {
    let der = unwrap_pem(pem)?;
    let info = SubjectPublicKeyInfoRef::from_der(&der).ok()?;
    info.algorithm.assert_algorithm_oid(RSA_ENCRYPTION).ok()?;
    // RFC 3279, 2.3.1: "The parameters field MUST have ASN.1 type NULL".
    if !info.algorithm.parameters?.is_null() {
        return None;
    }
    let numbers = rsa_public_key(info.subject_public_key.as_bytes()?).ok()?;
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let exponent_bits = bits(&numbers.exponent);
    let fits = (MIN_MODULUS_BITS..=MAX_MODULUS_BITS).contains(&bits(&numbers.modulus))
        && (2..=MAX_EXPONENT_BITS).contains(&exponent_bits)
        && is_odd(&numbers.modulus)
        && is_odd(&numbers.exponent);
    fits.then_some(numbers)
}

/// RFC 8017, A.1.1: `RSAPublicKey`.
fn rsa_public_key(der: &[u8]) -> Result<RsaNumbers, der::Error> {
    let mut reader = SliceReader::new(der)?;
    let numbers = reader.sequence(|numbers| {
        let modulus = UintRef::decode(numbers)?;
        let exponent = UintRef::decode(numbers)?;
        Ok::<_, der::Error>(RsaNumbers { modulus: modulus.as_bytes().to_vec(), exponent: exponent.as_bytes().to_vec() })
    })?;
    reader.finish()?;
    Ok(numbers)
}

/// Bits of a number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0))
}

/// The bytes of the one `PUBLIC KEY` block that `pem` is, white space aside.
fn unwrap_pem(pem: &str) -> Option<Vec<u8>> {
    if pem.len() > MAX_PUBLIC_KEY_BYTES {
        return None;
    }
    let body = pem.trim_ascii().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let digits: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(&digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_too_long_for_any_key_is_not_decoded() {
        let body = "A".repeat(MAX_PUBLIC_KEY_BYTES);
        assert_eq!(unwrap_pem(&format!("-----BEGIN PUBLIC KEY-----{body}-----END PUBLIC KEY-----")), None);
    }

    #[test]
    fn bits_are_counted_from_the_highest_that_is_set() {
        assert_eq!((bits(&[]), bits(&[1]), bits(&[0x80, 0]), bits(&[0x7f, 0])), (0, 1, 16, 15));
    }

    proptest! {
        #[test]
        fn arbitrary_keys_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", BASE64.encode(&bytes));
            let _ = (p256(&pem).is_some(), rsa(&pem).is_some(), p256(&text).is_some());
        }
    }
}
