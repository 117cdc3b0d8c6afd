//! What a node is told to be: `<data-dir>/updraft.toml`, and the flags that override it.
//!
//! Every value knows where it came from, so that `updraft config show` can answer "why does it do
//! that". A key that nobody knows is an error, never ignored: a misspelt limit is a limit that does
//! not hold. Configuration decides what this machine does; it never weakens what a signature says.

pub mod address;
pub mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use updraft_protocol::names::{Channel, InvalidName, Platform, Product};

use file::{FileConfig, Problem};

/// The configuration file's name in the data directory.
pub const CONFIG_NAME: &str = "updraft.toml";

/// The port that nodes accept peers on, TCP and UDP (QUIC) alike.
pub const DEFAULT_PORT: u16 = 4880;

/// The port of a seed's HTTP face: the one that apps already ask for updates.
pub const DEFAULT_HTTP_PORT: u16 = 8888;

/// Sessions that a node keeps. Bounds its descriptors and per-peer memory.
pub const DEFAULT_MAX_PEERS: usize = 64;

/// The most sessions that may be configured.
const MAX_MAX_PEERS: usize = 4096;

/// Releases kept in an install directory: the running one, and the one to go back to.
pub const DEFAULT_KEEP_RELEASES: u32 = 2;

/// The most releases that may be kept in an install directory.
const MAX_KEEP_RELEASES: u32 = 1000;

/// Subscriptions of one node. Bounds the tables that each of them has a row in.
const MAX_SUBSCRIPTIONS: usize = 256;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no place for a data directory.
    #[error(
        "no data directory: neither XDG_DATA_HOME nor HOME is set; name one with --data-dir or UPDRAFT_DATA_DIR"
    )]
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
    let lines: Vec<_> = problems
        .iter()
        .map(|p| format!("{}:{}: {}", file.display(), p.line, p.text))
        .collect();
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

/// A product that this node follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which product.
    pub product: Product,
    /// Which of its channels.
    pub channel: Channel,
    /// Where it is installed, absolute; `None` mirrors it: hold and serve, install nothing.
    pub directory: Option<PathBuf>,
}

/// A text that names no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubscription {
    /// A name in it is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is no directory in it.
    #[error(
        "'{0}' names no directory; write PRODUCT[:CHANNEL]=DIR, or mirror it: --mirror PRODUCT[:CHANNEL]"
    )]
    NoDirectory(String),
    /// The directory is relative and there is no working directory to complete it.
    #[error("the directory '{0}' cannot be made absolute; write it from the root")]
    Relative(String),
}

impl Subscription {
    /// Parses `PRODUCT[:CHANNEL]=DIR`; a relative directory starts at the working directory.
    pub fn parse_install(text: &str) -> Result<Self, InvalidSubscription> {
        match text.split_once('=') {
            Some((names, directory)) if !directory.is_empty() => {
                let absolute = std::path::absolute(directory)
                    .map_err(|_| InvalidSubscription::Relative(directory.to_owned()))?;
                Ok(Self {
                    directory: Some(absolute),
                    ..Self::parse_mirror(names)?
                })
            }
            _ => Err(InvalidSubscription::NoDirectory(text.to_owned())),
        }
    }

    /// Parses `PRODUCT[:CHANNEL]`.
    pub fn parse_mirror(text: &str) -> Result<Self, InvalidSubscription> {
        let (product, channel) = match text.split_once(':') {
            Some((product, channel)) => (product, channel.parse()?),
            None => (text, Channel::stable()),
        };
        Ok(Self {
            product: product.parse()?,
            channel,
            directory: None,
        })
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.product, self.channel)?;
        match &self.directory {
            Some(directory) => write!(f, "={}", directory.display()),
            None => Ok(()),
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
    /// What this node runs on.
    pub platform: Platform,
    /// Sessions to keep at most.
    pub max_peers: usize,
    /// What it follows.
    pub subscriptions: Vec<Subscription>,
    /// Releases to keep in an install directory, the running one included.
    pub keep_releases: u32,
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
    /// See [`NodeConfig::platform`].
    pub platform: Option<Platform>,
    /// See [`NodeConfig::max_peers`].
    pub max_peers: Option<usize>,
    /// See [`NodeConfig::subscriptions`].
    pub subscriptions: Option<Vec<Subscription>>,
    /// See [`NodeConfig::keep_releases`].
    pub keep_releases: Option<u32>,
}

/// A configuration and where each value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    /// The values.
    pub config: NodeConfig,
    /// The configuration file, where there is one.
    pub file: Option<PathBuf>,
    sources: BTreeMap<&'static str, Source>,
}

impl EffectiveConfig {
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

fn merge(
    data_dir: PathBuf,
    file: FileConfig,
    flags: Overrides,
) -> Result<EffectiveConfig, ConfigError> {
    let mut sources = BTreeMap::new();
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
        Role::Seed => Some(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            DEFAULT_HTTP_PORT,
        )),
        Role::Peer => None,
    };
    let config = NodeConfig {
        role,
        ticket: pick(
            &mut sources,
            "ticket",
            flags.ticket.map(Some),
            file.ticket.map(|t| Some(t.0)),
            None,
        ),
        listen: pick(
            &mut sources,
            "listen",
            flags.listen,
            texts(file.listen),
            default_listen(),
        ),
        external: pick(
            &mut sources,
            "external",
            flags.external,
            texts(file.external),
            Vec::new(),
        ),
        http: pick(
            &mut sources,
            "http",
            flags.http,
            file.http.map(|s| s.0),
            http,
        ),
        metrics: pick(
            &mut sources,
            "metrics",
            flags.metrics,
            file.metrics.map(|s| s.0),
            None,
        ),
        mdns: pick(&mut sources, "mdns", flags.mdns, file.mdns, false),
        platform: pick(
            &mut sources,
            "platform",
            flags.platform,
            file.platform,
            this_platform(),
        ),
        max_peers: pick(
            &mut sources,
            "max_peers",
            flags.max_peers,
            file.max_peers,
            DEFAULT_MAX_PEERS,
        ),
        subscriptions: pick(
            &mut sources,
            "subscriptions",
            flags.subscriptions,
            file.subscriptions
                .map(|rows| rows.into_iter().map(Into::into).collect()),
            Vec::new(),
        ),
        keep_releases: pick(
            &mut sources,
            "keep_releases",
            flags.keep_releases,
            file.keep_releases,
            DEFAULT_KEEP_RELEASES,
        ),
        data_dir,
    };
    check(&config).map_err(ConfigError::Contradiction)?;
    Ok(EffectiveConfig {
        config,
        file: None,
        sources,
    })
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

/// What must hold between values, wherever they came from.
fn check(config: &NodeConfig) -> Result<(), String> {
    if !(1..=MAX_MAX_PEERS).contains(&config.max_peers) {
        return Err(format!(
            "max_peers is {}; it must be 1 to {MAX_MAX_PEERS}",
            config.max_peers
        ));
    }
    if !(DEFAULT_KEEP_RELEASES..=MAX_KEEP_RELEASES).contains(&config.keep_releases) {
        return Err(format!(
            "keep_releases is {}; it must be {DEFAULT_KEEP_RELEASES} (the running release and the one to go back to) to {MAX_KEEP_RELEASES}",
            config.keep_releases
        ));
    }
    if config.http.is_some()
        && config.http == config.metrics
        && config.http.is_some_and(|a| a.port() != 0)
    {
        return Err(
            "http and metrics have the same address; leave metrics out to have both there"
                .to_owned(),
        );
    }
    if config.subscriptions.len() > MAX_SUBSCRIPTIONS {
        return Err(format!(
            "there are {} subscriptions; at most {MAX_SUBSCRIPTIONS} are allowed",
            config.subscriptions.len()
        ));
    }
    for (index, subscription) in config.subscriptions.iter().enumerate() {
        check_subscription(
            subscription,
            &config.subscriptions[..index],
            &config.data_dir,
        )?;
    }
    Ok(())
}

fn check_subscription(
    new: &Subscription,
    earlier: &[Subscription],
    data_dir: &Path,
) -> Result<(), String> {
    if let Some(directory) = &new.directory {
        if !directory.is_absolute() {
            return Err(format!(
                "the install directory {} of {} is not absolute",
                directory.display(),
                new.product
            ));
        }
        if directory.starts_with(data_dir) || data_dir.starts_with(directory) {
            return Err(format!(
                "the install directory {} and the data directory {} lie in each other; keep them apart",
                directory.display(),
                data_dir.display()
            ));
        }
    }
    for old in earlier {
        if old.product == new.product
            && old.channel == new.channel
            && old.directory == new.directory
        {
            return Err(format!("{new} is subscribed to twice"));
        }
        let (Some(a), Some(b)) = (&old.directory, &new.directory) else {
            continue;
        };
        if a.starts_with(b) || b.starts_with(a) {
            return Err(format!(
                "the install directories of {old} and {new} lie in each other; each needs its own"
            ));
        }
    }
    Ok(())
}

/// TCP and QUIC on [`DEFAULT_PORT`], IPv4 and IPv6.
fn default_listen() -> Vec<String> {
    ["/ip4/0.0.0.0", "/ip6/::"]
        .iter()
        .flat_map(|host| {
            [
                format!("{host}/tcp/{DEFAULT_PORT}"),
                format!("{host}/udp/{DEFAULT_PORT}/quic-v1"),
            ]
        })
        .collect()
}

/// What this program was built for: `linux-x86_64`.
pub fn this_platform() -> Platform {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
        .parse()
        .expect("Rust's names of systems and architectures are short and lower-case")
}

/// `/var/lib/updraft` for root, else `updraft` in the user's data directory (XDG).
pub fn default_data_dir() -> Result<PathBuf, ConfigError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/updraft"));
    }
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("updraft"))
        .ok_or(ConfigError::NoDataDirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, flags: Overrides) -> Result<EffectiveConfig, ConfigError> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(CONFIG_NAME), text).expect("writes");
        load(Overrides {
            data_dir: Some(dir.path().to_owned()),
            ..flags
        })
    }

    fn without_file(flags: Overrides) -> EffectiveConfig {
        load(Overrides {
            data_dir: Some("/nonexistent/updraft".into()),
            ..flags
        })
        .expect("defaults are valid")
    }

    #[test]
    fn a_node_listens_on_both_families_and_both_transports_by_default() {
        assert_eq!(
            without_file(Overrides::default()).config.listen,
            [
                "/ip4/0.0.0.0/tcp/4880",
                "/ip4/0.0.0.0/udp/4880/quic-v1",
                "/ip6/::/tcp/4880",
                "/ip6/::/udp/4880/quic-v1"
            ]
        );
    }

    #[test]
    fn only_a_seed_has_an_http_face_by_default_and_it_is_loopback() {
        let seed = without_file(Overrides {
            role: Some(Role::Seed),
            ..Overrides::default()
        });
        assert_eq!(
            seed.config.http,
            Some("127.0.0.1:8888".parse().expect("an address"))
        );
        assert_eq!(without_file(Overrides::default()).config.http, None);
    }

    #[test]
    fn off_is_off() {
        let flags = Overrides {
            role: Some(Role::Seed),
            http: Some(None),
            ..Overrides::default()
        };
        assert_eq!(without_file(flags).config.http, None);
        let seed =
            with_file("role = \"seed\"\nhttp = \"off\"\n", Overrides::default()).expect("valid");
        assert_eq!(seed.config.http, None);
        assert_eq!(seed.source("http"), Source::File);
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_defaults() {
        let text = "max_peers = 10\nmdns = true\n";
        let flags = Overrides {
            max_peers: Some(20),
            ..Overrides::default()
        };
        let effective = with_file(text, flags).expect("valid");
        assert_eq!(
            (effective.config.max_peers, effective.source("max_peers")),
            (20, Source::Flag)
        );
        assert_eq!(
            (effective.config.mdns, effective.source("mdns")),
            (true, Source::File)
        );
        assert_eq!(
            (
                effective.config.keep_releases,
                effective.source("keep_releases")
            ),
            (2, Source::Default)
        );
        assert_eq!(effective.source("data_dir"), Source::Flag);
    }

    #[test]
    fn a_seeds_directory_is_not_run_as_a_peer_by_accident() {
        let flags = Overrides {
            role: Some(Role::Peer),
            ..Overrides::default()
        };
        let error = with_file("role = \"seed\"\n", flags).expect_err("contradiction");
        assert!(error.to_string().contains("run `updraft seed`"), "{error}");
    }

    #[test]
    fn subscriptions_parse_with_and_without_channel() {
        let install = Subscription::parse_install("editor:beta=/opt/editor").expect("valid");
        assert_eq!(install.to_string(), "editor:beta=/opt/editor");
        let mirror = Subscription::parse_mirror("editor").expect("valid");
        assert_eq!(mirror.to_string(), "editor:stable");
        for bad in ["editor", "editor=", "=/opt", "Editor=/opt", "editor:=/opt"] {
            assert!(Subscription::parse_install(bad).is_err(), "{bad}");
        }
        let relative = Subscription::parse_install("editor=here").expect("valid");
        assert!(relative.directory.expect("a directory").is_absolute());
    }

    #[test]
    fn install_directories_keep_apart() {
        let with = |specs: &[&str]| {
            let subscriptions = specs
                .iter()
                .map(|s| Subscription::parse_install(s).expect("valid"))
                .collect();
            load(Overrides {
                data_dir: Some("/var/lib/updraft".into()),
                subscriptions: Some(subscriptions),
                ..Overrides::default()
            })
        };
        assert!(with(&["a=/opt/a", "b=/opt/b"]).is_ok());
        for bad in [
            &["a=/opt/a", "a=/opt/a"][..],
            &["a=/opt/a", "b=/opt/a"],
            &["a=/opt/a", "b=/opt/a/b"],
            &["a=/var/lib/updraft/a"],
            &["a=/var"],
        ] {
            assert!(
                matches!(with(bad), Err(ConfigError::Contradiction(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in [
            "max_peers = 0",
            "max_peers = 5000",
            "keep_releases = 1",
            "keep_releases = 5000",
        ] {
            assert!(
                matches!(
                    with_file(text, Overrides::default()),
                    Err(ConfigError::Contradiction(_))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn this_platform_is_a_valid_name() {
        assert!(this_platform().as_str().contains('-'));
    }
}
