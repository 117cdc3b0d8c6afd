//! Disks and directories that refuse in the middle of something, and no more once somebody has seen to it.
//!
//! The peer makes the trouble itself, right after a step, so that it falls exactly between two. The harness
//! ends it while the peer runs on: nobody starts it again.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::scene::Scene;
use super::site::{Death, Extra, Site};
use crate::process::{DEADLINE, say};

/// What fills a disk.
const FILLER: &str = "filler";
/// How long a trouble lasts once it is seen.
const LASTS: Duration = Duration::from_millis(250);
/// How long it lasts where the peer cannot be asked meanwhile.
const SILENCE: Duration = Duration::from_secs(2);
/// Pause between two looks at a node.
const PAUSE: Duration = Duration::from_millis(10);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The disk takes not a byte more.
    Full,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The directory and those in it may not be written any more.
    Forbidden,
}

impl Trouble {
    /// The name, for the environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Forbidden => "forbidden",
        }
    }

    /// The trouble of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Full, Self::ReadOnly, Self::Forbidden].into_iter().find(|trouble| trouble.name() == name)
    }

    /// Makes it, as far as the system lets it.
    pub fn make(self, directory: &Path) {
        match self {
            Self::Full => fill(&directory.join(FILLER), u64::MAX),
            Self::ReadOnly => remount(directory, "ro"),
            Self::Forbidden => set_modes(directory, 0o555),
        }
    }

    /// Whether it is there.
    pub fn is_there(self, directory: &Path) -> bool {
        match self {
            Self::Full => directory.join(FILLER).exists(),
            Self::ReadOnly => rustix::fs::statvfs(directory)
                .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)),
            Self::Forbidden => fs::metadata(directory).is_ok_and(|found| found.permissions().mode() & 0o200 == 0),
        }
    }

    /// Somebody sees to it.
    ///
    /// # Panics
    /// Where that does not work.
    pub fn end(self, directory: &Path) {
        match self {
            Self::Full => fs::remove_file(directory.join(FILLER)).expect("removable"),
            Self::ReadOnly => remount(directory, "rw"),
            Self::Forbidden => set_modes(directory, 0o755),
        }
        assert!(!self.is_there(directory), "{self:?} cannot be ended");
    }
}

fn remount(directory: &Path, how: &str) {
    // It is busy where a file is open for writing, and then stays as it is.
    let _ = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(directory).output();
}

fn set_modes(directory: &Path, mode: u32) {
    for path in [directory.to_owned(), directory.join("releases"), directory.join("staging")] {
        // Not each of them is there at every step.
        let _ = fs::set_permissions(path, Permissions::from_mode(mode));
    }
}

/// Writes until the disk takes no more, or the file is so long.
pub fn fill(path: &Path, most_bytes: u64) {
    let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) else { return };
    let block = vec![0xA5_u8; 1 << 16];
    let mut written = 0;
    while written < most_bytes && file.write_all(&block).is_ok() {
        written += block.len() as u64;
    }
    // What is left is less than a block; the last bytes go one page at a time.
    while written >= most_bytes || file.write_all(&block[..512]).is_ok() {
        if written >= most_bytes {
            return;
        }
    }
}

/// What came of a trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// It was made: the peer took so many steps.
    pub made: bool,
    /// The peer waited for its end.
    pub waited: bool,
    /// What the peer said of itself meanwhile.
    pub said: Vec<String>,
}

impl Site {
    /// Plays a scene with a trouble in `directory` after `step`, which ends while the peer runs, and lets the
    /// peer end what it began. It is killed then.
    ///
    /// # Panics
    /// Where the peer ends by itself, or never goes on.
    pub fn play_with_trouble(&self, scene: Scene, step: u64, trouble: Trouble, directory: &Path) -> Seen {
        self.restore(scene);
        let extra = Extra { trouble: Some((step, trouble, directory.to_owned())), ..Extra::default() };
        let mut living = self.start(scene, Death::WhenDone, &extra, false);
        let mut seen = Seen { made: false, waited: false, said: Vec::new() };
        let (began, mut since, mut over, mut asked) = (Instant::now(), None, false, None);
        loop {
            living.require_alive();
            let waited = began.elapsed();
            assert!(
                waited < DEADLINE,
                "{scene:?}, {trouble:?} at step {step}: the node hangs: {seen:?}\n{}",
                living.log()
            );
            std::thread::sleep(PAUSE);
            if since.is_none() && trouble.is_there(directory) {
                since = Some(Instant::now());
            }
            let Some(status) = self.status() else {
                // It cannot even be asked before there is room.
                if since.is_some_and(|since| since.elapsed() >= SILENCE) && !over {
                    (seen.made, seen.waited, over) = (true, true, true);
                    seen.said.push(living.log());
                    trouble.end(directory);
                }
                continue;
            };
            let done = self.is_done(&status, scene);
            if since.is_some_and(|since| since.elapsed() >= LASTS) && !over {
                let reason = status.subscriptions.first().and_then(|subscription| subscription.reason.clone());
                let written = status.warnings.iter().any(|warning| warning.contains("cannot be written"));
                (seen.made, seen.waited) = (true, !done || written);
                seen.said.extend(reason);
                seen.said.extend(status.warnings);
                trouble.end(directory);
                over = true;
                continue;
            }
            self.ask_once(scene, &status, &mut asked);
            let owes = status.warnings.iter().any(|warning| warning.contains("cannot be written"));
            if done && !owes && (over || since.is_none()) {
                living.kill();
                if trouble.is_there(directory) {
                    // It came with the last step, and nothing was left to do.
                    trouble.end(directory);
                }
                return seen;
            }
        }
    }
}

/// A small disk of its own, where this user may have one.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `None`, and a word about it, where that is not permitted.
    ///
    /// # Panics
    /// Where there is no such place.
    pub fn mount(at: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(at).expect("writable");
        let size = format!("size={mib}m,mode=777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "updraft-test"]).arg(at).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self(at.to_owned())),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        say(&format!("skipped: no small disk: {why}"));
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
