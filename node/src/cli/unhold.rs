//! `updraft unhold`: let what was held be installed again.

use clap::Args;
use semver::Version;
use updraft_protocol::names::{Product, parse_version};

use super::{CommandError, ExitCode, GlobalArgs, Output, ask, hold};
use crate::control::messages::Request;
use crate::control::results::HoldView;

/// As typed.
#[derive(Debug, Args)]
pub struct UnholdArgs {
    /// Which product
    #[arg(value_name = "PRODUCT")]
    pub product: Product,
    /// Only the hold on this version [default: every hold]
    #[arg(long, value_name = "V", value_parser = parse_version)]
    pub version: Option<Version>,
}

/// Lifts holds.
pub fn run(args: UnholdArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let request = Request::Unhold { product: args.product, version: args.version };
    let view: HoldView = ask::ask(&global.data_dir()?, &request, output)?;
    output.answer(&view, |view, _| hold::human(view))?;
    Ok(ExitCode::Ok)
}
