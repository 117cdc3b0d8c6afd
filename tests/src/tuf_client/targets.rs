//! Downloads: a file has its name only after it was verified, and is not fetched while it still is what
//! is signed.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use updraft::atomic;
use updraft_protocol::digest::Digest;
use updraft_protocol::tuf::TargetInfo;

use super::fetch::{FetchError, Server, quote_path};

/// Characters of a file name made of a target's path. File systems stop at 255 bytes.
const MAX_FILE_NAME_CHARS: usize = 200;

/// Why a target is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("no hash of it is of an algorithm known here (sha256, sha512)")]
    NoHash,
    #[error("what the server sent is not what is signed")]
    Mismatch,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot be kept in {directory}: {error}")]
    Disk { directory: String, error: io::Error },
}

/// Where targets come from and where they go.
#[derive(Debug)]
pub(super) struct Downloads {
    directory: PathBuf,
    server: Server,
}

impl Downloads {
    pub(super) fn new(directory: PathBuf, server: Server) -> Self {
        Self { directory, server }
    }

    /// Makes sure that `path` is in the directory (TUF 5.7).
    pub(super) fn get(&self, path: &str, target: &TargetInfo, consistent_snapshot: bool) -> Result<(), TargetError> {
        let remote = target.file_path(path, consistent_snapshot).ok_or(TargetError::NoHash)?;
        let place = self.directory.join(file_name(path));
        if is_there(&place, target) {
            return Ok(());
        }
        let failed = |error| TargetError::Disk { directory: self.directory.display().to_string(), error };
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        atomic::remove_leftovers(&self.directory).map_err(failed)?;

        let mut body = self.server.get(&quote_path(&remote))?;
        let mut temporary =
            tempfile::Builder::new().prefix(atomic::TEMP_PREFIX).tempfile_in(&self.directory).map_err(failed)?;
        let mut check = target.check();
        let mut buffer = [0; 16 * 1024];
        loop {
            let found = body.next(&mut buffer, target.length)?;
            if found == 0 {
                break;
            }
            check.update(&buffer[..found]);
            temporary.write_all(&buffer[..found]).map_err(failed)?;
        }
        if !check.is_it() {
            return Err(TargetError::Mismatch);
        }
        temporary.as_file().sync_all().map_err(failed)?;
        temporary.persist(&place).map_err(|error| failed(error.error))?;
        atomic::sync_dir(&self.directory).map_err(failed)
    }
}

/// Whether the file is there and still what is signed.
fn is_there(place: &Path, target: &TargetInfo) -> bool {
    let Ok(mut file) = File::open(place) else {
        return false;
    };
    let mut check = target.check();
    let mut buffer = [0; 16 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return check.is_it(),
            Ok(found) => check.update(&buffer[..found]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// The name that a target has in the directory: its path percent-encoded, so that it is one name in that
/// directory whatever it says. A dot in front is encoded too: no `..`, nothing hidden, and no name that
/// a temporary file has. A path too long for a file name ends in its hash.
fn file_name(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    for (index, byte) in path.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && index > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    if name.len() > MAX_FILE_NAME_CHARS {
        name.truncate(MAX_FILE_NAME_CHARS / 2);
        name = format!("{name}-{}", Digest::of(path.as_bytes()));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_plain_name_in_its_directory() {
        assert_eq!(file_name("a/b/c-1.0.zip"), "a%2Fb%2Fc-1.0.zip");
        assert_eq!(file_name("../../etc/passwd"), "%2E.%2F..%2Fetc%2Fpasswd");
        assert_eq!((file_name(".."), file_name(".")), ("%2E.".to_owned(), "%2E".to_owned()));
        assert_eq!(file_name(".updraft-tmp-1"), "%2Eupdraft-tmp-1");
        assert_ne!(file_name("a/b"), file_name("a%2Fb"));
    }

    #[test]
    fn a_long_path_still_has_a_name_of_its_own() {
        let (one, two) = (file_name(&"ü".repeat(250)), file_name(&format!("{}x", "ü".repeat(249))));
        assert!(one.len() <= 255 && two.len() <= 255 && one != two);
    }
}
