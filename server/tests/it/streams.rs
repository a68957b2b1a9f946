//! Clients that leave, queues that are full, connections that are quiet.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use duet_core::testing::{FakeConfig, FakeGate, Reply};
use futures_util::StreamExt;

use crate::support::gguf::Header;
use crate::support::{Answer, Running, World, post, until_async};

const CHAT: &str = "/v1/chat/completions";

fn body(fields: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}]{fields}}}"#)
}

/// A model with a gate in front of its steps.
async fn gated(parallel: u32, max_queue: u64, reply: Reply) -> (Arc<Running>, Arc<FakeGate>) {
    let gate = FakeGate::closed();
    let config = FakeConfig { gate: Some(gate.clone()), reply, ..FakeConfig::default() };
    let world = World::new().fake("m", Header::default(), config);
    let world = world.change("m", |model| {
        model.parallel = Some(parallel);
        model.max_queue = Some(max_queue);
    });
    let server = Arc::new(world.start().await);
    server.server.load("m").await.expect("it loads");
    (server, gate)
}

/// Running and waiting requests, as the engine counts them.
async fn load(server: &Running) -> (u64, u64) {
    let model = server.get("/health").await.json()["models"]["m"].clone();
    (model["n_running"].as_u64().expect("a count"), model["n_waiting"].as_u64().expect("a count"))
}

async fn open(server: &Running, fields: &str) -> BodyDataStream {
    let response = server.send(post(CHAT, &body(fields))).await;
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

async fn frame(stream: &mut BodyDataStream) -> String {
    let bytes = stream.next().await.expect("a frame").expect("bodies never fail");
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_client_that_leaves_its_stream_frees_the_sequence_within_a_step() {
    let (server, gate) = gated(1, 4, Reply::Hash).await;
    gate.let_through(2);
    let mut stream = open(&server, r#","stream":true"#).await;
    assert!(frame(&mut stream).await.contains("\"role\":\"assistant\""));
    until_async(async || load(&server).await == (1, 0)).await;
    drop(stream);
    gate.let_through(1);
    until_async(async || load(&server).await == (0, 0)).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_a_whole_answer_frees_the_sequence() {
    let (server, gate) = gated(1, 4, Reply::Hash).await;
    let call = |fields: &'static str| {
        let server = server.clone();
        tokio::spawn(async move { server.chat(&body(fields)).await })
    };
    gate.let_through(1); // the engine counts between steps
    let running = call("");
    until_async(async || load(&server).await == (1, 0)).await;
    let queued = call("");
    until_async(async || load(&server).await == (1, 1)).await;
    // The queued one leaves first and does not touch the running one.
    queued.abort();
    assert!(queued.await.is_err());
    gate.let_through(1);
    until_async(async || load(&server).await == (1, 0)).await;
    running.abort();
    assert!(running.await.is_err());
    gate.let_through(1);
    until_async(async || load(&server).await == (0, 0)).await;
}

#[tokio::test]
async fn a_client_that_leaves_between_choices_frees_all_of_them() {
    let (server, gate) = gated(3, 4, Reply::Hash).await;
    gate.let_through(1);
    let mut stream = open(&server, r#","stream":true,"n":3"#).await;
    frame(&mut stream).await;
    until_async(async || {
        gate.let_through(1); // the three need not be in the same step
        load(&server).await.0 == 3
    })
    .await;
    drop(stream);
    gate.let_through(2);
    until_async(async || load(&server).await == (0, 0)).await;
}

#[tokio::test]
async fn a_full_queue_is_429_at_once() {
    let (server, gate) = gated(1, 1, Reply::text("ok")).await;
    let call = || {
        let server = server.clone();
        tokio::spawn(async move { server.chat(&body("")).await })
    };
    gate.let_through(1); // the engine counts between steps
    let first = call();
    until_async(async || load(&server).await == (1, 0)).await;
    let second = call();
    until_async(async || load(&server).await == (1, 1)).await;
    for fields in ["", r#","stream":true"#] {
        let refused = server.chat(&body(fields)).await;
        assert_eq!(refused.error(), (429, "queue_full".into(), None));
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(refused.json()["error"]["type"], "overloaded_error");
    }
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(second.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn one_answer_with_many_prompts_does_not_fill_the_queue() {
    let (server, gate) = gated(2, 1, Reply::Echo).await;
    gate.open();
    let prompts: Vec<String> = (0..40).map(|n| format!("\"<{n}>\"")).collect();
    let body = format!(r#"{{"model":"m","prompt":[{}],"max_tokens":8}}"#, prompts.join(","));
    let answer = server.post("/v1/completions", &body).await.json();
    let choices = answer["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 40);
    for (n, choice) in choices.iter().enumerate() {
        assert_eq!(
            (choice["index"].as_u64(), choice["text"].as_str()),
            (Some(n as u64), Some(format!("<{n}>").as_str()))
        );
    }
}

#[tokio::test]
async fn streamed_choices_have_one_role_and_one_end_each() {
    let (server, gate) = gated(2, 4, Reply::text("ab")).await;
    gate.open();
    let answer = server.chat(&body(r#","stream":true,"n":2,"stream_options":{"include_usage":true}"#)).await;
    let chunks = answer.chunks();
    let of = |index: u64| chunks.iter().filter(move |chunk| chunk["choices"][0]["index"] == index);
    for index in 0..2 {
        let text: String =
            of(index).filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "ab");
        assert_eq!(of(index).filter(|chunk| chunk["choices"][0]["delta"]["role"] == "assistant").count(), 1);
        let ends: Vec<_> = of(index)
            .map(|chunk| &chunk["choices"][0]["finish_reason"])
            .filter(|end| !end.is_null())
            .collect();
        assert_eq!(ends, ["stop"]);
    }
    let usage = &chunks.last().expect("chunks")["usage"];
    assert_eq!((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()), (Some(22), Some(6)));
    let ids: std::collections::HashSet<_> = chunks.iter().map(|chunk| chunk["id"].as_str()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_gets_comments_from_the_start() {
    let (server, gate) = gated(1, 4, Reply::text("ok")).await;
    // The clock runs by itself while nothing else does.
    let began = tokio::time::Instant::now();
    let mut stream = open(&server, r#","stream":true"#).await;
    assert_eq!(began.elapsed().as_secs(), 15, "the headers wait so long for a first token");
    assert_eq!(frame(&mut stream).await, ": keep-alive\n\n");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(frame(&mut stream).await, ": keep-alive\n\n");
    assert_eq!(began.elapsed().as_secs(), 45);
    gate.open();
    let mut rest = String::new();
    while let Some(bytes) = stream.next().await {
        rest.push_str(std::str::from_utf8(&bytes.expect("bodies never fail")).expect("UTF-8"));
    }
    let events: Vec<&str> = rest.split("\n\n").filter(|event| event.starts_with("data: ")).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    assert_eq!(events.len(), 5);
}

#[tokio::test]
async fn a_body_is_read_in_pieces() {
    let (server, gate) = gated(1, 4, Reply::text("ok")).await;
    gate.open();
    let text = body("");
    let pieces: Vec<_> =
        text.as_bytes().chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let request = axum::http::Request::post(CHAT).header("content-type", "application/json");
    let request = request.body(Body::from_stream(futures_util::stream::iter(pieces))).expect("a request");
    assert_eq!(Answer::read(server.send(request).await).await.status, 200);
}
