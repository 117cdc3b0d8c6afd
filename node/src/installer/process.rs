//! One command of the operator's: in a process group of its own, with a deadline, its output bounded.
//!
//! At the deadline the whole group gets TERM, then KILL: a script's children must not outlive it. A command
//! that ends in time may leave processes behind, for that is what starting a service is; those must not
//! write to what they inherited, it is closed when the command ends.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Bytes of output that are kept, the last of them.
pub(super) const MAX_OUTPUT_BYTES: usize = 4096;
/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(2);
/// A shell ends with this and the number of the signal that ended what it ran.
const SHELL_SIGNAL_BASE: i32 = 128;
/// For output that is still in the pipe when the command has ended.
const DRAIN: Duration = Duration::from_millis(100);
/// Begins the names of the variables that are the node's own; its passphrases are among them.
const OWN_VARIABLES: &str = "UPDRAFT_";
/// By this the node tells whoever started it that it runs, which nobody else can tell.
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// What is run.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// The program and its arguments.
    pub(super) command: &'a [String],
    /// Where it runs.
    pub(super) directory: &'a Path,
    /// Variables beside those that the node itself was started with.
    pub(super) variables: &'a [(&'static str, String)],
    /// How long it may take.
    pub(super) limit: Duration,
}

/// How something that an operator configured ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether it succeeded, or why not.
    pub result: Result<(), String>,
    /// The last of what it said.
    pub output: String,
}

impl Ended {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { result: Err(reason.into()), output: String::new() }
    }
}

/// Kills a group that nobody waits for any more.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Whoever has ended needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }

    /// The command ended in time: what it started is its own affair.
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let surplus = self.0.len().saturating_sub(MAX_OUTPUT_BYTES);
        self.0.drain(..surplus);
    }

    fn text(self) -> String {
        let bytes: Vec<u8> = self.0.into();
        let text = String::from_utf8_lossy(&bytes);
        // Whoever reads the events sees text, not what a terminal would make of it.
        text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }
}

/// One end of a pipe; `None` once it is closed.
async fn read_some(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return std::future::pending().await };
    let count = open.read(buffer).await.unwrap_or(0);
    if count == 0 {
        *pipe = None;
    }
    count
}

/// Runs a command to its end, or to its deadline.
pub(super) async fn run(order: &Order<'_>) -> Ended {
    let Some((program, arguments)) = order.command.split_first() else {
        return Ended::failed("there is no command");
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(order.directory).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(OWN_VARIABLES) || name == NOTIFY_VARIABLE {
            command.env_remove(name);
        }
    }
    command.envs(order.variables.iter().map(|(name, value)| (name, value)));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let place = order.directory.display();
            return Ended::failed(format!("'{program}' cannot be run in {place}: {error}"));
        }
    };
    let group = Group::of(&child);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut out_buffer, mut err_buffer) = ([0; 1024], [0; 1024]);
    let mut tail = Tail::default();
    let deadline = Instant::now() + order.limit;
    let status = loop {
        tokio::select! {
            // One that never stops talking must not talk its deadline away.
            biased;
            () = sleep_until(deadline) => break None,
            status = child.wait() => break Some(status),
            count = read_some(&mut out, &mut out_buffer) => tail.push(&out_buffer[..count]),
            count = read_some(&mut err, &mut err_buffer) => tail.push(&err_buffer[..count]),
        }
    };
    let Some(status) = status else {
        end(&mut child, &group).await;
        let seconds = order.limit.as_secs_f64();
        return Ended { result: Err(format!("'{program}' did not end within {seconds} s")), output: tail.text() };
    };
    group.release();
    let drain = async {
        while out.is_some() || err.is_some() {
            tokio::select! {
                count = read_some(&mut out, &mut out_buffer) => tail.push(&out_buffer[..count]),
                count = read_some(&mut err, &mut err_buffer) => tail.push(&err_buffer[..count]),
            }
        }
    };
    // What it started may hold the pipe open for ever.
    let _ = timeout(DRAIN, drain).await;
    if status.as_ref().is_ok_and(|&status| was_told_to_end(status)) {
        // Whoever stops this node signals all that it started, and they may be faster than it is: a node
        // that is told to stop meanwhile drops the answer, and asks again when it is back.
        sleep(GRACE).await;
    }
    let result = match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("'{program}' {}", how(status))),
        Err(error) => Err(format!("'{program}' cannot be waited for: {error}")),
    };
    Ended { result, output: tail.text() }
}

async fn end(child: &mut Child, group: &Group) {
    group.signal(Signal::TERM);
    let gone = timeout(GRACE, child.wait()).await;
    group.signal(Signal::KILL);
    if gone.is_err() {
        // One that the kernel does not let go of is not waited for.
        let _ = timeout(GRACE, child.wait()).await;
    }
}

/// Whether somebody else ended it, by a signal to it or to what its shell ran.
fn was_told_to_end(status: ExitStatus) -> bool {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let signal = signal.or_else(|| status.code()?.checked_sub(SHELL_SIGNAL_BASE));
    signal.is_some_and(|signal| {
        [Signal::HUP, Signal::INT, Signal::KILL, Signal::TERM].map(Signal::as_raw).contains(&signal)
    })
}

fn how(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, limit: Duration) -> Ended {
        let command = ["sh", "-c", script].map(str::to_owned);
        let variables = [("UPDRAFT_PRODUCT", "editor".to_owned())];
        run(&Order { command: &command, directory: Path::new("/"), variables: &variables, limit }).await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_command_sees_its_variables_and_its_directory() {
        let ended = shell("echo $UPDRAFT_PRODUCT in $(pwd)", LONG).await;
        assert_eq!(ended, Ended { result: Ok(()), output: "editor in /\n".to_owned() });
    }

    #[tokio::test]
    async fn a_command_that_fails_says_how_and_what_it_said_is_kept() {
        let ended = shell("echo no room >&2; exit 3", LONG).await;
        assert_eq!(ended.result, Err("'sh' ended with status 3".to_owned()));
        assert_eq!(ended.output, "no room\n");
        assert_eq!(shell("kill -9 $$", LONG).await.result, Err("'sh' was killed by signal 9".to_owned()));
    }

    #[tokio::test]
    async fn that_somebody_else_ended_a_command_is_told_once_a_node_that_is_ended_too_had_time_to_know() {
        for script in ["kill -TERM $$", "sh -c 'kill -TERM $$'; exit $?"] {
            let told = timeout(GRACE / 4, shell(script, LONG)).await;
            assert!(told.is_err(), "{script}: {told:?}");
        }
        assert!(timeout(GRACE / 2, shell("exit 1", LONG)).await.is_ok(), "it failed by itself");
    }

    #[tokio::test]
    async fn of_much_output_the_end_is_kept() {
        let ended = shell("yes 0123456789 | head -n 100000; echo the end", LONG).await;
        assert_eq!(ended.output.len(), MAX_OUTPUT_BYTES);
        assert!(ended.output.ends_with("0123456789\nthe end\n"));
    }

    #[tokio::test]
    async fn at_the_deadline_the_whole_group_ends_even_where_it_ignores_a_request() {
        let scratch = tempfile::tempdir().expect("a directory");
        let pid_file = scratch.path().join("pid");
        let script = format!("trap '' TERM; (trap '' TERM; echo $$; exec sleep 600) > {} & wait", pid_file.display());
        let script = script.replace("echo $$", "sh -c 'echo $PPID'");
        let began = std::time::Instant::now();
        let ended = shell(&script, Duration::from_millis(500)).await;
        assert!(ended.result.expect_err("it took too long").contains("did not end within 0.5 s"));
        assert!(began.elapsed() < Duration::from_secs(20));
        let pid: i32 = std::fs::read_to_string(&pid_file).expect("written").trim().parse().expect("a pid");
        let gone = || {
            // A zombie that its new parent has not looked at yet is gone too.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..100 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("process {pid} outlived its command");
    }

    #[tokio::test]
    async fn a_command_that_never_stops_talking_is_ended_in_time() {
        let began = std::time::Instant::now();
        let ended = shell("yes >&2 & exec yes", Duration::from_millis(300)).await;
        assert!(ended.result.expect_err("it took too long").contains("did not end within 0.3 s"));
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_is_not_waited_for() {
        let began = std::time::Instant::now();
        let ended = shell("sleep 60 & echo $!", LONG).await;
        assert_eq!(ended.result, Ok(()));
        assert!(began.elapsed() < Duration::from_secs(20));
        let pid = ended.output.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, Signal::KILL).expect("it was left alone");
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_a_failure_with_its_name() {
        let command = ["/nonexistent/start".to_owned()];
        let order = Order { command: &command, directory: Path::new("/"), variables: &[], limit: LONG };
        assert!(run(&order).await.result.expect_err("no such file").contains("/nonexistent/start"));
    }
}
