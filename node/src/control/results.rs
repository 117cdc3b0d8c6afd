//! What commands answer that get something done: the other half of the JSON contract.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::RoleName;

use super::views::Schema;

/// `updraft fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchView {
    /// The contract.
    pub schema: Schema,
    /// Of which product.
    pub product: Product,
    /// Which version.
    pub version: String,
    /// For which platform.
    pub platform: Platform,
    /// Where the artifact is: the output file, or the store's own.
    pub path: PathBuf,
    /// SHA-256 of the artifact; it was verified.
    pub sha256: Digest,
    /// Bytes of the artifact.
    pub size_bytes: u64,
}

/// `updraft install` and `updraft rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallView {
    /// The contract.
    pub schema: Schema,
    /// Which product.
    pub product: Product,
    /// Where.
    pub directory: PathBuf,
    /// What ran before.
    pub from: Option<String>,
    /// What runs now.
    pub to: String,
}

/// `updraft hold` and `updraft unhold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// The contract.
    pub schema: Schema,
    /// Which product.
    pub product: Product,
    /// What is held from now on.
    pub held: Vec<HoldRow>,
}

/// Something that an operator keeps from being installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRow {
    /// In which directory.
    pub directory: PathBuf,
    /// Which version; none for every update.
    pub version: Option<String>,
    /// Why.
    pub reason: String,
}

/// `updraft ticket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketView {
    /// The contract.
    pub schema: Schema,
    /// The join ticket.
    pub ticket: String,
    /// What people compare at both ends.
    pub fingerprint: String,
    /// The repository's id.
    pub repository: Digest,
    /// The addresses in it.
    pub addresses: Vec<String>,
}

/// `updraft publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishView {
    /// The contract.
    pub schema: Schema,
    /// What was published.
    pub product: Product,
    /// Its version.
    pub version: String,
    /// What it runs on.
    pub platform: Platform,
    /// The channel that points to it.
    pub channel: Channel,
    /// The target's path in the repository.
    pub target: String,
    /// `tar.zst`, `zip`, `file`...
    pub format: String,
    /// SHA-256 of the artifact.
    pub sha256: Digest,
    /// Bytes of the artifact.
    pub size_bytes: u64,
    /// Bytes of what it unpacks to.
    pub content_bytes: u64,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Pieces that it is cut into.
    pub pieces: u32,
    /// The head that announces it; none for a dry run.
    pub timestamp_version: Option<u64>,
    /// Nothing was signed.
    pub dry_run: bool,
    /// What the publisher should know, in sentences.
    pub warnings: Vec<String>,
}

/// `updraft root apply` and `updraft targets apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyView {
    /// The contract.
    pub schema: Schema,
    /// What is in force from now on.
    pub roles: Vec<AppliedRole>,
    /// The root in force.
    pub root_version: u64,
    /// The head that announces it.
    pub timestamp_version: u64,
}

/// A role that was put into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRole {
    /// The role.
    pub role: RoleName,
    /// Its version.
    pub version: u64,
}

/// `updraft publish --renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewView {
    /// The contract.
    pub schema: Schema,
    /// Of which product.
    pub product: Product,
    /// The role that was signed again.
    pub role: String,
    /// Its version now.
    pub version: u64,
    /// When it expires now.
    pub expires_at: UtcTime,
    /// The head that announces it.
    pub timestamp_version: u64,
}
