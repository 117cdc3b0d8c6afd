//! Serving the control socket: what can be answered at once, and what somebody waits for.
//!
//! Waiters are kept here, outside the engine: it does not know who asked, and whoever asked may have
//! gone away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::Version;
use updraft_protocol::names::Product;
use updraft_protocol::release::Release;

use super::delivery::Delivery;
use super::installs::Step;
use super::{Runtime, journal, traffic, trust, views};
use crate::config::Role;
use crate::control::Call;
use crate::control::messages::{ErrorBody, ErrorCode, MAX_REASON_BYTES, Phase, Progress, Request, Response};
use crate::control::reply::ReplySender;
use crate::control::results::{FetchView, HoldRow, HoldView, InstallView};
use crate::control::views::{HistoryRow, HistoryView, Schema, StatusView};
use crate::engine::effect::{Effect, EventKind};
use crate::engine::install::{InstallState, Refusal, Subscription};
use crate::engine::plan::Verdict;

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Pending {
    reply: ReplySender,
    wish: Wish,
}

#[derive(Debug)]
enum Wish {
    Fetch { release: Arc<Release>, output: Option<PathBuf> },
    Install { product: Product, from: Option<String>, since: u64 },
    RollBack { product: Product, from: Option<String>, since: u64 },
}

impl Pending {
    pub(super) fn node_stops(self) {
        let body = ErrorBody::new(ErrorCode::Error, "the node is stopping");
        self.reply.finish(Err(body.with_hint("what was begun goes on when the node runs again")));
    }
}

/// An operator's request that makes no sense now.
fn refused(refusal: &Refusal) -> ErrorBody {
    let code = match refusal {
        Refusal::RunsAlready { .. } => ErrorCode::NothingToDo,
        _ => ErrorCode::Error,
    };
    error(code, refusal)
}

pub(super) fn error(code: ErrorCode, message: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(code, message.to_string())
}

impl Runtime {
    pub(super) async fn call(&mut self, call: Call) {
        let Call { request, reply } = call;
        match request {
            Request::Status { explain } => reply.finish(Ok(Response::Status(Box::new(self.status(explain))))),
            Request::Unban { peer } => self.lift_ban(&peer, reply).await,
            Request::TrustClock {} => self.trust_clock(reply).await,
            Request::Peers {} => reply.finish(Ok(Response::Peers(views::peers(&self.engine, self.now())))),
            Request::Releases { product } => {
                let view = views::releases(&self.engine, product.as_ref(), self.now());
                reply.finish(Ok(Response::Releases(view)));
            }
            Request::History { product, limit } => reply.finish(self.history(product.as_ref(), limit)),
            Request::Events { follow, since } => {
                if let Some(reply) = self.events.replay(reply, follow, since) {
                    reply.finish(Ok(Response::Done {}));
                }
            }
            Request::Ticket { addresses } => reply.finish(self.ticket_view(&addresses)),
            Request::Fetch { product, version, output } => self.fetch(product, version, output, reply).await,
            Request::Install { product, version, now } => self.install(product, version, now, reply).await,
            Request::Rollback { product, to, hold } => self.roll_back(product, to, hold, reply).await,
            Request::Hold { product, version, reason } => self.hold(product, version, Some(reason), reply).await,
            Request::Unhold { product, version } => self.hold(product, version, None, reply).await,
            Request::Gc { dry_run } => self.collect_garbage(dry_run, reply).await,
            Request::Publish(request) => self.publish(request, reply),
            Request::Apply { path } => self.apply(path, reply).await,
            Request::Push(request) => self.push(request, reply),
            Request::Channels { product, channel } => {
                reply.finish(self.channels(product.as_ref(), channel.as_ref()));
            }
            Request::ChangeChannel(request) => self.change_channel(*request, reply).await,
            Request::Fleet { limit } => reply.finish(self.fleet(limit)),
        }
        self.poll_pending();
    }

    pub(super) fn status(&self, explain: bool) -> StatusView {
        let now = self.now();
        let fingerprint = self.ticket(&[]).map(|ticket| ticket.fingerprint()).unwrap_or_default();
        StatusView {
            schema: Schema,
            role: self.config.role,
            peer_id: self.peer_id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: now.mono_ms,
            listen: self.listening.borrow().clone(),
            http: self.http.map(|address| address.to_string()),
            connected_peers: self.engine.connected_peers() as u64,
            repositories: vec![views::repository(&self.engine, fingerprint, now)],
            subscriptions: self
                .engine
                .subscriptions()
                .iter()
                .map(|subscription| views::subscription(&self.engine, subscription, explain))
                .collect(),
            transfer: traffic::totals(&self.engine, &self.counters),
            warnings: self.warnings(),
            clock: Some(trust::clock(&self.engine, now)),
            signing: self.signing_view(),
            limits: traffic::limits(&self.engine, now),
            artifacts: traffic::artifacts(&self.engine),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.opened.store.warnings().iter().map(ToString::to_string).collect();
        warnings.extend(trust::warnings(&self.engine, self.now()));
        warnings.extend(self.trouble.get().or_else(|| self.installs.trouble()));
        if let Some(view) = self.engine.catalog().filter(|_| self.config.role == Role::Seed) {
            warnings.extend(self.pauses());
            warnings.extend(super::ceremony::key_warnings(&self.opened.keys, &view.trusted));
        }
        warnings
    }

    fn history(&self, product: Option<&Product>, limit: u32) -> Result<Response, ErrorBody> {
        let entries = self.opened.state.history(limit, product).map_err(|cause| error(ErrorCode::Error, cause))?;
        let entries = entries
            .into_iter()
            .map(|entry| HistoryRow {
                at: entry.row.at,
                kind: entry.row.kind,
                product: entry.row.product,
                version: entry.row.version.map(|version| version.to_string()),
                text: entry.row.detail,
            })
            .collect();
        Ok(Response::History(HistoryView { schema: Schema, entries }))
    }

    // ---- fetch ------------------------------------------------------------------------------

    /// The release of `version`, or the one that the node's platform would be offered.
    fn find_release(&self, product: &Product, version: Option<&Version>) -> Result<Arc<Release>, ErrorBody> {
        let view = self.engine.catalog().ok_or_else(|| {
            error(ErrorCode::Error, "this node has not verified its repository yet")
                .with_hint("updraft status tells what it waits for")
        })?;
        let pointed = |channel: &str| {
            let channel = channel.parse().ok()?;
            view.channels.get(&(product.clone(), channel))?.version.clone()
        };
        let followed = self.engine.subscriptions().iter().find(|s| s.spec.product == *product);
        let version = match version {
            Some(version) => Some(version.clone()),
            None => followed.and_then(|s| pointed(s.spec.channel.as_str())).or_else(|| pointed("stable")),
        };
        let found = version.as_ref().and_then(|version| {
            let platform = self.engine.platform();
            view.release(product, version, platform)
                .or_else(|| view.releases.iter().find(|r| r.id.product == *product && r.id.version == *version))
        });
        found.cloned().ok_or_else(|| {
            let wanted = version.map_or_else(|| product.to_string(), |version| format!("{product} {version}"));
            error(ErrorCode::Error, format!("no release of {wanted} is known here"))
                .with_hint(format!("updraft releases {product} lists what is"))
        })
    }

    async fn fetch(&mut self, product: Product, version: Option<Version>, output: Option<PathBuf>, reply: ReplySender) {
        let release = match self.find_release(&product, version.as_ref()) {
            Ok(release) => release,
            Err(body) => return reply.finish(Err(body)),
        };
        self.want(release, output, reply).await;
    }

    /// Fetches a release for somebody who waits for it.
    pub(super) async fn want(&mut self, release: Arc<Release>, output: Option<PathBuf>, reply: ReplySender) {
        let now = self.now();
        let effects = self.engine.request(&release, now);
        self.carry_out(effects).await;
        self.pending.push(Pending { reply, wish: Wish::Fetch { release, output } });
    }

    // ---- install and rollback ---------------------------------------------------------------

    fn installed(&self, product: &Product) -> Option<String> {
        let mut subscriptions = self.engine.subscriptions().iter();
        let found = subscriptions.find(|s| s.spec.product == *product && s.spec.directory.is_some())?;
        found.installed.as_ref().map(|installed| installed.version.to_string())
    }

    async fn install(&mut self, product: Product, version: Option<Version>, hurry: bool, reply: ReplySender) {
        let (from, since) = (self.installed(&product), self.ended(&product));
        let now = self.now();
        let effects = match self.engine.retry(&product, version.as_ref(), hurry, now) {
            Ok(effects) => effects,
            Err(refusal) => return reply.finish(Err(refused(&refusal))),
        };
        let of_product = self.engine.subscriptions().iter().filter(|s| s.spec.product == product);
        let directories: Vec<String> = of_product.filter_map(|s| s.spec.directory.clone()).collect();
        for directory in directories {
            self.install_step(&directory, Step::LiftQuarantine).await;
        }
        self.carry_out(effects).await;
        self.pending.push(Pending { reply, wish: Wish::Install { product, from, since } });
    }

    /// How many attempts have ended, of the subscription that is waited for.
    fn ended(&self, product: &Product) -> u64 {
        let found =
            self.engine.subscriptions().iter().find(|s| s.spec.product == *product && s.spec.directory.is_some());
        found.and_then(|subscription| subscription.ended.as_ref()).map_or(0, |end| end.number)
    }

    async fn roll_back(&mut self, product: Product, to: Option<Version>, hold: bool, reply: ReplySender) {
        let (from, since, now) = (self.installed(&product), self.ended(&product), self.now());
        let state = self.opened.state.clone();
        let kept = move |directory: &str| {
            journal::kept(&state, Path::new(directory)).unwrap_or_else(|cause| {
                tracing::error!(%cause, "the state database refused");
                Vec::new()
            })
        };
        match self.engine.roll_back(&product, to.as_ref(), hold, &kept, now) {
            Ok(effects) => {
                self.carry_out(effects).await;
                self.pending.push(Pending { reply, wish: Wish::RollBack { product, from, since } });
            }
            Err(refusal) => reply.finish(Err(refused(&refusal))),
        }
    }

    /// Holds a version or everything, for a reason; lifts holds without one.
    async fn hold(&mut self, product: Product, version: Option<Version>, reason: Option<String>, reply: ReplySender) {
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
            let body = error(ErrorCode::Usage, format!("the reason is longer than {MAX_REASON_BYTES} bytes"));
            return reply.finish(Err(body.with_hint("say it shorter")));
        }
        let now = self.now();
        let effects = match &reason {
            Some(reason) => self.engine.hold(&product, version.as_ref(), reason, now),
            None => self.engine.unhold(&product, version.as_ref(), now),
        };
        let effects = match effects {
            Ok(effects) => effects,
            Err(refusal) => return reply.finish(Err(refused(&refusal))),
        };
        if effects.is_empty() {
            let what = version.map_or_else(|| product.to_string(), |version| format!("{product} {version}"));
            let how = if reason.is_some() { "is held already, for that reason" } else { "is not held" };
            return reply.finish(Err(error(ErrorCode::NothingToDo, format!("{what} {how}"))));
        }
        let mut holds = Vec::new();
        for effect in effects {
            match effect {
                Effect::Hold(hold) => holds.push(self.write_hold(hold).await),
                other => self.carry_out(vec![other]).await,
            }
        }
        let view = self.hold_view(product);
        tokio::spawn(async move {
            // Whoever is told that it holds may pull the plug.
            for written in holds {
                let Ok(written) = written.await else {
                    let body = error(ErrorCode::Error, "the disk worker has ended; the node must be restarted");
                    return reply.finish(Err(body));
                };
                if let Err(reason) = written {
                    let body = error(ErrorCode::Error, format!("it is in force, but not on disk: {reason}"));
                    return reply.finish(Err(body.with_hint(
                        "make room in the data directory: it is written then, by itself; if the node stops before, say it again",
                    )));
                }
            }
            reply.finish(Ok(Response::Hold(view)));
        });
    }

    fn hold_view(&self, product: Product) -> HoldView {
        let installs = self.engine.subscriptions().iter().filter(|s| s.spec.product == product);
        let held =
            installs.filter_map(|s| Some((s.spec.directory.as_ref()?, &s.holds))).flat_map(|(directory, holds)| {
                let everything = holds.everything.iter().map(|reason| (None, reason));
                let versions = holds.versions.iter().map(|(version, reason)| (Some(version.to_string()), reason));
                let row = move |(version, reason): (_, &String)| HoldRow {
                    directory: directory.into(),
                    version,
                    reason: reason.clone(),
                };
                everything.chain(versions).map(row)
            });
        let held = held.collect();
        HoldView { schema: Schema, product, held }
    }

    // ---- those who wait ---------------------------------------------------------------------

    /// Looks whether anybody's wish came true, or cannot.
    pub(super) fn poll_pending(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if pending.reply.is_closed() {
                continue;
            }
            match self.look(&pending.wish) {
                Look::Wait(progress) => {
                    pending.reply.progress(progress);
                    self.pending.push(pending);
                }
                Look::Done(end) => pending.reply.finish(end),
                Look::Deliver(release, output) => self.deliver(release, output, pending.reply),
            }
        }
    }

    fn look(&self, wish: &Wish) -> Look {
        match wish {
            Wish::Fetch { release, output } => {
                if self.engine.holds(&release.artifact) {
                    return Look::Deliver(release.clone(), output.clone());
                }
                Look::Wait(views::fetching(&self.engine, &release.artifact))
            }
            Wish::Install { product, from, since } => self.look_at_install(product, from.as_deref(), *since),
            Wish::RollBack { product, from, since } => {
                let mut subscriptions = self.engine.subscriptions().iter();
                let subscription = subscriptions.find(|s| s.spec.product == *product && s.spec.directory.is_some());
                let Some(subscription) = subscription else {
                    return Look::Wait(Progress::local(Phase::Switching, 0, None));
                };
                let back = subscription.ended.as_ref().filter(|end| end.number > *since);
                if back.is_some_and(|end| end.kind == EventKind::RolledBack)
                    && let (Some(installed), Some(directory)) = (&subscription.installed, &subscription.spec.directory)
                {
                    return Look::Done(Ok(Response::Install(InstallView {
                        schema: Schema,
                        product: product.clone(),
                        directory: directory.into(),
                        from: from.clone(),
                        to: installed.version.to_string(),
                    })));
                }
                if !subscription.is_busy() {
                    return Look::Done(Err(error(ErrorCode::Error, subscription.reason.clone())));
                }
                // Where the place cannot be written it may wait for long: people are told for what.
                let text = Some(subscription.reason.clone());
                Look::Wait(Progress { text, ..Progress::local(Phase::Switching, 0, None) })
            }
        }
    }

    fn look_at_install(&self, product: &Product, from: Option<&str>, since: u64) -> Look {
        let installs = |s: &&Subscription| s.spec.product == *product && s.spec.directory.is_some();
        let subscriptions = self.engine.subscriptions().iter().filter(installs);
        let Some(subscription) = subscriptions.min_by_key(|s| s.state == InstallState::Committed) else {
            return Look::Done(Err(error(ErrorCode::Error, format!("this node does not install {product}"))));
        };
        // One that was just asked for is looked at first.
        if let Some(shortage) = subscription.shortage().filter(|shortage| shortage.until_ms.is_some()) {
            let body = error(ErrorCode::BlockedByPolicy, shortage.reason);
            return Look::Done(Err(
                body.with_hint("it goes on by itself once there is room; updraft status says when it looks")
            ));
        }
        if let Some(release) = subscription.wanted() {
            let mut progress = views::fetching(&self.engine, &release.artifact);
            match subscription.state {
                InstallState::Verified => progress.phase = Phase::Staging,
                InstallState::Staged | InstallState::Armed | InstallState::Switched | InstallState::Probation => {
                    progress = Progress::local(Phase::Switching, 0, None);
                    progress.text = Some(subscription.reason.clone());
                }
                _ => {}
            }
            return Look::Wait(progress);
        }
        if subscription.is_busy() {
            let text = Some(subscription.reason.clone());
            return Look::Wait(Progress { text, ..Progress::local(Phase::Switching, 0, None) });
        }
        let ended = subscription.ended.as_ref().filter(|end| end.number > since);
        if let Some(end) = ended.filter(|end| end.kind != EventKind::Installed) {
            let code = if end.kind == EventKind::RolledBack { ErrorCode::RolledBack } else { ErrorCode::Error };
            return Look::Done(Err(error(code, &end.text).with_hint("updraft events shows what its commands said")));
        }
        let installed = subscription.installed.as_ref().map(|installed| installed.version.to_string());
        if let (Some(to), Some(directory)) = (&installed, &subscription.spec.directory)
            && installed.as_deref() != from
        {
            return Look::Done(Ok(Response::Install(InstallView {
                schema: Schema,
                product: product.clone(),
                directory: directory.into(),
                from: from.map(str::to_owned),
                to: to.clone(),
            })));
        }
        let reason = views::reason(&self.engine, subscription).unwrap_or_default();
        match subscription.decision.as_ref().map(|decision| decision.verdict) {
            Some(Verdict::UpToDate) => {
                let at = installed.map_or_else(String::new, |version| format!(" ({version})"));
                Look::Done(Err(error(ErrorCode::NothingToDo, format!("{product} is up to date{at}"))))
            }
            Some(Verdict::Blocked | Verdict::Nothing) => Look::Done(Err(
                error(ErrorCode::BlockedByPolicy, reason).with_hint("updraft status --explain shows every gate")
            )),
            Some(Verdict::Install) => Look::Done(Err(error(ErrorCode::Error, reason))),
            None => Look::Wait(Progress { text: Some(reason), ..Progress::local(Phase::Waiting, 0, None) }),
        }
    }

    /// Writes a complete artifact where it was asked for.
    fn deliver(&self, release: Arc<Release>, output: Option<PathBuf>, reply: ReplySender) {
        let store = self.opened.store.clone();
        let (role, damaged) = (self.config.role, self.damaged.clone());
        tokio::task::spawn_blocking(move || {
            let Some(artifact) = store.get(&release.artifact) else {
                return reply.finish(Err(error(ErrorCode::Error, "the artifact is not in the store any more")));
            };
            let view = FetchView {
                schema: Schema,
                product: release.id.product.clone(),
                version: release.id.version.to_string(),
                platform: release.id.platform.clone(),
                path: PathBuf::new(),
                sha256: release.artifact,
                size_bytes: release.length,
            };
            Delivery { release, output, role, damaged }.work(&artifact, reply, |reply, end| {
                reply.finish(end.map(|path| Response::Fetch(FetchView { path, ..view })));
            });
        });
    }
}

enum Look {
    Wait(Progress),
    Done(Result<Response, ErrorBody>),
    Deliver(Arc<Release>, Option<PathBuf>),
}
