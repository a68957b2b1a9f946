//! What the settings and requests say of prefixes and priorities reaches the engine.

use duet_core::backend::{DiskTierSpec, PrefixCacheSpec};
use duet_core::request::Priority;
use duet_core::testing::Reply;
use duet_server::{RawCache, Size};
use serde_json::json;

use crate::support::metrics::Scrape;
use crate::support::{Running, World};

async fn specs(server: &Running, names: &[&str]) -> Vec<PrefixCacheSpec> {
    for name in names {
        server.server.load(name).await.expect("it loads");
    }
    let specs = server.backend.specs.lock().expect("no panic");
    specs.iter().map(|spec| spec.prefix_cache.clone()).collect()
}

#[tokio::test]
async fn a_sole_model_gets_an_eighth_of_what_is_free() {
    let server = World::replying("").start().await;
    let all = PrefixCacheSpec { enabled: true, host_bytes: 512 << 20, disk: None };
    assert_eq!(specs(&server, &["m"]).await, [all]);
}

#[tokio::test]
async fn models_share_what_the_settings_give_and_one_may_have_none() {
    let mut world = World::new()
        .model("a", Reply::text(""))
        .model("b", Reply::text(""))
        .model("off", Reply::text(""))
        .change("off", |model| model.prefix_cache = Some(false));
    let dir = world.dir.path().join("prefixes");
    world.raw.cache = RawCache {
        ram_bytes: Some(Size(1 << 20)),
        disk_dir: Some(dir.clone().into()),
        disk_bytes: Some(Size(1 << 30)),
    };
    let server = world.start().await;
    let disk = Some(DiskTierSpec { dir, max_bytes: 1 << 30 });
    let on = |host_bytes| PrefixCacheSpec { enabled: true, host_bytes, disk: disk.clone() };
    let off = PrefixCacheSpec { enabled: false, host_bytes: 0, disk: None };
    assert_eq!(specs(&server, &["a", "off", "b"]).await, [on(1 << 19), off, on(1 << 19)]);
}

#[tokio::test]
async fn prefixes_count_as_memory_that_the_next_model_cannot_have() {
    let mut world = World::new().model("a", Reply::text("")).model("b", Reply::text(""));
    world = world.change("b", |model| model.prefix_cache = Some(false));
    world.memory.total_bytes = 64 << 20;
    world.memory.available_bytes = 64 << 20;
    world.raw.cache.ram_bytes = Some(Size(1 << 40));
    let server = world.start().await;
    let first = specs(&server, &["a"]).await.remove(0);
    assert!((1..64 << 20).contains(&first.host_bytes), "what weights and KV cache leave: {first:?}");
    let error = server.server.load("b").await.expect_err("no room");
    assert_eq!(error.code.as_str(), "insufficient_memory");
}

#[tokio::test]
async fn the_slowdown_of_streams_reaches_the_engine() {
    let world = World::new().model("a", Reply::text("")).model("b", Reply::text(""));
    let server = world.change("b", |model| model.stream_slowdown = Some(3.5)).start().await;
    specs(&server, &["a", "b"]).await;
    let specs = server.backend.specs.lock().expect("no panic");
    assert_eq!(specs.iter().map(|spec| spec.stream_slowdown).collect::<Vec<_>>(), [1.8, 3.5]);
}

#[tokio::test]
async fn a_request_says_how_urgent_it_is_and_whether_prefixes_are_kept() {
    let server = World::replying("ok").start().await;
    for (fields, priority, use_prefix_cache) in [
        ("", Priority::Interactive, true),
        (r#","priority":"interactive","cache_prompt":true"#, Priority::Interactive, true),
        (r#","priority":"batch""#, Priority::Batch, true),
        (r#","priority":null,"cache_prompt":null"#, Priority::Interactive, true),
        (r#","priority":0"#, Priority::Interactive, true),
        (r#","cache_prompt":false"#, Priority::Interactive, false),
    ] {
        for (path, prompt) in [
            ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "Hi"}]})),
            ("/v1/completions", json!({"prompt": "Hi"})),
        ] {
            let prompt = prompt.to_string();
            let body = format!(r#"{{"model":"m",{}{fields}}}"#, &prompt[1..prompt.len() - 1]);
            let answer = server.post(path, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(!answer.headers.contains_key("x-duet-ignored"), "{fields}");
            let request = server.backend.orders.requests.lock().expect("no panic").pop().expect("a request");
            assert_eq!(
                (request.priority, request.use_prefix_cache),
                (priority, use_prefix_cache),
                "{fields}"
            );
        }
    }
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// `usage` and `timings` of an answer, whole or streamed.
async fn counts(server: &Running, path: &str, body: &str) -> (serde_json::Value, serde_json::Value) {
    let answer = server.post(path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let last = match body.contains("\"stream\":true") {
        true => answer.chunks().pop().expect("chunks"),
        false => answer.json(),
    };
    (last["usage"].clone(), last["timings"].clone())
}

/// Prompt tokens, those that were cached, and the same of `timings`: evaluated, found.
async fn tokens(server: &Running, path: &str, body: &str) -> [u64; 4] {
    let (usage, timings) = counts(server, path, body).await;
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{usage} {timings}"));
    assert_eq!(
        number(&usage["total_tokens"]),
        number(&usage["prompt_tokens"]) + number(&usage["completion_tokens"])
    );
    [
        number(&usage["prompt_tokens"]),
        number(&usage["prompt_tokens_details"]["cached_tokens"]),
        number(&timings["prompt_n"]),
        number(&timings["cache_n"]),
    ]
}

#[tokio::test]
async fn cached_tokens_are_told_on_both_routes_streamed_and_whole() {
    let streamed = r#","stream":true,"stream_options":{"include_usage":true}"#;
    for (path, prompt) in [
        (CHAT, r#""messages":[{"role":"user","content":"Hello"}]"#),
        (TEXT, r#""prompt":"Hello there, all of you""#),
    ] {
        for fields in ["", streamed] {
            let server = World::replying("ok").start().await;
            let body = format!(r#"{{"model":"m",{prompt}{fields}}}"#);
            let [n, cached, evaluated, found] = tokens(&server, path, &body).await;
            assert_eq!((cached, evaluated, found), (0, n, 0), "{body}");
            // At least one token is evaluated, or there would be no logits.
            assert_eq!(tokens(&server, path, &body).await, [n, n - 1, 1, n - 1], "{body}");
            let open = format!(r#"{{"model":"m",{prompt}{fields},"cache_prompt":false}}"#);
            assert_eq!(tokens(&server, path, &open).await, [n, 0, n, 0], "{open}");
            let scrape = Scrape::of(&server).await;
            assert_eq!(scrape.of_m("duet_request_cached_tokens_sum"), (n - 1) as f64);
            assert_eq!(scrape.of_m("vllm:prefix_cache_hits_total"), (n - 1) as f64);
            assert_eq!(scrape.of_m("vllm:prefix_cache_queries_total"), (2 * n) as f64);
            assert_eq!(scrape.of_m("vllm:prompt_tokens_total"), (2 * n + 1) as f64);
        }
    }
}

#[tokio::test]
async fn a_request_that_wants_no_cache_leaves_nothing_for_others() {
    let server = World::replying("ok").start().await;
    let body = |fields: &str| format!(r#"{{"model":"m","prompt":"Hello there, all of you"{fields}}}"#);
    for _ in 0..2 {
        assert_eq!(tokens(&server, TEXT, &body(r#","cache_prompt":false"#)).await[1], 0);
    }
    assert_eq!(tokens(&server, TEXT, &body("")).await[1], 0);
    assert_eq!(tokens(&server, TEXT, &body("")).await, [24, 23, 1, 23]);
}

#[tokio::test]
async fn a_model_without_a_prefix_cache_finds_nothing() {
    let server = World::replying("ok").change("m", |model| model.prefix_cache = Some(false)).start().await;
    for _ in 0..2 {
        let body = r#"{"model":"m","prompt":"Hello there, all of you"}"#;
        assert_eq!(tokens(&server, TEXT, body).await, [24, 0, 24, 0]);
    }
}

#[tokio::test]
async fn a_prompt_counts_once_for_all_its_choices() {
    let server = World::replying("ok").start().await;
    let body = r#"{"model":"m","prompt":"Hello there, all of you","n":2}"#;
    let [n, cached, evaluated, found] = tokens(&server, TEXT, body).await;
    assert_eq!((n, cached), (24, 0), "one choice had to read it");
    assert_eq!(evaluated + found, 48, "over both choices");
    assert_eq!(tokens(&server, TEXT, body).await, [24, 23, 2, 46]);
    let two = r#"{"model":"m","prompt":["Hello there, all of you","Something else altogether"]}"#;
    assert_eq!(tokens(&server, TEXT, two).await, [50, 23, 27, 23]);
    assert_eq!(tokens(&server, TEXT, two).await, [50, 48, 2, 48]);
}
