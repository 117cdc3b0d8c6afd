//! Proof that a key signed two files that cannot both be honest.
//!
//! The two files are all there is to it: whoever knows the repository's root can check them, whoever
//! brought them. So evidence is kept, handed on, and acted on without trust in a messenger.

use prost::Message as _;

use crate::digest::Digest;
use crate::limits::MAX_EVIDENCE_BYTES;
use crate::tuf::{Role, RoleName, Snapshot, Targets, Timestamp, TopRole, Trusted, TufError, Verified};

/// Two files of one role, each validly signed under one root, that contradict each other: one version
/// with two contents, or a timestamp whose history the other does not occur in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The role whose key signed both.
    pub role: RoleName,
    /// The exact bytes of one; which is the lesser of the two, as bytes.
    pub one: Vec<u8>,
    /// The exact bytes of the other.
    pub other: Vec<u8>,
}

/// Why alleged evidence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not the encoding of evidence.
    #[error("the evidence is malformed: {0}")]
    Malformed(String),
    /// About a role whose files cannot contradict each other here.
    #[error("evidence about the role {0} is not known")]
    Role(RoleName),
    /// One of the files is not signed as the trusted metadata asks.
    #[error(transparent)]
    Metadata(#[from] TufError),
    /// The files do not contradict each other.
    #[error("the two {0} files do not contradict each other")]
    NoConflict(RoleName),
}

/// What a verified piece of evidence says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The role.
    pub role: RoleName,
    /// The two versions, equal or not.
    pub versions: (u64, u64),
    /// The digests of the two signed parts.
    pub digests: (Digest, Digest),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(bytes = "vec", tag = "2")]
    one: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    other: Vec<u8>,
}

impl Evidence {
    /// The evidence that two files make, whatever their order.
    fn new(role: RoleName, one: &[u8], other: &[u8]) -> Self {
        let (one, other) = if one <= other { (one, other) } else { (other, one) };
        Self { role, one: one.to_vec(), other: other.to_vec() }
    }

    pub(super) fn of_timestamps(one: &Verified<Timestamp>, other: &Verified<Timestamp>) -> Self {
        Self::new(RoleName::timestamp(), one.bytes(), other.bytes())
    }

    /// The evidence that two verified files of one role are, if they are of one version and differ in
    /// what is signed.
    pub fn of_one_version<T: Role>(one: &Verified<T>, other: &Verified<T>) -> Option<Self> {
        let contradict = one.role_name() == other.role_name()
            && one.version() == other.version()
            && one.signed_digest() != other.signed_digest();
        contradict.then(|| Self::new(one.role_name().clone(), one.bytes(), other.bytes()))
    }

    /// Checks the evidence under what `trusted` holds: both files validly signed by the role's keys of
    /// now, and contradicting each other. Evidence about a key that was replaced since is refused.
    pub fn verify(&self, trusted: &Trusted) -> Result<Contradiction, EvidenceError> {
        if self.role == RoleName::timestamp() {
            let read = |bytes| trusted.read_signed::<Timestamp>(TopRole::Timestamp, bytes);
            let (one, other) = (read(&self.one)?, read(&self.other)?);
            return self.contradiction(&one, &other, Timestamp::contradicts(&one, &other));
        }
        if self.role == RoleName::snapshot() {
            let read = |bytes| trusted.read_signed::<Snapshot>(TopRole::Snapshot, bytes);
            let (one, other) = (read(&self.one)?, read(&self.other)?);
            return self.contradiction(&one, &other, one.version == other.version);
        }
        if self.role == RoleName::root() {
            return Err(EvidenceError::Role(self.role.clone()));
        }
        let read = |bytes| trusted.read_role_signed(&self.role, bytes);
        let (one, other): (Verified<Targets>, Verified<Targets>) = (read(&self.one)?, read(&self.other)?);
        self.contradiction(&one, &other, one.version == other.version)
    }

    fn contradiction<T: Role>(
        &self,
        one: &Verified<T>,
        other: &Verified<T>,
        holds: bool,
    ) -> Result<Contradiction, EvidenceError> {
        if !holds || one.signed_digest() == other.signed_digest() {
            return Err(EvidenceError::NoConflict(self.role.clone()));
        }
        Ok(Contradiction {
            role: self.role.clone(),
            versions: (one.version(), other.version()),
            digests: (one.signed_digest(), other.signed_digest()),
        })
    }

    /// The evidence as bytes.
    pub fn encode(&self) -> Vec<u8> {
        Wire { role: self.role.as_str().to_owned(), one: self.one.clone(), other: self.other.clone() }.encode_to_vec()
    }

    /// SHA-256 of the encoding: how nodes speak of a piece of evidence.
    pub fn id(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// Whether it is small enough to be handed on.
    pub fn fits(&self) -> bool {
        self.role.as_str().len() + self.one.len() + self.other.len() + 32 <= MAX_EVIDENCE_BYTES
    }

    /// Decodes evidence. That it proves anything is for [`Evidence::verify`] to say.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > MAX_EVIDENCE_BYTES {
            return Err(EvidenceError::Malformed(format!(
                "{} bytes; at most {MAX_EVIDENCE_BYTES} are read",
                bytes.len()
            )));
        }
        let wire = Wire::decode(bytes).map_err(|error| EvidenceError::Malformed(error.to_string()))?;
        let role = RoleName::try_from(wire.role).map_err(|error| EvidenceError::Malformed(error.to_string()))?;
        Ok(Self::new(role, &wire.one, &wire.other))
    }
}

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (one, other) = self.versions;
        let role = &self.role;
        if one == other {
            write!(f, "two different {role} files of version {one} are validly signed")
        } else {
            let (older, newer) = (one.min(other), one.max(other));
            write!(f, "{role} {newer} and {role} {older} are validly signed and do not share a history")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tuf::fixture::{Repository, TARGETS, later, now, role};

    fn alleged(about: &str, one: &[u8], other: &[u8]) -> Evidence {
        Evidence::new(role(about), one, other)
    }

    #[test]
    fn evidence_that_proves_nothing_is_refused() {
        let mut repository = Repository::new();
        let trusted = repository.trusted();
        let mine = repository.files().timestamp;
        repository.bump_timestamp();
        let next = repository.files().timestamp;
        repository.timestamp_signers = vec![TARGETS];
        let forged = repository.files().timestamp;
        let none = EvidenceError::NoConflict(role("timestamp"));
        assert_eq!(alleged("timestamp", &mine, &mine).verify(&trusted), Err(none.clone()));
        assert_eq!(alleged("timestamp", &mine, &next).verify(&trusted), Err(none));
        assert!(matches!(alleged("timestamp", &mine, &forged).verify(&trusted), Err(EvidenceError::Metadata(_))));
        assert!(matches!(alleged("root", &mine, &next).verify(&trusted), Err(EvidenceError::Role(_))));
        assert!(matches!(alleged("nobody", &mine, &next).verify(&trusted), Err(EvidenceError::Metadata(_))));
    }

    #[test]
    fn two_files_of_a_delegated_role_are_evidence_against_its_key() {
        let mut repository = Repository::new();
        let trusted = repository.trusted();
        let name = role("releases-editor");
        let one = repository.files().roles[&name].clone();
        repository.targets("releases-editor").expires = later().plus_days(1);
        let other = repository.files().roles[&name].clone();
        let found = alleged("releases-editor", &one, &other).verify(&trusted).expect("a contradiction");
        assert_eq!((found.role, found.versions), (name, (1, 1)));
    }

    #[test]
    fn evidence_lapses_when_the_key_is_replaced() {
        let mut repository = Repository::new();
        let trusted = repository.trusted();
        let one = repository.files().timestamp;
        repository.timestamp.signed_at = Some(now());
        let found = alleged("timestamp", &one, &repository.files().timestamp);
        assert!(found.verify(&trusted).is_ok());
        repository.root = repository.root.clone().with_role(TopRole::Timestamp, 1, &[crate::tuf::fixture::public(77)]);
        assert!(found.verify(&repository.trusted_root()).is_err());
    }

    #[test]
    fn the_order_of_the_files_makes_no_difference() {
        assert_eq!(alleged("targets", b"a", b"b").id(), alleged("targets", b"b", b"a").id());
    }

    proptest! {
        #[test]
        fn evidence_survives_its_bytes(one in prop::collection::vec(any::<u8>(), 0..80), other in prop::collection::vec(any::<u8>(), 0..80)) {
            let evidence = alleged("snapshot", &one, &other);
            prop_assert!(evidence.fits());
            prop_assert_eq!(Evidence::decode(&evidence.encode()), Ok(evidence));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(evidence) = Evidence::decode(&bytes) {
                let _ = evidence.verify(&Repository::new().trusted());
            }
        }
    }
}
