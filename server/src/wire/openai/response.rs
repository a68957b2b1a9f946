//! Answers: the parts that streams and whole bodies share, and the whole bodies.

use duet_core::event::{FinishReason, Finished, StopCause};
use duet_core::text::TokenId;
use serde::Serialize;

use crate::generate::spoken::Block;
use crate::models::Resident;
use crate::wire::openai::logprobs::{ChatLogprobs, TextLogprobs};

/// `usage`.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
    pub(crate) total_tokens: u32,
    pub(crate) prompt_tokens_details: PromptTokensDetails,
    pub(crate) completion_tokens_details: CompletionTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct PromptTokensDetails {
    pub(crate) cached_tokens: u32,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CompletionTokensDetails {
    pub(crate) reasoning_tokens: u32,
}

/// `timings`: llama.cpp's names, and where the time before the first token went.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Timings<'a> {
    /// Prompt tokens that were evaluated (not found in the cache), over all choices.
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    /// Generated tokens over all choices.
    predicted_n: u32,
    /// First token to last token, of the choice that took longest.
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
    /// Prompt tokens that were found in the cache, over all choices: `prompt_n` and this are all prompt tokens.
    cache_n: u32,
    queue_ms: f64,
    ttft_ms: f64,
    engine: &'a str,
    engine_version: &'a str,
    quantization: &'a str,
    kv_type: &'a str,
    batch_width: u32,
}

/// Adds up the choices of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    usage: Usage,
    /// By prompt: cached tokens that are in `usage`.
    cached: Vec<Option<u32>>,
    n_evaluated: u32,
    n_cached: u32,
    n_intervals: u32,
    queue_ms: f64,
    prompt_ms: f64,
    predicted_ms: f64,
    ttft_ms: Option<f64>,
    batch_width: u32,
}

impl Tally {
    /// A choice of the prompt with this index has ended.
    pub(crate) fn add(&mut self, finished: &Finished, prompt: usize) {
        let (usage, timings) = (&finished.usage, &finished.timings);
        self.add_prompt(usage.n_prompt_tokens, usage.n_cached_tokens, prompt);
        self.usage.completion_tokens += usage.n_completion_tokens;
        self.usage.total_tokens = self.usage.prompt_tokens + self.usage.completion_tokens;
        self.n_evaluated += usage.n_prompt_tokens.saturating_sub(usage.n_cached_tokens);
        self.n_cached += usage.n_cached_tokens;
        self.n_intervals += usage.n_completion_tokens.saturating_sub(1);
        // Choices run beside each other: the longest, not the sum.
        self.queue_ms = self.queue_ms.max(ms(timings.queue));
        self.prompt_ms = self.prompt_ms.max(ms(timings.prefill));
        self.predicted_ms = self.predicted_ms.max(ms(timings.decode));
        let ttft = ms(timings.time_to_first_token);
        self.ttft_ms = Some(self.ttft_ms.map_or(ttft, |other| other.min(ttft)));
        self.batch_width = self.batch_width.max(timings.batch_width);
    }

    /// A prompt counts once for all its choices, and what one of them evaluated was not cached for the request, even if
    /// the others found it: so the least of them.
    fn add_prompt(&mut self, n_tokens: u32, n_cached: u32, prompt: usize) {
        if self.cached.len() <= prompt {
            self.cached.resize(prompt + 1, None);
        }
        let total = &mut self.usage.prompt_tokens_details.cached_tokens;
        match &mut self.cached[prompt] {
            Some(least) => {
                *total -= least.saturating_sub(n_cached);
                *least = n_cached.min(*least);
            }
            unseen => {
                self.usage.prompt_tokens += n_tokens;
                *total += n_cached;
                *unseen = Some(n_cached);
            }
        }
    }

    /// Tokens of a choice that were thinking.
    pub(crate) fn add_reasoning(&mut self, n_tokens: u32) {
        self.usage.completion_tokens_details.reasoning_tokens += n_tokens;
    }

    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    pub(crate) fn ttft_ms(&self) -> f64 {
        self.ttft_ms.unwrap_or_default()
    }

    pub(crate) fn queue_ms(&self) -> f64 {
        self.queue_ms
    }

    pub(crate) fn timings<'a>(&self, resident: &'a Resident) -> Timings<'a> {
        let info = resident.model.info();
        Timings {
            prompt_n: self.n_evaluated,
            prompt_ms: self.prompt_ms,
            prompt_per_token_ms: ratio(self.prompt_ms, self.n_evaluated.into()),
            prompt_per_second: ratio(f64::from(self.n_evaluated) * 1e3, self.prompt_ms),
            predicted_n: self.usage.completion_tokens,
            predicted_ms: self.predicted_ms,
            predicted_per_token_ms: ratio(self.predicted_ms, self.n_intervals.into()),
            predicted_per_second: ratio(f64::from(self.n_intervals) * 1e3, self.predicted_ms),
            cache_n: self.n_cached,
            queue_ms: self.queue_ms,
            ttft_ms: self.ttft_ms(),
            engine: info.backend,
            engine_version: &info.backend_version,
            quantization: &resident.described.info.quantization,
            kv_type: &info.kv_type,
            batch_width: self.batch_width,
        }
    }
}

fn ms(duration: std::time::Duration) -> f64 {
    // Whole microseconds: more digits mean nothing.
    duration.as_micros() as f64 / 1e3
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { (a / b * 1e3).round() / 1e3 } else { 0.0 }
}

/// OpenAI's word for an end.
pub(crate) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop(_) => "stop",
        FinishReason::Length => "length",
    }
}

/// What exactly stopped a choice: one of the request's stop strings, or a stop token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum StopReason {
    Text(String),
    Token(TokenId),
}

impl StopReason {
    pub(crate) fn new(reason: &FinishReason, stop: &[String]) -> Option<Self> {
        match reason {
            FinishReason::Stop(StopCause::StopString(index)) => stop.get(*index).cloned().map(Self::Text),
            FinishReason::Stop(StopCause::StopToken(id)) => Some(Self::Token(*id)),
            FinishReason::Stop(StopCause::EndOfGeneration(_) | StopCause::Constraint)
            | FinishReason::Length => None,
        }
    }
}

/// A whole answer of either route.
#[derive(Serialize)]
pub(crate) struct Answer<'a, C> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'a str,
    pub(crate) choices: Vec<C>,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings<'a>,
    /// vLLM's place for them in chat answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<&'a [TokenId]>,
}

#[derive(Serialize)]
pub(crate) struct ChatChoice<'a> {
    pub(crate) index: usize,
    pub(crate) message: AssistantMessage,
    pub(crate) logprobs: Option<ChatLogprobs<'a>>,
    pub(crate) finish_reason: &'static str,
    pub(crate) stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

#[derive(Serialize)]
pub(crate) struct AssistantMessage {
    role: &'static str,
    /// Null only beside calls.
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct ToolCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionCall,
}

#[derive(Serialize)]
struct FunctionCall {
    name: String,
    arguments: String,
}

impl AssistantMessage {
    /// Blocks of a kind become one text.
    pub(crate) fn new(blocks: Vec<Block>) -> Self {
        let (mut content, mut reasoning, mut tool_calls) = (String::new(), None::<String>, Vec::new());
        for block in blocks {
            match block {
                Block::Content(text) => content.push_str(&text),
                Block::Reasoning(text) => reasoning.get_or_insert_default().push_str(&text),
                Block::Call { id, name, arguments } => {
                    let function = FunctionCall { name, arguments };
                    tool_calls.push(ToolCall { id, kind: "function", function });
                }
            }
        }
        let content = Some(content).filter(|text| !text.is_empty() || tool_calls.is_empty());
        Self { role: "assistant", content, refusal: None, reasoning_content: reasoning, tool_calls }
    }
}

#[derive(Serialize)]
pub(crate) struct TextChoice<'a> {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<TextLogprobs<'a>>,
    pub(crate) finish_reason: &'static str,
    pub(crate) stop_reason: Option<StopReason>,
    /// vLLM's place for them in completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<&'a [TokenId]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use duet_core::event::{Timings as EngineTimings, Usage as EngineUsage};

    fn finished(n_prompt_tokens: u32, n_cached_tokens: u32, n_completion_tokens: u32) -> Finished {
        let usage = EngineUsage { n_prompt_tokens, n_cached_tokens, n_completion_tokens };
        let (reason, text) = (FinishReason::Length, String::new());
        let timings = EngineTimings::default();
        Finished { reason, text, usage, timings, prompt_logprobs: Vec::new(), end_logprobs: None }
    }

    /// Each `(prompt, prompt tokens, cached)`, in the order in which they end.
    #[track_caller]
    fn check(
        choices: &[(usize, u32, u32)],
        prompt_tokens: u32,
        cached_tokens: u32,
        evaluated: u32,
        found: u32,
    ) {
        let mut tally = Tally::default();
        for (prompt, n_prompt, n_cached) in choices {
            tally.add(&finished(*n_prompt, *n_cached, 5), *prompt);
        }
        let usage = tally.usage();
        assert_eq!(
            (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens),
            (prompt_tokens, cached_tokens),
            "{choices:?}"
        );
        assert_eq!(usage.completion_tokens, 5 * choices.len() as u32);
        assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
        assert_eq!((tally.n_evaluated, tally.n_cached), (evaluated, found), "{choices:?}");
    }

    #[test]
    fn cached_tokens_are_those_that_no_choice_evaluated() {
        check(&[], 0, 0, 0, 0);
        check(&[(0, 100, 0)], 100, 0, 100, 0);
        check(&[(0, 100, 64)], 100, 64, 36, 64);
        // Three choices of one prompt: one reads it, the others find it, in whatever order they end.
        check(&[(0, 100, 0), (0, 100, 99), (0, 100, 99)], 100, 0, 102, 198);
        check(&[(0, 100, 99), (0, 100, 0), (0, 100, 99)], 100, 0, 102, 198);
        check(&[(0, 100, 99), (0, 100, 80), (0, 100, 90)], 100, 80, 31, 269);
        // Prompts count by themselves, also when a later one ends first.
        check(&[(2, 30, 10), (0, 100, 99), (1, 20, 0), (0, 100, 64)], 150, 74, 77, 173);
    }
}
