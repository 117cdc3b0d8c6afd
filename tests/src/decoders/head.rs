//! The gossiped head.
//!
//! The input is a head whose timestamp, snapshot and roles are signed parts. It is judged as it is,
//! which never goes far, and *mended*: signed, and its hashes set right, as the thief of the online
//! keys could send it.

use serde_json::{Value, json};
use updraft_protocol::canonical;
use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Accepted, Evidence, Head, Ignored, Inline, Rejected, Verdict, judge};
use updraft_protocol::limits::{MAX_EVIDENCE_BYTES, MAX_HEAD_BYTES, MAX_HEAD_INLINES};
use updraft_protocol::tuf::{Resolution, RoleName, Snapshot, Targets, Timestamp, Trusted};

use super::repository::{
    CHANNELS, RELEASES, SNAPSHOT, STRANGER, TARGETS, TIMESTAMP, enforce, fixture, is_signed_by, now, sealed, version_in,
};

/// A head has one encoding; it is accepted only when it is signed by the right keys, exactly, and
/// newer; what a verdict claims can be checked.
pub fn head(bytes: &[u8]) -> bool {
    let Ok(head) = Head::decode(bytes) else {
        for node in nodes() {
            assert!(matches!(judge(bytes, node, now()), Verdict::Reject(Rejected::Encoding(_))));
        }
        return false;
    };
    assert_eq!(head.encode(), bytes, "a second encoding");
    assert!(head.inlines.len() <= MAX_HEAD_INLINES && bytes.len() <= MAX_HEAD_BYTES);
    let accepted = judged(&head);
    let Some(mended) = mend(&head, &[TIMESTAMP], &[SNAPSHOT]) else { return accepted };
    let accepted = judged(&mended);
    if !accepted {
        return false;
    }
    // The same by the wrong keys, by one key too many, and the other way round.
    for (timestamp, snapshot) in
        [(&[STRANGER][..], &[SNAPSHOT][..]), (&[TIMESTAMP], &[STRANGER]), (&[SNAPSHOT], &[TIMESTAMP])]
    {
        let forged = mend(&head, timestamp, snapshot).expect("it was mended before");
        for node in nodes() {
            let verdict = judge(&forged.encode(), node, now());
            assert!(matches!(verdict, Verdict::Ignore(_) | Verdict::Reject(_)), "forged: {verdict:?}");
        }
    }
    let surplus = mend(&head, &[TIMESTAMP, STRANGER], &[SNAPSHOT]).expect("it was mended before");
    for node in nodes() {
        let verdict = judge(&surplus.encode(), node, now());
        assert!(!matches!(verdict, Verdict::Accept(_) | Verdict::Equivocation(_)), "surplus: {verdict:?}");
    }
    true
}

/// Evidence whose files are signed parts: judged as it is, and signed with the keys of its role. It proves
/// something only where both files are signed and differ, and never against who did not sign.
pub fn evidence(bytes: &[u8]) -> bool {
    let Ok(evidence) = Evidence::decode(bytes) else { return false };
    let encoded = evidence.encode();
    assert_eq!(Evidence::decode(&encoded).as_ref(), Ok(&evidence), "evidence that does not survive its encoding");
    assert!(encoded.len() <= MAX_EVIDENCE_BYTES && evidence.one <= evidence.other);
    let node = &fixture().node;
    if evidence.verify(node).is_ok() {
        check_proof(&evidence);
    }
    let sealed_by = |seeds: &[u8]| {
        let seal = |part: &[u8]| match evidence.role.as_str() {
            "timestamp" => sealed::<Timestamp>(&evidence.role, part, seeds),
            "snapshot" => sealed::<Snapshot>(&evidence.role, part, seeds),
            _ => sealed::<Targets>(&evidence.role, part, seeds),
        };
        let (one, other) = (seal(&evidence.one)?, seal(&evidence.other)?);
        Some(Evidence { one, other, ..evidence.clone() })
    };
    let Some(mended) = sealed_by(&[TIMESTAMP, SNAPSHOT, TARGETS, CHANNELS, RELEASES]) else { return false };
    let proven = mended.verify(node).is_ok();
    if proven {
        check_proof(&mended);
        let forged = sealed_by(&[STRANGER]).expect("it was sealed before");
        assert!(forged.verify(node).is_err(), "evidence by a stranger");
        let twice = Evidence { other: mended.one.clone(), ..mended.clone() };
        assert!(twice.verify(node).is_err(), "one file contradicts itself");
    }
    proven
}

/// Both files carry a signature of a key that may sign the role, and what they sign differs.
fn check_proof(evidence: &Evidence) {
    let seed = match evidence.role.as_str() {
        "timestamp" => TIMESTAMP,
        "snapshot" => SNAPSHOT,
        "targets" => TARGETS,
        "channels" => CHANNELS,
        _ => RELEASES,
    };
    assert!(is_signed_by(&evidence.one, seed) && is_signed_by(&evidence.other, seed), "proof without signatures");
    let part = |file: &[u8]| canonical::parse(file).map(|value| canonical::encode(&value["signed"]));
    assert_ne!(part(&evidence.one), part(&evidence.other), "a proof of nothing");
}

fn nodes() -> [&'static Trusted; 2] {
    let fixture = fixture();
    [&fixture.node, &fixture.new_node]
}

/// Whether any node accepts it.
fn judged(head: &Head) -> bool {
    let payload = head.encode();
    let mut is_accepted = false;
    for node in nodes() {
        match judge(&payload, node, now()) {
            Verdict::Accept(accepted) => {
                check_accepted(head, &accepted, node);
                is_accepted = true;
            }
            Verdict::Equivocation(evidence) => {
                evidence.verify(node).expect("evidence that anyone can check");
                let seed = if evidence.role == RoleName::timestamp() { TIMESTAMP } else { SNAPSHOT };
                assert!(is_signed_by(&evidence.one, seed) && is_signed_by(&evidence.other, seed));
                assert_eq!(Evidence::decode(&evidence.encode()).as_ref(), Ok(&*evidence));
            }
            Verdict::Ignore(_) | Verdict::Reject(_) => {}
        }
    }
    is_accepted
}

fn check_accepted(head: &Head, accepted: &Accepted, before: &Trusted) {
    for (envelope, seed) in [(&head.timestamp, TIMESTAMP), (&head.snapshot, SNAPSHOT)] {
        assert!(is_signed_by(envelope, seed), "accepted without a signature");
        let value = canonical::parse(envelope).expect("accepted");
        assert_eq!(value["signatures"].as_array().map(Vec::len), Some(1), "surplus signatures");
        assert_eq!(canonical::encode(&value), *envelope, "a second form of one envelope");
    }
    let after = &accepted.trusted;
    let timestamp = after.timestamp().expect("accepted");
    let snapshot = after.snapshot().expect("accepted");
    assert_eq!((timestamp.bytes(), snapshot.bytes()), (&head.timestamp[..], &head.snapshot[..]));
    assert!(timestamp.expires > now() && snapshot.expires > now());
    assert!(before.timestamp().is_none_or(|old| old.version < timestamp.version));
    assert!(before.snapshot().is_none_or(|old| old.version <= snapshot.version));
    for (path, bytes) in &accepted.targets {
        let found = after.resolve(path);
        assert!(matches!(found, Resolution::Found { target, .. } if target.matches(bytes)), "{path}");
    }
    for inline in &head.inlines {
        if let Inline::Role { name, bytes, .. } = inline {
            assert!(snapshot.role(name).is_some_and(|meta| meta.pins(bytes)), "an inline role that nothing pins");
        }
    }
    let payload = head.encode();
    assert!(matches!(judge(&payload, after, now()), Verdict::Ignore(Ignored::Same)), "accepted twice");
    let junk = [&payload[..], b"\x28\x01"].concat();
    assert!(matches!(judge(&junk, before, now()), Verdict::Reject(_)), "a junk copy passes");
    let _ = after.clone().update_timestamp(&head.timestamp, enforce()).expect("what was accepted is accepted");
}

/// Signs the parts and makes each file name the ones below it. None where a part is no JSON object,
/// or the head outgrows its limit.
fn mend(head: &Head, timestamp_keys: &[u8], snapshot_keys: &[u8]) -> Option<Head> {
    // What the root version has above its first byte says what is left unmended.
    let leave = head.root_version >> 8;
    let mut snapshot = canonical::parse(&head.snapshot).ok()?;
    let mut inlines = Vec::new();
    for inline in &head.inlines {
        let Inline::Role { name, version, bytes } = inline else {
            inlines.push(inline.clone());
            continue;
        };
        let bytes = sealed::<Targets>(name, bytes, &[TARGETS, CHANNELS, RELEASES]).unwrap_or_else(|| bytes.clone());
        if leave & 1 == 0
            && let Some(meta) = snapshot.get_mut("meta").and_then(Value::as_object_mut)
        {
            let pinned = json!({"version": version, "hashes": {"sha256": Digest::of(&bytes)}});
            meta.insert(format!("{}.json", name.as_str()), pinned);
        }
        inlines.push(Inline::Role { name: name.clone(), version: *version, bytes });
    }
    let snapshot_part = serde_json::to_vec(&snapshot).ok()?;
    let snapshot = sealed::<Snapshot>(&RoleName::snapshot(), &snapshot_part, snapshot_keys)?;
    let mut timestamp = canonical::parse(&head.timestamp).ok()?;
    if leave & 2 == 0
        && let Some(fields) = timestamp.as_object_mut()
    {
        let meta = json!({"version": version_in(&snapshot_part), "length": snapshot.len(), "hashes": {"sha256": Digest::of(&snapshot)}});
        fields.insert("meta".to_owned(), json!({"snapshot.json": meta}));
    }
    let timestamp_part = serde_json::to_vec(&timestamp).ok()?;
    let timestamp = sealed::<Timestamp>(&RoleName::timestamp(), &timestamp_part, timestamp_keys)?;
    let mended = Head { root_version: head.root_version & 0xff, timestamp, snapshot, inlines };
    (mended.encode().len() <= MAX_HEAD_BYTES).then_some(mended)
}
