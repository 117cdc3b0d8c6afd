//! Publishing at a running seed: what was packed on the blocking pool is signed here, one release at a
//! time, and announced once it is on disk.

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Platform, ReleaseId};
use updraft_protocol::release::Release;

use super::Runtime;
use super::calls::error;
use super::open::wall_clock;
use super::push::push_command;
use super::worker::Job;
use crate::config::Role;
use crate::control::messages::{ErrorBody, ErrorCode, Phase, Progress, PublishRequest, Response};
use crate::control::reply::ReplySender;
use crate::control::results::PublishView;
use crate::control::views::Schema;
use crate::engine::catalog::CatalogView;
use crate::engine::effect::{Event, EventKind};
use crate::engine::input::Input;
use crate::engine::memory::Memory;
use crate::publisher::{self, Publication, PublishError};
use tokio::sync::oneshot;

/// A publication that was packed, on its way to being signed.
#[derive(Debug)]
pub(super) struct Prepared {
    result: Result<publisher::Prepared, PublishError>,
    dry_run: bool,
    pub(super) reply: ReplySender,
}

/// To a publisher whose release was not signed any more.
pub(super) fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::Error, "the node is stopping; nothing was published")
        .with_hint("publish again when it runs")
}

/// A release of this name was signed before, and was another.
pub(crate) fn altered(release: &Release, memory: &Memory) -> Option<ErrorBody> {
    (!memory.permits(&release.path, &release.to_target())).then(|| {
        let text = format!("{} was published before with other contents, and every node remembers", release.id);
        ErrorBody::new(ErrorCode::Error, text).with_hint("releases are never replaced; choose a higher version")
    })
}

pub(super) fn publish_error(cause: &PublishError) -> ErrorBody {
    let body = error(ErrorCode::Error, cause);
    match cause {
        PublishError::Draft(publisher::draft::DraftError::Exists { .. }) => {
            body.with_hint("`updraft releases` lists what exists; releases are never replaced")
        }
        _ => body,
    }
}

impl Runtime {
    pub(super) fn publish(&mut self, request: PublishRequest, reply: ReplySender) {
        if self.config.role != Role::Seed {
            let body = error(ErrorCode::Error, "this node is a peer; only a seed publishes");
            return reply.finish(Err(body.with_hint(
                "run this at the seed, or with its --data-dir; with the publisher's key, push from here: --key FILE",
            )));
        }
        let Some(view) = self.engine.catalog().cloned() else {
            return reply.finish(Err(error(ErrorCode::Error, "the seed has no verified repository")));
        };
        if let Some(body) = self.refuse_to_sign().filter(|_| !request.dry_run) {
            return reply.finish(Err(body));
        }
        if !request.dry_run
            && let Err(cause) = publisher::check_keys(&request.product, &view, &self.opened.keys, wall_clock())
        {
            let elsewhere = matches!(cause, PublishError::Keys(_));
            let body = publish_error(&cause);
            let body = if elsewhere { body.with_hint(push_command(&request)) } else { body };
            return reply.finish(Err(body));
        }
        let (store, done, dry_run) = (self.opened.store.clone(), self.prepared_sender.clone(), request.dry_run);
        let publication = publication(request);
        tokio::task::spawn_blocking(move || {
            let mut report = |progress: &crate::archive::Progress| {
                reply.progress(Progress::local(Phase::Packing, progress.bytes_done, Some(progress.bytes_total)));
            };
            let result = publisher::prepare(&publication, &view, &store, dry_run, &mut report);
            // The node is stopping if nobody takes this; nothing was signed, so nothing was published.
            let _ = done.blocking_send(Prepared { result, dry_run, reply });
        });
    }

    /// Takes what was packed: to be signed now, or as soon as this seed may.
    pub(super) async fn prepared(&mut self, prepared: Prepared) {
        match &prepared.result {
            Ok(done) if prepared.dry_run => {
                let view = published(done, None);
                prepared.reply.finish(Ok(Response::Publish(view)));
            }
            Ok(done) => {
                // It may have been here for long, and of no use until now.
                self.engine.keep_fresh(&done.release.artifact);
                if let Some(prepared) = self.hold_back(prepared) {
                    self.sign(prepared).await;
                }
            }
            Err(cause) => {
                let body = publish_error(cause);
                prepared.reply.finish(Err(body));
            }
        }
    }

    /// Whether an artifact is whole in the store, and stays: removals that were under way have ended.
    pub(super) async fn is_in_store(&mut self, artifact: &Digest) -> bool {
        let (sender, reached) = oneshot::channel();
        self.file_job(Job::Barrier(sender)).await;
        reached.await.is_ok() && self.opened.store.get(artifact).is_some_and(|held| held.is_complete())
    }

    /// Gives up a packed publication: nothing of it stays.
    pub(super) fn withdraw(&self, prepared: Prepared, body: ErrorBody) {
        let Prepared { result, reply, .. } = prepared;
        if let Ok(done) = result
            && !done.was_held
            && let Err(cause) = self.opened.store.remove(&done.release.artifact)
        {
            tracing::warn!(%cause, "the artifact of a failed publication could not be removed");
        }
        reply.finish(Err(body));
    }

    /// Signs what was packed and lets the engine announce it.
    pub(super) async fn sign(&mut self, prepared: Prepared) {
        let body = prepared.result.as_ref().ok().and_then(|done| altered(&done.release, self.engine.memory()));
        if let Some(body) = body {
            return self.withdraw(prepared, body);
        }
        let Prepared { result, reply, .. } = prepared;
        let prepared = match result {
            Ok(prepared) => prepared,
            Err(cause) => return reply.finish(Err(publish_error(&cause))),
        };
        if !self.is_in_store(&prepared.release.artifact).await {
            let body = error(ErrorCode::Error, "what was packed is not in the store any more");
            return reply.finish(Err(body.with_hint("nothing was signed; publish again")));
        }
        reply.progress(Progress::local(Phase::Signing, 0, None));
        let Some(view) = self.engine.catalog().cloned() else {
            return reply.finish(Err(error(ErrorCode::Error, "the seed has no verified repository")));
        };
        let (opened, moved) = (self.opened.clone(), prepared.clone());
        let signing =
            tokio::task::spawn_blocking(move || publisher::sign(&moved, &view, &opened.keys, wall_clock())).await;
        let signed = match signing.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(signed) => signed,
            Err(cause) => {
                if !prepared.was_held
                    && let Err(cause) = self.opened.store.remove(&prepared.release.artifact)
                {
                    tracing::warn!(%cause, "the artifact of a failed publication could not be removed");
                }
                return reply.finish(Err(publish_error(&cause)));
            }
        };
        if let Err(cause) = self.keep(&signed).await {
            let body = error(ErrorCode::Error, format!("the signed metadata could not be saved: {cause}"));
            return reply.finish(Err(body.with_hint("nothing was announced; free some space and publish again")));
        }
        let version = signed.trusted.timestamp().map(|timestamp| timestamp.version);
        let pieces = prepared.manifest.piece_count();
        if !self.engine.add_artifact(&prepared.manifest, Bitmap::full(pieces)) {
            tracing::warn!("this seed holds more artifacts than it can serve");
        }
        self.input(Input::Published { head: signed.head, files: signed.files }).await;
        if self.engine.catalog().map(|view| view.timestamp_version()) != version {
            let body = error(ErrorCode::Error, "the new head was not accepted by this seed itself");
            return reply.finish(Err(body.with_hint("updraft events shows why")));
        }
        let id = &prepared.release.id;
        self.tell(Event {
            kind: EventKind::Published,
            product: Some(id.product.clone()),
            version: Some(id.version.clone()),
            peer: None,
            text: format!("published {id} on {}", prepared.channel),
        })
        .await;
        let mut answer = published(&prepared, version);
        answer.warnings.extend(self.engine.catalog().and_then(|view| paused(&prepared, view)));
        reply.finish(Ok(Response::Publish(answer)));
    }
}

/// A publication as the publisher takes it.
pub(crate) fn publication(request: PublishRequest) -> Publication {
    Publication {
        path: request.path,
        id: ReleaseId { product: request.product, version: request.version, platform: request.platform },
        channel: request.channel,
        also_on: request.also_on,
        rollout: request.rollout,
        min_from: request.min_from,
        notes: request.notes,
        critical: request.critical,
        level: request.level,
    }
}

/// What was published, for the publisher.
pub(crate) fn published(prepared: &publisher::Prepared, timestamp_version: Option<u64>) -> PublishView {
    let release = &prepared.release;
    let mut warnings = Vec::new();
    if release.id.platform == Platform::any() && release.content.entries > 1 {
        warnings.push(
            "it is offered to every platform; say --platform linux-x86_64 (for example) if it is not for all"
                .to_owned(),
        );
    }
    PublishView {
        schema: Schema,
        product: release.id.product.clone(),
        version: release.id.version.to_string(),
        platform: release.id.platform.clone(),
        channel: prepared.channel.clone(),
        target: release.path.clone(),
        format: release.format.as_str().to_owned(),
        sha256: release.artifact,
        size_bytes: release.length,
        content_bytes: release.content.length,
        entries: release.content.entries,
        pieces: prepared.manifest.piece_count(),
        dry_run: timestamp_version.is_none(),
        timestamp_version,
        warnings,
    }
}

/// That nobody will install what was published, where its channel is paused.
pub(crate) fn paused(prepared: &publisher::Prepared, view: &CatalogView) -> Option<String> {
    let (product, channel) = (&prepared.release.id.product, &prepared.channel);
    let policy = view.channels.get(&(product.clone(), channel.clone())).filter(|policy| policy.paused)?;
    let why = policy.pause_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    Some(format!(
        "channel '{channel}' is paused{why}: nobody installs it before `updraft channel resume {product}:{channel}`"
    ))
}
