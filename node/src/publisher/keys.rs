//! The private keys of a repository on disk, found by key id: every `*.pem` of one directory, mode
//! 0600, each with its public half beside it.
//!
//! File names are labels for people. Which key may sign what is said by signed metadata alone; a role
//! is signed with those of its keys that are here. A key that is not here is offline: what it signs
//! cannot be changed on this machine, and that is the point of taking it away.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use updraft_protocol::key::{KeyId, PublicKey, SigningKey};
use updraft_protocol::key_file::{self, ENTROPY_BYTES, Form, KeyFileError, MAX_KEY_FILE_BYTES, Passphrase};
use updraft_protocol::tuf::{RoleName, Signers, Trusted};
use zeroize::Zeroizing;

use super::draft::KeySource;
use crate::atomic;

mod transfer;

/// Files of one directory of keys that are looked at. Bounds the work that a wrong directory makes.
const MAX_KEY_FILES: usize = 1024;
/// Bytes of the longest label.
const MAX_LABEL_BYTES: usize = 128;

/// Why a key cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Too few of a role's keys are on this machine.
    #[error(
        "{role} cannot be signed here: it takes {threshold} of its {} key(s), and here {}; not here: {}. {}",
        here.len() + missing.len(),
        if here.is_empty() { "is none".to_owned() } else { format!("are only {}", here.join(", ")) },
        missing.iter().map(short).collect::<Vec<_>>().join(", "),
        what_next(role)
    )]
    Missing {
        /// The role.
        role: RoleName,
        /// Signatures needed.
        threshold: u64,
        /// The role's keys that are here: label and key id.
        here: Vec<String>,
        /// The role's keys that are not.
        missing: Vec<KeyId>,
    },
    /// The key needs a passphrase, and nobody can be asked.
    #[error(
        "the key {label} ({}) is encrypted, and a seed cannot ask for its passphrase: sign where somebody can type it; a key that the seed itself signs with must have none: `updraft key passphrase {label} --remove`",
        short(keyid)
    )]
    Locked {
        /// The key's file.
        label: String,
        /// Its key id.
        keyid: KeyId,
    },
    /// The passphrase could not be had.
    #[error("the key {label} is encrypted: {reason}")]
    Passphrase {
        /// The key's file.
        label: String,
        /// Why not.
        reason: String,
    },
    /// The file is not a key.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// The private key is not the one that the public file beside it says.
    #[error("{} holds another key than the .pub file beside it says; remove the .pub file if the key is the right one", .0.display())]
    Mismatch(PathBuf),
    /// There is a key of that name.
    #[error("{} exists, and keys are never overwritten; choose another name", .0.display())]
    Exists(PathBuf),
    /// There is no key of that name.
    #[error("there is no key '{label}' in {}; `updraft key list` shows what is there", directory.display())]
    Unknown {
        /// What was asked for.
        label: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Not a name for a key.
    #[error("'{}' cannot name a key: letters, digits and . _ - are allowed, 1 to {MAX_LABEL_BYTES} of them, not . first", .0.escape_debug())]
    Label(String),
    /// The directory holds far too many files.
    #[error("{} holds more than {MAX_KEY_FILES} keys; name a directory of keys alone", .0.display())]
    TooMany(PathBuf),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
}

/// A key id as people compare it.
pub fn short(keyid: &KeyId) -> String {
    keyid.as_str().chars().take(16).flat_map(char::escape_debug).collect()
}

/// Whether a running seed signs `role` by itself. The keys of all other roles belong elsewhere.
pub fn is_online(role: &RoleName) -> bool {
    matches!(role.as_str(), "snapshot" | "timestamp" | "channels")
}

/// What to do where the keys of `role` are not here.
fn what_next(role: &RoleName) -> String {
    match role.as_str() {
        "root" => "Make a file for the key holders: `updraft root draft --output FILE`".to_owned(),
        "targets" => "Make a file for the key holders: `updraft targets draft --output FILE`".to_owned(),
        name if is_online(role) => format!(
            "Bring the key back (`updraft key import FILE`), or put a new one in its place (`updraft key rotate {name} --new LABEL`)"
        ),
        name => format!(
            "Sign where the publisher's key is (`updraft publish --join` there, or `updraft targets draft --role {name} --output FILE` here)"
        ),
    }
}

/// Whoever knows passphrases: a file, the environment, a person at a terminal.
pub trait Unlock: fmt::Debug + Send + Sync {
    /// The passphrase of the key `label`, or why there is none.
    fn passphrase(&self, label: &str) -> Result<Passphrase, String>;
}

/// A key that is here.
#[derive(Debug)]
pub struct KeyEntry {
    /// Its file's name without `.pem`.
    pub label: String,
    /// Its file.
    pub path: PathBuf,
    /// Its public half; of an encrypted key only where the `.pub` file beside it says so.
    pub public: Option<PublicKey>,
    /// Whether it needs a passphrase.
    pub encrypted: bool,
    /// Others than the owner may read the file.
    pub exposed: bool,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl KeyEntry {
    /// Its key id, where the public half is known.
    pub fn id(&self) -> Option<KeyId> {
        self.public.as_ref().map(PublicKey::id)
    }

    fn shown(&self) -> String {
        self.id().map_or_else(|| self.label.clone(), |keyid| format!("{} ({})", self.label, short(&keyid)))
    }
}

/// A directory of private keys.
#[derive(Debug, Clone)]
pub struct Keys {
    directory: PathBuf,
    unlock: Option<Arc<dyn Unlock>>,
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && !label.starts_with('.')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%~".contains(&byte))
}

/// Opens a file that was named by a person. What is no file, such as a pipe that nobody writes to, is an
/// error and not a wait.
pub fn open_file(path: &Path) -> io::Result<fs::File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

/// Reads a small file whose bytes are wiped when dropped.
fn read_private(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    let failed = |source| KeysError::Io { path: path.to_owned(), source };
    // Room for all of it from the start: a buffer that grew would leave copies behind.
    let most = usize::try_from(MAX_KEY_FILE_BYTES).unwrap_or(usize::MAX).saturating_add(2);
    let mut text = Zeroizing::new(String::with_capacity(most));
    let file = open_file(path).map_err(failed)?;
    file.take(MAX_KEY_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(failed(io::Error::other("it is far too large for a key")));
    }
    Ok(text)
}

/// Reads a public key file.
pub fn read_public(path: &Path) -> Result<PublicKey, KeysError> {
    let failed = |source| KeysError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = open_file(path).map_err(failed)?;
    file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    key_file::parse_public(&bytes).map_err(|source| KeysError::Malformed { path: path.to_owned(), source })
}

/// Random bytes of the system, wiped when dropped.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeysError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(KeysError::Random)?;
    Ok(bytes)
}

impl Keys {
    /// The keys of the repository in `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self::at(data_dir.join("keys"))
    }

    /// The keys in `directory` itself.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory, unlock: None }
    }

    /// The same, with somebody who knows passphrases.
    #[must_use]
    pub fn with_unlock(self, unlock: Arc<dyn Unlock>) -> Self {
        Self { unlock: Some(unlock), ..self }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of the key `label`.
    pub fn path(&self, label: &str) -> PathBuf {
        self.directory.join(format!("{label}.pem"))
    }

    fn public_path(&self, label: &str) -> PathBuf {
        self.directory.join(format!("{label}.pub"))
    }

    /// Every key that is here, by label. A directory that does not exist holds none.
    pub fn list(&self) -> Result<Vec<KeyEntry>, KeysError> {
        let failed = |source| KeysError::Io { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut labels = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let label = name.to_str().and_then(|name| name.strip_suffix(".pem")).filter(|label| is_label(label));
            labels.extend(label.map(str::to_owned));
            if labels.len() > MAX_KEY_FILES {
                return Err(KeysError::TooMany(self.directory.clone()));
            }
        }
        labels.sort_unstable();
        Ok(labels.into_iter().map(|label| self.look(label)).collect())
    }

    fn look(&self, label: String) -> KeyEntry {
        let path = self.path(&label);
        let exposed = fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
        let mut entry = KeyEntry { label, path, public: None, encrypted: false, exposed, problem: None };
        let found = read_private(&entry.path).and_then(|pem| {
            let malformed = |source| KeysError::Malformed { path: entry.path.clone(), source };
            match key_file::form(&pem).map_err(malformed)? {
                Form::Plain => Ok((false, key_file::read(&pem).map_err(malformed)?.public())),
                Form::Encrypted => {
                    entry.encrypted = true;
                    Ok((true, read_public(&self.public_path(&entry.label))?))
                }
            }
        });
        match found {
            Ok((encrypted, public)) => (entry.encrypted, entry.public) = (encrypted, Some(public)),
            Err(error) => entry.problem = Some(error.to_string()),
        }
        entry
    }

    /// The key `label`.
    pub fn get(&self, label: &str) -> Result<KeyEntry, KeysError> {
        if !is_label(label) {
            return Err(KeysError::Label(label.to_owned()));
        }
        if !self.path(label).exists() {
            return Err(KeysError::Unknown { label: label.to_owned(), directory: self.directory.clone() });
        }
        Ok(self.look(label.to_owned()))
    }

    /// The private half of a key; asks for its passphrase where it has one.
    pub fn open(&self, entry: &KeyEntry) -> Result<SigningKey, KeysError> {
        let malformed = |source| KeysError::Malformed { path: entry.path.clone(), source };
        let pem = read_private(&entry.path)?;
        let key = match key_file::form(&pem).map_err(malformed)? {
            Form::Plain => key_file::read(&pem).map_err(malformed)?,
            Form::Encrypted => {
                let label = entry.label.clone();
                let Some(unlock) = &self.unlock else {
                    return Err(match entry.id() {
                        Some(keyid) => KeysError::Locked { label, keyid },
                        None => KeysError::Passphrase { label, reason: "nobody can be asked".to_owned() },
                    });
                };
                let passphrase =
                    unlock.passphrase(&entry.label).map_err(|reason| KeysError::Passphrase { label, reason })?;
                key_file::decrypt(&pem, &passphrase).map_err(malformed)?
            }
        };
        match &entry.public {
            Some(public) if !public.is_same_key(&key.public()) => Err(KeysError::Mismatch(entry.path.clone())),
            _ => Ok(key),
        }
    }

    /// Makes a key; an existing one is an error.
    pub fn generate(&self, label: &str, passphrase: Option<&Passphrase>) -> Result<SigningKey, KeysError> {
        let key = SigningKey::from_seed(*random::<32>()?);
        self.put(label, &key, passphrase)?;
        Ok(key)
    }

    /// Keeps a key under a name that is free.
    pub fn put(&self, label: &str, key: &SigningKey, passphrase: Option<&Passphrase>) -> Result<(), KeysError> {
        if !is_label(label) {
            return Err(KeysError::Label(label.to_owned()));
        }
        let path = self.path(label);
        if path.exists() {
            return Err(KeysError::Exists(path));
        }
        self.replace(label, key, passphrase)
    }

    /// Writes a key over the file of the same one: under another passphrase, or none.
    pub fn replace(&self, label: &str, key: &SigningKey, passphrase: Option<&Passphrase>) -> Result<(), KeysError> {
        let path = self.path(label);
        let pem = encode(key, passphrase).map_err(|error| match error {
            EncodeError::Random(error) => KeysError::Random(error),
            EncodeError::File(source) => KeysError::Malformed { path: path.clone(), source },
        })?;
        self.write(label, &pem, &key.public())
    }

    /// Keeps a private key file as it is under a name that is free.
    fn put_file(&self, label: &str, pem: &str, public: &PublicKey) -> Result<(), KeysError> {
        if !is_label(label) {
            return Err(KeysError::Label(label.to_owned()));
        }
        if self.path(label).exists() {
            return Err(KeysError::Exists(self.path(label)));
        }
        self.write(label, pem, public)
    }

    fn write(&self, label: &str, pem: &str, public: &PublicKey) -> Result<(), KeysError> {
        let path = self.path(label);
        let io = |source| KeysError::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(io)?;
        // The public half first: an encrypted key without it could not be told from another.
        atomic::write(&self.public_path(label), &key_file::encode_public(public), 0o644).map_err(io)?;
        atomic::write(&path, pem.as_bytes(), 0o600).map_err(io)
    }

    /// Removes a key and its public half.
    pub fn remove(&self, entry: &KeyEntry) -> Result<(), KeysError> {
        for path in [entry.path.clone(), self.public_path(&entry.label)] {
            atomic::remove(&path).map_err(|source| KeysError::Io { path, source })?;
        }
        Ok(())
    }

    /// The keys here that `signers` lists, those without a passphrase first.
    fn of(&self, signers: &Signers) -> Result<Vec<(KeyId, KeyEntry)>, KeysError> {
        let mut found: Vec<(KeyId, KeyEntry)> = Vec::new();
        for entry in self.list()?.into_iter().filter(|entry| entry.problem.is_none()) {
            let Some(keyid) = entry.id().filter(|keyid| signers.lists(keyid)) else { continue };
            match found.iter_mut().find(|(known, _)| *known == keyid) {
                // A copy under a second name: the one that opens by itself is better.
                Some((_, known)) if known.encrypted && !entry.encrypted => *known = entry,
                Some(_) => {}
                None => found.push((keyid, entry)),
            }
        }
        found.sort_by_key(|(_, entry)| entry.encrypted);
        Ok(found)
    }

    /// Whether enough of the keys that `signers` lists are here, and can be opened.
    pub fn can_sign(&self, signers: &Signers) -> bool {
        let usable = |(_, entry): &(KeyId, KeyEntry)| !entry.encrypted || self.unlock.is_some();
        let count = self.of(signers).map_or(0, |found| found.iter().filter(|found| usable(found)).count());
        u64::try_from(count).is_ok_and(|count| count >= signers.threshold)
    }

    /// Every key here that `signers` lists and that can be opened; asks for passphrases.
    pub fn all(&self, signers: &Signers) -> Result<Vec<SigningKey>, KeysError> {
        self.of(signers)?.iter().map(|(_, entry)| self.open(entry)).collect()
    }

    /// Keys of offline roles that are still on this machine: the role and the key's label.
    pub fn offline_here(&self, trusted: &Trusted) -> Result<Vec<(RoleName, String)>, KeysError> {
        let here = self.list()?;
        let mut found = Vec::new();
        for role in trusted.signed_roles().into_iter().filter(|role| !is_online(role)) {
            let Some(signers) = trusted.signers(&role) else { continue };
            let of_role = here.iter().filter(|entry| entry.id().is_some_and(|keyid| signers.lists(&keyid)));
            found.extend(of_role.map(|entry| (role.clone(), entry.label.clone())));
        }
        Ok(found)
    }

    /// Why a seed that nobody sits at could not sign its online roles: a key that has a passphrase. A
    /// key that is missing altogether is reported when it is needed.
    pub fn check_online(&self, trusted: &Trusted) -> Result<(), KeysError> {
        for role in trusted.signed_roles().into_iter().filter(is_online) {
            let Some(signers) = trusted.signers(&role) else { continue };
            let found = self.of(&signers)?;
            let plain = found.iter().filter(|(_, entry)| !entry.encrypted).count();
            if u64::try_from(plain).is_ok_and(|plain| plain >= signers.threshold) {
                continue;
            }
            if let Some((keyid, entry)) = found.into_iter().find(|(_, entry)| entry.encrypted) {
                return Err(KeysError::Locked { label: entry.label, keyid });
            }
        }
        Ok(())
    }
}

enum EncodeError {
    Random(getrandom::Error),
    File(KeyFileError),
}

fn encode(key: &SigningKey, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>, EncodeError> {
    let Some(passphrase) = passphrase else {
        return key.to_pkcs8_pem().map_err(|error| EncodeError::File(error.into()));
    };
    let mut entropy = [0; ENTROPY_BYTES];
    getrandom::fill(&mut entropy).map_err(EncodeError::Random)?;
    key_file::encrypt(key, passphrase, entropy).map_err(EncodeError::File)
}

impl Keys {
    /// The error that says which keys of `role` are missing here; asks for no passphrase.
    pub fn require(&self, role: &RoleName, authorised: &Signers) -> Result<(), KeysError> {
        self.chosen(role, authorised).map(|_| ())
    }

    fn chosen(&self, role: &RoleName, authorised: &Signers) -> Result<Vec<KeyEntry>, KeysError> {
        let found = self.of(authorised)?;
        if let Some(needed) = usize::try_from(authorised.threshold).ok().filter(|needed| *needed <= found.len()) {
            return Ok(found.into_iter().take(needed).map(|(_, entry)| entry).collect());
        }
        let is_here = |keyid: &KeyId| found.iter().any(|(known, _)| known == keyid);
        let missing = authorised.keys.iter().map(|(keyid, _)| keyid).filter(|keyid| !is_here(keyid));
        Err(KeysError::Missing {
            role: role.clone(),
            threshold: authorised.threshold,
            missing: missing.cloned().collect(),
            here: found.iter().map(|(_, entry)| entry.shown()).collect(),
        })
    }
}

impl KeySource for Keys {
    fn signers(&self, role: &RoleName, authorised: &Signers) -> Result<Vec<SigningKey>, KeysError> {
        self.chosen(role, authorised)?.iter().map(|entry| self.open(entry)).collect()
    }
}

#[cfg(test)]
mod tests;
