//! What a seed does before its first signature: it hears what its peers hold.
//!
//! A seed that was restored from a backup does not know what it signed since. If it signed on from
//! there, two different heads of one version would exist, which is what a stolen key looks like. So it
//! waits, for a bounded time, until the peers it knew have spoken, and takes over the newest head among
//! them first. That head verifies under the seed's own root like anybody's: peers can delay the seed by
//! a few seconds and no more.

use std::collections::BTreeSet;

use updraft_protocol::peer::PeerId;

use super::peers::Peers;

/// Peers whose word is enough: heads spread to all, and so many do not all lag behind.
const ENOUGH: usize = 8;

/// What the seed waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// Nothing: it may sign.
    Done,
    /// The peers it knew when it started.
    Waiting(Waiting),
}

/// A seed that has not heard enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    known: BTreeSet<PeerId>,
    heard: BTreeSet<PeerId>,
    failed: BTreeSet<PeerId>,
    deadline_ms: u64,
    started_at: Versions,
    claimed: Versions,
}

/// How far somebody's metadata reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Versions {
    pub(crate) root: u64,
    pub(crate) timestamp: u64,
}

impl Versions {
    fn exceed(self, other: Self) -> bool {
        self.root > other.root || self.timestamp > other.timestamp
    }
}

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nobody holds anything newer.
    Current,
    /// A newer head was taken over.
    Adopted,
    /// Somebody claims a newer one, and nobody delivered it in time.
    Withheld(Versions),
    /// None of the known peers could be reached in time.
    Alone,
}

impl Adoption {
    /// A seed that starts at `now_ms` with `own` metadata and knew these peers; `wait_ms` is the longest
    /// it waits for them.
    pub(crate) fn start<'a>(known: impl Iterator<Item = &'a PeerId>, own: Versions, wait_ms: u64, now_ms: u64) -> Self {
        let known: BTreeSet<PeerId> = known.cloned().collect();
        if known.is_empty() || wait_ms == 0 {
            return Self::Done;
        }
        Self::Waiting(Waiting {
            known,
            heard: BTreeSet::new(),
            failed: BTreeSet::new(),
            deadline_ms: now_ms.saturating_add(wait_ms),
            started_at: own,
            claimed: Versions::default(),
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// What it waits for, for people; `None` once it may sign.
    pub(crate) fn reason(&self, own: Versions) -> Option<String> {
        let Self::Waiting(waiting) = self else { return None };
        if waiting.claimed.exceed(own) {
            let version = waiting.claimed.timestamp.max(own.timestamp);
            return Some(format!("taking over head {version} from the peers before signing the next"));
        }
        let (heard, known) = (waiting.heard.intersection(&waiting.known).count(), waiting.known.len());
        Some(format!("hearing from the peers before signing: {heard} of {known} known ones have answered"))
    }

    /// Looks again. `own` is what is whole and in force here. Says once how the waiting ended.
    pub(crate) fn poll(&mut self, peers: &Peers, own: Versions, now_ms: u64) -> Option<Ended> {
        let Self::Waiting(waiting) = self else { return None };
        let ended = waiting.poll(peers, own, now_ms)?;
        *self = Self::Done;
        Some(ended)
    }

    /// Peers that claim something newer than `own`.
    pub(crate) fn claimants(&self, peers: &Peers, own: Versions) -> Vec<(PeerId, Versions)> {
        if self.is_done() { Vec::new() } else { claims(peers).filter(|(_, versions)| versions.exceed(own)).collect() }
    }
}

fn claims(peers: &Peers) -> impl Iterator<Item = (PeerId, Versions)> + '_ {
    peers.sessions().iter().filter_map(|(peer, session)| {
        let hello = session.hello.as_ref()?;
        Some((peer.clone(), Versions { root: hello.root_version, timestamp: hello.timestamp_version }))
    })
}

impl Waiting {
    fn poll(&mut self, peers: &Peers, own: Versions, now_ms: u64) -> Option<Ended> {
        self.claimed = Versions::default();
        for (peer, versions) in claims(peers) {
            self.heard.insert(peer);
            self.claimed.root = self.claimed.root.max(versions.root);
            self.claimed.timestamp = self.claimed.timestamp.max(versions.timestamp);
        }
        let unreachable: Vec<PeerId> = self.known.iter().filter(|peer| peers.has_failed(peer)).cloned().collect();
        self.failed.extend(unreachable);
        let adopted = own.exceed(self.started_at);
        if self.claimed.exceed(own) {
            return (now_ms >= self.deadline_ms).then_some(Ended::Withheld(self.claimed));
        }
        // With nobody reached the network may not be up yet: only then the whole time passes.
        let all = self.known.iter().all(|peer| self.heard.contains(peer) || self.failed.contains(peer));
        let enough = !self.heard.is_empty() && (all || self.heard.len() >= ENOUGH);
        match (enough || now_ms >= self.deadline_ms, adopted, self.heard.is_empty()) {
            (false, ..) => None,
            (true, true, _) => Some(Ended::Adopted),
            (true, false, true) => Some(Ended::Alone),
            (true, false, false) => Some(Ended::Current),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;
    use updraft_protocol::digest::Digest;
    use updraft_protocol::transfer::Hello;

    const WAIT_MS: u64 = 10_000;
    const OWN: Versions = Versions { root: 1, timestamp: 5 };

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes(&[n; 8]).expect("in bounds")
    }

    fn peers() -> Peers {
        Peers::new(peer(0), Digest::of(b"repository"), SmallRng::seed_from_u64(1))
    }

    fn says(peers: &mut Peers, n: u8, timestamp_version: u64) {
        peers.connected(&peer(n), "/ip4/192.0.2.1/tcp/1".to_owned(), true, 0);
        let repository = Digest::of(b"repository").as_bytes().to_vec();
        let hello = Hello { repository, root_version: 1, timestamp_version, ..Hello::default() };
        peers.hello(&peer(n), hello).expect("the right repository");
    }

    fn waiting(known: &[u8]) -> (Adoption, Peers) {
        let known: Vec<PeerId> = known.iter().map(|n| peer(*n)).collect();
        let mut peers = peers();
        for peer in &known {
            peers.discovered(peer, &["/ip4/192.0.2.1/tcp/1".to_owned()]);
        }
        (Adoption::start(known.iter(), OWN, WAIT_MS, 0), peers)
    }

    #[test]
    fn a_seed_that_knows_nobody_signs_at_once() {
        assert!(waiting(&[]).0.is_done());
        assert!(Adoption::start([peer(1)].iter(), OWN, 0, 0).is_done());
    }

    #[test]
    fn it_waits_until_everybody_answered_or_could_not_be_reached() {
        let (mut adoption, mut peers) = waiting(&[1, 2]);
        assert_eq!(adoption.poll(&peers, OWN, 100), None);
        says(&mut peers, 1, 5);
        assert_eq!(adoption.poll(&peers, OWN, 200), None);
        assert!(adoption.reason(OWN).is_some_and(|reason| reason.contains("1 of 2")), "{adoption:?}");
        peers.dial_failed(Some(&peer(2)), &[], 300);
        assert_eq!(adoption.poll(&peers, OWN, 400), Some(Ended::Current));
        assert!(adoption.is_done());
    }

    #[test]
    fn it_waits_for_the_newer_head_to_be_whole() {
        let (mut adoption, mut peers) = waiting(&[1]);
        says(&mut peers, 1, 7);
        assert_eq!(adoption.poll(&peers, OWN, 100), None);
        assert_eq!(adoption.claimants(&peers, OWN).len(), 1);
        assert!(adoption.reason(OWN).is_some_and(|reason| reason.contains("head 7")));
        let whole = Versions { timestamp: 7, ..OWN };
        assert_eq!(adoption.poll(&peers, whole, 200), Some(Ended::Adopted));
    }

    #[test]
    fn a_liar_delays_it_until_the_deadline() {
        let (mut adoption, mut peers) = waiting(&[1]);
        says(&mut peers, 1, u64::MAX);
        assert_eq!(adoption.poll(&peers, OWN, WAIT_MS - 1), None);
        let claimed = Versions { root: 1, timestamp: u64::MAX };
        assert_eq!(adoption.poll(&peers, OWN, WAIT_MS), Some(Ended::Withheld(claimed)));
    }

    #[test]
    fn with_nobody_in_reach_the_whole_time_passes() {
        let (mut adoption, mut peers) = waiting(&[1]);
        peers.dial_failed(Some(&peer(1)), &[], 10);
        assert_eq!(adoption.poll(&peers, OWN, WAIT_MS - 1), None);
        assert_eq!(adoption.poll(&peers, OWN, WAIT_MS), Some(Ended::Alone));
    }

    #[test]
    fn eight_answers_are_enough() {
        let known: Vec<u8> = (1..=30).collect();
        let (mut adoption, mut peers) = waiting(&known);
        for n in 1..=8 {
            says(&mut peers, n, 5);
        }
        assert_eq!(adoption.poll(&peers, OWN, 50), Some(Ended::Current));
    }
}
