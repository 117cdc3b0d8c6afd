//! The seam between the network and the store: blocks go from one to the other without passing the
//! event loop.

use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::{BlockRange, ObjectId, ObjectKind};

use crate::engine::input::BlockOutcome;
use crate::store::{self, Store};
use crate::swarm::{BlockIo, Written};

/// Reads and writes blocks in a store.
#[derive(Debug)]
pub(super) struct StoreBlocks(pub(super) Store);

impl BlockIo for StoreBlocks {
    fn read(&self, object: &ObjectId, block: BlockRange, buffer: &mut Vec<u8>) -> Result<(), String> {
        let artifact = match object.kind {
            ObjectKind::Artifact => self.0.get(&object.digest),
            ObjectKind::Content => None,
        };
        let artifact = artifact.ok_or_else(|| "it is not in the store".to_owned())?;
        artifact.read_block(block, buffer).map_err(|error| error.to_string())
    }

    fn write(&self, from: &PeerId, object: &ObjectId, block: BlockRange, bytes: &[u8]) -> Written {
        let Some(artifact) = self.0.get(&object.digest) else {
            return BlockOutcome::Failed("it is not in the store any more".to_owned()).into();
        };
        let (outcome, liars) = match artifact.write_block_of(from, block, bytes) {
            Ok(written) => written,
            Err(error) => return BlockOutcome::Failed(error.to_string()).into(),
        };
        let outcome = match outcome {
            store::BlockOutcome::Stored => BlockOutcome::Stored,
            store::BlockOutcome::Duplicate => BlockOutcome::Duplicate,
            store::BlockOutcome::PieceVerified(piece) => BlockOutcome::PieceVerified(piece),
            store::BlockOutcome::PieceRejected(piece) => BlockOutcome::PieceRejected(piece),
        };
        Written { outcome, liars }
    }
}
