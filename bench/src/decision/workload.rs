//! Kinds of requests, and how long one takes on an arm.

use crate::order::Side;
use crate::report::{Metric, Report};

/// A kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Prompt tokens that have to be evaluated.
    pub n_prompt: u64,
    /// Tokens generated.
    pub n_decode: u64,
}

impl Workload {
    /// A kind of request.
    pub fn new(name: &str, n_prompt: u64, n_decode: u64) -> Self {
        Self { name: name.to_owned(), n_prompt, n_decode }
    }

    /// The kinds that are decided for unless others are given: a turn of a chat, a question about retrieved pages, a
    /// step of an agent whose earlier steps are cached, and a paragraph to be classified.
    pub fn usual() -> Vec<Self> {
        vec![
            Self::new("chat", 300, 250),
            Self::new("rag", 3000, 200),
            Self::new("agent", 1200, 120),
            Self::new("batch", 600, 8),
        ]
    }

    /// Whether a report measured requests at least as long in both parts; otherwise its figures are extrapolated.
    pub fn is_within(&self, report: &Report) -> bool {
        self.n_prompt <= report.plan.n_prompt as u64 && self.n_decode <= report.plan.n_decode as u64
    }
}

/// How long a request takes on an arm: P·`prompt` + N·`decode`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Nanoseconds to the first token for each prompt token.
    pub prompt: f64,
    /// Nanoseconds for each generated token.
    pub decode: f64,
}

impl Fit {
    /// From the median request of an arm; `None` if a figure is missing.
    pub fn of(report: &Report, arm: Side) -> Option<Self> {
        let arm = report.arms.get(arm.index())?;
        let median =
            |metric| arm.summaries.iter().find(|found| found.metric == metric).map(|found| found.median);
        let n_prompt = report.plan.n_prompt.max(1) as f64;
        // Seconds of a whole prompt, and tokens per second.
        Some(Self {
            prompt: median(Metric::Ttft)? * 1e9 / n_prompt,
            decode: 1e9 / median(Metric::DecodeNative)?,
        })
    }

    /// Nanoseconds of a request.
    pub fn time_ns(&self, workload: &Workload) -> f64 {
        self.prompt * workload.n_prompt as f64 + self.decode * workload.n_decode as f64
    }

    /// Prompt tokens per generated token at which both take as long; `None` if one is faster at both.
    pub fn crossover(&self, other: &Self) -> Option<f64> {
        let ratio = (other.decode - self.decode) / (self.prompt - other.prompt);
        (ratio > 0.0 && ratio.is_finite()).then_some(ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_lines_cross() {
        let reader = Fit { prompt: 1.0, decode: 20.0 };
        let writer = Fit { prompt: 3.0, decode: 10.0 };
        assert_eq!((reader.crossover(&writer), writer.crossover(&reader)), (Some(5.0), Some(5.0)));
        let workload = Workload::new("w", 50, 10);
        assert_eq!(reader.time_ns(&workload), writer.time_ns(&workload));
        assert_eq!(reader.crossover(&Fit { prompt: 2.0, decode: 30.0 }), None);
        assert_eq!(reader.crossover(&reader), None);
    }
}
