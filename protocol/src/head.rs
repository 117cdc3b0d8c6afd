//! The gossiped head: the newest timestamp and snapshot, and small files that belong to them.
//!
//! gossipsub drops a message whose id it has seen before any of this runs, and forwards the bytes as
//! received. So one head has one encoding: anything that could be altered without breaking a
//! signature (white space, order, surplus signatures, unknown fields) makes the head invalid. If it
//! did not, copies with junk could be spread in place of the head.
//!
//! The verdict on a head that is wrong in itself is `Reject`; on one that is wrong only for what this
//! node holds, `Ignore`: its sender may be honest and behind, or ahead.

mod evidence;
mod judge;
mod wire;

pub use evidence::{Contradiction, Evidence, EvidenceError};
pub use judge::{Accepted, Ignored, Rejected, Verdict, judge};
pub use wire::{Head, HeadError, Inline};
