//! Keys as files: a private key in PKCS#8 PEM, plain or under a passphrase, and the public key
//! beside it.
//!
//! The encrypted form is PBES2 (RFC 8018, 6.2): scrypt and AES-256-CBC when written here, PBKDF2 too
//! when read, which is what `openssl pkcs8` reads and writes. A file says itself how much work its
//! passphrase costs; the work is bounded before any of it is done. Neither a passphrase nor private
//! bytes ever appear in debug output or errors.

use std::fmt;

use pkcs8::der::pem::LineEnding;
use pkcs8::der::{Decode as _, Encode as _, SecretDocument};
use pkcs8::pkcs5::EncryptionScheme as Scheme;
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Kdf, Parameters, Salt, ScryptParams};
use pkcs8::{EncryptedPrivateKeyInfoOwned, EncryptedPrivateKeyInfoRef};
use zeroize::Zeroizing;

use crate::canonical;
use crate::key::{KeyError, PublicKey, SigningKey};

/// Bytes of the largest private or public key file. Bounds what a directory of keys can make us read.
pub const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;

/// Bytes of the longest passphrase.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;

/// Random bytes that [`encrypt`] takes: the salt and the initialisation vector.
pub const ENTROPY_BYTES: usize = 32;

/// scrypt's N, r and p for new files: 16 MiB. More memory than this openssl does not grant by itself.
const SCRYPT_N: u64 = 1 << 14;
const SCRYPT_R: u16 = 8;
const SCRYPT_P: u16 = 5;

/// Bytes that scrypt may be made to fill. Bounds the memory that a file somebody gave us takes.
const MAX_SCRYPT_BYTES: u64 = 256 * 1024 * 1024;
/// scrypt's p, and PBKDF2's rounds. Bounds the time.
const MAX_SCRYPT_P: u16 = 16;
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;

const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// Why a file is not a usable key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// No passphrase, or far too much of one.
    #[error("a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes; this one has {found}")]
    PassphraseLength {
        /// Bytes found.
        found: usize,
    },
    /// Not a PKCS#8 PEM file. The reason never quotes it.
    #[error("not a private key in PKCS#8 PEM form: {reason}")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
    /// Encrypted in a way that is not read, or that would take too long.
    #[error("the key is encrypted in a way that is not read: {reason}")]
    Unsupported {
        /// What it asks for.
        reason: String,
    },
    /// The passphrase opens nothing.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The key could not be written.
    #[error("the private key cannot be encrypted: {reason}")]
    Encode {
        /// What the encoder said.
        reason: String,
    },
    /// The decrypted or plain bytes are no ed25519 key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not a public key file.
    #[error("not a public key: {reason}; a public key file is written by `updraft key generate`, as NAME.pub")]
    Public {
        /// What is wrong with it.
        reason: String,
    },
}

/// What a person types to open a key. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// A passphrase of this text, used as it is.
    pub fn new(text: Zeroizing<String>) -> Result<Self, KeyFileError> {
        if text.is_empty() || text.len() > MAX_PASSPHRASE_BYTES {
            return Err(KeyFileError::PassphraseLength { found: text.len() });
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(...)")
    }
}

/// Whether a file needs a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It does not.
    Plain,
    /// It does.
    Encrypted,
}

/// What `pem` is, by its label alone.
pub fn form(pem: &str) -> Result<Form, KeyFileError> {
    let malformed = |reason: &str| KeyFileError::Malformed { reason: reason.to_owned() };
    let first = pem.lines().next().ok_or_else(|| malformed("it is empty"))?;
    let label = first.trim_end().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
    match label {
        Some(PLAIN) => Ok(Form::Plain),
        Some(ENCRYPTED) => Ok(Form::Encrypted),
        Some(_) => Err(malformed("its label is another; convert it with `openssl pkcs8 -topk8`")),
        None => Err(malformed("it does not begin with -----BEGIN PRIVATE KEY-----")),
    }
}

/// Writes `key` under `passphrase`. `entropy` must be drawn at random for every call.
pub fn encrypt(
    key: &SigningKey,
    passphrase: &Passphrase,
    entropy: [u8; ENTROPY_BYTES],
) -> Result<Zeroizing<String>, KeyFileError> {
    let failed = |reason: &dyn fmt::Display| KeyFileError::Encode { reason: reason.to_string() };
    let pem = key.to_pkcs8_pem()?;
    let (_, document) = SecretDocument::from_pem(&pem).map_err(|error| failed(&error))?;
    let (salt, iv) = entropy.split_at(ENTROPY_BYTES / 2);
    let parameters = Parameters {
        kdf: Kdf::Scrypt(ScryptParams {
            salt: Salt::new(salt).map_err(|error| failed(&error))?,
            cost_parameter: SCRYPT_N,
            block_size: SCRYPT_R,
            parallelization: SCRYPT_P,
            key_length: None,
        }),
        encryption: Cipher::Aes256Cbc { iv: iv.try_into().map_err(|error| failed(&error))? },
    };
    let encrypted = parameters.encrypt(passphrase.0.as_bytes(), document.as_bytes()).map_err(|error| failed(&error))?;
    let info = EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: Scheme::Pbes2(parameters),
        encrypted_data: pkcs8::der::asn1::OctetString::new(encrypted).map_err(|error| failed(&error))?,
    };
    let der = info.to_der().map_err(|error| failed(&error))?;
    let document = SecretDocument::try_from(der).map_err(|error| failed(&error))?;
    document.to_pem(ENCRYPTED, LineEnding::LF).map_err(|error| failed(&error))
}

/// Reads a plain file.
pub fn read(pem: &str) -> Result<SigningKey, KeyFileError> {
    Ok(SigningKey::from_pkcs8_pem(pem)?)
}

/// Opens an encrypted file.
pub fn decrypt(pem: &str, passphrase: &Passphrase) -> Result<SigningKey, KeyFileError> {
    let malformed = |error: pkcs8::der::Error| KeyFileError::Malformed { reason: error.to_string() };
    let (label, document) = SecretDocument::from_pem(pem).map_err(malformed)?;
    if label != ENCRYPTED {
        return Err(KeyFileError::Malformed { reason: "it is not encrypted".to_owned() });
    }
    let info = EncryptedPrivateKeyInfoRef::from_der(document.as_bytes()).map_err(malformed)?;
    let Scheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(KeyFileError::Unsupported { reason: "PBES1; convert it with `openssl pkcs8 -topk8`".to_owned() });
    };
    check_work(&parameters.kdf)?;
    let plain = match parameters.decrypt(passphrase.0.as_bytes(), info.encrypted_data.as_bytes()) {
        Ok(plain) => Zeroizing::new(plain),
        // With a wrong passphrase the padding is wrong, except once in some hundred times.
        Err(pkcs8::pkcs5::Error::DecryptFailed) => return Err(KeyFileError::WrongPassphrase),
        Err(error) => return Err(KeyFileError::Unsupported { reason: error.to_string() }),
    };
    // The one time the padding was right by chance, the bytes are no PKCS#8.
    let document = SecretDocument::try_from(plain.as_slice()).map_err(|_| KeyFileError::WrongPassphrase)?;
    let pem = document.to_pem(PLAIN, LineEnding::LF).map_err(malformed)?;
    Ok(SigningKey::from_pkcs8_pem(&pem)?)
}

fn check_work(kdf: &Kdf) -> Result<(), KeyFileError> {
    let too_much =
        |what: String| Err(KeyFileError::Unsupported { reason: format!("{what} is more work than is done") });
    match kdf {
        Kdf::Scrypt(scrypt) => {
            let bytes = scrypt.cost_parameter.checked_mul(128 * u64::from(scrypt.block_size));
            if bytes.is_none_or(|bytes| bytes > MAX_SCRYPT_BYTES) || scrypt.parallelization > MAX_SCRYPT_P {
                let (n, r, p) = (scrypt.cost_parameter, scrypt.block_size, scrypt.parallelization);
                return too_much(format!("scrypt with N {n}, r {r}, p {p}"));
            }
            Ok(())
        }
        Kdf::Pbkdf2(pbkdf2) if pbkdf2.iteration_count > MAX_PBKDF2_ROUNDS => {
            too_much(format!("PBKDF2 of {} rounds", pbkdf2.iteration_count))
        }
        Kdf::Pbkdf2(_) => Ok(()),
        other => Err(KeyFileError::Unsupported { reason: format!("the key derivation {}", other.oid()) }),
    }
}

/// The public key file: the key object of TUF 4.2 as canonical JSON, and a line feed.
pub fn encode_public(key: &PublicKey) -> Vec<u8> {
    let mut bytes = canonical::encode(&canonical::value_of(key));
    bytes.push(b'\n');
    bytes
}

/// Reads a public key file. A key that this version cannot verify with is refused: nobody should
/// hand a role to a key that nothing accepts.
pub fn parse_public(bytes: &[u8]) -> Result<PublicKey, KeyFileError> {
    let refused = |reason: String| KeyFileError::Public { reason };
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_KEY_FILE_BYTES) {
        return Err(refused(format!("{} bytes; at most {MAX_KEY_FILE_BYTES} are read", bytes.len())));
    }
    if bytes.starts_with(b"-----BEGIN") {
        return Err(refused("this is a PEM file; keep private keys to yourself".to_owned()));
    }
    let value = canonical::parse(bytes).map_err(|error| refused(error.to_string()))?;
    let key: PublicKey = serde_json::from_value(value).map_err(|error| refused(error.to_string()))?;
    if key.is_usable() {
        Ok(key)
    } else {
        Err(refused(format!("this version cannot verify with this {} key", key.scheme().as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_seed([7; 32])
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).expect("a passphrase")
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_alone() {
        let pem = encrypt(&key(), &passphrase("correct horse"), [9; ENTROPY_BYTES]).expect("written");
        assert_eq!(form(&pem), Ok(Form::Encrypted));
        assert_eq!(decrypt(&pem, &passphrase("correct horse")).expect("opened").public(), key().public());
        assert_eq!(
            decrypt(&pem, &passphrase("correct horse ")).expect_err("another passphrase"),
            KeyFileError::WrongPassphrase
        );
    }

    #[test]
    fn the_forms_are_told_apart_by_their_label() {
        let plain = key().to_pkcs8_pem().expect("written");
        assert_eq!(form(&plain), Ok(Form::Plain));
        assert!(read(&plain).is_ok());
        assert!(decrypt(&plain, &passphrase("x")).is_err());
        for other in ["", "x", "-----BEGIN RSA PRIVATE KEY-----\n", "-----BEGIN PUBLIC KEY-----\n"] {
            assert!(form(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_file_that_asks_for_too_much_work_is_refused_before_any_is_done() {
        let scrypt = |cost_parameter, block_size, parallelization| {
            let salt = Salt::new([1; 16]).expect("short");
            Kdf::Scrypt(ScryptParams { salt, cost_parameter, block_size, parallelization, key_length: None })
        };
        assert_eq!(check_work(&scrypt(SCRYPT_N, SCRYPT_R, SCRYPT_P)), Ok(()));
        for (n, r, p) in [(1 << 40, 8, 1), (u64::MAX, u16::MAX, 1), (1 << 14, 8, 1000), (1 << 19, 8, 1)] {
            assert!(matches!(check_work(&scrypt(n, r, p)), Err(KeyFileError::Unsupported { .. })), "{n} {r} {p}");
        }
        let pbkdf2 =
            |rounds| Kdf::Pbkdf2(pkcs8::pkcs5::pbes2::Pbkdf2Params::hmac_sha256(rounds, &[1; 16]).expect("parameters"));
        assert_eq!(check_work(&pbkdf2(600_000)), Ok(()));
        assert!(check_work(&pbkdf2(MAX_PBKDF2_ROUNDS + 1)).is_err());
    }

    #[test]
    fn neither_debug_output_nor_errors_show_the_secret() {
        let secret = passphrase("hunter2hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        let pem = encrypt(&key(), &secret, [9; ENTROPY_BYTES]).expect("written");
        let broken = pem.replacen('M', "A", 1);
        let body = pem.lines().nth(1).expect("a body");
        for error in [decrypt(&broken, &secret).expect_err("broken"), decrypt(&pem, &passphrase("x")).expect_err("no")]
        {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2") && !shown.contains(body), "{shown}");
        }
    }

    #[test]
    fn passphrases_are_bounded() {
        let of = |length: usize| Passphrase::new(Zeroizing::new("x".repeat(length)));
        assert!(of(0).is_err() && of(MAX_PASSPHRASE_BYTES + 1).is_err());
        assert!(of(1).is_ok() && of(MAX_PASSPHRASE_BYTES).is_ok());
    }

    #[test]
    fn a_public_key_file_is_the_canonical_key_object() {
        let bytes = encode_public(&key().public());
        let text = String::from_utf8(bytes.clone()).expect("text");
        assert_eq!(
            text,
            format!(
                "{{\"keytype\":\"ed25519\",\"keyval\":{{\"public\":\"{}\"}},\"scheme\":\"ed25519\"}}\n",
                key().public().public()
            )
        );
        assert_eq!(parse_public(&bytes).expect("read"), key().public());
    }

    #[test]
    fn what_is_no_public_key_is_refused_and_says_so() {
        let pem = key().to_pkcs8_pem().expect("written");
        for bytes in [
            pem.as_bytes(),
            b"",
            b"{}",
            br#"{"keytype":"ed25519","keyval":{"public":"00"},"scheme":"ed25519"}"#,
            br#"{"keytype":"x","keyval":{"public":"00"},"scheme":"y"}"#,
            br#"{"keytype":"x","keytype":"x","keyval":{"public":"00"},"scheme":"y"}"#,
        ] {
            let error = parse_public(bytes).expect_err("no key");
            assert!(error.to_string().contains("updraft key generate"), "{error}");
        }
        assert!(parse_public(&vec![b' '; 20_000]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(
            text in "(-----BEGIN ENCRYPTED PRIVATE KEY-----\n)?[A-Za-z0-9+/=\n]{0,160}(-----END ENCRYPTED PRIVATE KEY-----\n)?",
        ) {
            let _ = form(&text);
            let _ = decrypt(&text, &passphrase("x"));
            let _ = parse_public(text.as_bytes());
        }
    }
}
