//! What makes a node a seed: packing, cutting, signing.

pub mod draft;
pub mod keys;
