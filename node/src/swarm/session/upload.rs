//! The sending half of the data stream: blocks from the store to the network.
//!
//! While some blocks are being written to the network the next are read from the store, and no more
//! than that: what a peer does not take stays on disk. Small blocks are read several at a time,
//! because going to the blocking pool and back costs as much as reading one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use updraft_protocol::transfer::BlockHeader;

use super::{BLOCK_DEADLINE, Common, Handle, Reason, Upload, lock, progress};
use crate::engine::input::SwarmInput;
use crate::swarm::BlockIo;
use crate::swarm::buffers::{Buffer, Lane};

/// Bytes of blocks read in one go, unless the first is longer. What was read can no longer be
/// withdrawn.
const GO_BYTES: usize = 128 * 1024;

/// Blocks that were read: one behind the other, each behind its header.
struct Go {
    blocks: Vec<Upload>,
    buffer: Buffer,
}

/// Sends queued blocks until the stream or the peer fails.
pub(super) async fn run(common: &Common, handle: &Arc<Handle>, lane: &Lane, stream: impl AsyncWrite + Unpin) -> Reason {
    let (read, blocks) = mpsc::channel(1);
    tokio::select! {
        reason = read_ahead(common, handle, lane, read) => reason,
        reason = write(common, handle, blocks, stream) => reason,
    }
}

/// How many blocks at the front of a queue, and how many bytes, fit into `most_bytes`.
fn fitting(queue: &VecDeque<Upload>, most_bytes: usize) -> (usize, usize) {
    let (mut blocks, mut bytes) = (0, 0);
    for upload in queue {
        let length = upload.block.length as usize;
        if bytes + length > most_bytes {
            break;
        }
        (blocks, bytes) = (blocks + 1, bytes + length);
    }
    (blocks, bytes)
}

/// Takes blocks off the queue and reads them.
async fn read_ahead(common: &Common, handle: &Arc<Handle>, lane: &Lane, goes: mpsc::Sender<Go>) -> Reason {
    loop {
        let bytes = queued(handle).await;
        // Blocks stay in the queue, where they can be dropped, until there is a buffer for them.
        let buffer = lane.buffer(bytes).await;
        let uploads: Vec<Upload> = {
            let mut queue = lock(&handle.uploads);
            let (blocks, _) = fitting(&queue, buffer.granted());
            queue.drain(..blocks).collect()
        };
        if uploads.is_empty() {
            continue;
        }
        let (go, unreadable) = match read(common, uploads, buffer).await {
            Ok(read) => read,
            Err(reason) => return reason,
        };
        for (Upload { object, block, .. }, reason) in unreadable {
            let input = SwarmInput::BlockUnreadable { peer: handle.peer.clone(), object, block, reason };
            if common.inputs.send(input).await.is_err() {
                return "the node is stopping".to_owned();
            }
        }
        if !go.blocks.is_empty() && goes.send(go).await.is_err() {
            return "the data stream is closed".to_owned();
        }
    }
}

/// Waits until a block is queued; the bytes of those that are to be read together.
async fn queued(handle: &Handle) -> usize {
    loop {
        let changed = handle.uploads_changed.notified();
        {
            let queue = lock(&handle.uploads);
            if let Some(first) = queue.front() {
                return fitting(&queue, GO_BYTES.max(first.block.length as usize)).1;
            }
        }
        changed.await;
    }
}

/// Reads blocks on the blocking pool; also those that cannot be read, and why.
async fn read(common: &Common, uploads: Vec<Upload>, buffer: Buffer) -> Result<(Go, Vec<(Upload, String)>), Reason> {
    let slot = Arc::clone(&common.io_slots).acquire_owned().await;
    let io = Arc::clone(&common.io);
    let read = tokio::task::spawn_blocking(move || {
        let read = read_all(&*io, uploads, buffer);
        drop(slot);
        read
    });
    read.await.map_err(|error| format!("the store failed: {error}"))
}

fn read_all(io: &dyn BlockIo, uploads: Vec<Upload>, mut buffer: Buffer) -> (Go, Vec<(Upload, String)>) {
    buffer.clear();
    let (mut blocks, mut unreadable) = (Vec::with_capacity(uploads.len()), Vec::new());
    for upload in uploads {
        let start = buffer.len();
        buffer.extend_from_slice(&BlockHeader { handle: upload.handle, block: upload.block }.encode());
        let read = io.read(&upload.object, upload.block, &mut buffer);
        let bytes = buffer.len().saturating_sub(start + BlockHeader::BYTES);
        match read {
            Ok(()) if bytes == upload.block.length as usize => blocks.push(upload),
            Ok(()) => {
                buffer.truncate(start);
                unreadable.push((upload, format!("the store returned {bytes} bytes")));
            }
            Err(reason) => {
                buffer.truncate(start);
                unreadable.push((upload, reason));
            }
        }
    }
    (Go { blocks, buffer }, unreadable)
}

/// Writes blocks in the order in which they were read.
async fn write(
    common: &Common,
    handle: &Handle,
    mut goes: mpsc::Receiver<Go>,
    mut stream: impl AsyncWrite + Unpin,
) -> Reason {
    let untaken = |error: io::Error| format!("the peer does not take its blocks: {error}");
    while let Some(Go { blocks, buffer }) = goes.recv().await {
        let mut rest = buffer.as_slice();
        for Upload { object, block, .. } in blocks {
            let (this, others) = rest.split_at(BlockHeader::BYTES + block.length as usize);
            rest = others;
            match timeout(BLOCK_DEADLINE, write_block(&mut stream, this)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return untaken(error),
                Err(_) => return "the peer takes too long for a block".to_owned(),
            }
            common.counters.add_payload_out(u64::from(block.length));
            if common.inputs.send(SwarmInput::BlockSent { peer: handle.peer.clone(), object, block }).await.is_err() {
                return "the node is stopping".to_owned();
            }
        }
        if let Err(error) = progress(stream.flush()).await {
            return untaken(error);
        }
    }
    "the data stream is closed".to_owned()
}

async fn write_block(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = progress(stream.write(bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}
