//! Reads and writes metadata messages: a big-endian `u32` length and that many bytes.
//!
//! libp2p clones the codec for each stream, writes the request with the clone and reads the answer
//! with the same clone. That is how a clone knows how long the answer may be.

use std::io;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use tokio::sync::Semaphore;
use updraft_protocol::limits::MAX_META_REQUEST_BYTES;
use updraft_protocol::meta::{MetaRequest, MetaResponse};

/// KiB of answers that are being received by all streams together.
const RECEIVING_KIB: usize = 64 * 1024;
/// Memory is taken in steps of this size, as bytes arrive: a length is only a promise.
const STEP_BYTES: usize = 64 * 1024;

/// The codec of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Codec {
    /// Most bytes of the answer to what was asked on this stream.
    max_response_bytes: u64,
    receiving: Arc<Semaphore>,
}

impl Codec {
    pub(super) fn new() -> Self {
        Self { max_response_bytes: 0, receiving: Arc::new(Semaphore::new(RECEIVING_KIB)) }
    }
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Reads a message whose announced length is within `limit`.
async fn read_bounded(stream: &mut (impl AsyncRead + Unpin), limit: u64, budget: &Semaphore) -> io::Result<Vec<u8>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let announced = u32::from_be_bytes(header);
    if u64::from(announced) > limit {
        return Err(invalid(format!("a message of {announced} bytes; the most here is {limit}")));
    }
    let permits = budget.acquire_many(announced.div_ceil(1024)).await.map_err(invalid)?;
    let announced = usize::try_from(announced).map_err(invalid)?;
    let mut message = Vec::new();
    while message.len() < announced {
        let start = message.len();
        message.resize(announced.min(start + STEP_BYTES), 0);
        stream.read_exact(&mut message[start..]).await?;
    }
    drop(permits);
    Ok(message)
}

async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(invalid)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = MetaRequest;
    type Response = MetaResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<MetaRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        // A request is too small to draw on the budget, which answers may have used up.
        let own = Semaphore::new(RECEIVING_KIB);
        let message = read_bounded(stream, MAX_META_REQUEST_BYTES, &own).await?;
        MetaRequest::decode(&message).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<MetaResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        let message = read_bounded(stream, self.max_response_bytes, &self.receiving).await?;
        MetaResponse::decode(&message).map_err(invalid)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, request: MetaRequest) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.max_response_bytes = request.max_response_bytes();
        write_message(stream, &request.encode()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, response: MetaResponse) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_message(stream, &response.encode()).await
    }
}
