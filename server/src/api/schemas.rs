//! The shapes of answers, as JSON Schema. Written by hand; the tests of the server hold every answer that
//! they get against them.

use serde_json::{Value, json};

/// `components.schemas`, without the requests.
pub(super) fn components() -> Value {
    let mut all = json!({
        "TokenId": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
        "Message": message(),
        "Error": error(),
        "AnthropicError": object(json!({
            "type": {"const": "error"},
            "error": object(json!({"type": {"type": "string"}, "message": {"type": "string", "minLength": 1}})),
            "request_id": {"type": "string"},
        })),
        "Status": object(json!({"status": {"type": "string"}})),
        "OpenApi": {"type": "object"},
        "Usage": usage(),
        "Timings": {"type": "object", "additionalProperties": {"type": ["number", "string"]}},
        "AnthropicMessage": object(json!({
            "id": {"type": "string"}, "type": {"const": "message"}, "role": {"const": "assistant"},
            "model": {"type": "string"}, "content": {"type": "array", "items": {"type": "object"}},
            "stop_reason": {"type": "string"}, "stop_sequence": {"type": ["string", "null"]}, "usage": {"type": "object"},
        })),
        "AnthropicEvent": object(json!({"type": {"type": "string"}})),
        "TokenCount": object(json!({"input_tokens": {"type": "integer"}})),
        "Response": object(json!({
            "id": {"type": "string"}, "object": {"const": "response"}, "created_at": {"type": "integer"},
            "status": {"type": "string"}, "model": {"type": "string"}, "usage": {"type": ["object", "null"]},
            "output": {"type": "array", "items": {"type": "object"}},
        })),
        "ResponseEvent": object(json!({"type": {"type": "string"}, "sequence_number": {"type": "integer"}})),
        "Deleted": object(json!({"id": {"type": "string"}, "deleted": {"type": "boolean"}})),
        "ItemList": object(json!({"object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}})),
        "Embeddings": object(json!({
            "object": {"const": "list"}, "model": {"type": "string"},
            "data": {"type": "array", "items": object(json!({
                "object": {"const": "embedding"}, "index": {"type": "integer"},
                "embedding": {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]},
            }))},
            "usage": object(json!({"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}})),
        })),
        "Ranking": object(json!({
            "id": {"type": "string"}, "object": {"const": "list"}, "model": {"type": "string"},
            "results": {"type": "array", "items": {
                "type": "object", "required": ["index", "relevance_score"],
                "properties": {
                    "index": {"type": "integer"},
                    "relevance_score": {"type": "number", "minimum": 0, "maximum": 1},
                    "document": object(json!({"text": {"type": "string"}})),
                },
            }},
            "usage": object(json!({"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}})),
        })),
        "Tokenized": object(json!({
            "tokens": {"type": "array", "items": {"anyOf": [{"$ref": "#/components/schemas/TokenId"}, {
                "type": "object", "required": ["id", "piece"],
            }]}},
            "count": {"type": "integer"},
            "max_model_len": {"type": "integer"},
            "token_strs": {"type": ["array", "null"], "items": {"type": "string"}},
        })),
        "Detokenized": object(json!({"content": {"type": "string"}, "prompt": {"type": "string"}})),
        "Templated": object(json!({"prompt": {"type": "string"}})),
        "TokenizerInfo": tokenizer_info(),
        "Health": object(json!({
            "status": {"type": "string"}, "n_active_requests": {"type": "integer"}, "models": {"type": "object"},
        })),
    });
    for (name, schema) in completions().into_iter().chain(models()) {
        all[name] = schema;
    }
    all
}

/// An object in which all of these are there, and others may be.
fn object(properties: Value) -> Value {
    let required: Vec<String> =
        properties.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    json!({"type": "object", "properties": properties, "required": required})
}

fn list(data: &str) -> Value {
    json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{data}")}})
}

fn message() -> Value {
    json!({
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {
                "type": "object", "required": ["type"], "properties": {"type": {"type": "string"}, "text": {"type": "string"}},
            }}]},
            "name": {"type": ["string", "null"]},
            "tool_call_id": {"type": ["string", "null"]},
        },
    })
}

fn error() -> Value {
    object(json!({"error": object(json!({
        "message": {"type": "string", "minLength": 1},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": "string"},
    }))}))
}

fn usage() -> Value {
    object(json!({
        "prompt_tokens": {"type": "integer"},
        "completion_tokens": {"type": "integer"},
        "total_tokens": {"type": "integer"},
        "prompt_tokens_details": object(json!({"cached_tokens": {"type": "integer"}})),
    }))
}

fn tokenizer_info() -> Value {
    let text_or_null = json!({"type": ["string", "null"]});
    let id_or_null = json!({"type": ["integer", "null"]});
    object(json!({
        "model": {"type": "string"},
        "tokenizer_class": {"type": "string"},
        "bos_token": text_or_null, "eos_token": text_or_null, "pad_token": text_or_null, "unk_token": text_or_null,
        "bos_token_id": id_or_null, "eos_token_id": id_or_null,
        "end_of_generation_ids": {"type": "array", "items": {"$ref": "#/components/schemas/TokenId"}},
        "add_bos_token": {"type": "boolean"},
        "vocab_size": {"type": "integer"},
        "model_max_length": {"type": "integer"},
        "chat_template": text_or_null,
    }))
}

fn completions() -> [(&'static str, Value); 4] {
    let finish = json!({"type": ["string", "null"]});
    let base = |kind: &str, choice: Value| {
        object(json!({
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": choice},
            "usage": {"anyOf": [{"$ref": "#/components/schemas/Usage"}, {"type": "null"}]},
        }))
    };
    let index = json!({"type": "integer", "minimum": 0});
    let message = object(json!({"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}}));
    let logprobs = json!({"type": ["object", "null"]});
    let mut chat = base(
        "chat.completion",
        object(json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})),
    );
    chat["properties"]["timings"] = json!({"$ref": "#/components/schemas/Timings"});
    let chunk = base(
        "chat.completion.chunk",
        object(json!({"index": index, "delta": {"type": "object"}, "finish_reason": finish})),
    );
    let text = base(
        "text_completion",
        object(
            json!({"index": index, "text": {"type": "string"}, "logprobs": logprobs, "finish_reason": finish}),
        ),
    );
    // Only with `stream_options.include_usage`, and null before the last one.
    let without_usage = |mut schema: Value| {
        if let Some(required) = schema["required"].as_array_mut() {
            required.retain(|name| name != "usage");
        }
        schema
    };
    let text_chunk = without_usage(text.clone());
    [
        ("ChatCompletion", chat),
        ("ChatCompletionChunk", without_usage(chunk)),
        ("Completion", text),
        ("CompletionChunk", text_chunk),
    ]
}

fn models() -> [(&'static str, Value); 2] {
    let count = json!({"type": ["integer", "null"]});
    let text = json!({"type": ["string", "null"]});
    let model = object(json!({
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "aliases": {"type": "array", "items": {"type": "string"}},
        "state": {"enum": ["inspecting", "unloaded", "loading", "ready", "crashed", "failed"]},
        "engine": text, "engine_reason": text, "format": text, "architecture": text, "quantization": text, "weights": text,
        "notes": {"type": "array", "items": {"type": "string"}},
        "context_length": count, "max_model_len": count, "max_context_length": count, "max_output_tokens": count,
        "limit": object(json!({"context": count, "output": count})),
        "meta": {"type": ["object", "null"]},
        "capabilities": {"type": "object"},
        "plan": text,
    }));
    let models = object(json!({"object": {"const": "list"}, "data": list("Model")}));
    [("Model", model), ("ModelList", models)]
}
