//! When an offered role may be published.
//!
//! Whoever holds a publisher's key may add releases, and nothing else: what was signed before stays as
//! it is. The offering side asks the same rule before it offers, so that both sides refuse for the
//! same reasons. Nothing here believes the offer itself: it only says what to look for in what is
//! signed.

use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_TARGETS_BYTES;
use updraft_protocol::names::{Channel, InvalidName, Product, ReleaseId};
use updraft_protocol::offer::Offer;
use updraft_protocol::release::{Release, ReleaseError, same_precedence};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{RoleName, Targets, TufError, Verified};

use crate::engine::catalog::CatalogView;

/// Bytes by which a role may grow with one release. Bounds what a stranger can make a seed parse.
const MAX_GROWTH_BYTES: u64 = 64 * 1024;

/// Why an offered role is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Releases are what publishers sign, nothing else.
    #[error("only roles of releases are taken from elsewhere; {0} is none")]
    NotReleases(RoleName),
    /// The product is not known, or its role is not the publisher's yet.
    #[error(
        "nothing is delegated to {0}: the product must be added first, where the targets key is (updraft targets draft --add-product)"
    )]
    NotDelegated(RoleName),
    /// The role is listed and not loaded.
    #[error("{0} is not complete at this node, so nothing can be added to it; look at `updraft status` there")]
    NotWhole(RoleName),
    /// Not the version that comes next.
    #[error("{role} is at version {current}; {offered} was offered, and {next} comes next", next = .current + 1)]
    NotNext {
        /// The role.
        role: RoleName,
        /// The version in force, 0 for none.
        current: u64,
        /// The version offered.
        offered: u64,
    },
    /// More bytes than one more release takes.
    #[error("{role} would have {found} bytes; with one more release it may have {limit}")]
    TooLong {
        /// The role.
        role: RoleName,
        /// Bytes offered.
        found: u64,
        /// Most bytes.
        limit: u64,
    },
    /// The path is not a release's.
    #[error("{path}: {source}")]
    Path {
        /// The path offered.
        path: String,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// The path is another product's.
    #[error("{path} is not a release of {product}")]
    OtherProduct {
        /// The path.
        path: String,
        /// The product that the role is for.
        product: Product,
    },
    /// The delegation does not cover the path.
    #[error("{role} may not speak about {path}")]
    OutsideDelegation {
        /// The role.
        role: RoleName,
        /// The path.
        path: String,
    },
    /// Another release has that place.
    #[error("{wanted} cannot be published: {existing} exists for the same platform, and releases are immutable")]
    Exists {
        /// The version offered.
        wanted: Version,
        /// The version that exists.
        existing: Version,
    },
    /// The channel would go back.
    #[error("channel '{channel}' is at {current}; {wanted} would move it back")]
    MovesBack {
        /// The channel.
        channel: Channel,
        /// What it points to.
        current: Version,
        /// The version offered.
        wanted: Version,
    },
    /// The file is not the one that the offer describes.
    #[error("the file that came is not the one that was offered")]
    OtherFile,
    /// Not signed as it must be, or not current.
    #[error(transparent)]
    Signed(#[from] TufError),
    /// Releases never change.
    #[error("{0} exists and would be changed; releases are immutable")]
    Changed(String),
    /// Releases are not taken away by a push.
    #[error("{0} exists and would be removed; a pushed role only adds")]
    Removed(String),
    /// Something else is added than was offered.
    #[error("{0} is new in the file and not what was offered; offer one release at a time")]
    Unexpected(String),
    /// What was offered is not in the file.
    #[error("{0} was offered and is not in the file")]
    Absent(String),
    /// Who else may speak for the role would change.
    #[error("the delegations of {0} would change")]
    Delegations(RoleName),
    /// A renewal that renews nothing.
    #[error("{0} would not expire later than it does now")]
    NotRenewed(RoleName),
    /// The target is not a release that nodes could use.
    #[error("{path}: {source}")]
    Release {
        /// The path.
        path: String,
        /// What is wrong with it.
        source: ReleaseError,
    },
    /// Nothing to fetch.
    #[error("{0} is empty; nobody could fetch it")]
    Empty(String),
    /// The publisher did not permit the channel.
    #[error("the release is not signed for channel '{channel}', only for: {permitted}")]
    Channel {
        /// The channel asked for.
        channel: Channel,
        /// The channels that are signed.
        permitted: String,
    },
}

impl OfferError {
    /// Whether it proves that the sender did not do its part: no honest node offers such a file.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::OtherFile
                | Self::Signed(TufError::Signatures { .. } | TufError::Malformed { .. } | TufError::TooLarge { .. })
        )
    }
}

/// An offered role that may be published.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The role, verified under its delegation.
    pub file: Verified<Targets>,
    /// The release that is new in it.
    pub release: Option<Arc<Release>>,
}

/// The release that has the place of `id` already: its version, or one that differs in build metadata
/// only.
pub fn existing<'a>(view: &'a CatalogView, id: &ReleaseId) -> Option<&'a Arc<Release>> {
    view.releases.iter().find(|other| {
        other.id.product == id.product
            && other.id.platform == id.platform
            && same_precedence(&other.id.version, &id.version)
    })
}

/// The version that `channel` points to, where it is ahead of `id`.
pub fn ahead<'a>(view: &'a CatalogView, id: &ReleaseId, channel: &Channel) -> Option<&'a Version> {
    let policy = view.channels.get(&(id.product.clone(), channel.clone()))?;
    policy.version.as_ref().filter(|current| **current > id.version)
}

/// The version of `role` that the set in force lists; 0 for none.
pub fn current_version(view: &CatalogView, role: &RoleName) -> u64 {
    let listed = view.trusted.snapshot().and_then(|snapshot| snapshot.role(role));
    listed.map_or(0, |listed| listed.version)
}

/// The product whose releases `role` signs.
pub fn product_of(role: &RoleName) -> Option<Product> {
    role.as_str().strip_prefix("releases-")?.parse().ok()
}

/// What can be said before the file is here.
pub fn check(offer: &Offer, view: &CatalogView) -> Result<(), OfferError> {
    let role = &offer.role;
    let product = product_of(role).ok_or_else(|| OfferError::NotReleases(role.clone()))?;
    let targets = view.trusted.role(&RoleName::targets());
    let delegated = targets
        .and_then(|targets| targets.delegations.as_ref()?.role(role))
        .ok_or_else(|| OfferError::NotDelegated(role.clone()))?;
    let current = current_version(view, role);
    if offer.version != current.saturating_add(1) {
        return Err(OfferError::NotNext { role: role.clone(), current, offered: offer.version });
    }
    let held = view.trusted.role(role);
    if held.is_none() && current > 0 {
        return Err(OfferError::NotWhole(role.clone()));
    }
    let length = held.map_or(0, |held| held.bytes().len() as u64);
    let limit = length.saturating_add(MAX_GROWTH_BYTES).min(MAX_TARGETS_BYTES);
    if offer.length > limit {
        return Err(OfferError::TooLong { role: role.clone(), found: offer.length, limit });
    }
    let Some(release) = &offer.release else { return Ok(()) };
    let path = &release.path;
    let (id, _) = ReleaseId::from_path(path).map_err(|source| OfferError::Path { path: path.clone(), source })?;
    if id.product != product {
        return Err(OfferError::OtherProduct { path: path.clone(), product });
    }
    if !delegated.covers(path) {
        return Err(OfferError::OutsideDelegation { role: role.clone(), path: path.clone() });
    }
    if let Some(existing) = existing(view, &id) {
        return Err(OfferError::Exists { wanted: id.version, existing: existing.id.version.clone() });
    }
    if let Some(current) = ahead(view, &id, &release.channel) {
        let (channel, current) = (release.channel.clone(), current.clone());
        return Err(OfferError::MovesBack { channel, current, wanted: id.version });
    }
    Ok(())
}

/// Judges the file of an offer against the set in force.
pub fn judge(offer: &Offer, bytes: &[u8], view: &CatalogView, now: UtcTime) -> Result<Judged, OfferError> {
    check(offer, view)?;
    if bytes.len() as u64 != offer.length || Digest::of(bytes) != offer.sha256 {
        return Err(OfferError::OtherFile);
    }
    let file = view.trusted.read_next(&offer.role, bytes, now)?;
    let held = view.trusted.role(&offer.role);
    if file.delegations != held.and_then(|held| held.delegations.clone()) {
        return Err(OfferError::Delegations(offer.role.clone()));
    }
    for (path, target) in held.iter().flat_map(|held| &held.targets) {
        match file.targets.get(path) {
            Some(same) if same == target => {}
            Some(_) => return Err(OfferError::Changed(path.clone())),
            None => return Err(OfferError::Removed(path.clone())),
        }
    }
    let offered = offer.release.as_ref().map(|release| &release.path);
    let mut added = file.targets.keys().filter(|path| held.is_none_or(|held| !held.targets.contains_key(*path)));
    if let Some(other) = added.find(|path| Some(*path) != offered) {
        return Err(OfferError::Unexpected(other.clone()));
    }
    let Some(wish) = &offer.release else {
        if held.is_some_and(|held| file.expires <= held.expires) {
            return Err(OfferError::NotRenewed(offer.role.clone()));
        }
        return Ok(Judged { file, release: None });
    };
    let path = &wish.path;
    let target = file.targets.get(path).ok_or_else(|| OfferError::Absent(path.clone()))?;
    let release =
        Release::from_target(path, target).map_err(|source| OfferError::Release { path: path.clone(), source })?;
    if release.length == 0 {
        return Err(OfferError::Empty(path.clone()));
    }
    if !release.channels.contains(&wish.channel) {
        let permitted: Vec<&str> = release.channels.iter().map(Channel::as_str).collect();
        return Err(OfferError::Channel { channel: wish.channel.clone(), permitted: permitted.join(", ") });
    }
    Ok(Judged { file, release: Some(Arc::new(release)) })
}
