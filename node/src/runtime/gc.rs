//! `updraft gc`: what is on disk, what of it goes, and why the rest stays. The engine tells of artifacts;
//! each install directory is looked at by its own thread, in its queue, so that nothing is being unpacked or
//! switched there meanwhile.

use std::path::PathBuf;

use tokio::sync::oneshot;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::Product;

use super::Runtime;
use super::installs::Step;
use super::worker::Job;
use crate::control::garbage::{GcArtifact, GcTree, GcView};
use crate::control::messages::{ErrorBody, ErrorCode, Response};
use crate::control::reply::ReplySender;
use crate::control::views::Schema;
use crate::engine::retention::Held;
use crate::installer::InstallDir;
use crate::installer::collect::{Stays, Tree};

/// What is said of everything that goes.
const NOTHING_NEEDS_IT: &str = "nothing needs it";
/// What is said of what should have gone.
const NOT_REMOVED: &str = "nothing needs it, but it could not be removed: the node's log says why";

/// An install directory to look at, for its thread.
#[derive(Debug)]
pub(super) struct TreeJob {
    directory: Directory,
    dry_run: bool,
    answer: oneshot::Sender<Trees>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// As the engine calls it.
    name: String,
    product: Product,
    /// Names that stay.
    keep: Vec<String>,
    /// What is being installed or gone back to; its tree stays.
    pursued: Option<Digest>,
}

/// What the worker found, and did.
#[derive(Debug, Default)]
pub(super) struct Trees {
    rows: Vec<GcTree>,
    warnings: Vec<String>,
}

impl Runtime {
    /// Looks at everything, and removes what nothing needs unless it is only to be told.
    pub(super) async fn collect_garbage(&mut self, dry_run: bool, reply: ReplySender) {
        let held = self.engine.inventory();
        if !dry_run {
            let (_, effects) = self.engine.collect_now();
            self.carry_out(effects).await;
        }
        let mut artifacts: Vec<GcArtifact> = held.into_iter().map(|held| self.describe(&held)).collect();
        let subscriptions = self.engine.subscriptions().iter();
        let directories: Vec<Directory> = subscriptions
            .filter_map(|subscription| {
                let kept = subscription.installed.iter().chain(&subscription.previous);
                Some(Directory {
                    path: subscription.spec.directory.as_ref()?.into(),
                    name: subscription.spec.directory.clone()?,
                    product: subscription.spec.product.clone(),
                    keep: kept.map(|installed| installed.release_dir.clone()).collect(),
                    pursued: subscription.pursued(),
                })
            })
            .collect();
        let mut answers = Vec::new();
        for directory in directories {
            let (answer, trees) = oneshot::channel();
            answers.push(trees);
            let of = directory.name.clone();
            self.install_step(&of, Step::Collect(TreeJob { directory, dry_run, answer })).await;
        }
        let cache_limit_bytes = self.engine.cache_limit_bytes();
        // The artifacts are gone, too, once the disk worker has come to where this is now.
        let (reached, removed) = oneshot::channel();
        self.file_job(Job::Barrier(reached)).await;
        let store = self.opened.store.clone();
        tokio::spawn(async move {
            let stopping = || {
                let body = ErrorBody::new(ErrorCode::Error, "the node is stopping");
                Err(body.with_hint("ask again when it runs"))
            };
            let mut trees = Trees::default();
            for answer in answers {
                let Ok(found) = answer.await else { return reply.finish(stopping()) };
                trees.rows.extend(found.rows);
                trees.warnings.extend(found.warnings);
            }
            if removed.await.is_err() {
                return reply.finish(stopping());
            }
            for artifact in artifacts.iter_mut().filter(|artifact| artifact.goes && !dry_run) {
                if store.get(&artifact.sha256).is_some() {
                    artifact.goes = false;
                    NOT_REMOVED.clone_into(&mut artifact.reason);
                }
            }
            let going = |goes: bool, bytes: u64| if goes { bytes } else { 0 };
            let stored: u64 = artifacts.iter().map(|artifact| artifact.size_bytes).sum();
            let from_cache: u64 = artifacts.iter().map(|artifact| going(artifact.goes, artifact.size_bytes)).sum();
            let from_trees: u64 = trees.rows.iter().map(|tree| going(tree.goes, tree.size_bytes)).sum();
            reply.finish(Ok(Response::Gc(GcView {
                schema: Schema,
                dry_run,
                bytes_freed: from_cache.saturating_add(from_trees),
                cache_bytes: stored.saturating_sub(from_cache),
                cache_limit_bytes,
                artifacts,
                trees: trees.rows,
                warnings: trees.warnings,
            })));
        });
    }

    fn describe(&self, held: &Held) -> GcArtifact {
        let release = self.engine.catalog().and_then(|view| view.release_of(&held.artifact));
        GcArtifact {
            sha256: held.artifact,
            product: release.map(|release| release.id.product.clone()),
            version: release.map(|release| release.id.version.to_string()),
            platform: release.map(|release| release.id.platform.clone()),
            size_bytes: held.bytes_done,
            goes: held.need.is_none(),
            reason: held.need.map_or(NOTHING_NEEDS_IT, crate::engine::retention::Need::as_str).to_owned(),
        }
    }
}

/// Looks at a directory, and collects it unless it is only to be told.
pub(super) fn work(job: TreeJob, keep_releases: u32) {
    let (directory, mut found) = (job.directory, Trees::default());
    let install_dir = InstallDir::new(&directory.path);
    match install_dir.survey(&directory.keep_all(&install_dir), keep_releases) {
        Ok(survey) => {
            // Measured before it goes.
            found.rows.extend(survey.into_iter().map(|tree| describe(&directory, &install_dir, tree)));
            if !job.dry_run {
                if let Err(error) = install_dir.collect(&directory.keep_all(&install_dir), keep_releases) {
                    found.warnings.push(error.to_string());
                }
                for row in found.rows.iter_mut().filter(|row| row.goes && install_dir.has(&row.name)) {
                    row.goes = false;
                    NOT_REMOVED.clone_into(&mut row.reason);
                }
            }
        }
        Err(error) => found.warnings.push(error.to_string()),
    }
    // Whoever asked may have gone away.
    let _ = job.answer.send(found);
}

impl Directory {
    /// What is kept, the tree of what is pursued included: it may stand there before anything points at it.
    fn keep_all(&self, directory: &InstallDir) -> Vec<String> {
        let pursued = self.pursued.as_ref().map(|artifact| format!("-{}", artifact.short()));
        let names = directory.names().unwrap_or_default().into_iter();
        let pursued = names.filter(|name| pursued.as_ref().is_some_and(|suffix| name.ends_with(suffix)));
        self.keep.iter().cloned().chain(pursued).collect()
    }
}

fn describe(directory: &Directory, install_dir: &InstallDir, tree: Tree) -> GcTree {
    let pid = if let Some(Stays::Running(pid)) = tree.stays { Some(pid) } else { None };
    let reason = match &tree.stays {
        None => NOTHING_NEEDS_IT.to_owned(),
        Some(Stays::Current) => "is what `current` points at".to_owned(),
        Some(Stays::Kept) => "is installed, being installed, or the release to go back to".to_owned(),
        Some(Stays::Spare) => "is one of the newest that `keep_releases` keeps".to_owned(),
        Some(Stays::Running(pid)) => format!("runs: process {pid} uses it"),
        Some(Stays::Unknown(reason)) => format!("may be in use, which cannot be told: {reason}"),
    };
    GcTree {
        directory: directory.path.clone(),
        product: directory.product.clone(),
        size_bytes: install_dir.tree_bytes(&tree.name),
        goes: tree.stays.is_none(),
        name: tree.name,
        reason,
        pid,
    }
}
