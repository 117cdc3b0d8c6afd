//! What a node remembers of signed metadata, so that keys that are stolen later cannot bend what was
//! signed before: every release that it ever verified, and the highest security floor of each product.
//!
//! Memory only grows, by what verified sets say, and is on disk before the set that taught it. It never
//! decides what is signed; it only takes away: a release that changed is no release any more, and a
//! version below a remembered floor is not installed.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{RoleName, TargetInfo, Trusted};

use super::catalog::CatalogView;
use super::clock::Clock;

/// Releases that are remembered. Bounds memory (some 40 MB) and disk against a publisher that adds and
/// retires releases for ever; beyond it new ones are used, and the node says that it cannot watch them.
pub const MAX_REMEMBERED: usize = 1 << 18;

/// Changed releases and lowered floors that are told one by one; more are summed up.
const MAX_TOLD: usize = 10;

/// The prefix of every target that may never change.
const IMMUTABLE: &str = "releases/";

/// A security floor and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// No version below may be installed.
    pub version: Version,
    /// The root under whose targets key it was signed. Once a later root takes that key away, the
    /// floor no longer holds: that is how a floor is lowered on purpose, and no online key can do it.
    pub root_version: u64,
}

/// What must be on disk before the set that taught it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Releases seen for the first time: target path, SHA-256 of the signed entry.
    pub targets: Vec<(String, Digest)>,
    /// Floors that are new or higher.
    pub floors: Vec<(Product, Floor)>,
    /// When the newest believable head was signed.
    pub signed_at: Option<UtcTime>,
}

impl Learned {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.floors.is_empty() && self.signed_at.is_none()
    }
}

/// Everything that is remembered of one repository.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// SHA-256 of the signed entry, by target path.
    pub targets: BTreeMap<String, Digest>,
    /// The highest floor of each product.
    pub floors: BTreeMap<Product, Floor>,
    /// What the clock is judged by.
    pub clock: Clock,
}

/// What a set teaches, and what of it is refused.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    pub(crate) learned: Learned,
    /// Releases that are not what they were.
    pub(crate) altered: BTreeSet<String>,
    /// Floors that hold, whatever the set says: product, floor, what the set says.
    pub(crate) lowered: Vec<(Product, Version, Option<Version>)>,
}

impl Memory {
    /// Whether `target` may be signed at `path`: the path is new, or says what it always said.
    pub fn permits(&self, path: &str, target: &TargetInfo) -> bool {
        self.targets.get(path).is_none_or(|known| *known == target.entry_digest())
    }

    /// Compares a set and its `targets` with what is remembered, and remembers what is new. `rotated_at` is the
    /// last root that took a targets key away.
    pub(crate) fn observe(
        &mut self,
        trusted: &Trusted,
        targets: &[(&str, &TargetInfo, RoleName)],
        rotated_at: u64,
        now: UtcTime,
    ) -> Observation {
        let mut seen = Observation::default();
        // Only where a path leads by the delegations counts: another product's publisher must not be
        // able to say first what this one's releases are.
        for (path, target, _) in targets {
            if !path.starts_with(IMMUTABLE) {
                continue;
            }
            let entry = target.entry_digest();
            match self.targets.get(*path) {
                Some(known) if *known == entry => {}
                Some(_) => {
                    seen.altered.insert((*path).to_owned());
                }
                None if self.targets.len() >= MAX_REMEMBERED => {}
                None => {
                    self.targets.insert((*path).to_owned(), entry);
                    seen.learned.targets.push(((*path).to_owned(), entry));
                }
            }
        }
        self.observe_floors(trusted, rotated_at, &mut seen);
        let signed_at = trusted.timestamp().and_then(|timestamp| timestamp.signed_at);
        if self.clock.observe(signed_at, now) {
            seen.learned.signed_at = signed_at;
        }
        seen
    }

    fn observe_floors(&mut self, trusted: &Trusted, rotated_at: u64, seen: &mut Observation) {
        // Without its targets role a set says nothing about floors: what is remembered holds.
        let Some(targets) = trusted.role(&RoleName::targets()) else { return };
        self.floors.retain(|_, floor| floor.root_version >= rotated_at);
        let root_version = trusted.root().version;
        for (product, version) in &targets.security_floor {
            if self.floors.get(product).is_none_or(|floor| floor.version < *version) {
                let floor = Floor { version: version.clone(), root_version };
                self.floors.insert(product.clone(), floor.clone());
                seen.learned.floors.push((product.clone(), floor));
            }
        }
        for (product, floor) in &self.floors {
            let signed = targets.security_floor.get(product);
            if signed.is_none_or(|signed| *signed < floor.version) {
                seen.lowered.push((product.clone(), floor.version.clone(), signed.cloned()));
            }
        }
    }

    /// Takes out of `view` what memory forbids, and says why.
    pub(crate) fn apply(&self, view: &mut CatalogView, altered: BTreeSet<String>) {
        view.releases.retain(|release| !altered.contains(&release.path));
        view.refused.extend(altered.iter().map(|path| changed(path)));
        view.altered = altered;
        for (product, floor) in &self.floors {
            let holds = view.floors.entry(product.clone()).or_insert_with(|| floor.version.clone());
            if *holds < floor.version {
                holds.clone_from(&floor.version);
            }
        }
        view.clock = self.clock;
    }

    /// Whether new releases can no longer be remembered.
    pub fn is_full(&self) -> bool {
        self.targets.len() >= MAX_REMEMBERED
    }
}

fn changed(path: &str) -> String {
    format!(
        "{path}: it is not the release that was signed under this name before, and releases are immutable; \
         its publisher's key may be stolen"
    )
}

/// Sentences about `altered` releases, one each, bounded.
pub(crate) fn tell_altered<'a>(altered: impl ExactSizeIterator<Item = &'a String>) -> Vec<String> {
    let count = altered.len();
    let mut sentences: Vec<String> =
        altered.take(MAX_TOLD).map(|path| format!("a release is refused: {}", changed(path))).collect();
    if count > MAX_TOLD {
        sentences.push(format!("{} more releases changed after they were signed, and are refused", count - MAX_TOLD));
    }
    sentences
}

/// Sentences about floors that metadata lowers, one each, bounded.
pub(crate) fn tell_lowered(lowered: &[(Product, Version, Option<Version>)]) -> Vec<String> {
    let sentence = |(product, holds, signed): &(Product, Version, Option<Version>)| {
        let says = signed.as_ref().map_or_else(|| "names none".to_owned(), |signed| format!("says {signed}"));
        format!("the security floor of {product} stays at {holds}, though the signed metadata {says} now")
    };
    lowered.iter().take(MAX_TOLD).map(sentence).collect()
}
