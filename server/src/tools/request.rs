//! `tools`, `tool_choice` and `parallel_tool_calls` of a request.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Tool, Tools};
use crate::error::ApiError;
use crate::wire::fields::Fields;

/// More than any agent offers; each costs prompt tokens.
const MOST_TOOLS: usize = 512;
const MOST_NAME_BYTES: usize = 128;

/// Whether the model has to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The model decides.
    Auto,
    /// It calls one of the offered functions at least, and says nothing else.
    Must,
}

/// Functions that a request offers.
#[derive(Debug, Clone)]
pub(crate) struct ToolRequest {
    /// Those that may be called: all of `tools`, or the ones that `tool_choice` allows.
    pub(crate) tools: Arc<Tools>,
    /// The same as the template sees them.
    pub(crate) shown: Value,
    pub(crate) choice: Choice,
    /// Whether an answer may have several calls.
    pub(crate) parallel: bool,
}

#[derive(Debug, Deserialize)]
struct Written {
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    /// Schemas are always kept to where calls are enforced, and never where they are not.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// Takes the three fields. `None`: no function may be called.
///
/// # Errors
/// What is wrong, with its path.
pub(crate) fn take_tools(fields: &mut Fields) -> Result<Option<ToolRequest>, ApiError> {
    let written: Vec<Written> = fields.take("tools")?.unwrap_or_default();
    let parallel = fields.take("parallel_tool_calls")?.unwrap_or(true);
    let choice = fields.take::<Value>("tool_choice")?;
    if written.len() > MOST_TOOLS {
        let message = format!("`tools` may have {MOST_TOOLS} functions at most, got {}", written.len());
        return Err(ApiError::invalid("tools", message));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(written.len());
    for (index, written) in written.into_iter().enumerate() {
        let tool = read(written, &format!("tools[{index}]"))?;
        if tools.iter().any(|other| other.name == tool.name) {
            let path = format!("tools[{index}].function.name");
            return Err(ApiError::invalid(path, format!("there is another function {:?}", tool.name)));
        }
        tools.push(tool);
    }
    let Some((choice, names)) = read_choice(choice, &tools)? else { return Ok(None) };
    if let Some(names) = names {
        tools.retain(|tool| names.contains(&tool.name));
    }
    let shown = tools.iter().map(show).collect();
    let request = ToolRequest { tools: Arc::new(Tools(tools)), shown, choice, parallel };
    Ok((!request.tools.0.is_empty()).then_some(request))
}

fn read(written: Written, at: &str) -> Result<Tool, ApiError> {
    if let Some(kind) = written.kind.filter(|kind| kind != "function") {
        let path = format!("{at}.type");
        let message =
            format!("`{path}` must be \"function\": this server runs no tools itself, got {kind:?}");
        return Err(ApiError::unsupported(path, message));
    }
    let Function { name, description, parameters, _strict: _ } =
        written.function.ok_or_else(|| ApiError::missing(format!("{at}.function")))?;
    let fits = (1..=MOST_NAME_BYTES).contains(&name.len())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':'));
    if !fits {
        let path = format!("{at}.function.name");
        let message =
            format!("`{path}` must have 1 to {MOST_NAME_BYTES} letters, digits, `_`, `-`, `.`, `/` or `:`");
        return Err(ApiError::invalid(path, message));
    }
    let parameters = parameters.map_or_else(|| json!({"type": "object", "properties": {}}), Value::Object);
    Ok(Tool { name, description, parameters })
}

fn show(tool: &Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".into(), tool.name.clone().into());
    if let Some(description) = &tool.description {
        function.insert("description".into(), description.clone().into());
    }
    function.insert("parameters".into(), tool.parameters.clone());
    json!({"type": "function", "function": function})
}

type Chosen = Option<(Choice, Option<Vec<String>>)>;

/// Whether the model must call, and which functions, if not all. `None`: it must not.
fn read_choice(choice: Option<Value>, tools: &[Tool]) -> Result<Chosen, ApiError> {
    let wrong = || {
        let message = "`tool_choice` must be \"auto\", \"none\", \"required\", a function or allowed tools";
        ApiError::invalid("tool_choice", message)
    };
    let chosen = match &choice {
        None => Some((Choice::Auto, None)),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Some((Choice::Auto, None)),
            "none" => None,
            "required" | "any" => Some((Choice::Must, None)),
            _ => return Err(wrong()),
        },
        Some(Value::Object(map)) => match map.get("type").and_then(Value::as_str) {
            Some("function") => {
                let path = "tool_choice.function.name";
                let name = map.get("function").unwrap_or(&Value::Null).get("name").and_then(Value::as_str);
                Some((Choice::Must, Some(vec![known(name, path, tools)?])))
            }
            Some("allowed_tools") => Some(allowed(map.get("allowed_tools").unwrap_or(&Value::Null), tools)?),
            _ => return Err(wrong()),
        },
        Some(_) => return Err(wrong()),
    };
    match chosen {
        Some((Choice::Must, _)) if tools.is_empty() => {
            Err(ApiError::invalid("tool_choice", "`tool_choice` asks for a call, and there are no `tools`"))
        }
        chosen => Ok(chosen),
    }
}

fn allowed(written: &Value, tools: &[Tool]) -> Result<(Choice, Option<Vec<String>>), ApiError> {
    let choice = match written.get("mode").and_then(Value::as_str) {
        Some("auto") => Choice::Auto,
        Some("required") => Choice::Must,
        _ => {
            let path = "tool_choice.allowed_tools.mode";
            return Err(ApiError::invalid(path, format!("`{path}` must be \"auto\" or \"required\"")));
        }
    };
    let path = "tool_choice.allowed_tools.tools";
    let Some(names) = written.get("tools").and_then(Value::as_array).filter(|names| !names.is_empty()) else {
        return Err(ApiError::invalid(path, format!("`{path}` must be a list of functions")));
    };
    let name = |(index, tool): (usize, &Value)| {
        let name = tool.get("function").unwrap_or(tool).get("name").and_then(Value::as_str);
        known(name, &format!("{path}[{index}]"), tools)
    };
    Ok((choice, Some(names.iter().enumerate().map(name).collect::<Result<_, _>>()?)))
}

fn known(name: Option<&str>, path: &str, tools: &[Tool]) -> Result<String, ApiError> {
    match name {
        Some(name) if tools.iter().any(|tool| tool.name == name) => Ok(name.to_owned()),
        Some(name) => Err(ApiError::invalid(path, format!("`{path}`: no function {name:?} is in `tools`"))),
        None => Err(ApiError::missing(path)),
    }
}
