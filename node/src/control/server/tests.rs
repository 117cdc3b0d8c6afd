//! The control socket as clients meet it: real sockets, a runtime played by the test.

use super::*;
use crate::control::MAX_QUEUED_EVENTS;
use crate::control::client::{Client, ClientError, Reply};
use crate::control::messages::{Event, Phase, Progress, Request, Response};
use crate::control::results::InstallView;
use crate::control::views::Schema;
use serde::de::IgnoredAny;
use tokio::task::{JoinHandle, spawn_blocking};
use updraft_protocol::time::UtcTime;

struct Node {
    dir: tempfile::TempDir,
    calls: mpsc::Receiver<Call>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn node() -> Node {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::bind(dir.path()).expect("binds");
    let (sender, calls) = mpsc::channel(4);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(sender, shutdown.clone()));
    Node { dir, calls, shutdown, task }
}

fn event(seq: u64, text: &str) -> Event {
    Event {
        seq,
        at: UtcTime::from_unix(0),
        kind: "test".to_owned(),
        product: None,
        version: None,
        peer: None,
        text: text.to_owned(),
        fields: serde_json::Map::new(),
    }
}

fn events() -> Request {
    Request::Events { follow: true, since: None }
}

#[tokio::test]
async fn progress_then_a_result_make_the_round_trip() {
    let mut node = node();
    let view = InstallView {
        schema: Schema,
        product: "editor".parse().expect("a name"),
        directory: "/opt/editor".into(),
        from: None,
        to: "1.0.0".to_owned(),
    };
    let request = Request::Install { product: view.product.clone(), version: None, now: true };
    let data_dir = node.dir.path().to_owned();
    let asked = request.clone();
    let client = spawn_blocking(move || {
        let mut conversation = Client::connect(&data_dir)?.send(&asked)?;
        let first = conversation.receive::<InstallView>()?;
        let second = conversation.receive::<InstallView>()?;
        Ok::<_, ClientError>((first, second))
    });
    let call = node.calls.recv().await.expect("a call");
    assert_eq!(call.request, request);
    let progress = Progress::local(Phase::Staging, 1, Some(2));
    call.reply.progress(progress.clone());
    call.reply.finish(Ok(Response::Install(view.clone())));
    let (first, second) = client.await.expect("no panic").expect("answers");
    assert_eq!(first, Reply::Progress(progress));
    assert_eq!(second, Reply::End(view));
}

#[tokio::test]
async fn an_error_keeps_its_code_message_and_hint() {
    let mut node = node();
    let data_dir = node.dir.path().to_owned();
    let client = spawn_blocking(move || Client::connect(&data_dir)?.send(&Request::Peers {})?.finish::<IgnoredAny>());
    let body = ErrorBody::new(ErrorCode::BlockedByPolicy, "paused").with_hint("ask the publisher");
    node.calls.recv().await.expect("a call").reply.finish(Err(body.clone()));
    let error = client.await.expect("no panic").expect_err("refused");
    assert!(matches!(error, ClientError::Refused(refusal) if refusal == body));
}

#[tokio::test]
async fn nonsense_is_answered_with_a_usage_error() {
    let node = node();
    let data_dir = node.dir.path().to_owned();
    let answer = spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = socket::connect(&data_dir)?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, io::Error>(text)
    });
    let text = answer.await.expect("no panic").expect("answers");
    assert!(text.starts_with(r#"{"error":{"code":"usage""#), "{text}");
}

#[tokio::test]
async fn a_request_without_end_is_cut_off_at_the_limit() {
    let node = node();
    let data_dir = node.dir.path().to_owned();
    let answer = spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = socket::connect(&data_dir)?;
        let chunk = [b' '; 4096];
        while stream.write_all(&chunk).is_ok() {}
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        Ok::<_, io::Error>(text)
    });
    answer.await.expect("no panic").expect("is cut off");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let mut node = node();
    let data_dir = node.dir.path().to_owned();
    let conversation = spawn_blocking(move || Client::connect(&data_dir)?.send(&events()));
    let call = node.calls.recv().await.expect("a call");
    drop(conversation.await.expect("no panic").expect("sent"));
    timeout(Duration::from_secs(5), call.reply.closed()).await.expect("is noticed");
}

#[tokio::test]
async fn a_slow_event_reader_loses_the_oldest_and_learns_how_many() {
    let mut node = node();
    let data_dir = node.dir.path().to_owned();
    let conversation = spawn_blocking(move || Client::connect(&data_dir)?.send(&events()));
    let call = node.calls.recv().await.expect("a call");
    let mut conversation = conversation.await.expect("no panic").expect("sent");
    // Far more than the socket's buffers and the queue hold together, while nobody reads.
    let text = "x".repeat(1000);
    let total = 4000;
    for seq in 1..=total {
        call.reply.event(event(seq, &text));
        tokio::task::yield_now().await;
    }
    call.reply.finish(Ok(Response::Done {}));
    let (received, dropped, last) = spawn_blocking(move || {
        let (mut received, mut dropped, mut last) = (0, 0, 0);
        loop {
            match conversation.receive::<IgnoredAny>().expect("answers") {
                Reply::Event(event) => {
                    assert!(event.seq > last, "in order");
                    last = event.seq;
                    received += 1;
                }
                Reply::Dropped(count) => dropped += count,
                Reply::Progress(_) => {}
                Reply::End(_) => return (received, dropped, last),
            }
        }
    })
    .await
    .expect("no panic");
    assert_eq!(received + dropped, total);
    assert!(dropped > 0);
    assert!(received >= MAX_QUEUED_EVENTS as u64);
    assert_eq!(last, total, "the newest are kept");
}

#[tokio::test]
async fn one_client_too_many_is_told_so() {
    let mut node = node();
    let mut kept = Vec::new();
    for _ in 0..MAX_CLIENTS {
        let data_dir = node.dir.path().to_owned();
        let conversation = spawn_blocking(move || Client::connect(&data_dir)?.send(&events()));
        kept.push((node.calls.recv().await.expect("a call"), conversation.await.expect("no panic").expect("sent")));
    }
    let data_dir = node.dir.path().to_owned();
    let refused = spawn_blocking(move || Client::connect(&data_dir)?.send(&events())?.finish::<IgnoredAny>());
    let error = refused.await.expect("no panic").expect_err("refused");
    assert!(matches!(error, ClientError::Refused(body) if body.message.contains("already serves")));
}

#[tokio::test]
async fn stopping_ends_every_conversation_and_removes_the_socket() {
    let mut node = node();
    let data_dir = node.dir.path().to_owned();
    let client = spawn_blocking(move || Client::connect(&data_dir)?.send(&events())?.finish::<IgnoredAny>());
    let _call = node.calls.recv().await.expect("a call");
    node.shutdown.cancel();
    let error = client.await.expect("no panic").expect_err("the node stopped");
    assert!(matches!(error, ClientError::Refused(body) if body.code == ErrorCode::NodeUnreachable));
    node.task.await.expect("no panic");
    assert!(!socket::socket_path(node.dir.path()).exists());
}
