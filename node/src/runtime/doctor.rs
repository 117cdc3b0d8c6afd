//! What is wrong with a node, or will be: read from its directory, running or stopped.
//!
//! Each check is a function that looks at `Facts` and adds what it finds; a new one is a line in
//! `CHECKS`. Nothing here changes anything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use updraft_protocol::limits::{MAX_ROOT_BYTES, MAX_SNAPSHOT_BYTES, MAX_TARGETS_BYTES, MAX_TIMESTAMP_BYTES};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{RoleName, TopRole, Trusted};

use super::inspect;
use super::open::wall_clock;
use crate::config::{self, Overrides, Role};
use crate::control::client::{Client, ClientError};
use crate::control::messages::Request;
use crate::control::views::{Schema, StatusView};
use crate::engine::catalog::CatalogView;
use crate::engine::evidence::alarm;
use crate::publisher::keys::{KeyEntry, Keys, is_online};

const DAY_S: i64 = 86_400;
/// Days before its expiry at which the end of a role is worth a warning: key holders are people.
const OFFLINE_WARNING_DAYS: i64 = 60;
const CHANNELS_WARNING_DAYS: i64 = 10;
const FRESHNESS_WARNING_DAYS: i64 = 7;
/// Percent of a size limit at which metadata is worth a warning.
const SIZE_WARNING_PERCENT: u64 = 80;
/// Free bytes below which the disk is worth a warning, and below which nothing can be published.
const LOW_DISK_BYTES: u64 = 1 << 30;
const FULL_DISK_BYTES: u64 = 64 << 20;
/// Refused targets that are listed one by one.
const MAX_LISTED: usize = 20;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Somebody should see to it in time.
    Warning,
    /// Something does not work, or is about to stop.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// `updraft doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorView {
    /// The contract.
    pub schema: Schema,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
}

/// Whether the node runs.
#[derive(Debug)]
enum Reach {
    Running(Box<StatusView>),
    Stopped,
    Unreachable(String),
}

/// What the checks look at.
#[derive(Debug)]
struct Facts<'a> {
    data_dir: &'a Path,
    now: UtcTime,
    reach: Reach,
    keys: Keys,
    listed: Vec<KeyEntry>,
    view: Option<Arc<CatalogView>>,
    /// Why the repository cannot be read.
    unreadable: Option<String>,
}

type Check = fn(&Facts<'_>, &mut Vec<Finding>);

const CHECKS: [Check; 14] = [
    configuration,
    limits,
    control_socket,
    repository,
    |facts, found| with_repository(facts, found, |keys, trusted, found| expiry(keys, trusted, facts.now, found)),
    |facts, found| with_repository(facts, found, offline_keys),
    root_threshold,
    equivocations,
    modes,
    unlisted_keys,
    online_keys,
    sizes,
    disk,
    |facts, found| {
        clock(facts, found);
        refused_targets(facts, found);
    },
];

fn add(found: &mut Vec<Finding>, check: &'static str, level: Level, text: impl Into<String>, hint: &str) {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    found.push(Finding { check, level, text: text.into(), hint });
}

/// Looks at everything.
pub fn examine(data_dir: &Path) -> DoctorView {
    let keys = Keys::new(data_dir);
    let (view, unreadable) = match inspect::look(data_dir) {
        Ok(found) => (found.map(|inspected| inspected.view), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let listed = keys.list().unwrap_or_default();
    let facts = Facts { data_dir, now: wall_clock(), reach: reach(data_dir), keys, listed, view, unreadable };
    let mut findings = Vec::new();
    for check in CHECKS {
        check(&facts, &mut findings);
    }
    DoctorView { schema: Schema, findings }
}

fn reach(data_dir: &Path) -> Reach {
    let asked = Client::connect(data_dir)
        .and_then(|client| client.send(&Request::Status { explain: false })?.finish::<StatusView>());
    match asked {
        Ok(status) => Reach::Running(Box::new(status)),
        Err(ClientError::Unreachable { .. }) if !is_locked(data_dir) => Reach::Stopped,
        Err(error) => Reach::Unreachable(error.to_string()),
    }
}

/// Whether a node holds the directory.
fn is_locked(data_dir: &Path) -> bool {
    let Ok(file) = fs::File::open(data_dir.join("lock")) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

impl Facts<'_> {
    fn is_seed(&self) -> bool {
        match &self.reach {
            Reach::Running(status) => status.role == Role::Seed,
            Reach::Stopped | Reach::Unreachable(_) => !self.listed.is_empty(),
        }
    }
}

fn with_repository(facts: &Facts<'_>, found: &mut Vec<Finding>, check: impl Fn(&Keys, &Trusted, &mut Vec<Finding>)) {
    if let Some(view) = &facts.view {
        check(&facts.keys, &view.trusted, found);
    }
}

fn configuration(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let overrides = Overrides { data_dir: Some(facts.data_dir.to_owned()), ..Overrides::default() };
    match config::load(overrides) {
        Ok(_) => add(found, "config", Level::Ok, "the configuration is valid", ""),
        Err(error) => add(found, "config", Level::Problem, error.to_string(), "correct the file: updraft config check"),
    }
}

/// Limits that an operator may have forgotten, or has written in vain.
fn limits(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let before = found.len();
    let overrides = Overrides { data_dir: Some(facts.data_dir.to_owned()), ..Overrides::default() };
    let effective = config::load(overrides).ok();
    for window in effective.iter().flat_map(|effective| effective.config.limits.idle_windows()) {
        let text = format!("the limits of the {window} never hold: a lower one always does");
        let hint = "in a window the lowest limit holds; lower the window's, or make windows of both";
        add(found, "limits", Level::Warning, text, hint);
    }
    if let Reach::Running(status) = &facts.reach {
        for (what, limit) in [("sends", &status.limits.upload), ("receives", &status.limits.download)] {
            if limit.bytes_per_second == Some(0) {
                let until = limit.until.map(|until| format!(" until {until}")).unwrap_or_default();
                let text = format!("the node {what} nothing{until}: {}", limit.why);
                add(found, "limits", Level::Warning, text, "updraft config show tells where the limit is set");
            }
        }
    }
    if found.len() == before {
        add(found, "limits", Level::Ok, "no limit stops transfers", "");
    }
}

fn control_socket(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    match &facts.reach {
        Reach::Running(_) => add(found, "control", Level::Ok, "the node runs and answers", ""),
        Reach::Stopped => add(found, "control", Level::Ok, "the node does not run", ""),
        Reach::Unreachable(reason) => {
            let text = format!("the node runs and cannot be asked: {reason}");
            add(found, "control", Level::Problem, text, "run this as the node's user; where it hangs, restart it");
        }
    }
}

fn repository(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    match (&facts.view, &facts.unreadable) {
        (Some(view), _) if view.trusted.timestamp().is_none() => {
            let text = "the newest root is here, and no signed set that goes with it";
            add(found, "repository", Level::Problem, text, "let the node run until it has reached a peer");
        }
        (Some(_), _) => add(found, "repository", Level::Ok, "the signed metadata on disk verifies", ""),
        (None, Some(reason)) => {
            add(
                found,
                "repository",
                Level::Problem,
                reason.clone(),
                "restore the directory from a backup, or join again",
            );
        }
        (None, None) => {
            let text = format!("{} holds no repository", facts.data_dir.display());
            add(
                found,
                "repository",
                Level::Problem,
                text,
                "updraft init makes one, updraft peer --join TICKET joins one",
            );
        }
    }
}

/// How long every role is valid.
pub(super) fn expiry(keys: &Keys, trusted: &Trusted, now: UtcTime, found: &mut Vec<Finding>) {
    for role in trusted.signed_roles() {
        let expires = match TopRole::of(&role) {
            Some(TopRole::Root) => Some(trusted.root().expires),
            Some(TopRole::Timestamp) => trusted.timestamp().map(|timestamp| timestamp.expires),
            Some(TopRole::Snapshot) => trusted.snapshot().map(|snapshot| snapshot.expires),
            Some(TopRole::Targets) | None => trusted.role(&role).map(|targets| targets.expires),
        };
        let Some(expires) = expires else { continue };
        let left_s = expires.seconds_since(now);
        let warning_days = match role.as_str() {
            "timestamp" | "snapshot" => FRESHNESS_WARNING_DAYS,
            "channels" => CHANNELS_WARNING_DAYS,
            _ => OFFLINE_WARNING_DAYS,
        };
        // Looked up only where it matters: this is asked with every `status`.
        let hint = || {
            let can_sign = || trusted.signers(&role).is_some_and(|signers| keys.can_sign(&signers));
            match role.as_str() {
                _ if is_online(&role) || can_sign() => {
                    "a running seed that has its keys signs it again by itself".to_owned()
                }
                "root" => "updraft root draft --renew --output FILE".to_owned(),
                name => format!("updraft targets draft --role {name} --renew --output FILE"),
            }
        };
        let days = left_s / DAY_S;
        if left_s <= 0 {
            let text = format!("{role} metadata expired at {expires}: nothing new is installed anywhere");
            add(found, "expiry", Level::Problem, text, &hint());
        } else if days < warning_days {
            add(
                found,
                "expiry",
                Level::Warning,
                format!("{role} metadata expires in {days} days, at {expires}"),
                &hint(),
            );
        } else {
            add(found, "expiry", Level::Ok, format!("{role} metadata is valid for {days} days"), "");
        }
    }
}

/// Offline keys that are still where the online ones are.
pub(super) fn offline_keys(keys: &Keys, trusted: &Trusted, found: &mut Vec<Finding>) {
    match keys.offline_here(trusted) {
        Err(error) => {
            let text = format!("the keys cannot be listed: {error}");
            add(found, "offline_keys", Level::Problem, text, "see to the directory's owner and mode");
        }
        Ok(here) if here.is_empty() => {
            add(found, "offline_keys", Level::Ok, "no offline key is on this machine", "");
        }
        Ok(here) => {
            let names: Vec<String> = here.iter().map(|(role, label)| format!("{role}: {label}.pem")).collect();
            let text = format!(
                "the offline keys ({}) are still on this machine, in {}: whoever takes it over can publish",
                names.join(", "),
                keys.directory().display()
            );
            let hint = "move them away: updraft key export NAME --output FILE --move";
            add(found, "offline_keys", Level::Warning, text, hint);
        }
    }
}

fn root_threshold(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let Some(view) = facts.view.as_ref().filter(|_| facts.is_seed()) else { return };
    let signers = view.trusted.root().signers(TopRole::Root);
    let text = format!("the root needs {} of its {} key(s)", signers.threshold, signers.keys.len());
    if signers.threshold > 1 {
        add(found, "root_threshold", Level::Ok, text, "");
    } else {
        let hint = "one stolen or lost key is then not the end: updraft root draft --add-key root=NAME.pub --threshold root=2 --output FILE";
        add(found, "root_threshold", Level::Warning, format!("{text}: whoever has one is the repository"), hint);
    }
}

fn modes(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let exposed = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    let mut wrong: Vec<String> = Vec::new();
    for (path, mode) in [(facts.keys.directory().to_owned(), "700"), (facts.data_dir.join("node.key"), "600")] {
        if exposed(&path) {
            wrong.push(format!("chmod {mode} {}", path.display()));
        }
    }
    let keys = facts.listed.iter().filter(|entry| entry.exposed);
    wrong.extend(keys.map(|entry| format!("chmod 600 {}", entry.path.display())));
    if wrong.is_empty() {
        add(found, "modes", Level::Ok, "private keys are readable by their owner alone", "");
    }
    for command in wrong {
        let text = "others than the owner may look into private keys".to_owned();
        add(found, "modes", Level::Problem, text, &command);
    }
}

fn unlisted_keys(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let Some(view) = &facts.view else { return };
    let signers: Vec<_> = view.trusted.signed_roles().iter().filter_map(|role| view.trusted.signers(role)).collect();
    for entry in &facts.listed {
        match (&entry.problem, entry.id()) {
            (Some(problem), _) => {
                add(
                    found,
                    "keys",
                    Level::Warning,
                    format!("a key cannot be used: {problem}"),
                    "remove or replace the file",
                );
            }
            (None, Some(keyid)) if !signers.iter().any(|signers| signers.lists(&keyid)) => {
                let text = format!("no role lists the key {}", entry.label);
                let hint = "give it a role (updraft key rotate ROLE --new LABEL), or remove the file if it was revoked";
                add(found, "keys", Level::Warning, text, hint);
            }
            _ => {}
        }
    }
}

fn online_keys(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let Some(view) = facts.view.as_ref().filter(|_| facts.is_seed()) else { return };
    let locked = facts.keys.check_online(&view.trusted).err().map(|error| error.to_string());
    let missing = |role: &RoleName| {
        let signers = view.trusted.signers(role)?;
        facts.keys.require(role, &signers).err().map(|error| error.to_string())
    };
    let roles = view.trusted.signed_roles();
    let mut wrong: Vec<String> = roles.iter().filter(|role| is_online(role)).filter_map(missing).collect();
    wrong.extend(locked);
    if wrong.is_empty() {
        add(found, "online_keys", Level::Ok, "the seed has the keys that it needs to sign by itself", "");
    }
    for text in wrong {
        add(found, "online_keys", Level::Problem, text, "");
    }
}

fn sizes(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let Some(view) = &facts.view else { return };
    let trusted = &view.trusted;
    let mut files: Vec<(String, usize, u64)> = vec![("root".to_owned(), trusted.root().bytes().len(), MAX_ROOT_BYTES)];
    files.extend(trusted.timestamp().map(|file| ("timestamp".to_owned(), file.bytes().len(), MAX_TIMESTAMP_BYTES)));
    files.extend(trusted.snapshot().map(|file| ("snapshot".to_owned(), file.bytes().len(), MAX_SNAPSHOT_BYTES)));
    let roles = trusted.loaded_roles().filter_map(|name| Some((name.to_string(), trusted.role(name)?.bytes().len())));
    files.extend(roles.map(|(name, bytes)| (name, bytes, MAX_TARGETS_BYTES)));
    let full = |bytes: usize, limit: u64| {
        u64::try_from(bytes).is_ok_and(|bytes| bytes.saturating_mul(100) >= limit.saturating_mul(SIZE_WARNING_PERCENT))
    };
    let large: Vec<_> = files.into_iter().filter(|(_, bytes, limit)| full(*bytes, *limit)).collect();
    if large.is_empty() {
        add(found, "sizes", Level::Ok, "the metadata is far below its size limits", "");
    }
    for (name, bytes, limit) in large {
        let text = format!("{name} metadata has {bytes} bytes; at {limit} nobody reads it any more");
        add(
            found,
            "sizes",
            Level::Warning,
            text,
            "start a new product for what is still maintained, and remove the old one",
        );
    }
}

fn disk(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    match fs4::available_space(facts.data_dir) {
        Err(error) => add(found, "disk", Level::Warning, format!("the free space cannot be measured: {error}"), ""),
        Ok(free) => {
            let text = format!("{} MiB are free for {}", free >> 20, facts.data_dir.display());
            let level = match free {
                ..FULL_DISK_BYTES => Level::Problem,
                FULL_DISK_BYTES..LOW_DISK_BYTES => Level::Warning,
                _ => Level::Ok,
            };
            let hint = if level == Level::Ok { "" } else { "free some space, or move the directory to a larger disk" };
            add(found, "disk", level, text, hint);
        }
    }
}

fn clock(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let Some(timestamp) = facts.view.as_ref().and_then(|view| view.trusted.timestamp()) else { return };
    match timestamp.signed_at.filter(|signed_at| *signed_at > facts.now) {
        Some(signed_at) => {
            let text = format!("this machine's clock ({}) is behind what was signed at {signed_at}", facts.now);
            add(found, "clock", Level::Problem, text, "set the clock; until then nothing is installed here");
        }
        None => add(found, "clock", Level::Ok, "the clock is not behind the newest signature", ""),
    }
}

fn equivocations(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    for contradiction in facts.view.iter().flat_map(|view| &view.contradictions) {
        let hint = "replace that key: updraft key rotate ROLE --new NAME; docs/keys.md says more";
        add(found, "equivocation", Level::Problem, alarm(contradiction), hint);
    }
}

fn refused_targets(facts: &Facts<'_>, found: &mut Vec<Finding>) {
    let Some(view) = &facts.view else { return };
    for refused in view.refused.iter().take(MAX_LISTED) {
        let text = format!("a signed target is refused: {refused}");
        add(found, "targets", Level::Warning, text, "publish a corrected release, or update this node");
    }
    if view.refused.len() > MAX_LISTED {
        let text = format!("{} more signed targets are refused", view.refused.len() - MAX_LISTED);
        add(found, "targets", Level::Warning, text, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiry_of(days: i64) -> Vec<(Level, String)> {
        let directory = tempfile::tempdir().expect("a directory");
        let product = "app".parse().expect("a name");
        let opened = super::super::open::Opened::create(directory.path(), &[product]).expect("made");
        let view = opened.view().expect("verifies").expect("made");
        let mut found = Vec::new();
        let nobody = Keys::at(directory.path().join("nowhere"));
        expiry(&nobody, &view.trusted, wall_clock().plus_days(days), &mut found);
        found.into_iter().map(|finding| (finding.level, finding.text)).collect()
    }

    fn level(findings: &[(Level, String)], role: &str) -> Level {
        findings.iter().find(|(_, text)| text.starts_with(&format!("{role} "))).expect("every role is told").0
    }

    #[test]
    fn every_role_is_warned_of_well_before_it_expires() {
        let (fresh, soon, late) = (expiry_of(0), expiry_of(306), expiry_of(400));
        for role in ["root", "targets", "snapshot", "timestamp", "channels", "releases-app"] {
            assert_eq!(level(&fresh, role), Level::Ok, "{role}");
            assert_eq!(level(&late, role), Level::Problem, "{role}");
        }
        assert_eq!(level(&soon, "root"), Level::Warning);
        assert_eq!(level(&expiry_of(8), "timestamp"), Level::Warning);
        assert_eq!(level(&expiry_of(21), "channels"), Level::Warning);
    }
}
