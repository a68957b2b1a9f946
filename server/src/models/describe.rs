//! What is known of a model from its headers: what it is, which engine takes it, and how it would be loaded.

use std::sync::Arc;

use duet_core::BackendError;
use duet_core::backend::{LoadSpec, PrefixCacheSpec, Probe, WeightsMode};
use duet_core::model::memory::{FitRequest, MemoryError, fit};
use duet_core::model::{ModelInfo, inspect};
use duet_core::registry::{Registry, Selection};
use duet_core::text::Tokenizer;

use crate::config::ModelConfig;
use crate::error::{ApiError, ErrorCode};

/// Context for models whose cache cannot be computed, unless the config says another.
const CAUTIOUS_CONTEXT: u32 = 4096;

/// A model before it is loaded.
#[derive(Clone)]
pub(crate) struct Described {
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) selection: Selection,
    pub(crate) engine: &'static str,
    pub(crate) plan: Plan,
}

/// The sizes a load would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) context: u32,
    pub(crate) parallel: u32,
    pub(crate) kv_tokens: u32,
    pub(crate) need_bytes: u64,
    /// Why these, in one line.
    pub(crate) reason: String,
}

impl Described {
    /// Reads headers, asks the engines, does the sums. Milliseconds, but blocking.
    ///
    /// # Errors
    /// `model_load_failed`, `unsupported_architecture`, `engine_not_compiled`, `insufficient_memory` with the
    /// arithmetic.
    pub(super) fn read(
        config: &ModelConfig,
        registry: &Registry,
        budget_bytes: u64,
    ) -> Result<Self, ApiError> {
        let info = inspect(&config.path).map_err(BackendError::from)?;
        let selection = registry.select(&info, &config.engine)?;
        check_settings(config, &selection)?;
        let plan = plan(&info, &selection.probe, config, budget_bytes)?;
        let engine = selection.backend.info().id;
        Ok(Self { info: Arc::new(info), selection, engine, plan })
    }

    /// The load that the plan stands for.
    pub(super) fn spec(
        &self,
        config: &ModelConfig,
        tokenizer: Arc<dyn Tokenizer>,
        prefix_cache: PrefixCacheSpec,
    ) -> LoadSpec {
        LoadSpec {
            context_length: self.plan.context,
            parallel: self.plan.parallel,
            kv_tokens: self.plan.kv_tokens,
            kv_type: config.kv_type,
            threads: config.threads,
            prefill_chunk: config.prefill_chunk,
            weights: config.weights,
            kv_unified: config.kv_unified,
            max_queue: config.max_queue,
            stream_slowdown: config.stream_slowdown,
            prefix_cache,
            ..LoadSpec::new(self.info.clone(), tokenizer)
        }
    }
}

/// Settings that the engine does not have would be ignored in silence.
fn check_settings(config: &ModelConfig, selection: &Selection) -> Result<(), ApiError> {
    let Some(setting) = selection.probe.settings.lacking(config.weights, config.kv_unified) else {
        return Ok(());
    };
    let (name, engine, reason) = (&config.name, selection.backend.info().id, &selection.reason);
    let message = format!(
        "the settings of model `{name}` do not suit it: models.{name}.{setting} has no effect on the engine `{engine}` \
         ({reason})"
    );
    Err(ApiError::new(ErrorCode::ModelLoadFailed, message))
}

fn plan(info: &ModelInfo, probe: &Probe, config: &ModelConfig, budget_bytes: u64) -> Result<Plan, ApiError> {
    let request = FitRequest {
        context: config.context,
        parallel: config.parallel,
        kv_tokens: config.kv_tokens,
        kv_type: config.kv_type.unwrap_or(probe.kv_type),
        allocation: probe.kv_allocation.for_load(config.kv_unified),
        n_rows: config.prefill_chunk,
        weights_bytes: weights_bytes(info, probe, config.weights),
    };
    match fit(info, budget_bytes, request) {
        Ok(fit) => Ok(Plan {
            context: fit.context,
            parallel: fit.parallel,
            kv_tokens: fit.kv_tokens,
            need_bytes: fit.plan.total,
            reason: fit.reason,
        }),
        Err(MemoryError::Insufficient { need_bytes, available_bytes, arithmetic }) => {
            let detail = format!("model `{}` does not fit into memory: {arithmetic}", config.name);
            Err(BackendError::InsufficientMemory { need_bytes, available_bytes, detail }.into())
        }
        Err(error @ MemoryError::UnknownCache { .. }) => {
            Ok(cautious(info, config, request.weights_bytes, &error))
        }
        // The server's settings contradict the model; no request can mend that.
        Err(error) => {
            let message = format!("the settings of model `{}` do not suit it: {error}", config.name);
            Err(ApiError::new(ErrorCode::ModelLoadFailed, message))
        }
    }
}

/// The weights as the engine will hold them, where that is not what the files have.
fn weights_bytes(info: &ModelInfo, probe: &Probe, mode: WeightsMode) -> Option<u64> {
    let bits = match mode {
        WeightsMode::Packed => return None,
        WeightsMode::Dense => probe.bits_per_weight.max(32.0),
        WeightsMode::Auto => probe.bits_per_weight,
    };
    // Only dense weights differ enough to matter; a probe that does not count gives 0.
    (bits > info.bits_per_weight * 1.05).then_some((info.n_params as f64 * bits / 8.0) as u64)
}

fn cautious(info: &ModelInfo, config: &ModelConfig, weights_bytes: Option<u64>, error: &MemoryError) -> Plan {
    let trained = info.context_length.max(1);
    let context = config.context.unwrap_or(CAUTIOUS_CONTEXT.min(trained));
    let parallel = config.parallel.unwrap_or(1);
    Plan {
        context,
        parallel,
        kv_tokens: config.kv_tokens.unwrap_or_else(|| context.saturating_mul(parallel)),
        need_bytes: weights_bytes.unwrap_or(info.weight_bytes),
        reason: format!("{error}: context {context} and {parallel} sequences to be careful"),
    }
}
