//! `updraft publish`: a release, through the running seed or straight into a stopped one's directory;
//! or signed here and pushed to a seed elsewhere.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use semver::Version;
use updraft_protocol::names::{Channel, Platform, Product, parse_version};
use updraft_protocol::rollout::Schedule;

use super::progress::ProgressDisplay;
use super::push::{self, PushArgs, PushOptions};
use super::units::bytes;
use super::{CommandError, ExitCode, GlobalArgs, Output, absolute, ask};
use crate::archive::{DEFAULT_LEVEL, MAX_LEVEL, MIN_LEVEL};
use crate::control::MAX_NOTES_BYTES;
use crate::control::client::{Client, ClientError};
use crate::control::messages::{PublishRequest, Request};
use crate::control::results::PublishView;

/// As typed.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// A directory to pack, or a file to publish as it is (.tar.gz .tar.zst .tar.xz .tar .zip, or any other)
    #[arg(value_name = "PATH", required_unless_present = "renew", conflicts_with = "renew")]
    pub path: Option<PathBuf>,
    /// What is shipped
    #[arg(long, value_name = "P")]
    pub product: Product,
    /// Its semantic version
    #[arg(long = "version", value_name = "V", value_parser = parse_version, required_unless_present = "renew", conflicts_with = "renew")]
    pub release: Option<Version>,
    /// The channel that will point to it
    #[arg(long, value_name = "C", default_value_t = Channel::stable())]
    pub channel: Channel,
    /// A channel that it may be promoted to later (repeat for more); what is signed now never changes
    #[arg(long, value_name = "C")]
    pub also_on: Vec<Channel>,
    /// Who may have it when: 10@now,50@+1d,100@+3d [default: everybody now]
    #[arg(long, value_name = "STAGES", conflicts_with = "renew")]
    pub rollout: Option<Schedule>,
    /// What it runs on: linux-x86_64, or any
    #[arg(long, value_name = "T", default_value_t = Platform::any())]
    pub platform: Platform,
    /// The oldest version that may update straight to it
    #[arg(long, value_name = "V", value_parser = parse_version)]
    pub min_from: Option<Version>,
    /// A file with release notes, at most 1 KiB of UTF-8
    #[arg(long, value_name = "FILE")]
    pub notes: Option<PathBuf>,
    /// Mark the release as urgent: nodes may act on it sooner than on others
    #[arg(long)]
    pub critical: bool,
    /// Check and pack, but sign and announce nothing
    #[arg(long)]
    pub dry_run: bool,
    /// zstd level for a packed directory
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(i64::from(MIN_LEVEL)..=i64::from(MAX_LEVEL)))]
    pub level: i32,
    /// Signing on another machine than the seed.
    #[command(flatten)]
    pub push: PushArgs,
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishOptions {
    /// The seed's directory, or that of the node which pushes.
    pub data_dir: PathBuf,
    /// What to publish.
    pub what: What,
    /// Sign here and push.
    pub push: Option<PushOptions>,
}

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A release; its path is absolute and exists, its notes are read.
    Release(Box<PublishRequest>),
    /// Nothing new: what there is expires later.
    Renewal(Product),
}

impl PublishArgs {
    /// Checks what was typed.
    pub fn options(self, global: &GlobalArgs) -> Result<PublishOptions, CommandError> {
        let (data_dir, push) = (global.data_dir()?, self.push.options(global)?);
        let (Some(path), Some(version)) = (self.path, self.release) else {
            return Ok(PublishOptions { data_dir, what: What::Renewal(self.product), push });
        };
        let path = absolute(&path)?;
        if path.to_str().is_none() {
            return Err(CommandError::usage(format!("the path '{}' is not UTF-8", path.display()))
                .with_hint("rename it, or name it through a symbolic link"));
        }
        if let Err(error) = std::fs::metadata(&path) {
            return Err(CommandError::usage(format!("cannot publish {}: {error}", path.display()))
                .with_hint("name a directory to pack, or a file to publish as it is"));
        }
        if self.min_from.as_ref().is_some_and(|from| *from >= version) {
            return Err(CommandError::usage(format!("--min-from must be lower than the version {version}")));
        }
        if push.is_some() && self.rollout.is_some() {
            return Err(CommandError::usage("--rollout is decided at the seed, not where a release is pushed from")
                .with_hint(
                    "push to a channel for few, with --also-on; then at the seed: updraft channel promote --rollout",
                ));
        }
        let request = PublishRequest {
            path,
            product: self.product,
            version,
            channel: self.channel,
            also_on: self.also_on,
            rollout: self.rollout,
            platform: self.platform,
            min_from: self.min_from,
            notes: self.notes.as_deref().map(read_notes).transpose()?,
            critical: self.critical,
            dry_run: self.dry_run,
            level: self.level,
        };
        Ok(PublishOptions { data_dir, what: What::Release(Box::new(request)), push })
    }
}

fn read_notes(path: &Path) -> Result<String, CommandError> {
    let fail = |reason: String| {
        CommandError::usage(format!("cannot use the notes in {}: {reason}", path.display()))
            .with_hint(format!("notes are a file of at most {MAX_NOTES_BYTES} bytes of UTF-8"))
    };
    let file = std::fs::File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut notes = String::new();
    file.take(MAX_NOTES_BYTES as u64 + 1).read_to_string(&mut notes).map_err(|error| fail(error.to_string()))?;
    if notes.len() > MAX_NOTES_BYTES {
        return Err(fail("they are too long".to_owned()));
    }
    Ok(notes)
}

/// Publishes.
pub fn run(options: PublishOptions, output: &mut Output) -> Result<ExitCode, CommandError> {
    let PublishOptions { data_dir, what, push } = options;
    let request = match (what, push.clone()) {
        (What::Release(request), _) => *request,
        (What::Renewal(product), Some(push)) => return push::renew(&data_dir, push, product, output),
        (What::Renewal(_), None) => return Err(CommandError::usage("--renew is for a push")),
    };
    let view: PublishView = match push {
        Some(push) => push::publish(&data_dir, push, request, output)?,
        None => publish(&data_dir, request, output)?,
    };
    output.answer(&view, |view, _| human(view))?;
    for warning in &view.warnings {
        output.warn(warning);
    }
    Ok(ExitCode::Ok)
}

/// Publishes at the seed itself, running or not.
fn publish(data_dir: &Path, request: PublishRequest, output: &mut Output) -> Result<PublishView, CommandError> {
    match Client::connect(data_dir) {
        Ok(client) => ask::converse(client, &Request::Publish(request), output),
        Err(ClientError::Unreachable { .. }) => {
            let mut display = ProgressDisplay::new(output.is_live());
            let published = crate::runtime::offline::publish(data_dir, &request, &mut |progress| {
                display.show(output.progress_stream(), &progress);
            });
            display.end(output.progress_stream());
            let view = published?;
            if !view.dry_run && !output.is_json() {
                output.note("no seed runs here; peers learn of the release when it does: updraft seed");
            }
            Ok(view)
        }
        Err(error) => Err(error.into()),
    }
}

fn human(view: &PublishView) -> String {
    let done = if view.dry_run { "would publish" } else { "published" };
    format!(
        "{done} {} {} ({}) on {}\n  {}, unpacks to {} in {} entries; {} pieces\n  sha256 {}\n",
        view.product,
        view.version,
        view.platform,
        view.channel,
        bytes(view.size_bytes),
        bytes(view.content_bytes),
        view.entries,
        view.pieces,
        view.sha256
    )
}
