//! What is written down before a step is taken, and what a node finds of it when it starts again.

use std::collections::BTreeMap;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;

use super::super::effect::EventKind;
use super::hold::Holds;
use super::state::InstallState;
use super::trial::Trial;

/// A release that is on disk, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its version.
    pub version: Version,
    /// Its artifact.
    pub artifact: Digest,
    /// Its name below `releases/`.
    pub release_dir: String,
}

/// Which way an attempt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To a release that the channel offers.
    Forward,
    /// Back from a release that did not prove itself.
    Back,
    /// Back because an operator said so.
    BackByOperator,
}

impl Way {
    /// Going back, not forward.
    pub fn is_back(self) -> bool {
        self != Self::Forward
    }
}

/// One line of the install journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// The subscription's directory.
    pub directory: String,
    /// Its product.
    pub product: Product,
    /// The state that is being entered.
    pub state: InstallState,
    /// Names the attempt.
    pub transaction: String,
    /// What is (was) installed; going back, what is left.
    pub from: Option<Installed>,
    /// What is being installed; going back, what comes back.
    pub to: Option<Installed>,
    /// Starts of `to` that were tried, this one included.
    pub attempts: u32,
    /// Which way it goes.
    pub way: Way,
    /// Milliseconds of probation that are left, in probation. Counted down by elapsed time and not by the
    /// wall clock, so that setting the clock neither ends nor prolongs it.
    pub remaining_ms: Option<u64>,
    /// Why it goes back, or ended badly.
    pub reason: Option<String>,
    /// What changes together with this line.
    pub outcome: Option<Outcome>,
}

/// What an attempt, or a part of it, came to. Written in one transaction with its journal line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `Installed`, `RolledBack` or `InstallFailed`.
    pub kind: EventKind,
    /// About which version: the one that runs now, or the one that failed.
    pub version: Version,
    /// In a sentence, for people.
    pub text: String,
    /// What runs from now on, and what there is to go back to; `None` leaves that as it was.
    pub installed: Option<(Installed, Option<Installed>)>,
    /// An artifact that is not tried again by itself, and what it did.
    pub quarantine: Option<(Digest, String)>,
}

/// What a node finds about a directory when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last journal line.
    pub journal: Option<JournalEntry>,
    /// What was committed last.
    pub installed: Option<Installed>,
    /// What was committed before that.
    pub previous: Option<Installed>,
    /// What `current` points at, below `releases/`.
    pub current: Option<String>,
    /// The same, where it is there and proved itself in this directory once.
    pub stands: Option<Installed>,
    /// Artifacts that are not tried again by themselves, and what they did.
    pub quarantine: BTreeMap<Digest, String>,
    /// What an operator keeps from being installed.
    pub holds: Holds,
    /// How a release is started, and what proves that it works: what the configuration says now.
    pub trial: Trial,
    /// This process is what the subscription's starter starts, and was started after the last switch: that it
    /// runs is the start.
    pub runs: bool,
}
