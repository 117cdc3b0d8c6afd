//! What Updraft's end-to-end tests stand on.
//!
//! - [`decoders`]: every decoder of bytes from outside, for fuzzing and for the corpora.
//! - [`cluster`]: real nodes in one process.
//! - [`process`]: real processes. [`relay`]: a slow link between them. [`http`]: a small client.
//! - [`repository`]: a signed repository made in memory.
//! - [`software`]: a real release to publish.
//! - [`virtual_network`]: many engines in virtual time, over links with rates and latency.

pub mod cluster;
pub mod decoders;
pub mod http;
pub mod process;
pub mod relay;
pub mod repository;
pub mod software;
pub mod virtual_network;
