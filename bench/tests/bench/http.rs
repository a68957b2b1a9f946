//! The client against servers that answer as they should, and in every other way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duet_bench::Clock;
use duet_bench::http::{Answer, Client, CompletionRequest, HttpError, Usage};
use tokio::sync::Semaphore;

use crate::stub::{Act, Stub, end, event, head, text, whole};

/// A clock that the test moves.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn set(&self, ms: u64) {
        self.0.store(ms * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

fn client(stub: &Stub) -> (Client, Arc<Hand>) {
    let clock = Arc::new(Hand::default());
    (Client::new(stub.address, clock.clone()), clock)
}

fn request() -> CompletionRequest {
    CompletionRequest::new("m", vec![1, 2, 3], 2)
}

async fn answer(acts: Vec<Act>) -> Result<Answer, HttpError> {
    let stub = Stub::completing(acts).await;
    client(&stub).0.complete(&request()).await?.finish().await
}

#[tokio::test]
async fn each_piece_has_the_instant_at_which_its_event_was_complete() {
    let permits = Arc::new(Semaphore::new(0));
    let whole = text("a");
    let (first, second) = whole.split_at(20);
    let acts = vec![
        head(),
        Act::Send(first.to_owned()),
        Act::Await(permits.clone()),
        Act::Send(second.to_owned()),
        Act::Await(permits.clone()),
        Act::Send(text("b") + &text("c") + ": a comment\n\n"),
        Act::Await(permits.clone()),
        Act::Send(end(3, 1, 4)),
    ];
    let stub = Stub::completing(acts).await;
    let (client, clock) = client(&stub);
    clock.set(5);
    let mut stream = client.complete(&request()).await.unwrap();
    clock.set(7);
    permits.add_permits(1);
    assert_eq!(stream.next().await.unwrap().unwrap().at_ns, 7_000_000);
    clock.set(20);
    permits.add_permits(1);
    for _ in 0..2 {
        assert_eq!(stream.next().await.unwrap().unwrap().at_ns, 20_000_000);
    }
    clock.set(31);
    permits.add_permits(1);
    assert!(stream.next().await.is_none());
    assert!(stream.next().await.is_none(), "and it stays ended");
    let answer = stream.finish().await.unwrap();
    assert_eq!((answer.sent_ns, answer.ended_ns), (5_000_000, Some(31_000_000)));
    assert_eq!(answer.time_to_first_token(), Some(Duration::from_millis(2)));
    assert_eq!(answer.arrivals(), [Duration::from_millis(7), Duration::from_millis(20)]);
    let usage = Usage { prompt_tokens: 3, completion_tokens: 4, cached_tokens: Some(1) };
    assert_eq!((answer.usage, answer.n_tokens(), answer.n_evaluated()), (Some(usage), 4, Some(2)));
    assert_eq!(answer.finish_reason.as_deref(), Some("length"));
    assert_eq!(answer.system_fingerprint.as_deref(), Some("fp_stub"));
    assert_eq!(answer.timings.unwrap()["prompt_n"], 2);
}

#[tokio::test]
async fn the_request_is_what_both_servers_take() {
    let (sender, got) = std::sync::mpsc::channel();
    let stub = Stub::new(move |got| {
        sender.send(got.clone()).expect("the test waits");
        vec![head(), Act::Send(text("a") + &end(3, 0, 1))]
    })
    .await;
    client(&stub).0.complete(&request()).await.unwrap().finish().await.unwrap();
    let got = got.recv().unwrap();
    assert_eq!(got.line, "POST /v1/completions");
    let expected = serde_json::json!({
        "model": "m", "prompt": [1, 2, 3], "max_tokens": 2, "temperature": 0.0, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true},
    });
    assert_eq!(got.body, expected);
}

#[tokio::test]
async fn an_answer_without_counts_counts_its_pieces() {
    let answer = answer(vec![head(), Act::Send(text("a") + &text("") + &text("b") + "data: [DONE]\n\n")])
        .await
        .unwrap();
    assert_eq!((answer.pieces.len(), answer.n_tokens(), answer.n_evaluated()), (2, 2, None));
}

#[tokio::test]
async fn a_refusal_is_told_with_its_body() {
    let body = r#"{"error":{"message":"no room","code":429}}"#;
    let error = answer(whole("429 Too Many Requests", body)).await.unwrap_err();
    assert!(matches!(&error, HttpError::Status { status: 429, body } if body.contains("no room")), "{error}");
    let error = answer(whole("500 Internal Server Error", &"x".repeat(100_000))).await.unwrap_err();
    assert!(error.to_string().len() < 500);
    let error = answer(whole("200 OK", "{}")).await.unwrap_err();
    assert!(error.to_string().contains("not a stream of events"), "{error}");
}

#[tokio::test]
async fn malformed_events_end_the_stream_with_an_error() {
    let texts = [
        "data: {\"choices\":[{\"te\n\n",
        "data: \n\n",
        "data: []\n\n",
        "data: [DONE\n\n",
        "data: {\"choices\":[{\"text\":7}]}\n\n",
        "data: {\"choices\":\ndata: [{\"text\":}]}\n\n",
    ];
    for data in texts {
        let stub = Stub::completing(vec![head(), Act::Send(text("a") + data + &text("b"))]).await;
        let mut stream = client(&stub).0.complete(&request()).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok(), "{data}");
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(matches!(error, HttpError::Malformed { .. }), "{data}: {error}");
        assert!(stream.next().await.is_none(), "{data}: nothing after the error");
        assert_eq!(stream.leave().pieces.len(), 1, "{data}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_end_the_stream_with_an_error() {
    let mut bytes = b"data: {\"choices\":[{\"text\":\"".to_vec();
    bytes.extend([0xff, 0xfe, b'"', b'}', b']', b'}', b'\n', b'\n']);
    let error = answer(vec![head(), Act::Bytes(bytes)]).await.unwrap_err();
    assert!(matches!(error, HttpError::Stream(_)), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_early_is_not_an_answer() {
    for sent in ["", &text("a"), &text("a")[..30], ": comment\n\n", &(text("a") + "data: [DONE]\n")] {
        let error = answer(vec![head(), Act::Send(sent.to_owned())]).await.unwrap_err();
        assert!(matches!(error, HttpError::EndedEarly { .. }), "{sent}: {error}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    for rest in ["", "ff\r\ndata: ", "zz\r\n", "5\r\ndata:\r\n"] {
        let error = answer(vec![Act::Send(chunked.to_owned() + rest)]).await.unwrap_err();
        assert!(matches!(error, HttpError::Stream(_)), "{rest:?}: {error}");
    }
}

#[tokio::test]
async fn a_failure_in_the_stream_is_told() {
    let failed =
        event(&serde_json::json!({"error": {"message": "the engine is gone", "code": "engine_crashed"}}));
    let error = answer(vec![head(), Act::Send(text("a") + &failed)]).await.unwrap_err();
    assert!(matches!(&error, HttpError::ErrorEvent { event } if event.contains("engine is gone")), "{error}");
}

#[tokio::test]
async fn what_is_not_http_is_an_error() {
    for reply in ["", "HTTP/1.1", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"] {
        let error = answer(vec![Act::Send(reply.to_owned())]).await.unwrap_err();
        assert!(matches!(error, HttpError::Exchange { .. }), "{reply:?}: {error}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let stub = Stub::completing(Vec::new()).await;
    let (client, _) = client(&stub);
    drop(stub);
    crate::stub::gone(&client).await;
    let error = client.complete(&request()).await.unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn leaving_closes_the_connection() {
    let stub = Stub::completing({
        let mut acts = vec![head()];
        // More than socket buffers hold, so that the server notices.
        acts.extend(vec![Act::Send(text("a").repeat(1000)); 1000]);
        acts
    })
    .await;
    let mut stream = client(&stub).0.complete(&request()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert!(!stream.leave().pieces.is_empty());
    stub.idle().await;
}
