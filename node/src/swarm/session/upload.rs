//! The sending half of the data stream: blocks from the store to the network.
//!
//! While one block is being written to the network the next is read from the store, and no more
//! than that: what a peer does not take stays on disk.

use std::sync::Arc;

use futures::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use updraft_protocol::transfer::BlockHeader;

use super::{Common, Handle, Reason, Upload, lock, progress};
use crate::engine::input::SwarmInput;
use crate::swarm::buffers::{Buffer, Lane};

/// Sends queued blocks until the stream or the peer fails.
pub(super) async fn run(common: &Common, handle: &Arc<Handle>, lane: &Lane, stream: impl AsyncWrite + Unpin) -> Reason {
    let (read, blocks) = mpsc::channel(1);
    tokio::select! {
        reason = read_ahead(common, handle, lane, read) => reason,
        reason = write(common, handle, blocks, stream) => reason,
    }
}

/// Takes blocks off the queue and reads them.
async fn read_ahead(
    common: &Common,
    handle: &Arc<Handle>,
    lane: &Lane,
    blocks: mpsc::Sender<(Upload, Buffer)>,
) -> Reason {
    loop {
        queued(handle).await;
        // A block stays in the queue, where it can be dropped, until there is a buffer for it.
        let buffer = lane.buffer().await;
        let Some(upload) = lock(&handle.uploads).pop_front() else {
            continue;
        };
        match read(common, upload, buffer).await {
            Ok(buffer) => {
                if blocks.send((upload, buffer)).await.is_err() {
                    return "the data stream is closed".to_owned();
                }
            }
            Err(reason) => {
                let Upload { object, block, .. } = upload;
                let input = SwarmInput::BlockUnreadable { peer: handle.peer.clone(), object, block, reason };
                if common.inputs.send(input).await.is_err() {
                    return "the node is stopping".to_owned();
                }
            }
        }
    }
}

/// Waits until a block is queued.
async fn queued(handle: &Handle) {
    loop {
        let changed = handle.uploads_changed.notified();
        if !lock(&handle.uploads).is_empty() {
            return;
        }
        changed.await;
    }
}

/// Reads a block on the blocking pool, behind its header.
async fn read(common: &Common, upload: Upload, mut buffer: Buffer) -> Result<Buffer, String> {
    let slot = Arc::clone(&common.io_slots).acquire_owned().await;
    let io = Arc::clone(&common.io);
    let read = tokio::task::spawn_blocking(move || {
        let header = BlockHeader { handle: upload.handle, block: upload.block };
        buffer.clear();
        buffer.extend_from_slice(&header.encode());
        let read = io.read(&upload.object, upload.block, &mut buffer);
        drop(slot);
        read.map(|()| buffer)
    });
    let buffer = read.await.map_err(|error| format!("the store failed: {error}"))??;
    if buffer.len() == BlockHeader::BYTES + upload.block.length as usize {
        Ok(buffer)
    } else {
        Err(format!("the store returned {} bytes", buffer.len().saturating_sub(BlockHeader::BYTES)))
    }
}

/// Writes blocks in the order in which they were read.
async fn write(
    common: &Common,
    handle: &Handle,
    mut blocks: mpsc::Receiver<(Upload, Buffer)>,
    mut stream: impl AsyncWrite + Unpin,
) -> Reason {
    while let Some((upload, buffer)) = blocks.recv().await {
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            match progress(stream.write(rest)).await {
                Ok(0) => return "the data stream is closed".to_owned(),
                Ok(written) => rest = &rest[written..],
                Err(error) => return format!("the peer does not take its blocks: {error}"),
            }
        }
        if let Err(error) = progress(stream.flush()).await {
            return format!("the peer does not take its blocks: {error}");
        }
        drop(buffer);
        let Upload { object, block, .. } = upload;
        common.counters.add_payload_out(u64::from(block.length));
        if common.inputs.send(SwarmInput::BlockSent { peer: handle.peer.clone(), object, block }).await.is_err() {
            return "the node is stopping".to_owned();
        }
    }
    "the data stream is closed".to_owned()
}
