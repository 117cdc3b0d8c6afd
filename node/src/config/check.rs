//! What must hold between values, wherever each of them came from.

use std::path::Path;

use super::{DEFAULT_KEEP_RELEASES, MAX_ADOPT_WAIT_SECONDS, NodeConfig, Subscription};

/// The most sessions that may be configured.
const MAX_MAX_PEERS: usize = 4096;

/// The most releases that may be kept in an install directory.
const MAX_KEEP_RELEASES: u32 = 1000;

/// Subscriptions of one node. Bounds the tables that each of them has a row in.
const MAX_SUBSCRIPTIONS: usize = 256;

/// Windows in which other limits hold. Bounds the work of looking at them once a second.
const MAX_WINDOWS: usize = 32;

/// What must hold between values, wherever they came from.
pub(super) fn check(config: &NodeConfig) -> Result<(), String> {
    if !(1..=MAX_MAX_PEERS).contains(&config.max_peers) {
        return Err(format!("max_peers is {}; it must be 1 to {MAX_MAX_PEERS}", config.max_peers));
    }
    if !(DEFAULT_KEEP_RELEASES..=MAX_KEEP_RELEASES).contains(&config.keep_releases) {
        return Err(format!(
            "keep_releases is {}; it must be {DEFAULT_KEEP_RELEASES} (the running release and the one to go back to) to {MAX_KEEP_RELEASES}",
            config.keep_releases
        ));
    }
    if config.adopt_wait_seconds > MAX_ADOPT_WAIT_SECONDS {
        return Err(format!(
            "adopt_wait_seconds is {}; it must be 0 (sign without hearing anybody) to {MAX_ADOPT_WAIT_SECONDS}",
            config.adopt_wait_seconds
        ));
    }
    if config.http.is_some() && config.http == config.metrics && config.http.is_some_and(|a| a.port() != 0) {
        return Err("http and metrics have the same address; leave metrics out to have both there".to_owned());
    }
    if config.limits.windows.len() > MAX_WINDOWS {
        return Err(format!(
            "there are {} limit_windows; at most {MAX_WINDOWS} are allowed: one may name several days",
            config.limits.windows.len()
        ));
    }
    if config.maintenance.windows.len() > MAX_WINDOWS {
        return Err(format!(
            "there are {} maintenance_windows; at most {MAX_WINDOWS} are allowed: one may name several days",
            config.maintenance.windows.len()
        ));
    }
    if config.subscriptions.len() > MAX_SUBSCRIPTIONS {
        return Err(format!(
            "there are {} subscriptions; at most {MAX_SUBSCRIPTIONS} are allowed",
            config.subscriptions.len()
        ));
    }
    for (index, subscription) in config.subscriptions.iter().enumerate() {
        check_subscription(subscription, &config.subscriptions[..index], &config.data_dir)?;
    }
    Ok(())
}

fn check_subscription(new: &Subscription, earlier: &[Subscription], data_dir: &Path) -> Result<(), String> {
    if let Some(directory) = &new.directory {
        if !directory.is_absolute() {
            return Err(format!("the install directory {} of {} is not absolute", directory.display(), new.product));
        }
        if directory.starts_with(data_dir) || data_dir.starts_with(directory) {
            return Err(format!(
                "the install directory {} and the data directory {} lie in each other; keep them apart",
                directory.display(),
                data_dir.display()
            ));
        }
    }
    for old in earlier {
        if old.product == new.product && old.channel == new.channel && old.directory == new.directory {
            return Err(format!("{new} is subscribed to twice"));
        }
        let (Some(a), Some(b)) = (&old.directory, &new.directory) else {
            continue;
        };
        if a.starts_with(b) || b.starts_with(a) {
            return Err(format!("the install directories of {old} and {new} lie in each other; each needs its own"));
        }
    }
    Ok(())
}
