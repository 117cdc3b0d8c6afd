//! What Updraft's end-to-end tests stand on.
//!
//! - [`cluster`]: real nodes in one process.
//! - [`repository`]: a signed repository made in memory.
//! - [`virtual_network`]: many engines in virtual time, over links with rates and latency.

pub mod cluster;
pub mod repository;
pub mod virtual_network;
