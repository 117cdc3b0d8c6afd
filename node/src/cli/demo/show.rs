//! The demo's course: a fleet on loopback, a release, an update, and a look at what happened.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use updraft_protocol::names::{Channel, Platform, Product};

use super::super::run_node::{StopSignals, ask, launch};
use super::super::units::bytes;
use super::super::{CommandError, ExitCode, Output};
use super::{DemoOptions, FIRST, SECOND, tree};
use crate::archive;
use crate::config::{NodeConfig, Role, Subscription};
use crate::control::Call;
use crate::control::messages::{Event, Line, Phase, PublishRequest, Request, Response};
use crate::control::reply;
use crate::control::views::{StatusView, SubscriptionState};
use crate::engine::install::Trial;
use crate::runtime::RunningNode;
use crate::runtime::open::Opened;

const PEERS: usize = 3;
/// The longest that a fleet on loopback may take for one release.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at the fleet.
const LOOK: Duration = Duration::from_millis(40);
/// Events that wait to be shown.
const EVENTS: usize = 1_024;

struct Member {
    name: String,
    node: RunningNode,
    data_dir: PathBuf,
    install_dir: PathBuf,
}

struct Show {
    product: Product,
    directory: PathBuf,
    fleet: Vec<Member>,
    events: mpsc::Receiver<(usize, Instant, Event)>,
    event_sender: mpsc::Sender<(usize, Instant, Event)>,
    started: Instant,
    signals: StopSignals,
}

fn failed(what: &str, error: impl std::fmt::Display) -> CommandError {
    CommandError::error(format!("{what}: {error}"))
}

fn config(data_dir: &Path, role: Role, ticket: Option<String>) -> NodeConfig {
    let loopback = Ipv4Addr::LOCALHOST;
    NodeConfig {
        data_dir: data_dir.to_owned(),
        role,
        ticket,
        listen: vec![format!("/ip4/{loopback}/tcp/0"), format!("/ip4/{loopback}/udp/0/quic-v1")],
        external: Vec::new(),
        http: (role == Role::Seed).then(|| SocketAddr::from((loopback, 0))),
        metrics: None,
        mdns: false,
        kad: crate::config::Kad::Off,
        platform: crate::config::this_platform(),
        max_peers: crate::config::DEFAULT_MAX_PEERS,
        subscriptions: Vec::new(),
        keep_releases: crate::config::DEFAULT_KEEP_RELEASES,
        cache_limit_bytes: None,
        adopt_wait_seconds: crate::config::DEFAULT_ADOPT_WAIT_SECONDS,
        limits: crate::engine::limits::Limits::default(),
        egress_budget_percent: None,
        maintenance: crate::engine::maintenance::Maintenance::default(),
    }
}

/// Plays the demo in `directory`.
pub(super) async fn play(
    options: &DemoOptions,
    directory: &Path,
    output: &mut Output,
) -> Result<ExitCode, CommandError> {
    let mut show = Show::open(directory, output).await?;
    for version in [FIRST, SECOND] {
        show.release(version, output).await?;
    }
    show.summary(output).await?;
    if options.exit {
        show.close().await;
        return Ok(ExitCode::Ok);
    }
    show.next_steps(output)?;
    show.signals.arrive().await;
    output.note("stopping the fleet");
    show.close().await;
    Ok(ExitCode::Ok)
}

impl Show {
    async fn open(directory: &Path, output: &mut Output) -> Result<Self, CommandError> {
        let product: Product = "hello".parse().map_err(|error| failed("the demo's product", error))?;
        let seed_dir = directory.join("seed");
        output.line(format_args!("In {}:", directory.display()))?;
        let made = Opened::create(&seed_dir, std::slice::from_ref(&product))
            .map_err(|error| failed("no repository", error))?;
        output.line(format_args!("  a repository {} with keys of its own", made.repository.digest().short()))?;
        drop(made);
        let (event_sender, events) = mpsc::channel(EVENTS);
        let mut show = Self {
            product,
            directory: directory.to_owned(),
            fleet: Vec::new(),
            events,
            event_sender,
            started: Instant::now(),
            signals: StopSignals::listen()?,
        };
        let mut seed = launch(config(&seed_dir, Role::Seed, None)).await?;
        let addresses = seed.listening().await;
        output.line(format_args!("  seed    {}", addresses.first().map_or("", String::as_str)))?;
        let ticket = match ask(&seed, Request::Ticket { addresses: Vec::new() }).await? {
            Response::Ticket(view) => view,
            other => return Err(failed("no ticket", format!("{other:?}"))),
        };
        show.enlist("seed".to_owned(), seed, seed_dir, PathBuf::new()).await?;
        for number in 1..=PEERS {
            let data_dir = directory.join(format!("peer-{number}"));
            let install_dir = directory.join(format!("hello-on-peer-{number}"));
            let mut config = config(&data_dir, Role::Peer, Some(ticket.ticket.clone()));
            config.subscriptions = vec![Subscription {
                product: show.product.clone(),
                channel: Channel::stable(),
                directory: Some(install_dir.clone()),
                trial: Trial::default(),
            }];
            let node = launch(config).await?;
            output.line(format_args!("  peer-{number}  joined by ticket, fingerprint {}", ticket.fingerprint))?;
            show.enlist(format!("peer-{number}"), node, data_dir, install_dir).await?;
        }
        show.gather().await?;
        while show.events.try_recv().is_ok() {}
        Ok(show)
    }

    /// Waits until everybody knows the repository, so that what follows is gossip and not joining.
    async fn gather(&self) -> Result<(), CommandError> {
        let begun = Instant::now();
        loop {
            let mut joined = true;
            for member in &self.fleet[1..] {
                joined &= status(&member.node).await?.repositories.iter().any(|repository| repository.head.is_some());
            }
            if joined {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                return Err(CommandError::error(
                    "the peers did not reach the seed over loopback within a minute".to_owned(),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn enlist(
        &mut self,
        name: String,
        node: RunningNode,
        data_dir: PathBuf,
        install_dir: PathBuf,
    ) -> Result<(), CommandError> {
        let (sender, mut receiver) = reply::channel();
        let request = Request::Events { follow: true, since: None };
        node.calls().send(Call { request, reply: sender }).await.map_err(|_| failed(&name, "it stopped"))?;
        let (events, index) = (self.event_sender.clone(), self.fleet.len());
        tokio::spawn(async move {
            while let Some(line) = receiver.next().await {
                if let Line::Event(event) = line
                    && events.send((index, Instant::now(), event)).await.is_err()
                {
                    return;
                }
            }
        });
        self.fleet.push(Member { name, node, data_dir, install_dir });
        Ok(())
    }

    async fn release(&mut self, version: &str, output: &mut Output) -> Result<(), CommandError> {
        let source = self.directory.join(format!("hello-{version}"));
        tree::make(&source, version).map_err(|error| failed("the demo's software cannot be made", error))?;
        output.line("")?;
        output.line(format_args!(
            "Publishing {} {version}: this program, its manual, completions and documents",
            self.product
        ))?;
        self.started = Instant::now();
        let request = Request::Publish(PublishRequest {
            path: source,
            product: self.product.clone(),
            version: version.parse().map_err(|error| failed("the demo's version", error))?,
            channel: Channel::stable(),
            also_on: Vec::new(),
            rollout: None,
            platform: Platform::any(),
            min_from: None,
            notes: Some(format!("The demo's {version}.")),
            critical: false,
            dry_run: false,
            level: archive::DEFAULT_LEVEL,
        });
        let Response::Publish(view) = ask(&self.fleet[0].node, request).await? else {
            return Err(failed("publish", "the seed answered something else"));
        };
        output.line(format_args!(
            "  {} in {} entries packed to {}, {} pieces, sha256 {}, signed, in {:.2} s",
            bytes(view.content_bytes),
            view.entries,
            bytes(view.size_bytes),
            view.pieces,
            view.sha256.short(),
            self.started.elapsed().as_secs_f64()
        ))?;
        self.watch(version, output).await
    }

    /// Shows what happens until every peer runs `version`.
    async fn watch(&mut self, version: &str, output: &mut Output) -> Result<(), CommandError> {
        let begun = Instant::now();
        let mut live = super::live::Live::new(output);
        loop {
            let mut statuses = Vec::new();
            for member in &self.fleet[1..] {
                statuses.push(status(&member.node).await?);
            }
            while let Ok((index, at, event)) = self.events.try_recv() {
                if let Some(text) = shown(&event, version) {
                    live.clear(output)?;
                    let name = &self.fleet[index].name;
                    let seconds = at.saturating_duration_since(self.started).as_secs_f64();
                    output.line(format_args!("  {seconds:>7.3} s  {name:<7} {text}"))?;
                }
            }
            live.draw(output, &statuses)?;
            if statuses.iter().all(|status| runs(status, version)) {
                live.clear(output)?;
                return self.sources(&statuses, output);
            }
            if begun.elapsed() > DEADLINE {
                let why: Vec<String> = statuses
                    .iter()
                    .flat_map(|status| &status.subscriptions)
                    .map(|subscription| subscription.reason.clone().unwrap_or_default())
                    .collect();
                return Err(failed("the fleet did not finish within a minute", why.join("; ")));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.signals.arrive() => return Err(CommandError::error("interrupted".to_owned())),
            }
        }
    }

    fn sources(&self, statuses: &[StatusView], output: &mut Output) -> Result<(), CommandError> {
        for (member, status) in self.fleet[1..].iter().zip(statuses) {
            let Some(progress) = status.subscriptions.first().and_then(|s| s.progress) else { continue };
            output.line(format_args!(
                "  {:<7} {} of pieces from the seed, {} from peers",
                member.name,
                bytes(progress.bytes_from_seed),
                bytes(progress.bytes_from_peers)
            ))?;
        }
        Ok(())
    }

    async fn summary(&self, output: &mut Output) -> Result<(), CommandError> {
        output.line("")?;
        for member in &self.fleet[1..] {
            let current = member.install_dir.join("current");
            let target = std::fs::read_link(&current).map_err(|error| failed("no release is installed", error))?;
            output.line(format_args!("{} -> {}", current.display(), target.display()))?;
        }
        let seed = status(&self.fleet[0].node).await?;
        let peers = u64::try_from(PEERS).unwrap_or(0);
        let mut received = 0;
        for member in &self.fleet[1..] {
            received += status(&member.node).await?.transfer.bytes_in;
        }
        output.line(format_args!(
            "{} peers received {}; {} of it left the seed.",
            peers,
            bytes(received),
            bytes(seed.transfer.bytes_out)
        ))?;
        Ok(())
    }

    fn next_steps(&self, output: &mut Output) -> Result<(), CommandError> {
        let program = std::env::current_exe().map_or_else(|_| "updraft".to_owned(), |path| path.display().to_string());
        let seed = self.fleet[0].data_dir.display();
        let peer = self.fleet[1].data_dir.display();
        output.line("")?;
        output.line("The fleet stays up until Ctrl-C. Try, in another terminal:")?;
        output.line(format_args!("  {program} --data-dir {peer} status --explain"))?;
        output.line(format_args!("  {program} --data-dir {peer} peers"))?;
        output.line(format_args!("  {program} --data-dir {peer} rollback {}", self.product))?;
        output.line(format_args!("  {program} --data-dir {seed} releases"))?;
        output.line(format_args!(
            "  {program} --data-dir {seed} publish DIRECTORY --product {} --version 1.2.0",
            self.product
        ))?;
        output.line(format_args!("  {program} --data-dir {seed} events -f"))?;
        if let Some(http) = self.fleet[0].node.http {
            output.line(format_args!("  curl 'http://{http}/update?product={}&version={FIRST}'", self.product))?;
        }
        Ok(())
    }

    async fn close(self) {
        for member in &self.fleet {
            member.node.stop();
        }
        for member in self.fleet {
            member.node.stopped().await;
        }
    }
}

async fn status(node: &RunningNode) -> Result<StatusView, CommandError> {
    match ask(node, Request::Status { explain: false }).await? {
        Response::Status(status) => Ok(*status),
        other => Err(failed("no status", format!("{other:?}"))),
    }
}

fn runs(status: &StatusView, version: &str) -> bool {
    status.subscriptions.iter().all(|subscription| {
        subscription.installed.as_deref() == Some(version) && subscription.state == SubscriptionState::Committed
    })
}

/// The events that tell the story.
fn shown(event: &Event, version: &str) -> Option<String> {
    let about = event.version.as_deref().is_none_or(|about| about == version);
    let word = match event.kind.as_str() {
        "head_verified" => "gossip ",
        "fetch_started" | "fetch_complete" => Phase::Fetching.word(),
        "staged" => Phase::Staging.word(),
        "installed" => "install",
        "alarm" | "install_failed" | "peer_blamed" | "fetch_stopped" => "ALARM  ",
        _ => return None,
    };
    about.then(|| format!("{word:<9} {}", event.text))
}
