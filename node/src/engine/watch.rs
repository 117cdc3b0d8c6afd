//! What a node keeps an eye on while time passes: its clock, the age of its metadata, its bans, and, at
//! a seed, whether it may sign. Every change is told once.

use updraft_protocol::meta::MetaFile;
use updraft_protocol::peer::PeerId;
use updraft_protocol::tuf::{Freshness, RoleName};

use super::adoption::{Ended, Versions};
use super::bans::{Ban, Banned};
use super::clock::ClockState;
use super::effect::{Effect, EventKind, SwarmEffect};
use super::input::Now;
use super::{Engine, memory::Memory};

/// Whether a seed may sign now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// Yes.
    Ready,
    /// Not yet: the sentence says what it waits for. Ends by itself.
    Waiting(String),
    /// No: somebody has to do what the sentence says.
    Refused(String),
}

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    clock_is_bad: bool,
    expired: Option<RoleName>,
}

impl Engine {
    /// What is remembered beyond the set in force.
    pub fn memory(&self) -> &Memory {
        self.catalog.memory()
    }

    /// Whether the wall clock can be believed.
    pub fn clock(&self, now: Now) -> ClockState {
        let clock = self.catalog.view().map_or(self.memory().clock, |view| view.clock);
        clock.judge(now.wall)
    }

    /// The first role whose age keeps this node from installing, and since when.
    pub fn expired(&self, now: Now) -> Option<(RoleName, updraft_protocol::time::UtcTime)> {
        let trusted = &self.catalog.view()?.trusted;
        let products = self.subscriptions.iter().map(|subscription| RoleName::releases(&subscription.spec.product));
        let expired = |freshness| match freshness {
            Freshness::Expired { role, since } => Some((role, since)),
            Freshness::Fresh { .. } | Freshness::Incomplete { .. } => None,
        };
        expired(trusted.freshness(now.wall)).or_else(|| {
            std::iter::once(RoleName::channels())
                .chain(products)
                .find_map(|role| expired(trusted.role_freshness(&role, now.wall)))
        })
    }

    /// Whether this seed may sign now. Whoever signs asks first.
    pub fn signing(&self, now: Now) -> Signing {
        if let Some(reason) = self.adoption.reason(self.versions()) {
            return Signing::Waiting(reason);
        }
        let clock = self.clock(now);
        if clock.may_sign() {
            Signing::Ready
        } else {
            Signing::Refused(format!("this seed does not sign: {}", clock.reason(now.wall)))
        }
    }

    /// An operator vouches for the clock. `Err` says why that is no use.
    pub fn trust_clock(&mut self, now: Now) -> Result<Vec<Effect>, String> {
        if let state @ ClockState::BeforeBuild = self.clock(now) {
            return Err(state.reason(now.wall));
        }
        self.catalog.trust_clock();
        self.review(now);
        Ok(std::mem::take(&mut self.effects))
    }

    /// What is whole and in force here.
    pub(super) fn versions(&self) -> Versions {
        let timestamp = self.catalog.view().map_or(0, |view| view.timestamp_version());
        Versions { root: self.catalog.root_version(), timestamp }
    }

    /// Tells of what the time changed.
    pub(super) fn watch(&mut self, now: Now) {
        self.watch_clock(now);
        self.watch_age(now);
        let (begun, over) = self.bans.review(now.wall);
        for peer in begun {
            self.shut_out(&peer);
        }
        for peer in over {
            self.let_in(&peer, "its ban is over");
        }
        self.adopt(now);
    }

    fn watch_clock(&mut self, now: Now) {
        let state = self.clock(now);
        if state.is_trusted() == self.watch.clock_is_bad {
            self.watch.clock_is_bad = !state.is_trusted();
            if state.is_trusted() {
                self.tell(EventKind::ClockTrusted, None, state.reason(now.wall));
            } else {
                let what = if self.config.is_seed { "installed or signed" } else { "installed" };
                let text = format!("{}; nothing is {what} until then", state.reason(now.wall));
                self.tell(EventKind::ClockUntrusted, None, text);
            }
        }
    }

    fn watch_age(&mut self, now: Now) {
        let expired = self.expired(now);
        let role = expired.as_ref().map(|(role, _)| role.clone());
        if role == self.watch.expired {
            return;
        }
        self.watch.expired = role;
        match expired {
            Some((role, since)) => {
                let text = format!(
                    "{role} metadata expired at {since}: this node runs and serves what it has, and installs nothing new"
                );
                self.tell(EventKind::MetadataExpired, None, text);
            }
            None => self.tell(EventKind::MetadataFresh, None, "the metadata is fresh again".to_owned()),
        }
    }

    fn adopt(&mut self, now: Now) {
        if self.adoption.is_done() {
            return;
        }
        let own = self.versions();
        for (peer, claimed) in self.adoption.claimants(&self.peers, own) {
            if claimed.root > own.root {
                self.wants.add(MetaFile::Root { version: own.root + 1 }, Some(&peer));
            }
            if claimed.timestamp > self.catalog.timestamp_version() {
                self.wants.add(MetaFile::Head, Some(&peer));
            }
        }
        match self.adoption.poll(&self.peers, own, now.mono_ms) {
            Some(Ended::Adopted) => {
                let text = format!("took over head {} from the peers; signing goes on from there", own.timestamp);
                self.tell(EventKind::HeadAdopted, None, text);
            }
            Some(Ended::Withheld(claimed)) => {
                let text = format!(
                    "peers claim head {} (root {}), and none of them delivered it; signing goes on from head {}",
                    claimed.timestamp, claimed.root, own.timestamp
                );
                self.tell(EventKind::HeadWithheld, None, text);
            }
            Some(Ended::Alone) => {
                let text = format!(
                    "none of the peers that this seed knew could be reached; signing goes on from head {}",
                    own.timestamp
                );
                self.tell(EventKind::PeersUnreachable, None, text);
            }
            Some(Ended::Current) | None => {}
        }
    }

    // ---- bans -------------------------------------------------------------------------------

    /// Every ban in force.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.active()
    }

    /// Ends all dealings with a peer that lied provably. What it sent before it heard of that changes nothing.
    pub(super) fn ban(&mut self, peer: &PeerId, why: &str, now: Now) {
        let Some(Banned { ban, let_in }) = self.bans.ban(peer, why, now.wall) else { return };
        if let Some(first) = let_in {
            self.let_in(&first, "too many others were banned after it");
        }
        self.tell(EventKind::PeerBlamed, Some(peer), format!("banned until {}: it {why}", ban.ends_at));
        self.push(Effect::RememberBan(ban));
        self.shut_out(peer);
    }

    fn shut_out(&mut self, peer: &PeerId) {
        self.peers.ban(peer);
        self.push(SwarmEffect::Ban { peer: peer.clone() });
    }

    fn let_in(&mut self, peer: &PeerId, why: &str) {
        self.peers.unban(peer);
        self.push(SwarmEffect::Unban { peer: peer.clone() });
        self.tell(EventKind::PeerUnbanned, Some(peer), why.to_owned());
    }

    /// An operator forgives a peer. `None` where it was not banned.
    pub fn unban(&mut self, peer: &PeerId) -> Option<Vec<Effect>> {
        self.bans.forgive(peer).then(|| {
            self.let_in(peer, "an operator lifted its ban");
            self.push(Effect::ForgetBan { peer: peer.clone() });
            std::mem::take(&mut self.effects)
        })
    }
}
