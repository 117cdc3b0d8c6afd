//! Where an install stands, and the words for it.

/// Where an install stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallState {
    /// Nothing to do, or a gate is closed. Next: `Fetching`.
    Idle,
    /// The artifact is on its way. Next: `Verified`.
    Fetching,
    /// Every piece is verified. A mirror stays here, and so does an install for which there is no room.
    /// Next: `Staged`.
    Verified,
    /// Unpacked, verified whole, durable. Next: `Armed`.
    Staged,
    /// The switch is decided and journalled. Next: `Switched`, or `RollingBack` when it was tried too often.
    Armed,
    /// `current` points at the new release, which is being started. Next: `Probation` where a check is set,
    /// else `Committed`; `RollingBack` when it does not start.
    Switched,
    /// The new release must prove its health. Next: `Committed`, `RollingBack`.
    Probation,
    /// Installed. Next: `Fetching` of a newer release.
    Committed,
    /// Going back to the previous release. Next: `Quarantined`.
    RollingBack,
    /// The previous release is back, and the one that was left is not tried again by itself.
    Quarantined,
}

impl InstallState {
    pub(crate) const ALL: [Self; 10] = [
        Self::Idle,
        Self::Fetching,
        Self::Verified,
        Self::Staged,
        Self::Armed,
        Self::Switched,
        Self::Probation,
        Self::Committed,
        Self::RollingBack,
        Self::Quarantined,
    ];

    /// The name in JSON and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fetching => "fetching",
            Self::Verified => "verified",
            Self::Staged => "staged",
            Self::Armed => "armed",
            Self::Switched => "switched",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::RollingBack => "rolling_back",
            Self::Quarantined => "quarantined",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Past the point at which a newer release may take over: first it must end, forward or back.
    pub fn is_committed_to(self) -> bool {
        matches!(self, Self::Staged | Self::Armed | Self::Switched | Self::Probation | Self::RollingBack)
    }
}
