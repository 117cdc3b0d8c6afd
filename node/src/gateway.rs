//! The HTTP face: `GET /update` for apps, and the repository for any TUF client.
//!
//! | path | answer |
//! |---|---|
//! | `/update` | 200 and an offer, 204, 400 or 404: see [`update`] |
//! | `/metadata/FILE` | signed metadata: `timestamp.json`, `3.root.json`, `7.releases-editor.json` |
//! | `/targets/PATH` | targets under their consistent-snapshot names, `.../<sha256>.name` |
//! | `/healthz` | 200, or 503 with reasons |
//! | `/metrics` | `OpenMetrics` text, unless it has an address of its own |
//!
//! TUF percent-encodes role names in URLs. A path is decoded exactly once, here; the repository sees
//! the name as it stands in metadata, and never one with an empty, `.` or `..` component.
//!
//! Architecture invariant: this shell knows a [`Repository`] and nothing of the swarm, the store or
//! the publisher. It only reads. Whoever connects costs a bounded amount for a bounded time: a
//! connection has a place among [`MAX_CONNECTIONS`], its headers a deadline, its body one buffer and
//! a deadline for progress.

pub mod conditional;
pub mod files;
pub mod metrics;
pub mod range;
pub mod stall;
pub mod update;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use updraft_protocol::digest::Digest;

pub use metrics::Metrics;
pub use update::{Offer, UpdateAnswer, UpdateQuery};

/// Connections served at once; more wait in the listen queue. Bounds memory and descriptors.
pub const MAX_CONNECTIONS: usize = 256;

/// Time for a request's headers, and for the next request on an open connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Time without progress after which a reader of a body loses its connection.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's headers. Bounds memory per connection.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Time that open requests have to end once the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Wait after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the gateway can ask. Calls may read files; the gateway makes them off its own threads.
pub trait Repository: Send + Sync + 'static {
    /// A metadata file by its name in the repository (decoded once), whole.
    fn metadata(&self, file: &str) -> Option<Vec<u8>>;

    /// A target by its consistent-snapshot path, `releases/P/1.0.0/any/<sha256>.name`.
    fn target(&self, path: &str) -> Option<TargetFile>;

    /// What a caller of `/update` may have.
    fn update(&self, query: &UpdateQuery) -> UpdateAnswer;

    /// Whether the node is well.
    fn health(&self) -> Health;

    /// The node's numbers.
    fn metrics(&self) -> Metrics;
}

/// A target's file on this machine, complete and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// When it was last written to, where somebody else may write to it: then it is served only for as long
    /// as that stays so.
    pub modified: Option<SystemTime>,
}

/// Whether the node is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What is wrong, in sentences; nothing is well.
    pub problems: Vec<String>,
}

/// What one address answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Everything.
    Full,
    /// Everything but metrics, which have an address of their own.
    WithoutMetrics,
    /// Metrics and health.
    MetricsOnly,
}

/// Why there is no HTTP face.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address cannot be had.
    #[error("cannot listen for HTTP on {address}: {source}; choose another address (--http ADDR:PORT, or off)")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running HTTP face.
#[derive(Debug)]
pub struct Gateway {
    /// The address that it really has, port 0 resolved.
    pub address: SocketAddr,
    /// Ends after the shutdown token is cancelled and open requests are done or out of time.
    pub task: JoinHandle<()>,
}

pub(crate) type Shared = Arc<dyn Repository>;

/// Binds `address` and serves `face` of `repository` until `shutdown`.
pub async fn serve(
    address: SocketAddr,
    repository: Arc<dyn Repository>,
    face: Face,
    shutdown: CancellationToken,
) -> Result<Gateway, GatewayError> {
    let bind = |source| GatewayError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let task = tokio::spawn(accept(listener, routes(repository, face), shutdown));
    Ok(Gateway { address, task })
}

fn routes(repository: Shared, face: Face) -> Router {
    let mut routes = Router::new().route("/healthz", get(health));
    if face != Face::WithoutMetrics {
        routes = routes.route("/metrics", get(metrics::show));
    }
    if face != Face::MetricsOnly {
        routes = routes
            .route("/update", get(update::answer))
            .route("/metadata/{*file}", get(files::metadata))
            .route("/targets/{*path}", get(files::target));
    }
    routes.fallback(nowhere).with_state(repository)
}

async fn accept(listener: TcpListener, routes: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = next(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                connections.spawn(connection(stream, place, routes.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::debug!(open = connections.len(), "HTTP connections were still open when the node stopped");
    }
}

/// A connection and its place: the place first, so that surplus connections wait in the kernel.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(stream: TcpStream, place: OwnedSemaphorePermit, routes: Router, shutdown: CancellationToken) {
    // Small answers leave at once; failing to ask for that costs time, not correctness.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(stall::StallGuard::new(stream, STALL_TIMEOUT));
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_header_size(MAX_HEADER_BYTES);
    let mut serving = std::pin::pin!(server.serve_connection(io, TowerToHyperService::new(routes)));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, serving).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    drop(place);
}

async fn health(State(repository): State<Shared>) -> Response {
    match off_thread(move || repository.health()).await {
        Ok(health) if health.problems.is_empty() => json(StatusCode::OK, &Answer { status: "ok", problems: &[] }),
        Ok(health) => json(StatusCode::SERVICE_UNAVAILABLE, &Answer { status: "unwell", problems: &health.problems }),
        Err(response) => *response,
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    status: &'static str,
    problems: &'a [String],
}

async fn nowhere() -> Response {
    refusal(StatusCode::NOT_FOUND, "there is nothing here; try /update, /metadata/timestamp.json, /healthz")
}

/// Runs a call that may read files away from the threads that serve connections.
pub(crate) async fn off_thread<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Response>> {
    tokio::task::spawn_blocking(call).await.map_err(|error| {
        tracing::error!(%error, "a repository call for HTTP failed");
        Box::new(refusal(StatusCode::INTERNAL_SERVER_ERROR, "the node failed to answer; see its log"))
    })
}

/// A refusal that says why: `{"error": "..."}`.
pub(crate) fn refusal(status: StatusCode, reason: impl fmt::Display) -> Response {
    #[derive(Serialize)]
    struct Refusal {
        error: String,
    }
    json(status, &Refusal { error: reason.to_string() })
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (status, headers, bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an HTTP answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests;
