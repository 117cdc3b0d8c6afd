//! What an engine does about its limits: looks at the hours once a second, tells the scheduler which
//! caps hold and which neighbours they do not hold for, and tells people when that changes.

use core::net::IpAddr;
use std::collections::BTreeSet;

use updraft_protocol::peer::PeerId;
use updraft_protocol::time::UtcTime;

use super::lan::{MAX_OWN, ip_of, is_lan, is_near};
use super::{InForce, Limit, Limits, rate_text};
use crate::engine::Engine;
use crate::engine::effect::EventKind;
use crate::engine::input::Now;

/// The limits of an engine and what they come to now.
#[derive(Debug)]
pub(crate) struct Applied {
    limits: Limits,
    in_force: InForce,
    looked_at: Option<UtcTime>,
    /// Where this node listens: what is next to it is local.
    own: BTreeSet<IpAddr>,
}

impl Applied {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, in_force: InForce::default(), looked_at: None, own: BTreeSet::new() }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// This node accepts connections at `address`.
    pub(crate) fn listening(&mut self, address: &str) {
        if let Some(ip) = ip_of(address).filter(|_| self.own.len() < MAX_OWN) {
            self.own.insert(ip);
        }
    }

    /// Whether caps do not hold for a session with the remote end at `address`.
    pub(crate) fn exempts(&self, address: &str) -> bool {
        self.limits.lan_exempt && is_lan(address, &self.own)
    }

    /// Whether the remote end at `address` is at the site of this node.
    fn is_near(&self, address: &str) -> bool {
        is_near(address, &self.own)
    }

    /// Looks at the hours. Returns what held before, where it is another now and something held.
    fn look(&mut self, now: UtcTime) -> Option<InForce> {
        // The clock may have been set back, or the answer has run out.
        let holds = |limit: &Limit| limit.until.is_none_or(|until| now < until);
        if self.looked_at.is_some_and(|looked_at| looked_at <= now)
            && holds(&self.in_force.upload)
            && holds(&self.in_force.download)
        {
            return None;
        }
        let first = self.looked_at.is_none();
        self.looked_at = Some(now);
        let before = std::mem::replace(&mut self.in_force, self.limits.in_force(now));
        (!first && before != self.in_force).then_some(before)
    }
}

/// `upload 1MiB/s (window 08:00-18:00 mon-fri) until 2026-11-23T17:00:00Z`.
fn sentence(what: &str, limit: &Limit) -> String {
    let rate = match limit.bytes_per_second {
        None => "no longer limited".to_owned(),
        Some(0) => "paused".to_owned(),
        rate => format!("limited to {}", rate_text(rate)),
    };
    let until = limit.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{what} {rate} ({}){until}", limit.why)
}

impl Engine {
    /// Brings caps and exemptions in line with the hours. Called with every review.
    pub(in crate::engine) fn apply_limits(&mut self, now: Now) {
        if let Some(before) = self.limits.look(now.wall) {
            let after = self.limits.in_force();
            let ways =
                [("uploads are", &before.upload, &after.upload), ("downloads are", &before.download, &after.download)];
            let changed =
                ways.into_iter().filter(|(_, before, after)| before.bytes_per_second != after.bytes_per_second);
            let texts: Vec<String> = changed.map(|(what, _, after)| sentence(what, after)).collect();
            for text in texts {
                self.tell(EventKind::LimitChanged, None, text);
            }
        }
        let in_force = self.limits.in_force();
        self.fetch.set_caps(in_force.upload.bytes_per_second, in_force.download.bytes_per_second);
        for (peer, session) in self.peers.sessions() {
            self.fetch.set_lan(peer, self.limits.exempts(&session.address));
            self.fetch.set_near(peer, self.limits.is_near(&session.address));
        }
    }

    /// A session is up: whether caps hold for it, and whether it is near, is known before the first block is
    /// asked for.
    pub(in crate::engine) fn place(&mut self, peer: &PeerId) {
        if let Some(session) = self.peers.sessions().get(peer) {
            self.fetch.set_lan(peer, self.limits.exempts(&session.address));
            self.fetch.set_near(peer, self.limits.is_near(&session.address));
        }
    }

    /// Why nothing is downloaded, where it is the operator who wants it so.
    pub(in crate::engine) fn download_pause(&self) -> Option<String> {
        let limit = &self.limits.in_force().download;
        let somebody_may = || self.peers.sessions().values().any(|session| self.limits.exempts(&session.address));
        (limit.bytes_per_second == Some(0) && !somebody_may()).then(|| sentence("downloads are", limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::{Caps, Days, Window};

    fn time(text: &str) -> UtcTime {
        text.parse().expect("a time")
    }

    fn at_noon() -> Limits {
        let [from, to] = ["12:00", "13:00"].map(|text| text.parse().expect("a time"));
        let caps = Caps { upload_bytes_per_second: Some(0), download_bytes_per_second: None };
        Limits { windows: vec![Window::new(Days::DAILY, from, to, caps).expect("valid")], ..Limits::default() }
    }

    #[test]
    fn a_change_is_seen_once_and_a_start_is_no_change() {
        let mut applied = Applied::new(at_noon());
        let seen = [
            "2026-11-22T12:30:00Z",
            "2026-11-22T12:59:59Z",
            "2026-11-22T13:00:00Z",
            "2026-11-22T13:00:01Z",
            // The clock was set back.
            "2026-11-22T12:00:00Z",
        ]
        .map(|now| applied.look(time(now)).is_some());
        assert_eq!(seen, [false, false, true, false, true]);
        assert_eq!(applied.in_force().upload.bytes_per_second, Some(0));
    }

    #[test]
    fn local_peers_are_exempt_only_by_choice() {
        let mut applied = Applied::new(Limits::default());
        assert!(!applied.exempts("/ip4/192.168.0.7/tcp/1"));
        applied.limits.lan_exempt = true;
        assert!(applied.exempts("/ip4/192.168.0.7/tcp/1"));
        assert!(!applied.exempts("/ip4/198.51.100.7/tcp/1"));
        applied.listening("/ip4/198.51.100.1/tcp/4880");
        assert!(applied.exempts("/ip4/198.51.100.7/tcp/1"));
    }

    #[test]
    fn people_are_told_in_one_sentence() {
        let limit = at_noon().in_force(time("2026-11-22T12:30:00Z")).upload;
        assert_eq!(
            sentence("uploads are", &limit),
            "uploads are paused (window 12:00-13:00 daily) until 2026-11-22T13:00:00Z"
        );
    }
}
