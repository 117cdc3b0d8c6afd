//! What two Updraft nodes must agree on: names, signed metadata, the gossip message, the piece
//! manifest and the wire messages.
//!
//! Architecture invariant: nothing here touches a socket, a file, a clock, a random source or an
//! executor. Bytes and `now` come in, a verdict goes out. `clippy.toml` in this crate bans the
//! standard library's doors to all of them.

pub mod bitmap;
pub mod canonical;
pub mod digest;
pub mod head;
pub mod key;
pub mod key_file;
pub mod limits;
pub mod manifest;
pub mod meta;
pub mod names;
pub mod offer;
pub mod outcome;
pub mod peer;
pub mod release;
pub mod rollout;
pub mod ticket;
pub mod time;
pub mod transfer;
pub mod tuf;
