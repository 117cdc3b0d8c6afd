//! `updraft completions`: a script for the shell.

use clap::Args;
use clap_complete::Shell;

use super::{CommandError, ExitCode, Output, description};

/// As typed.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut description(), "updraft", &mut script);
    output.text(script)?;
    Ok(ExitCode::Ok)
}
