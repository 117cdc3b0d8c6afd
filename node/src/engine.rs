//! The pure engine: inputs and the time come in, effects go out.
//!
//! Architecture invariant: nothing under this module touches a socket, a file, a clock, a random
//! source or an executor. Time is in [`input::Now`], randomness comes from a seed given at the
//! start. That is what lets a test run thousands of engines in virtual time and replay any of it.
//!
//! This file routes; the decisions are in the modules, in the order of an update's path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use semver::Version;
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Platform, Product};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::ticket::Ticket;
use updraft_protocol::transfer::ObjectId;
use updraft_protocol::tuf::RepositoryId;

use self::adoption::{Adoption, Versions};
use self::bans::{Ban, Bans};
use self::catalog::{Catalog, CatalogError, CatalogView};
use self::effect::{Effect, Event, EventKind, SwarmEffect};
use self::fetch::Fetch;
use self::input::{Input, Now};
use self::install::{Installed, Recovered, Refusal, Subscription, SubscriptionSpec};
use self::limits::Limits;
use self::maintenance::{Maintenance, OwnWindows};
use self::memory::Memory;
use self::offers::Offers;
use self::outcomes::Outcomes;
use self::peers::Peers;
use self::plan::{Disk, Facts, Verdict, plan};
use self::retention::Retention;
use self::supply::{Next, Stage, Supplies, object};
use self::wants::Wants;
use self::watch::{Signing, Watch};

mod adoption;
pub mod bans;
mod bucket;
pub mod catalog;
pub mod clock;
pub mod effect;
pub mod evidence;
pub mod fetch;
pub mod input;
pub mod install;
pub mod limits;
pub mod maintenance;
pub mod memory;
mod metadata;
pub mod offers;
pub mod outcomes;
pub mod peers;
pub mod plan;
pub mod policy;
pub mod report;
pub mod retention;
mod sessions;
mod supply;
mod wants;
pub mod watch;

/// Faults that are no proof of malice, after which a session ends.
const MAX_FAULTS: u32 = 8;
/// Milliseconds between two announcements of an unchanged head, before jitter.
const ANNOUNCE_MS: u64 = 30_000;
/// Seconds after which a seed signs its timestamp again, a tenth more or less: seeds that were started
/// together do not sign together, and nobody can tell the minute beforehand.
const RESIGN_S: i64 = 6 * 3_600;
/// Milliseconds before an artifact of which a block could not be read is looked at again.
const CHECK_AGAIN_MS: u64 = 60_000;
/// Sessions that a node may have where nobody says otherwise.
const DEFAULT_SESSIONS: usize = 64;
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
    /// Milliseconds that a seed waits for the peers it knows before it signs first; 0: not at all.
    pub adopt_wait_ms: u64,
    /// How fast it may send and receive, and when.
    pub limits: Limits,
    /// Percent of one copy of an artifact that may leave it, first copies of pieces included; none: any
    /// number of copies.
    pub egress_budget_percent: Option<u32>,
}

/// What a node finds on disk when it starts.
#[derive(Debug)]
pub struct Restored<'a> {
    /// Metadata by file name.
    pub metadata: &'a MetadataReader<'a>,
    /// Small targets by digest.
    pub target: &'a TargetReader<'a>,
    /// Artifacts and their verified pieces; none where the store lost track of them and has to look again.
    pub artifacts: Vec<(Arc<Manifest>, Option<Bitmap>)>,
    /// Subscriptions and what was found in their directories.
    pub subscriptions: Vec<(SubscriptionSpec, Recovered)>,
    /// Peers that were reached before.
    pub peers: Vec<(PeerId, Vec<String>)>,
    /// What earlier sets taught.
    pub memory: Memory,
    /// Peers that lied provably.
    pub bans: Vec<Ban>,
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
    offers: Offers,
    subscriptions: Vec<Subscription>,
    /// Releases that an operator asked for, installed or not.
    requested: BTreeSet<Digest>,
    rng: SmallRng,
    announce_at_ms: u64,
    review_at_ms: u64,
    resign_asked_ms: Option<u64>,
    resign_after_s: i64,
    adoption: Adoption,
    watch: Watch,
    bans: Bans,
    retention: Retention,
    /// Artifacts that were looked at because a block could not be read, and when that may be done again.
    checks: BTreeMap<Digest, u64>,
    limited: RateLimited,
    limits: limits::Applied,
    windows: OwnWindows,
    outcomes: Outcomes,
    effects: Vec<Effect>,
}

/// What neighbours asked too much of, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimited {
    /// Gossiped heads that were not looked at.
    pub heads: u64,
    /// Metadata requests that were refused.
    pub requests: u64,
}

/// When a timestamp is signed again: about every six hours, and not at the same minute everywhere.
fn resign_after_s(rng: &mut SmallRng) -> i64 {
    rng.random_range(RESIGN_S - RESIGN_S / 10..=RESIGN_S + RESIGN_S / 10)
}

impl Engine {
    /// An engine that goes on from what is on disk, and what it wants done first.
    pub fn restore(config: EngineConfig, found: Restored<'_>, now: Now) -> Result<(Self, Vec<Effect>), CatalogError> {
        let mut rng = SmallRng::seed_from_u64(config.random_seed);
        let (catalog, learned) = Catalog::restore(
            config.repository,
            config.ticket.as_ref(),
            found.metadata.0,
            found.target.0,
            found.memory,
            now.wall,
        )?;
        let mut peers = Peers::new(config.me.clone(), config.repository.0, SmallRng::seed_from_u64(rng.random()));
        peers.set_limits(DEFAULT_SESSIONS, config.is_seed);
        if let Some(ticket) = &config.ticket {
            peers.add_ticket_addresses(&ticket.addresses);
        }
        for (peer, addresses) in &found.peers {
            peers.discovered(peer, addresses);
        }
        let versions = Versions {
            root: catalog.root_version(),
            timestamp: catalog.view().map_or(0, |view| view.timestamp_version()),
        };
        let banned = |peer: &PeerId| found.bans.iter().any(|ban| ban.peer == *peer && now.wall < ban.ends_at);
        let known = found.peers.iter().map(|(peer, _)| peer).filter(|peer| config.is_seed && !banned(peer));
        let adoption = Adoption::start(known, versions, config.adopt_wait_ms, now.mono_ms);
        let mut engine = Self {
            adoption,
            watch: Watch::default(),
            bans: Bans::restore(found.bans),
            retention: Retention::default(),
            checks: BTreeMap::new(),
            limited: RateLimited::default(),
            limits: limits::Applied::new(config.limits.clone()),
            windows: OwnWindows::default(),
            outcomes: Outcomes::default(),
            fetch: Fetch::new(config.me.clone(), config.is_seed, SmallRng::seed_from_u64(rng.random())),
            catalog,
            peers,
            wants: Wants::default(),
            supplies: Supplies::default(),
            offers: Offers::default(),
            subscriptions: Vec::new(),
            requested: BTreeSet::new(),
            announce_at_ms: now.mono_ms,
            review_at_ms: now.mono_ms,
            // A seed that knows no peers hears of those that dial it, for a minute.
            resign_asked_ms: Some(now.mono_ms),
            resign_after_s: resign_after_s(&mut rng),
            effects: Vec::new(),
            rng,
            config,
        };
        engine.fetch.set_budget(engine.config.egress_budget_percent);
        engine.apply_limits(now);
        engine.catalog_changed(learned, None, false, now);
        for (manifest, have) in engine.most_needed_first(found.artifacts) {
            let Some(have) = have else {
                engine.open(&manifest);
                continue;
            };
            if !engine.track(&manifest, have) {
                let text = "there are more artifacts in the store than a node can serve; remove some".to_owned();
                engine.tell(EventKind::Alarm, None, text);
                break;
            }
        }
        for (spec, recovered) in found.subscriptions {
            let (subscription, effects) = Subscription::restore(spec, recovered, now.mono_ms);
            engine.subscriptions.push(subscription);
            engine.effects.extend(effects);
        }
        engine.watch(now);
        engine.review(now);
        engine.note_outcomes();
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
            Input::Offer(input) => self.offer_input(input, now),
            Input::Staged { directory, transaction, result } => {
                self.step(&directory, now, |subscription| subscription.staged(&transaction, result, now.mono_ms));
            }
            Input::Switched { directory, transaction, result } => {
                self.step(&directory, now, |subscription| subscription.switch_ended(&transaction, result, now.mono_ms));
            }
            Input::Activated { directory, transaction, result, output } => {
                self.step(&directory, now, |subscription| {
                    let said = subscription.said(&transaction, "the activation", &output);
                    let effects = subscription.activated(&transaction, result, now.mono_ms);
                    said.into_iter().chain(effects).collect()
                });
            }
            Input::Checked { directory, transaction, number, result, output } => {
                self.step(&directory, now, |subscription| {
                    // A healthy release need not be listened to.
                    let ill = result.is_err();
                    let said = ill.then(|| subscription.said(&transaction, "the health check", &output)).flatten();
                    let effects = subscription.checked(&transaction, number, result, now.mono_ms);
                    said.into_iter().chain(effects).collect()
                });
            }
        }
        self.ask(now);
        self.report_outcomes(now);
        std::mem::take(&mut self.effects)
    }

    /// How many sessions the node may have; some more are let in while newcomers crowd the door.
    pub fn limit_sessions(&mut self, most: usize) {
        self.peers.set_limits(most, self.config.is_seed);
    }

    /// When installs may begin on this machine.
    pub fn set_maintenance(&mut self, maintenance: &Maintenance) {
        self.windows = maintenance.of_node(self.config.me.as_bytes());
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
        self.tend_neighbours(now);
        self.offers_tick(now);
        let before = self.effects.len();
        for subscription in &mut self.subscriptions {
            self.effects.extend(subscription.tick(now.mono_ms));
        }
        if self.effects.len() > before {
            // What ended just now closes or opens gates.
            self.review_at_ms = now.mono_ms;
        }
        self.outcomes_tick(now);
        if now.mono_ms < self.review_at_ms {
            return;
        }
        self.review_at_ms = now.mono_ms + REVIEW_MS;
        self.apply_limits(now);
        for peer in self.peers.speechless(now.mono_ms) {
            self.push(SwarmEffect::Disconnect { peer });
        }
        if let Some(exchange) = self.peers.exchange(now.mono_ms) {
            self.push(exchange);
        }
        if now.mono_ms >= self.announce_at_ms {
            self.announce(now);
        }
        self.watch(now);
        self.resign(now);
        self.review(now);
        self.collect(now);
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
        self.spread_evidence(None);
        let behind: Vec<PeerId> = self
            .peers
            .sessions()
            .iter()
            .filter(|(_, session)| {
                // A new root may start the timestamp versions anew.
                session.hello.as_ref().is_some_and(|hello| {
                    (hello.root_version, hello.timestamp_version) < (root_version, timestamp_version)
                })
            })
            .map(|(peer, _)| peer.clone())
            .collect();
        for peer in behind {
            let message = self.head_hint();
            self.push(SwarmEffect::Control { peer, message });
        }
    }

    fn resign(&mut self, now: Now) {
        let Some(view) = self.catalog.view().filter(|_| self.config.is_seed) else { return };
        let signed_at = view.trusted.timestamp().and_then(|timestamp| timestamp.signed_at);
        let due = signed_at.is_none_or(|signed_at| now.wall.seconds_since(signed_at) >= self.resign_after_s);
        let asked = self.resign_asked_ms.is_some_and(|asked_ms| now.mono_ms.saturating_sub(asked_ms) < 60_000);
        if due && !asked && self.signing(now) == Signing::Ready {
            self.resign_asked_ms = Some(now.mono_ms);
            self.resign_after_s = resign_after_s(&mut self.rng);
            self.push(Effect::Resign);
        }
    }

    // ---- artifacts --------------------------------------------------------------------------

    /// The store holds (part of) an artifact that was packed here: it can be served, and stays for a while
    /// even if nothing names it. False where this node tracks as many artifacts as a session can speak of.
    pub fn add_artifact(&mut self, manifest: &Arc<Manifest>, have: Bitmap) -> bool {
        self.keep_fresh(manifest.artifact());
        self.track(manifest, have.clone()) || (self.make_room() && self.track(manifest, have))
    }

    /// The store holds (part of) an artifact: it can be served, and fetched further.
    fn track(&mut self, manifest: &Arc<Manifest>, have: Bitmap) -> bool {
        self.supplies.add_manifest(manifest);
        self.fetch.add(object(manifest.artifact()), manifest.clone(), have)
    }

    /// Has the store open or create an artifact, once.
    pub(crate) fn open(&mut self, manifest: &Arc<Manifest>) {
        if self.supplies.open(manifest) {
            self.push(Effect::OpenArtifact { manifest: manifest.clone() });
        }
    }

    /// A stored block could not be read: finds out what is left of its artifact.
    fn check_artifact(&mut self, artifact: Digest, reason: &str, now: Now) {
        self.checks.retain(|_, again_ms| now.mono_ms < *again_ms);
        if self.checks.contains_key(&artifact) {
            return;
        }
        self.checks.insert(artifact, now.mono_ms + CHECK_AGAIN_MS);
        let text = format!("a stored block cannot be read: {reason}; the artifact {} is checked", artifact.short());
        self.tell(EventKind::Alarm, None, text);
        self.push(Effect::CheckArtifact { artifact });
    }

    /// The store looked again at what it holds of an artifact, and lost some of it.
    fn artifact_checked(&mut self, artifact: &Digest, have: Bitmap, now: Now) {
        if have.is_full() {
            return;
        }
        self.fetch.replace_have(&object(artifact), have);
        self.supplies.set_stage(artifact, Stage::NeedManifest);
        self.review(now);
    }

    fn artifact_opened(&mut self, manifest: &Arc<Manifest>, result: Result<Bitmap, String>, now: Now) {
        let artifact = *manifest.artifact();
        self.supplies.opened(&artifact);
        match result {
            Ok(have) => {
                if !self.track(manifest, have) {
                    let reason = "this node holds too many artifacts; remove some and restart it".to_owned();
                    self.offered_artifact_failed(&artifact, &reason, now);
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
                self.offered_artifact_failed(&artifact, &reason, now);
                self.supplies.refused(&artifact, reason, now.mono_ms);
            }
        }
    }

    fn artifact_complete(&mut self, artifact: &Digest, now: Now) {
        self.supplies.set_stage(artifact, Stage::Complete);
        if self.requested.remove(artifact) {
            self.pin(artifact, now);
        }
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
        self.offered_artifact_complete(artifact, now);
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
        let ahead = self.plan_all(&view, now);
        let mut wanted: Vec<Arc<Release>> =
            self.subscriptions.iter().filter_map(|subscription| subscription.wanted().cloned()).collect();
        wanted.extend(self.requested.iter().filter_map(|artifact| view.release_of(artifact).cloned()));
        wanted.extend(self.offers.wanted().cloned());
        wanted.extend(ahead);
        for release in &wanted {
            self.supply(release, now);
        }
        for release in self.supplies.retain(|artifact| wanted.iter().any(|release| release.artifact == *artifact)) {
            // Nobody is asked for its manifest any more, and nobody is to blame who still sends it.
            self.wants.remove(&MetaFile::Manifest { sha256: release.manifest.sha256 });
            let outcome = self.fetch.unwant(&object(&release.artifact));
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

    /// Plans every subscription. Returns what is fetched ahead of an install that waits for the clock.
    fn plan_all(&mut self, view: &CatalogView, now: Now) -> Vec<Arc<Release>> {
        let mut ahead = Vec::new();
        for subscription in &mut self.subscriptions {
            let disk = subscription.shortage().map(|shortage| Disk {
                artifact: shortage.artifact,
                reason: shortage.reason,
                look_at: now.wall.plus_seconds(seconds_until(shortage.until_ms.unwrap_or(now.mono_ms), now.mono_ms)),
            });
            let facts = Facts {
                product: &subscription.spec.product,
                channel: &subscription.spec.channel,
                platform: &self.config.platform,
                installed: subscription.installed.as_ref().map(|installed| &installed.version),
                node_id: Some(self.config.me.as_bytes()),
                quarantine: Some(&subscription.quarantine),
                hurry: subscription.hurry.as_ref(),
                holds: Some(&subscription.holds),
                disk,
                // Nothing changes on a machine that only holds a release.
                window: subscription.spec.directory.as_ref().map(|_| &self.windows),
            };
            let decision = plan(view, &facts, now.wall);
            let has_begun = |release: &Arc<Release>| subscription.is_unpacking(&release.artifact);
            let goes_on = decision.verdict == Verdict::Install
                || decision.waits_for_the_disk()
                || (decision.waits_for_maintenance() && decision.offered.as_ref().is_some_and(has_begun));
            let effects = match &decision.offered {
                Some(release) if goes_on => {
                    let transaction = format!("{:016x}", self.rng.random::<u64>());
                    subscription.pursue(release, transaction, now.mono_ms)
                }
                _ => subscription.abandon(),
            };
            if decision.may_fetch_ahead() {
                ahead.extend(decision.offered.clone());
            }
            subscription.decision = Some(decision);
            self.effects.extend(effects);
        }
        ahead
    }

    fn supply(&mut self, release: &Arc<Release>, now: Now) {
        let id: ObjectId = object(&release.artifact);
        let (held, known) = (self.fetch.is_complete(&id), self.fetch.contains(&id));
        match self.supplies.want(release, held, known, now.mono_ms) {
            Next::AskManifest(file) => self.wants.add(file, None),
            Next::Open(manifest) => self.open(&manifest),
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
        if self.fetch.is_complete(&object(&release.artifact)) {
            self.pin(&release.artifact, now);
        } else {
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
            self.effects.extend(subscription.retry(hurry));
        }
        if !found {
            return Err(Refusal::NotSubscribed(product.to_string()));
        }
        self.review(now);
        self.ask(now);
        Ok(std::mem::take(&mut self.effects))
    }

    /// An operator wants the previous release back, or another that is kept: `kept` says which are in a
    /// directory. What is left is held where `hold` says so.
    pub fn roll_back(
        &mut self,
        product: &Product,
        to: Option<&Version>,
        hold: bool,
        kept: &dyn Fn(&str) -> Vec<Installed>,
        now: Now,
    ) -> Result<Vec<Effect>, Refusal> {
        self.ask_installs(product, now, |subscription, transaction| {
            let kept = subscription.spec.directory.as_deref().map(kept).unwrap_or_default();
            subscription.roll_back(to, &kept, hold, transaction)
        })
    }

    /// An operator keeps a version, or everything, of a product from being installed.
    pub fn hold(
        &mut self,
        product: &Product,
        version: Option<&Version>,
        reason: &str,
        now: Now,
    ) -> Result<Vec<Effect>, Refusal> {
        self.ask_installs(product, now, |subscription, _| subscription.hold(version, reason))
    }

    /// An operator lifts the hold on a version, or every hold on a product.
    pub fn unhold(&mut self, product: &Product, version: Option<&Version>, now: Now) -> Result<Vec<Effect>, Refusal> {
        self.ask_installs(product, now, |subscription, _| Ok(subscription.unhold(version)))
    }

    /// Asks every subscription that installs `product`; each gets a name for an attempt.
    fn ask_installs(
        &mut self,
        product: &Product,
        now: Now,
        mut ask: impl FnMut(&mut Subscription, String) -> Result<Vec<Effect>, Refusal>,
    ) -> Result<Vec<Effect>, Refusal> {
        let mut found = false;
        let mut refused = None;
        for subscription in self.subscriptions.iter_mut().filter(|s| s.spec.product == *product) {
            if subscription.spec.directory.is_none() {
                continue;
            }
            found = true;
            match ask(subscription, format!("{:016x}", self.rng.random::<u64>())) {
                Ok(effects) => self.effects.extend(effects),
                Err(refusal) => refused = Some(refusal),
            }
        }
        let effects = std::mem::take(&mut self.effects);
        if !found {
            return Err(Refusal::NotSubscribed(product.to_string()));
        }
        if let Some(refusal) = refused.filter(|_| effects.is_empty()) {
            return Err(refusal);
        }
        let asked = !effects.is_empty();
        self.effects = effects;
        if asked {
            self.review(now);
            self.ask(now);
        }
        self.report_outcomes(now);
        Ok(std::mem::take(&mut self.effects))
    }
}

/// Whole seconds until a monotonic time.
fn seconds_until(at_ms: u64, now_ms: u64) -> i64 {
    i64::try_from(at_ms.saturating_sub(now_ms).div_ceil(1_000)).unwrap_or(i64::MAX)
}
