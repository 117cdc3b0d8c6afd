//! `/metadata/*` and `/targets/*`: bodies with a strong entity tag, whole or one range of them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Response as HttpResponse, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use percent_encoding::percent_decode_str;
use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_TARGET_PATH_BYTES;

use super::range::{self, Wanted};
use super::{Shared, TargetFile, conditional, off_thread, refusal};

/// Bytes read from a file and handed to a connection at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// Cached for a year and never asked for again: a name that holds a hash or a version.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Asked for again each time, answered with 304 where nothing changed.
const REVALIDATE: &str = "no-cache";

pub(super) async fn metadata(State(repository): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(file) = requested(uri.path(), "/metadata/").filter(|file| !file.contains('/')) else {
        return absent("metadata file");
    };
    let cache = if starts_with_version(&file) { IMMUTABLE } else { REVALIDATE };
    let bytes = match off_thread(move || repository.metadata(&file)).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return absent("metadata file"),
        Err(response) => return *response,
    };
    let length = bytes.len() as u64;
    let meta = BodyMeta { length, tag: conditional::tag(&Digest::of(&bytes)), kind: "application/json", cache };
    match meta.plan(&headers) {
        Plan::Answer(response) => *response,
        Plan::Send(status, range, builder) => {
            // Both ends lie within a Vec's length.
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            let end = usize::try_from(range.end).unwrap_or(usize::MAX);
            let part = bytes.get(start..end).unwrap_or_default().to_vec();
            finish(status, builder, Body::from(part))
        }
    }
}

pub(super) async fn target(State(repository): State<Shared>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let Some(path) = requested(uri.path(), "/targets/") else {
        return absent("target");
    };
    let kind = content_type(&path);
    let target = match off_thread(move || repository.target(&path)).await {
        Ok(Some(target)) => target,
        Ok(None) => return absent("target"),
        Err(response) => return *response,
    };
    let meta = BodyMeta { length: target.length, tag: conditional::tag(&target.sha256), kind, cache: IMMUTABLE };
    match meta.plan(&headers) {
        Plan::Answer(response) => *response,
        Plan::Send(status, _, builder) if method == Method::HEAD => finish(status, builder, Body::empty()),
        Plan::Send(status, range, builder) => match off_thread(move || Reading::open(&target, range)).await {
            Ok(Ok(reading)) => finish(status, builder, reading.body()),
            Ok(Err(error)) => {
                tracing::error!(%error, "a target cannot be served");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "the target cannot be read here; see the node's log")
            }
            Err(response) => *response,
        },
    }
}

/// A target's file on its way to a client.
struct Reading {
    file: File,
    left: u64,
    modified: Option<SystemTime>,
}

impl Reading {
    fn open(target: &TargetFile, range: Range<u64>) -> io::Result<Self> {
        let at_path = |error: io::Error| io::Error::other(format!("{}: {error}", target.path.display()));
        let mut file = File::open(&target.path).map_err(at_path)?;
        let found = file.metadata().map_err(at_path)?.len();
        if found != target.length {
            return Err(at_path(io::Error::other(format!("it has {found} bytes instead of {}", target.length))));
        }
        file.seek(SeekFrom::Start(range.start)).map_err(at_path)?;
        let reading = Self { file, left: range.end - range.start, modified: target.modified };
        reading.require_unchanged().map_err(at_path)?;
        Ok(reading)
    }

    /// The next bytes, which were those of the verified file when they were read.
    fn next(&mut self) -> io::Result<Bytes> {
        let wanted = usize::try_from(self.left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; wanted];
        self.file.read_exact(&mut chunk)?;
        self.require_unchanged()?;
        self.left -= chunk.len() as u64;
        Ok(chunk.into())
    }

    fn require_unchanged(&self) -> io::Result<()> {
        match self.modified {
            Some(modified) if self.file.metadata()?.modified()? != modified => {
                Err(io::Error::other("it was written to by its name outside the store"))
            }
            _ => Ok(()),
        }
    }

    /// Streams it in bounded chunks, each read off the threads that serve connections. A body that cannot go
    /// on breaks off: the client sees that it is cut short.
    fn body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, |mut reading| async move {
            if reading.left == 0 {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || reading.next().map(|chunk| (chunk, reading)));
            read.await.map_err(io::Error::other)?.map(Some).inspect_err(|error| {
                tracing::error!(%error, "a target could not be served to its end");
            })
        }))
    }
}

/// The path behind `prefix`, percent-decoded once; `None` where no repository could have it.
pub fn requested(path: &str, prefix: &str) -> Option<String> {
    let path = percent_decode_str(path.strip_prefix(prefix)?).decode_utf8().ok()?;
    let fits = path.len() <= 2 * MAX_TARGET_PATH_BYTES
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    fits.then(|| path.into_owned())
}

/// Whether a metadata name is a consistent-snapshot one: `7.snapshot.json`.
fn starts_with_version(file: &str) -> bool {
    file.split_once('.').is_some_and(|(version, _)| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => "application/json",
        "zst" => "application/zstd",
        "gz" | "tgz" => "application/gzip",
        "xz" => "application/x-xz",
        "tar" => "application/x-tar",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

fn absent(what: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, format_args!("there is no such {what} here"))
}

/// What is known of a body before it is read.
struct BodyMeta {
    length: u64,
    tag: String,
    kind: &'static str,
    cache: &'static str,
}

type Builder = axum::http::response::Builder;

enum Plan {
    /// No body of ours: 304 or 416.
    Answer(Box<Response>),
    /// These bytes, under these headers.
    Send(StatusCode, Range<u64>, Builder),
}

impl BodyMeta {
    /// Decides what a request with these headers gets.
    fn plan(&self, headers: &HeaderMap) -> Plan {
        let common = HttpResponse::builder()
            .header(header::ETAG, &self.tag)
            .header(header::CACHE_CONTROL, self.cache)
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if conditional::is_known(headers, &self.tag) {
            return Plan::Answer(Box::new(finish(StatusCode::NOT_MODIFIED, common, Body::empty())));
        }
        let common = common.header(header::CONTENT_TYPE, self.kind);
        let (status, range, common) = match self.wanted(headers) {
            Wanted::Whole => (StatusCode::OK, 0..self.length, common),
            Wanted::Part(range) => {
                let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, self.length);
                (StatusCode::PARTIAL_CONTENT, range, common.header(header::CONTENT_RANGE, shown))
            }
            Wanted::Unsatisfiable => {
                let mut response = refusal(StatusCode::RANGE_NOT_SATISFIABLE, "those bytes are beyond the end");
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{}", self.length)) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                return Plan::Answer(Box::new(response));
            }
        };
        let length = range.end - range.start;
        Plan::Send(status, range, common.header(header::CONTENT_LENGTH, length))
    }

    fn wanted(&self, headers: &HeaderMap) -> Wanted {
        match headers.get(header::RANGE).and_then(|value| value.to_str().ok()) {
            Some(value) if conditional::range_counts(headers, &self.tag) => range::parse(value, self.length),
            _ => Wanted::Whole,
        }
    }
}

fn finish(status: StatusCode, builder: Builder, body: Body) -> Response {
    builder.status(status).body(body).unwrap_or_else(|error| {
        tracing::error!(%error, "an HTTP answer cannot be put together");
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "the node failed to answer; see its log")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cleaned(path: &str) -> Option<String> {
        let uri: Uri = path.parse().expect("a URI");
        requested(uri.path(), "/targets/")
    }

    #[test]
    fn a_path_is_decoded_exactly_once() {
        assert_eq!(cleaned("/targets/a%2Bb").as_deref(), Some("a+b"));
        assert_eq!(cleaned("/targets/a%252Fb").as_deref(), Some("a%2Fb"));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_nobodys() {
        for bad in [
            "/targets/",
            "/targets//a",
            "/targets/../a",
            "/targets/%2e%2e/a",
            "/targets/a/%2E%2E%2Fb",
            "/targets/a/.",
            "/targets/a%00",
            "/targets/a%5C..%5Cb",
            "/targets/%ff",
            "/targets/a/",
            "/other/a",
        ] {
            assert_eq!(cleaned(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_versioned_metadata_is_immutable() {
        assert!(starts_with_version("7.snapshot.json"));
        assert!(!starts_with_version("timestamp.json"));
        assert!(!starts_with_version(".json"));
    }

    proptest! {
        #[test]
        fn what_is_clean_never_climbs(path in "(%2[eEfF]|%5[cC]|[a-z./]|%00){0,20}") {
            if let Ok(uri) = format!("/targets/{path}").parse::<Uri>()
                && let Some(path) = requested(uri.path(), "/targets/")
            {
                prop_assert!(!path.starts_with('/'));
                prop_assert!(path.split('/').all(|part| !part.is_empty() && part != ".." && part != "."));
            }
        }
    }
}
