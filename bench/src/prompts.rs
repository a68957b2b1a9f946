//! Prompts to work on: JSON lines from a file, and four sets that duet brings along.
//!
//! The bench cuts its requests from one stretch of text or ids, so that every request has the stated length; prompts follow
//! each other in it, and from the beginning again, numbered, until it is long enough.

use std::path::Path;

use duet_core::text::TokenId;
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
    /// Ids, as they are.
    Ids(Vec<TokenId>),
}

/// The names of the built-in sets.
pub fn names() -> [&'static str; 4] {
    SETS.map(|(name, _)| name)
}

/// A built-in set; `None` for a name that there is not.
pub fn built_in(name: &str) -> Option<&'static str> {
    SETS.iter().find(|(known, _)| *known == name).map(|(_, lines)| *lines)
}

/// The prompts of JSON lines: each an object with `prompt` (a text), `messages` (a list with `content`, taken one after the
/// other without a template) or `ids` (token ids of the model). All have ids, or none has.
///
/// # Errors
/// `Prompts` with file and line of the first line that is none of these, or of a file without any.
pub fn parse(path: &Path, text: &str) -> Result<Prompts, BenchError> {
    let wrong = |line: usize, message: String| BenchError::Prompts { path: path.to_owned(), line, message };
    let (mut texts, mut ids) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        match one(line).map_err(|message| wrong(number, message))? {
            Prompts::Text(text) => texts.push(text),
            Prompts::Ids(own) => ids.extend(own),
        }
        if !texts.is_empty() && !ids.is_empty() {
            return Err(wrong(number, "some lines have ids and others text; one or the other".to_owned()));
        }
    }
    match (texts.is_empty(), ids.is_empty()) {
        (true, true) => Err(wrong(1, "there is no prompt".to_owned())),
        (true, false) => Ok(Prompts::Ids(ids)),
        (false, _) => Ok(Prompts::Text(repeated(&texts))),
    }
}

fn one(line: &str) -> Result<Prompts, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("it is no JSON object")?;
    let known: Vec<&str> =
        ["prompt", "messages", "ids"].into_iter().filter(|key| object.contains_key(*key)).collect();
    match known.as_slice() {
        ["prompt"] => {
            let text = value["prompt"].as_str().ok_or("`prompt` is no text")?;
            filled(text.to_owned()).map(Prompts::Text)
        }
        ["messages"] => messages(&value["messages"]).and_then(filled).map(Prompts::Text),
        ["ids"] => ids(&value["ids"]).map(Prompts::Ids),
        [] => Err("it has none of `prompt`, `messages` and `ids`".to_owned()),
        several => Err(format!("it has {}; one of them is needed", several.join(" and "))),
    }
}

fn filled(text: String) -> Result<String, String> {
    if text.trim().is_empty() { Err("the prompt is empty".to_owned()) } else { Ok(text) }
}

fn messages(value: &Value) -> Result<String, String> {
    let list = value.as_array().ok_or("`messages` is no list")?;
    let content = |(index, message): (usize, &Value)| {
        let content = message["content"].as_str();
        content
            .map(str::to_owned)
            .ok_or_else(|| format!("message {} has no `content` that is a text", index + 1))
    };
    Ok(list.iter().enumerate().map(content).collect::<Result<Vec<_>, _>>()?.join("\n\n"))
}

fn ids(value: &Value) -> Result<Vec<TokenId>, String> {
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or("`ids` is no list with ids")?;
    let id = |value: &Value| value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    list.iter().map(|value| id(value).ok_or_else(|| format!("`ids`: {value} is no token id"))).collect()
}

/// One text, with numbers so that no stretch comes twice.
fn repeated(texts: &[String]) -> String {
    let mut all = String::new();
    for round in 1.. {
        for (index, text) in texts.iter().enumerate() {
            all += &format!("{round}.{}. {text}\n\n", index + 1);
        }
        if all.len() >= ENOUGH {
            break;
        }
    }
    all
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
            let Prompts::Text(text) = parse(Path::new(name), built_in(name).unwrap()).unwrap() else {
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
        let Prompts::Text(found) = parse(Path::new("x"), text).unwrap() else { panic!("ids") };
        assert!(found.starts_with("1.1. a b\n\n1.2. c\n\nd\n\n2.1. a b"), "{}", &found[..60]);
        let found = parse(Path::new("x"), "{\"ids\": [1, 2]}\n{\"ids\": [3]}").unwrap();
        assert_eq!(found, Prompts::Ids(vec![1, 2, 3]));
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
        refused("{\"ids\": []}", 1, "no list with ids");
        refused("{\"ids\": [1, -1]}", 1, "-1 is no token id");
        refused("{\"ids\": [1.5]}", 1, "1.5 is no token id");
        refused("{\"ids\": [4294967296]}", 1, "is no token id");
        refused("{\"ids\": [1]}\n{\"prompt\": \"a\"}", 2, "one or the other");
    }
}
