//! One event of a streamed completion, read leniently: servers add fields of their own.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{HttpError, beginning};

/// What a server says that a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Generated tokens, shown or not.
    pub completion_tokens: u64,
    /// Prompt tokens that were not evaluated; `None` where the server does not say.
    pub cached_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<WireDetails>,
}

#[derive(Debug, Deserialize)]
struct WireDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Wire {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    timings: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    system_fingerprint: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    text: String,
    #[serde(default)]
    finish_reason: Option<String>,
}

/// An event.
#[derive(Debug, PartialEq)]
pub(super) struct Chunk {
    /// The text that came, possibly empty.
    pub(super) text: String,
    pub(super) finish_reason: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) timings: Option<Value>,
    pub(super) system_fingerprint: Option<String>,
}

impl Chunk {
    /// Reads the data of an event.
    ///
    /// # Errors
    /// `ErrorEvent`; `Malformed` for what is no JSON, has neither choices nor an error, or more than one choice.
    pub(super) fn parse(data: &str) -> Result<Self, HttpError> {
        let malformed = |reason: String| HttpError::Malformed { reason, event: beginning(data) };
        let wire: Wire = serde_json::from_str(data).map_err(|error| malformed(error.to_string()))?;
        if wire.error.is_some() {
            return Err(HttpError::ErrorEvent { event: beginning(data) });
        }
        let mut choices = wire.choices.ok_or_else(|| malformed("it has no choices".into()))?;
        if choices.len() > 1 {
            return Err(malformed("it has several choices".into()));
        }
        let (text, finish_reason) =
            choices.pop().map_or_else(Default::default, |choice| (choice.text, choice.finish_reason));
        let usage = wire.usage.map(|usage| Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
        });
        let (timings, system_fingerprint) = (wire.timings, wire.system_fingerprint);
        Ok(Self { text, finish_reason, usage, timings, system_fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_both_servers_are_read() {
        let duet = r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","system_fingerprint":"fp_1",
            "choices":[{"index":0,"text":" a","logprobs":null,"finish_reason":null}],"usage":null}"#;
        let chunk = Chunk::parse(duet).unwrap();
        assert_eq!((chunk.text.as_str(), chunk.finish_reason, chunk.usage), (" a", None, None));
        assert_eq!(chunk.system_fingerprint.as_deref(), Some("fp_1"));
        let llama = r#"{"choices":[],"created":1,"model":"m","object":"text_completion",
            "usage":{"completion_tokens":4,"prompt_tokens":9,"total_tokens":13,
            "prompt_tokens_details":{"cached_tokens":5}},"timings":{"prompt_n":4}}"#;
        let chunk = Chunk::parse(llama).unwrap();
        let usage = Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: Some(5) };
        assert_eq!((chunk.text.as_str(), chunk.usage), ("", Some(usage)));
        assert_eq!(chunk.timings.unwrap()["prompt_n"], 4);
        let plain = r#"{"choices":[],"usage":{"completion_tokens":4,"prompt_tokens":9}}"#;
        assert_eq!(Chunk::parse(plain).unwrap().usage.unwrap().cached_tokens, None);
    }

    #[track_caller]
    fn malformed(data: &str, what: &str) {
        let error = Chunk::parse(data).unwrap_err();
        assert!(matches!(error, HttpError::Malformed { .. }), "{data}: {error}");
        assert!(error.to_string().contains(what), "{data}: {error}");
    }

    #[test]
    fn what_is_no_completion_is_told() {
        malformed("", "EOF");
        malformed("{", "EOF");
        malformed("3", "invalid type");
        malformed("[]", "no choices");
        malformed("{}", "no choices");
        malformed(r#"{"choices":null}"#, "no choices");
        malformed(r#"{"choices":{}}"#, "invalid type");
        malformed(r#"{"choices":[{}]}"#, "missing field `text`");
        malformed(r#"{"choices":[{"text":null}]}"#, "invalid type");
        malformed(r#"{"choices":[{"text":"a"},{"text":"b"}]}"#, "several choices");
        malformed(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, "completion_tokens");
        malformed(r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1}}"#, "invalid value");
        malformed(r#"{"choices":[],"usage":{"prompt_tokens":1.5,"completion_tokens":1}}"#, "invalid type");
        let long = format!("{{\"choices\":[{{\"text\":{}}}]}}", "9".repeat(5000));
        assert!(Chunk::parse(&long).unwrap_err().to_string().len() < 500, "messages stay short");
    }

    #[test]
    fn an_error_is_an_error_even_beside_choices() {
        for data in [r#"{"error":{"message":"no"}}"#, r#"{"error":"no","choices":[]}"#] {
            assert!(matches!(Chunk::parse(data), Err(HttpError::ErrorEvent { .. })));
        }
    }
}
