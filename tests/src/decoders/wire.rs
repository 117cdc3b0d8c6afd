//! Messages: between nodes, and between a node and its command line.

use serde::Serialize;
use serde::de::DeserializeOwned;
use updraft::control::framing::{LineBuffer, Pushed, decode_request, encode_line};
use updraft::control::messages::{Line, Request};
use updraft::control::results::{FetchView, InstallView, PublishView, TicketView};
use updraft::control::views::{HistoryView, PeersView, ReleasesView, StatusView};
use updraft::control::{MAX_REPLY_BYTES, MAX_REQUEST_BYTES};
use updraft_protocol::bitmap::Bitmap;
use updraft_protocol::limits::{
    LEAF_BYTES, MAX_ADDRESS_BYTES, MAX_BLOCK_BYTES, MAX_CONTROL_FRAME_BYTES, MAX_EVIDENCE, MAX_EXCHANGED_PEERS,
    MAX_HAVE_PIECES, MAX_META_REQUEST_BYTES, MAX_META_RESPONSE_BYTES, MAX_OUTCOME_TEXT_BYTES, MAX_OUTCOMES,
    MAX_PEER_ADDRESSES, MAX_SESSION_ARTIFACTS,
};
use updraft_protocol::meta::{MetaRequest, MetaResponse};
use updraft_protocol::outcome::MAX_SIGNATURE_BYTES;
use updraft_protocol::transfer::{BlockHeader, BlockRange, Control};

/// A control stream, a data stream, and one message alone: what decodes is within its bounds and
/// survives its frame; a header has one form.
pub fn transfer(bytes: &[u8]) -> bool {
    let accepted = message(bytes);
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<4>() {
        let Ok(length) = Control::frame_length(*header) else { break };
        assert!(length <= MAX_CONTROL_FRAME_BYTES as usize);
        let Some((body, after)) = after.split_at_checked(length) else { break };
        message(body);
        rest = after;
    }
    for header in bytes.as_chunks::<{ BlockHeader::BYTES }>().0 {
        if let Ok(decoded) = BlockHeader::decode(header) {
            assert_eq!(decoded.encode(), *header);
            check_handle(decoded.handle);
            check_block(decoded.block);
        }
    }
    for spare in 0..8 {
        let count = u32::try_from(bytes.len()).expect("a small input").saturating_mul(8).saturating_sub(spare);
        if let Some(bitmap) = Bitmap::from_bytes(bytes, count) {
            assert_eq!(bitmap.as_bytes(), bytes);
            assert_eq!(bitmap.iter().count(), bitmap.ones() as usize);
            assert_eq!(bitmap.iter().count() + bitmap.iter_missing().count(), count as usize);
        }
    }
    accepted
}

fn message(body: &[u8]) -> bool {
    let Ok(message) = Control::decode(body) else { return false };
    match &message {
        Control::Announce { handle, .. } | Control::Forget { handle } => check_handle(*handle),
        Control::Have { handle, pieces } => {
            check_handle(*handle);
            assert!(pieces.len() <= MAX_HAVE_PIECES);
        }
        Control::Request { handle, block }
        | Control::Cancel { handle, block }
        | Control::Busy { handle, block, .. } => {
            check_handle(*handle);
            check_block(*block);
        }
        Control::Peers(peers) => {
            assert!(peers.len() <= MAX_EXCHANGED_PEERS);
            for record in peers {
                assert!(record.addresses.len() <= MAX_PEER_ADDRESSES);
                assert!(record.addresses.iter().all(|address| address.len() <= MAX_ADDRESS_BYTES));
            }
        }
        Control::Evidence { sha256 } => assert!(sha256.len() <= MAX_EVIDENCE),
        Control::Report(report) => {
            assert!(report.text.len() <= MAX_OUTCOME_TEXT_BYTES && report.signature.len() <= MAX_SIGNATURE_BYTES);
        }
        Control::Reported { numbers } => assert!(numbers.len() <= MAX_OUTCOMES),
        Control::Hello(_) | Control::Head { .. } | Control::Goodbye { .. } | Control::Unknown => {}
    }
    let frame = message.to_frame();
    let (header, again) = frame.split_first_chunk::<4>().expect("a frame has a header");
    assert_eq!(Control::frame_length(*header), Ok(again.len()), "the frame announces itself");
    // A list of one number may come without the length that a list is written with; nothing else grows.
    let packing = match &message {
        Control::Have { pieces, .. } => usize::from(pieces.len() == 1),
        Control::Reported { numbers } => usize::from(numbers.len() == 1),
        _ => 0,
    };
    let most = body.len().max(1) + packing;
    assert!(again.len() <= most, "decoding and encoding made {} bytes of {}", again.len(), body.len());
    assert_eq!(Control::decode(again), Ok(message));
    true
}

fn check_handle(handle: u32) {
    assert!(handle < MAX_SESSION_ARTIFACTS);
}

fn check_block(block: BlockRange) {
    assert!(block.offset.is_multiple_of(u64::from(LEAF_BYTES)));
    assert!((1..=MAX_BLOCK_BYTES).contains(&block.length));
    assert!(block.end() > block.offset);
}

/// A metadata request and an answer: bounded, and the same after their encoding.
pub fn meta(bytes: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(request) = MetaRequest::decode(bytes) {
        accepted = true;
        let encoded = request.encode();
        assert!(encoded.len() as u64 <= MAX_META_REQUEST_BYTES);
        assert_eq!(MetaRequest::decode(&encoded).as_ref(), Ok(&request));
        assert!(request.max_response_bytes() <= MAX_META_RESPONSE_BYTES);
    }
    if let Ok(response) = MetaResponse::decode(bytes) {
        accepted = true;
        let encoded = response.encode();
        assert!(encoded.len() as u64 <= MAX_META_RESPONSE_BYTES);
        assert_eq!(MetaResponse::decode(&encoded), Ok(response));
    }
    accepted
}

/// The first byte says how the rest arrives. A line is whole however it was cut, and no more than
/// allowed is held of it; requests and answers survive being written.
pub fn control_socket(bytes: &[u8]) -> bool {
    let Some((step, stream)) = bytes.split_first() else { return false };
    let mut accepted = false;
    let mut lines = stream.split(|byte| *byte == b'\n');
    let mut buffer = LineBuffer::new(MAX_REQUEST_BYTES);
    for chunk in stream.chunks(usize::from(*step).max(1)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            match buffer.push(rest) {
                Ok(Pushed::More) => break,
                Ok(Pushed::Complete(taken)) => {
                    let line = buffer.take();
                    assert_eq!(Some(line.as_slice()), lines.next(), "a line lost its shape");
                    accepted |= request(&line);
                    rest = &rest[taken..];
                }
                Err(error) => {
                    assert_eq!(error.limit, MAX_REQUEST_BYTES);
                    return accepted;
                }
            }
        }
    }
    accepted |= request(stream);
    reply::<StatusView>(stream);
    reply::<PeersView>(stream);
    reply::<ReleasesView>(stream);
    reply::<HistoryView>(stream);
    reply::<FetchView>(stream);
    reply::<InstallView>(stream);
    reply::<TicketView>(stream);
    reply::<PublishView>(stream);
    accepted
}

fn request(line: &[u8]) -> bool {
    // A request is also what a client of another version may send as an answer.
    let _ = serde_json::from_slice::<Line<Request>>(line);
    match decode_request(line) {
        Ok(request) => {
            let _ = request.streams();
            let written = serde_json::to_vec(&request).expect("a request came as JSON and can go as JSON");
            assert_eq!(decode_request(&written), Ok(request));
            true
        }
        Err(error) => {
            let refusal = encode_line(&Line::<()>::Error(error));
            assert!(refusal.len() <= MAX_REPLY_BYTES && refusal.ends_with(b"\n"));
            false
        }
    }
}

fn reply<R: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(line: &[u8]) {
    let Ok(read) = serde_json::from_slice::<Line<R>>(line) else { return };
    let written = encode_line(&read);
    let again: Line<R> = serde_json::from_slice(&written).expect("an answer that was read can be written");
    assert_eq!(again, read);
}
