//! Carrying keys between directories: written, read back, and only then removed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use updraft_protocol::key_file::{self, Form};

use super::{KeyEntry, Keys, KeysError, read_private, read_public};
use crate::atomic;

/// The public half's file beside a private key's file.
fn public_beside(path: &Path) -> PathBuf {
    path.with_extension("pub")
}

/// Writes a file that must not exist, durably, and reads it back.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeysError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeysError::Exists(path.to_owned()),
        _ => KeysError::Io { path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        atomic::sync_dir(directory)
    });
    written.map_err(failed)
}

impl Keys {
    /// Copies a key to the new file `output`, as it is (an encrypted one stays so), and its public half
    /// beside it. What was written is read back before this returns.
    pub fn export(&self, entry: &KeyEntry, output: &Path) -> Result<(), KeysError> {
        let pem = read_private(&entry.path)?;
        let public = entry.public.as_ref().map(key_file::encode_public);
        let beside = public_beside(output);
        if beside == output || beside.exists() && public.is_some() {
            return Err(KeysError::Exists(beside));
        }
        write_new(output, pem.as_bytes(), 0o600)?;
        if let Some(public) = &public {
            write_new(&beside, public, 0o644)?;
        }
        let same = *read_private(output)? == *pem;
        if same {
            return Ok(());
        }
        let source = io::Error::other("it does not read back as it was written; the key was not moved");
        Err(KeysError::Io { path: output.to_owned(), source })
    }

    /// Copies the public half of a key to the new file `output`.
    pub fn export_public(entry: &KeyEntry, output: &Path) -> Result<(), KeysError> {
        match (&entry.public, &entry.problem) {
            (Some(public), _) => write_new(output, &key_file::encode_public(public), 0o644),
            (None, problem) => Err(KeysError::Passphrase {
                label: entry.label.clone(),
                reason: problem.clone().unwrap_or_else(|| "its public half is not known".to_owned()),
            }),
        }
    }

    /// Takes the key of a file in, under a name that is free, as it is (an encrypted one stays so).
    pub fn import(&self, file: &Path, label: &str) -> Result<KeyEntry, KeysError> {
        let malformed = |source| KeysError::Malformed { path: file.to_owned(), source };
        let pem = read_private(file)?;
        match key_file::form(&pem).map_err(malformed)? {
            Form::Plain => self.put(label, &key_file::read(&pem).map_err(malformed)?, None)?,
            Form::Encrypted => {
                let beside = public_beside(file);
                let public = if beside.is_file() {
                    read_public(&beside)?
                } else {
                    // Without its public half the key could be told from no other: open it once.
                    let encrypted = true;
                    let entry = KeyEntry {
                        label: label.to_owned(),
                        path: file.to_owned(),
                        public: None,
                        encrypted,
                        exposed: false,
                        problem: None,
                    };
                    self.open(&entry)?.public()
                };
                self.put_file(label, &pem, &public)?;
            }
        }
        self.get(label)
    }

    /// Whether `path` is in this directory.
    pub fn contains(&self, path: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).ok();
        path.parent().and_then(real).is_some_and(|parent| real(self.directory()) == Some(parent))
    }
}
