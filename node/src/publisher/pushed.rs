//! A release that is signed on one machine and published by another.
//!
//! The publisher's machine has the product's key and no online one: [`offer`] makes the next version
//! of the product's role. The seed has the online keys and no other: [`take`] makes the set that takes
//! this role as it is. Neither needs to believe the other; both ask the same rule.

use semver::Version;
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
        let policy = pointing_to(&release.id.version, policy_of(view, product, &wish.channel), now);
        draft.set_channel(product, &wish.channel, &policy);
    }
    Ok((draft.sign(keys)?, judged))
}

/// The policy of a channel once it points to `version`: everybody may have it, the rest stays as it was. Where it
/// points there already, another build is added to what is under way, and nothing about that changes.
pub(super) fn pointing_to(version: &Version, before: Option<&ChannelPolicy>, now: UtcTime) -> ChannelPolicy {
    match before {
        Some(policy) if policy.version.as_ref() == Some(version) => policy.clone(),
        Some(policy) => ChannelPolicy {
            version: Some(version.clone()),
            rollout: Rollout::full(),
            since: Some(now),
            resumed_at: None,
            ..policy.clone()
        },
        None => ChannelPolicy { since: Some(now), ..ChannelPolicy::pointing_to(version.clone()) },
    }
}

/// The policy that a channel has now.
pub(super) fn policy_of<'a>(view: &'a CatalogView, product: &Product, channel: &Channel) -> Option<&'a ChannelPolicy> {
    view.channels.get(&(product.clone(), channel.clone())).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use updraft_protocol::rollout::Stage;

    use super::*;

    fn at(seconds: i64) -> UtcTime {
        UtcTime::from_unix(1_800_000_000 + seconds)
    }

    fn in_stages() -> ChannelPolicy {
        let stages = vec![Stage { percent: 1, at: at(0) }, Stage { percent: 100, at: at(604_800) }];
        ChannelPolicy {
            rollout: Rollout { start: at(0), stages },
            since: Some(at(0)),
            resumed_at: Some(at(5)),
            ..ChannelPolicy::pointing_to(Version::new(2, 0, 0))
        }
    }

    #[test]
    fn a_second_build_of_a_version_leaves_its_rollout_as_it_is() {
        assert_eq!(pointing_to(&Version::new(2, 0, 0), Some(&in_stages()), at(10)), in_stages());
    }

    #[test]
    fn another_version_begins_anew() {
        let paused = ChannelPolicy { paused: true, ..in_stages() };
        let next = pointing_to(&Version::new(2, 1, 0), Some(&paused), at(10));
        assert!(next.rollout.is_full_at(at(10)) && next.paused);
        assert_eq!((next.since, next.resumed_at), (Some(at(10)), None));
    }
}
