//! A model that is loaded.

use std::sync::Arc;

use duet_core::Pooling;
use duet_core::backend::{Health, LoadedModel};
use duet_core::registry::TextAssets;
use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::error::ApiError;
use crate::metrics::ModelMetrics;
use crate::models::describe::Described;
use crate::reasoning::Tags;
use crate::tools::Family;
use crate::tools::speech::{Setting, Speech};

/// A loaded model with everything that its requests need.
pub(crate) struct Resident {
    pub(crate) config: Arc<ModelConfig>,
    pub(crate) described: Described,
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) assets: TextAssets,
    /// `system_fingerprint`: engine version, file and settings in one word.
    pub(crate) fingerprint: String,
    pub(crate) metrics: ModelMetrics,
    /// Most host memory that its prefixes may take, beside what was planned for weights and KV cache.
    pub(crate) cache_bytes: u64,
    /// How it writes calls and thinking.
    pub(crate) speech: Speech,
}

impl Resident {
    pub(super) fn new(
        config: Arc<ModelConfig>,
        described: Described,
        model: Arc<dyn LoadedModel>,
        assets: TextAssets,
        metrics: ModelMetrics,
        cache_bytes: u64,
    ) -> Self {
        let fingerprint = fingerprint(&config, &described, model.as_ref());
        let template = assets.template.as_deref().ok();
        let calls = Setting::parse(config.tool_parser, &Family::NAMES);
        let reasoning = Setting::parse(config.reasoning_parser, &Tags::NAMES);
        let (calls, reasoning) = (calls.unwrap_or(Setting::Auto), reasoning.unwrap_or(Setting::Auto));
        let speech = Speech::new(template, assets.tokenizer.as_ref(), calls, reasoning);
        Self { config, described, model, assets, fingerprint, metrics, cache_bytes, speech }
    }

    /// How its states become an embedding: as the settings say, else the model, else their mean.
    pub(crate) fn pooling(&self) -> Pooling {
        self.config.pooling.or(self.described.info.pooling).unwrap_or(Pooling::Mean)
    }

    /// A 400 that says which model and engine cannot do it.
    pub(crate) fn cannot(&self, what: &str, why: &str) -> ApiError {
        let (name, engine) = (&self.config.name, self.model.info().backend);
        let message = format!("{what} is not supported by model `{name}` on the engine `{engine}`: {why}");
        ApiError::unsupported("model", message)
    }

    pub(crate) fn is_crashed(&self) -> bool {
        self.model.health() == Health::Crashed
    }
}

fn fingerprint(config: &ModelConfig, described: &Described, model: &dyn LoadedModel) -> String {
    let info = model.info();
    let modified =
        described.info.files.iter().filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max();
    let plan = &described.plan;
    let all = format!(
        "{} {} {:?} {} {modified:?} {} {} {} {} {:?} {:?} {}",
        info.backend,
        info.backend_version,
        described.info.files,
        described.info.file_bytes,
        plan.context,
        plan.parallel,
        plan.kv_tokens,
        info.kv_type,
        config.weights,
        config.kv_unified,
        info.weights,
    );
    let hash = Sha256::digest(all.as_bytes());
    let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("fp_{hex}")
}
