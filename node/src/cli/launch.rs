//! `updraft launch`: starts the node that an install directory points at, and goes back where it does not
//! stay up.
//!
//! For a node that is updated by its own update path. The count of failed starts is kept here, outside of
//! the program that may be broken: this one is started from a place that no update touches, and does only
//! what must not break. It speaks to no network and opens no database. A start has succeeded when the
//! program said that it runs and stayed up for a while, or put another release in its own place; whatever
//! else it does is a failure, silence and an end without complaint too. The start is counted before it is
//! made, so that one that takes the machine with it counts as well.
//!
//! A program never outlives its launcher: the next launcher's would find the data directory locked, and be
//! blamed for it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::notify::{self, Listener};
use super::run_node::{StopSignals, block_on};
use super::{CommandError, ExitCode, GlobalArgs, Output, absolute};
use crate::atomic;
use crate::installer::InstallDir;

/// The launcher's own memory, in the install directory.
const STATE_NAME: &str = "launch.json";
/// Bytes of it that are read. Bounds what a damaged file costs.
const MAX_STATE_BYTES: u64 = 64 * 1024;
/// The longest pause between two starts.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Milliseconds to the next start after the first that failed, doubled with every other.
const PAUSE_MS: u64 = 500;
/// How long a program that is told to stop may take.
const STOP: Duration = Duration::from_secs(60);
/// What is running here, whatever has become of its name.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// As typed.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The install directory of the product that the node is
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The program, below `current`
    #[arg(long, value_name = "PATH", default_value = "updraft")]
    pub program: PathBuf,
    /// Failed starts after which the release before is started
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub tries: u32,
    /// Milliseconds after which a program that still runs, and said so, has started well
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub settle_ms: u64,
    /// Milliseconds in which the program must say that it runs; 0: it need not
    #[arg(long, value_name = "MS", default_value_t = 300_000)]
    pub ready_ms: u64,
    /// Become the program, and end with the launcher of this process id
    #[arg(long, value_name = "PID", hide = true)]
    pub beneath: Option<i32>,
    /// What the program is started with
    #[arg(value_name = "ARGS", last = true)]
    pub arguments: Vec<String>,
}

/// What is remembered from start to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// The release that was started last.
    #[serde(default)]
    release: String,
    /// Its starts that failed in a row, the one under way included.
    #[serde(default)]
    failed: u32,
    /// The release that stayed up last.
    #[serde(default)]
    good: Option<String>,
    /// The one that did before it.
    #[serde(default)]
    before: Option<String>,
}

impl Memory {
    /// A file that is missing or damaged is an empty memory: not to start would be worse.
    fn read(path: &Path) -> Self {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, MAX_STATE_BYTES), &mut text)?;
            Ok(text)
        };
        read().ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn write(&self, path: &Path) {
        let written = serde_json::to_vec(self).map_err(io::Error::other);
        if let Err(error) = written.and_then(|bytes| atomic::write(path, &bytes, 0o600)) {
            tracing::warn!(%error, path = %path.display(), "failed starts are counted until this launcher ends");
        }
    }

    /// Takes note of what `current` points at now.
    fn see(&mut self, current: &str) {
        if self.release == current {
            return;
        }
        // The node went back by itself: what it left is not what to go back to.
        if self.before.as_deref() == Some(current) {
            self.good = self.before.take();
        }
        current.clone_into(&mut self.release);
        self.failed = 0;
    }

    /// The release to go back to, where what `current` points at failed too often.
    fn way_back(&self, tries: u32, is_there: impl Fn(&str) -> bool) -> Option<String> {
        self.good.clone().filter(|good| self.failed >= tries && *good != self.release && is_there(good))
    }

    /// The release that was started last stayed up.
    fn settled(&mut self) {
        self.failed = 0;
        if self.good.as_deref() != Some(&self.release) {
            self.before = self.good.replace(self.release.clone());
        }
    }

    /// A start that is not to be held against the release.
    fn forgive(&mut self) {
        self.failed = self.failed.saturating_sub(1);
    }
}

enum Ended {
    /// By itself.
    Alone(io::Result<ExitStatus>),
    /// Because this program was told to stop.
    Told {
        /// How.
        status: io::Result<ExitStatus>,
        /// It had said that it runs.
        is_ready: bool,
    },
    /// Because it never said that it runs.
    Silent,
}

/// Keeps the program up until it is told to stop.
pub fn run(args: &LaunchArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let root = absolute(&args.dir)?;
    if args.program.is_absolute() {
        return Err(CommandError::usage("--program is a path below `current`, such as bin/updraft"));
    }
    if let Some(launcher) = args.beneath {
        return Err(become_program(args, &root, launcher));
    }
    let data_dir = global.data_dir.as_deref().map(absolute).transpose()?;
    remove_cut_short(&root);
    block_on(async {
        let mut launcher = Launcher {
            args,
            memory: Memory::read(&root.join(STATE_NAME)),
            path: root.join(STATE_NAME),
            directory: InstallDir::new(&root),
            data_dir,
            root,
            signals: StopSignals::listen()?,
        };
        loop {
            if let Some(code) = launcher.once(output).await? {
                return Ok(code);
            }
        }
    })
}

/// Takes the program's place in this process, which ends when its launcher does. Returns only where that
/// fails.
fn become_program(args: &LaunchArgs, root: &Path, launcher: i32) -> CommandError {
    // KILL, because the next launcher may be there at once; whatever a node does bears that.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return CommandError::error(format!("this process cannot be tied to its launcher: {error}"));
    }
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|parent| parent.get() != launcher) {
        return CommandError::error("the launcher has ended".to_owned());
    }
    let program = root.join("current").join(&args.program);
    let error = std::process::Command::new(&program).args(&args.arguments).exec();
    CommandError::error(format!("{} cannot be started: {error}", program.display()))
}

/// Removes what a launcher that was killed while it wrote its memory left. The links of that kind are the
/// node's.
fn remove_cut_short(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if atomic::is_temp_name(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            // It is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

struct Launcher<'a> {
    args: &'a LaunchArgs,
    root: PathBuf,
    directory: InstallDir,
    /// Where the memory is kept. What counts is the one in memory: a disk may be full.
    path: PathBuf,
    memory: Memory,
    /// The data directory, where this command was given one: it is the program's.
    data_dir: Option<PathBuf>,
    signals: StopSignals,
}

impl Launcher<'_> {
    /// One start. An exit code ends the launcher.
    async fn once(&mut self, output: &mut Output) -> Result<Option<ExitCode>, CommandError> {
        self.choose(output)?;
        self.memory.failed = self.memory.failed.saturating_add(1);
        self.memory.write(&self.path);
        let listener = if self.args.ready_ms > 0 { Listener::open() } else { None };
        let mut settled = false;
        let ended = match self.command(listener.as_ref()).spawn() {
            Ok(child) => self.watch(child, listener, &mut settled).await,
            Err(error) => Ended::Alone(Err(error)),
        };
        let program = self.root.join("current").join(&self.args.program);
        match ended {
            Ended::Told { status, is_ready } => {
                // One that never spoke may be why somebody lost patience.
                if is_ready {
                    self.memory.forgive();
                    self.memory.write(&self.path);
                }
                let well = status.is_ok_and(|status| status.success());
                return Ok(Some(if well { ExitCode::Ok } else { ExitCode::Error }));
            }
            // It asked to be started again: an update of its own, as a rule.
            Ended::Alone(Ok(status)) if status.success() && (settled || self.is_replaced()) => {
                self.memory.forgive();
                self.memory.write(&self.path);
            }
            Ended::Alone(Ok(status)) => output.note(format_args!("{} ended: {status}", program.display())),
            Ended::Alone(Err(error)) => {
                output.note(format_args!("{} cannot be started: {error}", program.display()));
            }
            Ended::Silent => {
                let seconds = Duration::from_millis(self.args.ready_ms).as_secs_f64();
                output.note(format_args!("{} did not say within {seconds} s that it runs", program.display()));
            }
        }
        let pause = Duration::from_millis(PAUSE_MS << self.memory.failed.saturating_sub(1).min(7)).min(MAX_PAUSE);
        tokio::select! {
            () = sleep(pause) => Ok(None),
            () = self.signals.arrive() => Ok(Some(ExitCode::Ok)),
        }
    }

    /// Puts the release before back where the one that `current` points at failed too often.
    fn choose(&mut self, output: &mut Output) -> Result<(), CommandError> {
        let current = self.directory.current().ok_or_else(|| {
            CommandError::error(format!("{} points at no release", self.directory.current_link().display()))
                .with_hint("install one there first: updraft peer --subscribe PRODUCT=DIR")
        })?;
        self.memory.see(&current);
        let Some(back) = self.memory.way_back(self.args.tries, |name| self.directory.has(name)) else { return Ok(()) };
        let tries = self.memory.failed;
        output.note(format_args!("{current} did not start {tries} times; going back to {back}"));
        match self.directory.switch(&back) {
            Ok(()) => self.memory.see(&back),
            // Room comes back, and so may the release: it goes on being started.
            Err(error) => output.note(format_args!("cannot go back to {back}: {error}")),
        }
        Ok(())
    }

    /// Whether `current` points at something else than what was started.
    fn is_replaced(&self) -> bool {
        self.directory.current().is_some_and(|current| current != self.memory.release)
    }

    fn command(&self, listener: Option<&Listener>) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.arg("launch").arg("--dir").arg(&self.root).arg("--program").arg(&self.args.program);
        command.arg("--beneath").arg(getpid().as_raw_nonzero().to_string());
        command.arg("--").args(&self.args.arguments);
        if let Some(data_dir) = &self.data_dir {
            command.env("UPDRAFT_DATA_DIR", data_dir);
        }
        match listener {
            Some(listener) => command.env(notify::VARIABLE, listener.name()),
            None => command.env_remove(notify::VARIABLE),
        };
        command
    }

    /// Waits for the end of the program; takes note when it has settled.
    async fn watch(&mut self, mut child: Child, listener: Option<Listener>, settled: &mut bool) -> Ended {
        let settle = sleep(Duration::from_millis(self.args.settle_ms));
        let patience = sleep(Duration::from_millis(self.args.ready_ms));
        tokio::pin!(settle, patience);
        let (mut is_ready, mut is_time) = (listener.is_none(), false);
        loop {
            tokio::select! {
                status = child.wait() => return Ended::Alone(status),
                () = notify::heard(listener.as_ref()), if !is_ready => {
                    is_ready = true;
                    // Whoever watches the launcher hears it too.
                    notify::ready();
                }
                () = &mut settle, if !is_time => is_time = true,
                () = &mut patience, if !is_ready => {
                    // However it ends.
                    drop(stop(&mut child).await);
                    return Ended::Silent;
                }
                () = self.signals.arrive() => return Ended::Told { status: stop(&mut child).await, is_ready },
            }
            if is_ready && is_time && !*settled {
                *settled = true;
                self.memory.settled();
                self.memory.write(&self.path);
            }
        }
    }
}

/// Tells the program to stop, and sees to it that it does.
async fn stop(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // One that has ended needs no signal.
        let _ = kill_process(pid, Signal::TERM);
    }
    match timeout(STOP, child.wait()).await {
        Ok(status) => status,
        Err(_) => child.kill().await.and(Err(io::Error::other("it did not stop"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_too_often_gives_way_to_what_stayed_up() {
        let mut memory = Memory { good: Some("1".to_owned()), ..Memory::default() };
        for _ in 0..3 {
            memory.see("2");
            assert_eq!(memory.way_back(3, |_| true), None);
            memory.failed += 1;
        }
        assert_eq!(memory.way_back(3, |_| false), None, "it is not there any more");
        assert_eq!(memory.way_back(3, |_| true), Some("1".to_owned()));
        memory.see("1");
        assert_eq!((memory.failed, memory.release.as_str()), (0, "1"));
        memory.failed = 9;
        assert_eq!(memory.way_back(3, |_| true), None, "there is nothing else");
    }

    #[test]
    fn what_a_killed_launcher_left_goes_and_the_links_of_the_node_stay() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (file, link) = (scratch.path().join(".updraft-tmp-1-1"), scratch.path().join(".updraft-tmp-2-1"));
        fs::write(&file, b"{").expect("writable");
        fs::write(scratch.path().join(STATE_NAME), b"{}").expect("writable");
        std::os::unix::fs::symlink("releases/1", &link).expect("writable");
        remove_cut_short(scratch.path());
        assert!(!file.exists() && fs::symlink_metadata(&link).is_ok() && scratch.path().join(STATE_NAME).exists());
    }

    #[test]
    fn another_release_starts_with_a_clean_slate() {
        let good = Some("1".to_owned());
        let mut memory = Memory { release: "2".to_owned(), failed: 9, good, ..Memory::default() };
        memory.see("3");
        assert_eq!((memory.failed, memory.way_back(3, |_| true)), (0, None));
    }

    #[test]
    fn what_the_node_itself_went_back_from_is_not_gone_back_to() {
        let mut memory = Memory::default();
        for release in ["1", "2"] {
            memory.see(release);
            memory.settled();
        }
        // Its probation was longer than the time in which a start settles.
        memory.see("1");
        memory.see("3");
        memory.failed = 3;
        assert_eq!(memory.way_back(3, |_| true), Some("1".to_owned()));
    }

    #[test]
    fn a_damaged_memory_is_an_empty_one() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join(STATE_NAME);
        assert_eq!(Memory::read(&path), Memory::default());
        fs::write(&path, b"{\"failed\": \"many\"").expect("written");
        assert_eq!(Memory::read(&path), Memory::default());
        let memory = Memory { release: "2".to_owned(), failed: 1, ..Memory::default() };
        memory.write(&path);
        assert_eq!(Memory::read(&path), memory);
    }
}
