//! The node's key: made at first run, bound to the machine, so that a cloned disk image does not
//! become two nodes of one name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use updraft_protocol::digest::{Digest, Hasher};
use updraft_protocol::key::SigningKey;

use crate::atomic;
use crate::swarm::Identity;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not a node key.
    #[error("{path} is not a node key; remove it and the node makes a new one (and a new peer id)")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
}

/// An identity and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// The key.
    pub identity: Identity,
    /// The same key, to sign what the node says of itself.
    pub signer: SigningKey,
    /// The directory was copied from another machine, so a new key was made.
    pub was_cloned: bool,
}

/// A value that differs between machines and survives reboots; `None` where the system has none.
fn machine() -> Option<Digest> {
    let text = fs::read_to_string("/etc/machine-id").ok()?;
    let mut hasher = Hasher::new();
    hasher.update(b"updraft node key\n");
    hasher.update(text.trim().as_bytes());
    Some(hasher.finish())
}

/// Loads the key of the node in `data_dir`, or makes one.
pub fn load(data_dir: &Path) -> Result<Loaded, IdentityError> {
    let path = data_dir.join("node.key");
    let here = machine().map_or_else(|| "-".to_owned(), |digest| digest.to_string());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return make(&path, &here, false);
        }
        Err(source) => return Err(IdentityError::Io { path, source }),
    };
    let malformed = || IdentityError::Malformed { path: path.clone() };
    let (seed, made_on) = text.trim().split_once(' ').ok_or_else(malformed)?;
    let seed: [u8; 32] =
        HEXLOWER.decode(seed.as_bytes()).ok().and_then(|seed| seed.try_into().ok()).ok_or_else(malformed)?;
    if made_on != "-" && here != "-" && made_on != here {
        return make(&path, &here, true);
    }
    Ok(Loaded::new(seed, false))
}

impl Loaded {
    fn new(seed: [u8; 32], was_cloned: bool) -> Self {
        Self { identity: Identity::from_ed25519_seed(seed), signer: SigningKey::from_seed(seed), was_cloned }
    }
}

fn make(path: &Path, machine: &str, was_cloned: bool) -> Result<Loaded, IdentityError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(IdentityError::Random)?;
    let text = format!("{} {machine}\n", HEXLOWER.encode(&seed));
    atomic::write(path, text.as_bytes(), 0o600)
        .map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    Ok(Loaded::new(seed, was_cloned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_name_and_a_copy_on_another_machine_gets_its_own() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let first = load(scratch.path()).expect("made");
        let again = load(scratch.path()).expect("read");
        assert_eq!(first.identity.peer_id(), again.identity.peer_id());
        assert!(!again.was_cloned);
        if machine().is_none() {
            return;
        }
        let path = scratch.path().join("node.key");
        let text = fs::read_to_string(&path).expect("readable");
        let (seed, _) = text.split_once(' ').expect("two fields");
        fs::write(&path, format!("{seed} {}\n", Digest::of(b"another machine"))).expect("writable");
        let clone = load(scratch.path()).expect("made anew");
        assert!(clone.was_cloned);
        assert_ne!(clone.identity.peer_id(), first.identity.peer_id());
    }
}
