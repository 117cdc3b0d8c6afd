//! What a subscription says about starting a release and proving that it works, as `updraft.toml` says it.
//!
//! Only this file decides what runs: nothing that a publisher signs, and no flag that a process list shows.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::engine::install::{Activation, Check, DEFAULT_MAX_ATTEMPTS, Health, Starter, Trial};

/// The value of `restart`, and of the unit that `health` asks about, where the node itself is what is installed.
const SELF: &str = "self";

/// The keys of `health`.
pub const HEALTH_KEYS: [&str; 8] =
    ["command", "http", "unit", "interval", "timeout", "successes", "failures", "probation"];

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;
/// A start that takes longer is not waited for.
const DEFAULT_ACTIVATE_TIMEOUT_MS: u64 = 60 * SECOND_MS;
const DEFAULT_INTERVAL_MS: u64 = 5 * SECOND_MS;
const DEFAULT_TIMEOUT_MS: u64 = 5 * SECOND_MS;
const DEFAULT_PROBATION_MS: u64 = 30 * SECOND_MS;
/// Of a node that installs itself: longer than `updraft launch` watches a start, so that its verdict comes
/// while the release is on probation yet.
const DEFAULT_SELF_PROBATION_MS: u64 = 60 * SECOND_MS;
const DEFAULT_SUCCESSES: u32 = 1;
const DEFAULT_FAILURES: u32 = 2;
/// Bounds how often a check runs: a misspelt unit must not make a busy loop.
const MIN_WAIT_MS: u64 = 100;
/// The longest probation: a week.
const MAX_PROBATION_MS: u64 = 168 * HOUR_MS;
/// Bounds rows of checks, and starts of one release.
const MAX_COUNT: u32 = 100;
/// Parts of one command, and bytes of each.
const MAX_PARTS: usize = 64;
const MAX_PART_BYTES: usize = 4096;

/// A length of time as text: `500ms`, `30s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct DurationText(pub(super) u64);

impl TryFrom<String> for DurationText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no length of time; write it as 30s, 5m, 1h or 500ms");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => SECOND_MS,
            "m" => 60 * SECOND_MS,
            "h" => HOUR_MS,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit_ms).map(Self).ok_or_else(wrong)
    }
}

/// A length of time as it is written.
fn duration_text(ms: u64) -> String {
    for (unit_ms, unit) in [(HOUR_MS, "h"), (60 * SECOND_MS, "m"), (SECOND_MS, "s")] {
        if ms > 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// The name of a systemd unit; `.service` where there is no kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct UnitText(String);

impl TryFrom<String> for UnitText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if text.is_empty() || text.len() > 255 || text.starts_with(['-', '.']) || !text.chars().all(allowed) {
            return Err(format!("'{text}' is no name of a systemd unit; write it as editor.service"));
        }
        Ok(Self(if text.contains('.') || text == SELF { text } else { format!("{text}.service") }))
    }
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(super) struct CommandText(Vec<String>);

impl TryFrom<Vec<String>> for CommandText {
    type Error = String;

    fn try_from(parts: Vec<String>) -> Result<Self, String> {
        let sound = |part: &String| part.len() <= MAX_PART_BYTES && !part.contains('\0');
        if parts.first().is_none_or(String::is_empty) || parts.len() > MAX_PARTS || !parts.iter().all(sound) {
            return Err(format!(
                "a command is a list of 1 to {MAX_PARTS} texts: [\"/usr/bin/program\", \"argument\"]; no shell reads it"
            ));
        }
        Ok(Self(parts))
    }
}

/// A URL that a health check gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct UrlText(String);

impl TryFrom<String> for UrlText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let sound = text.len() <= MAX_PART_BYTES
            && text.parse::<axum::http::Uri>().is_ok_and(|uri| {
                let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
                uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()) && plain
            });
        if sound {
            return Ok(Self(text));
        }
        Err(format!("'{text}' is no health check; write it as http://127.0.0.1:8080/health (no https, no password)"))
    }
}

/// `health = {...}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileHealth {
    command: Option<CommandText>,
    http: Option<UrlText>,
    unit: Option<UnitText>,
    interval: Option<DurationText>,
    timeout: Option<DurationText>,
    successes: Option<u32>,
    failures: Option<u32>,
    probation: Option<DurationText>,
}

/// What one `[[subscriptions]]` says about starting and proving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileTrial {
    pub(super) restart: Option<UnitText>,
    pub(super) activate: Option<CommandText>,
    pub(super) activate_timeout: Option<DurationText>,
    pub(super) health: Option<FileHealth>,
    pub(super) max_attempts: Option<u32>,
    pub(super) release_hooks: Option<bool>,
}

fn within(key: &str, value: u32, least: u32, most: u32) -> Result<u32, String> {
    if value < least || value > most {
        return Err(format!("{key} is {value}; it must be {least} to {most}"));
    }
    Ok(value)
}

fn time(key: &str, text: Option<DurationText>, default_ms: u64, least_ms: u64, most_ms: u64) -> Result<u64, String> {
    let value_ms = text.map_or(default_ms, |text| text.0);
    if value_ms < least_ms || value_ms > most_ms {
        let (least, most) = (duration_text(least_ms), duration_text(most_ms));
        return Err(format!("{key} is {}; it must be {least} to {most}", duration_text(value_ms)));
    }
    Ok(value_ms)
}

impl FileHealth {
    fn checked(self) -> Result<Health, String> {
        let check = match (self.command, self.http, self.unit) {
            (Some(command), None, None) => Check::Command(command.0),
            (None, Some(url), None) => Check::Http(url.0),
            (None, None, Some(unit)) if unit.0 == SELF => Check::Node,
            (None, None, Some(unit)) => Check::Unit(unit.0),
            _ => return Err("health asks one thing: give it either command, http or unit".to_owned()),
        };
        let health = Health {
            check,
            interval_ms: time("interval", self.interval, DEFAULT_INTERVAL_MS, MIN_WAIT_MS, HOUR_MS)?,
            timeout_ms: time("timeout", self.timeout, DEFAULT_TIMEOUT_MS, MIN_WAIT_MS, HOUR_MS)?,
            successes: within("successes", self.successes.unwrap_or(DEFAULT_SUCCESSES), 1, MAX_COUNT)?,
            failures: within("failures", self.failures.unwrap_or(DEFAULT_FAILURES), 1, MAX_COUNT)?,
            probation_ms: time("probation", self.probation, DEFAULT_PROBATION_MS, MIN_WAIT_MS, MAX_PROBATION_MS)?,
        };
        if health.interval_ms.saturating_mul(u64::from(health.successes)) > health.probation_ms {
            return Err(format!(
                "{} successes {} apart do not fit into a probation of {}; make it longer, or the interval shorter",
                health.successes,
                duration_text(health.interval_ms),
                duration_text(health.probation_ms)
            ));
        }
        Ok(health)
    }
}

impl FileTrial {
    /// What it means, defaults filled in.
    pub(super) fn checked(self) -> Result<Trial, String> {
        if self.release_hooks == Some(true) {
            return Err("release_hooks = true: hooks inside releases are not run by this version; \
                        say what runs here with restart, activate and health"
                .to_owned());
        }
        let starter = match (self.restart, self.activate) {
            (Some(_), Some(_)) => return Err("give either restart or activate, not both".to_owned()),
            (Some(unit), None) if unit.0 == SELF => Some(Starter::Node),
            (Some(unit), None) => Some(Starter::Unit(unit.0)),
            (None, Some(command)) => Some(Starter::Command(command.0)),
            (None, None) if self.activate_timeout.is_some() => {
                return Err("activate_timeout is of no use without restart or activate".to_owned());
            }
            (None, None) => None,
        };
        let timeout_ms =
            time("activate_timeout", self.activate_timeout, DEFAULT_ACTIVATE_TIMEOUT_MS, MIN_WAIT_MS, HOUR_MS)?;
        let health = match (self.health, &starter) {
            (Some(health), _) => Some(health.checked()?),
            // Whoever has systemd restart a unit wants it to stay up.
            (None, Some(Starter::Unit(unit))) => {
                Some(FileHealth { unit: Some(UnitText(unit.clone())), ..FileHealth::default() }.checked()?)
            }
            // Whoever keeps the node up must see it stay up.
            (None, Some(Starter::Node)) => {
                let probation = Some(DurationText(DEFAULT_SELF_PROBATION_MS));
                Some(
                    FileHealth { unit: Some(UnitText(SELF.to_owned())), probation, ..FileHealth::default() }
                        .checked()?,
                )
            }
            (None, _) => None,
        };
        let asks_itself = health.as_ref().is_some_and(|health| health.check == Check::Node);
        if asks_itself && starter != Some(Starter::Node) {
            return Err("health = { unit = \"self\" } asks whether this node runs, which proves nothing of another \
                        program; it goes with restart = \"self\""
                .to_owned());
        }
        Ok(Trial {
            activation: starter.map(|starter| Activation { starter, timeout_ms }),
            health,
            max_attempts: within("max_attempts", self.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS), 1, MAX_COUNT)?,
        })
    }
}

/// A trial as the keys of `[[subscriptions]]`; nothing where nothing was said.
pub fn keys(trial: &Trial) -> Map<String, Value> {
    let mut keys = Map::new();
    if let Some(activation) = &trial.activation {
        match &activation.starter {
            Starter::Unit(unit) => keys.insert("restart".to_owned(), json!(unit)),
            Starter::Node => keys.insert("restart".to_owned(), json!(SELF)),
            Starter::Command(command) => keys.insert("activate".to_owned(), json!(command)),
        };
        keys.insert("activate_timeout".to_owned(), json!(duration_text(activation.timeout_ms)));
    }
    if let Some(health) = &trial.health {
        let (key, asked) = match &health.check {
            Check::Command(command) => ("command", json!(command)),
            Check::Http(url) => ("http", json!(url)),
            Check::Unit(unit) => ("unit", json!(unit)),
            Check::Node => ("unit", json!(SELF)),
        };
        keys.insert(
            "health".to_owned(),
            json!({
                key: asked,
                "interval": duration_text(health.interval_ms),
                "timeout": duration_text(health.timeout_ms),
                "successes": health.successes,
                "failures": health.failures,
                "probation": duration_text(health.probation_ms),
            }),
        );
    }
    if trial.is_set() || trial.max_attempts != DEFAULT_MAX_ATTEMPTS {
        keys.insert("max_attempts".to_owned(), json!(trial.max_attempts));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::parse;

    fn problem(keys: &str) -> String {
        let text = format!("[[subscriptions]]\nproduct = \"editor\"\ndirectory = \"/opt/editor\"\n{keys}\n");
        parse(&text).expect_err(keys)[0].text.clone()
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (keys, part) in [
            ("restart = \"a\"\nactivate = [\"/a\"]", "either restart or activate"),
            ("restart = \"-a\"", "no name of a systemd unit"),
            ("restart = \"a b\"", "no name of a systemd unit"),
            ("activate = []", "a list of 1 to 64"),
            ("activate = \"/a\"", "sequence"),
            ("activate_timeout = \"5s\"", "of no use"),
            ("health = {}", "either command, http or unit"),
            ("health = { unit = \"a\", http = \"http://a/\" }", "either command, http or unit"),
            ("health = { http = \"https://a/\" }", "no https"),
            ("health = { http = \"http://user:secret@a/\" }", "no password"),
            ("health = { http = \"/health\" }", "no health check"),
            ("health = { unit = \"a\", interval = \"5\" }", "write it as 30s"),
            ("health = { unit = \"a\", interval = \"1ms\" }", "interval is 1ms; it must be 100ms to 1h"),
            ("health = { unit = \"a\", probation = \"8 days\" }", "write it as 30s"),
            ("health = { unit = \"a\", probation = \"200h\" }", "probation is 200h; it must be 100ms to 168h"),
            ("health = { unit = \"a\", successes = 0 }", "successes is 0"),
            ("health = { unit = \"a\", successes = 7 }", "7 successes 5s apart do not fit"),
            ("health = { unit = \"a\", probaton = \"5s\" }", "did you mean 'probation'"),
            ("restart = \"a\"\nhealth = { unit = \"self\" }", "goes with restart"),
            ("health = { unit = \"self\" }", "goes with restart"),
            ("max_attempts = 0", "max_attempts is 0"),
            ("release_hooks = true", "not run by this version"),
            ("restrat = \"a\"", "did you mean 'restart'"),
        ] {
            let found = problem(keys);
            assert!(found.contains(part), "{keys}: {found}");
        }
    }

    #[test]
    fn a_mirror_starts_nothing() {
        let found = parse("[[subscriptions]]\nproduct = \"editor\"\nrestart = \"a\"\n").expect_err("a mirror");
        assert!(found[0].text.contains("directory"), "{found:?}");
    }

    #[test]
    fn a_unit_that_is_restarted_is_watched_by_default() {
        let trial = FileTrial { restart: Some(UnitText("a.service".to_owned())), ..FileTrial::default() };
        let health = trial.checked().expect("valid").health.expect("a default");
        assert_eq!(health.check, Check::Unit("a.service".to_owned()));
        assert_eq!((health.probation_ms, health.interval_ms), (30_000, 5_000));
    }

    #[test]
    fn a_node_that_installs_itself_is_watched_for_longer_than_its_launcher_does() {
        let trial = FileTrial { restart: Some(UnitText(SELF.to_owned())), ..FileTrial::default() };
        let trial = trial.checked().expect("valid");
        let health = trial.health.as_ref().expect("a default");
        assert_eq!((&health.check, health.probation_ms), (&Check::Node, 60_000));
        let written = keys(&trial);
        assert_eq!((&written["restart"], &written["health"]["unit"]), (&json!("self"), &json!("self")));
        let said = FileTrial {
            restart: Some(UnitText(SELF.to_owned())),
            health: Some(FileHealth {
                unit: Some(UnitText(SELF.to_owned())),
                probation: Some(DurationText(300_000)),
                ..FileHealth::default()
            }),
            ..FileTrial::default()
        };
        let health = said.checked().expect("valid").health.expect("said");
        assert_eq!((health.check, health.probation_ms), (Check::Node, 300_000));
    }

    #[test]
    fn lengths_of_time_are_written_as_they_are_read() {
        for text in ["500ms", "30s", "90s", "5m", "1h", "36h"] {
            assert_eq!(duration_text(DurationText::try_from(text.to_owned()).expect("valid").0), text);
        }
        for bad in ["", "5", "s", "-5s", "5 s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(DurationText::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
