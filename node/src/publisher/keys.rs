//! The repository's private keys on disk: one PKCS#8 PEM file a role, mode 0600, in `keys/`.
//!
//! A key that is not here is offline: what it signs cannot be changed on this machine, and that is
//! the point of taking it away.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use updraft_protocol::key::{KeyError, SigningKey};
use updraft_protocol::names::Product;
use updraft_protocol::tuf::RoleName;

use crate::atomic;

/// Bytes of the largest key file that is read.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Why a key cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The key is not on this machine.
    #[error("the {role} key is not on this machine ({path}); bring it there, or sign where it is")]
    Offline {
        /// Whose key.
        role: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// The file is not a key.
    #[error("{path} is not a private key: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
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

/// The directory of private keys.
#[derive(Debug, Clone)]
pub struct Keys {
    directory: PathBuf,
}

impl Keys {
    /// The keys of the repository in `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("keys") }
    }

    /// Where the key of `role` is kept.
    pub fn path(&self, role: &RoleName) -> PathBuf {
        self.directory.join(format!("{}.pem", role.file_stem()))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the key of `role` is on this machine.
    pub fn has(&self, role: &RoleName) -> bool {
        self.path(role).is_file()
    }

    /// Offline roles whose keys are still on this machine.
    pub fn not_offline(&self, products: &[Product]) -> Vec<RoleName> {
        let mut roles = vec![RoleName::root(), RoleName::targets()];
        roles.extend(products.iter().map(RoleName::releases));
        roles.retain(|role| self.has(role));
        roles
    }

    /// Makes a key for `role`; an existing one is an error.
    pub fn generate(&self, role: &RoleName) -> Result<SigningKey, KeysError> {
        let path = self.path(role);
        let io = |source| KeysError::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(io)?;
        if path.exists() {
            return Err(io(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeysError::Random)?;
        let key = SigningKey::from_seed(seed);
        let pem = key.to_pkcs8_pem().map_err(|source| KeysError::Malformed { path: path.clone(), source })?;
        atomic::write(&path, pem.as_bytes(), 0o600).map_err(io)?;
        Ok(key)
    }

    /// Reads the key of `role`.
    pub fn load(&self, role: &RoleName) -> Result<SigningKey, KeysError> {
        let path = self.path(role);
        let io = |source| KeysError::Io { path: path.clone(), source };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeysError::Offline { role: role.to_string(), path });
            }
            Err(error) => return Err(io(error)),
            Ok(metadata) if metadata.len() > MAX_KEY_BYTES => {
                return Err(io(io::Error::other("it is far too large for a key")));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(io)?;
        SigningKey::from_pkcs8_pem(&text).map_err(|source| KeysError::Malformed { path: path.clone(), source })
    }
}
