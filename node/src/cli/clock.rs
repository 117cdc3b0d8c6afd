//! `updraft clock`: the operator's word on the time.

use clap::Subcommand;

use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::views::StatusView;

/// The commands.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ClockCommand {
    /// This machine's clock is right: forget that metadata was once signed at a later time
    Trust,
}

/// Tells the node.
pub fn run(command: ClockCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let ClockCommand::Trust = command;
    let view: StatusView = ask::ask(&global.data_dir()?, &Request::TrustClock {}, output)?;
    output.answer(&view, |view, _| {
        view.clock.as_ref().map_or_else(String::new, |clock| match &clock.reason {
            None => format!("the clock is trusted: {}\n", clock.now),
            Some(reason) => format!("still not trusted: {reason}\n"),
        })
    })?;
    let trusted = view.clock.as_ref().is_some_and(|clock| clock.trusted);
    Ok(if trusted { ExitCode::Ok } else { ExitCode::BlockedByPolicy })
}
