//! `updraft.toml`: read, bounded, and every complaint with its line.

use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use updraft_protocol::names::Platform;
use updraft_protocol::ticket::{Ticket, TicketError};

use super::address::{InvalidAddress, check_dialable, check_listen, parse_switch};
use super::limits::{Budget, FileHours, FileWindow, RateText, ZoneText};
use super::size::SizeLimit;
use super::subscription::FileSubscription;
use super::trial::HEALTH_KEYS;
use super::{ConfigError, Kad, Role};

/// Bytes of the configuration file. Bounds what a wrong path (a disk image, a device) can cost.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The keys of the file, in the order in which `config show` lists them.
pub const KEYS: [&str; 22] = [
    "role",
    "ticket",
    "listen",
    "external",
    "http",
    "metrics",
    "mdns",
    "kad",
    "platform",
    "max_peers",
    "keep_releases",
    "cache_limit",
    "adopt_wait_seconds",
    "upload_limit",
    "download_limit",
    "lan_exempt",
    "limit_time_zone",
    "egress_budget",
    "limit_windows",
    "maintenance_time_zone",
    "maintenance_windows",
    "subscriptions",
];

/// The keys of one `[[subscriptions]]`.
pub const SUBSCRIPTION_KEYS: [&str; 9] = [
    "product",
    "channel",
    "directory",
    "restart",
    "activate",
    "activate_timeout",
    "health",
    "max_attempts",
    "release_hooks",
];

/// The keys of one `[[limit_windows]]`.
pub const WINDOW_KEYS: [&str; 5] = ["days", "from", "to", "upload", "download"];

/// The keys of one `[[maintenance_windows]]`.
pub const MAINTENANCE_KEYS: [&str; 3] = ["days", "from", "to"];

/// How alike a key and a known one must be before the known one is proposed (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

/// The file as it stands; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    pub(super) role: Option<Role>,
    pub(super) ticket: Option<TicketText>,
    pub(super) listen: Option<Vec<ListenText>>,
    pub(super) external: Option<Vec<DialText>>,
    pub(super) http: Option<Switch>,
    pub(super) metrics: Option<Switch>,
    pub(super) mdns: Option<bool>,
    pub(super) kad: Option<Kad>,
    pub(super) platform: Option<Platform>,
    pub(super) max_peers: Option<usize>,
    pub(super) keep_releases: Option<u32>,
    pub(super) cache_limit: Option<SizeLimit>,
    pub(super) adopt_wait_seconds: Option<u32>,
    pub(super) upload_limit: Option<RateText>,
    pub(super) download_limit: Option<RateText>,
    pub(super) lan_exempt: Option<bool>,
    pub(super) limit_time_zone: Option<ZoneText>,
    pub(super) egress_budget: Option<Budget>,
    pub(super) limit_windows: Option<Vec<FileWindow>>,
    pub(super) maintenance_time_zone: Option<ZoneText>,
    pub(super) maintenance_windows: Option<Vec<FileHours>>,
    pub(super) subscriptions: Option<Vec<FileSubscription>>,
}

/// A checked address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ListenText(String);

impl TryFrom<String> for ListenText {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        check_listen(&text).map(Self)
    }
}

impl From<ListenText> for String {
    fn from(text: ListenText) -> Self {
        text.0
    }
}

/// A checked address to be dialled at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct DialText(String);

impl TryFrom<String> for DialText {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        check_dialable(&text).map(Self)
    }
}

impl From<DialText> for String {
    fn from(text: DialText) -> Self {
        text.0
    }
}

/// `ADDRESS:PORT` or `off`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Switch(pub(super) Option<SocketAddr>);

impl TryFrom<String> for Switch {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        parse_switch(&text).map(Self)
    }
}

/// A checked join ticket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TicketText(pub(super) String);

impl TryFrom<String> for TicketText {
    type Error = TicketError;

    fn try_from(text: String) -> Result<Self, TicketError> {
        text.parse::<Ticket>().map(|ticket| Self(ticket.to_string()))
    }
}

/// Reads the file; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<FileConfig>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(std::io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes"))));
    }
    parse(&text).map(Some).map_err(|problems| ConfigError::Invalid { file: path.to_owned(), problems })
}

/// Parses the file's text. All unknown keys are reported at once, else the first other problem.
pub fn parse(text: &str) -> Result<FileConfig, Vec<Problem>> {
    let complain = |error: &toml::de::Error| {
        vec![Problem { line: line_of(text, error.span()), text: error.message().trim().to_owned() }]
    };
    let table = DeTable::parse(text).map_err(|error| complain(&error))?;
    let unknown = unknown_keys(text, table.get_ref());
    if !unknown.is_empty() {
        return Err(unknown);
    }
    toml::from_str(text).map_err(|error| complain(&error))
}

fn unknown_keys(text: &str, table: &DeTable<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut check = |table: &DeTable<'_>, known: &[&str], place: &str| {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let line = line_of(text, Some(key.span()));
                problems.push(Problem { line, text: unknown_key(name, known, place) });
            }
        }
    };
    check(table, &KEYS, "");
    let lists: [(&str, &[&str], &str); 3] = [
        ("subscriptions", &SUBSCRIPTION_KEYS, " in [[subscriptions]]"),
        ("limit_windows", &WINDOW_KEYS, " in [[limit_windows]]"),
        ("maintenance_windows", &MAINTENANCE_KEYS, " in [[maintenance_windows]]"),
    ];
    for (list, known, place) in lists {
        let rows = table.get(list).and_then(|rows| rows.get_ref().as_array());
        for row in rows.into_iter().flatten().filter_map(|row| DeValue::as_table(row.get_ref())) {
            check(row, known, place);
            if let Some(health) = row.get("health").and_then(|health| health.get_ref().as_table()) {
                check(health, &HEALTH_KEYS, " in health");
            }
        }
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

fn unknown_key(name: &str, known: &[&str], place: &str) -> String {
    let shown: String = name.chars().take(80).collect();
    match nearest(name, known) {
        Some(near) => format!("unknown key '{shown}'{place}; did you mean '{near}'?"),
        None => format!("unknown key '{shown}'{place}; the keys are: {}", known.join(", ")),
    }
}

/// The known word that is most like `word`, where one is.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word: String = word.chars().take(80).collect();
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    text.get(..start).unwrap_or_default().matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Subscription;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        parse(text).expect_err("invalid").into_iter().map(|p| (p.line, p.text)).collect()
    }

    #[test]
    fn a_file_with_every_key_is_read() {
        let file = parse(
            r#"
            role = "peer"
            listen = ["/ip4/0.0.0.0/tcp/1"]
            external = ["/dns4/example.org/tcp/1"]
            http = "127.0.0.1:1"
            metrics = "off"
            mdns = true
            platform = "linux-x86_64"
            max_peers = 5
            keep_releases = 3
            cache_limit = "20GiB"
            adopt_wait_seconds = 20
            upload_limit = "5MiB/s"
            download_limit = "off"
            lan_exempt = true
            limit_time_zone = "+01:00"
            egress_budget = 1.2

            [[limit_windows]]
            days = "mon-fri"
            from = "08:00"
            to = "18:00"
            upload = "1MiB/s"
            download = "0"

            [[maintenance_windows]]
            days = "sun"
            from = "02:00"
            to = "04:00"

            [[subscriptions]]
            product = "editor"
            channel = "beta"
            directory = "/opt/editor"

            [[subscriptions]]
            product = "kiosk"
            "#,
        )
        .expect("valid");
        let rows: Vec<_> =
            file.subscriptions.expect("rows").into_iter().map(|r| Subscription::from(r).to_string()).collect();
        assert_eq!(rows, ["editor:beta=/opt/editor", "kiosk:stable"]);
        assert_eq!(file.metrics, Some(Switch(None)));
        assert_eq!(file.keep_releases, Some(3));
        assert_eq!(file.cache_limit, Some(SizeLimit(Some(20 << 30))));
        assert_eq!(file.adopt_wait_seconds, Some(20));
        assert_eq!((file.upload_limit, file.download_limit), (Some(RateText(Some(5 << 20))), Some(RateText(None))));
        assert_eq!((file.lan_exempt, file.egress_budget), (Some(true), Some(Budget(Some(120)))));
        let windows: Vec<_> = file.limit_windows.expect("windows").into_iter().map(|w| w.0.to_string()).collect();
        assert_eq!(windows, ["window 08:00-18:00 mon-fri"]);
        let windows: Vec<_> = file.maintenance_windows.expect("windows").into_iter().map(|w| w.0.to_string()).collect();
        assert_eq!(windows, ["window 02:00-04:00 sun"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_the_line() {
        let text = "mdns = false\nlisen = []\n\n[[subscriptions]]\nproduct = \"a\"\ndirectry = \"/a\"\n";
        assert_eq!(
            problems(text),
            [
                (2, "unknown key 'lisen'; did you mean 'listen'?".to_owned()),
                (6, "unknown key 'directry' in [[subscriptions]]; did you mean 'directory'?".to_owned()),
            ]
        );
    }

    #[test]
    fn spellings_of_other_tools_lead_to_ours() {
        for (word, key) in [
            ("max-peers", "max_peers"),
            ("maxPeers", "max_peers"),
            ("Role", "role"),
            ("subscription", "subscriptions"),
            ("platfrom", "platform"),
            ("upload-limit", "upload_limit"),
            ("limit_window", "limit_windows"),
        ] {
            assert_eq!(nearest(word, &KEYS), Some(key), "{word}");
        }
    }

    #[test]
    fn a_key_like_no_other_gets_the_list() {
        let found = problems("zzz = 1");
        assert!(found[0].1.contains("the keys are: role, ticket"), "{found:?}");
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_line_and_reason() {
        for (text, line, part) in [
            ("mdns = 1", 1, "boolean"),
            ("\nhttp = \"8888\"", 2, "neither ADDRESS:PORT"),
            ("\n\nlisten = [\"/ip4/1.2.3/tcp/1\"]", 3, "no IPv4 address"),
            ("ticket = \"hello\"", 1, "not a join ticket"),
            ("role = \"king\"", 1, "seed"),
            ("[[subscriptions]]\nproduct = \"Big\"", 2, "only a-z"),
            ("max_peers = -1", 1, "-1"),
            ("\nupload_limit = \"500\"", 2, "write it as 500KiB/s"),
            ("upload_limit = 500", 1, "string"),
            ("limit_time_zone = \"Nowhere\"", 1, "no time zone"),
            ("egress_budget = 0.5", 1, "'0.5' is no egress budget"),
            ("egress_budget = 0", 1, "'0' is no egress budget"),
            ("egress_budget = true", 1, "number of copies"),
            ("\n[[limit_windows]]\nfrom = \"08:00\"\nto = \"18:00\"", 2, "08:00-18:00 daily limits nothing"),
            ("[[limit_windows]]\nfrom = \"8\"\nto = \"18:00\"\nupload = \"0\"", 1, "'8' is no time of the day"),
            ("[[limit_windows]]\nfrom = \"08:00\"\nto = \"18:00\"\nuplaod = \"0\"", 4, "did you mean 'upload'"),
            ("a = ", 1, ""),
            ("mdns = true\nmdns = false", 2, "duplicate"),
        ] {
            let found = problems(text);
            assert_eq!(found[0].0, line, "{text}: {found:?}");
            assert!(found[0].1.contains(part), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("updraft.toml");
        std::fs::write(&path, "#".repeat(300 * 1024)).expect("writes");
        assert!(matches!(read(&path), Err(ConfigError::Unreadable { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([a-z_]{0,12}( = )?[\\[\\]\"{}=,.0-9 é\n-]{0,6}){0,12}") {
            let _ = parse(&text);
        }
    }
}
