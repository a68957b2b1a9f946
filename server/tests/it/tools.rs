//! Tools and reasoning on the chat route: what the template sees, what clients get back, what is refused.

use duet_core::testing::{FakeConfig, Reply};
use serde_json::{Value, json};

use crate::support::gguf::Header;
use crate::support::{TEMPLATE, TOOL_TEMPLATE, World, assert_transcript, prompt_text as prompt};

const CALL: &str =
    "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}})
}

/// A request with these further fields.
fn body(more: Value) -> String {
    let mut body =
        json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": [weather()]});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn a_call_whole() {
    let server = World::with_tools(CALL).start().await;
    let answer = server.chat(&body(json!({"seed": 1}))).await;
    assert_transcript!("tools_whole", answer.text());
}

#[tokio::test]
async fn a_call_streamed() {
    let text = "é\n<tool_call>{\"name\": \"weather\", \"arguments\": {\"a\":1}}\n</tool_call>";
    let server = World::with_tools(text).start().await;
    let answer = server.chat(&body(json!({"stream": true, "stream_options": {"include_usage": true}}))).await;
    assert_transcript!("tools_stream", answer.text());
}

#[tokio::test]
async fn only_calls_have_null_content_and_ids_differ() {
    let call = "<tool_call>{\"name\":\"weather\",\"arguments\":{}}</tool_call>\n";
    let server = World::with_tools(&call.repeat(2)).start().await;
    let answer = server.chat(&body(json!({}))).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&Value::Null, &json!("tool_calls"))
    );
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!(calls[0]["function"]["arguments"], "{}");
    let one = server.chat(&body(json!({"parallel_tool_calls": false}))).await.json();
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_call_that_breaks_off_ends_with_length() {
    let server = World::with_tools(CALL).start().await;
    let answer = server.chat(&body(json!({"max_tokens": 70}))).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Bon");
}

#[tokio::test]
async fn what_only_looks_like_a_call_is_content() {
    for text in ["<tool_call>weather</tool_call>", "<tool_call>{\"nam", "no < call"] {
        let server = World::with_tools(text).start().await;
        let choice = server.chat(&body(json!({}))).await.json()["choices"][0].take();
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!("stop")));
    }
}

#[tokio::test]
async fn without_tools_nothing_is_a_call() {
    let server = World::with_tools(CALL).start().await;
    for more in [json!({"tools": []}), json!({"tools": null}), json!({"tool_choice": "none"})] {
        let choice = server.chat(&body(more)).await.json()["choices"][0].take();
        assert_eq!(choice["message"]["content"], CALL);
        assert_eq!(choice["finish_reason"], "stop");
        assert!(!prompt(&server).contains("<tools>"));
    }
}

#[tokio::test]
async fn the_template_sees_tools_calls_and_results() {
    let server = World::with_tools("ok").start().await;
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Bonn\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]);
    assert_eq!(server.chat(&body(json!({"messages": messages}))).await.status, 200);
    insta::assert_snapshot!(prompt(&server), @r#"
    <bos><|im_start|>system
    <tools>{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}</tools><|im_end|>
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    <tool_call>weather {"city": "Bonn"}</tool_call><|im_end|>
    <|im_start|>tool
    rain<|im_end|>
    <|im_start|>assistant
    "#);
}

#[tokio::test]
async fn a_template_without_tools_gets_them_as_text() {
    let header = Header { context_length: 8192, ..Header::default() };
    let config = FakeConfig { reply: Reply::text(CALL), ..FakeConfig::default() };
    let server = World::new().fake("m", header, config).start().await;
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]);
    let answer = server.chat(&body(json!({"messages": messages}))).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    insta::assert_snapshot!(prompt(&server), @r#"
    <bos><|im_start|>system
    You can call these functions:
    <tools>
    {"name":"weather","description":"of a city","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}
    </tools>
    If one of them helps, call it instead of answering: write the function's name and its arguments as JSON between tags, like
    <tool_call>
    {"name": "NAME", "arguments": {}}
    </tool_call>
    The result comes back between <tool_response> tags.<|im_end|>
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name":"weather","arguments":{}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    rain
    </tool_response><|im_end|>
    <|im_start|>assistant
    "#);
}

#[tokio::test]
async fn reasoning_is_split_off_whole_and_streamed() {
    let server = World::with_tools("<think>\nHm, é.\n</think>\n\nYes.").start().await;
    let body = |more: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
    let answer = server.chat(&body("")).await.json();
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!("Yes."), &json!("Hm, é.")));
    assert_eq!(
        answer["usage"]["completion_tokens_details"]["reasoning_tokens"],
        "<think>\nHm, é.\n</think>".len() - 6
    );
    let streamed = server.chat(&body(r#","stream":true"#)).await;
    let join = |field: &str| -> String {
        let chunks = streamed.chunks();
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str()).collect()
    };
    assert_eq!((join("content"), join("reasoning_content")), ("Yes.".into(), "Hm, é.".into()));
}

#[tokio::test]
async fn thinking_is_switched_by_either_name() {
    let server = World::with_tools("ok").start().await;
    for (more, thinks) in [
        (json!({"enable_thinking": false}), false),
        (json!({"reasoning_effort": "none"}), false),
        (json!({"reasoning_effort": "high"}), true),
        (json!({}), true),
    ] {
        assert_eq!(server.chat(&body(more.clone())).await.status, 200, "{more}");
        assert_eq!(!prompt(&server).contains("</think>"), thinks, "{more}");
    }
    let both = json!({"enable_thinking": false, "reasoning_effort": "high"});
    let refused = (400, "invalid_value".to_owned(), Some("reasoning_effort".to_owned()));
    assert_eq!(server.chat(&body(both)).await.error(), refused);
}

#[tokio::test]
async fn tools_that_are_switched_off_are_refused() {
    let world = World::with_tools("ok").change("m", |model| model.tool_parser = Some("none".into()));
    let refused = (400, "unsupported_parameter".to_owned(), Some("tools".to_owned()));
    assert_eq!(world.start().await.chat(&body(json!({}))).await.error(), refused);
}

#[tokio::test]
async fn malformed_tools() {
    let server = World::with_tools("ok").start().await;
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    for (more, code, param) in [
        (json!({"tools": {}}), "invalid_type", "tools"),
        (json!({"tools": [1]}), "invalid_type", "tools[0]"),
        (json!({"tools": [{}]}), "missing_parameter", "tools[0].function"),
        (json!({"tools": [{"type": "web_search"}]}), "unsupported_parameter", "tools[0].type"),
        (function(json!({})), "missing_parameter", "tools[0].function"),
        (function(json!({"name": 1})), "invalid_type", "tools[0].function.name"),
        (function(json!({"name": ""})), "invalid_value", "tools[0].function.name"),
        (function(json!({"name": "a b"})), "invalid_value", "tools[0].function.name"),
        (function(json!({"name": "a", "parameters": []})), "invalid_type", "tools[0].function.parameters"),
        (json!({"tools": [weather(), weather()]}), "invalid_value", "tools[1].function.name"),
        (json!({"parallel_tool_calls": "no"}), "invalid_type", "parallel_tool_calls"),
        (json!({"tool_choice": "sometimes"}), "invalid_value", "tool_choice"),
        (json!({"tool_choice": 1}), "invalid_value", "tool_choice"),
        (json!({"tool_choice": {"type": "tool"}}), "invalid_value", "tool_choice"),
        (json!({"tool_choice": {"type": "function"}}), "missing_parameter", "tool_choice.function.name"),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "other"}}}),
            "invalid_value",
            "tool_choice.function.name",
        ),
        (json!({"tools": [], "tool_choice": "required"}), "invalid_value", "tool_choice"),
        (
            json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "never"}}}),
            "invalid_value",
            "tool_choice.allowed_tools.mode",
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"name": "x"}]}}}),
            "invalid_value",
            "tool_choice.allowed_tools.tools[0]",
        ),
    ] {
        let expected = (400, code.to_owned(), Some(param.to_owned()));
        assert_eq!(server.chat(&body(more.clone())).await.error(), expected, "{more}");
    }
}

#[tokio::test]
async fn allowed_tools_are_all_that_the_model_sees() {
    let other = json!({"type": "function", "function": {"name": "other"}});
    let server = World::with_tools("ok").start().await;
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
        {"type": "function", "function": {"name": "other"}}]}});
    let answer = server.chat(&body(json!({"tools": [weather(), other], "tool_choice": allowed}))).await;
    assert_eq!(answer.status, 200);
    assert!(prompt(&server).contains("\"other\"") && !prompt(&server).contains("\"weather\""));
}

/// The engine draws noise: whatever comes out is the grammar's doing.
#[tokio::test]
async fn required_and_named_calls_are_enforced() {
    let other = json!({"type": "function", "function": {"name": "other", "parameters": {
        "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false}}});
    for template in [
        TEMPLATE,
        TOOL_TEMPLATE,
        "{{ tools }}<|start_header_id|>",
        "{{ tools }}[TOOL_CALLS]",
        "{{ tools }}<arg_key>",
    ] {
        let header = Header { chat_template: Some(template), context_length: 8192, ..Header::default() };
        let config = FakeConfig { reply: Reply::Hash, ..FakeConfig::default() };
        let server = World::new().fake("m", header, config).start().await;
        let named = json!({"type": "function", "function": {"name": "other"}});
        for seed in 0..3 {
            let asked = json!({"tools": [weather(), other], "tool_choice": named, "seed": seed, "parallel_tool_calls": false});
            let choice = server.chat(&body(asked)).await.json()["choices"][0].take();
            assert_eq!(choice["finish_reason"], "tool_calls", "{template}: {choice}");
            assert_eq!(choice["message"]["content"], Value::Null, "{choice}");
            let call = &choice["message"]["tool_calls"][0]["function"];
            assert_eq!(call["name"], "other");
            let arguments: Value =
                serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
            assert!(arguments["on"].is_boolean(), "{call}");
        }
    }
}
