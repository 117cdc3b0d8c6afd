//! Files and texts that are judged by themselves: canonical JSON, keys, manifests, tickets, channel
//! policies, descriptions of releases.

use data_encoding::BASE32_NOPAD;
use serde_json::Value;
use updraft_protocol::canonical;
use updraft_protocol::digest::Digest;
use updraft_protocol::key::{PublicKey, SigningKey};
use updraft_protocol::limits::{
    MAX_ADDRESS_BYTES, MAX_CHANNEL_FILE_BYTES, MAX_JSON_DEPTH, MAX_PEER_ADDRESSES, MAX_PIECES,
};
use updraft_protocol::manifest::{Manifest, ManifestBuilder};
use updraft_protocol::release::Release;
use updraft_protocol::rollout::{BUCKETS, ChannelPolicy, Opens};
use updraft_protocol::ticket::Ticket;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::TargetInfo;

/// Strict JSON: the value is the one that a lenient reader sees, its canonical form is a fixed point,
/// nesting stays within its limit.
pub fn canonical(bytes: &[u8]) -> bool {
    let Ok(value) = canonical::parse(bytes) else { return false };
    let lenient: Value = serde_json::from_slice(bytes).expect("strict JSON is JSON");
    assert_eq!(value, lenient, "strict and lenient readers disagree");
    assert!(depth(&value) <= MAX_JSON_DEPTH, "nested too deep");
    let form = canonical::encode(&value);
    assert_eq!(form, canonical::encode(&lenient));
    let json = escape_controls(&form);
    let again = canonical::parse(&json).expect("the canonical form is strict JSON once control characters are escaped");
    assert_eq!(again, value, "the canonical form means something else");
    assert_eq!(canonical::encode(&again), form, "the canonical form is no fixed point");
    true
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The canonical form leaves control characters as they are; JSON does not.
fn escape_controls(form: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(form.len());
    for byte in form {
        match byte {
            0..0x20 => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => json.push(*byte),
        }
    }
    json
}

/// A key object verifies no signature that was not made with it, survives being written, and keeps
/// its id; a private key in PEM signs what its public half verifies.
pub fn key(bytes: &[u8]) -> bool {
    const MESSAGE: &[u8] = b"what is signed";
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(signing) = SigningKey::from_pkcs8_pem(text)
    {
        let public = signing.public();
        assert!(public.verify(MESSAGE, &signing.sign(MESSAGE)));
        let pem = signing.to_pkcs8_pem().expect("a key that was read can be written");
        let again = SigningKey::from_pkcs8_pem(&pem).expect("what was written can be read");
        assert_eq!(again.public(), public);
        return true;
    }
    let Ok(value) = canonical::parse(bytes) else { return false };
    let Ok(key) = serde_json::from_value::<PublicKey>(value) else { return false };
    let written = serde_json::to_value(&key).expect("a key object is JSON");
    let again: PublicKey = serde_json::from_value(written).expect("what was written can be read");
    assert_eq!(again, key);
    assert_eq!(again.id(), key.id());
    assert!(key.is_same_key(&again));
    for split in [0, bytes.len().min(64), bytes.len()] {
        assert!(!key.verify(MESSAGE, &bytes[..split]), "bytes from nowhere are a signature");
    }
    let stranger = SigningKey::from_seed([0xA5; 32]);
    let theirs = key.is_same_key(&stranger.public());
    assert_eq!(key.verify(MESSAGE, &stranger.sign(MESSAGE)), theirs, "a stranger's signature");
    true
}

/// A manifest has one encoding, under the digest that is signed for it only, and its pieces cover the
/// artifact exactly; one built from bytes verifies those bytes and no others.
pub fn manifest(bytes: &[u8]) -> bool {
    let digest = Digest::of(bytes);
    assert!(Manifest::decode(bytes, &Digest::of(digest.as_bytes())).is_err(), "under another digest");
    let decoded = Manifest::decode(bytes, &digest);
    if let Ok(manifest) = &decoded {
        assert_eq!(manifest.encode(), bytes, "a second encoding");
        check_pieces(manifest);
    }
    let mut builder = ManifestBuilder::new();
    builder.update(bytes);
    let Ok(built) = builder.finish() else {
        assert!(bytes.is_empty(), "only nothing cannot be cut");
        return false;
    };
    check_pieces(&built);
    let encoded = built.encode();
    assert_eq!(Manifest::decode(&encoded, &Digest::of(&encoded)).as_ref(), Ok(&built));
    assert_eq!(*built.artifact(), digest);
    for index in built.indices() {
        let start = usize::try_from(built.offset_of(index)).expect("within the bytes");
        let piece = &bytes[start..start + built.length_of(index) as usize];
        assert!(built.verify_piece(index, piece), "a true piece");
        let mut altered = piece.to_vec();
        altered[0] ^= 1;
        assert!(!built.verify_piece(index, &altered), "an altered piece");
    }
    decoded.is_ok()
}

fn check_pieces(manifest: &Manifest) {
    let count = manifest.piece_count();
    assert!((1..=MAX_PIECES).contains(&count));
    let covered: u64 = manifest.indices().map(|index| u64::from(manifest.length_of(index))).sum();
    assert_eq!(covered, manifest.length(), "pieces cover the artifact");
    let last = manifest.index(count - 1).expect("the last piece");
    assert!(manifest.index(count).is_none());
    assert_eq!(manifest.piece_at(manifest.length() - 1), Some(last));
    assert_eq!(manifest.piece_at(manifest.length()), None);
    let _ = manifest.root();
}

/// A ticket survives its text, whoever wrote it and however; its lists are bounded.
pub fn ticket(bytes: &[u8]) -> bool {
    let as_text = str::from_utf8(bytes).is_ok_and(check_ticket);
    // The same bytes as the body of a ticket that nothing damaged on its way.
    let mut body = bytes.to_vec();
    body.extend_from_slice(&Digest::of(bytes).as_bytes()[..4]);
    check_ticket(&format!("updraft1:{}", BASE32_NOPAD.encode(&body))) || as_text
}

fn check_ticket(text: &str) -> bool {
    let Ok(ticket) = text.parse::<Ticket>() else { return false };
    assert!(ticket.addresses.len() <= MAX_PEER_ADDRESSES);
    assert!(ticket.addresses.iter().all(|address| address.len() <= MAX_ADDRESS_BYTES));
    assert!(ticket.root_version > 0);
    let printed = ticket.to_string();
    let again: Ticket = printed.parse().expect("what was printed can be read");
    assert_eq!(again, ticket);
    assert_eq!(again.to_string(), printed);
    assert_eq!(again.fingerprint(), ticket.fingerprint());
    true
}

/// A channel policy that is read is one that may be published, survives its encoding, and a rollout
/// never takes a turn back.
pub fn channel_policy(bytes: &[u8]) -> bool {
    let Ok(policy) = ChannelPolicy::parse(bytes) else { return false };
    let encoded = policy.encode();
    // What was left out is written, so that a file at its limit may not be published as it was read.
    assert_eq!(policy.validate().is_ok(), encoded.len() as u64 <= MAX_CHANNEL_FILE_BYTES);
    if policy.validate().is_ok() {
        let again = ChannelPolicy::parse(&encoded).expect("what may be published can be read");
        assert_eq!(again, policy);
        assert_eq!(again.encode(), encoded);
    }
    let rollout = &policy.rollout;
    let mut times: Vec<UtcTime> = rollout.stages.iter().map(|stage| stage.at).collect();
    times.extend([rollout.start, UtcTime::from_unix(0), UtcTime::from_unix(i64::MAX)]);
    times.sort();
    let mut before = 0;
    for now in times {
        let percent = rollout.percent_at(now);
        assert!((before..=100).contains(&percent), "a share that shrinks");
        before = percent;
        for bucket in [0, BUCKETS / 100, BUCKETS / 2, BUCKETS - 1] {
            let open = rollout.opens_at(bucket, now) == Opens::Now;
            assert_eq!(open, bucket < u16::from(percent) * (BUCKETS / 100), "bucket {bucket} at {now}");
        }
    }
    true
}

/// A path, a line end, and `custom` as JSON: a release that is read agrees with its path, is within
/// its limits and survives being described again.
pub fn release(bytes: &[u8]) -> bool {
    let Some((path, custom)) = str::from_utf8(bytes).ok().and_then(|text| text.split_once('\n')) else { return false };
    let Ok(custom) = canonical::parse(custom.as_bytes()) else { return false };
    let target = TargetInfo { custom: Some(custom), ..TargetInfo::of(b"artifact") };
    let Ok(release) = Release::from_target(path, &target) else { return false };
    assert_eq!(release.path, path);
    assert_eq!(release.id.path(&release.file_name), path, "the path says something else");
    release.check_limits().expect("what was read is within limits");
    assert!(target.matches(b"artifact"));
    let again = Release::from_target(path, &release.to_target()).expect("what was read can be signed");
    assert_eq!(again, release);
    true
}
