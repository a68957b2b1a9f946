//! What a scenario gives: every visit with its raw instants, and the comparison of each figure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::work::ScenarioWork;
use crate::environment::Environment;
use crate::http::Answer;
use crate::load::Better;
use crate::order::Side;
use crate::report::{BlockKind, SelfRatio};
use crate::stats::ratio::Ratio;
use crate::stats::verdict::{Margin, Verdict};
use crate::validity::Code;
use crate::weights::Graded;

/// One scenario: what was done, what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioReport {
    /// "8 streams".
    pub name: String,
    /// What each visit did.
    pub work: ScenarioWork,
    /// The same in a sentence.
    pub statement: String,
    /// Why it was not done; absent if it was.
    pub skipped: Option<Skipped>,
    /// Why it ended before its end, if it did; what came before is kept.
    pub failure: Option<String>,
    /// A against B, figure by figure.
    pub comparisons: Vec<ScenarioComparison>,
    /// What speaks against it.
    pub findings: Vec<ScenarioFinding>,
    /// The raw samples: blocks in the order of time.
    pub blocks: Vec<ScenarioBlock>,
}

impl ScenarioReport {
    /// Takes the samples of the same scenario in other processes, from `restart` on.
    pub(crate) fn take(&mut self, other: Self, restart: u32) {
        self.blocks.extend(other.blocks.into_iter().map(|mut block| {
            block.restart += restart;
            block
        }));
        if !self.blocks.is_empty() {
            self.skipped = None;
        }
        self.failure = self.failure.take().or(other.failure);
    }
}

/// Why a scenario was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Which kind of reason.
    pub reason: SkipReason,
    /// In a sentence.
    pub detail: String,
}

/// Kinds of reasons not to do a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A server that runs already cannot do it.
    Server,
    /// The model's context, or the machine, has no room for it.
    Room,
    /// The time is used up.
    Time,
    /// An arm had failed.
    Arm,
}

/// Visits that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioBlock {
    /// What it is for.
    pub kind: BlockKind,
    /// The process it was measured in, counted from 0.
    pub restart: u32,
    /// The sides in the order of time, as in the report's blocks.
    pub order: String,
    /// Its visits.
    pub visits: Vec<ScenarioVisit>,
}

/// One arm's turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioVisit {
    /// Whose.
    pub arm: Side,
    /// The side of the ratio that it stands for: the arm itself, except in A/A blocks.
    pub side: Side,
    /// Which prompts: equal numbers have equal ids.
    pub request: usize,
    /// SHA-256 over all prompts of the visit.
    pub ids_sha256: String,
    /// From the start of the run to the start of the visit.
    pub started_ns: u64,
    /// How long it took, the request before it not counted.
    pub wall_ns: u64,
    /// What it comes down to.
    pub figures: Vec<ScenarioValue>,
    /// What takes it out of the verdict.
    pub faults: Vec<ScenarioFault>,
    /// Raw instants.
    pub requests: Vec<ScenarioRequest>,
    /// The machine meanwhile; absent where it was not looked at.
    pub environment: Option<Environment>,
}

/// One number of one visit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioValue {
    /// "total", "TTFT p90".
    pub figure: String,
    /// "tok/s", "s", "ms", "tokens", "×".
    pub unit: String,
    /// Which way is up.
    pub better: Better,
    /// The value.
    pub value: f64,
}

impl ScenarioValue {
    /// Whether arms are compared in it: rates and times are, counts and shares are only shown.
    pub(super) fn is_compared(&self) -> bool {
        !matches!(self.unit.as_str(), "tokens" | "×")
    }

    /// What it costs: a time or, of a rate, its inverse.
    pub(super) fn cost(&self) -> f64 {
        match self.better {
            Better::Higher => 1.0 / self.value,
            Better::Lower => self.value,
        }
    }
}

/// Something that takes a visit, and with it its block, out of the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioFault {
    /// What.
    pub code: Code,
    /// In a sentence.
    pub detail: String,
}

/// One request of a visit. Instants are on the run's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioRequest {
    /// Its part in the scenario.
    pub role: String,
    /// When it was sent, or was due where it arrives at random.
    pub sent_ns: u64,
    /// When each token, or from a server each piece of text, had come.
    pub arrivals_ns: Vec<u64>,
    /// When its end had come.
    pub ended_ns: Option<u64>,
    /// Generated tokens.
    pub n_tokens: u64,
    /// Prompt tokens that were evaluated, by the arm's own count; absent where it does not say.
    pub n_evaluated: Option<u64>,
    /// Prompt tokens that came from a cache; absent where it does not say.
    pub n_cached: Option<u64>,
}

impl ScenarioRequest {
    pub(super) fn of(role: String, answer: &Answer) -> Self {
        Self {
            role,
            sent_ns: answer.sent_ns,
            arrivals_ns: answer.pieces.iter().map(|piece| piece.at_ns).collect(),
            ended_ns: answer.ended_ns,
            n_tokens: answer.n_tokens(),
            n_evaluated: answer.n_evaluated(),
            n_cached: answer.usage.and_then(|usage| usage.cached_tokens),
        }
    }
}

/// An arm's values of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioSpread {
    /// The middle one.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// Visits.
    pub n: usize,
}

/// One figure of A against B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioComparison {
    /// Which figure.
    pub figure: String,
    /// Its unit.
    pub unit: String,
    /// Which way is up.
    pub better: Better,
    /// Values of A and of B; absent for an arm that has none.
    pub arms: Vec<Option<ScenarioSpread>>,
    /// Cost of A / cost of B, where the cost is a time or the inverse of a rate, over the blocks that nothing speaks
    /// against; absent for counts, which are not compared, and if there is none.
    pub ratio: Option<Ratio>,
    /// A/B blocks that findings took out.
    pub n_void: usize,
    /// Each arm against itself, where that was measured.
    pub aa: Vec<SelfRatio>,
    /// How far from 1 the ratio has to be to matter.
    pub margin: Margin,
    /// What the ratio says; absent for counts.
    pub verdict: Option<Verdict>,
    /// What the ratio compares; absent if an arm was not loaded.
    pub grade: Option<Graded>,
}

/// Something that speaks against a scenario or blocks of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioFinding {
    /// What.
    pub code: Code,
    /// The arm it was found in, where it is one.
    pub arm: Option<Side>,
    /// The figures that it takes out of the verdict.
    pub figures: Vec<String>,
    /// The blocks that it takes out, as indices into the scenario's blocks; empty: the whole scenario.
    pub blocks: Vec<usize>,
    /// What exactly was seen, in one sentence.
    pub detail: String,
    /// Whether it takes nothing out: the ratio jumped, and each part of the scenario says the same all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stands: bool,
}
