//! What a verifier made of a case, in words that both verifiers share.
//!
//! Only what a client can tell is compared: how far each update came, which versions it ended with,
//! and where paths lead. What a verifier keeps of an update that it did not finish is its own affair,
//! until it shows in the next round.

use std::collections::BTreeMap;

/// What a verifier made of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Where the update stopped, if it did not come to its end.
    pub(crate) refusal: Option<Refusal>,
    /// What is trusted afterwards.
    pub(crate) trusted: Trusted,
    /// What each path of the round leads to; empty after a refusal.
    pub(crate) targets: Vec<Found>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The role whose file was refused.
    pub(crate) role: String,
    pub(crate) reason: String,
}

/// What is trusted, as far as both verifiers tell it. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Trusted {
    /// Version and bytes; nothing where the first root was refused.
    pub(crate) root: Option<(u64, Vec<u8>)>,
    /// Version, expiry, and the version of the snapshot.
    pub(crate) timestamp: Option<(u64, i64, u64)>,
    /// Version, expiry, and the versions of the roles.
    pub(crate) snapshot: Option<(u64, i64, BTreeMap<String, u64>)>,
    /// Version and expiry of each targets role that is loaded.
    pub(crate) roles: BTreeMap<String, (u64, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Target { length: u64, hashes: BTreeMap<String, String> },
    Nothing,
    Refused(Refusal),
}

/// The first thing that two verdicts differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The round, counted from 0.
    pub(crate) round: usize,
    /// Whose file is judged differently. Empty when no file is: a lookup that nobody refuses.
    pub(crate) role: String,
    /// The version of a root.
    pub(crate) version: u64,
    /// The path of a lookup.
    pub(crate) path: Option<String>,
    pub(crate) ours: Say,
    pub(crate) theirs: Say,
}

/// What one of the two says to the thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Say {
    /// Goes on; the text is what came of it, where that differs.
    Accepted(String),
    Refused(String),
    /// A lookup leads nowhere.
    Nothing,
}

impl Say {
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }

    pub(crate) fn is_refused_for(&self, part: &str) -> bool {
        matches!(self, Self::Refused(reason) if reason.contains(part))
    }

    /// One word for a vector file.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Refused(_) => "refused",
            Self::Nothing => "nothing",
        }
    }
}

/// The steps of an update in their order: whose file comes before whose.
fn step(role: &str) -> usize {
    ["root", "timestamp", "snapshot", "targets"].iter().position(|name| *name == role).unwrap_or(4)
}

/// Compares round by round, and in each round in the order of the workflow.
pub(crate) fn first_difference(ours: &[Verdict], theirs: &[Verdict], paths: &[&[String]]) -> Option<Difference> {
    for (round, (mine, other)) in ours.iter().zip(theirs).enumerate() {
        let found = roots(mine, other)
            .or_else(|| versions(mine, other))
            .or_else(|| progress(mine, other))
            .or_else(|| lookups(mine, other, paths.get(round).copied().unwrap_or_default()));
        if let Some(difference) = found {
            return Some(Difference { round, ..difference });
        }
    }
    None
}

fn difference(role: &str, ours: Say, theirs: Say) -> Difference {
    Difference { round: 0, role: role.to_owned(), version: 0, path: None, ours, theirs }
}

/// Who got less far along the chain of roots refused the next one.
fn roots(mine: &Verdict, other: &Verdict) -> Option<Difference> {
    if mine.trusted.root == other.trusted.root {
        return None;
    }
    let version = |verdict: &Verdict| verdict.trusted.root.as_ref().map(|(version, _)| *version);
    let (ours, theirs) = (version(mine), version(other));
    let say = |verdict: &Verdict, is_behind: bool| match &verdict.refusal {
        Some(refusal) if is_behind => Say::Refused(refusal.reason.clone()),
        _ => Say::Accepted(format!("{:?}", version(verdict))),
    };
    let found = difference("root", say(mine, ours < theirs), say(other, theirs < ours));
    // Nothing before the first root: version 0 stands for the root that the client starts with.
    Some(Difference { version: ours.min(theirs).map_or(0, |version| version.saturating_add(1)), ..found })
}

/// The step that an update stopped at; one more than the last when it went through.
fn stop(verdict: &Verdict) -> usize {
    verdict.refusal.as_ref().map_or(5, |refusal| step(&refusal.role))
}

fn progress(mine: &Verdict, other: &Verdict) -> Option<Difference> {
    let say = |verdict: &Verdict, first: usize| match &verdict.refusal {
        Some(refusal) if stop(verdict) == first => Say::Refused(refusal.reason.clone()),
        _ => Say::Accepted(String::new()),
    };
    let first = stop(mine).min(stop(other));
    if stop(mine) == stop(other) {
        return None;
    }
    let at = [mine, other]
        .into_iter()
        .filter_map(|verdict| verdict.refusal.as_ref())
        .find(|refusal| step(&refusal.role) == first);
    let role = at.map_or("", |refusal| refusal.role.as_str());
    let version = mine.trusted.root.as_ref().map_or(0, |(version, _)| *version);
    Some(Difference { version, ..difference(role, say(mine, first), say(other, first)) })
}

/// Steps that both went through, with another result.
fn versions(mine: &Verdict, other: &Verdict) -> Option<Difference> {
    let reached = stop(mine).min(stop(other));
    let (ours, theirs) = (&mine.trusted, &other.trusted);
    let shown = |shown: &dyn std::fmt::Debug| Say::Accepted(format!("{shown:?}"));
    if reached > step("timestamp") && ours.timestamp != theirs.timestamp {
        return Some(difference("timestamp", shown(&ours.timestamp), shown(&theirs.timestamp)));
    }
    if reached > step("snapshot") && ours.snapshot != theirs.snapshot {
        return Some(difference("snapshot", shown(&ours.snapshot), shown(&theirs.snapshot)));
    }
    if reached <= step("targets") {
        return None;
    }
    let mut both = ours.roles.iter().filter_map(|(name, mine)| Some((name, mine, theirs.roles.get(name)?)));
    let (name, mine, other) = both.find(|(_, mine, other)| mine != other)?;
    Some(difference(name, shown(mine), shown(other)))
}

fn lookups(mine: &Verdict, other: &Verdict, paths: &[String]) -> Option<Difference> {
    let pairs = mine.targets.iter().zip(&other.targets).zip(paths);
    let ((found, other), path) = pairs.into_iter().find(|((mine, other), _)| !mine.agrees(other))?;
    let refused = [found, other].into_iter().find_map(|found| match found {
        Found::Refused(refusal) => Some(refusal.role.as_str()),
        _ => None,
    });
    Some(Difference { path: Some(path.clone()), ..difference(refused.unwrap_or_default(), found.say(), other.say()) })
}

impl Verdict {
    /// Whether the whole round went through, lookups included.
    pub(crate) fn is_accepted(&self) -> bool {
        self.refusal.is_none() && !self.targets.iter().any(|found| matches!(found, Found::Refused(_)))
    }
}

impl Found {
    /// Each tells the reason of a refusal in words of its own.
    fn agrees(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Refused(_), Self::Refused(_)))
    }

    fn say(&self) -> Say {
        match self {
            Self::Target { length, hashes } => Say::Accepted(format!("{length} {hashes:?}")),
            Self::Nothing => Say::Nothing,
            Self::Refused(refusal) => Say::Refused(refusal.reason.clone()),
        }
    }
}
