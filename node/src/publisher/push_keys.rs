//! Where a push finds the publisher's key: a directory of keys, or one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use updraft_protocol::key::SigningKey;
use updraft_protocol::tuf::{RoleName, Signers};

use super::draft::KeySource;
use super::keys::{Keys, KeysError, Unlock};

/// The publisher's keys, as named on the command line.
#[derive(Debug, Clone)]
pub enum PushKeys {
    /// Every key of a directory.
    Directory(Keys),
    /// One key and no other.
    One {
        /// The directory that it is in.
        keys: Keys,
        /// Its file's name without `.pem`.
        label: String,
    },
}

impl PushKeys {
    /// The keys at `path`: a directory, or one `NAME.pem`. A directory that does not exist holds none.
    pub fn at(path: &Path) -> Result<Self, KeysError> {
        if !path.is_file() {
            return Ok(Self::Directory(Keys::at(path.to_owned())));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let label = name.strip_suffix(".pem").ok_or_else(|| KeysError::Label(name.clone()))?.to_owned();
        let directory = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        Ok(Self::One { keys: Keys::at(directory), label })
    }

    /// The same, with somebody who knows passphrases.
    #[must_use]
    pub fn with_unlock(self, unlock: Arc<dyn Unlock>) -> Self {
        match self {
            Self::Directory(keys) => Self::Directory(keys.with_unlock(unlock)),
            Self::One { keys, label } => Self::One { keys: keys.with_unlock(unlock), label },
        }
    }

    /// Where they are, for people.
    pub fn place(&self) -> PathBuf {
        match self {
            Self::Directory(keys) => keys.directory().to_owned(),
            Self::One { keys, label } => keys.path(label),
        }
    }
}

impl KeySource for PushKeys {
    fn signers(&self, role: &RoleName, authorised: &Signers) -> Result<Vec<SigningKey>, KeysError> {
        let (keys, label) = match self {
            Self::Directory(keys) => return keys.signers(role, authorised),
            Self::One { keys, label } => (keys, label),
        };
        let entry = keys.get(label)?;
        let fits = |id: &updraft_protocol::key::KeyId| authorised.lists(id);
        if authorised.threshold == 1 && entry.id().as_ref().is_none_or(fits) {
            let key = keys.open(&entry)?;
            if authorised.lists(&key.public().id()) {
                return Ok(vec![key]);
            }
        }
        let id = entry.id().filter(fits);
        let missing = authorised.keys.iter().map(|(keyid, _)| keyid).filter(|keyid| Some(*keyid) != id.as_ref());
        Err(KeysError::Missing {
            role: role.clone(),
            threshold: authorised.threshold,
            missing: missing.cloned().collect(),
            here: id.iter().map(|_| label.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorised(keys: &[&SigningKey]) -> Signers {
        Signers { threshold: 1, keys: keys.iter().map(|key| (key.public().id(), key.public())).collect() }
    }

    #[test]
    fn one_file_is_one_key_and_no_other_of_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = Keys::at(directory.path().to_owned());
        let mine = keys.generate("mine", None).expect("made");
        let other = keys.generate("other", None).expect("made");
        let role = "releases-app".parse().expect("a role name");
        let source = PushKeys::at(&keys.path("mine")).expect("a key file");
        let found = source.signers(&role, &authorised(&[&other, &mine])).expect("it may sign");
        assert_eq!(found[0].public(), mine.public());
        let error = source.signers(&role, &authorised(&[&other])).expect_err("it may not");
        assert!(matches!(&error, KeysError::Missing { here, .. } if here.is_empty()), "{error}");
        assert!(error.to_string().contains(&super::super::keys::short(&other.public().id())), "{error}");
    }

    #[test]
    fn a_file_that_is_no_pem_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key.txt");
        std::fs::write(&path, "x").expect("written");
        assert!(matches!(PushKeys::at(&path), Err(KeysError::Label(_))));
    }
}
