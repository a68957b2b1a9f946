//! What chat and plain completions have in common, checked as far as it can be without a model.

use duet_core::request::Priority;
use duet_core::text::TokenId;
use serde_json::{Map, Value};

use crate::error::{ApiError, ErrorCode};
use crate::wire::fields::Fields;
use crate::wire::openai::one_or_many::OneOrMany;
use crate::wire::openai::sampling::SamplingRequest;
use crate::wire::openai::structure::Structure;

/// More stop strings than any client has reason to send; each costs a little at every token.
const MOST_STOPS: usize = 32;
const MOST_STOP_BYTES: usize = 1024;
const MOST_STOP_TOKENS: usize = 128;
const PRIORITIES: &str = "`priority` must be \"interactive\" or \"batch\"";

/// Parameters of both routes.
#[derive(Debug)]
pub(crate) struct Params {
    /// As the client named it; repeated in the answer.
    pub(crate) model: String,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) min_tokens: u32,
    pub(crate) ignore_eos: bool,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_token_ids: Vec<TokenId>,
    pub(crate) sampling: SamplingRequest,
    pub(crate) n: u32,
    /// Choices that are generated for each prompt; the best `n` are the answer. At least `n`.
    pub(crate) best_of: u32,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) return_token_ids: bool,
    pub(crate) priority: Priority,
    /// Whether cached prefixes may be used and the request's tokens kept.
    pub(crate) cache_prompt: bool,
    pub(crate) structure: Option<Structure>,
}

impl Params {
    /// Takes the shared fields; what the route itself reads has to be taken before or after, in any order.
    ///
    /// # Errors
    /// As the contract's table: type, value, unsupported parameter, each with its name.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let model: String = fields.need("model")?;
        let stream: bool = fields.take("stream")?.unwrap_or(false);
        let include_usage = stream_options(fields, stream)?;
        let n = fields.take::<u32>("n")?.unwrap_or(1);
        let best_of = best_of(fields, n, stream)?;
        let max_tokens = max_tokens(fields)?;
        let min_tokens: u32 = fields.take("min_tokens")?.unwrap_or(0);
        if max_tokens.is_some_and(|max| min_tokens > max) {
            return Err(ApiError::invalid("min_tokens", "`min_tokens` must not be more than `max_tokens`"));
        }
        let stop = stop_strings(fields)?;
        let stop_token_ids: Vec<TokenId> = fields.take("stop_token_ids")?.unwrap_or_default();
        if stop_token_ids.len() > MOST_STOP_TOKENS {
            let message = format!(
                "`stop_token_ids` may have {MOST_STOP_TOKENS} ids at most, got {}",
                stop_token_ids.len()
            );
            return Err(ApiError::invalid("stop_token_ids", message));
        }
        let params = Self {
            model,
            max_tokens,
            min_tokens,
            ignore_eos: fields.take("ignore_eos")?.unwrap_or(false),
            stop,
            stop_token_ids,
            sampling: SamplingRequest::take(fields)?,
            n,
            best_of,
            stream,
            include_usage,
            return_token_ids: fields.take("return_token_ids")?.unwrap_or(false),
            priority: priority(fields)?,
            cache_prompt: fields.take("cache_prompt")?.unwrap_or(true),
            structure: Structure::take(fields)?,
        };
        Ok(params)
    }
}

impl Params {
    /// Refuses `max_tokens: 0`, for what has nothing to do without tokens.
    ///
    /// # Errors
    /// `invalid_value`.
    pub(crate) fn needs_tokens(&self, why: &str) -> Result<(), ApiError> {
        match self.max_tokens {
            Some(0) => {
                Err(ApiError::invalid("max_tokens", format!("`max_tokens` must be at least 1: {why}")))
            }
            _ => Ok(()),
        }
    }
}

fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let old = fields.take::<u32>("max_tokens")?;
    let new = fields.take::<u32>("max_completion_tokens")?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let message =
                format!("`max_tokens` ({old}) and `max_completion_tokens` ({new}) differ; give one of them");
            Err(ApiError::invalid("max_completion_tokens", message))
        }
        (old, new) => Ok(new.or(old)),
    }
}

fn priority(fields: &mut Fields) -> Result<Priority, ApiError> {
    match fields.take::<Value>("priority")? {
        None => Ok(Priority::default()),
        Some(Value::String(word)) => match word.as_str() {
            "interactive" => Ok(Priority::Interactive),
            "batch" => Ok(Priority::Batch),
            _ => Err(ApiError::invalid("priority", PRIORITIES)),
        },
        // vLLM's clients send a number, and 0 is its default.
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(Priority::default()),
        Some(Value::Number(_)) => Err(ApiError::invalid("priority", PRIORITIES)),
        Some(other) => {
            let message = format!("{PRIORITIES}, not {}", crate::wire::fields::kind(&other));
            Err(ApiError::param(ErrorCode::InvalidType, "priority", message))
        }
    }
}

fn best_of(fields: &mut Fields, n: u32, stream: bool) -> Result<u32, ApiError> {
    let best_of = fields.take::<u32>("best_of")?.unwrap_or(n);
    if best_of < n {
        let message = format!("`best_of` ({best_of}) must be at least `n` ({n})");
        return Err(ApiError::invalid("best_of", message));
    }
    if best_of > n && stream {
        let message =
            "`best_of` above `n` cannot be streamed: which choices are the best is known at their end";
        return Err(ApiError::invalid("best_of", message));
    }
    Ok(best_of)
}

fn stop_strings(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let OneOrMany(stop) = fields.take("stop")?.unwrap_or_default();
    if stop.len() > MOST_STOPS {
        let message = format!("`stop` may have {MOST_STOPS} texts at most, got {}", stop.len());
        return Err(ApiError::invalid("stop", message));
    }
    match stop.iter().position(|text| text.is_empty() || text.len() > MOST_STOP_BYTES) {
        Some(index) => {
            let message =
                format!("a stop string must have 1 to {MOST_STOP_BYTES} bytes, got {}", stop[index].len());
            Err(ApiError::invalid(format!("stop[{index}]"), message))
        }
        None => Ok(stop),
    }
}

/// Whether usage is wanted in a last chunk.
fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(mut options) = fields.take::<Map<String, Value>>("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(ApiError::invalid(
            "stream_options",
            "`stream_options` is only allowed when `stream` is true",
        ));
    }
    let mut include_usage = false;
    for (name, value) in std::mem::take(&mut options) {
        let path = format!("stream_options.{name}");
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("include_usage", Value::Bool(wanted)) => include_usage = wanted,
            ("include_obfuscation" | "continuous_usage_stats", Value::Bool(false)) => {}
            ("include_obfuscation" | "continuous_usage_stats", Value::Bool(true)) => {
                return Err(ApiError::unsupported(
                    path.clone(),
                    format!("`{path}` is not supported by any engine of this server"),
                ));
            }
            ("include_usage" | "include_obfuscation" | "continuous_usage_stats", other) => {
                let message =
                    format!("`{path}` must be a boolean, not {}", crate::wire::fields::kind(&other));
                return Err(ApiError::param(ErrorCode::InvalidType, path, message));
            }
            _ => fields.ignore(path),
        }
    }
    Ok(include_usage)
}
