//! One running node: the only place where the engine meets the shells.
//!
//! A single task owns the engine. It takes one input at a time (from the network, the disk, the
//! control socket, the clock), lets the engine decide, and hands the effects to the shells in order.
//! Nothing here blocks for long: steps on disk are on the worker's threads, packing and signing on the
//! blocking pool; what is left is reading one small file that somebody asked for. Shells
//! never see each other; what two of them share (blocks, the HTTP face's snapshot) goes through a
//! seam that is defined here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use updraft_protocol::key::SigningKey;
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::peer::PeerId;
use updraft_protocol::transfer::Control;

use self::calls::Pending;
use self::delivery::Damaged;
use self::events::Events;
use self::face::NodeFace;
use self::installs::{Installs, Step};
use self::journal::Written;
pub use self::messages::Messages;
use self::open::{OpenError, Opened, wall_clock};
use self::owed::Trouble;
use self::publish::Prepared;
use self::worker::Job;
use crate::config::{Kad, NodeConfig, Role};
use crate::control::Call;
use crate::control::server::{BindError, Server};
use crate::engine::Engine;
use crate::engine::catalog::CatalogView;
use crate::engine::effect::{Effect, Event, EventKind, GossipVerdict, Hold, InstallEffect, SwarmEffect};
use crate::engine::input::{Input, Now, SwarmInput};
use crate::engine::peers::peer_of;
use crate::gateway::{self, Face, GatewayError};
use crate::publisher;
use crate::publisher::draft::Signed;
use crate::publisher::keys::KeysError;
use crate::publisher::keys::Unlock;
use crate::store::state::StateError;
use crate::swarm::{self, Counters, SwarmConfig, SwarmError, SwarmHandle};

mod blocks;
mod calls;
pub mod ceremony;
pub mod channel;
mod delivery;
pub mod descriptors;
pub mod doctor;
mod events;
mod face;
mod gc;
pub mod identity;
pub mod inspect;
mod installs;
mod journal;
mod messages;
mod numbers;
mod offers;
pub mod offline;
pub mod open;
mod outcomes;
mod owed;
mod publish;
mod push;
mod restore;
mod ticket;
mod traffic;
mod trust;
mod views;
mod worker;

/// Software and version, as told to peers.
pub const AGENT: &str = concat!("updraft/", env!("CARGO_PKG_VERSION"));

/// Inputs from the network that may wait.
const INPUTS: usize = 1_024;
/// Results from disk that may wait.
const RESULTS: usize = 1_024;
/// Calls from the control socket that may wait.
const CALLS: usize = 64;
/// Inputs taken in one go before anything else gets its turn.
const BATCH: usize = 64;
/// The engine hears of time this often.
const TICK: Duration = Duration::from_millis(100);
/// And this often while blocks move.
const QUICK_TICK: Duration = Duration::from_millis(20);
/// Progress of downloads is saved this often.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// Numbers for the HTTP face are this old at most.
const NUMBERS: Duration = Duration::from_secs(1);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node has no identity.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The network cannot be used.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// The HTTP face cannot be had.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] BindError),
    /// The state database refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// The seed could not sign what it has to sign by itself.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// An install directory in which another product is installed.
    #[error(
        "{product} cannot be installed to {}: {installed} is installed there; give {product} a directory of its own", directory.display()
    )]
    OtherProduct {
        /// The directory.
        directory: PathBuf,
        /// What was to be installed.
        product: String,
        /// What is there: product and version.
        installed: String,
    },
    /// An install directory whose name is not text.
    #[error("the install directory {} is not valid UTF-8; choose another", .0.display())]
    Directory(PathBuf),
}

/// A node that runs in this process.
#[derive(Debug)]
pub struct RunningNode {
    /// Its identity.
    pub peer_id: PeerId,
    /// Where its HTTP face is, if it has one.
    pub http: Option<SocketAddr>,
    /// The addresses that it listens on, as they become known.
    pub listening: watch::Receiver<Vec<String>>,
    calls: mpsc::Sender<Call>,
    messages: Arc<Messages>,
    push_unlock: Arc<OnceLock<Arc<dyn Unlock>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningNode {
    /// Where calls go that would otherwise come over the control socket.
    pub fn calls(&self) -> mpsc::Sender<Call> {
        self.calls.clone()
    }

    /// How many messages it took and gave.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Who is asked for the passphrases of keys that a push signs with. Only the first counts.
    pub fn unlock_pushes(&self, unlock: Arc<dyn Unlock>) {
        // Whoever came first is asked.
        let _ = self.push_unlock.set(unlock);
    }

    /// Asks the node to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the node has stopped.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the node failed");
        }
    }

    /// Waits until at least one address accepts connections.
    pub async fn listening(&mut self) -> Vec<String> {
        match self.listening.wait_for(|addresses| !addresses.is_empty()).await {
            Ok(addresses) => addresses.clone(),
            Err(_) => Vec::new(),
        }
    }
}

struct Runtime {
    config: NodeConfig,
    peer_id: PeerId,
    signer: SigningKey,
    opened: Opened,
    engine: Engine,
    swarm: mpsc::Sender<SwarmEffect>,
    counters: Arc<Counters>,
    files: mpsc::Sender<Job>,
    /// Why rows wait for the disk.
    trouble: Trouble,
    installs: Installs,
    results: mpsc::Receiver<Input>,
    backlog: VecDeque<Input>,
    prepared_sender: mpsc::Sender<Prepared>,
    pending: Vec<Pending>,
    damaged: Damaged,
    /// Something came that somebody may wait for.
    look_now: bool,
    /// Publications that are packed and wait until this seed may sign.
    unsigned: VecDeque<Prepared>,
    push: Option<push::Push>,
    push_unlock: Arc<OnceLock<Arc<dyn Unlock>>>,
    to_sign: offers::ToSign,
    /// Channels that this seed is to pause by itself.
    halts: VecDeque<outcomes::Halt>,
    events: Events,
    messages: Arc<Messages>,
    face: Arc<NodeFace>,
    shown: Option<Arc<CatalogView>>,
    listening: watch::Sender<Vec<String>>,
    http: Option<SocketAddr>,
    started: Instant,
    stop: CancellationToken,
}

/// Starts a node in the current tokio runtime.
pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
    let started = Instant::now();
    let (opened, identity) = {
        let (data_dir, ticket) = (config.data_dir.clone(), config.ticket.clone());
        let opening = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let opened = match ticket {
                Some(ticket) => Opened::open(&data_dir, Some(&ticket))?,
                None => Opened::open_existing(&data_dir)?,
            };
            Ok((opened, identity::load(&data_dir)?))
        });
        opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
    };
    if config.role == Role::Seed && opened.ticket.is_some() {
        return Err(OpenError::NotASeed(config.data_dir.clone()).into());
    }
    if config.role == Role::Peer && opened.ticket.is_none() {
        return Err(OpenError::IsASeed(config.data_dir.clone()).into());
    }
    if identity.was_cloned {
        tracing::warn!("this directory was copied from another machine: the node has a new identity");
    }
    let peer_id = identity.identity.peer_id();
    let (swarm_inputs, inputs) = mpsc::channel(INPUTS);
    let swarm = swarm::spawn(
        &SwarmConfig {
            identity: identity.identity,
            repository: opened.repository.0,
            listen: config.listen.clone(),
            external: config.external.clone(),
            mdns: config.mdns,
            kad: match config.kad {
                Kad::Off => swarm::Kad::Off,
                Kad::Client => swarm::Kad::Client,
                Kad::Server => swarm::Kad::Server,
            },
            favoured: opened.ticket.iter().flat_map(|ticket| &ticket.addresses).filter_map(|a| peer_of(a)).collect(),
            agent: AGENT.to_owned(),
            max_peers: config.max_peers,
        },
        Arc::new(blocks::StoreBlocks(opened.store.clone())),
        swarm_inputs,
    )?;
    let now = Now { wall: wall_clock(), mono_ms: 0 };
    let (mut engine, effects) = restore::restore(&config, &opened, peer_id.clone(), now)?;
    engine.limit_sessions(config.max_peers);
    if let Some(view) = engine.catalog().filter(|_| config.role == Role::Seed) {
        opened.keys.check_online(&view.trusted)?;
    }
    let stop = CancellationToken::new();
    let face = Arc::new(NodeFace::new(opened.clone(), &config.data_dir));
    let http = serve_http(&config, &face, &stop).await?;
    let control = Server::bind(&config.data_dir)?;
    let (call_sender, calls) = mpsc::channel(CALLS);
    tokio::spawn(control.run(call_sender.clone(), stop.clone()));
    let (result_sender, results) = mpsc::channel(RESULTS);
    let (prepared_sender, prepared) = mpsc::channel(CALLS);
    let trouble = Trouble::default();
    let files = worker::start(&opened, &result_sender, trouble.clone());
    let installs = Installs::new(&opened, &result_sender, config.keep_releases, &stop);
    let (listening_sender, listening) = watch::channel(Vec::new());
    let (push_unlock, messages) = (Arc::new(OnceLock::new()), Arc::<Messages>::default());
    let runtime = Runtime {
        peer_id: peer_id.clone(),
        signer: identity.signer,
        engine,
        swarm: swarm.effects(),
        counters: swarm.counters(),
        files,
        trouble,
        installs,
        results,
        backlog: VecDeque::new(),
        prepared_sender,
        pending: Vec::new(),
        damaged: Damaged::default(),
        look_now: false,
        unsigned: VecDeque::new(),
        push: None,
        push_unlock: push_unlock.clone(),
        to_sign: offers::ToSign::new(),
        halts: VecDeque::new(),
        events: Events::new(now.wall),
        messages: Arc::clone(&messages),
        face,
        shown: None,
        listening: listening_sender,
        http,
        started,
        stop: stop.clone(),
        opened,
        config,
    };
    let task = tokio::spawn(Box::pin(runtime.run(swarm, inputs, calls, prepared, effects)));
    Ok(RunningNode { peer_id, http, listening, calls: call_sender, messages, push_unlock, stop, task })
}

async fn serve_http(
    config: &NodeConfig,
    face: &Arc<NodeFace>,
    stop: &CancellationToken,
) -> Result<Option<SocketAddr>, GatewayError> {
    if let Some(address) = config.metrics {
        gateway::serve(address, face.clone(), Face::MetricsOnly, stop.clone()).await?;
    }
    let Some(address) = config.http else { return Ok(None) };
    let which = if config.metrics.is_some() { Face::WithoutMetrics } else { Face::Full };
    Ok(Some(gateway::serve(address, face.clone(), which, stop.clone()).await?.address))
}

impl Runtime {
    fn now(&self) -> Now {
        Now { wall: wall_clock(), mono_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX) }
    }

    async fn run(
        mut self,
        swarm: SwarmHandle,
        mut inputs: mpsc::Receiver<SwarmInput>,
        mut calls: mpsc::Receiver<Call>,
        mut prepared: mpsc::Receiver<Prepared>,
        first: Vec<Effect>,
    ) {
        self.carry_out(first).await;
        self.resume_offers().await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quick = tokio::time::interval(QUICK_TICK);
        quick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut checkpoint, mut numbers) = (Instant::now(), None::<Instant>);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(input) = inputs.recv() => {
                    self.input(Input::Swarm(input)).await;
                    for _ in 0..BATCH {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.input(Input::Swarm(input)).await;
                    }
                }
                Some(result) = self.results.recv() => self.input(result).await,
                Some(call) = calls.recv() => self.call(call).await,
                Some(prepared) = prepared.recv() => self.prepared(prepared).await,
                _ = quick.tick(), if self.engine.is_busy() => self.input(Input::Tick).await,
                _ = tick.tick() => {
                    self.input(Input::Tick).await;
                    self.mend().await;
                    self.poll_pending();
                    self.sign_waiting().await;
                    self.poll_push().await;
                    if checkpoint.elapsed() >= CHECKPOINT && self.engine.is_fetching() {
                        checkpoint = Instant::now();
                        self.file_job(Job::Checkpoint).await;
                    }
                    if numbers.is_none_or(|at| at.elapsed() >= NUMBERS) {
                        numbers = Some(Instant::now());
                        self.refresh_numbers();
                    }
                }
            }
            loop {
                while let Some(input) = self.backlog.pop_front() {
                    self.input(input).await;
                }
                if let Some(halt) = self.halts.pop_front() {
                    self.halt(halt).await;
                    continue;
                }
                self.sign_offered().await;
                // What cannot be signed yet waits for the next turn.
                if self.backlog.is_empty() && self.halts.is_empty() {
                    break;
                }
            }
            if std::mem::take(&mut self.look_now) {
                self.poll_pending();
            }
            self.refresh_view();
        }
        self.shut_down(swarm, inputs).await;
    }

    async fn shut_down(mut self, swarm: SwarmHandle, mut inputs: mpsc::Receiver<SwarmInput>) {
        for pending in self.pending.drain(..) {
            pending.node_stops();
        }
        for prepared in std::mem::take(&mut self.unsigned) {
            self.withdraw(prepared, publish::stopping());
        }
        let drain = async { while inputs.recv().await.is_some() {} };
        tokio::select! {
            () = swarm.shutdown() => {}
            () = drain => {}
        }
        let effects = self.engine.settle_outcomes();
        self.carry_out(effects).await;
        self.file_job(Job::Checkpoint).await;
        let (sender, reached) = oneshot::channel();
        self.file_job(Job::Barrier(sender)).await;
        if reached.await.is_err() {
            tracing::warn!("the disk worker ended early");
        }
    }

    /// Hands an input to the engine and does what follows. Boxed: the future is held by many callers.
    async fn input(&mut self, input: Input) {
        if let Input::Swarm(SwarmInput::Listening { address }) = &input {
            let address = format!("{address}/p2p/{}", self.peer_id);
            tracing::info!(%address, "listening");
            self.listening.send_modify(|all| all.push(address));
        }
        if let Input::Swarm(SwarmInput::ListenerClosed { address, reason }) = &input {
            tracing::warn!(%address, %reason, "no longer listening");
            let gone = format!("{address}/p2p/{}", self.peer_id);
            self.listening.send_modify(|all| all.retain(|one| *one != gone));
        }
        if let Input::Swarm(input) = &input {
            self.messages.heard(input);
        }
        let now = self.now();
        let effects = self.engine.handle(input, now);
        self.carry_out(effects).await;
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Swarm(effect) => self.swarm_effect(effect).await,
                Effect::CheckArtifact { artifact } => self.file_job(Job::Check(artifact)).await,
                Effect::Save(saves) => self.file_job(Job::Save(saves)).await,
                Effect::OpenArtifact { manifest } => self.file_job(Job::Open(manifest)).await,
                Effect::AnswerFromStore { channel, file } => {
                    let response = self.find(&file).map_or(MetaResponse::NotFound, MetaResponse::File);
                    self.swarm_effect(SwarmEffect::MetaAnswer { channel, response }).await;
                }
                Effect::Journal(entry) => {
                    let directory = entry.directory.clone();
                    self.install_step(&directory, Step::Journal(entry)).await;
                }
                // Whoever waits for it asks `write_hold` itself.
                Effect::Hold(hold) => drop(self.write_hold(hold).await),
                Effect::Install(effect) => {
                    if let InstallEffect::Discard { directory, transaction } = &effect {
                        self.installs.abandon(directory, transaction);
                    }
                    let directory = effect.directory().to_owned();
                    self.install_step(&directory, Step::Install(effect)).await;
                }
                Effect::RememberPeer { peer, addresses } => self.file_job(Job::RememberPeer { peer, addresses }).await,
                Effect::RememberBan(ban) => self.file_job(Job::RememberBan(ban)).await,
                Effect::ForgetBan { peer } => self.file_job(Job::ForgetBan(peer)).await,
                Effect::Retention(effect) => self.file_job(Job::Retention(effect)).await,
                Effect::Offer(effect) => self.offer_effect(effect).await,
                Effect::Outcome(effect) => self.outcome_effect(effect).await,
                Effect::Resign => self.resign().await,
                Effect::Event(event) => {
                    self.look_now |= event.kind == EventKind::FetchComplete;
                    self.tell(event).await;
                }
            }
        }
    }

    async fn swarm_effect(&mut self, effect: SwarmEffect) {
        if matches!(effect, SwarmEffect::GossipVerdict { verdict: GossipVerdict::Reject, .. }) {
            self.events.heads_rejected += 1;
        }
        let effect = self.signed(effect);
        self.messages.said(&effect);
        if self.swarm.send(effect).await.is_err() {
            tracing::debug!("the network has stopped");
        }
    }

    /// The same; what a node says of itself is signed as it leaves.
    fn signed(&self, effect: SwarmEffect) -> SwarmEffect {
        match effect {
            SwarmEffect::Control { peer, message: Control::Report(report) } => {
                let report = report.sign(&self.opened.repository.0, &self.signer);
                SwarmEffect::Control { peer, message: Control::Report(Box::new(report)) }
            }
            other => other,
        }
    }

    /// Keeps a set that was just signed. It is on disk before anybody hears of it: after a crash this
    /// seed must not sign the same version again with another content.
    async fn keep(&mut self, signed: &Signed) -> Result<(), String> {
        // An older set that still waits to be saved must not come after this one.
        let (sender, reached) = oneshot::channel();
        self.file_job(Job::Barrier(sender)).await;
        reached.await.map_err(|_| "the disk worker has ended".to_owned())?;
        let (opened, saves) = (self.opened.clone(), publisher::in_order(signed));
        match tokio::task::spawn_blocking(move || opened.save(&saves)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn file_job(&mut self, job: Job) {
        let queue = self.files.clone();
        self.submit(queue, job).await;
    }

    async fn install_step(&mut self, directory: &str, step: Step) {
        let queue = self.installs.queue(directory);
        self.submit(queue, step).await;
    }

    /// Has a hold written. What is to be done in its directory from now on waits until it is.
    async fn write_hold(&mut self, hold: Hold) -> oneshot::Receiver<Written> {
        let (told, written) = oneshot::channel();
        let (reached, barrier) = oneshot::channel();
        self.file_job(Job::Hold(hold.clone(), vec![told, reached])).await;
        let directory = hold.directory.clone();
        self.install_step(&directory, Step::Held(hold, barrier)).await;
        written
    }

    /// Queues a job. While the queue is full results are taken: a worker that waits to hand one over
    /// would never empty it.
    async fn submit<T>(&mut self, queue: mpsc::Sender<T>, job: T) {
        loop {
            tokio::select! {
                permit = queue.reserve() => {
                    if let Ok(permit) = permit {
                        permit.send(job);
                    } else {
                        tracing::error!("a disk worker has ended; the node must be restarted");
                    }
                    return;
                }
                Some(result) = self.results.recv() => self.backlog.push_back(result),
            }
        }
    }

    /// A metadata file that somebody asks for: from memory where it is, else from disk.
    fn find(&self, file: &MetaFile) -> Option<Vec<u8>> {
        let view = self.engine.catalog();
        match file {
            MetaFile::Head => self.engine.head().cloned(),
            MetaFile::Root { version } => self.opened.read_metadata(&format!("{version}.root.json")),
            MetaFile::Role { name, version } => {
                let role = name.parse::<updraft_protocol::tuf::RoleName>().ok()?;
                let loaded = view.and_then(|view| view.trusted.role(&role)).filter(|role| role.version == *version);
                loaded
                    .map(|role| role.bytes().to_vec())
                    .or_else(|| self.opened.read_metadata(&format!("{version}.{}.json", role.file_stem())))
            }
            MetaFile::Target { path, sha256 } => view
                .and_then(|view| view.channel_files.get(path))
                .filter(|bytes| updraft_protocol::digest::Digest::of(bytes) == *sha256)
                .map(|bytes| bytes.to_vec())
                .or_else(|| self.opened.read_target(sha256)),
            MetaFile::Manifest { sha256 } => self.opened.store.manifest_bytes(sha256),
            // The engine has it in memory and answers itself; an offer is no file.
            MetaFile::Evidence { .. } | MetaFile::Offer(_) => None,
        }
    }

    async fn resign(&mut self) {
        let Some(view) = self.engine.catalog().cloned() else { return };
        let keys = self.opened.keys.clone();
        let now = wall_clock();
        let signed = tokio::task::spawn_blocking(move || publisher::renew(&view, &keys, now)).await;
        let kept = match signed {
            Ok(Ok(signed)) => self.keep(&signed).await.map(|()| signed),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match kept {
            Ok(signed) => self.backlog.push_back(Input::Published { head: signed.head, files: signed.files }),
            Err(reason) => {
                let text = format!("the head could not be signed again: {reason}");
                self.tell(Event { kind: EventKind::Alarm, product: None, version: None, peer: None, text }).await;
            }
        }
    }

    async fn tell(&mut self, event: Event) {
        let now = wall_clock();
        let level_is_high = event.kind.is_alarm()
            || matches!(event.kind, EventKind::PeerBlamed | EventKind::InstallFailed | EventKind::InstallPostponed);
        if level_is_high {
            tracing::warn!(kind = event.kind.as_str(), "{}", event.text);
        } else {
            tracing::info!(kind = event.kind.as_str(), "{}", event.text);
        }
        self.events.add(&event, now);
        // How installs end is written to the history together with what that changes.
        let written = matches!(event.kind, EventKind::Installed | EventKind::RolledBack | EventKind::InstallFailed);
        if event.kind.is_history() && !written {
            self.file_job(Job::History { event, at: now }).await;
        }
    }

    fn refresh_view(&mut self) {
        let view = self.engine.catalog();
        let same = match (view, &self.shown) {
            (Some(view), Some(shown)) => Arc::ptr_eq(view, shown),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.shown = view.cloned();
            self.face.update_view(self.shown.clone());
        }
    }
}
