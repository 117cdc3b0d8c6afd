//! Where the bytes of an object came from, and what became of them.

/// Where bytes came from and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Useful bytes from seeds.
    pub from_seed: u64,
    /// Useful bytes from peers.
    pub from_peers: u64,
    /// Bytes that were there already.
    pub duplicate: u64,
    /// Bytes of pieces that were wrong.
    pub rejected: u64,
    /// Bytes sent to others.
    pub sent: u64,
    /// Of those, bytes of pieces that left this node for the first time.
    pub sent_first: u64,
}

impl ByteCounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            from_seed: self.from_seed + other.from_seed,
            from_peers: self.from_peers + other.from_peers,
            duplicate: self.duplicate + other.duplicate,
            rejected: self.rejected + other.rejected,
            sent: self.sent + other.sent,
            sent_first: self.sent_first + other.sent_first,
        }
    }

    /// Nothing was moved.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
