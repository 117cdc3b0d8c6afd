//! Disk work off the event loop: two threads, each doing its jobs in the order they were given.
//!
//! One keeps files and the state database; the other installs. They are two so that unpacking a
//! large release never delays the metadata that arrives meanwhile. Order within each is what makes
//! the journal a journal: a step's line is on disk before the step begins.

use std::cell::RefCell;
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
use super::journal;
use super::offers::{self, OfferJob};
use super::open::{Opened, wall_clock};
use super::outcomes::{self, OutcomeJob};
use crate::engine::bans::Ban;
use crate::engine::effect::{Event, InstallEffect, Save, Subject};
use crate::engine::input::Input;
use crate::engine::install::{Activation, Check, Fault, JournalEntry, StepFailure};
use crate::engine::retention::RetentionEffect;
use crate::installer::{self, Ended, InstallDir};
use crate::store::state::{HistoryRow, KnownPeer, StateError};
use crate::store::{Artifact, StoreError};

/// Jobs that may wait. More wait with whoever asks.
const QUEUE: usize = 256;

/// Versions of metadata files that are kept behind the newest, for clients in the middle of a refresh.
const KEPT_VERSIONS: u64 = 16;

/// Small files that are kept though nothing names them any more, the newest: for clients in the middle of
/// a refresh, and for files that arrived before the set that names them.
const KEPT_SMALL_FILES: usize = 32;

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
}

/// Starts both threads. What they find out arrives at `done`.
pub(super) fn start(
    opened: &Opened,
    done: &mpsc::Sender<Input>,
    keep_releases: u32,
    stop: &CancellationToken,
) -> Workers {
    let spawn = || {
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let worker = Worker {
            opened: opened.clone(),
            unwritten: RefCell::default(),
            done: done.clone(),
            keep_releases,
            stop: stop.clone(),
            tasks: Handle::current(),
        };
        tokio::task::spawn_blocking(move || {
            while let Some(job) = queue.blocking_recv() {
                worker.work(job);
            }
        });
        jobs
    };
    Workers { files: spawn(), installs: spawn() }
}

struct Worker {
    opened: Opened,
    /// Why the last journal line could not be written: no step is taken without its line.
    unwritten: RefCell<Option<String>>,
    done: mpsc::Sender<Input>,
    keep_releases: u32,
    stop: CancellationToken,
    /// Where commands of the operator are waited for: they are slow, and this thread has other work.
    tasks: Handle,
}

impl Worker {
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
            Job::RememberBan(ban) => report(self.opened.state.put_ban(&self.opened.repository.0, &ban)),
            Job::ForgetBan(peer) => report(self.opened.state.remove_ban(&self.opened.repository.0, &peer)),
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
                report(self.opened.state.append_history(&row).map(drop));
            }
            Job::Checkpoint => self.checkpoint(),
            Job::After(reached) => drop(reached.blocking_recv()),
            Job::Barrier(reached) => {
                // Whoever waited may have gone away; the barrier is reached all the same.
                let _ = reached.send(());
            }
            Job::Journal(entry) => {
                let written = journal::write(&self.opened, &entry);
                let failure = written.as_ref().err().map(|error| format!("the journal cannot be written: {error}"));
                *self.unwritten.borrow_mut() = failure;
                report(written);
            }
            Job::Offer(job) => {
                if let Some(input) = offers::work(&self.opened, job) {
                    self.answer(input);
                }
            }
            Job::Outcome(job) => report(outcomes::work(&self.opened, job)),
            Job::Retention(effect) => self.retain(effect),
            Job::LiftQuarantine(directory) => {
                for row in self.opened.state.quarantined(Some(&directory)).unwrap_or_default() {
                    report(self.opened.state.lift_quarantine(&directory, &row.artifact).map(drop));
                }
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
        let (state, repository) = (&self.opened.state, &self.opened.repository.0);
        match effect {
            RetentionEffect::Remove { artifacts } => self.remove_artifacts(&artifacts),
            RetentionEffect::Pin { artifact, until } => report(state.put_pin(repository, &artifact, until)),
            RetentionEffect::Unpin { artifact } => report(state.remove_pin(repository, &artifact)),
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
        let unwritten = self.unwritten.borrow().clone();
        if let Some(reason) = unwritten {
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
                InstallEffect::Hold { directory, product, version, reason } => {
                    self.hold(&directory, &product, version.as_ref(), reason.as_deref());
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
            InstallEffect::Hold { directory, product, version, reason } => {
                self.hold(&directory, &product, version.as_ref(), reason.as_deref());
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

    fn hold(&self, directory: &str, product: &Product, version: Option<&Version>, reason: Option<&str>) {
        let (state, directory) = (&self.opened.state, Path::new(directory));
        report(match reason {
            Some(reason) => state.put_hold(directory, product, version, reason, wall_clock()),
            None => state.lift_hold(directory, product, version),
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

/// The pieces of every artifact in the store; none where it lost track of them.
pub(super) fn held(opened: &Opened) -> Vec<(Arc<Manifest>, Option<Bitmap>)> {
    let artifacts = opened.store.list().into_iter().filter_map(|info| opened.store.get(&info.artifact));
    let have = |artifact: &Artifact| (!artifact.is_recoverable()).then(|| artifact.have());
    artifacts.map(|artifact| (Arc::new(artifact.manifest().clone()), have(&artifact))).collect()
}
