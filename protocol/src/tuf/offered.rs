//! A role that its publisher has signed and that no snapshot lists yet.
//!
//! Clients never need this: what the snapshot does not list does not exist for them. A seed does,
//! before it signs a snapshot that lists the role.

use crate::time::UtcTime;

use super::envelope::Envelope;
use super::error::TufError;
use super::part::RoleName;
use super::role::Targets;
use super::signed_part::Role as _;
use super::trusted::{Expiry, Trusted, check_expiry, check_version};
use super::verified::Verified;

impl Trusted {
    /// Reads the next version of a delegated role: signed as a delegator in force asks, exactly one
    /// version after the one that the snapshot lists (1 where it lists none), not expired. What is
    /// trusted stays as it is.
    pub fn read_next(&self, role: &RoleName, bytes: &[u8], now: UtcTime) -> Result<Verified<Targets>, TufError> {
        let mut refusal = TufError::NotDelegated { role: role.clone() };
        if role.is_top_level() {
            return Err(refusal);
        }
        let envelope = Envelope::parse(role, bytes, Targets::MAX_BYTES)?;
        for (_, _, authority) in self.delegators(role) {
            match Verified::<Targets>::check(envelope.clone(), &authority) {
                Ok(metadata) => {
                    let listed = self.snapshot.as_ref().and_then(|snapshot| snapshot.role(role));
                    let next = listed.map_or(1, |listed| listed.version.saturating_add(1));
                    check_version(role, next, metadata.version)?;
                    check_expiry(&metadata, Expiry::Enforce(now))?;
                    return Ok(metadata);
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::{TargetInfo, fixture, sign_role};

    const ROLE: &str = "releases-editor";

    /// The next version of the release role, signed by the keys of these seeds.
    fn next(change: impl FnOnce(&mut Targets), seeds: &[u8]) -> (Trusted, Vec<u8>) {
        let mut repository = fixture::Repository::new();
        let trusted = repository.trusted();
        let targets = repository.targets(ROLE);
        targets.version += 1;
        targets.targets.insert("releases/editor/2.0.0/any/editor.zip".to_owned(), TargetInfo::of(b"two"));
        change(targets);
        let bytes = fixture::sign(targets, seeds);
        (trusted, bytes)
    }

    fn read(change: impl FnOnce(&mut Targets), seeds: &[u8]) -> Result<u64, TufError> {
        let (trusted, bytes) = next(change, seeds);
        trusted.read_next(&fixture::role(ROLE), &bytes, fixture::now()).map(|targets| targets.version)
    }

    #[test]
    fn the_next_version_is_read_before_a_snapshot_lists_it() {
        assert_eq!(read(|_| {}, &[fixture::RELEASES]), Ok(2));
    }

    #[test]
    fn another_key_than_the_delegated_one_does_not_do() {
        for seeds in [&[][..], &[fixture::TARGETS], &[fixture::CHANNELS]] {
            assert!(matches!(read(|_| {}, seeds), Err(TufError::Signatures { valid: 0, .. })));
        }
    }

    #[test]
    fn a_version_is_neither_repeated_nor_skipped() {
        for version in [1, 3, u64::MAX] {
            let found = read(|targets| targets.version = version, &[fixture::RELEASES]);
            assert_eq!(found, Err(TufError::Version { role: fixture::role(ROLE), expected: 2, found: version }));
        }
    }

    #[test]
    fn an_expired_version_is_of_no_use() {
        let found = read(|targets| targets.expires = fixture::now(), &[fixture::RELEASES]);
        assert!(matches!(found, Err(TufError::Expired { .. })));
    }

    #[test]
    fn what_nobody_delegates_to_is_not_read() {
        let (trusted, bytes) = next(|_| {}, &[fixture::RELEASES]);
        for name in ["releases-other", "targets", "snapshot"] {
            let found = trusted.read_next(&fixture::role(name), &bytes, fixture::now());
            assert_eq!(found, Err(TufError::NotDelegated { role: fixture::role(name) }));
        }
    }

    #[test]
    fn a_delegated_role_that_does_not_exist_yet_starts_with_version_1() {
        let mut repository = fixture::Repository::new();
        let (first, _) = repository.roles.remove(&fixture::role(ROLE)).expect("a role of the repository");
        let bytes = sign_role(&first, &[&fixture::key(fixture::RELEASES)]);
        let found = repository.trusted().read_next(&fixture::role(ROLE), &bytes, fixture::now());
        assert_eq!(found.map(|targets| targets.version), Ok(1));
    }
}
