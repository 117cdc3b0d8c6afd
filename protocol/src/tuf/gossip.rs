//! The exact form of timestamp and snapshot that a gossiped head may carry.
//!
//! TUF lets an envelope carry surplus signatures, unknown key ids, white space, and either form of an
//! ECDSA signature. A head must not: it would then have as many encodings as anyone cares to make.

use super::envelope::Envelope;
use super::error::TufError;
use super::part::RoleName;
use super::role::{Snapshot, Targets, Timestamp, TopRole};
use super::signed_part::Role;
use super::threshold;
use super::trusted::Trusted;
use super::verified::Verified;

/// Why a timestamp or snapshot cannot be part of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FormError {
    /// Not the canonical encoding of an envelope, or valid signatures in another form than the one
    /// that each may have.
    NotCanonical(RoleName),
    /// Not exactly threshold many signatures, each valid and by a key of the role that is trusted
    /// here. The sender may know another root.
    Signatures(RoleName),
    /// Wrong whatever the root.
    Metadata(TufError),
}

impl From<TufError> for FormError {
    fn from(error: TufError) -> Self {
        match error {
            TufError::Signatures { role, .. } => Self::Signatures(role),
            other => Self::Metadata(other),
        }
    }
}

impl Trusted {
    /// Timestamp and snapshot in the form that a head carries, if they can be brought into it.
    pub(crate) fn gossip_form(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((
            self.exact_form(self.timestamp.as_ref()?, TopRole::Timestamp)?,
            self.exact_form(self.snapshot.as_ref()?, TopRole::Snapshot)?,
        ))
    }

    fn exact_form<T: Role>(&self, metadata: &Verified<T>, role: TopRole) -> Option<Vec<u8>> {
        threshold::exact_form(&metadata.envelope().ok()?, &self.root.authority(role))
    }

    /// Reads one top-level role in the form that a head carries: canonical, exactly signed under the
    /// root trusted here. Whether it is newer or current is not judged.
    pub(crate) fn read_exact<T: Role>(&self, role: TopRole, bytes: &[u8]) -> Result<Verified<T>, FormError> {
        let envelope = Envelope::parse(&role.name(), bytes, T::MAX_BYTES)?;
        if !envelope.is_canonical() {
            return Err(FormError::NotCanonical(role.name()));
        }
        let exact = Verified::check_exact(envelope, &self.root.authority(role))?;
        exact.ok_or_else(|| FormError::NotCanonical(role.name()))
    }

    /// Reads one top-level role that is validly signed under the root trusted here, in any form.
    pub(crate) fn read_signed<T: Role>(&self, role: TopRole, bytes: &[u8]) -> Result<Verified<T>, TufError> {
        Verified::check(Envelope::parse(&role.name(), bytes, T::MAX_BYTES)?, &self.root.authority(role))
    }

    /// Reads a targets role that a trusted delegator's keys validly signed, in any form. Whether it is
    /// listed or current is not judged.
    pub(crate) fn read_role_signed(&self, role: &RoleName, bytes: &[u8]) -> Result<Verified<Targets>, TufError> {
        let envelope = Envelope::parse(role, bytes, Targets::MAX_BYTES)?;
        let mut refusal = TufError::NotDelegated { role: role.clone() };
        for (_, _, authority) in self.delegators(role) {
            match Verified::check(envelope.clone(), &authority) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Reads the timestamp and the snapshot of one head, which must belong together.
    pub(crate) fn read_pair(
        &self,
        timestamp: &[u8],
        snapshot: &[u8],
    ) -> Result<(Verified<Timestamp>, Verified<Snapshot>), FormError> {
        let timestamp: Verified<Timestamp> = self.read_exact(TopRole::Timestamp, timestamp)?;
        let role = RoleName::snapshot();
        timestamp.snapshot.check(&role, snapshot)?;
        let snapshot: Verified<Snapshot> = self.read_exact(TopRole::Snapshot, snapshot)?;
        if snapshot.version != timestamp.snapshot.version {
            let (expected, found) = (timestamp.snapshot.version, snapshot.version);
            return Err(FormError::Metadata(TufError::Version { role, expected, found }));
        }
        Ok((timestamp, snapshot))
    }
}
