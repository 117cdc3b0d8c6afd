//! `updraft fetch`: an artifact, verified, without installing it.

use std::path::PathBuf;

use clap::Args;

use super::release_spec::ReleaseSpec;
use super::units::bytes;
use super::{CommandError, ExitCode, GlobalArgs, Output, absolute, ask};
use crate::control::messages::Request;
use crate::control::results::FetchView;

/// As typed.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Which release; what the channel offers where no version is named
    #[arg(value_name = "PRODUCT[@VERSION]")]
    pub release: ReleaseSpec,
    /// Write the artifact there; the node writes it, as its own user
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Fetches.
pub fn run(args: FetchArgs, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let request = Request::Fetch {
        product: args.release.product,
        version: args.release.version,
        output: args.output.as_deref().map(absolute).transpose()?,
    };
    let view: FetchView = ask::ask(&global.data_dir()?, &request, output)?;
    output.answer(&view, |view, _| {
        format!(
            "{} {} ({}), {}, verified\n  sha256 {}\n  {}\n",
            view.product,
            view.version,
            view.platform,
            bytes(view.size_bytes),
            view.sha256,
            view.path.display()
        )
    })?;
    Ok(ExitCode::Ok)
}
