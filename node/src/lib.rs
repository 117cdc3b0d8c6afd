//! One Updraft node: a pure engine that decides, and thin shells that do.
//!
//! Read the modules in this order, which is the path of an update: [`publisher`] packs, cuts and
//! signs; [`engine`] validates, plans, fetches and installs, as pure decisions; [`swarm`], [`store`]
//! and [`installer`] carry them out; [`control`], [`gateway`] and the command line report.
//! [`runtime`] is where they meet.

pub mod archive;
pub mod atomic;
pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
pub mod gateway;
pub mod installer;
pub mod publisher;
pub mod runtime;
pub mod store;
pub mod swarm;
pub mod telemetry;
