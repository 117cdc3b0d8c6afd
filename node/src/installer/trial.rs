//! Starts a release and asks for its health, as the operator configured it.

use std::path::Path;
use std::time::Duration;

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
        Starter::Command(command) => {
            let variables = variables(root, subject);
            run(&Order { command, directory: &directory, variables: &variables, limit }).await
        }
    }
}

/// Asks whether what `current` in `root` points at works.
pub async fn check(root: &Path, check: &Check, timeout_ms: u64, subject: &Subject) -> Ended {
    let (directory, limit) = (root.join("current"), Duration::from_millis(timeout_ms));
    match check {
        Check::Unit(unit) => systemd::is_active(unit, &directory, limit).await,
        Check::Http(url) => http::get(url, limit).await,
        Check::Command(command) => {
            let variables = variables(root, subject);
            run(&Order { command, directory: &directory, variables: &variables, limit }).await
        }
    }
}
