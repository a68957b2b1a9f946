//! What bounds an arm's decoding, from what was measured in this run: the share of the memory's rate that a step reaches,
//! the share of the operations per second that the same library reaches when it reads a prompt, and what would help.

use super::{ArmReport, Metric, Report};
use crate::report::words::digits;

/// From this share of the memory's rate on, reading is what a step waits for.
const BOUND_BY_READING: f64 = 0.6;
/// From this share of a prompt's operations per second on, a step waits for arithmetic.
const BOUND_BY_COMPUTING: f64 = 0.5;

/// What one decode step of an arm does, from its median request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCosts {
    /// Seconds of a step.
    pub seconds: f64,
    /// Weights read.
    pub weight_bytes: f64,
    /// KV cache read, about: the engine's count for the whole context, scaled to the depth.
    pub kv_bytes: f64,
    /// What memory gives, in bytes per second.
    pub memory_rate: f64,
    /// Tokens per second of a prompt: each takes about as many operations as a step.
    pub prompt_rate: f64,
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Reading the KV cache.
    Kv,
    /// Reading weights.
    Weights,
    /// Arithmetic.
    Compute,
    /// Neither: the kernels, or what is between them.
    Kernels,
}

impl StepCosts {
    /// Share of the memory's rate that the step reaches.
    pub fn memory_share(&self) -> f64 {
        (self.weight_bytes + self.kv_bytes) / self.seconds / self.memory_rate
    }

    /// Share of the prompt's operations per second that the step reaches.
    pub fn compute_share(&self) -> f64 {
        1.0 / self.seconds / self.prompt_rate
    }

    /// What it waits for.
    pub fn bound(&self) -> Bound {
        match self {
            costs if costs.memory_share() >= BOUND_BY_READING && costs.kv_bytes > costs.weight_bytes => {
                Bound::Kv
            }
            costs if costs.memory_share() >= BOUND_BY_READING => Bound::Weights,
            costs if costs.compute_share() >= BOUND_BY_COMPUTING => Bound::Compute,
            _ => Bound::Kernels,
        }
    }
}

impl Bound {
    /// What it is and what would help.
    fn in_words(self) -> &'static str {
        match self {
            Bound::Kv => "bound by reading the KV cache; a narrower KV type or a shorter context helps",
            Bound::Weights => {
                "bound by reading weights; fewer bits per weight help, or several requests in one step"
            }
            Bound::Compute => "bound by arithmetic; more cores or wider vector units help, fewer bits do not",
            Bound::Kernels => {
                "bound by neither memory nor arithmetic: the kernels for single tokens; several requests in one step help, \
                 or another engine"
            }
        }
    }
}

impl Report {
    /// One sentence for each arm of which enough is known.
    pub fn why(&self) -> Vec<String> {
        let line = |arm: &ArmReport| {
            let costs = self.step_costs(arm)?;
            let (reached, gives) = (costs.memory_share() * costs.memory_rate / 1e9, costs.memory_rate / 1e9);
            let n = digits(gives);
            Some(format!(
                "{}: a step reads {:.0} MB of weights and about {:.0} MB of KV cache in {:.1} ms: {reached:.n$} of the {gives:.n$} \
                 GB/s that memory gives here ({:.0} %), and {:.0} % of the operations per second of its prompts: {}",
                arm.label,
                costs.weight_bytes / 1e6,
                costs.kv_bytes / 1e6,
                1e3 * costs.seconds,
                100.0 * costs.memory_share(),
                100.0 * costs.compute_share(),
                costs.bound().in_words(),
            ))
        };
        self.arms.iter().filter_map(line).collect()
    }

    fn step_costs(&self, arm: &ArmReport) -> Option<StepCosts> {
        let loaded = arm.loaded.as_ref()?;
        let median = |metric| Some(arm.summaries.iter().find(|found| found.metric == metric)?.median);
        let kv_bytes = arm.memory.as_ref()?.engine.kv_bytes? as f64;
        let depth = self.plan.n_prompt as f64 + self.plan.n_decode as f64 / 2.0;
        Some(StepCosts {
            seconds: 1.0 / median(Metric::DecodeForced)?,
            weight_bytes: loaded.weight_bytes_per_token as f64,
            kv_bytes: kv_bytes * (depth / f64::from(self.plan.context_length)).min(1.0),
            memory_rate: loaded.memory_bytes_per_second?,
            prompt_rate: median(Metric::Prefill)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weight_bytes: f64, kv_bytes: f64, prompt_rate: f64, expected: Bound) {
        let costs = StepCosts { seconds: 0.01, weight_bytes, kv_bytes, memory_rate: 10e9, prompt_rate };
        assert_eq!(costs.bound(), expected, "{costs:?}");
    }

    #[test]
    fn what_a_step_waits_for() {
        check(70e6, 5e6, 1000.0, Bound::Weights);
        check(30e6, 40e6, 1000.0, Bound::Kv);
        check(20e6, 30e6, 1000.0, Bound::Kernels);
        check(20e6, 5e6, 150.0, Bound::Compute);
        check(20e6, 5e6, 1000.0, Bound::Kernels);
    }

    #[test]
    fn shares() {
        let costs = StepCosts {
            seconds: 0.01,
            weight_bytes: 60e6,
            kv_bytes: 10e6,
            memory_rate: 10e9,
            prompt_rate: 400.0,
        };
        assert!((costs.memory_share() - 0.7).abs() < 1e-12 && (costs.compute_share() - 0.25).abs() < 1e-12);
    }
}
