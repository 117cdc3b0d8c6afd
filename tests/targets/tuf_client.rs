//! `tuf-client` as its judges run it: a process, a directory, a server that speaks HTTP/1.0.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::json;
use updraft_protocol::digest::Digest;
use updraft_protocol::key::{PublicKey, SigningKey};
use updraft_protocol::meta::MetaFile;
use updraft_protocol::time::UtcTime;
use updraft_protocol::tuf::{
    DelegatedRole, FileMeta, RoleName, Root, Snapshot, TargetInfo, Targets, Timestamp, TopRole, sign_role,
};
use updraft_tests::repository::TestRepository;
use updraft_tests::shelf::Shelf;

fn now() -> UtcTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    UtcTime::from_unix(i64::try_from(since.as_secs()).expect("before 9999"))
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn public(seed: u8) -> PublicKey {
    key(seed).public()
}

fn role(name: &str) -> RoleName {
    name.parse().expect("a role name")
}

/// Seeds of the keys of the top-level roles.
const ROOT: u8 = 1;
const TIMESTAMP: u8 = 2;
const SNAPSHOT: u8 = 3;
const TARGETS: u8 = 4;

/// A repository as its owner edits it. Delegated roles are signed with the key of their delegation.
struct Repository {
    root: Root,
    root_signers: Vec<u8>,
    timestamp: Timestamp,
    timestamp_key: u8,
    snapshot: Snapshot,
    targets: Targets,
    delegated: BTreeMap<RoleName, (Targets, u8)>,
}

impl Repository {
    fn new() -> Self {
        let expires = now().plus_days(2);
        let root = [(TopRole::Root, ROOT), (TopRole::Timestamp, TIMESTAMP), (TopRole::Snapshot, SNAPSHOT)]
            .into_iter()
            .chain([(TopRole::Targets, TARGETS)])
            .fold(Root::new(1, expires), |root, (top, seed)| root.with_role(top, 1, &[public(seed)]));
        Self {
            root,
            root_signers: vec![ROOT],
            timestamp: Timestamp::new(1, expires, FileMeta::of(1, b"")),
            timestamp_key: TIMESTAMP,
            snapshot: Snapshot::new(1, expires),
            targets: Targets::new(1, expires),
            delegated: BTreeMap::new(),
        }
    }

    fn delegate(&mut self, name: &str, patterns: &[&str], seed: u8) -> &mut Targets {
        let delegations = self.targets.delegations.take().unwrap_or_default();
        self.targets.delegations =
            Some(delegations.with_role(DelegatedRole::new(role(name), patterns), 1, &[public(seed)]));
        let fresh = Targets::new(1, self.targets.expires);
        &mut self.delegated.entry(role(name)).or_insert((fresh, seed)).0
    }

    fn root_file(&self) -> Vec<u8> {
        let keys: Vec<SigningKey> = self.root_signers.iter().map(|seed| key(*seed)).collect();
        sign_role(&self.root, &keys.iter().collect::<Vec<_>>())
    }

    /// Every file by its name on the server.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let version = |version: u64| if self.root.consistent_snapshot { format!("{version}.") } else { String::new() };
        let mut files = BTreeMap::from([(format!("{}.root.json", self.root.version), self.root_file())]);
        let mut snapshot = self.snapshot.clone();
        let top = (&role("targets"), (&self.targets, TARGETS));
        let all = self.delegated.iter().map(|(name, (targets, seed))| (name, (targets, *seed)));
        for (name, (targets, seed)) in all.chain([top]) {
            let bytes = sign_role(targets, &[&key(seed)]);
            snapshot = snapshot.with_role(name, FileMeta::of(targets.version, &bytes));
            files.insert(format!("{}{}.json", version(targets.version), name.file_stem()), bytes);
        }
        let bytes = sign_role(&snapshot, &[&key(SNAPSHOT)]);
        let timestamp = Timestamp { snapshot: FileMeta::of(snapshot.version, &bytes), ..self.timestamp.clone() };
        files.insert(format!("{}snapshot.json", version(snapshot.version)), bytes);
        files.insert("timestamp.json".to_owned(), sign_role(&timestamp, &[&key(self.timestamp_key)]));
        files
    }
}

/// A server, and a client's directories.
struct Bench {
    shelf: Shelf,
    scratch: tempfile::TempDir,
}

impl Bench {
    /// A client that trusts the repository's root, and a server that has its files.
    fn of(repository: &Repository) -> Self {
        let bench = Self { shelf: Shelf::open(), scratch: tempfile::tempdir().expect("a directory") };
        bench.publish(repository);
        bench.init(&repository.root_file());
        bench
    }

    fn publish(&self, repository: &Repository) {
        for (name, bytes) in repository.files() {
            self.shelf.put(&format!("/m/{name}"), &bytes);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn init(&self, root: &[u8]) {
        fs::write(self.path("trusted root"), root).expect("written");
        let (metadata, root) = (self.path("metadata"), self.path("trusted root"));
        assert_eq!(run(Command::new(CLIENT).arg("--metadata-dir").arg(metadata).arg("init").arg(root)), 0);
        assert!(self.shelf.asked().is_empty(), "init asks nobody");
    }

    fn refresh(&self) -> i32 {
        let metadata = self.path("metadata");
        run(Command::new(CLIENT)
            .args(["--metadata-url", &self.shelf.url("/m/"), "--metadata-dir"])
            .arg(metadata)
            .arg("refresh"))
    }

    fn download(&self, targets: &[&str]) -> i32 {
        let mut command = Command::new(CLIENT);
        command.args(["--metadata-url", &self.shelf.url("/m"), "--metadata-dir"]).arg(self.path("metadata"));
        for target in targets {
            command.args(["--target-name", target]);
        }
        command.arg("--target-dir").arg(self.path("targets"));
        run(command.args(["--target-base-url", &self.shelf.url("/t"), "download"]))
    }

    /// What is in a directory of the client.
    fn kept(&self, directory: &str) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.path(directory)) else { return BTreeMap::new() };
        let file = |path: PathBuf| (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path));
        let files = entries.map(|entry| file(entry.expect("readable").path()));
        files.map(|(name, bytes)| (name, bytes.expect("a plain file"))).collect()
    }

    fn kept_names(&self, directory: &str) -> Vec<String> {
        self.kept(directory).into_keys().collect()
    }

    fn asked(&self) -> Vec<String> {
        self.shelf.asked()
    }
}

const CLIENT: &str = env!("CARGO_BIN_EXE_tuf-client");

/// The exit code.
fn run(command: &mut Command) -> i32 {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("started").code().expect("not killed by a signal")
}

const TOP: [&str; 4] = ["root.json", "snapshot.json", "targets.json", "timestamp.json"];

// ---- refresh

#[test]
fn a_refresh_asks_in_the_order_of_the_specification_and_keeps_the_very_bytes() {
    let repository = Repository::new();
    let bench = Bench::of(&repository);
    let spaced = [&repository.files()["timestamp.json"][..], b" \n"].concat();
    bench.shelf.put("/m/timestamp.json", &spaced);
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.asked(), ["/m/2.root.json", "/m/timestamp.json", "/m/1.snapshot.json", "/m/1.targets.json"]);
    let (kept, files) = (bench.kept("metadata"), repository.files());
    assert_eq!(kept.keys().collect::<Vec<_>>(), TOP);
    assert_eq!(kept["root.json"], files["1.root.json"]);
    assert_eq!(kept["timestamp.json"], spaced);
    assert_eq!(kept["snapshot.json"], files["1.snapshot.json"]);
    assert_eq!(kept["targets.json"], files["1.targets.json"]);
}

#[test]
fn what_is_known_is_not_fetched_again() {
    let mut repository = Repository::new();
    let bench = Bench::of(&repository);
    assert_eq!(bench.refresh(), 0);
    bench.asked();
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.asked(), ["/m/2.root.json", "/m/timestamp.json"]);
    repository.timestamp.version = 2;
    repository.snapshot.version = 2;
    bench.publish(&repository);
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.asked(), ["/m/2.root.json", "/m/timestamp.json", "/m/2.snapshot.json"]);
}

#[test]
fn names_have_no_versions_without_consistent_snapshots() {
    let mut repository = Repository::new();
    repository.root.consistent_snapshot = false;
    repository.targets.targets.insert("a/b".to_owned(), TargetInfo::of(b"content"));
    let bench = Bench::of(&repository);
    bench.shelf.put("/t/a/b", b"content");
    assert_eq!(bench.download(&["a/b"]), 0);
    let expected = ["/m/2.root.json", "/m/timestamp.json", "/m/snapshot.json", "/m/targets.json", "/t/a/b"];
    assert_eq!(bench.asked(), expected);
}

#[test]
fn roots_are_kept_one_by_one_up_to_the_last_that_holds() {
    let mut repository = Repository::new();
    let bench = Bench::of(&repository);
    repository.root.version = 2;
    repository.root = repository.root.with_role(TopRole::Root, 1, &[public(11)]);
    repository.root_signers = vec![ROOT, 11];
    bench.publish(&repository);
    let second = repository.root_file();
    repository.root.version = 3;
    repository.root_signers = vec![ROOT];
    bench.publish(&repository);
    assert_eq!(bench.refresh(), 1);
    assert_eq!(bench.asked(), ["/m/2.root.json", "/m/3.root.json"]);
    assert_eq!(bench.kept("metadata"), BTreeMap::from([("root.json".to_owned(), second)]));
    repository.root_signers = vec![11];
    bench.publish(&repository);
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.asked()[..3], ["/m/3.root.json", "/m/4.root.json", "/m/timestamp.json"]);
    assert_eq!(bench.kept("metadata")["root.json"], repository.root_file());
}

#[test]
fn an_expired_root_ends_the_update_before_the_timestamp_is_asked_for() {
    let mut repository = Repository::new();
    repository.root.expires = now().plus_seconds(-1);
    let bench = Bench::of(&repository);
    assert_eq!(bench.refresh(), 1);
    assert_eq!(bench.asked(), ["/m/2.root.json"]);
}

#[test]
fn an_update_that_stopped_half_way_goes_on_where_it_was() {
    let mut repository = Repository::new();
    let bench = Bench::of(&repository);
    assert_eq!(bench.refresh(), 0);
    let before = bench.kept("metadata");
    repository.timestamp.version = 2;
    repository.snapshot.version = 2;
    repository.targets.version = 2;
    bench.publish(&repository);
    bench.shelf.take("/m/2.snapshot.json");
    bench.asked();
    assert_eq!(bench.refresh(), 1);
    let files = repository.files();
    let half = bench.kept("metadata");
    assert_eq!(half["timestamp.json"], files["timestamp.json"], "the first step is kept");
    assert_eq!((&half["snapshot.json"], &half["targets.json"]), (&before["snapshot.json"], &before["targets.json"]));
    bench.publish(&repository);
    bench.asked();
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.asked(), ["/m/2.root.json", "/m/timestamp.json", "/m/2.snapshot.json", "/m/2.targets.json"]);
    assert_eq!(bench.kept("metadata")["targets.json"], files["2.targets.json"]);
}

#[test]
fn a_replayed_timestamp_is_refused_by_the_next_process_too() {
    let mut repository = Repository::new();
    let bench = Bench::of(&repository);
    let old = repository.files()["timestamp.json"].clone();
    repository.timestamp.version = 2;
    bench.publish(&repository);
    assert_eq!(bench.refresh(), 0);
    bench.shelf.put("/m/timestamp.json", &old);
    assert_eq!(bench.refresh(), 1);
    assert_eq!(bench.kept("metadata")["timestamp.json"], repository.files()["timestamp.json"]);
}

#[test]
fn a_rotated_key_lets_versions_that_were_pushed_forward_come_back() {
    let mut repository = Repository::new();
    repository.timestamp.version = 1_000_000;
    let bench = Bench::of(&repository);
    assert_eq!(bench.refresh(), 0);
    repository.root.version = 2;
    repository.root = repository.root.with_role(TopRole::Timestamp, 1, &[public(12)]);
    repository.timestamp_key = 12;
    repository.timestamp.version = 1;
    bench.publish(&repository);
    bench.shelf.take("/m/timestamp.json");
    assert_eq!(bench.refresh(), 1);
    assert_eq!(bench.kept_names("metadata"), ["root.json", "targets.json"], "deleted with the root that rotates");
    bench.publish(&repository);
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.kept("metadata")["timestamp.json"], repository.files()["timestamp.json"]);
}

#[test]
fn a_file_on_disk_that_was_damaged_is_fetched_again() {
    let repository = Repository::new();
    let bench = Bench::of(&repository);
    assert_eq!(bench.refresh(), 0);
    for (name, url) in [
        ("timestamp.json", "/m/timestamp.json"),
        ("snapshot.json", "/m/1.snapshot.json"),
        ("targets.json", "/m/1.targets.json"),
    ] {
        fs::write(bench.path("metadata").join(name), b"{").expect("written");
        bench.asked();
        assert_eq!(bench.refresh(), 0, "{name}");
        assert_eq!(bench.asked().last().map(String::as_str), Some(url), "and no other");
        assert_eq!(bench.kept_names("metadata"), TOP);
    }
    let files = repository.files();
    assert_eq!(bench.kept("metadata")["targets.json"], files["1.targets.json"]);
    fs::write(bench.path("metadata").join("root.json"), b"{").expect("written");
    bench.asked();
    assert_eq!((bench.refresh(), bench.asked().len()), (1, 0), "without a root nobody is asked");
}

// ---- a server that does what it should not

#[test]
fn answers_too_large_too_short_or_not_http_are_refused_and_nothing_is_kept() {
    let repository = Repository::new();
    let bench = Bench::of(&repository);
    let timestamp = repository.files()["timestamp.json"].clone();
    let framed = |header: String, body: &[u8]| [header.as_bytes(), body].concat();
    let endless = vec![b' '; 1024 * 1024];
    for answer in [
        framed(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", timestamp.len() + 1), &timestamp),
        framed("HTTP/1.0 200 OK\r\n\r\n".to_owned(), &endless),
        framed(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX), &timestamp),
        framed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), b"0\r\n\r\n"),
        framed("HTTP/1.0 500 Internal Server Error\r\n\r\n".to_owned(), &timestamp),
        framed("HTTP/1.0 302 Found\r\nLocation: /m/1.snapshot.json\r\n\r\n".to_owned(), b""),
        framed(String::new(), &timestamp),
        framed(format!("HTTP/1.0 200 OK\r\n{}", "X: y\r\n".repeat(10_000)), &timestamp),
        Vec::new(),
    ] {
        bench.shelf.put_raw("/m/timestamp.json", &answer);
        assert_eq!(bench.refresh(), 1, "{}", String::from_utf8_lossy(&answer[..answer.len().min(80)]));
        assert_eq!(bench.kept_names("metadata"), ["root.json"]);
    }
    // Without a length a body ends with the connection, as HTTP/1.0 says.
    bench.shelf.put_raw("/m/timestamp.json", &framed("HTTP/1.0 200 OK\r\n\r\n".to_owned(), &timestamp));
    assert_eq!(bench.refresh(), 0);
}

#[test]
fn a_server_that_fails_is_not_one_that_has_no_newer_root() {
    let repository = Repository::new();
    let bench = Bench::of(&repository);
    bench.shelf.put_raw("/m/2.root.json", b"HTTP/1.0 503 Service Unavailable\r\n\r\n");
    assert_eq!(bench.refresh(), 1);
    assert_eq!(bench.asked(), ["/m/2.root.json"]);
}

#[test]
fn a_hostile_role_name_stays_one_name_in_the_directory() {
    let mut repository = Repository::new();
    for (name, seed) in [("../../evil", 20), ("/tmp/evil", 21), ("..", 22), ("a b?c#d\r\n", 23), (".", 24)] {
        repository.delegate(name, &["*"], seed);
    }
    let bench = Bench::of(&repository);
    for name in repository.delegated.keys() {
        let file = format!("/m/1.{}.json", name.file_stem());
        assert!(file.bytes().all(|byte| byte.is_ascii_graphic()), "{file}");
    }
    assert_eq!(bench.download(&["nowhere"]), 1);
    assert_eq!(bench.asked()[4], "/m/1...%2F..%2Fevil.json");
    assert_eq!(bench.kept_names("metadata").len(), TOP.len() + repository.delegated.len());
    let outside = fs::read_dir(bench.scratch.path()).expect("readable").map(|entry| entry.expect("one").file_name());
    let mut outside: Vec<String> = outside.map(|name| name.to_string_lossy().into_owned()).collect();
    outside.sort();
    assert_eq!(outside, ["metadata", "trusted root"]);
    assert!(!Path::new("/tmp/evil.json").exists());
}

// ---- download

fn hash_name(path: &str, content: &[u8]) -> String {
    let (directory, name) = path.rsplit_once('/').expect("a directory");
    format!("/t/{directory}/{}.{name}", Digest::of(content))
}

#[test]
fn delegations_are_loaded_where_they_are_needed_and_targets_once() {
    let mut repository = Repository::new();
    repository.delegate("a", &["a/*"], 20).targets.insert("a/one".to_owned(), TargetInfo::of(b"one"));
    repository.delegate("b", &["b/*"], 21).targets.insert("b/two".to_owned(), TargetInfo::of(b"two"));
    let bench = Bench::of(&repository);
    bench.shelf.put(&hash_name("a/one", b"one"), b"one");
    bench.shelf.put(&hash_name("b/two", b"two"), b"two");
    assert_eq!(bench.refresh(), 0);
    assert_eq!(bench.kept_names("metadata"), TOP, "a refresh needs no delegation");
    bench.asked();
    assert_eq!(bench.download(&["b/two"]), 0);
    let known = ["/m/2.root.json", "/m/timestamp.json"].map(str::to_owned);
    assert_eq!(bench.asked(), [&known[..], &["/m/1.b.json".to_owned(), hash_name("b/two", b"two")]].concat());
    assert_eq!(bench.kept("targets"), BTreeMap::from([("b%2Ftwo".to_owned(), b"two".to_vec())]));
    assert_eq!(bench.download(&["b/two", "a/one"]), 0);
    assert_eq!(bench.asked(), [&known[..], &["/m/1.a.json".to_owned(), hash_name("a/one", b"one")]].concat());
    assert_eq!(bench.download(&["a/one", "b/two"]), 0);
    assert_eq!(bench.asked(), known);
    assert_eq!(bench.kept("metadata")["b.json"], repository.files()["1.b.json"]);
}

#[test]
fn a_file_that_no_longer_is_the_target_is_replaced_by_one_that_is() {
    let mut repository = Repository::new();
    repository.targets.targets.insert("d/x".to_owned(), TargetInfo::of(b"first"));
    let bench = Bench::of(&repository);
    bench.shelf.put(&hash_name("d/x", b"first"), b"first");
    assert_eq!(bench.download(&["d/x"]), 0);
    fs::write(bench.path("targets").join("d%2Fx"), b"firsT").expect("written");
    assert_eq!(bench.download(&["d/x"]), 0);
    assert_eq!(bench.kept("targets")["d%2Fx"], b"first");

    repository.targets.targets.insert("d/x".to_owned(), TargetInfo::of(b"second"));
    repository.targets.version = 2;
    repository.snapshot.version = 2;
    repository.timestamp.version = 2;
    bench.publish(&repository);
    for wrong in [&b"seconD"[..], b"second and more", b"secon", b""] {
        bench.shelf.put(&hash_name("d/x", b"second"), wrong);
        assert_eq!(bench.download(&["d/x"]), 1);
        assert_eq!(bench.kept("targets"), BTreeMap::from([("d%2Fx".to_owned(), b"first".to_vec())]));
    }
    bench.shelf.put(&hash_name("d/x", b"second"), b"second");
    assert_eq!(bench.download(&["d/x"]), 0);
    assert_eq!(bench.kept("targets"), BTreeMap::from([("d%2Fx".to_owned(), b"second".to_vec())]));
}

#[test]
fn targets_come_in_the_order_of_the_arguments_until_one_fails() {
    let mut repository = Repository::new();
    for name in ["d/1", "d/2", "d/3"] {
        repository.targets.targets.insert(name.to_owned(), TargetInfo::of(name.as_bytes()));
    }
    let bench = Bench::of(&repository);
    bench.shelf.put(&hash_name("d/3", b"d/3"), b"d/3");
    bench.shelf.put(&hash_name("d/1", b"d/1"), b"d/1");
    assert_eq!(bench.download(&["d/3", "d/2", "d/1"]), 1);
    assert_eq!(bench.kept_names("targets"), ["d%2F3"]);
    assert_eq!(bench.download(&["d/1", "nowhere"]), 1);
    assert_eq!(bench.kept_names("targets"), ["d%2F1", "d%2F3"]);
}

/// SHA-512 of `a`, from NIST's examples.
const SHA512_OF_A: &str = "1f40fc92da241694750979ee6cf582f2d5d7d28e18335de05abc54d0560e0f53\
                           02860c652bf08d560252aa5e74210546f369fbbbce8c12cfc7957b2652fe9a75";

#[test]
fn a_target_pinned_by_sha512_alone_is_fetched_by_that_name() {
    let wrong = SHA512_OF_A.replacen('1', "2", 1);
    let mut repository = Repository::new();
    for (path, hashes) in [
        ("d/x", json!({"sha512": SHA512_OF_A})),
        ("d/y", json!({"sha256": Digest::of(b"a"), "sha512": wrong})),
        ("d/z", json!({"md5": "0cc175b9c0f1b6a831c399e269772661"})),
    ] {
        let target = serde_json::from_value(json!({"length": 1, "hashes": hashes})).expect("a target");
        repository.targets.targets.insert(path.to_owned(), target);
    }
    let bench = Bench::of(&repository);
    bench.shelf.put(&format!("/t/d/{SHA512_OF_A}.x"), b"a");
    bench.shelf.put(&hash_name("d/y", b"a"), b"a");
    assert_eq!(bench.download(&["d/x"]), 0);
    assert_eq!(bench.download(&["d/y"]), 1, "one of two hashes does not hold");
    bench.asked();
    assert_eq!(bench.download(&["d/z"]), 1);
    assert!(bench.asked().iter().all(|path| path.starts_with("/m/")), "what cannot be verified is not fetched");
    assert_eq!(bench.kept_names("targets"), ["d%2Fx"]);
}

#[test]
fn a_repository_that_a_seed_signed_is_read_like_any_other() {
    let mut repository = TestRepository::new(now());
    repository.publish("1.0.0", b"the release", now());
    let bench = Bench { shelf: Shelf::open(), scratch: tempfile::tempdir().expect("a directory") };
    let trusted = &repository.signed.trusted;
    let snapshot = trusted.snapshot().expect("signed");
    bench.shelf.put("/m/timestamp.json", trusted.timestamp().expect("signed").bytes());
    bench.shelf.put(&format!("/m/{}.snapshot.json", snapshot.version), snapshot.bytes());
    for (file, bytes) in &repository.files {
        match file {
            MetaFile::Role { name, version } => {
                bench.shelf.put(&format!("/m/{version}.{}.json", role(name).file_stem()), bytes);
            }
            MetaFile::Target { path, .. } => bench.shelf.put(&hash_name(path, bytes), bytes),
            _ => {}
        }
    }
    let release =
        trusted.all_targets().into_iter().find(|(path, ..)| path.starts_with("releases/")).expect("published");
    bench.shelf.put(&hash_name(release.0, b"the release"), b"the release");
    bench.init(&repository.root);
    assert_eq!(bench.download(&["channels/app/stable.json", release.0]), 0);
    let kept = bench.kept("targets");
    assert_eq!(kept[&release.0.replace('/', "%2F")], b"the release");
    assert!(kept.contains_key("channels%2Fapp%2Fstable.json"));
}

// ---- exit codes

#[test]
fn whatever_is_wrong_with_a_command_line_the_exit_code_is_1() {
    let bench = Bench::of(&Repository::new());
    let metadata = bench.path("metadata");
    let metadata = metadata.to_str().expect("a plain name");
    let closed = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        format!("http://{}/", listener.local_addr().expect("bound"))
    };
    for arguments in [
        &[][..],
        &["--help"],
        &["refresh"],
        &["--metadata-dir", metadata, "init"],
        &["--metadata-dir", metadata, "init", "/nonexistent/root.json"],
        &["--metadata-dir", metadata, "init", metadata],
        &["--metadata-dir", "/dev/null/x", "init", bench.path("trusted root").to_str().expect("a plain name")],
        &["--metadata-dir", metadata, "--metadata-url", "nonsense", "refresh"],
        &["--metadata-dir", metadata, "--metadata-url", &closed, "refresh"],
        &["--metadata-dir", "/nonexistent", "--metadata-url", &closed, "refresh"],
    ] {
        assert_eq!(run(Command::new(CLIENT).args(arguments)), 1, "{arguments:?}");
    }
}

#[test]
fn a_root_that_does_not_hold_is_not_trusted() {
    let bench = Bench::of(&Repository::new());
    let mut other = Repository::new();
    other.root_signers = vec![SNAPSHOT];
    let before = bench.kept("metadata");
    fs::write(bench.path("bad root"), other.root_file()).expect("written");
    let (metadata, root) = (bench.path("metadata"), bench.path("bad root"));
    assert_eq!(run(Command::new(CLIENT).arg("--metadata-dir").arg(metadata).arg("init").arg(root)), 1);
    assert_eq!(bench.kept("metadata"), before);
}
