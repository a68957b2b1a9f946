//! Parameters that some API documents and duet does not have (yet): refused by name, unless the value asks for nothing.
//!
//! Silence would be worse than a refusal: a client that sends `bad_words` believes that they cannot come.

use serde_json::Value;

use crate::error::ApiError;
use crate::wire::fields::Fields;

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
const CONSTRAINT: &str = "constrained output is not there yet";
const TEXT_ONLY: &str = "models are served for text";
const NAMED_OTHERWISE: &str = "use `max_tokens`";
const OLD_FORM: &str = "it is the old form of `tools`";
const NO_STORE: &str = "answers are not stored";

/// Name, which values ask for nothing, and why the others are refused; for both routes.
const REFUSED: &[(&str, AsksNothing, &str)] = &[
    ("tools", empty, LATER),
    ("tool_choice", word_none, LATER),
    ("functions", empty, OLD_FORM),
    ("function_call", word_none, OLD_FORM),
    ("grammar", empty, CONSTRAINT),
    ("json_schema", never, CONSTRAINT),
    ("structured_outputs", never, CONSTRAINT),
    ("guided_json", never, CONSTRAINT),
    ("guided_regex", never, CONSTRAINT),
    ("guided_choice", never, CONSTRAINT),
    ("guided_grammar", never, CONSTRAINT),
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
    ("mirostat", zero, LATER),
    ("dynatemp_range", zero, LATER),
    ("samplers", never, "the order of the sampler chain is fixed"),
];

/// No effect by definition: names for the log of others, and hints for caches that hold nothing back.
const WITHOUT_EFFECT: &[&str] = &[
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    // Only with mirostat, which is refused above.
    "mirostat_tau",
    "mirostat_eta",
    "dynatemp_exponent",
];

/// Takes all of them out.
///
/// # Errors
/// `unsupported_parameter` with the name, for the first that asks for something; `invalid_value` for a
/// `response_format` of no known type.
pub(crate) fn take_refused(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, asks_nothing, why) in REFUSED {
        fields.refuse(name, asks_nothing, why)?;
    }
    fields.without_effect(WITHOUT_EFFECT);
    let Some(format) = fields.take::<serde_json::Map<String, Value>>("response_format")? else {
        return Ok(());
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(()),
        Some(kind @ ("json_object" | "json_schema" | "grammar" | "structural_tag")) => {
            let message = format!("`response_format` of type `{kind}` is not supported: {CONSTRAINT}");
            Err(ApiError::unsupported("response_format", message))
        }
        _ => Err(ApiError::invalid(
            "response_format.type",
            "`response_format.type` must be \"text\", \"json_object\" or \"json_schema\"",
        )),
    }
}
