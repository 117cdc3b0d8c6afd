//! Which releases a process still runs from, whoever started it: an old program may live on for long
//! after `current` has moved.
//!
//! Linux tells by `/proc`: the executable, the working and the root directory, open files, mapped files
//! and the command line of every process. Into processes of other users only root may look, but for the
//! command line: where that names `current` and the process began before `current` moved last, nobody can
//! tell from which release it runs, and that is the answer. A process of another user that names no path,
//! or one that sees the tree at another path (a container), is not found: a node that must spare those
//! runs as root, and installs where they look.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where the kernel tells of processes.
const PROC: &str = "/proc";

/// Bytes of one process's list of mappings that are looked at.
const MAX_MAPS_BYTES: u64 = 16 * 1024 * 1024;

/// In what `stat` counts time, on every machine that there is a Rust for.
const TICKS_PER_SECOND: u64 = 100;

/// Fields of a process's `stat` between the end of its name and the time of its start.
const FIELDS_BEFORE_START: usize = 19;

/// Names of the entries of `directory` that a process uses, each with the id of one that does. An error
/// means that nobody knows. `current`: the link through which programs are started.
pub fn in_use(directory: &Path, current: &Path) -> io::Result<BTreeMap<String, u32>> {
    if !cfg!(target_os = "linux") {
        return Ok(BTreeMap::new());
    }
    in_use_by(Path::new(PROC), directory, current)
}

fn in_use_by(processes: &Path, directory: &Path, current: &Path) -> io::Result<BTreeMap<String, u32>> {
    // The kernel names files by the path without links; people write it as they like.
    let written = directory;
    let directory = match fs::canonicalize(directory) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let links = [current.to_owned(), directory.with_file_name(current.file_name().unwrap_or_default())];
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(processes)? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut uses_current = false;
        let mut note = |path: &Path| {
            if let Some(name) = entry_of(&directory, path).or_else(|| entry_of(written, path)) {
                found.entry(name).or_insert(pid);
            }
            uses_current |= links.iter().any(|link| path.starts_with(link));
        };
        // What cannot be read belongs to somebody else, or has ended meanwhile.
        look_into(&entry.path(), &mut note);
        if uses_current && is_hidden(&entry.path()) && !began_after(processes, &entry.path(), current) {
            return Err(io::Error::other(format!(
                "process {pid} of another user was started through {} before it moved last; only root can tell from which release",
                current.display()
            )));
        }
    }
    Ok(found)
}

/// Whether a process that is there does not let this user see what it runs.
fn is_hidden(process: &Path) -> bool {
    fs::read_link(process.join("exe")).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

/// Whether a process surely began after `link` was made. Nothing is sure where the clock was set since.
fn began_after(processes: &Path, process: &Path, link: &Path) -> bool {
    let began = || {
        let uptime = fs::read_to_string(processes.join("uptime")).ok()?;
        let uptime = Duration::try_from_secs_f64(uptime.split(' ').next()?.parse().ok()?).ok()?;
        let stat = fs::read(process.join("stat")).ok()?;
        // The name before the last bracket may hold anything.
        let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
        let ticks: u64 = str::from_utf8(after_name).ok()?.split_whitespace().nth(FIELDS_BEFORE_START)?.parse().ok()?;
        let since_boot = Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?);
        SystemTime::now().checked_sub(uptime)?.checked_add(since_boot)
    };
    let made = || fs::symlink_metadata(link).ok()?.modified().ok();
    began().zip(made()).is_some_and(|(began, made)| began > made)
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
    use std::os::unix::fs::symlink;
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
        let found = in_use(root, &root.join("current")).expect("/proc is readable");
        assert_eq!(found.get("runs"), Some(&runs.0.id()));
        assert_eq!(found.get("inside"), Some(&inside.0.id()));
        assert!(found.contains_key("open"), "{} holds it", open.0.id());
        assert!(!found.contains_key("idle"));
    }

    /// A `/proc` made up here, of a machine that started a thousand seconds ago, beside an install directory
    /// with the release `1-a` that `current` points at.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let scratch = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir_all(scratch.path().join("app/releases/1-a")).expect("writable");
            symlink("releases/1-a", scratch.path().join("app/current")).expect("writable");
            fs::create_dir(scratch.path().join("proc")).expect("writable");
            fs::write(scratch.path().join("proc/uptime"), "1000.00 1000.00\n").expect("writable");
            fs::write(scratch.path().join("proc/loadavg"), "no process").expect("writable");
            Self(scratch)
        }

        fn app(&self, below: &str) -> PathBuf {
            fs::canonicalize(self.0.path()).expect("there").join("app").join(below)
        }

        /// Process 7, which runs `/bin/sh`, and its directory.
        fn process(&self) -> PathBuf {
            let process = self.0.path().join("proc/7");
            fs::create_dir_all(process.join("fd")).expect("writable");
            symlink("/bin/sh", process.join("exe")).expect("writable");
            fs::write(process.join("cmdline"), b"sh\0").expect("writable");
            process
        }

        /// Process 7 of another user, which names `path` and began so many ticks after the start of the machine.
        fn stranger(&self, path: &Path, ticks: u64) {
            let process = self.process();
            fs::remove_file(process.join("exe")).expect("writable");
            // It cannot be read as a link, not even by root.
            fs::write(process.join("exe"), b"").expect("writable");
            fs::write(process.join("cmdline"), [b"run\0", path.as_os_str().as_bytes(), b"\0"].concat())
                .expect("writable");
            let zeros = "0 ".repeat(FIELDS_BEFORE_START - 1);
            fs::write(process.join("stat"), format!("7 (odd) name) S {zeros}{ticks} 0 0\n")).expect("writable");
        }

        fn in_use(&self) -> io::Result<BTreeMap<String, u32>> {
            let root = self.0.path().join("app");
            in_use_by(&self.0.path().join("proc"), &root.join("releases"), &root.join("current"))
        }

        fn assert_used(&self) {
            assert_eq!(self.in_use().expect("readable"), BTreeMap::from([("1-a".to_owned(), 7)]));
        }
    }

    #[test]
    fn each_thing_that_is_known_of_a_process_is_a_use_by_itself() {
        let links: [&dyn Fn(&Path) -> PathBuf; 4] =
            [&|of| of.join("exe"), &|of| of.join("cwd"), &|of| of.join("root"), &|of| of.join("fd/3")];
        for link in links {
            let machine = Machine::new();
            let link = link(&machine.process());
            assert!(machine.in_use().expect("readable").is_empty());
            let _ = fs::remove_file(&link);
            symlink(machine.app("releases/1-a/bin/x"), &link).expect("writable");
            machine.assert_used();
        }
        let machine = Machine::new();
        let process = machine.process();
        let path = machine.app("releases/1-a/run.py");
        fs::write(process.join("cmdline"), [b"python\0", path.as_os_str().as_bytes(), b"\0"].concat())
            .expect("writable");
        machine.assert_used();
        let machine = Machine::new();
        let process = machine.process();
        let path = machine.app("releases/1-a/lib/x.so");
        let maps = format!("7f00-7f01 rw-p 00000000 00:00 0\n7f01-7f02 r-xp 00000000 08:01 9    {}\n", path.display());
        fs::write(process.join("maps"), maps).expect("writable");
        machine.assert_used();
    }

    #[test]
    fn whoever_names_a_release_by_a_path_with_links_uses_it() {
        let machine = Machine::new();
        let process = machine.process();
        symlink(machine.app(""), machine.0.path().join("link")).expect("writable");
        let path = machine.0.path().join("link/releases/1-a/run");
        fs::write(process.join("cmdline"), path.as_os_str().as_bytes()).expect("writable");
        let root = machine.0.path().join("link");
        let found = in_use_by(&machine.0.path().join("proc"), &root.join("releases"), &root.join("current"));
        assert!(found.expect("readable").contains_key("1-a"));
    }

    #[test]
    fn nobody_knows_what_a_stranger_runs_that_was_started_before_the_link_moved() {
        let machine = Machine::new();
        machine.stranger(&machine.app("current/bin/run"), 99_000);
        let error = machine.in_use().expect_err("it may be any release").to_string();
        assert!(error.contains("process 7"), "{error}");
        // As nobody can tell when it began.
        fs::remove_file(machine.0.path().join("proc/7/stat")).expect("there");
        assert!(machine.in_use().is_err());
    }

    #[test]
    fn a_stranger_that_was_started_after_the_link_moved_runs_what_is_current() {
        let machine = Machine::new();
        // A hundred ticks a second: it begins ten seconds from now.
        machine.stranger(&machine.app("current/bin/run"), 101_000);
        assert!(machine.in_use().expect("it is known").is_empty());
    }

    #[test]
    fn a_stranger_from_elsewhere_keeps_nothing() {
        let machine = Machine::new();
        machine.stranger(&machine.app("currently/bin/run"), 99_000);
        assert!(machine.in_use().expect("it is known").is_empty());
    }

    #[test]
    fn a_directory_that_is_not_there_is_used_by_nobody() {
        assert!(
            in_use(Path::new("/nonexistent/releases"), Path::new("/nonexistent/current")).expect("no error").is_empty()
        );
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
