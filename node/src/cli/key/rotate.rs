//! `updraft key rotate` and `revoke`: the change of metadata that they stand for, signed as far as the
//! keys here go.

use clap::Args;
use updraft_protocol::tuf::RoleName;

use super::super::ceremony::{self, ChangeFlags, public_key};
use super::super::{CommandError, GlobalArgs, Output};
use crate::publisher::ceremony::{Change, revocation, rotation};

/// As typed.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Whose key: root, targets, snapshot, timestamp, channels, or releases-PRODUCT
    #[arg(value_name = "ROLE")]
    pub role: RoleName,
    /// The new key: its public file, or its label here
    #[arg(long, value_name = "PUBFILE|LABEL")]
    pub new: String,
    /// The key that goes, by its id or the beginning of it; repeatable [default: the role's only key]
    #[arg(long = "remove", value_name = "KEYID")]
    pub remove: Vec<String>,
    /// What becomes of it.
    #[command(flatten)]
    pub change: ChangeFlags,
}

/// As typed.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The key, by its id or the beginning of it
    #[arg(value_name = "KEYID")]
    pub key: String,
    /// What becomes of it.
    #[command(flatten)]
    pub change: ChangeFlags,
}

pub(super) fn rotate(args: &RotateArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let found = ceremony::repository(global)?;
    let new = public_key(&args.new, &args.change.keys.directory(global)?)?;
    let change = rotation(&found.view.trusted, &args.role, new, &args.remove)?;
    let change = Change { expires_days: args.change.expires_days, ..change };
    ceremony::carry_out(&change, &args.change, &found, global, output)
}

pub(super) fn revoke(args: &RevokeArgs, global: &GlobalArgs, output: &mut Output) -> Result<(), CommandError> {
    let found = ceremony::repository(global)?;
    let change = revocation(&found.view.trusted, &args.key)?;
    let change = Change { expires_days: args.change.expires_days, ..change };
    ceremony::carry_out(&change, &args.change, &found, global, output).map_err(|error| {
        if error.hint().is_some() {
            return error;
        }
        error.with_hint("where a role would be left with too few keys, put a new one in its place: updraft key rotate ROLE --new NAME.pub --remove KEYID")
    })
}
