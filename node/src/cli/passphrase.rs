//! Passphrases: from a file, from the environment, or from a person whose typing is not shown.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use updraft_protocol::key_file::{MAX_PASSPHRASE_BYTES, Passphrase};
use zeroize::Zeroizing;

use super::{CommandError, Output};
use crate::publisher::keys::Unlock;

/// The environment variable that holds a passphrase.
const VARIABLE: &str = "UPDRAFT_PASSPHRASE";

/// As typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct PassphraseFlags {
    /// The passphrase of encrypted keys is the first line of this file [else: `UPDRAFT_PASSPHRASE`, else a prompt]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Turns the terminal's echo off until dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal is gone if this fails, and its modes with it.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// The first line of `reader`, without its line feed.
fn first_line(mut reader: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE_BYTES + 2));
    let mut byte = Zeroizing::new([0]);
    while line.len() <= MAX_PASSPHRASE_BYTES && reader.read(byte.as_mut())? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn checked(line: &[u8]) -> Result<Passphrase, String> {
    let text = std::str::from_utf8(line).map_err(|_| "a passphrase is text in UTF-8".to_owned())?;
    Passphrase::new(Zeroizing::new(text.to_owned())).map_err(|error| error.to_string())
}

fn from_file(path: &Path) -> Result<Passphrase, CommandError> {
    let failed = |reason: String| CommandError::usage(format!("no passphrase in {}: {reason}", path.display()));
    let line = File::open(path).and_then(first_line).map_err(|error| failed(error.to_string()))?;
    checked(&line).map_err(failed)
}

/// Standard input without a buffer that would keep what was typed.
struct Terminal;

impl io::Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin(), buffer)?)
    }
}

fn prompt(question: &str) -> Result<Passphrase, String> {
    let failed = |error: io::Error| format!("the passphrase cannot be read: {error}");
    let mut stderr = io::stderr();
    write!(stderr, "{question}: ").and_then(|()| stderr.flush()).map_err(failed)?;
    let silence = Silence::begin().map_err(|error| failed(error.into()))?;
    let line = first_line(Terminal.by_ref()).map_err(failed)?;
    drop(silence);
    checked(&line)
}

/// Knows a passphrase, or asks for one.
#[derive(Debug)]
struct Asker {
    known: Option<Passphrase>,
    prompts: bool,
}

impl Unlock for Asker {
    fn passphrase(&self, label: &str) -> Result<Passphrase, String> {
        match &self.known {
            Some(known) => Ok(known.clone()),
            None if self.prompts => prompt(&format!("passphrase of the key {label}")),
            None => Err(format!("there is no terminal to ask on; use --passphrase-file FILE or {VARIABLE}")),
        }
    }
}

impl PassphraseFlags {
    fn known(&self) -> Result<Option<Passphrase>, CommandError> {
        if let Some(path) = &self.passphrase_file {
            return from_file(path).map(Some);
        }
        let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let value = Zeroizing::new(value.into_encoded_bytes());
        checked(&value).map(Some).map_err(|reason| CommandError::usage(format!("{VARIABLE}: {reason}")))
    }

    /// Somebody who opens keys.
    pub fn unlock(&self, output: &Output) -> Result<Arc<dyn Unlock>, CommandError> {
        Ok(Arc::new(Asker { known: self.known()?, prompts: output.can_prompt() }))
    }

    /// A passphrase for a key that is made or locked now: asked for twice.
    pub fn choose(&self, label: &str, output: &Output) -> Result<Passphrase, CommandError> {
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        if !output.can_prompt() {
            return Err(CommandError::usage(format!("the key {label} needs a passphrase"))
                .with_hint(format!("there is no terminal to ask on; use --passphrase-file FILE or {VARIABLE}")));
        }
        let first = prompt(&format!("passphrase for the key {label}")).map_err(CommandError::usage)?;
        let again = prompt("the same again").map_err(CommandError::usage)?;
        if first == again {
            Ok(first)
        } else {
            Err(CommandError::usage("the two passphrases differ; nothing was done"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_the_first_line_of_its_file_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        for (content, expected) in [("two words\nnote\n", "two words"), ("x\r\n", "x"), (" padded ", " padded ")] {
            std::fs::write(&path, content).expect("written");
            let wanted = Passphrase::new(Zeroizing::new(expected.to_owned())).expect("a passphrase");
            assert!(from_file(&path).expect("read") == wanted, "{content:?}");
        }
        for content in ["", "\n", &"x".repeat(MAX_PASSPHRASE_BYTES + 1)] {
            std::fs::write(&path, content).expect("written");
            assert!(from_file(&path).is_err());
        }
        assert!(from_file(&directory.path().join("nothing")).is_err());
    }
}
