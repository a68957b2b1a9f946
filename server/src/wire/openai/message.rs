//! `messages`: what clients send, checked, and what a chat template sees.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ErrorCode};
use crate::wire::fields::Fields;

/// A message as written.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    role: Role,
    #[serde(default)]
    content: Content,
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Absent,
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: FunctionCall,
}

#[derive(Debug, Deserialize)]
struct FunctionCall {
    name: String,
    arguments: Option<Value>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of content parts")
            }

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::Absent)
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Content {
    /// The text; parts are joined by line ends, as vLLM and llama.cpp do.
    fn text(self, at: &str) -> Result<Option<String>, ApiError> {
        match self {
            Content::Absent => Ok(None),
            Content::Text(text) => Ok(Some(text)),
            Content::Parts(parts) => {
                let part = |(index, part): (usize, Part)| part.text(&format!("{at}.content[{index}]"));
                let texts: Vec<String> = parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?;
                Ok(Some(texts.join("\n")))
            }
        }
    }
}

impl Message {
    /// What it says, as far as it is text.
    pub(crate) fn shown_text(&self) -> String {
        match &self.content {
            Content::Absent => String::new(),
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => {
                parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

impl Part {
    fn text(self, at: &str) -> Result<String, ApiError> {
        let (field, text) = match self.kind.as_str() {
            "text" => ("text", self.text),
            "refusal" => ("refusal", self.refusal),
            "image_url" | "input_image" | "input_audio" | "video_url" | "audio_url" | "file" => {
                let message = format!("the model takes text only, and `{at}` is of type `{}`", self.kind);
                return Err(ApiError::unsupported(at, message));
            }
            other => {
                let message = format!("`{at}.type` must be \"text\", got {other:?}");
                return Err(ApiError::invalid(format!("{at}.type"), message));
            }
        };
        text.ok_or_else(|| ApiError::missing(format!("{at}.{field}")))
    }
}

/// Takes `messages`; notes fields of them that nobody reads.
///
/// # Errors
/// What is wrong, with its path.
pub(crate) fn take_messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let messages: Vec<Message> = fields.need("messages")?;
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` must have at least one message"));
    }
    for (index, message) in messages.iter().enumerate() {
        for (name, value) in &message.extra {
            let nothing = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !nothing {
                fields.ignore(format!("messages[{index}].{name}"));
            }
        }
    }
    Ok(messages)
}

/// Messages as a chat template sees them: an array of objects with `role`, `content` (a text), and what belongs to tool
/// calls. `knows_developer`: whether the template has a developer role; most only know system messages.
/// `arguments_as_text`: whether the template wants arguments as JSON text instead of an object.
///
/// # Errors
/// What is wrong, with its path; `unsupported_parameter` for parts that are no text.
pub(crate) fn for_template(
    messages: Vec<Message>,
    knows_developer: bool,
    arguments_as_text: bool,
) -> Result<Value, ApiError> {
    let one = |(index, message): (usize, Message)| {
        template_message(message, &format!("messages[{index}]"), knows_developer)
    };
    let mut messages: Vec<Value> = messages.into_iter().enumerate().map(one).collect::<Result<_, _>>()?;
    name_results(&mut messages);
    if arguments_as_text {
        for call in
            messages.iter_mut().filter_map(|message| message.get_mut("tool_calls")?.as_array_mut()).flatten()
        {
            let arguments = &mut call["function"]["arguments"];
            if !arguments.is_string() {
                *arguments = arguments.to_string().into();
            }
        }
    }
    Ok(Value::Array(messages))
}

/// Some templates show a result under its function's name, which only the call has.
fn name_results(messages: &mut [Value]) {
    let mut names: HashMap<String, Value> = HashMap::new();
    for message in messages {
        for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            if let Some(id) = call["id"].as_str() {
                names.insert(id.to_owned(), call["function"]["name"].clone());
            }
        }
        let id = message.get("tool_call_id").and_then(Value::as_str);
        if let Some(name) = id.and_then(|id| names.get(id)).cloned()
            && let Some(message) = message.as_object_mut()
        {
            message.entry("name").or_insert(name);
        }
    }
}

fn template_message(message: Message, at: &str, knows_developer: bool) -> Result<Value, ApiError> {
    let role = match message.role {
        Role::Developer if knows_developer => "developer",
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let tool_calls = message.tool_calls.filter(|calls| !calls.is_empty());
    let content = message.content.text(at)?;
    if content.is_none() && !(message.role == Role::Assistant && tool_calls.is_some()) {
        return Err(ApiError::missing(format!("{at}.content")));
    }
    let mut seen = Map::new();
    seen.insert("role".into(), role.into());
    // Templates concatenate it: an empty text is safer for them than null.
    seen.insert("content".into(), content.unwrap_or_default().into());
    if let Some(name) = message.name {
        seen.insert("name".into(), name.into());
    }
    if let Some(reasoning) = message.reasoning_content.or(message.reasoning) {
        seen.insert("reasoning_content".into(), reasoning.into());
    }
    match (message.role, message.tool_call_id) {
        (Role::Tool, Some(id)) => {
            seen.insert("tool_call_id".into(), id.into());
        }
        (Role::Tool, None) => return Err(ApiError::missing(format!("{at}.tool_call_id"))),
        _ => {}
    }
    match tool_calls {
        Some(calls) if message.role == Role::Assistant => {
            let calls = calls
                .into_iter()
                .enumerate()
                .map(|(index, call)| template_tool_call(call, &format!("{at}.tool_calls[{index}]")));
            seen.insert("tool_calls".into(), Value::Array(calls.collect::<Result<_, _>>()?));
        }
        Some(_) => {
            let path = format!("{at}.tool_calls");
            return Err(ApiError::invalid(
                path.clone(),
                format!("`{path}` belongs to assistant messages only"),
            ));
        }
        None => {}
    }
    Ok(Value::Object(seen))
}

/// Templates want `arguments` as an object; the wire has it as a string of JSON.
fn template_tool_call(call: ToolCall, at: &str) -> Result<Value, ApiError> {
    if call.kind.as_deref().is_some_and(|kind| kind != "function") {
        let path = format!("{at}.type");
        return Err(ApiError::unsupported(path.clone(), format!("`{path}` must be \"function\"")));
    }
    let arguments = match call.function.arguments {
        None | Some(Value::Null) => json!({}),
        Some(Value::String(text)) if text.trim().is_empty() => json!({}),
        // What is no JSON object (a model wrote it) is shown as it is.
        Some(Value::String(text)) => match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(object) => Value::Object(object),
            Err(_) => Value::String(text),
        },
        Some(object @ Value::Object(_)) => object,
        Some(_) => {
            let path = format!("{at}.function.arguments");
            return Err(ApiError::param(
                ErrorCode::InvalidType,
                path.clone(),
                format!("`{path}` must be a string of JSON"),
            ));
        }
    };
    let function = json!({ "name": call.function.name, "arguments": arguments });
    Ok(json!({ "id": call.id, "type": "function", "function": function }))
}
