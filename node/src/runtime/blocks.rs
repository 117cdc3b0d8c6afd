//! The seam between the network and the store: blocks go from one to the other without passing the
//! event loop.

use updraft_protocol::transfer::{BlockRange, ObjectId, ObjectKind};

use crate::engine::input::BlockOutcome;
use crate::store::{self, Store};
use crate::swarm::BlockIo;

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

    fn write(&self, object: &ObjectId, block: BlockRange, bytes: &[u8]) -> BlockOutcome {
        let Some(artifact) = self.0.get(&object.digest) else {
            return BlockOutcome::Failed("it is not in the store any more".to_owned());
        };
        match artifact.write_block(block, bytes) {
            Ok(store::BlockOutcome::Stored) => BlockOutcome::Stored,
            Ok(store::BlockOutcome::Duplicate) => BlockOutcome::Duplicate,
            Ok(store::BlockOutcome::PieceVerified(piece)) => BlockOutcome::PieceVerified(piece),
            Ok(store::BlockOutcome::PieceRejected(piece)) => BlockOutcome::PieceRejected(piece),
            Err(error) => BlockOutcome::Failed(error.to_string()),
        }
    }
}
