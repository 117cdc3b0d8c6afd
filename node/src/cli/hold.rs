//! `updraft hold`: keep a version, or every update, of a product from being installed.

use std::fmt::Write as _;

use clap::Args;
use semver::Version;
use updraft_protocol::names::{Product, parse_version};

use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::results::HoldView;

/// As typed.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Which product
    #[arg(value_name = "PRODUCT")]
    pub product: Product,
    /// Only this version [default: every update]
    #[arg(long, value_name = "V", value_parser = parse_version)]
    pub version: Option<Version>,
    /// Why, for whoever looks at the status
    #[arg(long, value_name = "TEXT", default_value = "an operator asked for it")]
    pub reason: String,
}

/// Holds.
pub fn run(args: HoldArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let request = Request::Hold { product: args.product, version: args.version, reason: args.reason };
    let view: HoldView = ask::ask(&global.data_dir()?, &request, output)?;
    output.answer(&view, |view, _| human(view))?;
    Ok(ExitCode::Ok)
}

pub(super) fn human(view: &HoldView) -> String {
    let mut text = String::new();
    for row in &view.held {
        let what = row.version.as_deref().unwrap_or("every update");
        let _ = writeln!(text, "{} {what} is held: {}", view.product, row.reason);
    }
    if text.is_empty() {
        text = format!("nothing of {} is held\n", view.product);
    }
    text
}
