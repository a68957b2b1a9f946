//! OpenAI's Responses over the fake engine.

use duet_core::testing::{FakeConfig, FakeGate, Reply};
use serde_json::{Value, json};

use crate::support::gguf::Header;
use crate::support::{Answer, Running, TOOL_TEMPLATE, World, assert_transcript, prompt_text};

const PATH: &str = "/v1/responses";
const CALL: &str = "<think>\nHm.\n</think>\n\nOk.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"a\": 1}}\n</tool_call>";

async fn send(server: &Running, more: Value) -> Answer {
    let mut body = json!({"model": "m", "input": "Hi", "tools": [{"type": "function", "name": "weather",
        "parameters": {"type": "object"}}]});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    server.post(PATH, &body.to_string()).await
}

#[tokio::test]
async fn a_response_whole() {
    let server = World::with_tools(CALL).start().await;
    let answer = send(&server, json!({})).await;
    assert_transcript!("response_whole", answer.text());
}

#[tokio::test]
async fn a_response_streamed() {
    let server = World::with_tools(CALL).start().await;
    let answer = send(&server, json!({"stream": true})).await;
    assert_transcript!("response_stream", answer.text());
    let numbers = answer.text().matches("\"sequence_number\":").count();
    assert!(
        answer.text().contains(&format!("\"sequence_number\":{}}}", numbers - 1)),
        "they rise without a gap"
    );
}

#[tokio::test]
async fn a_response_becomes_a_chat() {
    let server = World::with_tools("ok").start().await;
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "See"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"a\": 1}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    ]);
    let answer = send(
        &server,
        json!({"input": input, "instructions": "S", "max_output_tokens": 1, "temperature": 0.5,
        "top_p": 0.9, "parallel_tool_calls": false, "reasoning": {"effort": "none"}, "metadata": {"a": "b"},
        "tool_choice": "auto", "text": {"format": {"type": "text"}}}),
    )
    .await
    .json();
    assert_eq!(
        (&answer["status"], &answer["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!((&answer["metadata"], &answer["temperature"]), (&json!({"a": "b"}), &json!(0.5)));
    assert!(prompt_text(&server).ends_with(
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSee\
         <tool_call>weather {\"a\": 1}</tool_call><|im_end|>\n<|im_start|>tool\nrain<|im_end|>\n\
         <|im_start|>assistant\n<think>\n\n</think>\n\n"
    ));
}

#[tokio::test]
async fn responses_are_kept_continued_and_deleted() {
    let server = World::with_tools("ok").start().await;
    let first = send(&server, json!({"instructions": "S"})).await.json();
    let id = first["id"].as_str().expect("an id").to_owned();
    assert_eq!(server.get(&format!("{PATH}/{id}")).await.json(), first);
    let second =
        send(&server, json!({"previous_response_id": id, "input": "More", "store": false})).await.json();
    assert!(prompt_text(&server).ends_with(
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    ));
    assert!(!prompt_text(&server).contains("system\nS"), "instructions hold once");
    let unkept = second["id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("{PATH}/{unkept}")).await.status, 404);
    assert_eq!(server.post(&format!("{PATH}/{id}/cancel"), "").await.status, 400);
    let delete = |id: &str| {
        axum::http::Request::delete(format!("{PATH}/{id}"))
            .body(axum::body::Body::empty())
            .expect("a request")
    };
    assert_eq!(server.call(delete(&id)).await.json()["deleted"], true);
    assert_eq!(server.call(delete(&id)).await.status, 404);
    let gone = send(&server, json!({"previous_response_id": id})).await;
    assert_eq!(gone.error(), (404, "not_found".into(), Some("previous_response_id".into())));
}

/// Fetches until it is no longer being made.
async fn ended(server: &Running, id: &str) -> Value {
    loop {
        let response = server.get(&format!("{PATH}/{id}")).await.json();
        if response["status"] != "in_progress" {
            return response;
        }
        tokio::task::yield_now().await;
    }
}

async fn begin(server: &Running) -> String {
    let begun = send(server, json!({"background": true})).await.json();
    assert_eq!((&begun["status"], &begun["background"]), (&json!("in_progress"), &json!(true)));
    assert_eq!(begun["output"], json!([]));
    begun["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_response_in_the_background_is_fetched_and_cancelled() {
    let gate = FakeGate::closed();
    let config = FakeConfig { reply: Reply::text("ok"), gate: Some(gate.clone()), ..FakeConfig::default() };
    let header = Header { chat_template: Some(TOOL_TEMPLATE), context_length: 8192, ..Header::default() };
    let server = World::new().fake("m", header, config).start().await;
    let [first, second, third] = [begin(&server).await, begin(&server).await, begin(&server).await];
    let cancel = async |id: &str| server.post(&format!("{PATH}/{id}/cancel"), "").await.json();
    assert_eq!(cancel(&second).await["status"], "cancelled");
    let delete = axum::http::Request::delete(format!("{PATH}/{third}")).body(axum::body::Body::empty());
    assert_eq!(server.call(delete.expect("a request")).await.json()["deleted"], true);
    let early = send(&server, json!({"previous_response_id": first})).await;
    assert_eq!(early.error(), (400, "invalid_value".into(), Some("previous_response_id".into())));

    gate.open();
    let whole = ended(&server, &first).await;
    assert_eq!((&whole["status"], &whole["background"]), (&json!("completed"), &json!(true)));
    assert_eq!(whole["output"][0]["content"][0]["text"], "ok");
    assert_eq!(cancel(&first).await, whole, "too late changes nothing");
    assert_eq!(ended(&server, &second).await["status"], "cancelled");
    assert_eq!(server.get(&format!("{PATH}/{third}")).await.status, 404);
    let next = send(&server, json!({"previous_response_id": first, "input": "More"})).await.json();
    assert_eq!(next["status"], "completed");
}

#[tokio::test]
async fn a_response_that_fails_in_the_background_says_why() {
    let config = FakeConfig { fail_step: Some(0), ..FakeConfig::default() };
    let header = Header { chat_template: Some(TOOL_TEMPLATE), context_length: 8192, ..Header::default() };
    let server = World::new().fake("m", header, config).start().await;
    let id = begin(&server).await;
    let failed = ended(&server, &id).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("engine_error")));
}

#[tokio::test]
async fn malformed_responses() {
    let server = World::with_tools("ok").start().await;
    let item = |item: Value| json!({"input": [item]});
    for (more, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (item(json!({"type": "item_reference", "id": "x"})), "input[0].type"),
        (item(json!({"role": "user"})), "input[0].content"),
        (item(json!({"role": "robot", "content": ""})), "input[0].role"),
        (item(json!({"role": "user", "content": [{"type": "input_image"}]})), "input[0].content[0]"),
        (item(json!({"type": "function_call", "name": "f"})), "input[0].call_id"),
        (item(json!({"type": "function_call_output", "call_id": "f"})), "input[0].output"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"background": 1}), "background"),
        (json!({"background": true, "store": false}), "background"),
        (json!({"background": true, "stream": true}), "stream"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"temperature": 3}), "temperature"),
    ] {
        let (status, _, found) = send(&server, more.clone()).await.error();
        assert_eq!((status, found.as_deref()), (400, Some(param)), "{more}");
    }
}

#[tokio::test]
async fn what_responses_leave_out_is_said() {
    let server = World::with_tools("ok").start().await;
    let answer = send(
        &server,
        json!({"text": {"verbosity": "low"}, "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"]}),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-duet-ignored"], "reasoning.summary, text.verbosity");
    let usual = send(
        &server,
        json!({"text": {"verbosity": "medium"}, "reasoning": {"summary": null}, "include": []}),
    )
    .await;
    assert!(!usual.headers.contains_key("x-duet-ignored"));
    let schema = json!({"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"a": {"type": "colour"}}}});
    for (more, param) in [
        (json!({"include": ["message.output_text.logprobs"]}), "include[0]"),
        (json!({"input": "long ".repeat(9000)}), "input"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"tools": null, "text": {"format": schema}}), "text.format.schema.properties.a"),
        (json!({"tools": [{"type": "function", "name": "a b"}]}), "tools[0].name"),
    ] {
        let answer = send(&server, more).await;
        let text = answer.text();
        let (status, _, found) = answer.error();
        assert_eq!((status, found.as_deref()), (400, Some(param)), "{text}");
        assert!(text.contains(param), "{text}");
    }
}
