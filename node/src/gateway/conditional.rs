//! Conditional requests (RFC 9110, section 13) over strong entity tags: every body's SHA-256.

use axum::http::{HeaderMap, header};
use updraft_protocol::digest::Digest;

/// The entity tag of a body with this digest.
pub fn tag(sha256: &Digest) -> String {
    format!("\"{sha256}\"")
}

/// Whether `If-None-Match` says that the client has this body: the answer is 304.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    // Weak comparison (13.1.2): a proxy may have weakened the tag on its way.
    let matches = |candidate: &str| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag;
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|candidate| matches(candidate.trim()))
}

/// Whether `If-Range` lets a `Range` count: absent, or exactly this tag (strong comparison, 13.1.5).
/// A date never does: bodies here have none.
pub fn range_counts(headers: &HeaderMap, tag: &str) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes().trim_ascii() == tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: &header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).expect("valid"));
        }
        headers
    }

    #[test]
    fn a_known_tag_is_found_in_lists_repeats_and_weakened() {
        for values in [&["\"a\""][..], &["\"b\", \"a\""], &["\"b\"", "\"a\""], &["W/\"a\""], &["*"]] {
            assert!(is_known(&headers(&header::IF_NONE_MATCH, values), "\"a\""), "{values:?}");
        }
        for values in [&[][..], &["\"b\""], &["a"], &["\"A\""]] {
            assert!(!is_known(&headers(&header::IF_NONE_MATCH, values), "\"a\""), "{values:?}");
        }
    }

    #[test]
    fn a_range_counts_only_for_the_very_same_body() {
        assert!(range_counts(&HeaderMap::new(), "\"a\""));
        assert!(range_counts(&headers(&header::IF_RANGE, &["\"a\""]), "\"a\""));
        for other in ["\"b\"", "W/\"a\"", "Sun, 22 Nov 2026 14:31:00 GMT"] {
            assert!(!range_counts(&headers(&header::IF_RANGE, &[other]), "\"a\""), "{other}");
        }
    }
}
