//! The command line: arguments in, an exit code out.
//!
//! Each command is a file: what the user typed (`...Args`, clap's), what it means (`...Options`,
//! checked), and `run`. Answers go to stdout, everything else to stderr; with `--json` an answer is
//! one object with `"schema": 1`. This is the only place of the program that prints.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{ConfigError, default_data_dir};
use crate::telemetry;

pub mod ask;
pub mod ceremony;
pub mod channel;
pub mod clock;
pub mod completions;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod error;
pub mod events;
pub mod fetch;
pub mod fleet;
pub mod gc;
pub mod history;
pub mod hold;
pub mod init;
pub mod install;
pub mod key;
pub mod launch;
pub mod man;
pub mod node_flags;
mod notify;
pub mod output;
pub mod passphrase;
pub mod peer;
pub mod peers;
pub mod progress;
pub mod publish;
mod push;
pub mod release_spec;
pub mod releases;
pub mod rollback;
pub mod root;
mod run_node;
pub mod seed;
pub mod status;
pub mod table;
pub mod targets;
pub mod ticket;
pub mod unhold;
pub mod units;

pub use error::{CommandError, ExitCode};
pub use output::Output;

use output::ColorChoice;

/// Signed software updates, distributed peer to peer and installed without ever being half done.
#[derive(Debug, Parser)]
#[command(name = "updraft", version, disable_help_subcommand = true)]
#[command(after_help = "Start with `updraft demo`: a seed and three peers on this machine, no set-up.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Which command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// The node's directory [default: /var/lib/updraft for root, else the user's data directory]
    #[arg(long, global = true, value_name = "DIR", env = "UPDRAFT_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Answer with one JSON object (events: one a line)
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
    /// Say more on stderr (or set `UPDRAFT_LOG` to a filter such as `updraft=debug`)
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

impl GlobalArgs {
    /// The node's directory, absolute.
    pub fn data_dir(&self) -> Result<PathBuf, CommandError> {
        match &self.data_dir {
            Some(directory) => absolute(directory),
            None => Ok(default_data_dir()?),
        }
    }
}

/// A path made absolute, symlinks left alone.
pub(crate) fn absolute(path: &std::path::Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| {
        CommandError::usage(format!("the path '{}' cannot be made absolute: {error}", path.display()))
            .with_hint("write it from the root")
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it: a seed and three peers on this machine publish, gossip, fetch, install and update
    Demo(demo::DemoArgs),
    /// Create a repository: keys and first metadata
    Init(init::InitArgs),
    /// Run a seed: publish, keep metadata fresh, answer HTTP
    Seed(seed::SeedArgs),
    /// Run a peer: follow products, install or mirror them, serve others
    Peer(peer::PeerArgs),
    /// Print the join ticket (at a seed, running or not)
    Ticket(ticket::TicketArgs),
    /// Publish a directory or a file as a release (at a seed, running or not)
    Publish(publish::PublishArgs),
    /// List the releases that the node knows
    Releases(releases::ReleasesArgs),
    /// Show what the node does, and why it waits
    Status(status::StatusArgs),
    /// List who is connected, what they hold and how fast
    Peers(peers::PeersArgs),
    /// Show and change what channels say: release, rollout, pause, yank, automatic halt (at a seed, running or not)
    #[command(subcommand)]
    Channel(channel::ChannelCommand),
    /// List nodes by version and state, and what they failed with (at a seed)
    Fleet(fleet::FleetArgs),
    /// Vouch for this machine's clock
    #[command(subcommand)]
    Clock(clock::ClockCommand),
    /// Get and verify an artifact without installing it
    Fetch(fetch::FetchArgs),
    /// Install what the channel offers
    Install(install::InstallArgs),
    /// Go back to a release that is kept
    Rollback(rollback::RollbackArgs),
    /// Remove what nothing needs, or tell what would go
    Gc(gc::GcArgs),
    /// Keep a version, or every update, of a product from being installed
    Hold(hold::HoldArgs),
    /// Let what was held be installed again
    Unhold(unhold::UnholdArgs),
    /// List what was installed when
    History(history::HistoryArgs),
    /// Start the node that an install directory points at, and go back where it does not stay up
    Launch(launch::LaunchArgs),
    /// Show what happens on the node
    Events(events::EventsArgs),
    /// Make, list, carry and replace keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Change who speaks for the repository, by a file that goes from key holder to key holder
    #[command(subcommand)]
    Root(root::RootCommand),
    /// Add products, replace publishers, renew what they signed
    #[command(subcommand)]
    Targets(targets::TargetsCommand),
    /// Look for what is wrong, or will be (on any node, running or not)
    Doctor,
    /// Show or check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual, or write all of its pages
    Man(man::ManArgs),
}

impl Command {
    fn level(&self) -> telemetry::Level {
        match self {
            Self::Seed(_) | Self::Peer(_) | Self::Launch(_) => telemetry::Level::Node,
            _ => telemetry::Level::Command,
        }
    }
}

/// The program, from arguments to exit code.
pub fn main() -> std::process::ExitCode {
    run(std::env::args_os()).into()
}

/// Runs one command line, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; nobody is left to tell where they cannot be written.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
        }
    };
    let mut output = Output::standard(cli.global.json, cli.global.color);
    match start(cli, &mut output) {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            error.exit_code()
        }
    }
}

fn start(cli: Cli, output: &mut Output) -> Result<ExitCode, CommandError> {
    let level = if cli.global.verbose { telemetry::Level::Verbose } else { cli.command.level() };
    telemetry::init(level, output.colors_stderr()).map_err(|error| CommandError::usage(error.to_string()))?;
    dispatch(cli, output)
}

fn dispatch(cli: Cli, output: &mut Output) -> Result<ExitCode, CommandError> {
    let global = cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(&args.options()?, output),
        Command::Init(args) => init::run(&args.options(&global)?, output),
        Command::Seed(args) => seed::run(args.options(&global)?, output),
        Command::Peer(args) => peer::run(args.options(&global)?, output),
        Command::Ticket(args) => ticket::run(&args.options(&global)?, output),
        Command::Publish(args) => publish::run(args.options(&global)?, output),
        Command::Releases(args) => releases::run(args, &global, output),
        Command::Status(args) => status::run(&args, &global, output),
        Command::Peers(args) => peers::run(args, &global, output),
        Command::Channel(command) => channel::run(command, &global, output),
        Command::Fleet(args) => fleet::run(&args, &global, output),
        Command::Clock(command) => clock::run(command, &global, output),
        Command::Fetch(args) => fetch::run(args, &global, output),
        Command::Install(args) => install::run(args, &global, output),
        Command::Rollback(args) => rollback::run(args, &global, output),
        Command::Gc(args) => gc::run(&args, &global, output),
        Command::Hold(args) => hold::run(args, &global, output),
        Command::Unhold(args) => unhold::run(args, &global, output),
        Command::Launch(args) => launch::run(&args, &global, output),
        Command::History(args) => history::run(args, &global, output),
        Command::Events(args) => events::run(&args, &global, output),
        Command::Key(command) => key::run(command, &global, output),
        Command::Root(command) => root::run(command, &global, output),
        Command::Targets(command) => targets::run(command, &global, output),
        Command::Doctor => doctor::run(&global, output),
        Command::Config(command) => config::run(command, &global, output),
        Command::Completions(args) => completions::run(&args, output),
        Command::Man(args) => man::run(&args, output),
    }
}

/// clap's description of the whole command line, for completions and the manual.
pub(crate) fn description() -> clap::Command {
    Cli::command()
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Unreadable { .. } => Self::error(error.to_string()),
            ConfigError::NoDataDirectory | ConfigError::Invalid { .. } | ConfigError::Contradiction(_) => {
                Self::usage(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;
