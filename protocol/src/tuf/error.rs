//! Why metadata was refused.

use crate::time::UtcTime;

use super::part::RoleName;

/// Why one step of the client workflow refused its metadata. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TufError {
    /// More bytes than the role may have.
    #[error("{role} metadata has {found} bytes; at most {limit} are read")]
    TooLarge {
        /// The role.
        role: RoleName,
        /// Bytes found.
        found: u64,
        /// The most bytes read.
        limit: u64,
    },
    /// Not strict JSON, or not the shape of the role.
    #[error("{role} metadata is malformed: {reason}")]
    Malformed {
        /// The role.
        role: RoleName,
        /// What is wrong, and where.
        reason: String,
    },
    /// Fewer valid signatures by distinct keys of the role than its threshold (TUF 5.3.4, 5.4.2,
    /// 5.5.3, 5.6.3).
    #[error("{role} metadata has {valid} valid signatures; its role asks for {threshold}")]
    Signatures {
        /// The role.
        role: RoleName,
        /// Valid signatures by distinct keys of the role.
        valid: usize,
        /// Signatures needed.
        threshold: u64,
    },
    /// A root that is not the successor of the trusted one (TUF 5.3.5), or a role file that is not
    /// the version that the snapshot or timestamp lists (TUF 5.5.4, 5.6.4).
    #[error("{role} metadata is version {found}; version {expected} is needed")]
    Version {
        /// The role.
        role: RoleName,
        /// The version needed.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// Metadata older than what is trusted already (TUF 5.4.3, 5.5.5).
    #[error(
        "{role} metadata would go back from version {trusted} to {found}; a replay, or a repository restored from a backup"
    )]
    Rollback {
        /// The role whose version goes back.
        role: RoleName,
        /// The version trusted already.
        trusted: u64,
        /// The version offered.
        found: u64,
    },
    /// A role that the trusted snapshot lists is missing in the new one (TUF 5.5.5).
    #[error("the new snapshot no longer lists {role}, which the trusted snapshot lists")]
    Removed {
        /// The role removed.
        role: RoleName,
    },
    /// Bytes of another length than signed (TUF 5.5.2, 5.6.2).
    #[error("{role} metadata has {found} bytes; {expected} are signed")]
    Length {
        /// The role.
        role: RoleName,
        /// The length signed.
        expected: u64,
        /// The length found.
        found: u64,
    },
    /// Bytes of another hash than signed, or none of the signed hash algorithms is known (TUF 5.5.2,
    /// 5.6.2).
    #[error("{role} metadata does not have the {algorithm} hash that is signed")]
    Hash {
        /// The role.
        role: RoleName,
        /// The algorithm that differs.
        algorithm: String,
    },
    /// Metadata past its expiry (TUF 5.3.10, 5.4.4, 5.5.6, 5.6.5).
    #[error("{role} metadata expired at {since}; it must be signed anew")]
    Expired {
        /// The role.
        role: RoleName,
        /// When it expired.
        since: UtcTime,
    },
    /// A step taken before the one it builds on.
    #[error("{role} metadata cannot be checked before {needs} metadata is trusted")]
    OutOfOrder {
        /// The role offered.
        role: RoleName,
        /// The role that has to come first.
        needs: RoleName,
    },
    /// The snapshot lists no such role.
    #[error("the snapshot does not list {role}")]
    NotListed {
        /// The role.
        role: RoleName,
    },
    /// No trusted role delegates to this one.
    #[error("no trusted role delegates to {role}")]
    NotDelegated {
        /// The role.
        role: RoleName,
    },
    /// A first root that is not the one named by the repository id.
    #[error("this root is not the first root of the repository that was asked for")]
    WrongRepository,
}

impl TufError {
    /// Whether the metadata is right in itself and only too old, so that whoever sent it may be
    /// honest: expired, or behind what is trusted here.
    pub fn is_age(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::Rollback { .. } | Self::Removed { .. })
    }

    /// Whether the signatures did not reach the threshold: a forgery, or another root.
    pub fn is_signatures(&self) -> bool {
        matches!(self, Self::Signatures { .. })
    }
}
