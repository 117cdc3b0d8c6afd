//! Metadata whose signatures were checked. The check is the only constructor.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::digest::Digest;

use super::envelope::Envelope;
use super::error::TufError;
use super::part::RoleName;
use super::role::{Root, TopRole};
use super::signed_part::{Fields, Role};
use super::threshold::{self, Authority};

/// Typed metadata that a threshold of its role's keys signed. Cheap to clone.
///
/// That it is verified says who signed it, not that it is current: versions, hashes and expiry are
/// [`super::Trusted`]'s to judge.
pub struct Verified<T>(Arc<Inner<T>>);

struct Inner<T> {
    value: T,
    role: RoleName,
    bytes: Vec<u8>,
    signed_digest: Digest,
}

impl<T> Verified<T> {
    /// The exact bytes as received: what is stored, served and hashed.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// SHA-256 of the canonical signed part, the same for every envelope around it.
    pub fn signed_digest(&self) -> Digest {
        self.0.signed_digest
    }

    /// The role that this metadata is.
    pub fn role_name(&self) -> &RoleName {
        &self.0.role
    }
}

impl<T: Role> Verified<T> {
    /// The signature check of TUF 5.4.2, 5.5.3 and 5.6.3. No way into the type avoids it.
    pub(super) fn check(envelope: Envelope, authority: &Authority<'_>) -> Result<Self, TufError> {
        threshold::check(&envelope, authority)?;
        Self::typed(envelope)
    }

    /// The same for an envelope that must carry exactly threshold many signatures, each in the one form
    /// of its scheme. `Ok(None)` where they are valid and one is in another form.
    pub(super) fn check_exact(envelope: Envelope, authority: &Authority<'_>) -> Result<Option<Self>, TufError> {
        threshold::check_exact(&envelope, authority)?;
        if !threshold::is_exact(&envelope, authority) {
            return Ok(None);
        }
        Self::typed(envelope).map(Some)
    }

    /// Whether the same bytes are also signed as `authority` asks.
    pub(super) fn is_vouched_by(&self, authority: &Authority<'_>) -> bool {
        self.envelope().is_ok_and(|envelope| threshold::check(&envelope, authority).is_ok())
    }

    /// The envelope again, for a check against other keys.
    pub(super) fn envelope(&self) -> Result<Envelope, TufError> {
        Envelope::parse(&self.0.role, &self.0.bytes, T::MAX_BYTES)
    }

    fn typed(envelope: Envelope) -> Result<Self, TufError> {
        let role = envelope.role().clone();
        let signed_digest = envelope.signed_digest();
        let (bytes, signed) = envelope.into_parts();
        let value =
            T::from_signed(Fields::of(signed)).map_err(|reason| TufError::Malformed { role: role.clone(), reason })?;
        Ok(Self(Arc::new(Inner { value, role, bytes, signed_digest })))
    }
}

impl Verified<Root> {
    /// A root signed by a threshold of its own root keys: the start of trust, which the caller pins
    /// by other means.
    pub(super) fn self_signed(envelope: &Envelope) -> Result<Self, TufError> {
        // The keys come out of the candidate itself, so it is typed before it is checked; it is
        // dropped, unseen, if the check fails.
        let candidate = Self::typed(envelope.clone())?;
        threshold::check(envelope, &candidate.authority(TopRole::Root))?;
        Ok(candidate)
    }

    /// TUF 5.3.4: "Version N+1 of the root metadata file MUST have been signed by: (1) a threshold of
    /// keys specified in the trusted root metadata file (version N), and (2) a threshold of keys
    /// specified in the new root metadata file being validated (version N+1)."
    pub(super) fn successor(&self, envelope: &Envelope) -> Result<Self, TufError> {
        threshold::check(envelope, &self.authority(TopRole::Root))?;
        Self::self_signed(envelope)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Verified<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.role == other.0.role && self.0.bytes == other.0.bytes
    }
}

impl<T> Eq for Verified<T> {}

impl<T> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({} {})", self.0.role, self.0.signed_digest.short())
    }
}
