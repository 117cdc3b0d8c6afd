//! The pure engine: inputs and the time come in, effects go out.
//!
//! Architecture invariant: nothing under this module touches a socket, a file, a clock, a random
//! source or an executor. Time is in [`input::Now`], randomness comes from a seed given at the
//! start. That is what lets a test run thousands of engines in virtual time and replay any of it.
//!
//! This file routes; the decisions are in the modules, in the order of an update's path.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use semver::Version;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::names::{Platform, Product};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::ticket::Ticket;
use updraft_protocol::transfer::{Control, Hello, ObjectId};
use updraft_protocol::tuf::RepositoryId;

use self::catalog::{Catalog, CatalogError, CatalogView};
use self::effect::{Effect, Event, EventKind, SwarmEffect};
use self::fetch::{Fetch, News, Outcome};
use self::input::{DiscoverySource, Input, Now, SwarmInput};
use self::install::{Recovered, Refusal, Subscription, SubscriptionSpec};
use self::peers::Peers;
use self::plan::{Facts, Verdict, plan};
use self::supply::{Next, Stage, Supplies, object};
use self::wants::Wants;

pub mod catalog;
pub mod effect;
pub mod fetch;
pub mod input;
pub mod install;
pub mod peers;
pub mod plan;
pub mod report;
mod supply;
mod wants;

/// Faults that are not proof of malice, after which a peer is parted from for good.
const MAX_FAULTS: u32 = 8;
/// Milliseconds between two announcements of an unchanged head, before jitter.
const ANNOUNCE_MS: u64 = 30_000;
/// Seconds after which a seed signs its timestamp again.
const RESIGN_S: i64 = 6 * 3_600;
/// Milliseconds between two looks at everything that depends on the time.
const REVIEW_MS: u64 = 1_000;

/// What an engine is told about its node.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This node.
    pub me: PeerId,
    /// The repository.
    pub repository: RepositoryId,
    /// The ticket it joined by; `None` on the seed.
    pub ticket: Option<Ticket>,
    /// It owns the repository.
    pub is_seed: bool,
    /// What it runs on.
    pub platform: Platform,
    /// Software and version.
    pub agent: String,
    /// Seed of every random choice.
    pub random_seed: u64,
}

/// What a node finds on disk when it starts.
#[derive(Debug)]
pub struct Restored<'a> {
    /// Metadata by file name.
    pub metadata: &'a MetadataReader<'a>,
    /// Small targets by digest.
    pub target: &'a TargetReader<'a>,
    /// Artifacts and their verified pieces.
    pub artifacts: Vec<(Arc<Manifest>, Bitmap)>,
    /// Subscriptions and what was found in their directories.
    pub subscriptions: Vec<(SubscriptionSpec, Recovered)>,
    /// Peers that were reached before.
    pub peers: Vec<(PeerId, Vec<String>)>,
}

/// Reads a metadata file by name.
pub struct MetadataReader<'a>(pub &'a dyn Fn(&str) -> Option<Vec<u8>>);
/// Reads a small target by digest.
pub struct TargetReader<'a>(pub &'a dyn Fn(&Digest) -> Option<Vec<u8>>);

impl std::fmt::Debug for MetadataReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetadataReader")
    }
}

impl std::fmt::Debug for TargetReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetReader")
    }
}

/// One node's decisions.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    catalog: Catalog,
    wants: Wants,
    peers: Peers,
    fetch: Fetch,
    supplies: Supplies,
    subscriptions: Vec<Subscription>,
    /// Releases that an operator asked for, installed or not.
    requested: BTreeSet<Digest>,
    rng: SmallRng,
    announce_at_ms: u64,
    review_at_ms: u64,
    resign_asked_ms: Option<u64>,
    effects: Vec<Effect>,
}

impl Engine {
    /// An engine that goes on from what is on disk, and what it wants done first.
    pub fn restore(config: EngineConfig, found: Restored<'_>, now: Now) -> Result<(Self, Vec<Effect>), CatalogError> {
        let mut rng = SmallRng::seed_from_u64(config.random_seed);
        let catalog = Catalog::restore(config.repository, config.ticket.as_ref(), found.metadata.0, found.target.0)?;
        let mut peers = Peers::new(config.me.clone(), config.repository.0, SmallRng::seed_from_u64(rng.random()));
        if let Some(ticket) = &config.ticket {
            peers.add_ticket_addresses(&ticket.addresses);
        }
        for (peer, addresses) in &found.peers {
            peers.discovered(peer, addresses);
        }
        let mut engine = Self {
            fetch: Fetch::new(SmallRng::seed_from_u64(rng.random())),
            catalog,
            peers,
            wants: Wants::default(),
            supplies: Supplies::default(),
            subscriptions: Vec::new(),
            requested: BTreeSet::new(),
            announce_at_ms: now.mono_ms,
            review_at_ms: now.mono_ms,
            // A seed hears of its peers' head before it signs: a restored backup must not fork.
            resign_asked_ms: Some(now.mono_ms),
            effects: Vec::new(),
            rng,
            config,
        };
        for (manifest, have) in found.artifacts {
            if !engine.add_artifact(&manifest, have) {
                let text = "there are more artifacts in the store than a node can serve; remove some".to_owned();
                engine.tell(EventKind::Alarm, None, text);
                break;
            }
        }
        for (spec, recovered) in found.subscriptions {
            let (subscription, effects) = Subscription::restore(spec, recovered);
            engine.subscriptions.push(subscription);
            engine.effects.extend(effects);
        }
        engine.review(now);
        let effects = std::mem::take(&mut engine.effects);
        Ok((engine, effects))
    }

    /// Takes one input; returns what follows from it, to be carried out in order.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Tick => self.tick(now),
            Input::Swarm(input) => self.swarm(input, now),
            Input::Published { head, files } => self.published(&head, &files, now),
            Input::ArtifactOpened { manifest, result } => self.artifact_opened(&manifest, result, now),
            Input::ArtifactChecked { artifact, have } => self.artifact_checked(&artifact, have, now),
            Input::Staged { directory, transaction, result } => {
                self.step(&directory, now, |subscription| subscription.staged(&transaction, result, now.mono_ms));
            }
            Input::Switched { directory, transaction, result } => {
                self.step(&directory, now, |subscription| subscription.switch_ended(&transaction, result, now.mono_ms));
            }
        }
        self.ask(now);
        std::mem::take(&mut self.effects)
    }

    fn push(&mut self, effect: impl Into<Effect>) {
        self.effects.push(effect.into());
    }

    fn tell(&mut self, kind: EventKind, peer: Option<&PeerId>, text: String) {
        self.push(Effect::Event(Event { kind, product: None, version: None, peer: peer.cloned(), text }));
    }

    // ---- time -------------------------------------------------------------------------------

    fn tick(&mut self, now: Now) {
        let outcome = self.fetch.tick(now.mono_ms);
        self.absorb(outcome, now);
        for effect in self.peers.dials(now.mono_ms) {
            self.push(effect);
        }
        if now.mono_ms < self.review_at_ms {
            return;
        }
        self.review_at_ms = now.mono_ms + REVIEW_MS;
        for peer in self.peers.speechless(now.mono_ms) {
            self.push(SwarmEffect::Disconnect { peer });
        }
        for effect in self.peers.exchange(now.mono_ms) {
            self.push(effect);
        }
        if now.mono_ms >= self.announce_at_ms {
            self.announce(now);
        }
        self.resign(now);
        self.review(now);
    }

    /// Gossip has no memory: the head goes out again on a jittered timer, and neighbours that are
    /// behind are told directly.
    fn announce(&mut self, now: Now) {
        self.announce_at_ms = now.mono_ms + self.rng.random_range(ANNOUNCE_MS / 2..ANNOUNCE_MS * 3 / 2);
        let (root_version, timestamp_version) = (self.catalog.root_version(), self.catalog.timestamp_version());
        if self.catalog.head().is_none() {
            return;
        }
        if self.config.is_seed
            && let Some(payload) = self.catalog.head().cloned()
        {
            self.push(SwarmEffect::PublishHead { payload });
        }
        let behind: Vec<PeerId> = self
            .peers
            .sessions()
            .iter()
            .filter(|(_, session)| {
                session.hello.as_ref().is_some_and(|hello| hello.timestamp_version < timestamp_version)
            })
            .map(|(peer, _)| peer.clone())
            .collect();
        for peer in behind {
            self.push(SwarmEffect::Control { peer, message: Control::Head { root_version, timestamp_version } });
        }
    }

    fn resign(&mut self, now: Now) {
        let Some(view) = self.catalog.view().filter(|_| self.config.is_seed) else { return };
        let signed_at = view.trusted.timestamp().and_then(|timestamp| timestamp.signed_at);
        let due = signed_at.is_none_or(|signed_at| now.wall.seconds_since(signed_at) >= RESIGN_S);
        let asked = self.resign_asked_ms.is_some_and(|asked_ms| now.mono_ms.saturating_sub(asked_ms) < 60_000);
        if due && !asked {
            self.resign_asked_ms = Some(now.mono_ms);
            self.push(Effect::Resign);
        }
    }

    // ---- network ----------------------------------------------------------------------------

    fn swarm(&mut self, input: SwarmInput, now: Now) {
        match input {
            // A block that was cancelled may already be on its way; the shell bounds how many.
            SwarmInput::Listening { .. } | SwarmInput::ListenerClosed { .. } | SwarmInput::BlockUnsolicited { .. } => {}
            SwarmInput::Connected { peer, address, outbound } => self.connected(&peer, address, outbound, now),
            SwarmInput::Disconnected { peer, reason } => {
                self.peers.disconnected(&peer, now.mono_ms);
                self.wants.disconnected(&peer);
                let outcome = self.fetch.disconnected(&peer, now.mono_ms);
                self.absorb(outcome, now);
                self.tell(EventKind::PeerDisconnected, Some(&peer), reason);
            }
            SwarmInput::DialFailed { peer, addresses, .. } => {
                self.peers.dial_failed(peer.as_ref(), &addresses, now.mono_ms);
            }
            SwarmInput::Discovered { peer, addresses, source } => {
                self.peers.discovered(&peer, &addresses);
                if source == DiscoverySource::Identify && self.peers.is_ready(&peer) {
                    self.introduce(&peer);
                }
            }
            SwarmInput::Control { peer, message } => self.control(&peer, message, now),
            SwarmInput::BlockArrived { peer, object, block, outcome } => {
                let outcome = self.fetch.block_arrived(&peer, object, block, outcome, now.mono_ms);
                self.absorb(outcome, now);
            }
            SwarmInput::BlockSent { peer, object, block } => {
                self.fetch.block_sent(&peer, object, block, now.mono_ms);
            }
            SwarmInput::BlockUnreadable { peer, object, block, reason } => {
                let outcome = self.fetch.block_unreadable(&peer, object, block);
                self.absorb(outcome, now);
                self.tell(EventKind::Alarm, None, format!("a stored block cannot be read: {reason}"));
            }
            SwarmInput::Gossip { message, peer, payload } => {
                let (verdict, change) = self.catalog.judge(&payload, now.wall);
                self.push(SwarmEffect::GossipVerdict { message, peer: peer.clone(), verdict });
                self.catalog_changed(change, Some(&peer), false, now);
            }
            SwarmInput::MetaAsked { channel, peer, request } => self.meta_asked(channel, &peer, request),
            SwarmInput::MetaAnswered { request_id, peer, result } => {
                self.meta_answered(request_id, &peer, result, now);
            }
        }
    }

    fn hello(&self) -> Control {
        Control::Hello(Hello {
            repository: self.config.repository.0.as_bytes().to_vec(),
            agent: self.config.agent.clone(),
            features: Vec::new(),
            root_version: self.catalog.root_version(),
            timestamp_version: self.catalog.timestamp_version(),
            seed: self.config.is_seed,
            credential: None,
        })
    }

    fn connected(&mut self, peer: &PeerId, address: String, outbound: bool, now: Now) {
        self.tell(EventKind::PeerConnected, Some(peer), format!("connected at {address}"));
        self.peers.connected(peer, address, outbound, now.mono_ms);
        let message = self.hello();
        self.push(SwarmEffect::Control { peer: peer.clone(), message });
    }

    fn control(&mut self, peer: &PeerId, message: Control, now: Now) {
        match message {
            Control::Hello(hello) => {
                let (root_version, timestamp_version, seed) = (hello.root_version, hello.timestamp_version, hello.seed);
                if let Err(reason) = self.peers.hello(peer, hello) {
                    let message = Control::Goodbye { reason: reason.clone() };
                    self.push(SwarmEffect::Control { peer: peer.clone(), message });
                    self.push(SwarmEffect::Disconnect { peer: peer.clone() });
                    return;
                }
                self.introduce(peer);
                self.heard_head(peer, root_version, timestamp_version);
                let outcome = self.fetch.connected(peer, seed);
                self.absorb(outcome, now);
            }
            _ if !self.peers.is_ready(peer) => self.fault(peer, "spoke before its hello"),
            Control::Head { root_version, timestamp_version } => {
                self.heard_head(peer, root_version, timestamp_version);
            }
            Control::Peers(records) => {
                for record in records {
                    self.peers.discovered(&record.peer, &record.addresses);
                }
                for effect in self.peers.dials(now.mono_ms) {
                    self.push(effect);
                }
            }
            Control::Goodbye { .. } => self.push(SwarmEffect::Disconnect { peer: peer.clone() }),
            Control::Unknown => {}
            message => {
                let outcome = self.fetch.control(peer, message, now.mono_ms);
                self.absorb(outcome, now);
            }
        }
    }

    /// Makes a peer known to others and to the next start. Its hello and its addresses arrive in
    /// either order, so this is done at both.
    fn introduce(&mut self, peer: &PeerId) {
        for effect in self.peers.introduce(peer) {
            self.push(effect);
        }
        let addresses = self.peers.addresses(peer);
        if !addresses.is_empty() {
            self.push(Effect::RememberPeer { peer: peer.clone(), addresses });
        }
    }

    fn heard_head(&mut self, peer: &PeerId, root_version: u64, timestamp_version: u64) {
        self.peers.heard_head(peer, root_version, timestamp_version);
        if root_version > self.catalog.root_version() {
            self.wants.add(MetaFile::Root { version: self.catalog.root_version() + 1 }, Some(peer));
        }
        if timestamp_version > self.catalog.timestamp_version() && self.catalog.view().is_some() {
            self.wants.add(MetaFile::Head, Some(peer));
        }
    }

    fn fault(&mut self, peer: &PeerId, what: &str) {
        if self.peers.fault(peer, MAX_FAULTS) {
            self.ban(peer, what);
        }
    }

    fn ban(&mut self, peer: &PeerId, why: &str) {
        self.peers.ban(peer);
        self.push(SwarmEffect::Ban { peer: peer.clone() });
        self.tell(EventKind::PeerBlamed, Some(peer), format!("banned: it {why}"));
    }

    fn absorb(&mut self, outcome: Outcome, now: Now) {
        self.effects.extend(outcome.effects.into_iter().map(Effect::Swarm));
        for news in outcome.news {
            match news {
                News::Complete(object) => self.artifact_complete(&object.digest, now),
                News::Poisoned { peer, piece, .. } => {
                    self.ban(&peer, &format!("sent piece {piece}, which is not what was signed"));
                }
                News::Misbehaved { peer, what } => self.fault(&peer, what),
                News::Stopped { object, reason } => {
                    self.supplies.refused(&object.digest, reason.clone(), now.mono_ms);
                    self.tell(EventKind::FetchStopped, None, format!("{}: {reason}", object.digest.short()));
                }
            }
        }
    }

    // ---- metadata ---------------------------------------------------------------------------

    fn meta_asked(&mut self, channel: u64, peer: &PeerId, request: MetaRequest) {
        let foreign = request.repository != self.config.repository.0;
        if foreign || !self.peers.sessions().contains_key(peer) {
            let reason = "this node does not serve that repository to you".to_owned();
            self.push(SwarmEffect::MetaAnswer { channel, response: MetaResponse::Refused { reason } });
            return;
        }
        if request.file == MetaFile::Head {
            let response = self.catalog.head().cloned().map_or(MetaResponse::NotFound, MetaResponse::File);
            self.push(SwarmEffect::MetaAnswer { channel, response });
        } else {
            self.push(Effect::AnswerFromStore { channel, file: request.file });
        }
    }

    fn meta_answered(&mut self, request_id: u64, peer: &PeerId, result: Result<MetaResponse, String>, now: Now) {
        let Some(file) = self.wants.answered(request_id, peer) else { return };
        let Ok(MetaResponse::File(bytes)) = result else {
            // Nobody is obliged to know a next root or a newer head.
            if matches!(file, MetaFile::Root { .. } | MetaFile::Head) && self.catalog.view().is_some() {
                self.wants.remove(&file);
            }
            return;
        };
        if let Err(reason) = self.take_file(&file, &bytes, Some(peer), now) {
            self.fault(peer, &format!("answered with a wrong file: {reason}"));
        }
    }

    fn take_file(&mut self, file: &MetaFile, bytes: &[u8], peer: Option<&PeerId>, now: Now) -> Result<(), String> {
        if let MetaFile::Manifest { sha256 } = file {
            let manifest = self.supplies.manifest_arrived(sha256, bytes)?;
            self.wants.remove(file);
            self.supplies.set_stage(manifest.artifact(), Stage::Opening);
            self.push(Effect::OpenArtifact { manifest });
            return Ok(());
        }
        let change = self.catalog.file(file, bytes, now.wall)?;
        self.wants.remove(file);
        self.catalog_changed(change, peer, *file == MetaFile::Head, now);
        Ok(())
    }

    fn catalog_changed(&mut self, change: catalog::Change, peer: Option<&PeerId>, regossip: bool, now: Now) {
        if !change.save.is_empty() {
            self.push(Effect::Save(change.save));
        }
        for file in change.wants {
            self.wants.add(file, peer);
        }
        for alarm in change.alarms {
            self.tell(EventKind::Alarm, peer, alarm);
        }
        if let (Some(reason), Some(peer)) = (change.blame, peer) {
            self.fault(peer, &reason);
        }
        if let Some(version) = change.head_verified {
            self.tell(EventKind::HeadVerified, peer, format!("head {version} verified"));
            self.resign_asked_ms = None;
        }
        if change.replaced {
            let needs: BTreeSet<MetaFile> = self.catalog.needs().into_iter().collect();
            self.wants.retain(|file| match file {
                MetaFile::Role { .. } | MetaFile::Target { .. } => needs.contains(file),
                MetaFile::Head | MetaFile::Root { .. } | MetaFile::Manifest { .. } => true,
            });
            let version = self.catalog.timestamp_version();
            if version > 0 {
                self.tell(EventKind::CatalogUpdated, peer, format!("catalog of head {version} in force"));
            }
            // A head that came by asking was missed by gossip here, and perhaps by neighbours too.
            if let Some(payload) = self.catalog.head().cloned().filter(|_| regossip) {
                self.push(SwarmEffect::PublishHead { payload });
            }
            self.review(now);
        }
    }

    fn published(&mut self, head: &[u8], files: &[(MetaFile, Vec<u8>)], now: Now) {
        for (file, bytes) in files.iter().filter(|(file, _)| matches!(file, MetaFile::Root { .. })) {
            if let Err(reason) = self.take_file(file, bytes, None, now) {
                self.tell(EventKind::Alarm, None, format!("the root that was just made does not verify: {reason}"));
            }
        }
        let (verdict, change) = self.catalog.judge(head, now.wall);
        self.catalog_changed(change, None, false, now);
        for (file, bytes) in
            files.iter().filter(|(file, _)| matches!(file, MetaFile::Role { .. } | MetaFile::Target { .. }))
        {
            // Files that the head carried inline are there already; a second copy changes nothing.
            if self.catalog.needs().contains(file)
                && let Err(reason) = self.take_file(file, bytes, None, now)
            {
                self.tell(EventKind::Alarm, None, format!("a file that was just signed does not verify: {reason}"));
            }
        }
        if verdict == effect::GossipVerdict::Accept
            && let Some(payload) = self.catalog.head().cloned()
        {
            self.push(SwarmEffect::PublishHead { payload });
            self.announce_at_ms = now.mono_ms + ANNOUNCE_MS;
        }
    }

    /// Sends the requests for wanted files that are due.
    fn ask(&mut self, now: Now) {
        if self.wants.is_empty() {
            return;
        }
        let ready = self.peers.ready();
        for ask in self.wants.asks(&ready, now.mono_ms) {
            let request = MetaRequest { repository: self.config.repository.0, file: ask.file };
            self.push(SwarmEffect::MetaAsk { request_id: ask.request_id, peer: ask.peer, request });
        }
    }

    // ---- artifacts --------------------------------------------------------------------------

    /// The store holds (part of) an artifact: it can be served, and fetched further.
    /// False where this node tracks as many artifacts as a session can speak of.
    pub fn add_artifact(&mut self, manifest: &Arc<Manifest>, have: Bitmap) -> bool {
        self.supplies.add_manifest(manifest);
        self.fetch.add(object(manifest.artifact()), manifest.clone(), have)
    }

    /// The store looked again at what it holds of an artifact, and lost some of it.
    fn artifact_checked(&mut self, artifact: &Digest, have: Bitmap, now: Now) {
        self.fetch.replace_have(&object(artifact), have);
        self.supplies.set_stage(artifact, Stage::NeedManifest);
        self.review(now);
    }

    fn artifact_opened(&mut self, manifest: &Arc<Manifest>, result: Result<Bitmap, String>, now: Now) {
        let artifact = *manifest.artifact();
        match result {
            Ok(have) => {
                if !self.add_artifact(manifest, have) {
                    let reason = "this node holds too many artifacts; remove some and restart it".to_owned();
                    self.supplies.refused(&artifact, reason, now.mono_ms);
                    return;
                }
                if self.supplies.get(&artifact).is_some() {
                    self.supplies.set_stage(&artifact, Stage::Fetching);
                    let outcome = self.fetch.want(object(&artifact), now.mono_ms);
                    self.absorb(outcome, now);
                }
            }
            Err(reason) => {
                self.tell(EventKind::FetchStopped, None, format!("{}: {reason}", artifact.short()));
                self.supplies.refused(&artifact, reason, now.mono_ms);
            }
        }
    }

    fn artifact_complete(&mut self, artifact: &Digest, now: Now) {
        self.supplies.set_stage(artifact, Stage::Complete);
        self.requested.remove(artifact);
        if let Some(release) = self.catalog.view().and_then(|view| view.release_of(artifact)) {
            let event = Event {
                kind: EventKind::FetchComplete,
                product: Some(release.id.product.clone()),
                version: Some(release.id.version.clone()),
                peer: None,
                text: format!("{} is complete and verified", release.id),
            };
            self.push(Effect::Event(event));
        }
        for subscription in &mut self.subscriptions {
            self.effects.extend(subscription.artifact_complete(artifact));
        }
        self.review(now);
    }

    // ---- installs ---------------------------------------------------------------------------

    fn step(&mut self, directory: &str, now: Now, step: impl FnOnce(&mut Subscription) -> Vec<Effect>) {
        let found = self.subscriptions.iter_mut().find(|s| s.spec.directory.as_deref() == Some(directory));
        if let Some(subscription) = found {
            self.effects.extend(step(subscription));
        }
        self.review(now);
    }

    /// Brings what is done in line with what is known: plans every subscription, and wants exactly
    /// the artifacts that follow. Idempotent.
    fn review(&mut self, now: Now) {
        for file in self.catalog.needs() {
            self.wants.add(file, None);
        }
        let Some(view) = self.catalog.view().cloned() else { return };
        self.plan_all(&view, now);
        let mut wanted: Vec<Arc<Release>> =
            self.subscriptions.iter().filter_map(|subscription| subscription.wanted().cloned()).collect();
        wanted.extend(self.requested.iter().filter_map(|artifact| view.release_of(artifact).cloned()));
        for release in &wanted {
            self.supply(release, now);
        }
        for artifact in self.supplies.retain(|artifact| wanted.iter().any(|release| release.artifact == *artifact)) {
            let outcome = self.fetch.unwant(&object(&artifact));
            self.effects.extend(outcome.effects.into_iter().map(Effect::Swarm));
        }
        let complete: Vec<Digest> = wanted
            .iter()
            .map(|release| release.artifact)
            .filter(|artifact| self.fetch.is_complete(&object(artifact)))
            .collect();
        for artifact in complete {
            for subscription in &mut self.subscriptions {
                self.effects.extend(subscription.artifact_complete(&artifact));
            }
        }
    }

    fn plan_all(&mut self, view: &CatalogView, now: Now) {
        for subscription in &mut self.subscriptions {
            let facts = Facts {
                product: &subscription.spec.product,
                channel: &subscription.spec.channel,
                platform: &self.config.platform,
                installed: subscription.installed.as_ref().map(|installed| &installed.version),
                node_id: Some(self.config.me.as_bytes()),
                quarantine: Some(&subscription.quarantine),
                hurry: subscription.hurry.as_ref(),
            };
            let decision = plan(view, &facts, now.wall);
            let effects = match (&decision.verdict, &decision.offered) {
                (Verdict::Install, Some(release)) => {
                    let transaction = format!("{:016x}", self.rng.random::<u64>());
                    subscription.pursue(release, transaction, now.mono_ms)
                }
                _ => subscription.abandon(),
            };
            subscription.decision = Some(decision);
            self.effects.extend(effects);
        }
    }

    fn supply(&mut self, release: &Arc<Release>, now: Now) {
        let id: ObjectId = object(&release.artifact);
        let (held, known) = (self.fetch.is_complete(&id), self.fetch.contains(&id));
        match self.supplies.want(release, held, known, now.mono_ms) {
            Next::AskManifest(file) => self.wants.add(file, None),
            Next::Open(manifest) => self.push(Effect::OpenArtifact { manifest }),
            Next::Nothing => {
                if !held && known {
                    let outcome = self.fetch.want(id, now.mono_ms);
                    self.absorb(outcome, now);
                }
            }
        }
    }

    /// An operator wants an artifact here, installed or not.
    pub fn request(&mut self, release: &Arc<Release>, now: Now) -> Vec<Effect> {
        if !self.fetch.is_complete(&object(&release.artifact)) {
            self.requested.insert(release.artifact);
        }
        self.review(now);
        self.ask(now);
        std::mem::take(&mut self.effects)
    }

    /// An operator wants the offered release tried now, quarantine or not.
    /// `hurry` does not wait for the rollout. A `version` other than the offered one is refused.
    pub fn retry(
        &mut self,
        product: &Product,
        version: Option<&Version>,
        hurry: bool,
        now: Now,
    ) -> Result<Vec<Effect>, Refusal> {
        let mut found = false;
        for subscription in self.subscriptions.iter_mut().filter(|s| s.spec.product == *product) {
            found = true;
            let decision = subscription.decision.as_ref();
            let offered = decision.and_then(|decision| decision.offered.as_ref()).map(|release| &release.id.version);
            if let Some(wanted) = version.filter(|wanted| Some(*wanted) != offered) {
                let offered = offered.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                return Err(Refusal::NotOffered { product: product.clone(), wanted: wanted.clone(), offered });
            }
            subscription.retry(hurry);
        }
        if !found {
            return Err(Refusal::NotSubscribed(product.to_string()));
        }
        self.review(now);
        self.ask(now);
        Ok(std::mem::take(&mut self.effects))
    }

    /// An operator wants the previous release back.
    pub fn roll_back(&mut self, product: &Product, to: Option<&Version>) -> Result<Vec<Effect>, Refusal> {
        let mut subscriptions = self
            .subscriptions
            .iter_mut()
            .filter(|s| s.spec.product == *product && s.spec.directory.is_some())
            .peekable();
        if subscriptions.peek().is_none() {
            return Err(Refusal::NotSubscribed(product.to_string()));
        }
        let mut effects = Vec::new();
        for subscription in subscriptions {
            let transaction = format!("{:016x}", self.rng.random::<u64>());
            effects.extend(subscription.roll_back(to, transaction)?);
        }
        Ok(effects)
    }
}
