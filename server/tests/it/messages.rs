//! Anthropic's Messages over the fake engine.

use serde_json::{Value, json};

use crate::support::{Running, World, assert_transcript, prompt_text};

const CALL: &str = "<think>\nHm.\n</think>\n\nOk.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"a\": 1}}\n</tool_call>";

fn body(more: Value) -> String {
    let mut body = json!({"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"name": "weather", "input_schema": {"type": "object"}}]});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body.to_string()
}

async fn send(server: &Running, more: Value) -> crate::support::Answer {
    server.post("/v1/messages", &body(more)).await
}

#[tokio::test]
async fn a_message_whole() {
    let server = World::with_tools(CALL).start().await;
    let answer = send(&server, json!({})).await;
    assert_transcript!("message_whole", answer.text());
    let cut = send(&server, json!({"max_tokens": 1})).await.json();
    assert_eq!(cut["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn a_message_streamed() {
    let server = World::with_tools(CALL).start().await;
    let answer = send(&server, json!({"stream": true})).await;
    assert_transcript!("message_stream", answer.text());
}

#[tokio::test]
async fn a_message_becomes_a_chat() {
    let server = World::with_tools("a stop b").start().await;
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "text", "text": "See"}, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": "no"},
            {"type": "text", "text": "Go on"}]},
    ]);
    let answer = send(&server, json!({"messages": messages, "system": [{"type": "text", "text": "S"}],
        "stop_sequences": [" stop"], "temperature": 0.5, "top_p": 0.9, "top_k": 4, "thinking": {"type": "disabled"},
        "tool_choice": {"type": "auto"}})).await;
    let message = answer.json();
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!(" stop"))
    );
    assert_eq!(message["content"], json!([{"type": "text", "text": "a"}]));
    let request = server.backend.orders.requests.lock().expect("no panic").last().expect("one").clone();
    assert_eq!((request.sampling.temperature, request.sampling.top_k), (0.5, 4));
    assert!(prompt_text(&server).ends_with(
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSee\
         <tool_call>weather {\"a\": 1}</tool_call><|im_end|>\n<|im_start|>tool\nError: no<|im_end|>\n\
         <|im_start|>user\nGo on<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ));
    let counted = server.post("/v1/messages/count_tokens", &body(json!({"max_tokens": null}))).await.json();
    let whole = send(&server, json!({})).await.json();
    assert_eq!(
        counted,
        json!({"input_tokens": whole["usage"]["input_tokens"].as_u64().expect("a count")
        + whole["usage"]["cache_read_input_tokens"].as_u64().expect("a count")})
    );
    let billing = json!({"system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}]});
    let answer = send(&server, billing).await;
    assert_eq!(answer.headers["x-duet-ignored"], "system[0]");
    assert!(!prompt_text(&server).contains("billing"));
}

#[tokio::test]
async fn malformed_messages() {
    let server = World::with_tools("ok").start().await;
    let block = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for (more, param) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "tool", "content": ""}]}), "messages[0].role"),
        (block(json!({"type": "text"})), "messages[0].content[0].text"),
        (block(json!({"type": "image", "source": {}})), "messages[0].content[0]"),
        (block(json!({"type": "tool_use"})), "messages[0].content[0].type"),
        (block(json!({"type": "tool_result"})), "messages[0].content[0].tool_use_id"),
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"tool_choice": {"type": "some"}}), "tool_choice.type"),
        (json!({"thinking": {"type": "hard"}}), "thinking.type"),
        (json!({"temperature": 3}), "temperature"),
    ] {
        let answer = send(&server, more.clone()).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text());
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains(&format!("`{param}`")), "{more}: {message}");
    }
}

#[tokio::test]
async fn a_message_in_a_form() {
    let server = World::new().model("m", duet_core::testing::Reply::Hash).start().await;
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 99}},
        "required": ["n"], "additionalProperties": false});
    let form = json!({"type": "json_schema", "schema": schema});
    let answer =
        send(&server, json!({"tools": null, "output_config": {"format": form, "effort": "high"}})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-duet-ignored"], "output_config.effort");
    let text = answer.json()["content"][0]["text"].as_str().expect("a text").to_owned();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert!((10..=99).contains(&value["n"].as_i64().expect("an integer")), "{text}");
    for (form, param) in [
        (json!({"type": "xml"}), "output_config.format.type"),
        (json!({"type": "json_schema"}), "output_config.format.schema"),
        (json!({"type": "json_schema", "schema": {"type": "colour"}}), "output_config.format.schema"),
    ] {
        let answer = send(&server, json!({"tools": null, "output_config": {"format": form}})).await;
        let message = answer.json()["error"]["message"].to_string();
        assert!(answer.status == 400 && message.contains(&format!("`{param}`")), "{form}: {message}");
    }
}

#[tokio::test]
async fn what_messages_leave_out_is_said() {
    let server = World::with_tools("ok").start().await;
    let answer = send(&server, json!({
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": true, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "citations": []}]}],
    }))
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = "messages[0].content[0].citations, thinking.budget_tokens, tools[0].strict";
    assert_eq!(answer.headers["x-duet-ignored"], said);
    for (more, param) in [
        (json!({"mcp_servers": [{"url": "http://x"}]}), "mcp_servers"),
        (json!({"container": "c"}), "container"),
        (json!({"stop_sequences": 5}), "stop_sequences"),
        (json!({"messages": [{"role": "user", "content": "long ".repeat(9000)}]}), "the prompt has"),
    ] {
        let answer = send(&server, more).await;
        let message = answer.json()["error"]["message"].to_string();
        assert!(answer.status == 400 && message.contains(param), "{param}: {message}");
    }
}
