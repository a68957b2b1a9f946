//! The request that load is made of.

use duet_core::text::TokenId;
use serde::Serialize;

/// What is to be completed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Prompt {
    Ids(Vec<TokenId>),
    Text(String),
}

/// A streamed, greedy completion of a fixed length; `usage` is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionRequest {
    model: String,
    prompt: Prompt,
    max_tokens: u32,
    temperature: f32,
    ignore_eos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_prompt: Option<bool>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl CompletionRequest {
    /// Exactly `max_tokens` tokens at temperature 0 after these ids, whatever the model would like to end with.
    pub fn new(model: &str, prompt: Vec<TokenId>, max_tokens: u32) -> Self {
        Self::of(model, Prompt::Ids(prompt), max_tokens)
    }

    /// The same after a text, which the server cuts into tokens itself.
    pub fn of_text(model: &str, prompt: String, max_tokens: u32) -> Self {
        Self::of(model, Prompt::Text(prompt), max_tokens)
    }

    fn of(model: &str, prompt: Prompt, max_tokens: u32) -> Self {
        Self {
            model: model.to_owned(),
            prompt,
            max_tokens,
            temperature: 0.0,
            ignore_eos: true,
            cache_prompt: None,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        }
    }

    /// The same, with the server asked not to take any of the prompt from a cache.
    #[must_use]
    pub fn without_cache(self) -> Self {
        Self { cache_prompt: Some(false), ..self }
    }

    /// Tokens asked for.
    pub fn max_tokens(&self) -> u32 {
        self.max_tokens
    }
}
