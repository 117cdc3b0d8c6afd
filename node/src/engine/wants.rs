//! Metadata files that the node needs and whom it asks for them.
//!
//! Every peer is a mirror: a "not found" or a wrong file from one proves nothing about the others,
//! so each want goes from peer to peer, with a pause after a full round.

use std::collections::{BTreeMap, BTreeSet};

use updraft_protocol::meta::MetaFile;
use updraft_protocol::peer::PeerId;

/// Milliseconds after which another peer is asked as well.
const ANSWER_MS: u64 = 5_000;
/// Milliseconds of pause once every peer was asked in vain.
const ROUND_MS: u64 = 2_000;
/// Files asked for at once. Bounds memory and the load on neighbours.
const MAX_ASKED: usize = 16;
/// Files wanted at once. Bounds what signed metadata of many roles can queue here.
const MAX_WANTS: usize = 4_096;
/// Peers remembered as having said that they have a file. Bounds what a crowd of boasters costs.
const MAX_HINTS: usize = 64;

#[derive(Debug, Default)]
struct Want {
    tried: BTreeSet<PeerId>,
    asked: Option<(u64, PeerId, u64)>,
    pause_until_ms: u64,
    /// Who said that it has the file: asked first, and in turn, so that one that boasts again and again
    /// keeps nobody else from being asked.
    hints: BTreeSet<PeerId>,
    last: Option<PeerId>,
}

impl Want {
    /// Whom to ask next.
    fn next(&self, peers: &[PeerId]) -> Option<PeerId> {
        let hinted = || self.hints.iter().filter(|hint| peers.contains(hint) && !self.tried.contains(*hint));
        hinted()
            .find(|hint| Some(*hint) > self.last.as_ref())
            .or_else(|| hinted().next())
            .or_else(|| peers.iter().find(|peer| !self.tried.contains(*peer)))
            .cloned()
    }
}

/// The wanted files and the requests for them.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    wants: BTreeMap<MetaFile, Want>,
    next_id: u64,
}

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) request_id: u64,
    pub(crate) peer: PeerId,
    pub(crate) file: MetaFile,
}

impl Wants {
    /// Adds a file; `hint` is asked first.
    pub(crate) fn add(&mut self, file: MetaFile, hint: Option<&PeerId>) {
        if self.wants.len() < MAX_WANTS || self.wants.contains_key(&file) {
            let want = self.wants.entry(file).or_default();
            if let Some(hint) = hint
                && (want.hints.len() < MAX_HINTS || want.hints.contains(hint))
            {
                want.hints.insert(hint.clone());
                want.tried.remove(hint);
                want.pause_until_ms = 0;
            }
        }
    }

    /// The file is here, or no longer needed.
    pub(crate) fn remove(&mut self, file: &MetaFile) {
        self.wants.remove(file);
    }

    /// `peer` does not have the file, and nobody is obliged to: it is no longer wanted, unless somebody
    /// else said that it has it.
    pub(crate) fn give_up(&mut self, file: &MetaFile, peer: &PeerId) {
        let Some(want) = self.wants.get_mut(file) else { return };
        want.hints.remove(peer);
        if want.hints.iter().all(|hint| want.tried.contains(hint)) {
            self.wants.remove(file);
        }
    }

    /// Keeps only the files that `keep` says are still needed.
    pub(crate) fn retain(&mut self, keep: impl Fn(&MetaFile) -> bool) {
        self.wants.retain(|file, _| keep(file));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// The file that request `request_id` to `peer` was for, if it is still wanted.
    pub(crate) fn answered(&mut self, request_id: u64, peer: &PeerId) -> Option<MetaFile> {
        self.wants.iter_mut().find_map(|(file, want)| match &want.asked {
            Some((id, asked, _)) if *id == request_id && asked == peer => {
                want.asked = None;
                Some(file.clone())
            }
            _ => None,
        })
    }

    /// A peer is gone: what it was asked for is asked elsewhere.
    pub(crate) fn disconnected(&mut self, peer: &PeerId) {
        for want in self.wants.values_mut() {
            want.tried.remove(peer);
            want.hints.remove(peer);
            if want.asked.as_ref().is_some_and(|(_, asked, _)| asked == peer) {
                want.asked = None;
            }
        }
    }

    /// What to ask now, of the connected `peers`.
    pub(crate) fn asks(&mut self, peers: &[PeerId], now_ms: u64) -> Vec<Ask> {
        let mut open = self.wants.values().filter(|want| want.asked.is_some()).count();
        let mut asks = Vec::new();
        for (file, want) in &mut self.wants {
            if want.asked.as_ref().is_some_and(|(_, _, since_ms)| now_ms.saturating_sub(*since_ms) > ANSWER_MS) {
                want.asked = None;
                open -= 1;
            }
            if want.asked.is_some() || now_ms < want.pause_until_ms || open >= MAX_ASKED {
                continue;
            }
            let Some(peer) = want.next(peers) else {
                if !want.tried.is_empty() {
                    want.tried.clear();
                    want.pause_until_ms = now_ms + ROUND_MS;
                }
                continue;
            };
            self.next_id += 1;
            want.tried.insert(peer.clone());
            want.last = Some(peer.clone());
            want.asked = Some((self.next_id, peer.clone(), now_ms));
            open += 1;
            asks.push(Ask { request_id: self.next_id, peer, file: file.clone() });
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: u8) -> Vec<PeerId> {
        (0..count).map(|n| PeerId::from_bytes(&[n, n]).expect("in bounds")).collect()
    }

    #[test]
    fn a_want_goes_from_peer_to_peer_and_pauses_after_a_round() {
        let peers = peers(2);
        let mut wants = Wants::default();
        wants.add(MetaFile::Head, Some(&peers[1]));
        let first = wants.asks(&peers, 0);
        assert_eq!(first[0].peer, peers[1]);
        assert!(wants.asks(&peers, 10).is_empty(), "one request at a time");
        assert_eq!(wants.answered(first[0].request_id, &peers[1]), Some(MetaFile::Head));
        let second = wants.asks(&peers, 20);
        assert_eq!(second[0].peer, peers[0]);
        wants.answered(second[0].request_id, &peers[0]);
        assert!(wants.asks(&peers, 30).is_empty());
        assert!(wants.asks(&peers, 100).is_empty(), "pausing");
        assert_eq!(wants.asks(&peers, 30 + ROUND_MS).len(), 1);
    }

    #[test]
    fn who_boasts_again_and_again_keeps_nobody_else_from_being_asked() {
        let peers = peers(3);
        let mut wants = Wants::default();
        wants.add(MetaFile::Head, Some(&peers[1]));
        wants.add(MetaFile::Head, Some(&peers[2]));
        let first = wants.asks(&peers, 0);
        assert_eq!(first[0].peer, peers[1]);
        assert_eq!(wants.answered(first[0].request_id, &peers[1]), Some(MetaFile::Head));
        wants.give_up(&MetaFile::Head, &peers[1]);
        wants.add(MetaFile::Head, Some(&peers[1]));
        let second = wants.asks(&peers, 10);
        assert_eq!(second[0].peer, peers[2]);
        assert_eq!(wants.answered(second[0].request_id, &peers[2]), Some(MetaFile::Head));
        wants.give_up(&MetaFile::Head, &peers[2]);
        wants.give_up(&MetaFile::Head, &peers[1]);
        assert!(wants.is_empty(), "nobody has it after all");
    }

    #[test]
    fn a_silent_peer_is_given_up_after_the_deadline() {
        let peers = peers(2);
        let mut wants = Wants::default();
        wants.add(MetaFile::Head, None);
        assert_eq!(wants.asks(&peers, 0)[0].peer, peers[0]);
        assert_eq!(wants.asks(&peers, ANSWER_MS + 1)[0].peer, peers[1]);
    }
}
