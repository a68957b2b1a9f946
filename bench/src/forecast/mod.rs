//! `duet plan`: what a model takes in memory and how fast it can be at most, for each engine, from its headers alone and
//! before any weight is read.
//!
//! Knows no engine: what each holds the weights as and how it lays out its cache comes from its `probe`.

pub mod arithmetic;
mod text;

use duet_core::Registry;
use duet_core::model::memory::{MemoryError, MemoryPlan, compute_bytes};
use duet_core::model::{KvLayout, KvType, ModelInfo, kv_bytes};
use serde::Serialize;

use self::arithmetic::{decode_ceiling, decode_weight_bytes};
use crate::ledger::{held_bytes, held_scale};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForecastRequest {
    /// Tokens of the longest request, prompt and answer.
    pub context: u64,
    /// Requests at the same time, each as long as that.
    pub n_sequences: u32,
    /// Type of the cache's elements; `None`: each engine's own.
    pub kv_type: Option<KvType>,
    /// Most prompt tokens of a step.
    pub prefill_chunk: u32,
    /// Memory that may be used.
    pub available_bytes: u64,
    /// How fast memory can be read; `None`: no ceilings.
    pub bytes_per_second: Option<f64>,
}

/// What can be said about a model before it is loaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// What it is called.
    pub model: String,
    /// Context it was trained for, in tokens; 0 if the headers do not say.
    pub trained_context: u32,
    /// Tokens of the longest request.
    pub context: u64,
    /// Requests at the same time.
    pub n_sequences: u32,
    /// Memory that may be used.
    pub available_bytes: u64,
    /// The cache of one request as it has to be, in f16, windows honoured.
    pub kv_f16_bytes: Option<u64>,
    /// The same if attention windows were ignored.
    pub kv_f16_without_windows_bytes: Option<u64>,
    /// Bandwidth that the ceilings are from.
    pub bytes_per_second: Option<f64>,
    /// Each engine's answer.
    pub engines: Vec<EngineForecast>,
}

/// One engine's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineForecast {
    /// Its id.
    pub engine: String,
    /// What it would take, or why it cannot run the model or nothing can be said.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What comes of a model on an engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is computed.
    Planned(Planned),
    /// The engine does not take the model.
    Refused {
        /// Why.
        reason: String,
    },
    /// The engine takes it, but its memory cannot be computed from the headers.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Memory and ceilings on one engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// What the weights are held as.
    pub weights: String,
    /// The weights in memory.
    pub weights_bytes: u64,
    /// Type of the cache's elements ("f16").
    pub kv_type: String,
    /// The cache as the engine allocates it, with all requests at their longest.
    pub kv_bytes: u64,
    /// Scratch space: an estimate.
    pub compute_bytes: u64,
    /// All three.
    pub total_bytes: u64,
    /// Whether that is at most what may be used.
    pub fits: bool,
    /// The longest context that fits with as many requests, in steps of 256 tokens and up to the trained one; absent if
    /// not even the shortest does.
    pub longest_context: Option<u64>,
    /// Weights read by a decode step, in bytes.
    pub step_weight_bytes: f64,
    /// Most tokens per second over all requests, at an empty cache and at the full one; absent without a bandwidth.
    pub ceilings: Option<[f64; 2]>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// What every engine of `registry` would make of a model. Milliseconds; reads nothing.
pub fn forecast(registry: &Registry, info: &ModelInfo, request: ForecastRequest) -> Forecast {
    let engines = registry.backends().iter().map(|backend| {
        let outcome = match backend.probe(info) {
            Err(error) => Outcome::Refused { reason: duet_core::chain(&error) },
            Ok(probe) => {
                let layout = probe.kv_layout(request.kv_type, None);
                let held = Held {
                    weights: probe.weights,
                    bits_per_weight: probe.bits_per_weight,
                    layout,
                    notes: probe.notes,
                };
                match planned(info, held, request) {
                    Ok(planned) => Outcome::Planned(planned),
                    Err(error) => Outcome::Unknown { reason: error.to_string() },
                }
            }
        };
        EngineForecast { engine: backend.info().id.to_owned(), outcome }
    });
    let without_windows = ModelInfo {
        layers: info
            .layers
            .iter()
            .map(|layer| duet_core::model::LayerInfo { window: None, ..*layer })
            .collect(),
        ..info.clone()
    };
    let f16 = |info: &ModelInfo| kv_bytes(info, request.context, KvType::F16).ok();
    Forecast {
        model: info.name.clone().unwrap_or_else(|| info.path.display().to_string()),
        trained_context: info.context_length,
        context: request.context,
        n_sequences: request.n_sequences,
        available_bytes: request.available_bytes,
        kv_f16_bytes: f16(info),
        kv_f16_without_windows_bytes: f16(&without_windows),
        bytes_per_second: request.bytes_per_second,
        engines: engines.collect(),
    }
}

/// How an engine would hold a model.
struct Held {
    weights: String,
    bits_per_weight: f64,
    layout: KvLayout,
    notes: Vec<String>,
}

fn planned(info: &ModelInfo, held: Held, request: ForecastRequest) -> Result<Planned, MemoryError> {
    let n = u64::from(request.n_sequences.max(1));
    let scale = held_scale(info, held.bits_per_weight);
    let weights_bytes = held_bytes(info, held.bits_per_weight);
    let memory = |context: u64| -> Result<MemoryPlan, MemoryError> {
        let tokens = context.saturating_mul(n);
        let kv_bytes = held.layout.bytes(info, tokens, tokens, request.n_sequences.max(1))?;
        let compute = compute_bytes(info, request.prefill_chunk, tokens);
        Ok(MemoryPlan::new(weights_bytes, kv_bytes, compute))
    };
    let plan = memory(request.context)?;
    let step_weight_bytes = decode_weight_bytes(info, request.n_sequences.max(1)) * scale;
    let kv_read = n as f64 * kv_bytes(info, request.context, held.layout.kv_type)? as f64;
    let ceilings = request.bytes_per_second.map(|rate| {
        [0.0, kv_read].map(|kv| decode_ceiling(rate, step_weight_bytes + kv, request.n_sequences.max(1)))
    });
    Ok(Planned {
        weights: held.weights,
        weights_bytes,
        kv_type: held.layout.kv_type.to_string(),
        kv_bytes: plan.kv_bytes,
        compute_bytes: plan.compute_bytes,
        total_bytes: plan.total,
        fits: plan.total <= request.available_bytes,
        longest_context: longest(info, request.available_bytes, |context| Ok(memory(context)?.total))?,
        step_weight_bytes,
        ceilings,
        notes: held.notes,
    })
}

/// Tokens by which contexts are tried.
const STEP: u64 = 256;

/// The longest context whose total is at most `available_bytes`, up to the trained one.
fn longest(
    info: &ModelInfo,
    available_bytes: u64,
    total: impl Fn(u64) -> Result<u64, MemoryError>,
) -> Result<Option<u64>, MemoryError> {
    let most = match info.context_length {
        0 => 1 << 20,
        trained => u64::from(trained),
    };
    let fits = |context: u64| Ok(total(context)? <= available_bytes);
    if fits(most)? {
        return Ok(Some(most));
    }
    let (mut low, mut high) = (0, most.div_ceil(STEP)); // in steps; `high` does not fit
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle * STEP)? { low = middle } else { high = middle }
    }
    Ok((low > 0).then_some(low * STEP))
}

impl Forecast {
    /// Whether some engine can run it within the memory.
    pub fn fits(&self) -> bool {
        let fits =
            |engine: &EngineForecast| matches!(&engine.outcome, Outcome::Planned(planned) if planned.fits);
        self.engines.iter().any(fits)
    }
}
