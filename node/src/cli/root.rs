//! `updraft root`: who speaks for the repository, changed by several people who each hold a key.

use clap::{Args, Subcommand};
use updraft_protocol::tuf::{RoleName, TopRole};

use super::ceremony::{self, ChangeFlags, FileCommand, assignment};
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::publisher::ceremony::Change;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Draft the next root: other keys, thresholds, or a new expiry
    Draft(DraftArgs),
    /// Commands on a ceremony file.
    #[command(flatten)]
    File(FileCommand),
}

/// As typed.
#[derive(Debug, Args)]
pub struct DraftArgs {
    /// Let a key sign for a role (root, targets, snapshot, timestamp): its public file, or its label here
    #[arg(long = "add-key", value_name = "ROLE=PUBFILE", value_parser = assignment)]
    pub add_keys: Vec<(String, String)>,
    /// Let a key no longer sign for a role; the beginning of its id is enough
    #[arg(long = "remove-key", value_name = "ROLE=KEYID", value_parser = assignment)]
    pub remove_keys: Vec<(String, String)>,
    /// Ask for so many signatures of a role
    #[arg(long = "threshold", value_name = "ROLE=M", value_parser = assignment)]
    pub thresholds: Vec<(String, String)>,
    /// Only a new expiry
    #[arg(long)]
    pub renew: bool,
    /// Sign with the keys here and put it into force in one go
    #[arg(long)]
    pub apply: bool,
    /// What becomes of it.
    #[command(flatten)]
    pub change: ChangeFlags,
}

fn top_role(text: &str) -> Result<RoleName, CommandError> {
    let role = text.parse::<RoleName>().ok().filter(|role| TopRole::of(role).is_some());
    role.ok_or_else(|| {
        CommandError::usage(format!("'{text}' is no role of the root"))
            .with_hint("root, targets, snapshot or timestamp; other roles are changed by `updraft targets draft` or `updraft key rotate`")
    })
}

impl DraftArgs {
    fn change(&self, global: &GlobalArgs) -> Result<Change, CommandError> {
        let keys = self.change.keys.directory(global)?;
        let mut change = Change { expires_days: self.change.expires_days, ..Change::default() };
        for (role, text) in &self.add_keys {
            let key = ceremony::public_key(text, &keys)?;
            change.roles.entry(top_role(role)?).or_default().add.push(key);
        }
        for (role, text) in &self.remove_keys {
            change.roles.entry(top_role(role)?).or_default().remove.push(text.clone());
        }
        for (role, text) in &self.thresholds {
            let threshold: u64 = text.parse().ok().filter(|threshold| *threshold > 0).ok_or_else(|| {
                CommandError::usage(format!("'{text}' is no number of signatures")).with_hint("--threshold root=2")
            })?;
            change.roles.entry(top_role(role)?).or_default().threshold = Some(threshold);
        }
        if self.renew {
            change.renew.insert(RoleName::root());
        }
        if change.roles.is_empty() && change.renew.is_empty() {
            return Err(CommandError::usage("nothing to draft")
                .with_hint("--renew for a new expiry, or --add-key, --remove-key, --threshold"));
        }
        Ok(change)
    }
}

/// Runs the command.
pub fn run(command: RootCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    match command {
        RootCommand::File(command) => return ceremony::run(command, global, output),
        RootCommand::Draft(args) => {
            let change = args.change(global)?;
            let found = ceremony::repository(global)?;
            if args.apply {
                ceremony::carry_out(&change, &args.change, &found, global, output)?;
            } else {
                ceremony::draft(&change, &args.change, &found, output)?;
            }
        }
    }
    Ok(ExitCode::Ok)
}
