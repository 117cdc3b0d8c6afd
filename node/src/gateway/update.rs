//! `GET /update`: what an app asks instead of parsing signed metadata itself.
//!
//! `?product=P&version=V[&channel=C][&platform=T][&id=CALLER]`. 200 and an offer where there is
//! something newer that this caller may have; 204 where there is not; 400 with the reason for bad
//! input; 404 for an unknown product or channel. Without any parameter: the newest release of every
//! product. Parameters that this version does not know are ignored, so that an app can ask an older
//! seed; one that comes twice is refused, because two readers would disagree about it.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;
use semver::Version;
use serde::Serialize;
use updraft_protocol::digest::Digest;
use updraft_protocol::names::{Channel, Platform, Product, parse_version};

use super::{Shared, json, off_thread, refusal};

/// Bytes of a query. Bounds what is decoded for a stranger.
const MAX_QUERY_BYTES: usize = 2048;

/// Bytes of a caller's id. Bounds what is hashed for a stranger.
const MAX_CALLER_BYTES: usize = 128;

/// What a caller asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateQuery {
    /// The newest release of every product.
    Newest,
    /// Something newer than what the caller runs.
    Newer {
        /// Of which product.
        product: Product,
        /// What the caller runs.
        version: Version,
        /// On which channel.
        channel: Channel,
        /// What the caller runs on.
        platform: Platform,
        /// Places the caller in a rollout; without it, only releases at 100 % are offered.
        caller: Option<String>,
    },
}

/// What the repository answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateAnswer {
    /// There is something newer.
    Offer(Offer),
    /// To [`UpdateQuery::Newest`].
    Newest(Vec<Offer>),
    /// There is nothing newer that this caller may have.
    Nothing,
    /// No such product.
    UnknownProduct,
    /// No such channel of that product.
    UnknownChannel,
    /// The query makes no sense to the repository, and why.
    Bad(String),
}

/// A release, as apps see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Of which product.
    pub product: Product,
    /// Which version.
    pub version: String,
    /// For which platform.
    pub platform: Platform,
    /// Where to get it, relative to this server: `/targets/...`.
    pub url: String,
    /// SHA-256 of the artifact.
    pub sha256: Digest,
    /// Bytes of the artifact.
    pub length: u64,
    /// Release notes, where there are short ones.
    pub notes: Option<String>,
    /// The target's path in the TUF repository.
    pub target: String,
}

/// Why a query cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuery(String);

impl UpdateQuery {
    /// Reads the part of a URL after `?`.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let [product, version, channel, platform, caller] =
            parameters(query, ["product", "version", "channel", "platform", "id"])?;
        let (product, version) = match (product, version) {
            (None, None) if channel.is_none() && platform.is_none() && caller.is_none() => {
                return Ok(Self::Newest);
            }
            (Some(product), Some(version)) => (product, version),
            (None, _) => return Err(missing("product")),
            (Some(_), None) => return Err(missing("version")),
        };
        if caller.as_ref().is_some_and(|caller| caller.len() > MAX_CALLER_BYTES) {
            return Err(BadQuery(format!("id is longer than {MAX_CALLER_BYTES} bytes")));
        }
        Ok(Self::Newer {
            product: product.parse().map_err(bad)?,
            version: parse_version(&version).map_err(bad)?,
            channel: channel.map_or_else(|| Ok(Channel::stable()), |text| text.parse().map_err(bad))?,
            platform: platform.map_or_else(|| Ok(Platform::any()), |text| text.parse().map_err(bad))?,
            caller,
        })
    }
}

fn missing(name: &str) -> BadQuery {
    BadQuery(format!("{name} is missing; ask for /update?product=P&version=V, or for /update alone"))
}

fn bad(error: impl std::fmt::Display) -> BadQuery {
    BadQuery(error.to_string())
}

/// The values of `names` in a query, decoded once.
fn parameters<const N: usize>(query: &str, names: [&str; N]) -> Result<[Option<String>; N], BadQuery> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(BadQuery(format!("the query is longer than {MAX_QUERY_BYTES} bytes")));
    }
    let mut values = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name)?;
        let Some(index) = names.iter().position(|known| *known == name) else {
            continue;
        };
        let value = decode(value)?;
        if value.is_empty() {
            return Err(BadQuery(format!("{name} is empty")));
        }
        if values[index].replace(value).is_some() {
            return Err(BadQuery(format!("{name} is given twice")));
        }
    }
    Ok(values)
}

/// Decodes a query component. A `+` stays one: it separates a version's build metadata, and no
/// other value here may hold a space.
fn decode(text: &str) -> Result<String, BadQuery> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| BadQuery("the query is not UTF-8".to_owned()))
}

pub(super) async fn answer(State(repository): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let query = match UpdateQuery::parse(query.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
    };
    match off_thread(move || repository.update(&query)).await {
        Ok(answer) => respond(answer),
        Err(response) => *response,
    }
}

fn respond(answer: UpdateAnswer) -> Response {
    #[derive(Serialize)]
    struct Newest {
        releases: Vec<Offer>,
    }
    match answer {
        UpdateAnswer::Offer(offer) => json(StatusCode::OK, &offer),
        UpdateAnswer::Newest(releases) => json(StatusCode::OK, &Newest { releases }),
        UpdateAnswer::Nothing => StatusCode::NO_CONTENT.into_response(),
        UpdateAnswer::UnknownProduct => refusal(StatusCode::NOT_FOUND, "there is no such product here"),
        UpdateAnswer::UnknownChannel => refusal(StatusCode::NOT_FOUND, "there is no such channel of this product"),
        UpdateAnswer::Bad(reason) => refusal(StatusCode::BAD_REQUEST, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn newer(query: &str) -> (Product, Version, Channel, Platform, Option<String>) {
        match UpdateQuery::parse(query).expect("valid") {
            UpdateQuery::Newer { product, version, channel, platform, caller } => {
                (product, version, channel, platform, caller)
            }
            UpdateQuery::Newest => panic!("asks for one product"),
        }
    }

    #[test]
    fn channel_platform_and_id_have_defaults() {
        let (product, version, channel, platform, caller) = newer("product=editor&version=1.0.0");
        assert_eq!((product.as_str(), version), ("editor", Version::new(1, 0, 0)));
        assert_eq!((channel, platform, caller), (Channel::stable(), Platform::any(), None));
    }

    #[test]
    fn every_parameter_is_read_and_decoded_once() {
        let (_, version, channel, platform, caller) =
            newer("id=host%2525&platform=linux-x86_64&channel=beta&version=1.0.0-rc.1%2Bb7&product=editor&&nonce=1");
        assert_eq!(version.to_string(), "1.0.0-rc.1+b7");
        assert_eq!((channel.as_str(), platform.as_str(), caller.as_deref()), ("beta", "linux-x86_64", Some("host%25")));
        assert_eq!(newer("product=a&version=1.0.0+b7").1.build.as_str(), "b7");
    }

    #[test]
    fn nothing_asked_means_everything() {
        assert_eq!(UpdateQuery::parse(""), Ok(UpdateQuery::Newest));
        assert_eq!(UpdateQuery::parse("cache=123"), Ok(UpdateQuery::Newest));
    }

    #[test]
    fn bad_input_is_refused_with_the_reason() {
        for (query, part) in [
            ("product=editor", "version is missing"),
            ("version=1.0.0", "product is missing"),
            ("channel=beta", "product is missing"),
            ("product=editor&version=1.0", "semantic version"),
            ("product=editor&version=v1.0.0", "semantic version"),
            ("product=../etc&version=1.0.0", "only a-z"),
            ("product=editor&version=1.0.0&channel=A", "channel 'A'"),
            ("product=editor&version=1.0.0&platform=", "platform is empty"),
            ("product=a&product=b&version=1.0.0", "product is given twice"),
            ("product=%ff&version=1.0.0", "UTF-8"),
        ] {
            let reason = UpdateQuery::parse(query).expect_err(query).to_string();
            assert!(reason.contains(part), "{query}: {reason}");
        }
        let long = format!("product=a&version=1.0.0&id={}", "x".repeat(129));
        assert!(UpdateQuery::parse(&long).is_err());
        assert!(UpdateQuery::parse(&"x=1&".repeat(1000)).is_err());
    }

    proptest! {
        #[test]
        fn no_query_makes_the_parser_panic(query in "((product|version|channel|platform|id|[a-z%]{0,4})=?[ -~é]{0,12}&?){0,8}") {
            let _ = UpdateQuery::parse(&query);
        }
    }
}
