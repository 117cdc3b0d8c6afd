//! What a node is told to be: `<data-dir>/updraft.toml`, and the flags that override it.
//!
//! Every value knows where it came from, so that `updraft config show` can answer "why does it do
//! that". A key that nobody knows is an error, never ignored: a misspelt limit is a limit that does
//! not hold. Configuration decides what this machine does; it never weakens what a signature says.

pub mod address;
mod check;
pub mod file;
pub mod limits;
pub mod size;
mod subscription;
pub mod trial;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use updraft_protocol::names::Platform;

use crate::engine::limits::{Caps, Limits};
use crate::engine::maintenance::Maintenance;
use file::{FileConfig, Problem};
pub use subscription::{InvalidSubscription, Subscription};

/// The configuration file's name in the data directory.
pub const CONFIG_NAME: &str = "updraft.toml";

/// The port that nodes accept peers on, TCP and UDP (QUIC) alike.
pub const DEFAULT_PORT: u16 = 4880;

/// The port of a seed's HTTP face: the one that apps already ask for updates.
pub const DEFAULT_HTTP_PORT: u16 = 8888;

/// Sessions that a node keeps. Bounds its descriptors and per-peer memory.
pub const DEFAULT_MAX_PEERS: usize = 64;

/// Releases kept in an install directory: the running one, and the one to go back to.
pub const DEFAULT_KEEP_RELEASES: u32 = 2;

/// Seconds that a seed waits for the peers it knows before it signs first: a few dials and round trips.
pub const DEFAULT_ADOPT_WAIT_SECONDS: u32 = 10;

/// The longest that may be configured: a publisher must not wait for a misspelt number.
pub const MAX_ADOPT_WAIT_SECONDS: u32 = 600;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no place for a data directory.
    #[error("no data directory: neither XDG_DATA_HOME nor HOME is set; name one with --data-dir or UPDRAFT_DATA_DIR")]
    NoDataDirectory,
    /// The file cannot be read.
    #[error("cannot read {file}: {source}; check that this user may read it")]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that makes no sense.
    #[error("{}", list(file, problems))]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// What is wrong, each with its line.
        problems: Vec<Problem>,
    },
    /// Flags and file together make no sense.
    #[error("the configuration contradicts itself: {0}")]
    Contradiction(String),
}

fn list(file: &Path, problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|p| format!("{}:{}: {}", file.display(), p.line, p.text)).collect();
    lines.join("\n")
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns the repository: publishes, re-signs freshness, answers HTTP.
    Seed,
    /// Follows products and installs or mirrors them.
    Peer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seed => "seed",
            Self::Peer => "peer",
        })
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "seed" => Ok(Self::Seed),
            "peer" => Ok(Self::Peer),
            _ => Err("a role is 'seed' or 'peer'"),
        }
    }
}

/// A node's part in Kademlia: finding peers in fleets of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kad {
    /// None.
    #[default]
    Off,
    /// It looks others up.
    Client,
    /// It answers as well.
    Server,
}

impl FromStr for Kad {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            _ => Err("kad is 'off', 'client' or 'server'"),
        }
    }
}

/// Everything a node is told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's directory.
    pub data_dir: PathBuf,
    /// What it is for.
    pub role: Role,
    /// The join ticket; a node that has joined before needs none.
    pub ticket: Option<String>,
    /// Multiaddresses to accept peers on.
    pub listen: Vec<String>,
    /// Multiaddresses under which others reach this node, where it cannot know them itself.
    pub external: Vec<String>,
    /// The HTTP face; `None` opens no socket.
    pub http: Option<SocketAddr>,
    /// Metrics on an address of their own; `None` leaves them at the HTTP face.
    pub metrics: Option<SocketAddr>,
    /// Look for peers by multicast DNS; off opens no socket.
    pub mdns: bool,
    /// Its part in Kademlia.
    pub kad: Kad,
    /// What this node runs on.
    pub platform: Platform,
    /// Connections to keep at most; a few more are let in.
    pub max_peers: usize,
    /// What it follows.
    pub subscriptions: Vec<Subscription>,
    /// Releases to keep in an install directory, the running one included.
    pub keep_releases: u32,
    /// Bytes of artifacts beyond which a mirror keeps no old release but the one before the current.
    pub cache_limit_bytes: Option<u64>,
    /// Seconds that a seed waits at most for the peers it knows, before it signs first; 0: not at all.
    pub adopt_wait_seconds: u32,
    /// How fast it may send and receive, and when.
    pub limits: Limits,
    /// Percent of one copy of each artifact that may leave it; none: any number of copies.
    pub egress_budget_percent: Option<u32>,
    /// When installs may begin.
    pub maintenance: Maintenance,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody said anything else.
    Default,
    /// The configuration file.
    File,
    /// A flag, or the environment variable that stands for it.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Flag => "flag",
        })
    }
}

/// What flags say; `None` leaves the file and the defaults their say. A list replaces the file's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The data directory.
    pub data_dir: Option<PathBuf>,
    /// See [`NodeConfig::role`]. Contradicting the file is an error: a seed is not made a peer by accident.
    pub role: Option<Role>,
    /// See [`NodeConfig::ticket`].
    pub ticket: Option<String>,
    /// See [`NodeConfig::listen`].
    pub listen: Option<Vec<String>>,
    /// See [`NodeConfig::external`].
    pub external: Option<Vec<String>>,
    /// See [`NodeConfig::http`]; `Some(None)` is `off`.
    pub http: Option<Option<SocketAddr>>,
    /// See [`NodeConfig::metrics`]; `Some(None)` is `off`.
    pub metrics: Option<Option<SocketAddr>>,
    /// See [`NodeConfig::mdns`].
    pub mdns: Option<bool>,
    /// See [`NodeConfig::kad`].
    pub kad: Option<Kad>,
    /// See [`NodeConfig::platform`].
    pub platform: Option<Platform>,
    /// See [`NodeConfig::max_peers`].
    pub max_peers: Option<usize>,
    /// See [`NodeConfig::subscriptions`].
    pub subscriptions: Option<Vec<Subscription>>,
    /// See [`NodeConfig::keep_releases`].
    pub keep_releases: Option<u32>,
    /// See [`NodeConfig::cache_limit_bytes`]; `Some(None)` is `off`.
    pub cache_limit_bytes: Option<Option<u64>>,
    /// Bytes a second to others, always; `Some(None)` is `off`.
    pub upload_limit: Option<Option<u64>>,
    /// Bytes a second from others, always; `Some(None)` is `off`.
    pub download_limit: Option<Option<u64>>,
    /// Limits do not hold for peers of the local network.
    pub lan_exempt: Option<bool>,
    /// See [`NodeConfig::egress_budget_percent`]; `Some(None)` is `off`.
    pub egress_budget_percent: Option<Option<u32>>,
}

/// A configuration and where each value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    /// The values.
    pub config: NodeConfig,
    /// The configuration file, where there is one.
    pub file: Option<PathBuf>,
    sources: BTreeMap<&'static str, Source>,
    warnings: Vec<String>,
}

impl EffectiveConfig {
    /// What is allowed and may not be meant, for people, when the node starts.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the value of `key` came from.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).copied().unwrap_or(Source::Default)
    }
}

/// Reads the configuration file, if there is one, and puts flags over it and defaults under it.
pub fn load(overrides: Overrides) -> Result<EffectiveConfig, ConfigError> {
    let (data_dir, source) = match overrides.data_dir.clone() {
        Some(directory) => (directory, Source::Flag),
        None => (default_data_dir()?, Source::Default),
    };
    let path = data_dir.join(CONFIG_NAME);
    let file = file::read(&path)?;
    let found = file.is_some().then_some(path);
    let mut effective = merge(data_dir, file.unwrap_or_default(), overrides)?;
    effective.sources.insert("data_dir", source);
    effective.file = found;
    Ok(effective)
}

fn merge(data_dir: PathBuf, file: FileConfig, flags: Overrides) -> Result<EffectiveConfig, ConfigError> {
    let mut sources = BTreeMap::new();
    let warnings = dropped_trials(&file, &flags);
    if let (Some(flag), Some(role)) = (flags.role, file.role)
        && flag != role
    {
        return Err(ConfigError::Contradiction(format!(
            "{CONFIG_NAME} in {} says that this node is a {role}, the command that it is a {flag}; \
             run `updraft {role}`, or change the file, or use another --data-dir",
            data_dir.display()
        )));
    }
    let role = pick(&mut sources, "role", flags.role, file.role, Role::Peer);
    let http = match role {
        Role::Seed => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_HTTP_PORT)),
        Role::Peer => None,
    };
    let limits = pick_limits(&mut sources, &flags, &file)?;
    let maintenance = pick_maintenance(&mut sources, &file)?;
    let config = NodeConfig {
        role,
        ticket: pick(&mut sources, "ticket", flags.ticket.map(Some), file.ticket.map(|t| Some(t.0)), None),
        listen: pick(&mut sources, "listen", flags.listen, texts(file.listen), default_listen()),
        external: pick(&mut sources, "external", flags.external, texts(file.external), Vec::new()),
        http: pick(&mut sources, "http", flags.http, file.http.map(|s| s.0), http),
        metrics: pick(&mut sources, "metrics", flags.metrics, file.metrics.map(|s| s.0), None),
        mdns: pick(&mut sources, "mdns", flags.mdns, file.mdns, false),
        kad: pick(&mut sources, "kad", flags.kad, file.kad, Kad::Off),
        platform: pick(&mut sources, "platform", flags.platform, file.platform, this_platform()),
        max_peers: pick(&mut sources, "max_peers", flags.max_peers, file.max_peers, DEFAULT_MAX_PEERS),
        subscriptions: pick(
            &mut sources,
            "subscriptions",
            flags.subscriptions,
            file.subscriptions.map(|rows| rows.into_iter().map(Into::into).collect()),
            Vec::new(),
        ),
        keep_releases: pick(
            &mut sources,
            "keep_releases",
            flags.keep_releases,
            file.keep_releases,
            DEFAULT_KEEP_RELEASES,
        ),
        cache_limit_bytes: pick(
            &mut sources,
            "cache_limit",
            flags.cache_limit_bytes,
            file.cache_limit.map(|limit| limit.0),
            None,
        ),
        adopt_wait_seconds: pick(
            &mut sources,
            "adopt_wait_seconds",
            None,
            file.adopt_wait_seconds,
            DEFAULT_ADOPT_WAIT_SECONDS,
        ),
        limits,
        maintenance,
        egress_budget_percent: pick(
            &mut sources,
            "egress_budget",
            flags.egress_budget_percent,
            file.egress_budget.map(|budget| budget.0),
            None,
        ),
        data_dir,
    };
    check::check(&config).map_err(ConfigError::Contradiction)?;
    Ok(EffectiveConfig { config, file: None, sources, warnings })
}

/// A list of subscriptions on the command line drops what the file says about starting releases and proving
/// that they work: whoever wrote that may not expect it.
fn dropped_trials(file: &FileConfig, flags: &Overrides) -> Vec<String> {
    let replaced = file.subscriptions.iter().filter(|_| flags.subscriptions.is_some()).flatten();
    replaced
        .cloned()
        .map(Subscription::from)
        .filter(|subscription| subscription.trial.is_set())
        .map(|subscription| {
            format!(
                "--subscribe and --mirror replace every [[subscriptions]] of {CONFIG_NAME}: what it says about starting and \
                 checking {} is not in force; leave the flags out to have it",
                subscription.product
            )
        })
        .collect()
}

/// Rates, hours, and by whose clock.
fn pick_limits(
    sources: &mut BTreeMap<&'static str, Source>,
    flags: &Overrides,
    file: &FileConfig,
) -> Result<Limits, ConfigError> {
    let always = Caps {
        upload_bytes_per_second: pick(
            sources,
            "upload_limit",
            flags.upload_limit,
            file.upload_limit.map(|rate| rate.0),
            None,
        ),
        download_bytes_per_second: pick(
            sources,
            "download_limit",
            flags.download_limit,
            file.download_limit.map(|rate| rate.0),
            None,
        ),
    };
    let lan_exempt = pick(sources, "lan_exempt", flags.lan_exempt, file.lan_exempt, false);
    let windows = file.limit_windows.as_ref().map(|rows| rows.iter().map(|row| row.0.clone()).collect());
    let windows: Vec<_> = pick(sources, "limit_windows", None, windows, Vec::new());
    let named = file.limit_time_zone.as_ref().map(|zone| zone.0.clone());
    let name = pick(sources, "limit_time_zone", None, named, limits::LOCAL.to_owned());
    let zone = limits::look_up(&name).map_err(|error| ConfigError::Contradiction(error.to_string()))?;
    Ok(Limits { always, windows, zone, lan_exempt })
}

/// When installs may begin, and by whose clock.
fn pick_maintenance(
    sources: &mut BTreeMap<&'static str, Source>,
    file: &FileConfig,
) -> Result<Maintenance, ConfigError> {
    let windows = file.maintenance_windows.as_ref().map(|rows| rows.iter().map(|row| row.0.clone()).collect());
    let windows: Vec<_> = pick(sources, "maintenance_windows", None, windows, Vec::new());
    let named = file.maintenance_time_zone.as_ref().map(|zone| zone.0.clone());
    let name = pick(sources, "maintenance_time_zone", None, named, limits::LOCAL.to_owned());
    let zone = limits::look_up(&name).map_err(|error| ConfigError::Contradiction(error.to_string()))?;
    Ok(Maintenance { windows, zone })
}

fn pick<T>(
    sources: &mut BTreeMap<&'static str, Source>,
    key: &'static str,
    flag: Option<T>,
    file: Option<T>,
    default: T,
) -> T {
    let (value, source) = match (flag, file) {
        (Some(value), _) => (value, Source::Flag),
        (None, Some(value)) => (value, Source::File),
        (None, None) => (default, Source::Default),
    };
    sources.insert(key, source);
    value
}

fn texts<T: Into<String>>(values: Option<Vec<T>>) -> Option<Vec<String>> {
    values.map(|values| values.into_iter().map(Into::into).collect())
}

/// TCP and QUIC on [`DEFAULT_PORT`], IPv4 and IPv6.
fn default_listen() -> Vec<String> {
    ["/ip4/0.0.0.0", "/ip6/::"]
        .iter()
        .flat_map(|host| [format!("{host}/tcp/{DEFAULT_PORT}"), format!("{host}/udp/{DEFAULT_PORT}/quic-v1")])
        .collect()
}

/// What this program was built for: `linux-x86_64`.
pub fn this_platform() -> Platform {
    // Rust's names of systems and architectures are short and lower-case: this is always a name.
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH).parse().unwrap_or_else(|_| Platform::any())
}

/// `/var/lib/updraft` for root, else `updraft` in the user's data directory (XDG).
pub fn default_data_dir() -> Result<PathBuf, ConfigError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/updraft"));
    }
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("updraft"))
        .ok_or(ConfigError::NoDataDirectory)
}

#[cfg(test)]
mod tests;
