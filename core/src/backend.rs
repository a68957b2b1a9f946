//! The pluggable engine ([`InferenceBackend`]) and what it loads ([`LoadedModel`]).

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::constraint::{Constraint, ConstraintError, ConstraintSpec};
use crate::embedding::Pooling;
use crate::error::BackendError;
use crate::model::{KvAllocation, KvLayout, KvType, ModelInfo};
use crate::request::GenerateRequest;
use crate::runner::{Capabilities, MemoryReport, ModelRunner};
use crate::stream::GenerationStream;
use crate::text::{TokenId, Tokenizer};

/// A device an engine can compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// As the engine names it ("CPU", "CUDA0", "gpu").
    pub name: String,
    /// Marketing name or description.
    pub description: String,
    /// Memory of the device, where the engine says.
    pub total_bytes: Option<u64>,
    /// Free memory, where the engine says.
    pub free_bytes: Option<u64>,
}

/// Who an engine is; everything a measurement has to record about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// Short id: "gguf", "mlx". Used in config, answers and metrics.
    pub id: &'static str,
    /// The library ("llama.cpp", "MLX").
    pub library: &'static str,
    /// The library's version, and the binding crate's.
    pub version: String,
    /// Devices, best first.
    pub devices: Vec<DeviceInfo>,
    /// Compiled-in and active kernels: CPU instruction sets, BLAS, GPU backends, as the library tells.
    pub features: Vec<String>,
    /// Where the library was loaded from, or "static".
    pub library_path: String,
}

/// An engine's answer to "can you run this model?", from headers alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// What weights will be held as, and what of that is exact ("Q4_1 repacked to affine 4-bit, value-exact").
    pub weights: String,
    /// Bits read per weight at decode, as the engine will hold them.
    pub bits_per_weight: f64,
    /// Type of the KV cache's elements, unless [`LoadSpec::kv_type`] says another.
    pub kv_type: KvType,
    /// How the KV cache comes to lie in memory, unless the load says otherwise ([`KvAllocation::for_load`]).
    pub kv_allocation: KvAllocation,
    /// Which of the settings that not every engine has this one honours.
    pub settings: EngineSettings,
    /// Things a user should know (a slow path, an inexact conversion).
    pub notes: Vec<String>,
}

impl Probe {
    /// How the KV cache would lie in memory after a load with these settings of [`LoadSpec`].
    pub fn kv_layout(&self, kv_type: Option<KvType>, kv_unified: Option<bool>) -> KvLayout {
        KvLayout {
            kv_type: kv_type.unwrap_or(self.kv_type),
            allocation: self.kv_allocation.for_load(kv_unified),
        }
    }
}

/// Settings of a load that not every engine has, each under its name in configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineSettings {
    /// [`LoadSpec::weights`].
    pub weights: bool,
    /// [`LoadSpec::kv_unified`].
    pub kv_unified: bool,
}

impl EngineSettings {
    /// The name of a setting that asks for something and would have no effect, if there is one.
    pub fn lacking(self, weights: WeightsMode, kv_unified: Option<bool>) -> Option<&'static str> {
        let asked = [
            ("weights", weights != WeightsMode::Auto, self.weights),
            ("kv_unified", kv_unified.is_some(), self.kv_unified),
        ];
        asked.into_iter().find(|(_, asked, honoured)| *asked && !honoured).map(|(name, ..)| name)
    }
}

/// How MLX holds weights that came quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightsMode {
    /// Whichever is faster on the device.
    #[default]
    Auto,
    /// As quantised.
    Packed,
    /// Dequantised at load (f32 on a CPU).
    Dense,
}

/// What to load and how; already valid.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// The model, as its headers describe it.
    pub model: Arc<ModelInfo>,
    /// The tokenizer of the model's format; both engines get the same object.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Most tokens of one request, prompt and completion.
    pub context_length: u32,
    /// Sequences at once.
    pub parallel: u32,
    /// KV cells shared by all sequences; at least `context_length`.
    pub kv_tokens: u32,
    /// Type of the KV cache's elements; `None` = the engine's own: f16, but f32 for MLX on a CPU, where f16 is slow.
    pub kv_type: Option<KvType>,
    /// CPU threads of the engine; `None` = physical cores.
    pub threads: Option<u32>,
    /// Most prompt tokens evaluated in one step.
    pub prefill_chunk: u32,
    /// MLX: how quantised weights are held. llama.cpp keeps the file's own form ([`EngineSettings`]).
    pub weights: WeightsMode,
    /// llama.cpp: whether all sequences share one KV buffer. `None` = the engine's rule ([`EngineSettings`]).
    pub kv_unified: Option<bool>,
    /// Requests that may wait for a sequence before `Overloaded`.
    pub max_queue: usize,
    /// While prompts are read, running streams keep at least 1/`stream_slowdown` of their pace; below 1.1 counts as 1.1.
    /// Higher: newcomers start sooner, running streams slow down or pause more.
    pub stream_slowdown: f32,
    /// What becomes of the KV cache of finished requests.
    pub prefix_cache: PrefixCacheSpec,
}

/// How prefixes are kept for requests that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixCacheSpec {
    /// Whether requests share and reuse prefixes at all.
    pub enabled: bool,
    /// Most bytes of host memory for prefixes that had to leave the engine's KV cache; 0 keeps none.
    pub host_bytes: u64,
    /// Where prefixes go that had to leave host memory too, and all of them at the end of the process.
    pub disk: Option<DiskTierSpec>,
}

impl Default for PrefixCacheSpec {
    /// On, in the engine's own KV cache only.
    fn default() -> Self {
        Self { enabled: true, host_bytes: 0, disk: None }
    }
}

/// A folder for prefixes. Models may share one; each finds its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskTierSpec {
    /// The folder; made if it is not there.
    pub dir: PathBuf,
    /// Most bytes of the files in it.
    pub max_bytes: u64,
}

impl LoadSpec {
    /// A spec with sensible settings: one sequence, `context_length` at most 4096, queue of 64.
    pub fn new(model: Arc<ModelInfo>, tokenizer: Arc<dyn Tokenizer>) -> Self {
        let context_length = model.context_length.clamp(1, 4096);
        Self {
            model,
            tokenizer,
            context_length,
            parallel: 1,
            kv_tokens: context_length,
            kv_type: None,
            threads: None,
            prefill_chunk: 512,
            weights: WeightsMode::Auto,
            kv_unified: None,
            max_queue: 64,
            stream_slowdown: 1.8,
            prefix_cache: PrefixCacheSpec::default(),
        }
    }
}

/// Told how far a load is, 0.0 to 1.0; returning `false` cancels it. Called from the engine's thread.
pub type LoadProgress = Arc<dyn Fn(f32) -> bool + Send + Sync>;

/// What a loaded model says of itself.
#[derive(Debug, Clone)]
pub struct LoadedInfo {
    /// The engine's id ("gguf", "mlx").
    pub backend: &'static str,
    /// The engine's version, as in [`BackendInfo::version`].
    pub backend_version: String,
    /// The device it runs on.
    pub device: String,
    /// The model.
    pub model: Arc<ModelInfo>,
    /// What the weights are held as ("Q4_1 (file)", "f32, dequantised from Q4_1, value-exact").
    pub weights: String,
    /// Bytes of weights read by one decode step of one sequence.
    pub weight_bytes_per_token: u64,
    /// Type of KV elements ("f16").
    pub kv_type: String,
    /// Kernel choices that change speed or numerics ("flash attention on", "OpenBLAS 0.3.31, 2 threads").
    pub notes: Vec<String>,
    /// How long the load took.
    pub load_time: std::time::Duration,
}

/// A job that has the runner for itself, on the engine's thread. For the bench, which measures steps there.
pub type RunnerJob = Box<dyn FnOnce(&mut dyn ModelRunner) + Send + 'static>;

/// How a loaded model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The engine's thread answers.
    Ready,
    /// It is being unloaded.
    ShuttingDown,
    /// It is gone; only unloading makes sense.
    Crashed,
}

/// Counters of a loaded model; cheap to read at any time, from any thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EngineLoad {
    /// Requests waiting for a sequence.
    pub n_waiting: usize,
    /// Requests that hold a sequence.
    pub n_running: usize,
    /// KV cells in use.
    pub n_cells_used: u32,
    /// Forward passes so far.
    pub n_forward_passes: u64,
    /// Requests that ended because the client left.
    pub n_cancelled: u64,
    /// KV cells there are.
    pub n_cells: u32,
    /// Prompt tokens evaluated so far; cached ones are not among them.
    pub n_prompt_tokens: u64,
    /// Tokens generated so far.
    pub n_completion_tokens: u64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub n_prefix_queried: u64,
    /// Of these, found there and not evaluated.
    pub n_prefix_hits: u64,
    /// Times a running request had to give its cells to others and wait for them again.
    pub n_preempted: u64,
}

/// A pluggable engine. A new engine is a crate with this trait and one line in the composition root.
#[async_trait]
pub trait InferenceBackend: Send + Sync + 'static {
    /// Who this is. May ask the library; milliseconds.
    fn info(&self) -> BackendInfo;

    /// Whether this model can run here, from its headers alone, in milliseconds.
    ///
    /// # Errors
    /// [`BackendError::UnsupportedArchitecture`], [`BackendError::NotCompiledIn`], [`BackendError::Unsupported`] with
    /// what is in the way.
    fn probe(&self, model: &ModelInfo) -> Result<Probe, BackendError>;

    /// Loads the model on the engine's own thread.
    ///
    /// # Errors
    /// `LoadFailed`, `InsufficientMemory`, `UnsupportedArchitecture`, `NotCompiledIn`, `LoadCancelled`.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the load and frees what it had taken.
    async fn load(
        &self,
        spec: LoadSpec,
        progress: LoadProgress,
    ) -> Result<Arc<dyn LoadedModel>, BackendError>;
}

/// A model that answers requests; what `server` and `bench` hold. All methods may be called from any thread.
#[async_trait]
pub trait LoadedModel: Send + Sync + 'static {
    /// What was loaded.
    fn info(&self) -> &LoadedInfo;

    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Its tokenizer.
    fn tokenizer(&self) -> &Arc<dyn Tokenizer>;

    /// Compiles a constraint for its vocabulary. On the caller's thread, which it may keep for tens of milliseconds; the
    /// first one also pays for a table of the whole vocabulary.
    ///
    /// # Errors
    /// [`ConstraintError`]: malformed, not enforceable, or too complex.
    fn constraint(&self, spec: ConstraintSpec) -> Result<Constraint, ConstraintError>;

    /// Queues a request. Exactly one terminal item comes on the stream: a `Finished` event or an `Err`, nothing after
    /// it. Dropping the stream cancels the request and frees its sequence within one step, wherever it stands.
    ///
    /// # Errors
    /// At once and without queueing: `InvalidRequest`, `Unsupported`, `ContextLengthExceeded`, `Overloaded`,
    /// `ShuttingDown`, `EngineCrashed`.
    fn generate(&self, request: GenerateRequest) -> Result<GenerationStream, BackendError>;

    /// The pooled states of texts, one vector of [`Capabilities::embedding_width`] numbers each, not normalised. Texts are
    /// evaluated one after another, a part at a time, between the steps of running streams, which keep their share as beside
    /// prompts ([`LoadSpec::stream_slowdown`]).
    ///
    /// # Errors
    /// `Unsupported`, `InvalidRequest`, `ContextLengthExceeded`, `Overloaded`, `ShuttingDown`, `EngineCrashed`, `Engine`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves out what is not evaluated yet.
    async fn embed(&self, texts: Vec<Vec<TokenId>>, pooling: Pooling) -> Result<Vec<Vec<f32>>, BackendError>;

    /// The scores that a model gives pairs of texts ([`Tokenizer::encode_pair`]), as its classifier says them: higher is
    /// better, without bounds. Evaluated as the texts of [`LoadedModel::embed`].
    ///
    /// # Errors
    /// As [`LoadedModel::embed`]; `Unsupported` without [`Capabilities::ranks`].
    async fn rank(&self, pairs: Vec<Vec<TokenId>>) -> Result<Vec<f32>, BackendError>;

    /// Runs a job with the runner to itself, when no request is running; requests queue up meanwhile. All sequences are
    /// released before and after. Resolves when the job has returned.
    ///
    /// # Errors
    /// `ShuttingDown`, `EngineCrashed`; `Unsupported` where there is no runner in this process.
    async fn run_exclusive(&self, job: RunnerJob) -> Result<(), BackendError>;

    /// Counters, without asking the engine's thread.
    fn load(&self) -> EngineLoad;

    /// Memory as the engine counted it last (after the load and after each request).
    fn memory(&self) -> MemoryReport;

    /// How it is doing.
    fn health(&self) -> Health;

    /// Stops admitting, ends running requests with `ShuttingDown`, frees the model; resolves when that is done.
    /// A second call resolves too.
    async fn unload(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_effect_have_a_name() {
        let (none, both) = (EngineSettings::default(), EngineSettings { weights: true, kv_unified: true });
        assert_eq!(none.lacking(WeightsMode::Auto, None), None, "nothing is asked for");
        assert_eq!(none.lacking(WeightsMode::Packed, Some(true)), Some("weights"));
        assert_eq!(none.lacking(WeightsMode::Auto, Some(true)), Some("kv_unified"));
        assert_eq!(both.lacking(WeightsMode::Dense, Some(false)), None);
        let weights = EngineSettings { weights: true, ..none };
        assert_eq!(weights.lacking(WeightsMode::Dense, Some(false)), Some("kv_unified"));
    }
}
