//! The engine as the disk and the configuration say it was when the node stopped, however it stopped.

use std::path::Path;

use updraft_protocol::names::Product;
use updraft_protocol::peer::PeerId;

use super::AGENT;
use super::open::{OpenError, Opened};
use super::{StartError, journal, outcomes, worker};
use crate::config::{NodeConfig, Role};
use crate::engine::effect::Effect;
use crate::engine::input::Now;
use crate::engine::install::SubscriptionSpec;
use crate::engine::{Engine, EngineConfig, MetadataReader, Restored, TargetReader};
use crate::store::state::{Mode, StateDb, Subscription as SubscriptionRow};

/// The engine as the disk says it was, and what it wants done first.
pub(super) fn restore(
    config: &NodeConfig,
    opened: &Opened,
    me: PeerId,
    now: Now,
) -> Result<(Engine, Vec<Effect>), StartError> {
    let repository = opened.repository;
    if !config.subscriptions.is_empty() {
        // What is configured is the whole list: what is not on it any more has ended. Its directory stays.
        for row in opened.state.subscriptions()?.into_iter().filter(|row| row.repository == repository.0) {
            let directory = match &row.mode {
                Mode::Install { directory } => Some(directory),
                Mode::Mirror => None,
            };
            let kept =
                config.subscriptions.iter().any(|s| s.product == row.product && s.directory.as_ref() == directory);
            if !kept {
                opened.state.remove_subscription(&repository.0, &row.product, &row.mode)?;
            }
        }
    }
    for subscription in &config.subscriptions {
        let mode = match &subscription.directory {
            Some(directory) => Mode::Install { directory: directory.clone() },
            None => Mode::Mirror,
        };
        opened.state.put_subscription(&SubscriptionRow {
            repository: repository.0,
            product: subscription.product.clone(),
            channel: subscription.channel.clone(),
            platform: config.platform.clone(),
            mode,
            created_at: now.wall,
        })?;
    }
    let mut subscriptions = Vec::new();
    for row in opened.state.subscriptions()?.into_iter().filter(|row| row.repository == repository.0) {
        let is_meant =
            |s: &&crate::config::Subscription| s.product == row.product && s.directory.as_ref() == row.mode.directory();
        let trial = config.subscriptions.iter().find(is_meant).map(|s| s.trial.clone()).unwrap_or_default();
        let (directory, recovered) = match &row.mode {
            Mode::Install { directory } => {
                let text = directory.to_str().ok_or_else(|| StartError::Directory(directory.clone()))?;
                refuse_other(&opened.state, directory, &row.product)?;
                (Some(text.to_owned()), journal::recover(&opened.state, directory, &row.product, trial)?)
            }
            Mode::Mirror => (None, crate::engine::install::Recovered::default()),
        };
        let spec = SubscriptionSpec { product: row.product, channel: row.channel, directory };
        subscriptions.push((spec, recovered));
    }
    let mut random_seed = [0; 8];
    // Without a random source the node's choices are merely predictable, which harms nobody.
    let _ = getrandom::fill(&mut random_seed);
    let peers = opened.state.known_peers(&repository.0)?;
    let is_seed = config.role == Role::Seed;
    let (keep_releases, cache_limit_bytes) = (config.keep_releases, config.cache_limit_bytes);
    let maintenance = config.maintenance.clone();
    let config = EngineConfig {
        me,
        repository,
        ticket: opened.ticket.clone(),
        is_seed,
        platform: config.platform.clone(),
        agent: AGENT.to_owned(),
        random_seed: u64::from_le_bytes(random_seed),
        adopt_wait_ms: u64::from(config.adopt_wait_seconds) * 1_000,
        limits: config.limits.clone(),
        egress_budget_percent: config.egress_budget_percent,
    };
    let found = Restored {
        metadata: &MetadataReader(&|name| opened.read_metadata(name)),
        target: &TargetReader(&|sha256| opened.read_target(sha256)),
        artifacts: worker::held(opened),
        subscriptions,
        peers: peers.into_iter().map(|known| (known.peer, known.addresses)).collect(),
        memory: opened.state.memory(&repository.0)?,
        bans: opened.state.bans(&repository.0)?,
    };
    let restored = Engine::restore(config, found, now);
    let (mut engine, effects) = restored.map_err(|error| StartError::Open(OpenError::Catalog(error)))?;
    engine.keep_releases(keep_releases);
    engine.limit_cache(cache_limit_bytes);
    engine.set_maintenance(&maintenance);
    engine.remember_pins(opened.state.pins(&repository.0)?);
    outcomes::restore(&mut engine, opened, is_seed, now)?;
    Ok((engine, effects))
}

/// A directory holds one product: the versions, the quarantine and the way back of another mean nothing to it.
fn refuse_other(state: &StateDb, directory: &Path, product: &Product) -> Result<(), StartError> {
    let Some(held) = state.install(directory)?.filter(|row| row.product != *product) else { return Ok(()) };
    match state.installed(directory)? {
        Some(installed) => Err(StartError::OtherProduct {
            directory: directory.to_owned(),
            product: product.to_string(),
            installed: format!("{} {}", held.product, installed.release.version),
        }),
        None => Ok(state.forget_install(directory).map(drop)?),
    }
}
