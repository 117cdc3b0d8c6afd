//! Which releases a process still runs from, whoever started it: an old program may live on for long
//! after `current` has moved.
//!
//! Linux tells by `/proc`: the executable, the working and the root directory, open files, mapped files
//! and the command line of every process. A process that this user may not look into, or one that sees
//! the tree at another path (a container), is not found: a node that must spare those runs as root, and
//! installs where they look.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Where the kernel tells of processes.
const PROC: &str = "/proc";

/// Bytes of one process's list of mappings that are looked at.
const MAX_MAPS_BYTES: u64 = 16 * 1024 * 1024;

/// Names of the entries of `directory` that a process uses, each with the id of one that does. An error
/// means that nobody knows.
pub fn in_use(directory: &Path) -> io::Result<BTreeMap<String, u32>> {
    if !cfg!(target_os = "linux") {
        return Ok(BTreeMap::new());
    }
    // The kernel names files by the path without links.
    let directory = match fs::canonicalize(directory) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(PROC)? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut note = |path: &Path| {
            if let Some(name) = entry_of(&directory, path) {
                found.entry(name).or_insert(pid);
            }
        };
        // What cannot be read belongs to somebody else, or has ended meanwhile.
        look_into(&entry.path(), &mut note);
    }
    Ok(found)
}

fn look_into(process: &Path, note: &mut dyn FnMut(&Path)) {
    for link in ["exe", "cwd", "root"] {
        if let Ok(target) = fs::read_link(process.join(link)) {
            note(&target);
        }
    }
    for open in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(open.path()) {
            note(&target);
        }
    }
    if let Ok(arguments) = read_bounded(&process.join("cmdline")) {
        for argument in arguments.split(|byte| *byte == 0) {
            note(Path::new(OsStr::from_bytes(argument)));
        }
    }
    if let Ok(maps) = read_bounded(&process.join("maps")) {
        for line in maps.split(|byte| *byte == b'\n') {
            // The path is the last field, and the only one that has a slash.
            if let Some(at) = line.iter().position(|byte| *byte == b'/') {
                note(&mapped_path(&line[at..]));
            }
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_MAPS_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path as the list of mappings spells it: a line end is written `\012`.
fn mapped_path(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, more @ ..] = rest {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            path.push(b'\n');
            rest = after;
        } else {
            path.push(*first);
            rest = more;
        }
    }
    OsStr::from_bytes(&path).into()
}

/// The entry of `directory` that `path` is, or lies in.
fn entry_of(directory: &Path, path: &Path) -> Option<String> {
    let name = path.strip_prefix(directory).ok()?.components().next()?;
    let name = name.as_os_str().to_str()?;
    // A removed file is named with this mark; where the entry itself was removed, so is the mark.
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A release with a program that waits until it is killed.
    fn releases() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        for name in ["runs", "open", "inside", "idle"] {
            fs::create_dir_all(scratch.path().join(name).join("bin")).expect("writable");
        }
        fs::copy("/bin/sleep", scratch.path().join("runs/bin/sleep")).expect("a program");
        fs::write(scratch.path().join("open/file"), b"x").expect("writable");
        scratch
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn executables_open_files_and_working_directories_are_uses() {
        let releases = releases();
        let root = releases.path();
        let runs = Killed(Command::new(root.join("runs/bin/sleep")).arg("60").spawn().expect("it starts"));
        let inside =
            Killed(Command::new("sleep").arg("60").current_dir(root.join("inside/bin")).spawn().expect("it starts"));
        let open = fs::File::open(root.join("open/file")).expect("readable");
        let open = Killed(Command::new("sleep").arg("60").stdin(Stdio::from(open)).spawn().expect("it starts"));
        let found = in_use(root).expect("/proc is readable");
        assert_eq!(found.get("runs"), Some(&runs.0.id()));
        assert_eq!(found.get("inside"), Some(&inside.0.id()));
        assert!(found.contains_key("open"), "{} holds it", open.0.id());
        assert!(!found.contains_key("idle"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_used_by_nobody() {
        assert!(in_use(Path::new("/nonexistent/releases")).expect("no error").is_empty());
    }

    #[test]
    fn paths_of_mappings_are_taken_by_their_first_name_below() {
        let root = Path::new("/app/releases");
        assert_eq!(entry_of(root, &mapped_path(b"/app/releases/1.0-ab/lib/x.so")), Some("1.0-ab".to_owned()));
        assert_eq!(entry_of(root, &mapped_path(b"/app/releases/a\\012b/x")), Some("a\nb".to_owned()));
        assert_eq!(entry_of(root, Path::new("/app/releases/1.0-ab (deleted)")), Some("1.0-ab".to_owned()));
        assert_eq!(entry_of(root, Path::new("/app/releases-old/1.0-ab/x")), None);
        assert_eq!(entry_of(root, Path::new("/app/releases")), None);
    }
}
