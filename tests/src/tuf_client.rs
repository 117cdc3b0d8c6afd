//! A plain TUF client over the verifier that the nodes use, for judges from outside.
//!
//! It moves bytes: from a server to [`Trusted`](updraft_protocol::tuf::Trusted) and from there to files.
//! It must never decide what is valid: where it knows better than the verifier, the judges judge
//! something that no node runs. One process, one thread, blocking sockets; no waits other than theirs.
//!
//! - `arguments`: the command line. `fetch`: HTTP. `folder`: trusted metadata on disk.
//! - `updater`: the client workflow of TUF section 5. `targets`: downloads.

mod arguments;
mod fetch;
mod folder;
mod targets;
mod updater;

use std::ffi::OsString;
use std::time::SystemTime;

use updraft_protocol::time::UtcTime;

use arguments::Command;
use targets::Downloads;
use updater::Updater;

pub use arguments::{USAGE, UsageError};
pub use fetch::FetchError;
pub use updater::UpdateError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A command line that is none.
    #[error("{0}\n{USAGE}")]
    Usage(#[from] UsageError),
    /// Metadata that could not be fetched, is not valid, or could not be kept.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// A target that does not exist, could not be fetched, is not what is signed, or could not be kept.
    #[error("{path}: {reason}")]
    Target {
        /// Its path.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

/// Runs one command, the program's name left out of `arguments`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), ClientError> {
    match Command::parse(arguments)? {
        Command::Init { metadata, root } => updater::init(&metadata, &root)?,
        Command::Refresh { metadata, server } => {
            Updater::open(&metadata, server, now())?.refresh()?;
        }
        Command::Download { metadata, server, targets, directory, mirror } => {
            let mut updater = Updater::open(&metadata, server, now())?;
            updater.refresh()?;
            let downloads = Downloads::new(directory, mirror);
            for path in &targets {
                let failed = |reason: String| ClientError::Target { path: path.escape_debug().to_string(), reason };
                let target = updater.target(path)?.ok_or_else(|| failed("there is no such target".to_owned()))?;
                let consistent = updater.consistent_snapshot();
                downloads.get(path, &target, consistent).map_err(|error| failed(error.to_string()))?;
            }
        }
    }
    Ok(())
}

/// TUF 5.1: the time at which the update began, the only one that it uses.
fn now() -> UtcTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UtcTime::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
