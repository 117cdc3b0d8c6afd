//! A release that is signed on one machine and published by another.
//!
//! The publisher's machine has the product's key and no online one: [`offer`] makes the next version
//! of the product's role. The seed has the online keys and no other: [`take`] makes the set that takes
//! this role as it is. Neither needs to believe the other; both ask the same rule.

use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::offer::{Offer, OfferedRelease};
use updraft_protocol::release::Release;
use updraft_protocol::rollout::{ChannelPolicy, Rollout};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{RoleName, Targets, sign_role};

use super::draft::{Draft, DraftError, KeySource, Signed, TARGETS_DAYS};
use super::keys::KeysError;
use crate::engine::catalog::CatalogView;
use crate::engine::offers::Offered;
use crate::engine::offers::rule::{self, Judged, OfferError};

/// Why nothing can be offered, or what was offered cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It may not be published.
    #[error(transparent)]
    Rule(#[from] OfferError),
    /// The keys that sign it are not here.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The set cannot be signed.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

/// Signs the next version of a product's role: with a release that is new in it, or only to expire
/// later. What comes back has passed the seed's own rule.
pub fn offer(
    product: &Product,
    release: Option<(&Release, &Channel)>,
    view: &CatalogView,
    keys: &dyn KeySource,
    now: UtcTime,
) -> Result<Offered, PushError> {
    let role = RoleName::releases(product);
    let not_delegated = || OfferError::NotDelegated(role.clone());
    let signers = view.trusted.signers(&role).ok_or_else(not_delegated)?;
    let expires = now.plus_days(TARGETS_DAYS);
    let mut next = match view.trusted.role(&role) {
        Some(current) => Targets { version: current.version.saturating_add(1), expires, ..Targets::clone(current) },
        None => Targets::new(1, expires),
    };
    if let Some((release, _)) = release {
        next.targets.insert(release.path.clone(), release.to_target());
    }
    let keys = keys.signers(&role, &signers)?;
    let file = sign_role(&next, &keys.iter().collect::<Vec<_>>());
    let wish =
        release.map(|(release, channel)| OfferedRelease { path: release.path.clone(), channel: channel.clone() });
    let offer =
        Offer { role, version: next.version, sha256: Digest::of(&file), length: file.len() as u64, release: wish };
    let judged = rule::judge(&offer, &file, view, now)?;
    Ok(Offered { offer, file, release: judged.release })
}

/// Signs the set that takes an offered role as it is, and points the channel to the release that is
/// new in it. Needs the online keys alone.
pub fn take(
    offer: &Offer,
    file: &[u8],
    view: &CatalogView,
    keys: &dyn KeySource,
    now: UtcTime,
) -> Result<(Signed, Judged), PushError> {
    // Judged once more: the set may have changed since the artifact was asked for.
    let judged = rule::judge(offer, file, view, now)?;
    let mut draft = Draft::of(view, now);
    draft.take(&judged.file);
    if let (Some(release), Some(wish)) = (&judged.release, &offer.release) {
        let product = &release.id.product;
        let policy = pointing_to(release, product, &wish.channel, view, now);
        draft.set_channel(product, &wish.channel, &policy);
    }
    Ok((draft.sign(keys)?, judged))
}

/// The policy of a channel, pointing to a release: everybody may have it, the rest stays as it was.
pub(super) fn pointing_to(
    release: &Release,
    product: &Product,
    channel: &Channel,
    view: &CatalogView,
    now: UtcTime,
) -> ChannelPolicy {
    match view.channels.get(&(product.clone(), channel.clone())) {
        Some(policy) => ChannelPolicy {
            version: Some(release.id.version.clone()),
            rollout: Rollout::full(),
            since: Some(now),
            resumed_at: None,
            ..ChannelPolicy::clone(policy)
        },
        None => ChannelPolicy { since: Some(now), ..ChannelPolicy::pointing_to(release.id.version.clone()) },
    }
}
