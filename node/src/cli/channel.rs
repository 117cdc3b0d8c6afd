//! `updraft channel`: the signed policy of channels, at the seed, running or not.

use std::path::Path;

use clap::{Args, Subcommand};
use semver::Version;
use serde::de::DeserializeOwned;
use updraft_protocol::names::{Channel, Product, parse_version};
use updraft_protocol::rollout::{MAX_PAUSE_REASON_BYTES, Schedule, duration_text, parse_duration};

use super::output::{Painter, Style};
use super::table::{Cell, Table};
use super::units::printable;
use super::{CommandError, ExitCode, GlobalArgs, Output, ask};
use crate::control::channels::{ChannelChangeView, ChannelRequest, ChannelRow, ChannelsView};
use crate::control::client::{Client, ClientError};
use crate::control::messages::{ErrorBody, Request};
use crate::engine::policy::{Change, Setting, Settings, halt_text};

/// `PRODUCT[:CHANNEL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    product: Product,
    channel: Option<Channel>,
}

fn target(text: &str) -> Result<Target, String> {
    let (product, channel) = match text.split_once(':') {
        Some((product, channel)) => (product, Some(channel)),
        None => (text, None),
    };
    let product = product.parse().map_err(|error| format!("the product: {error}"))?;
    let channel = channel.map(str::parse).transpose().map_err(|error| format!("the channel: {error}"))?;
    Ok(Target { product, channel })
}

impl Target {
    fn channel(&self) -> Channel {
        self.channel.clone().unwrap_or_else(Channel::stable)
    }
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum ChannelCommand {
    /// Show what the policies say, and how their releases fare (on any node)
    Show {
        /// Only this product's, or only this channel
        #[arg(value_name = "PRODUCT[:CHANNEL]", value_parser = target)]
        target: Option<Target>,
    },
    /// Change a policy: the release, its rollout, downgrades, the automatic halt
    Set(Box<SetArgs>),
    /// Point a channel to a release that another channel has tried
    Promote(PromoteArgs),
    /// Let nobody install
    Pause {
        /// The channel [default channel: stable]
        #[arg(value_name = "PRODUCT[:CHANNEL]", value_parser = target)]
        target: Target,
        /// Why: every node shows it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Say what would change, and sign nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// End a pause; what had been reported against the release by then is forgiven
    Resume {
        /// The channel [default channel: stable]
        #[arg(value_name = "PRODUCT[:CHANNEL]", value_parser = target)]
        target: Target,
        /// Say what would change, and sign nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Let nobody install a release any more; nodes that have it keep it
    Yank {
        /// The channel [default channel: stable]
        #[arg(value_name = "PRODUCT[:CHANNEL]", value_parser = target)]
        target: Target,
        /// The release
        #[arg(value_name = "VERSION", value_parser = parse_version)]
        version: Version,
        /// Let it be installed again
        #[arg(long)]
        undo: bool,
        /// Say what would change, and sign nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `updraft channel set`, as typed.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// The channel [default channel: stable]
    #[arg(value_name = "PRODUCT[:CHANNEL]", value_parser = target)]
    pub target: Target,
    /// The release that it points to
    #[arg(long, value_name = "V", value_parser = parse_version)]
    pub release: Option<Version>,
    /// Who may have it when: 10@now,50@+1d,100@+3d (or times such as 2026-12-01T08:00:00Z)
    #[arg(long, value_name = "STAGES")]
    pub rollout: Option<Schedule>,
    /// Nodes may go back to this release; none: not any more
    #[arg(long, value_name = "V|none", value_parser = version_or_none)]
    pub allow_downgrade: Option<Setting<Version>>,
    /// Nothing older is ever installed again; needs the targets key
    #[arg(long, value_name = "V", value_parser = parse_version)]
    pub floor: Option<Version>,
    /// Pause by itself when this share of the nodes reports failure
    #[arg(long, value_name = "PERCENT|off", value_parser = percent_or_off)]
    pub halt_threshold: Option<Setting<u8>>,
    /// Nodes that must have reported before that [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub halt_min_reports: Option<u32>,
    /// A node that began and says nothing for so long counts as failed
    #[arg(long, value_name = "DURATION|off", value_parser = |text: &str| duration_or(text, "off"))]
    pub halt_silence: Option<Setting<u64>>,
    /// Nodes do not install by a head that is older; default: 24h while a rollout is under way
    #[arg(long, value_name = "DURATION|default", value_parser = |text: &str| duration_or(text, "default"))]
    pub max_head_age: Option<Setting<u64>>,
    /// Say what would change, and sign nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `updraft channel promote`, as typed.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// The product
    #[arg(value_name = "PRODUCT")]
    pub product: Product,
    /// The release; it must have been published for the channel too (`updraft publish --also-on`)
    #[arg(value_name = "VERSION", value_parser = parse_version)]
    pub version: Version,
    /// The channel that is to point to it
    #[arg(long, value_name = "CHANNEL", default_value_t = Channel::stable())]
    pub to: Channel,
    /// Who may have it when [default: everybody now]
    #[arg(long, value_name = "STAGES")]
    pub rollout: Option<Schedule>,
    /// Say what would change, and sign nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn version_or_none(text: &str) -> Result<Setting<Version>, String> {
    if text == "none" {
        return Ok(Setting::Off);
    }
    parse_version(text).map(Setting::To).map_err(|error| error.to_string())
}

fn percent_or_off(text: &str) -> Result<Setting<u8>, String> {
    if text == "off" {
        return Ok(Setting::Off);
    }
    let number = text.trim_end_matches('%').parse().ok().filter(|percent| (1..=100).contains(percent));
    number.map(Setting::To).ok_or_else(|| "write a percentage from 1 to 100, or off".to_owned())
}

fn duration_or(text: &str, word: &str) -> Result<Setting<u64>, String> {
    if text == word {
        return Ok(Setting::Off);
    }
    parse_duration(text).map(Setting::To).map_err(|error| error.to_string())
}

impl SetArgs {
    fn request(self) -> Result<ChannelRequest, CommandError> {
        let settings = Settings {
            release: self.release,
            rollout: self.rollout,
            allow_downgrade: self.allow_downgrade,
            floor: self.floor,
            halt_percent: self.halt_threshold,
            halt_min_reports: self.halt_min_reports,
            halt_silence_s: self.halt_silence,
            max_head_age_s: self.max_head_age,
        };
        if settings == Settings::default() {
            return Err(CommandError::usage("nothing is to be set")
                .with_hint("name at least one of --release, --rollout, --allow-downgrade, --floor, --halt-threshold, --halt-min-reports, --halt-silence, --max-head-age"));
        }
        let channel = self.target.channel();
        Ok(ChannelRequest {
            product: self.target.product,
            channel,
            change: Change::Set(settings),
            dry_run: self.dry_run,
        })
    }
}

impl ChannelCommand {
    /// What is asked of the seed; none where it is only a question.
    fn request(self) -> Result<ChannelRequest, CommandError> {
        let request = |target: Target, change, dry_run| {
            let channel = target.channel();
            Ok(ChannelRequest { product: target.product, channel, change, dry_run })
        };
        match self {
            Self::Show { .. } => Err(CommandError::internal("a question is no change")),
            Self::Set(args) => args.request(),
            Self::Promote(args) => Ok(ChannelRequest {
                product: args.product,
                channel: args.to,
                change: Change::Promote { version: args.version, rollout: args.rollout },
                dry_run: args.dry_run,
            }),
            Self::Pause { target, reason, dry_run } => {
                if reason.as_ref().is_some_and(|reason| reason.len() > MAX_PAUSE_REASON_BYTES) {
                    let text = format!("the reason is too long; at most {MAX_PAUSE_REASON_BYTES} bytes travel");
                    return Err(CommandError::usage(text));
                }
                request(target, Change::Pause { reason }, dry_run)
            }
            Self::Resume { target, dry_run } => request(target, Change::Resume {}, dry_run),
            Self::Yank { target, version, undo, dry_run } => request(target, Change::Yank { version, undo }, dry_run),
        }
    }
}

/// Asks the node where one runs; else does it in its directory.
fn ask_or<R: DeserializeOwned>(
    data_dir: &Path,
    request: &Request,
    output: &mut Output,
    offline: impl FnOnce(&Path) -> Result<R, ErrorBody>,
) -> Result<(R, bool), CommandError> {
    match Client::connect(data_dir) {
        Ok(client) => Ok((ask::converse(client, request, output)?, true)),
        Err(ClientError::Unreachable { .. }) => Ok((offline(data_dir)?, false)),
        Err(error) => Err(error.into()),
    }
}

/// Shows or changes channels.
pub fn run(command: ChannelCommand, global: &GlobalArgs, output: &mut Output) -> Result<ExitCode, CommandError> {
    let data_dir = global.data_dir()?;
    if let ChannelCommand::Show { target } = command {
        let (product, channel) = target.map_or((None, None), |target| (Some(target.product), target.channel));
        let request = Request::Channels { product: product.clone(), channel: channel.clone() };
        let (view, _): (ChannelsView, _) = ask_or(&data_dir, &request, output, |data_dir| {
            crate::runtime::channel::show_offline(data_dir, product.as_ref(), channel.as_ref())
        })?;
        output.answer(&view, human)?;
        if view.channels.is_empty() {
            output.note("there are no channels yet; publishing a release makes one");
        }
        return Ok(ExitCode::Ok);
    }
    let request = command.request()?;
    let asked = Request::ChangeChannel(Box::new(request.clone()));
    let (view, runs): (ChannelChangeView, _) =
        ask_or(&data_dir, &asked, output, |data_dir| crate::runtime::channel::change_offline(data_dir, &request))?;
    output.answer(&view, changed)?;
    for warning in &view.warnings {
        output.warn(warning);
    }
    if !runs && !view.dry_run && !output.is_json() {
        output.note("no seed runs here; peers learn of it when it does: updraft seed");
    }
    Ok(ExitCode::Ok)
}

fn changed(view: &ChannelChangeView, painter: Painter) -> String {
    let row = &view.channel;
    let (title, end) = match view.timestamp_version {
        Some(version) => {
            (format!("{}:{}", row.product, row.channel), format!("signed; head {version} tells everybody\n"))
        }
        None => (format!("{}:{} would change", row.product, row.channel), "nothing was signed\n".to_owned()),
    };
    format!("{}\n{}{end}", painter.paint(Style::Bold, &title), indented(&view.changes))
}

fn human(view: &ChannelsView, painter: Painter) -> String {
    let mut table = Table::new(&["CHANNEL", "RELEASE", "ROLLOUT", "STATE", "INSTALLED", "FAILED", "PENDING"]);
    for row in &view.channels {
        let (state, style) = if row.paused { ("paused", Style::Warn) } else { ("open", Style::Good) };
        let count = |count: fn(&crate::control::channels::OutcomeCounts) -> u64| {
            Cell::number(row.outcomes.as_ref().map_or_else(String::new, |outcomes| count(outcomes).to_string()))
        };
        table.row(vec![
            Cell::new(format!("{}:{}", row.product, row.channel)),
            Cell::new(row.version.as_deref().unwrap_or_default()),
            Cell::number(format!("{} %", row.rollout_percent)),
            Cell::new(state).styled(style),
            count(|outcomes| outcomes.installed),
            count(|outcomes| outcomes.failed),
            count(|outcomes| outcomes.pending),
        ]);
    }
    let details: String = view.channels.iter().map(|row| details(row, painter)).collect();
    format!("{}{details}", table.render(painter))
}

/// What a policy says beyond the table.
fn details(row: &ChannelRow, painter: Painter) -> String {
    let mut lines = Vec::new();
    lines.extend(row.pause_reason.as_ref().map(|reason| format!("paused: {reason}")));
    if !row.rollout_stages.is_empty() {
        let stages: Vec<String> =
            row.rollout_stages.iter().map(|stage| format!("{} % from {}", stage.percent, stage.at)).collect();
        lines.push(format!("rollout: {}", stages.join(", ")));
    }
    lines.extend(row.since.map(|since| format!("points there since {since}")));
    lines.extend(row.halt.as_ref().map(|halt| format!("pauses by itself {}", halt_text(halt))));
    lines.extend(row.allow_downgrade_to.as_ref().map(|version| format!("nodes may go back to {version}")));
    if !row.yanked.is_empty() {
        lines.push(format!("yanked: {}", row.yanked.join(", ")));
    }
    lines.extend(row.floor.as_ref().map(|floor| format!("security floor: {floor}")));
    lines.extend(row.max_head_age_s.map(|age_s| format!("oldest head to install by: {}", duration_text(age_s))));
    if lines.is_empty() {
        return String::new();
    }
    let title = painter.paint(Style::Bold, &format!("{}:{}", row.product, row.channel));
    format!("\n{title}\n{}", indented(&lines))
}

/// One a line, safe for a terminal.
fn indented(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |text, line| text + "  " + &printable(line) + "\n")
}
