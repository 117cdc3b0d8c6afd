//! Asks a health endpoint: one plain GET, and only its status counts.
//!
//! No TLS, no redirects, and nothing of the body is read: the endpoint is the release's own, on this
//! machine as a rule, and whatever it says must not cost the node anything.

use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::Ended;

/// Bytes of head that are read: hyper's smallest buffer.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Gets `url` within `limit`.
pub(super) async fn get(url: &str, limit: Duration) -> Ended {
    let result = match timeout(limit, ask(url)).await {
        Ok(result) => result,
        Err(_) => Err(format!("{url} did not answer within {} s", limit.as_secs_f64())),
    };
    Ended { result, output: String::new() }
}

async fn ask(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("'{url}' is no URL: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("'{url}' names no host"))?;
    let port = uri.port_u16().unwrap_or(80);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |error: &dyn std::fmt::Display| format!("{url} does not answer: {error}");
    let stream = TcpStream::connect((address, port)).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake::<_, String>(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(HOST, uri.authority().map_or(host, hyper::http::uri::Authority::as_str))
        .header(USER_AGENT, concat!("updraft/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection moves only while it is polled. One that has ended may have left its answer.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    let status = response.map_err(|error| failed(&error))?.status();
    if status.is_success() { Ok(()) } else { Err(format!("{url} answered {}", status.as_u16())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers one request with these bytes.
    async fn answer(bytes: &'static [u8]) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.expect("a request");
            // Whoever asked may be satisfied with the head.
            let _ = stream.write_all(bytes).await;
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        });
        (format!("http://{address}/health?deep=1"), server)
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_answer_of_2xx_is_health() {
        let (url, server) = answer(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(get(&url, LIMIT).await.result, Ok(()));
        let request = server.await.expect("it answered");
        assert!(request.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn any_other_answer_is_not_and_a_redirect_is_not_followed() {
        for (bytes, code) in [
            (&b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"[..], "503"),
            (b"HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n", "302"),
        ] {
            let (url, _server) = answer(bytes).await;
            assert!(get(&url, LIMIT).await.result.expect_err("not healthy").ends_with(code));
        }
    }

    #[tokio::test]
    async fn what_is_no_http_and_what_is_silent_are_failures() {
        let (url, _server) = answer(b"hello\r\n\r\n").await;
        assert!(get(&url, LIMIT).await.result.is_err());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let ended = get(&url, Duration::from_millis(200)).await;
        assert!(ended.result.expect_err("silent").contains("within 0.2 s"));
        drop(listener);
        assert!(get(&url, LIMIT).await.result.is_err(), "nobody listens");
    }
}
