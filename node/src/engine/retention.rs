//! Which artifacts stay in the store, and when the others go.
//!
//! Of what a node follows the current release and the one before stay; so does what it is fetching,
//! installing or was asked for. A seed keeps every release that is listed: the publisher's signature is
//! its reason, and no online key can take it away. Everything else is forgotten here first (neighbours are
//! told), and removed from the disk after that: whatever instant a crash picks, the artifact is whole or
//! gone, and the next start looks again.
//!
//! Nothing is removed on metadata that is incomplete or that contradicts itself: what a thief signs must
//! not cost anybody the releases that were there before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::names::Platform;
use updraft_protocol::release::{Notes, Release};
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::time::UtcTime;

use super::Engine;
use super::catalog::CatalogView;
use super::effect::Effect;
use super::input::Now;
use super::install::Subscription;
use super::supply::object;

/// Releases that a follower keeps of a channel: the current one and the one to go back to.
pub const KEPT_RELEASES: u32 = 2;

/// Milliseconds between two looks at what may go. An artifact goes at the second look that finds it of no
/// use: one that a policy drops and takes up again at once stays.
const LOOK_MS: u64 = 5_000;
/// Milliseconds for which an artifact that was packed here stays, signed or not.
const FRESH_MS: u64 = 600_000;
/// Seconds for which an artifact that an operator asked for stays.
const PIN_S: i64 = 7 * 24 * 3_600;
/// Artifacts that operators asked for and that stay; beyond it the oldest goes. Bounds disk and memory.
const MAX_PINS: usize = 256;

/// What the runtime does about what stays and what goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetentionEffect {
    /// Remove artifacts that nothing needs any more.
    Remove {
        /// The artifacts.
        artifacts: Vec<Digest>,
    },
    /// Remember that an operator asked for an artifact.
    Pin {
        /// The artifact.
        artifact: Digest,
        /// How long it stays.
        until: UtcTime,
    },
    /// An artifact does not stay any more for having been asked for.
    Unpin {
        /// The artifact.
        artifact: Digest,
    },
    /// Remove small files that nothing names any more, but for the last of them.
    KeepSmallFiles {
        /// Those that stay.
        named: BTreeSet<Digest>,
    },
}

/// What is remembered between two looks.
#[derive(Debug)]
pub(super) struct Retention {
    /// Releases kept of each channel that is held without being installed.
    depth: u32,
    /// See [`Keeper::cache_limit_bytes`].
    cache_limit_bytes: Option<u64>,
    look_at_ms: u64,
    /// Of no use at the last look.
    suspects: BTreeSet<Digest>,
    /// Asked for by an operator, and until when each stays.
    pins: BTreeMap<Digest, UtcTime>,
    /// Packed here, and until when each stays.
    fresh: BTreeMap<Digest, u64>,
    /// Version of the timestamp by which small files were tidied last.
    tidied: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            depth: KEPT_RELEASES,
            cache_limit_bytes: None,
            look_at_ms: 0,
            suspects: BTreeSet::new(),
            pins: BTreeMap::new(),
            fresh: BTreeMap::new(),
            tidied: 0,
        }
    }
}

/// An artifact that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unneeded {
    /// The artifact.
    pub artifact: Digest,
    /// Its bytes when whole.
    pub length: u64,
    /// Verified bytes that are here.
    pub bytes_done: u64,
}

/// Why an artifact stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is listed, and this is a seed.
    Listed,
    /// It is installed here.
    Installed,
    /// It was installed before, and is gone back to.
    Previous,
    /// It is being installed, held or gone back to.
    Pursued,
    /// A channel that is followed here is at it.
    Current,
    /// A mirror falls back on it.
    Spare,
    /// It is being fetched.
    Fetched,
    /// An operator asked for it a while ago.
    Pinned,
    /// It was packed here a while ago.
    Fresh,
    /// An offer is about it.
    Offered,
    /// What is signed is incomplete or contradicts itself: nothing goes by it.
    Doubt,
}

impl Need {
    /// The reason as a sentence that begins with the artifact.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "is listed, and a seed keeps what is",
            Self::Installed => "is installed",
            Self::Previous => "is the release to go back to",
            Self::Pursued => "is being installed or held",
            Self::Current => "is what a channel is at",
            Self::Spare => "is one of the newest that a mirror keeps",
            Self::Fetched => "is being fetched",
            Self::Pinned => "was asked for by an operator",
            Self::Fresh => "was packed here a short time ago",
            Self::Offered => "is part of an offer",
            Self::Doubt => "is kept while signed metadata is incomplete or contradicts itself",
        }
    }
}

/// An artifact that is here, and why it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The artifact.
    pub artifact: Digest,
    /// Its bytes when whole.
    pub length: u64,
    /// Verified bytes that are here.
    pub bytes_done: u64,
    /// Why it stays; `None` where it goes.
    pub need: Option<Need>,
}

/// Whose needs are asked for.
pub(super) struct Keeper<'a> {
    pub(super) is_seed: bool,
    pub(super) platform: &'a Platform,
    pub(super) subscriptions: &'a [Subscription],
    pub(super) depth: u32,
    /// Bytes of artifacts beyond which a mirror keeps no more than the release before the current one.
    pub(super) cache_limit_bytes: Option<u64>,
    /// Whether every piece of an artifact is here.
    pub(super) is_whole: &'a dyn Fn(&Digest) -> bool,
}

/// Artifacts that `keeper` needs by the set in force, here or not, each with the best reason.
pub(super) fn needed(view: &CatalogView, keeper: &Keeper<'_>) -> BTreeMap<Digest, Need> {
    let mut needed = BTreeMap::new();
    let mut need = |artifact: Digest, why: Need| {
        needed.entry(artifact).or_insert(why);
    };
    let at = |subscription: &Subscription| {
        let spec = &subscription.spec;
        let policy = view.channels.get(&(spec.product.clone(), spec.channel.clone()))?;
        let current = policy.version.as_ref().and_then(|version| view.release(&spec.product, version, keeper.platform));
        Some((policy, current.map(|release| release.artifact)))
    };
    for subscription in keeper.subscriptions {
        subscription.installed.iter().for_each(|installed| need(installed.artifact, Need::Installed));
        subscription.previous.iter().for_each(|previous| need(previous.artifact, Need::Previous));
        subscription.pursued().into_iter().for_each(|artifact| need(artifact, Need::Pursued));
        at(subscription)
            .and_then(|(_, current)| current)
            .into_iter()
            .for_each(|artifact| need(artifact, Need::Current));
    }
    if keeper.is_seed {
        view.releases.iter().for_each(|release| need(release.artifact, Need::Listed));
    }
    // Last, for what else must stay counts against the limit before they do.
    let counted = view.releases.iter().filter(|release| needed.contains_key(&release.artifact));
    let mut bytes: u64 = counted.map(|release| release.length).fold(0, u64::saturating_add);
    for subscription in keeper.subscriptions.iter().filter(|subscription| subscription.spec.directory.is_none()) {
        let Some((policy, current)) = at(subscription) else { continue };
        // What was current before is not written down anywhere: it is the newest of the others.
        let others = usize::try_from(keeper.depth).unwrap_or(usize::MAX).saturating_sub(1);
        let may = |release: &&Arc<Release>| is_spare(release, subscription, policy, keeper);
        let newest = view.releases.iter().rev().filter(may).filter(|release| current != Some(release.artifact));
        for (number, release) in newest.take(others).enumerate() {
            if needed.contains_key(&release.artifact) {
                continue;
            }
            let with = bytes.saturating_add(release.length);
            // The one before the current stays whatever it costs: it is what is gone back to.
            if number > 0 && keeper.cache_limit_bytes.is_some_and(|limit| with > limit) {
                break;
            }
            bytes = with;
            needed.insert(release.artifact, Need::Spare);
        }
    }
    needed
}

/// Whether a mirror may fall back on a release: it is whole here, and belongs to the channel.
fn is_spare(release: &Release, subscription: &Subscription, policy: &ChannelPolicy, keeper: &Keeper<'_>) -> bool {
    release.id.product == subscription.spec.product
        && release.id.platform.serves(keeper.platform)
        && release.channels.contains(&subscription.spec.channel)
        && !policy.yanked.contains(&release.id.version)
        && (keeper.is_whole)(&release.artifact)
}

impl Engine {
    /// Sets how many releases stay of a channel that is held without being installed; at least one.
    pub fn keep_releases(&mut self, depth: u32) {
        self.retention.depth = depth.max(1);
    }

    /// Sets how many bytes of artifacts a mirror may hold before it keeps fewer old releases. What is
    /// current, installed, gone back to or asked for stays all the same.
    pub fn limit_cache(&mut self, bytes: Option<u64>) {
        self.retention.cache_limit_bytes = bytes;
    }

    /// What [`Engine::limit_cache`] set.
    pub fn cache_limit_bytes(&self) -> Option<u64> {
        self.retention.cache_limit_bytes
    }

    /// Artifacts that operators asked for before the last stop, and until when each stays.
    pub fn remember_pins(&mut self, pins: Vec<(Digest, UtcTime)>) {
        self.retention.pins.extend(pins);
    }

    /// An artifact was packed here: it stays for a while, whether or not anything names it yet.
    pub fn keep_fresh(&mut self, artifact: &Digest) {
        // The time of the last look is as good as now.
        self.retention.fresh.insert(*artifact, self.retention.look_at_ms.saturating_add(FRESH_MS));
    }

    /// An operator asked for an artifact: it stays where it can be found.
    pub(super) fn pin(&mut self, artifact: &Digest, now: Now) {
        let until = now.wall.plus_seconds(PIN_S);
        self.retention.pins.insert(*artifact, until);
        self.push(Effect::Retention(RetentionEffect::Pin { artifact: *artifact, until }));
        if self.retention.pins.len() > MAX_PINS
            && let Some(oldest) = self.retention.pins.iter().min_by_key(|(_, until)| **until).map(|(old, _)| *old)
        {
            self.unpin(&oldest);
        }
    }

    fn unpin(&mut self, artifact: &Digest) {
        if self.retention.pins.remove(artifact).is_some() {
            self.push(Effect::Retention(RetentionEffect::Unpin { artifact: *artifact }));
        }
    }

    /// Artifacts here that nothing needs: they go soon, or at once by [`Engine::collect_now`]. Empty while
    /// the set in force is not one to remove anything by.
    pub fn unneeded(&self) -> Vec<Unneeded> {
        let going = self.inventory().into_iter().filter(|held| held.need.is_none());
        going
            .map(|held| Unneeded { artifact: held.artifact, length: held.length, bytes_done: held.bytes_done })
            .collect()
    }

    /// Every artifact here, and why it stays.
    pub fn inventory(&self) -> Vec<Held> {
        let sound = |view: &&Arc<CatalogView>| {
            view.trusted.is_complete() && view.contradictions.is_empty() && view.altered.is_empty()
        };
        let view = self.catalog.view().filter(sound).filter(|_| self.catalog.needs().is_empty());
        let is_whole = |artifact: &Digest| self.fetch.is_complete(&object(artifact));
        let keeper = Keeper {
            is_seed: self.config.is_seed,
            platform: &self.config.platform,
            subscriptions: &self.subscriptions,
            depth: self.retention.depth,
            cache_limit_bytes: self.retention.cache_limit_bytes,
            is_whole: &is_whole,
        };
        let needed = view.map(|view| needed(view, &keeper));
        let why = |artifact: &Digest| {
            let Some(needed) = &needed else { return Some(Need::Doubt) };
            let otherwise = [
                (self.supplies.get(artifact).is_some() || self.requested.contains(artifact), Need::Fetched),
                (self.retention.pins.contains_key(artifact), Need::Pinned),
                (self.retention.fresh.contains_key(artifact), Need::Fresh),
                (self.offers.keeps(artifact), Need::Offered),
            ];
            let found = otherwise.into_iter().find_map(|(holds, need)| holds.then_some(need));
            needed.get(artifact).copied().or(found)
        };
        let held = |artifact: &Digest| {
            let transfer = self.fetch.view(&object(artifact))?;
            let (length, bytes_done) = (transfer.bytes_total, transfer.bytes_done);
            Some(Held { artifact: *artifact, length, bytes_done, need: why(artifact) })
        };
        self.supplies.known().filter_map(held).collect()
    }

    /// Removes what nothing needs, without waiting for a second look. What goes, and how.
    pub fn collect_now(&mut self) -> (Vec<Unneeded>, Vec<Effect>) {
        let unneeded = self.unneeded();
        self.remove_artifacts(unneeded.iter().map(|gone| gone.artifact).collect());
        (unneeded, std::mem::take(&mut self.effects))
    }

    /// Artifacts that any channel is at.
    fn pointed(&self) -> BTreeSet<Digest> {
        let Some(view) = self.catalog.view() else { return BTreeSet::new() };
        let at = |release: &&Arc<Release>| {
            let id = &release.id;
            let of_product = view.channels.iter().filter(|((product, _), _)| *product == id.product);
            let mut versions = of_product.filter_map(|(_, policy)| policy.version.as_ref());
            versions.any(|version| *version == id.version)
        };
        view.releases.iter().filter(at).map(|release| release.artifact).collect()
    }

    /// The artifacts of a store in the order in which they are taken up: where there are more than a node
    /// can speak of, those that no channel is at are left out.
    pub(super) fn most_needed_first(
        &self,
        mut artifacts: Vec<(Arc<Manifest>, Option<Bitmap>)>,
    ) -> Vec<(Arc<Manifest>, Option<Bitmap>)> {
        let pointed = self.pointed();
        artifacts.sort_by_key(|(manifest, _)| !pointed.contains(manifest.artifact()));
        artifacts
    }

    /// Stops speaking of one artifact that no channel is at, for one that was just packed. It stays in the
    /// store. False where there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let pointed = self.pointed();
        let can_go = |artifact: &&Digest| {
            !pointed.contains(artifact)
                && self.supplies.get(artifact).is_none()
                && !self.retention.fresh.contains_key(artifact)
                && self.fetch.contains(&object(artifact))
        };
        let view = self.catalog.view();
        // What is listed is in the order of versions, and what is not listed comes before all of it.
        let rank = |artifact: &&Digest| {
            view.and_then(|view| view.releases.iter().position(|release| release.artifact == **artifact))
        };
        let Some(oldest) = self.supplies.known().filter(can_go).min_by_key(rank).copied() else { return false };
        self.forget_artifact(&oldest);
        true
    }

    /// Looks at what may go, now and then.
    pub(super) fn collect(&mut self, now: Now) {
        if now.mono_ms < self.retention.look_at_ms {
            return;
        }
        self.retention.look_at_ms = now.mono_ms + LOOK_MS;
        self.retention.fresh.retain(|_, until_ms| now.mono_ms < *until_ms);
        let over: Vec<Digest> =
            self.retention.pins.iter().filter(|(_, until)| now.wall >= **until).map(|(pinned, _)| *pinned).collect();
        for artifact in over {
            self.unpin(&artifact);
        }
        let unneeded: BTreeSet<Digest> = self.unneeded().into_iter().map(|found| found.artifact).collect();
        let (gone, suspects): (Vec<Digest>, Vec<Digest>) =
            unneeded.into_iter().partition(|artifact| self.retention.suspects.contains(artifact));
        self.retention.suspects = suspects.into_iter().collect();
        self.remove_artifacts(gone);
        // Manifests that came for what is not wanted any more, and that the store never opened.
        let is_stray = |artifact: &&Digest| {
            self.supplies.get(artifact).is_none()
                && !self.supplies.is_opening(artifact)
                && !self.fetch.contains(&object(artifact))
        };
        let strays: Vec<Digest> = self.supplies.known().filter(is_stray).copied().collect();
        for artifact in strays {
            self.supplies.forget(&artifact);
        }
        self.tidy_small_files();
    }

    fn remove_artifacts(&mut self, artifacts: Vec<Digest>) {
        for artifact in &artifacts {
            self.forget_artifact(artifact);
        }
        if !artifacts.is_empty() {
            self.push(Effect::Retention(RetentionEffect::Remove { artifacts }));
        }
    }

    /// Nothing of an artifact is asked for or served any more; neighbours that heard of it are told.
    fn forget_artifact(&mut self, artifact: &Digest) {
        let id = object(artifact);
        let outcome = self.fetch.remove(&id);
        self.effects.extend(outcome.effects.into_iter().map(Effect::Swarm));
        self.supplies.forget(artifact);
        self.retention.suspects.remove(artifact);
    }

    /// Old channel policies and notes are named by nothing once a newer set is in force.
    fn tidy_small_files(&mut self) {
        let version = self.catalog.timestamp_version();
        let Some(view) = self.catalog.view().filter(|view| view.trusted.is_complete()) else { return };
        if version == self.retention.tidied {
            return;
        }
        let notes = view.releases.iter().filter_map(|release| match release.notes {
            Notes::File { sha256, .. } => Some(sha256),
            Notes::Text(_) | Notes::None => None,
        });
        let named = notes.chain(self.catalog.small_files().copied()).collect();
        self.retention.tidied = version;
        self.push(Effect::Retention(RetentionEffect::KeepSmallFiles { named }));
    }
}
