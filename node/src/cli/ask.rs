//! Asking the running node: one request, its progress on stderr, its answer back.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::CommandError;
use super::output::Output;
use super::progress::ProgressDisplay;
use crate::control::client::{Client, Reply};
use crate::control::messages::Request;

/// Asks the node in `data_dir` and waits for its answer, showing progress meanwhile.
pub fn ask<R: DeserializeOwned>(data_dir: &Path, request: &Request, output: &mut Output) -> Result<R, CommandError> {
    converse(Client::connect(data_dir)?, request, output)
}

/// As [`ask`], over a connection that is there already.
pub fn converse<R: DeserializeOwned>(
    client: Client,
    request: &Request,
    output: &mut Output,
) -> Result<R, CommandError> {
    let mut conversation = client.send(request)?;
    let mut display = ProgressDisplay::new(output.is_live());
    loop {
        match conversation.receive() {
            Ok(Reply::Progress(progress)) => display.show(output.progress_stream(), &progress),
            Ok(Reply::Event(_) | Reply::Dropped(_)) => {}
            Ok(Reply::End(end)) => {
                display.end(output.progress_stream());
                return Ok(end);
            }
            Err(error) => {
                display.end(output.progress_stream());
                return Err(error.into());
            }
        }
    }
}
