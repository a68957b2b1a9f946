//! The figures of a request and what exactly each of them is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Visit;
use crate::stats::median;

/// A figure that every request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Prompt evaluation at the runner's level.
    Prefill,
    /// Decode steps with pre-chosen ids at the runner's level.
    DecodeForced,
    /// Time to the first token at the engine's level.
    Ttft,
    /// The engine's own greedy loop at the engine's level.
    DecodeNative,
}

/// Where a figure is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// `ModelRunner::submit` and `collect`.
    Runner,
    /// `LoadedModel::generate`.
    Engine,
}

impl Level {
    /// Its figures.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Level::Runner => &[Metric::Prefill, Metric::DecodeForced],
            Level::Engine => &[Metric::Ttft, Metric::DecodeNative],
        }
    }
}

impl Metric {
    /// All, in the order of the table.
    pub const ALL: [Metric; 4] = [Metric::Prefill, Metric::DecodeForced, Metric::Ttft, Metric::DecodeNative];

    /// Its name, as in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Prefill => "prefill",
            Metric::DecodeForced => "decode_forced",
            Metric::Ttft => "ttft",
            Metric::DecodeNative => "decode_native",
        }
    }

    /// The unit of its summaries. The ratio is one of times in any case.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::Ttft => "s",
            _ => "tok/s",
        }
    }

    /// What it is, in one or two sentences.
    pub fn definition(self) -> &'static str {
        match self {
            Metric::Prefill => {
                "runner level: prompt tokens / (first submit to the argmax of the last prompt token's logits on the \
                 host), empty cache; the median where a prompt is read several times"
            }
            Metric::DecodeForced => {
                "runner level: 1 / median step of a request; pre-chosen ids, full logits and their argmax on the host \
                 before the next submit: equal work, nothing in flight meanwhile"
            }
            Metric::Ttft => {
                "engine level: generate called to first token received, token ids given, nothing cached; the median where \
                 a prompt is sent several times"
            }
            Metric::DecodeNative => {
                "engine level: 1 / median gap between received tokens of a request; the engine's own greedy loop, \
                 end of generation ignored"
            }
        }
    }

    /// The time of this figure in one visit, in nanoseconds: of a whole prompt (the median where it was read several
    /// times), or the median step. `None` if it was not measured.
    pub fn time_ns(self, visit: &Visit) -> Option<f64> {
        let median_of = |times: &[u64]| median(&times.iter().map(|ns| *ns as f64).collect::<Vec<_>>());
        let with = |first: u64, again: &[u64]| median_of(&[&[first], again].concat());
        match self {
            Metric::Prefill => {
                visit.runner.as_ref().and_then(|sample| with(sample.prefill_ns, &sample.prefill_again_ns))
            }
            Metric::DecodeForced => visit.runner.as_ref().and_then(|sample| median_of(&sample.step_ns)),
            Metric::Ttft => {
                visit.engine.as_ref().and_then(|sample| with(sample.ttft_ns, &sample.ttft_again_ns))
            }
            Metric::DecodeNative => visit.engine.as_ref().and_then(|sample| median_of(&sample.itl_ns)),
        }
    }

    /// A time of this figure in its unit, for prompts of `n_prompt` tokens.
    pub fn in_unit(self, ns: f64, n_prompt: usize) -> f64 {
        match self {
            Metric::Prefill => n_prompt as f64 * 1e9 / ns,
            Metric::DecodeForced | Metric::DecodeNative => 1e9 / ns,
            Metric::Ttft => ns / 1e9,
        }
    }
}

/// A figure of one arm over all its requests, in the figure's unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Which figure.
    pub metric: Metric,
    /// "tok/s" or "s".
    pub unit: String,
    /// Requests that entered.
    pub n_requests: usize,
    /// The median request.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Summary {
    /// Over the visits of one arm; `None` if no visit has the figure.
    pub fn of<'a>(metric: Metric, visits: impl Iterator<Item = &'a Visit>, n_prompt: usize) -> Option<Self> {
        let values: Vec<f64> =
            visits.filter_map(|visit| metric.time_ns(visit)).map(|ns| metric.in_unit(ns, n_prompt)).collect();
        Some(Self {
            metric,
            unit: metric.unit().to_owned(),
            n_requests: values.len(),
            median: median(&values)?,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}
