//! A Messages body → the same request in chat's form.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::params::Endpoint;
use crate::wire::fields::Fields;
use crate::wire::openai::chat::{ChatRequest, Voice};
use crate::wire::rename::in_words_of;

/// Changes with every request of Claude Code's, in front of everything: no prefix would ever be found again.
const BILLING: &str = "x-anthropic-billing-header:";

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Debug, Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Value>,
    tool_use_id: Option<String>,
    content: Option<Content>,
    is_error: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Without effect by definition: prefixes are found by their tokens, and nobody checks who thought something.
const MOOT: [&str; 2] = ["cache_control", "signature"];

/// Names what nobody reads of an object at `at`.
fn ignore(fields: &mut Fields, at: &str, rest: &Map<String, Value>) {
    let asks = |(name, value): &(&String, &Value)| !value.is_null() && !MOOT.contains(&name.as_str());
    for (name, _) in rest.iter().filter(asks) {
        fields.ignore(format!("{at}.{name}"));
    }
}

impl Content {
    /// As [`ignore`], of all blocks and what is inside of them.
    fn ignore(&self, fields: &mut Fields, at: &str) {
        let Self::Blocks(blocks) = self else { return };
        for (index, block) in blocks.iter().enumerate() {
            let at = format!("{at}[{index}]");
            ignore(fields, &at, &block.rest);
            if let Some(content) = &block.content {
                content.ignore(fields, &format!("{at}.content"));
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Message {
    role: Role,
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
    System,
}

#[derive(Debug, Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    description: Option<String>,
    input_schema: Option<Map<String, Value>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `output_config`.
#[derive(Debug, Deserialize)]
struct OutputConfig {
    format: Option<OutputFormat>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct OutputFormat {
    #[serde(rename = "type")]
    kind: String,
    schema: Option<Value>,
}

/// Reads a body. `counts`: only its prompt matters, as for `count_tokens`.
///
/// # Errors
/// What is wrong, with its path.
pub(crate) fn take(fields: &mut Fields, counts: bool) -> Result<ChatRequest, ApiError> {
    let mut chat = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            chat.insert(name.to_owned(), value);
        }
    };
    put("model", Some(Value::from(fields.need::<String>("model")?)));
    if !counts {
        put("max_tokens", Some(Value::from(fields.need::<u32>("max_tokens")?)));
        put("stop", fields.take("stop_sequences")?);
        for name in ["stream", "temperature", "top_p", "top_k"] {
            put(name, fields.take(name)?);
        }
    }
    let mut messages = Vec::new();
    if let Some(system) = system(fields)? {
        messages.push(json!({"role": "system", "content": system}));
    }
    let given: Vec<Message> = fields.need("messages")?;
    let prefilled = given.last().is_some_and(|last| last.role == Role::Assistant);
    for (index, message) in given.into_iter().enumerate() {
        message.content.ignore(fields, &format!("messages[{index}].content"));
        push_message(&mut messages, message, &format!("messages[{index}]"))?;
    }
    // An answer that was begun goes on.
    let prefilled = prefilled && messages.last().is_some_and(|last| last.get("tool_calls").is_none());
    put("continue_final_message", prefilled.then_some(Value::Bool(true)));
    put("messages", Some(Value::Array(messages)));
    put("tools", tools(fields)?);
    let (choice, parallel) = choice(fields)?;
    put("tool_choice", choice);
    put("parallel_tool_calls", parallel);
    put("response_format", form(fields)?);
    let thinks = thinking(fields)?;
    let request = ChatRequest::translated(chat, Voice::Anthropic);
    let mut request = request.map_err(|error| in_words_of(Endpoint::Messages, error))?;
    request.template.wishes_thinking = thinks;
    Ok(request)
}

fn system(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let given = fields.take::<Content>("system")?;
    if let Some(given) = &given {
        given.ignore(fields, "system");
    }
    let texts = match given {
        None => return Ok(None),
        Some(Content::Text(text)) => vec![text],
        Some(Content::Blocks(blocks)) => {
            let text = |(index, block): (usize, Block)| text(block, &format!("system[{index}]"));
            blocks.into_iter().enumerate().map(text).collect::<Result<_, _>>()?
        }
    };
    let mut kept = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        if text.starts_with(BILLING) && !text.contains('\n') {
            fields.ignore(format!("system[{index}]"));
        } else {
            kept.push(text);
        }
    }
    Ok((!kept.is_empty()).then(|| kept.join("\n\n")))
}

fn text(block: Block, at: &str) -> Result<String, ApiError> {
    match block.kind.as_str() {
        "text" => block.text.ok_or_else(|| ApiError::missing(format!("{at}.text"))),
        "image" | "document" | "search_result" => {
            let message = format!("the model takes text only, and `{at}` is of type `{}`", block.kind);
            Err(ApiError::unsupported(at, message))
        }
        other => {
            let message = format!("`{at}.type` {other:?} does not belong there");
            Err(ApiError::invalid(format!("{at}.type"), message))
        }
    }
}

fn push_message(messages: &mut Vec<Value>, message: Message, at: &str) -> Result<(), ApiError> {
    let role = match message.role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System => "system",
    };
    let blocks = match message.content {
        Content::Text(text) => {
            messages.push(json!({"role": role, "content": text}));
            return Ok(());
        }
        Content::Blocks(blocks) => blocks,
    };
    let (mut texts, mut reasoning, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (index, block) in blocks.into_iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        match (message.role, block.kind.as_str()) {
            (Role::User, "tool_result") => messages.push(result(block, &at)?),
            (Role::Assistant, "tool_use") => calls.push(call(block, &at)?),
            (Role::Assistant, "thinking") => reasoning.extend(block.thinking),
            // Nobody but its maker can read it.
            (Role::Assistant, "redacted_thinking") => {}
            _ => texts.push(text(block, &at)?),
        }
    }
    let said = !texts.is_empty() || !calls.is_empty() || !reasoning.is_empty();
    if !said && message.role == Role::User {
        return Ok(()); // only results, or nothing at all
    }
    let mut shaped = json!({"role": role, "content": texts.join("\n")});
    if !reasoning.is_empty() {
        shaped["reasoning_content"] = reasoning.join("\n").into();
    }
    if !calls.is_empty() {
        shaped["tool_calls"] = Value::Array(calls);
    }
    messages.push(shaped);
    Ok(())
}

fn call(block: Block, at: &str) -> Result<Value, ApiError> {
    let id = block.id.ok_or_else(|| ApiError::missing(format!("{at}.id")))?;
    let name = block.name.ok_or_else(|| ApiError::missing(format!("{at}.name")))?;
    let arguments = block.input.unwrap_or_else(|| json!({})).to_string();
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

fn result(block: Block, at: &str) -> Result<Value, ApiError> {
    let id = block.tool_use_id.ok_or_else(|| ApiError::missing(format!("{at}.tool_use_id")))?;
    let mut content = match block.content {
        None => String::new(),
        Some(Content::Text(text)) => text,
        Some(Content::Blocks(blocks)) => {
            let text = |(index, block): (usize, Block)| text(block, &format!("{at}.content[{index}]"));
            blocks.into_iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
    };
    if block.is_error == Some(true) {
        content.insert_str(0, "Error: ");
    }
    Ok(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

fn tools(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(tools) = fields.take::<Vec<Tool>>("tools")? else { return Ok(None) };
    for (index, tool) in tools.iter().enumerate() {
        ignore(fields, &format!("tools[{index}]"), &tool.rest);
    }
    let one = |(index, tool): (usize, Tool)| {
        if let Some(kind) = tool.kind.filter(|kind| kind != "custom") {
            let path = format!("tools[{index}].type");
            let message =
                format!("`{path}` must be \"custom\": this server runs no tools itself, got {kind:?}");
            return Err(ApiError::unsupported(path, message));
        }
        let schema =
            tool.input_schema.ok_or_else(|| ApiError::missing(format!("tools[{index}].input_schema")))?;
        let function = json!({"name": tool.name, "description": tool.description, "parameters": schema});
        Ok(json!({"type": "function", "function": function}))
    };
    Ok(Some(tools.into_iter().enumerate().map(one).collect::<Result<_, ApiError>>()?))
}

type Chosen = (Option<Value>, Option<Value>);

fn choice(fields: &mut Fields) -> Result<Chosen, ApiError> {
    let Some(choice) = fields.take::<Choice>("tool_choice")? else { return Ok((None, None)) };
    ignore(fields, "tool_choice", &choice.rest);
    let shaped = match choice.kind.as_str() {
        "auto" => json!("auto"),
        "none" => json!("none"),
        "any" => json!("required"),
        "tool" => {
            let name = choice.name.ok_or_else(|| ApiError::missing("tool_choice.name"))?;
            json!({"type": "function", "function": {"name": name}})
        }
        _ => {
            let message = "`tool_choice.type` must be \"auto\", \"any\", \"tool\" or \"none\"";
            return Err(ApiError::invalid("tool_choice.type", message));
        }
    };
    Ok((Some(shaped), choice.disable_parallel_tool_use.map(|one| Value::Bool(!one))))
}

/// `output_config.format` as chat's `response_format`.
fn form(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(OutputConfig { format, rest }) = fields.take("output_config")? else { return Ok(None) };
    ignore(fields, "output_config", &rest);
    let Some(OutputFormat { kind, schema }) = format else { return Ok(None) };
    if kind != "json_schema" {
        let message = "`output_config.format.type` must be \"json_schema\"";
        return Err(ApiError::invalid("output_config.format.type", message));
    }
    let schema = schema.ok_or_else(|| ApiError::missing("output_config.format.schema"))?;
    Ok(Some(json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})))
}

/// Whether the model shall think; clients ask for it whatever the model can.
fn thinking(fields: &mut Fields) -> Result<Option<bool>, ApiError> {
    let Some(thinking) = fields.take::<Thinking>("thinking")? else { return Ok(None) };
    ignore(fields, "thinking", &thinking.rest);
    match thinking.kind.as_str() {
        "enabled" | "adaptive" => Ok(Some(true)),
        "disabled" => Ok(Some(false)),
        _ => {
            let message = "`thinking.type` must be \"enabled\", \"adaptive\" or \"disabled\"";
            Err(ApiError::invalid("thinking.type", message))
        }
    }
}
