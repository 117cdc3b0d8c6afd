//! Puts a fetched artifact where an operator asked for it. One that turns out not to be whole any more is
//! checked, and whoever waits for it goes on waiting while it is fetched again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::{Digest, Hasher};
use updraft_protocol::release::Release;

use super::Runtime;
use super::worker::Job;
use crate::atomic;
use crate::config::Role;
use crate::control::messages::{ErrorBody, ErrorCode, Phase, Progress};
use crate::control::reply::ReplySender;
use crate::engine::effect::{Event, EventKind};
use crate::engine::input::Input;
use crate::store::{Artifact, StoreError};

/// Times that one delivery puts right what somebody else spoils.
const MAX_TRIES: u32 = 3;

/// Deliveries that could not be made, for the event loop. At most as many as operators wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Damaged(Arc<Mutex<Vec<Undelivered>>>);

/// A delivery of an artifact of which pieces are missing.
#[derive(Debug)]
struct Undelivered {
    release: Arc<Release>,
    /// What is left.
    have: Bitmap,
    /// Who waits, and where it is to be put.
    waits: Option<(Option<PathBuf>, ReplySender)>,
}

/// How a try ended.
#[derive(Debug, PartialEq, Eq)]
enum Try {
    Done,
    /// The bytes in the store are not the artifact's.
    Wrong,
}

/// Where artifacts are delivered from, and how.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) release: Arc<Release>,
    pub(super) output: Option<PathBuf>,
    /// What a seed publishes may be nowhere else: nobody gets a name of its own files.
    pub(super) role: Role,
    pub(super) damaged: Damaged,
}

impl Delivery {
    /// Delivers; answers by `end`, unless whoever waits has to wait on.
    pub(super) fn work(
        self,
        artifact: &Artifact,
        reply: ReplySender,
        end: impl FnOnce(&ReplySender, Result<PathBuf, ErrorBody>),
    ) {
        let Some(output) = self.output.clone() else { return end(&reply, Ok(artifact.path().to_owned())) };
        for _ in 0..MAX_TRIES {
            match deliver(artifact, self.role == Role::Peer, &output, &reply) {
                Ok(Try::Done) => return end(&reply, Ok(output)),
                Ok(Try::Wrong) => {}
                Err(body) => return end(&reply, Err(body)),
            }
            // What was changed outside the store may be put right from what is left of it.
            if let Err(error) = artifact.verify(&mut |_, _| {}) {
                tracing::error!(%error, "an artifact could not be checked");
            }
            if artifact.is_complete() {
                continue;
            }
            let have = artifact.have();
            let waits = if self.role == Role::Peer {
                Some((self.output, reply))
            } else {
                end(&reply, Err(damaged()));
                None
            };
            return self.damaged.add(Undelivered { release: self.release, have, waits });
        }
        end(&reply, Err(damaged()));
    }
}

impl Damaged {
    fn add(&self, undelivered: Undelivered) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(undelivered);
    }

    fn take(&self) -> Vec<Undelivered> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Runtime {
    /// Has artifacts mended that deliveries and the HTTP face found changed.
    pub(super) async fn mend(&mut self) {
        for artifact in self.face.take_suspects() {
            self.file_job(Job::Check(artifact)).await;
        }
        for Undelivered { release, have, waits } in self.damaged.take() {
            let lost = have.count() - have.ones();
            let text = format!("{lost} pieces were damaged or changed on disk: they are fetched again");
            let (product, version) = (Some(release.id.product.clone()), Some(release.id.version.clone()));
            self.tell(Event { kind: EventKind::Alarm, product, version, peer: None, text }).await;
            self.input(Input::ArtifactChecked { artifact: release.artifact, have }).await;
            if let Some((output, reply)) = waits {
                self.want(release, output, reply).await;
            } else {
                let now = self.now();
                let effects = self.engine.request(&release, now);
                self.carry_out(effects).await;
            }
        }
    }
}

fn damaged() -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::VerificationFailed, "the artifact in the store is damaged");
    body.with_hint("check the disk, and fetch it again: what is damaged comes from peers that have it")
}

/// Puts a complete artifact at `output`: as another name of the stored file where that can be, else as a
/// copy that is hashed once more.
fn deliver(artifact: &Artifact, may_lend: bool, output: &Path, reply: &ReplySender) -> Result<Try, ErrorBody> {
    let lent = may_lend && artifact.is_proven();
    match lent.then(|| artifact.lend(output)) {
        Some(Ok(true)) => Ok(Try::Done),
        Some(Err(StoreError::Changed { .. })) => Ok(Try::Wrong),
        // A copy may still be had.
        Some(Ok(false) | Err(_)) | None => write_out(artifact.path(), artifact.manifest().artifact(), output, reply),
    }
}

fn write_out(data: &Path, sha256: &Digest, output: &Path, reply: &ReplySender) -> Result<Try, ErrorBody> {
    let failed =
        |cause: io::Error| ErrorBody::new(ErrorCode::Error, format!("cannot write {}: {cause}", output.display()));
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    let mut temp = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut source = fs::File::open(data).map_err(failed)?;
    let total = source.metadata().map_err(failed)?.len();
    let (mut hasher, mut buffer, mut done) = (Hasher::new(), vec![0; 1 << 20], 0_u64);
    loop {
        let count = io::Read::read(&mut source, &mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        io::Write::write_all(&mut temp, &buffer[..count]).map_err(failed)?;
        done += count as u64;
        reply.progress(Progress::local(Phase::Writing, done, Some(total)));
    }
    if hasher.finish() != *sha256 {
        return Ok(Try::Wrong);
    }
    temp.as_file().sync_all().map_err(failed)?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(temp.path(), permissions).map_err(failed)?;
    temp.persist(output).map_err(|cause| failed(cause.error))?;
    atomic::sync_dir(directory).map_err(failed)?;
    Ok(Try::Done)
}
