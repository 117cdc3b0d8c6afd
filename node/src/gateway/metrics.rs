//! `/metrics`: the node's numbers as `OpenMetrics` text.
//!
//! The runtime hands over plain numbers; only this file knows what they are called.

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Shared, off_thread, refusal};

/// A node's numbers at one moment. Byte counts are since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The version of the node's program.
    pub version: String,
    /// Milliseconds since the node started.
    pub uptime_ms: u64,
    /// Peers with a session.
    pub connected_peers: u64,
    /// What was moved.
    pub traffic: Traffic,
    /// Bytes that the store holds.
    pub bytes_stored: u64,
    /// The newest verified head.
    pub head_version: Option<u64>,
    /// Seconds since it was signed.
    pub head_age_seconds: Option<i64>,
    /// Seconds until it expires; negative once it has.
    pub head_expires_in_seconds: Option<i64>,
    /// Heads that were verified and taken.
    pub heads_accepted: u64,
    /// Heads that were provably wrong.
    pub heads_rejected: u64,
    /// Roles whose key is known to have signed two contradicting files.
    pub equivocations: u64,
    /// Subscriptions by state, in the words of `status --json`.
    pub subscriptions_by_state: Vec<(&'static str, u64)>,
    /// Installs that were committed.
    pub installs_committed: u64,
    /// Installs that were rolled back.
    pub installs_rolled_back: u64,
    /// The clock can be believed.
    pub clock_trusted: bool,
    /// The metadata is too old to install by.
    pub metadata_expired: bool,
    /// Releases whose signed entry is known for good.
    pub remembered_releases: u64,
    /// Releases that are refused now because they changed.
    pub altered_releases: u64,
    /// Alarms about changed releases since the start.
    pub alterations: u64,
    /// Peers that are refused.
    pub banned_peers: u64,
    /// Gossiped heads beyond a neighbour's rate.
    pub rate_limited_heads: u64,
    /// Metadata requests beyond a neighbour's rate.
    pub rate_limited_requests: u64,
}

/// Bytes moved since the node started, by what became of them. Pairs are received, then sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Block bytes that came from seeds.
    pub bytes_in_from_seeds: u64,
    /// Block bytes that came from peers.
    pub bytes_in_from_peers: u64,
    /// Block bytes sent.
    pub bytes_out: u64,
    /// Of those, bytes of pieces that left this node for the first time.
    pub bytes_out_first: u64,
    /// Block bytes received that were here already.
    pub bytes_duplicate: u64,
    /// Block bytes received that were wrong.
    pub bytes_rejected: u64,
    /// Block bytes received after they were cancelled.
    pub bytes_unsolicited: u64,
    /// Bytes of fetched artifacts that were here already.
    pub bytes_reused: u64,
    /// Bytes of control messages.
    pub bytes_control: [u64; 2],
    /// Bytes beside blocks: control, metadata, gossip, framing, encryption.
    pub bytes_overhead: [u64; 2],
    /// Bytes on TCP connections, everything included.
    pub bytes_wire: [u64; 2],
    /// The limits in force; none where there is no limit.
    pub limits_bytes_per_second: [Option<u64>; 2],
    /// What was moved of the releases that channels point to; a bounded number of them.
    pub releases: Vec<ReleaseTraffic>,
}

/// What was moved of one release, its artifacts for all platforms together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReleaseTraffic {
    /// Of which product.
    pub product: String,
    /// Which version.
    pub version: String,
    /// Bytes of its artifacts that this node knows.
    pub size_bytes: u64,
    /// Block bytes that came from seeds.
    pub bytes_from_seeds: u64,
    /// Block bytes that came from peers.
    pub bytes_from_peers: u64,
    /// Block bytes received that were here already.
    pub bytes_duplicate: u64,
    /// Block bytes received that were wrong.
    pub bytes_rejected: u64,
    /// Bytes of pieces that left this node for the first time.
    pub bytes_sent_first: u64,
    /// Block bytes sent that had left this node before.
    pub bytes_sent_repeat: u64,
}

struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: i64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn gauge_where_known(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: Option<i64>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.gauge(name, help, unit, value))
    }

    /// One counter or gauge with a series for each value of one label.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        label: &str,
        series: &[(&str, u64)],
    ) -> fmt::Result {
        let series: Vec<_> = series.iter().map(|(value, number)| ([(label, *value)], *number)).collect();
        self.series(name, help, unit, kind, &series)
    }

    /// One counter or gauge with a series for each set of labels.
    fn series<const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        series: &[([(&str, &str); LABELS], u64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, number) in series {
            let metric = family.encode_family(labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(*number).encode(metric)?,
                _ => ConstGauge::new(signed(*number)).encode(metric)?,
            }
        }
        Ok(())
    }
}

/// Gauges are signed; no count here comes near the limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Metrics {
    fn node(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.family(
            "build",
            "The node's program, always 1.",
            None,
            MetricType::Gauge,
            "version",
            &[(&self.version, 1)],
        )?;
        writer.gauge("uptime", "Time since the node started.", Some(&Unit::Seconds), signed(self.uptime_ms / 1000))?;
        writer.gauge("connected_peers", "Peers with a session.", None, signed(self.connected_peers))
    }

    fn transfer(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let traffic = &self.traffic;
        let bytes = Some(&Unit::Bytes);
        let counter = MetricType::Counter;
        let received = [("seeds", traffic.bytes_in_from_seeds), ("peers", traffic.bytes_in_from_peers)];
        writer.family("received", "Block bytes received, by who sent them.", bytes, counter, "source", &received)?;
        writer.counter("sent", "Block bytes sent.", bytes, traffic.bytes_out)?;
        let copies =
            [("first", traffic.bytes_out_first), ("repeat", traffic.bytes_out.saturating_sub(traffic.bytes_out_first))];
        let help = "Block bytes sent, by whether they had left this node before.";
        writer.family("sent_copies", help, bytes, counter, "copy", &copies)?;
        let wasted = [
            ("duplicate", traffic.bytes_duplicate),
            ("rejected", traffic.bytes_rejected),
            ("unsolicited", traffic.bytes_unsolicited),
        ];
        writer.family("wasted", "Block bytes received in vain.", bytes, counter, "reason", &wasted)?;
        let help = "Bytes of fetched artifacts that were here already.";
        writer.gauge("reused", help, bytes, signed(traffic.bytes_reused))?;
        for (name, help, [received, sent]) in [
            ("control", "Bytes of control messages.", traffic.bytes_control),
            ("overhead", "Bytes beside blocks: control, metadata, gossip, framing.", traffic.bytes_overhead),
            ("wire", "Bytes on TCP connections, everything included.", traffic.bytes_wire),
        ] {
            writer.family(name, help, bytes, counter, "direction", &[("in", received), ("out", sent)])?;
        }
        let [download, upload] = traffic.limits_bytes_per_second;
        let limits: Vec<_> = [("download", download), ("upload", upload)]
            .into_iter()
            .filter_map(|(direction, limit)| Some((direction, limit?)))
            .collect();
        let help = "The limit in force; a direction without one is left out.";
        writer.family("limit_bytes_per_second", help, None, MetricType::Gauge, "direction", &limits)?;
        writer.gauge("stored", "Bytes that the store holds.", bytes, signed(self.bytes_stored))
    }

    /// Only releases that channels point to: whoever scrapes for years must not keep them all.
    fn releases(&self, writer: &mut Writer<'_>) -> fmt::Result {
        type Counts = [(&'static str, fn(&ReleaseTraffic) -> u64); 2];
        let all = &self.traffic.releases;
        let sizes: Vec<_> = all
            .iter()
            .map(|row| ([("product", row.product.as_str()), ("version", row.version.as_str())], row.size_bytes))
            .collect();
        let help = "Bytes of a current release's artifacts.";
        writer.series("release_size", help, Some(&Unit::Bytes), MetricType::Gauge, &sizes)?;
        let families: [(&str, &str, &str, Counts); 3] = [
            (
                "release_received",
                "Block bytes of a current release received, by who sent them.",
                "source",
                [("seeds", |row| row.bytes_from_seeds), ("peers", |row| row.bytes_from_peers)],
            ),
            (
                "release_wasted",
                "Block bytes of a current release received in vain.",
                "reason",
                [("duplicate", |row| row.bytes_duplicate), ("rejected", |row| row.bytes_rejected)],
            ),
            (
                "release_sent",
                "Block bytes of a current release sent, by whether they had left this node before.",
                "copy",
                [("first", |row| row.bytes_sent_first), ("repeat", |row| row.bytes_sent_repeat)],
            ),
        ];
        for (name, help, label, values) in families {
            let series: Vec<_> = all
                .iter()
                .flat_map(|row| {
                    values.iter().map(move |(value, count)| {
                        let labels =
                            [("product", row.product.as_str()), ("version", row.version.as_str()), (label, *value)];
                        (labels, count(row))
                    })
                })
                .collect();
            writer.series(name, help, Some(&Unit::Bytes), MetricType::Counter, &series)?;
        }
        Ok(())
    }

    fn heads(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.gauge_where_known(
            "head_version",
            "Version of the newest verified head.",
            None,
            self.head_version.map(signed),
        )?;
        writer.gauge_where_known(
            "head_age",
            "Time since the newest verified head was signed.",
            Some(&Unit::Seconds),
            self.head_age_seconds,
        )?;
        writer.gauge_where_known(
            "head_expires_in",
            "Time until it expires; negative once it has.",
            Some(&Unit::Seconds),
            self.head_expires_in_seconds,
        )?;
        writer.gauge(
            "equivocations",
            "Roles whose key signed two contradicting files; nothing is installed while there are any.",
            None,
            signed(self.equivocations),
        )?;
        let heads = [("accepted", self.heads_accepted), ("rejected", self.heads_rejected)];
        writer.family("heads", "Heads received, by verdict.", None, MetricType::Counter, "verdict", &heads)
    }

    fn installs(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.family(
            "subscriptions",
            "Subscriptions, by state.",
            None,
            MetricType::Gauge,
            "state",
            &self.subscriptions_by_state,
        )?;
        let installs = [("committed", self.installs_committed), ("rolled_back", self.installs_rolled_back)];
        writer.family("installs", "Installs that ended, by outcome.", None, MetricType::Counter, "outcome", &installs)
    }
}

impl Metrics {
    fn trust(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.gauge("clock_trusted", "1 while the clock can be believed.", None, self.clock_trusted.into())?;
        writer.gauge(
            "metadata_expired",
            "1 while the metadata is too old to install by.",
            None,
            self.metadata_expired.into(),
        )?;
        writer.gauge(
            "remembered_releases",
            "Releases whose signed entry is known for good.",
            None,
            signed(self.remembered_releases),
        )?;
        writer.gauge(
            "altered_releases",
            "Releases that are refused because they changed after they were signed.",
            None,
            signed(self.altered_releases),
        )?;
        writer.counter("release_alarms", "Alarms about releases that changed.", None, self.alterations)?;
        writer.gauge("banned_peers", "Peers that lied and are refused.", None, signed(self.banned_peers))?;
        let limited = [("heads", self.rate_limited_heads), ("requests", self.rate_limited_requests)];
        let help = "What neighbours sent beyond their rate.";
        writer.family("rate_limited", help, None, MetricType::Counter, "what", &limited)
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.node(&mut writer)?;
        self.transfer(&mut writer)?;
        self.releases(&mut writer)?;
        self.heads(&mut writer)?;
        self.installs(&mut writer)?;
        self.trust(&mut writer)
    }
}

/// The numbers as `OpenMetrics` text.
pub fn text(metrics: Metrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("updraft");
    registry.register_collector(Box::new(metrics));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

pub(super) async fn show(State(repository): State<Shared>) -> Response {
    let metrics = match off_thread(move || repository.metrics()).await {
        Ok(metrics) => metrics,
        Err(response) => return *response,
    };
    match text(metrics) {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the node failed to answer; see its log")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_name_unit_and_labels() {
        let text = text(Metrics {
            version: "0.1.0".to_owned(),
            uptime_ms: 61_500,
            connected_peers: 3,
            traffic: Traffic {
                bytes_in_from_seeds: 10,
                bytes_in_from_peers: 90,
                bytes_out: 120,
                bytes_out_first: 100,
                bytes_unsolicited: 3,
                bytes_overhead: [4, 5],
                limits_bytes_per_second: [None, Some(1_048_576)],
                releases: vec![ReleaseTraffic {
                    product: "editor".to_owned(),
                    version: "1.1.0".to_owned(),
                    size_bytes: 100,
                    bytes_sent_first: 100,
                    bytes_sent_repeat: 20,
                    ..ReleaseTraffic::default()
                }],
                ..Traffic::default()
            },
            head_version: Some(7),
            head_expires_in_seconds: Some(-5),
            subscriptions_by_state: vec![("idle", 2), ("fetching", 1)],
            remembered_releases: 12,
            altered_releases: 1,
            alterations: 2,
            banned_peers: 3,
            rate_limited_heads: 4,
            ..Metrics::default()
        })
        .expect("writes");
        for line in [
            "updraft_build{version=\"0.1.0\"} 1",
            "updraft_uptime_seconds 61",
            "updraft_connected_peers 3",
            "updraft_received_bytes_total{source=\"seeds\"} 10",
            "updraft_received_bytes_total{source=\"peers\"} 90",
            "updraft_sent_bytes_total 120",
            "updraft_sent_copies_bytes_total{copy=\"first\"} 100",
            "updraft_sent_copies_bytes_total{copy=\"repeat\"} 20",
            "updraft_wasted_bytes_total{reason=\"unsolicited\"} 3",
            "updraft_overhead_bytes_total{direction=\"out\"} 5",
            "updraft_limit_bytes_per_second{direction=\"upload\"} 1048576",
            "updraft_release_size_bytes{product=\"editor\",version=\"1.1.0\"} 100",
            "updraft_release_sent_bytes_total{product=\"editor\",version=\"1.1.0\",copy=\"repeat\"} 20",
            "updraft_release_received_bytes_total{product=\"editor\",version=\"1.1.0\",source=\"peers\"} 0",
            "updraft_wasted_bytes_total{reason=\"rejected\"} 0",
            "updraft_head_version 7",
            "updraft_head_expires_in_seconds -5",
            "updraft_subscriptions{state=\"fetching\"} 1",
            "updraft_installs_total{outcome=\"rolled_back\"} 0",
            "updraft_clock_trusted 0",
            "updraft_metadata_expired 0",
            "updraft_remembered_releases 12",
            "updraft_altered_releases 1",
            "updraft_release_alarms_total 2",
            "updraft_banned_peers 3",
            "updraft_rate_limited_total{what=\"heads\"} 4",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("head_age"), "what is not known is left out:\n{text}");
        assert!(!text.contains("direction=\"download\""), "where there is no limit there is no number:\n{text}");
    }
}
