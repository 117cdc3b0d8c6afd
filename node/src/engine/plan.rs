//! Which release should this node run, and may it now?
//!
//! Pure policy: a subscription's facts and the signed catalog in, a decision and every gate's
//! verdict out. A closed gate is a value with a reason and the time at which it may open, never an
//! error. Whether a caller of `GET /update` may have a release is decided by the same gates.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::release::Release;
use updraft_protocol::rollout::{BUCKETS, ChannelPolicy, Opens, bucket};
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{Freshness, RoleName};

use super::catalog::CatalogView;
use super::evidence;
use super::install::Holds;
use super::maintenance::OwnWindows;

/// Seconds for which a head is believed while a rollout is under way: a pause hidden for longer than
/// this stops installs.
const ROLLOUT_HEAD_AGE_S: i64 = 24 * 3600;

/// A condition on installing a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateName {
    /// The channel exists and names a release.
    Channel,
    /// The release has a build for this platform and may appear on this channel.
    Platform,
    /// It is newer than what is installed, or the channel allows this downgrade.
    Version,
    /// It is not below the product's security floor.
    Floor,
    /// The installed version is new enough to step from, or another release leads there.
    MinFrom,
    /// The channel is not paused.
    Pause,
    /// The release was not yanked.
    Yank,
    /// The wall clock can be believed.
    Clock,
    /// The rollout has reached this node.
    Rollout,
    /// A maintenance window is open.
    Window,
    /// This artifact did not fail here.
    Quarantine,
    /// No operator keeps it from being installed.
    Hold,
    /// There is room for it, and the place can be written.
    Disk,
    /// The signed metadata is fresh enough to act on.
    Freshness,
    /// No key that vouches for it is known to have signed two contradicting files.
    Equivocation,
}

impl GateName {
    /// Every gate, in the order in which they are looked at.
    pub const ALL: [Self; 15] = [
        Self::Channel,
        Self::Platform,
        Self::Version,
        Self::MinFrom,
        Self::Floor,
        Self::Yank,
        Self::Pause,
        Self::Quarantine,
        Self::Hold,
        Self::Disk,
        Self::Clock,
        Self::Rollout,
        Self::Window,
        Self::Freshness,
        Self::Equivocation,
    ];

    /// The name in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Platform => "platform",
            Self::Version => "version",
            Self::Floor => "floor",
            Self::MinFrom => "min_from",
            Self::Pause => "pause",
            Self::Yank => "yank",
            Self::Clock => "clock",
            Self::Rollout => "rollout",
            Self::Window => "window",
            Self::Quarantine => "quarantine",
            Self::Hold => "hold",
            Self::Disk => "disk",
            Self::Freshness => "freshness",
            Self::Equivocation => "equivocation",
        }
    }
}

/// One gate's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Which.
    pub name: GateName,
    /// Whether it lets the release through.
    pub open: bool,
    /// Why, for people.
    pub reason: String,
    /// When it may open, where that is known.
    pub opens_at: Option<UtcTime>,
}

/// What a subscriber is and has.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The product.
    pub product: &'a Product,
    /// The channel followed.
    pub channel: &'a Channel,
    /// What the node runs on.
    pub platform: &'a Platform,
    /// What is installed.
    pub installed: Option<&'a Version>,
    /// Places the node in a rollout; `None` is treated as last in line.
    pub node_id: Option<&'a [u8]>,
    /// Artifacts that failed here, and what they did.
    pub quarantine: Option<&'a BTreeMap<Digest, String>>,
    /// The artifact for which an operator does not wait for the rollout.
    pub hurry: Option<&'a Digest>,
    /// What an operator keeps from being installed.
    pub holds: Option<&'a Holds>,
    /// An artifact for which there is no room, or no permission, now.
    pub disk: Option<Disk<'a>>,
    /// When the machine may change; `None` where nothing changes on it.
    pub window: Option<&'a OwnWindows>,
}

/// Why an artifact could not be unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Disk<'a> {
    /// The artifact.
    pub artifact: &'a Digest,
    /// What is missing.
    pub reason: &'a str,
    /// When it is tried again.
    pub look_at: UtcTime,
}

/// What the gates add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The release that the channel offers to this node, whether or not it may be installed now.
    pub offered: Option<Arc<Release>>,
    /// Every gate, in the order of [`GateName::ALL`], whatever the verdict is.
    pub gates: Vec<Gate>,
    /// What follows.
    pub verdict: Verdict,
}

/// What follows from the gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing newer is offered.
    UpToDate,
    /// Install what is offered.
    Install,
    /// Something is offered and a gate is closed.
    Blocked,
    /// Nothing is offered.
    Nothing,
}

impl Decision {
    /// The first closed gate.
    pub fn blocked_by(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| !gate.open)
    }

    /// Whether nothing but the clock keeps this from being installed. Bytes may come in meanwhile: what
    /// they are does not depend on the time.
    pub fn waits_for_the_clock(&self) -> bool {
        let closed = |gate: &&Gate| !gate.open;
        let of_time = |gate: &Gate| {
            matches!(gate.name, GateName::Clock | GateName::Rollout | GateName::Freshness | GateName::Window)
        };
        self.verdict == Verdict::Blocked
            && self.gates.iter().any(|gate| !gate.open && gate.name == GateName::Clock)
            && self.gates.iter().filter(closed).all(of_time)
    }

    /// Whether nothing but the disk keeps this from being installed: what is fetched already waits for it.
    pub fn waits_for_the_disk(&self) -> bool {
        self.waits_only_for(GateName::Disk)
    }

    /// Whether nothing but the hours of maintenance keeps this from being installed: what has begun in them is
    /// ended after them.
    pub fn waits_for_maintenance(&self) -> bool {
        self.waits_only_for(GateName::Window)
    }

    fn waits_only_for(&self, name: GateName) -> bool {
        self.verdict == Verdict::Blocked && self.gates.iter().all(|gate| gate.open || gate.name == name)
    }

    /// Whether the release may be fetched ahead of its install: only the time is still to come. A rollout
    /// that has not come may yet be stopped, and its bytes stay where they are.
    pub fn may_fetch_ahead(&self) -> bool {
        self.waits_for_maintenance() || self.waits_for_the_clock()
    }

    fn gate(&mut self, name: GateName, open: bool, reason: String, opens_at: Option<UtcTime>) -> bool {
        self.gates.push(Gate { name, open, reason, opens_at });
        open
    }
}

/// Decides for one subscriber.
pub fn plan(view: &CatalogView, facts: &Facts<'_>, now: UtcTime) -> Decision {
    let mut decision = Decision { offered: None, gates: Vec::new(), verdict: Verdict::Nothing };
    let Some((policy, release)) = target(&mut decision, view, facts) else {
        let looked_at = decision.gates.len();
        for name in GateName::ALL.into_iter().skip(looked_at) {
            decision.gate(name, true, "nothing is offered that it could keep back".to_owned(), None);
        }
        return decision;
    };
    let version = &release.id.version;
    if facts.installed == Some(version) {
        decision.gate(GateName::Version, true, format!("{version} is installed"), None);
        decision.gate(GateName::MinFrom, true, format!("{version} is installed"), None);
        remaining_gates(&mut decision, view, policy, facts, &Step { target: &release, next: &release }, now);
        decision.verdict = Verdict::UpToDate;
        decision.offered = Some(release);
        return decision;
    }
    let goes_there = version_gate(&mut decision, policy, facts, version);
    let next = step(&mut decision, view, facts, &release);
    remaining_gates(&mut decision, view, policy, facts, &Step { target: &release, next: &next }, now);
    decision.verdict = match decision.blocked_by() {
        _ if !goes_there => Verdict::UpToDate,
        None => Verdict::Install,
        Some(_) => Verdict::Blocked,
    };
    decision.offered = Some(next).filter(|_| goes_there);
    decision
}

/// The release that the channel offers to this node, and the policy that does.
fn target<'a>(
    decision: &mut Decision,
    view: &'a CatalogView,
    facts: &Facts<'_>,
) -> Option<(&'a ChannelPolicy, Arc<Release>)> {
    let (product, channel) = (facts.product, facts.channel);
    let Some(policy) = view.channels.get(&(product.clone(), channel.clone())) else {
        let reason = format!("the repository has no channel '{channel}' for {product}");
        decision.gate(GateName::Channel, false, reason, None);
        return None;
    };
    let Some(wanted) = &policy.version else {
        decision.gate(GateName::Channel, false, format!("channel '{channel}' names no release yet"), None);
        return None;
    };
    decision.gate(GateName::Channel, true, format!("channel '{channel}' is at {wanted}"), None);
    let Some(release) = view.release(product, wanted, facts.platform).cloned() else {
        let reason = format!("{product} {wanted} has no build for {}", facts.platform);
        decision.gate(GateName::Platform, false, reason, None);
        return None;
    };
    if !release.channels.contains(channel) {
        let reason = format!("the publisher did not permit {product} {wanted} on channel '{channel}'");
        decision.gate(GateName::Platform, false, reason, None);
        return None;
    }
    decision.gate(GateName::Platform, true, format!("a build for {} exists", release.id.platform), None);
    Some((policy, release))
}

fn version_gate(decision: &mut Decision, policy: &ChannelPolicy, facts: &Facts<'_>, wanted: &Version) -> bool {
    let Some(installed) = facts.installed else {
        return decision.gate(GateName::Version, true, "nothing is installed yet".to_owned(), None);
    };
    if wanted > installed {
        return decision.gate(GateName::Version, true, format!("{wanted} is newer than {installed}"), None);
    }
    let allowed = policy.allow_downgrade_to.as_ref() == Some(wanted);
    let reason = if allowed {
        format!("the channel allows the downgrade from {installed} to {wanted}")
    } else {
        format!("{wanted} is older than {installed}, and the channel does not allow that downgrade")
    };
    decision.gate(GateName::Version, allowed, reason, None)
}

/// What the channel points to, and what is installed on the way there.
struct Step<'a> {
    target: &'a Release,
    /// The target itself, or a release that leads to it.
    next: &'a Release,
}

/// The release to install now: `target` where the installed version may step there, else the newest that
/// it may step to. What may be stepped to from one version may be from every newer one, so that the newest
/// is never a detour into a dead end.
fn step(decision: &mut Decision, view: &CatalogView, facts: &Facts<'_>, target: &Arc<Release>) -> Arc<Release> {
    let version = &target.id.version;
    let (Some(min_from), Some(installed)) = (&target.min_from, facts.installed) else {
        decision.gate(GateName::MinFrom, true, format!("{version} installs over anything"), None);
        return target.clone();
    };
    if installed >= min_from {
        let reason = format!("{version} installs over {min_from} or newer");
        decision.gate(GateName::MinFrom, true, reason, None);
        return target.clone();
    }
    let floor = view.floors.get(facts.product);
    // What was found bad on another channel is no way to get anywhere on this one.
    let is_yanked = |version: &Version| {
        let of_product = view.channels.iter().filter(|((product, _), _)| product == facts.product);
        of_product.map(|(_, policy)| policy).any(|policy| policy.yanked.contains(version))
    };
    let leads_on = |release: &&Arc<Release>| {
        let version = &release.id.version;
        release.channels.contains(facts.channel)
            && release.min_from.as_ref().is_none_or(|from| installed >= from)
            && floor.is_none_or(|floor| version >= floor)
            && !is_yanked(version)
            && !facts.quarantine.is_some_and(|set| set.contains_key(&release.artifact))
    };
    let between = view.releases.iter().rev().filter(|release| {
        release.id.product == *facts.product && release.id.version > *installed && release.id.version < *version
    });
    // Of several builds of a version, only the one that this node would take.
    let stone = between
        .filter(leads_on)
        .find_map(|release| view.release(facts.product, &release.id.version, facts.platform).filter(leads_on));
    let reason = match stone {
        Some(stone) => format!("{version} installs over {min_from} or newer; {} comes first", stone.id.version),
        None => format!("{version} installs over {min_from} or newer, and nothing here leads there from {installed}"),
    };
    decision.gate(GateName::MinFrom, stone.is_some(), reason, None);
    stone.unwrap_or(target).clone()
}

fn remaining_gates(
    decision: &mut Decision,
    view: &CatalogView,
    policy: &ChannelPolicy,
    facts: &Facts<'_>,
    step: &Step<'_>,
    now: UtcTime,
) {
    let version = &step.target.id.version;
    let floor = view.floors.get(facts.product);
    let reason =
        floor.map_or_else(|| "no security floor is set".to_owned(), |floor| format!("the security floor is {floor}"));
    decision.gate(GateName::Floor, floor.is_none_or(|floor| version >= floor), reason, None);
    let yanked = policy.yanked.contains(version);
    let reason = if yanked { format!("{version} was yanked") } else { "not yanked".to_owned() };
    decision.gate(GateName::Yank, !yanked, reason, None);
    let reason = match (&policy.pause_reason, policy.paused) {
        (_, false) => "not paused".to_owned(),
        (None, true) => "the channel is paused".to_owned(),
        (Some(why), true) => format!("the channel is paused: {why}"),
    };
    decision.gate(GateName::Pause, !policy.paused, reason, None);
    machine_gates(decision, facts, step);
    // Before the gates that ask what time it is.
    let clock = view.clock.judge(now);
    decision.gate(GateName::Clock, clock.is_trusted(), clock.reason(now), None);
    rollout_gate(decision, policy, facts, step, now);
    window_gate(decision, facts, step, now);
    freshness_gate(decision, view, policy, facts.product, now);
    let found = view.contradictions.iter().find(|found| evidence::concerns(found, facts.product));
    let reason = match found {
        Some(found) => format!("{found}; the {} key must be replaced first", found.role),
        None => "no key that vouches for it is known to contradict itself".to_owned(),
    };
    decision.gate(GateName::Equivocation, found.is_none(), reason, None);
}

/// What happened on this machine, and what its operator said.
fn machine_gates(decision: &mut Decision, facts: &Facts<'_>, step: &Step<'_>) {
    let failed = |release: &Release| facts.quarantine.and_then(|all| all.get(&release.artifact));
    let failed = [step.target, step.next].into_iter().find_map(|one| Some((&one.id.version, failed(one)?)));
    let reason = match failed {
        Some((version, why)) => format!("this build of {version} failed here: {why}; `updraft install` tries it again"),
        None => "it did not fail here".to_owned(),
    };
    decision.gate(GateName::Quarantine, failed.is_none(), reason, None);
    let held = |release: &Release| facts.holds.and_then(|holds| holds.of(&release.id.version));
    let held = [step.target, step.next].into_iter().find_map(held);
    let reason = match &held {
        Some(why) => format!("{why}; `updraft unhold {}` lifts it", facts.product),
        None => "nobody holds it".to_owned(),
    };
    decision.gate(GateName::Hold, held.is_none(), reason, None);
    match facts.disk.filter(|disk| *disk.artifact == step.next.artifact) {
        Some(disk) => decision.gate(GateName::Disk, false, disk.reason.to_owned(), Some(disk.look_at)),
        None => decision.gate(GateName::Disk, true, "nothing is known to be in its way".to_owned(), None),
    };
}

/// Whoever steps there over another release waits for the turn of the release that it steps to.
fn rollout_gate(decision: &mut Decision, policy: &ChannelPolicy, facts: &Facts<'_>, step: &Step<'_>, now: UtcTime) {
    let percent = policy.rollout.percent_at(now);
    // A caller without an id comes last: it is served when everybody is.
    let place = facts.node_id.map_or(BUCKETS - 1, |id| bucket(&step.target.artifact, id));
    let (open, opens_at) = match policy.rollout.opens_at(place, now) {
        Opens::Now => (true, None),
        Opens::At(time) => (false, Some(time)),
        Opens::Never => (false, None),
    };
    if !open && facts.hurry == Some(&step.next.artifact) {
        let reason = format!("the rollout is at {percent} %; an operator asked not to wait for it");
        decision.gate(GateName::Rollout, true, reason, None);
        return;
    }
    let mut turn = String::new();
    if percent < 100 {
        let bucket = place + 1;
        turn = format!("; the turn of this node comes at {}.{:02} %", bucket / 100, bucket % 100);
    }
    if !open && opens_at.is_none() {
        let (product, channel) = (facts.product, facts.channel);
        turn = format!(
            "{turn}, which no stage reaches: `updraft channel set {product}:{channel} --rollout ...` at the seed goes on; `updraft install {product} --now` here does not wait"
        );
    }
    decision.gate(GateName::Rollout, open, format!("the rollout is at {percent} %{turn}"), opens_at);
}

fn window_gate(decision: &mut Decision, facts: &Facts<'_>, step: &Step<'_>, now: UtcTime) {
    let Some(state) = facts.window.map(|windows| windows.at(now)) else {
        decision.gate(GateName::Window, true, "nothing changes on this machine".to_owned(), None);
        return;
    };
    let passes = if step.target.critical || step.next.critical {
        Some(format!("{} is critical and does not wait for maintenance", step.target.id.version))
    } else {
        (facts.hurry == Some(&step.next.artifact)).then(|| "an operator asked not to wait for maintenance".to_owned())
    };
    match passes.filter(|_| !state.open) {
        Some(reason) => decision.gate(GateName::Window, true, reason, None),
        None => decision.gate(GateName::Window, state.open, state.reason, state.opens_at),
    };
}

fn freshness_gate(
    decision: &mut Decision,
    view: &CatalogView,
    policy: &ChannelPolicy,
    product: &Product,
    now: UtcTime,
) {
    let trusted = &view.trusted;
    let releases = RoleName::releases(product);
    let verdicts = [
        trusted.freshness(now),
        trusted.role_freshness(&RoleName::channels(), now),
        trusted.role_freshness(&releases, now),
    ];
    let (mut open, mut reason) = (true, "the metadata is fresh".to_owned());
    for verdict in verdicts {
        match verdict {
            Freshness::Fresh { .. } => continue,
            Freshness::Expired { role, since } => {
                reason = format!("{role} metadata expired at {since}; its keys must sign it again at the seed");
            }
            Freshness::Incomplete { missing } => reason = format!("{missing} metadata is still missing"),
        }
        open = false;
        break;
    }
    let rolling = policy.rollout.percent_at(now) < 100;
    let limit_s = policy
        .max_head_age_s
        .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX))
        .or(rolling.then_some(ROLLOUT_HEAD_AGE_S));
    let signed_at = trusted.timestamp().and_then(|timestamp| timestamp.signed_at);
    if let (true, Some(limit_s)) = (open, limit_s) {
        let age_s = signed_at.map(|signed_at| now.seconds_since(signed_at));
        open = age_s.is_some_and(|age_s| age_s <= limit_s);
        if !open {
            let age = age_s.map_or_else(|| "of unknown age".to_owned(), |age_s| format!("{age_s} s old"));
            reason = format!("the head is {age}, the channel allows {limit_s} s: a pause may be hidden from this node");
        }
    }
    decision.gate(GateName::Freshness, open, reason, None);
}
