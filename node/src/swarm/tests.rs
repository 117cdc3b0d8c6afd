//! Whole network shells against each other, and against peers that do not play by the rules, on
//! this machine's loopback.

mod bench;
mod gossip;
mod harness;
mod hostile;
mod meta;
mod sessions;
mod stock;
mod tls;
mod transfer;
