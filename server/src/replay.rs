//! Answers by a script, for tests of clients: the model is evaluated, cached and streamed as ever, and says what it is
//! told to.
//!
//! A script is a text of one JSON object per line. `says` is what the model says, in its own writing: calls as its family
//! writes them, thinking between its marks. A turn is for requests whose last message contains `last` and whose whole
//! prompt contains `prompt`, where given; each is for one request of each model, in the order of the script, unless it
//! says `"repeat": true`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use crate::error::ApiError;

/// What models shall say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayScript {
    turns: Vec<Turn>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    says: String,
    last: Option<String>,
    prompt: Option<String>,
    #[serde(default)]
    repeat: bool,
    /// Where it stands.
    #[serde(skip)]
    line: usize,
}

impl ReplayScript {
    /// From a script's text; empty lines and lines that begin with `//` are passed over.
    ///
    /// # Errors
    /// What is wrong with the first bad line, with its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_turn = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let turn = |(index, line): (usize, &str)| match serde_json::from_str::<Turn>(line) {
            Ok(turn) => Ok(Turn { line: index + 1, ..turn }),
            Err(error) => Err(format!("line {}: {error}", index + 1)),
        };
        let turns: Vec<Turn> =
            text.lines().enumerate().filter(|(_, line)| is_turn(line)).map(turn).collect::<Result<_, _>>()?;
        if turns.is_empty() {
            return Err("it has no turns".to_owned());
        }
        Ok(Self { turns })
    }
}

/// A script being played.
#[derive(Debug)]
pub(crate) struct Replay {
    script: ReplayScript,
    /// By model, which turns were said.
    said: Mutex<HashMap<String, Vec<bool>>>,
}

/// What turns are told apart by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a str,
    /// The request's field that has it.
    pub(crate) param: &'a str,
    pub(crate) last: &'a str,
    pub(crate) prompt: &'a str,
}

impl Replay {
    pub(crate) fn new(script: ReplayScript) -> Self {
        Self { script, said: Mutex::default() }
    }

    /// The next turn for this request.
    ///
    /// # Errors
    /// 400 where no turn is for it, with the lines that are left.
    pub(crate) fn next(&self, asked: Asked<'_>) -> Result<&str, ApiError> {
        let turns = &self.script.turns;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = said.entry(asked.model.to_owned()).or_insert_with(|| vec![false; turns.len()]);
        let found = turns.iter().zip(said.iter_mut()).find(|(turn, said)| !**said && turn.is_for(asked));
        if let Some((turn, said)) = found {
            *said = !turn.repeat;
            return Ok(&turn.says);
        }
        let left = turns.iter().zip(said.iter()).filter(|(_, said)| !**said);
        let left: Vec<String> = left.map(|(turn, _)| turn.line.to_string()).collect();
        let left =
            if left.is_empty() { "none is left".to_owned() } else { format!("left: {}", left.join(", ")) };
        let message = format!("no line of the replay script is for this request ({left})");
        Err(ApiError::invalid(asked.param, message))
    }
}

impl Turn {
    fn is_for(&self, asked: Asked<'_>) -> bool {
        let has = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| text.contains(part));
        has(&self.last, asked.last) && has(&self.prompt, asked.prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn asked<'a>(model: &'a str, last: &'a str) -> Asked<'a> {
        Asked { model, param: "messages", last, prompt: "system and all" }
    }

    #[test]
    fn turns_come_in_order_once_per_model_where_they_fit() {
        let script = "{\"says\": \"title\", \"prompt\": \"other\", \"repeat\": true}\n\n// a remark\n\
                      {\"says\": \"one\"}\n{\"says\": \"two\", \"last\": \"result\"}\n\
                      {\"says\": \"again\", \"last\": \"again\", \"repeat\": true}\n";
        let replay = Replay::new(ReplayScript::parse(script).unwrap());
        for model in ["a", "b"] {
            assert_eq!(replay.next(asked(model, "a result")).unwrap(), "one");
            assert_eq!(replay.next(asked(model, "again")).unwrap(), "again");
            assert_eq!(replay.next(asked(model, "again")).unwrap(), "again");
            let error = replay.next(asked(model, "else")).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (ErrorCode::InvalidValue, Some("messages")));
            assert!(error.message.ends_with("(left: 1, 5, 6)"), "{}", error.message);
            assert_eq!(replay.next(asked(model, "a result")).unwrap(), "two");
            assert_eq!(replay.next(Asked { prompt: "other", ..asked(model, "x") }).unwrap(), "title");
        }
        let once = Replay::new(ReplayScript::parse("{\"says\":\"\"}").unwrap());
        assert_eq!(once.next(asked("a", "")).unwrap(), "");
        assert!(once.next(asked("a", "")).unwrap_err().message.ends_with("(none is left)"));
    }

    #[test]
    fn bad_scripts_are_refused_with_their_line() {
        for (script, wanted) in [
            ("", "no turns"),
            ("// nothing\n", "no turns"),
            ("{\"says\": 1}", "line 1: "),
            ("\n{}", "line 2: missing field `says`"),
            ("{\"says\": \"a\", \"lsat\": \"b\"}", "unknown field `lsat`"),
            ("{\"says\": \"a\"} {}", "line 1: trailing"),
            ("says: a", "line 1: "),
        ] {
            let error = ReplayScript::parse(script).unwrap_err();
            assert!(error.contains(wanted), "{script:?}: {error}");
        }
    }
}
