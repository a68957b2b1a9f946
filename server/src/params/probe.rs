//! How a parameter's effect can be seen from outside, and the requests that show it.

use serde_json::{Map, Value};

use super::{Endpoint, Parameter};

/// What the test of all parameters does with a row.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// Nothing to be seen: rows without effect, and those that every request has.
    None,
    /// The answer with the parameter differs from the one without it, or it is a 400 that names parameter and engine.
    Answer {
        /// Fields of both requests, as the inside of a JSON object; `null` takes out what the basic request has. `$EOS` is the
        /// id of a token that ends a generation, `$C` the id of the token "c".
        beside: &'static str,
        /// The parameter's value, as JSON.
        value: &'static str,
    },
    /// It cannot be seen in one answer; the test of this name shows it.
    Test(&'static str),
}

/// What the placeholders of a [`Probe`] stand for in a model.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Ends a generation.
    pub eos: u32,
    /// Is the text "c".
    pub c: u32,
}

impl Parameter {
    /// Two bodies for an endpoint, without and with the parameter, that both extend `basic`; `None` where one answer
    /// shows nothing.
    ///
    /// # Panics
    /// If `basic` or the row is no JSON.
    #[must_use]
    pub fn bodies(&self, basic: &Value, tokens: Tokens) -> Option<(Value, Value)> {
        let Probe::Answer { beside, value } = self.probe else { return None };
        let fill =
            |text: &str| text.replace("$EOS", &tokens.eos.to_string()).replace("$C", &tokens.c.to_string());
        let without = merged(basic, &format!("{{{}}}", fill(beside)));
        let with = merged(&without, &format!("{{\"{}\":{}}}", self.name, fill(value)));
        Some((without, with))
    }
}

fn merged(basic: &Value, fields: &str) -> Value {
    let mut all = basic.as_object().cloned().unwrap_or_default();
    let fields: Map<String, Value> =
        serde_json::from_str(fields).unwrap_or_else(|error| panic!("{error}: {fields}"));
    all.extend(fields);
    Value::Object(all)
}

/// A request of an endpoint that all its parameters can be added to: seeded noise of 24 tokens that leaves the cache
/// alone. `None` for endpoints without such a thing.
#[must_use]
pub fn basic(endpoint: Endpoint, model: &str) -> Option<Value> {
    let mut body = match endpoint {
        Endpoint::Chat => serde_json::json!({"messages": [{"role": "user", "content": "abcabcab"}]}),
        Endpoint::Text => serde_json::json!({"prompt": "abcabcab"}),
        _ => return None,
    };
    body["model"] = model.into();
    body["max_tokens"] = 24.into();
    body["temperature"] = 1.into();
    body["seed"] = 1.into();
    body["cache_prompt"] = false.into();
    Some(body)
}

/// An answer without what differs from one request to the next: ids, times, figures of speed. Server-sent events become a
/// list.
#[must_use]
pub fn comparable(answer: &str) -> Value {
    if let Ok(whole) = serde_json::from_str(answer) {
        return without_times(whole);
    }
    let data = answer.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).map(without_times).collect()
}

fn without_times(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| !matches!(name.as_str(), "id" | "created" | "timings" | "system_fingerprint"));
    }
    value
}
