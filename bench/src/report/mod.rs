//! The report: everything that was measured, with what it was measured on. Its JSON form is the schema
//! [`Report::SCHEMA`]; a field is never given another meaning without another number there.

mod block;
mod build;
mod csv;
mod html;
mod markdown;
mod merge;
mod metric;
mod read;
mod scenarios;
pub(crate) mod table;
mod why;
pub(crate) mod words;

use std::collections::BTreeMap;

pub use block::{Block, BlockKind, Lost, Visit, VisitFailure};
pub(crate) use build::{ArmFacts, Found, build};
use duet_core::MemoryReport;
pub use merge::MergeError;
pub use metric::{Level, Metric, Summary};
pub use read::ReadError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use why::{Bound, StepCosts};

use crate::agreement::{Agreement, Reference};
use crate::files::FileHash;
use crate::ledger::{Ledger, PredictedMemory};
use crate::library::LibraryRates;
use crate::machine::Machine;
use crate::memory::FootprintDelta;
use crate::order::Side;
use crate::plan::Plan;
use crate::scenario::ScenarioReport;
use crate::stats::ratio::Ratio;
use crate::stats::verdict::{Margin, Verdict};
use crate::validity::{Code, Finding};
use crate::weights::{Graded, WeightProof};

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: String,
    /// When, where and by what.
    pub manifest: Manifest,
    /// What was done.
    pub plan: Plan,
    /// What each figure is.
    pub definitions: BTreeMap<String, String>,
    /// A and B.
    pub arms: Vec<ArmReport>,
    /// A against B, figure by figure. Figures that one arm lacks are left out.
    pub comparisons: Vec<Comparison>,
    /// What speaks against the measurement or parts of it, and what that takes out of the verdicts.
    pub findings: Vec<Finding>,
    /// How alike the arms compute; absent if it was not asked for or could not be had.
    pub agreement: Option<Agreement>,
    /// Why `agreement` is absent.
    pub no_agreement: Option<String>,
    /// Both arms against a third model; absent if none was named or it could not be had.
    #[serde(default)]
    pub reference: Option<Reference>,
    /// Whether both arms have the same weights.
    pub weights: WeightProof,
    /// What the ratios compare; absent if an arm was not loaded.
    pub grade: Option<Graded>,
    /// Settings in which the arms differ, one sentence each.
    pub differences: Vec<String>,
    /// What a reader has to know beside the figures, one sentence each.
    pub notes: Vec<String>,
    /// What was done beside single requests: streams, shared prefixes, arrivals, starts.
    #[serde(default)]
    pub scenarios: Vec<ScenarioReport>,
    /// The raw samples: blocks in the order of time.
    pub blocks: Vec<Block>,
}

/// When, where and by what a report was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// The start, UTC, RFC 3339.
    pub started: String,
    /// From start to end.
    pub wall_ns: u64,
    /// The program's version.
    pub duet_version: String,
    /// The machine.
    pub machine: Machine,
    /// CPU threads asked of each engine; absent: each engine's default.
    pub threads: Option<u32>,
    /// KV type asked of each engine ("f16"); absent: each engine's own.
    pub kv_type: Option<String>,
    /// How engines that can choose were asked to hold quantised weights ("auto", "packed", "dense").
    pub weights_mode: String,
    /// How the arms share the machine: "resident" (both loaded into one process) or "swap" (one at a time, loaded anew at
    /// each switch).
    pub mode: String,
}

/// One arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArmReport {
    /// A or B.
    pub side: Side,
    /// How the table calls it.
    pub label: String,
    /// The engine.
    pub engine: EngineReport,
    /// The model.
    pub model: ModelReport,
    /// What it said after loading; absent if it could not be loaded.
    pub loaded: Option<LoadedReport>,
    /// Its memory; absent if it could not be loaded.
    pub memory: Option<ArmMemory>,
    /// The request that came first and does not count.
    pub warm_up: Option<Visit>,
    /// Its figures.
    pub summaries: Vec<Summary>,
    /// How it failed, if it did. What was measured before is kept.
    pub failure: Option<ArmFailure>,
}

/// An engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineReport {
    /// Its id.
    pub id: String,
    /// Its library.
    pub library: String,
    /// The library's version and the binding's.
    pub version: String,
    /// Its devices, best first: name and description.
    pub devices: Vec<String>,
    /// Kernels compiled in and active.
    pub features: Vec<String>,
    /// Where the library was loaded from.
    pub library_path: String,
    /// Why this engine.
    pub reason: String,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelReport {
    /// "gguf" or "mlx".
    pub format: String,
    /// The name it gives itself.
    pub name: Option<String>,
    /// Its family.
    pub architecture: String,
    /// Weights.
    pub n_params: u64,
    /// How most of them are stored.
    pub quantization: String,
    /// Stored bits per weight.
    pub bits_per_weight: f64,
    /// Its weight files, by content.
    pub files: Vec<FileHash>,
}

/// What an engine said after loading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedReport {
    /// The engine's id as the loaded model tells it: proof of the arm.
    pub backend: String,
    /// The device it runs on.
    pub device: String,
    /// What the weights are held as.
    pub weights: String,
    /// Bytes of weights read by one decode step.
    pub weight_bytes_per_token: u64,
    /// Bytes per second at which this machine reads as many bytes with as many threads, measured after the run; absent
    /// for devices with a memory of their own.
    pub memory_bytes_per_second: Option<f64>,
    /// What the engine's own library reaches here with matrices like the model's; absent where it was not measured, or the
    /// engine does not offer it.
    #[serde(default)]
    pub library: Option<LibraryRates>,
    /// Operations that the plan's prompt takes, from headers.
    #[serde(default)]
    pub prompt_flops: Option<f64>,
    /// Type of the KV cache's elements.
    pub kv_type: String,
    /// Kernel choices.
    pub notes: Vec<String>,
    /// `load` called → ready, with the files in the file cache.
    pub load_ns: u64,
    /// Most tokens of a request.
    pub context_length: u32,
    /// Most tokens of a step.
    pub max_step_tokens: u32,
    /// Steps that may be in flight.
    pub steps_in_flight: u32,
    /// Whether greedy tokens are sampled on the device.
    pub greedy_on_device: bool,
}

/// Memory of an arm. Absent figures are `None`, never 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArmMemory {
    /// The KV cache as it was predicted from the model's headers and the engine's layout; absent where there is no rule.
    pub predicted_kv_bytes: Option<u64>,
    /// By the engine's own count after the warm-up; the KV cache with a whole request in it.
    pub engine: EngineMemory,
    /// By which the process grew from before the load to after it.
    pub process_load: Option<FootprintDelta>,
    /// By which the process grew from before the load to after the warm-up: what was mapped is resident by now.
    pub process_warm: Option<FootprintDelta>,
    /// All of it from headers alone; absent where there is no rule.
    #[serde(default)]
    pub predicted: Option<PredictedMemory>,
    /// What of the process's growth the engine's count explains; absent where the system does not tell its growth, or the
    /// engine does not count.
    #[serde(default)]
    pub ledger: Option<Ledger>,
}

/// Memory by the engine's own count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineMemory {
    /// Weights as held.
    pub weights_bytes: Option<u64>,
    /// KV cache as allocated.
    pub kv_bytes: Option<u64>,
    /// Scratch buffers.
    pub compute_bytes: Option<u64>,
    /// Highest use.
    pub peak_bytes: Option<u64>,
}

impl From<MemoryReport> for EngineMemory {
    fn from(report: MemoryReport) -> Self {
        let MemoryReport { weights_bytes, kv_bytes, compute_bytes, peak_bytes } = report;
        Self { weights_bytes, kv_bytes, compute_bytes, peak_bytes }
    }
}

/// How an arm failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArmFailure {
    /// What was going on ("loading", "block 2, visit 3").
    pub during: String,
    /// The error and its causes.
    pub error: String,
    /// What it is, where that has a code.
    pub code: Option<Code>,
}

/// One figure of A against B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Which figure.
    pub metric: Metric,
    /// Time of A / time of B over the blocks that nothing speaks against; absent if there is none.
    pub ratio: Option<Ratio>,
    /// A/B blocks that findings took out.
    pub n_void: usize,
    /// Each arm against itself, where that was measured.
    pub aa: Vec<SelfRatio>,
    /// How far from 1 the ratio has to be to matter.
    pub margin: Margin,
    /// What the ratio says.
    pub verdict: Verdict,
    /// What the ratio compares, with the reason; absent if an arm was not loaded.
    pub grade: Option<Graded>,
}

impl Comparison {
    /// Whether the ratio jumped during the run and has parts.
    pub fn has_parts(&self) -> bool {
        self.ratio.as_ref().is_some_and(|ratio| !ratio.parts.is_empty())
    }

    /// Whether it has, and the verdict is what all of them say.
    pub fn is_in_parts(&self) -> bool {
        self.has_parts() && matches!(self.verdict, Verdict::Winner { .. } | Verdict::Equivalent)
    }
}

/// One figure of an arm against itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelfRatio {
    /// Whose.
    pub arm: Side,
    /// The ratio of its times to its times: 1, but for noise.
    pub ratio: Ratio,
    /// How far from 1 its 95 % interval reaches: 0.02 for 2 %. The larger of both arms' is the noise floor.
    pub floor: f64,
}

impl Report {
    /// The name and version of the JSON form.
    pub const SCHEMA: &'static str = "duet-bench/2";

    /// Whether both arms came through, and the agreement with them if it was asked for.
    pub fn is_complete(&self) -> bool {
        self.arms.iter().all(|arm| arm.failure.is_none())
            && self.scenarios.iter().all(|scenario| scenario.failure.is_none())
            && (self.agreement.is_some() || self.plan.n_windows == 0)
    }

    /// Says why the agreement is missing that was asked for.
    pub(crate) fn give_up_agreement(&mut self, why: String) {
        self.notes.push(why.clone());
        self.no_agreement = Some(why);
        self.plan.n_windows = self.plan.n_windows.max(1);
    }

    /// What a process that made this report should exit with: 0, or 2 if it is not complete.
    pub fn exit_code(&self) -> u8 {
        if self.is_complete() { 0 } else { 2 }
    }

    /// The report as JSON with line breaks.
    ///
    /// # Errors
    /// None that is known; serde's signature has one.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}
