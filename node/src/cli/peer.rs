//! `updraft peer`: run a node that follows products.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use updraft_protocol::limits::MAX_TICKET_CHARS;
use updraft_protocol::ticket::Ticket;

use super::node_flags::NodeFlags;
use super::release_spec::FetchSpec;
use super::run_node::{StopSignals, block_on, launch, stay_up};
use super::{CommandError, ExitCode, GlobalArgs, Output, absolute};
use crate::config::{self, EffectiveConfig, Overrides, Role, Subscription};

/// As typed.
#[derive(Debug, Args)]
pub struct PeerArgs {
    /// The join ticket, or a file that holds it; needed once
    #[arg(long, value_name = "TICKET|FILE")]
    pub join: Option<String>,
    /// Install a product there and keep it up to date; repeatable
    #[arg(long, value_name = "PRODUCT[:CHANNEL]=DIR", value_parser = Subscription::parse_install)]
    pub subscribe: Vec<Subscription>,
    /// Hold and serve a product without installing it; repeatable
    #[arg(long, value_name = "PRODUCT[:CHANNEL]", value_parser = Subscription::parse_mirror)]
    pub mirror: Vec<Subscription>,
    /// Get one artifact, verify it, write it to FILE, and stay up to serve it
    #[arg(long, value_name = "PRODUCT[@VERSION]=FILE")]
    pub fetch: Option<FetchSpec>,
    /// Create this file once the fetched artifact is complete, verified and written
    #[arg(long, value_name = "FILE", requires = "fetch")]
    pub done_file: Option<PathBuf>,
    /// The node's own flags.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOptions {
    /// Flags, file and defaults together; the ticket in it is the text of a valid one.
    pub config: EffectiveConfig,
    /// Get one artifact and stay.
    pub fetch: Option<FetchSpec>,
    /// Create this file, absolute, when it is there.
    pub done_file: Option<PathBuf>,
}

impl PeerArgs {
    /// Checks what was typed against the configuration file.
    pub fn options(self, global: &GlobalArgs) -> Result<PeerOptions, CommandError> {
        let subscriptions: Vec<_> = self.subscribe.into_iter().chain(self.mirror).collect();
        let overrides = Overrides {
            role: Some(Role::Peer),
            ticket: self.join.as_deref().map(ticket).transpose()?.map(|ticket| ticket.to_string()),
            subscriptions: (!subscriptions.is_empty()).then_some(subscriptions),
            ..self.node.overrides(global)?
        };
        Ok(PeerOptions {
            config: config::load(overrides)?,
            fetch: self.fetch,
            done_file: self.done_file.as_deref().map(absolute).transpose()?,
        })
    }
}

/// The ticket itself, or the one in the file of that name.
pub(super) fn ticket(text: &str) -> Result<Ticket, CommandError> {
    if text.trim_start().starts_with("updraft1:") {
        return text.parse().map_err(|error| CommandError::usage(format!("--join: {error}")));
    }
    let path = Path::new(text);
    let unreadable = |error| {
        CommandError::usage(format!("--join: '{text}' is no ticket, and no file that can be read: {error}"))
            .with_hint("print a ticket at the seed with `updraft ticket`")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut ticket = String::new();
    // One more than the longest ticket and its line end, so that a larger file is seen to be larger.
    file.take(MAX_TICKET_CHARS as u64 + 3).read_to_string(&mut ticket).map_err(unreadable)?;
    ticket.parse().map_err(|error| CommandError::usage(format!("--join: {text}: {error}")))
}

/// Runs the peer until it is told to stop.
pub fn run(options: PeerOptions, output: &mut Output) -> Result<ExitCode, CommandError> {
    for warning in options.config.warnings() {
        output.warn(warning);
    }
    let (config, wish) = (options.config.config, options.fetch.map(|spec| (spec, options.done_file)));
    let subscriptions = config.subscriptions.clone();
    let fingerprint =
        config.ticket.as_deref().and_then(|text| text.parse::<Ticket>().ok()).map(|ticket| ticket.fingerprint());
    block_on(async {
        let signals = StopSignals::listen()?;
        let node = launch(config).await?;
        output.note(format_args!("peer {} is up", node.peer_id));
        if let Some(fingerprint) = fingerprint {
            output.note(format_args!("  it trusts the repository with fingerprint {fingerprint}"));
        }
        for subscription in subscriptions {
            let (product, channel) = (subscription.product, subscription.channel);
            match subscription.directory {
                Some(directory) => {
                    output.note(format_args!("  installs {product}:{channel} in {}", directory.display()));
                }
                None => output.note(format_args!("  mirrors {product}:{channel}")),
            }
        }
        stay_up(node, signals, wish, output).await?;
        Ok(ExitCode::Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use updraft_protocol::digest::Digest;

    fn sample() -> Ticket {
        Ticket {
            repository: Digest::of(b"root").into(),
            root_version: 1,
            root_sha256: Digest::of(b"root"),
            min_timestamp_version: 1,
            addresses: vec![],
            grant: None,
        }
    }

    #[test]
    fn a_ticket_is_taken_as_text_or_from_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ticket");
        std::fs::write(&file, format!("{}\n", sample())).expect("writes");
        assert_eq!(ticket(&sample().to_string()).expect("valid"), sample());
        assert_eq!(ticket(file.to_str().expect("UTF-8")).expect("valid"), sample());
    }

    #[test]
    fn what_is_neither_is_a_usage_error() {
        for bad in ["updraft1:zz", "/nonexistent/ticket", "/dev/zero", "/"] {
            assert_eq!(ticket(bad).expect_err(bad).exit_code(), ExitCode::Usage);
        }
    }
}
