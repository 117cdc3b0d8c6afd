//! How many messages a node took and gave, by kind: what a swarm costs beside its bytes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::effect::SwarmEffect;
use crate::engine::input::SwarmInput;

/// Messages since the node started. Shared with whoever watches the node.
#[derive(Debug, Default)]
pub struct Messages {
    control_in: AtomicU64,
    control_out: AtomicU64,
    heads_in: AtomicU64,
    questions_in: AtomicU64,
    questions_out: AtomicU64,
    blocks_in: AtomicU64,
    blocks_out: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Messages {
    /// Control messages of sessions that arrived: greetings, announcements, haves, requests, cancels.
    pub fn control_in(&self) -> u64 {
        self.control_in.load(Ordering::Relaxed)
    }

    /// Control messages of sessions that were sent.
    pub fn control_out(&self) -> u64 {
        self.control_out.load(Ordering::Relaxed)
    }

    /// Gossiped heads that arrived.
    pub fn heads_in(&self) -> u64 {
        self.heads_in.load(Ordering::Relaxed)
    }

    /// Metadata requests of others.
    pub fn questions_in(&self) -> u64 {
        self.questions_in.load(Ordering::Relaxed)
    }

    /// Metadata requests to others.
    pub fn questions_out(&self) -> u64 {
        self.questions_out.load(Ordering::Relaxed)
    }

    /// Blocks that arrived, wanted or not.
    pub fn blocks_in(&self) -> u64 {
        self.blocks_in.load(Ordering::Relaxed)
    }

    /// Blocks that were sent whole.
    pub fn blocks_out(&self) -> u64 {
        self.blocks_out.load(Ordering::Relaxed)
    }

    /// Takes note of what came from the network.
    pub(super) fn heard(&self, input: &SwarmInput) {
        match input {
            SwarmInput::Control { .. } => add(&self.control_in),
            SwarmInput::Gossip { .. } => add(&self.heads_in),
            SwarmInput::MetaAsked { .. } => add(&self.questions_in),
            SwarmInput::BlockArrived { .. } | SwarmInput::BlockUnsolicited { .. } => add(&self.blocks_in),
            SwarmInput::BlockSent { .. } => add(&self.blocks_out),
            _ => {}
        }
    }

    /// Takes note of what goes to the network.
    pub(super) fn said(&self, effect: &SwarmEffect) {
        match effect {
            SwarmEffect::Control { .. } | SwarmEffect::Request { .. } | SwarmEffect::Cancel { .. } => {
                add(&self.control_out);
            }
            SwarmEffect::MetaAsk { .. } => add(&self.questions_out),
            _ => {}
        }
    }
}
