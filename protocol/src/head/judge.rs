//! The verdict on a head.

use std::cmp::Ordering;

use crate::limits::MAX_HEAD_INLINES;
use crate::time::UtcTime;
use crate::tuf::{Expiry, FormError, Resolution, RoleName, Snapshot, Timestamp, Trusted, TufError, Verified};

use super::evidence::Evidence;
use super::wire::{Head, HeadError, Inline};

/// What to do with a head.
#[derive(Debug, Clone)]
#[must_use]
pub enum Verdict {
    /// Newer than what is trusted here, and verified: keep it, forward it.
    Accept(Box<Accepted>),
    /// Not wrong, but nothing to keep or forward.
    Ignore(Ignored),
    /// Wrong in itself, whoever reads it: do not forward, penalise the sender.
    Reject(Rejected),
    /// Proof that a key of the repository signed two contradicting files. The head is not kept.
    Equivocation(Box<Evidence>),
}

/// What an accepted head leads to.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What is trusted now: the new timestamp and snapshot, and the inline roles that could be applied.
    /// [`Trusted::missing_roles`] says what remains to be fetched.
    pub trusted: Trusted,
    /// The inline targets, by path, each as the new metadata signs it.
    pub targets: Vec<(String, Vec<u8>)>,
    /// The root version that the sender stated. Not signed: above one's own it is a reason to ask for
    /// roots, not to penalise anyone.
    pub root_version: u64,
}

/// Why a head is neither kept nor forwarded, though its sender may be honest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is the state trusted here.
    #[error("the head is known")]
    Same,
    /// It is older than what is trusted here: answer with the newer one.
    #[error("the head is older (timestamp version {timestamp_version}) than the one trusted here")]
    Older {
        /// The version of its timestamp.
        timestamp_version: u64,
    },
    /// It, or the root trusted here, has expired.
    #[error("the head has expired")]
    Expired,
    /// Its signatures do not hold under the root trusted here, and its sender has an older one: offer
    /// roots.
    #[error("the sender checks with an older root")]
    OlderRoot,
    /// Its signatures do not hold under the root trusted here, and its sender claims a newer one: fetch
    /// roots, and penalise a sender that has none.
    #[error("the sender checks with a newer root (version {version})")]
    NewerRoot {
        /// The version that the sender claims.
        version: u64,
    },
    /// Its timestamp is newer, but what it names goes back behind what is trusted here. A node that
    /// holds less cannot see that, so the sender may be honest; the repository was restored from a
    /// backup, or is attacked.
    #[error("the head goes back behind what is trusted here: {0}")]
    GoesBack(TufError),
}

/// Why a head is wrong whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not the one encoding of a head.
    #[error(transparent)]
    Encoding(#[from] HeadError),
    /// The timestamp or snapshot is not a canonical envelope.
    #[error("the head's {role} is not a canonical envelope")]
    NotCanonical {
        /// The role.
        role: RoleName,
    },
    /// Not exactly threshold many signatures, each valid and by a key of the role, under the root that
    /// the sender claims to share.
    #[error("the head's {role} is not exactly signed by its role's keys")]
    Signatures {
        /// The role.
        role: RoleName,
    },
    /// Metadata that does not hold together.
    #[error("the head does not hold together: {0}")]
    Metadata(TufError),
    /// An inline target that is not what the signed metadata says.
    #[error("the inline file '{}' is not what the signed metadata says", path.escape_debug())]
    InlineTarget {
        /// Its path.
        path: String,
    },
}

/// Judges a received head against what is trusted here. Changes nothing: the new state is in the
/// verdict.
pub fn judge(payload: &[u8], trusted: &Trusted, now: UtcTime) -> Verdict {
    match accept(payload, trusted, now) {
        Ok(accepted) => Verdict::Accept(Box::new(accepted)),
        Err(verdict) => verdict,
    }
}

fn accept(payload: &[u8], trusted: &Trusted, now: UtcTime) -> Result<Accepted, Verdict> {
    let head = Head::decode(payload).map_err(|error| Verdict::Reject(error.into()))?;
    let is_current = trusted.missing_snapshot().is_none();
    let same_timestamp = trusted.timestamp().is_some_and(|mine| mine.bytes() == head.timestamp);
    let same_snapshot = trusted.snapshot().is_some_and(|mine| mine.bytes() == head.snapshot);
    if is_current && same_timestamp && same_snapshot {
        return Err(Verdict::Ignore(Ignored::Same));
    }

    let (timestamp, snapshot) = trusted
        .read_pair(&head.timestamp, &head.snapshot)
        .map_err(|error| refuse_form(error, head.root_version, trusted))?;
    compare(trusted, is_current, &timestamp, &snapshot)?;

    let mut next = trusted.clone();
    let expiry = Expiry::Enforce(now);
    let step = |error| refuse_step(error, head.root_version, trusted);
    let _ = next.update_timestamp(timestamp.bytes(), expiry).map_err(step)?;
    let _ = next.update_snapshot(snapshot.bytes(), expiry).map_err(step)?;
    apply_roles(&mut next, &snapshot, &head.inlines, expiry).map_err(step)?;
    let targets = take_targets(&next, head.inlines)?;
    Ok(Accepted { trusted: next, targets, root_version: head.root_version })
}

/// Whether the verified head is newer than what is trusted here.
fn compare(
    trusted: &Trusted,
    is_current: bool,
    timestamp: &Verified<Timestamp>,
    snapshot: &Verified<Snapshot>,
) -> Result<(), Verdict> {
    if let Some(mine) = trusted.timestamp() {
        // Before its age is looked at: an older head, too, can show that this node was told another
        // history than others.
        if Timestamp::contradicts(mine, timestamp) {
            return Err(Verdict::Equivocation(Box::new(Evidence::of_timestamps(mine, timestamp))));
        }
        if timestamp.version < mine.version {
            return Err(Verdict::Ignore(Ignored::Older { timestamp_version: timestamp.version }));
        }
        if timestamp.version == mine.version && is_current {
            return Err(Verdict::Ignore(Ignored::Same));
        }
    }
    if let Some(found) = trusted.snapshot().and_then(|mine| Evidence::of_one_version(mine, snapshot)) {
        return Err(Verdict::Equivocation(Box::new(found)));
    }
    Ok(())
}

/// Applies the inline roles, parents before children whatever their order in the head. A role whose
/// delegator is not loaded yet is left for later: the snapshot pins its bytes, so it is no junk.
fn apply_roles(
    next: &mut Trusted,
    snapshot: &Verified<Snapshot>,
    inlines: &[Inline],
    expiry: Expiry,
) -> Result<(), TufError> {
    let mut waiting: Vec<(&RoleName, &[u8])> = Vec::with_capacity(inlines.len());
    for inline in inlines {
        let Inline::Role { name, version, bytes } = inline else {
            continue;
        };
        let meta = snapshot.role(name).ok_or_else(|| TufError::NotListed { role: name.clone() })?;
        if meta.version != *version {
            return Err(TufError::Version { role: name.clone(), expected: meta.version, found: *version });
        }
        if !meta.pins(bytes) {
            return Err(TufError::Hash { role: name.clone(), algorithm: "sha256".to_owned() });
        }
        waiting.push((name, bytes));
    }
    // Each round applies one role at least or is the last.
    for _ in 0..=MAX_HEAD_INLINES {
        let before = waiting.len();
        let mut still = Vec::new();
        for (name, bytes) in waiting {
            match next.update_targets(name, bytes, expiry) {
                Ok(_) | Err(TufError::Expired { .. }) => {}
                Err(TufError::NotDelegated { .. }) => still.push((name, bytes)),
                Err(error) => return Err(error),
            }
        }
        if still.is_empty() || still.len() == before {
            break;
        }
        waiting = still;
    }
    Ok(())
}

/// Keeps the inline targets that the new metadata signs; those that nobody can judge before more
/// roles are loaded are left out.
fn take_targets(next: &Trusted, inlines: Vec<Inline>) -> Result<Vec<(String, Vec<u8>)>, Verdict> {
    let mut targets = Vec::new();
    for inline in inlines {
        let Inline::Target { path, bytes } = inline else {
            continue;
        };
        match next.resolve(&path) {
            Resolution::Found { target, .. } if target.matches(&bytes) => {
                targets.push((path, bytes));
            }
            Resolution::Found { .. } | Resolution::NotFound => {
                return Err(Verdict::Reject(Rejected::InlineTarget { path }));
            }
            Resolution::Needs(_) => {}
        }
    }
    Ok(targets)
}

/// Signatures that do not hold: a forgery if the sender has the same root, else perhaps another root.
fn refuse_signatures(role: RoleName, root_version: u64, trusted: &Trusted) -> Verdict {
    match root_version.cmp(&trusted.root().version) {
        Ordering::Greater => Verdict::Ignore(Ignored::NewerRoot { version: root_version }),
        Ordering::Less => Verdict::Ignore(Ignored::OlderRoot),
        Ordering::Equal => Verdict::Reject(Rejected::Signatures { role }),
    }
}

fn refuse_form(error: FormError, root_version: u64, trusted: &Trusted) -> Verdict {
    match error {
        FormError::Signatures(role) => refuse_signatures(role, root_version, trusted),
        FormError::NotCanonical(role) => Verdict::Reject(Rejected::NotCanonical { role }),
        FormError::Metadata(error) => refuse_step(error, root_version, trusted),
    }
}

fn refuse_step(error: TufError, root_version: u64, trusted: &Trusted) -> Verdict {
    match error {
        TufError::Expired { .. } => Verdict::Ignore(Ignored::Expired),
        TufError::Rollback { .. } | TufError::Removed { .. } => Verdict::Ignore(Ignored::GoesBack(error)),
        TufError::Signatures { role, .. } => refuse_signatures(role, root_version, trusted),
        other => Verdict::Reject(Rejected::Metadata(other)),
    }
}

#[cfg(test)]
mod tests;
