//! `updraft config`: what the node would be told, and who says so.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::node_flags::NodeFlags;
use super::{CommandError, ExitCode, GlobalArgs, Output};
use crate::config::limits::budget_text;
use crate::config::size::SizeLimit;
use crate::config::{self, CONFIG_NAME, EffectiveConfig, Overrides, Role, Source, trial};
use crate::control::views::Schema;
use crate::engine::limits::{Window, rate_text};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every value and where it came from: default, file or flag
    Show(Box<ShowArgs>),
    /// Check the configuration file; exits with 2 where it is wrong
    Check,
}

/// As typed.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// As which role [default: the file's, else peer]
    #[arg(long, value_name = "seed|peer")]
    pub role: Option<Role>,
    /// Preview these flags.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// `updraft config show --json`.
#[derive(Debug, Serialize)]
struct ConfigView {
    schema: Schema,
    file: Option<PathBuf>,
    values: Vec<ConfigValue>,
}

#[derive(Debug, Serialize)]
struct ConfigValue {
    key: &'static str,
    value: Value,
    source: Source,
}

/// Shows or checks.
pub fn run(command: ConfigCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    match command {
        ConfigCommand::Show(args) => {
            let args = *args;
            let overrides = Overrides { role: args.role, ..args.node.overrides(global)? };
            let view = view(&config::load(overrides)?);
            output.answer(&view, |view, _| human(view))?;
        }
        ConfigCommand::Check => {
            let effective = config::load(NodeFlags::default().overrides(global)?)?;
            let text = match &effective.file {
                Some(file) => format!("{} is valid", file.display()),
                None => {
                    format!("there is no {}; the defaults hold", effective.config.data_dir.join(CONFIG_NAME).display())
                }
            };
            if output.is_json() {
                output.json(&json!({ "schema": 1, "file": effective.file, "valid": true }))?;
            } else {
                output.line(text)?;
            }
        }
    }
    Ok(ExitCode::Ok)
}

fn view(effective: &EffectiveConfig) -> ConfigView {
    let config = &effective.config;
    let path = |path: &Path| path.display().to_string();
    let switch = |address: Option<std::net::SocketAddr>| address.map_or_else(|| "off".to_owned(), |a| a.to_string());
    let subscriptions: Vec<_> = config
        .subscriptions
        .iter()
        .map(|s| {
            let mut row = trial::keys(&s.trial);
            row.insert("product".to_owned(), json!(s.product));
            row.insert("channel".to_owned(), json!(s.channel));
            row.insert("directory".to_owned(), json!(s.directory.as_deref().map(path)));
            Value::Object(row)
        })
        .collect();
    let limits = &config.limits;
    let windows: Vec<_> = limits.windows.iter().map(limit_window).collect();
    let maintenance: Vec<_> = config.maintenance.windows.iter().map(maintenance_window).collect();
    let budget = match config.egress_budget_percent {
        Some(percent) => json!(f64::from(percent) / 100.0),
        None => json!(budget_text(None)),
    };
    let values = [
        ("data_dir", json!(path(&config.data_dir))),
        ("role", json!(config.role)),
        ("ticket", json!(config.ticket)),
        ("listen", json!(config.listen)),
        ("external", json!(config.external)),
        ("http", json!(switch(config.http))),
        ("metrics", json!(switch(config.metrics))),
        ("mdns", json!(config.mdns)),
        ("kad", json!(config.kad)),
        ("platform", json!(config.platform)),
        ("max_peers", json!(config.max_peers)),
        ("keep_releases", json!(config.keep_releases)),
        ("cache_limit", json!(SizeLimit(config.cache_limit_bytes).to_string())),
        ("adopt_wait_seconds", json!(config.adopt_wait_seconds)),
        ("upload_limit", json!(rate_text(limits.always.upload_bytes_per_second))),
        ("download_limit", json!(rate_text(limits.always.download_bytes_per_second))),
        ("lan_exempt", json!(limits.lan_exempt)),
        ("limit_time_zone", json!(limits.zone.name())),
        ("egress_budget", budget),
        ("limit_windows", json!(windows)),
        ("maintenance_time_zone", json!(config.maintenance.zone.name())),
        ("maintenance_windows", json!(maintenance)),
        ("subscriptions", json!(subscriptions)),
    ];
    ConfigView {
        schema: Schema,
        file: effective.file.clone(),
        values: values
            .into_iter()
            .map(|(key, value)| ConfigValue { key, value, source: effective.source(key) })
            .collect(),
    }
}

fn maintenance_window(window: &Window) -> Value {
    json!({
        "days": window.days().to_string(),
        "from": window.from().to_string(),
        "to": window.to().to_string(),
    })
}

fn limit_window(window: &Window) -> Value {
    // What a window does not limit is not named.
    let rate = |rate: Option<u64>| rate.map(|rate| rate_text(Some(rate)));
    json!({
        "days": window.days().to_string(),
        "from": window.from().to_string(),
        "to": window.to().to_string(),
        "upload": rate(window.caps.upload_bytes_per_second),
        "download": rate(window.caps.download_bytes_per_second),
    })
}

/// As a configuration file that says the same, each value with its source behind it. What a file
/// cannot say (the data directory, nothing) is a comment.
fn human(view: &ConfigView) -> String {
    let mut text = match &view.file {
        Some(file) => format!("# {}\n", file.display()),
        None => "# no configuration file\n".to_owned(),
    };
    let is_table = |value: &Value| value.as_array().is_some_and(|rows| rows.iter().any(Value::is_object));
    // Tables come last: what follows one in a file is a part of it.
    let (tables, values): (Vec<_>, Vec<_>) = view.values.iter().partition(|row| is_table(&row.value));
    for ConfigValue { key, value, source } in values {
        let comment = if value.is_null() || *key == "data_dir" { "# " } else { "" };
        let shown = if value.is_null() { "\"\"".to_owned() } else { toml(value) };
        let _ = writeln!(text, "{comment}{key} = {shown}  # {source}");
    }
    for ConfigValue { key, value, source } in tables {
        for row in value.as_array().into_iter().flatten() {
            let _ = write!(text, "\n[[{key}]]  # {source}\n");
            for (key, value) in row.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
                let _ = writeln!(text, "{key} = {}", toml(value));
            }
        }
    }
    text
}

/// A string, number, boolean, list of strings or small table in TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(rows) => {
            let rows: Vec<_> = rows.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", rows.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Subscription;

    fn effective() -> EffectiveConfig {
        config::load(Overrides {
            data_dir: Some("/nonexistent/updraft".into()),
            listen: Some(vec!["/ip4/127.0.0.1/tcp/1".to_owned()]),
            platform: Some("linux-x86_64".parse().expect("a name")),
            upload_limit: Some(Some(5 << 20)),
            egress_budget_percent: Some(Some(120)),
            subscriptions: Some(vec![
                Subscription::parse_install("editor=/opt/a \"b\"").expect("valid"),
                Subscription::parse_mirror("kiosk:beta").expect("valid"),
            ]),
            ..Overrides::default()
        })
        .expect("valid")
    }

    #[test]
    fn every_value_is_shown_with_its_source() {
        let expected = "\
# no configuration file
# data_dir = \"/nonexistent/updraft\"  # flag
role = \"peer\"  # default
# ticket = \"\"  # default
listen = [\"/ip4/127.0.0.1/tcp/1\"]  # flag
external = []  # default
http = \"off\"  # default
metrics = \"off\"  # default
mdns = false  # default
kad = \"off\"  # default
platform = \"linux-x86_64\"  # flag
max_peers = 64  # default
keep_releases = 2  # default
cache_limit = \"off\"  # default
adopt_wait_seconds = 10  # default
upload_limit = \"5MiB/s\"  # flag
download_limit = \"off\"  # default
lan_exempt = false  # default
limit_time_zone = \"local\"  # default
egress_budget = 1.2  # flag
limit_windows = []  # default
maintenance_time_zone = \"local\"  # default
maintenance_windows = []  # default

[[subscriptions]]  # flag
channel = \"stable\"
directory = '/opt/a \"b\"'
product = \"editor\"

[[subscriptions]]  # flag
channel = \"beta\"
product = \"kiosk\"
";
        assert_eq!(human(&view(&effective())), expected);
    }

    #[test]
    fn what_is_shown_is_a_configuration_file_that_says_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(CONFIG_NAME), human(&view(&effective()))).expect("writes");
        let overrides = Overrides { data_dir: Some(dir.path().to_owned()), ..Overrides::default() };
        let read = config::load(overrides).expect("valid").config;
        let mut shown = effective().config;
        shown.data_dir = dir.path().to_owned();
        assert_eq!(read, shown);
    }

    #[test]
    fn how_releases_are_started_is_shown_as_it_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = "[[subscriptions]]\nproduct = \"editor\"\ndirectory = \"/opt/editor\"\nactivate = [\"/bin/start\", \"a \\\"b\\\"\"]\nmax_attempts = 5\nhealth = { http = \"http://[::1]:8080/\", probation = \"5m\" }\n\n[[subscriptions]]\nproduct = \"kiosk\"\ndirectory = \"/opt/kiosk\"\nrestart = \"kiosk\"\n";
        let load = |text: &str| {
            std::fs::write(dir.path().join(CONFIG_NAME), text).expect("writes");
            config::load(Overrides { data_dir: Some(dir.path().to_owned()), ..Overrides::default() }).expect("valid")
        };
        let first = load(text);
        let shown = human(&view(&first));
        assert!(shown.contains("restart = \"kiosk.service\"\n"), "{shown}");
        assert!(shown.contains("probation = \"5m\""), "{shown}");
        assert_eq!(load(&shown).config, first.config);
    }

    #[test]
    fn windows_are_shown_as_they_are_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = "limit_time_zone = \"+01:00\"\n\n[[limit_windows]]\ndays = \"mon-fri\"\nfrom = \"22:00\"\nto = \"06:00\"\nupload = \"0\"\n\n[[maintenance_windows]]\nfrom = \"02:00\"\nto = \"04:00\"\n";
        let load = |text: &str| {
            std::fs::write(dir.path().join(CONFIG_NAME), text).expect("writes");
            config::load(Overrides { data_dir: Some(dir.path().to_owned()), ..Overrides::default() }).expect("valid")
        };
        let first = load(text);
        let shown = human(&view(&first));
        assert!(
            shown.contains(
                "[[limit_windows]]  # file\ndays = \"mon-fri\"\nfrom = \"22:00\"\nto = \"06:00\"\nupload = \"0\"\n"
            ),
            "{shown}"
        );
        assert!(shown.contains("[[maintenance_windows]]  # file\ndays = \"daily\"\nfrom = \"02:00\"\n"), "{shown}");
        assert_eq!(load(&shown).config, first.config);
    }

    #[test]
    fn the_json_form_has_typed_values() {
        let text = serde_json::to_string(&view(&effective())).expect("serializable");
        assert!(text.starts_with(r#"{"schema":1,"file":null,"values":[{"key":"data_dir","value":"/nonexistent/updraft","source":"flag"},{"key":"role","value":"peer","source":"default"}"#), "{text}");
        assert!(text.contains(r#"{"key":"max_peers","value":64,"source":"default"}"#), "{text}");
    }
}
