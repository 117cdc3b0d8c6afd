//! `updraft launch`: starts the node that an install directory points at, and goes back where it does not
//! stay up.
//!
//! For a node that is updated by its own update path. The count of failed starts is kept here, outside of
//! the program that may be broken: this one is started from a place that no update touches, and does only
//! what must not break. It speaks to no network and opens no database. A start fails when the program ends
//! by itself, not well, before it has settled; the start is counted before it is made, so that one that
//! takes the machine with it counts too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::run_node::{StopSignals, block_on};
use super::{CommandError, ExitCode, Output, absolute};
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
    /// Milliseconds after which a program that still runs has started well
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub settle_ms: u64,
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
            tracing::warn!(%error, path = %path.display(), "failed starts cannot be counted");
        }
    }

    /// The release to start now, of the one that `current` points at, and whether that means to go back.
    fn choose(&mut self, current: &str, tries: u32, is_there: impl Fn(&str) -> bool) -> Option<String> {
        if self.release != current {
            current.clone_into(&mut self.release);
            self.failed = 0;
        }
        let back = self.good.clone().filter(|good| self.failed >= tries && good != current && is_there(good))?;
        self.release.clone_from(&back);
        self.failed = 0;
        Some(back)
    }
}

enum Ended {
    /// By itself.
    Alone(io::Result<ExitStatus>),
    /// Because this program was told to stop.
    Told(io::Result<ExitStatus>),
}

/// Keeps the program up until it is told to stop.
pub fn run(args: &LaunchArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let root = absolute(&args.dir)?;
    if args.program.is_absolute() {
        return Err(CommandError::usage("--program is a path below `current`, such as bin/updraft"));
    }
    block_on(async {
        let mut signals = StopSignals::listen()?;
        loop {
            if let Some(code) = once(args, &root, &mut signals, output).await? {
                return Ok(code);
            }
        }
    })
}

/// One start. An exit code ends the launcher.
async fn once(
    args: &LaunchArgs,
    root: &Path,
    signals: &mut StopSignals,
    output: &mut Output,
) -> Result<Option<ExitCode>, CommandError> {
    let (directory, path) = (InstallDir::new(root), root.join(STATE_NAME));
    let current = directory.current().ok_or_else(|| {
        CommandError::error(format!("{} points at no release", directory.current_link().display()))
            .with_hint("install one there first: updraft peer --subscribe PRODUCT=DIR")
    })?;
    let mut memory = Memory::read(&path);
    if let Some(back) = memory.choose(&current, args.tries, |name| directory.has(name)) {
        output.note(format_args!("{current} did not start {} times; going back to {back}", args.tries));
        directory.switch(&back).map_err(|error| CommandError::error(error.to_string()))?;
    }
    memory.failed = memory.failed.saturating_add(1);
    memory.write(&path);
    let program = root.join("current").join(&args.program);
    let ended = match Command::new(&program).args(&args.arguments).spawn() {
        Ok(child) => {
            watch(child, Duration::from_millis(args.settle_ms), signals, || {
                memory.failed = 0;
                memory.good = Some(memory.release.clone());
                memory.write(&path);
            })
            .await
        }
        Err(error) => Ended::Alone(Err(error)),
    };
    let status = match ended {
        Ended::Told(status) => {
            memory.failed = memory.failed.saturating_sub(1);
            memory.write(&path);
            let well = status.is_ok_and(|status| status.success());
            return Ok(Some(if well { ExitCode::Ok } else { ExitCode::Error }));
        }
        Ended::Alone(status) => status,
    };
    match status {
        // It asked to be started again: an update of its own, as a rule.
        Ok(status) if status.success() => {
            memory.failed = memory.failed.saturating_sub(1);
            memory.write(&path);
        }
        Ok(status) => output.note(format_args!("{} ended: {status}", program.display())),
        Err(error) => output.note(format_args!("{} cannot be started: {error}", program.display())),
    }
    let pause = Duration::from_millis(PAUSE_MS << memory.failed.saturating_sub(1).min(7)).min(MAX_PAUSE);
    tokio::select! {
        () = sleep(pause) => Ok(None),
        () = signals.arrive() => Ok(Some(ExitCode::Ok)),
    }
}

/// Waits for the end of the program; says once that it has settled.
async fn watch(mut child: Child, settle: Duration, signals: &mut StopSignals, settled: impl FnOnce()) -> Ended {
    let mut settled = Some(settled);
    let settle = sleep(settle);
    tokio::pin!(settle);
    loop {
        tokio::select! {
            status = child.wait() => return Ended::Alone(status),
            () = &mut settle, if settled.is_some() => {
                if let Some(settled) = settled.take() {
                    settled();
                }
            }
            () = signals.arrive() => {
                if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
                    // One that has ended needs no signal.
                    let _ = kill_process(pid, Signal::TERM);
                }
                return Ended::Told(match timeout(STOP, child.wait()).await {
                    Ok(status) => status,
                    Err(_) => child.kill().await.and(Err(io::Error::other("it did not stop"))),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_too_often_gives_way_to_what_stayed_up() {
        let mut memory = Memory { good: Some("1".to_owned()), ..Memory::default() };
        for _ in 0..3 {
            assert_eq!(memory.choose("2", 3, |_| true), None);
            memory.failed += 1;
        }
        assert_eq!(memory.choose("2", 3, |_| false), None, "it is not there any more");
        assert_eq!(memory.choose("2", 3, |_| true), Some("1".to_owned()));
        assert_eq!((memory.failed, memory.release.as_str()), (0, "1"));
        assert_eq!(memory.choose("1", 3, |_| true), None);
    }

    #[test]
    fn another_release_starts_with_a_clean_slate() {
        let mut memory = Memory { release: "2".to_owned(), failed: 9, good: Some("1".to_owned()) };
        assert_eq!(memory.choose("3", 3, |_| true), None);
        assert_eq!(memory.failed, 0);
    }

    #[test]
    fn a_damaged_memory_is_an_empty_one() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join(STATE_NAME);
        assert_eq!(Memory::read(&path), Memory::default());
        fs::write(&path, b"{\"failed\": \"many\"").expect("written");
        assert_eq!(Memory::read(&path), Memory::default());
        let memory = Memory { release: "2".to_owned(), failed: 1, good: None };
        memory.write(&path);
        assert_eq!(Memory::read(&path), memory);
    }
}
