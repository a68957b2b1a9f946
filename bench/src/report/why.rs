//! What bounds an arm, from what was measured in this run: the share of the memory's rate that a step reaches, the share of
//! what the engine's own library reaches with such matrices alone, in decoding and in reading a prompt, and what would help.

use super::{ArmReport, Metric, Report};
use crate::report::words::digits;

/// From this share of the memory's rate on, reading is what a step waits for.
const BOUND_BY_READING: f64 = 0.6;
/// From this share of a prompt's operations per second on, a step waits for arithmetic.
const BOUND_BY_COMPUTING: f64 = 0.5;
/// From this share of its library's own rate on, what is around the library's products is not worth looking at.
const BOUND_BY_PRODUCTS: f64 = 0.7;

/// What one decode step of an arm does, from its median request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCosts {
    /// Seconds of a step.
    pub seconds: f64,
    /// Weights read.
    pub weight_bytes: f64,
    /// KV cache read, from headers; where they do not say, the engine's count for the whole context, scaled to the depth.
    pub kv_bytes: f64,
    /// What memory gives, in bytes per second.
    pub memory_rate: f64,
    /// Tokens per second of a prompt: each takes about as many operations as a step.
    pub prompt_rate: f64,
    /// What the engine's library gives, in bytes of matrices per second past one row; absent where that is not known.
    pub library_rate: Option<f64>,
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
    /// The library's products with one row.
    Products,
    /// What is around the library's products: attention, norms, the host.
    Around,
    /// None of these, as far as is known: the kernels, or what is between them.
    Kernels,
}

impl StepCosts {
    /// Most steps per second that the memory's rate allows where `kv_bytes` of cache are read in each.
    pub fn ceiling(&self, kv_bytes: f64) -> f64 {
        self.memory_rate / (self.weight_bytes + kv_bytes)
    }

    /// Share of the memory's rate that the step reaches.
    pub fn memory_share(&self) -> f64 {
        (self.weight_bytes + self.kv_bytes) / self.seconds / self.memory_rate
    }

    /// Share of the prompt's operations per second that the step reaches.
    pub fn compute_share(&self) -> f64 {
        1.0 / self.seconds / self.prompt_rate
    }

    /// Share of its library's own rate that the step's weights go by.
    pub fn library_share(&self) -> Option<f64> {
        Some(self.weight_bytes / self.seconds / self.library_rate?)
    }

    /// What it waits for.
    pub fn bound(&self) -> Bound {
        match self {
            costs if costs.memory_share() >= BOUND_BY_READING && costs.kv_bytes > costs.weight_bytes => {
                Bound::Kv
            }
            costs if costs.memory_share() >= BOUND_BY_READING => Bound::Weights,
            costs if costs.compute_share() >= BOUND_BY_COMPUTING => Bound::Compute,
            costs => match costs.library_share() {
                Some(share) if share >= BOUND_BY_PRODUCTS => Bound::Products,
                Some(_) => Bound::Around,
                None => Bound::Kernels,
            },
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
            Bound::Products => {
                "bound by its library's products with one row, not by memory; several requests in one step help, another form \
                 of weights or another engine"
            }
            Bound::Around => {
                "bound by what is around its library's products: attention, norms, the host; several requests in one step help, \
                 or another engine"
            }
            Bound::Kernels => {
                "bound by neither memory nor arithmetic: the kernels for single tokens; several requests in one step help, \
                 or another engine"
            }
        }
    }
}

impl Report {
    /// One sentence on decoding and one on prompts for each arm of which enough is known.
    pub fn why(&self) -> Vec<String> {
        let lines = |arm: &ArmReport| [self.why_steps(arm), self.why_prompts(arm)];
        self.arms.iter().flat_map(lines).flatten().collect()
    }

    fn why_steps(&self, arm: &ArmReport) -> Option<String> {
        let costs = self.step_costs(arm)?;
        let (reached, gives) = (costs.memory_share() * costs.memory_rate / 1e9, costs.memory_rate / 1e9);
        let library = arm.loaded.as_ref().and_then(|loaded| loaded.library.as_ref());
        let library = library.zip(costs.library_share()).map_or_else(String::new, |(rates, share)| {
            let rate = rates.stream_bytes_per_second / 1e9;
            let n = digits(rate);
            format!(
                "{:.0} % of the {rate:.n$} GB/s at which its library streams such matrices ({}), ",
                100.0 * share,
                rates.stream
            )
        });
        let n = digits(gives);
        Some(format!(
            "{}: a step reads {:.0} MB of weights and about {:.0} MB of KV cache in {:.1} ms: {reached:.n$} of the {gives:.n$} \
             GB/s that memory gives here ({:.0} %), {library}and {:.0} % of the operations per second of its prompts: {}",
            arm.label,
            costs.weight_bytes / 1e6,
            costs.kv_bytes / 1e6,
            1e3 * costs.seconds,
            100.0 * costs.memory_share(),
            100.0 * costs.compute_share(),
            costs.bound().in_words(),
        ))
    }

    fn why_prompts(&self, arm: &ArmReport) -> Option<String> {
        let loaded = arm.loaded.as_ref()?;
        let (rates, flops) = (loaded.library.as_ref()?, loaded.prompt_flops?);
        let reached = median_of(arm, Metric::Prefill)? / self.plan.n_prompt as f64 * flops;
        let (gives, share) = (rates.gemm_flops_per_second / 1e9, reached / rates.gemm_flops_per_second);
        let bound = match share {
            share if share >= BOUND_BY_COMPUTING => {
                "bound by arithmetic; more cores or wider vector units help, fewer bits do not"
            }
            _ => {
                "bound by what is around its library's products: attention, norms, unpacking of weights, the host"
            }
        };
        let n = digits(gives);
        Some(format!(
            "{}: a prompt of {} tokens takes {:.1} GFLOP, at {:.n$} of the {gives:.n$} GFLOP/s that its library reaches with {} rows \
             alone ({}; {:.0} %): {bound}",
            arm.label,
            self.plan.n_prompt,
            flops / 1e9,
            reached / 1e9,
            rates.gemm_rows,
            rates.gemm,
            100.0 * share,
        ))
    }

    /// The mean depth of a request's decode steps.
    pub(crate) fn step_depth(&self) -> f64 {
        self.plan.n_prompt as f64 + (self.plan.n_decode as f64 - 1.0) / 2.0
    }

    pub(super) fn step_costs(&self, arm: &ArmReport) -> Option<StepCosts> {
        let loaded = arm.loaded.as_ref()?;
        let memory = arm.memory.as_ref()?;
        let whole = memory.engine.kv_bytes.unwrap_or(0) as f64;
        let scaled = whole * (self.step_depth() / f64::from(self.plan.context_length)).min(1.0);
        Some(StepCosts {
            seconds: 1.0 / median_of(arm, Metric::DecodeForced)?,
            weight_bytes: loaded.weight_bytes_per_token as f64,
            kv_bytes: memory.predicted.map_or(scaled, |predicted| predicted.step_kv_bytes as f64),
            memory_rate: loaded.memory_bytes_per_second.filter(|rate| rate.is_finite() && *rate > 0.0)?,
            prompt_rate: median_of(arm, Metric::Prefill)?,
            library_rate: loaded.library.as_ref().map(|rates| rates.stream_bytes_per_second),
        })
    }
}

fn median_of(arm: &ArmReport, metric: Metric) -> Option<f64> {
    let median = arm.summaries.iter().find(|found| found.metric == metric)?.median;
    Some(median).filter(|median| median.is_finite() && *median > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weight_bytes: f64, kv_bytes: f64, prompt_rate: f64, library_rate: Option<f64>, expected: Bound) {
        let costs =
            StepCosts { seconds: 0.01, weight_bytes, kv_bytes, memory_rate: 10e9, prompt_rate, library_rate };
        assert_eq!(costs.bound(), expected, "{costs:?}");
    }

    #[test]
    fn what_a_step_waits_for() {
        for library in [None, Some(8e9)] {
            check(70e6, 5e6, 1000.0, library, Bound::Weights);
            check(30e6, 40e6, 1000.0, library, Bound::Kv);
            check(20e6, 5e6, 150.0, library, Bound::Compute);
        }
        check(20e6, 30e6, 1000.0, None, Bound::Kernels);
        check(20e6, 5e6, 1000.0, None, Bound::Kernels);
        check(20e6, 5e6, 1000.0, Some(2.5e9), Bound::Products);
        check(20e6, 5e6, 1000.0, Some(5e9), Bound::Around);
    }

    #[test]
    fn shares() {
        let costs = StepCosts {
            seconds: 0.01,
            weight_bytes: 60e6,
            kv_bytes: 10e6,
            memory_rate: 10e9,
            prompt_rate: 400.0,
            library_rate: Some(8e9),
        };
        assert!((costs.library_share().unwrap() - 0.75).abs() < 1e-12);
        assert!((costs.memory_share() - 0.7).abs() < 1e-12 && (costs.compute_share() - 0.25).abs() < 1e-12);
    }
}
