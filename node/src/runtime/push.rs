//! Pushing a release to the seed: pack, sign with the publisher's key, offer, serve until it is out.
//!
//! ```text
//! Connecting ─▶ Packing ─▶ Signing ─▶ Offering ─▶ published
//!      ▲                                  │ another version came first
//!      └──────────────────────────────────┘
//! ```
//!
//! Whoever asked may go away at any moment; what was packed stays in the store, and the same push made
//! again goes on with it. Nothing here believes that a release is out until the verified set has it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::names::{Channel, Platform};
use updraft_protocol::offer::OfferStage;
use updraft_protocol::tuf::RoleName;

use super::Runtime;
use super::open::wall_clock;
use super::publish::{publication, published};
use crate::config::Role;
use crate::control::messages::{ErrorBody, ErrorCode, Phase, Progress, PublishRequest, PushRequest, Response};
use crate::control::reply::ReplySender;
use crate::control::results::RenewView;
use crate::control::views::Schema;
use crate::engine::catalog::CatalogView;
use crate::engine::offers::rule::{self, OfferError};
use crate::engine::offers::{Offered, Readiness, Standing};
use crate::publisher::push_keys::PushKeys;
use crate::publisher::pushed::{self, PushError};
use crate::publisher::{self, Prepared, PublishError};

/// How long a seed may be out of reach, or silent. A seed that restarts is back within it.
const SILENCE_MS: u64 = 60_000;
/// How long a newer set is waited for that a seed says it has.
const BEHIND: Duration = Duration::from_secs(5);
/// Times that a push signs again because somebody else's came first.
const MAX_ATTEMPTS: u32 = 8;

const TICKET_HINT: &str = "is the seed running, and does the ticket name an address that this machine can reach? `updraft ticket --address MULTIADDR` at the seed prints one";

/// A push under way.
#[derive(Debug)]
pub(super) struct Push {
    request: PushRequest,
    keys: PushKeys,
    reply: Arc<ReplySender>,
    stage: Stage,
    since: Instant,
    attempts: u32,
    prepared: Option<Prepared>,
}

#[derive(Debug)]
enum Stage {
    /// Until a seed is there and this node knows what the seed knows.
    Connecting,
    /// On the blocking pool.
    Packing(JoinHandle<Result<Packed, PublishError>>),
    /// On the blocking pool.
    Signing(JoinHandle<Result<Offered, PushError>>),
    /// With the seed.
    Offering,
}

impl Stage {
    fn phase(&self) -> Phase {
        match self {
            Self::Connecting => Phase::Connecting,
            Self::Packing(_) => Phase::Packing,
            Self::Signing(_) => Phase::Signing,
            Self::Offering => Phase::Offering,
        }
    }
}

#[derive(Debug)]
enum Packed {
    New(Prepared),
    /// It is published already, the very same.
    Same(Prepared),
}

fn error(message: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Error, message.to_string())
}

fn push_error(cause: &PushError, keys: &PushKeys) -> ErrorBody {
    let body = error(cause);
    match cause {
        PushError::Keys(_) => body.with_hint(format!(
            "keys were looked for in {}; name the publisher's key with --key FILE or --keys DIR",
            keys.place().display()
        )),
        PushError::Rule(OfferError::Exists { .. }) => {
            body.with_hint("releases are never replaced; choose a higher version")
        }
        PushError::Rule(OfferError::MovesBack { .. }) => {
            body.with_hint("choose a higher version, or another --channel")
        }
        PushError::Rule(OfferError::NotDelegated(_)) => {
            body.with_hint("`updraft status` at the seed shows which products there are")
        }
        _ => body,
    }
}

fn no_seed(readiness: Readiness) -> ErrorBody {
    let body = match (readiness.peers, readiness.seeds) {
        (0, _) => error("no peer could be reached at the ticket's addresses"),
        (peers, 0) => {
            error(format!("{peers} peer(s) can be reached, and none of them is the seed, which alone can publish"))
        }
        (_, seeds) => error(format!(
            "{seeds} seed(s) can be reached, but the repository's metadata could not be completed from them"
        )),
    };
    body.with_hint(TICKET_HINT)
}

/// Whether a finished task's result can be taken without waiting; a panic goes on here.
async fn finished<T>(task: &mut JoinHandle<T>) -> Option<T> {
    if !task.is_finished() {
        return None;
    }
    Some(task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
}

/// What comes of looking at a push.
enum Look {
    /// Nothing to say that is not being said.
    Still,
    Wait(Progress),
    Next(Stage),
    Done(Result<Response, ErrorBody>),
}

impl Runtime {
    /// Begins a push; one at a time.
    pub(super) fn push(&mut self, request: PushRequest, reply: ReplySender) {
        if self.config.role == Role::Seed {
            let body = error("this node is the seed itself");
            return reply.finish(Err(body.with_hint("publish here without --join, --key and --keys")));
        }
        if self.push.as_ref().is_some_and(|push| !push.reply.is_closed()) {
            let body = error("another push is under way at this node");
            return reply.finish(Err(body.with_hint("wait for it, or push from another --data-dir")));
        }
        let keys = match self.push_unlock.get() {
            Some(unlock) => PushKeys::at(&request.keys).map(|keys| keys.with_unlock(unlock.clone())),
            None => PushKeys::at(&request.keys),
        };
        match keys {
            Ok(keys) => {
                let (stage, since) = (Stage::Connecting, Instant::now());
                let reply = Arc::new(reply);
                self.push = Some(Push { request, keys, reply, stage, since, attempts: 0, prepared: None });
            }
            Err(cause) => reply.finish(Err(error(cause).with_hint("name a file NAME.pem, or a directory of such"))),
        }
    }

    /// Looks how far the push is.
    pub(super) async fn poll_push(&mut self) {
        let Some(mut push) = self.push.take() else { return };
        if push.reply.is_closed() {
            self.engine.stop_offering();
            return;
        }
        match self.look_at_push(&mut push).await {
            Look::Still => {}
            Look::Wait(progress) => push.reply.progress(progress),
            Look::Next(stage) => {
                push.reply.progress(Progress::local(stage.phase(), 0, None));
                (push.stage, push.since) = (stage, Instant::now());
            }
            Look::Done(end) => {
                self.engine.stop_offering();
                if end.is_ok() {
                    self.forget_pushed(&push).await;
                }
                return push.reply.finish(end);
            }
        }
        self.push = Some(push);
    }

    /// The seed has it now; a node that does not follow the product has no more use for it.
    async fn forget_pushed(&mut self, push: &Push) {
        let follows = self.engine.subscriptions().iter().any(|s| s.spec.product == push.request.product);
        if let Some(prepared) = push.prepared.as_ref().filter(|prepared| !follows && !prepared.was_held) {
            let effects = self.engine.drop_pushed(prepared.release.artifact);
            self.carry_out(effects).await;
        }
    }

    async fn look_at_push(&mut self, push: &mut Push) -> Look {
        match &mut push.stage {
            Stage::Connecting => self.connect(push),
            Stage::Packing(task) => match finished(task).await {
                Some(packed) => self.packed(packed, push).await,
                None => Look::Still,
            },
            Stage::Signing(task) => match finished(task).await {
                Some(Ok(offered)) => {
                    let now = self.now();
                    let effects = self.engine.begin_offering(offered, now);
                    self.carry_out(effects).await;
                    Look::Next(Stage::Offering)
                }
                Some(Err(cause)) => Look::Done(Err(push_error(&cause, &push.keys))),
                None => Look::Wait(Progress::local(Phase::Signing, 0, None)),
            },
            Stage::Offering => self.offering(push),
        }
    }

    fn connect(&self, push: &Push) -> Look {
        let readiness = self.engine.readiness();
        // That a seed has something newer is its word alone, and is waited for only so long: the version of
        // the role decides in the end.
        let is_current = !readiness.is_behind || push.since.elapsed() > BEHIND;
        let is_ready = readiness.is_whole && readiness.seeds > 0 && is_current;
        let view = self.engine.catalog().filter(|_| is_ready);
        let Some(view) = view.cloned() else {
            if push.since.elapsed() > Duration::from_millis(SILENCE_MS) {
                return Look::Done(Err(no_seed(readiness)));
            }
            let text = match (readiness.peers, readiness.seeds) {
                (0, _) => "no peer yet".to_owned(),
                (peers, 0) => format!("{peers} peer(s), no seed among them yet"),
                _ => "fetching the repository's metadata".to_owned(),
            };
            return Look::Wait(Progress { text: Some(text), ..Progress::local(Phase::Connecting, 0, None) });
        };
        match (&push.request.publish, &push.prepared) {
            (Some(_), None) => self.pack(push, view),
            // An earlier push of the very same may have been finished without this one.
            (_, Some(prepared)) if is_published(prepared, &view) => {
                Look::Done(Ok(self.done(push, view.timestamp_version())))
            }
            _ => Look::Next(sign(push, view)),
        }
    }

    fn pack(&self, push: &Push, view: Arc<CatalogView>) -> Look {
        let Some(request) = push.request.publish.clone() else { return Look::Next(Stage::Connecting) };
        // The key is asked for at the end; that it is there at all is found out first.
        if view.trusted.signers(&RoleName::releases(&request.product)).is_none() {
            let cause = PushError::Rule(OfferError::NotDelegated(RoleName::releases(&request.product)));
            return Look::Done(Err(push_error(&cause, &push.keys)));
        }
        let (store, dry_run) = (self.opened.store.clone(), request.dry_run);
        let publication = publication(request);
        let same = rule::existing(&view, &publication.id).filter(|release| release.id == publication.id).cloned();
        let reply = push.reply.clone();
        Look::Next(Stage::Packing(tokio::task::spawn_blocking(move || {
            let mut report = |done: &crate::archive::Progress| {
                reply.progress(Progress::local(Phase::Packing, done.bytes_done, Some(done.bytes_total)));
            };
            match same {
                Some(same) => publisher::prepare_again(&publication, &same, &store, &mut report).map(Packed::Same),
                None => publisher::prepare(&publication, &view, &store, dry_run, &mut report).map(Packed::New),
            }
        })))
    }

    async fn packed(&mut self, packed: Result<Packed, PublishError>, push: &mut Push) -> Look {
        let prepared = match packed {
            Ok(Packed::New(prepared)) => prepared,
            Ok(Packed::Same(prepared)) => {
                let version = self.engine.catalog().map(|view| view.timestamp_version());
                let mut view = published(&prepared, version);
                view.warnings.push("it was published before, the very same; nothing was done".to_owned());
                return Look::Done(Ok(Response::Publish(view)));
            }
            Err(cause) => return Look::Done(Err(super::publish::publish_error(&cause))),
        };
        if push.request.publish.as_ref().is_some_and(|request| request.dry_run) {
            return Look::Done(Ok(Response::Publish(published(&prepared, None))));
        }
        self.engine.keep_fresh(&prepared.release.artifact);
        if !self.is_in_store(&prepared.release.artifact).await {
            let body = error("what was packed is not in the store any more");
            return Look::Done(Err(body.with_hint("nothing was offered; run the same command again")));
        }
        let pieces = prepared.manifest.piece_count();
        if !self.engine.add_artifact(&prepared.manifest, Bitmap::full(pieces)) {
            let body = error("this node holds too many artifacts to serve another");
            return Look::Done(Err(body.with_hint("push from another --data-dir")));
        }
        push.prepared = Some(prepared);
        Look::Next(Stage::Connecting)
    }

    fn offering(&mut self, push: &mut Push) -> Look {
        let now = self.now();
        let Some(view) = self.engine.offering(now) else { return Look::Next(Stage::Connecting) };
        let (is_silent, readiness) = (view.silent_ms > SILENCE_MS, self.engine.readiness());
        let uploaded = self.uploaded(push, &view.standing);
        match view.standing {
            Standing::Published { timestamp_version } => Look::Done(Ok(self.done(push, timestamp_version))),
            Standing::Overtaken { version } => {
                push.attempts += 1;
                if push.attempts >= MAX_ATTEMPTS {
                    let body = error(format!(
                        "others published {MAX_ATTEMPTS} times in the meantime; {} is at version {version} now",
                        RoleName::releases(&push.request.product)
                    ));
                    return Look::Done(Err(body.with_hint("run the same command again")));
                }
                tracing::info!(version, "another push came first; signing again on top of it");
                self.engine.stop_offering();
                Look::Next(Stage::Connecting)
            }
            Standing::Refused { reason } => {
                let body = error(format!("the seed refuses it: {reason}"));
                Look::Done(Err(body.with_hint("nothing was published; `updraft events` at the seed shows more")))
            }
            Standing::Waiting { trouble: Some(trouble) } if is_silent && readiness.seeds > 0 => {
                let body = error(format!("the seed does not take it: {trouble}"));
                Look::Done(Err(
                    body.with_hint("nothing was published; update the seed if it is older than this program")
                ))
            }
            Standing::Waiting { .. } | Standing::Taken { .. } if is_silent => Look::Done(Err(no_seed(readiness))),
            Standing::Waiting { trouble } => {
                Look::Wait(Progress { text: trouble, ..Progress::local(Phase::Offering, 0, None) })
            }
            Standing::Taken { stage: OfferStage::Fetching | OfferStage::Checking | OfferStage::Other, .. } => {
                Look::Wait(uploaded.unwrap_or_else(|| Progress::local(Phase::Offering, 0, None)))
            }
            Standing::Taken { stage: OfferStage::Signing, .. } => {
                let text = "the seed's signature".to_owned();
                Look::Wait(Progress { text: Some(text), ..Progress::local(Phase::Waiting, 0, None) })
            }
        }
    }

    /// How much of the artifact has left. The seed's own count comes late: on a slow way its answers queue
    /// behind the artifact. It counts what an earlier push had brought.
    fn uploaded(&self, push: &Push, standing: &Standing) -> Option<Progress> {
        let release = &push.prepared.as_ref()?.release;
        let transfer = self.engine.transfer(&release.artifact)?;
        let at_seed = match standing {
            Standing::Taken { bytes_done, .. } => *bytes_done,
            _ => 0,
        };
        let done = transfer.counts.sent.max(at_seed).min(release.length);
        (done > 0).then(|| Progress::local(Phase::Uploading, done, Some(release.length)))
    }

    fn done(&self, push: &Push, timestamp_version: u64) -> Response {
        if let Some(prepared) = &push.prepared {
            return Response::Publish(published(prepared, Some(timestamp_version)));
        }
        let role = RoleName::releases(&push.request.product);
        let held = self.engine.catalog().and_then(|view| view.trusted.role(&role));
        Response::Renew(RenewView {
            schema: Schema,
            product: push.request.product.clone(),
            role: role.to_string(),
            version: held.map_or(0, |held| held.version),
            expires_at: held.map_or_else(wall_clock, |held| held.expires),
            timestamp_version,
        })
    }
}

/// What to do at a seed that does not have the publisher's key: the command for the machine that does.
pub(super) fn push_command(request: &PublishRequest) -> String {
    let mut command = format!("updraft publish PATH --product {} --version {}", request.product, request.version);
    if request.channel != Channel::stable() {
        let _infallible = write!(command, " --channel {}", request.channel);
    }
    if request.platform != Platform::any() {
        let _infallible = write!(command, " --platform {}", request.platform);
    }
    format!(
        "run this on the machine that has the key: {command} --join TICKET --key FILE   (`updraft ticket` here prints TICKET)"
    )
}

fn is_published(prepared: &Prepared, view: &CatalogView) -> bool {
    let existing = rule::existing(view, &prepared.release.id);
    existing.is_some_and(|existing| {
        existing.artifact == prepared.release.artifact && existing.channels.contains(&prepared.channel)
    })
}

fn sign(push: &Push, view: Arc<CatalogView>) -> Stage {
    let (keys, product) = (push.keys.clone(), push.request.product.clone());
    let release = push.prepared.as_ref().map(|prepared| (prepared.release.clone(), prepared.channel.clone()));
    Stage::Signing(tokio::task::spawn_blocking(move || {
        let release = release.as_ref().map(|(release, channel)| (release, channel));
        pushed::offer(&product, release, &view, &keys, wall_clock())
    }))
}
