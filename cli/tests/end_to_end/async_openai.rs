//! The async-openai package over the wire: a tool loop, streamed and whole, a list of models, errors; on both engines.

use std::collections::{BTreeMap, BTreeSet};

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls, ChatCompletionRequestMessage,
    ChatCompletionStreamOptions, CompletionUsage, CreateChatCompletionRequest, FinishReason,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Server, config, prerequisite, root};

const KEY: &str = "a-key-for-the-client-test";
const WANTED: [(&str, &str); 2] = [("Bonn", "rain in Bonn"), ("Tromsø", "snow in Tromsø")];

/// A first turn's answer, however it came.
struct Turn {
    content: String,
    calls: Vec<ChatCompletionMessageToolCall>,
    finish_reason: Option<FinishReason>,
    usage: CompletionUsage,
}

/// A request in the package's own types; what they cannot hold would fail here.
fn request(model: &str, messages: &[Value]) -> CreateChatCompletionRequest {
    let city = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    });
    let tool = json!({"name": "weather", "description": "The weather of a city", "parameters": city});
    let body =
        json!({"model": model, "messages": messages, "tools": [{"type": "function", "function": tool}]});
    serde_json::from_value(body).expect("a request")
}

async fn whole(client: &Client<OpenAIConfig>, request: CreateChatCompletionRequest) -> Turn {
    let answer = client.chat().create(request).await.expect("an answer");
    let choice = answer.choices.into_iter().next().expect("a choice");
    let calls = choice.message.tool_calls.unwrap_or_default().into_iter().map(|call| match call {
        ChatCompletionMessageToolCalls::Function(call) => call,
        ChatCompletionMessageToolCalls::Custom(call) => panic!("{call:?}"),
    });
    Turn {
        content: choice.message.content.unwrap_or_default(),
        calls: calls.collect(),
        finish_reason: choice.finish_reason,
        usage: answer.usage.expect("usage"),
    }
}

/// The same from a stream, whose calls come in pieces: id and name once, arguments bit by bit.
async fn streamed(client: &Client<OpenAIConfig>, mut request: CreateChatCompletionRequest) -> Turn {
    request.stream_options =
        Some(ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None });
    let mut stream = client.chat().create_stream(request).await.expect("a stream");
    let (mut content, mut finish_reason, mut usage) = (String::new(), None, None);
    let mut calls: BTreeMap<u32, ChatCompletionMessageToolCall> = BTreeMap::new();
    let mut n_pieces = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.expect("a chunk");
        usage = chunk.usage.or(usage);
        for choice in chunk.choices {
            content.push_str(choice.delta.content.as_deref().unwrap_or_default());
            finish_reason = choice.finish_reason.or(finish_reason);
            for piece in choice.delta.tool_calls.unwrap_or_default() {
                n_pieces += 1;
                let call = calls.entry(piece.index).or_default();
                if let Some(id) = piece.id {
                    assert_eq!(std::mem::replace(&mut call.id, id), "", "a second id");
                }
                let function = piece.function.expect("a function");
                call.function.name.push_str(function.name.as_deref().unwrap_or_default());
                call.function.arguments.push_str(function.arguments.as_deref().unwrap_or_default());
            }
        }
    }
    assert!(n_pieces >= 8, "{n_pieces} pieces");
    let usage = usage.expect("usage, as asked for");
    Turn { content, calls: calls.into_values().collect(), finish_reason, usage }
}

/// Calls of the first turn, their results, the answer to them; the second prompt comes from the cache.
async fn tool_loop(client: &Client<OpenAIConfig>, model: &str, is_streamed: bool) {
    let ask = json!({"role": "user", "content": "Compare the weather in Bonn and Tromsø."});
    let first = request(model, std::slice::from_ref(&ask));
    let first = if is_streamed { streamed(client, first).await } else { whole(client, first).await };
    assert_eq!((first.content.trim(), first.finish_reason), ("Let me look.", Some(FinishReason::ToolCalls)));
    let ids: BTreeSet<&str> = first.calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!((first.calls.len(), ids.len()), (2, 2), "two calls with ids of their own");
    let results = first.calls.iter().zip(WANTED).map(|(call, (city, result))| {
        let arguments: Value = serde_json::from_str(&call.function.arguments).expect("JSON");
        assert_eq!((call.function.name.as_str(), &arguments["city"]), ("weather", &json!(city)));
        json!({"role": "tool", "tool_call_id": call.id, "content": result})
    });
    let calls: Vec<_> = first.calls.iter().cloned().map(ChatCompletionMessageToolCalls::Function).collect();
    let said = json!({"role": "assistant", "content": first.content, "tool_calls": calls});
    let messages: Vec<Value> = [ask, said].into_iter().chain(results).collect();
    for message in &messages {
        let read = serde_json::from_value::<ChatCompletionRequestMessage>(message.clone());
        assert!(read.is_ok(), "{message}: {read:?}");
    }
    let second = whole(client, request(model, &messages)).await;
    assert_eq!(second.content, "Rain in Bonn, snow in Tromsø.");
    let cached = second.usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
    let before = first.usage.prompt_tokens;
    assert!(cached + 1 >= before, "{model}: {cached} of {before} tokens of the first prompt were cached");
}

/// Errors come as the package's own, with the server's code and parameter.
async fn errors(client: &Client<OpenAIConfig>, model: &str) {
    let code = |error: OpenAIError| match error {
        OpenAIError::ApiError(error) => {
            (error.status_code.as_u16(), error.api_error.code, error.api_error.param)
        }
        other => panic!("{other:?}"),
    };
    let ask = [json!({"role": "user", "content": "Compare the weather"})];
    let stranger = client.chat().create(request("gpt-0", &ask)).await.expect_err("no such model");
    assert_eq!(code(stranger), (404, Some("model_not_found".into()), Some("model".into())));
    let mut hot = request(model, &ask);
    hot.temperature = Some(9.0);
    let hot = client.chat().create(hot).await.expect_err("out of range");
    assert_eq!(code(hot), (400, Some("invalid_value".into()), Some("temperature".into())));
}

#[tokio::test]
async fn async_openai_works_on_both_engines() {
    let Some(file) = prerequisite("models/SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let path = config(temporary.path(), &[("smol-gguf", &file, "gguf"), ("smol-mlx", &file, "mlx")]);
    let script = root().join("tests/clients/script.jsonl");
    let text = std::fs::read_to_string(&path).expect("just written");
    let text = text.replace("context = 512", "context = 2048\nreasoning_parser = \"think\"");
    std::fs::write(temporary.path().join("keys.txt"), KEY).expect("the temporary folder can be written");
    let text = format!("[server]\napi_keys_file = \"keys.txt\"\nreplay = {script:?}\n{text}");
    std::fs::write(&path, text).expect("the temporary folder can be written");
    let server = Server::start(&["--config", &path]);
    let settings = OpenAIConfig::new().with_api_base(format!("{}/v1", server.url)).with_api_key(KEY);
    let client = Client::with_config(settings.clone());
    let listed = client.models().list().await.expect("a list").data;
    let listed: BTreeSet<_> = listed.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(listed, BTreeSet::from(["smol-gguf", "smol-mlx"]));
    let stranger = Client::with_config(settings.with_api_key("another"));
    assert!(stranger.models().list().await.is_err(), "a key is asked for");
    for model in ["smol-gguf", "smol-mlx"] {
        tool_loop(&client, model, false).await;
        tool_loop(&client, model, true).await;
        errors(&client, model).await;
    }
}
