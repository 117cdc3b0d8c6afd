//! A signed repository made in memory, with the code that the seed uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use updraft::engine::catalog::CatalogView;
use updraft::publisher::draft::{Draft, KeySource, Signed, first_root};
use updraft::publisher::keys::KeysError;
use updraft_protocol::digest::Digest;
use updraft_protocol::key::SigningKey;
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::meta::MetaFile;
use updraft_protocol::names::{Channel, Platform, Product, ReleaseId};
use updraft_protocol::release::{Content, Format, ManifestRef, Notes, Release};
use updraft_protocol::rollout::ChannelPolicy;
use updraft_protocol::ticket::Ticket;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{RepositoryId, RoleName, Signers};

/// Keys made from the names of their roles: the same in every run.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestKeys;

impl TestKeys {
    /// The key of `role`.
    pub fn key(self, role: &RoleName) -> SigningKey {
        SigningKey::from_seed(*Digest::of(role.as_str().as_bytes()).as_bytes())
    }
}

impl KeySource for TestKeys {
    fn signers(&self, role: &RoleName, _authorised: &Signers) -> Result<Vec<SigningKey>, KeysError> {
        Ok(vec![self.key(role)])
    }
}

/// A repository with everything it ever published.
#[derive(Debug)]
pub struct TestRepository {
    /// Its id.
    pub id: RepositoryId,
    /// Root 1.
    pub root: Vec<u8>,
    /// The newest signed set.
    pub signed: Signed,
    /// Every file of that set.
    pub files: BTreeMap<MetaFile, Vec<u8>>,
    /// Pieces of every artifact.
    pub manifests: BTreeMap<Digest, Arc<Manifest>>,
}

fn product() -> Product {
    "app".parse().expect("a valid name")
}

impl TestRepository {
    /// A repository with the product `app` and no releases.
    ///
    /// # Panics
    /// Where signing in memory fails, which would be a bug.
    pub fn new(now: UtcTime) -> Self {
        let keys = TestKeys;
        let root = first_root(&|top| keys.key(&top.name()).public(), &keys, now).expect("keys are in memory");
        let id = RepositoryId::of_first_root(&root).expect("just signed");
        let channels = keys.key(&RoleName::channels()).public();
        let mut draft = Draft::first(&root, &id, &channels, now).expect("a good root");
        let releases = keys.key(&RoleName::releases(&product())).public();
        draft.add_product(&product(), &releases);
        let signed = draft.sign(&keys).expect("keys are in memory");
        let mut repository = Self { id, root, signed, files: BTreeMap::new(), manifests: BTreeMap::new() };
        repository.keep();
        repository
    }

    fn keep(&mut self) {
        self.files.insert(MetaFile::Root { version: 1 }, self.root.clone());
        self.files.extend(self.signed.files.iter().cloned());
    }

    /// Publishes `bytes` as `version` on `stable`.
    ///
    /// # Panics
    /// On a version that is no version, and where signing in memory fails.
    pub fn publish(&mut self, version: &str, bytes: &[u8], now: UtcTime) -> Arc<Manifest> {
        let mut builder = ManifestBuilder::new();
        builder.update(bytes);
        let manifest = Arc::new(builder.finish().expect("not empty"));
        let encoded = manifest.encode();
        let sha256 = Digest::of(&encoded);
        let id =
            ReleaseId { product: product(), version: version.parse().expect("a version"), platform: Platform::any() };
        let file_name = format!("app-{version}.bin").parse().expect("a file name");
        let release = Release {
            path: id.path(&file_name),
            file_name,
            artifact: *manifest.artifact(),
            length: manifest.length(),
            format: Format::File,
            content: Content { sha256: *manifest.artifact(), length: manifest.length(), entries: 1 },
            manifest: ManifestRef { sha256, length: encoded.len() as u64 },
            channels: BTreeSet::from([Channel::stable()]),
            min_from: None,
            notes: Notes::None,
            critical: false,
            id,
        };
        let mut draft = Draft::of(&self.view(), now);
        draft.add_release(&release);
        let policy = ChannelPolicy::pointing_to(release.id.version.clone());
        draft.set_channel(&product(), &Channel::stable(), &policy);
        self.signed = draft.sign(&TestKeys).expect("keys are in memory");
        self.keep();
        self.files.insert(MetaFile::Manifest { sha256 }, encoded);
        self.manifests.insert(*manifest.artifact(), manifest.clone());
        manifest
    }

    /// The newest set as a catalog.
    pub fn view(&self) -> CatalogView {
        let files: BTreeMap<Digest, Arc<Vec<u8>>> =
            self.files.values().map(|bytes| (Digest::of(bytes), Arc::new(bytes.clone()))).collect();
        CatalogView::new(&self.signed.trusted, &files)
    }

    /// A ticket for it.
    pub fn ticket(&self, addresses: Vec<String>) -> Ticket {
        Ticket {
            repository: self.id,
            root_version: 1,
            root_sha256: self.id.0,
            min_timestamp_version: 1,
            addresses,
            grant: None,
        }
    }
}
