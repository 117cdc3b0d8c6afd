use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::canonical;
use crate::tuf::fixture::{
    CHANNELS, Files, RELEASES, ROOT, Repository, SNAPSHOT, TARGETS, TIMESTAMP, enforce, key, later, now, public, role,
    sign,
};
use crate::tuf::{DelegatedRole, Delegations, FileMeta, Freshness, Hashes, Resolution, TargetInfo, sign_role};

mod mutated;
mod root;
mod snapshot;
mod targets;
mod timestamp;

/// Signs `signed` as it is, whatever it says.
fn sign_value(signed: &Value, seed: u8) -> Vec<u8> {
    let message = canonical::encode(signed);
    let signature = data_encoding::HEXLOWER.encode(&key(seed).sign(&message));
    canonical::encode(&json!({"signatures": [{"keyid": public(seed).id(), "sig": signature}], "signed": signed}))
}

/// Changes the signed part of metadata and signs it again.
fn resign(bytes: &[u8], seed: u8, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = canonical::parse(bytes).expect("JSON");
    edit(&mut value["signed"]);
    sign_value(&value["signed"], seed)
}

fn loaded_snapshot(repository: &Repository) -> (Trusted, Files) {
    let files = repository.files();
    let mut trusted = repository.trusted_root();
    assert_eq!(trusted.update_timestamp(&files.timestamp, enforce()), Ok(Change::New));
    assert_eq!(trusted.update_snapshot(&files.snapshot, enforce()), Ok(Change::New));
    (trusted, files)
}
