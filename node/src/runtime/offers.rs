//! Carrying out what the engine decides about offered releases: room on disk, signing, tidying up.
//!
//! Signing waits until the engine has heard of everything that was signed before it: two sets made
//! from one would be two truths of one version.

use std::collections::VecDeque;
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::offer::Offer;
use updraft_protocol::peer::PeerId;

use super::Runtime;
use super::open::{Opened, wall_clock};
use super::publish::altered;
use super::worker::Job;
use crate::engine::catalog::CatalogView;
use crate::engine::effect::{Event, EventKind};
use crate::engine::input::Input;
use crate::engine::offers::rule::OfferError;
use crate::engine::offers::{OfferEffect, OfferInput, Signing};
use crate::engine::watch::Signing as Readiness;
use crate::publisher::keys::is_online;
use crate::publisher::pushed::{self, PushError};

/// Bytes that an offered artifact leaves free: a seed that cannot write cannot sign.
const LEAVE_FREE_BYTES: u64 = 256 * 1024 * 1024;

/// Something to do on disk for an offer.
#[derive(Debug)]
pub(super) enum OfferJob {
    Admit { number: u64, artifact: Option<Digest>, length: u64, view: Arc<CatalogView> },
    Discard { artifact: Digest },
    Settle { artifact: Digest },
}

/// Offers whose sets are to be signed, one after the other.
pub(super) type ToSign = VecDeque<(u64, PeerId, Offer, Vec<u8>)>;

/// Does a job; what it found out is for the engine.
pub(super) fn work(opened: &Opened, job: OfferJob) -> Option<Input> {
    match job {
        OfferJob::Admit { number, artifact, length, view } => {
            let result = admit(opened, artifact.as_ref(), length, &view);
            Some(Input::Offer(OfferInput::Admitted { number, result }))
        }
        OfferJob::Discard { artifact } => {
            match opened.store.remove(&artifact) {
                Ok(_) => settle(opened, &artifact),
                // The note stays, so that it is tried again after the next start.
                Err(error) => tracing::warn!(%error, "an artifact that was not published could not be removed"),
            }
            None
        }
        OfferJob::Settle { artifact } => {
            settle(opened, &artifact);
            None
        }
    }
}

fn settle(opened: &Opened, artifact: &Digest) {
    if let Err(error) = opened.state.settle_offered(&opened.repository.0, artifact) {
        tracing::warn!(%error, "the state database refused");
    }
}

fn admit(opened: &Opened, artifact: Option<&Digest>, length: u64, view: &CatalogView) -> Result<(), String> {
    for role in view.trusted.signed_roles().into_iter().filter(is_online) {
        if let Some(signers) = view.trusted.signers(&role)
            && !opened.keys.can_sign(&signers)
        {
            return Err(format!("the seed does not have the {role} key and cannot sign; see `updraft doctor` there"));
        }
    }
    let Some(artifact) = artifact else { return Ok(()) };
    // An artifact that is here, whole or in part, has its space already.
    if opened.store.get(artifact).is_none() {
        let free = opened.store.available_bytes().map_err(|error| error.to_string())?;
        if length.saturating_add(LEAVE_FREE_BYTES) > free {
            return Err(format!(
                "the seed has {free} bytes of disk space left; the artifact takes {length}, and {LEAVE_FREE_BYTES} must stay free"
            ));
        }
        let noted = opened.state.note_offered(&opened.repository.0, artifact, wall_clock());
        noted.map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl Runtime {
    /// Takes up what a crash left of offers.
    pub(super) async fn resume_offers(&mut self) {
        match self.opened.state.offered(&self.opened.repository.0) {
            Ok(artifacts) => {
                let now = self.now();
                let effects = self.engine.remember_offered(artifacts, now);
                self.carry_out(effects).await;
            }
            Err(error) => tracing::warn!(%error, "the state database refused"),
        }
    }

    pub(super) async fn offer_effect(&mut self, effect: OfferEffect) {
        let job = match effect {
            OfferEffect::Admit { number, artifact, length } => {
                let Some(view) = self.engine.catalog().cloned() else { return };
                OfferJob::Admit { number, artifact, length, view }
            }
            OfferEffect::Sign { number, peer, offer, file } => {
                self.to_sign.push_back((number, peer, offer, file));
                return;
            }
            OfferEffect::Discard { artifact } => OfferJob::Discard { artifact },
            OfferEffect::Settle { artifact } => OfferJob::Settle { artifact },
        };
        self.file_job(Job::Offer(job)).await;
    }

    /// Signs what was offered; it is on disk and in force before whoever offered it hears of it.
    pub(super) async fn sign_offered(&mut self) {
        let now = self.now();
        while let Some((number, peer, offer, file)) = self.to_sign.pop_front() {
            match self.engine.signing(now) {
                Readiness::Ready => {}
                Readiness::Waiting(_) => {
                    self.to_sign.push_front((number, peer, offer, file));
                    return;
                }
                Readiness::Refused(reason) => {
                    self.input(Input::Offer(OfferInput::Signed { number, outcome: Signing::Failed(reason) })).await;
                    continue;
                }
            }
            let outcome = self.sign_one(&peer, offer, file).await;
            self.input(Input::Offer(OfferInput::Signed { number, outcome })).await;
        }
    }

    async fn sign_one(&mut self, peer: &PeerId, offer: Offer, file: Vec<u8>) -> Signing {
        let Some(view) = self.engine.catalog().cloned() else {
            return Signing::Failed("the seed has no verified repository".to_owned());
        };
        let (keys, now, wish) = (self.opened.keys.clone(), wall_clock(), offer.clone());
        let taken = tokio::task::spawn_blocking(move || pushed::take(&wish, &file, &view, &keys, now)).await;
        let (signed, judged) = match taken.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(taken) => taken,
            Err(PushError::Rule(OfferError::NotNext { .. })) => return Signing::Overtaken,
            Err(cause) => return Signing::Failed(format!("the seed could not sign it: {cause}")),
        };
        let changed = match (&judged.release, self.opened.state.memory(&self.opened.repository.0)) {
            (Some(release), Ok(memory)) => altered(release, &memory).map(|body| body.message),
            (_, Err(cause)) => Some(cause.to_string()),
            (None, Ok(_)) => None,
        };
        if let Some(reason) = changed {
            return Signing::Failed(reason);
        }
        if let Err(cause) = self.keep(&signed).await {
            return Signing::Failed(format!("the seed could not save what it signed: {cause}"));
        }
        let version = signed.trusted.timestamp().map(|timestamp| timestamp.version);
        self.input(Input::Published { head: signed.head, files: signed.files }).await;
        if self.engine.catalog().map(|view| view.timestamp_version()) != version {
            return Signing::Failed("the new head was not accepted by the seed itself".to_owned());
        }
        let (product, version, text) = match (&judged.release, &offer.release) {
            (Some(release), Some(wish)) => (
                Some(release.id.product.clone()),
                Some(release.id.version.clone()),
                format!("published {} on {}, signed and pushed by {peer}", release.id, wish.channel),
            ),
            _ => (None, None, format!("{} was renewed, signed and pushed by {peer}", offer.role)),
        };
        self.tell(Event { kind: EventKind::Published, product, version, peer: Some(peer.clone()), text }).await;
        Signing::Done
    }
}
