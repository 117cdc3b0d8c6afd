//! A node that is crashed: the program as it is, with a listener at the seam where it tells its steps
//! ([`updraft::atomic::steps`]).
//!
//! The environment says what happens; without any of it the program is `updraft`. Steps count where they
//! touch the directory [`WATCH`], or are transactions of the state database.

pub mod campaign;
pub mod power;
pub mod scene;
pub mod site;
pub mod trouble;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use updraft::atomic::steps::{self, Step};

use self::trouble::Trouble;

/// Names the directory whose steps count.
pub const WATCH: &str = "CRASH_WATCH";
/// SIGKILL once so many steps were taken, 1 being the first.
pub const KILL_AT: &str = "CRASH_KILL_AT";
/// SIGKILL at the first step that touches [`WATCH`] itself, if set at all.
pub const KILL_ON_TOUCH: &str = "CRASH_KILL_ON_TOUCH";
/// Make [`TROUBLE`] once so many steps were taken.
pub const TROUBLE_AT: &str = "CRASH_TROUBLE_AT";
/// Names what kind of trouble: see [`trouble::Trouble`].
pub const TROUBLE: &str = "CRASH_TROUBLE";
/// Names the directory that is in trouble.
pub const TROUBLE_IN: &str = "CRASH_TROUBLE_IN";
/// Names the file to which every step is added, one JSON object a line.
pub const RECORD: &str = "CRASH_RECORD";
/// Names the state database; with [`RECORD`], its files are copied next to the record at each transaction.
pub const STATE: &str = "CRASH_STATE";

/// One step as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The kind of step, as [`Step::name`] calls it.
    pub step: String,
    /// What it was about.
    pub path: PathBuf,
    /// Where to: the new name, or a link's text.
    pub to: PathBuf,
    /// Bytes that were added, in hexadecimal digits.
    pub bytes: String,
}

impl Recorded {
    fn of(step: &Step<'_>) -> Self {
        let nothing = PathBuf::new;
        let (path, to, bytes) = match step {
            Step::MakeDir(path)
            | Step::CreateFile(path)
            | Step::SyncFile(path)
            | Step::SyncDir(path)
            | Step::SyncTree(path)
            | Step::RemoveFile(path)
            | Step::RemoveTree(path) => (path.clone(), nothing(), String::new()),
            Step::Append { path, bytes } => (path.clone(), nothing(), data_encoding::HEXLOWER.encode(bytes)),
            Step::Symlink { path, target } => (path.clone(), target.clone(), String::new()),
            Step::HardLink { from, to } | Step::Rename { from, to } => (from.clone(), to.clone(), String::new()),
            Step::Committed => (nothing(), nothing(), String::new()),
        };
        Self { step: step.name().to_owned(), path, to, bytes }
    }
}

/// What the environment asks for.
#[derive(Debug)]
struct Plan {
    watch: PathBuf,
    kill_at: Option<u64>,
    kill_on_touch: bool,
    trouble_at: Option<u64>,
    trouble: Option<Trouble>,
    trouble_in: PathBuf,
    record: Option<PathBuf>,
    state: Option<PathBuf>,
}

#[derive(Debug)]
struct Progress {
    steps: u64,
    record: Option<File>,
}

/// Has the steps of this process counted, recorded and cut short as the environment says.
///
/// # Panics
/// Where the environment asks for nonsense.
pub fn listen() {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let number = |name: &str| {
        let text: Option<OsString> = std::env::var_os(name);
        text.map(|text| text.to_str().and_then(|text| text.parse().ok()).expect("a number"))
    };
    let Some(watch) = path(WATCH) else { return };
    let plan = Plan {
        watch,
        kill_at: number(KILL_AT),
        kill_on_touch: std::env::var_os(KILL_ON_TOUCH).is_some(),
        trouble_at: number(TROUBLE_AT),
        trouble: std::env::var(TROUBLE).ok().and_then(|name| Trouble::from_name(&name)),
        trouble_in: path(TROUBLE_IN).unwrap_or_default(),
        record: path(RECORD),
        state: path(STATE),
    };
    let record = plan
        .record
        .as_ref()
        .map(|record| OpenOptions::new().create(true).append(true).open(record).expect("the record can be written"));
    let progress = Mutex::new(Progress { steps: 0, record });
    steps::listen(move |step| plan.heed(step, &mut progress.lock().unwrap_or_else(PoisonError::into_inner)));
}

impl Plan {
    fn heed(&self, step: &Step<'_>, progress: &mut Progress) {
        let recorded = Recorded::of(step);
        let counts = matches!(step, Step::Committed)
            || recorded.path.starts_with(&self.watch)
            || recorded.to.starts_with(&self.watch);
        if !counts {
            return;
        }
        progress.steps += 1;
        if let Some(record) = &mut progress.record {
            // The line goes last: whoever reads it finds the state whole, whenever this process is killed.
            if matches!(step, Step::Committed) {
                self.keep_state(progress.steps);
            }
            let mut line = serde_json::to_vec(&recorded).expect("plain data");
            line.push(b'\n');
            record.write_all(&line).expect("the record can be written");
        }
        if let Some(trouble) = self.trouble.filter(|_| self.trouble_at == Some(progress.steps)) {
            trouble.make(&self.trouble_in);
        }
        if self.kill_at == Some(progress.steps) || self.kill_on_touch && !matches!(step, Step::Committed) {
            // Nothing of this process runs on: not this thread, nor any other.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    /// Copies the database as it is after a transaction.
    fn keep_state(&self, step: u64) {
        let (Some(record), Some(state)) = (&self.record, &self.state) else { return };
        let into = record.with_extension(format!("state-{step}"));
        fs::create_dir_all(&into).expect("writable");
        for file in state_files(state) {
            if let (Some(name), true) = (file.file_name(), file.exists()) {
                fs::copy(&file, into.join(name)).expect("the database can be copied");
            }
        }
    }
}

/// The files of a state database but the index, which is made anew.
pub fn state_files(state: &Path) -> [PathBuf; 2] {
    let mut wal = state.as_os_str().to_owned();
    wal.push("-wal");
    [state.to_owned(), wal.into()]
}
