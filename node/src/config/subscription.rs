//! What a node follows: a product on a channel, installed somewhere or mirrored.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use updraft_protocol::names::{Channel, InvalidName, Product};

use super::trial::{CommandText, DurationText, FileHealth, FileTrial, UnitText};
use crate::engine::install::Trial;

/// A product that this node follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which product.
    pub product: Product,
    /// Which of its channels.
    pub channel: Channel,
    /// Where it is installed, absolute; `None` mirrors it: hold and serve, install nothing.
    pub directory: Option<PathBuf>,
    /// How a release is started there, and what proves that it works.
    pub trial: Trial,
}

/// One `[[subscriptions]]` of the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Row")]
pub(super) struct FileSubscription(Subscription);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    product: Product,
    #[serde(default = "Channel::stable")]
    channel: Channel,
    directory: Option<PathBuf>,
    restart: Option<UnitText>,
    activate: Option<CommandText>,
    activate_timeout: Option<DurationText>,
    health: Option<FileHealth>,
    max_attempts: Option<u32>,
    release_hooks: Option<bool>,
}

impl TryFrom<Row> for FileSubscription {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let trial = FileTrial {
            restart: row.restart,
            activate: row.activate,
            activate_timeout: row.activate_timeout,
            health: row.health,
            max_attempts: row.max_attempts,
            release_hooks: row.release_hooks,
        };
        if row.directory.is_none() && trial != FileTrial::default() {
            return Err(format!(
                "{} is only mirrored, so nothing is started or checked; give it a directory",
                row.product
            ));
        }
        let trial = trial.checked()?;
        Ok(Self(Subscription { product: row.product, channel: row.channel, directory: row.directory, trial }))
    }
}

impl From<FileSubscription> for Subscription {
    fn from(row: FileSubscription) -> Self {
        row.0
    }
}

/// A text that names no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubscription {
    /// A name in it is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// There is no directory in it.
    #[error("'{0}' names no directory; write PRODUCT[:CHANNEL]=DIR, or mirror it: --mirror PRODUCT[:CHANNEL]")]
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
                let absolute =
                    std::path::absolute(directory).map_err(|_| InvalidSubscription::Relative(directory.to_owned()))?;
                Ok(Self { directory: Some(absolute), ..Self::parse_mirror(names)? })
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
        Ok(Self { product: product.parse()?, channel, directory: None, trial: Trial::default() })
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
