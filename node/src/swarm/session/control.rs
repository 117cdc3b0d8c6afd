//! The control stream: frames in, frames out.

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};
use updraft_protocol::transfer::Control;

use super::{Common, Handle, KEEP_ALIVE, Reason, progress};
use crate::engine::input::SwarmInput;

/// Bytes before each frame's body.
const HEADER_BYTES: u64 = 4;

/// Reads messages and hands them to the engine, until the stream or the peer fails.
pub(super) async fn receive(common: &Common, handle: &Arc<Handle>, mut stream: impl AsyncRead + Unpin) -> Reason {
    let mut body = Vec::new();
    loop {
        let mut header = [0; 4];
        if let Err(reason) = read_header(handle, &mut stream, &mut header).await {
            return reason;
        }
        let length = match Control::frame_length(header) {
            Ok(length) => length,
            Err(error) => return error.to_string(),
        };
        body.resize(length, 0);
        if let Err(error) = progress(stream.read_exact(&mut body)).await {
            return format!("the control stream broke inside a frame: {error}");
        }
        handle.heard();
        common.counters.add_control_in(HEADER_BYTES + u64::try_from(length).unwrap_or(u64::MAX));
        if length == 0 {
            continue; // A sign of life.
        }
        let message = match Control::decode(&body) {
            Ok(message) => message,
            Err(error) => return error.to_string(),
        };
        if common.inputs.send(SwarmInput::Control { peer: handle.peer.clone(), message }).await.is_err() {
            return "the node is stopping".to_owned();
        }
    }
}

/// Waits for the next frame for as long as the peer gives signs of life on either stream.
async fn read_header(
    handle: &Arc<Handle>,
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut [u8; 4],
) -> Result<(), Reason> {
    let mut read = Box::pin(stream.read_exact(header));
    handle.heard();
    loop {
        let silent_at = handle.silent_at();
        match timeout_at(silent_at, &mut read).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => return Err(format!("the connection is gone: {error}")),
            Err(_) if handle.silent_at() <= silent_at => {
                return Err("the peer fell silent".to_owned());
            }
            Err(_) => {}
        }
    }
}

/// Writes what is queued, and a sign of life where nothing is. Ends when the outbox is closed and
/// empty, or the peer does not read.
pub(super) async fn send(common: &Common, handle: &Arc<Handle>, mut stream: impl AsyncWrite + Unpin) -> Reason {
    const SIGN_OF_LIFE: [u8; 4] = 0u32.to_be_bytes();
    let mut batch = Vec::new();
    loop {
        match timeout(KEEP_ALIVE, handle.outbox.batch(&mut batch)).await {
            Ok(true) => {}
            Ok(false) => {
                let _ = progress(stream.close()).await;
                return "the session was closed".to_owned();
            }
            Err(_) => batch.extend_from_slice(&SIGN_OF_LIFE),
        }
        let written = async {
            stream.write_all(&batch).await?;
            stream.flush().await
        };
        if let Err(error) = progress(written).await {
            return format!("the peer does not take its control messages: {error}");
        }
        common.counters.add_control_out(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        if batch.capacity() > 2 * 64 * 1024 {
            batch = Vec::new();
        }
    }
}
