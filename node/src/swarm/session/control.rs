//! The control stream: frames in, frames out.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};
use updraft_protocol::transfer::Control;

use super::{Common, Handle, KEEP_ALIVE, Reason, SIGN_OF_LIFE, progress};
use crate::engine::input::SwarmInput;

/// Bytes before each frame's body.
const HEADER_BYTES: usize = 4;
/// Bytes read at once, and kept between frames. A longer frame gets as many as it has.
const READ_BYTES: usize = 4 * 1024;

/// Reads messages and hands them to the engine, until the stream or the peer fails.
pub(super) async fn receive(common: &Common, handle: &Arc<Handle>, mut stream: impl AsyncRead + Unpin) -> Reason {
    let mut frames = Frames::default();
    loop {
        loop {
            let body = match frames.next() {
                Ok(Some(body)) => body,
                Ok(None) => break,
                Err(reason) => return reason,
            };
            common.counters.add_control_in(u64::try_from(HEADER_BYTES + body.len()).unwrap_or(u64::MAX));
            if body.is_empty() {
                handle.answer_sign_of_life();
                continue;
            }
            let message = match Control::decode(body) {
                Ok(message) => message,
                Err(error) => return error.to_string(),
            };
            if common.inputs.send(SwarmInput::Control { peer: handle.peer.clone(), message }).await.is_err() {
                return "the node is stopping".to_owned();
            }
        }
        let (room, inside) = frames.room();
        let read = if inside { progress(stream.read(room)).await } else { read_first(handle, &mut stream, room).await };
        let error = match read {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(read) => {
                handle.heard();
                frames.end += read;
                continue;
            }
            Err(error) => error,
        };
        return match error.kind() {
            io::ErrorKind::TimedOut if !inside => "the peer fell silent".to_owned(),
            _ if inside => format!("the control stream broke inside a frame: {error}"),
            _ => format!("the connection is gone: {error}"),
        };
    }
}

/// Bytes that were read, and the frames in them.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// The body of the next frame that is there whole.
    fn next(&mut self) -> Result<Option<&[u8]>, Reason> {
        let there = &self.bytes[self.start..self.end];
        let Some(header) = there.first_chunk() else { return Ok(None) };
        let length = Control::frame_length(*header).map_err(|error| error.to_string())?;
        let Some(body) = there.get(HEADER_BYTES..HEADER_BYTES + length) else { return Ok(None) };
        self.start += HEADER_BYTES + length;
        Ok(Some(body))
    }

    /// Where to read to, and whether a frame was begun. Its length was found to be within bounds.
    fn room(&mut self) -> (&mut [u8], bool) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let begun = self.bytes[..self.end].first_chunk().and_then(|header| Control::frame_length(*header).ok());
        let size = READ_BYTES.max(HEADER_BYTES + begun.unwrap_or(0));
        if self.bytes.len() != size {
            self.bytes.resize(size, 0);
            self.bytes.shrink_to(size);
        }
        (&mut self.bytes[self.end..], self.end > 0)
    }
}

/// Waits for the next frame for as long as the peer gives signs of life on either stream.
async fn read_first(handle: &Arc<Handle>, stream: &mut (impl AsyncRead + Unpin), room: &mut [u8]) -> io::Result<usize> {
    let mut read = pin!(stream.read(room));
    handle.heard();
    loop {
        let silent_at = handle.silent_at();
        match timeout_at(silent_at, &mut read).await {
            Ok(read) => return read,
            Err(_) if handle.silent_at() <= silent_at => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

/// Writes what is queued, and a sign of life where nothing is. Ends when the outbox is closed and
/// empty, or the peer does not read.
pub(super) async fn send(common: &Common, handle: &Arc<Handle>, mut stream: impl AsyncWrite + Unpin) -> Reason {
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
        handle.said();
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
