//! Real nodes in one process: a seed and peers on loopback, each with its own temporary directory.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use updraft::config::{NodeConfig, Role, Subscription};
use updraft::control::Call;
use updraft::control::messages::{ErrorBody, Line, PublishRequest, Request, Response};
use updraft::control::reply;
use updraft::control::views::{StatusView, SubscriptionState};
use updraft::engine::install::Trial;
use updraft::runtime::open::{OpenError, Opened};
use updraft::runtime::{RunningNode, StartError, start};
use updraft::store::StoreError;
use updraft_protocol::names::{Channel, Platform, Product};

/// The longest that anything in a test may take.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A node that a test started, and its directory.
#[derive(Debug)]
pub struct TestNode {
    /// The node.
    pub node: RunningNode,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where it installs `app`.
    pub install_dir: PathBuf,
}

/// A seed and its peers.
#[derive(Debug)]
pub struct Cluster {
    scratch: TempDir,
    /// The seed, until it is stopped.
    pub seed: Option<TestNode>,
    /// The peers.
    pub peers: Vec<TestNode>,
    /// The join ticket.
    pub ticket: String,
}

/// The product that every test publishes.
///
/// # Panics
/// Never: the name is valid.
pub fn product() -> Product {
    "app".parse().expect("a valid name")
}

/// A subscription to that product.
pub fn subscription(directory: Option<PathBuf>) -> Subscription {
    Subscription { product: product(), channel: Channel::stable(), directory, trial: Trial::default() }
}

/// What a node of a test is told: everything on loopback, nothing that reaches farther.
pub fn config(data_dir: &Path, role: Role, ticket: Option<String>) -> NodeConfig {
    NodeConfig {
        data_dir: data_dir.to_owned(),
        role,
        ticket,
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        external: Vec::new(),
        http: (role == Role::Seed).then(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        metrics: None,
        mdns: false,
        kad: updraft::config::Kad::Off,
        platform: Platform::any(),
        max_peers: 64,
        subscriptions: Vec::new(),
        keep_releases: 2,
        cache_limit_bytes: None,
        adopt_wait_seconds: 10,
        limits: updraft::engine::limits::Limits::default(),
        egress_budget_percent: None,
        maintenance: updraft::engine::maintenance::Maintenance::default(),
    }
}

/// Asks a node as the command line would, without the socket.
///
/// # Errors
/// What the node answers.
///
/// # Panics
/// Where the node does not answer within the deadline.
pub async fn ask(node: &RunningNode, request: Request) -> Result<Response, ErrorBody> {
    let (sender, mut receiver) = reply::channel();
    node.calls().send(Call { request, reply: sender }).await.expect("the node runs");
    let answer = async {
        loop {
            match receiver.next().await {
                Some(Line::Result(response)) => return Ok(response),
                Some(Line::Error(body)) => return Err(body),
                Some(_) => {}
                None => panic!("the node dropped the call"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, answer).await.expect("an answer within the deadline")
}

/// A node's status.
///
/// # Panics
/// Where the node answers with something else.
pub async fn status(node: &RunningNode) -> StatusView {
    match ask(node, Request::Status { explain: true }).await {
        Ok(Response::Status(status)) => *status,
        other => panic!("not a status: {other:?}"),
    }
}

/// Waits until `holds`, and panics with the node's status where it takes too long.
///
/// # Panics
/// Where it takes longer than the deadline.
pub async fn until(node: &RunningNode, what: &str, holds: impl Fn(&StatusView) -> bool) -> StatusView {
    let started = std::time::Instant::now();
    loop {
        let status = status(node).await;
        if holds(&status) {
            return status;
        }
        assert!(started.elapsed() < DEADLINE, "{what} did not happen: {status:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a node has installed `version`.
pub fn has_installed(status: &StatusView, version: &str) -> bool {
    status.subscriptions.iter().any(|subscription| {
        subscription.installed.as_deref() == Some(version) && subscription.state == SubscriptionState::Committed
    })
}

async fn ticket(node: &RunningNode) -> String {
    match ask(node, Request::Ticket { addresses: Vec::new() }).await {
        Ok(Response::Ticket(view)) => view.ticket,
        other => panic!("no ticket: {other:?}"),
    }
}

impl Cluster {
    /// A seed with the product `app`, and peers that install it.
    ///
    /// # Panics
    /// Where a node does not start.
    pub async fn start(peers: usize) -> Self {
        let mut cluster = Self::start_seed(|_| {}).await;
        for _ in 0..peers {
            cluster.add_peer().await;
        }
        cluster
    }

    /// A seed with the product `app` and a configuration of one's choice.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_seed(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let data_dir = scratch.path().join("seed");
        drop(Opened::create(&data_dir, &[product()]).expect("a new repository"));
        let mut config = config(&data_dir, Role::Seed, None);
        change(&mut config);
        let mut node = start(config).await.expect("the seed starts");
        node.listening().await;
        let ticket = ticket(&node).await;
        let seed = TestNode { node, install_dir: data_dir.join("none"), data_dir };
        Self { scratch, seed: Some(seed), peers: Vec::new(), ticket }
    }

    /// The seed.
    ///
    /// # Panics
    /// Where it was stopped.
    pub fn seed(&self) -> &RunningNode {
        &self.seed.as_ref().expect("the seed runs").node
    }

    /// Starts a seed on a directory that was one's before; the cluster's ticket says where it is now.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_seed_in(&mut self, data_dir: PathBuf) {
        // A node that stopped in this process lets go of its directory once its last thread has ended.
        let started = std::time::Instant::now();
        let mut node = loop {
            match start(config(&data_dir, Role::Seed, None)).await {
                Ok(node) => break node,
                Err(StartError::Open(OpenError::Store(StoreError::Locked { .. }))) if started.elapsed() < DEADLINE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("the seed does not start: {error}"),
            }
        };
        node.listening().await;
        self.ticket = ticket(&node).await;
        self.seed = Some(TestNode { node, install_dir: data_dir.join("none"), data_dir });
    }

    /// Stops the seed for good.
    pub async fn stop_seed(&mut self) {
        if let Some(seed) = self.seed.take() {
            seed.node.stop();
            seed.node.stopped().await;
        }
    }

    /// The seed's HTTP face.
    ///
    /// # Panics
    /// Never: seeds of a cluster have one.
    pub fn http(&self) -> SocketAddr {
        self.seed().http.expect("seeds have an HTTP face")
    }

    /// Adds a peer that installs `app`.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn add_peer(&mut self) {
        let data_dir = self.scratch.path().join(format!("peer-{}", self.peers.len()));
        self.start_peer_in(data_dir).await;
    }

    /// Adds a peer that holds `app` and serves it, and installs nothing.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn add_mirror(&mut self) {
        self.add_mirrors(1, |_| {}).await;
    }

    /// Adds such peers, with a configuration of one's choice, and starts them all at once.
    ///
    /// # Panics
    /// Where one of them does not start.
    pub async fn add_mirrors(&mut self, count: usize, change: impl Fn(&mut NodeConfig)) {
        let first = self.peers.len();
        let mut starting = Vec::new();
        for number in first..first + count {
            let data_dir = self.scratch.path().join(format!("peer-{number}"));
            let mut config = config(&data_dir, Role::Peer, Some(self.ticket.clone()));
            config.subscriptions = vec![subscription(None)];
            change(&mut config);
            starting.push((tokio::spawn(start(config)), data_dir));
        }
        for (node, data_dir) in starting {
            let mut node = node.await.expect("no panic").expect("the mirror starts");
            node.listening().await;
            self.peers.push(TestNode { node, install_dir: data_dir.join("none"), data_dir });
        }
    }

    /// Starts a peer on a directory that may have been used before.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_peer_in(&mut self, data_dir: PathBuf) {
        let install_dir = data_dir.join("app");
        let mut config = config(&data_dir, Role::Peer, Some(self.ticket.clone()));
        config.subscriptions = vec![subscription(Some(install_dir.clone()))];
        let node = start(config).await.expect("the peer starts");
        self.peers.push(TestNode { node, data_dir, install_dir });
    }

    /// Publishes a directory or file.
    ///
    /// # Errors
    /// What the seed answers.
    ///
    /// # Panics
    /// On a version that is no version.
    pub async fn publish(&self, path: &Path, version: &str) -> Result<Response, ErrorBody> {
        let request = Request::Publish(PublishRequest {
            path: path.to_owned(),
            product: product(),
            version: version.parse().expect("a version"),
            channel: Channel::stable(),
            also_on: Vec::new(),
            rollout: None,
            platform: Platform::any(),
            min_from: None,
            notes: None,
            critical: false,
            dry_run: false,
            level: 3,
        });
        ask(self.seed(), request).await
    }

    /// A directory for a test's own files.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Stops every node.
    pub async fn stop(self) {
        for peer in self.peers {
            peer.node.stop();
            peer.node.stopped().await;
        }
        if let Some(seed) = self.seed {
            seed.node.stop();
            seed.node.stopped().await;
        }
    }
}

/// Everything below a directory: relative path to kind, mode and content, for comparing trees.
///
/// # Panics
/// Where the tree cannot be read.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            let metadata = fs::symlink_metadata(&path).expect("readable");
            let relative = path.strip_prefix(root).expect("below the root").to_owned();
            let executable = if metadata.permissions().mode() & 0o111 == 0 { "-" } else { "x" };
            let description = if metadata.is_symlink() {
                format!("link {}", fs::read_link(&path).expect("readable").display())
            } else if metadata.is_dir() {
                open.push(path);
                "directory".to_owned()
            } else {
                let bytes = fs::read(&path).expect("readable");
                format!("file {executable} {}", updraft_protocol::digest::Digest::of(&bytes))
            };
            found.insert(relative, description);
        }
    }
    found
}
