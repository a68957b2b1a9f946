//! Mirostat: the set of candidates is as large as it takes for the text's average surprise to reach a target.
//!
//! After Basu et al., "Mirostat: a neural text decoding algorithm that directly controls perplexity" (ICLR 2021). The
//! surprise of a token, in bits, is that under the tempered distribution over what the filters have left, before
//! Mirostat cuts it, as in the paper and in its authors' program. After each token the bound moves against the error:
//! `mu -= eta * (surprise - tau)`, from `mu = 2 * tau`.

use std::f64::consts::LN_2;

use super::candidates::Candidates;
use crate::text::TokenId;

/// How many of the most probable tokens tell the exponent of the distribution's tail.
const N_FOR_TAIL: usize = 100;

/// How Mirostat turns its bound on surprise into a set of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirostatVersion {
    /// The paper's: the distribution is taken for a Zipf law, whose exponent gives a top-k for the bound.
    One,
    /// Without that assumption: tokens with more surprise than the bound are left out.
    Two,
}

/// What a request asks of Mirostat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MirostatParams {
    /// Which of its two forms.
    pub version: MirostatVersion,
    /// The average surprise to reach, in bits per token. At least 0.
    pub tau: f32,
    /// How fast the bound follows the error. At least 0; 0 never moves it.
    pub eta: f32,
}

/// The state of one request.
#[derive(Debug, Clone)]
pub(super) struct Mirostat {
    params: MirostatParams,
    /// The bound on surprise, in bits.
    mu: f64,
    /// Of the token that was chosen last and is not accepted yet.
    surprise: Option<f64>,
}

impl Mirostat {
    pub(super) fn new(params: MirostatParams) -> Self {
        Self { params, mu: 2.0 * f64::from(params.tau), surprise: None }
    }

    /// The token that was chosen is part of the text: the bound moves.
    pub(super) fn accept(&mut self) {
        if let Some(surprise) = self.surprise.take() {
            self.mu -= f64::from(self.params.eta) * (surprise - f64::from(self.params.tau));
        }
    }

    /// Cuts the candidates and draws from what is left of them.
    pub(super) fn choose(&mut self, candidates: &mut Candidates, uniform: f32, temperature: f32) -> TokenId {
        let before = candidates.tempered(temperature);
        match self.params.version {
            MirostatVersion::One => {
                let n = candidates.len();
                let n = zipf_top_k(candidates.steps(N_FOR_TAIL, &before), n, self.mu);
                candidates.keep_most_probable(n);
            }
            MirostatVersion::Two => candidates.keep_down_to(-self.mu * LN_2, &before),
        }
        let (id, log_probability) = candidates.draw_and_weigh(uniform, temperature, &before);
        self.surprise = Some(-log_probability / LN_2);
        id
    }
}

/// How many of `n` tokens a Zipf law keeps below `mu` bits of surprise. `steps` are the differences of the natural
/// logarithms of the probabilities from each rank to the next, from the first rank on.
fn zipf_top_k(steps: impl Iterator<Item = f64>, n: usize, mu: f64) -> usize {
    let (mut products, mut squares) = (0.0, 0.0);
    for (rank, step) in steps.enumerate() {
        let t = ((rank + 2) as f64 / (rank + 1) as f64).ln();
        products += t * step;
        squares += t * t;
    }
    // One candidate has no steps and no exponent, and is kept.
    let s = products / squares;
    let epsilon = s - 1.0;
    // 1 / (1 + 1/2^s + ... + 1/n^s), by the integral; its limit where the exponent is 1.
    let scale = if epsilon.abs() < 1e-9 {
        1.0 / (n as f64).ln()
    } else {
        epsilon / (1.0 - (n as f64).powf(-epsilon))
    };
    let k = (scale * mu.exp2()).powf(1.0 / s).round();
    if k.is_nan() || k >= n as f64 { n } else { (k as usize).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{Sampler, SamplingParams};

    fn sampler(version: MirostatVersion, tau: f32, seed: u64, n: u32) -> Sampler {
        let mirostat = Some(MirostatParams { version, tau, eta: 0.1 });
        Sampler::new(SamplingParams { mirostat, seed, ..SamplingParams::default() }, n)
    }

    /// Logits of a Zipf law with exponent `s` over `n` tokens, in no order.
    fn zipf(n: usize, s: f64) -> Vec<f32> {
        (0..n).map(|id| (-s * (((id * 7919) % n + 1) as f64).ln()) as f32).collect()
    }

    /// The paper's claim: whatever the distribution's temper, the average surprise comes out at the target.
    #[test]
    fn the_average_surprise_is_the_target() {
        for version in [MirostatVersion::One, MirostatVersion::Two] {
            for (s, tau, seed) in [(1.1, 3.0, 1), (1.1, 5.0, 2), (1.4, 2.0, 3), (0.9, 5.5, 4)] {
                let logits = zipf(1000, s);
                let log_z = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
                let mut sampler = sampler(version, tau, seed, 1000);
                let n = 1500;
                let mut bits = 0.0;
                for _ in 0..n {
                    let id = sampler.sample(&logits).expect("a token");
                    sampler.accept(id);
                    bits += (log_z - f64::from(logits[id as usize])) / LN_2;
                }
                let average = bits / f64::from(n);
                assert!((average - f64::from(tau)).abs() < 0.15, "{version:?} {s} {tau}: {average}");
            }
        }
    }

    #[test]
    fn a_target_of_nothing_takes_the_most_probable() {
        for version in [MirostatVersion::One, MirostatVersion::Two] {
            let logits = zipf(300, 1.2);
            let mut sampler = sampler(version, 0.0, 9, 300);
            // The first of the two versions has `mu` 0, which a Zipf law reaches with its first rank.
            assert_eq!(sampler.sample(&logits), Ok(0), "{version:?}");
        }
    }

    #[test]
    fn only_accepted_tokens_move_the_bound() {
        let logits = zipf(1000, 1.0);
        let draws = |accepts: bool| -> Vec<u32> {
            let mut sampler = sampler(MirostatVersion::Two, 4.0, 5, 1000);
            let one = |_| {
                let id = sampler.sample(&logits).expect("a token");
                if accepts {
                    sampler.accept(id);
                }
                id
            };
            (0..200).map(one).collect()
        };
        let bound = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        let surprise = |id: u32| (bound - f64::from(logits[id as usize])) / LN_2;
        assert!(draws(false).into_iter().all(|id| surprise(id) <= 8.0 + 1e-4), "mu stays at 2 tau");
        assert_ne!(draws(false), draws(true));
    }

    #[test]
    fn rows_that_no_zipf_law_describes() {
        for version in [MirostatVersion::One, MirostatVersion::Two] {
            for logits in [vec![1.0], vec![0.5; 64], vec![f32::NEG_INFINITY, 2.0], vec![-3e38, 3e38, 0.0]] {
                for temperature in [f32::MIN_POSITIVE, 1.0, 2.0] {
                    let mirostat = Some(MirostatParams { version, tau: 3.0, eta: 1e30 });
                    let params = SamplingParams { mirostat, temperature, ..SamplingParams::default() };
                    let mut sampler = Sampler::new(params, logits.len() as u32);
                    for _ in 0..20 {
                        let id = sampler.sample(&logits).expect("a token");
                        assert!(logits[id as usize] > f32::NEG_INFINITY);
                        sampler.accept(id);
                    }
                }
            }
        }
    }

    #[test]
    fn filters_go_first_and_greedy_needs_no_draw() {
        let logits = zipf(500, 0.6);
        let mirostat = Some(MirostatParams { version: MirostatVersion::Two, tau: 8.0, eta: 0.1 });
        let filtered = SamplingParams { mirostat, top_k: 3, ..SamplingParams::default() };
        let mut best: Vec<usize> = (0..500).collect();
        best.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let mut sampler = Sampler::new(filtered, 500);
        for _ in 0..100 {
            let id = sampler.sample(&logits).expect("a token");
            assert!(best[..3].contains(&(id as usize)));
            sampler.accept(id);
        }
        let greedy = SamplingParams { mirostat, temperature: 0.0, ..SamplingParams::default() };
        assert_eq!(Sampler::new(greedy, 500).sample(&logits), Ok(best[0] as u32));
    }

    #[test]
    fn the_exponent_is_found() {
        // p(rank) ~ rank^-s has steps s * ln(t), so that the fit is exact.
        let steps = |s: f64| (1..100).map(move |rank: i32| s * (f64::from(rank + 1) / f64::from(rank)).ln());
        let expected = |s: f64, n: f64, mu: f64| {
            ((s - 1.0) / (1.0 - n.powf(1.0 - s)) * mu.exp2()).powf(1.0 / s).round() as usize
        };
        for (s, mu) in [(1.1, 6.0), (1.5, 8.0), (2.0, 4.0)] {
            assert_eq!(zipf_top_k(steps(s), 50_000, mu), expected(s, 50_000.0, mu));
        }
        assert_eq!(zipf_top_k(steps(1.0), 1000, 10.0), (1024.0 / 1000f64.ln()).round() as usize);
        // A flat row of 77: each token has 6.27 bits.
        assert_eq!(zipf_top_k(steps(0.0), 77, 6.0), 1);
        assert_eq!(zipf_top_k(steps(0.0), 77, 6.5), 77);
        assert_eq!(zipf_top_k(steps(1.2), 50, 1e9), 50);
        assert_eq!(zipf_top_k(steps(1.2), 50, -1e9), 1);
        assert_eq!(zipf_top_k(std::iter::empty(), 1, 3.0), 1);
    }
}
