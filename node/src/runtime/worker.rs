//! Files and the state database off the event loop: one thread, which does its jobs in the order they were
//! given. What is slow is left to others: hashing to the blocking pool, installs to `installs`.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;

use super::journal::Written;
use super::offers::{self, OfferJob};
use super::open::{Opened, wall_clock};
use super::outcomes::{self, OutcomeJob};
use super::owed::{Owed, Trouble};
use crate::engine::bans::Ban;
use crate::engine::effect::{Event, Hold, Save};
use crate::engine::input::Input;
use crate::engine::retention::RetentionEffect;
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
    /// A hold is set or lifted; how that went is told to everybody who waits for it.
    Hold(Hold, Vec<oneshot::Sender<Written>>),
    Offer(OfferJob),
    Outcome(OutcomeJob),
    Retention(RetentionEffect),
}

/// Starts the thread. What it finds out arrives at `done`; `trouble` says why rows wait.
pub(super) fn start(opened: &Opened, done: &mpsc::Sender<Input>, trouble: Trouble) -> mpsc::Sender<Job> {
    let (jobs, mut queue) = mpsc::channel(QUEUE);
    let worker = Worker { opened: opened.clone(), owed: Owed::of_files(trouble), done: done.clone() };
    let tasks = Handle::current();
    tokio::task::spawn_blocking(move || {
        while let Some(job) = worker.owed.next(&worker.opened, &tasks, &mut queue) {
            worker.work(job);
        }
        worker.owed.settle(&worker.opened);
    });
    jobs
}

struct Worker {
    opened: Opened,
    /// Rows that could not be written yet.
    owed: Owed,
    done: mpsc::Sender<Input>,
}

impl Worker {
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
            Job::Barrier(reached) => {
                // Whoever waited may have gone away; the barrier is reached all the same.
                let _ = reached.send(());
            }
            Job::Hold(hold, waiting) => {
                let written = hold.write(&self.opened).map_err(|error| error.to_string());
                for waits in waiting {
                    // Whoever waited may have gone away.
                    let _ = waits.send(written.clone());
                }
            }
            Job::Offer(job) => {
                if let Some(input) = offers::work(&self.opened, job) {
                    self.answer(input);
                }
            }
            Job::Outcome(job) => self.write(move |opened| outcomes::work(opened, &job)),
            Job::Retention(effect) => self.retain(effect),
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
