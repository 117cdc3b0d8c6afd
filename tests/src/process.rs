//! Real processes: nodes and commands of the `updraft` binary, as an operator would run them.
//!
//! Every node listens on loopback with port 0 and lives in a directory of its own. Whatever is
//! waited for has a deadline. A process never outlives the value that stands for it; the log of a
//! node is printed where a test fails.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use updraft::control::client::{Client, ClientError};
use updraft::control::messages::Request;
use updraft::control::views::{ReleasesView, StatusView};

/// The longest that one step of a test may take.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Pause between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// Lines of a node's log that a failed test shows.
const SHOWN_LOG_LINES: usize = 60;

/// Says something to whoever runs the tests.
#[allow(clippy::print_stderr, reason = "the reader of a test's output is whom this is for")]
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// Waits until `look` finds something.
///
/// # Panics
/// Where it finds nothing within the deadline.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{what} did not happen within {} s", DEADLINE.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// The program under test.
#[derive(Debug, Clone, Copy)]
pub struct Program(pub &'static str);

/// A command that ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What was run, for messages.
    pub what: String,
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it answered.
    pub stdout: String,
    /// What else it said.
    pub stderr: String,
}

#[allow(clippy::return_self_not_must_use, reason = "most tests want the check, few the command that passed it")]
impl Ended {
    /// The same, once it is sure that the command did what it was told.
    ///
    /// # Panics
    /// Where it failed.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// The same, once it is sure that the command ended with `code` and said `part`, to which case
    /// does not matter.
    ///
    /// # Panics
    /// Where it did something else.
    pub fn failed(self, code: i32, part: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.stderr.to_lowercase().contains(&part.to_lowercase()), "'{part}' is not in {self:#?}");
        self
    }

    /// The answer as JSON.
    ///
    /// # Panics
    /// Where it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

impl Program {
    /// A command of the program, with an environment that is the same on every machine.
    fn command(self, data_dir: &Path, arguments: &[OsString]) -> Command {
        let mut command = Command::new(self.0);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("UPDRAFT_") || name.starts_with("XDG_")) {
                command.env_remove(name);
            }
        }
        command.arg("--data-dir").arg(data_dir).args(arguments);
        command.env("HOME", data_dir).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it does not end within the deadline.
    pub fn run<A: AsRef<OsStr>>(self, data_dir: &Path, arguments: impl IntoIterator<Item = A>) -> Ended {
        let arguments: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        run_to_end(&mut self.command(data_dir, &arguments), &format!("updraft {arguments:?}"))
    }

    /// Runs a command with `--json`.
    ///
    /// # Panics
    /// Where it fails, or its answer is not of schema 1.
    pub fn json<A: AsRef<OsStr>>(self, data_dir: &Path, arguments: impl IntoIterator<Item = A>) -> Value {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        let ended = self.run(data_dir, arguments.chain([OsString::from("--json")])).succeeded();
        let answer = ended.json();
        assert_eq!(answer["schema"], 1, "{}: {answer}", ended.what);
        answer
    }

    /// Starts a command and leaves it running, its output in files next to `data_dir`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(self, data_dir: &Path, arguments: impl IntoIterator<Item = A>) -> Running {
        let arguments: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        let (out, err) = (anonymous(), anonymous());
        let mut command = self.command(data_dir, &arguments);
        command.stdout(duplicate(&out)).stderr(duplicate(&err));
        let child = command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.0));
        Running { child, out, err }
    }
}

fn anonymous() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn duplicate(file: &File) -> File {
    file.try_clone().expect("a descriptor is free")
}

fn text(mut file: &File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file is readable");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs any command to its end, under the deadline.
///
/// # Panics
/// Where it cannot be started or does not end.
pub fn run_to_end(command: &mut Command, what: &str) -> Ended {
    let (out, err) = (anonymous(), anonymous());
    command.stdin(Stdio::null()).stdout(duplicate(&out)).stderr(duplicate(&err));
    let child = command.spawn().unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
    let mut running = Running { child, out, err };
    let status = running.wait(what);
    Ended { what: what.to_owned(), code: status.code(), stdout: running.stdout(), stderr: running.stderr() }
}

/// A process that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: File,
    err: File,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        text(&self.out)
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        text(&self.err)
    }

    /// How it ended, if it did.
    ///
    /// # Panics
    /// Where the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end within the deadline.
    pub fn wait(&mut self, what: &str) -> ExitStatus {
        until(&format!("the end of {what}"), || self.ended())
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Panics
    /// Where it does not end within the deadline.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait("a process that was told to terminate")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Where the process id is not one.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // A process that has ended but was not waited for still takes signals.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node of its own process.
#[derive(Debug)]
pub struct Node {
    /// What logs call it.
    pub name: String,
    /// Its directory.
    pub data_dir: PathBuf,
    program: Program,
    arguments: Vec<OsString>,
    running: Option<Running>,
}

impl Node {
    /// Starts a node and waits until it answers and listens. `arguments` begins with `seed` or `peer`.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start<A: AsRef<OsStr>>(program: Program, data_dir: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut arguments: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        for argument in ["--listen", "/ip4/127.0.0.1/tcp/0"] {
            arguments.push(argument.into());
        }
        let name = data_dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut node = Self { name, data_dir: data_dir.to_owned(), program, arguments, running: None };
        node.start_again();
        node
    }

    /// Starts it again with the same arguments, after it was killed or terminated.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.running = Some(self.program.spawn(&self.data_dir, &self.arguments));
        until(&format!("the start of {}", self.name), || {
            if let Some(status) = self.running.as_mut().and_then(Running::ended) {
                panic!("{} ended at once ({status}): {}", self.name, self.log());
            }
            self.try_status().filter(|status| !status.listen.is_empty())
        });
    }

    /// The process.
    ///
    /// # Panics
    /// Where the node does not run.
    pub fn process(&mut self) -> &mut Running {
        self.running.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Whether it was started and neither killed nor terminated.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.running.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Panics
    /// Where it does not end, or not cleanly.
    pub fn terminate(&mut self) {
        if let Some(mut running) = self.running.take() {
            let status = running.terminate();
            assert!(status.success(), "{} ended with {status}: {}", self.name, running.stderr());
        }
    }

    fn ask<R: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<R, ClientError> {
        Client::connect(&self.data_dir)?.send(request)?.finish()
    }

    fn try_status(&self) -> Option<StatusView> {
        self.ask(&Request::Status { explain: true }).ok()
    }

    /// What `updraft status` answers, without the cost of a process: some moments are short.
    ///
    /// # Panics
    /// Where the node does not answer.
    pub fn status(&self) -> StatusView {
        self.ask(&Request::Status { explain: true })
            .unwrap_or_else(|error| panic!("{} does not answer: {error}", self.name))
    }

    /// What `updraft releases` answers.
    ///
    /// # Panics
    /// Where the node does not answer.
    pub fn releases(&self) -> ReleasesView {
        self.ask(&Request::Releases { product: None })
            .unwrap_or_else(|error| panic!("{} does not answer: {error}", self.name))
    }

    /// Runs a command against this node.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        self.program.run(&self.data_dir, arguments)
    }

    /// Runs a command with `--json` against this node.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        self.program.json(&self.data_dir, arguments)
    }

    /// Where its HTTP face is.
    ///
    /// # Panics
    /// Where it has none.
    pub fn http(&self) -> String {
        self.status().http.unwrap_or_else(|| panic!("{} has no HTTP face", self.name))
    }

    /// A ticket with these addresses; with the node's own where there are none.
    ///
    /// # Panics
    /// Where it gives none.
    pub fn ticket(&self, addresses: &[String]) -> String {
        let named = addresses.iter().flat_map(|address| ["--address".to_owned(), address.clone()]);
        let answer = self.json(["ticket".to_owned()].into_iter().chain(named));
        answer["ticket"].as_str().expect("the contract says so").to_owned()
    }

    /// Waits until the node's status is as it should be.
    ///
    /// # Panics
    /// Where it takes too long; with the status.
    pub fn until(&self, what: &str, holds: impl Fn(&StatusView) -> bool) -> StatusView {
        let started = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "{what} did not happen on {}: {status:#?}", self.name);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..];
            say(&format!("---- log of {} (its last lines)\n{}", self.name, shown.join("\n")));
        }
    }
}

/// The differences between two trees as [`crate::cluster::tree`] describes them, at most ten.
pub fn differences(expected: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let missing = expected.iter().filter(|(path, _)| !found.contains_key(*path));
    let missing = missing.map(|(path, what)| format!("missing: {} ({what})", path.display()));
    let other = found.iter().filter(|(path, what)| expected.get(*path) != Some(what)).map(|(path, what)| {
        let wanted = expected.get(path).map_or("nothing", String::as_str);
        format!("{}: {what} instead of {wanted}", path.display())
    });
    missing.chain(other).take(10).collect()
}

/// A seed on a fresh repository of the product `app`, below `scratch`.
///
/// # Panics
/// Where it does not start.
pub fn seed(program: Program, scratch: &Path) -> Node {
    let data_dir = scratch.join("seed");
    program.run(&data_dir, ["init", "--product", "app"]).succeeded();
    Node::start(program, &data_dir, ["seed", "--http", "127.0.0.1:0"])
}

/// A peer below `scratch` that installs `app` in the returned directory.
///
/// # Panics
/// Where it does not start.
pub fn installing_peer(program: Program, scratch: &Path, name: &str, ticket: &str) -> (Node, PathBuf) {
    let install_dir = scratch.join(format!("{name}-apps")).join("app");
    let subscription = format!("app={}", install_dir.display());
    let node = Node::start(program, &scratch.join(name), ["peer", "--join", ticket, "--subscribe", &subscription]);
    (node, install_dir)
}

/// Creates a file and the directories above it.
///
/// # Panics
/// Where the disk refuses.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("writable");
    }
    fs::write(path, content).expect("writable");
}
