//! Conversations with tools for templates that know none: functions are described in the system message, calls and
//! results are texts.

use serde_json::{Value, json};

use super::request::{Choice, ToolRequest};

/// Where the description goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    System,
    /// Some templates refuse system messages.
    FirstUser,
}

/// The same conversation without tools.
pub(crate) fn as_text(messages: &Value, tools: Option<&ToolRequest>, place: Place) -> Value {
    let mut shaped: Vec<Value> = Vec::new();
    for message in messages.as_array().into_iter().flatten() {
        match message["role"].as_str() {
            Some("tool") => push_result(&mut shaped, text(message)),
            _ if message.get("tool_calls").is_some() => shaped.push(calls_as_text(message)),
            _ => shaped.push(message.clone()),
        }
    }
    if let Some(tools) = tools {
        let description = describe(tools);
        let (role, spot) = match place {
            Place::System => ("system", shaped.first_mut()),
            Place::FirstUser => ("user", shaped.iter_mut().find(|message| message["role"] == "user")),
        };
        match spot.filter(|message| message["role"] == role) {
            Some(message) => {
                let joined = match place {
                    Place::System => format!("{}\n\n{description}", text(message)),
                    Place::FirstUser => format!("{description}\n\n{}", text(message)),
                };
                message["content"] = joined.into();
            }
            None => shaped.insert(0, json!({"role": role, "content": description})),
        }
    }
    Value::Array(shaped)
}

fn text(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

/// Results of one turn stand in one message: many templates want roles to alternate.
fn push_result(shaped: &mut Vec<Value>, result: &str) {
    let block = format!("<tool_response>\n{result}\n</tool_response>");
    match shaped.last_mut() {
        Some(last) if last["role"] == "user" && text(last).ends_with("</tool_response>") => {
            last["content"] = format!("{}\n{block}", text(last)).into();
        }
        _ => shaped.push(json!({"role": "user", "content": block})),
    }
}

fn calls_as_text(message: &Value) -> Value {
    let mut content = text(message).to_owned();
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        let object = json!({"name": function["name"], "arguments": function["arguments"]});
        if !content.is_empty() {
            content.push('\n');
        }
        content.push_str(&format!("<tool_call>\n{object}\n</tool_call>"));
    }
    let mut shaped = message.clone();
    if let Some(map) = shaped.as_object_mut() {
        map.remove("tool_calls");
        map.insert("content".into(), content.into());
    }
    shaped
}

fn describe(request: &ToolRequest) -> String {
    let lines: Vec<String> =
        request.shown.as_array().into_iter().flatten().map(|tool| tool["function"].to_string()).collect();
    let when = match request.choice {
        Choice::Auto => "If one of them helps, call it instead of answering:",
        Choice::Must => "Call one of them now:",
    };
    format!(
        "You can call these functions:\n<tools>\n{}\n</tools>\n{when} write the function's name and its arguments as JSON \
         between tags, like\n<tool_call>\n{{\"name\": \"NAME\", \"arguments\": {{}}}}\n</tool_call>\nThe result comes back \
         between <tool_response> tags.",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields::Fields;

    fn tools() -> ToolRequest {
        let body = br#"{"tools":[{"type":"function","function":{"name":"f","description":"does"}}]}"#;
        let mut fields = Fields::parse(body).unwrap();
        crate::tools::request::take_tools(&mut fields).unwrap().unwrap()
    }

    #[test]
    fn calls_and_results_become_texts() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"a": 1}}});
        let messages = json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "hm", "tool_calls": [call("f"), call("g")]},
            {"role": "tool", "tool_call_id": "1", "content": "r1"},
            {"role": "tool", "tool_call_id": "2", "content": "r2"},
            {"role": "assistant", "content": "done"},
        ]);
        let shaped = as_text(&messages, None, Place::System);
        let tag = |name: &str| {
            format!("<tool_call>\n{{\"name\":\"{name}\",\"arguments\":{{\"a\":1}}}}\n</tool_call>")
        };
        assert_eq!(
            shaped,
            json!([
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": format!("hm\n{}\n{}", tag("f"), tag("g"))},
                {"role": "user", "content": "<tool_response>\nr1\n</tool_response>\n<tool_response>\nr2\n</tool_response>"},
                {"role": "assistant", "content": "done"},
            ])
        );
    }

    #[test]
    fn functions_are_described_once() {
        let user = json!([{"role": "user", "content": "q"}]);
        let both = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]);
        let of = |messages: &Value, place| {
            let shaped = as_text(messages, Some(&tools()), place);
            let described =
                shaped.as_array().unwrap().iter().filter(|m| text(m).contains("\"name\":\"f\"")).count();
            assert_eq!(described, 1);
            let roles = shaped.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap().to_owned());
            (roles.collect::<Vec<_>>().join(" "), text(&shaped[0]).chars().next().unwrap())
        };
        assert_eq!(of(&user, Place::System), ("system user".into(), 'Y'));
        assert_eq!(of(&both, Place::System), ("system user".into(), 's'));
        assert_eq!(of(&user, Place::FirstUser), ("user".into(), 'Y'));
        assert_eq!(of(&both, Place::FirstUser), ("system user".into(), 's'));
        assert_eq!(of(&json!([]), Place::FirstUser), ("user".into(), 'Y'));
    }
}
