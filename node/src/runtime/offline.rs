//! Work on a stopped node's directory: the same steps as in a running node, without a network.

use std::path::Path;

use super::identity;
use super::open::{OpenError, Opened, wall_clock};
use super::publish::{altered, paused, publication, published};
use super::push::push_command;
use crate::archive;
use crate::control::messages::{ErrorBody, ErrorCode, Phase, Progress, PublishRequest};
use crate::control::results::{PublishView, TicketView};
use crate::control::views::Schema;
use crate::publisher;

fn error(cause: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Error, cause.to_string())
}

/// Publishes straight into a stopped seed's directory.
pub fn publish(
    data_dir: &Path,
    request: &PublishRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<PublishView, ErrorBody> {
    let opened = Opened::open_existing(data_dir).map_err(error)?;
    let view = opened.own_view(data_dir).map_err(error)?;
    let mut report = |done: &archive::Progress| {
        progress(Progress::local(Phase::Packing, done.bytes_done, Some(done.bytes_total)));
    };
    if !request.dry_run {
        publisher::check_keys(&request.product, &view, &opened.keys, wall_clock()).map_err(|cause| {
            let elsewhere = matches!(cause, publisher::PublishError::Keys(_));
            let body = error(cause);
            if elsewhere { body.with_hint(push_command(request)) } else { body }
        })?;
    }
    let publication = publication(request.clone());
    let prepared =
        publisher::prepare(&publication, &view, &opened.store, request.dry_run, &mut report).map_err(error)?;
    if request.dry_run {
        return Ok(published(&prepared, None));
    }
    progress(Progress::local(Phase::Signing, 0, None));
    let memory = opened.state.memory(&opened.repository.0).map_err(error)?;
    let now = wall_clock();
    let clock = view.clock.judge(now);
    let refused = altered(&prepared.release, &memory)
        .or_else(|| (!clock.may_sign()).then(|| ErrorBody::new(ErrorCode::BlockedByPolicy, clock.reason(now))));
    if let Some(body) = refused {
        if !prepared.was_held {
            opened.store.remove(&prepared.release.artifact).map_err(error)?;
        }
        return Err(body);
    }
    let signed = publisher::sign(&prepared, &view, &opened.keys, now).map_err(|cause| {
        if !prepared.was_held
            && let Err(cause) = opened.store.remove(&prepared.release.artifact)
        {
            tracing::warn!(%cause, "the artifact of a failed publication could not be removed");
        }
        error(cause)
    })?;
    opened.save(&publisher::in_order(&signed)).map_err(error)?;
    let mut done = published(&prepared, signed.trusted.timestamp().map(|timestamp| timestamp.version));
    done.warnings.extend(paused(&prepared, &view));
    let known = opened.state.known_peers(&opened.repository.0).map_err(error)?.len();
    if known > 0 {
        done.warnings.push(format!(
            "{known} known peers were not asked whether they hold a newer head; if this directory was restored from a backup, start the seed and publish through it"
        ));
    }
    Ok(done)
}

/// The join ticket of a stopped seed's repository.
pub fn ticket(data_dir: &Path, addresses: &[String]) -> Result<TicketView, ErrorBody> {
    let opened = Opened::open_existing(data_dir).map_err(error)?;
    let view = opened.view().map_err(error)?.ok_or_else(|| error(OpenError::NoRepository(data_dir.to_owned())))?;
    let peer = identity::load(data_dir).map_err(error)?.identity.peer_id();
    let addresses = addresses
        .iter()
        .map(|address| if address.contains("/p2p/") { address.clone() } else { format!("{address}/p2p/{peer}") })
        .collect();
    let ticket = opened.ticket_for(&view, addresses);
    Ok(TicketView {
        schema: Schema,
        fingerprint: ticket.fingerprint(),
        repository: ticket.repository.0,
        addresses: ticket.addresses.clone(),
        ticket: ticket.to_string(),
    })
}
