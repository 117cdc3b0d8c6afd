//! What a node says of what it remembers, and what an operator may change of it: bans, the clock. Also
//! where publications wait until their seed may sign.

use updraft_protocol::peer::PeerId;

use super::Runtime;
use super::publish::Prepared;
use super::views;
use super::worker::Job;
use crate::config::Role;
use crate::control::messages::{ErrorBody, ErrorCode, Phase, Progress, Response};
use crate::control::reply::ReplySender;
use crate::control::views::{BanRow, ClockView, FloorView, MemoryView, SigningState, SigningView};
use crate::engine::Engine;
use crate::engine::input::Now;
use crate::engine::watch::Signing;

/// Publications that wait to be signed. More are refused: each has a reader who waits with it.
const MAX_WAITING: usize = 64;

/// Altered releases that are listed.
const MAX_LISTED: usize = 100;

/// Refused targets that are warned of one by one.
const MAX_WARNED: usize = 20;

/// Characters of the end of a peer's id that name it well enough.
const MIN_PEER_CHARS: usize = 8;

/// Whether the clock can be believed.
pub(super) fn clock(engine: &Engine, now: Now) -> ClockView {
    let state = engine.clock(now);
    ClockView {
        trusted: state.is_trusted(),
        now: now.wall,
        not_before: engine.memory().clock.floor(),
        reason: (!state.is_trusted()).then(|| state.reason(now.wall)),
    }
}

/// What is remembered of the repository.
pub(super) fn memory(engine: &Engine) -> MemoryView {
    let Some(view) = engine.catalog() else { return MemoryView::default() };
    let signed = view.trusted.role(&updraft_protocol::tuf::RoleName::targets());
    let floors = view.floors.iter().map(|(product, version)| {
        let says = signed.and_then(|top| top.security_floor.get(product));
        FloorView {
            product: product.clone(),
            version: version.to_string(),
            signed: says.filter(|says| *says < version).map(ToString::to_string),
        }
    });
    MemoryView {
        remembered_releases: engine.memory().targets.len() as u64,
        altered_releases: view.altered.iter().take(MAX_LISTED).cloned().collect(),
        floors: floors.collect(),
    }
}

/// Everyone who is refused, the ban that ends first first.
pub(super) fn banned(engine: &Engine) -> Vec<BanRow> {
    let mut bans: Vec<_> = engine.bans().collect();
    bans.sort_by_key(|ban| (ban.ends_at, &ban.peer));
    let rows = bans.into_iter().map(|ban| BanRow {
        peer_id: ban.peer.to_string(),
        reason: ban.reason.clone(),
        banned_at: ban.banned_at,
        until: ban.ends_at,
        offences: ban.offences,
    });
    rows.collect()
}

/// What someone should look at.
pub(super) fn warnings(engine: &Engine, now: Now) -> Vec<String> {
    let mut warnings = Vec::new();
    let clock = engine.clock(now);
    if !clock.is_trusted() {
        warnings.push(format!("{}; nothing is installed, and a seed signs nothing, meanwhile", clock.reason(now.wall)));
    }
    if let Some((role, since)) = engine.expired(now) {
        warnings.push(format!(
            "{role} metadata expired at {since}: this node runs and serves what it has, and installs nothing new until it is signed again at the seed"
        ));
    }
    if engine.memory().is_full() {
        warnings.push("so many releases are remembered that new ones are not watched for changes any more".to_owned());
    }
    let Some(view) = engine.catalog() else { return warnings };
    warnings
        .extend(view.refused.iter().take(MAX_WARNED).map(|refused| format!("a signed target is refused: {refused}")));
    if view.refused.len() > MAX_WARNED {
        warnings.push(format!("{} more signed targets are refused", view.refused.len() - MAX_WARNED));
    }
    warnings
}

fn refusal(reason: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::BlockedByPolicy, reason)
        .with_hint("set the clock; if it is right and a signature was ahead of it: updraft clock trust")
}

impl Runtime {
    /// Whether this seed may sign; none at a peer.
    pub(super) fn signing_view(&self) -> Option<SigningView> {
        if self.config.role != Role::Seed {
            return None;
        }
        let (state, reason) = match self.engine.signing(self.now()) {
            Signing::Ready => (SigningState::Ready, None),
            Signing::Waiting(reason) => (SigningState::Waiting, Some(reason)),
            Signing::Refused(reason) => (SigningState::Refused, Some(reason)),
        };
        Some(SigningView { state, reason })
    }

    /// Refuses a publication at once where packing it would be in vain.
    pub(super) fn refuse_to_sign(&self) -> Option<ErrorBody> {
        match self.engine.signing(self.now()) {
            Signing::Refused(reason) => Some(refusal(reason)),
            Signing::Ready | Signing::Waiting(_) => None,
        }
    }

    /// Why this seed may not sign at this moment.
    pub(super) fn not_ready_to_sign(&self) -> Option<ErrorBody> {
        match self.engine.signing(self.now()) {
            Signing::Ready => None,
            Signing::Refused(reason) => Some(refusal(reason)),
            Signing::Waiting(reason) => {
                Some(ErrorBody::new(ErrorCode::Error, reason).with_hint("run the same command again in a moment"))
            }
        }
    }

    /// Lets a packed publication wait until this seed may sign. Gives it back where it may.
    pub(super) fn hold_back(&mut self, prepared: Prepared) -> Option<Prepared> {
        match self.engine.signing(self.now()) {
            Signing::Ready if self.unsigned.is_empty() => return Some(prepared),
            Signing::Refused(reason) => self.withdraw(prepared, refusal(reason)),
            _ if self.unsigned.len() >= MAX_WAITING => {
                let body = ErrorBody::new(ErrorCode::Error, "too many publications wait to be signed");
                self.withdraw(prepared, body.with_hint("publish again in a moment"));
            }
            _ => self.unsigned.push_back(prepared),
        }
        None
    }

    /// Signs what waited, or tells what it still waits for.
    pub(super) async fn sign_waiting(&mut self) {
        while let Some(prepared) = self.unsigned.pop_front() {
            match self.engine.signing(self.now()) {
                Signing::Ready => self.sign(prepared).await,
                Signing::Refused(reason) => self.withdraw(prepared, refusal(reason)),
                Signing::Waiting(reason) => {
                    self.unsigned.push_front(prepared);
                    for waiting in &self.unsigned {
                        let progress = Progress::local(Phase::Waiting, 0, None);
                        waiting.reply.progress(Progress { text: Some(reason.clone()), ..progress });
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn unban(&mut self, peer: &str) -> Result<Vec<crate::engine::effect::Effect>, ErrorBody> {
        let named = |id: &PeerId| {
            let text = id.to_string();
            text == peer || (peer.len() >= MIN_PEER_CHARS && text.ends_with(peer))
        };
        let found: Vec<PeerId> = self.engine.bans().map(|ban| ban.peer.clone()).filter(named).collect();
        let hint = "`updraft peers --json` lists who is";
        match found.as_slice() {
            [id] => Ok(self.engine.unban(id).unwrap_or_default()),
            [] => Err(ErrorBody::new(ErrorCode::NothingToDo, format!("{peer} is not banned")).with_hint(hint)),
            _ => Err(ErrorBody::new(ErrorCode::Error, format!("more than one banned peer ends in {peer}"))
                .with_hint("name it in full")),
        }
    }

    pub(super) async fn lift_ban(&mut self, peer: &str, reply: ReplySender) {
        match self.unban(peer) {
            Ok(effects) => {
                self.carry_out(effects).await;
                reply.finish(Ok(Response::Peers(views::peers(&self.engine, self.now()))));
            }
            Err(body) => reply.finish(Err(body)),
        }
    }

    pub(super) async fn trust_clock(&mut self, reply: ReplySender) {
        let now = self.now();
        match self.engine.trust_clock(now) {
            Ok(effects) => {
                self.file_job(Job::ForgetSignedAt).await;
                self.carry_out(effects).await;
                reply.finish(Ok(Response::Status(Box::new(self.status(false)))));
            }
            Err(reason) => reply.finish(Err(ErrorBody::new(ErrorCode::BlockedByPolicy, reason))),
        }
    }
}
