//! Others at the seed's door: a TUF client that is not ours, and apps that speak plain HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use updraft_tests::http::{self, Answer};
use updraft_tests::process::{Node, Program, installing_peer, run_to_end, say, seed, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

/// A seed of `app`, its HTTP address, and a directory for what is published.
struct Shop {
    seed: Node,
    http: String,
    // Dropped last: the seed writes to it as long as it lives.
    scratch: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let seed = seed(PROGRAM, scratch.path());
        let http = seed.http();
        Self { seed, http, scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Publishes a single file with this content; the answer of `publish`.
    fn publish(&self, version: &str, content: &[u8], more: &[&str]) -> Value {
        let file = self.path(&format!("app-{version}.bin"));
        write(&file, content);
        let path = file.to_str().expect("a plain name");
        let arguments = ["publish", path, "--product", "app", "--version", version];
        self.seed.json(arguments.iter().chain(more))
    }

    fn get(&self, path: &str) -> Answer {
        http::get(&self.http, path, &[])
    }

    fn get_with(&self, path: &str, name: &str, value: &str) -> Answer {
        http::get(&self.http, path, &[(name, value)])
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Content that no two places of are alike.
fn content(salt: &str, lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{salt} {line}\n").into_bytes()).collect()
}

// ---- a TUF client that is not ours ----------------------------------------------------------

/// Whether python-tuf is here; CI installs it.
fn has_python_tuf() -> bool {
    let found = Command::new("python3").args(["-c", "import tuf.ngclient"]).output();
    let reason = match found {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().next_back().unwrap_or_default().to_owned(),
        Err(error) => error.to_string(),
    };
    say(&format!("skipped: python-tuf is not installed ({reason}); `pip install tuf` brings it"));
    false
}

fn python_tuf(shop: &Shop, root: &Path, targets: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/targets/tuf_client.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(format!("http://{}", shop.http)).arg(root).arg(shop.path("tuf client")).args(targets);
    run_to_end(&mut command, "python-tuf").succeeded().json()
}

fn downloaded(answer: &Value, target: &str) -> Vec<u8> {
    fs::read(text(&answer["targets"][target], "file")).expect("downloaded")
}

#[test]
fn python_tuf_follows_the_repository_through_two_publications() {
    if !has_python_tuf() {
        return;
    }
    let shop = Shop::open();
    let root = shop.path("root.json");
    write(&root, shop.get("/metadata/1.root.json").body);

    let first = content("first", 50_000);
    let published = shop.publish("1.0.0", &first, &[]);
    let (target, channel) = (text(&published, "target"), "channels/app/stable.json");
    let answer = python_tuf(&shop, &root, &[target, channel, "releases/app/9.9.9/any/nothing"]);
    assert_eq!(downloaded(&answer, target), first);
    let policy: Value = serde_json::from_slice(&downloaded(&answer, channel)).expect("JSON");
    assert_eq!(policy["version"], "1.0.0");
    assert!(answer["targets"]["releases/app/9.9.9/any/nothing"].is_null());

    let second = content("second", 60_000);
    let published = shop.publish("1.1.0", &second, &[]);
    let newer = text(&published, "target");
    let again = python_tuf(&shop, &root, &[target, newer, channel]);
    assert_eq!(downloaded(&again, newer), second);
    assert_eq!(downloaded(&again, target), first, "old releases stay");
    let policy: Value = serde_json::from_slice(&downloaded(&again, channel)).expect("JSON");
    assert_eq!(policy["version"], "1.1.0");
    for role in ["timestamp", "snapshot"] {
        let (before, after) = (&answer["versions"][role], &again["versions"][role]);
        assert!(after.as_u64() > before.as_u64(), "{role} stood still: {before} -> {after}");
    }
    assert_eq!(again["versions"]["timestamp"], published["timestamp_version"]);
}

#[test]
fn python_tuf_reads_a_packed_directory_and_odd_names() {
    if !has_python_tuf() {
        return;
    }
    let shop = Shop::open();
    let root = shop.path("root.json");
    write(&root, shop.get("/metadata/1.root.json").body);
    write(&shop.path("tree/bin/app"), "#!/bin/sh\n");
    let tree = shop.path("tree");
    let tree = tree.to_str().expect("a plain name");
    let version = "1.0.0-rc.1+build.7";
    let published = shop.seed.json(["publish", tree, "--product", "app", "--version", version]);
    let target = text(&published, "target");
    let answer = python_tuf(&shop, &root, &[target]);
    assert_eq!(answer["targets"][target]["sha256"], published["sha256"]);
}

// ---- GET /update ----------------------------------------------------------------------------

#[test]
fn an_app_with_an_older_version_is_offered_the_release_and_can_fetch_it() {
    let shop = Shop::open();
    let bytes = content("release", 1_000);
    let published = shop.publish("1.1.0", &bytes, &[]);
    let offer = shop.get("/update?product=app&version=1.0.0");
    assert_eq!((offer.status, offer.header("content-type")), (200, Some("application/json")));
    let offer = offer.json();
    for key in ["product", "version", "platform", "sha256", "target"] {
        assert_eq!(offer[key], published[key], "{key}");
    }
    assert_eq!(offer["length"], bytes.len());
    assert_eq!(shop.get(text(&offer, "url")).body, bytes);
}

#[test]
fn an_app_that_is_current_or_ahead_gets_no_content() {
    let shop = Shop::open();
    shop.publish("1.1.0", b"release", &[]);
    for version in ["1.1.0", "1.1.0+anything", "2.0.0"] {
        let answer = shop.get(&format!("/update?product=app&version={version}"));
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{version}");
    }
    assert_eq!(shop.get("/update?product=app&version=1.1.0-rc.1").status, 200, "a pre-release is older");
}

#[test]
fn bad_queries_are_refused_with_a_reason_and_unknown_things_are_not_found() {
    let shop = Shop::open();
    shop.publish("1.1.0", b"release", &[]);
    for (query, status, part) in [
        ("product=app", 400, "version is missing"),
        ("version=1.0.0", 400, "product is missing"),
        ("product=app&version=1.0", 400, "semantic version"),
        ("product=..%2Fetc&version=1.0.0", 400, "product"),
        ("product=app&product=app&version=1.0.0", 400, "twice"),
        ("product=other&version=1.0.0", 404, "product"),
        ("product=app&version=1.0.0&channel=beta", 404, "channel"),
    ] {
        let answer = shop.get(&format!("/update?{query}"));
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
        assert!(answer.text().contains(part), "{query}: {}", answer.text());
    }
}

#[test]
fn a_platform_is_served_its_own_build_or_the_one_for_all() {
    let shop = Shop::open();
    shop.publish("1.0.0", b"for linux", &["--platform", "linux-x86_64"]);
    let of = |platform: &str| shop.get(&format!("/update?product=app&version=0.9.0{platform}"));
    assert_eq!(of("&platform=linux-x86_64").json()["platform"], "linux-x86_64");
    assert_eq!(of("&platform=linux-aarch64").status, 204);
    assert_eq!(of("").status, 204, "who names no platform wants a build for all");
    shop.publish("1.1.0", b"for all", &[]);
    assert_eq!(of("&platform=linux-aarch64").json()["version"], "1.1.0");
}

#[test]
fn a_named_caller_is_placed_in_the_rollout_and_gets_what_everybody_gets() {
    let shop = Shop::open();
    shop.publish("1.0.0", b"release", &[]);
    for id in ["&id=host-7", "&id=%C3%BC%20%2F", ""] {
        assert_eq!(shop.get(&format!("/update?product=app&version=0.9.0{id}")).status, 200, "{id}");
    }
    let long = "x".repeat(1_000);
    assert_eq!(shop.get(&format!("/update?product=app&version=0.9.0&id={long}")).status, 400);
}

#[test]
fn a_bare_question_lists_the_newest_release_of_every_product() {
    let shop = Shop::open();
    assert_eq!(shop.get("/update").json()["releases"], serde_json::json!([]));
    shop.publish("1.0.0", b"old", &[]);
    shop.publish("1.1.0", b"new", &[]);
    let file = shop.path("other.bin");
    write(&file, "other");
    let file = file.to_str().expect("a plain name");
    shop.seed.json(["publish", file, "--product", "other", "--version", "3.0.0"]);
    let answer = shop.get("/update").json();
    let mut newest: Vec<(&str, &str)> = answer["releases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|release| (text(release, "product"), text(release, "version")))
        .collect();
    newest.sort_unstable();
    assert_eq!(newest, [("app", "1.1.0"), ("other", "3.0.0")]);
}

// ---- files ----------------------------------------------------------------------------------

#[test]
fn a_broken_download_is_resumed_with_a_range_under_the_same_tag() {
    let shop = Shop::open();
    let bytes = content("range", 100_000);
    shop.publish("1.0.0", &bytes, &[]);
    let offer = shop.get("/update?product=app&version=0.9.0").json();
    let url = text(&offer, "url");
    let whole = shop.get(url);
    let tag = whole.header("etag").expect("a tag").to_owned();
    assert_eq!((whole.status, whole.header("accept-ranges")), (200, Some("bytes")));
    assert!(whole.body == bytes);

    let half = bytes.len() / 2;
    let rest = http::get(&shop.http, url, &[("Range", &format!("bytes={half}-")), ("If-Range", &tag)]);
    let range = format!("bytes {half}-{}/{}", bytes.len() - 1, bytes.len());
    assert_eq!((rest.status, rest.header("content-range")), (206, Some(range.as_str())));
    assert_eq!(rest.header("etag"), Some(tag.as_str()));
    assert!(rest.body == bytes[half..]);

    let other = http::get(&shop.http, url, &[("Range", "bytes=10-19"), ("If-Range", "\"another\"")]);
    assert_eq!((other.status, other.body.len()), (200, bytes.len()), "a part of another file is no use");
    assert!(shop.get_with(url, "Range", "bytes=-10").body == bytes[bytes.len() - 10..]);
    assert_eq!(shop.get_with(url, "Range", &format!("bytes={}-", bytes.len())).status, 416);
    let known = shop.get_with(url, "If-None-Match", &tag);
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[test]
fn the_timestamp_is_asked_for_again_and_changes_its_tag_with_a_publication() {
    let shop = Shop::open();
    let before = shop.get("/metadata/timestamp.json");
    let tag = before.header("etag").expect("a tag").to_owned();
    assert_eq!(shop.get_with("/metadata/timestamp.json", "If-None-Match", &tag).status, 304);
    shop.publish("1.0.0", b"release", &[]);
    let after = shop.get_with("/metadata/timestamp.json", "If-None-Match", &tag);
    assert_eq!(after.status, 200);
    assert_ne!(after.header("etag"), Some(tag.as_str()));
}

#[test]
fn nothing_but_the_repository_is_served() {
    let shop = Shop::open();
    shop.publish("1.0.0", b"release", &[]);
    for path in [
        "/metadata/9.root.json",
        "/metadata/../keys/root.pem",
        "/metadata/%2e%2e%2fkeys%2froot.pem",
        "/targets/releases/app/1.0.0/any/app-1.0.0.bin",
        "/targets/../control.sock",
        "/keys/root.pem",
        "/",
    ] {
        let answer = shop.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn health_and_numbers_are_there_on_a_seed_and_on_a_peer_that_was_told_to() {
    let shop = Shop::open();
    shop.publish("1.0.0", b"release", &[]);
    assert_eq!(shop.get("/healthz").status, 200);
    let metrics = shop.get("/metrics");
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(metrics.text().ends_with("# EOF\n"), "{}", metrics.text());

    let (plain, _) = installing_peer(PROGRAM, shop.scratch.path(), "plain", &shop.seed.ticket(&[]));
    assert_eq!(plain.status().http, None, "off really is off");
    let data_dir = shop.path("mirror");
    let arguments = ["peer", "--join", &shop.seed.ticket(&[]), "--mirror", "app", "--http", "127.0.0.1:0"];
    let mirror = Node::start(PROGRAM, &data_dir, arguments);
    mirror.until("1.0.0 at the mirror", |status| status.subscriptions[0].installed.as_deref() == Some("1.0.0"));
    let offer = http::get(&mirror.http(), "/update?product=app&version=0.9.0", &[]);
    assert_eq!(offer.status, 200, "an app on the mirror's machine asks the mirror: {}", offer.text());
    assert_eq!(http::get(&mirror.http(), text(&offer.json(), "url"), &[]).body, b"release");
}
