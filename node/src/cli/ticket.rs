//! `updraft ticket`: what a joiner needs, from the running seed or from a stopped one's directory.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::config::address::check_dialable;
use crate::control::client::{Client, ClientError};
use crate::control::messages::Request;
use crate::control::results::TicketView;

/// As typed.
#[derive(Debug, Args)]
pub struct TicketArgs {
    /// Put this multiaddress into the ticket; repeatable [default: the seed's own]
    #[arg(long = "address", value_name = "MULTIADDR", value_parser = check_dialable)]
    pub addresses: Vec<String>,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketOptions {
    /// The seed's directory.
    pub data_dir: PathBuf,
    /// Multiaddresses for the ticket; the seed's own where empty.
    pub addresses: Vec<String>,
}

impl TicketArgs {
    /// Checks what was typed.
    pub fn options(self, global: &GlobalArgs) -> Result<TicketOptions, CommandError> {
        Ok(TicketOptions { data_dir: global.data_dir()?, addresses: self.addresses })
    }
}

/// Prints the ticket.
pub fn run(options: &TicketOptions, output: &mut Output) -> Result<ExitCode, CommandError> {
    let view: TicketView = match Client::connect(&options.data_dir) {
        Ok(client) => ask::converse(client, &Request::Ticket { addresses: options.addresses.clone() }, output)?,
        Err(ClientError::Unreachable { .. }) => crate::runtime::offline::ticket(&options.data_dir, &options.addresses)?,
        Err(error) => return Err(error.into()),
    };
    if output.is_json() {
        output.json(&view)?;
    } else {
        // The ticket alone on stdout, so that it can go straight into a file or a variable.
        output.line(&view.ticket)?;
        output.note(format_args!("fingerprint: {}  (the joiner prints the same)", view.fingerprint));
        if view.addresses.is_empty() {
            output
                .warn("the ticket holds no address; name one with --address, or joiners must find the seed otherwise");
        }
    }
    Ok(ExitCode::Ok)
}
