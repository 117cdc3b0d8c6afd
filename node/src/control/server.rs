//! The node's end of the control socket: one task per client, all of them bounded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::framing::{LineBuffer, Pushed, decode_request, encode_line};
use super::messages::{ErrorBody, ErrorCode, Line};
use super::{Call, MAX_CLIENTS, MAX_REQUEST_BYTES, reply, socket};

/// Time for a client to send its request. Bounds how long an idle connection keeps its place.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the runtime to take a request from its queue before the client hears "busy".
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which a client hears that the node is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// Time for a client to read something: generous, because a paused terminal is no crime.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// Wait after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused.
    #[error("cannot open the control socket {socket}: {source}; check who owns the data directory")]
    Io {
        /// Where it was to be.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound control socket that nobody serves yet.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
}

impl Server {
    /// Binds `<data_dir>/control.sock`. The caller holds the data directory's lock.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(data_dir: &Path) -> Result<Self, BindError> {
        let socket = socket::socket_path(data_dir);
        let bound = socket::bind(data_dir).and_then(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        match bound {
            Ok(listener) => Ok(Self { listener, socket }),
            Err(source) => Err(BindError::Io { socket, source }),
        }
    }

    /// Serves clients until `shutdown`, handing their requests to `calls`; then removes the socket.
    pub async fn run(self, calls: mpsc::Sender<Call>, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut clients = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = clients.join_next() => continue,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                refuse_one_too_many(&stream);
                continue;
            };
            let calls = calls.clone();
            let shutdown = shutdown.clone();
            clients.spawn(async move {
                serve(stream, &calls, &shutdown).await;
                drop(place);
            });
        }
        drop(self.listener);
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the control socket was gone already");
        }
        while clients.join_next().await.is_some() {}
    }
}

/// Tells a client that the node has enough of them, without waiting for it.
fn refuse_one_too_many(stream: &UnixStream) {
    let body = ErrorBody::new(ErrorCode::Error, format!("the node already serves {MAX_CLIENTS} control clients"))
        .with_hint("end some of them (`updraft events -f` counts), then try again");
    // A fresh socket's buffer holds this line; a client for which it does not is not owed it.
    let _ = stream.try_write(&encode_line(&Line::<()>::Error(body)));
}

async fn serve(stream: UnixStream, calls: &mpsc::Sender<Call>, shutdown: &CancellationToken) {
    let (mut reader, mut writer) = stream.into_split();
    let end = match request(&mut reader).await {
        Ok(Some(line)) => converse(&line, &mut reader, &mut writer, calls, shutdown).await,
        Ok(None) => Ok(()),
        Err(body) => Err(body),
    };
    if let Err(body) = end {
        let _ = send(&mut writer, &Line::<()>::Error(body)).await;
    }
}

/// Reads the request line; `None` where the client left without one.
async fn request(reader: &mut OwnedReadHalf) -> Result<Option<Vec<u8>>, ErrorBody> {
    match timeout(REQUEST_TIMEOUT, read_line(reader, MAX_REQUEST_BYTES)).await {
        Ok(Ok(line)) => Ok(line),
        Ok(Err(error)) => Err(ErrorBody::new(ErrorCode::Usage, error.to_string())),
        Err(_) => {
            Err(ErrorBody::new(ErrorCode::Usage, format!("no request came within {} s", REQUEST_TIMEOUT.as_secs())))
        }
    }
}

async fn read_line(reader: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = LineBuffer::new(limit);
    let mut chunk = vec![0; 8 * 1024];
    loop {
        let count = reader.read(&mut chunk).await?;
        if count == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let pushed = buffer.push(&chunk[..count]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Pushed::Complete(_) = pushed {
            return Ok(Some(buffer.take()));
        }
    }
}

/// Hands the request on and the replies back. An error is still to be sent to the client.
async fn converse(
    line: &[u8],
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    calls: &mpsc::Sender<Call>,
    shutdown: &CancellationToken,
) -> Result<(), ErrorBody> {
    let request = decode_request(line)?;
    let (sender, mut receiver) = reply::channel();
    match calls.send_timeout(Call { request, reply: sender }, QUEUE_TIMEOUT).await {
        Ok(()) => {}
        Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(stopping()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
            return Err(ErrorBody::new(ErrorCode::Error, "the node is too busy to take a request")
                .with_hint("try again in a moment; `updraft status` shows what it does"));
        }
    }
    let mut hung_up = std::pin::pin!(hang_up(reader));
    loop {
        let line = tokio::select! {
            biased;
            line = timeout(HEARTBEAT, receiver.next()) => line,
            () = &mut hung_up => return Ok(()),
            () = shutdown.cancelled() => return Err(stopping()),
        };
        match line {
            Ok(Some(line)) => {
                let last = matches!(line, Line::Result(_) | Line::Error(_));
                // Also ends where the client went away: dropping the receiver tells the runtime.
                if send(writer, &line).await.is_err() || last {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(_) => {
                if send(writer, &Line::<()>::Heartbeat {}).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::NodeUnreachable, "the node is stopping")
        .with_hint("start it again, then repeat the command")
}

/// Waits until the client closes its end; whatever else it sends is of no meaning.
async fn hang_up(reader: &mut OwnedReadHalf) {
    let mut scrap = [0; 256];
    while matches!(reader.read(&mut scrap).await, Ok(count) if count > 0) {}
}

async fn send<R: Serialize>(writer: &mut OwnedWriteHalf, line: &Line<R>) -> io::Result<()> {
    match timeout(WRITE_TIMEOUT, writer.write_all(&encode_line(line))).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests;
