//! The publisher's side of an offer: it is made to every node that says it is the seed, again and
//! again, until the set in force shows that it was published or that something else was.
//!
//! A node that claims to be the seed may be anybody. What it answers decides when to ask again and
//! what people are told; that the release is out is believed of the verified set alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::MetaResponse;
use updraft_protocol::offer::{Offer, OfferAnswer, OfferStage};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;
use updraft_protocol::tuf::TargetInfo;

use super::rule;
use crate::engine::catalog::CatalogView;

/// Milliseconds between two askings.
const POLL_MS: u64 = 1_000;
/// Milliseconds after which to ask again where there was no answer.
const RETRY_MS: u64 = 2_000;
/// Longest pause that a seed may ask for.
const MAX_RETRY_MS: u64 = 10_000;
/// An asking without any answer is over after this.
const ANSWER_MS: u64 = 20_000;
/// Nodes that an offer is made to at once. Bounds what liars can make this node upload.
const MAX_SEEDS: usize = 8;

/// What is offered.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The offer.
    pub offer: Offer,
    /// The role: the exact bytes that the offer describes.
    pub file: Vec<u8>,
    /// The release that is new in it.
    pub release: Option<Arc<Release>>,
}

/// Where the offer stands, as far as this node can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No seed has taken it yet.
    Waiting {
        /// What was wrong with the last answer.
        trouble: Option<String>,
    },
    /// A seed is working on it.
    Taken {
        /// What it does.
        stage: OfferStage,
        /// Bytes of the artifact that it has.
        bytes_done: u64,
        /// Bytes of the artifact.
        bytes_total: u64,
    },
    /// It is in the set in force.
    Published {
        /// Version of the timestamp in force.
        timestamp_version: u64,
    },
    /// Another version of the role is in force: sign again on top of it.
    Overtaken {
        /// That version.
        version: u64,
    },
    /// Every seed refuses it.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Where the offer stands, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferView {
    /// Where it stands.
    pub standing: Standing,
    /// Milliseconds since any seed last answered.
    pub silent_ms: u64,
}

#[derive(Debug, Default)]
struct Asked {
    due_ms: u64,
    open: Option<(u64, u64)>,
    answer: Option<OfferAnswer>,
    trouble: Option<String>,
    /// The ticket names it: its operator knows it for a seed.
    is_named: bool,
}

/// An offer that is being made.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) offered: Offered,
    asked: BTreeMap<PeerId, Asked>,
    heard_ms: u64,
    /// Bytes of the artifact that have left.
    sent: u64,
}

impl Making {
    pub(super) fn new(offered: Offered, now_ms: u64) -> Self {
        Self { offered, asked: BTreeMap::new(), heard_ms: now_ms, sent: 0 }
    }

    /// Whoever takes the artifact is there, even where its answers queue behind other bytes.
    pub(super) fn sent(&mut self, bytes: u64, now_ms: u64) {
        if bytes != self.sent {
            (self.sent, self.heard_ms) = (bytes, now_ms);
        }
    }

    /// Whom to ask now, of the connected `seeds`, of which those that the ticket names come first. Takes the numbers of the requests from `next_id`.
    pub(super) fn asks(
        &mut self,
        seeds: &[(PeerId, bool)],
        next_id: &mut dyn FnMut() -> u64,
        now_ms: u64,
    ) -> Vec<(u64, PeerId)> {
        // Whoever came before them makes place for those that the ticket names.
        let seeds = &seeds[..seeds.len().min(MAX_SEEDS)];
        self.asked.retain(|peer, _| seeds.iter().any(|(seed, _)| seed == peer));
        let mut asks = Vec::new();
        for (seed, is_named) in seeds {
            let asked = self.asked.entry(seed.clone()).or_default();
            asked.is_named = *is_named;
            if asked.open.is_some_and(|(_, since_ms)| now_ms.saturating_sub(since_ms) > ANSWER_MS) {
                asked.open = None;
                asked.trouble = Some("no answer".to_owned());
            }
            if asked.open.is_none() && now_ms >= asked.due_ms {
                let id = next_id();
                asked.open = Some((id, now_ms));
                asks.push((id, seed.clone()));
            }
        }
        asks
    }

    /// A seed's answer. True where it says that this node's set is no longer the newest.
    pub(super) fn answered(
        &mut self,
        request_id: u64,
        peer: &PeerId,
        result: Result<MetaResponse, String>,
        now_ms: u64,
    ) -> bool {
        let names_any = self.names_any();
        let Some(asked) = self.asked.get_mut(peer) else { return false };
        if asked.open.is_none_or(|(id, _)| id != request_id) {
            return false;
        }
        asked.open = None;
        asked.due_ms = now_ms + RETRY_MS;
        match result {
            Ok(MetaResponse::Offer(answer)) => {
                // A stranger's refusal is no sign of life of a seed, and nothing that it says is where there is one
                // that the ticket names.
                let is_word = !names_any && !matches!(answer, OfferAnswer::Refused { .. });
                if asked.is_named || is_word {
                    self.heard_ms = now_ms;
                }
                asked.trouble = None;
                asked.due_ms = now_ms
                    + match &answer {
                        OfferAnswer::Busy { retry_after_ms, .. } => {
                            u64::from(*retry_after_ms).clamp(POLL_MS, MAX_RETRY_MS)
                        }
                        _ => POLL_MS,
                    };
                let is_newer = matches!(answer, OfferAnswer::Published { .. } | OfferAnswer::Overtaken { .. });
                asked.answer = Some(answer);
                return is_newer;
            }
            Ok(MetaResponse::Refused { reason }) => asked.trouble = Some(reason),
            Ok(MetaResponse::File(_) | MetaResponse::NotFound) => {
                asked.trouble = Some("it does not understand offers".to_owned());
            }
            Err(reason) => asked.trouble = Some(format!("it did not answer an offer: {reason}")),
        }
        false
    }

    /// The offered role, for whom it was offered to.
    pub(super) fn serves(&self, peer: &PeerId, name: &str, version: u64) -> Option<&[u8]> {
        let offer = &self.offered.offer;
        let is_it = offer.role.as_str() == name && offer.version == version && self.asked.contains_key(peer);
        is_it.then_some(self.offered.file.as_slice())
    }

    /// Where the offer stands by the set in force and by what was answered.
    pub(super) fn view(&self, view: Option<&CatalogView>, now_ms: u64) -> OfferView {
        let standing = view.and_then(|view| self.in_force(view)).unwrap_or_else(|| self.answers());
        OfferView { standing, silent_ms: now_ms.saturating_sub(self.heard_ms) }
    }

    fn in_force(&self, view: &CatalogView) -> Option<Standing> {
        let Offered { offer, release, .. } = &self.offered;
        let version = rule::current_version(view, &offer.role);
        if version < offer.version {
            return None;
        }
        let held = view.trusted.role(&offer.role);
        let same = held.is_some_and(|held| held.version == offer.version && Digest::of(held.bytes()) == offer.sha256);
        // A later version may be in force already; releases stay.
        let listed = release.as_ref().is_some_and(|release| {
            let target = held.and_then(|held| held.targets.get(&release.path));
            target.and_then(TargetInfo::sha256) == Some(release.artifact)
        });
        Some(if same || listed {
            Standing::Published { timestamp_version: view.timestamp_version() }
        } else {
            Standing::Overtaken { version }
        })
    }

    fn names_any(&self) -> bool {
        self.asked.values().any(|asked| asked.is_named)
    }

    fn answers(&self) -> Standing {
        let names_any = self.names_any();
        let asked = || self.asked.values().filter(move |asked| asked.is_named || !names_any);
        let answers = || asked().filter_map(|asked| asked.answer.as_ref());
        let furthest = answers()
            .filter_map(|answer| match answer {
                OfferAnswer::Taken { stage, bytes_done, bytes_total } => Some((*stage, *bytes_done, *bytes_total)),
                _ => None,
            })
            .max_by_key(|(_, bytes_done, _)| *bytes_done);
        if let Some((stage, bytes_done, bytes_total)) = furthest {
            return Standing::Taken { stage, bytes_done, bytes_total };
        }
        // Signed already, by its word; the set that shows it is on its way.
        if answers().any(|answer| matches!(answer, OfferAnswer::Published { .. } | OfferAnswer::Overtaken { .. })) {
            return Standing::Taken { stage: OfferStage::Signing, bytes_done: 0, bytes_total: 0 };
        }
        let refusals: Vec<&String> = answers()
            .filter_map(|answer| match answer {
                OfferAnswer::Refused { reason } => Some(reason),
                _ => None,
            })
            .collect();
        if let Some(reason) = refusals.first().filter(|_| names_any && refusals.len() == asked().count()) {
            return Standing::Refused { reason: (*reason).clone() };
        }
        let busy = answers().find_map(|answer| match answer {
            OfferAnswer::Busy { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        let refusal = refusals.first().filter(|_| !names_any).map(|reason| (*reason).clone());
        let trouble = busy.or(refusal).or_else(|| asked().find_map(|asked| asked.trouble.clone()));
        Standing::Waiting { trouble }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes(&[n; 8]).expect("in bounds")
    }

    fn making() -> Making {
        let file = b"a role".to_vec();
        let offer = Offer {
            role: "releases-app".parse().expect("a role name"),
            version: 2,
            sha256: Digest::of(&file),
            length: file.len() as u64,
            release: None,
        };
        Making::new(Offered { offer, file, release: None }, 0)
    }

    fn ask(making: &mut Making, seeds: &[PeerId], now_ms: u64) -> Vec<(u64, PeerId)> {
        let mut id = now_ms * 100;
        let mut next = || {
            id += 1;
            id
        };
        let named: Vec<(PeerId, bool)> = seeds.iter().map(|seed| (seed.clone(), true)).collect();
        making.asks(&named, &mut next, now_ms)
    }

    fn standing(making: &Making) -> Standing {
        making.view(None, 0).standing
    }

    #[test]
    fn an_offer_is_repeated_and_never_asked_twice_at_once() {
        let (mut making, seed) = (making(), peer(1));
        let (id, who) = ask(&mut making, std::slice::from_ref(&seed), 0)[0].clone();
        assert_eq!(who, seed);
        assert!(ask(&mut making, std::slice::from_ref(&seed), 5_000).is_empty());
        let taken = OfferAnswer::Taken { stage: OfferStage::Fetching, bytes_done: 3, bytes_total: 9 };
        making.answered(id, &seed, Ok(MetaResponse::Offer(taken)), 5_000);
        let shown = Standing::Taken { stage: OfferStage::Fetching, bytes_done: 3, bytes_total: 9 };
        assert_eq!(standing(&making), shown);
        assert!(ask(&mut making, std::slice::from_ref(&seed), 5_000 + POLL_MS - 1).is_empty());
        assert_eq!(ask(&mut making, std::slice::from_ref(&seed), 5_000 + POLL_MS).len(), 1);
    }

    #[test]
    fn one_refusal_is_not_the_end_while_another_seed_may_take_it() {
        let (mut making, seeds) = (making(), [peer(1), peer(2)]);
        let asks = ask(&mut making, &seeds, 0);
        let refused = || Ok(MetaResponse::Offer(OfferAnswer::refused("no room")));
        making.answered(asks[0].0, &seeds[0], refused(), 10);
        assert_eq!(standing(&making), Standing::Waiting { trouble: None });
        making.answered(asks[1].0, &seeds[1], refused(), 10);
        assert_eq!(standing(&making), Standing::Refused { reason: "no room".to_owned() });
    }

    #[test]
    fn a_stranger_that_calls_itself_a_seed_cannot_end_a_push_nor_keep_it_waiting() {
        let (mut making, stranger, seed) = (making(), peer(1), peer(2));
        let mut id = 0;
        let mut next = || {
            id += 1;
            id
        };
        let asks = making.asks(&[(stranger.clone(), false)], &mut next, 0);
        making.answered(asks[0].0, &stranger, Ok(MetaResponse::Offer(OfferAnswer::refused("no"))), 5_000);
        assert_eq!(standing(&making), Standing::Waiting { trouble: Some("no".to_owned()) });
        assert_eq!(making.view(None, 6_000).silent_ms, 6_000, "that was no seed");
        let asks = making.asks(&[(seed.clone(), true), (stranger.clone(), false)], &mut next, 10_000);
        let taken = |bytes_done| OfferAnswer::Taken { stage: OfferStage::Fetching, bytes_done, bytes_total: 9 };
        for (id, of) in asks {
            let bytes_done = if of == seed { 3 } else { 8 };
            making.answered(id, &of, Ok(MetaResponse::Offer(taken(bytes_done))), 10_000);
        }
        let shown = Standing::Taken { stage: OfferStage::Fetching, bytes_done: 3, bytes_total: 9 };
        assert_eq!(standing(&making), shown);
    }

    #[test]
    fn a_crowd_that_calls_itself_seeds_leaves_room_for_the_one_that_the_ticket_names() {
        let mut making = making();
        let strangers: Vec<(PeerId, bool)> = (1..=20).map(|n| (peer(n), false)).collect();
        let mut id = 0;
        let mut next = || {
            id += 1;
            id
        };
        assert_eq!(making.asks(&strangers, &mut next, 0).len(), MAX_SEEDS);
        let all: Vec<(PeerId, bool)> = [(peer(99), true)].into_iter().chain(strangers).collect();
        let asks = making.asks(&all, &mut next, 1);
        assert_eq!(asks.iter().map(|(_, of)| of.clone()).collect::<Vec<_>>(), [peer(99)]);
    }

    #[test]
    fn an_answer_that_was_not_asked_for_changes_nothing() {
        let (mut making, seed) = (making(), peer(1));
        let (id, _) = ask(&mut making, std::slice::from_ref(&seed), 0)[0].clone();
        let refused = || Ok(MetaResponse::Offer(OfferAnswer::refused("no room")));
        making.answered(id + 1, &seed, refused(), 10);
        making.answered(id, &peer(2), refused(), 10);
        assert_eq!(standing(&making), Standing::Waiting { trouble: None });
    }

    #[test]
    fn what_a_seed_says_of_being_published_is_not_believed_without_the_set() {
        let (mut making, seed) = (making(), peer(1));
        let (id, _) = ask(&mut making, std::slice::from_ref(&seed), 0)[0].clone();
        let published = OfferAnswer::Published { timestamp_version: 9 };
        assert!(making.answered(id, &seed, Ok(MetaResponse::Offer(published)), 10), "there is something newer");
        assert!(matches!(standing(&making), Standing::Taken { stage: OfferStage::Signing, .. }));
    }

    #[test]
    fn the_role_is_served_to_those_only_whom_it_was_offered_to() {
        let (mut making, seed) = (making(), peer(1));
        assert_eq!(making.serves(&seed, "releases-app", 2), None);
        ask(&mut making, std::slice::from_ref(&seed), 0);
        assert_eq!(making.serves(&seed, "releases-app", 2), Some(&b"a role"[..]));
        assert_eq!(making.serves(&seed, "releases-app", 1), None);
        assert_eq!(making.serves(&peer(2), "releases-app", 2), None);
    }

    #[test]
    fn a_seed_that_does_not_answer_is_asked_again() {
        let (mut making, seed) = (making(), peer(1));
        ask(&mut making, std::slice::from_ref(&seed), 0);
        assert_eq!(ask(&mut making, std::slice::from_ref(&seed), ANSWER_MS + 1).len(), 1);
        assert_eq!(making.view(None, ANSWER_MS + 1).silent_ms, ANSWER_MS + 1);
    }

    #[test]
    fn no_more_than_a_few_that_call_themselves_seeds_are_asked() {
        let mut making = making();
        let seeds: Vec<PeerId> = (1..=20).map(peer).collect();
        assert_eq!(ask(&mut making, &seeds, 0).len(), MAX_SEEDS);
    }
}
