//! Lines of JSON on a byte stream: bounded before they are buffered, complete before they are read.

use serde::Serialize;

use super::messages::{ErrorBody, ErrorCode, Line, Request};

/// Collects one line from chunks of any size and refuses to hold more than its limit.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// All of it was taken and the line goes on.
    More,
    /// The line is complete after this many bytes of the chunk, its line feed included.
    Complete(usize),
}

/// A line longer than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line on the control socket is longer than {limit} bytes")]
pub struct LineTooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

impl LineBuffer {
    /// A buffer for lines of at most `limit` bytes without the line feed.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Takes bytes up to and including the first line feed.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Pushed, LineTooLong> {
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let text = &chunk[..end.unwrap_or(chunk.len())];
        if self.bytes.len() + text.len() > self.limit {
            return Err(LineTooLong { limit: self.limit });
        }
        self.bytes.extend_from_slice(text);
        Ok(end.map_or(Pushed::More, |end| Pushed::Complete(end + 1)))
    }

    /// The line so far; the buffer is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Whether nothing was pushed since the last line.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Decodes a request line; the error is ready to be sent back.
pub fn decode_request(line: &[u8]) -> Result<Request, ErrorBody> {
    serde_json::from_slice(line).map_err(|error| {
        ErrorBody::new(ErrorCode::Usage, format!("the node does not understand the request: {error}"))
            .with_hint("use the updraft that the node runs; `updraft --version` and `updraft status` show both")
    })
}

/// Encodes a line, line feed included.
pub fn encode_line<R: Serialize>(line: &Line<R>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).unwrap_or_else(|error| {
        // A path that is not UTF-8 is the one value that JSON cannot carry. Strings it always can.
        let reason = format!("the answer cannot be written as JSON: {error}");
        let body = ErrorBody::new(ErrorCode::Error, reason).with_hint("use file names in UTF-8");
        serde_json::to_vec(&Line::<()>::Error(body)).unwrap_or_default()
    });
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::messages::PublishRequest;
    use crate::control::{MAX_NOTES_BYTES, MAX_REQUEST_BYTES};
    use proptest::prelude::*;

    #[test]
    fn a_line_is_complete_at_its_line_feed_and_not_before() {
        let mut buffer = LineBuffer::new(8);
        assert_eq!(buffer.push(b"abc"), Ok(Pushed::More));
        assert_eq!(buffer.push(b"de\nrest"), Ok(Pushed::Complete(3)));
        assert_eq!(buffer.take(), b"abcde");
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_it_is_held() {
        let mut buffer = LineBuffer::new(4);
        assert_eq!(buffer.push(b"abcd"), Ok(Pushed::More));
        assert_eq!(buffer.push(b"e"), Err(LineTooLong { limit: 4 }));
        assert_eq!(buffer.push(b"\n"), Ok(Pushed::Complete(1)));
    }

    #[test]
    fn the_longest_notes_in_their_worst_spelling_fit_a_request() {
        let request = Request::Publish(PublishRequest {
            path: "/x".repeat(2000).into(),
            product: "p".parse().expect("a name"),
            version: semver::Version::new(1, 0, 0),
            channel: updraft_protocol::names::Channel::stable(),
            also_on: Vec::new(),
            rollout: None,
            platform: updraft_protocol::names::Platform::any(),
            min_from: None,
            notes: Some("\u{1}".repeat(MAX_NOTES_BYTES)),
            critical: false,
            dry_run: false,
            level: 9,
        });
        let text = serde_json::to_vec(&request).expect("serializable");
        assert!(text.len() <= MAX_REQUEST_BYTES);
        assert_eq!(decode_request(&text), Ok(request));
    }

    #[cfg(unix)]
    #[test]
    fn an_answer_that_json_cannot_carry_becomes_an_error() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt as _;
        let path = std::path::PathBuf::from(OsStr::from_bytes(b"/\xff"));
        let line = String::from_utf8(encode_line(&Line::Result(path))).expect("UTF-8");
        assert!(line.starts_with(r#"{"error":{"code":"error""#), "{line}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_request(&bytes);
        }

        #[test]
        fn arbitrary_fields_never_make_the_decoder_panic(
            command in "(status|peers|releases|fetch|install|rollback|history|events|ticket|publish|[a-z]{1,8})",
            key in "(explain|product|version|to|now|limit|follow|since|addresses|path|level|notes|[a-z]{1,6})",
            value in "(null|true|-?[0-9]{1,22}|\"[ -~]{0,20}\"|\\[\\]|\\{\\})",
        ) {
            let _ = decode_request(format!("{{\"{command}\":{{\"{key}\":{value}}}}}").as_bytes());
        }

        #[test]
        fn however_a_line_is_cut_it_arrives_whole(line in "[a-z]{0,40}", cuts in proptest::collection::vec(1usize..7, 0..50)) {
            let bytes = format!("{line}\n").into_bytes();
            let mut buffer = LineBuffer::new(64);
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.into_iter();
            loop {
                let at = cuts.next().unwrap_or(rest.len()).min(rest.len());
                let (chunk, after) = rest.split_at(at);
                rest = after;
                match buffer.push(chunk).expect("short enough") {
                    Pushed::More => prop_assert!(!rest.is_empty()),
                    Pushed::Complete(_) => break,
                }
            }
            prop_assert_eq!(buffer.take(), line.into_bytes());
        }
    }
}
