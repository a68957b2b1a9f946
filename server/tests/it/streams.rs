//! Clients that leave, queues that are full, connections that are quiet.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use duet_core::testing::{FakeConfig, FakeGate, Reply};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::support::gguf::Header;
use crate::support::metrics::Scrape;
use crate::support::{Answer, Running, World, post, until_async, until_mut};

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

/// The next frame under a paused clock, which must not jump while the engine's thread works: giving way is not being idle.
async fn frame_now(stream: &mut BodyDataStream) -> String {
    loop {
        if let Poll::Ready(frame) = poll_fn(|cx| Poll::Ready(stream.poll_next_unpin(cx))).await {
            let bytes = frame.expect("a frame").expect("bodies never fail");
            return String::from_utf8(bytes.to_vec()).expect("UTF-8");
        }
        tokio::task::yield_now().await;
    }
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
        gate.let_one_through(); // the three need not be in the same step
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
    let began = Instant::now();
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
async fn the_time_to_wait_is_the_engines_in_whole_seconds_up_to_a_minute() {
    let server = World::replying("ok").start().await;
    for (ms, expected) in
        [(0, "1"), (999, "1"), (1000, "1"), (12_300, "13"), (60_000, "60"), (3_600_000, "60")]
    {
        *server.backend.orders.overloaded.lock().expect("no panic") = Some(Duration::from_millis(ms));
        for fields in ["", r#","stream":true"#] {
            let refused = server.chat(&body(fields)).await;
            assert_eq!(refused.error(), (429, "queue_full".into(), None));
            assert_eq!(refused.headers["retry-after"], expected, "{ms} ms");
            assert_eq!(refused.json()["error"]["message"], "model `m` has 7 requests waiting already");
        }
    }
    *server.backend.orders.overloaded.lock().expect("no panic") = None;
    assert_eq!(server.chat(&body("")).await.status, 200);
}

#[tokio::test]
async fn a_full_server_is_429_whatever_the_model_and_listings_go_on() {
    let gate = FakeGate::closed();
    let config = FakeConfig { gate: Some(gate.clone()), reply: Reply::text("ok"), ..FakeConfig::default() };
    let mut world = World::new().fake("m", Header::default(), config).model("other", Reply::text("ok"));
    world.raw.server.max_requests = Some(2);
    let server = Arc::new(world.start().await);
    let to = |model: &str, fields: &str| body(fields).replace("\"m\"", &format!("\"{model}\""));
    let call = |model: &str| {
        let (server, body) = (server.clone(), to(model, ""));
        tokio::spawn(async move { server.chat(&body).await })
    };
    let (first, second) = (call("m"), call("m"));
    until_async(async || server.get("/health").await.json()["n_active_requests"] == 2).await;
    for (model, fields) in [("m", ""), ("other", ""), ("other", r#","stream":true"#), ("nobody", "")] {
        let refused = server.chat(&to(model, fields)).await;
        assert_eq!(refused.error(), (429, "queue_full".into(), None), "{model}");
        assert_eq!(refused.headers["retry-after"], "1");
    }
    assert_eq!(server.get("/v1/models").await.status, 200);
    assert_eq!(server.get("/metrics").await.status, 200);
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 200);
    assert_eq!(second.await.expect("no panic").status, 200);
    assert_eq!(call("other").await.expect("no panic").status, 200);
}

/// Tokens that the client does not see do not break the silence.
#[tokio::test(start_paused = true)]
async fn comments_depend_on_what_is_sent_and_not_on_tokens() {
    // A stop string that never completes: all text is kept back.
    let (server, gate) = gated(1, 4, Reply::text(&"a".repeat(100))).await;
    let stop = format!(r#","stream":true,"stop":"{}b""#, "a".repeat(99));
    gate.let_through(1);
    let mut stream = open(&server, &stop).await;
    assert!(frame_now(&mut stream).await.contains("\"role\":\"assistant\""));
    let began = Instant::now();
    let passes = async || Scrape::of(&server).await.of_m("duet_forward_passes_total");
    let mut next = Box::pin(frame(&mut stream));
    for step in 1..=4u32 {
        // The clock stands still while the engine works: giving way is not being idle.
        let before = passes().await;
        gate.let_through(1);
        until_async(async || passes().await > before).await;
        let due = began + Duration::from_secs(4) * step;
        let comment = tokio::time::timeout_at(due, &mut next).await.ok();
        let expected = (step == 4).then(|| ": keep-alive\n\n".to_owned());
        assert_eq!(comment, expected, "after {step} tokens");
    }
    assert_eq!(began.elapsed().as_secs(), 15);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_moves_the_next_comment() {
    let (server, gate) = gated(1, 4, Reply::text("ab")).await;
    gate.let_through(1);
    let mut stream = open(&server, r#","stream":true"#).await;
    frame_now(&mut stream).await;
    let began = Instant::now();
    assert_eq!(frame(&mut stream).await, ": keep-alive\n\n");
    assert_eq!(began.elapsed().as_secs(), 15);
    tokio::time::sleep(Duration::from_secs(10)).await;
    gate.let_through(1);
    let token = async || match poll_fn(|cx| Poll::Ready(stream.poll_next_unpin(cx))).await {
        Poll::Ready(Some(Ok(bytes))) => bytes.starts_with(b"data: "),
        Poll::Ready(other) => panic!("{other:?}"),
        Poll::Pending => false,
    };
    until_mut(token).await;
    assert_eq!(began.elapsed().as_secs(), 25);
    assert_eq!(frame(&mut stream).await, ": keep-alive\n\n");
    assert_eq!(began.elapsed().as_secs(), 40);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn comments_come_while_a_request_is_in_the_queue() {
    let (server, gate) = gated(1, 4, Reply::text("ok")).await;
    gate.let_through(1);
    let mut first = open(&server, r#","stream":true"#).await;
    frame_now(&mut first).await;
    let began = Instant::now();
    let mut queued = open(&server, r#","stream":true"#).await;
    for seconds in [30, 45, 60] {
        assert_eq!(frame(&mut queued).await, ": keep-alive\n\n");
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    gate.open();
    let mut text = String::new();
    while let Some(bytes) = queued.next().await {
        text.push_str(std::str::from_utf8(&bytes.expect("bodies never fail")).expect("UTF-8"));
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    drop(first);
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
