//! First inputs for each decoder, made by the code that encodes: from there mutation reaches what random
//! bytes never would.

use std::io::{Cursor, Write as _};

use serde_json::json;
use updraft::control::framing::encode_line;
use updraft::control::messages::{Line, Phase, Progress, PublishRequest, Request};
use updraft_protocol::digest::Digest;
use updraft_protocol::head::{Evidence, Head, Inline};
use updraft_protocol::key::PublicKey;
use updraft_protocol::manifest::ManifestBuilder;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::names::{Channel, Platform};
use updraft_protocol::outcome::{Outcome, Report};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Format;
use updraft_protocol::rollout::{ChannelPolicy, Rollout, Stage};
use updraft_protocol::ticket::Ticket;
use updraft_protocol::transfer::{BlockHeader, BlockRange, Control, Hello, ObjectId, ObjectKind, PeerRecord};
use updraft_protocol::tuf::{DelegatedRole, Delegations, FileMeta, RepositoryId, RoleName, Root, Targets, TopRole};

use super::archive::{compress, with_checksums};
use super::repository::{
    CHANNEL_PATH, HEAD_VERSION, RELEASE_PATH, RELEASES, ROLE_VERSION, SNAPSHOT, STRANGER, TARGETS, TIMESTAMP, fixture,
    key, now, part_of, release, role,
};

/// The seeds of the decoder called `name`.
///
/// # Panics
/// Where there is no such decoder.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "canonical" => canonical(),
        "channel_policy" => channel_policy(),
        "compressed_tar" => compressed_tar(),
        "config" => config(),
        "control_socket" => control_socket(),
        "evidence" => evidence(),
        "head" => head(),
        "http" => http(),
        "key" => keys(),
        "manifest" => manifest(),
        "meta" => meta(),
        "names" => names(),
        "path_pattern" => path_pattern(),
        "release" => releases(),
        "root" => root(),
        "session" => super::session::seeds(),
        "snapshot" => snapshot(),
        "tar" => tars().into_iter().map(|tar| [&[1][..], &tar].concat()).collect(),
        "targets" => targets(),
        "ticket" => ticket(),
        "timestamp" => timestamp(),
        "transfer" => transfer(),
        "zip" => zips(),
        _ => panic!("no decoder is called {name}"),
    }
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn canonical() -> Vec<Vec<u8>> {
    let mut all = texts(&[
        r#"{"b":[1,-2,18446744073709551615,-9223372036854775808],"a":{"":null,"t":true,"f":false}}"#,
        r#" [ "\u0000\u001f\u007f", "\\\"\/\b\f\n\r\t", "\ud83d\ude00é" ] "#,
        r#"{"a":1,"a":2}"#,
        "[1.5, 1e3, -0, 01]",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        "{\"\u{e9}\":1,\"e\u{301}\":2}",
    ]);
    all.push(part_of(&fixture().timestamp));
    all
}

fn keys() -> Vec<Vec<u8>> {
    let object = |key: &PublicKey| serde_json::to_vec(key).expect("a key is JSON");
    let ecdsa =
        json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": P256}, "x-owner": [1]});
    let rsa = json!({"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": RSA, "hint": 1}});
    let private = key(RELEASES).to_pkcs8_pem().expect("a PEM file").as_bytes().to_vec();
    vec![
        object(&key(STRANGER).public()),
        object(&PublicKey::ed25519([1; 32])),
        ecdsa.to_string().into(),
        rsa.to_string().into(),
        private,
    ]
}

/// Public keys of no one, in the form in which metadata states them.
const P256: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";
const RSA: &str = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALk+8vAyyoBcUDm6jKZJd6eHNGZBmDk5\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygCAwEAAQ==\n-----END PUBLIC KEY-----\n";

fn manifest() -> Vec<Vec<u8>> {
    [1, 16 * 1024, 16 * 1024 + 1, 100_000]
        .iter()
        .map(|length| {
            let mut builder = ManifestBuilder::new();
            builder.update(&vec![7; *length]);
            builder.finish().expect("not empty").encode()
        })
        .collect()
}

fn tickets() -> Vec<Ticket> {
    let plain = Ticket {
        repository: RepositoryId::from(Digest::of(b"root 1")),
        root_version: 3,
        root_sha256: Digest::of(b"root 3"),
        min_timestamp_version: 77,
        addresses: Vec::new(),
        grant: None,
    };
    let full = Ticket {
        addresses: vec!["/ip4/192.0.2.1/tcp/4880".to_owned(), "/dns4/seed.example.org/udp/4880/quic-v1".to_owned()],
        grant: Some(vec![1; 40]),
        ..plain.clone()
    };
    vec![plain, full]
}

fn ticket() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for ticket in tickets() {
        let text = ticket.to_string();
        let body = text.trim_start_matches("updraft1:").to_ascii_uppercase();
        let body = data_encoding::BASE32_NOPAD.decode(body.as_bytes()).expect("a ticket's body");
        all.push(body[..body.len() - 4].to_vec());
        all.push(format!("  updraft1:{}\n", text.trim_start_matches("updraft1:").to_ascii_uppercase()).into_bytes());
    }
    all
}

fn policy() -> ChannelPolicy {
    let stage = |percent, days| Stage { percent, at: now().plus_days(days) };
    ChannelPolicy {
        rollout: Rollout { start: now(), stages: vec![stage(1, 0), stage(10, 1), stage(100, 2)] },
        paused: true,
        yanked: [semver::Version::new(1, 2, 1), semver::Version::new(1, 2, 2)].into(),
        allow_downgrade_to: Some(semver::Version::new(1, 1, 0)),
        max_head_age_s: Some(3600),
        ..ChannelPolicy::pointing_to(semver::Version::new(1, 2, 3))
    }
}

fn channel_policy() -> Vec<Vec<u8>> {
    let mut all = texts(&[
        r#"{"schema":1}"#,
        r#"{"schema":2,"version":1}"#,
        r#"{"schema":1,"version":"1.0.0-rc.1+b7","later":{"a":[]}}"#,
    ]);
    all.extend([policy().encode(), fixture().policy.clone()]);
    all
}

fn releases() -> Vec<Vec<u8>> {
    let custom = release().to_target().custom.expect("a description");
    let mut extended = custom.clone();
    extended["updraft"]["notes"] = json!({"sha256": Digest::of(b"notes"), "length": 5});
    extended["updraft"]["critical_fields"] = json!(["content", "notes"]);
    extended["updraft"]["later"] = json!([1]);
    [custom, extended].iter().map(|custom| format!("{RELEASE_PATH}\n{custom}").into_bytes()).collect()
}

fn root() -> Vec<Vec<u8>> {
    let next = Root { version: 2, ..fixture().root.clone() };
    let (old, new) = (key(TIMESTAMP).public(), key(STRANGER).public());
    let added = next.clone().with_role(TopRole::Timestamp, 1, &[old.clone(), new.clone()]);
    let rotated = next.clone().with_role(TopRole::Timestamp, 2, &[new.clone(), key(SNAPSHOT).public()]);
    let targets = next.clone().with_role(TopRole::Targets, 1, std::slice::from_ref(&new));
    let owned = next.clone().with_role(TopRole::Root, 1, &[new]);
    let mut extended = next.clone();
    extended.other.insert("x-note".to_owned(), json!({"a": ["b\n"]}));
    [next, added, rotated, targets, owned, extended].iter().map(part_of).collect()
}

fn timestamp() -> Vec<Vec<u8>> {
    let mut next = fixture().timestamp.clone();
    next.version += 1;
    let mut newer = next.clone();
    newer.snapshot.version += 1;
    newer.snapshot.other.insert("x".to_owned(), json!(null));
    [fixture().timestamp.clone(), next, newer].iter().map(part_of).collect()
}

fn snapshot() -> Vec<Vec<u8>> {
    let mut next = fixture().snapshot.clone();
    next.version += 1;
    let mut added = next.clone();
    added = added.with_role(&role("releases-other"), FileMeta { length: None, ..FileMeta::of(1, b"{}") });
    let mut less = next.clone();
    less.meta.pop_first();
    [fixture().snapshot.clone(), next, added, less].iter().map(part_of).collect()
}

fn targets() -> Vec<Vec<u8>> {
    let mut releases = Targets::new(ROLE_VERSION + 1, now().plus_days(9));
    releases.targets.insert(RELEASE_PATH.to_owned(), release().to_target());
    releases.delegations = Some(
        Delegations::default()
            .with_role(
                DelegatedRole::new(role("channels"), &["releases/editor/*/*/[a-z]?*"]),
                1,
                &[key(RELEASES).public()],
            )
            .with_role(DelegatedRole::new(role("targets2"), &["*"]).terminating(), 2, &[key(TARGETS).public()]),
    );
    [fixture().targets.clone(), releases, Targets::new(1, now().plus_days(1))].iter().map(part_of).collect()
}

fn head() -> Vec<Vec<u8>> {
    let fixture = fixture();
    let mut timestamp = fixture.timestamp.clone();
    timestamp.version += 1;
    let mut snapshot = fixture.snapshot.clone();
    snapshot.version += 1;
    let part = |bytes: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(bytes).expect("an envelope");
        value["signed"].to_string().into_bytes()
    };
    let channels = role("channels");
    let inlines = vec![
        Inline::Role { name: channels.clone(), version: ROLE_VERSION, bytes: part(&fixture.delegated[&channels]) },
        Inline::Role { name: RoleName::targets(), version: ROLE_VERSION, bytes: part_of(&fixture.targets) },
        Inline::Target { path: CHANNEL_PATH.to_owned(), bytes: fixture.policy.clone() },
    ];
    let whole = Head { root_version: 1, timestamp: part_of(&timestamp), snapshot: part_of(&snapshot), inlines };
    let bare = Head { inlines: Vec::new(), ..whole.clone() };
    let equivocating = Head {
        timestamp: part_of(&updraft_protocol::tuf::Timestamp { prev_sha256: None, ..fixture.timestamp.clone() }),
        snapshot: part_of(&fixture.snapshot),
        ..bare.clone()
    };
    let forked = Head { snapshot: part_of(&fixture.snapshot), ..bare.clone() };
    let unmended = Head { root_version: 1 | 3 << 8, ..whole.clone() };
    let later_root = Head { root_version: 2, ..bare.clone() };
    let real = Head::from_trusted(&fixture.node, []).expect("a head to offer");
    assert_eq!(fixture.timestamp.version, HEAD_VERSION, "the head of the fixture");
    [whole, bare, equivocating, forked, unmended, later_root, real].iter().map(Head::encode).collect()
}

fn evidence() -> Vec<Vec<u8>> {
    let fixture = fixture();
    let next = updraft_protocol::tuf::Timestamp { version: HEAD_VERSION + 1, ..fixture.timestamp.clone() };
    let early = updraft_protocol::tuf::Timestamp { prev_sha256: None, ..fixture.timestamp.clone() };
    let mut less = fixture.snapshot.clone();
    less.meta.pop_first();
    let mut channels = Targets::new(ROLE_VERSION, now().plus_days(9));
    let one = part_of(&channels);
    channels.expires = now().plus_days(10);
    let about = |role: RoleName, one: Vec<u8>, other: Vec<u8>| Evidence { role, one, other }.encode();
    vec![
        about(RoleName::timestamp(), part_of(&fixture.timestamp), part_of(&early)),
        about(RoleName::timestamp(), part_of(&fixture.timestamp), part_of(&next)),
        about(RoleName::snapshot(), part_of(&fixture.snapshot), part_of(&less)),
        about(role("channels"), one, part_of(&channels)),
        about(RoleName::root(), b"{}".to_vec(), b"{}".to_vec()),
    ]
}

fn peer(first: u8) -> PeerId {
    PeerId::from_bytes(&[&[0, 36, 8, 1, 18, 32][..], &[first; 32]].concat()).expect("a peer id's length")
}

fn transfer() -> Vec<Vec<u8>> {
    let block = BlockRange::new(32 * 1024, 16 * 1024).expect("a good block");
    let object = ObjectId { kind: ObjectKind::Artifact, digest: Digest::of(b"artifact") };
    let messages = [
        Control::Hello(Hello {
            repository: vec![7; 32],
            agent: "updraft/0.1.0".to_owned(),
            features: vec!["a".to_owned(), "b".to_owned()],
            root_version: 1,
            timestamp_version: 5,
            timestamp_sha256: Some(Digest::of(b"timestamp")),
            seed: true,
            credential: Some(vec![1, 2, 3]),
        }),
        Control::Announce { handle: 3, object, wants: true, have: vec![0xff, 0x80] },
        Control::Have { handle: 3, pieces: vec![0, 1, 300] },
        Control::Forget { handle: 3 },
        Control::Request { handle: 3, block },
        Control::Cancel { handle: 3, block },
        Control::Busy { handle: 3, block, retry_after_ms: 500, ask: vec![peer(1), peer(2)] },
        Control::Peers(vec![PeerRecord { peer: peer(3), addresses: vec!["/ip4/192.0.2.1/tcp/1".to_owned()] }]),
        Control::Head { root_version: 1, timestamp_version: 6, timestamp_sha256: Some(Digest::of(b"timestamp")) },
        Control::Evidence { sha256: vec![Digest::of(b"evidence")] },
        Control::Report(Box::new(Report {
            number: 1_795_357_860_000,
            product: "app".parse().expect("a name"),
            channel: Channel::stable(),
            version: semver::Version::new(1, 2, 3),
            artifact: Digest::of(b"artifact"),
            outcome: Outcome::RolledBack,
            at: now(),
            text: "the health check failed".to_owned(),
            signature: vec![7; 64],
        })),
        Control::Reported { numbers: vec![1_795_357_860_000, 1_795_357_860_001] },
        Control::Goodbye { reason: "done".to_owned() },
        Control::Unknown,
    ];
    let mut all: Vec<Vec<u8>> = messages.iter().map(|message| message.to_frame()[4..].to_vec()).collect();
    all.push(messages.iter().flat_map(Control::to_frame).collect());
    all.push(BlockHeader { handle: 3, block }.encode().to_vec());
    all
}

fn meta() -> Vec<Vec<u8>> {
    let request = |file| MetaRequest { repository: Digest::of(b"repository"), file }.encode();
    vec![
        request(MetaFile::Head),
        request(MetaFile::Root { version: 2 }),
        request(MetaFile::Role { name: "releases-editor".to_owned(), version: 3 }),
        request(MetaFile::Evidence { sha256: Digest::of(b"evidence") }),
        request(MetaFile::Target { path: CHANNEL_PATH.to_owned(), sha256: Digest::of(b"x") }),
        request(MetaFile::Manifest { sha256: Digest::of(b"manifest") }),
        MetaResponse::File(b"{}".to_vec()).encode(),
        MetaResponse::NotFound.encode(),
        MetaResponse::Refused { reason: "busy".to_owned() }.encode(),
    ]
}

fn control_socket() -> Vec<Vec<u8>> {
    let product = || "editor".parse().expect("a name");
    let version = || Some(semver::Version::new(1, 2, 3));
    let requests = [
        Request::Status { explain: true },
        Request::Peers {},
        Request::Releases { product: Some(product()) },
        Request::Fetch { product: product(), version: version(), output: Some("/tmp/x".into()) },
        Request::Install { product: product(), version: None, now: true },
        Request::Rollback { product: product(), to: version(), hold: true },
        Request::History { product: None, limit: 20 },
        Request::Gc { dry_run: true },
        Request::Events { follow: true, since: Some(7) },
        Request::Ticket { addresses: vec!["/ip4/192.0.2.1/tcp/1".to_owned()] },
        Request::Publish(PublishRequest {
            path: "/srv/build".into(),
            product: product(),
            version: semver::Version::new(1, 2, 3),
            channel: Channel::stable(),
            also_on: Vec::new(),
            rollout: None,
            platform: Platform::any(),
            min_from: version(),
            notes: Some("new\n\u{1}".to_owned()),
            critical: true,
            dry_run: false,
            level: 9,
        }),
    ];
    let line = |request: &Request| [serde_json::to_vec(request).expect("JSON"), b"\n".to_vec()].concat();
    let mut all: Vec<Vec<u8>> = requests.iter().map(|request| [vec![200], line(request)].concat()).collect();
    all.push([vec![3], requests.iter().flat_map(line).collect()].concat());
    let progress = Progress::local(Phase::Hashing, 5, Some(10));
    for answer in [Line::Progress(progress), Line::Dropped(7), Line::Heartbeat {}] {
        all.push([vec![255], encode_line(&answer), encode_line::<()>(&answer)].concat());
    }
    all.extend(texts(&[
        "\u{7f}{\"result\":{\"schema\":1,\"peers\":[]}}",
        "\u{7f}{\"result\":{\"schema\":1,\"releases\":[]}}",
        "\u{7f}{\"result\":{\"schema\":1,\"entries\":[],\"history\":[]}}",
        "\u{7f}{\"error\":{\"code\":\"usage\",\"message\":\"no\",\"hint\":null}}",
        "\u{7f}{\"event\":{\"seq\":1,\"at\":\"2026-11-22T14:31:00Z\",\"kind\":\"k\",\"product\":null,\"version\":null,\"peer\":null,\"text\":\"t\"}}",
    ]));
    all
}

fn http() -> Vec<Vec<u8>> {
    texts(&[
        "product=editor&version=1.0.0-rc.1%2Bb7&channel=beta&platform=linux-x86_64&id=host%2525&&nonce=1",
        "product=a&version=1.0.0+b7",
        "product=a&product=b",
        "bytes=2-5",
        "bytes=-3",
        "bytes=7-",
        "/metadata/7.releases%2Deditor.json",
        "/targets/releases/editor/1.2.3/any/abc.editor.zip",
        "/targets/a/%2E%2E%2Fb",
    ])
}

fn names() -> Vec<Vec<u8>> {
    let mut all = texts(&[
        "editor",
        "linux-x86_64",
        "com1",
        "editor-1.2.3.tar.zst",
        "1.2.3-rc.1+build.7",
        "2026-11-22T14:31:00Z",
        RELEASE_PATH,
        CHANNEL_PATH,
        "/ip4/192.0.2.1/tcp/4880",
        "/ip6/::1/udp/4880/quic-v1",
        "/dns4/seed.example.org/tcp/4880",
        "[::1]:8888",
        "off",
        "editor:beta=/opt/editor",
        "../a b/ü~?%",
    ]);
    all.push(Digest::of(b"x").to_string().into_bytes());
    all.push(format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(1)).into_bytes());
    all.push(peer(1).to_string().into_bytes());
    all
}

fn path_pattern() -> Vec<Vec<u8>> {
    texts(&[
        "releases/editor/*/*/*\nreleases/editor/1.2.3/any/a.zip",
        "a*c*e\nabcdce",
        "[a-c]?[!x]\nb.y",
        "**/?\na/b",
        "[]a]\n]",
        "*a*a*a*a*a*b\naaaaaaaaaaaaaaaaaaaaaaaa",
    ])
}

fn config() -> Vec<Vec<u8>> {
    let ticket = tickets()[1].to_string();
    let mut all = texts(&[
        "role = \"peer\"\nlisten = [\"/ip4/0.0.0.0/tcp/1\"]\nexternal = [\"/dns4/example.org/tcp/1\"]\nhttp = \"127.0.0.1:1\"\nmetrics = \"off\"\nmdns = true\nplatform = \"linux-x86_64\"\nmax_peers = 5\nkeep_releases = 3\n\n[[subscriptions]]\nproduct = \"editor\"\nchannel = \"beta\"\ndirectory = \"/opt/editor\"\n\n[[subscriptions]]\nproduct = \"kiosk\"\n",
        "role = \"seed\"\nsubscriptions = [{ product = \"a\" }, { product = \"b\", directory = \"/b\" }]\n",
        "lisen = []\n[[subscriptions]]\ndirectry = 1\n",
        "mdns = 1\n# \u{e9}\n",
    ]);
    all.push(format!("ticket = \"{ticket}\"\n").into_bytes());
    all
}

/// A tar stream of entries `(type, path, link, data)`.
fn tar_of(entries: &[(u8, &str, &str, &[u8])]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (kind, path, link, data) in entries {
        let mut header = [0; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000001\0");
        header[156] = *kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        stream.extend_from_slice(&header);
        stream.extend_from_slice(data);
        stream.resize(stream.len().next_multiple_of(512), 0);
    }
    stream.extend_from_slice(&[0; 1024]);
    with_checksums(&stream)
}

fn tars() -> Vec<Vec<u8>> {
    vec![
        tar_of(&[(b'5', "d/", "", b""), (b'0', "d/f", "", b"data"), (b'2', "d/l", "f", b""), (b'1', "h", "d/f", b"")]),
        tar_of(&[(b'x', "pax", "", b"17 path=dir/long\n"), (b'0', "short", "", &[3; 600])]),
        tar_of(&[
            (b'L', "././@LongLink", "", b"dir/longer\0"),
            (b'0', "s", "", b"x"),
            (b'g', "g", "", b"11 a=bcdef\n"),
        ]),
        tar_of(&[(b'x', "pax", "", b"10 size=2\n14 linkpath=a\n"), (b'0', "f", "", b"ab")]),
        tar_of(&[(b'2', "l", "../witness", b""), (b'0', "l/file", "", b"out")]),
        tar_of(&[(b'0', "../witness/file", "", b"out")]),
        tar_of(&[(b'0', "/dev/shm/file", "", b"out"), (b'6', "fifo", "", b"")]),
        tar_of(&[(b'0', "A", "", b"1"), (b'0', "a", "", b"2")]),
        tar_of(&[(b'5', "./", "", b""), (b'0', "./a", "", b"1"), (b'5', "b", "", b""), (b'7', "b/c", "", b"2")]),
    ]
}

fn compressed_tar() -> Vec<Vec<u8>> {
    let tars = tars();
    let mut all = Vec::new();
    for (mode, format) in [(0, Format::TarGz), (1, Format::TarXz), (2, Format::TarZst)] {
        all.push([vec![mode], compress(format, &tars[0])].concat());
        all.push([vec![mode], compress(format, &tars[1]), compress(format, &[0; 512])].concat());
        all.push([vec![mode + 3], tars[2].clone()].concat());
    }
    all
}

fn zips() -> Vec<Vec<u8>> {
    let zip = |entries: &[(&str, &[u8])], method: zip::CompressionMethod| {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, data) in entries {
            let options = zip::write::SimpleFileOptions::default().compression_method(method).unix_permissions(0o755);
            if let Some(link) = name.strip_suffix('@') {
                writer.add_symlink(link, str::from_utf8(data).expect("a target"), options).expect("a link");
            } else if name.ends_with('/') {
                writer.add_directory(*name, options).expect("a directory");
            } else {
                writer.start_file(*name, options).expect("a file");
                writer.write_all(data).expect("memory");
            }
        }
        writer.finish().expect("memory").into_inner()
    };
    let (stored, deflated) = (zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated);
    vec![
        zip(&[("d/", b""), ("d/f", b"data"), ("l@", b"d/f")], stored),
        zip(&[("d/f", &[3; 3000]), ("e", b"")], deflated),
        zip(&[("l@", b"../witness"), ("m", b"x")], stored),
        zip(&[("../witness/file", b"out")], stored),
        zip(&[("A", b"1"), ("a", b"2")], stored),
    ]
}
