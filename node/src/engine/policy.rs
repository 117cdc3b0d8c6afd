//! What an operator may change about a channel, and what follows from it.
//!
//! Pure: the signed set in force and a wish come in, the next policy and what it changes come out, or
//! the reason why it would make no sense. Nothing here can offer a release on a channel that its
//! publisher did not permit: which channels those are is signed with the release and never changes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use semver::Version;
use serde::{Deserialize, Serialize};
use updraft_protocol::limits::MAX_YANKED;
use updraft_protocol::names::{Channel, Product};
use updraft_protocol::release::Release;
use updraft_protocol::rollout::{ChannelPolicy, Halt, InvalidSchedule, PolicyError, Schedule, duration_text};
use updraft_protocol::time::UtcTime;

use super::catalog::CatalogView;

/// Nodes that must have ended before a channel halts, where nobody says otherwise.
pub const DEFAULT_MIN_REPORTS: u32 = 5;

/// Seconds below which a head's age stops installs between two signatures of the seed, which come
/// about every six hours.
const SHORT_HEAD_AGE_S: u64 = 7 * 3_600;

/// A value, or none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting<T> {
    /// Take it away.
    Off,
    /// Set it.
    To(T),
}

impl<T> Setting<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::To(value) => Some(value),
        }
    }
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Any of these; what is not named stays.
    Set(Settings),
    /// Point the channel to a release that another channel has tried.
    Promote {
        /// Which.
        version: Version,
        /// For whom, and when; everybody at once where absent.
        #[serde(default)]
        rollout: Option<Schedule>,
    },
    /// Nobody is to install.
    Pause {
        /// Why, for everybody to read.
        #[serde(default)]
        reason: Option<String>,
    },
    /// End the pause.
    Resume {},
    /// Nobody is to install this release any more.
    Yank {
        /// Which.
        version: Version,
        /// Or may again.
        #[serde(default)]
        undo: bool,
    },
}

/// Values of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The release that the channel points to.
    pub release: Option<Version>,
    /// For whom, and when.
    pub rollout: Option<Schedule>,
    /// How far nodes may go back.
    pub allow_downgrade: Option<Setting<Version>>,
    /// The product's security floor. It is signed by the targets key, and never lowered here.
    pub floor: Option<Version>,
    /// Percent of failures at which the channel halts.
    pub halt_percent: Option<Setting<u8>>,
    /// Nodes that must have ended before it does.
    pub halt_min_reports: Option<u32>,
    /// Seconds of silence that count as a failure.
    pub halt_silence_s: Option<Setting<u64>>,
    /// Seconds after which a head is too old to install by.
    pub max_head_age_s: Option<Setting<u64>>,
}

/// What a wish comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The next policy.
    pub policy: ChannelPolicy,
    /// The product's next security floor, where it rises.
    pub floor: Option<Version>,
    /// What is different, in sentences.
    pub changes: Vec<String>,
    /// What the operator should know, in sentences.
    pub warnings: Vec<String>,
}

/// Why a wish is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such product.
    #[error("the repository has no product '{product}'; it has: {known}")]
    NoProduct {
        /// The product.
        product: Product,
        /// What there is.
        known: String,
    },
    /// No such channel, and the wish does not make one.
    #[error("{product} has no channel '{channel}' yet; `updraft publish` and `updraft channel set --release` make one")]
    NoChannel {
        /// The product.
        product: Product,
        /// The channel.
        channel: Channel,
    },
    /// No such release.
    #[error("there is no release {version} of {product}; `updraft releases {product}` lists what there is")]
    NoRelease {
        /// The product.
        product: Product,
        /// The version.
        version: Version,
    },
    /// The publisher did not permit it.
    #[error(
        "{release} was signed for {permitted} and not for '{channel}'; releases never change: publish the next version for both, with `updraft publish --channel {first} --also-on {channel}`"
    )]
    NotPermitted {
        /// Which.
        release: String,
        /// The channel.
        channel: Channel,
        /// The channels that are permitted.
        permitted: String,
        /// One of them.
        first: String,
    },
    /// The release was withdrawn.
    #[error(
        "{version} was yanked on this channel; `updraft channel yank {product}:{channel} {version} --undo` takes that back"
    )]
    Yanked {
        /// The product.
        product: Product,
        /// The channel.
        channel: Channel,
        /// The version.
        version: Version,
    },
    /// No node would install it.
    #[error(
        "{version} is below the security floor of {product}, which is {floor}; no node installs it: name {floor} or newer (`updraft releases {product}` lists them)"
    )]
    BelowFloor {
        /// The product.
        product: Product,
        /// The version.
        version: Version,
        /// The floor.
        floor: Version,
    },
    /// The channel would go back without saying so.
    #[error(
        "the channel is at {current}; {wanted} is older, and nodes do not go back by themselves. If they are to: add --allow-downgrade {wanted}"
    )]
    MovesBack {
        /// What the channel points to.
        current: Version,
        /// What it was to point to.
        wanted: Version,
    },
    /// A floor that would go down.
    #[error(
        "the security floor of {product} is {floor}, and every node remembers it; it cannot be lowered to {wanted}. To offer what is in {wanted} again, publish it as a version newer than {floor}"
    )]
    FloorFalls {
        /// The product.
        product: Product,
        /// The floor.
        floor: Version,
        /// What it was to be.
        wanted: Version,
    },
    /// A floor above what is offered.
    #[error(
        "a floor of {wanted} would shut out {version}, which the channel points to; point the channel to {wanted} or newer first"
    )]
    FloorAbove {
        /// What it was to be.
        wanted: Version,
        /// What the channel points to.
        version: Version,
    },
    /// A rollout of nothing.
    #[error("the channel points to no release yet; name one with --release")]
    NoTarget,
    /// Part of a threshold without the threshold.
    #[error("the channel has no automatic halt yet; give it one with --halt-threshold PERCENT")]
    NoHalt,
    /// It is so already.
    #[error("{0}")]
    NothingToDo(String),
    /// The rollout makes no sense.
    #[error("the rollout: {0}")]
    Rollout(#[from] InvalidSchedule),
    /// More releases are yanked than a policy lists.
    #[error(
        "{product}:{channel} has {count} yanked releases, and a policy lists no more; take back those that no node can reach any more, such as those below the security floor: `updraft channel yank {product}:{channel} VERSION --undo`"
    )]
    TooManyYanked {
        /// The product.
        product: Product,
        /// The channel.
        channel: Channel,
        /// How many there are.
        count: usize,
    },
    /// The policy would break a limit.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What the policy of a channel would be.
pub fn apply(
    view: &CatalogView,
    product: &Product,
    channel: &Channel,
    change: &Change,
    now: UtcTime,
) -> Result<Changed, Refused> {
    let known = view.products();
    if !known.contains(product) {
        let known: Vec<&str> = known.iter().map(|product| product.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Refused::NoProduct { product: product.clone(), known });
    }
    let before = view.channels.get(&(product.clone(), channel.clone()));
    let makes_one = matches!(change, Change::Promote { .. } | Change::Set(Settings { release: Some(_), .. }));
    let policy = match before {
        Some(policy) => ChannelPolicy::clone(policy),
        None if makes_one => ChannelPolicy::default(),
        None => return Err(Refused::NoChannel { product: product.clone(), channel: channel.clone() }),
    };
    let mut next = Next { view, product, channel, now, policy, floor: None, changes: Vec::new(), warnings: Vec::new() };
    match change {
        Change::Set(settings) => next.set(settings)?,
        Change::Promote { version, rollout } => next.point(version, rollout.as_ref())?,
        Change::Pause { reason } => next.pause(reason.as_deref())?,
        Change::Resume {} => next.resume()?,
        Change::Yank { version, undo } => next.yank(version, *undo)?,
    }
    if next.changes.is_empty() {
        return Err(Refused::NothingToDo(format!("{product}:{channel} is like that already")));
    }
    next.policy.validate()?;
    Ok(Changed { policy: next.policy, floor: next.floor, changes: next.changes, warnings: next.warnings })
}

struct Next<'a> {
    view: &'a CatalogView,
    product: &'a Product,
    channel: &'a Channel,
    now: UtcTime,
    policy: ChannelPolicy,
    floor: Option<Version>,
    changes: Vec<String>,
    warnings: Vec<String>,
}

fn or_none(value: Option<&impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// A threshold in words.
pub fn halt_text(halt: &Halt) -> String {
    let silence = match halt.silence_s {
        Some(silence_s) => format!(", silence counts after {}", duration_text(silence_s)),
        None => String::new(),
    };
    format!("at {} % of at least {} nodes{silence}", halt.failures_percent, halt.min_reports)
}

impl Next<'_> {
    fn changed<T: PartialEq>(&mut self, what: &str, before: &T, after: &T, show: impl Fn(&T) -> String) {
        if before != after {
            self.changes.push(format!("{what}: {} -> {}", show(before), show(after)));
        }
    }

    fn set(&mut self, settings: &Settings) -> Result<(), Refused> {
        let before = self.policy.clone();
        if let Some(allow) = &settings.allow_downgrade {
            self.policy.allow_downgrade_to = allow.clone().into_option();
            if let Some(version) = self.policy.allow_downgrade_to.clone() {
                self.permitted(&version)?;
            }
            let after = self.policy.allow_downgrade_to.clone();
            self.changed("downgrade allowed to", &before.allow_downgrade_to, &after, |version| {
                or_none(version.as_ref())
            });
        }
        match (&settings.release, &settings.rollout) {
            (Some(version), rollout) => self.point(version, rollout.as_ref())?,
            (None, Some(schedule)) => self.stage(schedule)?,
            (None, None) => {}
        }
        self.set_halt(settings)?;
        if let Some(age) = settings.max_head_age_s {
            self.policy.max_head_age_s = age.into_option();
            if let Some(age_s) = self.policy.max_head_age_s.filter(|age_s| *age_s < SHORT_HEAD_AGE_S) {
                self.warnings.push(format!(
                    "the seed signs its head about every six hours; with {} nodes stop installing in between",
                    duration_text(age_s)
                ));
            }
            let after = self.policy.max_head_age_s;
            let show = |age: &Option<u64>| age.map_or_else(|| "default".to_owned(), duration_text);
            self.changed("oldest head to install by", &before.max_head_age_s, &after, show);
        }
        match &settings.floor {
            Some(floor) => self.raise_floor(floor),
            None => Ok(()),
        }
    }

    fn set_halt(&mut self, settings: &Settings) -> Result<(), Refused> {
        let before = self.policy.halt;
        let mut halt = before;
        match settings.halt_percent {
            Some(Setting::Off) => halt = None,
            Some(Setting::To(failures_percent)) => {
                let old =
                    before.unwrap_or(Halt { failures_percent, min_reports: DEFAULT_MIN_REPORTS, silence_s: None });
                halt = Some(Halt { failures_percent, ..old });
            }
            None => {}
        }
        if settings.halt_min_reports.is_some() || settings.halt_silence_s.is_some() {
            let set = halt.as_mut().ok_or(Refused::NoHalt)?;
            set.min_reports = settings.halt_min_reports.unwrap_or(set.min_reports);
            if let Some(silence) = settings.halt_silence_s {
                set.silence_s = silence.into_option();
            }
        }
        self.policy.halt = halt;
        // A policy of an earlier version does not say since when it points there. Without that nobody has a vote.
        if halt.is_some() && self.policy.version.is_some() && self.policy.since.is_none() {
            self.policy.since = Some(self.now);
            self.warnings.push("what nodes report counts from now on: who is known now has a vote".to_owned());
        }
        let show = |halt: &Option<Halt>| halt.as_ref().map_or_else(|| "off".to_owned(), halt_text);
        self.changed("automatic halt", &before, &halt, show);
        Ok(())
    }

    /// The builds of a version that this channel may offer.
    fn permitted(&mut self, version: &Version) -> Result<Vec<Arc<Release>>, Refused> {
        let (product, channel) = (self.product, self.channel);
        let all: Vec<&Arc<Release>> =
            self.view.releases.iter().filter(|r| r.id.product == *product && r.id.version == *version).collect();
        let none = || Refused::NoRelease { product: product.clone(), version: version.clone() };
        let first = all.first().ok_or_else(none)?;
        let (fitting, others): (Vec<&Arc<Release>>, Vec<&Arc<Release>>) =
            all.iter().copied().partition(|release| release.channels.contains(channel));
        if fitting.is_empty() {
            let permitted: BTreeSet<&str> = all.iter().flat_map(|r| &r.channels).map(Channel::as_str).collect();
            return Err(Refused::NotPermitted {
                release: format!("{product} {version}"),
                channel: channel.clone(),
                permitted: permitted.into_iter().collect::<Vec<_>>().join(", "),
                first: first.channels.first().map_or_else(String::new, ToString::to_string),
            });
        }
        if let Some(floor) = self.view.floors.get(product).filter(|floor| version < floor) {
            let (product, version, floor) = (product.clone(), version.clone(), floor.clone());
            return Err(Refused::BelowFloor { product, version, floor });
        }
        if !others.is_empty() {
            let platforms: Vec<&str> = others.iter().map(|release| release.id.platform.as_str()).collect();
            self.warnings.push(format!(
                "the builds for {} were not signed for this channel; nodes there stay where they are",
                platforms.join(", ")
            ));
        }
        Ok(fitting.into_iter().cloned().collect())
    }

    fn point(&mut self, version: &Version, rollout: Option<&Schedule>) -> Result<(), Refused> {
        self.permitted(version)?;
        if self.policy.yanked.contains(version) {
            let (product, channel) = (self.product.clone(), self.channel.clone());
            return Err(Refused::Yanked { product, channel, version: version.clone() });
        }
        let current = self.policy.version.clone();
        if current.as_ref() == Some(version) {
            return rollout.map_or(Ok(()), |schedule| self.stage(schedule));
        }
        if let Some(current) = current.clone().filter(|current| version < current)
            && self.policy.allow_downgrade_to.as_ref() != Some(version)
        {
            return Err(Refused::MovesBack { current, wanted: version.clone() });
        }
        self.policy.version = Some(version.clone());
        self.policy.since = Some(self.now);
        self.policy.resumed_at = None;
        self.policy.rollout = rollout.unwrap_or(&Schedule::full()).starting(self.now)?;
        self.changed("release", &current, &Some(version.clone()), |version| or_none(version.as_ref()));
        self.changes
            .push(format!("rollout: {}", rollout.map_or_else(|| "everybody now".to_owned(), ToString::to_string)));
        self.warn_of_rest();
        if self.policy.paused {
            self.warnings.push("the channel is paused; nobody installs before `updraft channel resume`".to_owned());
        }
        Ok(())
    }

    fn stage(&mut self, schedule: &Schedule) -> Result<(), Refused> {
        if self.policy.version.is_none() {
            return Err(Refused::NoTarget);
        }
        let next = schedule.starting(self.now)?;
        let (had, has) = (self.policy.rollout.percent_at(self.now), next.percent_at(self.now));
        if has < had {
            self.warnings.push(format!(
                "the rollout goes back from {had} % to {has} %; whoever installed meanwhile keeps the release"
            ));
        }
        if self.policy.rollout != next {
            self.policy.rollout = next;
            self.changes.push(format!("rollout: {schedule}"));
        }
        self.warn_of_rest();
        Ok(())
    }

    fn warn_of_rest(&mut self) {
        let stages = &self.policy.rollout.stages;
        if let Some(last) = stages.last().filter(|last| last.percent < 100) {
            self.warnings.push(format!("the rollout ends at {} %; the others wait until you go on", last.percent));
        }
    }

    fn pause(&mut self, reason: Option<&str>) -> Result<(), Refused> {
        if self.policy.paused && reason.is_none_or(|reason| self.policy.pause_reason.as_deref() == Some(reason)) {
            return Err(Refused::NothingToDo(format!("{}:{} is paused already", self.product, self.channel)));
        }
        self.policy.paused = true;
        self.policy.pause_reason = reason.map(str::to_owned);
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        self.changes.push(format!("paused{why}"));
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Refused> {
        if !self.policy.paused {
            return Err(Refused::NothingToDo(format!("{}:{} is not paused", self.product, self.channel)));
        }
        self.policy.paused = false;
        self.policy.pause_reason = None;
        self.policy.resumed_at = Some(self.now);
        self.changes.push("resumed".to_owned());
        let percent = self.policy.rollout.percent_at(self.now);
        if percent > 0 && !self.policy.rollout.stages.is_empty() {
            self.warnings.push(format!("stages went on during the pause: the rollout is at {percent} % now"));
        }
        Ok(())
    }

    fn yank(&mut self, version: &Version, undo: bool) -> Result<(), Refused> {
        if undo {
            if !self.policy.yanked.remove(version) {
                return Err(Refused::NothingToDo(format!("{version} is not yanked")));
            }
            self.changes.push(format!("{version} may be installed again"));
            return Ok(());
        }
        if !self.view.releases.iter().any(|r| r.id.product == *self.product && r.id.version == *version) {
            return Err(Refused::NoRelease { product: self.product.clone(), version: version.clone() });
        }
        let count = self.policy.yanked.len();
        if !self.policy.yanked.insert(version.clone()) {
            return Err(Refused::NothingToDo(format!("{version} is yanked already")));
        }
        if count >= MAX_YANKED {
            let (product, channel) = (self.product.clone(), self.channel.clone());
            return Err(Refused::TooManyYanked { product, channel, count });
        }
        self.changes.push(format!("{version} is yanked"));
        if self.policy.version.as_ref() == Some(version) {
            self.warnings.push(format!(
                "the channel points to {version}: nobody installs anything until it points elsewhere (updraft channel set --release); nodes that have it keep it"
            ));
        }
        Ok(())
    }

    fn raise_floor(&mut self, wanted: &Version) -> Result<(), Refused> {
        let floor = self.view.floors.get(self.product);
        if let Some(floor) = floor.filter(|floor| wanted < floor) {
            let (product, floor) = (self.product.clone(), floor.clone());
            return Err(Refused::FloorFalls { product, floor, wanted: wanted.clone() });
        }
        if let Some(version) = self.policy.version.clone().filter(|version| version < wanted) {
            return Err(Refused::FloorAbove { wanted: wanted.clone(), version });
        }
        if floor == Some(wanted) {
            return Ok(());
        }
        let shut: Vec<String> = self
            .view
            .channels
            .iter()
            .filter(|((product, channel), policy)| {
                product == self.product
                    && channel != self.channel
                    && policy.version.as_ref().is_some_and(|v| v < wanted)
            })
            .map(|((_, channel), _)| channel.to_string())
            .collect();
        if !shut.is_empty() {
            self.warnings.push(format!("channels that point below the floor offer nothing now: {}", shut.join(", ")));
        }
        self.changes.push(format!("security floor: {} -> {wanted}", or_none(floor)));
        self.floor = Some(wanted.clone());
        Ok(())
    }
}
