//! systemd through `systemctl`: its own job restarts the unit, so nothing of it hangs on this process.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::process::{Ended, Order, run};

/// For questions, and for what is only asked of systemd.
const SHORT: Duration = Duration::from_secs(10);
/// The least that is left for a question, however long the one before it took.
const LEAST: Duration = Duration::from_secs(1);

async fn systemctl(arguments: &[&str], directory: &Path, limit: Duration) -> Ended {
    let command: Vec<String> = ["systemctl"].iter().chain(arguments).map(|&text| text.to_owned()).collect();
    run(&Order { command: &command, directory, variables: &[], limit }).await
}

/// Restarts a unit and waits for the job's end. Where this process runs in that unit it only asks for the
/// restart: systemd ends this process, `systemctl` included, and goes on by itself. All of it ends within
/// `limit`, but for the seconds in which a `systemctl` that hangs is ended: whoever waits gives it up soon after.
pub(super) async fn restart(unit: &str, directory: &Path, limit: Duration) -> Ended {
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now()).max(LEAST);
    // A unit that crashed too often is not started again otherwise, not even with its old release. Where
    // there is nothing to reset that is no failure.
    let _ = systemctl(&["reset-failed", "--", unit], directory, SHORT.min(limit / 2)).await;
    if !runs_in(unit) {
        return systemctl(&["restart", "--", unit], directory, left()).await;
    }
    let asked = systemctl(&["restart", "--no-block", "--", unit], directory, SHORT.min(left())).await;
    if asked.result.is_ok() {
        tokio::time::sleep(left()).await;
        return Ended::failed(format!("systemd did not restart {unit}, in which this node runs"));
    }
    asked
}

/// Whether a unit is active, and systemd has not had to restart it.
pub(super) async fn is_active(unit: &str, directory: &Path, limit: Duration) -> Ended {
    let asked = systemctl(&["show", "--property=ActiveState,NRestarts", "--", unit], directory, limit).await;
    if asked.result.is_err() {
        return asked;
    }
    let value =
        |name: &str| asked.output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::trim));
    let restarts: u64 = value("NRestarts").and_then(|text| text.parse().ok()).unwrap_or(0);
    let result = match value("ActiveState") {
        Some("active") if restarts == 0 => Ok(()),
        Some("active") => Err(format!("{unit} crashed: systemd restarted it {restarts} times")),
        Some(state) => Err(format!("{unit} is {state}")),
        None => Err(format!("systemd does not say how {unit} is")),
    };
    Ended { result, output: String::new() }
}

/// Whether this process runs in a unit of systemd.
pub(super) fn runs_in(unit: &str) -> bool {
    std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| names(&groups, unit))
}

fn names(groups: &str, unit: &str) -> bool {
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| path.split('/').any(|part| part == unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_a_part_of_its_group() {
        let groups = "1:name=systemd:/x\n0::/system.slice/updraft.service/inner\n";
        assert!(names(groups, "updraft.service"));
        assert!(!names(groups, "updraft"));
        assert!(!names(groups, "draft.service"));
        assert!(!names("", "updraft.service"));
    }
}
