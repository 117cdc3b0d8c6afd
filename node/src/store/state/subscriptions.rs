//! What this node follows: products on channels, each installed into a directory or only mirrored.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::time::UtcTime;

use super::{StateDb, StateError, directory_text, id, parsed, time};

/// What a subscription does with releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Install them.
    Install {
        /// Where to: absolute, UTF-8, of no other subscription.
        directory: PathBuf,
    },
    /// Hold and serve them.
    Mirror,
}

/// A product that this node follows. One row for each repository, product and directory, and one
/// for mirroring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Whose product it is.
    pub repository: Digest,
    /// The product.
    pub product: Product,
    /// The channel that picks its releases.
    pub channel: Channel,
    /// What the releases must run on.
    pub platform: Platform,
    /// What is done with them.
    pub mode: Mode,
    /// When it was made; an update keeps it.
    pub created_at: UtcTime,
}

impl Mode {
    fn name(&self) -> &'static str {
        match self {
            Self::Install { .. } => "install",
            Self::Mirror => "mirror",
        }
    }

    /// Where releases are installed.
    pub fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Install { directory } => Some(directory),
            Self::Mirror => None,
        }
    }

    /// The directory column: empty for a mirror.
    fn column(&self) -> Result<&str, StateError> {
        match self {
            Self::Install { directory } => directory_text(directory),
            Self::Mirror => Ok(""),
        }
    }
}

impl StateDb {
    /// Adds a subscription, or replaces all but the creation time of the one for the same
    /// repository, product and directory.
    pub fn put_subscription(&self, subscription: &Subscription) -> Result<(), StateError> {
        let directory = subscription.mode.column()?;
        let (repository, product) = (id(&subscription.repository), subscription.product.as_str());
        let taken = self.write(|transaction| {
            let other: Option<String> = transaction
                .prepare_cached(
                    "SELECT product FROM subscriptions
                     WHERE directory = ?3 AND directory <> '' AND NOT (repository = ?1 AND product = ?2)",
                )?
                .query_row(params![repository, product, directory], |row| row.get(0))
                .optional()?;
            if other.is_some() {
                return Ok(other);
            }
            transaction.execute(
                "INSERT INTO subscriptions
                     (repository, product, directory, channel, platform, mode, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (repository, product, directory) DO UPDATE SET
                     channel = excluded.channel, platform = excluded.platform, mode = excluded.mode",
                params![
                    repository,
                    product,
                    directory,
                    subscription.channel.as_str(),
                    subscription.platform.as_str(),
                    subscription.mode.name(),
                    subscription.created_at.unix(),
                ],
            )?;
            Ok(None)
        })?;
        match taken {
            Some(product) => Err(StateError::DirectoryTaken { directory: directory.into(), product }),
            None => Ok(()),
        }
    }

    /// All subscriptions, oldest first. Those in a mode of a later version are left out: this
    /// version must not act on them.
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, StateError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repository, product, directory, channel, platform, mode, created_at
                 FROM subscriptions WHERE mode IN ('install', 'mirror')
                 ORDER BY created_at, repository, product, directory",
            )?;
            statement.query_map([], read_row)?.collect()
        })
    }

    /// Removes a subscription; its installed release stays. `false` when there was none.
    pub fn remove_subscription(&self, repository: &Digest, product: &Product, mode: &Mode) -> Result<bool, StateError> {
        let directory = mode.column()?;
        let removed = self.write(|transaction| {
            transaction.execute(
                "DELETE FROM subscriptions WHERE repository = ?1 AND product = ?2 AND directory = ?3",
                params![id(repository), product.as_str(), directory],
            )
        })?;
        Ok(removed > 0)
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Subscription> {
    let mode: String = row.get("mode")?;
    let mode = match mode.as_str() {
        "mirror" => Mode::Mirror,
        _ => Mode::Install { directory: super::path(row, "directory")? },
    };
    Ok(Subscription {
        repository: parsed(row, "repository")?,
        product: parsed(row, "product")?,
        channel: parsed(row, "channel")?,
        platform: parsed(row, "platform")?,
        mode,
        created_at: time(row, "created_at")?,
    })
}
