//! The body of `POST /v1/chat/completions`.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::tools::request::{ToolRequest, take_tools};
use crate::wire::fields::Fields;
use crate::wire::openai::message::{Message, take_messages};
use crate::wire::openai::params::Params;
use crate::wire::responses::ask::Ask;

/// A chat request, checked as far as it can be without a model.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) params: Params,
    pub(crate) messages: Vec<Message>,
    /// Alternatives per token, if logprobs are wanted.
    pub(crate) logprobs: Option<u32>,
    pub(crate) template: TemplateOptions,
    /// Functions that may be called.
    pub(crate) tools: Option<ToolRequest>,
    /// Whose answer it gets.
    pub(crate) voice: Voice,
}

/// In which API's words a chat is answered.
#[derive(Debug, Clone)]
pub(crate) enum Voice {
    /// `/v1/chat/completions`, and completions.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
    /// `/v1/responses`.
    Responses(Arc<Ask>),
}

/// What the request says to the chat template.
#[derive(Debug)]
pub(crate) struct TemplateOptions {
    pub(crate) kwargs: Map<String, Value>,
    /// Given by its own name and not inside of `chat_template_kwargs`.
    pub(crate) enable_thinking: Option<bool>,
    pub(crate) reasoning_effort: Option<String>,
    /// As `enable_thinking`, and nothing where the template does not know it.
    pub(crate) wishes_thinking: Option<bool>,
    pub(crate) add_generation_prompt: bool,
    pub(crate) continue_final_message: bool,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// As the contract's table.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let tools = take_tools(fields)?;
        let params = Params::take(fields)?;
        params.needs_tokens("an answer needs them")?;
        Ok(Self {
            params,
            messages: take_messages(fields)?,
            logprobs: logprobs(fields)?,
            template: template(fields)?,
            tools,
            voice: Voice::OpenAi,
        })
    }

    /// Of a body of another API that was put into chat's form.
    ///
    /// # Errors
    /// As [`ChatRequest::take`].
    pub(crate) fn translated(body: Map<String, Value>, voice: Voice) -> Result<Self, ApiError> {
        let mut fields = Fields::translated(body)?;
        Ok(Self { voice, ..Self::take(&mut fields)? })
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted: bool = fields.take("logprobs")?.unwrap_or(false);
    let n_top = fields.take::<u32>("top_logprobs")?;
    match n_top {
        Some(n) if n > 0 && !wanted => {
            Err(ApiError::invalid("top_logprobs", "`top_logprobs` is only allowed when `logprobs` is true"))
        }
        n => Ok(wanted.then_some(n.unwrap_or(0))),
    }
}

pub(crate) fn template(fields: &mut Fields) -> Result<TemplateOptions, ApiError> {
    let continue_final_message = fields.take("continue_final_message")?.unwrap_or(false);
    let add_generation_prompt = fields.take("add_generation_prompt")?.unwrap_or(!continue_final_message);
    if continue_final_message && add_generation_prompt {
        let message = "`continue_final_message` and `add_generation_prompt` exclude each other";
        return Err(ApiError::invalid("continue_final_message", message));
    }
    Ok(TemplateOptions {
        kwargs: fields.take("chat_template_kwargs")?.unwrap_or_default(),
        enable_thinking: fields.take("enable_thinking")?,
        reasoning_effort: fields.take("reasoning_effort")?,
        wishes_thinking: None,
        add_generation_prompt,
        continue_final_message,
    })
}
