//! The body of `POST /v1/completions`.

use crate::error::ApiError;
use crate::wire::fields::Fields;
use crate::wire::openai::params::Params;
use crate::wire::openai::prompt::{Prompt, PromptField};

/// OpenAI's own default for this route.
pub(crate) const DEFAULT_MAX_TOKENS: u32 = 16;

/// A completion request, checked as far as it can be without a model.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) params: Params,
    pub(crate) prompts: Vec<Prompt>,
    /// Alternatives per token, if logprobs are wanted.
    pub(crate) logprobs: Option<u32>,
    pub(crate) echo: bool,
    /// What stands behind the gap that is to be filled.
    pub(crate) suffix: Option<String>,
}

impl CompletionRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// As the contract's table.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let params = Params::take(fields)?;
        let prompts = fields.need::<PromptField>("prompt")?.prompts()?;
        let logprobs = fields.take::<u32>("logprobs")?;
        let echo = fields.take("echo")?.unwrap_or(false);
        if !echo {
            params.needs_tokens("only with `echo` there is something without them")?;
        }
        if echo && logprobs.is_some() && params.stream {
            let message = "`stream` together with `echo` and `logprobs` is not supported by any engine of this server: \
                           a prompt's scores come in one piece";
            return Err(ApiError::unsupported("stream", message));
        }
        // An empty one is how clients say that there is no gap.
        let suffix = fields.take::<String>("suffix")?.filter(|suffix| !suffix.is_empty());
        if suffix.is_some() && echo && logprobs.is_some() {
            let message = "`suffix` goes without `echo` together with `logprobs`: the prompt around a gap is not the text \
                           that comes back";
            return Err(ApiError::invalid("suffix", message));
        }
        Ok(Self { params, prompts, logprobs, echo, suffix })
    }
}
