//! The raw samples: blocks of visits in the order of time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metric;
use crate::environment::Environment;
use crate::measure::{EngineSample, RunnerSample, WashOut};
use crate::order::Side;
use crate::stats::ratio::block_log_ratio;
use crate::validity::Code;

/// Visits that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Block {
    /// What it is for.
    pub kind: BlockKind,
    /// The process it was measured in, counted from 0.
    pub restart: u32,
    /// The sides in the order of time: "ABBA" or "BAAB"; of an A/A block, where the arms take turns, both in one.
    pub order: String,
    /// Its visits in the order of time; those of an arm that had failed are missing.
    pub visits: Vec<Visit>,
    /// Why it has none, where an engine took its process down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// How a block was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// `CRASH` or `HANG`.
    pub code: Code,
    /// The arm whose visit it was.
    pub arm: Side,
    /// In one sentence.
    pub detail: String,
}

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Each arm against itself, for the noise floor: eight visits, the arms in turns, each arm's own four in mirrored
    /// order of sides.
    Aa,
    /// A against B, to learn how much blocks vary; enters no ratio.
    Pilot,
    /// A against B.
    Ab,
}

impl BlockKind {
    /// "aa", "pilot" or "ab".
    pub fn name(self) -> &'static str {
        match self {
            Self::Aa => "aa",
            Self::Pilot => "pilot",
            Self::Ab => "ab",
        }
    }
}

/// One arm's turn: a wash-out if the other was before it, a request at the runner's level, one at the engine's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Visit {
    /// Whose.
    pub arm: Side,
    /// The side of the ratio that it stands for: the arm itself, except in A/A blocks.
    pub side: Side,
    /// Which request: equal numbers have equal ids.
    pub request: usize,
    /// SHA-256 of the request's ids, prompt and continuation, each as four bytes, lowest first.
    pub ids_sha256: String,
    /// From the start of the run to the start of the visit.
    pub started_ns: u64,
    /// How long the model took to load before it, where only one is loaded at a time and the other was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_ns: Option<u64>,
    /// The steps thrown away before; absent without a switch.
    pub wash_out: Option<WashOut>,
    /// At the runner's level.
    pub runner: Option<RunnerSample>,
    /// At the engine's level.
    pub engine: Option<EngineSample>,
    /// Why the engine's level is missing, where the engine answered, but not with what was asked for.
    pub failure: Option<VisitFailure>,
    /// The machine meanwhile; absent where it was not looked at.
    pub environment: Option<Environment>,
}

/// An answer that cannot be timed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VisitFailure {
    /// What is wrong with it.
    pub code: Code,
    /// In one sentence.
    pub detail: String,
}

impl Block {
    /// mean ln t(A) − mean ln t(B) of this figure over an A/B block; `None` unless both visits of both arms have it: with
    /// one of them missing the block is not mirrored, and a drift would enter.
    pub fn log_ratio(&self, metric: Metric) -> Option<f64> {
        mirrored(metric, self.visits.iter())
    }

    /// The same for one arm against itself, of an A/A block.
    pub fn aa_log_ratio(&self, metric: Metric, arm: Side) -> Option<f64> {
        mirrored(metric, self.visits.iter().filter(|visit| visit.arm == arm))
    }
}

fn mirrored<'a>(metric: Metric, visits: impl Iterator<Item = &'a Visit> + Clone) -> Option<f64> {
    let times = |side: Side| -> Option<Vec<f64>> {
        let of_side = visits.clone().filter(|visit| visit.side == side);
        let times: Option<Vec<f64>> = of_side.map(|visit| metric.time_ns(visit)).collect();
        times.filter(|times| times.len() == 2)
    };
    block_log_ratio(&times(Side::A)?, &times(Side::B)?)
}
