//! What Updraft's end-to-end tests stand on.
//!
//! - [`repository`]: a signed repository made in memory.
//! - [`virtual_network`]: many engines in virtual time, over links with rates and latency.

pub mod repository;
pub mod virtual_network;
