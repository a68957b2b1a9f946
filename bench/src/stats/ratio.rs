//! The ratio of two arms from blocks: Student's t on block log-ratios (bench-method §4).
//!
//! A block holds both arms twice in mirrored order (ABBA or BAAB), so a linear drift cancels inside of it. Its
//! log-ratio d = mean ln t(A) − mean ln t(B) is one observation; the ratio of times is exp(mean d), and its interval is
//! mean ± t(1 − α/2, n − 1)·s/√n, exponentiated. Percentile bootstrap covers too little at so few blocks (0.83–0.85 at
//! five, where t has 0.94–0.97). Blocks of several processes are taken together as [`super::restarts`] says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::Part;
use super::restarts::{RestartSpread, estimate};
use super::robust::{n_outliers, trimmed_mean};
use super::student::Estimate;
use super::{mean, standard_deviation};

/// Nominal coverage of [`Ratio::interval`].
pub const CONFIDENCE: f64 = 0.95;
/// Nominal coverage of [`Ratio::equivalence`]: two one-sided tests at 5 % each.
pub const EQUIVALENCE: f64 = 0.90;

/// How long A takes relative to B, over blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ratio {
    /// Blocks that entered.
    pub n_blocks: usize,
    /// Processes that they come from.
    pub n_restarts: usize,
    /// exp(mean of block log-ratios): time of A / time of B. Above 1: A is slower.
    pub time_ratio: f64,
    /// Standard deviation of the block log-ratios; absent with one block.
    pub log_sd: Option<f64>,
    /// Standard error of the mean log-ratio, which the intervals are made of unless there are parts; absent with one block.
    pub log_se: Option<f64>,
    /// Its degrees of freedom.
    pub degrees: Option<f64>,
    /// The 95 % interval of `time_ratio`; absent with one block. Of a ratio that jumped: over the
    /// intervals of all parts, each of which has its share of the 5 %.
    pub interval: Option<RatioInterval>,
    /// The 90 % interval, which has to lie within the margins for the arms to be called equivalent.
    pub equivalence: Option<RatioInterval>,
    /// What varies between processes and what within them; absent with one process.
    pub restarts: Option<RestartSpread>,
    /// The ratio without the lowest and the highest block, for comparison only; absent below five blocks.
    pub trimmed_time_ratio: Option<f64>,
    /// Blocks beyond 3.5 robust standard deviations of the median. They are in the ratio.
    pub n_outliers: usize,
    /// What the ratio was before and after each jump, if it jumped; the processes one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The observations: mean ln t(A) − mean ln t(B) of each block.
    pub log_ratios: Vec<f64>,
}

/// An interval on a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RatioInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Nominal coverage (0.95).
    pub confidence: f64,
}

impl RatioInterval {
    /// From an estimate of the log-ratio.
    pub fn of(estimate: &Estimate, confidence: f64) -> Self {
        let (low, high) = estimate.interval(confidence);
        Self { low: low.exp(), high: high.exp(), confidence }
    }

    /// The interval of the inverse ratio.
    pub fn inverse(self) -> Self {
        Self { low: 1.0 / self.high, high: 1.0 / self.low, confidence: self.confidence }
    }
}

impl Ratio {
    /// Over these block log-ratios, a list for each process; `None` without any, or if one is not finite. Empty lists
    /// are passed over.
    pub fn of(restarts: &[Vec<f64>]) -> Option<Self> {
        let restarts: Vec<&[f64]> =
            restarts.iter().map(Vec::as_slice).filter(|one| !one.is_empty()).collect();
        let log_ratios = restarts.concat();
        if log_ratios.iter().any(|d| !d.is_finite()) {
            return None;
        }
        let found = estimate(&restarts);
        let log_mean = match &found {
            Some((estimate, _)) => estimate.mean,
            None => mean(&log_ratios)?,
        };
        let estimate = found.as_ref().map(|(estimate, _)| estimate);
        Some(Self {
            n_blocks: log_ratios.len(),
            n_restarts: restarts.len(),
            time_ratio: log_mean.exp(),
            log_sd: standard_deviation(&log_ratios),
            log_se: estimate.map(|found| found.standard_error),
            degrees: estimate.map(|found| found.degrees),
            interval: estimate.map(|found| RatioInterval::of(found, CONFIDENCE)),
            equivalence: estimate.map(|found| RatioInterval::of(found, EQUIVALENCE)),
            trimmed_time_ratio: trimmed_mean(&log_ratios).map(f64::exp),
            n_outliers: n_outliers(&log_ratios),
            restarts: found.and_then(|(_, spread)| spread),
            parts: Vec::new(),
            log_ratios,
        })
    }

    /// Over the blocks of one process; `None` as [`Ratio::of`].
    pub fn of_blocks(log_ratios: Vec<f64>) -> Option<Self> {
        Self::of(&[log_ratios])
    }

    /// The estimate of ln `time_ratio`; `None` with one block.
    pub fn estimate(&self) -> Option<Estimate> {
        Some(Estimate { mean: self.time_ratio.ln(), standard_error: self.log_se?, degrees: self.degrees? })
    }

    /// Speed of A / speed of B, the inverse of `time_ratio`, and its interval. Above 1: A is faster.
    pub fn speed(&self) -> (f64, Option<RatioInterval>) {
        (1.0 / self.time_ratio, self.interval.map(RatioInterval::inverse))
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
