//! Names that lead out of their directories, and archives that burst.

use std::path::Path;

use updraft_protocol::meta::MetaFile;
use updraft_protocol::release::{Content, Format};
use updraft_protocol::tuf::{DelegatedRole, RoleName};
use updraft_tests::cluster::product;
use updraft_tests::forge::{Forge, Work, noise};
use updraft_tests::lab::{Lab, Truth, Victim, head_version, peak_bytes};
use updraft_tests::malicious::{Honest, Peer};
use updraft_tests::process::{Program, installing_peer};

use super::attack::{MOMENT, RELEASE_BYTES, is_unmoved, offer, recovers, repository, settled};

/// One entry of a tar archive: name, kind, target of a link, content.
type Entry<'a> = (&'a str, u8, &'a str, &'a [u8]);

/// A tar archive written by hand: no library would make these.
fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, link, content) in entries {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000755");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].fill(b' ');
        header[156] = *kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1_024, 0);
    archive
}

/// A release of an archive, described so well that only the rules for names and sizes can stop it.
fn archived(version: &str, format: Format, name: &str, bytes: Vec<u8>, content: &[u8], entries: u64) -> Work {
    let mut work = Work::of(&product(), version, format, name, bytes);
    let sha256 = updraft_protocol::digest::Digest::of(content);
    work.release.content = Content { sha256, length: content.len() as u64, entries };
    work
}

/// The publisher himself signs a hostile release; the node tries it and refuses.
async fn refuses(victim: &Victim, forge: &mut Forge, truth: &mut Truth, work: &Work) {
    let set = forge.publish_work(work);
    truth.learn(&set);
    let publisher = offer(victim, &set, set.head()).await;
    let version = work.release.id.version.to_string();
    victim
        .until("a refusal", |status| {
            let subscription = &status.subscriptions[0];
            assert_ne!(subscription.installed.as_deref(), Some(version.as_str()), "it was installed");
            head_version(status) == set.timestamp_version
                && subscription.progress.is_some_and(|progress| progress.bytes_done == progress.bytes_total)
        })
        .await;
    let started = std::time::Instant::now();
    while !victim
        .events()
        .await
        .iter()
        .any(|event| event.kind == "install_failed" && event.version.as_deref() == Some(version.as_str()))
    {
        assert!(started.elapsed() < updraft_tests::lab::CONVERGED, "{:#?}", victim.events().await);
        tokio::time::sleep(MOMENT / 4).await;
    }
    is_unmoved(victim, &set, Some("1.0.0")).await;
    drop(publisher);
}

fn has_escaped(lab: &Lab) -> bool {
    fn search(directory: &Path) -> bool {
        std::fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            entry.file_name().to_string_lossy().contains("escaped") || (is_directory && search(&entry.path()))
        })
    }
    search(lab.path()) || Path::new("/tmp/updraft-escaped").exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_archive_writes_outside_its_release() {
    let lab = Lab::new();
    let (mut forge, set) = repository("traversal");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    let archives: [&[Entry<'_>]; 6] = [
        &[("../../escaped", b'0', "", b"x")],
        &[("/tmp/updraft-escaped", b'0', "", b"x")],
        &[("fine/../../escaped", b'0', "", b"x")],
        &[("link", b'2', "../..", b""), ("link/escaped", b'0', "", b"x")],
        &[("link", b'2', "/tmp", b""), ("link/updraft-escaped", b'0', "", b"x")],
        &[("hard", b'1', "../../../../state.db", b""), ("device", b'3', "", b"")],
    ];
    for (entries, minor) in archives.into_iter().zip(1..) {
        let bytes = tar(entries);
        let name = format!("app-1.{minor}.0.tar");
        let count = entries.len() as u64;
        let work = archived(&format!("1.{minor}.0"), Format::Tar, &name, bytes.clone(), &bytes, count);
        refuses(&victim, &mut forge, &mut truth, &work).await;
        assert!(!has_escaped(&lab), "{entries:?}");
    }
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
    assert!(!has_escaped(&lab));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_target_and_no_role_name_leads_anywhere() {
    let lab = Lab::new();
    let (mut forge, set) = repository("names");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let mut truth = Truth::of(&[&set]);
    // Even the publisher's own role, and a role that the targets key delegates to, are only names.
    let app = RoleName::releases(&product());
    let work = Work::file("2.0.0", noise("names 2.0.0", RELEASE_BYTES));
    let odd: RoleName = "../../../escaped".parse().expect("the specification allows it");
    let key = forge.signers(&app)[0].public();
    forge.borrow_keys(&app, &odd);
    forge.edit(&RoleName::targets(), |targets| {
        let delegated = DelegatedRole::new(odd.clone(), &["releases/app/*/*/*"]);
        let delegations = targets.delegations.take().unwrap_or_default();
        targets.delegations = Some(delegations.with_role(delegated, 1, std::slice::from_ref(&key)));
    });
    for path in ["releases/app/2.0.0/any/..", "releases/app/2.0.0/../escaped", "releases/app/../any/escaped"] {
        forge.add_at(path, &app, &work);
    }
    forge.add_at("releases/app/2.0.0/any/\u{0}escaped", &odd, &work);
    forge.add_at("releases/app/2.0.0/any/C:\\escaped", &odd, &work);
    forge.point_to("2.0.0");
    let planted = forge.sign();
    truth.tolerate(&planted);
    let publisher = offer(&victim, &planted, planted.head()).await;
    victim.until("the new head", |status| head_version(status) == planted.timestamp_version).await;
    tokio::time::sleep(MOMENT).await;
    is_unmoved(&victim, &planted, Some("1.0.0")).await;
    assert!(!victim.status().await.warnings.is_empty(), "a refused target is told");
    for path in [
        "/metadata/1.../../../escaped.json",
        "/metadata/..%2f..%2fstate.db",
        "/targets/../state.db",
        "/targets/%2e%2e/%2e%2e/etc/passwd",
        "/targets/releases/app/2.0.0/..%2f..%2f..%2fstate.db",
    ] {
        let status = victim.get(path).await.status;
        assert!(status >= 400, "{path} answers {status}");
    }
    for (name, version) in [("../../../escaped", 1), ("../../state.db", 1), ("/etc/passwd", 1)] {
        let to = publisher.connect(&victim.address).await;
        let file = MetaFile::Role { name: name.to_owned(), version };
        if let Ok(updraft_protocol::meta::MetaResponse::File(bytes)) = publisher.ask(&to, file.clone()).await {
            assert_eq!(Some(&bytes), planted.files.get(&file), "{name} is answered with something else");
        }
    }
    let metadata = victim.data_dir.join("metadata");
    let outside: Vec<_> = std::fs::read_dir(&metadata).expect("readable").flatten().map(|entry| entry.path()).collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
    assert!(!victim.data_dir.join("escaped.json").exists() && !lab.path().join("1.escaped.json").exists());
    drop(publisher);
    // The odd role's file may be kept under a harmless name: that is the truth here.
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

/// Many times what the release claims to hold.
const BOMB_BYTES: usize = 512 << 20;

fn bombs() -> Vec<(Format, &'static str, Vec<u8>)> {
    let header = &tar(&[("zeros", b'0', "", b"")])[..512];
    let mut oversized = header.to_vec();
    oversized[124..135].copy_from_slice(format!("{BOMB_BYTES:011o}").as_bytes());
    oversized[148..156].fill(b' ');
    let sum: u32 = oversized.iter().map(|byte| u32::from(*byte)).sum();
    oversized[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let chunk = vec![0_u8; 1 << 20];
    let fill = |out: &mut dyn std::io::Write| {
        out.write_all(&oversized).expect("in memory");
        for _ in 0..BOMB_BYTES >> 20 {
            out.write_all(&chunk).expect("in memory");
        }
        out.write_all(&[0; 1_024]).expect("in memory");
    };
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).expect("in memory");
    fill(&mut zstd);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    fill(&mut gzip);
    vec![
        (Format::TarZst, "app-1.1.0.tar.zst", zstd.finish().expect("in memory")),
        (Format::TarGz, "app-1.2.0.tar.gz", gzip.finish().expect("in memory")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decompression_bomb_takes_neither_disk_nor_memory() {
    let program = Program(env!("CARGO_BIN_EXE_updraft"));
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (mut forge, set) = repository("bombs");
    let publisher = Peer::start(&set, Honest).await;
    let ticket = forge.ticket(std::slice::from_ref(&publisher.address)).to_string();
    let path = scratch.path().to_owned();
    let (mut node, install_dir) = tokio::task::spawn_blocking(move || {
        let (node, install_dir) = installing_peer(program, &path, "victim", &ticket);
        node.until("1.0.0", |status| updraft_tests::cluster::has_installed(status, "1.0.0"));
        (node, install_dir)
    })
    .await
    .expect("it runs");
    for (minor, (format, name, bytes)) in (1..).zip(bombs()) {
        let version = format!("1.{minor}.0");
        let work = archived(&version, format, name, bytes, b"not much", 1);
        publisher.publish(&forge.publish_work(&work)).await;
        node = tokio::task::spawn_blocking(move || {
            node.until("a refusal", |status| {
                let subscription = &status.subscriptions[0];
                assert_eq!(subscription.installed.as_deref(), Some("1.0.0"));
                let reason = subscription.reason.clone().unwrap_or_default();
                let is_complete = subscription.progress.is_some_and(|p| p.bytes_done == p.bytes_total);
                subscription.offered.as_deref() == Some(&version) && is_complete && reason.contains("failed")
            });
            node
        })
        .await
        .expect("it refused");
    }
    let size: u64 = walk(&install_dir);
    assert!(size < 16 << 20, "{size} bytes were unpacked");
    let peak = peak_bytes(node.process().pid());
    assert!(peak < 256 << 20, "it took {} MiB", peak >> 20);
    publisher.publish(&forge.publish("7.0.0", noise("after the bombs", RELEASE_BYTES))).await;
    tokio::task::spawn_blocking(move || {
        node.until("7.0.0", |status| updraft_tests::cluster::has_installed(status, "7.0.0"));
    })
    .await
    .expect("it goes on");
}

fn walk(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => walk(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
