//! `/metrics`: what is counted, under which names, and that no request can add a label.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use duet_core::backend::EngineLoad;
use duet_core::testing::{FakeConfig, FakeGate, Reply};
use futures_util::StreamExt;
use tokio::sync::Semaphore;

use crate::support::gguf::Header;
use crate::support::metrics::Scrape;
use crate::support::{Running, World, post, until, until_async};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str, fields: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]{fields}}}"#)
}

fn ended(scrape: &Scrape, reason: &str) -> f64 {
    let labels = format!(r#"{{engine="fake",finished_reason="{reason}",model_name="m"}}"#);
    scrape.value(&format!("vllm:request_success_total{labels}"))
}

#[tokio::test]
async fn a_server_that_has_done_nothing_has_metrics() {
    let server = World::new().start().await;
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.value("duet_requests_active"), 0.0);
    for state in ["receiving", "preparing", "loading", "waiting", "generating"] {
        assert_eq!(scrape.value(&format!(r#"duet_requests_cancelled_total{{state="{state}"}}"#)), 0.0);
    }
    assert!(!scrape.series.keys().any(|key| key.contains("vllm:")), "there is no model");
}

#[tokio::test]
async fn requests_are_measured_under_vllms_names() {
    let server = World::replying("abc").start().await;
    server.chat(&chat("m", "")).await;
    server.chat(&chat("m", r#","stream":true,"max_tokens":2"#)).await;
    server.post("/v1/completions", r#"{"model":"m","prompt":"Hi","n":2}"#).await;
    let scrape = Scrape::of(&server).await;
    for name in [
        "vllm:time_to_first_token_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:request_time_per_output_token_seconds",
        "vllm:request_queue_time_seconds",
        "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",
        "vllm:request_inference_time_seconds",
        "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens",
        "duet_request_cached_tokens",
        "duet_request_batch_width",
    ] {
        assert_eq!(scrape.of_m(&format!("{name}_count")), 4.0, "{name}");
        assert_eq!(scrape.kinds[name], "histogram", "{name}");
    }
    // Gaps between the tokens that are shown: two of three, one of two.
    assert_eq!(scrape.of_m("vllm:inter_token_latency_seconds_count"), 3.0 * 2.0 + 1.0);
    assert_eq!(scrape.of_m("vllm:request_prompt_tokens_sum"), 22.0 + 22.0 + 2.0 * 3.0);
    assert_eq!(scrape.of_m("vllm:request_generation_tokens_sum"), 4.0 + 2.0 + 2.0 * 4.0);
    assert_eq!(scrape.of_m("duet_request_overhead_seconds_count"), 3.0, "per request, not per choice");
    assert_eq!(["stop", "length", "abort"].map(|reason| ended(&scrape, reason)), [3.0, 1.0, 0.0]);
    let up_to_2 = r#"vllm:request_generation_tokens_bucket{engine="fake",model_name="m",le="2"}"#;
    assert_eq!(scrape.value(up_to_2), 1.0);
}

#[tokio::test]
async fn engines_counters_are_read_at_the_moment_of_asking() {
    let server = World::replying("abc").start().await;
    server.chat(&chat("m", "")).await;
    let mut load = EngineLoad::default();
    load.n_waiting = 3;
    load.n_running = 2;
    load.n_cells = 400;
    load.n_cells_used = 100;
    load.n_forward_passes = 10;
    load.n_cancelled = 4;
    load.n_prompt_tokens = 1000;
    load.n_completion_tokens = 50;
    load.n_prefix_queried = 2000;
    load.n_prefix_hits = 1500;
    load.n_preempted = 6;
    *server.backend.orders.load.lock().expect("no panic") = Some(load);
    let scrape = Scrape::of(&server).await;
    for (name, kind, value) in [
        ("vllm:num_requests_waiting", "gauge", 3.0),
        ("vllm:num_requests_running", "gauge", 2.0),
        ("vllm:kv_cache_usage_perc", "gauge", 0.25),
        ("vllm:prompt_tokens_total", "counter", 1000.0),
        ("vllm:generation_tokens_total", "counter", 50.0),
        ("vllm:prefix_cache_queries_total", "counter", 2000.0),
        ("vllm:prefix_cache_hits_total", "counter", 1500.0),
        ("vllm:num_preemptions_total", "counter", 6.0),
        ("duet_forward_passes_total", "counter", 10.0),
        ("duet_engine_cancellations_total", "counter", 4.0),
        ("duet_kv_cells", "gauge", 400.0),
        ("duet_kv_cells_used", "gauge", 100.0),
    ] {
        assert_eq!((scrape.kinds[name].as_str(), scrape.of_m(name)), (kind, value), "{name}");
    }
    assert_eq!(scrape.of_m("vllm:iteration_tokens_total_count"), 10.0);
    assert_eq!(scrape.of_m("vllm:iteration_tokens_total_sum"), 1050.0);
    *server.backend.orders.load.lock().expect("no panic") = Some(EngineLoad::default());
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.of_m("vllm:kv_cache_usage_perc"), 0.0, "no cells: no division by 0");
}

/// One request of each kind that carries a word of the client's own.
async fn with_word(server: &Running, word: &str) {
    server.chat(&chat(&format!("model-{word}"), "")).await;
    server.get(&format!("/nowhere/{word}")).await;
    server.get(&format!("/v1/models/{word}")).await;
    server.chat(&chat("m", &format!(r#","field-{word}":1"#))).await;
    server.chat(&format!("{{\"{word}")).await;
    let method = format!("M{word}");
    let request = Request::builder().method(method.as_str()).uri(CHAT).body(Body::empty());
    server.call(request.expect("a request")).await;
    let foreign = Request::get("/livez").header("host", format!("{word}.example")).body(Body::empty());
    server.call(foreign.expect("a request")).await;
}

#[tokio::test]
async fn no_request_can_add_a_series_of_its_own() {
    let server = World::replying("ok").start().await;
    with_word(&server, "0").await;
    Scrape::of(&server).await; // a route is counted when it has answered
    let before = Scrape::of(&server).await;
    for n in 1..20 {
        with_word(&server, &n.to_string()).await;
    }
    let after = Scrape::of(&server).await;
    assert!(before.series.keys().eq(after.series.keys()));
    for (key, value) in [
        (r#"duet_errors_total{code="model_not_found"}"#, 40.0),
        (r#"duet_errors_total{code="not_found"}"#, 20.0),
        (r#"duet_errors_total{code="invalid_json"}"#, 20.0),
        (r#"duet_errors_total{code="method_not_allowed"}"#, 20.0),
        (r#"duet_errors_total{code="host_not_allowed"}"#, 20.0),
        (r#"duet_http_requests_total{route="other",status="404"}"#, 20.0),
        (r#"duet_http_requests_total{route="/v1/models/{*id}",status="404"}"#, 20.0),
        (r#"duet_http_requests_total{route="/v1/chat/completions",status="200"}"#, 20.0),
        (r#"duet_http_requests_total{route="/v1/chat/completions",status="405"}"#, 20.0),
        (r#"duet_http_request_duration_seconds_count{route="/livez"}"#, 20.0),
        ("duet_ignored_fields_total", 20.0),
    ] {
        assert_eq!(after.value(key), value, "{key}");
    }
}

#[tokio::test]
async fn names_with_quotes_and_backslashes_are_escaped() {
    let name = r#"a"b\c"#;
    let server = World::new().raw_model(name, "none.gguf", |_| {}).start().await;
    let body = serde_json::json!({"model": name, "prompt": "x"}).to_string();
    assert_eq!(server.post("/v1/completions", &body).await.error().1, "model_load_failed");
    let key = r#"duet_model_loads_total{model_name="a\"b\\c",result="error"}"#;
    assert_eq!(Scrape::of(&server).await.value(key), 1.0);
}

#[tokio::test]
async fn loads_and_memory_are_told_and_asking_waits_for_no_load() {
    let door = Arc::new(Semaphore::new(0));
    let mut world = World::replying("ok").model("other", Reply::text("here"));
    world.backend.door = Some(door.clone());
    let server = Arc::new(world.start().await);
    let (asked, body) = (server.clone(), chat("m", ""));
    let request = tokio::spawn(async move { asked.chat(&body).await });
    until(|| server.backend.n_loads.load(Ordering::SeqCst) == 1).await;
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.value(r#"duet_models{state="loading"}"#), 1.0);
    assert_eq!(scrape.value(r#"duet_models{state="unloaded"}"#), 1.0);
    let reserved = scrape.value(r#"duet_reserved_bytes{model_name="m"}"#);
    assert!(reserved > 0.0);
    assert_eq!(scrape.value("duet_budget_bytes"), (4u64 << 30) as f64);
    door.add_permits(1);
    assert_eq!(request.await.expect("no panic").status, 200);
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.value(r#"duet_models{state="ready"}"#), 1.0);
    assert_eq!(scrape.of_m("duet_resident_bytes"), reserved);
    assert_eq!(scrape.of_m("duet_prefix_cache_limit_bytes"), (256 << 20) as f64);
    assert!(!scrape.kinds.contains_key("duet_reserved_bytes"));
    assert_eq!(scrape.value(r#"duet_model_loads_total{model_name="m",result="ok"}"#), 1.0);
    assert_eq!(scrape.of_m("duet_model_load_duration_seconds_count"), 1.0);
    server.backend.n_failing.store(1, Ordering::SeqCst);
    door.add_permits(1);
    server.chat(&chat("other", "")).await;
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.value(r#"duet_model_loads_total{model_name="other",result="error"}"#), 1.0);
    assert_eq!(scrape.value(r#"duet_errors_total{code="model_load_failed"}"#), 1.0);
    assert_eq!(scrape.value(r#"duet_models{state="failed"}"#), 1.0);
}

/// A model with one sequence and a gate in front of its steps.
async fn gated() -> (Arc<Running>, Arc<FakeGate>) {
    let gate = FakeGate::closed();
    let config = FakeConfig { gate: Some(gate.clone()), reply: Reply::Hash, ..FakeConfig::default() };
    let world = World::new().fake("m", Header::default(), config);
    let server = Arc::new(world.change("m", |model| model.parallel = Some(1)).start().await);
    server.server.load("m").await.expect("it loads");
    (server, gate)
}

async fn cancelled(server: &Running, state: &str) -> f64 {
    Scrape::of(server).await.value(&format!(r#"duet_requests_cancelled_total{{state="{state}"}}"#))
}

#[tokio::test]
async fn clients_that_leave_are_counted_by_what_their_request_was_doing() {
    let (server, gate) = gated().await;
    // Its body never comes.
    let never = futures_util::stream::pending::<Result<&str, std::io::Error>>();
    let request = Request::post(CHAT).header("content-type", "application/json");
    let request = request.body(Body::from_stream(never)).expect("a request");
    let asked = server.clone();
    let receiving = tokio::spawn(async move { asked.call(request).await });
    until_async(async || Scrape::of(&server).await.value("duet_requests_active") == 1.0).await;
    receiving.abort();
    assert!(receiving.await.is_err());
    assert_eq!(cancelled(&server, "receiving").await, 1.0);
    // The gate is closed: no token comes.
    let asked = server.clone();
    let waiting = tokio::spawn(async move { asked.chat(&chat("m", "")).await });
    until(|| server.backend.orders.requests.lock().expect("no panic").len() == 1).await;
    waiting.abort();
    assert!(waiting.await.is_err());
    assert_eq!(cancelled(&server, "waiting").await, 1.0);
    gate.let_through(3);
    let response = server.send(post(CHAT, &chat("m", r#","stream":true"#))).await;
    let mut stream = response.into_body().into_data_stream();
    stream.next().await.expect("a frame").expect("bodies never fail");
    assert_eq!(cancelled(&server, "generating").await, 0.0);
    drop(stream);
    assert_eq!(cancelled(&server, "generating").await, 1.0);
    gate.open();
    assert_eq!(ended(&Scrape::of(&server).await, "abort"), 2.0);
    until_async(async || Scrape::of(&server).await.of_m("duet_engine_cancellations_total") == 2.0).await;
    assert_eq!(server.chat(&chat("m", r#","max_tokens":2"#)).await.status, 200, "and the sequence is free");
    assert_eq!(Scrape::of(&server).await.value("duet_requests_active"), 0.0);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_model_loads() {
    let mut world = World::replying("ok");
    world.backend.door = Some(Arc::new(Semaphore::new(0)));
    let server = Arc::new(world.start().await);
    let asked = server.clone();
    let request = tokio::spawn(async move { asked.chat(&chat("m", "")).await });
    until(|| server.backend.n_loads.load(Ordering::SeqCst) == 1).await;
    request.abort();
    assert!(request.await.is_err());
    assert_eq!(cancelled(&server, "loading").await, 1.0);
}

#[tokio::test]
async fn failures_after_the_first_token_are_errors_and_no_cancellations() {
    let mut world = World::replying("abc");
    world.backend.models.get_mut("m").expect("there").fail_step = Some(3);
    let server = world.start().await;
    let answer = server.chat(&chat("m", r#","stream":true"#)).await;
    assert_eq!(answer.status, 200);
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.value(r#"duet_errors_total{code="engine_error"}"#), 1.0);
    assert_eq!(cancelled(&server, "generating").await, 0.0);
    assert_eq!(["stop", "length", "abort"].map(|reason| ended(&scrape, reason)), [0.0; 3]);
    assert_eq!(scrape.of_m("vllm:e2e_request_latency_seconds_count"), 0.0);
}

#[tokio::test]
async fn answers_say_what_the_server_took() {
    let server = World::replying("ok").start().await;
    for fields in ["", r#","stream":true"#] {
        let answer = server.chat(&chat("m", fields)).await;
        let us: u64 =
            answer.headers["x-duet-overhead-us"].to_str().expect("ASCII").parse().expect("a number");
        assert!(us > 0);
    }
    for refused in [chat("x", ""), chat("m", r#","n":0"#), "{".to_owned()] {
        assert!(!server.chat(&refused).await.headers.contains_key("x-duet-overhead-us"));
    }
}

#[tokio::test(start_paused = true)]
async fn headers_that_leave_before_the_engine_has_the_request_do_not_say_it() {
    let mut world = World::replying("ok");
    let door = Arc::new(Semaphore::new(0));
    world.backend.door = Some(door.clone());
    let server = Arc::new(world.start().await);
    let response = server.send(post(CHAT, &chat("m", r#","stream":true"#))).await;
    assert!(!response.headers().contains_key("x-duet-overhead-us"));
    door.add_permits(1);
    let answer = crate::support::Answer::read(response).await;
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    let scrape = Scrape::of(&server).await;
    assert_eq!(scrape.of_m("duet_request_overhead_seconds_count"), 1.0);
}
