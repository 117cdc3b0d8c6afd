//! Our verifier as a client drives it: the order of TUF section 5, from what a mirror serves.

use std::collections::BTreeMap;

use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{Expiry, Freshness, Resolution, RoleName, Trusted, TufError};

use crate::case::{Case, Round};
use crate::verdict::{self, Found, Refusal, Verdict};

fn refusal(role: &str, error: &TufError) -> Refusal {
    Refusal { role: role.to_owned(), reason: error.to_string() }
}

fn missing(role: &str) -> Refusal {
    Refusal { role: role.to_owned(), reason: "not served".to_owned() }
}

pub(crate) fn judge(case: &Case) -> Vec<Verdict> {
    let mut trusted = match Trusted::from_trusted_root(&case.root) {
        Ok(trusted) => trusted,
        Err(error) => {
            let refusal = Some(refusal("root", &error));
            return vec![Verdict { refusal, trusted: verdict::Trusted::default(), targets: Vec::new() }];
        }
    };
    case.rounds.iter().map(|round| one_round(&mut trusted, round)).collect()
}

fn one_round(trusted: &mut Trusted, round: &Round) -> Verdict {
    let now = UtcTime::from_unix(round.now);
    let refusal = refresh(trusted, round, now).err();
    let mut targets = Vec::new();
    if refusal.is_none() {
        targets.extend(round.paths.iter().map(|path| look_up(trusted, round, path, now)));
    }
    Verdict { refusal, trusted: state(trusted), targets }
}

/// A metadata file under the name that a client asks for.
fn fetch<'a>(trusted: &Trusted, round: &'a Round, role: &RoleName, version: u64) -> Result<&'a [u8], Refusal> {
    let stem = role.file_stem();
    let file =
        if trusted.root().consistent_snapshot { format!("{version}.{stem}.json") } else { format!("{stem}.json") };
    round.serve(&file).ok_or_else(|| missing(role.as_str()))
}

fn refresh(trusted: &mut Trusted, round: &Round, now: UtcTime) -> Result<(), Refusal> {
    let expiry = Expiry::Enforce(now);
    while let Some(next) = trusted.root().version.checked_add(1) {
        let Some(bytes) = round.serve(&format!("{next}.root.json")) else { break };
        trusted.update_root(bytes).map_err(|error| refusal("root", &error))?;
    }
    let bytes = round.serve("timestamp.json").ok_or_else(|| missing("timestamp"))?;
    let _ = trusted.update_timestamp(bytes, expiry).map_err(|error| match &error {
        // The check of the root comes with the first step after it.
        TufError::Expired { role, .. } if *role == RoleName::root() => refusal("root", &error),
        _ => refusal("timestamp", &error),
    })?;

    let role = RoleName::snapshot();
    if let Some(request) = trusted.missing_snapshot() {
        let bytes = fetch(trusted, round, &role, request.version)?;
        let _ = trusted.update_snapshot(bytes, expiry).map_err(|error| refusal("snapshot", &error))?;
    }
    let role = RoleName::targets();
    let version = trusted.snapshot().and_then(|snapshot| snapshot.role(&role)).map(|meta| meta.version);
    let loaded = trusted.role(&role).map(|targets| targets.version);
    if loaded.is_none() || loaded != version {
        let version = version.ok_or_else(|| missing("targets"))?;
        let bytes = fetch(trusted, round, &role, version)?;
        let _ = trusted.update_targets(&role, bytes, expiry).map_err(|error| refusal("targets", &error))?;
    }
    match trusted.freshness(now) {
        Freshness::Fresh { .. } => Ok(()),
        Freshness::Expired { role, since } => {
            Err(refusal(role.as_str(), &TufError::Expired { role: role.clone(), since }))
        }
        Freshness::Incomplete { missing: role } => Err(missing(role.as_str())),
    }
}

fn look_up(trusted: &mut Trusted, round: &Round, path: &str, now: UtcTime) -> Found {
    loop {
        match trusted.resolve(path) {
            Resolution::NotFound => return Found::Nothing,
            Resolution::Found { role, target } => {
                if let Freshness::Expired { role, since } = trusted.role_freshness(&role, now) {
                    let error = TufError::Expired { role: role.clone(), since };
                    return Found::Refused(refusal(role.as_str(), &error));
                }
                let hashes = target.hashes.iter().map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect();
                return Found::Target { length: target.length, hashes };
            }
            Resolution::Needs(request) => {
                let name = request.role.as_str();
                let bytes = match fetch(trusted, round, &request.role, request.version) {
                    Ok(bytes) => bytes,
                    Err(refusal) => return Found::Refused(refusal),
                };
                if let Err(error) = trusted.update_targets(&request.role, bytes, Expiry::Enforce(now)) {
                    return Found::Refused(refusal(name, &error));
                }
            }
        }
    }
}

fn state(trusted: &Trusted) -> verdict::Trusted {
    let role = |name: &RoleName| {
        trusted.role(name).map(|targets| (name.as_str().to_owned(), (targets.version, targets.expires.unix())))
    };
    verdict::Trusted {
        root: Some((trusted.root().version, trusted.root().bytes().to_vec())),
        timestamp: trusted
            .timestamp()
            .map(|timestamp| (timestamp.version, timestamp.expires.unix(), timestamp.snapshot.version)),
        snapshot: trusted.snapshot().map(|snapshot| {
            let versions: BTreeMap<String, u64> =
                snapshot.meta.iter().map(|(file, meta)| (file.clone(), meta.version)).collect();
            (snapshot.version, snapshot.expires.unix(), versions)
        }),
        roles: trusted.loaded_roles().filter_map(role).collect(),
    }
}
