//! A request after validation: nothing optional that is needed, no text, no wire format.

use std::sync::Arc;
use std::time::Instant;

use crate::constraint::Constraint;
use crate::sampling::SamplingParams;
use crate::text::TokenId;

/// How many logprobs to report for each generated token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogprobsRequest {
    /// Alternatives beside the chosen token, 0 to 20.
    pub n_top: u32,
}

/// How urgent a request is. A batch request goes before interactive ones once it has waited long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work that nobody watches.
    Batch,
    /// Somebody is waiting.
    #[default]
    Interactive,
}

/// Everything an engine needs to generate one completion.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Shown in logs; chosen by the caller.
    pub id: String,
    /// The prompt's token ids, BOS included where the model wants one. Not empty.
    pub prompt: Vec<TokenId>,
    /// A ceiling for generated tokens; the context length is one too. At least 1, or 0 with `prompt_logprobs`: then the
    /// prompt is scored and nothing generated.
    pub max_tokens: u32,
    /// End-of-generation tokens are not sampled before this many tokens.
    pub min_tokens: u32,
    /// The sampler chain.
    pub sampling: SamplingParams,
    /// Texts that end the generation; not part of the output.
    pub stop: Vec<String>,
    /// Tokens that end the generation, beside the model's own; not part of the output.
    pub stop_tokens: Vec<TokenId>,
    /// Go on after end-of-generation tokens.
    pub ignore_eos: bool,
    /// The output goes on with the prompt's text instead of beginning a text of its own: a SentencePiece model's leading
    /// space is kept.
    pub continues_prompt: bool,
    /// Report logprobs.
    pub logprobs: Option<LogprobsRequest>,
    /// Report logprobs of the prompt's tokens, in [`Finished::prompt_logprobs`](crate::Finished::prompt_logprobs). All of
    /// the prompt is evaluated then: no cached prefix is used for it, and nothing of it kept.
    pub prompt_logprobs: Option<LogprobsRequest>,
    /// Give up with `DeadlineExceeded` at this instant.
    pub deadline: Option<Instant>,
    /// Who goes first while requests wait.
    pub priority: Priority,
    /// Whether cached prefixes are used for this request and its tokens kept for others. Off: nothing is found, nothing
    /// remains.
    pub use_prefix_cache: bool,
    /// The form that the output has to have. End-of-generation tokens are only sampled where it is whole, and it ends the
    /// generation where nothing can follow.
    pub constraint: Option<Constraint>,
    /// Control tokens that appear in the output's text in their written form (marks of tool calls and the like); all
    /// others are left out.
    pub shown_control: Arc<[TokenId]>,
    /// The output, whatever the logits say: these tokens one after another, then the model's end-of-generation token. For
    /// tests of clients: the model is evaluated, cached and streamed as ever, only the draw is replaced, and with it all
    /// that [`GenerateRequest::sampling`] says. A constraint holds all the same: a token that it forbids is an error.
    pub script: Option<Arc<[TokenId]>>,
}

impl GenerateRequest {
    /// A greedy request with nothing special.
    pub fn new(id: impl Into<String>, prompt: Vec<TokenId>, max_tokens: u32) -> Self {
        Self {
            id: id.into(),
            prompt,
            max_tokens,
            min_tokens: 0,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            continues_prompt: false,
            logprobs: None,
            prompt_logprobs: None,
            deadline: None,
            priority: Priority::default(),
            use_prefix_cache: true,
            constraint: None,
            shown_control: Arc::default(),
            script: None,
        }
    }
}
