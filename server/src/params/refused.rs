//! Parameters that some API documents and duet does not have (yet): refused by name, unless the value asks for nothing.
//!
//! Silence would be worse than a refusal: a client that sends `bad_words` believes that they cannot come.

use std::sync::LazyLock;

use serde_json::Value;

use super::{Endpoint, Endpoints, Group, Kind, Parameter, Probe, Rule};

type AsksNothing = fn(&Value) -> bool;

fn never(_: &Value) -> bool {
    false
}

fn off(value: &Value) -> bool {
    value == &Value::Bool(false)
}

fn on(value: &Value) -> bool {
    value == &Value::Bool(true)
}

fn zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("")
}

fn word_none(value: &Value) -> bool {
    value.as_str() == Some("none")
}

fn only_text(value: &Value) -> bool {
    value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind.as_str() == Some("text")))
}

fn usual_tier(value: &Value) -> bool {
    matches!(value.as_str(), Some("auto" | "default"))
}

fn medium(value: &Value) -> bool {
    value.as_str() == Some("medium")
}

const LATER: &str = "this version of duet cannot do it yet";
const TEXT_ONLY: &str = "models are served for text";
const NAMED_OTHERWISE: &str = "use `max_tokens`";
const OLD_FORM: &str = "it is the old form of `tools`";
const NO_STORE: &str = "answers are not stored";

/// Where all of them are refused.
const ON: Endpoints = Endpoints::of(&[Endpoint::Chat, Endpoint::Text]);

/// Name, which values ask for nothing, and why the others are refused.
const REFUSED: &[(&str, AsksNothing, &str)] = &[
    ("functions", empty, OLD_FORM),
    ("function_call", word_none, OLD_FORM),
    ("audio", never, TEXT_ONLY),
    ("modalities", only_text, TEXT_ONLY),
    ("web_search_options", never, "there is no web search"),
    ("prediction", never, LATER),
    ("store", off, NO_STORE),
    ("service_tier", usual_tier, "there is one tier"),
    ("verbosity", medium, "no model takes it"),
    ("moderation", never, "there is no moderation"),
    ("keep_alive", never, LATER),
    ("ttl", never, LATER),
    ("lora", empty, LATER),
    ("chat_template", never, "templates come with the model"),
    ("documents", empty, LATER),
    ("thinking_budget", never, LATER),
    ("reasoning_budget", never, LATER),
    ("thinking_token_budget", never, LATER),
    ("bad_words", empty, "use `logit_bias`"),
    ("allowed_token_ids", empty, LATER),
    ("logits_processors", empty, LATER),
    ("use_beam_search", off, LATER),
    ("length_penalty", one, LATER),
    ("early_stopping", off, LATER),
    ("prompt_logprobs", never, LATER),
    ("n_probs", zero, "use `logprobs`"),
    ("n_predict", never, NAMED_OTHERWISE),
    ("max_new_tokens", never, NAMED_OTHERWISE),
    ("max_output_tokens", never, NAMED_OTHERWISE),
    ("truncate_prompt_tokens", never, "prompts are never shortened"),
    ("skip_special_tokens", on, "control tokens are never shown"),
    ("include_stop_str_in_output", off, "stop strings are never shown"),
    ("dynatemp_range", zero, LATER),
    ("samplers", never, "the order of the sampler chain is fixed"),
];

/// The same for completions alone.
const REFUSED_FOR_TEXT: &[(&str, AsksNothing, &str)] =
    &[("tools", empty, FOR_CHAT), ("tool_choice", word_none, FOR_CHAT)];
/// The same for chat alone.
const REFUSED_FOR_CHAT: &[(&str, AsksNothing, &str)] =
    &[("suffix", empty, "a chat has no gap, use `/v1/completions`")];
/// The same for responses.
const REFUSED_FOR_RESPONSES: &[(&str, AsksNothing, &str)] = &[
    ("conversation", never, "use `previous_response_id`"),
    ("prompt", never, "there are no stored prompts"),
    ("max_tool_calls", never, "this server runs no tools itself"),
    ("truncation", disabled, "prompts are never shortened"),
    ("top_logprobs", zero, LATER),
    ("stream_options", no_options, LATER),
];

/// The same for messages.
const REFUSED_FOR_MESSAGES: &[(&str, AsksNothing, &str)] = &[
    ("mcp_servers", empty, "this server runs no tools itself"),
    ("container", never, "this server runs no tools itself"),
    ("inference_geo", never, "there is one place"),
];

/// The same for reranking.
const REFUSED_FOR_RERANK: &[(&str, AsksNothing, &str)] = &[
    ("rank_fields", never, "documents are texts, or objects with `text`"),
    ("max_chunks_per_doc", never, "documents are never cut"),
    ("max_tokens_per_doc", never, "documents are never cut"),
    ("truncate", never, "documents are never cut"),
];

fn disabled(value: &Value) -> bool {
    value.as_str() == Some("disabled")
}

/// Padding against listeners is switched off by clients that know it, and was never on.
fn no_options(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(|value| value == &Value::Bool(false)))
}

const FOR_CHAT: &str = "completions have no tools, use `/v1/chat/completions`";

/// The list as rows.
static ROWS: LazyLock<Vec<Parameter>> = LazyLock::new(|| {
    let row = |&(name, asks_nothing, why): &(&'static str, AsksNothing, &'static str)| Parameter {
        rule: Rule::Refused { asks_nothing, why },
        probe: Probe::None,
        ..Parameter::new(name, ON, Group::Refused, Kind::ANYTHING, "off", why)
    };
    let for_text = |entry| Parameter { on: Endpoints::of(&[Endpoint::Text]), ..row(entry) };
    let for_responses = |entry| Parameter { on: Endpoints::of(&[Endpoint::Responses]), ..row(entry) };
    let for_messages = |entry| Parameter { on: Endpoints::of(&[Endpoint::Messages]), ..row(entry) };
    let for_chat = |entry| Parameter { on: Endpoints::of(&[Endpoint::Chat]), ..row(entry) };
    let for_rerank = |entry| Parameter { on: Endpoints::of(&[Endpoint::Rerank]), ..row(entry) };
    let further = REFUSED_FOR_CHAT
        .iter()
        .map(for_chat)
        .chain(REFUSED_FOR_TEXT.iter().map(for_text))
        .chain(REFUSED_FOR_RESPONSES.iter().map(for_responses))
        .chain(REFUSED_FOR_MESSAGES.iter().map(for_messages))
        .chain(REFUSED_FOR_RERANK.iter().map(for_rerank));
    REFUSED.iter().map(row).chain(further).collect()
});

pub(super) fn rows() -> impl Iterator<Item = &'static Parameter> {
    ROWS.iter()
}
