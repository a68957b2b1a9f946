//! Whole answers, byte for byte, as clients get them.

use crate::support::{World, assert_transcript, post};

async fn transcript(world: World, path: &str, body: &str) -> String {
    let server = world.start().await;
    let answer = server.post(path, body).await;
    let header = |name: &str| answer.headers.get(name).map_or("-", |value| value.to_str().expect("ASCII"));
    let head = format!(
        "{} {}\ncache-control: {}\nx-duet-ignored: {}\n\n",
        answer.status.as_u16(),
        header("content-type"),
        header("cache-control"),
        header("x-duet-ignored")
    );
    head + answer.text()
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[tokio::test]
async fn chat_whole() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"seed":1}"#;
    assert_transcript!("chat_whole", transcript(World::replying("Grüße!"), CHAT, body).await);
}

#[tokio::test]
async fn chat_stream() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
    assert_transcript!("chat_stream", transcript(World::replying("Hé\n\""), CHAT, body).await);
}

#[tokio::test]
async fn chat_stream_with_usage() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,
        "stream_options":{"include_usage":true}}"#;
    assert_transcript!("chat_stream_with_usage", transcript(World::replying("ok"), CHAT, body).await);
}

#[tokio::test]
async fn chat_stream_that_is_empty() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
    assert_transcript!("chat_stream_that_is_empty", transcript(World::replying(""), CHAT, body).await);
}

#[tokio::test]
async fn chat_with_logprobs() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":1,
        "logprobs":true,"top_logprobs":2,"return_token_ids":true}"#;
    assert_transcript!("chat_with_logprobs", transcript(World::replying("ok"), CHAT, body).await);
}

#[tokio::test]
async fn chat_stream_with_logprobs_and_ids() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"H"}],"stream":true,
        "logprobs":true,"top_logprobs":1,"return_token_ids":true}"#;
    assert_transcript!(
        "chat_stream_with_logprobs_and_ids",
        transcript(World::replying("é"), CHAT, body).await
    );
}

#[tokio::test]
async fn chat_stopped_by_a_text_across_tokens() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,
        "stop":["ST","xx"],"unheard_of":1,"messages_":[]}"#;
    assert_transcript!("chat_stopped", transcript(World::replying("a S STOP"), CHAT, body).await);
}

#[tokio::test]
async fn text_whole() {
    let body = r#"{"model":"m","prompt":"One","max_tokens":3,"echo":true}"#;
    assert_transcript!("text_whole", transcript(World::replying(", two, three"), TEXT, body).await);
}

#[tokio::test]
async fn text_stream() {
    let body = r#"{"model":"m","prompt":"One","stream":true,"echo":true,"return_token_ids":true,
        "stream_options":{"include_usage":true}}"#;
    assert_transcript!("text_stream", transcript(World::replying(" 2"), TEXT, body).await);
}

#[tokio::test]
async fn text_of_several_prompts_with_logprobs() {
    let body = r#"{"model":"m","prompt":[[65,66],[67]],"max_tokens":2,"logprobs":1}"#;
    assert_transcript!("text_several", transcript(World::replying("äö"), TEXT, body).await);
}

#[tokio::test]
async fn models() {
    let server = World::replying("").start().await;
    let text = serde_json::to_string_pretty(&server.get("/v1/models").await.json()).expect("JSON");
    insta::with_settings!({filters => vec![(r#""created": \d+"#, r#""created": [time]"#)],
        prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("models", text);
    });
}

#[tokio::test]
async fn a_failure_after_the_first_token_is_the_last_event() {
    let mut world = World::replying("abc");
    world.backend.models.get_mut("m").expect("there").fail_step = Some(3);
    let body = r#"{"model":"m","messages":[{"role":"user","content":""}],"stream":true}"#;
    assert_transcript!("chat_stream_failed", transcript(world, CHAT, body).await);
}

#[tokio::test]
async fn a_failure_before_the_first_token_has_a_status() {
    let mut world = World::replying("abc");
    world.backend.models.get_mut("m").expect("there").fail_step = Some(0);
    let server = world.start().await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":""}],"stream":true}"#;
    let answer = server.call(post(CHAT, body)).await;
    assert_eq!(answer.error(), (500, "engine_error".into(), None));
}
