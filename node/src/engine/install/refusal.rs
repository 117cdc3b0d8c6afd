//! Why a step failed, and why an operator's request is refused.

use semver::Version;
use updraft_protocol::names::Product;

use super::state::InstallState;

/// What is at fault when a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The release: trying again cannot help.
    Release,
    /// The place: no room, no permission, a disk that cannot be written. It is looked at again.
    Place,
    /// Something that may be over at the next try.
    Moment,
}

/// Why an install step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// The sentence for people.
    pub reason: String,
    /// What is at fault.
    pub fault: Fault,
}

/// Why an operator's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing here has that product.
    #[error("this node does not install {0}; subscriptions are listed by `updraft status`")]
    NotSubscribed(String),
    /// There is nothing to go back to.
    #[error(
        "{product} has no previous release here to go back to; what its channel offers next takes its place: \
         `updraft status --explain` says what that waits for"
    )]
    NoPrevious {
        /// The product.
        product: Product,
    },
    /// It runs already.
    #[error("{product} {version} is what runs here")]
    RunsAlready {
        /// The product.
        product: Product,
        /// The version.
        version: Version,
    },
    /// Another release is on trial.
    #[error(
        "{product} is on trial and goes back to {installed} only; leave --to out, or ask for {wanted} when the trial is over"
    )]
    OnTrial {
        /// The product.
        product: Product,
        /// What was asked for.
        wanted: Version,
        /// What comes back when the trial fails.
        installed: Version,
    },
    /// The wanted version is not kept.
    #[error("{product} {wanted} is not kept here; {}", kept_text(kept))]
    NotKept {
        /// The product.
        product: Product,
        /// What was asked for.
        wanted: Version,
        /// What is kept, beside what runs.
        kept: Vec<Version>,
    },
    /// A step is under way that must end first.
    #[error("{product} is being installed right now ({state}); try again in a moment", state = .state.as_str())]
    Busy {
        /// The product.
        product: Product,
        /// Where it stands.
        state: InstallState,
    },
    /// The channel offers something else.
    #[error(
        "the channel offers {offered} of {product}, not {wanted}; `updraft fetch` gets any release without installing it"
    )]
    NotOffered {
        /// The product.
        product: Product,
        /// What was asked for.
        wanted: Version,
        /// What is offered.
        offered: String,
    },
    /// Too many versions are held.
    #[error("{product} has {count} held versions; lift some with `updraft unhold {product} --version V`")]
    TooManyHolds {
        /// The product.
        product: Product,
        /// How many.
        count: usize,
    },
}

fn kept_text(kept: &[Version]) -> String {
    if kept.is_empty() {
        return "no other release is".to_owned();
    }
    let names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    format!("these are: {}", names.join(", "))
}
