use super::*;
use rusqlite::params;
use semver::Version;
use updraft_protocol::names::{Channel, Platform, Product};
use updraft_protocol::peer::PeerId;

use crate::engine::bans::{Ban, MAX_BANS};
use crate::engine::memory::{Floor, Learned};

fn database() -> (tempfile::TempDir, StateDb) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = StateDb::open(&directory.path().join("state.db")).expect("opened");
    (directory, database)
}

fn repository() -> Digest {
    Digest::of(b"repository")
}

fn product(name: &str) -> Product {
    name.parse().expect("a valid name")
}

fn at(seconds: i64) -> UtcTime {
    UtcTime::from_unix(seconds)
}

fn release(patch: u64) -> ReleaseRef {
    ReleaseRef { version: Version::new(1, 0, patch), artifact: Digest::of(&patch.to_be_bytes()) }
}

fn subscription(name: &str, mode: Mode) -> Subscription {
    Subscription {
        repository: repository(),
        product: product(name),
        channel: Channel::stable(),
        platform: Platform::any(),
        mode,
        created_at: at(100),
    }
}

fn into(directory: &str) -> Mode {
    Mode::Install { directory: directory.into() }
}

fn install_row(state: &str) -> InstallRow {
    InstallRow {
        directory: "/srv/editor".into(),
        product: product("editor"),
        state: state.to_owned(),
        txn: "t1".to_owned(),
        from: None,
        to: Some(release(2)),
        attempts: 1,
        error: Some("no room".to_owned()),
        remaining_ms: None,
        updated_at: at(200),
    }
}

fn installed_row() -> InstalledRow {
    InstalledRow {
        directory: "/srv/editor".into(),
        release: release(2),
        release_dir: "releases/1.0.2-abcdef01".to_owned(),
        installed_at: at(300),
        previous: Some((release(1), "releases/1.0.1-12345678".to_owned())),
    }
}

fn happened(kind: &str, name: &str) -> HistoryRow {
    HistoryRow {
        at: at(400),
        repository: repository(),
        product: Some(product(name)),
        version: Some(Version::new(1, 0, 2)),
        kind: kind.to_owned(),
        detail: "fine".to_owned(),
    }
}

#[test]
fn a_repository_keeps_its_first_date_and_its_last_ticket() {
    let (_directory, database) = database();
    let row = |ticket: &str, added| RepositoryRow { id: repository(), ticket: ticket.to_owned(), added_at: at(added) };
    database.put_repository(&row("old", 1)).expect("put");
    database.put_repository(&row("new", 2)).expect("put");
    assert_eq!(database.repositories().expect("read"), [row("new", 1)]);
    assert_eq!(database.repository(&repository()).expect("read"), Some(row("new", 1)));
    assert_eq!(database.repository(&Digest::ZERO).expect("read"), None);
}

#[test]
fn a_subscription_is_one_for_each_product_and_directory() {
    let (_directory, database) = database();
    let first = subscription("editor", into("/srv/a"));
    let beta: Channel = "beta".parse().expect("a name");
    let moved = Subscription { channel: beta, created_at: at(999), ..first.clone() };
    let mirror = subscription("editor", Mode::Mirror);
    for row in [&first, &moved, &mirror, &mirror, &subscription("editor", into("/srv/b"))] {
        database.put_subscription(row).expect("put");
    }
    let rows = database.subscriptions().expect("read");
    assert_eq!(rows.len(), 3);
    assert!(rows.contains(&Subscription { created_at: at(100), ..moved }));
    assert!(database.remove_subscription(&repository(), &product("editor"), &Mode::Mirror).expect("removed"));
    assert!(!database.remove_subscription(&repository(), &product("editor"), &Mode::Mirror).expect("gone"));
    assert_eq!(database.subscriptions().expect("read").len(), 2);
}

#[test]
fn two_products_never_share_a_directory() {
    let (_directory, database) = database();
    database.put_subscription(&subscription("editor", into("/srv/a"))).expect("put");
    let error = database.put_subscription(&subscription("kiosk", into("/srv/a"))).expect_err("taken");
    assert!(matches!(&error, StateError::DirectoryTaken { product, .. } if product == "editor"), "{error}");
    database.put_subscription(&subscription("kiosk", Mode::Mirror)).expect("mirrors take none");
}

#[test]
fn a_relative_directory_is_refused() {
    let (_directory, database) = database();
    let error = database.put_subscription(&subscription("editor", into("srv/a"))).expect_err("relative");
    assert!(matches!(error, StateError::Path { .. }));
}

#[test]
fn the_journal_has_one_row_for_each_directory() {
    let (_directory, database) = database();
    database.journal(&install_row("fetching"), None).expect("journalled");
    let armed = InstallRow { from: Some(release(1)), error: None, ..install_row("armed") };
    database.journal(&armed, Some(&happened("armed", "editor"))).expect("journalled");
    assert_eq!(database.installs().expect("read"), std::slice::from_ref(&armed));
    assert_eq!(database.install(Path::new("/srv/editor")).expect("read"), Some(armed));
    assert_eq!(database.history(10, None).expect("read").len(), 1);
}

#[test]
fn a_commit_is_all_or_nothing() {
    let (_directory, database) = database();
    database.journal(&install_row("probation"), None).expect("journalled");
    lock(&database.connection).execute_batch("DROP TABLE history").expect("dropped");
    let change =
        InstallChange { installed: Some(installed_row()), quarantine: None, happened: happened("installed", "editor") };
    let commit = || database.commit_install(&install_row("committed"), &change);
    assert!(commit().is_err());
    assert_eq!(database.installs().expect("read"), [install_row("probation")]);
    assert_eq!(database.installed(Path::new("/srv/editor")).expect("read"), None);

    lock(&database.connection)
        .execute_batch("CREATE TABLE history (id INTEGER PRIMARY KEY AUTOINCREMENT, at, repository, product, version, kind, detail)")
        .expect("made");
    commit().expect("committed");
    assert_eq!(database.installs().expect("read"), [install_row("committed")]);
    assert_eq!(database.all_installed().expect("read"), [installed_row()]);
    assert!(database.forget_install(Path::new("/srv/editor")).expect("forgotten"));
    assert!(!database.forget_install(Path::new("/srv/editor")).expect("nothing left"));
}

#[test]
fn a_quarantine_holds_in_its_directory_until_lifted() {
    let (_directory, database) = database();
    let row = |reason: &str, seconds| QuarantineRow {
        directory: "/srv/a".into(),
        artifact: release(1).artifact,
        reason: reason.to_owned(),
        at: at(seconds),
    };
    database.quarantine(&row("crashed", 1)).expect("put");
    database.quarantine(&row("crashed again", 2)).expect("put");
    assert_eq!(database.quarantined(None).expect("read"), [row("crashed again", 2)]);
    assert_eq!(database.quarantined(Some(Path::new("/srv/b"))).expect("read"), []);
    assert!(database.lift_quarantine(Path::new("/srv/a"), &release(1).artifact).expect("lifted"));
    assert_eq!(database.quarantined(Some(Path::new("/srv/a"))).expect("read"), []);
}

#[test]
fn history_is_bounded_and_read_latest_first() {
    let (_directory, database) = database();
    database
        .write(|transaction| {
            (0..HISTORY_ROWS).try_for_each(|_| history::append(transaction, &happened("fetched", "editor")).map(drop))
        })
        .expect("appended");
    database.append_history(&happened("installed", "kiosk")).expect("appended");
    let last = database.append_history(&happened("refused", "editor")).expect("appended");
    let all = database.history(u32::MAX, None).expect("read");
    assert_eq!(all.len(), HISTORY_ROWS as usize);
    assert_eq!((all[0].id, all[0].row.clone()), (last, happened("refused", "editor")));
    let kiosk = database.history(10, Some(&product("kiosk"))).expect("read");
    assert_eq!(kiosk.iter().map(|entry| entry.row.kind.as_str()).collect::<Vec<_>>(), ["installed"]);
}

#[test]
fn what_a_set_taught_is_there_after_a_restart_and_a_target_never_changes() {
    let (directory, database) = database();
    let path = "releases/editor/1.0.0/any/a".to_owned();
    let floor = |patch, root_version| Floor { version: Version::new(1, 0, patch), root_version };
    let learned = Learned {
        targets: vec![(path.clone(), Digest::of(b"first"))],
        floors: vec![(product("editor"), floor(3, 1)), (product("kiosk"), floor(1, 1))],
        signed_at: Some(at(7)),
    };
    database.learn(&repository(), &learned, at(8)).expect("kept");
    let more = Learned {
        targets: vec![(path.clone(), Digest::of(b"second"))],
        floors: vec![(product("editor"), floor(4, 2))],
        signed_at: Some(at(9)),
    };
    database.learn(&repository(), &more, at(10)).expect("kept");
    drop(database);
    let database = StateDb::open(&directory.path().join("state.db")).expect("opened");
    let memory = database.memory(&repository()).expect("read");
    assert_eq!(memory.targets, [(path, Digest::of(b"first"))].into());
    assert_eq!(memory.floors, [(product("editor"), floor(4, 2)), (product("kiosk"), floor(1, 1))].into());
    assert_eq!(memory.clock.remembered, Some(at(9)));
    database.forget_signed_at(&repository()).expect("forgotten");
    assert_eq!(database.memory(&repository()).expect("read").clock.remembered, None);
    assert!(database.memory(&Digest::ZERO).expect("read").targets.is_empty(), "another repository's");
}

#[test]
fn facts_belong_to_their_repository() {
    let (_directory, database) = database();
    database.put_fact(&repository(), "signed_at", "1").expect("put");
    database.put_fact(&repository(), "signed_at", "2").expect("put");
    assert_eq!(database.fact(&repository(), "signed_at").expect("read").as_deref(), Some("2"));
    assert_eq!(database.fact(&Digest::ZERO, "signed_at").expect("read"), None);
}

#[test]
fn invented_peers_drive_out_the_oldest_only() {
    let (_directory, database) = database();
    let peer = |number: i64| KnownPeer {
        peer: PeerId::from_bytes(&number.to_be_bytes()).expect("a valid length"),
        addresses: vec![format!("/ip4/192.0.2.1/tcp/{number}")],
        last_connected_at: at(number),
    };
    let all: Vec<KnownPeer> = (1..=600).map(peer).collect();
    database.remember_peers(&repository(), &all).expect("kept");
    let known = database.known_peers(&repository()).expect("read");
    assert_eq!(known.len(), KNOWN_PEERS as usize);
    assert_eq!((&known[0], &known[511]), (&peer(600), &peer(89)));
    let crowd = KnownPeer { addresses: vec!["/ip4/192.0.2.2".to_owned(); 40], ..peer(600) };
    database.remember_peers(&repository(), &[crowd]).expect("kept");
    assert_eq!(database.known_peers(&repository()).expect("read")[0].addresses.len(), 16);
    assert!(database.forget_peer(&repository(), &peer(600).peer).expect("forgotten"));
    assert!(!database.forget_peer(&repository(), &peer(600).peer).expect("gone"));
}

#[test]
fn an_older_node_reads_and_writes_a_newer_file_and_spoils_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let older = StateDb::open(&path).expect("opened");
    older.put_subscription(&subscription("editor", into("/srv/a"))).expect("put");
    older.journal(&install_row("fetching"), None).expect("journalled");
    drop(older);

    let mut steps = migrations::STEPS.to_vec();
    steps.push(
        "ALTER TABLE subscriptions ADD COLUMN site TEXT NOT NULL DEFAULT 'none';
         ALTER TABLE installs ADD COLUMN probation_ms INTEGER;
         CREATE TABLE witnesses (peer TEXT NOT NULL PRIMARY KEY);",
    );
    let newer = StateDb::open_with(&path, &steps).expect("migrated");
    lock(&newer.connection)
        .execute_batch(
            "UPDATE subscriptions SET site = 'north'; UPDATE installs SET probation_ms = 5; INSERT INTO witnesses VALUES ('w');
             INSERT INTO subscriptions (repository, product, directory, channel, platform, mode, created_at)
             VALUES ('x', 'later', '/srv/later', 'stable', 'any', 'stage', 1);",
        )
        .expect("written");
    drop(newer);

    let older = StateDb::open(&path).expect("a newer file opens");
    let beta = Subscription { channel: "beta".parse().expect("a name"), ..subscription("editor", into("/srv/a")) };
    older.put_subscription(&beta).expect("put");
    older.journal(&install_row("verified"), Some(&happened("fetched", "editor"))).expect("journalled");
    older.put_subscription(&subscription("kiosk", into("/srv/b"))).expect("put");
    assert_eq!(older.subscriptions().expect("read"), [beta, subscription("kiosk", into("/srv/b"))]);
    assert_eq!(older.installs().expect("read"), [install_row("verified")]);
    drop(older);

    let newer = StateDb::open_with(&path, &steps).expect("opened");
    let kept: (String, i64, i64, i64) = newer
        .read(|connection| {
            connection.query_row(
                "SELECT (SELECT site FROM subscriptions WHERE product = 'editor'), (SELECT probation_ms FROM installs),
                        (SELECT count(*) FROM witnesses), (SELECT count(*) FROM subscriptions)",
                params![],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
        })
        .expect("read");
    assert_eq!(kept, ("north".to_owned(), 5, 1, 3));
}

#[test]
fn rows_written_before_a_kill_are_there_after_it() {
    let (directory, database) = database();
    database.put_fact(&repository(), "key", "value").expect("put");
    let copy = tempfile::tempdir().expect("a temporary directory");
    for name in ["state.db", "state.db-wal"] {
        std::fs::copy(directory.path().join(name), copy.path().join(name)).expect("copied");
    }
    let revived = StateDb::open(&copy.path().join("state.db")).expect("opened");
    assert_eq!(revived.fact(&repository(), "key").expect("read").as_deref(), Some("value"));
}

#[test]
fn a_file_that_is_no_database_is_named_in_the_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    std::fs::write(&path, vec![b'x'; 4096]).expect("written");
    let error = StateDb::open(&path).expect_err("not a database");
    assert!(error.to_string().contains("state.db"), "{error}");
}

#[cfg(unix)]
#[test]
fn the_database_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, database) = database();
    database.put_fact(&repository(), "key", "value").expect("put");
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let mode = std::fs::metadata(directory.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn bans_are_kept_replaced_forgotten_and_bounded() {
    let (_directory, database) = database();
    let ban = |number: usize, offences| Ban {
        peer: PeerId::from_bytes(&number.to_be_bytes()).expect("a valid length"),
        reason: "sent piece 3, which is not what was signed".to_owned(),
        banned_at: at(1),
        ends_at: at(100 + i64::try_from(number).expect("small")),
        offences,
    };
    database.put_ban(&repository(), &ban(1, 1)).expect("kept");
    database.put_ban(&repository(), &ban(1, 2)).expect("replaced");
    assert_eq!(database.bans(&repository()).expect("read"), [ban(1, 2)]);
    assert!(database.bans(&Digest::ZERO).expect("read").is_empty(), "another repository's");
    database.remove_ban(&repository(), &ban(1, 2).peer).expect("forgotten");
    assert!(database.bans(&repository()).expect("read").is_empty());
    for number in 0..MAX_BANS + 3 {
        database.put_ban(&repository(), &ban(number, 1)).expect("kept");
    }
    let kept = database.bans(&repository()).expect("read");
    assert_eq!((kept.len(), kept[0].clone()), (MAX_BANS, ban(3, 1)), "those that end first are dropped");
}

#[test]
fn what_is_left_of_a_probation_is_remembered() {
    let (_directory, database) = database();
    let row = InstallRow { remaining_ms: Some(12_345), ..install_row("probation") };
    database.journal(&row, None).expect("journalled");
    assert_eq!(database.install(Path::new("/srv/editor")).expect("read"), Some(row));
}

#[test]
fn holds_are_kept_by_version_and_lifted_one_by_one_or_together() {
    let (_directory, database) = database();
    let (directory, editor) = (Path::new("/srv/editor"), product("editor"));
    let bad = release(2).version;
    database.put_hold(directory, &editor, Some(&bad), "slow", at(1)).expect("put");
    database.put_hold(directory, &editor, None, "fair week", at(2)).expect("put");
    let both = [(None, "fair week".to_owned()), (Some(bad.clone()), "slow".to_owned())];
    assert_eq!(database.holds(directory, &editor).expect("read"), both);
    assert_eq!(database.holds(directory, &product("kiosk")).expect("read"), []);
    database.lift_hold(directory, &editor, Some(&bad)).expect("lifted");
    assert_eq!(database.holds(directory, &editor).expect("read"), both[..1]);
    database.lift_hold(directory, &editor, None).expect("lifted");
    assert_eq!(database.holds(directory, &editor).expect("read"), []);
}

#[test]
fn every_release_that_was_committed_can_be_named_again() {
    let (_directory, database) = database();
    let quarantine = QuarantineRow {
        directory: "/srv/editor".into(),
        artifact: release(7).artifact,
        reason: "ill".to_owned(),
        at: at(1),
    };
    for (number, seconds) in [(1, 10), (2, 20)] {
        let installed = InstalledRow {
            release: release(number),
            release_dir: format!("1.0.{number}-x"),
            installed_at: at(seconds),
            ..installed_row()
        };
        let change = InstallChange {
            installed: Some(installed),
            quarantine: Some(quarantine.clone()),
            happened: happened("installed", "editor"),
        };
        database.commit_install(&install_row("committed"), &change).expect("committed");
    }
    let kept = database.kept_releases(Path::new("/srv/editor")).expect("read");
    assert_eq!(kept, [(release(2), "1.0.2-x".to_owned()), (release(1), "1.0.1-x".to_owned())]);
    assert_eq!(database.quarantined(None).expect("read"), [quarantine]);
}
