//! The stories in which a peer is crashed: where each begins, what is asked of the peer, how it ends.
//!
//! A release without a trial is installed once `current` points at it. With one it is started, by the
//! script `start` in its tree, and watched: it is healthy where its tree holds `healthy`.

use std::path::Path;

use updraft::control::messages::Request;
use updraft::control::views::SubscriptionState;

/// The releases: two good ones, one that is never healthy, one whose start takes the node with it.
pub const VERSIONS: [&str; 4] = ["1.0.0", "2.0.0", ILL, LOOPING];
/// Starts, and is never healthy.
pub const ILL: &str = "4.0.0";
/// Kills the node that starts it.
pub const LOOPING: &str = "3.0.0";

/// Starts after which a release is given up, where it is to be given up.
pub const MAX_ATTEMPTS: u32 = 3;
/// Starts for a release that is good: however often the node is killed in its trial, it is not to blame.
const PATIENT_ATTEMPTS: u32 = 100;

/// Where a peer stands when a crash is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// The first release is about to be unpacked.
    First,
    /// The second one is, over the first.
    Upgrade,
    /// An operator goes back from the second to the first.
    Rollback,
    /// The second release is about to be unpacked, and must prove itself.
    Trial,
    /// A release that is never healthy is about to be unpacked over the second.
    Ill,
    /// The same with one that takes the node with it.
    Looping,
    /// It has done so as often as it may.
    GivenUp,
    /// An operator goes back from the second to the first, which is started.
    Return,
    /// The second was left by hand and is held; an operator lifts that, and it must prove itself again.
    Unhold,
    /// One tree more than is to be kept is there, and an operator has what nothing needs removed.
    Collect,
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::First,
        Self::Upgrade,
        Self::Rollback,
        Self::Trial,
        Self::Ill,
        Self::Looping,
        Self::GivenUp,
        Self::Return,
        Self::Unhold,
        Self::Collect,
    ];

    /// Those without a trial.
    pub const PLAIN: [Self; 3] = [Self::First, Self::Upgrade, Self::Rollback];

    /// Where its directories are kept.
    pub(super) fn template(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Upgrade | Self::Trial => "upgrade",
            Self::Rollback | Self::Return => "rollback",
            Self::Ill => "ill",
            Self::Looping => "looping",
            Self::GivenUp => "given-up",
            Self::Unhold => "unhold",
            Self::Collect => "collect",
        }
    }

    /// The version that runs in the end.
    pub fn target(self) -> &'static str {
        match self {
            Self::First | Self::Rollback | Self::Return => VERSIONS[0],
            Self::Upgrade | Self::Trial | Self::Ill | Self::Looping | Self::GivenUp | Self::Unhold | Self::Collect => {
                VERSIONS[1]
            }
        }
    }

    /// The version that is quarantined in the end.
    pub fn quarantines(self) -> Option<&'static str> {
        match self {
            Self::Ill | Self::Collect => Some(ILL),
            Self::Looping | Self::GivenUp => Some(LOOPING),
            _ => None,
        }
    }

    /// The version that is held in the end.
    pub fn holds(self) -> Option<&'static str> {
        matches!(self, Self::Rollback | Self::Return).then_some(VERSIONS[1])
    }

    /// Whether there is no `current` at its beginning.
    pub fn begins_empty(self) -> bool {
        self == Self::First
    }

    /// Whether a release is unpacked in it.
    pub fn unpacks(self) -> bool {
        !matches!(self, Self::GivenUp | Self::Rollback | Self::Return | Self::Collect)
    }

    /// Whether what is started in it may end the node.
    pub fn kills_the_node(self) -> bool {
        self == Self::Looping
    }

    /// Whether releases are started and watched in it.
    pub fn has_trial(self) -> bool {
        !Self::PLAIN.contains(&self)
    }

    /// Whether a subscription may stand so when it is over.
    pub(super) fn ends_in(self, state: SubscriptionState) -> bool {
        match self {
            Self::First | Self::Upgrade | Self::Trial | Self::Unhold => state == SubscriptionState::Committed,
            Self::Ill | Self::Looping | Self::GivenUp | Self::Collect => state == SubscriptionState::Quarantined,
            Self::Rollback | Self::Return => {
                matches!(state, SubscriptionState::Committed | SubscriptionState::Quarantined)
            }
        }
    }

    /// What an operator asks for, where this version is installed.
    pub(super) fn request(self) -> Option<(&'static str, Request)> {
        let product = "app".parse().expect("a product");
        // By name: one that goes on by itself may be back at the first by now, and would go forth again.
        let version = |text: &str| Some(text.parse().expect("a version"));
        match self {
            Self::Rollback | Self::Return => {
                Some((VERSIONS[1], Request::Rollback { product, to: version(VERSIONS[0]), hold: true }))
            }
            Self::Unhold => Some((VERSIONS[0], Request::Unhold { product, version: version(VERSIONS[1]) })),
            _ => None,
        }
    }

    /// What the peer's configuration says.
    pub(super) fn configuration(self, directory: &Path) -> String {
        // All three trees stay until they are to be collected.
        let kept = if self == Self::Collect { 2 } else { 4 };
        let subscription = format!(
            "keep_releases = {kept}\n[[subscriptions]]\nproduct = \"app\"\ndirectory = \"{}\"\n",
            directory.display()
        );
        if !self.has_trial() {
            return subscription;
        }
        let attempts = if self.quarantines().is_some() { MAX_ATTEMPTS } else { PATIENT_ATTEMPTS };
        format!(
            "{subscription}activate = [\"sh\", \"start\"]\nmax_attempts = {attempts}\n\
             health = {{ command = [\"test\", \"-e\", \"healthy\"], interval = \"100ms\", probation = \"100ms\" }}\n"
        )
    }
}
