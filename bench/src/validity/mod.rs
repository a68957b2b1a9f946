//! What speaks against a measurement, with a code each: it takes blocks or whole figures out of the verdict, is stored in
//! the report and said in every output, and removes no sample.
//!
//! Pure functions over what was measured. Detectors of single visits look at counts, hashes and the machine's state
//! ([`samples`], [`surroundings`]); detectors of a series look at times ([`series`], [`carryover`]) and are strict, so
//! that clean noise sets them off in less than one comparison in five hundred; those of an arm compare what was
//! predicted with what was there ([`arms`]).

pub mod arms;
mod carryover;
mod samples;
mod series;
mod surroundings;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::order::Side;
use crate::report::{Block, BlockKind, Metric};

/// What is wrong, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The ratio moves steadily during the run.
    Trend,
    /// The ratio, or the speed of both arms within a block, jumps.
    Changepoint,
    /// An arm is slower just after the other one than after itself, wash-out notwithstanding.
    Carryover,
    /// A clock fell or a CPU was throttled.
    Clock,
    /// The machine ran on battery.
    Power,
    /// Memory came back from swap.
    Swap,
    /// Other processes took more from one arm than from the other.
    Contention,
    /// An engine took prompt tokens from a cache.
    CacheHit,
    /// Another number of tokens than planned.
    Tokens,
    /// A generation ended before its length.
    EarlyEos,
    /// Logits that are not numbers.
    NonFinite,
    /// A wash-out ended at its limit with steps still changing.
    NoSteady,
    /// The arms did not get the same token ids, or got the same twice.
    Ids,
    /// The engine that answered is not the one that was asked for.
    Arm,
    /// The KV cache that was predicted is not the one that the engine reports.
    Kv,
    /// Faster than memory can be read.
    Ceiling,
    /// An engine differs from itself.
    AaBias,
    /// The arms compute too differently for what they hold.
    Fidelity,
    /// An engine took its process down.
    Crash,
    /// An engine did not come to an end.
    Hang,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 20] = [
        Code::Trend,
        Code::Changepoint,
        Code::Carryover,
        Code::Clock,
        Code::Power,
        Code::Swap,
        Code::Contention,
        Code::CacheHit,
        Code::Tokens,
        Code::EarlyEos,
        Code::NonFinite,
        Code::NoSteady,
        Code::Ids,
        Code::Arm,
        Code::Kv,
        Code::Ceiling,
        Code::AaBias,
        Code::Fidelity,
        Code::Crash,
        Code::Hang,
    ];

    /// As it is written: "CACHE_HIT".
    pub fn name(self) -> &'static str {
        match self {
            Self::Trend => "TREND",
            Self::Changepoint => "CHANGEPOINT",
            Self::Carryover => "CARRYOVER",
            Self::Clock => "CLOCK",
            Self::Power => "POWER",
            Self::Swap => "SWAP",
            Self::Contention => "CONTENTION",
            Self::CacheHit => "CACHE_HIT",
            Self::Tokens => "TOKENS",
            Self::EarlyEos => "EARLY_EOS",
            Self::NonFinite => "NON_FINITE",
            Self::NoSteady => "NO_STEADY",
            Self::Ids => "IDS",
            Self::Arm => "ARM",
            Self::Kv => "KV",
            Self::Ceiling => "CEILING",
            Self::AaBias => "AA_BIAS",
            Self::Fidelity => "FIDELITY",
            Self::Crash => "CRASH",
            Self::Hang => "HANG",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that speaks against a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// The arm it was found in, where it is one.
    pub arm: Option<Side>,
    /// The figures that it takes out of the verdict.
    pub metrics: Vec<Metric>,
    /// The blocks that it takes out, as indices into the report's blocks; empty: the whole run.
    pub blocks: Vec<usize>,
    /// What exactly was seen, in one sentence.
    pub detail: String,
    /// Whether it takes nothing out: the ratio jumped, and each part of the run says the same all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stands: bool,
}

impl Finding {
    /// Of a whole run.
    pub fn of_run(code: Code, arm: Option<Side>, metrics: &[Metric], detail: String) -> Self {
        Self { code, arm, metrics: metrics.to_vec(), blocks: Vec::new(), detail, stands: false }
    }

    /// Of one block, by its index into the report's.
    pub fn of_block(code: Code, arm: Option<Side>, metrics: &[Metric], block: usize, detail: String) -> Self {
        Self { blocks: vec![block], ..Self::of_run(code, arm, metrics, detail) }
    }

    /// Whether the ratio of these figures jumped, between blocks: what [`crate::stats::parts`] can deal with.
    pub fn is_jump_of_ratio(&self) -> bool {
        self.code == Code::Changepoint && self.blocks.is_empty()
    }

    /// Whether it takes this block out of the verdict on this figure; findings of the whole run do not.
    pub fn voids(&self, metric: Metric, block: usize) -> bool {
        self.blocks.contains(&block) && self.metrics.contains(&metric)
    }

    /// Whether it takes this figure out altogether.
    pub fn invalidates(&self, metric: Metric) -> bool {
        !self.stands && self.blocks.is_empty() && self.metrics.contains(&metric)
    }
}

/// What the detectors have to know besides the blocks.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// Tokens decoded by each request, in each mode.
    pub n_decode: usize,
    /// Changes of a ratio below this share are not looked at (the margin of the verdict).
    pub least_change: f64,
}

/// All findings in the blocks: those of visits first, then those of the series of the blocks that are left.
pub fn find(blocks: &[Block], planned: Planned) -> Vec<Finding> {
    let mut findings = samples::find(blocks, planned);
    findings.extend(surroundings::find(blocks));
    for restart in restarts(blocks) {
        for metric in Metric::ALL {
            let jumps = series::jumps(blocks, restart, metric, &findings, planned);
            findings.extend(jumps);
            let moving = series::moving(blocks, restart, metric, &findings, planned);
            findings.extend(moving);
            let carried = carryover::find(blocks, restart, metric, &findings, planned);
            findings.extend(carried);
        }
    }
    merged(findings)
}

/// The numbers of the processes that blocks come from.
pub(crate) fn restarts(blocks: &[Block]) -> Vec<u32> {
    let mut found: Vec<u32> = blocks.iter().map(|block| block.restart).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The A/B blocks of one process that no finding has taken out for this figure, with their indices.
fn valid<'a>(
    blocks: &'a [Block],
    restart: u32,
    metric: Metric,
    findings: &'a [Finding],
) -> impl Iterator<Item = (usize, &'a Block)> {
    blocks.iter().enumerate().filter(move |(index, block)| {
        block.restart == restart
            && block.kind == BlockKind::Ab
            && !findings.iter().any(|finding| finding.voids(metric, *index))
    })
}

/// Findings that say the same of several figures become one.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        let alike = |other: &&mut Finding| {
            (other.code, other.arm, &other.blocks, &other.detail)
                == (finding.code, finding.arm, &finding.blocks, &finding.detail)
        };
        match merged.iter_mut().find(alike) {
            Some(other) => other.metrics.extend(finding.metrics),
            None => merged.push(finding),
        }
    }
    for finding in &mut merged {
        finding.metrics.sort_unstable();
        finding.metrics.dedup(); // two visits of a block say the same
    }
    merged
}
