//! Real nodes that face malicious peers, and the question that every attack ends with: was anything
//! wrong stored as verified, served or installed, is the node up, and does it find back to the honest
//! state as soon as one honest peer can be reached?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use updraft::config::{NodeConfig, Role};
use updraft::control::Call;
use updraft::control::messages::{Event, Line, Request, Response};
use updraft::control::reply;
use updraft::control::views::{StatusView, SubscriptionView};
use updraft::runtime::open::wall_clock;
use updraft::runtime::{RunningNode, start};
use updraft::store::Store;
use updraft::store::state::{RepositoryRow, StateDb};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::Evidence;
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::peer::PeerId;
use updraft_protocol::ticket::Ticket;
use updraft_protocol::transfer::{Control, PeerRecord};
use updraft_protocol::tuf::RoleName;

use crate::cluster::{ask, config, has_installed, status, subscription};
use crate::forge::{Set, Work, version_of};
use crate::http;
use crate::malicious::{Honest, Peer};

/// Within this time of an honest peer being reachable a node is in the honest state.
pub const CONVERGED: Duration = Duration::from_secs(25);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of memory that all nodes of a test process together may take, whatever is thrown at them.
const MAX_RESIDENT_BYTES: u64 = 2 << 30;

/// A place for the nodes of one test.
#[derive(Debug)]
pub struct Lab {
    scratch: TempDir,
    nodes: AtomicUsize,
}

/// A node under attack, or an honest one.
#[derive(Debug)]
pub struct Victim {
    /// The node.
    pub node: RunningNode,
    /// Its identity.
    pub id: PeerId,
    /// Where it listens, with its identity.
    pub address: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where it installs `app`.
    pub install_dir: PathBuf,
}

/// What the honest repository has ever signed and released: whatever else a node holds is wrong.
#[derive(Debug, Clone)]
pub struct Truth {
    repository: Digest,
    files: BTreeSet<Digest>,
    works: BTreeMap<Digest, Work>,
}

impl Truth {
    /// The truth of these sets.
    ///
    /// # Panics
    /// Without any set.
    pub fn of(sets: &[&Set]) -> Self {
        let repository = sets.first().expect("some truth").repository;
        let mut truth = Self { repository, files: BTreeSet::new(), works: BTreeMap::new() };
        for set in sets {
            truth.learn(set);
        }
        truth
    }

    /// Adds what the publisher signed and released since.
    pub fn learn(&mut self, set: &Set) {
        self.tolerate(set);
        self.works.extend(set.works.clone());
    }

    /// The repository that the node was told to trust, where that is not the one of the sets.
    pub fn is_of(&mut self, repository: Digest) {
        self.repository = repository;
    }

    /// Every artifact that was ever published.
    pub fn artifacts(&self) -> Vec<Digest> {
        self.works.keys().copied().collect()
    }

    /// Allows the metadata of a set, and none of the artifacts that only it names: what somebody signed
    /// with stolen online keys is validly signed, and may be held.
    pub fn tolerate(&mut self, set: &Set) {
        self.files.extend(set.files.values().chain([&set.timestamp, &set.snapshot]).map(|bytes| Digest::of(bytes)));
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// An empty place.
    ///
    /// # Panics
    /// Where there is no room for temporary files.
    pub fn new() -> Self {
        Self { scratch: tempfile::tempdir().expect("a temporary directory"), nodes: AtomicUsize::new(0) }
    }

    /// Where its nodes live.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn place(&self, what: &str) -> PathBuf {
        self.scratch.path().join(format!("{what}-{}", self.nodes.fetch_add(1, Ordering::Relaxed)))
    }

    /// A real node that joins by `ticket`, installs `app` from `stable` and has an HTTP face.
    pub async fn victim(&self, ticket: &Ticket) -> Victim {
        self.victim_with(ticket, |_| {}).await
    }

    /// The same, with a configuration of one's choice.
    pub async fn victim_with(&self, ticket: &Ticket, change: impl FnOnce(&mut NodeConfig)) -> Victim {
        self.victim_in(self.place("victim"), Some(ticket), change).await
    }

    /// The same, on a directory that may have been used before.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn victim_in(
        &self,
        data_dir: PathBuf,
        ticket: Option<&Ticket>,
        change: impl FnOnce(&mut NodeConfig),
    ) -> Victim {
        let install_dir = data_dir.join("apps").join("app");
        let mut config = config(&data_dir, Role::Peer, ticket.map(ToString::to_string));
        config.http = Some(([127, 0, 0, 1], 0).into());
        let directory = Some(install_dir.clone());
        config.subscriptions = vec![subscription(directory)];
        change(&mut config);
        Victim::start(config, data_dir, install_dir).await
    }

    /// A real seed that has a set whole, and no key to sign another.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn seed(&self, set: &Set) -> Victim {
        let data_dir = self.place("seed");
        fill(&data_dir, set);
        let config = config(&data_dir, Role::Seed, None);
        let install_dir = data_dir.join("none");
        Victim::start(config, data_dir, install_dir).await
    }

    /// Makes an honest node reachable for a victim: somebody tells where it is.
    pub async fn introduce(&self, victim: &Victim, repository: Digest, address: &str) {
        let messenger = Peer::start(&Set::empty(repository), Honest).await;
        let to = messenger.connect(&victim.address).await;
        let peer = updraft::engine::peers::peer_of(address).expect("an address with a peer id");
        let record = PeerRecord { peer, addresses: vec![address.to_owned()] };
        messenger.say(&to, Control::Peers(vec![record])).await;
        // The message is on its way before the messenger leaves: its question comes after it.
        let _ = messenger.ask(&to, MetaFile::Head).await;
        messenger.stop().await;
    }

    /// Makes a seed with `set` reachable, and waits until the victim has installed `version`, the newest
    /// of it, and knows its head.
    ///
    /// # Panics
    /// Where it takes longer than [`CONVERGED`].
    pub async fn converges(&self, victim: &Victim, set: &Set, version: &str) {
        let seed = self.seed(set).await;
        self.introduce(victim, set.repository, &seed.address).await;
        victim.reaches(set, version).await;
        assert!(!victim.banned(&seed.id).await, "an honest peer was banned");
        seed.stop().await;
    }
}

/// Writes what a seed has on disk.
fn fill(data_dir: &Path, set: &Set) {
    use std::io::Write as _;
    let store = Store::open(data_dir).expect("a new store");
    let state = StateDb::open(&store.state_path()).expect("a new database");
    let metadata = store.metadata(&set.repository).expect("a new directory");
    for (file, bytes) in &set.files {
        match file {
            MetaFile::Root { version } => metadata.put(&format!("{version}.root.json"), bytes),
            MetaFile::Role { name, version } => {
                let role: RoleName = name.parse().expect("a role name");
                metadata.put(&format!("{version}.{}.json", role.file_stem()), bytes)
            }
            MetaFile::Target { sha256, .. } => store.put_target(sha256, bytes),
            MetaFile::Head | MetaFile::Manifest { .. } | MetaFile::Evidence { .. } | MetaFile::Offer(_) => Ok(()),
        }
        .expect("writable");
    }
    let version = version_of(&set.snapshot);
    metadata.put(&format!("{version}.snapshot.json"), &set.snapshot).expect("writable");
    metadata.put("timestamp.json", &set.timestamp).expect("writable");
    for work in set.works.values() {
        let mut file = store.temp_file().expect("writable");
        file.write_all(&work.bytes).expect("writable");
        store.import(file, &work.manifest).expect("writable");
    }
    let row = RepositoryRow { id: set.repository, ticket: String::new(), added_at: wall_clock() };
    state.put_repository(&row).expect("writable");
}

impl Victim {
    async fn start(config: NodeConfig, data_dir: PathBuf, install_dir: PathBuf) -> Self {
        // A node that ran on the directory before may take a moment to let go of its lock.
        let started = Instant::now();
        let mut node = loop {
            match start(config.clone()).await {
                Ok(node) => break node,
                Err(error) => assert!(started.elapsed() < CONVERGED, "the node does not start: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let address = node.listening().await.first().cloned().expect("it listens");
        Self { id: node.peer_id.clone(), node, address, data_dir, install_dir }
    }

    /// Its status.
    pub async fn status(&self) -> StatusView {
        status(&self.node).await
    }

    /// Waits until its status is as it should be.
    ///
    /// # Panics
    /// Where it takes too long; with the status and the last events.
    pub async fn until(&self, what: &str, holds: impl Fn(&StatusView) -> bool) -> StatusView {
        let started = Instant::now();
        loop {
            let status = self.status().await;
            if holds(&status) {
                return status;
            }
            if started.elapsed() >= CONVERGED {
                let events = self.events().await;
                let last = &events[events.len().saturating_sub(40)..];
                panic!("{what}: not within {CONVERGED:?}: {status:#?}\n{last:#?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until it runs `version` by the head of `set`.
    pub async fn reaches(&self, set: &Set, version: &str) {
        let wanted = set.timestamp_version;
        self.until(&format!("head {wanted} and release {version}"), |status| {
            head_version(status) == wanted && has_installed(status, version)
        })
        .await;
    }

    /// Its one subscription.
    pub async fn subscription(&self) -> SubscriptionView {
        self.status().await.subscriptions.first().cloned().expect("it has one")
    }

    /// What it remembers of what happened.
    pub async fn events(&self) -> Vec<Event> {
        let (sender, mut receiver) = reply::channel();
        let request = Request::Events { follow: false, since: None };
        self.node.calls().send(Call { request, reply: sender }).await.expect("the node runs");
        let mut events = Vec::new();
        while let Some(line) = receiver.next().await {
            match line {
                Line::Event(event) => events.push(event),
                Line::Result(_) | Line::Error(_) => break,
                _ => {}
            }
        }
        events
    }

    /// Whether it banned a peer.
    pub async fn banned(&self, peer: &PeerId) -> bool {
        let peer = peer.to_string();
        self.events().await.iter().any(|event| event.kind == "peer_blamed" && event.peer.as_deref() == Some(&peer))
    }

    /// Waits until it banned a peer.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn bans(&self, peer: &PeerId) {
        let started = Instant::now();
        while !self.banned(peer).await {
            assert!(started.elapsed() < CONVERGED, "{peer} was not banned: {:#?}", self.events().await);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Faults that it counts against a connected peer; none where the peer is not connected.
    pub async fn faults_of(&self, peer: &PeerId) -> Option<u64> {
        let Ok(Response::Peers(view)) = ask(&self.node, Request::Peers {}).await else { panic!("not a list of peers") };
        let peer = peer.to_string();
        view.peers.iter().find(|row| row.peer_id == peer).map(|row| row.score.unsigned_abs())
    }

    /// Whether any event is an alarm that says `part`.
    pub async fn alarmed(&self, part: &str) -> bool {
        let is_alarm = |kind: &str| kind == "alarm" || kind == "equivocation";
        self.events().await.iter().any(|event| is_alarm(&event.kind) && event.text.contains(part))
    }

    /// Asks its HTTP face.
    ///
    /// # Panics
    /// Where it has none.
    pub async fn get(&self, path: &str) -> http::Answer {
        let address = self.node.http.expect("it has an HTTP face").to_string();
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || http::get(&address, &path, &[])).await.expect("an answer")
    }

    /// Stops it.
    pub async fn stop(self) {
        self.node.stop();
        self.node.stopped().await;
    }

    /// What every attack ends with: nothing but the truth is stored as verified, served or installed;
    /// the node is up, and its memory bounded. `lies` are artifacts that somebody tried to plant.
    ///
    /// # Panics
    /// Where anything is wrong.
    pub async fn is_unharmed(&self, truth: &Truth, lies: &[&Work]) {
        let status = self.status().await;
        assert_eq!(status.repositories[0].id, truth.repository, "another repository is trusted");
        self.store_is_sound(truth);
        self.installs_are_sound(truth);
        self.serves_only(truth, lies).await;
        if self.node.http.is_some() {
            self.shows_only(truth, lies).await;
        }
        let resident = resident_bytes();
        assert!(resident < MAX_RESIDENT_BYTES, "{resident} bytes of memory are in use");
    }

    /// Hashes everything that is on disk again.
    fn store_is_sound(&self, truth: &Truth) {
        for entry in files(&self.data_dir.join("metadata").join(truth.repository.to_string())) {
            let bytes = fs::read(&entry).unwrap_or_default();
            let is_evidence = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with("evidence."));
            if is_evidence && !bytes.is_empty() {
                // Both files in it may be a thief's own; it is kept as proof, never as metadata.
                Evidence::decode(&bytes).expect("what is kept as evidence is evidence");
                continue;
            }
            // A file may be replaced or pruned between the listing and the reading.
            assert!(
                bytes.is_empty() || truth.files.contains(&Digest::of(&bytes)),
                "{} is stored and was never signed by the publisher",
                entry.display()
            );
        }
        assert_eq!(files(&self.data_dir.join("metadata")).len(), 1, "metadata of another repository is stored");
        for entry in files(&self.data_dir.join("targets")) {
            let bytes = fs::read(&entry).unwrap_or_default();
            let digest = Digest::of(&bytes);
            let named = entry.file_name().is_some_and(|name| *name == *digest.to_string());
            assert!(bytes.is_empty() || (named && truth.files.contains(&digest)), "{} is wrong", entry.display());
        }
        for entry in files(&self.data_dir.join("artifacts")) {
            let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
            let Some(work) = name.parse::<Digest>().ok().and_then(|digest| truth.works.get(&digest)) else {
                panic!("the artifact {name} is stored and was never published");
            };
            assert_eq!(fs::read(entry.join("manifest")).expect("a manifest"), work.manifest.encode());
            let have = fs::read(entry.join("have")).expect("a bitmap");
            let bits = Bitmap::from_bytes(&have[44..have.len() - 32], work.manifest.piece_count()).expect("a bitmap");
            let data = fs::read(entry.join("data")).expect("data");
            for piece in bits.iter() {
                let index = work.manifest.index(piece).expect("a piece");
                let start = usize::try_from(work.manifest.offset_of(index)).expect("fits");
                let bytes = &data[start..start + work.manifest.length_of(index) as usize];
                assert!(work.manifest.verify_piece(index, bytes), "piece {piece} of {name} is stored as verified");
            }
        }
    }

    /// What is installed is what was published, and `current` points at such a tree.
    fn installs_are_sound(&self, truth: &Truth) {
        let trees: BTreeMap<String, &Work> = truth
            .works
            .values()
            .map(|work| (format!("{}-{}", work.release.id.version, work.digest().short()), work))
            .collect();
        let check = |path: &Path, name: &str, is_current: bool| {
            let Some(work) = trees.get(name) else { panic!("{} is installed", path.display()) };
            let found = files(path);
            // A tree that is being pruned is named by nothing any more, and soon gone.
            if found.is_empty() && !is_current {
                return;
            }
            assert_eq!(found.len(), 1, "{found:?}");
            let file = path.join(work.release.file_name.as_str());
            assert_eq!(Digest::of(&fs::read(&file).expect("readable")), work.digest(), "{}", file.display());
        };
        for release in files(&self.install_dir.join("releases")) {
            check(&release, &release.file_name().expect("a name").to_string_lossy(), false);
        }
        if let Ok(target) = fs::read_link(self.install_dir.join("current")) {
            let name = target.strip_prefix("releases").expect("current points below releases");
            check(&self.install_dir.join(&target), &name.to_string_lossy(), true);
        }
    }

    /// Asks it over the network for everything that is true and everything that is not.
    async fn serves_only(&self, truth: &Truth, lies: &[&Work]) {
        let auditor = Peer::start(&Set::empty(truth.repository), Honest).await;
        let victim = auditor.connect(&self.address).await;
        if let Ok(MetaResponse::File(head)) = auditor.ask(&victim, MetaFile::Head).await {
            let head = updraft_protocol::head::Head::decode(&head).expect("a head");
            for part in [&head.timestamp, &head.snapshot] {
                assert!(truth.files.contains(&Digest::of(part)), "a head that the publisher never signed is served");
            }
            for inline in &head.inlines {
                let (updraft_protocol::head::Inline::Role { bytes, .. }
                | updraft_protocol::head::Inline::Target { bytes, .. }) = inline;
                assert!(truth.files.contains(&Digest::of(bytes)), "a file never signed is served inside the head");
            }
        }
        for lie in lies {
            let file = MetaFile::Manifest { sha256: lie.release.manifest.sha256 };
            let answer = auditor.ask(&victim, file).await;
            assert_eq!(answer, Ok(MetaResponse::NotFound), "a manifest that nobody published is served");
            assert!(auditor.take(&victim, &lie.manifest).await.is_none(), "an artifact that nobody published is held");
        }
        for work in truth.works.values() {
            for (piece, bytes) in auditor.take(&victim, &work.manifest).await.unwrap_or_default() {
                let index = work.manifest.index(piece).expect("a piece");
                assert!(work.manifest.verify_piece(index, &bytes), "a wrong piece {piece} is served");
            }
        }
        drop(auditor);
    }

    /// Asks its HTTP face the same.
    async fn shows_only(&self, truth: &Truth, lies: &[&Work]) {
        for file in ["timestamp.json", "1.root.json", "2.root.json", "1.snapshot.json", "2.snapshot.json"] {
            let answer = self.get(&format!("/metadata/{file}")).await;
            let good = answer.status != 200 || truth.files.contains(&Digest::of(&answer.body));
            assert!(good, "/metadata/{file} was never signed by the publisher");
        }
        for (work, is_true) in truth.works.values().map(|work| (work, true)).chain(lies.iter().map(|lie| (*lie, false)))
        {
            let (directory, name) = work.release.path.rsplit_once('/').expect("a path");
            let answer = self.get(&format!("/targets/{directory}/{}.{name}", work.digest())).await;
            let good = answer.status == 404 || (is_true && Digest::of(&answer.body) == work.digest());
            assert!(good, "/targets/{} answers {} wrongly", work.release.path, answer.status);
        }
    }
}

/// The version of the head in force; 0 without one.
pub fn head_version(status: &StatusView) -> u64 {
    status.repositories[0].head.as_ref().map_or(0, |head| head.timestamp_version)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let temporary = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    entries.flatten().map(|entry| entry.path()).filter(|path| !temporary(path)).collect()
}

/// Bytes of memory that this process has in use; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    memory_of("self", "VmRSS:")
}

/// The most bytes of memory that a process ever had in use.
pub fn peak_bytes(pid: u32) -> u64 {
    memory_of(&pid.to_string(), "VmHWM:")
}

/// Files and sockets that this process has open; 0 where the system does not tell.
pub fn open_descriptors() -> usize {
    // The listing itself has one open.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

fn memory_of(process: &str, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
