//! Metadata requests and their bounds.

use updraft_protocol::digest::Digest;
use updraft_protocol::limits::MAX_HEAD_BYTES;
use updraft_protocol::meta::{MetaFile, MetaRequest, MetaResponse};

use super::harness::{Node, TCP, introduce};
use crate::engine::effect::SwarmEffect;
use crate::engine::input::SwarmInput;

fn request(file: MetaFile) -> MetaRequest {
    MetaRequest { repository: Digest::of(b"a repository"), file }
}

async fn ask(node: &Node, peer: &Node, request_id: u64, file: MetaFile) {
    node.tell(SwarmEffect::MetaAsk { request_id, peer: peer.peer.clone(), request: request(file) }).await;
}

async fn asked(node: &mut Node) -> (u64, MetaRequest) {
    node.wait("a question", |input| match input {
        SwarmInput::MetaAsked { channel, request, .. } => Some((channel, request)),
        _ => None,
    })
    .await
}

async fn answered(node: &mut Node) -> (u64, Result<MetaResponse, String>) {
    node.wait("an answer", |input| match input {
        SwarmInput::MetaAnswered { request_id, result, .. } => Some((request_id, result)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut one, &mut other).await;
    let file = MetaFile::Manifest { sha256: Digest::ZERO };
    ask(&one, &other, 42, file.clone()).await;
    let (channel, question) = asked(&mut other).await;
    assert_eq!(question, request(file));
    let answer = MetaResponse::File(vec![7; 8 << 20]);
    other.tell(SwarmEffect::MetaAnswer { channel, response: answer.clone() }).await;
    assert!(answered(&mut one).await == (42, Ok(answer)));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_may_come_in_any_order() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut one, &mut other).await;
    ask(&one, &other, 1, MetaFile::Head).await;
    let (first, _) = asked(&mut other).await;
    ask(&one, &other, 2, MetaFile::Root { version: 1 }).await;
    let (second, _) = asked(&mut other).await;
    other.tell(SwarmEffect::MetaAnswer { channel: second, response: MetaResponse::NotFound }).await;
    assert_eq!(answered(&mut one).await, (2, Ok(MetaResponse::NotFound)));
    let refused = MetaResponse::Refused { reason: "later".to_owned() };
    other.tell(SwarmEffect::MetaAnswer { channel: first, response: refused.clone() }).await;
    assert_eq!(answered(&mut one).await, (1, Ok(refused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_longer_than_the_question_allows_is_refused() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut one, &mut other).await;
    ask(&one, &other, 1, MetaFile::Head).await;
    let (channel, _) = asked(&mut other).await;
    let response = MetaResponse::File(vec![7; MAX_HEAD_BYTES + 100]);
    other.tell(SwarmEffect::MetaAnswer { channel, response }).await;
    let (_, result) = answered(&mut one).await;
    assert!(result.as_ref().is_err_and(|reason| reason.contains("the most here is")), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_questions_are_refused_here_and_the_others_answered() {
    let (mut one, mut other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    introduce(&mut one, &mut other).await;
    for request_id in 0..65 {
        ask(&one, &other, request_id, MetaFile::Head).await;
    }
    let (refused, result) = answered(&mut one).await;
    assert_eq!((refused, result), (64, Err("too many requests are open".to_owned())));
    for _ in 0..64 {
        let (channel, _) = asked(&mut other).await;
        other.tell(SwarmEffect::MetaAnswer { channel, response: MetaResponse::NotFound }).await;
    }
    for _ in 0..64 {
        assert_eq!(answered(&mut one).await.1, Ok(MetaResponse::NotFound));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_nobody_is_answered_at_once() {
    let (mut one, other) = (Node::with_seed(1, TCP).await, Node::with_seed(2, TCP).await);
    ask(&one, &other, 1, MetaFile::Head).await;
    assert_eq!(answered(&mut one).await, (1, Err("the peer is not connected".to_owned())));
}
