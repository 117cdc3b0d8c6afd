//! How each wanted artifact comes to be here: its manifest, a place in the store, its pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::release::Release;
use updraft_protocol::transfer::{ObjectId, ObjectKind};

/// Milliseconds before the store is asked again after it refused.
const RETRY_MS: u64 = 30_000;

/// How far an artifact has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its piece list is not here yet.
    NeedManifest,
    /// The store is making room.
    Opening,
    /// Pieces are on their way.
    Fetching,
    /// All here, all verified.
    Complete,
    /// The store refused; tried again at this time.
    Refused { reason: String, retry_at_ms: u64 },
}

/// One wanted artifact.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) release: Arc<Release>,
    pub(crate) stage: Stage,
}

/// Every artifact that is wanted or held.
#[derive(Debug, Default)]
pub(crate) struct Supplies {
    map: BTreeMap<Digest, Supply>,
    manifests: BTreeMap<Digest, Arc<Manifest>>,
    /// What the store is at work on, wanted or not.
    opening: BTreeSet<Digest>,
}

pub(crate) fn object(artifact: &Digest) -> ObjectId {
    ObjectId { kind: ObjectKind::Artifact, digest: *artifact }
}

/// What must happen next for an artifact.
#[derive(Debug)]
pub(crate) enum Next {
    AskManifest(MetaFile),
    Open(Arc<Manifest>),
    Nothing,
}

impl Supplies {
    pub(crate) fn get(&self, artifact: &Digest) -> Option<&Supply> {
        self.map.get(artifact)
    }

    pub(crate) fn set_stage(&mut self, artifact: &Digest, stage: Stage) {
        if let Some(supply) = self.map.get_mut(artifact) {
            supply.stage = stage;
        }
    }

    /// Every artifact whose manifest is known.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Digest> {
        self.manifests.keys()
    }

    /// An artifact's manifest is known (from the store, or fetched and checked).
    pub(crate) fn add_manifest(&mut self, manifest: &Arc<Manifest>) {
        self.manifests.insert(*manifest.artifact(), manifest.clone());
    }

    /// The store is to open an artifact. False where it is at work on it already.
    pub(crate) fn open(&mut self, manifest: &Arc<Manifest>) -> bool {
        self.add_manifest(manifest);
        self.set_stage(manifest.artifact(), Stage::Opening);
        self.opening.insert(*manifest.artifact())
    }

    /// The store has answered.
    pub(crate) fn opened(&mut self, artifact: &Digest) {
        self.opening.remove(artifact);
    }

    /// Whether the store has not answered yet.
    pub(crate) fn is_opening(&self, artifact: &Digest) -> bool {
        self.opening.contains(artifact)
    }

    /// Says that `release` is wanted; `held` is whether the fetcher already has it whole.
    pub(crate) fn want(&mut self, release: &Arc<Release>, held: bool, known: bool, now_ms: u64) -> Next {
        let supply = self
            .map
            .entry(release.artifact)
            .or_insert_with(|| Supply { release: release.clone(), stage: Stage::NeedManifest });
        if held {
            supply.stage = Stage::Complete;
            return Next::Nothing;
        }
        match &supply.stage {
            Stage::Refused { retry_at_ms, .. } if now_ms < *retry_at_ms => Next::Nothing,
            Stage::NeedManifest | Stage::Refused { .. } => match self.manifests.get(&release.artifact) {
                Some(_) if known => {
                    supply.stage = Stage::Fetching;
                    Next::Nothing
                }
                Some(manifest) => Next::Open(manifest.clone()),
                None => Next::AskManifest(MetaFile::Manifest { sha256: release.manifest.sha256 }),
            },
            Stage::Opening | Stage::Fetching | Stage::Complete => Next::Nothing,
        }
    }

    /// Takes a manifest that was asked for. Returns it where it is the one that some wanted release
    /// names, and fits that release.
    pub(crate) fn manifest_arrived(&mut self, sha256: &Digest, bytes: &[u8]) -> Result<Arc<Manifest>, String> {
        let supply = self
            .map
            .values()
            .find(|supply| supply.release.manifest.sha256 == *sha256)
            .ok_or("nobody wants this manifest")?;
        let manifest = Manifest::decode(bytes, sha256).map_err(|error| error.to_string())?;
        if *manifest.artifact() != supply.release.artifact || manifest.length() != supply.release.length {
            return Err("the manifest is of another artifact than the release".to_owned());
        }
        let manifest = Arc::new(manifest);
        self.add_manifest(&manifest);
        Ok(manifest)
    }

    /// Forgets everything about an artifact.
    pub(crate) fn forget(&mut self, artifact: &Digest) {
        self.map.remove(artifact);
        self.manifests.remove(artifact);
    }

    pub(crate) fn refused(&mut self, artifact: &Digest, reason: String, now_ms: u64) {
        self.set_stage(artifact, Stage::Refused { reason, retry_at_ms: now_ms + RETRY_MS });
    }

    /// Forgets artifacts that nobody wants any more; returns what they were wanted for.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&Digest) -> bool) -> Vec<Arc<Release>> {
        let gone: Vec<Arc<Release>> = self
            .map
            .iter()
            .filter(|(artifact, _)| !wanted(artifact))
            .map(|(_, supply)| supply.release.clone())
            .collect();
        for release in &gone {
            self.map.remove(&release.artifact);
        }
        gone
    }
}
