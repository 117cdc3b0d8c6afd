use super::*;

/// The file that is changed on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Changed {
    Root,
    Timestamp,
    Snapshot,
    Targets,
}

fn signed_digest(bytes: &[u8]) -> Digest {
    let envelope = Envelope::parse(&role("any"), bytes, u64::MAX).expect("an envelope");
    envelope.signed_digest()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_file_changed_on_its_way_never_changes_what_was_signed(
        changed in prop::sample::select(vec![Changed::Root, Changed::Timestamp, Changed::Snapshot, Changed::Targets]),
        position: prop::sample::Index,
        byte: u8,
    ) {
        let mut repository = Repository::new();
        let mut trusted = repository.trusted();
        repository.root.version = 2;
        repository.bump("targets");
        let files = repository.files();
        let original = match changed {
            Changed::Root => &files.root,
            Changed::Timestamp => &files.timestamp,
            Changed::Snapshot => &files.snapshot,
            Changed::Targets => &files.roles[&role("targets")],
        };
        let mut bytes = original.clone();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if matches!(changed, Changed::Snapshot | Changed::Targets) {
            let _ = trusted.update_timestamp(&files.timestamp, enforce()).expect("a good timestamp");
        }
        if changed == Changed::Targets {
            let _ = trusted.update_snapshot(&files.snapshot, enforce()).expect("a good snapshot");
        }
        let outcome = match changed {
            Changed::Root => trusted.update_root(&bytes),
            Changed::Timestamp => trusted.update_timestamp(&bytes, enforce()).map(drop),
            Changed::Snapshot => trusted.update_snapshot(&bytes, enforce()).map(drop),
            Changed::Targets => trusted.update_targets(&role("targets"), &bytes, enforce()).map(drop),
        };
        if outcome.is_ok() {
            // Outside the signed part a change can be harmless (the case of a hexadecimal digit), but
            // a file that is pinned by its hash bears none at all.
            prop_assert_eq!(signed_digest(&bytes), signed_digest(original));
            prop_assert!(matches!(changed, Changed::Root | Changed::Timestamp) || bytes == *original);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut trusted = Repository::new().trusted();
        prop_assert!(trusted.update_root(&bytes).is_err());
        prop_assert!(trusted.update_timestamp(&bytes, enforce()).is_err());
        prop_assert!(trusted.update_snapshot(&bytes, enforce()).is_err());
        prop_assert!(trusted.update_targets(&role("targets"), &bytes, enforce()).is_err());
        prop_assert!(Trusted::from_trusted_root(&bytes).is_err());
    }
}
