//! `updraft publish --join`: a release signed on this machine and published by the seed.
//!
//! For the time of the push this machine runs a node that accepts no connections: it joins by the
//! ticket, and the seed fetches over the connection that this node dialled. Where a node runs on the
//! data directory already, that one is asked to push.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use updraft_protocol::names::Product;

use super::passphrase::PassphraseFlags;
use super::progress::ProgressDisplay;
use super::run_node::{StopSignals, block_on, launch};
use super::{CommandError, ExitCode, GlobalArgs, Output, absolute, ask, peer};
use crate::config::{DEFAULT_KEEP_RELEASES, DEFAULT_MAX_PEERS, NodeConfig, Role, this_platform};
use crate::control::Call;
use crate::control::client::{Client, ClientError};
use crate::control::messages::{Line, PublishRequest, PushRequest, Request, Response};
use crate::control::reply;
use crate::control::results::{PublishView, RenewView};
use crate::runtime::RunningNode;

/// Seconds after which a push is given up, unless told otherwise.
const DEFAULT_TIMEOUT_S: u64 = 3_600;

/// As typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing here, publishing at the seed")]
pub struct PushArgs {
    /// Sign here with the publisher's key and push to the seed: the join ticket, or a file that holds it
    #[arg(long, value_name = "TICKET|FILE")]
    pub join: Option<String>,
    /// The publisher's key, NAME.pem [default: whichever fits of those in the data directory]
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    pub key: Option<PathBuf>,
    /// A directory of keys to look for the publisher's in
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// Where the key's passphrase is, if it has one.
    #[command(flatten)]
    pub passphrase: PassphraseFlags,
    /// Publish nothing new: sign the product's releases again, to expire a year from now
    #[arg(long)]
    pub renew: bool,
    /// Give up after so many seconds [default: 3600]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub timeout: Option<u64>,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOptions {
    /// Text of a valid ticket; needed once.
    ticket: Option<String>,
    /// The key, or the directory of keys, absolute.
    keys: PathBuf,
    passphrase: PassphraseFlags,
    timeout: Duration,
}

impl PushArgs {
    /// What was meant, where any of it was.
    pub fn options(self, global: &GlobalArgs) -> Result<Option<PushOptions>, CommandError> {
        let is_push = self.join.is_some() || self.key.is_some() || self.keys.is_some() || self.renew;
        if !is_push {
            return match (self.timeout, self.passphrase.passphrase_file) {
                (None, None) => Ok(None),
                _ => Err(CommandError::usage(
                    "--timeout and --passphrase-file are for a push, with --join, --key or --keys",
                )),
            };
        }
        let keys = match self.key.or(self.keys) {
            Some(keys) => {
                let keys = absolute(&keys)?;
                if let Err(error) = std::fs::metadata(&keys) {
                    return Err(CommandError::usage(format!("no keys at {}: {error}", keys.display())));
                }
                keys
            }
            None => global.data_dir()?.join("keys"),
        };
        let ticket = self.join.as_deref().map(peer::ticket).transpose()?.map(|ticket| ticket.to_string());
        let timeout = Duration::from_secs(self.timeout.unwrap_or(DEFAULT_TIMEOUT_S));
        Ok(Some(PushOptions { ticket, keys, passphrase: self.passphrase, timeout }))
    }
}

/// Pushes a release.
pub(super) fn publish(
    data_dir: &Path,
    options: PushOptions,
    request: PublishRequest,
    output: &mut Output,
) -> Result<PublishView, CommandError> {
    let push = PushRequest { product: request.product.clone(), publish: Some(request), keys: options.keys.clone() };
    run(data_dir, options, push, output, |response| match response {
        Response::Publish(view) => Some(view),
        _ => None,
    })
}

/// Signs a product's role again and pushes that.
pub(super) fn renew(
    data_dir: &Path,
    options: PushOptions,
    product: Product,
    output: &mut Output,
) -> Result<ExitCode, CommandError> {
    let push = PushRequest { product, publish: None, keys: options.keys.clone() };
    let view: RenewView = run(data_dir, options, push, output, |response| match response {
        Response::Renew(view) => Some(view),
        _ => None,
    })?;
    output.answer(&view, |view, _| {
        format!("renewed {}: version {} expires at {}\n", view.role, view.version, view.expires_at)
    })?;
    Ok(ExitCode::Ok)
}

fn run<R: DeserializeOwned>(
    data_dir: &Path,
    options: PushOptions,
    push: PushRequest,
    output: &mut Output,
    read: impl FnOnce(Response) -> Option<R>,
) -> Result<R, CommandError> {
    match Client::connect(data_dir) {
        Ok(client) => return ask::converse(client, &Request::Push(push), output),
        Err(ClientError::Unreachable { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let unlock = options.passphrase.unlock(output)?;
    let config = NodeConfig {
        data_dir: data_dir.to_owned(),
        role: Role::Peer,
        ticket: options.ticket,
        listen: Vec::new(),
        external: Vec::new(),
        http: None,
        metrics: None,
        mdns: false,
        kad: crate::config::Kad::Off,
        platform: this_platform(),
        max_peers: DEFAULT_MAX_PEERS,
        subscriptions: Vec::new(),
        keep_releases: DEFAULT_KEEP_RELEASES,
        cache_limit_bytes: None,
        adopt_wait_seconds: 0,
        limits: crate::engine::limits::Limits::default(),
        egress_budget_percent: None,
        maintenance: crate::engine::maintenance::Maintenance::default(),
    };
    let response = block_on(async {
        let mut signals = StopSignals::listen()?;
        let node = launch(config).await?;
        node.unlock_pushes(unlock);
        let end = tokio::select! {
            end = tokio::time::timeout(options.timeout, converse(&node, Request::Push(push), output)) => {
                end.unwrap_or_else(|_| Err(CommandError::error(format!(
                    "the push did not end within {} s", options.timeout.as_secs()
                )).with_hint("run the same command again: it goes on where this one stopped")))
            }
            () = signals.arrive() => Err(CommandError::error("interrupted before the seed had published it")
                .with_hint("run the same command again: it goes on where this one stopped")),
        };
        node.stop();
        node.stopped().await;
        end
    })?;
    read(response).ok_or_else(|| CommandError::internal("the node answered something else"))
}

/// Asks a node of this process, showing progress meanwhile.
async fn converse(node: &RunningNode, request: Request, output: &mut Output) -> Result<Response, CommandError> {
    let (sender, mut receiver) = reply::channel();
    let stopped = || CommandError::internal("the node has stopped");
    node.calls().send(Call { request, reply: sender }).await.map_err(|_| stopped())?;
    let mut display = ProgressDisplay::new(output.is_live());
    let end = loop {
        match receiver.next().await {
            Some(Line::Progress(progress)) => display.show(output.progress_stream(), &progress),
            Some(Line::Result(response)) => break Ok(response),
            Some(Line::Error(body)) => break Err(body.into()),
            Some(Line::Event(_) | Line::Dropped(_) | Line::Heartbeat {}) => {}
            None => break Err(stopped()),
        }
    };
    display.end(output.progress_stream());
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    use crate::cli::{Cli, Command};

    fn options(line: &str) -> Result<Option<PushOptions>, CommandError> {
        let line = format!("updraft --data-dir /nonexistent publish {line}");
        let cli =
            Cli::try_parse_from(line.split_whitespace()).map_err(|error| CommandError::usage(error.to_string()))?;
        match cli.command {
            Command::Publish(args) => args.push.options(&cli.global),
            _ => panic!("not a publication"),
        }
    }

    #[test]
    fn without_its_flags_nothing_is_pushed() {
        assert_eq!(options("a --product p --version 1.0.0").expect("valid"), None);
    }

    #[test]
    fn keys_are_looked_for_in_the_data_directory_unless_named() {
        let push = options("--renew --product p").expect("valid").expect("a push");
        assert_eq!(push.keys, PathBuf::from("/nonexistent/keys"));
        assert_eq!(push.timeout, Duration::from_secs(DEFAULT_TIMEOUT_S));
        let push = options("--renew --product p --keys / --timeout 9").expect("valid").expect("a push");
        assert_eq!((push.keys, push.timeout), (PathBuf::from("/"), Duration::from_secs(9)));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "a --product p --version 1.0.0 --timeout 5",
            "a --product p --version 1.0.0 --key /nonexistent/key.pem",
            "a --product p --version 1.0.0 --join nonsense",
            "a --product p --version 1.0.0 --key / --keys /",
            "a --product p --renew",
            "--version 1.0.0 --product p --renew",
            "--product p",
        ] {
            assert_eq!(options(line).expect_err(line).exit_code(), ExitCode::Usage, "{line}");
        }
    }
}
