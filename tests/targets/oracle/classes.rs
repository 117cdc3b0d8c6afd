//! The known classes of disagreement. Each is a claim about the input, checked on the input, beside
//! what the two say to it; a class that matched on words alone would hide whatever comes next.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};
use updraft_protocol::limits::{
    MAX_JSON_DEPTH, MAX_KEY_ID_BYTES, MAX_KEYS, MAX_ROLE_NAME_BYTES, MAX_SIGNATURES, MAX_TARGET_PATH_BYTES,
};
use updraft_protocol::time::UtcTime;

use crate::evidence::{Evidence, Oddities, Quorum, in_root, lenient};

/// Who is right, by TUF 1.0.34 and the standards that it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Ours,
    Theirs,
    /// The specification leaves it open, or both end without harm.
    Either,
}

impl Right {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
            Self::Either => "either",
        }
    }
}

pub(crate) struct Class {
    /// Also the name of the vector's file.
    pub(crate) name: &'static str,
    pub(crate) right: Right,
    /// Where that is written.
    pub(crate) source: &'static str,
    pub(crate) why: &'static str,
    pub(crate) is: fn(&Evidence<'_>) -> bool,
}

/// The class of a difference; the first that fits.
pub(crate) fn of(evidence: &Evidence<'_>) -> Option<&'static Class> {
    CLASSES.iter().find(|class| (class.is)(evidence))
}

pub(crate) const CLASSES: &[Class] = &[
    Class {
        name: "expires-this-second",
        right: Right::Ours,
        source: "TUF 5.3.10, 5.4.4, 5.5.6, 5.6.5: the expiration timestamp MUST be higher than the fixed update start time",
        why: "They compare with `<`, so metadata still counts in the second in which it expires.",
        is: |e| {
            let now = UtcTime::from_unix(e.round().now).to_string();
            e.we_refuse_for(&format!("metadata expired at {now}")) && e.signed()["expires"] == now
        },
    },
    Class {
        name: "expires-spelled-otherwise",
        right: Right::Ours,
        source: "TUF 4.2.3: the expected format is YYYY-MM-DDTHH:MM:SSZ; time is always in UTC",
        why: "They read whatever their time library reads: fractions, offsets, lower case, a leap second, a suffix.",
        is: |e| e.we_refuse_for("not a UTC time") && !is_tuf_time(&e.signed()["expires"]),
    },
    Class {
        name: "expires-before-1970",
        right: Right::Theirs,
        source: "TUF 4.2.3, 5.3.10",
        why: "Our times start in 1970. Metadata that expired earlier is refused as malformed instead of as expired; a root of that kind in the middle of a chain ends it. No root that anybody could have signed is of that kind.",
        is: |e| {
            let expires = &e.signed()["expires"];
            let is_old = expires.as_str().is_some_and(|text| text < "1970");
            e.we_refuse_for("not a UTC time") && is_tuf_time(expires) && is_old
        },
    },
    Class {
        name: "repeated-key",
        right: Right::Ours,
        source: "RFC 8259, 4: names within an object SHOULD be unique, else behaviour is unpredictable",
        why: "They keep the last of two equal keys. Other readers keep the first, so one signature would cover two \
              meanings.",
        is: |e| e.we_refuse_for("appears twice") && Oddities::of(e.bytes()).repeated_keys > 0,
    },
    Class {
        name: "nested-deeply",
        right: Right::Either,
        source: "RFC 8259, 9: an implementation may set limits on the maximum depth of nesting",
        why: "We read 32 levels, they read 127.",
        is: |e| e.we_refuse_for("nested deeper than") && Oddities::of(e.bytes()).depth > MAX_JSON_DEPTH,
    },
    Class {
        name: "float-beside-the-signed-part",
        right: Right::Either,
        source: "OLPC canonical JSON: floating point numbers are not allowed; TUF 4.1 uses it for what is signed",
        why: "We read the whole file by one rule, they encode and check the signed part alone.",
        is: |e| {
            let (file, signed) = (Oddities::of(e.bytes()), Oddities::of(e.signed().to_string().as_bytes()));
            e.we_refuse_for("floating point") && file.floats > 0 && signed.floats == 0
        },
    },
    Class {
        name: "version-zero",
        right: Right::Ours,
        source: "TUF 4.3, 4.4: VERSION is an integer that is greater than 0",
        why: "They accept version 0.",
        is: |e| {
            let signed = e.signed();
            let listed = signed["meta"].as_object().into_iter().flatten().any(|(_, meta)| meta["version"] == 0);
            e.we_refuse_for("version 0; versions start at 1") && (signed["version"] == 0 || listed)
        },
    },
    Class {
        name: "threshold-zero",
        right: Right::Ours,
        source: "TUF 4.3, 4.5: a positive integer number of keys (>=1)",
        why: "They refuse the threshold only when the role that has it is judged; we refuse the file that states it.",
        is: |e| e.we_refuse_for("a threshold of 0") && any_quorum(e, |role| role["threshold"] == 0),
    },
    Class {
        name: "one-key-under-two-ids",
        right: Right::Ours,
        source: "TUF 5.3.4, 5.4.2, 5.5.3, 5.6.3: each KEY MUST only contribute one SIGNATURE",
        why: "They count key ids. One key under two ids reaches a threshold of 2 by itself.",
        is: |e| {
            let shares = |quorum: &Quorum| {
                let texts: BTreeSet<String> =
                    quorum.keys.iter().map(|(_, key)| public(key).trim().to_ascii_lowercase()).collect();
                texts.len() < quorum.keys.len() && quorum.threshold.as_u64() > Some(1)
            };
            we_miss_signatures(e) && e.quorums().iter().any(shares)
        },
    },
    Class {
        name: "key-of-small-order",
        right: Right::Ours,
        source: "RFC 8032, 5.1.7 leaves small orders open; TUF rests on a signature standing for one message",
        why: "Under a key of small order one signature fits every message. They verify it, we do not.",
        is: |e| {
            let is_small = |(_, key): &(String, Value)| SMALL_ORDER.contains(&public(key));
            we_miss_signatures(e) && e.quorums().iter().any(|quorum| quorum.keys.iter().any(is_small))
        },
    },
    Class {
        name: "ed25519-key-not-in-hexadecimal",
        right: Right::Ours,
        source: "TUF 4.2.2: PUBLIC of an ed25519 key is a 64-byte hex encoded string",
        why: "They trim white space, and take an ed25519 key in PEM form. To us such a key verifies nothing.",
        is: |e| {
            let is_odd = |(_, key): &(String, Value)| {
                let text = public(key);
                key["scheme"] == "ed25519" && (text.trim().len() != text.len() || text.contains("BEGIN PUBLIC KEY"))
            };
            we_miss_signatures(e) && e.quorums().iter().any(|quorum| quorum.keys.iter().any(is_odd))
        },
    },
    Class {
        name: "key-type-beside-its-scheme",
        right: Right::Ours,
        source: "TUF 4.2.2: the ed25519 format has keytype ed25519 and scheme ed25519",
        why: "They look at the scheme alone. To us a key whose type does not go with its scheme verifies nothing.",
        is: |e| {
            let is_odd = |(_, key): &(String, Value)| key["scheme"] == "ed25519" && key["keytype"] != "ed25519";
            we_miss_signatures(e) && e.quorums().iter().any(|quorum| quorum.keys.iter().any(is_odd))
        },
    },
    Class {
        name: "key-id-signs-twice",
        right: Right::Ours,
        source: "TUF 4.2.1: the keyid MUST be unique in the signatures array",
        why: "They look for repeats only among ids that may sign, and not among empty signatures.",
        is: |e| {
            let file = e.file();
            let ids: Vec<&str> =
                file["signatures"].as_array().into_iter().flatten().filter_map(|one| one["keyid"].as_str()).collect();
            let distinct: BTreeSet<&&str> = ids.iter().collect();
            e.we_refuse_for("two signatures name one key id") && distinct.len() < ids.len()
        },
    },
    Class {
        name: "signature-as-an-array",
        right: Right::Ours,
        source: "TUF 4.2.1: a signature is an object of keyid and sig",
        why: "Their JSON library takes an array of both values for the object.",
        is: |e| {
            let file = e.file();
            let is_array = file["signatures"].as_array().is_some_and(|all| all.iter().any(Value::is_array));
            e.we_refuse_for("a signature: invalid type: sequence") && is_array
        },
    },
    Class {
        name: "specification-version",
        right: Right::Either,
        source: "TUF 4.3: Semantic Versioning; adopters are free to determine what is considered a match",
        why: "To them all that starts with 1. is a match. We want two or three numbers, because what is no version says nothing about how it is to be read.",
        is: |e| {
            let signed = e.signed();
            let spec = signed["spec_version"].as_str().unwrap_or_default();
            let parts: Vec<&str> = spec.split('.').collect();
            let is_plain = (2..=3).contains(&parts.len())
                && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
            e.we_refuse_for("is not 1.x") && parts[0] == "1" && !is_plain
        },
    },
    Class {
        name: "root-without-a-role",
        right: Right::Ours,
        source: "TUF 4.3: a role for each of root, snapshot, timestamp and targets MUST be specified",
        why: "They miss the role only when it is to be judged.",
        is: |e| {
            let roles = &e.signed()["roles"];
            let misses = ["root", "timestamp", "snapshot", "targets"].iter().any(|name| roles.get(name).is_none());
            e.we_refuse_for("the field 'roles': missing field") && misses
        },
    },
    Class {
        name: "unknown-role-in-root",
        right: Right::Either,
        source: "TUF 4.3: one of root, snapshot, targets, timestamp or mirrors; 4: formats may get further fields",
        why: "They read a role that they do not know as if they knew its form, and refuse the root; we do not read it.",
        is: |e| {
            let is_odd = |value: &Value| serde_json::from_value::<sigstore_tuf::RoleKeys>(value.clone()).is_err();
            let signed = e.signed();
            let mut others = signed["roles"].as_object().into_iter().flatten().filter(|(name, _)| !is_top(name));
            e.difference.role == "root"
                && e.they_refuse_for("failed to parse JSON")
                && others.any(|(_, value)| is_odd(value))
        },
    },
    Class {
        name: "unknown-file-in-timestamp",
        right: Right::Either,
        source: "TUF 4.6: this MUST only include a description of snapshot.json; 4: formats may get further fields",
        why: "Both accept a further entry in the known form. They refuse one in another form; we do not read it.",
        is: |e| {
            let is_odd = |value: &Value| serde_json::from_value::<sigstore_tuf::MetaFile>(value.clone()).is_err();
            let signed = e.signed();
            let mut others =
                signed["meta"].as_object().into_iter().flatten().filter(|(name, _)| *name != "snapshot.json");
            e.difference.role == "timestamp"
                && e.they_refuse_for("failed to parse JSON")
                && others.any(|(_, value)| is_odd(value))
        },
    },
    Class {
        name: "delegations-null",
        right: Right::Ours,
        source: "TUF 4.5: DELEGATIONS is an OPTIONAL object",
        why: "They take null for left out.",
        is: |e| e.we_refuse_for("the field 'delegations': invalid type: null") && e.signed()["delegations"].is_null(),
    },
    Class {
        name: "hashes-null",
        right: Right::Ours,
        source: "TUF 4.4: HASHES is a dictionary; it is OPTIONAL and can be omitted",
        why: "They take null for left out.",
        is: |e| {
            let signed = e.signed();
            let mut listed = signed["meta"].as_object().into_iter().flatten();
            let is_null = |meta: &Value| meta.get("hashes").is_some_and(Value::is_null);
            e.we_refuse_for("the field 'meta': invalid type: null, expected a map")
                && listed.any(|(_, meta)| is_null(meta))
        },
    },
    Class {
        name: "hashes-empty",
        right: Right::Ours,
        source: "TUF 4.4: HASHES is a dictionary of one or more hashes",
        why: "They accept the file that lists another without a hash, and refuse the other; we refuse the first.",
        is: |e| {
            let signed = e.signed();
            let mut listed = signed["meta"].as_object().into_iter().flatten();
            e.we_refuse_for("'hashes' states no hash")
                && listed.any(|(_, meta)| meta["hashes"] == serde_json::json!({}))
        },
    },
    Class {
        name: "timestamp-without-snapshot",
        right: Right::Ours,
        source: "TUF 4.6: meta is a description of the snapshot.json file",
        why: "They trust a timestamp that names no snapshot, and its version keeps honest timestamps out until it is \
              overtaken.",
        is: |e| {
            let is_bare = |bytes: &[u8]| lenient(bytes)["signed"]["meta"].get("snapshot.json").is_none();
            let blocks = || {
                let theirs = e.theirs[e.difference.round].trusted.timestamp;
                let named = |bytes: &&Vec<u8>| {
                    lenient(bytes)["signed"]["version"].as_u64() == theirs.map(|(version, ..)| version)
                };
                e.they_refuse_for("rollback detected for timestamp")
                    && e.served_before("timestamp").iter().filter(|bytes| named(bytes)).any(|bytes| is_bare(bytes))
            };
            e.difference.role == "timestamp"
                && (e.we_refuse_for("missing field `snapshot.json`") && is_bare(e.bytes()) || blocks())
        },
    },
    Class {
        name: "hash-in-capitals",
        right: Right::Either,
        source: "TUF 4.4: a hash is the hex digest; no word about its case",
        why: "They compare without regard to case. A hash is also part of a file name, which has a case: we take the \
              usual one alone.",
        is: |e| {
            let hashes = &e.listing()["hashes"];
            let is_capital = |name: &str, found: String| {
                hashes[name].as_str().is_some_and(|text| text != found && text.eq_ignore_ascii_case(&found))
            };
            let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(e.bytes()));
            let sha512 = data_encoding::HEXLOWER.encode(&Sha512::digest(e.bytes()));
            e.we_refuse_for("hash that is signed") && (is_capital("sha256", sha256) || is_capital("sha512", sha512))
        },
    },
    Class {
        name: "paths-and-prefixes",
        right: Right::Ours,
        source: "TUF 4.5: if used, exactly one of them should be set",
        why: "They take the prefixes and pass over the paths; another reader may do it the other way round.",
        is: |e| {
            let is_odd = |role: &Value| has(role, "paths") && has(role, "path_hash_prefixes");
            e.we_refuse_for("must state paths or path hash prefixes") && any_quorum(e, is_odd)
        },
    },
    Class {
        name: "neither-paths-nor-prefixes",
        right: Right::Theirs,
        source: "TUF 4.5: the attributes are OPTIONAL, if used, exactly one of them should be set",
        why: "A delegation with neither covers nothing. They let it stand, we refuse the file, as python-tuf does: it is a \
              mistake of whoever wrote it.",
        is: |e| {
            let is_odd = |role: &Value| !has(role, "paths") && !has(role, "path_hash_prefixes");
            e.we_refuse_for("must state paths or path hash prefixes") && any_quorum(e, is_odd)
        },
    },
    Class {
        name: "terminating-left-out",
        right: Right::Ours,
        source: "TUF 4.5: TERMINATING is a boolean of every delegation; only paths and prefixes are called OPTIONAL",
        why: "They take it for false: a delegation that was meant to end the search would not.",
        is: |e| {
            let is_odd = |role: &Value| role.get("terminating").is_none();
            e.we_refuse_for("missing field `terminating`") && any_quorum(e, is_odd)
        },
    },
    Class {
        name: "delegation-to-a-top-level-role",
        right: Right::Ours,
        source: "TUF 4.5: a delegated role's name is its own; root alone delegates to the top-level roles (2.1)",
        why: "They skip the delegation, we refuse the file that has it. Neither follows it.",
        is: |e| {
            let is_odd = |role: &Value| role["name"].as_str().is_some_and(is_top);
            e.we_refuse_for("a delegation to the top-level role") && any_quorum(e, is_odd)
        },
    },
    Class {
        name: "two-delegations-to-one-role",
        right: Right::Ours,
        source: "TUF 4.5: the rolename MUST be unique in the delegations object",
        why: "They take keys and threshold from the first of the two, we refuse the file.",
        is: |e| {
            let signed = e.signed();
            let all = stated_quorums(&signed);
            let names: BTreeSet<&str> = all.iter().filter_map(|role| role["name"].as_str()).collect();
            e.we_refuse_for("two delegations to one role") && names.len() < all.len()
        },
    },
    Class {
        name: "pattern-that-they-cannot-read",
        right: Right::Ours,
        source: "TUF 4.5: the Unix shell pattern matching convention, glob(7)",
        why: "Where a shell takes `[` without its end, `***` or `a**` for something, their pattern library gives up, and \
              the lookup with it.",
        is: |e| {
            let is_odd = |role: &Value| {
                serde_json::from_value::<sigstore_tuf::DelegatedRole>(role.clone())
                    .is_ok_and(|role| role.matches_path("x").is_err() || role.matches_path("x/x").is_err())
            };
            e.they_refuse_for("has invalid delegation path pattern") && e.delegations().iter().any(is_odd)
        },
    },
    Class {
        name: "limit-signatures",
        right: Right::Either,
        source: "TUF sets no limit",
        why: "We read 64 signatures of one file.",
        is: |e| {
            let file = e.file();
            e.we_refuse_for("signatures; at most")
                && file["signatures"].as_array().is_some_and(|all| all.len() > MAX_SIGNATURES)
        },
    },
    Class {
        name: "limit-keys",
        right: Right::Either,
        source: "TUF sets no limit",
        why: "We read 1024 keys of one key table.",
        is: |e| {
            let signed = e.signed();
            let count = |table: &Value| table.as_object().map_or(0, serde_json::Map::len);
            e.we_refuse_for("keys; at most")
                && count(&signed["keys"]).max(count(&signed["delegations"]["keys"])) > MAX_KEYS
        },
    },
    Class {
        name: "limit-key-id",
        right: Right::Either,
        source: "TUF 4.2.1: a KEYID is a hexdigest; neither of us insists",
        why: "We read key ids of 1 to 256 bytes.",
        is: |e| {
            let is_odd = |id: &str| id.is_empty() || id.len() > MAX_KEY_ID_BYTES;
            let file = e.file();
            let signed = &file["signed"];
            let tables = [&signed["keys"], &signed["delegations"]["keys"]];
            let in_tables = tables.iter().filter_map(|table| table.as_object()).flatten().any(|(id, _)| is_odd(id));
            let in_lists = stated_quorums(signed)
                .iter()
                .flat_map(|role| role["keyids"].as_array().into_iter().flatten())
                .any(|id| id.as_str().is_some_and(is_odd));
            let signatures = file["signatures"].as_array().into_iter().flatten();
            let in_signatures = signatures.filter_map(|one| one["keyid"].as_str()).any(is_odd);
            e.we_refuse_for("a key id has") && (in_tables || in_lists || in_signatures)
        },
    },
    Class {
        name: "limit-role-name",
        right: Right::Either,
        source: "TUF 4.5 says nothing about the length of a role name",
        why: "We read role names of 1 to 128 bytes.",
        is: |e| {
            let is_odd = |role: &Value| {
                role["name"].as_str().is_some_and(|name| name.is_empty() || name.len() > MAX_ROLE_NAME_BYTES)
            };
            e.we_refuse_for("a role name has") && any_quorum(e, is_odd)
        },
    },
    Class {
        name: "limit-pattern",
        right: Right::Either,
        source: "TUF sets no limit",
        why: "We read patterns of at most 512 bytes, because no path that we read is longer.",
        is: |e| {
            let is_long = |pattern: &Value| pattern.as_str().is_some_and(|text| text.len() > MAX_TARGET_PATH_BYTES);
            let is_odd = |role: &Value| role["paths"].as_array().is_some_and(|all| all.iter().any(is_long));
            e.we_refuse_for("has a pattern of more than") && any_quorum(e, is_odd)
        },
    },
    Class {
        name: "limit-target-path",
        right: Right::Either,
        source: "TUF sets no limit",
        why: "We read target paths of at most 512 bytes.",
        is: |e| {
            let signed = e.signed();
            let has_long = signed["targets"]
                .as_object()
                .is_some_and(|all| all.keys().any(|path| path.len() > MAX_TARGET_PATH_BYTES));
            e.we_refuse_for("a target path of") && has_long
        },
    },
    Class {
        name: "limit-path-looked-up",
        right: Right::Either,
        source: "TUF sets no limit",
        why: "A path of more than 512 bytes leads nowhere, without a look into delegated roles that they fetch for it.",
        is: |e| {
            let is_long = e.difference.path.as_ref().is_some_and(|path| path.len() > MAX_TARGET_PATH_BYTES);
            is_long && e.difference.ours == crate::verdict::Say::Nothing
        },
    },
    Class {
        name: "field-of-updraft",
        right: Right::Either,
        source: "TUF 4: formats may get further fields",
        why: "updraft, signed_at and prev_sha256 are ours: we read them, and refuse them in a wrong form.",
        is: |e| {
            let signed = e.signed();
            ["updraft", "signed_at", "prev_sha256"]
                .iter()
                .any(|name| e.we_refuse_for(&format!("the field '{name}'")) && signed.get(name).is_some())
        },
    },
    Class {
        name: "largest-root-version",
        right: Right::Ours,
        source: "TUF 5.3.5: exactly N+1",
        why: "They add 1 to the version of the root to ask for the next. There is none after 2^64-1: they panic where \
              overflows are checked, and ask for version 0 where they are not.",
        is: |e| e.they_refuse_for("panicked") && e.signed()["version"] == u64::MAX,
    },
    Class {
        name: "recovery-by-snapshot-keys",
        right: Right::Ours,
        source: "TUF 5.3.11: if the timestamp and / or snapshot keys have been rotated, then delete the trusted timestamp and \
                 snapshot metadata files",
        why: "They forget a timestamp only when the new root no longer lets its signer sign. After a rotation of the \
              snapshot keys they keep the timestamp, and with it the versions that a thief pushed forward.",
        is: |e| {
            let rolled = [
                "rollback detected for timestamp",
                "rollback detected for snapshot",
                "integrity check failed: snapshot",
            ];
            let is_kept = e.difference.role == "timestamp"
                && e.difference.ours.is_accepted()
                && e.difference.theirs.is_accepted();
            (is_kept || rolled.iter().any(|part| e.they_refuse_for(part))) && leaves_a_snapshot_key(e)
        },
    },
    Class {
        name: "same-snapshot-version",
        right: Right::Ours,
        source: "TUF 5.5.1, 5.5.2: download the snapshot; its hashes must be those in the new timestamp",
        why: "They keep a snapshot whose version is the one that the new timestamp names, whatever hash it names. We ask for \
              the file of that hash.",
        is: |e| {
            let Some(before) = e.difference.round.checked_sub(1) else { return false };
            let version = e.theirs[before].trusted.snapshot.as_ref().map(|(version, ..)| *version);
            let kept = e.theirs[e.difference.round].trusted.snapshot.as_ref().map(|(version, ..)| *version);
            let lists_another = !e.served_before("snapshot").iter().any(|before| lists(&e.listing(), before));
            e.difference.role == "snapshot"
                && e.difference.theirs.is_accepted()
                && version.is_some()
                && version == kept
                && lists_another
        },
    },
    Class {
        name: "role-kept-while-listed",
        right: Right::Either,
        source: "TUF 5.6.1, 5.6.2: download the file, which must be the one that the snapshot lists",
        why: "We keep a role file for as long as the snapshot lists it. They ask for it again with each update, and so see \
              that the mirror has spoiled it, or, where no hash is listed, has another of that version.",
        is: |e| {
            let asked = &e.difference.role;
            let is_asked = |name: &&String| {
                !matches!(name.as_str(), "timestamp" | "snapshot")
                    && (asked == *name || (asked.is_empty() && e.difference.path.is_some()))
            };
            let is_kept = |name: &String| {
                let listings = e.trusted_listings(name);
                let before = e.served_before(name);
                let changed = before.iter().filter(|before| e.round().files.get(name) != Some(before));
                changed.into_iter().any(|before| listings.iter().any(|listing| lists(listing, before)))
            };
            let names = e.case.rounds.iter().flat_map(|round| round.files.keys());
            !e.difference.ours.is_refused_for("") && names.filter(is_asked).any(is_kept)
        },
    },
    Class {
        name: "role-that-is-not-listed",
        right: Right::Ours,
        source: "TUF 5.6.7: if any metadata cannot be downloaded nor validated, end the search and report that the target cannot be found",
        why: "They pass over a delegated role that the snapshot does not list and ask the next; whoever drops a file from \
              a snapshot then lets a role of lower priority speak.",
        is: |e| {
            let path = e.difference.path.as_deref().unwrap_or_default();
            let is_skipped = |role: &Value| {
                let Ok(role) = serde_json::from_value::<sigstore_tuf::DelegatedRole>(role.clone()) else {
                    return false;
                };
                role.matches_path(path).unwrap_or(false) && e.trusted_listings(&role.name).iter().all(Value::is_null)
            };
            e.difference.path.is_some()
                && e.difference.ours == crate::verdict::Say::Nothing
                && e.difference.theirs != crate::verdict::Say::Nothing
                && e.delegations().iter().any(is_skipped)
        },
    },
    Class {
        name: "role-without-a-voucher",
        right: Right::Either,
        source: "TUF 5.6.7: if any metadata cannot be downloaded nor validated, end the search and report that the target cannot be found",
        why: "A role that was loaded on the word of another delegator: to us the path leads nowhere, they report an error.",
        is: |e| {
            let asked = e.quorums();
            e.difference.path.is_some()
                && e.difference.ours == crate::verdict::Say::Nothing
                && e.they_refuse_for("signature threshold not met for role")
                && asked.len() > 1
        },
    },
];

/// Every encoding of a point of small order.
const SMALL_ORDER: [&str; 4] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
];

fn is_top(role: &str) -> bool {
    matches!(role, "root" | "timestamp" | "snapshot" | "targets")
}

/// Whether a field is there, and not null.
fn has(value: &Value, field: &str) -> bool {
    value.get(field).is_some_and(|value| !value.is_null())
}

fn public(key: &Value) -> &str {
    key["keyval"]["public"].as_str().unwrap_or_default()
}

/// `dddd-dd-ddTdd:dd:ddZ` without a leap second.
fn is_tuf_time(value: &Value) -> bool {
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    value.as_str().is_some_and(|text| {
        let fits = |(byte, kind): (u8, &u8)| if *kind == b'd' { byte.is_ascii_digit() } else { byte == *kind };
        text.len() == shape.len() && text.bytes().zip(shape).all(fits) && !text.ends_with(":60Z")
    })
}

/// Everything in a signed part that names keys and a threshold.
fn stated_quorums(signed: &Value) -> Vec<&Value> {
    let in_root = signed["roles"].as_object().into_iter().flatten().map(|(_, role)| role);
    in_root.chain(signed["delegations"]["roles"].as_array().into_iter().flatten()).collect()
}

fn any_quorum(e: &Evidence<'_>, is: impl Fn(&Value) -> bool) -> bool {
    stated_quorums(&e.signed()).into_iter().any(is)
}

/// Whether we found too few signatures where they found enough. In a lookup, a role that nobody vouches
/// for leads nowhere.
fn we_miss_signatures(e: &Evidence<'_>) -> bool {
    let leads_nowhere = e.difference.path.is_some() && e.difference.ours == crate::verdict::Say::Nothing;
    e.we_refuse_for("valid signatures; its role asks for") || (leads_nowhere && e.difference.theirs.is_accepted())
}

/// Whether a root of this round takes a key from the snapshot role.
fn leaves_a_snapshot_key(e: &Evidence<'_>) -> bool {
    let mut chain = vec![lenient(&e.case.root)];
    chain.extend(e.round().roots.values().map(|bytes| lenient(bytes)));
    let keys = |root: &Value| -> BTreeSet<String> {
        let snapshot = in_root(root).into_iter().filter(|quorum| quorum.role == "snapshot");
        snapshot.flat_map(|quorum| quorum.keys).map(|(_, key)| public(&key).to_owned()).collect()
    };
    chain.windows(2).any(|pair| !keys(&pair[0]).is_subset(&keys(&pair[1])))
}

/// Whether a listing is of exactly this file.
fn lists(listing: &Value, bytes: &[u8]) -> bool {
    let hash = |name: &str, found: String| listing["hashes"].get(name).is_none_or(|listed| *listed == found);
    lenient(bytes)["signed"]["version"] == listing["version"]
        && listing.get("length").is_none_or(|length| *length == bytes.len())
        && hash("sha256", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
        && hash("sha512", data_encoding::HEXLOWER.encode(&Sha512::digest(bytes)))
}
