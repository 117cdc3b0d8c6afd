//! Releases that are signed elsewhere: a publisher's machine offers the next version of its role, and
//! the seed takes it, fetches what it names and publishes it with its online keys.
//!
//! Both sides are state machines without input or output: `making` is the publisher's, `taking` the
//! seed's, `rule` says what may be published and is asked by both. This file ties them to sessions,
//! transfers and the catalog. It must never let an offer change what the node believes: the set in
//! force changes only by a head that verifies, as for everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use updraft_protocol::digest::Digest;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};
use updraft_protocol::offer::{Offer, OfferAnswer};
use updraft_protocol::peer::PeerId;
use updraft_protocol::release::Release;

use self::making::Making;
use self::taking::{Step, Taking};
use super::Engine;
use super::effect::{Effect, EventKind, SwarmEffect};
use super::fetch::Fetch;
use super::input::Now;
use super::supply::object;

mod making;
pub mod rule;
mod taking;

pub use self::making::{OfferView, Offered, Standing};
pub use self::taking::Signing;

/// Milliseconds after which a seed that cannot say anything yet may be asked again.
const NOT_READY_MS: u32 = 2_000;

/// What the runtime does for offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferEffect {
    /// Find out whether this node could sign and has room for the artifact, and note on disk that the
    /// artifact is here on trial. Answered by [`OfferInput::Admitted`].
    Admit {
        /// Names the offer.
        number: u64,
        /// The artifact, where there is one.
        artifact: Option<Digest>,
        /// Its bytes.
        length: u64,
    },
    /// Sign and keep the set that takes the role as it is. Answered by [`OfferInput::Signed`], after
    /// the set is in force.
    Sign {
        /// Names the offer.
        number: u64,
        /// Who offered it, for people.
        peer: PeerId,
        /// The offer.
        offer: Offer,
        /// The role, exact bytes.
        file: Vec<u8>,
    },
    /// Remove an artifact that is not published after all.
    Discard {
        /// The artifact.
        artifact: Digest,
    },
    /// The artifact is not on trial any more.
    Settle {
        /// The artifact.
        artifact: Digest,
    },
}

/// What the runtime found out for offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferInput {
    /// Whether an offer may go on.
    Admitted {
        /// Names the offer.
        number: u64,
        /// An error is for whoever offers.
        result: Result<(), String>,
    },
    /// How signing ended.
    Signed {
        /// Names the offer.
        number: u64,
        /// How it ended.
        outcome: Signing,
    },
}

/// Whether this node may begin to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Connected peers.
    pub peers: usize,
    /// Those that say that they are the seed.
    pub seeds: usize,
    /// The signed set is whole.
    pub is_whole: bool,
    /// Some seed says that it has a newer one.
    pub is_behind: bool,
}

/// Both sides of one node. A seed takes, everybody else makes.
#[derive(Debug, Default)]
pub(super) struct Offers {
    taking: Taking,
    making: Option<Making>,
    next_id: u64,
    /// Manifests that were asked for on account of offers, by artifact.
    manifests: BTreeMap<Digest, MetaFile>,
}

impl Offers {
    /// Releases whose artifacts are wanted though no set names them yet.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.taking.wanted()
    }

    /// Whether an artifact is here for an offer, made or taken.
    pub(super) fn keeps(&self, artifact: &Digest) -> bool {
        let offered = self.making.as_ref().and_then(|making| making.offered.release.as_ref());
        offered.is_some_and(|release| release.artifact == *artifact) || self.taking.keeps(artifact)
    }
}

impl Offers {
    /// Whether an offer of this peer is being looked at.
    pub(super) fn concerns(&self, peer: &PeerId) -> bool {
        self.taking.concerns(peer)
    }

    /// Whether this node offers something, and needs a seed for that.
    pub(super) fn is_offering(&self) -> bool {
        self.making.is_some()
    }
}

/// Requests on account of offers have numbers of their own kind.
const OFFER_IDS: u64 = 1 << 63;

fn next_id(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter | OFFER_IDS
}

fn held(fetch: &Fetch, artifact: &Digest) -> (u64, bool) {
    let id = object(artifact);
    (fetch.view(&id).map_or(0, |view| view.bytes_done), fetch.is_complete(&id))
}

/// Bytes that came in, verified or not yet: shows life long before a large piece is whole.
fn arrived(fetch: &Fetch, artifact: &Digest) -> (u64, bool) {
    let counts = fetch.view(&object(artifact)).map(|view| view.counts).unwrap_or_default();
    (counts.from_seed + counts.from_peers, false)
}

impl Engine {
    // ---- the seed's side --------------------------------------------------------------------

    /// Artifacts that the store holds for offers which were under way when the node stopped.
    pub fn remember_offered(&mut self, artifacts: Vec<Digest>, now: Now) -> Vec<Effect> {
        let known = |artifact: &Digest| self.catalog.view().is_some_and(|view| view.release_of(artifact).is_some());
        let (published, open): (Vec<_>, Vec<_>) = artifacts.into_iter().partition(known);
        self.offers.taking.restore(open, now);
        published.into_iter().map(|artifact| Effect::Offer(OfferEffect::Settle { artifact })).collect()
    }

    pub(super) fn offer_heard(&mut self, channel: u64, peer: &PeerId, offer: Offer, now: Now) {
        let (answer, steps) = self.judge_offer(peer, offer, now);
        self.push(SwarmEffect::MetaAnswer { channel, response: MetaResponse::Offer(answer) });
        self.offer_steps(steps, now);
    }

    fn judge_offer(&mut self, peer: &PeerId, offer: Offer, now: Now) -> (OfferAnswer, Vec<Step>) {
        if !self.config.is_seed {
            let reason = "this node cannot publish: it is a peer; offers are for the seed, which holds the online keys";
            return (OfferAnswer::refused(reason), Vec::new());
        }
        let Some(view) = self.catalog.view().filter(|view| view.trusted.is_complete()).cloned() else {
            return (OfferAnswer::busy("the seed's own set is not complete yet", NOT_READY_MS), Vec::new());
        };
        let fetch = &self.fetch;
        let id = next_id(&mut self.offers.next_id);
        self.offers.taking.heard(peer, offer, &view, &|artifact| held(fetch, artifact), id, now)
    }

    pub(super) fn offer_input(&mut self, input: OfferInput, now: Now) {
        let steps = match input {
            OfferInput::Admitted { number, result } => {
                let fetch = &self.fetch;
                self.offers.taking.admitted(number, result, &|artifact| held(fetch, artifact), now)
            }
            OfferInput::Signed { number, outcome } => self.offers.taking.signed(number, outcome, now),
        };
        self.offer_steps(steps, now);
    }

    pub(super) fn offered_artifact_complete(&mut self, artifact: &Digest, now: Now) {
        for publisher in self.offers.taking.publishers(artifact) {
            self.fetch.pushed_by(&object(artifact), &publisher);
        }
        let steps = self.offers.taking.complete(artifact);
        self.offer_steps(steps, now);
    }

    pub(super) fn offered_artifact_failed(&mut self, artifact: &Digest, reason: &str, now: Now) {
        let steps = self.offers.taking.failed(artifact, reason, now);
        self.offer_steps(steps, now);
    }

    fn offer_steps(&mut self, steps: Vec<Step>, now: Now) {
        if steps.is_empty() {
            return;
        }
        for step in steps {
            match step {
                Step::AskRole { request_id, peer, file } => {
                    let request = MetaRequest { repository: self.config.repository.0, file };
                    self.push(SwarmEffect::MetaAsk { request_id, peer, request });
                }
                Step::Admit { number, artifact, length } => {
                    self.push(Effect::Offer(OfferEffect::Admit { number, artifact, length }));
                }
                Step::Fetch { release, peer } => {
                    let file = MetaFile::Manifest { sha256: release.manifest.sha256 };
                    if !self.fetch.contains(&object(&release.artifact)) {
                        self.wants.add(file.clone(), Some(&peer));
                        self.offers.manifests.insert(release.artifact, file);
                    }
                }
                Step::Sign { number, peer, offer, file } => {
                    self.push(Effect::Offer(OfferEffect::Sign { number, peer, offer, file }));
                }
                Step::Discard { artifact } => self.discard_offered(artifact),
                Step::Settle { artifact } => self.push(Effect::Offer(OfferEffect::Settle { artifact })),
                Step::Fault { peer, what } => self.fault(&peer, &what, now),
                Step::Refused { peer, text } => self.tell(EventKind::PushRefused, Some(&peer), text),
            }
        }
        let Offers { taking, manifests, .. } = &mut self.offers;
        let wants = &mut self.wants;
        manifests.retain(|artifact, file| {
            let wanted = taking.wanted().any(|release| release.artifact == *artifact);
            if !wanted {
                wants.remove(file);
            }
            wanted
        });
        self.review(now);
    }

    /// Forgets an artifact that no offer needs any more, unless it was published meanwhile.
    fn discard_offered(&mut self, artifact: Digest) {
        if self.catalog.view().is_some_and(|view| view.release_of(&artifact).is_some()) {
            self.push(Effect::Offer(OfferEffect::Settle { artifact }));
            return;
        }
        self.drop_artifact(artifact);
    }

    fn drop_artifact(&mut self, artifact: Digest) {
        let outcome = self.fetch.remove(&object(&artifact));
        self.effects.extend(outcome.effects.into_iter().map(Effect::Swarm));
        self.supplies.forget(&artifact);
        self.push(Effect::Offer(OfferEffect::Discard { artifact }));
    }

    // ---- the publisher's side ---------------------------------------------------------------

    /// Whether an offer may be begun: there is a seed, and nothing newer to build on.
    pub fn readiness(&self) -> Readiness {
        let hellos = || self.peers.sessions().values().filter_map(|session| session.hello.as_ref());
        let seeds = hellos().filter(|hello| hello.seed);
        let version = self.catalog.timestamp_version();
        let is_complete = self.catalog.view().is_some_and(|view| view.trusted.is_complete());
        Readiness {
            peers: hellos().count(),
            seeds: seeds.clone().count(),
            is_whole: is_complete && self.catalog.needs().is_empty(),
            is_behind: seeds.clone().any(|hello| hello.timestamp_version > version),
        }
    }

    /// Offers a role to every seed in reach, in place of whatever was offered before.
    pub fn begin_offering(&mut self, offered: Offered, now: Now) -> Vec<Effect> {
        self.offers.making = Some(Making::new(offered, now.mono_ms));
        self.offers_tick(now);
        std::mem::take(&mut self.effects)
    }

    /// Where the offer stands; `None` where nothing is offered.
    pub fn offering(&self, now: Now) -> Option<OfferView> {
        let making = self.offers.making.as_ref()?;
        Some(making.view(self.catalog.view().map(AsRef::as_ref), now.mono_ms))
    }

    /// Offers no longer.
    pub fn stop_offering(&mut self) {
        self.offers.making = None;
    }

    /// Forgets an artifact that was pushed and that nobody here follows.
    pub fn drop_pushed(&mut self, artifact: Digest) -> Vec<Effect> {
        self.drop_artifact(artifact);
        std::mem::take(&mut self.effects)
    }

    /// The offered role, for a seed that asks for it.
    pub(super) fn offered_role(&self, peer: &PeerId, file: &MetaFile) -> Option<Vec<u8>> {
        let MetaFile::Role { name, version } = file else { return None };
        let making = self.offers.making.as_ref()?;
        making.serves(peer, name, *version).map(<[u8]>::to_vec)
    }

    fn make_offers(&mut self, now: Now) {
        let Offers { making: Some(making), next_id: counter, .. } = &mut self.offers else { return };
        let mut seeds: Vec<(PeerId, bool)> = self
            .peers
            .sessions()
            .iter()
            .filter(|(_, session)| session.hello.as_ref().is_some_and(|hello| hello.seed))
            .map(|(peer, _)| (peer.clone(), self.peers.is_of_ticket(peer)))
            .collect();
        // Anybody may call itself a seed; whom the ticket names comes first.
        seeds.sort_by_key(|(_, is_named)| !is_named);
        if let Some(release) = &making.offered.release {
            let sent = self.fetch.view(&object(&release.artifact)).map_or(0, |view| view.counts.sent);
            making.sent(sent, now.mono_ms);
        }
        let asks = making.asks(&seeds, &mut || next_id(counter), now.mono_ms);
        let offer = making.offered.offer.clone();
        for (request_id, peer) in asks {
            let request = MetaRequest { repository: self.config.repository.0, file: MetaFile::Offer(offer.clone()) };
            self.push(SwarmEffect::MetaAsk { request_id, peer, request });
        }
    }

    // ---- both -------------------------------------------------------------------------------

    /// Takes an answer to a request on account of an offer; false where it was another request.
    pub(super) fn offer_answered(
        &mut self,
        request_id: u64,
        peer: &PeerId,
        result: &Result<MetaResponse, String>,
        now: Now,
    ) -> bool {
        if request_id & OFFER_IDS == 0 {
            return false;
        }
        if let Some(making) = &mut self.offers.making {
            if making.answered(request_id, peer, result.clone(), now.mono_ms) {
                self.wants.add(MetaFile::Head, Some(peer));
            }
            return true;
        }
        let file = match result {
            Ok(MetaResponse::File(bytes)) => Ok(bytes.clone()),
            Ok(_) => Err("it does not have what it offered".to_owned()),
            Err(reason) => Err(reason.clone()),
        };
        if let Some(view) = self.catalog.view().cloned() {
            let steps = self.offers.taking.role_arrived(request_id, peer, file, &view, now);
            self.offer_steps(steps, now);
        }
        true
    }

    pub(super) fn offers_disconnected(&mut self, peer: &PeerId) {
        self.offers.taking.disconnected(peer);
    }

    pub(super) fn offers_tick(&mut self, now: Now) {
        let fetch = &self.fetch;
        let steps = self.offers.taking.tick(&|artifact| arrived(fetch, artifact), now);
        self.offer_steps(steps, now);
        self.make_offers(now);
    }
}
