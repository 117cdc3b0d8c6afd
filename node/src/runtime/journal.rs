//! The journal of installs between the engine's words and the state database's rows: how a step is
//! written before it begins, and what a node finds of it when it starts again.

use std::path::{Path, PathBuf};

use updraft_protocol::names::Product;

use super::open::{Opened, wall_clock};
use crate::engine::effect::Hold;
use crate::engine::install::{Holds, InstallState, Installed, JournalEntry, Recovered, Trial, Way};
use crate::installer::{self, InstallDir};
use crate::store::state::{
    HistoryRow, InstallChange, InstallRow, InstalledRow, QuarantineRow, ReleaseRef, StateDb, StateError,
};

/// Begins the transaction name of a way back that an operator asked for, so that the journal tells it from
/// an install.
const ROLLBACK: &str = "rollback-";
/// The same, back from a release that did not prove itself.
const FAILURE: &str = "failure-";

/// How writing went; else why it did not, for people.
pub(super) type Written = Result<(), String>;

impl Hold {
    /// Sets it or lifts it in the state database.
    pub(super) fn write(&self, opened: &Opened) -> Result<(), StateError> {
        let (state, directory, version) = (&opened.state, Path::new(&self.directory), self.version.as_ref());
        match &self.reason {
            Some(reason) => state.put_hold(directory, &self.product, version, reason, wall_clock()),
            None => state.lift_hold(directory, &self.product, version),
        }
    }
}

fn reference(installed: &Installed) -> ReleaseRef {
    ReleaseRef { version: installed.version.clone(), artifact: installed.artifact }
}

/// Writes one line, and with the last line of a transaction what it changes: all of it or nothing.
pub(super) fn write(opened: &Opened, entry: &JournalEntry) -> Result<(), StateError> {
    let state = &opened.state;
    let now = wall_clock();
    let directory = PathBuf::from(&entry.directory);
    let prefix = match entry.way {
        Way::Forward => "",
        Way::Back => FAILURE,
        Way::BackByOperator => ROLLBACK,
    };
    let row = InstallRow {
        directory: directory.clone(),
        product: entry.product.clone(),
        state: entry.state.as_str().to_owned(),
        txn: format!("{prefix}{}", entry.transaction),
        from: entry.from.as_ref().map(reference),
        to: entry.to.as_ref().map(reference),
        attempts: entry.attempts,
        error: entry.reason.clone(),
        remaining_ms: entry.remaining_ms,
        updated_at: now,
    };
    let Some(outcome) = &entry.outcome else { return state.journal(&row, None) };
    let installed = outcome.installed.as_ref().map(|(to, previous)| InstalledRow {
        directory: directory.clone(),
        release: reference(to),
        release_dir: to.release_dir.clone(),
        installed_at: now,
        previous: previous.as_ref().map(|previous| (reference(previous), previous.release_dir.clone())),
    });
    let quarantine = outcome.quarantine.as_ref().map(|(artifact, reason)| QuarantineRow {
        directory,
        artifact: *artifact,
        reason: reason.clone(),
        at: now,
    });
    let happened = HistoryRow {
        at: now,
        repository: opened.repository.0,
        product: Some(entry.product.clone()),
        version: Some(outcome.version.clone()),
        kind: outcome.kind.as_str().to_owned(),
        detail: outcome.text.clone(),
    };
    state.commit_install(&row, &InstallChange { installed, quarantine, happened })
}

fn installed_of(reference: ReleaseRef, release_dir: String) -> Installed {
    Installed { version: reference.version, artifact: reference.artifact, release_dir }
}

/// What the state database and the file system say about a directory, and the configuration about its
/// releases.
pub(super) fn recover(
    state: &StateDb,
    directory: &Path,
    product: &Product,
    trial: Trial,
) -> Result<Recovered, StateError> {
    let journalled = |reference: ReleaseRef| {
        let release_dir = format!("{}-{}", reference.version, reference.artifact.short());
        installed_of(reference, release_dir)
    };
    let row = state.install(directory)?;
    let journal = row.and_then(|row| {
        let (way, transaction) = match (row.txn.strip_prefix(ROLLBACK), row.txn.strip_prefix(FAILURE)) {
            (Some(name), _) => (Way::BackByOperator, name.to_owned()),
            (None, Some(name)) => (Way::Back, name.to_owned()),
            (None, None) => (Way::Forward, row.txn),
        };
        Some(JournalEntry {
            directory: directory.to_str()?.to_owned(),
            product: row.product,
            state: InstallState::from_name(&row.state)?,
            transaction,
            from: row.from.map(journalled),
            to: row.to.map(journalled),
            attempts: row.attempts,
            way,
            remaining_ms: row.remaining_ms,
            reason: row.error,
            outcome: None,
        })
    });
    let (installed, previous) = match state.installed(directory)? {
        Some(row) => (
            Some(installed_of(row.release, row.release_dir)),
            row.previous.map(|(reference, release_dir)| installed_of(reference, release_dir)),
        ),
        None => (None, None),
    };
    let mut holds = Holds::default();
    for (version, reason) in state.holds(directory, product)? {
        holds.add(version.as_ref(), &reason);
    }
    let current = InstallDir::new(directory).current();
    let is_current = |release: &Installed| current.as_ref() == Some(&release.release_dir);
    let stands = kept(state, directory)?.into_iter().find(is_current);
    let runs = trial.activation.as_ref().is_some_and(|activation| installer::is_started(directory, activation));
    Ok(Recovered {
        journal,
        installed,
        previous,
        current,
        stands,
        quarantine: state.quarantined(Some(directory))?.into_iter().map(|row| (row.artifact, row.reason)).collect(),
        holds,
        runs,
        trial,
    })
}

/// The releases in a directory that proved themselves there once, and are there still.
pub(super) fn kept(state: &StateDb, directory: &Path) -> Result<Vec<Installed>, StateError> {
    let on_disk = InstallDir::new(directory);
    let rows = state.kept_releases(directory)?.into_iter();
    Ok(rows
        .filter(|(_, release_dir)| on_disk.has(release_dir))
        .map(|(reference, release_dir)| installed_of(reference, release_dir))
        .collect())
}
