//! `updraft install`: now, instead of when the node would get to it.

use clap::Args;

use super::release_spec::ReleaseSpec;
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::messages::Request;
use crate::control::results::InstallView;

/// As typed.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Which release; what the channel offers where no version is named
    #[arg(value_name = "PRODUCT[@VERSION]")]
    pub release: ReleaseSpec,
    /// Do not wait for the rollout or a maintenance window; signatures, floors, pauses, yanks and holds on the
    /// product still hold
    #[arg(long)]
    pub now: bool,
}

/// Installs.
pub fn run(args: InstallArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let request = Request::Install { product: args.release.product, version: args.release.version, now: args.now };
    let view: InstallView = ask::ask(&global.data_dir()?, &request, output)?;
    output.answer(&view, |view, _| human("installed", view))?;
    Ok(ExitCode::Ok)
}

pub(super) fn human(done: &str, view: &InstallView) -> String {
    let before = view.from.as_ref().map_or_else(String::new, |from| format!(" (before: {from})"));
    format!("{done} {} {}{before}\n  {}\n", view.product, view.to, view.directory.join("current").display())
}
