//! Texts that people, paths and URLs carry: names, versions, times, addresses, queries, patterns.

use std::path::Path;

use updraft::config::Subscription;
use updraft::config::address::{check_dialable, check_listen, parse_switch};
use updraft::gateway::UpdateQuery;
use updraft::gateway::files;
use updraft::gateway::range::{self, Wanted};
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, FileName, Platform, Product, ReleaseId, parse_version};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Format;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{DelegatedRole, RoleName};

/// A text that is any name, version, time, digest, peer id or path is that text again when it is
/// written, and none that becomes part of a file name leads anywhere else.
pub fn names(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let same = |written: String| assert_eq!(written, text);
    for name in [
        text.parse::<Product>().map(|name| name.to_string()),
        text.parse::<Channel>().map(|name| name.to_string()),
        text.parse::<Platform>().map(|name| name.to_string()),
        text.parse::<FileName>().map(|name| name.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        same(name);
        assert!(!text.contains(['/', '\\', '\0']) && !text.starts_with('.') && !text.ends_with('.'));
    }
    for written in [
        parse_version(text).ok().map(|version| version.to_string()),
        text.parse::<UtcTime>().ok().map(|time| time.to_string()),
        text.parse::<Digest>().ok().map(|digest| digest.to_string()),
        text.parse::<PeerId>().ok().map(|peer| peer.to_string()),
        ReleaseId::from_path(text).ok().map(|(id, name)| id.path(&name)),
        Channel::from_path(text).ok().map(|(product, channel)| channel.path(&product)),
    ]
    .into_iter()
    .flatten()
    {
        same(written);
    }
    if let Ok(role) = text.parse::<RoleName>() {
        let stem = role.file_stem();
        assert!(!stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        assert_eq!(percent_decoded(&stem), text.as_bytes());
    }
    addresses(text);
    let _ = Format::from_file_name(text);
    let _ = updraft::archive::detect(Path::new(text));
    text.parse::<RoleName>().is_ok()
}

fn addresses(text: &str) {
    let _ = check_listen(text).map(|kept| assert_eq!(kept, text));
    if check_dialable(text).is_ok() {
        assert!(!text.contains("/tcp/0/") && !text.ends_with("/tcp/0") && !text.contains("/udp/0/"), "port 0");
    }
    if let Ok(Some(address)) = parse_switch(text) {
        assert_eq!(parse_switch(&address.to_string()), Ok(Some(address)));
    }
    if let Ok(mirror) = Subscription::parse_mirror(text) {
        assert_eq!(Subscription::parse_mirror(&mirror.to_string()), Ok(mirror));
    }
    if let Ok(install) = Subscription::parse_install(text) {
        assert!(install.directory.as_ref().is_some_and(|directory| directory.is_absolute()));
        assert_eq!(Subscription::parse_install(&install.to_string()), Ok(install));
    }
}

fn percent_decoded(stem: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = stem.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

/// The three texts of an HTTP request that are ours to read: a query keeps its meaning when it is
/// written out, a range lies within the body, a path never climbs.
pub fn http(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let mut accepted = false;
    if let Ok(query @ UpdateQuery::Newer { product, version, channel, platform, caller }) = &UpdateQuery::parse(text) {
        let mut written = format!(
            "product={product}&version={}&channel={channel}&platform={platform}",
            percent_encoded(&version.to_string())
        );
        if let Some(caller) = caller {
            written.push_str("&id=");
            written.push_str(&percent_encoded(caller));
        }
        assert_eq!(UpdateQuery::parse(&written).as_ref(), Ok(query));
        accepted = true;
    }
    for length in [0, 1, 10, u64::MAX] {
        if let Wanted::Part(part) = range::parse(text, length) {
            assert!(part.start < part.end && part.end <= length);
            accepted = true;
        }
    }
    for prefix in ["/metadata/", "/targets/"] {
        if let Some(path) = files::requested(text, prefix) {
            assert!(!path.contains(['\\', '\0', '\n']));
            assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path}");
            accepted = true;
        }
    }
    accepted
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |written, byte| written + &format!("%{byte:02x}"))
}

/// A path pattern of a delegation, a line end, a path: matching agrees with a matcher that is slow and
/// plain, in a bounded time, and says no where the number of `/` differs.
pub fn path_pattern(bytes: &[u8]) -> bool {
    let Some((pattern, path)) = str::from_utf8(bytes).ok().and_then(|text| text.split_once('\n')) else { return false };
    let role = "role".parse::<RoleName>().expect("a role name");
    let covers = DelegatedRole::new(role, &[pattern]).covers(path);
    if covers && !pattern.contains('[') {
        assert_eq!(pattern.matches('/').count(), path.matches('/').count(), "a wildcard crossed a /");
    }
    if !pattern.contains('[') && pattern.len() <= 256 && path.len() <= 256 {
        assert_eq!(covers, plainly_matches(pattern, path));
    }
    covers
}

/// Which prefixes of the path each prefix of the pattern matches, one after the other.
fn plainly_matches(pattern: &str, path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    let mut matched = vec![false; path.len() + 1];
    matched[0] = true;
    for wanted in pattern.chars() {
        let mut next = vec![false; path.len() + 1];
        for end in 0..=path.len() {
            let last = end.checked_sub(1).map(|at| path[at]);
            next[end] = match (wanted, last) {
                ('*', _) if matched[end] => true,
                ('*', Some(character)) => next[end - 1] && character != '/',
                ('?', Some(character)) => matched[end - 1] && character != '/',
                (literal, Some(character)) => matched[end - 1] && literal == character,
                (_, None) => false,
            };
        }
        matched = next;
    }
    matched[path.len()]
}
