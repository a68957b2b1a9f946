//! Log-probabilities of the model's own distribution: before bias, penalties, filters and temperature.

use super::exp::{exp, sum_exp};
use super::row::{BLOCK, block_max};
use crate::text::TokenId;

/// A token's log-probability and the most probable tokens beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of the token's softmax probability; minus infinity for a masked id or one outside of the row.
    pub logprob: f32,
    /// The most probable tokens, most probable first, ties by lower id; fewer than asked for if fewer have a finite
    /// logit.
    /// A token in here has bit for bit the same number as in `logprob`.
    pub top: Vec<(TokenId, f32)>,
}

/// The log-probability of `id` and the `n_top` most probable tokens of `logits` [vocab_size], in one pass.
///
/// Meant for few `n_top` (the API allows 20). A row with NaN gives NaN, and so does one without any finite logit:
/// the sampler refuses such rows with a typed error.
#[must_use]
pub fn logprobs(logits: &[f32], id: TokenId, n_top: usize) -> TokenLogprobs {
    let mut max = f32::NEG_INFINITY;
    let mut mass = 0.0f64;
    let mut top: Vec<(TokenId, f32)> = Vec::with_capacity(n_top.min(logits.len()));
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let (block_max, has_nan) = block_max(block);
        if block_max == f32::NEG_INFINITY && !has_nan {
            continue;
        }
        if block_max > max {
            mass *= f64::from(exp(max - block_max));
            max = block_max;
        }
        mass += sum_exp(block, max, 1.0);
        if n_top > 0 && (top.len() < n_top || top.last().is_some_and(|worst| block_max > worst.1)) {
            for (at, &logit) in block.iter().enumerate() {
                insert(&mut top, n_top, (index * BLOCK + at) as TokenId, logit);
            }
        }
    }
    let log_mass = mass.ln();
    let logprob = |logit: f32| (f64::from(logit) - f64::from(max) - log_mass) as f32;
    for entry in &mut top {
        entry.1 = logprob(entry.1);
    }
    TokenLogprobs { logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit)), top }
}

/// Keeps `top` the `n` highest so far, highest first; ids come in rising order, so that an equal one goes behind.
fn insert(top: &mut Vec<(TokenId, f32)>, n: usize, id: TokenId, logit: f32) {
    if logit == f32::NEG_INFINITY || logit.is_nan() {
        return;
    }
    if top.len() == n {
        if top.last().is_none_or(|worst| logit <= worst.1) {
            return;
        }
        top.pop();
    }
    let at = top.partition_point(|entry| entry.1 >= logit);
    top.insert(at, (id, logit));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::reference::{Noise, log_softmax};

    #[test]
    fn agrees_with_the_definition() {
        let mut noise = Noise::new(1);
        for case in 0..300 {
            let n = 1 + noise.below(700);
            let logits = noise.logits(n, case);
            let exact = log_softmax(&logits);
            let id = noise.below(n);
            let n_top = noise.below(25);
            let got = logprobs(&logits, id as TokenId, n_top);
            let mut order: Vec<usize> = (0..n).filter(|&id| logits[id] > f32::NEG_INFINITY).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            order.truncate(n_top);
            let ids: Vec<usize> = got.top.iter().map(|entry| entry.0 as usize).collect();
            assert_eq!(ids, order, "case {case}");
            for &(id, value) in &got.top {
                assert!((f64::from(value) - exact[id as usize]).abs() < 2e-5, "case {case}: {value}");
                if id == got.top[0].0 {
                    assert_eq!(value.to_bits(), logprobs(&logits, id, 0).logprob.to_bits());
                }
            }
            if logits[id] == f32::NEG_INFINITY {
                assert_eq!(got.logprob, f32::NEG_INFINITY);
            } else {
                assert!((f64::from(got.logprob) - exact[id]).abs() < 2e-5, "case {case}");
            }
        }
    }

    #[test]
    fn the_token_has_the_same_float_in_both_places() {
        let logits = Noise::new(2).logits(5_000, 0);
        for (id, value) in logprobs(&logits, 0, 20).top {
            assert_eq!(logprobs(&logits, id, 20).logprob.to_bits(), value.to_bits());
        }
    }

    #[test]
    fn probabilities_sum_to_one() {
        let logits = Noise::new(3).logits(2_000, 0);
        let all = logprobs(&logits, 0, logits.len());
        assert_eq!(all.top.len(), 2_000);
        let sum: f64 = all.top.iter().map(|entry| f64::from(entry.1).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn shifting_a_row_changes_nothing_and_large_logits_do_not_overflow() {
        let logits = [1.0f32, 2.0, 3.0];
        let shifted = logits.map(|logit| logit + 16_384.0);
        assert_eq!(logprobs(&logits, 1, 3), logprobs(&shifted, 1, 3));
    }

    #[test]
    fn rows_that_cannot_be_scored() {
        assert_eq!(logprobs(&[], 0, 5).logprob, f32::NEG_INFINITY);
        assert!(logprobs(&[], 0, 5).top.is_empty());
        assert_eq!(logprobs(&[1.0], 1, 0).logprob, f32::NEG_INFINITY);
        assert!(logprobs(&[1.0, f32::NAN], 0, 1).logprob.is_nan());
        assert!(logprobs(&[f32::NEG_INFINITY; 70], 3, 2).logprob.is_nan());
        let masked = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        assert_eq!(logprobs(&masked, 1, 3), TokenLogprobs { logprob: 0.0, top: vec![(1, 0.0)] });
        // A first block without any finite logit.
        let mut late = vec![f32::NEG_INFINITY; 100];
        late[99] = 2.0;
        assert_eq!(logprobs(&late, 99, 1).logprob, 0.0);
    }
}
