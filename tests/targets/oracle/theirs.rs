//! `sigstore-tuf`: its whole client, with a mirror and a cache in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use sigstore_tuf::client::Updater;
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{Error, MemoryStore, Repository, UpdaterConfig};
use updraft_protocol::limits::{
    MAX_DELEGATIONS_VISITED, MAX_ROOT_BYTES, MAX_ROOT_ROTATIONS, MAX_SNAPSHOT_BYTES, MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES,
};
use updraft_protocol::tuf::RoleName;

use crate::case::{Case, Round};
use crate::verdict::{Found, Refusal, Trusted, Verdict};

/// The mirror: what it serves now, and what was asked for last.
#[derive(Debug, Clone)]
struct Mirror(Arc<Mutex<Shelf>>);

#[derive(Debug)]
struct Shelf {
    round: Round,
    asked: String,
    /// Every role that any round has a file of.
    names: BTreeSet<String>,
}

impl Mirror {
    fn with<T>(&self, act: impl FnOnce(&mut Shelf) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panics while holding the shelf"))
    }

    /// The role whose file was asked for last.
    fn asked(&self) -> String {
        let file = self.with(|shelf| shelf.asked.clone());
        let stem = file.strip_suffix(".json").unwrap_or(&file);
        let stem = match stem.split_once('.') {
            Some((version, rest)) if version.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => stem,
        };
        let is_asked = |name: &&String| name.parse::<RoleName>().is_ok_and(|name| name.file_stem() == stem);
        self.with(|shelf| shelf.names.iter().find(is_asked).cloned()).unwrap_or_else(|| stem.to_owned())
    }
}

impl Repository for Mirror {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        let answer = self.with(|shelf| {
            name.clone_into(&mut shelf.asked);
            shelf.round.serve(name).map(<[u8]>::to_vec)
        });
        Box::pin(async move {
            match answer {
                Some(bytes) if u64::try_from(bytes.len()).is_ok_and(|length| length <= max_length) => Ok(Some(bytes)),
                Some(_) => Err(Error::transport("too large")),
                None => Ok(None),
            }
        })
    }

    fn fetch_target<'a>(&'a self, _path: &'a str, _max_length: u64) -> FetchFuture<'a> {
        Box::pin(async { Ok(None) })
    }
}

/// Runs a future that never waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The same limits as ours, so that they make no difference.
fn limits() -> UpdaterConfig {
    let mut config = UpdaterConfig::default();
    config.root_max_length = MAX_ROOT_BYTES;
    config.timestamp_max_length = MAX_TIMESTAMP_BYTES;
    config.snapshot_max_length = MAX_SNAPSHOT_BYTES;
    config.targets_max_length = MAX_TARGETS_BYTES;
    config.max_root_rotations = MAX_ROOT_ROTATIONS;
    config.max_delegations = u32::try_from(MAX_DELEGATIONS_VISITED).unwrap_or(u32::MAX);
    config
}

pub(crate) fn judge(case: &Case) -> Vec<Verdict> {
    let Some(first) = case.rounds.first() else { return Vec::new() };
    let names = case.rounds.iter().flat_map(|round| round.files.keys().cloned()).collect();
    let mirror = Mirror(Arc::new(Mutex::new(Shelf { round: first.clone(), asked: String::new(), names })));
    let started = catch_unwind(AssertUnwindSafe(|| {
        Updater::new(mirror.clone(), &case.root)
            .map(|updater| updater.with_config(limits()).with_store(MemoryStore::default()))
    }));
    let mut updater = match started {
        Ok(Ok(updater)) => updater,
        Ok(Err(error)) => return vec![stopped("root", told(&error))],
        Err(_) => return vec![stopped("root", "panicked".to_owned())],
    };
    case.rounds.iter().map(|round| one_round(&mut updater, &mirror, round)).collect()
}

fn stopped(role: &str, reason: String) -> Verdict {
    let refusal = Some(Refusal { role: role.to_owned(), reason });
    Verdict { refusal, trusted: Trusted::default(), targets: Vec::new() }
}

fn one_round(updater: &mut Updater, mirror: &Mirror, round: &Round) -> Verdict {
    mirror.with(|shelf| {
        shelf.round = round.clone();
        "root.json".clone_into(&mut shelf.asked);
    });
    let now = jiff::Timestamp::from_second(round.now).expect("a time of this age");
    let refreshed = catch_unwind(AssertUnwindSafe(|| run(updater.refresh(now))));
    let refusal = match refreshed {
        Ok(Ok(())) => None,
        // The one step that may fail before anything is asked for.
        Ok(Err(Error::Malformed(reason))) if reason.contains("does not pin targets.json") => {
            Some(Refusal { role: "targets".to_owned(), reason })
        }
        Ok(Err(error)) => Some(Refusal { role: mirror.asked(), reason: told(&error) }),
        Err(_) => Some(Refusal { role: mirror.asked(), reason: "panicked".to_owned() }),
    };
    let mut targets = Vec::new();
    if refusal.is_none() {
        targets.extend(round.paths.iter().map(|path| look_up(updater, mirror, path, now)));
    }
    Verdict { refusal, trusted: state(updater, mirror), targets }
}

fn look_up(updater: &mut Updater, mirror: &Mirror, path: &str, now: jiff::Timestamp) -> Found {
    match run(updater.get_target_info(path, now)) {
        Ok(Some(target)) => Found::Target { length: target.length, hashes: target.hashes },
        Ok(None) => Found::Nothing,
        Err(error) => Found::Refused(Refusal { role: mirror.asked(), reason: told(&error) }),
    }
}

fn state(updater: &Updater, mirror: &Mirror) -> Trusted {
    let trusted = updater.trusted();
    // Delegated roles can only be asked for by name; nothing is loaded that was not served.
    let names = mirror.with(|shelf| shelf.names.clone());
    let role = |name: &String| {
        let targets = trusted.targets_role(name)?;
        Some((name.clone(), (targets.version, targets.expires.as_second())))
    };
    Trusted {
        root: Some((trusted.root().version, trusted.root_bytes().to_vec())),
        timestamp: trusted.timestamp().map(|timestamp| {
            let snapshot = timestamp.snapshot_meta().map_or(0, |meta| meta.version);
            (timestamp.version, timestamp.expires.as_second(), snapshot)
        }),
        snapshot: trusted.snapshot().map(|snapshot| {
            let versions: BTreeMap<String, u64> =
                snapshot.meta.iter().map(|(file, meta)| (file.clone(), meta.version)).collect();
            (snapshot.version, snapshot.expires.as_second(), versions)
        }),
        roles: names.iter().filter_map(role).collect(),
    }
}
