//! The tokens seen so far, and how often each is in the penalties' window.

use std::collections::BTreeMap;

use super::SamplingParams;
use crate::text::TokenId;

/// What a row's entries are changed by before any filter: the bias of single tokens and the penalties.
#[derive(Debug, Clone)]
pub(super) struct Adjustments {
    tokens: Vec<TokenId>,
    /// By rising id: tokens with a bias (for good) and tokens in the window.
    touched: BTreeMap<TokenId, Touched>,
    /// Window length in tokens; `None` is all of them.
    window: Option<usize>,
    repetition: f32,
    frequency: f32,
    presence: f32,
    keeps_tokens: bool,
    counts: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Touched {
    bias: Option<f32>,
    count: u32,
}

impl Adjustments {
    pub(super) fn new(params: &SamplingParams) -> Self {
        let bias = |&(id, bias): &(TokenId, f32)| (id, Touched { bias: Some(bias), count: 0 });
        Self {
            tokens: Vec::new(),
            touched: params.logit_bias.iter().map(bias).collect(),
            window: usize::try_from(params.repeat_last_n).ok(),
            repetition: params.repetition_penalty,
            frequency: params.frequency_penalty,
            presence: params.presence_penalty,
            keeps_tokens: params.needs_history(),
            counts: params.has_penalties(),
        }
    }

    /// All tokens accepted, oldest first; empty where no parameter looks at them.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub(super) fn accept(&mut self, id: TokenId) {
        if !self.keeps_tokens {
            return;
        }
        self.tokens.push(id);
        if !self.counts {
            return;
        }
        self.touched.entry(id).or_default().count += 1;
        if let Some(window) = self.window
            && let Some(left) = self.tokens.len().checked_sub(window + 1)
        {
            self.forget(self.tokens[left]);
        }
    }

    /// Takes one occurrence out of the window.
    fn forget(&mut self, id: TokenId) {
        if let Some(touched) = self.touched.get_mut(&id) {
            touched.count -= 1;
            if touched.count == 0 && touched.bias.is_none() {
                self.touched.remove(&id);
            }
        }
    }

    /// Writes the changed entries of `logits` to `overlay`, by rising id.
    pub(super) fn apply(&self, logits: &[f32], overlay: &mut Vec<(TokenId, f32)>) {
        overlay.clear();
        for (&id, touched) in &self.touched {
            let Some(&logit) = logits.get(id as usize) else { break };
            overlay.push((id, self.adjusted(logit, touched)));
        }
    }

    fn adjusted(&self, logit: f32, touched: &Touched) -> f32 {
        let biased = logit + touched.bias.unwrap_or(0.0);
        if touched.count == 0 || !biased.is_finite() {
            return biased;
        }
        let scaled = if biased > 0.0 { biased / self.repetition } else { biased * self.repetition };
        // An extreme penalty must neither make a row infinite nor ban a token.
        scaled.clamp(f32::MIN, f32::MAX) - (touched.count as f32 * self.frequency + self.presence)
    }
}
