//! `updraft events`: what happens on the node, a line each.

use clap::Args;
use serde::de::IgnoredAny;

use super::output::Style;
use super::units::printable;
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::control::client::{Client, Reply};
use crate::control::messages::{Event, Request};

/// As typed.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with events as they happen
    #[arg(long, short)]
    pub follow: bool,
    /// Start after the event with this number
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
}

/// Shows events until there are no more, or the reader goes away.
pub fn run(args: &EventsArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let request = Request::Events { follow: args.follow, since: args.since };
    let mut conversation = Client::connect(&global.data_dir()?)?.send(&request)?;
    loop {
        match conversation.receive::<IgnoredAny>()? {
            Reply::Event(event) if output.is_json() => output.json(&event)?,
            Reply::Event(event) => show(&event, output)?,
            Reply::Dropped(count) => output.warn(&format!("{count} events were lost: this reader is too slow")),
            Reply::Progress(_) => {}
            Reply::End(_) => return Ok(ExitCode::Ok),
        }
    }
}

fn show(event: &Event, output: &mut Output) -> Result<(), CommandError> {
    let painter = output.painter();
    let kind = painter.paint(Style::Bold, &format!("{:<20}", printable(&event.kind)));
    output.line(format_args!("{}  {kind}  {}", event.at, printable(&event.text)))
}
