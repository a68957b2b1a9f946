//! The engine as core's `InferenceBackend`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use duet_core::engine::{Engine, EngineThread};
use duet_core::model::{KvType, ModelFormat, ModelInfo};
use duet_core::{
    BackendError, BackendInfo, DeviceInfo, InferenceBackend, LoadProgress, LoadSpec, LoadedInfo, LoadedModel,
    Probe, WeightsMode,
};

use crate::ID;
use crate::cache::CacheShape;
use crate::loader::{self, Held, LoadPlan, Placement};
use crate::memory::available_bytes;
use crate::probe::Inventory;
use crate::raw::{self, blas, devices};
use crate::runner::{MlxRunner, RunnerLimits};
use crate::tensor::{Device, ElementType, keep_resident, on_stream};

/// Tokens that a step may have at least, whatever the prefill chunk.
const LEAST_STEP_TOKENS: u32 = 512;

/// The thread that all models of this process live on. It is never given up: libmlx frees a thread's streams only in bulk.
static THREAD: Mutex<Option<EngineThread>> = Mutex::new(None);

fn engine_thread() -> Result<EngineThread, BackendError> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    match thread.as_ref() {
        Some(thread) => Ok(thread.clone()),
        None => Ok(thread.insert(EngineThread::spawn("mlx")?).clone()),
    }
}

/// The MLX engine.
#[derive(Debug, Clone)]
pub struct MlxBackend {
    info: BackendInfo,
    device: Device,
    /// What Metal recommends to keep resident.
    working_set_bytes: Option<u64>,
}

impl MlxBackend {
    /// The engine over the libmlx of this process.
    ///
    /// # Errors
    /// `Engine` if libmlx is another release than this program was built for, or cannot be asked for its devices.
    pub fn new() -> Result<Self, BackendError> {
        let failed = |error: raw::RawError| BackendError::engine("starting MLX", error);
        raw::start().map_err(failed)?;
        let devices = devices::devices().map_err(failed)?;
        let working_set_bytes = devices.iter().find_map(|device| device.working_set_bytes);
        let device = if devices.iter().any(|device| device.is_gpu) { Device::Gpu } else { Device::Cpu };
        let info = BackendInfo {
            id: ID,
            library: "MLX",
            version: version(),
            devices: devices.into_iter().map(device_info).collect(),
            features: features(device),
            library_path: devices::library_path().unwrap_or_else(|| "static".to_owned()),
        };
        Ok(Self { info, device, working_set_bytes })
    }

    fn placement(&self, mode: WeightsMode, inventory: &Inventory, model: &ModelInfo) -> Placement {
        let compute = match (self.device, model.format) {
            (Device::Cpu, _) => ElementType::F32,
            (Device::Gpu, ModelFormat::Gguf) => ElementType::F16,
            (Device::Gpu, ModelFormat::MlxDirectory) => loader::compute_type(model),
        };
        let placement = Placement { device: self.device, compute, held: Held::of(mode, self.device) };
        let too_large = available_bytes().is_some_and(|free| inventory.n_bytes(placement) > free);
        match mode {
            // Slow is better than not at all.
            WeightsMode::Auto if too_large => Placement { held: Held::Packed, ..placement },
            _ => placement,
        }
    }

    /// CPUs widen anything else at every step.
    fn default_kv_type(&self) -> KvType {
        match self.device {
            Device::Cpu => KvType::F32,
            Device::Gpu => KvType::F16,
        }
    }

    fn kv_type(&self, spec: &LoadSpec) -> Result<ElementType, BackendError> {
        match spec.kv_type.unwrap_or(self.default_kv_type()) {
            KvType::F32 => Ok(ElementType::F32),
            KvType::F16 => Ok(ElementType::F16),
            KvType::Bf16 => Ok(ElementType::Bf16),
            other => Err(BackendError::Unsupported {
                feature: format!("a KV cache of type {other}").into(),
                backend: ID.into(),
            }),
        }
    }
}

fn version() -> String {
    format!("{} (mlx-rs 0.33.0)", raw::BUILT_FOR)
}

fn device_info(device: devices::RawDevice) -> DeviceInfo {
    let name = if device.is_gpu { "GPU" } else { "CPU" };
    DeviceInfo {
        name: name.to_owned(),
        description: device.name,
        total_bytes: device.memory_bytes,
        free_bytes: None,
    }
}

fn features(device: Device) -> Vec<String> {
    let mut features = Vec::new();
    if let Some(blas) = blas::describe() {
        features.push(format!("{} ({})", blas.config, blas.library));
    }
    if let Some(n) = raw::kernels::n_lanes().filter(|_| device == Device::Cpu) {
        features.push(format!("own kernels, {n} floats at a time"));
    }
    if cfg!(target_os = "linux") && device == Device::Cpu {
        features.push("compile off".to_owned());
    }
    features
}

#[async_trait]
impl InferenceBackend for MlxBackend {
    fn info(&self) -> BackendInfo {
        self.info.clone()
    }

    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError> {
        let inventory = Inventory::of(model)?;
        Ok(inventory.probe(self.placement(WeightsMode::Auto, &inventory, model), self.default_kv_type()))
    }

    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let kv_type = self.kv_type(&spec)?;
        let inventory = Inventory::of(&spec.model)?;
        let placement = self.placement(spec.weights, &inventory, &spec.model);
        check_memory(&spec.model, inventory.n_bytes(placement))?;
        let working_set_bytes = self.working_set_bytes;
        let job = LoadJob { spec: spec.clone(), inventory, placement, kv_type, working_set_bytes };
        let version = self.info.version.clone();
        Engine::start(engine_thread()?, &spec, progress, move |control| {
            on_stream(|_| job.run(version, &|fraction| control.check(fraction)))
        })
        .await
    }
}

fn check_memory(model: &ModelInfo, need_bytes: u64) -> Result<(), BackendError> {
    let Some(available_bytes) = available_bytes() else { return Ok(()) };
    if need_bytes <= available_bytes {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let detail = format!(
        "the weights of {} would take {:.2} GiB and {:.2} GiB are free",
        model.path.display(),
        gib(need_bytes),
        gib(available_bytes)
    );
    Err(BackendError::InsufficientMemory { need_bytes, available_bytes, detail })
}

/// A load on the engine's thread.
struct LoadJob {
    spec: LoadSpec,
    inventory: Inventory,
    placement: Placement,
    kv_type: ElementType,
    working_set_bytes: Option<u64>,
}

impl LoadJob {
    fn run(
        self,
        version: String,
        progress: loader::Progress<'_>,
    ) -> Result<(MlxRunner, LoadedInfo), BackendError> {
        let Self { spec, inventory, placement, kv_type, working_set_bytes } = self;
        blas::set_threads(spec.threads.and_then(|n| std::num::NonZeroUsize::new(n as usize)));
        if let Some(n_bytes) = working_set_bytes.filter(|_| placement.device == Device::Gpu)
            && let Err(error) = keep_resident(n_bytes)
        {
            tracing::warn!(%error, "weights may be paged out between requests");
        }
        let plan = LoadPlan { placement, context_length: spec.context_length as usize };
        let decoder = loader::build(&spec.model, plan, progress)?;
        let info = LoadedInfo {
            backend: ID,
            backend_version: version,
            device: if placement.device == Device::Gpu { "GPU" } else { "CPU" }.to_owned(),
            model: spec.model.clone(),
            weights: inventory.describe(placement).0,
            weight_bytes_per_token: decoder.bytes_per_token() as u64,
            kv_type: kv_type.to_string(),
            notes: notes(placement, kv_type, spec.weights),
            load_time: Duration::ZERO,
        };
        let limits = RunnerLimits {
            max_sequences: spec.parallel,
            context_length: spec.context_length,
            kv_tokens: spec.kv_tokens,
            max_step_tokens: spec.prefill_chunk.max(LEAST_STEP_TOKENS).max(spec.parallel),
        };
        let cache = CacheShape {
            n_kv_heads: decoder.config.n_kv_heads,
            head_dim: decoder.config.head_dim,
            ty: kv_type,
        };
        let fingerprint = fingerprint(&spec.model, kv_type);
        Ok((MlxRunner::new(decoder, limits, cache, fingerprint), info))
    }
}

fn notes(placement: Placement, kv_type: ElementType, mode: WeightsMode) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(blas) = blas::describe().filter(|_| placement.device == Device::Cpu) {
        notes.push(format!("{}, {} threads", blas.config, blas.n_threads));
    }
    if placement.device == Device::Cpu && kv_type != ElementType::F32 {
        notes.push(format!(
            "a {kv_type} KV cache is widened at every step on a CPU, which is slower than f32"
        ));
    }
    if placement.held == Held::Packed && Held::of(mode, placement.device) == Held::Dense {
        notes.push("weights stay packed: dequantised they would not fit the free memory".to_owned());
    }
    notes
}

/// Tells this model's snapshots from others'.
fn fingerprint(model: &ModelInfo, kv_type: ElementType) -> u64 {
    let mut hasher = DefaultHasher::new();
    (raw::BUILT_FOR, kv_type, model.weight_bytes, model.n_params).hash(&mut hasher);
    for file in &model.files {
        file.hash(&mut hasher);
        let stat = std::fs::metadata(file).ok();
        stat.and_then(|stat| stat.modified().ok()).hash(&mut hasher);
    }
    hasher.finish()
}
