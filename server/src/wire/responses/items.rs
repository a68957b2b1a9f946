//! Items: what a conversation consists of, to chat messages and from a model's blocks.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorCode};
use crate::generate::spoken::Block;

/// `input`, or a message's content.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    Text(String),
    Parts(Vec<Value>),
}

fn field<'a>(item: &'a Value, name: &str, at: &str) -> Result<&'a str, ApiError> {
    item.get(name).and_then(Value::as_str).ok_or_else(|| ApiError::missing(format!("{at}.{name}")))
}

/// Adds an item to a conversation in chat's form. Calls and thinking join the assistant's message that they belong to.
///
/// # Errors
/// What is wrong with it, with its path; types that this server does not know by name.
pub(crate) fn push(messages: &mut Vec<Value>, item: &Value, at: &str) -> Result<(), ApiError> {
    let kind = item.get("type").and_then(Value::as_str);
    match kind.unwrap_or("message") {
        "message" => {
            let role = field(item, "role", at)?;
            let content = item.get("content").ok_or_else(|| ApiError::missing(format!("{at}.content")))?;
            let text = text(content, &format!("{at}.content"))?;
            match role {
                "assistant" => assistant(messages)["content"] = text.into(),
                "user" | "system" | "developer" => messages.push(json!({"role": role, "content": text})),
                _ => {
                    let message =
                        format!("`{at}.role` must be user, assistant, system or developer, got {role:?}");
                    return Err(ApiError::invalid(format!("{at}.role"), message));
                }
            }
        }
        "function_call" => {
            let (id, name) = (field(item, "call_id", at)?, field(item, "name", at)?);
            let function = json!({"name": name, "arguments": field(item, "arguments", at)?});
            let call = json!({"id": id, "type": "function", "function": function});
            match assistant_with_calls(messages) {
                Value::Array(calls) => calls.push(call),
                none => *none = json!([call]),
            }
        }
        "function_call_output" => {
            let id = field(item, "call_id", at)?;
            let output = item.get("output").ok_or_else(|| ApiError::missing(format!("{at}.output")))?;
            let text = text(output, &format!("{at}.output"))?;
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
        }
        "reasoning" => {
            let parts = item.get("content").and_then(Value::as_array);
            let texts: Vec<&str> =
                parts.into_iter().flatten().filter_map(|part| part["text"].as_str()).collect();
            if !texts.is_empty() {
                messages
                    .push(json!({"role": "assistant", "content": "", "reasoning_content": texts.join("\n")}));
            }
        }
        other => {
            let path = format!("{at}.type");
            return Err(ApiError::unsupported(
                path.clone(),
                format!("`{path}` {other:?} is not supported by this server"),
            ));
        }
    }
    Ok(())
}

/// The assistant's message that is still open for text: one that only has thinking, else a new one.
fn assistant(messages: &mut Vec<Value>) -> &mut Value {
    let is_open = messages.last().is_some_and(|last| {
        last["role"] == "assistant" && last["content"] == "" && last.get("tool_calls").is_none()
    });
    if !is_open {
        messages.push(json!({"role": "assistant", "content": ""}));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

fn assistant_with_calls(messages: &mut Vec<Value>) -> &mut Value {
    if messages.last().is_none_or(|last| last["role"] != "assistant") {
        messages.push(json!({"role": "assistant", "content": ""}));
    }
    let last = messages.len() - 1;
    &mut messages[last]["tool_calls"]
}

fn text(content: &Value, at: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => {
            let message = format!("`{at}` must be a text or a list of parts");
            return Err(ApiError::param(ErrorCode::InvalidType, at, message));
        }
    };
    let part = |(index, part): (usize, &Value)| {
        let at = format!("{at}[{index}]");
        match part.get("type").and_then(Value::as_str) {
            Some("input_text" | "output_text" | "text" | "summary_text") => {
                field(part, "text", &at).map(str::to_owned)
            }
            Some("refusal") => field(part, "refusal", &at).map(str::to_owned),
            Some(kind @ ("input_image" | "input_file" | "input_audio")) => {
                let message = format!("the model takes text only, and `{at}` is of type `{kind}`");
                Err(ApiError::unsupported(at, message))
            }
            _ => Err(ApiError::invalid(format!("{at}.type"), format!("`{at}.type` must be \"input_text\""))),
        }
    };
    Ok(parts.iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// A new id.
pub(crate) fn id(prefix: &str) -> String {
    format!("{prefix}_{:032x}", rand::random::<u128>())
}

/// A message item.
pub(crate) fn message(id: &str, text: Option<&str>, status: &str) -> Value {
    let content: Vec<Value> = text.map(text_part).into_iter().collect();
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

/// A text inside of a message.
pub(crate) fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// A reasoning item.
pub(crate) fn reasoning(id: &str, text: Option<&str>, status: &str) -> Value {
    let content: Vec<Value> =
        text.map(|text| json!({"type": "reasoning_text", "text": text})).into_iter().collect();
    json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
}

/// A call item.
pub(crate) fn call(id: &str, call_id: &str, name: &str, arguments: &str, status: &str) -> Value {
    json!({"id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": arguments})
}

/// The items of a whole answer; `status` is the last one's.
pub(crate) fn output(blocks: &[Block], status: &str) -> Vec<Value> {
    let last = blocks.len().saturating_sub(1);
    let item = |(index, block): (usize, &Block)| {
        let status = if index == last { status } else { "completed" };
        match block {
            Block::Content(text) => message(&id("msg"), Some(text), status),
            Block::Reasoning(text) => reasoning(&id("rs"), Some(text), status),
            Block::Call { id: call_id, name, arguments } => call(&id("fc"), call_id, name, arguments, status),
        }
    };
    blocks.iter().enumerate().map(item).collect()
}
