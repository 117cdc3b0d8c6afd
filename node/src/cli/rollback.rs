//! `updraft rollback`: back to a release that is kept. What is left is held, or it would be back at once.

use clap::Args;
use semver::Version;
use updraft_protocol::names::{Product, parse_version};

use super::{CommandError, ExitCode, GlobalArgs, Output, ask, install};
use crate::control::messages::Request;
use crate::control::results::InstallView;

/// As typed.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Which product
    #[arg(value_name = "PRODUCT")]
    pub product: Product,
    /// To which version [default: the previous one]
    #[arg(long, value_name = "V", value_parser = parse_version)]
    pub to: Option<Version>,
    /// Let what is left be installed again, as soon as the channel's gates are open
    #[arg(long)]
    pub no_hold: bool,
    /// Do not ask; needed where no terminal is
    #[arg(long, short)]
    pub yes: bool,
}

/// Rolls back, once someone has said yes.
pub fn run(args: RollbackArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    if !args.yes && !agreed(&args, output)? {
        output.note("nothing was changed");
        return Ok(ExitCode::NothingToDo);
    }
    let request = Request::Rollback { product: args.product, to: args.to, hold: !args.no_hold };
    let view: InstallView = ask::ask(&global.data_dir()?, &request, output)?;
    output.answer(&view, |view, _| install::human("rolled back to", view))?;
    Ok(ExitCode::Ok)
}

fn agreed(args: &RollbackArgs, output: &mut Output) -> Result<bool, CommandError> {
    if !output.can_prompt() {
        return Err(CommandError::usage(format!("a rollback of {} needs a yes", args.product))
            .with_hint("there is no terminal to ask on; add --yes"));
    }
    let to = args.to.as_ref().map_or_else(|| "the previous release".to_owned(), ToString::to_string);
    output.confirm(&format!("Roll {} back to {to}?", args.product))
}
