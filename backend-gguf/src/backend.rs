//! llama.cpp as a pluggable engine: who it is, what it can run, and how a model gets onto a thread of its own.

use std::sync::Arc;

use async_trait::async_trait;
use duet_core::engine::{Engine, EngineThread, LoadControl};
use duet_core::model::{KvAllocation, KvType, ModelFormat, ModelInfo, TokenizerKind};
use duet_core::{
    BackendError, BackendInfo, DeviceInfo, EngineSettings, InferenceBackend, LoadProgress, LoadSpec,
    LoadedInfo, LoadedModel, Probe,
};

use crate::load::{KV_UNIFIED, Loaded, load_encoder, load_runner};
use crate::raw::{ContextSettings, FlashAttention, SWA_FULL, library};
use crate::settings::GgufSettings;
use crate::{ID, VERSIONS, cpu};

/// The GGUF engine. Cheap to make; the library is initialised at the first question to it.
#[derive(Debug, Clone, Default)]
pub struct GgufBackend {
    settings: GgufSettings,
}

impl GgufBackend {
    /// An engine with these settings instead of the measured defaults.
    pub fn new(settings: GgufSettings) -> Self {
        Self { settings }
    }
}

fn version() -> String {
    format!("{} (ggml {}; {VERSIONS})", library().version, library().ggml_version)
}

#[async_trait]
impl InferenceBackend for GgufBackend {
    fn info(&self) -> BackendInfo {
        let library = library();
        let mut devices = library.devices();
        devices.sort_by_key(|device| device.is_cpu); // stable: GPUs first, in the library's order
        BackendInfo {
            id: ID,
            library: "llama.cpp",
            version: version(),
            devices: devices
                .into_iter()
                .map(|device| DeviceInfo {
                    name: device.name,
                    description: device.description,
                    total_bytes: Some(device.total_bytes).filter(|&bytes| bytes > 0),
                    free_bytes: Some(device.free_bytes).filter(|&bytes| bytes > 0),
                })
                .collect(),
            features: cpu::features(&library.system_info),
            library_path: "static".into(),
        }
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        let unsupported = |detail: &str| BackendError::UnsupportedArchitecture {
            architecture: model.architecture.clone(),
            backend: ID,
            detail: detail.to_owned(),
        };
        if model.format != ModelFormat::Gguf {
            return Err(unsupported("it runs .gguf files; this is an MLX directory"));
        }
        if !library().knows_architecture(&model.architecture) {
            return Err(unsupported(&format!("llama.cpp {} does not know it", library().version)));
        }
        if !matches!(model.tokenizer, TokenizerKind::Gguf { .. }) {
            return Err(unsupported("the file has no vocabulary"));
        }
        let mut notes = Vec::new();
        if model.has_windows() {
            notes.push(
                "windowed layers keep their window only: a sequence cannot be cut or forked at any position"
                    .into(),
            );
        }
        notes.extend(cpu::missing(&library().system_info));
        Ok(Probe {
            weights: weights(model),
            bits_per_weight: model.bits_per_weight,
            kv_type: KvType::default(),
            kv_allocation: KvAllocation::LlamaCpp {
                n_ubatch: self.settings.micro_batch,
                unified: KV_UNIFIED,
                swa_full: SWA_FULL,
            },
            settings: EngineSettings { weights: false, kv_unified: true },
            notes,
        })
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        self.probe(&spec.model)?;
        let thread = EngineThread::spawn("duet-gguf")?;
        let settings = self.settings.clone();
        let build_spec = spec.clone();
        if spec.model.encoder {
            let build = move |control: &LoadControl| {
                let loaded = load_encoder(&build_spec, &settings, &mut |fraction| control.report(fraction))?;
                Ok(describe(loaded, &build_spec, &settings))
            };
            return Engine::start(thread, &spec, progress, build).await;
        }
        let build = move |control: &LoadControl| {
            let loaded = load_runner(&build_spec, &settings, &mut |fraction| control.report(fraction))?;
            Ok(describe(loaded, &build_spec, &settings))
        };
        Engine::start(thread, &spec, progress, build).await
    }
}

fn describe<R>(loaded: Loaded<R>, spec: &LoadSpec, settings: &GgufSettings) -> (R, LoadedInfo) {
    let Loaded { runner, context } = loaded;
    if let Some(line) = cpu::missing(&library().system_info) {
        tracing::warn!("{line}");
    }
    let info = LoadedInfo {
        backend: ID,
        backend_version: version(),
        device: library().devices().into_iter().min_by_key(|d| d.is_cpu).map_or("CPU".into(), |d| d.name),
        model: spec.model.clone(),
        weights: weights(&spec.model),
        weight_bytes_per_token: weight_bytes_per_token(&spec.model),
        kv_type: format!("{:?}", context.kv_type).to_lowercase(),
        notes: notes(&context, settings),
        load_time: std::time::Duration::ZERO, // measured by the engine
    };
    (runner, info)
}

fn weights(model: &ModelInfo) -> String {
    format!("{} as in the file", model.quantization)
}

/// What one decode step of one sequence reads: everything but the embedding table (unless it is the head too), and of the
/// experts those in use.
fn weight_bytes_per_token(model: &ModelInfo) -> u64 {
    let embedding = if model.tied_embeddings { 0 } else { model.split.embedding_bytes };
    let used = match model.n_experts {
        0 => 0,
        n => model.split.expert_bytes / u64::from(n) * u64::from(model.n_experts_used),
    };
    (model.weight_bytes + used).saturating_sub(embedding + model.split.expert_bytes)
}

fn notes(context: &ContextSettings, settings: &GgufSettings) -> Vec<String> {
    let mut notes = vec![
        format!("{} threads", context.n_threads),
        match context.flash_attention {
            FlashAttention::Auto => "flash attention as llama.cpp chooses",
            FlashAttention::On => "flash attention on",
            FlashAttention::Off => "flash attention off",
        }
        .to_owned(),
        match context.purpose.encodes() {
            true => format!("texts of up to {} tokens in one pass, no cache", context.n_batch),
            false => format!(
                "KV {}, {} cells",
                if context.kv_unified { "unified" } else { "split" },
                context.n_cells
            ),
        },
        format!("batch {}, micro-batch {}", context.n_batch, context.n_ubatch),
    ];
    notes.push(
        if settings.repack { "weights repacked where this CPU gains" } else { "weights as in the file" }
            .into(),
    );
    notes.extend(cpu::missing(&library().system_info));
    notes
}
