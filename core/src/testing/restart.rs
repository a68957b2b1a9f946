//! A conversation that goes on after the model was unloaded and loaded anew, as a restart of the server does.

use std::path::Path;
use std::sync::Arc;

use super::conformance::{Answer, fold};
use crate::backend::{DiskTierSpec, LoadedModel, PrefixCacheSpec};
use crate::request::{GenerateRequest, LogprobsRequest};
use crate::text::TokenId;

/// What a follow-up found after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarted {
    /// Tokens of its prompt.
    pub n_prompt: u32,
    /// Of these, tokens that the disk tier had.
    pub n_cached: u32,
    /// Tokens of its answer that agree with those of a model that kept nothing.
    pub n_agreeing: usize,
}

/// Answers a conversation of 100 tokens, unloads the model, loads it anew with the same folder `dir`, an empty one, and
/// answers the conversation with 16 tokens more. `load` gives a model of at least 160 tokens' context with these settings.
///
/// # Panics
/// If the second answer differs from what a model without any cache says at a token where that one's two best are `margin`
/// apart or more in log-probability.
pub async fn restart<F, Fut>(dir: &Path, margin: f32, load: F) -> Restarted
where
    F: Fn(PrefixCacheSpec) -> Fut,
    Fut: Future<Output = Arc<dyn LoadedModel>>,
{
    let disk = DiskTierSpec { dir: dir.to_owned(), max_bytes: 1 << 30 };
    let keeping = PrefixCacheSpec { enabled: true, host_bytes: 1 << 24, disk: Some(disk) };
    let model = load(keeping.clone()).await;
    let n_ids = model.tokenizer().vocab_size();
    let said: Vec<TokenId> = (0..100).map(|at| (at * at + 7 * at + 3) % n_ids).collect();
    let first = answer(model.as_ref(), said.clone(), 12).await;
    model.unload().await;
    drop(model);

    let next = (0..16).map(|at| (at * 5 + 1) % n_ids);
    let conversation: Vec<TokenId> = said.into_iter().chain(first.ids()).chain(next).collect();
    let model = load(keeping).await;
    let warm = answer(model.as_ref(), conversation.clone(), 24).await;
    model.unload().await;
    let model = load(PrefixCacheSpec { enabled: false, host_bytes: 0, disk: None }).await;
    let cold = answer(model.as_ref(), conversation, 24).await;
    model.unload().await;

    assert_eq!(cold.finished.usage.n_cached_tokens, 0, "nothing is kept without a cache");
    let n_agreeing = warm.ids().iter().zip(cold.ids()).take_while(|(one, other)| **one == *other).count();
    if let Some(differs) = cold.tokens.get(n_agreeing) {
        let best = &differs.logprobs.as_ref().expect("asked for").top;
        let apart = best[0].1 - best[1].1;
        assert!(apart < margin, "token {n_agreeing} differs where the best is {apart} ahead");
    }
    let usage = warm.finished.usage;
    Restarted { n_prompt: usage.n_prompt_tokens, n_cached: usage.n_cached_tokens, n_agreeing }
}

async fn answer(model: &dyn LoadedModel, ids: Vec<TokenId>, max_tokens: u32) -> Answer {
    let mut request = GenerateRequest::new("restart", ids, max_tokens);
    request.sampling.temperature = 0.0;
    request.ignore_eos = true;
    request.logprobs = Some(LogprobsRequest { n_top: 2 });
    fold(model.generate(request).expect("an idle model takes a request")).await.expect("it is answered")
}
