//! `updraft man`: the manual, made from the very description that parses the command line.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_mangen::Man;

use super::{CommandError, ExitCode, Output, absolute, description};

/// As typed.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for every command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the first page, or writes them all.
pub fn run(args: &ManArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    if let Some(directory) = &args.dir {
        let directory = absolute(directory)?;
        write_pages(&directory)?;
        output.note(format_args!("the manual is in {}; read it with `man -l FILE`", directory.display()));
    } else {
        let mut page = Vec::new();
        Man::new(description())
            .render(&mut page)
            .map_err(|error| CommandError::internal(format!("the manual cannot be made: {error}")))?;
        output.text(page)?;
    }
    Ok(ExitCode::Ok)
}

fn write_pages(directory: &Path) -> Result<(), CommandError> {
    std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(description(), directory)).map_err(
        |error| {
            CommandError::error(format!("cannot write the manual to {}: {error}", directory.display()))
                .with_hint("name a directory that this user may write to")
        },
    )
}
