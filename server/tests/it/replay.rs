//! Answers by a script: which request gets which, and what becomes of them on every route.

use duet_core::testing::FakeConfig;
use serde_json::{Value, json};

use crate::support::gguf::Header;
use crate::support::{Running, TOOL_TEMPLATE, World};

/// A server that answers by this script.
async fn playing(script: &str) -> Running {
    let header = Header { chat_template: Some(TOOL_TEMPLATE), context_length: 8192, ..Header::default() };
    let mut world = World::new().fake("m", header, FakeConfig { n_holders: 4, ..FakeConfig::default() });
    let path = world.dir.path().join("script.jsonl");
    std::fs::write(&path, script).expect("a file in a temporary folder");
    world.raw.server.replay = Some(path.into());
    world.start().await
}

fn says(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[tokio::test]
async fn a_tool_loop_finds_its_last_turn_in_the_cache() {
    let call = "<tool_call>time {\"zone\": \"Bonn\"}</tool_call>";
    let json_call = "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"Bonn\"}}\n</tool_call>";
    assert_ne!(call, json_call, "the template's form and the family's");
    let script = says(&[
        json!({"says": format!("<think>a clock</think>{json_call}"), "last": "late"}),
        json!({"says": "Noon.", "last": "12:00"}),
    ]);
    let server = playing(&script).await;
    let tool = json!({"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}});
    let mut messages = vec![user("How late is it?")];
    let ask = |messages: &[Value]| json!({"model": "m", "messages": messages, "tools": [tool]}).to_string();
    let first = server.chat(&ask(&messages)).await.json();
    let choice = &first["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{first}");
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(function, &json!({"name": "time", "arguments": "{\"zone\": \"Bonn\"}"}));
    messages.push(choice["message"].clone());
    messages.push(
        json!({"role": "tool", "tool_call_id": choice["message"]["tool_calls"][0]["id"], "content": "12:00"}),
    );
    let second = server.chat(&ask(&messages)).await.json();
    assert_eq!(second["choices"][0]["message"]["content"], "Noon.");
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    let before = first["usage"]["prompt_tokens"].as_u64().expect("a number");
    assert!(cached + 1 >= before, "{cached} of {before}");
}

#[tokio::test]
async fn every_route_is_answered_by_it() {
    let server = playing("{\"says\": \"as told\", \"repeat\": true}").await;
    for (path, body, at) in [
        ("/v1/chat/completions", json!({"messages": [user("a")]}), "/choices/0/message/content"),
        ("/v1/completions", json!({"prompt": ["a", "b"], "max_tokens": 50}), "/choices/1/text"),
        ("/v1/messages", json!({"messages": [user("a")], "max_tokens": 50}), "/content/0/text"),
        ("/v1/responses", json!({"input": "a"}), "/output/0/content/0/text"),
    ] {
        let mut body = body;
        body["model"] = "m".into();
        body["temperature"] = 1.into();
        let answer = server.post(path, &body.to_string()).await;
        assert_eq!(answer.json().pointer(at), Some(&json!("as told")), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn what_the_script_has_no_turn_for_is_a_400() {
    let server = playing("{\"says\": \"a\", \"last\": \"ping\"}").await;
    let refused = (400, "invalid_value".to_owned(), Some("messages".to_owned()));
    let ask = |text: &str| json!({"model": "m", "messages": [user("ping"), user(text)]}).to_string();
    assert_eq!(server.chat(&ask("pong")).await.error(), refused);
    assert_eq!(server.chat(&ask("ping")).await.status, 200);
    assert_eq!(server.chat(&ask("ping")).await.error(), refused);
    let refused = (400, "invalid_value".to_owned(), Some("prompt".to_owned()));
    assert_eq!(server.post("/v1/completions", r#"{"model":"m","prompt":"x"}"#).await.error(), refused);
}

#[tokio::test]
async fn a_script_that_breaks_the_requests_form_is_a_400() {
    let server = playing("{\"says\": \"no JSON\", \"repeat\": true}").await;
    let body = json!({"model": "m", "messages": [user("a")], "response_format": {"type": "json_object"}});
    let answer = server.chat(&body.to_string()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("the script leaves it"), "{}", answer.text());
}
