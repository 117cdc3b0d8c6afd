//! Disk work off the event loop: two threads, each doing its jobs in the order they were given.
//!
//! One keeps files and the state database; the other installs. They are two so that unpacking a
//! large release never delays the metadata that arrives meanwhile. Order within each is what makes
//! the journal a journal: a step's line is on disk before the step begins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::Version;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::names::Product;
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;

use super::gc::{self, TreeJob};
use super::offers::{self, OfferJob};
use super::open::{Opened, wall_clock};
use super::outcomes::{self, OutcomeJob};
use super::owed::{self, Owed, Trouble};
use crate::engine::bans::Ban;
use crate::engine::effect::{Event, InstallEffect, Save, Subject};
use crate::engine::input::Input;
use crate::engine::install::{
    Activation, Check, Fault, Holds, InstallState, Installed, JournalEntry, Recovered, StepFailure, Trial, Way,
};
use crate::engine::retention::RetentionEffect;
use crate::installer::{self, Ended, InstallDir};
use crate::store::state::{
    HistoryRow, InstallChange, InstallRow, InstalledRow, KnownPeer, Mode, QuarantineRow, ReleaseRef, StateDb,
    StateError,
};
use crate::store::{Artifact, StoreError};

/// Jobs that may wait. More wait with whoever asks.
const QUEUE: usize = 256;

/// Versions of metadata files that are kept behind the newest, for clients in the middle of a refresh.
const KEPT_VERSIONS: u64 = 16;

/// Small files that are kept though nothing names them any more, the newest: for clients in the middle of
/// a refresh, and for files that arrived before the set that names them.
const KEPT_SMALL_FILES: usize = 32;

/// Begins the transaction name of a way back that an operator asked for, so that the journal tells it from
/// an install.
const ROLLBACK: &str = "rollback-";
/// The same, back from a release that did not prove itself.
const FAILURE: &str = "failure-";

/// Something to do on disk.
#[derive(Debug)]
pub(super) enum Job {
    Save(Vec<Save>),
    Open(Arc<Manifest>),
    Check(Digest),
    RememberPeer {
        peer: PeerId,
        addresses: Vec<String>,
    },
    RememberBan(Ban),
    ForgetBan(PeerId),
    /// An operator vouches for the clock.
    ForgetSignedAt,
    History {
        event: Event,
        at: UtcTime,
    },
    Checkpoint,
    /// Everything before it is done.
    Barrier(oneshot::Sender<()>),
    /// Nothing after it is begun before the other thread came to this barrier.
    After(oneshot::Receiver<()>),
    Journal(Box<JournalEntry>),
    Offer(OfferJob),
    Outcome(OutcomeJob),
    Retention(RetentionEffect),
    LiftQuarantine(PathBuf),
    Collect(TreeJob),
    Install(InstallEffect),
}

/// Where jobs go and what comes back.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    pub(super) files: mpsc::Sender<Job>,
    pub(super) installs: mpsc::Sender<Job>,
    troubles: [Trouble; 2],
}

impl Workers {
    /// Why rows wait for the disk, in sentences.
    pub(super) fn trouble(&self) -> Option<String> {
        self.troubles.iter().find_map(Trouble::get)
    }
}

/// Starts both threads. What they find out arrives at `done`.
pub(super) fn start(
    opened: &Opened,
    done: &mpsc::Sender<Input>,
    keep_releases: u32,
    stop: &CancellationToken,
) -> Workers {
    let troubles: [Trouble; 2] = Default::default();
    let spawn = |trouble: &Trouble| {
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let worker = Worker {
            opened: opened.clone(),
            owed: Owed::new(trouble.clone()),
            done: done.clone(),
            keep_releases,
            stop: stop.clone(),
            tasks: Handle::current(),
        };
        tokio::task::spawn_blocking(move || {
            while let Some(job) = worker.next(&mut queue) {
                worker.work(job);
            }
            worker.owed.settle(&worker.opened);
        });
        jobs
    };
    Workers { files: spawn(&troubles[0]), installs: spawn(&troubles[1]), troubles }
}

struct Worker {
    opened: Opened,
    /// Rows that could not be written yet, journal lines among them: no step is taken without its line.
    owed: Owed,
    done: mpsc::Sender<Input>,
    keep_releases: u32,
    stop: CancellationToken,
    /// Where commands of the operator are waited for: they are slow, and this thread has other work.
    tasks: Handle,
}

impl Worker {
    /// The next job; what is owed is tried again while there is none.
    fn next(&self, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        while !self.owed.is_empty() {
            let waited = self.tasks.block_on(async { tokio::time::timeout(owed::AGAIN, queue.recv()).await });
            match waited {
                Ok(job) => return job,
                Err(_elapsed) => self.owed.settle(&self.opened),
            }
        }
        queue.blocking_recv()
    }

    /// Writes a row, now or as soon as the disk takes it.
    fn write(&self, row: impl Fn(&Opened) -> Result<(), StateError> + Send + 'static) {
        self.owed.write(&self.opened, row);
    }

    fn work(&self, job: Job) {
        match job {
            Job::Save(saves) => self.save(&saves),
            Job::Open(manifest) => {
                let result = self.opened.store.begin(&manifest);
                let done = self.done.clone();
                let answer = move |result: Result<Arc<Artifact>, StoreError>| {
                    let result = result.map(|artifact| artifact.have()).map_err(|error| error.to_string());
                    let _ = done.blocking_send(Input::ArtifactOpened { manifest, result });
                };
                match result {
                    // Hashing takes as long as the disk does: nothing else waits for it.
                    Ok(artifact) if artifact.is_recoverable() => drop(tokio::task::spawn_blocking(move || {
                        answer(artifact.recover(&mut |_, _| {}).map(|_| artifact));
                    })),
                    result => answer(result),
                }
            }
            Job::Check(artifact) => {
                let (artifact, done) = (self.opened.store.get(&artifact), self.done.clone());
                let Some(artifact) = artifact else { return };
                drop(tokio::task::spawn_blocking(move || {
                    if let Err(error) = artifact.verify(&mut |_, _| {}) {
                        tracing::error!(%error, "an artifact could not be checked");
                    }
                    let have = artifact.have();
                    let _ =
                        done.blocking_send(Input::ArtifactChecked { artifact: *artifact.manifest().artifact(), have });
                }));
            }
            Job::RememberPeer { peer, addresses } => {
                let known = KnownPeer { peer, addresses, last_connected_at: wall_clock() };
                report(self.opened.state.remember_peers(&self.opened.repository.0, &[known]));
            }
            Job::RememberBan(ban) => self.write(move |opened| opened.state.put_ban(&opened.repository.0, &ban)),
            Job::ForgetBan(peer) => self.write(move |opened| opened.state.remove_ban(&opened.repository.0, &peer)),
            Job::ForgetSignedAt => report(self.opened.state.forget_signed_at(&self.opened.repository.0)),
            Job::History { event, at } => {
                let row = HistoryRow {
                    at,
                    repository: self.opened.repository.0,
                    product: event.product,
                    version: event.version,
                    kind: event.kind.as_str().to_owned(),
                    detail: event.text,
                };
                self.write(move |opened| opened.state.append_history(&row).map(drop));
            }
            Job::Checkpoint => self.checkpoint(),
            Job::After(reached) => drop(reached.blocking_recv()),
            Job::Barrier(reached) => {
                // Whoever waited may have gone away; the barrier is reached all the same.
                let _ = reached.send(());
            }
            Job::Journal(entry) => self.write(move |opened| journal(opened, &entry)),
            Job::Offer(job) => {
                if let Some(input) = offers::work(&self.opened, job) {
                    self.answer(input);
                }
            }
            Job::Outcome(job) => self.write(move |opened| outcomes::work(opened, &job)),
            Job::Retention(effect) => self.retain(effect),
            Job::LiftQuarantine(directory) => {
                self.write(move |opened| {
                    for row in opened.state.quarantined(Some(&directory))? {
                        opened.state.lift_quarantine(&directory, &row.artifact)?;
                    }
                    Ok(())
                });
            }
            Job::Collect(job) => gc::work(job, self.keep_releases),
            Job::Install(effect) => self.install(effect),
        }
    }

    fn answer(&self, input: Input) {
        // Nobody listens only while the node stops, and then the journal knows where to go on.
        let _ = self.done.blocking_send(input);
    }

    fn save(&self, saves: &[Save]) {
        if let Err(error) = self.opened.save(saves) {
            tracing::error!(%error, "metadata could not be saved; it is fetched again after a restart");
            return;
        }
        let whole = saves.iter().any(|save| matches!(save, Save::Metadata { name, .. } if name == "timestamp.json"));
        if whole {
            self.prune(saves);
        }
    }

    /// Removes old versions of the files in `saves`. Roots stay: newcomers walk the whole chain.
    fn prune(&self, saves: &[Save]) {
        let Ok(names) = self.opened.metadata.list() else { return };
        for save in saves {
            let Save::Metadata { name, .. } = save else { continue };
            let Some((newest, stem)) = versioned(name).filter(|(_, stem)| *stem != "root.json") else { continue };
            for old in &names {
                let outdated = versioned(old)
                    .is_some_and(|(version, other)| other == stem && version.saturating_add(KEPT_VERSIONS) < newest);
                if outdated && let Err(error) = self.opened.metadata.remove(old) {
                    tracing::warn!(%error, old, "an old metadata file could not be removed");
                }
            }
        }
    }

    fn retain(&self, effect: RetentionEffect) {
        match effect {
            RetentionEffect::Remove { artifacts } => self.remove_artifacts(&artifacts),
            RetentionEffect::Pin { artifact, until } => {
                self.write(move |opened| opened.state.put_pin(&opened.repository.0, &artifact, until));
            }
            RetentionEffect::Unpin { artifact } => {
                self.write(move |opened| opened.state.remove_pin(&opened.repository.0, &artifact));
            }
            RetentionEffect::KeepSmallFiles { named } => {
                match self.opened.store.prune_targets(&named, KEPT_SMALL_FILES) {
                    Ok(0) => {}
                    Ok(removed) => tracing::debug!(removed, "old small files were removed"),
                    Err(error) => tracing::warn!(%error, "old small files could not be removed"),
                }
            }
        }
    }

    /// What cannot be removed now is found again, and of no use again, at the next start.
    fn remove_artifacts(&self, artifacts: &[Digest]) {
        for artifact in artifacts {
            match self.opened.store.remove(artifact) {
                Ok(true) => tracing::info!(%artifact, "removed an artifact that nothing needs any more"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, %artifact, "an artifact could not be removed"),
            }
        }
    }

    fn checkpoint(&self) {
        for info in self.opened.store.list().into_iter().filter(|info| !info.complete) {
            if let Some(artifact) = self.opened.store.get(&info.artifact)
                && let Err(error) = artifact.checkpoint()
            {
                tracing::warn!(%error, "progress of a download could not be saved");
            }
        }
    }

    fn install(&self, effect: InstallEffect) {
        if let Some(reason) = self.owed.reason() {
            let result = Err(StepFailure { reason, fault: Fault::Place });
            match effect {
                InstallEffect::Stage { directory, transaction, .. } => {
                    self.answer(Input::Staged { directory, transaction, result });
                }
                InstallEffect::Switch { directory, transaction, .. } => {
                    self.answer(Input::Switched { directory, transaction, result });
                }
                InstallEffect::Activate { directory, transaction, .. } => {
                    self.answer(Input::Activated { directory, transaction, result, output: String::new() });
                }
                // Asking does no harm, and the answer is not what the journal was about.
                InstallEffect::Check { directory, transaction, number, check, timeout_ms, subject } => {
                    self.check(directory, transaction, number, check, timeout_ms, subject);
                }
                InstallEffect::Hold { directory, version, reason } => {
                    self.hold(&directory, version.as_ref(), reason.as_deref());
                }
                InstallEffect::Discard { .. } | InstallEffect::Collect { .. } => {}
            }
            return;
        }
        match effect {
            InstallEffect::Stage { directory, transaction, release, release_dir } => {
                let result = self.stage(&directory, &transaction, &release, &release_dir);
                self.answer(Input::Staged { directory, transaction, result });
            }
            InstallEffect::Switch { directory, transaction, release_dir } => {
                let result = InstallDir::new(Path::new(&directory)).switch(&release_dir);
                let result = result.map_err(installer::InstallError::into_failure);
                self.answer(Input::Switched { directory, transaction, result });
            }
            InstallEffect::Activate { directory, transaction, activation, subject } => {
                self.activate(directory, transaction, activation, subject);
            }
            InstallEffect::Check { directory, transaction, number, check, timeout_ms, subject } => {
                self.check(directory, transaction, number, check, timeout_ms, subject);
            }
            InstallEffect::Hold { directory, version, reason } => {
                self.hold(&directory, version.as_ref(), reason.as_deref());
            }
            InstallEffect::Discard { directory, transaction } => {
                if let Err(error) = InstallDir::new(Path::new(&directory)).discard(&transaction) {
                    tracing::warn!(%error, "a staging directory could not be removed");
                }
            }
            InstallEffect::Collect { directory, keep } => {
                if let Err(error) = InstallDir::new(Path::new(&directory)).collect(&keep, self.keep_releases) {
                    tracing::warn!(%error, "old releases could not be removed");
                }
            }
        }
    }

    /// Starts a release; this thread does not wait for it.
    fn activate(&self, directory: String, transaction: String, activation: Activation, subject: Subject) {
        self.spawn(async move {
            let Ended { result, output } = installer::activate(Path::new(&directory), &activation, &subject).await;
            let result = result.map_err(|reason| StepFailure { reason, fault: Fault::Release });
            Input::Activated { directory, transaction, result, output }
        });
    }

    /// Asks for a release's health; this thread does not wait for the answer.
    fn check(
        &self,
        directory: String,
        transaction: String,
        number: u32,
        check: Check,
        timeout_ms: u64,
        subject: Subject,
    ) {
        self.spawn(async move {
            let Ended { result, output } = installer::check(Path::new(&directory), &check, timeout_ms, &subject).await;
            Input::Checked { directory, transaction, number, result, output }
        });
    }

    /// Runs a command of the operator and hands its answer over. A node that stops does not wait for it: the
    /// journal knows that it was begun.
    fn spawn(&self, command: impl Future<Output = Input> + Send + 'static) {
        let (done, stop) = (self.done.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // Nobody listens only while the node stops.
                input = command => drop(done.send(input).await),
            }
        });
    }

    fn hold(&self, directory: &str, version: Option<&Version>, reason: Option<&str>) {
        let (state, directory) = (&self.opened.state, Path::new(directory));
        let repository = &self.opened.repository.0;
        let rows = state.subscriptions().unwrap_or_default();
        let product = rows.into_iter().find_map(|row| match &row.mode {
            Mode::Install { directory: of } if of == directory && row.repository == *repository => Some(row.product),
            _ => None,
        });
        let Some(product) = product else { return };
        let (directory, version) = (directory.to_owned(), version.cloned());
        let (reason, at) = (reason.map(str::to_owned), wall_clock());
        self.write(move |opened| match &reason {
            Some(reason) => opened.state.put_hold(&directory, &product, version.as_ref(), reason, at),
            None => opened.state.lift_hold(&directory, &product, version.as_ref()),
        });
    }

    fn stage(
        &self,
        directory: &str,
        transaction: &str,
        release: &updraft_protocol::release::Release,
        release_dir: &str,
    ) -> Result<(), StepFailure> {
        let artifact = self.opened.store.get(&release.artifact).ok_or_else(|| StepFailure {
            reason: "the artifact is not in the store any more".to_owned(),
            fault: Fault::Moment,
        })?;
        let mut go_on = |_done: u64, _total: u64| {
            if self.stop.is_cancelled() {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        };
        let staged =
            InstallDir::new(Path::new(directory)).stage(transaction, release, artifact.path(), release_dir, &mut go_on);
        let failure = match staged {
            Ok(()) => return Ok(()),
            Err(error) => error.into_failure(),
        };
        if failure.fault == Fault::Release { Err(self.tell_damage(&artifact, failure)) } else { Err(failure) }
    }

    /// Whether it is the artifact that is bad, or the disk: its pieces are hashed again.
    fn tell_damage(&self, artifact: &Artifact, failure: StepFailure) -> StepFailure {
        let report = match artifact.verify(&mut |_, _| {}) {
            Ok(report) if !report.cleared.is_empty() => report,
            Ok(_) => return failure,
            Err(error) => return StepFailure { reason: error.to_string(), fault: Fault::Moment },
        };
        self.answer(Input::ArtifactChecked { artifact: *artifact.manifest().artifact(), have: artifact.have() });
        let reason = format!(
            "{} pieces of the artifact were damaged on disk and are fetched again: check the disk",
            report.cleared.len()
        );
        StepFailure { reason, fault: Fault::Moment }
    }
}

fn versioned(name: &str) -> Option<(u64, &str)> {
    let (version, stem) = name.split_once('.')?;
    Some((version.parse().ok()?, stem))
}

fn report(result: Result<(), StateError>) {
    if let Err(error) = result {
        tracing::error!(%error, "the state database refused");
    }
}

fn reference(installed: &Installed) -> ReleaseRef {
    ReleaseRef { version: installed.version.clone(), artifact: installed.artifact }
}

fn journal(opened: &Opened, entry: &JournalEntry) -> Result<(), StateError> {
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
    let runs = trial.activation.as_ref().is_some_and(|activation| installer::is_started(directory, activation));
    Ok(Recovered {
        journal,
        installed,
        previous,
        current: InstallDir::new(directory).current(),
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

/// The pieces of every artifact in the store.
pub(super) fn held(opened: &Opened) -> Vec<(Arc<Manifest>, Bitmap)> {
    let artifacts = opened.store.list().into_iter().filter_map(|info| opened.store.get(&info.artifact));
    artifacts.map(|artifact| (Arc::new(artifact.manifest().clone()), artifact.have())).collect()
}
