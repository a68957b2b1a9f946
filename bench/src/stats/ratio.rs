//! The ratio of two arms from blocks: Student's t on block log-ratios (bench-method §4).
//!
//! A block holds both arms twice in mirrored order (ABBA or BAAB), so a linear drift cancels inside of it. Its
//! log-ratio d = mean ln t(A) − mean ln t(B) is one observation; the ratio of times is exp(mean d), and its interval is
//! mean ± t(1 − α/2, n − 1)·s/√n, exponentiated. Percentile bootstrap covers too little at so few blocks (0.83–0.85 at
//! five, where t has 0.94–0.97).

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{mean, standard_deviation};

/// How long A takes relative to B, over blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Blocks that entered.
    pub n_blocks: usize,
    /// exp(mean of block log-ratios): time of A / time of B. Above 1: A is slower.
    pub time_ratio: f64,
    /// Standard deviation of the block log-ratios; absent with one block.
    pub log_sd: Option<f64>,
    /// The interval of `time_ratio`; absent with one block.
    pub interval: Option<RatioInterval>,
    /// The observations: mean ln t(A) − mean ln t(B) of each block.
    pub log_ratios: Vec<f64>,
}

/// An interval on a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RatioInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Nominal coverage (0.95).
    pub confidence: f64,
}

impl Ratio {
    /// Speed of A / speed of B, the inverse of `time_ratio`, and its interval. Above 1: A is faster.
    pub fn speed(&self) -> (f64, Option<RatioInterval>) {
        let interval = self.interval.map(|times| RatioInterval {
            low: 1.0 / times.high,
            high: 1.0 / times.low,
            confidence: times.confidence,
        });
        (1.0 / self.time_ratio, interval)
    }
}

/// mean ln `a` − mean ln `b` of one block's times; `None` if a side is empty or a time is not a positive number.
pub fn block_log_ratio(a: &[f64], b: &[f64]) -> Option<f64> {
    let log_mean = |times: &[f64]| {
        let logs: Option<Vec<f64>> =
            times.iter().map(|time| (*time > 0.0 && time.is_finite()).then(|| time.ln())).collect();
        mean(&logs?)
    };
    Some(log_mean(a)? - log_mean(b)?)
}

/// The ratio over these block log-ratios; `None` for no blocks, a log-ratio that is not finite, or a confidence outside
/// of (0, 1).
pub fn ratio(log_ratios: Vec<f64>, confidence: f64) -> Option<Ratio> {
    let confident = confidence > 0.0 && confidence < 1.0;
    if !confident || log_ratios.iter().any(|d| !d.is_finite()) {
        return None;
    }
    let n_blocks = log_ratios.len();
    let log_mean = mean(&log_ratios)?;
    let log_sd = standard_deviation(&log_ratios);
    let interval = log_sd.and_then(|sd| {
        let t = StudentsT::new(0.0, 1.0, (n_blocks - 1) as f64).ok()?.inverse_cdf(0.5 + confidence / 2.0);
        let half = t * sd / (n_blocks as f64).sqrt();
        Some(RatioInterval { low: (log_mean - half).exp(), high: (log_mean + half).exp(), confidence })
    });
    Some(Ratio { n_blocks, time_ratio: log_mean.exp(), log_sd, interval, log_ratios })
}
