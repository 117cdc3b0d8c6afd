//! What Updraft's end-to-end tests stand on.
//!
//! - [`cluster`]: real nodes in one process.
//! - [`process`]: real processes. [`relay`]: a slow link between them. [`http`]: a small client.
//! - [`repository`]: a signed repository made in memory.
//! - [`forge`]: whatever the holders of its keys can sign.
//! - [`software`]: a real release to publish.
//! - [`shelf`]: files behind a small HTTP server.
//! - [`tuf_client`]: a plain TUF client over the nodes' verifier, for judges from outside.
//! - [`virtual_network`]: many engines in virtual time, over links with rates and latency.

pub mod cluster;
pub mod forge;
pub mod http;
pub mod process;
pub mod relay;
pub mod repository;
pub mod shelf;
pub mod software;
pub mod tuf_client;
pub mod virtual_network;
