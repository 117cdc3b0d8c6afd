//! What makes a node a seed: taking an artifact as built or packing one, cutting it into pieces,
//! signing.
//!
//! A publication is two steps, so that nothing is ever half published. [`prepare`] does the long
//! work and leaves a verified artifact in the store and no trace in the metadata; [`sign`] makes the
//! next signed set in memory. The set counts once its timestamp is on disk, which is written last.

use std::fs;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::Version;
use tempfile::NamedTempFile;
use updraft_protocol::digest::Digest;
use updraft_protocol::manifest::Manifest;
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, FileName, InvalidName, Product, ReleaseId};
use updraft_protocol::release::{Format, ManifestRef, Notes, Release};
use updraft_protocol::rollout::{InvalidSchedule, Schedule};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{RepositoryId, RoleName, Signers, TopRole, TufError};

use self::draft::{Draft, DraftError, Signed};
use self::keys::{Keys, KeysError};
use crate::archive::{self, ArchiveError, PackOptions, Packed, Progress};
use crate::engine::catalog::CatalogView;
use crate::engine::offers::rule;
use crate::store::{Store, StoreError};

pub mod ceremony;
pub mod draft;
pub mod keys;
pub mod policy;
pub mod push_keys;
pub mod pushed;

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The directory to pack, or the file to take as it is.
    pub path: PathBuf,
    /// Product, version and platform.
    pub id: ReleaseId,
    /// The channel that will point to it.
    pub channel: Channel,
    /// Other channels that it may appear on.
    pub also_on: Vec<Channel>,
    /// Who may have it when; everybody at once where absent.
    pub rollout: Option<Schedule>,
    /// The lowest installed version that can go to it in one step.
    pub min_from: Option<Version>,
    /// What it says to people.
    pub notes: Option<String>,
    /// It is urgent.
    pub critical: bool,
    /// zstd level for a directory.
    pub level: i32,
}

/// Why something cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is nothing to publish there.
    #[error("cannot read {path}: {source}")]
    Source {
        /// What was to be published.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's name cannot be a target's.
    #[error("the file cannot be published under its name: {0}; rename it")]
    FileName(InvalidName),
    /// The tree or the file cannot be packed or read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has no room for temporary files.
    #[error("cannot write to the store: {0}")]
    Temporary(io::Error),
    /// It cannot be signed.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// A key cannot be used or made.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The product is new here, and delegating to it needs the targets key.
    #[error(
        "{product} is new here, and the targets keys that could add it are not on this machine; make a file for their holders: `updraft targets draft --add-product {product}=NAME.pub --output FILE`"
    )]
    NewProduct {
        /// The product.
        product: Product,
    },
    /// There is no signed set to add to.
    #[error("this directory holds no repository; make one: updraft init --product {product}")]
    NoRepository {
        /// The product.
        product: Product,
    },
    /// The channel would go back.
    #[error(
        "channel '{channel}' of {product} is at {current}; publishing {wanted} there would move it back: choose a higher version, or another --channel"
    )]
    MovesBack {
        /// The product.
        product: Product,
        /// The channel.
        channel: Channel,
        /// What it points to.
        current: String,
        /// What was to be published.
        wanted: String,
    },
    /// The rollout cannot begin now.
    #[error("the rollout: {0}")]
    Rollout(#[from] InvalidSchedule),
    /// What was made just now does not verify.
    #[error("the new repository does not verify: {0}")]
    Verify(TufError),
}

/// A publication whose artifact is in the store.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The release as it will be signed.
    pub release: Release,
    /// Its pieces.
    pub manifest: Arc<Manifest>,
    /// The channel that will point to it.
    pub channel: Channel,
    /// Who may have it when; everybody at once where absent.
    pub rollout: Option<Schedule>,
    /// The artifact was in the store before.
    pub was_held: bool,
}

/// A new repository: root 1 and the first signed set.
#[derive(Debug)]
pub struct NewRepository {
    /// Its id.
    pub id: RepositoryId,
    /// Root 1.
    pub root: Vec<u8>,
    /// The first set.
    pub signed: Signed,
}

/// Makes keys for every role and signs a repository with these products and no releases.
pub fn create(keys: &Keys, products: &[Product], now: UtcTime) -> Result<NewRepository, PublishError> {
    let make = |role: &RoleName| Ok::<_, KeysError>(keys.generate(&role.file_stem(), None)?.public());
    let (root, targets) = (make(&RoleName::root())?, make(&RoleName::targets())?);
    let (snapshot, timestamp) = (make(&RoleName::snapshot())?, make(&RoleName::timestamp())?);
    let public = |top| match top {
        TopRole::Root => root.clone(),
        TopRole::Targets => targets.clone(),
        TopRole::Snapshot => snapshot.clone(),
        TopRole::Timestamp => timestamp.clone(),
    };
    let root = draft::first_root(&public, keys, now)?;
    let id = RepositoryId::of_first_root(&root).map_err(PublishError::Verify)?;
    let mut draft = Draft::first(&root, &id, &make(&RoleName::channels())?, now)?;
    for product in products {
        let key = keys.generate(&RoleName::releases(product).file_stem(), None)?;
        draft.add_product(product, &key.public());
    }
    let signed = draft.sign(keys)?;
    Ok(NewRepository { id, root, signed })
}

/// The file that a publication becomes: packed or copied into the store's temporary place.
fn take(
    publication: &Publication,
    store: &Store,
    progress: &mut dyn FnMut(&Progress),
) -> Result<(NamedTempFile, Packed, Format, FileName), PublishError> {
    let path = &publication.path;
    let source = |source| PublishError::Source { path: path.clone(), source };
    let metadata = fs::metadata(path).map_err(source)?;
    let mut temp = store.temp_file().map_err(PublishError::Temporary)?;
    if metadata.is_dir() {
        let id = &publication.id;
        let name = format!("{}-{}-{}.tar.zst", id.product, id.version, id.platform);
        let name = name.parse().map_err(PublishError::FileName)?;
        let mut out = BufWriter::with_capacity(1 << 20, temp.as_file_mut());
        let packed = archive::pack(path, &mut out, &PackOptions { level: publication.level }, progress)?;
        out.flush().map_err(PublishError::Temporary)?;
        drop(out);
        return Ok((temp, packed, Format::TarZst, name));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name: FileName = name.parse().map_err(PublishError::FileName)?;
    // A private copy first: what is inspected is then what is published, whatever happens to the original.
    copy_unchanged(path, &mut temp)?;
    let format = archive::detect(path);
    let packed = archive::inspect(temp.path(), format, progress).map_err(|error| error.about(path))?;
    Ok((temp, packed, format, name))
}

fn copy_unchanged(path: &Path, temp: &mut NamedTempFile) -> Result<(), PublishError> {
    let source = |source| PublishError::Source { path: path.to_owned(), source };
    let stamp = |metadata: &fs::Metadata| (metadata.len(), metadata.modified().ok());
    // A pipe is opened without waiting for a writer, and then refused like any other special file.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(source)?;
    let before = file.metadata().map_err(source)?;
    if !before.is_file() {
        return Err(ArchiveError::NotAFile(path.to_owned()).into());
    }
    // One byte more than there was shows that the file grows, without following it for ever.
    let mut bounded = (&file).take(before.len().saturating_add(1));
    let copied = io::copy(&mut bounded, temp.as_file_mut()).map_err(PublishError::Temporary)?;
    let after = file.metadata().map_err(source)?;
    if copied != before.len() || stamp(&before) != stamp(&after) {
        return Err(ArchiveError::Changed(path.to_owned()).into());
    }
    Ok(())
}

/// Checks, packs and hashes; puts the artifact into the store unless this is a dry run.
pub fn prepare(
    publication: &Publication,
    view: &CatalogView,
    store: &Store,
    dry_run: bool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Prepared, PublishError> {
    // The cheap check comes before the long work.
    check(publication, view)?;
    let built = build(publication, store, progress)?;
    Draft::check_new(view, &built.release)?;
    built.keep(store, publication, dry_run)
}

/// The same for a release that exists already: only the very same artifact will do, and it is not
/// published again. A push whose end was not seen may be repeated like this.
pub fn prepare_again(
    publication: &Publication,
    existing: &Release,
    store: &Store,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Prepared, PublishError> {
    let built = build(publication, store, progress)?;
    if built.release.artifact != existing.artifact || !existing.channels.contains(&publication.channel) {
        return Err(DraftError::Exists {
            product: existing.id.product.clone(),
            wanted: publication.id.version.to_string(),
            existing: existing.id.version.to_string(),
            platform: existing.id.platform.to_string(),
        }
        .into());
    }
    built.keep(store, publication, true)
}

/// A release that was packed and hashed and is in no store yet.
struct Built {
    temp: NamedTempFile,
    release: Release,
    manifest: Manifest,
}

impl Built {
    fn keep(self, store: &Store, publication: &Publication, dry_run: bool) -> Result<Prepared, PublishError> {
        let was_held = store.get(&self.release.artifact).is_some_and(|held| held.is_complete());
        let manifest = Arc::new(self.manifest);
        if !dry_run {
            store.import(self.temp, &manifest)?;
        }
        Ok(Prepared {
            release: self.release,
            manifest,
            channel: publication.channel.clone(),
            rollout: publication.rollout.clone(),
            was_held,
        })
    }
}

fn build(publication: &Publication, store: &Store, progress: &mut dyn FnMut(&Progress)) -> Result<Built, PublishError> {
    let (temp, packed, format, file_name) = take(publication, store, progress)?;
    let manifest_bytes = packed.manifest.encode();
    let release = Release {
        path: publication.id.path(&file_name),
        id: publication.id.clone(),
        file_name,
        artifact: *packed.manifest.artifact(),
        length: packed.manifest.length(),
        format,
        content: packed.content,
        manifest: ManifestRef { sha256: Digest::of(&manifest_bytes), length: manifest_bytes.len() as u64 },
        channels: std::iter::once(&publication.channel).chain(&publication.also_on).cloned().collect(),
        min_from: publication.min_from.clone(),
        notes: publication.notes.clone().map_or(Notes::None, Notes::Text),
        critical: publication.critical,
    };
    Ok(Built { temp, release, manifest: packed.manifest })
}

fn check(publication: &Publication, view: &CatalogView) -> Result<(), PublishError> {
    let product = &publication.id.product;
    if view.trusted.snapshot().is_none() {
        return Err(PublishError::NoRepository { product: product.clone() });
    }
    let probe = Release {
        path: String::new(),
        id: publication.id.clone(),
        file_name: "probe".parse().map_err(PublishError::FileName)?,
        artifact: Digest::ZERO,
        length: 1,
        format: Format::File,
        content: updraft_protocol::release::Content { sha256: Digest::ZERO, length: 1, entries: 1 },
        manifest: ManifestRef { sha256: Digest::ZERO, length: 1 },
        channels: std::iter::once(&publication.channel).chain(&publication.also_on).cloned().collect(),
        min_from: publication.min_from.clone(),
        notes: publication.notes.clone().map_or(Notes::None, Notes::Text),
        critical: publication.critical,
    };
    Draft::check_new(view, &probe)?;
    check_forward(&publication.id, &publication.channel, view)
}

fn check_forward(id: &ReleaseId, channel: &Channel, view: &CatalogView) -> Result<(), PublishError> {
    match rule::ahead(view, id, channel) {
        Some(current) => Err(PublishError::MovesBack {
            product: id.product.clone(),
            channel: channel.clone(),
            current: current.to_string(),
            wanted: id.version.to_string(),
        }),
        None => Ok(()),
    }
}

/// Signs the set that adds a prepared release and points its channel to it.
pub fn sign(prepared: &Prepared, view: &CatalogView, keys: &Keys, now: UtcTime) -> Result<Signed, PublishError> {
    let release = &prepared.release;
    let product = &release.id.product;
    // Another publication may have come first while this one was packing.
    Draft::check_new(view, release)?;
    check_forward(&release.id, &prepared.channel, view)?;
    let mut draft = Draft::of(view, now);
    if !draft.has_product(product) {
        if !keys.can_sign(&draft.signers(&RoleName::targets())?) {
            return Err(PublishError::NewProduct { product: product.clone() });
        }
        let label = RoleName::releases(product).file_stem();
        let key = match keys.get(&label) {
            Ok(entry) => keys.open(&entry)?,
            Err(KeysError::Unknown { .. }) => keys.generate(&label, None)?,
            Err(error) => return Err(error.into()),
        };
        draft.add_product(product, &key.public());
    }
    draft.add_release(release);
    let before = pushed::policy_of(view, product, &prepared.channel);
    let mut policy = pushed::pointing_to(&release.id.version, before, now);
    if let Some(schedule) = &prepared.rollout {
        policy.rollout = schedule.starting(now)?;
    }
    draft.set_channel(product, &prepared.channel, &policy);
    Ok(draft.sign(keys)?)
}

/// Whether a release of `product` could be signed with the keys here; asked before the long work.
pub fn check_keys(product: &Product, view: &CatalogView, keys: &Keys, now: UtcTime) -> Result<(), PublishError> {
    let draft = Draft::of(view, now);
    match draft.signers(&RoleName::releases(product)) {
        Ok(signers) => Ok(keys.require(&RoleName::releases(product), &signers)?),
        Err(_) if keys.can_sign(&draft.signers(&RoleName::targets())?) => Ok(()),
        Err(_) => Err(PublishError::NewProduct { product: product.clone() }),
    }
}

/// Signs the same set again, with a new timestamp; what grows old and can be signed here with it.
pub fn renew(view: &CatalogView, keys: &Keys, now: UtcTime) -> Result<Signed, PublishError> {
    let mut draft = Draft::of(view, now);
    let can_sign = |signers: &Signers| keys.can_sign(signers);
    draft.renew(&can_sign);
    draft.renew_root(keys, &can_sign)?;
    Ok(draft.sign(keys)?)
}

/// The name under which the timestamp of a new root waits until that root is on disk.
pub const PENDING_PREFIX: &str = "pending.";

/// The files of a set, in the order in which a crash between any two does no harm.
///
/// A new root and the timestamp signed under it cannot be replaced in one step, and each is worthless
/// without the other. So the timestamp is written down beside, then the root, then the timestamp in its
/// place: whoever opens the directory after a crash in between finds what to put there.
pub fn in_order(signed: &Signed) -> Vec<crate::engine::effect::Save> {
    use crate::engine::effect::Save;
    let mut saves = Vec::new();
    let mut new_root = None;
    for (file, bytes) in &signed.files {
        match file {
            MetaFile::Target { sha256, .. } => saves.push(Save::Target { sha256: *sha256, bytes: bytes.clone() }),
            MetaFile::Role { name, version } => {
                let stem = name.parse::<RoleName>().map_or_else(|_| name.clone(), |role| role.file_stem());
                saves.push(Save::Metadata { name: format!("{version}.{stem}.json"), bytes: bytes.clone() });
            }
            MetaFile::Root { version } => new_root = Some((*version, bytes)),
            MetaFile::Head | MetaFile::Manifest { .. } | MetaFile::Evidence { .. } | MetaFile::Offer(_) => {}
        }
    }
    if let Some(snapshot) = signed.trusted.snapshot() {
        saves.push(Save::Metadata {
            name: format!("{}.snapshot.json", snapshot.version),
            bytes: snapshot.bytes().to_vec(),
        });
    }
    if let Some(timestamp) = signed.trusted.timestamp() {
        let bytes = timestamp.bytes().to_vec();
        if let Some((version, root)) = new_root {
            let name = format!("{PENDING_PREFIX}{version}.timestamp.json");
            saves.push(Save::Metadata { name, bytes: bytes.clone() });
            saves.push(Save::Metadata { name: format!("{version}.root.json"), bytes: root.clone() });
        }
        saves.push(Save::Metadata { name: "timestamp.json".to_owned(), bytes });
    }
    saves
}
