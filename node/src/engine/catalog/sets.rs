//! Sets of roles: what carries over from one to the next, and the order in which one goes to disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::names::Channel;
use updraft_protocol::tuf::{Expiry, RoleName, Trusted};

use crate::engine::effect::Save;

/// Where the paths of channel files begin.
pub(super) const CHANNELS: &str = "channels/";

/// The file name under which a role is kept.
fn role_file(role: &RoleName, version: u64) -> String {
    format!("{version}.{}.json", role.file_stem())
}

/// Takes from `held` the roles that `set` lacks and that did not change: a new version of a delegating
/// role drops everything below it until it is vouched for again.
pub(crate) fn carry_roles(set: &mut Trusted, held: &Trusted) {
    loop {
        let mut carried = false;
        for request in set.missing_roles() {
            let unchanged = held.role(&request.role).filter(|role| role.version == request.version);
            // Its expiry is judged where it matters: by the freshness gate.
            carried |=
                unchanged.is_some_and(|role| set.update_targets(&request.role, role.bytes(), Expiry::Deferred).is_ok());
        }
        if !carried {
            return;
        }
    }
}

/// Files in the order in which a crash between any two of them does no harm: the timestamp is last.
pub(super) fn save_set(trusted: &Trusted, files: &BTreeMap<Digest, Arc<Vec<u8>>>, save: &mut Vec<Save>) {
    for sha256 in channel_digests(trusted) {
        if let Some(bytes) = files.get(&sha256) {
            save.push(Save::Target { sha256, bytes: bytes.to_vec() });
        }
    }
    for name in trusted.loaded_roles() {
        if let Some(role) = trusted.role(name) {
            save.push(Save::Metadata { name: role_file(name, role.version), bytes: role.bytes().to_vec() });
        }
    }
    if let Some(snapshot) = trusted.snapshot() {
        let name = format!("{}.snapshot.json", snapshot.version);
        save.push(Save::Metadata { name, bytes: snapshot.bytes().to_vec() });
    }
    if let Some(timestamp) = trusted.timestamp() {
        save.push(Save::Metadata { name: "timestamp.json".to_owned(), bytes: timestamp.bytes().to_vec() });
    }
}

/// Loads the set on disk, as far as it verifies.
pub(super) fn load_set(trusted: &mut Trusted, read: &dyn Fn(&str) -> Option<Vec<u8>>) {
    let timestamp = read("timestamp.json").filter(|bytes| trusted.update_timestamp(bytes, Expiry::Deferred).is_ok());
    if let Some(version) = timestamp.and_then(|_| trusted.timestamp()).map(|timestamp| timestamp.snapshot.version)
        && let Some(bytes) = read(&format!("{version}.snapshot.json"))
        && trusted.update_snapshot(&bytes, Expiry::Deferred).is_ok()
    {
        load_roles(trusted, read);
    }
}

fn load_roles(trusted: &mut Trusted, read: &dyn Fn(&str) -> Option<Vec<u8>>) {
    loop {
        let mut loaded = false;
        for request in trusted.missing_roles() {
            let bytes = read(&role_file(&request.role, request.version));
            loaded |=
                bytes.is_some_and(|bytes| trusted.update_targets(&request.role, &bytes, Expiry::Deferred).is_ok());
        }
        if !loaded {
            return;
        }
    }
}

pub(super) fn channel_digests(trusted: &Trusted) -> Vec<Digest> {
    trusted
        .targets_below(CHANNELS)
        .into_iter()
        .filter(|(path, _, _)| Channel::from_path(path).is_ok())
        .filter_map(|(_, target, _)| target.sha256())
        .collect()
}
