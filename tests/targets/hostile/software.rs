//! Arbitrary software, pieces of something else, lying holders and mirrors.

use std::time::Duration;

use updraft_protocol::head::Head;
use updraft_protocol::meta::{MetaFile, MetaResponse};
use updraft_protocol::transfer::{BlockRange, Control, ObjectId};
use updraft_protocol::tuf::{Expiry, Resolution, Trusted};
use updraft_tests::forge::{Forge, Set, Work, noise};
use updraft_tests::lab::{Lab, Truth, Victim};
use updraft_tests::malicious::{Answer, Behaviour, Honest, Peer, Serve, object};
use updraft_tests::now;

use super::attack::{MOMENT, RELEASE_BYTES, Server, is_blamed, is_unmoved, offer, recovers, repository, settled};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_of_rotten_pieces_is_banned_and_the_honest_one_serves() {
    let lab = Lab::new();
    let (forge, set) = repository("rotten");
    let liar = Peer::start(&set, Server(Serve::Rotten)).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&liar.address))).await;
    victim.bans(&liar.id).await;
    let truth = Truth::of(&[&set]);
    victim.is_unharmed(&truth, &[]).await;
    assert!(victim.subscription().await.installed.is_none());
    lab.converges(&victim, &set, "1.0.0").await;
    victim.is_unharmed(&truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_liar_is_not_let_in_again() {
    let lab = Lab::new();
    let (forge, set) = repository("banned");
    let liar = Peer::start(&set, Server(Serve::Rotten)).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&liar.address))).await;
    victim.bans(&liar.id).await;
    let before = liar.log().requested;
    for _ in 0..3 {
        let dial = updraft::engine::effect::SwarmEffect::Dial {
            peer: Some(victim.id.clone()),
            addresses: vec![victim.address.clone()],
        };
        liar.tell(dial).await;
        tokio::time::sleep(MOMENT).await;
    }
    assert!(!liar.is_connected_to(&victim.id));
    assert_eq!(victim.faults_of(&liar.id).await, None);
    assert_eq!(liar.log().requested, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_another_artifact_are_not_taken_for_this_one() {
    let lab = Lab::new();
    let (mut forge, _) = repository("mixed pieces");
    let other = Work::file("1.1.0", noise("another release", RELEASE_BYTES));
    forge.add(&other);
    let set = forge.publish("1.2.0", noise("the newest release", RELEASE_BYTES));
    let liar = Peer::start(&set, Server(Serve::Of(other.digest()))).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&liar.address))).await;
    victim.bans(&liar.id).await;
    let truth = Truth::of(&[&set]);
    victim.is_unharmed(&truth, &[]).await;
    lab.converges(&victim, &set, "1.2.0").await;
    victim.is_unharmed(&truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_liars_the_honest_holder_is_not_blamed() {
    let lab = Lab::new();
    let (forge, set) = repository("among liars");
    let seed = lab.seed(&set).await;
    let mut addresses = vec![seed.address.clone()];
    let mut liars = Vec::new();
    for _ in 0..3 {
        let liar = Peer::start(&set, Server(Serve::Rotten)).await;
        addresses.push(liar.address.clone());
        liars.push(liar);
    }
    let victim = lab.victim(&forge.ticket(&addresses)).await;
    victim.reaches(&set, "1.0.0").await;
    assert!(!victim.banned(&seed.id).await);
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn software_signed_by_strangers_is_nothing() {
    let lab = Lab::new();
    let (mut forge, set) = repository("strangers");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let truth = Truth::of(&[&set]);
    // Everything above the first root is signed with keys that no root names.
    let forged = forge.thief(&[]).publish("9.9.9", noise("malware", RELEASE_BYTES));
    let _stranger = offer(&victim, &forged, forged.head()).await;
    is_unmoved(&victim, &set, Some("1.0.0")).await;
    recovers(&lab, &victim, &mut forge, &truth, &[&forged]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_whose_only_neighbour_forges_everything_joins_nothing() {
    let lab = Lab::new();
    let (forge, set) = repository("forged from the start");
    let forged = forge.thief(&[]).publish("9.9.9", noise("malware", RELEASE_BYTES));
    let stranger = Peer::start(&forged, Honest).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&stranger.address))).await;
    stranger
        .wait("a question for a head", |log| log.asked.iter().any(|(_, f)| *f == MetaFile::Head).then_some(()))
        .await;
    tokio::time::sleep(MOMENT).await;
    let lie: Vec<&Work> = forged.works.values().filter(|work| !set.works.contains_key(&work.digest())).collect();
    let truth = Truth::of(&[&set]);
    victim.is_unharmed(&truth, &lie).await;
    lab.converges(&victim, &set, "1.0.0").await;
    victim.is_unharmed(&truth, &lie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_that_nobody_asked_for_is_not_taken() {
    let lab = Lab::new();
    let (mut forge, set) = repository("unasked");
    let victim = settled(&lab, &forge, &set, "1.0.0").await;
    let malware = forge.thief(&[]).publish("9.9.9", noise("malware", RELEASE_BYTES));
    let pusher = Peer::start(&malware, Honest).await;
    let to = pusher.connect(&victim.address).await;
    for work in malware.works.values() {
        for piece in work.manifest.indices() {
            let block = BlockRange { offset: work.manifest.offset_of(piece), length: work.manifest.length_of(piece) };
            let object = object(&work.digest());
            let push = updraft::engine::effect::SwarmEffect::SendBlock { peer: to.clone(), handle: 0, object, block };
            pusher.tell(push).await;
        }
    }
    tokio::time::sleep(MOMENT).await;
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[&malware]).await;
}

/// Answers every question about a piece list with another one.
struct WrongManifest(Vec<u8>);

impl Behaviour for WrongManifest {
    fn meta(&mut self, file: &MetaFile, honest: MetaResponse) -> Answer {
        match file {
            MetaFile::Manifest { .. } => Answer::Now(MetaResponse::File(self.0.clone())),
            _ => Answer::Now(honest),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_list_that_was_not_signed_is_refused() {
    let (forge, set) = repository("piece lists");
    let malware = Work::file("9.9.9", noise("malware", RELEASE_BYTES));
    let honest = set.works.values().next().expect("a release").manifest.encode();
    let mut flipped = honest.clone();
    flipped[honest.len() / 2] ^= 1;
    let truth = Truth::of(&[&set]);
    for wrong in [malware.manifest.encode(), flipped, honest[..honest.len() - 32].to_vec(), Vec::new()] {
        let lab = Lab::new();
        let liar = Peer::start(&set, WrongManifest(wrong)).await;
        let victim = lab.victim(&forge.ticket(std::slice::from_ref(&liar.address))).await;
        let asked = |file: &MetaFile| matches!(file, MetaFile::Manifest { .. });
        liar.wait("a question", |log| log.asked.iter().any(|(_, file)| asked(file)).then_some(())).await;
        is_blamed(&victim, &liar).await;
        victim.is_unharmed(&truth, &[&malware]).await;
        lab.converges(&victim, &set, "1.0.0").await;
        victim.is_unharmed(&truth, &[&malware]).await;
        victim.stop().await;
    }
}

/// What a plain TUF client makes of what a mirror serves: the bytes of the release, or why not.
fn plain_client(root: &[u8], path: &str, fetch: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    let expiry = Expiry::Enforce(now());
    let get = |name: String| fetch(&name).ok_or_else(|| format!("{name} is missing"));
    let mut trusted = Trusted::from_trusted_root(root).map_err(|error| error.to_string())?;
    while let Some(bytes) = fetch(&format!("/metadata/{}.root.json", trusted.root().version + 1)) {
        trusted.update_root(&bytes).map_err(|error| error.to_string())?;
    }
    let _ =
        trusted.update_timestamp(&get("/metadata/timestamp.json".to_owned())?, expiry).map_err(|e| e.to_string())?;
    let version = trusted.timestamp().map_or(0, |timestamp| timestamp.snapshot.version);
    let _ = trusted
        .update_snapshot(&get(format!("/metadata/{version}.snapshot.json"))?, expiry)
        .map_err(|error| error.to_string())?;
    loop {
        match trusted.resolve(path) {
            Resolution::Found { target, .. } => {
                let sha256 = target.sha256().ok_or("no digest")?;
                let (directory, name) = path.rsplit_once('/').ok_or("no directory")?;
                let bytes = get(format!("/targets/{directory}/{sha256}.{name}"))?;
                return if target.matches(&bytes) { Ok(bytes) } else { Err("another file".to_owned()) };
            }
            Resolution::NotFound => return Err("there is no such target".to_owned()),
            Resolution::Needs(request) => {
                let file = format!("/metadata/{}.{}.json", request.version, request.role.file_stem());
                let _ =
                    trusted.update_targets(&request.role, &get(file)?, expiry).map_err(|error| error.to_string())?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_takes_nothing_altered_from_a_mirror() {
    let lab = Lab::new();
    let (mut forge, set) = repository("mirror");
    let mirror = settled(&lab, &forge, &set, "1.0.0").await;
    let work = set.works.values().next().expect("a release");
    let root = &set.files[&MetaFile::Root { version: 1 }];
    let fetched = mirrored(&mirror, &set, work).await;
    let honest = |name: &str| fetched.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.clone());
    assert_eq!(plain_client(root, &work.release.path, honest), Ok(work.bytes.to_vec()), "the mirror serves it whole");

    let stranger = forge.thief(&[]).publish("1.0.0", noise("malware", RELEASE_BYTES));
    let malware = stranger.works.values().find(|other| other.digest() != work.digest()).expect("malware");
    for (name, bytes) in &fetched {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        let longer = [&bytes[..], b" "].concat();
        let replaced = match name.as_str() {
            "/metadata/timestamp.json" => stranger.timestamp.clone(),
            other if other.ends_with("snapshot.json") => stranger.snapshot.clone(),
            other if other.starts_with("/targets/") => malware.bytes.to_vec(),
            _ => Vec::new(),
        };
        for altered in [flipped, bytes[..bytes.len() / 2].to_vec(), replaced, longer] {
            let lying = |asked: &str| if asked == name { Some(altered.clone()) } else { honest(asked) };
            let taken = plain_client(root, &work.release.path, lying);
            // White space around a timestamp is the one thing that changes nothing.
            let harmless = name == "/metadata/timestamp.json" && taken.as_ref() == Ok(&*work.bytes);
            assert!(taken.is_err() || harmless, "{name} was altered and taken");
        }
        let withheld = |asked: &str| if asked == name { None } else { honest(asked) };
        assert!(plain_client(root, &work.release.path, withheld).is_err(), "{name} was withheld");
    }
    let next = forge.publish("1.1.0", noise("mirror 2", RELEASE_BYTES));
    lab.converges(&mirror, &next, "1.1.0").await;
}

/// What a node's HTTP face serves of a set.
async fn mirrored(mirror: &Victim, set: &Set, work: &Work) -> Vec<(String, Vec<u8>)> {
    let head = Head::decode(&set.head()).expect("a head");
    let snapshot: serde_json::Value = serde_json::from_slice(&head.snapshot).expect("JSON");
    let (directory, name) = work.release.path.rsplit_once('/').expect("a path");
    let mut names = vec![
        "/metadata/timestamp.json".to_owned(),
        format!("/metadata/{}.snapshot.json", snapshot["signed"]["version"]),
        format!("/targets/{directory}/{}.{name}", work.digest()),
    ];
    names.extend(set.files.keys().filter_map(|file| match file {
        // The client that looks for a release never asks for the policies of channels.
        MetaFile::Role { name, version } if name != "channels" => Some(format!("/metadata/{version}.{name}.json")),
        _ => None,
    }));
    let mut fetched = Vec::new();
    for name in names {
        let answer = mirror.get(&name).await;
        assert_eq!(answer.status, 200, "{name}");
        fetched.push((name, answer.body));
    }
    fetched
}

/// Announces everything and has nothing.
struct Boaster;

impl Behaviour for Boaster {
    fn block(&mut self, _: &ObjectId, _: BlockRange) -> Serve {
        Serve::Busy(0)
    }

    fn control(
        &mut self,
        _: &updraft_protocol::peer::PeerId,
        _: &Control,
    ) -> Vec<updraft::engine::effect::SwarmEffect> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_lost_its_pieces_is_unlucky_and_not_banned() {
    let lab = Lab::new();
    let (forge, set) = repository("unlucky");
    let unlucky = Peer::start(&set, Boaster).await;
    let victim = lab.victim(&forge.ticket(std::slice::from_ref(&unlucky.address))).await;
    unlucky.wait("a request", |log| (log.requested > 0).then_some(())).await;
    lab.converges(&victim, &set, "1.0.0").await;
    assert!(!victim.banned(&unlucky.id).await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(victim.faults_of(&unlucky.id).await, Some(0));
    victim.is_unharmed(&Truth::of(&[&set]), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn software_for_another_product_platform_or_channel_is_not_installed() {
    let lab = Lab::new();
    let mut forge = Forge::new("wrong software", now());
    let first = forge.publish("1.0.0", noise("right", RELEASE_BYTES));
    let victim = settled(&lab, &forge, &first, "1.0.0").await;
    let mut truth = Truth::of(&[&first]);

    // The publisher permits this one on beta only, that one is for another platform.
    let mut beta = Work::file("2.0.0", noise("beta", RELEASE_BYTES));
    beta.release.channels = std::collections::BTreeSet::from(["beta".parse().expect("a channel")]);
    let mut foreign = Work::file("3.0.0", noise("foreign", RELEASE_BYTES));
    foreign.release.id.platform = "windows-x86_64".parse().expect("a platform");
    foreign.release.path = foreign.release.id.path(&foreign.release.file_name);
    // And here the signed description contradicts the path under which it is found.
    let mislabelled = Work::of(
        &"other".parse().expect("a product"),
        "4.0.0",
        updraft_protocol::release::Format::File,
        "other.bin",
        noise("mislabelled", RELEASE_BYTES),
    );
    let app = updraft_protocol::tuf::RoleName::releases(&updraft_tests::cluster::product());
    forge.add(&beta);
    forge.add(&foreign);
    forge.add_at("releases/app/4.0.0/any/other.bin", &app, &mislabelled);
    for version in ["2.0.0", "3.0.0", "4.0.0"] {
        forge.point_to(version);
        let set = forge.sign();
        truth.tolerate(&set);
        let teller = offer(&victim, &set, set.head()).await;
        victim.until("the new head", |s| updraft_tests::lab::head_version(s) == set.timestamp_version).await;
        tokio::time::sleep(MOMENT).await;
        is_unmoved(&victim, &set, Some("1.0.0")).await;
        victim.is_unharmed(&truth, &[&beta, &foreign]).await;
        drop(teller);
    }
    recovers(&lab, &victim, &mut forge, &truth, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_that_comes_over_quic_is_treated_no_better() {
    let lab = Lab::new();
    let (mut forge, set) = repository("quic");
    let victim = lab
        .victim_with(&forge.ticket(&[]), |config| config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()])
        .await;
    assert!(victim.address.contains("quic"), "{}", victim.address);
    let liar = Peer::start(&set, Server(Serve::Rotten)).await;
    liar.connect(&victim.address).await;
    victim.bans(&liar.id).await;
    let forged = forge.thief(&[]).publish("9.9.9", noise("malware", RELEASE_BYTES));
    let stranger = offer(&victim, &forged, forged.head()).await;
    is_blamed(&victim, &stranger).await;
    recovers(&lab, &victim, &mut forge, &Truth::of(&[&set]), &[&forged]).await;
}
