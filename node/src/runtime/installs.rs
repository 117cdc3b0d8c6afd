//! Install directories: each has a thread of its own, which takes its steps in the order they were given.
//! Health and starts of one product never wait for the unpacking of another.
//!
//! The order is what makes the journal a journal: a step's line is on disk before the step begins. A line
//! that cannot be written is kept and tried again; until it is written no step is taken.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use updraft_protocol::release::Release;

use super::gc::{self, TreeJob};
use super::journal::{self, Written};
use super::open::Opened;
use super::owed::{Owed, Trouble};
use crate::archive::ArchiveError;
use crate::engine::effect::{Hold, InstallEffect, Subject};
use crate::engine::input::Input;
use crate::engine::install::{Activation, Check, Fault, JournalEntry, StepFailure};
use crate::installer::{self, Ended, InstallDir, InstallError};
use crate::store::Artifact;

/// Steps of one directory that may wait. More wait with whoever asks.
const QUEUE: usize = 256;
/// Directories that are unpacked into at once.
const UNPACKING: usize = 1;
/// Whoever waits for its turn to unpack looks this often whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Something to do for one directory.
#[derive(Debug)]
pub(super) enum Step {
    /// A line of its journal.
    Journal(Box<JournalEntry>),
    /// What the engine wants done.
    Install(InstallEffect),
    /// A hold is being written elsewhere: nothing after this is begun before it is on disk. A node that goes
    /// back and is killed must not come forth again.
    Held(Hold, oneshot::Receiver<Written>),
    /// An operator wants what failed here tried again.
    LiftQuarantine,
    /// What is there, and what may go.
    Collect(TreeJob),
}

/// The threads, one for each directory that had something to do.
#[derive(Debug)]
pub(super) struct Installs {
    opened: Opened,
    done: mpsc::Sender<Input>,
    keep_releases: u32,
    stop: CancellationToken,
    unpacking: Arc<Semaphore>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    steps: mpsc::Sender<Step>,
    /// Why lines wait to be written.
    trouble: Trouble,
    /// The transaction that was given up last.
    abandoned: Arc<Mutex<Option<String>>>,
}

impl Installs {
    /// None yet. What the threads find out arrives at `done`.
    pub(super) fn new(
        opened: &Opened,
        done: &mpsc::Sender<Input>,
        keep_releases: u32,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            opened: opened.clone(),
            done: done.clone(),
            keep_releases,
            stop: stop.clone(),
            unpacking: Arc::new(Semaphore::new(UNPACKING)),
            places: BTreeMap::new(),
        }
    }

    /// Where the steps of `directory` go.
    pub(super) fn queue(&mut self, directory: &str) -> mpsc::Sender<Step> {
        if let Some(place) = self.places.get(directory) {
            return place.steps.clone();
        }
        let (steps, queue) = mpsc::channel(QUEUE);
        let (trouble, abandoned) = (Trouble::default(), Arc::<Mutex<Option<String>>>::default());
        let worker = Worker {
            opened: self.opened.clone(),
            directory: directory.to_owned(),
            owed: Owed::of_steps(trouble.clone()),
            abandoned: abandoned.clone(),
            done: self.done.clone(),
            keep_releases: self.keep_releases,
            stop: self.stop.clone(),
            unpacking: self.unpacking.clone(),
            tasks: Handle::current(),
        };
        tokio::task::spawn_blocking(move || worker.run(queue));
        self.places.insert(directory.to_owned(), Place { steps: steps.clone(), trouble, abandoned });
        steps
    }

    /// A transaction is given up: what is under way for it ends early.
    pub(super) fn abandon(&self, directory: &str, transaction: &str) {
        if let Some(place) = self.places.get(directory) {
            *lock(&place.abandoned) = Some(transaction.to_owned());
        }
    }

    /// Why lines wait to be written, in a sentence.
    pub(super) fn trouble(&self) -> Option<String> {
        self.places.values().find_map(|place| place.trouble.get())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    opened: Opened,
    directory: String,
    /// Lines and holds that are not on disk yet: no step is taken before they are.
    owed: Owed,
    abandoned: Arc<Mutex<Option<String>>>,
    done: mpsc::Sender<Input>,
    keep_releases: u32,
    stop: CancellationToken,
    unpacking: Arc<Semaphore>,
    /// Where commands of the operator are waited for: they are slow, and this thread has other work.
    tasks: Handle,
}

impl Worker {
    fn run(self, mut queue: mpsc::Receiver<Step>) {
        while let Some(step) = self.owed.next(&self.opened, &self.tasks, &mut queue) {
            self.take(step);
        }
        // The last chance before the node stops; what is told of it was told before.
        self.owed.settle(&self.opened);
    }

    fn take(&self, step: Step) {
        match step {
            Step::Journal(entry) => self.owed.write(&self.opened, move |opened| journal::write(opened, &entry)),
            Step::Held(hold, written) => {
                // One that could not be written is written here, and so is every one that comes after it.
                if !matches!(written.blocking_recv(), Ok(Ok(()))) || !self.owed.is_empty() {
                    self.owed.write(&self.opened, move |opened| hold.write(opened));
                }
            }
            Step::Install(effect) => self.install(effect),
            Step::LiftQuarantine => {
                let directory = PathBuf::from(&self.directory);
                self.owed.write(&self.opened, move |opened| {
                    let rows = opened.state.quarantined(Some(&directory))?;
                    rows.iter().try_for_each(|row| opened.state.lift_quarantine(&directory, &row.artifact).map(drop))
                });
            }
            Step::Collect(job) => gc::work(job, self.keep_releases),
        }
    }

    fn answer(&self, input: Input) {
        // Nobody listens only while the node stops, and then the journal knows where to go on.
        let _ = self.done.blocking_send(input);
    }

    /// Takes no step, and says why to whoever waits for its end.
    fn refuse(&self, effect: InstallEffect, reason: String) {
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
            InstallEffect::Discard { directory, transaction } => discard(&directory, &transaction),
            // What is left behind may be needed by what the journal still says.
            InstallEffect::Collect { .. } => {}
        }
    }

    fn install(&self, effect: InstallEffect) {
        if !self.owed.is_empty() {
            self.owed.settle(&self.opened);
        }
        if let Some(reason) = self.owed.reason() {
            return self.refuse(effect, reason);
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
            InstallEffect::Discard { directory, transaction } => discard(&directory, &transaction),
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

    fn stage(
        &self,
        directory: &str,
        transaction: &str,
        release: &Release,
        release_dir: &str,
    ) -> Result<(), StepFailure> {
        let artifact = self.opened.store.get(&release.artifact).ok_or_else(|| StepFailure {
            reason: "the artifact is not in the store any more".to_owned(),
            fault: Fault::Moment,
        })?;
        let is_over = || self.stop.is_cancelled() || lock(&self.abandoned).as_deref() == Some(transaction);
        let Some(_unpacking) = self.turn_to_unpack(&is_over) else {
            return Err(StepFailure { reason: "it was given up".to_owned(), fault: Fault::Moment });
        };
        let mut go_on =
            |_done: u64, _total: u64| if is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let staged =
            InstallDir::new(Path::new(directory)).stage(transaction, release, artifact.path(), release_dir, &mut go_on);
        let Err(error) = staged else { return Ok(()) };
        // A file that cannot be read is as bad as one that reads wrong.
        let is_unreadable =
            matches!(&error, InstallError::Archive(ArchiveError::Io { path, .. }) if path == artifact.path());
        let failure = error.into_failure();
        let is_doubtful = failure.fault == Fault::Release || is_unreadable;
        Err(if is_doubtful { self.tell_damage(&artifact, failure) } else { failure })
    }

    /// Waits until no other directory unpacks: two at once take twice the memory, and no less time. None once
    /// nobody wants it any more.
    fn turn_to_unpack(&self, is_over: &impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        while !is_over() {
            if let Ok(turn) = self.unpacking.clone().try_acquire_owned() {
                return Some(turn);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    fn tell_have(&self, artifact: &Artifact) {
        self.answer(Input::ArtifactChecked { artifact: *artifact.manifest().artifact(), have: artifact.have() });
    }

    /// Whether it is the artifact that is bad, or the disk: its pieces are hashed again.
    fn tell_damage(&self, artifact: &Artifact, failure: StepFailure) -> StepFailure {
        let report = match artifact.verify(&mut |_, _| {}) {
            Ok(report) if !report.cleared.is_empty() => report,
            // Somebody else looked first, and what was damaged is on its way again.
            Ok(_) if !artifact.is_complete() => return StepFailure { fault: Fault::Moment, ..failure },
            Ok(_) => return failure,
            Err(error) => {
                // It may have withdrawn what it had claimed before it failed.
                self.tell_have(artifact);
                return StepFailure { reason: error.to_string(), fault: Fault::Moment };
            }
        };
        self.tell_have(artifact);
        let reason = format!(
            "{} pieces of the artifact were damaged on disk and are fetched again: check the disk",
            report.cleared.len()
        );
        StepFailure { reason, fault: Fault::Moment }
    }
}

fn discard(directory: &str, transaction: &str) {
    if let Err(error) = InstallDir::new(Path::new(directory)).discard(transaction) {
        tracing::warn!(%error, "a staging directory could not be removed");
    }
}

#[cfg(test)]
mod tests;
