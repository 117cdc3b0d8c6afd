//! A channel's policy: which release it points to, and whose turn it is. Pure rules over `now`.
//!
//! A node finds its own place in a rollout from the artifact and its own identity, so no server has
//! to count nodes. A rollout only ever opens wider as time passes: a node that may install now may
//! install later, whatever its clock does in between is the caller's to judge.

use std::collections::BTreeSet;

use semver::Version;
use serde_json::{Map, Value};

use crate::canonical;
use crate::digest::{Digest, Hasher};
use crate::limits::{MAX_CHANNEL_FILE_BYTES, MAX_ROLLOUT_STAGES, MAX_YANKED};
use crate::names::parse_version;
use crate::time::UtcTime;

mod halt;
mod schedule;

pub use self::halt::{Halt, MAX_SILENCE_S, MIN_SILENCE_S};
pub use self::schedule::{InvalidDuration, InvalidSchedule, Schedule, duration_text, parse_duration};

/// The version of the channel file that this version of Updraft writes and reads.
const SCHEMA: u64 = 1;

/// Bytes of the reason of a pause. Bounds what a policy makes every node show.
pub const MAX_PAUSE_REASON_BYTES: usize = 512;

/// Buckets that nodes fall into: a hundredth of a percent each.
pub const BUCKETS: u16 = 10_000;

/// Why a channel file is not a usable policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More bytes than a channel file may have.
    #[error("the channel file has {found} bytes; at most {MAX_CHANNEL_FILE_BYTES} are read")]
    TooLarge {
        /// Bytes found.
        found: usize,
    },
    /// Not the JSON of a channel file.
    #[error("the channel file is malformed: {0}")]
    Malformed(String),
    /// Written in a form that this version does not know.
    #[error("the channel file has schema {0}; this version of updraft reads schema {SCHEMA}. Update updraft first")]
    Schema(u64),
    /// A list beyond its limit.
    #[error("the channel file lists {found} {what}; at most {limit} are allowed")]
    TooMany {
        /// What is listed.
        what: &'static str,
        /// How many.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Stages that are out of order, or a percentage that shrinks or exceeds 100.
    #[error("rollout stage {stage} is out of order: stages go forward in time and never shrink, up to 100 percent")]
    Stages {
        /// The offending stage, counted from 1.
        stage: usize,
    },
    /// A threshold that makes no sense.
    #[error("the threshold of the automatic halt makes no sense: {0}")]
    Halt(&'static str),
    /// More text than everybody is to be shown.
    #[error("the reason of the pause has {found} bytes; at most {MAX_PAUSE_REASON_BYTES} are allowed")]
    Reason {
        /// Bytes found.
        found: usize,
    },
}

/// What a channel says: one small signed file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelPolicy {
    /// The version that the channel points to.
    pub version: Option<Version>,
    /// Whose turn it is to go there.
    pub rollout: Rollout,
    /// Since when the channel points there. What a node ended with before has nothing to do with it.
    pub since: Option<UtcTime>,
    /// Whether nobody is to install now.
    pub paused: bool,
    /// Why nobody is to, for people.
    pub pause_reason: Option<String>,
    /// When the last pause was ended: what had been counted against the release by then is forgiven.
    pub resumed_at: Option<UtcTime>,
    /// Versions that nobody is to install any more.
    pub yanked: BTreeSet<Version>,
    /// How far nodes may go back.
    pub allow_downgrade_to: Option<Version>,
    /// Seconds after which a head that carries this policy is too old to install by.
    pub max_head_age_s: Option<u64>,
    /// When the seed pauses the channel by itself.
    pub halt: Option<Halt>,
    /// What a later version of Updraft wrote and this one does not know: kept, whoever signs next.
    pub unknown: Map<String, Value>,
}

/// When which share of the nodes may install.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rollout {
    /// Nobody installs before.
    pub start: UtcTime,
    /// How the share grows. None: everybody from the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// From when on which share of the nodes may install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stage {
    /// Percent of the nodes, 0 to 100.
    pub percent: u8,
    /// From when on.
    pub at: UtcTime,
}

/// When a node's turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// It has come.
    Now,
    /// It comes at this time, if the policy stays as it is.
    At(UtcTime),
    /// It does not come under this policy.
    Never,
}

/// The bucket, below [`BUCKETS`], of the node `node_id` in every rollout of `artifact`. Another
/// artifact shuffles the nodes anew, so that the same few are not always first.
pub fn bucket(artifact: &Digest, node_id: &[u8]) -> u16 {
    let mut hasher = Hasher::new();
    hasher.update(artifact.as_bytes());
    hasher.update(node_id);
    let digest = hasher.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    bucket_of(u64::from_be_bytes(first))
}

/// 2^64 is so much larger than the number of buckets that the remainder favours none noticeably.
fn bucket_of(random: u64) -> u16 {
    u16::try_from(random % u64::from(BUCKETS)).expect("less than BUCKETS, which is a u16")
}

impl Default for Rollout {
    fn default() -> Self {
        Self::full()
    }
}

impl Rollout {
    /// Everybody, at once.
    pub fn full() -> Self {
        Self { start: UtcTime::from_unix(0), stages: Vec::new() }
    }

    /// The percentage of nodes that may install at `now`. Never shrinks as `now` grows, whatever the
    /// order of the stages.
    pub fn percent_at(&self, now: UtcTime) -> u8 {
        if now < self.start {
            return 0;
        }
        if self.stages.is_empty() {
            return 100;
        }
        let reached = self.stages.iter().filter(|stage| stage.at <= now).map(|stage| stage.percent);
        reached.max().unwrap_or(0).min(100)
    }

    /// When the turn of the nodes in `bucket` comes, as seen at `now`.
    pub fn opens_at(&self, bucket: u16, now: UtcTime) -> Opens {
        let first = if self.stages.is_empty() {
            Some(self.start)
        } else {
            let covering = self.stages.iter().filter(|stage| bucket < u16::from(stage.percent) * (BUCKETS / 100));
            covering.map(|stage| stage.at.max(self.start)).min()
        };
        match first {
            Some(at) if at <= now => Opens::Now,
            Some(at) => Opens::At(at),
            None => Opens::Never,
        }
    }

    /// Whether every node may install at `now`.
    pub fn is_full_at(&self, now: UtcTime) -> bool {
        self.percent_at(now) == 100
    }

    fn validate(&self) -> Result<(), PolicyError> {
        within("rollout stages", self.stages.len(), MAX_ROLLOUT_STAGES)?;
        let mut before: Option<&Stage> = None;
        for (index, stage) in self.stages.iter().enumerate() {
            let goes_on = before.is_none_or(|before| before.at <= stage.at && before.percent <= stage.percent);
            if !goes_on || stage.percent > 100 {
                return Err(PolicyError::Stages { stage: index + 1 });
            }
            before = Some(stage);
        }
        Ok(())
    }
}

/// The channel file, field by field.
#[derive(serde::Serialize, serde::Deserialize)]
struct ChannelFile {
    schema: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default)]
    rollout: Rollout,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<UtcTime>,
    #[serde(default)]
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resumed_at: Option<UtcTime>,
    #[serde(default)]
    yanked: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow_downgrade_to: Option<String>,
    #[serde(default, rename = "max_head_age", skip_serializing_if = "Option::is_none")]
    max_head_age_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    halt: Option<Halt>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), PolicyError> {
    if found > limit { Err(PolicyError::TooMany { what, found, limit }) } else { Ok(()) }
}

fn within_file(found: usize) -> Result<(), PolicyError> {
    let fits = u64::try_from(found).is_ok_and(|found| found <= MAX_CHANNEL_FILE_BYTES);
    if fits { Ok(()) } else { Err(PolicyError::TooLarge { found }) }
}

fn version(text: &str) -> Result<Version, PolicyError> {
    parse_version(text).map_err(|error| PolicyError::Malformed(error.to_string()))
}

impl ChannelPolicy {
    /// A channel that points everybody to `version`, with no other conditions.
    pub fn pointing_to(version: Version) -> Self {
        Self { version: Some(version), ..Self::default() }
    }

    /// Reads a channel file whose hash verified metadata states. Unknown fields are kept and change
    /// nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        within_file(bytes.len())?;
        let value = canonical::parse(bytes).map_err(|error| PolicyError::Malformed(error.to_string()))?;
        // A newer schema may have changed any other field, so its number is read before they are.
        match value.get("schema").and_then(Value::as_u64) {
            Some(SCHEMA) if value.is_object() => {}
            Some(other) => return Err(PolicyError::Schema(other)),
            None => {
                return Err(PolicyError::Malformed("the number 'schema' is missing".to_owned()));
            }
        }
        let file: ChannelFile =
            serde_json::from_value(value).map_err(|error| PolicyError::Malformed(error.to_string()))?;
        within("yanked versions", file.yanked.len(), MAX_YANKED)?;
        let policy = Self {
            version: file.version.as_deref().map(version).transpose()?,
            rollout: file.rollout,
            since: file.since,
            paused: file.paused,
            pause_reason: file.pause_reason,
            resumed_at: file.resumed_at,
            yanked: file.yanked.iter().map(|text| version(text)).collect::<Result<_, _>>()?,
            allow_downgrade_to: file.allow_downgrade_to.as_deref().map(version).transpose()?,
            max_head_age_s: file.max_head_age_s,
            halt: file.halt,
            unknown: file.unknown,
        };
        policy.check_lists()?;
        Ok(policy)
    }

    /// Checks what [`ChannelPolicy::parse`] would refuse: a publisher asks before it encodes.
    pub fn validate(&self) -> Result<(), PolicyError> {
        self.check_lists()?;
        within_file(self.encode().len())
    }

    fn check_lists(&self) -> Result<(), PolicyError> {
        within("yanked versions", self.yanked.len(), MAX_YANKED)?;
        let found = self.pause_reason.as_ref().map_or(0, String::len);
        if found > MAX_PAUSE_REASON_BYTES {
            return Err(PolicyError::Reason { found });
        }
        self.halt.as_ref().map_or(Ok(()), Halt::validate)?;
        self.rollout.validate()
    }

    /// The channel file: canonical JSON.
    pub fn encode(&self) -> Vec<u8> {
        let file = ChannelFile {
            schema: SCHEMA,
            version: self.version.as_ref().map(Version::to_string),
            rollout: self.rollout.clone(),
            since: self.since,
            paused: self.paused,
            pause_reason: self.pause_reason.clone(),
            resumed_at: self.resumed_at,
            yanked: self.yanked.iter().map(Version::to_string).collect(),
            allow_downgrade_to: self.allow_downgrade_to.as_ref().map(Version::to_string),
            max_head_age_s: self.max_head_age_s,
            halt: self.halt,
            unknown: self.unknown.clone(),
        };
        canonical::encode(&canonical::value_of(&file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> UtcTime {
        UtcTime::from_unix(1_800_000_000 + seconds)
    }

    fn rollout(stages: &[(u8, i64)]) -> Rollout {
        Rollout {
            start: at(0),
            stages: stages.iter().map(|&(percent, from)| Stage { percent, at: at(from) }).collect(),
        }
    }

    fn policy() -> ChannelPolicy {
        ChannelPolicy {
            version: Some(Version::new(1, 2, 3)),
            rollout: rollout(&[(1, 0), (10, 100), (100, 200)]),
            paused: true,
            yanked: [Version::new(1, 2, 1), Version::new(1, 2, 2)].into(),
            allow_downgrade_to: Some(Version::new(1, 1, 0)),
            max_head_age_s: Some(3600),
            ..ChannelPolicy::default()
        }
    }

    #[test]
    fn a_policy_has_the_published_form() {
        let expected = concat!(
            r#"{"allow_downgrade_to":"1.1.0","max_head_age":3600,"paused":true,"#,
            r#""rollout":{"stages":[{"at":"2027-01-15T08:00:00Z","percent":1},{"at":"2027-01-15T08:01:40Z","percent":10},"#,
            r#"{"at":"2027-01-15T08:03:20Z","percent":100}],"start":"2027-01-15T08:00:00Z"},"#,
            r#""schema":1,"version":"1.2.3","yanked":["1.2.1","1.2.2"]}"#
        );
        assert_eq!(String::from_utf8(policy().encode()).expect("text"), expected);
        assert_eq!(ChannelPolicy::parse(expected.as_bytes()), Ok(policy()));
    }

    #[test]
    fn what_belongs_to_halts_has_the_published_form() {
        let halt = Halt { failures_percent: 20, min_reports: 5, silence_s: Some(3_600) };
        let policy = ChannelPolicy {
            version: Some(Version::new(1, 2, 3)),
            since: Some(at(0)),
            paused: true,
            pause_reason: Some("2 of 5 nodes failed".to_owned()),
            resumed_at: Some(at(100)),
            halt: Some(halt),
            ..ChannelPolicy::default()
        };
        let expected = concat!(
            r#"{"halt":{"failures_percent":20,"min_reports":5,"silence_s":3600},"pause_reason":"2 of 5 nodes failed","#,
            r#""paused":true,"resumed_at":"2027-01-15T08:01:40Z","rollout":{"start":"1970-01-01T00:00:00Z"},"schema":1,"#,
            r#""since":"2027-01-15T08:00:00Z","version":"1.2.3","yanked":[]}"#
        );
        assert_eq!(String::from_utf8(policy.encode()).expect("text"), expected);
        assert_eq!(ChannelPolicy::parse(expected.as_bytes()), Ok(policy));
    }

    #[test]
    fn what_a_later_version_wrote_is_kept_by_whoever_signs_next() {
        let text =
            r#"{"future":{"a":[1]},"paused":false,"rollout":{"start":"1970-01-01T00:00:00Z"},"schema":1,"yanked":[]}"#;
        let policy = ChannelPolicy::parse(text.as_bytes()).expect("a policy");
        assert_eq!(String::from_utf8(policy.encode()).expect("text"), text);
    }

    #[test]
    fn a_threshold_or_a_reason_out_of_bounds_is_refused() {
        let zero = Halt { failures_percent: 0, min_reports: 5, silence_s: None };
        let bad = ChannelPolicy { halt: Some(zero), ..policy() };
        assert!(matches!(ChannelPolicy::parse(&bad.encode()), Err(PolicyError::Halt(_))));
        let bad = ChannelPolicy { pause_reason: Some("x".repeat(513)), ..policy() };
        assert_eq!(ChannelPolicy::parse(&bad.encode()), Err(PolicyError::Reason { found: 513 }));
    }

    #[test]
    fn what_a_policy_leaves_out_means_everybody_at_once() {
        let found = ChannelPolicy::parse(br#"{"schema":1,"version":"1.0.0","future":[1]}"#).expect("a policy");
        assert!(found.rollout.is_full_at(at(0)) && !found.paused && found.yanked.is_empty());
        assert_eq!(ChannelPolicy::parse(&ChannelPolicy::default().encode()), Ok(ChannelPolicy::default()));
    }

    #[test]
    fn a_policy_of_another_schema_is_refused() {
        assert_eq!(ChannelPolicy::parse(br#"{"schema":2,"rollout":"moved"}"#), Err(PolicyError::Schema(2)));
        for bad in
            ["{}", "[1]", "1", r#"{"schema":"1"}"#, r#"{"schema":1,"schema":1}"#, r#"{"schema":1,"paused":"no"}"#]
        {
            assert!(matches!(ChannelPolicy::parse(bad.as_bytes()), Err(PolicyError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn stages_that_shrink_or_go_back_in_time_are_refused() {
        for stages in [&[(10, 0), (5, 100)][..], &[(10, 100), (20, 0)], &[(101, 0)]] {
            let bad = ChannelPolicy { rollout: rollout(stages), ..policy() };
            assert!(matches!(ChannelPolicy::parse(&bad.encode()), Err(PolicyError::Stages { .. })), "{stages:?}");
        }
    }

    #[test]
    fn a_policy_is_bounded() {
        let yanked: BTreeSet<Version> =
            (0..=u64::try_from(MAX_YANKED).expect("small")).map(|patch| Version::new(1, 0, patch)).collect();
        let bad = ChannelPolicy { yanked, ..policy() };
        assert!(matches!(ChannelPolicy::parse(&bad.encode()), Err(PolicyError::TooMany { .. })));
        let bad = ChannelPolicy { rollout: rollout(&[(1, 0); MAX_ROLLOUT_STAGES + 1]), ..policy() };
        assert!(matches!(ChannelPolicy::parse(&bad.encode()), Err(PolicyError::TooMany { .. })));
        let padded = [policy().encode(), vec![b' '; 20_000]].concat();
        assert_eq!(ChannelPolicy::parse(&padded), Err(PolicyError::TooLarge { found: padded.len() }));
    }

    #[test]
    fn a_policy_that_would_be_too_large_may_not_be_published() {
        let long = |minor| format!("1.{minor}.0-{}", "x".repeat(100)).parse().expect("a version");
        let policy = ChannelPolicy { yanked: (0..200).map(long).collect(), ..policy() };
        let found = policy.encode().len();
        assert_eq!(policy.validate(), Err(PolicyError::TooLarge { found }));
        assert_eq!(ChannelPolicy::parse(&policy.encode()), Err(PolicyError::TooLarge { found }));
    }

    #[test]
    fn a_node_learns_when_its_turn_comes() {
        let staged = rollout(&[(1, 10), (50, 20)]);
        assert_eq!(staged.opens_at(99, at(10)), Opens::Now);
        assert_eq!(staged.opens_at(100, at(10)), Opens::At(at(20)));
        assert_eq!(staged.opens_at(0, at(0)), Opens::At(at(10)));
        assert_eq!(staged.opens_at(5000, at(30)), Opens::Never);
        assert_eq!(Rollout::full().opens_at(BUCKETS - 1, at(0)), Opens::Now);
        assert_eq!(rollout(&[]).opens_at(0, at(-1)), Opens::At(at(0)));
        assert_eq!(rollout(&[(100, -50)]).opens_at(0, at(-1)), Opens::At(at(0)));
    }

    #[test]
    fn the_bucket_of_a_node_never_changes() {
        assert_eq!(bucket(&Digest::of(b"artifact"), b"node"), 8713);
    }

    #[test]
    fn buckets_are_even() {
        let artifact = Digest::of(b"artifact");
        let mut tenths = [0_u32; 10];
        for node in 0..20_000_u32 {
            tenths[usize::from(bucket(&artifact, &node.to_be_bytes()) / 1000)] += 1;
        }
        // Standard deviation 42; six of them.
        assert!(tenths.iter().all(|count| (1750..2250).contains(count)), "{tenths:?}");
    }

    #[test]
    fn another_artifact_shuffles_the_nodes() {
        let first = |artifact: &[u8]| -> Vec<u32> {
            let artifact = Digest::of(artifact);
            (0..10_000_u32).filter(|node| bucket(&artifact, &node.to_be_bytes()) < 100).collect()
        };
        let (a, b) = (first(b"a"), first(b"b"));
        assert!(a.iter().filter(|node| b.contains(node)).count() < 10);
    }

    prop_compose! {
        fn any_rollout()(start in -100..100_i64, stages in prop::collection::vec((0..=100_u8, -100..100_i64), 0..6)) -> Rollout {
            let stages = stages.into_iter().map(|(percent, from)| Stage { percent, at: at(from) }).collect();
            Rollout { start: at(start), stages }
        }
    }

    proptest! {
        #[test]
        fn a_rollout_never_shrinks_as_time_passes(rollout in any_rollout(), bucket in 0..BUCKETS, mut times in prop::collection::vec(-200..200_i64, 2)) {
            times.sort_unstable();
            let (earlier, later) = (at(times[0]), at(times[1]));
            prop_assert!(rollout.percent_at(earlier) <= rollout.percent_at(later));
            match rollout.opens_at(bucket, earlier) {
                Opens::Now => prop_assert_eq!(rollout.opens_at(bucket, later), Opens::Now),
                Opens::At(then) => {
                    let expected = if then <= later { Opens::Now } else { Opens::At(then) };
                    prop_assert_eq!(rollout.opens_at(bucket, later), expected);
                }
                Opens::Never => prop_assert_eq!(rollout.opens_at(bucket, later), Opens::Never),
            }
        }

        #[test]
        fn the_turn_and_the_percentage_agree(rollout in any_rollout(), bucket in 0..BUCKETS, now in -200..200_i64) {
            let open = rollout.opens_at(bucket, at(now)) == Opens::Now;
            prop_assert_eq!(open, bucket < u16::from(rollout.percent_at(at(now))) * 100);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"\{"schema":1,"(paused|version|yanked|rollout)":[\[\]{}"0-9a-z:,]{0,20}\}"#) {
            let _ = ChannelPolicy::parse(&bytes);
            let _ = ChannelPolicy::parse(text.as_bytes());
        }
    }
}
