//! Changes of channels, as a seed makes them: running, or by a command in a stopped one's directory.

use std::path::Path;

use updraft_protocol::names::{Channel, Product};
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;

use super::Runtime;
use super::inspect;
use super::open::{Opened, wall_clock};
use super::outcomes::Told;
use crate::config::Role;
use crate::control::channels::{ChannelChangeView, ChannelRequest, ChannelRow, ChannelsView, OutcomeCounts};
use crate::control::messages::{ErrorBody, ErrorCode, Response};
use crate::control::reply::ReplySender;
use crate::control::views::Schema;
use crate::engine::catalog::CatalogView;
use crate::engine::effect::{Event, EventKind};
use crate::engine::input::Input;
use crate::engine::policy::{self, Changed, Refused};
use crate::publisher;
use crate::publisher::draft::Signed;
use crate::publisher::keys::Keys;

fn error(cause: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Error, cause.to_string())
}

fn refused(cause: &Refused) -> ErrorBody {
    let code = match cause {
        Refused::NothingToDo(_) => ErrorCode::NothingToDo,
        _ => ErrorCode::Error,
    };
    ErrorBody::new(code, cause.to_string())
}

fn row(
    product: &Product,
    channel: &Channel,
    policy: &ChannelPolicy,
    view: &CatalogView,
    outcomes: Option<OutcomeCounts>,
    now: UtcTime,
) -> ChannelRow {
    ChannelRow {
        product: product.clone(),
        channel: channel.clone(),
        version: policy.version.as_ref().map(ToString::to_string),
        since: policy.since,
        paused: policy.paused,
        pause_reason: policy.pause_reason.clone(),
        rollout_percent: policy.rollout.percent_at(now),
        rollout_start: policy.rollout.start,
        rollout_stages: policy.rollout.stages.clone(),
        yanked: policy.yanked.iter().map(ToString::to_string).collect(),
        allow_downgrade_to: policy.allow_downgrade_to.as_ref().map(ToString::to_string),
        max_head_age_s: policy.max_head_age_s,
        halt: policy.halt,
        floor: view.floors.get(product).map(ToString::to_string),
        outcomes,
    }
}

/// What nodes reported of the release that a channel points to.
type Counts<'a> = dyn Fn(&(Product, Channel), &ChannelPolicy) -> Option<OutcomeCounts> + 'a;

/// Every channel, or those that were asked for.
fn rows(
    view: &CatalogView,
    product: Option<&Product>,
    channel: Option<&Channel>,
    counts: &Counts<'_>,
) -> Result<ChannelsView, ErrorBody> {
    let now = wall_clock();
    let wanted = |(of, name): &(Product, Channel)| {
        product.is_none_or(|product| of == product) && channel.is_none_or(|channel| name == channel)
    };
    let channels: Vec<ChannelRow> = view
        .channels
        .iter()
        .filter(|(key, _)| wanted(key))
        .map(|(key, policy)| row(&key.0, &key.1, policy, view, counts(key, policy), now))
        .collect();
    match (product, channels.is_empty()) {
        (Some(product), true) => {
            let name = channel.map(|channel| format!(":{channel}")).unwrap_or_default();
            let body = error(format!("no channel {product}{name} is known here"));
            Err(body.with_hint("`updraft channel show` lists every channel"))
        }
        _ => Ok(ChannelsView { schema: Schema, channels }),
    }
}

/// Every channel that a stopped node's directory knows.
pub fn show_offline(
    data_dir: &Path,
    product: Option<&Product>,
    channel: Option<&Channel>,
) -> Result<ChannelsView, ErrorBody> {
    let found = inspect::repository(data_dir).map_err(error)?;
    rows(&found.view, product, channel, &|_, _| None)
}

/// What a request comes to, and the set in which it has come true, unless that is only asked about.
fn sign(request: &ChannelRequest, view: &CatalogView, keys: &Keys) -> Result<(Changed, Option<Signed>), ErrorBody> {
    let now = wall_clock();
    let (product, channel) = (&request.product, &request.channel);
    let changed = policy::apply(view, product, channel, &request.change, now).map_err(|cause| refused(&cause))?;
    if let Some(floor) = changed.floor.as_ref().filter(|_| !publisher::policy::can_raise_floors(view, keys, now)) {
        let body = error(format!("the security floor of {product} is signed by the targets key, which is not here"));
        return Err(body.with_hint(format!(
            "nothing was signed; make a file for its holders: `updraft targets draft --security-floor {product}={floor} --output FILE`"
        )));
    }
    if request.dry_run {
        return Ok((changed, None));
    }
    let signed = publisher::policy::sign(&changed, product, channel, view, keys, now).map_err(error)?;
    Ok((changed, Some(signed)))
}

fn changed_view(
    request: &ChannelRequest,
    changed: Changed,
    view: &CatalogView,
    signed: Option<&Signed>,
) -> ChannelChangeView {
    let mut channel = row(&request.product, &request.channel, &changed.policy, view, None, wall_clock());
    channel.floor = changed.floor.as_ref().map(ToString::to_string).or(channel.floor);
    ChannelChangeView {
        schema: Schema,
        channel,
        changes: changed.changes,
        warnings: changed.warnings,
        dry_run: signed.is_none(),
        timestamp_version: signed.and_then(|signed| signed.trusted.timestamp().map(|timestamp| timestamp.version)),
    }
}

/// Changes a channel in a stopped seed's directory.
pub fn change_offline(data_dir: &Path, request: &ChannelRequest) -> Result<ChannelChangeView, ErrorBody> {
    let opened = Opened::open_existing(data_dir).map_err(error)?;
    let view = opened.own_view(data_dir).map_err(error)?;
    let now = wall_clock();
    let clock = view.clock.judge(now);
    if !clock.may_sign() && !request.dry_run {
        return Err(ErrorBody::new(ErrorCode::BlockedByPolicy, clock.reason(now)));
    }
    let (changed, signed) = sign(request, &view, &opened.keys)?;
    if let Some(signed) = &signed {
        opened.save(&publisher::in_order(signed)).map_err(error)?;
    }
    let mut done = changed_view(request, changed, &view, signed.as_ref());
    let known = opened.state.known_peers(&opened.repository.0).map_err(error)?.len();
    if known > 0 && signed.is_some() {
        done.warnings.push(format!(
            "{known} known peers were not asked whether they hold a newer head; if this directory was restored from a backup, start the seed and change the channel through it"
        ));
    }
    Ok(done)
}

impl Runtime {
    /// Every channel, or those that were asked for.
    pub(super) fn channels(&self, product: Option<&Product>, channel: Option<&Channel>) -> Result<Response, ErrorBody> {
        let view = self.engine.catalog().ok_or_else(|| {
            error("this node has not verified its repository yet").with_hint("updraft status tells what it waits for")
        })?;
        let now = self.now();
        let counts = |key: &(Product, Channel), policy: &ChannelPolicy| self.outcome_counts(key, policy, now);
        rows(view, product, channel, &counts).map(Response::Channels)
    }

    /// Changes a channel: signs the next set, keeps it, and lets the engine announce it.
    pub(super) async fn change_channel(&mut self, request: ChannelRequest, reply: ReplySender) {
        let end = self.try_change(request, None).await;
        reply.finish(end.map(|view| Response::ChannelChange(Box::new(view))));
    }

    /// The same; `told` says how it is told of where it is not an operator's doing.
    pub(super) async fn try_change(
        &mut self,
        request: ChannelRequest,
        told: Option<Told>,
    ) -> Result<ChannelChangeView, ErrorBody> {
        if self.config.role != Role::Seed {
            let body = error("this node is a peer; only a seed changes channels");
            return Err(body.with_hint("run this at the seed, or with its --data-dir"));
        }
        let Some(view) = self.engine.catalog().cloned() else {
            return Err(error("the seed has no verified repository"));
        };
        if let Some(body) = self.not_ready_to_sign().filter(|_| !request.dry_run) {
            return Err(body);
        }
        let (keys, wish, set) = (self.opened.keys.clone(), request.clone(), view.clone());
        let signing = tokio::task::spawn_blocking(move || sign(&wish, &set, &keys)).await;
        let (changed, signed) = signing.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let done = changed_view(&request, changed, &view, signed.as_ref());
        let Some(signed) = signed else { return Ok(done) };
        if let Err(cause) = self.keep(&signed).await {
            let body = error(format!("the signed metadata could not be saved: {cause}"));
            return Err(body.with_hint("nothing was announced; free some space and try again"));
        }
        self.input(Input::Published { head: signed.head, files: signed.files }).await;
        if self.engine.catalog().map(|view| view.timestamp_version()) != done.timestamp_version {
            let body = error("the new head was not accepted by this seed itself");
            return Err(body.with_hint("updraft events shows why"));
        }
        let (product, channel) = (request.product, request.channel);
        let told = told.unwrap_or(Told { kind: EventKind::ChannelChanged, words: None });
        let words = told.words.map(|words| format!("; one said: {words}")).unwrap_or_default();
        self.tell(Event {
            kind: told.kind,
            version: changed_version(&done),
            peer: None,
            text: format!("{product}:{channel}: {}{words}", done.changes.join("; ")),
            product: Some(product),
        })
        .await;
        Ok(done)
    }
}

fn changed_version(done: &ChannelChangeView) -> Option<semver::Version> {
    done.channel.version.as_ref()?.parse().ok()
}
