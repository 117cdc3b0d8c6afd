//! The receiving half of the data stream: blocks from the network into the store.
//!
//! While one block is being stored the next is read. A block's buffer is free again only when the
//! engine has been told of it, so that a slow store or a busy engine stops the reading, and with it
//! the sender, and nothing piles up.

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt};
use tokio_util::task::TaskTracker;
use updraft_protocol::transfer::{BlockHeader, BlockRange, ObjectId};

use super::wanted::Arrival;
use super::{Common, Handle, Reason, lock, progress};
use crate::engine::input::{BlockOutcome, SwarmInput};
use crate::swarm::buffers::{Buffer, Lane};

/// Bytes that nobody asked for before the session ends. Bounds what a peer can make us read.
const MAX_UNSOLICITED_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes read at once of a block that is dropped.
const DROP_CHUNK_BYTES: usize = 64 * 1024;

/// The blocks of a session that are being stored.
#[derive(Debug, Default)]
pub(super) struct Storing(TaskTracker);

impl Storing {
    /// Waits until all are stored and reported.
    pub(super) async fn finish(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Receives blocks until the stream or the peer fails.
pub(super) async fn run(
    common: &Common,
    handle: &Arc<Handle>,
    lane: &Lane,
    storing: &Storing,
    mut stream: impl AsyncRead + Unpin,
) -> Reason {
    let mut unsolicited = 0;
    loop {
        let mut header = [0; BlockHeader::BYTES];
        if let Err(error) = stream.read_exact(&mut header).await {
            return format!("the connection is gone: {error}");
        }
        let header = match BlockHeader::decode(&header) {
            Ok(header) => header,
            Err(error) => return error.to_string(),
        };
        let arrival = lock(&handle.wanted).arrived(header.handle, header.block);
        let received = match arrival {
            Arrival::Expected(object) => {
                let mut buffer = lane.buffer().await;
                let received = receive(handle, &mut stream, &mut buffer, header.block).await;
                if received.is_ok() {
                    common.counters.add_payload_in(u64::from(header.block.length));
                    storing.0.spawn(store(common.clone(), Arc::clone(handle), object, header.block, buffer));
                }
                received
            }
            Arrival::Late | Arrival::Unsolicited => {
                if arrival == Arrival::Unsolicited {
                    unsolicited += u64::from(header.block.length);
                }
                if unsolicited > MAX_UNSOLICITED_BYTES {
                    return "the peer sends blocks that nobody asked for".to_owned();
                }
                skip(common, handle, &mut stream, header.block).await
            }
        };
        if let Err(reason) = received {
            return reason;
        }
    }
}

/// Reads a block's bytes.
async fn receive(
    handle: &Handle,
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
    block: BlockRange,
) -> Result<(), Reason> {
    let mut rest = buffer.room(block.length as usize);
    while !rest.is_empty() {
        let read = progress(stream.read(rest)).await.map_err(broken)?;
        if read == 0 {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        handle.heard();
        rest = &mut rest[read..];
    }
    Ok(())
}

/// Reads a block's bytes and drops them.
async fn skip(
    common: &Common,
    handle: &Handle,
    stream: &mut (impl AsyncRead + Unpin),
    block: BlockRange,
) -> Result<(), Reason> {
    let mut sink = vec![0; DROP_CHUNK_BYTES];
    let mut left = block.length as usize;
    while left > 0 {
        let most = left.min(sink.len());
        let read = progress(stream.read(&mut sink[..most])).await.map_err(broken)?;
        if read == 0 {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        handle.heard();
        left -= read;
    }
    common.counters.add_unsolicited_in(u64::from(block.length));
    let input = SwarmInput::BlockUnsolicited { peer: handle.peer.clone(), block };
    common.inputs.send(input).await.map_err(|_| "the node is stopping".to_owned())
}

#[allow(clippy::needless_pass_by_value, reason = "it is used as a mapping of errors")]
fn broken(error: std::io::Error) -> Reason {
    format!("the data stream broke inside a block: {error}")
}

/// Stores a block on the blocking pool and reports what came of it.
async fn store(common: Common, handle: Arc<Handle>, object: ObjectId, block: BlockRange, buffer: Buffer) {
    let slot = Arc::clone(&common.io_slots).acquire_owned().await;
    let io = Arc::clone(&common.io);
    let written = tokio::task::spawn_blocking(move || {
        let outcome = io.write(&object, block, &buffer[..block.length as usize]);
        drop(slot);
        (outcome, buffer)
    });
    let (outcome, buffer) = match written.await {
        Ok((outcome, buffer)) => (outcome, Some(buffer)),
        Err(error) => (BlockOutcome::Failed(format!("the store failed: {error}")), None),
    };
    let peer = handle.peer.clone();
    let _ = common.inputs.send(SwarmInput::BlockArrived { peer, object, block, outcome }).await;
    drop(buffer);
}
