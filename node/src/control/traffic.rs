//! What inspecting commands answer about bytes: limits in force, what was moved, what was wasted.
//!
//! A part of the JSON contract, as [`super::views`] is.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Platform, Product};
use updraft_protocol::time::UtcTime;

/// Copies of an artifact, in thousandths; in JSON a number such as 1.05.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Copies(u64);

impl Copies {
    /// How often `size_bytes` go into `bytes`, rounded down.
    pub fn of(bytes: u64, size_bytes: u64) -> Self {
        let thousandths = u128::from(bytes) * 1_000 / u128::from(size_bytes.max(1));
        Self(u64::try_from(thousandths).unwrap_or(u64::MAX))
    }

    /// From percent of one copy.
    pub fn from_percent(percent: u32) -> Self {
        Self(u64::from(percent) * 10)
    }

    /// None at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// `1.05`, two digits after the point, rounded down.
impl std::fmt::Display for Copies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1_000, self.0 % 1_000 / 10)
    }
}

impl Serialize for Copies {
    #[allow(clippy::cast_precision_loss, reason = "a number of copies that large is no less wrong by a few")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1_000.0)
    }
}

impl<'de> Deserialize<'de> for Copies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let copies = f64::deserialize(deserializer)?;
        // The decimal text has exactly the digits that count; what is no number of copies does not parse.
        let text = format!("{:.0}", copies * 1_000.0);
        text.parse().map(Self).map_err(|_| D::Error::custom("a number of copies is not negative"))
    }
}

/// The limits on rates that hold now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitsView {
    /// To other nodes.
    pub upload: LimitView,
    /// From other nodes.
    pub download: LimitView,
    /// They do not hold for peers of the local network.
    pub lan_exempt: bool,
    /// By whose clock windows open, as configured.
    pub time_zone: String,
    /// How far that clock is ahead of UTC now.
    pub utc_offset_minutes: i32,
    /// Copies of each artifact that may leave this node; none: any number.
    pub egress_budget_copies: Option<Copies>,
}

/// The limit of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitView {
    /// None: no limit. 0: paused.
    pub bytes_per_second: Option<u64>,
    /// What set it: `always`, `window 08:00-18:00 mon-fri`; or why there is none.
    pub why: String,
    /// When the answer will be another; none where it never will.
    pub until: Option<UtcTime>,
}

/// Bytes since the node started, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TransferView {
    /// Block bytes received; those that nobody wanted any more are not among them.
    pub bytes_in: u64,
    /// Block bytes sent.
    pub bytes_out: u64,
    /// Received and already here.
    pub bytes_duplicate: u64,
    /// Received and wrong.
    pub bytes_rejected: u64,
    /// Received from seeds and stored.
    #[serde(default)]
    pub bytes_from_seed: u64,
    /// Received from peers and stored.
    #[serde(default)]
    pub bytes_from_peers: u64,
    /// Of artifacts that were fetched: here already.
    #[serde(default)]
    pub bytes_reused: u64,
    /// Received after they were cancelled, and dropped.
    #[serde(default)]
    pub bytes_unsolicited: u64,
    /// Of those sent: bytes of pieces that left this node for the first time.
    #[serde(default)]
    pub bytes_out_first: u64,
    /// Control messages received.
    #[serde(default)]
    pub bytes_control_in: u64,
    /// Control messages sent.
    #[serde(default)]
    pub bytes_control_out: u64,
    /// Received beside blocks: control, metadata, gossip, framing, encryption.
    #[serde(default)]
    pub bytes_overhead_in: u64,
    /// Sent beside blocks.
    #[serde(default)]
    pub bytes_overhead_out: u64,
    /// Read from TCP connections, everything included. QUIC is not counted.
    #[serde(default)]
    pub bytes_wire_in: u64,
    /// Written to TCP connections, everything included. QUIC is not counted.
    #[serde(default)]
    pub bytes_wire_out: u64,
}

/// What was moved of one artifact since the node started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// SHA-256 of the artifact.
    pub sha256: Digest,
    /// Of which product it is a release; none where no release in force names it.
    pub product: Option<Product>,
    /// Which version.
    pub version: Option<String>,
    /// For which platform.
    pub platform: Option<Platform>,
    /// Its bytes.
    pub size_bytes: u64,
    /// Verified bytes of it that are here.
    pub bytes_done: u64,
    /// It is being fetched.
    pub active: bool,
    /// The recent rate at which it comes in.
    pub rate_bytes_per_second: u64,
    /// Received from seeds and stored.
    pub bytes_from_seed: u64,
    /// Received from peers and stored.
    pub bytes_from_peers: u64,
    /// Here already when the rest was fetched.
    pub bytes_reused: u64,
    /// Received and already here.
    pub bytes_duplicate: u64,
    /// Received and wrong.
    pub bytes_rejected: u64,
    /// Sent.
    pub bytes_sent: u64,
    /// Of those sent: bytes of pieces that left this node for the first time.
    pub bytes_sent_first: u64,
    /// Of those sent: the others.
    pub bytes_sent_repeat: u64,
    /// Bytes sent in copies of the artifact.
    pub copies_sent: Copies,
    /// Of those, first copies.
    pub copies_sent_first: Copies,
    /// Of those, repeats.
    pub copies_sent_repeat: Copies,
    /// Who sent it; the largest first, at most 16.
    pub sources: Vec<SourceRow>,
}

/// What one node sent of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// Its identity.
    pub peer_id: String,
    /// Bytes from it that were stored.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copies_are_shown_to_the_hundredth_and_never_rounded_up() {
        for (bytes, size, shown, json) in [
            (0, 100, "0.00", "0.0"),
            (105, 100, "1.05", "1.05"),
            (1_999, 1_000, "1.99", "1.999"),
            (5, 0, "5.00", "5.0"),
        ] {
            let copies = Copies::of(bytes, size);
            assert_eq!(copies.to_string(), shown);
            assert_eq!(serde_json::to_string(&copies).expect("serializable"), json);
        }
        assert_eq!(Copies::from_percent(120), Copies::of(6, 5));
        assert!(serde_json::from_str::<Copies>("-1").is_err());
    }

    proptest! {
        #[test]
        fn copies_survive_their_number(thousandths in 0..1_000_000_000_u64) {
            let text = serde_json::to_string(&Copies(thousandths)).expect("serializable");
            prop_assert_eq!(serde_json::from_str::<Copies>(&text).expect("decodes"), Copies(thousandths));
        }
    }
}
