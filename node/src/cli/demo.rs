//! `updraft demo`: everything at once on one machine, nothing to set up.

use std::path::PathBuf;

use clap::Args;

use super::run_node::block_on;
use super::{CommandError, ExitCode, Output, absolute};

mod live;
mod show;
mod tree;

/// The first release of the demo.
const FIRST: &str = "1.0.0";
/// The update.
const SECOND: &str = "1.1.0";

/// As typed.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End when the show is over, instead of staying up until Ctrl-C
    #[arg(long)]
    pub exit: bool,
    /// Play in this directory, which must be empty or new [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the directory behind at the end
    #[arg(long)]
    pub keep: bool,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// End when the show is over.
    pub exit: bool,
    /// Play here, absolute; a temporary directory where absent.
    pub directory: Option<PathBuf>,
    /// Leave the directory behind. One that the user named always stays.
    pub keep: bool,
}

impl DemoArgs {
    /// Checks what was typed.
    pub fn options(self) -> Result<DemoOptions, CommandError> {
        let directory = self.dir.as_deref().map(absolute).transpose()?;
        if let Some(directory) = &directory {
            match std::fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(CommandError::usage(format!("the directory {} is not empty", directory.display()))
                        .with_hint("name an empty or new one, or leave --dir out"));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(CommandError::usage(format!("cannot play in {}: {error}", directory.display()))
                        .with_hint("name an empty or new directory, or leave --dir out"));
                }
            }
        }
        Ok(DemoOptions { exit: self.exit, keep: self.keep || directory.is_some(), directory })
    }
}

/// Runs the demo.
pub fn run(options: &DemoOptions, output: &mut Output) -> Result<ExitCode, CommandError> {
    let (directory, scratch) = if let Some(directory) = &options.directory {
        (directory.clone(), None)
    } else {
        let scratch = tempfile::Builder::new()
            .prefix("updraft-demo-")
            .tempdir()
            .map_err(|error| CommandError::error(format!("no temporary directory: {error}")))?;
        (scratch.path().to_owned(), Some(scratch))
    };
    let code = block_on(show::play(options, &directory, output))?;
    if let Some(scratch) = scratch.filter(|_| options.keep) {
        output.note(format_args!("left behind: {}", scratch.keep().display()));
    }
    Ok(code)
}
