//! A Responses body → the same request in chat's form.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::ask::Ask;
use super::items::{self, Texts};
use super::store::Responses;
use crate::error::{ApiError, ErrorCode};
use crate::params::Endpoint;
use crate::wire::fields::Fields;
use crate::wire::openai::chat::{ChatRequest, Voice};
use crate::wire::rename::in_words_of;

/// Reads a body.
///
/// # Errors
/// What is wrong, with its path; 404 for a previous response that is not there.
pub(crate) fn take(fields: &mut Fields, responses: &Responses) -> Result<ChatRequest, ApiError> {
    let mut chat = Map::new();
    let mut repeated = Map::new();
    chat.insert("model".into(), fields.need::<String>("model")?.into());
    let stores: bool = fields.take("store")?.unwrap_or(true);
    let (messages, input) = conversation(fields, responses, &mut repeated)?;
    let mut shown = messages.clone();
    let instructions = fields.take::<String>("instructions")?;
    if let Some(instructions) = &instructions {
        shown.insert(0, json!({"role": "system", "content": instructions}));
    }
    chat.insert("messages".into(), shown.into());
    repeated.insert("instructions".into(), instructions.into());
    for (name, in_chat, default) in [
        ("max_output_tokens", "max_tokens", Value::Null),
        ("temperature", "temperature", Value::Null),
        ("top_p", "top_p", Value::Null),
        ("parallel_tool_calls", "parallel_tool_calls", Value::Bool(true)),
        ("stream", "stream", Value::Bool(false)),
    ] {
        let value = fields.take::<Value>(name)?;
        if let Some(value) = &value {
            chat.insert(in_chat.into(), value.clone());
        }
        // The response tells what sampling was in the end.
        if !matches!(name, "stream" | "temperature" | "top_p") {
            repeated.insert(name.into(), value.unwrap_or(default));
        }
    }
    take_tools(fields, &mut chat, &mut repeated)?;
    take_text(fields, &mut chat, &mut repeated)?;
    take_reasoning(fields, &mut chat, &mut repeated)?;
    take_include(fields)?;
    repeated.insert("truncation".into(), "disabled".into());
    repeated.insert("store".into(), stores.into());
    repeated.insert("metadata".into(), fields.take::<Value>("metadata")?.unwrap_or_else(|| json!({})));
    for name in ["safety_identifier", "prompt_cache_key"] {
        let value = fields.take::<Value>(name)?.filter(Value::is_string);
        repeated.insert(name.into(), value.unwrap_or_default());
    }
    let store = stores.then(|| responses.clone());
    let background = in_background(fields, &chat, stores)?;
    let ask = Ask { id: items::id("resp"), repeated, input, messages, store, background };
    let request = ChatRequest::translated(chat, Voice::Responses(Arc::new(ask)));
    request.map_err(|error| in_words_of(Endpoint::Responses, error))
}

/// Whether the client will come back for the answer.
fn in_background(fields: &mut Fields, chat: &Map<String, Value>, stores: bool) -> Result<bool, ApiError> {
    let background = fields.take::<bool>("background")?.unwrap_or(false);
    if background && !stores {
        let message = "`background` goes with `store` only: nobody could come back for the answer";
        return Err(ApiError::invalid("background", message));
    }
    if background && chat.get("stream").is_some_and(|stream| stream == true) {
        let message = "`stream` together with `background` is not supported by any engine of this server";
        return Err(ApiError::unsupported("stream", message));
    }
    Ok(background)
}

/// The messages so far, and the new items.
fn conversation(
    fields: &mut Fields,
    responses: &Responses,
    repeated: &mut Map<String, Value>,
) -> Result<(Vec<Value>, Value), ApiError> {
    let previous = fields.take::<String>("previous_response_id")?;
    let mut messages = match &previous {
        None => Vec::new(),
        Some(id) => match responses.get(id, Instant::now()) {
            Some(stored) if !matches!(stored.body["status"].as_str(), Some("completed" | "incomplete")) => {
                let message =
                    format!("response `{id}` is {}, there is nothing to go on from", stored.body["status"]);
                return Err(ApiError::invalid("previous_response_id", message));
            }
            Some(stored) => stored.messages.clone(),
            None => {
                let message = format!("there is no response `{id}` (any more)");
                return Err(ApiError::param(ErrorCode::NotFound, "previous_response_id", message));
            }
        },
    };
    repeated.insert("previous_response_id".into(), previous.into());
    let given = match fields.need::<Texts>("input")? {
        Texts::Text(text) => vec![
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}),
        ],
        Texts::Parts(parts) => parts,
    };
    for (index, item) in given.iter().enumerate() {
        items::push(&mut messages, item, &format!("input[{index}]"))?;
    }
    if messages.is_empty() {
        return Err(ApiError::invalid("input", "`input` must have at least one item"));
    }
    Ok((messages, given.into()))
}

fn take_tools(
    fields: &mut Fields,
    chat: &mut Map<String, Value>,
    repeated: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let tools = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    let one = |(index, tool): (usize, &Value)| {
        let kind = tool.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "function" {
            let path = format!("tools[{index}].type");
            let message =
                format!("`{path}` must be \"function\": this server runs no tools itself, got {kind:?}");
            return Err(ApiError::unsupported(path, message));
        }
        Ok(json!({"type": "function", "function": tool}))
    };
    let in_chat: Vec<Value> = tools.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    chat.insert("tools".into(), in_chat.into());
    repeated.insert("tools".into(), tools.into_iter().map(whole_tool).collect());
    let choice = fields.take::<Value>("tool_choice")?;
    let in_chat = match choice.as_ref().and_then(|choice| choice.get("type")).and_then(Value::as_str) {
        Some("function") => {
            choice.as_ref().map(|choice| json!({"type": "function", "function": {"name": choice["name"]}}))
        }
        Some("allowed_tools") => {
            choice.as_ref().map(|choice| json!({"type": "allowed_tools", "allowed_tools": choice}))
        }
        _ => choice.clone(),
    };
    if let Some(in_chat) = in_chat {
        chat.insert("tool_choice".into(), in_chat);
    }
    repeated.insert("tool_choice".into(), choice.unwrap_or_else(|| "auto".into()));
    Ok(())
}

/// A tool as responses show it: with all of its fields.
fn whole_tool(mut tool: Value) -> Value {
    for name in ["description", "parameters", "strict"] {
        if tool.get(name).is_none() {
            tool[name] = Value::Null;
        }
    }
    tool
}

/// `text.format` is chat's `response_format` with its schema one level higher.
fn take_text(
    fields: &mut Fields,
    chat: &mut Map<String, Value>,
    repeated: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let text = fields.take::<Map<String, Value>>("text")?.unwrap_or_default();
    let format = text.get("format").filter(|format| !format.is_null()).cloned();
    let format = format.unwrap_or_else(|| json!({"type": "text"}));
    let in_chat = match format.get("type").and_then(Value::as_str) {
        Some("json_schema") => json!({"type": "json_schema", "json_schema": format}),
        _ => format.clone(),
    };
    if format != json!({"type": "text"}) {
        chat.insert("response_format".into(), in_chat);
    }
    // The usual verbosity is what there is anyway.
    let ignored = |name: &str, value: &Value| {
        !matches!(name, "format") && !value.is_null() && (name != "verbosity" || value != "medium")
    };
    ignore(fields, "text", &text, ignored);
    repeated.insert("text".into(), json!({"format": format}));
    Ok(())
}

/// Names the fields of `object` that nobody reads.
fn ignore(
    fields: &mut Fields,
    path: &str,
    object: &Map<String, Value>,
    is_ignored: impl Fn(&str, &Value) -> bool,
) {
    for (name, _) in object.iter().filter(|(name, value)| is_ignored(name, value)) {
        fields.ignore(format!("{path}.{name}"));
    }
}

/// What is to be put into the answer beside the usual: nothing that could be.
fn take_include(fields: &mut Fields) -> Result<(), ApiError> {
    for (index, name) in fields.take::<Vec<String>>("include")?.unwrap_or_default().into_iter().enumerate() {
        if name == "message.output_text.logprobs" {
            let path = format!("include[{index}]");
            let message =
                format!("`{path}` {name:?} is not supported yet: use `/v1/chat/completions` with `logprobs`");
            return Err(ApiError::unsupported(path, message));
        }
    }
    Ok(())
}

fn take_reasoning(
    fields: &mut Fields,
    chat: &mut Map<String, Value>,
    repeated: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let reasoning = fields.take::<Map<String, Value>>("reasoning")?.unwrap_or_default();
    let effort = reasoning.get("effort").filter(|effort| !effort.is_null());
    if let Some(effort) = effort {
        chat.insert("reasoning_effort".into(), effort.clone());
    }
    ignore(fields, "reasoning", &reasoning, |name, value| name != "effort" && !value.is_null());
    repeated.insert("reasoning".into(), json!({"effort": effort, "summary": null}));
    Ok(())
}
