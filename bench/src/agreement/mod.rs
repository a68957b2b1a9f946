//! How alike two arms compute: teacher-forced, the same ids, every position's logits against each other.
//!
//! A speed without this is worth nothing: a loader that decodes weights wrongly is fast too. Greedy texts are no test,
//! since one near-tie changes all that follows.

mod depth;
mod gate;
mod reference;
mod rows;
mod run;

pub use depth::{DepthBand, MeanInterval};
pub(crate) use gate::finding;
pub use reference::Reference;
pub use rows::{NonFinite, RowComparison, argmax, compare_rows};
pub(crate) use run::{AgreementError, AgreementWork, run};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stats::proportion::{Proportion, wilson};
use crate::stats::{mean, median, quantile};

/// How alike two arms computed on one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Windows of text, each evaluated from an empty cache.
    pub n_windows: usize,
    /// Tokens of a window, a beginning-of-sequence token included.
    pub window: usize,
    /// Positions compared: all of every window.
    pub n_positions: usize,
    /// Logits compared at each position: the narrower of the two rows.
    pub n_vocab: usize,
    /// Positions at which both arms find the same token the most probable, with Wilson's interval.
    pub top1: Proportion,
    /// D(A‖B) over the positions, in nats.
    pub kl: KlSummary,
    /// The 95 % interval of the mean KL, by Student's t over windows; absent with one window.
    pub kl_interval: Option<MeanInterval>,
    /// The same by depth within the windows.
    pub by_depth: Vec<DepthBand>,
    /// exp(mean negative log-likelihood of the next token) of A, over the positions whose next token is in the window.
    pub perplexity_a: f64,
    /// The same of B.
    pub perplexity_b: f64,
    /// The positions at which the arms disagree.
    pub flips: Vec<Flip>,
    /// D(A‖B) at each position in order, in nats.
    pub kl_nats: Vec<f64>,
}

/// A distribution of distances, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KlSummary {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// A position at which the arms find different tokens the most probable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Flip {
    /// Which position, counted over all windows.
    pub position: usize,
    /// The most probable token of A.
    pub top_a: u32,
    /// The most probable token of B.
    pub top_b: u32,
    /// ln p_A(top_a) − ln p_A(top_b), in nats: below about 0.01 it is numerics, not a different model.
    pub margin: f64,
}

/// What was found at each position, before it is summed up.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    pub(crate) rows: Vec<RowComparison>,
    pub(crate) nll_a: Vec<f64>,
    pub(crate) nll_b: Vec<f64>,
}

impl Positions {
    pub(crate) fn summary(self, n_windows: usize, window: usize, n_vocab: usize) -> Option<Agreement> {
        let kl_nats: Vec<f64> = self.rows.iter().map(|row| row.kl).collect();
        let n_positions = kl_nats.len();
        let n_agree = self.rows.iter().filter(|row| row.agrees()).count();
        let flips = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| !row.agrees())
            .map(|(position, row)| Flip { position, top_a: row.top_a, top_b: row.top_b, margin: row.margin });
        Some(Agreement {
            n_windows,
            window,
            n_positions,
            n_vocab,
            top1: wilson(n_agree as u64, n_positions as u64, 0.95)?,
            kl: KlSummary {
                mean: mean(&kl_nats)?,
                median: median(&kl_nats)?,
                p99: quantile(&kl_nats, 0.99)?,
                max: quantile(&kl_nats, 1.0)?,
            },
            kl_interval: depth::interval(&kl_nats, window),
            by_depth: depth::bands(&self.rows, window),
            perplexity_a: mean(&self.nll_a)?.exp(),
            perplexity_b: mean(&self.nll_b)?.exp(),
            flips: flips.collect(),
            kl_nats,
        })
    }
}
