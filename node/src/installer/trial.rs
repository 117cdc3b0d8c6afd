//! Starts a release and asks for its health, as the operator configured it.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::process::{Ended, Order, run};
use super::{http, systemd};
use crate::engine::effect::Subject;
use crate::engine::install::{Activation, Check, Starter};

/// The end of the name of every variable, and its value.
fn variables(root: &Path, subject: &Subject) -> Vec<(&'static str, String)> {
    let previous = subject.previous.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        ("UPDRAFT_PRODUCT", subject.product.to_string()),
        ("UPDRAFT_VERSION", subject.version.to_string()),
        ("UPDRAFT_PREVIOUS_VERSION", previous),
        ("UPDRAFT_DIRECTORY", root.display().to_string()),
    ]
}

/// Starts what `current` in `root` points at.
pub async fn activate(root: &Path, activation: &Activation, subject: &Subject) -> Ended {
    let (directory, limit) = (root.join("current"), Duration::from_millis(activation.timeout_ms));
    match &activation.starter {
        Starter::Unit(unit) => systemd::restart(unit, &directory, limit).await,
        Starter::Node => end_this_node(limit).await,
        Starter::Command(command) => {
            let variables = variables(root, subject);
            run(&Order { command, directory: &directory, variables: &variables, limit }).await
        }
    }
}

/// Ends this node as an operator would. Whoever keeps it up starts it from `current`; a node that is still
/// here at the end of its time was not.
async fn end_this_node(limit: Duration) -> Ended {
    if let Err(error) = kill_process(getpid(), Signal::TERM) {
        return Ended::failed(format!("this node cannot end itself: {error}"));
    }
    tokio::time::sleep(limit).await;
    Ended::failed("this node was not started again")
}

/// Whether this process is what `activation` starts from `current` in `root`, and so proves by running that
/// it was started.
pub fn is_started(root: &Path, activation: &Activation) -> bool {
    match &activation.starter {
        Starter::Unit(unit) => systemd::runs_in(unit),
        Starter::Node => {
            let current = root.join("current").canonicalize();
            let program = std::env::current_exe().and_then(|path| path.canonicalize());
            current.is_ok_and(|current| program.is_ok_and(|program| program.starts_with(current)))
        }
        Starter::Command(_) => false,
    }
}

/// Asks whether what `current` in `root` points at works.
pub async fn check(root: &Path, check: &Check, timeout_ms: u64, subject: &Subject) -> Ended {
    let (directory, limit) = (root.join("current"), Duration::from_millis(timeout_ms));
    match check {
        Check::Unit(unit) => systemd::is_active(unit, &directory, limit).await,
        Check::Http(url) => http::get(url, limit).await,
        Check::Node => Ended { result: Ok(()), output: String::new() },
        Check::Command(command) => {
            let variables = variables(root, subject);
            run(&Order { command, directory: &directory, variables: &variables, limit }).await
        }
    }
}
