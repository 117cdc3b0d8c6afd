//! Keys and ceremonies as operators meet them: real processes, key holders in directories of their
//! own, files that go from one to the other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use updraft_tests::process::{Ended, Node, Program, installing_peer, run_to_end, seed, write};

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_updraft"));

const OK: i32 = 0;
const ERROR: i32 = 1;
const USAGE: i32 = 2;
const NOTHING_TO_DO: i32 = 3;
const VERIFICATION_FAILED: i32 = 5;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Somebody who holds keys in a directory of his own, and no repository.
struct Holder {
    keys: PathBuf,
    nowhere: PathBuf,
}

impl Holder {
    fn new(scratch: &Path, name: &str) -> Self {
        Self { keys: scratch.join(name), nowhere: scratch.join("no-node-here") }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        PROGRAM.run(&self.nowhere, arguments.iter().chain(&["--keys", plain(&self.keys)]))
    }

    /// Makes a key; returns its public file.
    fn generate(&self, name: &str) -> PathBuf {
        self.run(&["key", "generate", name]).succeeded();
        self.keys.join(format!("{name}.pub"))
    }

    fn sign(&self, command: &str, file: &Path) -> Ended {
        self.run(&[command, "sign", plain(file), "--yes"])
    }
}

/// A stopped seed's directory with the product `app`.
fn repository(scratch: &Path) -> PathBuf {
    let data_dir = scratch.join("seed");
    PROGRAM.run(&data_dir, ["init", "--product", "app"]).succeeded();
    data_dir
}

fn tree(scratch: &Path) -> PathBuf {
    let tree = scratch.join("tree");
    write(&tree.join("bin/app"), "#!/bin/sh\n");
    tree
}

fn publish(data_dir: &Path, tree: &Path, product: &str, version: &str) -> Ended {
    PROGRAM.run(data_dir, ["publish", plain(tree), "--product", product, "--version", version])
}

/// The key ids of a role, by `key list`.
fn key_ids(data_dir: &Path, role: &str) -> Vec<String> {
    let list = PROGRAM.json(data_dir, ["key", "list"]);
    let roles = list["roles"].as_array().expect("a list");
    let row = roles.iter().find(|row| row["role"] == role).unwrap_or_else(|| panic!("no {role}: {list}"));
    row["keys"].as_array().expect("a list").iter().map(|key| text(&key["key_id"]).to_owned()).collect()
}

fn move_away(data_dir: &Path, label: &str, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    let file = to.join(format!("{label}.pem"));
    PROGRAM.run(data_dir, ["key", "export", label, "--output", plain(&file), "--move"]).succeeded();
    assert!(!data_dir.join(format!("keys/{label}.pem")).exists());
}

// ---- ceremonies -----------------------------------------------------------------------------

#[test]
fn three_holders_take_over_the_root_and_two_of_them_renew_it() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let at = |name: &str| scratch.path().join(name);
    let holders = ["alice", "bob", "carol"].map(|name| Holder::new(scratch.path(), name));
    let [alice, bob, carol] = &holders;
    let publics = [alice.generate("alice"), bob.generate("bob"), carol.generate("carol")];
    let old = key_ids(&data_dir, "root").remove(0);
    let file = at("handover.json");
    let add = publics.iter().flat_map(|public| ["--add-key".to_owned(), format!("root={}", plain(public))]);
    let rest = ["--remove-key", &format!("root={}", &old[..12]), "--threshold", "root=2", "--output", plain(&file)];
    let arguments = ["root", "draft"].map(str::to_owned).into_iter().chain(add).chain(rest.map(str::to_owned));
    PROGRAM.run(&data_dir, arguments).succeeded();

    // The seed's own key, then two holders on copies that never meet until they are merged.
    PROGRAM.run(&data_dir, ["root", "sign", plain(&file), "--yes"]).succeeded();
    PROGRAM.run(&data_dir, ["root", "apply", plain(&file)]).failed(ERROR, "lacks signatures: 0 of 2");
    let copy = at("copy.json");
    fs::copy(&file, &copy).expect("copied");
    alice.sign("root", &file).succeeded();
    bob.sign("root", &copy).succeeded();
    let merged = at("merged.json");
    PROGRAM
        .run(&at("no-node-here"), ["root", "merge", plain(&file), plain(&copy), "--output", plain(&merged)])
        .succeeded();
    let shown = PROGRAM.json(&at("no-node-here"), ["root", "show", plain(&merged)]);
    assert_eq!(shown["complete"], true, "{shown}");
    assert_eq!(shown["root_version"], 1);
    let changes = shown["changes"].as_array().expect("a list");
    assert!(changes.iter().any(|change| change["change"] == "threshold" && change["to"] == 2), "{shown}");
    assert!(changes.iter().any(|change| change["change"] == "key_removed" && change["key_id"] == *old), "{shown}");
    PROGRAM.run(&data_dir, ["root", "apply", plain(&merged)]).succeeded();
    PROGRAM.run(&data_dir, ["root", "apply", plain(&merged)]).failed(NOTHING_TO_DO, "in force already");
    assert_eq!(key_ids(&data_dir, "root").len(), 3);

    // From now on the seed cannot make a root, and any two holders can.
    PROGRAM
        .run(&data_dir, ["root", "draft", "--renew", "--apply", "--yes", "--output", plain(&at("renewal.json"))])
        .succeeded();
    let renewal = at("renewal.json");
    PROGRAM.run(&data_dir, ["root", "apply", plain(&renewal)]).failed(ERROR, "lacks signatures: 0 of 2");
    for holder in [carol, bob] {
        holder.sign("root", &renewal).succeeded();
    }
    PROGRAM.run(&data_dir, ["root", "apply", plain(&renewal)]).succeeded();
    let outdated = PROGRAM.run(&data_dir, ["root", "apply", plain(&merged)]);
    outdated.failed(ERROR, "draft it again");
    publish(&data_dir, &tree(scratch.path()), "app", "1.0.0").succeeded();
}

#[test]
fn a_ceremony_file_that_somebody_altered_is_refused_by_everybody() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let thief = Holder::new(scratch.path(), "thief");
    let honest = Holder::new(scratch.path(), "honest");
    let (evil, good) = (thief.generate("evil"), honest.generate("good"));
    let file = scratch.path().join("rotation.json");
    let add = format!("timestamp={}", plain(&good));
    PROGRAM.run(&data_dir, ["root", "draft", "--add-key", &add, "--output", plain(&file)]).succeeded();
    PROGRAM.run(&data_dir, ["root", "sign", plain(&file), "--yes"]).succeeded();
    let id = |public: &Path| {
        let key: Value = serde_json::from_slice(&fs::read(public).expect("readable")).expect("JSON");
        text(&key["keyval"]["public"]).to_owned()
    };
    let original = fs::read_to_string(&file).expect("text");
    let altered = original.replace(&id(&good), &id(&evil));
    assert_ne!(altered, original);
    fs::write(&file, &altered).expect("written");
    for arguments in [&["root", "show"][..], &["root", "sign", "--yes"], &["root", "apply"]] {
        let ended = PROGRAM.run(&data_dir, arguments.iter().chain(&[plain(&file)]));
        ended.failed(VERIFICATION_FAILED, "was altered");
    }
    assert_eq!(fs::read_to_string(&file).expect("text"), altered, "nobody signed it");
    let pipe = scratch.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644), 0)
        .expect("a pipe");
    PROGRAM.run(&data_dir, ["root", "apply", plain(&pipe)]).failed(ERROR, "not a file");
    fs::write(&file, &original[..original.len() / 2]).expect("written");
    PROGRAM.run(&data_dir, ["root", "apply", plain(&file)]).failed(VERIFICATION_FAILED, "not a ceremony file");
    fs::write(&file, &original).expect("written");
    PROGRAM.run(&data_dir, ["root", "apply", plain(&file)]).succeeded();
}

#[test]
fn a_ceremony_file_of_another_repository_is_refused() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let other = scratch.path().join("other");
    PROGRAM.run(&other, ["init"]).succeeded();
    let file = scratch.path().join("renewal.json");
    PROGRAM.run(&other, ["root", "draft", "--renew", "--output", plain(&file)]).succeeded();
    PROGRAM.run(&other, ["root", "sign", plain(&file), "--yes"]).succeeded();
    PROGRAM.run(&data_dir, ["root", "apply", plain(&file)]).failed(VERIFICATION_FAILED, "another repository");
    Holder::new(scratch.path(), "stranger").sign("root", &file).failed(ERROR, "may sign");
}

#[test]
fn the_timestamp_key_is_replaced_under_a_running_seed_and_its_peers_follow() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let tree = tree(scratch.path());
    publish(&seed.data_dir, &tree, "app", "1.0.0").succeeded();
    let (peer, _) = installing_peer(PROGRAM, scratch.path(), "peer", &seed.ticket(&[]));
    peer.until("the first install", |status| status.subscriptions[0].installed.as_deref() == Some("1.0.0"));
    let old = key_ids(&seed.data_dir, "timestamp");
    let before = seed.status().repositories[0].head.as_ref().expect("a head").timestamp_version;
    seed.run(["key", "generate", "timestamp-2"]).succeeded();
    seed.run(["key", "rotate", "timestamp", "--new", "timestamp-2", "--yes"]).succeeded();
    assert_ne!(key_ids(&seed.data_dir, "timestamp"), old);
    let status = peer.until("the new root", |status| {
        let repository = &status.repositories[0];
        let head = repository.head.as_ref().is_some_and(|head| head.timestamp_version > before);
        repository.root_version == 2 && head
    });
    assert!(status.repositories[0].head.as_ref().is_some_and(|head| head.fresh));
    fs::remove_file(seed.data_dir.join("keys/timestamp.pem")).expect("the old key is of no use any more");
    publish(&seed.data_dir, &tree, "app", "1.0.1").succeeded();
    peer.until("the next install", |status| status.subscriptions[0].installed.as_deref() == Some("1.0.1"));
    let events = seed.run(["history"]).succeeded();
    assert!(events.stdout.contains("keys_changed"), "{events:?}");
}

#[test]
fn a_new_root_outlives_restarts_of_the_seed() {
    let scratch = scratch();
    let mut seed = seed(PROGRAM, scratch.path());
    for (role, label) in [("snapshot", "snapshot-2"), ("channels", "channels-2"), ("targets", "targets-2")] {
        seed.run(["key", "generate", label]).succeeded();
        seed.run(["key", "rotate", role, "--new", label, "--yes"]).succeeded();
        fs::remove_file(seed.data_dir.join(format!("keys/{role}.pem"))).expect("there");
    }
    let before = seed.status().repositories[0].clone();
    assert_eq!(before.root_version, 3, "snapshot and targets are the root's to change, channels is not");
    seed.kill();
    seed.start_again();
    let after = seed.status().repositories[0].clone();
    assert_eq!(after.root_version, 3);
    let version =
        |view: &updraft::control::views::RepositoryView| view.head.as_ref().map(|head| head.timestamp_version);
    assert!(version(&after) >= version(&before));
    publish(&seed.data_dir, &tree(scratch.path()), "app", "1.0.0").succeeded();
}

#[test]
fn a_product_is_added_by_those_who_hold_the_targets_key() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let tree = tree(scratch.path());
    let holder = Holder::new(scratch.path(), "holder");
    let publisher = Holder::new(scratch.path(), "publisher");
    move_away(&data_dir, "targets", &holder.keys);
    publish(&data_dir, &tree, "tool", "1.0.0").failed(ERROR, "updraft targets draft --add-product tool=");
    let public = publisher.generate("tool-publisher");
    let file = scratch.path().join("tool.json");
    let product = format!("tool={}", plain(&public));
    let arguments =
        ["targets", "draft", "--add-product", &product, "--security-floor", "app=0.9.0", "--output", plain(&file)];
    PROGRAM.run(&data_dir, arguments).succeeded();
    PROGRAM.run(&data_dir, ["targets", "sign", plain(&file), "--yes"]).failed(ERROR, "may sign");
    let signed = holder.sign("targets", &file).succeeded();
    assert!(signed.stdout.contains("releases-tool is new"), "{signed:?}");
    assert!(signed.stdout.contains("lowest version that may be installed is 0.9.0"), "{signed:?}");
    PROGRAM.run(&data_dir, ["targets", "apply", plain(&file)]).succeeded();
    publish(&data_dir, &tree, "tool", "1.0.0").failed(ERROR, "releases-tool cannot be signed here");
    PROGRAM.run(&data_dir, ["key", "import", plain(&publisher.keys.join("tool-publisher.pem"))]).succeeded();
    publish(&data_dir, &tree, "tool", "1.0.0").succeeded();
    publish(&data_dir, &tree, "app", "1.0.0").succeeded();
}

#[test]
fn a_publishers_key_is_replaced_and_what_it_signed_stays() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let tree = tree(scratch.path());
    publish(&data_dir, &tree, "app", "1.0.0").succeeded();
    let publisher = Holder::new(scratch.path(), "publisher");
    let public = publisher.generate("new-publisher");
    let file = scratch.path().join("publisher.json");
    let rotate = ["key", "rotate", "releases-app", "--new", plain(&public), "--yes", "--output", plain(&file)];
    let ended = PROGRAM.run(&data_dir, rotate).succeeded();
    assert!(ended.stderr.contains("nothing is in force yet"), "{ended:?}");
    publisher.sign("targets", &file).succeeded();
    PROGRAM.run(&data_dir, ["targets", "apply", plain(&file)]).succeeded();
    publish(&data_dir, &tree, "app", "1.0.1").failed(ERROR, "releases-app cannot be signed here");
    PROGRAM.run(&data_dir, ["key", "import", plain(&publisher.keys.join("new-publisher.pem"))]).succeeded();
    publish(&data_dir, &tree, "app", "1.0.1").succeeded();
    let node = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]);
    assert_eq!(node.releases().releases.len(), 2, "the release of the old key is still there");
}

#[test]
fn a_revoked_key_signs_nothing_any_more() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let only = key_ids(&data_dir, "targets").remove(0);
    let alone = PROGRAM.run(&data_dir, ["key", "revoke", &only, "--yes"]);
    let alone = alone.failed(ERROR, "nobody could ever sign it again");
    assert!(alone.stderr.contains("updraft key rotate"), "{alone:?}");
    PROGRAM.run(&data_dir, ["key", "generate", "spare"]).succeeded();
    PROGRAM.run(&data_dir, ["root", "draft", "--add-key", "targets=spare", "--apply", "--yes"]).succeeded();
    PROGRAM.run(&data_dir, ["key", "revoke", &only[..16], "--yes"]).succeeded();
    assert!(!key_ids(&data_dir, "targets").contains(&only));
    let unlisted = PROGRAM.run(&data_dir, ["doctor"]).succeeded();
    assert!(unlisted.stdout.contains("no role lists the key targets"), "{unlisted:?}");
    PROGRAM.run(&data_dir, ["key", "revoke", &only, "--yes"]).failed(USAGE, "no key of this repository");
    publish(&data_dir, &tree(scratch.path()), "other", "1.0.0").succeeded();
}

// ---- keys -----------------------------------------------------------------------------------

#[test]
fn a_seed_without_its_offline_keys_says_what_it_cannot_do_and_where_it_can_be_done() {
    let scratch = scratch();
    let seed = seed(PROGRAM, scratch.path());
    let tree = tree(scratch.path());
    publish(&seed.data_dir, &tree, "app", "1.0.0").succeeded();
    let warned = |node: &Node| node.status().warnings.iter().any(|warning| warning.contains("offline keys"));
    assert!(warned(&seed));
    let safe = scratch.path().join("safe");
    for label in ["root", "targets", "releases-app"] {
        move_away(&seed.data_dir, label, &safe);
    }
    assert!(!warned(&seed), "{:?}", seed.status().warnings);
    let ended = publish(&seed.data_dir, &tree, "app", "1.0.1").failed(ERROR, "releases-app cannot be signed here");
    let short = &key_ids(&seed.data_dir, "releases-app")[0][..16];
    assert!(ended.stderr.contains(short), "the missing key is named: {ended:?}");
    let back = safe.join("releases-app.pem");
    seed.run(["key", "import", plain(&back)]).succeeded();
    publish(&seed.data_dir, &tree, "app", "1.0.1").succeeded();
    let taken = seed.run(["key", "export", "timestamp", "--output", plain(&safe.join("timestamp.pem")), "--move"]);
    assert!(taken.succeeded().stderr.contains("goes stale"), "an online key is moved away with a warning");
}

#[test]
fn an_exported_key_never_overwrites_anything() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let taken = scratch.path().join("taken.pem");
    write(&taken, "precious");
    let export = |to: &Path| PROGRAM.run(&data_dir, ["key", "export", "root", "--output", plain(to), "--move"]);
    export(&taken).failed(ERROR, "never overwritten");
    export(&scratch.path().join("no/such/place.pem")).failed(ERROR, "No such file");
    export(&data_dir.join("keys/copy.pem")).failed(USAGE, "directory of keys itself");
    assert_eq!(fs::read_to_string(&taken).expect("there"), "precious");
    assert!(data_dir.join("keys/root.pem").exists(), "what was not copied was not removed");
    let public = scratch.path().join("root.pub");
    PROGRAM.run(&data_dir, ["key", "export", "root", "--output", plain(&public), "--public"]).succeeded();
    assert!(!fs::read_to_string(&public).expect("there").contains("PRIVATE"));
    PROGRAM.run(&data_dir, ["key", "generate", "root"]).failed(ERROR, "never overwritten");
    PROGRAM.run(&data_dir, ["key", "generate", "../root"]).failed(USAGE, "cannot name a key");
}

#[test]
fn a_key_under_a_passphrase_signs_with_it_alone() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let (right, wrong) = (scratch.path().join("right"), scratch.path().join("wrong"));
    write(&right, "correct horse\n");
    write(&wrong, "battery staple\n");
    let passphrase = |command: &[&str], file: &Path| {
        PROGRAM.run(&data_dir, command.iter().chain(&["--passphrase-file", plain(file)]))
    };
    PROGRAM.run(&data_dir, ["key", "generate", "nobody", "--passphrase"]).failed(USAGE, "needs a passphrase");
    passphrase(&["key", "generate", "locked"], &right).succeeded();
    let list = PROGRAM.json(&data_dir, ["key", "list"]);
    let row = list["keys"].as_array().expect("a list").iter().find(|row| row["label"] == "locked").expect("listed");
    assert_eq!((&row["encrypted"], row["key_id"].is_string()), (&Value::Bool(true), true), "{row}");
    let pem = fs::read_to_string(data_dir.join("keys/locked.pem")).expect("text");
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));

    // The root goes to the locked key; from then on it takes the passphrase to change it.
    PROGRAM
        .run(&data_dir, ["key", "rotate", "root", "--new", "locked", "--yes"])
        .failed(ERROR, "no terminal to ask on");
    let rotate = &["key", "rotate", "root", "--new", "locked", "--yes"];
    passphrase(rotate, &wrong).failed(ERROR, "passphrase is wrong");
    passphrase(rotate, &right).succeeded();
    let mut renew = Command::new(PROGRAM.0);
    renew.args(["root", "draft", "--renew", "--apply", "--yes", "--data-dir", plain(&data_dir)]);
    renew.env("UPDRAFT_PASSPHRASE", "correct horse");
    let renewed = run_to_end(&mut renew, "updraft root draft --renew").succeeded();
    assert!(!renewed.stdout.contains("correct horse") && !renewed.stderr.contains("correct horse"));
}

#[test]
fn openssl_reads_an_encrypted_key_and_writes_one() {
    let scratch = scratch();
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let holder = Holder::new(scratch.path(), "holder");
    let secret = scratch.path().join("secret");
    write(&secret, "correct horse\n");
    holder.run(&["key", "generate", "ours", "--passphrase-file", plain(&secret)]).succeeded();
    let pass = format!("file:{}", secret.display());
    let openssl = |arguments: &[&str]| run_to_end(Command::new("openssl").args(arguments), "openssl");
    let ours = holder.keys.join("ours.pem");
    let read = openssl(&["pkey", "-in", plain(&ours), "-passin", &pass, "-noout", "-text"]).succeeded();
    assert!(read.stdout.to_lowercase().contains("ed25519"), "{read:?}");
    let (fresh, theirs) = (scratch.path().join("fresh.pem"), scratch.path().join("theirs.pem"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", plain(&fresh)]).succeeded();
    let convert = ["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", plain(&fresh), "-out", plain(&theirs)];
    openssl(&[&convert[..], &["-passout", &pass]].concat()).succeeded();
    holder.run(&["key", "import", plain(&theirs)]).failed(ERROR, "no terminal to ask on");
    holder.run(&["key", "import", plain(&theirs), "--passphrase-file", plain(&secret)]).succeeded();
    holder.run(&["key", "import", plain(&fresh)]).succeeded();
    let list = holder.run(&["key", "list", "--json"]).succeeded().json();
    let id = |label: &str| {
        let rows = list["keys"].as_array().expect("a list");
        rows.iter().find(|row| row["label"] == label).expect("listed")["key_id"].clone()
    };
    assert_eq!(id("theirs"), id("fresh"), "one key, with and without a passphrase");
}

#[test]
fn a_seed_whose_online_key_is_encrypted_does_not_start_and_says_how_it_would() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let secret = scratch.path().join("secret");
    write(&secret, "correct horse\n");
    let lock = ["key", "passphrase", "timestamp", "--new-passphrase-file", plain(&secret)];
    PROGRAM.run(&data_dir, lock).succeeded();
    let start = ["seed", "--http", "off", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let refused = PROGRAM.run(&data_dir, start).failed(ERROR, "encrypted");
    assert!(refused.stderr.contains("updraft key passphrase timestamp --remove"), "{refused:?}");
    PROGRAM.run(&data_dir, ["doctor"]).failed_quietly(ERROR, "timestamp");
    let unlock = ["key", "passphrase", "timestamp", "--remove", "--passphrase-file", plain(&secret)];
    PROGRAM.run(&data_dir, unlock).succeeded();
    let node = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]);
    assert_eq!(node.json(["status"])["role"], "seed");
}

// ---- doctor ---------------------------------------------------------------------------------

/// What a command that answers and fails nonetheless says on stdout.
trait FailedQuietly {
    fn failed_quietly(self, code: i32, part: &str);
}

impl FailedQuietly for Ended {
    fn failed_quietly(self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.stdout.contains(part), "'{part}' is not in {self:#?}");
    }
}

#[test]
fn the_doctor_finds_a_fresh_seed_worth_warnings_and_an_open_key_file_a_problem() {
    let scratch = scratch();
    let data_dir = repository(scratch.path());
    let check = |findings: &Value, name: &str| -> Vec<String> {
        let all = findings["findings"].as_array().expect("a list").iter();
        all.filter(|finding| finding["check"] == name).map(|finding| text(&finding["level"]).to_owned()).collect()
    };
    let stopped = PROGRAM.json(&data_dir, ["doctor"]);
    assert_eq!(check(&stopped, "expiry"), ["ok"; 6], "one for each role: {stopped}");
    assert_eq!(check(&stopped, "offline_keys"), ["warning"]);
    assert_eq!(check(&stopped, "root_threshold"), ["warning"]);
    for name in ["config", "control", "repository", "modes", "online_keys", "sizes", "clock"] {
        assert_eq!(check(&stopped, name), ["ok"], "{name}");
    }
    let node = Node::start(PROGRAM, &data_dir, ["seed", "--http", "off"]);
    assert_eq!(check(&node.json(["doctor"]), "control"), ["ok"]);
    drop(node);
    let key = data_dir.join("keys/root.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
    PROGRAM.run(&data_dir, ["doctor"]).failed_quietly(ERROR, "chmod 600");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    assert_eq!(PROGRAM.run(&data_dir, ["doctor"]).code, Some(OK));
    write(&data_dir.join("updraft.toml"), "nonsense = 1\n");
    PROGRAM.run(&data_dir, ["doctor"]).failed_quietly(ERROR, "nonsense");
    PROGRAM.run(&scratch.path().join("nothing"), ["doctor"]).failed_quietly(ERROR, "holds no repository");
}
