//! The Update Framework (specification 1.0.34): signed metadata, and the client workflow over it.
//!
//! Bytes become typed metadata only by passing the signature check ([`Verified`]); [`Trusted`] is
//! the workflow of section 5 without input or output. Building and signing new metadata starts from
//! the plain structs and ends in [`sign_role`].

mod ceremony;
mod delegation;
mod envelope;
mod error;
mod gossip;
mod lookup;
mod offered;
mod part;
mod role;
mod sign;
mod signed_part;
mod signers;
mod target_file;
mod threshold;
mod trusted;
mod verified;

#[cfg(test)]
pub(crate) mod fixture;

pub use ceremony::{Ceremony, CeremonyChange, CeremonyError, Edits, Finished, Quorum};
pub use delegation::{DelegatedRole, Delegations};
pub use error::TufError;
pub(crate) use gossip::FormError;
pub use lookup::{Freshness, Resolution, RoleRequest};
pub use part::{FileMeta, Hashes, InvalidRoleName, Keys, RoleKeys, RoleName, TargetInfo};
pub use role::{Root, RootRoles, Snapshot, Targets, Timestamp, TopRole};
pub use sign::{cosign, sign_role, signed_digest};
pub use signed_part::Role;
pub use signers::Signers;
pub use target_file::TargetCheck;
pub use trusted::{Change, Expiry, RepositoryId, Trusted};
pub use verified::Verified;
