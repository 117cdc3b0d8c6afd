//! A whole set, as everybody reads it: releases, channels, floors, and what is held against them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Contradiction, Head, Inline};
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::release::Release;
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::tuf::{RoleName, TargetInfo, Trusted};

use crate::engine::clock::Clock;

/// A whole, consistent set of signed metadata. Shared with readers as it is.
#[derive(Debug, Clone)]
pub struct CatalogView {
    /// The metadata itself.
    pub trusted: Trusted,
    /// Every release, oldest version first within a product.
    pub releases: Vec<Arc<Release>>,
    /// Every channel policy.
    pub channels: BTreeMap<(Product, Channel), Arc<ChannelPolicy>>,
    /// Channel files as signed, by target path.
    pub channel_files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Targets that were refused, and why: for people.
    pub refused: Vec<String>,
    /// Proof against keys of the repository: what their roles say is not acted on.
    pub contradictions: Vec<Contradiction>,
    /// Paths of releases that are not what they were when they were seen first: no releases any more.
    pub altered: BTreeSet<String>,
    /// The lowest version of each product that may be installed: the highest that was ever signed.
    pub floors: BTreeMap<Product, Version>,
    /// What the clock is judged by.
    pub clock: Clock,
}

impl CatalogView {
    /// The catalog of a whole set, given its channel files by digest.
    pub fn new(trusted: &Trusted, files: &BTreeMap<Digest, Arc<Vec<u8>>>) -> Self {
        Self::of_targets(trusted, &trusted.all_targets(), files)
    }

    /// As [`CatalogView::new`], with the targets that were looked up already.
    pub(super) fn of_targets(
        trusted: &Trusted,
        targets: &[(&str, &TargetInfo, RoleName)],
        files: &BTreeMap<Digest, Arc<Vec<u8>>>,
    ) -> Self {
        let mut view = Self {
            releases: Vec::new(),
            channels: BTreeMap::new(),
            channel_files: BTreeMap::new(),
            refused: Vec::new(),
            contradictions: Vec::new(),
            altered: BTreeSet::new(),
            floors: trusted.role(&RoleName::targets()).map(|top| top.security_floor.clone()).unwrap_or_default(),
            clock: Clock { remembered: None, head: trusted.timestamp().and_then(|timestamp| timestamp.signed_at) },
            trusted: trusted.clone(),
        };
        for (path, target, _) in targets {
            if path.starts_with("releases/") {
                match Release::from_target(path, target) {
                    Ok(release) => view.releases.push(Arc::new(release)),
                    Err(error) => view.refused.push(format!("{path}: {error}")),
                }
            } else if let Ok(key) = Channel::from_path(path) {
                let Some(bytes) = target.sha256().and_then(|sha256| files.get(&sha256)) else { continue };
                match ChannelPolicy::parse(bytes) {
                    Ok(policy) => {
                        view.channels.insert(key, Arc::new(policy));
                        view.channel_files.insert((*path).to_owned(), bytes.clone());
                    }
                    Err(error) => view.refused.push(format!("{path}: {error}")),
                }
            }
        }
        view.releases.sort_by(|a, b| {
            (&a.id.product, &a.id.version, &a.id.platform).cmp(&(&b.id.product, &b.id.version, &b.id.platform))
        });
        view
    }

    /// The build of `version` of `product` for a node of `platform`: its own first, else `any`.
    pub fn release(&self, product: &Product, version: &semver::Version, platform: &Platform) -> Option<&Arc<Release>> {
        let mut fitting = self
            .releases
            .iter()
            .filter(|release| release.id.product == *product && release.id.version == *version)
            .filter(|release| release.id.platform.serves(platform));
        let first = fitting.next()?;
        if first.id.platform == *platform {
            return Some(first);
        }
        Some(fitting.find(|release| release.id.platform == *platform).unwrap_or(first))
    }

    /// The release whose artifact this is.
    pub fn release_of(&self, artifact: &Digest) -> Option<&Arc<Release>> {
        self.releases.iter().find(|release| release.artifact == *artifact)
    }

    /// Every product that any release or channel names.
    pub fn products(&self) -> BTreeSet<&Product> {
        let released = self.releases.iter().map(|release| &release.id.product);
        released.chain(self.channels.keys().map(|(product, _)| product)).collect()
    }

    /// Version of the timestamp, 0 without one.
    pub fn timestamp_version(&self) -> u64 {
        self.trusted.timestamp().map_or(0, |timestamp| timestamp.version)
    }
}

/// The head that this set makes: policy first, then whatever fits, so that most nodes know a new
/// release from one message.
pub(super) fn encode_head(view: &CatalogView) -> Option<Vec<u8>> {
    if !view.trusted.missing_roles().is_empty() {
        return None;
    }
    let mut inlines: Vec<Inline> = Vec::new();
    let mut names: Vec<RoleName> = view.trusted.loaded_roles().cloned().collect();
    let top = RoleName::targets();
    names.sort_by_key(|name| (*name != RoleName::channels(), *name == top));
    for name in names {
        if let Some(role) = view.trusted.role(&name) {
            let (version, bytes) = (role.version, role.bytes().to_vec());
            let is_policy = name == RoleName::channels();
            inlines.push(Inline::Role { name, version, bytes });
            if is_policy {
                inlines.extend(
                    view.channel_files
                        .iter()
                        .map(|(path, bytes)| Inline::Target { path: path.clone(), bytes: bytes.to_vec() }),
                );
            }
        }
    }
    Head::from_trusted(&view.trusted, inlines).map(|head| head.encode())
}
