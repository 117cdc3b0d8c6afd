//! What Updraft's end-to-end tests stand on.
//!
//! - [`decoders`]: every decoder of bytes from outside, for fuzzing and for the corpora.
//! - [`cluster`]: real nodes in one process. [`crash`]: one that is crashed at a step.
//! - [`forge`], [`malicious`], [`lab`]: signed sets right and wrong, peers that do anything but forge
//!   signatures, and the nodes that have to stand it.
//! - [`piece_store`]: a store without bytes, for models.
//! - [`itself`]: the program as a product of its own.
//! - [`machine`]: a real systemd, in namespaces of its own.
//! - [`process`]: real processes. [`relay`]: a slow link between them. [`http`]: a small client.
//! - [`repository`]: a signed repository made in memory.
//! - [`holder`]: an engine's repository in the hands of whoever has its keys.
//! - [`software`]: a real release to publish.
//! - [`shelf`]: files behind a small HTTP server.
//! - [`swarm_model`]: many schedulers in virtual time. [`swarm_scenarios`]: swarms worth a look.
//! - [`tuf_client`]: a plain TUF client over the nodes' verifier, for judges from outside.
//! - [`virtual_network`]: many engines in virtual time, over links with rates and latency.

pub mod cluster;
pub mod crash;
pub mod decoders;
pub mod forge;
pub mod holder;
pub mod http;
pub mod itself;
pub mod lab;
pub mod machine;
pub mod malicious;
pub mod piece_store;
pub mod process;
pub mod relay;
pub mod repository;
pub mod shelf;
pub mod software;
pub mod swarm_model;
pub mod swarm_scenarios;
pub mod tuf_client;
pub mod virtual_network;

/// The time, as metadata states it.
pub fn now() -> updraft_protocol::time::UtcTime {
    updraft::runtime::open::wall_clock()
}
