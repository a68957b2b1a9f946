//! What comes back from a request: token events and one end.

use std::time::Duration;

use crate::sampling::TokenLogprobs;
use crate::text::TokenId;

/// Why a generation ended without a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-generation token, a stop token or a stop string.
    Stop(StopCause),
    /// `max_tokens` or the context length was reached.
    Length,
}

/// What exactly stopped it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// The model's own end-of-generation token, with its id.
    EndOfGeneration(TokenId),
    /// A stop token of the request.
    StopToken(TokenId),
    /// A stop string of the request, with its index.
    StopString(usize),
    /// The text is whole by the request's constraint, and nothing could follow.
    Constraint,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// Its id.
    pub id: TokenId,
    /// Text that became certain with it: may be empty (a partial character, a possible stop string) or hold text that
    /// was kept back before. Always whole UTF-8.
    pub text: String,
    /// If asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Counts of a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub n_prompt_tokens: u32,
    /// Of these, not evaluated because the KV cache had them.
    pub n_cached_tokens: u32,
    /// Generated tokens, including a stop or end-of-generation token that is not shown.
    pub n_completion_tokens: u32,
}

/// Where a request's time went. All from the engine's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Admitted → first step.
    pub queue: Duration,
    /// First step → first token.
    pub prefill: Duration,
    /// First token → last token.
    pub decode: Duration,
    /// Admitted → first token.
    pub time_to_first_token: Duration,
    /// Most sequences that shared a step with it.
    pub batch_width: u32,
}

/// The end of a request that did not fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Text that was kept back for a stop string that did not come.
    pub text: String,
    /// Counts.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
    /// If asked for: of each token of the prompt but the first, before which there is nothing, given those before it.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// If logprobs were asked for: of the token that ended it, which is not part of the output.
    pub end_logprobs: Option<TokenLogprobs>,
}

/// One item of a generation.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// A token that is part of the output.
    Token(TokenEvent),
    /// The end; nothing follows.
    Finished(Finished),
}
