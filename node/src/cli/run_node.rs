//! Running a node in the foreground: what `seed`, `peer` and `demo` share.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::notify;
use super::release_spec::FetchSpec;
use super::{CommandError, Output};
use crate::atomic;
use crate::config::NodeConfig;
use crate::control::Call;
use crate::control::messages::{ErrorBody, ErrorCode, Line, Request, Response};
use crate::control::reply;
use crate::runtime::{RunningNode, StartError, descriptors, start};

/// Pause before a release that is not known yet is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs a future on a runtime of its own.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::error(format!("the asynchronous runtime cannot start: {error}")))?;
    runtime.block_on(future)
}

/// Starts a node; an error says what to do.
pub(super) async fn launch(config: NodeConfig) -> Result<RunningNode, CommandError> {
    if let Err(error) = descriptors::raise_limit() {
        tracing::warn!(%error, "the limit on open files could not be raised; peers beyond it are refused");
    }
    start(config).await.map_err(|error| {
        let body = CommandError::error(error.to_string());
        match error {
            StartError::Swarm(_) => body.with_hint("choose other addresses: --listen /ip4/0.0.0.0/tcp/PORT"),
            _ => body,
        }
    })
}

/// Asks a node of this process.
pub(super) async fn ask(node: &RunningNode, request: Request) -> Result<Response, ErrorBody> {
    let (sender, mut receiver) = reply::channel();
    let stopped = || ErrorBody::new(ErrorCode::NodeUnreachable, "the node has stopped");
    node.calls().send(Call { request, reply: sender }).await.map_err(|_| stopped())?;
    loop {
        match receiver.next().await {
            Some(Line::Result(response)) => return Ok(response),
            Some(Line::Error(body)) => return Err(body),
            Some(_) => {}
            None => return Err(stopped()),
        }
    }
}

/// Requests to stop: Ctrl-C and SIGTERM. Made before a node starts, so that one that is told to stop
/// while it starts stops in order.
#[derive(Debug)]
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on the signals arrive here. Must be called inside a runtime.
    pub(super) fn listen() -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind).map_err(|error| CommandError::error(format!("signals cannot be listened for: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub(super) async fn arrive(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Gets one artifact and says so: by the file, and by the done file. The node goes on running.
async fn fetch(node: &RunningNode, spec: &FetchSpec, done_file: Option<&Path>) -> Result<PathBuf, CommandError> {
    loop {
        let request = Request::Fetch {
            product: spec.release.product.clone(),
            version: spec.release.version.clone(),
            output: Some(spec.output.clone()),
        };
        match ask(node, request).await {
            Ok(Response::Fetch(view)) => {
                if let Some(done_file) = done_file {
                    atomic::write(done_file, b"complete and verified\n", 0o644).map_err(|error| {
                        CommandError::error(format!("cannot write {}: {error}", done_file.display()))
                    })?;
                }
                return Ok(view.path);
            }
            Ok(_) => return Err(CommandError::error("the node answered something else".to_owned())),
            // The release, or the whole repository, is not known here yet.
            Err(body) if body.code == ErrorCode::Error && body.hint.is_some() => tokio::time::sleep(LOOK_AGAIN).await,
            Err(body) => return Err(body.into()),
        }
    }
}

/// Runs a node until it is told to stop, and gets one artifact meanwhile where that was asked for.
pub(super) async fn stay_up(
    node: RunningNode,
    mut signals: StopSignals,
    wish: Option<(FetchSpec, Option<PathBuf>)>,
    output: &mut Output,
) -> Result<(), CommandError> {
    notify::ready();
    if let Some((spec, done_file)) = wish {
        tokio::select! {
            got = fetch(&node, &spec, done_file.as_deref()) => {
                output.note(format_args!("complete and verified: {}; serving it until Ctrl-C", got?.display()));
            }
            () = signals.arrive() => {
                node.stop();
                node.stopped().await;
                return Ok(());
            }
        }
    }
    signals.arrive().await;
    output.note("stopping");
    node.stop();
    node.stopped().await;
    Ok(())
}
