//! The local API: how the command line talks to a running node.
//!
//! A Unix socket in the node's data directory, readable by its owner alone. One connection carries
//! one request, a single line of JSON; the node answers with lines of JSON until a `result` or an
//! `error` ends the conversation. Closing the connection cancels what was asked for.
//!
//! Architecture invariant: this shell knows nothing of the swarm, the store or the installer. It
//! turns bytes into a [`Call`], and what the runtime replies into bytes. It never holds more than a
//! bounded amount for anybody, and it never makes the runtime wait.

pub mod channels;
pub mod client;
pub mod error;
pub mod fleet;
pub mod framing;
pub mod garbage;
pub mod messages;
pub mod reply;
pub mod results;
pub mod server;
pub mod socket;
pub mod traffic;
mod version_text;
pub mod views;

#[cfg(test)]
pub(crate) mod contract;

use messages::Request;
use reply::ReplySender;

/// Clients served at once. Bounds the memory that a script gone wild can cost the node.
pub const MAX_CLIENTS: usize = 64;

/// Bytes of release notes in a publish request.
pub const MAX_NOTES_BYTES: usize = updraft_protocol::limits::MAX_INLINE_NOTES_BYTES;

/// Bytes of one request line: the longest notes with every byte escaped (`\u0000`), and room.
pub const MAX_REQUEST_BYTES: usize = 6 * MAX_NOTES_BYTES + 64 * 1024;

/// Bytes of one reply line that a client reads: a status or release list of a very large node.
pub const MAX_REPLY_BYTES: usize = 16 * 1024 * 1024;

/// Events that wait for one client; the oldest are lost beyond it, and counted.
pub const MAX_QUEUED_EVENTS: usize = 256;

/// A request and the way to answer it: what the runtime receives.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub request: Request,
    /// Where progress, events and the end go. Dropping it unanswered tells the client so.
    pub reply: ReplySender,
}
