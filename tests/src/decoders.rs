//! Every decoder of bytes from outside, each behind one function that takes any bytes at all.
//!
//! A body asserts what must hold for whatever it is given: what was decoded survives its encoding, what
//! is exact has one form, what is refused changed nothing, what is accepted is signed. `tests/fuzz`
//! feeds the bodies with what it invents; `tests/targets/corpus.rs` feeds them with what was kept,
//! on every run of the tests. A body depends on its argument alone: the same bytes do the same again.

mod archive;
mod config;
mod head;
mod metadata;
mod repository;
pub mod seeds;
mod session;
mod text;
mod tuf;
mod wire;

pub use archive::{compressed_tar, tar, zip};
pub use config::config;
pub use head::{evidence, head};
pub use metadata::{canonical, channel_policy, key, manifest, release, ticket};
pub use session::session;
pub use text::{http, names, path_pattern};
pub use tuf::{root, snapshot, targets, timestamp};
pub use wire::{control_socket, meta, transfer};

/// One decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Its name: of its corpus directory, and of its target in `tests/fuzz`.
    pub name: &'static str,
    /// Takes any bytes, and panics where something does not hold. Tells whether they were accepted, in
    /// any of the roles that the body offers them in: where nothing ever is, only refusals are tested.
    pub body: fn(&[u8]) -> bool,
}

/// All of them.
pub const ALL: [Decoder; 23] = [
    Decoder { name: "canonical", body: canonical },
    Decoder { name: "channel_policy", body: channel_policy },
    Decoder { name: "compressed_tar", body: compressed_tar },
    Decoder { name: "config", body: config },
    Decoder { name: "control_socket", body: control_socket },
    Decoder { name: "evidence", body: evidence },
    Decoder { name: "head", body: head },
    Decoder { name: "http", body: http },
    Decoder { name: "key", body: key },
    Decoder { name: "manifest", body: manifest },
    Decoder { name: "meta", body: meta },
    Decoder { name: "names", body: names },
    Decoder { name: "path_pattern", body: path_pattern },
    Decoder { name: "release", body: release },
    Decoder { name: "root", body: root },
    Decoder { name: "session", body: session },
    Decoder { name: "snapshot", body: snapshot },
    Decoder { name: "tar", body: tar },
    Decoder { name: "targets", body: targets },
    Decoder { name: "ticket", body: ticket },
    Decoder { name: "timestamp", body: timestamp },
    Decoder { name: "transfer", body: transfer },
    Decoder { name: "zip", body: zip },
];
