//! What an answer has to look like, by each of its names; and prompts with their scores.

use crate::support::gguf::Header;
use duet_core::testing::{FakeConfig, Reply};
use serde_json::{Value, json};

use crate::support::{Running, World};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

async fn noisy() -> Running {
    World::new().model("m", Reply::Hash).start().await
}

fn body(path: &str, fields: &Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 60, "seed": 3});
    match path {
        CHAT => body["messages"] = json!([{"role": "user", "content": "Hi"}]),
        _ => body["prompt"] = json!("Hi"),
    }
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    body
}

/// Text and finish reason of both routes.
async fn texts(server: &Running, fields: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for path in [CHAT, TEXT] {
        let answer = server.post(path, &body(path, fields).to_string()).await;
        assert_eq!(answer.status, 200, "{fields}: {}", answer.text());
        assert!(!answer.headers.contains_key("x-duet-ignored"), "{fields}");
        let choice = answer.json()["choices"][0].clone();
        let text = choice["message"]["content"].as_str().or(choice["text"].as_str()).expect("a text");
        all.push((text.to_owned(), choice["finish_reason"].as_str().expect("a reason").to_owned()));
    }
    all
}

#[tokio::test]
async fn every_name_constrains() {
    let server = noisy().await;
    let schema = json!({
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 99}},
        "required": ["n"],
        "additionalProperties": false
    });
    for fields in [
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}),
        json!({"response_format": {"type": "json_object", "schema": schema}}),
        json!({"response_format": {"type": "json_schema", "schema": schema}}),
        json!({"json_schema": schema}),
        json!({"guided_json": schema}),
        json!({"guided_json": schema.to_string()}),
        json!({"structured_outputs": {"json": schema}}),
    ] {
        for (text, reason) in texts(&server, &fields).await {
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!((10..=99).contains(&value["n"].as_i64().expect("an integer")), "{text}");
            assert_eq!(reason, "stop", "{fields}");
        }
    }
    for fields in [
        json!({"guided_choice": ["ja", "nein"]}),
        json!({"guided_regex": "ja|nein"}),
        json!({"guided_grammar": "root ::= \"ja\" | \"nein\""}),
        json!({"grammar": "start: \"ja\" | \"nein\""}),
        json!({"response_format": {"type": "grammar", "grammar": "root ::= \"ja\" | \"nein\""}}),
        json!({"structured_outputs": {"choice": ["ja", "nein"], "json_object": false, "regex": null}}),
        json!({"structured_outputs": {"regex": "ja|nein"}}),
        json!({"structured_outputs": {"grammar": "start: /ja|nein/"}}),
    ] {
        for (text, reason) in texts(&server, &fields).await {
            assert!(["ja", "nein"].contains(&text.as_str()), "{fields}: {text}");
            assert_eq!(reason, "stop", "{fields}");
        }
    }
    for fields in [
        json!({"response_format": {"type": "json_object"}}),
        json!({"structured_outputs": {"json_object": true}}),
    ] {
        for (text, _) in texts(&server, &fields).await {
            assert!(text.starts_with('{'), "{fields}: {text}");
        }
    }
    for nothing in [
        json!({"response_format": {"type": "text"}}),
        json!({"grammar": ""}),
        json!({"structured_outputs": {}}),
    ] {
        for (_, reason) in texts(&server, &nothing).await {
            assert_eq!(reason, "length", "{nothing}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_enforced_is_named_with_its_path() {
    let server = noisy().await;
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
    let schema_path = "response_format.json_schema.schema";
    for (fields, code, param) in [
        (format(json!({"not": {}})), "unsupported_json_schema", format!("{schema_path}.not")),
        (
            format(json!({"properties": {"a": {"items": {"uniqueItems": true}}}})),
            "unsupported_json_schema",
            format!("{schema_path}.properties.a.items.uniqueItems"),
        ),
        (format(json!({"type": "strin"})), "invalid_value", schema_path.to_owned()),
        (format(json!([])), "invalid_type", schema_path.to_owned()),
        (format(json!(5)), "invalid_type", schema_path.to_owned()),
        (format(json!("{")), "invalid_value", schema_path.to_owned()),
        (format(json!(null)), "missing_parameter", schema_path.to_owned()),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "missing_parameter",
            "response_format.json_schema".into(),
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": []}}),
            "invalid_type",
            "response_format.json_schema".into(),
        ),
        (json!({"response_format": {}}), "invalid_value", "response_format.type".into()),
        (
            json!({"response_format": {"type": "structural_tag"}}),
            "unsupported_parameter",
            "response_format.type".into(),
        ),
        (
            json!({"response_format": {"type": "grammar"}}),
            "missing_parameter",
            "response_format.grammar".into(),
        ),
        (json!({"grammar": 1}), "invalid_type", "grammar".into()),
        (json!({"grammar": "root ::= missing"}), "invalid_value", "grammar".into()),
        (json!({"grammar": "start: ("}), "invalid_value", "grammar".into()),
        (json!({"json_schema": 1}), "invalid_type", "json_schema".into()),
        (json!({"json_schema": {"if": {}}}), "unsupported_json_schema", "json_schema.if".into()),
        (json!({"guided_json": "nonsense"}), "invalid_value", "guided_json".into()),
        (json!({"guided_regex": "("}), "invalid_value", "guided_regex".into()),
        (json!({"guided_regex": ["a"]}), "invalid_type", "guided_regex".into()),
        (json!({"guided_choice": []}), "invalid_value", "guided_choice".into()),
        (json!({"guided_choice": "a"}), "invalid_type", "guided_choice".into()),
        (json!({"guided_choice": ["a", 1]}), "invalid_type", "guided_choice[1]".into()),
        (json!({"guided_grammar": {}}), "invalid_type", "guided_grammar".into()),
        (json!({"structured_outputs": []}), "invalid_type", "structured_outputs".into()),
        (
            json!({"structured_outputs": {"xml": "x"}}),
            "unsupported_parameter",
            "structured_outputs.xml".into(),
        ),
        (json!({"structured_outputs": {"json": 1}}), "invalid_type", "structured_outputs.json".into()),
        (
            json!({"structured_outputs": {"json_object": 1}}),
            "invalid_type",
            "structured_outputs.json_object".into(),
        ),
        (
            json!({"structured_outputs": {"regex": "a", "grammar": "start: /a/"}}),
            "invalid_value",
            "structured_outputs.grammar".into(),
        ),
        (json!({"grammar": "start: /a/", "guided_regex": "a"}), "invalid_value", "guided_regex".into()),
    ] {
        for path in [CHAT, TEXT] {
            let answer = server.post(path, &body(path, &fields).to_string()).await;
            assert_eq!(
                answer.error(),
                (400, code.to_owned(), Some(param.clone())),
                "{fields}: {}",
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn prompts_come_back_with_their_scores() {
    let server = noisy().await;
    let ask = |fields: Value| {
        let server = &server;
        async move {
            let mut body = json!({"model": "m", "prompt": "grüße", "temperature": 0, "seed": 1});
            body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
            let answer = server.post(TEXT, &body.to_string()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.json()["choices"][0].clone()
        }
    };
    let whole = ask(json!({"echo": true, "logprobs": 1, "max_tokens": 2})).await;
    let logprobs = &whole["logprobs"];
    // <bos>, seven bytes, two new ones.
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().expect("a list").len(), 10, "{list}: {logprobs}");
    }
    assert!(logprobs["token_logprobs"][0].is_null() && logprobs["top_logprobs"][0].is_null(), "{logprobs}");
    for at in 1..10 {
        let (one, top) = (&logprobs["token_logprobs"][at], &logprobs["top_logprobs"][at]);
        let best = top.as_object().expect("alternatives").values().map(|v| v.as_f64().expect("a number"));
        let best = best.fold(f64::NEG_INFINITY, f64::max);
        let token = logprobs["tokens"][at].as_str().expect("a text");
        assert_eq!(top[token], *one, "{at}: {logprobs}");
        assert!(one.as_f64().expect("a number") <= best, "{at}: {logprobs}");
    }
    let offsets: Vec<u64> = logprobs["text_offset"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v.as_u64().expect("a place"))
        .collect();
    assert_eq!(offsets[..8], [0, 0, 1, 2, 2, 3, 3, 4]);
    assert!(whole["text"].as_str().expect("a text").starts_with("grüße"), "{whole}");
    // Scoring alone gives the same, and so does a request in which the answer of the first is the prompt.
    let alone = ask(json!({"echo": true, "logprobs": 1, "max_tokens": 0})).await;
    assert_eq!(alone["text"], "grüße");
    assert_eq!(alone["finish_reason"], "length");
    let head =
        |choice: &Value| choice["logprobs"]["token_logprobs"].as_array().expect("a list")[..8].to_vec();
    assert_eq!(head(&alone), head(&whole));
    let plain = ask(json!({"echo": true, "max_tokens": 0})).await;
    assert_eq!((&plain["text"], &plain["logprobs"]), (&json!("grüße"), &Value::Null));
    let ids = ask(json!({"prompt": [103, 114], "echo": true, "logprobs": 0, "max_tokens": 1})).await;
    assert_eq!(ids["logprobs"]["token_logprobs"].as_array().map(Vec::len), Some(3), "{ids}");
}

/// A template in DeepSeek R1's manner: the prompt opens the thinking.
const THINKING: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

#[tokio::test]
async fn an_answer_in_a_form_comes_after_the_thinking() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
        "additionalProperties": false});
    for (says, content) in [
        ("Hm.\n</think>\n\n{\"n\": 42}", Some("{\"n\": 42}")),
        ("Hm.\n</think>\n\nI cannot say.", None), // what it wants to say then is not allowed
    ] {
        let header = Header { chat_template: Some(THINKING), ..Header::default() };
        let config = FakeConfig { reply: Reply::text(says), ..FakeConfig::default() };
        let server = World::new().fake("m", header, config).start().await;
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let body = body(CHAT, &json!({"response_format": format}));
        let answer = server.post(CHAT, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let message = answer.json()["choices"][0]["message"].clone();
        assert_eq!(message["reasoning_content"].as_str().map(str::trim), Some("Hm."), "{message}");
        let text = message["content"].as_str().expect("a content");
        match content {
            Some(content) => assert_eq!(text, content),
            None => assert!(text.starts_with('{') && !text.contains("cannot"), "{text}"),
        }
    }
}

#[tokio::test]
async fn a_call_that_must_be_made_excludes_another_form() {
    let server = World::with_tools("Ok.").start().await;
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for (choice, form) in [
        (json!("required"), json!({"response_format": {"type": "json_object"}})),
        (json!({"type": "function", "function": {"name": "f"}}), json!({"guided_regex": "a"})),
    ] {
        let mut fields = json!({"tools": tools, "tool_choice": choice});
        fields.as_object_mut().expect("an object").extend(form.as_object().expect("an object").clone());
        let answer = server.post(CHAT, &body(CHAT, &fields).to_string()).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status.as_u16(), error["code"].as_str()), (400, Some("invalid_value")), "{error}");
        let param = error["param"].as_str().expect("a name");
        assert!(form.as_object().expect("an object").contains_key(param), "{error}");
    }
}

#[tokio::test]
async fn calls_that_must_be_made_cannot_go_on_with_blanks() {
    let says = format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {{{}", "\n".repeat(400));
    let server = World::with_tools(&says).start().await;
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
        "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false}}}]);
    let fields =
        json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false, "max_tokens": 400});
    let answer = server.post(CHAT, &body(CHAT, &fields).to_string()).await;
    let choice = answer.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
}
