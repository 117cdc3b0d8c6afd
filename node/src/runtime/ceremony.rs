//! Changes of who may sign, as a seed takes them: running, stopped, or after a crash in between.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use updraft_protocol::canonical;
use updraft_protocol::limits::{MAX_CEREMONY_BYTES, MAX_TIMESTAMP_BYTES};
use updraft_protocol::tuf::{Ceremony, CeremonyError, Trusted};

use super::Runtime;
use super::doctor::{self, Level};
use super::open::{Opened, wall_clock};
use crate::config::Role;
use crate::control::messages::{ErrorBody, ErrorCode, Response};
use crate::control::reply::ReplySender;
use crate::control::results::{AppliedRole, ApplyView};
use crate::control::views::Schema;
use crate::engine::catalog::CatalogView;
use crate::engine::effect::{Event, EventKind};
use crate::engine::input::Input;
use crate::publisher::ceremony::{self, ChangeError};
use crate::publisher::draft::{DraftError, Signed};
use crate::publisher::keys::{Keys, open_file};
use crate::publisher::{self, PENDING_PREFIX};
use crate::store::{MetadataDir, StoreError};

/// What the keys and the metadata of a seed give reason to warn of, for `status`.
pub(super) fn key_warnings(keys: &Keys, trusted: &Trusted) -> Vec<String> {
    let mut findings = Vec::new();
    doctor::offline_keys(keys, trusted, &mut findings);
    doctor::expiry(keys, trusted, wall_clock(), &mut findings);
    let worth_it = findings.into_iter().filter(|finding| finding.level != Level::Ok);
    worth_it.map(|finding| format!("{}; {}", finding.text, finding.hint.unwrap_or_default())).collect()
}

/// The version that a metadata file states. Only for files that this node wrote itself.
fn version_of(bytes: &[u8]) -> u64 {
    canonical::parse(bytes).ok().and_then(|file| file["signed"]["version"].as_u64()).unwrap_or(0)
}

/// Finishes what a crash may have cut short between a new root and the timestamp signed under it.
pub(super) fn settle_pending(metadata: &MetadataDir) -> Result<(), StoreError> {
    for name in metadata.list()? {
        let inner = name.strip_prefix(PENDING_PREFIX).and_then(|rest| rest.strip_suffix(".timestamp.json"));
        let Some(root_version) = inner else { continue };
        let has_root = metadata.list()?.contains(&format!("{root_version}.root.json"));
        if let Some(pending) = metadata.get(&name, MAX_TIMESTAMP_BYTES)?.filter(|_| has_root) {
            let current = metadata.get("timestamp.json", MAX_TIMESTAMP_BYTES)?;
            if version_of(&pending) > current.as_deref().map_or(0, version_of) {
                metadata.put("timestamp.json", &pending)?;
            }
        }
        metadata.remove(&name)?;
    }
    Ok(())
}

/// Reads a ceremony file, bounded, and checks it.
pub fn read(path: &Path) -> Result<Ceremony, ErrorBody> {
    let failed =
        |error: std::io::Error| ErrorBody::new(ErrorCode::Error, format!("{} cannot be read: {error}", path.display()));
    let file = open_file(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_CEREMONY_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ceremony::parse(&bytes).map_err(|error| {
        let body = ErrorBody::new(ErrorCode::VerificationFailed, format!("{}: {error}", path.display()));
        body.with_hint("get a fresh copy from whoever drafted it; nothing was signed or changed")
    })
}

fn refused(error: &ChangeError) -> ErrorBody {
    let (code, hint) = match error {
        ChangeError::InForce => (ErrorCode::NothingToDo, None),
        ChangeError::Ceremony(CeremonyError::Incomplete { .. }) => {
            (ErrorCode::Error, Some("pass the file to the holders of those keys: `updraft root sign FILE`"))
        }
        ChangeError::Ceremony(_) | ChangeError::OtherRepository | ChangeError::Draft(DraftError::WrongKeys(_)) => {
            (ErrorCode::VerificationFailed, None)
        }
        _ => (ErrorCode::Error, None),
    };
    let body = ErrorBody::new(code, error.to_string());
    match hint {
        Some(hint) => body.with_hint(hint),
        None => body,
    }
}

fn applied(ceremony: &Ceremony, signed: &Signed) -> ApplyView {
    let role = |(role, version)| AppliedRole { role, version };
    ApplyView {
        schema: Schema,
        roles: ceremony.roles().into_iter().map(role).collect(),
        root_version: signed.trusted.root().version,
        timestamp_version: signed.trusted.timestamp().map_or(0, |timestamp| timestamp.version),
    }
}

/// Applies a ceremony to a stopped seed's directory.
pub fn apply_offline(data_dir: &Path, ceremony: &Ceremony) -> Result<ApplyView, ErrorBody> {
    let error = |cause: &dyn std::fmt::Display| ErrorBody::new(ErrorCode::Error, cause.to_string());
    let opened = Opened::open_existing(data_dir).map_err(|cause| error(&cause))?;
    let view = opened.own_view(data_dir).map_err(|cause| error(&cause))?;
    let signed = ceremony::apply(ceremony, &view, &opened.keys, wall_clock()).map_err(|cause| refused(&cause))?;
    opened.save(&publisher::in_order(&signed)).map_err(|cause| error(&cause))?;
    Ok(applied(ceremony, &signed))
}

impl Runtime {
    /// Takes a ceremony file: signs the next set, keeps it, and lets the engine announce it.
    pub(super) async fn apply(&mut self, path: PathBuf, reply: ReplySender) {
        let end = self.try_apply(path).await;
        reply.finish(end.map(Response::Apply));
    }

    async fn try_apply(&mut self, path: PathBuf) -> Result<ApplyView, ErrorBody> {
        if self.config.role != Role::Seed {
            let body = ErrorBody::new(ErrorCode::Error, "this node is a peer; only a seed takes ceremony files");
            return Err(body.with_hint("run this at the seed, or with its --data-dir"));
        }
        let Some(view) = self.engine.catalog().cloned() else {
            return Err(ErrorBody::new(ErrorCode::Error, "the seed has no verified repository"));
        };
        if let Some(body) = self.not_ready_to_sign() {
            return Err(body);
        }
        let keys = self.opened.keys.clone();
        let signing = tokio::task::spawn_blocking(move || sign(&path, &view, &keys)).await;
        let (ceremony, signed) = signing.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        if let Err(cause) = self.keep(&signed).await {
            let body = ErrorBody::new(ErrorCode::Error, format!("the signed metadata could not be saved: {cause}"));
            return Err(body.with_hint("nothing was announced; free some space, restart the seed and apply it again"));
        }
        let view = applied(&ceremony, &signed);
        self.input(Input::Published { head: signed.head, files: signed.files }).await;
        let now = self.engine.catalog().map(|view| (view.trusted.root().version, view.timestamp_version()));
        if now != Some((view.root_version, view.timestamp_version)) {
            let body = ErrorBody::new(ErrorCode::Error, "the new metadata was not accepted by this seed itself");
            return Err(body.with_hint("updraft events shows why"));
        }
        let roles: Vec<String> = view.roles.iter().map(|role| format!("{} {}", role.role, role.version)).collect();
        let text = format!("in force from now on: {}", roles.join(", "));
        self.tell(Event { kind: EventKind::KeysChanged, product: None, version: None, peer: None, text }).await;
        Ok(view)
    }
}

fn sign(path: &Path, view: &Arc<CatalogView>, keys: &Keys) -> Result<(Ceremony, Signed), ErrorBody> {
    let ceremony = read(path)?;
    let signed = ceremony::apply(&ceremony, view, keys, wall_clock()).map_err(|cause| refused(&cause))?;
    Ok((ceremony, signed))
}

#[cfg(test)]
mod tests {
    use updraft_protocol::key::SigningKey;
    use updraft_protocol::time::UtcTime;
    use updraft_protocol::tuf::{FileMeta, Timestamp, sign_role};

    use super::*;
    use crate::store::Store;

    fn timestamp(version: u64) -> Vec<u8> {
        let meta = FileMeta::of(1, b"x");
        sign_role(&Timestamp::new(version, UtcTime::from_unix(2_000_000_000), meta), &[&SigningKey::from_seed([1; 32])])
    }

    fn metadata() -> (tempfile::TempDir, MetadataDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("opened");
        let metadata = store.metadata(&updraft_protocol::digest::Digest::ZERO).expect("opened");
        metadata.put("timestamp.json", &timestamp(5)).expect("put");
        (directory, metadata)
    }

    fn in_place(metadata: &MetadataDir) -> u64 {
        version_of(&metadata.get("timestamp.json", 100_000).expect("read").expect("there"))
    }

    #[test]
    fn a_crash_before_the_new_root_leaves_the_old_set() {
        let (_directory, metadata) = metadata();
        metadata.put("pending.2.timestamp.json", &timestamp(6)).expect("put");
        settle_pending(&metadata).expect("settled");
        assert_eq!(in_place(&metadata), 5);
        assert_eq!(metadata.list().expect("listed"), ["timestamp.json"]);
    }

    #[test]
    fn a_crash_after_the_new_root_finds_its_timestamp() {
        let (_directory, metadata) = metadata();
        metadata.put("pending.2.timestamp.json", &timestamp(6)).expect("put");
        metadata.put("2.root.json", b"{}").expect("put");
        settle_pending(&metadata).expect("settled");
        assert_eq!(in_place(&metadata), 6);
        assert_eq!(metadata.list().expect("listed"), ["2.root.json", "timestamp.json"]);
    }

    #[test]
    fn a_leftover_never_takes_a_newer_timestamp_back() {
        let (_directory, metadata) = metadata();
        metadata.put("pending.2.timestamp.json", &timestamp(4)).expect("put");
        metadata.put("2.root.json", b"{}").expect("put");
        settle_pending(&metadata).expect("settled");
        assert_eq!(in_place(&metadata), 5);
    }
}
