//! The gateway as clients meet it: raw requests over loopback against a repository made up here.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const BODY: &[u8] = b"0123456789";

struct Fake {
    dir: tempfile::TempDir,
    problems: Vec<String>,
}

fn artifact_name() -> String {
    format!("releases/editor/1.1.0/any/{}.editor.tar.zst", Digest::of(BODY))
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("artifact"), BODY).expect("writes");
        Self { dir, problems: Vec::new() }
    }

    fn modified(&self, name: &str) -> Option<SystemTime> {
        std::fs::metadata(self.dir.path().join(name)).ok()?.modified().ok()
    }
}

impl Repository for Fake {
    fn metadata(&self, file: &str) -> Option<Vec<u8>> {
        let files = BTreeMap::from([("timestamp.json", "{\"a\":1}"), ("7.odd name.json", "{}")]);
        files.get(file).map(|text| text.as_bytes().to_vec())
    }

    fn target(&self, path: &str) -> Option<TargetFile> {
        let large = path == "large";
        let length = if large { 64 * 1024 * 1024 } else { BODY.len() as u64 };
        let file = self.dir.path().join(if large { "large" } else { "artifact" });
        let modified = match path {
            "large" => self.modified("large"),
            "changed" => self.modified("artifact").map(|modified| modified - Duration::from_nanos(1)),
            _ => None,
        };
        let known = ["large", "cut-short", "changed", &artifact_name()].contains(&path);
        known.then(|| TargetFile {
            modified,
            path: file,
            length: if path == "cut-short" { length + 1 } else { length },
            sha256: Digest::of(BODY),
        })
    }

    fn update(&self, query: &UpdateQuery) -> UpdateAnswer {
        let offer = Offer {
            product: "editor".parse().expect("a name"),
            version: "1.1.0".to_owned(),
            platform: updraft_protocol::names::Platform::any(),
            url: format!("/targets/{}", artifact_name()),
            sha256: Digest::of(BODY),
            length: BODY.len() as u64,
            notes: None,
            target: "releases/editor/1.1.0/any/editor.tar.zst".to_owned(),
        };
        match query {
            UpdateQuery::Newest => UpdateAnswer::Newest(vec![offer]),
            UpdateQuery::Newer { product, .. } if product.as_str() != "editor" => UpdateAnswer::UnknownProduct,
            UpdateQuery::Newer { channel, .. } if channel.as_str() != "stable" => UpdateAnswer::UnknownChannel,
            UpdateQuery::Newer { version, .. } if *version < semver::Version::new(1, 1, 0) => {
                UpdateAnswer::Offer(offer)
            }
            UpdateQuery::Newer { .. } => UpdateAnswer::Nothing,
        }
    }

    fn health(&self) -> Health {
        Health { problems: self.problems.clone() }
    }

    fn metrics(&self) -> Metrics {
        Metrics { connected_peers: 5, ..Metrics::default() }
    }
}

async fn start(repository: Fake, face: Face) -> (Gateway, CancellationToken) {
    let shutdown = CancellationToken::new();
    let address = "127.0.0.1:0".parse().expect("an address");
    let gateway = serve(address, Arc::new(repository), face, shutdown.clone()).await.expect("binds");
    (gateway, shutdown)
}

/// Sends one raw request and returns status, headers in lower case, and body.
async fn ask(address: SocketAddr, head: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    // A body that breaks off ends in a reset; what came before it is still an answer.
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("headers end");
    let headers = String::from_utf8(answer[..end].to_vec()).expect("ASCII").to_lowercase();
    let status = headers[9..12].parse().expect("a status");
    (status, headers, answer[end + 4..].to_vec())
}

async fn get_once(head: &str) -> (u16, String, String) {
    let (gateway, shutdown) = start(Fake::new(), Face::Full).await;
    let (status, headers, body) = ask(gateway.address, head).await;
    shutdown.cancel();
    gateway.task.await.expect("no panic");
    (status, headers, String::from_utf8(body).expect("UTF-8"))
}

fn target_request(method: &str, headers: &str) -> String {
    format!("{method} /targets/{} HTTP/1.1{headers}", artifact_name())
}

#[tokio::test]
async fn an_app_behind_is_offered_the_update() {
    let (status, headers, body) = get_once("GET /update?product=editor&version=1.0.0 HTTP/1.1").await;
    let name = artifact_name();
    let sha256 = Digest::of(BODY);
    assert_eq!(status, 200);
    assert!(headers.contains("content-type: application/json"), "{headers}");
    assert_eq!(
        body,
        format!(
            "{{\"product\":\"editor\",\"version\":\"1.1.0\",\"platform\":\"any\",\"url\":\"/targets/{name}\",\"sha256\":\"{sha256}\",\"length\":10,\"notes\":null,\"target\":\"releases/editor/1.1.0/any/editor.tar.zst\"}}\n"
        )
    );
}

#[tokio::test]
async fn a_current_app_gets_204_and_no_body() {
    let (status, _, body) = get_once("GET /update?product=editor&version=1.1.0 HTTP/1.1").await;
    assert_eq!((status, body.as_str()), (204, ""));
}

#[tokio::test]
async fn unknown_products_and_channels_are_404_and_bad_input_400() {
    for (query, expected) in [
        ("product=other&version=1.0.0", 404),
        ("product=editor&version=1.0.0&channel=beta", 404),
        ("product=editor&version=one", 400),
        ("product=editor", 400),
    ] {
        let (status, _, body) = get_once(&format!("GET /update?{query} HTTP/1.1")).await;
        assert_eq!(status, expected, "{query}");
        assert!(body.starts_with("{\"error\":\""), "{body}");
    }
}

#[tokio::test]
async fn a_bare_update_lists_the_newest_of_every_product() {
    let (status, _, body) = get_once("GET /update HTTP/1.1").await;
    assert_eq!(status, 200);
    assert!(body.starts_with("{\"releases\":[{\"product\":\"editor\""), "{body}");
}

#[tokio::test]
async fn metadata_is_served_with_a_tag_and_a_role_name_is_decoded_once() {
    let (status, headers, body) = get_once("GET /metadata/timestamp.json HTTP/1.1").await;
    assert_eq!((status, body.as_str()), (200, "{\"a\":1}"));
    assert!(headers.contains(&format!("etag: \"{}\"", Digest::of(b"{\"a\":1}"))), "{headers}");
    assert!(headers.contains("cache-control: no-cache"), "{headers}");
    let (status, headers, _) = get_once("GET /metadata/7.odd%20name.json HTTP/1.1").await;
    assert_eq!(status, 200);
    assert!(headers.contains("immutable"), "{headers}");
    assert_eq!(get_once("GET /metadata/7.odd%2520name.json HTTP/1.1").await.0, 404);
}

#[tokio::test]
async fn a_target_is_served_whole_with_its_signed_hash_as_tag() {
    let (status, headers, body) = get_once(&target_request("GET", "")).await;
    assert_eq!((status, body.as_bytes()), (200, BODY));
    for part in [
        &format!("etag: \"{}\"", Digest::of(BODY)),
        "content-length: 10",
        "accept-ranges: bytes",
        "content-type: application/zstd",
    ] {
        assert!(headers.contains(part), "{part}: {headers}");
    }
}

#[tokio::test]
async fn head_says_what_get_would_send_and_sends_nothing() {
    let (status, headers, body) = get_once(&target_request("HEAD", "")).await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(headers.contains("content-length: 10"), "{headers}");
    let (status, headers, body) = get_once("HEAD /metadata/timestamp.json HTTP/1.1").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(headers.contains("content-length: 7"), "{headers}");
}

#[tokio::test]
async fn a_range_is_206_and_one_beyond_the_end_416() {
    let (status, headers, body) = get_once(&target_request("GET", "\r\nRange: bytes=2-4")).await;
    assert_eq!((status, body.as_str()), (206, "234"));
    assert!(headers.contains("content-range: bytes 2-4/10"), "{headers}");
    assert!(headers.contains("content-length: 3"), "{headers}");
    let (status, headers, _) = get_once(&target_request("GET", "\r\nRange: bytes=10-")).await;
    assert_eq!(status, 416);
    assert!(headers.contains("content-range: bytes */10"), "{headers}");
    let (status, _, body) = get_once("GET /metadata/timestamp.json HTTP/1.1\r\nRange: bytes=-2").await;
    assert_eq!((status, body.as_str()), (206, "1}"));
}

#[tokio::test]
async fn a_range_of_another_body_gets_the_whole() {
    let (status, _, body) = get_once(&target_request("GET", "\r\nRange: bytes=2-4\r\nIf-Range: \"other\"")).await;
    assert_eq!((status, body.as_bytes()), (200, BODY));
    let same = format!("\r\nRange: bytes=2-4\r\nIf-Range: \"{}\"", Digest::of(BODY));
    assert_eq!(get_once(&target_request("GET", &same)).await.0, 206);
}

#[tokio::test]
async fn a_client_that_has_the_body_gets_304() {
    let (status, headers, body) =
        get_once(&target_request("GET", &format!("\r\nIf-None-Match: \"{}\"", Digest::of(BODY)))).await;
    assert_eq!((status, body.as_str()), (304, ""));
    assert!(headers.contains("etag:"), "{headers}");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_signed_is_not_served() {
    let (status, _, body) = get_once("GET /targets/cut-short HTTP/1.1").await;
    assert_eq!(status, 500);
    assert!(!body.contains('/'), "no path of this machine leaves it: {body}");
}

#[tokio::test]
async fn a_file_that_was_written_to_is_not_served() {
    assert_eq!(get_once("GET /targets/changed HTTP/1.1").await.0, 500);
    assert_eq!(get_once("GET /targets/changed HTTP/1.1\r\nRange: bytes=2-4").await.0, 500);
}

#[tokio::test]
async fn a_file_that_is_written_to_while_it_is_served_breaks_off() {
    let fake = Fake::new();
    let path = fake.dir.path().join("large");
    let large = std::fs::File::create(&path).expect("creates");
    large.set_len(64 * 1024 * 1024).expect("grows");
    let (gateway, _shutdown) = start(fake, Face::Full).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(b"GET /targets/large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let mut some = vec![0; 1024 * 1024];
    stream.read_exact(&mut some).await.expect("reads");
    large.set_modified(SystemTime::now() + Duration::from_secs(9)).expect("ours");
    let mut rest = Vec::new();
    // It ends in a reset or early, as the system likes.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 60 * 1024 * 1024, "{} bytes more were sent", rest.len());
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    assert_eq!(get_once("POST /update HTTP/1.1\r\nContent-Length: 0").await.0, 405);
    assert_eq!(get_once("DELETE /targets/a HTTP/1.1").await.0, 405);
    for path in
        ["/", "/updates", "/metadata/", "/metadata/a/b", "/metadata/../secret", "/targets/%2e%2e/%2e%2e/etc/passwd"]
    {
        assert_eq!(get_once(&format!("GET {path} HTTP/1.1")).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn health_has_reasons() {
    assert_eq!(get_once("GET /healthz HTTP/1.1").await.2, "{\"status\":\"ok\",\"problems\":[]}\n");
    let fake = Fake { problems: vec!["the head has expired".to_owned()], ..Fake::new() };
    let (gateway, _shutdown) = start(fake, Face::Full).await;
    let (status, _, body) = ask(gateway.address, "GET /healthz HTTP/1.1").await;
    assert_eq!(status, 503);
    assert_eq!(body, b"{\"status\":\"unwell\",\"problems\":[\"the head has expired\"]}\n");
}

#[tokio::test]
async fn metrics_are_at_one_address_only() {
    for (face, metrics, update) in
        [(Face::Full, 200, 200), (Face::WithoutMetrics, 404, 200), (Face::MetricsOnly, 200, 404)]
    {
        let (gateway, _shutdown) = start(Fake::new(), face).await;
        assert_eq!(ask(gateway.address, "GET /metrics HTTP/1.1").await.0, metrics, "{face:?}");
        assert_eq!(ask(gateway.address, "GET /update HTTP/1.1").await.0, update, "{face:?}");
    }
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let (gateway, _shutdown) = start(Fake::new(), Face::Full).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).await.expect("reads");
        assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_download_is_streamed_and_a_leaving_client_frees_its_place() {
    let fake = Fake::new();
    let large = std::fs::File::create(fake.dir.path().join("large")).expect("creates");
    large.set_len(64 * 1024 * 1024).expect("grows");
    let (gateway, shutdown) = start(fake, Face::Full).await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(b"GET /targets/large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let mut some = vec![0; 1024 * 1024];
    stream.read_exact(&mut some).await.expect("reads");
    drop(stream);
    let (status, _, body) = ask(gateway.address, "GET /targets/large HTTP/1.1\r\nRange: bytes=67108863-").await;
    assert_eq!((status, body.as_slice()), (206, &[0][..]));
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), gateway.task).await.expect("ends in time").expect("no panic");
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_the_port() {
    let (gateway, shutdown) = start(Fake::new(), Face::Full).await;
    let mut idle = TcpStream::connect(gateway.address).await.expect("connects");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let mut answer = [0; 512];
    assert!(idle.read(&mut answer).await.expect("reads") > 0);
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), gateway.task).await.expect("ends in time").expect("no panic");
    assert_eq!(idle.read(&mut answer).await.expect("closed"), 0);
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let (status, _, _) = get_once(&format!("GET /update HTTP/1.1\r\nX-Big: {}", "x".repeat(MAX_HEADER_BYTES))).await;
    assert_eq!(status, 431);
}
