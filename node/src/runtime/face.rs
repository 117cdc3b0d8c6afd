//! What the HTTP face reads: a snapshot of the node that the event loop keeps current, and files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use updraft_protocol::digest::Digest;
use updraft_protocol::names::Channel;
use updraft_protocol::release::{Notes, Release};
use updraft_protocol::tuf::{Freshness, Resolution};

use super::open::{Opened, wall_clock};
use crate::engine::Engine;
use crate::engine::catalog::CatalogView;
use crate::engine::report::Caller;
use crate::gateway::{Health, Metrics, Offer, Repository, TargetFile, UpdateAnswer, UpdateQuery};
use crate::store::Artifact;

/// What changes while the node runs.
#[derive(Debug, Default)]
struct Snapshot {
    view: Option<Arc<CatalogView>>,
    metrics: Metrics,
    problems: Vec<String>,
}

/// The node as the HTTP face sees it.
#[derive(Debug)]
pub(super) struct NodeFace {
    opened: Opened,
    targets: PathBuf,
    snapshot: RwLock<Snapshot>,
    /// Artifacts that were changed by a name outside the store, to be checked. At most those that are held.
    suspects: Mutex<BTreeSet<Digest>>,
}

impl NodeFace {
    pub(super) fn new(opened: Opened, data_dir: &Path) -> Self {
        Self { opened, targets: data_dir.join("targets"), snapshot: RwLock::default(), suspects: Mutex::default() }
    }

    pub(super) fn update_view(&self, view: Option<Arc<CatalogView>>) {
        self.snapshot.write().unwrap_or_else(PoisonError::into_inner).view = view;
    }

    pub(super) fn update_numbers(&self, metrics: Metrics, problems: Vec<String>) {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        snapshot.metrics = metrics;
        snapshot.problems = problems;
    }

    /// Artifacts that must be checked, each told once.
    pub(super) fn take_suspects(&self) -> BTreeSet<Digest> {
        std::mem::take(&mut self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the bytes of a stored artifact were written; `None` where they are no longer those.
    fn written(&self, artifact: &Artifact) -> Option<SystemTime> {
        match artifact.modified() {
            Ok(modified) => Some(modified),
            Err(error) => {
                tracing::warn!(%error, "a target is not served");
                let digest = *artifact.manifest().artifact();
                self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
                None
            }
        }
    }

    fn view(&self) -> Option<Arc<CatalogView>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).view.clone()
    }
}

/// A target's consistent-snapshot path: its digest goes before the file name (TUF 6.2).
fn consistent_path(release: &Release) -> String {
    match release.path.rsplit_once('/') {
        Some((directory, name)) => format!("{directory}/{}.{name}", release.artifact),
        None => format!("{}.{}", release.artifact, release.path),
    }
}

fn offer(release: &Release) -> Offer {
    Offer {
        product: release.id.product.clone(),
        version: release.id.version.to_string(),
        platform: release.id.platform.clone(),
        url: format!("/targets/{}", consistent_path(release)),
        sha256: release.artifact,
        length: release.length,
        notes: match &release.notes {
            Notes::Text(text) => Some(text.clone()),
            Notes::File { .. } | Notes::None => None,
        },
        target: release.path.clone(),
    }
}

impl Repository for NodeFace {
    fn metadata(&self, file: &str) -> Option<Vec<u8>> {
        let view = self.view()?;
        if file == "timestamp.json" {
            return view.trusted.timestamp().map(|timestamp| timestamp.bytes().to_vec());
        }
        let (version, name) = file.strip_suffix(".json")?.split_once('.')?;
        let version: u64 = version.parse().ok()?;
        let loaded = match name {
            "root" => None,
            "snapshot" => view.trusted.snapshot().filter(|s| s.version == version).map(|s| s.bytes().to_vec()),
            name => {
                let role = name.parse().ok()?;
                view.trusted.role(&role).filter(|role| role.version == version).map(|role| role.bytes().to_vec())
            }
        };
        loaded.or_else(|| {
            let stem = name.parse::<updraft_protocol::tuf::RoleName>().ok()?.file_stem();
            self.opened.read_metadata(&format!("{version}.{stem}.json"))
        })
    }

    fn target(&self, path: &str) -> Option<TargetFile> {
        let view = self.view()?;
        let (directory, file) = path.rsplit_once('/')?;
        let (hash, name) = file.split_once('.')?;
        // A release that changed is not what its name says, whoever signed it.
        if view.altered.contains(&format!("{directory}/{name}")) {
            return None;
        }
        let Resolution::Found { target, .. } = view.trusted.resolve(&format!("{directory}/{name}")) else {
            return None;
        };
        // TUF 6.2.1: where N hashes of a file are stated, it has N names.
        if !target.hashes.iter().any(|(_, stated)| stated == hash) {
            return None;
        }
        let sha256 = target.sha256()?;
        let (path, modified) = match self.opened.store.get(&sha256).filter(|artifact| artifact.is_complete()) {
            Some(artifact) => (artifact.path().to_owned(), Some(self.written(&artifact)?)),
            None => (Some(self.targets.join(sha256.to_string())).filter(|path| path.is_file())?, None),
        };
        Some(TargetFile { path, length: target.length, sha256, modified })
    }

    fn update(&self, query: &UpdateQuery) -> UpdateAnswer {
        let Some(view) = self.view() else { return UpdateAnswer::Newest(Vec::new()) };
        let now = wall_clock();
        match query {
            UpdateQuery::Newest => {
                let channel = Channel::stable();
                let newest = view.products().into_iter().flat_map(|product| {
                    let platforms = view.releases.iter().filter(|release| release.id.product == *product);
                    let platforms: BTreeSet<_> = platforms.map(|release| &release.id.platform).collect();
                    let offers = platforms.into_iter().filter_map(|platform| {
                        let caller = Caller { product, channel: &channel, platform, version: None, id: None };
                        let release = Engine::offer(&view, &caller, now)?;
                        (release.id.platform == *platform).then(|| offer(&release))
                    });
                    offers.collect::<Vec<_>>()
                });
                UpdateAnswer::Newest(newest.collect())
            }
            UpdateQuery::Newer { product, version, channel, platform, caller } => {
                if !view.products().contains(product) {
                    return UpdateAnswer::UnknownProduct;
                }
                if !view.channels.contains_key(&(product.clone(), channel.clone())) {
                    return UpdateAnswer::UnknownChannel;
                }
                let caller = Caller { product, channel, platform, version: Some(version), id: caller.as_deref() };
                match Engine::offer(&view, &caller, now) {
                    Some(release) => UpdateAnswer::Offer(offer(&release)),
                    None => UpdateAnswer::Nothing,
                }
            }
        }
    }

    fn health(&self) -> Health {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        let mut problems = snapshot.problems.clone();
        match snapshot.view.as_ref().map(|view| view.trusted.freshness(wall_clock())) {
            Some(Freshness::Fresh { .. }) => {}
            Some(Freshness::Expired { role, since }) => problems.push(format!("{role} metadata expired at {since}")),
            Some(Freshness::Incomplete { missing }) => problems.push(format!("{missing} metadata is missing")),
            None => problems.push("no repository metadata was verified yet".to_owned()),
        }
        Health { problems }
    }

    fn metrics(&self) -> Metrics {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).metrics.clone()
    }
}
