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
        if echo && logprobs.is_some() {
            let message = "`echo` together with `logprobs` is not supported: prompts are not scored yet";
            return Err(ApiError::unsupported("echo", message));
        }
        Ok(Self { params, prompts, logprobs, echo })
    }
}
