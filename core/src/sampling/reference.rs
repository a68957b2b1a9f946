//! The chain once more, straight from its definition and slow: what the sampler is tested against.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::SamplingParams;
use crate::text::TokenId;

/// Repeatable random test input.
pub(super) struct Noise(ChaCha8Rng);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// 0 to `n` - 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    /// 0 to 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// Roughly normal.
    pub(super) fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.unit()).sum::<f32>() * 2.0 - 6.0
    }

    /// Rows of several kinds, by `kind`: smooth, peaked, full of ties, with masked entries.
    pub(super) fn logits(&mut self, n: usize, kind: usize) -> Vec<f32> {
        let mut logits: Vec<f32> = (0..n).map(|_| self.normal() * 3.0).collect();
        match kind % 4 {
            1 => {
                for _ in 0..1 + n / 50 {
                    let id = self.below(n);
                    logits[id] += 12.0;
                }
            }
            2 => logits.iter_mut().for_each(|logit| *logit = (*logit * 0.5).round() + 0.0),
            3 => {
                for logit in &mut logits[1..] {
                    if self.below(3) == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
            _ => {}
        }
        logits
    }
}

/// Natural logarithms of the softmax.
pub(super) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mass: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - f64::from(max) - mass.ln()).collect()
}

/// Token and logit, most probable first.
type Entry = (TokenId, f32);

/// The row after bias, penalties and DRY.
pub(super) fn adjusted(params: &SamplingParams, logits: &[f32], history: &[TokenId]) -> Vec<f32> {
    let mut row = logits.to_vec();
    for &(id, bias) in &params.logit_bias {
        row[id as usize] += bias;
    }
    let window = usize::try_from(params.repeat_last_n).unwrap_or(usize::MAX).min(history.len());
    let recent = &history[history.len() - window..];
    for (id, logit) in row.iter_mut().enumerate() {
        let count = recent.iter().filter(|&&token| token as usize == id).count();
        if count > 0 {
            *logit = if *logit > 0.0 {
                *logit / params.repetition_penalty
            } else {
                *logit * params.repetition_penalty
            };
            *logit -= count as f32 * params.frequency_penalty + params.presence_penalty;
        }
    }
    if params.has_dry() {
        subtract_dry(params, &mut row, history);
    }
    row
}

fn subtract_dry(params: &SamplingParams, row: &mut [f32], history: &[TokenId]) {
    let window = usize::try_from(params.dry_penalty_last_n).unwrap_or(usize::MAX).min(history.len());
    let recent = &history[history.len() - window..];
    for (id, logit) in row.iter_mut().enumerate() {
        let mut longest = 0;
        for end in 1..recent.len() {
            if recent[end] as usize == id {
                let mut n = 0;
                while n < end
                    && recent[end - 1 - n] == recent[recent.len() - 1 - n]
                    && !params.dry_sequence_breakers.contains(&recent[end - 1 - n])
                {
                    n += 1;
                }
                longest = longest.max(n);
            }
        }
        if longest >= params.dry_allowed_length as usize {
            let over = longest - params.dry_allowed_length as usize;
            *logit -=
                (f64::from(params.dry_multiplier) * f64::from(params.dry_base).powi(over as i32)) as f32;
        }
    }
}

/// What the filters leave of an adjusted row, by rising id.
pub(super) fn survivors(params: &SamplingParams, row: &[f32], excludes: bool) -> Vec<Entry> {
    let mut left: Vec<Entry> = row
        .iter()
        .enumerate()
        .map(|(id, &l)| (id as TokenId, l))
        .filter(|e| e.1 > f32::NEG_INFINITY)
        .collect();
    left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if let Some(n) = params.top_n_sigma {
        let mean = left.iter().map(|e| f64::from(e.1)).sum::<f64>() / left.len() as f64;
        let variance = left.iter().map(|e| (f64::from(e.1) - mean).powi(2)).sum::<f64>() / left.len() as f64;
        let floor = f64::from(left[0].1) - f64::from(n) * variance.sqrt();
        left.retain(|e| f64::from(e.1) >= floor - 1e-6);
    }
    if params.top_k > 0 {
        left.truncate(params.top_k as usize);
    }
    if params.typical_p < 1.0 {
        left = typical(&left, f64::from(params.typical_p));
    }
    if params.top_p < 1.0 {
        let shares = shares(&left);
        let mut kept = 0.0;
        let n = shares.iter().position(|share| {
            kept += share;
            kept >= f64::from(params.top_p)
        });
        left.truncate(n.map_or(left.len(), |n| n + 1));
    }
    if params.min_p > 0.0 {
        let floor = f64::from(params.min_p).ln() + f64::from(left[0].1);
        left.retain(|e| f64::from(e.1) >= floor - 1e-6);
    }
    if excludes {
        let n = shares(&left).iter().filter(|&&share| share >= f64::from(params.xtc_threshold)).count();
        left.drain(..n.saturating_sub(1));
    }
    left.sort_by_key(|e| e.0);
    left
}

fn shares(left: &[Entry]) -> Vec<f64> {
    let logits: Vec<f32> = left.iter().map(|e| e.1).collect();
    log_softmax(&logits).into_iter().map(f64::exp).collect()
}

fn typical(left: &[Entry], p: f64) -> Vec<Entry> {
    let shares = shares(left);
    let expected: f64 = shares.iter().map(|share| if *share > 0.0 { -share * share.ln() } else { 0.0 }).sum();
    let mut order: Vec<usize> = (0..left.len()).collect();
    // To six digits: equal logits are equally surprising, and the lower id comes first.
    let distance = |at: usize| ((-shares[at].ln() - expected).abs() * 1e5).round();
    order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(left[a].0.cmp(&left[b].0)));
    let mut kept = 0.0;
    let mut result = Vec::new();
    for at in order {
        result.push(left[at]);
        kept += shares[at];
        if kept > p {
            break;
        }
    }
    result.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    result
}

/// The token at `uniform`, by rising id, of the tempered distribution over `left`.
pub(super) fn draw(left: &[Entry], temperature: f32, uniform: f32) -> TokenId {
    let max = left.iter().map(|e| e.1).fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> =
        left.iter().map(|e| (f64::from(e.1 - max) / f64::from(temperature)).exp()).collect();
    let target = f64::from(uniform) * weights.iter().sum::<f64>();
    let mut running = 0.0;
    for (entry, weight) in left.iter().zip(weights) {
        running += weight;
        if running > target {
            return entry.0;
        }
    }
    left[left.len() - 1].0
}
