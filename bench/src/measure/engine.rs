//! One request at the engine's level: `LoadedModel::generate`, greedy, timed as its caller sees it.

use std::sync::Arc;

use duet_core::LoadedModel;
use duet_core::event::{FinishReason, GenerationEvent};
use duet_core::request::GenerateRequest;
use duet_core::text::TokenId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MeasureError;
use crate::clock::{Clock, nanos};

/// What one request at the engine's level took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineSample {
    /// Call of `generate` → first token received.
    pub ttft_ns: u64,
    /// The same for the other times that the prompt was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ttft_again_ns: Vec<u64>,
    /// Gaps between tokens as received: one less than there are tokens.
    pub itl_ns: Vec<u64>,
    /// First token → last token by the engine's own clock.
    pub engine_decode_ns: u64,
    /// Prompt tokens that the engine took from a cache instead of evaluating them; of several times, the most.
    pub n_cached_tokens: u32,
    /// Generated tokens by the engine's own count.
    pub n_tokens: u32,
    /// The tokens, for whoever wants to compare texts; empty where only text came.
    pub ids: Vec<TokenId>,
}

/// What a prompt that was sent for its first token took.
#[derive(Debug)]
pub(crate) struct FirstToken {
    pub(crate) ttft_ns: u64,
    pub(crate) n_cached_tokens: u32,
}

impl FirstToken {
    pub(crate) fn of(sample: &EngineSample) -> Self {
        Self { ttft_ns: sample.ttft_ns, n_cached_tokens: sample.n_cached_tokens }
    }
}

/// Measures one request as a caller sees it: the engine's best greedy loop (*native*), end-of-generation ignored, so
/// that exactly `n_tokens` come. The engines may take different roads through the text: depth is equal, ids need not be.
///
/// # Errors
/// What the engine says; `TokenCount` if the stream ended early.
pub async fn measure_engine(
    model: &Arc<dyn LoadedModel>,
    id: &str,
    prompt: Vec<TokenId>,
    n_tokens: u32,
    clock: &dyn Clock,
) -> Result<EngineSample, MeasureError> {
    let mut request = GenerateRequest::new(id, prompt, n_tokens);
    request.ignore_eos = true;
    request.use_prefix_cache = false;
    let mut received = Vec::with_capacity(n_tokens as usize);
    let mut ids = Vec::with_capacity(n_tokens as usize);
    let submitted = clock.now();
    let mut events = model.generate(request)?;
    let finished = loop {
        match events.next().await {
            Some(Ok(GenerationEvent::Token(token))) => {
                received.push(clock.now());
                ids.push(token.id);
            }
            Some(Ok(GenerationEvent::Finished(finished))) => break finished,
            Some(Err(error)) => return Err(error.into()),
            None => {
                let ending = "the stream ended without saying why".to_owned();
                let (n_tokens, wanted) = (ids.len(), n_tokens);
                return Err(MeasureError::TokenCount { n_tokens, wanted, ending, stopped: false });
            }
        }
    };
    let first = match received.first() {
        Some(first) if ids.len() == n_tokens as usize && finished.reason == FinishReason::Length => *first,
        _ => {
            let ending = format!("finished by {:?}", finished.reason);
            let stopped = matches!(finished.reason, FinishReason::Stop(_));
            return Err(MeasureError::TokenCount { n_tokens: ids.len(), wanted: n_tokens, ending, stopped });
        }
    };
    Ok(EngineSample {
        ttft_ns: nanos(first.saturating_sub(submitted)),
        ttft_again_ns: Vec::new(),
        itl_ns: received.windows(2).map(|pair| nanos(pair[1].saturating_sub(pair[0]))).collect(),
        engine_decode_ns: nanos(finished.timings.decode),
        n_cached_tokens: finished.usage.n_cached_tokens,
        n_tokens,
        ids,
    })
}
