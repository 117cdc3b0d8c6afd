//! Signing what an operator (or the seed itself) decided about a channel.

use updraft_protocol::names::{Channel, Product};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::RoleName;

use super::PublishError;
use super::draft::{Draft, Signed};
use super::keys::Keys;
use crate::engine::catalog::CatalogView;
use crate::engine::policy::Changed;

/// Whether the targets keys are here, which a security floor is signed with.
pub fn can_raise_floors(view: &CatalogView, keys: &Keys, now: UtcTime) -> bool {
    Draft::of(view, now).signers(&RoleName::targets()).is_ok_and(|signers| keys.can_sign(&signers))
}

/// Signs the set in which a channel has its next policy.
pub fn sign(
    changed: &Changed,
    product: &Product,
    channel: &Channel,
    view: &CatalogView,
    keys: &Keys,
    now: UtcTime,
) -> Result<Signed, PublishError> {
    let mut draft = Draft::of(view, now);
    draft.set_channel(product, channel, &changed.policy);
    if let Some(floor) = &changed.floor {
        draft.raise_floor(product, floor);
    }
    Ok(draft.sign(keys)?)
}
