//! `/updraft/meta/1`: one request and one answer a stream, each bounded before it is read.
//!
//! An answer may come seconds after the question; a question that stays open for
//! [`DEADLINE`] is closed by the stream itself, on both sides.

mod codec;

use std::collections::HashMap;
use std::time::Duration;

use libp2p::request_response::{
    Behaviour, Config, Event, InboundRequestId, Message, OutboundRequestId, ProtocolSupport, ResponseChannel,
};
use libp2p::{PeerId, StreamProtocol};
use updraft_protocol::meta::{META_PROTOCOL, MetaRequest, MetaResponse};

use self::codec::Codec;
use super::translate;
use crate::engine::input::SwarmInput;

/// From the question to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(15);
/// Questions open at once with one peer, each way.
const MAX_OPEN_PER_PEER: usize = 64;
/// Questions of ours open at once with all peers together.
const MAX_ASKED: usize = 512;
/// Questions of others open at once: 64 for each of many peers.
const MAX_CHANNELS: usize = 4096;
/// Bytes of answers that are being sent. More are refused: asking again later is cheap.
const MAX_ANSWERING_BYTES: usize = 64 * 1024 * 1024;

/// Metadata requests as libp2p runs them.
pub(super) type Requests = Behaviour<Codec>;

/// A behaviour with this module's bounds.
pub(super) fn behaviour() -> Requests {
    let config = Config::default().with_request_timeout(DEADLINE).with_max_concurrent_streams(2 * MAX_OPEN_PER_PEER);
    Behaviour::with_codec(Codec::new(), [(StreamProtocol::new(META_PROTOCOL), ProtocolSupport::Full)], config)
}

/// A question of a peer's, open until it is answered or its stream gives up.
#[derive(Debug)]
struct Question {
    peer: PeerId,
    request: InboundRequestId,
    channel: ResponseChannel<MetaResponse>,
}

/// Which questions are open, and whose.
#[derive(Debug, Default)]
pub(super) struct Book {
    asked: HashMap<OutboundRequestId, (PeerId, u64)>,
    questions: HashMap<u64, Question>,
    next_channel: u64,
    answering: HashMap<InboundRequestId, usize>,
    answering_bytes: usize,
}

impl Book {
    /// Asks a connected peer; the answer, or why there is none, comes as an input.
    pub(super) fn ask(
        &mut self,
        requests: &mut Requests,
        request_id: u64,
        peer: PeerId,
        request: MetaRequest,
    ) -> Option<SwarmInput> {
        let open = self.asked.values().filter(|(asked, _)| *asked == peer).count();
        let refusal = if !requests.is_connected(&peer) {
            "the peer is not connected"
        } else if open >= MAX_OPEN_PER_PEER || self.asked.len() >= MAX_ASKED {
            "too many requests are open"
        } else {
            let id = requests.send_request(&peer, request);
            self.asked.insert(id, (peer, request_id));
            return None;
        };
        Some(answered(request_id, &peer, Err(refusal.to_owned())))
    }

    /// Answers a peer's question, if it still waits.
    pub(super) fn answer(&mut self, requests: &mut Requests, channel: u64, response: MetaResponse) {
        let Some(question) = self.questions.remove(&channel) else {
            return;
        };
        let bytes = response.payload_bytes();
        let response = if self.answering_bytes + bytes > MAX_ANSWERING_BYTES {
            MetaResponse::Refused { reason: "busy with other answers, ask again later".to_owned() }
        } else {
            self.answering_bytes += bytes;
            self.answering.insert(question.request, bytes);
            response
        };
        if requests.send_response(question.channel, response).is_err() {
            self.sent(question.request);
        }
    }

    /// What an event of libp2p's means to the engine.
    pub(super) fn on_event(&mut self, event: Event<MetaRequest, MetaResponse>) -> Option<SwarmInput> {
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.asked_by(peer, request_id, request, channel)
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                let (peer, number) = self.asked.remove(&request_id)?;
                Some(answered(number, &peer, Ok(response)))
            }
            Event::OutboundFailure { request_id, error, .. } => {
                let (peer, number) = self.asked.remove(&request_id)?;
                Some(answered(number, &peer, Err(error.to_string())))
            }
            Event::InboundFailure { request_id, error, .. } => {
                tracing::debug!(%error, "a metadata request was not answered");
                self.questions.retain(|_, question| question.request != request_id);
                self.sent(request_id);
                None
            }
            Event::ResponseSent { request_id, .. } => {
                self.sent(request_id);
                None
            }
        }
    }

    fn asked_by(
        &mut self,
        peer: PeerId,
        request_id: InboundRequestId,
        request: MetaRequest,
        channel: ResponseChannel<MetaResponse>,
    ) -> Option<SwarmInput> {
        let open = self.questions.values().filter(|question| question.peer == peer).count();
        if open >= MAX_OPEN_PER_PEER || self.questions.len() >= MAX_CHANNELS {
            return None; // Dropping the channel closes the stream.
        }
        let number = self.next_channel;
        self.next_channel += 1;
        self.questions.insert(number, Question { peer, request: request_id, channel });
        Some(SwarmInput::MetaAsked { channel: number, peer: translate::peer_to_protocol(&peer), request })
    }

    fn sent(&mut self, request: InboundRequestId) {
        if let Some(bytes) = self.answering.remove(&request) {
            self.answering_bytes -= bytes;
        }
    }
}

fn answered(request_id: u64, peer: &PeerId, result: Result<MetaResponse, String>) -> SwarmInput {
    SwarmInput::MetaAnswered { request_id, peer: translate::peer_to_protocol(peer), result }
}
