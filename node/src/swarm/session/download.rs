//! The receiving half of the data stream: blocks from the network into the store.
//!
//! While one block is being stored the next is read. A block's buffer is free again only when the
//! engine has been told of it, so that a slow store or a busy engine stops the reading, and with it
//! the sender, and nothing piles up.

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use updraft_protocol::transfer::{BlockHeader, BlockRange};

use super::storing::{Arrived, Storing};
use super::wanted::Arrival;
use super::{BLOCK_DEADLINE, Common, Handle, Reason, lock, progress};
use crate::engine::input::SwarmInput;
use crate::swarm::buffers::{Buffer, Lane};

/// Bytes that nobody asked for before the session ends. Bounds what a peer can make us read.
const MAX_UNSOLICITED_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes read at once of a block that is dropped.
const DROP_CHUNK_BYTES: usize = 64 * 1024;

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
                let mut buffer = lane.buffer(header.block.length as usize).await;
                let receiving = receive(handle, &mut stream, &mut buffer, header.block);
                let received = timeout(BLOCK_DEADLINE, receiving).await;
                let received = received.unwrap_or_else(|_| Err("the peer takes too long for a block".to_owned()));
                if received.is_ok() {
                    common.counters.add_payload_in(u64::from(header.block.length));
                    storing.push(Arrived { object, block: header.block, buffer });
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
