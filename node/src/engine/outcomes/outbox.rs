//! What a node has to tell a seed of its installs, until the seed has it.
//!
//! Nothing waits for it: an install goes on whether or not anybody hears of it. Only seeds that the ticket
//! names are told. What is not acknowledged is sent again; what was acknowledged is forgotten.

use std::collections::{BTreeMap, VecDeque};

use updraft_protocol::limits::MAX_OUTCOMES;
use updraft_protocol::outcome::{Outcome, Report};
use updraft_protocol::time::UtcTime;

/// Milliseconds after which an unacknowledged report is sent again over the same session.
const AGAIN_MS: u64 = 30_000;

/// Reports on their way.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Oldest first.
    entries: VecDeque<Report>,
    last: u64,
    sent_ms: BTreeMap<u64, u64>,
}

impl Outbox {
    /// Takes up what an earlier run left. `last` is the highest number that it gave: what was acknowledged is
    /// not among `reports`, and must not be outdone by a machine whose clock is slow after its start.
    pub(crate) fn restore(&mut self, mut reports: Vec<Report>, last: u64) {
        self.last = self.last.max(last);
        reports.sort_by_key(|report| report.number);
        for report in reports.into_iter().rev() {
            if self.entries.len() < MAX_OUTCOMES {
                self.last = self.last.max(report.number);
                self.entries.push_front(report);
            }
        }
    }

    /// The number of the next report. It also grows where the database was lost, so that a seed does not
    /// take a new report for an old one.
    pub(crate) fn next_number(&mut self, now: UtcTime) -> u64 {
        let by_clock = u64::try_from(now.unix()).unwrap_or(0).saturating_mul(1_000);
        self.last = by_clock.max(self.last.saturating_add(1));
        self.last
    }

    /// Adds a report; returns the numbers of those that go for it. An end says more than the beginning
    /// that it belongs to, and news more than what is old.
    pub(crate) fn add(&mut self, report: Report) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.entries.len() >= MAX_OUTCOMES {
            let least = self.entries.iter().position(|entry| entry.outcome == Outcome::Began).unwrap_or(0);
            gone.extend(self.entries.remove(least).map(|report| report.number));
        }
        self.entries.push_back(report);
        for number in &gone {
            self.sent_ms.remove(number);
        }
        gone
    }

    /// What to send to a seed now.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<Report> {
        let sent = &self.sent_ms;
        let is_due = |report: &&Report| {
            sent.get(&report.number).is_none_or(|sent_ms| now_ms.saturating_sub(*sent_ms) >= AGAIN_MS)
        };
        let due: Vec<Report> = self.entries.iter().filter(is_due).cloned().collect();
        self.sent_ms.extend(due.iter().map(|report| (report.number, now_ms)));
        due
    }

    /// Everything is sent again with the next session: what went over the last one may be lost.
    pub(crate) fn session_ended(&mut self) {
        self.sent_ms.clear();
    }

    /// The seed has these; returns those that were here.
    pub(crate) fn acknowledged(&mut self, numbers: &[u64]) -> Vec<u64> {
        let before: Vec<u64> = self.entries.iter().map(|report| report.number).collect();
        self.entries.retain(|report| !numbers.contains(&report.number));
        for number in numbers {
            self.sent_ms.remove(number);
        }
        before.into_iter().filter(|number| numbers.contains(number)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use updraft_protocol::digest::Digest;

    fn report(number: u64, outcome: Outcome) -> Report {
        Report {
            number,
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: semver::Version::new(1, 0, 0),
            artifact: Digest::ZERO,
            outcome,
            at: UtcTime::from_unix(0),
            text: String::new(),
            signature: Vec::new(),
        }
    }

    fn numbers(reports: &[Report]) -> Vec<u64> {
        reports.iter().map(|report| report.number).collect()
    }

    #[test]
    fn a_report_is_sent_again_until_it_is_acknowledged() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.add(report(1, Outcome::Installed)), Vec::<u64>::new());
        assert_eq!(numbers(&outbox.due(0)), [1]);
        assert_eq!(numbers(&outbox.due(AGAIN_MS - 1)), Vec::<u64>::new());
        assert_eq!(numbers(&outbox.due(AGAIN_MS)), [1]);
        outbox.session_ended();
        assert_eq!(numbers(&outbox.due(AGAIN_MS + 1)), [1], "at once over a new session");
        assert_eq!(outbox.acknowledged(&[1, 9]), [1]);
        assert!(outbox.is_empty() && outbox.due(u64::MAX).is_empty());
    }

    #[test]
    fn a_full_outbox_loses_beginnings_before_ends() {
        let mut outbox = Outbox::default();
        let most = u64::try_from(MAX_OUTCOMES).expect("small");
        for number in 1..=most {
            let outcome = if number == 5 { Outcome::Began } else { Outcome::Installed };
            assert!(outbox.add(report(number, outcome)).is_empty());
        }
        assert_eq!(outbox.add(report(most + 1, Outcome::Failed)), [5]);
        assert_eq!(outbox.add(report(most + 2, Outcome::Failed)), [1]);
    }

    #[test]
    fn numbers_grow_across_a_restart_and_a_lost_database() {
        let now = UtcTime::from_unix(1_800_000_000);
        let mut outbox = Outbox::default();
        let first = outbox.next_number(now);
        assert!(outbox.next_number(now) > first);
        assert!(Outbox::default().next_number(now.plus_seconds(1)) > first + 1);
        let mut restored = Outbox::default();
        restored.restore(vec![report(first + 100, Outcome::Failed), report(first, Outcome::Began)], 0);
        assert_eq!(restored.next_number(UtcTime::from_unix(0)), first + 101, "the clock went back");
        assert_eq!(numbers(&restored.due(0)), [first, first + 100]);
    }

    #[test]
    fn what_was_acknowledged_is_outdone_whatever_the_clock_says() {
        let mut outbox = Outbox::default();
        let acknowledged = outbox.next_number(UtcTime::from_unix(1_800_000_000));
        let mut restored = Outbox::default();
        restored.restore(Vec::new(), acknowledged);
        assert!(restored.next_number(UtcTime::from_unix(0)) > acknowledged);
    }

    proptest! {
        #[test]
        fn an_outbox_is_bounded(ends in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut outbox = Outbox::default();
            for (number, end) in (1..).zip(ends) {
                let _gone = outbox.add(report(number, if end { Outcome::Failed } else { Outcome::Began }));
                prop_assert!(outbox.entries.len() <= MAX_OUTCOMES && outbox.sent_ms.len() <= MAX_OUTCOMES);
            }
        }
    }
}
