//! Prompts to work on: JSON lines from a file, and four sets that duet brings along.
//!
//! The bench cuts its requests from one stretch of text or ids, so that every request has the stated length; prompts follow
//! each other in it, and from the beginning again, numbered, until it is long enough.

use std::path::Path;
use std::sync::Arc;

use duet_core::text::{ChatTemplate, TemplateInput, TokenId};
use serde::Serialize;
use serde_json::Value;

use crate::error::BenchError;

/// The built-in sets, by name. Written for duet.
const SETS: [(&str, &str); 4] = [
    ("chat", include_str!("../prompts/chat.jsonl")),
    ("rag", include_str!("../prompts/rag.jsonl")),
    ("code", include_str!("../prompts/code.jsonl")),
    ("agent", include_str!("../prompts/agent.jsonl")),
];

/// Characters of text that are enough for any usual run; more is made of it only where a file has more.
const ENOUGH: usize = 24_000;

/// What requests are cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// Text, still to be tokenised.
    Text(String),
    /// Text that a chat template has rendered, still to be tokenised: control tokens written out in it are meant.
    Rendered(String),
    /// Ids, as they are.
    Ids(Vec<TokenId>),
    /// Lines of which some are conversations, still to be rendered.
    Lines(Vec<Line>),
}

/// The prompt of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A text.
    Text(String),
    /// Messages with `role` and a `content` that is a text.
    Messages(Vec<Message>),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Whose; "user" where the line does not say.
    pub role: String,
    /// What it says.
    pub content: String,
}

/// The names of the built-in sets.
pub fn names() -> [&'static str; 4] {
    SETS.map(|(name, _)| name)
}

/// A built-in set; `None` for a name that there is not.
pub fn built_in(name: &str) -> Option<&'static str> {
    SETS.iter().find(|(known, _)| *known == name).map(|(_, lines)| *lines)
}

/// The prompts of JSON lines: each an object with `prompt` (a text), `messages` (a list with `role` and `content`) or `ids`
/// (token ids of the model). All have ids, or none has.
///
/// # Errors
/// `Prompts` with file and line of the first line that is none of these, or of a file without any.
pub fn parse(path: &Path, text: &str) -> Result<Prompts, BenchError> {
    let wrong = |line: usize, message: String| BenchError::Prompts { path: path.to_owned(), line, message };
    let (mut lines, mut ids) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        match one(line).map_err(|message| wrong(number, message))? {
            One::Line(line) => lines.push(line),
            One::Ids(own) => ids.extend(own),
        }
        if !lines.is_empty() && !ids.is_empty() {
            return Err(wrong(number, "some lines have ids and others text; one or the other".to_owned()));
        }
    }
    match (lines.is_empty(), ids.is_empty()) {
        (true, true) => Err(wrong(1, "there is no prompt".to_owned())),
        (true, false) => Ok(Prompts::Ids(ids)),
        (false, _) if lines.iter().any(|line| matches!(line, Line::Messages(_))) => Ok(Prompts::Lines(lines)),
        (false, _) => repeated(&lines, plainly).map(Prompts::Text),
    }
}

impl Prompts {
    /// Conversations as the model was trained to see them, and what is worth saying of that; others as they are. `template`
    /// is asked for only where there are conversations.
    ///
    /// # Errors
    /// `Option` with the template's own words, if it refuses a conversation.
    pub(crate) fn rendered(
        self,
        template: impl FnOnce() -> Result<Arc<ChatTemplate>, String>,
    ) -> Result<(Self, Option<String>), BenchError> {
        let Self::Lines(lines) = self else { return Ok((self, None)) };
        match template() {
            Ok(template) => {
                let text = repeated(&lines, |number, line| through(&template, number, line))?;
                Ok((Self::Rendered(text), Some("conversations through the model's chat template".to_owned())))
            }
            Err(why) => {
                let said = format!("conversations as plain text, for there is no chat template ({why})");
                Ok((Self::Text(repeated(&lines, plainly)?), Some(said)))
            }
        }
    }
}

/// What a line of the file is.
enum One {
    Line(Line),
    Ids(Vec<TokenId>),
}

fn one(line: &str) -> Result<One, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("it is no JSON object")?;
    let known: Vec<&str> =
        ["prompt", "messages", "ids"].into_iter().filter(|key| object.contains_key(*key)).collect();
    match known.as_slice() {
        ["prompt"] => {
            let text = value["prompt"].as_str().ok_or("`prompt` is no text")?;
            filled(text).map(|()| One::Line(Line::Text(text.to_owned())))
        }
        ["messages"] => messages(&value["messages"]).map(|messages| One::Line(Line::Messages(messages))),
        ["ids"] => ids(&value["ids"]).map(One::Ids),
        [] => Err("it has none of `prompt`, `messages` and `ids`".to_owned()),
        several => Err(format!("it has {}; one of them is needed", several.join(" and "))),
    }
}

fn filled(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err("the prompt is empty".to_owned()) } else { Ok(()) }
}

fn messages(value: &Value) -> Result<Vec<Message>, String> {
    let list = value.as_array().ok_or("`messages` is no list")?;
    let message = |(index, message): (usize, &Value)| {
        let role = match message.get("role") {
            None => "user",
            Some(role) => {
                role.as_str().ok_or_else(|| format!("message {} has a `role` that is no text", index + 1))?
            }
        };
        let content = message["content"].as_str();
        let content =
            content.ok_or_else(|| format!("message {} has no `content` that is a text", index + 1))?;
        Ok(Message { role: role.to_owned(), content: content.to_owned() })
    };
    let found = list.iter().enumerate().map(message).collect::<Result<Vec<_>, String>>()?;
    filled(&found.iter().map(|message| message.content.as_str()).collect::<String>())?;
    Ok(found)
}

fn ids(value: &Value) -> Result<Vec<TokenId>, String> {
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or("`ids` is no list with ids")?;
    let id = |value: &Value| value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    list.iter().map(|value| id(value).ok_or_else(|| format!("`ids`: {value} is no token id"))).collect()
}

/// One text, with numbers so that no stretch comes twice; `write` makes a line's text with its number.
fn repeated(
    lines: &[Line],
    write: impl Fn(&str, &Line) -> Result<String, BenchError>,
) -> Result<String, BenchError> {
    let mut all = String::new();
    for round in 1.. {
        for (index, line) in lines.iter().enumerate() {
            all += &write(&format!("{round}.{}.", index + 1), line)?;
        }
        if all.len() >= ENOUGH {
            break;
        }
    }
    Ok(all)
}

/// A line as text, a conversation's messages one after the other.
#[expect(clippy::unnecessary_wraps, reason = "as what writes through a template")]
fn plainly(number: &str, line: &Line) -> Result<String, BenchError> {
    let text = match line {
        Line::Text(text) => text.clone(),
        Line::Messages(messages) => {
            messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n")
        }
    };
    Ok(format!("{number} {text}\n\n"))
}

/// A line as the template has it, with the number in its first message; a text is a user's message.
fn through(template: &ChatTemplate, number: &str, line: &Line) -> Result<String, BenchError> {
    let mut messages = match line {
        Line::Text(text) => vec![Message { role: "user".to_owned(), content: text.clone() }],
        Line::Messages(messages) => messages.clone(),
    };
    if let Some(first) = messages.first_mut() {
        first.content = format!("{number} {}", first.content);
    }
    let refused = |why: String| BenchError::Option {
        option: "prompts",
        message: format!("{number} is not for this model's chat template: {why}"),
    };
    let messages = serde_json::to_value(&messages).map_err(|error| refused(duet_core::chain(&error)))?;
    let is_answered = messages.as_array().and_then(|list| list.last()?["role"].as_str()) == Some("assistant");
    let input = TemplateInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: !is_answered,
        continue_final_message: false,
        kwargs: &serde_json::Map::new(),
    };
    template.render(&input).map_err(|error| refused(duet_core::chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, line: usize, part: &str) {
        let error = parse(Path::new("mine.jsonl"), text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("mine.jsonl, line {line}: ")) && error.contains(part), "{error}");
    }

    #[test]
    fn the_built_in_sets_are_long_enough() {
        for name in names() {
            let parsed = parse(Path::new(name), built_in(name).unwrap()).unwrap();
            let (Prompts::Text(text), _) = parsed.rendered(|| Err("none".into())).unwrap() else {
                panic!("{name} has ids");
            };
            assert!(
                text.len() >= ENOUGH && text.starts_with("1.1. ") && text.contains("\n\n2.1. "),
                "{name}"
            );
        }
        assert_eq!(built_in("poetry"), None);
    }

    #[test]
    fn each_kind_is_read() {
        let text = "{\"prompt\": \"a b\", \"tag\": 1}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"c\"}, {\"content\": \"d\"}]}\r\n";
        let (prompts, said) = parse(Path::new("x"), text).unwrap().rendered(|| Err("none".into())).unwrap();
        assert!(said.unwrap().contains("no chat template (none)"));
        let Prompts::Text(found) = prompts else { panic!("ids") };
        assert!(found.starts_with("1.1. a b\n\n1.2. c\n\nd\n\n2.1. a b"), "{}", &found[..60]);
        let found = parse(Path::new("x"), "{\"ids\": [1, 2]}\n{\"ids\": [3]}").unwrap();
        assert_eq!(found, Prompts::Ids(vec![1, 2, 3]));
    }

    const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}";

    fn through_template(source: &str, lines: &str) -> Result<String, BenchError> {
        let template = Arc::new(ChatTemplate::new(source, "", "").unwrap());
        let (prompts, said) = parse(Path::new("x"), lines)?.rendered(|| Ok(template))?;
        assert_eq!(said.unwrap(), "conversations through the model's chat template");
        let Prompts::Rendered(text) = prompts else { panic!("{prompts:?}") };
        Ok(text)
    }

    #[test]
    fn conversations_go_through_the_template() {
        let lines = "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"content\": \"u\"}]}\n{\"prompt\": \"p\"}\n\
            {\"messages\": [{\"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}";
        let text = through_template(TEMPLATE, lines).unwrap();
        let first = "<|system|>1.1. s<|end|><|user|>u<|end|><|assistant|><|user|>1.2. p<|end|><|assistant|>\
            <|user|>1.3. q<|end|><|assistant|>a<|end|><|system|>2.1. s";
        assert!(text.starts_with(first) && text.len() >= ENOUGH, "{}", &text[..200]);
    }

    #[test]
    fn a_template_is_asked_only_for_conversations() {
        let prompts = parse(Path::new("x"), "{\"prompt\": \"p\"}").unwrap();
        let (prompts, said) = prompts.rendered(|| panic!("nobody asked")).unwrap();
        assert!(matches!(prompts, Prompts::Text(_)) && said.is_none());
    }

    #[test]
    fn what_the_template_refuses_is_said() {
        let source = "{{ raise_exception('roles must alternate') }}";
        let error =
            through_template(source, "{\"messages\": [{\"content\": \"a\"}]}").unwrap_err().to_string();
        assert!(
            error.contains("prompts") && error.contains("1.1.") && error.contains("roles must alternate"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        refused("", 1, "no prompt");
        refused("\n\n", 1, "no prompt");
        refused("{\"prompt\": \"a\"}\nnonsense", 2, "expected");
        refused("{\"prompt\": \"a\"}\n\n[1]", 3, "no JSON object");
        refused("{\"text\": \"a\"}", 1, "none of `prompt`");
        refused("{\"prompt\": \"a\", \"ids\": [1]}", 1, "prompt and ids");
        refused("{\"prompt\": 7}", 1, "no text");
        refused("{\"prompt\": \"  \"}", 1, "empty");
        refused("{\"messages\": {}}", 1, "no list");
        refused("{\"messages\": []}", 1, "empty");
        refused("{\"messages\": [{\"content\": \"a\"}, {\"content\": null}]}", 1, "message 2");
        refused("{\"messages\": [{\"role\": 1, \"content\": \"a\"}]}", 1, "`role` that is no text");
        refused("{\"ids\": []}", 1, "no list with ids");
        refused("{\"ids\": [1, -1]}", 1, "-1 is no token id");
        refused("{\"ids\": [1.5]}", 1, "1.5 is no token id");
        refused("{\"ids\": [4294967296]}", 1, "is no token id");
        refused("{\"ids\": [1]}\n{\"prompt\": \"a\"}", 2, "one or the other");
    }
}
