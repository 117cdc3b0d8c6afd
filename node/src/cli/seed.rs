//! `updraft seed`: run the node that owns the repository.

use clap::Args;

use super::node_flags::NodeFlags;
use super::run_node::{StopSignals, ask, block_on, launch, stay_up};
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::config::{self, EffectiveConfig, Overrides, Role};
use crate::control::messages::{Request, Response};

/// As typed.
#[derive(Debug, Args)]
pub struct SeedArgs {
    /// The node's own flags.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedOptions {
    /// Flags, file and defaults together.
    pub config: EffectiveConfig,
}

impl SeedArgs {
    /// Checks what was typed against the configuration file.
    pub fn options(self, global: &GlobalArgs) -> Result<SeedOptions, CommandError> {
        let overrides = Overrides { role: Some(Role::Seed), ..self.node.overrides(global)? };
        Ok(SeedOptions { config: config::load(overrides)? })
    }
}

/// Runs the seed until it is told to stop.
pub fn run(options: SeedOptions, output: &mut Output) -> Result<ExitCode, CommandError> {
    let config = options.config.config;
    block_on(async {
        let signals = StopSignals::listen()?;
        let mut node = launch(config).await?;
        let addresses = node.listening().await;
        output.note(format_args!("seed {} is up", node.peer_id));
        for address in addresses {
            output.note(format_args!("  listening on {address}"));
        }
        if let Some(http) = node.http {
            output.note(format_args!("  http://{http}/update"));
        }
        if let Response::Ticket(view) = ask(&node, Request::Ticket { addresses: Vec::new() }).await? {
            output.note(format_args!("peers join with this ticket, fingerprint {}:", view.fingerprint));
            output.line(&view.ticket)?;
        }
        stay_up(node, signals, None, output).await?;
        Ok(ExitCode::Ok)
    })
}
