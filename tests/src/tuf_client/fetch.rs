//! As much of HTTP/1.0 as files need: one `GET` a connection, no redirects, no chunks.
//!
//! A server that sends too much, too little or too slowly is an error, never a wait without an end.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The longest silence of a server, and the longest that it may take for what has no known length.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes a second, beyond [`PATIENCE`], that a server must average. Bounds slow retrieval.
const MIN_BYTES_PER_SECOND: u64 = 64 * 1024;
/// Bytes of a status line and headers. Bounds memory before anything is known of an answer.
const MAX_HEADER_BYTES: u64 = 16 * 1024;

/// A URL that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of the form http://HOST[:PORT][/PATH]")]
pub struct ServerError;

/// Why a file did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server has no such file (404), or shows it to nobody (403), which is how object stores say
    /// the same.
    #[error("there is no {0} on the server")]
    Absent(String),
    /// Any other answer than 200.
    #[error("the server answers {status} for {path}")]
    Status {
        /// What was asked for.
        path: String,
        /// The code.
        status: u16,
    },
    /// Something that is not HTTP, or an encoding that was not asked for.
    #[error("the server's answer for {0} is not HTTP that this client understands")]
    NotHttp(String),
    /// More bytes than may be read.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        path: String,
        /// The most bytes read.
        limit: u64,
    },
    /// The connection failed, ended early or was too slow.
    #[error("cannot fetch {path}: {error}")]
    Connection {
        /// What was asked for.
        path: String,
        /// What the system says.
        error: io::Error,
    },
}

/// A directory on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    host: String,
    port: u16,
    /// Begins and ends with `/`.
    directory: String,
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(url: &str) -> Result<Self, ServerError> {
        // White space and control characters would end up inside a request.
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains(['?', '#', '@']) {
            return Err(ServerError);
        }
        let rest = url.strip_prefix("http://").ok_or(ServerError)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| ServerError)?),
            _ => (authority, 80),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['[', ']']) {
            return Err(ServerError);
        }
        let path = path.trim_end_matches('/');
        let directory = if path.is_empty() { "/".to_owned() } else { format!("/{path}/") };
        Ok(Self { host: host.to_owned(), port, directory })
    }
}

impl Server {
    /// Asks for `path` below the directory: a relative URL, see [`quote_path`].
    pub(super) fn get(&self, path: &str) -> Result<Body, FetchError> {
        let failed = |error| FetchError::Connection { path: path.to_owned(), error };
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let colon = self.host.contains(':');
        let host = if colon { format!("[{}]", self.host) } else { self.host.clone() };
        let Self { port, directory, .. } = self;
        let request = format!(
            "GET {directory}{path} HTTP/1.0\r\nHost: {host}:{port}\r\nAccept-Encoding: identity\r\n\
             User-Agent: updraft-tuf-client\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        Body::open(stream, path)
    }

    /// A whole file of at most `limit` bytes.
    pub(super) fn file(&self, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.get(path)?.into_bytes(limit)
    }
}

/// `path` as the path part of a request: escapes in it are kept, as are the characters that a URL's
/// path may have (RFC 3986, 3.3); every other byte is escaped.
pub(super) fn quote_path(path: &str) -> String {
    let mut quoted = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            write!(quoted, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    quoted
}

/// The body of an answer, to be read.
#[derive(Debug)]
pub(super) struct Body {
    stream: BufReader<TcpStream>,
    path: String,
    /// As the server states it.
    length: Option<u64>,
    read: u64,
    started: Instant,
}

impl Body {
    fn open(stream: TcpStream, path: &str) -> Result<Self, FetchError> {
        let mut stream = BufReader::new(stream);
        let started = Instant::now();
        let mut header = stream.by_ref().take(MAX_HEADER_BYTES);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            header
                .read_until(b'\n', &mut line)
                .map_err(|error| FetchError::Connection { path: path.to_owned(), error })?;
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or_default());
            let text = text.trim_end_matches('\r').to_owned();
            if !line.ends_with(b"\n") || started.elapsed() > PATIENCE {
                return Err(FetchError::NotHttp(path.to_owned()));
            }
            if text.is_empty() {
                break;
            }
            lines.push(text);
        }
        let (status, length) = understand(&lines).ok_or_else(|| FetchError::NotHttp(path.to_owned()))?;
        match status {
            200 => Ok(Self { stream, path: path.to_owned(), length, read: 0, started }),
            403 | 404 => Err(FetchError::Absent(path.to_owned())),
            _ => Err(FetchError::Status { path: path.to_owned(), status }),
        }
    }

    /// The next bytes, none at the end. More than `limit` in all is an error, as are fewer than the
    /// server states.
    pub(super) fn next(&mut self, buffer: &mut [u8], limit: u64) -> Result<usize, FetchError> {
        let failed = |path: &str, error| Err(FetchError::Connection { path: path.to_owned(), error });
        if self.length.is_some_and(|length| length > limit) {
            return Err(FetchError::TooLarge { path: self.path.clone(), limit });
        }
        if self.length == Some(self.read) {
            return Ok(0);
        }
        if self.started.elapsed() > PATIENCE + Duration::from_secs(self.read / MIN_BYTES_PER_SECOND) {
            return failed(&self.path, io::Error::new(io::ErrorKind::TimedOut, "the server is too slow"));
        }
        let found = loop {
            match self.stream.read(buffer) {
                Ok(found) => break found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return failed(&self.path, error),
            }
        };
        if found == 0 && self.length.is_some() {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended early");
            return failed(&self.path, error);
        }
        let left = self.length.map_or(u64::MAX, |length| length - self.read);
        let found = found.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.read += u64::try_from(found).unwrap_or(u64::MAX);
        if self.read > limit {
            return Err(FetchError::TooLarge { path: self.path.clone(), limit });
        }
        Ok(found)
    }

    fn into_bytes(mut self, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.next(&mut buffer, limit)? {
                0 => return Ok(bytes),
                found => bytes.extend_from_slice(&buffer[..found]),
            }
        }
    }
}

/// The status and the length of a body that is sent as it is.
fn understand(lines: &[String]) -> Option<(u16, Option<u64>)> {
    let (first, headers) = lines.split_first()?;
    let (version, rest) = first.split_once(' ')?;
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return None;
    }
    let status = rest.split(' ').next().filter(|code| code.len() == 3)?.parse().ok()?;
    let mut length = None;
    for header in headers {
        let (name, value) = header.split_once(':')?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let stated = value.parse().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()))?;
                // Two lengths that differ leave it to the reader which bytes are the body.
                if length.is_some_and(|known| known != stated) {
                    return None;
                }
                length = Some(stated);
            }
            "transfer-encoding" => return None,
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => return None,
            _ => {}
        }
    }
    Some((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Option<(String, u16, String)> {
        url.parse().ok().map(|Server { host, port, directory }| (host, port, directory))
    }

    #[test]
    fn urls_of_directories_are_understood() {
        let expected = |host: &str, port, directory: &str| Some((host.to_owned(), port, directory.to_owned()));
        assert_eq!(server("http://127.0.0.1:8080/a/b/"), expected("127.0.0.1", 8080, "/a/b/"));
        assert_eq!(server("http://127.0.0.1:8080/a%20b"), expected("127.0.0.1", 8080, "/a%20b/"));
        assert_eq!(server("http://localhost"), expected("localhost", 80, "/"));
        assert_eq!(server("http://[::1]:9/x"), expected("::1", 9, "/x/"));
        assert_eq!(server("http://[::1]"), expected("::1", 80, "/"));
        for bad in [
            "",
            "ftp://h/",
            "https://h/",
            "http://",
            "http:///x",
            "http://h:x/",
            "http://h/a b",
            "http://h/?q",
            "http://h/\r\nX: y",
            "http://u@h/",
            "http://h:99999/",
        ] {
            assert_eq!(server(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_path_cannot_end_the_request_line() {
        assert_eq!(quote_path("a b\r\nX: y"), "a%20b%0D%0AX:%20y");
        assert_eq!(quote_path("a/b?c#d\\ü"), "a/b%3Fc%23d%5C%C3%BC");
        assert_eq!(quote_path("100%25/x+y~"), "100%25/x+y~");
    }

    #[test]
    fn headers_that_leave_the_body_in_doubt_are_refused() {
        let answer = |lines: &[&str]| understand(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(answer(&["HTTP/1.0 200 OK", "Content-length: 5"]), Some((200, Some(5))));
        assert_eq!(answer(&["HTTP/1.1 404 Not found", "Server: x"]), Some((404, None)));
        assert_eq!(answer(&["HTTP/1.0 200"]), Some((200, None)));
        for bad in [
            &["HTTP/2 200"][..],
            &["hello"],
            &[],
            &["HTTP/1.0 20 OK"],
            &["HTTP/1.0 200 OK", "Content-Length: 5", "Content-Length: 6"],
            &["HTTP/1.0 200 OK", "Content-Length: +5"],
            &["HTTP/1.0 200 OK", "Content-Length: -5"],
            &["HTTP/1.0 200 OK", "Transfer-Encoding: chunked"],
            &["HTTP/1.0 200 OK", "Content-Encoding: gzip"],
            &["HTTP/1.0 200 OK", "no colon"],
        ] {
            assert_eq!(answer(bad), None, "{bad:?}");
        }
    }
}
