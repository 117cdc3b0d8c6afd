//! One Updraft node: a pure engine that decides, and thin shells that do.

pub mod atomic;
pub mod engine;
pub mod publisher;
