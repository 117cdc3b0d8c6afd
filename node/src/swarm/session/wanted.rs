//! Which blocks a session may bring.
//!
//! A block that was asked for is taken once. One that was cancelled may be under way and arrive all
//! the same: it is dropped and not held against the peer. Any other is unsolicited.

use std::collections::{HashMap, VecDeque};

use updraft_protocol::limits::MAX_QUEUED_REQUESTS;
use updraft_protocol::transfer::{BlockRange, ObjectId};

use super::Full;

/// What a block that arrives is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Asked for, of this object.
    Expected(ObjectId),
    /// Cancelled, too late to stop it.
    Late,
    /// Never asked for, or sent twice.
    Unsolicited,
}

/// The requests of one session.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    requests: HashMap<(u32, BlockRange), ObjectId>,
    /// Cancelled lately, oldest first.
    cancelled: VecDeque<(u32, BlockRange)>,
}

impl Wanted {
    pub(super) fn insert(&mut self, handle: u32, block: BlockRange, object: ObjectId) -> Result<(), Full> {
        if self.requests.len() >= MAX_QUEUED_REQUESTS {
            return Err(Full);
        }
        self.requests.insert((handle, block), object);
        Ok(())
    }

    pub(super) fn cancel(&mut self, handle: u32, block: BlockRange) {
        if self.requests.remove(&(handle, block)).is_some() {
            if self.cancelled.len() >= MAX_QUEUED_REQUESTS {
                self.cancelled.pop_front();
            }
            self.cancelled.push_back((handle, block));
        }
    }

    pub(super) fn arrived(&mut self, handle: u32, block: BlockRange) -> Arrival {
        if let Some(object) = self.requests.remove(&(handle, block)) {
            return Arrival::Expected(object);
        }
        match self.cancelled.iter().position(|cancelled| *cancelled == (handle, block)) {
            Some(at) => {
                self.cancelled.remove(at);
                Arrival::Late
            }
            None => Arrival::Unsolicited,
        }
    }
}

#[cfg(test)]
mod tests {
    use updraft_protocol::digest::Digest;
    use updraft_protocol::transfer::ObjectKind;

    use super::*;

    const OBJECT: ObjectId = ObjectId { kind: ObjectKind::Artifact, digest: Digest::ZERO };

    fn block(number: usize) -> BlockRange {
        BlockRange { offset: 16_384 * u64::try_from(number).expect("fits"), length: 16_384 }
    }

    #[test]
    fn a_block_is_taken_once() {
        let mut wanted = Wanted::default();
        assert_eq!(wanted.insert(1, block(0), OBJECT), Ok(()));
        assert_eq!(wanted.arrived(2, block(0)), Arrival::Unsolicited);
        assert_eq!(wanted.arrived(1, block(0)), Arrival::Expected(OBJECT));
        assert_eq!(wanted.arrived(1, block(0)), Arrival::Unsolicited);
    }

    #[test]
    fn a_cancelled_block_is_late_once() {
        let mut wanted = Wanted::default();
        assert_eq!(wanted.insert(1, block(0), OBJECT), Ok(()));
        wanted.cancel(1, block(0));
        wanted.cancel(1, block(1));
        assert_eq!(wanted.arrived(1, block(0)), Arrival::Late);
        assert_eq!(wanted.arrived(1, block(0)), Arrival::Unsolicited);
        assert_eq!(wanted.arrived(1, block(1)), Arrival::Unsolicited);
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut wanted = Wanted::default();
        for number in 0..MAX_QUEUED_REQUESTS {
            assert_eq!(wanted.insert(1, block(number), OBJECT), Ok(()));
        }
        assert_eq!(wanted.insert(1, block(MAX_QUEUED_REQUESTS), OBJECT), Err(Full));
        for number in 0..2 * MAX_QUEUED_REQUESTS {
            wanted.cancel(1, block(number));
            assert_eq!(wanted.insert(1, block(MAX_QUEUED_REQUESTS + number), OBJECT), Ok(()));
        }
        assert_eq!(wanted.cancelled.len(), MAX_QUEUED_REQUESTS);
    }
}
